//! Times of day, of the speaker's instants.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// An instant as a time of day, as the clock says now.
pub(super) fn timestamp(at: Instant) -> Timestamp {
    let (now, today) = (Instant::now(), SystemTime::now());
    let then = match now.checked_duration_since(at) {
        Some(ago) => today.checked_sub(ago),
        None => today.checked_add(at.duration_since(now)),
    };
    let since = then.and_then(|then| then.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}
