//! Telemetry for whoever collects it: traces, metrics and logs by OpenTelemetry's protocol, over HTTP.
//!
//! ```text
//! mesh ─ Sightings (bounded, dropped where full) ─► traces: a span an end     ─┐
//!                                                └► logs: a line a call, if asked ├─ batches ─► POST …/v1/{traces,metrics,logs}
//! mesh ─ counts of edges ─ every interval ─────────► metrics                   ─┘
//! ```
//! The host makes both spans of a call, that of who calls and, below it, that of who serves, and what a workload calls meanwhile is below
//! the latter: guests need not do anything. Tries after the first are spans of their own, and what had failed is an event.
//!
//! Invariants: nobody who calls waits for any of this; what a receiver does not take is tried again for a bounded time, then dropped and
//! counted ([`Counts`]); no header, body or query of a call is sent, and no credential is logged.
//! Left to others: which traces are recorded (`weft_mesh`), what the environment says ([`config`]).

pub mod config;
mod logs;
mod metrics;
mod traces;
mod wire;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_mesh::{Interest, Mesh, Sighting, Sightings};

use self::config::{Batches, Config, Target};

/// The pause before a batch is sent again, doubled each time; a receiver may ask for a longer one.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one batch is tried, pauses included.
const TRYING_MAX: Duration = Duration::from_secs(30);
/// How long the last ones may take when the node stops.
const FAREWELL_MAX: Duration = Duration::from_millis(800);

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

/// Sends what `config` says until `stop`, and then what is left.
pub async fn run(config: Config, mesh: Mesh, counts: Arc<Counts>, stop: CancellationToken) {
    let Config {
        traces,
        metrics,
        logs,
        resource,
        ..
    } = &config;
    let spans = async {
        if let Some((target, batches)) = traces {
            let interest = Interest {
                recorded: true,
                ..Interest::default()
            };
            let encode = |calls: &[Arc<Sighting>]| traces::encode(calls, resource);
            calls(
                target,
                batches,
                &mesh,
                interest,
                encode,
                &counts.spans,
                &stop,
            )
            .await;
        }
    };
    let records = async {
        if let Some((target, batches)) = logs {
            let every = Interest::default();
            let node = mesh.node().to_owned();
            let encode = |calls: &[Arc<Sighting>]| logs::encode(calls, &node, resource);
            calls(
                target,
                batches,
                &mesh,
                every,
                encode,
                &counts.records,
                &stop,
            )
            .await;
        }
    };
    let points = async {
        if let Some((target, interval)) = metrics {
            points(target, *interval, &mesh, resource, &counts.points, &stop).await;
        }
    };
    tokio::join!(spans, records, points);
}

/// How many spans, points or records a message has, and its bytes.
type Encoded = (u64, Vec<u8>);

/// Sends what is made of calls, batch by batch.
async fn calls(
    target: &Target,
    batches: &Batches,
    mesh: &Mesh,
    interest: Interest,
    encode: impl Fn(&[Arc<Sighting>]) -> Encoded,
    counts: &Sent,
    stop: &CancellationToken,
) {
    let Some(receiver) = Receiver::of(target) else {
        return;
    };
    let Some(mut sightings) = mesh.watch_calls(interest, batches.queue) else {
        tracing::error!("calls are watched by as many as may already; nothing is exported");
        return;
    };
    let mut batch = Vec::with_capacity(batches.batch);
    loop {
        let gathered = gather(&mut sightings, &mut batch, batches);
        let is_over = stop.run_until_cancelled(gathered).await.is_none();
        while is_over
            && batch.len() < batches.batch
            && let Some(sighting) = sightings.try_next()
        {
            batch.push(sighting);
        }
        counts
            .dropped
            .fetch_add(sightings.take_lost(), Ordering::Relaxed);
        if !batch.is_empty() {
            let encoded = encode(&batch);
            batch.clear();
            receiver.send(encoded, counts, stop).await;
        }
        if is_over {
            return;
        }
    }
}

/// Takes calls until there are enough of them, or the first has waited for long enough.
async fn gather(sightings: &mut Sightings, batch: &mut Vec<Arc<Sighting>>, batches: &Batches) {
    batch.push(sightings.next().await);
    let until = Instant::now() + batches.delay;
    while batch.len() < batches.batch {
        match tokio::time::timeout_at(until, sightings.next()).await {
            Ok(sighting) => batch.push(sighting),
            Err(_) => return,
        }
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
    let Some(receiver) = Receiver::of(target) else {
        return;
    };
    loop {
        let slept = stop.run_until_cancelled(tokio::time::sleep(interval)).await;
        let edges = mesh.counted_edges(None);
        let encoded = metrics::encode(&edges, resource, SystemTime::now());
        receiver.send(encoded, counts, stop).await;
        if slept.is_none() {
            return;
        }
    }
}

/// Who is sent one signal.
struct Receiver<'t> {
    target: &'t Target,
    client: Client,
}

/// What a receiver said to a batch.
enum Answer {
    Taken,
    /// It may take it later, after that long if it says so.
    Later(Option<Duration>, String),
    Never(String),
}

impl<'t> Receiver<'t> {
    fn of(target: &'t Target) -> Option<Self> {
        let endpoint = config::shown(&target.endpoint);
        let mut builder = Client::builder()
            .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
            .timeout(target.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .http1_only();
        if target.endpoint.scheme() == "http" {
            // A machine without authorities of its own can send, too.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &target.certificate {
            let read = std::fs::read(path).map_err(|error| error.to_string());
            let read = read.and_then(|pem| {
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string())
            });
            match read {
                Ok(certificates) => builder = builder.tls_certs_merge(certificates),
                Err(why) => {
                    let path = path.display();
                    tracing::error!(%path, why, endpoint, "the certificates of a telemetry receiver cannot be read; nothing is sent to it");
                    return None;
                }
            }
        }
        match builder.build() {
            Ok(client) => Some(Self { target, client }),
            Err(error) => {
                tracing::error!(%error, endpoint, "no telemetry can be sent");
                None
            }
        }
    }

    /// Sends a message until it is taken, refused or too old; once the node stops, for a moment only.
    async fn send(&self, (count, message): Encoded, counts: &Sent, stop: &CancellationToken) {
        let body = match self.target.gzip {
            true => gzip(&message),
            false => message,
        };
        let body = Bytes::from(body);
        let stopping = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL_MAX).await;
        };
        let sent = tokio::select! {
            biased;
            sent = self.tries(body) => sent,
            () = stopping => Err("the node stops".to_owned()),
        };
        match sent {
            Ok(()) => {
                counts.exported.fetch_add(count, Ordering::Relaxed);
            }
            Err(why) => {
                let dropped = counts.dropped.fetch_add(count, Ordering::Relaxed) + count;
                let failures = counts.failures.fetch_add(1, Ordering::Relaxed) + 1;
                // Now and then: a receiver that refuses all would fill the log.
                if failures.is_power_of_two() {
                    let endpoint = config::shown(&self.target.endpoint);
                    tracing::warn!(endpoint, why, failures, dropped, "telemetry was dropped");
                }
            }
        }
    }

    async fn tries(&self, body: Bytes) -> Result<(), String> {
        let until = Instant::now() + TRYING_MAX;
        let mut pause = PAUSE;
        loop {
            let (after, why) = match self.post(body.clone()).await {
                Answer::Taken => return Ok(()),
                Answer::Never(why) => return Err(why),
                Answer::Later(after, why) => (after, why),
            };
            let after = after.unwrap_or(pause).min(PAUSE_MAX.max(pause));
            if Instant::now() + after >= until {
                return Err(why);
            }
            tokio::time::sleep(after).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn post(&self, body: Bytes) -> Answer {
        let mut request = self
            .client
            .post(self.target.endpoint.clone())
            .headers(self.target.headers.clone())
            .header(http::header::CONTENT_TYPE, "application/x-protobuf");
        if self.target.gzip {
            request = request.header(http::header::CONTENT_ENCODING, "gzip");
        }
        let answer = match request.body(body).send().await {
            Ok(answer) => answer,
            // Without the URL, in which there may be credentials.
            Err(error) => return Answer::Later(None, error.without_url().to_string()),
        };
        let status = answer.status();
        let after = answer.headers().get(http::header::RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
        let why = format!("it answered {status}");
        // Those that the protocol names; any other refusal would be the same again.
        match status.as_u16() {
            200..=299 => Answer::Taken,
            429 | 502..=504 => Answer::Later(after.map(Duration::from_secs), why),
            _ => Answer::Never(why),
        }
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Into memory, which takes all.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
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
