//! CronJobs on the real server: when they make a Job, and what becomes of those they made. Jobs are ended by hand: their pods do
//! nothing here.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{CRON_JOB, JOB};

use crate::world::World;

/// 2026-01-01T00:00:00Z in minutes since the epoch: the worlds begin then.
const BEGIN: i64 = 29_453_760;

fn cron_job(schedule: &str, more: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"schedule": schedule, "jobTemplate": {
            "metadata": {"labels": {"app": "sum"}, "annotations": {"a": "b"}},
            "spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "main", "image": "x:1"}]}}},
        }},
    });
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

/// A world with this CronJob, whose nodes do nothing. It is looked at a second after each full minute: looks come a moment
/// after their time.
fn world(schedule: &str, more: Value) -> World {
    let mut world = World::still();
    world.create(&CRON_JOB, cron_job(schedule, more));
    world.settle();
    world.pass_time(1);
    world.tell();
    world
}

/// So many minutes pass.
fn wait(world: &mut World, minutes: usize) {
    for _ in 0..minutes {
        world.pass_time(60);
        world.settle();
    }
}

/// Minutes since the beginning of each Job there is that is not on its way out.
fn jobs(world: &World) -> Vec<i64> {
    let jobs = world.all(&JOB).into_iter();
    let jobs = jobs.filter(|job| job["metadata"]["deletionTimestamp"].is_null());
    let name = |job: &Value| job["metadata"]["name"].as_str().unwrap().to_owned();
    jobs.map(|job| {
        name(job)
            .strip_prefix("c-")
            .unwrap()
            .parse::<i64>()
            .unwrap()
            - BEGIN
    })
    .collect()
}

fn active(world: &World) -> Vec<String> {
    let active = world.get(&CRON_JOB, "c")["status"]["active"]
        .as_array()
        .cloned();
    let active = active.unwrap_or_default().into_iter();
    active
        .map(|job| job["name"].as_str().unwrap().to_owned())
        .collect()
}

fn status(world: &World) -> &Value {
    &world.get(&CRON_JOB, "c")["status"]
}

fn end_job(world: &mut World, minute: i64, succeeds: bool) {
    let now = world.now.to_string();
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "x", "message": "x",
            "lastProbeTime": now, "lastTransitionTime": now})
    };
    let (target, end) = match succeeds {
        true => ("SuccessCriteriaMet", "Complete"),
        false => ("FailureTarget", "Failed"),
    };
    let mut status =
        json!({"conditions": [condition(target), condition(end)], "active": null, "ready": 0});
    if succeeds {
        status["completionTime"] = json!(now);
    }
    world.patch(
        &JOB,
        &format!("c-{}", BEGIN + minute),
        json!({ "status": status }),
    );
    world.settle();
}

#[test]
fn a_job_is_made_at_each_time() {
    let mut world = world("*/2 * * * *", json!({}));
    wait(&mut world, 1);
    assert_eq!(jobs(&world), [0_i64; 0]);
    wait(&mut world, 1);
    assert_eq!(jobs(&world), [2]);
    let name = format!("c-{}", BEGIN + 2);
    let job = world.get(&JOB, &name).clone();
    assert_eq!(job["metadata"]["labels"]["app"], "sum");
    assert_eq!(
        job["metadata"]["annotations"],
        json!({"a": "b", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T00:02:00Z"})
    );
    let owner = &job["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"]),
        (&json!("CronJob"), &json!(true))
    );
    assert_eq!(active(&world), [name.as_str()]);
    let first = &status(&world)["active"][0];
    assert_eq!(first["uid"], job["metadata"]["uid"]);
    assert_eq!(
        (&first["kind"], &first["apiVersion"]),
        (&json!("Job"), &json!("batch/v1"))
    );
    assert_eq!(status(&world)["lastScheduleTime"], "2026-01-01T00:02:00Z");
    assert!(
        world
            .tell()
            .contains(&format!("event SuccessfulCreate Created job {name}"))
    );
    wait(&mut world, 4);
    assert_eq!(jobs(&world), [2, 4, 6], "one beside the other");
    end_job(&mut world, 2, true);
    assert_eq!(active(&world).len(), 2);
    assert_eq!(status(&world)["lastSuccessfulTime"], "2026-01-01T00:06:01Z");
    assert!(world.tell().contains(&format!(
        "event SawCompletedJob Saw completed job: {name}, condition: Complete"
    )));
    end_job(&mut world, 4, false);
    assert_eq!(status(&world)["lastSuccessfulTime"], "2026-01-01T00:06:01Z");
    assert_eq!(active(&world).len(), 1);
}

#[test]
fn a_time_has_one_job_even_if_that_is_deleted_or_the_leader_changes() {
    let mut world = world("*/5 * * * *", json!({}));
    wait(&mut world, 5);
    assert_eq!(jobs(&world), [5]);
    world.tell();
    world.delete(&JOB, &format!("c-{}", BEGIN + 5), Propagation::Background);
    world.settle();
    assert_eq!(active(&world), [""; 0]);
    assert!(world.tell().contains(&format!(
        "event MissingJob Active job went missing: c-{}",
        BEGIN + 5
    )));
    wait(&mut world, 1);
    world.change_leader();
    world.settle();
    wait(&mut world, 1);
    assert_eq!(jobs(&world), [0_i64; 0]);
    wait(&mut world, 3);
    assert_eq!(jobs(&world), [10]);
}

#[test]
fn a_job_that_was_made_before_the_status_told_of_it_is_found() {
    let mut world = world("*/5 * * * *", json!({}));
    wait(&mut world, 5);
    world.patch(
        &CRON_JOB,
        "c",
        json!({"status": {"active": null, "lastScheduleTime": null}}),
    );
    world.change_leader();
    world.settle();
    assert_eq!(active(&world), [format!("c-{}", BEGIN + 5)]);
    assert_eq!(status(&world)["lastScheduleTime"], "2026-01-01T00:05:00Z");
    assert_eq!(jobs(&world), [5]);
}

#[test]
fn others_jobs_are_noticed_and_left_alone() {
    let mut world = world("0 0 1 2 *", json!({}));
    let uid = world.get(&CRON_JOB, "c")["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": uid, "controller": true}]);
    world.create(&JOB, json!({
        "metadata": {"name": "by-hand", "namespace": "default", "ownerReferences": owner},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}]}}},
    }));
    world.settle();
    let told =
        "event UnexpectedJob Saw a job that the controller did not create or forgot: by-hand";
    assert!(world.tell().contains(told));
    assert_eq!(active(&world), [""; 0]);
}

#[test]
fn what_runs_forbids_the_next_or_is_replaced_by_it() {
    let mut forbids = world("* * * * *", json!({"concurrencyPolicy": "Forbid"}));
    wait(&mut forbids, 3);
    assert_eq!(jobs(&forbids), [1]);
    let told = "event JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid";
    assert!(forbids.tell().contains(told));
    forbids.pass_time(20);
    forbids.settle();
    end_job(&mut forbids, 1, true);
    assert_eq!(
        jobs(&forbids),
        [1, 3],
        "the time that was passed over is made up for"
    );

    let mut replaces = world("* * * * *", json!({"concurrencyPolicy": "Replace"}));
    wait(&mut replaces, 3);
    assert_eq!(jobs(&replaces), [3]);
    assert_eq!(active(&replaces), [format!("c-{}", BEGIN + 3)]);
    let told = format!("event SuccessfulDelete Deleted job c-{}", BEGIN + 2);
    assert!(replaces.tell().contains(&told));
}

#[test]
fn a_cron_job_rests_and_makes_up_for_the_last_time_it_missed() {
    let mut world = world("*/10 * * * *", json!({"suspend": true}));
    wait(&mut world, 35);
    assert_eq!(jobs(&world), [0_i64; 0]);
    world.patch(&CRON_JOB, "c", json!({"spec": {"suspend": false}}));
    world.settle();
    assert_eq!(jobs(&world), [30]);
    wait(&mut world, 5);
    assert_eq!(jobs(&world), [30, 40]);
}

#[test]
fn a_time_that_is_missed_by_too_much_is_passed_over() {
    let mut world = world(
        "0 * * * *",
        json!({"startingDeadlineSeconds": 30, "suspend": true}),
    );
    wait(&mut world, 60);
    world.pass_time(31);
    world.patch(&CRON_JOB, "c", json!({"spec": {"suspend": false}}));
    world.settle();
    assert_eq!(jobs(&world), [0_i64; 0]);
    world.patch(
        &CRON_JOB,
        "c",
        json!({"spec": {"startingDeadlineSeconds": 60}}),
    );
    world.settle();
    assert_eq!(jobs(&world), [60]);
}

#[test]
fn many_missed_times_are_told_of() {
    let mut world = world("* * * * *", json!({"suspend": true}));
    world.pass_time(102 * 60);
    world.patch(&CRON_JOB, "c", json!({"spec": {"suspend": false}}));
    world.settle();
    assert_eq!(jobs(&world), [102]);
    let told = "event TooManyMissedTimes too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    assert!(world.tell().contains(told));
}

#[test]
fn a_new_schedule_has_missed_nothing() {
    let mut world = world("0 0 1 2 *", json!({}));
    wait(&mut world, 7);
    world.patch(&CRON_JOB, "c", json!({"spec": {"schedule": "*/5 * * * *"}}));
    world.settle();
    assert_eq!(jobs(&world), [0_i64; 0]);
    wait(&mut world, 3);
    assert_eq!(jobs(&world), [10]);
}

#[test]
fn a_zone_says_whose_clock_it_is() {
    let mut world = world("5 9 * * *", json!({"timeZone": "Asia/Tokyo"}));
    wait(&mut world, 5);
    assert_eq!(jobs(&world), [5]);
    let job = world.get(&JOB, &format!("c-{}", BEGIN + 5));
    let told = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(*told, "2026-01-01T09:05:00+09:00");
}

#[test]
fn a_schedule_without_a_time_is_told_of() {
    let mut world = World::new(1);
    world.create(&CRON_JOB, cron_job("59 23 31 2 *", json!({})));
    world.settle();
    let told = "event InvalidSchedule invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second";
    assert!(world.tell().contains(told));
}

#[test]
fn of_jobs_that_ended_the_latest_stay() {
    let limits = json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0});
    let mut world = world("* * * * *", limits);
    wait(&mut world, 4);
    for (minute, succeeds) in [(1, true), (2, true), (3, true), (4, false)] {
        end_job(&mut world, minute, succeeds);
    }
    assert_eq!(jobs(&world), [2, 3]);
    assert_eq!(active(&world), [""; 0]);
    assert!(world.tell().contains(&format!(
        "event SuccessfulDelete Deleted job c-{}",
        BEGIN + 4
    )));
}

#[test]
fn its_jobs_go_with_it() {
    let mut world = world("* * * * *", json!({}));
    wait(&mut world, 2);
    world.delete(&CRON_JOB, "c", Propagation::Background);
    world.settle();
    assert_eq!(world.all(&JOB).len(), 0);
}
