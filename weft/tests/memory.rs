//! What a pod costs in the memory of the server that leads: what the controllers' view and placement keep of it, with the
//! allocator that the server has. A program of its own, as it reads the size of its whole process.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use weft::control_loop::placement::{self, Placement};
use weft_api::Object;
use weft_controllers::{CONTROLLERS, Change, Reads, View};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PODS_COUNT: usize = 10_000;
/// What is promised in ARCHITECTURE.md.
const BYTES_MAX: usize = 2_500;

/// Bytes of this process that are in memory and its own: pages of the program, which come in as it runs, are not what a pod costs.
fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes: usize = line.unwrap()["RssAnon:".len()..]
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes * 1024
}

/// A running pod of a Deployment, with all that the server and an agent write on it.
fn pod(number: usize) -> Object {
    let set = number / 50;
    let name = format!("checkout-{set}-7d4b9c6f5d-{number:05}");
    let uid = format!("0b5e3f5e-8a0c-4f6e-9f3e-{number:012}");
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": time,
            "observedGeneration": 1})
    };
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let address = format!("10.128.{}.{}", number / 250, number % 250 + 1);
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "generateName": format!("checkout-{set}-7d4b9c6f5d-"), "namespace": "shop",
            "uid": uid, "resourceVersion": (1000 + number).to_string(), "creationTimestamp": time, "generation": 1,
            "labels": {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/instance": format!("checkout-{set}"),
                "pod-template-hash": "7d4b9c6f5d"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("checkout-{set}-7d4b9c6f5d"),
                "uid": format!("1c5e3f5e-8a0c-4f6e-9f3e-{set:012}"), "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": format!("node-{:03}", number % 100), "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "checkout", "serviceAccount": "checkout", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority", "securityContext": {},
            "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
            "containers": [{
                "name": "main", "image": "registry.example.com/shop/checkout@sha256:8f6c9e5c0a1d2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "CATALOG_URL", "value": "http://catalog.shop.svc"}, {"name": "LOG", "value": "info"}],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "config", "mountPath": "/etc/checkout", "readOnly": true}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "checkout", "defaultMode": 420}}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.7", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": time, "qosClass": "Burstable", "observedGeneration": 1,
            "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"),
                condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [{"name": "main", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example.com/shop/checkout", "containerID": format!("wasm://{uid}"),
                "imageID": "registry.example.com/shop/checkout@sha256:8f6c9e5c0a1d2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4",
                "state": {"running": {"startedAt": time}}, "lastState": {}}],
        },
    }))
    .unwrap()
}

#[test]
fn a_pod_costs_the_leader_no_more_than_is_promised() {
    let readers = CONTROLLERS.iter().map(|controller| controller.reads);
    let mut view = View::new(readers.chain([placement::reads as fn(&mut Reads)]));
    let mut placement = Placement::new(1);
    let now = Timestamp::UNIX_EPOCH;
    let before = resident_bytes();
    for number in 0..PODS_COUNT {
        let touched = view
            .apply(
                Change::Upsert(Arc::clone(&weft_kinds::POD), pod(number)),
                now,
            )
            .unwrap();
        placement.notice(&touched);
    }
    let bytes = resident_bytes().saturating_sub(before) / PODS_COUNT;
    // What it would be with the published type and parsed metadata instead, and nothing beside them.
    let before = resident_bytes();
    let published: Vec<(weft_api::view::Pod, weft_api::Meta)> = (0..PODS_COUNT)
        .map(pod)
        .map(|pod| (pod.view().unwrap(), pod.meta()))
        .collect();
    let published_bytes = resident_bytes().saturating_sub(before) / published.len();
    println!(
        "{bytes} bytes a pod; the published type alone {published_bytes}; JSON {}",
        pod(1).to_bytes().len()
    );
    assert!(bytes <= BYTES_MAX, "{bytes} bytes a pod");
    drop((view, placement));
}
