//! The prefixes that are directly connected to this host, from the kernel's routing tables.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The route is in use (`RTF_UP`).
const UP: u32 = 1;

/// What `/proc/net/route` and `/proc/net/ipv6_route` show now; empty if they cannot be read.
pub(super) fn prefixes() -> Vec<IpNet> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut prefixes: Vec<IpNet> =
        v4.lines().filter_map(of_ipv4).chain(v6.lines().filter_map(of_ipv6)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in the host's order.
fn of_ipv4(line: &str) -> Option<IpNet> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else { return None };
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let address = |number: u32| Ipv4Addr::from(number.to_ne_bytes());
    if *interface == "lo" || number(gateway)? != 0 || number(flags)? & UP == 0 {
        return None;
    }
    let net = Ipv4Net::with_netmask(address(number(destination)?), address(number(mask)?)).ok()?;
    (1..32).contains(&net.prefix_len()).then_some(IpNet::V4(net.trunc()))
}

/// `destination length source length next-hop metric refcnt use flags interface`.
fn of_ipv6(line: &str) -> Option<IpNet> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, next_hop, _, _, _, flags, interface] = fields.as_slice() else {
        return None;
    };
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if *interface == "lo" || !address(next_hop)?.is_unspecified() || flags & UP == 0 {
        return None;
    }
    let net = Ipv6Net::new(address(destination)?, u8::from_str_radix(length, 16).ok()?).ok()?;
    let first = net.addr();
    let usable = !first.is_multicast() && !first.is_unicast_link_local();
    (usable && (1..128).contains(&net.prefix_len())).then_some(IpNet::V6(net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::{of_ipv4, of_ipv6};

    #[test]
    fn only_routes_without_gateway_are_connected() {
        let table = [
            ("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", None),
            ("fab0\t00000000\t0132A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0", None),
            ("fab0\t0032A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0", Some("192.168.50.0/24")),
            ("pods0\t0002F40A\t0C001EAC\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0", None),
            ("down0\t0032A8C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0", None),
        ];
        for (line, expected) in table {
            // The kernel writes in the order of the machine; the table is of a little one.
            if cfg!(target_endian = "little") {
                assert_eq!(of_ipv4(line).map(|net| net.to_string()).as_deref(), expected, "{line}");
            }
        }
        let zero = "00000000000000000000000000000000";
        let line = |destination: &str, length: &str, next_hop: &str, interface: &str| {
            format!(
                "{destination} {length} {zero} 00 {next_hop} 00000100 00000001 00000000 00000001 {interface}"
            )
        };
        let net = "fd000050000000000000000000000000";
        let gateway = "fd000050000000000000000000000001";
        assert_eq!(of_ipv6(&line(net, "40", zero, "fab0")).unwrap().to_string(), "fd00:50::/64");
        assert_eq!(of_ipv6(&line(net, "40", gateway, "fab0")), None);
        assert_eq!(of_ipv6(&line(net, "40", zero, "lo")), None);
        assert_eq!(of_ipv6(&line(net, "80", zero, "fab0")), None, "a host's own address");
        assert_eq!(of_ipv6(&line("fe800000000000000000000000000000", "40", zero, "fab0")), None);
        assert_eq!(of_ipv6("garbage"), None);
    }
}
