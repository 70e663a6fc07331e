//! Required pod affinity and anti-affinity: near which pods a pod must stand, and from which it must keep away.
//!
//! Anti-affinity works both ways: a node is refused as well when a pod in its domain wants to keep away from the new one.
//! A pod whose affinity only its own like could meet may stand anywhere as long as there is none of its like.
//!
//! A namespace selector is matched against the name label that every namespace carries
//! (`kubernetes.io/metadata.name`); other labels of namespaces are not known here. Preferred terms are not scored.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;
use weft_api::annotation;
use weft_api::selector::LabelSelector;

use crate::filter::Reason;
use crate::reserve::Working;
use crate::snapshot::{NodeFacts, PodFacts};

/// A topology key with one of its values.
type Domain = (String, String);

/// Pods that a term speaks of, and the topology in which it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    topology_key: String,
    selector: LabelSelector,
    namespaces: BTreeSet<String>,
    /// Namespaces besides the named ones.
    namespace_selector: Option<LabelSelector>,
}

impl Term {
    /// The terms of a pod in `namespace`. A selector that does not parse matches none.
    pub(crate) fn all(terms: Option<&Vec<PodAffinityTerm>>, namespace: &str) -> Vec<Self> {
        let read = |selector| {
            let value = serde_json::to_value(selector).ok()?;
            LabelSelector::from_object(&value).ok()
        };
        let terms = terms.into_iter().flatten().map(|term| {
            let mut namespaces: BTreeSet<String> =
                term.namespaces.iter().flatten().cloned().collect();
            if namespaces.is_empty() && term.namespace_selector.is_none() {
                namespaces.insert(namespace.to_owned());
            }
            Self {
                topology_key: term.topology_key.clone(),
                selector: term
                    .label_selector
                    .as_ref()
                    .and_then(read)
                    .unwrap_or_else(LabelSelector::nothing),
                namespaces,
                namespace_selector: term.namespace_selector.as_ref().and_then(read),
            }
        });
        terms.collect()
    }

    fn speaks_of(&self, pod: &PodFacts) -> bool {
        let there = self.namespaces.contains(&*pod.namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let name = pod.namespace.to_string();
                selector.matches(&BTreeMap::from([(
                    annotation::NAMESPACE_NAME.to_owned(),
                    name,
                )]))
            });
        there && self.selector.matches(&pod.labels)
    }

    fn domain(&self, node: &NodeFacts) -> Option<Domain> {
        let value = node.labels.get(&self.topology_key)?;
        Some((self.topology_key.clone(), value.clone()))
    }
}

/// Whether the pod wants to stand near the other one.
fn wants(pod: &PodFacts, other: &PodFacts) -> bool {
    pod.near.iter().all(|term| term.speaks_of(other))
}

/// Where pods like one may and may not stand, as the pods of the cluster lie.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// Domains that hold a pod of which all of the pod's terms speak.
    near: BTreeSet<Domain>,
    /// There is no such pod, but this one is of the kind that its terms speak of.
    first_of_its_kind: bool,
    /// Domains with pods that this one keeps away from.
    avoided: BTreeSet<Domain>,
    /// Domains with pods that keep away from this one.
    avoiding: BTreeSet<Domain>,
}

impl Affinity {
    pub fn of(pod: &PodFacts, working: &Working<'_>) -> Self {
        let mut affinity = Self {
            first_of_its_kind: !pod.near.is_empty() && wants(pod, pod),
            ..Self::default()
        };
        if !pod.near.is_empty() || !pod.apart.is_empty() {
            for (other, node) in working.everyone() {
                affinity.seek(pod, other, node);
            }
        }
        for (other, node) in working.everyone_apart() {
            affinity.shun(pod, other, node);
        }
        affinity
    }

    /// Takes into account that `other` stands on `node` as well.
    pub fn meet(&mut self, pod: &PodFacts, other: &PodFacts, node: &NodeFacts) {
        self.seek(pod, other, node);
        self.shun(pod, other, node);
    }

    /// What the pod makes of the other one.
    fn seek(&mut self, pod: &PodFacts, other: &PodFacts, node: &NodeFacts) {
        if !pod.near.is_empty() && wants(pod, other) {
            let domains = pod.near.iter().filter_map(|term| term.domain(node));
            self.near.extend(domains);
            self.first_of_its_kind &= self.near.is_empty();
        }
        let apart = pod.apart.iter().filter(|term| term.speaks_of(other));
        let apart = apart.filter_map(|term| term.domain(node));
        self.avoided.extend(apart);
    }

    /// What the other one makes of the pod.
    fn shun(&mut self, pod: &PodFacts, other: &PodFacts, node: &NodeFacts) {
        let apart = other.apart.iter().filter(|term| term.speaks_of(pod));
        let apart = apart.filter_map(|term| term.domain(node));
        self.avoiding.extend(apart);
    }

    /// # Errors
    /// Why the pod may not stand on this node.
    pub fn allows(&self, pod: &PodFacts, node: &NodeFacts) -> Result<(), Reason> {
        let is_near = pod.near.iter().all(|term| {
            term.domain(node)
                .is_some_and(|domain| self.first_of_its_kind || self.near.contains(&domain))
        });
        if !is_near {
            return Err(Reason::NotNear);
        }
        let avoids = |term: &Term| {
            term.domain(node)
                .is_some_and(|domain| self.avoided.contains(&domain))
        };
        if pod.apart.iter().any(avoids) {
            return Err(Reason::NotApart);
        }
        let avoided = self
            .avoiding
            .iter()
            .any(|(key, value)| node.labels.get(key) == Some(value));
        if avoided {
            return Err(Reason::Avoided);
        }
        Ok(())
    }
}
