//! PodDisruptionBudgets: how many of the pods they select may be taken away now.
//!
//! What has to be healthy is a number, or a share of what the pods' controllers ask for: the sum of their scales, whatever kind
//! they are ([`Scales`]). What is healthy is ready, not being deleted, and not about to be: an eviction writes down its pod in the
//! budget, and counts until the pod is seen to go or [`DELETION_TIMEOUT`] is over.
//!
//! Where that cannot be worked out, nothing is allowed and the condition says why.
//!
//! Beside it, the condition of a pod that was to be disrupted and was not is taken back ([`STALE`]).
//!
//! Left to others: spending what is allowed (`weft_apiserver::objects::evict`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use weft_api::meta::OwnerReference;
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_api::view::{IntOrString, Time};
use weft_kinds::{Kind, POD, POD_DISRUPTION_BUDGET, Subresource};

use crate::amount::{count, pods, pods_of};
use crate::indexer::{Cached, Lens};
use crate::lens::typed;
use crate::metadata::Key;
use crate::pod::Pod;
use crate::view::{Touched, Track, View};
use crate::write::{Note, Write};
use crate::{Context, Controller, Outcome, plus_seconds, stamp, until};

pub const CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    reads: |reads| {
        reads.kind::<Budget>().kind::<Pod>().track::<Scales>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Budget>().map(|row| row.key.clone()).collect(),
    subject: |view, key| Some(view.object_of(&POD_DISRUPTION_BUDGET, key)?.reference()),
    reconcile,
};

/// Keys are pods.
pub const STALE: Controller = Controller {
    name: "disruption-controller",
    reads: |reads| {
        reads.kind::<Pod>();
    },
    keys: |_, touched| {
        let pod = touched.after::<Pod>().filter(|pod| is_about_to_go(pod));
        pod.map(|pod| pod.key.clone()).into_iter().collect()
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let pods = view.list::<Pod>().filter(|pod| is_about_to_go(pod));
        pods.map(|pod| pod.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&POD, key)?.reference()),
    reconcile: take_back,
};

/// How long an eviction counts whose pod is not being deleted, in seconds.
const DELETION_TIMEOUT: i64 = 120;
/// How long a pod is believed that it is about to be disrupted, in seconds.
const STALE_TIMEOUT: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

/// What a budget asks for, and what it was told.
#[derive(Debug)]
pub struct Budget {
    selector: LabelSelector,
    min_available: Option<IntOrString>,
    max_unavailable: Option<IntOrString>,
    status: PodDisruptionBudgetStatus,
}

impl Lens for Budget {
    fn kind() -> &'static Arc<Kind> {
        &POD_DISRUPTION_BUDGET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let typed: PodDisruptionBudget = typed(object)?;
        let spec = typed.spec.unwrap_or_default();
        let selector = LabelSelector::from_object(&object.as_value()["spec"]["selector"]);
        Ok(Self {
            selector: selector.unwrap_or_else(|_| LabelSelector::nothing()),
            min_available: spec.min_available,
            max_unavailable: spec.max_unavailable,
            status: typed.status.unwrap_or_default(),
        })
    }
}

/// How many pods each object asks for that has a scale, by uid; `None`: it does not say.
#[derive(Debug, Default)]
struct Scales(BTreeMap<Arc<str>, Option<i64>>);

impl Track for Scales {
    fn notice(&mut self, touched: &Touched, _: bool, _: Timestamp) {
        if !touched.kind.subresources.contains(&Subresource::Scale) {
            return;
        }
        if !touched.is_there {
            self.0.remove(&touched.uid);
            return;
        }
        let replicas = touched
            .object
            .as_value()
            .pointer(replicas_of(&touched.kind));
        let replicas = replicas.and_then(serde_json::Value::as_i64);
        self.0.insert(Arc::clone(&touched.uid), replicas);
    }
}

/// Where objects of a kind say how many pods they ask for, as a pointer.
fn replicas_of(kind: &Kind) -> &str {
    let scale = kind.custom.as_ref().and_then(|custom| custom.scale());
    scale.map_or("/spec/replicas", |scale| &scale.spec_replicas)
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&POD_DISRUPTION_BUDGET) {
        return vec![touched.key.clone()];
    }
    if !touched.is_of(&POD) {
        return Vec::new();
    }
    let budgets = view.list_in::<Budget>(&touched.key.namespace);
    let matching = budgets.filter(|budget| {
        let mut states = touched.states::<Pod>();
        states.any(|pod| budget.body.selector.matches(&pod.meta.labels))
    });
    matching.map(|budget| budget.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Budget>(key) else {
        return Outcome::default();
    };
    let selected: Vec<&Arc<Cached<Pod>>> = view
        .list_in::<Pod>(&key.namespace)
        .filter(|pod| row.body.selector.matches(&pod.meta.labels))
        .collect();
    let before = &row.body.status;
    let mut notes = Vec::new();
    let mut outcome = Outcome::default();
    if selected.is_empty() {
        let told = Note::normal(row.reference(), "NoPods", "No matching pods found");
        notes.push(told);
    }
    let after = match expected(view, cx, &row.body, &selected) {
        Ok(expected) => {
            if expected.unmanaged {
                notes.push(Note::warning(
                    row.reference(),
                    "UnmanagedPods",
                    "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot \
                     be calculated correctly, which may result in undefined behavior. To account for these pods please set \
                     \".spec.minAvailable\" field of the PDB to an integer value.",
                ));
            }
            let (disrupted, due) = still_disrupted(before, &selected, cx.now, &mut notes);
            if let Some(due) = due {
                // Just after it, as it counts up to its last second.
                outcome.again_after(until(due, cx.now) + Duration::from_secs(1));
            }
            let healthy = healthy(&selected, &disrupted, cx.now);
            counted(row, &expected, healthy, disrupted, cx)
        }
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            let reason = "CalculateExpectedPodCountFailed";
            notes.push(Note::warning(row.reference(), reason, message));
            let mut after = before.clone();
            after.disruptions_allowed = Some(0);
            set_condition(&mut after, false, "SyncFailed", &why, cx.now);
            after
        }
    };
    if *before != after
        && let Some(write) = Write::status(&**row, before, &after)
    {
        outcome.writes.push(write);
        outcome.writes.extend(notes.into_iter().map(Write::Event));
    }
    outcome
}

/// What a budget comes to, in pods.
#[derive(Debug, PartialEq)]
struct Expected {
    pods: i64,
    healthy: i64,
    /// Some pods have no controller whose scale could be asked.
    unmanaged: bool,
}

fn expected(
    view: &View,
    cx: &Context<'_>,
    budget: &Budget,
    selected: &[&Arc<Cached<Pod>>],
) -> Result<Expected, String> {
    let none = Expected {
        pods: 0,
        healthy: 0,
        unmanaged: false,
    };
    match (&budget.max_unavailable, &budget.min_available) {
        (Some(most), _) => {
            let (total, unmanaged) = total_scale(view, cx, selected)?;
            Ok(Expected {
                pods: total,
                healthy: (total - pods_of(most, total, true)).max(0),
                unmanaged,
            })
        }
        (None, Some(IntOrString::Int(number))) => Ok(Expected {
            pods: i64::try_from(selected.len()).unwrap_or(i64::MAX),
            healthy: count(Some(*number)),
            ..none
        }),
        (None, Some(share)) => {
            let (total, unmanaged) = total_scale(view, cx, selected)?;
            Ok(Expected {
                pods: total,
                healthy: pods_of(share, total, true),
                unmanaged,
            })
        }
        (None, None) => Ok(none),
    }
}

/// What all controllers of these pods ask for, and whether some pods have none.
fn total_scale(
    view: &View,
    cx: &Context<'_>,
    selected: &[&Arc<Cached<Pod>>],
) -> Result<(i64, bool), String> {
    // Of each controller that pods name, whose scale counts: several may lead to one.
    let mut asked: BTreeMap<&str, ()> = BTreeMap::new();
    let mut scales: BTreeMap<&str, i64> = BTreeMap::new();
    let mut unmanaged = false;
    for pod in selected {
        let Some(owner) = pod.meta.controller() else {
            unmanaged = true;
            continue;
        };
        if asked.insert(&owner.uid, ()).is_some() {
            continue;
        }
        let found = scale_of(view, cx, owner, &pod.key)?;
        let Some((uid, scale)) = found else {
            return Err(format!("found no controllers for pod {:?}", &*pod.key.name));
        };
        scales.insert(uid, scale);
    }
    Ok((
        scales.values().map(|scale| count_of(*scale)).sum(),
        unmanaged,
    ))
}

fn count_of(scale: i64) -> i64 {
    scale.clamp(0, i64::from(i32::MAX))
}

/// The uid and scale of a pod's controller; of a ReplicaSet's Deployment instead of its own. `None`: it is not there.
fn scale_of<'a>(
    view: &'a View,
    cx: &Context<'_>,
    owner: &'a OwnerReference,
    pod: &Key,
) -> Result<Option<(&'a str, i64)>, String> {
    let (group, version) = owner
        .api_version
        .split_once('/')
        .unwrap_or(("", &owner.api_version));
    // The group that Deployments and ReplicaSets once were in.
    let group = if group == "extensions" { "apps" } else { group };
    let Some(kind) = cx.kinds.by_group_kind(group, &owner.kind) else {
        let api_version = if group.is_empty() {
            version
        } else {
            &owner.api_version
        };
        return Err(format!(
            "no matches for kind {:?} in version {api_version:?}",
            owner.kind
        ));
    };
    if !kind.subresources.contains(&Subresource::Scale) {
        let resource = if group.is_empty() {
            kind.resource.to_string()
        } else {
            format!("{}.{group}", kind.resource)
        };
        return Err(format!(
            "{resource} does not implement the scale subresource"
        ));
    }
    let named = |owner: &OwnerReference| {
        let object = view.object(&owner.uid)?;
        let is_it = *object.kind.kind == *owner.kind
            && *object.key().name == *owner.name
            && object.key().namespace == pod.namespace;
        is_it.then_some(object)
    };
    let Some(object) = named(owner) else {
        return Ok(None);
    };
    let above = object
        .meta
        .controller()
        .filter(|_| group == "apps" && owner.kind == "ReplicaSet")
        .filter(|above| above.kind == "Deployment")
        .and_then(named);
    let object = above.unwrap_or(object);
    let uid = &*object.meta.uid;
    match view.tracked::<Scales>().0.get(uid) {
        Some(Some(scale)) => Ok(Some((uid, *scale))),
        _ => {
            let field = replicas_of(&object.kind).replace('/', ".");
            Err(format!(
                "Internal error occurred: the spec replicas field {field:?} does not exist"
            ))
        }
    }
}

/// The evictions that still count, and when the first of them stops to.
fn still_disrupted(
    before: &PodDisruptionBudgetStatus,
    selected: &[&Arc<Cached<Pod>>],
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> (BTreeMap<String, Time>, Option<Timestamp>) {
    let mut kept = BTreeMap::new();
    let mut first: Option<Timestamp> = None;
    let Some(disrupted) = &before.disrupted_pods else {
        return (kept, first);
    };
    for pod in selected.iter().filter(|pod| !pod.meta.is_deleting()) {
        let Some(since) = disrupted.get(&*pod.key.name) else {
            continue;
        };
        let due = plus_seconds(since.0, DELETION_TIMEOUT);
        if due < now {
            let message = format!(
                "Pod was expected by PDB {0}/{0} to be deleted but it wasn't",
                pod.key.namespace
            );
            notes.push(Note::warning(pod.reference(), "NotDeleted", message));
        } else {
            first = Some(first.map_or(due, |first| first.min(due)));
            kept.insert(pod.key.name.to_string(), since.clone());
        }
    }
    (kept, first)
}

fn healthy(
    selected: &[&Arc<Cached<Pod>>],
    disrupted: &BTreeMap<String, Time>,
    now: Timestamp,
) -> i64 {
    let is_going = |pod: &Cached<Pod>| {
        let since = disrupted.get(&*pod.key.name);
        since.is_some_and(|since| plus_seconds(since.0, DELETION_TIMEOUT) > now)
    };
    let healthy = selected
        .iter()
        .filter(|pod| pod.body.is_ready && !pod.meta.is_deleting() && !is_going(pod));
    i64::try_from(healthy.count()).unwrap_or(i64::MAX)
}

fn counted(
    row: &Cached<Budget>,
    expected: &Expected,
    healthy: i64,
    disrupted: BTreeMap<String, Time>,
    cx: &Context<'_>,
) -> PodDisruptionBudgetStatus {
    // No pods: whoever comes first is safe until it is counted.
    let allowed = if expected.pods > 0 {
        (healthy - expected.healthy).max(0)
    } else {
        0
    };
    let mut after = PodDisruptionBudgetStatus {
        conditions: row.body.status.conditions.clone(),
        current_healthy: Some(pods(healthy)),
        desired_healthy: Some(pods(expected.healthy)),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(pods(allowed)),
        expected_pods: Some(pods(expected.pods)),
        observed_generation: Some(row.meta.generation),
    };
    let reason = if allowed > 0 {
        "SufficientPods"
    } else {
        "InsufficientPods"
    };
    set_condition(&mut after, allowed > 0, reason, "", cx.now);
    after
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let holds = if holds { "True" } else { "False" };
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter_mut().find(|old| old.type_ == ALLOWED);
    let same = old.as_ref().filter(|old| old.status == holds);
    let since = same.map_or_else(|| stamp(now), |old| old.last_transition_time.clone());
    let condition = Condition {
        last_transition_time: since,
        message: message.to_owned(),
        observed_generation,
        reason: reason.to_owned(),
        status: holds.to_owned(),
        type_: ALLOWED.to_owned(),
    };
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// It says that it is to be disrupted, and nothing was done about it.
fn is_about_to_go(pod: &Cached<Pod>) -> bool {
    pod.body.disrupted_since.is_some() && !pod.meta.is_deleting() && !pod.body.is_finished()
}

fn take_back(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let pod = view.get::<Pod>(key).filter(|pod| is_about_to_go(pod));
    let Some((pod, since)) = pod.and_then(|pod| Some((pod, pod.body.disrupted_since?))) else {
        return Outcome::default();
    };
    let due = plus_seconds(since, STALE_TIMEOUT);
    let mut outcome = Outcome::default();
    if due > cx.now {
        outcome.again_after(until(due, cx.now));
    } else {
        let condition = json!({
            "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
            "lastTransitionTime": stamp(cx.now),
        });
        outcome.writes.push(Write::condition(&**pod, &condition));
    }
    outcome
}

#[cfg(test)]
mod tests;
