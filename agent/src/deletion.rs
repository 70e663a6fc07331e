//! The end of a pod's object: removed by the node that ran it, once nothing of it runs and the server has been told how it
//! ended. Always in that order, however long the server takes: who watches reads from the last event how a pod ended, and as
//! long as a status cannot be written, neither could the delete.

use crate::identity::{Chain, Link};
use crate::pod_view::PodView;
use crate::publisher::Publisher;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use std::sync::Arc;
use std::time::Duration;

/// First pause between attempts to delete the object of a pod that is gone.
const DELETE_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between them.
const DELETE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Removes a pod's object once the server has the last status that was handed over, or refused it for good.
pub(crate) async fn delete_after_status(link: Link, publisher: Publisher, pod: Arc<Pod>) {
    publisher.sent(PodView(&pod).uid()).await;
    delete(link, &pod).await;
}

/// Removes the object of a pod that has ended, repeating until it is gone.
async fn delete(link: Link, pod: &Pod) {
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let pod = PodView(pod);
    let mut pause = DELETE_PAUSE_FIRST;
    loop {
        let api: Api<Pod> = Api::namespaced(link.client(), pod.namespace());
        match api.delete(pod.name(), &parameters).await {
            Ok(_) => return,
            // Gone already, or another pod of the same name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::debug!(pod = pod.name(), error = %Chain(&error), "pod not deleted yet, will be repeated")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DELETE_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{Method, Request, Response};
    use http_body_util::Full;
    use k8s_openapi::api::core::v1::PodStatus;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use std::convert::Infallible;
    use tokio_util::sync::CancellationToken;

    type Story = Arc<Mutex<Vec<String>>>;

    /// An API server that answers status writes with these codes, one after the other, then 200.
    fn server(codes: Vec<u16>) -> (Link, Story) {
        let story = Story::default();
        let (told, left) = (story.clone(), Mutex::new(codes.into_iter()));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let code = match *request.method() {
                Method::PATCH => left.lock().next().unwrap_or(200),
                _ => 200,
            };
            told.lock().push(format!("{} {code}", request.method()));
            let body = match code {
                200 => pod("u"),
                _ => {
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "m"})
                }
            };
            let body = Full::new(Bytes::from(body.to_string()));
            let response = Response::builder()
                .status(code)
                .body(body)
                .expect("a response");
            std::future::ready(Ok::<_, Infallible>(response))
        });
        (Link::of(kube::Client::new(service, "n")), story)
    }

    fn pod(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": uid}})
    }

    /// What the server hears of a pod that ends while it answers so.
    async fn end_of_a_pod(codes: Vec<u16>) -> Vec<String> {
        let (link, story) = server(codes);
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod("u")).expect("a pod"));
        let (publisher, stop) = (Publisher::new(), CancellationToken::new());
        let sending = tokio::spawn(publisher.clone().run(link.clone(), stop.clone()));
        publisher.publish(&pod, PodStatus::default());
        delete_after_status(link, publisher, pod).await;
        stop.cancel();
        sending.await.expect("it ends");
        story.lock().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn the_object_stays_until_the_server_has_how_the_pod_ended_however_long_that_takes() {
        // A minute of it: the server has no leader, is full, or fails.
        for code in [503, 507, 500, 429, 403] {
            let story = end_of_a_pod(vec![code; 120]).await;
            let (last, writes) = story.split_last().expect("something was heard");
            assert_eq!(last, "DELETE 200", "after {code}");
            assert_eq!(writes.len(), 121, "after {code}");
            assert_eq!(writes.last().map(String::as_str), Some("PATCH 200"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_no_refusal_as_long_as_it_is_the_same_pod() {
        let story = end_of_a_pod(vec![409, 409]).await;
        let expected = [
            "PATCH 409",
            "GET 200",
            "PATCH 409",
            "GET 200",
            "PATCH 200",
            "DELETE 200",
        ];
        assert_eq!(story, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_is_refused_for_good_does_not_keep_the_object_for_ever() {
        for code in [404, 422, 400, 413] {
            let story = end_of_a_pod(vec![code]).await;
            assert_eq!(story, [format!("PATCH {code}"), "DELETE 200".to_owned()]);
        }
    }
}
