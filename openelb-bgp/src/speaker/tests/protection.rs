//! Passwords, TTL security and BFD: which configurations are none.

use std::time::Duration;

use crate::{
    bfd,
    speaker::{BfdConfig, ConfigError, PeerConfig, Secret},
};

fn check(change: impl FnOnce(&mut PeerConfig)) -> Result<(), ConfigError> {
    let mut peer = PeerConfig::new("router", "192.0.2.1".parse().unwrap(), 65001);
    change(&mut peer);
    peer.validate()
}

#[test]
fn passwords_have_1_to_80_octets() {
    for (len, ok) in [(0, false), (1, true), (80, true), (81, false)] {
        let result = check(|peer| peer.password = Some(Secret::new("x".repeat(len))));
        assert_eq!(result.is_ok(), ok, "{len}: {result:?}");
    }
    let shown = check(|peer| peer.password = Some(Secret::new("secret".repeat(20)))).unwrap_err().to_string();
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn ttl_security_is_over_1_to_254_hops_and_without_a_ttl() {
    for (hops, ok) in [(0, false), (1, true), (254, true), (255, false)] {
        assert_eq!(check(|peer| peer.ttl_security = Some(hops)).is_ok(), ok, "{hops}");
    }
    let both = check(|peer| (peer.ttl_security, peer.multihop_ttl) = (Some(2), Some(2)));
    assert!(matches!(both, Err(ConfigError::TtlSecurityMultihop { .. })), "{both:?}");
}

#[test]
fn bfd_has_a_multiplier_and_intervals() {
    let with = |detect_multiplier: u8, interval: Duration| {
        let timers = bfd::Timers { detect_multiplier, desired_min_tx: interval, ..bfd::Timers::default() };
        check(|peer| peer.bfd = Some(BfdConfig { timers, minimum_ttl: None })).is_ok()
    };
    assert!(with(1, Duration::from_micros(1)) && with(255, Duration::from_secs(4294)));
    assert!(!with(0, Duration::from_secs(1)));
    assert!(!with(3, Duration::ZERO) && !with(3, Duration::from_secs(4295)));
}
