//! How far this server answers as kube-apiserver 1.37.2 does: the same dry-run creates, replacements, patches, applies and deletions of
//! objects, their status and their scale, reads in each encoding, and its recorded answers.
//!
//! `differential/corpus.json` holds the manifests, `differential/answers.lz4` the requests made from them and what a
//! real kube-apiserver answered, a line of JSON each (`cargo xtask differential record`). Compared are the code, the
//! message of a refusal, and the object that would be stored. What a server makes up (uids, times, addresses) is left
//! out, and so are the differences that are kept: [`KEPT`], each of which `docs/differences.md` has by name.
//!
//! `DIFFERENTIAL=40 cargo xtask differential` prints that many kinds of difference instead of some; `DIFFERENTIAL_KIND=Pod` of one
//! kind only.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use http::header;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use world::{JSON, Setup, World};

const NAMESPACE: &str = "diff";
/// Stands in the corpus for the resourceVersion that an object has here.
const CURRENT: &str = "CURRENT";
/// Who made the objects that are changed, and who applies to them.
const MAKER: &str = "maker";
const APPLIER: &str = "applier";
static CORPUS: &[u8] = include_bytes!("differential/corpus.json");
static ANSWERS: &[u8] = include_bytes!("differential/answers.lz4");

/// Shares of equal codes, messages and stored objects, in hundredths of a percent, below which the test fails: of creates and
/// patches, and of what is done to an object that is there.
const PROMISED: &[(&str, [u32; 3])] = &[
    ("objects", [9_850, 9_700, 9_900]),
    ("update", [9_800, 9_000, 9_700]),
    ("status", [9_800, 9_000, 9_700]),
    ("scale", [9_800, 9_000, 9_700]),
    ("other kinds", [9_900, 9_500, 9_700]),
    ("apply", [9_900, 9_500, 9_700]),
    ("delete", [9_900, 7_400, 9_600]),
    ("read", [9_900, 9_500, 9_100]),
];

/// Kinds that the promise is oldest about.
const FIRST: [&str; 16] = [
    "CertificateSigningRequest",
    "ConfigMap",
    "Deployment",
    "EndpointSlice",
    "Event",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "Lease",
    "Namespace",
    "Node",
    "Pod",
    "ReplicaSet",
    "Secret",
    "Service",
    "ServiceAccount",
];

/// Which part of the promise an action on an object of a kind belongs to.
fn part_of<'a>(action: &'a str, kind: &str) -> &'a str {
    match action.split(' ').next().unwrap_or_default() {
        part @ ("apply" | "delete" | "read") => part,
        _ if !FIRST.contains(&kind) => "other kinds",
        part @ ("update" | "status" | "scale") => part,
        _ => "objects",
    }
}

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
        name: "annotations are not counted in a Deployment's generation",
        alike: deployment_generation,
    },
    Kept {
        name: "what follows from a field is nobody's",
        alike: completed_fields,
    },
    Kept {
        name: "what the server strips is no change of an owner",
        alike: stripped,
    },
    Kept {
        name: "where an object lies is not told",
        alike: |_| {},
    },
    Kept {
        name: "no finalizer keeps a volume in use",
        alike: protection,
    },
    Kept {
        name: "a CSIDriver has no generation",
        alike: |object| {
            if object["kind"] == "CSIDriver" {
                drop_at(object, "/metadata", "generation");
            }
        },
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
    // Manifests of others, when `cargo xtask differential` was given some.
    let read = |variable| std::env::var(variable).map(|path| std::fs::read(path).unwrap());
    let manifests = read("DIFFERENTIAL_MANIFESTS").unwrap_or_else(|_| CORPUS.to_vec());
    let answers = read("DIFFERENTIAL_ANSWERS").unwrap_or_else(|_| ANSWERS.to_vec());
    let manifests: Vec<Value> = serde_json::from_slice(&manifests).unwrap();
    let text = lz4_flex::decompress_size_prepended(&answers).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut compared = Compared::new().await;
    let mut report = Report::default();
    let of_others = std::env::var_os("DIFFERENTIAL_MANIFESTS").is_some();
    let (mut created, mut defined) = (false, false);
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let manifest = &manifests[case["manifest"].as_u64().unwrap() as usize];
        // Definitions are judged before there are any, and are there before objects of theirs are.
        if of_others && !defined && !is_definition(manifest) {
            defined = true;
            compared.define(&manifests).await;
        }
        if case["action"] != "create" && !created {
            created = true;
            compared.create_all(&manifests).await;
        }
        let theirs = Answer::recorded(&case);
        // kube-apiserver fails or hangs up on some malformed patches: nothing to be held against.
        if theirs.code == 0 || theirs.code >= 500 {
            continue;
        }
        let kind = manifest["kind"].as_str().unwrap();
        if theirs.code == 409 && kind == "FlowSchema" && case["action"] == "update" {
            // A controller there wrote its status meanwhile.
            continue;
        }
        if case["action"] == "delete" && theirs.code == 200 && PROTECTED.contains(&kind) {
            // There the finalizer keeps it.
            continue;
        }
        let ours = compared.ask(manifest, &case).await;
        report.add(manifest, &case, &theirs, &ours);
    }
    report.print();
    if of_others {
        // Nothing is promised of what others wrote: the figures are the answer.
        return;
    }
    for (part, least) in PROMISED {
        let shares = &report.by_part[*part];
        let shown = [&shares.codes, &shares.messages, &shares.objects];
        for ((share, least), what) in shown
            .into_iter()
            .zip(least)
            .zip(["codes", "messages", "objects"])
        {
            let share = share.hundredths();
            assert!(
                share >= *least,
                "{part}, {what}: {share} of 10000 are equal, promised are {least}"
            );
        }
    }
}

struct Answer {
    code: u16,
    message: String,
    object: Value,
}

impl Answer {
    fn recorded(case: &Value) -> Self {
        let mut object = case["object"].clone();
        if case["action"] == "read protobuf" && object.is_string() {
            let bytes = base64::engine::general_purpose::STANDARD.decode(object.as_str().unwrap());
            object = weft_kinds::protobuf::decode(&bytes.unwrap()).unwrap().value;
        }
        Self {
            code: case["code"].as_u64().unwrap() as u16,
            message: case["message"].as_str().unwrap_or_default().to_owned(),
            object,
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
    by_part: BTreeMap<String, Shares>,
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
        let custom = is_custom(manifest);
        let codes = ours.code == theirs.code;
        let (refused, accepted) = (theirs.code >= 300, theirs.code < 300);
        let messages = same_message(&theirs.message, &ours.message, custom);
        let (their_object, our_object) = (comparable(&theirs.object), comparable(&ours.object));
        let objects = their_object == our_object;
        let Self {
            total,
            by_kind,
            by_action,
            by_part,
            ..
        } = self;
        let named = manifest["kind"].as_str().unwrap();
        let part = part_of(case["action"].as_str().unwrap(), named).to_owned();
        for shares in [
            total,
            by_kind.entry(kind.clone()).or_default(),
            by_action.entry(action.clone()).or_default(),
            by_part.entry(part).or_default(),
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
        for (name, shares) in self
            .by_kind
            .iter()
            .chain(&self.by_action)
            .chain(&self.by_part)
        {
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

fn is_definition(manifest: &Value) -> bool {
    manifest["kind"] == "CustomResourceDefinition"
}

/// Whether an object is of a kind that is none of Kubernetes' own.
fn is_custom(manifest: &Value) -> bool {
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    group.contains('.') && !group.ends_with(".k8s.io") || group == "gateway.networking.k8s.io"
}

/// Whether two refusals say the same, but for what is kept apart on purpose.
fn same_message(theirs: &str, ours: &str, custom: bool) -> bool {
    const REJECTED: &str = "the server rejected our request due to an error in our request";
    // Our message may go on where theirs ends.
    // What is no Status has no message.
    if theirs == ours || theirs.is_empty() || (theirs == REJECTED && ours.starts_with(REJECTED)) {
        return true;
    }
    let comparable = |message: &str| {
        let message = without_time(&without_place(&without_patch(&without_apply(message))));
        let (head, mut causes) = causes_of(&message);
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

/// The refusal of a format without the one that is not served.
fn without_apply(message: &str) -> String {
    message.replace(", application/apply-patch+yaml", "")
}

/// A conflict of owners without the moment when the other one wrote.
fn without_time(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" at 20") {
        out.push_str(before);
        let end = after.find('Z').map_or(after.len(), |end| end + 1);
        rest = &after[end..];
    }
    out + rest
}

/// The refusal of another object's identity without the key in etcd, and without the identities, which each server makes up.
fn without_place(message: &str) -> String {
    const PLACE: &str = "StorageError: invalid object, Code: 4, Key: ";
    const FAULT: &str = "Precondition failed: UID in precondition: ";
    match (message.split_once(PLACE), message.split_once(FAULT)) {
        (Some((head, _)), Some(_)) => format!("{head}{FAULT}"),
        (None, Some((head, _))) => format!("{head}{FAULT}"),
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

/// An object without what a server makes up; a table without that of its rows' objects, and without how long ago they were made.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Table" {
        let mut columns = object["columnDefinitions"].as_array().into_iter().flatten();
        let age = columns.position(|column| column["name"] == "Age");
        for column in object["columnDefinitions"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            // In our own words.
            drop_at(column, "", "description");
        }
        for row in object["rows"].as_array_mut().into_iter().flatten() {
            if let Some(cell) = age.and_then(|age| row["cells"].get_mut(age)) {
                *cell = Value::Null;
            }
            row["object"] = comparable(&row["object"]);
        }
        drop_at(&mut object, "/metadata", "resourceVersion");
        return object;
    }
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        drop_at(&mut object, "/metadata", field);
    }
    drop_at(
        &mut object,
        "/metadata/annotations",
        "deprecated.daemonset.template.generation",
    );
    if object.pointer("/metadata/annotations") == Some(&json!({})) {
        drop_at(&mut object, "/metadata", "annotations");
    }
    drop_at(&mut object, "/details", "uid");
    drop_at(&mut object, "/status", "lastPhaseTransitionTime");
    for labels in [
        "/metadata/labels",
        "/spec/selector/matchLabels",
        "/spec/template/metadata/labels",
    ] {
        for label in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
            drop_at(&mut object, labels, label);
        }
    }
    let owners = object.pointer_mut("/metadata/managedFields");
    for owner in owners.and_then(Value::as_array_mut).into_iter().flatten() {
        for said_by_the_client in ["time", "manager"] {
            drop_at(owner, "", said_by_the_client);
        }
    }
    if object.pointer("/metadata/generateName").is_some() {
        drop_at(&mut object, "/metadata", "name");
    }
    // Of these a controller there writes the status, when it comes to it.
    if matches!(
        object["kind"].as_str(),
        Some("CustomResourceDefinition" | "FlowSchema" | "PriorityLevelConfiguration")
    ) && let Some(Value::Array(owners)) = object.pointer_mut("/metadata/managedFields")
    {
        owners.retain(|owner| owner["subresource"] != "status");
        drop_at(&mut object, "", "status");
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
    token_volume(&mut object);
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
    let owners = object.pointer_mut("/metadata/managedFields");
    if let Some(Value::Array(owners)) = owners {
        for owner in owners.iter_mut() {
            drop_at(owner, "/fieldsV1/f:spec", "f:taints");
            if owner.pointer("/fieldsV1/f:spec") == Some(&json!({})) {
                drop_at(owner, "/fieldsV1", "f:spec");
            }
        }
        owners.retain(|owner| owner["fieldsV1"] != json!({}));
    }
    if let Some(Value::Array(taints)) = object.pointer_mut("/spec/taints") {
        taints.retain(|taint| taint["key"] != "node.kubernetes.io/not-ready");
        if taints.is_empty() {
            drop_at(object, "/spec", "taints");
        }
    }
}

fn deployment_generation(object: &mut Value) {
    if object["kind"] == "Deployment" {
        drop_at(object, "/metadata", "generation");
    }
}

/// Lists of which the server drops parts: who owns them, and whether sending those parts again is a change.
fn stripped(object: &mut Value) {
    let list = match object["kind"].as_str() {
        Some("ServiceAccount") => "f:secrets",
        Some("EndpointSlice") => "f:endpoints",
        _ => return,
    };
    drop_at(object, "/metadata", "generation");
    if let Some(Value::Array(owners)) = object.pointer_mut("/metadata/managedFields") {
        for owner in owners.iter_mut() {
            drop_at(owner, "/fieldsV1", list);
        }
        owners.retain(|owner| owner["fieldsV1"] != json!({}));
    }
}

/// Kinds that a finalizer of the server's own keeps there.
const PROTECTED: [&str; 3] = [
    "PersistentVolume",
    "PersistentVolumeClaim",
    "VolumeAttributesClass",
];

fn protection(object: &mut Value) {
    if let Some(Value::Array(finalizers)) = object.pointer_mut("/metadata/finalizers") {
        let own = |finalizer: &Value| {
            let name = finalizer.as_str().unwrap_or_default();
            name.starts_with("kubernetes.io/p") && name.ends_with("-protection")
                || name == "kubernetes.io/vac-protection"
        };
        finalizers.retain(|finalizer| !own(finalizer));
        if finalizers.is_empty() {
            drop_at(object, "/metadata", "finalizers");
        }
    }
}

/// The list that a Service's one address is copied into, and lists of an EndpointSlice that are empty.
fn completed_fields(object: &mut Value) {
    let is_slice = object["kind"] == "EndpointSlice";
    let is_set = object["kind"] == "DaemonSet";
    let is_job = object["kind"] == "Job";
    let is_claim = object["kind"] == "PersistentVolumeClaim";
    let owners = object.pointer_mut("/metadata/managedFields");
    for owner in owners.and_then(Value::as_array_mut).into_iter().flatten() {
        drop_at(owner, "/fieldsV1/f:spec", "f:clusterIPs");
        // The number of a DaemonSet's template.
        let annotations = "/fieldsV1/f:metadata/f:annotations";
        drop_at(
            owner,
            annotations,
            "f:deprecated.daemonset.template.generation",
        );
        let none = [Some(json!({})), Some(json!({".": {}}))];
        if is_set && none.contains(&owner.pointer(annotations).cloned()) {
            drop_at(owner, "/fieldsV1/f:metadata", "f:annotations");
        }
        if is_set && owner.pointer("/fieldsV1/f:metadata") == Some(&json!({})) {
            drop_at(owner, "/fieldsV1", "f:metadata");
        }
        // The labels of a Job's template, and the other spelling of a claim's source.
        if is_job {
            drop_at(owner, "/fieldsV1/f:metadata", "f:labels");
        }
        if is_claim {
            for source in ["f:dataSource", "f:dataSourceRef"] {
                drop_at(owner, "/fieldsV1/f:spec", source);
            }
        }
        for part in ["f:metadata", "f:spec"] {
            if owner["fieldsV1"].get(part) == Some(&json!({})) {
                drop_at(owner, "/fieldsV1", part);
            }
        }
        for list in ["f:ports", "f:endpoints"] {
            if is_slice && owner["fieldsV1"].get(list) == Some(&json!({})) {
                drop_at(owner, "/fieldsV1", list);
            }
        }
    }
}

/// The volume of a token has a name by chance.
fn token_volume(object: &mut Value) {
    const PREFIX: &str = "kube-api-access-";
    let plain = |item: &mut Value| {
        let name = item["name"].as_str().unwrap_or("");
        if name.starts_with(PREFIX) {
            item["name"] = PREFIX.into();
        }
    };
    let Some(spec) = object.pointer_mut("/spec") else {
        return;
    };
    let listed = |holder: &mut Value, list: &str| {
        let items = holder.get_mut(list).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(plain);
    };
    listed(spec, "volumes");
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            listed(container, "volumeMounts");
        }
    }
}

/// The server that is compared, and what it is asked about.
struct Compared {
    world: World,
    /// Of each manifest's object, once it is there.
    versions: Vec<Option<String>>,
}

impl Compared {
    async fn new() -> Self {
        // Nothing signs: a request stays as it was sent, as it does there without controllers.
        let setup = Setup {
            signs: false,
            ..Setup::default()
        };
        let compared = Self {
            world: World::with(setup).await,
            versions: Vec::new(),
        };
        compared.world.define_gateway_api().await;
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
            let answer = compared.send("POST", &path, JSON, &body).await;
            assert!(
                matches!(answer.code, 201 | 409),
                "{path}: {}",
                answer.message
            );
        }
        compared
    }

    /// Makes the kinds that the manifests define, and waits until they are served.
    async fn define(&self, manifests: &[Value]) {
        let objects = &self.world.objects;
        let closing = CancellationToken::new();
        tokio::spawn(objects.clone().follow_definitions(closing.clone()));
        tokio::spawn(objects.clone().tend_definitions(closing));
        for definition in manifests.iter().filter(|one| is_definition(one)) {
            let path = self.path_of(definition);
            let answer = self.send("POST", &path, JSON, definition).await;
            let name = &definition["metadata"]["name"];
            if answer.code != 201 {
                println!("{name}: {}", answer.message);
                continue;
            }
            let spec = &definition["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
            let served = async {
                while objects.registry().by_group_kind(&group, &kind).is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let patience = Duration::from_secs(60);
            if tokio::time::timeout(patience, served).await.is_err() {
                println!("{name} is not served");
            }
        }
    }

    /// What changes are about. One that is refused here is missed by each of them.
    async fn create_all(&mut self, manifests: &[Value]) {
        for manifest in manifests {
            let mut version = None;
            if manifest["metadata"]["name"].is_string() {
                let path = self.path_of(manifest);
                let made = format!("{path}?fieldManager={MAKER}");
                let mut answer = self.send("POST", &made, JSON, manifest).await;
                if answer.code == 409 {
                    let name = manifest["metadata"]["name"].as_str().unwrap();
                    answer = self
                        .send("GET", &format!("{path}/{name}"), JSON, &json!({}))
                        .await;
                }
                if !matches!(answer.code, 200 | 201) {
                    println!("{path}: {}", answer.message);
                }
                let made = &answer.object["metadata"]["resourceVersion"];
                version = made.as_str().map(str::to_owned);
            }
            self.versions.push(version);
        }
    }

    async fn ask(&self, manifest: &Value, case: &Value) -> Answer {
        let collection = self.path_of(manifest);
        let mut query = format!(
            "dryRun=All&fieldValidation={}",
            case["validation"].as_str().unwrap()
        );
        let action = case["action"].as_str().unwrap();
        match action {
            "apply" => query += &format!("&fieldManager={APPLIER}"),
            "apply force" => query += &format!("&fieldManager={APPLIER}&force=true"),
            "delete" => query = "dryRun=All".to_owned(),
            _ => {}
        }
        let mut words = action.split(' ').peekable();
        let below = words.next_if(|word| matches!(*word, "status" | "scale"));
        let (method, media_type) = match words.next() {
            Some("create") => ("POST", JSON),
            Some("json") => ("PATCH", "application/json-patch+json"),
            Some("merge") => ("PATCH", "application/merge-patch+json"),
            Some("strategic") => ("PATCH", "application/strategic-merge-patch+json"),
            Some("apply") => ("PATCH", "application/apply-patch+yaml"),
            Some("delete") => ("DELETE", JSON),
            Some("read") => {
                let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
                return self.read(&format!("{collection}/{name}"), action).await;
            }
            _ => ("PUT", JSON),
        };
        let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
        let path = match (method, below) {
            ("POST", _) => collection,
            (_, None) => format!("{collection}/{name}"),
            (_, Some(below)) => format!("{collection}/{name}/{below}"),
        };
        let mut body = case["body"].clone();
        for pointer in [
            "/metadata/resourceVersion",
            "/preconditions/resourceVersion",
        ] {
            if let Some(named) = body.pointer_mut(pointer)
                && *named == CURRENT
            {
                let index = case["manifest"].as_u64().unwrap() as usize;
                *named = self.versions[index].clone().unwrap_or_default().into();
            }
        }
        self.send(method, &format!("{path}?{query}"), media_type, &body)
            .await
    }

    /// An object in one of its forms, decoded.
    async fn read(&self, path: &str, action: &str) -> Answer {
        let accept = match action {
            "read yaml" => "application/yaml",
            "read protobuf" => "application/vnd.kubernetes.protobuf",
            "read table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
            "read metadata" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            _ => JSON,
        };
        let request = self
            .world
            .request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
        let (code, bytes) = self.world.send_for_bytes(request).await;
        let object: Value = match action {
            "read yaml" => serde_saphyr::from_str(&String::from_utf8(bytes).unwrap()).unwrap(),
            "read protobuf" if code < 300 => weft_kinds::protobuf::decode(&bytes).unwrap().value,
            // A refusal may be plain text.
            _ => serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let told = object["message"].as_str().filter(|_| code >= 300);
        Answer {
            code,
            message: told.unwrap_or_default().to_owned(),
            object,
        }
    }

    async fn send(&self, method: &str, path: &str, media_type: &str, body: &Value) -> Answer {
        let line = format!("{method} {path}");
        let headers = [(header::CONTENT_TYPE, media_type)];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = self.world.request(&line, &headers, &body);
        let answer = self.world.send(request).await;
        let told = answer.body["message"].as_str();
        Answer {
            code: answer.status,
            message: told
                .filter(|_| answer.status >= 300)
                .unwrap_or_default()
                .to_owned(),
            object: answer.body,
        }
    }

    /// Where objects like this one are.
    fn path_of(&self, manifest: &Value) -> String {
        let (version, kind) = (
            manifest["apiVersion"].as_str().unwrap(),
            manifest["kind"].as_str().unwrap(),
        );
        let (group, plain) = version.split_once('/').unwrap_or(("", version));
        let registry = self.world.objects.registry();
        let kind = registry
            .by_kind(group, plain, kind)
            .unwrap_or_else(|| panic!("{version} {kind} is not served"));
        let root = match version.contains('/') {
            true => "apis",
            false => "api",
        };
        match kind.namespaced {
            true => format!("/{root}/{version}/namespaces/{NAMESPACE}/{}", kind.resource),
            false => format!("/{root}/{version}/{}", kind.resource),
        }
    }
}
