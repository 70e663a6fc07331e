//! What the claims of a pod say about where it may go: to the nodes that its volumes are on.
//!
//! A claim whose class waits for a consumer says nothing: its volume is made where the pod goes. One that is for a pod alone
//! (`ReadWriteOncePod`) keeps all others from every node. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm};
use serde_json::Value;
use weft_controllers::persistent_volume::{self, Brought, Claim, Class, PodVolumes, Volume};
use weft_controllers::{Cached, Key, Reads, View};
use weft_kinds::lens::text;
use weft_scheduler::{Hints, PodFacts};

/// What is read for it.
pub(super) fn reads(reads: &mut Reads) {
    persistent_volume::read_users(reads);
    reads.kind::<Claim>().kind::<Volume>().kind::<Class>();
}

/// Whether a pod uses claims at all.
pub(super) fn has_claims(view: &View, key: &Key) -> bool {
    let pod = view.get::<PodVolumes>(key);
    pod.is_some_and(|row| row.body.0.is_some())
}

/// Why a pod cannot go anywhere yet, in Kubernetes' words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// By what its claims are.
    ByClaim(String),
    /// By another pod, which uses a claim that is for one alone.
    ByPod,
}

impl Held {
    /// As an event tells it, in a cluster of so many nodes.
    pub(super) fn told(&self, nodes: usize) -> String {
        match self {
            Self::ByClaim(why) => format!("0/{nodes} nodes are available: {why}."),
            Self::ByPod => format!(
                "0/{nodes} nodes are available: {nodes} node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
            ),
        }
    }

    /// What could end it.
    pub(super) fn ends_with(&self) -> Hints {
        match self {
            Self::ByClaim(_) => Hints::VOLUMES,
            Self::ByPod => Hints::VOLUMES | Hints::LESS,
        }
    }
}

/// Claims that are for one pod alone and that a pod which is being placed uses.
pub(super) type Taken = BTreeSet<Key>;

/// The pod with what its volumes ask of nodes. `has_node`: whether the pod of a uid has got one, if perhaps a moment ago.
///
/// # Errors
/// [`Held`]; a claim of its own is in `taken` only if it is not.
pub(super) fn constrain(
    view: &View,
    key: &Key,
    pod: PodFacts,
    has_node: impl Fn(&str) -> bool,
    taken: &mut Taken,
) -> Result<PodFacts, Held> {
    let held = |why: String| Held::ByClaim(why);
    let Some(uses) = view
        .get::<PodVolumes>(key)
        .and_then(|row| row.body.0.as_deref())
    else {
        return Ok(pod);
    };
    let mut required = pod.needs.required.clone();
    let mut alone = Vec::new();
    for (name, brought) in &uses.claims {
        let at = key.sibling(name);
        let Some(claim) = view.get::<Claim>(&at) else {
            return Err(held(match brought {
                Brought::No => format!("persistentvolumeclaim \"{name}\" not found"),
                Brought::Along(_) => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                ),
            }));
        };
        if claim.meta.is_deleting() {
            let why = format!("persistentvolumeclaim \"{name}\" is being deleted");
            return Err(held(why));
        }
        if persistent_volume::is_for_one_pod(claim) {
            let mut others = persistent_volume::users(view, &at).filter(|(other, uses)| {
                let is_bound = !uses.node.is_empty();
                !uses.is_finished
                    && other.meta.uid != pod.uid
                    && (is_bound || has_node(&other.meta.uid))
            });
            if others.next().is_some() || taken.contains(&at) {
                return Err(Held::ByPod);
            }
            alone.push(at.clone());
        }
        match selector(view, claim).map_err(held)? {
            None => {}
            Some(selector) => required = Some(both(required, selector)),
        }
    }
    taken.extend(alone);
    if required == pod.needs.required {
        return Ok(pod);
    }
    Ok(PodFacts {
        needs: pod.needs.requiring(required).into(),
        ..pod
    })
}

/// Which nodes the volume of a claim is on.
fn selector(view: &View, claim: &Cached<Claim>) -> Result<Option<NodeSelector>, String> {
    let named = text(&claim.body.spec, "/volumeName");
    if named.is_empty() {
        let class = Key::new("", text(&claim.body.spec, "/storageClassName"));
        let class = view.get::<Class>(&class);
        return match class.is_some_and(|class| class.body.waits) {
            true => Ok(None),
            false => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        };
    }
    let Some(volume) = view.get::<Volume>(&Key::new("", named)) else {
        return Err(format!("persistentvolume \"{named}\" not found"));
    };
    let required = &volume.body.spec["nodeAffinity"]["required"];
    if *required == Value::Null {
        return Ok(None);
    }
    let read = serde_json::from_value(required.clone());
    read.map(Some)
        .map_err(|error| format!("persistentvolume \"{named}\" cannot be read: {error}"))
}

/// What both ask for: each term of the one with each of the other.
fn both(first: Option<NodeSelector>, second: NodeSelector) -> NodeSelector {
    let Some(first) = first else { return second };
    let joined = |a: &NodeSelectorTerm, b: &NodeSelectorTerm| NodeSelectorTerm {
        match_expressions: chained(&a.match_expressions, &b.match_expressions),
        match_fields: chained(&a.match_fields, &b.match_fields),
    };
    let terms = first.node_selector_terms.iter().flat_map(|a| {
        let others = second.node_selector_terms.iter();
        others.map(move |b| joined(a, b))
    });
    NodeSelector {
        node_selector_terms: terms.collect(),
    }
}

fn chained<T: Clone>(a: &Option<Vec<T>>, b: &Option<Vec<T>>) -> Option<Vec<T>> {
    let all: Vec<T> = a.iter().chain(b).flatten().cloned().collect();
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_has_to_be_what_pod_and_volume_ask_for() {
        let selector = |values: &[&str]| -> NodeSelector {
            let terms: Vec<Value> = values
                .iter()
                .map(|value| json!({"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}))
                .collect();
            serde_json::from_value(json!({"nodeSelectorTerms": terms})).expect("a selector")
        };
        let own = selector(&["a", "b"]);
        assert_eq!(both(None, own.clone()), own);
        let found = both(Some(own), selector(&["c"]));
        let terms: Vec<String> = found
            .node_selector_terms
            .iter()
            .map(|term| {
                let all = term.match_expressions.iter().flatten();
                let values = all.flat_map(|one| one.values.clone().unwrap_or_default());
                values.collect::<Vec<_>>().join("+")
            })
            .collect();
        assert_eq!(terms, ["a+c", "b+c"]);
    }
}
