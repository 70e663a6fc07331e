//! What a call from one component to another through the mesh takes.
//!
//! The whole call is the difference of two medians over one connection: (the caller calls) - (the caller answers by
//! itself), each in its best round: the gateway's port is shared by both nodes, and in the best round the kernel chose the
//! caller's. It has the callee's work and the guests' own side of HTTP in it. What the mesh adds is measured by the mesh
//! itself, call by call (`weft_mesh_added_seconds`): from its getting the request to its giving the response's head,
//! without the time that the callee had it. Between nodes that is sockets, TLS, HTTP/2 and the waking of two processes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, load, number, ready, service, start};
use crate::cluster::Cluster;
use crate::progress::Waiting;

/// One round: long enough for a median, short enough to alternate.
const SECONDS: f64 = 1.5;
const WARMUP: f64 = 0.3;

const CASES: [(&str, &str); 3] = [
    ("caller alone", "/hello"),
    ("same node", "/call?url=http://same/"),
    ("other node", "/call?url=http://cross/"),
];

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start(effort, "bench-calls", 2)?;
    let (here, there) = match cluster.nodes.as_slice() {
        [here, there, ..] => (here.clone(), there.clone()),
        _ => bail!("the bench needs two nodes"),
    };
    cluster.apply(&[
        deployment("caller", "probe", Some("pooled"), Some(&here)),
        service("caller"),
        deployment("same", "hello", Some("pooled"), Some(&here)),
        service("same"),
        deployment("cross", "hello", Some("pooled"), Some(&there)),
        service("cross"),
    ])?;
    ready(&cluster, &["caller", "same", "cross"])?;
    let before = cluster.metrics(&here)?;
    let mut medians = [f64::INFINITY; 3];
    let mut waiting = Waiting::new();
    for round in 1..=effort.call_rounds {
        for ((name, path), best) in CASES.iter().zip(&mut medians) {
            waiting.show(format!("round {round} of {}: {name}", effort.call_rounds));
            let median = median_of_round(&cluster, path).with_context(|| (*name).to_owned())?;
            *best = best.min(median);
        }
    }
    drop(waiting);
    let after = cluster.metrics(&here)?;
    cluster.stop()?;
    let [alone, same, other] = medians;
    let report = |whole: f64, transport: &str| -> Result<Value> {
        let added =
            Histogram::read(&after, transport)?.since(&Histogram::read(&before, transport)?);
        Ok(json!({
            "whole_call_us": whole - alone,
            "calls": added.count,
            "added_us": {"p50": added.quantile(0.5), "p90": added.quantile(0.9), "p99": added.quantile(0.99), "mean": added.mean()},
        }))
    };
    Ok(json!({"same_node": report(same, "in-process")?, "other_node": report(other, "mtls")?}))
}

/// Over one new connection: the gateway's port is shared by both nodes, and the kernel chooses.
fn median_of_round(cluster: &Cluster, path: &str) -> Result<f64> {
    let url = cluster.url(&format!("caller.{NAMESPACE}.localhost"), path);
    let measured = load::send(&url, cluster.gateway_address(), 1, SECONDS, WARMUP)?;
    Ok(number(&measured["latency_us"]["p50"]))
}

/// What the mesh of one node added to its workloads' calls over one transport.
#[derive(Debug)]
struct Histogram {
    /// Calls up to a bound, by the bound in nanoseconds.
    buckets: BTreeMap<u64, f64>,
    sum_us: f64,
    count: f64,
}

impl Histogram {
    fn read(metrics: &str, transport: &str) -> Result<Self> {
        let labels = format!("{{from=\"workload\",transport=\"{transport}\"");
        let line = |kind: &str, more: &str| {
            let start = format!("weft_mesh_added_seconds_{kind}{labels}{more}");
            metrics
                .lines()
                .filter_map(move |line| line.strip_prefix(&start))
        };
        let value = |kind| {
            let text = line(kind, "} ")
                .next()
                .context("the node has no weft_mesh_added_seconds")?;
            anyhow::Ok(text.parse::<f64>()?)
        };
        let buckets = line("bucket", ",le=\"").filter_map(|rest| {
            let (bound, count) = rest.split_once("\"} ")?;
            let bound: f64 = bound.parse().ok().filter(|bound: &f64| bound.is_finite())?;
            Some(((bound * 1e9).round() as u64, count.parse().ok()?))
        });
        Ok(Self {
            buckets: buckets.collect(),
            sum_us: value("sum")? * 1e6,
            count: value("count")?,
        })
    }

    fn since(mut self, before: &Self) -> Self {
        for (bound, count) in &mut self.buckets {
            *count -= before.buckets.get(bound).unwrap_or(&0.0);
        }
        self.sum_us -= before.sum_us;
        self.count -= before.count;
        self
    }

    fn mean(&self) -> f64 {
        self.sum_us / self.count
    }

    /// In microseconds, as if a bucket's calls were spread evenly over it.
    fn quantile(&self, quantile: f64) -> f64 {
        let wanted = self.count * quantile;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, upto) in &self.buckets {
            let bound = *bound as f64 / 1e3;
            if *upto >= wanted && *upto > below {
                return low + (bound - low) * (wanted - below) / (upto - below);
            }
            (low, below) = (bound, *upto);
        }
        f64::NAN
    }
}

pub fn render(calls: &Value) -> String {
    let mut text = format!(
        "\nOne component calls another, microseconds\n  {:<38} {:>9} {:>8} {:>8} {:>10}\n",
        "", "added p50", "p90", "p99", "whole call"
    );
    for (name, key) in [("same node", "same_node"), ("other node", "other_node")] {
        let call = &calls[key];
        text += &format!(
            "  {name:<38} {:>9.1} {:>8.1} {:>8.1} {:>10.0}\n",
            number(&call["added_us"]["p50"]),
            number(&call["added_us"]["p90"]),
            number(&call["added_us"]["p99"]),
            number(&call["whole_call_us"]),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    fn metrics(counts: [u32; 3], sum: f64) -> String {
        let mut text = String::new();
        for (bound, count) in ["0.00001", "0.0001", "+Inf"].iter().zip(counts) {
            text += &format!(
                "weft_mesh_added_seconds_bucket{{from=\"workload\",transport=\"mtls\",le=\"{bound}\"}} {count}\n"
            );
        }
        text += "weft_mesh_added_seconds_sum{from=\"gateway\",transport=\"mtls\"} 9\n";
        text +=
            &format!("weft_mesh_added_seconds_sum{{from=\"workload\",transport=\"mtls\"}} {sum}\n");
        text + &format!(
            "weft_mesh_added_seconds_count{{from=\"workload\",transport=\"mtls\"}} {}\n",
            counts[2]
        )
    }

    #[test]
    fn quantiles_come_from_what_was_added_between_two_readings() {
        let before = Histogram::read(&metrics([10, 10, 10], 1.0), "mtls").unwrap();
        let after = Histogram::read(&metrics([15, 20, 20], 1.0005), "mtls").unwrap();
        let between = after.since(&before);
        assert_eq!(between.count, 10.0);
        assert!((between.mean() - 50.0).abs() < 1e-6);
        assert_eq!(between.quantile(0.25), 5.0);
        assert_eq!(between.quantile(0.5), 10.0);
        assert_eq!(between.quantile(0.75), 55.0);
        assert!(Histogram::read("", "mtls").is_err());
    }
}
