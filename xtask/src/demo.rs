//! `cargo xtask demo`: from nothing to an application that answers, on a cluster of three nodes.
//!
//! Builds what is missing, starts the cluster, pushes the components, applies the manifest through the API, sends real
//! requests through the gateway and tells who answered what. Then the cluster stays up until Ctrl-C; with `--once`
//! it is drained.

mod bookinfo;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::progress::{Steps, Waiting};
use crate::{Failure, guests};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum App {
    /// Votes for emoji: load through the gateway, and who answered what
    Vote,
    /// Istio's example application, and Istio's public tasks on it
    Bookinfo,
}

#[derive(clap::Args)]
pub struct Args {
    /// What to run
    #[arg(value_enum, default_value_t = App::Vote)]
    app: App,
    /// Of bookinfo's tasks only these
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    only: Vec<String>,
    /// Of bookinfo: a folder with components that are built already, instead of building them
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
    /// Of bookinfo: the weft to run, instead of one built here
    #[arg(long, value_name = "FILE")]
    weft: Option<PathBuf>,
    /// End after the summary instead of staying up
    #[arg(long)]
    once: bool,
    /// How many nodes to run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    nodes: u16,
}

const APP: [&str; 4] = ["web", "emoji", "voting", "bot"];
const MANIFEST: &str = "sample-apps/vote/weft.yaml";
const NAMESPACE: &str = "vote";
const HOST: &str = "vote.localhost";

/// How long the load runs: long enough for every pair of pods to have met many times.
const LOAD_SECONDS: &str = "10";

/// What the load asks for, all at the same time: method, path, connections.
const LOADS: [(&str, &str, &str); 4] = [
    ("GET", "/", "4"),
    ("GET", "/api/leaderboard", "4"),
    ("POST", "/api/vote?choice=:tada:", "2"),
    ("POST", "/api/vote?choice=:doughnut:", "1"),
];

pub fn run(args: &Args) -> Result<()> {
    if args.app == App::Bookinfo {
        let built = bookinfo::Built {
            guests: args.guests.clone(),
            weft: args.weft.clone(),
        };
        return bookinfo::run(&args.only, args.nodes, args.once, &built);
    }
    let mut steps = Steps::new(if args.once { 6 } else { 5 });
    steps.step("build the sample components", || guests::build_only(&APP))?;
    steps.step("build weft", cluster::build)?;
    let cluster = steps.step("start a cluster", || {
        Cluster::start("demo", args.nodes, true)
    })?;
    eprintln!(
        "      {} nodes ready after {:.1} s",
        cluster.nodes.len(),
        cluster.ready_seconds
    );
    steps.step("deploy the vote app", || {
        let mut waiting = Waiting::new();
        for guest in APP {
            waiting.show(format!("pushing {guest}"));
            cluster.push(&guests::path(guest), &format!("vote/{guest}:0.1"))?;
        }
        waiting.show(format!("applying {MANIFEST}"));
        drop(waiting);
        cluster.apply_file(Path::new(MANIFEST))?;
        cluster.wait_for_rollout(NAMESPACE)?;
        cluster.wait_for_answer(HOST, "/api/leaderboard")
    })?;
    let answers = steps.step(
        &format!("send requests through the gateway for {LOAD_SECONDS} s"),
        || {
            let mut loads = Vec::new();
            for (method, path, connections) in LOADS {
                let arguments = [
                    "--method",
                    method,
                    "--connections",
                    connections,
                    "--seconds",
                    LOAD_SECONDS,
                ];
                loads.push(cluster.load(&cluster.url(HOST, path), &arguments)?);
            }
            loads
                .into_iter()
                .map(cluster::Load::finish)
                .collect::<Result<Vec<Value>>>()
        },
    )?;
    let pods = cluster.get(NAMESPACE, "pods")?;
    let mut calls = Calls::default();
    for node in &cluster.nodes {
        calls.read(&cluster.metrics(node)?);
    }
    println!(
        "\n{}\n{}\n{}",
        placement(&pods),
        outside(&answers),
        calls.table()
    );
    // One vote fails on purpose; anything else that fails is a failure of the demo.
    for (answer, (method, path, _)) in answers.iter().zip(LOADS) {
        let errors = answer["errors"].as_u64().unwrap_or(0);
        if errors > 0 && !path.contains("doughnut") {
            return Err(Failure::new(
                format!(
                    "{errors} requests of {method} {path} failed: {} {}",
                    answer["statuses"], answer["failures"]
                ),
                "`grep -rh WARN target/demo*/nodes/*/logs` tells which service failed, and why",
            )
            .into());
        }
    }
    println!("{}\n", verdict(&answers));
    if args.once {
        return steps.step("drain the cluster", || cluster.stop());
    }
    println!("The cluster stays up until Ctrl-C.\n");
    println!("  page        {}", cluster.url(HOST, "/"));
    println!("  API         {}", cluster.api);
    println!("  kubeconfig  {}", cluster.kubeconfig);
    println!("\n  export KUBECONFIG={}", cluster.kubeconfig);
    println!(
        "  kubectl -n {NAMESPACE} get pods -o wide\n  kubectl -n {NAMESPACE} logs -f deploy/bot"
    );
    cluster.wait()
}

/// Which service runs where.
fn placement(pods: &[Value]) -> String {
    let mut services: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for pod in pods {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        if let (Some(app), Some(node)) = (text("/metadata/labels/app"), text("/spec/nodeName")) {
            let (count, nodes) = services.entry(app).or_default();
            *count += 1;
            nodes.insert(node);
        }
    }
    let mut rows = vec![["service", "pods", "nodes"].map(str::to_owned).to_vec()];
    for (app, (count, nodes)) in services {
        rows.push(vec![
            app.to_owned(),
            count.to_string(),
            nodes.into_iter().collect::<Vec<_>>().join(", "),
        ]);
    }
    table("Where the pods run", &rows, &[1])
}

/// What the load saw from outside.
fn outside(answers: &[Value]) -> String {
    let header = [
        "request", "answers", "a second", "errors", "p50 ms", "p99 ms",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (answer, (method, path, _)) in answers.iter().zip(LOADS) {
        let number = |pointer: &str| {
            answer
                .pointer(pointer)
                .and_then(Value::as_f64)
                .unwrap_or(0.0)
        };
        rows.push(vec![
            format!("{method} {path}"),
            format!("{:.0}", number("/requests")),
            format!("{:.0}", number("/requests_per_second")),
            format!("{:.0}", number("/errors")),
            format!("{:.2}", number("/latency_us/p50") / 1e3),
            format!("{:.2}", number("/latency_us/p99") / 1e3),
        ]);
    }
    table(
        "Through the gateway (votes for the doughnut fail on purpose)",
        &rows,
        &[1, 2, 3, 4, 5],
    )
}

/// Everything in one sentence. Whatever failed against the intention has become an error before.
fn verdict(answers: &[Value]) -> String {
    let sum = |key: &str| -> u64 { answers.iter().filter_map(|a| a[key].as_u64()).sum() };
    format!(
        "{} requests were answered as they should be, {} of them with the failure that is there on purpose.",
        sum("requests"),
        sum("errors")
    )
}

/// Calls between workloads, added up over all nodes.
#[derive(Default)]
struct Calls(BTreeMap<(String, String), Edge>);

#[derive(Default)]
struct Edge {
    requests: u64,
    errors: u64,
    same_node: u64,
    /// Cumulative counts by upper bound in microseconds; `u64::MAX` is +Inf.
    buckets: BTreeMap<u64, u64>,
}

impl Calls {
    /// Adds one node's metrics. Only the callers' side is read: each call once.
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, labels, value)) = sample(line) else {
                continue;
            };
            if labels.get("reporter") != Some(&"source") {
                continue;
            }
            let label = |name: &str| {
                labels
                    .get(name)
                    .map_or(String::new(), |value| (*value).to_owned())
            };
            let key = (label("source_workload"), label("destination_service_name"));
            match name {
                "istio_requests_total" => {
                    let count = value as u64;
                    let edge = self.0.entry(key).or_default();
                    edge.requests += count;
                    if labels
                        .get("response_code")
                        .is_some_and(|code| code.starts_with('5') || *code == "0")
                    {
                        edge.errors += count;
                    }
                    if labels.get("connection_security_policy") == Some(&"in_process") {
                        edge.same_node += count;
                    }
                }
                "istio_request_duration_milliseconds_bucket" => {
                    let Some(bound) = labels.get("le").and_then(|bound| match *bound {
                        "+Inf" => Some(u64::MAX),
                        bound => bound.parse::<f64>().ok().map(|bound| (bound * 1e3) as u64),
                    }) else {
                        continue;
                    };
                    *self
                        .0
                        .entry(key)
                        .or_default()
                        .buckets
                        .entry(bound)
                        .or_default() += value as u64;
                }
                _ => {}
            }
        }
    }

    fn table(&self) -> String {
        let header = [
            "from",
            "to",
            "calls",
            "errors",
            "same node",
            "p50 ms",
            "p99 ms",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for ((from, to), edge) in &self.0 {
            rows.push(vec![
                from.clone(),
                to.clone(),
                edge.requests.to_string(),
                edge.errors.to_string(),
                format!(
                    "{:.0} %",
                    100.0 * edge.same_node as f64 / edge.requests.max(1) as f64
                ),
                edge.quantile(0.5),
                edge.quantile(0.99),
            ]);
        }
        table(
            "Between workloads, from the nodes' metrics",
            &rows,
            &[2, 3, 4, 5, 6],
        )
    }
}

impl Edge {
    /// The bucket in which the quantile lies, by interpolation as Prometheus does it.
    fn quantile(&self, quantile: f64) -> String {
        let Some(&total) = self.buckets.get(&u64::MAX).filter(|total| **total > 0) else {
            return "-".to_owned();
        };
        let rank = quantile * total as f64;
        let (mut below_bound, mut below) = (0_u64, 0_u64);
        for (&bound, &count) in &self.buckets {
            if count as f64 >= rank {
                if bound == u64::MAX {
                    return format!(">{:.2}", below_bound as f64 / 1e3);
                }
                let part = (rank - below as f64) / (count - below).max(1) as f64;
                return format!(
                    "{:.2}",
                    (below_bound as f64 + part * (bound - below_bound) as f64) / 1e3
                );
            }
            (below_bound, below) = (bound, count);
        }
        "-".to_owned()
    }
}

/// One line of Prometheus' text format. Label values here hold no quotes: they are names and codes.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    let labels = labels
        .split("\",")
        .filter_map(|pair| pair.trim_end_matches('"').split_once("=\""))
        .collect();
    Some((name, labels, value.trim().parse().ok()?))
}

/// Rows under a title, columns aligned; those in `right` to the right.
fn table(title: &str, rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = format!("{title}\n");
    for row in rows {
        let mut line = String::from(" ");
        for (i, cell) in row.iter().enumerate() {
            let width = widths[i];
            line += &if right.contains(&i) {
                format!(" {cell:>width$} ")
            } else {
                format!(" {cell:<width$} ")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_added_up_over_nodes() {
        let labels = |code: &str, policy: &str| {
            format!(
                "reporter=\"source\",source_workload=\"web\",destination_service_name=\"voting\",\
                 connection_security_policy=\"{policy}\",response_code=\"{code}\""
            )
        };
        let mut calls = Calls::default();
        for (code, policy, count) in [
            ("200", "in_process", 30),
            ("200", "mutual_tls", 60),
            ("500", "mutual_tls", 10),
        ] {
            let labels = labels(code, policy);
            calls.read(&format!(
                "# TYPE istio_requests_total counter\n\
                 istio_requests_total{{{labels}}} {count}\n\
                 istio_requests_total{{reporter=\"destination\",source_workload=\"web\"}} 5\n\
                 istio_request_duration_milliseconds_bucket{{{labels},le=\"1\"}} {}\n\
                 istio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} {count}\n",
                count / 2
            ));
        }
        assert_eq!(
            calls.table(),
            "Between workloads, from the nodes' metrics\n\
             \x20 from  to      calls  errors  same node  p50 ms  p99 ms\n\
             \x20 web   voting    100      10       30 %    1.00   >1.00\n"
        );
    }
}
