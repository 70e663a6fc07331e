//! How a pod of a Job ended, as far as its object tells.
//!
//! Read only of pods that hold the finalizer by which Jobs count: no other pod pays for it. Whatever lacks its shape counts
//! as not told.

use jiff::Timestamp;
use serde_json::Value;
use weft_kinds::lens::{integer, items, text, time};

use super::TRACKING;
use crate::plus_seconds;

/// How a pod ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// When the last container did, else when the pod stopped being ready, else when it was told to go, else when it was
    /// made.
    pub at: Option<Timestamp>,
    /// Containers that ended with another code than zero; those that prepare the pod come last.
    pub failures: Vec<(String, i64)>,
    /// Conditions, each with its status.
    pub conditions: Vec<(String, String)>,
}

impl End {
    /// `None`: the pod has not ended and is not told to, or no Job has still to count it.
    pub fn of(pod: &Value) -> Option<Self> {
        let is_tracked = items(pod, "/metadata/finalizers")
            .iter()
            .any(|finalizer| finalizer == TRACKING);
        let is_finished = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let is_deleting = !text(pod, "/metadata/deletionTimestamp").is_empty();
        if !is_tracked || !(is_finished || is_deleting) {
            return None;
        }
        let mains = items(pod, "/status/containerStatuses");
        let all = mains
            .iter()
            .chain(items(pod, "/status/initContainerStatuses"));
        let conditions = items(pod, "/status/conditions").iter();
        Some(Self {
            at: containers_ended(pod)
                .or_else(|| stopped_being_ready(pod))
                .or_else(|| told_to_go(pod))
                .or_else(|| time(pod, "/metadata/creationTimestamp")),
            failures: all.filter_map(failure).collect(),
            conditions: conditions
                .map(|c| (text(c, "/type").to_owned(), text(c, "/status").to_owned()))
                .collect(),
        })
    }
}

/// Unknown as long as one of them has not ended. Those that stay beside the main ones end after them.
fn containers_ended(pod: &Value) -> Option<Timestamp> {
    let inits = items(pod, "/spec/initContainers");
    let stays = |status: &&Value| {
        let mut all = inits.iter();
        all.any(|init| init["name"] == status["name"] && init["restartPolicy"] == "Always")
    };
    let sidecars = items(pod, "/status/initContainerStatuses").iter();
    let all = items(pod, "/status/containerStatuses").iter();
    let ends: Option<Vec<Timestamp>> = all
        .chain(sidecars.filter(stays))
        .map(|status| time(status, "/state/terminated/finishedAt"))
        .collect();
    ends?.into_iter().max()
}

fn stopped_being_ready(pod: &Value) -> Option<Timestamp> {
    let mut all = items(pod, "/status/conditions").iter();
    let ready = all.find(|condition| condition["type"] == "Ready")?;
    time(ready, "/lastTransitionTime").filter(|_| ready["status"] == "False")
}

fn told_to_go(pod: &Value) -> Option<Timestamp> {
    let due = time(pod, "/metadata/deletionTimestamp")?;
    let grace = integer(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    Some(plus_seconds(due, grace.saturating_neg()))
}

fn failure(status: &Value) -> Option<(String, i64)> {
    let code = integer(status, "/state/terminated/exitCode")?;
    (code != 0).then(|| (text(status, "/name").to_owned(), code))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended_at(more: Value) -> Option<String> {
        let mut pod = json!({"metadata": {"finalizers": [TRACKING],
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Failed"}});
        for (part, value) in more.as_object().unwrap() {
            for (name, value) in value.as_object().unwrap() {
                pod[part][name] = value.clone();
            }
        }
        Some(End::of(&pod)?.at?.to_string())
    }

    #[test]
    fn when_a_pod_ended_is_told_by_the_best_witness_there_is() {
        let ended = |name: &str, at: &str| json!({"name": name, "state": {"terminated": {"exitCode": 1, "finishedAt": at}}});
        let ready = json!([{"type": "Ready", "status": "False",
            "lastTransitionTime": "2026-01-01T00:02:00Z"}]);
        for (pod, at) in [
            (json!({}), "2026-01-01T00:00:00Z"),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:30Z",
                "deletionGracePeriodSeconds": 30}}),
                "2026-01-01T00:01:00Z",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:30Z"},
                "status": {"conditions": ready}}),
                "2026-01-01T00:02:00Z",
            ),
            (
                json!({"status": {"conditions": ready, "containerStatuses": [
                ended("a", "2026-01-01T00:00:10Z"), ended("b", "2026-01-01T00:00:09Z")]}}),
                "2026-01-01T00:00:10Z",
            ),
            (
                json!({"status": {"conditions": ready, "containerStatuses": [
                ended("a", "2026-01-01T00:00:10Z"), {"name": "b", "state": {"running": {}}}]}}),
                "2026-01-01T00:02:00Z",
            ),
            // A sidecar counts, what prepared the pod does not.
            (
                json!({"spec": {"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
                "status": {"containerStatuses": [ended("a", "2026-01-01T00:00:10Z")],
                "initContainerStatuses": [{"name": "i"}, ended("s", "2026-01-01T00:00:20Z")]}}),
                "2026-01-01T00:00:20Z",
            ),
        ] {
            assert_eq!(ended_at(pod.clone()).as_deref(), Some(at), "{pod}");
        }
    }

    #[test]
    fn only_a_tracked_pod_that_ends_has_an_end() {
        let pod = |finalizers: Value, phase: &str| json!({"metadata": {"finalizers": finalizers}, "status": {"phase": phase}});
        assert_eq!(End::of(&pod(json!([TRACKING]), "Running")), None);
        assert_eq!(End::of(&pod(json!(["x"]), "Failed")), None);
        assert_eq!(End::of(&pod(Value::Null, "Failed")), None);
        assert!(End::of(&pod(json!(["x", TRACKING]), "Succeeded")).is_some());
        let mut deleted = pod(json!([TRACKING]), "Running");
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:30Z");
        assert!(End::of(&deleted).is_some());
    }

    #[test]
    fn containers_that_failed_are_told_main_ones_first() {
        let status = |name: &str, code: i64| json!({"name": name, "state": {"terminated": {"exitCode": code}}});
        let pod = json!({"metadata": {"finalizers": [TRACKING]}, "status": {"phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "initContainerStatuses": [status("init", 3)],
            "containerStatuses": [status("a", 0), {"name": "b", "state": {"waiting": {}}}, status("c", 42)]}});
        let end = End::of(&pod).unwrap();
        assert_eq!(end.failures, [("c".to_owned(), 42), ("init".to_owned(), 3)]);
        assert_eq!(
            end.conditions,
            [("DisruptionTarget".to_owned(), "True".to_owned())]
        );
    }
}
