//! The ROUTE-REFRESH message.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, Family, HeaderError};

/// A wish to get a family's routes again, or a marker around them (RFC 2918, RFC 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family.
    pub family: Family,
    /// What it says.
    pub kind: RouteRefreshKind,
}

/// The subtype of a ROUTE-REFRESH (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteRefreshKind {
    /// 0: send the routes again.
    Request,
    /// 1: the refresh begins.
    Begin,
    /// 2: the refresh is complete.
    End,
    /// Any other: to be ignored (RFC 7313 §5).
    Unknown(u8),
}

impl RouteRefresh {
    /// A request for a family's routes.
    #[must_use]
    pub const fn request(family: Family) -> Self {
        Self { family, kind: RouteRefreshKind::Request }
    }

    /// Reads a body. A request may be followed by filters (RFC 5291), which we never ask for and leave out.
    pub(crate) fn decode(body: &[u8], message: &[u8]) -> Result<Self, DecodeError> {
        let Some(([high, low, kind, safi], rest)) = body.split_first_chunk() else {
            let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
            return Err(HeaderError::BadLength { length }.into());
        };
        let kind = RouteRefreshKind::from_code(*kind);
        if matches!(kind, RouteRefreshKind::Begin | RouteRefreshKind::End) && !rest.is_empty() {
            return Err(DecodeError::RouteRefreshLength { message: Bytes::copy_from_slice(message) });
        }
        Ok(Self { family: Family { afi: u16::from_be_bytes([*high, *low]), safi: *safi }, kind })
    }

    pub(crate) fn write(self, out: &mut BytesMut) {
        out.put_u16(self.family.afi);
        out.put_slice(&[self.kind.code(), self.family.safi]);
    }
}

impl RouteRefreshKind {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Request,
            1 => Self::Begin,
            2 => Self::End,
            other => Self::Unknown(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Begin => 1,
            Self::End => 2,
            Self::Unknown(code) => code,
        }
    }
}
