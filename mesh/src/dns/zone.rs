//! The names of the cluster and what they have, as <https://github.com/kubernetes/dns> specifies it (1.1.0). Pure.
//!
//! ```text
//! web.shop.svc                the ClusterIP, or the endpoints of a headless Service, or the name that it stands for; and its ports
//! _http._tcp.web.shop.svc     a port of it
//! web-0.web.shop.svc          one endpoint, by the host name of its pod, else by its address: 10-42-0-7.web.shop.svc
//! 10-42-0-7.shop.pod          10.42.0.7
//! dns-version                 which specification this is
//! ```
//! A zone changes by the Service; maps are persistent, so that a copy costs nothing and shares what is the same.
//!
//! Invariants: a name that something stands below exists, and has nothing where it has nothing itself; addresses lead back to the Services
//! that have them and to the endpoints of headless ones, to others never.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::table::{Protocol, ServiceSpec, SliceNames};

/// Of the specification that is kept.
const VERSION: &str = "1.1.0";

/// What a name has. Names in it are below the zone, without a dot at their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    /// It stands for another, which may be anywhere: a full name.
    Alias(Arc<str>),
    Port {
        number: u16,
        target: String,
    },
    Pointer(String),
    Text(&'static str),
}

/// See the module's promise.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Zone {
    namespaces: imbl::HashMap<String, imbl::HashMap<String, Arc<Named>>>,
    reverse: imbl::HashMap<IpAddr, imbl::OrdSet<String>>,
}

/// A Service as far as names go.
#[derive(Debug, PartialEq)]
struct Named {
    kind: Kind,
    ports: Vec<(String, Protocol, u16)>,
    slices: Vec<Arc<SliceNames>>,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Addressed(IpAddr),
    Headless,
    Alias(Arc<str>),
}

impl Zone {
    /// Takes in a Service, in place of what it was.
    pub(crate) fn set(&mut self, spec: &ServiceSpec) {
        let kind = match (&spec.alias, spec.cluster_ip) {
            (Some(alias), _) => Kind::Alias(alias.as_str().into()),
            (None, Some(ip)) => Kind::Addressed(ip),
            (None, None) => Kind::Headless,
        };
        let ports = spec.ports.iter().filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            Some((name, port.protocol, port.port))
        });
        let named = Named {
            kind,
            ports: ports.collect(),
            slices: spec.names.clone(),
        };
        let (namespace, name) = (&spec.namespace, &spec.name);
        let known = self.named(namespace, name);
        if known.is_some_and(|known| **known == named) {
            return;
        }
        self.remove(namespace, name);
        for (ip, pointed) in named.pointed(namespace, name) {
            self.reverse.entry(ip).or_default().insert(pointed);
        }
        let names = self.namespaces.entry(namespace.clone()).or_default();
        names.insert(name.clone(), Arc::new(named));
    }

    /// Forgets a Service, if it is there.
    pub(crate) fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let Some(named) = names.remove(name) else {
            return;
        };
        if names.is_empty() {
            self.namespaces.remove(namespace);
        }
        for (ip, pointed) in named.pointed(namespace, name) {
            if let Some(names) = self.reverse.get_mut(&ip) {
                names.remove(&pointed);
                if names.is_empty() {
                    self.reverse.remove(&ip);
                }
            }
        }
    }

    fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Named>> {
        self.namespaces.get(namespace)?.get(name)
    }

    /// All that a name below the zone has, which is given by its labels in lower case; `None` where there is no such name.
    pub(crate) fn data(&self, labels: &[&str]) -> Option<Vec<Data>> {
        match *labels {
            [] | ["svc"] | ["pod"] => Some(Vec::new()),
            ["dns-version"] => Some(vec![Data::Text(VERSION)]),
            [namespace, "svc"] => self.namespaces.get(namespace).map(|_| Vec::new()),
            [_, "pod"] => Some(Vec::new()),
            [ip, _, "pod"] => Some(vec![Data::Address(undashed(ip)?)]),
            [name, namespace, "svc"] => {
                let named = self.named(namespace, name)?;
                let mut data = match &named.kind {
                    Kind::Alias(alias) => return Some(vec![Data::Alias(Arc::clone(alias))]),
                    Kind::Addressed(ip) => vec![Data::Address(*ip)],
                    Kind::Headless => named.hosts().map(|(_, ip)| Data::Address(ip)).collect(),
                };
                data.extend(named.ports(namespace, name, |_, _| true));
                Some(data)
            }
            [label, name, namespace, "svc"] => {
                let named = self.named(namespace, name)?;
                if let Some(protocol) = label.strip_prefix('_') {
                    let mut below = named.ports(namespace, name, |_, of| of.label() == protocol);
                    return below.next().map(|_| Vec::new());
                }
                let hosts = named.hosts().filter(|(host, _)| host == label);
                let found: Vec<Data> = hosts.map(|(_, ip)| Data::Address(ip)).collect();
                Some(found).filter(|found| !found.is_empty())
            }
            [port, protocol, name, namespace, "svc"] => {
                let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
                let named = self.named(namespace, name)?;
                let is_it = |name: &str, of: Protocol| name == port && of.label() == protocol;
                let found: Vec<Data> = named.ports(namespace, name, is_it).collect();
                Some(found).filter(|found| !found.is_empty())
            }
            _ => None,
        }
    }

    /// The names that an address leads back to; `None` where it is nobody's here.
    pub(crate) fn pointers(&self, ip: IpAddr) -> Option<Vec<Data>> {
        let names = self.reverse.get(&ip.to_canonical())?;
        Some(names.iter().cloned().map(Data::Pointer).collect())
    }
}

impl Named {
    /// Its endpoints in use, each with the label that it is found by.
    fn hosts(&self) -> impl Iterator<Item = (String, IpAddr)> {
        let slices = self.slices.iter().flat_map(|slice| &slice.hosts);
        let mut hosts: Vec<(String, IpAddr)> = slices
            .filter(|host| host.ready)
            .map(|host| (label(host.hostname.as_deref(), host.ip), host.ip))
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.into_iter()
    }

    /// Its ports that are `wanted`, as records: at itself, or at each endpoint where it has no address.
    fn ports(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&str, Protocol) -> bool,
    ) -> impl Iterator<Item = Data> {
        let mut found: Vec<Data> = Vec::new();
        match self.kind {
            Kind::Alias(_) => {}
            Kind::Addressed(_) => {
                let ports = self.ports.iter();
                let ports = ports.filter(|(port, protocol, _)| wanted(port, *protocol));
                found.extend(ports.map(|(_, _, number)| Data::Port {
                    number: *number,
                    target: format!("{name}.{namespace}.svc"),
                }));
            }
            // A slice made by hand may name ports that the Service does not.
            Kind::Headless => {
                for slice in &self.slices {
                    for (port, protocol, number) in &slice.ports {
                        let port = port.as_deref().unwrap_or_default();
                        if port.is_empty() || !wanted(port, *protocol) {
                            continue;
                        }
                        let ready = slice.hosts.iter().filter(|host| host.ready);
                        found.extend(ready.map(|host| {
                            let label = label(host.hostname.as_deref(), host.ip);
                            Data::Port {
                                number: *number,
                                target: format!("{label}.{name}.{namespace}.svc"),
                            }
                        }));
                    }
                }
            }
        }
        found.into_iter()
    }

    /// The addresses that lead back to it, with the names that they lead to.
    fn pointed(&self, namespace: &str, name: &str) -> Vec<(IpAddr, String)> {
        match self.kind {
            Kind::Alias(_) => Vec::new(),
            Kind::Addressed(ip) => vec![(ip.to_canonical(), format!("{name}.{namespace}.svc"))],
            Kind::Headless => {
                let named = |(label, ip): (String, IpAddr)| {
                    let pointed = format!("{label}.{name}.{namespace}.svc");
                    (ip.to_canonical(), pointed)
                };
                self.hosts().map(named).collect()
            }
        }
    }
}

/// The label of an endpoint.
fn label(hostname: Option<&str>, ip: IpAddr) -> String {
    match hostname.filter(|name| !name.is_empty()) {
        Some(name) => name.to_ascii_lowercase(),
        None => ip.to_string().replace(['.', ':'], "-"),
    }
}

/// The address that such a label means: three dashes are those of IPv4.
fn undashed(label: &str) -> Option<IpAddr> {
    let dots = label.replace('-', ".");
    if let Ok(ip) = dots.parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    label.replace('-', ":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{names, service};

    fn zone() -> Zone {
        let mut zone = Zone::default();
        let mut web = service("shop", "web").cluster_ip("10.43.0.7").build();
        web.ports[0].name = Some("http".to_owned());
        zone.set(&web);
        let mut db = service("shop", "db").endpoints(vec![]).build();
        db.names = vec![
            names(
                &[("sql", Protocol::Tcp, 5432)],
                &[("db-0", "10.42.0.2", true), ("", "10.42.1.2", true)],
            ),
            names(
                &[("stats", Protocol::Udp, 99)],
                &[("db-9", "10.42.0.9", false)],
            ),
        ];
        zone.set(&db);
        zone.set(&service("shop", "basket").alias("paint.example.com").build());
        zone
    }

    fn shown(data: Option<Vec<Data>>) -> String {
        let Some(data) = data else {
            return "no such name".to_owned();
        };
        let shown = data.into_iter().map(|data| match data {
            Data::Address(ip) => ip.to_string(),
            Data::Alias(name) => format!("= {name}"),
            Data::Port { number, target } => format!("{target}:{number}"),
            Data::Pointer(name) => name,
            Data::Text(text) => format!("\"{text}\""),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_have_what_the_specification_says() {
        let zone = zone();
        for (name, expected) in [
            ("web.shop.svc", "10.43.0.7 web.shop.svc:80"),
            ("_http._tcp.web.shop.svc", "web.shop.svc:80"),
            ("_http._udp.web.shop.svc", "no such name"),
            ("http._tcp.web.shop.svc", "no such name"),
            ("_tcp.web.shop.svc", ""),
            ("_sctp.web.shop.svc", "no such name"),
            (
                "db.shop.svc",
                "10.42.1.2 10.42.0.2 db-0.db.shop.svc:5432 10-42-1-2.db.shop.svc:5432",
            ),
            (
                "_sql._tcp.db.shop.svc",
                "db-0.db.shop.svc:5432 10-42-1-2.db.shop.svc:5432",
            ),
            ("_stats._udp.db.shop.svc", "no such name"),
            ("db-0.db.shop.svc", "10.42.0.2"),
            ("10-42-1-2.db.shop.svc", "10.42.1.2"),
            ("db-9.db.shop.svc", "no such name"),
            ("basket.shop.svc", "= paint.example.com"),
            ("gone.shop.svc", "no such name"),
            ("shop.svc", ""),
            ("void.svc", "no such name"),
            ("svc", ""),
            ("pod", ""),
            ("10-42-0-9.shop.pod", "10.42.0.9"),
            ("fd00--1.shop.pod", "fd00::1"),
            ("x.shop.pod", "no such name"),
            ("dns-version", "\"1.1.0\""),
            ("a.b.c.d.e.f", "no such name"),
        ] {
            let labels: Vec<&str> = name.split('.').collect();
            assert_eq!(shown(zone.data(&labels)), expected, "{name}");
        }
    }

    #[test]
    fn addresses_lead_back_as_long_as_somebody_has_them() {
        let mut zone = zone();
        let at = |zone: &Zone, ip: &str| shown(zone.pointers(ip.parse().expect("an address")));
        for (ip, expected) in [
            ("10.43.0.7", "web.shop.svc"),
            ("::ffff:10.43.0.7", "web.shop.svc"),
            ("10.42.0.2", "db-0.db.shop.svc"),
            ("10.42.1.2", "10-42-1-2.db.shop.svc"),
            ("10.42.0.9", "no such name"),
        ] {
            assert_eq!(at(&zone, ip), expected, "{ip}");
        }
        zone.set(&service("shop", "web").cluster_ip("10.43.0.8").build());
        zone.remove("shop", "db");
        zone.remove("shop", "nothing");
        for (ip, expected) in [
            ("10.43.0.7", "no such name"),
            ("10.43.0.8", "web.shop.svc"),
            ("10.42.0.2", "no such name"),
        ] {
            assert_eq!(at(&zone, ip), expected, "{ip}");
        }
        zone.remove("shop", "web");
        zone.remove("shop", "basket");
        assert_eq!(zone, Zone::default());
    }
}
