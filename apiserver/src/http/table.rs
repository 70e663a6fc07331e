//! Tables: what `kubectl get` prints, made by the server from the columns of the kind.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_kinds::{Column, KindRef, Row, columns};

use crate::stored::Stored;

/// What each row carries besides its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// How tables of one request look.
#[derive(Clone, Copy)]
pub struct Style {
    /// Version of meta.k8s.io.
    pub version: &'static str,
    pub include: Include,
    pub now: Timestamp,
}

/// A Table of this object; `metadata` is that of the table.
pub fn table(kind: KindRef<'_>, object: &Stored, metadata: Value, style: Style) -> Value {
    assemble(
        &kind.columns,
        vec![row_of(kind, object, style)],
        metadata,
        style,
    )
}

/// The row of a stored object.
pub fn row_of(kind: KindRef<'_>, object: &Stored, style: Style) -> Value {
    row(
        &kind.columns,
        &object.stored_value(),
        || object.value(),
        style,
    )
}

/// A Table of one object in the kind's own spelling.
pub fn table_of_one(kind: KindRef<'_>, object: &Value, style: Style) -> Value {
    let mut stored = object.clone();
    if let Some(spelling) = &kind.spelling {
        (spelling.write)(&mut stored);
    }
    one_row(&kind.columns, &stored, object, style)
}

/// A Table of objects that are not stored.
pub fn table_of_all(kind: KindRef<'_>, objects: &[Value], style: Style) -> Value {
    let rows = objects
        .iter()
        .map(|object| row(&kind.columns, object, || object.clone(), style))
        .collect();
    assemble(&kind.columns, rows, json!({}), style)
}

/// A Table of one Scale, which is no kind of the table of kinds.
pub fn table_of_scale(scale: &Value, style: Style) -> Value {
    one_row(columns::of_scale(), scale, scale, style)
}

fn one_row(columns: &[Column], stored: &Value, object: &Value, style: Style) -> Value {
    let version = object.pointer("/metadata/resourceVersion").cloned();
    let row = row(columns, stored, || object.clone(), style);
    assemble(
        columns,
        vec![row],
        json!({"resourceVersion": version.unwrap_or_default()}),
        style,
    )
}

/// What the cells of each row are.
pub fn definitions(columns: &[Column]) -> Value {
    columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

fn assemble(columns: &[Column], rows: Vec<Value>, metadata: Value, style: Style) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", style.version),
        "metadata": metadata,
        "columnDefinitions": definitions(columns),
        "rows": rows,
    })
}

fn row(
    columns: &[Column],
    stored: &Value,
    own_spelling: impl FnOnce() -> Value,
    style: Style,
) -> Value {
    let looked_at = Row {
        object: stored,
        now: style.now,
    };
    let cells: Vec<Value> = columns
        .iter()
        .map(|column| (column.cell)(&looked_at))
        .collect();
    let mut row = Map::new();
    row.insert("cells".to_owned(), cells.into());
    match style.include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object".to_owned(), metadata_only(stored, style.version));
        }
        Include::Object => {
            row.insert("object".to_owned(), own_spelling());
        }
    }
    row.into()
}

/// An object reduced to its metadata.
pub fn metadata_only(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}
