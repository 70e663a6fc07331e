//! GatewayClasses. Their defaults and constraints are those of their schema, but for one that needs the old object.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;
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
        strategy: Arc::new(GatewayClasses),
        ..super::custom("GatewayClass", "gatewayclasses")
    })
});

struct GatewayClasses;

impl Strategy for GatewayClasses {
    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        let controller = root.child("spec.controllerName");
        if controller.text() != before.child("spec.controllerName").text() {
            problems.invalid(&controller, controller.text(), "Value is immutable");
        }
    }
}

fn controller(row: &Row<'_>) -> Value {
    row.text_or("/spec/controllerName", "")
}

fn accepted(row: &Row<'_>) -> Value {
    row.condition("Accepted").unwrap_or("").into()
}

fn description(row: &Row<'_>) -> Value {
    row.text_or("/spec/description", "")
}
