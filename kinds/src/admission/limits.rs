//! Limit ranges: what containers get that ask for nothing, and what pods and claims may ask for.
//!
//! Source: kubernetes `plugin/pkg/admission/limitranger`, and its sentences.

use serde_json::Value;
use weft_api::quantity::Quantity;
use weft_api::status::StatusError;

use super::amounts::{self, Amounts};
use super::{Operation, Request, aggregate};
use crate::lens::{items, items_mut, member, text};

/// Whether limit ranges have a say in a request.
pub fn concerns(request: &Request) -> bool {
    let create_or_update = matches!(request.operation, Operation::Create | Operation::Update);
    let part = request.subresource.as_str();
    match (&*request.place.resource_group, &*request.place.resource) {
        // What a pod asks for changes by `resize` alone.
        ("", "pods") if request.operation == Operation::Update => part == "resize",
        ("", "pods" | "persistentvolumeclaims") => part.is_empty() && create_or_update,
        _ => false,
    }
}

/// Gives the containers of a pod what a range gives those that say nothing.
pub fn fill(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for limit in containers_of(range) {
        requests.extend(amounts::at(limit, "/defaultRequest"));
        limits.extend(amounts::at(limit, "/default"));
    }
    let mut told = Vec::new();
    for (list, word) in [
        ("/spec/containers", "container"),
        ("/spec/initContainers", "init container"),
    ] {
        for container in items_mut(pod, list) {
            let name = text(container, "/name").to_owned();
            let limited = merge(container, "limits", &limits);
            let requested = merge(container, "requests", &requests);
            for (set, sort) in [(requested, "request"), (limited, "limit")] {
                if !set.is_empty() {
                    told.push(format!("{} {sort} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let annotations = member(member(pod, "metadata"), "annotations");
        let value = format!("LimitRanger plugin set: {}", told.join("; "));
        annotations["kubernetes.io/limit-ranger"] = value.into();
    }
}

/// Which of the amounts were missing, and are there now.
fn merge(container: &mut Value, sort: &str, amounts: &Amounts) -> Vec<String> {
    let known = amounts::at(container, &format!("/resources/{sort}"));
    let missing = amounts
        .iter()
        .filter(|(name, _)| !known.contains_key(*name));
    let missing: Vec<(&String, &Quantity)> = missing.collect();
    if !missing.is_empty() {
        let into = member(member(container, "resources"), sort);
        for (name, amount) in &missing {
            into[name.as_str()] = amount.to_string().into();
        }
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

fn of_type<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let limits = items(range, "/spec/limits").iter();
    limits.filter(move |limit| text(limit, "/type") == kind)
}

fn containers_of(range: &Value) -> impl Iterator<Item = &Value> {
    of_type(range, "Container")
}

/// Judges a pod or a claim by a range.
///
/// # Errors
/// 403 with everything that is wrong.
pub fn judge(range: &Value, request: &Request, object: &Value) -> Result<(), StatusError> {
    let mut told = Vec::new();
    if request.place.resource == "pods" {
        for limit in items(range, "/spec/limits") {
            match text(limit, "/type") {
                "Container" => {
                    for list in ["/spec/containers", "/spec/initContainers"] {
                        for container in items(object, list) {
                            let requests = amounts::at(container, "/resources/requests");
                            let limits = amounts::at(container, "/resources/limits");
                            bounds(limit, "Container", &requests, &limits, &mut told);
                        }
                    }
                }
                "Pod" => {
                    let requests = amounts::of_pod(object, "requests", false);
                    let limits = amounts::of_pod(object, "limits", false);
                    bounds(limit, "Pod", &requests, &limits, &mut told);
                }
                _ => {}
            }
        }
    } else {
        const KIND: &str = "PersistentVolumeClaim";
        let requests = amounts::at(object, "/spec/resources/requests");
        for limit in of_type(range, KIND) {
            for (name, bound) in amounts::at(limit, "/min") {
                told.extend(least(KIND, &name, bound, &requests, &Amounts::new()));
            }
            for (name, bound) in amounts::at(limit, "/max") {
                let start = format!("maximum {name} usage per {KIND} is {bound}");
                match requests.get(&name) {
                    None => told.push(format!("{start}.  No request is specified")),
                    Some(request) if *request > bound => {
                        told.push(format!("{start}, but request is {request}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    match told.is_empty() {
        true => Ok(()),
        false => Err(request.forbidden(Some(object), &aggregate(told))),
    }
}

fn bounds(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, told: &mut Vec<String>) {
    for (name, bound) in amounts::at(limit, "/min") {
        told.extend(least(kind, &name, bound, requests, limits));
    }
    for (name, bound) in amounts::at(limit, "/max") {
        let start = format!("maximum {name} usage per {kind} is {bound}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => told.push(format!("{start}.  No limit is specified")),
            (Some(limit), _) if *limit > bound => {
                told.push(format!("{start}, but limit is {limit}"));
            }
            (_, Some(request)) if *request > bound => {
                told.push(format!("{start}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, bound) in amounts::at(limit, "/maxLimitRequestRatio") {
        told.extend(ratio(kind, &name, bound, requests, limits));
    }
}

fn least(
    kind: &str,
    name: &str,
    bound: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < bound => {
            Some(format!("{start}, but request is {request}"))
        }
        (_, Some(limit)) if *limit < bound => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn ratio(
    kind: &str,
    name: &str,
    bound: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {bound}");
    let some = |amounts: &Amounts| {
        let found = amounts.get(name).copied();
        found.filter(|amount| !amount.is_zero())
    };
    let Some(request) = some(requests) else {
        return Some(format!(
            "{start}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = some(limits) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.milli() as f64 / request.milli() as f64;
    let exceeds = ratio * 1000.0 > bound.milli() as f64;
    exceeds.then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::{Place, User};

    fn request(resource: &str) -> Request {
        Request {
            operation: Operation::Create,
            place: Place {
                group: String::new(),
                version: "v1".to_owned(),
                kind: String::new(),
                resource: resource.to_owned(),
                resource_group: String::new(),
                resource_version: "v1".to_owned(),
            },
            equivalents: Vec::new(),
            subresource: String::new(),
            namespace: "n".to_owned(),
            name: "x".to_owned(),
            user: User::default(),
            dry_run: false,
            options: Value::Null,
        }
    }

    fn told(range: &Value, resource: &str, object: &Value) -> String {
        let judged = judge(range, &request(resource), object);
        judged.map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn containers_get_what_they_do_not_ask_for() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m", "memory": "1Mi"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Mi"}}}],
        }});
        fill(&range, &mut pod);
        assert_eq!(
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; memory request for container b; cpu request for init container i; cpu limit for init container i"
        );
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m", "memory": "1Mi"}})
        );
        assert_eq!(
            pod["spec"]["containers"][1]["resources"]["limits"],
            json!({"cpu": "2"})
        );
        // What is there stays, and nothing more is told.
        let once = pod.clone();
        fill(&range, &mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let range = |kind: &str, bounds: Value| {
            let mut limit = bounds;
            limit["type"] = kind.into();
            json!({"spec": {"limits": [limit]}})
        };
        for (range, object, expected) in [
            (
                range("Container", json!({"max": {"cpu": "1"}})),
                pod(json!({"limits": {"cpu": "2"}})),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                range("Container", json!({"min": {"cpu": "1", "memory": "1Gi"}})),
                pod(json!({"requests": {"cpu": "500m"}})),
                "[minimum cpu usage per Container is 1, but request is 500m, minimum memory usage per Container is 1Gi.  No request is specified]",
            ),
            (
                range("Pod", json!({"max": {"memory": "1Gi"}})),
                pod(json!({})),
                "maximum memory usage per Pod is 1Gi.  No limit is specified",
            ),
            (
                range("Pod", json!({"maxLimitRequestRatio": {"cpu": "2"}})),
                pod(json!({"limits": {"cpu": "5"}, "requests": {"cpu": "2"}})),
                "cpu max limit to request ratio per Pod is 2, but provided ratio is 2.500000",
            ),
            (
                range(
                    "Container",
                    json!({"max": {"cpu": "2"}, "min": {"cpu": "1"}}),
                ),
                pod(json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}})),
                "",
            ),
        ] {
            let expected = match expected {
                "" => String::new(),
                told => format!("pods \"x\" is forbidden: {told}"),
            };
            assert_eq!(told(&range, "pods", &object), expected);
        }
        let claims = range(
            "PersistentVolumeClaim",
            json!({"max": {"storage": "1Gi"}, "min": {"storage": "1Mi"}}),
        );
        let claim = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            told(&claims, "persistentvolumeclaims", &claim),
            "persistentvolumeclaims \"x\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
        );
    }
}
