//! Lists of NLRI, kept in the form of the wire.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{EncodeError, Family, Ipv4Prefix, Ipv6Prefix, Nlri, Prefix, reader::Reader};

/// NLRI of one unicast family, checked once and kept in the form of the wire: [`iter`](Self::iter) reads them.
///
/// A list takes as much memory as its bytes, so a neighbour cannot make a message grow.
#[derive(Clone)]
pub struct NlriList {
    ipv6: bool,
    path_ids: bool,
    count: usize,
    bytes: Bytes,
}

impl NlriList {
    /// The empty list of a family: IPv6 unicast, or else IPv4 unicast.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        Self { ipv6: family == Family::IPV6_UNICAST, path_ids: false, count: 0, bytes: Bytes::new() }
    }

    /// A list of a family's prefixes, with their path identifiers or without.
    ///
    /// # Errors
    /// If a prefix is of another family.
    pub fn new(
        family: Family,
        path_ids: bool,
        nlri: impl IntoIterator<Item = Nlri>,
    ) -> Result<Self, EncodeError> {
        let mut bytes = BytesMut::new();
        let mut count = 0;
        for nlri in nlri {
            if nlri.prefix.family() != family {
                return Err(EncodeError::WrongFamily { family });
            }
            put(nlri, path_ids, &mut bytes);
            count += 1;
        }
        Ok(Self { count, bytes: bytes.freeze(), path_ids, ..Self::empty(family) })
    }

    /// A list from the wire; `None` if a length is over that of an address, or the last prefix is cut off.
    pub(crate) fn decode(family: Family, path_ids: bool, bytes: &[u8]) -> Option<Self> {
        let ipv6 = family == Family::IPV6_UNICAST;
        let count = count(bytes, if ipv6 { 128 } else { 32 }, if path_ids { 4 } else { 0 })?;
        Some(Self { ipv6, path_ids: path_ids && count > 0, count, bytes: Bytes::copy_from_slice(bytes) })
    }

    /// Appends the list as a session wants it.
    pub(crate) fn encode(&self, path_ids: bool, out: &mut BytesMut) {
        if path_ids == self.path_ids {
            out.put_slice(&self.bytes);
        } else {
            self.iter().for_each(|nlri| put(nlri, path_ids, out));
        }
    }

    /// IPv4 or IPv6 unicast.
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.ipv6 { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether they came with path identifiers.
    #[must_use]
    pub const fn has_path_ids(&self) -> bool {
        self.path_ids
    }

    /// The NLRI in the order received.
    #[must_use]
    pub fn iter(&self) -> NlriIter<'_> {
        NlriIter { rest: &self.bytes, left: self.count, ipv6: self.ipv6, path_ids: self.path_ids }
    }
}

/// Checks NLRI and counts them. A run of prefixes of one length is read at a fixed stride, so that no step waits for
/// the length that the step before has read.
fn count(bytes: &[u8], max_length: u8, path_id_len: usize) -> Option<usize> {
    let mut rest = bytes;
    let mut count = 0;
    while !rest.is_empty() {
        let length = *rest.get(path_id_len)?;
        if length > max_length {
            return None;
        }
        let stride = path_id_len + 1 + octets(length);
        let run = rest
            .chunks(stride)
            .take_while(|chunk| chunk.len() == stride && chunk.get(path_id_len) == Some(&length))
            .count();
        if run == 0 {
            return None;
        }
        rest = rest.get(run * stride..)?;
        count += run;
    }
    Some(count)
}

/// The octets that hold a prefix of this length.
#[inline]
pub(crate) const fn octets(length: u8) -> usize {
    (length as usize).div_ceil(8)
}

/// Appends one NLRI.
pub(crate) fn put(nlri: Nlri, path_id: bool, out: &mut BytesMut) {
    if path_id {
        out.put_u32(nlri.path_id);
    }
    let length = nlri.prefix.len();
    out.put_u8(length);
    match nlri.prefix {
        Prefix::V4(prefix) => out.extend(prefix.address().octets().iter().take(octets(length))),
        Prefix::V6(prefix) => out.extend(prefix.address().octets().iter().take(octets(length))),
    }
}

/// The NLRI of a [`NlriList`].
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    rest: &'a [u8],
    left: usize,
    ipv6: bool,
    path_ids: bool,
}

impl NlriIter<'_> {
    #[inline]
    fn read(&mut self) -> Option<Nlri> {
        let mut reader = Reader(self.rest);
        let path_id = if self.path_ids { reader.u32()? } else { 0 };
        let length = reader.u8()?;
        let used = octets(length);
        let prefix = if self.ipv6 {
            Prefix::V6(Ipv6Prefix::masked(u128::from_be_bytes(leading(reader.0, used)?), length))
        } else {
            Prefix::V4(Ipv4Prefix::masked(u32::from_be_bytes(leading(reader.0, used)?), length))
        };
        self.rest = reader.0.get(used..)?;
        Some(Nlri { path_id, prefix })
    }
}

/// `N` octets of which the first `used` count: read at once, what belongs to the next prefix included, if there are as
/// many.
#[inline]
fn leading<const N: usize>(bytes: &[u8], used: usize) -> Option<[u8; N]> {
    if let Some(whole) = bytes.first_chunk() {
        return Some(*whole);
    }
    let mut whole = [0; N];
    whole.get_mut(..used)?.copy_from_slice(bytes.get(..used)?);
    Some(whole)
}

impl Iterator for NlriIter<'_> {
    type Item = Nlri;

    #[inline]
    fn next(&mut self) -> Option<Nlri> {
        // A host route without path identifier is what a load balancer sees most: no step of its reading depends on
        // what was read.
        if !self.ipv6
            && !self.path_ids
            && let Some(([32, a, b, c, d], rest)) = self.rest.split_first_chunk()
        {
            self.rest = rest;
            self.left -= 1;
            let bits = u32::from_be_bytes([*a, *b, *c, *d]);
            return Some(Nlri { path_id: 0, prefix: Prefix::V4(Ipv4Prefix::masked(bits, 32)) });
        }
        let nlri = self.read()?;
        self.left -= 1;
        Some(nlri)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for NlriIter<'_> {}

impl<'a> IntoIterator for &'a NlriList {
    type Item = Nlri;
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

/// Equal if the family, the presence of path identifiers and all NLRI are.
impl PartialEq for NlriList {
    fn eq(&self, other: &Self) -> bool {
        self.family() == other.family() && self.path_ids == other.path_ids && self.iter().eq(other.iter())
    }
}

impl Eq for NlriList {}

impl fmt::Debug for NlriList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
