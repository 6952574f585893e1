//! Which crate may depend on which: ARCHITECTURE.md's picture, checked.

use std::collections::BTreeSet;

use super::{Verdict, verdict};
use crate::metadata::{self, Package};

/// What a member may use of the workspace; `None` is anything.
const MEMBERS: &[(&str, Option<&[&str]>)] = &[
    ("openelb-ipam", Some(&[])),
    ("openelb-bgp", Some(&[])),
    ("openelb-l2", Some(&[])),
    ("openelb-k8s", Some(&["openelb-ipam"])),
    ("openelbd", Some(&["openelb-bgp", "openelb-ipam", "openelb-k8s", "openelb-l2"])),
    ("openelb-examples", None),
    ("openelb-benches", None),
    ("openelb-chaos", Some(&["openelb-bgp", "openelb-lab"])),
    ("openelb-grpc-codegen", Some(&[])),
    ("openelb-lab", None),
    ("xtask", Some(&["openelb-lab"])),
];

/// Crates from outside that only some members may use.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("kube", &["openelb-benches", "openelb-chaos", "openelb-k8s", "openelbd"]),
    ("k8s-openapi", &["openelb-benches", "openelb-chaos", "openelb-k8s", "openelbd"]),
    ("prometheus-client", &["openelbd"]),
    ("axum", &["openelb-chaos", "openelbd"]),
];

pub(super) fn check() -> anyhow::Result<Verdict> {
    let members = metadata::read(None, &["--no-deps"])?.packages;
    let count = members.len();
    verdict("arrows point where they must not:", &findings(&members), format!("{count} crates"))
}

fn findings(members: &[Package]) -> Vec<String> {
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut found = Vec::new();
    for member in members {
        let Some((_, allowed)) = MEMBERS.iter().find(|(name, _)| *name == member.name) else {
            found.push(format!("{}: not in the table of xtask/src/ci/arrows.rs yet", member.name));
            continue;
        };
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let kind = dependency.kind.as_deref().unwrap_or("normal");
            let arrow = format!("{} -> {name} ({kind})", member.name);
            if names.contains(name) {
                // A crate may name itself in its tests, to turn on its own features.
                if name != member.name && allowed.is_some_and(|allowed| !allowed.contains(&name)) {
                    found.push(arrow);
                }
            } else if let Some((_, users)) = OUTSIDE.iter().find(|(outside, _)| *outside == name)
                && !users.contains(&member.name.as_str())
            {
                found.push(format!("{arrow}: only {} may", users.join(", ")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(Into::into) })
            .collect();
        Package {
            name: name.into(),
            dependencies,
            targets: Vec::new(),
            manifest_path: "/x/Cargo.toml".into(),
        }
    }

    #[test]
    fn arrows_of_the_picture_are_allowed_and_others_are_not() {
        let members = [
            package("openelb-ipam", &[("ipnet", None)]),
            package("openelb-bgp", &[("openelb-ipam", Some("dev")), ("openelb-bgp", Some("dev"))]),
            package("openelb-k8s", &[("openelb-ipam", None), ("openelb-bgp", None), ("kube", None)]),
            package("openelbd", &[("openelb-bgp", None), ("openelb-k8s", None), ("prometheus-client", None)]),
            package("openelb-benches", &[("openelb-bgp", None), ("openelb-k8s", None), ("axum", None)]),
            package("newcomer", &[]),
        ];
        assert_eq!(
            findings(&members),
            [
                "openelb-bgp -> openelb-ipam (dev)",
                "openelb-k8s -> openelb-bgp (normal)",
                "openelb-benches -> axum (normal): only openelb-chaos, openelbd may",
                "newcomer: not in the table of xtask/src/ci/arrows.rs yet",
            ]
        );
    }
}
