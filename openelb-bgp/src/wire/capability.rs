//! Capabilities (RFC 5492).

use bytes::Bytes;

use super::Family;

/// What a speaker can do, told in its OPEN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// 1: a family whose routes it exchanges (RFC 4760 §8).
    Multiprotocol(Family),
    /// 2: it takes ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// 5: families that may have next hops of another AFI (RFC 8950).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// 6: it takes messages of up to 65,535 octets (RFC 8654).
    ExtendedMessage,
    /// 64: graceful restart (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// 65: its AS number in four octets (RFC 6793).
    FourOctetAs(u32),
    /// 69: families in which it sends or takes several paths to one prefix (RFC 7911).
    AddPath(Vec<AddPathFamily>),
    /// 70: it marks the begin and the end of a refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// 71: long-lived graceful restart (RFC 9494), not decoded.
    LongLivedGracefulRestart(Bytes),
    /// Any other, and one of the above whose value is malformed: it is as if it were not there.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value, at most 255 octets.
        value: Bytes,
    },
}

/// One row of the extended next hop capability (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedNextHop {
    /// The family of the prefixes.
    pub family: Family,
    /// The AFI that their next hop may have.
    pub next_hop_afi: u16,
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GracefulRestart {
    /// R: the speaker has restarted.
    pub restarted: bool,
    /// N: NOTIFICATIONs and expired hold timers leave routes in place too (RFC 8538).
    pub notification: bool,
    /// How long the session may stay away before its routes go, in seconds, 0 to 4095.
    pub time: u16,
    /// The families that it is offered for.
    pub families: Vec<GracefulRestartFamily>,
}

/// A family of the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: Family,
    /// F: forwarding went on during the restart.
    pub forwarding: bool,
}

/// A family of the add-path capability (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddPathFamily {
    /// The family.
    pub family: Family,
    /// Which way.
    pub mode: AddPathMode,
}

/// What a speaker does with several paths to one prefix (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddPathMode {
    /// 1: takes them.
    Receive,
    /// 2: sends them.
    Send,
    /// 3: both.
    Both,
}

impl AddPathMode {
    /// Whether it takes them.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receive | Self::Both)
    }

    /// Whether it sends them.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::Send | Self::Both)
    }
}

impl Capability {
    /// Its code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => 1,
            Self::RouteRefresh => 2,
            Self::ExtendedNextHop(_) => 5,
            Self::ExtendedMessage => 6,
            Self::GracefulRestart(_) => 64,
            Self::FourOctetAs(_) => 65,
            Self::AddPath(_) => 69,
            Self::EnhancedRouteRefresh => 70,
            Self::LongLivedGracefulRestart(_) => 71,
            Self::Unknown { code, .. } => *code,
        }
    }
}
