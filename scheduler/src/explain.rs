//! Refusals as text: one sentence in Kubernetes' words, counting nodes by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::filter::{Hints, Reason};
use crate::pod::PodFacts;

/// Why no node takes a pod. Shared by pods that are refused for the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// Nodes that there are.
    pub nodes: usize,
    /// How many of them give a reason, by its text.
    pub reasons: BTreeMap<String, usize>,
    /// Changes that may end it.
    pub hints: Hints,
    /// What came of trying to drive others off, as Kubernetes tells it.
    pub preemption: String,
}

impl Why {
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
        if !self.reasons.is_empty() {
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
