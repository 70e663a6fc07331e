//! The cells of Table output: what `kubectl get` prints for each kind.
//!
//! Each function reads one stored object and the time of the request. The texts are those of Kubernetes'
//! `pkg/printers/internalversion/printers.go`; `<none>`, `<unknown>` and `<unset>` are part of them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::lens::{flag, integer, items, object, text, time};

/// What a cell may look at.
pub struct Row<'a> {
    pub object: &'a Value,
    pub now: Timestamp,
}

impl Row<'_> {
    fn since(&self, then: Option<Timestamp>) -> String {
        then.map_or_else(
            || "<unknown>".to_owned(),
            |then| {
                let elapsed = Duration::try_from(self.now.duration_since(then)).unwrap_or_default();
                weft_api::time::short_duration(elapsed)
            },
        )
    }

    fn text_or(&self, pointer: &str, absent: &str) -> Value {
        let found = text(self.object, pointer);
        Value::from(if found.is_empty() { absent } else { found })
    }

    fn count(&self, pointer: &str) -> i64 {
        integer(self.object, pointer).unwrap_or(0)
    }

    fn condition(&self, kind: &str) -> Option<&str> {
        items(self.object, "/status/conditions")
            .iter()
            .find(|condition| text(condition, "/type") == kind)
            .map(|condition| text(condition, "/status"))
    }
}

fn or_none(joined: String) -> Value {
    Value::from(if joined.is_empty() {
        "<none>".to_owned()
    } else {
        joined
    })
}

fn labels_text(value: &Value, pointer: &str) -> String {
    let Some(labels) = object(value, pointer) else {
        return String::new();
    };
    labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect::<Vec<_>>()
        .join(",")
}

pub fn name(row: &Row<'_>) -> Value {
    row.text_or("/metadata/name", "")
}

pub fn age(row: &Row<'_>) -> Value {
    row.since(time(row.object, "/metadata/creationTimestamp"))
        .into()
}

pub fn phase(row: &Row<'_>) -> Value {
    row.text_or("/status/phase", "")
}

// Nodes

pub fn node_status(row: &Row<'_>) -> Value {
    let mut status = match row.condition("Ready") {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(row.object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

pub fn node_roles(row: &Row<'_>) -> Value {
    let roles: Vec<&str> = object(row.object, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    or_none(roles.join(","))
}

pub fn node_version(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/kubeletVersion", "<unknown>")
}

fn node_address(row: &Row<'_>, kind: &str) -> Value {
    let found = items(row.object, "/status/addresses")
        .iter()
        .find(|address| text(address, "/type") == kind)
        .map_or("", |address| text(address, "/address"));
    or_none(found.to_owned())
}

pub fn node_internal_ip(row: &Row<'_>) -> Value {
    node_address(row, "InternalIP")
}

pub fn node_external_ip(row: &Row<'_>) -> Value {
    node_address(row, "ExternalIP")
}

pub fn node_os_image(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/osImage", "<unknown>")
}

pub fn node_kernel(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/kernelVersion", "<unknown>")
}

pub fn node_runtime(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>")
}

// Pods

/// What the four pod columns need, computed as Kubernetes' `printPod` does.
struct PodSummary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn pod_summary(pod: &Value) -> PodSummary {
    let inits = items(pod, "/spec/initContainers");
    let restartable = |name: &str| {
        inits.iter().any(|container| {
            text(container, "/name") == name && text(container, "/restartPolicy") == "Always"
        })
    };
    let mut total = items(pod, "/spec/containers").len();
    total += inits
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always")
        .count();

    let phase = text(pod, "/status/phase");
    let mut reason = match text(pod, "/status/reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let conditions = items(pod, "/status/conditions");
    if conditions.iter().any(|condition| {
        text(condition, "/type") == "PodScheduled"
            && text(condition, "/reason") == "SchedulingGated"
    }) {
        reason = "SchedulingGated".to_owned();
    }

    let mut summary = PodSummary {
        reason,
        ready: 0,
        total,
        restarts: 0,
        last_restart: None,
    };
    let mut sidecar_restarts = 0;
    let mut initializing = false;
    for (index, status) in items(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let restarts = integer(status, "/restartCount").unwrap_or(0);
        summary.restarts += restarts;
        summary.last_restart = summary
            .last_restart
            .max(time(status, "/lastState/terminated/finishedAt"));
        let sidecar = restartable(text(status, "/name"));
        if sidecar {
            sidecar_restarts += restarts;
        }
        let terminated = status.pointer("/state/terminated");
        let waiting = text(status, "/state/waiting/reason");
        if let Some(terminated) = terminated {
            if integer(terminated, "/exitCode") == Some(0) {
                continue;
            }
            summary.reason = format!("Init:{}", exit_text(terminated));
        } else if sidecar && flag(status, "/started") {
            if flag(status, "/ready") {
                summary.ready += 1;
            }
            continue;
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            summary.reason = format!("Init:{waiting}");
        } else {
            summary.reason = format!("Init:{index}/{}", inits.len());
        }
        initializing = true;
        break;
    }

    if !initializing || crate::lens::condition_is_true(pod, "Initialized") {
        summary.restarts = sidecar_restarts;
        let mut has_running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            summary.restarts += integer(status, "/restartCount").unwrap_or(0);
            summary.last_restart = summary
                .last_restart
                .max(time(status, "/lastState/terminated/finishedAt"));
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                summary.reason = waiting.to_owned();
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                summary.reason = exit_text(terminated);
            } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
                has_running = true;
                summary.ready += 1;
            }
        }
        if summary.reason == "Completed" && has_running {
            let ready = crate::lens::condition_is_true(pod, "Ready");
            summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        if text(pod, "/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn exit_text(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match integer(terminated, "/signal") {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", integer(terminated, "/exitCode").unwrap_or(0)),
    }
}

pub fn pod_ready(row: &Row<'_>) -> Value {
    let summary = pod_summary(row.object);
    format!("{}/{}", summary.ready, summary.total).into()
}

pub fn pod_status(row: &Row<'_>) -> Value {
    pod_summary(row.object).reason.into()
}

pub fn pod_restarts(row: &Row<'_>) -> Value {
    let summary = pod_summary(row.object);
    match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, row.since(Some(last))).into()
        }
        _ => summary.restarts.to_string().into(),
    }
}

pub fn pod_ip(row: &Row<'_>) -> Value {
    row.text_or("/status/podIP", "<none>")
}

pub fn pod_node(row: &Row<'_>) -> Value {
    row.text_or("/spec/nodeName", "<none>")
}

pub fn pod_nominated_node(row: &Row<'_>) -> Value {
    row.text_or("/status/nominatedNodeName", "<none>")
}

pub fn pod_readiness_gates(row: &Row<'_>) -> Value {
    let gates = items(row.object, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let passed = gates
        .iter()
        .filter(|gate| row.condition(text(gate, "/conditionType")) == Some("True"))
        .count();
    format!("{passed}/{}", gates.len()).into()
}

// Services

pub fn service_type(row: &Row<'_>) -> Value {
    row.text_or("/spec/type", "ClusterIP")
}

pub fn service_cluster_ip(row: &Row<'_>) -> Value {
    row.text_or("/spec/clusterIP", "<none>")
}

pub fn service_external_ip(row: &Row<'_>) -> Value {
    let mut addresses: Vec<&str> = items(row.object, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| match text(ingress, "/ip") {
            "" => text(ingress, "/hostname"),
            ip => ip,
        })
        .collect();
    addresses.extend(
        items(row.object, "/spec/externalIPs")
            .iter()
            .filter_map(Value::as_str),
    );
    match text(row.object, "/spec/type") {
        "ExternalName" => row.text_or("/spec/externalName", "<none>"),
        "LoadBalancer" if addresses.is_empty() => "<pending>".into(),
        _ => or_none(addresses.join(",")),
    }
}

pub fn service_ports(row: &Row<'_>) -> Value {
    let ports = items(row.object, "/spec/ports")
        .iter()
        .map(|port| {
            let number = integer(port, "/port").unwrap_or(0);
            let protocol = text(port, "/protocol");
            match integer(port, "/nodePort") {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect::<Vec<_>>();
    or_none(ports.join(","))
}

pub fn service_selector(row: &Row<'_>) -> Value {
    or_none(labels_text(row.object, "/spec/selector"))
}

// EndpointSlices

/// How many endpoints or ports a cell names before it says how many more there are.
const NAMED_IN_CELL: usize = 3;

fn some_of(mut all: Vec<String>) -> Value {
    let more = all.len().saturating_sub(NAMED_IN_CELL);
    all.truncate(NAMED_IN_CELL);
    let joined = all.join(",");
    if more > 0 {
        return format!("{joined} + {more} more...").into();
    }
    Value::from(if joined.is_empty() {
        "<unset>".to_owned()
    } else {
        joined
    })
}

pub fn slice_address_type(row: &Row<'_>) -> Value {
    row.text_or("/addressType", "")
}

pub fn slice_ports(row: &Row<'_>) -> Value {
    let ports = items(row.object, "/ports")
        .iter()
        .map(|port| match integer(port, "/port") {
            Some(number) => number.to_string(),
            None => text(port, "/name").to_owned(),
        })
        .collect();
    some_of(ports)
}

pub fn slice_endpoints(row: &Row<'_>) -> Value {
    let addresses = items(row.object, "/endpoints")
        .iter()
        .flat_map(|endpoint| items(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    some_of(addresses)
}

// ConfigMaps, Secrets, ServiceAccounts

fn entries(row: &Row<'_>, pointers: &[&str]) -> Value {
    let count: usize = pointers
        .iter()
        .filter_map(|pointer| object(row.object, pointer))
        .map(serde_json::Map::len)
        .sum();
    count.into()
}

pub fn config_map_data(row: &Row<'_>) -> Value {
    entries(row, &["/data", "/binaryData"])
}

pub fn secret_type(row: &Row<'_>) -> Value {
    row.text_or("/type", "")
}

pub fn secret_data(row: &Row<'_>) -> Value {
    entries(row, &["/data"])
}

pub fn service_account_secrets(row: &Row<'_>) -> Value {
    items(row.object, "/secrets").len().into()
}

// Events

fn event_first(row: &Row<'_>) -> Option<Timestamp> {
    time(row.object, "/firstTimestamp").or_else(|| time(row.object, "/eventTime"))
}

fn event_last(row: &Row<'_>) -> Option<Timestamp> {
    time(row.object, "/series/lastObservedTime")
        .or_else(|| time(row.object, "/lastTimestamp"))
        .or_else(|| event_first(row))
}

pub fn event_last_seen(row: &Row<'_>) -> Value {
    row.since(event_last(row)).into()
}

pub fn event_first_seen(row: &Row<'_>) -> Value {
    row.since(event_first(row)).into()
}

pub fn event_type(row: &Row<'_>) -> Value {
    row.text_or("/type", "")
}

pub fn event_reason(row: &Row<'_>) -> Value {
    row.text_or("/reason", "")
}

pub fn event_object(row: &Row<'_>) -> Value {
    let kind = text(row.object, "/involvedObject/kind").to_lowercase();
    let name = text(row.object, "/involvedObject/name");
    if name.is_empty() {
        kind.into()
    } else {
        format!("{kind}/{name}").into()
    }
}

pub fn event_subobject(row: &Row<'_>) -> Value {
    row.text_or("/involvedObject/fieldPath", "")
}

pub fn event_source(row: &Row<'_>) -> Value {
    let component = match text(row.object, "/source/component") {
        "" => text(row.object, "/reportingComponent"),
        component => component,
    };
    let host = match text(row.object, "/source/host") {
        "" => text(row.object, "/reportingInstance"),
        host => host,
    };
    if host.is_empty() {
        component.into()
    } else {
        format!("{component}, {host}").into()
    }
}

pub fn event_message(row: &Row<'_>) -> Value {
    text(row.object, "/message").trim().into()
}

pub fn event_count(row: &Row<'_>) -> Value {
    integer(row.object, "/series/count")
        .or_else(|| integer(row.object, "/count"))
        .unwrap_or(1)
        .to_string()
        .into()
}

// Leases and workloads

pub fn lease_holder(row: &Row<'_>) -> Value {
    row.text_or("/spec/holderIdentity", "")
}

pub fn deployment_ready(row: &Row<'_>) -> Value {
    format!(
        "{}/{}",
        row.count("/status/readyReplicas"),
        row.count("/spec/replicas")
    )
    .into()
}

pub fn deployment_up_to_date(row: &Row<'_>) -> Value {
    row.count("/status/updatedReplicas").to_string().into()
}

pub fn deployment_available(row: &Row<'_>) -> Value {
    row.count("/status/availableReplicas").to_string().into()
}

pub fn replica_set_desired(row: &Row<'_>) -> Value {
    row.count("/spec/replicas").into()
}

pub fn replica_set_current(row: &Row<'_>) -> Value {
    row.count("/status/replicas").into()
}

pub fn replica_set_ready(row: &Row<'_>) -> Value {
    row.count("/status/readyReplicas").into()
}

fn of_containers(row: &Row<'_>, pointer: &str) -> Value {
    items(row.object, "/spec/template/spec/containers")
        .iter()
        .map(|container| text(container, pointer))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

pub fn template_containers(row: &Row<'_>) -> Value {
    of_containers(row, "/name")
}

pub fn template_images(row: &Row<'_>) -> Value {
    of_containers(row, "/image")
}

pub fn workload_selector(row: &Row<'_>) -> Value {
    let mut parts = Vec::new();
    let labels = labels_text(row.object, "/spec/selector/matchLabels");
    if !labels.is_empty() {
        parts.push(labels);
    }
    for expression in items(row.object, "/spec/selector/matchExpressions") {
        let key = text(expression, "/key");
        let values = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    or_none(parts.join(","))
}

// Gateway API

pub fn route_hostnames(row: &Row<'_>) -> Value {
    // The published column is the array itself, which clients print as JSON.
    match row.object.pointer("/spec/hostnames") {
        Some(hostnames) => hostnames.to_string().into(),
        None => "".into(),
    }
}

pub fn gateway_class(row: &Row<'_>) -> Value {
    row.text_or("/spec/gatewayClassName", "")
}

pub fn gateway_address(row: &Row<'_>) -> Value {
    items(row.object, "/status/addresses")
        .iter()
        .map(|address| text(address, "/value"))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

pub fn gateway_programmed(row: &Row<'_>) -> Value {
    row.condition("Programmed").unwrap_or("").into()
}

pub fn class_controller(row: &Row<'_>) -> Value {
    row.text_or("/spec/controllerName", "")
}

pub fn class_accepted(row: &Row<'_>) -> Value {
    row.condition("Accepted").unwrap_or("").into()
}

pub fn class_description(row: &Row<'_>) -> Value {
    row.text_or("/spec/description", "")
}

// Certificate signing requests

pub fn csr_signer(row: &Row<'_>) -> Value {
    row.text_or("/spec/signerName", "<none>")
}

pub fn csr_requestor(row: &Row<'_>) -> Value {
    row.text_or("/spec/username", "")
}

pub fn csr_duration(row: &Row<'_>) -> Value {
    match integer(row.object, "/spec/expirationSeconds") {
        Some(seconds) => {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            weft_api::time::short_duration(Duration::from_secs(seconds)).into()
        }
        None => "<none>".into(),
    }
}

pub fn csr_condition(row: &Row<'_>) -> Value {
    let mut condition = if row.condition("Approved").is_some() {
        "Approved".to_owned()
    } else if row.condition("Denied").is_some() {
        "Denied".to_owned()
    } else {
        "Pending".to_owned()
    };
    if row.condition("Failed").is_some() {
        condition.push_str(",Failed");
    }
    if !text(row.object, "/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    condition.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_cells_follow_printpod() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = |ready: bool| json!({"ready": ready, "state": {"running": {}}});
        let table = [
            (json!({"phase": "Pending"}), json!({}), "0/2 Pending 0"),
            (
                json!({"phase": "Running", "containerStatuses": [running(true), running(false)]}),
                json!({}),
                "1/2 Running 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                     "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}},
                    running(true)]}),
                json!({}),
                "1/2 CrashLoopBackOff 3 (60s ago)",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                "0/2 Completed 0",
            ),
            (
                json!({"phase": "Running"}),
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                "0/2 Terminating 0",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 7}}}]}),
                json!({}),
                "0/2 ExitCode:7 0",
            ),
        ];
        for (status, metadata, expected) in table {
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            let row = Row {
                object: &pod,
                now: "2026-01-01T00:01:00Z".parse().unwrap(),
            };
            let cells = [pod_ready(&row), pod_status(&row), pod_restarts(&row)];
            let line = cells
                .iter()
                .map(|cell| cell.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(" ");
            assert_eq!(line, expected, "{pod}");
        }
    }
}
