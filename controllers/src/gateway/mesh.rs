//! The mesh of this cluster, as an object that says what it can do.
//!
//! There is one mesh, and it is always there; like the class of Gateways, its object comes back for as long as its kind is served.

use serde_json::json;
use weft_gateway::{Condition, MESH_FEATURES, api};
use weft_kinds::X_MESH;

use super::{CLASS, Mesh, conditions, features, is_served, status_of};
use crate::Context;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Write, object};

/// Whether the definition of this name is that of meshes.
pub(super) fn is_definition(key: &Key) -> bool {
    let name = key.name.strip_prefix(&*X_MESH.resource);
    name.and_then(|name| name.strip_prefix('.')) == Some(&*X_MESH.group)
}

pub(super) fn told(view: &View, key: &Key, cx: &Context<'_>) -> Option<Write> {
    let Some(row) = view.get::<Mesh>(key) else {
        return (&*key.name == CLASS && is_served(&X_MESH, cx)).then(|| {
            let mesh = json!({
                "apiVersion": X_MESH.api_version(),
                "kind": X_MESH.kind,
                "metadata": {"name": CLASS},
                "spec": {
                    "controllerName": api::CONTROLLER_NAME,
                    "description": "The mesh that every call between pods takes.",
                },
            });
            Write::create(&X_MESH, object(mesh))
        });
    };
    let spec = &row.body.0.spec;
    if spec.controller_name != api::CONTROLLER_NAME {
        return None;
    }
    let accepted = match spec.parameters_ref {
        None => Condition::holds("Accepted", "Accepted", "All calls between pods go by it."),
        Some(_) => Condition::fails(
            "Accepted",
            "InvalidParameters",
            "parametersRef is not supported; leave it out.",
        ),
    };
    let before = status_of(row);
    let mut after = before.clone();
    let generation = row.meta.generation;
    after["conditions"] = conditions(&before["conditions"], &[accepted], generation, cx);
    after["supportedFeatures"] = features(MESH_FEATURES);
    Write::status(row, before, &after)
}
