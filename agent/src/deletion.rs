//! The end of a pod's object: removed by the node that ran it, once nothing of it runs and the server knows how it ended.

use crate::identity::{Chain, Link};
use crate::publisher::Publisher;
use crate::translate;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use std::sync::Arc;
use std::time::Duration;

/// Longest pause between attempts to delete the object of a pod that is gone.
const DELETE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the last status of a pod may keep its object: far above a write, for a server that refuses it for good.
const LAST_STATUS_MAX: Duration = Duration::from_secs(10);

/// Removes a pod's object once the server has how it ended: who watches reads that from the last event.
pub(crate) async fn delete_after_status(link: Link, publisher: Publisher, pod: Arc<Pod>) {
    let sent = publisher.sent(translate::uid(&pod));
    if tokio::time::timeout(LAST_STATUS_MAX, sent).await.is_err() {
        tracing::debug!(
            pod = translate::pod_name(&pod),
            "deleted without its last status"
        );
    }
    delete(link, pod).await;
}

/// Removes the object of a pod that has ended, repeating until it is gone.
pub(crate) async fn delete(link: Link, pod: Arc<Pod>) {
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let mut pause = Duration::from_millis(100);
    loop {
        let api: Api<Pod> = Api::namespaced(link.client(), translate::namespace(&pod));
        match api.delete(translate::pod_name(&pod), &parameters).await {
            Ok(_) => return,
            // Gone already, or another pod of the same name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::debug!(pod = translate::pod_name(&pod), error = %Chain(&error), "pod not deleted yet, will be repeated")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DELETE_PAUSE_MAX);
    }
}
