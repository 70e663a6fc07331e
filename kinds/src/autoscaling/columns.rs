//! How autoscalers are shown.

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::lens::{integer, items, text};
use crate::quantity_of;

/// How many metrics a cell names before it says how many more there are.
const NAMED_IN_CELL: usize = 2;

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Reference", reference, "What is scaled."),
        Column::text("Targets", targets, "Each metric, and what it should be."),
        Column::text("MinPods", min_pods, "Fewest pods."),
        Column::text("MaxPods", max_pods, "Most pods."),
        Column::text("Replicas", replicas, "Pods there."),
        Column::age(),
    ]
}

fn reference(row: &Row<'_>) -> Value {
    let kind = text(row.object, "/spec/scaleTargetRef/kind");
    let name = text(row.object, "/spec/scaleTargetRef/name");
    format!("{kind}/{name}").into()
}

fn min_pods(row: &Row<'_>) -> Value {
    match integer(row.object, "/spec/minReplicas") {
        Some(count) => count.to_string(),
        None => "<unset>".to_owned(),
    }
    .into()
}

fn max_pods(row: &Row<'_>) -> Value {
    row.count("/spec/maxReplicas").into()
}

fn replicas(row: &Row<'_>) -> Value {
    row.count("/status/currentReplicas").into()
}

fn targets(row: &Row<'_>) -> Value {
    let metrics = items(row.object, "/spec/metrics");
    if metrics.is_empty() {
        return "<none>".into();
    }
    let statuses = items(row.object, "/status/currentMetrics");
    let shown = metrics.iter().enumerate().take(NAMED_IN_CELL);
    let shown: Vec<String> = shown
        .map(|(index, metric)| target(metric, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    let joined = shown.join(", ");
    match metrics.len().saturating_sub(NAMED_IN_CELL) {
        0 => joined,
        more => format!("{joined} + {more} more..."),
    }
    .into()
}

/// One metric as it is and as it should be; a status counts if it is of the same type.
fn target(metric: &Value, status: &Value) -> String {
    let (source, names_resource) = match text(metric, "/type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let empty = Value::Null;
    let of = |holder: &Value, what: &str, field: &str| {
        let value = holder.pointer(&format!("/{source}/{what}/{field}"));
        value.filter(|value| !value.is_null()).cloned()
    };
    let amount = |value: Option<Value>, absent: &str| {
        let value = value.unwrap_or_else(|| empty.clone());
        match quantity_of(&value) {
            Some(quantity) => quantity.to_string(),
            None => absent.to_owned(),
        }
    };
    let percent = |value: Option<Value>, absent: &str| match value.and_then(|v| v.as_i64()) {
        Some(percent) => format!("{percent}%"),
        None => absent.to_owned(),
    };
    const UNKNOWN: &str = "<unknown>";
    let shown = match of(metric, "target", "averageValue") {
        Some(wanted) => {
            let now = amount(of(status, "current", "averageValue"), UNKNOWN);
            let average = if matches!(source, "external" | "object") {
                " (avg)"
            } else {
                ""
            };
            format!("{now}/{}{average}", amount(Some(wanted), "0"))
        }
        None if names_resource => {
            let now = percent(of(status, "current", "averageUtilization"), UNKNOWN);
            let wanted = percent(of(metric, "target", "averageUtilization"), "<auto>");
            format!("{now}/{wanted}")
        }
        None => {
            let now = amount(of(status, "current", "value"), UNKNOWN);
            format!("{now}/{}", amount(of(metric, "target", "value"), "0"))
        }
    };
    match names_resource {
        true => format!("{}: {shown}", text(metric, &format!("/{source}/name"))),
        false => shown,
    }
}
