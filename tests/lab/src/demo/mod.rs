//! The demo: pools, addresses, routes and traffic, step by step, on one machine; without a cluster, and on one.

mod cluster;
mod common;
mod lan;
mod report;
mod stage;
mod steps;

use std::path::PathBuf;

pub use report::{Report, Row};

/// What the demo is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `openelbd` to run on the nodes.
    pub openelbd: PathBuf,
    /// The directory of the demo's manifests; they are copied, and edited there.
    pub manifests: PathBuf,
    /// Leave everything running at the end, and say how to look at it, until standard input ends or a signal comes.
    pub keep: bool,
}

/// Plays the demo without a cluster, printing as it goes.
///
/// # Errors
/// The lab cannot be made. A step that does not hold is no error but in the [`Report`].
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let lab = report.step("Network: router, three nodes, three pods, a client", |detail| {
        let lab = crate::topology::start("demo")?;
        detail.say(format!("in {}, in namespaces of its own", lab.path().display()));
        Ok(lab)
    });
    let Some(lab) = lab else { return Ok(report) };
    let stage = stage::Stage::new(&lab, None, options)?;
    steps::play(&stage, &mut report);
    let beside =
        report.step("LAN: three nodes, three pods and a client on one switch, no router", lan::start);
    if let Some(lab) = &beside {
        let manifests = options.manifests.with_file_name("demo-lan");
        let stage = stage::Stage::new(lab, None, &Options { manifests, ..options.clone() })?;
        lan::play(&stage, &mut report);
        if !report.all_held() {
            stage.print_where_to_look();
        }
    }
    end(&stage, &report, options)?;
    Ok(report)
}

/// Plays the demo on a real control plane with real kube-proxies, printing as it goes. It takes the manifests of
/// `deploy`, and of [`Options::manifests`] those that are no Nodes and no EndpointSlices.
///
/// # Errors
/// The lab cannot be made. A step that does not hold is no error but in the [`Report`].
pub fn run_on_kubernetes(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let cluster =
        report.step("Cluster: API server, three Nodes and Pods, kube-proxy on each", cluster::start);
    let Some(cluster) = cluster else { return Ok(report) };
    let stage = stage::Stage::new(&cluster.lab, Some(&cluster.kube), options)?;
    cluster::play(&cluster, &stage, &mut report);
    end(&stage, &report, options)?;
    Ok(report)
}

fn end(stage: &stage::Stage<'_>, report: &Report, options: &Options) -> anyhow::Result<()> {
    report.print_summary();
    if !report.all_held() {
        stage.print_where_to_look();
    }
    if options.keep { stage.keep() } else { Ok(()) }
}
