//! `WatchEvent`: what happens, to a client that listens.
//!
//! Each watcher has a bounded place in the speaker's queue of events; one that falls behind is told so and dropped, and
//! the speaker never waits for it.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::{
    OwnedSemaphorePermit,
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Status;

use super::{
    path,
    peer::{self, Neighbor},
    status,
};
use crate::{
    grpc::{
        apipb::{
            self,
            watch_event_response::{Event as Message, PeerEvent, TableEvent, peer_event::Type},
        },
        core::{Core, Error, ErrorKind, Listing, Table},
    },
    net::SpeakerHandle,
    speaker::{Event, PeerName, Speaker},
    wire::Family,
};

/// Responses that wait for the client's window.
const WAITING: usize = 16;
/// Routes in one response.
const PATHS_PER_RESPONSE: usize = 256;

/// Why the table of a neighbour cannot be shown that has none.
const HAS_NONE: [ErrorKind; 2] = [ErrorKind::FailedPrecondition, ErrorKind::NotFound];

/// A client that takes none of them for so long is dropped.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

type Response = Result<apipb::WatchEventResponse, Status>;

/// What a client watches; `Some(true)`: also what is there already, first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interest {
    peers: bool,
    best: Option<bool>,
    received: Option<bool>,
}

fn interest(request: &apipb::WatchEventRequest) -> Result<Interest, Error> {
    use apipb::watch_event_request::table::filter::Type;
    let mut interest = Interest { peers: request.peer.is_some(), ..Interest::default() };
    for filter in request.table.iter().flat_map(|table| &table.filters) {
        let wanted = match Type::try_from(filter.r#type) {
            Ok(Type::Best) => &mut interest.best,
            // There are no policies: what comes after them is what came.
            Ok(Type::Adjin | Type::PostPolicy) => &mut interest.received,
            Err(_) => return Err(Error::invalid(format!("filter type {}: use 0 to 2", filter.r#type))),
        };
        *wanted = Some(wanted.unwrap_or(false) || filter.init);
    }
    if interest == Interest::default() {
        return Err(Error::invalid("nothing to watch: ask for peer, or for table with a filter"));
    }
    Ok(interest)
}

/// What a watcher is told: what waits, then why that is all.
#[derive(Debug)]
pub(super) struct Watched {
    waiting: mpsc::Receiver<Response>,
    end: Arc<OnceLock<Error>>,
    ended: bool,
}

impl Stream for Watched {
    type Item = Response;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Response>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.waiting.poll_recv(cx) {
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(self.end.get().map(|end| Err(status(end.clone()))))
            }
            other => other,
        }
    }
}

/// Starts a watcher.
pub(super) async fn watch(core: Arc<Core>, request: &apipb::WatchEventRequest) -> Result<Watched, Error> {
    let interest = interest(request)?;
    let speaker = core.speaker()?;
    let permit = core.watcher()?;
    // From now on nothing is missed; what is there already comes before it.
    let events = speaker
        .subscribe(interest.best.is_some(), interest.received.is_some())
        .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the BGP speaker has stopped: try again"))?;
    let (sender, waiting) = mpsc::channel(WAITING);
    let end = Arc::new(OnceLock::new());
    let watcher = Watcher { core, speaker, interest, sender, _permit: permit };
    tokio::spawn(watcher.run(events, Arc::clone(&end)));
    Ok(Watched { waiting, end, ended: false })
}

struct Watcher {
    core: Arc<Core>,
    speaker: SpeakerHandle,
    interest: Interest,
    sender: mpsc::Sender<Response>,
    _permit: OwnedSemaphorePermit,
}

fn too_slow(missed: &str) -> Error {
    let text = format!("this watcher was too slow and has missed {missed}: read faster, and watch again");
    Error::new(ErrorKind::ResourceExhausted, text)
}

/// The client has gone, or does not read.
struct Gone;

/// Neighbours of which the watcher has heard, so that what happens when one goes can be told of it.
type Known = HashMap<PeerName, Neighbor>;

fn left_behind(_: Gone) -> Error {
    too_slow("what is there")
}

impl Watcher {
    async fn run(self, events: broadcast::Receiver<Event>, end: Arc<OnceLock<Error>>) {
        let why = tokio::select! {
            biased;
            () = self.sender.closed() => return,
            why = self.tell_all(events) => why,
        };
        // Known before the channel is closed.
        let _ = end.set(why);
    }

    async fn send(&self, event: Message) -> Result<(), Gone> {
        let response = apipb::WatchEventResponse { event: Some(event) };
        match timeout(TAKEN_WITHIN, self.sender.send(Ok(response))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Until the speaker stops or the client does not follow.
    async fn tell_all(&self, mut events: broadcast::Receiver<Event>) -> Error {
        let mut known = self.neighbors().await;
        if let Err(why) = self.tell_what_is_there().await {
            return why;
        }
        loop {
            let event = match events.recv().await {
                Ok(Event::Lost { events: missed }) | Err(RecvError::Lagged(missed)) => {
                    return too_slow(&format!("{missed} events"));
                }
                Ok(event) => event,
                Err(RecvError::Closed) => {
                    return Error::new(ErrorKind::Unavailable, "the BGP speaker has stopped: try again");
                }
            };
            if self.tell(event, &mut known).await.is_err() {
                return too_slow("events");
            }
        }
    }

    async fn tell_what_is_there(&self) -> Result<(), Error> {
        if self.interest.peers {
            self.tell_peers().await.map_err(left_behind)?;
        }
        for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
            if self.interest.best == Some(true) {
                self.tell_table(Table::Local, family).await?;
            }
            if self.interest.received == Some(true) {
                for address in self.addresses() {
                    match self.tell_table(Table::AdjIn(address), family).await {
                        // A neighbour whose routes are only counted has none to show, nor has one that is gone.
                        Err(error) if HAS_NONE.contains(&error.kind) => {}
                        outcome => outcome?,
                    }
                }
            }
        }
        Ok(())
    }

    async fn tell_peers(&self) -> Result<(), Gone> {
        for view in self.core.peers(None).await {
            self.send_peer(Type::Init, Some(peer::peer(&view))).await?;
        }
        self.send_peer(Type::EndOfInit, None).await
    }

    /// Tells a whole table. It takes one of the places for listings until the client has all of it.
    async fn tell_table(&self, table: Table, family: Family) -> Result<(), Error> {
        let (listing, _permit) = self.core.list(table, family, &[]).await?;
        let told = match listing {
            Listing::Local(entries) => {
                let best = entries.into_iter().filter_map(|entry| {
                    let path = entry.paths.first()?;
                    Some(path::rib_path(&self.core, entry.prefix, path, true))
                });
                self.send_all(best).await
            }
            Listing::AdjIn(from, routes) => {
                self.send_all(routes.into_iter().map(|route| path::received(&from, &route))).await
            }
            Listing::AdjOut(..) => Ok(()),
        };
        told.map_err(left_behind)
    }

    /// What was sent is kept no longer.
    async fn send_all(&self, mut paths: impl Iterator<Item = apipb::Path>) -> Result<(), Gone> {
        loop {
            let some: Vec<apipb::Path> = paths.by_ref().take(PATHS_PER_RESPONSE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.send_paths(some).await?;
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.core.snapshot().peers.values().map(|known| known.address).collect()
    }

    async fn send_peer(&self, kind: Type, peer: Option<apipb::Peer>) -> Result<(), Gone> {
        self.send(Message::Peer(PeerEvent { r#type: i32::from(kind), peer })).await
    }

    async fn send_paths(&self, paths: Vec<apipb::Path>) -> Result<(), Gone> {
        self.send(Message::Table(TableEvent { paths })).await
    }

    async fn tell(&self, event: Event, known: &mut Known) -> Result<(), Gone> {
        match event {
            Event::State { peer, state } if self.interest.peers => {
                let Some(neighbor) = self.neighbor(&peer, known).await else { return Ok(()) };
                let there = self.core.peers(Some(neighbor.address)).await;
                let shown = match there.iter().find(|view| view.details.status.name == peer) {
                    Some(view) => peer::peer_event(view, state),
                    // It has gone meanwhile, or has another address now.
                    None => peer::gone(neighbor, state),
                };
                self.send_peer(Type::State, Some(shown)).await
            }
            Event::PeerRemoved { peer } => {
                // The next one with this name can be another one.
                known.remove(&peer);
                Ok(())
            }
            Event::BestPath { prefix, path } if self.interest.best.is_some() => {
                let path = match path {
                    Some(path) => path::rib_path(&self.core, prefix, &path, true),
                    None => path::withdrawn(prefix, 0),
                };
                self.send_paths(vec![path]).await
            }
            Event::Received { peer, prefix, path_id, route } if self.interest.received.is_some() => {
                let snapshot = self.core.snapshot();
                let path = match (&route, snapshot.peers.get(&peer)) {
                    (Some(route), Some(from)) => path::received(from, route),
                    _ => {
                        let from = self.neighbor(&peer, known).await;
                        apipb::Path {
                            neighbor_ip: from.map_or_else(String::new, |from| from.address.to_string()),
                            ..path::withdrawn(prefix, path_id)
                        }
                    }
                };
                self.send_paths(vec![path]).await
            }
            _ => Ok(()),
        }
    }

    async fn neighbors(&self) -> Known {
        if !self.interest.peers && self.interest.received.is_none() {
            return Known::new();
        }
        let all = self.speaker.query(Speaker::peers).await.unwrap_or_default().peers;
        all.into_iter().map(|(name, status)| (name, Neighbor::from(&status))).collect()
    }

    /// A neighbour, as it was when this watcher heard of it first.
    async fn neighbor<'a>(&self, peer: &PeerName, known: &'a mut Known) -> Option<&'a Neighbor> {
        if !known.contains_key(peer) {
            let name = peer.clone();
            let ask = move |speaker: &Speaker| speaker.peers().peers.get(&name).map(Neighbor::from);
            known.insert(peer.clone(), self.speaker.query(ask).await.flatten()?);
        }
        known.get(peer)
    }
}

#[cfg(test)]
mod tests {
    use apipb::{
        peer_state::SessionState,
        watch_event_request::{Peer, Table, table::Filter},
    };
    use ipnet::IpNet;

    use super::*;
    use crate::{
        fsm::State,
        grpc::core::Embedded,
        net,
        speaker::{PeerConfig, PeersSnapshot, SpeakerConfig},
    };

    #[test]
    fn a_request_says_what_is_watched() {
        let filter = |kind, init| Filter { r#type: kind, init };
        let request = |peer: bool, filters: Vec<Filter>| apipb::WatchEventRequest {
            peer: peer.then_some(Peer {}),
            table: (!filters.is_empty()).then_some(Table { filters }),
        };
        let all = interest(&request(true, vec![filter(0, true), filter(1, false), filter(2, true)])).unwrap();
        assert_eq!(all, Interest { peers: true, best: Some(true), received: Some(true) });
        assert_eq!(interest(&request(false, vec![])).unwrap_err().kind, ErrorKind::InvalidArgument);
        assert_eq!(
            interest(&request(true, vec![filter(9, false)])).unwrap_err().kind,
            ErrorKind::InvalidArgument
        );
    }

    fn watcher(speaker: &SpeakerHandle) -> (Watcher, mpsc::Receiver<Response>) {
        let core = Core::new(Arc::new(Embedded::new(speaker.clone())));
        let interest = Interest { peers: true, best: None, received: Some(false) };
        let (sender, waiting) = mpsc::channel(WAITING);
        let _permit = core.watcher().unwrap();
        (Watcher { core, speaker: speaker.clone(), interest, sender, _permit }, waiting)
    }

    /// What is left of it is told before it is removed; when the watcher looks, it has gone.
    #[tokio::test]
    async fn the_end_of_a_neighbour_that_is_removed_or_made_anew_is_told_with_its_address() {
        let (speaker, _) = net::spawn_offline(SpeakerConfig::new(65000, [192, 0, 2, 10].into())).unwrap();
        let router = |last: u8| PeerConfig::new("router", [192, 0, 2, last].into(), 65001);
        let prefix: IpNet = "198.51.100.0/24".parse().unwrap();
        let name = PeerName::from("router");
        for next in [vec![], vec![router(2)]] {
            speaker.set_peers(vec![router(1)]).unwrap();
            let (watcher, mut waiting) = watcher(&speaker);
            let mut known = watcher.neighbors().await;
            let anew = next.len();
            speaker.set_peers(next).unwrap();
            assert_eq!(watcher.core.peers(None).await.len(), anew);
            let mut seen = speaker.watch_peers();
            let there = |seen: &Arc<PeersSnapshot>| seen.peers.values().map(|peer| peer.address).next();
            let expected = (anew == 1).then(|| IpAddr::from([192, 0, 2, 2]));
            drop(seen.wait_for(|seen| there(seen) == expected).await.unwrap());
            for event in [
                Event::Received { peer: name.clone(), prefix, path_id: 7, route: None },
                Event::State { peer: name.clone(), state: State::Idle },
                Event::PeerRemoved { peer: name.clone() },
                Event::State { peer: name.clone(), state: State::Active },
            ] {
                assert!(watcher.tell(event, &mut known).await.is_ok());
            }
            drop(watcher);
            let mut told = Vec::new();
            while let Some(event) = waiting.recv().await {
                told.push(match event.unwrap().event.unwrap() {
                    Message::Table(table) => {
                        let path = &table.paths[0];
                        assert!(path.is_withdraw && path.identifier == 7, "{path:?}");
                        (path.neighbor_ip.clone(), None)
                    }
                    Message::Peer(event) => {
                        let (state, conf) = event.peer.map(|peer| (peer.state, peer.conf)).unwrap();
                        let (state, conf) = (state.unwrap(), conf.unwrap());
                        assert_eq!((event.r#type, conf.peer_asn), (i32::from(Type::State), 65001));
                        assert_eq!(state.neighbor_address, conf.neighbor_address);
                        (conf.neighbor_address, Some(state.session_state()))
                    }
                });
            }
            let old = |state| ("192.0.2.1".to_owned(), state);
            let mut expected = vec![old(None), old(Some(SessionState::Idle))];
            expected.extend((anew == 1).then(|| ("192.0.2.2".to_owned(), Some(SessionState::Active))));
            assert_eq!(told, expected);
        }
    }
}
