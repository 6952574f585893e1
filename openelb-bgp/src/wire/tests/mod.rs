//! Tests of the codec: each message, the table of RFC 7606 row by row, vectors, round trips.

mod builder;
mod messages;
mod parts;
mod roundtrip;
mod rules;
mod update;
mod vectors;

use bytes::BytesMut;

use super::*;

/// Octets from hexadecimal digits; blanks and what follows `;` on a line are left out.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .lines()
        .flat_map(|line| line.split(';').next().unwrap().bytes())
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A message of this type around a body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// An attribute with a length of one octet.
fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut attribute = vec![flags, code, u8::try_from(value.len()).unwrap()];
    attribute.extend(value);
    attribute
}

/// An UPDATE.
fn update_bytes(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    message(2, &body)
}

/// ORIGIN IGP, AS_PATH 64512, NEXT_HOP 192.0.2.1.
fn mandatory() -> Vec<u8> {
    hex("40 01 01 00  40 02 06 02 01 0000fc00  40 03 04 c0000201")
}

/// 203.0.113.0/24.
const NLRI: [u8; 4] = [24, 203, 0, 113];

fn external() -> SessionContext {
    SessionContext::default()
}

fn internal() -> SessionContext {
    SessionContext { kind: SessionKind::Internal, ..SessionContext::default() }
}

fn decode_update(bytes: &[u8], cx: &SessionContext) -> Result<Update, DecodeError> {
    match Message::decode(bytes, cx)? {
        Message::Update(update) => Ok(update),
        other => panic!("no UPDATE but {other:?}"),
    }
}

fn encode(message: &Message, cx: &SessionContext) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(cx, &mut out).unwrap();
    out.to_vec()
}

fn prefixes(list: &NlriList) -> Vec<String> {
    list.iter().map(|nlri| nlri.to_string()).collect()
}

/// Code, subcode and data of the answer to a message.
fn answer(bytes: &[u8], cx: &SessionContext) -> (u8, u8, Vec<u8>) {
    let notification = Message::decode(bytes, cx).unwrap_err().notification();
    (notification.code.code(), notification.subcode, notification.data.to_vec())
}
