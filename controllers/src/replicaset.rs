//! ReplicaSets, and the ReplicationControllers before them: as many active pods of one template as asked for.
//!
//! The two differ in how they are read ([`Replicated`]) and in nothing that is done about them.
//!
//! A pod counts while it is neither finished nor being deleted; one that cannot be read counts, too. Too few: create, at
//! most [`BURST`] a pass, none while [`UNPLACED_MAX`] wait for a node, and one at a time after a refusal (Kubernetes' slow start, with the loop's back-off as its clock). Too many: delete in Kubernetes'
//! order of victims, the least useful first. After a refusal the status comes before the next attempt: a refusal ends a
//! list of writes, and the condition that tells of it must not wait for the attempt that succeeds.
//!
//! Names of new pods are a function of the set's uid and the highest revision seen among it and its pods, so a repeated
//! pass over the same state asks for the same names; see the crate's notes on double creation.
//!
//! Left to others: finalising deleted pods (`weft_agent`), pods of lost nodes (`node`).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use weft_api::names;
use weft_api::view::ReplicaSetStatus;
use weft_kinds::{CAPABILITY_GRANT, POD};

use crate::claim::claim_objects;
use crate::indexer::Cached;
use crate::lens::{ReplicaSet, Replicated, ReplicationController};
use crate::metadata::Key;
use crate::pod::{self, Phase, Pod};
use crate::template::pod_from;
use crate::view::{Touched, View};
use crate::write::{Note, Write, object};
use crate::{Context, Controller, Outcome, plus_seconds, stamp, until};

pub const CONTROLLER: Controller = of::<ReplicaSet>("replicaset-controller");
pub const REPLICATION: Controller = of::<ReplicationController>("replication-controller");

const fn of<K: Replicated>(name: &'static str) -> Controller {
    Controller {
        name,
        reads: |reads| {
            reads.kind::<K>().index(&pod::BY_CONTROLLER);
        },
        keys: keys::<K>,
        relieved: relieved::<K>,
        seeds: |view| view.list::<K>().map(|row| row.key.clone()).collect(),
        subject: |view, key| Some(view.object_of(K::kind(), key)?.reference()),
        reconcile: reconcile::<K>,
    }
}

/// Pods created or deleted in one pass; Kubernetes' `BurstReplicas`. Bounds what one refusal can waste.
const BURST: usize = 500;
/// Pods of one set that wait for a node; no more are created meanwhile. Four bursts: a scheduler that keeps up never lets
/// it come to that, and a number of replicas that no cluster holds costs no more than this many waiting pods.
const UNPLACED_MAX: usize = 2000;
const REPLICA_FAILURE: &str = "ReplicaFailure";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn keys<K: Replicated>(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(K::kind()) {
        return vec![touched.key.clone()];
    }
    if !touched.is_of(&POD) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let sets = owners.filter(|owner| *owner.kind == **K::kind());
    let mut keys: Vec<Key> = sets.map(|set| set.key().clone()).collect();
    if let Some(pod) = touched.after::<Pod>()
        && pod.meta.controller().is_none()
    {
        let sets = view.list_in::<K>(&pod.key.namespace);
        let matching = sets.filter(|set| {
            let selector = set.body.set().selector.as_ref();
            selector.is_some_and(|selector| selector.matches(&pod.meta.labels))
        });
        keys.extend(matching.map(|set| set.key.clone()));
    }
    keys
}

/// A pod that was refused for want of a grant is not refused once there is one.
fn relieved<K: Replicated>(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.is_of(&CAPABILITY_GRANT) || !touched.is_there {
        return Vec::new();
    }
    let sets = view.list_in::<K>(&touched.key.namespace);
    sets.map(|set| set.key.clone()).collect()
}

fn reconcile<K: Replicated>(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(set) = view.get::<K>(key) else {
        return Outcome::default();
    };
    let spec = &set.body.set().spec;
    let Some(selector) = &set.body.set().selector else {
        return Outcome::default();
    };
    let claims = claim_objects(view, &pod::BY_CONTROLLER, set, selector);
    if !claims.writes.is_empty() {
        // Ownership first: an adopted pod must not be created a second time.
        return Outcome::from_writes(claims.writes);
    }
    let (terminating, active): (Vec<_>, Vec<_>) = claims
        .owned
        .into_iter()
        .filter(|pod| !pod.body.is_finished())
        .partition(|pod| pod.meta.is_deleting());
    let unreadable = view
        .unreadable_of(&POD, &set.meta.uid)
        .filter(|pod| !pod.meta.is_deleting());
    let present = active.len() + unreadable.count();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut outcome = Outcome::default();
    if !set.meta.is_deleting() {
        if let Some(missing) = wanted.checked_sub(present).filter(|missing| *missing > 0) {
            let unplaced = active.iter().filter(|pod| pod.body.node.is_empty()).count();
            let room = UNPLACED_MAX.saturating_sub(unplaced);
            let at_once = if cx.last_failure.is_some() { 1 } else { BURST };
            outcome.writes = create_pods(view, set, &active, missing.min(at_once).min(room));
            if room == 0 {
                let message = format!(
                    "{UNPLACED_MAX} pods wait for a node; more are created as these find one"
                );
                let told = Note::warning(set.reference(), "TooManyUnplaced", message);
                outcome.writes.push(Write::Event(told));
            }
        } else if present > wanted {
            let excess = (present - wanted).min(BURST);
            outcome.writes = delete_pods(view, set, &active, excess, cx.now);
        }
    }
    update_status(set, &active, present, terminating.len(), cx, &mut outcome);
    outcome
}

fn create_pods<K: Replicated>(
    view: &View,
    set: &Cached<K>,
    active: &[Arc<Cached<Pod>>],
    count: usize,
) -> Vec<Write> {
    let raw = set.object.as_ref().map(|object| &object.as_value()["spec"]);
    let Some(template) = raw.map(|spec| &spec["template"]) else {
        return Vec::new();
    };
    let pods = active.iter().filter_map(|pod| pod.meta.resource_version);
    let epoch = pods.chain(set.meta.resource_version).max().unwrap_or(0);
    let mut writes = Vec::with_capacity(count);
    let mut attempt = 0_u64;
    while writes.len() < count {
        let parts: [&[u8]; 3] = [
            set.meta.uid.as_bytes(),
            &epoch.to_be_bytes(),
            &attempt.to_be_bytes(),
        ];
        attempt += 1;
        let name = names::generated(&set.key.name, &names::suffix(names::hash(&parts), 5));
        let key = set.key.sibling(&name);
        if view.object_of(&POD, &key).is_some() {
            continue;
        }
        let told = Note::normal(
            set.reference(),
            "SuccessfulCreate",
            format!("Created pod: {name}"),
        );
        let pod = Write::create(&POD, object(pod_from(template, set, &name)));
        writes.push(pod.telling(told.or_refused("FailedCreate")));
    }
    writes
}

fn delete_pods<K: Replicated>(
    view: &View,
    set: &Cached<K>,
    active: &[Arc<Cached<Pod>>],
    count: usize,
    now: Timestamp,
) -> Vec<Write> {
    let by_node = count_by_node(view, set);
    let mut pods: Vec<&Arc<Cached<Pod>>> = active.iter().collect();
    pods.sort_by(|a, b| victim_order(a, b, &by_node, now));
    let victims = pods.into_iter().take(count);
    victims
        .map(|pod| {
            let told = Note::normal(
                set.reference(),
                "SuccessfulDelete",
                format!("Deleted pod: {}", pod.key.name),
            );
            Write::delete(pod).telling(told.or_refused("FailedDelete"))
        })
        .collect()
}

/// Active pods a node of this set and its siblings under the same controller: doubled-up pods go first.
fn count_by_node<'a, K: Replicated>(view: &'a View, set: &Cached<K>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    let mut count_pods_of = |uid: &str| {
        for pod in view.list_by(&pod::BY_CONTROLLER, uid) {
            if !pod.body.is_finished() && !pod.meta.is_deleting() {
                *counts.entry(&*pod.body.node).or_insert(0) += 1;
            }
        }
    };
    match set.meta.controller() {
        Some(owner) => view
            .dependents(&owner.uid)
            .filter(|sibling| *sibling.kind == **K::kind())
            .for_each(|sibling| count_pods_of(&sibling.meta.uid)),
        None => count_pods_of(&set.meta.uid),
    }
    counts
}

/// `Less` is deleted first. The order of Kubernetes' `ActivePodsWithRanks`.
fn victim_order(
    a: &Cached<Pod>,
    b: &Cached<Pod>,
    by_node: &BTreeMap<&str, usize>,
    now: Timestamp,
) -> Ordering {
    let assigned = |pod: &Cached<Pod>| !pod.body.node.is_empty();
    let phase = |pod: &Cached<Pod>| match pod.body.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        Phase::Running | Phase::Succeeded | Phase::Failed => 2,
    };
    let cost = |pod: &Cached<Pod>| -> i32 {
        let text = pod.meta.annotations.get(DELETION_COST);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let rank = |pod: &Cached<Pod>| by_node.get(&*pod.body.node).copied().unwrap_or(0);
    let ready = |pod: &Cached<Pod>| age_rank(pod.body.ready_since(), now);
    let born = |pod: &Cached<Pod>| age_rank(pod.meta.creation_timestamp, now);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.body.is_ready.cmp(&b.body.is_ready))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| b.body.restarts.cmp(&a.body.restarts))
        .then_with(|| born(a).cmp(&born(b)))
        .then_with(|| a.meta.uid.cmp(&b.meta.uid))
}

/// Age on a logarithmic scale, youngest (and unknown) first: of pods of about the same age, any may go.
fn age_rank(since: Option<Timestamp>, now: Timestamp) -> u32 {
    since.map_or(0, |since| {
        let seconds = until(now, since).as_secs();
        1 + seconds.checked_ilog2().unwrap_or(0)
    })
}

/// Brings the status up to date and asks to be called when the next pod becomes available.
fn update_status<K: Replicated>(
    set: &Cached<K>,
    active: &[Arc<Cached<Pod>>],
    present: usize,
    terminating: usize,
    cx: &Context<'_>,
    outcome: &mut Outcome,
) {
    let spec = &set.body.set().spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.as_ref();
    let template_labels = template
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    let mut labelled = 0;
    let mut ready = 0;
    let mut available = 0;
    for pod in active {
        let has = |(key, value)| pod.meta.labels.get(key) == Some(value);
        labelled += i32::from(template_labels.iter().all(has));
        if !pod.body.is_ready {
            continue;
        }
        ready += 1;
        let due = pod
            .body
            .ready_since()
            .map(|since| plus_seconds(since, i64::from(min_ready)));
        match due {
            Some(due) if min_ready > 0 && due > cx.now => {
                outcome.again_after(until(due, cx.now));
            }
            _ => available += 1,
        }
    }
    let some = |number: i32| (number != 0).then_some(number);
    let before = set.body.set().status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    note_failure(&mut conditions, present, spec.replicas, cx);
    let after = ReplicaSetStatus {
        replicas: i32::try_from(present).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(labelled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: some(i32::try_from(terminating).unwrap_or(i32::MAX))
            .filter(|_| K::COUNTS_TERMINATING),
        observed_generation: Some(set.meta.generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    if before != after
        && let Some(write) = Write::status(set, &before, &after)
    {
        let at = match cx.last_failure {
            Some(_) => 0,
            None => outcome.writes.len(),
        };
        outcome.writes.insert(at, write);
    }
}

/// `ReplicaFailure` while pods are missing and the last attempt at them was refused.
fn note_failure(
    conditions: &mut Vec<ReplicaSetCondition>,
    active: usize,
    replicas: Option<i32>,
    cx: &Context<'_>,
) {
    let wanted = usize::try_from(replicas.unwrap_or(1)).unwrap_or(0);
    let present = conditions.iter().any(is_replica_failure);
    match cx.last_failure {
        Some(message) if active != wanted => {
            if !present {
                let reason = if active < wanted {
                    "FailedCreate"
                } else {
                    "FailedDelete"
                };
                conditions.push(ReplicaSetCondition {
                    type_: Some(REPLICA_FAILURE.into()),
                    status: Some("True".into()),
                    reason: Some(reason.into()),
                    message: Some(message.to_owned()),
                    last_transition_time: Some(stamp(cx.now)),
                });
            }
        }
        _ => conditions.retain(|c| !is_replica_failure(c)),
    }
}

/// The condition that says creating or deleting pods was refused.
pub fn is_replica_failure(condition: &ReplicaSetCondition) -> bool {
    condition.type_.as_deref() == Some(REPLICA_FAILURE)
}
