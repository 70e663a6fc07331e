//! The layers of a call, outermost first. Calls of workloads and of the gateway pass the same ones, in this order:
//!
//! ```text
//! 1 normalise   ingress.rs              one host, one path, a head within limits
//! 2 resolve     resolve.rs              whose name that is                        (the gateway: of which listener it is)
//!                                       nobody's of the cluster: egress.rs judges and makes the call, none of the layers below does
//! 3 route       route/                  the first rule that it meets
//! 4 filters     route/exchange.rs       what the rule does to it; may answer it; a backend by weight
//! 5 deadline    call.rs                 the earlier of the caller's and the rule's; from outside, the turn of its namespace; what
//!                                       its Service's policy spoils (fault.rs)
//! 6 retry       retry.rs, budget.rs       again or not, after each try; a second one at once where a policy hedges
//! 7 pick        balance.rs, health.rs,     (breaker.rs)
//!                                          an endpoint of those not tried yet; where there is none, hold.rs
//! 8 attempt     attempt.rs                  deliver.rs here, or transport.rs to its node
//!                  … and back: what the endpoint bears (attempt.rs), the charge (measure.rs), 4's side of the response
//! ```
//! What each decides is a pure function of the request and one [`Table`]. A failure of any layer leaves them as it is.
//!
//! Invariant: every call is charged exactly once, whatever becomes of it; what ends before layer 5 is charged to nobody.

mod datagrams;
mod raw;
mod requests;

use std::{
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response, Uri, uri::Scheme};
use http_body::Body as _;
use weft_call::{Failure, FailureKind};
use weft_gateway::{BackendTls, Protocol, StreamProtocol};
use weft_turns::Tenant;

use crate::{
    Body, CallContext, CallerInfo, Inner, Mesh, PodAddress, SpeaksH2,
    affinity::Affinity,
    call::{Call, Destination, Timeouts, called_by, earlier},
    caller::{BLACK_HOLE, Callee, Caller, NO_SERVICE},
    deliver::{self, Delivered},
    dial::dial,
    egress,
    failure::{self, answered},
    guards::Introduced,
    headers, ingress,
    measure::{self, Charge, Holds, RequestBytes},
    metrics::Origin,
    mirror, resolve,
    resolve::Target,
    route::{Entry, Exchange, Mirrored, Stays, Sticky, View},
    sighting::Seen,
    speak::speak,
    table::{Bound, Port, Table},
};

pub use datagrams::{Datagrams, FLOW_IDLE_MAX, FlowReceiver, FlowSender, TooLong, Unframed, flow};
pub(crate) use raw::Client;
pub use raw::Raw;
use requests::OpenedTo;

/// A call that is under way.
pub(crate) type Calling = weft_call::Calling<Body>;

/// A call as it came into the mesh.
pub(crate) struct Arrival {
    pub(crate) request: Request<Body>,
    pub(crate) context: CallContext,
    pub(crate) at: Instant,
    /// Whose turn it has to be before it goes on. None: whoever makes the call runs, so that it is.
    pub(crate) turn: Option<Tenant>,
}

/// Of a call that this node's endpoints answer or nobody. An extension of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnlyHere;

/// What routing decided.
pub(crate) enum CallWay<'t> {
    Routed(&'t Entry),
    Direct(Target<'t>),
}

impl CallWay<'_> {
    /// Whose calls go that way.
    pub(crate) fn tenant(&self) -> Tenant {
        match self {
            CallWay::Routed(entry) => entry.tenant,
            CallWay::Direct(Target::Service { service, .. }) => service.labels().tenant,
            CallWay::Direct(Target::Pod(endpoint)) => Tenant::named(&endpoint.workload.namespace),
            // Whose it is, nobody here knows; its own node counts it.
            CallWay::Direct(Target::Address(_)) => Tenant::named(""),
        }
    }
}

/// A workload's way to everything else. Clones share it.
#[derive(Clone)]
pub struct Outbound {
    mesh: Mesh,
    caller: Arc<Caller>,
}

impl Outbound {
    pub(crate) fn new(mesh: Mesh, caller: CallerInfo, at: Option<IpAddr>) -> Self {
        let mut caller = Caller::new(caller, Origin::Workload);
        caller.at = at;
        Self {
            mesh,
            caller: Arc::new(caller),
        }
    }

    /// The way of this node's gateway.
    pub(crate) fn of_gateway(mesh: Mesh) -> Self {
        let caller = Arc::clone(&mesh.inner.gateway_caller);
        Self { mesh, caller }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.mesh.inner.table.load_full()
    }

    pub(crate) fn affinity(&self) -> &Affinity {
        &self.mesh.inner.affinity
    }

    /// Makes one call. The [`CallContext`] of the call being served, as an extension, is carried on.
    ///
    /// Layers 1 to 4 are done when this returns, the others in the future.
    ///
    /// # Errors
    /// When no workload answered; see [`FailureKind`]. What the Gateway API answers for a route (404, 500) comes as a
    /// response, so that manifests behave as elsewhere.
    #[must_use]
    pub fn call(&self, mut request: Request<Body>) -> Calling {
        let at = Instant::now();
        let inner = &self.mesh.inner;
        // What is done for it from here on is done beside the guest, in part.
        weft_turns::charge(self.caller.tenant, weft_turns::REQUEST);
        let table = inner.table.load_full();
        let context = take_context(&mut request);
        let way = ingress::from_workload(&mut request)
            .and_then(|default_port| self.target(&table, &request, default_port))
            .and_then(|target| {
                let namespace = &self.caller.workload.namespace;
                way_to(&table, target, namespace, &mut request)
            });
        let way = match way {
            Err(failure) if self.may_leave(&failure, request.uri()) => {
                let arrival = Arrival {
                    request,
                    context,
                    at,
                    turn: None,
                };
                let (inner, caller) = (Arc::clone(inner), Arc::clone(&self.caller));
                return Box::pin(egress::call::send(inner, caller, arrival));
            }
            way => way.inspect_err(|failure| {
                if failure.kind == FailureKind::Denied {
                    egress::call::denied(inner, &self.caller, failure);
                }
            }),
        };
        let method = request.method().clone();
        let seen = Seen::of(inner, (&method, request.uri()), None, None, at);
        let arrival = Arrival {
            request,
            context,
            at,
            turn: None,
        };
        let begun = way.and_then(|way| filter(&table, way, arrival));
        let ended = match send(inner, &self.caller, &table, begun, at, seen) {
            Ok(Begun::Call(calling)) => return calling,
            Ok(Begun::Answered(response)) => Ok(response),
            Err(failure) => answered(failure, &method),
        };
        Box::pin(std::future::ready(ended))
    }

    /// Calls the workload that is attached at `address` of this node, past services and routes: what `localhost` is to the containers of
    /// one pod. It goes through the same door and is charged as any call; it is never tried again.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when nothing is attached there, and as [`Outbound::call`].
    pub async fn call_attached(
        &self,
        address: PodAddress,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        let started = Instant::now();
        let inner = &self.mesh.inner;
        weft_turns::charge(self.caller.tenant, weft_turns::REQUEST);
        let context = take_context(&mut request);
        let name = || SocketAddr::from(address).to_string();
        let to = ingress::from_workload(&mut request).and_then(|_| {
            let attached = inner.attached.get(address.into());
            attached.ok_or_else(|| failure::given_up(FailureKind::NotHere.into(), &name(), 1))
        });
        let to =
            to.inspect_err(|error| charge_to_nobody(inner, &self.caller, started, error, None))?;
        let above = context.spent.clone();
        let context = CallContext {
            port: Some(address.port),
            ..called_by(inner, &self.caller, context, request.headers())
        };
        let deadline = context.deadline;
        let table = inner.table.load();
        let (generation, door) = (table.generation(), table.door(address.into()).cloned());
        drop(table);
        let mut unanswered = measure::Unanswered::new(Charge {
            edges: self
                .caller
                .edges(inner, generation, &Callee::of(&to), &NO_SERVICE),
            started,
            grpc: measure::is_grpc(request.headers()),
            request_bytes: RequestBytes::Known(request.body().size_hint().exact().unwrap_or(0)),
            by_transport: None,
            tcp: false,
            // Within a pod; nobody watches that.
            seen: None,
            activity: None,
        });
        let guards = inner.attached.guards();
        if !guards.is_empty() {
            let introduced = Introduced {
                source: guards.source(self.caller.at, None),
                service: NO_SERVICE.header.clone(),
            };
            introduced.mark(request.extensions_mut());
        }
        let delivery = deliver::deliver(inner, door, &to, request, context);
        let delivered = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), delivery)
                .await
                .unwrap_or_else(|_| Err(failure::deadline())),
            None => delivery.await,
        };
        let charge = unanswered.answered();
        if let (Some(above), Ok(Delivered { spent: true, .. })) = (&above, &delivered) {
            above.tell();
        }
        match (delivered, charge) {
            (Ok(delivered), Some(charge)) => {
                let holds = Holds {
                    admitted: delivered.admitted,
                    ..Holds::default()
                };
                Ok(measure::finish(
                    delivered.response,
                    charge,
                    holds,
                    delivered.answered,
                ))
            }
            (Ok(delivered), None) => Ok(delivered.response),
            (Err(failure), charge) => {
                let failure = failure::given_up(failure, &name(), 1);
                if let Some(charge) = charge {
                    let flag = failure::flag(failure.kind);
                    charge.settle(failure.status().as_u16(), None, flag, 0);
                }
                Err(failure)
            }
        }
    }

    /// Whether a call to what is nothing of the cluster is one to the outside. `example.com` may be there though somebody named a
    /// namespace `com`.
    fn may_leave(&self, failure: &Failure, uri: &Uri) -> bool {
        let inner = &self.mesh.inner;
        let host = uri.host().unwrap_or_default();
        if egress::destination::is_inside(host, &inner.cluster_domain) {
            return false;
        }
        match failure.kind {
            FailureKind::Denied => true,
            FailureKind::UnknownService => {
                host.contains('.') && inner.egress.names(self.caller.identity(), uri)
            }
            _ => false,
        }
    }

    /// Whom a request is for: whom it names, or whom the stream was opened to that it came on.
    fn target<'t>(
        &self,
        table: &'t Table,
        request: &Request<Body>,
        default_port: u16,
    ) -> Result<Target<'t>, Failure> {
        let Some(OpenedTo(to)) = request.extensions().get() else {
            return self.resolve(table, request.uri(), default_port);
        };
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(to.to_string());
        let uri = uri.path_and_query("/").build();
        let uri = uri.map_err(|_| failure::bad_request("its host is not valid"))?;
        self.resolve(table, &uri, to.port())
    }

    fn resolve<'t>(
        &self,
        table: &'t Table,
        uri: &Uri,
        default_port: u16,
    ) -> Result<Target<'t>, Failure> {
        let inner = &self.mesh.inner;
        let authority = uri
            .authority()
            .ok_or_else(|| failure::bad_request("it names no host"))?;
        let namespace = &self.caller.workload.namespace;
        resolve::authority(
            table,
            authority,
            default_port,
            namespace,
            &inner.cluster_domain,
        )
    }
}

impl tower::Service<Request<Body>> for Outbound {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Calling;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Outbound::call(self, request)
    }
}

/// A call that passed the filters of its rule, or was answered by one.
pub(crate) type Filtered = ControlFlow<Response<Body>, (Arrival, Destination, Option<Exchange>)>;

/// Layer 4.
pub(crate) fn filter(
    table: &Table,
    way: CallWay<'_>,
    mut arrival: Arrival,
) -> Result<Filtered, Failure> {
    let (destination, exchange) = match way {
        CallWay::Direct(target) => {
            let is_raw = arrival.request.extensions().get::<Raw>().is_some();
            if let Target::Service { service, port } = &target
                && !is_raw
                && service.port(*port).is_some_and(Port::speaks_h2)
            {
                arrival.request.extensions_mut().insert(SpeaksH2);
            }
            (Destination::of(target), None)
        }
        CallWay::Routed(entry) => {
            let sticky = sticky(entry, table, &arrival.request);
            if let Some(sticky) = &sticky {
                arrival.request.extensions_mut().insert(sticky.stays);
            }
            match Exchange::begin(entry, &mut arrival.request, sticky, &mut rand::rng())? {
                ControlFlow::Break(response) => return Ok(ControlFlow::Break(response)),
                ControlFlow::Continue(exchange) => {
                    let backend = exchange.backend();
                    let target = table.backend(&backend.target);
                    let target = target.map_err(|reason| exchange.invalid(&reason))?;
                    if backend.protocol == Protocol::H2c {
                        arrival.request.extensions_mut().insert(SpeaksH2);
                    }
                    (Destination::of(target), Some(exchange))
                }
            }
        }
    };
    Ok(ControlFlow::Continue((arrival, destination, exchange)))
}

/// The session that a request is of, where its rule has any.
fn sticky(entry: &Entry, table: &Table, request: &Request<Body>) -> Option<Sticky> {
    // Most rules have none, and no time is told for them.
    entry.rule.session.as_ref()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    Sticky::of(entry, table, request, seconds)
}

/// What became of a call's first layers.
pub(crate) enum Begun {
    Call(Calling),
    /// A filter answered it.
    Answered(Response<Body>),
}

/// Layers 5 to 8, and the way back. Boxed, because everything that awaits it would otherwise carry its size. `seen` is whoever watches a call
/// that comes to nothing before there is one.
///
/// # Errors
/// What failed before there was anybody to send the call to.
pub(crate) fn send(
    inner: &Arc<Inner>,
    caller: &Arc<Caller>,
    table: &Arc<Table>,
    filtered: Result<Filtered, Failure>,
    at: Instant,
    seen: Option<Arc<Seen>>,
) -> Result<Begun, Failure> {
    begin(inner, caller, table, filtered)
        .inspect_err(|failure| charge_to_nobody(inner, caller, at, failure, seen))
}

fn begin(
    inner: &Arc<Inner>,
    caller: &Arc<Caller>,
    table: &Arc<Table>,
    filtered: Result<Filtered, Failure>,
) -> Result<Begun, Failure> {
    let (mut arrival, destination, mut exchange) = match filtered? {
        ControlFlow::Break(response) => return Ok(Begun::Answered(response)),
        ControlFlow::Continue(call) => call,
    };
    if let Some(exchange) = &mut exchange {
        mirror(inner, caller, table, exchange.take_mirrors(), &mut arrival);
    }
    let timeouts = exchange
        .as_ref()
        .map_or_else(Timeouts::default, |exchange| Timeouts {
            request: exchange.rule().request_timeout,
            attempt: exchange.rule().backend_timeout,
            retry: exchange.rule().retry.clone(),
            hedge_after: exchange.rule().hedge_after,
        });
    let tls = exchange
        .as_ref()
        .and_then(|exchange| exchange.backend().tls.clone());
    if let Some(tls) = tls {
        let proven = Proven {
            tls,
            timeouts,
            exchange,
        };
        let calling = proven.call(inner, caller, table, arrival, destination);
        return Ok(Begun::Call(calling));
    }
    let mut call = Call::begin(inner, caller, table, destination, timeouts, arrival)?;
    Ok(Begun::Call(Box::pin(async move {
        let mut response = call.run().await?;
        if let Some(exchange) = exchange {
            exchange.finish(&mut response);
        }
        Ok(response)
    })))
}

/// Begins the calls of mirrors, to which the body is copied.
fn mirror(
    inner: &Arc<Inner>,
    caller: &Arc<Caller>,
    table: &Arc<Table>,
    mirrors: Vec<Mirrored>,
    arrival: &mut Arrival,
) {
    if mirrors.is_empty() {
        return;
    }
    let body = std::mem::replace(arrival.request.body_mut(), Body::empty());
    let (body, copies) = mirror::tee(body, mirrors.len());
    *arrival.request.body_mut() = body;
    for (mirrored, body) in mirrors.into_iter().zip(copies) {
        let backend = mirrored.backend;
        // A mirror that is not there was told in the route's status.
        let Ok(target) = table.backend(&backend.target) else {
            continue;
        };
        let mut request = Request::new(body);
        *request.method_mut() = arrival.request.method().clone();
        *request.uri_mut() = mirrored.uri;
        *request.headers_mut() = mirrored.headers;
        if backend.protocol == Protocol::H2c {
            request.extensions_mut().insert(SpeaksH2);
        }
        let copy = Arrival {
            request,
            context: arrival.context.clone(),
            at: arrival.at,
            turn: None,
        };
        let destination = Destination::of(target);
        let calling = match backend.tls {
            None => {
                let filtered = Ok(ControlFlow::Continue((copy, destination, None)));
                match send(inner, caller, table, filtered, arrival.at, None) {
                    Ok(Begun::Call(calling)) => calling,
                    _ => continue,
                }
            }
            Some(tls) => {
                let proven = Proven {
                    tls,
                    timeouts: Timeouts::default(),
                    exchange: None,
                };
                proven.call(inner, caller, table, copy, destination)
            }
        };
        inner.mirrors.begin(calling);
    }
}

/// How a backend is called that has to prove itself by TLS of its own. It is tried once: whoever is there proves itself or does not.
struct Proven {
    tls: Arc<BackendTls>,
    timeouts: Timeouts,
    exchange: Option<Exchange>,
}

impl Proven {
    fn call(
        self,
        inner: &Arc<Inner>,
        caller: &Arc<Caller>,
        table: &Arc<Table>,
        arrival: Arrival,
        destination: Destination,
    ) -> Calling {
        let (inner, caller) = (Arc::clone(inner), Arc::clone(caller));
        let table = Arc::clone(table);
        Box::pin(async move {
            let Arrival {
                mut request,
                context,
                at,
                turn,
            } = arrival;
            if let Some(tenant) = turn {
                weft_turns::request(tenant).await;
            }
            let context = called_by(&inner, &caller, context, request.headers());
            context.carry(request.headers_mut());
            let after = |limit: Option<Duration>| limit.and_then(|limit| at.checked_add(limit));
            let deadline = earlier(context.deadline, after(self.timeouts.request));
            let deadline = earlier(deadline, after(self.timeouts.attempt));
            let wants_h2 = measure::is_grpc(request.headers())
                || request.extensions().get::<SpeaksH2>().is_some();
            let trying = async {
                let stays = request.extensions_mut().remove::<Stays>();
                let stream = dial(&inner, &caller, &table, destination, context, stays).await?;
                let by = stream.answered_by;
                let stream = inner.backends.connect(&self.tls, stream, wants_h2).await?;
                let mut response = speak(stream, request).await?;
                if let Some(by) = by {
                    response.extensions_mut().insert(by);
                }
                Ok::<_, Failure>(response)
            };
            let mut response = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), trying)
                    .await
                    .unwrap_or_else(|_| Err(failure::deadline()))?,
                None => trying.await?,
            };
            headers::keep_what_passes(response.headers_mut());
            if let Some(exchange) = self.exchange {
                exchange.finish(&mut response);
            }
            Ok(response)
        })
    }
}

fn take_context(request: &mut Request<Body>) -> CallContext {
    let context = request.extensions_mut().remove::<CallContext>();
    context.unwrap_or_default()
}

/// The way of a call of somebody in `namespace`: routes that are bound to the Service replace the way straight to its endpoints, which is to those
/// of this node where the Service says so (`internalTrafficPolicy: Local`). Where the routes are for streams, a request is led as the connection
/// would be that it needs.
pub(crate) fn way_to<'t>(
    table: &'t Table,
    target: Target<'t>,
    namespace: &str,
    request: &mut Request<Body>,
) -> Result<CallWay<'t>, Failure> {
    let Target::Service { service, port } = target else {
        return Ok(CallWay::Direct(target));
    };
    match service.bound(namespace, StreamProtocol::Tcp, port) {
        Some(Bound::Requests(routes)) => routed(routes.select(View::new(request, port)), || {
            format!("{} {}", request.method(), request.uri().path())
        }),
        Some(Bound::Stream(route)) => table.led(route, rand::random()).map(CallWay::Direct),
        None => {
            if service.outside().local_inside {
                request.extensions_mut().insert(OnlyHere);
            }
            Ok(CallWay::Direct(target))
        }
    }
}

/// Layer 3, where there are routes: `found` is what they have for the request, which is called `what`.
pub(crate) fn routed(
    found: Option<&Entry>,
    what: impl FnOnce() -> String,
) -> Result<CallWay<'_>, Failure> {
    let no_route = || Failure::new(FailureKind::NoRoute, format!("no route matches {}", what()));
    found.map(CallWay::Routed).ok_or_else(no_route)
}

/// Charges a call that ended before there was anybody to send it to. Under Istio's name for all that is not there: what a
/// caller makes up is no label.
pub(crate) fn charge_to_nobody(
    inner: &Inner,
    caller: &Caller,
    started: Instant,
    failure: &Failure,
    seen: Option<Arc<Seen>>,
) {
    let charge = Charge::of_nobody(caller.edge_to_nobody(inner, &BLACK_HOLE), started, seen);
    charge.settle(
        failure.status().as_u16(),
        None,
        failure::flag(failure.kind),
        0,
    );
}

/// What the gateway's policies answer, charged to nobody: no Service was chosen yet.
pub(crate) fn refused(
    inner: &Inner,
    started: Instant,
    response: Response<Body>,
    seen: Option<Arc<Seen>>,
) -> Response<Body> {
    let edge = inner.gateway_caller.edge_to_nobody(inner, &NO_SERVICE);
    let charge = Charge {
        grpc: measure::is_grpc(response.headers()),
        ..Charge::of_nobody(edge, started, seen)
    };
    measure::finish(response, charge, Holds::default(), Instant::now())
}
