//! A stream of messages: frames stay within bounds, each message is read or refused, and what was read is written and
//! read again as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::wire::{HEADER_LEN, Message, SessionContext, Update, frame};

fuzz_target!(|stream: &[u8]| {
    for extended_messages in [false, true] {
        let session = SessionContext { extended_messages, ..SessionContext::default() };
        let mut rest = stream;
        while let Ok(Some(length)) = frame(rest, session.max_message_len()) {
            assert!((HEADER_LEN..=rest.len().min(session.max_message_len())).contains(&length));
            let (message, tail) = rest.split_at(length);
            rest = tail;
            check(message, &session);
        }
    }
});

fn check(bytes: &[u8], session: &SessionContext) {
    let message = match Message::decode(bytes, session) {
        Ok(Message::Update(update)) if update.treat_as_withdraw() => return,
        Ok(Message::Update(update)) => Message::Update(Update { errors: Vec::new(), ..update }),
        Ok(message) => message,
        Err(error) => {
            let _ = (error.to_string(), error.notification().to_string());
            return;
        }
    };
    if let Message::Notification(notification) = &message {
        let _ = (notification.to_string(), notification.shutdown_text(), notification.hard_reset_reason());
    }
    let mut out = BytesMut::new();
    match message.encode(session, &mut out) {
        Ok(()) => assert_eq!(Message::decode(&out, session), Ok(message)),
        // The long form of RFC 9072 is read but not written.
        Err(error) => assert!(matches!(message, Message::Open(_)), "{error}"),
    }
}
