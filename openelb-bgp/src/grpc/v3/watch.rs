//! `WatchEvent`: what happens, to a client that listens.
//!
//! Each watcher has a bounded place in the speaker's queue of events; one that falls behind is told so and dropped, and
//! the speaker never waits for it.

use std::{
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

use super::{path, peer, status};
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
            if self.tell(event).await.is_err() {
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

    async fn tell(&self, event: Event) -> Result<(), Gone> {
        match event {
            Event::State { peer, state } if self.interest.peers => {
                // One that is gone has nothing to show.
                let address = self.address_of(&peer).await;
                let Some(address) = address else { return Ok(()) };
                match self.core.peers(Some(address)).await.first() {
                    Some(view) => self.send_peer(Type::State, Some(peer::peer_event(view, state))).await,
                    None => Ok(()),
                }
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
                let from = snapshot.peers.get(&peer);
                let path = match (&route, from) {
                    (Some(route), Some(from)) => path::received(from, route),
                    _ => apipb::Path {
                        neighbor_ip: from.map_or_else(String::new, |from| from.address.to_string()),
                        ..path::withdrawn(prefix, path_id)
                    },
                };
                self.send_paths(vec![path]).await
            }
            _ => Ok(()),
        }
    }

    async fn address_of(&self, peer: &PeerName) -> Option<IpAddr> {
        let known = self.core.snapshot().peers.get(peer).map(|known| known.address);
        if known.is_some() {
            return known;
        }
        // So new that no snapshot has it yet.
        let peer = peer.clone();
        let ask = move |speaker: &Speaker| speaker.peers().peers.get(&peer).map(|known| known.address);
        self.speaker.query(ask).await.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apipb::watch_event_request::{Peer, Table, table::Filter};

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
}
