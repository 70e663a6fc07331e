//! How names are looked up in a pod, by its `dnsPolicy`, `dnsConfig` and `hostAliases`: what its `/etc/resolv.conf` and `/etc/hosts` say, and
//! what its guests are answered who ask the host instead of a server. Pure.
//!
//! | `dnsPolicy` | servers | search |
//! | --- | --- | --- |
//! | `ClusterFirst`, `ClusterFirstWithHostNet` | the cluster's | the namespace's, the cluster's |
//! | `ClusterFirst` with `hostNetwork` | the node's | the node's |
//! | `Default` | the node's | the node's |
//! | `None` | none | none |
//!
//! `dnsConfig` adds to each of them. The texts are the kubelet's, which programs and tests read, and so are the bounds.

use crate::host_ports;
use crate::pod_view::PodView;
use std::fmt::Write;
use std::net::IpAddr;
use weft_mesh::Search;

/// Servers that the C library looks at; Kubernetes gives no more.
const SERVERS_MAX: usize = 3;
/// Domains of a search list, and letters of all of them.
const SEARCH_MAX: usize = 32;
const SEARCH_LETTERS_MAX: usize = 2048;
/// What a name is looked up below before it is taken as it is; as the kubelet says.
const NDOTS: &str = "ndots:5";

/// What of a cluster and a node the names of its pods depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    /// `cluster.local`.
    pub(crate) domain: &'a str,
    /// Where the cluster's DNS answers, if its Service is there.
    pub(crate) server: Option<IpAddr>,
    /// The node's own `resolv.conf`.
    pub(crate) of_node: &'a str,
    /// And its own `hosts`.
    pub(crate) hosts_of_node: &'a str,
}

/// What a pod's `resolv.conf` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    pub(crate) fn of(pod: PodView<'_>, around: Around<'_>) -> Self {
        let spec = pod.spec();
        let policy = spec.and_then(|spec| spec.dns_policy.as_deref());
        let follows_node = match policy {
            Some("Default") => true,
            Some("None" | "ClusterFirstWithHostNet") => false,
            // On the node's network the cluster has to be asked for by name.
            _ => host_ports::is_on_host(pod),
        };
        let mut found = match policy {
            Some("None") => Self::default(),
            _ if follows_node => Self::read(around.of_node),
            _ => Self {
                servers: around.server.iter().map(IpAddr::to_string).collect(),
                search: Search::of_namespace(pod.namespace(), around.domain).domains,
                options: vec![NDOTS.to_owned()],
            },
        };
        if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
            add(&mut found.servers, config.nameservers.iter().flatten());
            add(&mut found.search, config.searches.iter().flatten());
            for option in config.options.iter().flatten() {
                let Some(name) = option.name.as_deref() else {
                    continue;
                };
                let of_name = |known: &String| known.split(':').next() == Some(name);
                found.options.retain(|known| !of_name(known));
                found.options.push(match option.value.as_deref() {
                    Some(value) if !value.is_empty() => format!("{name}:{value}"),
                    _ => name.to_owned(),
                });
            }
        }
        found.servers.truncate(SERVERS_MAX);
        found.search.truncate(SEARCH_MAX);
        let mut letters = 0;
        found.search.retain(|domain| {
            letters += domain.len() + 1;
            letters <= SEARCH_LETTERS_MAX + 1
        });
        found
    }

    /// What a node's file says.
    fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
                // The last one counts.
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// How guests that ask the host are answered.
    pub(crate) fn search(&self) -> Search {
        let dots = self
            .options
            .iter()
            .filter_map(|option| option.strip_prefix("ndots:"));
        let dots = dots.filter_map(|dots| dots.parse().ok()).next_back();
        Search {
            domains: self.search.clone(),
            // As the C library has it.
            dots: dots.unwrap_or(1),
        }
    }
}

fn add<'a>(to: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for one in more {
        if !to.contains(one) {
            to.push(one.clone());
        }
    }
}

/// A pod's `/etc/hosts`: its node's, for one on the node's network. `hostname` is its own name.
pub(crate) fn hosts(pod: PodView<'_>, ip: IpAddr, hostname: &str, around: Around<'_>) -> String {
    let mut text = match host_ports::is_on_host(pod) {
        true => format!(
            "# Kubernetes-managed hosts file (host network).\n{}",
            around.hosts_of_node
        ),
        false => own_hosts(pod, ip, hostname, around.domain),
    };
    let aliases = pod.spec().and_then(|spec| spec.host_aliases.as_deref());
    let aliases = aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text += &format!("{}\t{}\n", alias.ip, names.join("\t"));
    }
    text
}

fn own_hosts(pod: PodView<'_>, ip: IpAddr, hostname: &str, domain: &str) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    let spec = pod.spec();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref());
    match subdomain.filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            let namespace = pod.namespace();
            text += &format!("{ip}\t{hostname}.{subdomain}.{namespace}.svc.{domain}\t{hostname}\n");
        }
        None => text += &format!("{ip}\t{hostname}\n"),
    }
    text
}

/// The addresses that a text of `/etc/hosts` has for a name.
pub(crate) fn of_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words
            .any(|known| known.eq_ignore_ascii_case(name))
            .then_some(ip)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
        serde_json::from_value(pod).expect("a pod")
    }

    fn around() -> Around<'static> {
        Around {
            domain: "cluster.local",
            server: "10.43.0.10".parse().ok(),
            hosts_of_node: "192.0.2.7\tmachine\n",
            of_node: "# the node's\nnameserver 192.0.2.53\ndomain old.example\nsearch example.com example.org\noptions edns0\n",
        }
    }

    fn text(spec: Value) -> String {
        Resolver::of(PodView(&pod(spec)), around()).text()
    }

    #[test]
    fn a_policy_says_who_is_asked() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n";
        let config = json!({
            "nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        });
        for (spec, expected) in [
            (json!({}), cluster),
            (json!({"dnsPolicy": "ClusterFirst"}), cluster),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), cluster),
            (
                json!({"dnsPolicy": "Default"}),
                "search example.com example.org\nnameserver 192.0.2.53\noptions edns0\n",
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": config}),
                "search resolv.conf.local\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsConfig": config}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local resolv.conf.local\nnameserver 10.43.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
        ] {
            assert_eq!(text(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let many: Vec<String> = (0..40)
            .map(|number| format!("d{number}.{}", "x".repeat(60)))
            .collect();
        let servers: Vec<String> = (0..9).map(|number| format!("192.0.2.{number}")).collect();
        let config = json!({"nameservers": servers, "searches": many});
        let found = text(json!({"dnsPolicy": "None", "dnsConfig": config}));
        let search = found.lines().next().expect("a line");
        assert!(
            search.len() <= "search ".len() + SEARCH_LETTERS_MAX,
            "{}",
            search.len()
        );
        assert_eq!(found.matches("nameserver").count(), SERVERS_MAX);
    }

    #[test]
    fn on_the_nodes_network_names_are_the_nodes() {
        let aliases = json!([{"ip": "192.0.2.9", "hostnames": ["db"]}]);
        let pod = pod(json!({"hostNetwork": true, "hostAliases": aliases}));
        let ip = "192.0.2.7".parse().expect("an address");
        assert_eq!(
            hosts(PodView(&pod), ip, "machine", around()),
            "# Kubernetes-managed hosts file (host network).\n192.0.2.7\tmachine\n\n# Entries added by HostAliases.\n192.0.2.9\tdb\n"
        );
        for (policy, server) in [
            ("ClusterFirst", "192.0.2.53"),
            ("ClusterFirstWithHostNet", "10.43.0.10"),
        ] {
            let resolver = text(json!({"hostNetwork": true, "dnsPolicy": policy}));
            assert!(
                resolver.contains(&format!("nameserver {server}\n")),
                "{resolver}"
            );
        }
    }

    #[test]
    fn who_asks_the_host_is_answered_alike() {
        let pod = pod(json!({
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["db", "db.example.com"]}],
            "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        }));
        let search = Resolver::of(PodView(&pod), around()).search();
        assert_eq!((search.dots, search.domains.len()), (2, 3));
        let ip = "10.42.0.7".parse().expect("an address");
        let hosts = hosts(PodView(&pod), ip, "p", around());
        assert!(hosts.ends_with(
            "10.42.0.7\tp\n\n# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example.com\n"
        ));
        for (name, expected) in [
            ("DB.example.com.", "192.0.2.7"),
            ("p", "10.42.0.7"),
            ("web", ""),
        ] {
            let found = of_hosts(&hosts, name);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{name}");
        }
    }
}
