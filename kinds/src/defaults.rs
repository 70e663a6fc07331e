//! What Kubernetes fills in when a client leaves it out, kind by kind.
//!
//! Pure: an object in, the same object with defaults. Running it twice changes nothing, because it runs on
//! every create and every update. What depends on the cluster or the caller is in `admission`.

use std::str::FromStr;

use serde_json::{Map, Value, json};
use weft_api::image::ImageReference;

use crate::lens::{fill, items, items_mut, member, object, put, text};

/// For kinds without defaults.
pub fn nothing(_: &mut Value) {}

pub fn namespace(value: &mut Value) {
    let name = text(value, "/metadata/name").to_owned();
    let labels = member(member(value, "metadata"), "labels");
    labels["kubernetes.io/metadata.name"] = name.into();
    // Absent on create only: an emptied list is how finalization ends, and must stay empty.
    if value.pointer("/spec/finalizers").is_none() && value.pointer("/status/phase").is_none() {
        member(value, "spec")["finalizers"] = json!(["kubernetes"]);
    }
    fill(member(value, "status"), "phase", "Active");
}

pub fn secret(value: &mut Value) {
    fold_string_data(value);
    fill(value, "type", "Opaque");
}

/// `stringData` is write-only: it ends up encoded in `data`, and wins over what is there.
fn fold_string_data(value: &mut Value) {
    use base64::Engine as _;

    let Some(map) = value.as_object_mut() else {
        return;
    };
    let Some(Value::Object(plain)) = map.remove("stringData") else {
        return;
    };
    let data = member(value, "data");
    for (key, text) in plain {
        if let Some(text) = text.as_str() {
            data[key] = base64::engine::general_purpose::STANDARD
                .encode(text)
                .into();
        }
    }
}

pub fn pod(value: &mut Value) {
    if let Some(spec) = value.get_mut("spec").filter(|spec| spec.is_object()) {
        fill(spec, "enableServiceLinks", true);
        pod_spec(spec);
        limits_become_requests(spec);
        if text(spec, "/serviceAccountName").is_empty() {
            let account = match text(spec, "/serviceAccount") {
                "" => "default".to_owned(),
                account => account.to_owned(),
            };
            spec["serviceAccountName"] = account.into();
        }
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
        fill(spec, "priority", 0);
        fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    }
    let class = qos_class(value);
    let status = member(value, "status");
    fill(status, "phase", "Pending");
    fill(status, "qosClass", class);
}

/// Defaults shared by pods and pod templates.
fn pod_spec(spec: &mut Value) {
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    if !text(spec, "/serviceAccountName").is_empty() {
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
    }
    for list in ["/initContainers", "/containers", "/ephemeralContainers"] {
        for container in items_mut(spec, list) {
            self::container(container);
        }
    }
    for volume in items_mut(spec, "/volumes") {
        self::volume(volume);
    }
}

fn container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let policy = match ImageReference::from_str(text(container, "/image")) {
        Ok(image) if image.is_latest() => "Always",
        _ => "IfNotPresent",
    };
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    for port in items_mut(container, "/ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "/env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            fill(reference, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = probe.get_mut("grpc") {
                fill(grpc, "service", "");
            }
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            http_get(hook);
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(request) = handler.get_mut("httpGet") {
        fill(request, "path", "/");
        fill(request, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else {
        return;
    };
    if map.keys().all(|key| key == "name") {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    // 0644, which JSON can only write in decimal.
    const MODE: i32 = 420;
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            fill(source, "defaultMode", MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        fill(path, "type", "");
    }
    for item in items_mut(volume, "/downwardAPI/items") {
        if let Some(reference) = item.get_mut("fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
    }
}

/// A container that names a limit without a request asks for the limit.
fn limits_become_requests(spec: &mut Value) {
    for list in ["/initContainers", "/containers"] {
        for container in items_mut(spec, list) {
            let Some(limits) = object(container, "/resources/limits").cloned() else {
                continue;
            };
            let requests = member(member(container, "resources"), "requests");
            for (resource, limit) in limits {
                fill(requests, &resource, limit);
            }
        }
    }
}

/// Guaranteed when every container's cpu and memory limits equal its requests, BestEffort when none has any.
pub fn qos_class(pod: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut any = false;
    for list in ["/spec/containers", "/spec/initContainers"] {
        for container in items(pod, list) {
            for resource in ["cpu", "memory"] {
                let quantity = |side: &str| {
                    let value = container.pointer("/resources")?.get(side)?.get(resource)?;
                    let quantity = quantity_of(value)?;
                    (!quantity.is_zero()).then_some(quantity)
                };
                let (limit, request) = (quantity("limits"), quantity("requests"));
                any |= limit.is_some() || request.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A quantity as clients write it: text, or a bare number.
pub fn quantity_of(value: &Value) -> Option<weft_api::quantity::Quantity> {
    match value {
        Value::String(text) => weft_api::quantity::Quantity::parse(text).ok(),
        Value::Number(number) => weft_api::quantity::Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

fn template(value: &mut Value) {
    if let Some(spec) = value.pointer_mut("/spec/template/spec") {
        pod_spec(spec);
    }
}

pub fn deployment(value: &mut Value) {
    template(value);
    let Some(spec) = value.get_mut("spec") else {
        return;
    };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    let strategy = member(spec, "strategy");
    fill(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = member(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
}

pub fn replica_set(value: &mut Value) {
    template(value);
    if let Some(spec) = value.get_mut("spec") {
        fill(spec, "replicas", 1);
    }
    fill(member(value, "status"), "replicas", 0);
}

pub fn service(value: &mut Value) {
    let spec = member(value, "spec");
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    let kind = text(spec, "/type").to_owned();
    if text(spec, "/sessionAffinity") == "ClientIP" {
        let client = member(member(spec, "sessionAffinityConfig"), "clientIP");
        fill(client, "timeoutSeconds", 10800);
    }
    for port in items_mut(spec, "/ports") {
        fill(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        match port.get("targetPort") {
            None | Some(Value::Null) => put(port, "targetPort", Some(number)),
            Some(target) if target == &json!(0) || target == &json!("") => {
                put(port, "targetPort", Some(number));
            }
            Some(_) => {}
        }
    }
    if kind == "ExternalName" {
        return;
    }
    fill(spec, "internalTrafficPolicy", "Cluster");
    fill(spec, "ipFamilies", json!(["IPv4"]));
    fill(spec, "ipFamilyPolicy", "SingleStack");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    fill(member(value, "status"), "loadBalancer", json!({}));
}

pub fn endpoint_slice(value: &mut Value) {
    for port in items_mut(value, "/ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

pub fn event(value: &mut Value) {
    fill(value, "source", json!({}));
    fill(value, "reportingComponent", "");
    fill(value, "reportingInstance", "");
}

pub fn gateway(value: &mut Value) {
    for listener in items_mut(value, "/spec/listeners") {
        let namespaces = member(member(listener, "allowedRoutes"), "namespaces");
        fill(namespaces, "from", "Same");
    }
}

pub fn http_route(value: &mut Value) {
    for parent in items_mut(value, "/spec/parentRefs") {
        fill(parent, "group", "gateway.networking.k8s.io");
        fill(parent, "kind", "Gateway");
    }
    let spec = member(value, "spec");
    let anything = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    fill(spec, "rules", json!([{"matches": anything.clone()}]));
    for rule in items_mut(spec, "/rules") {
        fill(rule, "matches", anything.clone());
        for condition in items_mut(rule, "/matches") {
            fill(condition, "path", json!({}));
            if let Some(path) = condition.get_mut("path") {
                fill(path, "type", "PathPrefix");
                fill(path, "value", "/");
            }
            for list in ["/headers", "/queryParams"] {
                for header in items_mut(condition, list) {
                    fill(header, "type", "Exact");
                }
            }
        }
        for backend in items_mut(rule, "/backendRefs") {
            fill(backend, "group", "");
            fill(backend, "kind", "Service");
            fill(backend, "weight", 1);
        }
    }
}

/// Names of `events.k8s.io/v1` fields and where `v1` keeps them.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// A stored `v1` Event in the spelling of `events.k8s.io/v1`.
pub fn event_to_v1(value: &mut Value) {
    rename_event(value, "events.k8s.io/v1", |(new, old)| (*old, *new));
}

/// An `events.k8s.io/v1` Event in the spelling that is stored.
pub fn event_from_v1(value: &mut Value) {
    rename_event(value, "v1", |(new, old)| (*new, *old));
}

fn rename_event(
    value: &mut Value,
    api_version: &str,
    from_to: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(map) = value.as_object_mut() else {
        return;
    };
    let mut moved = Map::new();
    for pair in EVENT_FIELDS {
        let (from, to) = from_to(pair);
        if let Some(found) = map.remove(from) {
            moved.insert(to.to_owned(), found);
        }
    }
    map.extend(moved);
    map.insert("apiVersion".to_owned(), api_version.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_idempotent_and_complete() {
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{
                    "name": "c", "image": "vote/web:1",
                    "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
                    "ports": [{"containerPort": 80}],
                    "readinessProbe": {"httpGet": {"port": 80}},
                }, {"name": "d", "image": "vote/web"}],
                "volumes": [{"name": "scratch"}, {"name": "c", "configMap": {"name": "x"}}],
            },
        });
        super::pod(&mut pod);
        let once = pod.clone();
        super::pod(&mut pod);
        assert_eq!(pod, once);
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["containers"][1]["imagePullPolicy"], "Always");
        assert_eq!(
            spec["containers"][0]["resources"]["requests"]["cpu"],
            "100m"
        );
        assert_eq!(spec["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(
            spec["containers"][0]["readinessProbe"]["httpGet"]["scheme"],
            "HTTP"
        );
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(pod["status"]["qosClass"], "Burstable");
    }

    #[test]
    fn event_spellings_are_inverse() {
        let stored = json!({
            "apiVersion": "v1", "kind": "Event", "message": "m", "reason": "r",
            "involvedObject": {"name": "p"}, "reportingComponent": "c", "count": 2,
        });
        let mut other = stored.clone();
        event_to_v1(&mut other);
        assert_eq!(other["regarding"]["name"], "p");
        assert_eq!(other["note"], "m");
        event_from_v1(&mut other);
        assert_eq!(other, stored);
    }

    #[test]
    fn string_data_is_folded() {
        let mut value = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        secret(&mut value);
        assert_eq!(
            value,
            json!({"data": {"a": "eQ==", "b": "eg=="}, "type": "Opaque"})
        );
    }
}
