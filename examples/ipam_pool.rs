//! Addresses out of a pool, and the reason when there is none.
//!
//! ```sh
//! cargo run -p openelb-examples --example ipam_pool
//! ```

use std::sync::Arc;

use openelb_ipam::{Ask, Family, Holder, Outcome, PoolSpec, Pools, Request, Want, decide};

/// A request for one IPv4 address of whichever pool is free.
fn request(pools: &Pools, name: &str, age: i64) -> Request {
    let candidates = pools.find("edge").into_iter().collect();
    Request {
        holder: Arc::new(Holder::new("default", name, age)),
        wants: vec![Want { family: Family::V4, ask: Ask::Any(candidates), held: None, leave: false }],
        all_or_none: false,
    }
}

fn run() -> anyhow::Result<Vec<String>> {
    let mut spec = PoolSpec::new("edge", "203.0.113.8/30")?;
    spec.exclude = "203.0.113.8, 203.0.113.11".parse()?;
    let mut pools = Pools::new([spec]);
    // Two addresses, three requests: who is older is served first, whatever the order here.
    let requests: Vec<_> =
        [("web", 2), ("api", 1), ("late", 3)].iter().map(|(name, age)| request(&pools, name, *age)).collect();
    let decision = decide(&mut pools, &requests);
    let lines = requests.iter().zip(&decision.outcomes).map(|(request, outcomes)| {
        let told: Vec<String> = outcomes.iter().map(tell).collect();
        format!("{}: {}", request.holder.id, told.join(", "))
    });
    Ok(lines.collect())
}

fn tell(outcome: &Outcome) -> String {
    if let Some((_, address)) = outcome.address() {
        return address.to_string();
    }
    let Outcome::Refused { refusals, .. } = outcome else { return "nothing".to_owned() };
    let reasons: Vec<String> = refusals.iter().map(|(_, refusal)| refusal.to_string()).collect();
    format!("nothing: {}", reasons.join("; "))
}

fn main() -> anyhow::Result<()> {
    for line in run()? {
        println!("{line}");
    }
    Ok(())
}

#[test]
fn two_get_an_address_and_the_third_a_reason() {
    let lines = run().unwrap();
    assert_eq!(lines.iter().filter(|line| line.contains("203.0.113.")).count(), 2, "{lines:?}");
    assert!(lines[2].contains("late: nothing"), "{lines:?}");
}
