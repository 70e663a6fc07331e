//! What several controllers ask about a pod, and the ways they find pods.

use jiff::Timestamp;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Pod;

use crate::lens::typed;
use crate::table::{Index, Kind, Row};
use crate::view::View;
use crate::write::{PODS, Resource};

impl Kind for Pod {
    const RESOURCE: Resource = PODS;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

/// Pods by the node they are bound to; `""`: bound nowhere.
pub static BY_NODE: Index<Pod> = Index {
    name: "node",
    of: |pod| node_of(pod).to_owned(),
};

/// Pods by the uid of their controller; those that nobody controls by `/` and their namespace.
pub static BY_CONTROLLER: Index<Pod> = Index {
    name: "controller",
    of: |pod| match pod.meta.controller() {
        Some(owner) => owner.uid.clone(),
        None => uncontrolled(&pod.key.namespace),
    },
};

/// By what pods of a namespace that nobody controls are found in [`BY_CONTROLLER`]. No uid begins so.
pub fn uncontrolled(namespace: &str) -> String {
    format!("/{namespace}")
}

/// Pods bound to a node, in order; the empty name means bound nowhere.
pub fn on_node<'a>(
    view: &'a View,
    node: &str,
) -> impl Iterator<Item = &'a std::sync::Arc<Row<Pod>>> + use<'a> {
    view.by(&BY_NODE, node)
}

/// The node a pod is bound to, or `""`.
pub fn node_of(pod: &Row<Pod>) -> &str {
    let spec = pod.body.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("")
}

pub fn phase_of(pod: &Row<Pod>) -> &str {
    let status = pod.body.status.as_ref();
    status.and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Ran to its end; it will not run again.
pub fn is_finished(pod: &Row<Pod>) -> bool {
    matches!(phase_of(pod), "Succeeded" | "Failed")
}

/// Its `Ready` condition holds.
pub fn is_ready(pod: &Row<Pod>) -> bool {
    ready_condition(pod).is_some_and(|(ready, _)| ready)
}

/// Since when its `Ready` condition holds.
pub fn ready_since(pod: &Row<Pod>) -> Option<Timestamp> {
    ready_condition(pod).and_then(|(ready, since)| since.filter(|_| ready))
}

fn ready_condition(pod: &Row<Pod>) -> Option<(bool, Option<Timestamp>)> {
    let conditions = pod.body.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "Ready")?;
    let since = condition.last_transition_time.as_ref().map(|time| time.0);
    Some((condition.status == "True", since))
}
