//! Why there is no address: from `openelb-ipam`'s refusals to reasons and words.

use openelb_ipam::{Closed, Conflict, PoolId, Refusal};

use super::state::State;
use crate::names::reason;

/// A reason, and each pool that was considered with what stood against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) details: Vec<String>,
}

impl Refused {
    pub(super) fn message(&self) -> String {
        self.details.join("; ")
    }
}

/// The refusals of one want. The first pool that was tried gives the reason: it is the preferred one.
pub(super) fn of(state: &State<'_>, refusals: &[(Option<PoolId>, Refusal)]) -> Refused {
    let details = refusals.iter().map(|(pool, refusal)| match pool {
        Some(id) => format!("{}: {}", state.name(*id), words(refusal)),
        None => match refusal {
            Refusal::OutsidePool(address) => format!("{address} lies in no Eip"),
            other => words(other),
        },
    });
    Refused {
        reason: refusals.first().map_or(reason::NO_MATCHING_POOL, |(_, refusal)| code(refusal)),
        details: details.collect(),
    }
}

fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Closed(Closed::Disabled) => reason::POOL_DISABLED,
        Refusal::Closed(Closed::Deleting) => reason::POOL_DELETING,
        Refusal::Closed(Closed::Invalid) => reason::POOL_INVALID,
        Refusal::FamilyUnavailable(_) | Refusal::Incomplete(_) => reason::FAMILY_UNAVAILABLE,
        Refusal::OutsidePool(_) => reason::ADDRESS_OUTSIDE_POOLS,
        Refusal::Excluded(_) => reason::ADDRESS_EXCLUDED,
        Refusal::InUse { .. } => reason::ADDRESS_IN_USE,
        Refusal::SharingConflict { .. } => reason::SHARING_CONFLICT,
        Refusal::QuotaExceeded { .. } => reason::QUOTA_EXCEEDED,
        // Exhausted, a full record, and what a later version may add: nothing can be given.
        _ => reason::POOL_EXHAUSTED,
    }
}

fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Closed(Closed::Full) => {
            "its status has no room for more (StatusFull); add another Eip".to_owned()
        }
        Refusal::Closed(Closed::Invalid) => "its spec cannot be used".to_owned(),
        Refusal::QuotaExceeded { group, limit } => {
            format!("namespace {group} already has {limit} of its addresses (maxPerNamespace)")
        }
        Refusal::SharingConflict { address, holder, conflict } => {
            let conflict = match conflict {
                Conflict::Key => "their sharing keys (allow-shared-ip) differ or are missing".to_owned(),
                Conflict::Group => {
                    "it is in another namespace and they have no common sharing key (allow-shared-ip)"
                        .to_owned()
                }
                Conflict::TrafficPolicy => "their externalTrafficPolicy differs".to_owned(),
                Conflict::Selector => {
                    "both have externalTrafficPolicy Local, with different selectors".to_owned()
                }
                other => other.to_string(),
            };
            format!("{address} cannot be shared with {holder}: {conflict}")
        }
        Refusal::Incomplete(address) => {
            format!("could give {address}, but the Service requires both families (RequireDualStack)")
        }
        other => other.to_string(),
    }
}
