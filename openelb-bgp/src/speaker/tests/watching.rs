//! Who watches best routes.

use super::{
    challenge::{bytes_of, graceful, restart_capability, their_open},
    operations::{from, group, update},
    *,
};
use crate::speaker::{Event, ReceivedRoutes};

const PREFIXES: [&str; 2] = ["203.0.113.1/32", "203.0.113.2/32"];

/// Lets all happen that is due until then; gives what is told of best routes and of neighbours that are removed, sorted
/// where it is told in no order.
fn told(speaker: &mut Speaker, until: Instant) -> Vec<(String, bool)> {
    while let Some(at) = speaker.poll_timeout().filter(|at| *at <= until) {
        speaker.handle_timeout(at);
        while speaker.poll_output(at).is_some() {}
    }
    while speaker.poll_output(until).is_some() {}
    let events = std::iter::from_fn(|| speaker.poll_event());
    let told = events.filter_map(|event| match event {
        Event::BestPath { prefix, path } => Some((prefix.to_string(), path.is_some())),
        Event::PeerRemoved { peer } => Some((peer.to_string(), false)),
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    if let Some(two) = told.get_mut(..2) {
        two.sort();
    }
    told
}

#[test]
fn that_a_dynamic_neighbours_routes_went_is_told_before_it_is_removed() {
    for restart in [true, false] {
        let mut now = *ORIGIN;
        let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[0], ADDRESSES[0]), now).unwrap();
        let mut rack = group("10.1.0.0/16", 2);
        rack.template.received_routes = ReceivedRoutes::Keep;
        if restart {
            graceful(&mut rack.template);
        }
        speaker.set_dynamic_peers(vec![rack], now).unwrap();
        speaker.watch_best_paths(true, now);
        let connection = speaker.accept(from(1), now).unwrap().connection;
        speaker.handle_connected(connection, from(1), now);
        let open = their_open(restart.then(|| restart_capability(true, false)));
        for message in [open.into(), Message::Keepalive, update(PREFIXES.map(nlri).into_iter()).into()] {
            speaker.handle_bytes(connection, &bytes_of(message, &SessionContext::default()), now);
        }
        assert_eq!(told(&mut speaker, now), PREFIXES.map(|prefix| (prefix.to_owned(), true)));
        speaker.handle_closed(connection, now);
        if restart {
            for wait in [0, 59] {
                now += Duration::from_secs(wait);
                assert_eq!(told(&mut speaker, now), []);
            }
            assert_eq!(speaker.rib(Family::IPV4_UNICAST).len(), 2, "they wait for it");
            now += Duration::from_secs(1);
        }
        let gone = PREFIXES.into_iter().chain(["rack/10.1.0.1"]).map(|what| (what.to_owned(), false));
        assert_eq!(told(&mut speaker, now), gone.collect::<Vec<_>>(), "graceful restart: {restart}");
    }
}

#[test]
fn what_was_told_is_known_for_a_minute_after_the_last_watcher_and_kept_up_meanwhile() {
    let mut now = *ORIGIN;
    let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[0], ADDRESSES[0]), now).unwrap();
    let [first, second] = PREFIXES;
    let event = |prefix: &str, there| (prefix.to_owned(), there);
    speaker.watch_best_paths(false, now);
    assert!(speaker.best_paths.is_none(), "nobody has asked");
    speaker.watch_best_paths(true, now);
    speaker.set_routes("test", [route(first)], now);
    assert_eq!(told(&mut speaker, now), [event(first, true)]);
    // Whoever drives says it again and again.
    for _ in 0..59 {
        speaker.watch_best_paths(false, now);
        now += Duration::from_secs(1);
        assert_eq!(told(&mut speaker, now), []);
    }
    speaker.set_routes("test", [route(second)], now);
    assert_eq!(told(&mut speaker, now), [], "nobody watches");
    assert!(speaker.best_paths.is_some(), "nothing has to be looked at again");
    speaker.watch_best_paths(true, now);
    now += Duration::from_secs(600);
    assert_eq!(told(&mut speaker, now), []);
    speaker.set_routes("test", [route(first)], now);
    assert_eq!(told(&mut speaker, now), [event(first, true), event(second, false)], "from where it was");
    // A minute, and it costs nothing any more.
    speaker.watch_best_paths(false, now);
    now += Duration::from_secs(60);
    assert_eq!(told(&mut speaker, now), []);
    assert!(speaker.best_paths.is_none() && speaker.poll_timeout().is_none());
    speaker.set_routes("test", [], now);
    speaker.watch_best_paths(true, now);
    assert_eq!(told(&mut speaker, now), []);
}
