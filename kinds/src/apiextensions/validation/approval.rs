//! Whether kinds in groups of Kubernetes' own say that they were approved.

use serde_json::Value;

/// The annotation that they need.
pub(super) const APPROVED: &str = "api-approved.kubernetes.io";

/// Whether a group is Kubernetes' own.
pub(in crate::apiextensions) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| {
        let above = group.strip_suffix(own);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

/// Whether a definition in such a group says that it was approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apiextensions) enum Approval {
    Invalid,
    Missing,
    Approved,
    Bypassed,
}

pub(in crate::apiextensions) fn approval(definition: &Value) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotations = definition.pointer("/metadata/annotations");
    let annotation = annotations.and_then(|all| all.get(APPROVED)?.as_str());
    let annotation = annotation.unwrap_or("");
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split('/').next().is_none_or(str::is_empty)
    });
    if annotation.is_empty() {
        let told = format!("protected groups must have approval annotation {APPROVED:?}, {SEE}");
        return (Approval::Missing, told);
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {annotation:?}"));
    }
    if is_url {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let told = format!(
        "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
    );
    (Approval::Invalid, told)
}
