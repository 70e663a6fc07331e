//! The pod security standards: `privileged`, `baseline` and `restricted`, for the namespaces whose labels ask for them.
//!
//! A namespace says for each of three modes which level and which version of it holds: `enforce` refuses pods, `warn` tells whoever writes
//! pods or what makes them, `audit` is written down. A level is a list of checks; a later version may replace one.
//!
//! Invariants: labels that cannot be read enforce the strictest level, and are refused where they are written.
//! Source: k8s.io/pod-security-admission 0.37 (KEP-2579), and its sentences.

mod baseline;
mod check;
mod pod;
mod restricted;
mod standard;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weft_api::status::StatusError;

use self::check::{detail, violations};
use self::standard::{Level, Policy, Standard};
use super::{Operation, Request};
use crate::lens::{flag, items, object, text};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level is raised.
pub const PODS_CHECKED_MAX: usize = 3000;

/// What is told beside an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Whether a label asks for anything.
pub fn is_asked_by(label: &str) -> bool {
    label.starts_with(PREFIX)
}

/// Whether a namespace asks for anything of its pods.
pub fn asks(namespace: &Value) -> bool {
    let labels = object(namespace, "/metadata/labels").into_iter().flatten();
    labels.into_iter().any(|(key, _)| is_asked_by(key))
}

/// Whether a request is about pods, or about what makes them.
pub fn concerns(request: &Request) -> bool {
    template_of(request).is_some() && !skips(request)
}

fn skips(request: &Request) -> bool {
    let is_pod = request.place.resource == "pods";
    match request.subresource.as_str() {
        "" => false,
        // Whatever else changes a pod's spec is judged.
        "ephemeralcontainers" | "resize" => !is_pod,
        _ => true,
    }
}

/// Where in an object a pod's spec is, with its metadata; none for what makes no pods.
fn template_of(request: &Request) -> Option<&'static str> {
    Some(
        match (&*request.place.resource_group, &*request.place.resource) {
            ("", "pods") => "",
            ("", "podtemplates") => "/template",
            ("", "replicationcontrollers")
            | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
            | ("batch", "jobs") => "/spec/template",
            ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
            _ => return None,
        },
    )
}

/// Judges a pod, or what makes pods, that is to be in `namespace`.
///
/// # Errors
/// 403 for a pod that violates what is enforced.
pub fn judge(
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    namespace: &Value,
) -> Result<Told, StatusError> {
    let mut told = Told::default();
    let Some(pointer) = template_of(request) else {
        return Ok(told);
    };
    let is_pod = request.place.resource == "pods";
    if skips(request) || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(told);
    }
    let (policy, causes) = Policy::of(namespace);
    if policy.is_privileged() && causes.is_empty() {
        return Ok(told);
    }
    if let (true, Some(old)) = (is_pod, old)
        && !changes_containers(new, old)
    {
        return Ok(told);
    }
    let Some(pod) = new.pointer(pointer).filter(|pod| pod.get("spec").is_some()) else {
        return Ok(told);
    };
    if !causes.is_empty() {
        let faults: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let sentence = format!("Failed to parse policy: {}", super::aggregate(faults));
        told.annotation("error", sentence);
    }
    if is_pod {
        told.annotation("enforce-policy", policy.enforce.to_string());
        let found = violations(policy.enforce, pod);
        if !found.is_empty() {
            let sentence = format!(
                "violates PodSecurity \"{}\": {}",
                policy.enforce,
                detail(&found)
            );
            return Err(request.forbidden(Some(new), &sentence));
        }
    }
    let would = |standard: Standard| {
        let found = violations(standard, pod);
        let sentence = || {
            format!(
                "would violate PodSecurity \"{standard}\": {}",
                detail(&found)
            )
        };
        (!found.is_empty()).then(sentence)
    };
    if let Some(sentence) = would(policy.audit) {
        told.annotation("audit-violations", sentence);
    }
    told.warnings.extend(would(policy.warn));
    Ok(told)
}

impl Told {
    fn annotation(&mut self, name: &str, value: String) {
        self.annotations.insert(format!("{PREFIX}{name}"), value);
    }
}

/// Judges the labels of a namespace. `pods` gives those that are in it, for one whose level is raised.
///
/// # Errors
/// 422 for labels that cannot be read, unless they were there before.
pub fn judge_namespace(
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    pods: impl FnOnce() -> Vec<Value>,
) -> Result<Told, StatusError> {
    let (policy, causes) = Policy::of(new);
    let before = old.map(Policy::of);
    let known = before.as_ref().is_some_and(|(_, faults)| *faults == causes);
    if !causes.is_empty() && !known {
        let name = text(new, "/metadata/name");
        return Err(StatusError::invalid("Namespace", "", name, causes));
    }
    let mut told = Told::default();
    let Some((before, _)) = before else {
        return Ok(told);
    };
    let (is, was) = (policy.enforce, before.enforce);
    let relaxed = is.minor == was.minor && is.level <= was.level;
    if is == was || is.level == Level::Privileged || relaxed {
        return Ok(told);
    }
    told.warnings = violations_of_namespace(&request.name, is, pods());
    Ok(told)
}

fn violations_of_namespace(namespace: &str, standard: Standard, pods: Vec<Value>) -> Vec<String> {
    let total = pods.len();
    // Of those that one controller made, the first tells of all.
    let mut owners = BTreeSet::new();
    let (first, more): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(|pod| {
        let mut references = items(pod, "/metadata/ownerReferences").iter();
        let controller = references.find(|owner| flag(owner, "/controller"));
        controller.is_none_or(|owner| owners.insert(text(owner, "/uid").to_owned()))
    });
    let mut counts: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.into_iter().chain(more).take(PODS_CHECKED_MAX) {
        let found = violations(standard, pod);
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|(reason, _)| reason.as_str()).collect();
        let name = text(pod, "/metadata/name");
        let count = counts.entry(reasons.join(", ")).or_default();
        if count.1 == 0 || name < count.0.as_str() {
            name.clone_into(&mut count.0);
        }
        count.1 += 1;
    }
    let mut warnings = Vec::new();
    if total > PODS_CHECKED_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {total} existing pods"
        ));
    }
    if !counts.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            count => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort_unstable();
    warnings.append(&mut lines);
    warnings
}

/// Whether a pod has other containers than before, or other images.
fn changes_containers(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<String> {
        let all = items(pod, list).iter();
        all.map(|container| text(container, "/image").to_owned())
            .collect()
    };
    let differ = |list: &str| images(new, list) != images(old, list);
    let ephemeral = items(new, "/spec/ephemeralContainers").iter().any(|new| {
        let mut before = items(old, "/spec/ephemeralContainers").iter();
        let before = before.find(|old| text(old, "/name") == text(new, "/name"));
        before.is_none_or(|before| text(before, "/image") != text(new, "/image"))
    });
    differ("/spec/containers") || differ("/spec/initContainers") || ephemeral
}

#[cfg(test)]
mod tests;
