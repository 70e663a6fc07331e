//! Evictions: what budgets hold back, in which words, and what each leaves.

use serde_json::{Value, json};

use crate::world::{Answer, World, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A running pod, ready or not.
async fn running(world: &World, name: &str, ready: bool) {
    world.ask(&format!("POST {PODS}"), pod(name)).await;
    let ready = if ready { "True" } else { "False" };
    let status =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    let path = format!("{PODS}/{name}/status");
    let told = world.patch(&path, "merge-patch", status).await;
    assert_eq!(told.status, 200, "{}", told.line());
    let placed = json!({"target": {"name": "n0"}, "metadata": {"name": name}});
    let bound = world
        .ask(&format!("POST {PODS}/{name}/binding"), placed)
        .await;
    assert_eq!(bound.status, 201, "{}", bound.line());
}

async fn budget(world: &World, name: &str, spec: Value, status: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    let made = world
        .ask(
            &format!("POST {BUDGETS}"),
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    let path = format!("{BUDGETS}/{name}/status");
    let told = world
        .patch(&path, "merge-patch", json!({ "status": status }))
        .await;
    assert_eq!(told.status, 200, "{}", told.line());
}

async fn evict(world: &World, name: &str, options: Value) -> Answer {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": "default"}, "deleteOptions": options});
    world
        .ask(&format!("POST {PODS}/{name}/eviction"), eviction)
        .await
}

fn counted(allowed: i64) -> Value {
    json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3 - allowed,
        "expectedPods": 3})
}

#[tokio::test]
async fn a_budget_is_spent_with_the_pod_that_goes() {
    let world = World::new().await;
    for name in ["a", "b"] {
        running(&world, name, true).await;
    }
    budget(&world, "b", json!({"maxUnavailable": 1}), counted(1)).await;
    let tried = evict(&world, "a", json!({"dryRun": ["All"]})).await;
    assert_eq!(tried.status, 201, "{}", tried.line());
    let at = world.get(&format!("{BUDGETS}/b")).await.body;
    assert_eq!(at["status"]["disruptionsAllowed"], 1, "tried only");
    let evicted = evict(&world, "a", json!({})).await;
    assert_eq!(evicted.status, 201);
    assert_eq!(evicted.body["status"], "Success");
    let going = world.get(&format!("{PODS}/a")).await.body;
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let told = conditions
        .iter()
        .find(|one| one["type"] == "DisruptionTarget")
        .unwrap();
    assert_eq!(told["reason"], "EvictionByEvictionAPI");
    assert_eq!(told["message"], "Eviction API: evicting");
    let at = world.get(&format!("{BUDGETS}/b")).await.body;
    assert_eq!(at["status"]["disruptionsAllowed"], 0);
    assert!(at["status"]["disruptedPods"]["a"].is_string());
    assert_eq!(at["status"]["conditions"][0]["reason"], "InsufficientPods");
    assert_eq!(at["metadata"]["generation"], 1);
    let refused = evict(&world, "b", json!({})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.body,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "reason": "TooManyRequests", "code": 429, "details": {"causes": [{"reason": "DisruptionBudget",
            "message": "The disruption budget b does not allow evicting pods currently"}]}})
    );
    assert!(refused.headers.get("retry-after").is_none());
    // One that is going already disturbs nobody more.
    assert_eq!(evict(&world, "a", json!({})).await.status, 201);
    // The deletion itself is no eviction.
    let deleted = world.ask(&format!("DELETE {PODS}/b"), Value::Null).await;
    assert_eq!(deleted.status, 200);
}

#[tokio::test]
async fn what_holds_an_eviction_back_and_what_does_not() {
    let unhealthy = json!({"unhealthyPodEvictionPolicy": "AlwaysAllow", "minAvailable": 3});
    let behind = json!({"observedGeneration": 0, "disruptionsAllowed": 1});
    let short = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 3});
    let enough = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 3, "desiredHealthy": 3});
    let min = || json!({"minAvailable": 3});
    for (spec, status, ready, code, retry) in [
        (min(), behind, true, 429, Some("10")),
        (min(), short.clone(), true, 429, None),
        // One that is not ready goes while the others are enough, or where the budget says so.
        (min(), short.clone(), false, 429, None),
        (min(), enough.clone(), false, 201, None),
        (min(), enough, true, 429, None),
        (unhealthy.clone(), short.clone(), false, 201, None),
        (unhealthy, short, true, 429, None),
    ] {
        let world = World::new().await;
        running(&world, "a", ready).await;
        budget(&world, "b", spec.clone(), status.clone()).await;
        let answer = evict(&world, "a", json!({})).await;
        assert_eq!(
            answer.status,
            code,
            "{spec} {status} {ready}: {}",
            answer.line()
        );
        let after = answer
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap());
        assert_eq!(after, retry, "{spec} {status} {ready}");
        let at = world.get(&format!("{BUDGETS}/b")).await.body;
        assert_eq!(
            at["status"]["disruptedPods"],
            Value::Null,
            "nothing was spent"
        );
    }
}

#[tokio::test]
async fn an_eviction_means_one_pod_in_one_state() {
    let world = World::new().await;
    running(&world, "a", true).await;
    budget(&world, "b", json!({"maxUnavailable": 1}), counted(1)).await;
    let other = json!({"preconditions": {"uid": "another"}});
    let refused = evict(&world, "a", other).await;
    assert_eq!(refused.status, 409);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Operation cannot be fulfilled on Pod \"a\": the UID in the precondition (another)"
        ),
        "{message}"
    );
    let at = world.get(&format!("{BUDGETS}/b")).await.body;
    assert_eq!(
        at["status"]["disruptionsAllowed"], 1,
        "what was refused has spent nothing"
    );
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}});
    let named = world
        .ask(&format!("POST {PODS}/a/eviction"), eviction)
        .await;
    assert_eq!(named.status, 400);
    assert_eq!(
        named.body["message"],
        "name in URL does not match name in Eviction object"
    );
    assert_eq!(evict(&world, "none", json!({})).await.status, 404);
    // Two budgets: Kubernetes refuses in the body of a 201.
    budget(&world, "c", json!({"maxUnavailable": 1}), counted(1)).await;
    let several = evict(&world, "a", json!({})).await;
    assert_eq!(several.status, 201);
    assert_eq!(
        several.body,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
            "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."})
    );
    // A pod that nobody waits for is nobody's to guard.
    world.ask(&format!("POST {PODS}"), pod("pending")).await;
    assert_eq!(evict(&world, "pending", json!({})).await.status, 201);
}
