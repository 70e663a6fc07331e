//! The rules of OpenAPI, as far as definitions follow it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_api::status::Cause;

use crate::lens::{flag, items, object, text};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// What was found against a schema.
#[derive(Default)]
pub(super) struct OpenApi {
    pub(super) causes: Vec<Cause>,
    /// Whether there is something that no structural schema can be made from.
    pub(super) unsupported: bool,
}

/// Where a place of a schema stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Around {
    /// Why no defaults may be set here.
    no_defaults: Option<&'static str>,
    in_metadata: bool,
}

impl OpenApi {
    fn forbidden(&mut self, path: &str, member: &str, detail: &str) {
        self.causes
            .push(Cause::forbidden(&format!("{path}.{member}"), detail));
    }

    fn required(&mut self, path: &str, member: &str, detail: &str) {
        self.causes
            .push(Cause::required(&format!("{path}.{member}"), detail));
    }

    fn invalid(&mut self, path: &str, member: &str, value: &Value, detail: &str) {
        self.causes
            .push(Cause::invalid(&format!("{path}.{member}"), value, detail));
    }

    pub(super) fn place(&mut self, schema: &Value, path: &str, root: bool, around: Around) {
        self.members(schema, path, around);
        if flag(schema, "/uniqueItems") {
            let told =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", told);
        }
        let properties = object(schema, "/properties").filter(|map| !map.is_empty());
        let additional = schema
            .get("additionalProperties")
            .filter(|it| !it.is_null());
        if let Some(additional) = additional {
            if properties.is_some() && *additional != true {
                let told = "additionalProperties and properties are mutual exclusive";
                self.forbidden(path, "additionalProperties", told);
            }
            let mut around = around;
            if around.in_metadata {
                around.no_defaults =
                    Some("inside additionalProperties applying to object metadata");
            }
            if additional.is_object() {
                self.place(
                    additional,
                    &format!("{path}.additionalProperties"),
                    false,
                    around,
                );
            }
        }
        let embedded = flag(schema, "/x-kubernetes-embedded-resource");
        for (name, field) in properties.into_iter().flatten() {
            let mut around = around;
            if (root || embedded) && META.contains(&name.as_str()) {
                around.in_metadata = true;
                if root {
                    around.no_defaults = Some(match name.as_str() {
                        "metadata" => "in top-level metadata",
                        "kind" => "in top-level kind",
                        _ => "in top-level apiVersion",
                    });
                }
            }
            self.place(field, &format!("{path}.properties[{name}]"), false, around);
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.place(not, &format!("{path}.not"), false, around);
        }
        for member in ["allOf", "oneOf", "anyOf"] {
            let list = schema.get(member).and_then(Value::as_array);
            for (index, part) in list.into_iter().flatten().enumerate() {
                self.place(part, &format!("{path}.{member}[{index}]"), false, around);
            }
        }
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            self.place(item, &format!("{path}.items"), false, around);
        }
        self.lists(schema, path);
    }

    fn members(&mut self, schema: &Value, path: &str, around: Around) {
        let kind = text(schema, "/type");
        if !kind.is_empty() && !TYPES.contains(&kind) {
            let at = format!("{path}.type");
            self.causes
                .push(Cause::not_supported(&at, &kind.into(), TYPES));
        }
        if let Some(reason) = around
            .no_defaults
            .filter(|_| schema.get("default").is_some())
        {
            self.forbidden(path, "default", &format!("must not be set {reason}"));
        }
        for (member, detail) in [
            ("id", "id is not supported"),
            ("additionalItems", "additionalItems is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("$ref", "$ref is not supported"),
        ] {
            if schema.get(member).is_some_and(|value| !value.is_null()) {
                self.unsupported = true;
                self.forbidden(path, member, detail);
            }
        }
        if schema.get("$schema").is_some_and(|value| !value.is_null()) {
            self.unsupported = true;
            let told = "OpenAPIV3Schema 'schema' is not supported";
            self.causes.push(Cause::invalid(path, &"".into(), told));
        }
        if kind == "null" {
            let told = "type cannot be set to null, use nullable as an alternative";
            self.forbidden(path, "type", told);
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.unsupported = true;
            let told = "items must be a schema object and not an array";
            self.forbidden(path, "items", told);
        }
        if around.in_metadata && flag(schema, "/x-kubernetes-embedded-resource") {
            let told = "must not be used inside of resource meta";
            self.forbidden(path, "x-kubernetes-embedded-resource", told);
        }
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
            self.unsupported = true;
            let member = "x-kubernetes-preserve-unknown-fields";
            self.invalid(path, member, &json!(false), "must be true or undefined");
        }
    }

    fn typed(&mut self, schema: &Value, path: &str, wanted: &str, marker: &str) -> bool {
        let kind = text(schema, "/type");
        if kind == wanted {
            return true;
        }
        let told = format!("must be {wanted} if {marker} is specified");
        match kind {
            "" => self.required(path, "type", &told),
            kind => self.invalid(path, "type", &kind.into(), &told),
        }
        false
    }

    fn lists(&mut self, schema: &Value, path: &str) {
        const LIST_TYPE: &str = "x-kubernetes-list-type";
        const MAP_TYPE: &str = "x-kubernetes-map-type";
        const KEYS: &str = "x-kubernetes-list-map-keys";
        let mark = |member: &str| schema.get(member).and_then(Value::as_str);
        if let Some(map_type) = mark(MAP_TYPE) {
            self.typed(schema, path, "object", MAP_TYPE);
            if !matches!(map_type, "atomic" | "granular") {
                let at = format!("{path}.{MAP_TYPE}");
                let known = &["atomic", "granular"];
                self.causes
                    .push(Cause::not_supported(&at, &map_type.into(), known));
            }
        }
        let list_type = mark(LIST_TYPE);
        let item = schema.get("items").filter(|item| item.is_object());
        if list_type.is_some()
            && self.typed(schema, path, "array", LIST_TYPE)
            && list_type == Some("set")
            && let Some(item) = item
        {
            let told = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let at = format!("{path}.items");
            let inner = |member: &str| item.get(member).cloned().unwrap_or_default();
            match text(item, "/type") {
                "array" if !matches!(inner(LIST_TYPE).as_str(), None | Some("atomic")) => {
                    self.invalid(&at, LIST_TYPE, &inner(LIST_TYPE), told);
                }
                "object" if inner(MAP_TYPE) != "atomic" => {
                    self.invalid(&at, MAP_TYPE, &inner(LIST_TYPE), told);
                }
                _ => {}
            }
        }
        if let Some(kind) = list_type.filter(|kind| !matches!(*kind, "atomic" | "set" | "map")) {
            let at = format!("{path}.{LIST_TYPE}");
            let known = &["atomic", "set", "map"];
            self.causes
                .push(Cause::not_supported(&at, &kind.into(), known));
        }
        let keys = items(schema, &format!("/{KEYS}"));
        if !keys.is_empty() && list_type != Some("map") {
            let told = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => self.required(path, LIST_TYPE, told),
                Some(kind) => self.invalid(path, LIST_TYPE, &kind.into(), told),
            }
        }
        if list_type == Some("map") {
            if keys.is_empty() {
                let told = "must not be empty if x-kubernetes-list-type is map";
                self.required(path, KEYS, told);
            }
            match item {
                None => {
                    let told = "must have a schema if x-kubernetes-list-type is map";
                    self.required(path, "items", told);
                }
                Some(item) => self.keys(item, keys, path),
            }
        }
        self.identities(list_type, item, keys, path);
    }

    fn keys(&mut self, item: &Value, keys: &[Value], path: &str) {
        const KEYS: &str = "x-kubernetes-list-map-keys";
        let kind = text(item, "/type");
        if kind != "object" {
            let told = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(&format!("{path}.items"), "type", &kind.into(), told);
            return;
        }
        let all = Value::from(keys);
        let mut seen = BTreeSet::new();
        for key in keys.iter().filter_map(Value::as_str) {
            let property = item.get("properties").and_then(|all| all.get(key));
            match property.map(|property| text(property, "/type")) {
                Some("array" | "object") => {
                    let told =
                        "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let at = format!("{path}.items.properties[{key}]");
                    self.invalid(&at, "type", &"object".into(), told);
                }
                Some(_) => {}
                None => {
                    let told = "entries must all be names of item properties";
                    self.invalid(path, KEYS, &all, told);
                }
            }
            if !seen.insert(key) {
                self.invalid(path, KEYS, &all, "must not contain duplicate entries");
            }
        }
    }

    /// What elements are known by is there, and is something.
    fn identities(
        &mut self,
        list_type: Option<&str>,
        item: Option<&Value>,
        keys: &[Value],
        path: &str,
    ) {
        let (Some(kind @ ("set" | "map")), Some(item)) = (list_type, item) else {
            return;
        };
        let at = format!("{path}.items");
        if flag(item, "/nullable") {
            let told = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
            self.forbidden(&at, "nullable", &told);
        }
        if kind != "map" {
            return;
        }
        let required = items(item, "/required");
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(property) = item.get("properties").and_then(|all| all.get(key)) else {
                continue;
            };
            let at = format!("{at}.properties[{key}]");
            let given =
                required.iter().any(|name| name == key) || property.get("default").is_some();
            if !given {
                let told = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.required(&at, "default", told);
            }
            if flag(property, "/nullable") {
                let told =
                    "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden(&at, "nullable", told);
            }
        }
    }
}
