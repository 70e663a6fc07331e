//! Counters and histograms of the mesh, under Istio's names and labels, as Prometheus text.
//!
//! An [`Edge`] is one caller workload, one callee workload and one service; a call holds it and adds to it (`edge.rs`).
//! Response codes are series below an edge. Istio's latency buckets begin at half a millisecond, where an in-memory call has
//! long ended, so finer ones come first. Text is prometheus-client's, which adds `_total` to the names of counters.
//!
//! Invariants: no label comes from an unauthenticated party (paths, hosts and headers of clients never do); the
//! number of edges is bounded, what exceeds it counts under `overflow`. `connection_security_policy` says
//! `in_process` for in-memory calls: they are not mutual TLS and do not claim to be.
//! Source of names: <https://istio.io/latest/docs/reference/config/metrics/>.

mod edge;
mod policies;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel, EncodeLabelKey, EncodeLabelSet, EncodeMetric,
        LabelKeyEncoder, LabelSetEncoder, prometheus_text,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

pub(crate) use edge::{Edge, Outcome};

use crate::{
    Inner, Transport, WorkloadInfo,
    shard::{self, SHARDS},
    table::ServiceLabels,
};
use edge::{BYTES, Cells, DURATION_MS, Histogram, Series, Total};
use policies::Acts;

/// Edges kept; 4,096 of them with two codes each are about 4 MB.
const EDGES_MAX: usize = 4096;

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
pub(crate) enum Reporter {
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
    overflow: Mutex<Option<(EdgeKey, Arc<Edge>)>>,
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
            let mut overflow = self.overflow.lock();
            let (_, edge) =
                overflow.get_or_insert_with(|| (EdgeKey::overflow(key.reporter), Arc::default()));
            return Arc::clone(edge);
        }
        let edge = Arc::<Edge>::default();
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

    /// A policy of `service` did something to a call.
    pub(crate) fn acted(&self, service: &Arc<ServiceLabels>, action: &'static str) {
        self.acts.add(service, action);
    }

    /// Makes room, as nobody may ever read the metrics; at most once a second, as it looks through all of them.
    fn drop_idle(&self, edges: &mut HashMap<EdgeKey, Arc<Edge>>) {
        let now = edge::second(Instant::now());
        if self.swept.swap(now, Ordering::Relaxed) != now {
            retain_used(edges, now);
        }
    }

    /// All series, in the order of their edges.
    fn rows(&self) -> Vec<Row> {
        let mut edges: Vec<(EdgeKey, Arc<Edge>)> = {
            let mut edges = self.edges.lock();
            retain_used(&mut edges, edge::second(Instant::now()));
            let all = edges.iter();
            all.map(|(key, edge)| (key.clone(), Arc::clone(edge)))
                .collect()
        };
        edges.sort_by(|(a, _), (b, _)| a.cmp(b));
        edges.extend(self.overflow.lock().clone());
        let rows = edges.iter().flat_map(|(key, edge)| {
            let series = Arc::unwrap_or_clone(edge.series());
            series
                .into_iter()
                .map(move |series| Row(key.clone(), series))
        });
        rows.collect()
    }

    fn encode_edges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.rows();
        let mut family = encoder.encode_descriptor(
            "istio_requests",
            "Calls, by both ends and how they ended.",
            None,
            MetricType::Counter,
        )?;
        for row in &rows {
            let count = row.1.total(|cells| &cells.duration).count;
            ConstCounter::new(count).encode(family.encode_family(row)?)?;
        }
        encode_rows(
            encoder,
            &rows,
            "istio_request_duration_milliseconds",
            "Time from a request to the end of its response.",
            |cells| &cells.duration,
            (&DURATION_MS, 1e6),
        )?;
        encode_rows(
            encoder,
            &rows,
            "istio_request_bytes",
            "Bytes in the bodies of requests.",
            |cells| &cells.request_bytes,
            (&BYTES, 1.0),
        )?;
        encode_rows(
            encoder,
            &rows,
            "istio_response_bytes",
            "Bytes in the bodies of responses.",
            |cells| &cells.response_bytes,
            (&BYTES, 1.0),
        )
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

/// Appends what `inner` counts in Prometheus' text format.
pub(crate) fn render(inner: &Arc<Inner>, out: &mut String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Counted(Arc::clone(inner))));
    // Writing to a String cannot fail.
    let _ = prometheus_text::encode(out, &registry);
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
        inner.metrics.encode_edges(&mut encoder)?;
        inner.metrics.encode_calls(&mut encoder)?;
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

/// One histogram of every series; bounds as they are shown, and by what the sum is divided to be.
fn encode_rows<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    which: fn(&Cells) -> &Histogram<N>,
    (bounds, sum_per_unit): (&[f64; N], f64),
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for row in rows {
        let encoder = family.encode_family(row)?;
        let total = row.1.total(which);
        total.encode(encoder, bounds, 1.0, sum_per_unit)?;
    }
    Ok(())
}

/// One series and what it is of.
struct Row(EdgeKey, Arc<Series>);

/// The name of a label that both ends of a call have.
struct OfEnd(&'static str, &'static str);

impl EncodeLabelKey for OfEnd {
    fn encode(&self, encoder: &mut LabelKeyEncoder<'_>) -> fmt::Result {
        let Self(end, name) = self;
        encoder.write_str(end)?;
        encoder.write_str("_")?;
        encoder.write_str(name)
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

impl EncodeLabelSet for Row {
    /// In Istio's order.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self(edge, series) = self;
        let reporter = match edge.reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        };
        ("reporter", reporter).encode(encoder.encode_label())?;
        for (end, workload, principal) in [
            ("source", &edge.source, &edge.source_principal),
            (
                "destination",
                &edge.destination,
                &edge.destination_principal,
            ),
        ] {
            for (name, value) in [
                ("workload", workload.name.as_str()),
                ("workload_namespace", &workload.namespace),
                ("principal", principal),
                ("app", &workload.app),
                ("version", &workload.version),
                ("cluster", "Kubernetes"),
                ("canonical_service", &workload.canonical_service),
                ("canonical_revision", &workload.canonical_revision),
            ] {
                (OfEnd(end, name), known(value)).encode(encoder.encode_label())?;
            }
        }
        let (name, namespace) = (edge.service.name.as_str(), &edge.service.namespace);
        let full_name = match namespace.as_str() {
            _ if name.is_empty() => String::new(),
            "" => name.to_owned(),
            namespace => format!("{name}.{namespace}.svc.cluster.local"),
        };
        let Outcome { code, grpc, flag } = series.outcome;
        let protocol = if grpc.is_some() { "grpc" } else { "http" };
        for (name, value) in [
            ("destination_service", full_name.as_str()),
            ("destination_service_name", name),
            ("destination_service_namespace", namespace),
            ("connection_security_policy", edge.security()),
            ("request_protocol", protocol),
        ] {
            (name, known(value)).encode(encoder.encode_label())?;
        }
        ("response_code", code).encode(encoder.encode_label())?;
        ("grpc_response_status", grpc).encode(encoder.encode_label())?;
        ("response_flags", flag).encode(encoder.encode_label())
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
        weft_mesh_request_duration_seconds histogram: Time of calls as their callers saw it, by the way they took.
        weft_mesh_added_seconds histogram: Time to a response's head beyond the workload's own.
        weft_mesh_retries_total counter: Tries after the first, by what had failed.
        weft_mesh_policy_actions_total counter: What policies did to calls of their services.
        weft_mesh_connections_accepted_total counter: Connections of other nodes that were accepted.
        weft_mesh_handshakes_failed_total counter: Connections of other nodes that proved nothing.
        weft_mesh_denied_total counter: Calls out of the cluster that were denied.
        weft_mesh_table_generation gauge: Generation of the table of services in force.
        weft_mesh_endpoints_ejected gauge: Endpoints that are left alone at the moment: the way to them failed, or they failed or refused calls.
        weft_mesh_breakers_open gauge: Endpoints that policies have left alone for their answers.
        weft_mesh_retry_budget_left gauge: Retries that a service's budget has left.
        weft_mesh_concurrency_limit gauge: Calls that an endpoint takes at once, by what was measured of it.
        weft_mesh_concurrency_inside gauge: Calls that are with such an endpoint.
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
