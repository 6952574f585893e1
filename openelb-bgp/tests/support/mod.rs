//! A host of ours and its neighbours, at the other ends of veth links, in network namespaces of their own.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use openelb_bgp::{
    bfd,
    fsm::State,
    net::{self, Shutdown, SpeakerHandle},
    speaker::{
        BfdStatus, ListenerState, PeerConfig, PeerName, PeerStatus, PeersSnapshot, Route, SpeakerConfig,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

const INSIDE: &str = "OPENELB_BGP_TEST_INSIDE";
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const LOCAL: &str = "192.0.2.1";
pub(crate) const REMOTE: &str = "192.0.2.2";
pub(crate) const LOCAL6: &str = "2001:db8::1";
pub(crate) const REMOTE6: &str = "2001:db8::2";
const SECOND_LOCAL: &str = "198.18.0.1";
const SECOND_REMOTE: &str = "198.18.0.2";
const NEIGHBOUR: &str = "router";
const SECOND: &str = "second";

/// Runs a command, which must succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap_or_else(|error| panic!("{command}: {error}")).success(), "{command}");
}

/// Runs `body` in namespaces of its own, with a link `eth0` to a neighbour's namespace.
pub(crate) fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        // `ip netns` keeps its files here.
        run("mount -t tmpfs tmpfs /run");
        run("ip link set lo up");
        connect(NEIGHBOUR, "eth0", [LOCAL, REMOTE], 24);
        for (index, place) in [(1, ""), (2, "ip netns exec router ")] {
            run(&format!("{place}ip address add 2001:db8::{index}/64 dev eth0 nodad"));
            run(&format!("{place}ip address add fe80::{index}/64 dev eth0 nodad"));
        }
        return body();
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare is missing: apt-get install util-linux");
    assert!(status.success(), "{test} failed in its namespace (it needs root to make one)");
}

fn connect(namespace: &str, interface: &str, [local, remote]: [&str; 2], length: u8) {
    run(&format!("ip netns add {namespace}"));
    run(&format!("ip link add {interface} type veth peer name {interface} netns {namespace}"));
    for (place, address) in [(String::new(), local), (format!("ip netns exec {namespace} "), remote)] {
        run(&format!("{place}ip link set {interface} addrgenmode none"));
        run(&format!("{place}ip address add {address}/{length} dev {interface}"));
        run(&format!("{place}ip link set {interface} up"));
    }
}

/// A second neighbour behind `eth1`.
pub(crate) fn another_neighbour() {
    connect(SECOND, "eth1", [SECOND_LOCAL, SECOND_REMOTE], 24);
}

pub(crate) fn second_neighbour() -> PeerConfig {
    let mut peer = PeerConfig::new(SECOND, SECOND_REMOTE.parse().unwrap(), 65001);
    peer.local_address = Some(SECOND_LOCAL.parse().unwrap());
    peer.connect_retry_max = Duration::from_secs(1);
    peer
}

/// Nothing gets through to either end any more, and nobody is told.
pub(crate) fn cut() {
    for place in ["", "ip netns exec router "] {
        run(&format!("{place}nft add table inet cut"));
        run(&format!(
            "{place}nft add chain inet cut quiet {{ type filter hook input priority -300 ; policy drop ; }}"
        ));
    }
}

pub(crate) fn mend() {
    for place in ["", "ip netns exec router "] {
        run(&format!("{place}nft delete table inet cut"));
    }
}

/// Runs `body` at the neighbour.
pub(crate) fn there<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open("/run/netns/router").unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

/// Connects to our port 179 with packets of this TTL or hop limit.
pub(crate) fn connect_with_ttl(ipv4: bool, ttl: u32) -> Result<(), std::io::ErrorKind> {
    let (domain, local, remote) =
        if ipv4 { (Domain::IPV4, LOCAL, REMOTE) } else { (Domain::IPV6, LOCAL6, REMOTE6) };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    if ipv4 { socket.set_ttl_v4(ttl) } else { socket.set_unicast_hops_v6(ttl) }.unwrap();
    socket.bind(&std::net::SocketAddr::new(remote.parse().unwrap(), 0).into()).unwrap();
    let to = std::net::SocketAddr::new(local.parse().unwrap(), 179);
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).map_err(|error| error.kind())
}

pub(crate) fn udp_with_ttl(ttl: u32) -> UdpSocket {
    let socket = UdpSocket::bind((REMOTE, 0)).unwrap();
    socket.set_ttl(ttl).unwrap();
    socket
}

/// A BFD neighbour that we see into: what it is sent, packet by packet.
pub(crate) struct FakeBfd {
    socket: UdpSocket,
    session: bfd::Session,
}

impl FakeBfd {
    pub(crate) fn start() -> Self {
        let socket = there(|| UdpSocket::bind((REMOTE, bfd::SINGLE_HOP_PORT)).unwrap());
        socket.set_ttl(255).unwrap();
        let discriminator = std::num::NonZeroU32::new(7).unwrap();
        let timers = bfd::Timers::default();
        Self { socket, session: bfd::Session::new(timers, discriminator, 7, Instant::now()) }
    }

    /// The next packet that it hears within this time; it answers as BFD says.
    pub(crate) fn hear(&mut self, within: Duration) -> Option<(Instant, bfd::ControlPacket)> {
        let end = Instant::now() + within;
        loop {
            let now = Instant::now();
            self.session.handle_timeout(now);
            while let Some(packet) = self.session.poll_transmit(now) {
                // Nobody may listen yet, or any more.
                let _ = self.socket.send_to(&packet.encode(), (LOCAL, bfd::SINGLE_HOP_PORT));
            }
            if now >= end {
                return None;
            }
            let wake = self.session.poll_timeout().unwrap_or(end).min(end);
            let pause = wake.saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(pause)).unwrap();
            let mut octets = [0; 100];
            let Ok(read) = self.socket.recv(&mut octets) else { continue };
            let (packet, now) = (bfd::ControlPacket::decode(&octets[..read]).unwrap(), Instant::now());
            let _ = self.session.handle_packet(&packet, now);
            return Some((now, packet));
        }
    }

    pub(crate) fn wait_for_up(&mut self) {
        let end = Instant::now() + DEADLINE;
        while self.session.state() != bfd::State::Up {
            assert!(Instant::now() < end, "{:?}", self.session.status());
            let _ = self.hear(Duration::from_millis(100));
        }
    }
}

/// Waits until `condition` gives something.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn route(prefix: &str) -> Route {
    Route::new(prefix.parse::<ipnet::IpNet>().unwrap())
}

fn program(name: &str, directory: &str) -> PathBuf {
    let there = PathBuf::from(directory).join(name);
    if there.exists() { there } else { name.into() }
}

/// A BIRD process at a neighbour.
pub(crate) struct Bird {
    directory: tempfile::TempDir,
    child: Child,
}

impl Bird {
    fn write(directory: &tempfile::TempDir, local: &str, remote: &str, session: &str, role: &str) {
        let interface = if remote.starts_with("fe80") { "interface \"eth0\";" } else { "" };
        let text = format!(
            "router id {REMOTE};\nprotocol device {{}}\n\
             protocol bfd {{\n\
             interface \"*\" {{ min rx interval 50 ms; min tx interval 50 ms; idle tx interval 300 ms; multiplier 3; }};\n\
             multihop {{ min rx interval 50 ms; min tx interval 50 ms; idle tx interval 300 ms; multiplier 3; }};\n}}\n\
             protocol bgp ours {{\n local {remote} as 65001;\n neighbor {local} as 65000;\n {interface}\n\
             connect delay time 1;\n connect retry time 1;\n error wait time 1, 2;\n {session}\n {role}\n\
             ipv4 {{ import all; export none; extended next hop on; }};\n\
             ipv6 {{ import all; export none; }};\n}}\n"
        );
        std::fs::write(directory.path().join("bird.conf"), text).unwrap();
    }

    /// `local` is our address, `remote` its own; `session` and `role` are statements of its BGP protocol.
    pub(crate) fn start(local: &str, remote: &str, session: &str, role: &str) -> Self {
        Self::start_in(NEIGHBOUR, local, remote, session, role)
    }

    /// At the second neighbour.
    pub(crate) fn second(session: &str) -> Self {
        Self::start_in(SECOND, SECOND_LOCAL, SECOND_REMOTE, session, "")
    }

    fn start_in(namespace: &str, local: &str, remote: &str, session: &str, role: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::write(&directory, local, remote, session, role);
        let at = |name: &str| directory.path().join(name);
        let child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(program("bird", "/usr/sbin"))
            .arg("-f")
            .args(["-c".into(), at("bird.conf"), "-s".into(), at("bird.ctl"), "-P".into(), at("bird.pid")])
            .stdin(Stdio::null())
            .spawn()
            .expect("bird is missing: apt-get install bird2");
        Self { directory, child }
    }

    /// Gives it another configuration.
    pub(crate) fn configure(&self, local: &str, remote: &str, session: &str, role: &str) {
        Self::write(&self.directory, local, remote, session, role);
        let answer = self.ask("configure");
        assert!(answer.contains("Reconfigur"), "{answer}");
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new(program("birdc", "/usr/sbin"))
            .arg("-s")
            .arg(self.directory.path().join("bird.ctl"))
            .args(command.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn has_route(&self, prefix: &str) -> bool {
        self.ask(&format!("show route {prefix} protocol ours")).contains("[ours ")
    }

    pub(crate) fn wait_for_route(&self, prefix: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.has_route(prefix) {
            let state = || self.ask("show protocols all ours");
            assert!(Instant::now() < deadline, "BIRD has no {prefix}: {}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// FRR's zebra, bfdd and bgpd at the neighbour.
pub(crate) struct Frr {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Frr {
    /// `bfd`: bfdd's configuration; `neighbor`: lines within `router bgp` that are about us.
    pub(crate) fn start(bfd: &str, neighbor: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let lines = neighbor.join("\n ");
        let bgp = format!(
            "router bgp 65001\n bgp router-id {REMOTE}\n no bgp ebgp-requires-policy\n timers bgp 3 9\n \
             neighbor {LOCAL} remote-as 65000\n neighbor {LOCAL} timers connect 1\n {lines}\n\
             address-family ipv4 unicast\n  neighbor {LOCAL} activate\n exit-address-family\nexit\n"
        );
        // It gives root up.
        run(&format!("chown frr:frr {}", directory.path().display()));
        run("mkdir -p /run/frr");
        run("chown frr:frr /run/frr");
        let mut children = Vec::new();
        for (name, text) in [("zebra", ""), ("bfdd", bfd), ("bgpd", bgp.as_str())] {
            std::fs::write(at(&format!("{name}.conf")), text).unwrap();
            let mut command = Command::new("ip");
            command.args(["netns", "exec", NEIGHBOUR]).arg(program(name, "/usr/lib/frr"));
            command.args(["-P", "0", "-z"]).arg(at("zserv.api"));
            command.arg("--vty_socket").arg(directory.path());
            command.arg("-i").arg(at(&format!("{name}.pid"))).arg("-f").arg(at(&format!("{name}.conf")));
            match name {
                "bfdd" => drop(command.arg("--bfdctl").arg(at("bfdd.sock"))),
                "bgpd" => drop(command.args(["-l", REMOTE])),
                _ => {}
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            children.push(child.unwrap_or_else(|error| panic!("{name}: {error}: apt-get install frr")));
            wait_for(&format!("{name} answers"), || at(&format!("{name}.vty")).exists().then_some(()));
        }
        Self { directory, children }
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.directory.path())
            .args(["-c", command])
            .output()
            .expect("vtysh is missing: apt-get install frr");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    pub(crate) fn wait_for(&self, command: &str, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.ask(command);
            if answer.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{command}: no {text:?} in {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A running speaker of ours, AS 65000, with the neighbour `router`, AS 65001.
pub(crate) struct Ours {
    pub(crate) speaker: SpeakerHandle,
    pub(crate) config: PeerConfig,
    task: Option<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    /// A speaker of ours in the neighbour's place: AS 65001, its neighbour `router` is us.
    pub(crate) fn opposite(change: impl FnOnce(&mut PeerConfig) + Send) -> Self {
        there(|| Self::start_as(65001, [REMOTE, REMOTE6], LOCAL, 65000, change))
    }

    pub(crate) fn start(remote: &str, change: impl FnOnce(&mut PeerConfig)) -> Self {
        Self::start_as(65000, [LOCAL, LOCAL6], remote, 65001, change)
    }

    fn start_as(
        asn: u32,
        [local, local6]: [&str; 2],
        remote: &str,
        remote_asn: u32,
        change: impl FnOnce(&mut PeerConfig),
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let mut config = SpeakerConfig::new(asn, local.parse::<Ipv4Addr>().unwrap());
        config.listen = vec!["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()];
        config.next_hop_ipv4 = Some(local.parse().unwrap());
        config.next_hop_ipv6 = Some(local6.parse().unwrap());
        let (speaker, task) = net::spawn(config).unwrap();
        drop(guard);
        let remote: IpAddr = remote.parse().unwrap();
        let mut peer = PeerConfig::new("router", remote, remote_asn);
        peer.local_address = Some((if remote.is_ipv4() { local } else { local6 }).parse().unwrap());
        peer.connect_retry_max = Duration::from_secs(1);
        change(&mut peer);
        let ours = Self { speaker, config: peer, task: Some(task), runtime };
        ours.set_peers([ours.config.clone()]);
        ours
    }

    pub(crate) fn set_peers(&self, peers: impl IntoIterator<Item = PeerConfig>) {
        self.speaker.set_peers(peers.into_iter().collect()).unwrap();
    }

    pub(crate) fn snapshot(&self) -> PeersSnapshot {
        self.speaker.watch_peers().borrow().as_ref().clone()
    }

    pub(crate) fn peer(&self, name: &str) -> PeerStatus {
        wait_for("the peer is known", || self.snapshot().peers.get(&PeerName::from(name)).cloned())
    }

    pub(crate) fn wait_for_established(&self, name: &str, times: u64) -> PeerStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let peer = self.peer(name);
            if peer.state == State::Established && peer.counters.established >= times {
                return peer;
            }
            assert!(Instant::now() < deadline, "{name} was not established {times} times: {peer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_for_bfd(&self, name: &str, state: bfd::State) -> BfdStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.peer(name).bfd;
            if let Some(status) = &status
                && status.session.is_some_and(|session| session.state == state)
            {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "BFD with {name} is not {state}: {status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_for_listeners(&self) {
        wait_for("listening", || {
            let listeners = self.snapshot().listeners;
            let open = |state: &ListenerState| *state == ListenerState::Listening;
            (listeners.len() == 2 && listeners.iter().all(|listener| open(&listener.state))).then_some(())
        });
    }

    /// Stops, and waits until it has said all that it has to say.
    pub(crate) fn stop(mut self, mode: Shutdown) {
        self.speaker.shutdown(mode);
        let task = self.task.take().unwrap();
        self.runtime.block_on(task).unwrap();
    }

    /// The socket that listens on port 179 (IPv4).
    pub(crate) fn listener_inode(&self) -> String {
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(":00B3 00000000:0000 0A")).expect("a listener");
        line.split_whitespace().nth(9).unwrap().to_owned()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.speaker.shutdown(Shutdown::Notify);
    }
}
