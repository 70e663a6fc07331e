//! Autoscalers that go by calls, on the real server: figures as nodes report them, sizes, conditions and events; to no replica and back.

use std::time::Duration;

use serde_json::{Value, json};
use weft_controllers::Key;
use weft_controllers::usage::CallRate;
use weft_kinds::autoscaling::calls::CallFigures;
use weft_kinds::{DEPLOYMENT, ENDPOINT_SLICE, HORIZONTAL_POD_AUTOSCALER, POD, SERVICE};

use crate::manifests::deployment;
use crate::world::World;

const WAKER: &str = "weft.dev/scaled-from-zero-by";

fn world(replicas: i64) -> World {
    let mut world = World::new(1);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", replicas, "x:1"));
    world.create(
        &SERVICE,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }),
    );
    world.settle();
    wait(&mut world, 60);
    world
}

fn wait(world: &mut World, seconds: usize) {
    for _ in 0..seconds / 5 {
        world.pass_time(5);
        for node in ["n0", "n1", "n2"] {
            world.renew_lease(node);
        }
        world.settle();
    }
}

fn rate(world: &World, per_second: i64) -> CallRate {
    CallRate {
        at: world.now,
        window: Duration::from_secs(10),
        figures: CallFigures {
            requests_per_second: per_second * 1000,
            requests_in_flight: per_second * 10,
            latency_p95_milliseconds: 12_500,
        },
    }
}

/// Each pod that there is gets so many calls.
fn pods_get(world: &mut World, per_second: i64) {
    let rate = rate(world, per_second);
    world.calls.pods.clear();
    for pod in world.names(&POD) {
        world.calls.pods.insert(Key::new("default", &pod), rate);
    }
}

fn service_gets(world: &mut World, per_second: i64) {
    let rate = rate(world, per_second);
    world.calls.of_others = Some(rate);
    world
        .calls
        .services
        .insert(Key::new("default", "web"), rate);
}

fn autoscaler(min: i64, metrics: &Value) -> Value {
    json!({
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"minReplicas": min, "maxReplicas": 10, "metrics": metrics,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}},
    })
}

fn of_service(metric: &str, value: &str) -> Value {
    json!([{"type": "Object", "object": {
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
        "metric": {"name": metric}, "target": {"type": "Value", "value": value}}}])
}

fn replicas(world: &World) -> i64 {
    world.get(&DEPLOYMENT, "web")["spec"]["replicas"]
        .as_i64()
        .unwrap()
}

fn condition(world: &World, kind: &str) -> (String, String) {
    let status = &world.get(&HORIZONTAL_POD_AUTOSCALER, "a")["status"];
    let all = status["conditions"].as_array().unwrap();
    let one = all.iter().find(|one| one["type"] == kind).unwrap();
    let text = |field: &str| one[field].as_str().unwrap().to_owned();
    (
        format!("{} {}", text("status"), text("reason")),
        text("message"),
    )
}

fn waker(world: &World) -> Value {
    let mut slices = world.names(&ENDPOINT_SLICE).into_iter();
    let slice = slices.find(|name| name.starts_with("web")).unwrap();
    world.get(&ENDPOINT_SLICE, &slice)["metadata"]["annotations"][WAKER].clone()
}

#[test]
fn a_target_grows_with_the_calls_of_its_pods() {
    let mut world = world(2);
    pods_get(&mut world, 100);
    world.tell();
    let metrics = json!([{"type": "Pods", "pods": {"metric": {"name": "requests-per-second"},
        "target": {"type": "AverageValue", "averageValue": "50"}}}]);
    world.create(&HORIZONTAL_POD_AUTOSCALER, autoscaler(1, &metrics));
    world.settle();
    assert_eq!(replicas(&world), 4);
    assert_eq!(
        condition(&world, "ScalingActive"),
        (
            "True ValidMetricFound".to_owned(),
            "the HPA was able to successfully calculate a replica count from pods metric requests-per-second".to_owned()
        )
    );
    let event =
        "event SuccessfulRescale New size: 4; reason: pods metric requests-per-second above target";
    assert!(world.tell().contains(event));
    let current = &world.get(&HORIZONTAL_POD_AUTOSCALER, "a")["status"]["currentMetrics"][0];
    assert_eq!(current["pods"]["current"], json!({"averageValue": "100"}));
    // A Service that nobody brings back says nothing of it.
    assert_eq!(waker(&world), Value::Null);
}

#[test]
fn latency_is_told_in_milliseconds() {
    let mut world = world(2);
    service_gets(&mut world, 1);
    let metrics = of_service("request-latency-p95-milliseconds", "5");
    world.create(&HORIZONTAL_POD_AUTOSCALER, autoscaler(1, &metrics));
    world.settle();
    assert_eq!(replicas(&world), 5, "12.5 ms of 5, for each of two");
    let current = &world.get(&HORIZONTAL_POD_AUTOSCALER, "a")["status"]["currentMetrics"][0];
    assert_eq!(current["object"]["current"], json!({"value": "12500m"}));
}

#[test]
fn idle_for_its_window_a_target_has_no_replica_and_a_call_brings_it_back() {
    let mut world = world(1);
    service_gets(&mut world, 20);
    let metrics = of_service("requests-per-second", "50");
    world.create(&HORIZONTAL_POD_AUTOSCALER, autoscaler(0, &metrics));
    world.settle();
    assert_eq!((replicas(&world), waker(&world)), (1, json!("a")));
    service_gets(&mut world, 0);
    wait(&mut world, 45);
    assert_eq!(replicas(&world), 1, "not for as long as that");
    assert_eq!(
        condition(&world, "AbleToScale").0,
        "True ScaleDownStabilized"
    );
    world.tell();
    wait(&mut world, 45);
    assert_eq!(replicas(&world), 0);
    assert_eq!(condition(&world, "ScaledToZero").0, "True ScaledToZero");
    let event = "event SuccessfulRescale New size: 0; reason: All metrics below target";
    assert!(world.tell().contains(event));
    assert_eq!(
        waker(&world),
        json!("a"),
        "nodes know it with nobody there, too"
    );
    assert_eq!(world.names(&POD), [""; 0]);

    // A call waits: its size is raised beside the autoscaler, which sees no figures of it yet.
    world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 1}}));
    world.settle();
    wait(&mut world, 45);
    assert_eq!(replicas(&world), 1);
    assert_eq!(condition(&world, "ScaledToZero").0, "False NotScaledToZero");
    assert_eq!(
        condition(&world, "ScalingActive").0,
        "True ValidMetricFound"
    );
    wait(&mut world, 45);
    assert_eq!(replicas(&world), 0, "idle again");

    // Figures alone bring it back, too: as many as they ask for.
    service_gets(&mut world, 120);
    wait(&mut world, 15);
    assert_eq!(replicas(&world), 3);
    assert_eq!(condition(&world, "ScaledToZero").0, "False NotScaledToZero");
}

#[test]
fn without_a_window_a_pod_that_starts_is_not_taken_away() {
    let mut world = world(1);
    service_gets(&mut world, 0);
    let mut object = autoscaler(0, &of_service("requests-per-second", "50"));
    object["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = json!(0);
    world.create(&HORIZONTAL_POD_AUTOSCALER, object);
    world.settle();
    assert_eq!(replicas(&world), 0, "at once");
    wait(&mut world, 10);
    world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 1}}));
    world.settle();
    wait(&mut world, 10);
    assert_eq!(replicas(&world), 1, "the look that meets it lets it be");
    wait(&mut world, 15);
    assert_eq!(replicas(&world), 0);
}

#[test]
fn scaled_to_nothing_by_hand_it_stays_so() {
    let mut world = world(2);
    service_gets(&mut world, 100);
    world.create(
        &HORIZONTAL_POD_AUTOSCALER,
        autoscaler(0, &of_service("requests-per-second", "50")),
    );
    world.settle();
    world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 0}}));
    world.settle();
    wait(&mut world, 30);
    assert_eq!(replicas(&world), 0);
    assert_eq!(
        condition(&world, "ScalingActive").0,
        "False ScalingDisabled"
    );
}

#[test]
fn what_wakes_a_service_is_forgotten_with_its_autoscaler() {
    let mut world = world(1);
    service_gets(&mut world, 20);
    let metrics = of_service("requests-per-second", "50");
    world.create(&HORIZONTAL_POD_AUTOSCALER, autoscaler(0, &metrics));
    world.settle();
    assert_eq!(waker(&world), json!("a"));
    world.patch(
        &HORIZONTAL_POD_AUTOSCALER,
        "a",
        json!({"spec": {"minReplicas": 1}}),
    );
    world.settle();
    assert_eq!(waker(&world), Value::Null);
}
