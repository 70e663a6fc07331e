//! How objects are printed where no table is: as YAML, JSON or names, by a JSONPath template, in columns that the user names.
//!
//! Invariants: an output that cannot be read is refused before anything is asked; what objects hold reaches a terminal without
//! control characters wherever it is laid out in columns.

mod columns;
mod template;

use std::str::FromStr;

use kube::discovery::ApiResource;
use serde_json::{Value, json};

pub use self::columns::CustomColumns;
pub use self::template::Template;
use crate::exit::Failure;

/// What follows `-o`.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The server's table with all columns.
    Wide,
    Yaml,
    Json,
    /// `deployment.apps/web`
    Name,
    JsonPath(Template),
    Columns(CustomColumns),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, rest) = match text.split_once('=') {
            Some((format, rest)) => (format, Some(rest)),
            None => (text, None),
        };
        match (format, rest) {
            ("wide", None) => Ok(Self::Wide),
            ("yaml", None) => Ok(Self::Yaml),
            ("json", None) => Ok(Self::Json),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(template)) => template.parse().map(Self::JsonPath),
            ("custom-columns", Some(columns)) => columns.parse().map(Self::Columns),
            ("jsonpath", None) => Err("a template follows: jsonpath='{.metadata.name}'".to_owned()),
            ("custom-columns", None) => Err(
                "columns follow: custom-columns=NAME:.metadata.name,NODE:.spec.nodeName".to_owned(),
            ),
            _ => Err(
                "one of: wide, yaml, json, name, jsonpath='TEMPLATE', custom-columns=HEADER:PATH,…"
                    .to_owned(),
            ),
        }
    }
}

impl Output {
    /// The text for what a command ends with: one object, or a List of several.
    ///
    /// # Errors
    /// A [`Failure`] where a template finds something of another shape than it expects, or a value has no such form.
    pub fn render(
        &self,
        objects: Vec<Value>,
        single: bool,
        headers: bool,
    ) -> Result<String, Failure> {
        match self {
            Self::Name => Ok(objects
                .iter()
                .map(|object| qualified_name(object) + "\n")
                .collect()),
            Self::Columns(columns) => Ok(columns.render(&objects, headers)),
            Self::Yaml | Self::Json | Self::JsonPath(_) => {
                let mut objects = objects;
                let value = match (single, objects.len()) {
                    (true, 0) => return Ok(String::new()),
                    (true, 1) => objects.swap_remove(0),
                    _ => {
                        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
                    }
                };
                self.document(&value)
            }
            Self::Wide => Ok(String::new()),
        }
    }

    /// The text for one value.
    ///
    /// # Errors
    /// As [`Output::render`].
    pub fn document(&self, value: &Value) -> Result<String, Failure> {
        let unprintable = |error: &dyn std::fmt::Display| {
            Failure::new("cannot print an object", error, "print it with -o json")
        };
        match self {
            Self::Yaml => serde_saphyr::to_string(value).map_err(|error| unprintable(&error)),
            Self::JsonPath(template) => template.render(value),
            _ => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|error| unprintable(&error)),
        }
    }
}

/// The items of a list, or the one object that was asked for.
pub fn objects(mut answer: Value, resource: &ApiResource) -> Vec<Value> {
    let Value::Array(mut items) = answer["items"].take() else {
        if let Some(map) = answer.as_object_mut() {
            map.remove("items");
        }
        return vec![answer];
    };
    for item in &mut items {
        // Items of a list leave out what the list says once.
        if item["kind"].is_null() {
            item["kind"] = resource.kind.clone().into();
            item["apiVersion"] = resource.api_version.clone().into();
        }
    }
    items
}

/// `deployment.apps/web`
pub fn qualified_name(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let group = text("/apiVersion").split_once('/');
    let group = group.map_or("", |(group, _)| group);
    format!(
        "{}/{}",
        qualified(text("/kind"), group),
        text("/metadata/name")
    )
}

/// `deployment.apps`, or `pod` in the core group.
pub fn qualified(kind: &str, group: &str) -> String {
    match group {
        "" => kind.to_lowercase(),
        group => format!("{}.{group}", kind.to_lowercase()),
    }
}

/// Control characters could make a terminal do things; they are shown, not sent.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Rows as lines: each column as wide as its widest cell so far, three spaces between.
pub fn lines(rows: &[Vec<String>], widths: &mut Vec<usize>) -> String {
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter()) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_the_group() {
        for (version, name) in [("v1", "pod/a"), ("apps/v1", "pod.apps/a")] {
            let object = json!({"apiVersion": version, "kind": "Pod", "metadata": {"name": "a"}});
            assert_eq!(qualified_name(&object), name);
        }
    }

    #[test]
    fn an_output_is_understood_or_refused_with_the_ways_there_are() {
        for (text, understood) in [
            ("wide", true),
            ("yaml", true),
            ("jsonpath={.items[*].metadata.name}", true),
            ("custom-columns=NAME:.metadata.name", true),
            ("jsonpath", false),
            ("jsonpath={.a", false),
            ("custom-columns=", false),
            ("yaml=x", false),
            ("table", false),
        ] {
            let read = text.parse::<Output>();
            assert_eq!(read.is_ok(), understood, "{text}: {read:?}");
        }
    }
}
