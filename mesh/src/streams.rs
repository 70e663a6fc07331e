//! Places where Gateways take byte streams and datagrams: which Service one of them is for, by the place and the name that a client asks for.
//!
//! Invariants: what is at a place stays what it is while that does not change; a listener's TLS stays while its certificates do, and with it
//! the sessions that its clients resume. A listener whose TLS cannot be made is closed, and no other; where a share leads to nobody, nobody is
//! called.

mod connection;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use rustls::ServerConfig;
use weft_gateway::{
    BackendTarget, BackendTls, FrontTls, HostPattern, NamespacedName, StreamFront, StreamProtocol,
};

use crate::front;
pub(crate) use connection::{opened, plain};

/// All of a node, by place.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Streams(BTreeMap<(StreamProtocol, SocketAddr), Arc<StreamPlace>>);

/// One place.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    front: StreamFront,
    /// Of listeners that terminate TLS; none where that cannot be.
    tls: BTreeMap<HostPattern, Option<Arc<ServerConfig>>>,
}

impl PartialEq for StreamPlace {
    fn eq(&self, other: &Self) -> bool {
        self.front == other.front
    }
}

/// How a stream of TLS is taken.
#[derive(Debug, Clone)]
pub(crate) enum Taken {
    /// As it comes.
    Whole,
    /// What is inside of it.
    Opened(Arc<ServerConfig>),
}

/// A Service and its port, and how who is behind it proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meant {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<BackendTls>>,
    /// Whose listener led there: who may come is asked of its policies.
    pub(crate) gateway: Option<NamespacedName>,
}

impl Streams {
    /// Of what is served; what is as it was `before` stays.
    pub(crate) fn of(
        served: &BTreeMap<(StreamProtocol, SocketAddr), StreamFront>,
        before: &Self,
    ) -> Self {
        let places = served.iter().map(|(place, front)| {
            let known = before.0.get(place);
            let made = match known {
                Some(known) if known.front == *front => Arc::clone(known),
                known => Arc::new(StreamPlace::of(front, known.map(|known| &**known))),
            };
            (*place, made)
        });
        Self(places.collect())
    }

    /// What is at a place where TLS is spoken.
    pub(crate) fn of_tls(&self, at: SocketAddr) -> Option<&Arc<StreamPlace>> {
        self.0.get(&(StreamProtocol::Tls, at))
    }

    /// What is at a place where nothing is known of what is spoken.
    pub(crate) fn of_tcp(&self, at: SocketAddr) -> Option<&Arc<StreamPlace>> {
        self.0.get(&(StreamProtocol::Tcp, at))
    }

    pub(crate) fn of_datagrams(&self, at: SocketAddr) -> Option<&Arc<StreamPlace>> {
        self.0.get(&(StreamProtocol::Udp, at))
    }

    /// Where connections are taken.
    pub(crate) fn places(&self) -> BTreeSet<SocketAddr> {
        let places = self.0.keys();
        let places = places.filter(|(protocol, _)| *protocol != StreamProtocol::Udp);
        places.map(|(_, at)| *at).collect()
    }

    /// Where datagrams are.
    pub(crate) fn places_of_datagrams(&self) -> impl Iterator<Item = SocketAddr> {
        let places = self.0.keys();
        let places = places.filter(|(protocol, _)| *protocol == StreamProtocol::Udp);
        places.map(|(_, at)| *at)
    }
}

impl StreamPlace {
    fn of(front: &StreamFront, before: Option<&Self>) -> Self {
        let tls = front.listeners.iter().filter_map(|(pattern, listener)| {
            let tls = listener.tls.as_ref()?;
            let known = before.and_then(|before| before.config_like(pattern, tls));
            let config = known.or_else(|| front::stream_config(pattern, tls));
            Some((pattern.clone(), config))
        });
        Self {
            tls: tls.collect(),
            front: front.clone(),
        }
    }

    /// The configuration of a listener that is as it was.
    fn config_like(&self, pattern: &HostPattern, tls: &FrontTls) -> Option<Arc<ServerConfig>> {
        let known = self.front.listeners.get(pattern)?;
        let is_same = known.tls.as_ref().is_some_and(|known| **known == *tls);
        is_same.then(|| self.tls.get(pattern).cloned().flatten())?
    }

    /// How specific the listener is that has a name.
    pub(crate) fn specificity(&self, name: &str) -> Option<(u8, usize)> {
        let (pattern, _) = self.front.listener(name)?;
        Some(pattern.specificity())
    }

    /// How a stream to `name`, which is in lower case, is taken; none where no listener is for it.
    pub(crate) fn taken(&self, name: &str) -> Option<Taken> {
        let (pattern, _) = self.front.listener(name)?;
        match self.tls.get(pattern) {
            None => Some(Taken::Whole),
            Some(config) => config.clone().map(Taken::Opened),
        }
    }

    /// The Service for a stream to `name`, by weight; `number` is any.
    pub(crate) fn meant(&self, name: &str, number: u64) -> Option<Meant> {
        let route = self.front.route(name)?;
        let backend = route.backend(number)?;
        match &backend.target {
            BackendTarget::Service {
                namespace,
                name,
                port,
            } => Some(Meant {
                namespace: namespace.clone(),
                name: name.clone(),
                port: *port,
                tls: backend.tls.clone(),
                gateway: route.gateway.clone(),
            }),
            BackendTarget::Invalid { .. } => None,
        }
    }

    /// Whether a stream to `name` may be for this Service.
    pub(crate) fn leads_to(&self, name: &str, meant: &Meant) -> bool {
        let backends = self.front.route(name).map(|route| &*route.backends);
        let mut backends = backends.unwrap_or_default().iter();
        backends.any(|backend| match &backend.target {
            BackendTarget::Service {
                namespace,
                name,
                port,
            } => {
                backend.weight > 0
                    && (namespace, name, *port) == (&meant.namespace, &meant.name, meant.port)
            }
            BackendTarget::Invalid { .. } => false,
        })
    }
}
