//! Users, groups and profiles that a pod and its containers run with.
//!
//! A component has none of them. They are judged, because manifests say them, and a typo is better told than stored.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::volumes::descends;
use crate::field::Field;
use crate::validate::Problems;

/// Numbers of users and groups, as Linux has them, without the one that means "nobody at all".
const IDS: RangeInclusive<i64> = 0..=i32::MAX as i64;
const SYSCTL_BYTES_MAX: usize = 253;
const LOCALHOST_BYTES_MAX: usize = 4095;

pub(super) fn of_pod(spec: &Field<'_, '_>, problems: &mut Problems) {
    let context = spec.child("securityContext");
    if context.is_set() {
        ids(&context, &["fsGroup", "runAsUser", "runAsGroup"], problems);
        for group in context.items("supplementalGroups") {
            problems.in_range(&group, IDS);
        }
        sysctls(spec, &context, problems);
        problems.one_of(
            &context.child("fsGroupChangePolicy"),
            &["Always", "OnRootMismatch"],
        );
        seccomp(&context.child("seccompProfile"), problems);
        app_armor(&context.child("appArmorProfile"), problems);
        problems.one_of(
            &context.child("supplementalGroupsPolicy"),
            &["Merge", "Strict"],
        );
        problems.one_of(
            &context.child("seLinuxChangePolicy"),
            &["MountOption", "Recursive"],
        );
    }
    let shares = spec.child("shareProcessNamespace");
    if shares.flag() && spec.child("hostPID").flag() {
        let sentence = "ShareProcessNamespace and HostPID cannot both be enabled";
        problems.invalid(&shares, true, sentence);
    }
}

pub(super) fn of_container(
    container: &Field<'_, '_>,
    spec: &Field<'_, '_>,
    problems: &mut Problems,
) {
    let context = container.child("securityContext");
    if !context.is_set() {
        return;
    }
    ids(&context, &["runAsUser", "runAsGroup"], problems);
    let mount = context.child("procMount");
    if mount.is_set() {
        problems.one_of(&mount, &["Default", "Unmasked"]);
        let own_users = spec.child("hostUsers").value() == Some(&false.into());
        if mount.text() == "Unmasked" && !own_users {
            let sentence = "`hostUsers` must be false to use `Unmasked`";
            problems.invalid(&mount, mount.text(), sentence);
        }
    }
    seccomp(&context.child("seccompProfile"), problems);
    if context.child("allowPrivilegeEscalation").value() == Some(&false.into()) {
        if context.child("privileged").flag() {
            let sentence =
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            problems.invalid(&context, context.shown(), sentence);
        }
        let added = context.child("capabilities.add").list();
        for _ in added
            .iter()
            .filter(|capability| *capability == "CAP_SYS_ADMIN")
        {
            let sentence = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            problems.invalid(&context, context.shown(), sentence);
        }
    }
    app_armor(&context.child("appArmorProfile"), problems);
}

fn ids(context: &Field<'_, '_>, members: &[&str], problems: &mut Problems) {
    for member in members {
        let id = context.child(member);
        if id.is_set() {
            problems.in_range(&id, IDS);
        }
    }
}

fn seccomp(profile: &Field<'_, '_>, problems: &mut Problems) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.child("type");
    match kind.text() {
        "" => problems.required(&kind, "type is required when seccompProfile is set"),
        _ => problems.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let local = profile.child("localhostProfile");
    match (kind.text() == "Localhost", local.is_set()) {
        (true, false) => {
            problems.required(&local, "must be set when seccomp type is Localhost");
        }
        (true, true) => descends(&local, local.text(), problems),
        (false, true) => {
            let sentence = "can only be set when seccomp type is Localhost";
            problems.invalid(&local, profile.shown(), sentence);
        }
        (false, false) => {}
    }
}

fn app_armor(profile: &Field<'_, '_>, problems: &mut Problems) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.child("type");
    let local = profile.child("localhostProfile");
    match kind.text() {
        "Localhost" => {
            if local.text().trim() != local.text() {
                let sentence = "must not be padded with whitespace";
                problems.invalid(&local, local.text(), sentence);
            } else if local.text().is_empty() {
                let sentence = "must be set when AppArmor type is Localhost";
                problems.required(&local, sentence);
            }
            if local.text().len() > LOCALHOST_BYTES_MAX {
                problems.too_long(&local, LOCALHOST_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                let sentence = "can only be set when AppArmor type is Localhost";
                problems.invalid(&local, local.text(), sentence);
            }
        }
        "" => problems.required(&kind, "type is required when appArmorProfile is set"),
        _ => problems.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn sysctls(spec: &Field<'_, '_>, context: &Field<'_, '_>, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for sysctl in context.items("sysctls") {
        let name = sysctl.child("name");
        let text = name.text();
        if text.is_empty() {
            problems.required(&name, "");
        } else if !is_sysctl(text) {
            let sentence = format!(
                "must have at most {SYSCTL_BYTES_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            problems.invalid(&name, text, &sentence);
        } else if names.contains(text) {
            problems.duplicate(&name, text);
        }
        let plain = text.replace('/', ".");
        let of_network = plain.starts_with("net.");
        let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
            .iter()
            .any(|prefix| plain.starts_with(prefix));
        if of_network && spec.child("hostNetwork").flag() {
            let sentence = "may not be specified when 'hostNetwork' is true";
            problems.invalid(&name, text, sentence);
        } else if of_ipc && spec.child("hostIPC").flag() {
            let sentence = "may not be specified when 'hostIPC' is true";
            problems.invalid(&name, text, sentence);
        }
        names.insert(text);
    }
}

fn is_sysctl(text: &str) -> bool {
    let edge = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    let segment = |segment: &str| {
        edge(segment.bytes().next()) && edge(segment.bytes().last()) && segment.bytes().all(inner)
    };
    text.len() <= SYSCTL_BYTES_MAX && text.split(['.', '/']).all(segment)
}
