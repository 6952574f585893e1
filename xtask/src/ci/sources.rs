//! Files of the repository, and words in them.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The files below a directory with one of these extensions, sorted; without build output and hidden directories.
pub(super) fn files(directory: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries =
            std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A path as it is shown: relative to the root.
pub(super) fn shown(path: &Path) -> String {
    path.strip_prefix(crate::shell::root()).unwrap_or(path).display().to_string()
}

/// Whether `text` holds `word` with nothing around it that would make it part of a longer word. Case counts.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

/// The lines of a Rust file that are code, with their numbers: without comments (on lines of their own).
pub(super) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_bounds() {
        for (text, word, expected) in [
            ("an eip here", "eip", true),
            ("eip", "eip", true),
            ("`eip`.x", "eip", true),
            ("the receipt", "eip", false),
            ("my_eip", "eip", false),
            ("eip2 and eip", "eip", true),
            ("use tokio::net", "tokio", true),
        ] {
            assert_eq!(has_word(text, word), expected, "{word:?} in {text:?}");
        }
    }

    #[test]
    fn comments_are_not_code() {
        let text = "//! tokio\nuse a;\n    // tokio\nlet b; // tokio\n";
        assert_eq!(code(text).collect::<Vec<_>>(), [(2, "use a;"), (4, "let b; // tokio")]);
    }
}
