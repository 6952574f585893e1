use std::time::Duration;

use crate::{Best, Options, Outcome, Report, Row, Target, Verdict};

#[test]
fn verdicts_follow_target_and_figures() {
    let row = |ours: f64| Row::new("x", "ns/op", ours);
    let cases = [
        (row(5.0), true, Verdict::NotJudged),
        (row(5.0).target(Target::AtMost(5.0)), true, Verdict::Met),
        (row(5.1).target(Target::AtMost(5.0)), true, Verdict::Missed),
        (row(5.1).target(Target::AtMost(5.0)), false, Verdict::NotJudged),
        (row(7.0).beside("p", 10.0).target(Target::RatioAtMost(0.7)), true, Verdict::Met),
        (row(7.1).beside("p", 10.0).target(Target::RatioAtMost(0.7)), true, Verdict::Missed),
        (row(7.0).target(Target::RatioAtMost(0.7)), true, Verdict::Missed),
        (row(1000.0).beside("p", 10.0).target(Target::RatioAtLeast(100.0)), true, Verdict::Met),
        (row(4.0).beside("p", 10.0).target(Target::AtLeastOrRatioAtLeast(5.0, 0.5)), true, Verdict::Missed),
        (row(5.0).beside("p", 90.0).target(Target::AtLeastOrRatioAtLeast(5.0, 0.5)), true, Verdict::Met),
        (row(9.0).beside("p", 5.0).target(Target::AtMostOrRatioAtMost(5.0, 2.0)), true, Verdict::Met),
        (row(0.0), false, Verdict::NoWork),
        (row(f64::NAN), false, Verdict::NoWork),
        (row(1.0).beside("p", 0.0), false, Verdict::NoWork),
        (row(0.0).zero_is_fine().target(Target::AtMost(0.0)), true, Verdict::Met),
    ];
    for (row, judge, expected) in cases {
        assert_eq!(row.verdict(judge), expected, "{row:?}, judge {judge}");
    }
}

#[test]
fn an_empty_report_is_bad_and_a_table_has_a_line_for_each_row() {
    let mut report = Report::new();
    assert_eq!(report.outcome(false), Outcome::Bad);
    report.push(
        Row::new("decode", "ns/op", 1234.5).beside("peer 1.0", 2469.0).target(Target::RatioAtMost(0.7)),
    );
    report.note("said beside it");
    assert_eq!(report.outcome(true), Outcome::Good);
    let table = report.table(true);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("0.500x") && lines[1].ends_with("met"), "{table}");
    assert_eq!(lines[2], "note: said beside it");
}

#[test]
fn what_could_not_be_measured_is_bad_and_leaves_the_rest() {
    let mut measured = Report::new();
    measured.push(Row::new("decode", "ns/op", 5.0));
    let mut report = Report::new();
    report.extend_or_fail("few", Ok(measured));
    assert_eq!(report.outcome(true), Outcome::Good);
    report.extend_or_fail("many", Err(anyhow::anyhow!("no memory").context("it ended")));
    assert_eq!((report.rows().len(), report.outcome(true)), (1, Outcome::Bad));
    assert!(report.table(true).ends_with("FAILED: many: it ended: no memory\n"), "{}", report.table(true));
}

#[test]
fn the_best_round_counts_and_smoke_scales_sizes_down() {
    let mut rounds = [3u64, 1, 2].into_iter();
    let options = Options { smoke: true, rounds: 3, services: None };
    let best = options
        .best_measured(|| {
            rounds.next().map(Duration::from_millis).ok_or_else(|| anyhow::anyhow!("too many rounds"))
        })
        .unwrap();
    assert_eq!(best.time, Duration::from_millis(1));
    assert_eq!(options.scaled(1_000_000u32), 10_000);
    assert_eq!(options.scaled(5u64), 1);
    assert_eq!(Options::full().scaled(5u64), 5);
    assert!((Best { time: Duration::from_secs(2) }.rate(10) - 5.0).abs() < 1e-9);
    assert!((Best { time: Duration::from_secs(2) }.per(4) - 5e8).abs() < 1.0);
}
