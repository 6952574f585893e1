//! UPDATE messages packed full.

use bytes::{BufMut, BytesMut};

use super::{
    AttributeFlags, EncodeError, EncodedAttributes, Family, Message, MessageKind, NextHop, Nlri, Prefix,
    SessionContext, Update, message::write_message, nlri_list::octets, rules::codes,
};

/// Writes UPDATE messages for one session: many prefixes for one attribute set, each message as full as it can be.
///
/// Every method takes prefixes from the iterator while they surely fit and leaves the rest in it: pass `&mut iterator`
/// to go on later, when the socket takes more. If it is at its end, nothing is written and 0 returned.
///
/// ```
/// # use openelb_bgp::wire::{EncodeError, EncodedAttributes, Nlri, UpdateBuilder};
/// # use bytes::BytesMut;
/// fn announce(builder: &UpdateBuilder, set: &EncodedAttributes, all: &[Nlri]) -> Result<BytesMut, EncodeError> {
///     let mut out = BytesMut::new();
///     let mut rest = all.iter().copied();
///     while builder.announce_ipv4(set, &mut rest, &mut out)? > 0 {}
///     Ok(out)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct UpdateBuilder {
    cx: SessionContext,
}

/// Octets of MP_REACH_NLRI before its next hop, and of MP_UNREACH_NLRI before its NLRI: flags, code, length of two
/// octets, family.
const MP_HEAD: usize = 4 + 3;

impl UpdateBuilder {
    /// A builder for a session: its message size, and the families that have path identifiers.
    #[must_use]
    pub fn new(cx: &SessionContext) -> Self {
        Self { cx: cx.clone() }
    }

    /// Writes **one** UPDATE that announces IPv4 prefixes in its body, and returns how many. `attributes` hold the
    /// NEXT_HOP.
    ///
    /// # Errors
    /// If the attributes leave no room for one prefix, have no NEXT_HOP, or a prefix is not IPv4. Nothing is written;
    /// what was taken from the iterator is lost.
    pub fn announce_ipv4(
        &self,
        attributes: &EncodedAttributes,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let family = Family::IPV4_UNICAST;
        if !attributes.has_next_hop() {
            return Err(EncodeError::WrongNextHop { family });
        }
        let set = attributes.as_bytes();
        self.message(family, out, nlri.into_iter(), |fill, out| {
            out.put_u16(0);
            out.put_u16(length(set.len())?);
            out.put_slice(set);
            fill(0, out)
        })
    }

    /// Writes **one** UPDATE that announces prefixes of `family` in MP_REACH_NLRI (RFC 4760 §3), and returns how many:
    /// IPv6, or IPv4 with an IPv6 next hop (RFC 8950). `attributes` have no NEXT_HOP.
    ///
    /// # Errors
    /// If the attributes leave no room for one prefix or have a NEXT_HOP, the next hop does not fit the family, or a
    /// prefix is not of the family. Nothing is written; what was taken from the iterator is lost.
    pub fn announce_mp(
        &self,
        family: Family,
        next_hop: NextHop,
        attributes: &EncodedAttributes,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let fits = match (family, next_hop) {
            (Family::IPV4_UNICAST, NextHop::V4(_)) => true,
            (Family::IPV4_UNICAST, _) => self.cx.extended_next_hop,
            (Family::IPV6_UNICAST, next_hop) => !matches!(next_hop, NextHop::V4(_)),
            _ => false,
        };
        if !fits || attributes.has_next_hop() {
            return Err(EncodeError::WrongNextHop { family });
        }
        let set = attributes.as_bytes();
        self.message(family, out, nlri.into_iter(), |fill, out| {
            out.put_u16(0);
            mp_attribute(codes::MP_REACH_NLRI, family, set, out, |out| {
                out.put_u8(next_hop.len());
                next_hop.write(out);
                out.put_u8(0);
                fill(set.len(), out)
            })
        })
    }

    /// Writes **one** UPDATE that withdraws prefixes of `family`, and returns how many: IPv4 in the body, IPv6 in
    /// MP_UNREACH_NLRI.
    ///
    /// # Errors
    /// If a prefix is not of the family, or the family is not unicast. Nothing is written; what was taken from the
    /// iterator is lost.
    pub fn withdraw(
        &self,
        family: Family,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        match family {
            Family::IPV4_UNICAST => self.message(family, out, nlri.into_iter(), |fill, out| {
                let start = out.len();
                out.put_u16(0);
                // The length of the attributes, 0, comes after.
                let count = fill(2, out)?;
                set_length(out, start)?;
                out.put_u16(0);
                Ok(count)
            }),
            Family::IPV6_UNICAST => self.message(family, out, nlri.into_iter(), |fill, out| {
                out.put_u16(0);
                mp_attribute(codes::MP_UNREACH_NLRI, family, &[], out, |out| fill(0, out))
            }),
            _ => Err(EncodeError::WrongFamily { family }),
        }
    }

    /// Writes the End-of-RIB marker of a family (RFC 4724 §2).
    ///
    /// # Errors
    /// Never: a marker fits every session.
    pub fn end_of_rib(&self, family: Family, out: &mut BytesMut) -> Result<(), EncodeError> {
        Message::Update(Update::end_of_rib(family)).encode(&self.cx, out)
    }

    /// Writes a message whose body `write` puts together. It gets a function that fills the rest of the message with
    /// NLRI but for a number of octets.
    fn message<I: Iterator<Item = Nlri>>(
        &self,
        family: Family,
        out: &mut BytesMut,
        mut nlri: I,
        write: impl FnOnce(
            &mut dyn FnMut(usize, &mut BytesMut) -> Result<usize, EncodeError>,
            &mut BytesMut,
        ) -> Result<usize, EncodeError>,
    ) -> Result<usize, EncodeError> {
        let start = out.len();
        let max = self.cx.max_message_len();
        let path_ids = self.cx.sends_path_ids(family);
        let mut count = 0;
        let mut fill = |reserved: usize, out: &mut BytesMut| {
            let used = out.len() - start + reserved;
            let room = max.saturating_sub(used);
            if room < largest(family, path_ids) {
                return Err(EncodeError::MessageTooLong { length: used + largest(family, path_ids), max });
            }
            fill(family, path_ids, room, &mut nlri, out)
        };
        let written = write_message(MessageKind::Update, max, out, |out| {
            count = write(&mut fill, out)?;
            Ok(())
        });
        if written.is_err() || count == 0 {
            out.truncate(start);
        }
        written.map(|()| count)
    }
}

/// Octets of the longest NLRI of a family.
const fn largest(family: Family, path_ids: bool) -> usize {
    let prefix = if family.afi == Family::IPV6_UNICAST.afi { 1 + 16 } else { 1 + 4 };
    prefix + if path_ids { 4 } else { 0 }
}

/// Appends NLRI while the longest possible one fits into `room` octets; returns how many.
fn fill(
    family: Family,
    path_ids: bool,
    room: usize,
    nlri: &mut impl Iterator<Item = Nlri>,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let start = out.len();
    out.resize(start + room, 0);
    let area = out.get_mut(start..).unwrap_or_default();
    let (count, used) = match (family, path_ids) {
        (Family::IPV4_UNICAST, false) => fill_ipv4::<5>(area, nlri, |_, [a, b, c, d], len| [len, a, b, c, d]),
        (Family::IPV4_UNICAST, true) => {
            fill_ipv4::<9>(area, nlri, |[i, j, k, l], [a, b, c, d], len| [i, j, k, l, len, a, b, c, d])
        }
        _ => fill_ipv6(area, path_ids, nlri),
    }
    .ok_or(EncodeError::WrongFamily { family })?;
    out.truncate(start + used);
    Ok(count)
}

/// Writes each NLRI in its longest form, and goes on after what belongs to it.
#[inline]
fn fill_ipv4<const N: usize>(
    area: &mut [u8],
    nlri: &mut impl Iterator<Item = Nlri>,
    longest: impl Fn([u8; 4], [u8; 4], u8) -> [u8; N],
) -> Option<(usize, usize)> {
    let room = area.len();
    let mut rest = area;
    let mut count = 0;
    while let Some(to) = rest.first_chunk_mut::<N>() {
        let Some(Nlri { path_id, prefix }) = nlri.next() else { break };
        let Prefix::V4(prefix) = prefix else { return None };
        let length = prefix.len();
        *to = longest(path_id.to_be_bytes(), prefix.address().octets(), length);
        // A host route's step is a constant: the next one need not wait for it.
        let used = if length == 32 { N } else { shorter(N, length) };
        rest = rest.get_mut(used..)?;
        count += 1;
    }
    Some((count, room - rest.len()))
}

/// How far to go on after a prefix that is no host route. A call, so that the usual way is a predicted branch.
#[inline(never)]
const fn shorter(longest: usize, length: u8) -> usize {
    longest.saturating_sub(4) + octets(length)
}

#[inline]
fn fill_ipv6(
    area: &mut [u8],
    path_ids: bool,
    nlri: &mut impl Iterator<Item = Nlri>,
) -> Option<(usize, usize)> {
    let head = if path_ids { 4 } else { 0 };
    let (mut at, mut count) = (0, 0);
    while let Some(to) = area.get_mut(at..at + head + 17) {
        let Some(Nlri { path_id, prefix }) = nlri.next() else { break };
        let Prefix::V6(prefix) = prefix else { return None };
        if let Some((id, rest)) = to.split_at_mut_checked(head) {
            id.copy_from_slice(path_id.to_be_bytes().get(..head)?);
            let (length, address) = rest.split_first_mut()?;
            *length = prefix.len();
            address.copy_from_slice(&prefix.address().octets());
        }
        at += head + 1 + octets(prefix.len());
        count += 1;
    }
    Some((count, at))
}

fn length(length: usize) -> Result<u16, EncodeError> {
    u16::try_from(length).map_err(|_| EncodeError::AttributesTooLong { length })
}

/// Writes into the two octets at `start` how many octets come after them.
fn set_length(out: &mut BytesMut, start: usize) -> Result<(), EncodeError> {
    let value = length(out.len().saturating_sub(start + 2))?;
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    Ok(())
}

/// Appends the length of the attributes, a multiprotocol attribute, which comes first (RFC 7606 §5.1), and the rest.
fn mp_attribute(
    code: u8,
    family: Family,
    set: &[u8],
    out: &mut BytesMut,
    value: impl FnOnce(&mut BytesMut) -> Result<usize, EncodeError>,
) -> Result<usize, EncodeError> {
    let start = out.len();
    out.reserve(2 + MP_HEAD);
    out.put_u16(0);
    out.put_slice(&[AttributeFlags::OPTIONAL.union(AttributeFlags::EXTENDED_LENGTH).0, code]);
    let value_start = out.len();
    out.put_u16(0);
    out.put_slice(&family.to_bytes());
    let count = value(out)?;
    set_length(out, value_start)?;
    out.put_slice(set);
    set_length(out, start)?;
    Ok(count)
}
