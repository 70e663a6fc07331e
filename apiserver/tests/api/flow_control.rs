//! FlowSchemas and PriorityLevelConfigurations at work: what clients are told, and what their objects say.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_apiserver::caller::Caller;

use crate::world::*;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

fn level(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"},
        }},
    })
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 7,
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                    "namespaces": ["*"],
                }],
            }],
        },
    })
}

/// What a schema is told of its level, once that is this.
async fn told(world: &World, name: &str, reason: &str) -> Value {
    loop {
        let body = world.get(&format!("{SCHEMAS}/{name}")).await.body;
        let condition = &body["status"]["conditions"][0];
        if condition["reason"] == reason {
            return condition.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn requests_are_served_by_the_objects_that_are_there() {
    let mut world = World::new().await;
    let closing = CancellationToken::new();
    let (router, follower) = face_ordered(&world, closing.clone());
    world.router = router;
    let follower = tokio::spawn(follower);
    let system = Caller::system("apiserver", None);
    let nowhere = BTreeSet::new();
    world
        .objects
        .ensure_furniture(&system, &nowhere)
        .await
        .unwrap();

    // A schema whose level is not there says so, and is passed over.
    let made = world
        .ask(&format!("POST {SCHEMAS}"), schema("own", "own", "admin"))
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    assert!(made.headers.get("warning").is_none());
    let missing = told(&world, "own", "NotFound").await;
    assert_eq!(missing["type"], "Dangling");
    assert_eq!(missing["status"], "True");
    assert_eq!(
        missing["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"own\" but there is no such object"
    );
    let uid = |body: &Value| body["metadata"]["uid"].as_str().unwrap().to_owned();
    let exempt = world.get(&format!("{SCHEMAS}/exempt")).await;
    let header = |answer: &Answer, name: &str| {
        let found = answer.headers.get(format!("x-kubernetes-pf-{name}-uid"));
        found.map(|found| found.to_str().unwrap().to_owned())
    };
    assert_eq!(header(&exempt, "flowschema"), Some(uid(&exempt.body)));
    let of_level = world.get(&format!("{LEVELS}/exempt")).await;
    assert_eq!(
        header(&of_level, "prioritylevel"),
        Some(uid(&of_level.body))
    );

    // With its level, it is in force.
    let made = world.ask(&format!("POST {LEVELS}"), level("own")).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let found = told(&world, "own", "Found").await;
    assert_eq!(
        found["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"own\" and it exists"
    );
    assert_eq!(found["status"], "False");
    // Whoever asks here is exempt by a schema of a lower number.
    let metrics = world.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    let has = |line: &str| metrics.lines().any(|found| found.starts_with(line));
    for line in [
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} ",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"own\"} ",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"node-high\"} ",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"own\",priority_level=\"own\"} 0",
    ] {
        assert!(has(line), "{line}\n{metrics}");
    }

    // Others are not.
    let binding = json!({
        "metadata": {"name": "jo"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jo"}],
    });
    world.objects.ensure_roles(&system).await.unwrap();
    let bindings = "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(world.ask(bindings, binding).await.status, 201);
    let answer = world
        .ask_as(
            "user",
            &format!("GET {SCHEMAS}/global-default"),
            Value::Null,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    assert_eq!(header(&answer, "flowschema"), Some(uid(&answer.body)));
    closing.cancel();
    follower.await.unwrap();
}
