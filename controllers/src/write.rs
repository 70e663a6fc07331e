//! What a reconciler asks to be done: writes as values.
//!
//! Invariants: an update or delete names the uid it was decided for; a patch is a JSON merge patch (RFC 7386), so `null`
//! removes a member and lists are replaced whole.

use serde::Serialize;
use serde_json::{Map, Value, json};
use weft_api::object::Object;

use crate::table::{Kind, Row};

/// A kind as the API names it. Copy, because every key, index and write carries one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    /// Plural and lower case.
    pub resource: &'static str,
    pub kind: &'static str,
    /// Its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    const fn namespaced(
        group: &'static str,
        version: &'static str,
        resource: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            resource,
            kind,
            namespaced: true,
        }
    }

    const fn cluster_scoped(
        group: &'static str,
        version: &'static str,
        resource: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            namespaced: false,
            ..Self::namespaced(group, version, resource, kind)
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

pub const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
pub const NODES: Resource = Resource::cluster_scoped("", "v1", "nodes", "Node");
pub const NAMESPACES: Resource = Resource::cluster_scoped("", "v1", "namespaces", "Namespace");
pub const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
pub const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
pub const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
pub const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
pub const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
pub const DEPLOYMENTS: Resource = Resource::namespaced("apps", "v1", "deployments", "Deployment");
pub const REPLICA_SETS: Resource = Resource::namespaced("apps", "v1", "replicasets", "ReplicaSet");
pub const ENDPOINT_SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
pub const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
pub const GATEWAY_CLASSES: Resource = Resource::cluster_scoped(
    "gateway.networking.k8s.io",
    "v1",
    "gatewayclasses",
    "GatewayClass",
);
pub const GATEWAYS: Resource =
    Resource::namespaced("gateway.networking.k8s.io", "v1", "gateways", "Gateway");
pub const HTTP_ROUTES: Resource =
    Resource::namespaced("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute");

/// One change to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create {
        resource: Resource,
        /// `None` for cluster-scoped kinds.
        namespace: Option<String>,
        object: Object,
        /// Recorded once the write is done, or with its refusal as a warning.
        note: Option<Note>,
    },
    Patch {
        resource: Resource,
        namespace: Option<String>,
        name: String,
        /// `status`, `finalize`, or the object itself.
        subresource: Option<&'static str>,
        patch: Value,
        /// Refuse unless the object is still the one the decision was made for.
        uid: Option<String>,
        /// Refuse if anything changed since. Set where lists that others also edit are replaced.
        revision: Option<u64>,
        note: Option<Note>,
    },
    Delete {
        resource: Resource,
        namespace: Option<String>,
        name: String,
        uid: String,
        /// `None`: the object's own grace period; `Some(0)`: at once.
        grace_seconds: Option<i64>,
        propagation: Propagation,
        note: Option<Note>,
    },
    /// Only tell; change nothing.
    Event(Note),
    /// Change nothing, but refuse what follows if this object is there after all, by a read of the store that nothing
    /// newer escapes. Stands before whatever is done to others because it is gone.
    ConfirmGone {
        resource: Resource,
        namespace: Option<String>,
        name: String,
        /// One that cannot be read shows no uid, and counts as this one. `None`: whichever bears the name.
        uid: Option<String>,
    },
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// The object goes at once, its dependents are collected after.
    #[default]
    Background,
    /// The dependents go first.
    Foreground,
    /// The dependents stay and lose the owner reference.
    Orphan,
}

/// What to tell the user, as an Event on an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    pub about: Reference,
    pub warning: bool,
    /// CamelCase, as users know it from Kubernetes.
    pub reason: &'static str,
    pub message: String,
    /// The reason to use, as a warning with the error's text, when the write this belongs to is refused.
    pub refused_reason: Option<&'static str>,
}

/// Which object an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub resource: Resource,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Note {
    pub fn normal(about: Reference, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            about,
            warning: false,
            reason,
            message: message.into(),
            refused_reason: None,
        }
    }

    pub fn warning(about: Reference, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(about, reason, message)
        }
    }

    /// Also tells of a refusal, under this reason.
    #[must_use]
    pub fn or_refused(mut self, reason: &'static str) -> Self {
        self.refused_reason = Some(reason);
        self
    }
}

impl Write {
    /// A patch of `row` itself, decided on exactly its present state.
    pub fn patch<T: Kind>(row: &Row<T>, patch: Value) -> Self {
        Self::Patch {
            resource: T::RESOURCE,
            namespace: row.meta.namespace.clone(),
            name: row.meta.name.clone(),
            subresource: None,
            patch,
            uid: Some(row.meta.uid.clone()),
            revision: row.meta.resource_version,
            note: None,
        }
    }

    /// A patch of the status of `row` that turns `old` into `new`; nothing if they are equal.
    ///
    /// Bound to the revision it was computed from: conditions are one list that several writers share.
    pub fn status<T: Kind, S: Serialize>(row: &Row<T>, old: &S, new: &S) -> Option<Self> {
        let old = serde_json::to_value(old).unwrap_or(Value::Null);
        let new = serde_json::to_value(new).unwrap_or(Value::Null);
        let patch = merge_patch(&old, &new)?;
        Some(Self::Patch {
            resource: T::RESOURCE,
            namespace: row.meta.namespace.clone(),
            name: row.meta.name.clone(),
            subresource: Some("status"),
            patch: json!({ "status": patch }),
            uid: Some(row.meta.uid.clone()),
            revision: row.meta.resource_version,
            note: None,
        })
    }

    /// A delete of exactly this object, after its own grace period.
    pub fn delete<T: Kind>(row: &Row<T>) -> Self {
        Self::Delete {
            resource: T::RESOURCE,
            namespace: row.meta.namespace.clone(),
            name: row.meta.name.clone(),
            uid: row.meta.uid.clone(),
            grace_seconds: None,
            propagation: Propagation::Background,
            note: None,
        }
    }

    /// Tells `note` when the write is done.
    #[must_use]
    pub fn telling(mut self, told: Note) -> Self {
        match &mut self {
            Self::Create { note, .. } | Self::Patch { note, .. } | Self::Delete { note, .. } => {
                *note = Some(told);
            }
            Self::Event(note) => *note = told,
            Self::ConfirmGone { .. } => {}
        }
        self
    }

    /// Drops the revision a patch is bound to: for members that nobody else writes.
    #[must_use]
    pub fn unbound(mut self) -> Self {
        if let Self::Patch { revision, .. } = &mut self {
            *revision = None;
        }
        self
    }

    /// Deletes at once instead of gracefully. No effect on other writes.
    #[must_use]
    pub fn forced(mut self) -> Self {
        if let Self::Delete { grace_seconds, .. } = &mut self {
            *grace_seconds = Some(0);
        }
        self
    }
}

/// An object from a `json!` literal; anything else than a JSON object reads as empty.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => Object::from_map(map),
        _ => Object::from_map(Map::new()),
    }
}

/// The smallest JSON merge patch that turns `old` into `new`; `None` if nothing differs.
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = merge_patch(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches_are_minimal() {
        for (old, new, patch) in [
            (json!({"a":1}), json!({"a":1}), None),
            (
                json!({"a":1,"b":2}),
                json!({"b":2}),
                Some(json!({"a":null})),
            ),
            (
                json!({"a":{"x":1,"y":2}}),
                json!({"a":{"x":1,"y":3},"c":[]}),
                Some(json!({"a":{"y":3},"c":[]})),
            ),
            (json!({"l":[1,2]}), json!({"l":[2]}), Some(json!({"l":[2]}))),
            (Value::Null, json!({"l":1}), Some(json!({"l":1}))),
        ] {
            assert_eq!(merge_patch(&old, &new), patch, "{old} -> {new}");
        }
    }
}
