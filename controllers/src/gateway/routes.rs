//! The status of a route, of whichever kind: an entry a parent of ours, and an event for a Gateway that is not there.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_gateway::{NamespacedName, RouteStatus, api};

use super::{conditions, list, name_of, status_of};
use crate::Context;
use crate::indexer::Lens;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write};

pub(super) fn told<K: Lens>(
    view: &View,
    key: &Key,
    statuses: &BTreeMap<NamespacedName, RouteStatus>,
    cx: &Context<'_>,
) -> Vec<Write> {
    let (Some(row), Some(now)) = (view.get::<K>(key), statuses.get(&name_of(key))) else {
        return Vec::new();
    };
    let before = status_of(row);
    let old = list(before, "parents");
    let is_ours = |entry: &Value| entry["controllerName"] == api::CONTROLLER_NAME;
    let others = old.iter().filter(|entry| !is_ours(entry)).cloned();
    let ours = now.parents.iter().map(|parent| {
        let reference = json!(parent.parent);
        let previous = old
            .iter()
            .find(|entry| is_ours(entry) && entry["parentRef"] == reference)
            .map_or(&Value::Null, |entry| &entry["conditions"]);
        json!({
            "parentRef": reference,
            "controllerName": api::CONTROLLER_NAME,
            "conditions": conditions(previous, &parent.conditions, row.meta.generation, cx),
        })
    });
    let parents: Vec<Value> = others.chain(ours).collect();
    let missing = now.missing.iter().map(|gateway| {
        let message = format!(
            "parentRefs names Gateway {gateway}, which does not exist: the route has no effect there until it does"
        );
        Write::Event(Note::warning(row.reference(), "GatewayNotFound", message))
    });
    let mut writes = Vec::new();
    if parents.as_slice() != old {
        let mut after = before.clone();
        after["parents"] = Value::Array(parents);
        writes.extend(Write::status(row, before, &after));
    }
    writes.extend(missing);
    writes
}
