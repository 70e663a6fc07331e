//! What was counted of calls as metrics, under Istio's names: sums and histograms from the node's start, at both ends of each call.
//!
//! Names and labels are those of the text that Prometheus reads: what a receiver makes Prometheus' metrics of is the same as a scrape. Calls
//! whose trace is recorded are exemplars of their duration.

use std::time::SystemTime;

use weft_call::edges::DURATION_MICROS;
use weft_mesh::{BYTE_BOUNDS, CallExemplar, CallSeries, Labels, NodeSeries, SeriesBytes};

use super::wire::Message;
use super::{Encoded, nanos};

const CUMULATIVE: u64 = 2;
/// Series of one message: half a megabyte to one, where receivers of gRPC take four.
const SERIES_MAX: usize = 200;

/// All series as requests of the protocol.
pub(super) fn encode(
    counted: &NodeSeries,
    resource: &[(String, String)],
    now: SystemTime,
) -> Vec<Encoded> {
    let parts = counted
        .series
        .chunks(SERIES_MAX)
        .map(|part| (part, &[][..]));
    let opened = counted
        .opened
        .chunks(SERIES_MAX)
        .map(|part| (&[][..], part));
    let parts = parts.chain(opened);
    parts
        .map(|(series, opened)| one(counted, (series, opened), resource, now))
        .collect()
}

type Opened<'o> = &'o [(Labels, u64)];

fn one(
    counted: &NodeSeries,
    (series, opened): (&[CallSeries], Opened<'_>),
    resource: &[(String, String)],
    now: SystemTime,
) -> Encoded {
    let times = Times {
        since: counted.since.map(nanos).unwrap_or_default(),
        now: nanos(now),
    };
    let (connections, requests): (Vec<_>, Vec<_>) = series.iter().partition(|series| series.is_tcp);
    let mut written = Written { times, points: 0 };
    let mut request = Message::default();
    request.message(1, |message| {
        message.resource(&[], resource);
        message.message(2, |scope| {
            scope.scope();
            written.requests(scope, &requests);
            written.messages(scope, &requests);
            written.connections(scope, opened, &connections);
        });
    });
    (written.points, request.into_bytes())
}

#[derive(Clone, Copy)]
struct Times {
    since: u64,
    now: u64,
}

/// What is said of each point, and how many are written.
struct Written {
    times: Times,
    points: u64,
}

/// Name, what it is, and its unit.
type Named = (&'static str, &'static str, &'static str);

/// What is read of a series.
type Sizes = fn(&CallSeries) -> &SeriesBytes;
type Sum = fn(&CallSeries) -> u64;

impl Written {
    fn requests(&mut self, scope: &mut Message, requests: &[&CallSeries]) {
        if requests.is_empty() {
            return;
        }
        let named = (
            "istio_requests",
            "Calls, by both ends and how they ended.",
            "{request}",
        );
        let counts = requests.iter().map(|series| (&series.labels, series.calls));
        self.sum(scope, named, counts);
        let bounds = DURATION_MICROS.map(|bound| bound / 1e3);
        let named = (
            "istio_request_duration_milliseconds",
            "Time from a request to the end of its response.",
            "ms",
        );
        self.histogram(scope, named, &bounds, requests, |series| Spread {
            counts: &series.durations,
            sum: series.duration_nanos as f64 / 1e6,
            exemplars: &series.exemplars,
        });
        let sizes: [(Named, Sizes); 2] = [
            (
                (
                    "istio_request_bytes",
                    "Bytes in the bodies of requests.",
                    "By",
                ),
                |series| &series.request_bytes,
            ),
            (
                (
                    "istio_response_bytes",
                    "Bytes in the bodies of responses.",
                    "By",
                ),
                |series| &series.response_bytes,
            ),
        ];
        for (named, which) in sizes {
            self.histogram(scope, named, &BYTE_BOUNDS, requests, |series| Spread {
                counts: &which(series).counts,
                sum: which(series).sum as f64,
                exemplars: &[],
            });
        }
    }

    fn messages(&mut self, scope: &mut Message, requests: &[&CallSeries]) {
        let all = requests
            .iter()
            .filter_map(|series| Some((&series.labels, series.messages?)));
        if all.clone().next().is_none() {
            return;
        }
        let sent = (
            "istio_request_messages",
            "Messages of gRPC that were sent.",
            "{message}",
        );
        let counts = all.clone().map(|(labels, (sent, _))| (labels, sent));
        self.sum(scope, sent, counts);
        let received = (
            "istio_response_messages",
            "Messages of gRPC that came back.",
            "{message}",
        );
        let counts = all.map(|(labels, (_, received))| (labels, received));
        self.sum(scope, received, counts);
    }

    fn connections(&mut self, scope: &mut Message, opened: Opened<'_>, ended: &[&CallSeries]) {
        if !opened.is_empty() {
            let named = (
                "istio_tcp_connections_opened",
                "Connections that began.",
                "{connection}",
            );
            let counts = opened.iter().map(|(labels, count)| (labels, *count));
            self.sum(scope, named, counts);
        }
        if ended.is_empty() {
            return;
        }
        let sums: [(Named, Sum); 3] = [
            (
                (
                    "istio_tcp_connections_closed",
                    "Connections that ended.",
                    "{connection}",
                ),
                |series| series.calls,
            ),
            (
                (
                    "istio_tcp_sent_bytes",
                    "Bytes that came back on connections.",
                    "By",
                ),
                |series| series.response_bytes.sum,
            ),
            (
                (
                    "istio_tcp_received_bytes",
                    "Bytes that were sent on connections.",
                    "By",
                ),
                |series| series.request_bytes.sum,
            ),
        ];
        for (named, of) in sums {
            let counts = ended.iter().map(|series| (&series.labels, of(series)));
            self.sum(scope, named, counts);
        }
    }

    fn sum<'s>(
        &mut self,
        scope: &mut Message,
        named: Named,
        counts: impl Iterator<Item = (&'s Labels, u64)>,
    ) {
        scope.message(2, |metric| {
            head(metric, named);
            metric.message(7, |sum| {
                for (labels, count) in counts {
                    sum.message(1, |point| {
                        self.times.write(point);
                        point.fixed64(6, count);
                        write_labels(point, 7, labels);
                    });
                    self.points += 1;
                }
                sum.number(2, CUMULATIVE);
                // It only grows.
                sum.number(3, 1);
            });
        });
    }

    fn histogram(
        &mut self,
        scope: &mut Message,
        named: Named,
        bounds: &[f64],
        all: &[&CallSeries],
        of: impl Fn(&CallSeries) -> Spread<'_>,
    ) {
        scope.message(2, |metric| {
            head(metric, named);
            metric.message(9, |histogram| {
                for series in all {
                    let spread = of(series);
                    histogram.message(1, |point| {
                        self.times.write(point);
                        point.fixed64(4, spread.counts.iter().sum());
                        point.double(5, spread.sum);
                        point.packed(6, spread.counts.iter().copied());
                        point.packed(7, bounds.iter().map(|bound| bound.to_bits()));
                        for exemplar in spread.exemplars {
                            point.message(8, |written| write_exemplar(written, exemplar));
                        }
                        write_labels(point, 9, &series.labels);
                    });
                    self.points += 1;
                }
                histogram.number(2, CUMULATIVE);
            });
        });
    }
}

/// What one series has of a histogram.
struct Spread<'s> {
    counts: &'s [u64],
    sum: f64,
    exemplars: &'s [CallExemplar],
}

impl Times {
    fn write(self, point: &mut Message) {
        point.fixed64(2, self.since);
        point.fixed64(3, self.now);
    }
}

fn head(metric: &mut Message, (name, help, unit): Named) {
    metric.text(1, name);
    metric.text(2, help);
    metric.text(3, unit);
}

fn write_labels(point: &mut Message, field: u32, labels: &Labels) {
    for (name, value) in labels {
        point.attribute(field, name, value);
    }
}

fn write_exemplar(written: &mut Message, exemplar: &CallExemplar) {
    written.fixed64(2, nanos(exemplar.at));
    written.double(3, exemplar.took.as_nanos() as f64 / 1e6);
    written.bytes(4, &exemplar.span_id.to_be_bytes());
    written.bytes(5, &exemplar.trace_id.to_be_bytes());
}
