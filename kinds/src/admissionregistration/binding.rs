//! `ValidatingAdmissionPolicyBinding` and `MutatingAdmissionPolicyBinding`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::rules;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{member, text};
use crate::strategy::Strategy;
use crate::validate::{Problems, label_selector};
use crate::{Kind, Subresource};

pub static VALIDATING_ADMISSION_POLICY_BINDING: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(super::kind(
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        columns(),
        Bindings { acts: true },
    ))
});

pub static MUTATING_ADMISSION_POLICY_BINDING: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(super::kind(
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        columns(),
        Bindings { acts: false },
    ))
});

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("PolicyName", policy_name, "The policy that it binds."),
        Column::text("ParamRef", param_ref, "The params that the policy gets."),
        Column::age(),
    ]
}

fn policy_name(row: &Row<'_>) -> Value {
    row.text_or("/spec/policyName", "")
}

fn param_ref(row: &Row<'_>) -> Value {
    let Some(reference) = row.object.pointer("/spec/paramRef") else {
        return "<unset>".into();
    };
    match (text(reference, "/namespace"), text(reference, "/name")) {
        (_, "") => reference
            .get("selector")
            .map_or_else(|| "<unset>".to_owned(), Value::to_string),
        ("", named) => format!("*/{named}"),
        (namespace, named) => format!("{namespace}/{named}"),
    }
    .into()
}

struct Bindings {
    /// Whether it says what comes of a refusal.
    acts: bool,
}

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

impl Strategy for Bindings {
    fn default(&self, value: &mut Value) {
        if value.get("spec").is_some_and(Value::is_object) {
            rules::default_match(member(value, "spec"), "matchResources");
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        problems.required_rule(&spec.child("policyName"), name::dns1123_subdomain_faults);
        let reference = spec.child("paramRef");
        if reference.is_set() {
            params(&reference, problems);
        }
        let matching = spec.child("matchResources");
        if matching.is_set() {
            rules::match_resources(&matching, problems);
        }
        if self.acts {
            actions(&spec, problems);
        }
        super::static_name(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
    }
}

fn params(reference: &Field<'_, '_>, problems: &mut Problems) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let (named, selector) = (reference.child("name"), reference.child("selector"));
    let has_name = !named.text().is_empty();
    if has_name {
        if let Err(fault) = name::path_segment(named.text()) {
            problems.invalid(&named, named.text(), &fault);
        }
        if selector.is_set() {
            problems.forbidden(&named, BOTH);
        }
    }
    if selector.is_set() {
        label_selector(&selector, problems);
        if has_name {
            problems.forbidden(&selector, BOTH);
        }
    }
    if !has_name && !selector.is_set() {
        problems.required(reference, "one of name or selector must be specified");
    }
    problems.required_one_of(
        &reference.child("parameterNotFoundAction"),
        &["Deny", "Allow"],
    );
}

fn actions(spec: &Field<'_, '_>, problems: &mut Problems) {
    let all = spec.child("validationActions");
    let mut seen = BTreeSet::new();
    for action in spec.items("validationActions") {
        problems.one_of_as(&action, action.text(), ACTIONS);
        if !seen.insert(action.text()) {
            problems.duplicate(&action, action.text());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let sentence = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        problems.invalid(&all, all.shown(), sentence);
    }
    if seen.is_empty() {
        problems.required(&all, "");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn bindings_are_sound() {
        let base = json!({"metadata": {"name": "b"}, "spec": {
            "policyName": "p", "validationActions": ["Deny"],
            "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"},
        }});
        told::check(
            &VALIDATING_ADMISSION_POLICY_BINDING,
            &base,
            &[
                (
                    "/spec/policyName",
                    Value::Null,
                    &["spec.policyName: Required value"],
                ),
                (
                    "/spec/validationActions",
                    json!(["Deny", "Warn", "Deny", "Tell"]),
                    &[
                        "spec.validationActions[2]: Duplicate value: \"Deny\"",
                        "spec.validationActions[3]: Unsupported value: \"Tell\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                        "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\",\"Tell\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
                    ],
                ),
                (
                    "/spec/paramRef",
                    json!({"name": "x", "selector": {}}),
                    &[
                        "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                        "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                        "spec.paramRef.parameterNotFoundAction: Required value",
                    ],
                ),
                (
                    "/spec/validationActions",
                    json!([]),
                    &["spec.validationActions: Required value"],
                ),
            ],
        );
    }
}
