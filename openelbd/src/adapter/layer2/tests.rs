use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_k8s::{
    announce::{
        AddressStatus, Announcement, Announcements, Announcer, AnnouncerProblem, AnnouncerStatus, Protocol,
    },
    index::{layer2, pools::InterfaceSelector},
    object::{Kind, ObjectRef},
};
use openelb_l2::{
    MacAddr,
    net::{self, DriverHandle, NoLink, Problem, Snapshot, SpawnError},
    speaker::{Event, Failback, MemberState, MemberStatus, NodeName, Role, StopMode},
};

use super::{Layer2Announcer, Layer2Options, config, events, hearing::Hearing, status};
use crate::adapter::bgp::status::Calendar;

fn announcement(protocols: &[Protocol], interface: Option<InterfaceSelector>) -> Arc<Announcement> {
    Arc::new(Announcement {
        protocols: protocols.iter().copied().collect::<BTreeSet<_>>(),
        pool: "lan".to_owned(),
        services: Box::default(),
        service_labels: Box::default(),
        self_eligible: false,
        nodes: Arc::default(),
        permitted: ["node-1".to_owned(), "node-2".to_owned()].into(),
        interface,
        vip_group: None,
    })
}

fn desired() -> Announcements {
    let mut desired = Announcements { node: "node-1".to_owned(), ..Announcements::default() };
    let by_both =
        announcement(&[Protocol::Bgp, Protocol::Layer2], Some(InterfaceSelector::Regex("^eth".into())));
    desired.addresses.insert("192.0.2.1".parse().unwrap(), announcement(&[Protocol::Bgp], None));
    desired.addresses.insert("192.0.2.2".parse().unwrap(), by_both);
    desired.addresses.insert("2001:db8::1".parse().unwrap(), announcement(&[Protocol::Layer2], None));
    for (node, addresses) in [
        ("node-2", &["192.0.2.12", "2001:db8::12"][..]),
        ("node-3", &["2001:db8::13"]),
        ("node-4", &["2001:db8::14", "192.0.2.14"]),
    ] {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        desired.layer2.nodes.insert(node.to_owned(), addresses);
    }
    desired
}

#[test]
fn only_addresses_of_layer2_are_wanted() {
    let wanted = config::addresses(&desired());
    let shown: Vec<_> =
        wanted.iter().map(|one| (one.address.to_string(), one.interface.to_string(), one.eligible)).collect();
    let expected = [("192.0.2.2", "regex:^eth"), ("2001:db8::1", "subnet")];
    assert_eq!(shown, expected.map(|(address, on)| (address.to_owned(), on.to_owned(), false)));
    let nodes = ["node-1", "node-2"].map(|name| NodeName::new(name).unwrap());
    assert!(wanted.iter().all(|one| one.permitted == Some(nodes.iter().collect())));
}

#[test]
fn every_interface_that_the_daemon_parses_is_one_of_the_library() {
    let (long, longest) = ("x".repeat(128), "x".repeat(127));
    let good =
        ["eth0", "can_reach:192.0.2.1", "can_reach: 192.0.2.1", "regex:^eth[0-9]", "regex: ^eth[0-9] "];
    for text in good.into_iter().chain([" subnet ", "all", "enp0s31f6np0alternative", &longest]) {
        let mut desired = desired();
        desired.addresses.clear();
        let parsed = InterfaceSelector::parse(text).unwrap();
        let one = announcement(&[Protocol::Layer2], Some(parsed));
        desired.addresses.insert("192.0.2.9".parse().unwrap(), one);
        let [wanted] = &config::addresses(&desired)[..] else { panic!("not one") };
        assert_eq!(wanted.interface, text.parse().unwrap(), "{text}");
    }
    let bad = [
        "",
        ".",
        "..",
        "eth0,eth1",
        "et h0",
        "et\u{7}h0",
        "a/b",
        "regex: ",
        "can_reach:",
        "canreach:192.0.2.1",
    ];
    for text in bad.into_iter().chain(["Subnet", "SUBNET", "ALL", "All", "a:b", &long]) {
        assert!(InterfaceSelector::parse(text).is_err(), "{text}");
        assert!(text.parse::<openelb_l2::InterfaceSelector>().is_err(), "{text}");
    }
}

#[test]
fn peers_are_reached_by_the_family_of_this_nodes_gossip() {
    let names = |own: &str| -> Vec<_> {
        let peers = config::peers(&desired(), own.parse().unwrap());
        peers.iter().map(|peer| format!("{} {}", peer.node, peer.gossip)).collect()
    };
    assert_eq!(names("192.0.2.11:7947"), ["node-2 192.0.2.12:7947", "node-4 192.0.2.14:7947"]);
    assert_eq!(names("[2001:db8::11]:7000").len(), 3);
}

#[test]
fn settings_are_those_of_the_object() {
    let spec = layer2::Layer2Spec { failback: layer2::Failback::Manual, ..layer2::Layer2Spec::default() };
    let settings = config::settings(&spec);
    assert_eq!(settings.failback, Failback::Manual);
    assert_eq!((settings.stand_in, settings.refresh), (spec.stand_in, spec.refresh));
    assert_eq!((settings.join_delay, settings.gratuitous), (spec.join_delay, spec.schedule));
}

#[test]
fn the_public_key_of_the_go_openelb_is_none() {
    assert!(Layer2Options::key("").is_none());
    assert!(Layer2Options::key("openelb-speakers").is_none());
    assert!(Layer2Options::key("openelb-speakers\n").is_none());
    let key = Layer2Options::key("0123456789abcdef\n").unwrap();
    assert_eq!(Some(&key), Layer2Options::key("0123456789abcdef").as_ref());
    assert!(!format!("{key:?}").contains("0123"), "{key:?}");
}

#[test]
fn gossip_is_at_the_nodes_address_unless_a_flag_says_otherwise() {
    let own = ["192.0.2.11".parse().unwrap()];
    let given = Layer2Options { bind: Some("203.0.113.1".parse().unwrap()), ..Layer2Options::default() };
    let any = Layer2Options { bind: Some("0.0.0.0".parse().unwrap()), ..Layer2Options::default() };
    assert_eq!(given.gossip(&own, false), given.bind);
    assert_eq!(any.gossip(&own, false), Some(own[0]));
    assert_eq!(any.gossip(&[], false), None, "the others could not reach it");
    assert_eq!(any.gossip(&[], true), Some("127.0.0.1".parse().unwrap()));
}

#[test]
fn an_address_without_a_word_of_the_speaker_is_not_announced() {
    let calendar = Calendar::new(Instant::now(), Timestamp::UNIX_EPOCH);
    let before = AnnouncerStatus::default();
    let status = status::status(&desired(), &Snapshot::default(), &before, calendar, Instant::now());
    assert_eq!(status.addresses.len(), 2);
    assert!(status.addresses.values().all(|one| !one.announced && one.protocol == Protocol::Layer2));
    assert_eq!((status.problems.len(), status.warnings.len()), (0, 0));
}

#[test]
fn an_address_is_announced_since_it_is_with_that_mac_address() {
    let with = |mac: Option<&str>| {
        let mut one = AddressStatus::new(Protocol::Layer2, "");
        (one.announced, one.mac) = (mac.is_some(), mac.map(str::to_owned));
        one
    };
    let at = Timestamp::UNIX_EPOCH;
    let last = |mac| AddressStatus { since: Some(at), ..with(mac) };
    let (own, of_another) = (Some("02:00:00:00:00:01"), Some("02:00:00:00:00:02"));
    for (before, now, expected) in [
        (own, own, Some(at)),
        (None, None, Some(at)),
        (None, own, None),
        (own, None, None),
        (of_another, own, None),
    ] {
        assert_eq!(status::since(Some(&last(before)), &with(now)), expected, "{before:?} {now:?}");
    }
    assert_eq!(status::since(None, &with(own)), None);
}

#[test]
fn a_stranger_is_told_of_as_long_as_it_has_an_address() {
    let mac = MacAddr::new([2, 0xee, 0, 0, 0, 1]);
    assert_eq!(status::stranger(&Role::Conflict { mac }, None), Some((mac, true)), "it is not announced");
    assert_eq!(status::stranger(&Role::Owner, Some(mac)), Some((mac, false)), "it is, all the same");
    assert_eq!(status::stranger(&Role::Owner, None), None);
    assert_eq!(status::stranger(&Role::Standby, Some(mac)), None, "that is for the owner to tell");
    let mut found = status::Findings::default();
    for address in ["192.0.2.2", "192.0.2.3"] {
        found.add_stranger(mac, true, address.parse().unwrap(), "lan");
    }
    let (problems, warnings) = found.told();
    let [told] = &problems[..] else { panic!("one station, one word") };
    assert_eq!(warnings, []);
    assert_eq!(told.reason, "AddressConflict");
    assert!(told.message.contains("02:ee:00:00:00:01") && told.message.contains("(192.0.2.2 and others)"));
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn word(told: Option<&events::Told>) -> Option<&str> {
    told?.word.as_ref().map(|word| word.reason)
}

#[test]
fn a_change_of_owner_is_told_by_the_new_one_and_over_for_the_old_one() {
    let address = "192.0.2.2".parse().unwrap();
    let told = |event| events::told("node-1", &event, &Snapshot::default()).unwrap();
    let changed = |owner: Option<&str>| told(Event::OwnerChanged { address, owner: owner.map(node) });
    let gained = changed(Some("node-1"));
    assert_eq!(
        (&gained.about, word(Some(&gained))),
        (&events::About::Address(address), Some("OwnerChanged"))
    );
    let stands = told(Event::StandInStarted { address, owner: node("node-2") });
    assert_eq!(word(Some(&stands)), Some("StandIn"));
    let ended = told(Event::StandInEnded { address, owner: node("node-2") });
    for over in [changed(Some("node-2")), changed(None), ended] {
        assert_eq!((&over.about, over.topic, over.word), (&gained.about, gained.topic, None));
        assert_eq!(over.topic, stands.topic, "else the next one would be no news");
    }
}

#[test]
fn what_happens_to_a_speaker_is_told_by_one_of_the_others() {
    use MemberState::{Alive, Down};
    // As each of three nodes sees the others. The first by name comes and goes.
    let see = |members: &[(&str, MemberState)]| {
        let members = members.iter().map(|(name, state)| MemberStatus::new(node(name), *state)).collect();
        let mut snapshot = Snapshot::default();
        snapshot.members = members;
        snapshot
    };
    for state in [Alive, Down] {
        let up = Event::SpeakerUp { node: node("node-1") };
        let down = Event::SpeakerDown { node: node("node-1") };
        let second = see(&[("node-1", state), ("node-3", Alive)]);
        let third = see(&[("node-1", state), ("node-2", Alive)]);
        for (event, reason) in [(up, "SpeakerUp"), (down, "SpeakerDown")] {
            let told = events::told("node-2", &event, &second);
            assert_eq!(word(told.as_ref()), Some(reason), "{state:?}");
            let silent = events::told("node-3", &event, &third).unwrap();
            assert_eq!(
                (silent.about, silent.word),
                (events::About::Node("node-1".into()), None),
                "{state:?}"
            );
        }
    }
    let gone = Event::SpeakerDown { node: node("node-3") };
    let told = events::told("node-2", &gone, &see(&[("node-1", Alive), ("node-3", Down)]));
    assert_eq!(word(told.as_ref()), None, "node-1 tells");
    let told = events::told("node-2", &gone, &see(&[("node-1", Down), ("node-3", Down)]));
    assert_eq!(word(told.as_ref()), Some("SpeakerDown"), "node-1 went, too");
}

#[test]
fn addresses_that_lack_the_same_have_one_problem() {
    let mut found = status::Findings::default();
    for number in 1..=100 {
        let (v4, v6) =
            (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()));
        let pool = format!("pool-{}", number % 2);
        found.add(&Problem::NoLink(NoLink::Subnet(v4.into())), v4.into(), &pool);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, number.into());
        let (link, cause) = ("eth0".to_owned(), "IPv6 is off there".to_owned());
        found.add(&Problem::Group { link, group, cause }, v6.into(), "v6");
    }
    let (problems, warnings) = found.told();
    let told = [problems, warnings].concat();
    let pools = |names: &[&str]| names.iter().map(|name| ObjectRef::cluster(Kind::Eip, *name)).collect();
    assert_eq!(told[0].objects, pools(&["v6"]));
    assert_eq!(told[1].objects, pools(&["pool-0", "pool-1"]), "each is told of");
    let told: Vec<_> = told.iter().map(|one| (one.reason.as_str(), one.message.as_str())).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 == "GroupNotJoined" && told[0].1.ends_with(" (2001:db8::1 and others)"), "{told:?}");
    let lacks = "no interface of this node has a subnet with 192.0.2.1 (192.0.2.1 and others)";
    assert_eq!(told[1], ("InterfaceNotFound", lacks));
}

#[test]
fn an_address_of_the_kernel_is_a_problem_and_one_of_no_subnet_a_warning() {
    let mut found = status::Findings::default();
    let address = "192.0.2.2".parse().unwrap();
    let local = |link: &str, indirect| Problem::Local { link: link.to_owned(), indirect };
    found.add(&local("eth0", false), address, "lan");
    found.add(&local("kube-ipvs0", true), address, "lan");
    found.add(&Problem::OutOfSubnet { link: "eth0".to_owned() }, address, "lan");
    let (problems, warnings) = found.told();
    let shown = |told: &[AnnouncerProblem]| -> Vec<_> {
        told.iter().map(|one| format!("{}: {}", one.reason, one.message)).collect()
    };
    let [own, ipvs] = &shown(&problems)[..] else { panic!("{problems:?}") };
    assert!(own.starts_with("AddressLocal: eth0 of this node"), "{own}");
    assert!(own.contains("take it off the interface") && own.ends_with("(192.0.2.2)"), "{own}");
    assert!(ipvs.contains("kube-ipvs0") && ipvs.contains("--ipvs-strict-arp"), "{ipvs}");
    let [outside] = &shown(&warnings)[..] else { panic!("{warnings:?}") };
    assert!(outside.starts_with("AddressOutOfSubnet: ") && outside.contains("eth0"), "{outside}");
    assert!(outside.contains("need a route"), "{outside}");
    assert_eq!(problems[0].objects, [ObjectRef::cluster(Kind::Eip, "lan")].into());
}

#[test]
fn that_no_other_node_is_heard_is_said_after_ten_seconds_until_one_is() {
    let start = Instant::now();
    let mut hearing = Hearing::new(start);
    let mut snapshot = Snapshot::default();
    let at = |seconds| start + Duration::from_secs(seconds);
    for seconds in (2..10).step_by(2) {
        assert_eq!(hearing.look(&snapshot, at(seconds)), None, "{seconds}");
    }
    assert!(hearing.look(&snapshot, at(10)).is_some_and(|text| text.contains("--bind-addr")));
    snapshot.stats.datagrams = 1;
    assert_eq!(hearing.look(&snapshot, at(12)), None, "somebody is heard");
    assert_eq!(hearing.look(&snapshot, at(60)), None, "this process was suspended");
    (snapshot.stats.datagrams, snapshot.stats.rejected_datagrams) = (5, 4);
    for seconds in (62..68).step_by(2) {
        assert_eq!(hearing.look(&snapshot, at(seconds)), None, "{seconds}");
    }
    let said = hearing.look(&snapshot, at(70));
    assert!(said.is_some_and(|text| text.contains("--secret")), "{said:?}");
}

#[test]
fn what_was_told_of_addresses_and_nodes_that_are_gone_is_forgotten() {
    let mut spoken = events::Spoken::default();
    let mut desired = Announcements { node: "node-1".to_owned(), ..Announcements::default() };
    let told = |event| events::told("node-1", &event, &Snapshot::default()).unwrap();
    for number in 1..=200 {
        let address = Ipv4Addr::new(192, 0, 2, number).into();
        desired.addresses.clear();
        desired.addresses.insert(address, announcement(&[Protocol::Layer2], None));
        desired.layer2.nodes = [(format!("node-{number}"), Vec::new())].into();
        let over = spoken.forget(&desired);
        let gone: Vec<_> = over.iter().map(|told| (told.about.clone(), told.word.is_some())).collect();
        let before = events::About::Node(format!("node-{}", number.saturating_sub(1)));
        // node-1 is this one.
        assert_eq!(gone, if number > 2 { vec![(before, false)] } else { Vec::new() });
        assert!(spoken.note(&told(Event::OwnerChanged { address, owner: Some(node("node-1")) })));
        assert!(spoken.note(&told(Event::SpeakerDown { node: node(&format!("node-{number}")) })));
        assert!(spoken.len() <= 3, "{}", spoken.len());
    }
    let address = "192.0.2.200".parse().unwrap();
    assert!(spoken.note(&told(Event::OwnerChanged { address, owner: None })), "it is still told");
    assert!(!spoken.note(&told(Event::OwnerChanged { address, owner: None })), "once");
}

/// A node that speaks Layer 2 alone, on a port that nobody has.
fn alone() -> (Layer2Options, Announcements) {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options =
        Layer2Options { port, host_uptime: Some(Duration::from_secs(3600)), ..Layer2Options::default() };
    let mut desired = Announcements { node: "node-1".to_owned(), ..Announcements::default() };
    desired.layer2.in_use = true;
    (options, desired)
}

/// Waits until an announcer has such a problem, or none.
async fn told(announcer: &Layer2Announcer, words: Option<&str>) {
    let mut status = announcer.status();
    let as_told = |status: &Arc<AnnouncerStatus>| {
        let mut failures = status.problems.iter().filter(|problem| problem.reason == "Layer2Failed");
        match words {
            Some(words) => failures.any(|failure| failure.message.contains(words)),
            None => failures.next().is_none(),
        }
    };
    let wait = tokio::time::timeout(Duration::from_secs(30), status.wait_for(as_told));
    assert!(wait.await.is_ok(), "{words:?}");
}

#[tokio::test]
async fn a_speaker_that_cannot_be_started_is_tried_again_though_nothing_changes() {
    let (options, desired) = alone();
    let tries = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&tries);
    let spawn = move |config| {
        let mut tries = counted.lock().unwrap();
        *tries += 1;
        let refused = std::io::Error::from(std::io::ErrorKind::WouldBlock);
        if *tries == 1 { Err(SpawnError::Thread(refused)) } else { net::spawn(config) }
    };
    let (announcer, _told) = Layer2Announcer::spawn_by(Box::new(spawn), options, 1);
    announcer.set_desired(desired);
    told(&announcer, Some("tried again")).await;
    assert_eq!(*tries.lock().unwrap(), 1);
    told(&announcer, None).await;
    assert_eq!(*tries.lock().unwrap(), 2);
    announcer.stop(crate::adapter::bgp::OnStop::Withdraw, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_node_that_has_no_address_for_a_moment_goes_on() {
    let (options, mut desired) = alone();
    let started = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&started);
    let spawn = move |config| {
        *counted.lock().unwrap() += 1;
        net::spawn(config)
    };
    let (announcer, _told) = Layer2Announcer::spawn_by(Box::new(spawn), options, 1);
    desired.layer2.own = vec![Ipv4Addr::LOCALHOST.into()];
    desired.layer2.nodes = [("node-2".to_owned(), vec!["192.0.2.12".parse().unwrap()])].into();
    announcer.set_desired(desired.clone());
    let mut status = announcer.status();
    let begun = status.wait_for(|_| *started.lock().unwrap() == 1);
    assert!(tokio::time::timeout(Duration::from_secs(30), begun).await.is_ok());
    desired.layer2.own.clear();
    announcer.set_desired(desired.clone());
    told(&announcer, Some("has no InternalIP")).await;
    desired.layer2.own = vec![Ipv4Addr::LOCALHOST.into()];
    announcer.set_desired(desired);
    told(&announcer, None).await;
    assert_eq!(*started.lock().unwrap(), 1, "it was not started anew");
    announcer.stop(crate::adapter::bgp::OnStop::Withdraw, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_speaker_that_ended_by_itself_is_started_again_after_a_pause_whatever_changes() {
    let (options, mut desired) = alone();
    let started: Arc<Mutex<Vec<(Instant, DriverHandle)>>> = Arc::default();
    let kept = Arc::clone(&started);
    let spawn = move |config| {
        let handle = net::spawn(config)?;
        kept.lock().unwrap().push((Instant::now(), handle.clone()));
        Ok(handle)
    };
    let (announcer, _told) = Layer2Announcer::spawn_by(Box::new(spawn), options, 1);
    announcer.set_desired(desired.clone());
    let mut status = announcer.status();
    let begun = status.wait_for(|_| !started.lock().unwrap().is_empty());
    assert!(tokio::time::timeout(Duration::from_secs(30), begun).await.is_ok());
    let first = started.lock().unwrap()[0].1.clone();
    let ended = Instant::now();
    assert!(first.stop(StopMode::Withdraw, Duration::from_secs(30)).await);
    told(&announcer, Some("a bug has ended")).await;
    desired.layer2.own.push("127.0.0.1".parse().unwrap());
    announcer.set_desired(desired);
    told(&announcer, None).await;
    let starts: Vec<_> = started.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(starts.len(), 2);
    assert!(starts[1] - ended >= Duration::from_millis(750), "{:?}", starts[1] - ended);
    announcer.stop(crate::adapter::bgp::OnStop::Withdraw, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_speaker_begins_only_when_the_one_before_has_ended() {
    let (options, mut desired) = alone();
    let started: Arc<Mutex<Vec<DriverHandle>>> = Arc::default();
    let kept = Arc::clone(&started);
    let spawn = move |config| {
        let mut started = kept.lock().unwrap();
        let ended = |handle: &DriverHandle| handle.watch().borrow().stopped;
        assert!(started.iter().all(ended), "two at once");
        let handle = net::spawn(config)?;
        started.push(handle.clone());
        Ok(handle)
    };
    let (announcer, _told) = Layer2Announcer::spawn_by(Box::new(spawn), options, 1);
    let mut status = announcer.status();
    desired.layer2.nodes = [("node-2".to_owned(), vec!["192.0.2.12".parse().unwrap()])].into();
    let changes: [&dyn Fn(&mut Announcements); 4] = [
        &|desired| desired.layer2.own = vec!["127.0.0.1".parse().unwrap()],
        // The Node has another address.
        &|desired| desired.layer2.own = vec!["127.0.0.2".parse().unwrap()],
        &|desired| desired.layer2.in_use = false,
        &|desired| desired.layer2.in_use = true,
    ];
    let source = announcer.source();
    for (speakers, change) in [1, 2, 2, 3].into_iter().zip(changes) {
        change(&mut desired);
        announcer.set_desired(desired.clone());
        let begun = status.wait_for(|_| started.lock().unwrap().len() == speakers);
        assert!(tokio::time::timeout(Duration::from_secs(30), begun).await.is_ok(), "{speakers}");
        let seen = async {
            while source().is_some() != desired.layer2.in_use {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), seen).await.is_ok(), "{speakers}");
        // One that is only ended is waited for by nobody.
        assert!(desired.layer2.in_use || !announcer.status().borrow().unsettled);
        told(&announcer, None).await;
    }
    announcer.stop(crate::adapter::bgp::OnStop::Withdraw, Duration::from_secs(5)).await;
    assert!(started.lock().unwrap().iter().all(|handle| handle.watch().borrow().stopped));
}
