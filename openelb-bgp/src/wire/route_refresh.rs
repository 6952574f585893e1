//! The ROUTE-REFRESH message.

use super::Family;

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
}
