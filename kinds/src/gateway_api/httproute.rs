//! HTTPRoutes. Their defaults and constraints are those of their schema, but for some that need an expression.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static HTTP_ROUTE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Hostnames", hostnames, "Hosts the route answers for."),
            Column::age(),
        ],
        strategy: Arc::new(HttpRoutes),
        ..super::custom("HTTPRoute", "httproutes")
    })
});

struct HttpRoutes;

impl Strategy for HttpRoutes {
    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        for rule in root.items("spec.rules") {
            for condition in rule.items("matches") {
                let path = condition.child("path");
                let (kind, value) = (path.child("type").text(), path.child("value").text());
                if matches!(kind, "Exact" | "PathPrefix") && !value.starts_with('/') {
                    problems.broken(
                        &path,
                        "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
                    );
                }
            }
            for backend in rule.items("backendRefs") {
                let is_service = backend.child("kind").text() == "Service"
                    && backend.child("group").text().is_empty();
                if is_service && !backend.child("port").is_set() {
                    problems.broken(&backend, "Must have port for Service reference");
                }
            }
        }
    }
}

fn hostnames(row: &Row<'_>) -> Value {
    // The published column is the array itself, which clients print as JSON.
    match row.object.pointer("/spec/hostnames") {
        Some(hostnames) => hostnames.to_string().into(),
        None => "".into(),
    }
}
