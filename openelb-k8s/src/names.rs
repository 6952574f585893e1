//! Every well-known name: annotations, labels, finalizers, condition types and reasons, event reasons.
//!
//! Users' manifests, dashboards and scripts depend on them; change one only with a migration.

/// The API group of our custom resources.
pub const GROUP: &str = "network.kubesphere.io";
/// The stored version of our custom resources.
pub const VERSION: &str = "v1alpha2";
/// The version that is still served, deprecated.
pub const VERSION_V1ALPHA1: &str = "v1alpha1";
/// The only `BgpConf` and `Layer2Conf` that is honoured.
pub const DEFAULT_OBJECT: &str = "default";
/// The Lease of the controller that leads.
pub const LEASE: &str = "openelb-controller";
/// The load balancer class that is ours unless `--load-balancer-class` says otherwise.
pub const DEFAULT_LOAD_BALANCER_CLASS: &str = "openelb.io/openelb";
/// The key of GoBGP's policy file in the ConfigMap that `BgpConf.spec.policy` names.
pub const POLICY_KEY: &str = "gobgp.conf";

/// Annotation keys.
pub mod annotation {
    /// On a Service without class: `openelb` makes it ours.
    pub const OPT_IN: &str = "lb.kubesphere.io/v1alpha1";
    /// The value of [`OPT_IN`].
    pub const OPT_IN_VALUE: &str = "openelb";
    /// On a Service: the pools it asks for (names of Eips, separated by commas).
    pub const POOLS: &str = "eip.openelb.kubesphere.io/v1alpha2";
    /// On a Service: the addresses it asks for (separated by commas, at most one of each family).
    pub const ADDRESSES: &str = "eip.openelb.kubesphere.io/v1alpha1";
    /// On a Service: Services with the same value may share an address.
    pub const SHARING_KEY: &str = "openelb.kubesphere.io/allow-shared-ip";
    /// On a Service: a new value moves it to another address, on purpose.
    pub const REASSIGN: &str = "openelb.kubesphere.io/reassign";
    /// On a Service, written by us: what was assigned (JSON; a hint only).
    pub const ASSIGNED: &str = "openelb.kubesphere.io/assigned";
    /// On a Service: NodeProxy of the Go OpenELB, not supported.
    pub const NODE_PROXY_TYPE: &str = "node-proxy.openelb.kubesphere.io/type";
    /// On a Service: written by the Go OpenELB's NodeProxy.
    pub const NODE_PROXY_EXTERNAL_IP: &str = "node-proxy.openelb.kubesphere.io/external-ip";
    /// On a Service: written by the Go OpenELB's NodeProxy.
    pub const NODE_PROXY_INTERNAL_IP: &str = "node-proxy.openelb.kubesphere.io/internal-ip";
    /// On a Service: read up to 0.5; the protocol comes from the Eip since.
    pub const PROTOCOL: &str = "protocol.openelb.kubesphere.io/v1alpha1";
    /// On a Service: the node that 0.5 elected.
    pub const LAYER2: &str = "layer2.openelb.kubesphere.io/v1alpha1";
    /// On an Eip: `true` (in any case) makes it the default pool.
    pub const DEFAULT_EIP: &str = "eip.openelb.kubesphere.io/is-default-eip";
    /// On an Eip: the object's generation; lets one refused change through.
    pub const FORCE: &str = "openelb.kubesphere.io/force";
    /// On objects in memory only: what of their spec cannot be read. See [`unreadable`](crate::index::unreadable).
    pub const UNREADABLE: &str = "openelb.kubesphere.io/unreadable";
    /// What `kubectl apply` leaves on objects.
    pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
}

/// Label keys.
pub mod label {
    /// On a Service, written by us: the pool of its (first) address.
    pub const POOL: &str = "eip.openelb.kubesphere.io/v1alpha2";
    /// On a Node: its rack.
    pub const RACK: &str = "openelb.kubesphere.io/rack";
    /// On a BgpConf or BgpPeer: a CNI speaks BGP, the object is not ours. On an Eip it means nothing, as in 0.6: what is
    /// announced by somebody else says `protocol: none`.
    pub const CNI: &str = "openelb.kubesphere.io/cni";
    /// On a Node: no load-balancer traffic here.
    pub const EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    /// On an EndpointSlice: the Service it belongs to.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// On every Namespace: its name.
    pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
}

/// Finalizers.
pub mod finalizer {
    /// On an Eip while it is in use.
    pub const EIP: &str = "finalizer.ipam.kubesphere.io/v1alpha1";
    /// Left by the Go OpenELB on Services, BgpConfs and BgpPeers; removed when seen.
    pub const LEGACY_LB: &str = "finalizer.lb.kubesphere.io/v1alpha1";
    /// Left by the Go OpenELB's NodeProxy on Services; removed when seen.
    pub const LEGACY_NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/finalizer";
}

/// Condition types.
pub mod condition {
    /// Service: `True` while an address is held.
    pub const ADDRESS_ASSIGNED: &str = "network.kubesphere.io/AddressAssigned";
    /// Service: does it have what it asks for now?
    pub const REQUEST_HONOURED: &str = "network.kubesphere.io/RequestHonoured";
    /// Eip, BgpConf, BgpPeer …: can the object be used?
    pub const READY: &str = "Ready";
    /// Eip: Services keep addresses that the pool does not cover any more.
    pub const ADDRESSES_OUTSIDE_POOL: &str = "AddressesOutsidePool";
    /// Eip: an older Eip owns a part of its addresses.
    pub const OVERLAPPING: &str = "Overlapping";
    /// Eip: it is annotated as default, but an older one is the default.
    pub const NOT_DEFAULT: &str = "NotDefault";
    /// Eip: its status nears what one object can hold.
    pub const STATUS_FULL: &str = "StatusFull";
    /// Eip: it covers dangerous addresses (of Nodes, subnet-router anycast).
    pub const DANGEROUS_ADDRESSES: &str = "DangerousAddresses";
    /// Eip: Services share an address in a way that the rules would not allow anew.
    pub const SHARING_VIOLATION: &str = "SharingViolation";
    /// BgpConf: the router ID was derived from the node's name.
    pub const ROUTER_ID_DERIVED: &str = "RouterIdDerived";
    /// BgpPeer: some advertisement rules give different single values.
    pub const ADVERTISEMENT_CONFLICT: &str = "AdvertisementConflict";
    /// Any object of ours: some of its settings have no effect in this version; the message names them.
    pub const SETTINGS_APPLIED: &str = "SettingsApplied";
    /// BgpPeer: at least one selected node has an established session.
    pub const ESTABLISHED: &str = "Established";
    /// SpeakerStatus: does the node's data plane forward? If not, the node does not announce itself.
    pub const DATA_PLANE_HEALTHY: &str = "DataPlaneHealthy";
    /// SpeakerStatus: does the speaker announce what it remembers instead of what the API server says?
    pub const STALE: &str = "Stale";
    /// SpeakerStatus, BgpPeer: something is to be known that hinders nothing.
    pub const WARNINGS: &str = "Warnings";
    /// SpeakerStatus: something was left out, so that the object stays small.
    pub const TRUNCATED: &str = "Truncated";
}

/// Condition reasons.
pub mod reason {
    /// An address of every family asked for is held.
    pub const ASSIGNED: &str = "Assigned";
    /// Dual stack preferred, one family held.
    pub const PARTIALLY_ASSIGNED: &str = "PartiallyAssigned";
    /// No pool matches the Service.
    pub const NO_MATCHING_POOL: &str = "NoMatchingPool";
    /// The named pool does not exist.
    pub const POOL_NOT_FOUND: &str = "PoolNotFound";
    /// Nothing is free in the pool.
    pub const POOL_EXHAUSTED: &str = "PoolExhausted";
    /// The pool gives nothing new.
    pub const POOL_DISABLED: &str = "PoolDisabled";
    /// The pool's spec cannot be used.
    pub const POOL_INVALID: &str = "PoolInvalid";
    /// The pool is being deleted.
    pub const POOL_DELETING: &str = "PoolDeleting";
    /// The request cannot be understood.
    pub const INVALID_REQUEST: &str = "InvalidRequest";
    /// No pool has this family.
    pub const FAMILY_UNAVAILABLE: &str = "FamilyUnavailable";
    /// The address belongs to another Service.
    pub const ADDRESS_IN_USE: &str = "AddressInUse";
    /// No pool covers the address.
    pub const ADDRESS_OUTSIDE_POOLS: &str = "AddressOutsidePools";
    /// The address is excluded.
    pub const ADDRESS_EXCLUDED: &str = "AddressExcluded";
    /// The address could be shared but for port, policy, key or namespace.
    pub const SHARING_CONFLICT: &str = "SharingConflict";
    /// The pool enforces its selectors.
    pub const NOT_ALLOWED: &str = "NotAllowed";
    /// The namespace has its share of the pool.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// NodeProxy is not supported.
    pub const NODE_PROXY_UNSUPPORTED: &str = "NodeProxyUnsupported";
    /// The object is valid and in use.
    pub const READY: &str = "Ready";
    /// The object's spec cannot be used.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The spec is bad; the last good one goes on.
    pub const LAST_GOOD_SPEC: &str = "LastGoodSpec";
    /// The object is not the one that is honoured.
    pub const NOT_HONOURED: &str = "NotHonoured";
    /// A CNI announces (label `openelb.kubesphere.io/cni`).
    pub const CNI_DUTY: &str = "CniDuty";
    /// No node is selected.
    pub const NO_NODE_SELECTED: &str = "NoNodeSelected";
    /// Sessions are established with every selected node.
    pub const ALL_ESTABLISHED: &str = "AllEstablished";
    /// Some selected nodes have no established session.
    pub const SOME_DOWN: &str = "SomeDown";
    /// No selected node has an established session.
    pub const ALL_DOWN: &str = "AllDown";
    /// A Secret that the object names is not there.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// Settings that this version does not act on.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// There is no usable BgpConf.
    pub const NO_BGP_CONF: &str = "NoBgpConf";
    /// Something hinders the speaker: a port that is taken, a peer that cannot be had.
    pub const HINDERED: &str = "Hindered";
    /// The message says what is to be known.
    pub const WARNINGS: &str = "Warnings";
    /// The data plane says that it is healthy, or is not asked.
    pub const HEALTHY: &str = "Healthy";
    /// The data plane says that it is not healthy.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// The object would be too big.
    pub const TOO_LARGE: &str = "TooLarge";
    /// What is announced comes from the checkpoint on the node.
    pub const CHECKPOINT: &str = "Checkpoint";
}

/// Event reasons; those of the Go OpenELB stay.
pub mod event {
    /// Service: another node answers for its address (Layer 2).
    pub const OWNER_CHANGED: &str = "OwnerChanged";
    /// Service: a node answers for its address in the name of one whose speaker is gone (Layer 2).
    pub const STAND_IN: &str = "StandIn";
    /// Service: a stranger claims its address (Layer 2).
    pub const ADDRESS_CONFLICT: &str = "AddressConflict";
    /// Service: the stranger is gone (Layer 2).
    pub const ADDRESS_CONFLICT_ENDED: &str = "AddressConflictEnded";
    /// Node: its speaker does not answer (Layer 2).
    pub const SPEAKER_DOWN: &str = "SpeakerDown";
    /// Node: its speaker answers again (Layer 2).
    pub const SPEAKER_UP: &str = "SpeakerUp";
    /// SpeakerStatus: the process did not run for too long.
    pub const SPEAKER_STALLED: &str = "SpeakerStalled";
    /// Service: an address was assigned.
    pub const ASSIGN_IP: &str = "AssignIP";
    /// Service: no address could be assigned.
    pub const ASSIGN_IP_FAILED: &str = "AssignIPFailed";
    /// Service: an address was released.
    pub const RELEASE_IP: &str = "ReleaseIP";
    /// Service: an address could not be released.
    pub const RELEASE_IP_FAILED: &str = "ReleaseIPFailed";
    /// Service: its request cannot be understood.
    pub const CONSTRUCT_REQUEST: &str = "ConstructRequest";
    /// Service: its status could not be written.
    pub const UPDATE_SERVICE_STATUS: &str = "UpdateServiceStatus";
    /// Service: another controller writes other addresses into its status again and again.
    pub const INGRESS_CONTESTED: &str = "IngressContested";
    /// Service: it is announced.
    pub const SET_BALANCER: &str = "SetBalancer";
    /// Service: it is announced no more.
    pub const DEL_BALANCER: &str = "DelBalancer";
    /// Eip: nobody announces addresses of it.
    pub const NO_ANNOUNCER: &str = "NoAnnouncer";
    /// BgpPeer: something is to be known that hinders nothing.
    pub const PEER_WARNING: &str = "PeerWarning";
    /// SpeakerStatus: what is announced comes from the checkpoint.
    pub const STALE: &str = "Stale";
    /// Eip: announcing was set up.
    pub const CONFIG_SPEAKER: &str = "ConfigSpeaker";
    /// Eip: announcing could not be set up.
    pub const CONFIG_SPEAKER_FAILED: &str = "ConfigSpeakerFailed";
    /// Eip: it could not be taken into use.
    pub const ADD_UPDATE_EIP: &str = "add/update eip";
}
