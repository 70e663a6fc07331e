//! The `scale` subresource: a workload's size as an `autoscaling/v1` Scale of its own.

use serde_json::{Map, Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_kinds::lens::{integer, member, put};
use weft_kinds::{Subresource, decode};

use super::body::{check_name, check_namespace, patched, undecodable};
use super::canonical::object_of;
use super::{Objects, Patch, WriteOptions};
use crate::authz::Authorized;
use crate::request::ObjectRef;

impl Objects {
    /// The `autoscaling/v1` Scale of a workload.
    ///
    /// # Errors
    /// 404.
    pub async fn scale(&self, asked: &Authorized) -> Result<Object, StatusError> {
        let (object, resource) = asked.object("get")?;
        if resource.subresource != Some(Subresource::Scale) {
            return Err(StatusError::method_not_allowed());
        }
        let snapshot = self.newest(None).await?;
        let found = self.find(&snapshot, object)?;
        found.check_lost()?;
        shown_scale(&found.value())
    }

    /// Sets `spec.replicas` of a workload from a Scale.
    pub(super) async fn update_scale(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        scale: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        let decoded = decode::value(&gvk, scale.as_value());
        let scale = decoded.map_err(|error| undecodable(&gvk, &error))?.value;
        check_scale(object, &scale)?;
        let part = Some(Subresource::Scale);
        let workload = self
            .rewrite(asked, object, part, options, |current| {
                Ok(with_scale(current, &scale))
            })
            .await?;
        shown_scale(workload.as_value())
    }

    pub(super) async fn patch_scale(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        patch: Patch<'_>,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        let part = Some(Subresource::Scale);
        let workload = self
            .rewrite(asked, object, part, options, |current| {
                let scale = scale_of(current);
                let scale = patched(object, &gvk, &scale, patch, options)?;
                check_scale(object, &scale)?;
                Ok(with_scale(current, &scale))
            })
            .await?;
        shown_scale(workload.as_value())
    }
}

/// The Scale of a workload as it is told: in the one form that equal ones have.
fn shown_scale(workload: &Value) -> Result<Object, StatusError> {
    let decoded = decode::value(&scale_kind(), &scale_of(workload));
    object_of(decoded.map_err(StatusError::internal)?.value)
}

/// The Scale of a workload.
fn scale_of(workload: &Value) -> Value {
    let metadata: Map<String, Value> = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ]
    .into_iter()
    .filter_map(|field| {
        let value = workload.pointer(&format!("/metadata/{field}"))?;
        Some((field.to_owned(), value.clone()))
    })
    .collect();
    let selector = workload
        .pointer("/spec/selector")
        .and_then(|selector| weft_api::selector::LabelSelector::from_object(selector).ok())
        .map(|selector| selector.to_string())
        .unwrap_or_default();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": integer(workload, "/spec/replicas").unwrap_or(0)},
        "status": {
            "replicas": integer(workload, "/status/replicas").unwrap_or(0),
            "selector": selector,
        },
    })
}

/// What a Scale is decoded as.
pub(crate) fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// Whether a Scale is that of a workload, and a size.
fn check_scale(workload: ObjectRef<'_>, scale: &Value) -> Result<(), StatusError> {
    let metadata = &scale["metadata"];
    if let Some(namespace) = workload.namespace {
        check_namespace(metadata, namespace)?;
    }
    check_name(metadata, workload.name)?;
    let replicas = integer(scale, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        let cause = Cause::invalid("spec.replicas", &replicas.into(), why);
        let causes = vec![cause];
        return Err(StatusError::invalid(
            "Scale",
            "autoscaling",
            workload.name,
            causes,
        ));
    }
    Ok(())
}

/// A workload with the size of a decoded Scale, in which no replicas are none.
fn with_scale(workload: &Value, scale: &Value) -> Value {
    let replicas = integer(scale, "/spec/replicas").unwrap_or(0);
    let mut next = workload.clone();
    member(&mut next, "spec")["replicas"] = replicas.into();
    // A Scale that names a version is conditional, like any other object.
    let version = scale.pointer("/metadata/resourceVersion").cloned();
    let metadata = member(&mut next, "metadata");
    put(metadata, "resourceVersion", version);
    if let Some(uid) = scale.pointer("/metadata/uid") {
        metadata["uid"] = uid.clone();
    }
    next
}
