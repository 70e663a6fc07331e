//! `weft why hpa/NAME`: why a target has the size that it has, in the words of its autoscaler's conditions.

use std::fmt::Write as _;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;
use weft_kinds::autoscaling::wake;

/// What is told of an autoscaler.
pub fn explain(autoscaler: &HorizontalPodAutoscaler) -> String {
    let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
    let spec = &autoscaler.spec;
    let target = &spec.scale_target_ref;
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let status = autoscaler.status.clone().unwrap_or_default();
    let mut text = format!(
        "{name} gives {} {} from {least} to {most} replicas: {} are there, {} are to be.\n",
        target.kind,
        target.name,
        status.current_replicas.unwrap_or(0),
        status.desired_replicas
    );
    let current = status.current_metrics.unwrap_or_default();
    for (number, metric) in spec.metrics.iter().flatten().enumerate() {
        let (what, wanted) = if let Some(pods) = &metric.pods {
            (format!("{} of each pod", pods.metric.name), &pods.target)
        } else if let Some(object) = &metric.object {
            let of = &object.described_object;
            let what = format!("{} of {} {}", object.metric.name, of.kind, of.name);
            (what, &object.target)
        } else if let Some(resource) = &metric.resource {
            (format!("{} of each pod", resource.name), &resource.target)
        } else if let Some(resource) = &metric.container_resource {
            let what = format!("{} of each container {}", resource.name, resource.container);
            (what, &resource.target)
        } else {
            continue;
        };
        let found = current.get(number).and_then(value_of);
        let found = found.map_or_else(|| "unknown".to_owned(), shown_value);
        let _ = writeln!(text, "  {what}: {found}, wanted {}", shown_target(wanted));
    }
    for condition in status.conditions.iter().flatten() {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let message = condition.message.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {} is {} ({reason}): {message}",
            condition.type_, condition.status
        );
    }
    let object = serde_json::to_value(autoscaler).unwrap_or(Value::Null);
    for service in wake::services(&object) {
        let woken = match wake::has_emptied(&object) {
            true => "a call brings it back",
            false => "once it has taken the last replica away, a call brings it back",
        };
        let _ = writeln!(text, "  Service {service}: {woken}");
    }
    text
}

fn value_of(status: &MetricStatus) -> Option<&MetricValueStatus> {
    let pods = status.pods.as_ref().map(|one| &one.current);
    let object = || status.object.as_ref().map(|one| &one.current);
    let resource = || status.resource.as_ref().map(|one| &one.current);
    let container = || status.container_resource.as_ref().map(|one| &one.current);
    pods.or_else(object).or_else(resource).or_else(container)
}

fn shown_value(found: &MetricValueStatus) -> String {
    shown(
        found.average_utilization,
        found.value.as_ref(),
        found.average_value.as_ref(),
    )
}

fn shown_target(wanted: &MetricTarget) -> String {
    shown(
        wanted.average_utilization,
        wanted.value.as_ref(),
        wanted.average_value.as_ref(),
    )
}

fn shown(percent: Option<i32>, whole: Option<&Quantity>, average: Option<&Quantity>) -> String {
    match (percent, whole, average) {
        (Some(percent), ..) => format!("{percent} % of what was asked for"),
        (None, Some(value), _) => value.0.clone(),
        (None, None, Some(value)) => format!("{} on average", value.0),
        (None, None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_autoscaler_tells_its_metrics_conditions_and_who_wakes_it() {
        let metric = |value: &str| {
            json!([{"type": "Object", "object": {
                "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
                "metric": {"name": "requests-in-flight"},
                "target": {"type": "Value", "value": "20"}, "current": {"value": value}}}])
        };
        let autoscaler = json!({
            "metadata": {"name": "web"},
            "spec": {
                "minReplicas": 0, "maxReplicas": 5, "metrics": metric("0"),
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            },
            "status": {
                "desiredReplicas": 0, "currentMetrics": metric("0"),
                "conditions": [{"type": "ScaledToZero", "status": "True", "reason": "ScaledToZero",
                    "message": "the HPA controller scaled the workload to zero"}],
            },
        });
        let autoscaler = serde_json::from_value(autoscaler).unwrap();
        insta::assert_snapshot!(explain(&autoscaler), @r"
        web gives Deployment web from 0 to 5 replicas: 0 are there, 0 are to be.
          requests-in-flight of Service web: 0, wanted 20
          ScaledToZero is True (ScaledToZero): the HPA controller scaled the workload to zero
          Service web: a call brings it back
        ");
    }
}
