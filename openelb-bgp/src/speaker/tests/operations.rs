//! What operators, BFD and links do to neighbours, and where neighbours come from.

use std::collections::BTreeSet;

use super::{
    challenge::{Scripted, bytes_of, graceful, restart_capability, their_open},
    *,
};
use crate::{
    bfd,
    speaker::{
        BestPathStep, BfdConfig, CommandError, DynamicPeers, Event, LimitAction, PathState, PeerCommand,
        PeerScope, PeerSource, ReceivedRoutes, RouteOwner, Secret,
    },
    wire::{AsPath, Attributes, Capability, NlriList, Notification, Open, Origin, RouteRefreshKind},
};

const DOWN: PathState = PathState::Down(bfd::Cause::TimeExpired);

fn other() -> crate::speaker::PeerName {
    "other".into()
}

fn with_bfd(peer: &mut PeerConfig) {
    peer.bfd = Some(BfdConfig { timers: bfd::Timers::default(), minimum_ttl: None });
}

pub(super) fn last_notification(scripted: &Scripted) -> Option<Notification> {
    scripted.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Notification(notification) => Some(notification.clone()),
        _ => None,
    })
}

#[test]
fn bfd_down_ends_the_session_with_its_subcode_and_it_comes_back() {
    let mut scripted = Scripted::new(with_bfd);
    scripted.establish(their_open(None));
    scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
    scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::bfd_down()));
    let status = scripted.status();
    assert_eq!((status.state, status.path, status.counters.dropped), (State::Idle, Some(DOWN), 1));
    assert!(scripted.events.contains(&Event::Path { peer: other(), state: DOWN }));
    scripted.advance(Duration::from_secs(2));
    scripted.establish(their_open(None));
    // It is told again, and the path did not come up between: the new session stays.
    scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
    scripted.settle();
    assert_eq!(scripted.status().state, State::Established);
}

#[test]
fn bfd_that_goes_on_while_the_neighbour_is_configured_anew_still_ends_the_session() {
    type Change = fn(&mut PeerConfig);
    // Whether it is the same BFD session, which says nothing anew as long as it stays up.
    let table: [(&str, Change, bool); 6] = [
        ("hold time", |peer| peer.hold_time = Duration::from_secs(60), true),
        ("password", |peer| peer.password = Some(Secret::new("another")), true),
        ("families", |peer| peer.families.truncate(1), true),
        ("hops", |peer| peer.multihop_ttl = Some(4), false),
        ("local address", |peer| peer.local_address = Some(ADDRESSES[0].into()), false),
        ("external", |peer| peer.local_asn = Some(ASNS[1]), false),
    ];
    for (name, change, kept) in table {
        let mut scripted = Scripted::new(with_bfd);
        scripted.establish(their_open(None));
        scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
        let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
        change(&mut config);
        scripted.speaker.set_peers(vec![config.clone()], scripted.now).unwrap();
        scripted.settle();
        assert_eq!(scripted.status().path, kept.then_some(PathState::Up), "{name}");
        scripted.establish(their_open(None));
        scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
        scripted.sent.clear();
        scripted.settle();
        assert_eq!(last_notification(&scripted), kept.then(Notification::bfd_down), "{name}");
        // One that is shut down has no BFD.
        config.admin_down = true;
        scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
        assert_eq!(scripted.status().path, None, "{name}");
    }
    // Another BGP identifier makes all sessions anew.
    let mut scripted = Scripted::new(with_bfd);
    scripted.establish(their_open(None));
    scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
    let config =
        SpeakerConfig { router_id: Ipv4Addr::new(192, 0, 2, 9), ..scripted.speaker.config().clone() };
    scripted.speaker.set_config(config, scripted.now).unwrap();
    scripted.settle();
    scripted.establish(their_open(None));
    scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::bfd_down()));
}

#[test]
fn bfd_down_while_the_session_is_down_neither_resets_nor_delays_the_next() {
    let mut scripted = Scripted::new(with_bfd);
    scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
    let connection = scripted.connect();
    scripted.send(connection, their_open(None));
    assert_eq!(scripted.status().state, State::OpenConfirm);
    scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
    scripted.settle();
    scripted.send(connection, Message::Keepalive);
    assert_eq!(scripted.status().state, State::Established);
    scripted.advance(Duration::from_secs(1));
    assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Established, 0));
    assert_eq!(last_notification(&scripted), None);
}

#[test]
fn what_says_nothing_of_the_path_ends_no_session() {
    let mut scripted = Scripted::new(with_bfd);
    scripted.establish(their_open(None));
    for cause in [bfd::Cause::NeighborAdminDown, bfd::Cause::Local] {
        scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
        scripted.speaker.handle_bfd(&other(), PathState::Down(cause), scripted.now).unwrap();
        scripted.settle();
    }
    assert_eq!(scripted.status().state, State::Established);
    // And nothing of a neighbour without BFD.
    let mut scripted = Scripted::new(|_| {});
    scripted.establish(their_open(None));
    scripted.speaker.handle_bfd(&other(), PathState::Up, scripted.now).unwrap();
    scripted.speaker.handle_bfd(&other(), DOWN, scripted.now).unwrap();
    scripted.settle();
    assert_eq!((scripted.status().state, scripted.status().path), (State::Established, None));
    let unknown = scripted.speaker.handle_bfd(&"nobody".into(), DOWN, scripted.now);
    assert!(matches!(unknown, Err(CommandError::UnknownPeer { .. })));
}

#[test]
fn a_lost_link_ends_the_session_at_once_where_that_is_wanted() {
    type Change = fn(&mut PeerConfig);
    let table: [(Change, bool); 3] = [
        (|_| {}, true),
        (|peer| peer.link_failover = false, false),
        (|peer| peer.multihop_ttl = Some(4), false),
    ];
    for (change, ends) in table {
        let mut scripted = Scripted::new(change);
        let connection = scripted.establish(their_open(None));
        scripted.speaker.handle_link_down(&other(), "eth0", scripted.now).unwrap();
        scripted.settle();
        assert_eq!(scripted.status().state != State::Established, ends);
        assert_eq!(last_notification(&scripted), None, "none would arrive");
        if ends {
            assert_eq!(scripted.closed, [connection]);
            assert!(scripted.status().last_error.unwrap().reason.contains("eth0"));
            scripted.establish(their_open(None));
        }
    }
}

#[test]
fn shutdown_says_its_text_and_holds_until_enable() {
    let mut scripted = Scripted::new(|_| {});
    scripted.establish(their_open(None));
    let command = PeerCommand::Shutdown { text: "maintenance until 14:00".into() };
    scripted.speaker.command(&other(), command, scripted.now).unwrap();
    scripted.settle();
    let told = last_notification(&scripted).unwrap();
    assert_eq!(told, Notification::administrative_shutdown("maintenance until 14:00"));
    assert_eq!(told.shutdown_text(), Some("maintenance until 14:00"));
    let down = scripted.status();
    assert!(down.admin_down && down.shutdown.as_deref() == Some("maintenance until 14:00"));
    scripted.advance(Duration::from_secs(600));
    assert!(matches!(scripted.try_connect(), Err(Refusal::AdminDown { .. })));
    // A change of its configuration does not wake it up.
    let mut config = PeerConfig::new("other", ADDRESSES[1].into(), ASNS[1]);
    (config.passive, config.hold_time) = (true, Duration::from_secs(33));
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    assert!(matches!(scripted.try_connect(), Err(Refusal::AdminDown { .. })));
    scripted.speaker.command(&other(), PeerCommand::Enable, scripted.now).unwrap();
    scripted.settle();
    scripted.establish(their_open(None));
    assert!(!scripted.status().admin_down);
}

#[test]
fn reset_says_its_text_and_the_session_comes_back() {
    let mut scripted = Scripted::new(|_| {});
    scripted.establish(their_open(None));
    scripted.speaker.reset(&other(), "new cables", scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::administrative_reset("new cables")));
    scripted.advance(Duration::from_secs(2));
    scripted.establish(their_open(None));
}

#[test]
fn where_notifications_keep_routes_an_end_for_good_is_a_hard_reset() {
    for (theirs, hard) in [(true, true), (false, false)] {
        let mut scripted = Scripted::new(|peer| {
            graceful(peer);
            peer.graceful_restart.as_mut().unwrap().notification = true;
        });
        scripted.establish(their_open(Some(restart_capability(true, theirs))));
        scripted
            .speaker
            .command(&other(), PeerCommand::Shutdown { text: "bye".into() }, scripted.now)
            .unwrap();
        scripted.settle();
        let plain = Notification::administrative_shutdown("bye");
        let expected = if hard { Notification::hard_reset(&plain) } else { plain };
        assert_eq!(last_notification(&scripted), Some(expected));
    }
}

#[test]
fn who_is_shut_down_by_configuration_is_told_so_and_drops_our_routes() {
    // Whether both have set the N bit, with which another change of the configuration would keep routes.
    for hard in [false, true] {
        let mut scripted = Scripted::new(|peer| {
            graceful(peer);
            peer.graceful_restart.as_mut().unwrap().notification = hard;
        });
        scripted.establish(their_open(Some(restart_capability(true, true))));
        let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
        config.admin_down = true;
        scripted.speaker.set_peers(vec![config.clone()], scripted.now).unwrap();
        scripted.settle();
        let plain = Notification::administrative_shutdown("");
        let expected = if hard { Notification::hard_reset(&plain) } else { plain };
        assert_eq!(last_notification(&scripted), Some(expected));
        assert!(scripted.status().admin_down);
        // It comes back, and a change of its hold time is no shutdown.
        config.admin_down = false;
        scripted.speaker.set_peers(vec![config.clone()], scripted.now).unwrap();
        scripted.establish(their_open(Some(restart_capability(true, true))));
        config.hold_time = Duration::from_secs(33);
        scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
        scripted.settle();
        assert_eq!(last_notification(&scripted), Some(Notification::other_configuration_change()));
    }
}

#[test]
fn a_soft_reset_asks_for_all_routes_or_sends_them_without_ending_the_session() {
    let mut scripted = Scripted::new(|_| {});
    let command = |scripted: &mut Scripted, command| {
        let outcome = scripted.speaker.command(&other(), command, scripted.now);
        scripted.sent.clear();
        scripted.settle();
        outcome
    };
    let early = command(&mut scripted, PeerCommand::SoftResetIn);
    assert!(matches!(early, Err(CommandError::NotEstablished { .. })));
    scripted.speaker.set_routes("test", [route("198.51.100.1/32")], scripted.now);
    scripted.establish(their_open(None));
    command(&mut scripted, PeerCommand::SoftResetIn).unwrap();
    let asked: Vec<Message> = scripted.sent.iter().map(|(_, message)| message.clone()).collect();
    let requests = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(RouteRefresh::request);
    assert_eq!(asked, requests.map(Message::RouteRefresh));
    command(&mut scripted, PeerCommand::SoftResetOut).unwrap();
    let kinds: Vec<_> = scripted
        .sent
        .iter()
        .filter_map(|(_, message)| match message {
            Message::RouteRefresh(refresh) if refresh.family == Family::IPV4_UNICAST => {
                Some(Some(refresh.kind))
            }
            Message::Update(_) => Some(None),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [Some(RouteRefreshKind::Begin), None, Some(RouteRefreshKind::End)]);
    command(&mut scripted, PeerCommand::SoftReset).unwrap();
    assert!(scripted.sent.len() > kinds.len());
    assert_eq!(scripted.status().counters.dropped, 0);
    // A neighbour that does not know ROUTE-REFRESH.
    let mut scripted = Scripted::new(|_| {});
    let mut open = their_open(None);
    open.capabilities.retain(|capability| *capability != Capability::RouteRefresh);
    scripted.establish(open);
    let refused = scripted.speaker.command(&other(), PeerCommand::SoftResetIn, scripted.now);
    assert!(matches!(refused, Err(CommandError::NoRouteRefresh { .. })));
}

#[test]
fn the_session_shows_what_both_ends_offered() {
    let mut scripted = Scripted::new(graceful);
    let open = their_open(Some(restart_capability(true, false)));
    scripted.establish(open.clone());
    let session = scripted.status().session.unwrap();
    assert_eq!(*session.remote_capabilities, *open.capabilities);
    let Message::Open(ours) = &scripted.sent[0].1 else { panic!("{:?}", scripted.sent) };
    assert_eq!(*session.local_capabilities, *ours.capabilities);
}

#[test]
fn sources_of_peers_do_not_erase_each_others_and_the_first_wins_a_clash() {
    let mut speaker = Speaker::new(SpeakerConfig::new(65000, ADDRESSES[0]), *ORIGIN).unwrap();
    let peer = |name: &str, last: u8| PeerConfig::new(name, Ipv4Addr::new(192, 0, 2, last).into(), 65001);
    let names = |speaker: &Speaker| -> Vec<String> {
        speaker.peers().peers.keys().map(|name| name.as_str().to_owned()).collect()
    };
    speaker.set_peers_of("grpc", vec![peer("g", 10), peer("clash", 11)], *ORIGIN).unwrap();
    speaker.set_peers(vec![peer("a", 20)], *ORIGIN).unwrap();
    assert_eq!(names(&speaker), ["a", "clash", "g"]);
    assert_eq!(speaker.peers().clashes, []);
    // The same address in the source that sorts first: that one is there, and it is told.
    speaker.set_peers(vec![peer("a", 20), peer("b", 11)], *ORIGIN).unwrap();
    assert_eq!(names(&speaker), ["a", "b", "g"]);
    let clashes = speaker.peers().clashes;
    assert_eq!((clashes.len(), clashes[0].peer.as_str(), clashes[0].source.as_str()), (1, "clash", "grpc"));
    assert_eq!((clashes[0].winner.as_str(), clashes[0].winner_source.as_str()), ("b", ""));
    // It takes over when the first one goes, and so with a name.
    speaker.set_peers(vec![peer("g", 21)], *ORIGIN).unwrap();
    assert_eq!(names(&speaker), ["clash", "g"]);
    assert_eq!(speaker.peers().peers[&"g".into()].source, PeerSource::Configured("".into()));
    speaker.set_peers(vec![], *ORIGIN).unwrap();
    assert_eq!(speaker.peers().peers[&"g".into()].source, PeerSource::Configured("grpc".into()));
    assert_eq!(speaker.peers().clashes, []);
}

pub(super) fn group(prefix: &str, max_peers: u32) -> DynamicPeers {
    let mut template = PeerConfig::new("rack", Ipv4Addr::UNSPECIFIED.into(), 65001);
    template.hold_time = Duration::from_secs(90);
    DynamicPeers { prefix: prefix.parse().unwrap(), template, max_peers }
}

pub(super) fn from(last: u8) -> ConnectionInfo {
    ConnectionInfo {
        local: SocketAddr::new(ADDRESSES[0].into(), 179),
        remote: SocketAddr::new(Ipv4Addr::new(10, 1, 0, last).into(), 33_000),
    }
}

#[test]
fn who_connects_from_a_prefix_is_a_neighbour_until_it_goes() {
    let mut speaker = Speaker::new(SpeakerConfig::new(65000, ADDRESSES[0]), *ORIGIN).unwrap();
    speaker.set_dynamic_peers(vec![group("10.1.0.0/16", 2)], *ORIGIN).unwrap();
    let drain = |speaker: &mut Speaker| while speaker.poll_output(*ORIGIN).is_some() {};
    let first = speaker.accept(from(1), *ORIGIN).unwrap();
    assert_eq!(first.config.name.as_str(), "rack/10.1.0.1");
    assert!(first.config.passive);
    speaker.handle_connected(first.connection, from(1), *ORIGIN);
    drain(&mut speaker);
    let open = their_open(None);
    let session = SessionContext::default();
    for message in [Message::Open(open), Message::Keepalive] {
        speaker.handle_bytes(first.connection, &bytes_of(message, &session), *ORIGIN);
    }
    drain(&mut speaker);
    let status = &speaker.peers().peers[&"rack/10.1.0.1".into()];
    assert_eq!((status.state, &status.source), (State::Established, &PeerSource::Dynamic("rack".into())));
    // It hears what is for its group.
    let scope = |name: &str| PeerScope::Only(Arc::new([name.into()].into()));
    let routes = [("203.0.113.1/32", "rack"), ("203.0.113.2/32", "other")]
        .map(|(prefix, name)| Route { scope: scope(name), ..Route::new(prefix.parse::<IpNet>().unwrap()) });
    speaker.set_routes("ours", routes, *ORIGIN);
    drain(&mut speaker);
    let state = |speaker: &Speaker, prefix: &str| speaker.route_status(prefix.parse().unwrap())[0].peers[0].1;
    assert_ne!(state(&speaker, "203.0.113.1/32"), Advertisement::OutOfScope);
    assert_eq!(state(&speaker, "203.0.113.2/32"), Advertisement::OutOfScope);
    // As many as allowed, and not one more: it leaves nothing behind.
    let second = speaker.accept(from(2), *ORIGIN).unwrap();
    speaker.handle_connected(second.connection, from(2), *ORIGIN);
    drain(&mut speaker);
    assert!(matches!(speaker.accept(from(3), *ORIGIN), Err(Refusal::TooManyDynamicPeers { max: 2, .. })));
    assert_eq!(speaker.peers().peers.len(), 2);
    // One goes, and there is room.
    speaker.handle_closed(second.connection, *ORIGIN);
    drain(&mut speaker);
    assert_eq!(speaker.peers().peers.len(), 1);
    assert!(speaker.accept(from(3), *ORIGIN).is_ok());
    drain(&mut speaker);
    // A group that stays touches nobody; other terms do; without it they are gone.
    speaker.set_dynamic_peers(vec![group("10.1.0.0/16", 3)], *ORIGIN).unwrap();
    drain(&mut speaker);
    assert_eq!(speaker.peers().peers[&"rack/10.1.0.1".into()].state, State::Established);
    speaker.set_dynamic_peers(vec![], *ORIGIN).unwrap();
    drain(&mut speaker);
    assert!(speaker.peers().peers.is_empty());
    assert!(matches!(speaker.accept(from(1), *ORIGIN), Err(Refusal::Unconfigured { .. })));
}

#[test]
fn who_connects_from_a_prefix_and_says_nothing_makes_room_after_ten_seconds() {
    let mut speaker = Speaker::new(SpeakerConfig::new(65000, ADDRESSES[0]), *ORIGIN).unwrap();
    speaker.set_dynamic_peers(vec![group("10.1.0.0/16", 2)], *ORIGIN).unwrap();
    for last in [1, 2] {
        let connection = speaker.accept(from(last), *ORIGIN).unwrap().connection;
        speaker.handle_connected(connection, from(last), *ORIGIN);
        while speaker.poll_output(*ORIGIN).is_some() {}
    }
    let mut advance = |seconds| {
        let now = *ORIGIN + Duration::from_secs(seconds);
        while let Some(at) = speaker.poll_timeout().filter(|at| *at <= now) {
            speaker.handle_timeout(at);
            while speaker.poll_output(at).is_some() {}
        }
        let (known, outcome) = (speaker.peers().peers.len(), speaker.accept(from(3), now));
        (known, outcome.map(|_| ()))
    };
    assert!(matches!(advance(9), (2, Err(Refusal::TooManyDynamicPeers { .. }))));
    // The pause after an error included.
    assert!(matches!(advance(11), (0, Ok(()))));
}

#[test]
fn who_connects_from_a_prefix_does_not_become_internal_by_saying_so() {
    for (external_only, said, state, ttl) in [
        (true, ASNS[0], State::Idle, 1),
        (true, ASNS[1], State::Established, 1),
        (false, ASNS[0], State::Established, 64),
    ] {
        let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[0], ADDRESSES[0]), *ORIGIN).unwrap();
        let mut any = group("10.1.0.0/16", 2);
        (any.template.asn, any.template.external_only) = (0, external_only);
        speaker.set_dynamic_peers(vec![any], *ORIGIN).unwrap();
        let accepted = speaker.accept(from(1), *ORIGIN).unwrap();
        assert_eq!(accepted.ttl, ttl);
        speaker.handle_connected(accepted.connection, from(1), *ORIGIN);
        let open = Open::new(said, 90, ADDRESSES[1], their_open(None).capabilities);
        for message in [Message::Open(open), Message::Keepalive] {
            let bytes = bytes_of(message, &SessionContext::default());
            speaker.handle_bytes(accepted.connection, &bytes, *ORIGIN);
        }
        let outputs: Vec<Output> = std::iter::from_fn(|| speaker.poll_output(*ORIGIN)).collect();
        let refusal = bytes_of(Notification::bad_peer_as(), &SessionContext::default());
        let refused =
            outputs.iter().any(|output| matches!(output, Output::Send { bytes, .. } if *bytes == refusal));
        assert_eq!(refused, state == State::Idle);
        assert_eq!(speaker.peers().peers[&"rack/10.1.0.1".into()].state, state);
    }
}

#[test]
fn a_configured_neighbour_comes_before_a_dynamic_one_and_the_longest_prefix_before_others() {
    let mut speaker = Speaker::new(SpeakerConfig::new(65000, ADDRESSES[0]), *ORIGIN).unwrap();
    let mut narrow = group("10.1.0.0/30", 5);
    narrow.template.name = "narrow".into();
    speaker.set_dynamic_peers(vec![group("10.1.0.0/16", 5), narrow], *ORIGIN).unwrap();
    assert_eq!(speaker.accept(from(1), *ORIGIN).unwrap().config.name.as_str(), "narrow/10.1.0.1");
    assert_eq!(speaker.accept(from(9), *ORIGIN).unwrap().config.name.as_str(), "rack/10.1.0.9");
    let configured = PeerConfig::new("own", from(9).remote.ip(), 65001);
    speaker.set_peers(vec![configured], *ORIGIN).unwrap();
    let names: Vec<_> = speaker.peers().peers.into_keys().collect();
    assert!(names.contains(&"own".into()) && !names.contains(&"rack/10.1.0.9".into()), "{names:?}");
    let twice = vec![group("10.1.0.0/16", 1), group("10.1.3.0/16", 1)];
    assert!(matches!(speaker.set_dynamic_peers(twice, *ORIGIN), Err(ConfigError::DuplicatePrefix { .. })));
}

fn announcing(scripted: &mut Scripted, connection: ConnectionId, prefixes: &[&str]) {
    let nlri = prefixes.iter().map(|text| nlri(text));
    let update = update(nlri);
    scripted.send(connection, update);
}

/// An UPDATE of a neighbour with these prefixes.
pub(super) fn update(nlri: impl Iterator<Item = Nlri>) -> Update {
    Update {
        announced: NlriList::new(Family::IPV4_UNICAST, false, nlri).unwrap(),
        attributes: Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence([ASNS[1]])),
            next_hop: Some(ADDRESSES[1]),
            ..Attributes::default()
        },
        ..Update::empty()
    }
}

#[test]
fn a_prefix_limit_warns_then_ends_the_session_for_as_long_as_it_says() {
    let mut scripted = Scripted::new(|peer| {
        peer.prefix_limit.max_prefixes = 4;
        peer.prefix_limit.restart_after = Some(Duration::from_secs(300));
    });
    let connection = scripted.establish(their_open(None));
    announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
    let limits = |scripted: &Scripted| -> Vec<(u64, bool)> {
        let told = |event: &Event| match event {
            Event::PrefixLimit { received, exceeded, limit: 4, .. } => Some((*received, *exceeded)),
            _ => None,
        };
        scripted.events.iter().filter_map(told).collect()
    };
    assert_eq!(limits(&scripted), []);
    announcing(&mut scripted, connection, &["203.0.113.3/32"]);
    announcing(&mut scripted, connection, &["203.0.113.4/32"]);
    assert_eq!(limits(&scripted), [(3, false)], "once");
    assert_eq!(scripted.status().state, State::Established);
    announcing(&mut scripted, connection, &["203.0.113.5/32", "203.0.113.6/32"]);
    assert_eq!(limits(&scripted), [(3, false), (6, true)]);
    assert_eq!(last_notification(&scripted), Some(Notification::maximum_prefixes(Family::IPV4_UNICAST, 4)));
    scripted.advance(Duration::from_secs(299));
    assert!(matches!(scripted.try_connect(), Err(Refusal::Idle { .. })));
    scripted.advance(Duration::from_secs(2));
    scripted.establish(their_open(None));
}

#[test]
fn a_lower_prefix_limit_holds_at_once() {
    let mut scripted = Scripted::new(|_| {});
    let connection = scripted.establish(their_open(None));
    announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.prefix_limit.max_prefixes = 1;
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::maximum_prefixes(Family::IPV4_UNICAST, 1)));
    assert_eq!(scripted.status().counters.dropped, 1);
}

#[test]
fn a_limit_that_only_warned_ends_the_session_once_it_is_to() {
    let mut scripted = Scripted::new(|peer| {
        peer.prefix_limit.max_prefixes = 1;
        peer.prefix_limit.action = LimitAction::Warn;
    });
    let connection = scripted.establish(their_open(None));
    announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
    assert_eq!(scripted.status().state, State::Established);
    scripted.events.clear();
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.prefix_limit.action = LimitAction::Cease;
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::maximum_prefixes(Family::IPV4_UNICAST, 1)));
    assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Idle, 1));
    let told = scripted.events.iter().filter(|event| matches!(event, Event::PrefixLimit { .. }));
    assert_eq!(told.count(), 0, "it was told before");
}

#[test]
fn a_prefix_limit_that_only_warns_says_so_once_each_time() {
    let mut scripted = Scripted::new(|peer| {
        peer.prefix_limit.max_prefixes = 1;
        peer.prefix_limit.action = LimitAction::Warn;
    });
    let connection = scripted.establish(their_open(None));
    let family = |scripted: &Scripted| scripted.status().session.unwrap().families[0];
    for _ in 0..2 {
        scripted.events.clear();
        announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
        announcing(&mut scripted, connection, &["203.0.113.3/32"]);
        let told =
            scripted.events.iter().filter(|event| matches!(event, Event::PrefixLimit { exceeded: true, .. }));
        assert_eq!(told.count(), 1);
        assert!(family(&scripted).over_limit && family(&scripted).received == 3);
        let all = ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"].iter();
        let gone = NlriList::new(Family::IPV4_UNICAST, false, all.map(|text| nlri(text)));
        scripted.send(connection, Update { withdrawn: gone.unwrap(), ..Update::empty() });
        assert!(!family(&scripted).over_limit);
    }
    assert_eq!(scripted.status().state, State::Established);
}

#[test]
fn kept_routes_are_shown_compared_and_never_passed_on() {
    let mut scripted = Scripted::new(|peer| peer.received_routes = ReceivedRoutes::Keep);
    let connection = scripted.establish(their_open(None));
    scripted.speaker.watch_best_paths(true, scripted.now);
    scripted.speaker.set_routes("test", [route("198.51.100.1/32")], scripted.now);
    scripted.settle();
    scripted.sent.clear();
    announcing(&mut scripted, connection, &["203.0.113.1/32", "198.51.100.1/32"]);
    assert!(scripted.sent.is_empty(), "not passed on: {:?}", scripted.sent);
    let received = scripted.speaker.adj_in(&other(), Family::IPV4_UNICAST).unwrap();
    let prefixes: Vec<String> = received.iter().map(|route| route.prefix.to_string()).collect();
    assert_eq!(prefixes, ["198.51.100.1/32", "203.0.113.1/32"]);
    assert!(Arc::ptr_eq(&received[0].attributes, &received[1].attributes), "kept once");
    assert_eq!(scripted.speaker.adj_in(&"nobody".into(), Family::IPV4_UNICAST), None);
    let sent = scripted.speaker.adj_out(&other(), Family::IPV4_UNICAST).unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].attributes.next_hop.address(), IpAddr::from(ADDRESSES[0]));
    assert_eq!(sent[0].attributes.attributes.as_path, Some(AsPath::sequence([ASNS[0]])));
    let rib = scripted.speaker.rib(Family::IPV4_UNICAST);
    let ours = &rib[0].paths;
    assert!(matches!(&ours[0].owner, RouteOwner::Local { source } if source == "test"));
    assert_eq!((ours[0].step, ours[1].step), (BestPathStep::LocalOrigin, BestPathStep::LocalOrigin));
    assert!(matches!(&ours[1].owner, RouteOwner::Peer { asn, .. } if *asn == ASNS[1]));
    assert_eq!((rib[1].paths.len(), rib[1].paths[0].step), (1, BestPathStep::OnlyRoute));
    let best = |scripted: &Scripted| -> Vec<(String, bool)> {
        let told = |event: &Event| match event {
            Event::BestPath { prefix, path } => Some((prefix.to_string(), path.is_some())),
            _ => None,
        };
        scripted.events.iter().filter_map(told).collect()
    };
    let (own, theirs) = ("198.51.100.1/32".to_owned(), "203.0.113.1/32".to_owned());
    assert_eq!(best(&scripted), [(own.clone(), true), (theirs, true)], "ours did not change");
    // Ours goes, and theirs is the best; then the session goes.
    scripted.events.clear();
    scripted.speaker.set_routes("test", [], scripted.now);
    scripted.settle();
    assert_eq!(best(&scripted), [(own, true)]);
    scripted.events.clear();
    drop((rib, received));
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    scripted.events.retain(|event| !matches!(event, Event::BestPath { path: Some(_), .. }));
    let gone = best(&scripted);
    assert!(gone.len() == 2 && gone.iter().all(|(_, there)| !there), "{gone:?}");
    assert_eq!(scripted.speaker.rib(Family::IPV4_UNICAST), []);
    assert_eq!(scripted.speaker.table_stats().received_attribute_sets, 0);
}

#[test]
fn counting_becomes_keeping_and_back_without_losing_the_session() {
    let mut scripted = Scripted::new(|_| {});
    let connection = scripted.establish(their_open(None));
    announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
    let set = |scripted: &mut Scripted, received| {
        let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
        config.received_routes = received;
        scripted.sent.clear();
        scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
        scripted.settle();
    };
    set(&mut scripted, ReceivedRoutes::Keep);
    let asked = scripted.sent.iter().filter(|(_, message)| matches!(message, Message::RouteRefresh(_)));
    assert_eq!(asked.count(), 2, "both families are asked for again");
    announcing(&mut scripted, connection, &["203.0.113.1/32", "203.0.113.2/32"]);
    assert_eq!(scripted.speaker.adj_in(&other(), Family::IPV4_UNICAST).unwrap().len(), 2);
    // Who watches is told that they are known no more.
    scripted.speaker.watch_best_paths(true, scripted.now);
    scripted.speaker.watch_received(true);
    scripted.events.clear();
    set(&mut scripted, ReceivedRoutes::Count);
    let gone =
        |of: fn(&Event) -> Option<IpNet>| scripted.events.iter().filter_map(of).collect::<BTreeSet<_>>();
    let best = gone(|event| match event {
        Event::BestPath { prefix, path: None } => Some(*prefix),
        _ => None,
    });
    let received = gone(|event| match event {
        Event::Received { prefix, route: None, .. } => Some(*prefix),
        _ => None,
    });
    let both = ["203.0.113.1/32", "203.0.113.2/32"].map(|text| text.parse().unwrap()).into();
    assert_eq!((&best, &received), (&both, &both));
    assert!(scripted.sent.is_empty());
    assert_eq!(scripted.speaker.adj_in(&other(), Family::IPV4_UNICAST).unwrap().len(), 0);
    assert_eq!(scripted.status().session.unwrap().families[0].received, 2);
    assert_eq!(scripted.status().counters.dropped, 0);
}
