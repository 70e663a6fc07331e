//! The backends of a route's rules at one parent: whether their references hold, what is spoken with them, and which proof they owe. Pure.

use std::sync::Arc;

use crate::api::KeyPair;
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::policies::Policies;
use crate::route::RouteKind;
use crate::route_policies::Said;
use crate::rule::{Backend, BackendTarget, BackendTls, Filter, Protocol, Rule};
use crate::status::Refusal;

/// What a rule's references are resolved by.
pub(crate) struct Resolving<'o> {
    pub(crate) objects: &'o Objects,
    pub(crate) kind: RouteKind,
    /// The route's namespace.
    pub(crate) own: &'o str,
    /// At a Gateway.
    pub(crate) needs_grants: bool,
    /// At a Gateway that speaks to backends itself: the policies, and what it shows to them.
    pub(crate) outside: Option<(&'o Policies<'o>, Option<Arc<KeyPair>>)>,
    /// What policies say of its calls.
    pub(crate) said: Said<'o>,
}

impl Resolving<'_> {
    /// The rule as it has to be at this parent, if that is otherwise than it is written; what does not hold is added to `faults`.
    pub(crate) fn rule(&self, rule: &Rule, faults: &mut Vec<Refusal>) -> Option<Rule> {
        // What a rule that is not done refers to is no fault of a reference.
        if matches!(rule.filters.first(), Some(Filter::Invalid { .. })) {
            return None;
        }
        let mut changed: Option<Rule> = self.said.added_to(rule);
        for (position, backend) in rule.backends.iter().enumerate() {
            let new = self.backend(backend, faults);
            let filters = self.filters(&backend.filters, faults);
            if new.is_none() && filters.is_none() {
                continue;
            }
            let rule = changed.get_or_insert_with(|| rule.clone());
            if let Some(place) = rule.backends.get_mut(position) {
                if let Some(new) = new {
                    *place = new;
                }
                if let Some(filters) = filters {
                    place.filters = filters;
                }
            }
        }
        if let Some(filters) = self.filters(&rule.filters, faults) {
            changed.get_or_insert_with(|| rule.clone()).filters = filters;
        }
        changed
    }

    /// Filters that lead to backends, too.
    fn filters(&self, filters: &[Filter], faults: &mut Vec<Refusal>) -> Option<Vec<Filter>> {
        let mut changed: Option<Vec<Filter>> = None;
        for (position, filter) in filters.iter().enumerate() {
            let Filter::Mirror(mirror) = filter else {
                continue;
            };
            let Some(backend) = self.backend(&mirror.backend, faults) else {
                continue;
            };
            let filters = changed.get_or_insert_with(|| filters.to_vec());
            if let Some(Filter::Mirror(mirror)) = filters.get_mut(position) {
                mirror.backend = backend;
            }
        }
        changed
    }

    fn backend(&self, backend: &Backend, faults: &mut Vec<Refusal>) -> Option<Backend> {
        let closed = |reason: &str| {
            let reason = reason.trim_end_matches('.').to_owned();
            Some(Backend {
                target: BackendTarget::Invalid { reason },
                ..backend.clone()
            })
        };
        if let Err((fault, is_closed)) = self.reference(backend) {
            let reason = fault.message.clone();
            faults.push(fault);
            return is_closed.then(|| closed(&reason)).flatten();
        }
        let BackendTarget::Service {
            namespace,
            name,
            port,
        } = &backend.target
        else {
            return None;
        };
        let name = NamespacedName::new(namespace.as_str(), name.as_str());
        let service = self.objects.services.get(&name)?;
        let named = service.app_protocols.get(port).map(String::as_str);
        let mut unsupported = |why: &str| {
            let message = format!(
                "Service {name} says that {} is spoken at port {port}, {why}.",
                named.unwrap_or_default()
            );
            let reason = message.clone();
            faults.push(Refusal::new("UnsupportedProtocol", message));
            closed(&reason)
        };
        let protocol = match spoken(self.kind, named) {
            Ok(protocol) => protocol,
            Err(why) => return unsupported(why),
        };
        let held = self.outside.as_ref().and_then(|(policies, client)| {
            let found = policies.of_port(&name, service, *port)?;
            Some(found.map(|tls| match client {
                None => tls,
                Some(client) => Arc::new(BackendTls {
                    client: Some(Arc::clone(client)),
                    ..BackendTls::clone(&tls)
                }),
            }))
        });
        let tls = match held.transpose() {
            Ok(tls) => tls,
            Err(reason) => return closed(&reason),
        };
        if named == Some(WEBSOCKET_OVER_TLS) && self.outside.is_some() && tls.is_none() {
            return unsupported("which nobody is called by without a BackendTLSPolicy");
        }
        (protocol != backend.protocol || tls != backend.tls).then(|| Backend {
            protocol,
            tls,
            ..backend.clone()
        })
    }

    /// Whether a backend can be called. The flag of a fault: its share is to be answered with 500 although there may be such a service.
    fn reference(&self, backend: &Backend) -> Result<(), (Refusal, bool)> {
        let (namespace, name, port) = match &backend.target {
            BackendTarget::Service {
                namespace,
                name,
                port,
            } => (namespace, name, port),
            BackendTarget::Invalid { reason } => {
                return Err((Refusal::new("InvalidKind", sentence(reason)), false));
            }
        };
        let (kind, own) = (self.kind, self.own);
        let service = NamespacedName::new(namespace.as_str(), name.as_str());
        let needs_grants = self.needs_grants && namespace != own;
        if needs_grants && !self.objects.grants(kind.name(), own, "Service", &service) {
            let message = format!(
                "No ReferenceGrant in {namespace} lets {kind}s of {own} refer to Service {service}."
            );
            return Err((Refusal::new("RefNotPermitted", message), true));
        }
        match self.objects.services.get(&service) {
            None => {
                let message = format!("There is no Service {service}.");
                Err((Refusal::new("BackendNotFound", message), false))
            }
            Some(found) if found.external_name.is_some() => {
                let message =
                    format!("Service {service} is an ExternalName, which routes cannot lead to.");
                Err((Refusal::new("InvalidKind", message), true))
            }
            Some(found) if !found.has_port(*port) => {
                let ports = found.shown_ports();
                let message = format!("Service {service} has no port {port}; it has {ports}.");
                Err((Refusal::new("BackendNotFound", message), false))
            }
            Some(found) if !found.speaks(*port, kind.transport()) => {
                let message = format!(
                    "Port {port} of Service {service} is not for {}, which is what {kind}s lead on.",
                    kind.transport()
                );
                Err((Refusal::new("UnsupportedProtocol", message), true))
            }
            Some(_) => Ok(()),
        }
    }
}

const WEBSOCKET_OVER_TLS: &str = "kubernetes.io/wss";

/// How a port is spoken to for which its Service says `named`. Names that are not Kubernetes' own and not known here say nothing of that. The
/// error is the end of a sentence.
fn spoken(kind: RouteKind, named: Option<&str>) -> Result<Protocol, &'static str> {
    if kind.stream().is_some() {
        // What is spoken is not its to say.
        return Ok(Protocol::AsAsked);
    }
    match named {
        Some("kubernetes.io/h2c") => Ok(Protocol::H2c),
        Some("kubernetes.io/ws" | WEBSOCKET_OVER_TLS) => match kind {
            RouteKind::Grpc => Err("which carries no gRPC"),
            _ => Ok(Protocol::AsAsked),
        },
        Some(other) if other.starts_with("kubernetes.io/") => Err("which is not supported"),
        other => Ok(Protocol::named(other)),
    }
}

/// A reason as a sentence of its own.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    format!(
        "{}{}.",
        first.into_iter().collect::<String>(),
        letters.as_str()
    )
}
