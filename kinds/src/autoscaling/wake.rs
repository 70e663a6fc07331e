//! Targets without a replica: which autoscaler a call of a Service wakes, and what keeps its target from having a pod that answers.
//!
//! An autoscaler lets its target have no replica if its `minReplicas` is 0, for which it has to go by a metric that there is without pods.
//! The Service whose metric that is, is the one whose calls wake it. One that was scaled to nothing by hand is left so, as the autoscaler
//! itself leaves it.
//!
//! Invariant: pure.

use serde_json::Value;

use crate::lens::{integer, items, text};

/// The Services whose calls wake the target of an autoscaler.
pub fn services(autoscaler: &Value) -> impl Iterator<Item = &str> {
    let may_be_empty = integer(autoscaler, "/spec/minReplicas") == Some(0);
    let metrics = items(autoscaler, "/spec/metrics").iter();
    metrics
        .filter(move |metric| may_be_empty && text(metric, "/type") == "Object")
        .filter(|metric| text(metric, "/object/describedObject/kind") == "Service")
        .map(|metric| text(metric, "/object/describedObject/name"))
}

/// The autoscaler, the first by name, that a call of a Service wakes.
pub fn waker<'a>(
    autoscalers: impl IntoIterator<Item = &'a Value>,
    service: &str,
) -> Option<&'a Value> {
    let all = autoscalers.into_iter();
    let wakes = all.filter(|one| services(one).any(|name| name == service));
    wakes.min_by(|a, b| text(a, "/metadata/name").cmp(text(b, "/metadata/name")))
}

/// Whether it was the autoscaler that took away the last replica.
pub fn has_emptied(autoscaler: &Value) -> bool {
    holds(autoscaler, "ScaledToZero").is_some()
}

/// The message of a condition that holds.
fn holds<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let mut all = items(object, "/status/conditions").iter();
    let found = all.find(|one| text(one, "/type") == kind && text(one, "/status") == "True");
    found.map(|one| text(one, "/message"))
}

/// Why a container does not start, where that is no matter of a moment.
const STUCK: [&str; 8] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// Why a target that is to have replicas has none that answers, as far as it and its pods tell; `None` while nothing is known to be wrong.
pub fn obstacle<'a>(target: &Value, pods: impl IntoIterator<Item = &'a Value>) -> Option<String> {
    let mut found = None;
    let mut is_any = false;
    let lives = |pod: &&Value| {
        pod["metadata"]["deletionTimestamp"].is_null()
            && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
    };
    for pod in pods.into_iter().filter(lives) {
        is_any = true;
        let why = stuck(pod)?;
        found.get_or_insert(why);
    }
    if is_any {
        return found;
    }
    let failed = holds(target, "ReplicaFailure")?;
    Some(failed.to_owned())
}

/// Why a pod gets nowhere; `None`: it does.
fn stuck(pod: &Value) -> Option<String> {
    let name = text(pod, "/metadata/name");
    let mut conditions = items(pod, "/status/conditions").iter();
    let unplaced = conditions.find(|one| {
        text(one, "/type") == "PodScheduled" && text(one, "/reason") == "Unschedulable"
    });
    if let Some(unplaced) = unplaced.filter(|one| text(one, "/status") == "False") {
        let why = text(unplaced, "/message");
        return Some(format!("pod {name} cannot be scheduled: {why}"));
    }
    let containers = items(pod, "/status/containerStatuses").iter();
    let mut waiting = containers.map(|one| &one["state"]["waiting"]);
    let waits = waiting.find(|waiting| STUCK.contains(&text(waiting, "/reason")))?;
    let (reason, message) = (text(waits, "/reason"), text(waits, "/message"));
    let between = if message.is_empty() { "" } else { ": " };
    Some(format!(
        "pod {name} does not start: {reason}{between}{message}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn autoscaler(name: &str, min: i64, kind: &str, service: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"minReplicas": min, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu"}},
                {"type": "Object", "object": {"describedObject": {"kind": kind, "name": service}}},
            ]},
        })
    }

    #[test]
    fn the_service_of_its_metric_wakes_an_autoscaler_that_may_be_empty() {
        let all = [
            autoscaler("d", 0, "Service", "web"),
            autoscaler("a", 1, "Service", "web"),
            autoscaler("b", 0, "Ingress", "web"),
            autoscaler("c", 0, "Service", "web"),
            autoscaler("e", 0, "Service", "cart"),
        ];
        let woken = |service| waker(&all, service).map(|one| text(one, "/metadata/name"));
        assert_eq!(woken("web"), Some("c"));
        assert_eq!(woken("cart"), Some("e"));
        assert_eq!(woken("price"), None);
    }

    #[test]
    fn what_is_in_the_way_is_said_once_nothing_is_on_its_way() {
        let unplaced = json!({"metadata": {"name": "a"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}});
        let waiting = |reason: &str, message: &str| {
            json!({"metadata": {"name": "b"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": reason, "message": message}}}]}})
        };
        let starting = waiting("ContainerCreating", "");
        let mut ending = starting.clone();
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let full = json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "pods \"a\" is forbidden: exceeded quota: q"}]}});
        let fine = json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "False", "message": "was"}]}});
        for (target, pods, expected) in [
            (&fine, vec![], None),
            (
                &full,
                vec![],
                Some("pods \"a\" is forbidden: exceeded quota: q"),
            ),
            (
                &full,
                vec![&ending],
                Some("pods \"a\" is forbidden: exceeded quota: q"),
            ),
            (&full, vec![&starting], None),
            (
                &fine,
                vec![&unplaced],
                Some("pod a cannot be scheduled: 0/1 nodes are available"),
            ),
            (&fine, vec![&unplaced, &starting], None),
            (
                &fine,
                vec![&waiting("ImagePullBackOff", "no such image")],
                Some("pod b does not start: ImagePullBackOff: no such image"),
            ),
            (
                &fine,
                vec![&waiting("CrashLoopBackOff", "")],
                Some("pod b does not start: CrashLoopBackOff"),
            ),
        ] {
            let found = obstacle(target, pods.iter().copied());
            assert_eq!(found.as_deref(), expected, "{pods:?}");
        }
    }
}
