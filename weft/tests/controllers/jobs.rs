//! Jobs on the real server: what they make, how they count it, and how they end. Nodes start pods by themselves here; tests say
//! how they end.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{JOB, POD};

use crate::world::World;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

fn job(spec: Value) -> Value {
    let mut job = json!({
        "metadata": {"name": "j", "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "x:1"}]}}},
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job
}

fn indexed(completions: i64, more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": completions, "parallelism": completions});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    job(spec)
}

/// A world with this Job, whose pods run.
fn world(seed: u64, job: Value) -> World {
    let mut world = World::new(seed);
    world.create_nodes();
    world.create(&JOB, job);
    world.settle();
    world
}

fn status(world: &World) -> &Value {
    &world.get(&JOB, "j")["status"]
}

/// Counts of the status: active, ready, terminating, succeeded, failed.
fn counts(world: &World) -> [i64; 5] {
    let count = |field: &str| status(world)[field].as_i64().unwrap_or(0);
    ["active", "ready", "terminating", "succeeded", "failed"].map(count)
}

/// Conditions that hold, with their reasons, in order.
fn conditions(world: &World) -> Vec<String> {
    let all = status(world)["conditions"].as_array().cloned();
    all.unwrap_or_default()
        .iter()
        .filter(|one| one["status"] == "True")
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or("").to_owned();
            format!("{} {}", text("type"), text("reason"))
        })
        .collect()
}

fn message(world: &World, condition: &str) -> String {
    let all = status(world)["conditions"].as_array().unwrap();
    let found = all.iter().find(|one| one["type"] == condition).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

fn is_running(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
}

/// Names of the pods that run, those of an Indexed Job in order of their indexes.
fn running(world: &World) -> Vec<String> {
    let mut pods: Vec<&Value> = world.all(&POD);
    pods.retain(|pod| is_running(pod));
    pods.sort_by_key(|pod| index_of(pod));
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    pods.into_iter().map(name).collect()
}

fn index_of(pod: &Value) -> Option<i64> {
    pod["metadata"]["annotations"][INDEX].as_str()?.parse().ok()
}

fn running_indexes(world: &World) -> Vec<i64> {
    let pods = running(world);
    pods.iter()
        .map(|pod| index_of(world.get(&POD, pod)).unwrap())
        .collect()
}

fn of_index(world: &World, index: i64) -> String {
    let mut pods = running(world).into_iter();
    pods.find(|pod| index_of(world.get(&POD, pod)) == Some(index))
        .unwrap()
}

/// A pod's only container ends, now.
fn end(world: &mut World, pod: &str, code: i64) {
    let now = world.now.to_string();
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let status = json!({"phase": phase,
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
        "containerStatuses": [{"name": "main", "image": "x:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now}}}]});
    world.patch(&POD, pod, json!({ "status": status }));
}

fn end_one(world: &mut World, code: i64) {
    let pod = running(world).remove(0);
    end(world, &pod, code);
    world.settle();
}

fn wait(world: &mut World, seconds: usize) {
    world.live(seconds, &["n0", "n1", "n2"]);
}

/// Pods that no Job has counted yet.
fn tracked(world: &World) -> usize {
    let has = |pod: &&Value| {
        let finalizers = pod["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|all| all.iter().any(|one| one == TRACKING))
    };
    world.all(&POD).into_iter().filter(has).count()
}

#[test]
fn pods_are_made_until_enough_succeeded() {
    let mut world = world(1, job(json!({"completions": 3, "parallelism": 2})));
    assert_eq!(counts(&world), [2, 2, 0, 0, 0]);
    let pod = world.get(&POD, &running(&world)[0]);
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/job-name"], "j");
    assert_eq!(labels["job-name"], "j");
    assert_eq!(pod["metadata"]["generateName"], "j-");
    assert_eq!(pod["metadata"]["finalizers"], json!([TRACKING]));
    assert_eq!(status(&world)["uncountedTerminatedPods"], json!({}));
    assert_eq!(status(&world)["startTime"], "2026-01-01T00:00:00Z");
    world.pass_time(5);
    end_one(&mut world, 0);
    assert_eq!(counts(&world), [2, 2, 0, 1, 0]);
    assert_eq!(tracked(&world), 2, "the first is counted");
    world.tell();
    end_one(&mut world, 0);
    assert_eq!(counts(&world), [1, 1, 0, 2, 0], "no more than are missing");
    end_one(&mut world, 0);
    assert_eq!(counts(&world), [0, 0, 0, 3, 0]);
    assert_eq!(
        conditions(&world),
        [
            "SuccessCriteriaMet CompletionsReached",
            "Complete CompletionsReached"
        ]
    );
    assert_eq!(
        message(&world, "Complete"),
        "Reached expected number of succeeded pods"
    );
    assert_eq!(status(&world)["completionTime"], "2026-01-01T00:00:05Z");
    assert_eq!(
        (tracked(&world), world.all(&POD).len()),
        (0, 3),
        "they stay, counted"
    );
    assert!(world.tell().ends_with("event Completed Job completed"));
}

#[test]
fn pods_of_a_work_queue_finish_when_one_says_that_it_is_empty() {
    let mut world = world(2, job(json!({"parallelism": 3})));
    assert_eq!(counts(&world), [3, 3, 0, 0, 0]);
    end_one(&mut world, 0);
    assert_eq!(counts(&world), [2, 2, 0, 1, 0], "nobody takes its place");
    end_one(&mut world, 0);
    assert_eq!(conditions(&world), [""; 0]);
    end_one(&mut world, 0);
    assert_eq!(counts(&world), [0, 0, 0, 3, 0]);
    assert_eq!(conditions(&world)[1], "Complete CompletionsReached");
}

#[test]
fn failures_are_paused_after_ever_longer_until_there_are_too_many() {
    let mut world = world(3, job(json!({"backoffLimit": 3})));
    for (failed, pause) in [(1, 10), (2, 20), (3, 40)] {
        end_one(&mut world, 7);
        assert_eq!(counts(&world), [0, 0, 0, 0, failed]);
        wait(&mut world, pause - 1);
        assert_eq!(counts(&world)[0], 0, "after {failed}");
        wait(&mut world, 1);
        assert_eq!(counts(&world)[0], 1, "after {failed}");
    }
    world.tell();
    end_one(&mut world, 7);
    assert_eq!(counts(&world), [0, 0, 0, 0, 4]);
    assert_eq!(
        conditions(&world),
        [
            "FailureTarget BackoffLimitExceeded",
            "Failed BackoffLimitExceeded"
        ]
    );
    let message = "Job has reached the specified backoff limit";
    assert!(
        world
            .tell()
            .ends_with(&format!("event BackoffLimitExceeded {message}"))
    );
    assert_eq!(status(&world)["completionTime"], Value::Null);
    wait(&mut world, 700);
    assert_eq!(world.live_pods(), 4, "it is over");
}

#[test]
fn a_pod_that_is_deleted_counts_as_failed_however_soon_it_is_gone() {
    let mut world = world(4, job(json!({})));
    let pod = running(&world).remove(0);
    world.delete(&POD, &pod, Propagation::Background);
    world.settle();
    assert_eq!(world.all(&POD).len(), 0);
    assert_eq!(counts(&world), [0, 0, 0, 0, 1]);
    wait(&mut world, 9);
    assert_eq!(counts(&world)[0], 0, "the pause outlives the pod");
    wait(&mut world, 1);
    assert_eq!(counts(&world)[0], 1);
    end_one(&mut world, 0);
    assert_eq!(conditions(&world)[1], "Complete CompletionsReached");
}

#[test]
fn the_end_of_one_that_fails_takes_what_still_runs_with_it() {
    let mut world = world(
        5,
        job(json!({"completions": 3, "parallelism": 3, "backoffLimit": 0})),
    );
    end_one(&mut world, 1);
    assert_eq!(
        counts(&world),
        [0, 0, 0, 0, 3],
        "those that ran failed with it"
    );
    assert_eq!(conditions(&world)[1], "Failed BackoffLimitExceeded");
    assert_eq!(world.all(&POD).len(), 1, "they are deleted");
}

#[test]
fn restarts_in_place_count() {
    let mut object = job(json!({"backoffLimit": 2}));
    object["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    let mut world = world(6, object);
    let pod = running(&world).remove(0);
    for (restarts, ended) in [(1, false), (2, true)] {
        let status = json!([{"name": "main", "image": "x:1", "imageID": "", "ready": true, "restartCount": restarts}]);
        world.patch(&POD, &pod, json!({"status": {"containerStatuses": status}}));
        world.settle();
        assert_eq!(!conditions(&world).is_empty(), ended, "{restarts}");
    }
    assert_eq!(conditions(&world)[1], "Failed BackoffLimitExceeded");
}

#[test]
fn each_pod_of_an_indexed_job_is_one_of_its_indexes() {
    let mut world = world(7, indexed(4, json!({"parallelism": 3})));
    assert_eq!(running_indexes(&world), [0, 1, 2]);
    let pod = world.get(&POD, &of_index(&world, 2));
    assert_eq!(pod["metadata"]["labels"][INDEX], "2");
    assert_eq!(pod["metadata"]["generateName"], "j-2-");
    assert!(
        pod["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("j-2-")
    );
    assert_eq!(pod["spec"]["hostname"], "j-2");
    let variable = &pod["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], "JOB_COMPLETION_INDEX");
    let path = &variable["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(*path, format!("metadata.labels['{INDEX}']"));
    for (index, completed, next) in [(1, "1", [0, 2, 3]), (3, "1,3", [0, 2, -1])] {
        let pod = of_index(&world, index);
        end(&mut world, &pod, 0);
        world.settle();
        assert_eq!(status(&world)["completedIndexes"], completed);
        let next: Vec<i64> = next.into_iter().filter(|index| *index >= 0).collect();
        assert_eq!(running_indexes(&world), next);
    }
    // One that fails is tried again after the pause of the whole Job.
    let pod = of_index(&world, 0);
    end(&mut world, &pod, 1);
    wait(&mut world, 10);
    assert_eq!(running_indexes(&world), [0, 2]);
    for index in [0, 2] {
        let pod = of_index(&world, index);
        end(&mut world, &pod, 0);
        world.settle();
    }
    assert_eq!(status(&world)["completedIndexes"], "0-3");
    assert_eq!(counts(&world), [0, 0, 0, 4, 1]);
    assert_eq!(conditions(&world)[1], "Complete CompletionsReached");
}

#[test]
fn an_indexed_job_grows_and_shrinks_while_it_runs() {
    let mut world = world(8, indexed(3, json!({})));
    let pod = of_index(&world, 2);
    end(&mut world, &pod, 0);
    world.settle();
    world.patch(
        &JOB,
        "j",
        json!({"spec": {"completions": 5, "parallelism": 5}}),
    );
    world.settle();
    assert_eq!(running_indexes(&world), [0, 1, 3, 4]);
    world.patch(
        &JOB,
        "j",
        json!({"spec": {"completions": 2, "parallelism": 2}}),
    );
    world.settle();
    assert_eq!(running_indexes(&world), [0, 1]);
    assert_eq!(
        counts(&world),
        [2, 2, 0, 0, 0],
        "what is wanted no more counts no more"
    );
    assert_eq!(status(&world)["completedIndexes"], Value::Null);
    for _ in 0..2 {
        end_one(&mut world, 0);
    }
    assert_eq!(counts(&world), [0, 0, 0, 2, 0]);
    assert_eq!(conditions(&world)[1], "Complete CompletionsReached");
}

#[test]
fn indexes_fail_each_by_itself() {
    let mut world = world(9, indexed(3, json!({"backoffLimitPerIndex": 1})));
    assert_eq!(status(&world)["failedIndexes"], "");
    let failures = |world: &World, index: i64| {
        let pod = world.get(&POD, &of_index(world, index));
        let told = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"];
        told.as_str().unwrap().to_owned()
    };
    assert_eq!(failures(&world, 1), "0");
    let pod = of_index(&world, 1);
    end(&mut world, &pod, 1);
    world.settle();
    assert_eq!(tracked(&world), 3, "the failed pod waits for its successor");
    let pod = of_index(&world, 0);
    end(&mut world, &pod, 0);
    wait(&mut world, 9);
    assert_eq!(running_indexes(&world), [2]);
    wait(&mut world, 1);
    assert_eq!(
        (running_indexes(&world), failures(&world, 1)),
        (vec![1, 2], "1".into())
    );
    assert_eq!(tracked(&world), 2);
    let pod = of_index(&world, 1);
    end(&mut world, &pod, 1);
    world.settle();
    assert_eq!(status(&world)["failedIndexes"], "1");
    assert_eq!(conditions(&world), [""; 0], "the others go on");
    let pod = of_index(&world, 2);
    end(&mut world, &pod, 0);
    world.settle();
    assert_eq!(status(&world)["completedIndexes"], "0,2");
    assert_eq!(
        conditions(&world),
        ["FailureTarget FailedIndexes", "Failed FailedIndexes"]
    );
    assert_eq!(message(&world, "Failed"), "Job has failed indexes");
    assert_eq!(counts(&world), [0, 0, 0, 2, 2]);
}

#[test]
fn too_many_failed_indexes_and_indexes_that_fail_at_once() {
    let policy = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let more =
        json!({"backoffLimitPerIndex": 6, "maxFailedIndexes": 1, "podFailurePolicy": policy});
    let mut world = world(10, indexed(4, more));
    for (index, failed) in [(3, "3"), (1, "1,3")] {
        let pod = of_index(&world, index);
        end(&mut world, &pod, 42);
        world.settle();
        assert_eq!(status(&world)["failedIndexes"], failed);
    }
    assert_eq!(conditions(&world)[1], "Failed MaxFailedIndexesExceeded");
    let told = "Job has exceeded the specified maximal number of failed indexes";
    assert_eq!(message(&world, "Failed"), told);
}

#[test]
fn a_policy_says_which_failures_count_and_which_end_the_job() {
    let rules = json!([
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]);
    let mut world = world(
        11,
        job(json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}})),
    );
    let pod = running(&world).remove(0);
    let target = json!([{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    world.patch(
        &POD,
        &pod,
        json!({"status": {"phase": "Failed", "conditions": target}}),
    );
    world.settle();
    assert_eq!(
        (counts(&world), tracked(&world)),
        ([0, 0, 0, 0, 0], 0),
        "it does not count"
    );
    wait(&mut world, 10);
    let pod = running(&world).remove(0);
    end(&mut world, &pod, 42);
    world.settle();
    assert_eq!(
        conditions(&world),
        ["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"]
    );
    let told = format!(
        "Container main for pod default/{pod} failed with exit code 42 matching FailJob rule at index 1"
    );
    assert_eq!(message(&world, "Failed"), told);
    assert_eq!(counts(&world)[4], 1);
}

#[test]
fn a_policy_says_when_it_is_enough() {
    let rules = json!([{"succeededIndexes": "1,3", "succeededCount": 1}]);
    let mut world = world(12, indexed(5, json!({"successPolicy": {"rules": rules}})));
    let pod = of_index(&world, 0);
    end(&mut world, &pod, 0);
    world.settle();
    assert_eq!(conditions(&world), [""; 0]);
    let pod = of_index(&world, 3);
    end(&mut world, &pod, 0);
    world.settle();
    assert_eq!(
        conditions(&world),
        ["SuccessCriteriaMet SuccessPolicy", "Complete SuccessPolicy"]
    );
    assert_eq!(message(&world, "Complete"), "Matched rules at index 0");
    assert_eq!(
        counts(&world),
        [0, 0, 0, 2, 0],
        "who was stopped did not fail"
    );
    assert_eq!(status(&world)["completedIndexes"], "0,3");
    assert_eq!(world.all(&POD).len(), 2);
}

#[test]
fn a_job_rests_and_goes_on() {
    let mut world = world(
        13,
        job(json!({"completions": 2, "parallelism": 2, "suspend": true})),
    );
    assert_eq!(world.all(&POD).len(), 0);
    assert_eq!(conditions(&world), ["Suspended JobSuspended"]);
    assert_eq!(status(&world)["startTime"], Value::Null);
    world.pass_time(60);
    world.tell();
    world.patch(&JOB, "j", json!({"spec": {"suspend": false}}));
    world.settle();
    assert_eq!(counts(&world), [2, 2, 0, 0, 0]);
    assert_eq!(conditions(&world), [""; 0]);
    assert_eq!(message(&world, "Suspended"), "Job resumed");
    assert_eq!(status(&world)["startTime"], "2026-01-01T00:01:00Z");
    assert!(world.tell().contains("event Resumed Job resumed"));
    end_one(&mut world, 0);
    world.patch(&JOB, "j", json!({"spec": {"suspend": true}}));
    world.settle();
    assert_eq!(
        counts(&world),
        [0, 0, 0, 1, 0],
        "what was taken away did not fail"
    );
    assert_eq!(status(&world)["startTime"], Value::Null);
    assert!(world.tell().contains("event Suspended Job suspended"));
    world.patch(&JOB, "j", json!({"spec": {"suspend": false}}));
    world.settle();
    assert_eq!(counts(&world), [1, 1, 0, 1, 0], "and nothing is waited for");
    end_one(&mut world, 0);
    assert_eq!(conditions(&world)[1], "Complete CompletionsReached");
}

#[test]
fn a_job_that_takes_too_long_fails() {
    let mut world = world(14, job(json!({"activeDeadlineSeconds": 30})));
    wait(&mut world, 29);
    assert_eq!(counts(&world)[0], 1);
    wait(&mut world, 1);
    assert_eq!(
        conditions(&world),
        ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]
    );
    assert_eq!(
        message(&world, "Failed"),
        "Job was active longer than specified deadline"
    );
    assert_eq!(counts(&world), [0, 0, 0, 0, 1]);
}

#[test]
fn a_pod_is_replaced_when_it_has_failed_if_the_job_says_so() {
    for (policy, made) in [("Failed", 0), ("TerminatingOrFailed", 1)] {
        let mut world = world(15, job(json!({"podReplacementPolicy": policy})));
        let pod = running(&world).remove(0);
        world.agents = false;
        world.delete(&POD, &pod, Propagation::Background);
        world.settle();
        wait(&mut world, 20);
        assert_eq!(counts(&world)[0], made, "{policy}");
        assert_eq!(counts(&world)[2], 1, "{policy}");
        world.agents = true;
        wait(&mut world, 30);
        assert_eq!(counts(&world), [1, 1, 0, 0, 1], "{policy}");
    }
}

#[test]
fn a_job_that_is_somebody_elses_is_left_alone() {
    let mut world = world(16, job(json!({"managedBy": "example.com/queue"})));
    assert_eq!((world.all(&POD).len(), status(&world)), (0, &json!({})));
    // Nor does a pod of it lose its finalizer.
    let uid = world.get(&JOB, "j")["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": true}]);
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default", "finalizers": [TRACKING], "ownerReferences": owner},
        "spec": {"containers": [{"name": "main", "image": "x:1"}]},
    });
    world.create(&POD, pod);
    world.settle();
    assert_eq!(tracked(&world), 1);
}

#[test]
fn strays_are_taken_in_and_who_no_longer_matches_is_let_go_of() {
    let mut world = world(17, job(json!({"completions": 2, "parallelism": 2})));
    let names = running(&world);
    world.patch(
        &POD,
        &names[0],
        json!({"metadata": {"ownerReferences": null}}),
    );
    world.settle();
    let pod = world.get(&POD, &names[0]);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], "j");
    assert_eq!(pod["metadata"]["finalizers"], json!([TRACKING]));
    assert_eq!(counts(&world), [2, 2, 0, 0, 0]);
    world.patch(&POD, &names[0], json!({"metadata": {"labels": null}}));
    world.settle();
    let pod = world.get(&POD, &names[0]);
    assert_eq!(pod["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(pod["metadata"]["finalizers"], Value::Null);
    assert_eq!((counts(&world), world.live_pods()), ([2, 2, 0, 0, 0], 3));
}

#[test]
fn pods_of_a_job_that_goes_do_not_stay_for_their_finalizer() {
    for (propagation, left) in [
        (Propagation::Background, 0),
        (Propagation::Foreground, 0),
        (Propagation::Orphan, 2),
    ] {
        let mut world = world(18, job(json!({"completions": 2, "parallelism": 2})));
        world.delete(&JOB, "j", propagation);
        world.settle();
        assert_eq!(world.all(&JOB).len(), 0, "{propagation:?}");
        let pods = (world.all(&POD).len(), tracked(&world));
        assert_eq!(pods, (left, 0), "{propagation:?}");
    }
}

#[test]
fn a_job_goes_some_time_after_it_ended_if_it_says_so() {
    let mut world = world(19, job(json!({"ttlSecondsAfterFinished": 30})));
    wait(&mut world, 40);
    end_one(&mut world, 0);
    wait(&mut world, 29);
    assert_eq!(world.all(&JOB).len(), 1);
    world.tell();
    wait(&mut world, 1);
    assert_eq!((world.all(&JOB).len(), world.all(&POD).len()), (0, 0));
    assert!(world.tell().contains("delete jobs default/j foreground"));
}

#[test]
fn a_refusal_of_pods_does_not_keep_the_others_from_being_counted() {
    let mut world = world(20, job(json!({"completions": 4, "parallelism": 2})));
    let quota =
        json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}});
    world.create(&weft_kinds::RESOURCE_QUOTA, quota);
    world.settle();
    end_one(&mut world, 0);
    // The pod that has ended does not count for the quota.
    assert_eq!(counts(&world), [2, 2, 0, 1, 0]);
    world.patch(
        &weft_kinds::RESOURCE_QUOTA,
        "q",
        json!({"spec": {"hard": {"pods": "1"}}}),
    );
    world.settle();
    world.tell();
    end_one(&mut world, 0);
    wait(&mut world, 3);
    assert_eq!(
        counts(&world),
        [1, 1, 0, 2, 0],
        "counted, though nothing is made"
    );
    assert!(
        world
            .tell()
            .contains("event FailedCreate Error creating: pods \"j-")
    );
    world.delete(&weft_kinds::RESOURCE_QUOTA, "q", Propagation::Background);
    wait(&mut world, 40);
    assert_eq!(counts(&world), [2, 2, 0, 2, 0]);
}

#[test]
fn conditions_of_others_stay() {
    let mut world = world(21, job(json!({})));
    let theirs = json!({"type": "Custom", "status": "True", "reason": "E2E", "message": "kept"});
    world.patch(&JOB, "j", json!({"status": {"conditions": [theirs]}}));
    world.settle();
    end_one(&mut world, 0);
    assert_eq!(
        conditions(&world),
        [
            "Custom E2E",
            "SuccessCriteriaMet CompletionsReached",
            "Complete CompletionsReached"
        ]
    );
}

#[test]
fn each_end_is_counted_once_in_whatever_order_the_news_come() {
    for seed in 100..130 {
        let spec = json!({"completions": 6, "parallelism": 3, "backoffLimit": 100});
        let mut world = match seed % 2 {
            0 => world(seed, job(spec)),
            _ => world(
                seed,
                indexed(6, json!({"parallelism": 3, "backoffLimit": 100})),
            ),
        };
        let mut failed = 0;
        for turn in 0.. {
            assert!(turn < 200, "seed {seed} does not end: {}", status(&world));
            if !conditions(&world).is_empty() {
                break;
            }
            for pod in running(&world) {
                let code = i64::from((seed + turn) % 3 == 0);
                failed += code;
                end(&mut world, &pod, code);
                // Some are met in the middle of a pass.
                world.run((seed as usize * 7 + turn as usize) % 5, |_| {});
            }
            if turn % 5 == 4 {
                world.change_leader();
            }
            world.settle();
            wait(&mut world, 1);
            let [active, _, _, succeeded, _] = counts(&world);
            assert!(active + succeeded <= 6, "seed {seed}: {}", status(&world));
            for _ in 0..20 {
                world.pass_time(30);
                for node in ["n0", "n1", "n2"] {
                    world.renew_lease(node);
                }
                world.settle();
            }
        }
        assert_eq!(counts(&world), [0, 0, 0, 6, failed], "seed {seed}");
        assert_eq!(tracked(&world), 0, "seed {seed}");
    }
}
