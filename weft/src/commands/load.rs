//! `weft load`: send HTTP requests over a fixed number of connections, each as soon as the last was answered.
//!
//! A closed loop: the rate is what the other side allows, and a stall shows as fewer requests, not as a longer queue.
//! Benches and the demo use it, so that their figures need no other tool. Every connection lives on a thread of its own
//! runtime, because a generator that wakes other threads for each answer would measure itself.
//!
//! Left to others: what is worth comparing (`xtask bench`), and open-loop load at a set rate.

mod connection;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Uri};
use serde_json::{Value, json};

use self::connection::{Connection, Reason};
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to send the requests, as http://HOST[:PORT]/PATH; names under .localhost are this machine
    #[arg(long)]
    url: Uri,
    /// Connect here instead of to the URL's host
    #[arg(long, value_name = "IP:PORT")]
    connect: Option<SocketAddr>,
    /// The method of every request
    #[arg(long, default_value = "GET")]
    method: Method,
    /// A header of every request, as NAME: VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How many connections, each with one request at a time
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// How long to measure
    #[arg(short, long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// How long to send before measuring
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    warmup: f64,
    /// Threads that send; one keeps the other cores for what is measured
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Print one JSON document instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// How long one request may take before it counts as failed: longer than any limit of the cluster's own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A refused connection is tried again after this; without it, a closed port would be a busy loop.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);
/// Longest run that is accepted: a day.
const SECONDS_MAX: f64 = 86_400.0;
/// Latencies are kept in nanoseconds up to twice the request timeout, with three digits.
const LATENCY_MAX: Duration = Duration::from_secs(60);
const LATENCY_DIGITS: u8 = 3;

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Ok(_) => Err(format!("not between 0 and {SECONDS_MAX}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends, measures, prints.
///
/// # Errors
/// When the URL cannot be used, or nothing at all was answered.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let plan = Plan::new(&args).await?;
    let connections = usize::from(args.connections);
    let threads = usize::from(args.threads).min(connections);
    let started = Instant::now();
    let from = started + Duration::from_secs_f64(args.warmup);
    let until = from + Duration::from_secs_f64(args.seconds);
    let mut workers = Vec::with_capacity(threads);
    for thread in 0..threads {
        let share = connections / threads + usize::from(thread < connections % threads);
        let plan = plan.clone();
        workers.push(tokio::task::spawn_blocking(move || {
            drive(&plan, share, from, until)
        }));
    }
    let mut tally = Tally::new()?;
    for worker in workers {
        tally.add(&worker.await.context("a sending thread ended")??);
    }
    let report = tally.report(&args);
    match args.output {
        Some(Output::Json) => println!("{report}"),
        None => print!("{}", tally.table(&args)),
    }
    if tally.answered() == 0 {
        let why = tally
            .failures
            .keys()
            .next()
            .map_or("no request was sent in that time", |reason| reason.as_str());
        return Err(Failure::new(
            format!("{} answered nothing", args.url),
            why,
            "check the address, and that something listens there",
        )
        .into());
    }
    Ok(())
}

/// What every connection needs to know.
#[derive(Clone)]
struct Plan {
    address: SocketAddr,
    method: Method,
    /// The request as it goes over the wire.
    request: Bytes,
}

impl Plan {
    async fn new(args: &Args) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::new(
                format!("cannot send to {}", args.url),
                why,
                "use a URL such as http://web.vote.localhost:8080/",
            )
            .usage()
        };
        if args.url.scheme_str() != Some("http") {
            return Err(refuse("only http:// is supported"));
        }
        let authority = args
            .url
            .authority()
            .ok_or_else(|| refuse("it names no host"))?;
        let address = match args.connect {
            Some(address) => address,
            None => resolve(authority.host(), authority.port_u16().unwrap_or(80))
                .await
                .map_err(|error| refuse(&error.to_string()))?,
        };
        Ok(Self {
            address,
            method: args.method.clone(),
            request: wire_form(args, authority.as_str()),
        })
    }
}

/// The request in bytes. Nothing in it can hold a line break: the types of its parts see to that.
fn wire_form(args: &Args, authority: &str) -> Bytes {
    let path = args.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = format!("{} {path} HTTP/1.1\r\n", args.method).into_bytes();
    if !args.headers.iter().any(|(name, _)| name == HOST) {
        request.extend_from_slice(format!("{HOST}: {authority}\r\n").as_bytes());
    }
    if [Method::POST, Method::PUT, Method::PATCH].contains(&args.method) {
        request.extend_from_slice(b"content-length: 0\r\n");
    }
    for (name, value) in &args.headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.into()
}

async fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    // RFC 6761: names under .localhost are the loopback, whatever a resolver thinks of them.
    let host = if host == "localhost" || host.ends_with(".localhost") {
        "127.0.0.1"
    } else {
        host.trim_start_matches('[').trim_end_matches(']')
    };
    tokio::net::lookup_host((host, port))
        .await?
        .next()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
}

/// Runs one thread's share of the connections to their end.
fn drive(plan: &Plan, connections: usize, from: Instant, until: Instant) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let (plan, tally) = (plan.clone(), Tally::new()?);
            tasks.spawn(connection(plan, tally, from, until));
        }
        let mut total = Tally::new()?;
        while let Some(tally) = tasks.join_next().await {
            total.add(&tally.context("a connection's task ended")?);
        }
        Ok(total)
    })
}

/// One connection's life: requests one after the other, and a new connection whenever the last one ended.
async fn connection(plan: Plan, mut tally: Tally, from: Instant, until: Instant) -> Tally {
    let mut open = None;
    while Instant::now() < until {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(REQUEST_TIMEOUT, exchange(&plan, &mut open)).await;
        let ended = Instant::now();
        let measured = begun >= from;
        match outcome {
            Ok(Ok(status)) if measured => tally.answer(status, ended - begun),
            Ok(Ok(_)) => {}
            Ok(Err(reason)) => {
                if measured {
                    tally.fail(reason);
                }
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
            Err(_) if measured => tally.fail("timeout"),
            Err(_) => {}
        }
    }
    tally
}

/// Sends one request and reads its whole response. What went wrong takes its connection along.
async fn exchange(plan: &Plan, open: &mut Option<Connection>) -> Result<u16, Reason> {
    // A server may close a connection between two requests at any time; that is no failure of either.
    let mut connection = match open.take() {
        Some(connection) if connection.is_open() => connection,
        _ => Connection::open(plan.address).await?,
    };
    let status = connection.exchange(&plan.method, &plan.request).await?;
    *open = Some(connection);
    Ok(status)
}

/// What came of the requests.
struct Tally {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, nanoseconds(LATENCY_MAX), LATENCY_DIGITS)?,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    fn answer(&mut self, status: u16, latency: Duration) {
        self.latency.saturating_record(nanoseconds(latency));
        *self.statuses.entry(status).or_default() += 1;
    }

    fn fail(&mut self, reason: &str) {
        *self.failures.entry(reason.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        // Equal bounds, so nothing can be out of range.
        let _ = self.latency.add(&other.latency);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
    }

    fn answered(&self) -> u64 {
        self.latency.len()
    }

    /// Requests without an answer, or with one of the server's own failures.
    fn errors(&self) -> u64 {
        let failed: u64 = self.failures.values().sum();
        failed
            + self
                .statuses
                .range(500..)
                .map(|(_, count)| count)
                .sum::<u64>()
    }

    fn microseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    fn report(&self, args: &Args) -> Value {
        json!({
            "url": args.url.to_string(),
            "connections": args.connections,
            "seconds": args.seconds,
            "requests": self.answered(),
            "errors": self.errors(),
            "statuses": self.statuses.iter().map(|(status, count)| (status.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "failures": self.failures,
            "requests_per_second": self.answered() as f64 / args.seconds.max(f64::MIN_POSITIVE),
            "latency_us": {
                "mean": self.latency.mean() / 1e3,
                "p50": self.microseconds(0.5),
                "p90": self.microseconds(0.9),
                "p99": self.microseconds(0.99),
                "p999": self.microseconds(0.999),
                "max": self.latency.max() as f64 / 1e3,
            },
        })
    }

    fn table(&self, args: &Args) -> String {
        let mut text = String::new();
        let rate = self.answered() as f64 / args.seconds.max(f64::MIN_POSITIVE);
        let _ = writeln!(
            text,
            "{} answers in {} s over {} connections: {rate:.0} a second",
            self.answered(),
            args.seconds,
            args.connections
        );
        for (status, count) in &self.statuses {
            let _ = writeln!(text, "  {status}  {count}");
        }
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "  {reason}  {count}");
        }
        let _ = writeln!(
            text,
            "latency in us: p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}",
            self.microseconds(0.5),
            self.microseconds(0.9),
            self.microseconds(0.99),
            self.microseconds(0.999)
        );
        text
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_adds_up() {
        let mut one = Tally::new().unwrap();
        one.answer(200, Duration::from_micros(100));
        one.fail("timeout");
        let mut two = Tally::new().unwrap();
        two.answer(200, Duration::from_micros(300));
        two.answer(503, Duration::from_micros(300));
        one.add(&two);
        assert_eq!((one.answered(), one.errors()), (3, 2));
        assert_eq!(one.statuses, BTreeMap::from([(200, 2), (503, 1)]));
        assert!((299.0..301.0).contains(&one.microseconds(0.99)));
    }

    #[test]
    fn arguments_are_checked() {
        for (text, good) in [
            ("X-A: b", true),
            ("x", false),
            ("a b: c", false),
            ("a: \u{7}", false),
        ] {
            assert_eq!(header(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("1.5", true),
            ("-1", false),
            ("nan", false),
            ("1e9", false),
            ("x", false),
        ] {
            assert_eq!(seconds(text).is_ok(), good, "{text}");
        }
    }
}
