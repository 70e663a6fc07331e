//! What replaces the way straight to a service's endpoints: routes of requests, or of streams and datagrams, for all callers or for those of
//! one namespace. Pure.
//!
//! Invariant: whose namespace has routes for a port is led by those alone; a port is led as requests or as streams, as the routes were
//! compiled (`weft_gateway`).

use std::collections::HashMap;

use weft_gateway::{PortStreams, Rule, ServiceRoutes, ServiceStreams, StreamProtocol, StreamRoute};

use crate::route::RouteList;

/// Routes of a service; those of requests in order of precedence.
#[derive(Debug, Default, PartialEq)]
pub(super) struct BoundRoutes {
    /// Of the service's own namespace.
    producer: RouteList,
    /// Of other namespaces, for callers there.
    consumers: HashMap<String, RouteList>,
    /// Of streams and datagrams, of both.
    streams: ServiceStreams,
}

/// What replaces the way straight to the endpoints of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound<'t> {
    Requests(&'t RouteList),
    Stream(&'t StreamRoute),
}

impl BoundRoutes {
    pub(super) fn of(routes: &ServiceRoutes) -> Self {
        let consumers = routes.consumers.iter();
        Self {
            producer: RouteList::of(&routes.producer),
            consumers: consumers
                .map(|(namespace, routes)| (namespace.clone(), RouteList::of(routes)))
                .collect(),
            streams: routes.streams.clone(),
        }
    }

    /// The rule that all callers meet first that leads them to several, or else the first of all.
    pub(super) fn shares(&self) -> Option<&Rule> {
        let mut rules = self.producer.rules();
        let several = self.producer.rules().find(|rule| rule.backends.len() > 1);
        several.or_else(|| rules.next()).map(|rule| &**rule)
    }

    /// For callers in `namespace`, if there are any for `port`; else for all.
    pub(super) fn bound(
        &self,
        namespace: &str,
        protocol: StreamProtocol,
        port: u16,
    ) -> Option<Bound<'_>> {
        let own = self.consumers.get(namespace);
        let own_streams = self.streams.consumers.get(namespace);
        found(own, own_streams, protocol, port).or_else(|| {
            let (all, streams) = (&self.producer, &self.streams.producer);
            found(Some(all), Some(streams), protocol, port)
        })
    }
}

fn found<'r>(
    requests: Option<&'r RouteList>,
    streams: Option<&'r PortStreams>,
    protocol: StreamProtocol,
    port: u16,
) -> Option<Bound<'r>> {
    // Datagrams are no requests.
    let requests = requests.filter(|_| protocol != StreamProtocol::Udp);
    let requests = requests.filter(|list| !list.is_empty() && list.covers(port));
    let stream = || streams?.get(&(protocol, port)).map(Bound::Stream);
    requests.map(Bound::Requests).or_else(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::testing::{attached, prefix};

    /// For the callers of one namespace its own routes count alone, whatever they lead.
    #[test]
    fn streams_are_led_as_requests_are() {
        let stream = |name: &str| StreamRoute {
            route: name.to_owned(),
            ..StreamRoute::default()
        };
        let at = |protocol, route| [((protocol, 80), stream(route))].into();
        let streams = ServiceStreams {
            producer: at(StreamProtocol::Tcp, "vote/bytes"),
            consumers: [
                ("shop".to_owned(), at(StreamProtocol::Tcp, "shop/bytes")),
                ("cart".to_owned(), at(StreamProtocol::Udp, "cart/datagrams")),
            ]
            .into(),
        };
        let requests = |namespace: &str| {
            let name = format!("{namespace}/requests");
            (
                namespace.to_owned(),
                vec![attached(&name, vec![prefix("/")])],
            )
        };
        let routes = ServiceRoutes {
            producer: Vec::new(),
            consumers: [requests("cart"), requests("far")].into(),
            streams,
        };
        let bound = BoundRoutes::of(&routes);
        for (namespace, protocol, expected) in [
            ("vote", StreamProtocol::Tcp, "vote/bytes"),
            ("vote", StreamProtocol::Udp, "none"),
            ("shop", StreamProtocol::Tcp, "shop/bytes"),
            ("cart", StreamProtocol::Tcp, "requests"),
            ("cart", StreamProtocol::Udp, "cart/datagrams"),
            ("far", StreamProtocol::Tcp, "requests"),
        ] {
            let found = match bound.bound(namespace, protocol, 80) {
                None => "none",
                Some(Bound::Requests(_)) => "requests",
                Some(Bound::Stream(route)) => &route.route,
            };
            assert_eq!(found, expected, "{namespace} {protocol:?}");
        }
    }
}
