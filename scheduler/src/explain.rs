//! Refusals as text: one sentence in Kubernetes' words, counting nodes by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::filter::{Hints, Reason};
use crate::pod::PodFacts;

/// In Kubernetes' words.
pub(crate) const NEVER: &str = "not eligible due to preemptionPolicy=Never.";
pub(crate) const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Why no node takes a pod. Shared by pods that are refused for the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// Nodes that there are.
    pub nodes: usize,
    /// What keeps it from all of them alike, before any was looked at; empty: nothing.
    pub held: String,
    /// How many of them give a reason, by its text.
    pub reasons: BTreeMap<String, usize>,
    /// Changes that may end it.
    pub hints: Hints,
    /// What came of trying to drive others off, as Kubernetes tells it.
    pub preemption: String,
}

impl Why {
    /// Of a pod that none of so many nodes is looked at for. `yields`: it would not drive others off anyway.
    pub fn held(nodes: usize, why: &str, yields: bool) -> Self {
        let preemption = if yields {
            NEVER.to_owned()
        } else {
            format!("0/{nodes} nodes are available: {nodes} {NOT_HELPFUL}.")
        };
        Self {
            nodes,
            held: why.to_owned(),
            preemption,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, reasons: &[Reason], nodes: usize) {
        for reason in reasons {
            *self.reasons.entry(reason.to_string()).or_default() += nodes;
            self.hints |= reason.ends_with();
        }
    }
}

/// `2 Insufficient cpu, 1 node(s) had untolerated taint(s)`, sorted as Kubernetes does: as texts.
pub(crate) fn counted(reasons: &BTreeMap<String, usize>) -> String {
    let parts = reasons.iter();
    let mut parts: Vec<String> = parts
        .map(|(reason, nodes)| format!("{nodes} {reason}"))
        .collect();
    parts.sort();
    parts.join(", ")
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if !self.held.is_empty() {
            write!(f, " {}.", self.held)?;
        } else if !self.reasons.is_empty() {
            write!(f, " {}.", counted(&self.reasons))?;
        }
        if !self.preemption.is_empty() {
            write!(f, " preemption: {}", self.preemption)?;
        }
        Ok(())
    }
}

/// A pod that no node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub why: Arc<Why>,
}

impl Refusal {
    pub(crate) fn new(pod: &PodFacts, why: Arc<Why>) -> Self {
        Self {
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
            uid: Arc::clone(&pod.uid),
            why,
        }
    }

    /// Of a pod that could not be judged at all.
    pub fn without_reason(pod: &PodFacts) -> Self {
        Self::new(pod, Arc::default())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_pod_from_all_nodes_is_told_once() {
        let why = "persistentvolumeclaim \"data\" not found";
        for (nodes, yields, told) in [
            (
                3,
                false,
                "0/3 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            ),
            (
                1,
                true,
                "0/1 nodes are available: persistentvolumeclaim \"data\" not found. preemption: not eligible due to preemptionPolicy=Never.",
            ),
            (0, false, "no nodes available to schedule pods"),
        ] {
            assert_eq!(Why::held(nodes, why, yields).to_string(), told);
        }
    }
}
