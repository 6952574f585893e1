//! Settings that are accepted and kept, and that this version does not act on. Each is named in a condition of its
//! object; none is silently ignored.

use openelb_k8s::crd::{
    bgp_conf::{BgpConfSpec, GracefulRestart},
    bgp_peer::{AfiSafi, BgpPeerSpec, PeerConf, PeerPolicies, Transport},
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
    notes.graceful_restart(spec.graceful_restart.as_ref());
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
    if spec.password_secret_ref.is_some() {
        notes.password("spec.passwordSecretRef");
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
    notes.graceful_restart(spec.graceful_restart.as_ref());
    for (index, family) in spec.afi_safis.iter().flatten().enumerate() {
        notes.family(index, family);
    }
    if spec.received_routes.as_deref() == Some("Keep") {
        notes.push("spec.receivedRoutes", "received routes are counted, not kept", LATER);
    }
    if let Some(limit) = &spec.prefix_limit {
        if limit.action.as_deref() == Some("Warn") {
            notes.push("spec.prefixLimit.action", "there is no warning yet and no limit", LATER);
        }
        if limit.warning_percent.is_some() {
            notes.push("spec.prefixLimit.warningPercent", "there is no warning yet", LATER);
        }
        if limit.restart_time.is_some() {
            let cause = "after Cease the session comes up again when its back-off ends";
            notes.push("spec.prefixLimit.restartTime", cause, LATER);
        }
    }
    if spec.bfd.as_ref().and_then(|bfd| bfd.enabled) == Some(true) {
        notes.push(
            "spec.bfd",
            "BFD is not spoken yet; a dead neighbour is noticed when the hold time ends",
            "shorten timers.config.holdTime until then",
        );
    }
    for (index, rule) in spec.advertisements.iter().flatten().enumerate() {
        let lengths = [
            ("aggregationLength", rule.aggregation_length.is_some_and(|length| length != 32)),
            ("aggregationLengthV6", rule.aggregation_length_v6.is_some_and(|length| length != 128)),
        ];
        for (name, aggregates) in lengths {
            if aggregates {
                let field = format!("spec.advertisements[{index}].{name}");
                notes.push(&field, "addresses are announced one by one", LATER);
            }
        }
    }
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

    /// Fails closed: without the protection that was asked for there is no session.
    fn password(&mut self, field: &str) {
        self.push(
            field,
            "TCP MD5 is not supported yet; the session is kept down rather than opened without it",
            "remove the password on both sides until then",
        );
    }

    fn conf(&mut self, conf: &PeerConf) {
        if conf.auth_password.as_deref().is_some_and(|password| !password.is_empty()) {
            self.password("spec.conf.authPassword");
        }
        if conf.neighbor_address.as_deref().is_some_and(|address| address.contains('/')) {
            let field = "spec.conf.neighborAddress";
            let cause = "dynamic neighbours are not supported yet; there is no session";
            self.push(field, cause, "write one BgpPeer for each neighbour");
        }
        let group = "peer groups do not exist here";
        self.text(
            "spec.conf.peerGroup",
            conf.peer_group.as_deref(),
            group,
            "write the settings into the BgpPeer",
        );
        let private = "AS_PATH holds our own AS number only; there is nothing to remove";
        self.text("spec.conf.removePrivateAs", conf.remove_private_as.as_deref(), private, "leave it out");
        if conf.route_flap_damping == Some(true) {
            self.push("spec.conf.routeFlapDamping", "received routes are not used", "leave it out");
        }
        let interface = "unnumbered neighbours are not supported yet";
        self.text(
            "spec.conf.neighborInterface",
            conf.neighbor_interface.as_deref(),
            interface,
            "use an address",
        );
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
        if transport.ttl_security.is_some() {
            self.push(
                "spec.transport.ttlSecurity",
                "packets are sent with TTL 255 as the neighbour expects, but the TTL of received ones is not checked yet",
                LATER,
            );
        }
    }

    fn graceful_restart(&mut self, restart: Option<&GracefulRestart>) {
        if restart.and_then(|restart| restart.enabled) == Some(true) {
            self.push("spec.gracefulRestart", "graceful restart is not offered yet", LATER);
        }
    }

    fn family(&mut self, index: usize, family: &AfiSafi) {
        let restart = family.mp_graceful_restart.as_ref().and_then(|restart| restart.config.as_ref());
        if restart.and_then(|config| config.enabled) == Some(true) {
            let field = format!("spec.afiSafis[{index}].mpGracefulRestart");
            self.push(&field, "graceful restart is not offered yet", LATER);
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
