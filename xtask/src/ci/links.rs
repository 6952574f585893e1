//! Relative links in Markdown files lead to files, and to headings in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Verdict, sources, verdict};
use crate::shell;

pub(super) fn check() -> anyhow::Result<Verdict> {
    let mut found = Vec::new();
    let mut count = 0;
    let mut headings: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let files = sources::files(shell::root(), &["md"])?;
    for path in &files {
        let text = sources::read(path)?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        for (line, target) in links(&text) {
            count += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let destination = if file.is_empty() { path.clone() } else { directory.join(file) };
            let place = format!("{}:{line}: {target}", sources::shown(path));
            if !destination.exists() {
                found.push(format!("{place}: no such file"));
            } else if !fragment.is_empty() && destination.extension().is_some_and(|e| e == "md") {
                let known = match headings.get(&destination) {
                    Some(known) => known,
                    None => {
                        headings.entry(destination.clone()).or_insert(anchors(&sources::read(&destination)?))
                    }
                };
                if !known.iter().any(|anchor| anchor == fragment) {
                    found.push(format!("{place}: no such heading"));
                }
            }
        }
    }
    found.extend(orphans(&files)?);
    verdict("links lead nowhere:", &found, format!("{count} links in {} files", files.len()))
}

/// Pages of the manual that its table of contents leaves out: mdBook would not build them.
fn orphans(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let manual = shell::root().join("docs/src");
    let contents = manual.join("SUMMARY.md");
    if !contents.is_file() {
        return Ok(Vec::new());
    }
    let listed: Vec<_> =
        links(&sources::read(&contents)?).into_iter().map(|(_, target)| manual.join(target)).collect();
    let orphan = |path: &&PathBuf| path.starts_with(&manual) && **path != contents && !listed.contains(path);
    Ok(files
        .iter()
        .filter(orphan)
        .map(|path| format!("{}: not in SUMMARY.md", sources::shown(path)))
        .collect())
}

/// The relative targets of a Markdown text's links, with line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        // `[name]: target`
        let reference =
            line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, t)| t);
        for target in inline.chain(reference.and_then(|rest| rest.split(' ').next())) {
            let target = target.trim_matches(['<', '>']);
            let absolute = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !absolute {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a Markdown text's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let Some(title) = title.strip_prefix(' ') else { continue };
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let again = found.iter().filter(|known| **known == anchor).count();
        found.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
    }
    found
}

/// The lines outside fenced code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_are_found() {
        let text = "# A\nsee [b](b.md), [c](../c.md#d) and [web](https://x.org/y)\n```\n[no](no.md)\n```\n\
            `[no](no.md)` but [e](<e.md> \"title\")\n[f]: f.md\n[self](#a)\n[mail](mailto:a@b)\n";
        let expected = [(2, "b.md"), (2, "../c.md#d"), (6, "e.md"), (7, "f.md"), (8, "#a")];
        assert_eq!(links(text), expected.map(|(line, target)| (line, target.to_owned())));
    }

    #[test]
    fn anchors_are_made_like_the_renderers_do() {
        let text = "# Pools & ranges\n## `spec.address`\n```\n# not this\n```\n## Twice\n## Twice\n#no\n";
        assert_eq!(anchors(text), ["pools--ranges", "specaddress", "twice", "twice-1"]);
    }
}
