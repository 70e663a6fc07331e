//! What names of the cluster mean to those who do not speak HTTP: the answers of a look-up.
//!
//! ```text
//! web                             in the search list of namespace shop: web.shop.svc.cluster.local, then web.svc.cluster.local, then …
//! web.shop.svc.cluster.local      what it has in the cluster's zone (dns/zone.rs)
//! ```
//! Pure: a table, a name and a search list in, addresses out. Invariant: what is outside of the cluster has no address here.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Mesh, Outbound,
    dns::zone::Data,
    resolve::host_name,
    table::{Protocol, Table},
};

/// Names with as many dots are looked up as they are first, as a pod's `resolv.conf` says where nobody says otherwise.
const NDOTS: usize = 5;
/// Names that stand for names that are followed: a circle of them has no end.
const ALIASES_MAX: usize = 4;

/// How a name that is not written in full is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What is put behind it, in this order.
    pub domains: Vec<String>,
    /// A name with as many dots is taken as it is first.
    pub dots: usize,
}

impl Search {
    /// Of pods in `namespace`, where nothing else is said.
    #[must_use]
    pub fn of_namespace(namespace: &str, cluster_domain: &str) -> Self {
        Self {
            domains: vec![
                format!("{namespace}.svc.{cluster_domain}"),
                format!("svc.{cluster_domain}"),
                cluster_domain.to_owned(),
            ],
            dots: NDOTS,
        }
    }

    /// The full names that `name` may mean, in the order in which they are looked up.
    fn candidates(&self, name: &str) -> Vec<String> {
        let itself = host_name(name).into_owned();
        if name.ends_with('.') {
            return vec![itself];
        }
        let searched = self.domains.iter();
        let mut all: Vec<String> = searched
            .map(|domain| format!("{itself}.{}", domain.trim_end_matches('.')))
            .collect();
        let place = match itself.matches('.').count() >= self.dots {
            true => 0,
            false => all.len(),
        };
        all.insert(place, itself);
        all
    }
}

impl Outbound {
    /// As [`Mesh::is_published`].
    #[must_use]
    pub fn is_published(&self, protocol: Protocol, at: SocketAddr) -> bool {
        self.table().behind(protocol, at).is_some()
    }
}

impl Mesh {
    /// The addresses that `name` has for who searches like that; none where there is no such name. Each once, in no order that means
    /// anything.
    #[must_use]
    pub fn addresses(&self, search: &Search, name: &str) -> Vec<IpAddr> {
        let table = self.inner.table.load();
        addresses(&table, &self.inner.cluster_domain, search, name)
    }

    /// Whether a Service is served at an address for who comes from outside of the cluster.
    #[must_use]
    pub fn is_published(&self, protocol: Protocol, at: SocketAddr) -> bool {
        self.inner.table.load().behind(protocol, at).is_some()
    }
}

fn addresses(table: &Table, domain: &str, search: &Search, name: &str) -> Vec<IpAddr> {
    let candidates = search.candidates(name);
    let mut found = candidates
        .iter()
        .map(|candidate| absolute(table, domain, candidate));
    found.find(|found| !found.is_empty()).unwrap_or_default()
}

/// What a full name has.
fn absolute(table: &Table, domain: &str, name: &str) -> Vec<IpAddr> {
    let mut name = name.to_ascii_lowercase();
    for _ in 0..ALIASES_MAX {
        let short = name.strip_suffix(domain);
        let Some(short) = short.and_then(|rest| rest.strip_suffix('.')) else {
            return Vec::new();
        };
        let labels: Vec<&str> = short.split('.').collect();
        let data = table.zone.data(&labels).unwrap_or_default();
        if let [Data::Alias(alias)] = data.as_slice() {
            name = host_name(alias).into_owned();
            continue;
        }
        let addresses = data.into_iter().filter_map(|data| match data {
            Data::Address(ip) => Some(ip),
            _ => None,
        });
        let mut found: Vec<IpAddr> = addresses.collect();
        found.sort_unstable();
        found.dedup();
        return found;
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{self, names, service};

    #[test]
    fn names_have_the_addresses_that_a_resolver_would_give() {
        let table = testing::table("a")
            .service(service("shop", "web").cluster_ip("10.43.0.7").build())
            .service(
                service("shop", "db")
                    .names(names(
                        &[],
                        &[
                            ("db-0", "10.42.0.2", true),
                            ("db-1", "10.42.1.2", true),
                            ("", "10.42.1.9", true),
                        ],
                    ))
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
            ("shop", "db", "10.42.0.2 10.42.1.2 10.42.1.9"),
            ("shop", "db-1.db", "10.42.1.2"),
            ("shop", "10-42-1-9.db", "10.42.1.9"),
            ("shop", "db-7.db", ""),
            ("shop", "basket", "10.43.0.7"),
            ("shop", "paint", ""),
            ("shop", "round", ""),
            ("shop", "10-42-0-9.shop.pod", "10.42.0.9"),
            ("shop", "x.shop.pod", ""),
            ("shop", "example.com", ""),
        ] {
            let found = addresses(
                &table,
                "cluster.local",
                &Search::of_namespace(from, "cluster.local"),
                name,
            );
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{name} from {from}");
        }
    }

    #[test]
    fn a_name_is_searched_as_its_pod_says() {
        let search = Search {
            domains: vec!["svc.cluster.local.".to_owned(), "example.com".to_owned()],
            dots: 2,
        };
        for (name, expected) in [
            ("web", "web.svc.cluster.local web.example.com web"),
            (
                "Web.shop",
                "web.shop.svc.cluster.local web.shop.example.com web.shop",
            ),
            (
                "web.shop.svc",
                "web.shop.svc web.shop.svc.svc.cluster.local web.shop.svc.example.com",
            ),
            ("web.", "web"),
        ] {
            assert_eq!(search.candidates(name).join(" "), expected, "{name}");
        }
    }
}
