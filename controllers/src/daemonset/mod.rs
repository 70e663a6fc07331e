//! DaemonSets: a pod on each node that the template selects.
//!
//! Each pod is meant for one node, by an affinity to its name, and placed there like any other. It bears what a node goes through
//! ([`want::tolerations`]); a taint that it does not bear keeps it from coming, and, with `NoExecute`, from staying. A pod that failed is removed
//! and made anew, at most as often as [`failures::Failures`] allows.
//!
//! An update replaces old pods where that leaves enough available (`maxUnavailable`), or puts a new one beside the old one and removes that when
//! the new one is available (`maxSurge`).
//!
//! Flow: what is wanted ([`want::Want`]) → which pods each node has too few or too many of ([`node_pods`]) → if that is settled, the update
//! ([`rollout`]) → status → history.
//!
//! Invariant: while a node's pod goes, no other is made for that node, but for a surge.
//!
//! Left to others: placing pods (`weft_scheduler`), pods of nodes that are gone (`node`).

mod failures;
mod node_pods;
mod rollout;
mod want;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSetStatus;
use serde_json::{Value, json};
use weft_api::names;
use weft_api::view::Node;
use weft_kinds::{CAPABILITY_GRANT, CONTROLLER_REVISION, DAEMON_SET, NODE, POD};

use self::failures::Failures;
use self::node_pods::Fit;
use self::want::Want;
use crate::amount::pods;
use crate::claim::claim_objects;
use crate::indexer::Cached;
use crate::lens::DaemonSet;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::revision::{self, History, REVISION_LABEL, Update, kept_of};
use crate::template::pod_from;
use crate::view::{Touched, View};
use crate::write::{Note, Write, object};
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "daemonset-controller",
    reads: |reads| {
        reads
            .kind::<DaemonSet>()
            .kind::<Node>()
            .index(&pod::BY_CONTROLLER)
            .index(&revision::BY_CONTROLLER)
            .track::<Failures>();
    },
    keys,
    relieved,
    seeds: |view| {
        let sets = view.list::<DaemonSet>();
        sets.map(|row| row.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&DAEMON_SET, key)?.reference()),
    reconcile,
};

/// Pods made, and pods removed, in one pass; Kubernetes' `BurstReplicas`. Bounds what one refusal can waste.
const BURST: usize = 250;

type Row = Arc<Cached<Pod>>;

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&DAEMON_SET) {
        return vec![touched.key.clone()];
    }
    if touched.is_of(&NODE) {
        // What a node reports of itself all the time is none of ours.
        let facts = |node: Option<&Cached<Node>>| {
            let taints =
                |node: &Cached<Node>| node.body.spec.as_ref().and_then(|spec| spec.taints.clone());
            node.map(|node| (Arc::clone(&node.meta.labels), taints(node)))
        };
        if facts(touched.before()) == facts(touched.after()) {
            return Vec::new();
        }
        let sets = view.list::<DaemonSet>();
        return sets.map(|set| set.key.clone()).collect();
    }
    if !touched.is_of(&POD) && !touched.is_of(&CONTROLLER_REVISION) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let sets = owners.filter(|owner| *owner.kind == **DAEMON_SET);
    let mut keys: BTreeSet<Key> = sets.map(|set| set.key().clone()).collect();
    if let Some(stray) = touched.after::<Pod>()
        && stray.meta.controller().is_none()
    {
        let sets = view.list_in::<DaemonSet>(&stray.key.namespace);
        let matching = sets.filter(|set| {
            let selector = set.body.selector.as_ref();
            selector.is_some_and(|selector| selector.matches(&stray.meta.labels))
        });
        keys.extend(matching.map(|set| set.key.clone()));
    }
    keys.into_iter().collect()
}

/// A pod that was refused for want of a grant is not refused once there is one.
fn relieved(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.is_of(&CAPABILITY_GRANT) || !touched.is_there {
        return Vec::new();
    }
    let sets = view.list_in::<DaemonSet>(&touched.key.namespace);
    sets.map(|set| set.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(set) = view.get::<DaemonSet>(key) else {
        return Outcome::default();
    };
    let (Some(selector), Some(whole)) = (&set.body.selector, &set.object) else {
        return Outcome::default();
    };
    // What it owns is being collected: nothing that could be said of it would be true for long.
    if set.meta.is_deleting() {
        return Outcome::default();
    }
    let history = History::of(view, set, selector, REVISION_LABEL);
    let claims = claim_objects(view, &pod::BY_CONTROLLER, set, selector);
    let adoptions: Vec<_> = history
        .writes
        .iter()
        .chain(&claims.writes)
        .cloned()
        .collect();
    if !adoptions.is_empty() {
        // Ownership first: what is adopted is counted, and not made a second time.
        return Outcome::from_writes(adoptions);
    }
    let template = &whole.as_value()["spec"]["template"];
    let status = set.body.status.as_ref();
    let collisions = status
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let mut update = history.update(view, set, template, collisions);
    let mut outcome = Outcome::from_writes(update.write.take().into_iter().collect());

    let want = Want::of(set, &update.hash, cx.now);
    let by_node = by_node(&claims.owned);
    let fits: BTreeMap<&str, Fit> = view
        .list::<Node>()
        .map(|node| (&*node.key.name, want.fit(node)))
        .collect();
    let mut verdict = node_pods::judge(view, &want, &by_node, &fits, cx.now);
    let is_settled = verdict.missing.is_empty() && verdict.excess.is_empty();
    if is_settled && want.is_rolling() {
        verdict = rollout::judge(&want, &by_node, &fits, verdict);
    }
    if let Some(delay) = verdict.again_after {
        outcome.again_after(delay);
    }
    outcome.writes.append(&mut verdict.notes);
    let unreadable = view.unreadable_of(&POD, &set.meta.uid);
    // Which nodes those are for cannot be told: as many others wait.
    let missing = verdict.missing.iter().skip(unreadable.count());
    let at_once = if cx.last_failure.is_some() { 1 } else { BURST };
    let missing: Vec<&str> = missing.take(at_once).copied().collect();
    outcome.writes.extend(creates(
        view,
        set,
        template,
        &update,
        &claims.owned,
        &missing,
    ));
    let excess = verdict.excess.iter().take(BURST);
    outcome.writes.extend(excess.map(|pod| {
        let message = format!("Deleted pod: {}", pod.key.name);
        let told = Note::normal(set.reference(), "SuccessfulDelete", message);
        Write::delete(&**pod).telling(told.or_refused("FailedDelete"))
    }));
    write_status(set, &want, &update, &by_node, &fits, cx, &mut outcome);
    note_readiness(&want, &claims.owned, cx, &mut outcome);
    outcome
        .writes
        .extend(truncated(set, &history, &update, &claims.owned));
    outcome
}

/// Pods by the node that they are on or meant for. Those that ended and are being removed count for nothing.
fn by_node(owned: &[Row]) -> BTreeMap<&str, Vec<&Row>> {
    let mut all: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for pod in owned {
        let node = match (&*pod.body.node, &*pod.body.pinned_to) {
            ("", pinned_to) => pinned_to,
            (node, _) => node,
        };
        let is_past = pod.body.is_finished() && pod.meta.is_deleting();
        if !node.is_empty() && !is_past {
            all.entry(node).or_default().push(pod);
        }
    }
    // The one that is placed and oldest comes first.
    for pods in all.values_mut() {
        pods.sort_by_key(|pod| {
            let meta = &pod.meta;
            (
                pod.body.node.is_empty(),
                meta.creation_timestamp,
                &*pod.key.name,
            )
        });
    }
    all
}

fn creates(
    view: &View,
    set: &Cached<DaemonSet>,
    template: &Value,
    update: &Update,
    owned: &[Row],
    nodes: &[&str],
) -> Vec<Write> {
    let versions = owned.iter().filter_map(|pod| pod.meta.resource_version);
    let epoch = versions.chain(set.meta.resource_version).max().unwrap_or(0);
    let mut writes = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut attempt = 0_u64;
        let name = loop {
            let parts: [&[u8]; 4] = [
                set.meta.uid.as_bytes(),
                &epoch.to_be_bytes(),
                node.as_bytes(),
                &attempt.to_be_bytes(),
            ];
            let suffix = names::suffix(names::hash(&parts), 5);
            let name = names::generated(&set.key.name, &suffix);
            if view.object_of(&POD, &set.key.sibling(&name)).is_none() {
                break name;
            }
            attempt += 1;
        };
        let pod = new_pod(set, template, update, node, &name);
        let message = format!("Created pod: {name}");
        let told = Note::normal(set.reference(), "SuccessfulCreate", message);
        let write = Write::create(&POD, object(pod));
        writes.push(write.telling(told.or_refused("FailedCreate")));
    }
    writes
}

fn new_pod(
    set: &Cached<DaemonSet>,
    template: &Value,
    update: &Update,
    node: &str,
    name: &str,
) -> Value {
    let mut pod = pod_from(template, set, name);
    if !pod["metadata"]["labels"].is_object() {
        pod["metadata"]["labels"] = json!({});
    }
    pod["metadata"]["labels"][REVISION_LABEL] = json!(update.hash);
    if let Some(generation) = want::template_generation(set) {
        pod["metadata"]["labels"][want::GENERATION_LABEL] = json!(generation);
    }
    let borne = want::tolerations(&template["spec"]);
    pod["spec"]["tolerations"] = json!(borne);
    let affinity = &mut pod["spec"]["affinity"];
    for (place, member) in [("", "nodeAffinity"), ("/nodeAffinity", want::REQUIRED)] {
        let holder = affinity.pointer_mut(place);
        if let Some(holder) = holder.filter(|holder| !holder[member].is_object()) {
            if !holder.is_object() {
                *holder = json!({});
            }
            holder[member] = json!({});
        }
    }
    affinity["nodeAffinity"][want::REQUIRED]["nodeSelectorTerms"] =
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    pod
}

fn write_status(
    set: &Cached<DaemonSet>,
    want: &Want<'_>,
    update: &Update,
    by_node: &BTreeMap<&str, Vec<&Row>>,
    fits: &BTreeMap<&str, Fit>,
    cx: &Context<'_>,
    outcome: &mut Outcome,
) {
    let before = set.body.status.clone().unwrap_or_default();
    let [mut desired, mut current, mut misplaced] = [0_i64; 3];
    let [mut ready, mut updated, mut available] = [0_i64; 3];
    for (node, fit) in fits {
        let first = by_node.get(node).and_then(|pods| pods.first());
        if !fit.takes_new {
            misplaced += i64::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        ready += i64::from(pod.body.is_ready);
        available += i64::from(want.is_available(pod));
        updated += i64::from(want.is_updated(pod));
    }
    let some = |number: i64| (number != 0).then(|| pods(number));
    let collided = update.collisions > 0 || before.collision_count.is_some();
    let after = DaemonSetStatus {
        collision_count: collided.then_some(update.collisions),
        conditions: before.conditions.clone(),
        current_number_scheduled: pods(current),
        desired_number_scheduled: pods(desired),
        number_available: some(available),
        number_misscheduled: pods(misplaced),
        number_ready: pods(ready),
        number_unavailable: some(desired - available),
        observed_generation: Some(set.meta.generation),
        updated_number_scheduled: some(updated),
    };
    if before != after
        && let Some(write) = Write::status(set, &before, &after)
    {
        // What was refused ends the list, and what is there is to be told all the same.
        let at = match cx.last_failure {
            Some(_) => 0,
            None => outcome.writes.len(),
        };
        outcome.writes.insert(at, write);
    }
}

/// Looks again when the next pod has been ready for long enough.
fn note_readiness(want: &Want<'_>, owned: &[Row], cx: &Context<'_>, outcome: &mut Outcome) {
    let due = owned
        .iter()
        .filter_map(|pod| Some(plus_seconds(pod.body.ready_since()?, want.min_ready)))
        .filter(|due| *due > cx.now)
        .min();
    if let Some(due) = due {
        outcome.again_after(until(due, cx.now));
    }
}

/// The oldest revisions beyond the limit; those that pods are of count, and stay.
fn truncated(
    set: &Cached<DaemonSet>,
    history: &History,
    update: &Update,
    owned: &[Row],
) -> Vec<Write> {
    let live: BTreeSet<&String> = owned
        .iter()
        .filter_map(|pod| pod.meta.labels.get(REVISION_LABEL))
        .collect();
    let others = history.spent(|revision| *revision.key.name == *update.name);
    let limit = kept_of(set.body.spec.revision_history_limit);
    let excess = others.len().saturating_sub(limit);
    let spent = others.into_iter().filter(|revision| {
        let hash = revision.meta.labels.get(REVISION_LABEL);
        !hash.is_some_and(|hash| live.contains(hash))
    });
    spent
        .take(excess)
        .map(|revision| Write::delete(&**revision))
        .collect()
}
