//! What the audit log says of requests, by its policy.

use serde_json::{Value, json};
use weft_apiserver::audit::Audit;
use weft_apiserver::audit::log::{Log, LogConfig};
use weft_apiserver::audit::policy::Policy;

use crate::world::*;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/version"]
- level: Metadata
  resources: [{group: "", resources: ["secrets"]}]
- level: RequestResponse
  verbs: ["create"]
- level: Request
  verbs: ["patch"]
- level: Metadata
"#;

async fn events(world: &World, audit: &Audit) -> Vec<Value> {
    audit.flush().await;
    let text = std::fs::read_to_string(world.dir.path().join("audit.log")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn requests_are_written_down_as_the_policy_says() {
    let mut world = World::new().await;
    let log = Log::open(LogConfig::new(world.dir.path().join("audit.log"))).unwrap();
    let audit = Audit::new(Policy::parse(POLICY).unwrap(), log);
    world.router = face_audited(&world, audit.clone());
    world.get("/version").await;
    world
        .ask(&format!("POST {MAPS}"), config_map("m", "1"))
        .await;
    world
        .patch(
            &format!("{MAPS}/m"),
            "merge-patch",
            json!({"data": {"a": "b"}}),
        )
        .await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "sesame"}});
    world
        .ask("POST /api/v1/namespaces/default/secrets", secret)
        .await;
    world
        .ask_as("user", &format!("GET {PODS}/p?x=1"), Value::Null)
        .await;
    world
        .ask_as("wrong", &format!("GET {PODS}"), Value::Null)
        .await;
    let mut watch = world
        .watch(&format!("{MAPS}?watch=1&timeoutSeconds=1"))
        .await;
    while watch.next().await.is_some() {}
    drop(watch);

    let events = events(&world, &audit).await;
    let line = |event: &Value| {
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("-")
        };
        let has = |field: &str| event.get(field).is_some_and(Value::is_object);
        format!(
            "{} {} {} {} {} {} {}{}{}",
            text("/stage"),
            text("/level"),
            text("/user/username"),
            text("/verb"),
            text("/objectRef/resource"),
            event["responseStatus"]["code"],
            text("/annotations/authorization.k8s.io~1decision"),
            if has("requestObject") { " sent" } else { "" },
            if has("responseObject") {
                " answered"
            } else {
                ""
            },
        )
    };
    let lines: Vec<String> = events.iter().map(line).collect();
    assert_eq!(
        lines.join("\n"),
        "ResponseComplete RequestResponse admin create configmaps 201 allow sent answered\n\
         ResponseComplete Request admin patch configmaps 200 allow sent\n\
         ResponseComplete Metadata admin create secrets 201 allow\n\
         ResponseComplete Metadata jo get pods 403 forbid\n\
         ResponseComplete Metadata - list pods 401 -\n\
         ResponseStarted Metadata admin watch configmaps 200 allow\n\
         ResponseComplete Metadata admin watch configmaps 200 allow"
    );
    assert!(
        !events
            .iter()
            .any(|event| event.to_string().contains("sesame"))
    );
    let refused = &events[3];
    assert_eq!(refused["requestURI"], format!("{PODS}/p?x=1"));
    assert_eq!(
        refused["objectRef"],
        json!({"resource": "pods", "namespace": "default", "name": "p", "apiVersion": "v1"})
    );
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refused["kind"], "Event");
    let made = &events[0];
    assert_eq!(made["requestObject"]["data"], json!({"k": "1"}));
    assert_eq!(made["responseObject"]["metadata"]["name"], "m");
}
