//! `weft:mesh/metrics`: what a workload counts itself, for whoever shows the metrics of its host.
//!
//! ```text
//! guest ─ add, set, observe ─► Metrics, one a workload ─ series ─► the embedder
//! in a worker                  Metrics there ─ all of it, once a second where it changed ─► Metrics here
//! ```
//! Invariants: a workload's series are [`SERIES_MAX`] at most, with [`BYTES_MAX`] of names and values together, whoever sends them; a metric
//! is of one sort; a name is one that every format of metrics takes, and none that these make of others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wasmtime::AsContextMut;
use wasmtime::component::{Access, HasData, Linker};

use super::mesh::bindings::weft::mesh::metrics;
use crate::body::{Body, BoxError};
use crate::capability::{Capability, ChannelError, Channels, Grants, Served};
use crate::engine::Calls;
use crate::host::HostState;
use crate::limits::HostBytes;

/// Series of one workload: metrics with values of their labels.
pub const SERIES_MAX: usize = 128;
/// What their names and labels have together, and what is held for each.
pub const BYTES_MAX: usize = 64 << 10;
/// Of one series.
pub const LABELS_MAX: usize = 8;
pub const NAME_BYTES_MAX: usize = 64;
pub const VALUE_BYTES_MAX: usize = 128;
/// What a worker sends of one workload: numbers and lengths take as much again.
const MESSAGE_BYTES_MAX: u64 = 4 * BYTES_MAX as u64;
/// How often a worker tells what has changed.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Ends of a histogram's buckets; above the last is one more.
pub const BOUNDS: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0,
    100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
];

/// Labels that the host says itself, or that formats of metrics have.
const HOST_LABELS: [&str; 5] = ["namespace", "pod", "container", "le", "quantile"];
/// Ends of names that formats of metrics make of others.
const MADE_ENDS: [&str; 5] = ["_bucket", "_sum", "_count", "_created", "_info"];

/// A series' labels, in the order of their names.
pub type Labels = Vec<(String, String)>;

/// What a series is at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Counter(f64),
    Gauge(f64),
    Histogram(Box<Histogram>),
}

impl Value {
    /// Whether a guest could have made it.
    fn is_sound(&self) -> bool {
        match self {
            Value::Counter(count) => count.is_finite() && *count >= 0.0,
            Value::Gauge(value) => value.is_finite(),
            Value::Histogram(histogram) => histogram.sum.is_finite(),
        }
    }
}

/// Values that were counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub sum: f64,
    /// In each of [`BOUNDS`], and above them.
    pub buckets: [u64; BOUNDS.len() + 1],
}

impl Histogram {
    /// How many there were.
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter();
        buckets.fold(0, |all, more| all.saturating_add(*more))
    }
}

/// One series as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub labels: Labels,
    pub value: Value,
}

/// Why something was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Name,
    TooLong,
    TooMany,
    OtherSort,
    Value,
}

/// What happens to a series.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Add(f64),
    Set(f64),
    Observe(f64),
}

/// What one workload has counted: granted by [`Grants::metrics`]. Clones share it.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Counted>);

#[derive(Default)]
struct Counted {
    table: Mutex<Table>,
    refused: AtomicU64,
    /// Since it was last told.
    has_changed: AtomicBool,
}

#[derive(Default)]
struct Table {
    series: BTreeMap<(String, Labels), Value>,
    bytes: usize,
}

impl Metrics {
    /// All series, in the order of their names.
    pub fn series(&self) -> Vec<Series> {
        let table = self.0.table.lock();
        let series = table.series.iter();
        series
            .map(|((name, labels), value)| Series {
                name: name.clone(),
                labels: labels.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// How often something was not counted.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    fn change(&self, name: String, labels: Labels, change: Change) -> Result<(), Refusal> {
        let changed = checked(&name, labels)
            .and_then(|labels| self.0.table.lock().change((name, labels), change));
        match changed {
            Ok(()) => self.0.has_changed.store(true, Relaxed),
            Err(_) => {
                self.0.refused.fetch_add(1, Relaxed);
            }
        }
        changed
    }

    /// What a worker says it has, as far as that may be.
    fn replace(&self, told: Told) {
        let mut table = Table::default();
        for Series {
            name,
            labels,
            value,
        } in told.series
        {
            if value.is_sound()
                && let Ok(labels) = checked(&name, labels)
            {
                // What there is no room for is left out.
                let _ = table.insert((name, labels), value);
            }
        }
        *self.0.table.lock() = table;
        self.0.refused.store(told.refused, Relaxed);
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} series)", self.0.table.lock().series.len())
    }
}

impl Table {
    fn change(&mut self, key: (String, Labels), change: Change) -> Result<(), Refusal> {
        let is_number = |value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(Refusal::Value),
        };
        let new = match change {
            Change::Add(more) => Value::Counter(is_number(more)?),
            Change::Set(value) => Value::Gauge(is_number(value)?),
            Change::Observe(value) => {
                let mut histogram = Histogram::default();
                histogram.observe(is_number(value)?);
                Value::Histogram(Box::new(histogram))
            }
        };
        if matches!(new, Value::Counter(more) if more < 0.0) {
            return Err(Refusal::Value);
        }
        let Some(held) = self.series.get_mut(&key) else {
            return self.insert(key, new);
        };
        match (held, change) {
            (Value::Counter(held), Change::Add(more)) => *held = is_number(*held + more)?,
            (Value::Gauge(held), Change::Set(value)) => *held = value,
            (Value::Histogram(held), Change::Observe(value)) => held.observe(value),
            _ => return Err(Refusal::OtherSort),
        }
        Ok(())
    }

    /// One more series, if there is room.
    fn insert(&mut self, key: (String, Labels), value: Value) -> Result<(), Refusal> {
        let of_name = self.series.range((key.0.clone(), Labels::new())..).next();
        if let Some(((name, _), held)) = of_name
            && *name == key.0
            && std::mem::discriminant(held) != std::mem::discriminant(&value)
        {
            return Err(Refusal::OtherSort);
        }
        let texts = key.1.iter().map(|(name, value)| name.len() + value.len());
        let held = size_of::<(String, Labels, Value)>() + size_of::<Histogram>();
        let bytes = held + key.0.len() + texts.sum::<usize>();
        if self.series.len() == SERIES_MAX || self.bytes + bytes > BYTES_MAX {
            return Err(Refusal::TooMany);
        }
        if self.series.insert(key, value).is_none() {
            self.bytes += bytes;
        }
        Ok(())
    }
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        let sum = self.sum + value;
        if sum.is_finite() {
            self.sum = sum;
        }
    }
}

/// The labels in order, where name and labels may be.
fn checked(name: &str, mut labels: Labels) -> Result<Labels, Refusal> {
    if !is_name(name) || MADE_ENDS.iter().any(|end| name.ends_with(end)) {
        return Err(Refusal::Name);
    }
    if labels.len() > LABELS_MAX {
        return Err(Refusal::TooMany);
    }
    labels.sort();
    let twice = labels.windows(2).any(|pair| match pair {
        [(one, _), (other, _)] => one == other,
        _ => false,
    });
    let is_wrong = |(name, _): &(String, String)| {
        !is_name(name) || name.starts_with("__") || HOST_LABELS.contains(&name.as_str())
    };
    if twice || labels.iter().any(is_wrong) {
        return Err(Refusal::Name);
    }
    match labels
        .iter()
        .any(|(_, value)| value.len() > VALUE_BYTES_MAX)
    {
        true => Err(Refusal::TooLong),
        false => Ok(labels),
    }
}

/// What every format takes: a letter, then letters, digits and `_`.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Grants {
    /// Grants `weft:mesh/metrics`: what the guest counts is in `metrics`.
    pub fn metrics(&mut self, metrics: Metrics) {
        self.give::<MeshMetrics>(metrics);
    }
}

/// The capability.
pub struct MeshMetrics;

/// The one method: all that a worker's guest has counted.
const TELL: &str = "tell";

/// What it says.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    series: Vec<Series>,
    refused: u64,
}

impl Capability for MeshMetrics {
    const NAME: &'static str = "weft:mesh/metrics";
    const INTERFACES: &'static [&'static str] = &["weft:mesh/metrics@0.1.1"];
    type Grant = Metrics;
    type Bound = Metrics;

    fn link(&self, linker: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
        metrics::add_to_linker::<HostState, Linked>(linker, |state| state)
    }

    fn bind(&self, grant: &Metrics, _: &Arc<HostBytes>) -> Metrics {
        grant.clone()
    }

    fn pack(&self, _: &Metrics) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn unpack(&self, _: &[u8], channels: &Channels) -> Result<Metrics, BoxError> {
        let metrics = Metrics::default();
        tokio::spawn(tell(Arc::downgrade(&metrics.0), channels.clone()));
        Ok(metrics)
    }

    fn serve(&self, grant: &Metrics, method: &str, message: Body) -> Served {
        let known = method == TELL;
        let metrics = grant.clone();
        Box::pin(async move {
            if !known {
                return Err(ChannelError::NoSuchMethod);
            }
            let bytes = message.size_hint().exact();
            if bytes.is_none_or(|bytes| bytes > MESSAGE_BYTES_MAX) {
                return Err(ChannelError::TooLarge);
            }
            let message = message.collect().await;
            let message = message.map_err(|_| ChannelError::Malformed)?.to_bytes();
            let told = postcard::from_bytes(&message).map_err(|_| ChannelError::Malformed)?;
            metrics.replace(told);
            Ok(Body::empty())
        })
    }
}

/// Tells the node what is counted here, for as long as somebody has it.
async fn tell(counted: Weak<Counted>, channels: Channels) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let Some(counted) = counted.upgrade() else {
            return;
        };
        if !counted.has_changed.swap(false, Relaxed) {
            continue;
        }
        let metrics = Metrics(counted);
        let told = Told {
            series: metrics.series(),
            refused: metrics.refused(),
        };
        let message = postcard::to_allocvec(&told).unwrap_or_default();
        let answered = channels.open::<MeshMetrics>(TELL, Body::full(message));
        if let Err(error) = answered.await {
            tracing::debug!(%error, "what a workload counts was not told; it will be with the next");
            metrics.0.has_changed.store(true, Relaxed);
        }
    }
}

/// For the linker.
struct Linked;

impl HasData for Linked {
    type Data<'a> = &'a mut HostState;
}

impl metrics::Host for &mut HostState {}

type Asking<'a> = Access<'a, HostState, Linked>;

fn change(
    access: &mut Asking<'_>,
    name: String,
    labels: Labels,
    change: Change,
) -> wasmtime::Result<Result<(), metrics::Refusal>> {
    let mut store = access.as_context_mut();
    let metrics = store.data_mut().bound::<MeshMetrics>()?;
    let changed = metrics.change(name, labels, change);
    Ok(changed.map_err(|refusal| match refusal {
        Refusal::Name => metrics::Refusal::Name,
        Refusal::TooLong => metrics::Refusal::TooLong,
        Refusal::TooMany => metrics::Refusal::TooMany,
        Refusal::OtherSort => metrics::Refusal::OtherSort,
        Refusal::Value => metrics::Refusal::Value,
    }))
}

impl metrics::HostWithStore<HostState> for Linked {
    fn add(
        mut access: Asking<'_>,
        name: String,
        labels: Labels,
        more: f64,
    ) -> wasmtime::Result<Result<(), metrics::Refusal>> {
        change(&mut access, name, labels, Change::Add(more))
    }

    fn set(
        mut access: Asking<'_>,
        name: String,
        labels: Labels,
        value: f64,
    ) -> wasmtime::Result<Result<(), metrics::Refusal>> {
        change(&mut access, name, labels, Change::Set(value))
    }

    fn observe(
        mut access: Asking<'_>,
        name: String,
        labels: Labels,
        value: f64,
    ) -> wasmtime::Result<Result<(), metrics::Refusal>> {
        change(&mut access, name, labels, Change::Observe(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn add(metrics: &Metrics, name: &str, pairs: &[(&str, &str)], more: f64) -> Option<Refusal> {
        let changed = metrics.change(name.to_owned(), labels(pairs), Change::Add(more));
        changed.err()
    }

    #[test]
    fn what_is_counted_is_shown_in_one_order_however_labels_were_written() {
        let metrics = Metrics::default();
        let both = [("kind", "tea"), ("at", "home")];
        assert_eq!(add(&metrics, "orders_total", &both, 2.0), None);
        let other = [("at", "home"), ("kind", "tea")];
        assert_eq!(add(&metrics, "orders_total", &other, 0.5), None);
        for value in [0.001, 0.0011, 7.0, 1e9] {
            let observed = metrics.change("seconds".into(), vec![], Change::Observe(value));
            assert_eq!(observed, Ok(()));
        }
        let series = metrics.series();
        assert_eq!(series[0].labels, labels(&other));
        assert_eq!(series[0].value, Value::Counter(2.5));
        let Value::Histogram(seconds) = &series[1].value else {
            panic!("{series:?}");
        };
        assert_eq!(seconds.count(), 4);
        let at = |index: usize| seconds.buckets[index];
        assert_eq!((at(0), at(1), at(12), at(22)), (1, 1, 1, 1));
    }

    #[test]
    fn names_of_the_host_and_of_formats_are_nobodys() {
        let metrics = Metrics::default();
        for (name, pairs, more, refusal) in [
            ("", &[][..], 1.0, Refusal::Name),
            ("a b", &[], 1.0, Refusal::Name),
            ("a.b", &[], 1.0, Refusal::Name),
            (
                "a\n# TYPE istio_requests_total counter",
                &[],
                1.0,
                Refusal::Name,
            ),
            ("seconds_bucket", &[], 1.0, Refusal::Name),
            (&"n".repeat(65), &[], 1.0, Refusal::Name),
            ("orders", &[("pod", "another")], 1.0, Refusal::Name),
            ("orders", &[("namespace", "another")], 1.0, Refusal::Name),
            ("orders", &[("le", "1")], 1.0, Refusal::Name),
            ("orders", &[("a", "1"), ("a", "2")], 1.0, Refusal::Name),
            ("orders", &[("a", &"v".repeat(129))], 1.0, Refusal::TooLong),
            ("orders", &[], -1.0, Refusal::Value),
            ("orders", &[], f64::NAN, Refusal::Value),
            ("orders", &[], f64::INFINITY, Refusal::Value),
        ] {
            assert_eq!(add(&metrics, name, pairs, more), Some(refusal), "{name}");
        }
        assert!(metrics.series().is_empty());
        assert_eq!(add(&metrics, "orders", &[], f64::MAX), None);
        assert_eq!(add(&metrics, "orders", &[], f64::MAX), Some(Refusal::Value));
        let set = metrics.change("orders".into(), vec![], Change::Set(1.0));
        assert_eq!(set, Err(Refusal::OtherSort));
        let set = metrics.change("orders".into(), labels(&[("a", "b")]), Change::Set(1.0));
        assert_eq!(set, Err(Refusal::OtherSort));
        assert_eq!(metrics.refused(), 17);
    }

    #[test]
    fn attack_140_a_flood_of_series_ends_at_their_bounds() {
        let metrics = Metrics::default();
        for number in 0..100_000 {
            let kind = format!("{number}{}", "x".repeat(100));
            let _ = add(&metrics, "flood", &[("kind", &kind)], 1.0);
        }
        let table = metrics.0.table.lock();
        assert!(table.series.len() <= SERIES_MAX && table.bytes <= BYTES_MAX);
        drop(table);
        let held = metrics.series().len() as u64;
        assert_eq!(metrics.refused(), 100_000 - held);
        // What is there goes on to be counted.
        let kind = format!("0{}", "x".repeat(100));
        assert_eq!(add(&metrics, "flood", &[("kind", &kind)], 1.0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_in_a_worker_is_told_within_a_second() {
        let node = Metrics::default();
        let served = node.clone();
        let channels =
            Channels::new(move |_, method, body| MeshMetrics.serve(&served, method, body));
        let packed = MeshMetrics.pack(&node).expect("there is nothing to pack");
        let there = MeshMetrics.unpack(&packed, &channels).expect("nor to read");
        assert_eq!(add(&there, "orders", &[("kind", "tea")], 3.0), None);
        assert_eq!(add(&there, "", &[], 3.0), Some(Refusal::Name));
        tokio::time::sleep(2 * TELL_EVERY).await;
        assert_eq!(node.series(), there.series());
        assert_eq!(node.refused(), 1);
    }

    /// A worker that holds to nothing.
    #[tokio::test]
    async fn attack_140_a_worker_that_tells_more_than_a_guest_may_count() {
        let node = Metrics::default();
        let tell = async |method: &str, message: Vec<u8>| {
            let answered = MeshMetrics.serve(&node, method, Body::full(message)).await;
            answered.err()
        };
        let series = |name: &str, pairs: &[(&str, &str)]| Series {
            name: name.to_owned(),
            labels: labels(pairs),
            value: Value::Gauge(1.0),
        };
        let told = |series| postcard::to_allocvec(&Told { series, refused: 0 }).expect("data");
        assert_eq!(tell("else", vec![]).await, Some(ChannelError::NoSuchMethod));
        assert_eq!(
            tell(TELL, vec![0xff; 9]).await,
            Some(ChannelError::Malformed)
        );
        let large = vec![0; MESSAGE_BYTES_MAX as usize + 1];
        assert_eq!(tell(TELL, large).await, Some(ChannelError::TooLarge));
        let all = vec![
            series("bad name", &[]),
            series("good", &[("pod", "another")]),
            Series {
                value: Value::Counter(f64::NAN),
                ..series("none", &[])
            },
            series("good", &[]),
        ];
        assert_eq!(tell(TELL, told(all)).await, None);
        assert_eq!(node.series(), [series("good", &[])]);
        let many = (0..2000).map(|n| series(&format!("n{n}"), &[])).collect();
        assert_eq!(tell(TELL, told(many)).await, None);
        assert!(node.series().len() <= SERIES_MAX);
    }
}
