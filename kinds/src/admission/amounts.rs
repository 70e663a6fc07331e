//! Amounts of resources by name, and those of a pod as a whole.
//!
//! A pod asks for what its containers and sidecars ask for together, or for what the greediest of its init containers does beside the
//! sidecars that have started before it; what the pod says of itself goes before that.
//! Source: k8s.io/component-helpers `resource/helpers.go`.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::quantity::Quantity;

use crate::lens::{items, object, text};
use crate::quantity_of;

/// By the names of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of the map at a pointer.
pub fn at(value: &Value, pointer: &str) -> Amounts {
    let map = object(value, pointer).into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), quantity_of(value)?)))
        .collect()
}

pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = match entry.is_zero() {
            // How it is written is taken over with it.
            true => *amount,
            false => *entry + *amount,
        };
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = to.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

/// What a pod asks for, by `requests`, or may have at most, by `limits`.
pub fn of_pod(pod: &Value, sort: &str, with_overhead: bool) -> Amounts {
    let pointer = format!("/resources/{sort}");
    let mut whole = Amounts::new();
    for container in items(pod, "/spec/containers") {
        add(&mut whole, &at(container, &pointer));
    }
    let (mut started, mut greediest) = (Amounts::new(), Amounts::new());
    for container in items(pod, "/spec/initContainers") {
        let own = at(container, &pointer);
        let mut beside = started.clone();
        add(&mut beside, &own);
        if text(container, "/restartPolicy") == "Always" {
            add(&mut whole, &own);
            started.clone_from(&beside);
        }
        raise(&mut greediest, &beside);
    }
    raise(&mut whole, &greediest);
    for (name, amount) in at(pod, &format!("/spec/resources/{sort}")) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            whole.insert(name, amount);
        }
    }
    if with_overhead {
        for (name, amount) in at(pod, "/spec/overhead") {
            match whole.get_mut(&name) {
                Some(known) => *known += amount,
                // A limit that is none stays none.
                None if sort == "requests" => {
                    whole.insert(name, amount);
                }
                None => {}
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_what_runs_at_once() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let mut pod = json!({"spec": {
            "containers": [{"resources": asks("1")}, {"resources": asks("500m")}],
            "initContainers": [
                {"resources": asks("1")},
                {"resources": asks("250m"), "restartPolicy": "Always"},
                {"resources": asks("3")},
            ],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        }});
        let shown = |pod: &Value, overhead| of_pod(pod, "requests", overhead)["cpu"].to_string();
        assert_eq!(shown(&pod, false), "3250m");
        assert_eq!(shown(&pod, true), "3260m");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "4"}});
        assert_eq!(shown(&pod, false), "4");
        assert_eq!(of_pod(&pod, "limits", true), Amounts::new());
    }
}
