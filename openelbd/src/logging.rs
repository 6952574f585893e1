//! Where log lines go and what they look like.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text if standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `RUST_LOG` or `--log-level` says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Sends log lines to standard error. `RUST_LOG` rules over `level`.
///
/// # Errors
/// If the filter cannot be parsed; the text says which one.
pub(crate) fn init(format: LogFormat, level: Option<&str>) -> Result<(), String> {
    let (origin, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => ("RUST_LOG", text),
        _ => ("--log-level", level.unwrap_or(DEFAULT_FILTER).to_owned()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        format!("{origin}={text}: {error}; use for example info or openelb_bgp=debug,info")
    })?;
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_ansi(terminal).boxed()
    };
    // Only the first call in a process takes effect; the program calls it once.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}
