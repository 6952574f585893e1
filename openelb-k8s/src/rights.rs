//! What each program may do at the API server: no more than it does.
//!
//! The roles of the installation are generated from these tables, and a test reads the API server's audit log to see
//! that each right is used and that nothing else was asked for.
//!
//! ```
//! use openelb_k8s::rights::{Account, Scope};
//!
//! let secrets = Account::Speaker.rights().iter().filter(|right| right.resources.contains(&"secrets"));
//! assert!(secrets.into_iter().all(|right| right.scope == Scope::Namespace), "only those of our own namespace");
//! ```

use serde_json::{Value, json};

use crate::names;

/// The namespace of a rendered role, unless the installation says otherwise.
pub const NAMESPACE: &str = "openelb-system";

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Cluster,
    /// In the namespace of OpenELB.
    Namespace,
}

/// Some verbs on some resources, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The API group; empty: the core.
    pub group: &'static str,
    /// Plurals, with `/SUBRESOURCE` where it is one.
    pub resources: &'static [&'static str],
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// Only objects of these names; empty: any.
    pub names: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// What for, in words.
    pub why: &'static str,
}

/// Who has rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The ServiceAccount `openelb-controller`.
    Controller,
    /// The ServiceAccount `openelb-speaker`.
    Speaker,
    /// People with `kubectl openelb`; no ServiceAccount.
    Viewer,
}

const fn cluster(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Right {
    Right { group, resources, verbs, names: &[], scope: Scope::Cluster, why }
}

const CORE: &str = "";
const OURS: &str = names::GROUP;

const CONTROLLER: &[Right] = &[
    cluster(
        OURS,
        &["eips", "bgpconfs", "bgppeers", "bgppolicies", "layer2confs", "vipgroups"],
        &["get", "list", "watch"],
        "to decide; one is read again after a write that somebody else was faster with",
    ),
    cluster(
        OURS,
        &[
            "eips/status",
            "bgpconfs/status",
            "bgppeers/status",
            "bgppolicies/status",
            "layer2confs/status",
            "vipgroups/status",
        ],
        &["patch"],
        "who has which address, and the conditions of each object",
    ),
    cluster(
        OURS,
        &["eips/status"],
        &["update"],
        "who has which address, as a whole: for many records that is the cheaper kind of write",
    ),
    cluster(
        OURS,
        &["eips", "bgpconfs", "bgppeers"],
        &["patch"],
        "the finalizer of an Eip while it is in use; to remove those of the Go OpenELB",
    ),
    cluster(
        OURS,
        &["speakerstatuses"],
        &["list", "watch"],
        "what the status of BgpConfs and BgpPeers is copied from",
    ),
    cluster(
        CORE,
        &["services"],
        &["get", "list", "watch"],
        "what they ask for; a holder is read again before its address is given to others",
    ),
    cluster(
        CORE,
        &["services/status"],
        &["patch"],
        "addresses, conditions, label and annotation, in one write",
    ),
    cluster(
        CORE,
        &["services"],
        &["patch"],
        "to remove what the Go OpenELB left on Services that are not ours",
    ),
    cluster(CORE, &["namespaces"], &["list", "watch"], "labels that pools select namespaces by"),
    cluster(CORE, &["nodes"], &["list", "watch"], "their addresses are not given to Services"),
    cluster(
        "events.k8s.io",
        &["events"],
        &["create", "patch"],
        "what happened, told on the object; patched when it happens again",
    ),
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["create"],
        names: &[],
        scope: Scope::Namespace,
        why: "the Lease of who writes; creation cannot be limited to a name",
    },
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["get", "update"],
        names: &[names::LEASE],
        scope: Scope::Namespace,
        why: "the Lease of who writes",
    },
];

const SPEAKER: &[Right] = &[
    cluster(
        OURS,
        &["eips", "bgpconfs", "bgppeers", "layer2confs"],
        &["list", "watch"],
        "what is announced, how, and to whom",
    ),
    cluster(
        OURS,
        &["eips"],
        &["get"],
        "Eips are watched by their metadata, and read when their spec changes",
    ),
    cluster(
        CORE,
        &["services", "nodes"],
        &["list", "watch"],
        "published addresses, and who may carry their traffic",
    ),
    cluster(
        "discovery.k8s.io",
        &["endpointslices"],
        &["list", "watch"],
        "nodes with endpoints of Services with externalTrafficPolicy Local; watched only while there is one",
    ),
    cluster(OURS, &["speakerstatuses"], &["list", "watch"], "which nodes have a speaker"),
    cluster(
        OURS,
        &["speakerstatuses"],
        &["create", "patch", "delete"],
        "this speaker's own; server-side apply takes create and patch; deleted when the speaker leaves the node for good",
    ),
    cluster(OURS, &["speakerstatuses/status"], &["patch"], "what this speaker does"),
    cluster(
        "events.k8s.io",
        &["events"],
        &["create", "patch"],
        "what happened, told on the object; patched when it happens again",
    ),
    Right {
        group: CORE,
        resources: &["secrets"],
        verbs: &["list", "watch"],
        names: &[],
        scope: Scope::Namespace,
        why: "passwords that BgpPeers name, each watched by its name",
    },
    Right {
        group: "apps",
        resources: &["daemonsets"],
        verbs: &["get"],
        names: &["openelb-speaker"],
        scope: Scope::Namespace,
        why: "whether it keeps a speaker on this node, when this one is told to end",
    },
];

const VIEWER: &[Right] = &[
    cluster(
        OURS,
        &["eips", "bgpconfs", "bgppeers", "bgppolicies", "layer2confs", "vipgroups", "speakerstatuses"],
        &["get", "list", "watch"],
        "pools, neighbours, speakers",
    ),
    cluster(
        CORE,
        &["services", "nodes", "namespaces"],
        &["list"],
        "what Services ask for and have, and who may carry it",
    ),
    cluster("discovery.k8s.io", &["endpointslices"], &["list"], "nodes with endpoints"),
    cluster("events.k8s.io", &["events"], &["list"], "what was told"),
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["get"],
        names: &[names::LEASE],
        scope: Scope::Cluster,
        why: "who writes",
    },
];

impl Account {
    /// All.
    pub const ALL: [Self; 3] = [Self::Controller, Self::Speaker, Self::Viewer];

    /// The name of its ServiceAccount and roles.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controller => "openelb-controller",
            Self::Speaker => "openelb-speaker",
            Self::Viewer => "openelb-viewer",
        }
    }

    /// What it may do.
    #[must_use]
    pub const fn rights(self) -> &'static [Right] {
        match self {
            Self::Controller => CONTROLLER,
            Self::Speaker => SPEAKER,
            Self::Viewer => VIEWER,
        }
    }

    /// Its ClusterRole and, if it has rights in its own namespace, its Role, as objects.
    #[must_use]
    pub fn roles(self) -> Vec<Value> {
        let mut roles = Vec::new();
        for (scope, kind) in [(Scope::Cluster, "ClusterRole"), (Scope::Namespace, "Role")] {
            let rules: Vec<Value> =
                self.rights().iter().filter(|right| right.scope == scope).map(Right::rule).collect();
            if rules.is_empty() {
                continue;
            }
            let metadata = match (scope, self) {
                (Scope::Namespace, _) => json!({"name": self.name(), "namespace": NAMESPACE}),
                // Whoever may view a cluster may view this, too.
                (Scope::Cluster, Self::Viewer) => json!({
                    "name": self.name(),
                    "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
                }),
                (Scope::Cluster, _) => json!({"name": self.name()}),
            };
            roles.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": kind,
                "metadata": metadata,
                "rules": rules,
            }));
        }
        roles
    }
}

impl Right {
    /// As a rule of a role.
    #[must_use]
    pub fn rule(&self) -> Value {
        let (group, resources, verbs) = (self.group, self.resources, self.verbs);
        if self.names.is_empty() {
            return json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        }
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs, "resourceNames": self.names})
    }

    /// Does it allow this? `resource` has `/SUBRESOURCE` where it is one; the namespace is empty for objects of the
    /// cluster, the name for lists.
    #[must_use]
    pub fn allows(&self, verb: &str, group: &str, resource: &str, (namespace, name): (&str, &str)) -> bool {
        self.group == group
            && self.resources.contains(&resource)
            && self.verbs.contains(&verb)
            && (self.names.is_empty() || self.names.contains(&name))
            && (self.scope == Scope::Cluster || namespace == NAMESPACE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Account, NAMESPACE, Right, Scope};

    #[test]
    fn no_right_is_given_twice() {
        for account in Account::ALL {
            let mut seen = BTreeSet::new();
            for right in account.rights() {
                assert!(!right.why.is_empty());
                for resource in right.resources {
                    for verb in right.verbs {
                        assert!(!verb.contains('*') && !resource.contains('*'));
                        assert!(
                            seen.insert((right.group, resource, verb, right.scope == Scope::Namespace)),
                            "{account:?}: {verb} {resource}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_right_allows() {
        let lease = Account::Controller.rights().iter().find(|right| !right.names.is_empty()).unwrap();
        let group = "coordination.k8s.io";
        let allows = |right: &Right, verb, place| right.allows(verb, group, "leases", place);
        assert!(allows(lease, "update", (NAMESPACE, "openelb-controller")));
        assert!(!allows(lease, "update", (NAMESPACE, "another")));
        assert!(!allows(lease, "update", ("default", "openelb-controller")));
        assert!(!allows(lease, "delete", (NAMESPACE, "openelb-controller")));
        assert!(!lease.allows("update", "", "leases", (NAMESPACE, "openelb-controller")));
    }

    #[test]
    fn roles_hold_the_rights_of_their_scope() {
        let roles = Account::Speaker.roles();
        assert_eq!(
            roles.iter().map(|role| role["kind"].as_str().unwrap()).collect::<Vec<_>>(),
            ["ClusterRole", "Role"]
        );
        assert_eq!(roles[1]["metadata"]["namespace"], NAMESPACE);
        let secrets = |role: &serde_json::Value| role["rules"].to_string().contains("secrets");
        assert!(!secrets(&roles[0]) && secrets(&roles[1]));
        assert_eq!(Account::Viewer.roles().len(), 1);
    }
}
