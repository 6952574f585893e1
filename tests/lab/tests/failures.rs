//! Six of the failures of the manual's table, and what they may cost at most. The rest is `cargo xtask soak failures`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use openelb_lab::{
    failures::{self, Failure, HOLD, Watch},
    routers::Make,
};

#[test]
fn a_silent_node_without_bfd_is_given_up_at_the_end_of_the_hold_time() {
    let outcome = failures::run(Make::Bird, Watch::HoldTime, Failure::CutOff).unwrap();
    let gone = outcome.gone.expect("a dead node must not be kept by graceful restart");
    // The last KEEPALIVE is up to a third of the hold time old.
    let hold = Duration::from_secs(u64::from(HOLD));
    assert!(gone > hold * 2 / 3 - Duration::from_secs(1) && gone < hold + Duration::from_secs(5), "{gone:?}");
}

#[test]
fn a_silent_node_with_bfd_is_given_up_at_once() {
    let outcome = failures::run(Make::Frr, Watch::Bfd, Failure::CutOff).unwrap();
    let gone = outcome.gone.expect("BFD must find it");
    // Without BFD it would take six seconds at least.
    assert!(gone < Duration::from_secs(5), "{gone:?}");
}

#[test]
fn a_rolling_update_costs_nothing_with_frr() {
    let outcome = failures::run(Make::Frr, Watch::HoldTime, Failure::RollingUpdate).unwrap();
    assert_eq!(outcome.gone, None);
    assert_eq!((outcome.figures.failed, outcome.broken), (0, 0), "{:?}", outcome.figures.errors);
}

/// With BFD, too, where the router takes a neighbour that BFD loses for one that restarts.
#[test]
fn a_rolling_update_costs_nothing_with_bird_and_graceful_bfd() {
    let outcome = failures::run(Make::Bird, Watch::GracefulBfd, Failure::RollingUpdate).unwrap();
    assert_eq!(outcome.gone, None);
    assert_eq!((outcome.figures.failed, outcome.broken), (0, 0), "{:?}", outcome.figures.errors);
}

/// With plain BFD BIRD 2 drops the routes of a neighbour that BFD loses, whatever it says: so it is not to lose it.
#[test]
fn a_rolling_update_costs_nothing_with_bird_and_plain_bfd() {
    let outcome = failures::run(Make::Bird, Watch::Bfd, Failure::RollingUpdate).unwrap();
    assert_eq!(outcome.gone, None);
    assert_eq!((outcome.figures.failed, outcome.broken), (0, 0), "{:?}", outcome.figures.errors);
}

#[test]
fn a_rolling_update_costs_nothing_with_frr_and_bfd() {
    let outcome = failures::run(Make::Frr, Watch::Bfd, Failure::RollingUpdate).unwrap();
    assert_eq!(outcome.gone, None);
    assert_eq!((outcome.figures.failed, outcome.broken), (0, 0), "{:?}", outcome.figures.errors);
}
