//! UPDATE messages packed full.

use bytes::BytesMut;

use super::{EncodeError, EncodedAttributes, Family, NextHop, Nlri, SessionContext};

/// Writes UPDATE messages for one session: many prefixes for one attribute set, each message as full as it can be.
///
/// Every method takes prefixes from the iterator while they fit and leaves the rest in it: pass `&mut iterator` to go
/// on later, when the socket takes more. Prefixes of another family than asked for are an error, and are consumed.
/// Nothing is allocated but room in `out`.
#[derive(Clone, Debug)]
pub struct UpdateBuilder {
    max_len: usize,
    ipv4_path_ids: bool,
    ipv6_path_ids: bool,
}

impl UpdateBuilder {
    /// A builder for a session: its message size, and the families that have path identifiers.
    #[must_use]
    pub fn new(cx: &SessionContext) -> Self {
        Self {
            max_len: cx.max_message_len(),
            ipv4_path_ids: cx.sends_path_ids(Family::IPV4_UNICAST),
            ipv6_path_ids: cx.sends_path_ids(Family::IPV6_UNICAST),
        }
    }

    /// Writes **one** UPDATE that announces IPv4 prefixes in its body, and returns how many. `attributes` hold the
    /// NEXT_HOP. Nothing is written if the iterator is at its end.
    ///
    /// # Errors
    /// If the attributes leave no room for one prefix, have no NEXT_HOP, or a prefix is not IPv4: nothing is written.
    pub fn announce_ipv4(
        &self,
        attributes: &EncodedAttributes,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let _ = (self.max_len, self.ipv4_path_ids, self.ipv6_path_ids, attributes, nlri, out);
        Ok(0)
    }

    /// Writes **one** UPDATE that announces prefixes of `family` in MP_REACH_NLRI (RFC 4760 §3), and returns how many:
    /// IPv6, or IPv4 with an IPv6 next hop (RFC 8950). `attributes` have no NEXT_HOP.
    ///
    /// # Errors
    /// If the attributes leave no room for one prefix or have a NEXT_HOP, or a prefix is not of the family: nothing is
    /// written.
    pub fn announce_mp(
        &self,
        family: Family,
        next_hop: NextHop,
        attributes: &EncodedAttributes,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let _ = (family, next_hop, attributes, nlri, out);
        Ok(0)
    }

    /// Writes **one** UPDATE that withdraws prefixes of `family`, and returns how many: IPv4 in the body, IPv6 in
    /// MP_UNREACH_NLRI.
    ///
    /// # Errors
    /// If a prefix is not of the family, or the family is not unicast: nothing is written.
    pub fn withdraw(
        &self,
        family: Family,
        nlri: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let _ = (family, nlri, out);
        Ok(0)
    }

    /// Writes the End-of-RIB marker of a family (RFC 4724 §2).
    pub fn end_of_rib(&self, family: Family, out: &mut BytesMut) {
        let _ = (family, out);
    }
}
