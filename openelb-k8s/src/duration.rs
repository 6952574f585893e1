//! Durations as Kubernetes writes them: `300ms`, `1m30s`, `0`.

use std::time::Duration;

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration")]
pub struct DurationError(String);

/// Parses numbers with units (`h`, `m`, `s`, `ms`, `us`, `µs`, `ns`), each at most once per unit, as Go's
/// `time.ParseDuration` does; negative ones are refused.
///
/// # Errors
/// If the text is none, or beyond 2^64 nanoseconds.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(openelb_k8s::duration::parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert_eq!(openelb_k8s::duration::parse("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(openelb_k8s::duration::parse("5").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.to_owned());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return Err(error()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || whole.len() > 18 {
            return Err(error());
        }
        let part = |digits: &str| {
            if digits.is_empty() { Ok(0) } else { digits.parse::<u128>().map_err(|_| error()) }
        };
        let mut scale: u128 = 1;
        for _ in 0..fraction.len() {
            scale = scale.saturating_mul(10);
        }
        total = total
            .saturating_add(part(whole)?.saturating_mul(unit))
            .saturating_add(part(fraction)?.saturating_mul(unit) / scale);
        rest = next;
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| error())
}
