//! CustomResourceDefinitions: names, versions and schemas of kinds that users make.
//!
//! The status is the cluster's: who writes the spec keeps it, and whoever writes the status keeps the spec; but a version that objects are
//! stored in is remembered by the very write that begins to store them so.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::{CLEANUP_FINALIZER, status, validation};
use crate::columns::{Column, Row};
use crate::decode::knows_format;
use crate::lens::{fill, flag, items, items_mut, member, put, text};
use crate::strategy::{Dependents, Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

pub static CUSTOM_RESOURCE_DEFINITION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["crd".into(), "crds".into()],
        categories: vec!["api-extensions".into()],
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Scope", scope, "Whether its objects have a namespace."),
            Column::text("Versions", versions, "Which versions are served."),
            Column::created_at(),
            Column::text("Group", group, "Group of its kind.").wide(),
            Column::text("Kind", kind, "Its kind.").wide(),
            Column::text("ShortNames", short_names, "Short names of its kind.").wide(),
            Column::boolean("Established", established, "Whether it is served.").wide(),
        ],
        counts_generations: true,
        // Whoever cleans up takes its finalizer off in the same write that says so.
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Definitions),
        ..Kind::new(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
    })
});

fn scope(row: &Row<'_>) -> Value {
    row.text_or("/spec/scope", "")
}

fn versions(row: &Row<'_>) -> Value {
    let versions = items(row.object, "/spec/versions").iter();
    let mut shown: Vec<String> = versions
        .filter(|version| flag(version, "/served"))
        .map(|version| {
            let stored = if flag(version, "/storage") {
                "(storage)"
            } else {
                ""
            };
            format!("{}{stored}", text(version, "/name"))
        })
        .collect();
    shown.sort_unstable();
    shown.join(",").into()
}

fn group(row: &Row<'_>) -> Value {
    row.text_or("/spec/group", "")
}

fn kind(row: &Row<'_>) -> Value {
    row.text_or("/spec/names/kind", "")
}

fn short_names(row: &Row<'_>) -> Value {
    let names = items(row.object, "/spec/names/shortNames").iter();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    names.join(",").into()
}

fn established(row: &Row<'_>) -> Value {
    (row.condition("Established") == Some("True")).into()
}

struct Definitions;

/// The version that objects are to be stored in.
pub(super) fn storage_version(definition: &Value) -> Option<&str> {
    let versions = items(definition, "/spec/versions").iter();
    let mut stored = versions.filter(|version| version["storage"] == true);
    stored.next()?.get("name")?.as_str()
}

/// Remembers that there may be objects in the version that they are stored in from now on.
fn remember_storage_version(definition: &mut Value) {
    let Some(version) = storage_version(definition).map(Value::from) else {
        return;
    };
    let status = member(definition, "status");
    let mut known = items(status, "/storedVersions").to_vec();
    if !known.contains(&version) {
        known.push(version);
    }
    status["storedVersions"] = known.into();
}

impl Strategy for Definitions {
    fn prepare_for_create(&self, _: &Kind, new: &mut Value) {
        put(new, "status", None);
        remember_storage_version(new);
    }

    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        let mut next = replace_part(kind, part, proposed, old);
        if part.is_none() {
            remember_storage_version(&mut next);
        }
        next
    }

    fn default(&self, value: &mut Value) {
        let names = member(member(value, "spec"), "names");
        let kind = text(names, "/kind").to_owned();
        if text(names, "/singular").is_empty() && !kind.is_empty() {
            names["singular"] = kind.to_lowercase().into();
        }
        if text(names, "/listKind").is_empty() && !kind.is_empty() {
            names["listKind"] = format!("{kind}List").into();
        }
        let spec = member(value, "spec");
        if spec.get("conversion").is_none_or(Value::is_null) {
            spec["conversion"] = json!({ "strategy": "None" });
        }
        if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service")
            && service.is_object()
        {
            fill(service, "port", 443);
        }
        if items(value, "/status/storedVersions").is_empty() {
            remember_storage_version(value);
        }
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = BTreeSet::new();
        let mut sets = BTreeSet::new();
        for version in items(value, "/spec/versions") {
            if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
                look_at(schema, &mut told, &mut sets);
            }
        }
        told.into_iter().chain(sets).collect()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn takes_any_finalizer(&self) -> bool {
        true
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let causes = validation::created(new);
        causes.into_iter().for_each(|cause| problems.add(cause));
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let causes = match part {
            Some(_) => validation::status(new),
            None => validation::updated(new, old),
        };
        causes.into_iter().for_each(|cause| problems.add(cause));
    }

    fn dependents(&self) -> Dependents {
        Dependents::None
    }

    fn deletes_by_update(&self) -> Option<&'static str> {
        Some("precondition failed")
    }

    fn mark_deleted(&self, value: &mut Value) {
        if status::condition(value, "Terminating").is_some() {
            return;
        }
        let metadata = member(value, "metadata");
        let mut finalizers = items(metadata, "/finalizers").to_vec();
        if !finalizers.iter().any(|name| name == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.into());
        }
        metadata["finalizers"] = finalizers.into();
        let since = text(value, "/metadata/deletionTimestamp").to_owned();
        let pending = status::Condition {
            kind: "Terminating",
            status: "True",
            reason: "InstanceDeletionPending",
            message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".into(),
        };
        pending.set(value, &since);
    }
}

/// Gathers what a schema asks for that does not come true: formats that nobody knows, and sets of what is no scalar.
fn look_at(schema: &Value, formats: &mut BTreeSet<String>, sets: &mut BTreeSet<String>) {
    let format = text(schema, "/format");
    if !format.is_empty() && !knows_format(text(schema, "/type"), format) {
        formats.insert(format!("unrecognized format {format:?}"));
    }
    let item = text(schema, "/items/type");
    if text(schema, "/x-kubernetes-list-type") == "set" && matches!(item, "object" | "array") {
        sets.insert(format!(
            "x-kubernetes-list-type: set for items of type {item:?} is not supported by server-side apply or CEL validation rules"
        ));
    }
    for member in ["items", "not", "additionalProperties"] {
        if let Some(child) = schema.get(member).filter(|child| child.is_object()) {
            look_at(child, formats, sets);
        }
    }
    for member in ["allOf", "anyOf", "oneOf"] {
        let list = schema.get(member).and_then(Value::as_array);
        for child in list.into_iter().flatten() {
            look_at(child, formats, sets);
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for child in properties.into_iter().flatten().map(|(_, child)| child) {
        look_at(child, formats, sets);
    }
}

/// The conditions of a definition, to be changed.
pub(super) fn conditions(definition: &mut Value) -> impl Iterator<Item = &mut Value> {
    items_mut(definition, "/status/conditions")
}
