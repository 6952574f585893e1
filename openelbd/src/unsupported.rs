//! Settings that are accepted and kept, and that this version does not act on: over all kinds of objects.

use openelb_k8s::{crd::Eip, object::Object};

use crate::adapter::bgp::{Note, unsupported as bgp};

const LATER: &str = "it takes effect with a later version";

/// What of an object has no effect.
#[must_use]
pub(crate) fn notes(object: &Object) -> Vec<Note> {
    match object {
        Object::Eip(eip) => eip_notes(eip),
        Object::BgpConf(conf) => bgp::of_conf(&conf.spec),
        Object::BgpPeer(peer) => bgp::of_peer(&peer.spec),
        Object::BgpPolicy(_) => vec![Note::new("spec", "policies are not applied yet", LATER)],
        Object::VipGroup(_) => vec![Note::new("spec", "VRRP is not spoken yet", LATER)],
        Object::Service(_)
        | Object::Layer2Conf(_)
        | Object::SpeakerStatus(_)
        | Object::Node(_)
        | Object::EndpointSlice(_)
        | Object::Namespace(_)
        | Object::Secret(_)
        | Object::ConfigMap(_) => Vec::new(),
    }
}

fn eip_notes(eip: &Eip) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut check = |field: &str, protocol: &str| {
        if protocol.trim() != "vip" {
            return;
        }
        notes.push(Note::new(
            field,
            "VRRP is not spoken yet: addresses are assigned, but vip does not announce them",
            "use protocol bgp or layer2, or none if something else announces them",
        ));
    };
    match eip.spec.protocols.as_deref() {
        Some(protocols) if !protocols.is_empty() => {
            for (index, protocol) in protocols.iter().enumerate() {
                check(&format!("spec.protocols[{index}]"), protocol);
            }
        }
        _ => check("spec.protocol", eip.spec.protocol.as_deref().unwrap_or_default()),
    }
    notes
}
