//! Which network interface of a node a pool lives on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How the interface of a pool is found on each node.
///
/// | text | meaning |
/// |---|---|
/// | `NAME` | the interface of this name, or with this alternative name: at most 127 octets (Linux `ALTIFNAMSIZ` − 1) |
/// | `can_reach:IP` | the interface by which the kernel's route to this address leaves |
/// | `regex:EXPR` | every interface whose name matches; the expression is compiled by whoever resolves it |
/// | `subnet` | the interface with a prefix that contains the announced address |
/// | `all` | every interface that can carry ARP or NDP and has a subnet |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InterfaceSelector {
    /// One interface by name.
    Name(String),
    /// The interface on the way to an address.
    CanReach(IpAddr),
    /// Interfaces whose name matches a regular expression.
    Regex(String),
    /// The interface whose subnet holds the address.
    Subnet,
    /// All interfaces.
    All,
}

/// Why a text is no [`InterfaceSelector`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseInterfaceSelectorError {
    /// Nothing is written.
    #[error("the interface is empty: write its name, can_reach:IP, regex:EXPR, subnet or all")]
    Empty,
    /// A name that Linux refuses.
    #[error(
        "{0:?} is not an interface name: 1 to 127 octets without '/', ':', ',' and white space, not '.' or '..'"
    )]
    Name(String),
    /// `subnet` or `all`, written otherwise: an interface may have this name, but hardly is it meant.
    #[error(
        "{0:?} is no interface: write subnet or all in small letters, or regex:^{0}$ for one of that name"
    )]
    Case(String),
    /// Several names.
    #[error("{0:?} is no interface: for several write regex:EXPR, like regex:^(eth0|eth1)$")]
    Several(String),
    /// `can_reach:` without an IP address behind it.
    #[error("{0:?} is not an IP address: write can_reach:IP, like can_reach:192.168.0.1")]
    Address(String),
    /// `regex:` without an expression.
    #[error("the expression is empty: write regex:EXPR, like regex:^eth[0-9]+$")]
    Expression,
    /// `x:y` with an `x` that is unknown.
    #[error("{0:?} is unknown: write NAME, can_reach:IP, regex:EXPR, subnet or all")]
    Kind(String),
}

/// The longest name of an interface that Linux takes, in octets: that of an alternative one (`ALTIFNAMSIZ` − 1).
const MAX_NAME: usize = 127;

impl FromStr for InterfaceSelector {
    type Err = ParseInterfaceSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ParseInterfaceSelectorError as E;
        let text = text.trim();
        match text.split_once(':') {
            None if text.is_empty() => Err(E::Empty),
            None if text == "subnet" => Ok(Self::Subnet),
            None if text == "all" => Ok(Self::All),
            None if text.eq_ignore_ascii_case("subnet") || text.eq_ignore_ascii_case("all") => {
                Err(E::Case(text.to_owned()))
            }
            None if text.contains(',') => Err(E::Several(text.to_owned())),
            None => {
                let bad = text.len() > MAX_NAME
                    || text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
                    || matches!(text, "." | "..");
                if bad { Err(E::Name(text.to_owned())) } else { Ok(Self::Name(text.to_owned())) }
            }
            Some(("can_reach", ip)) => {
                ip.trim().parse().map(Self::CanReach).map_err(|_| E::Address(ip.trim().to_owned()))
            }
            Some(("regex", expression)) if expression.trim().is_empty() => Err(E::Expression),
            Some(("regex", expression)) => Ok(Self::Regex(expression.trim().to_owned())),
            Some((kind, _)) => Err(E::Kind(format!("{kind}:"))),
        }
    }
}

impl fmt::Display for InterfaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::CanReach(ip) => write!(f, "can_reach:{ip}"),
            Self::Regex(expression) => write!(f, "regex:{expression}"),
            Self::Subnet => f.write_str("subnet"),
            Self::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ParseInterfaceSelectorError as E;

    #[test]
    fn every_form() {
        for (text, selector) in [
            ("eth0", InterfaceSelector::Name("eth0".into())),
            (" bond0.100 ", InterfaceSelector::Name("bond0.100".into())),
            ("can_reach:192.168.0.1", InterfaceSelector::CanReach("192.168.0.1".parse().unwrap())),
            ("can_reach:fd00::1", InterfaceSelector::CanReach("fd00::1".parse().unwrap())),
            ("regex:^eth[[:digit:]]+$", InterfaceSelector::Regex("^eth[[:digit:]]+$".into())),
            ("regex: ^eth ", InterfaceSelector::Regex("^eth".into())),
            ("an-alternative-name", InterfaceSelector::Name("an-alternative-name".into())),
            ("subnet", InterfaceSelector::Subnet),
            ("all", InterfaceSelector::All),
        ] {
            let parsed: InterfaceSelector = text.parse().unwrap();
            assert_eq!(parsed, selector, "{text}");
            assert_eq!(parsed.to_string().parse::<InterfaceSelector>().unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn every_error_says_what_to_write() {
        let long = "x".repeat(128);
        for (text, error) in [
            ("", E::Empty),
            (&long, E::Name(long.clone())),
            ("Subnet", E::Case("Subnet".into())),
            ("ALL", E::Case("ALL".into())),
            ("eth0,eth1", E::Several("eth0,eth1".into())),
            ("..", E::Name("..".into())),
            ("et h0", E::Name("et h0".into())),
            ("can_reach:", E::Address(String::new())),
            ("can_reach:192.168.0", E::Address("192.168.0".into())),
            ("regex: ", E::Expression),
            ("canreach:192.168.0.1", E::Kind("canreach:".into())),
        ] {
            assert_eq!(text.parse::<InterfaceSelector>(), Err(error), "{text}");
        }
    }
}
