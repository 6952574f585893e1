//! A frame by value.

use std::{fmt, ops::Deref};

/// An Ethernet frame of at most [`Frame::CAPACITY`] octets, by value: made and sent without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    length: u8,
    octets: [u8; Self::CAPACITY],
}

impl Frame {
    /// The longest frame that is ever sent: Ethernet, IPv6, a neighbour advertisement and its option.
    pub const CAPACITY: usize = 86;

    /// An empty frame.
    pub(crate) const fn new() -> Self {
        Self { length: 0, octets: [0; Self::CAPACITY] }
    }

    /// Appends octets. What does not fit is cut off; nothing that this crate makes is that long.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        let start = usize::from(self.length);
        let Some(room) = self.octets.get_mut(start..) else { return };
        let fits = room.len().min(octets.len());
        for (to, from) in room.iter_mut().zip(octets) {
            *to = *from;
        }
        self.length = u8::try_from(start + fits).unwrap_or(u8::MAX);
    }

    /// Overwrites octets at an offset, within what was pushed.
    pub(crate) fn patch(&mut self, offset: usize, octets: &[u8]) {
        for (to, from) in self.octets.iter_mut().skip(offset).zip(octets) {
            *to = *from;
        }
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frame(")?;
        for octet in self.as_bytes() {
            write!(f, "{octet:02x}")?;
        }
        f.write_str(")")
    }
}
