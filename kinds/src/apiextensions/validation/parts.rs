//! What a version may say beside its schema: subresources, columns, selectable fields. Each of them names fields by paths.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_api::status::Cause;

use super::Judge;
use crate::cel::rules;
use crate::lens::text;
use crate::schema::Schema;

const SELECTABLE_MAX: usize = 8;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

impl Judge {
    pub(super) fn subresources(&mut self, subresources: &Value, path: &str) {
        let Some(scale) = subresources.get("scale").filter(|scale| scale.is_object()) else {
            return;
        };
        for (member, start, told) in [
            (
                "specReplicasPath",
                ".spec.",
                "should be a json path under .spec",
            ),
            (
                "statusReplicasPath",
                ".status.",
                "should be a json path under .status",
            ),
        ] {
            let at = format!("{path}.scale.{member}");
            let value = text(scale, &format!("/{member}"));
            if value.is_empty() {
                self.required(&at, "");
            } else if self.simple_path(value, &at) && !value.starts_with(start) {
                self.invalid(&at, value, told);
            }
        }
        let selector = text(scale, "/labelSelectorPath");
        let at = format!("{path}.scale.labelSelectorPath");
        if !selector.is_empty()
            && self.simple_path(selector, &at)
            && !selector.starts_with(".spec.")
            && !selector.starts_with(".status.")
        {
            let told = "should be a json path under either .spec or .status";
            self.invalid(&at, selector, told);
        }
    }

    fn simple_path(&mut self, value: &str, path: &str) -> bool {
        let sound = value.starts_with('.');
        if !sound {
            self.invalid(path, value, "must be a simple json path starting with .");
        }
        sound
    }

    pub(super) fn column(&mut self, column: &Value, path: &str) {
        if text(column, "/name").is_empty() {
            self.required(&format!("{path}.name"), "");
        }
        let told = format!("must be one of {COLUMN_TYPES}");
        match text(column, "/type") {
            "" => self.required(&format!("{path}.type"), &told),
            kind if COLUMN_TYPES.split(',').any(|known| known == kind) => {}
            kind => self.invalid(&format!("{path}.type"), kind, &told),
        }
        let format = text(column, "/format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let told = format!("must be one of {}", COLUMN_FORMATS.join(","));
            self.invalid(&format!("{path}.format"), format, &told);
        }
        let at = format!("{path}.JSONPath");
        match text(column, "/jsonPath") {
            "" => self.required(&at, ""),
            value => {
                self.simple_path(value, &at);
            }
        }
    }

    pub(super) fn selectable(&mut self, fields: &[Value], schema: Schema<'_>, path: &str) {
        let mut known = BTreeSet::new();
        for (index, field) in fields.iter().enumerate() {
            let at = format!("{path}[{index}].jsonPath");
            let value = text(field, "/jsonPath");
            if value.is_empty() {
                self.required(&at, "");
                continue;
            }
            let (target, steps) = match selected(schema, value) {
                Ok(found) => found,
                Err(told) => {
                    self.invalid(&at, value, &format!("is an invalid path: {told}"));
                    continue;
                }
            };
            if steps.first().is_some_and(|first| *first == "metadata") {
                self.invalid(&at, value, "must not point to fields in metadata");
            }
            if !matches!(target.kind(), Some("string" | "boolean" | "integer")) {
                let told = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                self.invalid(&at, value, told);
            }
            if !known.insert(steps) {
                self.causes.push(Cause::duplicate(&at, &value.into()));
            }
        }
        if known.len() > SELECTABLE_MAX {
            self.causes.push(Cause {
                reason: "FieldValueTooMany".to_owned(),
                message: format!(
                    "Too many: {}: must have at most {SELECTABLE_MAX} items",
                    known.len()
                ),
                field: path.to_owned(),
            });
        }
    }
}

/// The place that a selectable field points at, and the steps to it.
///
/// # Errors
/// Why it is no path in the schema.
fn selected<'s, 'p>(
    schema: Schema<'s>,
    path: &'p str,
) -> Result<(Schema<'s>, Vec<&'p str>), String> {
    if path.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    rules::field_path(schema, path)?;
    let mut target = schema;
    let steps: Vec<&str> = path.split('.').skip(1).collect();
    for step in &steps {
        target = target
            .field(step)
            .ok_or("does not refer to a valid field")?;
    }
    Ok((target, steps))
}
