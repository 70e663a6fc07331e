//! The working copy of one round: what the round has already given away, beside the snapshot.
//!
//! What a pod's rules say of the pods that are there is found out once for all pods like it ([`Standing`]), and kept up as pods
//! are placed: a round costs a walk over the placed pods for each kind of pod in it, not for each pod.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use weft_api::selector::LabelSelector;

use crate::affinity::Affinity;
use crate::snapshot::{HostPort, NodeFacts, NodeState, PodFacts, Resources, Snapshot};

/// A node as the round has left it.
struct Slot<'a> {
    facts: &'a NodeFacts,
    state: &'a NodeState,
    /// Borrowed from the snapshot until something is reserved here.
    used: Cow<'a, Resources>,
    weight: Cow<'a, Resources>,
    pods: i64,
    host_ports: Vec<HostPort>,
}

/// The snapshot's nodes in order of name, less what was reserved.
pub(crate) struct Working<'a> {
    snapshot: &'a Snapshot,
    slots: Vec<Slot<'a>>,
    /// Pods placed in this round, with their slot.
    placed: Vec<(&'a PodFacts, usize)>,
    /// Group to pods on each slot; filled on first use, kept up by `reserve`.
    groups: BTreeMap<Group, Vec<u32>>,
    /// One for each kind of pod that was looked at; kept up by `reserve`.
    standings: Vec<Standing<'a>>,
}

/// Where pods that are like one in namespace and needs may stand, as far as it depends on the pods that are there.
pub(crate) struct Standing<'a> {
    like: &'a PodFacts,
    /// One entry for each of their own constraints.
    pub constraints: Vec<Domains>,
    pub affinity: Affinity,
}

/// Pods that should not share nodes: one controller's, with those behind the same services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    namespace: Arc<str>,
    controller: Option<Arc<str>>,
    services: Vec<String>,
}

/// Matching pods by value of one topology key.
#[derive(Debug, Clone)]
pub(crate) struct Domains {
    pub key: String,
    selector: LabelSelector,
    pub max_skew: i64,
    pub hard: bool,
    min_domains: usize,
    pub counts: BTreeMap<String, i64>,
    /// The fewest any domain holds; 0 while there are fewer domains than `minDomains`.
    pub fewest: i64,
    /// Whether the pending pod itself counts.
    pub own: bool,
}

impl Domains {
    /// One more pod of the namespace stands on a node.
    fn count(&mut self, pod: &PodFacts, node: &NodeFacts) {
        let value = node.labels.get(&self.key);
        let count = value.and_then(|value| self.counts.get_mut(value));
        if let Some(count) = count
            && self.selector.matches(&pod.labels)
        {
            *count += 1;
        }
    }

    fn find_fewest(&mut self) {
        let enough = self.counts.len() >= self.min_domains;
        let fewest = self.counts.values().copied().min().unwrap_or(0);
        self.fewest = if enough { fewest } else { 0 };
    }
}

impl<'a> Working<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let nodes = snapshot.nodes.values();
        let slots = nodes.filter_map(|state| {
            let facts = state.facts.as_ref()?;
            Some(Slot {
                facts,
                state,
                used: Cow::Borrowed(&state.used),
                weight: Cow::Borrowed(&state.weight),
                pods: i64::try_from(state.pods.len()).unwrap_or(i64::MAX),
                host_ports: Vec::new(),
            })
        });
        Self {
            snapshot,
            slots: slots.collect(),
            placed: Vec::new(),
            groups: BTreeMap::new(),
            standings: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn node(&self, index: usize) -> &'a NodeFacts {
        self.slots[index].facts
    }

    pub fn used(&self, index: usize) -> &Resources {
        &self.slots[index].used
    }

    pub fn weight(&self, index: usize) -> &Resources {
        &self.slots[index].weight
    }

    pub fn pods(&self, index: usize) -> i64 {
        self.slots[index].pods
    }

    pub fn port_is_taken(&self, index: usize, port: &HostPort) -> bool {
        let slot = &self.slots[index];
        let present = slot.state.host_ports.iter().map(|(_, port)| port);
        present
            .chain(&slot.host_ports)
            .any(|taken| taken.clashes(port))
    }

    /// Takes the pod's room on the node.
    pub fn reserve(&mut self, pod: &'a PodFacts, index: usize) {
        let slot = &mut self.slots[index];
        slot.used.to_mut().add(&pod.requests);
        slot.weight.to_mut().add(&pod.weight);
        slot.pods += 1;
        slot.host_ports.extend(pod.host_ports.iter().cloned());
        self.placed.push((pod, index));
        let Self {
            groups,
            standings,
            snapshot,
            slots,
            ..
        } = self;
        for (group, counts) in groups {
            if group.holds(snapshot, pod) {
                counts[index] += 1;
            }
        }
        let node = slots[index].facts;
        for standing in standings {
            if standing.like.namespace == pod.namespace {
                for domains in &mut standing.constraints {
                    domains.count(pod, node);
                }
            }
            standing.affinity.meet(standing.like, pod, node);
        }
    }

    /// What is known of where the pod may stand, by its number ([`Working::standing`]).
    pub fn find_standing(&mut self, pod: &'a PodFacts) -> usize {
        let same = |standing: &Standing<'_>| {
            let like = standing.like;
            like.namespace == pod.namespace && like.needs == pod.needs
        };
        // Pods of one controller come one after the other.
        let known = self.standings.iter().rposition(same);
        let at = known.unwrap_or_else(|| {
            let constraints = pod.spread.iter();
            let standing = Standing {
                like: pod,
                constraints: constraints.map(|one| self.domains(pod, one)).collect(),
                affinity: Affinity::of(pod, self),
            };
            self.standings.push(standing);
            self.standings.len() - 1
        });
        for domains in &mut self.standings[at].constraints {
            domains.find_fewest();
        }
        at
    }

    pub fn standing(&self, at: usize) -> &Standing<'a> {
        &self.standings[at]
    }

    /// How many pods of the same controller or services, which it should keep away from, are on each slot; empty when the pod has
    /// neither.
    pub fn default_counts(&mut self, pod: &PodFacts) -> Vec<u32> {
        let Some(group) = Group::of(self.snapshot, pod) else {
            return Vec::new();
        };
        if !self.groups.contains_key(&group) {
            let mut counts = vec![0; self.slots.len()];
            for (other, index) in self.neighbours(&pod.namespace) {
                if group.holds(self.snapshot, other) {
                    counts[index] += 1;
                }
            }
            self.groups.insert(group.clone(), counts);
        }
        self.groups.get(&group).cloned().unwrap_or_default()
    }

    /// Every pod that has a node, those placed in this round among them, with its node.
    pub fn everyone(&self) -> impl Iterator<Item = (&'a PodFacts, &'a NodeFacts)> {
        let present = self.snapshot.pods.values();
        self.with_nodes(present).chain(self.placed_with_nodes())
    }

    /// Those among them that keep away from other pods.
    pub fn everyone_apart(&self) -> impl Iterator<Item = (&'a PodFacts, &'a NodeFacts)> {
        let snapshot = self.snapshot;
        let present = snapshot
            .apart
            .iter()
            .filter_map(|uid| snapshot.pods.get(uid));
        let placed = self
            .placed_with_nodes()
            .filter(|(pod, _)| !pod.apart.is_empty());
        self.with_nodes(present).chain(placed)
    }

    fn with_nodes(
        &self,
        pods: impl Iterator<Item = &'a PodFacts>,
    ) -> impl Iterator<Item = (&'a PodFacts, &'a NodeFacts)> {
        let nodes = &self.snapshot.nodes;
        pods.filter_map(move |pod| {
            let node = nodes.get(pod.node.as_deref()?)?;
            Some((pod, node.facts.as_ref()?))
        })
    }

    fn placed_with_nodes(&self) -> impl Iterator<Item = (&'a PodFacts, &'a NodeFacts)> {
        let placed = self.placed.iter();
        placed.map(|(pod, index)| (*pod, self.slots[*index].facts))
    }

    /// Pods of a namespace that count for spreading, with their slot.
    fn neighbours(&self, namespace: &str) -> Vec<(&'a PodFacts, usize)> {
        let snapshot = self.snapshot;
        let uids = snapshot.namespaces.get(namespace).into_iter().flatten();
        let present = uids.filter_map(|uid| {
            let pod = snapshot.pods.get(uid).filter(|pod| !pod.ending)?;
            let node = pod.node.as_deref()?;
            let index = self
                .slots
                .binary_search_by(|slot| (*slot.facts.name).cmp(node))
                .ok()?;
            Some((pod, index))
        });
        let placed = self.placed.iter().copied();
        present
            .chain(placed.filter(|(pod, _)| *pod.namespace == *namespace))
            .collect()
    }

    fn domains(&self, pod: &PodFacts, constraint: &TopologySpreadConstraint) -> Domains {
        let selector = constraint.label_selector.as_ref();
        let selector = selector
            .and_then(|selector| serde_json::to_value(selector).ok())
            .and_then(|value| LabelSelector::from_object(&value).ok())
            .unwrap_or_else(LabelSelector::nothing);
        let key = &constraint.topology_key;
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        // nodeAffinityPolicy Honor, nodeTaintsPolicy Ignore: the defaults.
        for slot in &self.slots {
            if crate::filter::selected(pod, slot.facts)
                && let Some(value) = slot.facts.labels.get(key)
            {
                counts.entry(value.clone()).or_default();
            }
        }
        let mut domains = Domains {
            key: key.clone(),
            max_skew: i64::from(constraint.max_skew),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(0),
            fewest: 0,
            own: selector.matches(&pod.labels),
            selector,
            counts,
        };
        for (other, index) in self.neighbours(&pod.namespace) {
            domains.count(other, self.slots[index].facts);
        }
        domains
    }
}

impl Group {
    /// `None`: nothing of the pod's own to spread from.
    fn of(snapshot: &Snapshot, pod: &PodFacts) -> Option<Self> {
        let from = (pod.namespace.to_string(), String::new());
        let services: Vec<String> = snapshot
            .services
            .range(from..)
            .take_while(|((namespace, _), _)| **namespace == *pod.namespace)
            .filter(|(_, selector)| selector.matches(&pod.labels))
            .map(|((_, name), _)| name.clone())
            .collect();
        if pod.controller.is_none() && services.is_empty() {
            return None;
        }
        Some(Self {
            namespace: pod.namespace.clone(),
            controller: pod.controller.clone(),
            services,
        })
    }

    fn holds(&self, snapshot: &Snapshot, pod: &PodFacts) -> bool {
        if pod.namespace != self.namespace {
            return false;
        }
        let same_controller = self.controller.is_some() && pod.controller == self.controller;
        same_controller
            || self.services.iter().any(|name| {
                let key = (self.namespace.to_string(), name.clone());
                let selector = snapshot.services.get(&key);
                selector.is_some_and(|selector| selector.matches(&pod.labels))
            })
    }
}
