//! Byte streams between workloads: a connection of `wasi:sockets` is one call, whose two bodies are its two directions.
//!
//! Such a call is marked ([`Raw`]) by the host that makes it, beside the request and not in it: no guest and no client can. It is resolved,
//! balanced, authorised, encrypted and charged as any call, meets no rule for requests, and has no deadline: it lasts as long as both ends want it
//! to. Where a route of streams is bound to the Service, a workload's stream goes where that leads; those of the gateway were led already.
//!
//! Invariant: a stream is opened once; what was sent is never sent to another.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{Request, StatusCode};
use tokio_rustls::client::TlsStream;
use weft_call::{Failure, FailureKind};
use weft_gateway::{BackendTls, NamespacedName, StreamProtocol};

use super::{Arrival, Begun, CallWay, OnlyHere, Outbound, filter, send, take_context};
use crate::{
    Body, PodAddress,
    caller::NO_SERVICE,
    dial::Dialed,
    failure,
    guards::Entered,
    ingress,
    measure::Charge,
    metrics::Origin,
    resolve::Target,
    sighting::Seen,
    table::{Bound, Table},
};

/// Of a call whose bodies are the two directions of a byte stream. An extension of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw;

/// Who calls, as far as the choice of an endpoint goes. An extension of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// It is served by this node's endpoints or by nobody.
    pub(crate) only_here: bool,
}

impl Outbound {
    /// As [`Outbound::connect`], for a workload at `from`: a Service that wants its clients to stay knows it by that.
    ///
    /// # Errors
    /// As [`Outbound::connect`].
    pub async fn connect_from(
        &self,
        from: IpAddr,
        authority: &str,
        sent: Body,
    ) -> Result<Body, Failure> {
        let client = Client {
            ip: from,
            only_here: false,
        };
        self.connect_for(authority, sent, client).await
    }

    pub(crate) async fn connect_for(
        &self,
        authority: &str,
        sent: Body,
        client: Client,
    ) -> Result<Body, Failure> {
        let mut request = raw(authority, sent)?;
        request.extensions_mut().insert(client);
        self.open(request).await
    }

    /// Whether the policies of a Gateway let a connection in that is for `authority`. One that they do not is charged as one that began and
    /// ended, to nobody.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when they do not.
    pub(crate) fn admit(
        &self,
        gateway: &NamespacedName,
        entered: Entered<'_>,
        authority: &str,
    ) -> Result<(), Failure> {
        let (at, inner) = (Instant::now(), &self.mesh.inner);
        let admitted = inner.attached.guards().admit_at_gateway(gateway, entered);
        admitted.inspect_err(|_| {
            let asked = raw(authority, Body::empty());
            let asked = asked.as_ref().map(|asked| (asked.method(), asked.uri()));
            let seen = asked.map(|asked| Seen::of(inner, asked, None, None, at));
            let edge = self.caller.edge_to_nobody(inner, &NO_SERVICE);
            edge.opened.fetch_add(1, Ordering::Relaxed);
            let charge = Charge {
                tcp: true,
                ..Charge::of_nobody(edge, at, seen.unwrap_or_default())
            };
            charge.settle(StatusCode::FORBIDDEN.as_u16(), None, "-", 0);
        })
    }

    /// Has the other end of a byte stream prove itself.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when it does not.
    pub(crate) async fn proven(
        &self,
        tls: &Arc<BackendTls>,
        stream: Dialed,
    ) -> Result<TlsStream<Dialed>, Failure> {
        let backends = &self.mesh.inner.backends;
        backends.connect_bytes(tls, stream).await
    }

    /// Opens a byte stream to `authority`, a name or an address of the cluster with a port: what `sent` brings goes there, and what is
    /// returned comes from there.
    ///
    /// # Errors
    /// [`FailureKind::Denied`] when nothing of the cluster is there, and as [`Outbound::call`].
    pub async fn connect(&self, authority: &str, sent: Body) -> Result<Body, Failure> {
        self.open(raw(authority, sent)?).await
    }

    async fn open(&self, mut request: Request<Body>) -> Result<Body, Failure> {
        let at = Instant::now();
        let inner = &self.mesh.inner;
        weft_turns::charge(self.caller.tenant, weft_turns::REQUEST);
        let table = inner.table.load_full();
        let context = take_context(&mut request);
        let target = ingress::from_workload(&mut request)
            .and_then(|default_port| self.resolve(&table, request.uri(), default_port))
            .and_then(|target| self.led(&table, target, &mut request));
        let begun = target.map(CallWay::Direct).and_then(|way| {
            let arrival = Arrival {
                request,
                context,
                at,
                turn: None,
            };
            filter(&table, way, arrival)
        });
        match send(inner, &self.caller, &table, begun, at, None)? {
            Begun::Call(calling) => Ok(calling.await?.into_body()),
            // Only rules answer by themselves, and it met none.
            Begun::Answered(_) => Err(FailureKind::NoRoute.into()),
        }
    }

    /// Where a stream to `target` goes.
    fn led<'t>(
        &self,
        table: &'t Table,
        target: Target<'t>,
        request: &mut Request<Body>,
    ) -> Result<Target<'t>, Failure> {
        let Target::Service { service, port } = target else {
            return Ok(target);
        };
        if self.caller.origin != Origin::Workload {
            return Ok(target);
        }
        let namespace = &self.caller.workload.namespace;
        if let Some(Bound::Stream(route)) = service.bound(namespace, StreamProtocol::Tcp, port) {
            return table.led(route, rand::random());
        }
        if service.outside().local_inside {
            request.extensions_mut().insert(OnlyHere);
        }
        Ok(target)
    }

    /// Opens a byte stream to what is attached at `address` of this node, past services.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when nothing is, and as [`Outbound::call_attached`].
    pub async fn connect_attached(&self, address: PodAddress, sent: Body) -> Result<Body, Failure> {
        let authority = std::net::SocketAddr::from(address).to_string();
        let response = self.call_attached(address, raw(&authority, sent)?).await?;
        Ok(response.into_body())
    }
}

pub(super) fn raw(authority: &str, sent: Body) -> Result<Request<Body>, Failure> {
    let request = Request::post(format!("http://{authority}/")).body(sent);
    let mut request = request.map_err(|_| failure::bad_request("its host is not valid"))?;
    request.extensions_mut().insert(Raw);
    Ok(request)
}
