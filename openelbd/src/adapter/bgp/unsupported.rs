//! Settings that are accepted and kept, and that this version does not act on. Each is named in a condition of its
//! object; none is silently ignored.

use std::net::Ipv6Addr;

use openelb_k8s::crd::{
    bgp_conf::{BgpConfSpec, GracefulRestart},
    bgp_peer::{BgpPeerSpec, PeerConf, PeerPolicies, Transport},
};

use super::Note;

const LATER: &str = "it takes effect with a later version";

/// What of a `BgpConf` has no effect.
#[must_use]
pub fn of_conf(spec: &BgpConfSpec) -> Vec<Note> {
    let mut notes = Notes::default();
    if let Some(families) = &spec.families
        && !families.is_empty()
    {
        notes.push("spec.families", "families are set for each BgpPeer", "use spec.afiSafis of the BgpPeer");
    }
    if spec.use_multiple_paths == Some(true) {
        notes.push("spec.useMultiplePaths", "received routes are not installed anywhere", "leave it out");
    }
    // Whether there is BFD is each BgpPeer's.
    notes.graceful_restart(spec.graceful_restart.as_ref(), true);
    notes.text("spec.policy", spec.policy.as_deref(), "policies are not applied yet", LATER);
    notes.list
}

/// What of a `BgpPeer` has no effect.
#[must_use]
pub fn of_peer(spec: &BgpPeerSpec) -> Vec<Note> {
    let mut notes = Notes::default();
    if let Some(conf) = &spec.conf {
        notes.conf(conf);
    }
    let timers = spec.timers.as_ref().and_then(|timers| timers.config.as_ref());
    if timers.and_then(|t| t.minimum_advertisement_interval.as_deref()).is_some_and(|v| !is_zero(v)) {
        notes.push(
            "spec.timers.config.minimumAdvertisementInterval",
            "changes are sent at once; a slow neighbour gets them merged",
            "leave it out",
        );
    }
    if let Some(transport) = &spec.transport {
        notes.transport(transport);
    }
    let bfd = spec.bfd.as_ref().and_then(|bfd| bfd.enabled) == Some(true);
    if let Some(written) = spec.bfd.as_ref().filter(|written| written.enabled.is_none()) {
        let cause = "a profile does not switch BFD on";
        notes.text("spec.bfd.profile", written.profile.as_deref(), cause, "set bfd.enabled: true");
    }
    notes.graceful_restart(spec.graceful_restart.as_ref(), bfd);
    if let Some(policies) = &spec.policies {
        notes.policies(policies);
    }
    notes.list
}

fn is_zero(text: &str) -> bool {
    matches!(text.trim(), "" | "0")
}

#[derive(Default)]
struct Notes {
    list: Vec<Note>,
}

impl Notes {
    fn push(&mut self, field: &str, cause: &str, remedy: &str) {
        self.list.push(Note::new(field, cause, remedy));
    }

    fn text(&mut self, field: &str, value: Option<&str>, cause: &str, remedy: &str) {
        if value.is_some_and(|value| !value.trim().is_empty()) {
            self.push(field, cause, remedy);
        }
    }

    fn conf(&mut self, conf: &PeerConf) {
        let group = "peer groups do not exist here";
        self.text(
            "spec.conf.peerGroup",
            conf.peer_group.as_deref(),
            group,
            "write the settings into the BgpPeer",
        );
        self.peer_type(conf);
        let private = "AS_PATH holds our own AS number only; there is nothing to remove";
        self.text("spec.conf.removePrivateAs", conf.remove_private_as.as_deref(), private, "leave it out");
        if conf.route_flap_damping == Some(true) {
            self.push("spec.conf.routeFlapDamping", "received routes are not used", "leave it out");
        }
        let link_local = conf.neighbor_address.as_deref().is_some_and(|address| {
            let address = address.split('%').next().unwrap_or_default().trim().parse::<Ipv6Addr>();
            address.is_ok_and(|address| address.is_unicast_link_local())
        });
        if !link_local {
            self.text(
                "spec.conf.neighborInterface",
                conf.neighbor_interface.as_deref(),
                "it tells the interface of a link-local conf.neighborAddress, and nothing else",
                "use transport.bindInterface, or the neighbour's link-local address",
            );
        }
        let vrf = "VRFs are not supported";
        self.text(
            "spec.conf.vrf",
            conf.vrf.as_deref(),
            vrf,
            "use transport.bindInterface with the VRF's device",
        );
        if conf.send_community.is_some_and(|value| value != 0) {
            self.push("spec.conf.sendCommunity", "communities that are set are always sent", "leave it out");
        }
        if conf.allow_own_as.is_some_and(|value| value != 0) {
            self.push("spec.conf.allowOwnAs", "received routes are not used", "leave it out");
        }
        if conf.replace_peer_as == Some(true) {
            self.push("spec.conf.replacePeerAs", "AS_PATH holds our own AS number only", "leave it out");
        }
    }

    /// GoBGP's number: 0 internal, 1 external. It is named where it cannot be true; where only the BgpConf tells our AS
    /// number, nobody knows here.
    fn peer_type(&mut self, conf: &PeerConf) {
        let given = |asn: Option<u32>| asn.filter(|asn| *asn != 0);
        let internal = match (given(conf.local_as), given(conf.peer_as)) {
            (Some(ours), Some(theirs)) => Some(ours == theirs),
            // Any external one.
            (_, None) => Some(false),
            (None, Some(_)) => None,
        };
        let so = match conf.peer_type {
            None => true,
            Some(0) => internal != Some(false),
            Some(1) => internal != Some(true),
            Some(_) => false,
        };
        if !so {
            self.push(
                "spec.conf.peerType",
                "the AS numbers say whether a neighbour is internal (0) or external (1), and they say otherwise",
                "leave it out, or correct conf.peerAs or conf.localAs",
            );
        }
    }

    fn transport(&mut self, transport: &Transport) {
        let remote = "conf.neighborAddress is the address that is connected to";
        self.text(
            "spec.transport.remoteAddress",
            transport.remote_address.as_deref(),
            remote,
            "leave it out",
        );
        if transport.mtu_discovery == Some(false) {
            let cause = "path MTU discovery is the kernel's";
            self.push("spec.transport.mtuDiscovery", cause, "use the sysctl net.ipv4.ip_no_pmtu_disc");
        }
        if transport.tcp_mss.is_some_and(|mss| mss != 0) {
            self.push(
                "spec.transport.tcpMss",
                "the kernel chooses the segment size",
                "set advmss on the route",
            );
        }
    }

    fn graceful_restart(&mut self, restart: Option<&GracefulRestart>, bfd: bool) {
        let Some(restart) = restart else { return };
        if restart.notification_enabled == Some(true) && !bfd {
            self.push(
                "spec.gracefulRestart.notificationEnabled",
                "it needs BFD: without it neighbours would keep the routes of a dead node for longer than the hold time",
                "enable spec.bfd, or leave it out",
            );
        }
        if restart.longlived_enabled == Some(true) {
            self.push(
                "spec.gracefulRestart.longlivedEnabled",
                "long-lived graceful restart (RFC 9494) is not spoken",
                "set restartTime, up to 4095 seconds",
            );
        }
        let received = "received routes are not used, so none are kept for a neighbour that restarts";
        if restart.helper_only == Some(true) {
            self.push("spec.gracefulRestart.helperOnly", received, "set enabled: false");
        }
        if restart.stale_routes_time.is_some_and(|time| time > 0) {
            self.push("spec.gracefulRestart.staleRoutesTime", received, "leave it out");
        }
        if restart.deferral_time.is_some_and(|time| time > 0) {
            self.push(
                "spec.gracefulRestart.deferralTime",
                "End-of-RIB waits for the first complete set of routes, at most until 10 s before restartTime",
                "leave it out",
            );
        }
    }

    fn policies(&mut self, policies: &PeerPolicies) {
        let named = |names: &Option<Vec<String>>| names.as_ref().is_some_and(|names| !names.is_empty());
        let rejects = |value: &Option<String>| value.as_deref() == Some("reject");
        if named(&policies.import) || rejects(&policies.default_import) {
            self.push(
                "spec.policies.import",
                "policies are not applied yet; received routes are not used",
                LATER,
            );
        }
        if named(&policies.export) || rejects(&policies.default_export) {
            self.push(
                "spec.policies.export",
                "policies are not applied yet; every address that is ours is announced",
                "restrict with spec.advertisements until then",
            );
        }
    }
}
