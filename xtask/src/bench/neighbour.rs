//! What a tenant that takes all it can get costs another one on the same node.
//!
//! The neighbour answers one line over a few connections, by turns alone and beside a tenant of another namespace that is greedy in one way:
//! CPU, instances, memory, logs, outgoing calls, connections, pulls ([`Greed`]). A call of the neighbour's that fails ends the bench. The ratio is the
//! median of the rounds' ratios; the load generator needs a share of the cores too, so the throughput tells as much about it as about the
//! neighbour.

use std::net::TcpStream;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Effort, NAMESPACE, deployment, load, median, number, ready, service, start};
use crate::cluster::{self, Cluster, Load};
use crate::progress::Waiting;

const CONNECTIONS: u16 = 4;
/// The other tenant.
const GREEDY: &str = "greedy";
/// As many as the load generator may open where nobody raised the limit of files, more than a namespace is ever given instances.
const CALLS: usize = 800;
/// Below what a process may open of itself.
const SILENT_CONNECTIONS: usize = 900;
/// More than there are places for pulls of one namespace.
const PULLS: usize = 24;

/// What the other tenant wants all of.
enum Greed {
    /// This path of its own component, over so many connections.
    Calls {
        path: &'static str,
        connections: usize,
    },
    /// Connections to the gateway on which nothing is said.
    Connections,
    /// Images of registries that never answer.
    Pulls,
}

fn greeds() -> [(&'static str, Greed); 7] {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let calls = |path, connections| Greed::Calls { path, connections };
    [
        ("endless loops", calls("/loop", cores + 2)),
        ("instances", calls("/delay?ms=2000", CALLS)),
        ("memory", calls("/eat?mb=200", 16)),
        ("logs and traps", calls("/panic", 16)),
        (
            "outgoing calls",
            calls("/call?url=http://burner/delay%3Fms=2000", CALLS / 2),
        ),
        ("silent connections", Greed::Connections),
        ("pulls", Greed::Pulls),
    ]
}

/// The greed at work, until it is dropped.
#[expect(dead_code, reason = "held for what dropping it does")]
enum Work {
    Load(Load),
    Connections(Vec<TcpStream>),
    Pulls,
}

impl Greed {
    fn begin(&self, cluster: &Cluster, seconds: f64) -> Result<Work> {
        match self {
            Self::Calls { path, connections } => {
                let url = cluster.url(&format!("burner.{GREEDY}.localhost"), path);
                let (connections, seconds) = (connections.to_string(), seconds.to_string());
                let arguments = [
                    "--connections",
                    &connections,
                    "--seconds",
                    &seconds,
                    "--warmup",
                    "0",
                ];
                Ok(Work::Load(cluster::send_load(
                    &super::generator(),
                    &url,
                    cluster.gateway_address(),
                    &arguments,
                )?))
            }
            Self::Connections => {
                let open = |_| TcpStream::connect(cluster.gateway_address());
                let opened: Result<_, _> = (0..SILENT_CONNECTIONS).map(open).collect();
                Ok(Work::Connections(
                    opened.context("connections that say nothing")?,
                ))
            }
            Self::Pulls => {
                // Addresses that are nobody's (RFC 5737): a connection to them neither opens nor fails.
                let pods: Vec<Value> = (0..PULLS)
                    .map(|number| {
                        let container =
                            json!({"name": "main", "image": format!("192.0.2.{number}/greedy:1")});
                        json!({
                            "apiVersion": "v1", "kind": "Pod",
                            "metadata": {"name": format!("pull-{number}"), "namespace": GREEDY},
                            "spec": {"containers": [container]},
                        })
                    })
                    .collect();
                cluster.apply(&pods)?;
                Ok(Work::Pulls)
            }
        }
    }
}

impl Work {
    fn end(self) {
        if let Self::Load(load) = self {
            // It gets refusals, as it should; that nobody answered at all is as good.
            drop(load.finish());
        }
    }
}

/// An object of the other tenant.
fn of_greedy(mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(GREEDY);
    object
}

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start(effort, "bench-neighbour", 1)?;
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GREEDY}}),
        deployment("neighbour", "hello", Some("per-request"), None),
        service("neighbour"),
        of_greedy(deployment("burner", "probe", Some("per-request"), None)),
        of_greedy(service("burner")),
    ])?;
    ready(&cluster, &["neighbour"])?;
    cluster.wait_for_rollout(GREEDY)?;
    cluster.wait_for_answer(&format!("burner.{GREEDY}.localhost"), "/hello")?;
    let mut waiting = Waiting::new();
    let mut results = Map::new();
    for (name, greed) in greeds() {
        let mut ratios = [const { Vec::new() }; 3];
        let mut last = [Value::Null, Value::Null];
        for round in 1..=effort.rounds {
            waiting.show(format!("{name}, round {round} of {}: alone", effort.rounds));
            let alone = neighbour(&cluster, effort)?;
            waiting.show(format!(
                "{name}, round {round} of {}: beside",
                effort.rounds
            ));
            // Longer than the neighbour is measured, so that it goes on from the first to the last request.
            let work = greed.begin(&cluster, effort.seconds + effort.warmup + 2.0)?;
            let beside = neighbour(&cluster, effort).with_context(|| format!("beside {name}"))?;
            work.end();
            for (ratios, pointer) in ratios.iter_mut().zip([
                "/latency_us/p50",
                "/latency_us/p99",
                "/requests_per_second",
            ]) {
                let of = |value: &Value| value.pointer(pointer).map_or(f64::NAN, number);
                ratios.push(of(&beside) / of(&alone));
            }
            last = [alone, beside];
        }
        let [p50, p99, rate] = ratios.map(median);
        results.insert(
            name.to_owned(),
            json!({
                "ratio_p50": p50, "ratio_p99": p99, "ratio_requests_per_second": rate,
                "alone": last[0]["latency_us"], "beside": last[1]["latency_us"],
            }),
        );
    }
    drop(waiting);
    cluster.stop()?;
    Ok(Value::Object(results))
}

fn neighbour(cluster: &Cluster, effort: &Effort) -> Result<Value> {
    let url = cluster.url(&format!("neighbour.{NAMESPACE}.localhost"), "/");
    let gateway = cluster.gateway_address();
    load::send(&url, gateway, CONNECTIONS, effort.seconds, effort.warmup).context("the neighbour")
}

pub fn render(results: &Value) -> String {
    let mut text = "\nBeside a tenant of another namespace that takes all it can get\n".to_owned();
    let greeds = results.as_object().into_iter().flatten();
    for (name, greed) in greeds.filter(|(_, greed)| greed.get("beside").is_some()) {
        text += &format!(
            "  {name:<20} p50 {:>6.0} us   p99 {:>6.0} us   ratios: p50 {:>5.2}   p99 {:>5.2}   requests {:.2}\n",
            number(&greed["beside"]["p50"]),
            number(&greed["beside"]["p99"]),
            number(&greed["ratio_p50"]),
            number(&greed["ratio_p99"]),
            number(&greed["ratio_requests_per_second"])
        );
    }
    text
}
