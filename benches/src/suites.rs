//! The suites: what `cargo xtask bench SUITE` can run.

use crate::{Options, Report, bgp_codec, bgp_originate, ipam, kube, l2, plan, standalone};

/// A named function that measures.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Shown above its rows.
    pub name: &'static str,
    /// Measures, prints nothing.
    pub run: fn(&Options) -> anyhow::Result<Report>,
}

/// What is measured together.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// The word on the command line.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// In this order.
    pub parts: &'static [Part],
}

/// Every suite.
#[must_use]
pub fn all() -> &'static [Suite] {
    &[
        Suite {
            name: "ipam",
            about: "address allocation at 1 to 1,000,000 used, beside a linear scan",
            parts: &[Part { name: "allocation", run: ipam::run }],
        },
        Suite {
            name: "plan",
            about: "the allocation plan with 1,000 Services in one pool and 10,000 in ten",
            parts: &[Part { name: "allocation", run: plan::run }],
        },
        Suite {
            name: "bgp",
            about: "UPDATE codec beside rustbgpd-wire and NetGauze; 10,000 to 500,000 routes to 1 to 100 neighbours, changes and memory beside BIRD, FRR and GoBGP; a million received",
            parts: &[
                Part { name: "codec", run: bgp_codec::run },
                Part { name: "originate", run: bgp_originate::originate },
                Part { name: "change", run: bgp_originate::change },
                Part { name: "receive", run: bgp_originate::receive },
            ],
        },
        Suite {
            name: "kube",
            about: "1,000 to 10,000 Services on a real API server, beside that server's own speed and, --with-peers, MetalLB (needs root)",
            parts: &[
                Part { name: "assign", run: kube::assign },
                Part { name: "one more", run: kube::one_more },
                Part { name: "speaker", run: kube::speaker },
            ],
        },
        Suite {
            name: "l2",
            about: "answering ARP and NDP beside the Linux kernel, a plain AF_PACKET loop and keepalived (needs root)",
            parts: &[Part { name: "answers", run: l2::run }],
        },
        Suite {
            name: "standalone",
            about: "an idle openelbd standalone with one peer and 100 Services: memory and processor time (needs root)",
            parts: &[Part { name: "idle", run: standalone::run }],
        },
    ]
}
