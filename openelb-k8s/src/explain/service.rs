//! One Service: what it asks for, what it has, why, and what is missing.

use std::net::IpAddr;

use serde::Serialize;

use super::Picture;
use super::announced::{AnnouncedBy, NodeExplanation};
use crate::index::pools::EipView;
use crate::index::services::{FamilyPolicy, IpFamily, ServiceView, TrafficPolicy};
use crate::names::{annotation, condition};
use crate::object::NamespacedName;
use crate::plan::allocation::{self, Considered, Verdict};

/// A Service, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExplanation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It is ours to serve.
    pub ours: bool,
    /// Why it is ours, or not.
    pub why: String,
    /// What it asks for.
    pub asks_for: AsksFor,
    /// The condition `AddressAssigned`, as it is decided now.
    pub address_assigned: Told,
    /// The condition `RequestHonoured`, as it is decided now.
    pub request_honoured: Told,
    /// What it has.
    pub addresses: Vec<AddressExplanation>,
    /// Each pool, and what it is to the Service.
    pub pools: Vec<PoolExplanation>,
    /// What keeps it from being served as it asks; empty: nothing.
    pub missing: Vec<String>,
}

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AsksFor {
    /// `IPv4`, `IPv6`, in its order; empty: whatever there is.
    pub families: Vec<String>,
    /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    pub family_policy: &'static str,
    /// These very addresses.
    pub addresses: Vec<IpAddr>,
    /// Of these pools.
    pub pools: Vec<String>,
    /// To share with Services of the same key.
    pub sharing_key: Option<String>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: &'static str,
    /// `TCP/80` and the like.
    pub ports: Vec<String>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Is it true?
    pub status: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressExplanation {
    /// The address.
    pub address: IpAddr,
    /// The Eip that backs it.
    pub pool: Option<String>,
    /// Is it in the Service's status?
    pub published: bool,
    /// How it is to be announced; empty: somebody else does it.
    pub protocols: Vec<&'static str>,
    /// Other Services with this address.
    pub shared_with: Vec<String>,
    /// Each node, and whether it may carry the traffic.
    pub nodes: Vec<NodeExplanation>,
    /// Who announces it, or should.
    pub announced_by: Vec<AnnouncedBy>,
    /// What keeps it from being announced as it should.
    pub missing: Vec<String>,
}

/// A pool, and what it is to a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolExplanation {
    /// The Eip.
    pub pool: String,
    /// For addresses of this family.
    pub family: String,
    /// `Holds`, `Could`, `Refuses` or `NotAsked`.
    pub verdict: &'static str,
    /// Its place among those that are asked, from 1.
    pub place: Option<usize>,
    /// Why.
    pub why: String,
}

impl From<Considered> for PoolExplanation {
    fn from(considered: Considered) -> Self {
        Self {
            pool: considered.pool,
            family: considered.family.to_string(),
            verdict: match considered.verdict {
                Verdict::Holds => "Holds",
                Verdict::Could => "Could",
                Verdict::Refuses => "Refuses",
                Verdict::NotAsked => "NotAsked",
            },
            place: considered.place,
            why: considered.why,
        }
    }
}

impl Picture<'_> {
    /// Explains a Service; `None`: there is none of this name.
    #[must_use]
    pub fn service(&self, key: &NamespacedName) -> Option<ServiceExplanation> {
        let service = self.indexes.services.get(key)?;
        let mut explanation = ServiceExplanation {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ours: service.ours,
            why: self.whose(service),
            asks_for: asks_for(service),
            address_assigned: Told::default(),
            request_honoured: Told::default(),
            addresses: Vec::new(),
            pools: Vec::new(),
            missing: Vec::new(),
        };
        if !service.ours {
            if service.is_load_balancer && !service.deleting {
                explanation.missing.push(format!("OpenELB does not serve it: {}", explanation.why));
            }
            return Some(explanation);
        }
        let plan = allocation::plan(self.indexes, self.now);
        let Some(outcome) = plan.services.get(key) else { return Some(explanation) };
        explanation.address_assigned = Told {
            status: !outcome.addresses.is_empty(),
            reason: outcome.reason.to_owned(),
            message: outcome.message.clone(),
        };
        explanation.request_honoured = Told {
            status: outcome.request_honoured,
            reason: outcome.request_reason.to_owned(),
            message: outcome.request_message.clone(),
        };
        explanation.pools =
            allocation::considered(self.indexes, key).into_iter().map(PoolExplanation::from).collect();
        let published = service.published();
        let mut addresses: Vec<(IpAddr, Option<&str>)> = outcome
            .addresses
            .iter()
            .zip(&outcome.pools)
            .map(|(address, pool)| (*address, Some(pool.as_str())))
            .collect();
        for address in &published {
            if !addresses.iter().any(|(known, _)| known == address) {
                addresses.push((*address, None));
            }
        }
        for (address, pool) in addresses {
            let pool = pool.and_then(|name| self.indexes.pools.get(name));
            explanation.addresses.push(self.address(service, address, pool));
        }
        self.lacks_of(service, &mut explanation);
        Some(explanation)
    }

    fn address(&self, service: &ServiceView, address: IpAddr, pool: Option<&EipView>) -> AddressExplanation {
        let published = service.published().contains(&address);
        let holders: Vec<&ServiceView> =
            self.indexes.services.ours().filter(|other| other.published().contains(&address)).collect();
        let others = holders.iter().filter(|other| other.key != service.key);
        let announced = pool
            .filter(|_| published)
            .map(|pool| self.announced(address, pool, &holders))
            .unwrap_or_default();
        AddressExplanation {
            address,
            pool: pool.map(|pool| pool.name.clone()),
            published,
            protocols: pool
                .and_then(EipView::announced_by)
                .map(|spec| spec.protocols.iter().map(|protocol| protocol.as_str()).collect())
                .unwrap_or_default(),
            shared_with: others.map(|other| other.key.to_string()).collect(),
            nodes: announced.nodes,
            announced_by: announced.by,
            missing: announced.missing,
        }
    }

    fn whose(&self, service: &ServiceView) -> String {
        let rules = self.indexes.services.rules();
        let opted_in = format!("annotation {}: {}", annotation::OPT_IN, annotation::OPT_IN_VALUE);
        if service.deleting {
            return "it is being deleted".to_owned();
        }
        if !service.is_load_balancer {
            return "spec.type is not LoadBalancer".to_owned();
        }
        match &service.class {
            Some(class) if service.ours => format!("spec.loadBalancerClass is {class}"),
            Some(class) => format!(
                "spec.loadBalancerClass is {class}; OpenELB serves {} (--load-balancer-class)",
                rules.load_balancer_class
            ),
            None if service.ours && rules.handle_unclassed => {
                "it has no spec.loadBalancerClass, and OpenELB serves those (--handle-unclassed-services)"
                    .to_owned()
            }
            None if service.ours => format!("it has the {opted_in}"),
            None => format!(
                "it has neither spec.loadBalancerClass: {} nor the {opted_in}; add one of them",
                rules.load_balancer_class
            ),
        }
    }

    fn lacks_of(&self, service: &ServiceView, explanation: &mut ServiceExplanation) {
        let (assigned, honoured) = (&explanation.address_assigned, &explanation.request_honoured);
        let mut missing: Vec<String> = Vec::new();
        if !assigned.status {
            missing.push(format!("an address: {}: {}", assigned.reason, assigned.message));
        } else if !honoured.status {
            missing.push(format!("what it asks for: {}: {}", honoured.reason, honoured.message));
        }
        let pending = explanation.addresses.iter().any(|known| !known.published && known.pool.is_some());
        if pending || !self.is_recorded(service, explanation) {
            missing.push(format!("the controller has not written this yet; {}", self.controller_in_words()));
        }
        for address in &explanation.addresses {
            missing.extend(address.missing.iter().map(|text| format!("{}: {text}", address.address)));
        }
        explanation.missing = missing;
    }

    /// Do the conditions on the object say what is decided now?
    fn is_recorded(&self, service: &ServiceView, explanation: &ServiceExplanation) -> bool {
        let says = |kind: &str, told: &Told| {
            let found = service.conditions.iter().find(|known| known.type_ == kind);
            found.is_some_and(|known| known.reason == told.reason && (known.status == "True") == told.status)
        };
        says(condition::ADDRESS_ASSIGNED, &explanation.address_assigned)
            && says(condition::REQUEST_HONOURED, &explanation.request_honoured)
    }
}

fn asks_for(service: &ServiceView) -> AsksFor {
    AsksFor {
        families: service.families.iter().map(IpFamily::to_string).collect(),
        family_policy: match service.family_policy {
            FamilyPolicy::SingleStack => "SingleStack",
            FamilyPolicy::PreferDualStack => "PreferDualStack",
            FamilyPolicy::RequireDualStack => "RequireDualStack",
        },
        addresses: service.requested_addresses.clone(),
        pools: service.requested_pools.clone(),
        sharing_key: service.sharing_key.clone(),
        external_traffic_policy: match service.traffic_policy {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        },
        ports: service.ports.iter().map(|(protocol, port)| format!("{protocol}/{port}")).collect(),
    }
}
