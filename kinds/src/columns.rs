//! Cells of Table output that several kinds share, and how a column is said. Those of one kind are in its file.
//!
//! A cell reads one stored object and the time of the request. The texts are those of Kubernetes'
//! `pkg/printers/internalversion/printers.go`; `<none>`, `<unknown>` and `<unset>` are part of them.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::Name;
use crate::lens::{integer, items, object, text, time};

/// A column of Table output.
pub struct Column {
    pub name: Name,
    /// OpenAPI type of the cell: `string`, `integer`, `date`.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: Name,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    pub cell: Box<dyn Fn(&Row<'_>) -> Value + Send + Sync>,
}

impl Column {
    fn new(
        name: &'static str,
        kind: &'static str,
        cell: fn(&Row<'_>) -> Value,
        description: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            format: "",
            description: description.into(),
            priority: 0,
            cell: Box::new(cell),
        }
    }

    pub(crate) fn text(
        name: &'static str,
        cell: fn(&Row<'_>) -> Value,
        description: &'static str,
    ) -> Self {
        Self::new(name, "string", cell, description)
    }

    pub(crate) fn integer(
        name: &'static str,
        cell: fn(&Row<'_>) -> Value,
        description: &'static str,
    ) -> Self {
        Self::new(name, "integer", cell, description)
    }

    /// The name, which clients know by its format.
    pub(crate) fn name() -> Self {
        Self {
            format: "name",
            ..Self::text("Name", name, "Name must be unique within a namespace.")
        }
    }

    pub(crate) fn age() -> Self {
        Self::text("Age", age, "Time since the object was created.")
    }

    /// Shown with `-o wide` only.
    pub(crate) fn wide(self) -> Self {
        Self {
            priority: 1,
            ..self
        }
    }
}

/// The columns of kinds that have none of their own.
pub(crate) fn name_and_age() -> Vec<Column> {
    vec![Column::name(), Column::age()]
}

/// The columns of a Scale, which the workloads' `scale` subresource shows.
pub fn of_scale() -> &'static [Column] {
    static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
        vec![
            Column::name(),
            Column::integer("Desired", desired_replicas, "Pods wanted."),
            Column::integer("Available", current_replicas, "Pods there."),
            Column::age(),
        ]
    });
    &COLUMNS
}

/// What a cell may look at.
pub struct Row<'a> {
    pub object: &'a Value,
    pub now: Timestamp,
}

impl Row<'_> {
    pub(crate) fn since(&self, then: Option<Timestamp>) -> String {
        then.map_or_else(
            || "<unknown>".to_owned(),
            |then| {
                let elapsed = Duration::try_from(self.now.duration_since(then)).unwrap_or_default();
                weft_api::time::short_duration(elapsed)
            },
        )
    }

    pub(crate) fn text_or(&self, pointer: &str, absent: &str) -> Value {
        let found = text(self.object, pointer);
        Value::from(if found.is_empty() { absent } else { found })
    }

    pub(crate) fn count(&self, pointer: &str) -> i64 {
        integer(self.object, pointer).unwrap_or(0)
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&str> {
        items(self.object, "/status/conditions")
            .iter()
            .find(|condition| text(condition, "/type") == kind)
            .map(|condition| text(condition, "/status"))
    }
}

pub(crate) fn or_none(joined: String) -> Value {
    Value::from(if joined.is_empty() {
        "<none>".to_owned()
    } else {
        joined
    })
}

pub(crate) fn labels_text(value: &Value, pointer: &str) -> String {
    let Some(labels) = object(value, pointer) else {
        return String::new();
    };
    labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn name(row: &Row<'_>) -> Value {
    row.text_or("/metadata/name", "")
}

pub(crate) fn age(row: &Row<'_>) -> Value {
    row.since(time(row.object, "/metadata/creationTimestamp"))
        .into()
}

pub(crate) fn desired_replicas(row: &Row<'_>) -> Value {
    row.count("/spec/replicas").into()
}

pub(crate) fn current_replicas(row: &Row<'_>) -> Value {
    row.count("/status/replicas").into()
}

/// How many members the maps at these pointers have.
pub(crate) fn entries(row: &Row<'_>, pointers: &[&str]) -> Value {
    let count: usize = pointers
        .iter()
        .filter_map(|pointer| object(row.object, pointer))
        .map(serde_json::Map::len)
        .sum();
    count.into()
}
