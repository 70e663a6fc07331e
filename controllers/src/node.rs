//! Node lifecycle: who is alive, and what that means for its pods.
//!
//! A node is alive as long as its lease says (`spec.leaseDurationSeconds`; weft's own nodes say 8 s and renew it every second).
//! A server that sees the last connection of a node end shortens that to two renewals, until the node renews it (`weft_apiserver`).
//! After that long without a sign of life, `Ready` becomes Unknown, its pods become not ready (so that they leave the
//! endpoints) and the node gets the `unreachable` taints. Pods leave a node with a NoExecute taint after the seconds
//! their tolerations allow; without one for `not-ready` and `unreachable` that is [`DEFAULT_TOLERATION_SECONDS`], so a
//! stateless pod is replaced about ten seconds after its node's last sign of life, where Kubernetes takes six minutes.
//! Tolerations a user wrote are honoured as written.
//!
//! When every node is silent, this server may be the one that is cut off, so a silent node counts as lost only while others
//! are heard ([`is_witnessed`]): one of them for as long as the silent one's lease lasts, and since that lease ran out. While
//! all are silent nothing happens to any pod, however long, and when they are heard again each has its time to come back.
//! Beside that, the disruption modes of Kubernetes' node lifecycle controller. Full disruption (no node is ready): no pod is
//! evicted for its node's state. Partial disruption (most of a zone is not ready, [`PARTIAL_SHARE`]): small clusters stop
//! evictions and large ones slow them down. Normal: one node after the other ([`EVICTION_PAUSE`]). And a mass loss: while more
//! than half of three or more nodes are unreachable and the newest loss is fresher than [`MASS_LOSS_HOLD`], nothing is evicted.
//!
//! Heartbeats are timed by when *we* saw them, so after a change of leader every node gets its whole time again, and so does
//! one whose lease somebody deleted.
//!
//! Terminating pods of a node that is gone, or that somebody tainted as out of service while it is not ready, are removed at once; of an
//! unreachable node once their grace is over, if a ReplicaSet runs them: only those never promised to run at most once. And those that ask their node to stop them when it is cut off
//! (`weft.dev/fenced`), once the node has done that: its lease says how long after the last renewal.
//!
//! Left to others: stopping what still runs on a node that comes back (`weft_agent`).

mod heartbeats;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use weft_api::annotation;
use weft_api::toleration::tolerates;
use weft_api::view::{Node, NodeCondition, Taint, Time};
use weft_kinds::{LEASE, NODE, POD};

use self::heartbeats::{Heartbeat, Heartbeats, LEASE_LASTS, Lease};
use crate::indexer::Cached;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::view::{Touched, View};
use crate::write::{Note, Reference, Write};
use crate::{Context, Controller, Outcome, plus_seconds, stamp, until};

pub const CONTROLLER: Controller = Controller {
    name: "node-controller",
    reads: |reads| {
        reads
            .kind::<Node>()
            .kind::<Lease>()
            .index(&pod::BY_NODE)
            .track::<Heartbeats>();
    },
    keys,
    subject,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let nodes = view.list::<Node>().map(|row| &*row.key.name);
        let bound = view.indexer::<Pod>().values(&pod::BY_NODE);
        let bound = bound.filter(|name| !name.is_empty());
        let names: BTreeSet<&str> = nodes.chain(bound).collect();
        names.into_iter().map(Key::cluster).collect()
    },
    reconcile,
};

/// How long a pod may be bound to a node that is not there: it may still be on its way.
const STRANDED: Duration = LEASE_LASTS;
/// How long pods stay on a lost node when they do not say.
pub const DEFAULT_TOLERATION_SECONDS: i64 = 2;
/// How fresh a loss of most nodes has to be to hold evictions back.
const MASS_LOSS_HOLD: Duration = Duration::from_secs(30);
/// Fewest nodes for which "most of them" means something.
const MASS_LOSS_NODES_MIN: usize = 3;
/// A node whose evictions are held back is looked at again after this: heartbeats of others do not wake it.
const HOLD: Duration = Duration::from_secs(2);
/// One that only waits for a witness is looked at so many times as often: a sign of life of any other node is one.
const WITNESS_LOOKS: u32 = 4;
/// From so many nodes on, one that is held back is looked at five times as rarely: each look asks about all others.
const HOLD_NODES_MANY: usize = 500;
/// Kubernetes' `--unhealthy-zone-threshold`, in percent of a zone's nodes.
const PARTIAL_SHARE: usize = 55;
/// Fewest nodes not ready that make a partial disruption; Kubernetes' number.
const PARTIAL_NODES_MIN: usize = 3;
/// Kubernetes' `--large-cluster-size-threshold`: up to so many nodes a partial disruption stops evictions.
const LARGE_CLUSTER: usize = 50;
/// Pause between two nodes of a zone that pods are driven off. Kubernetes takes 10 s, and 5 min more before the first.
const EVICTION_PAUSE: Duration = Duration::from_secs(2);
/// The same in a partial disruption of a large cluster; Kubernetes' `--secondary-node-eviction-rate`.
const EVICTION_PAUSE_PARTIAL: Duration = Duration::from_secs(100);
/// Conditions that a node that fell silent can no longer speak for. Others are written by others, and stay.
const OWN_CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Somebody saw that the machine is off: nothing of it runs on.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
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
    if touched.is_of(&NODE) {
        return vec![touched.key.clone()];
    }
    if touched.is_of(&LEASE) {
        // Each renewal moves the deadline; the reconciler asks for its own next look, so only a first lease, one after
        // silence and one that lasts longer or shorter than before matter.
        let node = Key::cluster(&touched.key.name);
        let row = view.get::<Node>(&node);
        let silent = row.is_some_and(|row| ready_of(row) != Readiness::Ready);
        let lasts = |lease: Option<&Cached<Lease>>| lease.map(|lease| lease.body.lasts);
        let resized = touched.was_there && lasts(touched.before()) != lasts(touched.after());
        return match silent || resized {
            true => vec![node],
            false => Vec::new(),
        };
    }
    if !touched.is_of(&POD) {
        return Vec::new();
    }
    // On a healthy node there is nothing to decide about pods.
    let needs_look = |node: &Key| {
        let row = view.get::<Node>(node);
        row.is_none_or(|row| ready_of(row) != Readiness::Ready || has_no_execute(row))
    };
    let nodes: BTreeSet<&str> = touched
        .states::<Pod>()
        .map(|pod| &*pod.body.node)
        .filter(|node| !node.is_empty())
        .collect();
    nodes
        .into_iter()
        .map(Key::cluster)
        .filter(needs_look)
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
    Unknown,
    /// The node never said.
    Absent,
}

fn condition<'a>(node: &'a Cached<Node>, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.body.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

fn ready_of(node: &Cached<Node>) -> Readiness {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        Some(_) => Readiness::NotReady,
        None => Readiness::Absent,
    }
}

fn taints(node: &Cached<Node>) -> &[Taint] {
    let spec = node.body.spec.as_ref();
    spec.and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

fn has_no_execute(node: &Cached<Node>) -> bool {
    taints(node).iter().any(|taint| taint.effect == NO_EXECUTE)
}

fn subject(view: &View, key: &Key) -> Option<Reference> {
    Some(view.object_of(&NODE, key)?.reference())
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(node) = view.get::<Node>(key) else {
        return match view.object_of(&NODE, key) {
            // It cannot be read, so nothing is known of it.
            Some(_) => Outcome::default(),
            None => remove_stranded(view, &key.name, cx),
        };
    };
    let mut outcome = Outcome::default();
    let heartbeat = view.tracked::<Heartbeats>().of(&key.name);
    let lost = heartbeat.is_some_and(|heartbeat| heartbeat.is_silent(cx.now));
    if let Some(heartbeat) = heartbeat.filter(|_| !lost) {
        let left = heartbeat.lasts.saturating_sub(heartbeat.silence(cx.now));
        outcome.again_after(left);
    }
    let present = ready_of(node);
    if lost && present != Readiness::Unknown {
        outcome.writes.extend(mark_unknown(node, cx));
        // Taints follow from the condition, in the pass that this write wakes.
        return outcome;
    }
    outcome
        .writes
        .extend(retaint(view, node, present, cx, &mut outcome.requeue_after));
    if present == Readiness::Ready && !has_no_execute(node) {
        return outcome;
    }
    let credible = match heartbeat {
        Some(heartbeat) if lost => is_witnessed(view, &key.name, heartbeat, cx.now),
        // It is back, and has as long as its lease lasts to say how it is.
        Some(heartbeat) if present == Readiness::Unknown => heartbeat
            .alive_since
            .is_some_and(|since| until(cx.now, since) >= heartbeat.lasts),
        _ => true,
    };
    let stopped = disruption(view, node) == Disruption::Stopped;
    let held = if stopped || is_fully_disrupted(view) {
        Some(hold(view))
    } else if !credible {
        Some(hold(view) / WITNESS_LOOKS)
    } else {
        mass_loss_hold(view, cx.now)
    };
    if credible && present != Readiness::Ready {
        outcome.writes.extend(mark_pods_not_ready(view, node, cx));
    }
    evict(view, node, held, cx, &mut outcome);
    if present != Readiness::Ready && taints(node).iter().any(|t| t.key == OUT_OF_SERVICE) {
        let going = pod::on_node(view, &key.name).filter(|pod| pod.meta.is_deleting());
        let removed = going.flat_map(|pod| remove(pod, None, cx));
        outcome.writes.extend(removed);
    } else if lost && held.is_none() {
        remove_terminated(view, &key.name, cx, &mut outcome);
    }
    outcome
}

/// The silence of `node` is its own: another node was heard after this one's time had run out, and has been heard all
/// along for as long as this one's lease lasts.
fn is_witnessed(view: &View, node: &str, silent: &Heartbeat, now: Timestamp) -> bool {
    let Ok(deadline) = silent.seen.checked_add(silent.lasts) else {
        return false;
    };
    view.tracked::<Heartbeats>()
        .all()
        .any(|(other, heartbeat)| {
            other != node
                && heartbeat.seen >= deadline
                && !heartbeat.is_silent(now)
                && heartbeat
                    .alive_since
                    .is_some_and(|since| until(now, since) >= silent.lasts)
        })
}

fn hold(view: &View) -> Duration {
    let many = view.indexer::<Node>().len() >= HOLD_NODES_MANY;
    if many { HOLD * 5 } else { HOLD }
}

/// Kubernetes' full disruption mode: no node is ready.
fn is_fully_disrupted(view: &View) -> bool {
    let mut nodes = view.list::<Node>();
    nodes.all(|node| ready_of(node) != Readiness::Ready)
}

/// Nodes of one zone share its disruptions. Nodes without one are in the same, too.
fn zone_of(node: &Cached<Node>) -> (&str, &str) {
    let label = |key| node.meta.labels.get(key).map_or("", String::as_str);
    (label(REGION), label(ZONE))
}

/// How much of a node's zone is not ready, as far as it concerns evictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disruption {
    /// Some of it; or all, while other zones are well: then it is the zone's own fault.
    Normal,
    /// Kubernetes' partial disruption, in a large cluster: evictions are slow.
    Slow,
    /// Partial disruption in a small one: no evictions.
    Stopped,
}

fn disruption(view: &View, node: &Cached<Node>) -> Disruption {
    let zone = zone_of(node);
    let mut nodes = 0;
    let mut down = 0;
    for other in view.list::<Node>().filter(|other| zone_of(other) == zone) {
        nodes += 1;
        down += usize::from(ready_of(other) != Readiness::Ready);
    }
    let most = down >= PARTIAL_NODES_MIN && down * 100 >= nodes * PARTIAL_SHARE && down < nodes;
    match most {
        false => Disruption::Normal,
        true if view.indexer::<Node>().len() > LARGE_CLUSTER => Disruption::Slow,
        true => Disruption::Stopped,
    }
}

/// How long until the node's pods may be driven off, by its zone's state and whose turn it is; zero: now. `None`: not as
/// long as the zone is like this.
fn eviction_turn(view: &View, node: &Cached<Node>, now: Timestamp) -> Option<Duration> {
    let pause = match disruption(view, node) {
        Disruption::Normal => EVICTION_PAUSE,
        Disruption::Slow => EVICTION_PAUSE_PARTIAL,
        Disruption::Stopped => return None,
    };
    let zone = zone_of(node);
    let mut first = true;
    let mut newest: Option<Timestamp> = None;
    for other in view.list::<Node>().filter(|other| zone_of(other) == zone) {
        let mut driven = false;
        for taint in taints(other) {
            if taint.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
            {
                driven = true;
                newest = newest.max(taint.time_added.as_ref().map(|time| time.0));
            }
        }
        let down = matches!(ready_of(other), Readiness::Unknown | Readiness::NotReady);
        first &= driven || !down || other.key >= node.key;
    }
    let since = newest.map_or(pause, |newest| until(now, newest));
    match pause.checked_sub(since) {
        Some(left) if !left.is_zero() => Some(left),
        _ if first => Some(Duration::ZERO),
        _ => Some(pause),
    }
}

/// `Ready=Unknown`, and the other conditions of the node's own with it: nobody can know them.
fn mark_unknown(node: &Cached<Node>, cx: &Context<'_>) -> Vec<Write> {
    let before = node.body.status.clone().unwrap_or_default();
    let mut after = before.clone();
    let conditions = after.conditions.get_or_insert_default();
    if !conditions.iter().any(|c| c.type_ == "Ready") {
        conditions.push(NodeCondition {
            type_: "Ready".into(),
            ..NodeCondition::default()
        });
    }
    let own = |c: &NodeCondition| OWN_CONDITIONS.contains(&c.type_.as_str());
    let known = |c: &NodeCondition| c.status != "Unknown";
    for condition in conditions.iter_mut().filter(|c| own(c) && known(c)) {
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
    let message = format!("Node {} status is now: NodeNotReady", node.key.name);
    let told = Note::normal(node.reference(), "NodeNotReady", message);
    Write::status(node, &before, &after)
        .map(|write| write.telling(told))
        .into_iter()
        .collect()
}

/// The taints that the conditions and `spec.unschedulable` call for; others are the user's and stay.
///
/// NoExecute comes only in the node's turn, and goes while no node at all is ready.
fn retaint(
    view: &View,
    node: &Cached<Node>,
    ready: Readiness,
    cx: &Context<'_>,
    again: &mut Option<Duration>,
) -> Option<Write> {
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
    let driven = wanted.iter().any(|(_, effect)| *effect == NO_EXECUTE);
    let stands =
        |t: &Taint| t.effect == NO_EXECUTE && wanted.contains(&(t.key.as_str(), NO_EXECUTE));
    if driven && is_fully_disrupted(view) {
        wanted.retain(|(_, effect)| *effect != NO_EXECUTE);
        *again = Some(again.map_or(hold(view), |old| old.min(hold(view))));
    } else if driven && !present.iter().any(stands) {
        let turn = eviction_turn(view, node, cx.now);
        if turn != Some(Duration::ZERO) {
            wanted.retain(|(_, effect)| *effect != NO_EXECUTE);
            let turn = turn.unwrap_or(hold(view));
            *again = Some(again.map_or(turn, |old| old.min(turn)));
        }
    }
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
fn mark_pods_not_ready(view: &View, node: &Cached<Node>, cx: &Context<'_>) -> Vec<Write> {
    let pods = pod::on_node(view, &node.key.name);
    let ready = pods.filter(|pod| pod.body.is_ready && !pod.body.is_finished());
    ready
        .map(|pod| {
            let condition = json!({
                "type": "Ready",
                "status": "False",
                "reason": "NodeNotReady",
                "lastTransitionTime": stamp(cx.now),
            });
            let told = Note::warning(pod.reference(), "NodeNotReady", "Node is not ready");
            Write::condition(pod, &condition).telling(told)
        })
        .collect()
}

/// Deletes pods whose tolerations of the node's NoExecute taints have run out. `held`: not for the node's own state, and
/// when to ask again.
fn evict(
    view: &View,
    node: &Cached<Node>,
    held: Option<Duration>,
    cx: &Context<'_>,
    outcome: &mut Outcome,
) {
    let mut taints: Vec<&Taint> = taints(node)
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .collect();
    if let Some(held) = held {
        // What a user wrote holds all the same.
        taints.retain(|taint| ![NOT_READY, UNREACHABLE].contains(&taint.key.as_str()));
        outcome.again_after(held);
    }
    if taints.is_empty() {
        return;
    }
    let mut deletes = Vec::new();
    for pod in pod::on_node(view, &node.key.name) {
        if pod.meta.is_deleting() || pod.body.is_finished() {
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
        // Why it goes is told before it does: a Job may not hold it against the pod.
        let target = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "observedGeneration": pod.meta.generation,
            "lastTransitionTime": stamp(cx.now),
        });
        outcome.writes.push(Write::condition(pod, &target));
        deletes.push(Write::delete(pod).telling(told));
    }
    outcome.writes.extend(deletes);
}

/// When the pod has to leave because of `taint`; `None`: it tolerates it for ever.
fn leave_at(pod: &Cached<Pod>, taint: &Taint, now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.body.template.tolerations.iter();
    let mut matching = tolerations
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

/// How long evictions are to be held back, if they are.
fn mass_loss_hold(view: &View, now: Timestamp) -> Option<Duration> {
    let lost: Vec<Timestamp> = view
        .list::<Node>()
        .filter(|node| ready_of(node) == Readiness::Unknown)
        .map(|node| {
            let since = condition(node, "Ready").and_then(|c| c.last_transition_time.as_ref());
            since.map_or(now, |Time(since)| *since)
        })
        .collect();
    let nodes = view.indexer::<Node>().len();
    if nodes < MASS_LOSS_NODES_MIN || lost.len() * 2 <= nodes {
        return None;
    }
    let newest = lost.into_iter().max()?;
    let fresh = until(now, newest);
    (fresh < MASS_LOSS_HOLD).then(|| MASS_LOSS_HOLD - fresh)
}

/// Pods that finished terminating as far as anybody can tell: their node is silent, and their grace is over, or it has stopped them.
fn remove_terminated(view: &View, node: &str, cx: &Context<'_>, outcome: &mut Outcome) {
    let heartbeat = view.tracked::<Heartbeats>().of(node);
    let fenced_from = heartbeat.and_then(Heartbeat::fenced_from);
    for pod in pod::on_node(view, node) {
        let Some(ends) = pod.meta.deletion_timestamp else {
            continue;
        };
        let owner = pod.meta.controller();
        let is_replica = owner.is_some_and(|owner| owner.kind == "ReplicaSet");
        let asks = pod.meta.annotations.get(annotation::FENCED);
        let fenced_from = fenced_from.filter(|_| asks.is_some_and(|asks| asks == "true"));
        let Some(due) = fenced_from
            .into_iter()
            .chain(is_replica.then_some(ends))
            .min()
        else {
            continue;
        };
        if due > cx.now {
            outcome.again_after(until(due, cx.now));
        } else {
            outcome.writes.extend(remove(pod, None, cx));
        }
    }
}

/// Removes a pod that no node can. As that would, it says before how the pod ended, as far as anybody can know: it failed.
pub(crate) fn remove(pod: &Cached<Pod>, why: Option<&str>, cx: &Context<'_>) -> Vec<Write> {
    let removed = Write::delete(pod).forced();
    if pod.body.is_finished() {
        return vec![removed];
    }
    let condition = |kind: &str, status: &str, reason: &str, message: Option<&str>| {
        let mut condition = json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "observedGeneration": pod.meta.generation,
            "lastTransitionTime": stamp(cx.now),
        });
        if let Some(message) = message {
            condition["message"] = json!(message);
        }
        condition
    };
    let mut conditions = vec![condition("Ready", "False", "PodFailed", None)];
    if why.is_some() {
        conditions.push(condition(
            "DisruptionTarget",
            "True",
            "DeletionByPodGC",
            why,
        ));
    }
    let status = json!({
        "phase": "Failed", "observedGeneration": pod.meta.generation, "conditions": conditions,
    });
    vec![Write::status_fields(pod, &status), removed]
}

/// Pods bound to a node that does not exist.
fn remove_stranded(view: &View, node: &str, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for pod in pod::on_node(view, node) {
        // A node may still be on its way when a pod names it by hand.
        let born = pod.meta.creation_timestamp.unwrap_or(cx.now);
        let age = until(cx.now, born);
        if !pod.meta.is_deleting() && age < STRANDED {
            outcome.again_after(STRANDED - age);
        } else {
            let why = "PodGC: node no longer exists";
            outcome.writes.extend(remove(pod, Some(why), cx));
        }
    }
    if !outcome.writes.is_empty() {
        let gone = Write::ConfirmGone {
            kind: Arc::clone(&NODE),
            key: Key::cluster(node),
            uid: None,
        };
        outcome.writes.insert(0, gone);
    }
    outcome
}
