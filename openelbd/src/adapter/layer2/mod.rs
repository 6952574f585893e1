//! The Layer 2 announcer: joins the plan of announcements to `openelb-l2`.
//!
//! | module | translates |
//! |---|---|
//! | [`config`] | `Layer2Conf`, Nodes and addresses → what the speaker is told |
//! | [`status`] | the speaker's snapshots → status of addresses, problems and warnings |
//! | [`events`] | what happened → what is told about which object |
//! | `comings` | nodes that came or went → which of them are to be told of, and when |
//! | `hearing` | counters of gossip → whether any other node is heard |
//! | `incarnation` | the clock and what the last process left → the number of this life |

mod announcer;
mod comings;
pub mod config;
pub mod events;
mod hearing;
mod incarnation;
pub mod status;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use openelb_l2::speaker::GossipKey;

pub use announcer::{Layer2Announcer, Layer2Source};

/// The port of gossip unless `--bind-port` says otherwise.
pub const GOSSIP_PORT: u16 = 7947;

/// The Go OpenELB's key for everybody who gave none: known to everybody, so it is none.
pub const PUBLIC_KEY: &str = "openelb-speakers";

/// Beginnings of names of interfaces that a cluster makes for itself: neither `subnet` nor `all` choose them.
pub const VIRTUAL_LINKS: [&str; 12] = [
    "cali",
    "cbr",
    "cilium",
    "cni",
    "docker",
    "flannel",
    "kube-",
    "lxc",
    "nodelocaldns",
    "veth",
    "virbr",
    "weave",
];

/// How Layer 2 is spoken on this host.
#[derive(Clone, Debug)]
pub struct Layer2Options {
    /// `Some(false)`: not at all. `None` and `Some(true)`: where a pool wants it.
    pub enabled: Option<bool>,
    /// Where gossip is listened for, and where the others reach it; `None`: the Node's first InternalIP.
    pub bind: Option<IpAddr>,
    /// The UDP port of gossip.
    pub port: u16,
    /// Authenticates gossip.
    pub key: Option<GossipKey>,
    /// How often a member is probed.
    pub probe_interval: Duration,
    /// How long its answer may take.
    pub probe_timeout: Duration,
    /// How long a suspected member may take to object.
    pub suspicion: Duration,
    /// How long the host had been up when the process started; `None`: as Linux says.
    pub host_uptime: Option<Duration>,
    /// Keeps the number of the last start of this host's speaker, so that a clock that goes back does no harm; `None`:
    /// the clock alone counts.
    pub incarnation_file: Option<PathBuf>,
}

impl Default for Layer2Options {
    fn default() -> Self {
        Self {
            enabled: None,
            bind: None,
            port: GOSSIP_PORT,
            key: None,
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(60),
            suspicion: Duration::from_millis(600),
            host_uptime: None,
            incarnation_file: None,
        }
    }
}

impl Layer2Options {
    /// The key that a user gave: an empty text and the Go OpenELB's public default are none.
    #[must_use]
    pub fn key(secret: &str) -> Option<GossipKey> {
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret == PUBLIC_KEY { None } else { GossipKey::new(secret.as_bytes()) }
    }

    /// Where this host gossips; `None`: its Node has no address.
    fn gossip(&self, own: &[IpAddr], alone: bool) -> Option<IpAddr> {
        let given = self.bind.filter(|address| !address.is_unspecified());
        // Nobody to talk to: any address will do.
        let loopback = alone.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        given.or_else(|| own.first().copied()).or(loopback)
    }
}

#[cfg(test)]
mod tests;
