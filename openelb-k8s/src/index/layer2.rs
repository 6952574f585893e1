//! The `Layer2Conf` named `default`, parsed.

use std::time::Duration;

use super::SpecProblem;
use crate::crd::{Layer2Conf, Layer2ConfSpec};
use crate::names::DEFAULT_OBJECT;
use crate::{duration, validate};

/// How addresses are announced by ARP and NDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer2Spec {
    /// When gratuitous frames are sent after a claim.
    pub schedule: Vec<Duration>,
    /// And again so often.
    pub refresh: Duration,
    /// How long another node answers for one whose speaker is gone; zero: it takes the address over at once.
    pub stand_in: Duration,
    /// How long after its host's boot a node takes no address that another can hold.
    pub join_delay: Duration,
    /// When an address returns to its best node.
    pub failback: Failback,
}

/// When an address returns to its best node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// Once that node has been a candidate for so long.
    Delayed(Duration),
    /// At once.
    Immediate,
    /// Never by itself.
    Manual,
}

impl Default for Layer2Spec {
    fn default() -> Self {
        Self {
            schedule: [0, 100, 300, 1000, 2000, 4000].map(Duration::from_millis).to_vec(),
            refresh: Duration::from_secs(60),
            stand_in: Duration::from_secs(600),
            join_delay: Duration::from_secs(30),
            failback: Failback::Delayed(Duration::from_secs(300)),
        }
    }
}

impl Layer2Spec {
    /// Parses a spec. A field that cannot be used has its default, and is named.
    #[must_use]
    pub fn parse(spec: &Layer2ConfSpec) -> (Self, Vec<SpecProblem>) {
        let problems = validate::layer2_conf(spec);
        let usable = |field: &str| !problems.iter().any(|problem| problem.field == field);
        let value = |field: &str, text: Option<&String>, default: Duration| {
            let parsed = text.filter(|_| usable(field)).and_then(|text| duration::parse(text).ok());
            parsed.unwrap_or(default)
        };
        let default = Self::default();
        let gratuitous = spec.gratuitous.clone().unwrap_or_default();
        let schedule = gratuitous.schedule.map(|entries| {
            let entries = entries.iter().enumerate();
            let usable = entries.filter(|(index, _)| usable(&format!("spec.gratuitous.schedule[{index}]")));
            let mut schedule: Vec<Duration> =
                usable.filter_map(|(_, text)| duration::parse(text).ok()).collect();
            schedule.sort_unstable();
            schedule
        });
        let stand_in = spec.stand_in.clone().unwrap_or_default();
        let stand_in = if stand_in.enabled == Some(false) {
            Duration::ZERO
        } else {
            value("spec.standIn.timeout", stand_in.timeout.as_ref(), default.stand_in)
        };
        let delay = value("spec.failbackDelay", spec.failback_delay.as_ref(), Duration::from_secs(300));
        let parsed = Self {
            schedule: schedule.unwrap_or(default.schedule),
            refresh: value(
                "spec.gratuitous.refreshInterval",
                gratuitous.refresh_interval.as_ref(),
                default.refresh,
            ),
            stand_in,
            join_delay: value("spec.joinDelay", spec.join_delay.as_ref(), default.join_delay),
            failback: match spec.failback.as_deref().map(str::trim) {
                Some("Immediate") => Failback::Immediate,
                Some("Manual") => Failback::Manual,
                _ => Failback::Delayed(delay),
            },
        };
        (parsed, problems)
    }
}

/// The configuration of Layer 2.
#[derive(Clone, Debug, Default)]
pub struct Layer2 {
    /// What is in force.
    spec: Layer2Spec,
    problems: Vec<SpecProblem>,
    /// Of the object; `None`: there is none.
    uid: Option<String>,
    /// All of `spec` is of a version of this object that was good.
    good: bool,
    last_good: bool,
}

impl Layer2 {
    /// Takes in a `Layer2Conf`; only the one named `default` counts. One that became bad keeps its last good version; of
    /// one that never was good, what cannot be used has its default. Says whether anything changed.
    pub fn apply(&mut self, conf: &Layer2Conf) -> bool {
        if conf.metadata.name.as_deref() != Some(DEFAULT_OBJECT) {
            return false;
        }
        let uid = conf.metadata.uid.clone().unwrap_or_default();
        let (mut spec, mut problems) = Layer2Spec::parse(&conf.spec);
        super::add_unreadable(&conf.metadata, &mut problems);
        let last_good = !problems.is_empty() && self.good && self.uid.as_ref() == Some(&uid);
        if last_good {
            spec.clone_from(&self.spec);
        }
        let changed = self.spec != spec || self.problems != problems || self.last_good != last_good;
        *self = Self { spec, good: last_good || problems.is_empty(), problems, uid: Some(uid), last_good };
        changed
    }

    /// Forgets a `Layer2Conf`. Says whether anything changed.
    pub fn delete(&mut self, name: &str) -> bool {
        if name != DEFAULT_OBJECT {
            return false;
        }
        let changed = self.spec != Layer2Spec::default() || !self.problems.is_empty();
        *self = Self::default();
        changed
    }

    /// What is in force.
    #[must_use]
    pub const fn spec(&self) -> &Layer2Spec {
        &self.spec
    }

    /// What of the object cannot be used.
    #[must_use]
    pub fn problems(&self) -> &[SpecProblem] {
        &self.problems
    }

    /// What is in force is of an earlier version, because the present one is bad.
    #[must_use]
    pub const fn is_last_good(&self) -> bool {
        self.last_good
    }

    /// The problems of the object, and whether its last good version is in force.
    pub(super) fn problems_mut(&mut self, name: &str) -> Option<(&mut Vec<SpecProblem>, Option<&mut bool>)> {
        let known = name == DEFAULT_OBJECT && self.uid.is_some();
        known.then_some((&mut self.problems, self.good.then_some(&mut self.last_good)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conf(name: &str, spec: serde_json::Value) -> Layer2Conf {
        serde_json::from_value(json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Layer2Conf",
            "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn without_the_object_and_with_an_empty_one_the_defaults_hold() {
        let mut layer2 = Layer2::default();
        assert_eq!(*layer2.spec(), Layer2Spec::default());
        assert!(!layer2.apply(&conf("default", json!({}))));
        assert_eq!(*layer2.spec(), Layer2Spec::default());
        assert!(!layer2.apply(&conf("other", json!({"joinDelay": "1s"}))), "only the default counts");
    }

    #[test]
    fn every_field_takes_effect_and_a_bad_one_of_a_new_object_has_its_default() {
        let mut layer2 = Layer2::default();
        assert!(layer2.apply(&conf(
            "default",
            json!({
                "gratuitous": {"schedule": ["1s", "0"], "refreshInterval": "5s"},
                "standIn": {"timeout": "20s"}, "joinDelay": "never", "failback": "Delayed", "failbackDelay": "1m",
            })
        )));
        let spec = layer2.spec();
        assert_eq!(spec.schedule, [Duration::ZERO, Duration::from_secs(1)]);
        assert_eq!(spec.refresh, Duration::from_secs(5));
        assert_eq!(spec.stand_in, Duration::from_secs(20));
        assert_eq!(spec.join_delay, Duration::from_secs(30));
        assert_eq!(spec.failback, Failback::Delayed(Duration::from_secs(60)));
        let [problem] = layer2.problems() else { panic!("{:?}", layer2.problems()) };
        assert_eq!(problem.field, "spec.joinDelay");

        assert!(layer2.apply(&conf("default", json!({"standIn": {"enabled": false}, "failback": "Manual"}))));
        assert_eq!((layer2.spec().stand_in, layer2.spec().failback), (Duration::ZERO, Failback::Manual));
        assert!(layer2.delete("default"));
        assert_eq!(*layer2.spec(), Layer2Spec::default());
    }

    #[test]
    fn an_object_that_becomes_bad_keeps_its_last_good_version() {
        let of = |uid: &str, spec: serde_json::Value| {
            let mut conf = conf("default", spec);
            conf.metadata.uid = Some(uid.to_owned());
            conf
        };
        let mut layer2 = Layer2::default();
        assert!(layer2.apply(&of("a", json!({"failback": "Manual", "joinDelay": "1s"}))));
        let good = layer2.spec().clone();
        for bad in [
            json!({"failback": "manual", "joinDelay": "2s"}),
            json!({"failback": "Manual", "joinDelay": "soon"}),
        ] {
            assert!(layer2.apply(&of("a", bad)), "a problem is news");
            assert_eq!((layer2.spec(), layer2.problems().len(), layer2.is_last_good()), (&good, 1, true));
        }
        assert!(layer2.apply(&of("a", json!({"failback": "Immediate"}))));
        assert_eq!((layer2.problems(), layer2.is_last_good()), (&[][..], false));
        assert_eq!(layer2.spec().failback, Failback::Immediate);

        // What another object of this name said holds no more.
        assert!(layer2.apply(&of("b", json!({"failback": "immediate", "joinDelay": "3s"}))));
        let default = Layer2Spec { join_delay: Duration::from_secs(3), ..Layer2Spec::default() };
        assert_eq!((layer2.spec(), layer2.is_last_good()), (&default, false));
        assert!(layer2.apply(&of("b", json!({"failback": "never"}))), "that was never good as a whole");
        assert_eq!((layer2.spec(), layer2.is_last_good()), (&Layer2Spec::default(), false));
    }
}
