//! Kubernetes' own types as lenses, for controllers that read most of an object.
//!
//! What reads a few fields defines a type of its own beside its reader: see `node::Lease`.

use k8s_openapi::Metadata;
use serde::de::DeserializeOwned;
use weft_api::object::{Object, ObjectError};
use weft_api::view::{Deployment, EndpointSlice, Namespace, Node, ObjectMeta, ReplicaSet, Service};

use crate::table::Kind;
use crate::write::{
    DEPLOYMENTS, ENDPOINT_SLICES, NAMESPACES, NODES, REPLICA_SETS, Resource, SERVICES,
};

/// The object as its published type.
///
/// # Errors
/// [`ObjectError::View`] when a field has another type.
pub fn typed<T: DeserializeOwned + Metadata<Ty = ObjectMeta>>(
    object: &Object,
) -> Result<T, ObjectError> {
    let mut body: T = object.view()?;
    // Often more than half of an object, and of interest to no reconciler.
    body.metadata_mut().managed_fields = None;
    Ok(body)
}

impl Kind for Node {
    const RESOURCE: Resource = NODES;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Kind for Namespace {
    const RESOURCE: Resource = NAMESPACES;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Kind for Service {
    const RESOURCE: Resource = SERVICES;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Kind for EndpointSlice {
    const RESOURCE: Resource = ENDPOINT_SLICES;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

/// The template and the selector are copied into sets as they were written.
impl Kind for Deployment {
    const RESOURCE: Resource = DEPLOYMENTS;
    const WHOLE: bool = true;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

/// The template is copied into pods as it was written.
impl Kind for ReplicaSet {
    const RESOURCE: Resource = REPLICA_SETS;
    const WHOLE: bool = true;

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}
