//! What open dashboards cost the server: CPU time and memory of its process, beside the same cluster with nobody looking.
//!
//! `weft/examples/dashboard.rs` reads what pages read. Each phase is measured beside one without readers right before it, and without load and under it:
//! calls through the gateway from a component to another, on three nodes. CPU is user and system time as the kernel counts it, in hundredths of a
//! second, of all threads of the server's process; the nodes are other processes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, number, ready, service, start};
use crate::cluster::Cluster;
use crate::process::status_number;
use crate::progress::{self, Waiting};

/// Ticks of the kernel's count a second, on all that weft runs on.
const TICKS: f64 = 100.0;
/// How long readers have read before anything is counted.
const SETTLE: Duration = Duration::from_secs(5);
/// As many pages as are open at once.
const MANY: u32 = 10;
/// Connections of the load, each with one call at a time.
const CONNECTIONS: &str = "4";

pub fn measure(effort: &Effort) -> Result<Value> {
    let lasts = Duration::from_secs(if effort.quick { 15 } else { 60 });
    let cluster = start(effort, "bench-dashboard", 3)?;
    cluster.apply(&[
        deployment("caller", "probe", Some("pooled"), None),
        service("caller"),
        deployment("hello", "hello", Some("pooled"), None),
        service("hello"),
    ])?;
    ready(&cluster, &["caller", "hello"])?;
    let mut waiting = Waiting::new();
    let mut phases = Vec::new();
    for (load, readers) in [(false, 1), (false, MANY), (true, 1), (true, MANY)] {
        let what = format!("{readers} readers{}", if load { " under load" } else { "" });
        waiting.show(format!("{what}: nobody looks"));
        // Nodes are asked for another half a minute by whoever looked before.
        std::thread::sleep(Duration::from_secs(35));
        let sending = load.then(|| send(&cluster, lasts * 3)).transpose()?;
        std::thread::sleep(SETTLE);
        let alone = spent(&cluster, lasts)?;
        waiting.show(what);
        let reading = read(effort, &cluster, readers, lasts)?;
        std::thread::sleep(SETTLE);
        let watched = spent(&cluster, lasts)?;
        let read = finish(reading)?;
        if let Some(mut sending) = sending {
            sending.kill()?;
            sending.wait()?;
        }
        let percent = (number(&watched["cpu_percent"]) - number(&alone["cpu_percent"])).max(0.0);
        let kib = number(&watched["anonymous_kib"]) - number(&alone["anonymous_kib"]);
        phases.push(json!({
            "readers": readers, "load": load, "alone": alone, "watched": watched, "read": read,
            "added_cpu_percent": percent, "added_kib": kib,
        }));
    }
    drop(waiting);
    cluster.stop()?;
    Ok(json!({"seconds": lasts.as_secs(), "phases": phases}))
}

/// Calls through the gateway, until they are ended.
fn send(cluster: &Cluster, lasts: Duration) -> Result<Child> {
    let url = cluster.url(
        &format!("caller.{NAMESPACE}.localhost"),
        "/call?url=http://hello/",
    );
    let seconds = (lasts + SETTLE * 4).as_secs().to_string();
    let mut command = Command::new(super::generator());
    command.args([
        "load",
        "--output",
        "json",
        "--connect",
        cluster.gateway_address(),
    ]);
    command.args([
        "--url",
        &url,
        "--connections",
        CONNECTIONS,
        "--seconds",
        &seconds,
    ]);
    progress::clean_environment(&mut command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start weft load")
}

fn read(effort: &Effort, cluster: &Cluster, readers: u32, lasts: Duration) -> Result<Child> {
    let mut command = Command::new(effort.programs.join("examples/dashboard"));
    let seconds = (lasts + SETTLE * 2).as_secs();
    command
        .args([readers.to_string(), seconds.to_string()])
        .env("WEFT_KUBECONFIG", &cluster.kubeconfig);
    progress::clean_environment(&mut command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start the readers")
}

fn finish(reading: Child) -> Result<Value> {
    let output = reading.wait_with_output()?;
    if !output.status.success() {
        bail!("the readers ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("reading what the readers say")
}

/// What the server's process uses in a time.
fn spent(cluster: &Cluster, lasts: Duration) -> Result<Value> {
    let process = cluster.process();
    let before = ticks(process)?;
    std::thread::sleep(lasts);
    let spent = (ticks(process)? - before) as f64 / TICKS;
    Ok(json!({
        "cpu_percent": spent / lasts.as_secs_f64() * 100.0,
        "anonymous_kib": status_number(process, "RssAnon:"),
    }))
}

/// User and system time of a process, in ticks.
fn ticks(process: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is a name, which may have anything in it.
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
    let fields = fields.split_whitespace().skip(11).take(2);
    fields
        .map(|field| field.parse::<u64>().context("a number of ticks"))
        .sum()
}

pub fn render(dashboard: &Value) -> String {
    let mut text = String::from("\nOpen dashboards, and what they add to the server\n");
    for phase in dashboard["phases"].as_array().into_iter().flatten() {
        let load = if phase["load"] == true {
            "under load"
        } else {
            "idle"
        };
        text += &format!(
            "  {:>3} open, {load:<10} {:>6.2} % of a core ({:.2} % before), {:>8.1} MiB more, {:>6.1} KiB a second each, {} frames skipped\n",
            phase["readers"],
            number(&phase["added_cpu_percent"]),
            number(&phase["alone"]["cpu_percent"]),
            number(&phase["added_kib"]) / 1024.0,
            number(&phase["read"]["bytes"]) / number(&phase["read"]["frames"]) / 1024.0,
            phase["read"]["skipped"],
        );
    }
    text
}
