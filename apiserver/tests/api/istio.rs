//! Istio's kinds of who may call whom: custom kinds that a cluster has from its beginning.

use serde_json::{Value, json};

use crate::world::*;

const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/default/authorizationpolicies";
const TOKENS: &str = "/apis/security.istio.io/v1/namespaces/default/requestauthentications";
const PEERS: &str = "/apis/security.istio.io/v1/namespaces/default/peerauthentications";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    })
}

#[tokio::test]
async fn a_new_cluster_serves_them_and_judges_what_istio_judges() {
    let world = World::new().await;
    assert_eq!(world.get(POLICIES).await.status, 404);
    world.define_gateway_api().await;
    let policy = |name: &str, spec: Value| object("AuthorizationPolicy", name, spec);
    let mut told = Vec::new();
    for (path, sent) in [
        (POLICIES, policy("nothing", json!({}))),
        (
            POLICIES,
            policy(
                "whole",
                json!({
                    "selector": { "matchLabels": { "app": "cart" } }, "action": "DENY",
                    "rules": [{
                        "from": [{ "source": { "notServiceAccounts": ["web"], "ipBlocks": ["10.0.0.0/8"] } }],
                        "to": [{ "operation": { "paths": ["/a/{*}"], "notMethods": ["GET"] } }],
                        "when": [{ "key": "request.headers[x]", "notValues": ["1"] }],
                    }],
                }),
            ),
        ),
        (
            POLICIES,
            policy(
                "of-a-service",
                json!({ "targetRefs": [{ "kind": "Service", "name": "cart" }] }),
            ),
        ),
        (
            POLICIES,
            policy(
                "two-places",
                json!({ "selector": {}, "targetRefs": [{ "kind": "Service", "name": "cart" }] }),
            ),
        ),
        (
            POLICIES,
            policy(
                "of-a-pod",
                json!({ "targetRefs": [{ "kind": "Pod", "name": "cart" }] }),
            ),
        ),
        (POLICIES, policy("unknown", json!({ "action": "MAYBE" }))),
        (
            POLICIES,
            policy(
                "both",
                json!({ "rules": [{ "from": [{ "source": { "serviceAccounts": ["a"], "namespaces": ["b"] } }] }] }),
            ),
        ),
        (
            TOKENS,
            object(
                "RequestAuthentication",
                "keys",
                json!({ "jwtRules": [{ "issuer": "a", "jwks": "{}", "jwksUri": "https://a.example" }] }),
            ),
        ),
        (
            TOKENS,
            object(
                "RequestAuthentication",
                "good",
                json!({ "jwtRules": [{ "issuer": "a", "jwksUri": "https://a.example/keys", "timeout": "5s" }] }),
            ),
        ),
        (
            PEERS,
            object(
                "PeerAuthentication",
                "ports",
                json!({ "portLevelMtls": { "80": { "mode": "STRICT" } } }),
            ),
        ),
        (
            PEERS,
            object(
                "PeerAuthentication",
                "strict",
                json!({ "mtls": { "mode": "STRICT" } }),
            ),
        ),
    ] {
        told.push(world.ask(&format!("POST {path}"), sent).await.line());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    201 AuthorizationPolicy nothing
    201 AuthorizationPolicy whole
    201 AuthorizationPolicy of-a-service
    422 Invalid: AuthorizationPolicy.security.istio.io "two-places" is invalid: spec: Invalid value: only one of targetRefs or selector can be set
    422 Invalid: AuthorizationPolicy.security.istio.io "of-a-pod" is invalid: spec.targetRefs[0]: Invalid value: Support kinds are core/Service, networking.istio.io/ServiceEntry, gateway.networking.k8s.io/Gateway
    422 Invalid: AuthorizationPolicy.security.istio.io "unknown" is invalid: [spec.action: Unsupported value: "MAYBE": supported values: "ALLOW", "DENY", "AUDIT", "CUSTOM", <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]
    422 Invalid: AuthorizationPolicy.security.istio.io "both" is invalid: spec.rules[0].from[0].source: Invalid value: Cannot set serviceAccounts with namespaces or principals
    422 Invalid: RequestAuthentication.security.istio.io "keys" is invalid: spec.jwtRules[0]: Invalid value: only one of jwks or jwksUri can be set
    201 RequestAuthentication good
    422 Invalid: PeerAuthentication.security.istio.io "ports" is invalid: spec: Invalid value: portLevelMtls requires selector
    201 PeerAuthentication strict
    "#);
    // Both versions show the same object.
    let older = format!("{}/whole", POLICIES.replace("/v1/", "/v1beta1/"));
    let older = world.get(&older).await.body;
    assert_eq!(
        older["spec"]["rules"][0]["to"][0]["operation"]["paths"][0],
        "/a/{*}"
    );
    let table = world.table(POLICIES).await.body;
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<&str> = columns.map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Action", "Age"]);
}
