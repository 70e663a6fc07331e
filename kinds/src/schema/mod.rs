//! What every field of every served kind is: type, list type, merge key, description.
//!
//! One table, `table.json`, derived from the published Kubernetes and Gateway API schemas by `cargo xtask codegen` and
//! compiled in. It is parsed once, on first use; descriptions stay text and are only ever copied into OpenAPI documents.
//!
//! Use: [`unknown_fields`], [`type_errors`] and [`duplicate_fields`] check a request body in Kubernetes' own words;
//! [`Schema::of`] walks a kind for strategic merge and field ownership; [`closure`] and [`text`] feed OpenAPI.
//!
//! Invariants: pure functions over static data; each reference in the table resolves (a test holds this); a kind that the
//! table does not know is never refused here.
//! Left to others: rules between fields (`crate::validate`), defaults (`crate::defaults`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use weft_api::gvk::GroupVersionKind;

static TABLE_TEXT: &str = include_str!("table.json");

/// How many findings of one body are reported; a body made of mistakes must not make the answer large.
const FINDINGS_MAX: usize = 64;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let texts: BTreeMap<&'static str, &'static RawValue> =
        serde_json::from_str(TABLE_TEXT).expect("the committed table is a JSON object");
    let mut by_kind = BTreeMap::new();
    let nodes: BTreeMap<&'static str, Node<'static>> = texts
        .iter()
        .map(|(name, text)| {
            let node: Node<'static> =
                serde_json::from_str(text.get()).expect("the committed table holds schemas");
            for mark in &node.kinds {
                // Shared definitions (DeleteOptions) carry a mark for every group; the first name wins.
                by_kind
                    .entry((mark.group, mark.version, mark.kind))
                    .or_insert(*name);
            }
            (*name, node)
        })
        .collect();
    Table {
        texts,
        nodes,
        by_kind,
    }
});

struct Table {
    texts: BTreeMap<&'static str, &'static RawValue>,
    nodes: BTreeMap<&'static str, Node<'static>>,
    by_kind: BTreeMap<(&'static str, &'static str, &'static str), &'static str>,
}

/// The parts of an OpenAPI schema that decisions need. Everything is borrowed from the table's text.
#[derive(Deserialize)]
struct Node<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Option<&'a str>,
    #[serde(default, borrow)]
    format: Option<&'a str>,
    #[serde(default, rename = "$ref", borrow)]
    reference: Option<&'a str>,
    #[serde(default, rename = "allOf", borrow)]
    all_of: Vec<Reference<'a>>,
    #[serde(default, borrow)]
    properties: BTreeMap<&'a str, Node<'a>>,
    #[serde(default, borrow)]
    items: Option<Box<Node<'a>>>,
    #[serde(default, rename = "additionalProperties", borrow)]
    additional: Option<Box<Node<'a>>>,
    #[serde(default, rename = "x-kubernetes-patch-merge-key", borrow)]
    merge_key: Option<&'a str>,
    #[serde(default, rename = "x-kubernetes-patch-strategy", borrow)]
    patch_strategy: Option<&'a str>,
    #[serde(default, rename = "x-kubernetes-list-type", borrow)]
    list_type: Option<&'a str>,
    #[serde(default, rename = "x-kubernetes-map-type", borrow)]
    map_type: Option<&'a str>,
    #[serde(default, rename = "x-kubernetes-list-map-keys", borrow)]
    list_map_keys: Vec<&'a str>,
    #[serde(default, rename = "x-kubernetes-group-version-kind", borrow)]
    kinds: Vec<KindMark<'a>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(rename = "$ref", borrow)]
    reference: &'a str,
}

#[derive(Deserialize)]
struct KindMark<'a> {
    #[serde(borrow)]
    group: &'a str,
    #[serde(borrow)]
    version: &'a str,
    #[serde(borrow)]
    kind: &'a str,
}

/// A place in a kind: the field's own marks and the type behind it. Copying is free.
#[derive(Clone, Copy)]
pub struct Schema {
    /// Where the field is declared: its patch and list marks live here.
    place: &'static Node<'static>,
    /// What it is, references followed.
    target: &'static Node<'static>,
    /// The definition's name, when the type has one.
    name: Option<&'static str>,
}

/// What JSON a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with known fields.
    Struct,
    /// An object with free keys.
    Map,
    /// An object whose content is nobody's business (managed fields, raw extensions).
    Free,
    List,
    String,
    Integer,
    Number,
    Boolean,
    /// IntOrString and Quantity: a number or a string.
    NumberOrString,
}

impl Schema {
    /// The schema of a kind, if the table has it.
    pub fn of(gvk: &GroupVersionKind) -> Option<Schema> {
        let name = definition_name(gvk)?;
        Self::named(name)
    }

    /// The schema of a definition.
    pub(crate) fn named(name: &str) -> Option<Schema> {
        let (name, node) = TABLE.nodes.get_key_value(name)?;
        Some(Schema {
            place: node,
            target: node,
            name: Some(name),
        })
    }

    fn at(place: &'static Node<'static>) -> Schema {
        let reference = place
            .reference
            .or_else(|| place.all_of.first().map(|all_of| all_of.reference));
        match reference.and_then(|reference| Self::named(last_segment(reference, '/'))) {
            Some(target) => Schema { place, ..target },
            None => Schema {
                place,
                target: place,
                name: None,
            },
        }
    }

    /// The definition's name, when the type has one.
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Whether the string stands for bytes, in base64.
    pub fn is_bytes(&self) -> bool {
        self.target.format == Some("byte")
    }

    /// The field of a struct, or the value of a map under any key.
    pub fn field(&self, name: &str) -> Option<Schema> {
        let node = self
            .target
            .properties
            .get(name)
            .or(self.target.additional.as_deref())?;
        Some(Self::at(node))
    }

    /// The element of a list.
    pub fn items(&self) -> Option<Schema> {
        self.target.items.as_deref().map(Self::at)
    }

    /// What JSON belongs here.
    pub fn shape(&self) -> Shape {
        let target = self.target;
        match target.kind {
            Some("array") => Shape::List,
            Some("string") => Shape::String,
            Some("integer") => Shape::Integer,
            Some("number") => Shape::Number,
            Some("boolean") => Shape::Boolean,
            Some("object") if target.additional.is_some() => Shape::Map,
            Some("object") if !target.properties.is_empty() => Shape::Struct,
            Some(_) => Shape::Free,
            None if self.name.is_some() => Shape::NumberOrString,
            None => Shape::Free,
        }
    }

    /// The strategic merge strategies of a list or struct field: `merge`, `replace`, `retainKeys`.
    pub fn patch_strategies(&self) -> impl Iterator<Item = &'static str> {
        self.place
            .patch_strategy
            .into_iter()
            .flat_map(|strategies| strategies.split(','))
    }

    /// The one field that identifies an element of the list in a strategic merge.
    pub fn merge_key(&self) -> Option<&'static str> {
        self.place.merge_key
    }

    /// `atomic`, `set` or `map`, for server-side apply.
    pub fn list_type(&self) -> Option<&'static str> {
        self.place.list_type.or(self.target.list_type)
    }

    /// `atomic` or `granular`, for server-side apply.
    pub fn map_type(&self) -> Option<&'static str> {
        self.place.map_type.or(self.target.map_type)
    }

    /// The fields that together identify an element of a `map` list in server-side apply.
    pub fn list_map_keys(&self) -> &'static [&'static str] {
        if self.place.list_map_keys.is_empty() {
            &self.target.list_map_keys
        } else {
            &self.place.list_map_keys
        }
    }

    /// The Go type that Kubernetes names in a decoding error.
    fn go_type(&self) -> String {
        let package = |name: &str| format!("v1.{}", last_segment(name, '.'));
        match (self.shape(), self.name) {
            (Shape::List, _) => {
                format!(
                    "[]{}",
                    self.items()
                        .map_or_else(|| "interface {}".to_owned(), |item| item.go_type())
                )
            }
            (Shape::Map, _) => {
                let value = self.target.additional.as_deref().map(Self::at);
                format!(
                    "map[string]{}",
                    value.map_or_else(|| "interface {}".to_owned(), |value| value.go_type())
                )
            }
            (Shape::String, Some(name)) => package(name),
            (Shape::String, None) if self.target.format == Some("byte") => "[]uint8".to_owned(),
            (Shape::String, None) => "string".to_owned(),
            (Shape::Integer, _) => self.target.format.unwrap_or("int64").to_owned(),
            (Shape::Number, _) => "float64".to_owned(),
            (Shape::Boolean, _) => "bool".to_owned(),
            (_, Some(name)) => package(name),
            (_, None) => "map[string]interface {}".to_owned(),
        }
    }
}

/// The definition behind a kind, as in `io.k8s.api.core.v1.Pod`.
pub fn definition_name(gvk: &GroupVersionKind) -> Option<&'static str> {
    TABLE
        .by_kind
        .get(&(gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str()))
        .copied()
}

/// The OpenAPI v3 schema of a definition, as compact JSON text.
pub fn text(name: &str) -> Option<&'static str> {
    TABLE.texts.get(name).map(|text| text.get())
}

/// The given definitions and all they refer to. Names that the table does not have are left out.
pub fn closure<'a>(roots: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'static str> {
    fn follow(node: &'static Node<'static>, wanted: &mut Vec<&'static str>) {
        wanted.extend(
            node.reference
                .into_iter()
                .chain(node.all_of.iter().map(|all_of| all_of.reference)),
        );
        node.properties
            .values()
            .chain(node.items.as_deref())
            .chain(node.additional.as_deref())
            .for_each(|child| {
                follow(child, wanted);
            });
    }
    let mut found = BTreeSet::new();
    let mut wanted: Vec<&'static str> = roots
        .into_iter()
        .filter_map(|root| TABLE.nodes.get_key_value(root).map(|(name, _)| *name))
        .collect();
    while let Some(name) = wanted.pop() {
        let name = last_segment(name, '/');
        if let Some(node) = TABLE.nodes.get(name)
            && found.insert(name)
        {
            follow(node, &mut wanted);
        }
    }
    found
}

/// The fields of `value` that the kind does not have, as Kubernetes writes paths:
/// `spec.replcas`, `spec.template.spec.containers[0].foo`. Empty for a kind the table does not know.
pub fn unknown_fields(gvk: &GroupVersionKind, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = Schema::of(gvk) {
        unknown(schema, value, &mut String::new(), &mut found);
    }
    found
}

fn unknown(schema: Schema, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let shape = schema.shape();
    match value {
        Value::Object(map) if matches!(shape, Shape::Struct | Shape::Map) => {
            for (key, value) in map {
                if found.len() == FINDINGS_MAX {
                    return;
                }
                let length = push_key(path, key);
                match schema.field(key) {
                    Some(field) => unknown(field, value, path, found),
                    None => found.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) if shape == Shape::List => {
            let Some(schema) = schema.items() else { return };
            for (index, item) in items.iter().enumerate() {
                let length = path.len();
                let _ = write!(path, "[{index}]");
                unknown(schema, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The values of `value` that have the wrong JSON type, in the words of Kubernetes' decoder:
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn type_errors(gvk: &GroupVersionKind, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = Schema::of(gvk) {
        let owner = schema.name.map_or("", |name| last_segment(name, '.'));
        mistyped(schema, value, owner, &mut String::new(), &mut found);
    }
    found
}

/// `path` has no indices here: Go's decoder names the field, not the element.
fn mistyped(
    schema: Schema,
    value: &Value,
    owner: &str,
    path: &mut String,
    found: &mut Vec<String>,
) {
    if found.len() == FINDINGS_MAX {
        return;
    }
    let shape = schema.shape();
    let fits = match value {
        // Go's decoder leaves a field alone when it is given null.
        Value::Null => true,
        Value::Object(_) => matches!(shape, Shape::Struct | Shape::Map | Shape::Free),
        Value::Array(_) => matches!(shape, Shape::List | Shape::Free),
        Value::String(_) => matches!(shape, Shape::String | Shape::NumberOrString | Shape::Free),
        Value::Bool(_) => matches!(shape, Shape::Boolean | Shape::Free),
        Value::Number(number) => match shape {
            Shape::Integer if schema.target.format == Some("int32") => number
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()),
            Shape::Integer => number.is_i64(),
            Shape::Number | Shape::NumberOrString | Shape::Free => true,
            _ => false,
        },
    };
    if !fits {
        let given = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if shape == Shape::Integer => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        found.push(if path.is_empty() {
            format!(
                "json: cannot unmarshal {given} into Go value of type {}",
                schema.go_type()
            )
        } else {
            format!(
                "json: cannot unmarshal {given} into Go struct field {owner}.{path} of type {}",
                schema.go_type()
            )
        });
        return;
    }
    match value {
        Value::Object(map) => {
            let owner = match shape {
                Shape::Struct => schema.name.map_or(owner, |name| last_segment(name, '.')),
                _ => owner,
            };
            for (key, value) in map {
                if let Some(field) = schema.field(key) {
                    let length = push_key(path, key);
                    mistyped(field, value, owner, path, found);
                    path.truncate(length);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items() {
                items
                    .iter()
                    .for_each(|item| mistyped(schema, item, owner, path, found));
            }
        }
        _ => {}
    }
}

/// The object keys that appear twice in a JSON text, as paths; a text that is not JSON gives what was seen before the
/// mistake. A parsed `Value` cannot tell: its last duplicate has won.
pub fn duplicate_fields(text: &[u8]) -> Vec<String> {
    let mut path = String::new();
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // A syntax error is reported by the parser that reads the body for its content.
    let _ = Duplicates {
        path: &mut path,
        found: &mut found,
    }
    .deserialize(&mut deserializer);
    found
}

struct Duplicates<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Duplicates<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Duplicates<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let length = push_key(self.path, &key);
            if !seen.insert(key) && self.found.len() < FINDINGS_MAX {
                self.found.push(self.path.clone());
            }
            map.next_value_seed(Duplicates {
                path: self.path,
                found: self.found,
            })?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0.. {
            let _ = write!(self.path, "[{index}]");
            let more = list.next_element_seed(Duplicates {
                path: self.path,
                found: self.found,
            })?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Appends `.key` (or `key` at the root) and returns the length to cut back to.
fn push_key(path: &mut String, key: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    length
}

fn last_segment(text: &str, separator: char) -> &str {
    text.rsplit(separator).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gvk(group: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn every_reference_of_the_table_resolves() {
        let all = closure(TABLE.texts.keys().copied());
        assert_eq!(all.len(), TABLE.texts.len());
        for text in TABLE.texts.values() {
            for reference in text.get().split("\"$ref\":\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(TABLE.nodes.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        let deployment = gvk("apps", "Deployment");
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "labels": { "any.key/x": "y" }, "colour": "red" },
            "spec": { "replcas": 1, "template": { "spec": {
                "nodeSelector": { "free": "yes" },
                "containers": [{ "name": "a", "resources": { "limits": { "cpu": 1, "weft.dev/x": "2" } } }, { "foo": 1, "env": [{ "nam": 1 }] }],
            } } },
        });
        assert_eq!(
            unknown_fields(&deployment, &body),
            [
                "metadata.colour",
                "spec.replcas",
                "spec.template.spec.containers[1].env[0].nam",
                "spec.template.spec.containers[1].foo"
            ]
        );
        let route = gvk("gateway.networking.k8s.io", "HTTPRoute");
        let body = json!({ "spec": { "rules": [{ "matches": [{ "path": { "valu": "/" } }], "retry": { "attempts": 2 } }] } });
        assert_eq!(
            unknown_fields(&route, &body),
            ["spec.rules[0].matches[0].path.valu"]
        );
        assert_eq!(
            unknown_fields(&gvk("example.com", "Thing"), &json!({ "x": 1 })),
            [""; 0]
        );
    }

    #[test]
    fn wrong_types_are_told_in_the_decoders_words() {
        let cases = [
            (
                json!({ "spec": { "replicas": "3" } }),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({ "spec": { "replicas": 1.5 } }),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({ "spec": { "template": { "spec": { "containers": [{ "env": [{ "value": 1 }] }] } } } }),
                "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
            ),
            (
                json!({ "spec": { "template": { "spec": { "containers": {} } } } }),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({ "metadata": { "labels": { "a": true } } }),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (
                json!({ "spec": [] }),
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(type_errors(&gvk("apps", "Deployment"), &body), [message]);
        }
        let fine = json!({ "spec": { "replicas": null, "strategy": { "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": 1 } } } });
        assert_eq!(type_errors(&gvk("apps", "Deployment"), &fine), [""; 0]);
    }

    #[test]
    fn duplicates_are_found_where_a_parser_hides_them() {
        let text = br#"{"a":1,"spec":{"x":[{"y":1,"y":2}],"x":3},"a":"z"}"#;
        assert_eq!(duplicate_fields(text), ["spec.x[0].y", "spec.x", "a"]);
        assert_eq!(duplicate_fields(b"{\"a\":1,\"a\":"), ["a"]);
    }

    #[test]
    fn marks_for_merging_are_found() {
        let spec = Schema::of(&gvk("", "Pod")).unwrap().field("spec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert_eq!(volumes.merge_key(), Some("name"));
        assert_eq!(
            volumes.patch_strategies().collect::<Vec<_>>(),
            ["merge", "retainKeys"]
        );
        let ports = spec
            .field("containers")
            .unwrap()
            .items()
            .unwrap()
            .field("ports")
            .unwrap();
        assert_eq!(
            (ports.merge_key(), ports.list_map_keys()),
            (Some("containerPort"), &["containerPort", "protocol"][..])
        );
    }
}
