//! What the mesh counts of calls, as clients of `custom.metrics.k8s.io` read it; with a node behind that is not one (`stub_node`).

use serde_json::{Value, json};

use crate::stub_node::StubNode;
use crate::world::*;

const METRICS: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const OURS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";

fn values(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            assert!(item["timestamp"].is_string() && item["windowSeconds"].is_number());
            let of = &item["describedObject"];
            let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            let parts = [
                &of["kind"],
                &of["name"],
                &item["metric"]["name"],
                &item["value"],
            ];
            parts.map(text).join(" ")
        })
        .collect()
}

#[tokio::test]
async fn calls_are_metrics_of_pods_and_services() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    for name in ["web", "idle"] {
        let mut service = service.clone();
        service["metadata"]["name"] = json!(name);
        let made = world.ask(&format!("POST {SERVICES}"), service).await;
        assert_eq!(made.status, 201, "{}", made.line());
    }
    let _node = StubNode::start(&world).await;
    let list = world
        .get(&format!("{OURS}/pods/*/request-latency-p95-milliseconds"))
        .await;
    assert_eq!(list.status, 200, "{}", list.line());
    assert_eq!(list.body["kind"], "MetricValueList");
    assert_eq!(list.body["apiVersion"], "custom.metrics.k8s.io/v1beta2");
    // All of the answers are in the group from 896 to 1024 µs.
    assert_eq!(
        values(&list.body),
        ["Pod p request-latency-p95-milliseconds 1017m"]
    );
    let value = |of: &'static str| {
        let world = &world;
        async move {
            let found = world.get(&format!("{OURS}/{of}")).await;
            assert_eq!(found.status, 200, "{}", found.line());
            values(&found.body).remove(0)
        }
    };
    let called = value("services/web/requests-per-second").await;
    assert!(called.starts_with("Service web requests-per-second ") && !called.ends_with(" 0"));
    assert_eq!(
        value("services/idle/requests-in-flight").await,
        "Service idle requests-in-flight 0"
    );
    assert_eq!(
        value("pods/p/request-latency-p95-milliseconds").await,
        "Pod p request-latency-p95-milliseconds 1017m"
    );
    let selected = world
        .get(&format!(
            "{OURS}/pods/*/requests-per-second?labelSelector=app%3Dweb"
        ))
        .await;
    assert_eq!(selected.body["items"], json!([]), "it has no labels");
    for (path, message) in [
        (
            "services/gone/requests-per-second",
            "the server could not find the metric requests-per-second for services gone",
        ),
        (
            "pods/p/packets",
            "the server could not find the metric packets for pods p",
        ),
        // It waits for its node.
        (
            "pods/waiting/requests-per-second",
            "the server could not find the metric requests-per-second for pods waiting",
        ),
    ] {
        let answer = world.get(&format!("{OURS}/{path}")).await;
        assert_eq!(
            (answer.status, &answer.body["message"]),
            (404, &json!(message))
        );
    }
    let refused = format!("GET {OURS}/services/web/requests-per-second");
    let refused = world.ask_as("user", &refused, json!(null)).await;
    assert_eq!(refused.status, 403, "{}", refused.line());
}

#[tokio::test]
async fn discovery_lists_the_metrics() {
    let world = World::new().await;
    let list = world.get(METRICS).await;
    let resources = list.body["resources"].as_array().unwrap().iter();
    let names: Vec<&str> = resources
        .map(|one| {
            assert_eq!(
                (&one["kind"], &one["namespaced"]),
                (&json!("MetricValueList"), &json!(true))
            );
            assert_eq!(one["verbs"], json!(["get"]));
            one["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "pods/requests-per-second",
            "pods/requests-in-flight",
            "pods/request-latency-p95-milliseconds",
            "services/requests-per-second",
            "services/requests-in-flight",
            "services/request-latency-p95-milliseconds",
        ]
    );
}
