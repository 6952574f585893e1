//! The message and its frame.

use bytes::{BufMut, BytesMut};

use super::{
    DecodeError, EncodeError, HeaderError, Notification, Open, RouteRefresh, SessionContext, Update,
};

/// Octets of the header: marker, length and type (RFC 4271 §4.1).
pub const HEADER_LEN: usize = 19;
/// The longest message in octets.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// The longest message in octets where extended messages are agreed on (RFC 8654); OPEN and KEEPALIVE stay shorter.
pub const EXTENDED_MAX_MESSAGE_LEN: usize = 65_535;

/// The type of a message (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// 1.
    Open,
    /// 2.
    Update,
    /// 3.
    Notification,
    /// 4.
    Keepalive,
    /// 5.
    RouteRefresh,
}

impl MessageKind {
    /// The kind of a type octet.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// The least and the greatest length of such a message, header included (RFC 4271 §6.1, RFC 8654 §4).
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX_MESSAGE_LEN),
            Self::Update => (23, EXTENDED_MAX_MESSAGE_LEN),
            Self::Notification => (21, EXTENDED_MAX_MESSAGE_LEN),
            Self::Keepalive => (HEADER_LEN, HEADER_LEN),
            Self::RouteRefresh => (23, EXTENDED_MAX_MESSAGE_LEN),
        }
    }

    /// The type octet.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }
}

/// A BGP message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "UPDATEs are most messages: a box would be an allocation for each"
)]
pub enum Message {
    /// The first message of each end.
    Open(Open),
    /// Routes.
    Update(Update),
    /// An error, the last message.
    Notification(Notification),
    /// A sign of life.
    Keepalive,
    /// A wish to get a family's routes again, or a marker around them.
    RouteRefresh(RouteRefresh),
}

/// The length of the first message in `buf`, header included; `None` if it is not whole yet.
///
/// `max_len` is [`SessionContext::max_message_len`]; 4096 before both OPENs are exchanged. An error is told as soon as
/// the bytes that show it are there, and the least and the greatest length of each type are checked here, so no more
/// than `max_len` octets need ever be kept.
///
/// # Errors
/// The header is impossible (RFC 4271 §6.1); the stream cannot be read any further.
pub fn frame(buf: &[u8], max_len: usize) -> Result<Option<usize>, HeaderError> {
    if buf.iter().take(MARKER_LEN).any(|octet| *octet != 0xff) {
        return Err(HeaderError::NotSynchronized);
    }
    let Some((_, [high, low, kind])) = buf.first_chunk::<HEADER_LEN>().map(split_header) else {
        return Ok(None);
    };
    let length = u16::from_be_bytes([high, low]);
    let bad_length = Err(HeaderError::BadLength { length });
    let whole = usize::from(length);
    if whole < HEADER_LEN || whole > max_len {
        return bad_length;
    }
    let kind = MessageKind::from_code(kind).ok_or(HeaderError::BadType { kind })?;
    let (least, most) = kind.lengths();
    if whole < least || whole > most {
        return bad_length;
    }
    Ok((buf.len() >= whole).then_some(whole))
}

const MARKER_LEN: usize = 16;

/// Marker, and length and type.
fn split_header(header: &[u8; HEADER_LEN]) -> ([u8; MARKER_LEN], [u8; 3]) {
    let [marker @ .., high, low, kind] = *header;
    (marker, [high, low, kind])
}

impl Message {
    /// Reads one whole message, of the length that [`frame`] told.
    ///
    /// # Errors
    /// The message ends the session; [`DecodeError::notification`] is the answer. An UPDATE with malformed attributes
    /// is no error but an [`Update`] with [`errors`](Update::errors), wherever RFC 7606 keeps the session.
    pub fn decode(frame: &[u8], cx: &SessionContext) -> Result<Self, DecodeError> {
        let cut_off = || HeaderError::BadLength { length: u16::try_from(frame.len()).unwrap_or(u16::MAX) };
        let length = super::frame(frame, cx.max_message_len())?.ok_or_else(cut_off)?;
        let (header, body) =
            frame.get(..length).and_then(<[u8]>::split_first_chunk::<HEADER_LEN>).ok_or_else(cut_off)?;
        let (_, [_, _, kind]) = split_header(header);
        Ok(match MessageKind::from_code(kind) {
            Some(MessageKind::Open) => Self::Open(Open::decode(body)?),
            Some(MessageKind::Update) => Self::Update(Update::decode(body, cx)?),
            Some(MessageKind::Notification) => {
                Self::Notification(Notification::decode(body).ok_or_else(cut_off)?)
            }
            Some(MessageKind::Keepalive) => Self::Keepalive,
            Some(MessageKind::RouteRefresh) => Self::RouteRefresh(RouteRefresh::decode(body, frame)?),
            None => return Err(HeaderError::BadType { kind }.into()),
        })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// A value does not fit the message; `out` is then as before.
    pub fn encode(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        let written = write_message(self.kind(), cx.max_message_len(), out, |out| match self {
            Self::Open(open) => open.write(out),
            Self::Update(update) => update.write(cx, out),
            Self::Notification(notification) => {
                notification.write(out);
                Ok(())
            }
            Self::Keepalive => Ok(()),
            Self::RouteRefresh(refresh) => {
                refresh.write(out);
                Ok(())
            }
        });
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Open(_) => MessageKind::Open,
            Self::Update(_) => MessageKind::Update,
            Self::Notification(_) => MessageKind::Notification,
            Self::Keepalive => MessageKind::Keepalive,
            Self::RouteRefresh(_) => MessageKind::RouteRefresh,
        }
    }
}

/// Appends a header and what `write` appends; on an error `out` is left as it then is.
pub(crate) fn write_message(
    kind: MessageKind,
    max_len: usize,
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_bytes(0xff, MARKER_LEN);
    out.put_slice(&[0, 0, kind.code()]);
    write(out)?;
    let length = out.len() - start;
    let (_, most) = kind.lengths();
    let max = max_len.min(most);
    match u16::try_from(length) {
        Ok(short) if length <= max => {
            let at = start + MARKER_LEN;
            if let Some(field) = out.get_mut(at..at + 2) {
                field.copy_from_slice(&short.to_be_bytes());
            }
            Ok(())
        }
        _ => Err(EncodeError::MessageTooLong { length, max }),
    }
}

impl From<Open> for Message {
    fn from(open: Open) -> Self {
        Self::Open(open)
    }
}

impl From<Update> for Message {
    fn from(update: Update) -> Self {
        Self::Update(update)
    }
}

impl From<Notification> for Message {
    fn from(notification: Notification) -> Self {
        Self::Notification(notification)
    }
}

impl From<RouteRefresh> for Message {
    fn from(refresh: RouteRefresh) -> Self {
        Self::RouteRefresh(refresh)
    }
}
