//! The real program under the name `kubectl-openelb`, without a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::{
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use common::{code, stderr, stdout};
use tempfile::TempDir;

struct Plugin {
    directory: TempDir,
    program: PathBuf,
}

impl Plugin {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("kubectl-openelb");
        symlink(env!("CARGO_BIN_EXE_openelbd"), &program).unwrap();
        Self { directory, program }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        for variable in [
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "RUST_LOG",
            "OPENELB_NAMESPACE",
            "HTTPS_PROXY",
            "https_proxy",
        ] {
            command.env_remove(variable);
        }
        command.env("HOME", self.directory.path()).args(arguments).output().unwrap()
    }
}

#[test]
fn help_names_every_command() {
    let plugin = Plugin::new();
    let help = plugin.run(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("Usage: kubectl openelb <COMMAND>"), "{}", stdout(&help));
    for command in ["explain", "services", "pools", "peers", "status", "events"] {
        assert!(stdout(&help).contains(command), "{command}");
        let output = plugin.run(&[command, "--help"]);
        assert_eq!(code(&output), 0, "{command}");
        assert!(stdout(&output).contains("--kubeconfig"), "{command}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let plugin = Plugin::new();
    for arguments in [
        &[][..],
        &["standalone"],
        &["explain"],
        &["explain", "service"],
        &["explain", "service", "a/b/c"],
        &["explain", "volcano", "a"],
        &["services", "-A", "-n", "shop"],
        &["pools", "-o", "xml"],
    ] {
        let output = plugin.run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_what_to_do() {
    let plugin = Plugin::new();
    let none = plugin.run(&["status"]);
    assert_eq!(code(&none), 1);
    assert!(stderr(&none).contains("give --kubeconfig"), "{}", stderr(&none));
    let kubeconfig = plugin.directory.path().join("kubeconfig");
    // Nobody listens on the discard port of the loopback address.
    std::fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: a, cluster: {server: 'http://127.0.0.1:9'}}], \
         users: [{name: a, user: {}}], contexts: [{name: a, context: {cluster: a, user: a}}]}",
    )
    .unwrap();
    let path = kubeconfig.to_str().unwrap();
    let away = plugin.run(&["pools", "--kubeconfig", path]);
    assert_eq!(code(&away), 1);
    assert!(stderr(&away).contains("the API server cannot be reached"), "{}", stderr(&away));
    let context = plugin.run(&["pools", "--kubeconfig", path, "--context", "other"]);
    assert_eq!(code(&context), 1);
    assert!(stderr(&context).contains("other"), "{}", stderr(&context));
}
