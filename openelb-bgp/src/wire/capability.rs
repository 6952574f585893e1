//! Capabilities (RFC 5492).

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    EncodeError, Family,
    reader::{Reader, elements},
};

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
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Reads a value. Malformed ones are kept as [`Unknown`](Self::Unknown): a speaker that does not understand a
    /// capability goes on without it (RFC 5492 §3).
    pub(crate) fn decode(code: u8, value: &[u8]) -> Self {
        Self::read(code, value)
            .unwrap_or_else(|| Self::Unknown { code, value: Bytes::copy_from_slice(value) })
    }

    fn read(code: u8, value: &[u8]) -> Option<Self> {
        Some(match code {
            1 => {
                let [high, low, _reserved, safi] = value.try_into().ok()?;
                Self::Multiprotocol(family([high, low, safi]))
            }
            2 if value.is_empty() => Self::RouteRefresh,
            5 => Self::ExtendedNextHop(elements(value, |[a, b, _, safi, high, low]| ExtendedNextHop {
                family: family([a, b, safi]),
                next_hop_afi: u16::from_be_bytes([high, low]),
            })?),
            6 if value.is_empty() => Self::ExtendedMessage,
            64 => Self::GracefulRestart(GracefulRestart::read(value)?),
            65 => Self::FourOctetAs(u32::from_be_bytes(value.try_into().ok()?)),
            69 => {
                let rows = elements(value, |[high, low, safi, mode]| {
                    let mode = AddPathMode::from_code(mode)?;
                    Some(AddPathFamily { family: family([high, low, safi]), mode })
                })?;
                // A row of another mode is ignored (RFC 7911 §4).
                Self::AddPath(rows.into_iter().flatten().collect())
            }
            70 if value.is_empty() => Self::EnhancedRouteRefresh,
            _ => return None,
        })
    }

    /// Appends code, length and value.
    pub(crate) fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut value = BytesMut::new();
        match self {
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => {}
            Self::Multiprotocol(family) => {
                value.put_u16(family.afi);
                value.put_slice(&[0, family.safi]);
            }
            Self::ExtendedNextHop(rows) => {
                for row in rows {
                    value.put_u16(row.family.afi);
                    value.put_slice(&[0, row.family.safi]);
                    value.put_u16(row.next_hop_afi);
                }
            }
            Self::GracefulRestart(restart) => restart.write(&mut value)?,
            Self::FourOctetAs(asn) => value.put_u32(*asn),
            Self::AddPath(rows) => {
                for row in rows {
                    value.put_slice(&row.family.to_bytes());
                    value.put_u8(row.mode.code());
                }
            }
            Self::Unknown { value: octets, .. } => value.put_slice(octets),
        }
        let length = value.len();
        let short = u8::try_from(length).map_err(|_| EncodeError::CapabilitiesTooLong { length })?;
        out.put_slice(&[self.code(), short]);
        out.put_slice(&value);
        Ok(())
    }
}

impl GracefulRestart {
    const RESTARTED: u16 = 0x8000;
    const NOTIFICATION: u16 = 0x4000;
    /// The longest restart time that can be written, in seconds.
    pub const MAX_TIME: u16 = 0x0fff;
    const FORWARDING: u8 = 0x80;

    fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let head = reader.u16()?;
        let families = elements(reader.0, |[high, low, safi, flags]| GracefulRestartFamily {
            family: family([high, low, safi]),
            forwarding: flags & Self::FORWARDING != 0,
        })?;
        Some(Self {
            restarted: head & Self::RESTARTED != 0,
            notification: head & Self::NOTIFICATION != 0,
            time: head & Self::MAX_TIME,
            families,
        })
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.time > Self::MAX_TIME {
            return Err(EncodeError::ValueTooLarge {
                field: "restart time",
                value: u64::from(self.time),
                max: u64::from(Self::MAX_TIME),
            });
        }
        let restarted = if self.restarted { Self::RESTARTED } else { 0 };
        let notification = if self.notification { Self::NOTIFICATION } else { 0 };
        out.put_u16(restarted | notification | self.time);
        for row in &self.families {
            out.put_slice(&row.family.to_bytes());
            out.put_u8(if row.forwarding { Self::FORWARDING } else { 0 });
        }
        Ok(())
    }
}

impl AddPathMode {
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Receive,
            2 => Self::Send,
            3 => Self::Both,
            _ => return None,
        })
    }

    const fn code(self) -> u8 {
        match self {
            Self::Receive => 1,
            Self::Send => 2,
            Self::Both => 3,
        }
    }
}

const fn family([high, low, safi]: [u8; 3]) -> Family {
    Family { afi: u16::from_be_bytes([high, low]), safi }
}
