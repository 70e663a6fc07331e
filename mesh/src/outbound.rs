//! The path of a call, top to bottom: [`Outbound::call`] says what happens in which order, [`send`] does it for
//! workloads and gateway alike.
//!
//! ```text
//! strip forged headers → resolve the authority → route → filters → deadline → backend by weight
//!   → pick an endpoint → deliver here or send to its node → retry or not → response filters → charge
//! ```
//! All decisions are pure calls over one [`Table`]; only a call that every known endpoint failed looks at a
//! newer one.
//!
//! Invariants: a request is sent again only as `retry.rs` allows; a try that ends for any reason, cancellation
//! included, is no longer pending at its endpoint; every call of a workload is charged exactly once, whatever becomes
//! of it: where its last try went, or to nobody.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use smallvec::{SmallVec, smallvec};

use crate::{
    Body, CallContext, CallError, CallerInfo, DeliverError, Inner, Mesh, TraceContext,
    TransportError, balance,
    caller::{BLACK_HOLE, Caller, NO_SERVICE},
    deliver, empty_body, headers,
    inbound::worked,
    measure::{self, Charge, Holds, RequestBytes},
    metrics::{Edge, Origin},
    replay, resolve,
    resolve::Target,
    retry::{self, Failure, Verdict},
    route::{self, CompiledRule, Entry, View},
    table::{Endpoint, Port, ServiceIndex, ServiceLabels, Table, Way},
};

/// Text of a peer's refusal that is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

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

        headers::strip_forged(request.headers_mut());
        let resolved = resolve::absolute(&mut request, None)
            .and_then(|default_port| self.resolve(&table, request.uri(), default_port))
            .and_then(|target| self.route(&table, target, &request));
        let way = match resolved {
            Ok(way) => way,
            Err(error) => {
                charge_to_nobody(inner, &self.caller, started, &error);
                return answered(error);
            }
        };
        let arrival = Arrival {
            request,
            context,
            at: started,
        };
        let sent = send(inner, &self.caller, &table, way, arrival).await;
        sent.or_else(answered)
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

/// One try counted as pending at its endpoint until dropped. A try that never learned its latency is charged with
/// the time it took: it was at least that slow.
pub(crate) struct Pending {
    endpoint: Arc<Endpoint>,
    inner: Arc<Inner>,
    since: Instant,
    recorded: bool,
}

impl Pending {
    fn begin(inner: &Arc<Inner>, endpoint: &Arc<Endpoint>, since: Instant) -> Self {
        endpoint.load().begin();
        Self {
            endpoint: Arc::clone(endpoint),
            inner: Arc::clone(inner),
            since,
            recorded: false,
        }
    }

    /// The head of a response came, or the try failed: `latency` is what the balancer should believe.
    fn record(&mut self, latency: Duration, now: Instant) {
        self.recorded = true;
        self.endpoint.load().record(latency, self.inner.nanos(now));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.endpoint.load().end();
        if !self.recorded {
            let now = Instant::now();
            self.record(now.saturating_duration_since(self.since), now);
        }
    }
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
    rule: Arc<CompiledRule>,
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
    if let Some((status, location)) = route::redirect(&rule.filters, entry.prefix(), request.uri())
    {
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
    let (service, port) = chosen.target.clone().map_err(invalid)?;
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
    // The guest may have joined the trace itself; otherwise its call continues the call it serves.
    let parent = TraceContext::from_headers(request.headers()).or(context.trace);
    let trace = {
        let mut rng = rand::rng();
        match parent {
            Some(parent) => parent.child(&mut rng),
            None => TraceContext::root(&mut rng),
        }
    };
    trace.write(request.headers_mut());
    let deadline = earlier(
        context.deadline,
        rule.and_then(|rule| rule.request_timeout)
            .and_then(|timeout| started.checked_add(timeout)),
    );

    let (head, body) = request.into_parts();
    let grpc = measure::is_grpc(&head.headers);
    let exact = body.size_hint().exact();
    let body = replay::Source::new(body);
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
            .unwrap_or(Err((CallError::Deadline, Callee::GivenUp))),
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
        Err((error, callee)) => {
            call.charge_failure(error.status().as_u16(), error.flag(), callee);
            Err(error)
        }
    }
}

/// What a call without a response says of the callee of its last try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Callee {
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
struct Call {
    inner: Arc<Inner>,
    caller: Arc<Caller>,
    table: Arc<Table>,
    destination: Destination,
    method: Method,
    try_timeout: Option<Duration>,
    context: CallContext,
    started: Instant,
    grpc: bool,
    /// Size of the request where it is known beforehand.
    request_bytes: Option<u64>,
    body: replay::Source,
    /// Where its last try went: the caller's side, then the callee's if that is here.
    edges: Option<Edges>,
    is_charged: bool,
}

impl Drop for Call {
    /// A caller that goes away before there is a response, as a guest with a timeout of its own does: Envoy's "downstream
    /// connection termination".
    fn drop(&mut self) {
        self.charge_failure(0, "DC", Callee::GivenUp);
    }
}

/// A response head, with what keeps the call in flight while the body is read, and how long the workload took for the
/// head where that is known.
type Answer = (Response<Body>, Holds, Option<Duration>);

impl Call {
    /// Tries endpoints until one answers or `retry.rs` says no.
    async fn tries(&mut self, head: Parts) -> Result<Response<Body>, (CallError, Callee)> {
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
                    self.edges = None;
                    return Err((CallError::NoEndpoints { service }, Callee::Failed));
                }
            };
            let labels = self.destination.labels();
            let edges = self
                .caller
                .edges(&self.inner, table.generation(), &endpoint, &labels);
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
            if failure.ejects() {
                endpoint.load().eject(self.inner.nanos(Instant::now()));
            }
            let replayable = head.is_some() && self.body.is_replayable();
            let verdict = retry::decide(&failure, &self.method, attempt, replayable);
            tracing::debug!(
                to = %endpoint.address, pod = %endpoint.pod, attempt, reason = failure.reason(), ?verdict, "try failed"
            );
            if let Verdict::GiveUp(_) = verdict {
                let callee = match failure {
                    Failure::TryTimeout => Callee::GivenUp,
                    Failure::Deliver(_) | Failure::Transport(_) => Callee::Failed,
                };
                return Err((self.give_up(failure, attempt), callee));
            }
            self.inner.metrics.retry(failure.reason());
            tried.push(endpoint.address);
            attempt += 1;
            if !waited && self.pick_untried(&table, &tried).is_none() {
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

    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        labels: &Arc<ServiceLabels>,
        attempt: u32,
        head: &mut Option<Parts>,
        has_choice: bool,
    ) -> Result<Answer, Failure> {
        let since = if attempt == 0 {
            self.started
        } else {
            Instant::now()
        };
        let mut pending = Pending::begin(&self.inner, endpoint, since);
        let trying = self.once(endpoint, labels, attempt, head, has_choice);
        let outcome = match self.try_timeout {
            Some(limit) => tokio::time::timeout(limit, trying)
                .await
                .unwrap_or(Err(Failure::TryTimeout)),
            None => trying.await,
        };
        let now = Instant::now();
        let latency = now.saturating_duration_since(since);
        match outcome {
            Ok((response, mut holds, worked)) => {
                if let Some(worked) = worked {
                    let whole = now.saturating_duration_since(self.started);
                    self.inner.metrics.added(
                        self.caller.origin,
                        endpoint.way.transport(),
                        whole.saturating_sub(worked),
                    );
                }
                let refuses = matches!(
                    response.status(),
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                );
                pending.record(if refuses { balance::PENALTY } else { latency }, now);
                endpoint.load().reinstate();
                holds.pending = Some(pending);
                Ok((response, holds, worked))
            }
            Err(failure) => {
                pending.record(latency.max(balance::PENALTY), now);
                Err(failure)
            }
        }
    }

    async fn once(
        &self,
        endpoint: &Arc<Endpoint>,
        labels: &Arc<ServiceLabels>,
        attempt: u32,
        head: &mut Option<Parts>,
        has_choice: bool,
    ) -> Result<Answer, Failure> {
        match endpoint.way {
            Way::Here => self.attempt_here(endpoint, attempt, head, has_choice).await,
            Way::Node(node) => {
                self.attempt_node(endpoint, labels, node, attempt, head)
                    .await
            }
        }
    }

    /// In memory, on this core.
    async fn attempt_here(
        &self,
        endpoint: &Arc<Endpoint>,
        attempt: u32,
        head: &mut Option<Parts>,
        has_choice: bool,
    ) -> Result<Answer, Failure> {
        // Looked up before the request is touched: a pod that left costs nothing.
        let attached = self
            .inner
            .attached
            .get(endpoint.address)
            .filter(|attached| attached.identity == endpoint.identity)
            .ok_or(Failure::Deliver(DeliverError::NotHere))?;
        let parts = if has_choice {
            head.clone()
        } else {
            head.take()
        };
        let Some(parts) = parts else {
            return Err(Failure::Deliver(DeliverError::NotHere));
        };
        let request = Request::from_parts(parts, self.body.reader());
        let context = CallContext {
            attempt,
            ..self.context.clone()
        };
        let delivered = deliver::deliver(&attached, request, context)
            .await
            .map_err(Failure::Deliver)?;
        let holds = Holds {
            in_flight: Some(delivered.in_flight),
            ..Holds::default()
        };
        Ok((delivered.response, holds, Some(delivered.worked)))
    }

    /// Over the wire, with the call's context in headers.
    async fn attempt_node(
        &self,
        endpoint: &Arc<Endpoint>,
        labels: &Arc<ServiceLabels>,
        node: SocketAddr,
        attempt: u32,
        head: &Option<Parts>,
    ) -> Result<Answer, Failure> {
        let Some(mut parts) = head.clone() else {
            return Err(Failure::Transport(TransportError::NotTaken {
                address: node,
            }));
        };
        let lines = &mut parts.headers;
        headers::strip_hop_by_hop(lines);
        lines.remove(header::HOST);
        lines.insert(headers::DESTINATION, endpoint.header.clone());
        lines.insert(headers::SERVICE, labels.header.clone());
        lines.insert(headers::SOURCE, self.caller.source_line.clone());
        lines.insert(headers::DEPTH, HeaderValue::from(self.context.depth));
        if attempt > 0 {
            lines.insert(headers::ATTEMPT, HeaderValue::from(attempt));
        }
        if let Some(deadline) = self.context.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            lines.insert(headers::TIMEOUT, HeaderValue::from(millis));
        }
        parts.version = http::Version::HTTP_2;
        parts.extensions.clear();
        let request = Request::from_parts(parts, self.body.reader());
        let (mut response, stream) = self
            .inner
            .transport
            .send(
                self.caller.identity(),
                &self.caller.spiffe_id,
                endpoint,
                node,
                request,
            )
            .await
            .map_err(Failure::Transport)?;
        if let Some(token) = response.headers().get(headers::ERROR).cloned() {
            return Err(Failure::Deliver(refusal(token, response).await));
        }
        let worked = worked(response.headers());
        headers::strip_weft(response.headers_mut());
        let holds = Holds {
            stream: Some(stream),
            ..Holds::default()
        };
        Ok((response, holds, worked))
    }

    fn give_up(&self, failure: Failure, attempt: u32) -> CallError {
        let service = self.destination.name();
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
    fn charge_failure(&mut self, code: u16, flag: &'static str, callee: Callee) {
        if std::mem::replace(&mut self.is_charged, true) {
            return;
        }
        let mut edges = self.edges.take().unwrap_or_else(|| {
            let labels = self.destination.labels();
            smallvec![self.caller.edge_to_nobody(&self.inner, &labels)]
        });
        if callee == Callee::GivenUp && edges.len() > 1 {
            let on_its_side = edges.drain(1..).collect();
            self.charge(on_its_side, None).settle(0, None, "DC", 0);
        }
        self.charge(edges, None).settle(code, None, flag, 0);
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Reads why a peer's mesh did not let the workload answer. Frame by frame: `Limited` and `collect` make futures that
/// rustc 1.95 cannot prove `Send`.
async fn refusal(token: HeaderValue, response: Response<Body>) -> DeliverError {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > REFUSAL_BYTES_MAX {
            text.truncate(REFUSAL_BYTES_MAX);
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    DeliverError::from_wire(token.to_str().unwrap_or_default(), text)
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
fn answered(error: CallError) -> Result<Response<Body>, CallError> {
    if error.is_answer() {
        Ok(sentence(&error))
    } else {
        Err(error)
    }
}

/// An error as status and one sentence of text.
pub(crate) fn sentence(error: &CallError) -> Response<Body> {
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
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{self, service};

    #[test]
    fn a_try_is_pending_until_it_is_dropped_however_it_ended() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let table = testing::table("a")
            .service(service("vote", "voting").build())
            .build();
        let address = "10.42.0.1:8080".parse().expect("an address");
        let endpoint = Arc::clone(table.endpoint(address).expect("the endpoint"));
        let begin = || Pending::begin(&mesh.inner, &endpoint, Instant::now());
        let (cancelled, mut answered) = (begin(), begin());
        answered.record(Duration::from_millis(1), Instant::now());
        assert_eq!(endpoint.load().pending(), 2);
        drop(cancelled);
        assert_eq!(endpoint.load().pending(), 1);
        drop(answered);
        assert_eq!(endpoint.load().pending(), 0);
    }
}
