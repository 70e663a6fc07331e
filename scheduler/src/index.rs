//! The nodes that could take pods of one class, in order: what makes the next pod of the class cost no look at every node.
//!
//! Nodes of one standing ([`crate::rules`]) are together, best first. A change of a node moves that node; what changes for whole
//! domains changes no node, as it is looked up when standings are judged. So a pod costs the standings that there are, and the nodes
//! that changed since the last one like it.
//!
//! Invariants: an index that is caught up holds each node that is there once, by what a look at the node would say; with one, and
//! with a look at all nodes, the same node is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::class::Class;
use crate::filter::{Reason, Refused, is_about_pods};
use crate::pool::Pool;
use crate::rules::{Raw, Rules};
use crate::score::Scale;
use crate::snapshot::Snapshot;
use crate::topology::Slot;

/// Where a node is.
#[derive(Debug, Clone, Default)]
enum At {
    #[default]
    Absent,
    Refused(Arc<Refused>),
    /// With its standing.
    Open(Arc<[i64]>, Rank),
}

/// A node among those of its standing; the last one is the best.
type Rank = (i64, u64, Slot);

#[derive(Debug, Clone)]
pub(crate) struct Index {
    rules: Arc<Rules>,
    /// How far in the snapshot's changes it is caught up.
    position: u64,
    at: Vec<At>,
    open: BTreeMap<Arc<[i64]>, BTreeSet<Rank>>,
    refused: BTreeMap<Arc<Refused>, usize>,
    /// Images that score were as they are known by this number.
    images: Option<u64>,
    /// Nodes that less urgent pods could leave for one of the class.
    pub pool: Pool,
}

/// A node with what is said for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub slot: Slot,
    pub raw: Raw,
    pub own: i64,
}

/// The best of several nodes; `tie` tells equals apart.
pub(crate) fn best(candidates: &[Candidate], tie: impl Fn(Slot) -> u64) -> Option<Slot> {
    let mut scale = Scale::default();
    for candidate in candidates {
        scale.take(&candidate.raw);
    }
    let score = |candidate: &Candidate| scale.score(&candidate.raw) + candidate.own;
    let most = candidates.iter().map(score).max()?;
    let equals = candidates
        .iter()
        .filter(|candidate| score(candidate) == most);
    let equals = equals.map(|candidate| candidate.slot);
    equals.max_by_key(|slot| (tie(*slot), *slot))
}

impl Index {
    /// With every node of the snapshot.
    pub fn of(snapshot: &Snapshot, class: &Class, rules: &Arc<Rules>) -> Self {
        let mut index = Self {
            rules: Arc::clone(rules),
            position: snapshot.changes.end(),
            at: Vec::new(),
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
            images: snapshot.images_of(class),
            pool: Pool::default(),
        };
        let mut standing = Vec::new();
        for slot in 0..snapshot.nodes.len() {
            index.look(snapshot, class, slot, &mut standing);
        }
        index
    }

    /// Takes what changed since. False: too much did, or all.
    pub fn catch_up(&mut self, snapshot: &Snapshot, class: &Class, rules: &Arc<Rules>) -> bool {
        if !Arc::ptr_eq(rules, &self.rules) || self.images != snapshot.images_of(class) {
            return false;
        }
        let Some(changes) = snapshot.changes.since(self.position) else {
            return false;
        };
        if changes.len() > snapshot.nodes.len() {
            return false;
        }
        let mut standing = Vec::new();
        for changed in changes {
            match self.at.get(changed.slot) {
                // Nothing that is counted elsewhere ends what the node itself has against them.
                Some(At::Absent | At::Refused(_)) if changed.is_far => {}
                Some(At::Open(_, rank)) if changed.is_far => {
                    let rank = *rank;
                    snapshot.stand(class, &self.rules, changed.slot, None, &mut standing);
                    self.put_open(changed.slot, &standing, rank);
                }
                _ => self.look(snapshot, class, changed.slot, &mut standing),
            }
        }
        self.position = snapshot.changes.end();
        true
    }

    /// Puts the node where it belongs now. `standing`: room to work in.
    fn look(&mut self, snapshot: &Snapshot, class: &Class, slot: Slot, standing: &mut Vec<i64>) {
        if self.at.len() <= slot {
            self.at.resize(slot + 1, At::Absent);
        }
        if snapshot.nodes[slot].facts.is_none() {
            self.take_out(slot);
        } else if let Some(refused) = snapshot.node_refusal(class, slot, None) {
            self.take_out(slot);
            let refused = self.shared(refused);
            *self.refused.entry(Arc::clone(&refused)).or_default() += 1;
            self.at[slot] = At::Refused(refused);
        } else {
            snapshot.stand(class, &self.rules, slot, None, standing);
            let own = snapshot.own_score(class, slot);
            let rank = (own, snapshot.tie(class, slot), slot);
            self.put_open(slot, standing, rank);
        }
    }

    fn put_open(&mut self, slot: Slot, standing: &[i64], rank: Rank) {
        if let At::Open(before, was) = &self.at[slot]
            && **before == *standing
            && *was == rank
        {
            return;
        }
        self.take_out(slot);
        let known = self.open.get_key_value(standing);
        let standing = known.map_or_else(|| standing.into(), |(known, _)| Arc::clone(known));
        let ranks = self.open.entry(Arc::clone(&standing)).or_default();
        ranks.insert(rank);
        self.at[slot] = At::Open(standing, rank);
    }

    fn take_out(&mut self, slot: Slot) {
        match std::mem::take(&mut self.at[slot]) {
            At::Open(standing, rank) => {
                if let Some(ranks) = self.open.get_mut(&standing) {
                    ranks.remove(&rank);
                    if ranks.is_empty() {
                        self.open.remove(&standing);
                    }
                }
            }
            At::Refused(refused) => {
                if let Some(nodes) = self.refused.get_mut(&refused) {
                    *nodes -= 1;
                    if *nodes == 0 {
                        self.refused.remove(&refused);
                    }
                }
            }
            At::Absent => {}
        }
    }

    /// Amounts that differ from node to node would make each refusal one of its own.
    fn shared(&self, refused: Refused) -> Arc<Refused> {
        let refused: Refused = refused.into_iter().map(Reason::without_amounts).collect();
        let known = self.refused.get_key_value(&refused);
        known.map_or_else(|| Arc::new(refused), |(known, _)| Arc::clone(known))
    }

    /// The best node for a pod of the class. Cost: the standings that there are.
    pub fn choose(&self, snapshot: &Snapshot) -> Option<Slot> {
        let judged = self.open.iter().filter_map(|(standing, ranks)| {
            let raw = snapshot.judge(&self.rules, standing).ok()?;
            let (own, _, slot) = *ranks.last()?;
            Some(Candidate { slot, raw, own })
        });
        let judged: Vec<Candidate> = judged.collect();
        let tie = |slot: Slot| match self.at.get(slot) {
            Some(At::Open(_, (_, tie, _))) => *tie,
            _ => 0,
        };
        best(&judged, tie)
    }

    /// How many nodes refuse for what, when none is left.
    pub fn refusals(&self, snapshot: &Snapshot) -> BTreeMap<Refused, usize> {
        let alone = self.refused.iter();
        let mut all: BTreeMap<Refused, usize> = alone
            .map(|(refused, nodes)| ((**refused).clone(), *nodes))
            .collect();
        for (standing, ranks) in &self.open {
            if let Err(reason) = snapshot.judge(&self.rules, standing) {
                *all.entry(vec![reason]).or_default() += ranks.len();
            }
        }
        all
    }

    /// Whether fewer pods on the node could make it take a pod of the class.
    pub fn is_about_pods(&self, snapshot: &Snapshot, slot: Slot) -> bool {
        match self.at.get(slot) {
            Some(At::Refused(refused)) => is_about_pods(refused),
            Some(At::Open(standing, _)) => {
                let judged = snapshot.judge(&self.rules, standing);
                judged.is_err_and(|reason| reason.is_about_pods())
            }
            Some(At::Absent) | None => false,
        }
    }
}
