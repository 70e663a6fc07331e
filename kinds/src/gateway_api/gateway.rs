//! Gateways. Their defaults, constraints and rules are those of their schema.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::lens::{items, text};
use crate::{Kind, Subresource};

pub static GATEWAY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["gtw".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Class", class, "Class of the gateway."),
            Column::text("Address", address, "Addresses of the gateway."),
            Column::text("Programmed", programmed, "Whether it serves."),
            Column::age(),
        ],
        ..super::custom("Gateway", "gateways")
    })
});

fn class(row: &Row<'_>) -> Value {
    row.text_or("/spec/gatewayClassName", "")
}

fn address(row: &Row<'_>) -> Value {
    items(row.object, "/status/addresses")
        .iter()
        .map(|address| text(address, "/value"))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

fn programmed(row: &Row<'_>) -> Value {
    row.condition("Programmed").unwrap_or("").into()
}
