//! Namespaces: `spec.finalizers` is written by finalization only, and what always exists is never deleted.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::status::StatusError;

use crate::apply::Writable;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::{NameRule, Selectable};
use crate::lens::{fill, items, member, put, text};
use crate::strategy::{Strategy, Surroundings, replace_part, writable_by};
use crate::validate::{Problems, finalizer_name};
use crate::{Kind, StatusMetadata, Subresource};

pub static NAMESPACE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ns".into()],
        namespaced: false,
        subresources: vec![Subresource::Status, Subresource::Finalize],
        columns: vec![
            Column::name(),
            Column::text("Status", phase, "The status of the namespace"),
            Column::age(),
        ],
        selectable: vec![Selectable::new("status.phase", "/status/phase")],
        name_rule: NameRule::Label,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Namespaces),
        ..Kind::new("", "v1", "Namespace", "namespaces")
    })
});

/// Namespaces that always exist.
pub const PERMANENT_NAMESPACES: &[&str] = &[
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "weft-system",
];

struct Namespaces;

impl Strategy for Namespaces {
    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        match part {
            None => {
                let mut next = replace_part(kind, part, proposed, old);
                put(&mut next, "spec", old.get("spec").cloned());
                next
            }
            Some(Subresource::Finalize) => {
                let mut next = proposed;
                put(&mut next, "status", old.get("status").cloned());
                let spec = member(&mut next, "spec");
                if spec.get("finalizers").is_none_or(Value::is_null) {
                    spec["finalizers"] = json!([]);
                }
                next
            }
            Some(_) => replace_part(kind, part, proposed, old),
        }
    }

    fn writable(&self, kind: &Kind, part: Option<Subresource>) -> Writable {
        match part {
            Some(Subresource::Finalize) => Writable::except_status(),
            _ => writable_by(kind, part),
        }
    }

    fn default(&self, value: &mut Value) {
        let name = text(value, "/metadata/name").to_owned();
        let labels = member(member(value, "metadata"), "labels");
        labels["kubernetes.io/metadata.name"] = name.into();
        fill(member(value, "status"), "phase", "Active");
    }

    /// A new one waits for its content to go. The server says so, and it is nobody's field; an emptied list is how finalization ends.
    fn admit(&self, new: &mut Value, _: &dyn Surroundings) -> Result<(), StatusError> {
        if new.pointer("/spec/finalizers").is_none() {
            member(new, "spec")["finalizers"] = json!(["kubernetes"]);
        }
        Ok(())
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let all = root.child("spec.finalizers");
        for finalizer in root.items("spec.finalizers") {
            finalizer_name(&all, finalizer.text(), problems);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let root = Field::root(new);
        match part {
            Some(Subresource::Finalize) => {
                for finalizer in root.items("spec.finalizers") {
                    finalizer_name(&finalizer, finalizer.text(), problems);
                }
            }
            Some(Subresource::Status) => {
                let phase = root.child_as("status.phase", "status.Phase");
                let deleting = root.child("metadata.deletionTimestamp").is_set();
                let (wanted, sentence) = if deleting {
                    (
                        "Terminating",
                        "may only be 'Terminating' if `deletionTimestamp` is not empty",
                    )
                } else {
                    (
                        "Active",
                        "may only be 'Active' if `deletionTimestamp` is empty",
                    )
                };
                if phase.text() != wanted {
                    problems.invalid(&phase, phase.text(), sentence);
                }
            }
            _ => {}
        }
    }

    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        PERMANENT_NAMESPACES
            .contains(&name)
            .then_some("this namespace may not be deleted")
    }

    fn deletes_by_update(&self) -> Option<&'static str> {
        Some("Precondition failed")
    }

    fn mark_deleted(&self, value: &mut Value) {
        member(value, "status")["phase"] = "Terminating".into();
    }

    fn is_released(&self, value: &Value) -> bool {
        items(value, "/spec/finalizers").is_empty()
    }
}

fn phase(row: &Row<'_>) -> Value {
    row.text_or("/status/phase", "")
}
