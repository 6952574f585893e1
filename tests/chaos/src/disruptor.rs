//! Controllers that are killed and suspended, a speaker that is killed, an API server that is restarted.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use openelb_lab::{Lab, Process, binary, kube::ControlPlane};

use crate::run::NODE;

/// The replicas that elect a leader.
const REPLICAS: u16 = 2;

pub(crate) struct Disruptor<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) kube: &'a ControlPlane,
    pub(crate) kubeconfig: &'a Path,
    speakers_kubeconfig: &'a Path,
    pub(crate) random: fastrand::Rng,
    pub(crate) api_restarts: bool,
    pub(crate) done: BTreeMap<&'static str, u64>,
    replicas: Vec<Process>,
    speaker: Option<Process>,
}

impl<'a> Disruptor<'a> {
    pub(crate) fn new(
        lab: &'a Lab,
        kube: &'a ControlPlane,
        [kubeconfig, speakers_kubeconfig]: [&'a Path; 2],
        seed: u64,
        api_restarts: bool,
    ) -> Self {
        Self {
            lab,
            kube,
            kubeconfig,
            speakers_kubeconfig,
            random: fastrand::Rng::with_seed(seed),
            api_restarts,
            done: BTreeMap::new(),
            replicas: Vec::new(),
            speaker: None,
        }
    }

    fn start(&self, number: u16, elect: bool) -> anyhow::Result<Process> {
        let program = binary("openelbd")?;
        let (program, kubeconfig) = (program.to_string_lossy(), self.kubeconfig.to_string_lossy());
        let (metrics, api) =
            (format!("127.0.0.1:{}", 51000 + number), format!("127.0.0.1:{}", 52000 + number));
        let (name, elect) = (format!("controller-{number}"), format!("--leader-elect={elect}"));
        let arguments = [
            &*program,
            "controller",
            "--kubeconfig",
            &kubeconfig,
            "--identity",
            &name,
            "--metrics-addr",
            &metrics,
            "--http-bind-address",
            &api,
            &elect,
        ];
        self.lab.spawn(&name, self.kube.host(), &arguments)
    }

    fn start_speaker(&self) -> anyhow::Result<Process> {
        let program = binary("openelbd")?;
        let checkpoint = self.lab.path().join("speaker.checkpoint");
        let (program, kubeconfig) = (program.to_string_lossy(), self.speakers_kubeconfig.to_string_lossy());
        let checkpoint = checkpoint.to_string_lossy();
        let values = [
            ("--kubeconfig", &*kubeconfig),
            ("--node-name", NODE),
            ("--checkpoint", &*checkpoint),
            ("--metrics-addr", "0"),
            ("--http-bind-address", "0"),
            ("--api-hosts", "0"),
            ("--dataplane-health", "none"),
        ];
        let mut arguments = vec![&*program, "speaker", "--reject-undelivered=false", "--enable-layer2=false"];
        arguments.extend(values.iter().flat_map(|(name, value)| [*name, *value]));
        self.lab.spawn("speaker", self.kube.host(), &arguments)
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Disrupts until `stop`; then two replicas run, and nobody else.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        for number in 0..REPLICAS {
            let replica = self.start(number, true)?;
            self.replicas.push(replica);
        }
        self.speaker = Some(self.start_speaker()?);
        let mut rogue: Option<(Process, Instant)> = None;
        let mut suspended: Vec<(Process, Instant)> = Vec::new();
        let mut api_restarted = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(self.random.u64(200..1500)));
            let now = Instant::now();
            for (process, _) in suspended.extract_if(.., |(_, until)| *until <= now) {
                // It may have been killed meanwhile.
                let _ = self.lab.signal(&process, "CONT");
            }
            if let Some((process, _)) = rogue.take_if(|(_, until)| *until <= now) {
                self.lab.signal(&process, "KILL")?;
            }
            let index = self.random.usize(0..self.replicas.len());
            match self.random.u32(0..10) {
                0..4 => {
                    let victim = self.replicas.remove(index);
                    self.lab.signal(&victim, "KILL")?;
                    self.lab.wait_exit(&victim, Duration::from_secs(10))?;
                    let number = if victim.name == "controller-0" { 0 } else { 1 };
                    let replica = self.start(number, true)?;
                    self.replicas.insert(index, replica);
                    self.count("controller killed");
                }
                4..7 if suspended.is_empty() => {
                    let Some(victim) = self.replicas.get(index).cloned() else { continue };
                    self.lab.signal(&victim, "STOP")?;
                    // Longer than the Lease, often.
                    suspended.push((victim, now + Duration::from_millis(self.random.u64(500..12_000))));
                    self.count("controller suspended");
                }
                7 if rogue.is_none() => {
                    rogue = Some((self.start(9, false)?, now + Duration::from_secs(8)));
                    self.count("a second leader at once");
                }
                8 if self.api_restarts && api_restarted.elapsed() > Duration::from_secs(25) => {
                    self.kube.kill_api()?;
                    self.kube.start_api_again()?;
                    api_restarted = Instant::now();
                    self.count("API server restarted");
                }
                9 => {
                    if let Some(victim) = self.speaker.take() {
                        self.lab.signal(&victim, "KILL")?;
                        self.lab.wait_exit(&victim, Duration::from_secs(10))?;
                    }
                    self.speaker = Some(self.start_speaker()?);
                    self.count("speaker killed");
                }
                _ => {}
            }
        }
        for (process, _) in suspended {
            let _ = self.lab.signal(&process, "CONT");
        }
        if let Some((process, _)) = rogue {
            self.lab.signal(&process, "KILL")?;
        }
        Ok(())
    }

    /// The ends of the logs.
    pub(crate) fn logs(&self) -> String {
        self.replicas
            .iter()
            .chain(&self.speaker)
            .map(|replica| format!("{}:\n{}\n", replica.name, Lab::log_tail(replica, 15)))
            .collect()
    }
}
