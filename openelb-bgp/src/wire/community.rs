//! Communities of all sizes.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A community of four octets (RFC 1997). Text: `64512:100`, a number, or a well-known name such as `no-export`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

/// The communities with a name of their own (IANA, BGP Well-known Communities).
const WELL_KNOWN: [(Community, &str); 8] = [
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (Community::LLGR_STALE, "llgr-stale"),
    (Community::NO_LLGR, "no-llgr"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
    (Community::NO_PEER, "no-peer"),
];

impl Community {
    /// The route is about to go: prefer another (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// Kept by long-lived graceful restart (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// Not to be kept by long-lived graceful restart (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Drop the traffic (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Not beyond this AS or confederation (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// To no other speaker (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not beyond this AS, not even within a confederation (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Not to bilateral peers (RFC 3765).
    pub const NO_PEER: Self = Self(0xffff_ff04);

    /// `asn:value`.
    #[must_use]
    pub const fn new(asn: u16, value: u16) -> Self {
        Self((asn as u32) << 16 | value as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WELL_KNOWN.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((community, _)) = WELL_KNOWN.iter().find(|(_, name)| text.eq_ignore_ascii_case(name)) {
            return Ok(*community);
        }
        let value = match text.split_once(':') {
            Some((asn, value)) => number(asn).zip(number(value)).map(|(asn, value)| Self::new(asn, value)),
            None => number(text).map(Self),
        };
        value.ok_or_else(|| {
            ParseCommunityError::new(text, "", "ASN:VALUE, each 0 to 65535, such as 64512:100")
        })
    }
}

/// A community of eight octets (RFC 4360). Text: `rt:64512:100`, `rt:4200000000:100`, `soo:192.0.2.1:100`, and `0x` with
/// 16 digits for all other types. `rt:64512L:100` is of the four-octet AS type (RFC 5668).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    const TWO_OCTET_AS: u8 = 0;
    const IPV4: u8 = 1;
    const FOUR_OCTET_AS: u8 = 2;
    const KINDS: [(u8, &str); 2] = [(2, "rt"), (3, "soo")];

    fn from_parts(kind: u8, subtype: u8, admin: &[u8], local: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let parts = [kind, subtype].into_iter().chain(admin.iter().copied()).chain(local.iter().copied());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        Self(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(digits) = text.strip_prefix("0x") {
            let valid = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            return valid
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
                .map(|n| Self(n.to_be_bytes()));
        }
        let (name, rest) = text.split_once(':')?;
        let (admin, local) = rest.split_once(':')?;
        let (subtype, _) = Self::KINDS.iter().find(|(_, known)| name.eq_ignore_ascii_case(known))?;
        if let Ok(address) = admin.parse::<Ipv4Addr>() {
            return Some(Self::from_parts(
                Self::IPV4,
                *subtype,
                &address.octets(),
                &number::<u16>(local)?.to_be_bytes(),
            ));
        }
        if let Some(asn) = number::<u16>(admin) {
            let local = number::<u32>(local)?.to_be_bytes();
            return Some(Self::from_parts(Self::TWO_OCTET_AS, *subtype, &asn.to_be_bytes(), &local));
        }
        let asn = number::<u32>(admin.strip_suffix('L').unwrap_or(admin))?;
        let local = number::<u16>(local)?.to_be_bytes();
        Some(Self::from_parts(Self::FOUR_OCTET_AS, *subtype, &asn.to_be_bytes(), &local))
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let Some((_, name)) = Self::KINDS.iter().find(|(known, _)| *known == subtype) else {
            return write!(f, "{:#018x}", u64::from_be_bytes(self.0));
        };
        match kind {
            Self::TWO_OCTET_AS => {
                write!(f, "{name}:{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]))
            }
            Self::IPV4 => {
                write!(f, "{name}:{}:{}", Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, g]))
            }
            Self::FOUR_OCTET_AS => {
                let asn = u32::from_be_bytes([a, b, c, d]);
                let mark = if u16::try_from(asn).is_ok() { "L" } else { "" };
                write!(f, "{name}:{asn}{mark}:{}", u16::from_be_bytes([e, g]))
            }
            _ => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| {
            ParseCommunityError::new(text, "extended ", "rt:64512:100, soo:192.0.2.1:100 or 0x and 16 digits")
        })
    }
}

/// A community of twelve octets (RFC 8092). Text: `64512:1:2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: the AS that defines the rest.
    pub global: u32,
    /// Local data, part 1.
    pub local1: u32,
    /// Local data, part 2.
    pub local2: u32,
}

impl LargeCommunity {
    /// `global:local1:local2`.
    #[must_use]
    pub const fn new(global: u32, local1: u32, local2: u32) -> Self {
        Self { global, local1, local2 }
    }

    pub(crate) const fn from_bytes([a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 12]) -> Self {
        Self {
            global: u32::from_be_bytes([a, b, c, d]),
            local1: u32::from_be_bytes([e, f, g, h]),
            local2: u32::from_be_bytes([i, j, k, l]),
        }
    }

    pub(crate) const fn to_bytes(self) -> [u8; 12] {
        let [a, b, c, d] = self.global.to_be_bytes();
        let [e, f, g, h] = self.local1.to_be_bytes();
        let [i, j, k, l] = self.local2.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl fmt::Debug for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(number::<u32>);
        let mut part = || parts.next().flatten();
        match (part(), part(), part(), parts.next()) {
            (Some(global), Some(local1), Some(local2), None) => Ok(Self { global, local1, local2 }),
            _ => Err(ParseCommunityError::new(
                text,
                "large ",
                "three numbers, each 0 to 4294967295, such as 64512:1:2",
            )),
        }
    }
}

/// Digits only: what `FromStr` of numbers takes besides (`+1`) is no community.
fn number<N: FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|digit| digit.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}community: write {example}")]
pub struct ParseCommunityError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

impl ParseCommunityError {
    fn new(text: &str, kind: &'static str, example: &'static str) -> Self {
        Self { text: text.chars().take(64).collect(), kind, example }
    }
}
