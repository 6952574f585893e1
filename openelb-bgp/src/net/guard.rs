//! What watches over sessions beside BGP itself: keys and TTLs of listeners, BFD, the links to neighbours.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::{
    bfd::{Bfd, Wanted},
    connection::IoEvent,
    handle::Shutdown,
    links::{self, Links},
    listener,
    protection::Protection,
    socket_options,
};
use crate::{
    bfd::SessionConfig,
    speaker::{PeerConfig, PeerName, PeersSnapshot, SessionStatus, Speaker},
    wire::Capability,
};

/// Segments with a wrong signature are told of this often at most.
const MD5_TOLD_EVERY: Duration = Duration::from_secs(60);
/// BFD waits for the session of a neighbour that restarts for this long at most.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// And for so long after it is established: the neighbour may see that a little later.
const AFTER_ESTABLISHED: Duration = Duration::from_secs(1);

/// The watch over one speaker's sessions.
pub(super) struct Guard {
    protection: watch::Sender<Arc<Protection>>,
    strangers: Arc<AtomicU64>,
    bfd: Bfd,
    /// The BFD sessions as they were wanted last.
    wanted: Vec<Wanted>,
    /// Neighbours with an established session under graceful restart: for how long they may be away.
    graceful: HashMap<PeerName, Duration>,
    /// For how long they keep our routes while we restart.
    kept: HashMap<PeerName, Duration>,
    began: Instant,
    /// Those whose session has ended: until when BFD waits for the next one.
    away: HashMap<PeerName, Instant>,
    links: watch::Receiver<Arc<Links>>,
    /// Until the first neighbour is there.
    links_sender: Option<watch::Sender<Arc<Links>>>,
    links_task: Option<AbortHandle>,
    /// The table of links is another one, or its task has ended.
    links_changed: bool,
    /// The link of each established session with a directly connected neighbour.
    places: HashMap<PeerName, (u32, String)>,
    /// Internal neighbours that were seen to be directly connected; they stay so while a link is away.
    near: HashSet<PeerName>,
    /// What the kernel had dropped before we began.
    md5_before: u64,
    /// What was told of it, and when.
    md5_told: Option<(Instant, u64)>,
}

impl Guard {
    pub(super) fn new(online: bool) -> Self {
        let (links_sender, links) = watch::channel(Arc::default());
        Self {
            protection: watch::Sender::new(Arc::default()),
            strangers: Arc::default(),
            bfd: Bfd::default(),
            wanted: Vec::new(),
            graceful: HashMap::new(),
            kept: HashMap::new(),
            began: Instant::now(),
            away: HashMap::new(),
            links,
            links_sender: online.then_some(links_sender),
            links_task: None,
            links_changed: false,
            places: HashMap::new(),
            near: HashSet::new(),
            md5_before: md5_failures(),
            md5_told: None,
        }
    }

    /// What a listener needs.
    pub(super) fn listener(&self, events: mpsc::Sender<IoEvent>) -> listener::Common {
        listener::Common {
            protection: self.protection.subscribe(),
            strangers: Arc::clone(&self.strangers),
            events,
        }
    }

    /// Connections that listeners have refused by themselves.
    pub(super) fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// The neighbours may be others: listeners and BFD follow.
    pub(super) fn configure(&mut self, speaker: &Speaker) {
        let peers = speaker.peer_configs();
        let protection = Protection::new(speaker.known_peer_configs(), speaker.dynamic_peers());
        self.protection.send_if_modified(|current| {
            let changed = **current != protection;
            if changed {
                *current = Arc::new(protection);
            }
            changed
        });
        let mut any = false;
        let mut wanted = Vec::new();
        for peer in peers {
            any = true;
            wanted.extend(self.wanted(peer, speaker.config().asn));
        }
        self.near.retain(|name| wanted.iter().any(|wanted| *wanted.session.name == *name.as_str()));
        self.wanted = wanted;
        self.bfd.set(self.wanted.clone());
        if any && let Some(sender) = self.links_sender.take() {
            self.links_task = Some(tokio::spawn(links::watch(sender)).abort_handle());
        }
    }

    /// The BFD session with a neighbour.
    fn wanted(&mut self, peer: &PeerConfig, asn: u32) -> Option<Wanted> {
        let bfd = peer.bfd?;
        if peer.admin_down {
            return None;
        }
        let remote = peer.address.to_canonical();
        let link_local = matches!(remote, std::net::IpAddr::V6(remote) if remote.is_unicast_link_local());
        let scope = if link_local { socket_options::scope(peer).unwrap_or_default() } else { 0 };
        let name: Arc<str> = peer.name.as_str().into();
        let multihop = if peer.multihop_ttl.is_some() || peer.ttl_security.is_some_and(|hops| hops > 1) {
            true
        } else if peer.asn != peer.local_asn.unwrap_or(asn) || link_local || self.near.contains(&peer.name) {
            false
        } else {
            let links = Arc::clone(&self.links.borrow());
            if links.is_empty() {
                return None; // asked again when the table is there
            }
            let near = links.towards(peer.local_address, remote, scope).is_some();
            if near {
                self.near.insert(peer.name.clone());
            }
            !near
        };
        let base = if multihop {
            SessionConfig::multihop(name, remote)
        } else {
            SessionConfig::single_hop(name, remote)
        };
        let session = SessionConfig {
            local: peer.local_address,
            interface: scope,
            minimum_ttl: bfd.minimum_ttl.unwrap_or(base.minimum_ttl),
            timers: bfd.timers,
            wait_until: self.away.get(&peer.name).copied(),
            resume: peer
                .graceful_restart
                .is_some_and(|restart| restart.restarting && self.began.elapsed() < restart.restart_time),
            ..base
        };
        Some(Wanted { session, bind_interface: peer.bind_interface.clone() })
    }

    /// Until [`act`](Self::act) has something to do, or a status is another one. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let watching = self.links_task.is_some();
        let changed = tokio::select! {
            biased;
            () = self.bfd.changed() => return,
            changed = self.links.changed(), if watching => changed,
        };
        self.links_changed = true;
        if changed.is_err() {
            // The task has panicked: no link is known any more, and no session ends for it.
            tracing::error!("links are watched no more");
            self.links_task = None;
        }
    }

    /// Tells the speaker of paths and links that are lost. Cheap if there is nothing.
    pub(super) fn act(&mut self, speaker: &mut Speaker, now: Instant) {
        for (name, state) in self.bfd.take() {
            // A neighbour that is gone is told of in vain.
            let _ = speaker.handle_bfd(&PeerName::new(name), state, now);
        }
        if std::mem::take(&mut self.links_changed) {
            let links = Arc::clone(&self.links.borrow_and_update());
            self.places.retain(|name, (index, interface)| {
                let up = links.is_up(*index);
                if !up {
                    let _ = speaker.handle_link_down(name, interface, now);
                }
                up
            });
            // Whether an internal neighbour is directly connected may be clear now.
            self.configure(speaker);
        }
    }

    /// Adds what is known here, and remembers on which links sessions are.
    pub(super) fn complete(&mut self, snapshot: &mut PeersSnapshot) {
        let links = Arc::clone(&self.links.borrow());
        let bfd = self.bfd.status();
        for (name, peer) in &mut snapshot.peers {
            peer.bfd = bfd.as_ref().and_then(|bfd| bfd.sessions.get(name.as_str()).cloned());
            let Some(session) = &peer.session else {
                self.places.remove(name);
                continue;
            };
            let scope = match session.remote {
                std::net::SocketAddr::V6(remote) => remote.scope_id(),
                std::net::SocketAddr::V4(_) => 0,
            };
            if let Some((index, link)) = links.towards(Some(session.local.ip()), session.remote.ip(), scope)
                && link.up
            {
                self.places.insert(name.clone(), (index, link.name.clone()));
            }
        }
        self.places.retain(|name, _| snapshot.peers.contains_key(name));
        self.follow_restarts(snapshot);
        snapshot.bfd_discarded = bfd.map_or(0, |bfd| bfd.discarded);
        if self.has_passwords() {
            snapshot.md5_failures = md5_failures().saturating_sub(self.md5_before);
            self.tell_md5(snapshot.md5_failures);
        }
    }

    /// A neighbour that restarts sets up BFD and BGP anew. Some (FRR) set BFD up once more when BGP is established: if it
    /// was up by then, they take that for a lost path, end the session, and drop the routes they had kept. So a BFD session
    /// that has gone down with BGP comes up after BGP, at most for the neighbour's restart time: one that wants BFD up
    /// first gets it then.
    fn follow_restarts(&mut self, snapshot: &PeersSnapshot) {
        let now = Instant::now();
        let mut changed = false;
        for (name, peer) in &snapshot.peers {
            if let Some(session) = &peer.session {
                if let Some(until) = self.away.get_mut(name)
                    && *until > now + AFTER_ESTABLISHED
                    && now < session.since + AFTER_ESTABLISHED
                {
                    *until = session.since + AFTER_ESTABLISHED;
                    changed = true;
                }
                if let Some((ours, theirs)) = restart_times(session) {
                    self.graceful.insert(name.clone(), theirs);
                    self.kept.insert(name.clone(), ours);
                } else {
                    self.graceful.remove(name);
                    self.kept.remove(name);
                }
            } else if let Some(time) = self.graceful.remove(name) {
                self.kept.remove(name);
                self.away.insert(name.clone(), now + time.min(AWAY_MAX));
                changed = true;
            }
        }
        self.graceful.retain(|name, _| snapshot.peers.contains_key(name));
        self.kept.retain(|name, _| snapshot.peers.contains_key(name));
        self.away.retain(|name, _| snapshot.peers.contains_key(name));
        if changed {
            for wanted in &mut self.wanted {
                wanted.session.wait_until =
                    self.away.get(&PeerName::new(Arc::clone(&wanted.session.name))).copied();
            }
            self.bfd.set(self.wanted.clone());
        }
    }

    /// Whether the kernel has something to count that no event tells of.
    pub(super) fn has_passwords(&self) -> bool {
        self.protection.borrow().has_keys()
    }

    fn tell_md5(&mut self, failures: u64) {
        let (due, before) =
            self.md5_told.map_or((true, 0), |(at, count)| (at.elapsed() >= MD5_TOLD_EVERY, count));
        if due && failures > before {
            let dropped = failures - before;
            tracing::warn!(
                dropped,
                "a neighbour has another TCP MD5 password than is configured here, or none"
            );
            self.md5_told = Some((Instant::now(), failures));
        }
    }

    /// Ends BFD sessions in a way that no neighbour takes for a failure. One that keeps our routes while we restart is
    /// asked to hold its session meanwhile; the others are told that it ends.
    pub(super) async fn stop(&mut self, mode: Shutdown) {
        if mode == Shutdown::Quiet {
            for wanted in &mut self.wanted {
                let kept = self.kept.get(&PeerName::new(Arc::clone(&wanted.session.name))).copied();
                wanted.session.hold = kept.unwrap_or_default().min(AWAY_MAX);
            }
            self.bfd.set(self.wanted.clone());
        }
        self.bfd.stop().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(task) = &self.links_task {
            task.abort();
        }
    }
}

/// For how long we and the neighbour may be away, if both ends offer graceful restart.
fn restart_times(session: &SessionStatus) -> Option<(Duration, Duration)> {
    let of = |capabilities: &[Capability]| {
        capabilities.iter().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(Duration::from_secs(restart.time.into())),
            _ => None,
        })
    };
    of(&session.local_capabilities).zip(of(&session.remote_capabilities))
}

/// Segments that the kernel has dropped for a signature that is missing, wrong or not expected, in this network
/// namespace since it began: all that is seen here of a neighbour with another password.
fn md5_failures() -> u64 {
    std::fs::read_to_string("/proc/self/net/netstat").map_or(0, |text| count_md5_failures(&text))
}

fn count_md5_failures(netstat: &str) -> u64 {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let of = |name: &str| ["TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"].contains(&name);
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| of(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fsm::ConnectionInfo,
        speaker::{DynamicPeers, Secret, SpeakerConfig},
    };

    #[test]
    fn a_dynamic_neighbour_needs_no_key_beside_that_of_its_prefix() {
        let now = Instant::now();
        let mut speaker = Speaker::new(SpeakerConfig::new(65000, [192, 0, 2, 1].into()), now).unwrap();
        let mut template = PeerConfig::new("rack", "10.1.0.1".parse().unwrap(), 65001);
        template.password = Some(Secret::new("many"));
        let group = DynamicPeers { prefix: "10.1.0.0/16".parse().unwrap(), template, max_peers: 5 };
        speaker.set_dynamic_peers(vec![group.clone()], now).unwrap();
        let mut known = PeerConfig::new("known", "192.0.2.2".parse().unwrap(), 65001);
        known.password = Some(Secret::new("one"));
        speaker.set_peers(vec![known.clone()], now).unwrap();
        let mut guard = Guard::new(false);
        let expected = Protection::new(std::iter::once(&known), &[group]);
        guard.configure(&speaker);
        assert_eq!(**guard.protection.borrow(), expected);
        let info = ConnectionInfo {
            local: "192.0.2.1:179".parse().unwrap(),
            remote: "10.1.0.7:33000".parse().unwrap(),
        };
        let accepted = speaker.accept(info, now).unwrap();
        assert_eq!(accepted.config.password, Some(Secret::new("many")), "its own socket keeps the key");
        guard.configure(&speaker);
        assert_eq!(**guard.protection.borrow(), expected);
    }

    #[test]
    fn failures_are_summed_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected Other TCPMD5Failure\n\
                    TcpExt: 9 1 2 100 4\nIpExt: InNoRoutes\nIpExt: 8\n";
        assert_eq!(count_md5_failures(text), 7);
        assert_eq!(count_md5_failures("TcpExt: TCPMD5Failure\n"), 0);
        assert_eq!(count_md5_failures(""), 0);
    }
}
