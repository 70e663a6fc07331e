//! A Service that calls wait for gets a replica: who may ask, which target is raised, and what is told to be in the way.

use serde_json::{Value, json};

use crate::world::*;

const ACTIVATIONS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/activations";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn asked(service: &str) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Activation", "spec": {"serviceName": service},
    })
}

/// What a node is told of a Service: what is in the way, or nothing.
async fn told(world: &World, service: &str) -> Value {
    let line = format!("POST {ACTIVATIONS}");
    let answer = world.ask_as("node", &line, asked(service)).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    answer.body["status"]["message"].clone()
}

async fn replicas(world: &World) -> Value {
    let found = world.get(&format!("{DEPLOYMENTS}/web")).await;
    found.body["spec"]["replicas"].clone()
}

/// Deployment `web` without a replica, and an autoscaler that brings it back when Service `web` is called.
async fn emptied(world: &World) {
    let made = world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(0))
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    let body = json!({
        "metadata": {"name": "a"},
        "spec": {
            "minReplicas": 0, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Object", "object": {
                "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
                "metric": {"name": "requests-per-second"}, "target": {"type": "Value", "value": "10"}}}],
        },
    });
    let made = world.ask(&format!("POST {AUTOSCALERS}"), body).await;
    assert_eq!(made.status, 201, "{}", made.line());
}

async fn has_emptied_it(world: &World, status: &str) {
    let condition = json!({
        "type": "ScaledToZero", "status": status, "reason": "r", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let body = json!({"status": {"desiredReplicas": 0, "conditions": [condition]}});
    let path = format!("{AUTOSCALERS}/a/status");
    let told = world.patch(&path, "merge-patch", body).await;
    assert_eq!(told.status, 200, "{}", told.line());
}

#[tokio::test]
async fn what_an_autoscaler_has_emptied_is_brought_back_by_a_call() {
    let world = World::new().await;
    assert_eq!(
        told(&world, "web").await,
        "no HorizontalPodAutoscaler brings it back from zero replicas"
    );
    emptied(&world).await;
    assert_eq!(
        told(&world, "web").await,
        "Deployment web was scaled to zero replicas by somebody else than its autoscaler, which leaves it so"
    );
    has_emptied_it(&world, "False").await;
    told(&world, "web").await;
    assert_eq!(replicas(&world).await, 0);
    has_emptied_it(&world, "True").await;
    assert_eq!(
        told(&world, "other").await,
        "no HorizontalPodAutoscaler brings it back from zero replicas"
    );
    assert_eq!(replicas(&world).await, 0);
    assert_eq!(told(&world, "web").await, Value::Null);
    assert_eq!(replicas(&world).await, 1);
    let events = world.get("/api/v1/namespaces/default/events").await;
    let event = &events.body["items"][0];
    assert_eq!(
        (
            &event["involvedObject"]["kind"],
            &event["involvedObject"]["name"]
        ),
        (&json!("HorizontalPodAutoscaler"), &json!("a"))
    );
    assert_eq!(
        (&event["reason"], &event["message"]),
        (
            &json!("SuccessfulRescale"),
            &json!("New size: 1; reason: calls to Service web wait for an endpoint")
        )
    );

    // Asked again, it is left alone, and what is in the way is told once something is.
    assert_eq!(told(&world, "web").await, Value::Null);
    let failure = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"web-1\" is forbidden: exceeded quota: small"});
    let status = json!({"status": {"conditions": [failure]}});
    let path = format!("{DEPLOYMENTS}/web/status");
    assert_eq!(world.patch(&path, "merge-patch", status).await.status, 200);
    assert_eq!(
        told(&world, "web").await,
        "pods \"web-1\" is forbidden: exceeded quota: small"
    );
    let made = world.ask(&format!("POST {PODS}"), pod("web-1")).await;
    assert_eq!(made.status, 201, "{}", made.line());
    assert_eq!(told(&world, "web").await, Value::Null);
    let unplaced = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu."});
    let status = json!({"status": {"conditions": [unplaced]}});
    let path = format!("{PODS}/web-1/status");
    assert_eq!(world.patch(&path, "merge-patch", status).await.status, 200);
    assert_eq!(
        told(&world, "web").await,
        "pod web-1 cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu."
    );
    assert_eq!(replicas(&world).await, 1);
}

#[tokio::test]
async fn who_may_not_ask_brings_nobody_back() {
    let world = World::new().await;
    emptied(&world).await;
    has_emptied_it(&world, "True").await;
    let line = format!("POST {ACTIVATIONS}");
    let refused = world.ask_as("user", &line, asked("web")).await;
    assert_eq!(refused.status, 403, "{}", refused.line());
    assert_eq!(replicas(&world).await, 0);
    let read = format!("GET {ACTIVATIONS}");
    let read = world.ask_as("node", &read, json!(null)).await;
    assert_eq!(read.status, 403, "{}", read.line());
    let nameless = world.ask_as("node", &line, json!({"spec": {}})).await;
    assert_eq!(nameless.status, 400, "{}", nameless.line());
}
