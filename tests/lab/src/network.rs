//! Hosts, links and addresses, as a script for iproute2.

use std::fmt::Write as _;

/// One end of a link: host, interface, addresses with their prefix length.
pub type End<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Builds a network; see [`Lab::network`](crate::Lab::network).
#[derive(Debug, Default)]
pub struct Network {
    script: String,
}

/// No reverse path filter, no waiting for duplicate address detection, no router advertisements.
const HOST: &str = "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                    net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0";
/// Forwarding, and an ECMP hash over the five-tuple: policy 1 would hash the sending socket's random number on veth,
/// and flows would move when a packet is sent again.
const ROUTER: &str = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                      net.ipv4.fib_multipath_hash_policy=3 net.ipv4.fib_multipath_hash_fields=0x37 \
                      net.ipv6.fib_multipath_hash_policy=3 net.ipv6.fib_multipath_hash_fields=0x37";
/// A switch is no firewall.
const SWITCH: &str = "net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
                      net.bridge.bridge-nf-call-arptables=0";

impl Network {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = writeln!(self.script, "{line}");
        self
    }

    pub(crate) fn script(self) -> String {
        self.script
    }

    fn namespace(&mut self, name: &str, sysctls: &[&str]) -> &mut Self {
        self.line(format_args!("ip netns add {name}"));
        self.line(format_args!("ip -n {name} link set lo up"));
        for sysctls in sysctls {
            self.line(format_args!("ip netns exec {name} sysctl -qw {sysctls}"));
        }
        self
    }

    /// A host that forwards nothing.
    pub fn host(&mut self, name: &str) -> &mut Self {
        self.namespace(name, &[HOST])
    }

    /// A host that forwards, and spreads flows over equal-cost routes.
    pub fn router(&mut self, name: &str) -> &mut Self {
        self.namespace(name, &[HOST, ROUTER])
    }

    /// A switch: a host with one bridge, `br0`.
    pub fn switch(&mut self, name: &str) -> &mut Self {
        self.namespace(name, &[]);
        self.line(format_args!("ip -n {name} link add br0 type bridge"));
        self.line(format_args!("ip -n {name} link set br0 up"));
        // Only there where br_netfilter is loaded.
        self.line(format_args!("ip netns exec {name} sysctl -qw {SWITCH} 2>/dev/null || true"))
    }

    fn addresses(&mut self, (host, interface, addresses): End<'_>) -> &mut Self {
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.line(format_args!("ip -n {host} addr add {address} dev {interface}{nodad}"));
        }
        self.line(format_args!("ip -n {host} link set {interface} up"))
    }

    /// Plugs a host into a switch. The switch's port is called like the host.
    pub fn plug(&mut self, switch: &str, end: End<'_>) -> &mut Self {
        let (host, interface, _) = end;
        self.line(format_args!(
            "ip -n {host} link add {interface} type veth peer name {host} netns {switch}"
        ));
        self.line(format_args!("ip -n {switch} link set {host} master br0 up"));
        self.addresses(end)
    }

    /// A cable between two hosts.
    pub fn wire(&mut self, a: End<'_>, b: End<'_>) -> &mut Self {
        let ((host_a, interface_a, _), (host_b, interface_b, _)) = (a, b);
        self.line(format_args!(
            "ip -n {host_a} link add {interface_a} type veth peer name {interface_b} netns {host_b}"
        ));
        self.addresses(a).addresses(b)
    }

    /// A route on a host, as `ip route add` takes it.
    pub fn route(&mut self, host: &str, route: &str) -> &mut Self {
        let six = if route.contains(':') { "-6 " } else { "" };
        self.line(format_args!("ip -n {host} {six}route add {route}"))
    }
}
