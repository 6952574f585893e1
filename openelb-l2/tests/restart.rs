//! Speakers that die and come back while their host lives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod sim;

use std::time::Duration;

use openelb_l2::speaker::Event;
use sim::{Family, Sim, ms};

/// Peers are told before the table of interfaces was read. Whatever is known of the dead owner at that moment, the new
/// process gets its addresses back, and clients are told its MAC address all the time.
#[test]
fn a_speaker_that_hears_of_its_peers_before_its_links_gets_its_addresses_back() {
    for seed in 0..60 {
        let mut sim = Sim::of_family(Family::Both, 3, 4, seed);
        sim.start_all();
        sim.run(ms(4000));
        for trial in 0..6 {
            let what = format!("seed {seed}, trial {trial}");
            let owned =
                |sim: &mut Sim| sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect::<Vec<_>>();
            let owners = owned(&mut sim);
            let victim = owners[0];
            sim.kill(victim);
            let away = 400 + sim.random() % 900;
            sim.run(ms(away));
            sim.reset_measures();
            let lag = sim.random() % 150;
            let came = sim.elapsed();
            sim.start_blind(victim, ms(lag));
            let knew = sim.elapsed() - ms(1);
            sim.run(ms(1500));
            assert_eq!(owned(&mut sim), owners, "{what}: back after {away} ms, blind for {lag} ms");
            assert!(sim.longest_double.is_zero() && sim.longest_silence.is_zero(), "{what}");
            let early = |(at, event): &(_, Event)| {
                (came..knew).contains(at) && matches!(event, Event::StandInEnded { .. })
            };
            let gave_up = sim.hosts.iter().flat_map(|host| &host.events).filter(|event| early(event)).count();
            assert_eq!(gave_up, 0, "{what}: it cannot answer yet");
            // Some die again at once.
            let pause = sim.random() % 800;
            sim.run(ms(pause));
        }
    }
}

/// It asks the others what they hold in the very moment in which they give its predecessor up. That it is heard does not
/// mean that the one before lives and owns what it had: whoever stands in goes on.
#[test]
fn a_speaker_that_begins_just_before_the_one_before_is_given_up_ends_no_stand_in() {
    for seed in 0..4 {
        let killed = || {
            let mut sim = Sim::of_family(Family::Both, 3, 4, seed);
            sim.start_all();
            sim.run(ms(4000));
            let victim = sim.owner(sim.addresses[0]);
            sim.kill(victim);
            (sim, victim)
        };
        let (mut sim, victim) = killed();
        sim.run(ms(2000));
        let name = sim.hosts[victim].name.clone();
        let is_down = |event: &Event| matches!(event, Event::SpeakerDown { node } if *node == name);
        let all = sim.hosts.iter().flat_map(|host| &host.events);
        let given_up = all.filter(|(_, event)| is_down(event)).map(|(at, _)| *at).min().unwrap();
        for early in 1..=40 {
            let (mut sim, victim) = killed();
            let begins = given_up - early * Duration::from_micros(50);
            sim.run(begins - sim.elapsed());
            let mut stands_in = sim.hosts.iter().flat_map(|host| &host.events);
            assert!(stands_in.any(|(_, event)| matches!(event, Event::StandInStarted { .. })), "seed {seed}");
            sim.start_blind(victim, ms(20));
            let ended =
                |(at, event): &&(_, Event)| *at > begins && matches!(event, Event::StandInEnded { .. });
            let ended = sim.hosts.iter().flat_map(|host| &host.events).find(ended);
            assert!(ended.is_none(), "seed {seed}, {early} times 50 us before: {ended:?}");
        }
    }
}

/// An embedder that reads who its peers are only a while after the start, and none of them gets through before that. Until
/// they could say what they hold, the new process says nothing that would end a stand-in.
#[test]
fn a_speaker_that_hears_of_its_peers_late_gets_its_addresses_back() {
    for seed in 0..30 {
        let mut sim = Sim::of_family(Family::Both, 3, 4, seed);
        sim.start_all();
        sim.run(ms(4000));
        for trial in 0..4 {
            let what = format!("seed {seed}, trial {trial}");
            let owned =
                |sim: &mut Sim| sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect::<Vec<_>>();
            let owners = owned(&mut sim);
            let victim = owners[0];
            sim.kill(victim);
            // The others stand in by then.
            let away = 600 + sim.random() % 900;
            sim.run(ms(away));
            sim.reset_measures();
            let lag = sim.random() % 3000;
            sim.start_alone(victim, ms(lag));
            sim.run(ms(1500));
            assert_eq!(owned(&mut sim), owners, "{what}: back after {away} ms, alone for {lag} ms");
            assert!(
                sim.longest_double.is_zero() && sim.longest_silence.is_zero(),
                "{what}: alone for {lag} ms"
            );
        }
    }
}

/// An embedder whose list of peers is empty at first: until the new process owns something, it asks those that it hears of.
#[test]
fn a_speaker_whose_first_set_of_peers_is_empty_gets_its_addresses_back() {
    for seed in 0..30 {
        let mut sim = Sim::of_family(Family::Both, 3, 4, seed);
        sim.start_all();
        sim.run(ms(4000));
        for trial in 0..4 {
            let what = format!("seed {seed}, trial {trial}");
            let owned =
                |sim: &mut Sim| sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect::<Vec<_>>();
            let owners = owned(&mut sim);
            let victim = owners[0];
            sim.kill(victim);
            // The others stand in by then.
            let away = 600 + sim.random() % 900;
            sim.run(ms(away));
            sim.reset_measures();
            // Less than it takes to ask for strangers.
            let lag = sim.random() % 500;
            sim.start_without_peers(victim, ms(lag));
            sim.run(ms(1500));
            assert_eq!(owned(&mut sim), owners, "{what}: back after {away} ms, alone for {lag} ms");
            assert!(
                sim.longest_double.is_zero() && sim.longest_silence.is_zero(),
                "{what}: alone for {lag} ms"
            );
        }
    }
}

/// More addresses were removed than are remembered, and more are left than one datagram takes.
#[test]
fn a_speaker_that_comes_back_after_thousands_of_removals_hears_of_all_that_is_left() {
    for seed in 0..2 {
        let mut sim = Sim::new(2, 5000, seed);
        sim.sample_every = ms(1000);
        sim.start_all();
        sim.run(ms(4000));
        sim.addresses.drain(..4600);
        let now = sim.now;
        for n in 0..2 {
            let wanted = sim.desired(n);
            sim.act(n, |speaker| speaker.set_desired(wanted, now));
        }
        sim.run(ms(4000));
        let owned =
            |sim: &mut Sim| sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect::<Vec<_>>();
        let owners = owned(&mut sim);
        sim.kill(0);
        sim.run(ms(1000));
        sim.reset_measures();
        sim.sample_every = ms(10);
        sim.start(0);
        sim.run(ms(2000));
        assert_eq!(owned(&mut sim), owners, "seed {seed}");
        assert!(sim.longest_double.is_zero() && sim.longest_silence.is_zero(), "seed {seed}");
    }
}
