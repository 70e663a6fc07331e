//! Whether a node can take a pod, and if not, why.
//!
//! The checks run in Kubernetes' order and the first that refuses answers, so the counts in messages agree with what
//! users know. Only the resource check gives several reasons at once.

use std::fmt;

use weft_api::node_selector::selects;
use weft_api::toleration::tolerates;
use weft_api::view::Taint;

use crate::reserve::{Standing, Working};
use crate::snapshot::{NodeFacts, PodFacts, Resources};

/// Why a node refuses a pod. Displays in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Unschedulable,
    /// The pod names another node.
    OtherNode,
    Taint {
        key: String,
        value: String,
    },
    /// `nodeSelector` or required node affinity.
    NotSelected,
    PortTaken,
    TooManyPods,
    Insufficient {
        resource: String,
    },
    /// A hard spread constraint would be violated.
    Skew,
    /// The node lacks the label a hard spread constraint is about.
    NoTopologyLabel,
    /// No pod that the pod must stand near is in the node's domain.
    NotNear,
    /// A pod that it must keep away from is.
    NotApart,
    /// A pod that must keep away from it is.
    Avoided,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::OtherNode => f.write_str("node(s) didn't match the requested node name"),
            Self::Taint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::NotSelected => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::PortTaken => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient { resource } => write!(f, "Insufficient {resource}"),
            Self::Skew => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::NoTopologyLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::NotNear => f.write_str("node(s) didn't match pod affinity rules"),
            Self::NotApart => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::Avoided => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// The check that refuses, with what it takes to say why. Asked for each pod and node, so it costs no allocation.
pub(crate) enum Refused<'a> {
    Because(Reason),
    Taint(&'a Taint),
    /// The node has too little left of something.
    Full {
        pod: &'a PodFacts,
        node: &'a NodeFacts,
        used: &'a Resources,
        has_too_many_pods: bool,
    },
}

impl Refused<'_> {
    /// Why, in full; never empty.
    pub fn reasons(self) -> Vec<Reason> {
        match self {
            Self::Because(reason) => vec![reason],
            Self::Taint(taint) => vec![Reason::Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
            }],
            Self::Full {
                pod,
                node,
                used,
                has_too_many_pods,
            } => {
                let pods = has_too_many_pods.then_some(Reason::TooManyPods);
                let resources = lacking(pod, node, used).map(|resource| Reason::Insufficient {
                    resource: resource.to_owned(),
                });
                pods.into_iter().chain(resources).collect()
            }
        }
    }
}

/// The first check that refuses; `None`: the node can take the pod.
pub(crate) fn refusal<'a>(
    pod: &'a PodFacts,
    working: &'a Working<'_>,
    index: usize,
    standing: &Standing<'_>,
) -> Option<Refused<'a>> {
    let node = working.node(index);
    let because = |reason| Some(Refused::Because(reason));
    if node.unschedulable && !tolerates_unschedulable(pod) {
        return because(Reason::Unschedulable);
    }
    if pod.node.as_ref().is_some_and(|name| *name != node.name) {
        return because(Reason::OtherNode);
    }
    if let Some(taint) = untolerated(pod, node) {
        return Some(Refused::Taint(taint));
    }
    if !selected(pod, node) {
        return because(Reason::NotSelected);
    }
    let mut ports = pod.host_ports.iter();
    if ports.any(|port| working.port_is_taken(index, port)) {
        return because(Reason::PortTaken);
    }
    let used = working.used(index);
    let has_too_many_pods = working.pods(index) >= node.pods_max;
    if has_too_many_pods || lacking(pod, node, used).next().is_some() {
        return Some(Refused::Full {
            pod,
            node,
            used,
            has_too_many_pods,
        });
    }
    for domains in standing.constraints.iter().filter(|domains| domains.hard) {
        let Some(value) = node.labels.get(&domains.key) else {
            return because(Reason::NoTopologyLabel);
        };
        let here = domains.counts.get(value).copied().unwrap_or(0);
        let skew = here + i64::from(domains.own) - domains.fewest;
        if skew > domains.max_skew {
            return because(Reason::Skew);
        }
    }
    let allowed = standing.affinity.allows(pod, node);
    allowed.err().map(Refused::Because)
}

/// Names of what the pod requests more of than is free.
fn lacking<'a>(
    pod: &'a PodFacts,
    node: &'a NodeFacts,
    used: &'a Resources,
) -> impl Iterator<Item = &'a str> {
    let requests = pod.requests.0.iter();
    let lacking = requests.filter(|(resource, amount)| {
        let free = node.allocatable.get(resource) - used.get(resource);
        **amount > 0 && **amount > free
    });
    lacking.map(|(resource, _)| resource.as_str())
}

fn tolerates_unschedulable(pod: &PodFacts) -> bool {
    if pod.tolerations.is_empty() {
        return false;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    pod.tolerations.iter().any(|t| tolerates(t, &taint))
}

fn untolerated<'a>(pod: &PodFacts, node: &'a NodeFacts) -> Option<&'a Taint> {
    let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    let mut taints = node.taints.iter().filter(hard);
    taints.find(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)))
}

/// `nodeSelector` and required node affinity, both.
pub(crate) fn selected(pod: &PodFacts, node: &NodeFacts) -> bool {
    let by_labels = pod
        .node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.required.as_ref();
    by_labels && required.is_none_or(|selector| selects(selector, &node.name, &node.labels))
}
