//! ResourceQuotas: how much the objects of a namespace may use together.
//!
//! Left to others: what an object uses, and holding it to that (`crate::admission::quota`); counting it all anew
//! (`weft_controllers`).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::pod::resources;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{object, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, quantity_of};

pub static RESOURCE_QUOTA: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["quota".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text(
                "Request",
                |row| used_of_hard(row, false),
                "What is asked for, of what may be.",
            ),
            Column::text(
                "Limit",
                |row| used_of_hard(row, true),
                "What is used at most, of what may be.",
            ),
            Column::age(),
        ],
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(ResourceQuotas),
        ..Kind::new("", "v1", "ResourceQuota", "resourcequotas")
    })
});

fn used_of_hard(row: &Row<'_>, limits: bool) -> Value {
    let hard = object(row.object, "/status/hard").into_iter().flatten();
    let shown: Vec<String> = hard
        .filter(|(resource, _)| resource.starts_with("limits.") == limits)
        .map(|(resource, hard)| {
            let used = row.object["status"]["used"].get(resource);
            let used = used.and_then(Value::as_str).unwrap_or("0");
            format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"))
        })
        .collect();
    shown.join(", ").into()
}

struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let hard = object(value, "/spec/hard");
        let amount = |name: &str| quantity_of(hard?.get(name)?);
        let mut warnings = Vec::new();
        for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
            let mut name = format!("requests.{resource}");
            let mut request = amount(&name);
            if request.is_none() && matches!(resource, "cpu" | "memory") {
                resource.clone_into(&mut name);
                request = amount(&name);
            }
            let limit_name = format!("limits.{resource}");
            if let (Some(request), Some(limit)) = (request, amount(&limit_name))
                && request > limit
            {
                warnings.push(format!(
                    "ResourceQuota {name} ({request}) should be less than {limit_name} ({limit})"
                ));
            }
        }
        warnings
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        amounts(&spec, "hard", problems);
        scopes(&spec, problems);
        selector(&spec, problems);
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
            let status = root.child("status");
            amounts(&status, "hard", problems);
            amounts(&status, "used", problems);
            return;
        }
        self.validate(new, problems);
        let set = |root: &Field<'_, '_>| -> BTreeSet<String> {
            let scopes = root.child("spec.scopes");
            let scopes = scopes.list().iter().filter_map(Value::as_str);
            scopes.map(str::to_owned).collect()
        };
        if set(&root) != set(&before) {
            let scopes = root.child("spec.scopes");
            problems.invalid(&scopes, scopes.shown(), "field is immutable");
        }
    }
}

const QUOTA_NAMES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Those that are counted.
const WHOLE: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_quota_name(resource: &str) -> bool {
    QUOTA_NAMES.contains(&resource)
        || resources::is_huge(resource)
        || resource.starts_with("requests.hugepages-")
}

fn amounts(of: &Field<'_, '_>, map: &str, problems: &mut Problems) {
    for (resource, field) in of.entries(map) {
        resources::known_name(resource, &field, problems);
        if !resource.contains('/') && !is_quota_name(resource) {
            let sentence = "must be a standard resource for quota";
            problems.invalid(&field, resource, sentence);
        }
        let Some(quantity) = field.quantity() else {
            continue;
        };
        if quantity.is_negative() {
            let sentence = "must be greater than or equal to 0";
            problems.invalid(&field, quantity.to_string(), sentence);
        }
        let whole = WHOLE.contains(&resource) || resources::is_extended(resource);
        if whole && quantity.milli() % 1000 != 0 {
            problems.invalid(&field, quantity.to_string(), "must be an integer");
        }
    }
}

/// Whether a scope says something of a resource.
fn applies(scope: &str, resource: &str) -> bool {
    let computes = matches!(
        resource,
        "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
    );
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || computes,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

fn inapplicable(spec: &Field<'_, '_>, scope: &str) -> usize {
    let hard = spec.entries("hard");
    let standard = hard.filter(|(resource, _)| is_quota_name(resource));
    standard
        .filter(|(resource, _)| !applies(scope, resource))
        .count()
}

/// Pairs that no object is in.
fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    let pairs = [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ];
    let pairs = pairs.iter();
    pairs
        .filter(|(one, other)| scopes.contains(one) && scopes.contains(other))
        .count()
}

fn scopes(spec: &Field<'_, '_>, problems: &mut Problems) {
    let all = spec.child("scopes");
    let mut seen = BTreeSet::new();
    for scope in spec.items("scopes") {
        let name = scope.text();
        if !SCOPES.contains(&name) {
            problems.invalid(&all, all.shown(), "unsupported scope");
        }
        for _ in 0..inapplicable(spec, name) {
            let sentence = "unsupported scope applied to resource";
            problems.invalid(&all, all.shown(), sentence);
        }
        seen.insert(name);
    }
    for _ in 0..conflicts(&seen) {
        problems.invalid(&all, all.shown(), "conflicting scopes");
    }
}

fn selector(spec: &Field<'_, '_>, problems: &mut Problems) {
    let selector = spec.child("scopeSelector");
    let at = selector.child("matchExpressions");
    let mut seen = BTreeSet::new();
    for requirement in selector.items("matchExpressions") {
        let scope = text(requirement.value().unwrap_or(&Value::Null), "/scopeName");
        let operator = requirement.child("operator");
        let values = requirement.child("values");
        let (scope_at, operator_at, values_at) = (
            at.child("scopeName"),
            at.child("operator"),
            at.child("values"),
        );
        if !SCOPES.contains(&scope) {
            problems.invalid(&scope_at, scope, "unsupported scope");
        }
        for _ in 0..inapplicable(spec, scope) {
            let sentence = "unsupported scope applied to resource";
            problems.invalid(&at, selector.shown(), sentence);
        }
        let only_exists = matches!(
            scope,
            "BestEffort"
                | "NotBestEffort"
                | "Terminating"
                | "NotTerminating"
                | "CrossNamespacePodAffinity"
        );
        if only_exists && operator.text() != "Exists" {
            let sentence = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            problems.invalid(&operator_at, operator.text(), sentence);
        }
        match operator.text() {
            "In" | "NotIn" if values.list().is_empty() => {
                let sentence = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                problems.required(&values_at, sentence);
            }
            "Exists" | "DoesNotExist" if !values.list().is_empty() => {
                let sentence = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                problems.invalid(&values_at, values.shown(), sentence);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid(&operator_at, other, "not a valid selector operator"),
        }
        seen.insert(scope);
    }
    for _ in 0..conflicts(&seen) {
        let scopes = spec.child("scopes");
        problems.invalid(&at, scopes.shown(), "conflicting scopes");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn quotas_name_what_can_be_counted() {
        let base = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": {
            "pods": "3", "limits.cpu": "2", "count/deployments.apps": "1", "requests.example.com/gpu": "4",
        }}});
        told::check(
            &RESOURCE_QUOTA,
            &base,
            &[
                (
                    "/spec/hard",
                    json!({"storage": "1"}),
                    &[
                        "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
                    ],
                ),
                (
                    "/spec/hard",
                    json!({"pods": "1500m", "cpu": "-1"}),
                    &[
                        "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                        "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                    ],
                ),
                (
                    "/spec/scopes",
                    json!(["BestEffort"]),
                    &[
                        "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
                    ],
                ),
                (
                    "/spec",
                    json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
                    &[
                        "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
                    ],
                ),
                (
                    "/spec",
                    json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                        {"scopeName": "PriorityClass", "operator": "In"},
                        {"scopeName": "Terminating", "operator": "DoesNotExist"},
                    ]}}),
                    &[
                        "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                        "spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
                    ],
                ),
            ],
        );
        let other = told::with(&base, "/spec/scopes", json!(["NotTerminating"]));
        assert_eq!(
            told::of_update(
                &RESOURCE_QUOTA,
                &other,
                &told::with(&base, "/spec/hard", json!({})),
                None
            )
            .last()
            .map(String::as_str),
            Some("spec.scopes: Invalid value: [\"NotTerminating\"]: field is immutable")
        );
    }
}
