//! What a reader that does not allocate keeps of `Eip.status.used`.

use std::net::IpAddr;

use crate::index::pools::{PoolSpec, parse_spec};
use crate::index::unreadable;
use crate::object::Object;

/// Of an Eip that is read by generation: what was kept of its records, and what it covers.
pub(super) struct Records {
    /// `None`: it is bad. Its addresses are then given by its last good version, which is not known here.
    spec: Option<PoolSpec>,
    /// Kept: what lies outside its ranges.
    outside: Vec<IpAddr>,
}

impl Records {
    /// Leaves in the `used` of an Eip only what lies outside its ranges; of a bad one everything.
    pub(super) fn keep_outside(object: &mut Object) -> Option<Self> {
        let Object::Eip(eip) = object else { return None };
        let readable = unreadable(&eip.metadata).is_empty();
        let spec = parse_spec(&eip.spec).ok().filter(|_| readable);
        let mut records = Self { spec, outside: Vec::new() };
        if let Some(used) = eip.status.as_mut().and_then(|status| status.used.as_mut())
            && records.spec.is_some()
        {
            used.retain(|address, _| {
                let outside = address.parse().ok().filter(|address| !records.cover(*address));
                records.outside.extend(outside);
                outside.is_some()
            });
        }
        Some(records)
    }

    /// Would the Eip take an address over that another one does not cover any more?
    fn cover(&self, address: IpAddr) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.covers(address) && !spec.excludes(address))
    }

    /// May a change of the status alone have changed what was kept? That an address that nobody covers is released
    /// changes nothing: no other Service gets it. But another Eip may cover it, and those of a bad one are still given.
    pub(super) fn may_change<'a>(&self, mut others: impl Iterator<Item = &'a Self>) -> bool {
        self.spec.is_none()
            || !self.outside.is_empty()
                && others.any(|other| self.outside.iter().any(|address| other.cover(*address)))
    }

    /// Was anything kept?
    pub(super) fn is_empty(&self) -> bool {
        self.spec.is_some() && self.outside.is_empty()
    }
}
