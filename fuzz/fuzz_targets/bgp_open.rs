//! The body of an OPEN: never a panic; what was read and fits the short form is written and read again as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::wire::{Family, Message, SessionContext};

fuzz_target!(|body: &[u8]| {
    let session = SessionContext::default();
    let Ok(length) = u16::try_from(19 + body.len()) else { return };
    let mut bytes = vec![0xff; 16];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(1);
    bytes.extend_from_slice(body);
    let message = match Message::decode(&bytes, &session) {
        Ok(message) => message,
        Err(error) => {
            let _ = (error.to_string(), error.notification().to_string());
            return;
        }
    };
    let Message::Open(open) = &message else { panic!("an OPEN was read as {message:?}") };
    assert!(
        open.four_octet_asn() != 0 && !open.router_id.is_unspecified() && !matches!(open.hold_time, 1 | 2)
    );
    assert!(!open.families().is_empty());
    for family in open.families() {
        let _ = (open.add_path(family), open.has_extended_next_hop(family, Family::IPV6_UNICAST.afi));
    }
    let _ = open.graceful_restart();
    let mut out = BytesMut::new();
    if message.encode(&session, &mut out).is_ok() {
        assert_eq!(Message::decode(&out, &session), Ok(message));
    }
});
