//! What users notice when a node is lost, a Deployment is rolled out and nodes are drained: three servers and five nodes, each a process of its own.
//!
//! `weft/examples/failures.rs` is the client: rounds of a node that is killed, one that falls silent, rollouts under load and drains under load, by
//! turns. Claimed are five seconds until all that ran on a killed node serves elsewhere, fifteen for a silent one, and no request that fails.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, number, ready, service, start_with};
use crate::progress::{self, Waiting};

const NODES: u16 = 5;
/// Of the Deployment that is rolled out and drained: two a node.
const REPLICAS: u32 = 10;

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start_with(effort, "bench-failures", NODES, &["--servers", "3"])?;
    cluster.apply(&[
        many(),
        service("many"),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "many", "namespace": NAMESPACE},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "many"}}},
        }),
        deployment("one", "probe", None, None),
        service("one"),
    ])?;
    ready(&cluster, &["many", "one"])?;
    let mut waiting = Waiting::new();
    waiting.show(format!(
        "{} rounds: a node killed, one silent, rollouts and drains under {} requests each in all",
        effort.rounds, effort.requests
    ));
    let mut client = Command::new(effort.programs.join("examples/failures"));
    client
        .args([NAMESPACE, cluster.gateway_address()])
        .arg(cluster.process().to_string())
        .args([effort.rounds.to_string(), effort.requests.to_string()])
        .env("WEFT_KUBECONFIG", &cluster.kubeconfig);
    progress::clean_environment(&mut client);
    let told = progress::read(&mut client)?;
    drop(waiting);
    cluster.stop()?;
    serde_json::from_str(&told).context("reading what the client measured")
}

fn many() -> Value {
    let mut many = deployment("many", "probe", None, None);
    many["spec"]["replicas"] = json!(REPLICAS);
    many["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    let pod = &mut many["spec"]["template"]["spec"];
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "many"}},
    }]);
    pod["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/hello", "port": 80}, "periodSeconds": 1});
    many
}

pub fn render(failures: &Value) -> String {
    let mut text = format!(
        "\nWhat users notice, {} rounds; seconds, half of them and the longest\n",
        failures["rounds"]
    );
    for (loss, what) in [
        ("killed", "a node is killed"),
        ("silent", "a node is silent"),
    ] {
        for (time, until) in [
            ("answered_seconds", "its only replica's Service answers"),
            ("replaced_seconds", "all replicas serve elsewhere"),
        ] {
            let seen = &failures[loss][time];
            let what = format!("{what}: {until}");
            text += &format!(
                "  {what:<58} {:>6.2} {:>6.2}\n",
                number(&seen["p50"]),
                number(&seen["max"])
            );
        }
    }
    for (change, what) in [("rolling", "rollouts"), ("drain", "drained nodes")] {
        let seen = &failures[change];
        text += &format!(
            "  {} {what}: {} of {} requests failed\n",
            seen["changes"], seen["failed"], seen["requests"]
        );
        let answers = seen["answers"].as_object();
        for (answer, count) in answers.into_iter().flatten() {
            if answer != "200" {
                text += &format!("    {count} {answer}\n");
            }
        }
    }
    text
}
