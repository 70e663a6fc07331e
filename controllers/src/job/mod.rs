//! Jobs: pods that run to their end, until enough of them succeeded or too many failed.
//!
//! A pod is counted once, though pods go: each carries a finalizer ([`TRACKING`]) until its Job has counted it. A pass that
//! meets pods that ended writes their uids into `status.uncountedTerminatedPods` and, that written, takes the finalizers
//! away; the next pass counts each uid whose pod has lost it. Of an Indexed Job the index of a pod that succeeded
//! is enough. Only when nothing is left to count, and no pod is on its way out, does a Job become Complete or Failed; that it will,
//! conditions say before (`SuccessCriteriaMet`, `FailureTarget`), so that a later pass does not think otherwise.
//!
//! What is asked for is [`want::Want`]; [`pass::Pass`] decides, [`tally`] counts and ends, [`pods`] makes pods, [`pause`] holds them
//! back after failures. Beside it: finalizers of pods that no Job counts any more ([`orphans`]) and Jobs that are over for
//! long enough ([`ttl`]).
//!
//! Invariants: a pod's end is in the status before its finalizer goes, so no end is lost and none counted twice, wherever
//! a pass stops; never more pods are made than completions are missing. A Job one of whose pods cannot be read is left
//! alone: it would be counted wrong. So is one that `spec.managedBy` gives to somebody else.
//! Left to others: collecting the pods of a deleted Job (`garbage`), ending pods (`weft_agent`, `node`).

mod end;
mod indexes;
pub mod orphans;
mod pass;
mod pause;
mod pods;
mod policy;
mod tally;
pub mod ttl;
mod want;

use k8s_openapi::api::batch::v1::JobCondition;
use weft_kinds::{CAPABILITY_GRANT, JOB, POD};

pub use self::end::End;
use self::pass::Pass;
use self::pause::Streaks;
use self::want::Want;
use crate::claim::claim_tracked;
use crate::indexer::Cached;
use crate::lens::Job;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::view::{Touched, View};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "job-controller",
    reads: |reads| {
        reads
            .kind::<Job>()
            .index(&pod::BY_CONTROLLER)
            .track::<Streaks>();
    },
    keys,
    relieved,
    seeds: |view| view.list::<Job>().map(|row| row.key.clone()).collect(),
    subject: |view, key| Some(view.object_of(&JOB, key)?.reference()),
    reconcile,
};

/// The finalizer of pods that their Job has still to count.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Of a pod of an Indexed Job: which one it is, as an annotation and as a label.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Of a pod of a Job with a limit for each index: how many before it failed, and how many of whom that does not count.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_FAILURES_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Who manages a Job that does not say otherwise.
const OURSELVES: &str = "kubernetes.io/job-controller";

pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
const FAILURE_TARGET: &str = "FailureTarget";
const SUSPENDED: &str = "Suspended";

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&JOB) {
        return vec![touched.key.clone()];
    }
    if !touched.is_of(&POD) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let jobs = owners.filter(|owner| *owner.kind == **JOB);
    let mut keys: Vec<Key> = jobs.map(|job| job.key().clone()).collect();
    if let Some(pod) = touched.after::<Pod>()
        && pod.meta.controller().is_none()
    {
        let jobs = view.list_in::<Job>(&pod.key.namespace);
        let matching = jobs.filter(|job| {
            let selector = job.body.selector.as_ref();
            selector.is_some_and(|selector| selector.matches(&pod.meta.labels))
        });
        keys.extend(matching.map(|job| job.key.clone()));
    }
    keys
}

/// A pod that was refused for want of a grant is not refused once there is one; and pods that ended are counted, whatever
/// keeps new ones from being made.
fn relieved(view: &View, touched: &Touched) -> Vec<Key> {
    let pod = touched.after::<Pod>();
    if let Some(job) = pod
        .filter(|pod| pod.body.end.is_some())
        .and_then(|p| p.meta.controller())
    {
        let job = view.object(&job.uid).filter(|job| *job.kind == **JOB);
        return job.map(|job| job.key().clone()).into_iter().collect();
    }
    if !touched.is_of(&CAPABILITY_GRANT) || !touched.is_there {
        return Vec::new();
    }
    let jobs = view.list_in::<Job>(&touched.key.namespace);
    jobs.map(|job| job.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Job>(key) else {
        return Outcome::default();
    };
    if is_managed_elsewhere(row) || has_ended(row) {
        return Outcome::default();
    }
    let (Some(want), Some(selector)) = (Want::of(row), &row.body.selector) else {
        return Outcome::default();
    };
    let mut unreadable = view.unreadable_of(&POD, &row.meta.uid);
    if unreadable.next().is_some() {
        return Outcome::default();
    }
    let index = &pod::BY_CONTROLLER;
    let claims = claim_tracked(view, index, row, selector, Some(TRACKING));
    if !claims.writes.is_empty() {
        // Ownership first: the next pass counts the adopted pods.
        return Outcome::from_writes(claims.writes);
    }
    Pass::new(want, claims.owned, cx).run(view)
}

fn is_managed_elsewhere(job: &Cached<Job>) -> bool {
    let manager = job.body.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_some_and(|manager| manager != OURSELVES)
}

/// The condition, if it holds.
pub fn condition<'a>(job: &'a Cached<Job>, kind: &str) -> Option<&'a JobCondition> {
    let status = job.body.status.as_ref()?;
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// It is Complete or Failed, and nothing changes about it any more.
pub fn has_ended(job: &Cached<Job>) -> bool {
    condition(job, COMPLETE).is_some() || condition(job, FAILED).is_some()
}
