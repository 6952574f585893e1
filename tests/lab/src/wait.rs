//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::anyhow;

/// Asks until the answer is `Ok(Some(_))`, and returns it with the time it took.
///
/// # Errors
/// The deadline passed: says what was awaited and what the last answer was. An `Err` is an answer, too, and asked again.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let answer = condition();
        if let Ok(Some(value)) = answer {
            return Ok((value, start.elapsed()));
        }
        if start.elapsed() >= deadline {
            let last = match answer {
                Err(error) => format!("; last: {error:#}"),
                Ok(_) => String::new(),
            };
            return Err(anyhow!("{what} did not happen within {:.1} s{last}", deadline.as_secs_f64()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
