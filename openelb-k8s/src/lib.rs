//! OpenELB's custom resources, indexes, plans, sources and stores, and the seam to the announcers.
//!
//! ```
//! use openelb_k8s::index::Indexes;
//! use openelb_k8s::object::Object;
//!
//! let eip = serde_json::json!({
//!     "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
//!     "spec": {"address": "192.0.2.0/24"},
//! });
//! let mut indexes = Indexes::default();
//! if let Some(object) = Object::from_value(eip)? {
//!     indexes.apply(&object);
//! }
//! assert!(indexes.pools.get("pool").is_some_and(|pool| pool.gives()));
//! # Ok::<(), Box<openelb_k8s::problem::Problem>>(())
//! ```
//!
//! The way of an object: [`source`] reads it, [`store`] keeps it with its status, [`index`] parses it into a view,
//! [`plan`] computes writes and announcements from the views, the store commits the writes, an
//! [`announce::Announcer`] takes the announcements.

pub mod announce;
pub mod crd;
pub mod duration;
pub mod election;
pub mod explain;
pub mod index;
pub mod names;
pub mod object;
pub mod plan;
pub mod problem;
pub mod rights;
pub mod selector;
pub mod source;
pub mod store;
pub mod validate;
