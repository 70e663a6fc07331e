//! Refusals as text: one sentence in Kubernetes' words, counting nodes by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::filter::Reason;
use crate::snapshot::PodFacts;

/// A pod that no node takes, with each node's reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// Node name and why it refused; empty when there are no nodes. Shared by pods that are refused for the same.
    pub nodes: Arc<[(Arc<str>, Vec<Reason>)]>,
}

impl Refusal {
    pub(crate) fn new(pod: &PodFacts, nodes: Arc<[(Arc<str>, Vec<Reason>)]>) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            nodes,
        }
    }

    /// Of a pod that could not be judged at all.
    pub fn without_reason(pod: &PodFacts) -> Self {
        Self::new(pod, Arc::default())
    }
}

impl fmt::Display for Refusal {
    /// `0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient cpu.`, sorted as Kubernetes does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&Reason, usize> = BTreeMap::new();
        for reason in self.nodes.iter().flat_map(|(_, reasons)| reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let mut parts: Vec<String> = counts
            .into_iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes.len(),
            parts.join(", ")
        )
    }
}
