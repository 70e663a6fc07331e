//! `weft mesh why`: why calls from a workload to a Service fail, by how those of the last minutes ended and by what there is of the Service.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use weft_call::edges::is_failure;

use super::{Form, Scope, pretty, read, read_edges};
use crate::commands::output::printable;
use crate::exit::Failure;
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The workload that calls, in the namespace
    #[arg(value_name = "FROM")]
    from: String,
    /// The Service that it calls, as NAME or NAME.NAMESPACE
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    scope: Scope,
    /// By the calls of the last so long
    #[arg(short, long, value_name = "DURATION", default_value = "10m")]
    window: String,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What is known of the Service.
#[derive(Debug, Default)]
struct Facts {
    exists: bool,
    ready: usize,
    endpoints: usize,
}

/// # Errors
/// What the server says.
pub(super) async fn run(client: &kube::Client, args: &Args) -> anyhow::Result<()> {
    let Some(namespace) = args.scope.namespace(client) else {
        let why = "a workload is in one namespace";
        return Err(Failure::new("cannot tell", why, "name it with -n")
            .usage()
            .into());
    };
    let (service, of) = args
        .to
        .split_once('.')
        .unwrap_or((args.to.as_str(), namespace));
    let list = read_edges(client, &args.scope, &args.window, "cannot read the edges").await?;
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{of}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
    );
    let slices = read(client, &path, "cannot read the endpoints").await?;
    let services =
        format!("/api/v1/namespaces/{of}/services?fieldSelector=metadata.name%3D{service}");
    let services = read(client, &services, "cannot read the Service").await?;
    let exists = services["items"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    let facts = facts(exists, &slices);
    let found = outcomes(&list, (&args.from, namespace), (service, of));
    let to = format!("{service}.{of}");
    let told = explain(&args.from, &to, &found, &facts);
    let text = match args.output {
        Form::Text => told.lines().map(|line| printable(line) + "\n").collect(),
        Form::Json => pretty(&json!({
            "outcomes": found, "service": to, "exists": facts.exists,
            "endpoints": facts.endpoints, "ready": facts.ready,
            "told": told.lines().collect::<Vec<_>>(),
        })),
    };
    Ok(stdout::text(&text)?)
}

fn facts(exists: bool, slices: &Value) -> Facts {
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let mut facts = Facts {
        exists,
        ..Facts::default()
    };
    for endpoint in endpoints {
        facts.endpoints += 1;
        if endpoint["conditions"]["ready"] != false {
            facts.ready += 1;
        }
    }
    facts
}

/// How calls between the two ended. Those to what is not there have no Service that they could be told by.
fn outcomes(
    list: &Value,
    (from, namespace): (&str, &str),
    (service, of): (&str, &str),
) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for edge in list["items"].as_array().into_iter().flatten() {
        let is_from =
            edge["source"]["workload"] == from && edge["source"]["namespace"] == namespace;
        let called = &edge["service"];
        let is_to = called["name"] == service && called["namespace"] == of;
        if !is_from || !(is_to || called["name"] == "BlackHoleCluster") {
            continue;
        }
        for (how, count) in edge["outcomes"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or_default();
            *sums.entry(how.clone()).or_default() += count;
        }
    }
    sums
}

fn explain(from: &str, to: &str, found: &BTreeMap<String, u64>, facts: &Facts) -> String {
    let mut out = String::new();
    let calls: u64 = found.values().sum();
    let failed: u64 = found
        .iter()
        .filter(|(how, _)| is_failure(how))
        .map(|(_, count)| count)
        .sum();
    // Writing to a String cannot fail.
    let _ = match (calls, failed) {
        (0, _) => writeln!(out, "{from} has not called {to} in this time"),
        (calls, 0) => writeln!(out, "none of {calls} calls from {from} to {to} failed"),
        (calls, failed) => writeln!(out, "{failed} of {calls} calls from {from} to {to} failed"),
    };
    for (how, count) in found.iter().filter(|(how, _)| is_failure(how)) {
        let _ = writeln!(out, "{count} x {how}: {}", meaning(how));
    }
    let _ = match facts {
        Facts { exists: false, .. } => {
            writeln!(out, "there is no Service {to}: calls to it find nobody")
        }
        Facts { endpoints: 0, .. } => writeln!(
            out,
            "Service {to} has no endpoint: its selector meets no pod that runs; compare it with the pods' labels"
        ),
        Facts {
            ready: 0,
            endpoints,
            ..
        } => writeln!(
            out,
            "none of {endpoints} endpoints of {to} is ready: see why with `weft get pods` and their events"
        ),
        Facts {
            ready, endpoints, ..
        } => {
            writeln!(out, "{ready} of {endpoints} endpoints of {to} are ready")
        }
    };
    out
}

/// What an outcome says, after Envoy's flags as the mesh sets them.
fn meaning(outcome: &str) -> &'static str {
    if outcome.starts_with("grpc-") {
        return "the workload answered with a gRPC status that is an error of a server; look at its log";
    }
    let (code, flag) = outcome.split_once('/').unwrap_or((outcome, ""));
    match flag {
        "UH" => "nobody was ready to answer",
        "UF" => {
            "no endpoint could be reached; the pods or their nodes are gone, or refuse connections"
        }
        "UO" => "the endpoints had as many calls as they take; scale out, or raise their limits",
        "UT" => "it took longer than it may, by its caller's deadline or a route's timeout",
        "UC" => {
            "an endpoint broke off or failed before it answered; look at its pod's events and log"
        }
        "URX" => "it was tried again as often as it may",
        "NR" => "no such Service or port, or no route for the request; see `weft mesh routes`",
        "UAEX" => "a policy does not let it pass",
        "RL" => "more calls than a rate limit lets pass",
        "FI" | "DI" => "a fault was injected, as a rule wants it",
        "DPE" => "the request breaks a rule of HTTP or of the mesh",
        "DF" => "the host's name is not known",
        _ if code.starts_with('5') => "the workload itself answered so; look at its log",
        _ => "the call ended without an answer",
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::edge;
    use super::*;

    #[test]
    fn why_calls_fail() {
        let list = json!({"items": [
            edge("web", "pay", &json!({"200": 90, "503/UO": 4, "500": 2})),
            edge("web", "", &json!({"503/UH": 3})),
            edge("job", "pay", &json!({"500": 70})),
        ]});
        let told = |from: &str, exists: bool, ready: &[bool]| {
            let endpoints: Vec<Value> = ready
                .iter()
                .map(|ready| json!({"conditions": {"ready": ready}}))
                .collect();
            let facts = facts(exists, &json!({"items": [{"endpoints": endpoints}]}));
            let found = outcomes(&list, (from, "shop"), ("pay", "bank"));
            explain(from, "pay.bank", &found, &facts)
        };
        insta::assert_snapshot!(told("web", true, &[true, false]), @r"
        9 of 99 calls from web to pay.bank failed
        2 x 500: the workload itself answered so; look at its log
        3 x 503/UH: nobody was ready to answer
        4 x 503/UO: the endpoints had as many calls as they take; scale out, or raise their limits
        1 of 2 endpoints of pay.bank are ready
        ");
        insta::assert_snapshot!(told("idle", true, &[]), @r"
        idle has not called pay.bank in this time
        Service pay.bank has no endpoint: its selector meets no pod that runs; compare it with the pods' labels
        ");
        assert!(told("web", true, &[false]).contains("none of 1 endpoints of pay.bank is ready"));
        assert!(told("web", false, &[]).contains("there is no Service pay.bank"));
    }
}
