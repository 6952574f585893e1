//! Writes the changes of one family into UPDATE messages.

use bytes::BytesMut;

use super::{
    attributes::AttributeSet,
    egress::{Egress, Encoded},
};
use crate::wire::{Family, Nlri, UpdateBuilder};

/// What the messages say of their prefixes.
#[derive(Debug)]
enum Group {
    Withdraw,
    Announce(Encoded),
    /// The attributes cannot be encoded.
    Unsendable,
}

/// Writes UPDATE messages of one family to one neighbour.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    out: &'a mut BytesMut,
    /// No message is begun once this much is written.
    limit: usize,
    family: Family,
    builder: UpdateBuilder,
    group: Group,
    messages: u64,
}

impl<'a> Packer<'a> {
    /// `limit`: about how many octets to write.
    pub(crate) fn new(out: &'a mut BytesMut, limit: usize, egress: &Egress) -> Self {
        let builder = UpdateBuilder::new(&egress.context);
        Self { out, limit, family: egress.family, builder, group: Group::Withdraw, messages: 0 }
    }

    /// Whether as much as asked is written.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() >= self.limit
    }

    /// How many messages were written.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The prefixes to come have these attributes; `None`: they are withdrawn.
    pub(crate) fn begin(&mut self, set: Option<&AttributeSet>, egress: &Egress) {
        self.group = match set.map(|set| egress.encode(set)) {
            None => Group::Withdraw,
            Some(Ok(encoded)) => Group::Announce(encoded),
            Some(Err(error)) => {
                // `Egress::check` lets through only what fits.
                tracing::error!(peer = %egress.peer, %error, "attributes cannot be encoded; routes are not sent");
                Group::Unsendable
            }
        };
    }

    /// Writes one message, as full as it can be, and leaves the rest in the iterator. False: the iterator is at its end.
    pub(crate) fn write(&mut self, nlri: impl Iterator<Item = Nlri>) -> bool {
        let written = match &self.group {
            Group::Withdraw => self.builder.withdraw(self.family, nlri, self.out),
            Group::Announce(Encoded { attributes, mp_next_hop: None }) => {
                self.builder.announce_ipv4(attributes, nlri, self.out)
            }
            Group::Announce(Encoded { attributes, mp_next_hop: Some(next_hop) }) => {
                self.builder.announce_mp(self.family, (*next_hop).into(), attributes, nlri, self.out)
            }
            Group::Unsendable => {
                nlri.for_each(drop);
                Ok(0)
            }
        };
        let written = written.unwrap_or_else(|error| {
            tracing::error!(%error, "an UPDATE cannot be written; routes are not sent");
            0
        });
        self.messages += u64::from(written > 0);
        written > 0
    }
}
