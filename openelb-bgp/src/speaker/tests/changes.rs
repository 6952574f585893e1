//! What each kind of change costs: sessions and UPDATEs.

use super::{
    challenge::{Scripted, bytes_of, their_open},
    operations::update,
    *,
};
use crate::{
    speaker::{BfdConfig, Event, PeerName, PeerScope, ReceivedRoutes, RouteStatus},
    wire::{RouteRefresh, RouteRefreshKind, SessionContext},
};

/// Sessions lost, and UPDATEs sent if none was.
#[derive(Debug, PartialEq, Eq)]
enum Cost {
    Nothing,
    Updates(u64),
    Session,
}

/// Two IPv4 and two IPv6 prefixes, announced.
fn announcing(change: impl Fn(&mut PeerConfig)) -> Pair {
    let mut pair = Pair::with(change);
    let mut config = pair.speakers[0].config().clone();
    config.next_hop_ipv6 = Some("2001:db8::1".parse().unwrap());
    pair.speakers[0].set_config(config, pair.now).unwrap();
    pair.speakers[0].set_routes("test", routes(), pair.now);
    pair.establish();
    pair.settle();
    assert_eq!(pair.received().len(), 4);
    pair
}

fn routes() -> Vec<Route> {
    ["198.51.100.1/32", "198.51.100.2/32", "2001:db8:1::1/128", "2001:db8:1::2/128"].map(route).to_vec()
}

fn cost(pair: &mut Pair, change: impl FnOnce(&mut Speaker, Instant)) -> Cost {
    let dropped = pair.status(1).counters.dropped;
    let sent = pair.status(0).counters.sent.update;
    let now = pair.now;
    change(&mut pair.speakers[0], now);
    pair.settle();
    match (pair.status(1).counters.dropped - dropped, pair.status(0).counters.sent.update.wrapping_sub(sent))
    {
        (0, 0) => Cost::Nothing,
        (0, updates) => Cost::Updates(updates),
        (1, _) => Cost::Session,
        more => panic!("{more:?}"),
    }
}

#[test]
fn a_change_of_the_configuration_costs_what_the_protocol_forces() {
    type Change = fn(&mut SpeakerConfig);
    let table: [(&str, Change, Cost); 9] = [
        ("nothing", |_| {}, Cost::Nothing),
        ("listen", |config| config.listen = vec![(ADDRESSES[0], 1790).into()], Cost::Nothing),
        ("seed", |config| config.seed = 7, Cost::Nothing),
        ("sources", |config| config.sources = ["later".to_owned()].into(), Cost::Nothing),
        // Not used on a session over IPv4.
        ("next_hop_ipv4", |config| config.next_hop_ipv4 = Some(Ipv4Addr::new(192, 0, 2, 7)), Cost::Nothing),
        // Both IPv6 prefixes in one message.
        ("next_hop_ipv6", |config| config.next_hop_ipv6 = "2001:db8::7".parse().ok(), Cost::Updates(1)),
        ("no next_hop_ipv6", |config| config.next_hop_ipv6 = None, Cost::Updates(1)),
        ("router_id", |config| config.router_id = Ipv4Addr::new(192, 0, 2, 9), Cost::Session),
        ("asn", |config| config.asn = 65009, Cost::Session),
    ];
    for (name, change, expected) in table {
        let mut pair = announcing(|_| {});
        let mut config = pair.speakers[0].config().clone();
        change(&mut config);
        let found = cost(&mut pair, |speaker, now| speaker.set_config(config, now).unwrap());
        assert_eq!(found, expected, "{name}");
    }
    // Each end's own number, as the other one expects it.
    let mut pair = announcing(|peer| peer.local_asn = Some(ASNS[0] + ASNS[1] - peer.asn));
    let config = SpeakerConfig { asn: 65009, ..pair.speakers[0].config().clone() };
    let found = cost(&mut pair, |speaker, now| speaker.set_config(config, now).unwrap());
    assert_eq!(found, Cost::Nothing, "asn, where the neighbour sees another one");
}

#[test]
fn a_change_of_the_neighbours_costs_only_those_whose_session_differs() {
    type Change = fn(&mut PeerConfig);
    let table: [(&str, Change, Cost); 13] = [
        ("nothing", |_| {}, Cost::Nothing),
        ("max_prefixes", |peer| peer.prefix_limit.max_prefixes = 5, Cost::Nothing),
        ("connect_retry", |peer| peer.connect_retry = Duration::from_secs(9), Cost::Nothing),
        ("connect_retry_max", |peer| peer.connect_retry_max = Duration::from_secs(90), Cost::Nothing),
        ("connect_timeout", |peer| peer.connect_timeout = Duration::from_secs(9), Cost::Nothing),
        ("bfd", |peer| peer.bfd = Some(BfdConfig::default()), Cost::Nothing),
        ("hold_time", |peer| peer.hold_time = Duration::from_secs(90), Cost::Session),
        ("families", |peer| peer.families.truncate(1), Cost::Session),
        ("asn", |peer| peer.asn = 65008, Cost::Session),
        ("local_asn", |peer| peer.local_asn = Some(65008), Cost::Session),
        ("address", |peer| peer.address = "192.0.2.77".parse().unwrap(), Cost::Session),
        ("admin_down", |peer| peer.admin_down = true, Cost::Session),
        ("extended_messages", |peer| peer.extended_messages = false, Cost::Session),
    ];
    for (name, change, expected) in table {
        let mut pair = announcing(|_| {});
        let peers = vec![Pair::peer(0, &change)];
        assert_eq!(
            cost(&mut pair, |speaker, now| speaker.set_peers(peers, now).unwrap()),
            expected,
            "{name}"
        );
    }
    let mut pair = announcing(|_| {});
    let mut third = PeerConfig::new("third", "192.0.2.3".parse().unwrap(), 65003);
    third.passive = true;
    let same = Pair::peer(0, &|_| {});
    let mut other = third.clone();
    other.asn = 65004;
    for (name, peers) in [
        ("another comes", vec![same.clone(), third]),
        ("another changes", vec![other, same.clone()]),
        ("another goes", vec![same]),
    ] {
        let found = cost(&mut pair, |speaker, now| speaker.set_peers(peers, now).unwrap());
        assert_eq!(found, Cost::Nothing, "{name}");
    }
    let none = cost(&mut pair, |speaker, now| drop(speaker.reset(&"third".into(), "", now)));
    assert_eq!(none, Cost::Nothing, "reset of one that is not there");
    let own = cost(&mut pair, |speaker, now| speaker.reset(&"other".into(), "", now).unwrap());
    assert_eq!(own, Cost::Session, "reset");
}

#[test]
fn a_change_of_the_routes_costs_one_update_for_what_differs() {
    let med = |med| Arc::new(RouteAttributes { med, ..RouteAttributes::default() });
    let with = |change: &dyn Fn(&mut Vec<Route>)| {
        let mut all = routes();
        change(&mut all);
        all
    };
    let stranger = PeerScope::Only(Arc::new(["stranger".into()].into()));
    let wider = PeerScope::Only(Arc::new(["other".into(), "stranger".into()].into()));
    let table: [(&str, &str, Vec<Route>, Cost); 11] = [
        ("a wider or narrower scope", "test", with(&|all| all[0].scope = wider.clone()), Cost::Nothing),
        ("the same", "test", routes(), Cost::Nothing),
        ("the same, sorted otherwise", "test", with(&|all| all.reverse()), Cost::Nothing),
        ("equal attributes", "test", with(&|all| all[0].attributes = med(None)), Cost::Nothing),
        ("from a source that sorts later", "zz", routes(), Cost::Nothing),
        ("from a source that sorts first", "aa", routes(), Cost::Nothing),
        ("one more", "test", with(&|all| all.push(route("198.51.100.3/32"))), Cost::Updates(1)),
        ("one less", "test", with(&|all| drop(all.remove(0))), Cost::Updates(1)),
        ("another MED", "test", with(&|all| all[0].attributes = med(Some(5))), Cost::Updates(1)),
        ("out of scope", "test", with(&|all| all[0].scope = stranger.clone()), Cost::Updates(1)),
        ("another path_id of an equal route", "test", with(&|all| all[0].path_id = 9), Cost::Nothing),
    ];
    for (name, source, wanted, expected) in table {
        let mut pair = announcing(|_| {});
        assert_eq!(
            cost(&mut pair, |speaker, now| speaker.set_routes(source, wanted, now)),
            expected,
            "{name}"
        );
        assert_eq!(
            pair.speakers[0].table_stats().prefixes,
            pair.received().len() + usize::from(name == "out of scope")
        );
    }
}

fn ask(pair: &mut Pair, family: Family, kind: RouteRefreshKind) {
    let mut bytes = bytes::BytesMut::new();
    Message::RouteRefresh(RouteRefresh { family, kind })
        .encode(&SessionContext::default(), &mut bytes)
        .unwrap();
    let to = pair.pipes.iter().find(|pipe| pipe.to.0 == 0).expect("a connection").to.1;
    pair.speakers[0].handle_bytes(to, &bytes, pair.now);
}

fn announced(updates: &[Update]) -> usize {
    updates.iter().flat_map(|update| update.announcements()).map(|(_, list)| list.iter().count()).sum()
}

#[test]
fn a_route_refresh_is_answered_with_all_routes_of_the_family_between_markers() {
    let mut pair = announcing(|_| {});
    let before = pair.updates.len();
    ask(&mut pair, Family::IPV6_UNICAST, RouteRefreshKind::Request);
    pair.settle();
    let mark = |kind| RouteRefresh { family: Family::IPV6_UNICAST, kind };
    let end = pair.updates.len();
    let markers = [(before, mark(RouteRefreshKind::Begin)), (end, mark(RouteRefreshKind::End))];
    assert_eq!(pair.refreshes, markers, "RFC 7313 section 4");
    let answer = pair.updates().split_off(before);
    assert_eq!((answer.len(), announced(&answer)), (1, 2), "both prefixes in one message");
    assert_eq!(end_of_ribs(&answer), [], "End-of-RIB is sent once");
    assert_eq!(pair.status(0).counters.sent.route_refresh, 2);
    // The neighbour's own markers, and what is unknown, ask for nothing.
    for kind in [RouteRefreshKind::Begin, RouteRefreshKind::End, RouteRefreshKind::Unknown(9)] {
        ask(&mut pair, Family::IPV6_UNICAST, kind);
    }
    ask(&mut pair, Family { afi: 25, safi: 70 }, RouteRefreshKind::Request);
    pair.settle();
    assert_eq!((pair.updates.len(), pair.refreshes.len()), (end, 2));
}

#[test]
fn refreshes_asked_for_at_once_are_answered_by_two_at_most() {
    let mut pair = announcing(|_| {});
    for _ in 0..1_000 {
        ask(&mut pair, Family::IPV4_UNICAST, RouteRefreshKind::Request);
    }
    pair.settle();
    let kinds: Vec<RouteRefreshKind> = pair.refreshes.iter().map(|(_, refresh)| refresh.kind).collect();
    use RouteRefreshKind::{Begin, End};
    assert_eq!(kinds, [Begin, End, Begin, End], "the routes may have been on their way when it asked again");
}

#[test]
fn no_marker_comes_before_end_of_rib() {
    let mut pair = Pair::new();
    let config = SpeakerConfig { sources: ["b".to_owned()].into(), ..pair.speakers[0].config().clone() };
    pair.speakers[0].set_config(config, pair.now).unwrap();
    pair.speakers[0].set_routes("a", [route("198.51.100.1/32")], pair.now);
    pair.establish();
    pair.settle();
    let before = pair.updates.len();
    ask(&mut pair, Family::IPV4_UNICAST, RouteRefreshKind::Request);
    pair.settle();
    assert_eq!(announced(&pair.updates().split_off(before)), 1, "it is answered");
    assert_eq!(pair.refreshes, [], "RFC 7313 section 4: BoRR must not precede End-of-RIB");
    pair.speakers[0].set_routes("b", [], pair.now);
    pair.settle();
    assert_eq!(end_of_ribs(&pair.updates()).len(), 2);
    ask(&mut pair, Family::IPV4_UNICAST, RouteRefreshKind::Request);
    pair.settle();
    assert_eq!(pair.refreshes.len(), 2);
}

/// Who asks for all routes whenever some of them come.
#[test]
fn refreshes_while_the_first_of_all_routes_are_sent_do_not_begin_them_again() {
    use RouteRefreshKind::{Begin, End};
    const ROUTES: u32 = 150_000;
    for complete in [true, false] {
        let mut pair = Pair::with(|peer| peer.families = vec![FamilyConfig::new(Family::IPV4_UNICAST)]);
        let source = if complete { "a" } else { "b" };
        let config =
            SpeakerConfig { sources: [source.to_owned()].into(), ..pair.speakers[0].config().clone() };
        pair.speakers[0].set_config(config, pair.now).unwrap();
        pair.establish();
        let routes = (0..ROUTES).map(|index| {
            Route::new(ipnet::Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 + index), 32).unwrap())
        });
        pair.speakers[0].set_routes("a", routes, pair.now);
        // Each piece that brings something new is answered by a request, but for the last one.
        let (mut seen, mut asked) = (0, 0);
        for _ in 0..1000 {
            while let Some(output) = pair.speakers[0].poll_output(pair.now) {
                pair.carry_out(0, output);
            }
            let pipe = pair.pipes.iter_mut().find(|pipe| pipe.from.0 == 0).unwrap();
            let Some(bytes) = pipe.bytes.pop_front() else { break };
            let (from, to) = (pipe.from, pipe.to);
            pair.record(&bytes);
            pair.speakers[from.0].handle_written(from.1, bytes.len(), pair.now);
            pair.speakers[to.0].handle_bytes(to.1, &bytes, pair.now);
            while pair.speakers[1].poll_output(pair.now).is_some() {}
            let received = pair.families(1)[0].1;
            if std::mem::replace(&mut seen, received) < received && seen < u64::from(ROUTES) {
                ask(&mut pair, Family::IPV4_UNICAST, RouteRefreshKind::Request);
                asked += 1;
            }
        }
        assert!(asked >= 4, "{asked}");
        assert_eq!(seen, u64::from(ROUTES), "all have come");
        let sent = announced(&pair.updates());
        assert_eq!(sent, 2 * ROUTES as usize, "once, and once more for all that it has asked");
        let kinds: Vec<RouteRefreshKind> = pair.refreshes.iter().map(|(_, refresh)| refresh.kind).collect();
        let markers = end_of_ribs(&pair.updates()).len();
        // RFC 7313 §4: what is sent again after End-of-RIB is between markers.
        assert_eq!((markers, &kinds[..]), if complete { (1, &[Begin, End][..]) } else { (0, &[][..]) });
    }
}

/// All are still to come, so that there is nothing to send again.
#[test]
fn a_refresh_before_the_first_route_was_sent_is_answered_by_the_first_of_all_routes() {
    let mut scripted = Scripted::new(|_| {});
    scripted.speaker.set_routes("test", routes(), scripted.now);
    let connection = scripted.connect();
    scripted.send(connection, their_open(None));
    let request = RouteRefresh { family: Family::IPV4_UNICAST, kind: RouteRefreshKind::Request };
    let context = SessionContext::default();
    scripted.send_raw(
        connection,
        &[bytes_of(Message::Keepalive, &context), bytes_of(request, &context)].concat(),
    );
    let messages = scripted.messages_on(connection);
    let update = |message: &Message| match message {
        Message::Update(update) => Some(update.clone()),
        _ => None,
    };
    assert_eq!(announced(&messages.iter().filter_map(update).collect::<Vec<_>>()), 2);
    assert!(!messages.iter().any(|message| matches!(message, Message::RouteRefresh(_))));
}

#[test]
fn a_withdrawal_in_a_refresh_is_not_lost() {
    let mut pair = announcing(|_| {});
    ask(&mut pair, Family::IPV4_UNICAST, RouteRefreshKind::Request);
    pair.speakers[0].set_routes("test", [route("198.51.100.2/32")], pair.now);
    pair.settle();
    assert_eq!(pair.received().into_keys().collect::<Vec<_>>(), [("198.51.100.2/32".parse().unwrap(), 0)]);
    assert_eq!(pair.speakers[0].table_stats().prefixes, 1);
}

fn states(pair: &Pair, prefix: &str) -> Vec<(u32, Advertisement)> {
    let status = pair.speakers[0].route_status(prefix.parse().unwrap());
    status.iter().map(|RouteStatus { path_id, peers, .. }| (*path_id, peers[0].1)).collect()
}

#[test]
fn the_status_of_a_route_says_what_the_neighbour_has() {
    use Advertisement::{Advertised, NotBest, OutOfScope, Pending, Withdrawing};
    const PREFIX: &str = "198.51.100.1/32";
    let single = |peer: &mut PeerConfig| peer.families = vec![FamilyConfig::new(Family::IPV4_UNICAST)];
    let many = |peer: &mut PeerConfig| {
        peer.families = vec![FamilyConfig {
            add_path_receive: true,
            ..FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 2)
        }];
    };
    let stranger = PeerScope::Only(Arc::new(["stranger".into()].into()));
    for add_path in [false, true] {
        let mut pair = if add_path { Pair::with(many) } else { Pair::with(single) };
        pair.establish();
        let [first, second] = [1, 2].map(|hop| path(1, hop.into(), hop));
        let set = |pair: &mut Pair, routes: &[&Route], before: &[_], after: &[_]| {
            pair.speakers[0].set_routes("test", routes.iter().map(|route| (*route).clone()), pair.now);
            assert_eq!(states(pair, PREFIX), before, "before it is sent; add-path: {add_path}");
            pair.settle();
            assert_eq!(states(pair, PREFIX), after, "add-path: {add_path}");
        };
        set(&mut pair, &[&first], &[(1, Pending)], &[(1, Advertised)]);
        let hidden = Route { scope: stranger.clone(), ..first.clone() };
        set(&mut pair, &[&hidden], &[(1, Withdrawing)], &[(1, OutOfScope)]);
        set(&mut pair, &[&first], &[(1, Pending)], &[(1, Advertised)]);
        if add_path {
            set(
                &mut pair,
                &[&first, &second],
                &[(1, Advertised), (2, Pending)],
                &[(1, Advertised), (2, Advertised)],
            );
            set(&mut pair, &[&first], &[(1, Advertised), (2, Withdrawing)], &[(1, Advertised)]);
            set(&mut pair, &[], &[(1, Withdrawing)], &[]);
        } else {
            set(
                &mut pair,
                &[&first, &second],
                &[(1, Advertised), (2, NotBest)],
                &[(1, Advertised), (2, NotBest)],
            );
            set(
                &mut pair,
                &[&hidden, &second],
                &[(1, OutOfScope), (2, Pending)],
                &[(1, OutOfScope), (2, Advertised)],
            );
            set(&mut pair, &[], &[(0, Withdrawing)], &[]);
        }
        assert_eq!(pair.speakers[0].table_stats().routes, 0);
    }
}

#[test]
fn the_next_path_moves_up_when_the_best_of_too_many_goes() {
    let mut pair = Pair::with(|peer| {
        peer.families = vec![FamilyConfig {
            add_path_receive: true,
            ..FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 2)
        }];
    });
    pair.speakers[0].set_routes("test", (1..=3).map(|hop| path(1, hop.into(), hop)), pair.now);
    pair.establish();
    pair.settle();
    let ids = |pair: &Pair| pair.received().into_keys().map(|key| key.1).collect::<Vec<_>>();
    assert_eq!(ids(&pair), [1, 2], "the best two");
    assert_eq!(states(&pair, "198.51.100.1/32")[2], (3, Advertisement::NotBest));
    let delta = Delta { add: vec![], remove: vec![key(1, 1)] };
    assert_eq!(cost(&mut pair, |speaker, now| speaker.apply("test", delta, now)), Cost::Updates(2));
    assert_eq!(ids(&pair), [2, 3]);
}

#[test]
fn who_watches_is_told_the_end_of_a_neighbour_that_is_removed_or_configured_anew() {
    for removed in [true, false] {
        let mut scripted = Scripted::new(|peer| peer.received_routes = ReceivedRoutes::Keep);
        scripted.speaker.watch_received(true);
        let connection = scripted.establish(their_open(None));
        scripted.send(connection, update(["203.0.113.1/32", "203.0.113.2/32"].map(nlri).into_iter()));
        scripted.events.clear();
        let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
        config.hold_time = Duration::from_secs(33);
        let peers = if removed { vec![] } else { vec![config] };
        scripted.speaker.set_peers(peers, scripted.now).unwrap();
        scripted.settle();
        let peer = || PeerName::from("other");
        let gone = |text: &str| Event::Received {
            peer: peer(),
            prefix: text.parse().unwrap(),
            path_id: 0,
            route: None,
        };
        let state = |state| Event::State { peer: peer(), state };
        let mut withdrawn: Vec<Event> = scripted.events.drain(..2).collect();
        withdrawn.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(withdrawn, [gone("203.0.113.1/32"), gone("203.0.113.2/32")]);
        let mut expected = vec![state(State::Idle), Event::PeerRemoved { peer: peer() }];
        expected.extend((!removed).then(|| state(State::Active)));
        assert_eq!(scripted.events, expected);
    }
    // Of one that was down already there is nothing to tell.
    let mut scripted = Scripted::new(|peer| peer.admin_down = true);
    scripted.speaker.set_peers(vec![], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(scripted.events, [Event::PeerRemoved { peer: "other".into() }]);
}
