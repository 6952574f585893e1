//! Bytes to attributes, by the table of RFC 7606.

use std::{collections::HashSet, net::Ipv4Addr};

use bytes::Bytes;

use super::{
    Aggregator, AsPath, AsPathSegment, AttributeError, AttributeFault, AttributeFlags, AttributeRule,
    Attributes, Community, ExtendedCommunity, Family, LargeCommunity, MpReach, MpUnreach, NextHop, NlriList,
    Origin, SegmentKind, SessionContext, SessionKind, Treatment, UnknownAttribute, UpdateError,
    open::AS_TRANS,
    reader::{Reader, elements},
    rules::codes,
};

/// What the attributes of an UPDATE say.
pub(crate) struct Decoder<'a> {
    cx: &'a SessionContext,
    pub(crate) attributes: Attributes,
    pub(crate) mp_reach: Option<MpReach>,
    pub(crate) mp_unreach: Option<MpUnreach>,
    pub(crate) errors: Vec<AttributeError>,
    /// The attribute of the first error that withdraws, as NOTIFICATIONs carry it.
    culprit: Option<(AttributeError, &'a [u8])>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    seen: [u64; 4],
}

/// One attribute: its header, its value, and all of its bytes.
#[derive(Clone, Copy)]
struct Raw<'a> {
    flags: AttributeFlags,
    code: u8,
    value: &'a [u8],
    whole: &'a [u8],
}

/// Why a value is refused.
type Fault = AttributeFault;

impl<'a> Decoder<'a> {
    /// Reads all attributes. `body_nlri` tells whether the message announces prefixes in its body.
    pub(crate) fn decode(
        bytes: &'a [u8],
        body_nlri: bool,
        cx: &'a SessionContext,
    ) -> Result<Self, UpdateError> {
        let mut decoder = Self {
            cx,
            attributes: Attributes::default(),
            mp_reach: None,
            mp_unreach: None,
            errors: Vec::new(),
            culprit: None,
            as4_path: None,
            as4_aggregator: None,
            seen: [0; 4],
        };
        let mut reader = Reader(bytes);
        while !reader.is_empty() {
            let before = reader.0;
            match read_raw(&mut reader) {
                Some(raw) => decoder.attribute(raw)?,
                None => {
                    // RFC 7606 §4: the total length still tells where the NLRI begin.
                    let code = before.get(1).copied().unwrap_or(0);
                    if matches!(code, codes::MP_REACH_NLRI | codes::MP_UNREACH_NLRI) {
                        return Err(multiprotocol(code, before, "it is cut off"));
                    }
                    decoder.fault(
                        AttributeError {
                            code,
                            fault: Fault::Truncated,
                            treatment: Treatment::Withdraw,
                            section: "RFC 7606 §4",
                        },
                        before,
                    );
                    break;
                }
            }
        }
        decoder.finish(body_nlri)
    }

    fn fault(&mut self, error: AttributeError, whole: &'a [u8]) {
        if error.treatment >= Treatment::Withdraw && self.culprit.is_none() {
            self.culprit = Some((error, whole));
        }
        self.errors.push(error);
    }

    /// Notes that a code occurs; false if it did before.
    fn first(&mut self, code: u8) -> bool {
        let Some(word) = self.seen.get_mut(usize::from(code >> 6)) else { return true };
        let bit = 1 << (code & 63);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn has_seen(&self, code: u8) -> bool {
        self.seen.get(usize::from(code >> 6)).is_some_and(|word| word & (1 << (code & 63)) != 0)
    }

    fn attribute(&mut self, raw: Raw<'a>) -> Result<(), UpdateError> {
        let Raw { code, flags, .. } = raw;
        if !self.first(code) {
            if matches!(code, codes::MP_REACH_NLRI | codes::MP_UNREACH_NLRI) {
                return Err(UpdateError::RepeatedMultiprotocol { code });
            }
            self.errors.push(AttributeError {
                code,
                fault: Fault::Repeated,
                treatment: Treatment::Discard,
                section: "RFC 7606 §3g",
            });
            return Ok(());
        }
        let Some(rule) = AttributeRule::of(code) else {
            self.unknown(raw);
            return Ok(());
        };
        if !rule.expected(self.cx.kind, self.cx.four_octet_as) {
            self.errors
                .push(AttributeError { treatment: Treatment::Discard, ..rule.error(Fault::Unexpected) });
            return Ok(());
        }
        if !rule.accepts(flags) {
            self.fault(
                AttributeError {
                    treatment: Treatment::Withdraw,
                    section: "RFC 7606 §3c",
                    ..rule.error(Fault::Flags)
                },
                raw.whole,
            );
            // Which prefixes to withdraw, only these two can tell.
            if !matches!(code, codes::MP_REACH_NLRI | codes::MP_UNREACH_NLRI) {
                return Ok(());
            }
        }
        match code {
            codes::MP_REACH_NLRI => {
                let reach = self.mp_reach(raw).map_err(|cause| multiprotocol(code, raw.whole, cause))?;
                self.mp_reach = Some(reach);
            }
            codes::MP_UNREACH_NLRI => {
                let unreach = self.mp_unreach(raw).map_err(|cause| multiprotocol(code, raw.whole, cause))?;
                self.mp_unreach = Some(unreach);
            }
            _ => {
                if let Err(fault) = self.value(code, raw.value) {
                    self.fault(rule.error(fault), raw.whole);
                }
            }
        }
        Ok(())
    }

    /// Keeps an attribute that is not decoded here.
    fn unknown(&mut self, raw: Raw<'a>) {
        if !raw.flags.contains(AttributeFlags::OPTIONAL) {
            let error = AttributeError {
                code: raw.code,
                fault: Fault::UnknownWellKnown,
                treatment: Treatment::Withdraw,
                section: "RFC 4271 §6.3, RFC 7606 §2",
            };
            self.fault(error, raw.whole);
            return;
        }
        self.attributes.unknown.push(UnknownAttribute {
            flags: AttributeFlags(raw.flags.0 & !AttributeFlags::EXTENDED_LENGTH.0),
            code: raw.code,
            value: Bytes::copy_from_slice(raw.value),
        });
    }

    fn value(&mut self, code: u8, value: &[u8]) -> Result<(), Fault> {
        let to = &mut self.attributes;
        match code {
            codes::ORIGIN => {
                let [origin] = fixed(value)?;
                to.origin = Some(Origin::from_code(origin).ok_or(Fault::Value)?);
            }
            codes::AS_PATH => {
                to.as_path = Some(as_path(value, self.cx.four_octet_as, self.cx.kind)?);
            }
            codes::NEXT_HOP => to.next_hop = Some(fixed(value)?.into()),
            codes::MED => to.med = Some(u32::from_be_bytes(fixed(value)?)),
            codes::LOCAL_PREF => to.local_pref = Some(u32::from_be_bytes(fixed(value)?)),
            codes::ATOMIC_AGGREGATE => {
                let [] = fixed(value)?;
                to.atomic_aggregate = true;
            }
            codes::AGGREGATOR => to.aggregator = Some(aggregator(value, self.cx.four_octet_as)?),
            codes::COMMUNITIES => {
                to.communities = list(value, |octets| Community(u32::from_be_bytes(octets)))?;
            }
            codes::ORIGINATOR_ID => to.originator_id = Some(fixed(value)?.into()),
            codes::CLUSTER_LIST => to.cluster_list = list(value, Ipv4Addr::from)?,
            codes::EXTENDED_COMMUNITIES => to.extended_communities = list(value, ExtendedCommunity)?,
            codes::AS4_PATH => self.as4_path = Some(as4_path(value)?),
            codes::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, true)?),
            codes::LARGE_COMMUNITY => {
                to.large_communities = distinct(list(value, LargeCommunity::from_bytes)?);
            }
            codes::ONLY_TO_CUSTOMER => to.only_to_customer = Some(u32::from_be_bytes(fixed(value)?)),
            _ => {}
        }
        Ok(())
    }

    fn mp_reach(&mut self, raw: Raw<'a>) -> Result<MpReach, &'static str> {
        const SHORT: &str = "it is too short";
        let mut reader = Reader(raw.value);
        let family = family(&mut reader).ok_or(SHORT)?;
        let next_hop = reader.counted_u8().ok_or(SHORT)?;
        reader.u8().ok_or(SHORT)?;
        let nlri = reader.0;
        if !family.is_unicast() {
            return Ok(MpReach::Opaque {
                family,
                next_hop: Bytes::copy_from_slice(next_hop),
                nlri: Bytes::copy_from_slice(nlri),
            });
        }
        let next_hop = read_next_hop(family, next_hop, self.cx.extended_next_hop)
            .ok_or("the length of its next hop does not fit its family")?;
        let nlri = NlriList::decode(family, self.cx.receives_path_ids(family), nlri)
            .ok_or("a prefix in it has an impossible length")?;
        if !next_hop.is_valid() && !nlri.is_empty() {
            let error = AttributeError {
                code: codes::MP_REACH_NLRI,
                fault: Fault::Value,
                treatment: Treatment::Withdraw,
                section: "RFC 4271 §6.3, RFC 7606 §3f",
            };
            self.fault(error, raw.whole);
        }
        Ok(MpReach::Unicast { next_hop, nlri })
    }

    fn mp_unreach(&self, raw: Raw<'a>) -> Result<MpUnreach, &'static str> {
        let mut reader = Reader(raw.value);
        let family = family(&mut reader).ok_or("it is too short")?;
        if !family.is_unicast() {
            return Ok(MpUnreach::Opaque { family, nlri: Bytes::copy_from_slice(reader.0) });
        }
        NlriList::decode(family, self.cx.receives_path_ids(family), reader.0)
            .map(MpUnreach::Unicast)
            .ok_or("a prefix in it has an impossible length")
    }

    /// What can be said only when all attributes are read.
    fn finish(mut self, body_nlri: bool) -> Result<Self, UpdateError> {
        let reachable = body_nlri || self.mp_reach.as_ref().is_some_and(|reach| !reach.is_empty());
        let missing = [(codes::ORIGIN, reachable), (codes::AS_PATH, reachable), (codes::NEXT_HOP, body_nlri)];
        for (code, mandatory) in missing {
            if mandatory && !self.has_seen(code) {
                let error = AttributeError {
                    code,
                    fault: Fault::Missing,
                    treatment: Treatment::Withdraw,
                    section: "RFC 7606 §3d",
                };
                self.fault(error, &[]);
            }
        }
        // In a message without prefixes in its body NEXT_HOP means nothing (RFC 4760 §3).
        if body_nlri && self.attributes.next_hop.is_some_and(|address| !NextHop::V4(address).is_valid()) {
            let error = AttributeError {
                code: codes::NEXT_HOP,
                fault: Fault::Value,
                treatment: Treatment::Withdraw,
                section: "RFC 7606 §3f",
            };
            self.fault(error, &[]);
        }
        // RFC 7606 §5.2. MP_UNREACH_NLRI alone says what it withdraws.
        let unreach_alone = self.seen == only(codes::MP_UNREACH_NLRI)
            && self.errors.iter().all(|error| error.code == codes::MP_UNREACH_NLRI);
        if let (false, false, Some((error, whole))) = (unreach_alone, reachable, self.culprit) {
            return Err(nothing_to_withdraw(error, whole));
        }
        if !self.cx.four_octet_as {
            self.merge_as4();
        }
        Ok(self)
    }

    /// Puts the four-octet numbers back in place (RFC 6793 §4.2.3).
    fn merge_as4(&mut self) {
        let as4_path = self.as4_path.take();
        let as4_aggregator = self.as4_aggregator.take();
        if let (Some(aggregator), Some(true_one)) = (self.attributes.aggregator, as4_aggregator) {
            if aggregator.asn != u32::from(AS_TRANS) {
                return; // who aggregated it knew two octets only: both attributes are from before that
            }
            self.attributes.aggregator = Some(true_one);
        }
        if let (Some(path), Some(as4_path)) = (&mut self.attributes.as_path, as4_path) {
            path.merge_as4(as4_path);
        }
    }
}

/// What has been seen if it was this code alone.
fn only(code: u8) -> [u64; 4] {
    let mut seen = [0; 4];
    if let Some(word) = seen.get_mut(usize::from(code >> 6)) {
        *word = 1 << (code & 63);
    }
    seen
}

fn read_raw<'a>(reader: &mut Reader<'a>) -> Option<Raw<'a>> {
    let start = reader.0;
    let [flags, code] = reader.array()?;
    let flags = AttributeFlags(flags);
    let value = if flags.contains(AttributeFlags::EXTENDED_LENGTH) {
        reader.counted_u16()?
    } else {
        reader.counted_u8()?
    };
    let whole = start.get(..start.len() - reader.0.len())?;
    Some(Raw { flags, code, value, whole })
}

fn multiprotocol(code: u8, whole: &[u8], cause: &'static str) -> UpdateError {
    UpdateError::Multiprotocol { code, attribute: Bytes::copy_from_slice(whole), cause }
}

/// The session-ending form of an error, with subcode and data of RFC 4271 §6.3.
fn nothing_to_withdraw(error: AttributeError, whole: &[u8]) -> UpdateError {
    let whole = Bytes::copy_from_slice(whole);
    let (subcode, data) = match (error.fault, error.code) {
        (Fault::Missing, code) => (3, Bytes::copy_from_slice(&[code])),
        (Fault::UnknownWellKnown, _) => (2, whole),
        (Fault::Flags, _) => (4, whole),
        (Fault::Length, _) => (5, whole),
        (Fault::Value, codes::ORIGIN) => (6, whole),
        (Fault::Value, codes::NEXT_HOP | codes::MP_REACH_NLRI) => (8, whole),
        (Fault::Value, codes::AS_PATH) => (11, Bytes::new()),
        (Fault::Value, _) => (9, whole),
        (Fault::Truncated | Fault::Repeated | Fault::Unexpected, _) => (1, Bytes::new()),
    };
    UpdateError::NothingToWithdraw { code: error.code, subcode, data }
}

fn family(reader: &mut Reader<'_>) -> Option<Family> {
    let [high, low, safi] = reader.array()?;
    Some(Family { afi: u16::from_be_bytes([high, low]), safi })
}

fn read_next_hop(family: Family, bytes: &[u8], extended: bool) -> Option<NextHop> {
    if family == Family::IPV4_UNICAST {
        if let Ok(address) = <[u8; 4]>::try_from(bytes) {
            return Some(NextHop::V4(address.into()));
        }
        if !extended {
            return None;
        }
    }
    let mut reader = Reader(bytes);
    let global = reader.array::<16>()?.into();
    if reader.is_empty() {
        return Some(NextHop::V6(global));
    }
    let link_local = <[u8; 16]>::try_from(reader.0).ok()?.into();
    Some(NextHop::V6WithLinkLocal { global, link_local })
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Fault> {
    value.try_into().map_err(|_| Fault::Length)
}

/// A list whose length must be a multiple of its element's, and not 0.
fn list<const N: usize, T>(value: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault> {
    if value.is_empty() {
        return Err(Fault::Length);
    }
    elements(value, read).ok_or(Fault::Length)
}

/// Without what occurs again (RFC 8092 §5), in the order received.
fn distinct(communities: Vec<LargeCommunity>) -> Vec<LargeCommunity> {
    // Few: compare each with each. Many: a hostile neighbour's 5,461 would be 15 million comparisons.
    if communities.len() <= 16 {
        let repeated =
            communities.iter().enumerate().any(|(i, c)| communities.iter().take(i).any(|d| c == d));
        if !repeated {
            return communities;
        }
    }
    let mut seen = HashSet::with_capacity(communities.len());
    communities.into_iter().filter(|community| seen.insert(*community)).collect()
}

fn aggregator(value: &[u8], four_octets: bool) -> Result<Aggregator, Fault> {
    let mut reader = Reader(value);
    let asn = if four_octets { reader.u32() } else { reader.u16().map(u32::from) };
    let asn = asn.ok_or(Fault::Length)?;
    let router_id = Ipv4Addr::from(fixed::<4>(reader.0)?);
    if asn == 0 {
        return Err(Fault::Value);
    }
    Ok(Aggregator { asn, router_id })
}

fn as_path(value: &[u8], four_octets: bool, kind: SessionKind) -> Result<AsPath, Fault> {
    let path = read_segments(value, four_octets)?;
    // RFC 5065 §5: they never come from beyond a confederation.
    if kind == SessionKind::External && path.segments.iter().any(|segment| segment.kind.is_confederation()) {
        return Err(Fault::Value);
    }
    Ok(path)
}

/// AS4_PATH without confederation segments, which are dropped (RFC 6793 §6).
fn as4_path(value: &[u8]) -> Result<AsPath, Fault> {
    if value.is_empty() {
        return Err(Fault::Length);
    }
    let mut path = read_segments(value, true)?;
    path.segments.retain(|segment| !segment.kind.is_confederation());
    Ok(path)
}

fn read_segments(value: &[u8], four_octets: bool) -> Result<AsPath, Fault> {
    let mut reader = Reader(value);
    let mut segments = Vec::new();
    while !reader.is_empty() {
        let [kind, count] = reader.array().ok_or(Fault::Value)?;
        let kind = SegmentKind::from_code(kind).ok_or(Fault::Value)?;
        let width = if four_octets { 4 } else { 2 };
        let bytes = reader.take(usize::from(count) * width).ok_or(Fault::Value)?;
        let asns = if four_octets {
            elements(bytes, u32::from_be_bytes)
        } else {
            elements(bytes, |octets| u32::from(u16::from_be_bytes(octets)))
        };
        let asns = asns.unwrap_or_default();
        // No number at all (RFC 7606 §7.2), or AS 0 (RFC 7607 §2).
        if asns.is_empty() || asns.contains(&0) {
            return Err(Fault::Value);
        }
        segments.push(AsPathSegment { kind, asns });
    }
    Ok(AsPath { segments })
}
