//! How far this server answers as kube-apiserver 1.37.2 does: the same dry-run creates and patches, its recorded answers.
//!
//! `differential/corpus.json` holds the manifests, `differential/answers.lz4` the requests made from them and what a
//! real kube-apiserver answered, a line of JSON each (`cargo xtask differential record`). Compared are the code, the
//! message of a refusal, and the object that would be stored. What a server makes up (uids, times, addresses) is left
//! out, and so are the differences that are kept: [`KEPT`], each of which `docs/differences.md` has by name.
//!
//! `DIFFERENTIAL=40 cargo xtask differential` prints that many kinds of difference instead of some; `DIFFERENTIAL_KIND=Pod` of one
//! kind only.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weft_apiserver::authn::{Authenticator, StaticToken};
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::http::{AppState, proxy::NodeClient, registry, router, servers::Servers};
use weft_apiserver::objects::{self, Objects};
use weft_kinds::Registry;
use weft_store::Store;

const NAMESPACE: &str = "diff";
static CORPUS: &str = include_str!("differential/corpus.json");
static ANSWERS: &[u8] = include_bytes!("differential/answers.lz4");

/// Shares of equal answers, in hundredths of a percent, below which the test fails.
const CODES_MIN: u32 = 9_850;
const MESSAGES_MIN: u32 = 9_700;
const OBJECTS_MIN: u32 = 9_900;

/// A difference that is kept on purpose: its name in the documentation, and how an object is made alike before comparing.
/// Those of messages and codes are made alike in [`same_message`] and where answers of 500 are passed over.
struct Kept {
    name: &'static str,
    /// Applied to the reference's object and to ours.
    alike: fn(&mut Value),
}

const KEPT: &[Kept] = &[
    Kept {
        name: "pods leave a silent node after 2 s",
        alike: tolerations,
    },
    Kept {
        name: "no service account token is mounted",
        alike: token_volume,
    },
    Kept {
        name: "a node made by hand is not tainted",
        alike: new_node_taint,
    },
    Kept {
        name: "a patched object is not shown whole",
        alike: |_| {},
    },
    Kept {
        name: "which operation of a JSON patch did not fit",
        alike: |_| {},
    },
    Kept {
        name: "no difference in Go's syntax",
        alike: |_| {},
    },
    Kept {
        name: "malformed strategic directives",
        alike: |_| {},
    },
    Kept {
        name: "field managers are not kept",
        alike: |object| drop_at(object, "/metadata", "managedFields"),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_kube_apiserver() {
    let documentation = include_str!("../../docs/differences.md");
    for kept in KEPT {
        assert!(
            documentation.contains(kept.name),
            "docs/differences.md does not have: {}",
            kept.name
        );
    }
    let manifests: Vec<Value> = serde_json::from_str(CORPUS).unwrap();
    let text = lz4_flex::decompress_size_prepended(ANSWERS).unwrap();
    let text = String::from_utf8(text).unwrap();
    let world = World::new().await;
    let mut report = Report::default();
    let mut created = false;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let manifest = &manifests[case["manifest"].as_u64().unwrap() as usize];
        if case["action"] != "create" && !created {
            created = true;
            world.create_all(&manifests).await;
        }
        let theirs = Answer::recorded(&case);
        // kube-apiserver fails or hangs up on some malformed patches: nothing to be held against.
        if theirs.code == 0 || theirs.code >= 500 {
            continue;
        }
        let ours = world.ask(manifest, &case).await;
        report.add(manifest, &case, &theirs, &ours);
    }
    report.print();
    for (what, share, least) in [
        ("codes", report.total.codes.hundredths(), CODES_MIN),
        ("messages", report.total.messages.hundredths(), MESSAGES_MIN),
        (
            "stored objects",
            report.total.objects.hundredths(),
            OBJECTS_MIN,
        ),
    ] {
        assert!(
            share >= least,
            "{what}: {share} of 10000 are equal, promised are {least}"
        );
    }
}

struct Answer {
    code: u16,
    message: String,
    object: Value,
}

impl Answer {
    fn recorded(case: &Value) -> Self {
        Self {
            code: case["code"].as_u64().unwrap() as u16,
            message: case["message"].as_str().unwrap_or_default().to_owned(),
            object: case["object"].clone(),
        }
    }
}

#[derive(Default)]
struct Share {
    equal: u32,
    all: u32,
}

impl Share {
    fn count(&mut self, equal: bool) {
        self.all += 1;
        self.equal += u32::from(equal);
    }

    fn hundredths(&self) -> u32 {
        match self.all {
            0 => 10_000,
            all => (u64::from(self.equal) * 10_000 / u64::from(all)) as u32,
        }
    }

    fn percent(&self) -> String {
        let share = self.hundredths();
        format!("{:>3}.{:02} of {:<5}", share / 100, share % 100, self.all)
    }
}

#[derive(Default)]
struct Shares {
    codes: Share,
    messages: Share,
    objects: Share,
}

#[derive(Default)]
struct Report {
    total: Shares,
    by_kind: BTreeMap<String, Shares>,
    by_action: BTreeMap<String, Shares>,
    /// Kinds of difference, with how often each was seen and one request that shows it.
    differences: BTreeMap<String, (u32, String)>,
}

impl Report {
    fn add(&mut self, manifest: &Value, case: &Value, theirs: &Answer, ours: &Answer) {
        let kind = format!(
            "{} {}",
            manifest["apiVersion"].as_str().unwrap(),
            manifest["kind"].as_str().unwrap()
        );
        let action = format!(
            "{} {}",
            case["action"].as_str().unwrap(),
            case["validation"].as_str().unwrap()
        );
        let custom = kind.starts_with("gateway.");
        let codes = ours.code == theirs.code;
        let (refused, accepted) = (theirs.code >= 300, theirs.code < 300);
        let messages = same_message(&theirs.message, &ours.message, custom);
        let (their_object, our_object) = (comparable(&theirs.object), comparable(&ours.object));
        let objects = their_object == our_object;
        let Self {
            total,
            by_kind,
            by_action,
            ..
        } = self;
        for shares in [
            total,
            by_kind.entry(kind.clone()).or_default(),
            by_action.entry(action.clone()).or_default(),
        ] {
            shares.codes.count(codes);
            if codes && refused {
                shares.messages.count(messages);
            }
            if codes && accepted {
                shares.objects.count(objects);
            }
        }
        let mut note = |what: String| {
            let example = format!(
                "{kind} {action} {}",
                shortened(&case["body"].to_string(), 600)
            );
            let entry = self
                .differences
                .entry(format!("{} {what}", manifest["kind"].as_str().unwrap()))
                .or_insert((0, example));
            entry.0 += 1;
        };
        if !codes {
            let told = match theirs.code < 300 {
                true => &ours.message,
                false => &theirs.message,
            };
            note(format!(
                "{} there, {} here: {}",
                theirs.code,
                ours.code,
                generic(told)
            ));
        } else if refused && !messages {
            note(format!(
                "{}: {}\n        here: {}",
                theirs.code,
                generic(&theirs.message),
                generic(&ours.message)
            ));
        } else if accepted && !objects {
            let mut found = Vec::new();
            differences(&their_object, &our_object, &mut String::new(), &mut found);
            note(format!(
                "stored: {}",
                found.first().map_or("", String::as_str)
            ));
        }
    }

    fn print(&self) {
        let line = |name: &str, shares: &Shares| {
            println!(
                "{name:<55} codes {}   messages {}   objects {}",
                shares.codes.percent(),
                shares.messages.percent(),
                shares.objects.percent()
            );
        };
        for (name, shares) in self.by_kind.iter().chain(&self.by_action) {
            line(name, shares);
        }
        line("all", &self.total);
        let shown = std::env::var("DIFFERENTIAL")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(12);
        let mut differences: Vec<_> = self.differences.iter().collect();
        differences.sort_by_key(|(_, (seen, _))| std::cmp::Reverse(*seen));
        let kind = std::env::var("DIFFERENTIAL_KIND").unwrap_or_default();
        for (what, (seen, example)) in differences
            .into_iter()
            .filter(|(what, _)| what.starts_with(&kind))
            .take(shown)
        {
            println!("{seen:>5} {what}\n        {example}");
        }
    }
}

/// Whether two refusals say the same, but for what is kept apart on purpose.
fn same_message(theirs: &str, ours: &str, custom: bool) -> bool {
    const REJECTED: &str = "the server rejected our request due to an error in our request";
    // Our message may go on where theirs ends.
    if theirs == ours || (theirs == REJECTED && ours.starts_with(REJECTED)) {
        return true;
    }
    let comparable = |message: &str| {
        let (head, mut causes) = causes_of(&without_patch(message));
        causes.retain(|cause| !cause.contains("Not found: \"kube-api-access-"));
        if custom {
            // The validator of custom kinds walks Go's maps: its own order changes from run to run.
            causes.sort();
        }
        (head, causes)
    };
    comparable(theirs) == comparable(ours)
}

/// The refusal of a patch without the object that the patch made, and that of a change of a frozen pod without Go's picture
/// of the change.
fn without_patch(message: &str) -> String {
    const PATCH: &str = " \"\" is invalid: patch: Invalid value: \"";
    if let Some(rest) = message.strip_prefix(PATCH) {
        // What is wrong stands behind the object, whose quotes are escaped.
        let fault = rest.split("\": ").last().unwrap_or_default();
        return format!("{PATCH}{fault}");
    }
    match (message.find('\n'), message.rfind('\n')) {
        (Some(from), Some(to)) => format!("{}{}", &message[..from], &message[to + 1..]),
        _ => message.to_owned(),
    }
}

/// What is invalid, and why: the parts of a message that lists causes.
fn causes_of(message: &str) -> (String, Vec<String>) {
    let Some((head, list)) = message.split_once(" is invalid: ") else {
        return (message.to_owned(), Vec::new());
    };
    let list = list
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'))
        .unwrap_or(list);
    const WHY: &[&str] = &[
        "Duplicate value",
        "Forbidden",
        "Internal error",
        "Invalid value",
        "Not found",
        "Required value",
        "Too long",
        "Too many",
        "Unsupported value",
    ];
    let begins = |part: &str| {
        part.split_once(": ").is_some_and(|(field, why)| {
            !field.contains(' ') && WHY.iter().any(|known| why.starts_with(known))
        })
    };
    let mut causes: Vec<String> = Vec::new();
    for part in list.split(", ") {
        match causes.last_mut() {
            Some(last) if !begins(part) => {
                last.push_str(", ");
                last.push_str(part);
            }
            _ => causes.push(part.to_owned()),
        }
    }
    (head.to_owned(), causes)
}

/// A message without what differs from case to case.
fn generic(message: &str) -> String {
    let mut out = String::new();
    let mut digits = false;
    for c in shortened(message, 420).chars() {
        match c {
            '0'..='9' => {
                if !digits {
                    out.push('#');
                }
                digits = true;
            }
            c => {
                digits = false;
                out.push(c);
            }
        }
    }
    out
}

fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn differences(theirs: &Value, ours: &Value, path: &mut String, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let keys: std::collections::BTreeSet<&String> =
                theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let length = path.len();
                path.push('.');
                path.push_str(key);
                match (theirs.get(key), ours.get(key)) {
                    (Some(theirs), Some(ours)) => differences(theirs, ours, path, found),
                    (theirs, ours) => {
                        let shown = |value: Option<&Value>| {
                            value.map_or("absent".to_owned(), |value| {
                                shortened(&value.to_string(), 100)
                            })
                        };
                        found.push(format!(
                            "{path}: {} there, {} here",
                            shown(theirs),
                            shown(ours)
                        ));
                    }
                }
                path.truncate(length);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (theirs, ours) in theirs.iter().zip(ours) {
                let length = path.len();
                path.push_str("[]");
                differences(theirs, ours, path, found);
                path.truncate(length);
            }
        }
        (theirs, ours) if theirs != ours => found.push(format!(
            "{path}: {} there, {} here",
            shortened(&theirs.to_string(), 100),
            shortened(&ours.to_string(), 100)
        )),
        _ => {}
    }
}

/// An object without what a server makes up.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        drop_at(&mut object, "/metadata", field);
    }
    if object.pointer("/metadata/generateName").is_some() {
        drop_at(&mut object, "/metadata", "name");
    }
    if object["kind"] == "CertificateSigningRequest" {
        // Who asks is another person on another server.
        for field in ["uid", "username", "groups", "extra"] {
            drop_at(&mut object, "/spec", field);
        }
    }
    if object["kind"] == "Service" {
        for field in ["clusterIP", "clusterIPs"] {
            if object["spec"][field] != "None" && object["spec"][field] != json!(["None"]) {
                drop_at(&mut object, "/spec", field);
            }
        }
        drop_at(&mut object, "/spec", "healthCheckNodePort");
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            drop_at(port, "", "nodePort");
        }
    }
    for kept in KEPT {
        (kept.alike)(&mut object);
    }
    object
}

fn drop_at(value: &mut Value, pointer: &str, field: &str) {
    if let Some(Value::Object(map)) = value.pointer_mut(pointer) {
        map.remove(field);
    }
}

fn tolerations(object: &mut Value) {
    for toleration in object
        .pointer_mut("/spec/tolerations")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let own = matches!(toleration["tolerationSeconds"].as_i64(), Some(2 | 300));
        let named = toleration["key"].as_str().is_some_and(|key| {
            matches!(
                key,
                "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
            )
        });
        if own && named {
            drop_at(toleration, "", "tolerationSeconds");
        }
    }
}

fn new_node_taint(object: &mut Value) {
    if object["kind"] != "Node" {
        return;
    }
    if let Some(Value::Array(taints)) = object.pointer_mut("/spec/taints") {
        taints.retain(|taint| taint["key"] != "node.kubernetes.io/not-ready");
        if taints.is_empty() {
            drop_at(object, "/spec", "taints");
        }
    }
}

fn token_volume(object: &mut Value) {
    let is_token = |value: &Value| {
        value["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let Some(Value::Object(spec)) = object.pointer_mut("/spec") else {
        return;
    };
    let without = |holder: &mut Map<String, Value>, list: &str| {
        if let Some(Value::Array(items)) = holder.get_mut(list) {
            items.retain(|item| !is_token(item));
            if items.is_empty() {
                holder.remove(list);
            }
        }
    };
    without(spec, "volumes");
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(container) = container.as_object_mut() {
                without(container, "volumeMounts");
            }
        }
    }
}

struct World {
    router: Router,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")))
            .await
            .unwrap();
        store.leadership().wait_for(Option::is_some).await.unwrap();
        let authority =
            Authority::open_or_create(&dir.path().join("pki"), "cluster.local").unwrap();
        let nodes = NodeClient::new(&authority).unwrap();
        // Nothing signs: a request stays as it was sent, as it does there without controllers.
        let objects = Objects::new(store, objects::Config::default());
        objects
            .ensure_permanent_namespaces(&Caller::system("apiserver", None))
            .await
            .unwrap();
        let groups = vec!["system:masters".to_owned()];
        let token = StaticToken::new("secret", "admin", None, groups);
        let state = AppState::new(
            objects.clone(),
            Authenticator::new(objects.clone(), vec![token]),
            registry::Registry::open(&dir.path().join("registry"), objects.store().clone())
                .unwrap(),
            nodes,
            Servers {
                authority,
                cluster_id: "test".to_owned(),
                server_id: 1,
                peer_address: Some("10.0.0.1:6444".to_owned()),
                key_file: dir.path().join("none"),
                scratch_dir: dir.path().to_owned(),
            },
            CancellationToken::new(),
        );
        let world = Self {
            router: router(state),
            _dir: dir,
        };
        for (path, body) in [
            (
                "/api/v1/namespaces".to_owned(),
                json!({ "metadata": { "name": NAMESPACE } }),
            ),
            (
                format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
                json!({ "metadata": { "name": "default" } }),
            ),
        ] {
            let answer = world.send("POST", &path, "application/json", &body).await;
            assert!(
                matches!(answer.code, 201 | 409),
                "{path}: {}",
                answer.message
            );
        }
        world
    }

    /// What patches are about. One that is refused here is missed by each patch of it.
    async fn create_all(&self, manifests: &[Value]) {
        for manifest in manifests {
            if manifest["metadata"]["name"].is_string() {
                let path = path_of(manifest);
                let answer = self.send("POST", &path, "application/json", manifest).await;
                if answer.code != 201 {
                    println!("{path}: {}", answer.message);
                }
            }
        }
    }

    async fn ask(&self, manifest: &Value, case: &Value) -> Answer {
        let collection = path_of(manifest);
        let query = format!(
            "dryRun=All&fieldValidation={}",
            case["validation"].as_str().unwrap()
        );
        let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
        let (method, path, media_type) = match case["action"].as_str().unwrap() {
            "create" => ("POST", collection, "application/json"),
            "json" => (
                "PATCH",
                format!("{collection}/{name}"),
                "application/json-patch+json",
            ),
            "merge" => (
                "PATCH",
                format!("{collection}/{name}"),
                "application/merge-patch+json",
            ),
            _ => (
                "PATCH",
                format!("{collection}/{name}"),
                "application/strategic-merge-patch+json",
            ),
        };
        self.send(
            method,
            &format!("{path}?{query}"),
            media_type,
            &case["body"],
        )
        .await
    }

    async fn send(&self, method: &str, path: &str, media_type: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer secret")
            .header("content-type", media_type)
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer {
            code,
            message: parsed["message"]
                .as_str()
                .filter(|_| code >= 300)
                .unwrap_or_default()
                .to_owned(),
            object: parsed,
        }
    }
}

fn path_of(manifest: &Value) -> String {
    let (version, kind) = (
        manifest["apiVersion"].as_str().unwrap(),
        manifest["kind"].as_str().unwrap(),
    );
    let (group, plain) = version.split_once('/').unwrap_or(("", version));
    let registry = Registry::builtin();
    let kind = registry
        .by_kind(group, plain, kind)
        .expect("the corpus is of kinds that are served");
    let root = match version.contains('/') {
        true => "apis",
        false => "api",
    };
    match kind.namespaced {
        true => format!("/{root}/{version}/namespaces/{NAMESPACE}/{}", kind.resource),
        false => format!("/{root}/{version}/{}", kind.resource),
    }
}
