//! What clients ask before anything else: discovery, versions, health.

use http::header;
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn discovery_and_health_answer_every_generation_of_clients() {
    let world = World::new().await;
    let kinds = world.get("/api/v1/").await;
    let names: Vec<&str> = kinds.body["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"pods/log") && names.contains(&"pods/binding"),
        "{names:?}"
    );
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = world.request("GET /apis", &[(header::ACCEPT, accept)], "");
    let aggregated = world.send(request).await;
    assert_eq!(
        aggregated.headers[header::CONTENT_TYPE],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let groups: Vec<&str> = aggregated.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(groups.contains(&"apps") && groups.contains(&"gateway.networking.k8s.io"));
    let deployments = &aggregated.body["items"][0]["versions"][0]["resources"][0];
    assert_eq!(deployments["categories"], json!(["all"]));
    assert_eq!(world.get("/apis").await.body["kind"], "APIGroupList");
    assert_eq!(
        world.get("/apis/apps").await.body["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(world.get("/apis/nothing").await.status, 404);
    let version = world.get("/version/").await;
    assert!(
        version.body["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.37.")
    );
    assert!(version.headers.contains_key("audit-id"));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/store"] {
        assert_eq!(world.get(path).await.body, "ok", "{path}");
    }
    let verbose = world.get("/readyz?verbose").await;
    assert!(verbose.body.as_str().unwrap().contains("[+]store ok"));
}
