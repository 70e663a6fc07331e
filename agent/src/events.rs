//! Events about pods and this node, as `kubectl describe` shows them.
//!
//! Writing an event never waits and never fails its caller: it goes into a bounded queue that one task empties. The same
//! event again within [`SAME_FOR`] raises the count of the first instead of making another, as Kubernetes' recorder does.
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
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events waiting to be written.
const QUEUE_MAX: usize = 1024;
/// Recent events remembered for counting.
const RECENT_MAX: usize = 4096;
/// How long an event is the same as the one before; Kubernetes' ten minutes.
const SAME_FOR: Duration = Duration::from_secs(600);
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sameness {
    uid: String,
    field: Option<String>,
    reason: &'static str,
    message: String,
}

struct Recent {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
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
        let mut recent: HashMap<Sameness, Recent> = HashMap::new();
        loop {
            let noted = tokio::select! {
                biased;
                noted = self.queue.recv() => noted,
                () = shutdown.cancelled() => return,
            };
            let Some(noted) = noted else { return };
            if recent.len() >= RECENT_MAX {
                recent.retain(|_, event| crate::pod_state::later(event.last, SAME_FOR) > noted.at);
                if recent.len() >= RECENT_MAX {
                    recent.clear();
                }
            }
            if let Err(error) = self.write(&link, &mut recent, noted).await {
                tracing::debug!(%error, "event not written");
            }
        }
    }

    async fn write(
        &mut self,
        link: &Link,
        recent: &mut HashMap<Sameness, Recent>,
        noted: Noted,
    ) -> Result<(), kube::Error> {
        let same = Sameness {
            uid: noted.object.uid.clone().unwrap_or_default(),
            field: noted.object.field_path.clone(),
            reason: noted.reason,
            message: noted.message.clone(),
        };
        if let Some(before) = recent.get_mut(&same)
            && crate::pod_state::later(before.last, SAME_FOR) > noted.at
        {
            before.count = before.count.saturating_add(1);
            before.last = noted.at;
            let patch = serde_json::json!({"count": before.count, "lastTimestamp": Time(noted.at)});
            let api: Api<Event> = Api::namespaced(link.client(), &before.namespace);
            return match api
                .patch(&before.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    recent.remove(&same);
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        let namespace = noted
            .object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        self.last_nanos = noted.at.as_nanosecond().max(self.last_nanos + 1);
        let name = event_name(
            noted.object.name.as_deref().unwrap_or("node"),
            self.last_nanos,
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: noted.object,
            reason: Some(noted.reason.to_owned()),
            message: Some(noted.message),
            type_: Some(match noted.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            count: Some(1),
            first_timestamp: Some(Time(noted.at)),
            last_timestamp: Some(Time(noted.at)),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(link.client(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                recent.insert(
                    same,
                    Recent {
                        namespace,
                        name,
                        count: 1,
                        last: noted.at,
                    },
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
