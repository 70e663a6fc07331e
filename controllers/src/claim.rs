//! Which objects belong to a controller: adopt strays that match its selector, release those that no longer do.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::meta::Meta;
use weft_api::selector::LabelSelector;

use crate::table::{Kind, Row};
use crate::write::{Resource, Write};

/// The outcome of matching candidates against an owner.
pub struct Claims<T> {
    /// Controlled by the owner and matching.
    pub owned: Vec<Arc<Row<T>>>,
    /// Adoptions and releases to write first.
    pub writes: Vec<Write>,
}

/// Sorts `candidates` (controlled by the owner, or by nobody) into owned, adoptable and to be released.
///
/// An owner that is being deleted adopts nothing; an object that is being deleted is neither adopted nor released.
pub fn claim<T: Kind>(
    owner: Resource,
    owner_meta: &Meta,
    selector: &LabelSelector,
    candidates: impl Iterator<Item = Arc<Row<T>>>,
) -> Claims<T> {
    let mut claims = Claims {
        owned: Vec::new(),
        writes: Vec::new(),
    };
    for row in candidates {
        let matches = selector.matches(&row.meta.labels);
        match row.meta.controller() {
            Some(controller) if controller.uid == owner_meta.uid => {
                if matches {
                    claims.owned.push(row);
                } else if !row.meta.is_deleting() && !owner_meta.is_deleting() {
                    claims.writes.push(release(&row, &owner_meta.uid));
                }
            }
            Some(_) => {}
            None => {
                let free = !row.meta.is_deleting() && !owner_meta.is_deleting();
                if matches && free {
                    claims.writes.push(adopt(&row, owner, owner_meta));
                }
            }
        }
    }
    claims
}

fn adopt<T: Kind>(row: &Row<T>, owner: Resource, owner_meta: &Meta) -> Write {
    let mut owners: Vec<Value> = references(row).collect();
    owners.push(controller_reference(owner, owner_meta));
    Write::patch(row, json!({"metadata": {"ownerReferences": owners}}))
}

fn release<T: Kind>(row: &Row<T>, owner_uid: &str) -> Write {
    let owners: Vec<Value> = references(row)
        .filter(|owner| owner["uid"] != owner_uid)
        .collect();
    let owners = if owners.is_empty() {
        Value::Null
    } else {
        Value::Array(owners)
    };
    Write::patch(row, json!({"metadata": {"ownerReferences": owners}}))
}

fn references<T>(row: &Row<T>) -> impl Iterator<Item = Value> {
    let owners = row.meta.owner_references.iter();
    owners.filter_map(|owner| serde_json::to_value(owner).ok())
}

/// The owner reference that makes `meta`'s object the controller of another.
pub fn controller_reference(resource: Resource, meta: &Meta) -> Value {
    json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
