//! The `scale` subresource: a workload's size as an `autoscaling/v1` Scale of its own.

use serde_json::{Map, Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_kinds::apiextensions::custom::set_at;
use weft_kinds::lens::{integer, member, put};
use weft_kinds::scale::{self, paths_of};
use weft_kinds::{KindRef, Subresource, decode};

use super::apply::converted;
use super::body::{check_name, check_namespace, patched, undecodable};
use super::canonical::object_of;
use super::owners::{Owners, Ownership};
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
        let found = self.converted(found).await?;
        let value = found.value();
        if let Some(paths) = paths_of(object.kind)
            && value.pointer(&paths.spec_replicas).is_none()
        {
            let field = paths.spec_replicas.replace('/', ".");
            return Err(StatusError::internal(format!(
                "the spec replicas field {field:?} does not exist"
            )));
        }
        shown_scale(object.kind, &value)
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
        self.rescale(asked, object, options, |owners, seen| {
            let mut next = scale.clone();
            owners.scale_updated(seen, &mut next);
            Ok(next)
        })
        .await
    }

    pub(super) async fn patch_scale(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        patch: Patch<'_>,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        self.rescale(asked, object, options, |owners, seen| {
            let mut next = patched(object, &gvk, seen, patch, options)?;
            check_scale(object, &next)?;
            owners.scale_updated(seen, &mut next);
            Ok(next)
        })
        .await
    }

    pub(super) async fn apply_scale(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        config: &Value,
        force: bool,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let gvk = scale_kind();
        self.rescale(asked, object, options, |owners, seen| {
            let next = converted(&gvk, config, &owners.scale_applied(seen, config, force)?)?;
            check_scale(object, &next)?;
            Ok(next)
        })
        .await
    }

    /// Changes the Scale of a workload, which is seen with the owners of its size.
    async fn rescale(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        options: &WriteOptions,
        change: impl Fn(&Owners<'_>, &Value) -> Result<Value, StatusError> + Sync,
    ) -> Result<Object, StatusError> {
        let part = Some(Subresource::Scale);
        let owners = self.owners(asked.caller(), object.kind, part, options);
        let workload = self
            .rewrite(asked, object, part, options, Ownership::Said, |current| {
                let mut seen = told(object.kind, current)?;
                owners.seen_in_scale(current, &mut seen)?;
                let scale = change(&owners, &seen)?;
                let mut next = with_scale(object.kind, current, &scale);
                owners.put_back_of_scale(&scale, current, &mut next)?;
                Ok(next)
            })
            .await?;
        shown_scale(object.kind, workload.as_value())
    }
}

/// The Scale of a workload as it is told: in the one form that equal ones have.
fn shown_scale(kind: KindRef<'_>, workload: &Value) -> Result<Object, StatusError> {
    object_of(told(kind, workload)?)
}

fn told(kind: KindRef<'_>, workload: &Value) -> Result<Value, StatusError> {
    let decoded = decode::value(&scale_kind(), &scale_of(kind, workload));
    Ok(decoded.map_err(StatusError::internal)?.value)
}

/// The Scale of a workload.
pub(super) fn scale_of(kind: KindRef<'_>, workload: &Value) -> Value {
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
    let scale = scale::of(kind, workload);
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": scale.replicas},
        "status": {"replicas": scale.observed, "selector": scale.selector},
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
pub(super) fn with_scale(kind: KindRef<'_>, workload: &Value, scale: &Value) -> Value {
    let replicas = integer(scale, "/spec/replicas").unwrap_or(0);
    let mut next = workload.clone();
    match paths_of(kind) {
        Some(paths) => set_at(&mut next, &paths.spec_replicas, replicas.into()),
        None => member(&mut next, "spec")["replicas"] = replicas.into(),
    }
    // A Scale that names a version is conditional, like any other object.
    let version = scale.pointer("/metadata/resourceVersion").cloned();
    let metadata = member(&mut next, "metadata");
    put(metadata, "resourceVersion", version);
    if let Some(uid) = scale.pointer("/metadata/uid") {
        metadata["uid"] = uid.clone();
    }
    next
}
