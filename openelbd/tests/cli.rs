//! The command line of the real program: help, exit codes, `validate`, `crds`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;

use common::{code, eip, run, service, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

const COMMANDS: [&str; 8] =
    ["controller", "speaker", "standalone", "plan", "validate", "crds", "completion", "version"];

#[test]
fn help_and_version_go_to_standard_output() {
    let version = run(&["-V"]);
    assert_eq!((code(&version), stdout(&version)), (0, format!("openelbd {}\n", env!("CARGO_PKG_VERSION"))));
    let command = run(&["version"]);
    assert_eq!((code(&command), stdout(&command)), (0, stdout(&version)));
    let json: Value = serde_json::from_str(&stdout(&run(&["version", "-o", "json"]))).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let help = run(&["--help"]);
    assert_eq!(code(&help), 0);
    for command in COMMANDS {
        assert!(stdout(&help).contains(command), "{command} is not in --help");
        let output = run(&[command, "--help"]);
        assert_eq!(code(&output), 0, "{command} --help");
        assert!(stdout(&output).contains("Usage:"), "{command} --help");
    }
}

#[test]
fn a_speaker_may_go_without_a_checkpoint() {
    // No cluster is configured: it says so, and has taken its arguments.
    let output = run(&["speaker", "--node-name", "a", "--checkpoint", "", "--kubeconfig", "/no/such/file"]);
    let text = stderr(&output);
    assert_eq!(code(&output), 1, "{text}");
    assert!(text.contains("/no/such/file"), "{text}");
}

#[test]
fn flags_of_the_go_programs_log_library_are_no_wrong_usage() {
    for command in [&["controller"][..], &["speaker", "--node-name", "a"]] {
        let given = ["--v=4", "--logtostderr", "--log_dir", "/tmp", "--kubeconfig", "/no/such/file"];
        let output = run(&[command, &given].concat());
        // It has taken its arguments.
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("--v has no effect"), "{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["plan"],
        &["plan", "--manifests"],
        &["validate"],
        &["validate", "-f", ".", "-o", "xml"],
        &["standalone", "--manifests", "."],
        &["standalone", "--manifests", ".", "--state", ".", "--node-name", "n", "--metrics-addr", "nonsense"],
        &["standalone", "--manifests", ".", "--state", ".", "--node-name", "n", "--drain-timeout", "5"],
        &["standalone", "--manifests", ".", "--state", ".", "--node-name", "n", "--on-stop", "Never"],
        &["standalone", "--manifests", ".", "--state", ".", "--node-name", ""],
        &["crds", "--log-level", "no=such=filter"],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn directories_that_are_not_there_exit_with_1_and_are_named() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let missing = missing.to_str().unwrap();
    let state = directory.path().join("state");
    let standalone = [
        "standalone",
        "--manifests",
        missing,
        "--state",
        state.to_str().unwrap(),
        "--node-name",
        "n",
        "--metrics-addr",
        "0",
    ];
    for arguments in [&["validate", "-f", missing][..], &["plan", "--manifests", missing], &standalone] {
        let output = run(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert_eq!(stderr(&output).matches("No such file").count(), 1, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(missing), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn crds_are_printed_in_every_format() {
    let yaml = run(&["crds"]);
    assert_eq!(code(&yaml), 0);
    let text = stdout(&yaml);
    let documents: Vec<Value> = text
        .split("---\n")
        .filter(|document| !document.is_empty())
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect();
    let names: Vec<&str> = documents.iter().map(|d| d["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"eips.network.kubesphere.io") && names.is_sorted(), "{names:?}");
    assert!(documents.iter().all(|d| d["kind"] == "CustomResourceDefinition"));

    let json: Value = serde_json::from_str(&stdout(&run(&["crds", "-o", "json"]))).unwrap();
    assert_eq!(json["kind"], "List");
    assert_eq!(json["items"].as_array().unwrap(), &documents);

    let table = stdout(&run(&["crds", "-o", "table"]));
    assert_eq!(table.lines().count(), documents.len() + 1, "{table}");
    assert_eq!(text, stdout(&run(&["crds"])), "the same bytes every time");
}

#[test]
fn completion_names_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completion", shell]);
        assert_eq!(code(&output), 0);
        for command in COMMANDS {
            assert!(stdout(&output).contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn validate_accepts_what_is_good() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.yaml"), eip("web", "203.0.113.0/28") + &service("a")).unwrap();
    let output = run(&["validate", "-f", directory.path().to_str().unwrap()]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "2 objects read, 0 errors, 0 warnings\n"));
}

/// Files, each with what `validate` must say of it: field and a part of the cause.
#[test]
fn validate_names_file_object_field_and_remedy() {
    let peer = |spec: &str| {
        format!(
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata: {{name: tor}}\nspec: {spec}\n"
        )
    };
    let table = [
        (eip("web", "203.0.113.300"), "Eip", "spec.address", "error"),
        (eip("web", "203.0.113.0/24\n  protocol: layer2"), "Eip", "spec.interface", "error"),
        (eip("web", "203.0.113.0/24\n  adress: x"), "Eip", "spec.adress", "error"),
        (
            peer("{conf: {neighborAddress: nonsense, peerAs: 1}}"),
            "BgpPeer",
            "spec.conf.neighborAddress",
            "error",
        ),
        (
            peer("{conf: {neighborAddress: 192.0.2.1, peerAs: 1}, timers: {config: {holdTime: \"1m\"}}}"),
            "BgpPeer",
            "spec.timers.config.holdTime",
            "error",
        ),
        (
            peer("{conf: {neighborAddress: 192.0.2.1, peerAs: 1, vrf: blue}}"),
            "BgpPeer",
            "spec.conf.vrf",
            "warning",
        ),
    ];
    for (text, kind, field, severity) in table {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, &text).unwrap();
        let output = run(&["validate", "-f", file.to_str().unwrap(), "-o", "json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let problems = report["problems"].as_array().unwrap();
        let problem = problems.iter().find(|p| p["field"] == field && p["severity"] == severity);
        let problem = problem.unwrap_or_else(|| panic!("{field} is not named for\n{text}\n{report:#}"));
        assert_eq!(problem["kind"], kind);
        assert_eq!(problem["file"], file.to_str().unwrap());
        assert!(
            !problem["cause"].as_str().unwrap().is_empty() && !problem["remedy"].as_str().unwrap().is_empty()
        );
        assert_eq!(code(&output), i32::from(severity == "error"), "{report:#}");
        let lines = stdout(&run(&["validate", "-f", file.to_str().unwrap()]));
        assert!(lines.lines().any(|line| line.starts_with(severity) && line.contains(field)), "{lines}");
    }
}

#[test]
fn validate_goes_on_after_a_broken_file() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.yaml"), "kind: [\n").unwrap();
    fs::write(directory.path().join("b.yaml"), eip("web", "nonsense")).unwrap();
    fs::write(directory.path().join("c.yaml"), service("a")).unwrap();
    let output = run(&["validate", "-f", directory.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!(code(&output), 1);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let files: Vec<&str> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["file"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert!(
        files.contains(&"a.yaml") && files.contains(&"b.yaml") && !files.contains(&"c.yaml"),
        "{report:#}"
    );
}
