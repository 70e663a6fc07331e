//! `node.k8s.io`: RuntimeClasses, which say what running pods of theirs costs and on which nodes they run.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::columns::{Column, Row};
use crate::core::pod::{validate_limits, validate_tolerations};
use crate::field::Field;
use crate::lens::{object, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, labels};
use crate::{Kind, Subresource};

pub static RUNTIME_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Handler", handler, "What runs the pods."),
            Column::age(),
        ],
        strategy: Arc::new(Classes),
        ..Kind::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
    })
});

/// Labels of nodes that have others in their place.
const DEPRECATED_LABELS: &[(&str, &str)] = &[
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
];

struct Classes;

impl Strategy for Classes {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = vec![format!(
            "handler: nodes run every pod as WebAssembly components, whatever the handler; {:?} is kept and not looked at",
            text(value, "/handler")
        )];
        let selector = object(value, "/scheduling/nodeSelector");
        for key in selector.into_iter().flatten().map(|(key, _)| key) {
            let deprecated = DEPRECATED_LABELS.iter().find(|(label, _)| label == key);
            told.extend(deprecated.map(|(_, why)| format!("scheduling.nodeSelector: {why}")));
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        validate_limits(&root.child("overhead"), "podFixed", "limits", problems);
        let scheduling = root.child("scheduling");
        labels(&scheduling.child("nodeSelector"), problems);
        validate_tolerations(&scheduling, problems);
        each_toleration_once(&scheduling, problems);
        // Kubernetes tells this after all else.
        let handler = root.child("handler");
        problems.required_rule(&handler, name::dns1123_label_faults);
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
        let (handler, kept) = (root.child("handler"), before.child("handler"));
        if handler.text() != kept.text() {
            problems.invalid(&handler, Value::Null, "field is immutable");
        }
    }
}

fn each_toleration_once(scheduling: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for toleration in scheduling.items("tolerations") {
        let of = |names: &str| toleration.child(names).text();
        let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(of);
        if !seen.insert([key, operator, value, effect]) {
            let seconds = toleration.child("tolerationSeconds").shown();
            let [key, operator, value, effect] = [key, operator, value, effect].map(Value::from);
            // As Go has it.
            let message = format!(
                "Duplicate value: {{\"Key\":{key},\"Operator\":{operator},\"Value\":{value},\"Effect\":{effect},\"TolerationSeconds\":{seconds}}}"
            );
            problems.tell(&toleration, "FieldValueDuplicate", message);
        }
    }
}

fn handler(row: &Row<'_>) -> Value {
    row.text_or("/handler", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::{cells, shapes};
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn class() -> Value {
        json!({"metadata": {"name": "wasm"}, "handler": "h"})
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &RUNTIME_CLASS,
            &class(),
            &[
                ("/handler", Value::Null, &["handler: Required value"]),
                (
                    "/overhead",
                    json!({"podFixed": {"cpu": "-1", "x/y": "1", "foo": "1"}}),
                    &[
                        "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                        "overhead.limits[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
                        "overhead.limits[foo]: Invalid value: \"foo\": must be a standard resource for containers",
                    ],
                ),
                (
                    "/scheduling",
                    json!({"tolerations": [{"key": "a"}, {"key": "a", "tolerationSeconds": 5}]}),
                    &[
                        "scheduling.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                        "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"a\",\"Operator\":\"\",\"Value\":\"\",\"Effect\":\"\",\"TolerationSeconds\":5}",
                    ],
                ),
            ],
        );
        let old = class();
        let new = told::with(&old, "/handler", json!("other"));
        assert_eq!(
            told::of_update(&RUNTIME_CLASS, &new, &old, None),
            ["handler: Invalid value: null: field is immutable"]
        );
    }

    #[test]
    fn what_is_not_obeyed_is_told() {
        let selector = json!({"nodeSelector": {"beta.kubernetes.io/arch": "x", "a": "b"}});
        let class = told::with(&class(), "/scheduling", selector);
        assert_eq!(
            RUNTIME_CLASS.strategy.warn(&class, &Cluster::default()),
            [
                "handler: nodes run every pod as WebAssembly components, whatever the handler; \"h\" is kept and not looked at",
                "scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            ]
        );
    }

    #[test]
    fn a_row_shows_the_handler() {
        assert_eq!(
            shapes(&RUNTIME_CLASS),
            ["Name: string/name", "Handler: string", "Age: string"]
        );
        assert_eq!(cells(&RUNTIME_CLASS, &class()), ["wasm", "h", "10s"]);
    }
}
