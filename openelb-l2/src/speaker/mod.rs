//! One node's whole Layer 2 speaker, without I/O.
//!
//! [`Speaker`] is the machine. Its methods are of three kinds:
//!
//! - **facts and wishes**, as whole sets: [`set_links`](Speaker::set_links), [`set_peers`](Speaker::set_peers),
//!   [`set_desired`](Speaker::set_desired), [`set_settings`](Speaker::set_settings);
//! - **input** from the network and the clock: `handle_*`, each with the time as `now`;
//! - **output**: [`poll_output`](Speaker::poll_output) and [`poll_event`](Speaker::poll_event) until they return `None`,
//!   after every input; then [`poll_timeout`](Speaker::poll_timeout) says when
//!   [`handle_timeout`](Speaker::handle_timeout) is due. A call too early or too often does nothing.
//!
//! A driver whose kernel has no room for a frame says so with [`handle_unsent`](Speaker::handle_unsent).
//!
//! A driver that was suspended must not hand in frames that were queued meanwhile: it drops them, and calls
//! `handle_timeout` with the time as it is now. The machine sees from the time that it is late and answers for nothing
//! until the others have said what they hold.

mod claims;
mod config;
mod decide;
mod entry;
mod gossip;
mod hosts;
mod insist;
#[allow(clippy::module_inception, reason = "the machine is named like its module, as in openelb-bgp")]
mod speaker;
mod types;
mod unsent;

pub use config::{ConfigError, Failback, GossipKey, InvalidNodeName, NodeName, Settings, SpeakerConfig};
pub use speaker::Speaker;
pub use types::{
    AddressStatus, DesiredAddress, Event, Link, LinkIndex, MemberState, MemberStatus, NodeSet, Output, Peer,
    Role, Stats, StopMode,
};
