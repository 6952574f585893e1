//! Graceful restart (RFC 4724, RFC 8538): of this speaker, and of its neighbour.

use super::{
    challenge::{Scripted, graceful, restart_capability, their_open},
    operations::{last_notification, update},
    *,
};
use crate::{
    speaker::{GracefulRestartConfig, ReceivedRoutes},
    wire::{self, Capability, GracefulRestart, MpReach, NlriList, Notification, Open, RouteRefreshKind},
};

fn offered(scripted: &Scripted, connection: ConnectionId) -> GracefulRestart {
    let Message::Open(open) = &scripted.messages_on(connection)[0] else { panic!("no OPEN") };
    open.graceful_restart().unwrap().clone()
}

fn markers(scripted: &Scripted, connection: ConnectionId) -> Vec<Family> {
    let marker = |message: Message| match message {
        Message::Update(update) => update.end_of_rib_family(),
        _ => None,
    };
    scripted.messages_on(connection).into_iter().filter_map(marker).collect()
}

#[test]
fn the_r_bit_is_told_until_end_of_rib_was_sent_once() {
    let mut scripted = Scripted::new(graceful);
    let open = their_open(Some(restart_capability(true, false)));
    let first = scripted.establish(open.clone());
    let offer = offered(&scripted, first);
    assert!(offer.restarted && !offer.families[0].forwarding && offer.time == 60);
    assert_eq!(markers(&scripted, first), [], "no routes have come yet");
    // The session ends before End-of-RIB: we have still restarted.
    scripted.speaker.handle_closed(first, scripted.now);
    scripted.settle();
    let second = scripted.establish(open.clone());
    assert!(offered(&scripted, second).restarted);
    scripted.speaker.set_routes("test", [route("198.51.100.1/32")], scripted.now);
    scripted.settle();
    assert_eq!(markers(&scripted, second).len(), 2);
    assert_eq!(scripted.status().counters.dropped, 1, "it is cleared without a reset");
    // From now on a lost session says nothing about forwarding, which goes on.
    scripted.speaker.handle_closed(second, scripted.now);
    scripted.settle();
    let third = scripted.establish(open);
    let offer = offered(&scripted, third);
    assert!(!offer.restarted && offer.families.iter().all(|row| row.forwarding));
}

#[test]
fn who_did_not_restart_has_kept_forwarding_also_when_its_session_is_lost() {
    let mut scripted = Scripted::new(|peer| {
        graceful(peer);
        peer.graceful_restart.as_mut().unwrap().restarting = false;
    });
    let open = their_open(Some(restart_capability(true, false)));
    for _ in 0..2 {
        let connection = scripted.establish(open.clone());
        let offer = offered(&scripted, connection);
        assert!(!offer.restarted && offer.families.iter().all(|row| row.forwarding), "{offer:?}");
        scripted.speaker.handle_closed(connection, scripted.now);
        scripted.settle();
    }
}

#[test]
fn a_restart_is_told_once_also_to_a_neighbour_that_is_configured_anew() {
    let mut scripted = Scripted::new(graceful);
    let open = their_open(Some(restart_capability(true, false)));
    scripted.speaker.set_routes("test", [route("198.51.100.1/32")], scripted.now);
    let first = scripted.establish(open.clone());
    assert!(offered(&scripted, first).restarted);
    // Another hold time needs another session.
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.hold_time = Duration::from_secs(60);
    scripted.speaker.set_peers(vec![config.clone()], scripted.now).unwrap();
    scripted.settle();
    let second = scripted.establish(open.clone());
    let offer = offered(&scripted, second);
    assert!(!offer.restarted && offer.families.iter().all(|row| row.forwarding));
    // Who is new when the restart time is over has nothing of ours to keep.
    scripted.advance(Duration::from_secs(61));
    scripted.speaker.set_peers(vec![], scripted.now).unwrap();
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    let third = scripted.establish(open);
    assert!(!offered(&scripted, third).restarted);
}

#[test]
fn the_bits_can_be_said_anew_without_touching_the_session() {
    let mut scripted = Scripted::new(graceful);
    scripted.establish(their_open(Some(restart_capability(true, false))));
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.graceful_restart.as_mut().unwrap().restarting = false;
    config.graceful_restart.as_mut().unwrap().forwarding_preserved = true;
    scripted.speaker.set_peers(vec![config.clone()], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(scripted.status().counters.dropped, 0);
    // The restart time is part of what both ends agreed on.
    config.graceful_restart.as_mut().unwrap().restart_time = Duration::from_secs(30);
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(scripted.status().counters.dropped, 1);
}

#[test]
fn end_of_rib_waits_for_the_routes_or_for_ten_seconds_less_than_the_restart_time() {
    let open = || their_open(Some(restart_capability(true, false)));
    let mut scripted = Scripted::new(graceful);
    let connection = scripted.establish(open());
    scripted.advance(Duration::from_secs(49));
    assert_eq!(markers(&scripted, connection), []);
    scripted.advance(Duration::from_secs(1));
    assert_eq!(markers(&scripted, connection).len(), 2, "50 s after the start");
    // Of a short restart time it is half.
    for (restart_time, waits) in [(12, 6), (20, 10), (21, 11), (30, 20)] {
        let mut scripted = Scripted::new(|peer| {
            graceful(peer);
            peer.graceful_restart.as_mut().unwrap().restart_time = Duration::from_secs(restart_time);
        });
        let connection = scripted.establish(open());
        scripted.advance(Duration::from_millis(1000 * waits - 1));
        assert_eq!(markers(&scripted, connection), [], "{restart_time} s");
        scripted.advance(Duration::from_millis(1));
        assert_eq!(markers(&scripted, connection).len(), 2, "{restart_time} s");
    }
    // A time that is set holds for all sessions, and a session that is late waits no longer.
    let mut scripted = Scripted::new(|_| {});
    let config = SpeakerConfig {
        end_of_rib_within: Some(Duration::from_secs(5)),
        ..scripted.speaker.config().clone()
    };
    scripted.speaker.set_config(config, scripted.now).unwrap();
    let connection = scripted.establish(open());
    scripted.advance(Duration::from_secs(4));
    assert_eq!(markers(&scripted, connection), []);
    scripted.advance(Duration::from_secs(1));
    assert_eq!(markers(&scripted, connection).len(), 2);
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    let late = scripted.establish(open());
    assert_eq!(markers(&scripted, late).len(), 2);
    // Without graceful restart nothing is lost by waiting.
    let mut scripted = Scripted::new(|_| {});
    let connection = scripted.establish(open());
    scripted.advance(Duration::from_secs(80));
    assert_eq!(markers(&scripted, connection), []);
}

/// A neighbour whose two routes are kept.
fn keeping(change: impl FnOnce(&mut PeerConfig)) -> (Scripted, ConnectionId) {
    let mut scripted = Scripted::new(|peer| {
        graceful(peer);
        peer.received_routes = ReceivedRoutes::Keep;
        change(peer);
    });
    let connection = scripted.establish(their_open(Some(restart_capability(true, true))));
    scripted.send(connection, update(["203.0.113.1/32", "203.0.113.2/32"].map(nlri).into_iter()));
    assert_eq!(routes(&scripted), (2, 0));
    (scripted, connection)
}

/// How many there are, and how many of them are stale.
fn routes(scripted: &Scripted) -> (usize, usize) {
    let all = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    (all.len(), all.iter().filter(|route| route.stale).count())
}

fn mark(kind: RouteRefreshKind) -> RouteRefresh {
    RouteRefresh { family: Family::IPV4_UNICAST, kind }
}

#[test]
fn a_neighbours_routes_stay_while_it_restarts_and_go_when_it_does_not_send_them_again() {
    let (mut scripted, connection) = keeping(|_| {});
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    assert_eq!(routes(&scripted), (2, 2));
    scripted.advance(Duration::from_secs(59));
    assert_eq!(routes(&scripted), (2, 2));
    let back = scripted.establish(their_open(Some(restart_capability(true, true))));
    scripted.send(back, update([nlri("203.0.113.2/32")].into_iter()));
    assert_eq!(routes(&scripted), (2, 1));
    scripted.send(back, Update::end_of_rib(Family::IPV6_UNICAST));
    assert_eq!(routes(&scripted), (2, 1), "of another family");
    scripted.send(back, Update::end_of_rib(Family::IPV4_UNICAST));
    assert_eq!(routes(&scripted), (1, 0));
}

#[test]
fn a_neighbours_routes_go_when_its_restart_time_is_over() {
    let (mut scripted, connection) = keeping(|_| {});
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    scripted.advance(Duration::from_secs(60));
    assert_eq!(routes(&scripted), (0, 0));
}

#[test]
fn a_neighbour_that_is_back_and_never_done_cannot_keep_stale_routes_for_ever() {
    let (mut scripted, connection) = keeping(|peer| peer.hold_time = Duration::ZERO);
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    scripted.establish(their_open(Some(restart_capability(true, true))));
    scripted.advance(Duration::from_secs(359));
    assert_eq!(routes(&scripted), (2, 2));
    scripted.advance(Duration::from_secs(1));
    assert_eq!(routes(&scripted), (0, 0));
}

#[test]
fn what_the_neighbour_has_not_kept_forwarding_for_goes_when_it_is_back() {
    type Change = fn() -> Open;
    let table: [(&str, Change, (usize, usize)); 3] = [
        ("F", || their_open(Some(restart_capability(true, true))), (2, 2)),
        ("no F", || their_open(Some(restart_capability(false, true))), (0, 0)),
        ("no capability", || their_open(None), (0, 0)),
    ];
    for (name, open, expected) in table {
        let (mut scripted, connection) = keeping(|_| {});
        scripted.speaker.handle_closed(connection, scripted.now);
        scripted.settle();
        scripted.establish(open());
        assert_eq!(routes(&scripted), expected, "{name}");
    }
}

/// Graceful restart of a family takes both ends, in either role.
#[test]
fn graceful_restart_is_for_the_families_that_both_ends_offer_it_for() {
    let both = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    // What we offer, what the neighbour offers, and how many of its routes of either family are kept.
    let table: [(&[Family], &[Family], [usize; 2]); 6] = [
        (&both, &both, [1, 1]),
        (&both[..1], &both, [1, 0]),
        (&both[1..], &both, [0, 1]),
        (&both, &both[..1], [1, 0]),
        (&both[..1], &both[1..], [0, 0]),
        (&[], &both, [0, 0]),
    ];
    for (ours, theirs, kept) in table {
        let mut scripted = Scripted::new(|peer| {
            graceful(peer);
            peer.received_routes = ReceivedRoutes::Keep;
            for offer in &mut peer.families {
                offer.graceful_restart = ours.contains(&offer.family);
            }
        });
        let capability = || {
            let mut capability = restart_capability(true, true);
            capability.families.retain(|row| theirs.contains(&row.family));
            Some(capability)
        };
        let connection = scripted.establish(their_open(capability()));
        let offered: Vec<Family> =
            offered(&scripted, connection).families.iter().map(|row| row.family).collect();
        assert_eq!(offered, ours);
        scripted.send(connection, update([nlri("203.0.113.1/32")].into_iter()));
        let ipv6 = NlriList::new(Family::IPV6_UNICAST, false, [nlri("2001:db8::1/128")]).unwrap();
        let next_hop = wire::NextHop::V6("2001:db8::ffff".parse().unwrap());
        scripted.send(
            connection,
            Update {
                announced: NlriList::empty(Family::IPV4_UNICAST),
                mp_reach: Some(MpReach::Unicast { next_hop, nlri: ipv6 }),
                ..update([].into_iter())
            },
        );
        scripted.speaker.handle_closed(connection, scripted.now);
        scripted.settle();
        let count = |scripted: &Scripted| {
            both.map(|family| scripted.speaker.adj_in(&"other".into(), family).unwrap().len())
        };
        assert_eq!(count(&scripted), kept, "away: {ours:?} and {theirs:?}");
        scripted.establish(their_open(capability()));
        assert_eq!(count(&scripted), kept, "back: {ours:?} and {theirs:?}");
    }
}

/// RFC 8538 §4: which ends of a session keep routes, without and with the N bit of both ends.
#[test]
fn which_end_of_a_session_keeps_the_neighbours_routes() {
    type End = fn(&mut Scripted, ConnectionId);
    let table: [(&str, End, bool, bool); 6] = [
        ("closed", |s, c| s.speaker.handle_closed(c, s.now), true, true),
        ("shutdown received", |s, c| s.send(c, Notification::administrative_shutdown("")), false, true),
        (
            "hard reset received",
            |s, c| s.send(c, Notification::hard_reset(&Notification::peer_deconfigured())),
            false,
            false,
        ),
        ("silence", |s, _| s.advance(Duration::from_secs(90)), false, true),
        ("bad message", |s, c| s.send(c, their_open(None)), false, true),
        ("our shutdown", |s, _| s.speaker.reset(&"other".into(), "", s.now).unwrap(), false, false),
    ];
    for (name, end, plain, notification) in table {
        for (bit, kept) in [(false, plain), (true, notification)] {
            let (mut scripted, connection) =
                keeping(|peer| peer.graceful_restart.as_mut().unwrap().notification = bit);
            end(&mut scripted, connection);
            scripted.settle();
            assert_ne!(scripted.status().state, State::Established);
            assert_eq!(routes(&scripted).0, if kept { 2 } else { 0 }, "{name}, N {bit}");
        }
    }
}

#[test]
fn an_enhanced_refresh_removes_what_does_not_come_again() {
    let (mut scripted, connection) = keeping(|_| {});
    scripted.send(connection, Update::end_of_rib(Family::IPV4_UNICAST));
    scripted.send(connection, mark(RouteRefreshKind::Begin));
    assert_eq!(routes(&scripted), (2, 2));
    scripted.send(connection, update([nlri("203.0.113.1/32")].into_iter()));
    scripted.send(connection, mark(RouteRefreshKind::End));
    assert_eq!(routes(&scripted), (1, 0));
    // At once again, as fast as can be: nobody looks at all routes for that.
    for _ in 0..3 {
        scripted.send(connection, mark(RouteRefreshKind::Begin));
        assert_eq!(routes(&scripted), (1, 0));
        scripted.send(connection, mark(RouteRefreshKind::End));
    }
    assert_eq!(routes(&scripted), (1, 0));
    // One that never ends.
    scripted.advance(Duration::from_secs(1));
    scripted.send(connection, mark(RouteRefreshKind::Begin));
    assert_eq!(routes(&scripted), (1, 1));
    for _ in 0..8 {
        scripted.advance(Duration::from_secs(45));
        scripted.send(connection, Message::Keepalive);
    }
    assert_eq!(routes(&scripted), (0, 0));
}

/// RFC 7313 §4: of a neighbour with graceful restart a refresh before End-of-RIB is none.
#[test]
fn a_refresh_before_end_of_rib_removes_nothing() {
    let (mut scripted, connection) = keeping(|_| {});
    scripted.send(connection, mark(RouteRefreshKind::Begin));
    assert_eq!(routes(&scripted), (2, 0));
    // What is left of the session before waits for End-of-RIB, whatever the markers say.
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    let back = scripted.establish(their_open(Some(restart_capability(true, true))));
    scripted.send(back, update([nlri("203.0.113.1/32")].into_iter()));
    scripted.send(back, mark(RouteRefreshKind::Begin));
    scripted.send(back, mark(RouteRefreshKind::End));
    assert_eq!(routes(&scripted), (2, 1));
    scripted.send(back, Update::end_of_rib(Family::IPV4_UNICAST));
    assert_eq!(routes(&scripted), (1, 0));
    // From now on it is one; an end without a beginning is none.
    scripted.send(back, mark(RouteRefreshKind::End));
    assert_eq!(routes(&scripted), (1, 0));
    scripted.send(back, mark(RouteRefreshKind::Begin));
    scripted.send(back, mark(RouteRefreshKind::End));
    assert_eq!(routes(&scripted), (0, 0));
}

#[test]
fn markers_mean_something_only_where_both_know_them() {
    for known in [true, false] {
        let mut scripted = Scripted::new(|peer| peer.received_routes = ReceivedRoutes::Keep);
        let mut open = their_open(None);
        open.capabilities.retain(|capability| known || *capability != Capability::EnhancedRouteRefresh);
        let connection = scripted.establish(open);
        scripted.send(connection, update(["203.0.113.1/32", "203.0.113.2/32"].map(nlri).into_iter()));
        scripted.send(connection, mark(RouteRefreshKind::Begin));
        scripted.send(connection, update([nlri("203.0.113.1/32")].into_iter()));
        scripted.send(connection, mark(RouteRefreshKind::End));
        assert_eq!(routes(&scripted), if known { (1, 0) } else { (2, 0) });
    }
}

/// Two real speakers: the second one restarts, and the first keeps what it had until it is sent again.
#[test]
fn a_restart_within_the_time_loses_no_route_at_the_helper() {
    let offer = |peer: &mut PeerConfig| {
        peer.graceful_restart = Some(GracefulRestartConfig {
            restart_time: Duration::from_secs(60),
            restarting: true,
            forwarding_preserved: true,
            notification: false,
        });
        peer.received_routes = ReceivedRoutes::Keep;
    };
    let mut pair = Pair::with(offer);
    pair.speakers[0].set_routes("test", [], pair.now);
    pair.speakers[1].set_routes("test", [route("198.51.100.1/32"), route("198.51.100.2/32")], pair.now);
    pair.establish();
    pair.settle();
    pair.advance(Duration::from_secs(20));
    let kept = |pair: &Pair| pair.speakers[0].adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    assert_eq!(kept(&pair).len(), 2);
    // kill -9: the connection is reset.
    let mut fresh = Speaker::new(SpeakerConfig::new(ASNS[1], ADDRESSES[1]), pair.now).unwrap();
    fresh.set_peers(vec![Pair::peer(1, &offer)], pair.now).unwrap();
    pair.speakers[1] = fresh;
    for pipe in std::mem::take(&mut pair.pipes) {
        if pipe.to.0 == 0 {
            pair.speakers[0].handle_closed(pipe.to.1, pair.now);
        }
    }
    assert_eq!(kept(&pair).len(), 2);
    for _ in 0..5 {
        pair.advance(Duration::from_secs(1));
        assert_eq!(kept(&pair).len(), 2, "while it is away, and while its routes are not complete");
    }
    pair.establish();
    assert!(kept(&pair).iter().all(|route| route.stale));
    // It comes back with one route less.
    pair.speakers[1].set_routes("test", [route("198.51.100.1/32")], pair.now);
    pair.settle();
    let left = kept(&pair);
    assert_eq!((left.len(), left[0].stale), (1, false));
}

/// Says the N bit anew, as BFD that is switched on or off does.
fn set_notification(scripted: &mut Scripted, notification: bool) {
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.graceful_restart.as_mut().unwrap().notification = notification;
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
}

/// Ends the session, and gives what the neighbour was told.
fn reset(scripted: &mut Scripted) -> Option<Notification> {
    scripted.speaker.reset(&"other".into(), "", scripted.now).unwrap();
    scripted.settle();
    let told = last_notification(scripted);
    scripted.advance(Duration::from_secs(2));
    told
}

#[test]
fn the_n_bit_goes_into_the_next_open_and_ends_the_session_only_where_it_was_offered() {
    let open = || their_open(Some(restart_capability(true, true)));
    let mut scripted = Scripted::new(graceful);
    scripted.establish(open());
    for notification in [true, false, true] {
        set_notification(&mut scripted, notification);
        assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Established, 0));
    }
    let plain = Notification::administrative_reset("");
    assert_eq!(reset(&mut scripted), Some(plain.clone()), "it was not agreed on in this session");
    let second = scripted.establish(open());
    assert!(offered(&scripted, second).notification);
    assert_eq!(reset(&mut scripted), Some(Notification::hard_reset(&plain)));
    // The neighbour would keep our routes when the hold time ends, and without BFD it must not.
    scripted.establish(open());
    set_notification(&mut scripted, false);
    assert_eq!(last_notification(&scripted), Some(Notification::other_configuration_change()));
    assert_eq!(scripted.status().counters.dropped, 3);
    let third = scripted.establish(open());
    assert!(!offered(&scripted, third).notification);
}

#[test]
fn an_n_bit_that_changes_between_both_opens_counts_as_our_open_said_it() {
    let open = || their_open(Some(restart_capability(true, true)));
    let mut scripted = Scripted::new(graceful);
    let connection = scripted.connect();
    set_notification(&mut scripted, true);
    scripted.send(connection, open());
    scripted.send(connection, Message::Keepalive);
    let session = scripted.status().session.unwrap();
    assert!(
        session.local_capabilities.contains(&Capability::GracefulRestart(offered(&scripted, connection)))
    );
    assert_eq!(reset(&mut scripted), Some(Notification::administrative_reset("")));
    // Offered, and taken back before the neighbour has answered.
    let connection = scripted.connect();
    set_notification(&mut scripted, false);
    assert_eq!(scripted.closed.last(), Some(&connection));
    // A second connection of the neighbour that was greeted without it.
    scripted.establish(open());
    let second = scripted.connect();
    set_notification(&mut scripted, true);
    assert_eq!((scripted.closed.last(), scripted.status().state), (Some(&second), State::Established));
}

#[test]
fn the_r_bit_is_told_no_longer_than_neighbours_wait_for_us() {
    let mut scripted = Scripted::new(graceful);
    let restarted = |scripted: &mut Scripted| {
        let connection = scripted.connect();
        let offer = offered(scripted, connection);
        scripted.speaker.handle_closed(connection, scripted.now);
        scripted.settle();
        assert!(offer.families.iter().all(|row| row.forwarding != offer.restarted), "{offer:?}");
        offer.restarted
    };
    let set = |scripted: &mut Scripted, change: fn(&mut PeerConfig)| {
        let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
        change(&mut config);
        scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
        scripted.settle();
    };
    scripted.advance(Duration::from_secs(59));
    assert!(restarted(&mut scripted));
    scripted.advance(Duration::from_secs(1));
    assert!(!restarted(&mut scripted), "it has not been up, and has nothing of ours to keep");
    set(&mut scripted, |peer| peer.link_failover = false);
    assert!(!restarted(&mut scripted));
    // Said anew it counts from now.
    set(&mut scripted, |peer| peer.graceful_restart.as_mut().unwrap().restarting = false);
    set(&mut scripted, |peer| peer.graceful_restart.as_mut().unwrap().restarting = true);
    scripted.advance(Duration::from_secs(59));
    assert!(restarted(&mut scripted));
    scripted.advance(Duration::from_secs(1));
    assert!(!restarted(&mut scripted));
}
