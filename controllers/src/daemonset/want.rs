//! What a DaemonSet asks for: which nodes, with what tolerations, and how many may be missing or doubled.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::node_selector::selects;
use weft_api::toleration::tolerates;
use weft_api::view::{IntOrString, Node, Taint, Toleration};

use super::node_pods::Fit;
use crate::amount::{count, pods_of};
use crate::indexer::Cached;
use crate::lens::DaemonSet;
use crate::plus_seconds;
use crate::pod::Pod;
use crate::revision::REVISION_LABEL;

/// The member of an affinity that a pod's node has to meet.
pub const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
/// A label of pods, from before there were revisions.
pub const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// What every pod of a DaemonSet bears, beside what its template says: key and effect.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And those that use their node's network.
const BORNE_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The wishes of a DaemonSet.
pub struct Want<'a> {
    pub set: &'a Cached<DaemonSet>,
    /// Of the revision that is asked for.
    pub hash: &'a str,
    pub min_ready: i64,
    now: Timestamp,
    generation: Option<&'a str>,
    tolerations: Vec<Toleration>,
}

impl<'a> Want<'a> {
    pub fn of(set: &'a Cached<DaemonSet>, hash: &'a str, now: Timestamp) -> Self {
        let whole = set.object.as_ref();
        let spec = whole.map(|whole| &whole.as_value()["spec"]["template"]["spec"]);
        let borne = spec.map(tolerations).unwrap_or_default();
        let borne = borne.into_iter();
        Self {
            set,
            hash,
            min_ready: count(set.body.spec.min_ready_seconds),
            now,
            generation: template_generation(set),
            tolerations: borne
                .filter_map(|toleration| serde_json::from_value(toleration).ok())
                .collect(),
        }
    }

    /// Whether a pod may come to a node, and whether one that is there may stay.
    pub fn fit(&self, node: &Cached<Node>) -> Fit {
        let no = Fit {
            takes_new: false,
            keeps_old: false,
        };
        let Some(spec) = &self.set.body.spec.template.spec else {
            return no;
        };
        let name = spec.node_name.as_deref().unwrap_or_default();
        if !name.is_empty() && *name != *node.key.name {
            return no;
        }
        let wanted = spec.node_selector.as_ref();
        let labelled = wanted.is_none_or(|wanted| has_all(&node.meta.labels, wanted));
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|all| all.node_affinity.as_ref());
        let required = affinity.and_then(|of| {
            of.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let selected =
            required.is_none_or(|selector| selects(selector, &node.key.name, &node.meta.labels));
        if !labelled || !selected {
            return no;
        }
        let taints = node
            .body
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_ref());
        let mut effects = taints
            .into_iter()
            .flatten()
            .filter(|taint| !self.bears(taint))
            .map(|taint| taint.effect.as_str())
            .filter(|effect| matches!(*effect, "NoSchedule" | "NoExecute"))
            .peekable();
        Fit {
            takes_new: effects.peek().is_none(),
            keeps_old: effects.all(|effect| effect != "NoExecute"),
        }
    }

    fn bears(&self, taint: &Taint) -> bool {
        let mut all = self.tolerations.iter();
        all.any(|toleration| tolerates(toleration, taint))
    }

    pub fn is_available(&self, pod: &Cached<Pod>) -> bool {
        let Some(since) = pod.body.ready_since() else {
            return pod.body.is_ready && self.min_ready == 0;
        };
        self.min_ready == 0 || plus_seconds(since, self.min_ready) <= self.now
    }

    /// It was made of the template as it is now.
    pub fn is_updated(&self, pod: &Cached<Pod>) -> bool {
        let label = |key: &str| pod.meta.labels.get(key).map(String::as_str);
        let same_hash = !self.hash.is_empty() && label(REVISION_LABEL) == Some(self.hash);
        same_hash || (self.generation.is_some() && label(GENERATION_LABEL) == self.generation)
    }

    pub fn is_rolling(&self) -> bool {
        let strategy = self.set.body.spec.update_strategy.as_ref();
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        kind.is_none_or(|kind| kind == "RollingUpdate")
    }

    /// Whether a node may have a new pod beside its old one.
    pub fn surges(&self) -> bool {
        self.fences(1).0 > 0
    }

    /// `(maxSurge, maxUnavailable)` in pods on so many nodes; both round up, and both zero mean one unavailable.
    pub fn fences(&self, desired: i64) -> (i64, i64) {
        let strategy = self.set.body.spec.update_strategy.as_ref();
        let rolling = strategy
            .filter(|_| self.is_rolling())
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let amount =
            |value: Option<&IntOrString>| value.map_or(0, |value| pods_of(value, desired, true));
        let surge = amount(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
        let unavailable = amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
        match (surge, unavailable) {
            (0, 0) if self.is_rolling() => (0, 1),
            fences => fences,
        }
    }
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// How often the template changed, as the server counts it.
pub fn template_generation(set: &Cached<DaemonSet>) -> Option<&str> {
    let number = set.meta.annotations.get(GENERATION)?;
    number.parse::<i64>().is_ok().then_some(number)
}

/// The tolerations of pods with this spec: its own, and those of every pod of a DaemonSet, which last.
pub fn tolerations(spec: &Value) -> Vec<Value> {
    let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let host = (spec["hostNetwork"] == true).then_some(BORNE_ON_HOST_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(host) {
        let wanted = json!({"key": key, "operator": "Exists", "effect": effect});
        let is_same = |one: &Value| {
            ["key", "operator", "effect"]
                .iter()
                .all(|member| one[member] == wanted[member])
                && one["value"].as_str().unwrap_or_default().is_empty()
        };
        match all.iter_mut().find(|one| is_same(one)) {
            Some(one) => *one = wanted,
            None => all.push(wanted),
        }
    }
    all
}
