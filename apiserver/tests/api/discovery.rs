//! What clients ask before anything else: discovery, versions, health.

use http::header;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::world::*;

#[tokio::test]
async fn discovery_and_health_answer_every_generation_of_clients() {
    let world = World::new().await;
    world.define_gateway_api().await;
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
    // The group that tells of all others is the first, and then they come as they ask for.
    assert_eq!(
        groups[..3],
        ["apiregistration.k8s.io", "apps", "events.k8s.io"]
    );
    let apps = &aggregated.body["items"][1]["versions"][0]["resources"];
    let mut apps = apps.as_array().unwrap().iter();
    let deployments = apps.find(|kind| kind["resource"] == "deployments").unwrap();
    assert_eq!(deployments["categories"], json!(["all"]));
    assert_eq!(world.get("/apis").await.body["kind"], "APIGroupList");
    assert_eq!(
        world.get("/apis/apps").await.body["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(world.get("/apis/nothing").await.status, 404);
    let paths = world.get("/").await.body;
    let paths = paths["paths"].as_array().unwrap();
    assert!(paths.contains(&json!("/apis/apps/v1")), "{paths:?}");
    let metrics = world.get("/metrics").await.body;
    let counted = r#"apiserver_request_total{code="200",component="apiserver",group="",resource="",scope="",subresource="/apis",verb="GET",version=""}"#;
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
    // A person who looks gets line breaks, a program that says nothing does not.
    let agent = [(header::USER_AGENT, "curl/8.5.0")];
    for (line, headers, breaks) in [
        ("GET /api/v1/namespaces/default", &agent[..], true),
        ("GET /api/v1/namespaces", &agent, true),
        ("GET /api/v1/namespaces/none", &agent, true),
        ("GET /api/v1/namespaces?pretty=false", &agent, false),
        ("GET /api/v1/namespaces/default?pretty=true", &[], true),
        ("GET /api/v1/namespaces/default", &[], false),
    ] {
        let request = world.request(line, headers, "");
        let response = world.router.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.starts_with(b"{\n  \""), breaks, "{line} {headers:?}");
    }
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
    let excluded = world.get("/readyz?verbose&exclude=store").await;
    assert!(
        excluded
            .body
            .as_str()
            .unwrap()
            .contains("[+]store excluded: ok")
    );
}

#[tokio::test]
async fn openapi_is_told_in_each_form_and_only_once_to_who_has_it() {
    let world = World::new().await;
    let ask = async |line: &str, headers: &[(header::HeaderName, &str)]| {
        world.send(world.request(line, headers, "")).await
    };
    // kubectl before 1.29, and Argo CD.
    let gnostic = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let binary = ask("GET /openapi/v2", &[(header::ACCEPT, gnostic)]).await;
    assert_eq!(
        binary.headers[header::CONTENT_TYPE],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    let bytes = binary.body.as_str().unwrap();
    assert!(
        bytes.starts_with("\n\u{3}2.0\u{12}"),
        "a Document begins with its version"
    );
    assert!(bytes.len() > 100_000, "{}", bytes.len());
    let json = ask("GET /openapi/v2", &[(header::ACCEPT, JSON)]).await;
    assert_eq!(json.body["swagger"], "2.0");
    let (tag, other) = (&json.headers[header::ETAG], &binary.headers[header::ETAG]);
    assert_ne!(tag, other, "each form has its own");
    let known = ask(
        "GET /openapi/v2",
        &[
            (header::ACCEPT, gnostic),
            (header::IF_NONE_MATCH, other.to_str().unwrap()),
        ],
    )
    .await;
    assert_eq!((known.status, known.body), (304, json!("")));
    let refused = ask("GET /openapi/v2", &[(header::ACCEPT, "text/html")]).await;
    assert_eq!(refused.status, 406);
    assert_eq!(ask("HEAD /openapi/v2", &[]).await.body, "");

    let root = world.get("/openapi/v3").await.body;
    let url = root["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = ask(&format!("GET {url}"), &[(header::ACCEPT, JSON)]).await;
    assert_eq!(document.body["openapi"], "3.0.0");
    let cache = document.headers[header::CACHE_CONTROL].to_str().unwrap();
    assert!(cache.contains("immutable"), "{cache}");
    let hash = document.headers[header::ETAG].to_str().unwrap();
    assert!(url.ends_with(hash.trim_matches('"')), "{url} {hash}");
    let moved = world.get("/openapi/v3/apis/apps/v1?hash=0").await;
    assert_eq!(
        (
            moved.status,
            moved.headers[header::LOCATION].to_str().unwrap()
        ),
        (301, url)
    );
    let known = ask(
        "GET /openapi/v3/apis/apps/v1",
        &[(header::IF_NONE_MATCH, &format!("W/\"x\", {hash}"))],
    )
    .await;
    assert_eq!(known.status, 304);
    assert_eq!(world.get("/openapi/v3/apis/no/v1").await.status, 404);
    let other_method = ask("POST /openapi/v2", &[]).await;
    assert_eq!(other_method.body["reason"], "MethodNotAllowed");
}
