//! Pods that hold the finalizer of a Job's pods though no Job will count them: their Job is gone or over, or they are
//! nobody's. They lose it, so that they can go.
//!
//! A key is a pod's. Invariant: a pod whose Job goes on, or is somebody else's to manage, keeps its finalizer.

use serde_json::json;
use weft_kinds::patch::PatchKind;
use weft_kinds::{JOB, POD};

use super::{TRACKING, has_ended, is_managed_elsewhere};
use crate::indexer::Cached;
use crate::lens::Job;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "job-orphan-controller",
    reads: |reads| {
        reads.kind::<Job>().index(&pod::BY_CONTROLLER);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let pods = view.list::<Pod>();
        let held = pods.filter(|pod| pod.meta.has_finalizer(TRACKING));
        held.map(|pod| pod.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&POD, key)?.reference()),
    reconcile,
};

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if let Some(pod) = touched.after::<Pod>() {
        let is_held = pod.meta.has_finalizer(TRACKING);
        return is_held.then(|| pod.key.clone()).into_iter().collect();
    }
    if !touched.is_of(&JOB) || touched.after::<Job>().is_some_and(|job| !has_ended(job)) {
        return Vec::new();
    }
    let pods = view.list_by(&pod::BY_CONTROLLER, &touched.uid);
    let held = pods.filter(|pod| pod.meta.has_finalizer(TRACKING));
    held.map(|pod| pod.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(pod) = view.get::<Pod>(key) else {
        return Outcome::default();
    };
    if !pod.meta.has_finalizer(TRACKING) || is_awaited(view, pod) {
        return Outcome::default();
    }
    // Decided on exactly this state: a Job may be about to adopt it.
    let mut write = let_go(pod);
    if let Write::Patch {
        resource_version, ..
    } = &mut write
    {
        *resource_version = pod.meta.resource_version;
    }
    Outcome::from_writes(vec![write])
}

/// Somebody will yet count it.
fn is_awaited(view: &View, pod: &Cached<Pod>) -> bool {
    let Some(owner) = pod.meta.controller() else {
        return false;
    };
    if owner.kind != JOB.kind || owner.api_version != JOB.api_version() {
        return true;
    }
    let key = pod.key.sibling(&owner.name);
    let is_there = view
        .object_of(&JOB, &key)
        .is_some_and(|job| *job.meta.uid == *owner.uid);
    // One that cannot be read may go on once it can.
    let goes_on = |job: &Cached<Job>| !has_ended(job) || is_managed_elsewhere(job);
    is_there && view.get::<Job>(&key).is_none_or(|job| goes_on(job))
}

/// Takes the finalizer from a pod, whatever else changed of it.
pub fn let_go(pod: &Cached<Pod>) -> Write {
    let metadata = json!({"$deleteFromPrimitiveList/finalizers": [TRACKING]});
    let mut write = Write::patch(pod, json!({ "metadata": metadata })).unbound();
    if let Write::Patch { patch_kind, .. } = &mut write {
        *patch_kind = PatchKind::Strategic;
    }
    write
}
