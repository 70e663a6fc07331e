//! Which pod a command means: by its name, or by that of what owns it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::Value;
use weft_api::annotation;

use super::kinds::Kinds;
use super::manifest;
use crate::exit::Failure;
use crate::kubeconfig::api_failure;

/// A pod of which nothing but the name is known.
pub(super) fn named(name: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod
}

/// The pod that `POD` or `KIND/NAME` means, as it is now.
pub(super) async fn one(
    client: &kube::Client,
    namespace: &str,
    said: &str,
    cannot: &str,
) -> Result<Pod, Failure> {
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), namespace);
    let name = match said.split_once('/') {
        None => said.to_owned(),
        Some((kind, name)) => {
            let found = of_owner(client, &api, namespace, kind, name, cannot).await?;
            let mut names = found.into_iter().filter_map(|pod| pod.metadata.name);
            names.next().unwrap_or_default()
        }
    };
    let pod = api.get(&name).await;
    pod.map_err(|error| api_failure(cannot, &error))
}

/// The container that is meant: the one that is named, the pod's default, or its first, which is told where there are more.
pub(super) fn container(pod: &Pod, asked: Option<&str>) -> String {
    if let Some(asked) = asked {
        return asked.to_owned();
    }
    let annotations = pod.metadata.annotations.as_ref();
    let default = annotations.and_then(|all| all.get(annotation::DEFAULT_CONTAINER));
    let spec = pod.spec.as_ref();
    let names: Vec<&str> = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| container.name.as_str())
        .collect();
    match (default, names.as_slice()) {
        (Some(default), names) if names.contains(&default.as_str()) => default.clone(),
        (_, [first, _, ..]) => {
            eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
            (*first).to_owned()
        }
        (_, [only]) => (*only).to_owned(),
        (_, []) => String::new(),
    }
}

/// `app=web` and so on: what workloads write under `matchLabels`, and Services as it is.
fn pod_labels(selector: &Value) -> Vec<String> {
    let labels = match &selector["matchLabels"] {
        Value::Null => selector,
        labels => labels,
    };
    labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect()
}

/// The pods, by name, that the selector of an owner matches; a pod itself when the kind is pods. `cannot` is what is told to have failed otherwise.
pub(super) async fn of_owner(
    client: &kube::Client,
    pods: &kube::Api<Pod>,
    namespace: &str,
    kind: &str,
    name: &str,
    cannot: &str,
) -> Result<Vec<Pod>, Failure> {
    let served = Kinds::discover(client).await?;
    let kind_found = served.resolve(kind)?;
    let (resource, scope) = (&kind_found.resource, &kind_found.scope);
    if resource.kind == "Pod" {
        return Ok(vec![named(name)]);
    }
    let what = || cannot.to_owned();
    let owner = manifest::api(client, resource, scope, Some(namespace))
        .get(name)
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let selector = pod_labels(&owner.data["spec"]["selector"]);
    if selector.is_empty() {
        let why = format!("a {} selects no pods by label", resource.kind);
        return Err(Failure::new(what(), why, "name a pod; `weft get pods` lists them").usage());
    }
    let found = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let mut found = found.items;
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    if found.is_empty() {
        let next = format!("see why with `weft get {kind} {name} -o yaml`");
        return Err(Failure::new(what(), "it has no pods", next));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn workloads_and_services_select_pods() {
        for (selector, labels) in [
            (
                json!({"matchLabels": {"app": "web", "tier": "front"}}),
                "app=web,tier=front",
            ),
            (json!({"app": "web"}), "app=web"),
            (json!({"matchExpressions": []}), ""),
            (Value::Null, ""),
        ] {
            assert_eq!(pod_labels(&selector).join(","), labels, "{selector}");
        }
    }

    #[test]
    fn a_container_is_the_one_that_is_named_or_the_default() {
        let pod = |default: Option<&str>, names: &[&str]| -> Pod {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            let annotations = default.map(|name| json!({annotation::DEFAULT_CONTAINER: name}));
            serde_json::from_value(json!({
                "metadata": {"annotations": annotations}, "spec": {"containers": containers},
            }))
            .expect("a pod")
        };
        for (pod, asked, expected) in [
            (pod(None, &["a"]), None, "a"),
            (pod(None, &["a", "b"]), None, "a"),
            (pod(Some("b"), &["a", "b"]), None, "b"),
            (pod(Some("x"), &["a", "b"]), None, "a"),
            (
                pod(Some("b"), &["a", "b"]),
                Some("debugger-1"),
                "debugger-1",
            ),
        ] {
            assert_eq!(container(&pod, asked), expected);
        }
    }
}
