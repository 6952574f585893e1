//! What clients change while the speaker becomes another one.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use ipnet::IpNet;
use tokio::sync::watch;

use super::*;
use crate::{net, speaker::RouteKey};

#[derive(Debug)]
struct Changing(watch::Sender<Option<SpeakerHandle>>);

#[tonic::async_trait]
impl Owner for Changing {
    fn speaker(&self) -> watch::Receiver<Option<SpeakerHandle>> {
        self.0.subscribe()
    }

    fn ruled_by(&self) -> Option<String> {
        None
    }

    async fn start(&self, _config: SpeakerConfig) -> Result<(), Error> {
        Ok(())
    }

    async fn stop(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn speaker() -> SpeakerHandle {
    net::spawn_offline(SpeakerConfig::new(65000, [192, 0, 2, 10].into())).unwrap().0
}

fn route(last: u8) -> Route {
    Route::new(IpNet::from(IpAddr::from([203, 0, 113, last])))
}

fn peer(last: u8) -> NewPeer {
    NewPeer::new([192, 0, 2, last].into(), 65001)
}

/// A route to one prefix for each.
fn paths(count: u32) -> Vec<(RouteKey, Option<Route>)> {
    let routes = (0..count).map(|path_id| Route { path_id, ..route(1) });
    routes.map(|route| (route.key(), Some(route))).collect()
}

#[tokio::test]
async fn of_one_prefix_there_are_so_many_routes_of_clients_and_not_one_more() {
    let owner = Arc::new(Changing(watch::Sender::new(Some(speaker()))));
    let core = Core::new(owner as Arc<dyn Owner>);
    core.change_routes(paths(256)).unwrap();
    for _ in 0..2 {
        let refused = core.change_routes(paths(257)).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
        assert!(refused.message.contains("256 routes to 203.0.113.1/32"), "{refused}");
    }
    let further = || Route { path_id: 256, ..route(1) };
    core.add_route(NewRoute { route: further() }).unwrap_err();
    assert_eq!(core.added_routes().len(), 256);
    // Each can be another one; other prefixes have places of their own, and one that is free is had again.
    core.add_route(NewRoute { route: Route { path_id: 7, ..route(1) } }).unwrap();
    core.add_route(NewRoute { route: route(2) }).unwrap();
    core.delete_routes(RouteName::Key(route(1).key())).unwrap();
    core.delete_routes(RouteName::Key(route(1).key())).unwrap_err();
    core.add_route(NewRoute { route: further() }).unwrap();
    core.add_route(NewRoute { route: route(1) }).unwrap_err();
    core.delete_routes(RouteName::All(None)).unwrap();
    core.change_routes(paths(256)).unwrap();
}

type Change = fn(&Core) -> Result<(), Error>;

/// Each is of something that [`there`] is, or of the next one.
const CHANGES: [(&str, Change); 7] = [
    ("add_route", |core| core.add_route(NewRoute { route: route(2) }).map(drop)),
    ("change_routes", |core| core.change_routes(vec![(route(2).key(), Some(route(2)))])),
    ("delete_routes", |core| core.delete_routes(RouteName::Key(route(1).key()))),
    ("add_peer", |core| core.add_peer(peer(2))),
    ("update_peer", |core| core.update_peer(peer(1))),
    ("delete_peer", |core| core.delete_peer([192, 0, 2, 1].into())),
    ("set_up", |core| core.set_up([192, 0, 2, 1].into())),
];

fn there(core: &Core) {
    core.add_route(NewRoute { route: route(1) }).unwrap();
    core.add_peer(peer(1)).unwrap();
}

#[tokio::test]
async fn a_change_while_the_speaker_becomes_another_one_is_not_told_to_the_old_one() {
    for (what, change) in CHANGES {
        let owner = Arc::new(Changing(watch::Sender::new(Some(speaker()))));
        let core = Core::new(Arc::clone(&owner) as Arc<dyn Owner>);
        there(&core);
        let next = speaker();
        let mut thread = None;
        owner.0.send_modify(|speaker| {
            // Until this has ended nobody hears what the speaker is: a change that has what was added by then, before
            // it has a speaker, is one for the next.
            let changed = Arc::clone(&core);
            thread = Some(thread::spawn(move || change(&changed)));
            let until = Instant::now() + Duration::from_secs(5);
            while core.added.try_lock().is_ok() {
                assert!(Instant::now() < until, "{what} asks for the speaker first");
                thread::yield_now();
            }
            *speaker = Some(next.clone());
        });
        thread.unwrap().join().unwrap().unwrap();
        // What is given to it then is what it has already.
        let told = next.query(|speaker| (speaker.table_stats(), speaker.peers().peers.len())).await.unwrap();
        core.give(&next, &core.added());
        let given = next.query(|speaker| (speaker.table_stats(), speaker.peers().peers.len())).await.unwrap();
        let expected = match what {
            "add_route" | "change_routes" => (1, 0, 2, 1),
            "delete_routes" => (0, 0, 0, 1),
            "add_peer" => (0, 2, 1, 2),
            "delete_peer" => (0, 0, 1, 0),
            _ => (0, 1, 1, 1),
        };
        assert_eq!((told.0.routes, told.1, given.0.routes, given.1), expected, "{what}");
    }
}
