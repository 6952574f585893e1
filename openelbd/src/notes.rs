//! Settings without effect become a condition of their object; and whether a Layer2Conf can be used does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_k8s::{
    index::layer2::Layer2Spec,
    names::{DEFAULT_OBJECT, condition, reason},
    object::{Object, ObjectRef},
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
    /// Whether the object can be used, where nobody else says so.
    ready: Option<Wanted>,
}

/// Whether a Layer2Conf can be used. What of it cannot has its default.
fn ready(object: &Object) -> Option<Wanted> {
    let Object::Layer2Conf(conf) = object else { return None };
    let said = |status, reason, message: String| {
        Some(Wanted { condition: condition::READY, status, reason, message })
    };
    if conf.metadata.name.as_deref() != Some(DEFAULT_OBJECT) {
        let message = format!("only the Layer2Conf named {DEFAULT_OBJECT} is honoured");
        return said(false, reason::NOT_HONOURED, message);
    }
    let (_, problems) = Layer2Spec::parse(&conf.spec);
    if problems.is_empty() {
        return said(true, reason::READY, "Layer 2 is spoken as it says".to_owned());
    }
    said(false, reason::INVALID_SPEC, format!("{}; the defaults hold there", explain(&problems)))
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
            ready: ready(object),
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
            let present = |name: &str| object.conditions.iter().find(|c| c.type_ == name);
            let settled =
                present(condition::SETTINGS_APPLIED).map(|found| &found.message) == object.message.as_ref();
            let said = object.ready.as_ref().is_none_or(|wanted| {
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
            let wanted: Vec<Wanted> = object.ready.iter().cloned().chain(wanted).collect();
            let ours = [condition::READY, condition::SETTINGS_APPLIED];
            let ours = if object.ready.is_some() { &ours[..] } else { &ours[1..] };
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
