//! What may be said of how a Job goes: what is counted only grows, what has ended stays so, and conditions agree with each other.
//!
//! Most rules are judged only where what they are about changes, so that a status of before them can still be written.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::field::Field;
use crate::lens::condition_is_true;
use crate::validate::Problems;

/// A Job, and what is asked of it.
struct Told<'v, 'p> {
    job: Field<'v, 'p>,
    value: &'v Value,
}

impl<'v> Told<'v, '_> {
    fn of<'p>(job: &Field<'v, 'p>) -> Option<Told<'v, 'p>> {
        Some(Told {
            job: *job,
            value: job.value()?,
        })
    }

    fn is(&self, condition: &str) -> bool {
        condition_is_true(self.value, condition)
    }

    fn has_ended(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn get(&self, pointer: &str) -> Option<&'v Value> {
        self.value.pointer(pointer).filter(|value| !value.is_null())
    }

    fn count(&self, field: &str) -> i64 {
        let value = self.get(&format!("/status/{field}"));
        value.and_then(Value::as_i64).unwrap_or(0)
    }

    fn is_indexed(&self) -> bool {
        self.job.child("spec.completionMode").text() == "Indexed"
    }
}

pub(super) fn judge(new: &Field<'_, '_>, old: &Field<'_, '_>, problems: &mut Problems) {
    let (Some(new), Some(old)) = (Told::of(new), Told::of(old)) else {
        return;
    };
    counts(&new, problems);
    conditions(&new, &old, problems);
    end(&new, &old, problems);
    named_indexes(&new, &old, problems);
    rest(&new, &old, problems);
    only_forward(&new, &old, problems);
}

fn counts(new: &Told<'_, '_>, problems: &mut Problems) {
    let status = new.job.child("status");
    for names in ["active", "succeeded", "failed", "ready", "terminating"] {
        problems.not_negative(&status.child(names));
    }
    let uncounted = status.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.items(list) {
            if uid.text().is_empty() {
                problems.invalid(&uid, "", "must not be empty");
            } else if !seen.insert(uid.text()) {
                problems.duplicate(&uid, uid.text());
            }
        }
    }
}

/// Whether one of these changes between two states.
fn changes(new: &Told<'_, '_>, old: &Told<'_, '_>, fields: &[&str]) -> bool {
    fields.iter().any(|field| {
        let pointer = format!("/status/{field}");
        new.get(&pointer) != old.get(&pointer)
    })
}

fn turns(new: &Told<'_, '_>, old: &Told<'_, '_>, conditions: &[&str]) -> bool {
    conditions
        .iter()
        .any(|condition| new.is(condition) != old.is(condition))
}

fn conditions(new: &Told<'_, '_>, old: &Told<'_, '_>, problems: &mut Problems) {
    let all = new.job.child("status.conditions");
    if turns(new, old, &["Complete", "Failed"]) && new.is("Complete") && new.is("Failed") {
        let sentence = "cannot set Complete=True and Failed=true conditions";
        problems.invalid_unshown(&all, sentence);
    }
    if turns(new, old, &["Complete", "FailureTarget"])
        && new.is("Complete")
        && new.is("FailureTarget")
    {
        let sentence = "cannot set Complete=True and FailureTarget=true conditions";
        problems.invalid_unshown(&all, sentence);
    }
}

fn end(new: &Told<'_, '_>, old: &Told<'_, '_>, problems: &mut Problems) {
    let status = new.job.child("status");
    let all = status.child("conditions");
    let (start, end) = (status.child("startTime"), status.child("completionTime"));
    if turns(new, old, &["Complete"]) || changes(new, old, &["completionTime"]) {
        if end.is_set() && !new.is("Complete") {
            let sentence = "cannot set completionTime when there is no Complete=True condition";
            problems.invalid(&end, end.shown(), sentence);
        }
        if !end.is_set() && new.is("Complete") {
            problems.required(&end, "completionTime is required for Complete jobs");
        }
    }
    // Both are RFC 3339 in UTC, to the second: their order is that of the texts.
    if changes(new, old, &["startTime", "completionTime"])
        && start.is_set()
        && end.is_set()
        && end.text() < start.text()
    {
        problems.invalid(&end, end.shown(), "must be equal to or after `startTime`");
    }
    let failed_indexes = changes(new, old, &["failedIndexes"]);
    if (turns(new, old, &["Failed"]) || failed_indexes)
        && new.is("Failed")
        && !new.is("FailureTarget")
    {
        let sentence = "cannot set Failed=True condition without the FailureTarget=true condition";
        problems.invalid_unshown(&all, sentence);
    }
    if turns(new, old, &["Complete", "SuccessCriteriaMet"])
        && new.is("Complete")
        && !new.is("SuccessCriteriaMet")
    {
        let sentence =
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        problems.invalid_unshown(&all, sentence);
    }
    let ends = new.has_ended() != old.has_ended();
    let active = new.count("active");
    if (ends || new.count("active") != old.count("active")) && active > 0 && new.has_ended() {
        let sentence = "active>0 is invalid for finished job";
        problems.invalid(&status.child("active"), active, sentence);
    }
    let waits_for_nothing = new.job.child("spec.suspend").flag()
        && new.job.child("spec.completions").integer() == Some(0);
    if (ends || changes(new, old, &["startTime"]))
        && !waits_for_nothing
        && !start.is_set()
        && new.has_ended()
    {
        problems.required(&start, "startTime is required for finished job");
    }
    let uncounted = status.child("uncountedTerminatedPods");
    let (succeeded, failed) = (uncounted.child("succeeded"), uncounted.child("failed"));
    let some = !succeeded.list().is_empty() || !failed.list().is_empty();
    if (ends || changes(new, old, &["uncountedTerminatedPods"])) && new.has_ended() && some {
        let (succeeded, failed) = (succeeded.shown(), failed.shown());
        let shown = format!("{{\"Succeeded\":{succeeded},\"Failed\":{failed}}}");
        problems.invalid_in_go(&uncounted, &shown, "must be empty for finished job");
    }
}

fn named_indexes(new: &Told<'_, '_>, old: &Told<'_, '_>, problems: &mut Problems) {
    let status = new.job.child("status");
    let (completed, failed) = (
        status.child("completedIndexes"),
        status.child("failedIndexes"),
    );
    let completions = new.job.child("spec.completions").integer();
    let per_index = new.job.child("spec.backoffLimitPerIndex").is_set();
    let completed_changed = changes(new, old, &["completedIndexes"]);
    let failed_changed = changes(new, old, &["failedIndexes"]);
    let parsed = |field: &Field<'_, '_>, name: &str, problems: &mut Problems| {
        let parsed = completions.map(|completions| indexes::parse(field.text(), completions));
        if let Some(Err(why)) = parsed {
            let sentence = format!("error parsing {name}: {why}");
            problems.invalid(field, field.text(), &sentence);
        }
    };
    if completed_changed {
        parsed(&completed, "completedIndexes", problems);
    }
    if failed_changed && per_index && failed.is_set() {
        parsed(&failed, "failedIndexes", problems);
    }
    if completed_changed && !completed.text().is_empty() && !new.is_indexed() {
        let sentence = "cannot set non-empty completedIndexes when non-indexed completion mode";
        problems.invalid(&completed, completed.text(), sentence);
    }
    if failed_changed && !per_index && failed.is_set() {
        let sentence = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        problems.invalid(&failed, failed.text(), sentence);
    }
    if (completed_changed || failed_changed)
        && let Some(completions) = completions
        && let Some(index) = indexes::overlap(completed.text(), failed.text(), completions)
    {
        let sentence = format!("failedIndexes and completedIndexes overlap at index: {index}");
        problems.invalid(&failed, failed.text(), &sentence);
    }
}

fn rest(new: &Told<'_, '_>, old: &Told<'_, '_>, problems: &mut Problems) {
    let status = new.job.child("status");
    let ends = new.has_ended() != old.has_ended();
    let terminating = new.count("terminating");
    if (ends || changes(new, old, &["terminating"])) && terminating > 0 && new.has_ended() {
        let sentence = "terminating>0 is invalid for finished job";
        problems.invalid(&status.child("terminating"), terminating, sentence);
    }
    let ready = new.count("ready");
    if changes(new, old, &["ready", "active"]) && ready > new.count("active") {
        let sentence = "cannot set more ready pods than active";
        problems.invalid(&status.child("ready"), ready, sentence);
    }
    let all = status.child("conditions");
    if new.is("SuccessCriteriaMet") {
        for (condition, sentence) in [
            (
                "Failed",
                "cannot set SuccessCriteriaMet=True and Failed=true conditions",
            ),
            (
                "FailureTarget",
                "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
            ),
        ] {
            if new.is(condition) {
                problems.invalid_unshown(&all, sentence);
            }
        }
    } else if new.job.child("spec.successPolicy").is_set() && new.is("Complete") {
        let sentence =
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        problems.invalid_unshown(&all, sentence);
    }
}

fn only_forward(new: &Told<'_, '_>, old: &Told<'_, '_>, problems: &mut Problems) {
    let status = new.job.child("status");
    let all = status.child("conditions");
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if old.is(condition) && !new.is(condition) {
            let sentence = format!("cannot disable the terminal {condition}=True condition");
            problems.invalid_unshown(&all, &sentence);
        }
    }
    // Those of indexes that are no longer wanted are not counted any more.
    let spec = new.job.child("spec");
    let is_elastic =
        new.is_indexed() && spec.child("completions").value() == spec.child("parallelism").value();
    for (field, counts) in [("failed", true), ("succeeded", !is_elastic)] {
        if counts && new.count(field) < old.count(field) {
            let sentence = format!("cannot decrease the {field} counter");
            problems.invalid(&status.child(field), new.count(field), &sentence);
        }
    }
    let end = status.child("completionTime");
    let ended = old.get("/status/completionTime");
    if end.is_set() && ended.is_some() && end.value() != ended {
        problems.invalid(&end, end.shown(), "field is immutable");
    }
    let suspended = |job: &Told<'_, '_>, status: &str| {
        let mut all = job.job.items("status.conditions");
        all.any(|one| {
            one.child("type").text() == "Suspended" && one.child("status").text() == status
        })
    };
    let resumes = suspended(old, "True") && suspended(new, "False");
    let start = status.child("startTime");
    let started = old.get("/status/startTime");
    if !resumes && started.is_some() && start.value() != started && !spec.child("suspend").flag() {
        let sentence = "field is immutable for unsuspended job once set";
        problems.invalid(&start, start.shown(), sentence);
    }
    if old.is("SuccessCriteriaMet") && !new.is("SuccessCriteriaMet") {
        let sentence = "cannot disable the SuccessCriteriaMet=True condition";
        problems.invalid_unshown(&all, sentence);
    }
    if old.is("Complete") && !old.is("SuccessCriteriaMet") && new.is("SuccessCriteriaMet") {
        let sentence =
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        problems.invalid_unshown(&all, sentence);
    }
}
