//! Pods as a workload's template has them.

use serde_json::{Value, json};
use weft_api::names;
use weft_kinds::POD;

use crate::claim::controller_reference;
use crate::indexer::{Cached, Lens};

/// A pod of this name that `owner` controls, from a template as it was written.
pub fn pod_from<K: Lens>(template: &Value, owner: &Cached<K>, name: &str) -> Value {
    let meta = &template["metadata"];
    let mut metadata = json!({
        "name": name,
        "generateName": names::generate_prefix(&owner.key.name),
        "namespace": &*owner.key.namespace,
        "ownerReferences": [controller_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    json!({
        "apiVersion": POD.api_version(),
        "kind": POD.kind,
        "metadata": metadata,
        "spec": template["spec"].clone(),
    })
}
