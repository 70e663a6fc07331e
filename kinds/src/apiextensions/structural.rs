//! Whether a schema is structural: every field that is spoken of has a type, outside of all combinations.
//!
//! Works on the schema as it is written, so that faults are told by its paths.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/apiserver/schema/{convert,validation,complete}.go`.

use serde_json::{Map, Value, json};
use weft_api::status::Cause;

use crate::cel::pattern;
use crate::lens::{flag, items, object, text};

/// Where in a schema a place is.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why a schema at `path` is not structural, in the order of the sentences.
pub(super) fn faults(schema: &Value, path: &str) -> Vec<Cause> {
    let mut judge = Judge { causes: Vec::new() };
    judge.place(schema, Level::Root, path);
    judge.complete(schema, Some(schema), path, path);
    let sentence = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
    judge.causes.sort_by_key(sentence);
    judge.causes
}

struct Judge {
    causes: Vec<Cause>,
}

fn has(schema: &Value, member: &str) -> bool {
    schema.get(member).is_some_and(|value| !value.is_null())
}

fn children<'v>(schema: &'v Value, member: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    schema
        .get(member)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

impl Judge {
    fn required(&mut self, path: String, detail: &str) {
        self.causes.push(Cause::required(&path, detail));
    }

    fn forbidden(&mut self, path: String, detail: &str) {
        self.causes.push(Cause::forbidden(&path, detail));
    }

    fn invalid(&mut self, path: String, value: impl Into<Value>, detail: &str) {
        self.causes
            .push(Cause::invalid(&path, &value.into(), detail));
    }

    /// A place that has a value, as against what combinations say of one.
    fn place(&mut self, schema: &Value, level: Level, path: &str) {
        let kind = text(schema, "/type");
        let embedded = flag(schema, "/x-kubernetes-embedded-resource");
        let preserves = flag(schema, "/x-kubernetes-preserve-unknown-fields");
        let int_or_string = flag(schema, "/x-kubernetes-int-or-string");
        if kind == "array" && !has(schema, "items") {
            self.required(format!("{path}.items"), "must be specified");
        }
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            self.place(item, Level::Item, &format!("{path}.items"));
        }
        for (name, field) in children(schema, "properties") {
            self.place(field, Level::Field, &format!("{path}.properties[{name}]"));
        }
        if has(schema, "additionalProperties") {
            let at = format!("{path}.additionalProperties");
            if level == Level::Root {
                self.forbidden(at.clone(), "must not be used at the root");
            }
            if schema["additionalProperties"].is_object() {
                self.place(&schema["additionalProperties"], Level::Field, &at);
            }
        }
        if int_or_string && preserves {
            let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.invalid(
                at,
                true,
                "must be false if x-kubernetes-int-or-string is true",
            );
        }
        if int_or_string && embedded {
            let at = format!("{path}.x-kubernetes-embedded-resource");
            self.invalid(
                at,
                true,
                "must be false if x-kubernetes-int-or-string is true",
            );
        }
        let either = json!([{ "type": "integer" }, { "type": "string" }]);
        let any_of = schema.get("anyOf") == Some(&either);
        let all_of = schema.pointer("/allOf/0/anyOf") == Some(&either);
        self.combinations(schema, any_of, all_of, level, path);

        let told = "must be object if x-kubernetes-embedded-resource is true";
        if embedded && kind != "object" {
            let at = format!("{path}.type");
            match kind {
                "" => self.required(at, told),
                kind => self.invalid(at, kind, told),
            }
        } else if kind.is_empty() && !int_or_string && !preserves {
            let told = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            self.required(format!("{path}.type"), told);
        }
        if embedded && has(schema, "additionalProperties") {
            let told = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbidden(format!("{path}.additionalProperties"), told);
        }
        if level == Level::Root && !kind.is_empty() && kind != "object" {
            self.invalid(format!("{path}.type"), kind, "must be object at the root");
        }
        self.metadata(schema, level, embedded, path);
        let properties = object(schema, "/properties").is_some_and(|map| !map.is_empty());
        if embedded && !preserves && !properties {
            let told = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(format!("{path}.properties"), told);
        }
    }

    /// What every object has, a schema may hardly restrict.
    fn metadata(&mut self, schema: &Value, level: Level, embedded: bool, path: &str) {
        let resource = level == Level::Root || embedded;
        let properties = object(schema, "/properties");
        let property = |name: &str| properties.and_then(|map| map.get(name));
        for name in ["kind", "apiVersion"] {
            if let Some(field) = property(name).filter(|_| resource) {
                let kind = text(field, "/type");
                if kind != "string" {
                    let at = format!("{path}.properties[{name}].type");
                    self.invalid(at, kind, "must be string");
                }
            }
        }
        let Some(metadata) = property("metadata") else {
            return;
        };
        let at = format!("{path}.properties[metadata]");
        let kind = text(metadata, "/type");
        if resource && kind != "object" {
            self.invalid(format!("{at}.type"), kind, "must be object");
        }
        if level != Level::Root {
            return;
        }
        let mut rest: Map<String, Value> = metadata.as_object().cloned().unwrap_or_default();
        let names = rest.get("properties").and_then(Value::as_object);
        let names_only = names.is_some_and(|map| {
            let known = |name: &String| name == "name" || name == "generateName";
            map.keys().all(known)
        });
        if names_only {
            rest.remove("properties");
        }
        rest.remove("type");
        rest.remove("default");
        if !rest.is_empty() {
            let told = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(at, told);
        }
    }

    fn combinations(
        &mut self,
        schema: &Value,
        any_of: bool,
        all_of: bool,
        level: Level,
        path: &str,
    ) {
        if !any_of {
            for (index, nested) in items(schema, "/anyOf").iter().enumerate() {
                self.nested(nested, false, level, &format!("{path}.anyOf[{index}]"));
            }
        }
        for (index, nested) in items(schema, "/allOf").iter().enumerate() {
            let skips = all_of && index == 0;
            self.nested(nested, skips, level, &format!("{path}.allOf[{index}]"));
        }
        for (index, nested) in items(schema, "/oneOf").iter().enumerate() {
            self.nested(nested, false, level, &format!("{path}.oneOf[{index}]"));
        }
        if let Some(nested) = schema.get("not").filter(|nested| nested.is_object()) {
            self.nested(nested, false, level, &format!("{path}.not"));
        }
        let pattern = text(schema, "/pattern");
        if !pattern.is_empty()
            && let Err(told) = pattern::compile(pattern)
        {
            let told = format!("must be a valid regular expression, but isn't: {told}");
            self.invalid(format!("{path}.pattern"), pattern, &told);
        }
    }

    /// What a combination says of a value: its constraints, and nothing of its structure.
    fn nested(&mut self, schema: &Value, any_of: bool, level: Level, path: &str) {
        self.combinations(schema, any_of, false, level, path);
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            self.nested(item, false, level, &format!("{path}.items"));
        }
        for (name, field) in children(schema, "properties") {
            let at = format!("{path}.properties[{name}]");
            self.nested(field, false, Level::Field, &at);
        }
        let additional = schema.get("additionalProperties");
        let states_additional = additional.is_some_and(|value| value.is_object() || value == true);
        for (member, given, told) in [
            (
                "type",
                !text(schema, "/type").is_empty(),
                "must be empty to be structural",
            ),
            (
                "additionalProperties",
                states_additional,
                "must be undefined to be structural",
            ),
            (
                "default",
                has(schema, "default"),
                "must be undefined to be structural",
            ),
            (
                "title",
                has(schema, "title"),
                "must be empty to be structural",
            ),
            (
                "description",
                has(schema, "description"),
                "must be empty to be structural",
            ),
            (
                "nullable",
                flag(schema, "/nullable"),
                "must be false to be structural",
            ),
            (
                "x-kubernetes-preserve-unknown-fields",
                flag(schema, "/x-kubernetes-preserve-unknown-fields"),
                "must be false to be structural",
            ),
            (
                "x-kubernetes-embedded-resource",
                flag(schema, "/x-kubernetes-embedded-resource"),
                "must be false to be structural",
            ),
            (
                "x-kubernetes-int-or-string",
                flag(schema, "/x-kubernetes-int-or-string"),
                "must be false to be structural",
            ),
            (
                "x-kubernetes-list-map-keys",
                has(schema, "x-kubernetes-list-map-keys"),
                "must be empty to be structural",
            ),
            (
                "x-kubernetes-list-type",
                has(schema, "x-kubernetes-list-type"),
                "must be undefined to be structural",
            ),
            (
                "x-kubernetes-map-type",
                has(schema, "x-kubernetes-map-type"),
                "must be undefined to be structural",
            ),
            (
                "x-kubernetes-validations",
                has(schema, "x-kubernetes-validations"),
                "must be empty to be structural",
            ),
        ] {
            if given {
                self.forbidden(format!("{path}.{member}"), told);
            }
        }
        if object(schema, "/properties").is_some_and(|map| map.contains_key("metadata")) {
            let told = "must not be specified in a nested context";
            self.forbidden(format!("{path}.properties[metadata]"), told);
        }
    }

    /// Whatever the combinations of `schema` speak of is defined by `structure`, too.
    fn complete(&mut self, schema: &Value, structure: Option<&Value>, at: &str, path: &str) {
        if let Some(nested) = schema.get("not").filter(|nested| nested.is_object()) {
            self.nested_complete(nested, structure, at, &format!("{path}.not"));
        }
        for member in ["allOf", "anyOf", "oneOf"] {
            let list = schema.get(member).and_then(Value::as_array);
            for (index, nested) in list.into_iter().flatten().enumerate() {
                let from = format!("{path}.{member}[{index}]");
                self.nested_complete(nested, structure, at, &from);
            }
        }
    }

    fn nested_complete(&mut self, schema: &Value, structure: Option<&Value>, at: &str, path: &str) {
        let Some(structure) = structure else {
            self.required(at.to_owned(), &format!("because it is defined in {path}"));
            return;
        };
        self.complete(schema, Some(structure), at, path);
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            let own = structure.get("items").filter(|own| own.is_object());
            let (at, path) = (format!("{at}.items"), format!("{path}.items"));
            self.nested_complete(item, own, &at, &path);
        }
        for (name, field) in children(schema, "properties") {
            let own = structure
                .get("properties")
                .and_then(|properties| properties.get(name));
            let at = format!("{at}.properties[{name}]");
            let path = format!("{path}.properties[{name}]");
            match own {
                Some(own) => self.nested_complete(field, Some(own), &at, &path),
                None => self.required(at, &format!("because it is defined in {path}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_structural_is_told_by_its_place() {
        let told = |schema: Value| -> Vec<String> {
            let causes = faults(&schema, "s").into_iter();
            causes
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect()
        };
        for (schema, expected) in [
            (json!({ "type": "object" }), &[][..]),
            (
                json!({}),
                &["s.type: Required value: must not be empty at the root"],
            ),
            (
                json!({ "type": "string" }),
                &["s.type: Invalid value: \"string\": must be object at the root"],
            ),
            (
                json!({ "type": "object", "additionalProperties": true }),
                &["s.additionalProperties: Forbidden: must not be used at the root"],
            ),
            (
                json!({ "type": "object", "properties": { "a": { "type": "array" }, "b": {}, "c": { "type": "array", "items": {} } } }),
                &[
                    "s.properties[a].items: Required value: must be specified",
                    "s.properties[b].type: Required value: must not be empty for specified object fields",
                    "s.properties[c].items.type: Required value: must not be empty for specified array items",
                ],
            ),
            (
                json!({ "type": "object", "properties": { "port": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] } } }),
                &[],
            ),
            (
                json!({ "type": "object", "properties": { "port": { "x-kubernetes-int-or-string": true, "allOf": [{ "anyOf": [{ "type": "integer" }, { "type": "string" }] }, { "pattern": "a" }] } } }),
                &[],
            ),
            (
                json!({ "type": "object", "properties": { "a": { "type": "string", "anyOf": [{ "type": "string" }] } } }),
                &["s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural"],
            ),
            (
                json!({ "type": "object", "properties": { "a": { "type": "object" } }, "oneOf": [{ "properties": { "b": { "minLength": 1 } } }, { "required": ["a"] }] }),
                &[
                    "s.properties[b]: Required value: because it is defined in s.oneOf[0].properties[b]",
                ],
            ),
            (
                json!({ "type": "object", "properties": { "a": { "type": "array", "items": { "type": "string" }, "not": { "items": { "enum": ["x"] } } } } }),
                &[],
            ),
            (
                json!({ "type": "object", "properties": { "metadata": { "type": "object", "properties": { "name": { "type": "string", "pattern": "^a" } } } } }),
                &[],
            ),
            (
                json!({ "type": "object", "properties": { "metadata": { "type": "object", "properties": { "labels": { "type": "object" } } }, "kind": { "type": "integer" } } }),
                &[
                    "s.properties[kind].type: Invalid value: \"integer\": must be string",
                    "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
                ],
            ),
            (
                json!({ "type": "object", "properties": { "e": { "x-kubernetes-embedded-resource": true }, "p": { "type": "string", "pattern": "a(" } } }),
                &[
                    "s.properties[e].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                    "s.properties[e].type: Required value: must be object if x-kubernetes-embedded-resource is true",
                    "s.properties[p].pattern: Invalid value: \"a(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `a(`",
                ],
            ),
            (
                json!({ "type": "object", "properties": { "x": { "x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true } } }),
                &[
                    "s.properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
                ],
            ),
        ] {
            assert_eq!(told(schema.clone()), expected, "{schema}");
        }
    }
}
