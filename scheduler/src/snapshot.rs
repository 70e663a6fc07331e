//! What placement knows of the cluster: nodes, the pods on them, services, and what is free.
//!
//! Kept up to date change by change, so that a round does not read every pod again. Only facts that placement
//! decides on are kept.
//!
//! Invariant: a node's `used` is the sum of the requests of the pods that are counted on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use weft_api::annotation;
use weft_api::quantity::Quantity;
use weft_api::selector::LabelSelector;
use weft_api::view::{Container, Node, Pod, PodSpec, Service, Taint, Toleration};

use crate::affinity::Term;

use k8s_openapi::api::core::v1::{NodeSelector, PreferredSchedulingTerm, TopologySpreadConstraint};

/// What Kubernetes' scoring assumes for a container that requests nothing, so that such pods spread too.
const ASSUMED_CPU_MILLI: i128 = 100;
const ASSUMED_MEMORY_BYTES: i128 = 200 << 20;
/// Kubernetes' default where a node does not say how many pods it takes.
const DEFAULT_PODS: i64 = 110;
/// Addresses of a node's range that no pod gets.
const RESERVED_ADDRESSES: i64 = 3;

/// Amounts by resource name: milli-units for `cpu`, whole units (bytes) for the rest.
///
/// What somebody wrote is cut to 64 bits and added up in 128, so a sum is exact and taking an amount away is the inverse
/// of adding it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, i128>);

impl Resources {
    pub fn get(&self, name: &str) -> i128 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += *amount;
        }
    }

    fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= *amount;
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_default();
            *slot = (*slot).max(*amount);
        }
    }

    /// Amounts that do not parse were refused by validation; here they count as nothing.
    fn read(quantities: Option<&BTreeMap<String, QuantityText>>) -> Self {
        let entries = quantities.into_iter().flatten().map(|(name, text)| {
            let quantity = Quantity::parse(&text.0).unwrap_or_else(|_| Quantity::from_value(0));
            let amount = if name == "cpu" {
                quantity.milli()
            } else {
                quantity.value()
            };
            let amount = amount.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            (name.clone(), amount)
        });
        Self(entries.collect())
    }
}

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

/// What placement knows of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodFacts {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// The uid of the controller, if it has one: its pods are spread.
    pub controller: Option<Arc<str>>,
    /// The node it is bound to, or asks for.
    pub node: Option<Arc<str>>,
    /// It is being deleted: it still takes room, but does not count for spreading.
    pub ending: bool,
    /// Kept once for the pods of one controller ([`Snapshot::put_pod`]).
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
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    pub requests: Resources,
    /// As `requests`, with assumed amounts where a container is silent; for scores only.
    pub weight: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub required: Option<NodeSelector>,
    pub preferred: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<TopologySpreadConstraint>,
    /// Required pod affinity: it must stand where such pods are.
    pub near: Vec<Term>,
    /// Required pod anti-affinity: it must stand where no such pods are.
    pub apart: Vec<Term>,
}

impl PodFacts {
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        Self {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            controller: controller.map(|owner| owner.uid.as_str().into()),
            node: node.filter(|name| !name.is_empty()).map(Arc::from),
            ending: meta.deletion_timestamp.is_some(),
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
            return Self {
                labels,
                ..Self::default()
            };
        };
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let near = near.and_then(|near| {
            near.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let apart = apart.and_then(|apart| {
            apart
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let assumed = Resources(BTreeMap::from([
            ("cpu".to_owned(), ASSUMED_CPU_MILLI),
            ("memory".to_owned(), ASSUMED_MEMORY_BYTES),
        ]));
        Self {
            labels,
            priority: spec.priority.unwrap_or(0),
            requests: total(spec, Resources::default()),
            weight: total(spec, assumed),
            host_ports: host_ports(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required: affinity.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            }),
            preferred: affinity
                .and_then(|a| {
                    a.preferred_during_scheduling_ignored_during_execution
                        .clone()
                })
                .unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
            near: Term::all(near, namespace),
            apart: Term::all(apart, namespace),
        }
    }
}

/// What a pod needs: its containers together, or its neediest init container where that is more. Sidecars (init
/// containers that stay) count with the containers, and with every init container after them. Plus overhead.
fn total(spec: &PodSpec, assumed: Resources) -> Resources {
    let request = |container: &Container| {
        let mut request = assumed.clone();
        let resources = container.resources.as_ref();
        let explicit = Resources::read(resources.and_then(|r| r.requests.as_ref()));
        let limits = Resources::read(resources.and_then(|r| r.limits.as_ref()));
        // Requests default to limits; admission writes that down, a pod made elsewhere may lack it.
        for (name, amount) in limits.0 {
            request.0.insert(name, amount);
        }
        for (name, amount) in explicit.0 {
            request.0.insert(name, amount);
        }
        request
    };
    let mut sidecars = Resources::default();
    let mut start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = request(container);
        needed.add(&sidecars);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = needed.clone();
        }
        start.raise(&needed);
    }
    let mut sum = sidecars;
    for container in &spec.containers {
        sum.add(&request(container));
    }
    sum.raise(&start);
    sum.add(&Resources::read(spec.overhead.as_ref()));
    sum
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec
        .containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten());
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

/// What placement knows of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// How many pods it takes: as it says, and no more than its range has addresses.
    pub pods_max: i64,
}

impl NodeFacts {
    pub fn of(node: &Node) -> Self {
        let meta = &node.metadata;
        let name: Arc<str> = meta.name.as_deref().unwrap_or_default().into();
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let mut labels = meta.labels.clone().unwrap_or_default();
        labels
            .entry(annotation::HOSTNAME.to_owned())
            .or_insert_with(|| name.to_string());
        let mut allocatable = Resources::read(status.and_then(|s| s.allocatable.as_ref()));
        let pods_max = allocatable.0.remove("pods");
        let pods_max = pods_max.map(|pods| i64::try_from(pods).unwrap_or(i64::MAX));
        let range = spec.and_then(|spec| spec.pod_cidr.as_deref());
        let addresses = range.and_then(addresses_in).unwrap_or(i64::MAX);
        let pods_max = pods_max.unwrap_or(DEFAULT_PODS).min(addresses);
        Self {
            name,
            labels,
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.is_some_and(|s| s.unschedulable == Some(true)),
            allocatable,
            pods_max,
        }
    }
}

/// Addresses for pods in an IPv4 range: all but the first two and the last, which stand for the network, the node and
/// everybody.
fn addresses_in(cidr: &str) -> Option<i64> {
    let range: Ipv4Net = cidr.parse().ok()?;
    Some(((1_i64 << (32 - range.prefix_len())) - RESERVED_ADDRESSES).max(0))
}

/// A node with the pods on it.
#[derive(Debug, Default, Clone)]
pub(crate) struct NodeState {
    /// `None` while pods are bound to a node that is not there.
    pub facts: Option<NodeFacts>,
    pub used: Resources,
    pub weight: Resources,
    pub pods: BTreeSet<Arc<str>>,
    pub host_ports: Vec<(Arc<str>, HostPort)>,
}

/// The cluster as placement sees it. See the module's promise.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    pub(crate) nodes: BTreeMap<Arc<str>, NodeState>,
    /// Pods that have a node, by uid.
    pub(crate) pods: BTreeMap<Arc<str>, PodFacts>,
    /// Uids of those among them that keep away from others.
    pub(crate) apart: BTreeSet<Arc<str>>,
    /// Uids of the pods that have a node, by namespace.
    pub(crate) namespaces: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// By the uid of a controller: what its pods need, and how many of them share it.
    needs: BTreeMap<Arc<str>, (Arc<PodNeeds>, usize)>,
    /// Selectors of services, by namespace and name.
    pub(crate) services: BTreeMap<(String, String), LabelSelector>,
}

impl Snapshot {
    pub fn put_node(&mut self, facts: NodeFacts) {
        let state = self.nodes.entry(Arc::clone(&facts.name)).or_default();
        state.facts = Some(facts);
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.facts = None;
            if state.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Counts a pod on its node. A pod without one is only forgotten; so is, by its owner's call of
    /// [`Snapshot::remove_pod`], one that is finished.
    pub fn put_pod(&mut self, mut facts: PodFacts) {
        self.remove_pod(&facts.uid);
        let Some(node) = &facts.node else {
            return;
        };
        let state = match self.nodes.get_key_value(node) {
            Some((name, _)) => {
                facts.node = Some(Arc::clone(name));
                self.nodes.entry(Arc::clone(name)).or_default()
            }
            None => self.nodes.entry(Arc::clone(node)).or_default(),
        };
        state.used.add(&facts.needs.requests);
        state.weight.add(&facts.needs.weight);
        state.pods.insert(Arc::clone(&facts.uid));
        for port in &facts.needs.host_ports {
            let owner = Arc::clone(&facts.uid);
            state.host_ports.push((owner, port.clone()));
        }
        self.share_needs(&mut facts);
        self.namespaces
            .entry(Arc::clone(&facts.namespace))
            .or_default()
            .insert(Arc::clone(&facts.uid));
        if !facts.apart.is_empty() {
            self.apart.insert(Arc::clone(&facts.uid));
        }
        self.pods.insert(Arc::clone(&facts.uid), facts);
    }

    /// Pods of one controller nearly always need the same.
    fn share_needs(&mut self, facts: &mut PodFacts) {
        let Some(controller) = &facts.controller else {
            return;
        };
        match self.needs.get_mut(controller) {
            None => {
                let shared = (Arc::clone(&facts.needs), 1);
                self.needs.insert(Arc::clone(controller), shared);
            }
            Some((needs, pods)) if *needs == facts.needs => {
                facts.needs = Arc::clone(needs);
                *pods += 1;
            }
            Some(_) => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn shares_nothing(&self) -> bool {
        self.needs.is_empty()
    }

    fn unshare_needs(&mut self, facts: &PodFacts) {
        let Some(controller) = &facts.controller else {
            return;
        };
        if let Some((needs, pods)) = self.needs.get_mut(controller)
            && Arc::ptr_eq(needs, &facts.needs)
        {
            *pods -= 1;
            if *pods == 0 {
                self.needs.remove(controller);
            }
        }
    }

    /// Returns what was known of the pod.
    pub fn remove_pod(&mut self, uid: &str) -> Option<PodFacts> {
        let facts = self.pods.remove(uid)?;
        self.unshare_needs(&facts);
        self.apart.remove(uid);
        if let Some(set) = self.namespaces.get_mut(&facts.namespace) {
            set.remove(uid);
            if set.is_empty() {
                self.namespaces.remove(&facts.namespace);
            }
        }
        let name = facts.node.as_deref()?;
        let state = self.nodes.get_mut(name)?;
        state.used.subtract(&facts.requests);
        state.weight.subtract(&facts.weight);
        state.pods.remove(uid);
        state.host_ports.retain(|(owner, _)| **owner != *uid);
        if state.facts.is_none() && state.pods.is_empty() {
            self.nodes.remove(name);
        }
        Some(facts)
    }

    /// Pods behind the same service are spread over nodes.
    pub fn put_service(&mut self, service: &Service) {
        let meta = &service.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let key = (meta.namespace.clone().unwrap_or_default(), name);
        let labels = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => {
                let pairs = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                self.services.insert(key, LabelSelector::from_labels(pairs));
            }
            None => {
                self.services.remove(&key);
            }
        }
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        self.services
            .remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// The node this pod is counted on.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid)?.node.as_deref()
    }
}
