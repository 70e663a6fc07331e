//! What listeners for byte streams and datagrams serve: TLSRoutes by the name that a client asks for, TCPRoutes and UDPRoutes by their
//! place alone. Pure.
//!
//! A place is an address that a Gateway has for itself, and a port. A listener of TLS that terminates shows its certificate and passes on
//! what is inside; one that passes through looks at the name and passes on all of it. Both may share a port, and listeners of HTTPS with
//! them, apart by their hostnames.
//!
//! At a Service (GAMMA) there are no listeners, and names have no part: a route has a port, for every caller or for those of its namespace.
//!
//! Invariants: of several routes for the same the oldest is served, then the first by name; a name is its most specific listener's, and in
//! that the most specific host's, with routes or without; a share that leads to nobody is refused, and never others' gain.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hostname::HostPattern;
use crate::name::NamespacedName;
use crate::rule::Backend;
use crate::served::FrontTls;

/// What is spoken at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamProtocol {
    Tcp,
    Tls,
    Udp,
}

impl StreamProtocol {
    /// Of a listener; none of one for HTTP.
    #[must_use]
    pub fn of(protocol: &str) -> Option<Self> {
        match protocol {
            "TCP" => Some(StreamProtocol::Tcp),
            "TLS" => Some(StreamProtocol::Tls),
            "UDP" => Some(StreamProtocol::Udp),
            _ => None,
        }
    }

    /// What its bytes are carried by.
    fn carrier(self) -> Self {
        match self {
            StreamProtocol::Tcp | StreamProtocol::Tls => StreamProtocol::Tcp,
            StreamProtocol::Udp => StreamProtocol::Udp,
        }
    }
}

/// The listeners of a place, by hostname; any where there are no names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamFront {
    pub listeners: BTreeMap<HostPattern, StreamListener>,
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamListener {
    /// What it shows its clients, if it terminates TLS.
    pub tls: Option<Arc<FrontTls>>,
    /// By the names that a route and the listener have in common.
    pub hosts: BTreeMap<HostPattern, StreamRoute>,
}

/// The route that has a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamRoute {
    /// `namespace/name`.
    pub route: String,
    pub created: i64,
    /// The Gateway whose listener it is at; none at a Service.
    pub gateway: Option<NamespacedName>,
    pub backends: Vec<Backend>,
}

impl StreamListener {
    /// Takes a route in, if it goes before the one that is there.
    pub(crate) fn put(&mut self, host: HostPattern, new: StreamRoute) {
        put(&mut self.hosts, host, new);
    }

    /// The route for a name.
    fn route(&self, name: &str) -> Option<&StreamRoute> {
        let matching = self.hosts.iter().filter(|(host, _)| host.matches(name));
        let found = matching.max_by_key(|(host, _)| host.specificity());
        found.map(|(_, route)| route)
    }
}

/// Of two for the same, the older stays, then the first by name.
fn put<K: Ord>(routes: &mut BTreeMap<K, StreamRoute>, at: K, new: StreamRoute) {
    let goes_before = |known: &StreamRoute| {
        (known.created, known.route.as_str()) <= (new.created, new.route.as_str())
    };
    if !routes.get(&at).is_some_and(goes_before) {
        routes.insert(at, new);
    }
}

/// Routes of streams and datagrams at a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceStreams {
    /// Of the Service's own namespace, for every caller.
    pub producer: PortStreams,
    /// Of other namespaces, for callers there.
    pub consumers: BTreeMap<String, PortStreams>,
}

/// By port: those of TCP and of UDP are apart.
pub type PortStreams = BTreeMap<(StreamProtocol, u16), StreamRoute>;

impl ServiceStreams {
    /// `callers`: whose streams it leads, if not everybody's.
    pub(crate) fn put(
        &mut self,
        callers: Option<&str>,
        protocol: StreamProtocol,
        port: u16,
        new: StreamRoute,
    ) {
        let group = match callers {
            None => &mut self.producer,
            Some(callers) => self.consumers.entry(callers.to_owned()).or_default(),
        };
        put(group, (protocol.carrier(), port), new);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producer.is_empty() && self.consumers.is_empty()
    }
}

impl StreamFront {
    /// The listener for a name, in lower case; the empty one where a client names none.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<(&HostPattern, &StreamListener)> {
        let matching = self.listeners.iter().filter(|(host, _)| host.matches(name));
        matching.max_by_key(|(host, _)| host.specificity())
    }

    /// The route for a name, of the listener that has it.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&StreamRoute> {
        let (_, listener) = self.listener(name)?;
        listener.route(name)
    }
}

impl StreamRoute {
    /// The backend that a number below the sum of all weights falls to; none where that is nothing. `number` may be any: its rest counts.
    #[must_use]
    pub fn backend(&self, number: u64) -> Option<&Backend> {
        let sum: u64 = self.backends.iter().map(|one| u64::from(one.weight)).sum();
        let mut left = number.checked_rem(sum)?;
        self.backends.iter().find(|one| {
            let weight = u64::from(one.weight);
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::BackendTarget;

    fn route(name: &str, created: i64) -> StreamRoute {
        StreamRoute {
            route: name.to_owned(),
            created,
            ..StreamRoute::default()
        }
    }

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text)
    }

    #[test]
    fn a_name_is_the_most_specific_listeners_and_hosts() {
        let mut front = StreamFront::default();
        for (listener, name, created) in [
            ("*", "any", 1),
            ("*.example.com", "wild", 1),
            ("abc.example.com", "exact", 1),
            ("empty.example.com", "", 0),
        ] {
            let listener = front.listeners.entry(host(listener)).or_default();
            if !name.is_empty() {
                listener.put(host("*"), route(name, created));
            }
        }
        let wild = front
            .listeners
            .get_mut(&host("*.example.com"))
            .expect("it is there");
        wild.put(host("x.example.com"), route("x", 5));
        for (name, expected) in [
            ("abc.example.com", "exact"),
            ("x.example.com", "x"),
            ("y.example.com", "wild"),
            ("a.b.example.com", "wild"),
            ("example.com", "any"),
            ("", "any"),
            ("empty.example.com", "nobody"),
        ] {
            let found = front.route(name).map_or("nobody", |route| &route.route);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn the_oldest_route_has_a_host() {
        let mut listener = StreamListener::default();
        for (name, created) in [("b", 2), ("c", 1), ("a", 2), ("d", 1)] {
            listener.put(HostPattern::Any, route(name, created));
        }
        assert_eq!(listener.hosts[&HostPattern::Any].route, "c");
    }

    #[test]
    fn shares_are_as_weighted() {
        let backend = |name: &str, weight| Backend {
            weight,
            ..Backend::new(BackendTarget::Service {
                namespace: "a".to_owned(),
                name: name.to_owned(),
                port: 80,
            })
        };
        let weighted = StreamRoute {
            backends: vec![backend("a", 7), backend("none", 0), backend("b", 3)],
            ..StreamRoute::default()
        };
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for number in 0..100 {
            let found = weighted.backend(number).expect("a backend");
            let BackendTarget::Service { name, .. } = &found.target else {
                panic!("a Service");
            };
            *counts.entry(name.clone()).or_default() += 1;
        }
        assert_eq!(counts, [("a".to_owned(), 70), ("b".to_owned(), 30)].into());
        let nothing = StreamRoute {
            backends: vec![backend("a", 0)],
            ..StreamRoute::default()
        };
        assert!(nothing.backend(3).is_none());
        assert!(StreamRoute::default().backend(3).is_none());
    }
}
