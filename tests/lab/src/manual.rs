//! Figures in the manual: what a run measured, between two comments of a Markdown file.

use anyhow::Context as _;

/// Puts figures where a file has room for them: between the comments `<!-- figures: NAME -->` and
/// `<!-- end of figures -->`, each on a line of its own. What was there goes.
///
/// ```
/// use openelb_lab::manual::with_figures;
///
/// let manual = "# Figures\n<!-- figures: kube -->\nold\n<!-- end of figures -->\nthe rest\n";
/// let new = with_figures(manual, "kube", "a  1\n")?;
/// assert_eq!(
///     new,
///     "# Figures\n<!-- figures: kube -->\n\na  1\n\n<!-- end of figures -->\nthe rest\n"
/// );
/// assert_eq!(with_figures(&new, "kube", "a  1\n")?, new);
/// assert!(with_figures(manual, "bgp", "").is_err());
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// The file has no such place.
pub fn with_figures(manual: &str, name: &str, figures: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- figures: {name} -->\n"), "<!-- end of figures -->\n");
    let missing = || format!("the manual has no place for them: write {begin:?} and {end:?} there");
    let (before, rest) = manual.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(end).with_context(missing)?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", figures.trim_end()))
}
