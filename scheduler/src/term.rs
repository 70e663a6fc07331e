//! Which pods a rule of another pod speaks of, and in which topology.
//!
//! A term without namespaces and without a namespace selector speaks of its own pod's namespace. A selector that does not
//! parse matches none. Keys of `matchLabelKeys` hold the pod's own values, as far as it has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    PodAffinityTerm, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use serde_json::{Value, json};
use weft_api::annotation;
use weft_api::selector::LabelSelector;
use weft_api::view::LabelSelectorView;

type Labels = BTreeMap<String, String>;

/// Labels of namespaces; one that is not known has its name only.
pub(crate) type Namespaces = BTreeMap<Arc<str>, Labels>;

/// Pods that a term speaks of, and the topology in which it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    pub(crate) topology_key: String,
    selector: LabelSelector,
    namespaces: BTreeSet<String>,
    /// Namespaces besides the named ones.
    namespace_selector: Option<LabelSelector>,
}

impl Term {
    /// A term of a pod in `namespace` with these labels.
    pub(crate) fn of(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let keys = [
            ("In", term.match_label_keys.as_deref()),
            ("NotIn", term.mismatch_label_keys.as_deref()),
        ];
        Self {
            topology_key: term.topology_key.clone(),
            selector: read(term.label_selector.as_ref(), &keys, labels),
            namespaces,
            namespace_selector: term
                .namespace_selector
                .as_ref()
                .map(|selector| read(Some(selector), &[], labels)),
        }
    }

    /// A preferred term with its weight.
    pub(crate) fn weighted(
        term: &WeightedPodAffinityTerm,
        sign: i64,
        namespace: &str,
        labels: &Labels,
    ) -> (Self, i64) {
        let weight = i64::from(term.weight) * sign;
        (Self::of(&term.pod_affinity_term, namespace, labels), weight)
    }

    pub(crate) fn speaks_of(&self, namespace: &str, labels: &Labels, known: &Namespaces) -> bool {
        self.is_about(namespace, known) && self.selector.matches(labels)
    }

    fn is_about(&self, namespace: &str, known: &Namespaces) -> bool {
        if self.namespaces.contains(namespace) {
            return true;
        }
        let Some(selector) = &self.namespace_selector else {
            return false;
        };
        match known.get(namespace) {
            Some(labels) => selector.matches(labels),
            None => {
                let named = |key: &str| (key == annotation::NAMESPACE_NAME).then_some(namespace);
                selector.matches_with(named)
            }
        }
    }

    /// Whether labels of namespaces decide.
    pub(crate) fn selects_namespaces(&self) -> bool {
        let selector = self.namespace_selector.as_ref();
        selector.is_some_and(|selector| !selector.is_everything())
    }
}

/// A spread constraint of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    pub(crate) topology_key: String,
    pub(crate) selector: LabelSelector,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: usize,
    pub(crate) is_hard: bool,
    /// Nodes that the pod's selector and affinity leave out are no domains.
    pub(crate) honors_affinity: bool,
    /// Nor are those with taints that it does not bear.
    pub(crate) honors_taints: bool,
}

impl Spread {
    pub(crate) fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let keys = [("In", constraint.match_label_keys.as_deref())];
        let policy = |policy: &Option<String>, default: bool| match policy.as_deref() {
            Some("Honor") => true,
            Some("Ignore") => false,
            _ => default,
        };
        Self {
            topology_key: constraint.topology_key.clone(),
            selector: read(constraint.label_selector.as_ref(), &keys, labels),
            max_skew: i64::from(constraint.max_skew),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            is_hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honors_affinity: policy(&constraint.node_affinity_policy, true),
            honors_taints: policy(&constraint.node_taints_policy, false),
        }
    }
}

impl Spread {
    /// One that nobody wrote; who is counted is known elsewhere.
    pub(crate) fn soft(key: &str, max_skew: i64) -> Self {
        Self {
            topology_key: key.to_owned(),
            selector: LabelSelector::nothing(),
            max_skew,
            min_domains: 1,
            is_hard: false,
            honors_affinity: true,
            honors_taints: false,
        }
    }
}

/// A selector with the pod's own values of some keys required, or refused.
fn read(
    selector: Option<&LabelSelectorView>,
    keys: &[(&str, Option<&[String]>)],
    labels: &Labels,
) -> LabelSelector {
    let Some(mut value) = selector.and_then(|selector| serde_json::to_value(selector).ok()) else {
        return LabelSelector::nothing();
    };
    for (operator, keys) in keys {
        for key in keys.iter().copied().flatten() {
            let Some(own) = labels.get(key) else { continue };
            let more = json!({"key": key, "operator": operator, "values": [own]});
            match value
                .get_mut("matchExpressions")
                .and_then(Value::as_array_mut)
            {
                Some(expressions) => expressions.push(more),
                None => value["matchExpressions"] = json!([more]),
            }
        }
    }
    LabelSelector::from_object(&value).unwrap_or_else(|_| LabelSelector::nothing())
}
