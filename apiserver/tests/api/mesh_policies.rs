//! MeshPolicies and FaultInjections as clients meet them: defaults, sentences, columns, and who may write them.

use serde_json::json;

use crate::world::*;

const POLICIES: &str = "/apis/weft.dev/v1alpha1/namespaces/default/meshpolicies";
const FAULTS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/faultinjections";

#[tokio::test]
async fn policies_are_kinds_like_any_other() {
    let world = World::new().await;
    let policy = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "MeshPolicy", "metadata": {"name": "price"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "price"}],
            "retry": {"statusCodes": [503]},
            "circuitBreaker": {},
            "rateLimits": [{"requests": 100}],
        },
    });
    let created = world.ask(&format!("POST {POLICIES}"), policy).await;
    assert_eq!(created.status, 201, "{}", created.line());
    let spec = &created.body["spec"];
    assert_eq!(spec["retry"]["attempts"], 2);
    assert_eq!(spec["circuitBreaker"]["consecutiveFailures"], 7);
    assert_eq!(spec["rateLimits"][0]["by"], "ServiceAccount");
    let table = world.table(POLICIES).await;
    let row = r#"200 ["price","price","retry,circuitBreaker,rateLimits","","#;
    assert!(table.line().starts_with(row), "{}", table.line());
    let path = format!("{POLICIES}/price");
    let bad = json!({"spec": {"circuitBreaker": {"maxEjection": "1ms"}}});
    let refused = world.patch(&path, "merge-patch", bad).await;
    insta::assert_snapshot!(refused.line(), @r#"422 Invalid: MeshPolicy.weft.dev "price" is invalid: [spec.circuitBreaker.maxEjection: Invalid value: "1ms": must be between 100ms and 1h, inclusive, spec.circuitBreaker.maxEjection: Invalid value: "1ms": must not be less than ejection]"#);

    let fault = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultInjection", "metadata": {"name": "slow"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "price"}], "duration": "10m",
            "delay": {"duration": "200ms", "percent": 50}, "abort": {"httpStatus": 503},
        },
    });
    let created = world.ask(&format!("POST {FAULTS}"), fault).await;
    assert_eq!(created.status, 201, "{}", created.line());
    let table = world.table(FAULTS).await;
    let row = r#"200 ["slow","price","delay 200ms 50%, abort 503 100%","10m","","","#;
    assert!(table.line().starts_with(row), "{}", table.line());
    // Nodes read both, and write neither.
    for (line, status) in [
        (format!("GET {POLICIES}"), 200),
        (format!("GET {FAULTS}"), 200),
        (format!("DELETE {FAULTS}/slow"), 403),
    ] {
        let mut request = world.request(&line, &[], "");
        let node = "Bearer node".parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(http::header::AUTHORIZATION, node);
        assert_eq!(world.send(request).await.status, status, "{line}");
    }
}
