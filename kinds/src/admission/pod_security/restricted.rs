//! The checks of the level `restricted`: what a pod has to give up beyond the baseline.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::{added, bad_profiles, is_sound_profile, profile};
use super::check::Violation;
use super::pod::{Pod, containers, plural, quoted, setters, violation};
use crate::lens::{items, text};

pub(super) fn all_capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let keep = pod.named(|container| {
        let dropped = items(container, "/securityContext/capabilities/drop");
        !dropped.iter().any(|name| name == "ALL")
    });
    let mut found = BTreeSet::new();
    let adds = pod.named(|container| {
        let more = added(container, &["NET_BIND_SERVICE"]);
        found.extend(more.iter().copied());
        !more.is_empty()
    });
    let mut told = Vec::new();
    if !keep.is_empty() {
        told.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keep)
        ));
    }
    if !adds.is_empty() {
        told.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adds),
            quoted(found)
        ));
    }
    if told.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", told.join("; "))
}

pub(super) fn seccomp_set(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    if let Some(found) = bad_profiles(pod) {
        return Some(found);
    }
    if profile(pod.spec).is_some_and(is_sound_profile) {
        return None;
    }
    let names = pod.named(|container| profile(container).is_none());
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "seccompProfile",
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ),
    )
}

pub(super) fn escalation(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let names = pod.named(|container| {
        let allowed = container.pointer("/securityContext/allowPrivilegeEscalation");
        allowed != Some(&Value::Bool(false))
    });
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const OTHER_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn volume_types(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let has = |volume: &Value, kind: &str| volume.get(kind).is_some_and(|found| !found.is_null());
    let volumes = items(pod.spec, "/volumes").iter();
    let bad: Vec<&Value> = volumes
        .filter(|volume| !VOLUMES.iter().any(|kind| has(volume, kind)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> = bad
        .iter()
        .map(|volume| {
            let mut kinds = OTHER_VOLUMES.iter();
            let kind = kinds.find(|kind| has(volume, kind));
            kind.copied().unwrap_or("unknown")
        })
        .collect();
    let names: Vec<&str> = bad.iter().map(|volume| text(volume, "/name")).collect();
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural(
                "restricted volume type",
                "restricted volume types",
                types.len()
            ),
            quoted(types)
        ),
    )
}

pub(super) fn non_root(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let asked = |of: &Value| {
        let asked = of.pointer("/securityContext/runAsNonRoot");
        asked.and_then(Value::as_bool)
    };
    let on_pod = asked(pod.spec);
    let explicit = pod.named(|container| asked(container) == Some(false));
    let who = setters(on_pod == Some(false), &explicit);
    if !who.is_empty() {
        return violation(
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    if on_pod == Some(true) {
        return None;
    }
    let implicit = pod.named(|container| asked(container).is_none());
    if implicit.is_empty() {
        return None;
    }
    let who = containers(&implicit);
    violation(
        "runAsNonRoot != true",
        format!("pod or {who} must set securityContext.runAsNonRoot=true"),
    )
}

pub(super) fn root_user(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let root = |of: &Value| {
        let user = of.pointer("/securityContext/runAsUser");
        user.and_then(Value::as_i64) == Some(0)
    };
    let who = setters(root(pod.spec), &pod.named(root));
    if who.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
