//! The columns of pods, as Kubernetes' `printPod` computes them.

use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{Column, Row};
use crate::lens::{condition_is_true, flag, integer, items, text, time};

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Ready", ready, "Ready containers of all containers."),
        Column::text(
            "Status",
            status,
            "The aggregate status of the containers in this pod.",
        ),
        Column::text(
            "Restarts",
            restarts,
            "How often containers of this pod were restarted.",
        ),
        Column::age(),
        Column::text("IP", ip, "Address of the pod.").wide(),
        Column::text("Node", node, "Node the pod is bound to.").wide(),
        Column::text(
            "Nominated Node",
            nominated_node,
            "Node reserved for the pod by preemption.",
        )
        .wide(),
        Column::text(
            "Readiness Gates",
            readiness_gates,
            "Passed readiness gates of all.",
        )
        .wide(),
    ]
}

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

    if !initializing || condition_is_true(pod, "Initialized") {
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
            let ready = condition_is_true(pod, "Ready");
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

fn ready(row: &Row<'_>) -> Value {
    let summary = pod_summary(row.object);
    format!("{}/{}", summary.ready, summary.total).into()
}

fn status(row: &Row<'_>) -> Value {
    pod_summary(row.object).reason.into()
}

fn restarts(row: &Row<'_>) -> Value {
    let summary = pod_summary(row.object);
    match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, row.since(Some(last))).into()
        }
        _ => summary.restarts.to_string().into(),
    }
}

fn ip(row: &Row<'_>) -> Value {
    row.text_or("/status/podIP", "<none>")
}

fn node(row: &Row<'_>) -> Value {
    row.text_or("/spec/nodeName", "<none>")
}

fn nominated_node(row: &Row<'_>) -> Value {
    row.text_or("/status/nominatedNodeName", "<none>")
}

fn readiness_gates(row: &Row<'_>) -> Value {
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
        for (reported, metadata, expected) in table {
            let pod = json!({"metadata": metadata, "spec": spec, "status": reported});
            let row = Row {
                object: &pod,
                now: "2026-01-01T00:01:00Z".parse().unwrap(),
            };
            let cells = [ready(&row), status(&row), restarts(&row)];
            let line = cells
                .iter()
                .map(|cell| cell.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(" ");
            assert_eq!(line, expected, "{pod}");
        }
    }
}
