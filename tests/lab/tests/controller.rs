//! `openelbd controller` on a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use openelb_lab::{
    Lab, Process, binary, eventually,
    kube::{Action, ControlPlane, Fault},
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
/// From SIGTERM of the leader until the next one has given an address.
const HAND_OVER: SignedDuration = SignedDuration::from_secs(2);

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    fn new(name: &str) -> Self {
        let lab = Arc::new(Lab::start(name).unwrap());
        let kube = ControlPlane::start_api(&lab).unwrap();
        kube.apply_crds().unwrap();
        kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}").unwrap();
        Self { lab, kube }
    }

    /// A replica; their ports differ.
    fn controller(&self, number: u16) -> Process {
        self.controller_through(number, self.kube.kubeconfig())
    }

    fn controller_through(&self, number: u16, kubeconfig: &Path) -> Process {
        let program = binary("openelbd").unwrap();
        let (metrics, api) =
            (format!("127.0.0.1:{}", 51000 + number), format!("127.0.0.1:{}", 52000 + number));
        let name = format!("controller-{number}");
        let arguments = [
            program.to_str().unwrap(),
            "controller",
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "--identity",
            &name,
            "--metrics-addr",
            &metrics,
            "--http-bind-address",
            &api,
        ];
        self.lab.spawn(&name, self.kube.host(), &arguments).unwrap()
    }

    fn services(&self, count: usize, prefix: &str) {
        let mut documents = String::new();
        for number in 0..count {
            writeln!(
                documents,
                "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {prefix}-{number}, annotations: {{lb.kubesphere.io/v1alpha1: openelb}}}}, \
                 spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{port: 80}}]}}}}"
            )
            .unwrap();
        }
        self.kube.apply(&documents).unwrap();
    }

    /// The published addresses of every Service that has some.
    fn published(&self) -> BTreeMap<String, Vec<String>> {
        let services = self.kube.list("services").unwrap();
        let name = |service: &Value| {
            format!(
                "{}/{}",
                service["metadata"]["namespace"].as_str().unwrap(),
                service["metadata"]["name"].as_str().unwrap()
            )
        };
        let addresses = |service: &Value| -> Vec<String> {
            let ingress =
                service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
            ingress.iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
        };
        let all = services.iter().map(|service| (name(service), addresses(service)));
        all.filter(|(_, addresses)| !addresses.is_empty()).collect()
    }

    fn used(&self, eip: &str) -> BTreeMap<String, String> {
        let eip = self.kube.get("eips.network.kubesphere.io", "", eip).unwrap();
        serde_json::from_value(eip["status"]["used"].clone()).unwrap_or_default()
    }

    /// When and by whom an event of this reason was reported on a Service.
    fn event(&self, service: &str, reason: &str) -> (Timestamp, String) {
        let what = format!("an event {reason} on {service}");
        let of = |event: &Value| event["reason"] == reason && event["regarding"]["name"] == service;
        let found =
            eventually(&what, DEADLINE, || Ok(self.kube.list("events.events.k8s.io")?.into_iter().find(of)));
        let event = found.unwrap().0;
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        (text("eventTime").parse().unwrap(), text("reportingInstance"))
    }

    fn holder(&self) -> String {
        let lease = self.kube.get("leases.coordination.k8s.io", "openelb-system", "openelb-controller");
        lease.ok().and_then(|l| Some(l["spec"]["holderIdentity"].as_str()?.to_owned())).unwrap_or_default()
    }

    fn await_published(&self, count: usize) -> BTreeMap<String, Vec<String>> {
        let what = format!("{count} Services with addresses");
        eventually(&what, DEADLINE, || Ok(Some(self.published()).filter(|p| p.len() == count))).unwrap().0
    }

    /// What is published is committed to that Service and to nobody else, and nothing else is.
    fn check(&self, eip: &str) {
        let committed = self.used(eip);
        let published = self.published();
        let by_address: BTreeMap<&str, &str> = published
            .iter()
            .flat_map(|(service, addresses)| addresses.iter().map(move |a| (a.as_str(), service.as_str())))
            .collect();
        let committed: BTreeMap<&str, &str> =
            committed.iter().map(|(address, holder)| (address.as_str(), holder.as_str())).collect();
        assert_eq!(by_address, committed);
    }
}

const POOL: &str = "{apiVersion: network.kubesphere.io/v1alpha2, kind: Eip, metadata: {name: pool, \
     annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}, spec: {address: 192.0.2.0/24, protocol: none}}";

#[test]
fn services_get_addresses_and_keep_them_through_hand_over_and_kill() {
    let setup = Setup::new("controller");
    let first = setup.controller(1);
    let what = "the first replica leads";
    eventually(what, DEADLINE, || Ok(setup.holder().starts_with("controller-1").then_some(()))).unwrap();
    setup.services(20, "a");
    setup.kube.apply(POOL).unwrap();
    let assigned = setup.await_published(20);
    setup.check("pool");
    let service = setup.kube.get("services", "default", "a-0").unwrap();
    let condition = &service["status"]["conditions"][0];
    assert_eq!(condition["type"], "network.kubesphere.io/AddressAssigned");
    assert_eq!((&condition["status"], &condition["reason"]), (&"True".into(), &"Assigned".into()));
    assert_eq!(service["metadata"]["labels"]["eip.openelb.kubesphere.io/v1alpha2"], "pool");

    // Asked to end, it hands over: a new Service has its address within two seconds.
    let _second = setup.controller(2);
    eventually("the second replica is ready", DEADLINE, || {
        let code = ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:51002/readyz"];
        Ok(setup.lab.run(setup.kube.host(), &code).is_ok().then_some(()))
    })
    .unwrap();
    let asked = Timestamp::now();
    setup.lab.signal(&first, "TERM").unwrap();
    setup.services(1, "b");
    let there = Timestamp::now();
    let more = setup.await_published(21);
    setup.lab.wait_exit(&first, Duration::from_secs(5)).unwrap();
    assert!(setup.holder().starts_with("controller-2"));
    let (given, reporter) = setup.event("b-0", "AssignIP");
    assert!(reporter.starts_with("controller-2"), "{reporter}");
    // kubectl may be slow: the Service cannot have it sooner than it is there.
    let took = given.duration_since(asked);
    let bound = HAND_OVER.max(there.duration_since(asked) + SignedDuration::from_secs(1));
    assert!(took < bound, "the hand-over took {took:?}; the Service was there after {:?}", there - asked);
    assert!(
        assigned.iter().all(|(service, addresses)| more.get(service) == Some(addresses)),
        "addresses moved"
    );
    setup.check("pool");

    // Services go, others wait for their addresses and get them.
    setup.kube.kubectl(&["delete", "service", "a-0", "a-1", "--wait=false"]).unwrap();
    setup.await_published(19);
    eventually("two addresses are free again", DEADLINE, || {
        Ok((setup.used("pool").len() == 19).then_some(()))
    })
    .unwrap();
    setup.check("pool");
}

const ONE_ADDRESS: &str = "{apiVersion: network.kubesphere.io/v1alpha2, kind: Eip, metadata: {name: pool, \
     annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}, spec: {address: 192.0.2.7, protocol: none}}";

/// How long a woken leader is watched: several times what it takes to notice that it leads no more.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_leader_that_sleeps_between_commit_and_publication_does_no_harm_when_it_wakes() {
    let setup = Setup::new("sleeper");
    setup.kube.apply(ONE_ADDRESS).unwrap();
    let faults = setup.kube.start_faults(1).unwrap();
    let sleeper = setup.controller_through(1, faults.kubeconfig());
    eventually("the first replica leads", DEADLINE, || {
        Ok(setup.holder().starts_with("controller-1").then_some(()))
    })
    .unwrap();
    // What it publishes is on its way for longer than its Lease lasts.
    let late = Fault {
        name: "late".to_owned(),
        verb: "patch".to_owned(),
        path: "/services/[^/]+/status$".to_owned(),
        action: Action::Delay { milliseconds: 20_000 },
        ..Fault::default()
    };
    faults.set(&[late]).unwrap();
    setup.services(1, "first");
    eventually("a committed address", DEADLINE, || {
        let there = setup.used("pool").contains_key("192.0.2.7");
        Ok((there && faults.hits()?.get("late").is_some_and(|hits| *hits > 0)).then_some(()))
    })
    .unwrap();
    assert!(setup.published().is_empty());
    setup.lab.signal(&sleeper, "STOP").unwrap();
    let revision =
        || setup.kube.get("eips.network.kubesphere.io", "", "pool").unwrap()["status"]["revision"].clone();
    assert!(revision().is_null(), "what it committed itself it need not confirm");

    // The next leader publishes what the first one committed, once it has confirmed it.
    let _next = setup.controller(2);
    let published = setup.await_published(1);
    assert_eq!(published["default/first-0"], ["192.0.2.7"]);
    assert_eq!(revision(), 1);
    // The address goes to another Service.
    setup.kube.kubectl(&["delete", "service", "first-0", "--wait=false"]).unwrap();
    setup.services(1, "second");
    eventually("the address on the second Service", DEADLINE, || {
        Ok(setup.published().contains_key("default/second-0").then_some(()))
    })
    .unwrap();
    // A Service of the first one's name waits for the address, which the first leader thinks it has.
    setup.services(1, "first");

    setup.lab.signal(&sleeper, "CONT").unwrap();
    let woken = Instant::now();
    let mut looks = 0;
    while woken.elapsed() < WATCHED {
        let published = setup.published();
        assert_eq!(published.keys().collect::<Vec<_>>(), ["default/second-0"], "{:?}", woken.elapsed());
        setup.check("pool");
        looks += 1;
    }
    assert!(looks > 5, "looked {looks} times");
    assert!(setup.holder().starts_with("controller-2"));
    assert!(setup.lab.is_running(&sleeper), "{}", Lab::log_tail(&sleeper, 10));
}
