//! What a finished call adds to: a few numbers of this thread's copy, relaxed, without a lock.
//!
//! An [`Edge`] is one caller, callee and service, and is held by its calls; how they ended are [`Series`] below it, of which the first, mostly
//! the only one, is found at once. Whoever reads sums up the copies. A thread that is alone with its copy adds without telling other cores. `examples/counting.rs` has what that saves beside histograms with a lock. A call whose trace is recorded leaves its number as
//! an [`Exemplar`] of the group of its duration.
//!
//! Invariants: an edge has at most [`SERIES_MAX`] series; nothing here knows a label, and nobody waits for an exemplar to be kept.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use weft_call::edges::DURATION_MICROS;

use crate::shard::{self, Place, SHARDS};

/// Codes and protocols kept apart below one edge; further ones share the last.
pub(crate) const SERIES_MAX: usize = 64;

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
    /// It was no request, but a connection.
    pub(crate) tcp: bool,
}

impl Outcome {
    /// Whether the callee failed: by its status, or by the end of its answer. A caller that went away says nothing of it.
    pub(crate) fn is_failure(self) -> bool {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED to DATA_LOSS: what servers say of themselves.
        let by_grpc = matches!(self.grpc, Some(2 | 4 | 12..=15)) && self.flag != "DC";
        self.code >= 500 || by_grpc || self.flag == "UC"
    }
}

/// The series of one caller, callee and service, which `of` says.
#[derive(Debug, Default)]
pub(crate) struct Edge<K> {
    pub(crate) of: K,
    first: OnceLock<Arc<Series>>,
    series: ArcSwap<Vec<Arc<Series>>>,
    /// Second after [`STARTED`] of the last call.
    used: AtomicU64,
    /// Connections that were begun.
    pub(crate) opened: AtomicU64,
}

/// The calls of an edge that ended in one way.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) outcome: Outcome,
    cells: Box<[Cells]>,
    /// One a group of durations; there once there was any.
    exemplars: OnceLock<Mutex<Box<[Option<Exemplar>]>>>,
}

/// A call among those that a group counts, by which its trace is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exemplar {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) took: Duration,
    pub(crate) at: SystemTime,
}

/// How long a call took, with its group, which is looked up once for all who count it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    nanos: u64,
    group: usize,
}

impl From<Duration> for Took {
    fn from(took: Duration) -> Self {
        Self {
            nanos: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            group: group(took),
        }
    }
}

/// One thread's copy; the alignment keeps two threads off one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Cells {
    /// In microseconds, its sum in nanoseconds.
    pub(crate) duration: Histogram<{ DURATION_MICROS.len() }>,
    pub(crate) request_bytes: Histogram<{ BYTES.len() }>,
    pub(crate) response_bytes: Histogram<{ BYTES.len() }>,
    /// Of gRPC.
    pub(crate) request_messages: AtomicU64,
    pub(crate) response_messages: AtomicU64,
}

impl<K> Edge<K> {
    pub(crate) fn new(of: K) -> Self {
        Self {
            of,
            first: OnceLock::new(),
            series: ArcSwap::default(),
            used: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(
        &self,
        outcome: Outcome,
        took: impl Into<Took>,
        request_bytes: u64,
        response_bytes: u64,
        now: Instant,
    ) {
        let used = second(now);
        if self.used.load(Ordering::Relaxed) != used {
            self.used.store(used, Ordering::Relaxed);
        }
        let took = took.into();
        let add = |series: &Series| series.add(took, request_bytes, response_bytes);
        if !self.with(outcome, add) {
            add(&self.insert(outcome));
        }
    }

    /// Counts the messages of a call of gRPC that was recorded as this.
    pub(crate) fn messages(&self, outcome: Outcome, request: u64, response: u64) {
        self.with(outcome, |series| {
            let Place { index, alone } = shard::place(series.cells.len());
            if let Some(cells) = series.cells.get(index) {
                increase(&cells.request_messages, request, alone);
                increase(&cells.response_messages, response, alone);
            }
        });
    }

    /// Hands the series of an outcome to `what`; says whether there is one.
    fn with(&self, outcome: Outcome, what: impl FnOnce(&Series)) -> bool {
        if let Some(first) = self.first.get()
            && first.outcome == outcome
        {
            what(first);
            return true;
        }
        let known = self.series.load();
        match known.iter().find(|series| series.outcome == outcome) {
            Some(series) => {
                what(series);
                true
            }
            None => false,
        }
    }

    /// Keeps what leads to the trace of a call that was recorded as this; unless somebody else does just now.
    pub(crate) fn exemplify(&self, outcome: Outcome, exemplar: Exemplar) {
        self.with(outcome, |series| series.exemplify(exemplar));
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
            exemplars: OnceLock::new(),
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
        self.first.get_or_init(|| Arc::clone(&chosen));
        chosen
    }
}

impl Series {
    fn add(&self, took: Took, request_bytes: u64, response_bytes: u64) {
        let Place { index, alone } = shard::place(self.cells.len());
        let Some(cells) = self.cells.get(index) else {
            return;
        };
        cells.duration.add_to(took.group, took.nanos, alone);
        cells
            .request_bytes
            .add(&BYTES, request_bytes as f64, request_bytes, alone);
        cells
            .response_bytes
            .add(&BYTES, response_bytes as f64, response_bytes, alone);
    }

    fn exemplify(&self, exemplar: Exemplar) {
        let kept = self
            .exemplars
            .get_or_init(|| Mutex::new(vec![None; DURATION_MICROS.len() + 1].into()));
        let group = group(exemplar.took);
        if let Some(mut kept) = kept.try_lock()
            && let Some(place) = kept.get_mut(group)
        {
            *place = Some(exemplar);
        }
    }

    /// The newest of the groups of durations from one to another, the latter included.
    pub(crate) fn exemplar(&self, groups: std::ops::RangeInclusive<usize>) -> Option<Exemplar> {
        let kept = self.exemplars.get()?.lock();
        let among = kept.get(groups)?.iter().flatten();
        among.max_by_key(|exemplar| exemplar.at).copied()
    }

    /// What all threads counted in the one of its numbers that `which` says.
    pub(crate) fn sum(&self, which: fn(&Cells) -> &AtomicU64) -> u64 {
        let all = self.cells.iter().map(which);
        all.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// What all threads counted in the one of its histograms that `which` says.
    pub(crate) fn total<const N: usize>(&self, which: fn(&Cells) -> &Histogram<N>) -> Total<N> {
        Total::summed(self.cells.iter().map(which))
    }
}

/// The group of [`DURATION_MICROS`] that a duration is counted in.
fn group(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    DURATION_MICROS.partition_point(|bound| *bound < micros)
}

/// Copies a thread-split structure has: as many as cores, within reason, and the one that all other threads share.
fn cells() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(SHARDS - 1))
    });
    *CORES + 1
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
    /// `exact` is what the sum counts in, an integer so that one addition does; `alone` says that no other thread adds to this.
    pub(crate) fn add(&self, bounds: &[f64; N], value: f64, exact: u64, alone: bool) {
        self.add_to(bounds.partition_point(|bound| *bound < value), exact, alone);
    }

    /// The same to a group that is known.
    fn add_to(&self, group: usize, exact: u64, alone: bool) {
        increase(self.buckets.get(group).unwrap_or(&self.over), 1, alone);
        if exact > 0 {
            increase(&self.sum, exact, alone);
        }
    }
}

fn increase(count: &AtomicU64, by: u64, alone: bool) {
    match alone {
        true => {
            let now = count.load(Ordering::Relaxed).wrapping_add(by);
            count.store(now, Ordering::Relaxed);
        }
        false => {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }
}

/// The sum of several threads' histograms.
pub(crate) struct Total<const N: usize> {
    pub(crate) buckets: [u64; N],
    pub(crate) count: u64,
    pub(crate) sum: u64,
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
