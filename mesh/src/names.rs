//! What names and addresses of the cluster mean to those who do not speak HTTP: the answers of a look-up, and who is behind an address.
//!
//! ```text
//! web                             in the search list of namespace shop: web.shop.svc.cluster.local, then web.svc.cluster.local, then …
//! web.shop.svc.cluster.local      the ClusterIP; of a headless Service the addresses of its endpoints
//! web-0.web.shop.svc.…            the endpoint of that name
//! 10-42-0-7.shop.pod.…            10.42.0.7
//! ```
//! Pure: a table, a name and a namespace in, addresses out. Invariant: what is outside of the cluster has no address here.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Mesh,
    resolve::host_name,
    table::{Service, Table},
};

/// Names with as many dots are looked up as they are first, as a pod's `resolv.conf` says.
const NDOTS: usize = 5;
/// Names that stand for names that are followed: a circle of them has no end.
const ALIASES_MAX: usize = 4;

impl Mesh {
    /// The addresses that `name` has for a workload in `namespace`; none where there is no such name. Each once, in no order that means
    /// anything.
    #[must_use]
    pub fn addresses(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let table = self.inner.table.load();
        addresses(&table, &self.inner.cluster_domain, namespace, name)
    }

    /// The endpoints in use behind an address of a Service, those of this node first; none where it is no such address.
    #[must_use]
    pub fn endpoints(&self, of: SocketAddr) -> Vec<SocketAddr> {
        let table = self.inner.table.load();
        let port = table
            .service_by_ip(of.ip())
            .and_then(|service| service.port(of.port()));
        port.map(|port| port.addresses()).unwrap_or_default()
    }
}

fn addresses(table: &Table, domain: &str, namespace: &str, name: &str) -> Vec<IpAddr> {
    let is_absolute = name.ends_with('.');
    let name = host_name(name);
    let searched = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ];
    let searched = searched.iter().map(|suffix| format!("{name}.{suffix}"));
    let mut candidates: Vec<String> = match is_absolute {
        true => Vec::new(),
        false => searched.collect(),
    };
    let first = name.matches('.').count() >= NDOTS;
    candidates.insert(
        if first { 0 } else { candidates.len() },
        name.clone().into_owned(),
    );
    let mut found = candidates
        .iter()
        .map(|candidate| absolute(table, domain, candidate, 0));
    found.find(|found| !found.is_empty()).unwrap_or_default()
}

/// What a full name has.
fn absolute(table: &Table, domain: &str, name: &str, aliases: usize) -> Vec<IpAddr> {
    let short = name.strip_suffix(domain);
    let Some(short) = short.and_then(|rest| rest.strip_suffix('.')) else {
        return Vec::new();
    };
    let labels: Vec<&str> = short.split('.').collect();
    let mut found = match labels[..] {
        [name, namespace, "svc"] => match table.service(namespace, name) {
            Some(service) => match service.alias() {
                Some(alias) if aliases < ALIASES_MAX => {
                    absolute(table, domain, &host_name(alias), aliases + 1)
                }
                Some(_) => Vec::new(),
                None => of_service(service),
            },
            None => Vec::new(),
        },
        [pod, name, namespace, "svc"] => {
            let service = table.service(namespace, name);
            let endpoints = service.into_iter().flat_map(|service| service.endpoints());
            endpoints
                .filter(|endpoint| endpoint.pod == pod || dashed(endpoint.address.ip()) == pod)
                .map(|endpoint| endpoint.address.ip())
                .collect()
        }
        [ip, _, "pod"] => {
            let parts: Vec<&str> = ip.split('-').collect();
            parts.join(".").parse().into_iter().collect()
        }
        _ => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

fn of_service(service: &Service) -> Vec<IpAddr> {
    match service.cluster_ip() {
        Some(ip) => vec![ip],
        None => service
            .endpoints()
            .map(|endpoint| endpoint.address.ip())
            .collect(),
    }
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{self, endpoint, service};

    #[test]
    fn names_have_the_addresses_that_a_resolver_would_give() {
        let table = testing::table("a")
            .service(service("shop", "web").cluster_ip("10.43.0.7").build())
            .service(
                service("shop", "db")
                    .endpoints(vec![
                        endpoint("shop", "db-0", "10.42.0.2", "a"),
                        endpoint("shop", "db-1", "10.42.1.2", "b"),
                    ])
                    .build(),
            )
            .service(
                service("shop", "basket")
                    .alias("web.shop.svc.cluster.local")
                    .build(),
            )
            .service(service("shop", "paint").alias("paint.example.com").build())
            .service(
                service("shop", "round")
                    .alias("round.shop.svc.cluster.local")
                    .build(),
            )
            .build();
        for (from, name, expected) in [
            ("shop", "web", "10.43.0.7"),
            ("shop", "WEB", "10.43.0.7"),
            ("other", "web", ""),
            ("other", "web.shop", "10.43.0.7"),
            ("other", "web.shop.svc", "10.43.0.7"),
            ("other", "web.shop.svc.cluster.local", "10.43.0.7"),
            ("other", "web.shop.svc.cluster.local.", "10.43.0.7"),
            ("other", "web.shop.", ""),
            ("shop", "db", "10.42.0.2 10.42.1.2"),
            ("shop", "db-1.db", "10.42.1.2"),
            ("shop", "10-42-0-2.db", "10.42.0.2"),
            ("shop", "db-7.db", ""),
            ("shop", "basket", "10.43.0.7"),
            ("shop", "paint", ""),
            ("shop", "round", ""),
            ("shop", "10-42-0-9.shop.pod", "10.42.0.9"),
            ("shop", "x.shop.pod", ""),
            ("shop", "example.com", ""),
        ] {
            let found = addresses(&table, "cluster.local", from, name);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{name} from {from}");
        }
    }
}
