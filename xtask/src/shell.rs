//! Running other programs: what is run is shown, standard input is empty, and a failure names the command.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The repository's root: where the workspace's `Cargo.toml` is.
pub(crate) fn root() -> &'static Path {
    // xtask is a direct child of the root, so the parent always exists.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// The workspace's target directory.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that started this program, at the root. A relative `CARGO_TARGET_DIR` means the same to it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What the cargo that started us says of this package: some build scripts (ring's) run again when it changes, and
    // everything above them is built anew after each cargo of another kind.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let word = |word: &OsStr| {
        let text = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let program = Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    std::iter::once(program).chain(command.get_args()).map(word).collect::<Vec<_>>().join(" ")
}

/// Shows and runs a command with our own output streams.
///
/// # Errors
/// When it cannot be started, or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, status)
}

/// Runs a command and returns what it printed on standard output; standard error is ours.
///
/// # Errors
/// When it cannot be started, or does not exit with 0.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is in `PATH`, or in the directories of administration programs, which a user's `PATH` may lack.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file())
}

/// A time for a reader: `0.4 s`, `75 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn check(command: &Command, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// How long the last lines of a command that has ended are waited for, where something that it started keeps its output
/// open.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a [`watched`](watch) command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed: nothing that `line` called progress happened for the time allowed.
    Stalled,
}

/// What a line of output means to a [`watch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The time allowed begins anew.
    Progress,
    /// It does not.
    Noise,
}

/// Runs a command, hands every line of both its output streams to `line`, and kills it when there was no progress for
/// `patience`.
///
/// # Errors
/// When it cannot be started or waited for.
pub(crate) fn watch(
    command: &mut Command,
    patience: Duration,
    mut line: impl FnMut(&str) -> Line,
) -> anyhow::Result<End> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);
    let mut deadline = Instant::now() + patience;
    loop {
        // A grandchild may keep the streams open after the child's end: the child's end counts.
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(text) => {
                if line(&text) == Line::Progress {
                    deadline = Instant::now() + patience;
                }
                // One that talks without end must end too.
                if Instant::now() < deadline {
                    continue;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return wait(&mut child, deadline),
        }
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            // What it said last may still be under way to here: threads of a busy machine wait.
            let end = Instant::now() + LAST_WORDS;
            while let Ok(text) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                line(&text);
            }
            return Ok(End::Exited(status));
        }
        if Instant::now() >= deadline {
            return kill(&mut child);
        }
    }
}

fn forward(stream: Option<impl Read + Send + 'static>, sender: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            bytes.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
}

fn wait(child: &mut Child, deadline: Instant) -> anyhow::Result<End> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(End::Exited(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(child)
}

/// Kills a child and everything that it started.
fn kill(child: &mut Child) -> anyhow::Result<End> {
    let descendants = descendants(child.id());
    child.kill().context("cannot kill a child that stalled")?;
    child.wait().context("cannot wait for a child that was killed")?;
    for process in descendants {
        // It may have ended with its parent: then there is nothing to do.
        Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status().ok();
    }
    Ok(End::Stalled)
}

/// The processes below a process, as the kernel lists them.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = vec![process];
    while let Some(process) = waiting.pop() {
        let path = format!("/proc/{process}/task");
        for thread in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children: Vec<u32> =
                children.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            found.extend(&children);
            waiting.extend(children);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_types_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "--package", "a b", "it's", ""]);
        assert_eq!(shown(&command), r"cargo test --package 'a b' 'it'\''s' ''");
    }

    #[test]
    fn a_command_is_watched_line_by_line_to_its_end() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let end = watch(&mut command, Duration::from_secs(60), |line| {
            lines.push(line.to_owned());
            Line::Noise
        });
        lines.sort();
        assert_eq!(lines, ["one", "three", "two"]);
        assert!(matches!(end, Ok(End::Exited(status)) if status.code() == Some(3)), "{end:?}");
    }

    #[test]
    fn a_command_that_stalls_is_killed_with_all_that_it_started() {
        let mut started = None;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let end = watch(&mut command, Duration::from_millis(500), |line| {
            started = line.parse::<u32>().ok();
            Line::Noise
        });
        assert!(matches!(end, Ok(End::Stalled)), "{end:?}");
        let path = format!("/proc/{}/stat", started.unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        // Whoever inherits it may not have waited for it yet: then it is a zombie.
        while std::fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "{path} still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
