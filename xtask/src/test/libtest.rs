//! What test binaries print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Marked `#[ignore]`, or documentation marked `ignore`.
    pub(crate) skipped: u64,
}

impl Totals {
    /// Something ran, and nothing failed.
    pub(crate) const fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Reads `test result: ok. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
pub(crate) fn result_line(line: &str) -> Option<Totals> {
    // A program that a test started may have left an unfinished line before it.
    let (_, rest) = line.split_once("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut totals = Totals::default();
    let mut seen = 0;
    for part in counts.split("; ") {
        let Some((number, word)) = part.trim().split_once(' ') else { continue };
        let field = match word {
            "passed" => &mut totals.passed,
            "failed" => &mut totals.failed,
            "ignored" => &mut totals.skipped,
            _ => continue,
        };
        *field = number.parse().ok()?;
        seen += 1;
    }
    (seen == 3).then_some(totals)
}

/// The sum of all result lines of an output, and how many there were.
pub(crate) fn sum<'a>(lines: impl IntoIterator<Item = &'a str>) -> (Totals, usize) {
    let mut totals = Totals::default();
    let mut results = 0;
    for found in lines.into_iter().filter_map(result_line) {
        totals += found;
        results += 1;
    }
    (totals, results)
}

/// The names in the output of `--list --format terse`: lines `NAME: test`.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_suffix(": test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted() {
        let cases = [
            (
                "test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.01s",
                Some(Totals { passed: 3, failed: 0, skipped: 2 }),
            ),
            (
                "test result: FAILED. 10 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.50s",
                Some(Totals { passed: 10, failed: 1, skipped: 0 }),
            ),
            (
                "left by a childtest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
                Some(Totals { passed: 1, failed: 0, skipped: 0 }),
            ),
            ("test result: ok. 3 passed; 0 failed", None),
            ("test result: ok. x passed; 0 failed; 0 ignored", None),
            ("test wire::tests::keepalive ... ok", None),
            ("3 passed, 0 failed, 0 skipped", None),
        ];
        for (line, expected) in cases {
            assert_eq!(result_line(line), expected, "{line}");
        }
    }

    #[test]
    fn the_results_of_all_crates_are_summed() {
        let output = "   Doc-tests openelb_bgp\n\nrunning 2 tests\n..\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
            running 1 test\ntest a ... FAILED\n\
            test result: FAILED. 0 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let (totals, results) = sum(output.lines());
        assert_eq!((totals, results), (Totals { passed: 2, failed: 1, skipped: 3 }, 2));
        assert_eq!(totals.to_string(), "2 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn only_a_run_with_a_test_and_without_a_failure_is_good() {
        let totals = |passed, failed, skipped| Totals { passed, failed, skipped };
        assert!(totals(1, 0, 0).is_good());
        assert!(!totals(1, 1, 0).is_good());
        assert!(!totals(0, 0, 0).is_good());
        assert!(!totals(0, 0, 5).is_good());
    }

    #[test]
    fn a_listing_has_tests_and_other_things() {
        let text = "range::tests::empty: test\nbench_it: benchmark\nset::tests::a: b: test\n\n2 tests, 1 benchmark\n";
        assert_eq!(list(text).collect::<Vec<_>>(), ["range::tests::empty", "set::tests::a: b"]);
    }
}
