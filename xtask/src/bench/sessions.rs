//! What sessions leave behind: thousands of commands in a container, in a row and fifty at once.
//!
//! Each is what `kubectl exec` makes: a connection of its own, a WebSocket, the shell of the toolbox in an instance of its own (`weft/examples/streams.rs`
//! is the client). Memory, descriptors and threads of the server's and the node's process are read before, between and after, each time once nothing
//! happens any more: what grows from one reading to the next, after the first sessions have filled pools and caches, is left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, number};
use crate::cluster::{self, Cluster};
use crate::guests;
use crate::process::status_number;
use crate::progress::{self, Waiting};

/// Sessions that fill pools and caches before anything is read.
const FIRST: u32 = 300;
/// Sessions at the same time.
const AT_ONCE: u32 = 50;
/// After this, connections and instances are gone.
const SETTLE: Duration = Duration::from_secs(8);

pub fn measure(effort: &Effort) -> Result<Value> {
    let client = client(effort);
    let program = effort.programs.join("weft");
    let cluster = Cluster::start_program(&program, "bench-sessions", 1, false)?;
    cluster.push(&guests::path("toolbox"), "bench/toolbox:0.1")?;
    serve(
        &cluster,
        "box",
        "bench/toolbox:0.1",
        &["sh", "-c", "while true; do sleep 1000; done"],
    )?;
    let node = super::density::node_process(&cluster)?;
    let mut waiting = Waiting::new();
    let mut run = |what: &str, sessions: u32, at_once: u32| {
        waiting.show(format!("{sessions} sessions {what}"));
        let words = [
            "exec",
            NAMESPACE,
            "box",
            "main",
            &sessions.to_string(),
            &at_once.to_string(),
        ];
        let told = asked(&cluster, &client, &words)?;
        std::thread::sleep(SETTLE);
        let held = json!({"server": held(cluster.process()), "node": held(node)});
        anyhow::Ok((told, held))
    };
    let half = effort.sessions / 2;
    // Both kinds, so that neither is the first of its kind afterwards.
    run("to begin with", FIRST, AT_ONCE)?;
    let (_, before) = run("to begin with", FIRST, 1)?;
    let (row, middle) = run("in a row", half, 1)?;
    let (again, after_row) = run("more", half, 1)?;
    let (together, after_together) = run("fifty at once", half, AT_ONCE)?;
    // What fifty need at once the allocators keep for the next fifty: the second time it must be there already.
    let (together_again, after) = run("fifty at once again", half, AT_ONCE)?;
    drop(waiting);
    cluster.stop()?;
    Ok(json!({
        "in_a_row": row, "in_a_row_again": again, "fifty_at_once": together, "fifty_at_once_again": together_again,
        "before": before, "middle": middle, "after_row": after_row, "after_fifty": after_together, "after": after,
    }))
}

/// The client among the programs that are measured.
pub fn client(effort: &Effort) -> PathBuf {
    effort.programs.join("examples/streams")
}

/// One measurement of the client's.
pub fn asked(cluster: &Cluster, client: &Path, words: &[&str]) -> Result<Value> {
    let mut command = Command::new(client);
    command
        .args(words)
        .env("WEFT_KUBECONFIG", &cluster.kubeconfig);
    progress::clean_environment(&mut command);
    serde_json::from_str(&progress::read(&mut command)?).context("reading what the client measured")
}

/// A pod of one command, in the bench's namespace, once it runs.
pub fn serve(cluster: &Cluster, name: &str, image: &str, command: &[&str]) -> Result<()> {
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": image, "command": command}]},
        }),
    ])?;
    let started = std::time::Instant::now();
    while started.elapsed() < cluster::ROLLOUT_PATIENCE {
        let pods = cluster.get(NAMESPACE, "pods")?;
        if pods
            .iter()
            .any(|pod| pod["metadata"]["name"] == name && pod["status"]["phase"] == "Running")
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("pod {name} does not run")
}

/// What a process holds.
fn held(process: u32) -> Value {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
    json!({
        "anonymous_kib": status_number(process, "RssAnon:"),
        "threads": status_number(process, "Threads:"),
        "files": files,
    })
}

pub fn render(sessions: &Value) -> String {
    let mut text = String::from("\nCommands in a container\n");
    for (key, what) in [
        ("in_a_row", "in a row"),
        ("in_a_row_again", "in a row again"),
        ("fifty_at_once", "fifty at once"),
        ("fifty_at_once_again", "and once more"),
    ] {
        let told = &sessions[key];
        let (count, seconds) = (number(&told["sessions"]), number(&told["seconds"]));
        text += &format!(
            "  {what:<16} {count:>6} sessions {:>8.1} a second, the longest {:.2} s\n",
            count / seconds,
            number(&told["longest_seconds"])
        );
    }
    for process in ["server", "node"] {
        for (key, what) in [
            ("before", "before"),
            ("middle", "after half of those in a row"),
            ("after_row", "after all in a row"),
            ("after_fifty", "after half of those at once"),
            ("after", "after those at once"),
        ] {
            let held = &sessions[key][process];
            text += &format!(
                "  {process:<7} {what:<30} {:>8.1} MiB, {:>4} threads, {:>4} descriptors\n",
                number(&held["anonymous_kib"]) / 1024.0,
                held["threads"],
                held["files"]
            );
        }
    }
    text
}
