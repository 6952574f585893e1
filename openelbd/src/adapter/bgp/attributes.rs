//! `spec.advertisements` of a `BgpPeer` → which addresses it hears of, and with which path attributes.

use std::{net::Ipv4Addr, sync::Arc};

use openelb_bgp::speaker::RouteAttributes;
use openelb_k8s::{
    announce::{Announcement, PeerAnnouncements},
    index::peers::AdvertisementSpec,
};

/// The attributes of an address towards a neighbour, on top of `base`; `None` if no rule lets it hear of the address.
/// Matching rules unite their communities; of single values the first rule's is taken.
#[must_use]
pub fn attributes(
    peer: &PeerAnnouncements,
    announcement: &Announcement,
    base: &Arc<RouteAttributes>,
) -> Option<Arc<RouteAttributes>> {
    let Some(matching) = peer.rules_for(announcement) else { return Some(Arc::clone(base)) };
    if matching.is_empty() {
        return None;
    }
    let rules = peer.spec.advertisements.as_deref().unwrap_or_default();
    let mut attributes = RouteAttributes::clone(base);
    let mut prepend = None;
    for AdvertisementSpec { rule, .. } in matching.into_iter().filter_map(|index| rules.get(index)) {
        attributes.communities.extend(rule.communities.iter().flatten().filter_map(|text| community(text)));
        let large = rule.large_communities.iter().flatten().filter_map(|text| large_community(text));
        attributes.large_communities.extend(large);
        let extended = rule.ext_communities.iter().flatten().filter_map(|text| extended_community(text));
        attributes.extended_communities.extend(extended);
        attributes.local_pref = attributes.local_pref.or(rule.local_preference);
        attributes.med = attributes.med.or(rule.med);
        prepend = prepend.or(rule.as_path_prepend);
    }
    attributes.as_path_prepend = prepend.map_or(0, |times| u8::try_from(times).unwrap_or(u8::MAX));
    attributes.communities.sort_unstable();
    attributes.communities.dedup();
    attributes.large_communities.sort_unstable();
    attributes.large_communities.dedup();
    attributes.extended_communities.sort_unstable();
    attributes.extended_communities.dedup();
    Some(Arc::new(attributes))
}

/// `AS:VALUE`, a number, or a well-known name (RFC 1997, RFC 3765, RFC 7611, RFC 7999, RFC 8326).
fn community(text: &str) -> Option<u32> {
    let known = match text {
        "graceful-shutdown" => 0xffff_0000,
        "accept-own" => 0xffff_0001,
        "blackhole" => 0xffff_029a,
        "no-export" => 0xffff_ff01,
        "no-advertise" => 0xffff_ff02,
        "no-export-subconfed" => 0xffff_ff03,
        "no-peer" => 0xffff_ff04,
        _ => {
            let Some((asn, value)) = text.split_once(':') else { return text.parse().ok() };
            let (asn, value): (u16, u16) = (asn.parse().ok()?, value.parse().ok()?);
            u32::from(asn) << 16 | u32::from(value)
        }
    };
    Some(known)
}

/// `AS:VALUE:VALUE` (RFC 8092).
fn large_community(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.splitn(3, ':').map(str::parse::<u32>);
    Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
}

/// `rt:AS:VALUE` and `soo:AS:VALUE`, AS also as an IPv4 address (RFC 4360 section 4, RFC 5668).
fn extended_community(text: &str) -> Option<[u8; 8]> {
    let (kind, rest) = text.split_once(':')?;
    let subtype = match kind {
        "rt" => 0x02,
        "soo" => 0x03,
        _ => return None,
    };
    let (administrator, value) = rest.rsplit_once(':')?;
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        let ([a, b, c, d], [e, f]) = (address.octets(), value.parse::<u16>().ok()?.to_be_bytes());
        return Some([0x01, subtype, a, b, c, d, e, f]);
    }
    let asn: u32 = administrator.parse().ok()?;
    match u16::try_from(asn) {
        Ok(asn) => {
            let ([a, b], [c, d, e, f]) = (asn.to_be_bytes(), value.parse::<u32>().ok()?.to_be_bytes());
            Some([0x00, subtype, a, b, c, d, e, f])
        }
        Err(_) => {
            let ([a, b, c, d], [e, f]) = (asn.to_be_bytes(), value.parse::<u16>().ok()?.to_be_bytes());
            Some([0x02, subtype, a, b, c, d, e, f])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{community, extended_community, large_community};

    #[test]
    fn communities_are_read_as_the_rfcs_write_them() {
        let table = [
            ("65000:100", Some(0xfde8_0064)),
            ("4259840100", Some(0xfde8_0064)),
            ("no-export", Some(0xffff_ff01)),
            ("graceful-shutdown", Some(0xffff_0000)),
            ("blackhole", Some(0xffff_029a)),
            ("70000:1", None),
            ("x", None),
        ];
        for (text, value) in table {
            assert_eq!(community(text), value, "{text}");
        }
        assert_eq!(large_community("4200000000:1:2"), Some([4_200_000_000, 1, 2]));
        assert_eq!(large_community("1:2"), None);
        let table = [
            ("rt:65000:7", Some([0x00, 0x02, 0xfd, 0xe8, 0, 0, 0, 7])),
            ("soo:4200000000:7", Some([0x02, 0x03, 0xfa, 0x56, 0xea, 0x00, 0, 7])),
            ("rt:192.0.2.1:7", Some([0x01, 0x02, 192, 0, 2, 1, 0, 7])),
            ("rt:1", None),
            ("xx:1:2", None),
        ];
        for (text, value) in table {
            assert_eq!(extended_community(text), value, "{text}");
        }
    }
}
