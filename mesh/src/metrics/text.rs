//! Series of edges as text: of Prometheus, or of OpenMetrics with exemplars.
//!
//! A series is fifty lines that begin alike, and a node may have thousands: the labels of each are put together once a family and copied from
//! then on. A thousand edges are some 40 MB, which takes tens of milliseconds (`examples/counting.rs`) and is never there as a whole: whoever
//! reads takes it away piece by piece.
//!
//! Invariants: a piece is [`PIECE_BYTES`] and one series at most; families come one after the other, each after what it is; of a label's
//! value nothing ends the line or the quotes that it is in.
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://istio.io/latest/docs/reference/config/metrics/>.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use weft_call::edges::DURATION_MICROS;

use super::{
    Edge, EdgeKey, Outcome,
    edge::{BYTES, Cells, Exemplar, Series, Total},
    labels,
};

/// Ends of the groups that are shown of durations, in microseconds: Istio's, and four below them.
const SHOWN_MICROS: [f64; 23] = [
    10.0, 50.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6,
    1e7, 3e7, 6e7, 3e8, 6e8, 1.8e9, 3.6e9,
];

/// What of a line its labels take, mostly.
const LINE_BYTES_USUAL: usize = 1000;
/// After how much text it may be taken away.
const PIECE_BYTES: usize = 256 << 10;

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

/// Takes text away, or leaves it.
pub(crate) type Spill<'s> = &'s mut dyn FnMut(&mut String);

/// Appends all families of `edges`, of which `spill` may take away what is there, now and then.
pub(super) fn edges(edges: &[Arc<Edge>], format: Format, out: &mut String, spill: Spill<'_>) {
    let mut text = Text {
        format,
        out,
        spill,
        labels: String::with_capacity(LINE_BYTES_USUAL),
    };
    text.family(
        "istio_requests",
        "counter",
        "Calls, by both ends and how they ended.",
    );
    text.each(edges, false, |text, series| {
        let count = series.total(|cells| &cells.duration).count;
        text.line("istio_requests_total", count);
    });
    text.durations(edges);
    text.bytes(
        "istio_request_bytes",
        "Bytes in the bodies of requests.",
        edges,
        |series| series.total(|cells| &cells.request_bytes),
    );
    text.bytes(
        "istio_response_bytes",
        "Bytes in the bodies of responses.",
        edges,
        |series| series.total(|cells| &cells.response_bytes),
    );

    for (name, help, which) in MESSAGES {
        text.family(name, "counter", help);
        let sample = format!("{name}_total");
        text.each(edges, false, |text, series| {
            if series.outcome.grpc.is_some() {
                text.line(&sample, series.sum(which));
            }
        });
    }

    text.family(
        "istio_tcp_connections_opened",
        "counter",
        "Connections that began.",
    );
    for edge in edges {
        let opened = edge.opened.load(Ordering::Relaxed);
        if opened > 0 {
            text.label(&edge.of, None);
            text.line("istio_tcp_connections_opened_total", opened);
        }
    }
    for (name, help, count) in TCP {
        text.family(name, "counter", help);
        let sample = format!("{name}_total");
        text.each(edges, true, |text, series| {
            text.line(&sample, count(series));
        });
    }
}

type OfMessages = (&'static str, &'static str, fn(&Cells) -> &AtomicU64);

/// Messages of gRPC.
const MESSAGES: [OfMessages; 2] = [
    (
        "istio_request_messages",
        "Messages of gRPC that were sent.",
        |cells| &cells.request_messages,
    ),
    (
        "istio_response_messages",
        "Messages of gRPC that came back.",
        |cells| &cells.response_messages,
    ),
];

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
    spill: Spill<'o>,
    /// Of the lines that are written.
    labels: String,
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

    /// Has each series of requests, or of connections, written.
    fn each(
        &mut self,
        edges: &[Arc<Edge>],
        is_tcp: bool,
        mut write: impl FnMut(&mut Self, &Series),
    ) {
        for edge in edges {
            let all = edge.series();
            for series in all.iter().filter(|one| one.outcome.tcp == is_tcp) {
                self.label(&edge.of, Some(&series.outcome));
                write(self, series);
                if self.out.len() >= PIECE_BYTES {
                    (self.spill)(self.out);
                }
            }
        }
    }

    /// The labels of the lines from here on.
    fn label(&mut self, edge: &EdgeKey, outcome: Option<&Outcome>) {
        let out = &mut self.labels;
        out.clear();
        labels::each(edge, outcome, |name, value| {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(name);
            out.push_str("=\"");
            if !value.contains(['\\', '"', '\n']) {
                out.push_str(value);
                out.push('"');
                return;
            }
            for character in value.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    other => out.push(other),
                }
            }
            out.push('"');
        });
    }

    fn line(&mut self, name: &str, count: u64) {
        let _ = writeln!(self.out, "{name}{{{}}} {count}", self.labels);
    }

    fn durations(&mut self, edges: &[Arc<Edge>]) {
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
        self.each(edges, false, |text, series| {
            let total = series.total(|cells| &cells.duration);
            let mut counted = 0;
            let mut from = 0;
            for (bound, to) in &bounds {
                let here = total.buckets.get(from..=*to).unwrap_or_default();
                counted += here.iter().sum::<u64>();
                let exemplar = text.exemplar(series, from..=*to);
                text.bucket(name, bound, counted, exemplar);
                from = to + 1;
            }
            let exemplar = text.exemplar(series, from..=DURATION_MICROS.len());
            text.bucket(name, "+Inf", total.count, exemplar);
            text.sum(name, total.sum as f64 / 1e6, total.count);
        });
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
        edges: &[Arc<Edge>],
        which: fn(&Series) -> Total<{ BYTES.len() }>,
    ) {
        self.family(name, "histogram", help);
        let bounds = BYTES.map(|bound| self.format.float(bound));
        self.each(edges, false, |text, series| {
            let total = which(series);
            let mut counted = 0;
            for (bound, here) in bounds.iter().zip(total.buckets) {
                counted += here;
                text.bucket(name, bound, counted, None);
            }
            text.bucket(name, "+Inf", total.count, None);
            text.sum(name, total.sum as f64, total.count);
        });
    }

    fn bucket(&mut self, name: &str, bound: &str, count: u64, exemplar: Option<Exemplar>) {
        let out = &mut *self.out;
        for part in [name, "_bucket{", &self.labels, ",le=\"", bound, "\"} "] {
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

    fn sum(&mut self, name: &str, sum: f64, count: u64) {
        let (sum, labels) = (self.format.float(sum), &self.labels);
        let _ = write!(
            self.out,
            "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n"
        );
    }
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
