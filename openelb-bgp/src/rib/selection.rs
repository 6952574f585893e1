//! Which of a prefix's routes is the best (RFC 4271 §9.1.2.2), and which step decided it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use crate::wire::{AsPath, Attributes, Origin};

/// LOCAL_PREF of a route that came without one: from an external neighbour.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// The step of the decision that separated a route from a better one, in the order in which they are taken.
///
/// What RFC 4271 §9.1.2.2 has between external routes and BGP identifiers, the interior cost to the next hop, is not
/// known here and equal for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BestPathStep {
    /// There is no other route.
    OnlyRoute,
    /// Our own routes come before received ones.
    LocalOrigin,
    /// The higher LOCAL_PREF (§9.1.1); 100 where there is none.
    LocalPreference,
    /// The shorter AS_PATH (§9.1.2.2 a).
    AsPathLength,
    /// The lower ORIGIN (§9.1.2.2 b).
    Origin,
    /// The lower MULTI_EXIT_DISC among routes of one neighbouring AS; 0 where there is none (§9.1.2.2 c).
    MultiExitDisc,
    /// A route of an external neighbour before one of an internal (§9.1.2.2 d).
    ExternalOverInternal,
    /// The lower BGP identifier of the neighbour, or ORIGINATOR_ID (§9.1.2.2 f, RFC 4456 §9).
    RouterId,
    /// The shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// The lower address of the neighbour (§9.1.2.2 g).
    NeighborAddress,
    /// The lower path identifier of one neighbour's routes (RFC 7911), so that the choice is the same everywhere.
    PathIdentifier,
}

impl BestPathStep {
    /// The steps that compare, in order.
    const COMPARING: [Self; 10] = [
        Self::LocalOrigin,
        Self::LocalPreference,
        Self::AsPathLength,
        Self::Origin,
        Self::MultiExitDisc,
        Self::ExternalOverInternal,
        Self::RouterId,
        Self::ClusterListLength,
        Self::NeighborAddress,
        Self::PathIdentifier,
    ];
}

impl fmt::Display for BestPathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyRoute => "only route",
            Self::LocalOrigin => "local origin",
            Self::LocalPreference => "LOCAL_PREF",
            Self::AsPathLength => "AS_PATH length",
            Self::Origin => "ORIGIN",
            Self::MultiExitDisc => "MULTI_EXIT_DISC",
            Self::ExternalOverInternal => "external over internal",
            Self::RouterId => "BGP identifier",
            Self::ClusterListLength => "CLUSTER_LIST length",
            Self::NeighborAddress => "neighbor address",
            Self::PathIdentifier => "path identifier",
        })
    }
}

/// Who a received route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origination {
    pub(crate) external: bool,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) address: IpAddr,
}

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) attributes: &'a Attributes,
    /// `None`: our own.
    pub(crate) from: Option<Origination>,
    pub(crate) path_id: u32,
}

/// What a step minimizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Address(IpAddr),
}

impl Candidate<'_> {
    fn key(&self, step: BestPathStep) -> Key {
        let attributes = self.attributes;
        Key::Number(match step {
            BestPathStep::LocalOrigin => u64::from(self.from.is_some()),
            BestPathStep::LocalPreference => {
                u64::from(u32::MAX - attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
            }
            BestPathStep::AsPathLength => attributes.as_path.as_ref().map_or(0, AsPath::hops) as u64,
            BestPathStep::Origin => u64::from(attributes.origin.unwrap_or(Origin::Incomplete).code()),
            BestPathStep::MultiExitDisc => u64::from(attributes.med.unwrap_or(0)),
            BestPathStep::ExternalOverInternal => u64::from(self.from.is_some_and(|from| !from.external)),
            BestPathStep::RouterId => {
                let own = self.from.map_or(Ipv4Addr::UNSPECIFIED, |from| from.router_id);
                u64::from(attributes.originator_id.unwrap_or(own).to_bits())
            }
            BestPathStep::ClusterListLength => attributes.cluster_list.len() as u64,
            BestPathStep::NeighborAddress => {
                return Key::Address(
                    self.from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| from.address.to_canonical()),
                );
            }
            BestPathStep::PathIdentifier => u64::from(self.path_id),
            BestPathStep::OnlyRoute => 0,
        })
    }

    /// The AS that MULTI_EXIT_DISC is compared within; `None`: ours.
    fn neighboring_as(&self) -> Option<u32> {
        self.attributes.as_path.as_ref().and_then(AsPath::first)
    }
}

/// For each candidate the step at which it lost; for the best one, the step that decided for it.
///
/// The candidates are narrowed down step by step, as the RFC writes it: a comparison of pairs would depend on the order,
/// because MULTI_EXIT_DISC is compared within one neighbouring AS only.
pub(crate) fn decide(candidates: &[Candidate<'_>]) -> Option<(usize, Vec<BestPathStep>)> {
    let mut steps = vec![BestPathStep::OnlyRoute; candidates.len()];
    let mut alive: Vec<(usize, &Candidate<'_>)> = candidates.iter().enumerate().collect();
    let mut last = BestPathStep::OnlyRoute;
    for step in BestPathStep::COMPARING {
        if alive.len() < 2 {
            break;
        }
        let keys: Vec<(Option<u32>, Key)> = alive
            .iter()
            .map(|(_, candidate)| {
                let group = match step {
                    BestPathStep::MultiExitDisc => candidate.neighboring_as(),
                    _ => None,
                };
                (group, candidate.key(step))
            })
            .collect();
        let mut index = 0;
        alive.retain(|(candidate, _)| {
            let own = keys.get(index);
            index += 1;
            let beaten = own.is_some_and(|(group, key)| {
                keys.iter().any(|(other_group, other)| other_group == group && other < key)
            });
            if beaten && let Some(slot) = steps.get_mut(*candidate) {
                *slot = step;
                last = step;
            }
            !beaten
        });
    }
    let (best, _) = *alive.first()?;
    *steps.get_mut(best)? = last;
    Some((best, steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Attributes {
        Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence([64500, 64510])),
            med: Some(10),
            local_pref: Some(100),
            ..Attributes::default()
        }
    }

    fn from(last: u8) -> Origination {
        let address = Ipv4Addr::new(192, 0, 2, last);
        Origination { external: true, router_id: Ipv4Addr::new(10, 0, 0, 7), address: address.into() }
    }

    fn winner(
        a: (&Attributes, Option<Origination>, u32),
        b: (&Attributes, Option<Origination>, u32),
    ) -> (usize, BestPathStep, BestPathStep) {
        let candidate = |(attributes, from, path_id)| Candidate { attributes, from, path_id };
        let both = [candidate(a), candidate(b)];
        let (best, steps) = decide(&both).unwrap();
        // The order in which they are given does not matter.
        let (other, _) = decide(&[candidate(b), candidate(a)]).unwrap();
        assert_eq!(other, 1 - best);
        (best, steps[best], steps[1 - best])
    }

    /// The first route is the better one by exactly one step; all steps before it are equal, all after it speak for the
    /// second one.
    #[test]
    fn each_step_decides_before_those_after_it() {
        use BestPathStep as Step;
        let worse = |step: Step| {
            // A route that is best in all steps after `step` and equal in those before.
            let mut attributes = base();
            let mut origination = from(9);
            let mut path_id = 9;
            if step < Step::AsPathLength {
                attributes.as_path = Some(AsPath::sequence([64500]));
            }
            if step < Step::MultiExitDisc {
                attributes.med = Some(1);
            }
            if step < Step::RouterId {
                origination.router_id = Ipv4Addr::new(10, 0, 0, 1);
            }
            if step < Step::NeighborAddress {
                origination.address = "192.0.2.1".parse().unwrap();
            }
            if step < Step::PathIdentifier {
                path_id = 1;
            }
            (attributes, Some(origination), path_id)
        };
        for step in Step::COMPARING {
            let mut other = worse(step);
            let mut better = (base(), Some(from(9)), 9);
            match step {
                Step::LocalOrigin => better.1 = None,
                Step::LocalPreference => better.0.local_pref = Some(101),
                Step::AsPathLength => other.0.as_path = Some(AsPath::sequence([64500, 64511, 64512])),
                Step::Origin => other.0.origin = Some(Origin::Incomplete),
                Step::MultiExitDisc => better.0.med = Some(9),
                Step::ExternalOverInternal => {
                    other.1 = other.1.map(|from| Origination { external: false, ..from });
                }
                Step::RouterId => {
                    better.1 =
                        better.1.map(|from| Origination { router_id: Ipv4Addr::new(10, 0, 0, 6), ..from });
                }
                Step::ClusterListLength => other.0.cluster_list = vec![Ipv4Addr::LOCALHOST],
                Step::NeighborAddress => better.1 = Some(from(8)),
                Step::PathIdentifier => better.2 = 8,
                Step::OnlyRoute => unreachable!(),
            }
            let found = winner((&better.0, better.1, better.2), (&other.0, other.1, other.2));
            assert_eq!(found, (0, step, step), "{step}");
        }
    }

    #[test]
    fn one_route_is_the_best_and_none_is_none() {
        let attributes = base();
        let only = Candidate { attributes: &attributes, from: None, path_id: 0 };
        assert_eq!(decide(&[only]), Some((0, vec![BestPathStep::OnlyRoute])));
        assert_eq!(decide(&[]), None);
    }

    #[test]
    fn what_is_missing_has_its_default() {
        let plain = base();
        let none = Attributes { local_pref: None, med: None, ..base() };
        assert_eq!(
            winner((&none, Some(from(9)), 0), (&plain, Some(from(1)), 0)).1,
            BestPathStep::MultiExitDisc
        );
        let better = Attributes { local_pref: Some(99), ..base() };
        assert_eq!(
            winner((&none, Some(from(9)), 0), (&better, Some(from(1)), 0)).1,
            BestPathStep::LocalPreference
        );
    }

    /// RFC 4456 §9: ORIGINATOR_ID stands for the BGP identifier.
    #[test]
    fn the_originator_stands_for_the_router_identifier() {
        let plain = base();
        let reflected = Attributes { originator_id: Some(Ipv4Addr::new(1, 1, 1, 1)), ..base() };
        assert_eq!(
            winner((&reflected, Some(from(9)), 0), (&plain, Some(from(1)), 0)).1,
            BestPathStep::RouterId
        );
    }

    /// Of A (AS 1, MED 10), B (AS 2) and C (AS 1, MED 5), A loses to C whatever the order, though a comparison of pairs
    /// could keep A by way of B.
    #[test]
    fn med_is_compared_within_one_neighboring_as_whatever_the_order() {
        let route = |asn, med, last| {
            let attributes = Attributes { as_path: Some(AsPath::sequence([asn])), med: Some(med), ..base() };
            (attributes, from(last))
        };
        let all = [route(1, 10, 1), route(2, 0, 2), route(1, 5, 3)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let candidates = order.map(|index: usize| Candidate {
                attributes: &all[index].0,
                from: Some(all[index].1),
                path_id: 0,
            });
            let (best, steps) = decide(&candidates).unwrap();
            assert_eq!(order[best], 1, "the lower address of B and C");
            let loser = order.iter().position(|index| *index == 0).unwrap();
            assert_eq!(steps[loser], BestPathStep::MultiExitDisc);
        }
    }
}
