//! Objects seen through their types: what fits, which fields there are, what two objects differ in, what is left without some.
//!
//! The walks of structured-merge-diff over JSON values. Two values of one place may have two forms where the type allows it (a map
//! here, a string there); then the fields of both are looked at.
//!
//! Invariants: pure; recursion is as deep as the value; what [`faults`] has passed (duplicates aside) has a set of fields, and
//! two such objects of one type compare. Of elements with the same name in one list only the name is a field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::element::{Element, same};
use super::fields::{Place, Set};
use super::form::{Form, ListForm, MapForm, Scalar, Type};

/// Faults of one object that are told: a client mends the first few first.
const FAULTS_MAX: usize = 32;

/// What does not fit a type, as structured-merge-diff tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    fn tell(&mut self, place: &Trail<'_>, fault: &str) {
        let colon = if place.above.is_none() { "" } else { ": " };
        if self.0.len() < FAULTS_MAX {
            self.0.push(format!("{place}{colon}{fault}"));
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

/// Where a walk is. Spelled only where there is something to tell: most objects fit.
struct Trail<'v> {
    /// None for the object itself.
    above: Option<&'v Trail<'v>>,
    step: Below<'v>,
}

#[derive(Clone, Copy)]
enum Below<'v> {
    Object,
    Member(&'v str),
    Element(&'v Element),
}

impl<'v> Trail<'v> {
    fn below(&'v self, step: Below<'v>) -> Self {
        Self {
            above: Some(self),
            step,
        }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Below::Object => Ok(()),
            Below::Member(name) => write!(f, ".{name}"),
            Below::Element(element) => element.fmt(f),
        }
    }
}

/// Judges an object by its type. What is applied names no element twice; what is stored may.
pub(super) fn check(value: &Value, of: Type<'_>, duplicates: bool) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let object = Trail {
        above: None,
        step: Below::Object,
    };
    check_at(value, of, duplicates, &object, &mut faults);
    match faults.0.is_empty() {
        true => Ok(()),
        false => Err(faults),
    }
}

fn check_at(value: &Value, of: Type<'_>, duplicates: bool, place: &Trail<'_>, faults: &mut Faults) {
    if value.is_null() {
        return;
    }
    match (of.of(Some(value)), value) {
        (Form::Scalar(scalar), value) => {
            let fault = match (scalar, value) {
                (Scalar::Number, Value::Number(_))
                | (Scalar::Text, Value::String(_))
                | (Scalar::Boolean, Value::Bool(_)) => return,
                (Scalar::Any, value) if !value.is_array() && !value.is_object() => return,
                (Scalar::Number, _) => {
                    format!("expected numeric (int or float), got {}", go_type(value))
                }
                (Scalar::Text, _) => {
                    let value = go_syntax(value);
                    format!("expected string, got &value.valueUnstructured{{Value:{value}}}")
                }
                (Scalar::Boolean, _) => format!("expected boolean, got &{{{}}}", go_text(value)),
                (Scalar::Any, _) => format!("expected any scalar, got &{{{}}}", go_text(value)),
            };
            faults.tell(place, &fault);
        }
        (Form::List(list), Value::Array(items)) if list.atomic => {
            for (index, item) in (0..).zip(items) {
                let id = Element::Index(index);
                let place = place.below(Below::Element(&id));
                check_at(item, list.element, duplicates, &place, faults);
            }
        }
        (Form::List(list), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let id = match list.id(item) {
                    Ok(id) => id,
                    Err(fault) => {
                        faults.tell(place, &format!("element {index}: {fault}"));
                        return;
                    }
                };
                if !duplicates && seen.contains(&id) {
                    faults.tell(place, &format!("duplicate entries for key {id}"));
                }
                let place = place.below(Below::Element(&id));
                check_at(item, list.element, duplicates, &place, faults);
                if !duplicates {
                    seen.insert(id);
                }
            }
        }
        (Form::Map(map), Value::Object(members)) => {
            for (name, member) in members {
                let place = place.below(Below::Member(name));
                match map.member(name) {
                    Some(of) => check_at(member, of, duplicates, &place, faults),
                    None => {
                        // Of a map's unknown members, one is told.
                        faults.tell(&place, "field not declared in schema");
                        return;
                    }
                }
            }
        }
        (Form::List(_), value) => {
            faults.tell(
                place,
                &format!("expected list, got &{{{}}}", go_text(value)),
            );
        }
        (Form::Map(_), value) => {
            faults.tell(place, &format!("expected map, got &{{{}}}", go_text(value)));
        }
    }
}

/// The Go type of a value, as `%T` prints it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let members = map.iter();
            let members = members.map(|(name, value)| format!("{name}:{}", go_text(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        value => value.to_string(),
    }
}

/// A value as `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let members = map.iter();
            let members = members.map(|(name, value)| format!("{name:?}:{}", go_syntax(value)));
            let members: Vec<String> = members.collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        value => value.to_string(),
    }
}

/// The fields that an object says something about: scalars and what is one whole, empty maps, elements, and keys of maps.
pub(super) fn fields(value: &Value, of: Type<'_>) -> Set {
    place(value, of).below
}

fn place(value: &Value, of: Type<'_>) -> Place {
    let mut below = Set::default();
    match (of.of(Some(value)), value) {
        (Form::Scalar(_), _)
        | (Form::List(ListForm { atomic: true, .. }), _)
        | (Form::Map(MapForm { atomic: true, .. }), _) => return Place::leaf(),
        (Form::List(list), Value::Array(items)) => {
            for (id, items) in by_id(&list, items) {
                let mut element = match items.as_slice() {
                    [one] => place(one, list.element),
                    _ => Place::default(),
                };
                element.member = true;
                below.put(id, element);
            }
        }
        (Form::Map(map), Value::Object(members)) => {
            for (name, value) in members {
                let declared = map.declared(name);
                let Some(of) = declared.or_else(|| map.undeclared()) else {
                    continue;
                };
                let mut member = place(value, of);
                member.member |= declared.is_none() || is_blank(value);
                below.put(Element::field(name), member);
            }
        }
        _ => {}
    }
    Place {
        member: false,
        below,
    }
}

/// Whether a value is null or a map without members, which is a field of its own.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The elements of a list by what tells them apart. Elements that nothing tells apart were refused before.
fn by_id<'v>(list: &ListForm<'_>, items: &'v [Value]) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut by_id: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(id) = list.id(item) {
            by_id.entry(id).or_default().push(item);
        }
    }
    by_id
}

/// The set with all structs on the way to its fields, so that a struct goes with the last field that was asked for.
pub(super) fn with_structs(set: &Set, of: Option<Type<'_>>) -> Set {
    let (map, list) = (of.and_then(|of| of.map()), of.and_then(|of| of.list()));
    let mut named = Set::default();
    for (element, place) in set.places() {
        let declared = match (element, &map) {
            (Element::Field(name), Some(map)) => map.declared(name),
            _ => None,
        };
        let of = match (element, &map, &list) {
            (Element::Field(_), Some(map), _) => declared.or_else(|| map.undeclared()),
            (Element::Key(_), _, Some(list)) => Some(list.element),
            _ => None,
        };
        let place = Place {
            member: place.member || declared.is_some(),
            below: with_structs(&place.below, of),
        };
        named.put(element.clone(), place);
    }
    named
}

/// The set after a change of the schema: what became one whole is owned as such by who owned a part of it.
pub(super) fn reconciled(set: &Set, of: Type<'_>) -> Set {
    let form = of.of(None);
    let mut reconciled = Set::default();
    for (element, place) in set.places() {
        let below = match (&form, element) {
            (Form::Map(map), Element::Field(name)) => map.member(name),
            (Form::Map(map), _) => map.undeclared(),
            (Form::List(list), _) => Some(list.element),
            (Form::Scalar(_), _) => None,
        };
        let place = match below.map(|of| (of, of.of(None))) {
            Some((_, Form::Map(map))) if map.is_deduced() => place.clone(),
            Some((_, Form::Map(MapForm { atomic: true, .. })))
            | Some((_, Form::List(ListForm { atomic: true, .. }))) => Place::leaf(),
            Some((of, Form::Map(_) | Form::List(_))) => Place {
                member: place.member,
                below: reconciled_below(&place.below, of),
            },
            Some((_, Form::Scalar(_))) | None => place.clone(),
        };
        reconciled.put(element.clone(), place);
    }
    reconciled
}

fn reconciled_below(set: &Set, of: Type<'_>) -> Set {
    match set.is_empty() {
        true => Set::default(),
        false => reconciled(set, of),
    }
}

/// The value without these fields; none where nothing is left of it.
pub(super) fn remove(value: &Value, set: &Set, of: Type<'_>) -> Option<Value> {
    match (of.of(Some(value)), value) {
        (Form::List(ListForm { atomic: true, .. }), Value::Array(items)) if !items.is_empty() => {
            None
        }
        (Form::Map(MapForm { atomic: true, .. }), Value::Object(map)) if !map.is_empty() => None,
        (Form::List(list), Value::Array(items)) if !items.is_empty() => {
            let kept = items.iter().filter_map(|item| {
                let Ok(id) = list.id(item) else {
                    return Some(item.clone());
                };
                match set.below(&id) {
                    _ if set.is_member(&id) => None,
                    None => Some(item.clone()),
                    Some(below) => {
                        let rest = remove(item, below, list.element);
                        Some(rest.unwrap_or_else(|| Value::Object(Map::new())))
                    }
                }
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Form::Map(map), Value::Object(members)) if !members.is_empty() => {
            let kept = members.iter().filter_map(|(name, value)| {
                let element = Element::field(name);
                let rest = match (set.below(&element), map.member(name)) {
                    _ if set.is_member(&element) => None,
                    // A member of which nothing is left is there still: it goes when it is named itself.
                    (Some(below), Some(of)) => {
                        Some(remove(value, below, of).unwrap_or(Value::Null))
                    }
                    _ => Some(value.clone()),
                };
                Some((name.clone(), rest?))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        _ => Some(value.clone()),
    }
}

/// In which fields one object differs from another. No field is in two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

impl Comparison {
    pub(super) fn of(old: &Value, new: &Value, of: Type<'_>) -> Self {
        let mut comparison = Self::default();
        comparison.visit(Some(old), Some(new), of, &mut Vec::new());
        comparison
    }

    /// What is there now and was not, or was otherwise.
    /// What is there now and was not, or was otherwise; and what is gone.
    pub(super) fn into_set_and_removed(self) -> (Set, Set) {
        let mut set = self.modified;
        set.absorb(self.added);
        (set, self.removed)
    }

    fn visit(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        of: Type<'_>,
        path: &mut Vec<Element>,
    ) {
        // Most of an object is as it was, and equality is the cheapest thing that can be asked of two values.
        if old == new {
            return;
        }
        let (before, after) = (of.of(old), of.of(new));
        let one = match (old, new) {
            (None, None) => return,
            (Some(_), None) => before,
            (Some(_), Some(_)) if !before.is_like(&after) => {
                self.visit_as(before, old, new, path);
                after
            }
            (_, Some(_)) => after,
        };
        let is_leaf = self.visit_as(one, old, new, path);
        match (old, new) {
            (None, _) if !is_leaf => self.added.insert(path),
            (_, None) if !is_leaf => self.removed.insert(path),
            _ => {}
        }
    }

    /// Whether the place was compared as a whole.
    fn visit_as(
        &mut self,
        form: Form<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<Element>,
    ) -> bool {
        match form {
            Form::List(list) if !list.atomic => {
                let (old, new) = (elements(old), elements(new));
                if !old.is_empty() || !new.is_empty() {
                    self.lists(&list, old, new, path);
                    return false;
                }
            }
            Form::Map(map) if !map.atomic => {
                let (old, new) = (
                    old.and_then(Value::as_object),
                    new.and_then(Value::as_object),
                );
                let count = |map: Option<&Map<String, Value>>| map.map_or(0, Map::len);
                if count(old) + count(new) > 0 {
                    let empty = Map::new();
                    let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
                    let only_new = new.iter().filter(|(name, _)| !old.contains_key(*name));
                    let pairs = old
                        .iter()
                        .map(|(name, value)| (name, Some(value), new.get(name)));
                    let pairs =
                        pairs.chain(only_new.map(|(name, value)| (name, None, Some(value))));
                    for (name, old, new) in pairs {
                        if let Some(of) = map.member(name) {
                            path.push(Element::field(name));
                            self.visit(old, new, of, path);
                            path.pop();
                        }
                    }
                    return false;
                }
            }
            _ => {}
        }
        match (old, new) {
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            (Some(old), Some(new)) if !same(old, new) => self.modified.insert(path),
            _ => {}
        }
        true
    }

    fn lists(
        &mut self,
        list: &ListForm<'_>,
        old: &[Value],
        new: &[Value],
        path: &mut Vec<Element>,
    ) {
        let (mut old, new) = (by_id(list, old), by_id(list, new));
        let mut pairs: Vec<(Element, Vec<&Value>, Vec<&Value>)> = Vec::new();
        for (id, new) in new {
            let old = old.remove(&id).unwrap_or_default();
            pairs.push((id, old, new));
        }
        pairs.extend(old.into_iter().map(|(id, old)| (id, old, Vec::new())));
        for (id, old, new) in pairs {
            path.push(id);
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => {
                    let (old, new) = (old.first(), new.first());
                    self.visit(old.copied(), new.copied(), list.element, path);
                }
                // Elements that are there more than once are as one whole, and have no fields.
                ([_, _, ..], [_, _, ..]) => {
                    let equal = old.len() == new.len()
                        && old.iter().zip(&new).all(|(old, new)| same(old, new));
                    if !equal {
                        self.modified.insert(path);
                    }
                }
                ([_, _, ..], new) => {
                    if let [new] = new {
                        self.visit(None, Some(*new), list.element, path);
                    }
                    self.removed.insert(path);
                }
                (old, [_, _, ..]) => {
                    if let [old] = old {
                        self.visit(Some(*old), None, list.element, path);
                    }
                    self.added.insert(path);
                }
            }
            path.pop();
        }
    }
}

fn elements(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
