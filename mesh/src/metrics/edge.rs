//! What a finished call adds to: a few atomics of this thread's copy, relaxed, without a lock.
//!
//! An [`Edge`] is one caller, callee and service, and is held by its calls; how they ended are [`Series`] below it. Whoever reads sums up
//! the copies. `examples/counting.rs` has what that saves beside histograms with a lock.
//!
//! Invariants: an edge has at most [`SERIES_MAX`] series; nothing here knows a label.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

use crate::shard::{self, SHARDS};

/// Codes and protocols kept apart below one edge; further ones share the last.
pub(crate) const SERIES_MAX: usize = 64;

pub(crate) const DURATION_MS: [f64; 23] = [
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

pub(crate) const BYTES: [f64; 8] = [
    0.0,
    100.0,
    1000.0,
    10_000.0,
    100_000.0,
    1_000_000.0,
    10_000_000.0,
    100_000_000.0,
];

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: u16,
    /// Some for gRPC; the status from headers or trailers, 2 (unknown) when none came.
    pub(crate) grpc: Option<u16>,
    /// Envoy's response flag, `-` for none.
    pub(crate) flag: &'static str,
}

impl Outcome {
    /// Whether the callee failed: by its status, or by the end of its answer. A caller that went away says nothing of it.
    pub(crate) fn is_failure(self) -> bool {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED to DATA_LOSS: what servers say of themselves.
        let by_grpc = matches!(self.grpc, Some(2 | 4 | 12..=15)) && self.flag != "DC";
        self.code >= 500 || by_grpc || self.flag == "UC"
    }
}

/// The series of one caller, callee and service.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    series: ArcSwap<Vec<Arc<Series>>>,
    /// Second after [`STARTED`] of the last call.
    used: AtomicU64,
}

/// The calls of an edge that ended in one way.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) outcome: Outcome,
    cells: Box<[Cells]>,
}

/// One thread's copy; the alignment keeps two threads off one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Cells {
    pub(crate) duration: Histogram<{ DURATION_MS.len() }>,
    pub(crate) request_bytes: Histogram<{ BYTES.len() }>,
    pub(crate) response_bytes: Histogram<{ BYTES.len() }>,
}

impl Edge {
    pub(crate) fn record(
        &self,
        outcome: Outcome,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
        now: Instant,
    ) {
        let used = second(now);
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

    /// How long nobody called, at a [`second`].
    pub(crate) fn idle(&self, now: u64) -> Duration {
        Duration::from_secs(now.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    pub(crate) fn series(&self) -> Arc<Vec<Arc<Series>>> {
        self.series.load_full()
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

    /// What all threads counted in the one of its histograms that `which` says.
    pub(crate) fn total<const N: usize>(&self, which: fn(&Cells) -> &Histogram<N>) -> Total<N> {
        Total::summed(self.cells.iter().map(which))
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

/// Whole seconds since the first call that was counted.
pub(crate) fn second(now: Instant) -> u64 {
    now.saturating_duration_since(*STARTED).as_secs()
}

/// Counts a bucket, not cumulated; values above the last bound are in `over`.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
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
    pub(crate) fn add(&self, bounds: &[f64; N], value: f64, exact: u64) {
        let index = bounds.partition_point(|bound| *bound < value);
        self.buckets
            .get(index)
            .unwrap_or(&self.over)
            .fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(exact, Ordering::Relaxed);
    }
}

/// The sum of several threads' histograms.
pub(crate) struct Total<const N: usize> {
    buckets: [u64; N],
    pub(crate) count: u64,
    sum: u64,
}

impl<const N: usize> Total<N> {
    pub(crate) fn summed<'h>(histograms: impl Iterator<Item = &'h Histogram<N>>) -> Self {
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
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn encode(
        &self,
        mut encoder: MetricEncoder<'_>,
        bounds: &[f64; N],
        per_unit: f64,
        sum_per_unit: f64,
    ) -> fmt::Result {
        let buckets = bounds.map(|bound| bound / per_unit);
        let buckets: Vec<(f64, u64)> = buckets.into_iter().zip(self.buckets).collect();
        let sum = self.sum as f64 / sum_per_unit;
        encoder.encode_histogram::<NoLabelSet>(sum, self.count, &buckets, None)
    }
}
