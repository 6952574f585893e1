//! Attributes to bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    AsPath, AttributeFlags, AttributeRule, Attributes, EncodeError, EncodedAttributes, SegmentKind,
    SessionContext, UnknownAttribute, open::AS_TRANS, rules::codes,
};

impl Attributes {
    /// Writes the set once for sessions that agreed on the same: AS numbers of two octets (then with AS4_PATH and
    /// AS4_AGGREGATOR where a number needs them, RFC 6793 §4.2.2) or four.
    ///
    /// Attributes are written in ascending order of their code, with the flags of their [`AttributeRule`]; unknown ones
    /// follow in the order given.
    ///
    /// # Errors
    /// If the set, or one attribute of it, is longer than 65,535 octets.
    pub fn encode(&self, cx: &SessionContext) -> Result<EncodedAttributes, EncodeError> {
        let mut bytes = BytesMut::with_capacity(128);
        self.write(cx, &mut bytes)?;
        Ok(EncodedAttributes { bytes: bytes.freeze(), has_next_hop: self.next_hop.is_some() })
    }

    /// Appends the set; see [`encode`](Self::encode).
    pub(crate) fn write(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        if let Some(origin) = self.origin {
            put(codes::ORIGIN, &[origin.code()], out)?;
        }
        let mut as4_path = None;
        if let Some(path) = &self.as_path {
            write_as_path(codes::AS_PATH, path, cx.four_octet_as, out)?;
            if !cx.four_octet_as && path.asns().any(is_four_octet) {
                as4_path = Some(AsPath {
                    segments: path.segments.iter().filter(|s| !s.kind.is_confederation()).cloned().collect(),
                });
            }
        }
        if let Some(address) = self.next_hop {
            put(codes::NEXT_HOP, &address.octets(), out)?;
        }
        if let Some(med) = self.med {
            put(codes::MED, &med.to_be_bytes(), out)?;
        }
        if let Some(preference) = self.local_pref {
            put(codes::LOCAL_PREF, &preference.to_be_bytes(), out)?;
        }
        if self.atomic_aggregate {
            put(codes::ATOMIC_AGGREGATE, &[], out)?;
        }
        let mut as4_aggregator = None;
        if let Some(aggregator) = self.aggregator {
            let [a, b, c, d] = aggregator.router_id.octets();
            let [e, f, g, h] = aggregator.asn.to_be_bytes();
            let long = [e, f, g, h, a, b, c, d];
            if cx.four_octet_as {
                put(codes::AGGREGATOR, &long, out)?;
            } else {
                let [g, h] = two_octets(aggregator.asn);
                put(codes::AGGREGATOR, &[g, h, a, b, c, d], out)?;
                as4_aggregator = is_four_octet(aggregator.asn).then_some(long);
            }
        }
        put_list(codes::COMMUNITIES, &self.communities, |community| community.0.to_be_bytes(), out)?;
        if let Some(originator) = self.originator_id {
            put(codes::ORIGINATOR_ID, &originator.octets(), out)?;
        }
        put_list(codes::CLUSTER_LIST, &self.cluster_list, |cluster| cluster.octets(), out)?;
        put_list(codes::EXTENDED_COMMUNITIES, &self.extended_communities, |community| community.0, out)?;
        if let Some(path) = as4_path.filter(|path| !path.segments.is_empty()) {
            write_as_path(codes::AS4_PATH, &path, true, out)?;
        }
        if let Some(long) = as4_aggregator {
            put(codes::AS4_AGGREGATOR, &long, out)?;
        }
        put_list(codes::LARGE_COMMUNITY, &self.large_communities, |community| community.to_bytes(), out)?;
        if let Some(asn) = self.only_to_customer {
            put(codes::ONLY_TO_CUSTOMER, &asn.to_be_bytes(), out)?;
        }
        for UnknownAttribute { flags, code, value } in &self.unknown {
            put_header(*flags, *code, value.len(), out)?;
            out.put_slice(value);
        }
        let length = out.len() - start;
        if length > usize::from(u16::MAX) {
            return Err(EncodeError::AttributesTooLong { length });
        }
        Ok(())
    }
}

const fn is_four_octet(asn: u32) -> bool {
    asn > u16::MAX as u32
}

fn two_octets(asn: u32) -> [u8; 2] {
    u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes()
}

/// Appends flags, code and length: two octets of length only where they are needed.
pub(crate) fn put_header(
    flags: AttributeFlags,
    code: u8,
    length: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let flags = flags.0 & !AttributeFlags::EXTENDED_LENGTH.0;
    if let Ok(length) = u8::try_from(length) {
        out.put_slice(&[flags, code, length]);
    } else {
        let length = u16::try_from(length).map_err(|_| EncodeError::AttributesTooLong { length })?;
        let [high, low] = length.to_be_bytes();
        out.put_slice(&[flags | AttributeFlags::EXTENDED_LENGTH.0, code, high, low]);
    }
    Ok(())
}

fn flags(code: u8) -> AttributeFlags {
    AttributeRule::of(code).map_or(AttributeFlags::OPTIONAL, |rule| rule.flags)
}

fn put(code: u8, value: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    put_header(flags(code), code, value.len(), out)?;
    out.put_slice(value);
    Ok(())
}

/// Appends an attribute that is a list, or nothing if the list is empty.
fn put_list<T, const N: usize>(
    code: u8,
    list: &[T],
    bytes: impl Fn(&T) -> [u8; N],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if list.is_empty() {
        return Ok(());
    }
    put_header(flags(code), code, list.len() * N, out)?;
    out.reserve(list.len() * N);
    list.iter().for_each(|item| out.put_slice(&bytes(item)));
    Ok(())
}

fn write_as_path(code: u8, path: &AsPath, four_octets: bool, out: &mut BytesMut) -> Result<(), EncodeError> {
    let width = if four_octets { 4 } else { 2 };
    let parts = || {
        path.segments
            .iter()
            .flat_map(|segment| segment.asns.chunks(255).map(move |part| (segment.kind, part)))
    };
    let length = parts().map(|(_, part)| 2 + width * part.len()).sum();
    put_header(flags(code), code, length, out)?;
    for (kind, part) in parts() {
        put_segment(kind, part, four_octets, out);
    }
    Ok(())
}

fn put_segment(kind: SegmentKind, asns: &[u32], four_octets: bool, out: &mut BytesMut) {
    // `chunks(255)` has made it fit.
    let count = u8::try_from(asns.len()).unwrap_or(u8::MAX);
    out.put_slice(&[kind.code(), count]);
    for asn in asns {
        if four_octets {
            out.put_u32(*asn);
        } else {
            out.put_slice(&two_octets(*asn));
        }
    }
}

impl EncodedAttributes {
    /// The set without attributes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: Bytes::new(), has_next_hop: false }
    }
}
