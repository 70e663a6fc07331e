//! Preemption: who has to go from a node so that a more urgent pod fits.
//!
//! As Kubernetes does it: all that is less urgent is thought away from a node; if the pod fits then, as many as possible are taken back,
//! those first whose budget would be broken, and of equals the most important. Of the nodes that remain, the one is taken where the fewest
//! budgets are broken, then the least urgent have to go, then the least of them together, the fewest, and the youngest.
//!
//! Invariants: what is thought away is put back, exactly; nobody has to go whose absence would not help, or who is as urgent as the pod.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_api::hash::fnv1a_64_seeded;
use weft_api::selector::LabelSelector;

use crate::class::ClassId;
use crate::explain::{NEVER, NOT_HELPFUL, Why, counted};
use crate::filter::Reason;
use crate::pod::PodFacts;
use crate::pool::CANDIDATES;
use crate::rules::Rules;
use crate::snapshot::{Placed, Snapshot};
use crate::topology::Slot;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// What a disruption budget allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budget {
    /// One that selects everything by saying nothing protects nobody here.
    pub selector: Option<LabelSelector>,
    pub allowed: i64,
    /// Names of pods whose disruption is counted already.
    pub disrupted: BTreeSet<String>,
    /// Uids of pods that were to go since its controller looked.
    pub(crate) spent: BTreeSet<Arc<str>>,
}

impl Budget {
    /// `selector`: `None` where it cannot be read, which protects nobody.
    pub fn new(selector: Option<LabelSelector>, allowed: i64, disrupted: BTreeSet<String>) -> Self {
        Self {
            selector,
            allowed,
            disrupted,
            spent: BTreeSet::new(),
        }
    }

    fn protects(&self, labels: &BTreeMap<String, String>) -> bool {
        let selector = self.selector.as_ref();
        let selector = selector.filter(|selector| !selector.is_everything());
        !labels.is_empty() && selector.is_some_and(|selector| selector.matches(labels))
    }
}

/// A pod that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// It is on its way already.
    pub is_ending: bool,
}

/// Who has to go for a pod. It has a claim on the node from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub node: Arc<str>,
    pub victims: Vec<Victim>,
    /// How many of them a budget would have kept.
    pub violations: usize,
    /// Uids of less urgent pods that had a claim on the node, and have none any more.
    pub displaced: Vec<Arc<str>>,
}

/// A node that could be made to take the pod.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    slot: Slot,
    /// A hash of the node's name: looking at a hundred nodes for their names costs more than all else.
    name: u64,
    victims: Vec<(Arc<str>, Placed)>,
    loss: Loss,
}

impl Candidate {
    pub fn violations(&self) -> usize {
        self.loss.violations
    }
}

/// What is lost with a node's victims; the least is the best. What is compared first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    /// Budgets that are broken, a pod each.
    violations: usize,
    highest: i64,
    sum: i64,
    count: usize,
    youngest: Reverse<i64>,
}

impl Snapshot {
    /// Finds the node where the least is lost. Says in `why` what came of it.
    pub(crate) fn preempt(
        &mut self,
        pod: &PodFacts,
        id: ClassId,
        why: &mut Why,
    ) -> Option<Preemption> {
        if why.nodes == 0 {
            return None;
        }
        let needs = Arc::clone(&self.class(id).needs);
        if needs.yields {
            NEVER.clone_into(&mut why.preemption);
            return None;
        }
        let rules = self.rules(id);
        let claimed = self.nominated_node(&pod.uid).or(pod.nominated.as_deref());
        let claimed = claimed.and_then(|name| self.by_name.get(name)).copied();
        if let Some(slot) = claimed
            && self.may_still_be_freed(id, &rules, slot, &pod.uid)
        {
            "not eligible due to a terminating pod on the nominated node."
                .clone_into(&mut why.preemption);
            return None;
        }
        let is_plain = claimed.is_none()
            && needs.pinned.is_none()
            && needs.volumes.alone.is_empty()
            && rules.are_local();
        if is_plain && let Some(best) = self.best_of_pool(pod, id, &rules) {
            return Some(self.decide(pod, best, why));
        }
        let helpful = self.helpful_slots(pod, id, &rules);
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        let unhelpful = why.nodes - helpful.len();
        if unhelpful > 0 {
            told.insert(NOT_HELPFUL.to_owned(), unhelpful);
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for slot in helpful {
            match self.victims_on(pod, id, &rules, slot) {
                Ok(candidate) => candidates.push(candidate),
                Err(reasons) => {
                    for reason in reasons {
                        *told.entry(reason).or_default() += 1;
                    }
                }
            }
            // Budgets are broken only if nothing else helps anywhere.
            let is_harmless = candidates
                .iter()
                .any(|candidate| candidate.violations() == 0);
            if is_harmless && candidates.len() >= CANDIDATES {
                break;
            }
        }
        let best = self.least_loss(pod, candidates.iter());
        let mut candidates = candidates.into_iter();
        let Some(best) = best.and_then(|best| candidates.find(|one| one.slot == best)) else {
            why.preemption = format!("0/{} nodes are available: {}.", why.nodes, counted(&told));
            return None;
        };
        Some(self.decide(pod, best, why))
    }

    /// Pods leave the node that the pod has a claim on, and with them gone it may fit.
    fn may_still_be_freed(&self, id: ClassId, rules: &Rules, slot: Slot, uid: &str) -> bool {
        let refused = self.refusal(id, rules, slot, Some(uid));
        let is_hopeless = refused.is_some_and(|refused| !crate::filter::is_about_pods(&refused));
        let priority = self.class(id).needs.priority;
        let mut pods = self.nodes[slot].pods.values();
        !is_hopeless
            && pods.any(|pod| pod.ending && self.class(pod.class).needs.priority < priority)
    }

    /// The node where the least is lost; equals are told apart by a hash of the pod and the node.
    pub(crate) fn least_loss<'a>(
        &self,
        pod: &PodFacts,
        candidates: impl Iterator<Item = &'a Candidate> + Clone,
    ) -> Option<Slot> {
        let least = candidates.clone().map(|candidate| candidate.loss).min()?;
        let equals = candidates.filter(|candidate| candidate.loss == least);
        let seed = fnv1a_64_seeded(self.seed, pod.uid.bytes());
        let tie = |candidate: &&Candidate| fnv1a_64_seeded(seed, candidate.name.to_le_bytes());
        equals.min_by_key(tie).map(|candidate| candidate.slot)
    }

    /// Nodes where fewer pods could help, from where the pod's uid says.
    fn helpful_slots(&mut self, pod: &PodFacts, id: ClassId, rules: &Arc<Rules>) -> Vec<Slot> {
        let pinned = self.class(id).needs.pinned.clone();
        let is_about_pods = |slot: &Slot| {
            let refused = self.refusal(id, rules, *slot, Some(&pod.uid));
            refused.is_some_and(|refused| crate::filter::is_about_pods(&refused))
        };
        let mut slots: Vec<Slot> = match pinned {
            Some(names) => {
                let slots = names
                    .iter()
                    .filter_map(|name| self.by_name.get(name.as_str()));
                slots.copied().filter(is_about_pods).collect()
            }
            None if self.claim_refusal(self.class(id)).is_some() => {
                let slots = self.by_name.values().copied();
                slots.filter(is_about_pods).collect()
            }
            None => {
                let slots: Vec<Slot> = self.by_name.values().copied().collect();
                self.with_index(id, rules, |index, snapshot| {
                    let slots = slots.into_iter();
                    slots
                        .filter(|slot| index.is_about_pods(snapshot, *slot))
                        .collect()
                })
            }
        };
        if !slots.is_empty() {
            let hash = fnv1a_64_seeded(self.seed, pod.uid.bytes());
            let count = u64::try_from(slots.len()).unwrap_or(1);
            slots.rotate_left(usize::try_from(hash % count).unwrap_or(0));
        }
        slots
    }

    /// Who has to go from a node.
    ///
    /// # Errors
    /// Why it would not help, in Kubernetes' words.
    pub(crate) fn victims_on(
        &mut self,
        pod: &PodFacts,
        id: ClassId,
        rules: &Rules,
        slot: Slot,
    ) -> Result<Candidate, Vec<String>> {
        let priority = self.class(id).needs.priority;
        let mut lowest = self.nodes[slot].priorities.keys();
        if lowest.next().is_none_or(|lowest| *lowest >= priority) {
            return Err(vec![NO_VICTIMS.to_owned()]);
        }
        let pods = self.nodes[slot].pods.iter();
        let pods = pods.filter(|(_, pod)| self.class(pod.class).needs.priority < priority);
        let mut away: Vec<(Arc<str>, Placed)> = pods
            .map(|(uid, pod)| (Arc::clone(uid), pod.clone()))
            .collect();
        away.sort_by_key(|(uid, pod)| (self.importance(pod), Arc::clone(uid)));
        for (uid, pod) in &away {
            self.think_away(slot, uid, pod);
        }
        let refused = self.refusal(id, rules, slot, Some(&pod.uid));
        if let Some(refused) = refused {
            for (uid, pod) in &away {
                self.put_back(slot, uid, pod);
            }
            return Err(refused.iter().map(Reason::to_string).collect());
        }
        let (protected, free): (Vec<_>, Vec<_>) = self.protected(away);
        let mut victims = Vec::new();
        let mut violations = 0;
        for (others, is_protected) in [(protected, true), (free, false)] {
            for (uid, other) in others {
                self.put_back(slot, &uid, &other);
                if self.refusal(id, rules, slot, Some(&pod.uid)).is_some() {
                    self.think_away(slot, &uid, &other);
                    violations += usize::from(is_protected);
                    victims.push((uid, other));
                }
            }
        }
        for (uid, pod) in &victims {
            self.put_back(slot, uid, pod);
        }
        victims.sort_by_key(|(uid, pod)| (self.importance(pod), Arc::clone(uid)));
        let loss = self.loss(&victims, violations);
        Ok(Candidate {
            slot,
            name: fnv1a_64_seeded(0, self.nodes[slot].name.bytes()),
            victims,
            loss,
        })
    }

    /// The most important first: by priority, then who runs longest.
    fn importance(&self, pod: &Placed) -> (Reverse<i32>, i64) {
        let priority = self.class(pod.class).needs.priority;
        (Reverse(priority), pod.started.unwrap_or(i64::MAX))
    }

    fn think_away(&mut self, slot: Slot, uid: &str, pod: &Placed) {
        self.nodes[slot].pods.remove(uid);
        self.hold(slot, uid, pod, -1);
    }

    fn put_back(&mut self, slot: Slot, uid: &Arc<str>, pod: &Placed) {
        self.hold(slot, uid, pod, 1);
        self.nodes[slot].pods.insert(Arc::clone(uid), pod.clone());
    }

    /// Parts pods, in order, into those whose going would break a budget, and the others.
    #[allow(clippy::type_complexity)]
    fn protected(
        &self,
        pods: Vec<(Arc<str>, Placed)>,
    ) -> (Vec<(Arc<str>, Placed)>, Vec<(Arc<str>, Placed)>) {
        let mut left: BTreeMap<&(Arc<str>, String), i64> = BTreeMap::new();
        pods.into_iter().partition(|(uid, pod)| {
            let class = self.class(pod.class);
            let from = (Arc::clone(&class.namespace), String::new());
            let budgets = self.budgets.range(from..);
            let mut budgets = budgets.take_while(|((here, _), _)| *here == class.namespace);
            budgets.any(|(key, budget)| {
                let is_counted = budget.disrupted.contains(&*pod.name);
                if is_counted || budget.spent.contains(uid) || !budget.protects(&class.needs.labels)
                {
                    return false;
                }
                let spent = i64::try_from(budget.spent.len()).unwrap_or(i64::MAX);
                let left = left.entry(key).or_insert(budget.allowed - spent);
                *left -= 1;
                *left < 0
            })
        })
    }

    fn loss(&self, victims: &[(Arc<str>, Placed)], violations: usize) -> Loss {
        let urgency = |pod: &Placed| i64::from(self.class(pod.class).needs.priority);
        let priorities = victims.iter().map(|(_, pod)| urgency(pod));
        let highest = priorities.clone().max().unwrap_or(i64::MIN);
        // Above zero each, so that many of little worth are more than few.
        let sum = priorities.map(|priority| priority + (1 << 31)).sum();
        let youngest = victims.iter();
        let youngest = youngest
            .filter(|(_, pod)| urgency(pod) == highest)
            .map(|(_, pod)| pod.started.unwrap_or(i64::MAX))
            .min();
        Loss {
            violations,
            highest,
            sum,
            count: victims.len(),
            youngest: Reverse(youngest.unwrap_or(i64::MAX)),
        }
    }

    fn decide(&mut self, pod: &PodFacts, best: Candidate, why: &mut Why) -> Preemption {
        let node = Arc::clone(&self.nodes[best.slot].name);
        why.preemption = format!(
            "found a potential placement for pod on node {node}, preempting {} victims",
            best.victims.len()
        );
        let here = self.nominees.get(&best.slot).into_iter().flatten();
        let less = here.filter(|(_, class)| self.class(**class).needs.priority < pod.priority);
        let displaced: Vec<Arc<str>> = less.map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in &displaced {
            self.denominate(uid);
        }
        self.nominate(pod, &node);
        let victims = best.victims.into_iter().map(|(uid, victim)| {
            let class = victim.class;
            self.spend(&uid, class);
            Victim {
                namespace: Arc::clone(&self.class(class).namespace),
                name: victim.name,
                uid,
                is_ending: victim.ending,
            }
        });
        let victims = victims.collect();
        Preemption {
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
            uid: Arc::clone(&pod.uid),
            node,
            victims,
            violations: best.loss.violations,
            displaced,
        }
    }

    /// Budgets have one disruption less from now on, not only from when their controller looks again.
    fn spend(&mut self, uid: &Arc<str>, class: ClassId) {
        let (namespace, needs) = {
            let class = self.class(class);
            (Arc::clone(&class.namespace), Arc::clone(&class.needs))
        };
        let from = (Arc::clone(&namespace), String::new());
        let budgets = self.budgets.range_mut(from..);
        let budgets = budgets.take_while(|((here, _), _)| *here == namespace);
        for (_, budget) in budgets.filter(|(_, budget)| budget.protects(&needs.labels)) {
            budget.spent.insert(Arc::clone(uid));
            self.budgets_version += 1;
        }
    }

    /// The pod stays after all.
    pub fn spare(&mut self, uid: &str) {
        for budget in self.budgets.values_mut() {
            if budget.spent.remove(uid) {
                self.budgets_version += 1;
            }
        }
    }
}
