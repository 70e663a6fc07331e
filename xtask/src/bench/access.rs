//! What it costs to decide whether somebody may do something, with five thousand bindings in the cluster.
//!
//! `apiserver/examples/roles` is the store, the roles and whoever asks, in one process: what is measured is the decision alone, as each request
//! has one. Each round is a process of its own; what is told are medians of the rounds.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Effort, merged, number};
use crate::progress::{self, Waiting};

pub fn measure(effort: &Effort) -> Result<Value> {
    // As it is released.
    let mut cargo = progress::cargo(["build", "--release", "--workspace", "--example", "roles"]);
    progress::run(&mut cargo, "read the compiler's messages above")?;
    let mut waiting = Waiting::new();
    let mut rounds = Vec::new();
    for round in 0..effort.rounds {
        waiting.show(format!("round {} of {}", round + 1, effort.rounds));
        let mut roles = Command::new(crate::target().join("release/examples/roles"));
        let told = progress::read(&mut roles)?;
        let told: Value = serde_json::from_str(&told).context("reading what the bench prints")?;
        rounds.push(told);
    }
    Ok(merged(&rounds))
}

pub fn render(results: &Value) -> String {
    let mut text = format!(
        "\nWho may do what: a decision beside {:.0} bindings\n",
        number(&results["bindings"])
    );
    for case in results["cases"].as_array().into_iter().flatten() {
        text += &format!(
            "  {:<36}{:>8.2} µs\n",
            case["case"].as_str().unwrap_or("?"),
            number(&case["nanoseconds"]) / 1e3
        );
    }
    text
}
