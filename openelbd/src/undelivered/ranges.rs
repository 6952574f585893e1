//! Prefixes as the kernel's interval sets take them: ranges that do not touch each other.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// Ranges of addresses of one family, first and last, in order; none overlaps or continues another.
pub(super) type Ranges = BTreeSet<(IpAddr, IpAddr)>;

/// The addresses of these prefixes, by family.
pub(super) fn ranges<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> [Ranges; 2] {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => {
                v4.push((u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast()))));
            }
            IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
        }
    }
    let v4 = united(v4).map(|(first, last)| (ipv4(first), ipv4(last)));
    let v6 = united(v6).map(|(first, last)| (ipv6(first), ipv6(last)));
    [v4.collect(), v6.collect()]
}

fn ipv4(number: u128) -> IpAddr {
    std::net::Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
}

fn ipv6(number: u128) -> IpAddr {
    std::net::Ipv6Addr::from(number).into()
}

fn united(mut ranges: Vec<(u128, u128)>) -> impl Iterator<Item = (u128, u128)> {
    ranges.sort_unstable();
    let mut united: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match united.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => united.push((first, last)),
        }
    }
    united.into_iter()
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn prefixes_that_touch_are_one_range() {
        let table: [(&[&str], &[&str], &[&str]); 6] = [
            (&[], &[], &[]),
            (&["192.0.2.1/32"], &["192.0.2.1-192.0.2.1"], &[]),
            (
                &["192.0.2.1/32", "192.0.2.2/32", "192.0.2.4/32"],
                &["192.0.2.1-192.0.2.2", "192.0.2.4-192.0.2.4"],
                &[],
            ),
            (&["192.0.2.0/24", "192.0.2.7/32", "192.0.3.0/24"], &["192.0.2.0-192.0.3.255"], &[]),
            (&["0.0.0.0/0", "255.255.255.255/32"], &["0.0.0.0-255.255.255.255"], &[]),
            (
                &["2001:db8::/64", "2001:db8:0:1::/64", "::/0", "192.0.2.1/32"],
                &["192.0.2.1-192.0.2.1"],
                &["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            ),
        ];
        for (prefixes, v4, v6) in table {
            let prefixes: Vec<ipnet::IpNet> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
            let shown = ranges(&prefixes).map(|ranges| {
                ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>()
            });
            assert_eq!(shown, [v4, v6], "{prefixes:?}");
        }
    }
}
