//! Topologies: which nodes share a value of a label, and which of them count for whom.
//!
//! A topology is known from when somebody asks for its key, and kept up with the nodes. A scope is a topology seen by pods that
//! only some nodes count for: spreading leaves out nodes that a pod may not go to.
//!
//! Invariant: a scope's `nodes` of a domain is the number of nodes there that its eligibility takes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelector;
use weft_api::node_selector::selects;
use weft_api::toleration::tolerates;
use weft_api::view::Toleration;

use crate::node::NodeFacts;

/// A place among the nodes, a topology, a value in it, a scope.
pub(crate) type Slot = usize;
pub(crate) type TopologyId = usize;
pub(crate) type Domain = usize;
pub(crate) type ScopeId = usize;

/// A change in a domain is a change of each of its nodes where topologies are fine; in others nodes are grouped by domain. Looking at a node anew
/// costs as much as judging so many groups.
const GROUPS_A_NODE: usize = 10;

#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub key: String,
    values: BTreeMap<String, Domain>,
    of_slot: Vec<Option<Domain>>,
    pub members: Vec<BTreeSet<Slot>>,
    labelled: usize,
    /// Domains with nodes.
    occupied: usize,
    /// See [`GROUPS_A_NODE`].
    pub is_fine: bool,
}

impl Topology {
    fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            values: BTreeMap::new(),
            of_slot: Vec::new(),
            members: Vec::new(),
            labelled: 0,
            occupied: 0,
            is_fine: true,
        }
    }

    pub fn domain(&self, slot: Slot) -> Option<Domain> {
        self.of_slot.get(slot).copied().flatten()
    }

    fn put(&mut self, slot: Slot, facts: Option<&NodeFacts>) {
        if let Some(domain) = self.domain(slot) {
            self.members[domain].remove(&slot);
            self.occupied -= usize::from(self.members[domain].is_empty());
            self.labelled -= 1;
        }
        let value = facts.and_then(|facts| facts.labels.get(&self.key));
        let domain = value.map(|value| match self.values.get(value) {
            Some(domain) => *domain,
            None => {
                let domain = self.members.len();
                self.members.push(BTreeSet::new());
                self.values.insert(value.clone(), domain);
                domain
            }
        });
        if let Some(domain) = domain {
            self.occupied += usize::from(self.members[domain].is_empty());
            self.members[domain].insert(slot);
            self.labelled += 1;
        }
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, None);
        }
        self.of_slot[slot] = domain;
    }
}

/// Which nodes count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Eligibility {
    pub node_selector: BTreeMap<String, String>,
    pub required: Option<NodeSelector>,
    /// `Some`: nodes with other taints do not count.
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels that a node must have.
    pub keys: Vec<String>,
}

impl Eligibility {
    fn takes(&self, node: &NodeFacts) -> bool {
        let selector = &self.node_selector;
        selects_node(selector, self.required.as_ref(), node)
            && self.keys.iter().all(|key| node.labels.contains_key(key))
            && self
                .tolerations
                .as_ref()
                .is_none_or(|tolerations| untolerated(tolerations, node).is_none())
    }
}

/// `nodeSelector` and required node affinity, both.
pub(crate) fn selects_node(
    labels: &BTreeMap<String, String>,
    required: Option<&NodeSelector>,
    node: &NodeFacts,
) -> bool {
    let mut labels = labels.iter();
    labels.all(|(key, value)| node.labels.get(key) == Some(value))
        && required.is_none_or(|selector| selects(selector, &node.name, &node.labels))
}

/// A taint that keeps pods away, and that nothing here tolerates.
pub(crate) fn untolerated<'a>(
    tolerations: &[Toleration],
    node: &'a NodeFacts,
) -> Option<&'a weft_api::view::Taint> {
    let mut taints = node.taints.iter();
    taints.find(|taint| {
        (taint.effect == "NoSchedule" || taint.effect == "NoExecute")
            && !tolerations.iter().any(|t| tolerates(t, taint))
    })
}

#[derive(Debug, Clone)]
struct Eligible {
    rule: Eligibility,
    slots: Vec<bool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub topology: TopologyId,
    eligible: usize,
    /// Nodes that count, by domain.
    nodes: Vec<usize>,
    /// Domains with such nodes.
    pub domains: usize,
}

impl Scope {
    /// True: the domain is one from now on.
    fn add(&mut self, domain: Domain) -> bool {
        if self.nodes.len() <= domain {
            self.nodes.resize(domain + 1, 0);
        }
        let is_new = self.nodes[domain] == 0;
        self.domains += usize::from(is_new);
        self.nodes[domain] += 1;
        is_new
    }

    /// True: the domain is none any more.
    fn take(&mut self, domain: Domain) -> bool {
        self.nodes[domain] -= 1;
        let is_gone = self.nodes[domain] == 0;
        self.domains -= usize::from(is_gone);
        is_gone
    }
}

/// What a change of a node changed.
pub(crate) struct Shift {
    /// Domains that came (`true`) or went, by scope.
    pub domains: Vec<(ScopeId, Domain, bool)>,
    /// Some topology is grouped in another way now ([`Topology::is_fine`]).
    pub is_regrouped: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Topologies {
    all: Vec<Topology>,
    eligible: Vec<Eligible>,
    scopes: Vec<Scope>,
}

impl Topologies {
    pub fn topology(&self, id: TopologyId) -> &Topology {
        &self.all[id]
    }

    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id]
    }

    /// Where a node counts in a scope, if it does.
    pub fn counted_in(&self, id: ScopeId, slot: Slot) -> Option<Domain> {
        let scope = &self.scopes[id];
        let eligible = &self.eligible[scope.eligible];
        if !eligible.slots.get(slot).copied().unwrap_or(false) {
            return None;
        }
        self.all[scope.topology].domain(slot)
    }

    /// Where a node lies in a scope's topology, whether it counts there or not.
    pub fn domain_in(&self, id: ScopeId, slot: Slot) -> Option<Domain> {
        self.all[self.scopes[id].topology].domain(slot)
    }

    pub fn is_fine(&self, id: ScopeId) -> bool {
        self.all[self.scopes[id].topology].is_fine
    }

    /// The scope of a key for those of these rules. `nodes` are those that are there.
    pub fn open<'a>(
        &mut self,
        key: &str,
        rule: &Eligibility,
        nodes: impl Iterator<Item = (Slot, &'a NodeFacts)> + Clone,
    ) -> ScopeId {
        let known = self.all.iter().position(|topology| topology.key == key);
        let topology = known.unwrap_or_else(|| {
            let mut topology = Topology::new(key);
            for (slot, facts) in nodes.clone() {
                topology.put(slot, Some(facts));
            }
            self.all.push(topology);
            self.settle();
            self.all.len() - 1
        });
        let known = self.eligible.iter().position(|known| known.rule == *rule);
        let eligible = known.unwrap_or_else(|| {
            let mut slots = Vec::new();
            for (slot, facts) in nodes.clone() {
                mark(&mut slots, slot, rule.takes(facts));
            }
            let rule = rule.clone();
            self.eligible.push(Eligible { rule, slots });
            self.eligible.len() - 1
        });
        let mut scopes = self.scopes.iter();
        let known = scopes.position(|s| (s.topology, s.eligible) == (topology, eligible));
        if let Some(known) = known {
            return known;
        }
        let mut scope = Scope {
            topology,
            eligible,
            nodes: Vec::new(),
            domains: 0,
        };
        for (slot, _) in nodes {
            if self.eligible[eligible].slots[slot]
                && let Some(domain) = self.all[topology].domain(slot)
            {
                scope.add(domain);
            }
        }
        self.scopes.push(scope);
        self.scopes.len() - 1
    }

    /// Takes a node as it is now. Nothing may be counted on it meanwhile.
    pub fn put_node(&mut self, slot: Slot, facts: Option<&NodeFacts>) -> Shift {
        let mut domains = Vec::new();
        for id in 0..self.scopes.len() {
            if let Some(domain) = self.counted_in(id, slot)
                && self.scopes[id].take(domain)
            {
                domains.push((id, domain, false));
            }
        }
        for topology in &mut self.all {
            topology.put(slot, facts);
        }
        for eligible in &mut self.eligible {
            let takes = facts.is_some_and(|facts| eligible.rule.takes(facts));
            mark(&mut eligible.slots, slot, takes);
        }
        for id in 0..self.scopes.len() {
            if let Some(domain) = self.counted_in(id, slot)
                && self.scopes[id].add(domain)
            {
                domains.push((id, domain, true));
            }
        }
        Shift {
            domains,
            is_regrouped: self.settle(),
        }
    }

    fn settle(&mut self) -> bool {
        let mut changed = false;
        for topology in &mut self.all {
            let (nodes, domains) = (topology.labelled, topology.occupied);
            let is_fine = nodes <= 2 * domains || nodes * GROUPS_A_NODE <= domains * domains;
            changed |= topology.is_fine != is_fine;
            topology.is_fine = is_fine;
        }
        changed
    }

    /// Values that no node has any more are only forgotten with all else.
    pub fn is_worn(&self, nodes: usize) -> bool {
        const SPARE: usize = 1024;
        let mut all = self.all.iter();
        all.any(|topology| topology.members.len() > 2 * nodes + SPARE)
    }
}

fn mark(slots: &mut Vec<bool>, slot: Slot, value: bool) {
    if slots.len() <= slot {
        slots.resize(slot + 1, false);
    }
    slots[slot] = value;
}
