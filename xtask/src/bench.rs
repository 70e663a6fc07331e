//! `cargo xtask bench`: what weft costs on the reader's machine.
//!
//! * `gateway`: requests per second from the gateway to a component that answers one line, with a fresh instance for
//!   each request and with reused ones.
//! * `calls`: what a call from one component to another through the mesh takes, on the same node and across nodes, and how
//!   much of it the mesh adds.
//! * `runtime`: the same component served by the runtime alone, and what the parts of a call cost.
//! * `neighbour`: what a tenant that burns every core costs another one on its node.
//! * `store`: puts, watches and memory of the store, with one server and three, beside etcd where there is one; and how long
//!   servers with many objects take to serve again after `kill -9` and after a clean stop.
//! * `api`: the API server under load: lists, pages, thousands of watchers, leases beside clients that list everything.
//! * `sweep`: the engine's settings, one changed at a time; not part of `all`.
//! * `density`: what thousands of idle pods cost one node; not part of `all`.
//!
//! Where `wasmtime` is on PATH, `wasmtime serve` with the same component takes part in every round, so that a machine
//! that slows down slows both; a ratio is the median of the rounds' ratios. The load generator shares the machine, as it
//! does in the figures that this is compared with. An answer other than 200 ends the bench: a failing server is fast.

mod api;
mod calls;
mod density;
mod gateway;
mod load;
mod neighbour;
mod runtime;
mod store;
mod wasmtime;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::cluster::{self, Cluster};
use crate::guests;
use crate::progress::Steps;

#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// Fewer and shorter rounds: enough to see whether it works
    #[arg(long)]
    quick: bool,
    /// This many rounds, instead of five or (quick) one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// How many pods `density` starts [default: 10000, with --quick 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pods: Option<u32>,
    /// Print one JSON document on stdout instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    All,
    Gateway,
    Calls,
    Runtime,
    Neighbour,
    Store,
    Api,
    Sweep,
    Density,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// How long and how often each case runs.
struct Effort {
    quick: bool,
    rounds: usize,
    seconds: f64,
    warmup: f64,
    /// Rounds of the calls, each over a new connection.
    call_rounds: usize,
    /// Idle pods, and calls to some of them.
    pods: u32,
    pod_calls: usize,
    /// Objects of the servers that are started again.
    objects: u32,
}

const FULL: Effort = Effort {
    quick: false,
    rounds: 5,
    seconds: 5.0,
    warmup: 1.0,
    call_rounds: 10,
    pods: 10_000,
    pod_calls: 20_000,
    objects: 100_000,
};
const QUICK: Effort = Effort {
    quick: true,
    rounds: 1,
    seconds: 2.0,
    warmup: 0.5,
    call_rounds: 3,
    pods: 1_000,
    pod_calls: 4_000,
    objects: 20_000,
};

const NAMESPACE: &str = "bench";

pub fn run(args: &Args) -> Result<()> {
    let mut effort = if args.quick { QUICK } else { FULL };
    if let Some(rounds) = args.rounds {
        effort.rounds = rounds.into();
    }
    if let Some(pods) = args.pods {
        effort.pods = pods;
    }
    // Each with its name in the document and for the reader.
    type Measure = fn(&Effort) -> Result<Value>;
    let all: [(What, &str, &str, Measure); 8] = [
        (
            What::Gateway,
            "gateway",
            "gateway to component",
            gateway::measure,
        ),
        (
            What::Calls,
            "calls",
            "calls through the mesh",
            calls::measure,
        ),
        (
            What::Runtime,
            "runtime",
            "the runtime alone",
            runtime::measure,
        ),
        (
            What::Neighbour,
            "neighbour",
            "beside a tenant that burns every core",
            neighbour::measure,
        ),
        (
            What::Store,
            "store",
            "the store beside etcd",
            store::measure,
        ),
        (What::Api, "api", "the API server under load", api::measure),
        (
            What::Sweep,
            "sweep",
            "the engine's settings",
            runtime::sweep,
        ),
        (
            What::Density,
            "density",
            "thousands of idle pods",
            density::measure,
        ),
    ];
    let in_all = |what| !matches!(what, What::Sweep | What::Density);
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(what, ..)| *what == args.what || (args.what == What::All && in_all(*what)))
        .collect();
    let mut steps = Steps::new(2 + chosen.len());
    // What runs no component needs none.
    let guests = chosen
        .iter()
        .any(|(what, ..)| !matches!(what, What::Api | What::Store));
    steps.step("build the sample components", || {
        if guests { guests::build(None) } else { Ok(()) }
    })?;
    steps.step("build weft", || {
        if guests {
            cluster::build().and_then(|()| runtime::build())
        } else {
            Ok(())
        }
    })?;
    if guests && wasmtime::version().is_none() {
        eprintln!(
            "      wasmtime is not on PATH: nothing to compare with (cargo install wasmtime-cli)"
        );
    }
    let mut results = Map::new();
    for (_, key, title, measure) in chosen {
        results.insert(key.to_owned(), steps.step(title, || measure(&effort))?);
    }
    let document = json!({
        "machine": machine(),
        "wasmtime": wasmtime::version(),
        "quick": args.quick,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "results": results,
    });
    match args.output {
        Some(Output::Json) => println!("{document}"),
        None => print!("{}", render(&document)),
    }
    Ok(())
}

fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    json!({"cores": cores, "cpu": model.map_or("unknown", |(_, name)| name.trim()), "os": std::env::consts::OS})
}

/// The middle value; of an even number of values, the mean of the two in the middle. NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn render(document: &Value) -> String {
    let mut text = format!(
        "\n{} cores, {}\n",
        document["machine"]["cores"],
        document["machine"]["cpu"].as_str().unwrap_or("?")
    );
    type Render = fn(&Value) -> String;
    let sections: [(&str, Render); 8] = [
        ("gateway", |cases| {
            format!("\nGateway to component\n{}", load::render(cases))
        }),
        ("calls", calls::render),
        ("runtime", runtime::render),
        ("neighbour", neighbour::render),
        ("store", store::render),
        ("api", api::render),
        ("sweep", |cases| {
            format!("\nThe engine's settings\n{}", load::render(cases))
        }),
        ("density", density::render),
    ];
    for (key, render) in sections {
        if let Some(results) = document["results"].get(key) {
            text += &render(results);
        }
    }
    text
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

// === What runs in the cluster ===

fn start(name: &str, nodes: u16) -> Result<Cluster> {
    let cluster = Cluster::start(name, nodes, false)?;
    for guest in ["hello", "hello-p3", "probe"] {
        cluster.push(guest, &format!("bench/{guest}:0.1"))?;
    }
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
    ])?;
    Ok(cluster)
}

fn ready(cluster: &Cluster, services: &[&str]) -> Result<()> {
    cluster.wait_for_rollout(NAMESPACE)?;
    services.iter().try_for_each(|service| {
        cluster.wait_for_answer(&format!("{service}.{NAMESPACE}.localhost"), "/hello")
    })
}

fn deployment(name: &str, guest: &str, isolation: Option<&str>, node: Option<&str>) -> Value {
    let mut annotations = Map::new();
    if let Some(isolation) = isolation {
        annotations.insert("weft.dev/isolation".to_owned(), json!(isolation));
        if isolation == "pooled" {
            annotations.insert(
                "weft.dev/max-requests-per-instance".to_owned(),
                json!("1000000"),
            );
        }
    }
    let selector = node.map(|node| json!({"kubernetes.io/hostname": node}));
    let mut spec = json!({"containers": [{
        "name": name,
        "image": format!("bench/{guest}:0.1"),
        "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }]});
    if let Some(selector) = selector {
        spec["nodeSelector"] = selector;
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": spec},
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
