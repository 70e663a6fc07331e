//! An applied configuration laid over the live object: its scalars and wholes win, everything else is joined.
//!
//! Elements of a list stand in the order of the configuration; those that only the live list has keep their place beside the
//! element that they stood before. Source: `typed/merge.go` of structured-merge-diff.
//!
//! Invariants: nothing that the configuration leaves out is lost; merging a value with itself is the value, duplicates aside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::Element;
use super::form::{Form, ListForm, MapForm, Type};

/// Lays `config` over `live`; none when nothing comes of it.
pub(super) fn merge(live: &Value, config: &Value, of: Type<'_>) -> Option<Value> {
    match of.of(Some(config)) {
        Form::Scalar(_)
        | Form::List(ListForm { atomic: true, .. })
        | Form::Map(MapForm { atomic: true, .. }) => Some(config.clone()),
        Form::List(list) => {
            let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let (live, given) = (items(live), items(config));
            if live.is_empty() && given.is_empty() {
                return Some(config.clone());
            }
            let merged = lists(&live, &given, &list);
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        Form::Map(map) => {
            let empty = Map::new();
            let live = live.as_object().unwrap_or(&empty);
            let given = config.as_object().unwrap_or(&empty);
            if live.is_empty() && given.is_empty() {
                return Some(config.clone());
            }
            let mut merged = live.clone();
            for (name, value) in given {
                let value = match (live.get(name), map.member(name)) {
                    (Some(live), Some(of)) => merge(live, value, of),
                    _ => Some(value.clone()),
                };
                match value {
                    Some(value) => merged.insert(name.clone(), value),
                    None => merged.remove(name),
                };
            }
            Some(Value::Object(merged))
        }
    }
}

fn lists(live: &[Value], given: &[Value], list: &ListForm<'_>) -> Vec<Value> {
    let named = |items: &[Value]| -> Vec<(Element, Value)> {
        let named = |item: &Value| Some((list.id(item).ok()?, item.clone()));
        items.iter().filter_map(named).collect()
    };
    let (live, given) = (named(live), named(given));
    let wanted: BTreeSet<&Element> = given.iter().map(|(id, _)| id).collect();
    // Where an element is there more than once, none of them is the one that is meant.
    let mut counterparts: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (id, item) in &live {
        counterparts
            .entry(id)
            .and_modify(|counterpart| *counterpart = None)
            .or_insert(Some(item));
    }
    let mut shared: VecDeque<&Element> = given
        .iter()
        .map(|(id, _)| id)
        .filter(|id| counterparts.contains_key(*id))
        .collect();
    let merged = |id: &Element, item: &Value| match counterparts.get(id) {
        Some(Some(live)) => merge(live, item, list.element),
        _ => Some(item.clone()),
    };

    let mut out = Vec::with_capacity(live.len().max(given.len()));
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let (mut left, mut right) = (live.as_slice(), given.as_slice());
    loop {
        match (left, right) {
            ([], []) => return out,
            // Only live, whatever comes next: it keeps its place.
            ([(id, item), rest @ ..], _) if !wanted.contains(id) => {
                out.push(item.clone());
                left = rest;
            }
            // Merged already, or its turn comes later.
            ([(id, _), rest @ ..], [(next, _), ..])
                if id != next && shared.front().is_some_and(|turn| *turn != id) =>
            {
                left = rest;
            }
            ([(id, _), rest @ ..], []) if done.contains(id) => left = rest,
            (_, [(id, item), rest @ ..]) => {
                out.extend(merged(id, item));
                done.insert(id);
                match left {
                    [(first, _), others @ ..] if first == id => left = others,
                    [(first, _), others @ ..] if done.contains(first) => left = others,
                    _ => {}
                }
                if shared.front() == Some(&id) {
                    shared.pop_front();
                }
                right = rest;
            }
            ([_, rest @ ..], []) => left = rest,
        }
    }
}
