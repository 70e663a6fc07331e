//! `cargo xtask bench`: what weft costs on the reader's machine.
//!
//! * `gateway`: requests per second from the gateway to a component that answers one line, with a fresh instance for
//!   each request and with reused ones. Where `wasmtime` is on PATH, `wasmtime serve` with the same component runs in
//!   alternating rounds, so that a machine that slows down slows both.
//! * `calls`: what a call from one component to another through the mesh takes, on the same node and across nodes.
//!
//! The load generator shares the machine, as it does in the figures that this is compared with. A call is measured as the
//! difference of two medians over one connection: (the caller calls) - (the caller answers by itself). That is the
//! whole call, with the callee's own work in it, so what the mesh adds is less. Every case takes its best round: the
//! gateway's port is shared by all nodes, and in the best round the kernel chose the node of the pod.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::cluster::{self, Cluster};
use crate::guests;
use crate::progress::{self, Steps, Waiting};

#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// Fewer and shorter rounds: enough to see whether it works
    #[arg(long)]
    quick: bool,
    /// Print one JSON document on stdout instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    All,
    Gateway,
    Calls,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// How long and how often each case runs.
struct Effort {
    rounds: usize,
    /// Rounds of the calls: every one is a new connection, and half of them reach the wrong node.
    call_rounds: usize,
    seconds: &'static str,
    warmup: &'static str,
}

const FULL: Effort = Effort {
    rounds: 3,
    call_rounds: 10,
    seconds: "8",
    warmup: "2",
};
const QUICK: Effort = Effort {
    rounds: 1,
    call_rounds: 6,
    seconds: "2",
    warmup: "0.5",
};

/// One round of a call; each is a connection of its own.
const CALL: Effort = Effort {
    rounds: 1,
    call_rounds: 1,
    seconds: "1.5",
    warmup: "0.3",
};

/// Connections of the throughput cases: enough to keep two to eight cores busy.
const CONNECTIONS: &str = "32";
const NAMESPACE: &str = "bench";
/// What `wasmtime serve` needs to be comparable to weft's own settings: pooling, pages kept, dirty pages found by the
/// kernel; instances reused or not.
const WASMTIME_TUNED: [&str; 8] = [
    "-O",
    "pooling-allocator=y",
    "-O",
    "pooling-memory-keep-resident=1048576",
    "-O",
    "pooling-table-keep-resident=65536",
    "-O",
    "pooling-pagemap-scan=y",
];
const WASMTIME_REUSE: [&str; 2] = ["--max-instance-reuse-count", "1000000"];
/// How long `wasmtime serve` may take to listen: it compiles first.
const WASMTIME_PATIENCE: Duration = Duration::from_secs(30);

pub fn run(args: &Args) -> Result<()> {
    let effort = if args.quick { QUICK } else { FULL };
    let (gateway, calls) = (args.what != What::Calls, args.what != What::Gateway);
    let mut steps = Steps::new(2 + usize::from(gateway) + usize::from(calls));
    steps.step("build the sample components", || guests::build(None))?;
    steps.step("build weft", cluster::build)?;
    let mut results = Map::new();
    if gateway {
        results.insert(
            "gateway".to_owned(),
            steps.step("gateway to component", || measure_gateway(&effort))?,
        );
    }
    if calls {
        results.insert(
            "calls".to_owned(),
            steps.step("calls through the mesh", || measure_calls(&effort))?,
        );
    }
    let document = json!({
        "machine": machine(),
        "quick": args.quick,
        "rounds": effort.rounds,
        "seconds": effort.seconds.parse::<f64>().unwrap_or(0.0),
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

/// One way to serve a component: a name for the report, and how to reach it.
struct Case {
    name: &'static str,
    server: Server,
}

enum Server {
    /// A Service of the cluster, by its name.
    Weft(&'static str),
    /// `wasmtime serve` with these arguments.
    Wasmtime(Vec<&'static str>),
}

fn measure_gateway(effort: &Effort) -> Result<Value> {
    let cluster = start("bench-gateway", 1)?;
    cluster.apply(&[
        deployment("fresh", "hello", Some("per-request"), None),
        service("fresh"),
        deployment("reused", "hello", Some("pooled"), None),
        service("reused"),
        deployment("reused-p3", "hello-p3", Some("pooled"), None),
        service("reused-p3"),
    ])?;
    ready(&cluster, &["fresh", "reused", "reused-p3"])?;
    let mut cases = vec![
        Case {
            name: "weft, fresh instance a request",
            server: Server::Weft("fresh"),
        },
        Case {
            name: "weft, instances reused",
            server: Server::Weft("reused"),
        },
        Case {
            name: "weft, instances reused, WASI 0.3",
            server: Server::Weft("reused-p3"),
        },
    ];
    let has_wasmtime = progress::read(Command::new("wasmtime").arg("--version"));
    match &has_wasmtime {
        Ok(_) => {
            let tuned = WASMTIME_TUNED.to_vec();
            let reuse = [&WASMTIME_TUNED[..], &WASMTIME_REUSE[..]].concat();
            cases.push(Case {
                name: "wasmtime serve, defaults",
                server: Server::Wasmtime(Vec::new()),
            });
            cases.push(Case {
                name: "wasmtime serve, tuned",
                server: Server::Wasmtime(tuned),
            });
            cases.push(Case {
                name: "wasmtime serve, tuned, reused",
                server: Server::Wasmtime(reuse),
            });
        }
        Err(_) => eprintln!("      wasmtime is not on PATH: nothing to compare with"),
    }
    let mut best: Vec<Option<Value>> = vec![None; cases.len()];
    let mut waiting = Waiting::new();
    for round in 1..=effort.rounds {
        for (case, best) in cases.iter().zip(&mut best) {
            waiting.show(format!("round {round} of {}: {}", effort.rounds, case.name));
            let measured = match &case.server {
                Server::Weft(service) => {
                    let url = cluster.url(&format!("{service}.{NAMESPACE}.localhost"), "/");
                    load(&cluster, &url, effort, CONNECTIONS)?
                }
                Server::Wasmtime(arguments) => {
                    let serve = Wasmtime::start(arguments)?;
                    let url = format!("http://127.0.0.1:{}/", serve.port);
                    load(&cluster, &url, effort, CONNECTIONS)?
                }
            };
            let rate = |value: &Value| value["requests_per_second"].as_f64().unwrap_or(0.0);
            if best.as_ref().is_none_or(|old| rate(&measured) > rate(old)) {
                *best = Some(measured);
            }
        }
    }
    drop(waiting);
    cluster.stop()?;
    let results = cases.iter().zip(best).filter_map(|(case, best)| {
        let best = best?;
        Some(json!({
            "case": case.name,
            "requests_per_second": best["requests_per_second"],
            "p50_us": best["latency_us"]["p50"],
            "p99_us": best["latency_us"]["p99"],
            "errors": best["errors"],
        }))
    });
    Ok(Value::Array(results.collect()))
}

fn measure_calls(effort: &Effort) -> Result<Value> {
    let cluster = start("bench-calls", 2)?;
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
    let cases = [
        ("caller alone", "/hello"),
        ("same node", "/call?url=http://same/"),
        ("other node", "/call?url=http://cross/"),
    ];
    let mut medians = [f64::INFINITY; 3];
    let mut waiting = Waiting::new();
    for round in 1..=effort.call_rounds {
        for ((name, path), median) in cases.iter().zip(&mut medians) {
            waiting.show(format!("round {round} of {}: {name}", effort.call_rounds));
            let url = cluster.url(&format!("caller.{NAMESPACE}.localhost"), path);
            let measured = load(&cluster, &url, &CALL, "1")?;
            if measured["errors"] != 0 {
                bail!("{name}: {} {}", measured["statuses"], measured["failures"]);
            }
            let this = measured["latency_us"]["p50"].as_f64();
            *median = median.min(this.unwrap_or(f64::INFINITY));
        }
    }
    drop(waiting);
    cluster.stop()?;
    let [caller, same, other] = medians;
    Ok(json!({
        "median_us": {"caller_alone": caller, "same_node": same, "other_node": other},
        "same_node_call_us": same - caller,
        "other_node_call_us": other - caller,
    }))
}

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

fn load(cluster: &Cluster, url: &str, effort: &Effort, connections: &str) -> Result<Value> {
    let (seconds, warmup) = (effort.seconds, effort.warmup);
    let arguments = [
        "--connections",
        connections,
        "--seconds",
        seconds,
        "--warmup",
        warmup,
    ];
    cluster.load(url, &arguments)?.finish()
}

/// `wasmtime serve` while it is measured.
struct Wasmtime {
    process: Child,
    port: u16,
}

impl Wasmtime {
    fn start(arguments: &[&str]) -> Result<Self> {
        // Free now; nobody else on this machine is after it in the next milliseconds.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("wasmtime")
            // The component reads its environment, as Rust's standard library does at start.
            .args(["serve", "-S", "cli"])
            .args(arguments)
            .args(["--addr", &format!("127.0.0.1:{port}")])
            .arg(guests::path("hello"))
            // Captured stacks would cost it a third of its requests.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start wasmtime serve")?;
        let mut serve = Self { process, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > WASMTIME_PATIENCE
                || !matches!(serve.process.try_wait(), Ok(None))
            {
                bail!("wasmtime serve {} does not listen", arguments.join(" "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(serve)
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn render(document: &Value) -> String {
    let mut text = format!(
        "\n{} cores, {}\n",
        document["machine"]["cores"],
        self::text(&document["machine"]["cpu"])
    );
    if let Some(cases) = document
        .pointer("/results/gateway")
        .and_then(Value::as_array)
    {
        text += "\nGateway to component, requests a second\n";
        for case in cases {
            text += &format!(
                "  {:<34} {:>8.0}   p50 {:>6.0} us   p99 {:>6.0} us\n",
                self::text(&case["case"]),
                number(&case["requests_per_second"]),
                number(&case["p50_us"]),
                number(&case["p99_us"])
            );
        }
    }
    if let Some(calls) = document.pointer("/results/calls") {
        text += "\nOne component calls another: what the whole call takes, the callee's work included, median\n";
        for (name, key) in [
            ("same node", "same_node_call_us"),
            ("other node", "other_node_call_us"),
        ] {
            text += &format!("  {name:<34} {:>8.0} us\n", number(&calls[key]));
        }
    }
    text
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
