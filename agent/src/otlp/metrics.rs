//! Counts of edges as metrics, under Istio's names: sums and histograms from the node's start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weft_call::edges::{DURATION_MICROS, EdgeCounts, EdgeName, NodeEdges};

use super::wire::Message;
use super::{Encoded, nanos};

const CUMULATIVE: u64 = 2;

/// All edges as one request of the protocol.
pub(super) fn encode(
    counted: &NodeEdges,
    resource: &[(String, String)],
    now: SystemTime,
) -> Encoded {
    let times = Times {
        since: nanos(UNIX_EPOCH + Duration::from_micros(counted.since)),
        now: nanos(now),
    };
    let mut points = 0;
    let mut request = Message::default();
    request.message(1, |message| {
        message.resource(&[], resource);
        message.message(2, |scope| {
            scope.scope();
            points += sums(scope, times, &counted.edges);
            points += durations(scope, times, &counted.edges);
            for (name, help, of) in BYTES {
                points += counter(scope, times, (name, help, "By"), &counted.edges, of);
            }
        });
    });
    (points, request.into_bytes())
}

type OfEdge = fn(&EdgeCounts) -> u64;

const BYTES: [(&str, &str, OfEdge); 2] = [
    (
        "istio_request_bytes",
        "Bytes in the bodies of requests.",
        |edge| edge.figures.request_bytes,
    ),
    (
        "istio_response_bytes",
        "Bytes in the bodies of responses.",
        |edge| edge.figures.response_bytes,
    ),
];

#[derive(Clone, Copy)]
struct Times {
    since: u64,
    now: u64,
}

impl Times {
    fn write(self, point: &mut Message) {
        point.fixed64(2, self.since);
        point.fixed64(3, self.now);
    }
}

fn sums(scope: &mut Message, times: Times, edges: &[EdgeCounts]) -> u64 {
    let mut points = 0;
    scope.message(2, |metric| {
        metric.text(1, "istio_requests");
        metric.text(2, "Calls, by both ends and how they ended.");
        metric.text(3, "{request}");
        metric.message(7, |sum| {
            for edge in edges {
                for (outcome, count) in &edge.figures.outcomes {
                    sum.message(1, |point| {
                        times.write(point);
                        point.fixed64(6, *count);
                        labels(point, 7, &edge.edge);
                        let (code, flags) = outcome.split_once('/').unwrap_or((outcome, "-"));
                        match code.strip_prefix("grpc-") {
                            Some(status) => {
                                point.attribute(7, "response_code", "200");
                                point.attribute(7, "grpc_response_status", status);
                            }
                            None => point.attribute(7, "response_code", code),
                        }
                        point.attribute(7, "response_flags", flags);
                    });
                    points += 1;
                }
            }
            sum.number(2, CUMULATIVE);
            sum.number(3, 1);
        });
    });
    points
}

fn counter(
    scope: &mut Message,
    times: Times,
    (name, help, unit): (&str, &str, &str),
    edges: &[EdgeCounts],
    of: OfEdge,
) -> u64 {
    scope.message(2, |metric| {
        metric.text(1, name);
        metric.text(2, help);
        metric.text(3, unit);
        metric.message(7, |sum| {
            for edge in edges {
                sum.message(1, |point| {
                    times.write(point);
                    point.fixed64(6, of(edge));
                    labels(point, 7, &edge.edge);
                });
            }
            sum.number(2, CUMULATIVE);
            sum.number(3, 1);
        });
    });
    edges.len() as u64
}

fn durations(scope: &mut Message, times: Times, edges: &[EdgeCounts]) -> u64 {
    scope.message(2, |metric| {
        metric.text(1, "istio_request_duration_milliseconds");
        metric.text(2, "Time from a request to the end of its response.");
        metric.text(3, "ms");
        metric.message(9, |histogram| {
            for edge in edges {
                let figures = &edge.figures;
                histogram.message(1, |point| {
                    times.write(point);
                    point.fixed64(4, figures.calls());
                    point.double(5, figures.duration_micros as f64 / 1e3);
                    let groups = 0..=DURATION_MICROS.len();
                    let counts = groups.map(|group| {
                        let group = u8::try_from(group).unwrap_or(u8::MAX);
                        figures.durations.get(&group).copied().unwrap_or_default()
                    });
                    point.packed(6, counts);
                    let bounds = DURATION_MICROS.iter();
                    point.packed(7, bounds.map(|bound| (bound / 1e3).to_bits()));
                    labels(point, 9, &edge.edge);
                });
            }
            histogram.number(2, CUMULATIVE);
        });
    });
    edges.len() as u64
}

fn labels(point: &mut Message, field: u32, edge: &EdgeName) {
    let (source, destination) = (&edge.source, &edge.destination);
    for (name, value) in [
        ("reporter", "source"),
        ("source_workload", &source.workload),
        ("source_workload_namespace", &source.namespace),
        ("source_principal", &source.principal),
        ("source_app", &source.app),
        ("source_version", &source.version),
        ("destination_workload", &destination.workload),
        ("destination_workload_namespace", &destination.namespace),
        ("destination_principal", &destination.principal),
        ("destination_app", &destination.app),
        ("destination_version", &destination.version),
        ("destination_service_name", &edge.service),
        ("destination_service_namespace", &edge.service_namespace),
        ("request_protocol", &edge.protocol),
        ("connection_security_policy", &edge.security),
    ] {
        let value = if value.is_empty() { "unknown" } else { value };
        point.attribute(field, name, value);
    }
}
