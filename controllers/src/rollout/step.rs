//! The way of a revision: from the first step to the last, to its promotion, or back. A function of the status, what is so, and the time.
//!
//! A step is over when what it asks for is so, not when it was written: weights count once the routes have them. Nothing but a new
//! template, somebody's word, a failed round or the deadline takes a revision back.

use std::time::Duration;

use jiff::Timestamp;

use super::asked::{Asked, Step};
use super::status::{HEALTHY, PAUSED, PROGRESSING, PROMOTING, ROLLED_BACK, Round, Status, Verdict};
use crate::{plus_seconds, until};

/// What is so.
pub struct Facts<'a> {
    pub asked: &'a Asked,
    /// Of the template.
    pub revision: &'a str,
    /// Its pods that are available.
    pub available: i64,
    /// Some of them are behind its Service.
    pub serves: bool,
    /// Calls are led as the status says.
    pub is_routed: bool,
    /// A round of the analysis that is over now.
    pub round: Option<Round>,
    pub now: Timestamp,
}

/// What users are told.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Told {
    fn normal(reason: &'static str, message: String) -> Self {
        Self {
            warning: false,
            reason,
            message,
        }
    }

    fn warning(reason: &'static str, message: String) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, message)
        }
    }
}

/// Takes the status on as far as the facts let it.
pub fn advance(status: &mut Status, facts: &Facts<'_>) -> Vec<Told> {
    let mut told = Vec::new();
    let asked = facts.asked;
    let now = facts.now;
    let is_new = status.current_revision.as_deref() != Some(facts.revision);
    let is_tried_again = status.is_rolled_back() && asked.retry != status.retry;
    if is_new || is_tried_again {
        begin(status, facts, &mut told);
    }
    status.retry.clone_from(&asked.retry);
    status.steps = steps_of(asked);
    let Some(stable) = &status.stable_revision else {
        first(status, facts, &mut told);
        return told;
    };
    if stable == facts.revision {
        rest(status, facts);
        return told;
    }
    if status.is_rolled_back() {
        return told;
    }
    if let Some(round) = facts.round.clone() {
        let why = round.message.clone();
        let verdict = round.verdict;
        status.note(round);
        match verdict {
            Verdict::Passed => status.progressed = Some(crate::stamp(now)),
            Verdict::Inconclusive => {}
            Verdict::Failed => {
                let limit = asked.analysis.as_ref().map_or(1, |all| all.failure_limit);
                if status.failed_rounds() >= limit {
                    roll_back(status, facts, why, &mut told);
                    return told;
                }
                told.push(Told::warning("AnalysisFailed", why));
            }
        }
    }
    if asked.abort.as_deref() == Some(facts.revision) {
        roll_back(status, facts, "somebody took it back".to_owned(), &mut told);
        return told;
    }
    if asked.paused {
        status.phase = PAUSED.to_owned();
        "paused: no step is taken until spec.paused is false".clone_into(&mut status.message);
        return told;
    }
    if status.phase == PAUSED && !waits(status, asked) {
        // The time of a pause is nobody's delay.
        status.progressed = Some(crate::stamp(now));
    }
    let promoted = asked.promote.as_ref();
    let promoted = promoted.filter(|word| word.revision == facts.revision);
    if promoted.is_some_and(|word| word.step.is_none()) && status.step < status.steps {
        let left = status.steps - status.step;
        let message = format!(
            "{} goes on at once: {left} steps are left out",
            facts.revision
        );
        told.push(Told::normal("RolloutPromoted", message));
        go_to(status, status.steps, now);
    }
    let past = promoted.and_then(|word| word.step).unwrap_or(-1);
    // Each step is taken once at most, so this ends.
    loop {
        let before = status.step;
        match take(status, facts, past, &mut told) {
            Taken::Stays => break,
            Taken::Done => {}
        }
        if status.step == before {
            break;
        }
    }
    let is_late = deadline(status, asked).is_some_and(|due| due <= now);
    if is_late && status.is_on_its_way() {
        let why = format!(
            "nothing went on for {} s: {}",
            asked.deadline_seconds, status.message
        );
        roll_back(status, facts, why, &mut told);
    }
    told
}

/// When to look although nothing changes.
pub fn next_look(status: &Status, facts: &Facts<'_>) -> Option<Duration> {
    if !status.is_on_its_way() || facts.asked.paused {
        return None;
    }
    let step = step_of(status, facts.asked);
    let due = match step {
        Some(Step::Pause(Some(seconds))) => {
            let started = status.step_started.as_ref().map_or(facts.now, |at| at.0);
            Some(plus_seconds(started, *seconds))
        }
        _ => deadline(status, facts.asked),
    }?;
    Some(until(due, facts.now))
}

/// The pods that the current revision is to have.
pub fn size(status: &Status, asked: &Asked) -> i64 {
    if !status.is_on_its_way() {
        return asked.replicas;
    }
    let all = asked
        .steps
        .iter()
        .any(|step| matches!(step, Step::Pods | Step::Mark));
    let Some(step) = step_of(status, asked).filter(|_| !all) else {
        return asked.replicas;
    };
    let coming = match step {
        Step::Weight(weight) => *weight,
        _ => 0,
    };
    asked.pods_for(status.weight.max(coming))
}

enum Taken {
    /// The next one may be looked at.
    Done,
    Stays,
}

fn take(status: &mut Status, facts: &Facts<'_>, past: i64, told: &mut Vec<Told>) -> Taken {
    let asked = facts.asked;
    let Some(step) = step_of(status, asked).cloned() else {
        promote(status, facts, told);
        return Taken::Stays;
    };
    let revision = facts.revision;
    let number = status.step;
    PROGRESSING.clone_into(&mut status.phase);
    let wanted = size(status, asked);
    let is_there = facts.available >= wanted && (facts.serves || wanted == 0);
    let waiting = || {
        let there = facts.available;
        format!("step {number}: {there} of {wanted} pods of {revision} are available")
    };
    let (done, message) = match step {
        Step::Weight(weight) => {
            if weight > status.weight && !is_there {
                (false, waiting())
            } else {
                let is_so = status.weight == weight;
                status.weight = weight;
                let message = format!("step {number}: {weight} % of calls go to {revision}");
                (is_so && facts.is_routed && is_there, message)
            }
        }
        Step::Mark if !status.marked && !is_there => (false, waiting()),
        Step::Mark => {
            let is_so = std::mem::replace(&mut status.marked, true);
            let message = format!("step {number}: calls that are marked go to {revision}");
            (is_so && facts.is_routed && is_there, message)
        }
        Step::Pods => (is_there, waiting()),
        Step::Rounds(rounds) => {
            let passed = status.passed_rounds();
            let message = format!("step {number}: {passed} of {rounds} rounds passed");
            (passed >= rounds, message)
        }
        Step::Pause(seconds) => {
            PAUSED.clone_into(&mut status.phase);
            let started = status.step_started.as_ref().map_or(facts.now, |at| at.0);
            let over = seconds.is_some_and(|seconds| plus_seconds(started, seconds) <= facts.now);
            let message = match seconds {
                Some(seconds) => format!("step {number}: waits for {seconds} s"),
                None => format!("step {number}: waits until somebody promotes {revision}"),
            };
            (over || past >= number, message)
        }
    };
    message.clone_into(&mut status.message);
    if !done {
        return Taken::Stays;
    }
    told.push(Told::normal("RolloutStepCompleted", message));
    go_to(status, number + 1, facts.now);
    Taken::Done
}

/// All steps are done: all pods, then all calls, and then it is the one that is served.
fn promote(status: &mut Status, facts: &Facts<'_>, told: &mut Vec<Told>) {
    let (asked, revision) = (facts.asked, facts.revision);
    PROMOTING.clone_into(&mut status.phase);
    let wanted = asked.replicas;
    if facts.available < wanted || (!facts.serves && wanted > 0) {
        let there = facts.available;
        status.message = format!("all steps are done: {there} of {wanted} pods are available");
        return;
    }
    if status.weight != 100 || status.marked {
        status.weight = 100;
        status.marked = false;
        status.message = format!("all steps are done: all calls go to {revision}");
        return;
    }
    if !facts.is_routed {
        return;
    }
    let before = status.stable_revision.replace(revision.to_owned());
    rest(status, facts);
    let before = before.unwrap_or_default();
    let message = format!("{revision} is promoted in the place of {before}");
    told.push(Told::normal("RolloutCompleted", message));
}

/// A revision begins its way.
fn begin(status: &mut Status, facts: &Facts<'_>, told: &mut Vec<Told>) {
    let left = status
        .is_on_its_way()
        .then(|| status.current_revision.clone())
        .flatten();
    if let Some(left) = left.filter(|left| left != facts.revision) {
        let message = format!("{left} was on its way, and something else is asked for");
        told.push(Told::normal("RolloutLeft", message));
    }
    status.current_revision = Some(facts.revision.to_owned());
    status.rolled_back_revision = None;
    status.rolled_back_because = None;
    status.analysis = None;
    status.weight = 0;
    status.marked = false;
    go_to(status, 0, facts.now);
    PROGRESSING.clone_into(&mut status.phase);
    status.message = format!("{} begins", facts.revision);
    if status.stable_revision.as_deref() != Some(facts.revision) {
        told.push(Told::normal("RolloutStarted", status.message.clone()));
    }
}

/// There is nothing yet that could be gone back to: the first revision has no steps.
fn first(status: &mut Status, facts: &Facts<'_>, told: &mut Vec<Told>) {
    let (there, wanted) = (facts.available, facts.asked.replicas);
    status.phase = PROGRESSING.to_owned();
    status.message = format!("the first revision: {there} of {wanted} pods are available");
    if there < wanted {
        return;
    }
    status.stable_revision = Some(facts.revision.to_owned());
    rest(status, facts);
    let message = format!("{} is the first revision", facts.revision);
    told.push(Told::normal("RolloutCompleted", message));
}

/// The template is that of the revision that is served.
fn rest(status: &mut Status, facts: &Facts<'_>) {
    status.step = steps_of(facts.asked);
    status.weight = 0;
    status.marked = false;
    status.phase = HEALTHY.to_owned();
    status.message = format!("{} is served", facts.revision);
}

fn roll_back(status: &mut Status, facts: &Facts<'_>, why: String, told: &mut Vec<Told>) {
    let revision = facts.revision;
    let stable = status.stable_revision.clone().unwrap_or_default();
    let message = format!("{revision} is rolled back to {stable}: {why}");
    status.rolled_back_revision = Some(revision.to_owned());
    status.rolled_back_because = Some(why);
    status.weight = 0;
    status.marked = false;
    status.phase = ROLLED_BACK.to_owned();
    status.message.clone_from(&message);
    status.progressed = Some(crate::stamp(facts.now));
    told.push(Told::warning("RolloutRolledBack", message));
}

fn go_to(status: &mut Status, step: i64, now: Timestamp) {
    status.step = step;
    status.step_started = Some(crate::stamp(now));
    status.progressed = Some(crate::stamp(now));
    if let Some(analysis) = &mut status.analysis {
        analysis.passed = 0;
    }
}

fn steps_of(asked: &Asked) -> i64 {
    i64::try_from(asked.steps.len()).unwrap_or(i64::MAX)
}

fn step_of<'a>(status: &Status, asked: &'a Asked) -> Option<&'a Step> {
    let step = usize::try_from(status.step).ok()?;
    asked.steps.get(step)
}

/// Whether the present step is a pause.
fn waits(status: &Status, asked: &Asked) -> bool {
    matches!(step_of(status, asked), Some(Step::Pause(_)))
}

/// When the present step has lasted too long; a pause never does.
fn deadline(status: &Status, asked: &Asked) -> Option<Timestamp> {
    if waits(status, asked) {
        return None;
    }
    let since = status.progressed.as_ref()?.0;
    Some(plus_seconds(since, asked.deadline_seconds))
}
