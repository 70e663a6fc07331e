//! Placement: choose a node for every pending pod, or say why there is none.
//!
//! Reads a [`Snapshot`], returns a [`Plan`]. No clock, no I/O, and no chance but the seed that is handed in: equal input,
//! equal plan. Flow: `pending → filter → score → reserve in the working copy → next pod`.
//!
//! Invariants: no plan over-commits a node; a pod is refused only if every node refuses it, and then carries one
//! [`Reason`] list per node; a pod that already has a node, is ending or is gated is not placed.
//! Left to others: writing the binding and telling the refusals (`weft::control_loop`).

mod affinity;
mod explain;
mod filter;
mod reserve;
mod score;
mod snapshot;

use std::sync::Arc;

pub use explain::Refusal;
pub use filter::Reason;
pub use snapshot::{NodeFacts, PodFacts, PodNeeds, Resources, Snapshot};

use reserve::Working;

/// What one round of placement decided, in the order the pods were considered.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    pub placements: Vec<Placement>,
    pub refusals: Vec<Refusal>,
}

/// This pod goes to that node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub node: Arc<str>,
}

/// Places `pending`, in the order given, on the nodes of `snapshot`.
///
/// Earlier pods take their room before later ones are looked at; `seed` only decides between nodes that are equally
/// good. Cost: pods times nodes, plus one pass over the pods that have a node for each kind of pending pod that has rules about others
/// (spreading, affinity), and one over those that keep away from others for each kind.
pub fn plan<'a>(
    snapshot: &'a Snapshot,
    pending: impl IntoIterator<Item = &'a PodFacts>,
    seed: u64,
) -> Plan {
    let mut working = Working::of(snapshot);
    let mut plan = Plan::default();
    // Of the last pod that no node takes: others like it hear the same while nothing was placed since.
    let mut last_refused = None;
    for pod in pending {
        let at = working.find_standing(pod);
        if let Some((like, nodes)) = &last_refused
            && (*like, None) == (at, pod.node.as_ref())
        {
            plan.refusals.push(Refusal::new(pod, Arc::clone(nodes)));
            continue;
        }
        let default_counts = working.default_counts(pod);
        let standing = working.standing(at);
        let refused = |index| filter::refusal(pod, &working, index, standing);
        let fitting: Vec<usize> = (0..working.len())
            .filter(|index| refused(*index).is_none())
            .collect();
        let (constraints, counts) = (&standing.constraints, &default_counts);
        match score::best_node(pod, &working, &fitting, constraints, counts, seed) {
            Some(index) => {
                plan.placements.push(Placement {
                    namespace: Arc::clone(&pod.namespace),
                    name: Arc::clone(&pod.name),
                    uid: Arc::clone(&pod.uid),
                    node: Arc::clone(&working.node(index).name),
                });
                working.reserve(pod, index);
                last_refused = None;
            }
            // Only now that somebody asks is each node's refusal put into words.
            None => {
                let nodes = (0..working.len()).map(|index| {
                    let reasons = refused(index).map(|refused| refused.reasons());
                    (
                        Arc::clone(&working.node(index).name),
                        reasons.unwrap_or_default(),
                    )
                });
                let nodes: Arc<[_]> = nodes.collect();
                if pod.node.is_none() {
                    last_refused = Some((at, Arc::clone(&nodes)));
                }
                plan.refusals.push(Refusal::new(pod, nodes));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests;
