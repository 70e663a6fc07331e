//! Cells of Table output that several kinds share, and how a column is said. Those of one kind are in its file.
//!
//! A cell reads one stored object and the time of the request. The texts are those of Kubernetes'
//! `pkg/printers/internalversion/printers.go`; `<none>`, `<unknown>` and `<unset>` are part of them.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::lens::{integer, items, object, text, time};
use crate::{Name, quantity_of};

/// A column of Table output.
pub struct Column {
    pub name: Name,
    /// OpenAPI type of the cell: `string`, `integer`, `boolean`, `date`.
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

    pub(crate) fn boolean(
        name: &'static str,
        cell: fn(&Row<'_>) -> Value,
        description: &'static str,
    ) -> Self {
        Self::new(name, "boolean", cell, description)
    }

    /// The name, which clients know by its format.
    pub(crate) fn name() -> Self {
        Self::named(name)
    }

    /// The name with something after it.
    pub(crate) fn named(cell: fn(&Row<'_>) -> Value) -> Self {
        Self::text("Name", cell, "Name must be unique within a namespace.").formatted("name")
    }

    pub(crate) fn formatted(self, format: &'static str) -> Self {
        Self { format, ..self }
    }

    /// When the object was created, as kinds are shown that no columns were written for.
    pub(crate) fn created_at() -> Self {
        Self::new(
            "Created At",
            "date",
            created_at,
            "When the object was created.",
        )
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

    /// An amount in its shortest form.
    pub(crate) fn quantity_or(&self, pointer: &str, absent: &str) -> Value {
        let found = self.object.pointer(pointer).and_then(quantity_of);
        found
            .map_or_else(|| absent.to_owned(), |amount| amount.to_string())
            .into()
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

/// A selector of objects by their labels, its requirements in the order of their keys.
pub(crate) fn selector_text(value: &Value, pointer: &str) -> String {
    let mut parts = Vec::new();
    for (key, value) in object(value, &format!("{pointer}/matchLabels"))
        .into_iter()
        .flatten()
    {
        parts.push((
            key.as_str(),
            format!("{key}={}", value.as_str().unwrap_or("")),
        ));
    }
    for expression in items(value, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let shown = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key, shown));
    }
    if parts.is_empty() {
        return "<none>".to_owned();
    }
    parts.sort_by_key(|(key, _)| *key);
    let parts: Vec<String> = parts.into_iter().map(|(_, shown)| shown).collect();
    parts.join(",")
}

fn created_at(row: &Row<'_>) -> Value {
    row.text_or("/metadata/creationTimestamp", "")
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

/// How tests look at a row: all its cells, ten seconds after the object was made.
#[cfg(test)]
pub(crate) fn cells(kind: &crate::Kind, object: &Value) -> Vec<Value> {
    let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
    let made = serde_json::json!("2026-01-01T00:00:00Z");
    let object = crate::validate::told::with(object, "/metadata/creationTimestamp", made);
    let row = Row {
        object: &object,
        now,
    };
    kind.columns
        .iter()
        .map(|column| (column.cell)(&row))
        .collect()
}

/// How tests look at the columns: name, type, format and priority of each.
#[cfg(test)]
pub(crate) fn shapes(kind: &crate::Kind) -> Vec<String> {
    let shape = |column: &Column| {
        let wide = if column.priority == 0 { "" } else { " wide" };
        let format = if column.format.is_empty() { "" } else { "/" };
        format!(
            "{}: {}{format}{}{wide}",
            column.name, column.kind, column.format
        )
    };
    kind.columns.iter().map(shape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_shows_what_it_asks_of_labels() {
        for (selector, expected) in [
            (json!({}), "<none>"),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                json!({"matchLabels": {"b": "2"}, "matchExpressions": [
                    {"key": "c", "operator": "DoesNotExist"},
                    {"key": "a", "operator": "In", "values": ["y", "x"]},
                ]}),
                "a in (x,y),b=2,!c",
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "x"}]}),
                "<error>",
            ),
        ] {
            let object = json!({"spec": selector});
            assert_eq!(selector_text(&object, "/spec"), expected);
        }
    }
}
