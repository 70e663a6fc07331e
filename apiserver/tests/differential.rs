//! How far this server answers as kube-apiserver 1.37.2 does: the same dry-run creates, replacements, patches, applies and deletions of
//! objects, their status and their scale, reads, lists and watches in each encoding, and its recorded answers.
//!
//! `differential/corpus.json` holds the manifests, `differential/answers.lz4` the requests made from them and what a
//! real kube-apiserver answered, a line of JSON each (`cargo xtask differential record`). Compared are the code, the
//! message of a refusal, and the object that would be stored. What a server makes up (uids, times, addresses) is left
//! out, and so are the differences that are kept: [`KEPT`], each of which `docs/differences.md` has by name.
//!
//! `DIFFERENTIAL=40 cargo xtask differential` prints that many kinds of difference instead of some; `DIFFERENTIAL_KIND=Pod` of one
//! kind only.

#[path = "differential/kept.rs"]
mod kept;
#[path = "differential/messages.rs"]
mod messages;
#[path = "differential/objects.rs"]
mod objects;
#[path = "differential/report.rs"]
mod report;
#[path = "differential/server.rs"]
mod server;
mod world;

use serde_json::Value;

use kept::{KEPT, is_kept};
use report::Report;
use server::{Answer, Compared};

static CORPUS: &[u8] = include_bytes!("differential/corpus.json");
static ANSWERS: &[u8] = include_bytes!("differential/answers.lz4");

/// Shares of equal codes, messages and stored objects, in hundredths of a percent, below which the test fails: of creates and
/// patches, and of what is done to an object that is there.
const PROMISED: &[(&str, [u32; 3])] = &[
    ("objects", [9_980, 9_950, 9_960]),
    ("update", [9_980, 9_950, 9_880]),
    ("status", [9_980, 9_970, 9_960]),
    ("scale", [9_980, 9_980, 9_980]),
    ("other kinds", [9_980, 9_950, 9_930]),
    ("apply", [9_960, 9_800, 9_980]),
    ("delete", [9_980, 9_930, 9_980]),
    ("read", [9_980, 9_900, 9_950]),
    ("list", [9_980, 9_900, 9_950]),
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
        "list" | "watch" => "list",
        _ if !FIRST.contains(&kind) => "other kinds",
        part @ ("update" | "status" | "scale") => part,
        _ => "objects",
    }
}

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
        let ours = compared.ask(manifest, &case).await;
        if !is_kept(manifest, &case, &theirs, &ours) {
            report.add(manifest, &case, &theirs, &ours);
        }
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

fn is_definition(manifest: &Value) -> bool {
    manifest["kind"] == "CustomResourceDefinition"
}

/// Whether an object is of a kind that is none of Kubernetes' own.
fn is_custom(manifest: &Value) -> bool {
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    group.contains('.') && !group.ends_with(".k8s.io") || group == "gateway.networking.k8s.io"
}
