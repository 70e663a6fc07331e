//! `weft.dev/v1alpha1` Activations: a Service that calls wait for is to get a replica. Created, answered, never stored.
//!
//! ```text
//! POST …/namespaces/NS/activations   {"spec": {"serviceName": "web"}}
//!   → {"status": {"message": "pod web-1 cannot be scheduled: …"}}          no message: one is there, or on its way
//! ```
//! The autoscaler that a call of this Service wakes (`weft_kinds::autoscaling::wake`) has its target's `scale` raised from 0 to 1, here, by the
//! server that is asked: the autoscaler looks at it every fifteen seconds only, and goes on from there. Asked again, the answer says what is in
//! the way.
//!
//! Invariants: nothing but 0 is changed, and nothing that was scaled to 0 by somebody else than its autoscaler; who may create
//! `activations` may have this done, and reads of pods and targets no more than the message. Left to others: who asks (`weft_agent::wake`).

use serde_json::{Value, json};
use weft_api::Object;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::autoscaling::wake::{has_emptied, obstacle, waker};
use weft_kinds::lens::text;
use weft_kinds::{EVENT, HORIZONTAL_POD_AUTOSCALER, Kind, POD, Registry, Subresource, scale};

use super::AppState;
use crate::caller::Caller;
use crate::listing::{ListOptions, Selection};
use crate::objects::{Client, Patch, WriteOptions};
use crate::request::ObjectRef;

/// Whose doing it is.
const AUTOSCALER: &str = "horizontal-pod-autoscaler";

/// Answers one.
pub(super) async fn answer(
    state: &AppState,
    namespace: &str,
    mut body: Value,
) -> Result<Value, StatusError> {
    let service = text(&body, "/spec/serviceName").to_owned();
    if service.is_empty() {
        return Err(StatusError::bad_request(
            "an Activation names a Service in spec.serviceName",
        ));
    }
    let message = activate(state, namespace, &service).await?;
    body["status"] = match message {
        Some(message) => json!({"message": message}),
        None => json!({}),
    };
    Ok(body)
}

/// Sees to it that the Service gets a replica. What is in the way, if anything is.
async fn activate(
    state: &AppState,
    namespace: &str,
    service: &str,
) -> Result<Option<String>, StatusError> {
    let objects = &state.objects;
    let caller = Caller::system(AUTOSCALER, None);
    let client = objects.client(&caller);
    let within = Some(namespace);
    let every = ListOptions::default();
    let page = client.list(&HORIZONTAL_POD_AUTOSCALER, within, &every);
    let all: Vec<Value> = page.await?.items.iter().map(|one| one.value()).collect();
    let Some(autoscaler) = waker(&all, service) else {
        return Ok(Some(
            "no HorizontalPodAutoscaler brings it back from zero replicas".to_owned(),
        ));
    };
    let registry = objects.registry();
    let Some(kind) = target_kind(&registry, autoscaler) else {
        return Ok(Some("its autoscaler's target has no scale".to_owned()));
    };
    let name = text(autoscaler, "/spec/scaleTargetRef/name");
    let target = client.get(kind, within, name).await;
    let target = match target {
        Ok(target) => target.value(),
        Err(error) if error.code == 404 => return Ok(Some(error.message)),
        Err(error) => return Err(error),
    };
    let size = scale::of(kind, &target);
    if size.replicas > 0 {
        let selected = ListOptions {
            selection: Selection::parse(&POD, Some(&size.selector), None)?,
            ..ListOptions::default()
        };
        let page = client.list(&POD, within, &selected);
        let pods: Vec<Value> = page.await?.items.iter().map(|pod| pod.value()).collect();
        return Ok(obstacle(&target, &pods));
    }
    if !has_emptied(autoscaler) {
        return Ok(Some(format!(
            "{} {name} was scaled to zero replicas by somebody else than its autoscaler, which leaves it so",
            kind.kind
        )));
    }
    let version = text(&target, "/metadata/resourceVersion");
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": 1}});
    let options = WriteOptions::default();
    let scaled = client.patch(
        ObjectRef::new(kind, within, name),
        Some(Subresource::Scale),
        Patch::merge(&patch),
        &options,
    );
    match scaled.await {
        Ok(_) => tell(&client, autoscaler, service, objects.now()).await,
        // Somebody was faster, and did that or something else: it is asked again.
        Err(error) if error.code == 409 => {}
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// The kind of an autoscaler's target, if it is one with a size.
fn target_kind<'r>(registry: &'r Registry, autoscaler: &Value) -> Option<&'r std::sync::Arc<Kind>> {
    let version = text(autoscaler, "/spec/scaleTargetRef/apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = text(autoscaler, "/spec/scaleTargetRef/kind");
    let kind = registry.by_group_kind(group, kind)?.stored();
    kind.subresources
        .contains(&Subresource::Scale)
        .then_some(kind)
}

/// Has the autoscaler's events say it. That one is not recorded keeps nobody waiting.
async fn tell(client: &Client<'_>, autoscaler: &Value, service: &str, now: jiff::Timestamp) {
    let meta = &autoscaler["metadata"];
    let (name, namespace) = (text(meta, "/name"), text(meta, "/namespace"));
    let at = rfc3339(now);
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": format!("{name}."), "namespace": namespace},
        "involvedObject": {
            "apiVersion": HORIZONTAL_POD_AUTOSCALER.api_version(),
            "kind": HORIZONTAL_POD_AUTOSCALER.kind,
            "namespace": namespace,
            "name": name,
            "uid": meta["uid"],
        },
        "type": "Normal",
        "reason": "SuccessfulRescale",
        "message": format!("New size: 1; reason: calls to Service {service} wait for an endpoint"),
        "source": {"component": AUTOSCALER},
        "reportingComponent": AUTOSCALER,
        "reportingInstance": "",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
    let Ok(event) = Object::from_value(event) else {
        return;
    };
    let options = WriteOptions::default();
    let written = client.create(&EVENT, Some(namespace), event, &options);
    if let Err(error) = written.await {
        tracing::debug!(error = error.message, "an event was not recorded");
    }
}
