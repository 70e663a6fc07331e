//! The `scale` subresource: a workload's size as an `autoscaling/v1` Scale of its own.

use serde_json::{Map, Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::{integer, member, put, text};
use weft_kinds::patch::PatchKind;
use weft_kinds::{KindRef, Subresource, decode};

use super::body::{other_name, patched_as, undecodable_as};
use super::{Objects, Target, WriteOptions, as_object, authorize};
use crate::caller::Caller;

impl Objects {
    /// The `autoscaling/v1` Scale of a workload.
    ///
    /// # Errors
    /// 403, 404.
    pub async fn scale(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Object, StatusError> {
        authorize(caller, "get", kind, Some("scale"), namespace, Some(name))?;
        let snapshot = self.newest(None).await?;
        let found = self.find(&snapshot, kind, namespace, name)?;
        Ok(as_object(scale_of(&found.value())))
    }

    /// Sets `spec.replicas` of a workload from a Scale.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn update_scale(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        scale: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        let decoded = decode::value(&gvk, scale.as_value());
        let scale = decoded.map_err(|error| undecodable_as(&gvk, &error))?.value;
        let named = text(&scale, "/metadata/name");
        if !named.is_empty() && named != name {
            return Err(other_name(named, name));
        }
        let target = Target::new("update", kind, namespace, name, Some(Subresource::Scale));
        let workload = self
            .rewrite(caller, target, options, |current| {
                Ok(with_scale(current, &scale))
            })
            .await?;
        Ok(as_object(scale_of(workload.as_value())))
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) async fn patch_scale(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        patch_kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        let target = Target::new("patch", kind, namespace, name, Some(Subresource::Scale));
        let workload = self
            .rewrite(caller, target, options, |current| {
                let scale = scale_of(current);
                let scale = patched_as(kind, name, &gvk, &scale, patch_kind, patch, options)?;
                Ok(with_scale(current, &scale))
            })
            .await?;
        Ok(as_object(scale_of(workload.as_value())))
    }
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

fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// A workload with the size of a decoded Scale, in which no replicas are none.
fn with_scale(workload: &Value, scale: &Value) -> Value {
    let replicas = integer(scale, "/spec/replicas").unwrap_or(0);
    let mut next = workload.clone();
    member(&mut next, "spec")["replicas"] = replicas.into();
    // A Scale that names a version is conditional, like any other object.
    let version = scale.pointer("/metadata/resourceVersion").cloned();
    put(member(&mut next, "metadata"), "resourceVersion", version);
    next
}
