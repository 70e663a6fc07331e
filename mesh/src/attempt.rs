//! One try of a call: to a workload of this node in memory, to another node over the wire.
//!
//! Whatever comes of it, the endpoint's standing is told: its load of the time that an answer took, without that in which it waited for its
//! caller's request; its health of what failed or was refused. How a call of gRPC ended may stand in its trailers: where a policy judges answers,
//! that is told when they come.
//! And only of what is the endpoint's: who failed by its own request leaves no mark on the endpoint that saw it, or one guest could have a
//! service avoided by all others of its node.
//!
//! Invariants: a try that ends for any reason, cancellation included, is no longer pending at its endpoint.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use weft_call::{Attribute, Failure, FailureKind};

use crate::{
    Blame, Body, CallContext, Datagrams, Inner, SpeaksH2, breaker,
    call::{Call, Head, earlier},
    deliver, failure,
    guards::{ClientAt, Introduced},
    health::Fault,
    judge::{Judged, KeptJudge},
    measure::{self, Holds},
    outbound::Client,
    peek, replay, retry,
    table::{Endpoint, ServiceLabels, Way},
    wire::{self, Addressed, RawLine},
};

/// A response's head, and what keeps the call in flight while its body is read.
pub(crate) struct Answered {
    pub(crate) response: Response<Body>,
    pub(crate) holds: Holds,
    /// How long the workload took for the head, where that is known.
    worked: Option<Duration>,
    /// When the head came.
    pub(crate) at: Instant,
    /// Calls that were made for it were tried as often as they may be.
    pub(crate) spent: bool,
    /// How a call of gRPC ended, where that is known before anything of the answer was passed on.
    pub(crate) grpc: Option<u16>,
    /// For how long the workload wants to be left alone.
    rests: Option<Duration>,
    /// What a workload of this node says of the call.
    pub(crate) attributes: Vec<Attribute>,
}

/// What one try of a call is.
pub(crate) struct Attempt<'t> {
    pub(crate) endpoint: &'t Arc<Endpoint>,
    pub(crate) labels: &'t Arc<ServiceLabels>,
    /// 0 for the first.
    pub(crate) number: u32,
    /// Whether another try could go elsewhere: what it needs is kept.
    pub(crate) has_choice: bool,
}

/// One try counted as pending at its endpoint until dropped. A try of which nothing was told is charged with the time it took, as an
/// answer would have taken longer; unless it waited for its own caller.
pub(crate) struct Pending {
    endpoint: Arc<Endpoint>,
    inner: Arc<Inner>,
    since: Instant,
    /// The request's body, whose sender may be the one who is slow, and when that does not matter any more.
    request: Option<Arc<replay::Shared>>,
    deadline: Option<Instant>,
    is_told: bool,
    /// Who is told how the answer ends.
    judge: Option<KeptJudge>,
}

impl Pending {
    fn begin(inner: &Arc<Inner>, endpoint: &Arc<Endpoint>, since: Instant) -> Self {
        endpoint.load().begin();
        endpoint.health().begin(inner.nanos(since));
        Self {
            endpoint: Arc::clone(endpoint),
            inner: Arc::clone(inner),
            since,
            request: None,
            deadline: None,
            is_told: false,
            judge: None,
        }
    }

    /// How long that took up to `now`, beyond what the caller took to send.
    fn took(&self, now: Instant) -> Duration {
        let sending = self.request.as_ref().map(|request| request.waited());
        now.saturating_duration_since(self.since)
            .saturating_sub(sending.unwrap_or_default())
    }

    /// The head of a response came.
    fn answered(&mut self, now: Instant) {
        self.is_told = true;
        let (began, nanos) = (self.inner.nanos(self.since), self.inner.nanos(now));
        self.endpoint.load().record(self.took(now), nanos);
        self.endpoint.health().answered(began, nanos);
    }

    /// The head of a response came that is no sign of health.
    fn answered_badly(&mut self, now: Instant) {
        self.is_told = true;
        let nanos = self.inner.nanos(now);
        self.endpoint.load().record(self.took(now), nanos);
    }

    /// The answer is over, with this status of gRPC, if any. One that broke off in the midst of its own request says nothing of the endpoint.
    pub(crate) fn ended(&mut self, grpc: Option<u16>, now: Instant) {
        let Some(judge) = self.judge.take() else {
            return;
        };
        let has_all = self.request.as_ref();
        let has_all = has_all.is_none_or(|request| request.is_complete());
        if grpc.is_none() && !has_all {
            return;
        }
        let is_bad = grpc.is_none_or(|status| breaker::is_failure(StatusCode::OK, Some(status)));
        let judged = judge.now();
        let judged = judged.map(|judge| judge.judge(&self.inner, &self.endpoint, is_bad, now));
        let (began, nanos) = (self.inner.nanos(self.since), self.inner.nanos(now));
        match judged {
            Some(Judged::Tripped(fault)) => self.endpoint.health().failed(fault, began, nanos),
            Some(Judged::Good) => self.endpoint.health().answered(began, nanos),
            Some(Judged::Bad) | None => {}
        }
    }

    /// Nobody waits for it any longer, or may.
    fn waited(&mut self, now: Instant) {
        self.is_told = true;
        let nanos = self.inner.nanos(now);
        self.endpoint.load().at_least(self.took(now), nanos);
    }

    /// How long that took says nothing of how long an answer takes.
    fn failed(&mut self, fault: Fault, now: Instant) {
        self.is_told = true;
        let (began, nanos) = (self.inner.nanos(self.since), self.inner.nanos(now));
        self.endpoint.health().failed(fault, began, nanos);
    }

    /// The try says nothing of the endpoint.
    fn forgive(&mut self) {
        self.is_told = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.endpoint.load().end();
        if self.is_told {
            return;
        }
        let now = Instant::now();
        let has_all = self
            .request
            .as_ref()
            .is_none_or(|request| request.is_complete());
        if has_all || self.deadline.is_some_and(|deadline| deadline <= now) {
            self.waited(now);
        }
    }
}

impl Call {
    /// Looks how a call of gRPC ended; whether that is still to come. A rule that has some statuses asked for again has the trailers waited for,
    /// for a moment, unless the server may be waiting for its caller.
    async fn read_status(&self, answered: &mut Answered, attempt: u32) -> bool {
        answered.grpc = measure::grpc_status(answered.response.headers());
        let (status, body) = (answered.response.status(), answered.response.body());
        let is_over = body.is_end_stream() || body.is_whole().is_some();
        if status != StatusCode::OK || answered.grpc.is_some() || is_over {
            return false;
        }
        let request = self.body.counter();
        let has_all = request.is_none_or(|request| request.is_complete());
        if has_all && self.asked().looks_at_grpc(attempt) {
            let response = std::mem::take(&mut answered.response);
            // Boxed: calls that ask for it are few, and all would carry its size.
            (answered.response, answered.grpc) = Box::pin(peek::status(response)).await;
        }
        answered.grpc.is_none()
    }

    /// What a policy makes of an answer of the endpoint, or of its failure.
    fn judged(&self, endpoint: &Endpoint, is_bad: bool, now: Instant) -> Judged {
        match self.judge() {
            None => Judged::Good,
            Some(judge) => judge.judge(&self.inner, endpoint, is_bad, now),
        }
    }

    /// Tries one endpoint, and tells its standing what came of it.
    pub(crate) async fn attempt(
        &self,
        attempt: Attempt<'_>,
        head: &mut Head,
    ) -> Result<Answered, Failure> {
        let endpoint = attempt.endpoint;
        let since = if attempt.number == 0 {
            self.began
        } else {
            Instant::now()
        };
        let mut pending = Pending::begin(&self.inner, endpoint, since);
        pending.request = self.body.counter();
        pending.deadline = earlier(
            self.context.deadline,
            self.try_timeout.and_then(|limit| since.checked_add(limit)),
        );
        let mut trying = pin!(self.once(&attempt, head));
        let outcome = match self.try_timeout {
            Some(limit) => tokio::time::timeout(limit, trying.as_mut())
                .await
                .unwrap_or_else(|_| Err(FailureKind::TryTimeout.into())),
            None => trying.as_mut().await,
        };
        match outcome {
            Ok(mut answered) => {
                let now = answered.at;
                if let Some(worked) = answered.worked {
                    let whole = self.layers + now.saturating_duration_since(self.began);
                    self.inner.metrics.added(
                        self.caller.origin,
                        endpoint.way.transport(),
                        whole.saturating_sub(worked),
                    );
                }
                let is_open = self.grpc && self.read_status(&mut answered, attempt.number).await;
                let refusal = pushed_back(&answered).or_else(|| refusal(&answered.response));
                if let (true, None, Some(judge)) = (is_open, refusal, self.judge()) {
                    // An answer that is none of health yet.
                    pending.answered_badly(now);
                    pending.judge = Some(judge.kept());
                } else {
                    let is_bad = breaker::is_failure(answered.response.status(), answered.grpc);
                    match (self.judged(endpoint, is_bad, now), refusal) {
                        (Judged::Tripped(fault), _) | (_, Some(fault)) => {
                            pending.failed(fault, now);
                        }
                        (Judged::Bad, None) => pending.answered_badly(now),
                        (Judged::Good, None) => pending.answered(now),
                    }
                }
                answered.holds.pending = Some(pending);
                Ok(answered)
            }
            Err(failure) => {
                let failure = self.seen_from_here(failure);
                let now = Instant::now();
                match self.bears(&failure, now) {
                    Bears::Nothing => pending.forgive(),
                    Bears::Time => pending.waited(now),
                    Bears::Fault(Fault::Failed) => match self.judged(endpoint, true, now) {
                        Judged::Tripped(fault) => pending.failed(fault, now),
                        Judged::Bad | Judged::Good => pending.failed(Fault::Failed, now),
                    },
                    Bears::Fault(fault) => pending.failed(fault, now),
                }
                Err(failure)
            }
        }
    }

    /// A codec says that the stream broke where the request's own body did.
    fn seen_from_here(&self, failure: Failure) -> Failure {
        match failure.kind {
            FailureKind::Interrupted | FailureKind::Malformed if self.body.is_broken() => {
                failure::body_broken()
            }
            _ => failure,
        }
    }

    /// What a failed try means for its endpoint.
    fn bears(&self, failure: &Failure, now: Instant) -> Bears {
        let is_over = self
            .context
            .deadline
            .is_some_and(|deadline| deadline <= now);
        match failure.blame {
            // It had no more time than its caller had left, and took at least that.
            _ if failure.kind == FailureKind::Deadline && is_over => Bears::Time,
            // A rule's time for one try was over before the caller had sent its request.
            _ if failure.kind == FailureKind::TryTimeout && self.body.is_waited_for() => {
                Bears::Nothing
            }
            // What a guest makes of half a request is not its fault.
            Blame::Endpoint if !failure.never_processed() && self.body.is_broken() => {
                Bears::Nothing
            }
            Blame::Caller | Blame::Policy => Bears::Nothing,
            Blame::Endpoint if retry::is_of_one_endpoint(failure.kind) => {
                Bears::Fault(Fault::Overloaded {
                    retry_after: failure.retry_after,
                })
            }
            Blame::Endpoint => Bears::Fault(Fault::Failed),
            Blame::Connection => Bears::Fault(Fault::Unreachable),
        }
    }

    async fn once(&self, attempt: &Attempt<'_>, head: &mut Head) -> Result<Answered, Failure> {
        match attempt.endpoint.way {
            Way::Here => self.attempt_here(attempt, head).await,
            Way::Node(node) => self.attempt_node(attempt, node, head.again()).await,
        }
    }

    /// The context of one try: each after the first is a span of its own.
    fn context_of(&self, attempt: u32) -> CallContext {
        let mut context = self.context.clone();
        context.attempt = attempt;
        context.repeated |= attempt > 0;
        if attempt > 0 {
            // The one that whoever tells of the call means, too.
            context.trace = context.trace.map(|trace| trace.of_try(attempt));
        }
        context
    }

    /// Who calls, as far as policies ask for it.
    fn introduced(&self, attempt: &Attempt<'_>, parts: &Parts) -> Option<Introduced> {
        let guards = self.inner.attached.guards();
        if guards.is_empty() {
            return None;
        }
        let of_gateway = parts.extensions.get::<ClientAt>().map(|client| client.0);
        let of_bytes = || parts.extensions.get::<Client>().map(|client| client.ip);
        let of_datagrams = || {
            let datagrams = parts.extensions.get::<Datagrams>();
            datagrams.map(|datagrams| datagrams.client.ip())
        };
        let client = of_gateway.or_else(of_bytes).or_else(of_datagrams);
        Some(Introduced {
            source: guards.source(self.caller.at, client),
            service: attempt.labels.header.clone(),
        })
    }

    /// In memory, on this core.
    async fn attempt_here(
        &self,
        attempt: &Attempt<'_>,
        head: &mut Head,
    ) -> Result<Answered, Failure> {
        let endpoint = attempt.endpoint;
        // Looked up before the request is touched: a pod that left costs nothing.
        let at = self.door(endpoint.address);
        let attached = self
            .inner
            .attached
            .get(at)
            .filter(|attached| {
                attached.identity == endpoint.identity || self.inner.answers_for(&endpoint.identity)
            })
            .ok_or_else(|| Failure::from(FailureKind::NotHere))?;
        let mut parts = match attempt.has_choice {
            true => head.again(),
            false => head.take(),
        };
        let mut context = self.context_of(attempt.number);
        context.port = Some(endpoint.address.port());
        if let Some(introduced) = self.introduced(attempt, &parts) {
            introduced.mark(&mut parts.extensions);
        }
        let request = Request::from_parts(parts, self.body.reader());
        let door = self.table.door(at).cloned();
        let delivered = deliver::deliver(&self.inner, door, &attached, request, context).await?;
        Ok(Answered {
            response: delivered.response,
            holds: Holds {
                admitted: delivered.admitted,
                ..Holds::default()
            },
            worked: Some(delivered.worked),
            at: delivered.answered,
            spent: delivered.spent,
            grpc: None,
            rests: delivered.rests,
            attributes: delivered.attributes,
        })
    }

    /// Over the wire.
    async fn attempt_node(
        &self,
        attempt: &Attempt<'_>,
        node: SocketAddr,
        mut parts: Parts,
    ) -> Result<Answered, Failure> {
        let endpoint = attempt.endpoint;
        let context = self.context_of(attempt.number);
        let to = Addressed {
            destination: &endpoint.header,
            service: &attempt.labels.header,
            source: &self.caller.source_line,
        };
        wire::encode_request(&to, &context, Instant::now(), &mut parts.headers);
        if let Some(raw) = RawLine::of(&parts.extensions) {
            raw.encode(&mut parts.headers);
        }
        if parts.extensions.get::<SpeaksH2>().is_some() {
            wire::encode_speaks_h2(&mut parts.headers);
        }
        if let Some(introduced) = self.introduced(attempt, &parts) {
            wire::encode_from(&introduced.source, &mut parts.headers);
        }
        parts.version = http::Version::HTTP_2;
        parts.extensions.clear();
        let request = Request::from_parts(parts, self.body.reader());
        let (response, stream) = self
            .inner
            .transport
            .send(
                self.caller.identity(),
                &self.caller.spiffe_id,
                endpoint,
                node,
                request,
            )
            .await?;
        let mut response = wire::decode_failure(response).await?;
        let spent = wire::is_spent(response.headers());
        let rests = wire::rest(response.headers());
        let worked = wire::take_worked(response.headers_mut());
        Ok(Answered {
            response,
            holds: Holds {
                stream: Some(stream),
                ..Holds::default()
            },
            worked,
            at: Instant::now(),
            spent,
            grpc: None,
            rests,
            // Told at its own node.
            attributes: Vec::new(),
        })
    }
}

/// What a failed try means for its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bears {
    Nothing,
    /// It took that long.
    Time,
    /// It is ejected for it.
    Fault(Fault),
}

/// What a workload says of itself beside its answer, whatever that is.
fn pushed_back(answered: &Answered) -> Option<Fault> {
    let retry_after = Some(answered.rests?);
    Some(Fault::Overloaded { retry_after })
}

/// What an answer that turns the call away says of its endpoint.
fn refusal(response: &Response<Body>) -> Option<Fault> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Some(Fault::Overloaded {
                retry_after: retry_after(response.headers()),
            })
        }
        _ => None,
    }
}

/// `Retry-After` in seconds; a date, which hardly anybody sends, is not read.
fn retry_after(lines: &HeaderMap) -> Option<Duration> {
    let seconds = lines
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::{
        BoxError, Mesh,
        table::testing::{self, service},
    };

    struct World {
        mesh: Mesh,
        endpoint: Arc<Endpoint>,
    }

    impl World {
        fn new() -> Self {
            let mesh = Mesh::builder("a", "cluster.local").build();
            let table = testing::table("a")
                .service(service("vote", "voting").build())
                .build();
            let address = "10.42.0.1:8080".parse().expect("an address");
            let endpoint = Arc::clone(table.endpoint(address).expect("the endpoint"));
            Self { mesh, endpoint }
        }

        fn begin(&self, since: Instant) -> Pending {
            Pending::begin(&self.mesh.inner, &self.endpoint, since)
        }

        fn cost(&self) -> f32 {
            let now = self.mesh.inner.nanos(Instant::now());
            self.endpoint.load().cost(now)
        }
    }

    #[test]
    fn a_try_is_pending_until_it_is_dropped_however_it_ended() {
        let world = World::new();
        let now = Instant::now();
        let (cancelled, mut answered) = (world.begin(now), world.begin(now));
        answered.answered(now);
        assert_eq!(world.endpoint.load().pending(), 2);
        drop(cancelled);
        assert_eq!(world.endpoint.load().pending(), 1);
        drop(answered);
        assert_eq!(world.endpoint.load().pending(), 0);
    }

    #[test]
    fn whoever_lets_go_in_the_midst_of_its_own_request_was_slow_itself() {
        let never = futures::stream::pending::<Result<Frame<Bytes>, BoxError>>();
        let unsent = replay::Source::new(Body::new(StreamBody::new(never)), None);
        let world = World::new();
        let fresh = world.cost();
        let since = Instant::now()
            .checked_sub(Duration::from_secs(20))
            .expect("the machine runs for longer");
        let mut uploading = world.begin(since);
        uploading.request = unsent.counter();
        drop(uploading);
        assert!(world.cost() <= fresh, "twenty seconds of its caller's");

        // The time that the caller had is over: who was waited for is not known, and the callee is not cleared by it.
        let mut late = world.begin(since);
        late.request = None;
        late.deadline = Some(since);
        drop(late);
        assert!(world.cost() > fresh, "twenty seconds of the callee's");
    }

    /// Whoever uploaded over a slow line had the endpoint that took it avoided by all others.
    #[tokio::test]
    async fn what_a_caller_takes_to_send_is_not_its_endpoints_time() {
        let (part, parts) = tokio::sync::oneshot::channel();
        let parts = futures::stream::once(async move {
            let part: Bytes = parts.await?;
            Ok::<_, BoxError>(Frame::data(part))
        });
        let upload = replay::Source::new(Body::new(StreamBody::new(parts)), None);
        let world = World::new();
        let (fresh, since) = (world.cost(), Instant::now());
        let mut uploading = world.begin(since);
        uploading.request = upload.counter();
        let sending = async {
            // More than is believed of any endpoint.
            tokio::time::sleep(Duration::from_millis(50)).await;
            part.send(Bytes::from_static(b"late")).expect("a reader");
        };
        let (read, ()) = tokio::join!(upload.reader().collect(), sending);
        assert_eq!(read.expect("a body").to_bytes(), "late");
        let sent = since + upload.counter().expect("a body").waited();
        uploading.answered(sent);
        drop(uploading);
        assert!(world.cost() <= fresh, "it took no time of its own");

        // Of a request that was there, the same time is the endpoint's.
        let mut working = world.begin(since);
        working.answered(sent);
        drop(working);
        assert!(world.cost() > fresh);
    }
}
