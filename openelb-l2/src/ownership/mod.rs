//! Who owns an address: decided by every node for itself, from what the nodes tell each other.

pub(crate) mod arbiter;
pub(crate) mod membership;
pub(crate) mod message;
pub mod rendezvous;
pub(crate) mod replica;
