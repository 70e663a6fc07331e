//! Schemas as Rust writes them: a value that says what a field may be, and is JSON in the end.
//!
//! Use: `object([("name!", text().length(1, 253)), ("port", number().between(1, 65535))])`: a name with `!` has to be there.
//!
//! Invariant: what comes out is a structural schema; lists say how they are merged.

use serde_json::{Value, json};

/// A schema.
#[derive(Clone)]
pub(crate) struct Shape(Value);

/// Fields of an object; those whose name ends in `!` have to be there.
pub(crate) type Fields = Vec<(&'static str, Shape)>;

pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, Shape)>) -> Shape {
    let mut schema = json!({ "type": "object" });
    let mut required = Vec::new();
    for (field, Shape(shape)) in fields {
        let name = field.trim_end_matches('!');
        schema["properties"][name] = shape;
        if name != field {
            required.push(name);
        }
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    Shape(schema)
}

/// An object whose fields users name.
pub(crate) fn map_of(Shape(value): Shape) -> Shape {
    Shape(json!({ "type": "object", "additionalProperties": value }))
}

fn of_type(name: &str) -> Shape {
    Shape(json!({ "type": name }))
}

pub(crate) fn text() -> Shape {
    of_type("string")
}

/// One of these words.
pub(crate) fn one_of(words: &[&str]) -> Shape {
    text().with("enum", words.into())
}

/// An integer of 32 bits.
pub(crate) fn number() -> Shape {
    integer().format("int32")
}

pub(crate) fn integer() -> Shape {
    of_type("integer")
}

pub(crate) fn flag() -> Shape {
    of_type("boolean")
}

/// A list that is one value: whoever writes it writes all of it.
pub(crate) fn list(item: Shape) -> Shape {
    list_as("atomic", item)
}

/// A list of values that are there once.
pub(crate) fn set(item: Shape) -> Shape {
    list_as("set", item)
}

/// A list of objects, each found by its `key`.
pub(crate) fn keyed(key: &str, item: Shape) -> Shape {
    list_as("map", item).with("x-kubernetes-list-map-keys", json!([key]))
}

fn list_as(kind: &str, Shape(item): Shape) -> Shape {
    Shape(json!({ "type": "array", "items": item, "x-kubernetes-list-type": kind }))
}

impl Shape {
    pub(crate) fn into_value(self) -> Value {
        self.0
    }

    pub(crate) fn with(mut self, keyword: &str, value: Value) -> Self {
        self.0[keyword] = value;
        self
    }

    pub(crate) fn format(self, format: &str) -> Self {
        self.with("format", format.into())
    }

    pub(crate) fn pattern(self, pattern: &str) -> Self {
        self.with("pattern", pattern.into())
    }

    /// What it is where nobody says.
    pub(crate) fn or(self, default: impl Into<Value>) -> Self {
        self.with("default", default.into())
    }

    pub(crate) fn described(self, words: &str) -> Self {
        self.with("description", words.into())
    }

    /// Bounds of what it counts: characters, elements, members. A lower one of 0 is none.
    fn sized(self, least: u64, most: u64) -> Self {
        let what = match self.0["type"].as_str() {
            Some("array") => "Items",
            Some("object") => "Properties",
            _ => "Length",
        };
        let shape = self.with(&format!("max{what}"), most.into());
        match least {
            0 => shape,
            _ => shape.with(&format!("min{what}"), least.into()),
        }
    }

    pub(crate) fn at_most(self, most: u64) -> Self {
        self.sized(0, most)
    }

    pub(crate) fn length(self, least: u64, most: u64) -> Self {
        self.sized(least, most)
    }

    pub(crate) fn at_least(self, least: i64) -> Self {
        self.with("minimum", least.into())
    }

    pub(crate) fn between(self, least: i64, most: i64) -> Self {
        self.at_least(least).with("maximum", most.into())
    }

    /// Written as a whole, as against field by field.
    pub(crate) fn atomic(self) -> Self {
        self.with("x-kubernetes-map-type", "atomic".into())
    }

    /// A rule, and what is told when it is broken.
    pub(crate) fn rule(mut self, rule: impl Into<String>, message: impl Into<String>) -> Self {
        let rule = json!({ "rule": rule.into(), "message": message.into() });
        match self.0["x-kubernetes-validations"].as_array_mut() {
            Some(rules) => rules.push(rule),
            None => self.0["x-kubernetes-validations"] = json!([rule]),
        }
        self
    }
}
