//! Settings without effect become a condition of their object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_k8s::{
    names::{condition, reason},
    object::{Object, ObjectRef},
    plan::{
        Write,
        status::{Wanted, merge_conditions},
    },
};
use serde_json::json;

use crate::unsupported;

/// Objects of ours whose settings are looked at.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    objects: BTreeMap<ObjectRef, Annotated>,
}

#[derive(Debug)]
struct Annotated {
    resource_version: String,
    generation: Option<i64>,
    conditions: Vec<Condition>,
    message: Option<String>,
}

impl Notes {
    /// Takes in an object.
    pub(crate) fn apply(&mut self, object: &Object) {
        let conditions = match object {
            Object::Eip(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            Object::BgpConf(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            Object::BgpPeer(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            Object::BgpPolicy(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            Object::Layer2Conf(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            Object::VipGroup(object) => object.status.as_ref().and_then(|status| status.conditions.clone()),
            _ => return,
        };
        let notes: Vec<String> = unsupported::notes(object).iter().map(ToString::to_string).collect();
        let metadata = object.metadata();
        let annotated = Annotated {
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
            conditions: conditions.unwrap_or_default(),
            message: (!notes.is_empty()).then(|| notes.join("\n")),
        };
        self.objects.insert(object.reference(), annotated);
    }

    /// Forgets an object.
    pub(crate) fn delete(&mut self, reference: &ObjectRef) {
        self.objects.remove(reference);
    }

    /// Writes of conditions that are missing, out of date, or not true any more.
    pub(crate) fn writes(&self, now: Timestamp) -> Vec<Write> {
        let mut writes = Vec::new();
        for (reference, object) in &self.objects {
            let present = object.conditions.iter().find(|c| c.type_ == condition::SETTINGS_APPLIED);
            if present.map(|condition| &condition.message) == object.message.as_ref() {
                continue;
            }
            let wanted = object.message.iter().map(|message| Wanted {
                condition: condition::SETTINGS_APPLIED,
                status: false,
                reason: reason::NOT_SUPPORTED,
                message: message.clone(),
            });
            let wanted: Vec<Wanted> = wanted.collect();
            let ours = [condition::SETTINGS_APPLIED];
            let conditions = merge_conditions(&object.conditions, &ours, &wanted, object.generation, now);
            let write = Write::new(reference.clone(), object.resource_version.as_str());
            writes.push(write.set(&["status", "conditions"], json!(conditions)));
        }
        writes
    }

    /// What of each object has no effect.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&ObjectRef, Option<&str>)> {
        self.objects.iter().map(|(reference, object)| (reference, object.message.as_deref()))
    }
}
