//! What the first call to a Deployment waits for that has no replica: from the request to its answer, with the component compiled already.
//!
//! Two nodes, one component behind a Service, and a HorizontalPodAutoscaler that may take its last replica away. `weft/examples/wake.rs` is the
//! client: it has the Deployment emptied for each round, rather than wait until an autoscaler does.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, number, ready, service, start};
use crate::progress::{self, Waiting};

const NAME: &str = "hello";
/// Calls, and of a quick run.
const ROUNDS: u32 = 300;
const ROUNDS_QUICK: u32 = 20;

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start(effort, "bench-wake", 2)?;
    cluster.apply(&[
        deployment(NAME, "hello", None, None),
        service(NAME),
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "minReplicas": 0, "maxReplicas": 1,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
                "metrics": [{"type": "Object", "object": {
                    "describedObject": {"apiVersion": "v1", "kind": "Service", "name": NAME},
                    "metric": {"name": "requests-in-flight"},
                    "target": {"type": "Value", "value": "100"}}}],
                // It is emptied by the client.
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 3600}},
            },
        }),
    ])?;
    ready(&cluster, &[NAME])?;
    let rounds = if effort.quick { ROUNDS_QUICK } else { ROUNDS };
    let mut waiting = Waiting::new();
    waiting.show(format!("{rounds} calls to a Deployment without a replica"));
    let mut client = Command::new(effort.programs.join("examples/wake"));
    client
        .args([NAMESPACE, NAME, cluster.gateway_address()])
        .arg(rounds.to_string())
        .env("WEFT_KUBECONFIG", &cluster.kubeconfig);
    progress::clean_environment(&mut client);
    let told = progress::read(&mut client)?;
    drop(waiting);
    cluster.stop()?;
    serde_json::from_str(&told).context("reading what the client measured")
}

pub fn render(wake: &Value) -> String {
    let mut text = format!(
        "\nThe first call to a Deployment without a replica, {} times, in ms after the request\n",
        wake["rounds"]
    );
    let line = |what: &str, found: &Value| {
        let at = |part: &str| number(&found[part]);
        format!(
            "  {what:<34} {:>7.1} half of them, {:>7.1} p90, {:>7.1} p99, {:>7.1} the longest\n",
            at("p50"),
            at("p90"),
            at("p99"),
            at("max")
        )
    };
    for (stage, what) in [
        ("scaled", "Deployment scaled"),
        ("set_scaled", "ReplicaSet scaled"),
        ("created", "Pod created"),
        ("bound", "Pod bound"),
        ("ready", "Pod ready"),
        ("published", "endpoint published"),
    ] {
        text += &line(what, &wake["stages_ms"][stage]);
    }
    text + &line("answer", &wake["answer_ms"])
}
