//! What the audit log says of requests, by its policy.

use serde_json::{Value, json};
use weft_apiserver::audit::Audit;
use weft_apiserver::audit::log::{Log, LogConfig};
use weft_apiserver::audit::policy::Policy;
use weft_apiserver::audit::webhook::{BatchConfig, Target, Webhook};

use crate::hook::{Hook, Reply};
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
    let audit = Audit::new(Policy::parse(POLICY).unwrap()).to_log(log);
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

fn target(hook: &Hook) -> Target {
    let config = format!(
        "clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}/audit', certificate-authority-data: {}}}}}]\n\
         users: [{{name: u, user: {{token: sesame}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x",
        hook.port, hook.ca
    );
    Target::parse(&config, std::path::Path::new("/")).unwrap()
}

#[tokio::test]
async fn a_webhook_is_sent_batches_of_events() {
    let mut world = World::new().await;
    // The first time it is not well.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let hook = Hook::start(&["127.0.0.1"], move |_| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Reply::Raw(if first { 503 } else { 200 }, Vec::new())
    })
    .await;
    let config = BatchConfig {
        events_max: 3,
        wait_max: std::time::Duration::from_millis(50),
        initial_backoff: std::time::Duration::from_millis(1),
        ..BatchConfig::default()
    };
    let webhook = Webhook::start(target(&hook), config).unwrap();
    let audit = Audit::new(Policy::parse(POLICY).unwrap()).to_webhook(webhook);
    world.router = face_audited(&world, audit.clone());
    for number in 0..7 {
        let name = format!("m{number}");
        let made = world
            .ask(&format!("POST {MAPS}"), config_map(&name, "1"))
            .await;
        assert_eq!(made.status, 201);
    }
    let mut request = world.request(&format!("GET {MAPS}/m0"), &[], "");
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1, nonsense, 192.0.2.2"),
        ("x-real-ip", "192.0.2.9"),
        ("impersonate-user", "jo"),
    ] {
        let name = http::HeaderName::from_static(name);
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(world.send(request).await.status, 403);
    audit.flush().await;

    let lists = hook.asked.lock().clone();
    assert_eq!(lists[0], lists[1], "what failed is tried again");
    let lists = &lists[1..];
    assert!(lists.len() >= 3);
    let mut names = Vec::new();
    for list in lists {
        assert_eq!(list["kind"], "EventList");
        assert_eq!(list["apiVersion"], "audit.k8s.io/v1");
        let items = list["items"].as_array().unwrap();
        assert!((1..=3).contains(&items.len()));
        for event in items {
            assert_eq!(event["kind"], "Event");
            names.push(event["objectRef"]["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m0"]);
    let last = lists.last().unwrap()["items"].as_array().unwrap();
    let last = last.last().unwrap();
    assert_eq!(
        last["sourceIPs"],
        json!(["192.0.2.1", "192.0.2.2", "192.0.2.9"])
    );
    assert_eq!(last["user"]["username"], "admin");
    assert_eq!(last["impersonatedUser"]["username"], "jo");
    assert_eq!(
        last["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    let metrics = world.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "apiserver_audit_event_total 8",
        "apiserver_audit_error_total{plugin=\"webhook\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn who_refuses_events_is_not_asked_again() {
    let world = World::new().await;
    let hook = Hook::start(&["127.0.0.1"], |_| Reply::Raw(403, Vec::new())).await;
    let webhook = Webhook::start(target(&hook), BatchConfig::default()).unwrap();
    let audit = Audit::new(Policy::parse(POLICY).unwrap()).to_webhook(webhook);
    let router = face_audited(&world, audit.clone());
    let world = World { router, ..world };
    world.get(&format!("{MAPS}/none")).await;
    audit.flush().await;
    assert_eq!(hook.count(), 1);
    let metrics = world.get("/metrics").await.body;
    let lost = "apiserver_audit_error_total{plugin=\"webhook\"} 1";
    assert!(metrics.as_str().unwrap().lines().any(|found| found == lost));
}
