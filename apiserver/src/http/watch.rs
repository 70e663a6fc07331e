//! A watch as a stream of JSON lines: one event each, encoded once and shared by all who watch.
//!
//! Bookmarks tell a client how far it is while nothing happens to its objects. The stream ends cleanly at the
//! time the client asked for, or when the server closes; an error is its last line.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weft_store::Revision;

use super::negotiate::Form;
use super::table::{self, Include, Style};
use crate::objects::{ObjectWatch, Stored, WatchEvent};

/// How often a bookmark is sent, as in Kubernetes.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without a time of its own lasts this long, plus up to as much again at random, so that the clients
/// of a server that was just restarted do not all return at once (Kubernetes' `--min-request-timeout`).
const DURATION_DEFAULT: Duration = Duration::from_secs(1800);

/// How the events of one request look.
pub struct Settings {
    pub form: Form,
    pub include: Include,
    pub bookmarks: bool,
    pub timeout: Option<Duration>,
    pub clock: fn() -> jiff::Timestamp,
}

struct Running {
    watch: ObjectWatch,
    settings: Settings,
    deadline: Instant,
    ticks: Interval,
    closing: CancellationToken,
    over: bool,
}

/// The response that streams a watch.
pub fn respond(watch: ObjectWatch, settings: Settings, closing: CancellationToken) -> Response {
    let duration = settings.timeout.unwrap_or_else(|| {
        DURATION_DEFAULT + rand::rng().random_range(Duration::ZERO..DURATION_DEFAULT)
    });
    let now = Instant::now();
    let mut ticks = tokio::time::interval_at(now + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let running = Running {
        watch,
        settings,
        deadline: now + duration,
        ticks,
        closing,
        over: false,
    };
    let lines = stream::unfold(running, |mut running| async {
        let line = running.next_line().await?;
        Some((Ok::<_, std::convert::Infallible>(line), running))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

impl Running {
    async fn next_line(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            // Biased: an end that is due is not put off by a busy stream of events.
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => {
                    self.over = true;
                    return self.bookmark();
                }
                event = self.watch.next() => return event.map(|event| self.line(event)),
                _ = self.ticks.tick() => {
                    if let Some(line) = self.bookmark() {
                        return Some(line);
                    }
                }
            }
        }
    }

    fn line(&mut self, event: WatchEvent) -> Bytes {
        match event {
            WatchEvent::Added(object) => self.object_line("ADDED", &object),
            WatchEvent::Modified(object) => self.object_line("MODIFIED", &object),
            WatchEvent::Deleted(object) => self.object_line("DELETED", &object),
            WatchEvent::InitialEnd(revision) => self.bookmark_line(revision, true),
            WatchEvent::Failed(error) => {
                self.over = true;
                event_line("ERROR", &error.to_value())
            }
        }
    }

    fn object_line(&self, event: &'static str, object: &Stored) -> Bytes {
        match self.settings.form {
            Form::Whole | Form::Discovery(_) => object.watch_line(event),
            Form::Metadata => {
                event_line(event, &table::metadata_only(&object.stored_value(), "v1"))
            }
            Form::Table(version) => {
                let style = self.style(version);
                let metadata = json!({"resourceVersion": object.revision().to_string()});
                let kind = self.watch.kind();
                let rows = std::iter::once(object);
                event_line(event, &table::table(kind, rows, metadata, style))
            }
        }
    }

    fn style(&self, version: &'static str) -> Style {
        Style {
            version,
            include: self.settings.include,
            now: (self.settings.clock)(),
        }
    }

    /// How far the client is, if it wants to know and everything was told.
    fn bookmark(&self) -> Option<Bytes> {
        if !self.settings.bookmarks {
            return None;
        }
        let revision = self.watch.progress()?;
        Some(self.bookmark_line(revision, false))
    }

    fn bookmark_line(&self, revision: Revision, initial_end: bool) -> Bytes {
        let kind = self.watch.kind();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let own = json!({
            "kind": kind.kind,
            "apiVersion": kind.api_version(),
            "metadata": metadata,
        });
        let object = match self.settings.form {
            Form::Whole | Form::Discovery(_) => own,
            Form::Metadata => table::metadata_only(&own, "v1"),
            Form::Table(version) => {
                let style = self.style(version);
                let mut table = table::table_of_one(kind, &own, style);
                // A row must be there to carry the annotation, but it has nothing to show.
                for cell in crate::lens::items_mut(&mut table, "/rows/0/cells") {
                    *cell = Value::Null;
                }
                table
            }
        };
        event_line("BOOKMARK", &object)
    }
}

fn event_line(event: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n"))
}
