//! `autoscaling/v1`: the use of CPU in a field, and all that came later in annotations, as JSON that kubectl and others of before
//! read there.
//!
//! Invariants: what is written in one spelling and read in it again is the same; annotations that cannot be read are left out,
//! as Kubernetes leaves them out.

use serde_json::{Map, Value, json};

use super::{HORIZONTAL_POD_AUTOSCALER, utilization};
use crate::decode;
use crate::lens::{integer, items, member, object, put, text};
use crate::quantity_of;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Those that only one of the two spellings has; the last two are of a time before there was a field.
const OWN: [&str; 6] = [
    METRICS,
    BEHAVIOR,
    CURRENT_METRICS,
    CONDITIONS,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// Whether it is the metric that `v1` has a field for.
fn is_utilization(metric: &Value) -> bool {
    text(metric, "/type") == "Resource"
        && text(metric, "/resource/name") == "cpu"
        && integer(metric, "/resource/target/averageUtilization").is_some()
}

/// From what is stored.
pub(super) fn read(value: &mut Value) {
    value["apiVersion"] = "autoscaling/v1".into();
    let metrics = items(value, "/spec/metrics").to_vec();
    let percent = metrics.iter().find(|metric| is_utilization(metric));
    let percent = percent.and_then(|metric| integer(metric, "/resource/target/averageUtilization"));
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| !is_utilization(metric))
        .map(|metric| respelled(metric, source_to_v1))
        .collect();
    let current = items(value, "/status/currentMetrics").to_vec();
    let used = current.iter().rev().find_map(|metric| {
        let is_cpu = text(metric, "/type") == "Resource" && text(metric, "/resource/name") == "cpu";
        let used = integer(metric, "/resource/current/averageUtilization");
        used.filter(|_| is_cpu)
    });
    let current: Vec<Value> = current
        .iter()
        .map(|metric| respelled(metric, status_to_v1))
        .collect();
    let conditions = items(value, "/status/conditions").to_vec();
    let behavior = value.pointer("/spec/behavior").filter(|b| b.is_object());
    let behavior = behavior.map(go_behavior);

    let spec = member(value, "spec");
    put(spec, "metrics", None);
    put(spec, "behavior", None);
    put(
        spec,
        "targetCPUUtilizationPercentage",
        percent.map(Value::from),
    );
    let status = member(value, "status");
    put(status, "currentMetrics", None);
    put(status, "conditions", None);
    put(
        status,
        "currentCPUUtilizationPercentage",
        used.map(Value::from),
    );
    for field in ["currentReplicas", "desiredReplicas"] {
        crate::lens::fill(status, field, 0);
    }

    let list = |list: Vec<Value>| (!list.is_empty()).then(|| Value::from(list).to_string());
    let said = [
        (METRICS, list(others)),
        (CURRENT_METRICS, list(current)),
        (BEHAVIOR, behavior.map(|behavior| behavior.to_string())),
        (CONDITIONS, list(conditions)),
    ];
    drop_own(value);
    for (key, text) in said {
        if let Some(text) = text {
            let metadata = member(value, "metadata");
            member(metadata, "annotations")[key] = text.into();
        }
    }
}

/// To what is stored.
pub(super) fn write(value: &mut Value) {
    value["apiVersion"] = "autoscaling/v2".into();
    let said = |key: &str| -> Option<Value> {
        let text = object(value, "/metadata/annotations")?.get(key)?.as_str()?;
        serde_json::from_str(text).ok()
    };
    let percent = value.pointer("/spec/targetCPUUtilizationPercentage");
    let percent = percent.filter(|percent| !percent.is_null()).cloned();
    let field = percent.map(utilization);
    let others = said(METRICS).map(|metrics| list_of(&metrics, source_from_v1));
    let others = others.filter(|others| fits(json!({"spec": {"metrics": others}})));
    let metrics: Vec<Value> = others.into_iter().flatten().chain(field).collect();
    let behavior =
        said(BEHAVIOR).map(|behavior| with_first_letters(&behavior, char::to_ascii_lowercase));
    let behavior = behavior.map(without_nulls).filter(|behavior| {
        object(behavior, "").is_some_and(|map| !map.is_empty())
            && fits(json!({"spec": {"behavior": behavior}}))
    });
    let used = value.pointer("/status/currentCPUUtilizationPercentage");
    let used = used.filter(|used| !used.is_null()).map(|used| {
        let current = json!({"averageUtilization": used});
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}])
    });
    let current = said(CURRENT_METRICS).map(|metrics| list_of(&metrics, status_from_v1));
    let current = current.map(Value::from);
    let current = current.filter(|current| fits(json!({"status": {"currentMetrics": current}})));
    let conditions = said(CONDITIONS).filter(Value::is_array);
    let conditions =
        conditions.filter(|conditions| fits(json!({"status": {"conditions": conditions}})));

    let spec = member(value, "spec");
    put(spec, "targetCPUUtilizationPercentage", None);
    put(spec, "metrics", Some(metrics.into()));
    put(spec, "behavior", behavior);
    let status = member(value, "status");
    put(status, "currentCPUUtilizationPercentage", None);
    put(status, "currentMetrics", current.or(used));
    put(status, "conditions", conditions);
    drop_own(value);
}

fn drop_own(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata") else {
        return;
    };
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        for key in OWN {
            annotations.remove(key);
        }
        if annotations.is_empty() {
            put(metadata, "annotations", None);
        }
    }
}

/// Whether something made of an annotation is what the stored kind takes there.
fn fits(part: Value) -> bool {
    decode::value(&HORIZONTAL_POD_AUTOSCALER.gvk(), &part).is_ok()
}

fn list_of(list: &Value, convert: fn(&str, &Value) -> Value) -> Vec<Value> {
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    all.iter()
        .map(|metric| respelled(metric, convert))
        .collect()
}

/// A metric with its source, or its status, in the other spelling.
fn respelled(metric: &Value, convert: fn(&str, &Value) -> Value) -> Value {
    let mut out = Map::new();
    for (key, value) in metric.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "type" => value.clone(),
            source if value.is_object() => convert(source, value),
            _ => continue,
        };
        out.insert(key.clone(), value);
    }
    out.into()
}

/// A map of what there is of these.
fn made<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter();
    let there = fields.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(there.collect())
}

fn at(value: &Value, pointer: &str) -> Option<Value> {
    let found = value.pointer(pointer);
    found.filter(|found| !found.is_null()).cloned()
}

/// As a field that is always there: none is zero.
fn amount(value: Option<Value>) -> Option<Value> {
    Some(value.unwrap_or_else(|| "0".into()))
}

fn is_zero(value: &Value) -> bool {
    quantity_of(value).is_none_or(|quantity| quantity.is_zero())
}

fn source_to_v1(source: &str, value: &Value) -> Value {
    let target = |field: &str| at(value, &format!("/target/{field}"));
    let metric = |field: &str| at(value, &format!("/metric/{field}"));
    match source {
        "object" => made([
            ("target", at(value, "/describedObject")),
            ("metricName", metric("name")),
            ("targetValue", amount(target("value"))),
            ("selector", metric("selector")),
            ("averageValue", target("averageValue")),
        ]),
        "pods" => made([
            ("metricName", metric("name")),
            ("targetAverageValue", amount(target("averageValue"))),
            ("selector", metric("selector")),
        ]),
        "external" => made([
            ("metricName", metric("name")),
            ("metricSelector", metric("selector")),
            ("targetValue", target("value")),
            ("targetAverageValue", target("averageValue")),
        ]),
        _ => made([
            ("name", at(value, "/name")),
            ("targetAverageUtilization", target("averageUtilization")),
            ("targetAverageValue", target("averageValue")),
            ("container", at(value, "/container")),
        ]),
    }
}

fn source_from_v1(source: &str, value: &Value) -> Value {
    let get = |field: &str| at(value, &format!("/{field}"));
    let target = |kind: &str, value: Option<Value>, average: Option<Value>| {
        Some(made([
            ("type", Some(kind.into())),
            ("value", value),
            ("averageValue", average),
        ]))
    };
    let metric = |selector: &str| {
        Some(made([
            ("name", get("metricName")),
            ("selector", get(selector)),
        ]))
    };
    match source {
        "object" => {
            let (wanted, average) = (get("targetValue"), get("averageValue"));
            let target = match average {
                None => target("Value", amount(wanted), None),
                average => target("AverageValue", wanted.filter(|v| !is_zero(v)), average),
            };
            made([
                ("describedObject", get("target")),
                ("metric", metric("selector")),
                ("target", target),
            ])
        }
        "pods" => made([
            ("metric", metric("selector")),
            (
                "target",
                target("AverageValue", None, amount(get("targetAverageValue"))),
            ),
        ]),
        "external" => {
            let wanted = get("targetValue");
            let kind = match wanted {
                Some(_) => "Value",
                None => "AverageValue",
            };
            made([
                ("metric", metric("metricSelector")),
                ("target", target(kind, wanted, get("targetAverageValue"))),
            ])
        }
        _ => {
            let percent = get("targetAverageUtilization");
            let kind = match percent {
                Some(_) => "Utilization",
                None => "AverageValue",
            };
            let target = made([
                ("type", Some(kind.into())),
                ("averageValue", get("targetAverageValue")),
                ("averageUtilization", percent),
            ]);
            made([
                ("name", get("name")),
                ("container", get("container")),
                ("target", Some(target)),
            ])
        }
    }
}

fn status_to_v1(source: &str, value: &Value) -> Value {
    let current = |field: &str| at(value, &format!("/current/{field}"));
    let metric = |field: &str| at(value, &format!("/metric/{field}"));
    match source {
        "object" => made([
            ("target", at(value, "/describedObject")),
            ("metricName", metric("name")),
            ("currentValue", amount(current("value"))),
            ("selector", metric("selector")),
            ("averageValue", current("averageValue")),
        ]),
        "pods" => made([
            ("metricName", metric("name")),
            ("currentAverageValue", amount(current("averageValue"))),
            ("selector", metric("selector")),
        ]),
        "external" => made([
            ("metricName", metric("name")),
            ("metricSelector", metric("selector")),
            ("currentValue", amount(current("value"))),
            ("currentAverageValue", current("averageValue")),
        ]),
        _ => made([
            ("name", at(value, "/name")),
            ("currentAverageUtilization", current("averageUtilization")),
            ("currentAverageValue", amount(current("averageValue"))),
            ("container", at(value, "/container")),
        ]),
    }
}

fn status_from_v1(source: &str, value: &Value) -> Value {
    let get = |field: &str| at(value, &format!("/{field}"));
    let current = |value: Option<Value>, average: Option<Value>, percent: Option<Value>| {
        Some(made([
            ("value", value),
            ("averageValue", average),
            ("averageUtilization", percent),
        ]))
    };
    let metric = |selector: &str| {
        Some(made([
            ("name", get("metricName")),
            ("selector", get(selector)),
        ]))
    };
    match source {
        "object" => made([
            ("describedObject", get("target")),
            ("metric", metric("selector")),
            (
                "current",
                current(amount(get("currentValue")), get("averageValue"), None),
            ),
        ]),
        "pods" => made([
            ("metric", metric("selector")),
            (
                "current",
                current(None, amount(get("currentAverageValue")), None),
            ),
        ]),
        "external" => made([
            ("metric", metric("metricSelector")),
            (
                "current",
                current(
                    amount(get("currentValue")),
                    get("currentAverageValue"),
                    None,
                ),
            ),
        ]),
        _ => made([
            ("name", get("name")),
            ("container", get("container")),
            (
                "current",
                current(
                    None,
                    amount(get("currentAverageValue")),
                    get("currentAverageUtilization"),
                ),
            ),
        ]),
    }
}

/// Rules of scaling as the annotation has them: with the names of Go's fields, and all of them.
fn go_behavior(behavior: &Value) -> Value {
    let rules = |direction: &str| {
        let rules = behavior.get(direction).filter(|rules| rules.is_object());
        rules.map_or(Value::Null, |rules| {
            let get = |field: &str| rules.get(field).cloned().unwrap_or_default();
            let policies = get("policies");
            json!({
                "StabilizationWindowSeconds": get("stabilizationWindowSeconds"),
                "SelectPolicy": get("selectPolicy"),
                "Policies": with_first_letters(&policies, char::to_ascii_uppercase),
                "Tolerance": get("tolerance"),
            })
        })
    };
    json!({"ScaleUp": rules("scaleUp"), "ScaleDown": rules("scaleDown")})
}

/// Each member under its name with another first letter: Go reads both.
fn with_first_letters(value: &Value, letter: fn(&char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| {
                let mut rest = key.chars();
                let first = rest.next().map(|first| letter(&first));
                let key: String = first.into_iter().chain(rest).collect();
                (key, with_first_letters(value, letter))
            });
            Value::Object(members.collect())
        }
        Value::Array(list) => list
            .iter()
            .map(|value| with_first_letters(value, letter))
            .collect(),
        other => other.clone(),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let there = map.into_iter().filter(|(_, value)| !value.is_null());
            let there = there.map(|(key, value)| (key, without_nulls(value)));
            Value::Object(there.collect())
        }
        other => other,
    }
}
