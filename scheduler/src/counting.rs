//! What is counted of pods, kept up with each of them: room and ports of nodes, and the counters of all who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::class::{ClassId, Here};
use crate::counters::{Counter, CounterId, Role, What};
use crate::pod::PodNeeds;
use crate::resources::Resources;
use crate::snapshot::{Changed, Placed, Snapshot};
use crate::term::Term;
use crate::topology::{Eligibility, Shift, Slot, Topologies};

impl Snapshot {
    /// Counts everything again, from the pods that are there and nothing else: also what an end in the middle of a decision left
    /// half done.
    pub fn recount(&mut self) {
        self.counters.clear();
        self.topologies = Topologies::default();
        self.priorities.clear();
        self.claims.clear();
        for class in self.classes.iter_mut().flatten() {
            class.on.clear();
            class.counted.clear();
            class.met.clear();
            class.rules = None;
            class.index = None;
        }
        let placed = self.nodes.iter().flat_map(|node| node.pods.values());
        let placed = placed.map(|pod| pod.class);
        let claiming = self.nominated.values().map(|(_, class)| *class);
        let used: BTreeSet<ClassId> = placed.chain(claiming).collect();
        for id in 0..self.classes.len() {
            if !used.contains(&id) {
                self.forget_class(id);
            }
        }
        self.classes_kept = used.len();
        for id in 0..self.classes.len() {
            if self.classes[id].is_some() {
                self.open_terms(id);
            }
        }
        for slot in 0..self.nodes.len() {
            let node = &mut self.nodes[slot];
            node.used = Resources::default();
            node.weight = (0, 0);
            node.host_ports.clear();
            node.priorities.clear();
            let pods: Vec<(Arc<str>, Placed)> = node
                .pods
                .iter()
                .map(|(uid, pod)| (Arc::clone(uid), pod.clone()))
                .collect();
            for (uid, placed) in pods {
                self.hold(slot, &uid, &placed, 1);
            }
        }
        self.version += 1;
    }

    /// What others have to know of the terms of a class: where pods with them are.
    pub(crate) fn open_terms(&mut self, id: ClassId) {
        let needs = Arc::clone(&self.class(id).needs);
        let near = needs.near.iter().map(|term| (Role::Near, term));
        let apart = needs.apart.iter().map(|term| (Role::Apart, term));
        let inclined = needs
            .inclined
            .iter()
            .map(|(term, _)| (Role::Inclined, term));
        for (role, term) in near.chain(apart).chain(inclined) {
            let key = term.topology_key.clone();
            self.open(
                What::Having(role, term.clone()),
                &key,
                &Eligibility::default(),
            );
        }
    }

    /// The counter of what is asked; made, and filled, if there is none.
    pub(crate) fn open(&mut self, what: What, key: &str, rule: &Eligibility) -> CounterId {
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(slot, node)| Some((slot, node.facts.as_ref()?)));
        let scope = self.topologies.open(key, rule, nodes);
        let mut counters = self.counters.iter();
        let known = counters.position(|known| known.scope == scope && known.what == what);
        if let Some(known) = known {
            return known;
        }
        let domains = self.topologies.scope(scope).domains;
        self.counters.push(Counter::new(what, scope, domains));
        let id = self.counters.len() - 1;
        for class in 0..self.classes.len() {
            self.connect(id, class);
        }
        id
    }

    /// Makes a counter and a class known to each other.
    pub(crate) fn connect(&mut self, id: CounterId, class: ClassId) {
        let Some(class) = &mut self.classes[class] else {
            return;
        };
        let counter = &mut self.counters[id];
        let (namespace, labels) = (&*class.namespace, &class.needs.labels);
        let amount = match &counter.what {
            What::Having(role, term) => {
                if term.speaks_of(namespace, labels, &self.namespaces) {
                    class.met.push((id, *role));
                    class.rules = None;
                    class.index = None;
                }
                amount_having(&class.needs, *role, term)
            }
            what => {
                let controller = class.controller.as_ref();
                i64::from(what.counts(namespace, controller, labels, &self.namespaces))
            }
        };
        if amount == 0 {
            return;
        }
        class.counted.push((id, amount));
        for (slot, here) in &class.on {
            let ending = if counter.what.is_about_spreading() {
                here.ending
            } else {
                0
            };
            if let Some(domain) = self.topologies.counted_in(counter.scope, *slot) {
                counter.add(domain, amount * (here.all - ending));
            }
        }
    }

    /// Counts a pod on a node, or not any more: room, ports and whatever counters are about it.
    pub(crate) fn hold(&mut self, slot: Slot, uid: &str, pod: &Placed, sign: i64) {
        let needs = Arc::clone(&self.class(pod.class).needs);
        let node = &mut self.nodes[slot];
        if sign > 0 {
            node.used.add(&needs.requests);
            node.weight.0 += needs.weight.cpu;
            node.weight.1 += needs.weight.memory;
            for port in &needs.host_ports {
                node.host_ports.push((uid.into(), port.clone()));
            }
        } else {
            node.used.subtract(&needs.requests);
            node.weight.0 -= needs.weight.cpu;
            node.weight.1 -= needs.weight.memory;
            if !needs.host_ports.is_empty() {
                node.host_ports.retain(|(owner, _)| **owner != *uid);
            }
        }
        shift(&mut node.priorities, needs.priority, sign);
        shift(&mut self.priorities, needs.priority, sign);
        for claim in &needs.claims {
            let namespace = Arc::clone(&self.class(pod.class).namespace);
            shift(&mut self.claims, (namespace, claim.clone()), sign);
        }
        let class = self.class_mut(pod.class);
        let here = class.on.entry(slot).or_default();
        here.all += sign;
        here.ending += sign * i64::from(pod.ending);
        if *here == Here::default() {
            class.on.remove(&slot);
        }
        self.count(slot, pod.class, pod.ending, sign);
    }

    /// Counts a pod of the class in all counters that are about it.
    fn count(&mut self, slot: Slot, class: ClassId, ending: bool, sign: i64) {
        let Self {
            classes,
            counters,
            topologies,
            changes,
            nodes,
            ..
        } = self;
        let counted = classes[class].iter().flat_map(|class| &class.counted);
        for (id, amount) in counted {
            let counter = &mut counters[*id];
            if ending && counter.what.is_about_spreading() {
                continue;
            }
            let Some(domain) = topologies.counted_in(counter.scope, slot) else {
                continue;
            };
            counter.add(domain, amount * sign);
            let topology = topologies.topology(topologies.scope(counter.scope).topology);
            if topology.is_fine {
                let others = topology.members[domain].iter();
                for other in others.filter(|other| **other != slot) {
                    let changed = Changed {
                        slot: *other,
                        is_far: true,
                    };
                    changes.add(changed, nodes.len());
                }
            }
        }
    }

    /// Counts everything on a node in the counters, or nothing of it any more.
    pub(crate) fn count_all(&mut self, slot: Slot, sign: i64) {
        let pods = self.nodes[slot].pods.values();
        let pods: Vec<(ClassId, bool)> = pods.map(|pod| (pod.class, pod.ending)).collect();
        for (class, ending) in pods {
            self.count(slot, class, ending, sign);
        }
    }

    pub(crate) fn take_shift(&mut self, shift: &Shift) {
        for (scope, domain, is_domain) in &shift.domains {
            let of_scope = self.counters.iter_mut().filter(|c| c.scope == *scope);
            for counter in of_scope {
                counter.shift_domain(*domain, *is_domain);
            }
        }
        if shift.is_regrouped {
            for class in self.classes.iter_mut().flatten() {
                class.rules = None;
                class.index = None;
            }
        }
    }
}

fn shift<K: Ord>(counts: &mut BTreeMap<K, usize>, of: K, sign: i64) {
    match counts.get_mut(&of) {
        Some(count) => {
            *count = count.saturating_add_signed(if sign > 0 { 1 } else { -1 });
            if *count == 0 {
                counts.remove(&of);
            }
        }
        None if sign > 0 => {
            counts.insert(of, 1);
        }
        None => {}
    }
}

/// As how many a pod counts among those with a term.
fn amount_having(needs: &PodNeeds, role: Role, term: &Term) -> i64 {
    let has = |terms: &[Term]| i64::from(terms.contains(term));
    match role {
        Role::Near => has(&needs.near),
        Role::Apart => has(&needs.apart),
        Role::Inclined => {
            let same = needs.inclined.iter().filter(|(own, _)| own == term);
            same.map(|(_, weight)| weight).sum()
        }
    }
}
