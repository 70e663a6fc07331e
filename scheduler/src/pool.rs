//! Nodes that less urgent pods could leave for one of a class, as they were looked at last.
//!
//! Pods that preempt come in numbers, and each changes one node. So the next of its class looks at the nodes that changed since, and for
//! one more in place of the one that was taken, instead of at a hundred.
//!
//! Invariants: a node in the pool that is caught up is what a look at it would say; a pool that is whole has every node that helps. What
//! a node is worth must hang on nothing but itself: classes whose rules are about others have no pool ([`crate::rules::Rules::are_local`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use weft_api::hash::fnv1a_64_seeded;

use crate::class::ClassId;
use crate::pod::PodFacts;
use crate::preempt::Candidate;
use crate::rules::Rules;
use crate::snapshot::Snapshot;
use crate::topology::Slot;

/// Nodes where room could be made, of which the best is taken: Kubernetes' least.
pub(crate) const CANDIDATES: usize = 100;

#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    candidates: BTreeMap<Slot, Candidate>,
    /// How far in the snapshot's changes it is caught up; `None`: it knows nothing yet.
    position: Option<u64>,
    /// What budgets allowed was as it is known by this number.
    budgets: u64,
    /// The search goes on after this node, by name, for so many.
    after: Option<Arc<str>>,
    left: usize,
    /// A node changed that the search may have passed.
    has_missed: bool,
    is_whole: bool,
}

impl Pool {
    /// Enough to choose from. Budgets are broken only if nothing else helps anywhere.
    fn suffices(&self) -> bool {
        let mut candidates = self.candidates.values();
        self.candidates.len() >= CANDIDATES
            && candidates.any(|candidate| candidate.violations() == 0)
    }
}

impl Snapshot {
    /// The node where the least is lost for a pod of the class, which has an index; it is taken out of the class's pool.
    pub(crate) fn best_of_pool(
        &mut self,
        pod: &PodFacts,
        id: ClassId,
        rules: &Arc<Rules>,
    ) -> Option<Candidate> {
        let mut pool = std::mem::take(&mut self.class_mut(id).index.as_mut()?.pool);
        self.catch_up(pod, id, rules, &mut pool);
        while !pool.suffices() && !pool.is_whole {
            self.search(pod, id, rules, &mut pool);
        }
        // Looking at nodes leaves them as they were.
        pool.position = Some(self.changes.end());
        let best = self.least_loss(pod, pool.candidates.values());
        let best = best.and_then(|slot| pool.candidates.remove(&slot));
        if let Some(index) = &mut self.class_mut(id).index {
            index.pool = pool;
        }
        best
    }

    /// Looks at what changed since.
    fn catch_up(&mut self, pod: &PodFacts, id: ClassId, rules: &Arc<Rules>, pool: &mut Pool) {
        let same_budgets = pool.budgets == self.budgets_version;
        let position = pool.position.filter(|_| same_budgets);
        let changed = position.and_then(|position| self.changes.since(position));
        let Some(changed) = changed.filter(|changed| changed.len() <= self.nodes.len()) else {
            let count = u64::try_from(self.by_name.len()).unwrap_or(1).max(1);
            let start = fnv1a_64_seeded(self.seed, pod.uid.bytes()) % count;
            let start = usize::try_from(start).unwrap_or(0);
            *pool = Pool {
                budgets: self.budgets_version,
                after: self.by_name.keys().nth(start).cloned(),
                left: self.by_name.len(),
                ..Pool::default()
            };
            return;
        };
        let changed: BTreeSet<Slot> = changed.iter().map(|changed| changed.slot).collect();
        for slot in changed {
            let was_there = pool.candidates.remove(&slot).is_some();
            if !was_there && !pool.is_whole {
                pool.has_missed = true;
                continue;
            }
            let is_helpful = self.with_index(id, rules, |index, snapshot| {
                index.is_about_pods(snapshot, slot)
            });
            if is_helpful && let Ok(candidate) = self.victims_on(pod, id, rules, slot) {
                pool.candidates.insert(slot, candidate);
            }
        }
    }

    /// Looks for as many nodes as are wanting, and at them.
    fn search(&mut self, pod: &PodFacts, id: ClassId, rules: &Arc<Rules>, pool: &mut Pool) {
        if pool.left == 0 {
            pool.is_whole = !pool.has_missed;
            pool.has_missed = false;
            pool.left = self.by_name.len();
            return;
        }
        let wanted = CANDIDATES.saturating_sub(pool.candidates.len()).max(1);
        let mut found: Vec<Slot> = Vec::new();
        let mut passed = 0;
        let mut last = None;
        self.with_index(id, rules, |index, snapshot| {
            let from = pool
                .after
                .as_deref()
                .map_or(Bound::Unbounded, Bound::Excluded);
            let rest = snapshot.by_name.range::<str, _>((from, Bound::Unbounded));
            for (name, slot) in rest.chain(&snapshot.by_name).take(pool.left) {
                (passed, last) = (passed + 1, Some(Arc::clone(name)));
                if !pool.candidates.contains_key(slot) && index.is_about_pods(snapshot, *slot) {
                    found.push(*slot);
                    if found.len() == wanted {
                        break;
                    }
                }
            }
        });
        // Nodes that are gone leave less to pass than was thought.
        pool.left = if passed == 0 { 0 } else { pool.left - passed };
        pool.after = last.or_else(|| pool.after.take());
        for slot in found {
            if let Ok(candidate) = self.victims_on(pod, id, rules, slot) {
                pool.candidates.insert(slot, candidate);
            }
        }
    }
}
