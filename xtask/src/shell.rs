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

fn check(command: &Command, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

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
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return wait(&mut child, deadline),
        }
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            for text in lines.try_iter() {
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

fn kill(child: &mut Child) -> anyhow::Result<End> {
    child.kill().context("cannot kill a child that stalled")?;
    child.wait().context("cannot wait for a child that was killed")?;
    Ok(End::Stalled)
}
