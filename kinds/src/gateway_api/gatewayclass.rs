//! GatewayClasses. Their defaults, constraints and rules are those of their schema.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::{Kind, Subresource};

pub static GATEWAY_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["gc".into()],
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Controller", controller, "Who implements the class."),
            Column::text("Accepted", accepted, "Whether the controller took it."),
            Column::age(),
            Column::text("Description", description, "What the class is for.").wide(),
        ],
        ..super::custom("GatewayClass", "gatewayclasses")
    })
});

fn controller(row: &Row<'_>) -> Value {
    row.text_or("/spec/controllerName", "")
}

fn accepted(row: &Row<'_>) -> Value {
    row.condition("Accepted").unwrap_or("").into()
}

fn description(row: &Row<'_>) -> Value {
    row.text_or("/spec/description", "")
}
