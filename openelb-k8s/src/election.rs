//! Leader election over a `Lease` (coordination.k8s.io/v1), without IO: leases in, writes out.
//!
//! Who leads does cluster-wide writes; that two may believe it for a moment does no harm, since every write is a
//! compare-and-swap. As in client-go, time on other machines is not trusted: a lease is over when it was not *seen* to
//! change for its duration on this machine's own clock.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

/// How long a leader that says nothing keeps the lease.
pub const LEASE_DURATION: Duration = Duration::from_secs(8);
/// How often a leader renews, and the others look.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// A leader that could not renew for so long stops leading, before others may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(6);

/// What to do about the lease now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Somebody else leads: look again after [`RETRY_PERIOD`].
    Wait,
    /// Create this lease.
    Create(Box<Lease>),
    /// Replace the lease by this one; it carries the `resourceVersion` that was seen.
    Replace(Box<Lease>),
}

/// One candidate's view of the lease.
#[derive(Debug)]
pub struct Election {
    namespace: String,
    name: String,
    identity: String,
    /// What was seen last, and when it was first seen so.
    seen: Option<(Record, Instant)>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    holder: Option<String>,
    renewed: Option<Timestamp>,
    version: Option<String>,
    duration: Duration,
}

impl Election {
    /// A candidate of this identity, which must differ from all others'.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            seen: None,
            renewed: None,
        }
    }

    /// Does this candidate lead?
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) < RENEW_DEADLINE)
    }

    /// When [`leads`](Self::leads) becomes false unless the lease is renewed.
    #[must_use]
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + RENEW_DEADLINE)
    }

    /// Who held the lease when it was last seen.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().and_then(|(record, _)| record.holder.as_deref())
    }

    /// Takes in the lease as it is (`None`: there is none), and says what to do. `wall` is what others are shown.
    pub fn observe(&mut self, lease: Option<&Lease>, now: Instant, wall: Timestamp) -> Step {
        let Some(lease) = lease else {
            self.seen = None;
            self.renewed = None;
            return Step::Create(Box::new(self.lease(None, wall)));
        };
        let record = record(lease);
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => now,
        };
        let ours = record.holder.as_deref() == Some(self.identity.as_str());
        let free = record.holder.as_deref().is_none_or(str::is_empty);
        let over = now.saturating_duration_since(since) >= record.duration;
        self.seen = Some((record, since));
        if ours || free || over {
            return Step::Replace(Box::new(self.lease(Some(lease), wall)));
        }
        self.renewed = None;
        Step::Wait
    }

    /// The step that was begun at `begun` succeeded; `lease` is what the server answered.
    pub fn succeeded(&mut self, lease: &Lease, begun: Instant) {
        self.seen = Some((record(lease), begun));
        self.renewed = Some(begun);
    }

    /// The lease that gives the leadership up at once; `None` if it is not ours.
    pub fn release(&mut self, lease: &Lease, wall: Timestamp) -> Option<Lease> {
        self.renewed = None;
        let spec = lease.spec.as_ref()?;
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return None;
        }
        let mut released = self.lease(Some(lease), wall);
        if let Some(spec) = &mut released.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        Some(released)
    }

    fn lease(&self, before: Option<&Lease>, wall: Timestamp) -> Lease {
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        let acquired = if ours { spec.acquire_time.clone() } else { None };
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version: before.and_then(|lease| lease.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                acquire_time: acquired.or(Some(MicroTime(wall))),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: Some(
                    spec.lease_transitions.unwrap_or(0).saturating_add((!ours && before.is_some()).into()),
                ),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity,
        renewed: spec.renew_time.map(|time| time.0),
        version: lease.metadata.resource_version.clone(),
        duration: seconds.map_or(LEASE_DURATION, Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease as a server keeps it, with compare-and-swap.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        version: u64,
    }

    impl Server {
        /// Carries a step out, if its version is the present one.
        fn run(&mut self, step: Step) -> Option<Lease> {
            let mut lease = match step {
                Step::Wait => return None,
                Step::Create(lease) if self.lease.is_none() => lease,
                Step::Replace(lease)
                    if self.lease.as_ref().is_some_and(|present| {
                        present.metadata.resource_version == lease.metadata.resource_version
                    }) =>
                {
                    lease
                }
                Step::Create(_) | Step::Replace(_) => return None,
            };
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some((*lease).clone());
            Some(*lease)
        }

        fn turn(&mut self, candidate: &mut Election, now: Instant) {
            let step = candidate.observe(self.lease.as_ref(), now, Timestamp::UNIX_EPOCH);
            if let Some(lease) = self.run(step) {
                candidate.succeeded(&lease, now);
            }
        }
    }

    fn pair() -> (Server, Election, Election, Instant) {
        let candidate = |identity| Election::new("openelb-system", "openelb-controller", identity);
        (Server::default(), candidate("a"), candidate("b"), Instant::now())
    }

    #[test]
    fn the_first_leads_and_the_second_waits() {
        let (mut server, mut a, mut b, t) = pair();
        for second in 0..30 {
            let now = t + Duration::from_secs(second);
            server.turn(&mut a, now);
            server.turn(&mut b, now);
            assert!(a.leads(now) && !b.leads(now), "second {second}");
        }
        assert_eq!(b.holder(), Some("a"));
        let spec = server.lease.and_then(|lease| lease.spec).unwrap_or_default();
        assert_eq!(spec.lease_transitions, Some(0));
    }

    #[test]
    fn one_that_says_nothing_is_followed_after_the_lease_and_leads_no_more_before_that() {
        let (mut server, mut a, mut b, t) = pair();
        server.turn(&mut a, t);
        let mut leader_at = None;
        for tenth in 0..200 {
            let now = t + Duration::from_millis(100 * tenth);
            server.turn(&mut b, now);
            assert!(!(a.leads(now) && b.leads(now)), "two leaders at {tenth}");
            if b.leads(now) {
                leader_at.get_or_insert(now - t);
            }
        }
        assert_eq!(leader_at, Some(LEASE_DURATION));
        // The first one comes back: it sees that it does not lead.
        let late = t + Duration::from_secs(21);
        server.turn(&mut b, late);
        server.turn(&mut a, late);
        assert!(b.leads(late) && !a.leads(late));
    }

    #[test]
    fn a_release_is_followed_at_the_next_look() {
        let (mut server, mut a, mut b, t) = pair();
        server.turn(&mut a, t);
        server.turn(&mut b, t);
        let lease = server.lease.clone().unwrap();
        let released = a.release(&lease, Timestamp::UNIX_EPOCH).unwrap();
        assert!(server.run(Step::Replace(Box::new(released))).is_some());
        assert!(!a.leads(t));
        let next = t + RETRY_PERIOD;
        server.turn(&mut b, next);
        assert!(b.leads(next));
        assert!(
            a.release(server.lease.as_ref().unwrap(), Timestamp::UNIX_EPOCH).is_none(),
            "not a's any more"
        );
    }

    #[test]
    fn a_lease_with_numbers_at_their_ends_is_followed_too() {
        for number in [i32::MIN, -1, i32::MAX] {
            let (mut server, mut a, _, t) = pair();
            let spec = LeaseSpec {
                lease_transitions: Some(number),
                lease_duration_seconds: Some(number),
                ..LeaseSpec::default()
            };
            server.lease = Some(Lease { spec: Some(spec), ..Lease::default() });
            server.turn(&mut a, t);
            assert!(a.leads(t), "{number}");
        }
    }

    #[test]
    fn clocks_of_others_mean_nothing() {
        let (mut server, mut a, mut b, t) = pair();
        let step = a.observe(None, t, "2000-01-01T00:00:00Z".parse().unwrap());
        let lease = server.run(step).unwrap();
        a.succeeded(&lease, t);
        // To b's clock the lease ended long ago; it has not seen it stand still yet.
        assert_eq!(b.observe(server.lease.as_ref(), t, "2030-01-01T00:00:00Z".parse().unwrap()), Step::Wait);
    }

    #[test]
    fn a_lost_race_is_no_leadership() {
        let (mut server, mut a, mut b, t) = pair();
        let (first, second) =
            (a.observe(None, t, Timestamp::UNIX_EPOCH), b.observe(None, t, Timestamp::UNIX_EPOCH));
        let lease = server.run(first).unwrap();
        a.succeeded(&lease, t);
        assert!(server.run(second).is_none());
        assert!(a.leads(t) && !b.leads(t));
    }
}
