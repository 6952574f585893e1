//! Communities as they are written.

use std::net::Ipv4Addr;

/// The well-known communities that may be written by name (RFC 1997, RFC 3765, RFC 7611, RFC 7999, RFC 8326, RFC 9494).
pub const WELL_KNOWN: &[(&str, u32)] = &[
    ("graceful-shutdown", 0xffff_0000),
    ("accept-own", 0xffff_0001),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
    ("no-peer", 0xffff_ff04),
];

/// `AS:VALUE` (16 bits each), a number, or a well-known name (RFC 1997). Capitals and `_` are as good as small letters
/// and `-`.
///
/// # Errors
/// What to write instead.
///
/// ```
/// use openelb_k8s::index::peers::community::standard;
/// assert_eq!(standard("65000:100"), Ok(0xfde8_0064));
/// assert_eq!(standard("NO_EXPORT"), Ok(0xffff_ff01));
/// assert!(standard("70000:1").is_err());
/// ```
pub fn standard(text: &str) -> Result<u32, &'static str> {
    const REMEDY: &str = "write AS:VALUE (each 0 to 65535), or a well-known name such as no-export";
    let name = text.to_ascii_lowercase().replace('_', "-");
    if let Some((_, value)) = WELL_KNOWN.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }
    let Some((asn, value)) = text.split_once(':') else { return number(text).ok_or(REMEDY) };
    let asn: u16 = asn.parse().map_err(|_| REMEDY)?;
    let value: u16 = value.parse().map_err(|_| REMEDY)?;
    Ok(u32::from(asn) << 16 | u32::from(value))
}

/// `AS:VALUE:VALUE`, 32 bits each (RFC 8092).
///
/// # Errors
/// What to write instead.
pub fn large(text: &str) -> Result<[u32; 3], &'static str> {
    const REMEDY: &str = "write AS:VALUE:VALUE (each 0 to 4294967295)";
    let mut parts = text.splitn(3, ':').map(str::parse::<u32>);
    let mut next = || parts.next().and_then(Result::ok).ok_or(REMEDY);
    Ok([next()?, next()?, next()?])
}

/// `rt:AS:VALUE` (route target) and `ro:AS:VALUE` (route origin; also `soo:`), AS also as an IPv4 address (RFC 4360
/// section 4, RFC 5668); or `generic:HIGH:LOW` with the two halves of the eight octets as numbers.
///
/// # Errors
/// What to write instead.
pub fn extended(text: &str) -> Result<[u8; 8], &'static str> {
    const REMEDY: &str = "write rt:AS:VALUE or ro:AS:VALUE (VALUE up to 65535 if AS is above 65535 or an address), or generic:HIGH:LOW";
    parse_extended(text).ok_or(REMEDY)
}

fn parse_extended(text: &str) -> Option<[u8; 8]> {
    let (kind, rest) = text.split_once(':')?;
    let (administrator, value) = rest.rsplit_once(':')?;
    let subtype = match kind.to_ascii_lowercase().as_str() {
        "rt" => 0x02,
        "ro" | "soo" => 0x03,
        "generic" => {
            let both = u64::from(number(administrator)?) << 32 | u64::from(number(value)?);
            return Some(both.to_be_bytes());
        }
        _ => return None,
    };
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

/// A number, also as `0x…`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{extended, large, standard};

    #[test]
    fn communities_are_read_as_the_rfcs_write_them() {
        let table = [
            ("65000:100", Some(0xfde8_0064)),
            ("0:0", Some(0)),
            ("4259840100", Some(0xfde8_0064)),
            ("0xffff029a", Some(0xffff_029a)),
            ("no-export", Some(0xffff_ff01)),
            ("NO_ADVERTISE", Some(0xffff_ff02)),
            ("graceful-shutdown", Some(0xffff_0000)),
            ("blackhole", Some(0xffff_029a)),
            ("llgr-stale", Some(0xffff_0006)),
            ("70000:1", None),
            ("65000:70000", None),
            ("65000:1:2", None),
            ("-1:2", None),
            ("x", None),
            ("", None),
        ];
        for (text, value) in table {
            assert_eq!(standard(text).ok(), value, "{text}");
        }
        assert_eq!(large("4200000000:1:2"), Ok([4_200_000_000, 1, 2]));
        for bad in ["1:2", "1:2:3:4", "4294967296:1:1", "a:b:c", ""] {
            assert!(large(bad).is_err(), "{bad}");
        }
        let table = [
            ("rt:65000:7", Some([0x00, 0x02, 0xfd, 0xe8, 0, 0, 0, 7])),
            ("rt:65000:4294967295", Some([0x00, 0x02, 0xfd, 0xe8, 0xff, 0xff, 0xff, 0xff])),
            ("soo:4200000000:7", Some([0x02, 0x03, 0xfa, 0x56, 0xea, 0x00, 0, 7])),
            ("ro:4200000000:7", Some([0x02, 0x03, 0xfa, 0x56, 0xea, 0x00, 0, 7])),
            ("rt:192.0.2.1:7", Some([0x01, 0x02, 192, 0, 2, 1, 0, 7])),
            ("generic:0x43000000:0x1", Some([0x43, 0, 0, 0, 0, 0, 0, 1])),
            ("rt:4200000000:70000", None),
            ("rt:192.0.2.1:70000", None),
            ("rt:1", None),
            ("xx:1:2", None),
        ];
        for (text, value) in table {
            assert_eq!(extended(text).ok(), value, "{text}");
        }
    }
}
