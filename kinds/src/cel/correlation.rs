//! What an old object has where a value of the new one stands, and whether the two are the same.
//!
//! Fields correlate by name, elements of lists that are maps by their keys, and nothing else does. What an update leaves as it was is not
//! held against it, and whether it does is looked at only where a rule is broken.
//!
//! Invariants: pure; a list is gone through once for each time that it is asked about.
//! Source: k8s.io/apiserver `pkg/cel/common/{equality,maplist}.go`; k8s.io/apiextensions-apiserver
//! `pkg/apiserver/schema/cel/validation.go`, `ratchetingOptions`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::schema::Schema;

/// A value, the one that it takes the place of, and what they are.
#[derive(Clone, Copy)]
struct Pair<'a> {
    schema: Schema<'a>,
    new: &'a Json,
    old: &'a Json,
}

/// What is known of a place in the old object.
#[derive(Clone, Copy, Default)]
pub(crate) struct Old<'a> {
    /// The counterpart that rules about a change see.
    value: Option<&'a Json>,
    /// The pair at this place, and the nearest one above it; none where nothing is forgiven.
    current: Option<Pair<'a>>,
    parent: Option<Pair<'a>>,
}

impl<'a> Old<'a> {
    /// At the root.
    pub(crate) fn of(
        schema: Schema<'a>,
        new: &'a Json,
        old: Option<&'a Json>,
        forgives: bool,
    ) -> Self {
        let old = old.filter(|old| !old.is_null());
        let current = old.filter(|_| forgives);
        Self {
            value: old,
            current: current.map(|old| Pair { schema, new, old }),
            parent: None,
        }
    }

    pub(crate) fn value(&self) -> Option<&'a Json> {
        self.value
    }

    /// Whether a rule about the value alone is not held against it: it, or what it is in, is as it was.
    pub(crate) fn is_unchanged(&self) -> bool {
        let pair = self.current.or(self.parent);
        pair.is_some_and(|pair| same(pair.schema, pair.new, pair.old))
    }

    /// Whether it is equal to the value whose place it takes.
    pub(crate) fn is_same(&self) -> bool {
        self.current
            .is_some_and(|pair| same(pair.schema, pair.new, pair.old))
    }

    /// For the rules of a part of the schema that is about the whole.
    pub(crate) fn part(self) -> Self {
        Self {
            current: None,
            ..self
        }
    }

    /// At a field of an object, or an entry of a map.
    pub(crate) fn key(self, name: &str, schema: Schema<'a>, new: &'a Json) -> Self {
        let below = |json: &'a Json| json.as_object().and_then(|map| map.get(name));
        let value = self.value.and_then(below).filter(|value| !value.is_null());
        let Some(current) = self.current else {
            return Self { value, ..self };
        };
        // The version is not the object's own: it is read and written as any.
        if self.parent.is_none() && matches!(name, "apiVersion" | "kind") {
            return Self {
                value,
                ..Self::default()
            };
        }
        Self {
            value,
            current: below(current.old).map(|old| Pair { schema, new, old }),
            parent: Some(current),
        }
    }

    /// At an element of a list; `value` and `pair` are its counterparts in the two senses.
    pub(crate) fn element(
        self,
        schema: Schema<'a>,
        new: &'a Json,
        counterpart: Option<&'a Json>,
    ) -> Self {
        let Some(current) = self.current else {
            return Self {
                value: counterpart,
                ..self
            };
        };
        Self {
            value: counterpart,
            current: counterpart.map(|old| Pair { schema, new, old }),
            parent: Some(current),
        }
    }
}

/// The elements of a list that is a map, by their keys.
pub(crate) struct Keyed<'a> {
    keys: &'a [String],
    elements: BTreeMap<String, &'a Json>,
}

impl<'a> Keyed<'a> {
    /// None of the elements of any other list have counterparts.
    pub(crate) fn of(schema: Schema<'a>, items: Option<&'a Json>) -> Self {
        let keys = match schema.list_type() {
            Some("map") => schema.list_map_keys(),
            _ => &[],
        };
        let mut elements = BTreeMap::new();
        let items = items.and_then(Json::as_array).filter(|_| !keys.is_empty());
        for item in items.into_iter().flatten() {
            if let Some(key) = key(keys, item) {
                elements.entry(key).or_insert(item);
            }
        }
        Self { keys, elements }
    }

    pub(crate) fn find(&self, item: &Json) -> Option<&'a Json> {
        if self.elements.is_empty() {
            return None;
        }
        self.elements.get(&key(self.keys, item)?).copied()
    }
}

/// What an element is known by; none without all of its keys.
fn key(keys: &[String], item: &Json) -> Option<String> {
    let mut text = String::new();
    for key in keys {
        match item.get(key)? {
            Json::Null | Json::Array(_) | Json::Object(_) => return None,
            // Writing to a String cannot fail.
            value => {
                let _ = write!(text, "\0{value}");
            }
        }
    }
    Some(text)
}

/// Whether two values are equal, lists that are maps in whatever order. What the schema does not have is not compared: it is not equal.
fn same(schema: Schema<'_>, new: &Json, old: &Json) -> bool {
    match (new, old) {
        (Json::Array(new), Json::Array(before)) => {
            if new.len() != before.len() {
                return false;
            }
            if schema.list_type() != Some("map") {
                return new == before;
            }
            let keyed = Keyed::of(schema, Some(old));
            let Some(item) = schema.items() else {
                return new.is_empty();
            };
            new.iter().all(|new| {
                let found = keyed.find(new);
                found.is_some_and(|old| same(item, new, old))
            })
        }
        (Json::Object(new), Json::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(name, new)| {
                    let field = schema.property(name).map(|(_, field)| field);
                    let field = field.or_else(|| schema.additional());
                    match (field, old.get(name)) {
                        (Some(field), Some(old)) => same(field, new, old),
                        _ => false,
                    }
                })
        }
        (new, old) => new == old,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Node;

    #[test]
    fn elements_are_found_by_their_keys_in_any_order() {
        let node = Node::parse(&json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "n"],
            "items": { "type": "object", "properties": { "k": { "type": "string" }, "n": { "type": "integer" }, "v": { "type": "string" } } },
        }))
        .unwrap();
        let schema = Schema::at(&node);
        let old = json!([{"k": "a", "n": 1, "v": "x"}, {"k": "a", "n": 2}, {"k": "b"}]);
        let keyed = Keyed::of(schema, Some(&old));
        assert_eq!(
            keyed.find(&json!({"n": 1, "k": "a", "v": "y"})),
            Some(&old[0])
        );
        assert_eq!(keyed.find(&json!({"k": "b"})), None);
        assert_eq!(keyed.find(&json!("a")), None);
        let moved = json!([{"k": "a", "n": 2}, {"k": "a", "n": 1, "v": "x"}]);
        let as_it_was = json!([{"k": "a", "n": 1, "v": "x"}, {"k": "a", "n": 2}]);
        assert!(same(schema, &moved, &as_it_was));
        assert!(!same(schema, &moved, &old));
        // A field that nobody declared makes it another.
        let strange = json!([{"k": "a", "n": 2, "w": 1}]);
        assert!(!same(schema, &strange, &strange));
    }
}
