//! A watch as a stream of JSON lines: one event each, encoded once and shared by all who are told of it.
//!
//! Bookmarks tell a client how far it is while nothing happens to its objects. The stream ends after a whole line: at the
//! time the client asked for, when the server closes, or when the client reads so slowly that too much waits for it. Nothing
//! is read ahead for a client: what waits is in the cache's queue, which is bounded. A client that is behind gets what waits in few pieces.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use weft_store::{Revision, Store};

use super::encoding::Answer;
use super::negotiate::Form;
use super::table::{self, Include, Style};
use crate::cache::LineForm;
use crate::objects::{ObjectWatch, Stored, WatchEvent};

/// How often a bookmark is sent, as in Kubernetes.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without a time of its own lasts this long, plus up to as much again at random, so that the clients
/// of a server that was just restarted do not all return at once (Kubernetes' `--min-request-timeout`).
const DURATION_DEFAULT: Duration = Duration::from_secs(1800);
/// The objects that are there when a watch begins, and events that wait, are sent so many bytes at a time; objects are read so many at a time.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_OBJECTS: usize = 64;
/// Pieces of what waits after which it is looked at whether the watch is to end.
const PIECES_MAX: u32 = 16;
/// How long a watch waits for a value that can be had in a moment, and between two looks.
const MISSED_MAX: Duration = Duration::from_secs(10);
const MISSED_PAUSE: Duration = Duration::from_millis(2);

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
    /// Objects that were there when it began, and are told next.
    waiting: VecDeque<WatchEvent>,
    settings: Settings,
    store: Store,
    deadline: Pin<Box<Sleep>>,
    ticks: Interval,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What the last bookmark said.
    marked: Revision,
    /// Pieces of what waited that were sent in a row.
    pieces: u32,
    over: bool,
}

/// The response that streams a watch.
pub fn respond(
    watch: ObjectWatch,
    settings: Settings,
    store: Store,
    closing: CancellationToken,
) -> Response {
    let duration = settings.timeout.unwrap_or_else(|| {
        DURATION_DEFAULT + rand::rng().random_range(Duration::ZERO..DURATION_DEFAULT)
    });
    let now = Instant::now();
    let mut ticks = tokio::time::interval_at(now + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let kind = watch.kind();
    let answer = Answer::Watch {
        api_version: kind.api_version(),
        kind: kind.kind.to_string(),
    };
    let running = Running {
        watch,
        waiting: VecDeque::new(),
        settings,
        store,
        deadline: Box::pin(tokio::time::sleep_until(now + duration)),
        ticks,
        closing: Box::pin(closing.cancelled_owned()),
        marked: 0,
        pieces: 0,
        // Without any time nothing is told.
        over: duration.is_zero(),
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
    response.extensions_mut().insert(answer);
    response
}

impl Running {
    async fn next_line(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if let Some(lines) = self.initial_lines().await {
            return lines;
        }
        if self.pieces < PIECES_MAX
            && let Some(event) = self.watch.next_waiting()
        {
            self.pieces += 1;
            return self.lines(event).await;
        }
        self.pieces = 0;
        loop {
            // Biased: an end that is due is not put off by a busy stream of events.
            tokio::select! {
                biased;
                () = &mut self.closing => return None,
                () = &mut self.deadline => {
                    self.over = true;
                    return self.bookmark().await;
                }
                event = self.watch.next() => {
                    if let Some(event) = event {
                        return self.lines(event).await;
                    }
                    self.over = true;
                    return self.bookmark().await;
                }
                _ = self.ticks.tick() => {
                    if let Some(line) = self.bookmark().await {
                        return Some(line);
                    }
                }
            }
        }
    }

    /// Some of the objects that were there when the watch began: nobody else is told of them, so they need no lines of their own.
    /// `None` when all were told; nothing in it when one cannot be.
    async fn initial_lines(&mut self) -> Option<Option<Bytes>> {
        if self.waiting.is_empty() {
            while self.waiting.len() < CHUNK_OBJECTS
                && let Some(event) = self.watch.next_initial()
            {
                self.waiting.push_back(event);
            }
            if self.waiting.iter().any(is_away) {
                // Reads the disk.
                let waiting = std::mem::take(&mut self.waiting);
                let read = tokio::task::spawn_blocking(move || {
                    let pin = |event| pin(event).unwrap_or_else(|event| event);
                    waiting.into_iter().map(pin).collect()
                });
                match read.await {
                    Ok(read) => self.waiting = read,
                    Err(_) => return Some(None),
                }
            }
        }
        let mut out = Vec::new();
        while out.len() < CHUNK_BYTES
            && let Some(event) = self.waiting.pop_front()
        {
            let Some(event) = pinned(event).await else {
                return Some(None);
            };
            out.extend_from_slice(&self.line(event));
        }
        (!out.is_empty()).then(|| Some(Bytes::from(out)))
    }

    /// The line of an event, and of what waits behind it, as long as it is no more than a piece. `None` where it cannot be told.
    async fn lines(&mut self, event: WatchEvent) -> Option<Bytes> {
        let first = self.kept_or_made(event).await?;
        let Some(second) = self.watch.next_waiting() else {
            // The bytes that all share who are told of it.
            return Some(first);
        };
        let mut out = Vec::with_capacity(2 * first.len());
        out.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(event) = next.take() {
            let Some(line) = self.kept_or_made(event).await else {
                self.over = true;
                break;
            };
            out.extend_from_slice(&line);
            if out.len() < CHUNK_BYTES {
                next = self.watch.next_waiting();
            }
        }
        Some(Bytes::from(out))
    }

    async fn kept_or_made(&mut self, event: WatchEvent) -> Option<Bytes> {
        if let Some(kept) = self.kept(&event) {
            return Some(kept);
        }
        Some(self.line(pinned(event).await?))
    }

    /// The line that somebody else was told of the same.
    fn kept(&self, event: &WatchEvent) -> Option<Bytes> {
        let (name, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::InitialEnd(_) | WatchEvent::Expired(_) => return None,
        };
        match self.settings.form {
            Form::Whole | Form::Discovery(_) => object.kept_line(name, LineForm::Whole),
            Form::Metadata | Form::MetadataList => object.kept_line(name, LineForm::Metadata),
            Form::Table(_) => None,
        }
    }

    fn line(&mut self, event: WatchEvent) -> Bytes {
        match event {
            WatchEvent::Added(object) => self.object_line("ADDED", &object),
            WatchEvent::Modified(object) => self.object_line("MODIFIED", &object),
            WatchEvent::Deleted(object) => self.object_line("DELETED", &object),
            WatchEvent::InitialEnd(revision) => self.bookmark_line(revision, true),
            // A Status in every form, tables too.
            WatchEvent::Expired(status) => event_line("ERROR", &status.to_value()),
        }
    }

    fn object_line(&self, event: &'static str, object: &Stored) -> Bytes {
        match self.settings.form {
            Form::Whole | Form::Discovery(_) => {
                object.line(event, LineForm::Whole, |out| object.write_json(out))
            }
            Form::Metadata | Form::MetadataList => object.line(event, LineForm::Metadata, |out| {
                object.write_metadata("v1", out);
            }),
            Form::Table(version) => {
                let style = self.style(version);
                let form = LineForm::Table(version, style.include, style.now.as_second());
                object.line(event, form, |out| {
                    let metadata = json!({"resourceVersion": object.revision().to_string()});
                    let table = table::table(self.watch.kind(), object, metadata, style);
                    // Writing to a Vec cannot fail.
                    let _ = serde_json::to_writer(out, &table);
                })
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

    /// How far the client is, if it wants to know and everything was told. Never less than it heard before: a watch that
    /// fell behind knows its last event only.
    async fn bookmark(&mut self) -> Option<Bytes> {
        if !self.settings.bookmarks {
            return None;
        }
        self.watch.catch_up(&self.store.snapshot()).await;
        let revision = self.watch.progress()?;
        (revision >= self.marked).then(|| self.bookmark_line(revision, false))
    }

    fn bookmark_line(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        self.marked = revision;
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
            Form::Metadata | Form::MetadataList => table::metadata_only(&own, "v1"),
            Form::Table(version) => {
                let style = self.style(version);
                let mut table = table::table_of_one(kind, &own, style);
                // A row must be there to carry the annotation, but it has nothing to show.
                for cell in weft_kinds::lens::items_mut(&mut table, "/rows/0/cells") {
                    *cell = Value::Null;
                }
                table
            }
        };
        event_line("BOOKMARK", &object)
    }
}

fn is_away(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            object.is_away()
        }
        WatchEvent::InitialEnd(_) | WatchEvent::Expired(_) => false,
    }
}

/// The event with an object that holds on to its value; as it was where that cannot be had yet. May read the disk.
fn pin(event: WatchEvent) -> Result<WatchEvent, WatchEvent> {
    type Event = fn(Stored) -> WatchEvent;
    let (object, event): (Stored, Event) = match event {
        WatchEvent::Added(object) => (object, WatchEvent::Added),
        WatchEvent::Modified(object) => (object, WatchEvent::Modified),
        WatchEvent::Deleted(object) => (object, WatchEvent::Deleted),
        WatchEvent::InitialEnd(_) | WatchEvent::Expired(_) => return Ok(event),
    };
    object.into_pinned().map(event).map_err(event)
}

/// As [`pin`], waiting for it. `None` ends the watch: its client goes on from the last revision that it was told.
async fn pinned(event: WatchEvent) -> Option<WatchEvent> {
    let mut tried = pin(event);
    let mut until = None;
    loop {
        let event = match tried {
            Ok(event) => return Some(event),
            Err(event) => event,
        };
        let now = Instant::now();
        if now > *until.get_or_insert(now + MISSED_MAX) {
            tracing::warn!("a watch ends: its cache does not keep up with the store");
            return None;
        }
        tokio::time::sleep(MISSED_PAUSE).await;
        tried = pin(event);
    }
}

fn event_line(event: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt as _;
    use weft_api::Object;
    use weft_api::status::StatusError;
    use weft_store::{Config, Store};

    use super::*;
    use crate::caller::Caller;
    use crate::listing::WatchOptions;
    use crate::objects::{self, Objects, WatchBounds, WriteOptions};

    struct World {
        objects: Objects,
        caller: Caller,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new(bounds: impl FnOnce(&mut WatchBounds)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = Config::new(dir.path());
            let store = Store::open(config).await.unwrap();
            let mut config = objects::Config::default();
            bounds(&mut config.watch);
            let objects = Objects::new(store, config);
            let caller = Caller::system("apiserver", None);
            objects.ensure_permanent_namespaces(&caller).await.unwrap();
            Self {
                objects,
                caller,
                _dir: dir,
            }
        }

        async fn create(&self, name: &str) {
            self.create_with(name, "").await;
        }

        async fn create_with(&self, name: &str, data: &str) {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "default"}, "data": {"data": data},
            });
            let (map, options) = (Object::from_value(map).unwrap(), WriteOptions::default());
            let kind = &weft_kinds::CONFIG_MAP;
            let client = self.objects.client(&self.caller);
            let created = client.create(kind, Some("default"), map, &options);
            created.await.unwrap();
        }

        async fn watch(&self, after: Revision) -> Result<Lines, StatusError> {
            let options = WatchOptions {
                resource_version: Some(after),
                ..WatchOptions::default()
            };
            let kind = &weft_kinds::CONFIG_MAP;
            let client = self.objects.client(&self.caller);
            let watch = client.watch(kind, Some("default"), options).await?;
            let settings = Settings {
                form: Form::Whole,
                include: Include::default(),
                bookmarks: true,
                timeout: None,
                clock: jiff::Timestamp::now,
            };
            let store = self.objects.store().clone();
            let response = respond(watch, settings, store, CancellationToken::new());
            Ok(Lines {
                body: response.into_body(),
                rest: Bytes::new(),
            })
        }

        fn revision(&self) -> Revision {
            self.objects.store().snapshot().revision()
        }

        /// Waits until everything that happened waits for those who watch.
        async fn caught_up(&self) {
            let client = self.objects.client(&self.caller);
            let options = crate::listing::ListOptions::default();
            let list = client.list(&weft_kinds::CONFIG_MAP, None, &options);
            list.await.unwrap();
        }
    }

    /// What a watch sends.
    struct Lines {
        body: Body,
        /// Of the last piece, what was not looked at.
        rest: Bytes,
    }

    impl Lines {
        /// The next piece, as it is sent.
        async fn piece(&mut self) -> Option<Bytes> {
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame());
            let frame = frame.await.expect("a piece in time")?;
            Some(frame.unwrap().into_data().unwrap())
        }
    }

    async fn line(lines: &mut Lines) -> Option<Bytes> {
        if lines.rest.is_empty() {
            lines.rest = lines.piece().await?;
        }
        let end = lines.rest.iter().position(|byte| *byte == b'\n');
        Some(lines.rest.split_to(end.expect("a whole line") + 1))
    }

    /// What an event says: its type, its object's name, and the revision to go on from.
    fn told(line: &Bytes) -> (String, String, Revision) {
        assert_eq!(line.last(), Some(&b'\n'), "a whole line");
        let event: Value = serde_json::from_slice(line).unwrap();
        let metadata = &event["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let revision = text(&metadata["resourceVersion"]).parse().unwrap();
        (text(&event["type"]), text(&metadata["name"]), revision)
    }

    #[tokio::test]
    async fn an_event_is_encoded_once_however_many_watch_it() {
        let world = World::new(|_| {}).await;
        let mut watches = Vec::new();
        for _ in 0..100 {
            watches.push(world.watch(world.revision()).await.unwrap());
        }
        let mut lines = Vec::new();
        for name in ["a", "b", "c"] {
            world.create(name).await;
            for watch in &mut watches {
                lines.push(line(watch).await.unwrap());
            }
        }
        // Kept until here, so that no two of them can have had the same place in memory by chance.
        let encodings: HashSet<_> = lines.iter().map(|line| line.as_ptr()).collect();
        assert_eq!((lines.len(), encodings.len()), (300, 3));
    }

    #[tokio::test]
    async fn what_waits_is_sent_in_few_pieces_and_none_is_much_too_large() {
        let world = World::new(|_| {}).await;
        let mut small = world.watch(world.revision()).await.unwrap();
        for number in 0..20 {
            world.create(&format!("small-{number}")).await;
        }
        world.caught_up().await;
        let piece = small.piece().await.unwrap();
        assert_eq!(piece.iter().filter(|byte| **byte == b'\n').count(), 20);

        let mut large = world.watch(world.revision()).await.unwrap();
        let data = "x".repeat(CHUNK_BYTES / 4);
        for number in 0..20 {
            world.create_with(&format!("large-{number}"), &data).await;
        }
        world.caught_up().await;
        for number in 0..20 {
            let told = told(&line(&mut large).await.unwrap());
            assert_eq!(
                (told.0.as_str(), told.1),
                ("ADDED", format!("large-{number}"))
            );
            assert!(large.rest.len() < 2 * CHUNK_BYTES);
        }
    }

    #[tokio::test]
    async fn a_watch_goes_on_from_every_kept_revision_and_older_ones_are_gone() {
        let world = World::new(|bounds| bounds.history_changes_max = 10).await;
        for number in 0..20 {
            world.create(&format!("m{number}")).await;
        }
        let newest = world.revision();
        for after in newest - 10..newest {
            let mut watch = world.watch(after).await.unwrap();
            for revision in after + 1..=newest {
                assert_eq!(told(&line(&mut watch).await.unwrap()).2, revision);
            }
        }
        // kube-rs' watcher lists again when it is told so in the stream, and never when the answer's status says it.
        for elsewhere in [newest - 11, newest + 1] {
            let mut watch = world.watch(elsewhere).await.unwrap();
            let told: Value = serde_json::from_slice(&line(&mut watch).await.unwrap()).unwrap();
            let status = &told["object"];
            assert_eq!(
                (told["type"].as_str(), status["kind"].as_str()),
                (Some("ERROR"), Some("Status"))
            );
            assert_eq!(
                (status["code"].as_u64(), status["reason"].as_str()),
                (Some(410), Some("Expired"))
            );
            assert!(line(&mut watch).await.is_none(), "it ends there");
        }
    }

    #[tokio::test]
    async fn whoever_reads_too_slowly_is_ended_after_a_whole_line_and_goes_on() {
        let world = World::new(|bounds| bounds.queue_changes_max = 8).await;
        let begin = world.revision();
        let mut slow = world.watch(begin).await.unwrap();
        let mut quick = world.watch(begin).await.unwrap();
        world.create("m0").await;
        let mut seen = vec![told(&line(&mut slow).await.unwrap())];
        assert_eq!(told(&line(&mut quick).await.unwrap()).1, "m0");
        for number in 1..30 {
            let name = format!("m{number}");
            world.create(&name).await;
            assert_eq!(told(&line(&mut quick).await.unwrap()).1, name);
        }
        while let Some(line) = line(&mut slow).await {
            seen.push(told(&line));
        }
        // Its end says how far it came, and from there it goes on.
        let (_, _, mut after) = seen.last().cloned().unwrap();
        seen.retain(|(kind, _, _)| kind != "BOOKMARK");
        assert!(seen.len() < 30, "it was not cut");
        let mut resumed = world.watch(after).await.unwrap();
        while seen.len() < 30 {
            let event = told(&line(&mut resumed).await.unwrap());
            assert!(event.2 > after);
            after = event.2;
            seen.push(event);
        }
        let names: Vec<String> = seen.into_iter().map(|(_, name, _)| name).collect();
        let all: Vec<String> = (0..30).map(|number| format!("m{number}")).collect();
        assert_eq!(names, all);
    }
}
