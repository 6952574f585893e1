//! `openelbd standalone` on the nodes of a lab: what restarts, crashes and idleness do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use openelb_lab::{
    Lab, Process, binary,
    bird::{Bird, kernel_next_hops},
    client, eventually,
    topology::{self, NODES, ROUTER, node_v4, node_v6},
};

struct Setup {
    lab: Lab,
    openelbd: PathBuf,
    manifests: PathBuf,
    state: PathBuf,
}

impl Setup {
    fn new(name: &str) -> Self {
        let lab = topology::start(name).unwrap();
        let manifests = lab.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), manifests.join(file.file_name())).unwrap();
        }
        let state = lab.path().join("state");
        Self { openelbd: binary("openelbd").unwrap(), manifests, state, lab }
    }

    fn start(&self, number: u8) -> Process {
        topology::start_node(&self.lab, &self.openelbd, number, &self.manifests, &self.state).unwrap()
    }

    fn service(&self, namespace: &str, name: &str) -> serde_json::Value {
        let file = self.state.join("services").join(namespace).join(format!("{name}.yaml"));
        fs::read_to_string(file).ok().and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default()
    }

    fn addresses(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let service = self.service(namespace, name);
        let ingress = service.pointer("/status/loadBalancer/ingress").and_then(|ingress| ingress.as_array());
        ingress.into_iter().flatten().map(|entry| entry["ip"].as_str().unwrap().parse().unwrap()).collect()
    }

    fn await_hops(&self, address: IpAddr, nodes: &[u8]) {
        let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
        eventually(&format!("{address} over nodes {nodes:?}"), Duration::from_secs(30), || {
            Ok((kernel_next_hops(&self.lab, ROUTER, address)? == wanted).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn addresses_stay_through_kill_and_restart_and_a_stopped_node_withdraws_at_once() {
    let setup = Setup::new("restart");
    let router = topology::start_router(&setup.lab).unwrap();
    let nodes: Vec<Process> = NODES.into_iter().map(|n| setup.start(n)).collect();
    let (web, _) = eventually("the addresses of default/web", Duration::from_secs(15), || {
        let addresses = setup.addresses("default", "web");
        Ok((addresses.len() == 2).then_some(addresses))
    })
    .unwrap();
    setup.await_hops(web[0], &[1, 2, 3]);

    // Killed: the node forwards on, so its routes stay (graceful restart).
    setup.lab.signal(&nodes[0], "KILL").unwrap();
    setup.lab.wait_exit(&nodes[0], Duration::from_secs(5)).unwrap();
    let established = |count: usize| {
        let what = format!("{count} established sessions");
        let as_many = || Ok((router.established()? == count).then_some(()));
        eventually(&what, Duration::from_secs(30), as_many).unwrap();
    };
    established(2);
    setup.await_hops(web[0], &[1, 2, 3]);
    let first = setup.start(1);
    established(3);
    setup.await_hops(web[0], &[1, 2, 3]);
    assert_eq!(setup.addresses("default", "web"), web);

    // Stopped: withdrawn before the process ends, far inside the hold time.
    let stopped = Instant::now();
    setup.lab.signal(&first, "TERM").unwrap();
    setup.await_hops(web[0], &[2, 3]);
    assert!(stopped.elapsed() < Duration::from_secs(6), "as slow as the hold time: {:?}", stopped.elapsed());
    setup.lab.wait_exit(&first, Duration::from_secs(15)).unwrap();
    // It did say goodbye: a process that just dies sends no Cease.
    let log = fs::read_to_string(&router.process.log).unwrap();
    assert!(log.contains("Administrative shutdown"), "{log}");

    // All killed at once, and started again: nothing is assigned anew.
    for process in &nodes[1..] {
        setup.lab.signal(process, "KILL").unwrap();
    }
    let before = setup.service("default", "web");
    established(0);
    setup.await_hops(web[0], &[2, 3]);
    for n in NODES {
        setup.start(n);
    }
    established(3);
    setup.await_hops(web[0], &[1, 2, 3]);
    assert_eq!(setup.addresses("default", "web"), web);
    assert_eq!(setup.service("default", "web")["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn a_flood_from_another_host_does_not_take_the_probes_of_a_node_away() {
    let setup = Setup::new("probes");
    setup.start(1);
    let own = node_v4(1);
    let probe = |host: &str, address: IpAddr, path: &str| -> anyhow::Result<u16> {
        Ok(client::get(&setup.lab, host, (address, 50053).into(), path)?.0)
    };
    let healthy = || probe("node-1", own, "/healthz");
    eventually("it answers", Duration::from_secs(15), || Ok((healthy()? == 200).then_some(()))).unwrap();
    let scraped = probe(ROUTER, own, "/metrics").unwrap();
    assert_eq!(scraped, 200);
    // More than there are places for, and none of them says a word.
    let flood: Vec<TcpStream> = setup
        .lab
        .within(ROUTER, || {
            let target = (own, 50053).into();
            let connect = |_| TcpStream::connect_timeout(&target, Duration::from_secs(5));
            (0..200).map(connect).collect::<Result<_, _>>()
        })
        .unwrap()
        .unwrap();
    for address in [own, IpAddr::from([127, 0, 0, 1])] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let status = probe("node-1", address, path).unwrap();
            assert!(status == 200 || path == "/readyz", "{address}{path}: {status}");
        }
    }
    // And those that said nothing are gone a little later.
    eventually("the other host has places again", Duration::from_secs(60), || {
        Ok((probe(ROUTER, own, "/metrics").ok() == Some(200)).then_some(()))
    })
    .unwrap();
    drop(flood);
}

#[test]
fn an_idle_instance_with_a_hundred_services_is_small_and_quiet() {
    let idle =
        openelb_lab::idle::measure(&binary("openelbd").unwrap(), 100, Duration::from_secs(10)).unwrap();
    println!("{idle:?}");
    // Loose: this build is not optimised. `cargo xtask bench standalone` judges 20 MB and 0.5 % of a core.
    assert!(idle.resident < 60_000_000, "{} bytes resident", idle.resident);
    assert!(idle.core < 0.05, "{:.1} % of a core while idle", idle.core * 100.0);
}

#[test]
fn a_state_directory_that_is_full_is_told_and_written_as_soon_as_there_is_space() {
    let setup = Setup::new("full");
    let state = setup.state.to_string_lossy().into_owned();
    // In the lab's own mount namespace; made full before anything is written.
    setup
        .lab
        .script(&format!(
            "mkdir -p {state}\nmount -t tmpfs -o size=256k tmpfs {state}\nhead -c 1000000 /dev/zero >{state}/fill 2>/dev/null || true"
        ))
        .unwrap();
    let process = setup.start(1);
    let log = || fs::read_to_string(&process.log).unwrap_or_default();
    eventually("a word about the full disk", Duration::from_secs(20), || {
        let told =
            |line: &str| line.contains("No space left on device") && line.contains("it is tried again");
        Ok(log().lines().any(told).then_some(()))
    })
    .unwrap();
    assert!(setup.lab.is_running(&process));
    setup.lab.script(&format!("rm {state}/fill")).unwrap();
    eventually("the address in the state", Duration::from_secs(20), || {
        let text = setup.lab.run("node-1", &["cat", &format!("{state}/services/default/web.yaml")])?;
        Ok(text.contains("198.51.100.10").then_some(()))
    })
    .unwrap();
    let again = || Ok(log().contains("the state directory works again").then_some(()));
    eventually("a word that it works again", Duration::from_secs(20), again).unwrap();
}

/// One router, two sessions with node-1: one over IPv4 with this password, one over IPv6 without.
fn two_sessions(password: &str) -> String {
    let session = |name: &str, local: &str, neighbor: IpAddr, more: &str, channel: &str| {
        format!(
            "protocol bgp {name} {{ local {local} as 64512; neighbor {neighbor} as 64501; strict bind; direct; hold time 9; \
             connect delay time 1; connect retry time 1; error wait time 1, 2; {more} \
             {channel} {{ import all; export none; }}; }}\n"
        )
    };
    let password = format!("password \"{password}\";");
    let guarded = session("guarded", "192.168.50.1", node_v4(1), &password, "ipv4");
    let plain = session("plain", "fd00:50::1", node_v6(1), "", "ipv6");
    format!("log stderr all;\nrouter id 192.168.50.1;\nprotocol device {{ scan time 1; }}\n{guarded}{plain}")
}

/// What the stream of the read API of node-1 says from now on.
fn listen(lab: &Lab) -> Arc<Mutex<Vec<u8>>> {
    let api = SocketAddr::from(([127, 0, 0, 1], 50054));
    let connect = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&api, Duration::from_secs(5))?;
        write!(stream, "GET /api/v1/stream HTTP/1.1\r\nHost: {api}\r\n\r\n")?;
        Ok(stream)
    };
    let mut stream = lab.within("node-1", connect).unwrap().unwrap();
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let all = heard.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Until the speaker is gone.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            all.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    heard
}

/// BIRD works times out anew each time, from two clocks that it reads one after the other: so many milliseconds are none.
const ROUNDED: u64 = 300;

/// A time of BIRD's in milliseconds of the day.
fn milliseconds(time: &str) -> u64 {
    let parts = time.split([':', '.']).map(|part| part.parse::<u64>().unwrap());
    parts.zip([3_600_000, 60_000, 1000, 1]).map(|(part, unit)| part * unit).sum()
}

#[test]
fn a_password_changed_in_its_secret_is_in_force_at_once_and_touches_no_other_session() {
    let setup = Setup::new("md5");
    let secret = |password: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: router, namespace: openelb-system}}\n\
             stringData: {{password: {password}}}\n"
        );
        fs::write(setup.manifests.join("25-secret.yaml"), text).unwrap();
    };
    secret("old-word-of-mouth");
    let file = setup.manifests.join("20-bgp.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let plain = "---\napiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata: {name: plain}\n\
                 spec: {conf: {neighborAddress: 'fd00:50::1', peerAs: 64512}}\n";
    fs::write(&file, format!("{text}  passwordSecretRef: {{name: router}}\n{plain}")).unwrap();
    let router = Bird::start(&setup.lab, ROUTER, &two_sessions("old-word-of-mouth")).unwrap();
    let process = topology::start_node_with(
        &setup.lab,
        &setup.openelbd,
        1,
        (&setup.manifests, &setup.state),
        &["--log-level", "trace"],
    )
    .unwrap();
    // Name, protocol, table, state, since, and what the protocol says.
    let shown = |name: &str| -> anyhow::Result<Vec<String>> {
        let answer = router.ask(&format!("show protocols {name}"))?;
        let line = answer.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        Ok(line.split_whitespace().map(str::to_owned).collect())
    };
    let established = |name: &str| {
        eventually(&format!("{name} is established"), Duration::from_secs(30), || {
            let line = shown(name)?;
            Ok(line.last().is_some_and(|state| state == "Established").then_some(line))
        })
        .unwrap()
        .0
    };
    let (guarded, plain) = (established("guarded"), established("plain"));
    let heard = listen(&setup.lab);
    let heard = || String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();

    secret("new-word-of-mouth");
    eventually("the session with the old password ends", Duration::from_secs(15), || {
        Ok((shown("guarded")?.last().is_none_or(|state| state != "Established")).then_some(()))
    })
    .unwrap();
    setup.lab.write("bird-router.conf", &two_sessions("new-word-of-mouth")).unwrap();
    router.order("configure").unwrap();
    let again = established("guarded");
    assert_ne!(again, guarded, "it is another session");
    let now = shown("plain").unwrap();
    assert_eq!((&now[..4], &now[5..]), (&plain[..4], &plain[5..]), "the other session is as it was");
    let since = milliseconds(&now[4]).abs_diff(milliseconds(&plain[4]));
    assert!(since <= ROUNDED, "and has been up all the time: {now:?} {plain:?}");

    // Neither password is told anywhere, at any level.
    let mut told = vec![(process.log.clone(), fs::read_to_string(&process.log).unwrap())];
    let lists =
        ["pools", "services", "peers", "nodes", "events"].map(|list| (50054, format!("/api/v1/{list}")));
    for (port, path) in lists.into_iter().chain([(50053, "/metrics".to_owned())]) {
        let api = (IpAddr::from([127, 0, 0, 1]), port).into();
        let (status, body) = client::get(&setup.lab, "node-1", api, &path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        told.push((path.into(), body));
    }
    eventually("the stream tells every list, and the peers again", Duration::from_secs(15), || {
        let heard = heard();
        let all = ["pools", "services", "nodes", "events"]
            .iter()
            .all(|list| heard.contains(&format!("event: {list}")));
        Ok((all && heard.matches("event: peers").count() >= 2).then_some(()))
    })
    .unwrap();
    told.push(("/api/v1/stream".into(), heard()));
    let mut directories = vec![setup.state.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                // Another instance may be writing it anew.
                told.extend(
                    fs::read(&path).ok().map(|text| (path, String::from_utf8_lossy(&text).into_owned())),
                );
            }
        }
    }
    assert!(
        told.iter().any(|(_, text)| text.contains("guarded") || text.contains("192.168.50.1")),
        "{told:?}"
    );
    for (place, text) in told {
        assert!(!text.contains("word-of-mouth"), "a password in {}", place.display());
    }
}

#[test]
fn a_changed_bfd_profile_is_in_force_at_once_and_touches_no_session() {
    let setup = Setup::new("profile");
    let file = setup.manifests.join("20-bgp.yaml");
    let text = fs::read_to_string(&file).unwrap() + "  bfd: {enabled: true, profile: path}\n";
    let write = |profiles: &str| {
        let port = "  listenPort: 179\n";
        assert!(text.contains(port), "{text}");
        fs::write(&file, text.replace(port, &format!("{port}  bfdProfiles: {{{profiles}}}\n"))).unwrap();
    };
    let path = |milliseconds: u32| {
        format!("path: {{receiveInterval: {milliseconds}ms, transmitInterval: {milliseconds}ms}}")
    };
    // Slow enough for a router that is kept waiting for a moment.
    write(&path(1000));
    let configuration = format!(
        "log stderr all;\nrouter id 192.168.50.1;\nprotocol device {{ scan time 1; }}\nprotocol bfd {{ }}\n\
         protocol bgp node1 {{ local 192.168.50.1 as 64512; neighbor {} as 64501; strict bind; direct; hold time 9; \
         connect delay time 1; connect retry time 1; error wait time 1, 2; bfd on; ipv4 {{ import all; export none; }}; }}\n",
        node_v4(1)
    );
    let router = Bird::start(&setup.lab, ROUTER, &configuration).unwrap();
    setup.start(1);
    let bfd = |wanted: &str| {
        eventually(&format!("BFD is up, every {wanted} s"), Duration::from_secs(30), || {
            let answer = router.ask("show bfd sessions")?;
            let line = answer.lines().find(|line| line.starts_with("192.168.50.")).unwrap_or_default();
            // Address, interface, state, since, interval, timeout.
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, "Up", since, interval, ..] = words[..] else { return Ok(None) };
            Ok((interval == wanted).then(|| milliseconds(since)))
        })
        .unwrap()
        .0
    };
    let session = || {
        eventually("the session is established", Duration::from_secs(30), || {
            let answer = router.ask("show protocols node1")?;
            let line = answer.lines().find(|line| line.contains("Established")).unwrap_or_default();
            Ok(line.split_whitespace().nth(4).map(milliseconds))
        })
        .unwrap()
        .0
    };
    let (session_up, bfd_up) = (session(), bfd("1.000"));
    let stays = |interval: &str| {
        let (bfd, session) = (bfd(interval), session());
        assert!(bfd.abs_diff(bfd_up) <= ROUNDED, "BFD went down: up since {bfd}, not {bfd_up}");
        assert!(
            session.abs_diff(session_up) <= ROUNDED,
            "the session was reset: {session}, not {session_up}"
        );
    };
    write(&path(2000));
    stays("2.000");

    // A profile that is not there any more: what was in force stays, and the BgpPeer says so.
    write("other: {}");
    let state = setup.state.join("bgppeers/_/router.yaml");
    eventually("the BgpPeer names the profile", Duration::from_secs(15), || {
        Ok(fs::read_to_string(&state)?.contains("no BFD profile path").then_some(()))
    })
    .unwrap();
    stays("2.000");
}
