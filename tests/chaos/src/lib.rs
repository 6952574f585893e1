//! Controllers and a speaker on a real API server while everything around them goes wrong, and a checker of what they
//! promise.
//!
//! ```no_run
//! use std::time::Duration;
//! use openelb_chaos::{Plan, run};
//!
//! let report = run("example", Plan { operations: 200, seed: 1, ..Plan::default() })?;
//! assert!(report.violations.is_empty(), "{:#?}", report.violations);
//! # anyhow::Ok(())
//! ```
//!
//! | part | file |
//! |---|---|
//! | a proxy between controllers and API server that answers wrongly, late, with old lists, or not at all | `proxy.rs` |
//! | Services that come, change and go; statuses that get lost; pools that are edited | `load.rs` |
//! | controllers that are killed and suspended, a speaker that is killed, an API server that is restarted | `disruptor.rs` |
//! | what the speaker announces, as its neighbour hears it | `collector.rs` |
//! | what is published, event by event: none twice, none lost, none changed; nothing announced that is not published | `checker.rs` |

mod checker;
mod collector;
mod disruptor;
mod load;
mod proxy;
mod run;

pub use run::{Plan, Report, run};
