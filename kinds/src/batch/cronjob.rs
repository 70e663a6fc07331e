//! CronJobs: Jobs at times. `batch/v1beta1` is a spelling of them that kubectl before 1.21 creates them in.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::job::{self, warning_of_size};
use super::schedule;
use crate::apps::workload;
use crate::columns::{Column, Row, or_none};
use crate::core::pod;
use crate::core::replicationcontroller::warning_of_name;
use crate::field::Field;
use crate::kind::Spelling;
use crate::lens::{fill, flag, items, member, put, text, time};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, weft};

pub static CRON_JOB: LazyLock<Arc<Kind>> = LazyLock::new(|| Arc::new(kind("v1")));

pub static CRON_JOB_V1BETA1: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        listed: false,
        spelling: Some(Spelling {
            of: CRON_JOB.clone(),
            read: |value| value["apiVersion"] = "batch/v1beta1".into(),
            write: |value| value["apiVersion"] = "batch/v1".into(),
        }),
        ..kind("v1beta1")
    })
});

fn kind(version: &'static str) -> Kind {
    Kind {
        short_names: vec!["cj".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Schedule", shown_schedule, "When Jobs are made."),
            Column::text("Timezone", time_zone, "Whose clock that is by."),
            Column::boolean("Suspend", suspended, "Whether none are made now."),
            Column::integer("Active", active, "Jobs that run."),
            Column::text(
                "Last Schedule",
                last_schedule,
                "When the last one was made.",
            ),
            Column::age(),
            Column::text("Containers", containers, "Names of the containers.").wide(),
            Column::text("Images", images, "Images of the containers.").wide(),
            Column::text("Selector", selector, "Labels of the pods.").wide(),
        ],
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(CronJobs),
        ..Kind::new("batch", version, "CronJob", "cronjobs")
    }
}

/// Longest name: eleven characters follow in those of its Jobs.
const NAME_MAX: usize = 52;
const POD: &str = "/spec/jobTemplate/spec/template/spec";

struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        job::default_template(member(member(spec, "jobTemplate"), "spec"));
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        job::no_rules_when_empty(next, "/spec/jobTemplate/spec");
    }

    /// As of a Job.
    fn drop_unserved(&self, next: &mut Value) {
        if let Some(job) = next.pointer_mut("/spec/jobTemplate/spec") {
            put(job, "scheduling", None);
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        pod::images_of(value, POD)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        let mut told: Vec<String> = warning_of_name(value)
            .into_iter()
            .chain(warning_of_size(value, "spec.jobTemplate.spec"))
            .collect();
        if text(value, "/spec/schedule").contains("TZ") {
            told.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        told.extend(weft::warnings_of_pods(value, POD, around));
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        judge(&root.child("spec"), None, problems);
        let name = root.child("metadata.name");
        if name.text().len() > NAME_MAX {
            let sentence = "must be no more than 52 characters";
            problems.invalid(&name, name.text(), sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part != Some(Subresource::Status) {
            let (root, before) = (Field::root(new), Field::root(old));
            judge(&root.child("spec"), Some(&before.child("spec")), problems);
        }
    }
}

fn judge(spec: &Field<'_, '_>, old: Option<&Field<'_, '_>>, problems: &mut Problems) {
    let schedule = spec.child("schedule");
    let zone = spec.child("timeZone");
    if !schedule.text().is_empty() {
        let had_zone = old.is_some_and(|old| old.child("schedule").text().contains("TZ"));
        judge_schedule(&schedule, had_zone, zone.is_set(), problems);
    }
    problems.not_negative(&spec.child("startingDeadlineSeconds"));
    let is_kept = old.is_some_and(|old| old.child("timeZone").value() == zone.value());
    if zone.is_set() && !is_kept {
        for fault in schedule::zone_faults(zone.text()) {
            problems.invalid(&zone, zone.text(), &fault);
        }
    }
    let policies = ["Allow", "Forbid", "Replace"];
    problems.required_one_of(&spec.child("concurrencyPolicy"), &policies);
    let job = spec.child("jobTemplate.spec");
    job::judge_spec(&job, problems);
    let selector = job.child("selector");
    if selector.is_set() {
        let sentence = "`selector` will be auto-generated";
        problems.invalid(&selector, selector.shown(), sentence);
    }
    let manual = job.child("manualSelector");
    if manual.flag() {
        problems.not_supported(&manual, true, &["nil", "false"]);
    }
    for names in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        problems.not_negative(&spec.child(names));
    }
    // Kubernetes tells this after all else.
    problems.required_text(&schedule);
}

/// A zone within the schedule is of before there was a field for it: those that have one may keep it.
fn judge_schedule(
    schedule: &Field<'_, '_>,
    had_zone: bool,
    has_zone_field: bool,
    problems: &mut Problems,
) {
    let text = schedule.text();
    if let Err(why) = schedule::check(text) {
        problems.invalid(schedule, text, &why);
    }
    if !text.contains("TZ") {
        return;
    }
    if !had_zone {
        let sentence = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        problems.invalid(schedule, text, sentence);
    } else if has_zone_field {
        let sentence = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        problems.invalid(schedule, text, sentence);
    }
}

fn shown_schedule(row: &Row<'_>) -> Value {
    row.text_or("/spec/schedule", "")
}

fn time_zone(row: &Row<'_>) -> Value {
    or_none(text(row.object, "/spec/timeZone").to_owned())
}

fn suspended(row: &Row<'_>) -> Value {
    match flag(row.object, "/spec/suspend") {
        true => "True",
        false => "False",
    }
    .into()
}

fn active(row: &Row<'_>) -> Value {
    items(row.object, "/status/active").len().into()
}

fn last_schedule(row: &Row<'_>) -> Value {
    match time(row.object, "/status/lastScheduleTime") {
        Some(then) => row.since(Some(then)).into(),
        None => "<none>".into(),
    }
}

const CONTAINERS: &str = "/spec/jobTemplate/spec/template/spec/containers";

fn containers(row: &Row<'_>) -> Value {
    workload::of_containers(row, CONTAINERS, "/name")
}

fn images(row: &Row<'_>) -> Value {
    workload::of_containers(row, CONTAINERS, "/image")
}

fn selector(row: &Row<'_>) -> Value {
    workload::selector_text(row, "/spec/jobTemplate/spec/selector")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::{cells, shapes};
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn cron_job() -> Value {
        json!({
            "metadata": {"name": "nightly", "namespace": "n"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {
                "metadata": {"labels": {"app": "sum"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "shop/sum:1"}]},
            }}}},
        })
    }

    #[test]
    fn what_is_left_out_is_filled_in_but_for_what_its_jobs_fill_in() {
        let mut whole = cron_job();
        CRON_JOB.strategy.default(&mut whole);
        let spec = &whole["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Allow");
        assert_eq!(spec["successfulJobsHistoryLimit"], 3);
        assert_eq!(spec["failedJobsHistoryLimit"], 1);
        let job = &spec["jobTemplate"]["spec"];
        assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(job.get("parallelism"), None);
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        let long = "a".repeat(53);
        let long_name =
            format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters");
        told::check(
            &CRON_JOB,
            &cron_job(),
            &[
                (
                    "/spec/schedule",
                    json!(""),
                    &["spec.schedule: Required value"],
                ),
                (
                    "/spec/schedule",
                    json!("x"),
                    &[
                        "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]",
                    ],
                ),
                (
                    "/spec/schedule",
                    json!("TZ=UTC * * * * *"),
                    &[
                        "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                    ],
                ),
                (
                    "/spec/timeZone",
                    json!("Foo"),
                    &["spec.timeZone: Invalid value: \"Foo\": unknown time zone Foo"],
                ),
                (
                    "/spec/startingDeadlineSeconds",
                    json!(-1),
                    &[
                        "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                    ],
                ),
                (
                    "/spec/concurrencyPolicy",
                    json!("X"),
                    &[
                        "spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                    ],
                ),
                (
                    "/spec/jobTemplate/spec/parallelism",
                    json!(-1),
                    &[
                        "spec.jobTemplate.spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                    ],
                ),
                (
                    "/spec/jobTemplate/spec/selector",
                    json!({"matchLabels": {"a": "b"}}),
                    &[
                        "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                    ],
                ),
                (
                    "/spec/jobTemplate/spec/manualSelector",
                    json!(true),
                    &[
                        "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                    ],
                ),
                (
                    "/spec/jobTemplate/spec/template/spec/restartPolicy",
                    Value::Null,
                    &[
                        "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                    ],
                ),
                ("/metadata/name", json!(long), &[&long_name]),
            ],
        );
    }

    #[test]
    fn a_zone_of_before_may_stay_where_it_is() {
        let mut old = cron_job();
        old["spec"]["schedule"] = "TZ=UTC * * * * *".into();
        let new = told::with(&old, "/spec/schedule", json!("TZ=UTC 5 * * * *"));
        assert_eq!(told::of_update(&CRON_JOB, &new, &old, None), [""; 0]);
        let both = told::with(&new, "/spec/timeZone", json!("UTC"));
        assert_eq!(
            told::of_update(&CRON_JOB, &both, &old, None),
            [
                "spec.schedule: Invalid value: \"TZ=UTC 5 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule"
            ]
        );
        let told = CRON_JOB.strategy.warn(&new, &Cluster::default());
        assert!(
            told[0].starts_with("cannot use TZ or CRON_TZ in spec.spec.schedule"),
            "{told:?}"
        );
    }

    #[test]
    fn a_row_tells_when() {
        assert_eq!(
            shapes(&CRON_JOB)[..7],
            [
                "Name: string/name",
                "Schedule: string",
                "Timezone: string",
                "Suspend: boolean",
                "Active: integer",
                "Last Schedule: string",
                "Age: string",
            ]
        );
        let status = json!({"active": [{"name": "a"}], "lastScheduleTime": "2026-01-01T00:00:03Z"});
        let ran = told::with(&cron_job(), "/status", status);
        assert_eq!(
            cells(&CRON_JOB, &ran),
            [
                json!("nightly"),
                json!("0 3 * * *"),
                json!("<none>"),
                json!("False"),
                json!(1),
                json!("7s"),
                json!("10s"),
                json!("c"),
                json!("shop/sum:1"),
                json!("<none>"),
            ]
        );
    }
}
