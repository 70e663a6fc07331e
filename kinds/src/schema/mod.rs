//! What every field of a kind is: type, format, range, list type, merge key, default, and what its Go type says.
//!
//! One [`Schema`] for all: the built-in kinds, whose schemas are two committed tables (`table.json`, OpenAPI; `go.json`,
//! what Kubernetes' Go types say beyond it; both derived by `cargo xtask codegen` and parsed once, on first use); weft's own
//! kinds, which nothing is derived from (`own.json`, written by hand in the same form); and the structural schemas of custom kinds,
//! which are built from their JSON by [`Node::parse`].
//!
//! Use: `crate::decode` reads, prunes and defaults objects by it; [`Schema::of`] walks a kind for strategic merge and
//! protobuf; [`closure`] and [`text`] feed OpenAPI.
//!
//! Invariants: pure functions over data that does not change; each reference in the table resolves (a test holds this), and
//! a reference of a custom schema that does not resolve is a place where anything goes.
//! Left to others: rules between fields (`crate::cel::rules`, `crate::validate`), defaults that are no constants (a kind's own file).

mod fields;
mod table;

use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use weft_api::gvk::GroupVersionKind;

use self::fields::Fields;
use self::table::{SCHEMAS, TABLE, standing_version};
pub use self::table::{closure, definition_name, text};
use crate::cel::rules::Place;

/// One place of a schema as it is written down: the parts of OpenAPI that decisions need.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
    properties: Fields,
    items: Option<Box<Node>>,
    #[serde(deserialize_with = "schema_or_flag")]
    additional_properties: Option<Box<Node>>,
    pub(crate) required: Vec<String>,
    pub(crate) nullable: bool,
    /// Filled in where the member is absent.
    pub(crate) default: Option<Value>,
    #[serde(rename = "enum")]
    pub(crate) values: Vec<Value>,
    pattern: Option<String>,
    #[serde(skip)]
    matcher: OnceLock<Option<regex::Regex>>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<usize>,
    pub(crate) max_length: Option<usize>,
    pub(crate) min_items: Option<usize>,
    pub(crate) max_items: Option<usize>,
    pub(crate) min_properties: Option<usize>,
    pub(crate) max_properties: Option<usize>,
    #[serde(rename = "x-kubernetes-validations")]
    pub(crate) rules: Vec<Rule>,
    /// The rules, compiled when an object first needs them.
    #[serde(skip)]
    compiled: OnceLock<Place>,
    #[serde(skip)]
    has_rules: OnceLock<bool>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserves_unknown: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    /// An object of its own, with a type and a name.
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub(crate) embedded_resource: bool,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<KindMark>,
    /// What the Go type of the field says, for a property of a built-in kind.
    #[serde(skip)]
    go: Option<Go>,
    /// The places of the properties in the order of the Go struct.
    #[serde(skip)]
    order: Vec<usize>,
    /// What `reference` leads to.
    #[serde(skip)]
    definition: Found<Option<Schema<'static>>>,
    /// What follows from all this for a type.
    #[serde(skip)]
    traits: Found<Box<Traits>>,
}

/// What was found out once. Definitions refer to each other in circles, so it is not shown.
struct Found<T>(OnceLock<T>);

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> std::fmt::Debug for Found<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.get().is_some() { "found" } else { "-" })
    }
}

/// What is asked of a type at each value of it.
struct Traits {
    shape: Shape,
    special: Option<Special>,
    is_go_struct: bool,
    /// The places of the properties that Go writes even where they say nothing.
    written: Box<[usize]>,
    /// What Go writes of one that says nothing, once it was asked for.
    blank: OnceLock<Value>,
}

/// A type with a reader of its own in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Bytes,
    IntOrString,
    MicroTime,
    Quantity,
    Time,
}

impl Special {
    /// Whether its Go type is a struct: never empty to `omitempty`, and read by a method of its own, whose errors end reading.
    pub(crate) fn is_struct(self) -> bool {
        self != Self::Bytes
    }
}

/// A rule in the Common Expression Language, as a custom resource definition carries it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct KindMark {
    group: String,
    version: String,
    kind: String,
}

/// What a field's Go declaration says and the OpenAPI document does not.
#[derive(Debug)]
pub(crate) struct Go {
    /// As `reflect` prints it: `*int32`, `[]v1.Container`, `map[string]string`.
    pub(crate) type_name: String,
    /// Left out while empty: false, 0, nil, a list or map without elements.
    pub(crate) omit_empty: bool,
    /// Left out while every field of the struct is zero.
    pub(crate) omit_zero: bool,
    /// The embedded structs that the field stands in, as a decoding error names them.
    pub(crate) via: Vec<String>,
}

impl Go {
    /// Absent and zero differ.
    pub(crate) fn is_pointer(&self) -> bool {
        self.type_name.starts_with('*')
    }

    /// Whether a list without elements says something else than none, although it is not written: it is refused where none has defaults.
    pub(crate) fn counts_when_empty(&self) -> bool {
        self.type_name == "[]v2.HPAScalingPolicy"
    }

    /// Whether a field of this type is left out where it says nothing. A struct is never empty to Go, however little it says.
    fn is_omitted(&self, schema: Schema<'_>) -> bool {
        match schema.find_go_struct() && !self.is_pointer() {
            true => self.omit_zero,
            false => self.omit_empty || self.omit_zero,
        }
    }
}

/// `additionalProperties` may be a schema or a flag; only a schema makes a map of something.
fn schema_or_flag<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<Node>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Flag(bool),
        Schema(Box<Node>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Schema(node) => Some(node),
        // Values of any type, of which nothing inside is known.
        Either::Flag(true) => Some(Box::default()),
        Either::Flag(false) => None,
    })
}

impl Node {
    /// A structural schema from its JSON.
    ///
    /// # Errors
    /// The reader's sentence for what is no schema.
    pub fn parse(schema: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(schema)
    }

    /// Attaches the rows of `go.json`: `NAME|GO TYPE|FLAGS|VIA`.
    fn learn(&mut self, rows: &[&str]) {
        for row in rows {
            let mut columns = row.split('|');
            let mut next = || {
                columns
                    .next()
                    .expect("the committed table has four columns")
            };
            let (name, type_name, flags, via) = (next(), next(), next(), next());
            let (place, property) = self
                .properties
                .place(name)
                .and_then(|place| Some((place, self.properties.at_mut(place)?)))
                .expect("the committed tables agree about fields");
            property.go = Some(Go {
                type_name: type_name.to_owned(),
                omit_empty: flags.contains('e'),
                omit_zero: flags.contains('z'),
                via: via
                    .split('.')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            });
            self.order.push(place);
        }
    }

    /// The pattern that strings must match, compiled once; none where there is none, or none that this server understands.
    pub(crate) fn pattern(&self) -> Option<(&str, &regex::Regex)> {
        let pattern = self.pattern.as_deref()?;
        let matcher = self
            .matcher
            .get_or_init(|| crate::cel::pattern::compile(pattern).ok());
        Some((pattern, matcher.as_ref()?))
    }

    /// The rules, compiled for the place that they are about: this one, or the one that this is a part of (`allOf`).
    pub(crate) fn place(&self, of: Schema<'_>, root: bool) -> &Place {
        self.compiled
            .get_or_init(|| Place::compile(of, &self.rules, root))
    }

    /// Whether there is a rule here or below. Definitions by name have none: they are Kubernetes' own.
    fn has_rules(&self) -> bool {
        *self.has_rules.get_or_init(|| {
            !self.rules.is_empty()
                || self
                    .properties
                    .values()
                    .chain(self.items.as_deref())
                    .chain(self.additional_properties.as_deref())
                    .chain(&self.all_of)
                    .any(|child| child.reference().is_none() && child.has_rules())
        })
    }

    /// The type as it is written, empty where there is none.
    pub(crate) fn type_name(&self) -> &str {
        self.kind.as_deref().unwrap_or("")
    }

    fn reference(&self) -> Option<&str> {
        self.reference
            .as_deref()
            .or_else(|| self.all_of.first()?.reference.as_deref())
    }
}

/// A place in a kind: the field's own marks and the type behind it. Copying is free.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    /// Where the field is declared: its patch and list marks live here.
    place: &'a Node,
    /// What it is, references followed.
    target: &'a Node,
    /// The definition's name, when the type has one.
    name: Option<&'a str>,
}

/// What JSON a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with known fields.
    Struct,
    /// An object with free keys.
    Map,
    /// A value whose content is nobody's business (managed fields, raw extensions).
    Free,
    List,
    String,
    Integer,
    Number,
    Boolean,
    /// IntOrString and Quantity: a number or a string.
    NumberOrString,
}

impl Schema<'static> {
    /// The schema of a kind, if the table has it.
    pub fn of(gvk: &GroupVersionKind) -> Option<Self> {
        Self::of_kind(&gvk.group, &gvk.version, &gvk.kind)
    }

    /// As [`Schema::of`]; asked at each step of each request.
    pub(crate) fn of_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        let version = standing_version(group, version);
        let mut found = SCHEMAS.get(kind)?.iter();
        found
            .find(|(of_group, of_version, _)| (*of_group, *of_version) == (group, version))
            .map(|(_, _, schema)| *schema)
    }

    /// What stands in a field that may hold a schema or something else, as a definition's `items` and `additionalProperties` do.
    pub(crate) fn of_alternative(self) -> Option<Self> {
        let name = self.name()?;
        let or = ["OrBool", "OrArray", "OrStringArray"];
        let own = or.iter().find_map(|suffix| name.strip_suffix(suffix))?;
        own.ends_with(".JSONSchemaProps")
            .then(|| Self::named(own))
            .flatten()
    }

    /// The schema of a definition.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (name, node) = TABLE.nodes.get_key_value(name)?;
        Some(Self {
            place: node,
            target: node,
            name: Some(name),
        })
    }
}

impl<'a> Schema<'a> {
    /// The root of a structural schema, or a place in one.
    pub fn at(place: &'a Node) -> Self {
        let definition = place.definition.0.get_or_init(|| {
            let reference = place.reference()?;
            Schema::named(last_segment(reference, '/'))
        });
        match *definition {
            Some(target) => Self { place, ..target },
            None => Self {
                place,
                target: place,
                name: None,
            },
        }
    }

    /// The definition's name, when the type has one.
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// The last segment of the definition's name: what Go calls the type.
    pub(crate) fn short_name(&self) -> Option<&'a str> {
        self.name.map(|name| last_segment(name, '.'))
    }

    /// Whether the kind is read as a Go type of Kubernetes, as against by its schema alone.
    pub(crate) fn is_typed(&self) -> bool {
        !self.target.order.is_empty()
    }

    /// What the place is, references followed.
    pub(crate) fn target(&self) -> &'a Node {
        self.target
    }

    /// What the field's Go declaration says.
    pub(crate) fn go(&self) -> Option<&'a Go> {
        self.place.go.as_ref()
    }

    /// Whether there is a rule with an expression here or below.
    pub(crate) fn has_rules(&self) -> bool {
        self.place.reference().is_none() && self.place.has_rules()
    }

    pub(crate) fn kind(&self) -> Option<&'a str> {
        self.target.kind.as_deref()
    }

    pub(crate) fn format(&self) -> Option<&'a str> {
        self.target.format.as_deref()
    }

    /// Whether the string stands for bytes, in base64.
    pub fn is_bytes(&self) -> bool {
        self.format() == Some("byte")
    }

    /// What stands for the field where it is absent.
    pub fn default(&self) -> Option<&'a Value> {
        self.place.default.as_ref().or(self.target.default.as_ref())
    }

    /// Whether members that no property names are kept.
    pub(crate) fn preserves_unknown(&self) -> bool {
        self.place.preserves_unknown || self.target.preserves_unknown
    }

    pub(crate) fn is_int_or_string(&self) -> bool {
        self.target.int_or_string || self.short_name() == Some("IntOrString")
    }

    /// The field of a struct, or the value of a map under any key.
    pub fn field(&self, name: &str) -> Option<Schema<'a>> {
        self.property(name)
            .map(|(_, field)| field)
            .or_else(|| self.additional())
    }

    /// The field of a struct, with its name.
    pub(crate) fn property(&self, name: &str) -> Option<(&'a str, Schema<'a>)> {
        let (name, node) = self.target.properties.get(name)?;
        Some((name, Schema::at(node)))
    }

    /// The fields of a struct that Go writes even where they say nothing.
    pub(crate) fn always_written(&self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let target = self.target;
        let places = self.traits().written.iter();
        places
            .filter_map(|place| target.properties.at(*place))
            .map(|(name, node)| (name, Schema::at(node)))
    }

    /// The values of a map.
    pub(crate) fn additional(&self) -> Option<Schema<'a>> {
        self.target.additional_properties.as_deref().map(Schema::at)
    }

    /// The fields of a struct: in the order of its Go type where there is one, else by name.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let Node {
            order, properties, ..
        } = self.target;
        let ordered = order.iter().filter_map(|place| properties.at(*place));
        let named = properties.iter().filter(|_| order.is_empty());
        ordered
            .chain(named)
            .map(|(name, node)| (name, Schema::at(node)))
    }

    /// The element of a list.
    pub fn items(&self) -> Option<Schema<'a>> {
        self.target.items.as_deref().map(Schema::at)
    }

    fn traits(&self) -> &'a Traits {
        self.target.traits.0.get_or_init(|| {
            let named = self.target.properties.iter().enumerate();
            let written = named.filter(|(_, (_, node))| {
                let go = node.go.as_ref();
                go.is_some_and(|go| !go.is_omitted(Schema::at(node)))
            });
            Box::new(Traits {
                shape: self.find_shape(),
                special: self.find_special(),
                is_go_struct: self.find_go_struct(),
                written: written.map(|(place, _)| place).collect(),
                blank: OnceLock::new(),
            })
        })
    }

    /// What Go writes of a value of the type that says nothing, which `make` finds out once.
    pub(crate) fn blank(&self, make: impl FnOnce() -> Value) -> &'a Value {
        self.traits().blank.get_or_init(make)
    }

    /// What a type of a built-in kind is, if it is none of JSON's own.
    pub(crate) fn special(&self) -> Option<Special> {
        self.traits().special
    }

    fn find_special(&self) -> Option<Special> {
        match self.short_name() {
            Some("IntOrString") => Some(Special::IntOrString),
            Some("MicroTime") => Some(Special::MicroTime),
            Some("Quantity") => Some(Special::Quantity),
            Some("Time") => Some(Special::Time),
            _ if self.is_bytes() => Some(Special::Bytes),
            _ => None,
        }
    }

    /// Whether the Go type is a struct, which `omitempty` never leaves out.
    pub(crate) fn is_go_struct(&self) -> bool {
        self.traits().is_go_struct
    }

    fn find_go_struct(&self) -> bool {
        match self.find_shape() {
            Shape::Struct => true,
            Shape::String | Shape::NumberOrString => {
                self.find_special().is_some_and(Special::is_struct)
            }
            _ => false,
        }
    }

    /// What JSON belongs here.
    pub fn shape(&self) -> Shape {
        self.traits().shape
    }

    fn find_shape(&self) -> Shape {
        let target = self.target;
        match target.kind.as_deref() {
            _ if self.is_int_or_string() => Shape::NumberOrString,
            Some("array") => Shape::List,
            Some("string") => Shape::String,
            Some("integer") => Shape::Integer,
            Some("number") => Shape::Number,
            Some("boolean") => Shape::Boolean,
            Some("object") if target.additional_properties.is_some() => Shape::Map,
            Some("object") if !target.properties.is_empty() => Shape::Struct,
            Some(_) => Shape::Free,
            None if self.name.is_some() && !target.one_of.is_empty() => Shape::NumberOrString,
            None => Shape::Free,
        }
    }

    /// The strategic merge strategies of a list or struct field: `merge`, `replace`, `retainKeys`.
    pub fn patch_strategies(&self) -> impl Iterator<Item = &'a str> {
        self.place
            .patch_strategy
            .iter()
            .flat_map(|strategies| strategies.split(','))
    }

    /// The one field that identifies an element of the list in a strategic merge.
    pub fn merge_key(&self) -> Option<&'a str> {
        self.place.merge_key.as_deref()
    }

    /// The same as a list, for what takes any number of keys.
    pub(crate) fn merge_keys(&self) -> &'a [String] {
        self.place.merge_key.as_slice()
    }

    /// `atomic`, `set` or `map`, for server-side apply.
    pub fn list_type(&self) -> Option<&'a str> {
        self.place
            .list_type
            .as_deref()
            .or(self.target.list_type.as_deref())
    }

    /// `atomic` or `granular`, for server-side apply.
    pub fn map_type(&self) -> Option<&'a str> {
        self.place
            .map_type
            .as_deref()
            .or(self.target.map_type.as_deref())
    }

    /// The fields that together identify an element of a `map` list in server-side apply.
    pub fn list_map_keys(&self) -> &'a [String] {
        if self.place.list_map_keys.is_empty() {
            &self.target.list_map_keys
        } else {
            &self.place.list_map_keys
        }
    }
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
        assert_eq!(ports.merge_key(), Some("containerPort"));
        assert_eq!(ports.list_map_keys(), ["containerPort", "protocol"]);
    }

    #[test]
    fn a_custom_kind_has_a_schema_of_the_same_type() {
        let node = Node::parse(&json!({
            "type": "object",
            "properties": {
                "spec": { "type": "object", "required": ["size"], "properties": {
                    "size": { "type": "integer", "minimum": 1, "default": 3 },
                    "port": { "x-kubernetes-int-or-string": true },
                    "rest": { "x-kubernetes-preserve-unknown-fields": true },
                } },
                "metadata": { "$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" },
            },
        }))
        .unwrap();
        let root = Schema::at(&node);
        let spec = root.field("spec").unwrap();
        assert_eq!(spec.shape(), Shape::Struct);
        assert_eq!(spec.field("size").unwrap().default(), Some(&json!(3)));
        assert_eq!(spec.field("port").unwrap().shape(), Shape::NumberOrString);
        assert!(spec.field("rest").unwrap().preserves_unknown());
        assert_eq!(
            root.field("metadata").unwrap().short_name(),
            Some("ObjectMeta")
        );
        assert!(Node::parse(&json!({ "properties": [] })).is_err());
    }
}
