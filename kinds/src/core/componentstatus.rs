//! The state of the control plane's parts, as it was told of before there were health checks. Made when it is read.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::lens::{items, text};
use crate::{Kind, Served};

pub static COMPONENT_STATUS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["cs".into()],
        namespaced: false,
        served: Served::Computed,
        columns: vec![
            Column::name(),
            Column::text("Status", status, "Whether it is healthy."),
            Column::text("Message", message, "What it says."),
            Column::text("Error", error, "Why it could not be asked."),
        ],
        deprecated: Some("v1 ComponentStatus is deprecated in v1.19+".into()),
        ..Kind::new("", "v1", "ComponentStatus", "componentstatuses")
    })
});

fn healthy<'a>(row: &Row<'a>, member: &str) -> Option<&'a str> {
    let conditions = items(row.object, "/conditions").iter();
    let mut healthy = conditions.filter(|condition| text(condition, "/type") == "Healthy");
    healthy.next().map(|condition| text(condition, member))
}

fn status(row: &Row<'_>) -> Value {
    match healthy(row, "/status") {
        None => "Unknown".into(),
        Some("True") => "Healthy".into(),
        Some(_) => "Unhealthy".into(),
    }
}

fn message(row: &Row<'_>) -> Value {
    healthy(row, "/message").unwrap_or("").into()
}

fn error(row: &Row<'_>) -> Value {
    healthy(row, "/error").unwrap_or("").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::cells;

    #[test]
    fn a_part_is_healthy_when_its_condition_says_so() {
        for (conditions, expected) in [
            (json!([]), ["Unknown", "", ""]),
            (
                json!([{"type": "Healthy", "status": "True", "message": "ok"}]),
                ["Healthy", "ok", ""],
            ),
            (
                json!([{"type": "Healthy", "status": "False", "error": "no leader"}]),
                ["Unhealthy", "", "no leader"],
            ),
        ] {
            let part = json!({"metadata": {"name": "etcd-0"}, "conditions": conditions});
            let [status, message, error] = expected;
            assert_eq!(
                json!(cells(&COMPONENT_STATUS, &part)),
                json!(["etcd-0", status, message, error])
            );
        }
    }
}
