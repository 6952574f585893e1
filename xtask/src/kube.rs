//! `cargo xtask kube`: builds the control plane of the lab, once, into `target/kube`.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use openelb_lab::kube::PROGRAM_VARIABLE;

use crate::shell;

/// Build the control plane of the lab: etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl.
///
/// `test` and `demo --kube` do it by themselves. It needs Go and takes minutes the first time; the program stays in
/// `target/kube` until the module in `tests/kube` changes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<u8> {
    start()?.finish()?;
    println!("{}", openelb_lab::kube::program()?.display());
    Ok(0)
}

/// A build that may go on beside others.
#[must_use = "the program is there after `finish`"]
pub(crate) struct Build {
    state: State,
}

enum State {
    /// There is nothing to do.
    Ready,
    /// Another process has begun to build it.
    Elsewhere,
    Running {
        child: Child,
        paths: Paths,
        stamp: String,
        start: Instant,
        /// Held until the program is in its place.
        _lock: File,
    },
    Done,
}

struct Paths {
    directory: PathBuf,
    module: PathBuf,
}

impl Paths {
    fn here() -> Self {
        Self { directory: shell::target_directory().join("kube"), module: shell::root().join("tests/kube") }
    }

    fn program(&self) -> PathBuf {
        self.directory.join("openelb-kube")
    }

    fn new_program(&self) -> PathBuf {
        self.directory.join("openelb-kube.new")
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("openelb-kube.stamp")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("build.log")
    }

    /// Whether the program is the one that would be built now.
    fn is_fresh(&self, stamp: &str) -> bool {
        self.program().is_file() && fs::read_to_string(self.stamp()).is_ok_and(|there| there == stamp)
    }
}

/// Begins to build the control plane, if it is not there yet.
///
/// # Errors
/// Go is missing or too old; says what to do.
pub(crate) fn start() -> anyhow::Result<Build> {
    if std::env::var_os(PROGRAM_VARIABLE).is_some() {
        openelb_lab::kube::program()?;
        return Ok(Build { state: State::Ready });
    }
    let paths = Paths::here();
    fs::create_dir_all(&paths.directory)
        .with_context(|| format!("cannot make {}", paths.directory.display()))?;
    let stamp = stamp(&paths.module)?;
    if paths.is_fresh(&stamp) {
        return Ok(Build { state: State::Ready });
    }
    let lock = File::create(paths.directory.join("lock")).context("cannot make the lock of target/kube")?;
    match lock.try_lock() {
        Ok(()) => begin(paths, stamp, lock),
        Err(TryLockError::WouldBlock) => Ok(Build { state: State::Elsewhere }),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock target/kube"),
    }
}

fn begin(paths: Paths, stamp: String, lock: File) -> anyhow::Result<Build> {
    let manifest = fs::read_to_string(paths.module.join("go.mod"))?;
    let wanted = directive(&manifest, "go").context("tests/kube/go.mod names no version of Go")?;
    let otherwise =
        format!("set {PROGRAM_VARIABLE} to an openelb-kube that was built elsewhere with `cargo xtask kube`");
    check_go(&paths.module, wanted, "the control plane of the lab", &otherwise)?;
    let kubernetes = directive(&manifest, "k8s.io/kubernetes")
        .context("tests/kube/go.mod requires no k8s.io/kubernetes")?;
    let mut parts = kubernetes.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // What the API server answers for its version, which clients compare.
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion={kubernetes} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    );
    let mut command = Command::new("go");
    command.current_dir(&paths.module).env("CGO_ENABLED", "0");
    command.args(["build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", &flags, "-o"]);
    command.arg(paths.new_program()).arg(".");
    println!("$ {} # Kubernetes {kubernetes} for the lab: minutes the first time", shell::shown(&command));
    let log = File::create(paths.log()).context("cannot write target/kube/build.log")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start go")?;
    Ok(Build { state: State::Running { child, paths, stamp, start: Instant::now(), _lock: lock } })
}

impl Build {
    /// Waits until the program is there.
    ///
    /// # Errors
    /// It does not build: the message has what Go said.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Ready | State::Done => Ok(()),
            State::Elsewhere => {
                println!("waiting for another process that builds the control plane of the lab");
                let lock = File::create(Paths::here().directory.join("lock"))?;
                lock.lock().context("cannot lock target/kube")?;
                drop(lock);
                start()?.finish()
            }
            State::Running { mut child, paths, stamp, start, _lock } => {
                let status = child.wait().context("cannot wait for go")?;
                if !status.success() {
                    let said = fs::read_to_string(paths.log()).unwrap_or_default();
                    bail!("the control plane of the lab (tests/kube) does not build ({status}):\n{said}");
                }
                fs::rename(paths.new_program(), paths.program())?;
                fs::write(paths.stamp(), stamp)?;
                println!("built the control plane of the lab in {}", shell::seconds(start.elapsed()));
                Ok(())
            }
        }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // What was to use it has failed. Go ends its compilers when it is interrupted.
        if let State::Running { child, .. } = &mut self.state {
            Command::new("kill").args(["-INT", &child.id().to_string()]).status().ok();
            child.wait().ok();
        }
    }
}

/// Everything that the program is made of: the module's own files name all others with their checksums.
fn stamp(module: &Path) -> anyhow::Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(module)
        .with_context(|| format!("cannot read {}", module.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("go" | "mod" | "sum"))
        })
        .collect();
    files.sort();
    let mut stamp = String::new();
    for file in files {
        stamp
            .push_str(&fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(stamp)
}

/// The second word of the line that begins with this one, in a `go.mod`.
pub(crate) fn directive<'a>(manifest: &'a str, name: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()).flatten()
    })
}

/// Whether there is a Go that builds the module; `what` it is for, and what to do `otherwise`.
pub(crate) fn check_go(module: &Path, wanted: &str, what: &str, otherwise: &str) -> anyhow::Result<()> {
    let remedy = format!(
        "{what} is built with Go {wanted} or newer: install it from https://go.dev/dl/ (what Debian has is older), or {otherwise}"
    );
    if !shell::is_installed("go") {
        bail!("there is no go in PATH; {remedy}");
    }
    // In the module: a newer Go may choose itself by the module's directive.
    let have = shell::capture(Command::new("go").args(["env", "GOVERSION"]).current_dir(module))
        .with_context(|| remedy.clone())?;
    if !is_enough(have.trim(), wanted) {
        bail!("{} is too old; {remedy}", have.trim());
    }
    Ok(())
}

/// Whether `go1.26.8` is at least `1.26.0`.
fn is_enough(have: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let text = text.trim_start_matches("go");
        text.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse().ok()).take(3).collect()
    };
    numbers(have) >= numbers(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_by_their_numbers() {
        for (have, enough) in [
            ("go1.26.0", true),
            ("go1.26.8", true),
            ("go1.27rc1", true),
            ("go2.0", true),
            ("go1.25.9", false),
            ("go1.9.7", false),
            ("devel", false),
        ] {
            assert_eq!(is_enough(have, "1.26.0"), enough, "{have}");
        }
    }

    #[test]
    fn the_module_names_what_is_needed_of_it() {
        let manifest = fs::read_to_string(Paths::here().module.join("go.mod")).unwrap();
        assert!(directive(&manifest, "go").unwrap().starts_with("1."));
        assert!(directive(&manifest, "k8s.io/kubernetes").unwrap().starts_with("v1."));
        assert_eq!(directive(&manifest, "k8s.io/no-such-module"), None);
    }

    #[test]
    fn a_change_of_the_module_makes_the_program_stale() {
        let directory = tempfile::tempdir().unwrap();
        let paths =
            Paths { directory: directory.path().join("target"), module: directory.path().join("module") };
        fs::create_dir_all(&paths.directory).unwrap();
        fs::create_dir_all(&paths.module).unwrap();
        fs::write(paths.module.join("main.go"), "package main").unwrap();
        let first = stamp(&paths.module).unwrap();
        assert!(!paths.is_fresh(&first), "there is no program");
        fs::write(paths.program(), "").unwrap();
        fs::write(paths.stamp(), &first).unwrap();
        assert!(paths.is_fresh(&first));
        fs::write(paths.module.join("README.md"), "not of the program").unwrap();
        assert!(paths.is_fresh(&stamp(&paths.module).unwrap()));
        fs::write(paths.module.join("other.go"), "package main").unwrap();
        assert!(!paths.is_fresh(&stamp(&paths.module).unwrap()));
    }
}
