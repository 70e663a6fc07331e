//! What a pod gets from classes when it is created: its priority, and what running it costs and where it may run.
//!
//! After the admission plug-ins Priority and RuntimeClass of Kubernetes, in their sentences.

use serde_json::{Value, json};
use weft_api::status::StatusError;

use crate::RUNTIME_CLASS;
use crate::lens::{fill, integer, items, member, object, put, text};
use crate::scheduling::{PRIORITY_CLASS, default_class};
use crate::strategy::Surroundings;

fn refused(pod: &Value, why: &str) -> StatusError {
    StatusError::forbidden("pods", "", text(pod, "/metadata/name"), why)
}

/// The priority of the class that it names, else of the cluster's default, else none; what a pod says itself must be just that.
///
/// # Errors
/// 403.
pub(super) fn take_priority(pod: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
    let named = text(pod, "/spec/priorityClassName").to_owned();
    let class = match named.as_str() {
        "" => default_class(around),
        name => match around.object(&PRIORITY_CLASS, None, name) {
            Some(class) => Some(class),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(refused(pod, &why));
            }
        },
    };
    let class = class.unwrap_or_else(|| json!({"preemptionPolicy": "PreemptLowerPriority"}));
    let priority = integer(&class, "/value").unwrap_or(0);
    if let Some(said) = integer(pod, "/spec/priority").filter(|said| *said != priority) {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(refused(pod, &why));
    }
    let policy = text(&class, "/preemptionPolicy");
    let said = text(pod, "/spec/preemptionPolicy");
    if !said.is_empty() && !policy.is_empty() && said != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(refused(pod, &why));
    }
    let spec = member(pod, "spec");
    spec["priority"] = priority.into();
    if !policy.is_empty() {
        spec["preemptionPolicy"] = policy.into();
    }
    if named.is_empty() {
        let name = Some(text(&class, "/metadata/name")).filter(|name| !name.is_empty());
        put(spec, "priorityClassName", name.map(Value::from));
    }
    Ok(())
}

/// An update that does not say the priority leaves it.
pub(super) fn keep_priority(next: &mut Value, old: &Value) {
    let spec = member(next, "spec");
    for field in ["priority", "preemptionPolicy"] {
        if let Some(kept) = old.pointer(&format!("/spec/{field}")) {
            fill(spec, field, kept.clone());
        }
    }
}

/// The overhead of its RuntimeClass, and the nodes that this asks for, beside what the pod says itself.
///
/// # Errors
/// 403 when there is no such class, or the pod says something else.
pub(super) fn take_runtime_class(
    pod: &mut Value,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    let named = text(pod, "/spec/runtimeClassName").to_owned();
    let class = match named.as_str() {
        "" => Value::Null,
        name => match around.object(&RUNTIME_CLASS, None, name) {
            Some(class) => class,
            None => {
                let why = format!("pod rejected: RuntimeClass {name:?} not found");
                return Err(refused(pod, &why));
            }
        },
    };
    let said = object(pod, "/spec/overhead").filter(|said| !said.is_empty());
    match (object(&class, "/overhead"), said) {
        (None, Some(_)) => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(refused(pod, why));
        }
        (Some(overhead), said) => {
            let fixed = overhead.get("podFixed").and_then(Value::as_object);
            if said.is_some() && said != fixed {
                let why =
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(refused(pod, why));
            }
            let fixed = fixed.cloned().map(Value::from);
            put(member(pod, "spec"), "overhead", fixed);
        }
        (None, None) => {}
    }
    take_nodes(pod, &class)?;
    let wanted = items(&class, "/scheduling/tolerations");
    if object(&class, "/scheduling").is_some() {
        let all: Vec<Value> = [items(pod, "/spec/tolerations"), wanted].concat();
        let merged = merged_tolerations(&all);
        let merged = (!merged.is_empty()).then(|| merged.into());
        put(member(pod, "spec"), "tolerations", merged);
    }
    Ok(())
}

fn take_nodes(pod: &mut Value, class: &Value) -> Result<(), StatusError> {
    let Some(wanted) = object(class, "/scheduling/nodeSelector") else {
        return Ok(());
    };
    let own = object(pod, "/spec/nodeSelector").cloned();
    let mut selector = own.unwrap_or_default();
    for (key, value) in wanted {
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let (value, own) = (value.as_str().unwrap_or(""), own.as_str().unwrap_or(""));
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(refused(pod, &why));
        }
        selector.insert(key.clone(), value.clone());
    }
    if !selector.is_empty() {
        member(pod, "spec")["nodeSelector"] = selector.into();
    }
    Ok(())
}

/// Tolerations without those that another one covers; of two that are equal, the first stays.
fn merged_tolerations(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let before = merged.iter().any(|other| covers(other, toleration));
        let mut further = all.iter().skip(index + 1);
        let behind = further.any(|other| other != toleration && covers(other, toleration));
        if !before && !behind {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether whatever `narrow` tolerates, `wide` tolerates too.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let of = |toleration, field: &str| text(toleration, field).to_owned();
    let (key, operator, effect) = (of(wide, "/key"), of(wide, "/operator"), of(wide, "/effect"));
    let any_key = key.is_empty() && operator == "Exists";
    if of(narrow, "/key") != key && !any_key {
        return false;
    }
    if of(narrow, "/effect") != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = integer(wide, "/tolerationSeconds")
        && integer(narrow, "/tolerationSeconds").is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match operator.as_str() {
        "Exists" => true,
        "" | "Equal" => {
            of(narrow, "/operator") == "Equal" && of(narrow, "/value") == of(wide, "/value")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::POD;
    use crate::strategy::small::Cluster;

    fn class(name: &str, rest: Value) -> Value {
        let mut class = json!({"metadata": {"name": name}});
        for (field, value) in rest.as_object().unwrap() {
            class[field] = value.clone();
        }
        class
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
    }

    fn priority(spec: Value, around: &Cluster) -> Result<Value, String> {
        let mut pod = pod(spec);
        match take_priority(&mut pod, around) {
            Ok(()) => Ok(pod["spec"].clone()),
            Err(error) => {
                assert_eq!(error.code, 403);
                Err(error.message)
            }
        }
    }

    #[test]
    fn the_class_says_the_priority() {
        let plain = Cluster::default().with(
            &PRIORITY_CLASS,
            class("high", json!({"value": 7, "preemptionPolicy": "Never"})),
        );
        assert_eq!(
            priority(json!({}), &plain),
            Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))
        );
        assert_eq!(
            priority(json!({"priorityClassName": "high"}), &plain),
            Ok(json!({"priority": 7, "preemptionPolicy": "Never", "priorityClassName": "high"}))
        );
        for (spec, expected) in [
            (
                json!({"priorityClassName": "nope"}),
                "pods \"p\" is forbidden: no PriorityClass with name nope was found",
            ),
            (
                json!({"priority": 5}),
                "pods \"p\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
            ),
            (
                json!({"preemptionPolicy": "Never"}),
                "pods \"p\" is forbidden: the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name",
            ),
        ] {
            assert_eq!(priority(spec, &plain), Err(expected.to_owned()));
        }
        let default =
            json!({"value": 5, "globalDefault": true, "preemptionPolicy": "PreemptLowerPriority"});
        let with_default = plain.with(&PRIORITY_CLASS, class("usual", default));
        assert_eq!(
            priority(json!({}), &with_default),
            Ok(
                json!({"priority": 5, "preemptionPolicy": "PreemptLowerPriority", "priorityClassName": "usual"})
            )
        );
    }

    #[test]
    fn an_update_that_does_not_say_it_keeps_the_priority() {
        let old = pod(json!({"priority": 7, "preemptionPolicy": "Never"}));
        for (said, expected) in [
            (json!({}), json!(7)),
            (json!({"priority": null}), json!(7)),
            (json!({"priority": 8}), json!(8)),
        ] {
            let next = POD.strategy.prepare_for_update(&POD, None, pod(said), &old);
            assert_eq!(next["spec"]["priority"], expected);
            assert_eq!(next["spec"]["preemptionPolicy"], "Never");
        }
    }

    fn run(spec: Value) -> Result<Value, String> {
        let around = Cluster::default().with(
            &RUNTIME_CLASS,
            class(
                "wasm",
                json!({"handler": "h", "overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {
                    "nodeSelector": {"a": "b"}, "tolerations": [{"key": "t", "operator": "Exists"}],
                }}),
            ),
        );
        let mut pod = pod(spec);
        match take_runtime_class(&mut pod, &around) {
            Ok(()) => Ok(pod["spec"].clone()),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn the_runtime_class_says_what_running_costs_and_where() {
        let own = json!([{"key": "o", "operator": "Exists"}, {"key": "t", "operator": "Exists", "effect": "NoSchedule"}]);
        assert_eq!(
            run(
                json!({"runtimeClassName": "wasm", "nodeSelector": {"c": "d"}, "tolerations": own})
            ),
            Ok(json!({
                "runtimeClassName": "wasm",
                "overhead": {"cpu": "100m"},
                "nodeSelector": {"a": "b", "c": "d"},
                "tolerations": [{"key": "o", "operator": "Exists"}, {"key": "t", "operator": "Exists"}],
            }))
        );
        assert_eq!(run(json!({})), Ok(json!({})));
        for (spec, expected) in [
            (
                json!({"runtimeClassName": "nope"}),
                "pod rejected: RuntimeClass \"nope\" not found",
            ),
            (
                json!({"overhead": {"cpu": "1"}}),
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ),
            (
                json!({"runtimeClassName": "wasm", "overhead": {"cpu": "1"}}),
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ),
            (
                json!({"runtimeClassName": "wasm", "nodeSelector": {"a": "c"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c",
            ),
        ] {
            let message = format!("pods \"p\" is forbidden: {expected}");
            assert_eq!(run(spec), Err(message));
        }
    }

    #[test]
    fn a_toleration_that_another_covers_is_left_out() {
        let any = json!({"operator": "Exists"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        let equal = json!({"key": "a", "operator": "Equal", "value": "v"});
        for (all, expected) in [
            (vec![&short, &long], vec![&long]),
            (vec![&equal, &equal], vec![&equal]),
            (vec![&equal, &any, &short], vec![&any]),
            (vec![&short, &equal], vec![&short, &equal]),
        ] {
            let all: Vec<Value> = all.into_iter().cloned().collect();
            let expected: Vec<Value> = expected.into_iter().cloned().collect();
            assert_eq!(merged_tolerations(&all), expected);
        }
    }
}
