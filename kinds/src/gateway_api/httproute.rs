//! HTTPRoutes. Their defaults, constraints and rules are those of their schema.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::{Kind, Subresource};

pub static HTTP_ROUTE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Hostnames", hostnames, "Hosts the route answers for."),
            Column::age(),
        ],
        ..super::custom("HTTPRoute", "httproutes")
    })
});

fn hostnames(row: &Row<'_>) -> Value {
    // The published column is the array itself, which clients print as JSON.
    match row.object.pointer("/spec/hostnames") {
        Some(hostnames) => hostnames.to_string().into(),
        None => "".into(),
    }
}
