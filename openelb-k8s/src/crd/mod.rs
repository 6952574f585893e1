//! The custom resources: every field of the Go OpenELB with its name and type, and our additions, all optional.
//!
//! The types only carry text and numbers: an unknown value of an enumeration must not make an object unreadable.
//! [`crate::index`] parses them into validated views.

pub mod bgp_conf;
pub mod bgp_peer;
pub mod bgp_policy;
pub mod eip;
pub mod layer2_conf;
pub mod speaker_status;
pub mod v1alpha1;
pub mod vip_group;

mod definitions;
mod hidden;
mod schema;
#[cfg(test)]
mod tests;

pub use bgp_conf::{BgpConf, BgpConfSpec, BgpConfStatus};
pub use bgp_peer::{BgpPeer, BgpPeerSpec, BgpPeerStatus};
pub use bgp_policy::{BgpPolicy, BgpPolicySpec, BgpPolicyStatus};
pub use definitions::{all, to_yaml};
pub use eip::{Eip, EipSpec, EipStatus};
pub use hidden::Hidden;
pub use layer2_conf::{Layer2Conf, Layer2ConfSpec, Layer2ConfStatus};
pub use speaker_status::{SpeakerStatus, SpeakerStatusSpec, SpeakerStatusStatus};
pub use vip_group::{VipGroup, VipGroupSpec, VipGroupStatus};

/// Declares a struct of optional fields in the API's camel case. Absent fields are not serialised.
macro_rules! fields {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}
use fields;
