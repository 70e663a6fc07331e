//! What it costs to count a call, and to read what was counted.
//!
//! `cargo run --release -p weft-mesh --example counting` prints a line for each measurement, medians of the rounds: the edges of this crate
//! beside the metrics of prometheus-client, and the text of a thousand series. Times of two threads are wall clock for each call of one thread.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use weft_api::identity::SpiffeId;
use weft_call::edges::DURATION_MICROS;
use weft_mesh::{
    Body, CallerInfo, EndpointSpec, LocalWorkload, Mesh, PodAddress, ServicePortSpec, ServiceSpec,
    Table, WorkloadInfo, WorkloadService,
};

// The very code that the mesh counts with, which is nobody else's.
#[expect(dead_code, reason = "only what a call does is measured")]
#[path = "../src/metrics/edge.rs"]
mod edge;
#[expect(dead_code, reason = "only what a call does is measured")]
#[path = "../src/shard.rs"]
mod shard;

use edge::{BYTES, Edge, Outcome};

const ROUNDS: usize = 21;
const CALLS: u32 = 200_000;
const SERIES: usize = 1000;

/// What one call is counted with.
trait Count: Send + Sync {
    fn count(&self, duration: Duration, now: Instant);
}

const OUTCOME: Outcome = Outcome {
    code: 200,
    grpc: None,
    flag: "-",
    tcp: false,
};

impl Count for Edge<()> {
    fn count(&self, duration: Duration, now: Instant) {
        self.record(OUTCOME, duration, 0, 250, now);
    }
}

/// The labels of a series as a key: who calls whom, and how it ended.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Labels {
    names: [Arc<str>; 12],
    code: u16,
    flag: &'static str,
}

/// Histograms of one kind.
#[derive(Clone)]
struct Bounds(&'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Families, asked for the series of each call.
struct Families {
    labels: Labels,
    requests: Family<Labels, Counter>,
    duration: Family<Labels, Histogram, Bounds>,
    request_bytes: Family<Labels, Histogram, Bounds>,
    response_bytes: Family<Labels, Histogram, Bounds>,
}

impl Families {
    fn new() -> Self {
        let names = std::array::from_fn(|at| Arc::from(format!("voting-{at}").as_str()));
        Self {
            labels: Labels {
                names,
                code: 200,
                flag: "-",
            },
            requests: Family::default(),
            duration: Family::new_with_constructor(Bounds(&DURATION_MICROS)),
            request_bytes: Family::new_with_constructor(Bounds(&BYTES)),
            response_bytes: Family::new_with_constructor(Bounds(&BYTES)),
        }
    }
}

impl Count for Families {
    fn count(&self, duration: Duration, _now: Instant) {
        let labels = &self.labels;
        self.requests.get_or_create(labels).inc();
        let milliseconds = duration.as_secs_f64() * 1e6;
        self.duration.get_or_create(labels).observe(milliseconds);
        self.request_bytes.get_or_create(labels).observe(0.0);
        self.response_bytes.get_or_create(labels).observe(250.0);
    }
}

/// One series of each family, kept by the caller.
struct Kept {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Kept {
    fn new() -> Self {
        Self {
            requests: Counter::default(),
            duration: Bounds(&DURATION_MICROS).new_metric(),
            request_bytes: Bounds(&BYTES).new_metric(),
            response_bytes: Bounds(&BYTES).new_metric(),
        }
    }
}

impl Count for Kept {
    fn count(&self, duration: Duration, _now: Instant) {
        self.requests.inc();
        self.duration.observe(duration.as_secs_f64() * 1e6);
        self.request_bytes.observe(0.0);
        self.response_bytes.observe(250.0);
    }
}

fn main() {
    println!("counting a call, ns          1 thread   2 threads");
    line("edge", &Edge::<()>::default());
    line("prometheus-client, kept", &Kept::new());
    line("prometheus-client, families", &Families::new());
    text();
}

fn line(name: &str, counts: &dyn Count) {
    println!(
        "{name:28}{:>9.1}{:>12.1}",
        nanos(counts, 1),
        nanos(counts, 2)
    );
}

/// Nanoseconds a call, by so many threads that count the same calls.
fn nanos(counts: &dyn Count, threads: usize) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(counts, threads)).collect();
    median(&mut rounds)
}

fn round(counts: &dyn Count, threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let work = || {
        barrier.wait();
        let began = Instant::now();
        for call in 0..CALLS {
            // From 20 to 83 microseconds, so that more than one bucket is in use.
            counts.count(Duration::from_micros(20 + u64::from(call % 64)), began);
        }
        began.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let each = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(f64::NAN));
        each.fold(0.0, f64::max)
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The text of a mesh that many callers have called through.
fn text() {
    let mesh = Mesh::builder("a", "cluster.local").build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(calls(&mesh));
    let mut times = Vec::new();
    let mut out = String::new();
    for _ in 0..ROUNDS {
        out.clear();
        let began = Instant::now();
        mesh.render_metrics(&mut out);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let series = out
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"));
    println!(
        "text of {} series: {:.1} ms, {:.1} MB",
        series.count(),
        median(&mut times),
        out.len() as f64 / 1e6
    );
}

/// A call of each of so many callers that both ends of them make [`SERIES`].
async fn calls(mesh: &Mesh) {
    let named = |name: &str| WorkloadInfo {
        name: name.to_owned(),
        namespace: "vote".to_owned(),
        app: name.to_owned(),
        canonical_service: name.to_owned(),
        canonical_revision: "latest".to_owned(),
        ..WorkloadInfo::default()
    };
    let account = |name: &str| SpiffeId::new("cluster.local", "vote", name);
    let address = PodAddress {
        ip: [10, 42, 0, 1].into(),
        port: 8080,
    };
    mesh.attach(
        address,
        LocalWorkload {
            identity: account("voting"),
            workload: named("voting"),
            service: WorkloadService::new(tower::service_fn(|_request| async {
                Ok(Response::new(Body::empty()))
            })),
            in_flight_max: 100,
        },
    );
    let endpoint = EndpointSpec {
        pod: "voting-1".to_owned(),
        ip: address.ip,
        port: address.port,
        node: "a".to_owned(),
        node_address: None,
        identity: account("voting"),
        workload: named("voting"),
        ready: true,
        serving: true,
        assigned: true,
    };
    let service = ServiceSpec {
        namespace: "vote".to_owned(),
        name: "voting".to_owned(),
        ports: vec![ServicePortSpec {
            port: 80,
            endpoints: vec![endpoint],
            ..ServicePortSpec::default()
        }],
        ..ServiceSpec::default()
    };
    mesh.publish(Table::builder("a", 1).services(vec![service]).build());
    for number in 0..SERIES / 2 {
        let name = format!("caller-{number}");
        let caller = CallerInfo {
            identity: account(&name),
            workload: named(&name),
        };
        let request = Request::get("http://voting/").body(Body::empty());
        let request = request.expect("a request");
        let answer = mesh.outbound(caller).call(request).await;
        answer.expect("an answer");
    }
}
