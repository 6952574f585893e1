//! Nodes that came or went, and are not told of yet.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use openelb_l2::speaker::{Event, MemberState, MemberStatus, NodeName};

/// Who tells of a node is decided so much later: those that went at the same time are known then, and who is back by then
/// is not told of.
pub(super) const DELIBERATION: Duration = Duration::from_secs(3);
/// A link that went down no earlier than so long before the others, or twice as long as it takes to know that they are gone,
/// may be why they are not heard.
const BLINDED: Duration = Duration::from_secs(10);

/// What a snapshot says of the others, and of this node's own links: their names, and whether they are up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) members: &'a [MemberStatus],
    pub(super) links: &'a [(&'a str, bool)],
}

/// What waits to be told.
#[derive(Debug)]
pub(super) struct Comings {
    waiting: VecDeque<Coming>,
    /// Of whom it was told last that they are gone.
    gone: BTreeSet<NodeName>,
    blinded: Duration,
    /// When each link of this node was up for the last time.
    up: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Coming {
    event: Event,
    heard: Instant,
    /// It is told [`DELIBERATION`] after this.
    since: Instant,
}

impl Comings {
    /// `suspicion`: how long it takes to know that a node is gone.
    pub(super) fn new(suspicion: Duration) -> Self {
        Self {
            waiting: VecDeque::new(),
            gone: BTreeSet::new(),
            blinded: BLINDED.max(suspicion.saturating_mul(2)),
            up: BTreeMap::new(),
        }
    }

    /// Takes in that a node came or went. `settled`: this node knows already whom a start finds.
    pub(super) fn hear(&mut self, event: Event, settled: bool, now: Instant) {
        if let Event::SpeakerUp { node: back } = &event {
            let before = self.waiting.len();
            self.waiting
                .retain(|coming| !matches!(&coming.event, Event::SpeakerDown { node } if node == back));
            let known = |coming: &Coming| matches!(&coming.event, Event::SpeakerUp { node } if node == back);
            if self.waiting.iter().any(known) {
                return;
            }
            // Whom a start finds is news where it was said to be gone.
            if self.waiting.len() < before || !settled && !self.gone.contains(back) {
                return;
            }
        }
        self.waiting.push_back(Coming { event, heard: now, since: now });
    }

    /// This process did not run, or hears nobody for a reason of its own: whom it misses may be there all the same.
    pub(super) fn deliberate_anew(&mut self, now: Instant) {
        for coming in &mut self.waiting {
            coming.since = now;
        }
    }

    /// The speaker is another one.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.up.clear();
    }

    /// Forgets what was said of nodes that are none any more.
    pub(super) fn keep(&mut self, is_node: impl Fn(&str) -> bool) {
        self.gone.retain(|node| is_node(node.as_str()));
    }

    /// What is to be told now.
    pub(super) fn due(&mut self, seen: Seen<'_>, now: Instant) -> Vec<Event> {
        self.look(seen, now);
        if self.is_blind(seen) {
            self.deliberate_anew(now);
        }
        let is_due = |coming: &Coming| now.saturating_duration_since(coming.since) >= DELIBERATION;
        let mut due = Vec::new();
        while self.waiting.front().is_some_and(is_due) {
            let Some(coming) = self.waiting.pop_front() else { break };
            if holds(&coming.event, seen) {
                match &coming.event {
                    Event::SpeakerDown { node } => drop(self.gone.insert(node.clone())),
                    Event::SpeakerUp { node } => drop(self.gone.remove(node)),
                    _ => {}
                }
                due.push(coming.event);
            }
        }
        due
    }

    fn look(&mut self, seen: Seen<'_>, now: Instant) {
        self.up.retain(|known, _| seen.links.iter().any(|(name, _)| name == known));
        for (name, _) in seen.links.iter().filter(|(_, up)| *up) {
            self.up.insert((*name).to_owned(), now);
        }
    }

    /// Nobody is heard, and a link of this node went down with the others: that says nothing of them.
    fn is_blind(&self, seen: Seen<'_>) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        if seen.members.iter().any(|member| member.state == MemberState::Alive) {
            return false;
        }
        let mut down = seen.links.iter().filter(|(_, up)| !up);
        down.any(|(name, _)| self.up.get(*name).is_some_and(|up| *up + self.blinded >= first.heard))
    }
}

/// Whether what is to be told of a node is still so.
fn holds(event: &Event, seen: Seen<'_>) -> bool {
    let lives = |name: &_| {
        let member = seen.members.iter().find(|member| member.node == *name);
        member.is_some_and(|member| matches!(member.state, MemberState::Alive | MemberState::Suspect))
    };
    match event {
        Event::SpeakerDown { node } => !lives(node),
        Event::SpeakerUp { node } => lives(node),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use MemberState::{Alive, Down};

    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn up(name: &str) -> Event {
        Event::SpeakerUp { node: node(name) }
    }

    fn down(name: &str) -> Event {
        Event::SpeakerDown { node: node(name) }
    }

    fn fresh() -> Comings {
        Comings::new(Duration::from_millis(600))
    }

    /// What is told when this is seen.
    fn due(
        comings: &mut Comings,
        members: &[(&str, MemberState)],
        links: &[(&str, bool)],
        now: Instant,
    ) -> Vec<Event> {
        let members: Vec<_> =
            members.iter().map(|(name, state)| MemberStatus::new(node(name), *state)).collect();
        comings.due(Seen { members: &members, links }, now)
    }

    #[test]
    fn a_node_that_is_back_before_it_is_told_of_is_not_told_of() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        // The link of this node flapped for 1.5 s.
        comings.hear(down("node-2"), true, at(0));
        comings.hear(down("node-3"), true, at(10));
        assert_eq!(due(&mut comings, &[("node-2", Down), ("node-3", Down)], &[("eth0", true)], at(20)), []);
        comings.hear(up("node-2"), true, at(1500));
        // Not even where its return is no news, as after a pause of this process.
        comings.hear(up("node-3"), false, at(1510));
        let both = [("node-2", Alive), ("node-3", Alive)];
        for ms in [1520, 3100, 5000] {
            assert_eq!(due(&mut comings, &both, &[("eth0", true)], at(ms)), [], "{ms}");
        }
    }

    #[test]
    fn what_is_not_so_any_more_is_not_told() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        comings.hear(down("node-2"), true, at(0));
        assert_eq!(due(&mut comings, &[("node-2", Alive)], &[], at(3000)), [], "its return is not heard yet");
        comings.hear(up("node-2"), true, at(4000));
        comings.hear(down("node-2"), true, at(5000));
        assert_eq!(due(&mut comings, &[("node-2", Down)], &[], at(7500)), [], "it did not stay");
        assert_eq!(due(&mut comings, &[("node-2", Down)], &[], at(8000)), [down("node-2")]);
        comings.hear(up("node-2"), true, at(9000));
        assert_eq!(due(&mut comings, &[("node-2", Alive)], &[], at(12000)), [up("node-2")]);
    }

    #[test]
    fn the_only_other_node_is_told_of() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        // Nobody ever plugged a cable into eth1.
        let links = [("eth0", true), ("eth1", false)];
        due(&mut comings, &[("node-2", Alive)], &links, at(0));
        comings.hear(down("node-2"), true, at(1000));
        assert_eq!(due(&mut comings, &[("node-2", Down)], &links, at(4000)), [down("node-2")]);
    }

    #[test]
    fn who_hears_nobody_because_its_own_link_is_down_blames_nobody() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        due(&mut comings, &[("node-2", Alive)], &[("eth0", true)], at(0));
        comings.hear(down("node-2"), true, at(2000));
        for ms in (2000..60_000).step_by(2000) {
            assert_eq!(due(&mut comings, &[("node-2", Down)], &[("eth0", false)], at(ms)), [], "{ms}");
        }
        // The link is back, and the other still is not.
        let mut back = |ms| due(&mut comings, &[("node-2", Down)], &[("eth0", true)], at(ms));
        assert_eq!(back(60_000), [], "it has the time to answer");
        assert_eq!(back(61_000), [down("node-2")]);

        // Where another is heard, it is not the link.
        comings.hear(down("node-3"), true, at(70_000));
        let other = [("node-2", Alive), ("node-3", Down)];
        assert_eq!(due(&mut comings, &other, &[("eth0", false)], at(73_000)), [down("node-3")]);
    }

    #[test]
    fn one_that_is_back_after_a_pause_is_told_of_again_when_it_dies_again() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        comings.hear(down("node-2"), true, at(0));
        assert_eq!(due(&mut comings, &[("node-2", Down)], &[], at(3000)), [down("node-2")]);
        // Of this process, which knows nobody yet, or is another one.
        comings.clear();
        comings.hear(up("node-2"), false, at(10_000));
        comings.hear(up("node-3"), false, at(10_000));
        comings.hear(up("node-2"), false, at(10_100));
        let both = [("node-2", Alive), ("node-3", Alive)];
        assert_eq!(due(&mut comings, &both, &[], at(13_000)), [up("node-2")]);
        comings.hear(down("node-2"), true, at(20_000));
        comings.keep(|_| false);
        comings.hear(up("node-2"), false, at(21_000));
        comings.hear(up("node-2"), false, at(22_000));
        assert_eq!(due(&mut comings, &both, &[], at(30_000)), []);
    }

    #[test]
    fn a_link_may_be_why_for_as_long_as_it_takes_to_miss_the_others() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        for (suspicion, told) in [(1, vec![down("node-2")]), (15, vec![])] {
            let mut comings = Comings::new(Duration::from_secs(suspicion));
            due(&mut comings, &[("node-2", Alive)], &[("eth0", true)], at(0));
            comings.hear(down("node-2"), true, at(16));
            assert_eq!(due(&mut comings, &[("node-2", Down)], &[("eth0", false)], at(20)), told);
        }
    }

    #[test]
    fn who_did_not_run_gives_the_others_time_to_answer() {
        let (start, mut comings) = (Instant::now(), fresh());
        let at = |ms: u64| start + Duration::from_millis(ms);
        comings.hear(down("node-2"), true, at(0));
        comings.deliberate_anew(at(30_000));
        assert_eq!(due(&mut comings, &[("node-2", Down)], &[], at(30_500)), []);
        assert_eq!(due(&mut comings, &[("node-2", Down)], &[], at(33_000)), [down("node-2")]);
    }
}
