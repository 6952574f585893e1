//! The body of an UPDATE in each kind of session: never a panic; what was read and is sound is written and read again
//! as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::wire::{Family, Message, SessionContext, SessionKind, Update};

// The first octet chooses the session, the rest is the body.
fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let chosen = |bit: u8| choice & (1 << bit) != 0;
    let families = if chosen(3) { vec![Family::IPV4_UNICAST, Family::IPV6_UNICAST] } else { Vec::new() };
    let session = SessionContext {
        kind: if chosen(0) { SessionKind::Internal } else { SessionKind::External },
        four_octet_as: !chosen(1),
        extended_messages: chosen(2),
        add_path_receive: families.clone(),
        add_path_send: families,
        extended_next_hop: chosen(4),
    };
    let Ok(length) = u16::try_from(19 + body.len()) else { return };
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&length.to_be_bytes());
    message.push(2);
    message.extend_from_slice(body);
    match Message::decode(&message, &session) {
        Err(error) => {
            let mut out = BytesMut::new();
            let _ = error.to_string();
            let answer = error.notification();
            let _ = answer.to_string();
            // A NOTIFICATION carries the culprit, which may fill the message that it came in.
            let _ = Message::from(answer).encode(&session, &mut out);
        }
        Ok(Message::Update(update)) => check(update, &session),
        Ok(other) => panic!("an UPDATE was read as {other:?}"),
    }
});

fn check(update: Update, session: &SessionContext) {
    for error in &update.errors {
        let _ = error.to_string();
    }
    let announced: usize = update.announcements().map(|(_, nlri)| nlri.iter().count()).sum();
    let counted: usize = update.announcements().map(|(_, nlri)| nlri.len()).sum();
    assert_eq!(announced, counted);
    if update.treat_as_withdraw() {
        assert_eq!(announced, 0);
        return;
    }
    // The merge of AS4_PATH goes one way only (RFC 6793).
    if !session.four_octet_as {
        return;
    }
    let sound = Message::Update(Update { errors: Vec::new(), ..update });
    let mut out = BytesMut::new();
    match sound.encode(session, &mut out) {
        Ok(()) => assert_eq!(Message::decode(&out, session).as_ref(), Ok(&sound)),
        Err(error) => panic!("{error}: what was read in {} octets must fit again", out.len()),
    }
}
