//! Flags of the Go programs' log library (klog), which the `args:` of a kept manifest may hold. They have no effect: see
//! `--log-format` and `--log-level`.

use clap::{ArgAction, Args};

/// With a hyphen, as the Go OpenELB showed them; it took them with an underscore as well.
#[derive(Debug, Args)]
pub(super) struct KlogArguments {
    /// Accepted for the Go OpenELB's manifests; see --log-level.
    #[arg(short = 'v', long = "v", hide = true, value_name = "LEVEL")]
    v: Option<String>,
    /// Accepted for the Go OpenELB's manifests; see --log-level.
    #[arg(long, hide = true, value_name = "PATTERN=LEVEL,...")]
    vmodule: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    logtostderr: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    alsologtostderr: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, hide = true, value_name = "LEVEL")]
    stderrthreshold: Option<String>,
    /// Accepted for the Go OpenELB's manifests.
    #[arg(long, alias = "legacy_stderr_threshold_behavior", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    legacy_stderr_threshold_behavior: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, alias = "log_dir", hide = true, value_name = "DIR")]
    log_dir: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, alias = "log_file", hide = true, value_name = "FILE")]
    log_file: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, alias = "log_file_max_size", hide = true, value_name = "MEGABYTES")]
    log_file_max_size: Option<String>,
    /// Accepted for the Go OpenELB's manifests.
    #[arg(long, alias = "log_backtrace_at", hide = true, value_name = "FILE:LINE")]
    log_backtrace_at: Option<String>,
    /// Accepted for the Go OpenELB's manifests; see --log-format.
    #[arg(long, alias = "add_dir_header", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    add_dir_header: Option<String>,
    /// Accepted for the Go OpenELB's manifests; see --log-format.
    #[arg(long, alias = "skip_headers", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    skip_headers: Option<String>,
    /// Accepted for the Go OpenELB's manifests; see --log-format.
    #[arg(long, alias = "skip_log_headers", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    skip_log_headers: Option<String>,
    /// Accepted for the Go OpenELB's manifests; each line is written once.
    #[arg(long, alias = "one_output", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    one_output: Option<String>,
}

impl KlogArguments {
    /// Each flag, and whether it was given.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, bool)> {
        [
            ("--v", &self.v),
            ("--vmodule", &self.vmodule),
            ("--logtostderr", &self.logtostderr),
            ("--alsologtostderr", &self.alsologtostderr),
            ("--stderrthreshold", &self.stderrthreshold),
            ("--legacy-stderr-threshold-behavior", &self.legacy_stderr_threshold_behavior),
            ("--log-dir", &self.log_dir),
            ("--log-file", &self.log_file),
            ("--log-file-max-size", &self.log_file_max_size),
            ("--log-backtrace-at", &self.log_backtrace_at),
            ("--add-dir-header", &self.add_dir_header),
            ("--skip-headers", &self.skip_headers),
            ("--skip-log-headers", &self.skip_log_headers),
            ("--one-output", &self.one_output),
        ]
        .map(|(flag, value)| (flag, value.is_some()))
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};

    #[test]
    fn flags_of_klog_are_taken_in_every_spelling() {
        for flags in [
            &["--v=4", "--logtostderr"][..],
            &["--v", "4", "--logtostderr=true", "--alsologtostderr=false"],
            &["-v", "2", "--stderrthreshold=2", "--vmodule=bgp=4"],
            &["-v=2", "--log_dir=/tmp"],
            &["-v2", "--log-dir", "/tmp"],
            &["--log-file=/x", "--log-file-max-size=1800", "--log-backtrace-at=:0"],
            &["--log_file=/x", "--log_file_max_size=1800", "--log_backtrace_at=:0"],
            &["--add-dir-header", "--skip-headers", "--skip-log-headers", "--one-output"],
            &["--add_dir_header", "--skip_headers", "--skip_log_headers=true", "--one_output"],
        ] {
            for command in [&["speaker", "--node-name", "n"][..], &["controller"]] {
                let arguments = ["openelbd"].iter().chain(command).chain(flags);
                let cli = Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{flags:?}: {error}"));
                let klog = match &cli.command {
                    Command::Speaker(arguments) => arguments.klog(),
                    Command::Controller(arguments) => arguments.klog(),
                    other => panic!("{other:?}"),
                };
                let given = klog.given().filter(|(_, given)| *given).count();
                assert!(given >= 2, "{flags:?}: {given}");
            }
        }
    }
}
