//! Persistent volumes: storage that outlives pods. Rules of their sources are in `sources`.

mod sources;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::StatusError;

use super::persistentvolumeclaim::{
    BETA_CLASS, VOLUME_MODES, access_modes_text, class_of, protect, validate_access_modes,
};
use crate::columns::{Column, Row};
use crate::core::pod::node_selector;
use crate::field::Field;
use crate::lens::{fill, items, items_mut, member, object, put, text};
use crate::node_labels::{deprecated, renamed};
use crate::strategy::{Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

pub static PERSISTENT_VOLUME: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["pv".into()],
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Capacity", capacity, "How large it is."),
            Column::text("Access Modes", modes, "How it can be mounted."),
            Column::text("Reclaim Policy", reclaim, "What becomes of it."),
            Column::text("Status", phase, "Whether it is bound."),
            Column::text("Claim", claim, "What it is bound to."),
            Column::text("StorageClass", class, "Its class."),
            Column::text(
                "VolumeAttributesClass",
                attributes,
                "Class of its attributes.",
            ),
            Column::text("Reason", reason, "Why its status is what it is."),
            Column::age(),
            Column::text("VolumeMode", mode, "Files or blocks.").wide(),
        ],
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Volumes),
        ..Kind::new("", "v1", "PersistentVolume", "persistentvolumes")
    })
});

const PHASE_TIME: &str = "lastPhaseTransitionTime";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Keeps a volume that is bound: put on at create, taken off by the controller.
const PROTECTION: &str = "kubernetes.io/pv-protection";

struct Volumes;

impl Strategy for Volumes {
    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        let mut next = replace_part(kind, part, proposed, old);
        // When a phase began is known as long as it lasts.
        let same = text(&next, "/status/phase") == text(old, "/status/phase");
        let kept = text(old, "/status/lastPhaseTransitionTime");
        if part == Some(Subresource::Status) && same && !kept.is_empty() {
            fill(member(&mut next, "status"), PHASE_TIME, kept);
        }
        next
    }

    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        sources::default(spec);
        let created = value.pointer("/metadata/creationTimestamp").cloned();
        let status = member(value, "status");
        if text(status, "/phase").is_empty() {
            put(status, "phase", Some("Pending".into()));
            if let Some(created) = created {
                fill(status, PHASE_TIME, created);
            }
        }
    }

    fn admit(&self, new: &mut Value, _: &dyn Surroundings) -> Result<(), StatusError> {
        protect(new, PROTECTION);
        Ok(())
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        let root = Field::root(value);
        for (annotation, message) in [
            (
                BETA_CLASS,
                "deprecated since v1.8; use \"storageClassName\" attribute instead",
            ),
            (
                MOUNT_OPTIONS,
                "deprecated since v1.31; use \"mountOptions\" attribute instead",
            ),
        ] {
            let annotation = root.entry("metadata.annotations", annotation);
            if annotation.is_set() {
                told.push(format!("{annotation}: {message}"));
            }
        }
        let policy = root.child("spec.persistentVolumeReclaimPolicy");
        if policy.text() == "Recycle" {
            told.push(format!(
                "{policy}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
            ));
        }
        let nodes = root.child("spec.nodeAffinity.required");
        for term in nodes.items("nodeSelectorTerms") {
            for expression in term.items("matchExpressions") {
                let key = expression.child("key");
                let label = key.text();
                let message = deprecated(label);
                told.extend(message.map(|message| format!("{key}: {label} is {message}")));
            }
        }
        told.extend(sources::remarks(&root.child("spec")));
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let own_name = text(new, "/metadata/name");
        validate_spec(&root.child("spec"), own_name, problems);
        let options = root.entry("metadata.annotations", MOUNT_OPTIONS);
        if options.is_set() && !sources::takes_mount_options(&root.child("spec")) {
            let path = format!("metadata.annotations.{MOUNT_OPTIONS}");
            let sentence = "may not specify mount options for this volume type";
            problems.forbidden_at(&path, sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part == Some(Subresource::Status) {
            return;
        }
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        if !sources::are_same(&root, &before) {
            let sentence = "spec.persistentvolumesource is immutable after creation";
            problems.forbidden_at("spec.persistentvolumesource", sentence);
        }
        problems.immutable(
            &root.child_as("spec.volumeMode", "volumeMode"),
            &before.child("spec.volumeMode"),
        );
        let (nodes, kept) = (
            root.child_as("spec.nodeAffinity", "nodeAffinity"),
            before.child("spec.nodeAffinity"),
        );
        let renamed = kept.value().map(with_new_labels);
        if kept.is_set() && nodes.value() != kept.value() && nodes.value() != renamed.as_ref() {
            let sentence = "field is immutable, except for updating from beta label to GA";
            let shown = nodes.value().map(in_go_names).unwrap_or_default();
            problems.invalid(&nodes, shown, sentence);
        }
        let attributes = root.child("spec.volumeAttributesClassName");
        if before.child("spec.volumeAttributesClassName").is_set() && !attributes.is_set() {
            let sentence = "update from non-nil value to nil is forbidden";
            problems.forbidden(&attributes, sentence);
        }
    }
}

/// The defaults of a volume that an attachment says itself.
pub(crate) fn default_inline(spec: &mut Value) {
    sources::default(spec);
}

/// Where a volume can be reached from, as Kubernetes' messages show it.
fn in_go_names(affinity: &Value) -> Value {
    let expressions = |term: &Value, list: &str| {
        match items(term, list) {
        [] => Value::Null,
        expressions => expressions
            .iter()
            .map(|one| {
                json!({
                    "Key": text(one, "/key"), "Operator": text(one, "/operator"), "Values": one.get("values"),
                })
            })
            .collect(),
    }
    };
    let terms = items(affinity, "/required/nodeSelectorTerms")
        .iter()
        .map(|term| {
            json!({
                "MatchExpressions": expressions(term, "/matchExpressions"),
                "MatchFields": expressions(term, "/matchFields"),
            })
        });
    match affinity.get("required") {
        None => json!({"Required": null}),
        Some(_) => json!({"Required": {"NodeSelectorTerms": terms.collect::<Vec<_>>()}}),
    }
}

/// Old labels of nodes may be replaced by the names that they have now.
fn with_new_labels(affinity: &Value) -> Value {
    let mut affinity = affinity.clone();
    for term in items_mut(&mut affinity, "/required/nodeSelectorTerms") {
        for expression in items_mut(term, "/matchExpressions") {
            if let Some(new) = renamed(text(expression, "/key")) {
                put(expression, "key", Some(new.into()));
            }
        }
    }
    affinity
}

fn validate_spec(spec: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        problems.required(&modes, "");
    }
    validate_access_modes(spec, problems);
    let capacity = spec.child("capacity");
    if capacity.is_empty() {
        problems.required(&capacity, "");
    }
    let sizes = capacity.map().map_or(0, serde_json::Map::len);
    if sizes != 1 || !spec.entry("capacity", "storage").is_set() {
        problems.not_supported(&capacity, capacity.shown(), &["storage"]);
    }
    for (_, size) in spec.entries("capacity") {
        problems.positive_size(&size);
    }
    let policy = spec.child("persistentVolumeReclaimPolicy");
    if !policy.text().is_empty() {
        problems.one_of(&policy, &["Delete", "Recycle", "Retain"]);
    }
    let nodes = spec.child("nodeAffinity");
    if nodes.is_set() {
        let required = nodes.child("required");
        if required.is_set() {
            node_selector(&required, problems);
        } else {
            problems.required(&required, "must specify required node constraints");
        }
    }
    sources::validate(spec, own_name, problems);
    let class = spec.child("storageClassName");
    if !class.text().is_empty() {
        problems.rule(&class, name::dns1123_subdomain_faults);
    }
    problems.one_of(&spec.child("volumeMode"), VOLUME_MODES);
    attributes_class(spec, problems);
}

fn attributes_class(spec: &Field<'_, '_>, problems: &mut Problems) {
    let attributes = spec.child("volumeAttributesClassName");
    if !attributes.is_set() {
        return;
    }
    if attributes.text().is_empty() {
        problems.required(&attributes, "an empty string is disallowed");
    } else {
        problems.rule(&attributes, name::dns1123_subdomain_faults);
    }
    let driver = spec.child("csi");
    if !driver.is_set() {
        let sentence = "has to be specified when using volumeAttributesClassName";
        problems.required(&driver, sentence);
    }
}

/// A volume that an attachment says itself: it is of a driver, and nothing binds it.
pub(crate) fn validate_inline(spec: &Field<'_, '_>, problems: &mut Problems) {
    const UNBOUND: &str = "may not be specified in the context of inline volumes";
    let claim = spec.child("claimRef");
    if claim.is_set() {
        problems.forbidden(&claim, UNBOUND);
    }
    let capacity = spec.child("capacity");
    if !capacity.is_empty() {
        problems.forbidden(&capacity, UNBOUND);
    }
    let driver = spec.child("csi");
    if !driver.is_set() {
        let sentence = "has to be specified in the context of inline volumes";
        problems.required(&driver, sentence);
    }
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        problems.required(&modes, "");
    }
    validate_access_modes(spec, problems);
    let policy = spec.child("persistentVolumeReclaimPolicy");
    if !matches!(policy.text(), "" | "Retain") {
        let sentence = "may only be Retain in the context of inline volumes";
        problems.forbidden(&policy, sentence);
    }
    let nodes = spec.child("nodeAffinity");
    if nodes.is_set() {
        problems.forbidden(&nodes, UNBOUND);
    }
    sources::validate(spec, "", problems);
    let class = spec.child("storageClassName");
    if !class.text().is_empty() {
        problems.forbidden(&class, UNBOUND);
    }
    let mode = spec.child("volumeMode");
    if !matches!(mode.text(), "" | "Filesystem") {
        let sentence =
            "may not specify volumeMode other than Filesystem in the context of inline volumes";
        problems.forbidden(&mode, sentence);
    }
    attributes_class(spec, problems);
}

fn capacity(row: &Row<'_>) -> Value {
    row.quantity_or("/spec/capacity/storage", "0")
}

fn modes(row: &Row<'_>) -> Value {
    access_modes_text(row.object, "/spec/accessModes")
}

fn reclaim(row: &Row<'_>) -> Value {
    row.text_or("/spec/persistentVolumeReclaimPolicy", "")
}

fn phase(row: &Row<'_>) -> Value {
    match text(row.object, "/metadata/deletionTimestamp") {
        "" => row.text_or("/status/phase", ""),
        _ => "Terminating".into(),
    }
}

fn claim(row: &Row<'_>) -> Value {
    if object(row.object, "/spec/claimRef").is_none() {
        return "".into();
    }
    let (namespace, name) = (
        text(row.object, "/spec/claimRef/namespace"),
        text(row.object, "/spec/claimRef/name"),
    );
    format!("{namespace}/{name}").into()
}

fn class(row: &Row<'_>) -> Value {
    class_of(row.object)
}

fn attributes(row: &Row<'_>) -> Value {
    row.text_or("/spec/volumeAttributesClassName", "<unset>")
}

fn reason(row: &Row<'_>) -> Value {
    row.text_or("/status/reason", "")
}

fn mode(row: &Row<'_>) -> Value {
    row.text_or("/spec/volumeMode", "<unset>")
}
