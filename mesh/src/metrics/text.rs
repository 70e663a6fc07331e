//! Series of edges as text: of Prometheus, or of OpenMetrics with exemplars.
//!
//! A series is fifty lines that begin alike, and a node may have thousands: the labels of each are written once and copied from then on.
//! A thousand edges are some 40 MB, which takes tens of milliseconds (`examples/counting.rs`).
//!
//! Invariants: families come one after the other, each after what it is; of a label's value nothing ends the line or the quotes that it is in.
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://istio.io/latest/docs/reference/config/metrics/>.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::UNIX_EPOCH,
};

use weft_call::edges::DURATION_MICROS;

use super::{
    Edge, EdgeKey, Outcome, Reporter,
    edge::{BYTES, Exemplar, Series, Total},
};

/// Ends of the groups that are shown of durations, in microseconds: Istio's, and four below them.
const SHOWN_MICROS: [f64; 23] = [
    10.0, 50.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6,
    1e7, 3e7, 6e7, 3e8, 6e8, 1.8e9, 3.6e9,
];

/// What of a line its labels take, mostly; of a series there are so many lines.
const LINE_BYTES_USUAL: usize = 1000;
const SERIES_LINES: usize = 48;

/// How metrics are written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Prometheus,
    /// With the traces of some calls as exemplars; its end, `# EOF`, is whoever's who writes the last.
    OpenMetrics,
}

impl Format {
    /// The one that a reader takes, by its `Accept`: OpenMetrics where it names that.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let mut ranges = accept.split(',').map(|range| range.split(';').next());
        match ranges.any(|range| range.map(str::trim) == Some("application/openmetrics-text")) {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// A number that is no count.
    fn float(self, value: f64) -> String {
        match self {
            Format::OpenMetrics if value.fract() == 0.0 => format!("{value:.1}"),
            _ => value.to_string(),
        }
    }
}

/// One series and the labels of its lines.
struct Row {
    labels: String,
    series: Arc<Series>,
}

/// Appends all families of `edges`.
pub(super) fn edges(edges: &[Arc<Edge>], format: Format, out: &mut String) {
    let mut requests = Vec::new();
    let mut connections = Vec::new();
    for edge in edges {
        for series in edge.series().iter() {
            let row = Row {
                labels: labels(&edge.of, Some(&series.outcome)),
                series: Arc::clone(series),
            };
            match series.outcome.tcp {
                true => connections.push(row),
                false => requests.push(row),
            }
        }
    }
    out.reserve((requests.len() * SERIES_LINES + connections.len() * 3) * LINE_BYTES_USUAL);
    let mut text = Text { format, out };

    text.family(
        "istio_requests",
        "counter",
        "Calls, by both ends and how they ended.",
    );
    for row in &requests {
        let count = row.series.total(|cells| &cells.duration).count;
        text.line("istio_requests_total", &row.labels, count);
    }
    text.durations(&requests);
    text.bytes(
        "istio_request_bytes",
        "Bytes in the bodies of requests.",
        &requests,
        |series| series.total(|cells| &cells.request_bytes),
    );
    text.bytes(
        "istio_response_bytes",
        "Bytes in the bodies of responses.",
        &requests,
        |series| series.total(|cells| &cells.response_bytes),
    );

    text.family(
        "istio_tcp_connections_opened",
        "counter",
        "Connections that began.",
    );
    for edge in edges {
        let opened = edge.opened.load(Ordering::Relaxed);
        if opened > 0 {
            text.line(
                "istio_tcp_connections_opened_total",
                &labels(&edge.of, None),
                opened,
            );
        }
    }
    for (name, help, count) in TCP {
        text.family(name, "counter", help);
        let sample = format!("{name}_total");
        for row in &connections {
            text.line(&sample, &row.labels, count(&row.series));
        }
    }
}

type OfConnections = (&'static str, &'static str, fn(&Series) -> u64);

/// Sent and received as Istio has it: by whoever was connected to.
const TCP: [OfConnections; 3] = [
    (
        "istio_tcp_connections_closed",
        "Connections that ended.",
        |series| series.total(|cells| &cells.duration).count,
    ),
    (
        "istio_tcp_sent_bytes",
        "Bytes that came back on connections.",
        |series| series.total(|cells| &cells.response_bytes).sum,
    ),
    (
        "istio_tcp_received_bytes",
        "Bytes that were sent on connections.",
        |series| series.total(|cells| &cells.request_bytes).sum,
    ),
];

struct Text<'o> {
    format: Format,
    out: &'o mut String,
}

// Writing to a String cannot fail.
impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Prometheus' families of counters are called as their samples are.
        let suffix = match self.format {
            Format::Prometheus if kind == "counter" => "_total",
            _ => "",
        };
        let _ = write!(
            self.out,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
        );
    }

    fn line(&mut self, name: &str, labels: &str, count: u64) {
        let _ = writeln!(self.out, "{name}{{{labels}}} {count}");
    }

    fn durations(&mut self, rows: &[Row]) {
        let name = "istio_request_duration_milliseconds";
        self.family(
            name,
            "histogram",
            "Time from a request to the end of its response.",
        );
        let bounds = SHOWN_MICROS.map(|bound| {
            let ours = DURATION_MICROS.partition_point(|known| *known < bound);
            (self.format.float(bound / 1e3), ours)
        });
        for row in rows {
            let total = row.series.total(|cells| &cells.duration);
            let mut counted = 0;
            let mut from = 0;
            for (bound, to) in &bounds {
                let here = total.buckets.get(from..=*to).unwrap_or_default();
                counted += here.iter().sum::<u64>();
                let exemplar = self.exemplar(&row.series, from..=*to);
                self.bucket(name, &row.labels, bound, counted, exemplar);
                from = to + 1;
            }
            let exemplar = self.exemplar(&row.series, from..=DURATION_MICROS.len());
            self.bucket(name, &row.labels, "+Inf", total.count, exemplar);
            self.sum(name, &row.labels, total.sum as f64 / 1e6, total.count);
        }
    }

    fn exemplar(
        &self,
        series: &Series,
        groups: std::ops::RangeInclusive<usize>,
    ) -> Option<Exemplar> {
        match self.format {
            Format::Prometheus => None,
            Format::OpenMetrics => series.exemplar(groups),
        }
    }

    fn bytes(
        &mut self,
        name: &str,
        help: &str,
        rows: &[Row],
        which: fn(&Series) -> Total<{ BYTES.len() }>,
    ) {
        self.family(name, "histogram", help);
        let bounds = BYTES.map(|bound| self.format.float(bound));
        for row in rows {
            let total = which(&row.series);
            let mut counted = 0;
            for (bound, here) in bounds.iter().zip(total.buckets) {
                counted += here;
                self.bucket(name, &row.labels, bound, counted, None);
            }
            self.bucket(name, &row.labels, "+Inf", total.count, None);
            self.sum(name, &row.labels, total.sum as f64, total.count);
        }
    }

    fn bucket(
        &mut self,
        name: &str,
        labels: &str,
        bound: &str,
        count: u64,
        exemplar: Option<Exemplar>,
    ) {
        let out = &mut *self.out;
        for part in [name, "_bucket{", labels, ",le=\"", bound, "\"} "] {
            out.push_str(part);
        }
        let _ = write!(out, "{count}");
        if let Some(exemplar) = exemplar {
            let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let _ = write!(
                out,
                " # {{trace_id=\"{:032x}\",span_id=\"{:016x}\"}} {} {:.3}",
                exemplar.trace_id,
                exemplar.span_id,
                exemplar.took.as_nanos() as f64 / 1e6,
                at.as_secs_f64()
            );
        }
        out.push('\n');
    }

    fn sum(&mut self, name: &str, labels: &str, sum: f64, count: u64) {
        let sum = self.format.float(sum);
        let _ = write!(
            self.out,
            "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n"
        );
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

/// In Istio's order; of connections that began, how they end is not known.
fn labels(edge: &EdgeKey, outcome: Option<&Outcome>) -> String {
    let mut out = String::with_capacity(LINE_BYTES_USUAL);
    let mut label = |name: &str, value: &str| {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    };
    label(
        "reporter",
        match edge.reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        },
    );
    let (of_source, of_destination) = (&edge.source, &edge.destination);
    for (name, value) in [
        ("source_workload", of_source.name.as_str()),
        ("source_workload_namespace", &of_source.namespace),
        ("source_principal", &edge.source_principal),
        ("source_app", &of_source.app),
        ("source_version", &of_source.version),
        ("source_cluster", "Kubernetes"),
        ("source_canonical_service", &of_source.canonical_service),
        ("source_canonical_revision", &of_source.canonical_revision),
        ("destination_workload", &of_destination.name),
        ("destination_workload_namespace", &of_destination.namespace),
        ("destination_principal", &edge.destination_principal),
        ("destination_app", &of_destination.app),
        ("destination_version", &of_destination.version),
        ("destination_cluster", "Kubernetes"),
        (
            "destination_canonical_service",
            &of_destination.canonical_service,
        ),
        (
            "destination_canonical_revision",
            &of_destination.canonical_revision,
        ),
    ] {
        label(name, known(value));
    }
    let (name, namespace) = (edge.service.name.as_str(), &edge.service.namespace);
    let full_name = match namespace.as_str() {
        _ if name.is_empty() => String::new(),
        "" => name.to_owned(),
        namespace => format!("{name}.{namespace}.svc.cluster.local"),
    };
    for (name, value) in [
        ("destination_service", full_name.as_str()),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("connection_security_policy", edge.security()),
        ("request_protocol", outcome.map_or("tcp", Outcome::protocol)),
    ] {
        label(name, known(value));
    }
    match outcome {
        None => {}
        Some(Outcome {
            tcp: true, flag, ..
        }) => label("response_flags", flag),
        Some(outcome) => {
            label("response_code", &outcome.code.to_string());
            let status = outcome.grpc.map(|status| status.to_string());
            label("grpc_response_status", &status.unwrap_or_default());
            label("response_flags", outcome.flag);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_given_what_it_takes() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain;version=0.0.4", Format::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                Format::OpenMetrics,
            ),
            (
                "text/plain;q=0.3, application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn what_is_shown_is_a_sum_of_what_is_counted() {
        for bound in SHOWN_MICROS {
            assert!(DURATION_MICROS.contains(&bound), "{bound}");
        }
    }
}
