//! ReplicationControllers, of which ReplicaSets are the successors: their selector is plain labels.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;
use weft_api::selector::LabelSelector;

use crate::apps::workload;
use crate::columns::{Column, Row, current_replicas, desired_replicas, labels_text, or_none};
use crate::core::pod;
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, member, object};
use crate::strategy::{Dependents, Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, weft};

pub static REPLICATION_CONTROLLER: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let [containers, images, _] = workload::columns();
    Arc::new(Kind {
        short_names: vec!["rc".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        columns: vec![
            Column::name(),
            Column::integer("Desired", desired_replicas, "Pods wanted."),
            Column::integer("Current", current_replicas, "Pods there."),
            Column::integer("Ready", ready, "Pods ready."),
            Column::age(),
            containers,
            images,
            Column::text("Selector", selector, "Labels of the pods.").wide(),
        ],
        selectable: vec![Selectable::or("status.replicas", "/status/replicas", "0")],
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Controllers),
        ..Kind::new("", "v1", "ReplicationController", "replicationcontrollers")
    })
});

struct Controllers;

impl Strategy for Controllers {
    fn default(&self, value: &mut Value) {
        let has_template = object(value, "/spec/template").is_some();
        let spec = member(value, "spec");
        fill(spec, "replicas", 1);
        // One without a template is told that it lacks one.
        if has_template {
            workload::default_template_of(spec);
        }
        let labels = object(value, "/spec/template/metadata/labels").cloned();
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
            return;
        };
        for (holder, field) in [("spec", "selector"), ("metadata", "labels")] {
            let place = &mut member(value, holder)[field];
            if place.as_object().is_none_or(serde_json::Map::is_empty) {
                *place = labels.clone().into();
            }
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        let mut told: Vec<String> = warning_of_name(value).into_iter().collect();
        told.extend(weft::warnings_of_template(value, around));
        told
    }

    fn dependents(&self) -> Dependents {
        Dependents::Stay(None)
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let selector = spec.child("selector");
        if selector.is_empty() {
            problems.required(&selector, "");
        }
        let template = spec.child("template");
        if template.is_set() {
            let labels = spec.entries("selector");
            let asked = LabelSelector::from_labels(labels.map(|(key, label)| (key, label.text())));
            workload::labels_match(Some(&asked), &template, problems);
            pod::validate_template(&template, problems);
            workload::keeps_running(&template, "ReplicationController", problems);
        } else {
            problems.required(&template, "");
        }
        problems.not_negative(&spec.child("replicas"));
        problems.not_negative(&spec.child("minReadySeconds"));
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part != Some(Subresource::Status) {
            return self.validate(new, problems);
        }
        let root = Field::root(new);
        let status = root.child("status");
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        for names in ["replicas"]
            .iter()
            .chain(&parts)
            .chain(&["observedGeneration"])
        {
            problems.not_negative(&status.child(names));
        }
        workload::no_part_is_more(&status, parts.iter(), "readyReplicas", problems);
    }
}

/// What is said of a name with dots, which pods and their hosts are named after.
pub(crate) fn warning_of_name(value: &Value) -> Option<String> {
    let faults = name::dns1123_label_faults(crate::lens::text(value, "/metadata/name"));
    (!faults.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        )
    })
}

fn ready(row: &Row<'_>) -> Value {
    row.count("/status/readyReplicas").into()
}

fn selector(row: &Row<'_>) -> Value {
    or_none(labels_text(row.object, "/spec/selector"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::{cells, shapes};
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn controller() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "n"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "shop/web:1"}]},
                },
            },
        })
    }

    #[test]
    fn a_template_says_what_is_selected() {
        let mut whole = controller();
        REPLICATION_CONTROLLER.strategy.default(&mut whole);
        assert_eq!(whole["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(whole["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(whole["spec"]["replicas"], 1);
        let once = whole.clone();
        REPLICATION_CONTROLLER.strategy.default(&mut whole);
        assert_eq!(whole, once);
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &REPLICATION_CONTROLLER,
            &controller(),
            &[
                (
                    "/spec/selector",
                    json!({"a": "c"}),
                    &[
                        "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                    ],
                ),
                (
                    "/spec/template",
                    Value::Null,
                    &[
                        "spec.selector: Required value",
                        "spec.template: Required value",
                    ],
                ),
                (
                    "/spec/replicas",
                    json!(-1),
                    &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/spec/minReadySeconds",
                    json!(-1),
                    &[
                        "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                    ],
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Never"),
                    &[
                        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                    ],
                ),
            ],
        );
        let old = controller();
        let status = json!({"replicas": 1, "readyReplicas": 2, "fullyLabeledReplicas": 2, "availableReplicas": 3});
        let reported = told::with(&old, "/status", status);
        assert_eq!(
            told::of_update(
                &REPLICATION_CONTROLLER,
                &reported,
                &old,
                Some(Subresource::Status)
            ),
            [
                "status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
            ]
        );
    }

    #[test]
    fn a_row_counts_pods() {
        let mut controller = controller();
        REPLICATION_CONTROLLER.strategy.default(&mut controller);
        controller["status"] = json!({"replicas": 2, "readyReplicas": 1});
        assert_eq!(
            cells(&REPLICATION_CONTROLLER, &controller),
            [
                json!("web"),
                json!(1),
                json!(2),
                json!(1),
                json!("10s"),
                json!("c"),
                json!("shop/web:1"),
                json!("app=web"),
            ]
        );
        assert_eq!(shapes(&REPLICATION_CONTROLLER)[7], "Selector: string wide");
    }

    #[test]
    fn a_name_with_dots_is_told_of() {
        let dotted = told::with(&controller(), "/metadata/name", json!("a.b"));
        let told = REPLICATION_CONTROLLER
            .strategy
            .warn(&dotted, &Cluster::default());
        assert_eq!(told.len(), 1);
        assert!(
            told[0].ends_with("is recommended: [must not contain dots]"),
            "{told:?}"
        );
    }
}
