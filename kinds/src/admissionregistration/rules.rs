//! What webhooks and policies have in common: rules, selectors, conditions; their defaults, and what must hold of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_api::name;

use crate::admission::expressions::{Compiler, Gives, Has};
use crate::field::Field;
use crate::lens::{fill, items_mut, member};
use crate::validate::{Problems, label_selector};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

/// Fills what both a webhook and the matching of a policy leave out.
pub(super) fn default_selection(value: &mut Value) {
    fill(value, "matchPolicy", "Equivalent");
    fill(value, "namespaceSelector", json!({}));
    fill(value, "objectSelector", json!({}));
}

pub(super) fn default_rules(value: &mut Value, pointer: &str) {
    for rule in items_mut(value, pointer) {
        fill(rule, "scope", "*");
    }
}

/// `matchConstraints` or `matchResources`, where there are any.
pub(super) fn default_match(value: &mut Value, key: &str) {
    if value.get(key).is_some_and(Value::is_object) {
        let of = member(value, key);
        default_selection(of);
        default_rules(of, "/resourceRules");
        default_rules(of, "/excludeResourceRules");
    }
}

pub(super) fn match_policy(of: &Field<'_, '_>, problems: &mut Problems) {
    problems.one_of(&of.child("matchPolicy"), MATCH_POLICIES);
}

/// A rule with its operations.
pub(super) fn rule(rule: &Field<'_, '_>, problems: &mut Problems) {
    let operations = rule.child("operations");
    list(
        &operations,
        "if '*' is present, must not specify other operations",
        problems,
    );
    for operation in rule.items("operations") {
        problems.one_of_as(&operation, operation.text(), OPERATIONS);
    }
    list(
        &rule.child("apiGroups"),
        "if '*' is present, must not specify other API groups",
        problems,
    );
    list(
        &rule.child("apiVersions"),
        "if '*' is present, must not specify other API versions",
        problems,
    );
    for version in rule.items("apiVersions") {
        problems.required_text(&version);
    }
    resources(rule, problems);
    problems.one_of(&rule.child("scope"), SCOPES);
}

/// A list that must not be empty, and holds nothing beside a star.
fn list(list: &Field<'_, '_>, sentence: &str, problems: &mut Problems) {
    let all = list.list();
    if all.is_empty() {
        problems.required(list, "");
    }
    if all.len() > 1 && all.iter().any(|item| item == "*") {
        problems.invalid(list, list.shown(), sentence);
    }
}

fn resources(rule: &Field<'_, '_>, problems: &mut Problems) {
    let all = rule.child("resources");
    if all.list().is_empty() {
        problems.required(&all, "");
    }
    let (mut whole_parts, mut whole_resources) = (BTreeSet::new(), BTreeSet::new());
    let (mut everything, mut star, mut plain) = (false, false, false);
    for item in rule.items("resources") {
        let text = item.text();
        if text.is_empty() {
            problems.required(&item, "");
            continue;
        }
        everything |= text == "*/*";
        star |= text == "*";
        let Some((resource, part)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if whole_parts.contains(resource) {
            let sentence = format!("if '{resource}/*' is present, must not specify {text}");
            problems.invalid(&item, text, &sentence);
        }
        if whole_resources.contains(part) {
            let sentence = format!("if '*/{part}' is present, must not specify {text}");
            problems.invalid(&item, text, &sentence);
        }
        if part == "*" {
            whole_parts.insert(resource);
        }
        if resource == "*" {
            whole_resources.insert(part);
        }
    }
    if all.list().len() > 1 && everything {
        let sentence = "if '*/*' is present, must not specify other resources";
        problems.invalid(&all, all.shown(), sentence);
    }
    if star && plain {
        let sentence = "if '*' is present, must not specify other resources without subresources";
        problems.invalid(&all, all.shown(), sentence);
    }
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub(super) fn match_resources(of: &Field<'_, '_>, problems: &mut Problems) {
    let policy = of.child("matchPolicy");
    match policy.is_set() {
        true => match_policy(of, problems),
        false => problems.required(&policy, ""),
    }
    for name in ["namespaceSelector", "objectSelector"] {
        let selector = of.child(name);
        match selector.is_set() {
            true => label_selector(&selector, problems),
            false => problems.required(&selector, ""),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for named in of.items(list) {
            let mut seen = BTreeSet::new();
            for resource in named.items("resourceNames") {
                if let Err(fault) = name::path_segment(resource.text()) {
                    problems.invalid(&resource, resource.text(), &fault);
                }
                if !seen.insert(resource.text()) {
                    problems.duplicate(&resource, resource.text());
                }
            }
            rule(&named, problems);
        }
    }
}

pub(super) fn conditions(of: &Field<'_, '_>, has_params: bool, problems: &mut Problems) {
    let all = of.child("matchConditions");
    let count = all.list().len();
    if count > CONDITIONS_MAX {
        problems.too_many(&all, count, CONDITIONS_MAX);
    }
    let compiler = Compiler::default();
    let mut names = BTreeSet::new();
    for condition in of.items("matchConditions") {
        let source = condition.child("expression");
        let trimmed = source.text().trim();
        if trimmed.is_empty() {
            problems.required(&source, "");
        } else {
            let has = Has {
                params: has_params,
                authorizer: true,
                patches: false,
            };
            if let Err(told) = compiler.compile(trimmed, has, Gives::Bool) {
                problems.invalid(&source, trimmed, &told);
            }
        }
        let own_name = condition.child("name");
        if own_name.text().is_empty() {
            problems.required(&own_name, "");
            continue;
        }
        problems.rule(&own_name, name::qualified_name_faults);
        if !names.insert(own_name.text()) {
            problems.duplicate(&own_name, own_name.text());
        }
    }
}

/// The kind of a policy's params.
pub(super) fn param_kind(of: &Field<'_, '_>, problems: &mut Problems) {
    let version = of.child("apiVersion");
    let text = version.text();
    match text.matches('/').count() {
        _ if text.is_empty() => problems.required(&version, ""),
        0 | 1 => {
            let (group, number) = text.split_once('/').unwrap_or(("", text));
            let faults = name::dns1123_subdomain_faults(group);
            if !group.is_empty() && !faults.is_empty() {
                problems.invalid(&version, group, &faults.join(","));
            }
            let faults = name::dns1035_label_faults(number);
            if number.is_empty() {
                problems.invalid(&version, text, "version must be specified");
            } else if !faults.is_empty() {
                problems.invalid(&version, number, &faults.join(","));
            }
        }
        _ => {
            let sentence = format!("unexpected GroupVersion string: {text}");
            problems.invalid(&version, text, &sentence);
        }
    }
    let kind = of.child("kind");
    let faults = name::dns1035_label_faults(&kind.text().to_lowercase());
    if kind.text().is_empty() {
        problems.required(&kind, "");
    } else if !faults.is_empty() {
        let sentence = format!(
            "may have mixed case, but should otherwise match: {}",
            faults.join(",")
        );
        problems.invalid(&kind, kind.text(), &sentence);
    }
}
