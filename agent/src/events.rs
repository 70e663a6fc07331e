//! Events about pods and this node, as `kubectl describe` shows them.
//!
//! Writing an event never waits and never fails its caller: it goes into a bounded queue that one task empties. The same
//! event again raises the count of the first instead of making another; many that differ in their message alone become one, and of one
//! object a bounded number is told ([`EventFilter`]), as Kubernetes' recorder does it.
//!
//! Names are the time in hex after the object's, as Kubernetes' are, so that events of one second stay in their order.
//!
//! Invariants: the queue and the table of recent events are bounded; when the queue is full the event is dropped, the pod's
//! status says the same anyway.

use crate::identity::Link;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_api::event_filter::{EventFilter, Source};

/// Events waiting to be written.
const QUEUE_MAX: usize = 1024;
/// Recent events remembered for counting.
const RECENT_MAX: usize = 4096;
/// What nodes are called where they tell something.
const COMPONENT: &str = "kubelet";
/// Longest message; the API refuses more than 1 KiB.
const MESSAGE_BYTES_MAX: usize = 1000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

/// Writes events. Clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Noted>,
}

#[derive(Debug)]
struct Noted {
    object: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// The writing task's half; see [`Recorder::new`].
pub struct Writing {
    queue: mpsc::Receiver<Noted>,
    node: String,
    /// Of the last event's name.
    last_nanos: i128,
}

/// What makes two events the same. Those that stand for others have neither a field nor a message of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sameness {
    uid: String,
    severity: Severity,
    field: Option<String>,
    reason: &'static str,
    message: Option<String>,
}

/// An event that was written.
#[derive(Clone)]
struct Recent {
    namespace: String,
    name: String,
    count: i32,
    first: Timestamp,
}

/// What was written lately.
#[derive(Default)]
struct Lately {
    events: HashMap<Sameness, Recent>,
    filter: EventFilter,
}

impl Recorder {
    /// A recorder and the half that must be run for events to be written.
    pub fn new(node: &str) -> (Self, Writing) {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        (
            Self { queue },
            Writing {
                queue: events,
                node: node.to_owned(),
                last_nanos: 0,
            },
        )
    }

    /// Notes an event about a pod, or about one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(about(pod, container), severity, reason, message.into());
    }

    /// Notes an event about this node.
    pub fn node(
        &self,
        name: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        // Kubernetes' kubelet uses the node's name as the uid of the reference, and `kubectl describe node` looks for it.
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.record(object, severity, reason, message.into());
    }

    /// Notes an event about what [`about`] refers to.
    pub(crate) fn record(
        &self,
        object: ObjectReference,
        severity: Severity,
        reason: &'static str,
        mut message: String,
    ) {
        if message.len() > MESSAGE_BYTES_MAX {
            let cut = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|at| message.is_char_boundary(*at))
                .unwrap_or(0);
            message.truncate(cut);
        }
        if self
            .queue
            .try_send(Noted {
                object,
                severity,
                reason,
                message,
                at: Timestamp::now(),
            })
            .is_err()
        {
            tracing::debug!(reason, "event dropped, too many are waiting");
        }
    }
}

/// A pod, or one of its containers, as events refer to it.
pub(crate) fn about(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let metadata = &pod.metadata;
    let init = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .any(|c| Some(c.name.as_str()) == container);
    let list = if init { "initContainers" } else { "containers" };
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        field_path: container.map(|name| format!("spec.{list}{{{name}}}")),
        resource_version: None,
    }
}

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;

fn event_name(object: &str, nanos: i128) -> String {
    let time = format!("{nanos:x}");
    let room = NAME_BYTES_MAX - 1 - time.len();
    let start = &object[..object.floor_char_boundary(room)];
    format!("{}.{time}", start.trim_end_matches(['-', '.']))
}

impl Writing {
    /// Writes events until `shutdown`.
    pub async fn run(mut self, link: Link, shutdown: CancellationToken) {
        let mut lately = Lately::default();
        loop {
            let noted = tokio::select! {
                biased;
                noted = self.queue.recv() => noted,
                () = shutdown.cancelled() => return,
            };
            let Some(noted) = noted else { return };
            if lately.events.len() >= RECENT_MAX {
                lately.events.clear();
            }
            if let Err(error) = self.write(&link, &mut lately, noted).await {
                tracing::debug!(%error, "event not written");
            }
        }
    }

    async fn write(
        &mut self,
        link: &Link,
        lately: &mut Lately,
        noted: Noted,
    ) -> Result<(), kube::Error> {
        let Some((same, message)) = lately.story(&self.node, &noted) else {
            return Ok(());
        };
        let before = lately.events.get(&same).cloned();
        let is_again = before.is_some();
        let mut told = before.unwrap_or_else(|| self.first_of(&noted));
        told.count = told.count.saturating_add(1);
        let api: Api<Event> = Api::namespaced(link.client(), &told.namespace);
        if is_again {
            let mut patch =
                serde_json::json!({"count": told.count, "lastTimestamp": Time(noted.at)});
            if same.message.is_none() {
                patch["message"] = message.as_str().into();
            }
            let written = api
                .patch(&told.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            match written {
                Ok(_) => {
                    lately.events.insert(same, told);
                    return Ok(());
                }
                // It ended an hour after it was last told: this is the same story, and a new object.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(told.name.clone()),
                namespace: Some(told.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: noted.object,
            reason: Some(noted.reason.to_owned()),
            message: Some(message),
            type_: Some(match noted.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(self.node.clone()),
            count: Some(told.count),
            first_timestamp: Some(Time(told.first)),
            last_timestamp: Some(Time(noted.at)),
            ..Event::default()
        };
        lately.events.remove(&same);
        api.create(&PostParams::default(), &event).await?;
        lately.events.insert(same, told);
        Ok(())
    }

    /// What a story is called that was not told before.
    fn first_of(&mut self, noted: &Noted) -> Recent {
        self.last_nanos = noted.at.as_nanosecond().max(self.last_nanos + 1);
        let about = noted.object.name.as_deref().unwrap_or("node");
        let namespace = noted.object.namespace.clone();
        Recent {
            namespace: namespace.unwrap_or_else(|| "default".to_owned()),
            name: event_name(about, self.last_nanos),
            count: 0,
            first: noted.at,
        }
    }
}

impl Lately {
    /// What an event is the same as, and its message; `None`: too many were told of that object.
    fn story(&mut self, node: &str, noted: &Noted) -> Option<(Sameness, String)> {
        let uid = noted.object.uid.as_deref().unwrap_or_default();
        let source = Source {
            component: COMPONENT,
            host: node,
            uid,
            kind: noted.object.kind.as_deref().unwrap_or_default(),
            name: noted.object.name.as_deref().unwrap_or_default(),
            is_warning: noted.severity == Severity::Warning,
        };
        let combined = self
            .filter
            .combined(&source, noted.reason, &noted.message, noted.at);
        if !self.filter.may_tell(&source, noted.at) {
            return None;
        }
        let (field, own) = match &combined {
            Some(_) => (None, None),
            None => (noted.object.field_path.clone(), Some(noted.message.clone())),
        };
        let same = Sameness {
            uid: uid.to_owned(),
            severity: noted.severity,
            field,
            reason: noted.reason,
            message: own,
        };
        Some((same, combined.unwrap_or_else(|| noted.message.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_its_message_alone_becomes_one_and_a_long_story_is_cut() {
        let mut lately = Lately::default();
        let mut told = |reason, message: &str, second: i64| {
            let noted = Noted {
                object: ObjectReference {
                    uid: Some("u".to_owned()),
                    field_path: Some("spec.containers{c}".to_owned()),
                    ..ObjectReference::default()
                },
                severity: Severity::Warning,
                reason,
                message: message.to_owned(),
                at: Timestamp::from_second(second).unwrap(),
            };
            lately.story("a", &noted)
        };
        let first = told("Failed", "m", 0).unwrap();
        assert_eq!(told("Failed", "m", 1).unwrap(), first);
        assert!(first.0.field.is_some() && first.0.message.is_some());
        for number in 0..8 {
            let (same, message) = told("Failed", &format!("m{number}"), 1).unwrap();
            assert_eq!(same.message, Some(message));
        }
        let (ninth, message) = told("Failed", "m8", 2).unwrap();
        assert_eq!(message, "(combined from similar events): m8");
        assert_eq!((&ninth.field, &ninth.message), (&None, &None));
        let (tenth, message) = told("Failed", "m9", 3).unwrap();
        assert_eq!(
            (tenth, &*message),
            (ninth, "(combined from similar events): m9")
        );
        let more = (0..100).filter(|_| told("Failed", "m", 4).is_some());
        assert_eq!(more.count(), 13, "twenty-five were told of it");
        assert!(told("Failed", "m", 400).is_some());
    }

    #[test]
    fn names_sort_by_time_and_fit() {
        let now = 1_795_000_000_123_456_789;
        assert_eq!(event_name("web-1", now), "web-1.18e91efd632f4d15");
        assert!(event_name("web-1", now) < event_name("web-1", now + 1));
        let long = event_name(&format!("{}.{}", "a".repeat(234), "b".repeat(18)), now);
        assert!(long.len() <= NAME_BYTES_MAX, "{long}");
        assert_eq!(weft_api::name::dns1123_subdomain(&long), Ok(()), "{long}");
    }
}
