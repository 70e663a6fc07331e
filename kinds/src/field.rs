//! A field of an object: its value, and its path as messages write it.
//!
//! Validation names a field once, by [`Field::child`], and reads and reports by it, so that what is looked at is what is
//! complained about. After `field.Path` of k8s.io/apimachinery, with the value beside it. Paths are only put together when a
//! problem is told.
//!
//! Invariants: null is absent; a value of another type than asked for is absent, because the schema refused it before.

use std::fmt;

use serde_json::{Map, Value};
use weft_api::quantity::Quantity;

use crate::quantity_of;

/// A place in an object: values live as long as the object, paths as long as the fields above.
#[derive(Clone, Copy)]
pub(crate) struct Field<'v, 'p> {
    value: Option<&'v Value>,
    above: Option<&'p Field<'v, 'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    /// One member, or several with dots between: `strategy.rollingUpdate`.
    Member(&'p str),
    /// An element of the list in this member.
    Element(&'p str, usize),
    /// The value under a key of the map in this member.
    Entry(&'p str, &'p str),
}

impl<'v, 'p> Field<'v, 'p> {
    pub(crate) fn root(value: &'v Value) -> Self {
        Self {
            value: Some(value),
            above: None,
            step: Step::Root,
        }
    }

    /// The object that it is a field of.
    pub(crate) fn object(&self) -> Option<&'v Value> {
        let mut top = self;
        while let Some(above) = top.above {
            top = above;
        }
        top.value
    }

    fn below<'q>(&'q self, value: Option<&'v Value>, step: Step<'q>) -> Field<'v, 'q> {
        Field {
            value: value.filter(|value| !value.is_null()),
            above: Some(self),
            step,
        }
    }

    fn find(&self, names: &str) -> Option<&'v Value> {
        if names.is_empty() {
            return self.value;
        }
        let (mut value, mut rest) = (self.value?, names);
        // Names are short, and mostly one.
        while let Some(end) = rest.bytes().position(|byte| byte == b'.') {
            let (name, next) = rest.split_at_checked(end)?;
            value = value.get(name)?;
            rest = next.get(1..)?;
        }
        value.get(rest)
    }

    /// A member, or one further down, with dots between the names.
    pub(crate) fn child<'q>(&'q self, names: &'q str) -> Field<'v, 'q> {
        self.below(self.find(names), Step::Member(names))
    }

    /// A member under another name than its own: where Kubernetes' messages name it so.
    pub(crate) fn child_as<'q>(&'q self, names: &str, shown: &'q str) -> Field<'v, 'q> {
        self.below(self.find(names), Step::Member(shown))
    }

    /// The same value under the path of another field: where Kubernetes' messages leave a part out.
    pub(crate) fn moved_to<'q>(&self, other: &Field<'v, 'q>) -> Field<'v, 'q> {
        Field {
            value: self.value,
            ..*other
        }
    }

    /// The members of a map further down, under another name.
    pub(crate) fn entries_as<'q>(
        &'q self,
        names: &str,
        shown: &'q str,
    ) -> impl Iterator<Item = (&'v str, Field<'v, 'q>)> {
        let map = self.find(names).and_then(Value::as_object);
        map.into_iter().flatten().map(move |(key, value)| {
            let step = Step::Entry(shown, key);
            (key.as_str(), self.below(Some(value), step))
        })
    }

    /// The elements of a list further down.
    pub(crate) fn items<'q>(
        &'q self,
        names: &'q str,
    ) -> impl DoubleEndedIterator<Item = Field<'v, 'q>> + ExactSizeIterator {
        let list = self.find(names).and_then(Value::as_array);
        let list: &'v [Value] = list.map_or(&[], Vec::as_slice);
        let elements = list.iter().enumerate();
        elements.map(move |(index, value)| self.below(Some(value), Step::Element(names, index)))
    }

    /// One element of a list further down, whether it is there or not.
    pub(crate) fn item<'q>(&'q self, names: &'q str, index: usize) -> Field<'v, 'q> {
        let value = self.find(names).and_then(|list| list.get(index));
        self.below(value, Step::Element(names, index))
    }

    /// The members of a map further down, in the order of their keys.
    pub(crate) fn entries<'q>(
        &'q self,
        names: &'q str,
    ) -> impl Iterator<Item = (&'v str, Field<'v, 'q>)> {
        let map = self.find(names).and_then(Value::as_object);
        map.into_iter().flatten().map(move |(key, value)| {
            let step = Step::Entry(names, key);
            (key.as_str(), self.below(Some(value), step))
        })
    }

    /// One member of a map further down, whether it is there or not.
    pub(crate) fn entry<'q>(&'q self, names: &'q str, key: &'q str) -> Field<'v, 'q> {
        let value = self.find(names).and_then(|map| map.get(key));
        self.below(value, Step::Entry(names, key))
    }

    pub(crate) fn value(&self) -> Option<&'v Value> {
        self.value
    }

    pub(crate) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// The value as messages show it.
    pub(crate) fn shown(&self) -> Value {
        self.value.cloned().unwrap_or_default()
    }

    /// The text, empty when there is none.
    pub(crate) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    /// Whether it is `true`.
    pub(crate) fn flag(&self) -> bool {
        self.value == Some(&Value::Bool(true))
    }

    pub(crate) fn quantity(&self) -> Option<Quantity> {
        quantity_of(self.value?)
    }

    pub(crate) fn list(&self) -> &'v [Value] {
        self.value
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn map(&self) -> Option<&'v Map<String, Value>> {
        self.value.and_then(Value::as_object)
    }

    /// Whether it is neither a list nor a map with anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.list().is_empty() && self.map().is_none_or(Map::is_empty)
    }
}

impl fmt::Display for Field<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
            if above.above.is_some() {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Member(names) => f.write_str(names),
            Step::Element(names, index) => write!(f, "{names}[{index}]"),
            Step::Entry(names, key) => write!(f, "{names}[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_has_the_path_that_it_was_reached_by() {
        let value = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "resources": {"limits": {"example.com/x": "1"}}},
        ]}}}});
        let root = Field::root(&value);
        let spec = root.child("spec.template.spec");
        let container = spec.items("containers").next_back().unwrap();
        assert_eq!(container.child("name").text(), "b");
        let (_, limit) = container.entries("resources.limits").next().unwrap();
        assert_eq!(
            limit.to_string(),
            "spec.template.spec.containers[1].resources.limits[example.com/x]"
        );
        assert_eq!(limit.quantity(), Quantity::parse("1").ok());
        let absent = container.child("env");
        let absent = absent.item("valueFrom", 3);
        assert_eq!(
            (absent.to_string().as_str(), absent.is_set()),
            ("spec.template.spec.containers[1].env.valueFrom[3]", false)
        );
    }
}
