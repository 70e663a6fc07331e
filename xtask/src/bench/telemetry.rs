//! What it costs that calls are told of: traces of all of them, records of all of them, an access log, a tap, and a scrape of a thousand edges.
//!
//! Each case is a cluster of its own that serves the same component, all of them at the same time, and each is called in every round: what is
//! told is how each fares beside the one that tells nobody anything. The receiver is a thread here that reads and says yes. Its time and the
//! reader's of the tap are the machine's, too: on few cores throughput pays for them, CPU time of the nodes does not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::load::{Case, Server, Target};
use super::{Effort, NAMESPACE, deployment, load, median, number, ready, service, start_saying};
use crate::cluster::Cluster;

/// Services that are called for a scrape: two edges each, one an end.
const SERVICES: usize = 500;
const SCRAPES: usize = 5;
const NOTHING: &str = "nothing is told";
/// What is promised: of the throughput of a node that tells nothing, so much is left.
const PROMISED: [(&str, f64); 2] = [("traces of all calls", 0.97), ("a tap of all calls", 0.98)];
/// And a scrape of the edges takes no longer, in milliseconds.
const SCRAPE_MS_MAX: f64 = 50.0;

pub fn measure(effort: &Effort) -> Result<Value> {
    let sink = Sink::start()?;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url.clone());
    let named = |name: &'static str, value: &str| (name, value.to_owned());
    let clusters = [
        ("nothing", vec![]),
        ("traces", vec![endpoint.clone()]),
        (
            "records",
            vec![endpoint.clone(), named("OTEL_LOGS_EXPORTER", "otlp")],
        ),
        ("log", vec![named("WEFT_ACCESS_LOG", "json")]),
    ];
    let clusters = clusters
        .into_iter()
        .map(|(name, environment)| deployed(effort, name, &environment))
        .collect::<Result<Vec<_>>>()?;
    let [nothing, traces, records, log] = &clusters[..] else {
        anyhow::bail!("four clusters were started");
    };
    let cases = [
        case(NOTHING, nothing, false),
        case("traces of all calls", traces, false),
        case("and a record of each", records, false),
        case("access log", log, false),
        case("a tap of all calls", nothing, true),
    ];
    let measured = load::measure(&cases, effort)?;
    drop(cases);
    let told = |cluster: &Cluster| -> Result<Value> {
        let metrics = metrics(cluster)?;
        let count = |what: &str, signal: &str| {
            let line = format!("weft_telemetry_{what}_total{{signal=\"{signal}\"}} ");
            let mut lines = metrics.lines();
            lines.find_map(|known| known.strip_prefix(&line)?.parse::<f64>().ok())
        };
        Ok(json!({
            "spans_exported": count("exported", "traces"), "spans_dropped": count("dropped", "traces"),
            "records_exported": count("exported", "logs"), "records_dropped": count("dropped", "logs"),
        }))
    };
    let result = json!({
        "rounds": measured,
        "traces": told(traces)?,
        "records": told(records)?,
        "received_bytes": sink.bytes.load(Ordering::Relaxed),
        "scrape": scrape(nothing)?,
    });
    for cluster in clusters {
        cluster.stop()?;
    }
    Ok(result)
}

fn deployed(effort: &Effort, name: &str, environment: &[(&str, String)]) -> Result<Cluster> {
    let name = format!("bench-telemetry-{name}");
    let cluster = start_saying(effort, &name, 1, environment)?;
    cluster.apply(&[
        deployment("reused", "hello", Some("pooled"), None),
        service("reused"),
    ])?;
    ready(&cluster, &["reused"])?;
    Ok(cluster)
}

fn case<'c>(name: &'static str, cluster: &'c Cluster, is_tapped: bool) -> Case<'c> {
    Case {
        name,
        peers: if name == NOTHING {
            vec![]
        } else {
            vec![NOTHING]
        },
        serve: Box::new(move || {
            let host = format!("reused.{NAMESPACE}.localhost");
            let tap = || -> Result<Server> {
                let mut tap = cluster.weft(["mesh", "tap", "-n", NAMESPACE, "-o", "json"]);
                let tap = tap.stdin(Stdio::null()).stdout(Stdio::null());
                Ok(Server::new(tap.spawn().context("starting a tap")?))
            };
            Ok(Target {
                url: cluster.url(&host, "/"),
                connect: cluster.gateway_address().to_owned(),
                host: Some(host),
                process: cluster.process(),
                server: is_tapped.then(tap).transpose()?,
            })
        }),
    }
}

fn metrics(cluster: &Cluster) -> Result<String> {
    cluster.metrics(cluster.nodes.first().context("a node")?)
}

/// How long a scrape takes with few edges and with a thousand more.
fn scrape(cluster: &Cluster) -> Result<Value> {
    let few = scraped(cluster)?;
    let services: Vec<Value> = (0..SERVICES)
        .map(|number| {
            let mut one = service(&format!("s{number}"));
            one["spec"]["selector"] = json!({"app": "reused"});
            one
        })
        .collect();
    cluster.apply(&services)?;
    for number in 0..SERVICES {
        let host = format!("s{number}.{NAMESPACE}.localhost");
        cluster.wait_for_answer(&host, "/")?;
    }
    let many = scraped(cluster)?;
    Ok(json!({
        "series": many.1, "bytes": many.2, "more_ms": many.0 - few.0, "ms": many.0,
        "few_series": few.1, "few_ms": few.0,
    }))
}

/// Milliseconds of a scrape through the API, with the program that asks; how many series there are, and bytes.
fn scraped(cluster: &Cluster) -> Result<(f64, usize, usize)> {
    let mut times = Vec::new();
    let mut text = String::new();
    for _ in 0..SCRAPES {
        let began = Instant::now();
        text = metrics(cluster)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let series = text.matches("\nistio_requests_total{").count();
    Ok((median(times), series, text.len()))
}

pub fn render(results: &Value) -> String {
    let mut text = format!(
        "\nCalls that are told of\n{}",
        load::render(&results["rounds"])
    );
    let rounds = results["rounds"].as_array().map_or(&[][..], Vec::as_slice);
    for (name, least) in PROMISED {
        let of_case = rounds.iter().find(|round| round["case"] == name);
        let Some(compared) = of_case.map(|round| &round["compared"][0]) else {
            continue;
        };
        text += &format!(
            "  {name}: {:.3}x the throughput (promised {least}x), {:.3}x the node's CPU time a call\n",
            number(&compared["ratio_requests_per_second"]),
            number(&compared["ratio_cpu"]),
        );
    }
    for (name, key) in [("spans", "traces"), ("records", "records")] {
        let count = |what: &str| number(&results[key][format!("{name}_{what}")]);
        text += &format!(
            "  {:.0} {name} sent, {:.0} dropped\n",
            count("exported"),
            count("dropped")
        );
    }
    let scrape = &results["scrape"];
    text + &format!(
        "  a scrape of {} series, {:.1} MB: {:.1} ms, of {} series {:.1} ms; the edges take {:.1} ms (promised {SCRAPE_MS_MAX})\n",
        scrape["series"],
        number(&scrape["bytes"]) / 1e6,
        number(&scrape["ms"]),
        scrape["few_series"],
        number(&scrape["few_ms"]),
        number(&scrape["more_ms"]),
    )
}

/// A receiver that takes everything.
struct Sink {
    url: String,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    /// Its threads end with this process.
    fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // A sender that goes away is no news.
                std::thread::spawn(move || take_all(stream, &counted).ok());
            }
        });
        Ok(Self { url, bytes })
    }
}

/// Answers each message that comes over a connection.
fn take_all(stream: TcpStream, counted: &AtomicU64) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(told) = line.strip_prefix("content-length:") {
                length = told.trim().parse::<u64>()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let taken = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        counted.fetch_add(taken, Ordering::Relaxed);
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
