//! The path of a call, top to bottom: [`Outbound::call`] says what happens in which order, [`send`] does it for
//! workloads and gateway alike.
//!
//! ```text
//! one host, one path (`ingress.rs`) → resolve the authority → route → filters → deadline → backend by weight
//!   → pick an endpoint → deliver here or send to its node → retry or not → response filters → charge
//! ```
//! All decisions are pure calls over one [`Table`]; only a call that every known endpoint failed looks at a
//! newer one. What one try is, is in `attempt.rs`.
//!
//! Invariants: a request is sent again only as `retry.rs` and `budget.rs` allow; every call of a workload is charged exactly once,
//! whatever becomes of it: where its last try went, or to nobody.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body::Body as _;
use smallvec::{SmallVec, smallvec};

use crate::{
    Body, CallContext, CallError, CallerInfo, DeliverError, Inner, Mesh, PodAddress, TraceContext,
    TransportError,
    caller::{BLACK_HOLE, Callee, Caller, NO_SERVICE},
    deliver, empty_body, headers, ingress,
    measure::{self, Charge, Holds, RequestBytes},
    metrics::{Edge, Origin},
    replay, resolve,
    resolve::Target,
    retry::{self, Failure, Refusal, Verdict},
    route::{self, Entry, Rule, View},
    table::{Endpoint, Port, ServiceIndex, ServiceLabels, Table},
};

/// A workload's way to everything else. Clones share it.
#[derive(Clone)]
pub struct Outbound {
    mesh: Mesh,
    caller: Arc<Caller>,
}

impl Outbound {
    pub(crate) fn new(mesh: Mesh, caller: CallerInfo) -> Self {
        Self {
            mesh,
            caller: Arc::new(Caller::new(caller, Origin::Workload)),
        }
    }

    /// Makes one call. The [`CallContext`] of the call being served, as an extension, is carried on.
    ///
    /// # Errors
    /// When no workload answered; see [`CallError`]. What the Gateway API answers for a route (404, 500) comes as a
    /// response, so that manifests behave as elsewhere.
    pub async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, CallError> {
        let started = Instant::now();
        let inner = &self.mesh.inner;
        let table = inner.table.load_full();
        let context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();

        let resolved = ingress::from_workload(&mut request)
            .and_then(|default_port| self.resolve(&table, request.uri(), default_port))
            .and_then(|target| self.route(&table, target, &request));
        let way = match resolved {
            Ok(way) => way,
            Err(error) => {
                charge_to_nobody(inner, &self.caller, started, &error);
                return answered(error, request.method());
            }
        };
        let method = request.method().clone();
        let arrival = Arrival {
            request,
            context,
            at: started,
        };
        let sent = send(inner, &self.caller, &table, way, arrival).await;
        sent.or_else(|error| answered(error, &method))
    }

    /// Calls the workload that is attached at `address` of this node, past services and routes: what `localhost` is to the containers of
    /// one pod. It goes through the same door and is charged as any call; it is never tried again.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] when nothing is attached there, and as [`Outbound::call`].
    pub async fn call_attached(
        &self,
        address: PodAddress,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let started = Instant::now();
        let inner = &self.mesh.inner;
        let context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();
        let to = ingress::from_workload(&mut request).and_then(|_| {
            let attached = inner.attached.get(address.into());
            attached.ok_or_else(|| CallError::Unreachable {
                service: SocketAddr::from(address).to_string(),
                attempts: 1,
                source: DeliverError::NotHere.into(),
            })
        });
        let to = to.inspect_err(|error| charge_to_nobody(inner, &self.caller, started, error))?;
        let trace = child_of(request.headers(), &context);
        trace.write(request.headers_mut());
        let context = CallContext {
            peer: Some(Arc::clone(&self.caller.peer)),
            trace: Some(trace),
            depth: context.depth.saturating_add(1),
            attempt: 0,
            ..context
        };
        let deadline = context.deadline;
        let generation = inner.table.load().generation();
        let mut unanswered = measure::Unanswered::new(Charge {
            edges: self
                .caller
                .edges(inner, generation, &Callee::of(&to), &NO_SERVICE),
            started,
            grpc: measure::is_grpc(request.headers()),
            request_bytes: RequestBytes::Known(request.body().size_hint().exact().unwrap_or(0)),
            by_transport: None,
        });
        let delivery = deliver::deliver(&to, request, context);
        let delivered = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), delivery)
                .await
                .unwrap_or(Err(DeliverError::Deadline)),
            None => delivery.await,
        };
        let charge = unanswered.answered();
        match (delivered, charge) {
            (Ok(delivered), Some(charge)) => {
                let holds = Holds {
                    in_flight: Some(delivered.in_flight),
                    ..Holds::default()
                };
                Ok(measure::finish(delivered.response, charge, holds))
            }
            (Ok(delivered), None) => Ok(delivered.response),
            (Err(error), charge) => {
                let service = SocketAddr::from(address).to_string();
                let error = call_error(Failure::Deliver(error), service, 0);
                if let Some(charge) = charge {
                    charge.settle(error.status().as_u16(), None, error.flag(), 0);
                }
                Err(error)
            }
        }
    }

    fn resolve(&self, table: &Table, uri: &Uri, default_port: u16) -> Result<Target, CallError> {
        let inner = &self.mesh.inner;
        let authority = uri.authority().ok_or_else(|| CallError::BadRequest {
            reason: "it names no host".to_owned(),
        })?;
        let namespace = &self.caller.workload.namespace;
        let resolved = resolve::authority(
            table,
            authority,
            default_port,
            namespace,
            &inner.cluster_domain,
        );
        if let Err(CallError::Denied { authority }) = &resolved {
            inner.metrics.denied.fetch_add(1, Ordering::Relaxed);
            let denied = self.caller.denied.fetch_add(1, Ordering::Relaxed) + 1;
            // A scan of all ports is seventeen lines, not sixty-five thousand.
            if denied.is_power_of_two() {
                tracing::warn!(
                    caller = %self.caller.spiffe_id, %authority, denied,
                    "a call out of the cluster was denied"
                );
            }
        }
        resolved
    }

    /// Routes bound to the service replace the way straight to its endpoints.
    fn route<'t>(
        &self,
        table: &'t Table,
        target: Target,
        request: &Request<Body>,
    ) -> Result<CallWay<'t>, CallError> {
        let Target::Service { service, port } = target else {
            return Ok(CallWay::Direct(target));
        };
        let found = table.service(service);
        let Some(routes) = found.routes(&self.caller.workload.namespace, port) else {
            return Ok(CallWay::Direct(target));
        };
        routes
            .select(View::new(request, port))
            .map(CallWay::Routed)
            .ok_or_else(|| CallError::NoRoute {
                what: format!("{} {}", request.method(), request.uri().path()),
            })
    }
}

impl tower::Service<Request<Body>> for Outbound {
    type Response = Response<Body>;
    type Error = CallError;
    type Future = Calling;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Outbound::call(&this, request).await })
    }
}

// === The call ===

pub(crate) type Calling = Pin<Box<dyn Future<Output = Result<Response<Body>, CallError>> + Send>>;

/// A call as it came into the mesh.
pub(crate) struct Arrival {
    pub(crate) request: Request<Body>,
    pub(crate) context: CallContext,
    pub(crate) at: Instant,
}

/// What routing decided.
pub(crate) enum CallWay<'t> {
    Routed(&'t Entry),
    Direct(Target),
}

/// Carries out a call whose way is decided. Boxed, because everything that awaits it would otherwise carry its size.
pub(crate) fn send(
    inner: &Arc<Inner>,
    caller: &Arc<Caller>,
    table: &Arc<Table>,
    way: CallWay<'_>,
    mut arrival: Arrival,
) -> Calling {
    match prepare(table, way, &mut arrival.request) {
        Ok(Prepared::Call(destination, rule)) => Box::pin(carry_out(
            Arc::clone(inner),
            Arc::clone(caller),
            Arc::clone(table),
            destination,
            rule,
            arrival,
        )),
        Ok(Prepared::Answer(response)) => Box::pin(std::future::ready(Ok(response))),
        Err(error) => {
            charge_to_nobody(inner, caller, arrival.at, &error);
            Box::pin(std::future::ready(Err(error)))
        }
    }
}

/// Charges a call that ended before there was anybody to send it to. Under Istio's name for all that is not there: what a
/// caller makes up is no label.
pub(crate) fn charge_to_nobody(
    inner: &Inner,
    caller: &Caller,
    started: Instant,
    error: &CallError,
) {
    let charge = Charge {
        edges: smallvec![caller.edge_to_nobody(inner, &BLACK_HOLE)],
        started,
        grpc: false,
        request_bytes: RequestBytes::Known(0),
        by_transport: None,
    };
    charge.settle(error.status().as_u16(), None, error.flag(), 0);
}

enum Prepared {
    Call(Destination, Option<Chosen>),
    /// A redirect.
    Answer(Response<Body>),
}

/// The rule that a call follows, and the position of the backend that its weights chose.
struct Chosen {
    rule: Arc<Rule>,
    backend: usize,
}

/// Redirects, or chooses a backend and applies the filters of rule and backend to the request.
fn prepare(
    table: &Table,
    way: CallWay<'_>,
    request: &mut Request<Body>,
) -> Result<Prepared, CallError> {
    let to_service = |service, port| Destination::Service {
        labels: Arc::clone(table.service(service).labels()),
        service,
        port,
    };
    let entry = match way {
        CallWay::Direct(Target::Service { service, port }) => {
            return Ok(Prepared::Call(to_service(service, port), None));
        }
        CallWay::Direct(Target::Pod(endpoint)) => {
            return Ok(Prepared::Call(Destination::Pod(endpoint), None));
        }
        CallWay::Routed(entry) => entry,
    };
    let rule = &entry.rule;
    let redirect = route::redirect(
        &rule.filters,
        entry.prefix(),
        request.uri(),
        entry.listener_port,
    );
    if let Some((status, location)) = redirect {
        return Ok(Prepared::Answer(redirected(status, &location)));
    }
    let invalid = |reason| CallError::InvalidBackend {
        route: rule.route.clone(),
        reason,
    };
    let backend = route::choose_backend(&rule.backends, &mut rand::rng())
        .ok_or_else(|| invalid("no backend has any weight".to_owned()))?;
    let chosen = &rule.backends[backend];
    let mut uri = std::mem::take(request.uri_mut());
    for filters in [&rule.filters, &chosen.filters] {
        route::filter_request(filters, entry.prefix(), &mut uri, request.headers_mut())
            .map_err(invalid)?;
    }
    *request.uri_mut() = uri;
    let (service, port) = table.backend(&chosen.target).map_err(invalid)?;
    let chosen = Chosen {
        rule: Arc::clone(rule),
        backend,
    };
    Ok(Prepared::Call(to_service(service, port), Some(chosen)))
}

async fn carry_out(
    inner: Arc<Inner>,
    caller: Arc<Caller>,
    table: Arc<Table>,
    destination: Destination,
    chosen: Option<Chosen>,
    arrival: Arrival,
) -> Result<Response<Body>, CallError> {
    let Arrival {
        mut request,
        context,
        at: started,
    } = arrival;
    let rule = chosen.as_ref().map(|chosen| &*chosen.rule);
    let trace = child_of(request.headers(), &context);
    trace.write(request.headers_mut());
    let deadline = earlier(
        context.deadline,
        rule.and_then(|rule| rule.request_timeout)
            .and_then(|timeout| started.checked_add(timeout)),
    );

    let (head, body) = request.into_parts();
    let Ok(declared) = headers::content_length(&head.headers) else {
        let error = CallError::BadRequest {
            reason: "its content-length is not one number".to_owned(),
        };
        charge_to_nobody(&inner, &caller, started, &error);
        return Err(error);
    };
    if let Destination::Service { service, .. } = destination {
        table.service(service).budget().earn();
    }
    let grpc = measure::is_grpc(&head.headers);
    let exact = body.size_hint().exact();
    let body = replay::Source::new(body, declared);
    let mut call = Call {
        context: CallContext {
            peer: Some(Arc::clone(&caller.peer)),
            deadline,
            trace: Some(trace),
            depth: context.depth.saturating_add(1),
            attempt: 0,
        },
        inner,
        caller,
        table,
        destination,
        method: head.method.clone(),
        try_timeout: rule.and_then(|rule| rule.backend_timeout),
        started,
        grpc,
        request_bytes: exact,
        body,
        edges: None,
        is_charged: false,
    };
    let tries = call.tries(head);
    let answered = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), tries)
            .await
            .unwrap_or(Err((CallError::Deadline, Last::GivenUp))),
        None => tries.await,
    };
    match answered {
        Ok(mut response) => {
            if let Some(Chosen { rule, backend }) = &chosen {
                let backend = &rule.backends[*backend];
                route::filter_response(&backend.filters, response.headers_mut());
                route::filter_response(&rule.filters, response.headers_mut());
            }
            Ok(response)
        }
        Err((error, last)) => {
            call.charge_failure(error.status().as_u16(), error.flag(), last);
            Err(error)
        }
    }
}

/// The trace of a call: a workload may have joined one itself; otherwise its call continues the call it serves.
fn child_of(lines: &http::HeaderMap, context: &CallContext) -> TraceContext {
    let mut rng = rand::rng();
    match TraceContext::from_headers(lines).or_else(|| context.trace.clone()) {
        Some(parent) => parent.child(&mut rng),
        None => TraceContext::root(&mut rng),
    }
}

/// What a call without a response says of the callee of its last try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It failed, or was not reached.
    Failed,
    /// It was still at work when its caller stopped waiting.
    GivenUp,
}

/// What a call is for; services can be looked up again in a newer table.
enum Destination {
    Service {
        labels: Arc<ServiceLabels>,
        service: ServiceIndex,
        port: u16,
    },
    Pod(Arc<Endpoint>),
}

impl Destination {
    fn name(&self) -> String {
        match self {
            Destination::Service { labels, .. } => labels.display.clone(),
            Destination::Pod(endpoint) => endpoint.pod.clone(),
        }
    }

    fn labels(&self) -> Arc<ServiceLabels> {
        match self {
            Destination::Service { labels, .. } => Arc::clone(labels),
            Destination::Pod(_) => Arc::clone(&NO_SERVICE),
        }
    }

    fn port<'t>(&self, table: &'t Table) -> Option<&'t Port> {
        match self {
            Destination::Service { service, port, .. } => table.service(*service).port(*port),
            Destination::Pod(_) => None,
        }
    }
}

type Edges = SmallVec<[Arc<Edge>; 2]>;

/// One call and everything its tries share.
pub(crate) struct Call {
    pub(crate) inner: Arc<Inner>,
    pub(crate) caller: Arc<Caller>,
    table: Arc<Table>,
    destination: Destination,
    method: Method,
    pub(crate) try_timeout: Option<Duration>,
    pub(crate) context: CallContext,
    pub(crate) started: Instant,
    grpc: bool,
    /// Size of the request where it is known beforehand.
    request_bytes: Option<u64>,
    pub(crate) body: replay::Source,
    /// Where its last try went: the caller's side, then the callee's if that is here.
    edges: Option<Edges>,
    is_charged: bool,
}

impl Drop for Call {
    /// A caller that goes away before there is a response, as a guest with a timeout of its own does: Envoy's "downstream
    /// connection termination".
    fn drop(&mut self) {
        self.charge_failure(0, "DC", Last::GivenUp);
    }
}

impl Call {
    /// Tries endpoints until one answers or `retry.rs` says no.
    async fn tries(&mut self, head: Parts) -> Result<Response<Body>, (CallError, Last)> {
        let mut head = Some(head);
        let mut table = Arc::clone(&self.table);
        let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        let mut attempt = 0;
        let mut waited = false;
        loop {
            let (endpoint, has_choice) = match self.pick(&table, &tried) {
                Some(found) => found,
                None => {
                    let service = self.destination.name();
                    let outside = self.port(&table).and_then(Port::outside);
                    let error = match outside {
                        Some(address) => CallError::Denied {
                            authority: format!("{address}, the endpoint of {service},"),
                        },
                        None => CallError::NoEndpoints { service },
                    };
                    self.edges = None;
                    return Err((error, Last::Failed));
                }
            };
            let labels = self.destination.labels();
            let callee = Callee::at(&endpoint);
            let edges = self
                .caller
                .edges(&self.inner, table.generation(), &callee, &labels);
            self.edges = Some(edges);

            let outcome = self
                .attempt(&endpoint, &labels, attempt, &mut head, has_choice)
                .await;
            let failure = match outcome {
                Ok((response, holds, _)) => {
                    self.is_charged = true;
                    let edges = self.edges.take().unwrap_or_default();
                    let charge = self.charge(edges, Some(&endpoint));
                    return Ok(measure::finish(response, charge, holds));
                }
                Err(failure) => failure,
            };
            tried.push(endpoint.address);
            let elsewhere = self.pick_untried(&table, &tried).is_some();
            let replayable = head.is_some() && self.body.is_replayable();
            let mut verdict = retry::decide(&failure, &self.method, attempt, replayable, elsewhere);
            if verdict == Verdict::Retry && !self.may_retry() {
                verdict = Verdict::GiveUp(Refusal::OverBudget);
            }
            tracing::debug!(
                to = %endpoint.address, pod = %endpoint.pod, attempt, reason = failure.reason(), ?verdict, "try failed"
            );
            if let Verdict::GiveUp(_) = verdict {
                let last = match failure {
                    Failure::TryTimeout | Failure::RequestBroken => Last::GivenUp,
                    Failure::Deliver(_) | Failure::Transport(_) => Last::Failed,
                };
                return Err((self.give_up(failure, attempt), last));
            }
            self.inner.metrics.retry(failure.reason());
            attempt += 1;
            if !waited && !elsewhere {
                // Every endpoint we know failed the call: perhaps the news of their going is on its way.
                waited = true;
                if let Some(newer) = self.newer_table(&table).await {
                    table = newer;
                }
            }
        }
    }

    /// An endpoint not tried yet, else any: with one endpoint, trying it again beats giving up. The flag says
    /// whether another try could go elsewhere.
    fn pick(&self, table: &Table, tried: &[SocketAddr]) -> Option<(Arc<Endpoint>, bool)> {
        if let Destination::Pod(endpoint) = &self.destination {
            return Some((Arc::clone(endpoint), false));
        }
        let port = self.port(table)?;
        let now = self.inner.nanos(self.started);
        let mut rng = rand::rng();
        let endpoint = port
            .pick(tried, now, &mut rng)
            .or_else(|| port.pick(&[], now, &mut rng))?;
        Some((Arc::clone(endpoint), port.has_choice()))
    }

    /// Takes a retry from the service's budget. A pod that is called by its address has none, and is tried again where it is.
    fn may_retry(&self) -> bool {
        match &self.destination {
            Destination::Service { service, .. } => {
                let now = self.inner.nanos(Instant::now());
                self.table.service(*service).budget().take(now)
            }
            Destination::Pod(_) => true,
        }
    }

    fn pick_untried(&self, table: &Table, tried: &[SocketAddr]) -> Option<()> {
        let now = self.inner.nanos(self.started);
        let port = self.port(table).filter(|port| !port.is_empty())?;
        port.pick(tried, now, &mut rand::rng()).map(|_| ())
    }

    fn port<'t>(&self, table: &'t Table) -> Option<&'t Port> {
        if table.generation() == self.table.generation() {
            return self.destination.port(table);
        }
        // Positions differ between tables; names do not.
        let Destination::Service { labels, port, .. } = &self.destination else {
            return None;
        };
        let index = table.service_index(&labels.namespace, &labels.name)?;
        table.service(index).port(*port)
    }

    async fn newer_table(&self, than: &Table) -> Option<Arc<Table>> {
        let mut published = self.inner.published.subscribe();
        let until = tokio::time::Instant::now() + retry::NEWER_TABLE_WAIT;
        while *published.borrow_and_update() <= than.generation() {
            let change = tokio::time::timeout_at(until, published.changed()).await;
            change.ok()?.ok()?;
        }
        Some(self.inner.table.load_full())
    }

    fn give_up(&self, failure: Failure, attempt: u32) -> CallError {
        call_error(failure, self.destination.name(), attempt)
    }

    fn charge(&self, edges: Edges, endpoint: Option<&Endpoint>) -> Charge {
        Charge {
            edges,
            started: self.started,
            grpc: self.grpc,
            request_bytes: match (self.request_bytes, self.body.counter()) {
                (Some(bytes), _) => RequestBytes::Known(bytes),
                (None, Some(counter)) => RequestBytes::Counted(counter),
                (None, None) => RequestBytes::Known(0),
            },
            by_transport: endpoint
                .map(|endpoint| (Arc::clone(&self.inner), endpoint.way.transport())),
        }
    }

    /// Charges a call without a response, once, where its last try went or to nobody. A callee that was given up on did not
    /// fail: that is its caller's doing.
    fn charge_failure(&mut self, code: u16, flag: &'static str, last: Last) {
        if std::mem::replace(&mut self.is_charged, true) {
            return;
        }
        let mut edges = self.edges.take().unwrap_or_else(|| {
            let labels = self.destination.labels();
            smallvec![self.caller.edge_to_nobody(&self.inner, &labels)]
        });
        if last == Last::GivenUp && edges.len() > 1 {
            let on_its_side = edges.drain(1..).collect();
            self.charge(on_its_side, None).settle(0, None, "DC", 0);
        }
        self.charge(edges, None).settle(code, None, flag, 0);
    }
}

/// What a caller hears of the failure of its last try.
fn call_error(failure: Failure, service: String, attempt: u32) -> CallError {
    match failure {
        Failure::TryTimeout | Failure::Deliver(DeliverError::Deadline) => CallError::Deadline,
        Failure::Deliver(DeliverError::LoopDetected) => CallError::LoopDetected,
        Failure::Deliver(DeliverError::Overloaded) => CallError::Overloaded { service },
        Failure::Deliver(DeliverError::Rejected { reason }) => CallError::BadRequest { reason },
        Failure::Deliver(DeliverError::Failed { message }) => {
            CallError::Failed { service, message }
        }
        Failure::Deliver(error @ DeliverError::OutOfMemory) => CallError::Failed {
            service,
            message: error.to_string(),
        },
        Failure::Deliver(error @ DeliverError::NotHere) => CallError::Unreachable {
            service,
            attempts: attempt + 1,
            source: error.into(),
        },
        Failure::RequestBroken => CallError::BadRequest {
            reason: "its body broke off, or is not as long as its content-length says".to_owned(),
        },
        Failure::Transport(TransportError::Crowded { .. }) => CallError::Overloaded { service },
        Failure::Transport(error @ TransportError::Malformed { .. }) => CallError::BadRequest {
            reason: error.to_string(),
        },
        Failure::Transport(error) if error.never_left() => CallError::Unreachable {
            service,
            attempts: attempt + 1,
            source: error.into(),
        },
        Failure::Transport(error) => CallError::Interrupted {
            service,
            source: error.into(),
        },
    }
}

pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn redirected(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// The response that the Gateway API prescribes for an error, or the error again.
fn answered(error: CallError, method: &Method) -> Result<Response<Body>, CallError> {
    if error.is_answer() {
        Ok(sentence(&error, method))
    } else {
        Err(error)
    }
}

/// An error as status and one sentence of text.
pub(crate) fn sentence(error: &CallError, method: &Method) -> Response<Body> {
    let mut response = Response::new(crate::full_body(format!("{error}\n")));
    *response.status_mut() = error.status();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Some(seconds) = error.retry_after_seconds() {
        let lines = response.headers_mut();
        lines.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    deliver::without_content(method, response)
}
