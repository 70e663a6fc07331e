//! What a Job asks for, with the defaults that the server fills in, and what it takes for a failure.
//!
//! Numbers of pods are `i64` here: each is an `i32` that somebody wrote, so sums of them stay far below.

use k8s_openapi::api::batch::v1::JobSpec;

use super::policy::{Verdict, verdict};
use super::{INDEX, INDEX_FAILURES, INDEX_FAILURES_IGNORED, TRACKING};
use crate::indexer::Cached;
use crate::lens::Job;
use crate::pod::{Phase, Pod};

/// What is asked for.
pub struct Want<'a> {
    pub row: &'a Cached<Job>,
    pub spec: &'a JobSpec,
    pub parallelism: i64,
    /// `None`: the first pod that succeeds says that the work is done.
    pub completions: Option<i64>,
    /// Each pod has an index below the completions.
    pub is_indexed: bool,
    pub retries: i64,
    pub retries_of_index: Option<i64>,
    pub is_suspended: bool,
    /// A pod is replaced when it has failed, not already when it is on its way out.
    pub awaits_failure: bool,
}

impl<'a> Want<'a> {
    /// `None` for a Job that says nothing that can be worked on.
    pub fn of(row: &'a Cached<Job>) -> Option<Self> {
        let spec = row.body.spec.as_ref()?;
        let is_indexed = match spec.completion_mode.as_deref() {
            None | Some("NonIndexed") => false,
            Some("Indexed") => true,
            // Of a release after this one.
            Some(_) => return None,
        };
        let completions = spec.completions.map(i64::from);
        if is_indexed && completions.is_none() {
            return None;
        }
        Some(Self {
            row,
            spec,
            parallelism: i64::from(spec.parallelism.unwrap_or(1)),
            completions,
            is_indexed,
            retries: i64::from(spec.backoff_limit.unwrap_or(6)),
            retries_of_index: spec.backoff_limit_per_index.map(i64::from),
            is_suspended: spec.suspend == Some(true),
            awaits_failure: spec.pod_replacement_policy.as_deref() == Some("Failed"),
        })
    }

    pub fn has_failed(&self, pod: &Cached<Pod>) -> bool {
        match pod.body.phase {
            Phase::Failed => true,
            Phase::Succeeded => false,
            // Who deletes a pod whose node is gone never sees it fail.
            _ => !self.awaits_failure && pod.meta.is_deleting(),
        }
    }

    pub fn verdict(&self, pod: &Cached<Pod>) -> Verdict {
        let policy = self.spec.pod_failure_policy.as_ref();
        match &pod.body.end {
            Some(end) => verdict(policy, &pod.key, end),
            None => Verdict::Count,
        }
    }

    /// The index of a pod, if it has one that is wanted.
    pub fn index_of(&self, pod: &Cached<Pod>) -> Option<i64> {
        index_of(pod).filter(|index| self.completions.is_some_and(|end| *index < end))
    }

    /// Whether the pod can count at all: of an Indexed Job only one with an index.
    pub fn counts(&self, pod: &Cached<Pod>) -> bool {
        !self.is_indexed || self.index_of(pod).is_some()
    }

    /// The end of this pod says that its index has failed for good.
    pub fn fails_index(&self, pod: &Cached<Pod>) -> bool {
        let Some(retries) = self.retries_of_index.filter(|_| self.has_failed(pod)) else {
            return false;
        };
        match self.verdict(pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => counted_failures(pod) >= retries,
        }
    }
}

/// The pod has still to be counted.
pub fn is_tracked(pod: &Cached<Pod>) -> bool {
    pod.meta.has_finalizer(TRACKING)
}

/// The index that a pod says it has.
pub fn index_of(pod: &Cached<Pod>) -> Option<i64> {
    let index: i64 = pod.meta.annotations.get(INDEX)?.parse().ok()?;
    (index >= 0).then_some(index)
}

fn number(pod: &Cached<Pod>, annotation: &str) -> i64 {
    let text = pod.meta.annotations.get(annotation);
    let number: Option<i32> = text.and_then(|text| text.parse().ok());
    i64::from(number.unwrap_or(0).max(0))
}

/// How many pods of its index failed before this one and counted.
pub fn counted_failures(pod: &Cached<Pod>) -> i64 {
    number(pod, INDEX_FAILURES)
}

/// How many failed and did not.
pub fn ignored_failures(pod: &Cached<Pod>) -> i64 {
    number(pod, INDEX_FAILURES_IGNORED)
}

/// How many failed at all.
pub fn all_failures(pod: &Cached<Pod>) -> i64 {
    counted_failures(pod) + ignored_failures(pod)
}
