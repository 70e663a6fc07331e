//! `cargo xtask bench`: what weft costs on the reader's machine.
//!
//! * `gateway`: requests per second from the gateway to a component that answers one line, with a fresh instance for
//!   each request and with reused ones.
//! * `calls`: what a call from one component to another through the mesh takes, on the same node and across nodes, and how
//!   much of it the mesh adds.
//! * `mesh`: what the mesh alone costs with its policies, in memory and over mutual TLS, and what it makes of services that are down, slow or
//!   failing; not part of `all`.
//! * `runtime`: the same component served by the runtime alone, and what the parts of a call cost.
//! * `neighbour`: what a tenant that takes all it can get costs another one on its node.
//! * `store`: puts, watches and memory of the store, with one server and three, beside etcd where there is one; and how long
//!   servers with many objects take to serve again after `kill -9` and after a clean stop.
//! * `scheduler`: pods bound a second on thousands of nodes, beside kube-scheduler; the planner alone; and with `--nodes` one large run. Not
//!   part of `all`.
//! * `api`: the API server under load: lists, pages, thousands of watchers, leases beside clients that list everything.
//! * `access`: what a decision about a request costs, with thousands of bindings.
//! * `sweep`: the engine's settings, one changed at a time; not part of `all`.
//! * `density`: what thousands of idle pods cost one node; not part of `all`.
//! * `dashboard`: what open dashboards cost the server; not part of `all`.
//! * `sessions`: what ten thousand commands in a container leave behind; not part of `all`.
//! * `failures`: how long a lost node is noticed, and what rollouts and drains cost under load; not part of `all`.
//! * `wake`: what the first call to a Deployment without a replica waits for; not part of `all`.
//! * `tcp`: bytes and connections through a TCP listener of a Gateway, beside nginx' stream module; not part of `all`.
//! * `telemetry`: what traces of all calls, an access log and a tap cost, and a scrape of a thousand edges; not part of `all`.
//! * `port-forward`: how fast bytes pass a forwarded port, beside a proxy that copies and one with TLS; not part of `all`.
//!
//! `wasmtime serve` with the same component takes part in every round, so that a machine that slows down slows both; a ratio is the median
//! of the rounds' ratios. The load generator shares the machine, as it does in the figures that this is compared with. An answer other than
//! 200 ends the bench: a failing server is fast. All of weft's side is a release here, since its peers are. With `--against` another build of weft is measured in the same rounds.

mod access;
mod api;
mod calls;
mod dashboard;
mod density;
mod failures;
mod gateway;
mod load;
mod mesh;
mod neighbour;
mod nginx;
mod peers;
mod port_forward;
mod runtime;
mod scheduler;
mod sessions;
mod store;
mod tcp;
mod telemetry;
mod wake;
mod wasmtime;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::progress::Steps;
use crate::{Failure, guests};

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
    /// Connections of `gateway` and `runtime`, each with one request at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Send the load of `gateway` and `runtime` with wrk instead of with weft's own generator
    #[arg(long)]
    wrk: bool,
    /// Measure the weft of this folder instead of building one, such as what `cargo xtask release` leaves
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Measure another build of weft by turns with this one: the folder of its programs, such as ../before/target/release; guests in a
    /// folder `guests` there are used instead of today's
    #[arg(long, value_name = "FOLDER")]
    against: Option<PathBuf>,
    /// How many pods `density` starts [default: 10000, with --quick 1000], or `scheduler` places with --nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pods: Option<u32>,
    /// Of `scheduler`: one run on so many hollow nodes, with what each tenth of the pods took, instead of the cases
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=12_000))]
    nodes: Option<u32>,
    /// Of `scheduler`: this case only, as plain, spread, apart, preemption or planner; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Print one JSON document on stdout instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    All,
    Gateway,
    Calls,
    Mesh,
    Runtime,
    Neighbour,
    Store,
    Api,
    Access,
    Scheduler,
    Sweep,
    Dashboard,
    Density,
    Failures,
    Sessions,
    PortForward,
    Tcp,
    Telemetry,
    Wake,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// How long and how often each case runs, and what.
#[derive(Clone)]
struct Effort {
    /// Where the programs of weft are that are measured.
    programs: PathBuf,
    /// Whether they are all there already.
    is_built: bool,
    connections: u16,
    /// What sends, instead of weft's own generator.
    wrk: Option<peers::Program>,
    quick: bool,
    rounds: usize,
    seconds: f64,
    warmup: f64,
    /// Rounds of the calls, each over a new connection.
    call_rounds: usize,
    /// Idle pods, and calls to some of them.
    pods: u32,
    pod_calls: usize,
    /// Hollow nodes of one large run, and its pods.
    nodes: Option<u32>,
    asked_pods: Option<u32>,
    /// Cases that are asked for; empty: all.
    cases: Vec<String>,
    /// Objects of the servers that are started again.
    objects: u32,
    /// During rollouts, and as many during drains.
    requests: u32,
    /// Commands in a container, in a row.
    sessions: u32,
    /// Through a forwarded port, each time.
    forwarded_mib: u32,
}

const FULL: Effort = Effort {
    programs: PathBuf::new(),
    is_built: false,
    connections: 16,
    wrk: None,
    quick: false,
    rounds: 5,
    seconds: 5.0,
    warmup: 1.0,
    call_rounds: 10,
    pods: 10_000,
    pod_calls: 20_000,
    nodes: None,
    asked_pods: None,
    cases: Vec::new(),
    objects: 100_000,
    requests: 100_000,
    sessions: 10_000,
    forwarded_mib: 1024,
};
const QUICK: Effort = Effort {
    programs: PathBuf::new(),
    is_built: false,
    connections: 16,
    wrk: None,
    quick: true,
    rounds: 1,
    seconds: 2.0,
    warmup: 0.5,
    call_rounds: 3,
    pods: 1_000,
    pod_calls: 4_000,
    nodes: None,
    asked_pods: None,
    cases: Vec::new(),
    objects: 20_000,
    requests: 5_000,
    sessions: 1_000,
    forwarded_mib: 128,
};

const NAMESPACE: &str = "bench";
/// Of one node.
const IDLE_PODS_MAX: u32 = 20_000;

pub fn run(args: &Args) -> Result<()> {
    let mut effort = if args.quick { QUICK } else { FULL };
    if let Some(rounds) = args.rounds {
        effort.rounds = rounds.into();
    }
    effort.asked_pods = args.pods;
    if let Some(pods) = args.pods {
        effort.pods = pods;
    }
    if args.what == What::Density && effort.pods > IDLE_PODS_MAX {
        let text = format!("a node takes no {} pods", effort.pods);
        return Err(Failure::new(text, "ask for 20000 at most").into());
    }
    effort.programs = match &args.programs {
        Some(folder) => std::path::absolute(folder).context("finding the build to measure")?,
        None => crate::target().join("release"),
    };
    effort.is_built = args.programs.is_some();
    effort.nodes = args.nodes;
    effort.cases.clone_from(&args.cases);
    let _ = GENERATOR.set(effort.programs.join("weft"));
    effort.connections = args.connections;
    if args.wrk {
        effort.wrk = Some(peers::wrk().ok_or_else(|| {
            Failure::new(
                "wrk is not on PATH and could not be fetched".to_owned(),
                "install wrk, or leave --wrk out",
            )
        })?);
    }
    // Each with its name in the document and for the reader.
    type Measure = fn(&Effort) -> Result<Value>;
    let all: [(What, &str, &str, Measure); 18] = [
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
        (What::Mesh, "mesh", "the mesh alone", mesh::measure),
        (
            What::Runtime,
            "runtime",
            "the runtime alone",
            runtime::measure,
        ),
        (
            What::Neighbour,
            "neighbour",
            "beside a tenant that takes all it can get",
            neighbour::measure,
        ),
        (
            What::Store,
            "store",
            "the store beside etcd",
            store::measure,
        ),
        (What::Api, "api", "the API server under load", api::measure),
        (What::Access, "access", "who may do what", access::measure),
        (
            What::Scheduler,
            "scheduler",
            "pods placed on thousands of nodes",
            scheduler::measure,
        ),
        (
            What::Sweep,
            "sweep",
            "the engine's settings",
            runtime::sweep,
        ),
        (
            What::Dashboard,
            "dashboard",
            "open dashboards",
            dashboard::measure,
        ),
        (
            What::Density,
            "density",
            "thousands of idle pods",
            density::measure,
        ),
        (
            What::Failures,
            "failures",
            "nodes lost, rollouts and drains under load",
            failures::measure,
        ),
        (
            What::Sessions,
            "sessions",
            "commands in a container",
            sessions::measure,
        ),
        (
            What::PortForward,
            "port_forward",
            "bytes through a forwarded port",
            port_forward::measure,
        ),
        (What::Tcp, "tcp", "TCP through the gateway", tcp::measure),
        (
            What::Telemetry,
            "telemetry",
            "calls that are told of",
            telemetry::measure,
        ),
        (
            What::Wake,
            "wake",
            "the first call to a Deployment without a replica",
            wake::measure,
        ),
    ];
    let apart = [
        What::Mesh,
        What::Sweep,
        What::Dashboard,
        What::Density,
        What::Failures,
        What::Scheduler,
        What::Sessions,
        What::PortForward,
        What::Tcp,
        What::Telemetry,
        What::Wake,
    ];
    let in_all = |what| !apart.contains(&what);
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(what, ..)| *what == args.what || (args.what == What::All && in_all(*what)))
        .collect();
    let mut steps = Steps::new(2 + chosen.len());
    // What runs no component needs none.
    let guests = chosen.iter().any(|(what, ..)| {
        !matches!(
            what,
            What::Access | What::Api | What::Mesh | What::Scheduler | What::Store
        )
    });
    steps.step("build the sample components", || {
        if guests { guests::build(None) } else { Ok(()) }
    })?;
    let is_there = effort.is_built || !guests;
    steps.step("build weft", || if is_there { Ok(()) } else { build() })?;
    // Building it takes a quarter of an hour: only for those that serve beside it.
    let beside = chosen
        .iter()
        .any(|(what, ..)| matches!(what, What::Gateway | What::Runtime));
    if beside && wasmtime::found().is_none() {
        eprintln!(
            "      wasmtime is not on PATH and could not be built: nothing to compare with (cargo install wasmtime-cli)"
        );
    }
    let mut results = Map::new();
    for (_, key, title, measure) in chosen {
        let measured = steps.step(title, || match &args.against {
            Some(other) => by_turns(measure, &effort, other),
            None => measure(&effort),
        })?;
        results.insert(key.to_owned(), measured);
    }
    let document = json!({
        "machine": machine(),
        "wasmtime": beside.then(wasmtime::found).flatten().map(|(_, version)| version),
        "connections": effort.connections,
        "generator": if effort.wrk.is_some() { "wrk" } else { "weft load" },
        "against": &args.against,
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

/// Builds the program and the examples that measure as a release: the peers are releases, too. The first time takes a quarter of an hour on
/// two cores.
fn build() -> Result<()> {
    let examples = ["serve", "costs", "dashboard", "streams", "failures", "wake"]
        .map(|name| ["--example", name]);
    crate::progress::run(
        crate::progress::cargo(["build", "--release", "--workspace"])
            .args(["--bin", "weft"])
            .args(examples.concat()),
        "read the compiler's messages above",
    )
}

/// The program that sends load, whichever build it is sent to: a slow generator makes all servers look alike.
static GENERATOR: OnceLock<PathBuf> = OnceLock::new();

fn generator() -> PathBuf {
    let release = || crate::target().join("release").join("weft");
    GENERATOR.get_or_init(release).clone()
}

/// Has the build in `programs` serve calls in every way that is measured here, for what it learns of itself.
pub fn serve_everything(programs: &Path) -> Result<()> {
    let effort = Effort {
        programs: programs.to_owned(),
        is_built: true,
        ..QUICK
    };
    let _ = GENERATOR.set(effort.programs.join("weft"));
    gateway::serve(&effort)?;
    calls::measure(&effort)?;
    api::serve(&effort)?;
    // Guests that ask their host for little things, which nothing above does: what is never counted is laid aside as cold.
    runtime::costs(&effort).map(drop)
}

/// Measures this build and the one in `other` by turns, a round of each at a time. Of all their numbers the medians are told, and the
/// medians of the rounds' ratios, this one's to the other's.
fn by_turns(measure: fn(&Effort) -> Result<Value>, effort: &Effort, other: &Path) -> Result<Value> {
    let once = Effort {
        rounds: 1,
        call_rounds: effort.call_rounds.div_ceil(effort.rounds),
        ..effort.clone()
    };
    let before = Effort {
        programs: std::path::absolute(other).context("finding the other build")?,
        ..once.clone()
    };
    let mut rounds = Vec::new();
    for round in 0..effort.rounds {
        // Every other round the other way round: what comes second finds a warmer machine.
        let pair = if round % 2 == 0 {
            let now = measure(&once)?;
            [now, measure(&before)?]
        } else {
            let was = measure(&before)?;
            [measure(&once)?, was]
        };
        rounds.push(pair);
    }
    let pick = |which: fn(&[Value; 2]) -> Value| rounds.iter().map(which).collect::<Vec<_>>();
    let now = merged(&pick(|[now, _]| now.clone()));
    let was = merged(&pick(|[_, was]| was.clone()));
    let ratio = merged(&pick(|[now, was]| divided(now, was)));
    let mut document = now;
    let key = "against";
    let both = json!({"other": was, "ratio": ratio});
    match &mut document {
        Value::Object(fields) => {
            fields.insert(key.to_owned(), both);
            Ok(document)
        }
        _ => Ok(json!({"cases": document, key: both})),
    }
}

/// Of documents of one shape: the median of each number; all else as in the first.
fn merged(documents: &[Value]) -> Value {
    let all = |pick: &dyn Fn(&Value) -> Option<Value>| -> Vec<Value> {
        documents.iter().filter_map(pick).collect()
    };
    match documents.first() {
        Some(Value::Number(_)) => json!(median(documents.iter().map(number).collect())),
        Some(Value::Array(items)) => (0..items.len())
            .map(|at| merged(&all(&|document| document.get(at).cloned())))
            .collect(),
        Some(Value::Object(fields)) => {
            let of = |key: &String| merged(&all(&|document| document.get(key).cloned()));
            let merged = fields.keys().map(|key| (key.clone(), of(key)));
            Value::Object(merged.collect())
        }
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

/// Every number of `now` divided by the one at its place in `was`; names and texts as in `now`.
fn divided(now: &Value, was: &Value) -> Value {
    match now {
        Value::Number(_) => json!(number(now) / number(was)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| divided(item, &was[at]))
            .collect(),
        Value::Object(fields) => {
            let of = |(key, value): (&String, &Value)| (key.clone(), divided(value, &was[key]));
            Value::Object(fields.iter().map(of).collect())
        }
        other => other.clone(),
    }
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
    let sections: [(&str, Render); 18] = [
        ("gateway", |cases| {
            format!("\nGateway to component\n{}", load::render(cases))
        }),
        ("calls", calls::render),
        ("runtime", runtime::render),
        ("neighbour", neighbour::render),
        ("store", store::render),
        ("api", api::render),
        ("access", access::render),
        ("mesh", mesh::render),
        ("scheduler", scheduler::render),
        ("sweep", |cases| {
            format!("\nThe engine's settings\n{}", load::render(cases))
        }),
        ("density", density::render),
        ("failures", failures::render),
        ("dashboard", dashboard::render),
        ("sessions", sessions::render),
        ("port_forward", port_forward::render),
        ("tcp", tcp::render),
        ("telemetry", telemetry::render),
        ("wake", wake::render),
    ];
    for (key, render) in sections {
        let Some(results) = document["results"].get(key) else {
            continue;
        };
        // A list is in `cases` where another build was measured beside it.
        text += &render(results.get("cases").unwrap_or(results));
        if let Some(both) = results.get("against") {
            text += "\nIts numbers as parts of the other build's, medians of the rounds\n";
            text += &listed("", &both["ratio"]);
        }
    }
    text
}

/// Every number with the way to it, a line each.
fn listed(path: &str, value: &Value) -> String {
    let under = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path} {name}")
        }
    };
    match value {
        Value::Number(_) => format!("  {path:<70} {:>6.2}\n", number(value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let name = item["case"].as_str().map_or(at.to_string(), str::to_owned);
                listed(&under(&name), item)
            })
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != "compared")
            .map(|(key, value)| listed(&under(key), value))
            .collect(),
        _ => String::new(),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

// === What runs in the cluster ===

fn start(effort: &Effort, name: &str, nodes: u16) -> Result<Cluster> {
    start_with(effort, name, nodes, &[])
}

/// The same with further arguments of `weft up`.
fn start_with(effort: &Effort, name: &str, nodes: u16, arguments: &[&str]) -> Result<Cluster> {
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let program = effort.programs.join("weft");
    let cluster = Cluster::start_at(&program, name, nodes, (0, 0), &arguments)?;
    furnished(effort, cluster)
}

/// The same with further variables of its environment.
fn start_saying(
    effort: &Effort,
    name: &str,
    nodes: u16,
    environment: &[(&str, String)],
) -> Result<Cluster> {
    let program = effort.programs.join("weft");
    let cluster = Cluster::start_saying(&program, name, nodes, (0, 0), &[], environment)?;
    furnished(effort, cluster)
}

/// With the components of the benches and their namespace.
fn furnished(effort: &Effort, cluster: Cluster) -> Result<Cluster> {
    for guest in ["hello", "hello-p3", "probe"] {
        let image = format!("bench/{guest}:0.1");
        // A build of before may not have what today's guests import.
        let own = effort.programs.join(format!("guests/{guest}.wasm"));
        let component = if own.exists() {
            own
        } else {
            guests::path(guest)
        };
        cluster.push(&component, &image)?;
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
    use serde_json::json;

    use super::{divided, median, merged};

    #[test]
    fn two_builds_are_compared_number_by_number() {
        let rounds = [(2.0, 1.0), (9.0, 3.0), (4.0, 1.0)].map(|(now, was)| {
            let of = |rate: f64| json!({"cases": [{"case": "fresh", "rate": rate}]});
            divided(&of(now), &of(was))
        });
        let expected = json!({"cases": [{"case": "fresh", "rate": 3.0}]});
        assert_eq!(merged(&rounds), expected);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
