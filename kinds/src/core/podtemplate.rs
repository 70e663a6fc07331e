//! PodTemplates: templates of pods that stand alone, for whoever makes pods of them.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::Kind;
use crate::apps::workload;
use crate::columns::{Column, Row, labels_text, or_none};
use crate::core::pod;
use crate::field::Field;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::weft;

pub static POD_TEMPLATE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![
            Column::name(),
            Column::text("Containers", containers, "Names of the containers."),
            Column::text("Images", images, "Images of the containers."),
            Column::text("Pod Labels", labels, "Labels of the pods."),
        ],
        counts_generations: true,
        strategy: Arc::new(Templates),
        ..Kind::new("", "v1", "PodTemplate", "podtemplates")
    })
});

struct Templates;

impl Strategy for Templates {
    fn default(&self, value: &mut Value) {
        workload::default_template_of(value);
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        pod::images_of(value, "/template/spec")
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        weft::warnings_of_pods(value, "/template/spec", around)
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        pod::validate_template(&root.child("template"), problems);
    }
}

const CONTAINERS: &str = "/template/spec/containers";

fn containers(row: &Row<'_>) -> Value {
    workload::of_containers(row, CONTAINERS, "/name")
}

fn images(row: &Row<'_>) -> Value {
    workload::of_containers(row, CONTAINERS, "/image")
}

fn labels(row: &Row<'_>) -> Value {
    or_none(labels_text(row.object, "/template/metadata/labels"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::{cells, shapes};
    use crate::validate::told;

    #[test]
    fn a_template_is_judged_as_those_of_workloads_are() {
        let template = json!({
            "metadata": {"name": "web", "namespace": "n"},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "shop/web:1"}, {"name": "d", "image": "i"}]},
            },
        });
        told::check(
            &POD_TEMPLATE,
            &template,
            &[
                (
                    "/template",
                    Value::Null,
                    &["template.spec.containers: Required value"],
                ),
                ("/template/spec/restartPolicy", json!("Never"), &[]),
                (
                    "/template/spec/restartPolicy",
                    json!("X"),
                    &[
                        "template.spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                    ],
                ),
            ],
        );
        assert_eq!(
            cells(&POD_TEMPLATE, &template),
            ["web", "c,d", "shop/web:1,i", "app=web"]
        );
        assert_eq!(shapes(&POD_TEMPLATE)[3], "Pod Labels: string");
    }
}
