//! HorizontalPodAutoscalers on the real server: which size they give a target, when, and what they tell of it. What pods use is
//! what a test says.

use std::time::Duration;

use serde_json::{Value, json};
use weft_controllers::Key;
use weft_controllers::usage::{ContainerUsage, PodUsage};
use weft_controllers::write::Propagation;
use weft_kinds::{DEPLOYMENT, HORIZONTAL_POD_AUTOSCALER, POD};

use crate::manifests::deployment;
use crate::world::World;

const MILLI: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn cpu(percent: i64) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

fn autoscaler(name: &str, metrics: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    })
}

/// So many pods that asked for a tenth of a core and 64 MiB each, which have run for ten minutes.
fn world(replicas: i64) -> World {
    let mut world = World::new(1);
    world.create_nodes();
    let mut web = deployment("web", replicas, "x:1");
    web["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    world.create(&DEPLOYMENT, web);
    world.settle();
    wait(&mut world, 600);
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

fn scale(world: &mut World, object: Value) {
    world.create(&HORIZONTAL_POD_AUTOSCALER, object);
    world.settle();
}

/// Every pod there is uses so much: thousandths of a core, and MiB.
fn all_use(world: &mut World, cpu: u64, memory: u64) {
    let pods = world.names(&POD);
    world.usage.clear();
    for pod in pods {
        uses(world, &pod, cpu, memory);
    }
}

fn uses(world: &mut World, pod: &str, cpu: u64, memory: u64) {
    let used = ContainerUsage {
        nano_cores: cpu * MILLI,
        memory_bytes: memory * MIB,
    };
    let usage = PodUsage {
        at: world.now,
        window: Duration::from_secs(10),
        containers: [("main".to_owned(), used)].into(),
    };
    world.usage.insert(Key::new("default", pod), usage);
}

fn replicas(world: &World) -> i64 {
    world.get(&DEPLOYMENT, "web")["spec"]["replicas"]
        .as_i64()
        .unwrap()
}

fn status(world: &World) -> &Value {
    &world.get(&HORIZONTAL_POD_AUTOSCALER, "a")["status"]
}

/// Conditions with their reasons, in order.
fn conditions(world: &World) -> Vec<String> {
    let all = status(world)["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or("").to_owned();
    all.iter()
        .map(|one| {
            format!(
                "{} {} {}",
                text(one, "type"),
                text(one, "status"),
                text(one, "reason")
            )
        })
        .collect()
}

fn message(world: &World, condition: &str) -> String {
    let all = status(world)["conditions"].as_array().unwrap();
    let found = all.iter().find(|one| one["type"] == condition).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_target_grows_with_what_its_pods_use() {
    let mut world = world(2);
    all_use(&mut world, 100, 10);
    world.tell();
    scale(&mut world, autoscaler("a", &cpu(50)));
    assert_eq!(replicas(&world), 4);
    assert_eq!(
        conditions(&world),
        [
            "AbleToScale True SucceededRescale",
            "ScalingActive True ValidMetricFound",
            "ScalingLimited False DesiredWithinRange",
            "ScaledToZero False NotScaledToZero",
        ]
    );
    assert_eq!(
        message(&world, "ScalingActive"),
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"
    );
    assert_eq!(
        message(&world, "AbleToScale"),
        "the HPA controller was able to update the target scale to 4"
    );
    let told = status(&world);
    assert_eq!(
        (&told["currentReplicas"], &told["desiredReplicas"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(told["observedGeneration"], 1);
    assert_eq!(told["lastScaleTime"], "2026-01-01T00:10:00Z");
    let current = &told["currentMetrics"][0]["resource"]["current"];
    assert_eq!(
        *current,
        json!({"averageUtilization": 100, "averageValue": "100m"})
    );
    let event = "event SuccessfulRescale New size: 4; reason: cpu resource utilization (percentage of request) above target";
    assert!(world.tell().contains(event));
    // Its pods only began: they count as idle, and what the others use is enough for all.
    wait(&mut world, 15);
    assert_eq!(replicas(&world), 4);
    assert_eq!(conditions(&world)[0], "AbleToScale True ReadyForNewScale");
}

#[test]
fn a_little_more_or_less_is_no_reason() {
    for (used, size) in [(47, 4), (50, 4), (55, 4), (57, 5), (44, 4)] {
        let mut world = world(4);
        all_use(&mut world, used, 10);
        scale(&mut world, autoscaler("a", &cpu(50)));
        assert_eq!(replicas(&world), size, "{used}");
    }
    let mut world = world(4);
    all_use(&mut world, 53, 10);
    let mut object = autoscaler("a", &cpu(50));
    object["spec"]["behavior"] = json!({"scaleUp": {"tolerance": "0.02"}});
    scale(&mut world, object);
    assert_eq!(replicas(&world), 5, "its own tolerance is smaller");
}

#[test]
fn a_target_shrinks_when_nothing_more_was_wanted_for_five_minutes() {
    let mut world = world(6);
    all_use(&mut world, 50, 10);
    scale(&mut world, autoscaler("a", &cpu(50)));
    all_use(&mut world, 10, 10);
    wait(&mut world, 285);
    assert_eq!(replicas(&world), 6);
    assert_eq!(
        conditions(&world)[0],
        "AbleToScale True ScaleDownStabilized"
    );
    wait(&mut world, 30);
    assert_eq!(replicas(&world), 2);
    assert_eq!(
        message(&world, "AbleToScale"),
        "the HPA controller was able to update the target scale to 2"
    );
}

#[test]
fn bounds_come_before_metrics_and_hold_all_the_same() {
    let mut world = world(3);
    let mut object = autoscaler("a", &cpu(50));
    object["spec"]["maxReplicas"] = json!(2);
    world.tell();
    scale(&mut world, object);
    assert_eq!(replicas(&world), 2);
    assert!(world.tell().contains("event SuccessfulRescale New size: 2; reason: Current number of replicas above Spec.MaxReplicas"));
    all_use(&mut world, 100, 10);
    wait(&mut world, 15);
    assert_eq!(replicas(&world), 2);
    let limited = "ScalingLimited True TooManyReplicas".to_owned();
    assert!(conditions(&world).contains(&limited));
    world.patch(
        &HORIZONTAL_POD_AUTOSCALER,
        "a",
        json!({"spec": {"minReplicas": 5, "maxReplicas": 9}}),
    );
    world.settle();
    assert_eq!(replicas(&world), 5, "at once");
    assert!(
        world
            .tell()
            .contains("New size: 5; reason: Current number of replicas below Spec.MinReplicas")
    );
}

#[test]
fn pods_nothing_is_known_of_are_guessed_at() {
    let mut world = world(4);
    let pods = world.names(&POD);
    // Two use twice what they are to; of the others nothing is known: idle, so there is enough for all.
    uses(&mut world, &pods[0], 100, 1);
    uses(&mut world, &pods[1], 100, 1);
    scale(&mut world, autoscaler("a", &cpu(50)));
    assert_eq!(replicas(&world), 4);
    // Two use nothing; the others count as busy: half as many would do.
    uses(&mut world, &pods[0], 0, 1);
    uses(&mut world, &pods[1], 0, 1);
    wait(&mut world, 330);
    assert_eq!(replicas(&world), 4, "two of 100 % are 50 % of four");
}

#[test]
fn memory_is_told_in_its_own_unit_and_the_largest_size_wins() {
    let mut world = world(2);
    all_use(&mut world, 30, 96);
    let mut metrics = cpu(50);
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "32Mi"}}});
    metrics.as_array_mut().unwrap().push(memory);
    scale(&mut world, autoscaler("a", &metrics));
    assert_eq!(replicas(&world), 4, "six, but no faster than to four");
    assert_eq!(conditions(&world)[2], "ScalingLimited True ScaleUpLimit");
    assert!(message(&world, "ScalingActive").ends_with("from memory resource"));
    let current = &status(&world)["currentMetrics"][1]["resource"]["current"];
    assert_eq!(*current, json!({"averageValue": "96Mi"}));
}

#[test]
fn one_container_can_be_what_counts() {
    let mut world = world(2);
    all_use(&mut world, 100, 10);
    for usage in world.usage.values_mut() {
        let other = ContainerUsage {
            nano_cores: 900 * MILLI,
            memory_bytes: 0,
        };
        usage.containers.insert("sidecar".to_owned(), other);
    }
    let metrics = json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main",
        "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    scale(&mut world, autoscaler("a", &metrics));
    assert_eq!(replicas(&world), 4);
    assert!(
        message(&world, "ScalingActive")
            .ends_with("cpu container resource utilization (percentage of request)")
    );
    world.delete(&HORIZONTAL_POD_AUTOSCALER, "a", Propagation::Background);
    let mut metrics = metrics;
    metrics[0]["containerResource"]["container"] = json!("none");
    scale(&mut world, autoscaler("a", &metrics));
    assert_eq!(
        conditions(&world)[1],
        "ScalingActive False FailedGetContainerResourceMetric"
    );
}

#[test]
fn what_cannot_be_read_is_told_and_changes_nothing() {
    let mut world = world(2);
    scale(&mut world, autoscaler("a", &cpu(50)));
    assert_eq!(replicas(&world), 2);
    assert_eq!(
        conditions(&world),
        [
            "AbleToScale True SucceededGetScale",
            "ScalingActive False FailedGetResourceMetric"
        ]
    );
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
    assert_eq!(
        message(&world, "ScalingActive"),
        format!("the HPA was unable to compute the replica count: {why}")
    );
    let story = world.tell();
    assert!(story.contains(&format!("event FailedGetResourceMetric {why}")));
    assert!(story.contains(&format!(
        "event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
    )));
    assert_eq!(status(&world)["currentMetrics"], json!([{"type": ""}]));

    // One metric that fails does not keep a target from growing, but from shrinking.
    for (used, size) in [(10, 2), (100, 4)] {
        all_use(&mut world, used, 10);
        let mut metrics = cpu(50);
        let external = json!({"type": "External", "external": {"metric": {"name": "queue"},
            "target": {"type": "Value", "value": "30"}}});
        metrics.as_array_mut().unwrap().push(external);
        world.patch(
            &HORIZONTAL_POD_AUTOSCALER,
            "a",
            json!({"spec": {"metrics": metrics, "maxReplicas": 10 + used}}),
        );
        world.settle();
        assert_eq!(replicas(&world), size, "{used}");
    }
}

#[test]
fn a_pod_that_asked_for_nothing_has_no_share_of_it() {
    let mut world = World::new(1);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 1, "x:1"));
    world.settle();
    wait(&mut world, 600);
    all_use(&mut world, 10, 10);
    scale(&mut world, autoscaler("a", &cpu(50)));
    let pod = world.names(&POD).remove(0);
    let why = format!(
        "failed to get cpu utilization: missing request for cpu in container main of Pod {pod}"
    );
    assert_eq!(
        message(&world, "ScalingActive"),
        format!("the HPA was unable to compute the replica count: {why}")
    );
}

#[test]
fn a_target_has_to_be_there_and_to_have_a_size() {
    let mut world = world(1);
    for (target, why) in [
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}),
            "deployments.apps \"none\" not found",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web"}),
            "the server could not find the requested resource",
        ),
        (
            json!({"apiVersion": "x.y/v1", "kind": "Thing", "name": "web"}),
            "no matches for kind \"Thing\" in group \"x.y\"",
        ),
    ] {
        let mut object = autoscaler("a", &cpu(50));
        object["spec"]["scaleTargetRef"] = target;
        world.tell();
        scale(&mut world, object);
        let expected =
            format!("the HPA controller was unable to get the target's current scale: {why}");
        assert_eq!(message(&world, "AbleToScale"), expected);
        assert!(
            world
                .tell()
                .contains(&format!("event FailedGetScale {why}"))
        );
        world.delete(&HORIZONTAL_POD_AUTOSCALER, "a", Propagation::Background);
        world.settle();
    }
}

#[test]
fn a_target_without_pods_is_left_so() {
    let mut world = world(0);
    scale(&mut world, autoscaler("a", &cpu(50)));
    assert_eq!(
        (replicas(&world), conditions(&world)[1].as_str()),
        (0, "ScalingActive False ScalingDisabled")
    );
    assert_eq!(
        message(&world, "ScalingActive"),
        "scaling is disabled since the replica count of the target is zero"
    );
}

#[test]
fn pods_have_one_autoscaler() {
    let mut world = world(2);
    all_use(&mut world, 100, 10);
    let mut other = autoscaler("b", &cpu(50));
    other["spec"]["maxReplicas"] = json!(2);
    scale(&mut world, other);
    scale(&mut world, autoscaler("a", &cpu(50)));
    assert_eq!(replicas(&world), 2);
    let why = "pods by selector app=web are controlled by more than one HPA (e.g. [{a default} {b default}])";
    assert_eq!(message(&world, "ScalingActive"), why);
    assert!(
        world
            .tell()
            .contains(&format!("event AmbiguousSelector {why}"))
    );
}

#[test]
fn a_status_that_changes_is_no_reason_to_look_again() {
    let mut world = world(2);
    all_use(&mut world, 40, 10);
    scale(&mut world, autoscaler("a", &cpu(50)));
    world.tell();
    all_use(&mut world, 100, 10);
    wait(&mut world, 10);
    assert_eq!(
        (
            replicas(&world),
            world.tell().contains("horizontalpodautoscalers")
        ),
        (2, false)
    );
    wait(&mut world, 5);
    assert_eq!(replicas(&world), 4);
}
