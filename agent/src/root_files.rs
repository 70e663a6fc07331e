//! What the node writes into a container's root: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, the file for last words, and what it tells of
//! itself in `/sys` and `/proc`. Pure.
//!
//! The texts are the kubelet's, which programs and tests read.

use crate::cgroup::{self, Held};
use crate::config_error::ConfigError;
use crate::downward::Downward;
use crate::host_ports;
use crate::pod_names::{self, Around, Resolver};
use crate::pod_view::{ContainerView, Resources};
use crate::roots::{self, Contents, Placed, Shown};
use crate::sysctl;
use crate::volumes::{Mount, empty_dir};
use k8s_openapi::api::core::v1::Container;
use weft_runtime::VolumeLimits;

/// Where a container leaves its last words when it says nothing else.
pub(crate) const TERMINATION_PATH_DEFAULT: &str = "/dev/termination-log";
/// Linux' bound on a host name.
const HOSTNAME_BYTES_MAX: usize = 63;

/// The host name of a pod: its own wish, or its name as far as it fits; on the node's network the node's.
pub(crate) fn hostname(at: Downward<'_>) -> String {
    if host_ports::is_on_host(at.pod) {
        return at.node.name.clone();
    }
    let spec = at.pod.spec();
    let wish = spec.and_then(|spec| spec.hostname.clone());
    let mut name = wish
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| at.pod.name().to_owned());
    name.truncate(name.floor_char_boundary(HOSTNAME_BYTES_MAX));
    name.truncate(name.trim_end_matches(['-', '.']).len());
    name
}

/// Where the container leaves its last words.
pub(crate) fn termination_path(container: &Container) -> &str {
    let path = container.termination_message_path.as_deref();
    path.filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_PATH_DEFAULT)
}

/// What is in the root of `container` from the start.
///
/// # Errors
/// A limit that is none.
pub(crate) fn contents(
    at: Downward<'_>,
    container: &Container,
    mounts: &[Mount],
    placed: Vec<Placed>,
    around: Around<'_>,
    held: Held,
) -> Result<Contents, ConfigError> {
    let bytes = ContainerView(container).resource(Resources::Limits, "ephemeral-storage")?;
    let bytes = bytes.and_then(|limit| u64::try_from(limit.value()).ok());
    let read_only = container
        .security_context
        .as_ref()
        .is_some_and(|context| context.read_only_root_filesystem == Some(true));
    let hostname = hostname(at);
    let is_file = |path: &str| placed.iter().any(|file| file.path == path);
    let folders = mounts.iter().map(|mount| mount.path.clone());
    let mut folders: Vec<String> = folders.filter(|path| !is_file(path)).collect();
    folders.extend(container.working_dir.clone());
    Ok(Contents {
        folders,
        files: vec![
            (
                "/etc/hosts".into(),
                pod_names::hosts(at.pod, at.pod_ip, &hostname, around).into(),
            ),
            ("/etc/hostname".into(), format!("{hostname}\n").into()),
            (
                "/etc/resolv.conf".into(),
                Resolver::of(at.pod, around).text().into(),
            ),
            (termination_path(container).to_owned(), Vec::new()),
        ],
        limits: VolumeLimits {
            bytes: Some(bytes.unwrap_or(roots::BYTES_DEFAULT)),
            inodes: Some(empty_dir::inodes(at.pod)?),
        },
        last_words: Some(termination_path(container).to_owned()),
        read_only,
        placed,
        shown: shown(at, held),
    })
}

/// What the node tells of itself as a kernel would.
fn shown(at: Downward<'_>, held: Held) -> Vec<Shown> {
    let mut shown = vec![Shown {
        path: cgroup::PATH,
        file_system: cgroup::FILE_SYSTEM,
        files: cgroup::files(held),
    }];
    let sysctls = sysctl::files(at.pod);
    if !sysctls.is_empty() {
        shown.push(Shown {
            path: sysctl::PATH,
            file_system: sysctl::FILE_SYSTEM,
            files: sysctls,
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_facts::NodeFacts;
    use crate::pod_view::PodView;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn of(spec: Value, container: Value) -> Contents {
        let long = "a".repeat(62);
        let name = format!("{long}-b");
        let pod =
            json!({"metadata": {"name": name, "namespace": "shop", "uid": "u"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let container: Container = serde_json::from_value(container).expect("a container");
        let node = NodeFacts {
            name: "n".into(),
            host_ip: "127.0.0.1".parse().expect("an address"),
            allocatable_cpu_millis: 1000,
            allocatable_memory_bytes: 1 << 30,
        };
        let at = Downward {
            pod: PodView(&pod),
            pod_ip: "10.42.0.7".parse().expect("an address"),
            node: &node,
        };
        let around = Around {
            domain: "cluster.local",
            server: "10.43.0.10".parse().ok(),
            of_node: "",
            hosts_of_node: "192.0.2.7\tmachine\n",
        };
        let held = Held::of(&node, &container).expect("amounts");
        contents(at, &container, &[], Vec::new(), around, held).expect("contents")
    }

    #[test]
    fn files_read_as_a_kubelets() {
        let aliases = json!([{"ip": "10.0.0.9", "hostnames": ["db", "db.example"]}]);
        let spec = json!({
            "containers": [], "hostname": "web", "subdomain": "front", "hostAliases": aliases,
        });
        let text: Vec<String> = of(spec, json!({"name": "c"}))
            .files
            .into_iter()
            .map(|(path, text)| format!("{path}\n{}", String::from_utf8_lossy(&text)))
            .collect();
        insta::assert_snapshot!(text.join("\n").replace('\t', "→"), @r"
        /etc/hosts
        # Kubernetes-managed hosts file.
        127.0.0.1→localhost
        ::1→localhost ip6-localhost ip6-loopback
        fe00::0→ip6-localnet
        fe00::0→ip6-mcastprefix
        fe00::1→ip6-allnodes
        fe00::2→ip6-allrouters
        10.42.0.7→web.front.shop.svc.cluster.local→web

        # Entries added by HostAliases.
        10.0.0.9→db→db.example

        /etc/hostname
        web

        /etc/resolv.conf
        search shop.svc.cluster.local svc.cluster.local cluster.local
        nameserver 10.43.0.10
        options ndots:5

        /dev/termination-log
        ");
    }

    #[test]
    fn aliases_stand_at_the_end_of_hosts() {
        let aliases = json!([
            {"ip": "123.45.67.89", "hostnames": ["foo", "bar"]},
            {"ip": "::1", "hostnames": ["six"]},
        ]);
        let spec = json!({"containers": [], "hostname": "web", "hostAliases": aliases});
        let contents = of(spec, json!({"name": "c"}));
        let text = String::from_utf8_lossy(&contents.files[0].1).into_owned();
        assert!(
            text.ends_with(
                "10.42.0.7\tweb\n\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n::1\tsix\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_root_has_the_limits_of_its_container() {
        let container = json!({
            "name": "c", "workingDir": "/srv", "terminationMessagePath": "/tmp/last",
            "securityContext": {"readOnlyRootFilesystem": true},
            "resources": {"limits": {"ephemeral-storage": "2Mi"}},
        });
        let contents = of(json!({"containers": []}), container);
        assert_eq!(contents.limits.bytes, Some(2 << 20));
        assert!(contents.read_only);
        assert_eq!(contents.folders, ["/srv"]);
        let files: Vec<&str> = contents.files.iter().map(|(path, _)| &**path).collect();
        assert_eq!(files.last(), Some(&"/tmp/last"));
        let host = String::from_utf8_lossy(&contents.files[1].1).into_owned();
        assert_eq!(
            host,
            format!("{}\n", "a".repeat(62)),
            "cut, without the dash"
        );
    }
}
