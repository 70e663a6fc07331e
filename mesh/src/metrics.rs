//! Counters and histograms of the mesh, under Istio's names and labels, as Prometheus text.
//!
//! An [`Edge`] is one caller workload, one callee workload and one service; a call holds it and adds to it (`edge.rs`).
//! Response codes are series below an edge. Istio's latency buckets begin at half a millisecond, where an in-memory call has
//! long ended, so finer ones come first. Series of edges are written by `text.rs`, all else by prometheus-client; `series.rs` has them as
//! values, under the same labels (`labels.rs`).
//!
//! Invariants: no label comes from an unauthenticated party (paths, hosts and headers of clients never do); the
//! number of edges is bounded, what exceeds it counts under `overflow` and is told by how much. `connection_security_policy` says
//! `in_process` for in-memory calls: they are not mutual TLS and do not claim to be.
//! Source of names: <https://istio.io/latest/docs/reference/config/metrics/>.

mod edge;
mod labels;
mod policies;
mod series;
mod text;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text as openmetrics},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use weft_call::edges::{EdgeCounts, EdgeEnd, EdgeName, Figures, NodeEdges, outcome};

pub(crate) use edge::{Exemplar, Outcome, Took};
pub use series::{BYTE_BOUNDS, Bytes as SeriesBytes, CallExemplar, CallSeries, Labels, NodeSeries};
pub use text::Format;
pub(crate) use text::Spill;

/// What is counted of one [`EdgeKey`].
pub(crate) type Edge = edge::Edge<EdgeKey>;

use crate::{
    Inner, Transport, WorkloadInfo,
    shard::{self, Place, SHARDS},
    table::ServiceLabels,
};
use edge::{Histogram, Total};
use policies::Acts;

/// Edges kept; 4,096 of them with two codes each are about 4 MB.
pub(crate) const EDGES_MAX: usize = 4096;

/// An edge without calls for this long is dropped when metrics are next read, or when there is no room for another.
const EDGE_IDLE_MAX: Duration = Duration::from_secs(600);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    Source,
    Destination,
}

/// All that makes one edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

// === impl Metrics ===

/// Everything one node's mesh counts.
#[derive(Default)]
pub(crate) struct Metrics {
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>>>,
    /// Second after [`STARTED`] in which edges were last looked through for want of room.
    swept: AtomicU64,
    overflow: Mutex<Option<Arc<Edge>>>,
    /// How often there was no room for an edge.
    overflowed: AtomicU64,
    in_process: [Histogram<{ MICROSECONDS.len() }>; SHARDS],
    mtls: [Histogram<{ MICROSECONDS.len() }>; SHARDS],
    /// By origin, then by transport.
    added: [[[Histogram<{ ADDED_MICROSECONDS.len() }>; SHARDS]; 2]; 2],
    retries: Mutex<BTreeMap<&'static str, u64>>,
    acts: Acts,
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
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            let mut overflow = self.overflow.lock();
            let edge = overflow
                .get_or_insert_with(|| Arc::new(Edge::new(EdgeKey::overflow(key.reporter))));
            return Arc::clone(edge);
        }
        let edge = Arc::new(Edge::new(key.clone()));
        edges.insert(key.clone(), Arc::clone(&edge));
        edge
    }

    /// One finished call as its caller saw it.
    pub(crate) fn call(&self, transport: Transport, duration: Duration) {
        let histograms = match transport {
            Transport::InProcess => &self.in_process,
            Transport::MutualTls => &self.mtls,
        };
        let Place { index, alone } = shard::place(SHARDS);
        histograms[index].add(
            &MICROSECONDS,
            duration.as_secs_f64() * 1e6,
            duration.as_nanos() as u64,
            alone,
        );
    }

    /// The head of a response came: what the call took until then beyond the workload's own time.
    pub(crate) fn added(&self, origin: Origin, transport: Transport, added: Duration) {
        let histograms = &self.added[origin as usize][transport as usize];
        let Place { index, alone } = shard::place(SHARDS);
        histograms[index].add(
            &ADDED_MICROSECONDS,
            added.as_secs_f64() * 1e6,
            added.as_nanos() as u64,
            alone,
        );
    }

    pub(crate) fn retry(&self, reason: &'static str) {
        *self.retries.lock().entry(reason).or_insert(0) += 1;
    }

    /// A policy of `service` did something to a call.
    pub(crate) fn acted(&self, service: &Arc<ServiceLabels>, action: &'static str) {
        self.acts.add(service, action);
    }

    /// Edges that are counted apart, and how often there was no room for one.
    pub(crate) fn edges_kept(&self) -> (usize, u64) {
        let kept = self.edges.lock().len();
        (kept, self.overflowed.load(Ordering::Relaxed))
    }

    /// Makes room, as nobody may ever read the metrics; at most once a second, as it looks through all of them.
    fn drop_idle(&self, edges: &mut HashMap<EdgeKey, Arc<Edge>>) {
        let now = edge::second(Instant::now());
        if self.swept.swap(now, Ordering::Relaxed) != now {
            retain_used(edges, now);
        }
    }

    /// All edges, in the order of their names; those last that there was no room for.
    fn edges(&self) -> Vec<Arc<Edge>> {
        let mut all: Vec<Arc<Edge>> = {
            let mut edges = self.edges.lock();
            retain_used(&mut edges, edge::second(Instant::now()));
            edges.values().cloned().collect()
        };
        all.sort_by(|a, b| a.of.cmp(&b.of));
        all.extend(self.overflow.lock().clone());
        all
    }

    /// What was counted at the end that calls; of those edges that had calls in the time before now.
    pub(crate) fn counted(&self, since: u64, within: Option<Duration>) -> NodeEdges {
        let now = edge::second(Instant::now());
        let all = self.edges().into_iter();
        let asked = all.filter(|edge| {
            edge.of.reporter == Reporter::Source && within.is_none_or(|most| edge.idle(now) <= most)
        });
        NodeEdges {
            since,
            edges: asked.flat_map(|edge| counts(&edge)).collect(),
            overflowed: self.overflowed.load(Ordering::Relaxed),
            services: Vec::new(),
        }
    }

    /// All that was counted of calls and connections, at both ends.
    pub(crate) fn series(&self, since: u64) -> NodeSeries {
        let since = UNIX_EPOCH.checked_add(Duration::from_micros(since));
        series::of(&self.edges(), since)
    }

    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "weft_mesh_request_duration_seconds",
            "Time of calls as their callers saw it, by the way they took.",
            None,
            MetricType::Histogram,
        )?;
        for (transport, histograms) in [
            (Transport::InProcess, &self.in_process),
            (Transport::MutualTls, &self.mtls),
        ] {
            let labels = [("transport", transport.as_str())];
            let encoder = family.encode_family(&labels)?;
            Total::summed(histograms.iter()).encode(encoder, &MICROSECONDS, 1e6, 1e9)?;
        }
        let mut family = encoder.encode_descriptor(
            "weft_mesh_added_seconds",
            "Time to a response's head beyond the workload's own.",
            None,
            MetricType::Histogram,
        )?;
        for (origin, name) in [(Origin::Gateway, "gateway"), (Origin::Workload, "workload")] {
            for transport in [Transport::InProcess, Transport::MutualTls] {
                let histograms = self.added[origin as usize][transport as usize].iter();
                let labels = [("from", name), ("transport", transport.as_str())];
                let encoder = family.encode_family(&labels)?;
                Total::summed(histograms).encode(encoder, &ADDED_MICROSECONDS, 1e6, 1e9)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "weft_mesh_retries",
            "Tries after the first, by what had failed.",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in &*self.retries.lock() {
            let labels = [("reason", *reason)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        self.acts.encode(encoder)?;
        for (name, help, counter) in [
            (
                "weft_mesh_connections_accepted",
                "Connections of other nodes that were accepted.",
                &self.connections_accepted,
            ),
            (
                "weft_mesh_handshakes_failed",
                "Connections of other nodes that proved nothing.",
                &self.handshakes_failed,
            ),
            (
                "weft_mesh_denied",
                "Calls out of the cluster that were denied.",
                &self.denied,
            ),
            (
                "weft_mesh_edges_overflowed",
                "How often there was no room for an edge, so that its call counts under overflow.",
                &self.overflowed,
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(counter.load(Ordering::Relaxed)).encode(family)?;
        }
        Ok(())
    }
}

fn retain_used(edges: &mut HashMap<EdgeKey, Arc<Edge>>, now: u64) {
    // Somebody who still holds it may add to it.
    edges.retain(|_, edge| edge.idle(now) < EDGE_IDLE_MAX || Arc::strong_count(edge) > 1);
}

impl EdgeKey {
    /// Of all that there was no room for.
    fn overflow(reporter: Reporter) -> Self {
        let nobody = Arc::new(WorkloadInfo {
            name: "overflow".to_owned(),
            ..WorkloadInfo::default()
        });
        Self {
            reporter,
            source: Arc::clone(&nobody),
            source_principal: "".into(),
            destination: nobody,
            destination_principal: "".into(),
            service: Arc::new(ServiceLabels::new("overflow", "overflow")),
            transport: None,
        }
    }

    /// How the ends know each other, whoever reports it.
    pub(crate) fn proven(&self) -> &'static str {
        match self.transport {
            Some(Transport::InProcess) => "in_process",
            Some(Transport::MutualTls) => "mutual_tls",
            None => "none",
        }
    }

    /// `connection_security_policy`.
    fn security(&self) -> &'static str {
        match (self.reporter, self.transport) {
            (_, Some(Transport::InProcess)) => "in_process",
            // Istio's sources report unknown, because their proxies cannot tell; its boards expect that.
            (Reporter::Source, _) => "unknown",
            (Reporter::Destination, Some(Transport::MutualTls)) => "mutual_tls",
            (Reporter::Destination, None) => "none",
        }
    }
}

// === Text ===

/// Appends what `inner` counts, of which `spill` may take away what is there, now and then; in OpenMetrics without the end, as more may
/// follow.
pub(crate) fn render(inner: &Arc<Inner>, format: Format, out: &mut String, spill: Spill<'_>) {
    text::edges(&inner.metrics.edges(), format, out, spill);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Counted(Arc::clone(inner))));
    // Writing to a String cannot fail.
    let _ = match format {
        Format::Prometheus => prometheus_text::encode(out, &registry),
        Format::OpenMetrics => openmetrics::encode_registry(out, &registry),
    };
}

/// One mesh, as the crate asks it what it has counted.
struct Counted(Arc<Inner>);

impl fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Counted")
            .field(&self.0.node)
            .finish()
    }
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = &self.0;
        inner.metrics.encode_calls(&mut encoder)?;
        let edges = inner.metrics.edges.lock().len() as u64;
        let table = inner.table.load();
        let ejected = table.ejected(inner.nanos(Instant::now()));
        for (name, help, value) in [
            (
                "weft_mesh_table_generation",
                "Generation of the table of services in force.",
                table.generation(),
            ),
            (
                "weft_mesh_endpoints_ejected",
                "Endpoints that are left alone at the moment: the way to them failed, or they failed or refused calls.",
                ejected as u64,
            ),
            (
                "weft_mesh_breakers_open",
                "Endpoints that policies have left alone for their answers.",
                table.tripped() as u64,
            ),
            (
                "weft_mesh_edges",
                "Callers, callees and services that are counted apart.",
                edges,
            ),
            (
                "weft_mesh_edges_limit",
                "How many may be.",
                EDGES_MAX as u64,
            ),
            (
                "weft_mesh_edge_outcomes_limit",
                "How many ways to end may be counted apart of each of them.",
                edge::SERIES_MAX as u64,
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(family)?;
        }
        policies::encode(&table, inner.nanos(Instant::now()), &mut encoder)?;
        inner.attached.guards().counted.encode(&mut encoder)?;
        let mut family = encoder.encode_descriptor(
            "weft_mesh_svid_expiry_timestamp_seconds",
            "When the certificate of an identity ends.",
            None,
            MetricType::Gauge,
        )?;
        for (identity, expiry) in inner.identities.all() {
            let since = expiry.duration_since(UNIX_EPOCH).unwrap_or_default();
            let labels = [("identity", identity.to_string())];
            ConstGauge::new(since.as_secs()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// An edge as servers are told of it: one for each protocol.
fn counts(edge: &Edge) -> Vec<EdgeCounts> {
    let mut by_protocol: BTreeMap<&'static str, Figures> = BTreeMap::new();
    for series in edge.series().iter() {
        let Outcome {
            code, grpc, flag, ..
        } = series.outcome;
        let durations = series.total(|cells| &cells.duration);
        let counted = durations.buckets.iter().zip(0_u8..);
        let mut groups: BTreeMap<u8, u64> = counted
            .filter(|(count, _)| **count > 0)
            .map(|(count, group)| (group, *count))
            .collect();
        let in_groups: u64 = groups.values().sum();
        if durations.count > in_groups {
            groups.insert(weft_call::edges::LONGER, durations.count - in_groups);
        }
        let how = outcome(code, grpc, flag);
        by_protocol
            .entry(series.outcome.protocol())
            .or_default()
            .add(&Figures {
                outcomes: [(how, durations.count)].into(),
                request_bytes: series.total(|cells| &cells.request_bytes).sum,
                response_bytes: series.total(|cells| &cells.response_bytes).sum,
                duration_micros: durations.sum / 1000,
                durations: groups,
            });
    }
    let key = &edge.of;
    let end = |workload: &WorkloadInfo, principal: &str| EdgeEnd {
        namespace: workload.namespace.clone(),
        workload: workload.name.clone(),
        app: workload.app.clone(),
        version: workload.version.clone(),
        principal: principal.to_owned(),
    };
    let named = |protocol: &str| EdgeName {
        source: end(&key.source, &key.source_principal),
        destination: end(&key.destination, &key.destination_principal),
        service_namespace: key.service.namespace.clone(),
        service: key.service.name.clone(),
        protocol: protocol.to_owned(),
        security: key.proven().to_owned(),
    };
    by_protocol
        .into_iter()
        .map(|(protocol, figures)| EdgeCounts {
            edge: named(protocol),
            figures,
        })
        .collect()
}

impl Outcome {
    /// `request_protocol`.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Outcome { tcp: true, .. } => "tcp",
            Outcome { grpc: Some(_), .. } => "grpc",
            Outcome { .. } => "http",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mesh, Table};

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
        tcp: false,
    };

    #[test]
    fn calls_become_istio_series() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        mesh.publish(Table::builder("a", 7).build());
        let metrics = &mesh.inner.metrics;
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
        mesh.render_metrics(&mut text);
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
            "weft_mesh_request_duration_seconds_bucket{transport=\"in-process\",le=\"5e-06\"} 1",
            "weft_mesh_added_seconds_bucket{from=\"workload\",transport=\"mtls\",le=\"8e-05\"} 0",
            "weft_mesh_added_seconds_bucket{from=\"workload\",transport=\"mtls\",le=\"0.0001\"} 1",
            "weft_mesh_added_seconds_count{from=\"gateway\",transport=\"in-process\"} 0",
            "weft_mesh_retries_total{reason=\"unreachable\"} 1",
            "weft_mesh_table_generation 7",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn connections_are_counted_as_connections() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let edge = mesh.inner.metrics.edge(&key("voting"));
        edge.opened.fetch_add(2, Ordering::Relaxed);
        let closed = Outcome { tcp: true, ..OK };
        edge.record(closed, Duration::from_secs(9), 70, 7, Instant::now());
        let mut text = String::new();
        mesh.render_metrics(&mut text);
        let found = |name: &str| {
            let mut lines = text.lines().filter(|line| line.starts_with(name));
            let line = lines.next().unwrap_or_default();
            assert!(line.contains("request_protocol=\"tcp\""), "{name}: {text}");
            assert!(!line.contains("response_code"), "{line}");
            line.rsplit_once(' ').map(|(_, value)| value.to_owned())
        };
        for (name, value) in [
            ("istio_tcp_connections_opened_total{", "2"),
            ("istio_tcp_connections_closed_total{", "1"),
            ("istio_tcp_sent_bytes_total{", "7"),
            ("istio_tcp_received_bytes_total{", "70"),
        ] {
            assert_eq!(found(name).as_deref(), Some(value), "{name}");
        }
        assert!(!text.contains("istio_requests_total{"), "{text}");
    }

    /// A thousand edges are what a scrape is measured with (`examples/counting.rs`); that all of them are there is what is tried here.
    #[test]
    fn a_thousand_edges_are_written_each_with_its_traces() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        for number in 0..1000 {
            let edge = mesh.inner.metrics.edge(&key(&format!("s{number}")));
            let took = Duration::from_micros(30);
            edge.record(OK, took, 0, 250, Instant::now());
            let exemplar = Exemplar {
                trace_id: 0xab,
                span_id: 0xcd,
                took,
                at: UNIX_EPOCH + Duration::from_millis(1500),
            };
            edge.exemplify(OK, exemplar);
        }
        let mut text = String::new();
        let (mut pieces, mut longest) = (0, 0);
        let mut all = String::new();
        mesh.render_metrics_as(Format::OpenMetrics, &mut text, &mut |piece| {
            pieces += 1;
            longest = longest.max(piece.len());
            all.push_str(&std::mem::take(piece));
        });
        assert!(pieces > 50 && longest < 400_000, "{pieces} of {longest}");
        let text = all + &text;
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("istio_requests_total{"), 1000);
        assert_eq!(count("istio_request_duration_milliseconds_bucket{"), 24_000);
        assert_eq!(count("# TYPE istio_requests counter"), 1);
        assert_eq!(count("# EOF"), 0, "more may follow");
        let with = text.lines().filter(|line| line.contains(" # {"));
        let with: Vec<&str> = with
            .filter_map(|line| line.split_once(",le="))
            .map(|(_, rest)| rest)
            .collect();
        assert_eq!(with.len(), 1000);
        assert_eq!(
            with[0],
            r#""0.05"} 1 # {trace_id="000000000000000000000000000000ab",span_id="00000000000000cd"} 0.03 1.500"#
        );
        let told = mesh.counted_edges(None);
        assert_eq!(told.edges.len(), 1000);
        let figures = &told.edges[0].figures;
        assert_eq!(
            (
                figures.calls(),
                figures.response_bytes,
                figures.duration_micros
            ),
            (1, 250, 30)
        );
        assert_eq!(figures.durations, [(6, 1)].into());
        assert_eq!(told.edges[0].edge.security, "in_process");
    }

    /// What dashboards are built on: names and types are kept, each family says what it is before its samples, and each sample is of
    /// the family before it.
    #[test]
    fn every_family_has_a_name_a_type_and_a_sentence() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let metrics = &mesh.inner.metrics;
        let edge = metrics.edge(&key("a\"b\\c\nd"));
        edge.record(OK, Duration::from_micros(20), 0, 250, Instant::now());
        metrics.retry("connect");
        let mut text = String::new();
        mesh.render_metrics(&mut text);
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
        istio_request_messages_total counter: Messages of gRPC that were sent.
        istio_response_messages_total counter: Messages of gRPC that came back.
        istio_tcp_connections_opened_total counter: Connections that began.
        istio_tcp_connections_closed_total counter: Connections that ended.
        istio_tcp_sent_bytes_total counter: Bytes that came back on connections.
        istio_tcp_received_bytes_total counter: Bytes that were sent on connections.
        weft_mesh_request_duration_seconds histogram: Time of calls as their callers saw it, by the way they took.
        weft_mesh_added_seconds histogram: Time to a response's head beyond the workload's own.
        weft_mesh_retries_total counter: Tries after the first, by what had failed.
        weft_mesh_policy_actions_total counter: What policies did to calls of their services.
        weft_mesh_connections_accepted_total counter: Connections of other nodes that were accepted.
        weft_mesh_handshakes_failed_total counter: Connections of other nodes that proved nothing.
        weft_mesh_denied_total counter: Calls out of the cluster that were denied.
        weft_mesh_edges_overflowed_total counter: How often there was no room for an edge, so that its call counts under overflow.
        weft_mesh_table_generation gauge: Generation of the table of services in force.
        weft_mesh_endpoints_ejected gauge: Endpoints that are left alone at the moment: the way to them failed, or they failed or refused calls.
        weft_mesh_breakers_open gauge: Endpoints that policies have left alone for their answers.
        weft_mesh_edges gauge: Callers, callees and services that are counted apart.
        weft_mesh_edges_limit gauge: How many may be.
        weft_mesh_edge_outcomes_limit gauge: How many ways to end may be counted apart of each of them.
        weft_mesh_retry_budget_left gauge: Retries that a service's budget has left.
        weft_mesh_concurrency_limit gauge: Calls that an endpoint takes at once, by what was measured of it.
        weft_mesh_concurrency_inside gauge: Calls that are with such an endpoint.
        weft_mesh_policy_verdicts_total counter: Calls that policies refused at their callee's node, or would have, or want written down.
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
        assert_eq!(first.series().len(), edge::SERIES_MAX);
    }
}
