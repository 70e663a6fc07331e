//! Telemetry for whoever collects it: traces, metrics and logs by OpenTelemetry's protocol, over HTTP or gRPC.
//!
//! ```text
//! mesh ─ Sightings (bounded, dropped where full) ─► traces: a span an end        ─┐
//!                                                └► logs: a record a call, if asked ├─ batches ─► receiver.rs ─► POST …/v1/{traces,metrics,logs}
//! containers ─ lines.rs (bounded, too) ────────────► logs: a record a line, if asked │                       └► grpc.rs …Service/Export
//! mesh ─ counts of edges ─ every interval ─────────► metrics                     ─┘
//! ```
//! The host makes both spans of a call, that of who calls and, below it, that of who serves, and what a workload calls meanwhile is below
//! the latter: guests need not do anything. Tries after the first are spans of their own, and what had failed is an event.
//!
//! Invariants: nobody who calls waits for any of this; what a receiver does not take is tried again for a bounded time, then dropped and
//! counted ([`Counts`]); no header, body or query of a call is sent, and no credential is logged.
//! Left to others: which traces are recorded (`weft_mesh`), what the environment says ([`config`]).

pub mod config;
mod grpc;
mod lines;
mod logs;
mod metrics;
mod receiver;
mod traces;
mod wire;

pub use self::lines::{Container, Lines, Printed, Printing};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_mesh::{Interest, Mesh, Sighting, Sightings};

use self::config::{Batches, Config, Target};
use self::lines::Line;
use self::receiver::Receiver;

/// How long what waits is left alone: a usual queue takes a hundred thousand calls a second meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What became of what was to be sent.
#[derive(Debug, Default)]
pub struct Counts {
    pub spans: Sent,
    pub points: Sent,
    pub records: Sent,
}

/// Of one signal.
#[derive(Debug, Default)]
pub struct Sent {
    pub exported: AtomicU64,
    /// There was no room for them, or nobody took them.
    pub dropped: AtomicU64,
    /// Messages that nobody took.
    failures: AtomicU64,
}

impl Counts {
    /// Each signal by its name in metrics.
    pub(crate) fn all(&self) -> [(&'static str, &Sent); 3] {
        [
            ("traces", &self.spans),
            ("metrics", &self.points),
            ("logs", &self.records),
        ]
    }
}

/// Sends what `config` says until `stop`, and then what is left; of containers what `printed` has.
pub async fn run(
    config: Config,
    mesh: Mesh,
    printed: Option<Printed>,
    counts: Arc<Counts>,
    stop: CancellationToken,
) {
    let Config {
        traces,
        metrics,
        logs,
        records,
        resource,
        ..
    } = &config;
    let spans = async {
        if let Some((target, batches)) = traces {
            let recorded = Interest {
                recorded: true,
                ..Interest::default()
            };
            let encode = |calls: &[Arc<Sighting>]| vec![traces::encode(calls, resource)];
            if let Some(calls) = watch(&mesh, recorded, batches) {
                batches_of(calls, target, batches, encode, &counts.spans, &stop).await;
            }
        }
    };
    let of_calls = async {
        if let Some((target, batches)) = logs.as_ref().filter(|_| records.calls) {
            let node = mesh.node();
            let encode = |calls: &[Arc<Sighting>]| vec![logs::encode(calls, node, resource)];
            if let Some(calls) = watch(&mesh, Interest::default(), batches) {
                batches_of(calls, target, batches, encode, &counts.records, &stop).await;
            }
        }
    };
    let of_containers = async {
        if let (Some((target, batches)), Some(printed)) = (logs, printed) {
            let encode = |lines: &[Line]| logs::encode_lines(lines, resource);
            batches_of(printed, target, batches, encode, &counts.records, &stop).await;
        }
    };
    let points = async {
        if let Some((target, interval)) = metrics {
            points(target, *interval, &mesh, resource, &counts.points, &stop).await;
        }
    };
    tokio::join!(spans, of_calls, of_containers, points);
}

fn watch(mesh: &Mesh, interest: Interest, batches: &Batches) -> Option<Sightings> {
    let watch = mesh.watch_calls(interest, batches.queue);
    if watch.is_none() {
        tracing::error!("calls are watched by as many as may already; nothing is exported");
    }
    watch
}

/// How many spans, points or records a message has, and its bytes.
type Encoded = (u64, Vec<u8>);

/// What becomes spans and records: calls that end, or lines.
trait Source {
    type Item;

    /// The next one; there is no end.
    fn next(&mut self) -> impl Future<Output = Self::Item> + Send;

    /// One that waits already.
    fn try_next(&mut self) -> Option<Self::Item>;

    /// How many there was no room for since this was last asked.
    fn take_lost(&self) -> u64;
}

impl Source for Sightings {
    type Item = Arc<Sighting>;

    async fn next(&mut self) -> Arc<Sighting> {
        Sightings::next(self).await
    }

    fn try_next(&mut self) -> Option<Arc<Sighting>> {
        Sightings::try_next(self)
    }

    fn take_lost(&self) -> u64 {
        Sightings::take_lost(self)
    }
}

/// Sends what is made of `source`, batch by batch.
async fn batches_of<S: Source<Item: Send> + Send>(
    mut source: S,
    target: &Target,
    batches: &Batches,
    encode: impl Fn(&[S::Item]) -> Vec<Encoded>,
    counts: &Sent,
    stop: &CancellationToken,
) {
    let Some(mut receiver) = Receiver::of(target).await else {
        return;
    };
    let mut batch = Vec::with_capacity(batches.batch);
    loop {
        let gathered = gather(&mut source, &mut batch, batches);
        let is_over = stop.run_until_cancelled(gathered).await.is_none();
        while is_over
            && batch.len() < batches.batch
            && let Some(item) = source.try_next()
        {
            batch.push(item);
        }
        counts
            .dropped
            .fetch_add(source.take_lost(), Ordering::Relaxed);
        if !batch.is_empty() {
            let messages = encode(&batch);
            batch.clear();
            for message in messages {
                receiver.send(message, counts, stop).await;
            }
        }
        if is_over {
            return;
        }
    }
}

/// Takes items until there are enough of them, or the first has waited for long enough. Between two looks nobody is waited for: otherwise
/// each call would have to wake this task, which takes longer than all else that is done for its spans.
async fn gather<S: Source<Item: Send> + Send>(
    source: &mut S,
    batch: &mut Vec<S::Item>,
    batches: &Batches,
) {
    batch.push(source.next().await);
    let until = Instant::now() + batches.delay;
    loop {
        while batch.len() < batches.batch {
            match source.try_next() {
                Some(item) => batch.push(item),
                None => break,
            }
        }
        let now = Instant::now();
        if batch.len() >= batches.batch || now >= until {
            return;
        }
        tokio::time::sleep_until(until.min(now + LOOK)).await;
    }
}

async fn points(
    target: &Target,
    interval: Duration,
    mesh: &Mesh,
    resource: &[(String, String)],
    counts: &Sent,
    stop: &CancellationToken,
) {
    let Some(mut receiver) = Receiver::of(target).await else {
        return;
    };
    loop {
        let slept = stop.run_until_cancelled(tokio::time::sleep(interval)).await;
        let (counting, said) = (mesh.clone(), resource.to_vec());
        // Of thousands of edges it is tens of megabytes.
        let encoding = tokio::task::spawn_blocking(move || {
            metrics::encode(&counting.series(), &said, SystemTime::now())
        });
        for message in encoding.await.unwrap_or_default() {
            receiver.send(message, counts, stop).await;
        }
        if slept.is_none() {
            return;
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
