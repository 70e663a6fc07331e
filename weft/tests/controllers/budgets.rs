//! Disruption budgets, counted by their controller and spent by evictions.

use serde_json::{Value, json};
use weft_kinds::{DEPLOYMENT, POD, POD_DISRUPTION_BUDGET};

use crate::manifests::deployment;
use crate::world::World;

fn budget(spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    json!({"metadata": {"name": "b", "namespace": "default"}, "spec": spec})
}

fn counts(world: &World) -> [i64; 4] {
    let status = &world.get(&POD_DISRUPTION_BUDGET, "b")["status"];
    [
        "expectedPods",
        "desiredHealthy",
        "currentHealthy",
        "disruptionsAllowed",
    ]
    .map(|field| status[field].as_i64().unwrap())
}

#[test]
fn a_budget_is_counted_and_spent() {
    let mut world = World::new(2);
    world.create(&DEPLOYMENT, deployment("web", 4, "x:1"));
    world.create(
        &POD_DISRUPTION_BUDGET,
        budget(json!({"maxUnavailable": "25%"})),
    );
    world.settle();
    assert_eq!(counts(&world), [4, 3, 4, 1]);
    assert_eq!(
        world.get(&POD_DISRUPTION_BUDGET, "b")["status"]["conditions"][0]["reason"],
        "SufficientPods"
    );
    world.agents = false;
    let pods = world.names(&POD);
    world.evict(&pods[0]).unwrap();
    // Before the controller has seen it.
    assert_eq!(counts(&world), [4, 3, 4, 0]);
    let status = &world.get(&POD_DISRUPTION_BUDGET, "b")["status"];
    assert!(status["disruptedPods"][&pods[0]].is_string());
    let evicted = world.get(&POD, &pods[0]);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let told = evicted["status"]["conditions"].as_array().unwrap().iter();
    let told: Vec<&Value> = told
        .filter(|one| one["type"] == "DisruptionTarget")
        .collect();
    assert_eq!(told[0]["reason"], "EvictionByEvictionAPI");
    let refused = world.evict(&pods[1]).unwrap_err();
    assert_eq!(refused.code, 429);
    world.settle();
    let status = &world.get(&POD_DISRUPTION_BUDGET, "b")["status"];
    assert_eq!(status["disruptedPods"], Value::Null, "it is seen to go");
    assert_eq!(counts(&world), [4, 3, 3, 0]);
    let refused = world.evict(&pods[1]).unwrap_err();
    assert_eq!(
        refused.details.unwrap().causes[0].message,
        "The disruption budget b needs 3 healthy pods and has 3 currently"
    );
    world.agents = true;
    world.settle();
    assert_eq!(counts(&world), [4, 3, 4, 1]);
    world.evict(&pods[1]).unwrap();
}

#[test]
fn a_share_of_what_is_asked_for_follows_no_single_pod() {
    let mut world = World::new(4);
    world.create(
        &POD_DISRUPTION_BUDGET,
        budget(json!({"minAvailable": "50%"})),
    );
    world.settle();
    assert_eq!(counts(&world), [0, 0, 0, 0]);
    world.create(&DEPLOYMENT, deployment("web", 3, "x:1"));
    world.settle();
    assert_eq!(counts(&world), [3, 2, 3, 1]);
    world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 7}}));
    world.settle();
    assert_eq!(counts(&world), [7, 4, 7, 3]);
}
