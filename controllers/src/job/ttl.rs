//! Jobs that say for how long they stay after they have ended go then, their pods first.

use jiff::Timestamp;
use weft_kinds::JOB;

use super::{COMPLETE, FAILED, condition};
use crate::indexer::Cached;
use crate::lens::Job;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Propagation, Write};
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "ttl-after-finished-controller",
    reads: |reads| {
        reads.kind::<Job>();
    },
    keys: |_, touched| {
        let job = touched.after::<Job>();
        let due = job.and_then(expiry).map(|_| touched.key.clone());
        due.into_iter().collect()
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let due = view.list::<Job>().filter(|job| expiry(job).is_some());
        due.map(|job| job.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&JOB, key)?.reference()),
    reconcile,
};

/// When the Job is to go, of one that has ended and says so.
fn expiry(job: &Cached<Job>) -> Option<Timestamp> {
    if job.meta.is_deleting() {
        return None;
    }
    let seconds = job.body.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = condition(job, COMPLETE).or_else(|| condition(job, FAILED))?;
    let at = ended.last_transition_time.as_ref()?.0;
    Some(plus_seconds(at, i64::from(seconds)))
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(job) = view.get::<Job>(key) else {
        return outcome;
    };
    match expiry(job) {
        Some(due) if due > cx.now => outcome.again_after(until(due, cx.now)),
        Some(_) => {
            let mut write = Write::delete(job);
            if let Write::Delete { propagation, .. } = &mut write {
                *propagation = Propagation::Foreground;
            }
            outcome.writes.push(write);
        }
        None => {}
    }
    outcome
}
