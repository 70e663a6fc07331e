//! Events of the audit log to a webhook, in batches: an `EventList` of `audit.k8s.io/v1` by POST, to where a kubeconfig says.
//!
//! One thread has the connection. Events wait for it in a queue that is bounded by [`BatchConfig::buffer_max`] and [`QUEUE_BYTES_MAX`]; whoever
//! brings one to a full queue does not wait, and the event is lost and counted: who is elsewhere may not hold up the cluster. A batch is sent when it is
//! large enough or has waited long enough, no faster than the throttle lets it; what fails for a while is tried again, what is refused is not.
//!
//! Invariants: batches are sent in the order of their events, one at a time; no redirect is followed; credentials of the kubeconfig are in no message.
//! Left to others: what an event says (`super`), whom a connection trusts (`crate::reach`).

mod kubeconfig;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

pub use self::kubeconfig::{KubeconfigError, Target};
use crate::reach::{Line, Reach, Unanswered};

/// Bytes of the events that wait, some of which have bodies.
const QUEUE_BYTES_MAX: u32 = 64 << 20;
/// Bytes of a batch; an event that is larger is one by itself.
const BATCH_BYTES_MAX: usize = 10 << 20;
/// Bytes of an answer that are read, so that its connection is used again; nothing in it is looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long one attempt may take, as in Kubernetes.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts of a batch, each of which waits half as long again as the one before.
const ATTEMPTS_MAX: u32 = 5;

/// How events become batches. The defaults are those of kube-apiserver's flags `--audit-webhook-batch-…`.
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// Events that wait to be sent.
    pub buffer_max: usize,
    /// Events of a batch.
    pub events_max: usize,
    /// How long an event waits for others to go with.
    pub wait_max: Duration,
    /// Batches a second, and how many at once after a pause; without it, as many as there are.
    pub throttle: Option<(f64, u32)>,
    /// Before a batch is tried again.
    pub initial_backoff: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            buffer_max: 10_000,
            events_max: 400,
            wait_max: Duration::from_secs(30),
            throttle: Some((10.0, 15)),
            initial_backoff: Duration::from_secs(10),
        }
    }
}

/// What waits for the thread that sends.
enum Waiting {
    Event(String, OwnedSemaphorePermit),
    /// Whoever wants to know that everything before it was sent, or given up.
    Flush(oneshot::Sender<()>),
}

/// The webhook. Cheap to clone; clones send to the same.
#[derive(Clone)]
pub struct Webhook {
    waiting: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

impl Webhook {
    /// Begins to send to a webhook. It ends with the last clone.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(target: Target, config: BatchConfig) -> io::Result<Self> {
        let (waiting, queue) = mpsc::channel(config.buffer_max.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sender = Sender {
            target,
            config,
            lost: Arc::clone(&lost),
            line: None,
            throttle: Throttle::new(config.throttle, Instant::now()),
        };
        let thread = std::thread::Builder::new().name("audit-webhook".to_owned());
        thread.spawn(move || runtime.block_on(sender.run(queue)))?;
        Ok(Self {
            waiting,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize)),
            lost,
        })
    }

    /// Takes an event, if there is room for it.
    pub(super) fn write(&self, event: String) {
        let bytes = u32::try_from(event.len()).unwrap_or(QUEUE_BYTES_MAX);
        let room = Arc::clone(&self.room);
        let room = room.try_acquire_many_owned(bytes.min(QUEUE_BYTES_MAX));
        let taken = room.is_ok_and(|room| {
            let waiting = Waiting::Event(event, room);
            self.waiting.try_send(waiting).is_ok()
        });
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("an event for the audit webhook is lost: too many wait to be sent");
        }
    }

    /// Comes once everything that was taken was sent or given up.
    pub(super) async fn flush(&self) {
        let (sent, told) = oneshot::channel();
        if self.waiting.send(Waiting::Flush(sent)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Events that were lost: for want of room, or because nobody took them.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Lets so many through in a time. Pure.
#[derive(Debug)]
struct Throttle {
    rate: Option<(f64, f64)>,
    tokens: f64,
    since: Instant,
}

impl Throttle {
    fn new(rate: Option<(f64, u32)>, now: Instant) -> Self {
        let rate = rate.map(|(rate, burst)| (rate.max(0.001), f64::from(burst.max(1))));
        Self {
            tokens: rate.map_or(0.0, |(_, burst)| burst),
            rate,
            since: now,
        }
    }

    /// How long the next one waits; it is through after that.
    fn next(&mut self, now: Instant) -> Duration {
        let Some((rate, burst)) = self.rate else {
            return Duration::ZERO;
        };
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.tokens = (self.tokens + passed * rate).min(burst) - 1.0;
        Duration::from_secs_f64((-self.tokens / rate).max(0.0))
    }
}

/// Events that go together.
#[derive(Default)]
struct Batch {
    events: Vec<String>,
    bytes: usize,
    /// Goes with them.
    room: Vec<OwnedSemaphorePermit>,
    /// Who waits for it.
    flushed: Vec<oneshot::Sender<()>>,
}

impl Batch {
    fn is_full(&self, config: &BatchConfig) -> bool {
        let flushes = !self.flushed.is_empty();
        flushes || self.events.len() >= config.events_max.max(1) || self.bytes >= BATCH_BYTES_MAX
    }

    fn add(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Event(event, room) => {
                self.bytes += event.len();
                self.events.push(event);
                self.room.push(room);
            }
            Waiting::Flush(told) => self.flushed.push(told),
        }
    }
}

/// The end that sends.
struct Sender {
    target: Target,
    config: BatchConfig,
    lost: Arc<AtomicU64>,
    /// The connection of the last batch.
    line: Option<Line>,
    throttle: Throttle,
}

/// What became of an attempt.
enum Attempt {
    Taken,
    /// It may be taken another time.
    Failed(String),
    Refused(String),
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(first) = queue.recv().await {
            let mut batch = Batch::default();
            batch.add(first);
            let until = Instant::now() + self.config.wait_max;
            while !batch.is_full(&self.config) {
                match tokio::time::timeout_at(until, queue.recv()).await {
                    Ok(Some(next)) => batch.add(next),
                    Ok(None) | Err(_) => break,
                }
            }
            self.deliver(&batch.events).await;
            for told in batch.flushed {
                // Nobody waits any more where it fails.
                let _ = told.send(());
            }
        }
    }

    async fn deliver(&mut self, events: &[String]) {
        if events.is_empty() {
            return;
        }
        let items = events.join(",");
        let list = format!(
            "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{items}]}}"
        );
        let mut pause = self.config.initial_backoff;
        for attempt in 1.. {
            tokio::time::sleep(self.throttle.next(Instant::now())).await;
            let sent = tokio::time::timeout(ATTEMPT_TIMEOUT, self.send(list.clone())).await;
            let why = match sent {
                Ok(Attempt::Taken) => return,
                Ok(Attempt::Failed(why)) if attempt >= ATTEMPTS_MAX => why,
                Ok(Attempt::Refused(why)) => why,
                Err(_) if attempt >= ATTEMPTS_MAX => "it did not answer in time".to_owned(),
                Ok(Attempt::Failed(_)) | Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = pause.mul_f64(1.5);
                    continue;
                }
            };
            let count = events.len();
            self.lost
                .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            tracing::error!(count, why, "events for the audit webhook are lost");
            return;
        }
    }

    async fn send(&mut self, list: String) -> Attempt {
        // A connection that was kept may have been closed at the other end meanwhile.
        let kept = match self.line.take() {
            Some(mut line) => line.is_ready().await.then_some(line),
            None => None,
        };
        let mut line = match kept {
            Some(line) => line,
            // A kubeconfig names an address: no node has to be asked.
            None => match Reach::new(None)
                .open(self.target.way(), self.target.tls())
                .await
            {
                Ok(line) => line,
                Err(why) => return Attempt::Failed(why),
            },
        };
        let mut request = Request::post(self.target.path())
            .header(header::HOST, self.target.host())
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )
            .header(
                header::USER_AGENT,
                HeaderValue::from_static("kube-apiserver-audit"),
            );
        if let Some(authorization) = self.target.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = match request.body(Body::from(list)) {
            Ok(request) => request,
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        let response = match line.send(request).await {
            Ok(response) => response,
            Err(Unanswered::Lost(why) | Unanswered::Failed(why)) => return Attempt::Failed(why),
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        if body.collect().await.is_ok() {
            self.line = Some(line);
        }
        match status {
            _ if status.is_success() => Attempt::Taken,
            StatusCode::TOO_MANY_REQUESTS => Attempt::Failed(status.to_string()),
            _ if status.is_server_error() => Attempt::Failed(status.to_string()),
            _ => Attempt::Refused(status.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn batches_keep_to_their_rate() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(Some((10.0, 3)), begin);
        let waits: Vec<u128> = (0..5).map(|_| throttle.next(begin).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        // After a pause it is as at first.
        let later = begin + Duration::from_secs(60);
        assert_eq!(throttle.next(later), Duration::ZERO);
        let mut free = Throttle::new(None, begin);
        assert_eq!(free.next(begin), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_lost_and_counted() {
        // Nobody is there, and nothing is tried again for a long time.
        let target = Target::parse(
            "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
             contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x",
            std::path::Path::new("/"),
        )
        .unwrap();
        let config = BatchConfig {
            buffer_max: 3,
            events_max: 1,
            initial_backoff: Duration::from_secs(3600),
            ..BatchConfig::default()
        };
        let webhook = Webhook::start(target, config).unwrap();
        // At most one more than there is room for is at the thread.
        for _ in 0..10 {
            webhook.write("{}".to_owned());
        }
        assert!(webhook.lost() >= 6, "{}", webhook.lost());
        assert!(webhook.lost() <= 7, "{}", webhook.lost());
    }
}
