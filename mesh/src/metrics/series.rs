//! Series of edges as values, for whoever sends them somewhere else than text goes (`weft_agent`'s OpenTelemetry).
//!
//! Invariant: the same labels and counts as the text has, of the same edges: a receiver that makes Prometheus' metrics of them has the same
//! ones.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use weft_call::edges::DURATION_MICROS;

use super::{
    Edge, EdgeKey, Outcome,
    edge::{BYTES, Series, Total},
    labels,
};

/// Ends of the groups that bytes are counted in.
pub const BYTE_BOUNDS: [f64; BYTES.len()] = BYTES;

/// What calls between two ends came to that ended in one way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallSeries {
    pub labels: Labels,
    /// Connections, and no requests; [`CallSeries::calls`] is those that ended.
    pub is_tcp: bool,
    pub calls: u64,
    /// By the group of [`DURATION_MICROS`], what took longer than all of them last.
    pub durations: Vec<u64>,
    pub duration_nanos: u64,
    pub request_bytes: Bytes,
    pub response_bytes: Bytes,
    /// Sent and received, of gRPC alone.
    pub messages: Option<(u64, u64)>,
    /// Calls among these whose trace is recorded, at most one a group.
    pub exemplars: Vec<CallExemplar>,
}

/// Names and values.
pub type Labels = Vec<(String, String)>;

/// Bytes of bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes {
    /// By the group of [`BYTE_BOUNDS`], what was more than all of them last.
    pub counts: Vec<u64>,
    pub sum: u64,
}

/// A call by which a trace is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallExemplar {
    pub trace_id: u128,
    pub span_id: u64,
    pub took: Duration,
    pub at: SystemTime,
}

/// What a node has counted of calls since it began to, at either end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSeries {
    /// When that was.
    pub since: Option<SystemTime>,
    pub series: Vec<CallSeries>,
    /// Connections that began.
    pub opened: Vec<(Labels, u64)>,
}

/// All series of `edges`.
pub(super) fn of(edges: &[std::sync::Arc<Edge>], since: Option<SystemTime>) -> NodeSeries {
    let mut all = NodeSeries {
        since,
        ..NodeSeries::default()
    };
    for edge in edges {
        let opened = edge.opened.load(Ordering::Relaxed);
        if opened > 0 {
            all.opened.push((labels(&edge.of, None), opened));
        }
        let series = edge.series();
        let told = series.iter().map(|series| one(&edge.of, series));
        all.series.extend(told);
    }
    all
}

fn labels(edge: &EdgeKey, outcome: Option<&Outcome>) -> Labels {
    let mut labels = Labels::new();
    labels::each(edge, outcome, |name, value| {
        labels.push((name.to_owned(), value.to_owned()));
    });
    labels
}

fn one(edge: &EdgeKey, series: &Series) -> CallSeries {
    let durations = series.total(|cells| &cells.duration);
    let groups = 0..=DURATION_MICROS.len();
    let exemplars = groups.filter_map(|group| series.exemplar(group..=group));
    CallSeries {
        labels: labels(edge, Some(&series.outcome)),
        is_tcp: series.outcome.tcp,
        calls: durations.count,
        duration_nanos: durations.sum,
        request_bytes: bytes(&series.total(|cells| &cells.request_bytes)),
        response_bytes: bytes(&series.total(|cells| &cells.response_bytes)),
        messages: series.outcome.grpc.map(|_| {
            let sent = series.sum(|cells| &cells.request_messages);
            (sent, series.sum(|cells| &cells.response_messages))
        }),
        exemplars: exemplars
            .map(|exemplar| CallExemplar {
                trace_id: exemplar.trace_id,
                span_id: exemplar.span_id,
                took: exemplar.took,
                at: exemplar.at,
            })
            .collect(),
        durations: counts(&durations),
    }
}

fn bytes(total: &Total<{ BYTES.len() }>) -> Bytes {
    Bytes {
        counts: counts(total),
        sum: total.sum,
    }
}

/// With those last that are above all bounds.
fn counts<const N: usize>(total: &Total<N>) -> Vec<u64> {
    let mut counts = total.buckets.to_vec();
    let within: u64 = counts.iter().sum();
    counts.push(total.count.saturating_sub(within));
    counts
}
