//! `cargo xtask conformance opentelemetry`: Jaeger 1.76.0 as it is published receives the traces of five hops over two nodes, by both protocols.
//!
//! ```text
//! this ─ traceparent ─► gateway ─► one (node 1) ─► two (node 2) ─► three (1) ─► four (2) ─► five (1)
//!                          nodes ─ OTLP by HTTP, then by gRPC ─► Jaeger ─ its own API ─► this
//! ```
//! Asked of Jaeger is: each trace is one tree below the span that was given; its way down is the hops, a client's and a server's span each, on
//! the nodes that they are on; further tries are spans and events of the call that they are of, and so is a fault; a trace that is not to be
//! recorded is not there. What a component says in `baggage` arrives at the last.
//!
//! Where Jaeger cannot be had, this says so and tries nothing; with `CI` set that is a failure. Invariant: only processes started here are
//! ended, and none is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::guests;
use crate::process::Ended;
use crate::progress::{self, Steps, Waiting};
use crate::target;

const MODULE: &str = "github.com/jaegertracing/jaeger";
const VERSION: &str = "v1.76.0";
const NAMESPACE: &str = "hops";
const HOPS: [&str; 5] = ["one", "two", "three", "four", "five"];
/// How long a trace may take to be there: nodes send what they have once a second here.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(300);
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// Microseconds by which times of two processes may differ: each looks at two clocks, and something may come between.
const CLOCKS_APART: u64 = 5_000;
/// The span that this says it calls in.
const OWN_SPAN: &str = "00f067aa0ba902b7";

#[derive(clap::Args)]
pub struct Args {
    /// Jaeger's all-in-one program, instead of one built from its Go module
    #[arg(long, value_name = "FILE")]
    jaeger: Option<PathBuf>,
    /// A folder with components that are built already, instead of building them
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
    /// The weft to run, instead of one built here
    #[arg(long, value_name = "FILE")]
    weft: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a trace is not as it should be, and, with `CI` set, when Jaeger cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(5);
    let had = steps.step("fetch and build Jaeger", || match &args.jaeger {
        Some(file) => Ok(std::path::absolute(file)?),
        None => build(),
    });
    let jaeger = match had {
        Ok(jaeger) => jaeger,
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => {
            eprintln!("SKIPPED: Jaeger cannot be had, and nothing was tried: {error:#}");
            return Ok(());
        }
    };
    let weft = match &args.weft {
        Some(file) => std::path::absolute(file)?,
        None => {
            steps.step("build weft", cluster::build)?;
            cluster::program()
        }
    };
    let guests = match &args.guests {
        Some(dir) => std::path::absolute(dir)?,
        None => {
            steps.step("build the components", || guests::build_only(&["probe"]))?;
            let built = guests::path("probe");
            built.parent().map(Path::to_owned).unwrap_or_default()
        }
    };
    let dir = target().join(format!("conformance/jaeger-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let receiver = Jaeger::start(&jaeger, &dir)?;
    let mut told = Vec::new();
    for (protocol, port) in [("http/protobuf", receiver.http), ("grpc", receiver.grpc)] {
        told.push(steps.step(&format!("five hops by {protocol}"), || {
            let hops = Hops::start(&weft, &guests, protocol, port)?;
            let told = hops.asked(&receiver)?;
            hops.cluster.stop()?;
            Ok(format!("by {protocol}: {told}"))
        })?);
    }
    drop(receiver);
    // What a failed run leaves is there to be read.
    fs::remove_dir_all(&dir)?;
    println!("Jaeger {VERSION} {}", told.join("; "));
    Ok(())
}

/// Builds all of Jaeger in one program, of its module. It replaces a module of others, so that `go install` refuses it: it is built in a
/// copy of its folder.
fn build() -> Result<PathBuf> {
    let dir = target().join("jaeger");
    let program = dir.join("jaeger-all-in-one");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&dir)?;
    let go = || {
        let mut go = Command::new("go");
        progress::clean_environment(&mut go);
        go.env("CGO_ENABLED", "0");
        go
    };
    let module = format!("{MODULE}@{VERSION}");
    let told = progress::read(go().args(["mod", "download", "-json", &module]))?;
    let told: Value = serde_json::from_str(&told).context("reading what go tells")?;
    let module = told["Dir"].as_str().context("go tells no folder")?;
    let copy = dir.join("source");
    let copied = progress::read(
        Command::new("cp")
            .args(["-r", "--no-preserve=mode", module])
            .arg(&copy),
    );
    copied.context("copying Jaeger's source")?;
    progress::read(
        go().current_dir(&copy)
            .args(["build", "-o"])
            .arg(&program)
            .arg("./cmd/all-in-one"),
    )?;
    fs::remove_dir_all(&copy)?;
    Ok(program)
}

// === The receiver ===

/// A Jaeger that keeps traces in memory.
struct Jaeger {
    http: u16,
    grpc: u16,
    query: String,
    _process: Ended,
}

impl Jaeger {
    fn start(program: &Path, dir: &Path) -> Result<Self> {
        let ports: Vec<u16> = (0..7).map(|_| free_port()).collect::<Result<_>>()?;
        let [http, grpc, query, ..] = ports[..] else {
            bail!("seven ports were asked for");
        };
        let mut command = Command::new(program);
        command.env("SPAN_STORAGE_TYPE", "memory");
        for (flag, port) in [
            "--collector.otlp.http.host-port",
            "--collector.otlp.grpc.host-port",
            "--query.http-server.host-port",
            "--query.grpc-server.host-port",
            "--admin.http.host-port",
            "--collector.grpc-server.host-port",
            "--collector.http-server.host-port",
        ]
        .iter()
        .zip(&ports)
        {
            command.arg(format!("{flag}=127.0.0.1:{port}"));
        }
        command.arg("--collector.otlp.enabled=true");
        let log = dir.join("jaeger.log");
        let process = Ended::start(&mut command, &log)?;
        let jaeger = Self {
            http,
            grpc,
            query: format!("127.0.0.1:{query}"),
            _process: process,
        };
        let started = Instant::now();
        while jaeger.ask("/api/services").is_err() {
            if started.elapsed() > PATIENCE {
                bail!("Jaeger does not answer; see {}", log.display());
            }
            std::thread::sleep(POLL);
        }
        Ok(jaeger)
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let (status, body) = get(&self.query, "localhost", path, &[])?;
        ensure!(status == 200, "{status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// A trace, once it has so many spans.
    fn trace(&self, id: &str, spans: usize) -> Result<Trace> {
        let started = Instant::now();
        let mut waiting = Waiting::new();
        loop {
            let found = self.ask(&format!("/api/traces/{id}"));
            let found = found.and_then(|answer| Trace::read(&answer["data"][0]));
            let why = match found {
                Ok(trace) if trace.spans.len() >= spans => return Ok(trace),
                Ok(trace) => format!("{} spans of {spans}:\n{}", trace.spans.len(), trace.shown()),
                Err(error) => format!("{error:#}"),
            };
            if started.elapsed() > PATIENCE {
                drop(waiting);
                bail!("trace {id} is not whole: {why}");
            }
            waiting.show(format!("trace {id}"));
            std::thread::sleep(POLL);
        }
    }
}

/// What Jaeger has of a trace.
#[derive(Debug)]
struct Trace {
    spans: BTreeMap<String, Span>,
}

#[derive(Debug)]
struct Span {
    parent: String,
    name: String,
    service: String,
    node: String,
    kind: String,
    tags: BTreeMap<String, String>,
    /// Names of events and their fields.
    events: Vec<(String, BTreeMap<String, String>)>,
    began: u64,
    ended: u64,
}

/// `[{"key": …, "value": …}]` as a map of texts.
fn pairs(list: &Value) -> BTreeMap<String, String> {
    let pairs = list.as_array().into_iter().flatten();
    pairs
        .map(|pair| {
            let value = match &pair["value"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (pair["key"].as_str().unwrap_or_default().to_owned(), value)
        })
        .collect()
}

impl Trace {
    fn read(data: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spans = data["spans"].as_array().context("no such trace")?;
        let spans = spans.iter().map(|span| {
            let process = &data["processes"][text(&span["processID"])];
            let mut tags = pairs(&span["tags"]);
            let began = span["startTime"].as_u64().unwrap_or_default();
            let events = span["logs"].as_array().into_iter().flatten();
            let events = events.map(|log| {
                let mut fields = pairs(&log["fields"]);
                (fields.remove("event").unwrap_or_default(), fields)
            });
            let of = Span {
                parent: text(&span["references"][0]["spanID"]),
                name: text(&span["operationName"]),
                service: text(&process["serviceName"]),
                node: pairs(&process["tags"])
                    .remove("k8s.node.name")
                    .unwrap_or_default(),
                kind: tags.remove("span.kind").unwrap_or_default(),
                tags,
                events: events.collect(),
                began,
                ended: began + span["duration"].as_u64().unwrap_or_default(),
            };
            (text(&span["spanID"]), of)
        });
        Ok(Self {
            spans: spans.collect(),
        })
    }

    fn shown(&self) -> String {
        let spans = self.spans.iter();
        spans
            .map(|(id, span)| {
                format!(
                    "{id} below {} {} {} on {}: {}\n",
                    span.parent, span.service, span.kind, span.node, span.name
                )
            })
            .collect()
    }

    /// Every span is below another one, or below the one that this called in; and within the time of the one above.
    fn check_tree(&self) -> Result<()> {
        let mut roots = 0;
        for span in self.spans.values() {
            if span.parent == OWN_SPAN {
                roots += 1;
                continue;
            }
            let above = self.spans.get(&span.parent);
            let above = above.with_context(|| {
                format!(
                    "{} is below a span that nobody sent:\n{}",
                    span.name,
                    self.shown()
                )
            })?;
            ensure!(
                span.began + CLOCKS_APART >= above.began
                    && span.ended <= above.ended + CLOCKS_APART,
                "{} is not within {}: {span:?} {above:?}",
                span.name,
                above.name
            );
        }
        ensure!(roots == 1, "{roots} spans are the first:\n{}", self.shown());
        Ok(())
    }

    /// Of the servers of `service`, each with what is above it, from the root down.
    fn ways(&self, service: &str) -> Vec<Vec<&Span>> {
        let servers = self
            .spans
            .values()
            .filter(|span| span.kind == "server" && span.service == service);
        servers
            .map(|span| {
                let mut way = vec![span];
                while let Some(above) = way.last().and_then(|span| self.spans.get(&span.parent)) {
                    way.push(above);
                }
                way.reverse();
                way
            })
            .collect()
    }
}

// === The cluster ===

/// Five components on two nodes.
struct Hops {
    cluster: Cluster,
    /// The first digits of its traces, so that those of two runs are apart.
    run: &'static str,
}

/// Addresses of the calls of five hops, the last of which asks `last` of a Service.
fn nested(last: &str) -> String {
    let mut url = last.to_owned();
    for hop in HOPS[..HOPS.len() - 1].iter().rev() {
        url = format!("http://{hop}/call?url={}", escaped(&url));
    }
    url.trim_start_matches("http://one").to_owned()
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl Hops {
    fn start(weft: &Path, guests: &Path, protocol: &'static str, port: u16) -> Result<Self> {
        let say = |name, value: &str| (name, value.to_owned());
        let environment = [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{port}"),
            ),
            say("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            say("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            // Jaeger takes traces alone.
            say("OTEL_METRICS_EXPORTER", "none"),
            say("OTEL_BSP_SCHEDULE_DELAY", "500"),
        ];
        let name = "opentelemetry";
        let cluster = Cluster::start_saying(weft, name, 2, (0, 0), &[], &environment)?;
        cluster.push(&guests.join("probe.wasm"), "hops/probe:1")?;
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            // Pods of `five` by another name, to which nothing gets through.
            service("spoiled", "five"),
            json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "FaultInjection",
                "metadata": {"name": "spoiled", "namespace": NAMESPACE},
                "spec": {
                    "targetRefs": [{"kind": "Service", "name": "spoiled"}], "duration": "1h",
                    "delay": {"duration": "5ms", "percent": 100}, "abort": {"httpStatus": 418, "percent": 100},
                },
            }),
            json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "MeshPolicy",
                "metadata": {"name": "five", "namespace": NAMESPACE},
                "spec": {
                    "targetRefs": [{"kind": "Service", "name": "five"}],
                    "retry": {"attempts": 2, "statusCodes": [503]},
                },
            }),
        ];
        let nodes = cluster.nodes.iter().cycle();
        for (hop, node) in HOPS.iter().zip(nodes) {
            objects.extend([deployment(hop, node), service(hop, hop)]);
        }
        cluster.apply(&objects)?;
        cluster.wait_for_rollout(NAMESPACE)?;
        let hops = Self {
            cluster,
            run: if protocol == "grpc" { "2" } else { "1" },
        };
        hops.cluster
            .wait_for_answer(&format!("one.{NAMESPACE}.localhost"), "/hello")?;
        // All of them know all of them.
        let started = Instant::now();
        loop {
            let (_, body) = hops.call("0", "00", "http://five/hello")?;
            if body.ends_with("hello\n") {
                return Ok(hops);
            }
            ensure!(started.elapsed() < PATIENCE, "five is not reached: {body}");
            std::thread::sleep(POLL);
        }
    }

    fn id(&self, number: &str) -> String {
        format!("{}{number}f92f3577b34da6a3ce929d0e0e4736", self.run)
    }

    /// Five hops in a trace with these flags.
    fn call(&self, number: &str, flags: &str, last: &str) -> Result<(u16, String)> {
        let lines = [
            format!("traceparent: 00-{}-{OWN_SPAN}-{flags}", self.id(number)),
            "tracestate: vendor=1".to_owned(),
            "baggage: user=jo,region=eu%2Dwest".to_owned(),
        ];
        let host = format!("one.{NAMESPACE}.localhost");
        get(self.cluster.gateway_address(), &host, &nested(last), &lines)
    }

    /// Calls, and asks the receiver for them.
    fn asked(&self, receiver: &Jaeger) -> Result<String> {
        // Not recorded, and first: when the others are there, it would be, too.
        self.call("9", "00", "http://five/hello")?;
        let (status, body) = self.call("1", "01", "http://five/headers")?;
        ensure!(
            status == 200 && body.contains("baggage: user=jo,region=eu%2Dwest"),
            "baggage does not arrive: {body}"
        );
        self.call("2", "01", "http://five/status?code=503")?;
        let (_, body) = self.call("3", "01", "http://spoiled/hello")?;
        ensure!(body.contains("fault filter abort"), "no fault: {body}");

        let plain = receiver.trace(&self.id("1"), 2 * HOPS.len())?;
        self.check_plain(&plain)?;
        // Two further tries, each with its own span at either end.
        let retried = receiver.trace(&self.id("2"), 2 * HOPS.len() + 4)?;
        check_retries(&retried)?;
        let spoiled = receiver.trace(&self.id("3"), 2 * HOPS.len() - 1)?;
        check_fault(&spoiled)?;
        ensure!(
            receiver.trace_count(&self.id("9"))? == 0,
            "a trace is there that was not to be recorded"
        );
        Ok(format!(
            "{} spans of five hops, {} with two further tries, {} with a fault",
            plain.spans.len(),
            retried.spans.len(),
            spoiled.spans.len()
        ))
    }

    fn check_plain(&self, trace: &Trace) -> Result<()> {
        trace.check_tree()?;
        let ways = trace.ways("five");
        let [way] = &ways[..] else {
            bail!("five served {} calls:\n{}", ways.len(), trace.shown());
        };
        ensure!(trace.spans.len() == way.len(), "more:\n{}", trace.shown());
        let shown: Vec<String> = way
            .iter()
            .map(|span| format!("{} {}", span.service, span.kind))
            .collect();
        let gateway = way.first().map_or("", |span| &span.service);
        let mut expected = vec![format!("{gateway} client")];
        for hop in HOPS {
            expected.extend([format!("{hop} server"), format!("{hop} client")]);
        }
        expected.pop();
        ensure!(shown == expected, "the way is {shown:?}");
        let nodes: BTreeSet<&str> = way.iter().map(|span| &*span.node).collect();
        ensure!(nodes.len() == 2, "all on {nodes:?}");
        for (hop, node) in HOPS.iter().zip(self.cluster.nodes.iter().cycle()) {
            for span in way.iter().filter(|span| span.service == *hop) {
                ensure!(span.node == *node, "{hop} is on {}", span.node);
            }
        }
        // Beyond the gateway's, which may be where `one` is.
        for span in &way[2..] {
            let security = span.tags.get("weft.connection_security_policy");
            ensure!(
                security.is_some_and(|security| security == "mutual_tls"),
                "{} by {security:?}",
                span.name
            );
        }
        Ok(())
    }
}

impl Jaeger {
    fn trace_count(&self, id: &str) -> Result<usize> {
        let (status, body) = get(&self.query, "localhost", &format!("/api/traces/{id}"), &[])?;
        if status == 404 {
            return Ok(0);
        }
        let answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"].as_array().map_or(0, Vec::len))
    }
}

fn check_retries(trace: &Trace) -> Result<()> {
    trace.check_tree()?;
    let ways = trace.ways("five");
    ensure!(ways.len() == 3, "five served:\n{}", trace.shown());
    let above: BTreeSet<&str> = ways
        .iter()
        .filter_map(|way| way.last().map(|span| &*span.parent))
        .collect();
    ensure!(above.len() == 3, "tries are one:\n{}", trace.shown());
    let calls = trace.spans.values();
    let called = calls.filter(|span| span.service == "four" && !span.events.is_empty());
    let called: Vec<&Span> = called.collect();
    let [called] = &called[..] else {
        bail!("events are of {} spans", called.len());
    };
    let told: Vec<_> = called
        .events
        .iter()
        .map(|(name, fields)| (name.as_str(), fields.get("weft.retry.reason")))
        .collect();
    let one = ("retry", Some(&"answered".to_owned()));
    ensure!(told == [one, one], "events: {told:?}");
    let again = trace
        .spans
        .values()
        .filter(|span| span.name.ends_with(" again") && span.service == "four");
    ensure!(again.count() == 2, "tries:\n{}", trace.shown());
    Ok(())
}

fn check_fault(trace: &Trace) -> Result<()> {
    trace.check_tree()?;
    ensure!(trace.ways("five").is_empty(), "five was called");
    let events = trace.spans.values().flat_map(|span| &span.events);
    let events: Vec<_> = events.collect();
    let [(name, fields)] = &events[..] else {
        bail!("events: {events:?}");
    };
    let number = |name: &str| fields.get(name).map(String::as_str);
    ensure!(
        name == "fault"
            && number("weft.fault.delay_ms") == Some("5")
            && number("weft.fault.abort_status") == Some("418"),
        "{name}: {fields:?}"
    );
    Ok(())
}

fn deployment(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "containers": [{"name": name, "image": "hops/probe:1", "ports": [{"containerPort": 80}]}],
                },
            },
        },
    })
}

fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]},
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// One GET with further lines: status and body.
fn get(address: &str, host: &str, path: &str, lines: &[String]) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{escaped, nested};

    #[test]
    fn five_hops_are_one_address_within_another() {
        assert_eq!(escaped("http://a/?b=%2F"), "http%3A%2F%2Fa%2F%3Fb%3D%252F");
        let url = nested("http://five/hello");
        assert!(url.starts_with("/call?url=http%3A%2F%2Ftwo%2Fcall%3Furl%3D"));
        assert!(url.ends_with("hello") && url.matches("call").count() == 4);
    }
}
