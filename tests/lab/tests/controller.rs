//! `openelbd controller` on a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use openelb_lab::{
    Lab, Process, binary, eventually,
    kube::{Action, ControlPlane, Fault, NAMESPACE, Options, Request},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
/// From SIGTERM of the leader until another one has the Lease; two seconds where the machine has time, and surely less
/// than the eight for which a Lease lasts that nobody gives back.
const HAND_OVER: SignedDuration = SignedDuration::from_secs(5);
/// At rest: no write for so long, and for so many looks.
const REST: (Duration, usize) = (Duration::from_secs(3), 30);

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    /// An API server with an audit log, and OpenELB's objects on it.
    fn new(name: &str) -> Self {
        let lab = Arc::new(Lab::start(name).unwrap());
        let kube =
            ControlPlane::start_api_with(&lab, Options { audit: true, ..Options::api_only() }).unwrap();
        kube.install().unwrap();
        Self { lab, kube }
    }

    /// A replica, with the token of its ServiceAccount; their ports differ.
    fn controller(&self, number: u16) -> Process {
        self.controller_through(number, &self.kube.kubeconfig_of("controller").unwrap())
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

    /// Who has the Lease, and since when.
    fn lease(&self) -> Option<(String, Timestamp)> {
        let lease = self.kube.get("leases.coordination.k8s.io", NAMESPACE, "openelb-controller").ok()?;
        let text = |field: &str| Some(lease["spec"][field].as_str()?.to_owned());
        Some((text("holderIdentity")?, text("acquireTime")?.parse().ok()?))
    }

    fn holder(&self) -> String {
        self.lease().map(|(holder, _)| holder).unwrap_or_default()
    }

    fn await_leader(&self, number: u16) -> Timestamp {
        let name = format!("controller-{number}");
        let held = || Ok(self.lease().filter(|(holder, _)| holder.starts_with(&name)));
        eventually(&format!("{name} has the Lease"), DEADLINE, held).unwrap().0.1
    }

    /// What controllers have written so far, but for the Lease and events.
    fn writes(&self) -> Vec<Request> {
        let user = format!("system:serviceaccount:{NAMESPACE}:openelb-controller");
        let mut requests = self.kube.requests().unwrap();
        requests.retain(|request| {
            let writes = ["create", "update", "patch", "delete"].contains(&&*request.verb);
            writes && request.user == user && !["leases", "events"].contains(&&*request.resource)
        });
        requests
    }

    /// The same once there are no more for a while.
    fn writes_at_rest(&self) -> Vec<Request> {
        let (mut last, mut since, mut looks) = (self.writes(), Instant::now(), 0);
        eventually("controllers at rest", DEADLINE, || {
            let writes = self.writes();
            looks += 1;
            if writes.len() != last.len() {
                (last, since, looks) = (writes, Instant::now(), 0);
            }
            Ok((looks > REST.1 && since.elapsed() > REST.0).then(|| last.clone()))
        })
        .unwrap()
        .0
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

/// Services that are created while the leader ends.
const CREATED: usize = 200;
/// So many of them have addresses when it is asked to.
const UNDER_WAY: usize = 20;

#[test]
fn services_get_addresses_and_keep_them_through_hand_over_and_restart() {
    let setup = Setup::new("controller");
    let first = setup.controller(1);
    setup.await_leader(1);
    setup.services(20, "a");
    setup.kube.apply(POOL).unwrap();
    let assigned = setup.await_published(20);
    setup.check("pool");
    let service = setup.kube.get("services", "default", "a-0").unwrap();
    let condition = &service["status"]["conditions"][0];
    assert_eq!(condition["type"], "network.kubesphere.io/AddressAssigned");
    assert_eq!((&condition["status"], &condition["reason"]), (&"True".into(), &"Assigned".into()));
    assert_eq!(service["metadata"]["labels"]["eip.openelb.kubesphere.io/v1alpha2"], "pool");

    let second = setup.controller(2);
    eventually("the second replica is ready", DEADLINE, || {
        let code = ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:51002/readyz"];
        Ok(setup.lab.run(setup.kube.host(), &code).is_ok().then_some(()))
    })
    .unwrap();
    hand_over_under_load(&setup, &first);
    setup.services(1, "after");
    let more = setup.await_published(20 + CREATED + 1);
    let (_, reporter) = setup.event("after-0", "AssignIP");
    assert!(reporter.starts_with("controller-2"), "{reporter}");
    assert!(
        assigned.iter().all(|(service, addresses)| more.get(service) == Some(addresses)),
        "addresses moved"
    );
    setup.check("pool");

    // Services go, and their addresses are free again.
    let mut gone: Vec<String> = (0..CREATED).map(|number| format!("b-{number}")).collect();
    gone.push("after-0".to_owned());
    let mut command = vec!["delete", "service", "--wait=false"];
    command.extend(gone.iter().map(String::as_str));
    setup.kube.kubectl(&command).unwrap();
    setup.await_published(20);
    eventually("addresses are free again", DEADLINE, || Ok((setup.used("pool").len() == 20).then_some(())))
        .unwrap();
    setup.check("pool");
    a_restart_writes_nothing(&setup, &second);
}

/// The leader is asked to end while it writes: the other replica has the Lease before it could run out.
fn hand_over_under_load(setup: &Setup, first: &Process) {
    std::thread::scope(|scope| {
        let creation = scope.spawn(|| setup.services(CREATED, "b"));
        eventually("writes that are under way", DEADLINE, || {
            Ok((setup.published().len() >= 20 + UNDER_WAY).then_some(()))
        })
        .unwrap();
        let asked = Timestamp::now();
        setup.lab.signal(first, "TERM").unwrap();
        assert!(!creation.is_finished(), "the leader had nothing to do any more");
        // The Lease says when it was taken; when that is looked at does not matter.
        let taken = setup.await_leader(2);
        let took = taken.duration_since(asked);
        println!("hand-over under load: {took:?}");
        assert!(took.is_positive() && took < HAND_OVER, "the hand-over took {took:?}");
    });
    setup.lab.wait_exit(first, DEADLINE).unwrap();
}

/// Pools of several kinds, with what a restart could be tempted to write again: two families, a shared address, one that
/// was asked for, a request that cannot be met by a Service with an address and by one without.
const SEVERAL: &str = "
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: dual}
spec: {address: '198.51.100.0/28, 2001:db8::/120', protocol: bgp}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: bound}
spec: {address: 203.0.113.0/28, protocol: layer2, interface: eth0, serviceSelector: {matchLabels: {tier: web}}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: bad}
spec: {address: 203.0.113.300, protocol: bgp}
---
apiVersion: v1
kind: Service
metadata: {name: dual, annotations: {eip.openelb.kubesphere.io/v1alpha2: dual}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bound, labels: {tier: web}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: asking, annotations: {eip.openelb.kubesphere.io/v1alpha1: 198.51.100.7}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: sharing, annotations: {eip.openelb.kubesphere.io/v1alpha1: 198.51.100.7}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: waiting, annotations: {eip.openelb.kubesphere.io/v1alpha2: bad}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
";

/// A controller that comes up with everything assigned writes nothing, not even once it has been there for a while.
fn a_restart_writes_nothing(setup: &Setup, second: &Process) {
    setup.kube.apply(SEVERAL).unwrap();
    let published = setup.await_published(20 + 4);
    let unmet = ("services", "default", "waiting");
    setup.kube.wait_for(unmet, DEADLINE, |service| service["status"]["conditions"].is_array()).unwrap();
    // One that has an address asks for what it cannot have.
    let request = json!({"metadata": {"annotations": {"eip.openelb.kubesphere.io/v1alpha1": "10.9.9.9"}}});
    setup.kube.patch("services", "default", "a-5", None, &request).unwrap();
    let refused = ("services", "default", "a-5");
    let told = |service: &Value| service["status"]["conditions"].to_string().contains("AddressOutsidePools");
    setup.kube.wait_for(refused, DEADLINE, told).unwrap();
    setup.writes_at_rest();
    setup.lab.signal(second, "TERM").unwrap();
    setup.lab.wait_exit(second, DEADLINE).unwrap();
    let before = setup.writes();

    let _third = setup.controller(3);
    setup.await_leader(3);
    eventually("the third controller has decided", DEADLINE, || {
        let code = ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:51003/readyz"];
        Ok(setup.lab.run(setup.kube.host(), &code).is_ok().then_some(()))
    })
    .unwrap();
    let after = setup.writes_at_rest();
    assert_eq!(after[before.len()..], [], "a restart wrote");
    assert_eq!(setup.published(), published);
    // That it would be seen: a new Service costs a commit and a publication.
    setup.services(1, "new");
    setup.await_published(20 + 5);
    let new: Vec<(String, String)> = setup.writes_at_rest()[after.len()..]
        .iter()
        .map(|request| (request.resource.clone(), request.name.clone()))
        .collect();
    let wanted = [("eips/status", "pool"), ("services/status", "new-0")];
    assert_eq!(new, wanted.map(|(resource, name)| (resource.to_owned(), name.to_owned())));
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
    let kubeconfig = faults.service_account_kubeconfig(NAMESPACE, "openelb-controller").unwrap();
    let sleeper = setup.controller_through(1, &kubeconfig);
    setup.await_leader(1);
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
    eventually("the address is confirmed", DEADLINE, || Ok((revision() == 1).then_some(()))).unwrap();
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
    while woken.elapsed() < WATCHED || looks <= 5 {
        let published = setup.published();
        assert_eq!(published.keys().collect::<Vec<_>>(), ["default/second-0"], "{:?}", woken.elapsed());
        setup.check("pool");
        looks += 1;
    }
    assert!(setup.holder().starts_with("controller-2"));
    assert!(setup.lab.is_running(&sleeper), "{}", Lab::log_tail(&sleeper, 10));
}

const ROGUE: &str = "203.0.113.99";
/// So many turns come at once; between the next ones ours waits for so long, in seconds, at least.
const AT_ONCE: usize = 5;
const PAUSES: [i64; 2] = [2, 4];

#[test]
fn a_controller_that_writes_the_same_status_is_answered_ever_more_seldom_and_told() {
    let setup = Setup::new("rogue");
    setup.kube.apply(ONE_ADDRESS).unwrap();
    let _controller = setup.controller(1);
    setup.await_leader(1);
    setup.services(1, "a");
    setup.await_published(1);
    // What ours has published so far.
    let published = || {
        let of_status = |write: &Request| write.resource == "services/status" && write.code == 200;
        setup.writes().into_iter().filter(of_status).collect::<Vec<_>>()
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As the load balancer of K3s does: whatever is there is replaced at once.
        let rogue = scope.spawn(|| {
            let mut turns = 0;
            let theirs = json!({"status": {"loadBalancer": {"ingress": [{"ip": ROGUE}]}}});
            while !stop.load(Ordering::Relaxed) {
                if setup.published()["default/a-0"] != [ROGUE] {
                    setup.kube.patch("services", "default", "a-0", Some("status"), &theirs).unwrap();
                    turns += 1;
                }
            }
            turns
        });
        setup.event("a-0", "IngressContested");
        // The first of them is no turn.
        let turns = 1 + AT_ONCE + PAUSES.len();
        let seen = eventually("turns that had to wait", DEADLINE, || {
            Ok(Some(published()).filter(|writes| writes.len() >= turns))
        });
        stop.store(true, Ordering::Relaxed);
        println!("{} turns of the other", rogue.join().unwrap());
        let writes = seen.unwrap().0;
        let waited: Vec<_> =
            writes.windows(2).map(|pair| pair[1].received.duration_since(pair[0].answered)).collect();
        println!("between those of ours: {waited:?}");
        for (waited, pause) in waited[AT_ONCE..].iter().zip(PAUSES) {
            assert!(*waited >= SignedDuration::from_secs(pause), "{waited} instead of {pause} s");
        }
    });
    // The other one has gone: the address comes back.
    let there = || Ok((setup.published()["default/a-0"] == ["192.0.2.7"]).then_some(()));
    eventually("the address is there again", DEADLINE, there).unwrap();
    setup.check("pool");
}
