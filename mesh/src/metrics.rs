//! Counters and histograms of the mesh, under Istio's names and labels, as Prometheus text.
//!
//! An [`Edge`] is one caller workload, one callee workload and one service, with its labels written once; a call
//! holds it and adds to a few atomics of this thread's copy. Response codes are series below an edge. Istio's
//! latency buckets begin at half a millisecond, where an in-memory call has long ended, so finer ones come first.
//!
//! Invariants: no label comes from an unauthenticated party (paths, hosts and headers of clients never do); the
//! number of edges is bounded, what exceeds it counts under `overflow`. `connection_security_policy` says
//! `in_process` for in-memory calls: they are not mutual TLS and do not claim to be.
//! Source of names: <https://istio.io/latest/docs/reference/config/metrics/>.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    Identities, Transport, WorkloadInfo,
    shard::{self, SHARDS},
    table::{ServiceLabels, Table},
};

/// Edges kept; 4,096 of them with two codes each are about 5 MB.
const EDGES_MAX: usize = 4096;

/// An edge without calls for this long is dropped when metrics are next read, or when there is no room for another.
const EDGE_IDLE_MAX: Duration = Duration::from_secs(600);

/// Codes and protocols kept apart below one edge; further ones share the last.
const SERIES_MAX: usize = 64;

const DURATION_MS: [f64; 23] = [
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

const BYTES: [f64; 8] = [
    0.0,
    100.0,
    1000.0,
    10_000.0,
    100_000.0,
    1_000_000.0,
    10_000_000.0,
    100_000_000.0,
];

const MICROSECONDS: [f64; 20] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
    5e5, 1e6, 1e7,
];

/// Finer than [`MICROSECONDS`] where the mesh's own share of a call lies, so that a median read from it means something.
const ADDED_MICROSECONDS: [f64; 33] = [
    1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0,
    100.0, 120.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 700.0, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6,
    1e7,
];

/// Where a call came into the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Gateway,
    Workload,
}

/// Which end of a call reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    Source,
    Destination,
}

/// All that makes one edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EdgeKey {
    pub(crate) reporter: Reporter,
    pub(crate) source: Arc<WorkloadInfo>,
    pub(crate) source_principal: Arc<str>,
    pub(crate) destination: Arc<WorkloadInfo>,
    pub(crate) destination_principal: Arc<str>,
    pub(crate) service: Arc<ServiceLabels>,
    /// None when the call reached no endpoint.
    pub(crate) transport: Option<Transport>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: u16,
    /// Some for gRPC; the status from headers or trailers, 2 (unknown) when none came.
    pub(crate) grpc: Option<u16>,
    /// Envoy's response flag, `-` for none.
    pub(crate) flag: &'static str,
}

// === impl Edge ===

/// The series of one caller, callee and service.
#[derive(Debug)]
pub(crate) struct Edge {
    labels: String,
    series: ArcSwap<Vec<Arc<Series>>>,
    /// Seconds since [`Metrics::started`] of the last call.
    used: AtomicU64,
}

#[derive(Debug)]
struct Series {
    outcome: Outcome,
    cells: Box<[Cells]>,
}

/// One thread's copy; the alignment keeps two threads off one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    duration: Histogram<{ DURATION_MS.len() }>,
    request_bytes: Histogram<{ BYTES.len() }>,
    response_bytes: Histogram<{ BYTES.len() }>,
}

impl Edge {
    fn new(labels: String) -> Self {
        Self {
            labels,
            series: ArcSwap::default(),
            used: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(
        &self,
        outcome: Outcome,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
        now: Instant,
    ) {
        let used = now.saturating_duration_since(*STARTED).as_secs();
        if self.used.load(Ordering::Relaxed) != used {
            self.used.store(used, Ordering::Relaxed);
        }
        let known = self.series.load();
        match known.iter().find(|series| series.outcome == outcome) {
            Some(series) => series.add(duration, request_bytes, response_bytes),
            None => {
                drop(known);
                self.insert(outcome)
                    .add(duration, request_bytes, response_bytes);
            }
        }
    }

    fn insert(&self, outcome: Outcome) -> Arc<Series> {
        let fresh = Arc::new(Series {
            outcome,
            cells: (0..cells()).map(|_| Cells::default()).collect(),
        });
        let mut chosen = Arc::clone(&fresh);
        self.series.rcu(|series| {
            let mut series = Vec::clone(series);
            let found = series.iter().find(|series| series.outcome == outcome);
            let full = series.len() >= SERIES_MAX;
            if let Some(known) = found.or(series.last().filter(|_| full)) {
                chosen = Arc::clone(known);
            } else {
                chosen = Arc::clone(&fresh);
                series.push(Arc::clone(&fresh));
            }
            series
        });
        chosen
    }
}

impl Series {
    fn add(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        let cells = &self.cells[shard::current(self.cells.len())];
        cells.duration.add(
            &DURATION_MS,
            duration.as_secs_f64() * 1e3,
            duration.as_nanos() as u64,
        );
        cells
            .request_bytes
            .add(&BYTES, request_bytes as f64, request_bytes);
        cells
            .response_bytes
            .add(&BYTES, response_bytes as f64, response_bytes);
    }
}

/// Copies a thread-split structure has: as many as cores, within reason.
fn cells() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(SHARDS))
    });
    *CORES
}

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

// === impl Histogram ===

/// Counts a bucket, not cumulated; values above the last bound are in `over`.
#[derive(Debug)]
struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    over: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            over: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// `exact` is what the sum counts in, an integer so that one addition does.
    fn add(&self, bounds: &[f64; N], value: f64, exact: u64) {
        let index = bounds.partition_point(|bound| *bound < value);
        self.buckets
            .get(index)
            .unwrap_or(&self.over)
            .fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(exact, Ordering::Relaxed);
    }
}

/// The sum of several threads' histograms.
struct Total<const N: usize> {
    buckets: [u64; N],
    count: u64,
    sum: u64,
}

impl<const N: usize> Total<N> {
    fn summed<'h>(histograms: impl Iterator<Item = &'h Histogram<N>>) -> Self {
        let mut total = Self {
            buckets: [0; N],
            count: 0,
            sum: 0,
        };
        for histogram in histograms {
            for (sum, bucket) in total.buckets.iter_mut().zip(&histogram.buckets) {
                let count = bucket.load(Ordering::Relaxed);
                *sum += count;
                total.count += count;
            }
            total.count += histogram.over.load(Ordering::Relaxed);
            total.sum += histogram.sum.load(Ordering::Relaxed);
        }
        total
    }

    /// Bounds are divided by `per_unit` to get the unit shown, the sum by `sum_per_unit`. Dividing rather than
    /// multiplying by a fraction keeps the decimals short.
    fn render(
        &self,
        out: &mut String,
        name: &str,
        labels: &str,
        bounds: &[f64; N],
        per_unit: f64,
        sum_per_unit: f64,
    ) {
        let mut cumulated = 0;
        for (bound, count) in bounds.iter().zip(self.buckets) {
            cumulated += count;
            let bound = bound / per_unit;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulated}");
        }
        let (count, sum) = (self.count, self.sum as f64 / sum_per_unit);
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }
}

// === impl Metrics ===

/// Everything one node's mesh counts.
#[derive(Default)]
pub(crate) struct Metrics {
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>>>,
    /// Second after [`STARTED`] in which edges were last looked through for want of room.
    swept: AtomicU64,
    overflow: Mutex<Option<Arc<Edge>>>,
    in_process: [Histogram<{ MICROSECONDS.len() }>; SHARDS],
    mtls: [Histogram<{ MICROSECONDS.len() }>; SHARDS],
    /// By origin, then by transport.
    added: [[[Histogram<{ ADDED_MICROSECONDS.len() }>; SHARDS]; 2]; 2],
    retries: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) denied: AtomicU64,
}

impl Metrics {
    /// The edge for `key`; the same one for equal keys.
    pub(crate) fn edge(&self, key: &EdgeKey) -> Arc<Edge> {
        let mut edges = self.edges.lock();
        if let Some(edge) = edges.get(key) {
            return Arc::clone(edge);
        }
        if edges.len() >= EDGES_MAX {
            self.drop_idle(&mut edges);
        }
        if edges.len() >= EDGES_MAX {
            drop(edges);
            return Arc::clone(self.overflow.lock().get_or_insert_with(|| {
                let nobody = Arc::new(WorkloadInfo {
                    name: "overflow".to_owned(),
                    ..WorkloadInfo::default()
                });
                Arc::new(Edge::new(labels(&EdgeKey {
                    reporter: key.reporter,
                    source: Arc::clone(&nobody),
                    source_principal: "".into(),
                    destination: nobody,
                    destination_principal: "".into(),
                    service: Arc::new(ServiceLabels::new("overflow", "overflow")),
                    transport: None,
                })))
            }));
        }
        let edge = Arc::new(Edge::new(labels(key)));
        edges.insert(key.clone(), Arc::clone(&edge));
        edge
    }

    /// One finished call as its caller saw it.
    pub(crate) fn call(&self, transport: Transport, duration: Duration) {
        let histograms = match transport {
            Transport::InProcess => &self.in_process,
            Transport::MutualTls => &self.mtls,
        };
        histograms[shard::current(SHARDS)].add(
            &MICROSECONDS,
            duration.as_secs_f64() * 1e6,
            duration.as_nanos() as u64,
        );
    }

    /// The head of a response came: what the call took until then beyond the workload's own time.
    pub(crate) fn added(&self, origin: Origin, transport: Transport, added: Duration) {
        let histograms = &self.added[origin as usize][transport as usize];
        histograms[shard::current(SHARDS)].add(
            &ADDED_MICROSECONDS,
            added.as_secs_f64() * 1e6,
            added.as_nanos() as u64,
        );
    }

    pub(crate) fn retry(&self, reason: &'static str) {
        *self.retries.lock().entry(reason).or_insert(0) += 1;
    }

    /// `now` is that of the balancer, in monotonic nanoseconds.
    pub(crate) fn render(
        &self,
        table: &Table,
        identities: &Identities,
        now: u64,
        out: &mut String,
    ) {
        self.render_edges(out);
        head(
            out,
            "weft_mesh_request_duration_seconds",
            "histogram",
            "Time of calls as their callers saw it, by the way they took.",
        );
        for (transport, histograms) in [
            (Transport::InProcess, &self.in_process),
            (Transport::MutualTls, &self.mtls),
        ] {
            let labels = format!("transport=\"{}\"", transport.as_str());
            Total::summed(histograms.iter()).render(
                out,
                "weft_mesh_request_duration_seconds",
                &labels,
                &MICROSECONDS,
                1e6,
                1e9,
            );
        }
        head(
            out,
            "weft_mesh_added_seconds",
            "histogram",
            "Time to a response's head beyond the workload's own.",
        );
        for (origin, name) in [(Origin::Gateway, "gateway"), (Origin::Workload, "workload")] {
            for transport in [Transport::InProcess, Transport::MutualTls] {
                let labels = format!("from=\"{name}\",transport=\"{}\"", transport.as_str());
                Total::summed(self.added[origin as usize][transport as usize].iter()).render(
                    out,
                    "weft_mesh_added_seconds",
                    &labels,
                    &ADDED_MICROSECONDS,
                    1e6,
                    1e9,
                );
            }
        }
        head(
            out,
            "weft_mesh_retries_total",
            "counter",
            "Tries after the first, by what had failed.",
        );
        for (reason, count) in &*self.retries.lock() {
            let _ = writeln!(
                out,
                "weft_mesh_retries_total{{reason=\"{reason}\"}} {count}"
            );
        }
        for (name, help, counter) in [
            (
                "weft_mesh_connections_accepted_total",
                "Connections of other nodes that were accepted.",
                &self.connections_accepted,
            ),
            (
                "weft_mesh_handshakes_failed_total",
                "Connections of other nodes that proved nothing.",
                &self.handshakes_failed,
            ),
            (
                "weft_mesh_denied_total",
                "Calls out of the cluster that were denied.",
                &self.denied,
            ),
        ] {
            head(out, name, "counter", help);
            let _ = writeln!(out, "{name} {}", counter.load(Ordering::Relaxed));
        }
        head(
            out,
            "weft_mesh_table_generation",
            "gauge",
            "Generation of the table of services in force.",
        );
        let _ = writeln!(out, "weft_mesh_table_generation {}", table.generation());
        head(
            out,
            "weft_mesh_endpoints_ejected",
            "gauge",
            "Endpoints that are left alone at the moment: the way to them failed, or they failed or refused calls.",
        );
        let _ = writeln!(out, "weft_mesh_endpoints_ejected {}", table.ejected(now));
        head(
            out,
            "weft_mesh_svid_expiry_timestamp_seconds",
            "gauge",
            "When the certificate of an identity ends.",
        );
        for (identity, expiry) in identities.all() {
            let seconds = expiry
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            let _ = writeln!(
                out,
                "weft_mesh_svid_expiry_timestamp_seconds{{identity=\"{identity}\"}} {seconds}"
            );
        }
    }

    /// Makes room, as nobody may ever read the metrics; at most once a second, as it looks through all of them.
    fn drop_idle(&self, edges: &mut HashMap<EdgeKey, Arc<Edge>>) {
        let now = STARTED.elapsed().as_secs();
        if self.swept.swap(now, Ordering::Relaxed) != now {
            retain_used(edges, now);
        }
    }

    fn render_edges(&self, out: &mut String) {
        let now = STARTED.elapsed().as_secs();
        let mut edges: Vec<Arc<Edge>> = {
            let mut edges = self.edges.lock();
            retain_used(&mut edges, now);
            edges.values().cloned().collect()
        };
        edges.extend(self.overflow.lock().clone());
        edges.sort_by(|a, b| a.labels.cmp(&b.labels));
        let rows: Vec<(String, Arc<Series>)> = edges
            .iter()
            .flat_map(|edge| {
                let series = edge.series.load_full();
                let labels = edge.labels.clone();
                (0..series.len())
                    .map(move |index| {
                        let series = Arc::clone(&series[index]);
                        (series.labels(&labels), series)
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        head(
            out,
            "istio_requests_total",
            "counter",
            "Calls, by both ends and how they ended.",
        );
        for (labels, series) in &rows {
            let total = Total::summed(series.cells.iter().map(|cells| &cells.duration));
            let _ = writeln!(out, "istio_requests_total{{{labels}}} {}", total.count);
        }
        head(
            out,
            "istio_request_duration_milliseconds",
            "histogram",
            "Time from a request to the end of its response.",
        );
        for (labels, series) in &rows {
            Total::summed(series.cells.iter().map(|cells| &cells.duration)).render(
                out,
                "istio_request_duration_milliseconds",
                labels,
                &DURATION_MS,
                1.0,
                1e6,
            );
        }
        head(
            out,
            "istio_request_bytes",
            "histogram",
            "Bytes in the bodies of requests.",
        );
        for (labels, series) in &rows {
            Total::summed(series.cells.iter().map(|cells| &cells.request_bytes)).render(
                out,
                "istio_request_bytes",
                labels,
                &BYTES,
                1.0,
                1.0,
            );
        }
        head(
            out,
            "istio_response_bytes",
            "histogram",
            "Bytes in the bodies of responses.",
        );
        for (labels, series) in &rows {
            Total::summed(series.cells.iter().map(|cells| &cells.response_bytes)).render(
                out,
                "istio_response_bytes",
                labels,
                &BYTES,
                1.0,
                1.0,
            );
        }
    }
}

/// What comes before the samples of a family.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn retain_used(edges: &mut HashMap<EdgeKey, Arc<Edge>>, now: u64) {
    edges.retain(|_, edge| {
        let idle = now.saturating_sub(edge.used.load(Ordering::Relaxed));
        // Somebody who still holds it may add to it.
        idle < EDGE_IDLE_MAX.as_secs() || Arc::strong_count(edge) > 1
    });
}

impl Series {
    fn labels(&self, edge: &str) -> String {
        let Outcome { code, grpc, flag } = self.outcome;
        let protocol = if grpc.is_some() { "grpc" } else { "http" };
        let grpc = grpc.map(|status| status.to_string()).unwrap_or_default();
        format!(
            "{edge},request_protocol=\"{protocol}\",response_code=\"{code}\",\
             grpc_response_status=\"{grpc}\",response_flags=\"{flag}\""
        )
    }
}

/// The labels of an edge, in Istio's order, values escaped.
fn labels(key: &EdgeKey) -> String {
    let (reporter, security) = match (key.reporter, key.transport) {
        (Reporter::Source, Some(Transport::InProcess)) => ("source", "in_process"),
        (Reporter::Destination, Some(Transport::InProcess)) => ("destination", "in_process"),
        // Istio's sources report unknown, because their proxies cannot tell; its boards expect that.
        (Reporter::Source, _) => ("source", "unknown"),
        (Reporter::Destination, Some(Transport::MutualTls)) => ("destination", "mutual_tls"),
        (Reporter::Destination, None) => ("destination", "none"),
    };
    let mut out = String::with_capacity(1024);
    let mut put = |name: &str, value: &str| {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape(if value.is_empty() { "unknown" } else { value }, &mut out);
        out.push('"');
    };
    put("reporter", reporter);
    for (side, workload, principal) in [
        ("source", &key.source, &key.source_principal),
        ("destination", &key.destination, &key.destination_principal),
    ] {
        let mut put = |name: &str, value: &str| put(&format!("{side}_{name}"), value);
        put("workload", &workload.name);
        put("workload_namespace", &workload.namespace);
        put("principal", principal);
        put("app", &workload.app);
        put("version", &workload.version);
        put("cluster", "Kubernetes");
        put("canonical_service", &workload.canonical_service);
        put("canonical_revision", &workload.canonical_revision);
    }
    let service = &key.service;
    let full = match (service.name.as_str(), service.namespace.as_str()) {
        ("", _) => String::new(),
        (name, "") => name.to_owned(),
        (name, namespace) => format!("{name}.{namespace}.svc.cluster.local"),
    };
    put("destination_service", &full);
    put("destination_service_name", &service.name);
    put("destination_service_namespace", &service.namespace);
    put("connection_security_policy", security);
    out
}

fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> EdgeKey {
        let workload = |name: &str| {
            Arc::new(WorkloadInfo {
                name: name.to_owned(),
                namespace: "vote".to_owned(),
                app: name.to_owned(),
                version: String::new(),
                canonical_service: name.to_owned(),
                canonical_revision: "latest".to_owned(),
            })
        };
        EdgeKey {
            reporter: Reporter::Source,
            source: workload("web"),
            source_principal: "spiffe://cluster.local/ns/vote/sa/web".into(),
            destination: workload("voting"),
            destination_principal: "spiffe://cluster.local/ns/vote/sa/voting".into(),
            service: Arc::new(ServiceLabels::new("vote", service)),
            transport: Some(Transport::InProcess),
        }
    }

    const OK: Outcome = Outcome {
        code: 200,
        grpc: None,
        flag: "-",
    };

    #[test]
    fn calls_become_istio_series() {
        let metrics = Metrics::default();
        let edge = metrics.edge(&key("voting"));
        assert!(Arc::ptr_eq(&edge, &metrics.edge(&key("voting"))));
        let now = Instant::now();
        edge.record(OK, Duration::from_micros(20), 0, 250, now);
        edge.record(OK, Duration::from_millis(2), 10, 250, now);
        metrics.call(Transport::InProcess, Duration::from_micros(3));
        metrics.added(
            Origin::Workload,
            Transport::MutualTls,
            Duration::from_micros(90),
        );
        metrics.retry("unreachable");
        let mut text = String::new();
        let table = Table::builder("a", 7).build();
        let identities = Identities::new("cluster.local".to_owned());
        metrics.render(&table, &identities, 0, &mut text);
        let labels = text
            .lines()
            .find_map(|line| line.strip_prefix("istio_requests_total{"))
            .and_then(|rest| rest.split_once('}'))
            .expect("the counter");
        assert_eq!(labels.1, " 2");
        insta::assert_snapshot!(labels.0.replace("\",", "\"\n"), @r#"
        reporter="source"
        source_workload="web"
        source_workload_namespace="vote"
        source_principal="spiffe://cluster.local/ns/vote/sa/web"
        source_app="web"
        source_version="unknown"
        source_cluster="Kubernetes"
        source_canonical_service="web"
        source_canonical_revision="latest"
        destination_workload="voting"
        destination_workload_namespace="vote"
        destination_principal="spiffe://cluster.local/ns/vote/sa/voting"
        destination_app="voting"
        destination_version="unknown"
        destination_cluster="Kubernetes"
        destination_canonical_service="voting"
        destination_canonical_revision="latest"
        destination_service="voting.vote.svc.cluster.local"
        destination_service_name="voting"
        destination_service_namespace="vote"
        connection_security_policy="in_process"
        request_protocol="http"
        response_code="200"
        grpc_response_status=""
        response_flags="-"
        "#);
        for line in [
            "le=\"0.05\"} 1",
            "le=\"5\"} 2",
            "weft_mesh_request_duration_seconds_bucket{transport=\"in-process\",le=\"0.000005\"} 1",
            "weft_mesh_added_seconds_bucket{from=\"workload\",transport=\"mtls\",le=\"0.00008\"} 0",
            "weft_mesh_added_seconds_bucket{from=\"workload\",transport=\"mtls\",le=\"0.0001\"} 1",
            "weft_mesh_added_seconds_count{from=\"gateway\",transport=\"in-process\"} 0",
            "weft_mesh_retries_total{reason=\"unreachable\"} 1",
            "weft_mesh_table_generation 7",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    /// What dashboards are built on: names and types are kept, each family says what it is before its samples, and each sample is of
    /// the family before it.
    #[test]
    fn every_family_has_a_name_a_type_and_a_sentence() {
        let metrics = Metrics::default();
        let edge = metrics.edge(&key("a\"b\\c\nd"));
        edge.record(OK, Duration::from_micros(20), 0, 250, Instant::now());
        metrics.retry("connect");
        let mut text = String::new();
        let table = Table::builder("a", 7).build();
        let identities = Identities::new("cluster.local".to_owned());
        metrics.render(&table, &identities, 0, &mut text);
        let mut families = Vec::new();
        let mut lines = text.lines();
        let mut family = String::new();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, sentence) = help.split_once(' ').expect("a sentence");
                let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
                let kind = kind
                    .and_then(|kind| kind.strip_prefix(name))
                    .expect("a type");
                families.push(format!("{name}{kind}: {sentence}"));
                name.clone_into(&mut family);
                continue;
            }
            let end = line.find(['{', ' ']).expect("a sample");
            let suffix = line[..end]
                .strip_prefix(family.as_str())
                .expect("of its family");
            assert!(
                matches!(suffix, "" | "_bucket" | "_sum" | "_count"),
                "{line}"
            );
            let (_, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().expect("a number");
        }
        assert!(
            text.contains(r#"destination_service_name="a\"b\\c\nd""#),
            "{text}"
        );
        insta::assert_snapshot!(families.join("\n"), @r"
        istio_requests_total counter: Calls, by both ends and how they ended.
        istio_request_duration_milliseconds histogram: Time from a request to the end of its response.
        istio_request_bytes histogram: Bytes in the bodies of requests.
        istio_response_bytes histogram: Bytes in the bodies of responses.
        weft_mesh_request_duration_seconds histogram: Time of calls as their callers saw it, by the way they took.
        weft_mesh_added_seconds histogram: Time to a response's head beyond the workload's own.
        weft_mesh_retries_total counter: Tries after the first, by what had failed.
        weft_mesh_connections_accepted_total counter: Connections of other nodes that were accepted.
        weft_mesh_handshakes_failed_total counter: Connections of other nodes that proved nothing.
        weft_mesh_denied_total counter: Calls out of the cluster that were denied.
        weft_mesh_table_generation gauge: Generation of the table of services in force.
        weft_mesh_endpoints_ejected gauge: Endpoints that are left alone at the moment: the way to them failed, or they failed or refused calls.
        weft_mesh_svid_expiry_timestamp_seconds gauge: When the certificate of an identity ends.
        ");
    }

    #[test]
    fn edges_and_series_are_bounded() {
        let metrics = Metrics::default();
        for number in 0..EDGES_MAX {
            metrics.edge(&key(&format!("s{number}")));
        }
        let (first, second) = (metrics.edge(&key("x")), metrics.edge(&key("y")));
        assert!(Arc::ptr_eq(&first, &second), "both are the overflow");
        for code in 100..1000 {
            let outcome = Outcome { code, ..OK };
            first.record(outcome, Duration::ZERO, 0, 0, Instant::now());
        }
        assert_eq!(first.series.load().len(), SERIES_MAX);
    }
}
