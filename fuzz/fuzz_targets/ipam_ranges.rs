//! Text a user writes as an address, a network or a range: never a panic, and what was read prints to itself.
#![no_main]

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(net) = text.parse::<IpNet>() {
        assert_eq!(net.to_string().parse::<IpNet>(), Ok(net));
    }
});
