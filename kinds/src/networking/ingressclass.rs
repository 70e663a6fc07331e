//! Classes of Ingresses: which controller serves them, and by which parameters.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::GROUP;
use super::ingress::IS_DEFAULT;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, object, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, default_class, unserved};

pub static INGRESS_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: vec![
            Column::named(name_and_default),
            Column::text("Controller", controller, "Who serves the class."),
            Column::text("Parameters", parameters, "What it is served by."),
            Column::age(),
        ],
        counts_generations: true,
        strategy: Arc::new(IngressClasses),
        ..Kind::new(GROUP, "v1", "IngressClass", "ingressclasses")
    })
});

const CONTROLLER_BYTES_MAX: usize = 250;

struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, value: &mut Value) {
        if let Some(parameters) = value.pointer_mut("/spec/parameters") {
            fill(parameters, "scope", "Cluster");
        }
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "IngressClass")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let controller = root.child("spec.controller");
        if controller.text().len() > CONTROLLER_BYTES_MAX {
            problems.too_long(&controller, CONTROLLER_BYTES_MAX);
        }
        problems.domain_prefixed_path(&controller);
        let parameters = root.child("spec.parameters");
        if parameters.is_set() {
            reference(&parameters, problems);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        let (controller, kept) = (
            root.child("spec.controller"),
            before.child("spec.controller"),
        );
        problems.immutable_text(&controller, &kept);
        self.validate(new, problems);
    }
}

fn reference(parameters: &Field<'_, '_>, problems: &mut Problems) {
    let group = parameters.child("apiGroup");
    if group.is_set() {
        problems.rule(&group, name::dns1123_subdomain_faults);
    }
    let (kind, own_name) = (parameters.child("kind"), parameters.child("name"));
    for member in [&kind, &own_name] {
        problems.path_segment(member);
    }
    let (scope, namespace) = (parameters.child("scope"), parameters.child("namespace"));
    problems.one_of_as(&scope, scope.text(), &["Cluster", "Namespace"]);
    match (scope.text(), namespace.is_set()) {
        ("Namespace", false) => {
            problems.required(&namespace, "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", true) => problems.rule(&namespace, name::dns1123_label_faults),
        ("Cluster", true) => {
            problems.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
    // Kubernetes tells of these last.
    problems.required_text(&kind);
    problems.required_text(&own_name);
}

fn name_and_default(row: &Row<'_>) -> Value {
    let name = text(row.object, "/metadata/name");
    match default_class::is_marked(row.object, IS_DEFAULT) {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}

fn controller(row: &Row<'_>) -> Value {
    row.text_or("/spec/controller", "")
}

fn parameters(row: &Row<'_>) -> Value {
    const PARAMETERS: &str = "/spec/parameters";
    let Some(parameters) = object(row.object, PARAMETERS) else {
        return "<none>".into();
    };
    let member = |name: &str| parameters.get(name).and_then(Value::as_str);
    let group = member("apiGroup").map_or(String::new(), |group| format!(".{group}"));
    let (kind, name) = (member("kind"), member("name"));
    format!("{}{group}/{}", kind.unwrap_or(""), name.unwrap_or("")).into()
}
