//! One pass over a Job: whether it ends, and which pods it makes and lets go of meanwhile.
//!
//! The order in which reasons to end are looked at is Kubernetes': what an earlier pass decided, what a failed pod says by
//! the policy of failures, too many failures, too long, then indexes, then success.
//!
//! Numbers in the status are those after the pass's own creates and deletes, which come first; a refusal keeps the status
//! from being written. After a refusal the status comes first, of what is there, and then one pod is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use weft_api::view::Time;

use super::indexes::Indexes;
use super::pause::{Streak, Streaks, left_after};
use super::pods::{New, create, delete, indexes_of, remove, surplus};
use super::policy::{Verdict, success};
use super::want::{Want, all_failures, index_of, is_tracked};
use super::{FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED, condition};
use crate::indexer::Cached;
use crate::pod::{Phase, Pod};
use crate::view::View;
use crate::write::{Note, Write};
use crate::{Context, Outcome, plus_seconds, stamp, until};

/// Pods made or deleted in one pass. Bounds what one refusal can waste.
const BURST: usize = 500;

/// That a Job ends, as a condition says it.
#[derive(Debug, Clone)]
pub struct Ending {
    /// `SuccessCriteriaMet`, `FailureTarget`, or `Failed` of one that has been a target before.
    pub condition: &'static str,
    pub reason: String,
    pub message: String,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self {
            condition: FAILURE_TARGET,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self {
            condition: SUCCESS_CRITERIA_MET,
            ..Self::failure(reason, message)
        }
    }

    fn decided(condition: &'static str, before: &JobCondition) -> Self {
        Self {
            condition,
            reason: before.reason.clone().unwrap_or_default(),
            message: before.message.clone().unwrap_or_default(),
        }
    }
}

/// The indexes of an Indexed Job by what became of them.
pub struct Split {
    /// As the status had them.
    pub counted: Indexes,
    pub succeeded: Indexes,
    /// `None`: failures do not count by index.
    pub failed: Option<Indexes>,
}

/// The pass over one Job.
pub struct Pass<'a> {
    pub(super) want: Want<'a>,
    pub(super) cx: &'a Context<'a>,
    /// The pods it controls; those of an Indexed Job in order of their indexes.
    pub(super) pods: Vec<Arc<Cached<Pod>>>,
    pub(super) status: JobStatus,
    pub(super) split: Option<Split>,
    /// The pod of each index that failed last, kept until the next one of the index knows of it.
    pub(super) last_failed: BTreeMap<i64, Arc<Cached<Pod>>>,
    active: Vec<Arc<Cached<Pod>>>,
    counts: Counts,
    actions: Vec<Write>,
    pub(super) notes: Vec<Note>,
    again: Option<Duration>,
}

/// Pods as the status tells them.
#[derive(Clone, Copy)]
struct Counts {
    active: i64,
    ready: i64,
    terminating: i64,
}

impl<'a> Pass<'a> {
    /// `pods`: those that the Job controls.
    pub fn new(want: Want<'a>, mut pods: Vec<Arc<Cached<Pod>>>, cx: &'a Context<'a>) -> Self {
        if want.is_indexed {
            pods.sort_by_key(|pod| index_of(pod));
        }
        let active = pods.iter().filter(|pod| Pod::is_active(pod));
        let active: Vec<_> = active.cloned().collect();
        let ready = active.iter().filter(|pod| pod.body.is_ready);
        let counts = Counts {
            active: count(active.iter()),
            ready: count(ready),
            terminating: count(pods.iter().filter(|pod| is_terminating(pod))),
        };
        let mut status = want.row.body.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        Self {
            want,
            cx,
            pods,
            status,
            split: None,
            last_failed: BTreeMap::new(),
            active,
            counts,
            actions: Vec::new(),
            notes: Vec::new(),
            again: None,
        }
    }

    pub fn run(mut self, view: &View) -> Outcome {
        if self.status.start_time.is_none() && !self.want.is_suspended {
            self.status.start_time = Some(stamp(self.cx.now));
        }
        let (mut succeeded, failed) = self.totals();
        let mut ending = self.decided().or_else(|| self.failure(failed));
        if let (true, Some(completions)) = (self.want.is_indexed, self.want.completions) {
            let split = self.split_indexes(completions);
            succeeded = split.succeeded.total();
            ending = ending.or_else(|| self.ending_by_index(&split, completions));
            if let Some(failed) = &split.failed {
                self.last_failed = self.last_failed_of(&split.succeeded.union(failed));
            }
            self.split = Some(split);
        }
        if ending.is_some() {
            self.stop_pods();
            // Some may stay after all, so nothing is said of an end yet.
            ending = ending.filter(|_| !self.tries_again() || self.active.is_empty());
        } else {
            let is_deleting = self.want.row.meta.is_deleting();
            if !is_deleting {
                self.manage(view, succeeded);
            }
            ending = self.completion(succeeded);
            if ending.is_none() && !is_deleting {
                self.tell_suspension();
            }
        }
        self.status.active = number(self.counts.active);
        self.status.ready = Some(clamp(self.counts.ready));
        self.status.terminating = Some(clamp(self.counts.terminating));
        let let_go = self.tally(ending, self.counts.terminating);
        self.finish(let_go)
    }

    /// The last attempt was refused: what this pass asks for is not taken for done.
    fn tries_again(&self) -> bool {
        self.cx.last_failure.is_some()
    }

    /// Pods that succeeded and that failed, those that still are to be counted with them.
    fn totals(&self) -> (i64, i64) {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let succeeded = uncounted.and_then(|pods| pods.succeeded.as_deref());
        let failed = uncounted.and_then(|pods| pods.failed.as_deref());
        let (succeeded, failed) = (succeeded.unwrap_or_default(), failed.unwrap_or_default());
        let known: BTreeSet<&str> = succeeded.iter().chain(failed).map(String::as_str).collect();
        let new = self.pods.iter().filter(|pod| {
            is_tracked(pod) && self.want.counts(pod) && !known.contains(&*pod.meta.uid)
        });
        let mut totals = (
            i64::from(self.status.succeeded.unwrap_or(0)) + count(succeeded.iter()),
            i64::from(self.status.failed.unwrap_or(0)) + count(failed.iter()),
        );
        for pod in new {
            if pod.body.phase == Phase::Succeeded {
                totals.0 += 1;
            } else if self.want.has_failed(pod) && self.want.verdict(pod) != Verdict::Ignore {
                totals.1 += 1;
            }
        }
        totals
    }

    /// What an earlier pass decided.
    fn decided(&self) -> Option<Ending> {
        let row = self.want.row;
        let success = condition(row, SUCCESS_CRITERIA_MET);
        let success = success.map(|before| Ending::decided(SUCCESS_CRITERIA_MET, before));
        success.or_else(|| {
            let before = condition(row, FAILURE_TARGET)?;
            Some(Ending::decided(FAILED, before))
        })
    }

    /// Why the Job fails, if it does. `failed`: pods that did.
    fn failure(&mut self, failed: i64) -> Option<Ending> {
        let mut ends = self.pods.iter().filter(|pod| self.want.has_failed(pod));
        let message = ends.find_map(|pod| match self.want.verdict(pod) {
            Verdict::FailJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = message {
            return Some(Ending::failure("PodFailurePolicy", message));
        }
        if failed > self.want.retries || self.restarts_too_often() {
            let message = "Job has reached the specified backoff limit";
            return Some(Ending::failure("BackoffLimitExceeded", message));
        }
        let seconds = self.want.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?;
        if self.want.is_suspended {
            return None;
        }
        let left = until(plus_seconds(start.0, seconds), self.cx.now);
        if left.is_zero() {
            let message = "Job was active longer than specified deadline";
            return Some(Ending::failure("DeadlineExceeded", message));
        }
        self.look_again(left);
        None
    }

    /// Containers that are started again in place count as pods that failed.
    fn restarts_too_often(&self) -> bool {
        let template = self.want.spec.template.spec.as_ref();
        let policy = template.and_then(|pod| pod.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let runs =
            |pod: &&Arc<Cached<Pod>>| matches!(pod.body.phase, Phase::Running | Phase::Pending);
        let pods = self.pods.iter().filter(runs);
        let restarts: i64 = pods.map(|pod| i64::from(pod.body.all_restarts)).sum();
        restarts >= self.want.retries.max(1)
    }

    fn split_indexes(&self, completions: i64) -> Split {
        let parse = |text: &Option<String>| {
            Indexes::parse(text.as_deref().unwrap_or_default(), completions)
        };
        let of = |matches: &dyn Fn(&Cached<Pod>) -> bool| -> Indexes {
            let pods = self.pods.iter();
            let pods = pods.filter(|pod| is_tracked(pod) && matches(pod));
            pods.filter_map(|pod| self.want.index_of(pod)).collect()
        };
        let counted = parse(&self.status.completed_indexes);
        let succeeded = of(&|pod| pod.body.phase == Phase::Succeeded);
        let failed = self.want.retries_of_index.map(|_| {
            let failed = of(&|pod| self.want.fails_index(pod));
            parse(&self.status.failed_indexes).union(&failed)
        });
        Split {
            succeeded: counted.union(&succeeded),
            counted,
            failed,
        }
    }

    fn ending_by_index(&self, split: &Split, completions: i64) -> Option<Ending> {
        let failed = split.failed.as_ref().map_or(0, Indexes::total);
        let most = self.want.spec.max_failed_indexes.map(i64::from);
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Ending::failure("MaxFailedIndexesExceeded", message));
        }
        if failed > 0 && failed + split.succeeded.total() >= completions {
            return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
        }
        let policy = self.want.spec.success_policy.as_ref();
        let message = success(policy, completions, &split.succeeded)?;
        Some(Ending::success("SuccessPolicy", message))
    }

    /// Of each index that is not over and has no active pod, the pod that failed last.
    fn last_failed_of(&self, over: &Indexes) -> BTreeMap<i64, Arc<Cached<Pod>>> {
        let over = over.union(&indexes_of(&self.active));
        let mut last: BTreeMap<i64, Arc<Cached<Pod>>> = BTreeMap::new();
        let ended_at = |pod: &Cached<Pod>| pod.body.end.as_ref().and_then(|end| end.at);
        let failed = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod) && self.want.has_failed(pod));
        for pod in failed {
            let Some(index) = self.want.index_of(pod).filter(|index| !over.has(*index)) else {
                continue;
            };
            let is_later = last.get(&index).is_none_or(|known| {
                all_failures(known) <= all_failures(pod) && ended_at(known) <= ended_at(pod)
            });
            if is_later {
                last.insert(index, Arc::clone(pod));
            }
        }
        last
    }

    /// The Job ends: what still runs is to go. What becomes of it is still counted.
    fn stop_pods(&mut self) {
        let pods = self.active.clone();
        self.actions
            .extend(pods.iter().map(|pod| delete(&self.want, pod)));
        self.expect_gone(&pods);
    }

    fn remove_pods(&mut self, pods: &[Arc<Cached<Pod>>]) {
        self.actions.extend(remove(&self.want, pods));
        self.expect_gone(pods);
    }

    fn expect_gone(&mut self, pods: &[Arc<Cached<Pod>>]) {
        if !self.tries_again() {
            let gone = count(pods.iter());
            self.counts.active -= gone;
            self.counts.terminating += gone;
            self.counts.ready -= count(pods.iter().filter(|pod| pod.body.is_ready));
        }
    }

    /// Makes pods, or lets go of some: not both in one pass. `succeeded`: pods that did, or indexes.
    fn manage(&mut self, view: &View, succeeded: i64) {
        let active = self.counts.active;
        if self.want.is_suspended {
            let all = self.active.clone();
            return self.remove_pods(&all);
        }
        let wanted = match self.want.completions {
            Some(completions) => (completions - succeeded).min(self.want.parallelism).max(0),
            // One is done: the others know that there is no more work.
            None if succeeded > 0 => active,
            None => self.want.parallelism,
        };
        let excess = usize::try_from(active - wanted).unwrap_or(0);
        let mut excess = surplus(&self.want, &self.active, excess, self.cx.now);
        if !excess.is_empty() {
            excess.truncate(BURST);
            return self.remove_pods(&excess);
        }
        let awaited = match self.want.awaits_failure {
            true => self.counts.terminating,
            false => 0,
        };
        let missing = wanted - awaited - active;
        if missing <= 0 {
            return;
        }
        if self.want.retries_of_index.is_none() {
            let left = self.streak(view).left(self.cx.now);
            if !left.is_zero() {
                return self.look_again(left);
            }
        }
        let burst = if self.tries_again() { 1 } else { BURST };
        let missing = usize::try_from(missing).unwrap_or(0).min(burst);
        let indexes: Vec<Option<i64>> = match (&self.split, self.want.completions) {
            (Some(split), Some(completions)) => {
                let indexes = self.pending_indexes(split, missing, completions);
                self.without_pauses(indexes).into_iter().map(Some).collect()
            }
            _ => vec![None; missing],
        };
        let new: Vec<New<'_>> = indexes
            .into_iter()
            .map(|index| New {
                index,
                replaced: index.and_then(|index| Some(&**self.last_failed.get(&index)?)),
            })
            .collect();
        let made = create(&self.want, view, &self.pods, &new);
        if !self.tries_again() {
            self.counts.active += count(made.iter());
        }
        self.actions.extend(made);
    }

    /// When pods failed in a row, those that still are to be counted with the others.
    fn streak(&self, view: &View) -> Streak {
        let mut streak = view.tracked::<Streaks>().of(&self.want.row.meta.uid);
        let ended = |pod: &Cached<Pod>| {
            let end = pod.body.end.as_ref()?;
            self.want.counts(pod).then(|| end.at.unwrap_or(self.cx.now))
        };
        // Of a second that has both, the failures count.
        for pod in &self.pods {
            if let Some(at) = ended(pod).filter(|_| pod.body.phase == Phase::Succeeded) {
                streak.succeed(at);
            }
        }
        for pod in &self.pods {
            if let Some(at) = ended(pod).filter(|_| self.want.has_failed(pod)) {
                streak.fail(at);
            }
        }
        streak
    }

    /// The first indexes that still need a pod.
    fn pending_indexes(&self, split: &Split, most: usize, completions: i64) -> Vec<i64> {
        let mut taken = split.succeeded.union(&indexes_of(&self.active));
        if self.want.awaits_failure {
            let terminating = self.pods.iter().filter(|pod| is_terminating(pod));
            taken = taken.union(&indexes_of(terminating));
        }
        if let Some(failed) = &split.failed {
            taken = taken.union(failed);
        }
        taken.missing(most, completions)
    }

    /// Those of the indexes whose last failure is long enough ago; asks for a look when the next one's is.
    fn without_pauses(&mut self, mut indexes: Vec<i64>) -> Vec<i64> {
        let now = self.cx.now;
        let mut next: Option<Duration> = None;
        indexes.retain(|index| {
            let Some(pod) = self.last_failed.get(index) else {
                return true;
            };
            let failures = usize::try_from(all_failures(pod) + 1).unwrap_or(usize::MAX);
            let at = pod.body.end.as_ref().and_then(|end| end.at);
            let left = left_after(failures, at.unwrap_or(now), now);
            if !left.is_zero() {
                next = Some(next.map_or(left, |old| old.min(left)));
            }
            left.is_zero()
        });
        if let Some(next) = next {
            self.look_again(next);
        }
        indexes
    }

    fn completion(&self, succeeded: i64) -> Option<Ending> {
        let is_done = match self.want.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0,
        };
        let message = "Reached expected number of succeeded pods";
        (is_done && self.counts.active == 0).then(|| Ending::success("CompletionsReached", message))
    }

    /// A Job that goes on after a rest has its whole time again.
    fn tell_suspension(&mut self) {
        let (status, reason, event, message) = match self.want.is_suspended {
            true => ("True", "JobSuspended", "Suspended", "Job suspended"),
            false => ("False", "JobResumed", "Resumed", "Job resumed"),
        };
        if self.set_condition(SUSPENDED, status, reason, message) {
            let about = self.want.row.reference();
            self.notes.push(Note::normal(about, event, message));
            self.status.start_time = (!self.want.is_suspended).then(|| stamp(self.cx.now));
        }
    }

    /// True when that changes something. A condition that never held is not told not to.
    pub(super) fn set_condition(
        &mut self,
        kind: &str,
        status: &str,
        reason: &str,
        message: &str,
    ) -> bool {
        let now: Time = stamp(self.cx.now);
        let conditions = self.status.conditions.get_or_insert_default();
        let next = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        match conditions.iter_mut().find(|one| one.type_ == kind) {
            Some(one) => {
                let is_same = one.status == next.status
                    && one.reason == next.reason
                    && one.message == next.message;
                if !is_same {
                    *one = next;
                }
                !is_same
            }
            None if status == "False" => false,
            None => {
                conditions.push(next);
                true
            }
        }
    }

    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |old| old.min(after)));
    }

    /// Turns what was decided into writes. `let_go`: pods that lose their finalizer once the status tells of them.
    fn finish(mut self, let_go: Vec<Write>) -> Outcome {
        let row = self.want.row;
        if self.status.conditions.as_ref().is_some_and(Vec::is_empty) {
            self.status.conditions = None;
        }
        let before = row.body.status.clone().unwrap_or_default();
        let mut told: Vec<Write> = Write::status(row, &before, &self.status)
            .into_iter()
            .collect();
        told.extend(self.notes.drain(..).map(Write::Event));
        told.extend(let_go);
        let (first, then) = match self.tries_again() {
            true => (told, self.actions),
            false => (self.actions, told),
        };
        Outcome {
            writes: first.into_iter().chain(then).collect(),
            requeue_after: self.again,
            ..Outcome::default()
        }
    }
}

fn is_terminating(pod: &Cached<Pod>) -> bool {
    pod.meta.is_deleting() && !pod.body.is_finished()
}

fn count<T>(some: impl Iterator<Item = T>) -> i64 {
    i64::try_from(some.count()).unwrap_or(i64::MAX)
}

pub(super) fn clamp(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// As Kubernetes writes most counts: zero is left out.
pub(super) fn number(number: i64) -> Option<i32> {
    (number != 0).then(|| clamp(number))
}
