//! Flow schemas: which requests are of which level.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;

use super::{GROUP, bootstrap, in_go_names, validate_conditions};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{integer, items, items_mut, member, none_when_empty, put, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static FLOW_SCHEMA: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("PriorityLevel", level, "The level of its requests."),
            Column::text(
                "MatchingPrecedence",
                precedence,
                "Which schemas it goes before.",
            ),
            Column::text("DistinguisherMethod", method, "What tells flows apart."),
            Column::age(),
            Column::text("MissingPL", missing, "Whether its level is missing."),
        ],
        counts_generations: true,
        strategy: Arc::new(FlowSchemas),
        ..Kind::new(GROUP, "v1", "FlowSchema", "flowschemas")
    })
});

const METHODS: &[&str] = &["ByNamespace", "ByUser"];
const PRECEDENCE_DEFAULT: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
/// In the order of Kubernetes' messages.
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

struct FlowSchemas;

impl Strategy for FlowSchemas {
    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        if integer(spec, "/matchingPrecedence").unwrap_or(0) == 0 {
            put(spec, "matchingPrecedence", Some(PRECEDENCE_DEFAULT.into()));
        }
        for rule in items_mut(spec, "/rules") {
            for resources in items_mut(rule, "/resourceRules") {
                none_when_empty(resources, "namespaces");
            }
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let own_name = text(new, "/metadata/name");
        let spec = root.child("spec");
        self::spec(&spec, own_name, problems);
        let fixed = bootstrap::spec_of("FlowSchema", own_name);
        if fixed.is_some_and(|fixed| spec.value() != Some(&fixed)) {
            let sentence = format!("spec of '{own_name}' must equal the fixed value");
            problems.invalid(&spec, in_go_names(&spec.shown()), &sentence);
        }
        validate_conditions(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        match part {
            Some(Subresource::Status) => validate_conditions(&Field::root(new), problems),
            _ => self.validate(new, problems),
        }
    }
}

fn spec(spec: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    let precedence = spec.child("matchingPrecedence");
    let number = precedence.integer().unwrap_or(0);
    if number <= 0 {
        problems.invalid(&precedence, number, "must be a positive value");
    }
    if number > PRECEDENCE_MAX {
        let sentence = format!("must not be greater than {PRECEDENCE_MAX}");
        problems.invalid(&precedence, number, &sentence);
    }
    if number == 1 && own_name != "exempt" {
        let sentence = "only the schema named 'exempt' may have matchingPrecedence 1";
        problems.invalid(&precedence, number, sentence);
    }
    let method = spec.child("distinguisherMethod");
    let kind = method.child("type");
    if method.is_set() && !METHODS.contains(&kind.text()) {
        problems.not_supported(&kind, json!({"Type": kind.text()}), METHODS);
    }
    let level = spec.child("priorityLevelConfiguration.name");
    if level.text().is_empty() {
        problems.required(&level, "must reference a priority level");
    } else {
        problems.rule(&level, name::dns1123_subdomain_faults);
    }
    for rule in spec.items("rules") {
        if rule.child("subjects").is_empty() {
            let sentence = "subjects must contain at least one value";
            problems.required(&rule.child("subjects"), sentence);
        }
        for subject in rule.items("subjects") {
            self::subject(&subject, problems);
        }
        if rule.child("resourceRules").is_empty() && rule.child("nonResourceRules").is_empty() {
            let sentence = "at least one of resourceRules and nonResourceRules has to be non-empty";
            problems.required(&rule, sentence);
        }
        for resources in rule.items("resourceRules") {
            resource_rule(&resources, problems);
        }
        for paths in rule.items("nonResourceRules") {
            path_rule(&paths, problems);
        }
    }
}

fn subject(subject: &Field<'_, '_>, problems: &mut Problems) {
    const KINDS: &[(&str, &str)] = &[
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = subject.child("kind");
    let Some((wanted, member)) = KINDS.iter().find(|(wanted, _)| *wanted == kind.text()) else {
        return problems.not_supported(&kind, kind.text(), &["Group", "ServiceAccount", "User"]);
    };
    let own = subject.child(member);
    if own.is_set() {
        let own_name = own.child("name");
        if own_name.text().is_empty() {
            problems.required(&own_name, "");
        } else if *wanted == "ServiceAccount" && own_name.text() != "*" {
            problems.rule(&own_name, name::dns1123_subdomain_faults);
        }
        let namespace = own.child("namespace");
        if *wanted == "ServiceAccount" && namespace.text().is_empty() {
            problems.required(&namespace, "must specify namespace for service account");
        } else if *wanted == "ServiceAccount" {
            problems.rule(&namespace, name::dns1123_label_faults);
        }
    } else {
        let sentence = format!("{member} is required when subject kind is '{wanted}'");
        problems.required(&own, &sentence);
    }
    // Kubernetes looks at the others in this order, whichever is wanted.
    for (other, member) in KINDS.iter().filter(|(other, _)| other != wanted) {
        let field = subject.child(member);
        if field.is_set() {
            let sentence = format!("{member} is forbidden when subject kind is not '{other}'");
            problems.forbidden(&field, &sentence);
        }
    }
}

fn verbs(rule: &Field<'_, '_>, problems: &mut Problems) {
    let verbs = rule.child("verbs");
    if verbs.is_empty() {
        return problems.required(&verbs, "verbs must contain at least one value");
    }
    if has_star(&verbs) {
        return alone(&verbs, "verbs", problems);
    }
    if rule
        .items("verbs")
        .any(|verb| !VERBS.contains(&verb.text()))
    {
        problems.not_supported(&verbs, verbs.shown(), VERBS);
    }
}

fn has_star(list: &Field<'_, '_>) -> bool {
    list.list().iter().any(|element| element == "*")
}

/// What stands for everything stands alone.
fn alone(list: &Field<'_, '_>, what: &str, problems: &mut Problems) {
    if list.list().len() > 1 && has_star(list) {
        let sentence = format!("if '*' is present, must not specify other {what}");
        problems.invalid(list, list.shown(), &sentence);
    }
}

fn resource_rule(rule: &Field<'_, '_>, problems: &mut Problems) {
    verbs(rule, problems);
    for (member, one, what) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let list = rule.child(member);
        if list.is_empty() {
            let sentence = format!("resource rules must supply at least one {one}");
            problems.required(&list, &sentence);
        } else {
            alone(&list, what, problems);
        }
    }
    let namespaces = rule.child("namespaces");
    if namespaces.is_empty() && !rule.child("clusterScope").flag() {
        let sentence =
            "resource rules that are not cluster scoped must supply at least one namespace";
        problems.required(&namespaces, sentence);
    } else if has_star(&namespaces) {
        alone(&namespaces, "namespaces", problems);
    } else {
        for namespace in rule.items("namespaces") {
            for fault in name::dns1123_label_faults(namespace.text()) {
                let sentence =
                    format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                problems.invalid(&namespace, namespace.text(), &sentence);
            }
        }
    }
}

fn path_rule(rule: &Field<'_, '_>, problems: &mut Problems) {
    verbs(rule, problems);
    let paths = rule.child("nonResourceURLs");
    if paths.is_empty() {
        let sentence = "nonResourceURLs must contain at least one value";
        problems.required(&paths, sentence);
    } else if has_star(&paths) {
        alone(&paths, "non-resource URLs", problems);
    } else {
        for path in rule.items("nonResourceURLs") {
            if let Some(fault) = path_fault(path.text()) {
                problems.invalid(&path, path.text(), fault);
            }
        }
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn level(row: &Row<'_>) -> Value {
    row.text_or("/spec/priorityLevelConfiguration/name", "")
}

fn precedence(row: &Row<'_>) -> Value {
    row.count("/spec/matchingPrecedence").into()
}

fn method(row: &Row<'_>) -> Value {
    row.text_or("/spec/distinguisherMethod/type", "<none>")
}

fn missing(row: &Row<'_>) -> Value {
    let conditions = items(row.object, "/status/conditions").iter();
    let mut dangling = conditions.filter(|condition| text(condition, "/type") == "Dangling");
    let dangling = dangling.next().map(|condition| text(condition, "/status"));
    dangling.unwrap_or("?").into()
}
