//! `BgpPeer`: a router that the nodes talk to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bgp_conf::GracefulRestart, fields, hidden::Hidden, schema};

fields! {
    /// A BGP neighbour of the nodes.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "BgpPeer", plural = "bgppeers", singular = "bgppeer",
        status = "BgpPeerStatus", derive = "Default", derive = "PartialEq",
        doc = "A BGP neighbour of the nodes.",
        printcolumn(name = "address", type_ = "string", json_path = ".spec.conf.neighborAddress"),
        printcolumn(name = "as", type_ = "integer", json_path = ".spec.conf.peerAs"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "state", type_ = "string", json_path = ".status.conditions[?(@.type==\"Established\")].reason"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct BgpPeerSpec {
        /// Who the neighbour is.
        conf: PeerConf,
        /// An external neighbour that is more than one hop away.
        ebgp_multihop: EbgpMultihop,
        /// Session timers.
        timers: Timers,
        /// The TCP connection.
        transport: Transport,
        /// Graceful restart with this neighbour; on by default.
        graceful_restart: GracefulRestart,
        /// Address families; absent: both, with additional paths where negotiated.
        afi_safis: Vec<AfiSafi>,
        /// Nodes that talk to this neighbour; absent or empty: all.
        node_selector: LabelSelector,
        /// Whose addresses are announced as next hops; overrides the BgpConf's.
        #[schemars(schema_with = "schema::next_hop_mode")]
        next_hop_mode: String,
        /// What is kept of received routes: Count (default) or Keep.
        #[schemars(schema_with = "schema::received_routes")]
        received_routes: String,
        /// How many prefixes of one family the neighbour may announce.
        prefix_limit: PrefixLimit,
        /// The session's password (RFC 2385), in a Secret of our namespace.
        password_secret_ref: SecretKeyRef,
        /// Bidirectional forwarding detection with this neighbour (RFC 5880).
        bfd: Bfd,
        /// The session of a directly connected neighbour ends at once when the link to it goes down. Default true.
        link_failover: bool,
        /// What is announced, and how; absent: every address that is ours, plain.
        advertisements: Vec<Advertisement>,
        /// Names of BgpPolicies that are applied to this neighbour's routes.
        policies: PeerPolicies,
    }
}

fields! {
    /// Who the neighbour is; GoBGP's fields.
    pub struct PeerConf {
        /// The session's password (RFC 2385); `passwordSecretRef` is better.
        #[schemars(with = "Option<String>")]
        auth_password: Hidden,
        /// Free text.
        description: String,
        /// Our AS number towards this neighbour; 0 or absent: the BgpConf's.
        local_as: u32,
        /// The neighbour's address, or a prefix: every neighbour within it is accepted.
        neighbor_address: String,
        /// The neighbour's AS number; 0 or absent: any external one, one hop away (IP TTL 1) unless ebgpMultihop says
        /// more.
        peer_as: u32,
        /// Name of a peer group.
        peer_group: String,
        /// GoBGP's number of the peer type.
        peer_type: u32,
        /// GoBGP's name of how private AS numbers are removed.
        remove_private_as: String,
        /// Dampen flapping routes.
        route_flap_damping: bool,
        /// GoBGP's number of which communities are sent.
        send_community: u32,
        /// The interface of a neighbour with a link-local address.
        neighbor_interface: String,
        /// VRF.
        vrf: String,
        /// How often our AS number may be in a received path.
        allow_own_as: u32,
        /// Replace the neighbour's AS number in paths.
        replace_peer_as: bool,
        /// Keep the session down.
        admin_down: bool,
    }
}

fields! {
    /// External neighbours that are more than one hop away.
    pub struct EbgpMultihop {
        /// Allow more than one hop.
        enabled: bool,
        /// IP TTL of the session's packets, 1 to 255.
        multihop_ttl: u32,
    }
}

fields! {
    /// Session timers.
    pub struct Timers {
        /// The configured values.
        config: TimersConfig,
    }
}

fields! {
    /// Session timers in decimal seconds, as text.
    pub struct TimersConfig {
        /// Wait so long before connecting again.
        connect_retry: String,
        /// The session ends after so long without a message; 0 or at least 3. Default 30.
        hold_time: String,
        /// Send a KEEPALIVE so often. Default 10.
        keepalive_interval: String,
        /// Batch announcements for so long.
        minimum_advertisement_interval: String,
    }
}

fields! {
    /// The TCP connection.
    pub struct Transport {
        /// Path MTU discovery.
        mtu_discovery: bool,
        /// Wait for the neighbour to connect.
        passive_mode: bool,
        /// Kept for compatibility; `conf.neighborAddress` rules.
        remote_address: String,
        /// The neighbour's TCP port; 0 or absent: 179.
        remote_port: u32,
        /// Maximum segment size.
        tcp_mss: u32,
        /// Our address of the session.
        local_address: String,
        /// The interface of the session.
        bind_interface: String,
        /// Generalised TTL security (RFC 5082).
        ttl_security: TtlSecurity,
    }
}

fields! {
    /// Generalised TTL security (RFC 5082).
    pub struct TtlSecurity {
        /// How many hops away the neighbour may be; 1 is directly connected.
        #[schemars(range(min = 1, max = 254))]
        hops: u32,
    }
}

fields! {
    /// An address family of the session; GoBGP's fields.
    pub struct AfiSafi {
        /// The configured values.
        config: AfiSafiConfig,
        /// Graceful restart of this family.
        mp_graceful_restart: MpGracefulRestart,
        /// Additional paths (RFC 7911).
        add_paths: AddPaths,
    }
}

fields! {
    /// An address family.
    pub struct AfiSafiConfig {
        /// Which.
        family: AddressFamily,
        /// Negotiate it.
        enabled: bool,
    }
}

fields! {
    /// An address family in GoBGP's names.
    pub struct AddressFamily {
        /// `AFI_IP`, `AFI_IP6`.
        afi: String,
        /// `SAFI_UNICAST`.
        safi: String,
    }
}

fields! {
    /// Graceful restart of one family.
    pub struct MpGracefulRestart {
        /// The configured values.
        config: EnabledConfig,
    }
}

fields! {
    /// A switch.
    pub struct EnabledConfig {
        /// On or off.
        enabled: bool,
    }
}

fields! {
    /// Additional paths (RFC 7911).
    pub struct AddPaths {
        /// The configured values.
        config: AddPathsConfig,
    }
}

fields! {
    /// Additional paths (RFC 7911).
    pub struct AddPathsConfig {
        /// Accept several paths.
        receive: bool,
        /// Send at most so many paths of one prefix.
        send_max: u32,
    }
}

fields! {
    /// How many prefixes of one family the neighbour may announce.
    pub struct PrefixLimit {
        /// The limit.
        #[schemars(range(min = 1))]
        max_prefixes: u32,
        /// Warn at so many percent of it. Default 75.
        #[schemars(range(min = 1, max = 100))]
        warning_percent: u32,
        /// What happens beyond: Cease (default) or Warn.
        #[schemars(schema_with = "schema::prefix_limit_action")]
        action: String,
        /// After Cease, connect again after so long (for example `5m`); absent: when the usual pause ends.
        restart_time: String,
    }
}

fields! {
    /// A key of a Secret.
    pub struct SecretKeyRef {
        /// The Secret's name.
        name: String,
        /// The key; default `password`.
        key: String,
    }
}

fields! {
    /// Bidirectional forwarding detection (RFC 5880).
    pub struct Bfd {
        /// Use BFD.
        enabled: bool,
        /// Name of a profile in `spec.bfdProfiles` of the BgpConf: its values hold where there are none here. It does not
        /// switch BFD on.
        profile: String,
        /// Missed packets until the neighbour counts as down. Default 3.
        #[schemars(range(min = 1, max = 255))]
        detect_multiplier: u32,
        /// The required minimum receive interval, `50ms` to `60s`. Default `300ms`.
        receive_interval: String,
        /// The desired minimum transmit interval, `50ms` to `60s`. Default `300ms`.
        transmit_interval: String,
        /// Do not send until the neighbour does.
        passive: bool,
        /// The lowest TTL that is accepted of a neighbour several hops away.
        #[schemars(range(min = 1, max = 255))]
        minimum_ttl: u32,
    }
}

fields! {
    /// What is announced to this neighbour, and how.
    pub struct Advertisement {
        /// Addresses of these Eips; absent: of all.
        pool_names: Vec<String>,
        /// Addresses of these Services; absent: of all.
        service_selector: LabelSelector,
        /// On these nodes; absent: on all.
        node_selector: LabelSelector,
        /// Communities (RFC 1997): `65000:100`, `no-export` …
        communities: Vec<String>,
        /// Large communities (RFC 8092): `65000:1:2`.
        large_communities: Vec<String>,
        /// Extended communities (RFC 4360): `rt:65000:100`, `ro:65000:100`.
        ext_communities: Vec<String>,
        /// LOCAL_PREF, towards internal neighbours.
        local_preference: u32,
        /// MULTI_EXIT_DISC.
        med: u32,
        /// Put our AS number in front so many more times.
        #[schemars(range(max = 16))]
        as_path_prepend: u32,
        /// Announce IPv4 addresses as prefixes of this length, each while an address in it is announced.
        #[schemars(range(min = 1, max = 32))]
        aggregation_length: u32,
        /// Announce IPv6 addresses as prefixes of this length, each while an address in it is announced.
        #[schemars(range(min = 1, max = 128))]
        aggregation_length_v6: u32,
    }
}

fields! {
    /// Policies of this neighbour.
    pub struct PeerPolicies {
        /// Names of BgpPolicies for received routes, in order.
        import: Vec<String>,
        /// Names of BgpPolicies for announced routes, in order.
        export: Vec<String>,
        /// What happens to a received route that no policy decides.
        #[schemars(schema_with = "schema::disposition")]
        default_import: String,
        /// What happens to an announced route that no policy decides.
        #[schemars(schema_with = "schema::disposition")]
        default_export: String,
    }
}

fields! {
    /// The sessions of each node.
    pub struct BgpPeerStatus {
        /// By name of the node; those of dynamic neighbours by `NODE/ADDRESS`.
        nodes_peer_status: BTreeMap<String, NodePeerStatus>,
        /// The generation that this status describes.
        observed_generation: i64,
        /// What is true of the neighbour now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}

fields! {
    /// One node's session.
    pub struct NodePeerStatus {
        /// The session.
        peer_state: PeerState,
        /// Its timers.
        timers_state: TimersState,
        /// What GoBGP's fields do not say.
        session: SessionState,
    }
}

fields! {
    /// What GoBGP's fields do not say of a session.
    pub struct SessionState {
        /// Why the session does not come up, or went down last.
        last_error: String,
        /// What BFD says of the path: `up`, or `down` and why; absent: without BFD.
        bfd: String,
        /// `TCP MD5` (RFC 2385); absent: none.
        authentication: String,
        /// Hops of TTL security (RFC 5082); absent: without.
        ttl_security: u32,
        /// `Negotiated`: our routes stay at the neighbour while the speaker restarts; `Offered`: it does not take it, or
        /// there is no session.
        graceful_restart: String,
        /// Prefixes that the neighbour has announced.
        received_prefixes: i64,
    }
}

fields! {
    /// A session; GoBGP's fields. The password is never written.
    pub struct PeerState {
        /// Always empty.
        #[schemars(with = "Option<String>")]
        auth_password: Hidden,
        /// Free text of the spec.
        description: String,
        /// Our AS number.
        local_as: u32,
        /// The neighbour's address.
        neighbor_address: String,
        /// The neighbour's AS number.
        peer_as: u32,
        /// Name of the peer group.
        peer_group: String,
        /// 0 internal, 1 external.
        peer_type: u32,
        /// Traffic.
        messages: Messages,
        /// How private AS numbers are removed.
        remove_private_as: String,
        /// Flapping routes are dampened.
        route_flap_damping: bool,
        /// Which communities are sent.
        send_community: u32,
        /// `IDLE`, `CONNECT`, `ACTIVE`, `OPENSENT`, `OPENCONFIRM`, `ESTABLISHED`.
        session_state: String,
        /// Waiting updates.
        queues: Queues,
        /// Messages that wait to be sent.
        out_q: u32,
        /// How often the session went down.
        flops: u32,
        /// `UP`, `DOWN`, `PFX_CT`.
        admin_state: String,
        /// The neighbour's BGP identifier.
        router_id: String,
    }
}

fields! {
    /// Waiting updates.
    pub struct Queues {
        /// Received, not yet processed.
        input: u32,
        /// Not yet sent.
        output: u32,
    }
}

fields! {
    /// Messages of a session.
    pub struct Messages {
        /// By kind.
        received: MessageCounters,
        /// By kind.
        sent: MessageCounters,
    }
}

fields! {
    /// Messages by kind, decimal numbers as text.
    pub struct MessageCounters {
        /// NOTIFICATION.
        notification: String,
        /// UPDATE.
        update: String,
        /// OPEN.
        open: String,
        /// KEEPALIVE.
        keepalive: String,
        /// ROUTE-REFRESH.
        refresh: String,
        /// Thrown away.
        discarded: String,
        /// All.
        total: String,
        /// UPDATEs treated as withdraw.
        withdraw_update: String,
        /// Prefixes treated as withdrawn.
        withdraw_prefix: String,
    }
}

fields! {
    /// Timers of a session: decimal seconds and RFC 3339 times, as text.
    pub struct TimersState {
        /// Wait so long before connecting again.
        connect_retry: String,
        /// Offered hold time.
        hold_time: String,
        /// KEEPALIVE interval.
        keepalive_interval: String,
        /// Announcements are batched for so long.
        minimum_advertisement_interval: String,
        /// The hold time in force.
        negotiated_hold_time: String,
        /// Since when the session is up.
        uptime: String,
        /// Since when the session is down.
        downtime: String,
    }
}
