//! Classes of volumes: who makes them, by which parameters, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::{GROUP, validate_parameters};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, flag, text};
use crate::node_labels::deprecated;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, default_class};

pub static STORAGE_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["sc".into()],
        namespaced: false,
        columns: vec![
            Column::named(name_and_default),
            Column::text(
                "Provisioner",
                provisioner,
                "Who makes volumes of the class.",
            ),
            Column::text("ReclaimPolicy", reclaim, "What becomes of a volume."),
            Column::text("VolumeBindingMode", binding, "When a volume is made."),
            Column::text("AllowVolumeExpansion", expansion, "Whether one can grow."),
            Column::age(),
        ],
        strategy: Arc::new(StorageClasses),
        ..Kind::new(GROUP, "v1", "StorageClass", "storageclasses")
    })
});

pub(crate) const IS_DEFAULT: &[&str] = &[
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

struct StorageClasses;

impl Strategy for StorageClasses {
    fn default(&self, value: &mut Value) {
        fill(value, "reclaimPolicy", "Delete");
        fill(value, "volumeBindingMode", "Immediate");
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        let root = Field::root(value);
        for term in root.items("allowedTopologies") {
            for expression in term.items("matchLabelExpressions") {
                let key = expression.child("key");
                told.extend(deprecated(key.text()).map(|message| format!("{key}: {message}")));
            }
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let provisioner = root.child("provisioner");
        if !provisioner.text().is_empty() {
            let shown = provisioner.text().to_lowercase();
            for fault in name::qualified_name_faults(&shown) {
                problems.invalid(&provisioner, shown.as_str(), &fault);
            }
        }
        validate_parameters(&root.child("parameters"), problems);
        let reclaim = root.child("reclaimPolicy");
        if !reclaim.text().is_empty() {
            problems.one_of(&reclaim, &["Delete", "Retain"]);
        }
        problems.one_of(
            &root.child("volumeBindingMode"),
            &["Immediate", "WaitForFirstConsumer"],
        );
        topologies(&root, problems);
        // Kubernetes tells of this last.
        problems.required_text(&provisioner);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        for member in [
            "provisioner",
            "parameters",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            problems.declared_immutable(&root.child(member), &before.child(member));
        }
    }
}

/// Where volumes may be: labels of nodes and their values, no two terms alike.
fn topologies(class: &Field<'_, '_>, problems: &mut Problems) {
    // Kubernetes takes a term without expressions for a duplicate wherever it stands.
    let mut terms: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new()];
    for term in class.items("allowedTopologies") {
        let mut found = BTreeMap::new();
        for expression in term.items("matchLabelExpressions") {
            let values = expression.child("values");
            if values.is_empty() {
                problems.required(&values, "");
            }
            let mut distinct = BTreeSet::new();
            for value in expression.items("values") {
                if !distinct.insert(value.text()) {
                    problems.duplicate(&value, value.text());
                }
            }
            let key = expression.child("key");
            problems.rule(&key, name::qualified_name_faults);
            if found.insert(key.text(), distinct).is_some() {
                problems.duplicate(&key, key.text());
            }
        }
        if terms.contains(&found) {
            problems.duplicate(&term.child("matchLabelExpressions"), "");
        }
        terms.push(found);
    }
}

fn name_and_default(row: &Row<'_>) -> Value {
    let name = text(row.object, "/metadata/name");
    match default_class::is_marked(row.object, IS_DEFAULT) {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}

fn provisioner(row: &Row<'_>) -> Value {
    row.text_or("/provisioner", "")
}

fn reclaim(row: &Row<'_>) -> Value {
    row.text_or("/reclaimPolicy", "Delete")
}

fn binding(row: &Row<'_>) -> Value {
    row.text_or("/volumeBindingMode", "<unset>")
}

fn expansion(row: &Row<'_>) -> Value {
    flag(row.object, "/allowVolumeExpansion").into()
}
