//! TCP MD5 (RFC 2385), TTL security (RFC 5082), BFD (RFC 5880) and link loss with real neighbours, BIRD and FRR, in
//! network namespaces of their own.
//!
//! Each test runs itself again under `unshare`. There our speaker lives; the neighbour is in a second network namespace
//! at the other end of a veth link. Needs root, `unshare` (util-linux), `ip` (iproute2), `nft` (nftables), `bird`
//! (bird2), and `bgpd` and `bfdd` (frr).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real neighbours live in real time")]
#![cfg(feature = "bfd")]

mod support;

use std::time::{Duration, Instant};

use openelb_bgp::{
    bfd::{self, ControlPacket},
    fsm::State,
    net::Shutdown,
    speaker::{BfdConfig, DynamicPeers, GracefulRestartConfig, PathState, PeerConfig, Secret},
};
use support::{
    Bird, FakeBfd, Frr, LOCAL, LOCAL6, Ours, REMOTE, REMOTE6, isolated, route, run, there, wait_for,
};

const ROUTE: &str = "198.51.100.1/32";

fn bfd_config(milliseconds: u64) -> BfdConfig {
    let interval = Duration::from_millis(milliseconds);
    let timers =
        bfd::Timers { desired_min_tx: interval, required_min_rx: interval, ..bfd::Timers::default() };
    BfdConfig { timers, minimum_ttl: None }
}

/// The last error of the neighbour has this in it.
fn wait_for_error(ours: &Ours, text: &str) {
    wait_for(&format!("an error with {text:?}"), || {
        let reason = ours.peer("router").last_error?.reason;
        reason.contains(text).then_some(())
    });
}

fn no_retry(peer: &mut PeerConfig) {
    peer.connect_timeout = Duration::from_secs(1);
}

// TCP MD5

#[test]
fn the_right_password_in_either_direction_and_over_ipv6() {
    isolated("the_right_password_in_either_direction_and_over_ipv6", || {
        for (local, remote) in [(LOCAL, REMOTE), (LOCAL6, REMOTE6)] {
            for passive in [true, false] {
                let bird =
                    Bird::start(local, remote, "password \"right\";", if passive { "" } else { "passive;" });
                let ours = Ours::start(remote, |peer| {
                    peer.passive = passive;
                    peer.password = Some(Secret::new("right"));
                });
                ours.speaker.set_routes("test", [route(ROUTE)]);
                bird.wait_for_route(ROUTE);
                assert_eq!(ours.snapshot().listeners.iter().flat_map(|l| &l.unprotected).count(), 0);
            }
        }
    });
}

#[test]
fn a_wrong_or_missing_password_lets_nothing_in_and_is_told() {
    isolated("a_wrong_or_missing_password_lets_nothing_in_and_is_told", || {
        for theirs in ["password \"wrong\";", ""] {
            let _bird = Bird::start(LOCAL, REMOTE, theirs, "");
            let ours = Ours::start(REMOTE, |peer| {
                no_retry(peer);
                peer.password = Some(Secret::new("right"));
            });
            wait_for_error(&ours, "it may have another TCP MD5 password, or none");
            wait_for("what the kernel drops is counted", || (ours.snapshot().md5_failures > 0).then_some(()));
            let peer = ours.peer("router");
            assert_eq!((peer.counters.established, peer.counters.received.open), (0, 0), "{peer:?}");
            let shown = format!("{:?} {:?}", ours.snapshot(), ours.config);
            assert!(!shown.contains("right"), "{shown}");
        }
    });
}

#[test]
fn a_password_that_changes_touches_no_other_session() {
    isolated("a_password_that_changes_touches_no_other_session", || {
        support::another_neighbour();
        let bird = Bird::start(LOCAL, REMOTE, "password \"first\";", "");
        let other = Bird::second("");
        let ours = Ours::start(REMOTE, |peer| {
            no_retry(peer);
            peer.password = Some(Secret::new("first"));
            peer.connect_retry_max = Duration::from_secs(1);
        });
        let mut open = support::second_neighbour();
        open.passive = true; // it comes in through the same listener, without a password
        ours.set_peers([ours.config.clone(), open.clone()]);
        ours.speaker.set_routes("test", [route(ROUTE)]);
        bird.wait_for_route(ROUTE);
        other.wait_for_route(ROUTE);
        let listener = ours.listener_inode();

        let mut changed = ours.config.clone();
        changed.password = Some(Secret::new("second"));
        changed.passive = true; // it must come in with the new password
        ours.set_peers([changed, open]);
        bird.configure(LOCAL, REMOTE, "password \"second\";", "");
        ours.wait_for_established("router", 2);
        bird.wait_for_route(ROUTE);
        let second = ours.peer("second");
        assert_eq!((second.counters.established, second.counters.dropped), (1, 0), "{second:?}");
        assert_eq!(ours.listener_inode(), listener, "the listener is the same socket");
    });
}

#[test]
fn dynamic_neighbours_have_the_password_of_their_prefix() {
    isolated("dynamic_neighbours_have_the_password_of_their_prefix", || {
        for (theirs, in_) in [("password \"many\";", true), ("password \"wrong\";", false)] {
            let bird = Bird::start(LOCAL, REMOTE, theirs, "");
            let ours = Ours::start(REMOTE, |_| {});
            ours.set_peers([]);
            let mut template = PeerConfig::new("rack", REMOTE.parse().unwrap(), 65001);
            template.password = Some(Secret::new("many"));
            let group = DynamicPeers { prefix: "192.0.2.0/24".parse().unwrap(), template, max_peers: 4 };
            ours.speaker.set_dynamic_peers(vec![group]).unwrap();
            ours.speaker.set_routes("test", [route(ROUTE)]);
            if in_ {
                bird.wait_for_route(ROUTE);
                ours.wait_for_established(&format!("rack/{REMOTE}"), 1);
            } else {
                wait_for("dropped segments", || (ours.snapshot().md5_failures > 0).then_some(()));
                assert!(ours.snapshot().peers.is_empty());
            }
        }
    });
}

// TTL security

#[test]
fn ttl_security_with_a_neighbour_that_has_it_too() {
    isolated("ttl_security_with_a_neighbour_that_has_it_too", || {
        for (local, remote) in [(LOCAL, REMOTE), (LOCAL6, REMOTE6)] {
            for passive in [true, false] {
                let bird =
                    Bird::start(local, remote, "ttl security on;", if passive { "" } else { "passive;" });
                let ours = Ours::start(remote, |peer| {
                    peer.passive = passive;
                    peer.ttl_security = Some(1);
                });
                ours.speaker.set_routes("test", [route(ROUTE)]);
                bird.wait_for_route(ROUTE);
                drop(ours);
            }
        }
    });
}

#[test]
fn a_sender_that_is_too_far_away_gets_no_answer() {
    isolated("a_sender_that_is_too_far_away_gets_no_answer", || {
        for (ipv4, remote, second) in [(true, REMOTE, "192.0.2.77"), (false, REMOTE6, "2001:db8:77::1")] {
            let ours = Ours::start(remote, |peer| {
                peer.passive = true;
                peer.ttl_security = Some(1);
            });
            ours.wait_for_listeners();
            let connect = |ttl: u32| there(|| support::connect_with_ttl(ipv4, ttl));
            // The listener may have been open before it heard of the neighbour. Once it has, there is not even a SYN-ACK.
            wait_for("no answer to a sender that is too far away", || {
                (connect(254) == Err(std::io::ErrorKind::TimedOut)).then_some(())
            });
            assert_eq!(connect(254), Err(std::io::ErrorKind::TimedOut), "for good: {remote}");
            assert_eq!(connect(255), Ok(()), "{remote}");
            // Of two neighbours one has no TTL security: the listener answers both, and the first is protected from then on.
            let mut open = PeerConfig::new("second", second.parse().unwrap(), 65001);
            open.passive = true;
            ours.set_peers([ours.config.clone(), open]);
            wait_for("the listener answers", || connect(254).ok());
        }
    });
}

// BFD

#[test]
fn bfd_with_bird_notices_a_silent_cut_at_once() {
    isolated("bfd_with_bird_notices_a_silent_cut_at_once", || {
        let bird = Bird::start(LOCAL, REMOTE, "bfd on;", "");
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(50)));
        ours.speaker.set_routes("test", [route(ROUTE)]);
        bird.wait_for_route(ROUTE);
        let status = ours.wait_for_bfd("router", bfd::State::Up);
        assert!(!status.multihop && status.error.is_none(), "{status:?}");
        wait_for("the fast rate", || {
            let session = ours.peer("router").bfd?.session?;
            (session.transmit_interval? <= Duration::from_millis(50)
                && session.detection_time? <= Duration::from_millis(150))
            .then_some(())
        });
        let before = ours.peer("router").counters;
        support::cut();
        let cut = Instant::now();
        let gone = wait_for("the route is gone", || (!bird.has_route(ROUTE)).then(|| cut.elapsed()));
        wait_for_error(&ours, "BFD down");
        // 3 x 50 ms, and what birdc takes; `soak` judges closer.
        assert!(gone < Duration::from_secs(1), "{gone:?}");
        assert_eq!(ours.peer("router").counters.dropped, before.dropped + 1);
        eprintln!("the route was gone {gone:?} after the cut");
        support::mend();
        ours.wait_for_established("router", before.established + 1);
        ours.wait_for_bfd("router", bfd::State::Up);
        bird.wait_for_route(ROUTE);
    });
}

#[test]
fn timers_change_in_place() {
    isolated("timers_change_in_place", || {
        let bird = Bird::start(LOCAL, REMOTE, "bfd on;", "");
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(500)));
        ours.speaker.set_routes("test", [route(ROUTE)]);
        bird.wait_for_route(ROUTE);
        ours.wait_for_bfd("router", bfd::State::Up);
        let mut slower = ours.config.clone();
        slower.bfd = Some(bfd_config(1000));
        ours.set_peers([slower]);
        wait_for("the slower rate, once BIRD has answered the poll", || {
            let session = ours.peer("router").bfd?.session?;
            (session.transmit_interval? == Duration::from_millis(1000)).then_some(())
        });
        wait_for("BIRD knows", || bird.ask("show bfd sessions").contains("1.000").then_some(()));
        let peer = ours.peer("router");
        assert_eq!((peer.state, peer.counters.dropped), (State::Established, 0));
        assert_eq!(peer.bfd.unwrap().session.unwrap().counters.down, 0);
    });
}

#[test]
fn bfd_that_is_switched_off_at_one_end_is_no_failure() {
    isolated("bfd_that_is_switched_off_at_one_end_is_no_failure", || {
        let theirs = Ours::opposite(|peer| peer.bfd = Some(bfd_config(500)));
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(500)));
        for end in [&ours, &theirs] {
            end.wait_for_established("router", 1);
            end.wait_for_bfd("router", bfd::State::Up);
        }
        let mut without = ours.config.clone();
        without.bfd = None;
        ours.set_peers([without]);
        theirs.wait_for_bfd("router", bfd::State::Down);
        wait_for("the reason", || {
            let path = theirs.peer("router").path?;
            (path == PathState::Down(bfd::Cause::NeighborAdminDown)).then_some(())
        });
        for end in [&ours, &theirs] {
            let peer = end.peer("router");
            assert_eq!((peer.state, peer.counters.dropped), (State::Established, 0), "{peer:?}");
        }
        wait_for("the status without BFD", || ours.peer("router").bfd.is_none().then_some(()));
    });
}

/// What a neighbour is told from the first AdminDown until nothing comes for half a second, and the pauses before.
fn last_words(fake: &mut FakeBfd) -> Vec<(Duration, ControlPacket)> {
    let mut words: Vec<(Duration, ControlPacket)> = Vec::new();
    let mut last: Option<Instant> = None;
    let patience = |began: bool| Duration::from_millis(if began { 500 } else { 5000 });
    while let Some((at, packet)) = fake.hear(patience(!words.is_empty())) {
        if packet.state == bfd::State::AdminDown || !words.is_empty() {
            words.push((last.map_or(Duration::ZERO, |last| at - last), packet));
            last = Some(at);
        }
    }
    words
}

/// The last words of a program that stops.
fn stopped(mode: Shutdown) -> Vec<(Duration, ControlPacket)> {
    let mut fake = FakeBfd::start();
    let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(300)));
    fake.wait_for_up();
    std::thread::scope(|scope| {
        let words = scope.spawn(|| last_words(&mut fake));
        ours.stop(mode);
        let words = words.join().unwrap();
        assert!(words.iter().all(|(_, packet)| packet.state == bfd::State::AdminDown), "{words:?}");
        assert_eq!(words[0].1.diagnostic, bfd::Diagnostic::ADMINISTRATIVELY_DOWN);
        words
    })
}

#[test]
fn admin_down_is_on_the_wire_three_times_when_the_program_stops() {
    isolated("admin_down_is_on_the_wire_three_times_when_the_program_stops", || {
        for mode in [Shutdown::Notify, Shutdown::Quiet] {
            let mut last = Vec::new();
            // Apart, so that what loses one does not lose all; who is kept from reading sees them otherwise.
            let three = (0..3).any(|_| {
                last = stopped(mode);
                last.len() == 3 && last[1..].iter().all(|(pause, _)| *pause > Duration::from_millis(20))
            });
            assert!(three, "{last:?}");
        }
    });
}

#[test]
fn admin_down_is_on_the_wire_for_a_detection_time_when_a_session_is_removed() {
    isolated("admin_down_is_on_the_wire_for_a_detection_time_when_a_session_is_removed", || {
        let mut fake = FakeBfd::start();
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(300)));
        fake.wait_for_up();
        let mut without = ours.config.clone();
        without.bfd = None;
        ours.set_peers([without]);
        let mut count = 0;
        let end = Instant::now() + support::DEADLINE;
        // Once a second: it is not up any more.
        while let Some((at, packet)) = fake.hear(Duration::from_secs(2)) {
            assert!(at < end, "it never ends");
            count += u32::from(packet.state == bfd::State::AdminDown);
        }
        assert!((3..=5).contains(&count), "{count}");
    });
}

/// A speaker with BFD and graceful restart, which has just started.
fn restarting() -> Ours {
    let ours = Ours::start(REMOTE, |peer| {
        // Slow enough for a router that is kept waiting for a moment.
        peer.bfd = Some(bfd_config(400));
        peer.graceful_restart = Some(GracefulRestartConfig {
            restart_time: Duration::from_secs(20),
            restarting: true,
            forwarding_preserved: true,
            notification: true,
        });
    });
    ours.speaker.set_routes("test", [route(ROUTE)]);
    ours
}

/// Looks at something again and again, for as long as eight packets of BFD take.
fn for_a_while(look: impl Fn()) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3200) {
        look();
    }
}

#[test]
fn bird_with_plain_bfd_keeps_the_routes_of_a_speaker_that_restarts() {
    isolated("bird_with_plain_bfd_keeps_the_routes_of_a_speaker_that_restarts", || {
        let bird = Bird::start(LOCAL, REMOTE, "bfd on; graceful restart on;", "");
        let ours = restarting();
        bird.wait_for_route(ROUTE);
        ours.wait_for_bfd("router", bfd::State::Up);
        let sessions = || bird.ask("show bfd sessions");
        let before = wait_for("BFD up at BIRD", || bfd_since(&sessions()));
        let undisturbed = || {
            assert!(bird.has_route(ROUTE), "{}", bird.ask("show protocols all ours"));
            let table = sessions();
            // BIRD reckons it anew each time, from two clocks that it reads one after the other.
            let same = bfd_since(&table).is_some_and(|since| since.abs_diff(before) <= 300);
            assert!(same, "since {before}: {table}");
        };
        ours.stop(Shutdown::Quiet);
        for_a_while(undisturbed);
        // A detection time that lasts for the restart.
        assert!(sessions().contains("20.000"), "{}", sessions());
        let ours = restarting();
        ours.wait_for_established("router", 1);
        ours.wait_for_bfd("router", bfd::State::Up);
        wait_for("the detection time is the old one", || {
            undisturbed();
            sessions().contains("1.200").then_some(())
        });
        for_a_while(undisturbed);
        // Afterwards BFD finds a dead path as fast as ever.
        support::cut();
        let cut = Instant::now();
        wait_for("BFD down at BIRD", || bfd_since(&sessions()).is_none().then_some(()));
        assert!(cut.elapsed() < Duration::from_secs(6), "{:?}", cut.elapsed());
    });
}

/// Since when BIRD's only session is up, in milliseconds of the day.
fn bfd_since(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.starts_with(LOCAL))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, "Up", since, ..] = words[..] else { return None };
    let mut parts = since.split([':', '.']).map(|part| part.parse::<u64>().unwrap());
    let mut next = || parts.next().unwrap();
    Some(((next() * 60 + next()) * 60 + next()) * 1000 + next())
}

#[test]
fn frr_with_bfd_keeps_the_routes_of_a_speaker_that_restarts() {
    isolated("frr_with_bfd_keeps_the_routes_of_a_speaker_that_restarts", || {
        let frr = Frr::start(
            "",
            &[&format!("neighbor {LOCAL} bfd"), &format!("neighbor {LOCAL} graceful-restart")],
        );
        let show = format!("show bgp ipv4 unicast {ROUTE}");
        let ours = restarting();
        frr.wait_for(&show, "best");
        ours.wait_for_bfd("router", bfd::State::Up);
        frr.wait_for("show bfd peers brief", "up");
        let kept = || {
            let shown = frr.ask(&show);
            assert!(shown.contains("best"), "{shown}{}", frr.ask("show bfd peers"));
        };
        ours.stop(Shutdown::Quiet);
        for_a_while(kept);
        let ours = restarting();
        ours.wait_for_established("router", 1);
        wait_for("the route is not stale any more", || {
            kept();
            (!frr.ask(&show).contains("stale")).then_some(())
        });
        ours.wait_for_bfd("router", bfd::State::Up);
        frr.wait_for("show bfd peers brief", "up");
        for_a_while(kept);
        let peer = ours.peer("router");
        assert_eq!((peer.state, peer.counters.dropped), (State::Established, 0), "{peer:?}");
        frr.wait_for("show bfd peers brief", "up");
        support::cut();
        frr.wait_for(&show, "not in table");
    });
}

#[test]
fn bfd_over_several_hops() {
    isolated("bfd_over_several_hops", || {
        let bird = Bird::start(LOCAL, REMOTE, "multihop; bfd on;", "");
        let ours = Ours::start(REMOTE, |peer| {
            peer.multihop_ttl = Some(8);
            peer.bfd = Some(bfd_config(100));
        });
        ours.speaker.set_routes("test", [route(ROUTE)]);
        bird.wait_for_route(ROUTE);
        assert!(ours.wait_for_bfd("router", bfd::State::Up).multihop);
    });
}

#[test]
fn bfd_over_ipv6_and_link_local_with_the_interface_by_name() {
    isolated("bfd_over_ipv6_and_link_local_with_the_interface_by_name", || {
        let bird = Bird::start("fe80::1%eth0", "fe80::2", "bfd on;", "");
        let ours = Ours::start("fe80::2", |peer| {
            peer.local_address = Some("fe80::1".parse().unwrap());
            peer.bind_interface = Some("eth0".to_owned());
            peer.bfd = Some(bfd_config(100));
            peer.extended_next_hop = true;
        });
        ours.wait_for_established("router", 1);
        ours.wait_for_bfd("router", bfd::State::Up);
        drop(bird);
    });
}

#[test]
fn bfd_with_frr() {
    isolated("bfd_with_frr", || {
        let frr = Frr::start(
            "bfd\n profile fast\n  detect-multiplier 3\n  receive-interval 50\n  transmit-interval 50\n exit\nexit\n",
            &[
                &format!("neighbor {LOCAL} bfd"),
                &format!("neighbor {LOCAL} bfd profile fast"),
                &format!("neighbor {LOCAL} password shared"),
            ],
        );
        let ours = Ours::start(REMOTE, |peer| {
            peer.bfd = Some(bfd_config(50));
            peer.password = Some(Secret::new("shared"));
        });
        ours.speaker.set_routes("test", [route(ROUTE)]);
        frr.wait_for(&format!("show bgp ipv4 unicast {ROUTE}"), "best");
        ours.wait_for_bfd("router", bfd::State::Up);
        frr.wait_for("show bfd peers brief", "up");
        support::cut();
        wait_for_error(&ours, "BFD down");
        frr.wait_for(&format!("show bgp ipv4 unicast {ROUTE}"), "not in table");
        support::mend();
        ours.wait_for_established("router", 2);
        frr.wait_for(&format!("show bgp ipv4 unicast {ROUTE}"), "best");
    });
}

#[test]
fn hostile_bfd_packets_take_nothing_down() {
    isolated("hostile_bfd_packets_take_nothing_down", || {
        let bird = Bird::start(LOCAL, REMOTE, "bfd on;", "");
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(1000)));
        ours.speaker.set_routes("test", [route(ROUTE)]);
        bird.wait_for_route(ROUTE);
        ours.wait_for_bfd("router", bfd::State::Up);
        // Who sees the link knows our discriminator; a stranger guesses, from too far away, or sends garbage.
        let ours_discriminator = ours.peer("router").bfd.unwrap().session.unwrap().local_discriminator;
        let down = ControlPacket {
            state: bfd::State::Down,
            detect_multiplier: 3,
            my_discriminator: 1,
            desired_min_tx: Duration::from_secs(1),
            required_min_rx: Duration::from_secs(1),
            ..ControlPacket::default()
        };
        let exact = ControlPacket { your_discriminator: ours_discriminator, ..down }.encode();
        let guessed = ControlPacket { your_discriminator: ours_discriminator ^ 1, ..down }.encode();
        let before = ours.snapshot().bfd_discarded;
        there(|| {
            let (far, near) = (support::udp_with_ttl(254), support::udp_with_ttl(255));
            for _ in 0..5_000 {
                far.send_to(&exact, (LOCAL, 3784)).unwrap();
                near.send_to(&guessed, (LOCAL, 3784)).unwrap();
                near.send_to(&exact[..20], (LOCAL, 3784)).unwrap();
                near.send_to(&[0xff; 100], (LOCAL, 3784)).unwrap();
            }
        });
        wait_for("discarded packets are counted", || (ours.snapshot().bfd_discarded > before).then_some(()));
        let sent = ours.peer("router").bfd.unwrap().session.unwrap().counters.sent;
        wait_for("BFD goes on", || {
            (ours.peer("router").bfd?.session?.counters.sent > sent + 2).then_some(())
        });
        let peer = ours.peer("router");
        assert_eq!((peer.state, peer.counters.dropped), (State::Established, 0), "{peer:?}");
        assert_eq!(peer.bfd.unwrap().session.unwrap().counters.down, 0);
    });
}

#[test]
fn a_port_that_is_taken_is_told_and_tried_again() {
    isolated("a_port_that_is_taken_is_told_and_tried_again", || {
        let taken = std::net::UdpSocket::bind("0.0.0.0:3784").unwrap();
        let bird = Bird::start(LOCAL, REMOTE, "bfd on;", "");
        let ours = Ours::start(REMOTE, |peer| peer.bfd = Some(bfd_config(100)));
        wait_for("the error", || {
            let error = ours.peer("router").bfd?.error?;
            (error.contains("3784") && error.contains("another program")).then_some(())
        });
        drop(taken);
        let status = ours.wait_for_bfd("router", bfd::State::Up);
        assert_eq!(status.error, None);
        drop(bird);
    });
}

// Links

#[test]
fn a_link_that_goes_down_ends_its_session_at_once_and_no_other() {
    isolated("a_link_that_goes_down_ends_its_session_at_once_and_no_other", || {
        support::another_neighbour();
        let bird = Bird::start(LOCAL, REMOTE, "hold time 240;", "");
        let other = Bird::second("");
        let ours = Ours::start(REMOTE, |peer| peer.hold_time = Duration::from_secs(240));
        ours.set_peers([ours.config.clone(), support::second_neighbour()]);
        ours.wait_for_established("router", 1);
        ours.wait_for_established("second", 1);
        let down = Instant::now();
        run("ip link set eth0 down");
        wait_for_error(&ours, "interface eth0 to the neighbour is down");
        assert!(down.elapsed() < Duration::from_secs(10), "{:?}", down.elapsed());
        eprintln!("the session ended {:?} after the link", down.elapsed());
        run("ip link set eth0 up");
        ours.wait_for_established("router", 2);
        let second = ours.peer("second");
        assert_eq!((second.counters.established, second.counters.dropped), (1, 0));
        // Where it is not wanted the session lives on.
        let mut stays = ours.config.clone();
        stays.link_failover = false;
        ours.set_peers([stays, support::second_neighbour()]);
        run("ip link set eth0 down");
        run("ip link set eth1 down");
        wait_for("the other one's end", || {
            ours.peer("second").last_error?.reason.contains("interface eth1").then_some(())
        });
        assert_eq!(ours.peer("router").state, State::Established);
        drop((bird, other));
    });
}
