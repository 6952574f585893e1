//! BFD as BgpPeers and the profiles of the BgpConf write it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::PeerSpec;
use super::parse::{Problems, text};
use crate::crd::BgpConfSpec;
use crate::crd::bgp_conf::BfdProfile;
use crate::crd::bgp_peer::{Bfd, BgpPeerSpec};
use crate::index::SpecProblem;

/// A process that shares its cores with others misses shorter ones.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_INTERVAL: Duration = Duration::from_millis(300);

/// Where a BgpPeer names its profile.
pub(super) const PROFILE: &str = "spec.bfd.profile";

/// BFD, with the values of the profile and defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdSpec {
    /// Missed packets until it counts as down.
    pub detect_multiplier: u8,
    /// Required minimum receive interval.
    pub receive_interval: Duration,
    /// Desired minimum transmit interval.
    pub transmit_interval: Duration,
    /// Do not send first.
    pub passive: bool,
    /// Lowest accepted TTL.
    pub minimum_ttl: Option<u8>,
}

/// The values that are written in one place; `None`: not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdTimers {
    /// Missed packets until it counts as down.
    pub detect_multiplier: Option<u8>,
    /// Required minimum receive interval.
    pub receive_interval: Option<Duration>,
    /// Desired minimum transmit interval.
    pub transmit_interval: Option<Duration>,
    /// Do not send first.
    pub passive: Option<bool>,
    /// Lowest accepted TTL.
    pub minimum_ttl: Option<u8>,
}

/// `spec.bfd` of a BgpPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdWritten {
    /// BFD is used.
    pub enabled: bool,
    /// The profile that is named.
    pub profile: Option<String>,
    /// The BgpPeer's own values.
    pub own: BfdTimers,
}

impl BfdWritten {
    /// What holds: the own values, else those of the profile, else the defaults. `None`: BFD is off.
    #[must_use]
    pub fn under(&self, profile: &BfdTimers) -> Option<BfdSpec> {
        let own = &self.own;
        self.enabled.then(|| BfdSpec {
            detect_multiplier: own.detect_multiplier.or(profile.detect_multiplier).unwrap_or(3),
            receive_interval: own.receive_interval.or(profile.receive_interval).unwrap_or(DEFAULT_INTERVAL),
            transmit_interval: own
                .transmit_interval
                .or(profile.transmit_interval)
                .unwrap_or(DEFAULT_INTERVAL),
            passive: own.passive.or(profile.passive).unwrap_or(false),
            minimum_ttl: own.minimum_ttl.or(profile.minimum_ttl),
        })
    }
}

impl PeerSpec {
    /// The spec with the profile that it names, if it names one.
    ///
    /// # Errors
    /// If there is no such profile.
    pub(super) fn with_profile(
        self: &Arc<Self>,
        profiles: &BTreeMap<String, BfdTimers>,
    ) -> Result<Arc<Self>, SpecProblem> {
        let Some(name) = &self.bfd_written.profile else { return Ok(Arc::clone(self)) };
        let profile = profiles.get(name).ok_or_else(|| unknown_profile(name))?;
        Ok(Arc::new(Self { bfd: self.bfd_written.under(profile), ..(**self).clone() }))
    }
}

/// A BgpPeer names a profile that is not there.
pub(crate) fn unknown_profile(name: &str) -> SpecProblem {
    SpecProblem::new(
        PROFILE,
        format!("the BgpConf named default has no BFD profile {name}"),
        "add it to spec.bfdProfiles there, or correct the name",
    )
}

impl Problems {
    pub(super) fn bfd(&mut self, spec: &BgpPeerSpec) -> BfdWritten {
        let Some(bfd) = spec.bfd.clone() else { return BfdWritten::default() };
        let Bfd {
            enabled,
            profile,
            detect_multiplier,
            receive_interval,
            transmit_interval,
            passive,
            minimum_ttl,
        } = bfd;
        let own = BfdProfile { detect_multiplier, receive_interval, transmit_interval, passive, minimum_ttl };
        BfdWritten {
            enabled: enabled.unwrap_or(false),
            profile: text(profile.as_deref()).map(str::to_owned),
            own: self.bfd_timers("spec.bfd", &own),
        }
    }

    pub(super) fn bfd_profiles(&mut self, spec: &BgpConfSpec) -> BTreeMap<String, BfdTimers> {
        let profiles = spec.bfd_profiles.iter().flatten();
        profiles
            .map(|(name, profile)| {
                (name.clone(), self.bfd_timers(&format!("spec.bfdProfiles[{name}]"), profile))
            })
            .collect()
    }

    /// `at`: where the values are written.
    fn bfd_timers(&mut self, at: &str, values: &BfdProfile) -> BfdTimers {
        let mut octet = |field: &str, value: Option<u32>| {
            let valid = value.and_then(|value| u8::try_from(value).ok()).filter(|value| *value > 0);
            if value.is_some() && valid.is_none() {
                self.push(&format!("{at}.{field}"), "is out of range", "use 1 to 255");
            }
            valid
        };
        let detect_multiplier = octet("detectMultiplier", values.detect_multiplier);
        let minimum_ttl = octet("minimumTtl", values.minimum_ttl);
        let mut interval = |field: &str, value: Option<&str>| {
            let field = format!("{at}.{field}");
            let interval = self.duration(&field, text(value)?)?;
            if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
                self.push(&field, format!("{interval:?} is out of range"), "use 50ms to 60s");
            }
            Some(interval)
        };
        BfdTimers {
            detect_multiplier,
            receive_interval: interval("receiveInterval", values.receive_interval.as_deref()),
            transmit_interval: interval("transmitInterval", values.transmit_interval.as_deref()),
            passive: values.passive,
            minimum_ttl,
        }
    }
}
