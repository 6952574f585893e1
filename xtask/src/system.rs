//! What has to be on the machine, and how it gets there: Debian packages, announced before they are installed.

use std::process::Command;

use anyhow::{Context, bail};

use crate::shell;

/// A program from a Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// Found in `PATH` or the directories of administration programs.
    pub(crate) program: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
    /// Why it is needed.
    pub(crate) purpose: &'static str,
}

pub(crate) const CXX: Requirement =
    Requirement { program: "c++", package: "g++", purpose: "compiles libFuzzer, which is C++" };

/// Whatever builds the daemon.
pub(crate) const MAKE: Requirement = Requirement {
    program: "make",
    package: "make",
    purpose: "builds jemalloc, the daemon's allocator, with cc",
};

pub(crate) const BIRD: Requirement = Requirement {
    program: "bird",
    package: "bird2",
    purpose: "the BGP router of the lab, and a peer of the benches",
};

pub(crate) const KEEPALIVED: Requirement =
    Requirement { program: "keepalived", package: "keepalived", purpose: "a peer of the benches" };

pub(crate) const FRR: Requirement = Requirement {
    program: "vtysh",
    package: "frr",
    purpose: "is a router of the lab, and a peer of the benches",
};

pub(crate) const GOBGP: Requirement = Requirement {
    program: "gobgpd",
    package: "gobgpd",
    purpose: "is a router of the lab, and a peer of the benches",
};

/// What `cargo xtask bench bgp` measures beside ours.
pub(crate) const BGP_PEERS: &[Requirement] = &[BIRD, FRR, GOBGP];

/// Routers that only `cargo xtask soak interop` runs.
pub(crate) const MORE_ROUTERS: &[Requirement] = &[
    Requirement {
        program: "exabgp",
        package: "exabgp",
        purpose: "is a router of the interoperability matrix",
    },
    Requirement {
        program: "bgpctl",
        package: "openbgpd",
        purpose: "is a router of the interoperability matrix",
    },
];

/// What the lab runs besides our own programs.
pub(crate) const LAB: &[Requirement] = &[
    MAKE,
    BIRD,
    FRR,
    GOBGP,
    Requirement {
        program: "gobgp",
        package: "gobgpd",
        purpose: "is the command line tool that our gRPC interface is tested with",
    },
    Requirement {
        program: "openssl",
        package: "openssl",
        purpose: "makes the certificates of the lab's TLS",
    },
    Requirement { program: "ip", package: "iproute2", purpose: "makes the lab's links and namespaces" },
    Requirement {
        program: "nft",
        package: "nftables",
        purpose: "carries virtual addresses to the lab's pods",
    },
    Requirement {
        program: "iptables-restore",
        package: "iptables",
        purpose: "is what kube-proxy programs nodes with in its older mode",
    },
    Requirement {
        program: "unshare",
        package: "util-linux",
        purpose: "gives each lab namespaces of its own",
    },
    Requirement {
        program: "arping",
        package: "iputils-arping",
        purpose: "asks for addresses as administrators do",
    },
    Requirement {
        program: "ndisc6",
        package: "ndisc6",
        purpose: "asks for IPv6 addresses as administrators do",
    },
    Requirement { program: "mount", package: "mount", purpose: "gives each lab file systems of its own" },
];

/// Installs what is missing of `requirements`, as root or with sudo.
///
/// # Errors
/// When something is missing and cannot be installed; says what to install by hand.
pub(crate) fn require(what: &str, requirements: &[Requirement]) -> anyhow::Result<()> {
    let missing: Vec<_> = requirements.iter().filter(|r| !shell::is_installed(r.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("{what} needs Debian packages that are not installed yet; installing them with apt-get:");
    for Requirement { program, package, purpose } in &missing {
        println!("  {package:<12} for {program}: {purpose}");
    }
    let packages: Vec<_> = missing.iter().map(|r| r.package).collect();
    let by_hand =
        format!("install it by hand, as root: apt-get update && apt-get install {}", packages.join(" "));
    if !shell::is_installed("apt-get") {
        bail!("there is no apt-get here; install what your distribution calls: {}", packages.join(", "));
    }
    apt_get(&["update"]).context(by_hand.clone())?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments).context(by_hand.clone())?;
    match missing.iter().find(|r| !shell::is_installed(r.program)) {
        Some(r) => bail!("{} was installed, but there is still no {}; {by_hand}", r.package, r.program),
        None => Ok(()),
    }
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = if is_root()? {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    } else if shell::is_installed("sudo") {
        let mut command = Command::new("sudo");
        // Without a password prompt: nothing here asks.
        command.args(["--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    } else {
        bail!("only root may install packages, and there is no sudo");
    };
    shell::run(command.args(arguments))
}

/// Fails unless this process may make network namespaces.
///
/// # Errors
/// When it is not root, with the command to run instead.
pub(crate) fn require_root(what: &str) -> anyhow::Result<()> {
    if is_root()? {
        return Ok(());
    }
    bail!(
        "{what} makes network namespaces, which only root may; run it as root, for example: sudo --preserve-env=PATH,HOME {what}"
    );
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> anyhow::Result<bool> {
    Ok(shell::capture(Command::new("id").arg("-u"))?.trim() == "0")
}
