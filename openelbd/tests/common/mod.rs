//! What the tests of the real program share.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod router;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing that is waited for takes longer, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn openelbd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelbd"));
    for variable in ["RUST_LOG", "NODE_NAME", "OPENELB_NAMESPACE", "OPENELB_MANIFESTS", "OPENELB_STATE"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    openelbd().args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Waits until `look` finds something, or fails saying `what`.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, &mut look)
}

/// The same with a deadline of its own.
#[track_caller]
pub(crate) fn within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Manifests and state of one or more instances.
pub(crate) struct Site {
    directory: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        Self { directory }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Writes a manifest as an editor does: beside its place, then renamed.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let temporary = self.directory.path().join("half-written");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.manifests().join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// An object of the state directory.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        let text = fs::read_to_string(self.state().join(path)).ok()?;
        serde_saphyr::from_str(&text).ok()
    }

    /// The addresses that a Service in the namespace default publishes.
    pub(crate) fn addresses(&self, service: &str) -> Vec<String> {
        let object = self.object(&format!("services/default/{service}.yaml")).unwrap_or_default();
        let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).cloned();
        ingress.unwrap_or_default().iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a Service has as many addresses, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_addresses(&self, service: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} addresses of Service {service}"), || {
            Some(self.addresses(service)).filter(|addresses| addresses.len() == count)
        })
    }

    /// A condition of an object of the state directory.
    pub(crate) fn condition(&self, path: &str, kind: &str) -> Option<Value> {
        let object = self.object(path)?;
        let conditions = object.pointer("/status/conditions")?.as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == kind)
    }

    /// Starts `openelbd standalone` on it.
    pub(crate) fn start(&self, node: &str) -> Daemon {
        self.start_with(node, &[])
    }

    pub(crate) fn start_with(&self, node: &str, arguments: &[&str]) -> Daemon {
        let mut command = openelbd();
        command.args(["standalone", "--node-name", node, "--log-format", "json"]);
        command.arg("--manifests").arg(self.manifests()).arg("--state").arg(self.state());
        if !arguments.contains(&"--metrics-addr") {
            command.args(["--metrics-addr", "127.0.0.1:0"]);
        }
        if !arguments.contains(&"--http-bind-address") {
            command.args(["--http-bind-address", "0"]);
        }
        if !arguments.contains(&"--api-hosts") {
            command.args(["--api-hosts", "0"]);
        }
        if !arguments.contains(&"--drain-timeout") {
            command.args(["--drain-timeout", "2s"]);
        }
        Daemon::start(command.args(arguments))
    }
}

/// A running `openelbd standalone`; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits for a log line that holds all of these.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, parts: &[&str]) -> String {
        let found = || {
            let log = self.log.lock().unwrap();
            log.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned()
        };
        let began = Instant::now();
        loop {
            if let Some(line) = found() {
                return line;
            }
            assert!(began.elapsed() < DEADLINE, "no log line with {parts:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where metrics and health are served.
    pub(crate) fn http(&self) -> SocketAddr {
        let line = self.wait_for_log(&["metrics and health served"]);
        let line: Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Status code and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(self.http(), path)
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        let began = Instant::now();
        loop {
            let (code, body) = self.get("/readyz");
            if code == 200 {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "not ready: {body}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A sample of `/metrics`, by its text up to the value.
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(began.elapsed() < DEADLINE, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of openelbd\n{}", self.log());
        }
    }
}

/// A GET over HTTP/1.1: status code and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}

/// Every file below a directory with its content.
pub(crate) fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

pub(crate) fn eip(name: &str, address: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata:\n  name: {name}\n  annotations: {{eip.openelb.kubesphere.io/is-default-eip: \"true\"}}\nspec:\n  address: {address}\n---\n"
    )
}

pub(crate) fn service(name: &str) -> String {
    service_with(name, "")
}

/// `extra` stands in `spec`, as flow items: `, key: value`.
pub(crate) fn service_with(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  annotations: {{lb.kubesphere.io/v1alpha1: openelb}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]{extra}}}\n---\n"
    )
}

pub(crate) fn node(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n---\n"
    )
}

/// `listen` is the local port; nobody needs to connect to it.
pub(crate) fn bgp_conf(listen: u16) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpConf\nmetadata: {{name: default}}\nspec: {{as: 65000, listenPort: {listen}, listenAddresses: [127.0.0.1]}}\n---\n"
    )
}

pub(crate) fn bgp_peer(name: &str, router: SocketAddr) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata: {{name: {name}}}\nspec:\n  conf: {{neighborAddress: {}, peerAs: 65001}}\n  transport: {{remotePort: {}}}\n  timers: {{config: {{connectRetry: \"1\"}}}}\n---\n",
        router.ip(),
        router.port()
    )
}
