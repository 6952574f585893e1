//! What happened on a LAN → what is told about which object.

use std::{collections::BTreeSet, net::IpAddr};

use openelb_k8s::{announce::Announcements, names::event};
use openelb_l2::{
    net::Snapshot,
    speaker::{Event, MemberState},
};

/// Which object it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The Services that publish this address.
    Address(IpAddr),
    /// A Node.
    Node(String),
    /// This node's speaker.
    Speaker,
}

/// Something to tell, or the end of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// About what.
    pub about: About,
    /// What is told later about the same replaces it.
    pub topic: &'static str,
    /// `None`: what was told before is over, or another node tells now; the same is news when it comes again.
    pub word: Option<Word>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Something is wrong.
    pub warning: bool,
    /// In CamelCase.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// What this node has told, and nobody replaced.
#[derive(Debug, Default)]
pub struct Spoken(BTreeSet<(About, &'static str)>);

impl Spoken {
    /// Takes note of something that is to be told; `false`: it ends nothing that was told, so there is nothing to tell.
    pub fn note(&mut self, told: &Told) -> bool {
        let key = (told.about.clone(), told.topic);
        if told.word.is_some() {
            self.0.insert(key);
            return true;
        }
        self.0.remove(&key)
    }

    /// Forgets what was told of addresses and nodes that are gone: nothing else ends it. Returns what is to be told for
    /// that, of the nodes: should one come back, the same is news. (Whose an address was, nobody knows any more.)
    pub fn forget(&mut self, desired: &Announcements) -> Vec<Told> {
        let gone = |(about, _): &(About, &'static str)| match about {
            About::Address(address) => !desired.addresses.contains_key(address),
            About::Node(node) => *node != desired.node && !desired.layer2.nodes.contains_key(node),
            About::Speaker => false,
        };
        let (gone, kept): (BTreeSet<_>, _) = std::mem::take(&mut self.0).into_iter().partition(gone);
        self.0 = kept;
        let nodes = gone.into_iter().filter(|(about, _)| matches!(about, About::Node(_)));
        nodes.map(|(about, topic)| Told { about, topic, word: None }).collect()
    }

    /// How many words hold.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was told that still holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What this node tells of an event; each is told by one node. Who tells of a node depends on who lives: the snapshot
/// should be later than the event.
#[must_use]
pub fn told(node: &str, event: &Event, snapshot: &Snapshot) -> Option<Told> {
    const OWNER: &str = "owner";
    const CONFLICT: &str = "conflict";
    const SPEAKER: &str = "speaker";
    let told = |about, warning, topic, reason, message| {
        Some(Told { about, topic, word: Some(Word { warning, reason, message }) })
    };
    let over = |about, topic| Some(Told { about, topic, word: None });
    match event {
        Event::OwnerChanged { address, owner: Some(owner) } if owner.as_str() == node => {
            let message = format!("{node} answers for {address}");
            told(About::Address(*address), false, OWNER, event::OWNER_CHANGED, message)
        }
        Event::OwnerChanged { address, .. } | Event::StandInEnded { address, .. } => {
            over(About::Address(*address), OWNER)
        }
        Event::StandInStarted { address, owner } => {
            let message = format!(
                "the speaker of {owner} is gone, but the node lives: {node} answers for {address} with the MAC address \
                 of {owner}, and connections go on"
            );
            told(About::Address(*address), false, OWNER, event::STAND_IN, message)
        }
        Event::AddressConflict { address, link, mac } => {
            let link = snapshot.links.iter().find(|known| known.index == *link);
            let link = link.map_or("an interface", |known| known.name.as_str());
            let message = format!(
                "{mac}, which is no node of ours, claims {address} on {link} of {node}: take the address off that \
                 machine, or exclude it from the Eip"
            );
            told(About::Address(*address), true, CONFLICT, event::ADDRESS_CONFLICT, message)
        }
        Event::AddressConflictEnded { address } => {
            let message = format!("nobody else claims {address} any more");
            told(About::Address(*address), false, CONFLICT, event::ADDRESS_CONFLICT_ENDED, message)
        }
        Event::SpeakerDown { node: gone } if speaks_for_all(node, gone.as_str(), snapshot) => {
            let message = format!("the speaker of {gone} does not answer; {node} says so for all");
            told(About::Node(gone.to_string()), true, SPEAKER, event::SPEAKER_DOWN, message)
        }
        Event::SpeakerUp { node: back } if speaks_for_all(node, back.as_str(), snapshot) => {
            let message = format!("the speaker of {back} answers");
            told(About::Node(back.to_string()), false, SPEAKER, event::SPEAKER_UP, message)
        }
        Event::SpeakerDown { node } | Event::SpeakerUp { node } => {
            over(About::Node(node.to_string()), SPEAKER)
        }
        Event::Stalled { late } => {
            let message = format!(
                "this process did not run for {} ms; it answered for nothing until the others had said what they hold: \
                 give it more CPU, or the node less to do",
                late.as_millis()
            );
            told(About::Speaker, true, "stalled", event::SPEAKER_STALLED, message)
        }
        _ => None,
    }
}

/// Whether this node is the first of those that live, but for the one that is told about: whether that one counts now
/// is what the others may not agree on. Where nobody else lives, it is the only one that can tell.
fn speaks_for_all(node: &str, about: &str, snapshot: &Snapshot) -> bool {
    let living = snapshot.members.iter().filter(|member| member.state == MemberState::Alive);
    living.map(|member| member.node.as_str()).filter(|other| *other != about).all(|other| node < other)
}
