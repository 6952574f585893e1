//! Routes of guests: beside the embedder's, and never better.

use super::*;
use crate::speaker::GUESTS;

const PREFIX: &str = "198.51.100.1/32";

/// A route by way of `10.0.0.last`, and the highest identifiers: a guest has whatever says that it is better.
fn by_way_of(last: u8) -> Route {
    let next_hop = NextHop::Address(Ipv4Addr::new(10, 0, 0, last).into());
    Route { next_hop, path_id: u32::MAX - u32::from(last), ..route(PREFIX) }
}

fn guests() -> [Route; 2] {
    [by_way_of(1), Route { path_id: 1, ..route(PREFIX) }]
}

fn heard(pair: &mut Pair) -> Vec<(u32, IpAddr)> {
    pair.settle();
    pair.received().into_iter().map(|((_, path_id), next_hop)| (path_id, next_hop)).collect()
}

#[test]
fn a_neighbour_with_one_path_hears_of_a_guests_route_only_without_one_of_the_embedders() {
    // Its source's name is before and after that of guests.
    for source in ["all-nodes", "on-behalf/router"] {
        let mut pair = Pair::new();
        pair.establish();
        pair.speakers[0].set_routes(source, [by_way_of(12)], pair.now);
        let own = vec![(0, IpAddr::from([10, 0, 0, 12]))];
        assert_eq!(heard(&mut pair), own);
        let told = pair.updates().len();
        let delta = Delta { add: guests().into(), remove: Vec::new() };
        pair.speakers[0].apply(GUESTS, delta, pair.now);
        assert_eq!(
            (heard(&mut pair), pair.updates().len()),
            (own.clone(), told),
            "{source}: nothing is told"
        );
        let entry = pair.speakers[0].rib_entry(PREFIX.parse().unwrap()).unwrap();
        assert_eq!((entry.paths.len(), entry.paths[0].path_id), (3, by_way_of(12).path_id), "and seen");

        pair.speakers[0].set_routes(source, [], pair.now);
        assert_eq!(heard(&mut pair), [(0, ADDRESSES[0].into())], "{source}: then the best of guests");
        pair.speakers[0].set_routes(source, [by_way_of(12)], pair.now);
        assert_eq!(heard(&mut pair), own, "{source}: and not beside the embedder's");
    }
}

#[test]
fn many_paths_of_one_prefix_are_one_change_which_does_not_wait_behind_a_bulk() {
    let mut pair = Pair::with(|peer| peer.families = vec![FamilyConfig::new(Family::IPV4_UNICAST)]);
    pair.establish();
    pair.stalled = true;
    let host = |index: u32| ipnet::Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 + index), 32).unwrap();
    pair.speakers[0].set_routes("bulk", (0..100_000).map(|index| Route::new(host(index))), pair.now);
    pair.settle();
    let add = (1..=256).map(|path_id| Route { path_id, ..route(PREFIX) }).collect();
    pair.speakers[0].apply(GUESTS, Delta { add, remove: Vec::new() }, pair.now);
    pair.stalled = false;
    pair.settle();
    let updates = pair.updates();
    let prefix = nlri(PREFIX);
    let announces = |update: &Update| {
        update.announcements().any(|(_, list)| list.iter().any(|announced| announced == prefix))
    };
    let at: Vec<usize> = (0..updates.len()).filter(|index| announces(&updates[*index])).collect();
    assert!(at.len() == 1 && at[0] < updates.len() / 2, "{at:?} of {}", updates.len());
}

#[test]
fn of_more_paths_than_a_neighbour_takes_those_of_guests_are_left_out() {
    let many = |peer: &mut PeerConfig| {
        peer.families = vec![FamilyConfig {
            add_path_receive: true,
            ..FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 10)
        }];
    };
    let mut pair = Pair::with(many);
    pair.establish();
    let delta = Delta { add: guests().into(), remove: Vec::new() };
    pair.speakers[0].apply(GUESTS, delta, pair.now);
    assert_eq!(heard(&mut pair).len(), 2);
    // One more than there is room for.
    pair.speakers[0].set_routes("on-behalf/router", (20..=30).map(by_way_of), pair.now);
    let own: BTreeMap<u32, IpAddr> =
        (20..30).map(|last| (by_way_of(last).path_id, IpAddr::from([10, 0, 0, last]))).collect();
    assert!(heard(&mut pair).into_iter().eq(own), "{:?}", pair.received());
    pair.speakers[0].set_routes("on-behalf/router", (20..29).map(by_way_of), pair.now);
    let last = heard(&mut pair);
    assert!(last.len() == 10 && last.contains(&(1, ADDRESSES[0].into())), "{last:?}: one of guests fits in");
}

#[test]
fn of_two_routes_with_one_key_the_guests_is_hidden_and_takes_no_other_place() {
    for source in ["all-nodes", "on-behalf/router"] {
        let mut pair = Pair::new();
        pair.establish();
        let guest = by_way_of(5);
        // Both of guests', and of one of them the embedder says the very same, which is then better than the other.
        let low = Route { path_id: 7, ..by_way_of(1) };
        let routes = [guest.clone(), low];
        pair.speakers[0].set_routes(GUESTS, routes, pair.now);
        assert_eq!(heard(&mut pair), [(0, [10, 0, 0, 1].into())]);
        pair.speakers[0].set_routes(source, [guest.clone()], pair.now);
        assert_eq!(heard(&mut pair), [(0, [10, 0, 0, 5].into())], "{source}");
        pair.speakers[0].set_routes(source, [Route { path_id: guest.path_id, ..by_way_of(12) }], pair.now);
        assert_eq!(heard(&mut pair), [(0, [10, 0, 0, 12].into())], "{source}");
        pair.speakers[0].set_routes(source, [], pair.now);
        assert_eq!(heard(&mut pair), [(0, [10, 0, 0, 1].into())], "{source}");
    }
}
