//! Who is let in at a Gateway, before its routes do anything: requests, and connections that are none.
//!
//! Of a client its address is known, and the name that it asked for where it speaks TLS; where it came in is where the node
//! took its connection, and nothing that it says itself. What is no HTTP is judged once, when it is opened, by what is known of it then: an ALLOW that
//! asks for what only HTTP says is met by none, and a DENY is met without that. Datagrams are not judged, as nowhere else.
//!
//! Invariant: where no policy is about the Gateway, nothing of a request or connection is looked at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use http::{Request, Response};
use weft_call::{Blame, Failure, FailureKind};
use weft_policy::{Attributes, Guard, Pod};

use super::{
    BYTES, DENIED, GATEWAY_NAME, Guards, InForce, forbidden, is_preflight, seconds, tokens,
    unauthenticated,
};
use crate::{Body, route::NamespacedName};

/// A client's connection to a Gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entered<'a> {
    pub(crate) client: IpAddr,
    /// Where the node took it, if that is known.
    pub(crate) at: Option<SocketAddr>,
    /// The name that it asked for, if it speaks TLS and named one.
    pub(crate) sni: Option<&'a str>,
}

impl<'a> Entered<'a> {
    /// What is known of it, and of a request on it, if that is what comes.
    fn attributes(self, port: u16, request: Option<weft_policy::Request<'a>>) -> Attributes<'a> {
        Attributes {
            principal: None,
            source_ip: Some(self.client),
            remote_ip: Some(self.client),
            destination_ip: self.at.map(|at| at.ip().to_canonical()),
            destination_port: self.at.map_or(port, |at| at.port()),
            sni: self.sni.filter(|name| !name.is_empty()),
            request,
        }
    }
}

impl Guards {
    /// Judges a request of a client to these Gateways, one of which it is to: an answer in their place, where one of them may not have it.
    pub(crate) fn judge_at_gateways(
        &self,
        gateways: &[NamespacedName],
        entered: Entered<'_>,
        request: &mut Request<Body>,
    ) -> Option<Response<Body>> {
        let policies = self.policies.load();
        if policies.is_empty {
            return None;
        }
        let mut judged = gateways.iter();
        judged.find_map(|gateway| self.judge_at_gateway(&policies, gateway, entered, request))
    }

    fn judge_at_gateway(
        &self,
        policies: &InForce,
        gateway: &NamespacedName,
        entered: Entered<'_>,
        request: &mut Request<Body>,
    ) -> Option<Response<Body>> {
        let guard = policies.guard_of_gateway(gateway);
        if guard.is_empty() {
            return None;
        }
        tokens::strip(guard.issuers_of_gateway(), request);
        let mut claims = None;
        if !is_preflight(request) {
            let keys = self.keys.load();
            let keys = tokens::Known {
                written: &policies.sets,
                fetched: &keys,
            };
            match tokens::proven(guard.issuers_of_gateway(), &keys, request, seconds()) {
                Ok(found) => claims = found,
                Err(fault) => {
                    self.counted.unauthenticated.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%gateway, reason = fault.sentence(), "a token is not taken");
                    return Some(unauthenticated(request, fault.sentence()));
                }
            }
        }
        let uri = request.uri();
        let scheme_port = match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        };
        let asked = weft_policy::Request {
            method: request.method().as_str(),
            host: uri.authority().map_or("", |host| host.as_str()),
            path: uri.path(),
            headers: request.headers(),
            claims: claims.as_ref(),
        };
        let verdict = guard.judge_at_gateway(&entered.attributes(scheme_port, Some(asked)));
        self.tell_of(&verdict, "", gateway, request.method().as_str(), uri.path());
        (!verdict.allowed).then(|| forbidden(request))
    }

    /// Judges a connection of a client to a listener of a Gateway that takes bytes.
    ///
    /// # Errors
    /// When the Gateway may not have it.
    pub(crate) fn admit_at_gateway(
        &self,
        gateway: &NamespacedName,
        entered: Entered<'_>,
    ) -> Result<(), Failure> {
        let policies = self.policies.load();
        if policies.is_empty {
            return Ok(());
        }
        let guard = policies.guard_of_gateway(gateway);
        if guard.is_empty() {
            return Ok(());
        }
        let verdict = guard.judge_at_gateway(&entered.attributes(0, None));
        let name = entered.sni.unwrap_or_default();
        self.tell_of(&verdict, "", gateway, BYTES, name);
        match verdict.allowed {
            true => Ok(()),
            false => Err(Failure::new(FailureKind::Unreachable, DENIED).with_blame(Blame::Policy)),
        }
    }
}

impl InForce {
    /// What concerns a Gateway, made once a state of the policies.
    fn guard_of_gateway(&self, gateway: &NamespacedName) -> Arc<Guard> {
        let mut known = self.gateways.lock();
        if let Some(guard) = known.get(gateway) {
            return Arc::clone(guard);
        }
        let as_pod = Pod {
            namespace: gateway.namespace.clone(),
            name: gateway.name.clone(),
            labels: [(GATEWAY_NAME.to_owned(), gateway.name.clone())].into(),
            ..Pod::default()
        };
        let guard = Arc::new(self.policies.guard_of_gateway(&as_pod));
        known.insert(gateway.clone(), Arc::clone(&guard));
        guard
    }
}
