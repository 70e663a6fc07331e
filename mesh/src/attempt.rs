//! One try of a call: to a workload of this node in memory, to another node over the wire.
//!
//! Whatever comes of it, the endpoint's estimate is told, and only of what is the endpoint's: who failed by its own request leaves no
//! mark on the endpoint that saw it, or one guest could have a service avoided by all others of its node.
//!
//! Invariants: a try that ends for any reason, cancellation included, is no longer pending at its endpoint.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;

use crate::{
    Blame, Body, CallContext, DeliverError, Inner, TransportError, balance, deliver, headers,
    inbound::worked,
    measure::Holds,
    outbound::{Call, earlier},
    replay,
    retry::Failure,
    table::{Endpoint, ServiceLabels, Way},
};

/// Text of a peer's refusal that is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// A response head, with what keeps the call in flight while the body is read, and how long the workload took for the
/// head where that is known.
pub(crate) type Answer = (Response<Body>, Holds, Option<Duration>);

/// One try counted as pending at its endpoint until dropped. A try that never learned its latency is charged with
/// the time it took, as it was at least that slow; unless it waited for its own caller.
pub(crate) struct Pending {
    endpoint: Arc<Endpoint>,
    inner: Arc<Inner>,
    since: Instant,
    /// The request's body, while its sender may be the one who is slow, and when that does not matter any more.
    request: Option<Arc<replay::Shared>>,
    deadline: Option<Instant>,
    recorded: bool,
}

impl Pending {
    fn begin(inner: &Arc<Inner>, endpoint: &Arc<Endpoint>, since: Instant) -> Self {
        endpoint.load().begin();
        Self {
            endpoint: Arc::clone(endpoint),
            inner: Arc::clone(inner),
            since,
            request: None,
            deadline: None,
            recorded: false,
        }
    }

    /// The head of a response came, or the try failed: `latency` is what the balancer should believe.
    fn record(&mut self, latency: Duration, now: Instant) {
        self.recorded = true;
        self.endpoint.load().record(latency, self.inner.nanos(now));
    }

    /// The try says nothing of the endpoint.
    fn forgive(&mut self) {
        self.recorded = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.endpoint.load().end();
        if self.recorded {
            return;
        }
        let now = Instant::now();
        let has_all = self
            .request
            .as_ref()
            .is_none_or(|request| request.is_complete());
        if has_all || self.deadline.is_some_and(|deadline| deadline <= now) {
            self.record(now.saturating_duration_since(self.since), now);
        }
    }
}

impl Call {
    /// Tries one endpoint, and tells its load what came of it.
    pub(crate) async fn attempt(
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
        pending.request = self.body.counter();
        pending.deadline = earlier(
            self.context.deadline,
            self.try_timeout.and_then(|limit| since.checked_add(limit)),
        );
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
                let failure = self.seen_from_here(failure);
                match self.blame(&failure, now) {
                    Bears::Nothing => pending.forgive(),
                    Bears::Time => pending.record(latency, now),
                    Bears::Penalty => pending.record(latency.max(balance::PENALTY), now),
                    Bears::Ejection => {
                        pending.record(latency.max(balance::PENALTY), now);
                        endpoint.load().eject(self.inner.nanos(now));
                    }
                }
                Err(failure)
            }
        }
    }

    /// A codec says that the stream broke where the request's own body did.
    fn seen_from_here(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Transport(
                TransportError::Broken { .. } | TransportError::Malformed { .. },
            ) if self.body.is_broken() => Failure::RequestBroken,
            other => other,
        }
    }

    /// What a failed try means for its endpoint.
    fn blame(&self, failure: &Failure, now: Instant) -> Bears {
        let is_over = self
            .context
            .deadline
            .is_some_and(|deadline| deadline <= now);
        match (failure.blame(), failure) {
            // It had no more time than its caller had left, and took at least that.
            (_, Failure::Deliver(DeliverError::Deadline)) if is_over => Bears::Time,
            // What a guest makes of half a request is not its fault.
            (Blame::Endpoint, failure) if !failure.never_processed() && self.body.is_broken() => {
                Bears::Nothing
            }
            (Blame::Caller, _) => Bears::Nothing,
            (Blame::Endpoint, _) => Bears::Penalty,
            (Blame::Connection, _) => Bears::Ejection,
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

    /// The context of one try: each after the first is a span of its own.
    fn context_of(&self, attempt: u32, head: &mut Parts) -> CallContext {
        let mut context = CallContext {
            attempt,
            ..self.context.clone()
        };
        if attempt > 0
            && let Some(trace) = &context.trace
        {
            let trace = trace.child(&mut rand::rng());
            trace.write(&mut head.headers);
            context.trace = Some(trace);
        }
        context
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
        let Some(mut parts) = parts else {
            return Err(Failure::Deliver(DeliverError::NotHere));
        };
        let context = self.context_of(attempt, &mut parts);
        let request = Request::from_parts(parts, self.body.reader());
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
        let context = self.context_of(attempt, &mut parts);
        let lines = &mut parts.headers;
        // Once more: filters may have added some.
        headers::strip_hop_by_hop(lines);
        lines.remove(header::HOST);
        lines.insert(headers::DESTINATION, endpoint.header.clone());
        lines.insert(headers::SERVICE, labels.header.clone());
        lines.insert(headers::SOURCE, self.caller.source_line.clone());
        lines.insert(headers::DEPTH, HeaderValue::from(context.depth));
        if attempt > 0 {
            lines.insert(headers::ATTEMPT, HeaderValue::from(attempt));
        }
        if let Some(deadline) = context.deadline {
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
}

/// What a failed try means for its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bears {
    Nothing,
    /// It took that long.
    Time,
    /// It counts as slow, so that the fastest way to fail does not attract all calls.
    Penalty,
    Ejection,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;

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
        answered.record(Duration::from_millis(1), now);
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
}
