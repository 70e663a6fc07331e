//! One pass over a CronJob: what became of its Jobs, which of them go, and whether the next one begins.
//!
//! A Job that was made is in the status' list of active ones from the pass after that, which sees it and its uid.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJobStatus;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use weft_api::view::Time;
use weft_kinds::JOB;
use weft_kinds::batch::zone_named;
use weft_kinds::lens::{member, put};

use super::due::{due, next_look};
use super::{BY_CONTROLLER, CronJob, Written, names_zone};
use crate::claim::controller_reference;
use crate::indexer::Cached;
use crate::job::{COMPLETE, FAILED, condition, has_ended};
use crate::lens::Job;
use crate::view::View;
use crate::write::{Note, Write, object};
use crate::{Context, Outcome, plus_seconds};

/// On a Job: the time it is for, by the clock of its schedule.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Jobs deleted in one pass because there are enough later ones.
const DELETES_MAX: usize = 500;

/// The pass over one CronJob.
pub struct Pass<'a> {
    row: &'a Cached<CronJob>,
    view: &'a View,
    now: Timestamp,
    /// Those it controls.
    jobs: Vec<Arc<Cached<Job>>>,
    status: CronJobStatus,
    /// Refused or done before anything is told of them.
    writes: Vec<Write>,
    notes: Vec<Note>,
}

impl<'a> Pass<'a> {
    pub fn new(row: &'a Cached<CronJob>, view: &'a View, cx: &Context<'_>) -> Self {
        let jobs = view.list_by(&BY_CONTROLLER, &row.meta.uid);
        let jobs = jobs.filter(|job| job.key.namespace == row.key.namespace);
        Self {
            row,
            view,
            now: cx.now,
            jobs: jobs.cloned().collect(),
            status: row.body.status.clone(),
            writes: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn run(mut self) -> Outcome {
        self.drop_history();
        self.look_at_jobs();
        let again = match self.row.meta.is_deleting() {
            true => None,
            false => self.start(),
        };
        let before = &self.row.body.status;
        if self.status.active.as_ref().is_some_and(Vec::is_empty) {
            self.status.active = None;
        }
        let told = Write::status(self.row, before, &self.status);
        let notes = self.notes.into_iter().map(Write::Event);
        let mut writes = self.writes;
        writes.extend(told);
        writes.extend(notes);
        Outcome {
            writes,
            requeue_after: again,
            ..Outcome::default()
        }
    }

    fn note(&mut self, reason: &'static str, message: String) {
        let note = Note::normal(self.row.reference(), reason, message);
        self.notes.push(note);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        let note = Note::warning(self.row.reference(), reason, message);
        self.notes.push(note);
    }

    /// Of Jobs that ended, so many of the latest stay.
    fn drop_history(&mut self) {
        let spec = &self.row.body.spec;
        for (ended, limit) in [
            (COMPLETE, spec.successful_jobs_history_limit),
            (FAILED, spec.failed_jobs_history_limit),
        ] {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
                continue;
            };
            let jobs = self.jobs.iter();
            let mut jobs: Vec<Arc<Cached<Job>>> = jobs
                .filter(|job| condition(job, ended).is_some())
                .cloned()
                .collect();
            // One that never started comes last.
            jobs.sort_by_key(|job| {
                let start = started(job);
                (start.is_none(), start, Arc::clone(&job.key.name))
            });
            let excess = jobs.len().saturating_sub(limit).min(DELETES_MAX);
            for job in jobs.iter().take(excess) {
                self.delete(job);
            }
        }
    }

    fn delete(&mut self, job: &Cached<Job>) {
        self.forget(&job.meta.uid);
        if job.meta.is_deleting() {
            return;
        }
        let told = Note::normal(
            self.row.reference(),
            "SuccessfulDelete",
            format!("Deleted job {}", job.key.name),
        );
        let told = told.or_refused_saying("FailedDelete", "Deleted job");
        self.writes.push(Write::delete(job).telling(told));
    }

    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, uid: &str) -> bool {
        let mut active = self.active().iter();
        active.any(|job| job.uid.as_deref() == Some(uid))
    }

    fn forget(&mut self, uid: &str) {
        if let Some(active) = &mut self.status.active {
            active.retain(|job| job.uid.as_deref() != Some(uid));
        }
    }

    /// What became of the Jobs since the last pass.
    fn look_at_jobs(&mut self) {
        for job in self.jobs.clone() {
            let (name, uid) = (&job.key.name, &job.meta.uid);
            let is_ours = self.time_of(&job).inspect(|time| self.note_time(*time));
            if !has_ended(&job) {
                if self.is_active(uid) {
                    continue;
                }
                if is_ours.is_some() {
                    let active = self.status.active.get_or_insert_default();
                    active.push(reference(&job));
                } else {
                    self.warn(
                        "UnexpectedJob",
                        format!("Saw a job that the controller did not create or forgot: {name}"),
                    );
                }
                continue;
            }
            let succeeded = condition(&job, COMPLETE).is_some();
            if self.is_active(uid) {
                let ended = if succeeded { COMPLETE } else { FAILED };
                self.forget(uid);
                self.note(
                    "SawCompletedJob",
                    format!("Saw completed job: {name}, condition: {ended}"),
                );
            }
            let end = job
                .body
                .status
                .as_ref()
                .and_then(|s| s.completion_time.as_ref());
            let last = self.status.last_successful_time.as_ref();
            if let Some(end) = end.filter(|_| succeeded)
                && last.is_none_or(|last| end.0 > last.0)
            {
                self.status.last_successful_time = Some(end.clone());
            }
        }
        for job in self.active().to_vec() {
            let uid = job.uid.as_deref().unwrap_or_default();
            let mut there = self.jobs.iter().map(|job| &*job.meta.uid);
            // One that cannot be read may still run.
            if there.any(|there| there == uid) || self.view.object(uid).is_some() {
                continue;
            }
            self.forget(uid);
            let name = job.name.as_deref().unwrap_or_default();
            self.note("MissingJob", format!("Active job went missing: {name}"));
        }
    }

    /// The time that a Job was made for by us: its name says which.
    fn time_of(&self, job: &Cached<Job>) -> Option<Timestamp> {
        let minutes = job.key.name.strip_prefix(&*self.row.key.name)?;
        let minutes: i64 = minutes.strip_prefix('-')?.parse().ok()?;
        let time: Timestamp = job.meta.annotations.get(SCHEDULED)?.parse().ok()?;
        (time.as_second().div_euclid(60) == minutes).then_some(time)
    }

    /// A time that has its Job gets no other.
    fn note_time(&mut self, time: Timestamp) {
        let last = self.status.last_schedule_time.as_ref();
        if last.is_none_or(|last| last.0 < time) {
            self.status.last_schedule_time = Some(Time(time));
        }
    }

    /// Starts what is due; returns when to look again.
    fn start(&mut self) -> Option<Duration> {
        let spec = &self.row.body.spec;
        if let Some(zone) = &spec.time_zone
            && let Err(why) = zone_named(zone)
        {
            self.warn(
                "UnknownTimeZone",
                format!("invalid timeZone: {zone:?}: {why}"),
            );
            return None;
        }
        if spec.suspend == Some(true) {
            return None;
        }
        if names_zone(spec) {
            self.warn("UnsupportedSchedule", format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            ));
        }
        let schedule = match &self.row.body.schedule {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
                self.warn("UnparseableSchedule", message);
                return None;
            }
        };
        let earliest = self.earliest();
        let deadline = spec.starting_deadline_seconds;
        let limit = deadline.map(|seconds| plus_seconds(self.now, seconds.saturating_neg()));
        let found = match due(
            schedule,
            limit.map_or(earliest, |limit| limit.max(earliest)),
            self.now,
        ) {
            Ok(found) => found,
            Err(why) => {
                let message = format!("invalid schedule: {} : {why}", spec.schedule);
                self.warn("InvalidSchedule", message);
                return None;
            }
        };
        let Some(time) = found.latest else {
            return next_look(schedule, earliest, self.now);
        };
        if found.is_many() {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_owned());
        }
        if limit.is_some_and(|limit| time < limit) {
            let shown = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.warn(
                "MissSchedule",
                format!("Missed scheduled time to start a job: {shown}"),
            );
        } else if !self.is_started(time) {
            self.start_at(time);
        }
        next_look(schedule, self.earliest(), self.now)
    }

    /// Times up to this one are over.
    fn earliest(&self) -> Timestamp {
        let last = self.status.last_schedule_time.as_ref().map(|last| last.0);
        let born = self.row.meta.creation_timestamp;
        let written = self.view.tracked::<Written>().0.get(&self.row.meta.uid);
        let begin = last.or(born).unwrap_or(self.now);
        written.map_or(begin, |written| begin.max(*written))
    }

    fn name_of(&self, time: Timestamp) -> String {
        let minutes = time.as_second().div_euclid(60);
        format!("{}-{minutes}", self.row.key.name)
    }

    /// The time has its Job, or had; or somebody else's stands in its place.
    fn is_started(&self, time: Timestamp) -> bool {
        let name = self.name_of(time);
        let mut active = self.active().iter();
        active.any(|job| job.name.as_ref() == Some(&name))
            || self.status.last_schedule_time == Some(Time(time))
            || self
                .view
                .object_of(&JOB, &self.row.key.sibling(&name))
                .is_some()
    }

    fn start_at(&mut self, time: Timestamp) {
        match self.row.body.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active().is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.note("JobAlreadyActive", message.to_owned());
            }
            Some("Replace") => {
                let running = self.jobs.iter().filter(|job| self.is_active(&job.meta.uid));
                for job in running.cloned().collect::<Vec<_>>() {
                    self.delete(&job);
                }
            }
            _ => {}
        }
        let name = self.name_of(time);
        let Some(job) = self.job_at(time, &name) else {
            return;
        };
        let told = Note::normal(
            self.row.reference(),
            "SuccessfulCreate",
            format!("Created job {name}"),
        );
        let told = told.or_refused_saying("FailedCreate", "Error creating job");
        self.writes
            .push(Write::create(&JOB, object(job)).telling(told));
        self.status.last_schedule_time = Some(Time(time));
    }

    fn job_at(&self, time: Timestamp, name: &str) -> Option<Value> {
        let template = self
            .row
            .object
            .as_ref()?
            .as_value()
            .pointer("/spec/jobTemplate")?;
        let mut metadata = json!({
            "name": name,
            "namespace": &*self.row.key.namespace,
            "ownerReferences": [controller_reference(self.row)],
        });
        for field in ["labels", "annotations"] {
            let said = template.pointer(&format!("/metadata/{field}"));
            if let Some(said) = said.filter(|said| !said.is_null()) {
                metadata[field] = said.clone();
            }
        }
        let zone = self.row.body.spec.time_zone.as_deref().unwrap_or_default();
        let zoned = time.to_zoned(zone_named(zone).ok()?);
        let shown = match zoned.offset().seconds() {
            0 => time.to_string(),
            _ => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        };
        put(
            member(&mut metadata, "annotations"),
            SCHEDULED,
            Some(shown.into()),
        );
        Some(json!({
            "apiVersion": JOB.api_version(),
            "kind": JOB.kind,
            "metadata": metadata,
            "spec": template["spec"].clone(),
        }))
    }
}

fn started(job: &Cached<Job>) -> Option<Timestamp> {
    let status = job.body.status.as_ref()?;
    status.start_time.as_ref().map(|start| start.0)
}

fn reference(job: &Cached<Job>) -> ObjectReference {
    ObjectReference {
        api_version: Some(JOB.api_version()),
        kind: Some(JOB.kind.to_string()),
        namespace: Some(job.key.namespace.to_string()),
        name: Some(job.key.name.to_string()),
        uid: Some(job.meta.uid.to_string()),
        resource_version: job.meta.resource_version.map(|version| version.to_string()),
        ..ObjectReference::default()
    }
}
