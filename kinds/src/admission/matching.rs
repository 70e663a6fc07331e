//! Which requests a rule is about: operations, resources, scopes, names, labels of the object and of its namespace.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::selector::LabelSelector;

use super::{Operation, Place, Request};
use crate::lens::{items, object, text};

/// One rule of a webhook or of `resourceRules`.
#[derive(Clone, Debug)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = items(value, pointer).iter().filter_map(Value::as_str);
    list.map(str::to_owned).collect()
}

fn listed(list: &[String], asked: &str) -> bool {
    list.iter().any(|known| known == "*" || known == asked)
}

impl Rule {
    pub fn of(value: &Value) -> Self {
        Self {
            operations: texts(value, "/operations"),
            groups: texts(value, "/apiGroups"),
            versions: texts(value, "/apiVersions"),
            resources: texts(value, "/resources"),
            names: texts(value, "/resourceNames"),
            scope: text(value, "/scope").to_owned(),
        }
    }

    /// The rules at a pointer.
    pub fn list(value: &Value, pointer: &str) -> Vec<Self> {
        items(value, pointer).iter().map(Self::of).collect()
    }

    fn matches(&self, request: &Request, at: &Place) -> bool {
        self.in_scope(request)
            && listed(&self.operations, request.operation.name())
            && listed(&self.groups, &at.resource_group)
            && listed(&self.versions, &at.resource_version)
            && self.resources.iter().any(|resource| {
                let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
                (resource == "*" || resource == at.resource)
                    && (part == "*" || part == request.subresource)
            })
    }

    fn in_scope(&self, request: &Request) -> bool {
        let clusters = request.is_namespace() || request.namespace.is_empty();
        match self.scope.as_str() {
            "Namespaced" => !clusters,
            "Cluster" => clusters,
            "" | "*" => true,
            _ => false,
        }
    }

    fn is_named(&self, request: &Request) -> bool {
        self.names.is_empty() || self.names.contains(&request.name)
    }
}

/// The place by which one of the rules is about a request: its own, or, unless `exact`, another under which the object is known.
pub fn matched<'r>(rules: &[Rule], exact: bool, request: &'r Request) -> Option<&'r Place> {
    let fits = |rule: &Rule, at: &Place| rule.matches(request, at) && rule.is_named(request);
    if rules.iter().any(|rule| fits(rule, &request.place)) {
        return Some(&request.place);
    }
    if exact {
        return None;
    }
    let mut found = rules.iter().filter_map(|rule| {
        let mut places = request.equivalents.iter();
        places.find(|at| fits(rule, at))
    });
    found.next()
}

/// A selector at a pointer; an absent one selects everything, one that cannot be read nothing.
pub fn selector(value: &Value, pointer: &str) -> LabelSelector {
    match value.pointer(pointer) {
        Some(selector) if !selector.is_null() => {
            LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
        }
        _ => LabelSelector::everything(),
    }
}

pub fn labels_of(value: Option<&Value>) -> BTreeMap<String, String> {
    let labels = value.and_then(|value| object(value, "/metadata/labels"));
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The object before and after, and the namespace that it is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects<'a> {
    pub new: Option<&'a Value>,
    pub old: Option<&'a Value>,
    /// None outside of namespaces.
    pub namespace: Option<&'a Value>,
}

/// Whether labels of the namespace are selected. Whatever is in no namespace is.
pub fn selects_namespace(
    selector: &LabelSelector,
    request: &Request,
    objects: &Objects<'_>,
) -> bool {
    if selector.is_everything() || (request.namespace.is_empty() && !request.is_namespace()) {
        return true;
    }
    let changed = matches!(request.operation, Operation::Create | Operation::Update);
    let own = request.is_namespace() && request.subresource.is_empty();
    let namespace = match own {
        true if changed => objects.new,
        true => objects.old,
        false => objects.namespace,
    };
    selector.matches(&labels_of(namespace))
}

/// Whether labels of the object are selected, as it is or as it was.
pub fn selects_object(selector: &LabelSelector, objects: &Objects<'_>) -> bool {
    selector.is_everything()
        || [objects.new, objects.old]
            .into_iter()
            .flatten()
            .any(|object| selector.matches(&labels_of(Some(object))))
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
#[derive(Clone, Debug)]
pub struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Constraints {
    pub fn of(value: &Value) -> Self {
        Self {
            rules: Rule::list(value, "/resourceRules"),
            excluded: Rule::list(value, "/excludeResourceRules"),
            exact: text(value, "/matchPolicy") == "Exact",
            namespaces: selector(value, "/namespaceSelector"),
            objects: selector(value, "/objectSelector"),
        }
    }

    /// By which place they are about a request. Without rules, that is by any.
    pub fn matched<'r>(&self, request: &'r Request, objects: &Objects<'_>) -> Option<&'r Place> {
        let selected = selects_namespace(&self.namespaces, request, objects)
            && selects_object(&self.objects, objects);
        if !selected || matched(&self.excluded, self.exact, request).is_some() {
            return None;
        }
        match self.rules.is_empty() {
            true => Some(&request.place),
            false => matched(&self.rules, self.exact, request),
        }
    }
}
