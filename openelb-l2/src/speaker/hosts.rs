//! Does the host of a speaker that is gone still answer on the link, and with which link-layer address?

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::LinkIndex;
use crate::{
    MacAddr,
    ownership::{
        arbiter::Kernel,
        message::{Links, NodeId},
    },
};

/// The first questions follow each other fast, so that a decision waits no longer than three of them.
const FAST: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(200);
/// One that is silent for longer is asked less often: nobody may be there who can take over.
const RARE: Duration = Duration::from_secs(1);
const MANY: u32 = 30;
const QUESTIONS: u32 = 3;
/// An answer is good for this long: three slow questions.
const VALID: Duration = Duration::from_millis(700);

#[derive(Debug)]
struct Host {
    /// The addresses whose owner it is.
    users: BTreeSet<IpAddr>,
    links: Links,
    started: Instant,
    asked: u32,
    next: Instant,
    answers: BTreeMap<LinkIndex, (MacAddr, Instant)>,
    state: Kernel,
}

impl Host {
    fn state(&self, now: Instant) -> Kernel {
        let valid = |at: &Instant| now.saturating_duration_since(*at) <= VALID;
        if self.answers.values().any(|(_, at)| valid(at)) {
            return Kernel::Answers;
        }
        let patience = FAST * QUESTIONS;
        let silent = self.links.iter().all(|(_, probe)| probe.is_none())
            || self.asked >= QUESTIONS && now.saturating_duration_since(self.started) >= patience;
        if silent { Kernel::Silent } else { Kernel::Unknown }
    }
}

/// The hosts that are asked; see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<NodeId, Host>,
}

impl Hosts {
    /// Begins to ask on behalf of an address, or goes on.
    pub(super) fn ask(&mut self, node: NodeId, address: IpAddr, links: &Links, now: Instant) {
        let host = self.hosts.entry(node).or_insert_with(|| Host {
            users: BTreeSet::new(),
            links: links.clone(),
            started: now,
            asked: 0,
            next: now,
            answers: BTreeMap::new(),
            state: Kernel::Unknown,
        });
        host.users.insert(address);
        if !links.is_empty() && host.links != *links {
            host.links.clone_from(links);
        }
    }

    /// Ends it.
    pub(super) fn cease(&mut self, node: NodeId, address: IpAddr) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.users.remove(&address);
            if host.users.is_empty() {
                self.hosts.remove(&node);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    pub(super) fn state(&self, node: NodeId, now: Instant) -> Kernel {
        self.hosts.get(&node).map_or(Kernel::Unknown, |host| host.state(now))
    }

    /// With which link-layer address the host answers on a link.
    pub(super) fn mac(&self, node: NodeId, link: LinkIndex) -> Option<MacAddr> {
        self.hosts.get(&node)?.answers.get(&link).map(|(mac, _)| *mac)
    }

    /// Somebody says where an address is. Returns the addresses that this decides something for.
    pub(super) fn hear(
        &mut self,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddr,
        now: Instant,
    ) -> Vec<IpAddr> {
        let mut touched = Vec::new();
        for host in self.hosts.values_mut() {
            if !host.links.iter().any(|(of, probe)| *of == mac && *probe == Some(address)) {
                continue;
            }
            host.next = host.next.min(now + SLOW);
            let before = host.answers.insert(link, (mac, now)).map(|(mac, _)| mac);
            if before != Some(mac) || host.state != Kernel::Answers {
                host.state = Kernel::Answers;
                touched.extend(host.users.iter().copied());
            }
        }
        touched
    }

    /// The addresses to ask for now, and the addresses that something has been decided for by time.
    pub(super) fn poll(&mut self, now: Instant) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let (mut questions, mut touched) = (Vec::new(), Vec::new());
        for host in self.hosts.values_mut() {
            if host.next <= now {
                host.asked = host.asked.saturating_add(1);
                host.answers.retain(|_, (_, at)| now.saturating_duration_since(*at) <= VALID);
                host.next = now
                    + match host.asked {
                        ..=QUESTIONS => FAST,
                        MANY.. if host.answers.is_empty() => RARE,
                        _ => SLOW,
                    };
                questions.extend(host.links.iter().filter_map(|(_, probe)| *probe));
            }
            let state = host.state(now);
            if state != host.state {
                host.state = state;
                touched.extend(host.users.iter().copied());
            }
        }
        (questions, touched)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.hosts.values().map(|host| host.next).min()
    }
}
