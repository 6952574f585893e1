//! Places for the connections of a listener: so many at a time, a few of each source, and some for this host alone. A
//! flood from elsewhere takes no place from whoever asks on this host.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The prefix of an IPv6 host: whoever has one address of it has all.
const IPV6_HOST: u32 = 64;
/// Refusals are told of this often at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// Of these for this host alone.
    pub reserved: usize,
    /// From one other host.
    pub per_source: usize,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This host.
    Own,
    /// Another one.
    Other(IpAddr),
}

impl Source {
    /// The source of a connection. Whoever connects to one of its own addresses comes from that very address, unless it
    /// asks for another: so this host is known without a list of its addresses.
    ///
    /// ```
    /// use openelb_bgp::grpc::places::Source;
    ///
    /// let local = "192.0.2.1:50052".parse()?;
    /// assert_eq!(Source::of("[::ffff:192.0.2.1]:40000".parse()?, Some(local)), Source::Own);
    /// assert_eq!(Source::of("127.0.0.1:40000".parse()?, None), Source::Own);
    /// assert_eq!(Source::of("192.0.2.2:40000".parse()?, Some(local)), Source::Other("192.0.2.2".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn of(peer: SocketAddr, local: Option<SocketAddr>) -> Self {
        let peer = peer.ip().to_canonical();
        let own = peer.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == peer);
        if own { Self::Own } else { Self::Other(peer) }
    }
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("all places that it may have are taken")]
    Full,
    /// Its source has its share.
    #[error("its source has as many connections as one may have")]
    Share,
}

/// The places of one listener.
#[derive(Clone, Debug)]
pub struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    others: HashMap<IpAddr, usize>,
    told: Option<Instant>,
}

impl Places {
    /// All free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for a connection, until it is dropped.
    ///
    /// # Errors
    /// If there is none for this source.
    pub fn take(&self, source: Source) -> Result<Place, Refusal> {
        let mut taken = lock(&self.taken);
        let Limits { connections, reserved, per_source } = self.limits;
        let source = match source {
            Source::Own => None,
            Source::Other(address) => Some(host(address)),
        };
        if let Some(source) = source {
            if taken.others.get(&source).is_some_and(|have| *have >= per_source) {
                return Err(Refusal::Share);
            }
            let others: usize = taken.others.values().sum();
            if others >= connections.saturating_sub(reserved) {
                return Err(Refusal::Full);
            }
        }
        if taken.all >= connections {
            return Err(Refusal::Full);
        }
        taken.all = taken.all.saturating_add(1);
        if let Some(source) = source {
            let have = taken.others.entry(source).or_default();
            *have = have.saturating_add(1);
        }
        Ok(Place { source, taken: Arc::clone(&self.taken) })
    }

    /// Whether to tell of a refusal: now and then.
    #[must_use]
    pub fn tell(&self) -> bool {
        let (mut taken, now) = (lock(&self.taken), Instant::now());
        let due = taken.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if due {
            taken.told = Some(now);
        }
        due
    }
}

/// Somebody who panicked has counted all the same: nothing is half done under the lock.
fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one source.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(IPV6_HOST)).unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        address => address,
    }
}

/// The place of one connection.
#[derive(Debug)]
pub struct Place {
    source: Option<IpAddr>,
    taken: Arc<Mutex<Taken>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        let Some(source) = self.source else { return };
        if let Some(have) = taken.others.get_mut(&source) {
            *have = have.saturating_sub(1);
            if *have == 0 {
                taken.others.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 10, reserved: 2, per_source: 3 };

    fn other(text: &str) -> Source {
        Source::Other(text.parse().unwrap())
    }

    #[test]
    fn a_flood_from_elsewhere_leaves_the_places_of_this_host() {
        let places = Places::new(LIMITS);
        let flood: Vec<_> =
            (0..100).filter_map(|n| places.take(Source::Other([192, 0, 2, n].into())).ok()).collect();
        assert_eq!(flood.len(), 8);
        assert_eq!(places.take(other("198.51.100.1")).unwrap_err(), Refusal::Full);
        let own: Vec<_> = (0..10).filter_map(|_| places.take(Source::Own).ok()).collect();
        assert_eq!(own.len(), 2);
        drop(flood);
        assert_eq!((0..10).map(|_| places.take(Source::Own)).filter(Result::is_ok).count(), 10);
        assert!(places.take(other("198.51.100.1")).is_ok(), "all places are given back");
    }

    #[test]
    fn one_source_has_its_share_and_ipv6_sources_are_hosts_not_addresses() {
        let places = Places::new(LIMITS);
        let held: Vec<_> = (1..=3).map(|n| places.take(other(&format!("2001:db8::{n}"))).unwrap()).collect();
        assert_eq!(places.take(other("2001:db8::ffff")).unwrap_err(), Refusal::Share);
        assert!(places.take(other("2001:db8:0:1::1")).is_ok(), "another host");
        let four: Vec<_> = (0..3).map(|_| places.take(other("192.0.2.1")).unwrap()).collect();
        assert_eq!(places.take(other("::ffff:192.0.2.1")).unwrap_err(), Refusal::Share, "the same host");
        drop((held, four));
        assert!(places.take(other("2001:db8::ffff")).is_ok());
        assert!(lock(&places.taken).others.is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn own_connections_may_take_all_places() {
        let places = Places::new(LIMITS);
        let own: Vec<_> = (0..10).map(|_| places.take(Source::Own).unwrap()).collect();
        assert_eq!(places.take(Source::Own).unwrap_err(), Refusal::Full);
        assert_eq!(places.take(other("192.0.2.1")).unwrap_err(), Refusal::Full);
        drop(own);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_of_once_a_minute() {
        let places = Places::new(LIMITS);
        assert_eq!((places.tell(), places.tell()), (true, false));
        tokio::time::advance(TOLD_EVERY).await;
        assert!(places.tell());
    }
}
