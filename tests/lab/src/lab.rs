//! The namespaces of a lab, and the processes in them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};

use crate::{network::Network, wait::eventually};

/// What a lab needs of the machine: program, Debian package.
const REQUIREMENTS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("bird", "bird2"),
];

/// The first process of a lab. Its standard input is a pipe from the process that started the lab: when that ends,
/// however it does, so does `cat`; then everything else in the pid namespace is killed and the lab's directory removed.
/// A signal to the whole process group, as from Ctrl-C, must not end `cat` before that. Programs whose parent ended are
/// its children, and the shell waits for them, too.
const INIT: &str = r#"
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
mount --make-shared /run/netns
ip link set lo up
trap '' HUP INT QUIT TERM
echo ready
cat >/dev/null
kill -9 -1 2>/dev/null || true
rm -rf "$LAB_DIRECTORY" || { sleep 0.2; rm -rf "$LAB_DIRECTORY"; }
"#;

/// A network of its own. It ends when it is dropped, or when the process that made it ends.
#[derive(Debug)]
pub struct Lab {
    unshare: Child,
    /// Open as long as the lab lives.
    _alive: ChildStdin,
    init: u32,
    directory: tempfile::TempDir,
    processes: Mutex<Vec<Process>>,
}

/// A program that runs on a host of a lab.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name in the lab.
    pub name: String,
    /// The file that has its output.
    pub log: PathBuf,
    /// Its pid in the lab's pid namespace.
    pub pid: u32,
}

impl Lab {
    /// Makes the namespaces. `name` appears in the name of the lab's directory.
    ///
    /// # Errors
    /// Not root, or a program is missing (says which package has it), or the kernel refuses a namespace.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a lab makes network namespaces, and only root may: run this as root"
        );
        for (program, package) in REQUIREMENTS {
            ensure!(installed(program), "a lab needs {program}: as root, apt-get install {package}");
        }
        let directory = tempfile::Builder::new()
            .prefix(&format!("openelb-lab-{name}-"))
            .tempdir()
            .context("cannot make a directory for the lab")?;
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .args(["sh", "-ec", INIT])
            .env("PATH", PATH)
            .env("LAB_DIRECTORY", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let alive = unshare.stdin.take().context("unshare has no standard input")?;
        let stdout = unshare.stdout.take().context("unshare has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("cannot read from the lab's init")?;
        if line.trim() != "ready" {
            let _ = unshare.kill();
            bail!(
                "the kernel refuses the namespaces of a lab (see the message above); is this a container without privileges?"
            );
        }
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = fs::read_to_string(&children)
            .with_context(|| format!("cannot read {children}"))?
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .context("unshare has no child")?;
        Ok(Self { unshare, _alive: alive, init, directory, processes: Mutex::new(Vec::new()) })
    }

    /// The lab's directory, removed with it: configuration, logs, sockets.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The pid of the lab's init, outside.
    pub fn init_pid(&self) -> u32 {
        self.init
    }

    /// Writes a file into the lab's directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Adds hosts, links and addresses.
    ///
    /// # Errors
    /// A command of iproute2 or sysctl failed.
    pub fn network(&self, build: impl FnOnce(&mut Network)) -> anyhow::Result<()> {
        let mut network = Network::default();
        build(&mut network);
        self.script(&network.script()).context("cannot build the lab's network")
    }

    /// Runs a shell script in the lab, on no host.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn script(&self, script: &str) -> anyhow::Result<()> {
        let mut command = self.enter();
        command.args(["sh", "-e"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot enter the lab")?;
        child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.env("PATH", PATH);
        command.args(["--target", &self.init.to_string(), "--net", "--mount", "--pid", "--"]);
        command
    }

    /// A command on a host, to be run by the caller.
    pub fn command(&self, host: &str, program: &[&str]) -> Command {
        let mut command = self.enter();
        command.args(["ip", "netns", "exec", host]).args(program).stdin(Stdio::null());
        command
    }

    /// Runs a program on a host and returns its standard output.
    ///
    /// # Errors
    /// It cannot be run, or ends with another status than 0.
    pub fn run(&self, host: &str, program: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(host, program)
            .output()
            .with_context(|| format!("cannot run {program:?} on {host}"))?;
        ensure!(
            output.status.success(),
            "{program:?} on {host} failed: {}{}",
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs code on a thread of its own in a host's network: its sockets are the host's, and so are those of threads that
    /// it starts, such as a tokio runtime that is made there. The file system stays that of the machine.
    ///
    /// # Errors
    /// There is no such host, or the code panicked.
    pub fn within<T: Send>(&self, host: &str, code: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let path = format!("/proc/{}/root/run/netns/{host}", self.init);
        let namespace = fs::File::open(&path).with_context(|| format!("there is no host {host}"))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let network = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), network)?;
                Ok::<T, rustix::io::Errno>(code())
            });
            let result = thread.join().map_err(|_| anyhow!("the code that ran on {host} panicked"))?;
            result.with_context(|| format!("cannot enter the network of {host}"))
        })
    }

    /// Starts a program on a host; its output goes to `logs/NAME.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, host: &str, program: &[&str]) -> anyhow::Result<Process> {
        let log = self.write(&format!("logs/{name}.log"), "")?;
        let pid_file = self.path().join(format!("{name}.pid"));
        let _ = fs::remove_file(&pid_file);
        let script = r#"echo $$ >"$0.new"; mv "$0.new" "$0"; log=$1; shift; exec "$@" >>"$log" 2>&1"#;
        let pid_text = pid_file.to_string_lossy().into_owned();
        let log_text = log.to_string_lossy().into_owned();
        // Not a child of nsenter, which stops itself when its child is stopped, and would stay when the lab is gone.
        let mut arguments = vec!["setsid", "--fork", "sh", "-c", script, &pid_text, &log_text];
        arguments.extend(program);
        let status = self
            .command(host, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {program:?} on {host}"))?;
        ensure!(status.success(), "cannot run {program:?} on {host}: is there such a host?");
        let what = format!("the start of {name}");
        let (pid, _) = eventually(&what, Duration::from_secs(10), || {
            Ok(fs::read_to_string(&pid_file)?.trim().parse().ok())
        })?;
        let process = Process { name: name.to_owned(), log, pid };
        self.lock().push(process.clone());
        Ok(process)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The programs that were started.
    pub fn processes(&self) -> Vec<Process> {
        self.lock().clone()
    }

    /// Sends a signal by name, such as `KILL`.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn signal(&self, process: &Process, signal: &str) -> anyhow::Result<()> {
        let status = self
            .enter()
            .args(["kill", "-s", signal, &process.pid.to_string()])
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "{} runs no more", process.name);
        Ok(())
    }

    /// Whether a process runs.
    ///
    /// One that ended and was not reaped does not: nsenter, which should, is suspended together with its child.
    /// One whose first thread has ended does while others end: until then its ports are taken.
    pub fn is_running(&self, process: &Process) -> bool {
        // The lab's /proc, from outside: pids in the lab are its own.
        let directory = format!("/proc/{}/root/proc/{}", self.init, process.pid);
        let stat = fs::read_to_string(format!("{directory}/stat"));
        let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
        let threads = || fs::read_dir(format!("{directory}/task")).map_or(0, Iterator::count);
        state.is_some_and(|state| state != 'Z' || threads() > 1)
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// It runs on after the deadline.
    pub fn wait_exit(&self, process: &Process, deadline: Duration) -> anyhow::Result<Duration> {
        let what = format!("the end of {}", process.name);
        eventually(&what, deadline, || Ok((!self.is_running(process)).then_some(()))).map(|((), took)| took)
    }

    /// The end of a process's log, for a message about it.
    pub fn log_tail(process: &Process, lines: usize) -> String {
        let text = fs::read_to_string(&process.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // `--kill-child`: the lab's init dies with unshare, and everything in the pid namespace with it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // It ends after all the others: then nothing writes to the directory any more, which is removed next.
        let init = format!("/proc/{}/stat", self.init);
        let _ = eventually("the end of the lab", Duration::from_secs(10), || {
            let there = fs::read_to_string(&init).is_ok_and(|stat| !stat.contains(") Z "));
            Ok((!there).then_some(()))
        });
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn installed(program: &str) -> bool {
    PATH.split(':').any(|directory| Path::new(directory).join(program).is_file())
}

/// A program of this workspace: `$NAME` in capitals, else beside the running program or one directory above it.
///
/// # Errors
/// It is not there; says how to build it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let variable = name.to_uppercase().replace('-', "_");
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "${variable} is {}, and there is no such file", path.display());
        return Ok(path.canonicalize()?);
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            anyhow!(
                "there is no {name} near {}: run `cargo build --workspace --bins`, or set ${variable}",
                own.display()
            )
        })
}
