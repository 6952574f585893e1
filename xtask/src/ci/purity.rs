//! The cores have no IO: neither in what they depend on, nor in what they name. And they know no Kubernetes.

use std::path::Path;

use super::sources::{self, code, has_word};
use super::{CORES, Verdict, verdict};
use crate::shell;

/// Not in the tree of a core that is built without its default features.
const RUNTIME_CRATES: &[&str] = &[
    "async-io",
    "async-std",
    "futures",
    "hyper",
    "kube",
    "libc",
    "mio",
    "nix",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// Where a core meets sockets and tasks: `net/`, and what serves others over it.
const IO_ROOMS: &[&str] = &["net", "grpc"];

/// Not named in the code of a core outside those.
const RUNTIME_WORDS: &[&str] = &["tokio::", "socket2::", "mio::", "rustix::", "libc::"];

/// Not named in the code of `index/` and `plan/` of openelb-k8s: no clock, no socket, no file, no client, no task.
const CONTROLLER_WORDS: &[&str] = &[
    "tokio",
    "notify",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "kube::api",
];

/// Not in any file of a core, comments included: whoever embeds one never hears of a cluster.
const CLUSTER_WORDS: &[&str] = &[
    "apiserver",
    "configmap",
    "crd",
    "crds",
    "customresource",
    "daemonset",
    "eip",
    "eips",
    "endpointslice",
    "k8s",
    "kube",
    "kubectl",
    "kubelet",
    "kubernetes",
    "loadbalancer",
];

pub(super) fn check() -> anyhow::Result<Verdict> {
    let mut found = Vec::new();
    let mut files = 0;
    for package in CORES {
        let arguments =
            ["tree", "--package", package, "--edges=normal", "--no-default-features", "--prefix=none"];
        let tree = shell::capture(shell::cargo().args(arguments))?;
        found.extend(
            runtime_crates(&tree).map(|line| format!("{package} without default features needs {line}")),
        );
        for path in sources::files(&shell::root().join(package).join("src"), &["rs"])? {
            let text = sources::read(&path)?;
            let name = sources::shown(&path);
            files += 1;
            found
                .extend(cluster_words(&text).map(|(line, word)| format!("{name}:{line}: the word {word:?}")));
            let in_net = path.components().any(|part| IO_ROOMS.iter().any(|room| part.as_os_str() == *room))
                || path.file_name().is_some_and(|file| file == "net.rs");
            // Documentation of a crate may show how to run it; its code is in `net/`.
            if !in_net {
                let hits = code_words(&text, RUNTIME_WORDS);
                found.extend(hits.map(|(line, word)| format!("{name}:{line}: {word:?} outside net/")));
            }
        }
    }
    let controller = shell::root().join("openelb-k8s/src");
    for room in ["index", "plan"] {
        if !controller.join(room).is_dir() {
            continue;
        }
        for path in sources::files(&controller.join(room), &["rs"])? {
            let text = sources::read(&path)?;
            files += 1;
            let hits = code_words(&text, CONTROLLER_WORDS);
            found.extend(hits.map(|(line, word)| {
                format!("{}:{line}: {word:?} in {room}/", sources::shown(Path::new(&path)))
            }));
        }
    }
    verdict("places are not pure:", &found, format!("{files} files"))
}

/// The lines of a `cargo tree --prefix=none` that name a forbidden crate.
fn runtime_crates(tree: &str) -> impl Iterator<Item = &str> {
    tree.lines().filter(|line| line.split(' ').next().is_some_and(|name| RUNTIME_CRATES.contains(&name)))
}

fn cluster_words(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.to_ascii_lowercase();
        CLUSTER_WORDS.iter().find(|word| has_word(&line, word)).map(|word| (number, *word))
    })
}

fn code_words(text: &str, words: &'static [&'static str]) -> impl Iterator<Item = (usize, &'static str)> {
    code(text).filter_map(move |(number, line)| {
        words
            .iter()
            .find(|word| match word.strip_suffix("::") {
                Some(path) => line.contains(*word) && has_word(line, path),
                None => has_word(line, word),
            })
            .map(|word| (number, *word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_in_the_tree_is_found() {
        let tree =
            "openelb-bgp v0.1.0 (/x)\nbytes v1.12.2\ntokio v1.54.1\ntokio-macros v2.7.2\nlibc v0.2.0 (*)\n";
        assert_eq!(runtime_crates(tree).collect::<Vec<_>>(), ["tokio v1.54.1", "libc v0.2.0 (*)"]);
    }

    #[test]
    fn cluster_words_are_found_in_code_and_comments() {
        let text = "//! Pools.\n// a Kubernetes thing\nstruct EIP;\nlet receipt = cubes;\n";
        assert_eq!(cluster_words(text).collect::<Vec<_>>(), [(2, "kubernetes"), (3, "eip")]);
    }

    #[test]
    fn clocks_and_sockets_are_found_in_code_only() {
        let text =
            "// Instant::now is for net/\nlet now = Instant::now();\nuse tokio::sync;\nlet my_tokio = 1;\n";
        assert_eq!(
            code_words(text, CONTROLLER_WORDS).collect::<Vec<_>>(),
            [(2, "Instant::now"), (3, "tokio")]
        );
        assert_eq!(code_words(text, RUNTIME_WORDS).collect::<Vec<_>>(), [(3, "tokio::")]);
    }
}
