//! Who holds an address, and who may hold it together with them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The name of a holder: a group (a namespace, a tenant) and a name within it.
#[derive(Debug, Clone, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::derived_hash_with_manual_eq,
    reason = "the manual equality is the derived one, by a shorter way"
)]
pub struct HolderId {
    /// What quotas count by, and what sharing by address alone stays within.
    pub group: Arc<str>,
    /// Unique within the group.
    pub name: Arc<str>,
}

/// Most comparisons are of a name with itself: then the text, which may be far away in memory, is not read.
impl PartialEq for HolderId {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.name, &other.name) && same(&self.group, &other.group)
    }
}

impl HolderId {
    /// The holder `group/name`.
    #[must_use]
    pub fn new(group: &str, name: &str) -> Self {
        Self { group: group.into(), name: name.into() }
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.name)
    }
}

/// Transport protocol and port that a holder serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Which transport.
    pub protocol: Transport,
    /// 1 to 65535.
    pub port: u16,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Sctp => "SCTP",
        };
        write!(f, "{protocol} {}", self.port)
    }
}

/// Where traffic may be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Traffic {
    /// Every node delivers to every endpoint.
    #[default]
    Cluster,
    /// A node delivers only to its own endpoints. Two holders with the same digest have the same endpoints.
    Local {
        /// A digest of what selects the endpoints.
        selector: u64,
    },
}

/// What decides whether a holder may share an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Terms {
    /// Holders with the same key may share.
    pub key: Option<Arc<str>>,
    /// No two holders of an address have one in common.
    pub ports: BTreeSet<Port>,
    /// All holders of an address agree on it.
    pub traffic: Traffic,
}

/// Somebody who has or wants addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Who.
    pub id: HolderId,
    /// Since when, in any unit that grows with time; the lower, the older.
    pub created: i64,
    /// Terms of sharing.
    pub terms: Terms,
}

impl Holder {
    /// A holder with no terms.
    #[must_use]
    pub fn new(group: &str, name: &str, created: i64) -> Self {
        Self { id: HolderId::new(group, name), created, terms: Terms::default() }
    }

    /// Orders by age, then group, then name: the order in which the waiting are served and clashes are decided.
    #[must_use]
    pub fn seniority(&self) -> (i64, &HolderId) {
        (self.created, &self.id)
    }
}

/// Which sharing a pool allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// By key; by address within one group.
    #[default]
    Standard,
    /// As `Standard`, and by address across groups too.
    Address,
    /// By key only.
    Key,
    /// Not at all.
    None,
}

/// What stands against sharing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The pool forbids sharing.
    #[error("this pool shares no address")]
    Forbidden,
    /// One of the two has a key and the other has another one or none, or the pool asks for a key.
    #[error("their sharing keys differ or are missing")]
    Key,
    /// Two groups, and neither a common key nor a pool that allows it.
    #[error("they are of different groups and have no common sharing key")]
    Group,
    /// Both serve this port.
    #[error("both use {0}")]
    Port(Port),
    /// One delivers cluster-wide and the other locally.
    #[error("their traffic policies differ")]
    TrafficPolicy,
    /// Both deliver locally, to different endpoints.
    #[error("both take only local traffic, for different endpoints")]
    Selector,
}

/// Whether `newcomer` may join `holder` on an address of a pool with this `sharing`.
///
/// ```
/// use openelb_ipam::{Conflict, Holder, Sharing, may_share};
///
/// let (a, mut b) = (Holder::new("shop", "web", 1), Holder::new("blog", "web", 2));
/// assert_eq!(may_share(Sharing::Standard, &a, &b), Err(Conflict::Group));
/// b.id.group = "shop".into();
/// assert_eq!(may_share(Sharing::Standard, &a, &b), Ok(()));
/// ```
///
/// # Errors
/// The first thing that stands against it.
pub fn may_share(sharing: Sharing, holder: &Holder, newcomer: &Holder) -> Result<(), Conflict> {
    match (sharing, &holder.terms.key, &newcomer.terms.key) {
        (Sharing::None, _, _) => return Err(Conflict::Forbidden),
        (_, Some(a), Some(b)) if a == b => {}
        (Sharing::Key, _, _) | (_, Some(_), _) | (_, _, Some(_)) => return Err(Conflict::Key),
        (Sharing::Standard, None, None) if holder.id.group != newcomer.id.group => {
            return Err(Conflict::Group);
        }
        (Sharing::Standard | Sharing::Address, None, None) => {}
    }
    may_coexist(holder, newcomer)
}

/// Whether two holders of one address get in each other's way: ports and traffic policies alone, as for those who
/// already share it.
///
/// # Errors
/// The first thing that stands against it.
pub fn may_coexist(a: &Holder, b: &Holder) -> Result<(), Conflict> {
    if let Some(port) = a.terms.ports.intersection(&b.terms.ports).next() {
        return Err(Conflict::Port(*port));
    }
    match (a.terms.traffic, b.terms.traffic) {
        (Traffic::Cluster, Traffic::Cluster) => Ok(()),
        (Traffic::Local { selector: a }, Traffic::Local { selector: b }) if a == b => Ok(()),
        (Traffic::Local { .. }, Traffic::Local { .. }) => Err(Conflict::Selector),
        _ => Err(Conflict::TrafficPolicy),
    }
}
