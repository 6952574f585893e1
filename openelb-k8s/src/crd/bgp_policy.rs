//! `BgpPolicy`: the typed twin of GoBGP's policy TOML.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields, schema};

fields! {
    /// A routing policy: statements that are tried in order.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "BgpPolicy", plural = "bgppolicies", singular = "bgppolicy",
        status = "BgpPolicyStatus", derive = "Default", derive = "PartialEq",
        doc = "A BGP routing policy.",
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct BgpPolicySpec {
        /// Tried in order; the first that accepts or rejects a route decides.
        statements: Vec<Statement>,
    }
}

fields! {
    /// Actions for the routes that match.
    pub struct Statement {
        /// Shown in messages.
        name: String,
        /// Absent or empty: every route.
        #[serde(rename = "match")]
        matches: Match,
        /// What is done to a route that matches.
        actions: Actions,
    }
}

fields! {
    /// Conditions that a route must meet, all of them.
    pub struct Match {
        /// Its prefix.
        prefix_set: PrefixSet,
        /// The neighbour.
        neighbor_set: TextSet,
        /// Its communities (RFC 1997).
        community_set: TextSet,
        /// Its extended communities.
        ext_community_set: TextSet,
        /// Its large communities.
        large_community_set: TextSet,
        /// Its AS path, regular expressions in GoBGP's form.
        as_path_set: TextSet,
        /// Its next hop is one of these addresses.
        next_hops: Vec<String>,
        /// Its family is one of `ipv4-unicast`, `ipv6-unicast`.
        afi_safis: Vec<String>,
        /// The length of its AS path.
        as_path_length: Comparison,
        /// How many communities it has.
        community_count: Comparison,
        /// `internal`, `external` or `local`.
        route_type: String,
    }
}

fields! {
    /// Prefixes.
    pub struct PrefixSet {
        /// One of these.
        prefixes: Vec<PrefixRange>,
        /// Any (default) or Invert.
        #[schemars(schema_with = "schema::prefix_match_type")]
        match_type: String,
    }
}

fields! {
    /// A prefix and what is beneath it.
    pub struct PrefixRange {
        /// `10.0.0.0/8`.
        prefix: String,
        /// `24..32`; absent: exactly this prefix.
        mask_length_range: String,
    }
}

fields! {
    /// Values as text.
    pub struct TextSet {
        /// The values.
        values: Vec<String>,
        /// Any (default), All or Invert.
        #[schemars(schema_with = "schema::match_type")]
        match_type: String,
    }
}

fields! {
    /// A comparison with a number.
    pub struct Comparison {
        /// `eq`, `ge` or `le`.
        #[schemars(schema_with = "schema::comparison")]
        operator: String,
        /// The number.
        value: u32,
    }
}

fields! {
    /// What is done to a route.
    pub struct Actions {
        /// `accept`, `reject`, or absent: go on with the next statement.
        #[schemars(schema_with = "schema::disposition")]
        disposition: String,
        /// Add, remove or replace communities.
        community: CommunityAction,
        /// Add, remove or replace extended communities.
        ext_community: CommunityAction,
        /// Add, remove or replace large communities.
        large_community: CommunityAction,
        /// MULTI_EXIT_DISC: `100`, `+10`, `-10`.
        med: String,
        /// LOCAL_PREF.
        local_preference: u32,
        /// Put an AS number in front of the path.
        as_path_prepend: AsPathPrepend,
        /// An address, `self` or `unchanged`.
        next_hop: String,
    }
}

fields! {
    /// A change of communities.
    pub struct CommunityAction {
        /// `add`, `remove` or `replace`.
        #[schemars(schema_with = "schema::community_operation")]
        operation: String,
        /// The communities.
        communities: Vec<String>,
    }
}

fields! {
    /// Prepending.
    pub struct AsPathPrepend {
        /// The AS number; absent: ours.
        #[serde(rename = "as")]
        asn: u32,
        /// How often.
        #[schemars(range(min = 1, max = 16))]
        repeat: u32,
    }
}

fields! {
    /// What is true of the policy.
    pub struct BgpPolicyStatus {
        /// The generation that this status describes.
        observed_generation: i64,
        /// What is true of the policy now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}
