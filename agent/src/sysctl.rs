//! `securityContext.sysctls`: which a pod may set, and where it reads them. Pure.
//!
//! A component has no kernel, so that setting one changes nothing but what the pod is told: the safe ones are files of `/proc/sys`, with the
//! values that the pod says, and all others are refused as a kubelet refuses them.
//! Source: k8s.io/kubernetes `pkg/kubelet/sysctl`.

use crate::pod_view::PodView;
use k8s_openapi::api::core::v1::Sysctl;

/// Where the files are.
pub(crate) const PATH: &str = "/proc/sys";
/// What their file system calls itself.
pub(crate) const FILE_SYSTEM: &str = "proc";

/// What a pod's status says that asks for another.
pub(crate) const FORBIDDEN: &str = "SysctlForbidden";

/// Those that concern nobody but the pod.
const SAFE: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the pod may not run, if it asks for what it may not set.
pub(crate) fn refused(pod: PodView<'_>) -> Option<String> {
    let spec = pod.spec()?;
    let on_host = |flag: Option<bool>| flag == Some(true);
    of(pod).iter().find_map(|sysctl| {
        let name = normal(&sysctl.name);
        let shared = match name.split('.').next() {
            Some("net") if on_host(spec.host_network) => Some("net"),
            Some("kernel") if on_host(spec.host_ipc) => Some("ipc"),
            _ => None,
        };
        match (SAFE.contains(&name.as_str()), shared) {
            (true, None) => None,
            (true, Some(space)) => Some(format!(
                "forbidden sysctl: \"{name}\" not allowed with host {space} enabled"
            )),
            (false, _) => Some(format!("forbidden sysctl: \"{name}\" not allowlisted")),
        }
    })
}

/// The files of what the pod sets, by their paths below [`PATH`].
pub(crate) fn files(pod: PodView<'_>) -> Vec<(String, String)> {
    let all = of(pod).iter().map(|sysctl| {
        let path = normal(&sysctl.name).replace('.', "/");
        (path, format!("{}\n", sysctl.value))
    });
    all.collect()
}

fn of(pod: PodView<'_>) -> &[Sysctl] {
    let context = pod.spec().and_then(|spec| spec.security_context.as_ref());
    let sysctls = context.and_then(|context| context.sysctls.as_deref());
    sysctls.unwrap_or_default()
}

/// With dots between its parts, where it is written with slashes.
fn normal(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn safe_ones_are_files_and_others_are_refused() {
        for (name, on_host, refusal, file) in [
            (
                "kernel.shm_rmid_forced",
                false,
                None,
                "kernel/shm_rmid_forced",
            ),
            (
                "kernel/shm_rmid_forced",
                false,
                None,
                "kernel/shm_rmid_forced",
            ),
            (
                "kernel.msgmax",
                false,
                Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
                "kernel/msgmax",
            ),
            (
                "net.ipv4.tcp_syncookies",
                true,
                Some(
                    "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
                ),
                "net/ipv4/tcp_syncookies",
            ),
        ] {
            let sysctls = json!([{"name": name, "value": "1"}]);
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": [], "hostNetwork": on_host, "securityContext": {"sysctls": sysctls}},
            }))
            .expect("a pod");
            assert_eq!(refused(PodView(&pod)).as_deref(), refusal);
            assert_eq!(files(PodView(&pod)), [(file.to_owned(), "1\n".to_owned())]);
        }
    }
}
