//! `rbac.authorization.k8s.io`: roles, and who has them. What a rule allows stands in [`rules`]; who asks, and which roles are his,
//! `weft_apiserver::authz` finds out.

mod clusterrole;
mod clusterrolebinding;
pub mod defaults;
mod role;
mod rolebinding;
pub mod rules;

use serde_json::Value;
use weft_api::name;

pub use clusterrole::CLUSTER_ROLE;
pub use clusterrolebinding::CLUSTER_ROLE_BINDING;
pub use role::ROLE;
pub use rolebinding::ROLE_BINDING;

use crate::Kind;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::NameRule;
use crate::lens::{items, items_mut, member, put, text};
use crate::validate::Problems;

const GROUP: &str = "rbac.authorization.k8s.io";

fn kind(kind: &'static str, resource: &'static str) -> Kind {
    Kind {
        name_rule: NameRule::PathSegment,
        ..Kind::new(GROUP, "v1", kind, resource)
    }
}

/// The columns of roles, which Kubernetes prints as it prints what it knows nothing of.
fn columns_of_roles() -> Vec<Column> {
    vec![Column::name(), Column::created_at()]
}

fn columns_of_bindings() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Role", role, "Which role."),
        Column::age(),
        Column::text("Users", users, "Users who have it.").wide(),
        Column::text("Groups", groups, "Groups whose members have it.").wide(),
        Column::text("ServiceAccounts", accounts, "ServiceAccounts that have it.").wide(),
    ]
}

/// The rules of a role; those of a namespace are about what is in it.
fn validate_rules(role: &Field<'_, '_>, namespaced: bool, problems: &mut Problems) {
    for rule in role.items("rules") {
        let paths = rule.child("nonResourceURLs");
        let (groups, resources) = (rule.child("apiGroups"), rule.child("resources"));
        if !paths.is_empty() {
            if namespaced {
                let sentence = "namespaced rules cannot apply to non-resource URLs";
                problems.invalid(&paths, paths.shown(), sentence);
            }
            let names = rule.child("resourceNames");
            if !groups.is_empty() || !resources.is_empty() || !names.is_empty() {
                let sentence = "rules cannot apply to both regular resources and non-resource URLs";
                problems.invalid(&paths, paths.shown(), sentence);
            }
            continue;
        }
        if groups.is_empty() {
            let sentence = "resource rules must supply at least one api group";
            problems.required(&groups, sentence);
        }
        if resources.is_empty() {
            let sentence = "resource rules must supply at least one resource";
            problems.required(&resources, sentence);
        }
    }
}

/// What Kubernetes tells of last about rules.
fn validate_verbs(role: &Field<'_, '_>, problems: &mut Problems) {
    for rule in role.items("rules") {
        let verbs = rule.child("verbs");
        if verbs.is_empty() {
            problems.required(&verbs, "");
        }
    }
}

fn default_binding(binding: &mut Value) {
    let fill = |of: &mut Value| {
        if text(of, "/apiGroup").is_empty() {
            put(of, "apiGroup", Some(GROUP.into()));
        }
    };
    fill(member(binding, "roleRef"));
    for subject in items_mut(binding, "/subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            fill(subject);
        }
    }
}

/// A binding to a role of one of these kinds.
fn validate_binding(
    binding: &Field<'_, '_>,
    kinds: &[&str],
    namespaced: bool,
    problems: &mut Problems,
) {
    let role = binding.child("roleRef");
    let group = role.child("apiGroup");
    problems.one_of_as(&group, group.text(), &[GROUP]);
    let kind = role.child("kind");
    problems.one_of_as(&kind, kind.text(), kinds);
    problems.path_segment(&role.child("name"));
    for subject in binding.items("subjects") {
        self::subject(&subject, namespaced, problems);
    }
    // Kubernetes tells of these last.
    for subject in binding.items("subjects") {
        problems.required_text(&subject.child("name"));
    }
    problems.required_text(&role.child("name"));
}

fn subject(subject: &Field<'_, '_>, namespaced: bool, problems: &mut Problems) {
    let (kind, group) = (subject.child("kind"), subject.child("apiGroup"));
    match kind.text() {
        "ServiceAccount" => {
            let own_name = subject.child("name");
            if !own_name.text().is_empty() {
                problems.rule(&own_name, name::dns1123_subdomain_faults);
            }
            if !group.text().is_empty() {
                problems.not_supported(&group, group.text(), &[""]);
            }
            let namespace = subject.child("namespace");
            if !namespaced {
                problems.required_text(&namespace);
            }
        }
        "User" | "Group" => problems.one_of_as(&group, group.text(), &[GROUP]),
        other => problems.one_of_as(&kind, other, &["ServiceAccount", "User", "Group"]),
    }
}

/// Which role a binding is to never changes.
fn validate_same_role(binding: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    let (role, kept) = (binding.child("roleRef"), before.child("roleRef"));
    if role.value() != kept.value() {
        let shown = serde_json::json!({
            "APIGroup": role.child("apiGroup").text(),
            "Kind": role.child("kind").text(),
            "Name": role.child("name").text(),
        });
        problems.invalid(&role, shown, "field is immutable");
    }
}

fn role(row: &Row<'_>) -> Value {
    let (kind, name) = (
        text(row.object, "/roleRef/kind"),
        text(row.object, "/roleRef/name"),
    );
    format!("{kind}/{name}").into()
}

fn named(row: &Row<'_>, kind: &str) -> Value {
    let subjects = items(row.object, "/subjects").iter();
    let names: Vec<String> = subjects
        .filter(|subject| text(subject, "/kind") == kind)
        .map(|subject| {
            let name = text(subject, "/name");
            match kind {
                "ServiceAccount" => format!("{}/{name}", text(subject, "/namespace")),
                _ => name.to_owned(),
            }
        })
        .collect();
    names.join(", ").into()
}

fn users(row: &Row<'_>) -> Value {
    named(row, "User")
}

fn groups(row: &Row<'_>) -> Value {
    named(row, "Group")
}

fn accounts(row: &Row<'_>) -> Value {
    named(row, "ServiceAccount")
}

#[cfg(test)]
mod tests;
