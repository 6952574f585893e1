//! What stands between the machine and Linux. So far the generator of socket filters, which is pure.

pub mod filter;
