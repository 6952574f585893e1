//! Memberships of solicited-node groups (RFC 4291 section 2.7.1): the kernel sends the MLD reports (RFC 3810) and tells
//! the network card.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    io,
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::speaker::LinkIndex;

/// Groups per socket: the kernel's room for them (`net.core.optmem_max`) is per socket.
const PER_SOCKET: usize = 200;
/// A group that could not be joined is tried again after this time, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(1);
/// Up to half a minute.
const DOUBLINGS: u32 = 5;
/// So many groups are tried again at a time, and then others after a pause: answers are not to wait for them.
const TRIES: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
/// So many groups are joined or left in a turn, and others in the next one: the kernel takes ever longer the more it has, a
/// second for ten thousand, and whoever does not run for so long takes itself for suspended.
const TURN: usize = 64;
/// What the kernel has is looked at no more often.
const REVIEW: Duration = Duration::from_secs(1);

/// Who joins and leaves: the kernel, or a test.
pub(super) trait Groups {
    /// A number with which to leave again.
    fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<usize>;
    fn leave(&mut self, link: LinkIndex, group: Ipv6Addr, at: usize);
    /// The groups that links are in, of this process and of all others; `None`: it cannot be known.
    fn all(&self) -> Option<HashSet<Key>>;
}

type Key = (LinkIndex, Ipv6Addr);

/// What is to be done for a group in a later turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Join,
    Leave,
    /// To be left and joined: the kernel has forgotten it, or may have.
    Renew,
}

/// Why groups could not be joined.
pub(super) type Refused = BTreeMap<Key, String>;

/// How often a group was refused, when it may be tried again, and what the kernel said.
struct Wait {
    refusals: u32,
    until: Instant,
    cause: String,
}

/// The memberships of this process, with those that are wanted in vain: a link may be without IPv6 for a while.
#[derive(Default)]
pub(super) struct Memberships<G = Sockets> {
    groups: G,
    joined: HashMap<Key, usize>,
    /// What is left for the next turns; a key whose intent changed may be in both, and is done where it comes first.
    joins: VecDeque<Key>,
    leaves: VecDeque<Key>,
    intents: HashMap<Key, Intent>,
    /// Since when something waits.
    since: Option<Instant>,
    /// Joined and left in this turn.
    done: usize,
    refused: Refused,
    /// Of groups that were refused, also of some that are not wanted at the moment: who leaves and joins again does not
    /// wait for less.
    waits: HashMap<Key, Wait>,
    /// The refused ones by when they are tried again.
    due: BTreeSet<(Instant, Key)>,
    changed: bool,
    /// No group is tried again before.
    pause: Option<Instant>,
    review: Option<Instant>,
    reviewed: Option<Instant>,
}

impl<G: Groups> Memberships<G> {
    /// Joins a group on a link; again is no error. What fails is tried again until the group is left.
    pub(super) fn join(&mut self, link: LinkIndex, group: Ipv6Addr, now: Instant) {
        let key = (link, group);
        if let Some(intent) = self.intents.get(&key).copied() {
            if intent == Intent::Leave {
                let again = self.joined.contains_key(&key);
                self.put_off(key, if again { Intent::Renew } else { Intent::Join }, now);
            }
            return;
        }
        if self.joined.contains_key(&key) || self.refused.contains_key(&key) {
            return;
        }
        match self
            .waits
            .get(&key)
            .filter(|wait| wait.until > now)
            .map(|wait| (wait.until, wait.cause.clone()))
        {
            Some((until, cause)) => {
                self.due.insert((until, key));
                self.refused.insert(key, cause);
                self.changed = true;
            }
            None if self.has_time(Intent::Join) => self.attempt(key, now),
            None => self.put_off(key, Intent::Join, now),
        }
    }

    /// Whether it can be done in this turn, after what was wanted before. Nothing waits for a group to be left, so that is
    /// half of a turn at most.
    fn has_time(&mut self, intent: Intent) -> bool {
        let first = self.joins.is_empty() && (intent != Intent::Leave || self.leaves.is_empty());
        let has_time = first && self.done < if intent == Intent::Leave { TURN / 2 } else { TURN };
        self.done += usize::from(has_time);
        has_time
    }

    fn put_off(&mut self, key: Key, intent: Intent, now: Instant) {
        self.since.get_or_insert(now);
        let queue = if intent == Intent::Leave { &mut self.leaves } else { &mut self.joins };
        queue.push_back(key);
        self.intents.insert(key, intent);
    }

    fn renew(&mut self, key: Key, now: Instant) {
        self.drop_out(key);
        self.attempt(key, now);
    }

    /// Does what there was no time for before, and ends the turn.
    fn catch_up(&mut self, now: Instant) {
        while self.done < TURN
            && let Some(key) = self.joins.pop_front().or_else(|| self.leaves.pop_front())
        {
            let (joined, refused) = (self.joined.contains_key(&key), self.refused.contains_key(&key));
            match self.intents.remove(&key) {
                Some(Intent::Renew) if joined => self.renew(key, now),
                Some(Intent::Join | Intent::Renew) if !joined && !refused => self.attempt(key, now),
                Some(Intent::Leave) if joined => self.drop_out(key),
                _ => continue,
            }
            self.done += 1;
        }
        self.done = 0;
        self.since = self.since.filter(|_| !self.intents.is_empty());
    }

    fn drop_out(&mut self, key: Key) {
        if let Some(at) = self.joined.remove(&key) {
            self.groups.leave(key.0, key.1, at);
        }
    }

    fn attempt(&mut self, key: Key, now: Instant) {
        let (link, group) = key;
        match self.groups.join(link, group) {
            Ok(at) => self.note_joined(key, at),
            Err(error) => {
                let cause = error.to_string();
                let refusals = self.waits.get(&key).map_or(0, |wait| wait.refusals).saturating_add(1);
                let until = now + RETRY * (1 << (refusals - 1).min(DOUBLINGS));
                self.due.insert((until, key));
                if self.refused.get(&key) != Some(&cause) {
                    if refusals == 1 {
                        tracing::warn!(link = link.0, %group, "a multicast group cannot be joined: {cause}; it is tried again");
                    }
                    self.refused.insert(key, cause.clone());
                    self.changed = true;
                }
                self.waits.insert(key, Wait { refusals, until, cause });
            }
        }
    }

    fn note_joined(&mut self, key: Key, at: usize) {
        self.joined.insert(key, at);
        self.changed |= self.refused.remove(&key).is_some();
        if let Some(wait) = self.waits.remove(&key) {
            self.due.remove(&(wait.until, key));
        }
    }

    /// Leaves a group; the link may be gone.
    pub(super) fn leave(&mut self, link: LinkIndex, group: Ipv6Addr, now: Instant) {
        let key = (link, group);
        if let Some(intent) = self.intents.get(&key).copied() {
            if intent != Intent::Leave {
                self.put_off(key, Intent::Leave, now);
            }
            return;
        }
        if self.refused.remove(&key).is_some() {
            self.changed = true;
            if let Some(wait) = self.waits.get(&key) {
                self.due.remove(&(wait.until, key));
            }
        }
        if self.joined.contains_key(&key) {
            if self.has_time(Intent::Leave) {
                self.drop_out(key);
            } else {
                self.put_off(key, Intent::Leave, now);
            }
        }
    }

    /// The links changed in some way: the kernel forgets the groups of one on which IPv6 is switched off, and does not
    /// join them again when it is switched on.
    pub(super) fn suspect(&mut self, now: Instant) {
        if self.joined.is_empty() && self.refused.is_empty() {
            return;
        }
        let at = self.reviewed.map_or(now, |last| now.max(last + REVIEW));
        self.review.get_or_insert(at);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.next_try(), self.review, self.since].into_iter().flatten().min()
    }

    fn next_try(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| self.pause.map_or(*at, |pause| pause.max(*at)))
    }

    /// To be called at the end of each turn: does what there was no time for before, tries again what could not be joined,
    /// when it is time to, and what the kernel has forgotten.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.review.is_some_and(|at| at <= now) {
            (self.review, self.reviewed) = (None, Some(now));
            self.rejoin(now);
        }
        self.catch_up(now);
        if self.next_try().is_none_or(|at| at > now) {
            return;
        }
        let mut tried = 0;
        while let Some((at, key)) = self.due.first().copied().filter(|(at, _)| *at <= now && tried < TRIES) {
            self.due.remove(&(at, key));
            self.attempt(key, now);
            tried += 1;
        }
        self.pause = (tried == TRIES).then(|| now + PAUSE);
        // What was refused, is not wanted any more and would not have to wait, is forgotten.
        let refused = &self.refused;
        self.waits.retain(|key, wait| refused.contains_key(key) || wait.until > now);
    }

    fn rejoin(&mut self, now: Instant) {
        let Some(all) = self.groups.all() else { return };
        let lost: Vec<_> = self.joined.keys().filter(|key| !all.contains(key)).copied().collect();
        for key in lost {
            // One for which something is to be done anyway is renewed or left by that.
            if self.intents.contains_key(&key) {
                continue;
            }
            if self.has_time(Intent::Renew) {
                self.renew(key, now);
            } else {
                self.put_off(key, Intent::Renew, now);
            }
        }
        // A link whose groups were refused may take them now: one of them tells.
        let mut links: Vec<Key> = self.refused.keys().copied().collect();
        links.dedup_by_key(|(link, _)| *link);
        for key in links {
            let Ok(at) = self.groups.join(key.0, key.1) else { continue };
            self.note_joined(key, at);
            let others = self.refused.keys().filter(|(link, _)| *link == key.0);
            for other in others {
                if let Some(wait) = self.waits.get_mut(other) {
                    self.due.remove(&(std::mem::replace(&mut wait.until, now), *other));
                }
                self.due.insert((now, *other));
            }
        }
    }

    /// What cannot be joined, if that has changed since the last call.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        // Of thousands that are refused, all are told at once.
        (self.intents.is_empty() && std::mem::take(&mut self.changed)).then(|| self.refused.clone())
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

    fn all(&self) -> Option<HashSet<Key>> {
        // Of the thread's own network namespace.
        let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").ok()?;
        Some(text.lines().filter_map(group_of).collect())
    }
}

/// The link and the group of a line of `/proc/net/igmp6`: index, name, 32 hexadecimal digits, and more.
fn group_of(line: &str) -> Option<Key> {
    let mut words = line.split_ascii_whitespace();
    let link = words.next()?.parse().ok()?;
    let group = u128::from_str_radix(words.nth(1)?, 16).ok()?;
    Some((LinkIndex(link), Ipv6Addr::from_bits(group)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any origin of time will do")]
mod tests {
    use super::*;

    /// A kernel that refuses some groups.
    #[derive(Default)]
    struct Picky {
        refuses: HashSet<Ipv6Addr>,
        member: Vec<Ipv6Addr>,
        joins: usize,
    }

    impl Groups for Picky {
        fn join(&mut self, _: LinkIndex, group: Ipv6Addr) -> io::Result<usize> {
            self.joins += 1;
            if self.refuses.contains(&group) {
                return Err(io::Error::other("no IPv6 here"));
            }
            self.member.push(group);
            Ok(0)
        }

        fn leave(&mut self, _: LinkIndex, group: Ipv6Addr, _: usize) {
            self.member.retain(|one| *one != group);
        }

        fn all(&self) -> Option<HashSet<Key>> {
            Some(self.member.iter().map(|group| (LINK, *group)).collect())
        }
    }

    const LINK: LinkIndex = LinkIndex(2);

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, n)
    }

    fn refusing(groups: impl IntoIterator<Item = Ipv6Addr>) -> Memberships<Picky> {
        let picky = Picky { refuses: groups.into_iter().collect(), ..Picky::default() };
        Memberships { groups: picky, ..Memberships::default() }
    }

    #[test]
    fn a_group_that_was_refused_is_tried_again_and_no_other_hides_it() {
        let (link, now) = (LINK, Instant::now());
        let [bad, good] = [group(1), group(2)];
        let mut all = refusing([bad]);
        all.join(link, bad, now);
        all.join(link, good, now);
        let refused: Vec<_> = all.take_refused().unwrap().into_keys().collect();
        assert_eq!(refused, [(link, bad)], "the later success hides nothing");
        assert_eq!(all.poll_timeout(), Some(now + RETRY));
        all.retry(now + RETRY);
        assert_eq!(all.take_refused(), None, "as before");
        assert_eq!(all.poll_timeout(), Some(now + 3 * RETRY));
        all.groups.refuses.clear();
        all.retry(now + 3 * RETRY);
        assert_eq!(all.take_refused(), Some(Refused::new()));
        assert_eq!((all.poll_timeout(), &all.groups.member[..]), (None, &[good, bad][..]));
        all.leave(link, bad, now);
        assert_eq!(all.groups.member, [good]);
        // What is not wanted any more is not tried again.
        all.groups.refuses.insert(bad);
        all.join(link, bad, now);
        all.leave(link, bad, now);
        assert_eq!((all.poll_timeout(), all.take_refused()), (None, Some(Refused::new())));
    }

    #[test]
    fn a_refused_group_is_tried_ever_more_seldom_whatever_is_wanted_meanwhile() {
        let start = Instant::now();
        let mut all = refusing([group(1)]);
        for millisecond in 0..600_000 {
            let now = start + Duration::from_millis(millisecond);
            // It is wanted, and not, and wanted again, as while an address is probed.
            all.join(LINK, group(1), now);
            all.retry(now);
            if millisecond % 3 == 0 {
                all.leave(LINK, group(1), now);
            }
        }
        // After 0, 1, 3, 7, 15 and 31 seconds, and then every 32.
        assert!((20..=25).contains(&all.groups.joins), "{}", all.groups.joins);
        all.groups.refuses.clear();
        all.join(LINK, group(1), start + Duration::from_secs(700));
        all.retry(start + Duration::from_secs(700));
        assert_eq!((&all.groups.member[..], all.poll_timeout()), (&[group(1)][..], None));
    }

    #[test]
    fn many_refused_groups_do_not_take_the_thread_at_once() {
        let start = Instant::now();
        let mut all = refusing((0..1000).map(group));
        (0..1000).for_each(|n| all.join(LINK, group(n), start));
        while all.groups.joins < 1000 {
            all.retry(start);
        }
        let mut now = start + RETRY;
        let mut most = 0;
        while now < start + 2 * RETRY {
            let before = all.groups.joins;
            all.retry(now);
            most = most.max(all.groups.joins - before);
            now = all.poll_timeout().unwrap().max(now + Duration::from_millis(1));
        }
        assert_eq!((all.groups.joins, most), (2000, TRIES));
    }

    #[test]
    fn many_groups_do_not_take_the_thread_at_once() {
        let now = Instant::now();
        let mut all = refusing([]);
        // In each turn something is wanted, and then there is the rest.
        let mut turns = 0;
        let mut turn = |all: &mut Memberships<Picky>, work: &mut dyn FnMut(&mut Memberships<Picky>)| {
            let before = all.groups.member.clone();
            work(all);
            all.retry(now);
            let after = &all.groups.member;
            let new = after.iter().filter(|one| !before.contains(one)).count();
            let gone = before.iter().filter(|one| !after.contains(one)).count();
            assert!(new + gone <= TURN, "{new} and {gone}");
            turns += 1;
            assert!(turns < 100, "it comes to an end");
        };
        turn(&mut all, &mut |all| (0..500).for_each(|n| all.join(LINK, group(n), now)));
        assert_eq!(all.groups.member, (0..64).map(group).collect::<Vec<_>>(), "in order");
        assert!(all.poll_timeout().is_some_and(|at| at <= now), "there is more");
        // One that is there goes, and of two that are not yet one is not wanted any more, and one is again.
        turn(&mut all, &mut |all| {
            all.leave(LINK, group(3), now);
            all.leave(LINK, group(400), now);
            all.leave(LINK, group(401), now);
            all.join(LINK, group(401), now);
        });
        while all.poll_timeout().is_some() {
            turn(&mut all, &mut |_| ());
        }
        let expected: Vec<_> = (0..500).filter(|n| ![3, 400].contains(n)).map(group).collect();
        assert_eq!((&all.groups.member, all.groups.joins), (&expected, 499));
        // The kernel forgets them all, and has them again.
        all.groups.member.clear();
        all.suspect(now);
        while all.poll_timeout().is_some() {
            turn(&mut all, &mut |_| ());
        }
        all.groups.member.sort_unstable();
        assert_eq!((&all.groups.member, all.groups.joins), (&expected, 499 + 498));
        // One that is claimed does not wait for hundreds that are left, and one of those that is wanted after all is joined
        // anew: its link may have gone and come.
        turn(&mut all, &mut |all| {
            (4..400).for_each(|n| all.leave(LINK, group(n), now));
            all.join(LINK, group(600), now);
            all.join(LINK, group(399), now);
        });
        assert!(all.groups.member.contains(&group(600)));
        while all.poll_timeout().is_some() {
            turn(&mut all, &mut |_| ());
        }
        let mut expected: Vec<_> =
            (0..500).filter(|n| ![3, 400].contains(n) && !(4..399).contains(n)).map(group).collect();
        expected.push(group(600));
        all.groups.member.sort_unstable();
        assert_eq!((&all.groups.member, all.groups.joins), (&expected, 499 + 498 + 2));
        turn(&mut all, &mut |all| (0..=600).for_each(|n| all.leave(LINK, group(n), now)));
        while all.poll_timeout().is_some() {
            turn(&mut all, &mut |_| ());
        }
        assert!(all.groups.member.is_empty());
    }

    #[test]
    fn groups_that_the_kernel_forgot_are_joined_again() {
        let start = Instant::now();
        let mut all = refusing([]);
        all.join(LINK, group(1), start);
        all.join(LINK, group(2), start);
        all.suspect(start);
        all.retry(start);
        assert_eq!((all.groups.joins, all.poll_timeout()), (2, None), "all is well");
        // IPv6 goes off, and the link takes no groups for a while.
        all.groups.member.clear();
        all.groups.refuses = [group(1), group(2)].into();
        all.suspect(start);
        assert_eq!(all.poll_timeout(), Some(start + REVIEW));
        all.retry(start + REVIEW);
        assert_eq!(all.take_refused().map(|refused| refused.len()), Some(2));
        let later = start + Duration::from_secs(120);
        let mut now = start + REVIEW;
        while let Some(at) = all.poll_timeout().filter(|at| *at < later) {
            now = at;
            all.retry(now);
        }
        // And is back: nobody waits for the next try.
        all.groups.refuses.clear();
        all.suspect(now);
        let at = all.poll_timeout().unwrap();
        assert!(at <= now + REVIEW);
        all.retry(at);
        all.retry(at);
        all.groups.member.sort_unstable();
        assert_eq!(all.groups.member, [group(1), group(2)]);
        assert_eq!((all.take_refused(), all.poll_timeout()), (Some(Refused::new()), None));
    }

    #[test]
    fn a_line_of_the_kernel_is_a_link_and_a_group() {
        let line = "12   eth0            ff0200000000000000000001ff000100     1 00000004 0";
        assert_eq!(group_of(line), Some((LinkIndex(12), group(0x100))));
        assert_eq!(group_of("12 eth0"), None);
    }
}
