//! CronJobs: a Job at each time of a schedule.
//!
//! The arithmetic of times is [`due`]; a pass ([`pass::Pass`]) looks at the Jobs that were made, lets go of the oldest, and makes the
//! next one. A Job's name is a function of the minute it is for, and that time goes into the status with it: so a time
//! has one Job, whatever is repeated, and none again when that was deleted.
//!
//! Invariant: times before the schedule was written are not missed by it. Left to others: the Jobs (`job`).

mod due;
mod pass;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1;
use weft_api::object::{Object, ObjectError};
use weft_kinds::batch::{Schedule, zone_named};
use weft_kinds::{CRON_JOB, JOB, Kind};

use self::pass::Pass;
use crate::claim::controller_or_namespace;
use crate::indexer::{Index, Lens};
use crate::lens::{Job, typed};
use crate::metadata::Key;
use crate::view::{Touched, Track, View};
use crate::{Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "cronjob-controller",
    reads: |reads| {
        reads
            .kind::<CronJob>()
            .index(&BY_CONTROLLER)
            .track::<Written>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let all = view.list::<CronJob>();
        all.map(|row| row.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&CRON_JOB, key)?.reference()),
    reconcile: |view, key, cx| match view.get::<CronJob>(key) {
        Some(row) => Pass::new(row, view, cx).run(),
        None => Outcome::default(),
    },
};

/// Jobs by their controller, see [`controller_or_namespace`].
static BY_CONTROLLER: Index<Job> = Index {
    name: "controller",
    of: controller_or_namespace,
};

/// A CronJob, its schedule read.
#[derive(Debug)]
pub struct CronJob {
    pub spec: v1::CronJobSpec,
    pub status: v1::CronJobStatus,
    pub schedule: Result<Schedule, String>,
}

/// The template is copied into Jobs as it was written.
impl Lens for CronJob {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &CRON_JOB
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let typed: v1::CronJob = typed(object)?;
        let spec = typed.spec;
        Ok(Self {
            schedule: read_schedule(&spec),
            spec,
            status: typed.status.unwrap_or_default(),
        })
    }
}

/// A zone in the schedule, of before there was a field for it, comes before the field.
fn read_schedule(spec: &v1::CronJobSpec) -> Result<Schedule, String> {
    let zone = spec.time_zone.as_deref();
    let zone = zone.filter(|zone| !names_zone(spec) && zone_named(zone).is_ok());
    match zone {
        Some(zone) => Schedule::parse(&format!("TZ={zone} {}", spec.schedule)),
        None => Schedule::parse(&spec.schedule),
    }
}

/// The schedule itself says whose clock it is by.
fn names_zone(spec: &v1::CronJobSpec) -> bool {
    spec.schedule.contains("TZ")
}

/// When a schedule was written over another, by the uid of its CronJob.
#[derive(Debug, Default)]
pub struct Written(BTreeMap<Arc<str>, Timestamp>);

impl Track for Written {
    fn notice(&mut self, touched: &Touched, _: bool, now: Timestamp) {
        if !touched.is_of(&CRON_JOB) {
            return;
        }
        if !touched.is_there {
            self.0.remove(&touched.uid);
        } else if let (Some(before), Some(after)) =
            (touched.before::<CronJob>(), touched.after::<CronJob>())
            && before.body.schedule != after.body.schedule
        {
            self.0.insert(Arc::clone(&touched.uid), now);
        }
    }
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&CRON_JOB) {
        return vec![touched.key.clone()];
    }
    if !touched.is_of(&JOB) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let ours = owners.filter(|owner| *owner.kind == **CRON_JOB);
    ours.map(|owner| owner.key().clone()).collect()
}
