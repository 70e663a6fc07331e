//! Tells users what happened, as core/v1 Events that `kubectl describe` shows.
//!
//! The same story about the same object is one Event with a count, and so are stories beyond the first few that differ in their words alone;
//! one source tells a bounded number of them about one object ([`EventFilter`]), so that a ReplicaSet of ten thousand pods is not ten
//! thousand events. One that ended is made again, and goes on counting. The scheduler's have a series for that ([`reported`]). Events never
//! hold up work: the queue is bounded, and what does not fit is dropped and counted in the log.
//!
//! Names are the time in hex after the object's, as Kubernetes' are: by them events of one second keep the order in which they were told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::debug;
use weft_api::event_filter::{EventFilter, Source};
use weft_api::time::{rfc3339, rfc3339_micros};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Objects, Patch, WriteOptions};
use weft_apiserver::request::ObjectRef;
use weft_controllers::Note;
use weft_store::Term;

use super::placement;

/// Notes waiting to be written; beyond it they are dropped.
const QUEUE_MAX: usize = 2048;
/// Notes written in one go, side by side.
const BATCH: usize = 32;
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
            filter: EventFilter::default(),
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

/// What makes two notes the same story. One that stands for others has no message of its own.
type Story = (&'static str, Note);

/// An Event that was written.
struct Told {
    namespace: String,
    name: String,
    count: u32,
    first: Timestamp,
}

struct Writer {
    objects: Objects,
    caller: Caller,
    stories: BTreeMap<Story, Told>,
    filter: EventFilter,
    /// Of the last new Event's name.
    last_nanos: i128,
}

/// What a batch tells of one story.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    story: Story,
    /// The latest of them.
    message: String,
    times: u32,
    first: Timestamp,
    last: Timestamp,
}

fn source(story: &Story) -> Source<'_> {
    let (component, Note { about, warning, .. }) = story;
    Source {
        component,
        host: "",
        uid: &about.uid,
        kind: &about.kind.kind,
        name: &about.key.name,
        is_warning: *warning,
    }
}

/// The stories of a batch, each once, in the order in which they were told first.
fn repeats(batch: impl Iterator<Item = Telling>, filter: &mut EventFilter) -> Vec<Repeats> {
    let mut order: Vec<Repeats> = Vec::new();
    for telling in batch {
        let Telling {
            component,
            note,
            at,
        } = telling;
        let mut story = (component, note);
        let told = &story.1;
        let message = match filter.combined(&source(&story), told.reason, &told.message, at) {
            Some(combined) => {
                story.1.message.clear();
                combined
            }
            None => told.message.clone(),
        };
        match order.iter_mut().find(|known| known.story == story) {
            Some(known) => {
                known.message = message;
                known.times += 1;
                known.first = known.first.min(at);
                known.last = known.last.max(at);
            }
            None => order.push(Repeats {
                story,
                message,
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

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Telling>) {
        let mut batch = Vec::with_capacity(BATCH);
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            let mut repeats = repeats(batch.drain(..), &mut self.filter);
            if self.stories.len() > REMEMBERED_MAX {
                self.stories.clear();
            }
            let now = Timestamp::now();
            repeats.retain(|repeats| self.filter.may_tell(&source(&repeats.story), now));
            let writes: Vec<_> = repeats
                .into_iter()
                .map(|repeats| {
                    self.last_nanos = repeats.first.as_nanosecond().max(self.last_nanos + 1);
                    let event = event(&repeats, self.stories.get(&repeats.story), self.last_nanos);
                    (event, repeats.story)
                })
                .collect();
            let writes = writes.into_iter();
            let writes = writes.map(|(event, story)| self.write(event, story));
            let written = futures::future::join_all(writes).await;
            for (story, told) in written {
                match told {
                    Some(told) => self.stories.insert(story, told),
                    None => self.stories.remove(&story),
                };
            }
        }
    }

    /// Writes one Event; `None`: it was refused.
    async fn write(&self, event: Event, story: Story) -> (Story, Option<Told>) {
        let options = WriteOptions::default();
        let namespace = Some(event.told.namespace.as_str());
        let kind = &weft_kinds::EVENT;
        let client = self.objects.client(&self.caller);
        let counted = match &event.change {
            Some(change) => {
                let told = ObjectRef::new(kind, namespace, &event.told.name);
                let written = client.patch(told, None, Patch::merge(change), &options);
                Some(written.await.map(drop))
            }
            None => None,
        };
        let written = match counted {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if !error.is_not_found() => Err(error),
            // The first of its kind, or what there was of it ended long ago.
            _ => match weft_api::Object::from_value(event.value) {
                Ok(object) => {
                    let written = client.create(kind, namespace, object, &options);
                    written.await.map(drop)
                }
                Err(error) => Err(weft_api::StatusError::internal(error)),
            },
        };
        let told = match written {
            Ok(()) => Some(event.told),
            Err(error) => {
                debug!(error = error.message, "an event was not recorded");
                None
            }
        };
        (story, told)
    }
}

/// An Event to be written.
struct Event {
    /// What is known of it, once that is done.
    told: Told,
    /// What changes of the one that was written; `None`: none was.
    change: Option<Value>,
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

/// What a component was doing that reports as `events.k8s.io/v1` has it: as in Kubernetes the scheduler alone.
fn action(component: &str, reason: &str) -> Option<&'static str> {
    if component != placement::COMPONENT {
        return None;
    }
    match reason {
        "Scheduled" => Some("Binding"),
        "FailedScheduling" => Some("Scheduling"),
        "Preempted" => Some("Preempting"),
        _ => None,
    }
}

/// How often and when, as the first version of events has it: of a new event, and of one that is told again.
fn counted(component: &str, told: &Told, last: Timestamp) -> (Value, Value) {
    let (first, last) = (rfc3339(told.first), rfc3339(last));
    let times = json!({
        "source": {"component": component},
        "reportingInstance": "",
        "firstTimestamp": first,
        "lastTimestamp": last,
        "count": told.count,
    });
    (times, json!({"count": told.count, "lastTimestamp": last}))
}

/// The same as a series, which there is from the second time on.
fn reported(component: &str, action: &str, told: &Told, last: Timestamp) -> (Value, Value) {
    let series = json!({"count": told.count, "lastObservedTime": rfc3339_micros(last)});
    let mut times = json!({
        "reportingInstance": component,
        "action": action,
        "eventTime": rfc3339_micros(told.first),
    });
    if told.count > 1 {
        times["series"] = series.clone();
    }
    (times, json!({ "series": series }))
}

/// `nanos` is the time in the name of a new one.
fn event(repeats: &Repeats, before: Option<&Told>, nanos: i128) -> Event {
    let (component, note) = &repeats.story;
    let about = &note.about;
    let told = match before {
        Some(before) => Told {
            namespace: before.namespace.clone(),
            name: before.name.clone(),
            count: before.count.saturating_add(repeats.times),
            first: before.first,
        },
        None => Told {
            namespace: about.key.scope().unwrap_or("default").to_owned(),
            name: event_name(&about.key.name, nanos),
            count: repeats.times,
            first: repeats.first,
        },
    };
    let (times, mut change) = match action(component, note.reason) {
        Some(action) => reported(component, action, &told, repeats.last),
        None => counted(component, &told, repeats.last),
    };
    if note.message != repeats.message {
        change["message"] = json!(repeats.message);
    }
    let mut value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": told.name, "namespace": told.namespace},
        "involvedObject": {
            "apiVersion": about.kind.api_version(),
            "kind": about.kind.kind,
            "namespace": about.key.scope(),
            "name": &*about.key.name,
            "uid": &*about.uid,
        },
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "message": repeats.message,
        "reportingComponent": component,
    });
    if let (Value::Object(value), Value::Object(times)) = (&mut value, times) {
        value.extend(times);
    }
    Event {
        told,
        change: before.map(|_| change),
        value,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let mut filter = EventFilter::default();
        let batch = [telling("again", 0), telling("again", 8)];
        let told = repeats(batch.into_iter(), &mut filter);
        assert_eq!((told.len(), told[0].times), (1, 2));
        let first = event(&told[0], None, 0x1b);
        assert_eq!(first.change, None);
        assert_eq!(first.told.name, "a.1b");
        assert_eq!(
            (&*first.told.namespace, &first.value["count"]),
            ("default", &json!(2))
        );
        let again = repeats([telling("again", 9)].into_iter(), &mut filter);
        let second = event(&again[0], Some(&first.told), 0x1c);
        assert_eq!(second.told.name, first.told.name);
        let expected = json!({"count": 3, "lastTimestamp": "1970-01-01T00:00:09Z"});
        assert_eq!(second.change, Some(expected));
        // Should the first have ended, all of it is told again.
        let whole = |name: &str| second.value[name].clone();
        assert_eq!(whole("firstTimestamp"), "1970-01-01T00:00:00Z");
        assert_eq!(
            (whole("count"), whole("message")),
            (json!(3), json!("again"))
        );
    }

    #[test]
    fn what_the_scheduler_tells_is_a_series() {
        let mut filter = EventFilter::default();
        let telling = |second: i64| Telling {
            component: placement::COMPONENT,
            note: Note {
                reason: "FailedScheduling",
                ..note(true, "no node")
            },
            at: Timestamp::from_second(second).unwrap(),
        };
        let first = event(&repeats([telling(1)].into_iter(), &mut filter)[0], None, 1);
        let told = |name: &str| first.value[name].clone();
        assert_eq!(
            [
                told("action"),
                told("eventTime"),
                told("reportingInstance"),
                told("series")
            ],
            [
                json!("Scheduling"),
                json!("1970-01-01T00:00:01.000000Z"),
                json!("default-scheduler"),
                Value::Null
            ]
        );
        assert_eq!([told("count"), told("source")], [Value::Null, Value::Null]);
        let again = &repeats([telling(7)].into_iter(), &mut filter)[0];
        let second = event(again, Some(&first.told), 2);
        let series = json!({"count": 2, "lastObservedTime": "1970-01-01T00:00:07.000000Z"});
        assert_eq!(second.change, Some(json!({ "series": series })));
        assert_eq!(second.value["series"], series);
    }

    #[test]
    fn stories_that_differ_in_their_words_alone_become_one() {
        let mut filter = EventFilter::default();
        let batch = (0..12).map(|number| telling(&format!("port {number}"), number));
        let told = repeats(batch, &mut filter);
        assert_eq!(told.len(), 10);
        let last = &told[9];
        assert_eq!(
            (last.times, &*last.message),
            (3, "(combined from similar events): port 11")
        );
        let first = event(last, None, 1);
        assert_eq!(first.value["message"], last.message);
        let more = repeats([telling("port 12", 20)].into_iter(), &mut filter);
        assert_eq!(more[0].story, last.story);
        let expected = json!({"count": 4, "lastTimestamp": "1970-01-01T00:00:20Z",
            "message": "(combined from similar events): port 12"});
        assert_eq!(event(&more[0], Some(&first.told), 2).change, Some(expected));
    }

    /// `kubectl describe` once showed that a pod was started, then that it was created, and last that it had been scheduled.
    #[test]
    fn events_of_one_second_keep_their_order_by_their_names() {
        // In the order of their letters they would be another story.
        let told = ["pulling", "created", "started"].map(|message| telling(message, 1));
        let scheduled = telling("scheduled", 0);
        let mut names = Vec::new();
        let mut last_nanos = 0;
        let batch = told.into_iter().chain([scheduled]);
        for repeats in repeats(batch, &mut EventFilter::default()) {
            last_nanos = repeats.first.as_nanosecond().max(last_nanos + 1);
            let name = event(&repeats, None, last_nanos).told.name;
            names.push((name, repeats.message));
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
