//! Sends what `status` says of pods, through the status subresource only.
//!
//! Invariants: of several statuses waiting for one pod only the newest is sent; no older one overtakes it; one is repeated until
//! the server has it or refuses it for good; what waits is bounded by the number of pods.
//!
//! Left to others: when a pod's object goes (`deletion`), which waits for the last status.

use crate::identity::Link;
use crate::pod_view::PodView;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How many status writes are under way at once: enough to keep the server busy after a mass restart, few enough to be fair.
const WRITES_AT_ONCE: usize = 8;
/// Pause after a failed write; the newest status is sent then.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Sends pod statuses; one slot a pod, so its memory is bounded by the number of pods.
#[derive(Clone, Default)]
pub struct Publisher {
    slots: Arc<parking_lot::Mutex<Slots>>,
    wake: Arc<Notify>,
    /// Told after each write.
    written: Arc<Notify>,
}

#[derive(Default)]
struct Slots {
    waiting: HashMap<String, Pending>,
    /// A pod whose write is under way must not have an older status overtake a newer one.
    busy: HashSet<String>,
}

impl Slots {
    fn take_up(&mut self) -> Option<(String, Pending)> {
        let idle = |uid: &&String| !self.busy.contains(*uid);
        let uid = self.waiting.keys().find(idle)?.clone();
        let pending = self.waiting.remove(&uid)?;
        self.busy.insert(uid.clone());
        Some((uid, pending))
    }

    fn is_at_rest(&self, uid: &str) -> bool {
        !self.waiting.contains_key(uid) && !self.busy.contains(uid)
    }
}

#[derive(Clone)]
struct Pending {
    namespace: String,
    name: String,
    status: PodStatus,
}

impl Publisher {
    /// A publisher; [`Publisher::run`] must be spawned for anything to be sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands over the newest status of a pod; replaces one that has not been sent yet.
    pub fn publish(&self, pod: &Pod, status: PodStatus) {
        let pod = PodView(pod);
        let pending = Pending {
            namespace: pod.namespace().into(),
            name: pod.name().into(),
            status,
        };
        let uid = pod.uid().to_owned();
        self.slots.lock().waiting.insert(uid, pending);
        self.wake.notify_one();
    }

    /// Forgets what is waiting for a pod that no longer exists.
    pub fn forget(&self, uid: &str) {
        self.slots.lock().waiting.remove(uid);
        self.written.notify_waiters();
    }

    /// Whether everything handed over has been taken up for sending.
    pub fn is_drained(&self) -> bool {
        self.slots.lock().waiting.is_empty()
    }

    /// Whether the server has what was handed over for a pod.
    pub(crate) fn has_sent(&self, uid: &str) -> bool {
        self.slots.lock().is_at_rest(uid)
    }

    /// Waits until the server has what was handed over for a pod, or does not want it.
    pub async fn sent(&self, uid: &str) {
        loop {
            let written = self.written.notified();
            let mut written = std::pin::pin!(written);
            // Before the look, or the last write could end in between.
            written.as_mut().enable();
            if self.slots.lock().is_at_rest(uid) {
                return;
            }
            written.await;
        }
    }

    /// Sends until `shutdown`. `client` is asked for anew for each write, because certificates are renewed.
    pub async fn run(self, link: Link, shutdown: tokio_util::sync::CancellationToken) {
        let mut writes = tokio::task::JoinSet::new();
        loop {
            while writes.len() < WRITES_AT_ONCE {
                let Some((uid, pending)) = self.slots.lock().take_up() else {
                    break;
                };
                let client = link.client();
                let under_way = UnderWay {
                    publisher: self.clone(),
                    uid,
                };
                writes.spawn(async move {
                    if let Err(error) = write(client, &under_way.uid, &pending).await {
                        tracing::debug!(pod = %pending.name, namespace = %pending.namespace, %error, "status write failed, will be repeated");
                        tokio::time::sleep(RETRY_PAUSE).await;
                        under_way.put_back(pending);
                    }
                });
            }
            tokio::select! {
                biased;
                Some(done) = writes.join_next(), if !writes.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "writing a status failed");
                    }
                }
                () = self.wake.notified() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// A write, as long as it is under way; however it ends, the pod's next status may follow.
struct UnderWay {
    publisher: Publisher,
    uid: String,
}

impl UnderWay {
    /// It did not work out; a newer status that came meanwhile takes its place.
    fn put_back(&self, pending: Pending) {
        let mut slots = self.publisher.slots.lock();
        slots.waiting.entry(self.uid.clone()).or_insert(pending);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.publisher.slots.lock().busy.remove(&self.uid);
        self.publisher.written.notify_waiters();
    }
}

async fn write(client: kube::Client, uid: &str, pending: &Pending) -> Result<(), kube::Error> {
    let mut status = match serde_json::to_value(&pending.status) {
        Ok(serde_json::Value::Object(status)) => status,
        _ => return Ok(()),
    };
    // A merge patch keeps what it does not name, so that what ceased to be must be named as null.
    for field in [
        "reason",
        "message",
        "podIP",
        "podIPs",
        "initContainerStatuses",
    ] {
        status.entry(field).or_insert(serde_json::Value::Null);
    }
    let patch = serde_json::json!({ "metadata": { "uid": uid }, "status": status });
    let api: Api<Pod> = Api::namespaced(client, &pending.namespace);
    match api
        .patch_status(
            &pending.name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => match &error {
            // Gone, or refused for good: nobody waits for this status.
            kube::Error::Api(status) if matches!(status.code, 400 | 404 | 413 | 422) => {
                tracing::debug!(pod = %pending.name, namespace = %pending.namespace, message = %status.message, "status not taken");
                Ok(())
            }
            // Another pod of the same name by now, or somebody else wrote at the same time.
            kube::Error::Api(status) if status.code == 409 => {
                let now = api.get_opt(&pending.name).await?;
                let now = now.and_then(|pod| pod.metadata.uid);
                if now.as_deref() == Some(uid) {
                    Err(error)
                } else {
                    Ok(())
                }
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[tokio::test]
    async fn the_last_status_of_a_pod_can_be_waited_for() {
        let publisher = Publisher::new();
        publisher.sent("a").await;
        publisher.publish(&pod("a"), PodStatus::default());
        let mut sent = std::pin::pin!(publisher.sent("a"));
        assert!(futures::poll!(sent.as_mut()).is_pending());
        let (uid, _) = publisher.slots.lock().take_up().expect("one waits");
        assert!(publisher.is_drained());
        assert!(
            futures::poll!(sent.as_mut()).is_pending(),
            "it is under way"
        );
        // A newer one meanwhile has to wait, and to be sent as well.
        publisher.publish(&pod("a"), PodStatus::default());
        assert!(publisher.slots.lock().take_up().is_none());
        publisher.slots.lock().busy.remove(&uid);
        publisher.written.notify_waiters();
        assert!(futures::poll!(sent.as_mut()).is_pending());
        publisher.forget("a");
        sent.await;
    }
}
