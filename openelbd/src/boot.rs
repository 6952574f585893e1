//! Whether the kernel is the one under which the last speaker of this host ran: then it forwards as it did.

use std::{fs, io::Write as _, path::Path};

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A file that is read in its place: hosts of a lab share one kernel, and restart one by one.
const OVERRIDE: &str = "OPENELB_BOOT_ID_FILE";

/// Which boot of the host this is; `None`: the kernel does not say.
#[must_use]
pub(crate) fn id() -> Option<String> {
    let path = std::env::var_os(OVERRIDE).filter(|path| !path.is_empty()).unwrap_or_else(|| BOOT_ID.into());
    read(Path::new(&path))
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// Was the last process that wrote this file one of this boot? Writes it for the next one.
///
/// A file that cannot be written costs the next restart its routes at neighbours for a moment; it is told.
#[must_use]
pub(crate) fn is_unchanged(file: &Path) -> bool {
    let Some(id) = id() else { return false };
    let unchanged = read(file).as_deref() == Some(id.as_str());
    if !unchanged && let Err(error) = write(file, &id) {
        tracing::warn!(
            path = %file.display(), %error,
            "which boot of the host this is cannot be kept: when this program restarts, neighbours drop its routes \
             until it announces them again"
        );
    }
    unchanged
}

fn write(path: &Path, id: &str) -> std::io::Result<()> {
    // Names of nodes have dots: what is behind the last one is no extension.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::{id, is_unchanged, read};

    #[test]
    fn the_second_process_of_a_boot_knows_the_first_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".boot-node-1");
        assert!(id().is_some(), "Linux says");
        assert!(!is_unchanged(&file), "nobody was there before");
        assert!(is_unchanged(&file));
        std::fs::write(&file, "another boot\n").unwrap();
        assert!(!is_unchanged(&file));
        assert_eq!(read(&file), id(), "for the next one");
        std::fs::write(&file, " \n").unwrap();
        assert_eq!(read(&file), None);
        assert!(!is_unchanged(&directory.path().join("no/such/directory")));
    }
}
