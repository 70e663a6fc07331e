//! The checks of the level `baseline`: what a pod may not do to its node and to others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::Violation;
use super::pod::{Pod, containers, plural, quoted, setters, violation};
use crate::lens::{flag, items, text};

pub(super) fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |of: &Value| {
        let profile = of.pointer("/securityContext/appArmorProfile");
        let Some(profile) = profile else { return false };
        let kind = text(profile, "/type");
        let sound = matches!(kind, "RuntimeDefault" | "Localhost");
        if !sound {
            values.insert(kind.to_owned());
        }
        !sound
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let mut who = setters(on_pod, &names);
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    let annotations = pod.annotations.into_iter().flatten();
    let annotations: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(prefix))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut all: Vec<String> = values.into_iter().collect();
    if !annotations.is_empty() {
        if !who.is_empty() {
            who += " and ";
        }
        who += plural("annotation", "annotations", annotations.len());
        all.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        all.len(),
    );
    violation(
        reason,
        format!(
            "{who} must not set AppArmor profile type to {}",
            quoted(&all)
        ),
    )
}

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Capabilities that a container adds beyond those that are allowed.
pub(super) fn added<'a>(container: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let added = items(container, "/securityContext/capabilities/add").iter();
    let added = added.filter_map(Value::as_str);
    added.filter(|name| !allowed.contains(name)).collect()
}

pub(super) fn capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.named(|container| {
        let more = added(container, CAPABILITIES);
        found.extend(more.iter().copied());
        !more.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(found)
        ),
    )
}

pub(super) fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> = shared
        .filter(|field| flag(pod.spec, &format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    violation("host namespaces", shared.join(", "))
}

pub(super) fn host_paths(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let volumes = items(pod.spec, "/volumes").iter();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| text(volume, "/name"))
        .collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{word} {}", quoted(names)))
}

pub(super) fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = pod.named(|container| {
        let found = items(container, "/ports").iter();
        let found: Vec<i64> = found
            .filter_map(|port| port["hostPort"].as_i64().filter(|port| *port != 0))
            .collect();
        ports.extend(found.iter().map(ToString::to_string));
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", ports.len()),
            list.join(", ")
        ),
    )
}

pub(super) fn probe_hosts(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let mut names: Vec<&str> = pod.named(|container| {
        let handlers = [
            "/livenessProbe",
            "/readinessProbe",
            "/startupProbe",
            "/lifecycle/postStart",
            "/lifecycle/preStop",
        ];
        let found: Vec<&str> = handlers
            .iter()
            .filter_map(|handler| container.pointer(handler))
            .flat_map(|handler| {
                [
                    text(handler, "/httpGet/host"),
                    text(handler, "/tcpSocket/host"),
                ]
            })
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(found.iter().copied());
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural(
                "probe or lifecycle host",
                "probe or lifecycle hosts",
                hosts.len()
            ),
            quoted(hosts)
        ),
    )
}

pub(super) fn privileged(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let names = pod.named(|container| flag(container, "/securityContext/privileged"));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "privileged",
        format!("{who} must not set securityContext.privileged=true"),
    )
}

pub(super) fn proc_mount(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.named(|container| {
        let mount = container.pointer("/securityContext/procMount");
        let mount = mount.and_then(Value::as_str);
        let mount = mount.filter(|mount| *mount != "Default");
        found.extend(mount);
        mount.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "procMount",
        format!(
            "{who} must not set securityContext.procMount to {}",
            quoted(found)
        ),
    )
}

pub(super) fn se_linux(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |of: &Value| {
        let Some(options) = of.pointer("/securityContext/seLinuxOptions") else {
            return false;
        };
        let kind = text(options, "/type");
        let known = matches!(
            kind,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || (minor >= 31 && kind == "container_engine_t");
        if !known {
            types.insert(kind.to_owned());
        }
        let has = |pointer| !text(options, pointer).is_empty();
        let (has_user, has_role) = (has("/user"), has("/role"));
        user |= has_user;
        role |= has_role;
        !known || has_user || has_role
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let who = setters(on_pod, &names);
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        what.push(format!("{word} {}", quoted(types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    violation(
        "seLinuxOptions",
        format!(
            "{who} set forbidden securityContext.seLinuxOptions: {}",
            what.join("; ")
        ),
    )
}

/// The profile that a pod or a container asks for.
pub(super) fn profile(of: &Value) -> Option<&str> {
    let profile = of.pointer("/securityContext/seccompProfile")?;
    Some(text(profile, "/type"))
}

pub(super) fn is_sound_profile(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// Who has set a profile that may not be.
pub(super) fn bad_profiles(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |of: &Value| {
        let found = profile(of).filter(|kind| !is_sound_profile(kind));
        values.extend(found.map(str::to_owned));
        found.is_some()
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let who = setters(on_pod, &names);
    if who.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(values)
        ),
    )
}

pub(super) fn seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return bad_profiles(pod);
    }
    let sound = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let of_containers = pod.containers().map(|container| {
        let name = text(container, "/name");
        format!("container.seccomp.security.alpha.kubernetes.io/{name}")
    });
    let found: BTreeSet<String> = std::iter::once(of_pod)
        .chain(of_containers)
        .filter_map(|key| {
            let value = pod.annotation(&key).filter(|value| !sound(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    violation(
        "seccompProfile",
        format!("forbidden {word} {}", list.join(", ")),
    )
}

pub(super) fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let known = |name: &str| {
        let since = match name {
            "kernel.shm_rmid_forced"
            | "net.ipv4.ip_local_port_range"
            | "net.ipv4.tcp_syncookies"
            | "net.ipv4.ping_group_range"
            | "net.ipv4.ip_unprivileged_port_start" => 0,
            "net.ipv4.ip_local_reserved_ports" => 27,
            "net.ipv4.tcp_keepalive_time"
            | "net.ipv4.tcp_fin_timeout"
            | "net.ipv4.tcp_keepalive_intvl"
            | "net.ipv4.tcp_keepalive_probes" => 29,
            "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => 32,
            "net.ipv4.tcp_slow_start_after_idle" | "net.ipv4.tcp_notsent_lowat" => 37,
            _ => return false,
        };
        minor >= since
    };
    let all = items(pod.spec, "/securityContext/sysctls").iter();
    let names: Vec<&str> = all
        .map(|sysctl| text(sysctl, "/name"))
        .filter(|name| !known(name))
        .collect();
    if names.is_empty() {
        return None;
    }
    violation("forbidden sysctls", names.join(", "))
}

pub(super) fn host_process(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = |of: &Value| flag(of, "/securityContext/windowsOptions/hostProcess");
    let who = setters(bad(pod.spec), &pod.named(bad));
    if who.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
