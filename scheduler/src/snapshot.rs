//! What placement knows of the cluster: nodes, the pods on them, what rules count of them, and what is free.
//!
//! Kept up to date change by change, so that nothing is read or counted again for a pod that is to be placed. Taking a pod away is the
//! inverse of putting it there, exactly: what is asked "without these?" is done and undone ([`crate::preempt`]).
//!
//! Invariants:
//! - a node's `used` is the sum of the requests of the pods that are on it;
//! - a counter holds each pod that it is about once, in the domain of its node;
//! - whatever a decision rests on is the same whether it came about step by step or at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::selector::LabelSelector;
use weft_api::view::{Namespace, Service};

use crate::class::{Class, ClassId};
use crate::counters::Counter;
use crate::node::NodeFacts;
use crate::pod::{HostPort, PodFacts};
use crate::preempt::Budget;
use crate::resources::Resources;
use crate::term::Namespaces;
use crate::topology::{Slot, Topologies};

/// Kinds of pods that are not there any more and are still known, at most: beyond that they are forgotten together.
const IDLE_CLASSES_MAX: usize = 4096;

/// A pod on its node.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub name: Arc<str>,
    pub class: ClassId,
    pub ending: bool,
    pub started: Option<i64>,
}

/// A node with the pods on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeState {
    pub name: Arc<str>,
    /// `None` while pods are bound to a node that is not there.
    pub facts: Option<NodeFacts>,
    pub used: Resources,
    /// CPU and memory, with what is assumed of silent containers.
    pub weight: (i128, i128),
    pub pods: BTreeMap<Arc<str>, Placed>,
    pub host_ports: Vec<(Arc<str>, HostPort)>,
    /// How many pods there are of each priority.
    pub priorities: BTreeMap<i32, usize>,
}

/// A node that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Changed {
    pub slot: Slot,
    /// It is what it was, and something is counted in its domains.
    pub is_far: bool,
}

/// Nodes that changed, in order: indexes catch up with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    begin: u64,
    slots: Vec<Changed>,
}

impl Changes {
    pub fn end(&self) -> u64 {
        self.begin + u64::try_from(self.slots.len()).unwrap_or(0)
    }

    /// `None`: that is too long ago.
    pub fn since(&self, position: u64) -> Option<&[Changed]> {
        let from = usize::try_from(position.checked_sub(self.begin)?).ok()?;
        self.slots.get(from..)
    }

    pub fn add(&mut self, changed: Changed, nodes: usize) {
        const SPARE: usize = 1024;
        if self.slots.len() >= 2 * nodes + SPARE {
            let gone = self.slots.len() / 2;
            self.slots.drain(..gone);
            self.begin += u64::try_from(gone).unwrap_or(0);
        }
        self.slots.push(changed);
    }
}

/// The cluster as placement sees it. See the module's promise.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Decides between nodes that are equally good.
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<NodeState>,
    /// Places of nodes that are gone, with all pods that were on them.
    free: Vec<Slot>,
    /// Nodes that are there.
    pub(crate) by_name: BTreeMap<Arc<str>, Slot>,
    /// Nodes that only pods speak of.
    awaited: BTreeMap<Arc<str>, Slot>,
    /// Pods that have a node, by uid.
    pub(crate) pods: BTreeMap<Arc<str>, Slot>,
    pub(crate) classes: Vec<Option<Class>>,
    by_fingerprint: BTreeMap<u64, Vec<ClassId>>,
    unused: Vec<ClassId>,
    /// How many there were when those that nobody used were last forgotten.
    pub(crate) classes_kept: usize,
    pub(crate) counters: Vec<Counter>,
    pub(crate) topologies: Topologies,
    pub(crate) namespaces: Namespaces,
    pub(crate) services: BTreeMap<(Arc<str>, String), LabelSelector>,
    /// Another number with each change of a service.
    pub(crate) services_version: u64,
    pub(crate) budgets: BTreeMap<(Arc<str>, String), Budget>,
    /// Another number with each change of what a budget allows.
    pub(crate) budgets_version: u64,
    /// How many pods with a node use a claim, by its namespace and name.
    pub(crate) claims: BTreeMap<(Arc<str>, String), usize>,
    /// Images by how many nodes have them.
    pub(crate) images: BTreeMap<String, i64>,
    images_version: u64,
    /// Pods that wait for room on a node, by uid.
    pub(crate) nominated: BTreeMap<Arc<str>, (Slot, ClassId)>,
    pub(crate) nominees: BTreeMap<Slot, BTreeMap<Arc<str>, ClassId>>,
    /// How many pods there are of each priority.
    pub(crate) priorities: BTreeMap<i32, usize>,
    pub(crate) changes: Changes,
    /// Counts every change that a refusal could rest on.
    pub(crate) version: u64,
    /// Pods that were to be placed so far.
    pub(crate) asked: u64,
}

impl Snapshot {
    /// An empty cluster. `seed` only decides between nodes that are equally good.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Takes a node as it is now; true: it is another one to pods than before. Cost: its pods, if its labels or taints changed.
    pub fn put_node(&mut self, facts: NodeFacts) -> bool {
        let slot = self.slot_of(&facts.name);
        let before = self.nodes[slot].facts.as_ref();
        if before == Some(&facts) {
            return false;
        }
        let is_elsewhere = before
            .is_none_or(|before| before.labels != facts.labels || before.taints != facts.taints);
        let are_images_other = before.map(|before| &before.images) != Some(&facts.images);
        if before.is_none() {
            let name = Arc::clone(&self.nodes[slot].name);
            self.awaited.remove(&name);
            self.by_name.insert(name, slot);
            self.images_version += 1;
        }
        if are_images_other {
            self.count_images(slot, -1);
        }
        if is_elsewhere {
            self.count_all(slot, -1);
            let shift = self.topologies.put_node(slot, Some(&facts));
            self.nodes[slot].facts = Some(facts);
            self.take_shift(&shift);
            self.count_all(slot, 1);
        } else {
            self.nodes[slot].facts = Some(facts);
        }
        if are_images_other {
            self.count_images(slot, 1);
        }
        self.touch(slot);
        true
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.remove(name) else {
            return;
        };
        self.count_images(slot, -1);
        self.images_version += 1;
        self.count_all(slot, -1);
        let shift = self.topologies.put_node(slot, None);
        self.nodes[slot].facts = None;
        self.take_shift(&shift);
        let name = Arc::clone(&self.nodes[slot].name);
        self.awaited.insert(name, slot);
        self.touch(slot);
        self.leave_slot(slot);
    }

    /// Counts a pod on its node. A pod without one is only forgotten; so is, by its owner's call of
    /// [`Snapshot::remove_pod`], one that is finished.
    pub fn put_pod(&mut self, facts: PodFacts) {
        self.tidy();
        self.remove_pod(&facts.uid);
        let Some(node) = &facts.node else {
            return;
        };
        let slot = self.slot_of(node);
        let class = self.class_of(&facts);
        self.denominate(&facts.uid);
        let placed = Placed {
            name: facts.name,
            class,
            ending: facts.ending,
            started: facts.started,
        };
        self.hold(slot, &facts.uid, &placed, 1);
        let uid = Arc::clone(&facts.uid);
        self.nodes[slot].pods.insert(Arc::clone(&uid), placed);
        self.pods.insert(uid, slot);
        self.touch(slot);
    }

    /// True: it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(slot) = self.pods.remove(uid) else {
            return false;
        };
        if let Some(placed) = self.nodes[slot].pods.remove(uid) {
            self.hold(slot, uid, &placed, -1);
        }
        self.touch(slot);
        self.leave_slot(slot);
        true
    }

    /// As [`Snapshot::remove_pod`]; the pod as it was before it had a node. Its claims and whether it is ending are not kept.
    pub fn take_pod(&mut self, uid: &str) -> Option<PodFacts> {
        let (uid, slot) = self.pods.get_key_value(uid)?;
        let placed = self.nodes[*slot].pods.get(uid)?;
        let class = self.class(placed.class);
        let facts = PodFacts {
            namespace: Arc::clone(&class.namespace),
            name: Arc::clone(&placed.name),
            uid: Arc::clone(uid),
            controller: class.controller.clone(),
            node: None,
            nominated: None,
            ending: false,
            started: None,
            needs: Arc::clone(&class.needs),
        };
        self.remove_pod(&facts.uid);
        Some(facts)
    }

    /// Its node began with the pod, or with it anew.
    pub fn set_started(&mut self, uid: &str, started: Option<i64>) {
        let slot = self.pods.get(uid).copied();
        let pod = slot.and_then(|slot| self.nodes[slot].pods.get_mut(uid));
        if let Some(pod) = pod {
            pod.started = started;
        }
        // Who began when decides who has to go.
        if let Some(slot) = slot {
            self.note(slot);
        }
    }

    /// The node this pod is counted on.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        let slot = self.pods.get(uid)?;
        Some(&self.nodes[*slot].name)
    }

    /// Nodes that are there.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Room is being made for the pod on a node: there it counts for all who are not more urgent. A pod that gets a node claims no
    /// other any more; one that goes has to be taken back ([`Snapshot::denominate`]).
    pub fn nominate(&mut self, facts: &PodFacts, node: &str) {
        self.denominate(&facts.uid);
        let Some(slot) = self.by_name.get(node).copied() else {
            return;
        };
        let class = self.class_of(facts);
        let uid = &facts.uid;
        self.nominated.insert(Arc::clone(uid), (slot, class));
        let here = self.nominees.entry(slot).or_default();
        here.insert(Arc::clone(uid), class);
        self.touch(slot);
    }

    /// The pod claims no node any more.
    pub fn denominate(&mut self, uid: &str) {
        let Some((slot, _)) = self.nominated.remove(uid) else {
            return;
        };
        if let Some(here) = self.nominees.get_mut(&slot) {
            here.remove(uid);
            if here.is_empty() {
                self.nominees.remove(&slot);
            }
        }
        self.touch(slot);
        self.leave_slot(slot);
    }

    /// The node that the pod claims.
    pub fn nominated_node(&self, uid: &str) -> Option<&str> {
        let (slot, _) = self.nominated.get(uid)?;
        Some(&self.nodes[*slot].name)
    }

    /// Pods behind the same service are spread over nodes.
    pub fn put_service(&mut self, service: &Service) {
        let meta = &service.metadata;
        let key = service_key(meta.namespace.as_deref(), meta.name.as_deref());
        let labels = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let labels = labels.filter(|labels| !labels.is_empty());
        let Some(labels) = labels else {
            self.forget_service(&key);
            return;
        };
        let pairs = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let selector = LabelSelector::from_labels(pairs);
        if self.services.get(&key) != Some(&selector) {
            self.services.insert(key, selector);
            self.services_version += 1;
        }
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        self.forget_service(&service_key(Some(namespace), Some(name)));
    }

    fn forget_service(&mut self, key: &(Arc<str>, String)) {
        if self.services.remove(key).is_some() {
            self.services_version += 1;
        }
    }

    /// True: its labels are others now. Cost: if terms select by them, all is counted again.
    pub fn put_namespace(&mut self, namespace: &Namespace) -> bool {
        let meta = &namespace.metadata;
        let name: Arc<str> = meta.name.as_deref().unwrap_or_default().into();
        let labels = meta.labels.clone().unwrap_or_default();
        if self.namespaces.get(&name) == Some(&labels) {
            return false;
        }
        self.namespaces.insert(name, labels);
        self.recount_selected();
        true
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.recount_selected();
        }
    }

    fn recount_selected(&mut self) {
        let mut counters = self.counters.iter();
        if counters.any(|counter| counter.what.selects_namespaces()) {
            self.recount();
        }
    }

    /// What a budget allows now. Pods that were to go and are still here are spent beside what it says.
    pub fn put_budget(&mut self, namespace: &str, name: &str, mut budget: Budget) {
        let key = (namespace.into(), name.to_owned());
        if let Some(before) = self.budgets.remove(&key) {
            let still_here = |uid: &Arc<str>| {
                let slot = self.pods.get(uid);
                let pod = slot.and_then(|slot| self.nodes[*slot].pods.get(uid));
                pod.is_some_and(|pod| !pod.ending)
            };
            budget.spent = before.spent.into_iter().filter(still_here).collect();
        }
        self.budgets.insert(key, budget);
        self.budgets_version += 1;
        self.version += 1;
    }

    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.into(), name.to_owned()));
        self.budgets_version += 1;
        self.version += 1;
    }

    /// Forgets kinds of pods that are not there any more, when there may be many. Nobody may hold the number of one.
    pub(crate) fn tidy(&mut self) {
        let known = self.classes.len() - self.unused.len();
        let is_worn = self.topologies.is_worn(self.by_name.len());
        if known > 2 * self.classes_kept + IDLE_CLASSES_MAX || is_worn {
            self.recount();
        }
    }

    pub(crate) fn class(&self, id: ClassId) -> &Class {
        // Whoever has the number keeps the class.
        self.classes[id].as_ref().expect("a class that is in use")
    }

    pub(crate) fn class_mut(&mut self, id: ClassId) -> &mut Class {
        self.classes[id].as_mut().expect("a class that is in use")
    }

    fn slot_of(&mut self, name: &Arc<str>) -> Slot {
        let known = self.by_name.get(name).or_else(|| self.awaited.get(name));
        if let Some(slot) = known {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(NodeState::default());
            self.nodes.len() - 1
        });
        self.nodes[slot] = NodeState {
            name: Arc::clone(name),
            ..NodeState::default()
        };
        self.awaited.insert(Arc::clone(name), slot);
        slot
    }

    /// Nobody speaks of the node any more.
    fn leave_slot(&mut self, slot: Slot) {
        let node = &self.nodes[slot];
        if node.facts.is_some() || !node.pods.is_empty() || self.nominees.contains_key(&slot) {
            return;
        }
        if self.awaited.remove(&node.name).is_some() {
            self.nodes[slot] = NodeState::default();
            self.free.push(slot);
        }
    }

    /// Something about the node changed.
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.version += 1;
        self.note(slot);
    }

    fn note(&mut self, slot: Slot) {
        let changed = Changed {
            slot,
            is_far: false,
        };
        self.changes.add(changed, self.nodes.len());
    }

    /// The class of a pod; made if there is none.
    pub(crate) fn class_of(&mut self, pod: &PodFacts) -> ClassId {
        let known = self.by_fingerprint.get(&pod.needs.fingerprint);
        let known = known.into_iter().flatten().copied().find(|id| {
            let class = self.class(*id);
            class.namespace == pod.namespace
                && class.controller == pod.controller
                && (Arc::ptr_eq(&class.needs, &pod.needs) || class.needs == pod.needs)
        });
        if let Some(known) = known {
            return known;
        }
        let class = Class::new(
            Arc::clone(&pod.namespace),
            pod.controller.clone(),
            Arc::clone(&pod.needs),
        );
        let id = self.unused.pop().unwrap_or_else(|| {
            self.classes.push(None);
            self.classes.len() - 1
        });
        self.classes[id] = Some(class);
        let same = self.by_fingerprint.entry(pod.needs.fingerprint);
        same.or_default().push(id);
        for counter in 0..self.counters.len() {
            self.connect(counter, id);
        }
        self.open_terms(id);
        id
    }

    /// The needs of pods like this one, kept once.
    pub fn share_needs(&mut self, pod: &mut PodFacts) {
        let class = self.class_of(pod);
        pod.needs = Arc::clone(&self.class(class).needs);
    }

    pub(crate) fn forget_class(&mut self, id: ClassId) {
        let Some(class) = self.classes[id].take() else {
            return;
        };
        self.unused.push(id);
        let fingerprint = class.needs.fingerprint;
        if let Some(same) = self.by_fingerprint.get_mut(&fingerprint) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.by_fingerprint.remove(&fingerprint);
            }
        }
    }

    fn count_images(&mut self, slot: Slot, sign: i64) {
        let Some(facts) = &self.nodes[slot].facts else {
            return;
        };
        if !facts.images.is_empty() {
            self.images_version += 1;
        }
        for image in facts.images.keys() {
            match self.images.get_mut(image) {
                Some(nodes) => {
                    *nodes += sign;
                    if *nodes == 0 {
                        self.images.remove(image);
                    }
                }
                None => {
                    self.images.insert(image.clone(), sign);
                }
            }
        }
    }

    /// The number of what scores by images rest on; `None`: no node has one of the class's.
    pub(crate) fn images_of(&self, class: &Class) -> Option<u64> {
        let mut images = class.needs.images.iter();
        let known = images.any(|image| self.images.contains_key(image));
        known.then_some(self.images_version)
    }

    /// All kinds of pods.
    pub(crate) fn classes_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        self.classes.iter_mut().flatten()
    }

    /// All that is counted, as text, by names rather than by places: what came about step by step and what was made at once is the same.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> std::collections::BTreeSet<String> {
        let nodes = self.nodes.iter().filter(|node| !node.name.is_empty());
        let mut all: std::collections::BTreeSet<String> = nodes
            .map(|node| {
                let mut ports: Vec<String> = node
                    .host_ports
                    .iter()
                    .map(|port| format!("{port:?}"))
                    .collect();
                ports.sort();
                let pods: Vec<&Arc<str>> = node.pods.keys().collect();
                format!(
                    "{}: {:?} {:?} {:?} {pods:?} {ports:?} {:?}",
                    node.name, node.facts, node.used, node.weight, node.priorities
                )
            })
            .collect();
        all.insert(format!(
            "{:?} {:?} {:?} {:?}",
            self.priorities, self.services, self.images, self.claims
        ));
        all
    }
}

fn service_key(namespace: Option<&str>, name: Option<&str>) -> (Arc<str>, String) {
    let namespace = namespace.unwrap_or_default().into();
    (namespace, name.unwrap_or_default().to_owned())
}
