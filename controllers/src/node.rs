//! Node lifecycle: who is alive, what that means for its pods, and its range of pod addresses.
//!
//! A node renews its lease every 2 s. After [`GRACE`] without, `Ready` becomes Unknown, its pods become not ready (so
//! they leave the endpoints) and the node gets the `unreachable` taints. Pods leave a node with a NoExecute taint after
//! the seconds their tolerations allow; without one for `not-ready` and `unreachable` that is
//! [`DEFAULT_TOLERATION_SECONDS`], so a stateless pod is replaced about ten seconds after its node's last sign of life,
//! where Kubernetes takes six minutes. Tolerations a user wrote are honoured as written.
//!
//! Brake: while more than half of three or more nodes are unreachable and the newest loss is fresher than [`BRAKE`],
//! nothing is evicted: it is likelier that we are cut off than that they all died. After a change of leader every node gets
//! a full grace period, because heartbeats are counted by when *we* saw them.
//!
//! Terminating pods of a node that is gone are removed at once; of an unreachable node once their grace is over, if a
//! ReplicaSet runs them: only those never promised to run at most once.
//!
//! Left to others: stopping what still runs on a node that comes back (`weft_agent`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use weft_api::view::{Node, NodeCondition, Pod, PodCondition, Taint, Time, Toleration};

use crate::replicaset::{is_finished, is_ready};
use crate::view::{Item, Key, Row, Touched, View, node_of};
use crate::write::{LEASES, NODES, Note, PODS, Write};
use crate::{Context, Controller, Outcome, plus_seconds, stamp, until};

pub const LIFECYCLE: Controller = Controller {
    name: "node-controller",
    keys,
    seeds: |view| {
        let nodes = view.nodes.iter().map(|row| row.key.name.as_str());
        let names: BTreeSet<&str> = nodes.chain(view.bound_node_names()).collect();
        names.into_iter().map(Key::cluster).collect()
    },
    reconcile,
};

pub const ADDRESSES: Controller = Controller {
    name: "node-address-controller",
    keys: |_, touched| {
        let wakes = touched.resource == NODES && touched.ownership_changed;
        if wakes { vec![all_nodes()] } else { Vec::new() }
    },
    seeds: |_| vec![all_nodes()],
    reconcile: assign_addresses,
};

/// Silence after which a node counts as lost: four missed renewals of its lease.
pub const GRACE: Duration = Duration::from_secs(8);
/// How long pods stay on a lost node when they do not say.
pub const DEFAULT_TOLERATION_SECONDS: i64 = 2;
/// How fresh a loss of most nodes has to be to hold evictions back.
const BRAKE: Duration = Duration::from_secs(30);
/// Fewest nodes for which "most of them" means something.
const BRAKE_NODES_MIN: usize = 3;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";
/// Conditions other than Ready that keep new pods away while they hold.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    match touched.resource {
        NODES => vec![touched.key.clone()],
        // Each renewal moves the deadline; the reconciler asks for its own next look, so only a first lease and
        // one after silence matter.
        LEASES => {
            let node = Key::cluster(&touched.key.name);
            let row = view.nodes.get(&node);
            let silent = row.is_some_and(|row| ready_of(row) != Readiness::Ready);
            if silent { vec![node] } else { Vec::new() }
        }
        PODS => touched
            .states()
            .filter_map(|state| match state {
                Item::Pod(pod) => Some(node_of(pod)),
                _ => None,
            })
            .filter(|node| !node.is_empty())
            // On a healthy node there is nothing to decide about pods.
            .filter(|node| {
                let row = view.nodes.get(&Key::cluster(node));
                row.is_none_or(|row| ready_of(row) != Readiness::Ready || has_no_execute(row))
            })
            .map(Key::cluster)
            .collect::<BTreeSet<Key>>()
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
    Unknown,
    /// The node never said.
    Absent,
}

fn condition<'a>(node: &'a Row<Node>, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.body.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

fn ready_of(node: &Row<Node>) -> Readiness {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        Some(_) => Readiness::NotReady,
        None => Readiness::Absent,
    }
}

fn taints(node: &Row<Node>) -> &[Taint] {
    let spec = node.body.spec.as_ref();
    spec.and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

fn has_no_execute(node: &Row<Node>) -> bool {
    taints(node).iter().any(|taint| taint.effect == NO_EXECUTE)
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(node) = view.nodes.get(key) else {
        return remove_stranded(view, &key.name, cx);
    };
    let mut outcome = Outcome::default();
    let seen = view
        .heartbeat(&key.name)
        .or(node.meta.creation_timestamp)
        .unwrap_or(cx.now);
    let silent = until(cx.now, seen);
    let lost = silent >= GRACE;
    if !lost {
        outcome.again_after(GRACE - silent);
    }
    let present = ready_of(node);
    if lost && present != Readiness::Unknown {
        outcome.writes.extend(mark_unknown(node, cx));
        // Taints follow from the condition, in the pass that this write wakes.
        return outcome;
    }
    outcome.writes.extend(retaint(node, present, cx));
    if present != Readiness::Ready {
        outcome.writes.extend(mark_pods_not_ready(view, node, cx));
    }
    evict(view, node, cx, &mut outcome);
    if lost {
        remove_terminated(view, &key.name, cx, &mut outcome);
    }
    outcome
}

/// `Ready=Unknown`, and the other conditions with it: nobody can know them.
fn mark_unknown(node: &Row<Node>, cx: &Context<'_>) -> Vec<Write> {
    let before = node.body.status.clone().unwrap_or_default();
    let mut after = before.clone();
    let conditions = after.conditions.get_or_insert_default();
    if !conditions.iter().any(|c| c.type_ == "Ready") {
        conditions.push(NodeCondition {
            type_: "Ready".into(),
            ..NodeCondition::default()
        });
    }
    for condition in conditions.iter_mut().filter(|c| c.status != "Unknown") {
        let never = condition.status.is_empty();
        condition.status = "Unknown".into();
        condition.last_transition_time = Some(stamp(cx.now));
        let (reason, message) = if never {
            (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            )
        } else {
            ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        };
        condition.reason = Some(reason.into());
        condition.message = Some(message.into());
    }
    let message = format!("Node {} status is now: NodeNotReady", node.meta.name);
    let told = Note::normal(node.reference(), "NodeNotReady", message);
    Write::status(node, &before, &after)
        .map(|write| write.telling(told))
        .into_iter()
        .collect()
}

/// The taints that the conditions and `spec.unschedulable` call for; others are the user's and stay.
fn retaint(node: &Row<Node>, ready: Readiness, cx: &Context<'_>) -> Option<Write> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        Readiness::Ready => {}
        Readiness::NotReady => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        Readiness::Unknown => {
            wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]);
        }
        // It is only just joining: keep pods away, but there is nobody to drive off.
        Readiness::Absent => wanted.push((NOT_READY, NO_SCHEDULE)),
    }
    let spec = node.body.spec.as_ref();
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    for (kind, taint) in PRESSURES {
        if condition(node, kind).is_some_and(|c| c.status == "True") {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    let ours = |taint: &Taint| {
        let known = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
        let key = taint.key.as_str();
        known.contains(&key) || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
    };
    let present = taints(node);
    let mut after: Vec<Taint> = present
        .iter()
        .filter(|taint| {
            let pair = (taint.key.as_str(), taint.effect.as_str());
            !ours(taint) || wanted.contains(&pair)
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !after.iter().any(|t| t.key == key && t.effect == effect) {
            after.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(stamp(cx.now)),
                value: None,
            });
        }
    }
    if after == present {
        return None;
    }
    Some(Write::patch(node, json!({"spec": {"taints": after}})))
}

/// Pods of a node that is not ready are not ready either; their own node cannot say so.
fn mark_pods_not_ready(view: &View, node: &Row<Node>, cx: &Context<'_>) -> Vec<Write> {
    let pods = view.pods_on_node(&node.meta.name);
    let ready = pods.filter(|pod| is_ready(pod) && !is_finished(pod));
    ready
        .filter_map(|pod| {
            let before = pod.body.status.clone().unwrap_or_default();
            let mut after = before.clone();
            let conditions: &mut Vec<PodCondition> = after.conditions.as_mut()?;
            let condition = conditions.iter_mut().find(|c| c.type_ == "Ready")?;
            condition.status = "False".into();
            condition.reason = Some("NodeNotReady".into());
            condition.last_transition_time = Some(stamp(cx.now));
            let told = Note::warning(pod.reference(), "NodeNotReady", "Node is not ready");
            Write::status(pod, &before, &after).map(|write| write.telling(told))
        })
        .collect()
}

/// Deletes pods whose tolerations of the node's NoExecute taints have run out.
fn evict(view: &View, node: &Row<Node>, cx: &Context<'_>, outcome: &mut Outcome) {
    let taints: Vec<&Taint> = taints(node)
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .collect();
    if taints.is_empty() {
        return;
    }
    if let Some(hold) = brake(view, cx.now) {
        outcome.again_after(hold);
        return;
    }
    for pod in view.pods_on_node(&node.meta.name) {
        if pod.meta.is_deleting() || is_finished(pod) {
            continue;
        }
        let due = taints
            .iter()
            .filter_map(|taint| leave_at(pod, taint, cx.now));
        let Some(due) = due.min() else { continue };
        if due > cx.now {
            outcome.again_after(until(due, cx.now));
            continue;
        }
        let told = Note::normal(
            pod.reference(),
            "TaintManagerEviction",
            format!("Marking for deletion Pod {}", pod.key),
        );
        outcome.writes.push(Write::delete(pod).telling(told));
    }
}

/// When the pod has to leave because of `taint`; `None`: it tolerates it for ever.
fn leave_at(pod: &Row<Pod>, taint: &Taint, now: Timestamp) -> Option<Timestamp> {
    let spec = pod.body.spec.as_ref();
    let tolerations = spec.and_then(|spec| spec.tolerations.as_ref());
    let mut matching = tolerations
        .into_iter()
        .flatten()
        .filter(|toleration| tolerates(toleration, taint))
        .peekable();
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    if matching.peek().is_none() {
        let implied = taint.key == NOT_READY || taint.key == UNREACHABLE;
        let seconds = if implied {
            DEFAULT_TOLERATION_SECONDS
        } else {
            0
        };
        return Some(plus_seconds(since, seconds));
    }
    // The shortest counts; one without a limit does not shorten.
    let seconds = matching.filter_map(|toleration| toleration.toleration_seconds);
    seconds.min().map(|seconds| plus_seconds(since, seconds))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    let value = toleration.value.as_deref().unwrap_or("");
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == taint.value.as_deref().unwrap_or(""))
}

/// How long evictions are to be held back, if they are.
fn brake(view: &View, now: Timestamp) -> Option<Duration> {
    let lost: Vec<Timestamp> = view
        .nodes
        .iter()
        .filter(|node| ready_of(node) == Readiness::Unknown)
        .map(|node| {
            let since = condition(node, "Ready").and_then(|c| c.last_transition_time.as_ref());
            since.map_or(now, |Time(since)| *since)
        })
        .collect();
    if view.nodes.len() < BRAKE_NODES_MIN || lost.len() * 2 <= view.nodes.len() {
        return None;
    }
    let newest = lost.into_iter().max()?;
    let fresh = until(now, newest);
    (fresh < BRAKE).then(|| BRAKE - fresh)
}

/// Pods that finished terminating as far as anybody can tell: their node is silent and their grace is over.
fn remove_terminated(view: &View, node: &str, cx: &Context<'_>, outcome: &mut Outcome) {
    for pod in view.pods_on_node(node) {
        let Some(ends) = pod.meta.deletion_timestamp else {
            continue;
        };
        let replaceable = pod
            .meta
            .controller()
            .is_some_and(|owner| owner.kind == "ReplicaSet");
        if !replaceable {
            continue;
        }
        if ends > cx.now {
            outcome.again_after(until(ends, cx.now));
        } else {
            outcome.writes.push(Write::delete(pod).forced());
        }
    }
}

/// Pods bound to a node that does not exist.
fn remove_stranded(view: &View, node: &str, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for pod in view.pods_on_node(node) {
        // A node may still be on its way when a pod names it by hand.
        let born = pod.meta.creation_timestamp.unwrap_or(cx.now);
        let age = until(cx.now, born);
        if !pod.meta.is_deleting() && age < GRACE {
            outcome.again_after(GRACE - age);
        } else {
            outcome.writes.push(Write::delete(pod).forced());
        }
    }
    outcome
}

fn all_nodes() -> Key {
    Key::cluster("nodes")
}

/// Pods get their addresses from here: below lie the ranges of Services and of nodes of earlier versions.
const POD_RANGE: (u32, u32) = (u32::from_be_bytes([10, 128, 0, 0]), 9);
/// Bits of a node's range: 32,765 pods, where a node reports room for 20,000; 256 nodes.
const NODE_RANGE_BITS: u32 = 17;

/// First and last address of an IPv4 range.
fn bounds(cidr: &str) -> Option<(u32, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
    let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
    let first = address.to_bits() & !rest;
    Some((first, first | rest))
}

/// The ranges a node may get, lowest first.
fn node_ranges() -> impl Iterator<Item = (u32, u32)> {
    let (base, bits) = POD_RANGE;
    let size = 1 << (32 - NODE_RANGE_BITS);
    (0..1 << (NODE_RANGE_BITS - bits)).map(move |number| {
        let first = base + number * size;
        (first, first + (size - 1))
    })
}

/// Gives each node without one the lowest range that touches no other node's. One key for all nodes, so no two passes can
/// choose the same.
fn assign_addresses(view: &View, _: &Key, _: &Context<'_>) -> Outcome {
    let range_of = |node: &Row<Node>| bounds(node.body.spec.as_ref()?.pod_cidr.as_deref()?);
    let mut taken: BTreeSet<(u32, u32)> = view.nodes.iter().filter_map(|n| range_of(n)).collect();
    let mut free = node_ranges();
    let mut writes = Vec::new();
    for node in view.nodes.iter() {
        let spec = node.body.spec.as_ref();
        let has = spec.is_some_and(|spec| spec.pod_cidr.as_deref().is_some_and(|c| !c.is_empty()));
        if has || node.meta.is_deleting() {
            continue;
        }
        let found = free.find(|(first, last)| {
            let touched = taken
                .iter()
                .any(|range| range.0 <= *last && *first <= range.1);
            !touched
        });
        let Some(found) = found else {
            let message = format!("Node {} status is now: CIDRNotAvailable", node.meta.name);
            let told = Note::warning(node.reference(), "CIDRNotAvailable", message);
            writes.push(Write::Event(told));
            break;
        };
        taken.insert(found);
        let cidr = format!("{}/{NODE_RANGE_BITS}", Ipv4Addr::from_bits(found.0));
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        // Bound to the uid only: the node's own heartbeats must not make it lose its range.
        writes.push(Write::patch(node, patch).unbound());
    }
    Outcome::of(writes)
}
