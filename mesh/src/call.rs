//! One call from its first try to its last: pick an endpoint, try it, and decide whether to try again.
//!
//! All decisions are pure calls over one [`Table`]; only a call that every known endpoint failed looks at a newer one.
//!
//! What a policy says of the calls to a Service (`weft_gateway::Resilience`) holds where a rule of a route says nothing; of calls that are
//! no HTTP, and of those to a pod by its address, nobody says anything.
//!
//! Invariants: a request is sent again only as `retry.rs` and `budget.rs` allow; every call is charged exactly once, whatever becomes of
//! it: where its last try went, or to nobody.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, Response, request::Parts};
use http_body::Body as _;
use smallvec::{SmallVec, smallvec};
use weft_call::{CallOptions, Failure, FailureKind, Spent, baggage};
use weft_gateway::{Resilience, Retry};
use weft_turns::Tenant;

use crate::{
    Body, CallContext, DEPTH_MAX, Datagrams, Inner, Raw, TraceContext,
    activity::Ongoing,
    affinity,
    attempt::{Answered, Attempt},
    breaker,
    caller::{Callee, Caller, NO_SERVICE},
    failure,
    fault::{self, Injected},
    headers, hold,
    judge::Judge,
    measure::{self, Charge, RequestBytes},
    metrics::{Edge, Origin},
    outbound::{Arrival, Client, OnlyHere},
    replay,
    resolve::Target,
    retry::{self, Refusal, Verdict},
    route::{AnsweredBy, Stays},
    sighting::Seen,
    table::{Endpoint, Port, Service, ServiceLabels, Table},
    transport::STREAM_WINDOW_BYTES,
};

/// What a call without a response says of the callee of its last try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It failed, or was not reached.
    Failed,
    /// It was still at work when its caller stopped waiting.
    GivenUp,
}

/// The head of a request, for as many tries as there are.
pub(crate) struct Head {
    parts: Parts,
    is_taken: bool,
}

impl Default for Head {
    /// Of no request.
    fn default() -> Self {
        Self {
            parts: Request::new(()).into_parts().0,
            is_taken: true,
        }
    }
}

impl Head {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            is_taken: false,
        }
    }

    /// A copy; there may be further tries.
    pub(crate) fn again(&self) -> Parts {
        self.parts.clone()
    }

    /// The head itself. There is no further try.
    pub(crate) fn take(&mut self) -> Parts {
        std::mem::take(self).parts
    }

    fn is_taken(&self) -> bool {
        self.is_taken
    }
}

/// What a call is for; a service can be looked up again in a newer table.
pub(crate) enum Destination {
    Service { service: Arc<Service>, port: u16 },
    Pod(Arc<Endpoint>),
}

impl Destination {
    pub(crate) fn of(target: Target<'_>) -> Self {
        match target {
            Target::Service { service, port } => Destination::Service {
                service: Arc::clone(service),
                port,
            },
            Target::Pod(endpoint) => Destination::Pod(Arc::clone(endpoint)),
            Target::Address(endpoint) => Destination::Pod(endpoint),
        }
    }

    fn name(&self) -> String {
        match self {
            Destination::Service { service, .. } => service.display_name().to_owned(),
            Destination::Pod(endpoint) => endpoint.pod.clone(),
        }
    }

    fn labels(&self) -> &Arc<ServiceLabels> {
        match self {
            Destination::Service { service, .. } => service.labels(),
            Destination::Pod(_) => &NO_SERVICE,
        }
    }
}

/// The pause before the first further try where a rule says none, and the longest.
const BACKOFF_USUAL: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

type Edges = SmallVec<[Arc<Edge>; 2]>;

/// One call and everything its tries share. It is large, and therefore boxed where it is made: each layer would move it.
pub(crate) struct Call {
    /// Until it is tried.
    head: Option<Head>,
    pub(crate) inner: Arc<Inner>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) table: Arc<Table>,
    destination: Destination,
    pub(crate) method: Method,
    /// The longest that one try may take.
    pub(crate) try_timeout: Option<Duration>,
    /// What its rule says of further tries, or its Service's policy.
    retry: Option<Retry>,
    /// The same of a second try beside the first.
    pub(crate) hedge_after: Option<Duration>,
    /// What policies say of calls to its Service.
    pub(crate) resilience: Option<Arc<Resilience>>,
    /// What its caller asks for.
    pub(crate) options: CallOptions,
    /// Where it is told that it was tried as often as it may be.
    above: Option<Spent>,
    injected: Option<Injected>,
    pub(crate) context: CallContext,
    pub(crate) started: Instant,
    /// When the first try begins: a turn may have to be waited for, and a workload that made a call may do something else before it waits for
    /// the answer. Neither is the endpoint's time.
    pub(crate) began: Instant,
    /// What the layers before this one took of a call that is not waited for at once.
    pub(crate) layers: Duration,
    turn: Option<Tenant>,
    pub(crate) grpc: bool,
    /// It carries datagrams.
    datagrams: bool,
    /// It is a connection, and no request.
    tcp: bool,
    /// Set where somebody watches it.
    seen: Option<Arc<Seen>>,
    pub(crate) client: Option<Client>,
    /// This node's endpoints answer it, or nobody.
    only_here: bool,
    /// Where its session has it go, and that its answer says where it came from.
    pub(crate) stays: Option<Stays>,
    /// Size of the request where it is known beforehand.
    request_bytes: Option<u64>,
    /// What of its body may be in memory while nobody reads it.
    held_bytes: u64,
    pub(crate) body: replay::Source,
    /// Where its last try went: the caller's side, then the callee's if that is here.
    edges: Option<Edges>,
    is_charged: bool,
    /// Among the calls of its service.
    ongoing: Option<Ongoing>,
}

impl Drop for Call {
    /// A caller that goes away before there is a response, as a guest with a timeout of its own does: Envoy's "downstream
    /// connection termination".
    fn drop(&mut self) {
        self.charge_failure(0, "DC", Last::GivenUp);
    }
}

impl Call {
    /// A call to `destination` that begins now.
    ///
    /// # Errors
    /// When the request cannot be passed on as it is.
    pub(crate) fn begin(
        inner: &Arc<Inner>,
        caller: &Arc<Caller>,
        table: &Arc<Table>,
        destination: Destination,
        timeouts: Timeouts,
        arrival: Arrival,
    ) -> Result<Box<Self>, Failure> {
        let Arrival {
            request,
            context,
            at: started,
            turn,
        } = arrival;
        let declared = headers::content_length(request.headers())
            .map_err(|_| failure::bad_request("its content-length is not one number"))?;
        let (mut head, body) = request.into_parts();
        let mut options: CallOptions = head.extensions.remove().unwrap_or_default();
        options.idempotent |= head.headers.contains_key(headers::IDEMPOTENCY_KEY);
        let above = context.spent.clone();
        let parent = Seen::parent(inner, &context, &head.headers);
        let mut context = called_by(inner, caller, context, &head.headers);
        let until =
            |timeout: Option<Duration>| timeout.and_then(|timeout| started.checked_add(timeout));
        let what = (&head.method, &head.uri);
        let seen = Seen::of(inner, what, context.trace.as_ref(), parent, started);
        let mut ongoing = None;
        let mut resilience = None;
        if let Destination::Service { service, .. } = &destination {
            if !context.repeated {
                service.budget().earn(inner.nanos(started));
            }
            ongoing = Some(service.activity().begin(started));
            let is_http = head.extensions.get::<Raw>().is_none();
            resilience = is_http.then(|| Arc::clone(service.resilience()));
        }
        let says = resilience.as_deref();
        let request_timeout = says.and_then(|says| says.request_timeout);
        let attempt_timeout = says.and_then(|says| says.attempt_timeout);
        let deadline = until(timeouts.request.or(request_timeout));
        context.deadline = earlier(context.deadline, deadline);
        let grpc = measure::is_grpc(&head.headers);
        if grpc {
            let deadline = until(headers::grpc_timeout(&head.headers));
            context.deadline = earlier(context.deadline, deadline);
        }
        let faults = says.map_or(&[][..], |says| says.faults.as_slice());
        let injected = match faults {
            [] => None,
            faults => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.map_or(0, |since| since.as_secs());
                let now = i64::try_from(now).unwrap_or(i64::MAX);
                fault::choose(
                    faults,
                    caller.identity(),
                    &head.headers,
                    now,
                    &mut rand::rng(),
                )
            }
        };
        let mut call = Box::new(Self {
            inner: Arc::clone(inner),
            caller: Arc::clone(caller),
            table: Arc::clone(table),
            destination,
            method: head.method.clone(),
            try_timeout: timeouts.attempt.or(attempt_timeout),
            retry: timeouts
                .retry
                .or_else(|| resilience.as_ref().and_then(|says| says.retry.clone())),
            hedge_after: timeouts
                .hedge_after
                .or_else(|| resilience.as_ref().and_then(|says| says.hedge_after)),
            options,
            above,
            injected,
            resilience,
            context,
            started,
            began: started,
            layers: Duration::ZERO,
            turn,
            grpc,
            datagrams: head.extensions.get::<Datagrams>().is_some(),
            tcp: head.extensions.get::<Raw>().is_some(),
            seen,
            client: head.extensions.get::<Client>().copied(),
            only_here: head.extensions.get::<OnlyHere>().is_some(),
            stays: head.extensions.get::<Stays>().copied(),
            request_bytes: body.size_hint().exact(),
            held_bytes: body.is_whole().unwrap_or_else(|| {
                let window = u64::from(STREAM_WINDOW_BYTES);
                body.size_hint()
                    .exact()
                    .map_or(window, |size| size.min(window))
            }),
            body: match grpc {
                true => replay::Source::new(body, declared).of_messages(),
                false => replay::Source::new(body, declared),
            },
            edges: None,
            is_charged: false,
            ongoing,
            head: Some(Head::new(head)),
        });
        if caller.origin == Origin::Workload {
            call.layers = started.elapsed();
        }
        Ok(call)
    }

    /// Tries endpoints until one answers, the deadline passes or `retry.rs` says no.
    pub(crate) async fn run(&mut self) -> Result<Response<Body>, Failure> {
        let deadline = self.context.deadline;
        let injected = self.injected.take();
        let answered = {
            // Where it is, it stays: it is as large as all that it waits for.
            let mut tries = pin!(async {
                if let Some(injected) = injected
                    && let Some(answer) = self.spoil(injected).await
                {
                    return Ok(answer);
                }
                self.tries().await
            });
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), tries.as_mut())
                    .await
                    .unwrap_or_else(|_| Err((failure::deadline(), Last::GivenUp))),
                None => tries.as_mut().await,
            }
        };
        answered.map_err(|(failure, last)| {
            let status = failure.status().as_u16();
            self.charge_failure(status, failure::flag(failure.kind), last);
            failure
        })
    }

    /// Does to the call what a policy has done to it; its answer, if that is one.
    async fn spoil(&mut self, injected: Injected) -> Option<Response<Body>> {
        Seen::spoiled(&mut self.seen, injected);
        if let Some(delay) = injected.delay {
            self.acted("fault-delay");
            tokio::time::sleep(delay).await;
            self.began = Instant::now();
        }
        let status = injected.abort?;
        self.acted("fault-abort");
        // Envoy's flag of what its fault filter answers.
        self.charge_failure(status.as_u16(), "FI", Last::Failed);
        Some(fault::aborted(status))
    }

    /// Counts what a policy does to calls of its Service.
    pub(crate) fn acted(&self, action: &'static str) {
        self.inner.metrics.acted(self.destination.labels(), action);
    }

    /// Retry, with its budget, around pick around attempt.
    async fn tries(&mut self) -> Result<Response<Body>, (Failure, Last)> {
        let waited_for_turn = match self.turn {
            Some(tenant) => weft_turns::request(tenant).await,
            None => false,
        };
        if waited_for_turn || self.caller.origin == Origin::Workload {
            self.began = Instant::now();
        }
        let mut head = self.head.take().unwrap_or_default();
        let mut table = Arc::clone(&self.table);
        let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        let mut attempt = 0;
        let mut waited = false;
        let mut held_until = None;
        loop {
            let (endpoint, has_choice) = match self.pick(&table, &tried) {
                Some(found) => found,
                None => {
                    let failure = match self.hold(&table, &mut held_until).await {
                        Ok(Some(newer)) => {
                            table = newer;
                            tried.clear();
                            // Nobody was at work meanwhile.
                            self.began = Instant::now();
                            continue;
                        }
                        Ok(None) => self.nobody(&table),
                        Err(failure) => failure,
                    };
                    self.edges = None;
                    return Err((failure, Last::Failed));
                }
            };
            let labels = self.destination.labels();
            let callee = Callee::at(&endpoint);
            let edges = self
                .caller
                .edges(&self.inner, table.generation(), &callee, labels);
            if self.tcp && attempt == 0 {
                for edge in &edges {
                    edge.opened.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.edges = Some(edges);

            let this = Attempt {
                endpoint: &endpoint,
                labels,
                number: attempt,
                has_choice: has_choice || self.asked().may_go_on(attempt),
            };
            let (endpoint, outcome) = match self.hedges_after(attempt, has_choice) {
                None => {
                    let outcome = self.attempt(this, &mut head).await;
                    (endpoint, outcome)
                }
                Some(after) => {
                    let hedged = Box::pin(self.hedged(after, this, &head, &table)).await;
                    if let Some(second) = hedged.second {
                        Seen::hedged(&mut self.seen, second.address, after, hedged.is_seconds);
                        tried.push(endpoint.address);
                        attempt += 1;
                        if hedged.is_seconds {
                            let callee = Callee::at(&second);
                            let generation = table.generation();
                            let edges = self.caller.edges(&self.inner, generation, &callee, labels);
                            self.edges = Some(edges);
                            self.acted("hedge-won");
                        }
                        // Whoever it was that answered, the other one was asked, too.
                        let answered = match hedged.is_seconds {
                            true => second,
                            false => {
                                tried.push(second.address);
                                endpoint
                            }
                        };
                        (answered, hedged.outcome)
                    } else {
                        (endpoint, hedged.outcome)
                    }
                }
            };
            let failure = match outcome {
                Ok(answered) if self.goes_again(&answered, attempt, &head) => {
                    tried.push(endpoint.address);
                    self.inner.metrics.retry("answered");
                    Seen::retried(&mut self.seen, endpoint.address, "answered");
                    drop(answered);
                    self.pause(attempt).await;
                    attempt += 1;
                    continue;
                }
                Ok(mut answered) => {
                    self.is_charged = true;
                    Seen::described(&mut self.seen, std::mem::take(&mut answered.attributes));
                    if self.stays.is_some() {
                        let by = AnsweredBy::of(&endpoint);
                        answered.response.extensions_mut().insert(by);
                    }
                    if let Some(ongoing) = self.ongoing.take() {
                        ongoing.answered(answered.at.saturating_duration_since(self.started));
                        answered.holds.ongoing = Some(ongoing);
                    }
                    let edges = self.edges.take().unwrap_or_default();
                    let charge = self.charge(edges, Some(&endpoint));
                    let at = answered.at;
                    return Ok(measure::finish(
                        answered.response,
                        charge,
                        answered.holds,
                        at,
                    ));
                }
                Err(failure) => failure,
            };
            tried.push(endpoint.address);
            let elsewhere = self.pick_untried(&table, &tried).is_some();
            let replayable = !head.is_taken() && self.body.is_replayable();
            let mut verdict = retry::decide(
                &failure,
                &self.method,
                attempt,
                replayable,
                elsewhere,
                self.asked(),
            );
            let is_free = failure.never_processed() && self.has_well(&table, &tried);
            if verdict == Verdict::Retry && !is_free && !self.may_retry() {
                verdict = Verdict::GiveUp(Refusal::OverBudget);
            }
            tracing::debug!(
                to = %endpoint.address, pod = %endpoint.pod, attempt, reason = %failure.kind,
                why = failure.detail.as_deref(), ?verdict, "try failed"
            );
            if let Verdict::GiveUp(why) = verdict {
                if why == Refusal::OverBudget || attempt > 0 {
                    self.tell_above();
                }
                let last = match failure.kind {
                    FailureKind::TryTimeout | FailureKind::BodyBroken => Last::GivenUp,
                    _ => Last::Failed,
                };
                let failure = failure::given_up(failure, &self.destination.name(), attempt + 1);
                return Err((failure, last));
            }
            self.inner.metrics.retry(failure.kind.as_str());
            Seen::retried(&mut self.seen, endpoint.address, failure.kind.as_str());
            if self.retry.is_some() && !failure.never_processed() {
                self.pause(attempt).await;
            }
            attempt += 1;
            if !waited && !elsewhere && failure.never_processed() {
                // Every endpoint we know failed the call: perhaps the news of their going is on its way.
                waited = true;
                if let Some(newer) = self.newer_table(&table).await {
                    table = newer;
                }
            }
        }
    }

    /// Waits until the service has an endpoint again, where a call has one made (`hold.rs`). A call that would be refused by whoever that is,
    /// or that is for this node's endpoints alone, wakes nobody.
    async fn hold(
        &self,
        table: &Table,
        until: &mut Option<Instant>,
    ) -> Result<Option<Arc<Table>>, Failure> {
        let Destination::Service { service, port } = &self.destination else {
            return Ok(None);
        };
        if self.is_bound_here() || self.context.depth >= DEPTH_MAX {
            return Ok(None);
        }
        let until = *until.get_or_insert_with(|| Instant::now() + hold::HELD_TIME_MAX);
        let (inner, service) = (&self.inner, (service.labels(), *port));
        hold::hold(inner, table, service, self.held_bytes, until).await
    }

    /// Why nobody is called.
    fn nobody(&self, table: &Table) -> Failure {
        let service = self.destination.name();
        match self.port(table).and_then(Port::outside) {
            Some(address) => failure::denied(&format!("{address}, the endpoint of {service},")),
            None => Failure::new(
                FailureKind::NoEndpoints,
                format!("service {service} has no ready endpoint"),
            ),
        }
    }

    /// An endpoint not tried yet, else any: with one endpoint, trying it again beats giving up. The flag says
    /// whether another try could go elsewhere.
    fn pick(&self, table: &Table, tried: &[SocketAddr]) -> Option<(Arc<Endpoint>, bool)> {
        if let Destination::Pod(endpoint) = &self.destination {
            return Some((Arc::clone(endpoint), false));
        }
        let port = self.port(table)?;
        if let (Some(Stays { at: Some(at) }), true) = (self.stays, tried.is_empty())
            && let Some(endpoint) = port.endpoint(at)
        {
            return Some((Arc::clone(endpoint), port.has_choice()));
        }
        let now = self.inner.nanos(self.began);
        let mut rng = rand::rng();
        if let Some(client) = self.client {
            let endpoint = self.pick_for(client, port, tried, now)?;
            return Some((endpoint, port.has_choice() && !self.is_bound_here()));
        }
        if self.only_here {
            let endpoint = port.pick_near(tried, now, &mut rng);
            let endpoint = endpoint.or_else(|| port.pick_near(&[], now, &mut rng))?;
            return Some((Arc::clone(endpoint), port.has_choice_near()));
        }
        if let Some(endpoint) = self
            .options
            .key
            .and_then(|key| port.pick_by(key, tried, now))
        {
            return Some((Arc::clone(endpoint), port.has_choice()));
        }
        let endpoint = port
            .pick(tried, now, &mut rng)
            .or_else(|| port.pick(&[], now, &mut rng))?;
        Some((Arc::clone(endpoint), port.has_choice()))
    }

    /// Whether it is for this node's endpoints alone.
    fn is_bound_here(&self) -> bool {
        self.only_here || self.client.is_some_and(|client| client.only_here)
    }

    pub(crate) fn asked(&self) -> retry::Asked<'_> {
        retry::Asked {
            rule: self.retry.as_ref(),
            keyed: self.options.idempotent,
            once: self.options.once,
        }
    }

    /// Whether an answer is not passed on, but asked for again.
    fn goes_again(&self, answered: &Answered, attempt: u32, head: &Head) -> bool {
        let (asked, status) = (self.asked(), answered.response.status());
        let grpc = answered.grpc;
        let is_listed = asked.lists(status) || grpc.is_some_and(|grpc| asked.lists_grpc(grpc));
        if !is_listed && !breaker::is_failure(status, grpc) {
            return false;
        }
        let replayable = !head.is_taken() && self.body.is_replayable();
        let wants = asked.wants_again(status, &self.method, attempt, replayable)
            || grpc.is_some_and(|grpc| asked.wants_grpc_again(grpc, attempt, replayable));
        if wants && !answered.spent && self.may_retry() {
            return true;
        }
        if wants && answered.spent {
            self.acted("retry-spent");
        }
        // Whoever called it would only have all of that tried again.
        if wants || answered.spent || attempt > 0 {
            self.tell_above();
        }
        false
    }

    fn tell_above(&self) {
        if let Some(above) = &self.above {
            above.tell();
        }
    }

    /// Who judges the answers of endpoints, where a policy does.
    pub(crate) fn judge(&self) -> Option<Judge<'_>> {
        let resilience = self.resilience.as_ref()?;
        let Destination::Service { service, port } = &self.destination else {
            return None;
        };
        Judge::of(service, *port, resilience)
    }

    /// The pause before a try that a rule asks for: twice as long each time, and within that by chance.
    async fn pause(&self, attempt: u32) {
        let least = self.retry.as_ref().and_then(|retry| retry.backoff);
        let first = least.unwrap_or(BACKOFF_USUAL);
        let longest = first
            .saturating_mul(1 << attempt.min(4))
            .min(BACKOFF_MAX.max(first));
        let share = rand::random_range(0.5..=1.0_f64);
        tokio::time::sleep(longest.mul_f64(share).max(least.unwrap_or_default())).await;
    }

    /// Where the pod that has an endpoint takes this call.
    pub(crate) fn door(&self, endpoint: SocketAddr) -> SocketAddr {
        match self.datagrams {
            true => Datagrams::door(endpoint),
            false => endpoint,
        }
    }

    /// The endpoint for a client that is known: the one where it was last, if the service wants that.
    fn pick_for(
        &self,
        client: Client,
        port: &Port,
        tried: &[SocketAddr],
        now: u64,
    ) -> Option<Arc<Endpoint>> {
        let mut rng = rand::rng();
        let mut pick = |tried: &[SocketAddr]| match self.is_bound_here() {
            true => port.pick_near(tried, now, &mut rng).cloned(),
            // As kube-proxy has it, connections go everywhere.
            false => port.pick_anywhere(tried, now, &mut rng).cloned(),
        };
        let Destination::Service {
            service,
            port: number,
        } = &self.destination
        else {
            return pick(tried);
        };
        let Some(time) = service.outside().affinity else {
            return pick(tried).or_else(|| pick(&[]));
        };
        let who = affinity::Client {
            service: Arc::clone(service.labels()),
            port: *number,
            ip: client.ip,
        };
        let affinity = &self.inner.affinity;
        let last = affinity.last(&who, self.began);
        let last = last.filter(|last| !tried.contains(last));
        let last = last.and_then(|last| port.endpoint(last).cloned());
        let endpoint = last.or_else(|| pick(tried)).or_else(|| pick(&[]))?;
        affinity.keep(who, endpoint.address, self.began, time);
        Some(endpoint)
    }

    /// Takes a retry from the service's budget. A pod that is called by its address has none, and is tried again where it is. What is made
    /// for a further try is not tried again itself.
    pub(crate) fn may_retry(&self) -> bool {
        let may = match &self.destination {
            _ if self.context.repeated => false,
            Destination::Service { service, .. } => {
                let now = self.inner.nanos(Instant::now());
                service.budget().take(now)
            }
            Destination::Pod(_) => true,
        };
        if !may {
            self.acted("retry-refused");
        }
        may
    }

    /// Whether an endpoint is left that can be called.
    fn has_well(&self, table: &Table, tried: &[SocketAddr]) -> bool {
        let now = self.inner.nanos(Instant::now());
        let port = self.port(table);
        port.is_some_and(|port| port.has_well(tried, now))
    }

    fn pick_untried(&self, table: &Table, tried: &[SocketAddr]) -> Option<()> {
        let now = self.inner.nanos(self.began);
        let port = self.port(table).filter(|port| !port.is_empty())?;
        let mut rng = rand::rng();
        let found = match self.only_here {
            true => port.pick_near(tried, now, &mut rng),
            false => port.pick(tried, now, &mut rng),
        };
        found.map(|_| ())
    }

    pub(crate) fn port<'t>(&'t self, table: &'t Table) -> Option<&'t Port> {
        let Destination::Service { service, port } = &self.destination else {
            return None;
        };
        if table.generation() == self.table.generation() {
            return service.port(*port);
        }
        let labels = service.labels();
        table.service(&labels.namespace, &labels.name)?.port(*port)
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

    fn charge(&self, edges: Edges, endpoint: Option<&Endpoint>) -> Charge {
        Charge {
            edges,
            started: self.started,
            grpc: self.grpc,
            // What is counted has the number of messages, too.
            request_bytes: match (
                self.request_bytes.filter(|_| !self.grpc),
                self.body.counter(),
            ) {
                (Some(bytes), _) => RequestBytes::Known(bytes),
                (None, Some(counter)) => RequestBytes::Counted(counter),
                (None, None) => RequestBytes::Known(0),
            },
            by_transport: endpoint
                .map(|endpoint| (Arc::clone(&self.inner), endpoint.way.transport())),
            tcp: self.tcp,
            seen: self.seen.clone(),
            activity: match &self.destination {
                Destination::Service { service, .. } => Some(Arc::clone(service.activity())),
                Destination::Pod(_) => None,
            },
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
            smallvec![self.caller.edge_to_nobody(&self.inner, labels)]
        });
        if last == Last::GivenUp && edges.len() > 1 {
            let on_its_side = edges.drain(1..).collect();
            self.charge(on_its_side, None).settle(0, None, "DC", 0);
        }
        self.charge(edges, None).settle(code, None, flag, 0);
    }
}

/// How long a call may take and how often it may be tried, as its rule says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeouts {
    pub(crate) request: Option<Duration>,
    pub(crate) attempt: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    pub(crate) hedge_after: Option<Duration>,
}

/// The context of a call that `caller` makes while it serves the one of `context`. A workload may have joined a trace itself, as `lines`
/// of its request say; otherwise its call continues the one that it serves.
pub(crate) fn called_by(
    inner: &Inner,
    caller: &Caller,
    context: CallContext,
    lines: &http::HeaderMap,
) -> CallContext {
    let sampling = &inner.sampling;
    let trace = match TraceContext::from_headers(lines).or(context.trace) {
        Some(parent) => {
            let records = sampling.records(parent.trace_id, Some(parent.is_recorded()));
            parent.child(rand::random()).recorded(records)
        }
        None => {
            let root = TraceContext::root(rand::random(), rand::random());
            let records = sampling.records(root.trace_id, None);
            root.recorded(records)
        }
    };
    CallContext {
        peer: Some(Arc::clone(&caller.peer)),
        deadline: context.deadline,
        trace: Some(trace),
        depth: context.depth.saturating_add(1),
        // What is made for a further try is part of it.
        repeated: context.repeated || context.attempt > 0,
        priority: match headers::priority(lines) {
            Some(said) => context.priority.lowered_to(said),
            None => context.priority,
        },
        attempt: 0,
        // Of the call that it serves.
        outside: false,
        port: None,
        spent: None,
        // What applications say of a call goes on to those that come of it, unless the caller says something itself.
        baggage: baggage(lines).or(context.baggage),
    }
}

pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
