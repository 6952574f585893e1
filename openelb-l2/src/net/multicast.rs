//! Memberships of solicited-node groups (RFC 4291 section 2.7.1): the kernel sends the MLD reports (RFC 3810) and tells
//! the network card.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::speaker::LinkIndex;

/// Groups per socket: the kernel's room for them (`net.core.optmem_max`) is per socket.
const PER_SOCKET: usize = 200;
/// Groups that could not be joined are tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Who joins and leaves: the kernel, or a test.
pub(super) trait Groups {
    /// A number with which to leave again.
    fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<usize>;
    fn leave(&mut self, link: LinkIndex, group: Ipv6Addr, at: usize);
}

/// Why groups could not be joined.
pub(super) type Refused = BTreeMap<(LinkIndex, Ipv6Addr), String>;

/// The memberships of this process, with those that are wanted in vain: a link may be without IPv6 for a while.
#[derive(Default)]
pub(super) struct Memberships<G = Sockets> {
    groups: G,
    joined: HashMap<(LinkIndex, Ipv6Addr), usize>,
    refused: Refused,
    changed: bool,
    due: Option<Instant>,
}

impl<G: Groups> Memberships<G> {
    /// Joins a group on a link; again is no error. What fails is tried again until the group is left.
    pub(super) fn join(&mut self, link: LinkIndex, group: Ipv6Addr, now: Instant) {
        if self.joined.contains_key(&(link, group)) {
            return;
        }
        match self.groups.join(link, group) {
            Ok(at) => {
                self.joined.insert((link, group), at);
                self.changed |= self.refused.remove(&(link, group)).is_some();
            }
            Err(error) => {
                let error = error.to_string();
                self.due.get_or_insert(now + RETRY);
                if self.refused.get(&(link, group)) != Some(&error) {
                    tracing::warn!(link = link.0, %group, "a multicast group cannot be joined: {error}; it is tried again");
                    self.refused.insert((link, group), error);
                    self.changed = true;
                }
            }
        }
    }

    /// Leaves a group; the link may be gone.
    pub(super) fn leave(&mut self, link: LinkIndex, group: Ipv6Addr) {
        self.changed |= self.refused.remove(&(link, group)).is_some();
        if let Some(at) = self.joined.remove(&(link, group)) {
            self.groups.leave(link, group, at);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.refused.is_empty())
    }

    /// Tries again what could not be joined, when it is time to.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        self.due = None;
        let again: Vec<_> = self.refused.keys().copied().collect();
        for (link, group) in again {
            self.join(link, group, now);
        }
    }

    /// What cannot be joined, if that has changed since the last call.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        std::mem::take(&mut self.changed).then(|| self.refused.clone())
    }
}

/// The kernel's. The sockets are bound to no port that anybody sends to.
#[derive(Default)]
pub(super) struct Sockets(Vec<(Socket, usize)>);

impl Groups for Sockets {
    fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<usize> {
        let full = |error: &io::Error| {
            let errno = error.raw_os_error().map(Errno::from_raw);
            matches!(errno, Some(Errno::ENOMEM | Errno::ENOBUFS))
        };
        for (index, (socket, count)) in self.0.iter_mut().enumerate() {
            if *count >= PER_SOCKET {
                continue;
            }
            match socket.join_multicast_v6(&group, link.0) {
                Ok(()) => {
                    *count += 1;
                    return Ok(index);
                }
                Err(error) if full(&error) => *count = PER_SOCKET,
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        // The loopback: nothing from outside is ever queued here.
        socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())?;
        socket.join_multicast_v6(&group, link.0)?;
        self.0.push((socket, 1));
        Ok(self.0.len() - 1)
    }

    fn leave(&mut self, link: LinkIndex, group: Ipv6Addr, at: usize) {
        if let Some((socket, count)) = self.0.get_mut(at) {
            // A link that is gone took its memberships with it.
            let _ = socket.leave_multicast_v6(&group, link.0);
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that refuses some groups.
    #[derive(Default)]
    struct Picky {
        refuses: Vec<Ipv6Addr>,
        member: Vec<Ipv6Addr>,
    }

    impl Groups for Picky {
        fn join(&mut self, _: LinkIndex, group: Ipv6Addr) -> io::Result<usize> {
            if self.refuses.contains(&group) {
                return Err(io::Error::other("no IPv6 here"));
            }
            self.member.push(group);
            Ok(0)
        }

        fn leave(&mut self, _: LinkIndex, group: Ipv6Addr, _: usize) {
            self.member.retain(|one| *one != group);
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any origin of time will do")]
    fn a_group_that_was_refused_is_tried_again_and_no_other_hides_it() {
        let (link, now) = (LinkIndex(2), Instant::now());
        let [bad, good]: [Ipv6Addr; 2] =
            ["ff02::1:ff00:1", "ff02::1:ff00:2"].map(|text| text.parse().unwrap());
        let mut all = Memberships {
            groups: Picky { refuses: vec![bad], ..Picky::default() },
            ..Memberships::default()
        };
        all.join(link, bad, now);
        all.join(link, good, now);
        let refused: Vec<_> = all.take_refused().unwrap().into_keys().collect();
        assert_eq!(refused, [(link, bad)], "the later success hides nothing");
        assert_eq!(all.poll_timeout(), Some(now + RETRY));
        all.retry(now + RETRY);
        assert_eq!(all.take_refused(), None, "as before");
        assert_eq!(all.poll_timeout(), Some(now + 2 * RETRY));
        all.groups.refuses.clear();
        all.retry(now + 2 * RETRY);
        assert_eq!(all.take_refused(), Some(Refused::new()));
        assert_eq!((all.poll_timeout(), &all.groups.member[..]), (None, &[good, bad][..]));
        all.leave(link, bad);
        assert_eq!(all.groups.member, [good]);
        // What is not wanted any more is not tried again.
        all.groups.refuses.push(bad);
        all.join(link, bad, now);
        all.leave(link, bad);
        assert_eq!((all.poll_timeout(), all.take_refused()), (None, Some(Refused::new())));
    }
}
