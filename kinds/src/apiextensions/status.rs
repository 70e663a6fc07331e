//! What the cluster says of a definition: whether its names are free, whether it is served, whether it is approved, what its end waits for.
//!
//! Each step is a function from the definition, and its neighbours, to the status that it should have; none where nothing changes. The steps
//! come one after the other and in writes of their own: names first, so that every server serves the kind before anybody is told that it
//! does.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/controller/{status,establish,apiapproval,finalizer}`, `pkg/apihelpers`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::validation::{self, Approval};
use super::{CLEANUP_FINALIZER, definition};
use crate::lens::{condition_is_true, items, member, put, text};

/// Definitions that are served; each has caches, schemas and documents of its own.
pub const DEFINITIONS_MAX: usize = 2000;

/// A condition as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

/// The condition of a type.
pub(super) fn condition<'v>(definition: &'v Value, kind: &str) -> Option<&'v Value> {
    items(definition, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == kind)
}

impl Condition {
    fn is_set(&self, definition: &Value) -> bool {
        condition(definition, self.kind).is_some_and(|old| {
            text(old, "/status") == self.status
                && text(old, "/reason") == self.reason
                && text(old, "/message") == self.message
        })
    }

    /// Writes the condition down. Its time is that of the last change of its status.
    pub fn set(&self, definition: &mut Value, now: &str) {
        let mut new = json!({
            "type": self.kind, "status": self.status, "lastTransitionTime": now,
            "reason": self.reason, "message": self.message,
        });
        for old in definition::conditions(definition) {
            if text(old, "/type") == self.kind {
                if text(old, "/status") == self.status
                    && !text(old, "/lastTransitionTime").is_empty()
                {
                    new["lastTransitionTime"] = old["lastTransitionTime"].clone();
                }
                *old = new;
                return;
            }
        }
        let status = member(definition, "status");
        let mut all = items(status, "/conditions").to_vec();
        all.push(new);
        status["conditions"] = all.into();
    }
}

/// Whether requests for its objects are answered.
pub fn is_served(definition: &Value) -> bool {
    condition_is_true(definition, "NamesAccepted") || condition_is_true(definition, "Established")
}

/// Whether it is on its way out.
pub fn is_ending(definition: &Value) -> bool {
    !text(definition, "/metadata/deletionTimestamp").is_empty()
        || condition_is_true(definition, "Terminating")
}

/// The definition with the next step of its status; none where there is none to take. `all` are the definitions that there are, itself
/// among them.
pub fn next(definition: &Value, all: &[&Value], now: &str) -> Option<Value> {
    approved(definition, now)
        .or_else(|| named(definition, all, now))
        .or_else(|| established(definition, now))
}

/// Names that are free are accepted.
fn named(definition: &Value, all: &[&Value], now: &str) -> Option<Value> {
    let group = text(definition, "/spec/group");
    let wanted = definition.pointer("/spec/names")?;
    let empty = json!({});
    let had = definition
        .pointer("/status/acceptedNames")
        .unwrap_or(&empty);
    if wanted == had {
        return None;
    }
    let name = text(definition, "/metadata/name");
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    let mut served = 0;
    for other in all {
        served += usize::from(is_served(other) && text(other, "/metadata/name") != name);
        if text(other, "/spec/group") != group {
            continue;
        }
        let Some(names) = other.pointer("/status/acceptedNames") else {
            continue;
        };
        resources.extend([text(names, "/plural"), text(names, "/singular")]);
        resources.extend(items(names, "/shortNames").iter().filter_map(Value::as_str));
        kinds.extend([text(names, "/kind"), text(names, "/listKind")]);
    }
    let mut accepted = had.clone();
    let mut refused: Option<(&'static str, String)> = None;
    let is_free =
        |wanted: &str, had: &str, used: &BTreeSet<&str>| wanted == had || !used.contains(wanted);
    let in_use = |name: &str| format!("{name:?} is already in use");
    for (field, reason, used) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        if field == "shortNames" {
            let own = items(had, "/shortNames");
            let clashes: Vec<String> = items(wanted, "/shortNames")
                .iter()
                .filter(|name| !own.contains(name))
                .filter_map(Value::as_str)
                .filter(|name| !is_free(name, "", used))
                .map(in_use)
                .collect();
            match clashes.as_slice() {
                [] => put(&mut accepted, field, wanted.get(field).cloned()),
                [one] => refused = Some((reason, one.clone())),
                many => refused = Some((reason, format!("[{}]", many.join(", ")))),
            }
            continue;
        }
        let pointer = format!("/{field}");
        let (new, old) = (text(wanted, &pointer), text(had, &pointer));
        match is_free(new, old, used) {
            true => put(&mut accepted, field, wanted.get(field).cloned()),
            false => refused = Some((reason, in_use(new))),
        }
    }
    put(
        &mut accepted,
        "categories",
        wanted.get("categories").cloned(),
    );
    if refused.is_none() && served >= DEFINITIONS_MAX && !is_served(definition) {
        let told = format!("this cluster serves {DEFINITIONS_MAX} definitions at most");
        refused = Some(("TooManyDefinitions", told));
        accepted = had.clone();
    }
    let naming = match refused {
        Some((reason, message)) => Condition {
            kind: "NamesAccepted",
            status: "False",
            reason,
            message,
        },
        None => Condition {
            kind: "NamesAccepted",
            status: "True",
            reason: "NoConflicts",
            message: "no conflicts found".into(),
        },
    };
    if accepted == *had && naming.is_set(definition) {
        return None;
    }
    let mut next = definition.clone();
    member(&mut next, "status")["acceptedNames"] = accepted;
    naming.set(&mut next, now);
    if !condition_is_true(definition, "Established") {
        let (reason, message) = match naming.status {
            "True" => ("Installing", "the initial names have been accepted"),
            _ => ("NotAccepted", "not all names are accepted"),
        };
        let waiting = Condition {
            kind: "Established",
            status: "False",
            reason,
            message: message.into(),
        };
        // One that was refused before says so still.
        if naming.status == "True" || condition(definition, "Established").is_none() {
            waiting.set(&mut next, now);
        }
    }
    Some(next)
}

/// What has its names is served.
fn established(definition: &Value, now: &str) -> Option<Value> {
    if !condition_is_true(definition, "NamesAccepted")
        || condition_is_true(definition, "Established")
    {
        return None;
    }
    let bundle = definition.pointer("/spec/conversion/webhook/clientConfig/caBundle");
    let sound = bundle
        .and_then(Value::as_str)
        .is_none_or(|bundle| validation::ca_bundle_fault(bundle).is_none());
    let condition = match sound {
        true => Condition {
            kind: "Established",
            status: "True",
            reason: "InitialNamesAccepted",
            message: "the initial names have been accepted".into(),
        },
        false => Condition {
            kind: "Established",
            status: "False",
            reason: "InvalidCABundle",
            message: "The conversion webhook CABundle is invalid".into(),
        },
    };
    if condition.is_set(definition) {
        return None;
    }
    let mut next = definition.clone();
    condition.set(&mut next, now);
    Some(next)
}

/// Groups of Kubernetes' own say whether their kinds were approved.
fn approved(definition: &Value, now: &str) -> Option<Value> {
    if !validation::is_protected(text(definition, "/spec/group")) {
        return None;
    }
    let (approval, message) = validation::approval(definition);
    let (status, reason) = match approval {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    let condition = Condition {
        kind: "KubernetesAPIApprovalPolicyConformant",
        status,
        reason,
        message,
    };
    if condition.is_set(definition) {
        return None;
    }
    let mut next = definition.clone();
    condition.set(&mut next, now);
    Some(next)
}

/// Whether its objects are to be removed before it goes.
pub fn is_to_be_cleaned(definition: &Value) -> bool {
    !text(definition, "/metadata/deletionTimestamp").is_empty()
        && items(definition, "/metadata/finalizers")
            .iter()
            .any(|finalizer| finalizer == CLEANUP_FINALIZER)
}

/// How far the removal of its objects is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleanup {
    InProgress,
    Failed(String),
    Done,
    /// There never were any.
    NeverEstablished,
    /// What is stored under its name is another kind's.
    Overlapping,
}

/// The definition as the removal of its objects leaves it: once it is over, without the finalizer. None where nothing changes.
pub fn cleaned(definition: &Value, cleanup: &Cleanup, now: &str) -> Option<Value> {
    let (status, reason, message) = match cleanup {
        Cleanup::InProgress => (
            "True",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress".to_owned(),
        ),
        Cleanup::Failed(why) => (
            "True",
            "InstanceDeletionFailed",
            format!("could not issue all deletes: {why}"),
        ),
        Cleanup::Done => (
            "False",
            "InstanceDeletionCompleted",
            "removed all instances".to_owned(),
        ),
        Cleanup::NeverEstablished => (
            "False",
            "NeverEstablished",
            "resource was never established".to_owned(),
        ),
        Cleanup::Overlapping => (
            "False",
            "OverlappingBuiltInResource",
            "instances overlap with built-in resources in storage".to_owned(),
        ),
    };
    let condition = Condition {
        kind: "Terminating",
        status,
        reason,
        message,
    };
    let ends = status == "False";
    if condition.is_set(definition) && !ends {
        return None;
    }
    let mut next = definition.clone();
    condition.set(&mut next, now);
    if ends {
        let metadata = member(&mut next, "metadata");
        let mut rest = items(metadata, "/finalizers").to_vec();
        rest.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
        put(
            metadata,
            "finalizers",
            (!rest.is_empty()).then(|| rest.into()),
        );
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({
            "metadata": { "name": format!("{plural}.example.com"), "generation": 1 },
            "spec": { "group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short,
            } },
            "status": { "storedVersions": ["v1"] },
        })
    }

    /// `TYPE=STATUS REASON` of every condition.
    fn told(definition: &Value) -> Vec<String> {
        let conditions = items(definition, "/status/conditions").iter();
        conditions
            .map(|condition| {
                format!(
                    "{}={} {}",
                    text(condition, "/type"),
                    text(condition, "/status"),
                    text(condition, "/reason")
                )
            })
            .collect()
    }

    #[test]
    fn names_are_accepted_before_a_definition_is_established() {
        let first = definition("widgets", "Widget", &["wd"]);
        let named = next(&first, &[&first], NOW).unwrap();
        assert_eq!(
            told(&named),
            [
                "NamesAccepted=True NoConflicts",
                "Established=False Installing"
            ]
        );
        assert_eq!(named["status"]["acceptedNames"], first["spec"]["names"]);
        assert!(is_served(&named) && !is_served(&first));
        let served = next(&named, &[&named], NOW).unwrap();
        assert_eq!(
            told(&served),
            [
                "NamesAccepted=True NoConflicts",
                "Established=True InitialNamesAccepted"
            ]
        );
        assert_eq!(next(&served, &[&served], NOW), None);

        let second = definition("gadgets", "Widget", &["wd", "gd"]);
        let refused = next(&second, &[&served, &second], NOW).unwrap();
        assert_eq!(
            told(&refused),
            [
                "NamesAccepted=False ListKindConflict",
                "Established=False NotAccepted"
            ]
        );
        assert_eq!(
            condition(&refused, "NamesAccepted").unwrap()["message"],
            "\"WidgetList\" is already in use"
        );
        assert_eq!(next(&refused, &[&served, &refused], NOW), None);
        // The first goes: its names are free.
        let freed = next(&refused, &[&refused], NOW).unwrap();
        assert_eq!(told(&freed)[0], "NamesAccepted=True NoConflicts");
    }

    #[test]
    fn groups_of_kubernetes_say_whether_they_were_approved() {
        let mut definition = definition("widgets", "Widget", &[]);
        definition["spec"]["group"] = "sandbox.k8s.io".into();
        let told_of = |annotation: &str| {
            let mut definition = definition.clone();
            definition["metadata"]["annotations"] =
                json!({ "api-approved.kubernetes.io": annotation });
            told(&next(&definition, &[&definition], NOW).unwrap())[0].clone()
        };
        for (annotation, expected) in [
            ("https://github.com/x/pull/1", "True ApprovedAnnotation"),
            ("unapproved, experimental", "False UnapprovedAnnotation"),
            ("yes", "False InvalidAnnotation"),
            ("", "False MissingAnnotation"),
        ] {
            assert_eq!(
                told_of(annotation),
                format!("KubernetesAPIApprovalPolicyConformant={expected}")
            );
        }
    }

    #[test]
    fn the_finalizer_goes_when_nothing_is_left() {
        let mut definition = definition("widgets", "Widget", &[]);
        definition["metadata"]["deletionTimestamp"] = NOW.into();
        definition["metadata"]["finalizers"] = json!(["a/b", CLEANUP_FINALIZER]);
        assert!(is_to_be_cleaned(&definition) && is_ending(&definition));
        let going = cleaned(&definition, &Cleanup::InProgress, NOW).unwrap();
        assert_eq!(
            told(&going),
            ["Terminating=True InstanceDeletionInProgress"]
        );
        assert_eq!(cleaned(&going, &Cleanup::InProgress, NOW), None);
        let gone = cleaned(&going, &Cleanup::Done, NOW).unwrap();
        assert_eq!(gone["metadata"]["finalizers"], json!(["a/b"]));
        assert!(!is_to_be_cleaned(&gone));
    }
}
