//! What placement knows of a pod.
//!
//! Pods of one template need the same, and what they need is kept once ([`crate::Snapshot`]). Only facts that placement
//! decides on are kept.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, PreferredSchedulingTerm};
use weft_api::hash::fnv1a_64_seeded;
use weft_api::view::{Pod, PodSpec, Toleration};

use crate::resources::{Resources, requests_of, weight_of};
use crate::term::{Spread, Term};
use crate::volume::VolumeNeeds;

/// A port on the host's own address: protocol, address and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub protocol: String,
    /// `0.0.0.0` stands for every address.
    pub address: String,
    pub port: i32,
}

impl HostPort {
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY || other.address == ANY)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct PodFacts {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// The uid of the ReplicaSet, ReplicationController or StatefulSet that controls it: pods of one are spread.
    pub controller: Option<Arc<str>>,
    /// The node it is bound to, or asks for.
    pub node: Option<Arc<str>>,
    /// The node where room is being made for it.
    pub nominated: Option<Arc<str>>,
    /// It is being deleted: it still takes room, but does not count for spreading.
    pub ending: bool,
    /// When its node began with it, in seconds of Unix time; `None`: it has not.
    pub started: Option<i64>,
    pub needs: Arc<PodNeeds>,
}

impl Deref for PodFacts {
    type Target = PodNeeds;

    fn deref(&self) -> &PodNeeds {
        &self.needs
    }
}

/// What pods of one template have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodNeeds {
    /// Equal needs have equal fingerprints; different ones nearly always different ones.
    pub(crate) fingerprint: u64,
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    /// It never drives others off: `preemptionPolicy: Never`.
    pub yields: bool,
    pub requests: Resources,
    /// As `requests`, with assumed amounts where a container is silent; for scores only.
    pub weight: Resources,
    pub host_ports: Vec<HostPort>,
    pub images: Vec<String>,
    pub node_selector: BTreeMap<String, String>,
    pub required: Option<NodeSelector>,
    /// The only nodes that `required` leaves, by name.
    pub pinned: Option<Vec<String>>,
    pub preferred: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<Spread>,
    /// Required pod affinity: it must stand where such pods are.
    pub near: Vec<Term>,
    /// Required pod anti-affinity: it must stand where no such pods are.
    pub apart: Vec<Term>,
    /// Preferred affinity, and anti-affinity with weights below zero.
    pub inclined: Vec<(Term, i64)>,
    /// Claims that it uses, but for those that it brings along.
    pub claims: Vec<String>,
    pub volumes: VolumeNeeds,
    /// It uses devices, by claims.
    pub uses_devices: bool,
    /// Features that its node has to declare.
    pub features: Vec<&'static str>,
}

impl PodFacts {
    pub fn of(pod: &Pod) -> Self {
        const SPREAD: [&str; 3] = ["ReplicaSet", "ReplicationController", "StatefulSet"];
        let meta = &pod.metadata;
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let controller = controller.filter(|owner| SPREAD.contains(&owner.kind.as_str()));
        let text = |text: Option<&str>| text.unwrap_or_default().into();
        let named = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(Arc::from);
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        Self {
            namespace: text(meta.namespace.as_deref()),
            name: text(meta.name.as_deref()),
            uid: text(meta.uid.as_deref()),
            controller: controller.map(|owner| owner.uid.as_str().into()),
            node: named(spec.and_then(|spec| spec.node_name.as_deref())),
            nominated: named(status.and_then(|status| status.nominated_node_name.as_deref())),
            ending: meta.deletion_timestamp.is_some(),
            started: started.map(|started| started.0.as_second()),
            needs: Arc::new(PodNeeds::of(pod)),
        }
    }
}

impl PodNeeds {
    fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let Some(spec) = &pod.spec else {
            let needs = Self {
                labels,
                ..Self::default()
            };
            return needs.marked();
        };
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let term = |term| Term::of(term, namespace, &labels);
        let required_near = near.and_then(|near| {
            near.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let required_apart = apart.and_then(|apart| {
            apart
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let liked = near.and_then(|near| {
            near.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let disliked = apart.and_then(|apart| {
            apart
                .preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let weighted = |term, sign| Term::weighted(term, sign, namespace, &labels);
        let liked = liked.into_iter().flatten().map(|term| weighted(term, 1));
        let disliked = disliked.into_iter().flatten();
        let disliked = disliked.map(|term| weighted(term, -1));
        let required = nodes.and_then(|nodes| {
            nodes
                .required_during_scheduling_ignored_during_execution
                .clone()
        });
        let preferred = nodes.and_then(|nodes| {
            nodes
                .preferred_during_scheduling_ignored_during_execution
                .clone()
        });
        let spread = spec.topology_spread_constraints.iter().flatten();
        let needs = Self {
            fingerprint: 0,
            priority: spec.priority.unwrap_or(0),
            yields: spec.preemption_policy.as_deref() == Some("Never"),
            requests: requests_of(spec, pod.status.as_ref()),
            weight: weight_of(spec, pod.status.as_ref()),
            host_ports: host_ports(spec),
            images: images(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            pinned: required.as_ref().and_then(pinned),
            required,
            preferred: preferred.unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            spread: spread.map(|one| Spread::of(one, &labels)).collect(),
            near: required_near.into_iter().flatten().map(term).collect(),
            apart: required_apart.into_iter().flatten().map(term).collect(),
            inclined: liked.chain(disliked).collect(),
            claims: claims(spec),
            volumes: VolumeNeeds::default(),
            uses_devices: spec.resource_claims.iter().flatten().next().is_some(),
            features: features(spec),
            labels,
        };
        needs.marked()
    }

    /// The same, with what its volumes ask for.
    pub fn with_volumes(&self, volumes: VolumeNeeds) -> Self {
        Self {
            volumes,
            ..self.clone()
        }
    }

    /// With its fingerprint: of what tells pods apart that are many.
    fn marked(mut self) -> Self {
        let mut state = 0;
        let mut add = |text: &str| {
            state = fnv1a_64_seeded(state, text.bytes().chain([0]));
        };
        for (key, value) in self.labels.iter().chain(&self.node_selector) {
            add(key);
            add(value);
        }
        for image in &self.images {
            add(image);
        }
        for name in self.pinned.iter().flatten().chain(&self.claims) {
            add(name);
        }
        let terms = self.near.iter().chain(&self.apart);
        for term in terms.chain(self.inclined.iter().map(|(term, _)| term)) {
            add(&term.topology_key);
        }
        let numbers = [
            i128::from(self.priority),
            self.requests.cpu,
            self.requests.memory,
            i128::from(self.yields),
        ];
        for number in numbers {
            state = fnv1a_64_seeded(state, number.to_le_bytes());
        }
        self.fingerprint = state;
        self
    }
}

/// The names that are left, if each of the terms names some.
fn pinned(selector: &NodeSelector) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for term in &selector.node_selector_terms {
        let mut fields = term.match_fields.iter().flatten();
        let named = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
        all.extend(named.values.iter().flatten().cloned());
    }
    all.sort();
    all.dedup();
    Some(all)
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number != 0)?;
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                address: address.unwrap_or_else(|| "0.0.0.0".into()),
                port: number,
            })
        })
        .collect()
}

fn claims(spec: &PodSpec) -> Vec<String> {
    let volumes = spec.volumes.iter().flatten();
    let claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    let mut claims: Vec<String> = claims.map(|claim| claim.claim_name.clone()).collect();
    claims.sort();
    claims.dedup();
    claims
}

/// What not every kubelet can do, by the names under which those that can declare it.
fn features(spec: &PodSpec) -> Vec<&'static str> {
    let init = spec.init_containers.iter().flatten();
    let mut containers = init.chain(&spec.containers);
    let restarts_all = containers.any(|container| {
        let mut rules = container.restart_policy_rules.iter().flatten();
        rules.any(|rule| rule.action == "RestartAllContainers")
    });
    let shares_network = spec.host_network == Some(true) && spec.host_users == Some(false);
    let all = [
        (restarts_all, "RestartAllContainersOnContainerExits"),
        (shares_network, "UserNamespacesHostNetworkSupport"),
    ];
    let asked = all.into_iter().filter(|(is_asked, _)| *is_asked);
    asked.map(|(_, name)| name).collect()
}

fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let images = containers.filter_map(|container| container.image.as_deref());
    images.map(image_name).collect()
}

/// An image's name as nodes tell it: with a tag.
pub(crate) fn image_name(name: &str) -> String {
    if name.rfind(':') <= name.rfind('/') {
        format!("{name}:latest")
    } else {
        name.to_owned()
    }
}
