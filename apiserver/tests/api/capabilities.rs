//! CapabilityGrants, and what is refused without them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::*;

const GRANTS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/capabilitygrants";

/// A component that imports these and does nothing.
fn component(imports: &[&str]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // One type: an instance that exports nothing.
    bytes.extend([7, 3, 1, 0x42, 0]);
    let mut section = vec![u8::try_from(imports.len()).unwrap()];
    for import in imports {
        section.extend([0, u8::try_from(import.len()).unwrap()]);
        section.extend(import.as_bytes());
        section.extend([5, 0]);
    }
    bytes.extend([10, u8::try_from(section.len()).unwrap()]);
    bytes.extend(section);
    bytes
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Pushes an image to the cluster's own registry.
async fn push(world: &World, name: &str, component: &[u8]) {
    let mut layers = Vec::new();
    for blob in [b"{}".as_slice(), component] {
        let line = format!("POST /v2/{name}/blobs/uploads/?digest={}", digest(blob));
        let mut request = world.request(&line, &[], "");
        *request.body_mut() = axum::body::Body::from(blob.to_vec());
        assert_eq!(world.send(request).await.status, 201);
        layers.push(json!({"digest": digest(blob), "size": blob.len()}));
    }
    layers[0]["mediaType"] = "application/vnd.wasm.config.v0+json".into();
    layers[1]["mediaType"] = "application/wasm".into();
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media, "config": layers[0], "layers": [layers[1]]});
    let line = format!("PUT /v2/{name}/manifests/1");
    let request = world.request(&line, &[(CONTENT_TYPE, media)], &manifest.to_string());
    let pushed = world.send(request).await;
    assert_eq!(pushed.status, 201, "{}", pushed.body);
}

fn pod_of(name: &str, image: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["image"] = image.into();
    pod
}

#[tokio::test]
async fn a_pod_whose_component_imports_what_nothing_grants_is_refused_with_the_grant_to_add() {
    let world = World::new().await;
    let store = "wasi:keyvalue/store@0.2.0-draft2";
    push(
        &world,
        "shop/counts",
        &component(&["wasi:http/types@0.2.3", store]),
    )
    .await;
    push(&world, "shop/plain", &component(&["wasi:http/types@0.2.3"])).await;
    let create = format!("POST {PODS}");
    let plain = world.ask(&create, pod_of("plain", "shop/plain:1")).await;
    assert_eq!(plain.status, 201, "{}", plain.line());
    // What is not here is judged by the node.
    for (name, image) in [
        ("p1", "shop/later:1"),
        ("p2", "ghcr.io/shop/counts:1"),
        ("p3", "file:/tmp/counts.wasm"),
    ] {
        let answer = world.ask(&create, pod_of(name, image)).await;
        assert_eq!(answer.status, 201, "{}", answer.line());
    }

    let refused = world.ask(&create, pod_of("counts", "shop/counts:1")).await;
    insta::assert_snapshot!(refused.line(), @r#"403 Forbidden: pods "counts" is forbidden: image "shop/counts:1" imports wasi:keyvalue/store@0.2.0-draft2, and no CapabilityGrant of namespace default gives that to ServiceAccount default; add one: {apiVersion: weft.dev/v1alpha1, kind: CapabilityGrant, metadata: {name: default, namespace: default}, spec: {serviceAccountNames: [default], keyValue: [{identifier: default, store: default}]}}; and the KeyValueStore that it names: {apiVersion: weft.dev/v1alpha1, kind: KeyValueStore, metadata: {name: default, namespace: default}}"#);
    let cause = &refused.body["details"]["causes"][0];
    assert_eq!(cause["reason"], "CapabilityNotGranted");

    // Dry or not; but a workload is only warned of, and by the same sentence.
    let dry = world
        .ask(
            &format!("{create}?dryRun=All"),
            pod_of("counts", "shop/counts:1"),
        )
        .await;
    assert_eq!(dry.status, 403);
    let mut workload = deployment(1);
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/counts:1".into();
    let warned = world
        .ask(&format!("POST {DEPLOYMENTS}"), workload.clone())
        .await;
    assert_eq!(warned.status, 201, "{}", warned.line());
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(
        warning.starts_with(
            "299 - \"pods will be refused: image \\\"shop/counts:1\\\" imports wasi:keyvalue/store"
        ),
        "{warning}"
    );
    let patch = json!({"spec": {"replicas": 2}});
    let patched = world
        .patch(&format!("{DEPLOYMENTS}/web"), "merge-patch", patch)
        .await;
    assert!(patched.headers.contains_key("warning"));

    // The message is the object to add.
    let yaml = &cause["message"].as_str().unwrap();
    let request = world.request(
        &format!("POST {GRANTS}"),
        &[(CONTENT_TYPE, "application/yaml")],
        yaml,
    );
    let granted = world.send(request).await;
    assert_eq!(granted.status, 201, "{}", granted.line());
    let taken = world.ask(&create, pod_of("counts", "shop/counts:1")).await;
    assert_eq!(taken.status, 201, "{}", taken.line());
    let patch = json!({"spec": {"replicas": 3}});
    let patched = world
        .patch(&format!("{DEPLOYMENTS}/web"), "merge-patch", patch)
        .await;
    assert!(!patched.headers.contains_key("warning"));
}

#[tokio::test]
async fn grants_and_stores_are_kinds_like_any_other() {
    let world = World::new().await;
    let group = world.get("/apis/weft.dev/v1alpha1").await;
    let mut shown: Vec<String> = group.body["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| {
            format!(
                "{} {} {}",
                resource["name"], resource["shortNames"], resource["verbs"]
            )
        })
        .collect();
    shown.sort();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    "capabilitygrants" ["grant"] ["create","delete","deletecollection","get","list","patch","update","watch"]
    "capabilitygrants/status" null ["get","patch","update"]
    "faultinjections" ["fault"] ["create","delete","deletecollection","get","list","patch","update","watch"]
    "faultinjections/status" null ["get","patch","update"]
    "keyvaluestores" ["kvs"] ["create","delete","deletecollection","get","list","patch","update","watch"]
    "keyvaluestores/data" null ["create"]
    "keyvaluestores/status" null ["get","patch","update"]
    "meshpolicies" ["mp"] ["create","delete","deletecollection","get","list","patch","update","watch"]
    "meshpolicies/status" null ["get","patch","update"]
    "rollouts" ["ro"] ["create","delete","deletecollection","get","list","patch","update","watch"]
    "rollouts/scale" null ["get","patch","update"]
    "rollouts/status" null ["get","patch","update"]
    "#);
    let grant = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CapabilityGrant", "metadata": {"name": "cart"},
        "spec": {
            "serviceAccountNames": ["cart", "other"],
            "config": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "key"}}],
            "keyValue": [{"store": "carts"}],
            "outgoingHTTP": [{"hosts": ["api.stripe.com", "*.example.org"]}],
            "more": 1,
        },
    });
    let created = world.ask(&format!("POST {GRANTS}"), grant).await;
    assert_eq!(created.status, 201, "{}", created.line());
    assert!(
        created.headers["warning"]
            .to_str()
            .unwrap()
            .contains("unknown field \\\"spec.more\\\"")
    );
    let table = world.table(GRANTS).await;
    assert!(
        table.line().starts_with(
            r#"200 ["cart","cart,other","settings,key","carts","api.stripe.com,*.example.org","#
        ),
        "{}",
        table.line()
    );
    let status = json!({"status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}, "spec": {"keyValue": []}});
    let path = format!("{GRANTS}/cart");
    let told = world
        .patch(&format!("{path}/status"), "merge-patch", status)
        .await;
    assert_eq!(told.status, 200, "{}", told.line());
    assert_eq!(told.body["spec"]["keyValue"][0]["store"], "carts");
    assert_eq!(told.body["metadata"]["generation"], 1);
    let bad = json!({"spec": {"outgoingHTTP": [{"hosts": ["https://api.stripe.com"]}]}});
    let refused = world.patch(&path, "merge-patch", bad).await;
    assert_eq!(
        refused.line(),
        "422 Invalid: CapabilityGrant.weft.dev \"cart\" is invalid: spec.outgoingHTTP[0].hosts[0]: Invalid value: \"https://api.stripe.com\": must be a host alone, without scheme, port, path and brackets: ports have a field of their own"
    );
    let document = world.get("/openapi/v3/apis/weft.dev/v1alpha1").await;
    let schemas = &document.body["components"]["schemas"];
    let described = &schemas["dev.weft.v1alpha1.CapabilityGrant"]["properties"]["spec"]["properties"]
        ["keyValue"];
    assert!(
        described["description"]
            .as_str()
            .unwrap()
            .starts_with("Stores that wasi:keyvalue opens")
    );
}

/// A node reads a Secret that a grant shows its pod, and no other.
#[tokio::test]
async fn nodes_read_what_grants_show_their_pods() {
    let world = World::new().await;
    for name in ["key", "other"] {
        let secret = json!({"metadata": {"name": name}, "data": {"a": STANDARD.encode("1")}});
        world
            .ask("POST /api/v1/namespaces/default/secrets", secret)
            .await;
    }
    let get = async |name: &str| {
        let line = format!("GET /api/v1/namespaces/default/secrets/{name}");
        let mut request = world.request(&line, &[], "");
        let node = "Bearer node".parse().unwrap();
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, node);
        world.send(request).await.status
    };
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "a".into();
    assert_eq!(world.ask(&format!("POST {PODS}"), bound).await.status, 201);
    assert_eq!(get("key").await, 403);
    let grant = json!({"metadata": {"name": "g"}, "spec": {"serviceAccountNames": ["default"], "config": [{"secretRef": {"name": "key"}}]}});
    assert_eq!(
        world.ask(&format!("POST {GRANTS}"), grant).await.status,
        201
    );
    assert_eq!((get("key").await, get("other").await), (200, 403));
    world.ask(&format!("DELETE {GRANTS}/g"), Value::Null).await;
    assert_eq!(get("key").await, 403);
}
