//! Server-side apply and who owns which fields: the conversations of `owners.json`, as kube-apiserver 1.37 answered them, and what
//! only this server can be asked.

use std::sync::atomic::{AtomicI64, Ordering};

use http::header;
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Patch, WriteOptions};
use weft_apiserver::request::ObjectRef;
use weft_kinds::Subresource;
use weft_kinds::apply::{Element, Managed, Operation, Path, Set};

use crate::world::*;

const STORIES: &str = include_str!("owners.json");

/// The media type of a step's body.
fn media_type(step: &Value) -> &'static str {
    match step["as"].as_str() {
        Some("apply") => "application/apply-patch+yaml",
        Some("merge") => "application/merge-patch+json",
        Some("strategic") => "application/strategic-merge-patch+json",
        Some("json") => "application/json-patch+json",
        _ => JSON,
    }
}

/// All fields of a set with what they stand in, each before what is below it.
fn fields(set: &Set) -> String {
    let steps = |path: &Path| -> Vec<String> { path.0.iter().map(Element::to_string).collect() };
    let mut paths: Vec<Vec<String>> = set.paths().iter().map(steps).collect();
    paths.sort();
    let paths: Vec<String> = paths.iter().map(|path| path.concat()).collect();
    paths.join(" ")
}

/// A line for each owner of an object's fields.
fn owners(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/managedFields");
    let managed = Managed::parse(list).unwrap();
    let line = |entry: &Value| {
        let entries = Managed::parse(Some(&json!([entry]))).unwrap();
        let (manager, owned) = entries.entries().next().unwrap();
        let operation = match manager.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut words = vec![manager.name.as_str(), operation, &owned.api_version];
        words.extend(Some(manager.subresource.as_str()).filter(|door| !door.is_empty()));
        words.extend(owned.time.is_none().then_some("timeless"));
        format!("{}: {}", words.join(" "), fields(&owned.fields))
    };
    let lines: Vec<String> = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(line)
        .collect();
    assert_eq!(lines.len(), managed.entries().count());
    lines
}

/// What a step of a story is answered; `seen` are the revisions so far.
fn told(step: &Value, answer: &Answer, seen: &mut Vec<(String, String)>) -> Vec<String> {
    let body = &answer.body;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    if text("/kind") == "Status" {
        let (reason, message) = (text("/reason"), text("/message"));
        return vec![format!("{} {reason}: {message}", answer.status)];
    }
    let object = format!("{}/{}", text("/kind"), text("/metadata/name"));
    let revision = text("/metadata/resourceVersion").to_owned();
    let place = seen.iter().position(|(known, _)| *known == object);
    let before = place.map(|place| seen.remove(place).1);
    // A dry run of a create shows none.
    let unchanged = before.as_ref() == Some(&revision) || (before.is_none() && revision.is_empty());
    seen.push((object, revision));
    let word = if unchanged { "unchanged" } else { "stored" };
    let mut lines = vec![format!("{} {word}", answer.status)];
    lines.extend(owners(body));
    for pointer in step["show"].as_array().into_iter().flatten() {
        let pointer = pointer.as_str().unwrap();
        let shown = body.pointer(pointer).unwrap_or(&Value::Null);
        lines.push(format!("{pointer} {shown}"));
    }
    lines
}

impl World {
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        let line = format!("PATCH {path}?fieldManager={manager}");
        let kind = "application/apply-patch+yaml";
        let request = self.request(&line, &[(header::CONTENT_TYPE, kind)], &config.to_string());
        self.send(request).await
    }
}

#[tokio::test]
async fn owners_are_those_of_kubernetes() {
    let world = World::with(Setup {
        clock: || Timestamp::from_second(1_900_000_000).unwrap(),
        ..Setup::default()
    })
    .await;
    let stories: Value = serde_json::from_str(STORIES).unwrap();
    let mut asked = 0;
    let mut differences = Vec::new();
    for story in stories.as_array().unwrap() {
        let mut seen = Vec::new();
        for step in story["steps"].as_array().unwrap() {
            let line = step["ask"].as_str().unwrap();
            let body = match &step["body"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            let agent = step["agent"].as_str().unwrap_or("tester/1.0");
            let mut headers = vec![(header::CONTENT_TYPE, media_type(step))];
            if !agent.is_empty() {
                headers.push((header::USER_AGENT, agent));
            }
            let answer = world.send(world.request(line, &headers, &body)).await;
            let told = told(step, &answer, &mut seen);
            let expected: Vec<&str> = step["told"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            asked += 1;
            if told != expected {
                differences.push(format!(
                    "{}: {line}\n  - {}\n  + {}",
                    story["story"],
                    expected.join("\n  - "),
                    told.join("\n  + ")
                ));
            }
        }
    }
    assert!(asked > 100, "{asked}");
    assert!(
        differences.is_empty(),
        "{} of {asked}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// A second later each time that it is asked.
fn ticking() -> Timestamp {
    static SECONDS: AtomicI64 = AtomicI64::new(1_900_000_000);
    Timestamp::from_second(SECONDS.fetch_add(1, Ordering::Relaxed)).unwrap()
}

#[tokio::test]
async fn writes_that_change_nothing_keep_revision_and_times() {
    let world = World::with(Setup {
        clock: ticking,
        ..Setup::default()
    })
    .await;
    let path = format!("{MAPS}/m");
    let mut config = config_map("m", "1");
    let made = world.apply(&path, "one", &config).await;
    assert_eq!(made.line(), "201 ConfigMap m");
    let patch = json!({"data": {"k": "1"}});
    for answer in [
        world.apply(&path, "one", &config).await,
        world.patch(&path, "merge-patch", patch).await,
        world.ask(&format!("PUT {path}"), made.body.clone()).await,
        world.ask(&format!("PUT {path}"), config.clone()).await,
    ] {
        assert_eq!(answer.body, made.body);
    }
    config["data"]["k"] = "2".into();
    let changed = world.apply(&path, "one", &config).await;
    let time = |answer: &Answer| answer.body["metadata"]["managedFields"][0]["time"].clone();
    assert_ne!(time(&changed), time(&made));
    // Agreeing with what is there makes an owner, and no time.
    let agreed = world.apply(&path, "two", &config).await;
    let managed = &agreed.body["metadata"]["managedFields"];
    assert_eq!(managed[0]["manager"], "two");
    assert!(managed[0]["time"].is_null());
    assert_eq!(world.apply(&path, "two", &config).await.body, agreed.body);
}

#[tokio::test]
async fn components_of_the_server_own_what_they_write_under_their_names() {
    let world = World::new().await;
    world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(1))
        .await;
    let caller = Caller::system("deployment-controller", None);
    let client = world.objects.client(&caller);
    let object = ObjectRef::new(&weft_kinds::DEPLOYMENT, Some("default"), "web");
    let status = json!({"status": {"replicas": 1}});
    let part = Some(Subresource::Status);
    let options = WriteOptions::default();
    let patch = client.patch(object, part, Patch::merge(&status), &options);
    let written = patch.await.unwrap();
    let lines = owners(written.as_value());
    assert_eq!(lines.len(), 2);
    let own = "deployment-controller Update apps/v1 status: .status.replicas";
    assert!(lines.iter().any(|line| line == own), "{lines:?}");
}

#[tokio::test]
async fn whoever_sees_metadata_alone_sees_the_owners() {
    let world = World::new().await;
    let path = format!("{MAPS}/m");
    world.apply(&path, "one", &config_map("m", "1")).await;
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let request = world.request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
    let seen = world.send(request).await;
    assert_eq!(
        owners(&seen.body),
        ["one Apply v1: .data.k .metadata.labels.v"]
    );
    let table = world.table(&path).await;
    let row = &table.body["rows"][0]["object"];
    assert_eq!(owners(row), owners(&seen.body));
}

#[tokio::test]
async fn two_who_apply_at_once_both_get_their_fields() {
    let world = World::new().await;
    let path = format!("{MAPS}/shared");
    let applies = (0..20).map(|who| {
        let mut config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}});
        config["data"][format!("k{who}")] = "v".into();
        let (world, path) = (&world, &path);
        async move { world.apply(path, &format!("m{who}"), &config).await }
    });
    let answers = futures::future::join_all(applies).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let changed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((made, changed), (1, 19));
    let left = world.get(&path).await;
    assert_eq!(left.body["data"].as_object().unwrap().len(), 20);
    assert_eq!(owners(&left.body).len(), 20);
}

#[tokio::test]
async fn configurations_are_bounded() {
    let world = World::new().await;
    let apply = async |text: &str| {
        let line = format!("PATCH {MAPS}/m?fieldManager=m");
        let kind = "application/apply-patch+yaml";
        let request = world.request(&line, &[(header::CONTENT_TYPE, kind)], text);
        world.send(request).await.status
    };
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
    let mut bomb = format!("{head}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let last = level - 1;
        let refs = vec![format!("*a{last}"); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{refs}]\n");
    }
    assert_eq!(apply(&bomb).await, 400);
    let deep = format!("{head}data: {}x{}\n", "{a: ".repeat(200), "}".repeat(200));
    assert_eq!(apply(&deep).await, 400);
    assert_eq!(
        apply(&format!("{head}data:\n  k: {}\n", "x".repeat(4 << 20))).await,
        413
    );
    assert_eq!(apply("\u{0}").await, 400);
    assert_eq!(world.get(&format!("{MAPS}/m")).await.status, 404);
}

#[tokio::test]
async fn deletions_are_conditional_tried_and_judged() {
    let world = World::new().await;
    let path = format!("{MAPS}/m");
    let made = world
        .ask(&format!("POST {MAPS}"), config_map("m", "1"))
        .await;
    let text = |field: &str| made.body["metadata"][field].as_str().unwrap().to_owned();
    let (uid, revision) = (text("uid"), text("resourceVersion"));
    let delete = format!("DELETE {path}");
    let all = format!("DELETE {MAPS}?labelSelector=v%3D1");
    for (line, options, told) in [
        (
            &delete,
            json!({"preconditions": {"uid": "x"}}),
            format!(
                "409 Conflict: Operation cannot be fulfilled on ConfigMap \"m\": the UID in the precondition (x) does not match the UID \
                 in record ({uid}). The object might have been deleted and then recreated"
            ),
        ),
        (
            &delete,
            json!({"preconditions": {"resourceVersion": "1"}}),
            format!(
                "409 Conflict: Operation cannot be fulfilled on ConfigMap \"m\": the ResourceVersion in the precondition (1) does not \
                 match the ResourceVersion in record ({revision}). The object might have been modified"
            ),
        ),
        (
            &delete,
            json!({"orphanDependents": true, "propagationPolicy": "Orphan"}),
            "422 Invalid: DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and \
             deletionPropagation cannot be both set"
                .to_owned(),
        ),
        (
            &delete,
            json!({"propagationPolicy": "x", "dryRun": ["y"]}),
            "422 Invalid: DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Unsupported value: \"x\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\", dryRun: Unsupported value: [\"y\"]: supported values: \"All\"]"
                .to_owned(),
        ),
        (&delete, json!({"dryRun": ["All"]}), "200 Success m".to_owned()),
        (&all, json!({"dryRun": ["All"]}), "200 ConfigMapList [m]".to_owned()),
        (
            &delete,
            json!({"dryRun": ["All"], "propagationPolicy": "Foreground"}),
            "200 ConfigMap m".to_owned(),
        ),
    ] {
        assert_eq!(world.ask(line, options).await.line(), told);
    }
    assert_eq!(world.get(&path).await.body, made.body);

    let orphaning = world
        .ask(&delete, json!({"propagationPolicy": "Orphan"}))
        .await;
    assert_eq!(orphaning.body["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(owners(&orphaning.body), owners(&made.body));
    assert_eq!(
        world
            .ask(&format!("POST {MAPS}"), config_map("m", "1"))
            .await
            .line(),
        "409 AlreadyExists: object is being deleted: configmaps \"m\" already exists"
    );
    let conditions = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
    assert_eq!(
        world.ask(&all, conditions).await.line(),
        "200 ConfigMapList [m]"
    );
    assert_eq!(world.get(&path).await.status, 404);
}

#[tokio::test]
async fn both_spellings_of_an_event_have_the_same_owners() {
    let world = World::new().await;
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"namespace": "default"}, "reason": "r", "message": "m",
    });
    let post = "POST /api/v1/namespaces/default/events?fieldManager=legacy";
    assert_eq!(world.ask(post, event).await.status, 201);
    let legacy = "/api/v1/namespaces/default/events/e";
    let reported = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let config = |version: &str| json!({"apiVersion": version, "kind": "Event", "metadata": {"name": "e", "labels": {"a": "b"}}});
    let mut labelled = config("events.k8s.io/v1");
    let answer = world.apply(reported, "new", &labelled).await;
    let both = [
        "new Apply events.k8s.io/v1: .metadata.labels.a",
        "legacy Update v1: .involvedObject .message .reason",
    ];
    assert_eq!(owners(&answer.body), both);
    assert_eq!(owners(&world.get(legacy).await.body), both);
    labelled["note"] = "n".into();
    assert_eq!(
        world.apply(reported, "new", &labelled).await.line(),
        "409 Conflict: Apply failed with 1 conflict: conflict with \"legacy\" using v1: .message"
    );
    let answer = world.apply(legacy, "new", &config("v1")).await;
    assert_eq!(owners(&answer.body)[0], "new Apply v1: .metadata.labels.a");
    assert_eq!(owners(&answer.body)[1], both[1]);
}
