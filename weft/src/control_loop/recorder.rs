//! Tells users what happened, as core/v1 Events that `kubectl describe` shows.
//!
//! The same story about the same object is one Event with a count. One source may tell [`BURST`] stories about one object
//! and then one every [`REFILL`], as in Kubernetes, so that a ReplicaSet of ten thousand pods is not ten thousand events.
//! Events never hold up work: the queue is bounded, and what does not fit is dropped and counted in the log.
//!
//! Names are the time in hex after the object's, as Kubernetes' are: by them events of one second keep the order in which they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::debug;
use weft_api::time::rfc3339;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Objects, Patch, WriteOptions};
use weft_apiserver::request::ObjectRef;
use weft_controllers::Note;
use weft_store::Term;

/// Notes waiting to be written; beyond it they are dropped.
const QUEUE_MAX: usize = 2048;
/// Notes written in one go, side by side.
const BATCH: usize = 32;
/// Stories one source may tell about one object at once.
const BURST: u32 = 25;
/// One more story each.
const REFILL: Duration = Duration::from_secs(300);
/// Longest name of an object.
const NAME_MAX: usize = 253;
/// Stories remembered for counting; beyond it all are forgotten, and a repeat starts a new Event.
const REMEMBERED_MAX: usize = 4096;

/// A note on its way to the writer.
pub struct Telling {
    pub component: &'static str,
    pub note: Note,
    /// When what it tells happened.
    pub at: Timestamp,
}

/// Writes notes in a task of its own until dropped.
pub struct Recorder {
    sender: mpsc::Sender<Telling>,
    task: AbortHandle,
}

/// Tells notes under one component's name.
#[derive(Clone)]
pub struct Handle {
    component: &'static str,
    sender: mpsc::Sender<Telling>,
}

impl Recorder {
    pub fn start(objects: Objects, term: Term) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            caller: Caller::system("event-recorder", Some(term)),
            objects,
            stories: BTreeMap::new(),
            buckets: Buckets::default(),
            last_nanos: 0,
        };
        let task = tokio::spawn(writer.run(receiver)).abort_handle();
        Self { sender, task }
    }

    pub fn handle(&self, component: &'static str) -> Handle {
        Handle::new(component, self.sender.clone())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    /// Tells into `sender`, under this name.
    pub fn new(component: &'static str, sender: mpsc::Sender<Telling>) -> Self {
        Self { component, sender }
    }

    /// Never waits.
    pub fn tell(&self, note: Note) {
        self.tell_of(note, Timestamp::now());
    }

    /// As [`Handle::tell`], of what happened at this time. What others tell in consequence, as a node does of a pod that was bound,
    /// comes behind it, though they may have told it before.
    pub fn tell_of(&self, note: Note, at: Timestamp) {
        let telling = Telling {
            component: self.component,
            note,
            at,
        };
        if self.sender.try_send(telling).is_err() {
            debug!(
                component = self.component,
                "an event was dropped: too many are waiting"
            );
        }
    }
}

/// What makes two notes the same story.
type Story = (&'static str, Note);

/// An Event that was written.
struct Told {
    namespace: String,
    name: String,
    count: u32,
}

struct Writer {
    objects: Objects,
    caller: Caller,
    stories: BTreeMap<Story, Told>,
    buckets: Buckets,
    /// Of the last new Event's name.
    last_nanos: i128,
}

/// What a batch tells of one story.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    story: Story,
    times: u32,
    first: Timestamp,
    last: Timestamp,
}

/// The stories of a batch, each once, in the order in which they were told first.
fn repeats(batch: impl Iterator<Item = Telling>) -> Vec<Repeats> {
    let mut order: Vec<Repeats> = Vec::new();
    for telling in batch {
        let Telling {
            component,
            note,
            at,
        } = telling;
        let story = (component, note);
        match order.iter_mut().find(|known| known.story == story) {
            Some(known) => {
                known.times += 1;
                known.first = known.first.min(at);
                known.last = known.last.max(at);
            }
            None => order.push(Repeats {
                story,
                times: 1,
                first: at,
                last: at,
            }),
        }
    }
    // Told when it was over, of when it began.
    order.sort_by_key(|repeats| repeats.first);
    order
}

/// Stories left, and when that was counted, by source and object; warnings apart, so that a burst of good news hides none.
#[derive(Default)]
struct Buckets(BTreeMap<(&'static str, bool, Arc<str>), (u32, Instant)>);

impl Buckets {
    /// Takes one of the stories that are left.
    fn may_tell(&mut self, story: &Story, now: Instant) -> bool {
        let source = (story.0, story.1.warning, Arc::clone(&story.1.about.uid));
        let (left, since) = self.0.entry(source).or_insert((BURST, now));
        let periods = now.duration_since(*since).as_secs() / REFILL.as_secs();
        let refilled = u32::try_from(periods).unwrap_or(BURST);
        if refilled > 0 {
            *left = left.saturating_add(refilled).min(BURST);
            *since = now;
        }
        if *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Telling>) {
        let mut batch = Vec::with_capacity(BATCH);
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            let mut repeats = repeats(batch.drain(..));
            if self.stories.len() > REMEMBERED_MAX {
                self.stories.clear();
                self.buckets.0.clear();
            }
            let now = Instant::now();
            repeats.retain(|repeats| self.buckets.may_tell(&repeats.story, now));
            let writes: Vec<_> = repeats
                .into_iter()
                .map(|repeats| {
                    let told = self.stories.get(&repeats.story);
                    let count = told.map_or(0, |told| told.count) + repeats.times;
                    self.last_nanos = repeats.first.as_nanosecond().max(self.last_nanos + 1);
                    let event = event(&repeats, told, count, self.last_nanos);
                    (event, repeats.story, count)
                })
                .collect();
            let writes = writes.into_iter();
            let writes = writes.map(|(event, story, count)| self.write(event, story, count));
            let written = futures::future::join_all(writes).await;
            for (story, told) in written {
                match told {
                    Some(told) => self.stories.insert(story, told),
                    None => self.stories.remove(&story),
                };
            }
        }
    }

    /// Writes one Event; `None`: it was refused, or the one to count on is gone.
    async fn write(&self, event: Event, story: Story, count: u32) -> (Story, Option<Told>) {
        let options = WriteOptions::default();
        let namespace = Some(event.namespace.as_str());
        let kind = &weft_kinds::EVENT;
        let client = self.objects.client(&self.caller);
        let written = if event.repeated {
            let told = ObjectRef::new(kind, namespace, &event.name);
            let written = client.patch(told, None, Patch::merge(&event.value), &options);
            written.await.map(drop)
        } else {
            match weft_api::Object::from_value(event.value) {
                Ok(object) => {
                    let written = client.create(kind, namespace, object, &options);
                    written.await.map(drop)
                }
                Err(error) => Err(weft_api::StatusError::internal(error)),
            }
        };
        let told = match written {
            Ok(()) => Some(Told {
                namespace: event.namespace,
                name: event.name,
                count,
            }),
            Err(error) => {
                debug!(error = error.message, "an event was not recorded");
                None
            }
        };
        (story, told)
    }
}

/// An Event to be written: created, or counted up.
struct Event {
    namespace: String,
    name: String,
    repeated: bool,
    value: Value,
}

/// A name for an Event: readable, in the order of time, and valid whatever the object is called.
///
/// Objects of some kinds have names that no Event may have (RBAC's carry colons), and a long one leaves no room.
fn event_name(about: &str, nanos: i128) -> String {
    let suffix = format!(".{nanos:x}");
    let letters: String = about
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '.' | '-' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        })
        .take(NAME_MAX - suffix.len())
        .collect();
    // Each label of a name begins and ends with a letter or digit; what replaces a bad one may not.
    let labels: Vec<&str> = letters
        .split('.')
        .map(|label| label.trim_matches('-'))
        .filter(|label| !label.is_empty())
        .collect();
    match labels.is_empty() {
        true => format!("object{suffix}"),
        false => labels.join(".") + &suffix,
    }
}

/// `nanos` is the time in the name of a new one.
fn event(repeats: &Repeats, told: Option<&Told>, count: u32, nanos: i128) -> Event {
    let (component, note) = &repeats.story;
    let (first, last) = (rfc3339(repeats.first), rfc3339(repeats.last));
    let about = &note.about;
    if let Some(told) = told {
        return Event {
            namespace: told.namespace.clone(),
            name: told.name.clone(),
            repeated: true,
            value: json!({"count": count, "lastTimestamp": last}),
        };
    }
    let namespace = about.key.scope().unwrap_or("default").to_owned();
    let name = event_name(&about.key.name, nanos);
    let value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.kind.api_version(),
            "kind": about.kind.kind,
            "namespace": about.key.scope(),
            "name": &*about.key.name,
            "uid": &*about.uid,
        },
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "message": note.message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": first,
        "lastTimestamp": last,
        "count": count,
    });
    Event {
        namespace,
        name,
        repeated: false,
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(warning: bool, message: &str) -> Note {
        let about = weft_controllers::Reference {
            kind: Arc::clone(&weft_kinds::POD),
            key: weft_controllers::Key::new("default", "a"),
            uid: "a".into(),
        };
        match warning {
            true => Note::warning(about, "Reason", message),
            false => Note::normal(about, "Reason", message),
        }
    }

    /// A story that is told so many seconds after the first of all.
    fn telling(message: &str, second: i64) -> Telling {
        Telling {
            component: "a",
            note: note(true, message),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn one_source_tells_so_many_stories_of_an_object_and_then_one_now_and_then() {
        let mut buckets = Buckets::default();
        let begun = Instant::now();
        let good: Story = ("a", note(false, "good"));
        let told = (0..100).filter(|_| buckets.may_tell(&good, begun)).count();
        assert_eq!(told, 25);
        // Warnings, and other sources, are counted apart.
        assert!(buckets.may_tell(&("a", note(true, "bad")), begun));
        assert!(buckets.may_tell(&("b", note(false, "good")), begun));
        let later = begun + 2 * REFILL;
        let told = (0..100).filter(|_| buckets.may_tell(&good, later)).count();
        assert_eq!(told, 2);
        let much_later = later + 1000 * REFILL;
        let told = (0..100)
            .filter(|_| buckets.may_tell(&good, much_later))
            .count();
        assert_eq!(told, 25);
    }

    #[test]
    fn a_note_waits_for_nobody() {
        let (sender, mut receiver) = mpsc::channel(1);
        let handle = Handle::new("a", sender);
        for message in ["first", "dropped", "dropped too"] {
            handle.tell(note(false, message));
        }
        assert_eq!(receiver.try_recv().unwrap().note.message, "first");
        assert!(receiver.try_recv().is_err());
        handle.tell(note(false, "next"));
        assert_eq!(receiver.try_recv().unwrap().note.message, "next");
        drop(receiver);
        handle.tell(note(false, "nobody listens"));
    }

    #[test]
    fn a_repeated_story_is_one_event_that_counts() {
        let told = repeats([telling("again", 0), telling("again", 9)].into_iter());
        assert_eq!((told.len(), told[0].times), (1, 2));
        let first = event(&told[0], None, 1, 0x1b);
        assert!(!first.repeated);
        assert_eq!(first.name, "a.1b");
        assert_eq!(
            (&*first.namespace, &first.value["count"]),
            ("default", &json!(1))
        );
        let told = Told {
            namespace: first.namespace,
            name: first.name.clone(),
            count: 1,
        };
        let again = repeats([telling("again", 9)].into_iter());
        let second = event(&again[0], Some(&told), 4, 0x1c);
        assert!(second.repeated);
        assert_eq!(second.name, first.name);
        let expected = json!({"count": 4, "lastTimestamp": "1970-01-01T00:00:09Z"});
        assert_eq!(second.value, expected);
    }

    /// `kubectl describe` once showed that a pod was started, then that it was created, and last that it had been scheduled.
    #[test]
    fn events_of_one_second_keep_their_order_by_their_names() {
        // In the order of their letters they would be another story.
        let told = ["pulling", "created", "started"].map(|message| telling(message, 1));
        let scheduled = telling("scheduled", 0);
        let mut names = Vec::new();
        let mut last_nanos = 0;
        for repeats in repeats(told.into_iter().chain([scheduled])) {
            last_nanos = repeats.first.as_nanosecond().max(last_nanos + 1);
            let name = event(&repeats, None, 1, last_nanos).name;
            names.push((name, repeats.story.1.message));
        }
        names.sort();
        let order: Vec<&str> = names.iter().map(|(_, message)| &**message).collect();
        assert_eq!(order, ["scheduled", "pulling", "created", "started"]);
    }

    #[test]
    fn an_event_has_a_valid_name_whatever_it_is_about() {
        let long = format!("{}.{}", "a".repeat(240), "b".repeat(12));
        for (about, expected) in [
            ("web-1", "web-1"),
            ("web.v1", "web.v1"),
            ("system:node:n1", "system-node-n1"),
            ("System:Admin:", "system-admin"),
            ("a.:b", "a.b"),
            ("::", "object"),
            (long.as_str(), &long[..236]),
        ] {
            let name = event_name(about, 0x18a1_b2c3_d4e5_f607);
            assert!(name.len() <= NAME_MAX, "{name}");
            assert_eq!(
                name.strip_suffix(".18a1b2c3d4e5f607"),
                Some(expected.trim_end_matches('.')),
                "{about}"
            );
        }
    }
}
