//! Figures in the manual: what a run printed, between two comments of a Markdown file.

use anyhow::Context as _;

/// Puts the figures of a suite where the file has room for them: between the comments `<!-- figures: SUITE -->` and
/// `<!-- end of figures -->`, each on a line of its own. What was there goes.
///
/// ```
/// let manual = "# Figures\n<!-- figures: kube -->\nold\n<!-- end of figures -->\nthe rest\n";
/// let new = openelb_benches::manual::with_figures(manual, "kube", "machine: this one", "a  1\n")?;
/// assert_eq!(
///     new,
///     "# Figures\n<!-- figures: kube -->\n\nmachine: this one\n\n```text\na  1\n```\n\n<!-- end of figures -->\nthe rest\n"
/// );
/// assert!(openelb_benches::manual::with_figures(manual, "bgp", "", "").is_err());
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// The file has no such place.
pub fn with_figures(manual: &str, suite: &str, measured: &str, table: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- figures: {suite} -->\n"), "<!-- end of figures -->\n");
    let missing = || format!("the manual has no place for them: write {begin:?} and {end:?} there");
    let (before, rest) = manual.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(end).with_context(missing)?;
    Ok(format!("{before}{begin}\n{measured}\n\n```text\n{}\n```\n\n{end}{after}", table.trim_end()))
}
