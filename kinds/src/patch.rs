//! Patches: JSON patch, JSON merge patch, strategic merge patch. Values in, a value out.
//!
//! [`apply`] takes the current object and a parsed patch and gives the object that should be stored; the caller then
//! defaults, validates and writes it, and repeats the whole with a fresh object on a conflict.
//!
//! Strategic merge follows `k8s.io/apimachinery/pkg/util/strategicpatch` as the server runs it (parallel lists merged,
//! nulls that match nothing dropped): lists merge by the schema's merge key, `$patch`, `$retainKeys`,
//! `$setElementOrder/LIST` and `$deleteFromPrimitiveList/LIST` are honoured and never stored.
//!
//! Invariants: `current` is never changed; no JSON patch grows an object by copies or nests it beyond bounds (see [`json`]); a failed
//! patch has no effect. Left to others: which fields a patch may not touch (`weft_apiserver::objects`).

mod json;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;

use crate::schema::{Schema, Shape};

/// Operations in one JSON patch, as in Kubernetes: each costs a walk through the object.
const OPERATIONS_MAX: usize = 10_000;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// The patch formats, by content type. Server-side apply is not a patch of an object and lives elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

impl PatchKind {
    /// The kind behind a media type without parameters.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// 415 for a strategic merge of a kind that does not take them.
pub fn not_strategic() -> StatusError {
    StatusError::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

/// Applies `patch` to `current`.
///
/// # Errors
/// 400 for a patch that is not of its format, 413 for a JSON patch of too many operations, 415 for a strategic merge of a kind
/// without a schema, 422 when a JSON patch does not fit the object (a `test` failed, a path is missing) or makes too much of it.
pub fn apply(
    gvk: &GroupVersionKind,
    current: &Value,
    kind: PatchKind,
    patch: &Value,
) -> Result<Value, StatusError> {
    match kind {
        PatchKind::Json => json::apply(current, patch),
        PatchKind::Merge => {
            if !patch.is_object() {
                return Err(StatusError::bad_request(
                    "the merge patch is not a JSON object",
                ));
            }
            let mut merged = current.clone();
            json_patch::merge(&mut merged, patch);
            Ok(merged)
        }
        PatchKind::Strategic => {
            let schema = Schema::of(gvk).ok_or_else(not_strategic)?;
            strategic_merge(current, patch, schema)
                .map_err(|error| StatusError::bad_request(error.to_string()))
        }
    }
}

/// Why a strategic merge patch cannot be understood; the client must send another one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("the strategic merge patch is not a JSON object")]
    NotAnObject,
    #[error("unknown patch type: {0}")]
    UnknownDirective(String),
    #[error("merging lists cannot yet be specified in the patch")]
    ListMerge,
    #[error("map: {element} does not contain declared merge key: {key}")]
    NoMergeKey { element: String, key: String },
    #[error("{directive} must be a list that fits the field it is about")]
    BadDirective { directive: String },
    #[error("the list {field} mixes objects with other values")]
    MixedList { field: String },
}

/// Merges `patch` into a copy of `current` by the schema of the kind.
///
/// # Errors
/// [`PatchError`] when the patch contradicts itself or the schema; `current` alone never causes one.
pub fn strategic_merge(
    current: &Value,
    patch: &Value,
    schema: Schema,
) -> Result<Value, PatchError> {
    let patch = patch.as_object().ok_or(PatchError::NotAnObject)?.clone();
    let current = current.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_map(current, patch, Some(schema))?))
}

type Object = Map<String, Value>;

fn merge_map(
    mut original: Object,
    mut patch: Object,
    schema: Option<Schema>,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(PatchError::UnknownDirective(directive.to_string())),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;

    for (key, value) in patch {
        if let Some(key) = key.strip_prefix(DELETE_PRIMITIVES) {
            let Value::Array(doomed) = value else {
                return Err(PatchError::BadDirective {
                    directive: format!("{DELETE_PRIMITIVES}{key}"),
                });
            };
            if let Some(Value::Array(items)) = original.get_mut(key) {
                let doomed: BTreeSet<String> = doomed.iter().map(Value::to_string).collect();
                items.retain(|item| !doomed.contains(&item.to_string()));
            }
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let field = schema.and_then(|schema| schema.field(&key));
        // Taken in place, so that the field keeps its position whatever the map's order is.
        let merged = match (original.get_mut(&key).map(Value::take), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !has_strategy(field, "replace") => {
                Value::Object(merge_map(old, new, field)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) if has_strategy(field, "merge") => {
                Value::Array(merge_list(&key, old, new, field, None)?)
            }
            // A list or a map that is one whole is taken as it is, with whatever stands in it.
            (Some(Value::Array(_)), new @ Value::Array(_))
            | (Some(Value::Object(_)), new @ Value::Object(_)) => new,
            // Nothing to replace or to delete: what says so says nothing else.
            (_, new) if is_directive(&new) => {
                original.remove(&key);
                continue;
            }
            (_, mut new) => {
                clean(&mut new);
                new
            }
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn has_strategy(field: Option<Schema>, strategy: &str) -> bool {
    field.is_some_and(|field| field.patch_strategies().any(|mine| mine == strategy))
}

/// `$retainKeys: [a, b]` drops every other key of the object, so that a union can change its member.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::BadDirective {
        directive: RETAIN_KEYS.to_owned(),
    };
    let keys: Vec<&str> = keys
        .as_array()
        .ok_or_else(bad)?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    // A key that the patch sets and does not retain is a contradiction.
    if patch.iter().any(|(key, value)| {
        !key.starts_with('$') && !value.is_null() && !keys.contains(&key.as_str())
    }) {
        return Err(bad());
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// Lists with a `$setElementOrder` are merged first, then put in the order the patch gives; elements only the server
/// knows keep their place relative to those they stood beside.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    schema: Option<Schema>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let bad = || PatchError::BadDirective {
            directive: directive.clone(),
        };
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(bad());
        };
        let key = &directive[ELEMENT_ORDER.len()..];
        let field = schema.and_then(|schema| schema.field(key));
        let merge_key = field.and_then(|field| field.merge_key());
        let old = match original.get(key) {
            Some(Value::Array(items)) => Some(items.clone()),
            Some(_) => return Err(bad()),
            None => None,
        };
        let new = match patch.remove(key) {
            Some(Value::Array(items)) => Some(items),
            Some(null @ Value::Null) => {
                // The list goes; its order has nothing to say.
                patch.insert(key.to_owned(), null);
                continue;
            }
            Some(_) => return Err(bad()),
            None => None,
        };
        let merged = match (&old, new) {
            (Some(old), None) => old.clone(),
            (None, Some(new)) => kept_elements(new),
            (Some(old), Some(new)) if has_strategy(field, "merge") => {
                merge_list(key, old.clone(), new, field, twins(field, &order))?
            }
            (Some(_), Some(new)) => kept_elements(new),
            (None, None) => continue,
        };
        let identity = Identity::of(&merged, merge_key);
        let sorted = order_list(merged, &order, old.as_deref().unwrap_or_default(), identity);
        original.insert(key.to_owned(), Value::Array(sorted));
    }
    Ok(())
}

/// The keys that tell elements apart which the merge key alone does not: where the order that a patch gives names one merge key
/// more than once, as `kubectl apply` does of a Service with one port for TCP and UDP. Without such an order the merge
/// key decides, because an element may be about to change its other keys.
fn twins<'a>(field: Option<Schema<'a>>, order: &[Value]) -> Option<Twins<'a>> {
    let field = field?;
    let key = field.merge_key()?;
    let keys = field.list_map_keys();
    let mut seen = BTreeSet::new();
    let named_twice = order
        .iter()
        .filter_map(|item| item.get(key))
        .any(|id| !seen.insert(id.to_string()));
    (named_twice && keys.len() > 1 && keys.iter().any(|mine| mine == key)).then(|| Twins {
        keys,
        element: field.items(),
    })
}

/// Elements that are told apart by all keys of their list.
struct Twins<'a> {
    keys: &'a [String],
    element: Option<Schema<'a>>,
}

impl Twins<'_> {
    /// All keys of an element, with their defaults.
    fn identity(&self, item: &Value) -> String {
        let key = |key: &String| {
            let default = || self.element?.field(key)?.default().cloned();
            let value = item.get(key).cloned().or_else(default);
            value.unwrap_or_default().to_string()
        };
        self.keys.iter().map(key).collect::<Vec<_>>().join(" ")
    }
}

fn merge_list(
    key: &str,
    original: Vec<Value>,
    patch: Vec<Value>,
    field: Option<Schema<'_>>,
    twins: Option<Twins<'_>>,
) -> Result<Vec<Value>, PatchError> {
    let objects = original
        .iter()
        .chain(&patch)
        .filter(|item| item.is_object())
        .count();
    if objects == 0 {
        let mut seen = BTreeSet::new();
        let merged: Vec<Value> = original
            .iter()
            .chain(&patch)
            .filter(|item| seen.insert(item.to_string()))
            .cloned()
            .collect();
        return Ok(order_list(merged, &patch, &original, Identity::Value));
    }
    if objects != original.len() + patch.len() {
        return Err(PatchError::MixedList {
            field: key.to_owned(),
        });
    }
    // A list of objects that is merged without a key does not exist in the table; replacing is the safe reading.
    let Some(merge_key) = field.and_then(|field| field.merge_key()) else {
        return Ok(kept_elements(patch));
    };
    let element = field
        .and_then(|field| field.items())
        .filter(|element| element.shape() == Shape::Struct);

    let mut before = original;
    let mut changes = Vec::with_capacity(patch.len());
    let mut doomed = BTreeSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => changes.push(item),
            Some(Some("delete")) => {
                let id = item
                    .get(merge_key)
                    .ok_or_else(|| no_merge_key(&item, merge_key))?;
                doomed.insert(id.to_string());
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => return Err(PatchError::ListMerge),
            Some(_) => return Err(PatchError::UnknownDirective(item[DIRECTIVE].to_string())),
        }
    }
    if replace {
        return Ok(kept_elements(changes));
    }
    if !doomed.is_empty() {
        before.retain(|old| {
            old.get(merge_key)
                .is_none_or(|id| !doomed.contains(&id.to_string()))
        });
    }
    let identity = |item: &Value| {
        let id = item.get(merge_key)?;
        Some(match &twins {
            Some(twins) => twins.identity(item),
            None => id.to_string(),
        })
    };
    let order = changes.clone();
    let mut merged = before.clone();
    // The first of equal elements is the one that is meant.
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (place, item) in merged.iter().enumerate() {
        if let Some(id) = identity(item) {
            places.entry(id).or_insert(place);
        }
    }
    for change in changes {
        let id = identity(&change).ok_or_else(|| no_merge_key(&change, merge_key))?;
        match (places.get(&id), change) {
            (Some(place), Value::Object(change)) => {
                let old = &mut merged[*place];
                let Value::Object(object) = old.take() else {
                    continue;
                };
                *old = Value::Object(merge_map(object, change, element)?);
            }
            (_, mut change) => {
                clean(&mut change);
                places.insert(id, merged.len());
                merged.push(change);
            }
        }
    }
    Ok(order_list(
        merged,
        &order,
        &before,
        Identity::Key(merge_key),
    ))
}

fn no_merge_key(element: &Value, key: &str) -> PatchError {
    let fields: Vec<&str> = element
        .as_object()
        .map(|object| object.keys().map(String::as_str).collect())
        .unwrap_or_default();
    // Names only: the values may be secret.
    PatchError::NoMergeKey {
        element: format!("map[{}]", fields.join(" ")),
        key: key.to_owned(),
    }
}

/// What makes two list elements the same one.
#[derive(Clone, Copy)]
enum Identity<'a> {
    Key(&'a str),
    Value,
}

impl<'a> Identity<'a> {
    fn of(items: &[Value], merge_key: Option<&'a str>) -> Self {
        match merge_key {
            Some(key) if items.iter().any(Value::is_object) => Self::Key(key),
            _ => Self::Value,
        }
    }

    fn text(self, item: &Value) -> Option<String> {
        match self {
            Self::Key(key) => item.get(key).map(Value::to_string),
            Self::Value => Some(item.to_string()),
        }
    }

    /// Where each element stands first.
    fn places(self, items: &[Value]) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        for (place, item) in items.iter().enumerate() {
            if let Some(text) = self.text(item) {
                places.entry(text).or_insert(place);
            }
        }
        places
    }
}

/// Puts `items` in the order of the patch; those the patch does not name stay in `server_order` and are woven in before
/// the first patch element they used to precede.
fn order_list(
    items: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let in_patch = identity.places(patch_order);
    let on_server = identity.places(server_order);
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = items
        .into_iter()
        .map(|item| {
            let text = identity.text(&item);
            let place = |places: &BTreeMap<String, usize>| places.get(text.as_ref()?).copied();
            (place(&in_patch), place(&on_server), item)
        })
        .partition(|(in_patch, _, _)| in_patch.is_some());
    ours.sort_by_key(|(in_patch, _, _)| *in_patch);
    theirs.sort_by_key(|(_, on_server, _)| *on_server);

    let mut ordered = Vec::with_capacity(ours.len() + theirs.len());
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let take_theirs = match (theirs.peek(), ours.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, left, _)), Some((_, right, _))) => {
                matches!((left, right), (Some(left), Some(right)) if left < right)
            }
        };
        let next = if take_theirs {
            theirs.next()
        } else {
            ours.next()
        };
        ordered.extend(next.map(|(_, _, item)| item));
    }
}

/// Elements of a list that is taken as it is: directives do not get stored.
fn kept_elements(items: Vec<Value>) -> Vec<Value> {
    items
        .into_iter()
        .filter(|item| !is_directive(item))
        .map(|mut item| {
            clean(&mut item);
            item
        })
        .collect()
}

fn is_directive(value: &Value) -> bool {
    value.get(DIRECTIVE).is_some()
}

/// Removes directives and nulls from a value that had nothing to merge with.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                !value.is_null()
                    && !is_directive(value)
                    && key != RETAIN_KEYS
                    && !key.starts_with(ELEMENT_ORDER)
                    && !key.starts_with(DELETE_PRIMITIVES)
            });
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => {
            items.retain(|item| !is_directive(item));
            items.iter_mut().for_each(clean);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> GroupVersionKind {
        GroupVersionKind::new("", "v1", "Pod")
    }

    #[test]
    fn strategic_merges() {
        let cases = [
            (
                "null deletes, scalars replace",
                json!({ "spec": { "a": 1, "nodeName": "x" } }),
                json!({ "spec": { "a": null, "b": null, "nodeName": "y" } }),
                json!({ "spec": { "nodeName": "y" } }),
            ),
            (
                "containers merge by name and keep order",
                json!({ "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }] } }),
                json!({ "spec": { "containers": [{ "name": "b", "image": "2" }, { "name": "c", "image": "3", "$patch": "x" }] } }),
                Value::Null,
            ),
            (
                "containers merge by name",
                json!({ "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1", "args": ["x"] }] } }),
                json!({ "spec": { "containers": [{ "name": "b", "image": "2", "args": ["y", "z"] }, { "name": "c", "image": "3", "env": null }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "2", "args": ["y", "z"] }, { "name": "c", "image": "3" }] } }),
            ),
            (
                "an element is deleted",
                json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "$patch": "delete" }] } }),
                json!({ "spec": { "containers": [{ "name": "b" }] } }),
            ),
            (
                "a list is replaced",
                json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }),
                json!({ "spec": { "containers": [{ "$patch": "replace" }, { "name": "z" }] } }),
                json!({ "spec": { "containers": [{ "name": "z" }] } }),
            ),
            (
                "a map is replaced",
                json!({ "spec": { "nodeSelector": { "a": "1", "b": "2" } } }),
                json!({ "spec": { "nodeSelector": { "$patch": "replace", "c": "3" } } }),
                json!({ "spec": { "nodeSelector": { "c": "3" } } }),
            ),
            (
                "a map is emptied",
                json!({ "metadata": { "labels": { "a": "1" } } }),
                json!({ "metadata": { "labels": { "$patch": "delete" } } }),
                json!({ "metadata": { "labels": {} } }),
            ),
            (
                "a union changes its member",
                json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }] } }),
                json!({ "spec": { "volumes": [{ "name": "v", "$retainKeys": ["name", "configMap"], "configMap": { "name": "c" } }] } }),
                json!({ "spec": { "volumes": [{ "name": "v", "configMap": { "name": "c" } }] } }),
            ),
            (
                "element order, with an element only the server knows",
                json!({ "spec": { "containers": [{ "name": "a" }, { "name": "injected" }, { "name": "b" }] } }),
                json!({ "spec": { "$setElementOrder/containers": [{ "name": "b" }, { "name": "c" }, { "name": "a" }], "containers": [{ "name": "c" }] } }),
                json!({ "spec": { "containers": [{ "name": "injected" }, { "name": "b" }, { "name": "c" }, { "name": "a" }] } }),
            ),
            (
                "element order alone",
                json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }),
                json!({ "spec": { "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }] } }),
                json!({ "spec": { "containers": [{ "name": "b" }, { "name": "a" }] } }),
            ),
            (
                "finalizers are a set",
                json!({ "metadata": { "finalizers": ["a", "b"] } }),
                json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c", "b"] } }),
                json!({ "metadata": { "finalizers": ["b", "c"] } }),
            ),
            (
                "ports merge by containerPort alone",
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "protocol": "TCP" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "name": "web" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "protocol": "TCP", "name": "web" }] }] } }),
            ),
            (
                "elements whose key is named once are one",
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 53, "protocol": "TCP" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "$setElementOrder/ports": [{ "containerPort": 53 }], "ports": [{ "containerPort": 53, "protocol": "UDP" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 53, "protocol": "UDP" }] }] } }),
            ),
            (
                "elements whose key is named twice are told apart by all keys",
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 53, "protocol": "TCP", "name": "t" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "$setElementOrder/ports": [{ "containerPort": 53 }, { "containerPort": 53 }], "ports": [{ "containerPort": 53, "protocol": "UDP", "name": "u" }, { "containerPort": 53, "name": "v" }] }] } }),
                json!({ "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": 53, "protocol": "TCP", "name": "v" }, { "containerPort": 53, "protocol": "UDP", "name": "u" }] }] } }),
            ),
            (
                "tolerations are atomic",
                json!({ "spec": { "tolerations": [{ "key": "a" }] } }),
                json!({ "spec": { "tolerations": [{ "key": "b" }] } }),
                json!({ "spec": { "tolerations": [{ "key": "b" }] } }),
            ),
            (
                "whatever stands in what is atomic",
                json!({ "spec": { "tolerations": [{ "key": "a" }] } }),
                json!({ "spec": { "tolerations": [{ "key": "a", "$patch": "delete" }] } }),
                json!({ "spec": { "tolerations": [{ "key": "a", "$patch": "delete" }] } }),
            ),
            (
                "what says to delete where nothing can be merged deletes",
                json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": {} }),
                json!({ "metadata": { "labels": { "a": { "$patch": "delete" } } }, "spec": { "nodeSelector": { "c": "3", "$patch": "replace" } } }),
                json!({ "metadata": { "labels": { "b": "2" } }, "spec": {} }),
            ),
            (
                "an element that says to delete is none of a new list",
                json!({ "spec": {} }),
                json!({ "spec": { "volumes": [{ "name": "v", "$patch": "delete" }, { "name": "w" }] } }),
                json!({ "spec": { "volumes": [{ "name": "w" }] } }),
            ),
            (
                "new lists lose directives",
                json!({}),
                json!({ "spec": { "containers": [{ "name": "a", "x": null }], "$setElementOrder/containers": [{ "name": "a" }] } }),
                json!({ "spec": { "containers": [{ "name": "a" }] } }),
            ),
        ];
        for (what, current, patch, expected) in cases {
            let got = apply(&pod(), &current, PatchKind::Strategic, &patch);
            match got {
                Ok(got) => assert_eq!(got, expected, "{what}"),
                Err(error) => assert!(expected.is_null() && error.code == 400, "{what}: {error}"),
            }
        }
    }

    #[test]
    fn strategic_patches_that_contradict_themselves_are_refused() {
        for (patch, message) in [
            (json!([]), "the strategic merge patch is not a JSON object"),
            (
                json!({ "spec": { "containers": [{ "image": "x" }] } }),
                "map: map[image] does not contain declared merge key: name",
            ),
            (
                json!({ "spec": { "$patch": "merge" } }),
                "unknown patch type: \"merge\"",
            ),
            (
                json!({ "spec": { "containers": [{ "name": "a", "$patch": "merge" }] } }),
                "merging lists cannot yet be specified in the patch",
            ),
            (
                json!({ "spec": { "containers": [1] } }),
                "the list containers mixes objects with other values",
            ),
            (
                json!({ "spec": { "$retainKeys": ["a"], "b": 1 } }),
                "$retainKeys must be a list that fits the field it is about",
            ),
        ] {
            let current = json!({ "spec": { "containers": [{ "name": "a" }] } });
            let error = apply(&pod(), &current, PatchKind::Strategic, &patch).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, message));
        }
        let unknown = GroupVersionKind::new("example.com", "v1", "Widget");
        assert_eq!(
            apply(&unknown, &json!({}), PatchKind::Strategic, &json!({}))
                .unwrap_err()
                .code,
            415
        );
    }

    #[test]
    fn json_patches() {
        let current = json!({ "metadata": { "resourceVersion": "7" }, "spec": { "a": [1, 2] } });
        let patched = apply(
            &pod(),
            &current,
            PatchKind::Json,
            &json!([
                { "op": "test", "path": "/metadata/resourceVersion", "value": "7" },
                { "op": "add", "path": "/spec/a/-", "value": 3 },
                { "op": "remove", "path": "/spec/a/0" },
            ]),
        );
        assert_eq!(
            patched.unwrap(),
            json!({ "metadata": { "resourceVersion": "7" }, "spec": { "a": [2, 3] } })
        );
        for (patch, code) in [
            (
                json!([{ "op": "test", "path": "/metadata/resourceVersion", "value": "8" }]),
                422,
            ),
            (json!([{ "op": "remove", "path": "/nothing" }]), 422),
            (json!([{ "op": "explode", "path": "/x" }]), 422),
            (json!({}), 400),
        ] {
            assert_eq!(
                apply(&pod(), &current, PatchKind::Json, &patch)
                    .unwrap_err()
                    .code,
                code,
                "{patch}"
            );
        }
        let bomb: Vec<Value> = (0..40)
            .map(|i| json!({ "op": "copy", "from": "", "path": format!("/x{i}") }))
            .collect();
        assert_eq!(
            apply(&pod(), &current, PatchKind::Json, &json!(bomb))
                .unwrap_err()
                .code,
            422
        );
    }

    #[test]
    fn long_lists_merge_in_one_pass() {
        // By pairs these would be ten thousand million comparisons.
        let list = |from: usize| -> Vec<Value> {
            (from..from + 100_000)
                .map(|i| json!({ "name": i.to_string(), "value": "x" }))
                .collect()
        };
        let env =
            |env: Vec<Value>| json!({ "spec": { "containers": [{ "name": "a", "env": env }] } });
        let merged = apply(
            &pod(),
            &env(list(0)),
            PatchKind::Strategic,
            &env(list(50_000)),
        )
        .unwrap();
        let env = merged["spec"]["containers"][0]["env"].as_array().unwrap();
        assert_eq!(env.len(), 150_000);
        let finalizers = |from: usize| json!({ "metadata": { "finalizers": (from..from + 100_000).collect::<Vec<_>>() } });
        let merged = apply(
            &pod(),
            &finalizers(0),
            PatchKind::Strategic,
            &finalizers(50_000),
        )
        .unwrap();
        assert_eq!(
            merged["metadata"]["finalizers"].as_array().unwrap().len(),
            150_000
        );
    }

    #[test]
    fn merge_patches() {
        let merged = apply(
            &pod(),
            &json!({ "a": { "b": 1, "c": [1] } }),
            PatchKind::Merge,
            &json!({ "a": { "b": null, "c": [2] } }),
        );
        assert_eq!(merged.unwrap(), json!({ "a": { "c": [2] } }));
        assert_eq!(
            apply(&pod(), &json!({}), PatchKind::Merge, &json!([]))
                .unwrap_err()
                .code,
            400
        );
    }
}
