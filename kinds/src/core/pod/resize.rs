//! What containers may use, changed while they run (`pods/resize`): what a request takes over of its body, and what it may say.
//!
//! Source: `ValidatePodResize` in k8s.io/kubernetes `pkg/apis/core/validation`, and `dropNonResizeUpdates` of the pods' registry: CPU and
//! memory of containers and of the pod change, its class of service does not, and what was said once is not unsaid. Left to others: whether
//! the node has room, and having the containers use it.

use serde_json::{Map, Value};
use weft_api::quantity::Quantity;
use weft_api::status::{Cause, StatusError};

use super::defaults::qos_class;
use super::validation;
use crate::admission::amounts::{self, Amounts};
use crate::apply::{Step, Writable};
use crate::core::node::NODE;
use crate::field::Field;
use crate::lens::{items, member, object, put, text};
use crate::strategy::Surroundings;
use crate::validate::Problems;

const LISTS: [&str; 2] = ["containers", "initContainers"];
const POLICY: &str = "resizePolicy";

/// What `proposed` makes of `old`. Where its containers are others, or in another order, they are taken over, to be refused.
pub(super) fn prepared(proposed: &Value, old: &Value) -> Value {
    let mut next = old.clone();
    let spec = member(&mut next, "spec");
    let said = proposed.get("spec").unwrap_or(&Value::Null);
    let length = |spec: &Value, list: &str| spec[list].as_array().map_or(0, Vec::len);
    if LISTS
        .iter()
        .any(|list| length(said, list) != length(spec, list))
    {
        *spec = said.clone();
        return next;
    }
    for list in LISTS {
        let all = spec.get_mut(list).and_then(Value::as_array_mut);
        let (Some(new), Some(all)) = (said[list].as_array(), all) else {
            continue;
        };
        let are_same = new
            .iter()
            .zip(all.iter())
            .all(|(new, old)| new["name"] == old["name"]);
        if !are_same {
            all.clone_from(new);
            continue;
        }
        for (new, old) in new.iter().zip(all) {
            for field in ["resources", POLICY] {
                put(old, field, new.get(field).cloned());
            }
        }
    }
    // Who knows nothing of the pod's own amounts leaves them.
    if let Some(whole) = said.get("resources").filter(|whole| !whole.is_null()) {
        put(spec, "resources", Some(whole.clone()));
    }
    next
}

/// Whose fields a request for other amounts can say something of.
pub(super) fn writable() -> Writable {
    const fn of(list: &'static str, field: &'static str) -> [Step; 4] {
        [
            Step::Field("spec"),
            Step::Field(list),
            Step::Any,
            Step::Field(field),
        ]
    }
    static OF: [[Step; 4]; 4] = [
        of("containers", "resources"),
        of("containers", POLICY),
        of("initContainers", "resources"),
        of("initContainers", POLICY),
    ];
    Writable::Only(OF.iter().map(<[Step; 4]>::as_slice).collect())
}

/// Judges a pod of which other amounts are asked for than of `old`.
pub(super) fn judge(new: &Field<'_, '_>, old: &Field<'_, '_>, problems: &mut Problems) {
    validation::metadata_and_spec(new, problems);
    let (spec, before) = (new.child("spec"), old.child("spec"));
    if let (Some(after), Some(pod)) = (new.value(), old.value()) {
        let said = text(pod, "/status/qosClass");
        let class = if said.is_empty() {
            qos_class(pod)
        } else {
            said
        };
        if class != qos_class(after) {
            let sentence = "Pod QOS Class may not change as a result of resizing";
            problems.invalid(&spec, class, sentence);
        }
        // Of a pod as it is, too, this would be a fault, which is forgiven where the new one has it as well.
        if after["spec"] != pod["spec"] && !is_served(pod) {
            let sentence = "Pod running on node without support for resize";
            problems.forbidden(&spec, sentence);
        }
    }
    of_the_whole(&spec, &before, problems);
    if !are_in_order(&spec, &before, problems) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (new, old) in spec.items(list).zip(before.items(list)) {
            for (sort, word) in [("requests", "requests"), ("limits", "limits")] {
                let (new, old) = (new.child("resources"), old.child("resources"));
                if is_removed(new.child(sort).map(), old.child(sort).map()) {
                    let sentence = format!("resource {word} cannot be removed");
                    problems.forbidden(&new.child(sort), &sentence);
                }
            }
        }
    }
    for (new, old) in spec.items("containers").zip(before.items("containers")) {
        if fixed(&new.shown()) != fixed(&old.shown()) {
            problems.forbidden(&spec, "only cpu and memory resources are mutable");
        }
    }
    const INIT: &str = "initContainers";
    for (new, old) in spec.items(INIT).zip(before.items(INIT)) {
        if fixed(&new.shown()) != fixed(&old.shown()) {
            let sentence =
                "only cpu and memory resources for init or sidecar containers are mutable";
            problems.forbidden(&new, sentence);
        }
        if new.shown() == old.shown() || new.child("restartPolicy").text() == "Always" {
            continue;
        }
        let restarts = |policy: &Value| policy["restartPolicy"] == "RestartContainer";
        for _ in new.child(POLICY).list().iter().filter(|one| restarts(one)) {
            let sentence = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            problems.forbidden(&new, sentence);
        }
    }
}

/// What a node can never give is refused at once, whoever else is on it.
///
/// # Errors
/// 403 when the pod's node is not there, is no Linux, or has less than that in all.
///
/// Source: kubernetes `plugin/pkg/admission/podresize`.
pub(super) fn fits_its_node(
    new: &Value,
    old: &Value,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    let name = text(new, "/spec/nodeName");
    if name.is_empty() || new["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(());
    }
    let refused = |why: &str, cause: Option<&str>| {
        let mut error = StatusError::forbidden("pods", "", text(new, "/metadata/name"), why);
        if let (Some(cause), Some(details)) = (cause, &mut error.details) {
            details.causes.push(Cause {
                reason: cause.to_owned(),
                ..Cause::default()
            });
        }
        Err(error)
    };
    let Some(node) = around.object(&NODE, None, name) else {
        return refused(&format!("node {name:?} not found"), None);
    };
    let labels = object(&node, "/metadata/labels");
    let system = labels.and_then(|labels| labels.get("kubernetes.io/os")?.as_str());
    if let Some(system) = system.filter(|system| *system != "linux") {
        let why =
            format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return refused(&why, Some("UnsupportedPlatform"));
    }
    let requests = amounts::of_pod(new, "requests", true);
    let has = amounts::at(&node, "/status/allocatable");
    let mut lacks = Vec::new();
    for resource in ["cpu", "memory"] {
        let of = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or(Quantity::ZERO);
        let (requested, allocatable) = (of(&requests), of(&has));
        if requested > allocatable {
            let shown = |amount: Quantity| match resource {
                "cpu" => amount.milli(),
                _ => amount.value(),
            };
            lacks.push(format!(
                "{resource}, requested: {}, allocatable: {}",
                shown(requested),
                shown(allocatable)
            ));
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let why = format!(
        "node didn't have enough allocatable resources: {}",
        lacks.join("; ")
    );
    refused(&why, Some("NodeCapacity"))
}

/// Whether the pod's node tells what containers have: who does not cannot give them anything else. Of one where nothing runs nobody knows.
fn is_served(pod: &Value) -> bool {
    let mut statuses = items(pod, "/status/containerStatuses").iter();
    let runs = statuses.find(|status| object(status, "/state/running").is_some());
    runs.is_none_or(|status| status.get("resources").is_some_and(|it| !it.is_null()))
}

/// What is said of the pod as a whole.
fn of_the_whole(spec: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    const WHOLE: &str = "resources";
    let (new, old) = (spec.child(WHOLE), before.child(WHOLE));
    for (sort, word) in [("requests", "requests"), ("limits", "limits")] {
        if is_removed(new.child(sort).map(), old.child(sort).map()) {
            let sentence = format!("pod-level resource {word} cannot be removed");
            problems.forbidden(&new.child(sort), &sentence);
        }
    }
    if without_amounts(&new.shown()) != without_amounts(&old.shown()) {
        let sentence = "only cpu and memory resources are mutable at pod-level";
        problems.forbidden(spec, sentence);
    }
}

fn are_in_order(spec: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) -> bool {
    let mut are = true;
    for list in LISTS {
        if spec.child(list).list().len() != before.child(list).list().len() {
            let sentence = format!("{list} may not be added or removed on resize");
            problems.forbidden(&spec.child(list), &sentence);
            are = false;
            continue;
        }
        for (new, old) in spec.items(list).zip(before.items(list)) {
            if new.child("name").text() != old.child("name").text() {
                let sentence = format!("{list} may not be renamed or reordered on resize");
                problems.forbidden(&new.child("name"), &sentence);
                are = false;
            }
        }
    }
    are
}

fn is_removed(new: Option<&Map<String, Value>>, old: Option<&Map<String, Value>>) -> bool {
    let mut had = old.into_iter().flat_map(Map::keys);
    had.any(|name| !new.is_some_and(|new| new.contains_key(name)))
}

/// A container without what may change.
fn fixed(container: &Value) -> Value {
    let mut container = container.clone();
    let resources = without_amounts(&container["resources"]);
    put(&mut container, "resources", Some(resources));
    container
}

/// Resources without CPU and memory, and without lists in which nothing else is.
fn without_amounts(resources: &Value) -> Value {
    let mut left = object(resources, "").cloned().unwrap_or_default();
    for sort in ["limits", "requests"] {
        let Some(amounts) = left.get_mut(sort).and_then(Value::as_object_mut) else {
            continue;
        };
        amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        if amounts.is_empty() {
            left.remove(sort);
        }
    }
    left.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Subresource;
    use crate::core::pod::POD;
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn pod(containers: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": containers, "serviceAccountName": "default"},
        });
        POD.strategy.default(&mut pod);
        pod
    }

    fn container(name: &str, requests: Value, limits: Value) -> Value {
        json!({"name": name, "image": "vote/web:1", "resources": {"requests": requests, "limits": limits}})
    }

    /// What a request for other containers is told.
    fn faults(old: &Value, containers: Value) -> Vec<String> {
        let mut proposed = old.clone();
        proposed["spec"]["containers"] = containers;
        told::of_update(&POD, &proposed, old, Some(Subresource::Resize))
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else_does() {
        let (two, four) = (json!({"cpu": "20m"}), json!({"cpu": "40m"}));
        let old = pod(json!([
            container("a", two.clone(), json!({"memory": "50Mi"})),
            container("b", two.clone(), json!({})),
        ]));
        let b = || container("b", json!({"cpu": "20m"}), json!({}));
        let a = |requests: Value, limits: Value| container("a", requests, limits);
        let more = json!({"memory": "60Mi", "cpu": "80m"});
        assert_eq!(faults(&old, json!([a(four.clone(), more), b()])), [""; 0]);
        for (containers, sentences) in [
            (
                json!([a(json!({}), json!({"memory": "50Mi"})), b()]),
                vec![
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                ],
            ),
            (
                // What was asked of memory was what its limit gave.
                json!([a(two.clone(), json!({})), b()]),
                vec![
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                    "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
                ],
            ),
            (
                json!([b(), a(two.clone(), json!({"memory": "50Mi"}))]),
                vec![
                    "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                    "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
                ],
            ),
            (
                json!([
                    a(
                        json!({"cpu": "20m", "ephemeral-storage": "3"}),
                        json!({"memory": "50Mi"})
                    ),
                    b()
                ]),
                vec!["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
            (
                json!([b()]),
                vec![
                    "spec.containers: Forbidden: containers may not be added or removed on resize",
                ],
            ),
        ] {
            assert_eq!(faults(&old, containers.clone()), sentences, "{containers}");
        }
    }

    #[test]
    fn the_class_of_service_stays() {
        let amounts = json!({"cpu": "20m", "memory": "20Mi"});
        for (before, after) in [
            ((json!({}), json!({})), (json!({"cpu": "1m"}), json!({}))),
            (
                (amounts.clone(), json!({"cpu": "30m", "memory": "30Mi"})),
                (
                    json!({"cpu": "30m", "memory": "30Mi"}),
                    json!({"cpu": "30m", "memory": "30Mi"}),
                ),
            ),
        ] {
            let old = pod(json!([container("a", before.0, before.1)]));
            let class = old["status"]["qosClass"].as_str().unwrap();
            let sentence = format!(
                "spec: Invalid value: \"{class}\": Pod QOS Class may not change as a result of resizing"
            );
            assert_eq!(
                faults(&old, json!([container("a", after.0, after.1)])),
                [sentence]
            );
        }
    }

    #[test]
    fn who_does_not_tell_what_containers_have_cannot_give_them_more() {
        let mut old = pod(json!([container("a", json!({"cpu": "1m"}), json!({}))]));
        let faults = |old: &Value| {
            let mut new = old.clone();
            new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2m");
            told::lines(crate::validate::updated(
                &POD,
                &new,
                old,
                Some(Subresource::Resize),
            ))
        };
        let mut status = json!({"name": "a", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0});
        old["status"]["containerStatuses"] = json!([status]);
        assert_eq!(
            faults(&old),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        status["resources"] = json!({});
        old["status"]["containerStatuses"] = json!([status]);
        assert_eq!(faults(&old), [""; 0]);
    }

    #[test]
    fn what_a_node_can_never_give_is_refused_at_once() {
        let amounts = json!({"cpu": "2", "memory": "1Gi"});
        let node = json!({"metadata": {"name": "a"}, "status": {"allocatable": amounts}});
        let around = Cluster::default().with(&NODE, node);
        let mut pod = pod(json!([container("a", json!({"cpu": "1"}), json!({}))]));
        pod["spec"]["nodeName"] = json!("a");
        pod["metadata"]["generation"] = json!(1);
        for (node, requests, told) in [
            ("a", json!({"cpu": "2"}), ""),
            ("", json!({"cpu": "3"}), ""),
            (
                "b",
                json!({"cpu": "2"}),
                "pods \"p\" is forbidden: node \"b\" not found",
            ),
            (
                "a",
                json!({"cpu": "2500m", "memory": "2Gi"}),
                "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824",
            ),
        ] {
            let mut new = pod.clone();
            new["metadata"]["generation"] = json!(2);
            new["spec"]["nodeName"] = json!(node);
            new["spec"]["containers"][0]["resources"]["requests"] = requests;
            let found = fits_its_node(&new, &pod, &around);
            assert_eq!(
                found.err().map_or(String::new(), |error| error.message),
                told
            );
        }
    }

    #[test]
    fn nothing_but_amounts_is_taken_over() {
        let old = pod(json!([container("a", json!({"cpu": "1m"}), json!({}))]));
        let mut proposed = old.clone();
        proposed["metadata"]["labels"] = json!({"a": "b"});
        proposed["spec"]["nodeName"] = json!("elsewhere");
        proposed["spec"]["containers"][0]["image"] = json!("other");
        proposed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2m");
        let mut expected = old.clone();
        expected["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2m");
        assert_eq!(prepared(&proposed, &old), expected);
    }
}
