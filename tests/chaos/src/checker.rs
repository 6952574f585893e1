//! What is published, event by event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;

/// What one Service shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) uid: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) sharing_key: Option<String>,
    pub(crate) is_load_balancer: bool,
}

impl Shown {
    pub(crate) fn of(service: &Service) -> Self {
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|status| status.ingress.as_ref());
        let annotations = service.metadata.annotations.as_ref();
        let key = annotations.and_then(|all| all.get("openelb.kubesphere.io/allow-shared-ip")).cloned();
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            addresses: ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect(),
            sharing_key: key,
            is_load_balancer: kind == Some("LoadBalancer"),
        }
    }
}

/// Follows one watch over all Services, so that its order is that of the API server.
#[derive(Debug)]
pub(crate) struct Checker {
    began: Instant,
    shown: BTreeMap<String, Shown>,
    /// By uid: the addresses that were published first. Cleared where the load asked for others.
    first: HashMap<String, BTreeSet<String>>,
    /// By uid: may lose or change addresses (the load took its status, or its type).
    excused: BTreeSet<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) publications: u64,
    /// What the speaker announces, and since when.
    announced: BTreeMap<String, Instant>,
    /// When an address was published last, of those that are not any more.
    unpublished: HashMap<String, Instant>,
    /// Addresses that were announced when nobody was seen to publish them, and when.
    early: Vec<(String, Instant)>,
    pub(crate) announcements: u64,
    /// What was seen of each Service and Eip last, for whoever has to understand a violation.
    journal: BTreeMap<String, VecDeque<String>>,
}

/// For so long a speaker may not have seen yet that an address is published no more: its watches are cut, the API server
/// is restarted.
const BEHIND: Duration = Duration::from_secs(40);
/// For so long the checker itself may be behind the speaker.
const AHEAD: Duration = Duration::from_secs(10);

/// How many lines of the journal are kept of each object.
const JOURNAL: usize = 12;

impl Checker {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            shown: BTreeMap::new(),
            first: HashMap::new(),
            excused: BTreeSet::new(),
            violations: Vec::new(),
            publications: 0,
            announced: BTreeMap::new(),
            unpublished: HashMap::new(),
            early: Vec::new(),
            announcements: 0,
            journal: BTreeMap::new(),
        }
    }

    fn violation(&mut self, text: String) {
        let mut text = format!("{:.3} s: {text}", self.began.elapsed().as_secs_f64());
        // The objects that it names.
        for (name, lines) in &self.journal {
            if text.split(|c: char| " \"[]".contains(c)).any(|word| word == name) || !name.contains('/') {
                for line in lines {
                    text.push_str(&format!("\n    {name}: {line}"));
                }
            }
        }
        self.violations.push(text);
    }

    /// Writes down what happened to an object.
    pub(crate) fn note(&mut self, name: &str, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let lines = self.journal.entry(name.to_owned()).or_default();
        lines.push_back(format!("{at:.3} s: {what}"));
        if lines.len() > JOURNAL {
            lines.pop_front();
        }
    }

    /// The load is about to take this Service's status or its type away.
    pub(crate) fn excuse(&mut self, uid: &str, forget: bool) {
        self.excused.insert(uid.to_owned());
        if forget {
            self.first.remove(uid);
        }
    }

    pub(crate) fn apply(&mut self, name: &str, service: &Service) {
        let now = Shown::of(service);
        let metadata = &service.metadata;
        let version = metadata.resource_version.as_deref().unwrap_or_default();
        let by = metadata.managed_fields.iter().flatten().max_by_key(|entry| entry.time.clone());
        let by = by.and_then(|entry| entry.manager.clone()).unwrap_or_default();
        let kind = if now.is_load_balancer { "LoadBalancer" } else { "another type" };
        self.note(name, &format!("version {version} {kind} {:?}, last by {by}", now.addresses));
        let before = self.shown.insert(name.to_owned(), now.clone()).unwrap_or_default();
        let before = if before.uid == now.uid { before } else { Shown::default() };
        if !now.is_load_balancer {
            // It gives its address back. It may have got it after the load had excused it, and before it was another type.
            self.first.remove(&now.uid);
        }
        if now.addresses == before.addresses {
            return;
        }
        self.publications += 1;
        self.unpublish(&before.addresses);
        for address in now.addresses.iter().filter(|address| !before.addresses.contains(address)) {
            let others: Vec<String> = self
                .shown
                .iter()
                .filter(|(other, shown)| *other != name && shown.addresses.contains(address))
                .filter(|(_, shown)| shown.sharing_key.is_none() || shown.sharing_key != now.sharing_key)
                .map(|(other, _)| other.clone())
                .collect();
            if !others.is_empty() {
                self.violation(format!("{address} is published by {name} and by {others:?}"));
            }
        }
        let excused = self.excused.contains(&now.uid);
        let lost: Vec<&String> =
            before.addresses.iter().filter(|address| !now.addresses.contains(address)).collect();
        if !lost.is_empty() && now.is_load_balancer && !excused {
            self.violation(format!("{name} lost {lost:?}; it shows {:?}", now.addresses));
        }
        if !now.addresses.is_empty() && now.is_load_balancer {
            let addresses: BTreeSet<String> = now.addresses.iter().cloned().collect();
            match self.first.get(&now.uid) {
                // A family that was wanted and could not be had comes later.
                Some(first) if !first.is_subset(&addresses) => {
                    self.violation(format!("{name} changed from {first:?} to {addresses:?}"));
                    self.first.insert(now.uid.clone(), addresses);
                }
                Some(_) | None => {
                    self.first.insert(now.uid.clone(), addresses);
                }
            }
            // It has them back.
            self.excused.remove(&now.uid);
        }
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.note(name, "deleted");
        if let Some(shown) = self.shown.remove(name) {
            self.unpublish(&shown.addresses);
        }
    }

    fn is_published(&self, address: &str) -> bool {
        self.shown.values().any(|shown| shown.addresses.iter().any(|one| one == address))
    }

    /// A Service shows these no more, or still.
    fn unpublish(&mut self, addresses: &[String]) {
        let now = Instant::now();
        let early: Vec<_> = std::mem::take(&mut self.early);
        self.early = early.into_iter().filter(|(address, _)| !self.is_published(address)).collect();
        for address in addresses {
            self.unpublished.insert(address.clone(), now);
        }
    }

    /// The speaker announces an address.
    pub(crate) fn announce(&mut self, address: &str) {
        let now = Instant::now();
        self.announcements += 1;
        self.announced.insert(address.to_owned(), now);
        let lately = self.unpublished.get(address).is_some_and(|at| now.duration_since(*at) < BEHIND);
        if !lately && !self.is_published(address) {
            self.early.push((address.to_owned(), now));
        }
        self.judge(now);
    }

    /// The speaker announces it no more.
    pub(crate) fn withdraw(&mut self, address: &str) {
        self.announced.remove(address);
    }

    /// What was announced first and never published.
    fn judge(&mut self, now: Instant) {
        let early = std::mem::take(&mut self.early);
        for (address, at) in early {
            if self.is_published(&address) || self.unpublished.get(&address).is_some_and(|last| *last >= at) {
                continue;
            }
            if now.duration_since(at) < AHEAD {
                self.early.push((address, at));
            } else {
                self.violation(format!("{address} was announced, and nobody published it"));
            }
        }
    }

    /// When everything has settled: what is published is committed, and nothing else; `expected` have an address.
    pub(crate) fn settle(&mut self, committed: &BTreeMap<String, BTreeSet<String>>, expected: &[String]) {
        self.judge(Instant::now() + AHEAD);
        self.note_unsettled(committed, expected);
    }

    /// It did not settle in time: what is not as it should be is a violation.
    pub(crate) fn note_unsettled(
        &mut self,
        committed: &BTreeMap<String, BTreeSet<String>>,
        expected: &[String],
    ) {
        for problem in self.unsettled(committed, expected) {
            self.violation(problem);
        }
    }

    /// What is not as it should be when everything has settled.
    pub(crate) fn unsettled(
        &self,
        committed: &BTreeMap<String, BTreeSet<String>>,
        expected: &[String],
    ) -> Vec<String> {
        let mut published: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, shown) in &self.shown {
            for address in &shown.addresses {
                published.entry(address.clone()).or_default().insert(name.clone());
            }
        }
        let mut problems = Vec::new();
        let addresses: BTreeSet<&String> = published.keys().chain(committed.keys()).collect();
        for address in addresses {
            let (shown, held) = (published.get(address), committed.get(address));
            if shown != held {
                problems.push(format!("{address} is published by {shown:?} and committed to {held:?}"));
            }
        }
        // The session has IPv4 alone.
        let published: BTreeSet<&String> =
            published.keys().filter(|address| !address.contains(':')).collect();
        let announced: BTreeSet<&String> = self.announced.keys().collect();
        for address in published.symmetric_difference(&announced) {
            let what = if announced.contains(address) {
                "announced and not published"
            } else {
                "published and not announced"
            };
            problems.push(format!("{address} is {what}"));
        }
        for name in expected {
            if self.shown.get(name).is_none_or(|shown| shown.addresses.is_empty()) {
                problems.push(format!("{name} has no address"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(uid: &str, addresses: &[&str], key: Option<&str>) -> Service {
        let ingress: Vec<_> = addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
        let annotations: BTreeMap<&str, &str> =
            key.map(|key| ("openelb.kubesphere.io/allow-shared-ip", key)).into_iter().collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"uid": uid, "annotations": annotations}, "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    #[test]
    fn an_address_of_two_is_seen_unless_they_share_a_key() {
        let mut checker = Checker::new();
        checker.apply("a", &service("1", &["192.0.2.1"], None));
        checker.apply("b", &service("2", &["192.0.2.1"], None));
        assert_eq!(checker.violations.len(), 1);
        checker.apply("c", &service("3", &["192.0.2.2"], Some("k")));
        checker.apply("d", &service("4", &["192.0.2.2"], Some("k")));
        assert_eq!(checker.violations.len(), 1);
    }

    #[test]
    fn a_loss_and_a_change_are_seen_unless_the_load_caused_them() {
        let mut checker = Checker::new();
        checker.apply("a", &service("1", &["192.0.2.1"], None));
        checker.apply("a", &service("1", &[], None));
        assert_eq!(checker.violations.len(), 1, "lost");
        checker.apply("a", &service("1", &["192.0.2.2"], None));
        assert_eq!(checker.violations.len(), 2, "changed");
        checker.excuse("1", false);
        checker.apply("a", &service("1", &[], None));
        checker.apply("a", &service("1", &["192.0.2.2"], None));
        assert_eq!(checker.violations.len(), 2, "its status was taken, and came back");
        checker.delete("a");
        checker.apply("a", &service("9", &["192.0.2.7"], None));
        assert_eq!(checker.violations.len(), 2, "another Service of the same name");
    }

    #[test]
    fn an_address_that_comes_after_the_load_excused_a_change_of_type_may_be_another_one_afterwards() {
        let mut checker = Checker::new();
        let of_type = |kind: &str, addresses: &[&str]| {
            let mut service = service("1", addresses, None);
            service.spec.as_mut().unwrap().type_ = Some(kind.to_owned());
            service
        };
        checker.excuse("1", true);
        checker.apply("a", &of_type("LoadBalancer", &["192.0.2.1"]));
        for (kind, addresses) in
            [("ClusterIP", &["192.0.2.1"][..]), ("ClusterIP", &[]), ("LoadBalancer", &["192.0.2.2"])]
        {
            checker.apply("a", &of_type(kind, addresses));
        }
        assert!(checker.violations.is_empty(), "{:?}", checker.violations);
    }

    #[test]
    fn orphans_and_uncommitted_addresses_are_seen_at_the_end() {
        let mut checker = Checker::new();
        checker.apply("a", &service("1", &["192.0.2.1"], None));
        checker.announce("192.0.2.1");
        let committed = |address: &str, holder: &str| {
            BTreeMap::from([(address.to_owned(), BTreeSet::from([holder.to_owned()]))])
        };
        assert!(checker.unsettled(&committed("192.0.2.1", "a"), &["a".to_owned()]).is_empty());
        assert_eq!(checker.unsettled(&committed("192.0.2.2", "b"), &[]).len(), 2);
        assert_eq!(checker.unsettled(&committed("192.0.2.1", "a"), &["z".to_owned()]).len(), 1);
        checker.withdraw("192.0.2.1");
        assert_eq!(checker.unsettled(&committed("192.0.2.1", "a"), &[]).len(), 1, "not announced");
    }

    #[test]
    fn an_announcement_of_what_nobody_publishes_is_seen() {
        let mut checker = Checker::new();
        checker.announce("192.0.2.1");
        checker.judge(Instant::now());
        assert!(checker.violations.is_empty(), "the checker may be behind: {:?}", checker.violations);
        checker.announce("192.0.2.2");
        checker.apply("a", &service("1", &["192.0.2.2"], None));
        checker.delete("a");
        checker.announce("192.0.2.2");
        checker.judge(Instant::now() + AHEAD);
        assert_eq!(checker.violations.len(), 1, "{:?}", checker.violations);
        assert!(checker.violations[0].contains("192.0.2.1 was announced"), "{:?}", checker.violations);
    }
}
