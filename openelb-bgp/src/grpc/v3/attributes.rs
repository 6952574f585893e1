//! Path attributes as GoBGP's messages, and back.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use prost_types::Any;

use super::{
    any::{name, pack, shown, unpack},
    family::{address, family, family_of, nlri, parse_nlri},
};
use crate::{
    grpc::{apipb, core::Error},
    speaker::{NextHop, PathAttributes, RouteAttributes, RouteOrigin},
    wire::{self, AsPath, AsPathSegment, ExtendedCommunity, Origin, SegmentKind},
};

/// A client's route may have so many communities of a kind: more do not fit a message with their prefix.
const MAX_COMMUNITIES: usize = 900;
/// A client's AS path may have so many numbers.
const MAX_AS_PATH: usize = 900;

/// The attributes of a shown route, in the order of their codes.
pub(super) fn attributes(path: &PathAttributes, prefix: IpNet) -> Vec<Any> {
    let from = &path.attributes;
    let mut all = Vec::new();
    if let Some(origin) = from.origin {
        let origin = match origin {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        };
        all.push(pack(&apipb::OriginAttribute { origin }));
    }
    if let Some(as_path) = &from.as_path {
        all.push(pack(&apipb::AsPathAttribute { segments: segments(as_path) }));
    }
    let next_hop = path.next_hop;
    let ipv4 = prefix.addr().is_ipv4();
    if let (true, wire::NextHop::V4(address)) = (ipv4, next_hop) {
        all.push(pack(&apipb::NextHopAttribute { next_hop: address.to_string() }));
    }
    if let Some(med) = from.med {
        all.push(pack(&apipb::MultiExitDiscAttribute { med }));
    }
    if let Some(local_pref) = from.local_pref {
        all.push(pack(&apipb::LocalPrefAttribute { local_pref }));
    }
    if from.atomic_aggregate {
        all.push(pack(&apipb::AtomicAggregateAttribute {}));
    }
    if let Some(aggregator) = from.aggregator {
        let address = aggregator.router_id.to_string();
        all.push(pack(&apipb::AggregatorAttribute { asn: aggregator.asn, address }));
    }
    if !from.communities.is_empty() {
        let communities = from.communities.iter().map(|community| community.0).collect();
        all.push(pack(&apipb::CommunitiesAttribute { communities }));
    }
    if let Some(id) = from.originator_id {
        all.push(pack(&apipb::OriginatorIdAttribute { id: id.to_string() }));
    }
    if !from.cluster_list.is_empty() {
        let ids = from.cluster_list.iter().map(ToString::to_string).collect();
        all.push(pack(&apipb::ClusterListAttribute { ids }));
    }
    if !(ipv4 && matches!(next_hop, wire::NextHop::V4(_))) {
        let next_hops = match next_hop {
            wire::NextHop::V4(address) => vec![address.to_string()],
            wire::NextHop::V6(address) => vec![address.to_string()],
            wire::NextHop::V6WithLinkLocal { global, link_local } => {
                vec![global.to_string(), link_local.to_string()]
            }
        };
        all.push(pack(&apipb::MpReachNlriAttribute {
            family: Some(family(family_of(prefix))),
            next_hops,
            nlris: vec![nlri(prefix)],
        }));
    }
    if !from.extended_communities.is_empty() {
        let communities = from.extended_communities.iter().map(|community| extended(*community)).collect();
        all.push(pack(&apipb::ExtendedCommunitiesAttribute { communities }));
    }
    if !from.large_communities.is_empty() {
        let communities = from
            .large_communities
            .iter()
            .map(|large| apipb::LargeCommunity {
                global_admin: large.global,
                local_data1: large.local1,
                local_data2: large.local2,
            })
            .collect();
        all.push(pack(&apipb::LargeCommunitiesAttribute { communities }));
    }
    all.extend(from.only_to_customer.map(|asn| unknown(0xc0, 35, &asn.to_be_bytes())));
    all.extend(from.unknown.iter().map(|other| unknown(other.flags.0, other.code, &other.value)));
    all
}

fn unknown(flags: u8, code: u8, value: &[u8]) -> Any {
    pack(&apipb::UnknownAttribute { flags: u32::from(flags), r#type: u32::from(code), value: value.to_vec() })
}

fn segments(path: &AsPath) -> Vec<apipb::AsSegment> {
    path.segments
        .iter()
        .map(|segment| apipb::AsSegment {
            r#type: match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => 2,
                SegmentKind::ConfederationSequence => 3,
                SegmentKind::ConfederationSet => 4,
            },
            numbers: segment.asns.clone(),
        })
        .collect()
}

/// The type octet's bit that says non-transitive (RFC 4360 §2).
const NON_TRANSITIVE: u8 = 0x40;

fn extended(ExtendedCommunity(octets): ExtendedCommunity) -> Any {
    let [kind, sub_type, a, b, c, d, e, f] = octets;
    let is_transitive = kind & NON_TRANSITIVE == 0;
    let sub_type = u32::from(sub_type);
    match kind & !NON_TRANSITIVE {
        0 => pack(&apipb::TwoOctetAsSpecificExtended {
            is_transitive,
            sub_type,
            asn: u32::from(u16::from_be_bytes([a, b])),
            local_admin: u32::from_be_bytes([c, d, e, f]),
        }),
        1 => pack(&apipb::IPv4AddressSpecificExtended {
            is_transitive,
            sub_type,
            address: Ipv4Addr::new(a, b, c, d).to_string(),
            local_admin: u32::from(u16::from_be_bytes([e, f])),
        }),
        2 => pack(&apipb::FourOctetAsSpecificExtended {
            is_transitive,
            sub_type,
            asn: u32::from_be_bytes([a, b, c, d]),
            local_admin: u32::from(u16::from_be_bytes([e, f])),
        }),
        _ => {
            let [_, value @ ..] = octets;
            pack(&apipb::UnknownExtended { r#type: u32::from(kind), value: value.to_vec() })
        }
    }
}

/// A client's attributes.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) attributes: RouteAttributes,
    /// `None`: not said.
    next_hop: Option<IpAddr>,
    /// In MP_REACH_NLRI.
    pub(super) nlris: Vec<IpNet>,
}

impl Parsed {
    /// The next hop of this prefix; the unspecified address, or none, means this speaker.
    pub(super) fn next_hop(&self, prefix: IpNet) -> Result<NextHop, Error> {
        let Some(address) = self.next_hop.filter(|address| !address.is_unspecified()) else {
            return Ok(NextHop::SelfAddress);
        };
        // RFC 8950 allows an IPv6 next hop of an IPv4 prefix, where the session has agreed to it.
        if prefix.addr().is_ipv6() && address.is_ipv4() {
            return Err(Error::invalid(format!(
                "next hop {address} of {prefix}: use an IPv6 address, or :: for this speaker"
            )));
        }
        let valid = match address {
            IpAddr::V4(address) => wire::NextHop::V4(address).is_valid(),
            IpAddr::V6(address) => wire::NextHop::V6(address).is_valid(),
        };
        if valid {
            Ok(NextHop::Address(address))
        } else {
            Err(Error::invalid(format!("next hop {address}: packets cannot be sent there")))
        }
    }
}

/// Reads a client's attributes.
pub(super) fn parse(all: &[Any]) -> Result<Parsed, Error> {
    let mut parsed = Parsed::default();
    let mut seen: Vec<&str> = Vec::new();
    for any in all {
        let name = name(any);
        if seen.contains(&name) {
            return Err(Error::invalid(format!("{} is there twice: give each attribute once", shown(name))));
        }
        seen.push(name);
        parse_one(any, name, &mut parsed)?;
    }
    Ok(parsed)
}

fn parse_one(any: &Any, name: &str, parsed: &mut Parsed) -> Result<(), Error> {
    let attributes = &mut parsed.attributes;
    match name.strip_prefix("apipb.").unwrap_or_default() {
        "OriginAttribute" => {
            let message: apipb::OriginAttribute = unpack(any)?;
            attributes.origin = match message.origin {
                0 => RouteOrigin::Igp,
                1 => RouteOrigin::Egp,
                2 => RouteOrigin::Incomplete,
                other => {
                    return Err(Error::invalid(format!(
                        "origin {other}: use 0 (IGP), 1 (EGP) or 2 (incomplete)"
                    )));
                }
            };
        }
        "AsPathAttribute" => attributes.as_path = as_path(&unpack(any)?)?,
        "NextHopAttribute" => {
            let message: apipb::NextHopAttribute = unpack(any)?;
            parsed.next_hop = Some(address("the next hop", &message.next_hop)?);
        }
        "MultiExitDiscAttribute" => {
            let message: apipb::MultiExitDiscAttribute = unpack(any)?;
            attributes.med = Some(message.med);
        }
        "LocalPrefAttribute" => {
            let message: apipb::LocalPrefAttribute = unpack(any)?;
            attributes.local_pref = Some(message.local_pref);
        }
        "CommunitiesAttribute" => {
            let message: apipb::CommunitiesAttribute = unpack(any)?;
            bounded("communities", message.communities.len())?;
            attributes.communities = message.communities;
        }
        "LargeCommunitiesAttribute" => {
            let message: apipb::LargeCommunitiesAttribute = unpack(any)?;
            bounded("large communities", message.communities.len())?;
            let triple =
                |large: apipb::LargeCommunity| [large.global_admin, large.local_data1, large.local_data2];
            attributes.large_communities = message.communities.into_iter().map(triple).collect();
        }
        "ExtendedCommunitiesAttribute" => {
            let message: apipb::ExtendedCommunitiesAttribute = unpack(any)?;
            bounded("extended communities", message.communities.len())?;
            attributes.extended_communities =
                message.communities.iter().map(parse_extended).collect::<Result<_, _>>()?;
        }
        "MpReachNLRIAttribute" => {
            let message: apipb::MpReachNlriAttribute = unpack(any)?;
            super::family::family_or_ipv4(message.family)?;
            // A second one is link-local, and the session's own.
            if let Some(text) = message.next_hops.first() {
                parsed.next_hop = Some(address("the next hop", text)?);
            }
            parsed.nlris = message.nlris.iter().map(parse_nlri).collect::<Result<_, _>>()?;
        }
        _ => {
            return Err(Error::unimplemented(format!(
                "attribute {}: a route can have origin, AS path, next hop, MED, local preference, and communities, \
                 extended and large ones",
                shown(name)
            )));
        }
    }
    Ok(())
}

fn bounded(what: &str, count: usize) -> Result<(), Error> {
    if count <= MAX_COMMUNITIES {
        return Ok(());
    }
    Err(Error::invalid(format!("{count} {what}: at most {MAX_COMMUNITIES} fit a message")))
}

fn as_path(message: &apipb::AsPathAttribute) -> Result<AsPath, Error> {
    let count: usize = message.segments.iter().map(|segment| segment.numbers.len()).sum();
    if count > MAX_AS_PATH || message.segments.len() > MAX_AS_PATH {
        return Err(Error::invalid(format!(
            "an AS path of {count} numbers: at most {MAX_AS_PATH} fit a message"
        )));
    }
    let mut path = AsPath::empty();
    for segment in &message.segments {
        let kind = match segment.r#type {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            other => {
                return Err(Error::invalid(format!(
                    "AS path segment of type {other}: use 1 (AS_SET) or 2 (AS_SEQUENCE)"
                )));
            }
        };
        if segment.numbers.is_empty() || segment.numbers.contains(&0) {
            return Err(Error::invalid("an AS path segment without numbers, or with AS 0 (RFC 7607)"));
        }
        path.segments.push(AsPathSegment { kind, asns: segment.numbers.clone() });
    }
    Ok(path)
}

fn parse_extended(any: &Any) -> Result<[u8; 8], Error> {
    let octet = |what: &str, value: u32| {
        u8::try_from(value)
            .map_err(|_| Error::invalid(format!("{what} {value} of an extended community: at most 255")))
    };
    let short = |what: &str, value: u32| {
        u16::try_from(value)
            .map(u16::to_be_bytes)
            .map_err(|_| Error::invalid(format!("{what} {value} of an extended community: at most 65535")))
    };
    let kind = |kind: u8, transitive: bool| if transitive { kind } else { kind | NON_TRANSITIVE };
    let name = name(any);
    match name.strip_prefix("apipb.").unwrap_or_default() {
        "TwoOctetAsSpecificExtended" => {
            let from: apipb::TwoOctetAsSpecificExtended = unpack(any)?;
            let [a, b] = short("AS number", from.asn)?;
            let [c, d, e, f] = from.local_admin.to_be_bytes();
            Ok([kind(0, from.is_transitive), octet("sub-type", from.sub_type)?, a, b, c, d, e, f])
        }
        "IPv4AddressSpecificExtended" => {
            let from: apipb::IPv4AddressSpecificExtended = unpack(any)?;
            let IpAddr::V4(address) = address("the address of an extended community", &from.address)? else {
                return Err(Error::invalid(
                    "an extended community with an IPv6 address: use an IPv4 address",
                ));
            };
            let [a, b, c, d] = address.octets();
            let [e, f] = short("local value", from.local_admin)?;
            Ok([kind(1, from.is_transitive), octet("sub-type", from.sub_type)?, a, b, c, d, e, f])
        }
        "FourOctetAsSpecificExtended" => {
            let from: apipb::FourOctetAsSpecificExtended = unpack(any)?;
            let [a, b, c, d] = from.asn.to_be_bytes();
            let [e, f] = short("local value", from.local_admin)?;
            Ok([kind(2, from.is_transitive), octet("sub-type", from.sub_type)?, a, b, c, d, e, f])
        }
        "OpaqueExtended" => {
            let from: apipb::OpaqueExtended = unpack(any)?;
            seven(kind(3, from.is_transitive), &from.value)
        }
        "UnknownExtended" => {
            let from: apipb::UnknownExtended = unpack(any)?;
            seven(octet("type", from.r#type)?, &from.value)
        }
        _ => Err(Error::unimplemented(format!(
            "extended community {}: use the two-octet AS, four-octet AS, IPv4, opaque or unknown kind",
            shown(name)
        ))),
    }
}

/// A type octet and what follows.
fn seven(kind: u8, value: &[u8]) -> Result<[u8; 8], Error> {
    let [a, b, c, d, e, f, g] = <[u8; 7]>::try_from(value).map_err(|_| {
        Error::invalid(format!("an extended community with {} octets after its type: give 7", value.len()))
    })?;
    Ok([kind, a, b, c, d, e, f, g])
}
