//! A file has one reason to change; a long one has several.

use super::{Verdict, sources, verdict};
use crate::shell;

/// More lines must be split.
const LIMIT: usize = 800;
/// More are worth a thought.
const AIM: usize = 400;

/// Files that may be longer, and why.
const EXCEPTIONS: &[(&str, &str)] = &[("openelb-bgp/src/grpc/generated/apipb.rs", "generated")];

pub(super) fn check() -> anyhow::Result<Verdict> {
    let mut too_long = Vec::new();
    let mut long = 0;
    let mut count = 0;
    for path in sources::files(shell::root(), &["rs"])? {
        let lines = sources::read(&path)?.lines().count();
        let name = sources::shown(&path);
        count += 1;
        match EXCEPTIONS.iter().find(|(exception, _)| *exception == name) {
            Some((_, reason)) => println!("{name}: {lines} lines, allowed: {reason}"),
            None if lines > LIMIT => too_long.push(format!("{name}: {lines} lines, {LIMIT} are allowed")),
            None if lines > AIM => {
                println!("{name}: {lines} lines");
                long += 1;
            }
            None => {}
        }
    }
    verdict("files are too long:", &too_long, format!("{count} files, {long} over {AIM} lines"))
}
