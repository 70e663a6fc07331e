//! What Go's types say of each message: numbers, names in JSON, forms, and which zeros are left out.
//!
//! Invariant: the committed table agrees with itself; each name of a message has its fields (a test reads all of it).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let text: TableText<'static> = serde_json::from_str(include_str!("../schema/protobuf.json"))
        .expect("the committed table has kinds and types");
    Table::of(&text)
});

#[derive(Deserialize)]
struct TableText<'a> {
    #[serde(borrow)]
    kinds: BTreeMap<&'a str, &'a str>,
    #[serde(borrow)]
    types: BTreeMap<&'a str, Vec<&'a str>>,
}

pub(super) struct Table {
    /// By `GROUP/VERSION/KIND`.
    kinds: BTreeMap<&'static str, usize>,
    pub(super) messages: Vec<Message>,
}

/// The fields of a Go struct, by their numbers on the wire.
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) number: u32,
    /// In JSON; empty where the fields of the message stand in its parent.
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) many: Many,
    /// Absent and zero differ; absent is left out with `omitempty`, else null.
    pub(super) pointer: bool,
    /// Go's `omitempty`: zeros of scalars, lists and maps are left out of JSON.
    pub(super) omit_empty: bool,
    /// Go's `omitzero`: that of structs, too.
    pub(super) omit_zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    Map,
    /// A map of lists, each in a message of its own (authentication's ExtraValue).
    MapOfLists,
    /// A list in a message of its own (discovery's Verbs).
    Wrapped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Bool,
    Int,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as bytes.
    Raw,
    Double,
    /// By its place in the table.
    Message(usize),
    /// A JSON schema, by its place, or a list of them.
    SchemaOrList(usize),
    /// A JSON schema, or whether anything goes.
    SchemaOrFlag(usize),
    /// A JSON schema, or names.
    SchemaOrNames(usize),
}

/// What the last three hold.
const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl Table {
    fn of(text: &TableText<'static>) -> Self {
        let places: BTreeMap<&str, usize> = text.types.keys().copied().zip(0..).collect();
        let message = |fields: &Vec<&'static str>| {
            let field = |field: &&'static str| Field::of(field, &places);
            let mut fields: Vec<Field> = fields.iter().map(field).collect();
            fields.sort_by_key(|field| field.number);
            Message { fields }
        };
        Self {
            kinds: text
                .kinds
                .iter()
                .map(|(kind, name)| (*kind, places[name]))
                .collect(),
            messages: text.types.values().map(message).collect(),
        }
    }

    /// The message of a kind. Options of requests are of any group.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<usize> {
        let slash = if api_version.contains('/') { "" } else { "/" };
        self.kinds
            .get(format!("{slash}{api_version}/{kind}").as_str())
            .copied()
    }
}

impl Field {
    fn of(text: &'static str, places: &BTreeMap<&str, usize>) -> Self {
        let mut parts = text.split('|');
        let mut part = || {
            parts
                .next()
                .expect("a field of the committed table has four parts")
        };
        let number = part().parse().expect("the first part is a number");
        let (name, form, flags) = (part(), part(), part());
        let (many, form) = match (form.strip_prefix("[]"), form.strip_prefix("{}")) {
            (Some(form), _) if flags.contains('w') => (Many::Wrapped, form),
            (Some(form), _) => (Many::List, form),
            (_, Some(form)) if flags.contains('w') => (Many::MapOfLists, form),
            (_, Some(form)) => (Many::Map, form),
            (None, None) => (Many::One, form),
        };
        Self {
            number,
            name,
            form: match form {
                "string" => Form::Text,
                "bool" => Form::Bool,
                "int" => Form::Int,
                "bytes" => Form::Bytes,
                "time" => Form::Time,
                "microtime" => Form::MicroTime,
                "quantity" => Form::Quantity,
                "intorstring" => Form::IntOrString,
                "raw" => Form::Raw,
                "double" => Form::Double,
                "orarray" => Form::SchemaOrList(places[SCHEMA]),
                "orbool" => Form::SchemaOrFlag(places[SCHEMA]),
                "orstrings" => Form::SchemaOrNames(places[SCHEMA]),
                message => Form::Message(places[message]),
            },
            many,
            pointer: flags.contains('p'),
            omit_empty: flags.contains('e'),
            omit_zero: flags.contains('z'),
        }
    }

    /// Whether Go keeps a struct here, which `omitempty` never leaves out.
    pub(super) fn is_struct(&self) -> bool {
        self.many == Many::One
            && match self.form {
                Form::Text | Form::Bool | Form::Int | Form::Bytes | Form::Double => false,
                Form::Time | Form::MicroTime | Form::Quantity | Form::IntOrString | Form::Raw => {
                    true
                }
                Form::Message(_)
                | Form::SchemaOrList(_)
                | Form::SchemaOrFlag(_)
                | Form::SchemaOrNames(_) => true,
            }
    }

    /// Whether the zero of this field is left out of JSON.
    pub(super) fn omits_zero(&self) -> bool {
        self.omit_zero || (self.omit_empty && !self.is_struct())
    }

    /// What Go writes as JSON for this field when nothing was read for it; `None`: nothing.
    pub(super) fn absent(&self, table: &Table) -> Option<Value> {
        if self.omits_zero() || (self.pointer && self.omit_empty) {
            return None;
        }
        if self.pointer {
            return Some(Value::Null);
        }
        Some(match (self.many, self.form) {
            (Many::List | Many::Map | Many::MapOfLists | Many::Wrapped, _) => Value::Null,
            (Many::One, Form::Text) => "".into(),
            (Many::One, Form::Bool) => false.into(),
            (Many::One, Form::Int | Form::IntOrString | Form::Double) => 0.into(),
            (Many::One, Form::Quantity) => "0".into(),
            (Many::One, Form::Bytes | Form::Time | Form::MicroTime | Form::Raw) => Value::Null,
            (Many::One, Form::SchemaOrFlag(_)) => false.into(),
            (Many::One, Form::SchemaOrList(_) | Form::SchemaOrNames(_)) => Value::Null,
            (Many::One, Form::Message(message)) => table.zero(message).into(),
        })
    }
}

impl Table {
    /// What Go writes as JSON for an empty struct.
    pub(super) fn zero(&self, message: usize) -> Map<String, Value> {
        let mut object = Map::new();
        self.complete(message, &mut object);
        object
    }

    /// Adds what Go's JSON has although nothing was read for it.
    pub(super) fn complete(&self, message: usize, object: &mut Map<String, Value>) {
        for field in &self.messages[message].fields {
            match field.form {
                Form::Message(inlined) if field.name.is_empty() => self.complete(inlined, object),
                _ if object.contains_key(field.name) => {}
                _ => {
                    let absent = field.absent(self);
                    object.extend(absent.map(|value| (field.name.to_owned(), value)));
                }
            }
        }
    }
}
