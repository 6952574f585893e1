//! The BGP announcer: joins the plan of announcements to `openelb-bgp`.
//!
//! | module | translates |
//! |---|---|
//! | `api` | GoBGP's gRPC interface |
//! | [`config`] | `BgpConf`, `BgpPeer` → speaker and neighbours |
//! | [`attributes`] | `spec.advertisements` → who hears of an address, and how |
//! | [`routes`] | addresses → routes, with next hops `Self` and `AllNodes` |
//! | [`restarts`] | when a speaker that ended by a bug is started again |
//! | [`status`] | the speaker's snapshots → status of addresses and sessions |
//! | [`zones`] | interfaces of link-local neighbours → their indexes |
//! | [`unsupported`] | settings without effect → notes that become conditions |

mod announcer;
mod api;
pub mod attributes;
pub mod config;
pub mod deltas;
pub mod restarts;
pub mod routes;
pub mod status;
pub mod unsupported;
pub mod zones;

use std::fmt;

pub use announcer::{BgpAnnouncer, OnStop};
pub use api::{ApiOptions, TlsFiles};

/// What is to be told about a setting: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The field's path.
    pub field: String,
    /// What is the case.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Note {
    /// A note on a field.
    pub fn new(field: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), cause: cause.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.cause, self.remedy)
    }
}

#[cfg(test)]
mod tests;
