//! The announcers: each translates [`Announcements`](openelb_k8s::announce::Announcements) into what a protocol
//! library takes, and that library's state back. The indexes and plans know no protocol; the libraries know no
//! Kubernetes.

mod announcers;
pub mod bgp;
pub mod layer2;

pub use announcers::{Announcers, Options as AnnouncerOptions};
