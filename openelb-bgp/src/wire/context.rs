//! What the two ends of a session have agreed on.

use super::{
    Family,
    message::{EXTENDED_MAX_MESSAGE_LEN, MAX_MESSAGE_LEN},
};

/// Whether the neighbour is in our AS (RFC 4271 §1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// iBGP.
    Internal,
    /// eBGP.
    #[default]
    External,
}

/// What decides how the bytes of a session are read and written: the outcome of both OPENs.
///
/// The default is an external session on which both ends know four-octet AS numbers and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionContext {
    /// Whether the neighbour is internal: RFC 7606 discards LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST of external ones.
    pub kind: SessionKind,
    /// Both ends know four-octet AS numbers (RFC 6793); else AS_PATH has two-octet numbers, with AS4_PATH beside it.
    pub four_octet_as: bool,
    /// Both ends take messages of up to 65,535 octets (RFC 8654); else 4,096.
    pub extended_messages: bool,
    /// Families in which the neighbour's NLRI carry a path identifier (RFC 7911).
    pub add_path_receive: Vec<Family>,
    /// Families in which our NLRI carry a path identifier (RFC 7911).
    pub add_path_send: Vec<Family>,
    /// IPv4 unicast may have an IPv6 next hop, in MP_REACH_NLRI (RFC 8950).
    pub extended_next_hop: bool,
}

impl SessionContext {
    /// The longest message of this session in octets, header included: 4096 or 65535.
    #[must_use]
    pub const fn max_message_len(&self) -> usize {
        if self.extended_messages { EXTENDED_MAX_MESSAGE_LEN } else { MAX_MESSAGE_LEN }
    }

    /// Whether NLRI of this family carry a path identifier on their way to us.
    #[must_use]
    pub fn receives_path_ids(&self, family: Family) -> bool {
        self.add_path_receive.contains(&family)
    }

    /// Whether NLRI of this family carry a path identifier on their way to the neighbour.
    #[must_use]
    pub fn sends_path_ids(&self, family: Family) -> bool {
        self.add_path_send.contains(&family)
    }

    /// The same session seen from the other end: the two directions of add-path change places.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            add_path_receive: self.add_path_send.clone(),
            add_path_send: self.add_path_receive.clone(),
            ..self.clone()
        }
    }
}

impl Default for SessionContext {
    fn default() -> Self {
        Self {
            kind: SessionKind::External,
            four_octet_as: true,
            extended_messages: false,
            add_path_receive: Vec::new(),
            add_path_send: Vec::new(),
            extended_next_hop: false,
        }
    }
}
