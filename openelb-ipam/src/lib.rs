//! Address pools for load balancers and anything else that hands out IP addresses: pure decisions, no IO, no clock.
//!
//! - [`RangeList`]: text <-> ranges (addresses, networks, ranges, lists; both families).
//! - [`IntervalSet`], [`RangeSet`]: sets of addresses of any size, from one to all of IPv6.
//! - [`Pool`]: what may be given, who holds what, who may share it.
//! - [`Pools`]: several pools side by side, overlapping or not.
//! - [`decide`]: a batch of waiting requests in, one new state and one outcome each out.
//!
//! Everything is deterministic: the same pools and requests give the same answer, whatever the order of insertion.
//!
//! ```
//! use std::sync::Arc;
//! use openelb_ipam::{Ask, Family, Holder, PoolSpec, Pools, Request, Want, decide};
//!
//! let mut spec = PoolSpec::new("edge", "203.0.113.0/28, 2001:db8::/64")?;
//! spec.exclude = "203.0.113.1".parse()?; // the router
//! spec.avoid_network_and_broadcast = true;
//! let mut pools = Pools::new([spec]);
//! let edge = pools.find("edge").unwrap();
//!
//! // What is known from before is adopted as it is ...
//! pools.assign(edge, "203.0.113.2".parse()?, Arc::new(Holder::new("shop", "web", 1)));
//! // ... and who waits is served in order of age.
//! let request = Request {
//!     holder: Arc::new(Holder::new("shop", "api", 2)),
//!     wants: vec![Want { family: Family::V4, ask: Ask::Any(vec![edge]), held: None, leave: false }],
//!     all_or_none: false,
//! };
//! let decision = decide(&mut pools, &[request]);
//! assert_eq!(decision.outcomes[0][0].address(), Some((edge, "203.0.113.3".parse()?)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod error;
mod held;
mod interval;
mod pool;
mod pools;
mod range;
mod set;
mod sharing;

pub use batch::{Ask, Decision, Outcome, Request, Want, decide};
pub use error::{Closed, RangeError, RangeProblem, Refusal};
pub use interval::IntervalSet;
pub use pool::{Pool, PoolSpec};
pub use pools::{PoolId, Pools};
pub use range::{AddressRange, Entry, Family, RangeList, never_given, parse_address};
pub use set::RangeSet;
pub use sharing::{
    Conflict, Holder, HolderId, Port, Sharing, Terms, Traffic, Transport, may_coexist, may_share,
};
