//! Schemas of fields that need more than their Rust type says.

use schemars::{Schema, SchemaGenerator, json_schema};

macro_rules! enumeration {
    ($($name:ident: $($value:literal)|+;)*) => {$(
        pub(super) fn $name(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "string", "enum": [$($value),+]})
        }
    )*};
}

enumeration! {
    protocol: "bgp" | "layer2" | "vip" | "none";
    v1alpha1_protocol: "bgp" | "layer2";
    sharing: "Address" | "Key" | "None";
    next_hop_mode: "Auto" | "Self" | "AllNodes";
    received_routes: "Count" | "Keep";
    prefix_limit_action: "Cease" | "Warn";
    disposition: "accept" | "reject";
    match_type: "Any" | "All" | "Invert";
    prefix_match_type: "Any" | "Invert";
    comparison: "eq" | "ge" | "le";
    community_operation: "add" | "remove" | "replace";
    failback: "Delayed" | "Immediate" | "Manual";
    checksum: "PseudoHeader" | "RFC9568";
}

/// `Eip.spec.protocols`.
pub(super) fn protocols(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "enum": ["bgp", "layer2", "vip"]},
        "maxItems": 3,
        "x-kubernetes-list-type": "set",
    })
}

/// `Eip.status.used`: one writer, replaced as a whole.
pub(super) fn used(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "x-kubernetes-map-type": "atomic",
    })
}

/// `metav1.Condition`s, merged by type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
                "message": {"type": "string", "maxLength": 32768},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            },
        },
    })
}

const IPV4: &str = r"(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])";

/// An IPv4 address.
pub(super) fn ipv4(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": format!("^{IPV4}$")})
}

/// `Eip.spec.address` of v1alpha1: `A`, `A/len` or `A-B`.
pub(super) fn v1alpha1_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": format!("^{IPV4}(/(3[0-2]|[12]?[0-9])|-{IPV4})?$")})
}
