//! What Kubernetes fills in of a pod, and of a pod template.

use std::str::FromStr;

use serde_json::{Value, json};
use weft_api::image::ImageReference;

use crate::lens::{fill, items, items_mut, member, object, put, text};
use crate::quantity_of;

pub(super) fn pod(value: &mut Value) {
    // One without a spec has an empty one, so that what it lacks is told of and nothing else.
    let spec = member(value, "spec");
    fill(spec, "enableServiceLinks", true);
    default_spec(spec);
    if spec["hostNetwork"] == true {
        ports_become_the_hosts(spec);
    }
    limits_become_requests(spec);
    let class = qos_class(value);
    let status = member(value, "status");
    fill(status, "qosClass", class);
}

/// A new pod that names no account has its namespace's. The server gives it that, so that it is nobody's field.
pub(super) fn service_account(spec: &mut Value) {
    if text(spec, "/serviceAccountName").is_empty() {
        spec["serviceAccountName"] = "default".into();
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
}

/// Defaults shared by pods and pod templates.
pub(crate) fn default_spec(spec: &mut Value) {
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    // Two names for one thing; the older counts where it stands alone.
    if text(spec, "/serviceAccountName").is_empty() && !text(spec, "/serviceAccount").is_empty() {
        spec["serviceAccountName"] = spec["serviceAccount"].clone();
    }
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
    let policy = pull_policy(text(container, "/image"));
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

fn pull_policy(image: &str) -> &'static str {
    match ImageReference::from_str(image) {
        Ok(image) if image.is_latest() => "Always",
        _ => "IfNotPresent",
    }
}

fn http_get(handler: &mut Value) {
    if let Some(request) = handler.get_mut("httpGet") {
        fill(request, "path", "/");
        fill(request, "scheme", "HTTP");
    }
}

/// How long a projected token lives.
const TOKEN_SECONDS: i64 = 3600;

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
    if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
        let policy = pull_policy(text(image, "/reference"));
        fill(image, "pullPolicy", policy);
    }
    if let Some(path) = volume.get_mut("hostPath") {
        fill(path, "type", "");
    }
    downward_items(volume, "/downwardAPI/items");
    for source in items_mut(volume, "/projected/sources") {
        downward_items(source, "/downwardAPI/items");
        if let Some(token) = source.get_mut("serviceAccountToken") {
            fill(token, "expirationSeconds", TOKEN_SECONDS);
        }
    }
    // Volumes of a cloud or a storage cluster have their defaults, whatever may mount them.
    for (source, defaults) in [
        ("iscsi", json!({"iscsiInterface": "default"})),
        (
            "rbd",
            json!({"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}),
        ),
        (
            "azureDisk",
            json!({"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": false}),
        ),
        (
            "scaleIO",
            json!({"storageMode": "ThinProvisioned", "fsType": "xfs"}),
        ),
    ] {
        if let Some(source) = volume.get_mut(source) {
            for (field, default) in defaults.as_object().into_iter().flatten() {
                fill(source, field, default.clone());
            }
        }
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        fill(claim, "volumeMode", "Filesystem");
    }
}

fn downward_items(holder: &mut Value, pointer: &str) {
    for item in items_mut(holder, pointer) {
        if let Some(reference) = item.get_mut("fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
    }
}

/// On the node's network a container's port is the node's.
fn ports_become_the_hosts(spec: &mut Value) {
    for list in ["/containers", "/initContainers"] {
        for container in items_mut(spec, list) {
            for port in items_mut(container, "/ports") {
                if port
                    .get("hostPort")
                    .is_none_or(|it| it == 0 || it.is_null())
                {
                    let own = port.get("containerPort").cloned();
                    put(port, "hostPort", own);
                }
            }
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
pub(crate) fn qos_class(pod: &Value) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_the_nodes_network_is_the_nodes() {
        let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i",
            "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]}]}});
        super::pod(&mut pod);
        let ports = items(&pod, "/spec/containers/0/ports").iter();
        let host: Vec<&Value> = ports.map(|port| &port["hostPort"]).collect();
        assert_eq!(host, [80, 81]);
        let mut template =
            json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]});
        default_spec(&mut template);
        assert_eq!(template["containers"][0]["ports"][0].get("hostPort"), None);
    }

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
                "volumes": [{"name": "scratch"}, {"name": "i", "image": {"reference": "data:1"}}, {"name": "c", "configMap": {"name": "x"}}, {"name": "p", "projected": {"sources": [
                    {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    {"serviceAccountToken": {"path": "t"}},
                ]}}],
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
        assert_eq!(spec["volumes"][1]["image"]["pullPolicy"], "IfNotPresent");
        assert_eq!(spec["volumes"][2]["configMap"]["defaultMode"], 420);
        let sources = &spec["volumes"][3]["projected"]["sources"];
        let reference = &sources[0]["downwardAPI"]["items"][0]["fieldRef"];
        assert_eq!(reference["apiVersion"], "v1");
        assert_eq!(sources[1]["serviceAccountToken"]["expirationSeconds"], 3600);
        assert_eq!(pod["status"]["qosClass"], "Burstable");
    }
}
