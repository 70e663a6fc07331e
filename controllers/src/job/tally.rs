//! Counting the pods of a Job that ended, and ending the Job.
//!
//! Invariant: a pod loses its finalizer in the pass whose status names it, or whose indexes have its own; the counters grow
//! in a later pass, that finds it without.

use std::collections::BTreeSet;

use weft_api::view::Time;

use super::orphans::let_go;
use super::pass::{Ending, Pass, number};
use super::policy::Verdict;
use super::want::is_tracked;
use super::{COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, condition};
use crate::indexer::Cached;
use crate::pod::{Phase, Pod};
use crate::stamp;
use crate::write::{Note, Write};

/// Pods that a status names, so that it stays below some 20 KB.
const UNCOUNTED_MAX: usize = 500;

/// Why Jobs fail, by our own judgement.
const FAILURES: &[&str] = &[
    "PodFailurePolicy",
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
];

impl Pass<'_> {
    /// Counts into the status what ended, and says there how the Job ends. Returns the writes that take the finalizers away.
    pub(super) fn tally(&mut self, ending: Option<Ending>, terminating: i64) -> Vec<Write> {
        let uncounted = self
            .status
            .uncounted_terminated_pods
            .take()
            .unwrap_or_default();
        let tracked: Vec<_> = self.pods.iter().filter(|pod| is_tracked(pod)).collect();
        let held: BTreeSet<&str> = tracked.iter().map(|pod| &*pod.meta.uid).collect();
        let mut succeeded = uncounted.succeeded.unwrap_or_default();
        let mut failed = uncounted.failed.unwrap_or_default();
        for (list, counter) in [
            (&mut succeeded, &mut self.status.succeeded),
            (&mut failed, &mut self.status.failed),
        ] {
            let before = list.len();
            list.retain(|uid| held.contains(uid.as_str()));
            let counted = i64::try_from(before - list.len()).unwrap_or(i64::MAX);
            *counter = number(i64::from(counter.unwrap_or(0)) + counted);
        }
        let named: BTreeSet<String> = succeeded.iter().chain(&failed).cloned().collect();
        let has_failed = ending
            .as_ref()
            .is_some_and(|e| e.condition != SUCCESS_CRITERIA_MET);
        let mut writes = Vec::new();
        let mut new_indexes = 0;
        let mut is_full = false;
        for pod in tracked {
            if !self.may_go(pod, ending.is_some()) {
                continue;
            }
            writes.push(let_go(pod));
            let is_named = named.contains(&*pod.meta.uid);
            let uid = pod.meta.uid.to_string();
            if pod.body.phase == Phase::Succeeded {
                match (&self.split, self.want.index_of(pod)) {
                    (Some(split), Some(index)) if !split.counted.has(index) => new_indexes += 1,
                    (None, _) if !is_named => succeeded.push(uid),
                    _ => {}
                }
            } else if (self.want.has_failed(pod) || has_failed)
                && !is_named
                && self.want.counts(pod)
                && self.want.verdict(pod) != Verdict::Ignore
            {
                // What still ran when the Job failed, failed with it.
                failed.push(uid);
            }
            if new_indexes + succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                is_full = true;
                break;
            }
        }
        if let Some(split) = &self.split {
            let text = split.succeeded.to_string();
            self.status.succeeded = number(split.succeeded.total());
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
            self.status.failed_indexes = split.failed.as_ref().map(ToString::to_string);
        }
        let is_counted = writes.is_empty() && succeeded.is_empty() && failed.is_empty();
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let uncounted = self
            .status
            .uncounted_terminated_pods
            .get_or_insert_default();
        uncounted.succeeded = list(succeeded);
        uncounted.failed = list(failed);
        if let Some(ending) = ending {
            let is_known = condition(self.want.row, SUCCESS_CRITERIA_MET).is_some()
                || condition(self.want.row, FAILURE_TARGET).is_some();
            if is_known && is_counted && !is_full && terminating == 0 {
                self.end(&ending);
            } else if ending.condition != FAILED {
                self.set_condition(ending.condition, "True", &ending.reason, &ending.message);
            }
        }
        writes
    }

    /// The finalizer can go: the pod is counted, or nobody counts any more.
    fn may_go(&self, pod: &Cached<Pod>, ends: bool) -> bool {
        if self.want.row.meta.is_deleting() || ends || pod.body.phase == Phase::Succeeded {
            return true;
        }
        // The next pod of the index has still to learn from this one how many failed.
        let is_awaited = || {
            let index = self.want.index_of(pod);
            let last = index.and_then(|index| self.last_failed.get(&index));
            last.is_some_and(|last| last.meta.uid == pod.meta.uid)
        };
        self.want.has_failed(pod) && !is_awaited()
    }

    /// Nothing is left to count: it is over.
    fn end(&mut self, ending: &Ending) {
        let about = self.want.row.reference();
        if ending.condition == SUCCESS_CRITERIA_MET {
            self.set_condition(COMPLETE, "True", &ending.reason, &ending.message);
            let now: Time = stamp(self.cx.now);
            self.status.completion_time = Some(now);
            let succeeded = i64::from(self.status.succeeded.unwrap_or(0));
            if self
                .want
                .completions
                .is_some_and(|wanted| succeeded > wanted)
            {
                let message = "Too many succeeded pods running after completion count reached";
                let told = Note::warning(about.clone(), "TooManySucceededPods", message);
                self.notes.push(told);
            }
            self.notes
                .push(Note::normal(about, "Completed", "Job completed"));
        } else {
            self.set_condition(FAILED, "True", &ending.reason, &ending.message);
            let known = FAILURES.iter().find(|known| **known == ending.reason);
            let reason = known.copied().unwrap_or(FAILED);
            self.notes
                .push(Note::warning(about, reason, ending.message.clone()));
        }
    }
}
