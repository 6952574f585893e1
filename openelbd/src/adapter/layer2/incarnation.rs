//! The number of a process's life among those of its host: the others tell a restart by it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How much further than the clock a number that was kept may be; a file that says more is not believed.
const AHEAD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A number above that of every life before: milliseconds of the wall clock, and where that went back, one more than
/// the number that the last life left in the file, which is written for the next one.
///
/// A file that cannot be read or written is told, and the clock alone counts.
pub(super) fn next(file: Option<&Path>) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let Some(file) = file else { return milliseconds(clock) };
    let number = after(kept(file), clock);
    if let Err(error) = keep(file, number) {
        tracing::warn!(
            path = %file.display(), %error,
            "the number of this start cannot be kept: if the clock goes back before the next one, addresses of Layer 2 \
             may be unanswered for a moment then"
        );
    }
    number
}

fn milliseconds(clock: Duration) -> u64 {
    u64::try_from(clock.as_millis()).unwrap_or_default()
}

fn after(kept: Option<u64>, clock: Duration) -> u64 {
    let believed = kept.filter(|kept| *kept < milliseconds(clock.saturating_add(AHEAD)));
    milliseconds(clock).max(believed.map_or(0, |kept| kept.saturating_add(1)))
}

fn kept(file: &Path) -> Option<u64> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let number = text.trim().parse().ok();
            if number.is_none() {
                tracing::warn!(path = %file.display(), "this file does not hold the number of the last start");
            }
            number
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %file.display(), %error, "the number of the last start cannot be read");
            None
        }
    }
}

fn keep(file: &Path, number: u64) -> io::Result<()> {
    if let Some(directory) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Of this file alone: others in the directory have names that differ by their ends.
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    written.write_all(number.to_string().as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{after, kept, next};

    #[test]
    fn every_start_has_a_greater_number_though_the_clock_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new/layer2.incarnation");
        let first = next(Some(&file));
        assert_eq!(kept(&file), Some(first));
        // The last life ran an hour ahead of the clock of now.
        let ahead = first + 3_600_000;
        std::fs::write(&file, format!("{ahead}\n")).unwrap();
        assert_eq!((next(Some(&file)), next(Some(&file))), (ahead + 1, ahead + 2));
        assert_eq!(after(Some(5), Duration::from_secs(7)), 7000);
        assert_eq!(after(None, Duration::from_secs(7)), 7000);
    }

    /// A checkpoint is written into the same directory, at the same time.
    #[test]
    fn files_beside_it_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for other in ["speaker.checkpoint", "speaker.new", "speaker.checkpoint.new", ".layer2-node.b.new"] {
            std::fs::write(path(other), other).unwrap();
        }
        next(Some(&path("speaker.layer2")));
        next(Some(&path(".layer2-node.a")));
        for other in ["speaker.checkpoint", "speaker.new", "speaker.checkpoint.new", ".layer2-node.b.new"] {
            assert_eq!(std::fs::read_to_string(path(other)).unwrap(), other);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_file_that_is_of_no_use_leaves_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("layer2.incarnation");
        for useless in ["", "yesterday", "-5", &u64::MAX.to_string(), "99999999999999999999999"] {
            std::fs::write(&file, useless).unwrap();
            let number = next(Some(&file));
            assert_eq!(kept(&file), Some(number), "{useless:?}");
            assert!(number < 100_000_000_000_000, "{useless:?} gave {number}");
        }
        let blocked = file.join("below a file");
        let before = next(None);
        assert!(next(Some(&blocked)) >= before);
    }
}
