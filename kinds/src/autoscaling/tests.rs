//! Each rule of autoscalers fires alone; the two spellings say the same.

use serde_json::{Value, json};

use super::*;
use crate::columns::{cells, shapes};
use crate::validate::told;

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    })
}

#[test]
fn what_is_left_out_is_filled_in() {
    let mut whole = autoscaler();
    whole["spec"]["behavior"] = json!({"scaleUp": {"stabilizationWindowSeconds": 5}, "scaleDown": {"selectPolicy": "Disabled"}});
    HORIZONTAL_POD_AUTOSCALER.strategy.default(&mut whole);
    assert_eq!(whole["spec"]["minReplicas"], 1);
    assert_eq!(whole["spec"]["metrics"], json!([utilization(80)]));
    assert_eq!(
        whole["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]},
            "scaleDown": {"selectPolicy": "Disabled", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]},
        })
    );
}

/// Who says that there are none is refused, and not given those that there are where none were named.
#[test]
fn policies_that_there_are_none_of_are_no_policies() {
    let mut whole = autoscaler();
    whole["apiVersion"] = "autoscaling/v2".into();
    whole["kind"] = "HorizontalPodAutoscaler".into();
    whole["spec"]["behavior"] = json!({"scaleUp": {"policies": []}, "scaleDown": {}});
    let read = crate::decode::value(&*HORIZONTAL_POD_AUTOSCALER, &whole).unwrap();
    assert_eq!(
        told::of_new(&HORIZONTAL_POD_AUTOSCALER, &read.value),
        ["spec.behavior.scaleUp.policies: Required value: must specify at least one Policy"]
    );
}

#[test]
fn each_rule_is_told_of_by_itself() {
    let reference = |kind: &str, name: &str, version: &str| json!({"kind": kind, "name": name, "apiVersion": version});
    let kinds =
        "supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"";
    let unsupported =
        |kind: &str| format!("spec.metrics[0].type: Unsupported value: {kind:?}: {kinds}");
    let (empty, other) = (unsupported(""), unsupported("X"));
    told::check(
        &HORIZONTAL_POD_AUTOSCALER,
        &autoscaler(),
        &[
            (
                "/spec/minReplicas",
                json!(0),
                &[
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                "/spec/minReplicas",
                json!(-1),
                &["spec.minReplicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/maxReplicas",
                json!(0),
                &[
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                    "spec.maxReplicas: Required value",
                ],
            ),
            (
                "/spec/maxReplicas",
                json!(-1),
                &[
                    "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
                    "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1",
                ],
            ),
            (
                "/spec/scaleTargetRef",
                json!({}),
                &[
                    "spec.scaleTargetRef.kind: Required value",
                    "spec.scaleTargetRef.name: Required value",
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
                ],
            ),
            (
                "/spec/scaleTargetRef",
                reference("a/b", "..", "apps/v1"),
                &[
                    "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
                    "spec.scaleTargetRef.name: Invalid value: \"..\": may not be '..'",
                ],
            ),
            (
                "/spec/scaleTargetRef",
                reference("D", "d", "a/b/c"),
                &[
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                ],
            ),
            (
                "/spec/scaleTargetRef",
                reference("ReplicationController", "d", "v1"),
                &[],
            ),
            (
                "/spec/metrics",
                json!([{"type": ""}]),
                &[
                    "spec.metrics[0].type: Required value: must specify a metric source type",
                    &empty,
                ],
            ),
            ("/spec/metrics", json!([{"type": "X"}]), &[&other]),
            (
                "/spec/metrics",
                json!([{"type": "Resource"}]),
                &[
                    "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "Resource", "resource": {"name": "", "target": {"type": "X", "averageUtilization": 0, "averageValue": "-1"}}}]),
                &[
                    "spec.metrics[0].resource.name: Required value: must specify a resource name",
                    "spec.metrics[0].resource.target.type: Invalid value: \"X\": must be either Utilization, Value, or AverageValue",
                    "spec.metrics[0].resource.target.averageValue: Invalid value: \"-1\": must be positive",
                    "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                    "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "Pods", "pods": {"metric": {"name": "a/b"}, "target": {"type": "AverageValue"}}}]),
                &[
                    "spec.metrics[0].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
                    "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1", "averageValue": "1"}}}]),
                &[
                    "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "Object", "object": {"describedObject": {"kind": "K", "name": "n"}, "metric": {"name": "m"}, "target": {"type": "Value"}}}]),
                &[
                    "spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "ContainerResource", "containerResource": {"name": "foo", "container": "a", "target": {"type": "Utilization", "averageUtilization": 5}}}]),
                &[
                    "spec.metrics[0].containerResource.name: Invalid value: \"foo\": must be a standard resource type or fully qualified",
                    "spec.metrics[0].containerResource.name: Invalid value: \"foo\": must be a standard resource for containers",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}},
                    "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]),
                &["spec.metrics[0].pods: Forbidden: must populate the given metric source only"],
            ),
            (
                "/spec/behavior",
                json!({"scaleUp": {"stabilizationWindowSeconds": -1, "selectPolicy": "X", "policies": [
                    {"type": "X", "value": 0, "periodSeconds": 0}, {"type": "Pods", "value": 1, "periodSeconds": 1801},
                ], "tolerance": "-1"}}),
                &[
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                    "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"X\": supported values: \"Disabled\", \"Max\", \"Min\"",
                    "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"X\": supported values: \"Percent\", \"Pods\"",
                    "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleUp.policies[1].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                    "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/behavior",
                json!({"scaleDown": {"stabilizationWindowSeconds": 3601, "policies": []}}),
                &[
                    "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                    "spec.behavior.scaleDown.policies: Required value: must specify at least one Policy",
                ],
            ),
        ],
    );
}

/// With every sort of metric, as kube-apiserver 1.37 stores it.
fn with_everything() -> Value {
    let described = json!({"kind": "K", "name": "n", "apiVersion": "a/v1"});
    let mut whole = autoscaler();
    whole["metadata"]["annotations"] = json!({"x": "y"});
    whole["spec"]["minReplicas"] = 2.into();
    whole["spec"]["metrics"] = json!([
        utilization(50),
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "5"}}},
        {"type": "Object", "object": {"describedObject": described, "metric": {"name": "m"}, "target": {"type": "Value", "value": "7"}}},
        {"type": "Object", "object": {"describedObject": described, "metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "7"}}},
        {"type": "External", "external": {"metric": {"name": "e"}, "target": {"type": "AverageValue", "averageValue": "7"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 30}}},
    ]);
    whole["spec"]["behavior"] = json!({
        "scaleUp": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
        "scaleDown": {"selectPolicy": "Disabled", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}], "tolerance": "100m"},
    });
    whole["status"] = json!({
        "currentReplicas": 1, "desiredReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "3"}}},
            {"type": "Object", "object": {"describedObject": described, "metric": {"name": "m"}, "current": {"value": "3"}}},
            {"type": "External", "external": {"metric": {"name": "e"}, "current": {"value": "0", "averageValue": "2"}}},
        ],
    });
    whole
}

#[test]
fn v1_has_what_it_has_no_fields_for_in_annotations() {
    let stored = with_everything();
    let mut spelled = stored.clone();
    v1::read(&mut spelled);
    assert_eq!(spelled["apiVersion"], "autoscaling/v1");
    assert_eq!(
        spelled["spec"],
        json!({"maxReplicas": 3, "minReplicas": 2, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}})
    );
    assert_eq!(
        spelled["status"],
        json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 40})
    );
    let annotations = spelled["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations["x"], "y");
    let said = |name: &str| -> Value {
        let key = format!("autoscaling.alpha.kubernetes.io/{name}");
        serde_json::from_str(annotations[&key].as_str().unwrap()).unwrap()
    };
    let target = json!({"kind": "K", "name": "n", "apiVersion": "a/v1"});
    assert_eq!(
        said("metrics"),
        json!([
            {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
            {"type": "Pods", "pods": {"metricName": "m", "targetAverageValue": "5", "selector": {"matchLabels": {"a": "b"}}}},
            {"type": "Object", "object": {"target": target, "metricName": "m", "targetValue": "7"}},
            {"type": "Object", "object": {"target": target, "metricName": "m", "targetValue": "0", "averageValue": "7"}},
            {"type": "External", "external": {"metricName": "e", "targetAverageValue": "7"}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "targetAverageUtilization": 30, "container": "c"}},
        ])
    );
    assert_eq!(
        said("behavior"),
        json!({
            "ScaleUp": {"StabilizationWindowSeconds": 5, "SelectPolicy": "Max", "Policies": [{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}], "Tolerance": null},
            "ScaleDown": {"StabilizationWindowSeconds": null, "SelectPolicy": "Disabled", "Policies": [{"Type": "Percent", "Value": 100, "PeriodSeconds": 15}], "Tolerance": "100m"},
        })
    );
    assert_eq!(
        said("current-metrics"),
        json!([
            {"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 40, "currentAverageValue": "100m"}},
            {"type": "Pods", "pods": {"metricName": "m", "currentAverageValue": "3"}},
            {"type": "Object", "object": {"target": target, "metricName": "m", "currentValue": "3"}},
            {"type": "External", "external": {"metricName": "e", "currentValue": "0", "currentAverageValue": "2"}},
        ])
    );
    assert_eq!(said("conditions"), stored["status"]["conditions"]);
    v1::write(&mut spelled);
    let mut expected = stored;
    // The one that has a field comes last.
    let metrics = expected["spec"]["metrics"].as_array_mut().unwrap();
    metrics.rotate_left(1);
    assert_eq!(spelled, expected);
}

#[test]
fn annotations_that_are_nothing_are_left_out() {
    let mut spelled = autoscaler();
    spelled["spec"]["targetCPUUtilizationPercentage"] = 30.into();
    spelled["metadata"]["annotations"] = json!({
        "autoscaling.alpha.kubernetes.io/metrics": "[{\"type\":\"Pods\",\"pods\":{\"metricName\":5}}]",
        "autoscaling.alpha.kubernetes.io/behavior": "no JSON",
        "autoscaling.alpha.kubernetes.io/conditions": "{}",
        "autoscaling.alpha.kubernetes.io/current-metrics": "[]",
    });
    v1::write(&mut spelled);
    assert_eq!(spelled["spec"]["metrics"], json!([utilization(30)]));
    assert_eq!(spelled["spec"].get("behavior"), None);
    assert_eq!(spelled["metadata"].get("annotations"), None);
}

#[test]
fn a_row_shows_each_metric_beside_its_target() {
    assert_eq!(
        shapes(&HORIZONTAL_POD_AUTOSCALER),
        [
            "Name: string/name",
            "Reference: string",
            "Targets: string",
            "MinPods: string",
            "MaxPods: string",
            "Replicas: string",
            "Age: string",
        ]
    );
    assert_eq!(
        cells(&HORIZONTAL_POD_AUTOSCALER, &with_everything()),
        [
            json!("web"),
            json!("Deployment/web"),
            json!("cpu: 40%/50%, memory: <unknown>/1Gi + 5 more..."),
            json!("2"),
            json!(3),
            json!(1),
            json!("10s"),
        ]
    );
    let targets = |metrics: Value, current: Value| {
        let mut shown = autoscaler();
        shown["spec"]["metrics"] = metrics;
        shown["status"] = json!({"currentMetrics": current});
        cells(&HORIZONTAL_POD_AUTOSCALER, &shown)[2].clone()
    };
    let all = with_everything();
    let (metrics, current) = (&all["spec"]["metrics"], &all["status"]["currentMetrics"]);
    for (metric, status, expected) in [
        (&metrics[2], &current[1], "3/5"),
        (&metrics[3], &current[2], "3/7"),
        (&metrics[4], &Value::Null, "<unknown>/7 (avg)"),
        (&metrics[5], &current[3], "2/7 (avg)"),
        (&metrics[6], &Value::Null, "cpu: <unknown>/30%"),
        (&json!({"type": "X"}), &Value::Null, "<unknown type>"),
    ] {
        assert_eq!(targets(json!([metric]), json!([status])), expected);
    }
    assert_eq!(targets(json!([]), json!([])), "<none>");
}
