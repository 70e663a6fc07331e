//! What idle pods cost: thousands of them on one node, made as users make them, through the API.
//!
//! Deployments of [`GROUP`] replicas of one component, each in a namespace and behind a Service of its own, with nothing but
//! what `kubectl create deployment` would write. Memory is the resident set of the node's process and of the server's, as
//! the kernel tells it. The calls go to given pods: a client sends `/call?url=http://POD-IP/` through the gateway to one
//! pooled component, which calls that address through the mesh; the callee is instantiated for the call and gone after it.
//! Every call's time is the client's own, the caller and the gateway included.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, number, ready, service, start};
use crate::cluster::Cluster;
use crate::process::status_number;
use crate::progress::{self, Counting, Waiting};

/// Pods of one Deployment, and endpoints of one Service.
const GROUP: u32 = 500;
/// Pods that are called, each several times.
const CALLED: usize = 1_000;
/// Calls under way at once.
const CONNECTIONS: usize = 16;
/// Readings of each list and scrape; the middle one counts.
const READINGS: usize = 5;
/// How long all pods may take.
const PATIENCE: Duration = Duration::from_secs(1800);
const POLL: Duration = Duration::from_millis(500);
/// After this the last status writes and tables are through.
const SETTLE: Duration = Duration::from_secs(5);

pub fn measure(effort: &Effort) -> Result<Value> {
    let pods = effort.pods;
    let cluster = start(effort, "bench-density", 1)?;
    let node = node_process(&cluster)?;
    cluster.apply(&[
        deployment("caller", "probe", Some("pooled"), None),
        service("caller"),
    ])?;
    ready(&cluster, &["caller"])?;
    let before = memory(&cluster, node);
    let seconds = fill(&cluster, pods)?;
    std::thread::sleep(SETTLE);
    let after = memory(&cluster, node);
    let reads = reads(&cluster)?;
    let calls = call_at_random(&cluster, effort.pod_calls)?;
    let after_calls = memory(&cluster, node);
    cluster.stop()?;
    let per_pod = |key: &str| (number(&after[key]) - number(&before[key])) / f64::from(pods);
    Ok(json!({
        "pods": pods,
        "ready_seconds": seconds,
        "before": before,
        "after": after,
        "after_calls": after_calls,
        "node_kib_per_pod": per_pod("node_kib"),
        "node_anonymous_kib_per_pod": per_pod("node_anonymous_kib"),
        "reads": reads,
        "calls": calls,
    }))
}

/// The node's process: a child of the cluster's.
pub fn node_process(cluster: &Cluster) -> Result<u32> {
    let children = Command::new("pgrep")
        .args(["-P", &cluster.process().to_string()])
        .output()
        .context("pgrep finds the node's process")?;
    let children = String::from_utf8_lossy(&children.stdout).into_owned();
    let child = children.lines().next().and_then(|line| line.parse().ok());
    child.context("the cluster has no node process")
}

/// Resident memory and threads of node and server. What is anonymous is what pods take; the rest are pages of the program and of compiled
/// code, which come in as they are first used.
fn memory(cluster: &Cluster, node: u32) -> Value {
    let of = |process: u32| {
        let field = |name: &str| status_number(process, name);
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        (field("VmRSS:"), field("RssAnon:"), field("Threads:"), files)
    };
    let (node, anonymous, threads, files) = of(node);
    let (server, ..) = of(cluster.process());
    json!({
        "node_kib": node,
        "node_anonymous_kib": anonymous,
        "node_threads": threads,
        "node_files": files,
        "server_kib": server,
    })
}

/// Makes the pods and waits until all are ready; how long that took.
fn fill(cluster: &Cluster, pods: u32) -> Result<f64> {
    let started = Instant::now();
    let groups = pods.div_ceil(GROUP);
    for group in 0..groups {
        let namespace = format!("density-{group}");
        let replicas = GROUP.min(pods - group * GROUP);
        let mut idle = deployment("idle", "hello", None, None);
        let mut front = service("idle");
        for object in [&mut idle, &mut front] {
            object["metadata"]["namespace"] = json!(namespace);
        }
        idle["spec"]["replicas"] = json!(replicas);
        // Nothing asked for: a machine of two cores has room for any number of idle ones.
        let container = &mut idle["spec"]["template"]["spec"]["containers"][0];
        container["resources"] = json!({});
        cluster.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            idle,
            front,
        ])?;
    }
    let mut bar = Counting::new(u64::from(pods), "pods ready");
    loop {
        let text = raw(cluster, "/apis/apps/v1/deployments")?;
        let list: Value = serde_json::from_str(&text).context("reading deployments")?;
        let ready: u64 = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["metadata"]["name"] == "idle")
            .filter_map(|one| one["status"]["readyReplicas"].as_u64())
            .sum();
        bar.show(ready);
        if ready >= u64::from(pods) {
            return Ok(started.elapsed().as_secs_f64());
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "{ready} of {pods} pods became ready in {} s",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(POLL);
    }
}

fn raw(cluster: &Cluster, path: &str) -> Result<String> {
    progress::read(&mut cluster.weft(["get", "--raw", path]))
}

/// What lists and scrapes take and weigh, the start of a command that asks included.
fn reads(cluster: &Cluster) -> Result<Value> {
    let node = cluster.nodes.first().context("the cluster has a node")?;
    let proxied = |path: &str| format!("/api/v1/nodes/{node}/proxy/{path}");
    let (metrics, summary) = (proxied("metrics"), proxied("stats/summary"));
    let asked: [(&str, Vec<&str>); 6] = [
        ("command", vec!["get", "--raw", "/version"]),
        ("list_json", vec!["get", "--raw", "/api/v1/pods"]),
        ("get_pods", vec!["get", "pods", "-A"]),
        ("metrics", vec!["get", "--raw", &metrics]),
        ("summary", vec!["get", "--raw", &summary]),
        (
            "top_pods",
            vec!["get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods"],
        ),
    ];
    let mut found = json!({});
    let mut waiting = Waiting::new();
    for (name, arguments) in asked {
        waiting.show(format!("reading {name}"));
        let mut millis = Vec::new();
        let mut bytes = 0;
        for _ in 0..READINGS {
            let begun = Instant::now();
            bytes = progress::read(&mut cluster.weft(arguments.iter().copied()))?.len();
            millis.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        found[name] = json!({"ms": super::median(millis), "bytes": bytes});
    }
    Ok(found)
}

/// Calls given pods over and over, and says how long each call took.
fn call_at_random(cluster: &Cluster, calls: usize) -> Result<Value> {
    let list: Value =
        serde_json::from_str(&raw(cluster, "/api/v1/pods?labelSelector=app%3Didle")?)?;
    let addresses: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| Some(pod["status"]["podIP"].as_str()?.to_owned()))
        .collect();
    // Equally likely, and the same in every run.
    let mut chance = Chance(42);
    let chosen: Vec<&str> = (0..CALLED)
        .map(|_| addresses[chance.below(addresses.len())].as_str())
        .collect();
    let mut waiting = Waiting::new();
    waiting.show(format!(
        "{calls} calls to {CALLED} of {} pods over {CONNECTIONS} connections",
        addresses.len()
    ));
    let host = format!("caller.{NAMESPACE}.localhost");
    let (gateway, host) = (cluster.gateway_address(), host.as_str());
    let chosen = chosen.as_slice();
    let mut micros: Vec<f64> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn(move || -> Result<Vec<f64>> {
                    let mut chance = Chance(number as u64);
                    let mut client = Client::open(gateway, host)?;
                    let mut micros = Vec::with_capacity(calls / CONNECTIONS);
                    for _ in 0..calls / CONNECTIONS {
                        let address = chosen[chance.below(chosen.len())];
                        let begun = Instant::now();
                        let answer = client.get(&format!("/call?url=http://{address}/hello"))?;
                        micros.push(begun.elapsed().as_secs_f64() * 1e6);
                        if !answer.contains("hello") {
                            bail!("{address} answered {answer}");
                        }
                    }
                    Ok(micros)
                })
            })
            .collect();
        let mut all = Vec::new();
        for caller in callers {
            let Ok(micros) = caller.join() else {
                bail!("a calling thread ended early");
            };
            all.extend(micros?);
        }
        anyhow::Ok(all)
    })?;
    micros.sort_by(f64::total_cmp);
    let quantile = |part: f64| micros[((micros.len() - 1) as f64 * part).round() as usize];
    Ok(json!({
        "calls": micros.len(),
        "pods": CALLED.min(addresses.len()),
        "connections": CONNECTIONS,
        "p50_us": quantile(0.5),
        "p90_us": quantile(0.9),
        "p99_us": quantile(0.99),
        "max_us": quantile(1.0),
    }))
}

/// A small generator (SplitMix64): which pods are called is the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (end.max(1) as u64)).unwrap_or(0)
    }
}

/// HTTP/1.1 over one connection, one request after the other.
struct Client<'a> {
    stream: BufReader<TcpStream>,
    host: &'a str,
}

impl<'a> Client<'a> {
    fn open(address: &str, host: &'a str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream, host })
    }

    /// The body of a 200.
    fn get(&mut self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = None;
        let mut chunked = false;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
            chunked |= line.starts_with("transfer-encoding:") && line.ends_with("chunked");
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut line = String::new();
                self.stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim_end(), 16)?;
                let begin = body.len();
                // With the line break that ends it.
                body.resize(begin + size + 2, 0);
                self.stream.read_exact(&mut body[begin..])?;
                body.truncate(begin + size);
                if size == 0 {
                    break;
                }
            }
        } else {
            body.resize(length.context("an answer without a length")?, 0);
            self.stream.read_exact(&mut body)?;
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.split(' ').nth(1) != Some("200") {
            bail!("{} {}", status.trim_end(), body.trim_end());
        }
        Ok(body)
    }
}

pub fn render(density: &Value) -> String {
    let (before, after) = (&density["before"], &density["after"]);
    let calls = &density["calls"];
    let mib = |value: &Value| number(value) / 1024.0;
    let mut text = format!(
        "\n{} idle pods on one node, ready after {:.1} s\n",
        density["pods"],
        number(&density["ready_seconds"]),
    );
    text += &format!(
        "  node's process   {:>8.1} MiB before, {:.1} after, {:.1} after the calls: {:.1} KiB a pod, {:.1} without the program's own pages; {} threads, {} files\n",
        mib(&before["node_kib"]),
        mib(&after["node_kib"]),
        mib(&density["after_calls"]["node_kib"]),
        number(&density["node_kib_per_pod"]),
        number(&density["node_anonymous_kib_per_pod"]),
        after["node_threads"],
        after["node_files"],
    );
    text += &format!(
        "  server's process {:>8.1} MiB before, {:.1} after\n",
        mib(&before["server_kib"]),
        mib(&after["server_kib"]),
    );
    let reads = [
        ("(any command)", "command"),
        ("get pods -A", "get_pods"),
        ("list as JSON", "list_json"),
        ("/metrics", "metrics"),
        ("/stats/summary", "summary"),
        ("top pods", "top_pods"),
    ];
    for (name, key) in reads {
        let read = &density["reads"][key];
        text += &format!(
            "  {name:<16} {:>8.0} ms {:>9.0} KiB\n",
            number(&read["ms"]),
            number(&read["bytes"]) / 1024.0
        );
    }
    text += &format!(
        "  {} calls to {} of them at random, {} at a time: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, longest {:.1}\n",
        calls["calls"],
        calls["pods"],
        calls["connections"],
        number(&calls["p50_us"]) / 1e3,
        number(&calls["p90_us"]) / 1e3,
        number(&calls["p99_us"]) / 1e3,
        number(&calls["max_us"]) / 1e3,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_reaches_everybody_and_nobody_else() {
        let mut chance = Chance(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[chance.below(7)] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
    }
}
