//! Settings without effect become a condition of their object; and whether a Layer2Conf can be used does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_k8s::{
    index::Layer2,
    names::{DEFAULT_OBJECT, condition, reason},
    object::{Kind, Object, ObjectRef},
    plan::{
        Write,
        status::{Wanted, explain, merge_conditions},
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

/// Whether a Layer2Conf can be used, which nobody else says of it.
fn ready(reference: &ObjectRef, layer2: &Layer2) -> Option<Wanted> {
    if reference.kind != Kind::Layer2Conf {
        return None;
    }
    let said = |status, reason, message: String| {
        Some(Wanted { condition: condition::READY, status, reason, message })
    };
    if reference.name != DEFAULT_OBJECT {
        let message = format!("only the Layer2Conf named {DEFAULT_OBJECT} is honoured");
        return said(false, reason::NOT_HONOURED, message);
    }
    let wrong = explain(layer2.problems());
    if wrong.is_empty() {
        said(true, reason::READY, "Layer 2 is spoken as it says".to_owned())
    } else if layer2.is_last_good() {
        said(false, reason::LAST_GOOD_SPEC, format!("{wrong}. The last good version stays in force"))
    } else {
        said(
            false,
            reason::INVALID_SPEC,
            format!("{wrong}; a speaker that saw no better version has the defaults there"),
        )
    }
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
    pub(crate) fn writes(&self, layer2: &Layer2, now: Timestamp) -> Vec<Write> {
        let mut writes = Vec::new();
        for (reference, object) in &self.objects {
            let ready = ready(reference, layer2);
            let present = |name: &str| object.conditions.iter().find(|c| c.type_ == name);
            let settled =
                present(condition::SETTINGS_APPLIED).map(|found| &found.message) == object.message.as_ref();
            let said = ready.as_ref().is_none_or(|wanted| {
                let status = if wanted.status { "True" } else { "False" };
                present(wanted.condition).is_some_and(|found| {
                    found.status == status && found.reason == wanted.reason && found.message == wanted.message
                })
            });
            if settled && said {
                continue;
            }
            let wanted = object.message.iter().map(|message| Wanted {
                condition: condition::SETTINGS_APPLIED,
                status: false,
                reason: reason::NOT_SUPPORTED,
                message: message.clone(),
            });
            let ours = [condition::READY, condition::SETTINGS_APPLIED];
            let ours = if ready.is_some() { &ours[..] } else { &ours[1..] };
            let wanted: Vec<Wanted> = ready.into_iter().chain(wanted).collect();
            let conditions = merge_conditions(&object.conditions, ours, &wanted, object.generation, now);
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
