//! Runs tests side by side, shows how it goes, and counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cargo::{self, Case};
use super::{LAB, libtest, libtest::Totals};
use crate::shell::{self, End, Line};

/// Documentation is compiled while it is tested: it may be silent for longer than a test may run.
const DOCUMENTATION_TIMEOUT: Duration = Duration::from_secs(900);
/// Slower tests are shown.
const SLOW: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) struct Options {
    pub(super) jobs: usize,
    pub(super) timeout: Duration,
    pub(super) verbose: bool,
}

/// What a worker does at a time.
enum Job<'a> {
    Case(&'a Case),
    /// `cargo test --doc` of these packages.
    Documentation(&'a [String]),
}

impl Job<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Case(case) => &case.shown,
            Self::Documentation(_) => "documentation tests",
        }
    }
}

/// How a job ended.
struct Done {
    totals: Totals,
    time: Duration,
    /// What to show if it failed.
    output: String,
}

struct State<'a> {
    /// The lab's tests wait more than they compute, so one worker begins with them, the other with the rest.
    lab: VecDeque<Job<'a>>,
    rest: VecDeque<Job<'a>>,
    running: BTreeMap<usize, (String, Instant)>,
    all: usize,
    done: usize,
    totals: Totals,
    failures: Vec<(String, String)>,
    times: Vec<(Duration, String)>,
    start: Instant,
}

/// Runs all cases and the documentation tests of some packages.
pub(super) fn run(cases: &[Case], documentation: &[String], options: &Options) -> anyhow::Result<Totals> {
    let mut state = State {
        lab: VecDeque::new(),
        rest: VecDeque::new(),
        running: BTreeMap::new(),
        all: 0,
        done: 0,
        totals: Totals::default(),
        failures: Vec::new(),
        times: Vec::new(),
        start: Instant::now(),
    };
    if !documentation.is_empty() {
        state.rest.push_back(Job::Documentation(documentation));
    }
    for case in cases {
        if case.ignored {
            println!("skipped {}", case.shown);
            state.totals.skipped += 1;
        } else {
            let queue = if case.binary.package == LAB { &mut state.lab } else { &mut state.rest };
            queue.push_back(Job::Case(case));
        }
    }
    state.all = state.lab.len() + state.rest.len();
    println!("running {} tests, {} side by side", state.all, options.jobs);

    let state = Mutex::new(state);
    std::thread::scope(|scope| {
        for worker in 0..options.jobs {
            let state = &state;
            scope.spawn(move || work(worker, state, options));
        }
        scope.spawn(|| heartbeat(&state));
    });
    let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.times.sort();
    println!("\nslowest:");
    for (time, name) in state.times.iter().rev().take(5) {
        println!("  {:>8}  {name}", shell::seconds(*time));
    }
    for (name, output) in &state.failures {
        println!("\n---- failed: {name}\n{}", output.trim_end());
    }
    if !state.failures.is_empty() {
        println!("\nfailed:");
        for (name, _) in &state.failures {
            println!("  {name}");
        }
        println!("run one again with: cargo xtask test 'PACKAGE NAME'");
    }
    Ok(state.totals)
}

/// A worker that panicked has its own message; the counts are still right.
fn lock<'a, 'b>(state: &'a Mutex<State<'b>>) -> MutexGuard<'a, State<'b>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(worker: usize, state: &Mutex<State<'_>>, options: &Options) {
    loop {
        let job = {
            let mut guard = lock(state);
            let State { lab, rest, running, .. } = &mut *guard;
            let (first, second) = if worker == 0 { (lab, rest) } else { (rest, lab) };
            let Some(job) = first.pop_front().or_else(|| second.pop_front()) else { return };
            running.insert(worker, (job.name().to_owned(), Instant::now()));
            job
        };
        let done = match &job {
            Job::Case(case) => run_case(case, options.timeout),
            Job::Documentation(packages) => run_documentation(packages),
        };
        lock(state).end(worker, &job, done, options.verbose);
    }
}

impl State<'_> {
    fn end(&mut self, worker: usize, job: &Job<'_>, done: Done, verbose: bool) {
        self.running.remove(&worker);
        self.done += 1;
        self.totals += done.totals;
        self.times.push((done.time, job.name().to_owned()));
        let failed = !done.totals.is_good();
        if failed || verbose || done.time >= SLOW {
            let word = if failed { "FAILED" } else { "passed" };
            println!("[{}/{}] {word} {} in {}", self.done, self.all, job.name(), shell::seconds(done.time));
        }
        if failed {
            if verbose {
                // The end of a soak is hours away.
                println!("{}", done.output.trim_end());
            }
            self.failures.push((job.name().to_owned(), done.output));
        }
    }
}

fn run_case(case: &Case, timeout: Duration) -> Done {
    let mut command = case.binary.command();
    command.args(["--exact", &case.name, "--test-threads=1"]);
    let start = Instant::now();
    let mut lines = Vec::new();
    let end = shell::watch(&mut command, timeout, |line| {
        lines.push(line.to_owned());
        Line::Noise
    });
    // A test may run itself again in a namespace: the last result is its own.
    let totals = lines.iter().rev().find_map(|line| libtest::result_line(line)).unwrap_or_default();
    let wrong = match end {
        Ok(End::Exited(status)) if status.success() && totals.passed == 1 => None,
        Ok(End::Exited(status)) if status.success() => Some("ended without a result".to_owned()),
        Ok(End::Exited(status)) if totals.failed == 0 => Some(format!("ended without a result ({status})")),
        Ok(End::Exited(_)) => Some(String::new()),
        Ok(End::Stalled) => Some(format!("hung: it was killed after {}", shell::seconds(timeout))),
        Err(error) => Some(format!("{error:#}")),
    };
    let totals =
        Totals { passed: u64::from(wrong.is_none()), failed: u64::from(wrong.is_some()), skipped: 0 };
    if let Some(reason) = wrong {
        lines.push(reason);
    }
    Done { totals, time: start.elapsed(), output: lines.join("\n") }
}

fn run_documentation(packages: &[String]) -> Done {
    let mut command = shell::cargo();
    command.args(["test", "--doc", "--no-fail-fast"]);
    cargo::select(&mut command, packages);
    let start = Instant::now();
    let mut lines = Vec::new();
    let end = shell::watch(&mut command, DOCUMENTATION_TIMEOUT, |line| {
        lines.push(line.to_owned());
        Line::Progress
    });
    let (mut totals, results) = libtest::sum(lines.iter().map(String::as_str));
    let wrong = match end {
        Ok(End::Exited(status)) if status.success() && results > 0 => None,
        Ok(End::Exited(status)) => Some(format!("cargo test --doc ended with {status}")),
        Ok(End::Stalled) => Some("hung, and was killed".to_owned()),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(reason) = wrong {
        lines.push(reason);
        totals.failed = totals.failed.max(1);
    }
    Done { totals, time: start.elapsed(), output: lines.join("\n") }
}

/// Says from time to time what runs, so that a reader sees a test that takes long.
fn heartbeat(state: &Mutex<State<'_>>) {
    let mut next = Instant::now() + HEARTBEAT;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let state = lock(state);
        if state.done == state.all {
            return;
        }
        if Instant::now() < next {
            continue;
        }
        next += HEARTBEAT;
        let running: Vec<_> = state
            .running
            .values()
            .map(|(name, since)| format!("{name} ({})", shell::seconds(since.elapsed())))
            .collect();
        let (done, all, failed) = (state.done, state.all, state.totals.failed);
        let time = shell::seconds(state.start.elapsed());
        println!("[{done}/{all}] {time}, {failed} failed; running: {}", running.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A program that takes libtest's arguments (`--exact NAME --test-threads=1`).
    const PROGRAM: &str = r#"#!/bin/sh
ok="test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s"
case "$2" in
    good) echo "$ok" ;;
    again) echo "running 1 test"; echo "$ok"; echo "ok"; echo "$ok" ;;
    wrong) echo "left: 1, right: 2"
        echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s"
        exit 101 ;;
    gone) echo "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s" ;;
    abort) echo "stack overflow" >&2; kill -ABRT $$ ;;
    late) echo "$ok"; exit 1 ;;
    hang) exec sleep 600 ;;
esac
"#;

    fn run_as(name: &str, directory: &Path) -> Done {
        let program = directory.join("program");
        if !program.exists() {
            // Another process writes it: a file that this one has open for writing could be inherited by a child of
            // another test, and then not be started ("text file busy").
            let mut write = std::process::Command::new("sh");
            write.args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh", PROGRAM]).arg(&program);
            assert!(write.status().unwrap().success());
        }
        let binary = cargo::Binary::new("openelb-x", &program, directory);
        let case = Case { binary, name: name.into(), shown: format!("openelb-x {name}"), ignored: false };
        run_case(&case, Duration::from_millis(if name == "hang" { 300 } else { 60_000 }))
    }

    #[test]
    fn each_way_to_end_is_told() {
        let directory = tempfile::tempdir().unwrap();
        for (name, passed, said) in [
            ("good", 1, ""),
            ("again", 1, ""),
            ("wrong", 0, "left: 1, right: 2"),
            ("gone", 0, "ended without a result"),
            ("abort", 0, "ended without a result (signal: 6 (SIGABRT)"),
            ("late", 0, "ended without a result (exit status: 1)"),
            ("hang", 0, "hung: it was killed after 0.3 s"),
        ] {
            let done = run_as(name, directory.path());
            assert_eq!(done.totals, Totals { passed, failed: 1 - passed, skipped: 0 }, "{name}");
            assert!(done.output.contains(said), "{name}: {}", done.output);
        }
    }

    #[test]
    fn all_cases_run_once_and_the_ignored_ones_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        run_as("good", directory.path());
        let case = |package: &str, name: &str, ignored: bool| Case {
            binary: cargo::Binary::new(package, &directory.path().join("program"), directory.path()),
            name: name.into(),
            shown: format!("{package} {name}"),
            ignored,
        };
        let cases = [
            case("openelb-x", "good", false),
            case(LAB, "good", false),
            case("openelb-x", "wrong", false),
            case(LAB, "good", true),
            case("openelb-x", "good", false),
        ];
        let options = Options { jobs: 2, timeout: Duration::from_secs(60), verbose: false };
        let totals = run(&cases, &[], &options).unwrap();
        assert_eq!(totals, Totals { passed: 3, failed: 1, skipped: 1 });
    }
}
