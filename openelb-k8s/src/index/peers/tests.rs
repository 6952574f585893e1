//! BFD profiles: BgpPeers take what the BgpConf says.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BfdSpec, PeerView};
use crate::index::{BgpConfView, Indexes};
use crate::object::{Kind, Object, ObjectRef};

fn apply(indexes: &mut Indexes, kind: &str, name: &str, spec: Value) {
    let value = json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind, "metadata": {"name": name}, "spec": spec});
    indexes.apply(&Object::from_value(value).unwrap().unwrap());
}

fn conf(indexes: &mut Indexes, profiles: Value) {
    apply(indexes, "BgpConf", "default", json!({"as": 65001, "bfdProfiles": profiles}));
}

fn peer(indexes: &mut Indexes, address: &str, bfd: Value) {
    apply(indexes, "BgpPeer", "p", json!({"conf": {"neighborAddress": address}, "bfd": bfd}));
}

fn view(indexes: &Indexes) -> &PeerView {
    indexes.peers.get("p").unwrap()
}

fn bfd(indexes: &Indexes) -> Option<BfdSpec> {
    view(indexes).spec.as_ref().unwrap().bfd
}

/// The field, and whether something is in force all the same.
fn problem(indexes: &Indexes) -> Option<(&str, bool)> {
    let view = view(indexes);
    assert_eq!(view.last_good, view.spec.is_some() && !view.problems.is_empty());
    view.problems.first().map(|problem| (problem.field.as_str(), view.last_good))
}

const UNKNOWN: &str = "spec.bfd.profile";

#[test]
fn values_of_the_peer_come_before_those_of_the_profile_and_these_before_the_defaults() {
    let all = json!({"detectMultiplier": 5, "receiveInterval": "50ms", "transmitInterval": "60ms", "passive": true,
                     "minimumTtl": 250});
    let ms = Duration::from_millis;
    let expected = |detect_multiplier, receive, transmit, passive, minimum_ttl| BfdSpec {
        detect_multiplier,
        receive_interval: ms(receive),
        transmit_interval: ms(transmit),
        passive,
        minimum_ttl,
    };
    let table = [
        (json!({}), json!({}), expected(3, 300, 300, false, None)),
        (all.clone(), json!({}), expected(5, 50, 60, true, Some(250))),
        (
            all.clone(),
            json!({"receiveInterval": "1s", "passive": false}),
            expected(5, 1000, 60, false, Some(250)),
        ),
        (
            all,
            json!({"detectMultiplier": 2, "transmitInterval": "2s", "minimumTtl": 1}),
            expected(2, 50, 2000, true, Some(1)),
        ),
        (
            json!({"receiveInterval": "70ms"}),
            json!({"detectMultiplier": 4}),
            expected(4, 70, 300, false, None),
        ),
    ];
    for (profile, own, expected) in table {
        let mut indexes = Indexes::default();
        conf(&mut indexes, json!({"fast": profile, "other": {"detectMultiplier": 99}}));
        let mut own = own;
        own["enabled"] = json!(true);
        own["profile"] = json!("fast");
        peer(&mut indexes, "192.0.2.1", own.clone());
        assert_eq!((bfd(&indexes), problem(&indexes)), (Some(expected), None), "{own}");
    }
}

#[test]
fn a_profile_does_not_switch_bfd_on() {
    let mut indexes = Indexes::default();
    conf(&mut indexes, json!({"fast": {}}));
    for own in [json!({"profile": "fast"}), json!({"profile": "fast", "enabled": false})] {
        peer(&mut indexes, "192.0.2.1", own);
        assert_eq!((bfd(&indexes), problem(&indexes)), (None, None));
    }
}

#[test]
fn a_peer_with_an_unknown_profile_is_not_used_until_it_is_there() {
    let mut indexes = Indexes::default();
    let unknown = json!({"enabled": true, "profile": "fast"});
    // Whichever comes first.
    for conf_first in [true, false] {
        if conf_first {
            conf(&mut indexes, json!({"slow": {}}));
            peer(&mut indexes, "192.0.2.1", unknown.clone());
        } else {
            peer(&mut indexes, "192.0.2.1", unknown.clone());
            conf(&mut indexes, json!({"slow": {}}));
        }
        assert!(view(&indexes).spec.is_none());
        assert_eq!(problem(&indexes), Some((UNKNOWN, false)));
        let problem_of = &view(&indexes).problems[0];
        assert!(
            problem_of.cause.contains("fast") && problem_of.remedy.contains("spec.bfdProfiles"),
            "{problem_of:?}"
        );
        conf(&mut indexes, json!({"fast": {"detectMultiplier": 7}}));
        assert_eq!((bfd(&indexes).unwrap().detect_multiplier, problem(&indexes)), (7, None));
        indexes = Indexes::default();
    }
}

#[test]
fn a_changed_profile_changes_bfd_and_nothing_else() {
    let mut indexes = Indexes::default();
    conf(&mut indexes, json!({"fast": {"receiveInterval": "50ms"}}));
    peer(&mut indexes, "192.0.2.1", json!({"enabled": true, "profile": "fast"}));
    let mut before = (**view(&indexes).spec.as_ref().unwrap()).clone();
    conf(&mut indexes, json!({"fast": {"receiveInterval": "100ms"}}));
    let after = &**view(&indexes).spec.as_ref().unwrap();
    assert_eq!(after.bfd.unwrap().receive_interval, Duration::from_millis(100));
    before.bfd = after.bfd;
    assert_eq!(&before, after);
}

#[test]
fn what_is_in_force_stays_when_the_profile_is_lost() {
    let mut indexes = Indexes::default();
    conf(&mut indexes, json!({"fast": {"detectMultiplier": 7}}));
    peer(&mut indexes, "192.0.2.1", json!({"enabled": true, "profile": "fast"}));
    let in_force = bfd(&indexes);
    // A BgpConf that is bad keeps its profiles.
    conf(&mut indexes, json!({"fast": {"detectMultiplier": 0}}));
    assert!(indexes.peers.conf().is_some_and(|conf: &BgpConfView| conf.last_good));
    assert_eq!((bfd(&indexes), problem(&indexes)), (in_force, None));
    // The profile is removed, or all of them.
    conf(&mut indexes, json!({}));
    assert_eq!((bfd(&indexes), problem(&indexes)), (in_force, Some((UNKNOWN, true))));
    indexes.delete(&ObjectRef::cluster(Kind::BgpConf, "default"));
    assert_eq!((bfd(&indexes), problem(&indexes)), (in_force, Some((UNKNOWN, true))));
    conf(&mut indexes, json!({"fast": {"detectMultiplier": 8}}));
    assert_eq!((bfd(&indexes).unwrap().detect_multiplier, problem(&indexes)), (8, None));
    // A new version of the peer that names one that is not there.
    peer(&mut indexes, "192.0.2.2", json!({"enabled": true, "profile": "fsat"}));
    assert_eq!((bfd(&indexes).unwrap().detect_multiplier, problem(&indexes)), (8, Some((UNKNOWN, true))));
    peer(&mut indexes, "192.0.2.2", json!({"enabled": true}));
    assert_eq!((bfd(&indexes).unwrap().detect_multiplier, problem(&indexes)), (3, None));
}
