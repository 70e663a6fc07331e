//! A configuration laid over an object for whoever writes it: what a mutating policy's `ApplyConfiguration` does.
//!
//! It is the merge of server-side apply without owners: the write that the policy changes owns what comes of it. Since nobody could
//! take back what a whole loses by being replaced, a configuration names no list, map or struct that is one whole.
//!
//! Invariants: pure; whatever the configuration leaves out stays; what it says of `apiVersion` and `kind` does not count.
//! Source: k8s.io/apiserver `pkg/admission/plugin/policy/mutating/patch/smd.go`, and its sentences.

use std::fmt::Write as _;

use serde_json::Value;

use super::form::Type;
use super::merge::merge;
use super::typed::check;
use crate::lens::put;
use crate::schema::Schema;

/// Lays `config` over `live`, whose kind has this schema; without one, types are deduced.
///
/// # Errors
/// What does not fit the schema, and which wholes the configuration names.
pub fn overlay(
    schema: Option<Schema<'_>>,
    live: &Value,
    mut config: Value,
) -> Result<Value, String> {
    let of = Type::object(schema);
    for field in ["apiVersion", "kind"] {
        put(&mut config, field, live.get(field).cloned());
    }
    check(&config, of, false)
        .map_err(|faults| format!("failed to convert patch object to typed object: {faults}"))?;
    let mut wholes = Vec::new();
    find_wholes(&config, of, &mut String::new(), &mut wholes);
    if !wholes.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            wholes.join(", ")
        ));
    }
    // An object that is there already may name an element twice.
    check(live, of, true)
        .map_err(|faults| format!("failed to convert original object to typed object: {faults}"))?;
    Ok(merge(live, &config, of).unwrap_or_else(|| live.clone()))
}

/// The places of a configuration that are one whole, in the order of its fields.
fn find_wholes(value: &Value, of: Type<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(members) => {
            let Some(map) = of.map() else { return };
            if map.atomic {
                found.push(path.clone());
            }
            // Members that no property declares are values of a map, which are not looked into.
            for (name, member) in members {
                let Some(of) = map.declared(name) else {
                    continue;
                };
                // Writing to a String cannot fail.
                let _ = write!(path, ".{name}");
                find_wholes(member, of, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(list) = of.list() else { return };
            if list.atomic {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                find_wholes(item, list.element, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
