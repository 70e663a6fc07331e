//! The checks that a standard is made of, and what they find in a pod.
//!
//! Invariants: each thing is checked once, in the order of its name; of two checks of one thing, the stricter.

use serde_json::Value;

use super::baseline::{
    app_armor, capabilities, host_namespaces, host_paths, host_ports, host_process, privileged,
    probe_hosts, proc_mount, se_linux, seccomp, sysctls,
};
use super::pod::Pod;
use super::restricted::{
    all_capabilities, escalation, non_root, root_user, seccomp_set, volume_types,
};
use super::standard::{Level, Standard};
use crate::lens::{object, text};

/// The newest version that a check came with.
const MINOR_MAX: u32 = 37;

/// Why, and in which detail.
pub(super) type Violation = (String, String);

pub(super) fn detail(found: &[Violation]) -> String {
    let parts: Vec<String> = found
        .iter()
        .map(|(reason, detail)| match detail.is_empty() {
            true => reason.clone(),
            false => format!("{reason} ({detail})"),
        })
        .collect();
    parts.join(", ")
}

/// What one rule of a level says of a pod, by the version of the level.
type Rule = fn(&Pod<'_>, u32) -> Option<Violation>;

/// Everything that a pod does which a standard does not allow.
pub(super) fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    let minor = standard.minor.unwrap_or(MINOR_MAX).min(MINOR_MAX);
    let restricted = standard.level == Level::Restricted;
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let empty = Value::Null;
    let pod = Pod {
        annotations: object(pod, "/metadata/annotations"),
        spec: pod.get("spec").unwrap_or(&empty),
    };
    let own_users = minor >= 35 && pod.spec.get("hostUsers") == Some(&Value::Bool(false));
    let windows = minor >= 25 && text(pod.spec, "/os/name") == "windows";
    // Each of them once, in the order of its name; of two of one thing, the stricter.
    let baseline: [(bool, Rule); 12] = [
        (true, app_armor),
        (!(restricted && minor >= 22), capabilities),
        (true, host_namespaces),
        (!restricted, host_paths),
        (true, host_ports),
        (minor >= 34, probe_hosts),
        (true, privileged),
        (!(own_users || restricted && minor >= 35), proc_mount),
        (true, se_linux),
        (!(restricted && minor >= 19), seccomp),
        (true, sysctls),
        (true, host_process),
    ];
    let strict: [(bool, Rule); 7] = [
        (minor >= 8 && !windows, escalation),
        (minor >= 22 && !windows, all_capabilities),
        (minor >= 35, proc_mount),
        (true, volume_types),
        (!own_users, non_root),
        (minor >= 23 && !own_users, root_user),
        (minor >= 19 && !windows, seccomp_set),
    ];
    let strict = strict.iter().filter(|_| restricted);
    let checks = baseline.iter().chain(strict);
    checks
        .filter(|(applies, _)| *applies)
        .filter_map(|(_, check)| check(&pod, minor))
        .collect()
}
