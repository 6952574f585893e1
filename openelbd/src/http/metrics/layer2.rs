//! What the Layer 2 speaker says of itself.

use std::fmt;

use openelb_l2::speaker::{MemberState, Role};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{Labels, count, counters, gauges};
use crate::adapter::layer2::Layer2Source;

pub(super) struct Layer2Collector {
    source: Layer2Source,
}

impl Layer2Collector {
    pub(super) fn new(source: Layer2Source) -> Self {
        Self { source }
    }
}

impl fmt::Debug for Layer2Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer2Collector").finish_non_exhaustive()
    }
}

fn role(role: &Role) -> &'static str {
    match role {
        Role::Probing => "probing",
        Role::Owner => "owner",
        Role::StandIn { .. } => "stand-in",
        Role::HandingOver { .. } => "handing-over",
        Role::Conflict { .. } => "conflict",
        _ => "standby",
    }
}

const ROLES: [&str; 6] = ["owner", "stand-in", "handing-over", "probing", "conflict", "standby"];

fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Restarting => "restarting",
        _ => "down",
    }
}

const STATES: [&str; 4] = ["alive", "suspect", "restarting", "down"];

impl Collector for Layer2Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(snapshot) = (self.source)() else { return Ok(()) };
        let addresses =
            |name: &str| snapshot.addresses.iter().filter(|one| role(&one.status.role) == name).count();
        let members = |name: &str| snapshot.members.iter().filter(|one| state(one.state) == name).count();
        let sample = |label, name: &'static str, number: usize| -> (Labels<'_>, f64) {
            (vec![(label, name)], count(u64::try_from(number).unwrap_or(u64::MAX)))
        };
        gauges(
            &mut encoder,
            "l2_addresses",
            "Addresses of Layer 2 by what this node does for them",
            ROLES.map(|name| sample("role", name, addresses(name))),
        )?;
        gauges(
            &mut encoder,
            "l2_members",
            "The other nodes that gossip, by state",
            STATES.map(|name| sample("state", name, members(name))),
        )?;
        gauges(
            &mut encoder,
            "l2_gossip_listening",
            "Whether the port of gossip is open",
            [(vec![], f64::from(u8::from(snapshot.gossip_problem.is_none())))],
        )?;
        let (machine, driver) = (snapshot.stats, snapshot.driver);
        let all: [(&str, &str, u64); 14] = [
            ("l2_frames", "Frames of ARP and neighbour discovery that concern our addresses", machine.frames),
            ("l2_replies", "Requests that were answered", machine.replies),
            ("l2_gratuitous", "Gratuitous frames that were sent", machine.gratuitous),
            ("l2_claims", "Addresses that were claimed", machine.claims),
            ("l2_decisions", "Times that it was decided what to do for an address", machine.decisions),
            ("l2_address_conflicts", "Frames in which a stranger claimed an address", machine.conflicts),
            ("l2_defences", "Frames that were sent against strangers", machine.defences),
            ("l2_malformed_frames", "Frames that could not be understood", machine.malformed_frames),
            ("l2_stalls", "Times that this process did not run for too long", machine.stalls),
            ("l2_discarded_frames", "Frames thrown away because the process had not run", driver.discarded),
            ("l2_unsent", "Frames and datagrams that the kernel did not take", driver.unsent),
            ("l2_receive_errors", "Errors of packet sockets", driver.receive_errors),
            ("l2_gossip_datagrams", "Datagrams of gossip that came in", machine.datagrams),
            (
                "l2_gossip_rejected",
                "Those with a wrong key, without one, broken, or not new",
                machine.rejected_datagrams,
            ),
        ];
        for (name, help, value) in all {
            counters(&mut encoder, name, help, [(vec![], value)])?;
        }
        Ok(())
    }
}
