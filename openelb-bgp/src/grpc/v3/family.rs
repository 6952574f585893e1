//! Families, prefixes and addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use prost_types::Any;

use super::any::{name, pack, shown, unpack};
use crate::{
    grpc::{apipb, core::Error},
    wire::{Family, Prefix},
};

/// A family as messages have it; the numbers are IANA's.
pub(super) fn family(family: Family) -> apipb::Family {
    apipb::Family { afi: i32::from(family.afi), safi: i32::from(family.safi) }
}

/// IPv4 or IPv6 unicast.
pub(super) fn parse_family(family: apipb::Family) -> Result<Family, Error> {
    match (family.afi, family.safi) {
        (1, 1) => Ok(Family::IPV4_UNICAST),
        (2, 1) => Ok(Family::IPV6_UNICAST),
        (afi, safi) => Err(Error::unimplemented(format!(
            "afi {afi} safi {safi}: this speaker has IPv4 and IPv6 unicast only (afi 1 or 2, safi 1)"
        ))),
    }
}

/// The family that a request names, or IPv4 unicast where it names none.
pub(super) fn family_or_ipv4(family: Option<apipb::Family>) -> Result<Family, Error> {
    family.map_or(Ok(Family::IPV4_UNICAST), parse_family)
}

/// The family of a prefix.
pub(super) fn family_of(prefix: IpNet) -> Family {
    if prefix.addr().is_ipv4() { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST }
}

/// A prefix as NLRI.
pub(super) fn nlri(prefix: IpNet) -> Any {
    pack(&apipb::IpAddressPrefix {
        prefix_len: u32::from(prefix.prefix_len()),
        prefix: prefix.network().to_string(),
    })
}

/// The prefix in NLRI; host bits are cleared.
pub(super) fn parse_nlri(any: &Any) -> Result<IpNet, Error> {
    if name(any) != "apipb.IPAddressPrefix" {
        return Err(Error::unimplemented(format!(
            "NLRI {}: this speaker has IPv4 and IPv6 prefixes only (apipb.IPAddressPrefix)",
            shown(name(any))
        )));
    }
    let message: apipb::IpAddressPrefix = unpack(any)?;
    let address = address("the prefix", &message.prefix)?;
    let length = u8::try_from(message.prefix_len).unwrap_or(u8::MAX);
    let prefix = Prefix::new(address, length)
        .map_err(|error| Error::invalid(format!("{}/{}: {error}", message.prefix, message.prefix_len)))?;
    Ok(prefix.into())
}

/// An address in a request.
pub(super) fn address(what: &str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| Error::invalid(format!("{what} {} is no IPv4 or IPv6 address", shown(text))))
}
