//! The way of one pod: what its rules are, which node takes it, who has to go for it, and why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::annotation;
use weft_api::hash::fnv1a_64_seeded;

use crate::class::{Class, ClassId};
use crate::counters::{CounterId, Role, What};
use crate::explain::{Refusal, Why};
use crate::filter::{Reason, Refused};
use crate::index::{Candidate, Index, best};
use crate::pod::{PodFacts, PodNeeds};
use crate::preempt::Preemption;
use crate::rules::{
    FIXED, Hard, INCLINATION, NOWHERE, Number, PREFERENCE, Place, Raw, Rules, Soft, TAINTS,
};
use crate::score::{preference, soft_taints};
use crate::snapshot::Snapshot;
use crate::term::Spread;
use crate::topology::{Eligibility, Slot, TopologyId};

/// Zones, as Kubernetes' default spreading knows them.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Kubernetes' default spreading: soft, over nodes and zones.
const DEFAULT_SPREAD: [(&str, i64); 2] = [(annotation::HOSTNAME, 3), (ZONE, 5)];
/// Nodes that can take a pod of a kind that is rare: the best of so many is good enough. Kubernetes' least.
const SAMPLE: usize = 100;
/// A class that comes so often, each time among so many pods after the last, is worth an index: it costs a look at every node.
const FREQUENT: u64 = 16;
const RECENT: u64 = 256;
/// Indexes that are kept at once: each knows every node.
const INDEXES_MAX: usize = 64;

/// What was decided, in the order the pods were considered.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    pub placements: Vec<Placement>,
    pub refusals: Vec<Refusal>,
    /// Of pods that are refused for now, who has to go for them.
    pub preemptions: Vec<Preemption>,
}

/// This pod goes to that node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub node: Arc<str>,
}

/// The last refusal: others like that pod hear the same while nothing changed since.
struct LastRefusal {
    class: ClassId,
    version: u64,
    why: Arc<Why>,
}

impl Snapshot {
    /// Places `pending`, in the order given. A pod that was placed is counted on its node from then on: whoever cannot bind it takes it
    /// back ([`Snapshot::remove_pod`]). So does a pod for whom others have to go on the node that it was nominated for
    /// ([`Snapshot::denominate`]).
    ///
    /// Cost: for each pod of a kind that comes more than once, the standings that nodes have in its eyes, and the nodes that changed
    /// since the last pod of its kind; for each of a rare kind, a look at nodes until [`SAMPLE`] can take it; for each kind that
    /// becomes frequent, a look at every node.
    pub fn plan<'a>(&mut self, pending: impl IntoIterator<Item = &'a PodFacts>) -> Plan {
        let mut plan = Plan::default();
        let mut last: Option<LastRefusal> = None;
        for pod in pending {
            self.tidy();
            let class = self.class_of(pod);
            let is_nominated = pod.nominated.is_some() || self.nominated_node(&pod.uid).is_some();
            if let Some(last) = &last
                && (last.class, last.version) == (class, self.version)
                && !is_nominated
            {
                plan.refusals.push(Refusal::new(pod, Arc::clone(&last.why)));
                continue;
            }
            if let Some(slot) = self.choose(pod, class) {
                let node = Arc::clone(&self.nodes[slot].name);
                plan.placements.push(Placement {
                    namespace: Arc::clone(&pod.namespace),
                    name: Arc::clone(&pod.name),
                    uid: Arc::clone(&pod.uid),
                    node: Arc::clone(&node),
                });
                self.put_pod(PodFacts {
                    node: Some(node),
                    nominated: None,
                    needs: Arc::clone(&self.class(class).needs),
                    ..pod.clone()
                });
                continue;
            }
            let mut why = self.why(pod, class);
            let preempted = self.preempt(pod, class, &mut why);
            let why = Arc::new(why);
            plan.refusals.push(Refusal::new(pod, Arc::clone(&why)));
            match preempted {
                Some(preemption) => plan.preemptions.push(preemption),
                None if !is_nominated => {
                    let version = self.version;
                    last = Some(LastRefusal {
                        class,
                        version,
                        why,
                    });
                }
                None => {}
            }
        }
        plan
    }

    /// What each node has against the pod, by name; empty: it would take it. Cost: every node.
    pub fn explain(&mut self, pod: &PodFacts) -> BTreeMap<Arc<str>, Vec<Reason>> {
        let class = self.class_of(pod);
        let rules = self.rules(class);
        let slots: Vec<Slot> = self.by_name.values().copied().collect();
        let explained = slots.into_iter().map(|slot| {
            let refused = self.refusal(class, &rules, slot, Some(&pod.uid));
            (
                Arc::clone(&self.nodes[slot].name),
                refused.unwrap_or_default(),
            )
        });
        explained.collect()
    }

    /// The best node for the pod.
    fn choose(&mut self, pod: &PodFacts, id: ClassId) -> Option<Slot> {
        self.asked += 1;
        let rules = self.rules(id);
        let claimed = self.nominated_node(&pod.uid).or(pod.nominated.as_deref());
        let claimed = claimed.and_then(|name| self.by_name.get(name)).copied();
        if let Some(slot) = claimed
            && self.refusal(id, &rules, slot, Some(&pod.uid)).is_none()
        {
            return Some(slot);
        }
        if self.claim_refusal(self.class(id)).is_some() {
            return None;
        }
        if let Some(names) = &self.class(id).needs.pinned {
            let slots = names
                .iter()
                .filter_map(|name| self.by_name.get(name.as_str()));
            return self.best_of_first(id, &rules, slots.copied());
        }
        let asked = self.asked;
        let class = self.class_mut(id);
        let is_recent = class.asked + RECENT >= asked;
        class.uses = if is_recent { class.uses + 1 } else { 1 };
        class.asked = asked;
        let is_rare = class.index.is_none() && class.uses < FREQUENT;
        if is_rare && let Some(slot) = self.sample(pod, id, &rules) {
            return Some(slot);
        }
        self.with_index(id, &rules, |index, snapshot| index.choose(snapshot))
    }

    /// The best of the first nodes that can take the pod, from where its uid says. `None`: no node can.
    fn sample(&self, pod: &PodFacts, id: ClassId, rules: &Arc<Rules>) -> Option<Slot> {
        let count = self.nodes.len();
        let hash = fnv1a_64_seeded(self.seed, pod.uid.bytes());
        let start = usize::try_from(hash % u64::try_from(count.max(1)).ok()?).ok()?;
        self.best_of_first(id, rules, (start..count).chain(0..start))
    }

    /// The best of the first nodes among these that can take a pod of the class, so many as are good enough.
    fn best_of_first(
        &self,
        id: ClassId,
        rules: &Rules,
        slots: impl Iterator<Item = Slot>,
    ) -> Option<Slot> {
        let class = self.class(id);
        let mut standing = Vec::new();
        let candidates = slots.filter_map(|slot| {
            self.nodes[slot].facts.as_ref()?;
            if self.node_refusal(class, slot, None).is_some() {
                return None;
            }
            self.stand(class, rules, slot, None, &mut standing);
            Some(Candidate {
                slot,
                raw: self.judge(rules, &standing).ok()?,
                own: self.own_score(class, slot),
            })
        });
        let candidates: Vec<Candidate> = candidates.take(SAMPLE).collect();
        best(&candidates, |slot| self.tie(class, slot))
    }

    /// Does something with the index of a class, which is made, or caught up with what changed.
    pub(crate) fn with_index<T>(
        &mut self,
        id: ClassId,
        rules: &Arc<Rules>,
        with: impl FnOnce(&Index, &Self) -> T,
    ) -> T {
        let known = self.class_mut(id).index.take();
        let class = self.class(id);
        let known = known.and_then(|mut index| index.catch_up(self, class, rules).then_some(index));
        let index = match known {
            Some(index) => index,
            None => {
                let index = Box::new(Index::of(self, class, rules));
                self.make_room_for_an_index();
                index
            }
        };
        let answer = with(&index, self);
        self.class_mut(id).index = Some(index);
        answer
    }

    /// Lets the index go that was not asked for longest, when there are as many as may be.
    fn make_room_for_an_index(&mut self) {
        let with = |class: &&mut Class| class.index.is_some();
        if self.classes_mut().filter(with).count() < INDEXES_MAX {
            return;
        }
        let with = self.classes_mut().filter(with);
        if let Some(oldest) = with.min_by_key(|class| class.asked) {
            oldest.index = None;
        }
    }

    /// What keeps pods of the class from the node, if anything. `but`: whose own claim does not count.
    pub(crate) fn refusal(
        &self,
        id: ClassId,
        rules: &Rules,
        slot: Slot,
        but: Option<&str>,
    ) -> Option<Refused> {
        let class = self.class(id);
        let refused = self.fit_refusal(class, slot, but);
        let refused = refused.or_else(|| self.claim_refusal(class));
        let refused = refused.or_else(|| self.place_refusal(class, slot));
        refused.or_else(|| {
            let standing = self.standing(class, rules, slot, but);
            self.judge(rules, &standing)
                .err()
                .map(|reason| vec![reason])
        })
    }

    pub(crate) fn judge(&self, rules: &Rules, standing: &[i64]) -> Result<Raw, Reason> {
        rules.judge(standing, &self.counters, &self.topologies)
    }

    /// What a node is to pods of the class, beyond its own state. See [`crate::rules`].
    fn standing(&self, class: &Class, rules: &Rules, slot: Slot, but: Option<&str>) -> Vec<i64> {
        let mut standing = Vec::new();
        self.stand(class, rules, slot, but, &mut standing);
        standing
    }

    /// As [`Snapshot::standing`], in place of what was there.
    pub(crate) fn stand(
        &self,
        class: &Class,
        rules: &Rules,
        slot: Slot,
        but: Option<&str>,
        standing: &mut Vec<i64>,
    ) {
        standing.clear();
        standing.resize(rules.width.max(FIXED), NOWHERE);
        let facts = self.nodes[slot].facts.as_ref();
        standing[TAINTS] = facts.map_or(0, |facts| soft_taints(&class.needs, facts));
        standing[PREFERENCE] = facts.map_or(0, |facts| preference(&class.needs, facts));
        let here = rules.inclined_here.iter().map(|(id, weight)| {
            let counter = &self.counters[*id];
            let domain = self.topologies.domain_in(counter.scope, slot);
            domain.map_or(0, |domain| counter.count(domain)) * weight
        });
        standing[INCLINATION] = here.sum();
        for number in &rules.numbers {
            let Place {
                counter: id,
                at,
                is_count,
            } = number.place;
            let counter = &self.counters[id];
            let Some(domain) = self.topologies.domain_in(counter.scope, slot) else {
                continue;
            };
            standing[at] = if is_count {
                let mut count = counter.count(domain);
                if number.with_claims {
                    count += self.claims(class.needs.priority, slot, id, but);
                }
                if number.is_flag { count.min(1) } else { count }
            } else {
                i64::try_from(domain).unwrap_or(NOWHERE)
            };
        }
    }

    /// What pods that claim room on the node would add to a counter.
    fn claims(&self, priority: i32, slot: Slot, id: CounterId, but: Option<&str>) -> i64 {
        let amounts = self.nominees(priority, slot, but).map(|class| {
            let mut counted = self.class(class).counted.iter();
            counted
                .find(|(counter, _)| *counter == id)
                .map_or(0, |(_, amount)| *amount)
        });
        amounts.sum()
    }

    /// Why no node takes the pod.
    fn why(&mut self, pod: &PodFacts, id: ClassId) -> Why {
        let mut why = Why {
            nodes: self.by_name.len(),
            ..Why::default()
        };
        let rules = self.rules(id);
        if self.claim_refusal(self.class(id)).is_some() {
            // What an index knows of nodes is not this.
            for slot in self.by_name.values() {
                let refused = self.refusal(id, &rules, *slot, Some(&pod.uid));
                why.add(&refused.unwrap_or_default(), 1);
            }
            return why;
        }
        let Some(names) = self.class(id).needs.pinned.clone() else {
            let all = self.with_index(id, &rules, |index, snapshot| index.refusals(snapshot));
            for (reasons, nodes) in all {
                why.add(&reasons, nodes);
            }
            return why;
        };
        let mut others = why.nodes;
        for name in names {
            let Some(slot) = self.by_name.get(name.as_str()).copied() else {
                continue;
            };
            let refused = self.refusal(id, &rules, slot, Some(&pod.uid));
            why.add(&refused.unwrap_or_default(), 1);
            others -= 1;
        }
        if others > 0 {
            why.add(&[Reason::NotNamed], others);
        }
        why
    }

    /// What pods of the class ask of others. Cost: nothing, but for the first of them and when what the rules rest on changed.
    pub(crate) fn rules(&mut self, id: ClassId) -> Arc<Rules> {
        if let Some(rules) = &self.class(id).rules
            && rules
                .services
                .is_none_or(|version| version == self.services_version)
        {
            return Arc::clone(rules);
        }
        let needs = Arc::clone(&self.class(id).needs);
        let hard = self.open_spread(id, &needs, true);
        let (soft, is_default) = if needs.spread.is_empty() {
            (self.open_default_spread(id, &needs), true)
        } else {
            (self.open_spread(id, &needs, false), false)
        };
        let everywhere = Eligibility::default();
        let mut open = |terms: Vec<crate::term::Term>, key: &str| {
            self.open(What::Spoken(terms), key, &everywhere)
        };
        let near = needs.near.iter();
        let near: Vec<CounterId> = near
            .map(|term| open(needs.near.clone(), &term.topology_key))
            .collect();
        let apart = needs.apart.iter();
        let apart: Vec<CounterId> = apart
            .map(|term| open(vec![term.clone()], &term.topology_key))
            .collect();
        let inclined = needs.inclined.iter();
        let mut inclined: Vec<(CounterId, i64)> = inclined
            .map(|(term, weight)| (open(vec![term.clone()], &term.topology_key), *weight))
            .collect();
        let class = self.class(id);
        let met = |wanted: Role| {
            let met = class.met.iter().filter(move |(_, role)| *role == wanted);
            met.map(|(counter, _)| *counter)
        };
        // Required affinity counts in scores as the least preference does.
        inclined.extend(met(Role::Near).map(|counter| (counter, 1)));
        inclined.extend(met(Role::Inclined).map(|counter| (counter, 1)));
        let avoided: Vec<CounterId> = met(Role::Apart).collect();
        let (namespace, labels) = (&class.namespace, &needs.labels);
        let mut own = needs.near.iter();
        let is_of_its_kind = !needs.near.is_empty()
            && own.all(|term| term.speaks_of(namespace, labels, &self.namespaces));
        let counts_itself = |spread: &Spread| i64::from(spread.selector.matches(labels));

        let mut rules = Rules {
            width: FIXED,
            needs_all_keys: !is_default,
            is_of_its_kind,
            services: is_default.then_some(self.services_version),
            ..Rules::default()
        };
        let mut domains: BTreeMap<TopologyId, usize> = BTreeMap::new();
        let mut place = |rules: &mut Rules, counter: CounterId, is_flag, with_claims| {
            let scope = self.counters[counter].scope;
            let is_count = self.topologies.is_fine(scope);
            let topology = self.topologies.scope(scope).topology;
            let known = (!is_count).then(|| domains.get(&topology)).flatten();
            let at = known.copied().unwrap_or(rules.width);
            if at == rules.width {
                rules.width += 1;
                if !is_count {
                    domains.insert(topology, at);
                }
            }
            let place = Place {
                counter,
                at,
                is_count,
            };
            rules.numbers.push(Number {
                place,
                is_flag,
                with_claims,
            });
            place
        };
        for (counter, spread) in hard {
            let rule = Hard {
                place: place(&mut rules, counter, false, true),
                max_skew: spread.max_skew,
                min_domains: spread.min_domains,
                own: counts_itself(&spread),
            };
            rules.hard.push(rule);
        }
        for (counter, spread) in soft {
            let rule = Soft {
                place: place(&mut rules, counter, false, false),
                max_skew: spread.max_skew,
            };
            rules.soft.push(rule);
        }
        for counter in near {
            let near = place(&mut rules, counter, true, false);
            rules.near.push(near);
        }
        for counter in apart {
            let apart = place(&mut rules, counter, true, true);
            rules.apart.push(apart);
        }
        for counter in avoided {
            let avoided = place(&mut rules, counter, true, true);
            rules.avoided.push(avoided);
        }
        for (counter, weight) in inclined {
            if self.topologies.is_fine(self.counters[counter].scope) {
                rules.inclined_here.push((counter, weight));
            } else {
                let inclined = place(&mut rules, counter, false, false);
                rules.inclined.push((inclined, weight));
            }
        }
        let rules = Arc::new(rules);
        let class = self.class_mut(id);
        // An index of the same rules stays.
        if let Some(known) = &class.rules
            && **known == *rules
        {
            return Arc::clone(known);
        }
        class.rules = Some(Arc::clone(&rules));
        rules
    }

    /// Counters of the pod's own constraints, hard or soft.
    fn open_spread(
        &mut self,
        id: ClassId,
        needs: &PodNeeds,
        is_hard: bool,
    ) -> Vec<(CounterId, Spread)> {
        let namespace = Arc::clone(&self.class(id).namespace);
        let constraints = || {
            needs
                .spread
                .iter()
                .filter(|spread| spread.is_hard == is_hard)
        };
        let keys: Vec<String> = constraints()
            .map(|spread| spread.topology_key.clone())
            .collect();
        let opened = constraints().map(|spread| {
            let mut rule = eligibility(needs, spread.honors_affinity);
            rule.tolerations = spread.honors_taints.then(|| needs.tolerations.clone());
            rule.keys.clone_from(&keys);
            let what = What::Selected(Arc::clone(&namespace), spread.selector.clone());
            (self.open(what, &spread.topology_key, &rule), spread.clone())
        });
        opened.collect()
    }

    /// Counters of pods that should not share nodes and zones: those of one controller that are behind the same services.
    fn open_default_spread(&mut self, id: ClassId, needs: &PodNeeds) -> Vec<(CounterId, Spread)> {
        let class = self.class(id);
        let (namespace, controller) = (Arc::clone(&class.namespace), class.controller.clone());
        let from = (Arc::clone(&namespace), String::new());
        let services = self.services.range(from..);
        let services = services.take_while(|((here, _), _)| *here == namespace);
        let services: Vec<_> = services
            .filter(|(_, selector)| selector.matches(&needs.labels))
            .map(|(_, selector)| selector.clone())
            .collect();
        if controller.is_none() && services.is_empty() {
            return Vec::new();
        }
        let rule = eligibility(needs, true);
        let opened = DEFAULT_SPREAD.map(|(key, max_skew)| {
            let what = What::Kin(Arc::clone(&namespace), controller.clone(), services.clone());
            (self.open(what, key, &rule), Spread::soft(key, max_skew))
        });
        opened.into()
    }
}

fn eligibility(needs: &PodNeeds, honors_affinity: bool) -> Eligibility {
    if honors_affinity {
        Eligibility {
            node_selector: needs.node_selector.clone(),
            required: needs.required.clone(),
            ..Eligibility::default()
        }
    } else {
        Eligibility::default()
    }
}
