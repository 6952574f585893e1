//! The value of `--metrics-addr` and `--http-bind-address`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Where to listen: `:PORT` (all addresses of both families), `ADDRESS:PORT`, or `0` (nowhere), as the Go OpenELB
/// wrote it.
///
/// ```
/// use openelbd::http::ListenAddress;
///
/// assert_eq!("127.0.0.1:50053".parse::<ListenAddress>()?.to_string(), "127.0.0.1:50053");
/// assert_eq!(":50053".parse::<ListenAddress>()?.to_string(), ":50053");
/// assert_eq!("0".parse::<ListenAddress>()?, ListenAddress::Off);
/// # Ok::<(), openelbd::http::ListenAddressError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// Nowhere.
    Off,
    /// All addresses of both families.
    All {
        /// The port; 0: any free one.
        port: u16,
    },
    /// One address.
    One(SocketAddr),
}

impl ListenAddress {
    /// Whether it can be reached from this host alone, or not at all.
    #[must_use]
    pub fn is_local(self) -> bool {
        match self {
            Self::Off => true,
            Self::All { .. } => false,
            Self::One(address) => address.ip().is_loopback(),
        }
    }

    /// The socket addresses to try, in order of preference.
    #[must_use]
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Off => Vec::new(),
            // Hosts without IPv6 have only the second.
            Self::All { port } => vec![
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            ],
            Self::One(address) => vec![address],
        }
    }
}

/// Text that is no [`ListenAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: use :PORT, ADDRESS:PORT, [IPV6]:PORT, or 0 for none")]
pub struct ListenAddressError(String);

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "0" {
            return Ok(Self::Off);
        }
        let error = || ListenAddressError(text.to_owned());
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(|port| Self::All { port }).map_err(|_| error());
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| error())?;
            return Ok(Self::One(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::One).map_err(|_| error())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("0"),
            Self::All { port } => write!(f, ":{port}"),
            Self::One(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ListenAddress;

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in ["", ":", ":70000", "50053", "host:1", "1.2.3.4", "::1:80:", "127.0.0.1:x"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_port_alone_means_both_families() {
        let address: ListenAddress = ":50053".parse().unwrap();
        let candidates: Vec<String> = address.candidates().iter().map(ToString::to_string).collect();
        assert_eq!(candidates, ["[::]:50053", "0.0.0.0:50053"]);
    }
}
