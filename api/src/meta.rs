//! Metadata that decisions are made on, parsed out of a lossless object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Finalizer of an owner that waits for its dependents to go first.
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents are to stay.
pub const ORPHAN_DEPENDENTS: &str = "orphan";

/// The parsed `metadata` of an object. Fields that are absent or of the wrong type read as empty:
/// validation refuses them before an object is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
    pub generate_name: Option<String>,
    pub namespace: Option<String>,
    pub uid: String,
    /// Revision of the write that produced this state; `None` on an object that was never stored.
    pub resource_version: Option<u64>,
    /// Counts changes of the desired state; 0 where the kind has none.
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
    pub deletion_grace_period_seconds: Option<i64>,
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl Meta {
    /// Reads `metadata` of an object. Cost: one pass over the metadata, copies of its strings.
    pub fn of(object: &Value) -> Self {
        let meta = &object["metadata"];
        let text = |key: &str| meta[key].as_str().map(str::to_owned);
        let map = |key: &str| -> BTreeMap<String, String> {
            let entries = meta[key].as_object().into_iter().flatten();
            entries
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect()
        };
        let time = |key: &str| meta[key].as_str().and_then(|text| text.parse().ok());
        let list = |key: &str| meta[key].as_array().into_iter().flatten();
        Self {
            name: text("name").unwrap_or_default(),
            generate_name: text("generateName"),
            namespace: text("namespace").filter(|ns| !ns.is_empty()),
            uid: text("uid").unwrap_or_default(),
            resource_version: meta["resourceVersion"]
                .as_str()
                .and_then(|text| text.parse().ok()),
            generation: meta["generation"].as_i64().unwrap_or_default(),
            labels: map("labels"),
            annotations: map("annotations"),
            owner_references: list("ownerReferences")
                .filter_map(|owner| OwnerReference::deserialize(owner).ok())
                .collect(),
            finalizers: list("finalizers")
                .filter_map(|f| f.as_str().map(str::to_owned))
                .collect(),
            creation_timestamp: time("creationTimestamp"),
            deletion_timestamp: time("deletionTimestamp"),
            deletion_grace_period_seconds: meta["deletionGracePeriodSeconds"].as_i64(),
        }
    }

    /// The owner that manages this object, if any: at most one has `controller: true`.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references
            .iter()
            .find(|owner| owner.controller == Some(true))
    }

    /// Deletion has been asked for and waits for a grace period or finalizers.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}
