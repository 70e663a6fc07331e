//! `storagemigration.k8s.io`: requests that all objects of a resource be stored anew, in the version of today.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;

use crate::columns::{Column, Row};
use crate::conditions::conditions;
use crate::field::Field;
use crate::lens::{items, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

const GROUP: &str = "storagemigration.k8s.io";

pub static STORAGE_VERSION_MIGRATION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name().formatted(""),
            Column::text("Resource", resource, "What is stored anew."),
            Column::text("Status", status, "How far that is."),
        ],
        strategy: Arc::new(Migrations),
        ..Kind::new(
            GROUP,
            "v1",
            "StorageVersionMigration",
            "storageversionmigrations",
        )
    })
});

struct Migrations;

impl Strategy for Migrations {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "StorageVersionMigration")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let migrated = root.child("spec.resource");
        let resource = migrated.child("resource");
        if resource.text().is_empty() {
            problems.required(&resource, "resource is required to be set");
        } else {
            problems.rule(&resource, |text| joined(name::dns1035_label_faults(text)));
        }
        let group = migrated.child("group");
        if !group.text().is_empty() {
            problems.rule(&group, |text| joined(name::dns1123_subdomain_faults(text)));
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        if part == Some(Subresource::Status) {
            return progress(&root.child("status"), new, old, problems);
        }
        self.validate(new, problems);
        let (spec, kept) = (root.child("spec"), before.child("spec"));
        if spec.value() != kept.value() {
            let shown = json!({"Resource": {
                "group": spec.child("resource.group").text(),
                "resource": spec.child("resource.resource").text(),
            }});
            problems.invalid(&spec, shown, "field is immutable");
        }
    }
}

/// Faults told as one.
fn joined(faults: Vec<String>) -> Vec<String> {
    match faults.is_empty() {
        true => faults,
        false => vec![faults.join(",")],
    }
}

/// Whether a condition of this type holds.
fn holds(migration: &Value, kind: &str) -> bool {
    items(migration, "/status/conditions")
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// A migration ends once, and looks at one revision.
fn progress(status: &Field<'_, '_>, new: &Value, old: &Value, problems: &mut Problems) {
    let revision = status.child("resourceVersion");
    let digits = revision.text();
    let sound = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !sound {
        let sentence = format!("resource version is not well formed: {digits}");
        problems.invalid(&revision, digits, &sentence);
    }
    conditions(status, problems);
    let kept = text(old, "/status/resourceVersion");
    if !kept.is_empty() && kept != digits {
        problems.invalid(&revision, digits, "field is immutable");
    }
    let all = status.child("conditions");
    if holds(new, "Succeeded") && holds(new, "Failed") {
        let sentence = "Both success and failed conditions cannot be true at the same time";
        problems.invalid(&all, all.shown(), sentence);
    }
    for (kind, word) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if holds(old, kind) && !holds(new, kind) {
            let sentence = format!("{word} condition cannot be set to false once it is true");
            problems.invalid(&all, all.shown(), &sentence);
        }
    }
}

fn resource(row: &Row<'_>) -> Value {
    let resource = text(row.object, "/spec/resource/resource");
    match text(row.object, "/spec/resource/group") {
        "" => resource.into(),
        group => format!("{resource}.{group}").into(),
    }
}

fn status(row: &Row<'_>) -> Value {
    let conditions = items(row.object, "/status/conditions").iter();
    let true_ones = conditions.filter(|condition| condition["status"] == "True");
    let kinds = true_ones.map(|condition| text(condition, "/type"));
    let mut kinds = kinds.filter(|kind| matches!(*kind, "Running" | "Failed" | "Succeeded"));
    kinds.next_back().unwrap_or("Unknown").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;

    fn migration(status: Value) -> Value {
        json!({
            "apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
            "metadata": {"name": "m"},
            "spec": {"resource": {"group": "apps", "resource": "deployments"}},
            "status": status,
        })
    }

    #[test]
    fn what_is_migrated_is_named_and_stays() {
        let kind = &STORAGE_VERSION_MIGRATION;
        assert_eq!(told::of_new(kind, &migration(json!({}))), [""; 0]);
        for (group, resource, faults) in [
            (
                "",
                "",
                "spec.resource.resource: Required value: resource is required to be set",
            ),
            (
                "apps",
                ".",
                "spec.resource.resource: Invalid value: \".\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
        ] {
            let mut new = migration(json!({}));
            new["spec"]["resource"] = json!({"group": group, "resource": resource});
            assert_eq!(told::of_new(kind, &new), [faults]);
        }
        let old = migration(json!({}));
        let mut other = old.clone();
        other["spec"]["resource"]["group"] = "".into();
        assert_eq!(
            told::of_update(kind, &other, &old, None),
            [
                "spec: Invalid value: {\"Resource\":{\"group\":\"\",\"resource\":\"deployments\"}}: field is immutable"
            ]
        );
    }

    #[test]
    fn a_migration_ends_once() {
        let condition = |kind: &str, status: &str| {
            json!({
                "type": kind, "status": status, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let told = |old: Value, new: Value| {
            let part = Some(Subresource::Status);
            told::of_update(
                &STORAGE_VERSION_MIGRATION,
                &migration(new),
                &migration(old),
                part,
            )
            .len()
        };
        let done = json!({"resourceVersion": "7", "conditions": [condition("Succeeded", "True")]});
        assert_eq!(told(json!({}), done.clone()), 0);
        assert_eq!(told(done.clone(), done.clone()), 0);
        assert_eq!(told(json!({}), json!({"resourceVersion": "07"})), 1);
        assert_eq!(told(done.clone(), json!({"resourceVersion": "8"})), 2);
        let both = [condition("Succeeded", "True"), condition("Failed", "True")];
        assert_eq!(told(json!({}), json!({"conditions": both})), 1);
        let undone =
            json!({"resourceVersion": "7", "conditions": [condition("Succeeded", "False")]});
        assert_eq!(told(done, undone), 1);
    }
}
