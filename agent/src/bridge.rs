//! Where runtime and mesh meet: each sees the other as a boxed tower service.
//!
//! ```text
//! mesh ── Request + mesh::CallContext ──► inbound ── runtime::CallContext ──► workload.call
//! guest ─ Request + runtime::CallContext ► outbound ─ mesh::CallContext ────► mesh.outbound
//!                                             └ localhost:PORT ─► the pod's own container
//! ```
//!
//! Contexts and errors are mapped field by field and variant by variant; bodies are the same type on both sides and pass
//! untouched. Nothing is spawned: a call stays on the core that makes it.
//!
//! Invariants: who the peer is comes from the mesh only; the depth of a call tree survives the way through a guest; an error
//! that allows another attempt (`never started`) keeps that meaning, and no other error gains it.

use crate::events::{self, Recorder, Severity};
use crate::guest::Guest;
use crate::logs;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::TryFutureExt;
use futures::future::{Either, ready};
use http::Request;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};
use weft_api::annotation;
use weft_mesh::{DEPTH_MAX, DeliverError};
use weft_runtime::{Body, CallError, Outbound, OutboundError};

/// At most one event a container and reason in this time for requests that failed inside the guest; the log has every one.
const EVENT_EVERY: Duration = Duration::from_secs(10);

/// The HTTP containers of one pod by port: what `localhost` means to each of them.
#[derive(Clone, Default)]
pub struct Siblings {
    by_port: Arc<ArcSwap<BTreeMap<u16, weft_mesh::WorkloadService>>>,
}

impl Siblings {
    /// Makes a container reachable at `localhost:port`.
    pub fn insert(&self, port: u16, service: weft_mesh::WorkloadService) {
        self.by_port.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.insert(port, service.clone());
            map
        });
    }

    /// Whether a container is reachable at `localhost:port`.
    pub fn serves(&self, port: u16) -> bool {
        self.by_port.load().contains_key(&port)
    }

    /// Takes it away.
    pub fn remove(&self, port: u16) {
        self.by_port.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.remove(&port);
            map
        });
    }
}

/// Says in the container's log, and now and then in an event, that a request failed inside the guest.
pub struct Failures {
    log: logs::Writer,
    recorder: Recorder,
    /// The container, for events. The pod itself would be most of what an idle one costs.
    about: ObjectReference,
    /// `weft.dev/request-timeout`.
    request_timeout: Duration,
    started: Instant,
    told: [Told; REASONS.len()],
    /// Calls of its own to what is not there.
    astray: AtomicU64,
}

/// Reasons of such events.
const REASONS: [&str; 5] = [
    "RequestTrapped",
    "RequestOutOfMemory",
    "RequestDeadline",
    "RequestNotLoaded",
    "ResponseTooLarge",
];

/// What was told with one reason.
#[derive(Default)]
struct Told {
    /// Milliseconds after `started` of the last event, plus one; 0 before the first.
    last_event: AtomicU64,
    since_event: AtomicU64,
}

impl Failures {
    /// For one run of one container.
    pub fn new(
        log: logs::Writer,
        recorder: Recorder,
        pod: &Pod,
        container: &str,
        request_timeout: Duration,
    ) -> Self {
        Self {
            log,
            recorder,
            about: events::about(pod, Some(container)),
            request_timeout,
            started: Instant::now(),
            told: Default::default(),
            astray: AtomicU64::new(0),
        }
    }

    /// Of a call that the container made to what is not there or not allowed: the guest hears a code, and WASI has one for
    /// several reasons.
    pub fn record_failed_call(&self, error: &weft_mesh::CallError) {
        use weft_mesh::CallError as Error;
        if !matches!(
            error,
            Error::Denied { .. }
                | Error::UnknownService { .. }
                | Error::UnknownPort { .. }
                | Error::NoEndpoints { .. }
        ) {
            return;
        }
        // A scan of all ports is seventeen lines.
        let count = self.astray.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            self.log
                .write_note(&format!("weft: a call to elsewhere failed: {error}"));
        }
    }

    /// Of a call, or of a response's body that broke off.
    pub fn record_failure(&self, error: &CallError) {
        let reason = match error {
            CallError::Trap { message, backtrace } => {
                self.log
                .write_note(&format!("weft: a request trapped: {message}"));
                if !backtrace.is_empty() {
                    self.log.write_note(backtrace);
                }
                0
            }
            CallError::OutOfMemory { .. } => {
                self.log.write_note(&format!("weft: {error}"));
                1
            }
            CallError::Deadline => {
                self.log.write_note(&format!("weft: {}", self.message_of(error)));
                2
            }
            // The guest's own answer, or nothing that the guest did.
            CallError::Overloaded
            | CallError::Stopped
            | CallError::Guest { .. }
            | CallError::NoResponse
            // The container's own end says it, once for all of its calls.
            | CallError::Lost { .. }
            | CallError::NotCallable
            | CallError::BadRequest { .. } => return,
            CallError::NotLoaded { .. } => {
                self.log.write_note(&format!("weft: {error}"));
                3
            }
            CallError::BodyTooLarge { .. } => {
                self.log.write_note(&format!("weft: {error}"));
                4
            }
        };
        let (reason, told) = (REASONS[reason], &self.told[reason]);
        let count = told.since_event.fetch_add(1, Ordering::Relaxed) + 1;
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = told.last_event.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= EVENT_EVERY.as_millis() as u64;
        // Of several cores that fail at once, one writes the event.
        if due
            && told
                .last_event
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            told.since_event.store(0, Ordering::Relaxed);
            let mut message = self.message_of(error);
            if count > 1 {
                message.push_str(&format!(" ({count} requests since the last event)"));
            }
            if let CallError::Trap { backtrace, .. } = error
                && !backtrace.is_empty()
            {
                // The recorder cuts what is too long; the log has all of it.
                message.push('\n');
                message.push_str(backtrace.trim_end());
            }
            self.recorder
                .record(self.about.clone(), Severity::Warning, reason, message);
        }
    }
}

impl Failures {
    fn message_of(&self, error: &CallError) -> String {
        match error {
            CallError::Deadline => format!(
                "{error}: its caller's time, or {:?}, which {} says",
                self.request_timeout,
                annotation::REQUEST_TIMEOUT
            ),
            other => other.to_string(),
        }
    }
}

/// The mesh's way into a workload.
pub fn inbound(workload: Guest, failures: Arc<Failures>) -> weft_mesh::WorkloadService {
    let peers = Arc::new(PeerCache::default());
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let context = request
            .extensions_mut()
            .remove::<weft_mesh::CallContext>()
            .unwrap_or_default();
        request.extensions_mut().insert(to_runtime(context, &peers));
        let (workload, failures) = (workload.clone(), failures.clone());
        async move {
            workload.call(request).await.map_err(|error| {
                failures.record_failure(&error);
                to_deliver_error(error)
            })
        }
    }))
}

/// A workload's way out.
pub fn outbound(
    mesh: weft_mesh::Outbound,
    siblings: Siblings,
    me: Arc<weft_mesh::Peer>,
    failures: Arc<Failures>,
) -> Outbound {
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let context = request
            .extensions_mut()
            .remove::<weft_runtime::CallContext>()
            .unwrap_or_default();
        let mut context = to_mesh(&context);
        let Some(port) = localhost_port(&request) else {
            request.extensions_mut().insert(context);
            // Both services are always ready, so that they may be called without being asked.
            let (call, failures) = (Service::call(&mut mesh.clone(), request), failures.clone());
            return Either::Left(call.map_err(move |error| {
                failures.record_failed_call(&error);
                to_outbound_error(&error)
            }));
        };
        context.depth += 1;
        context.peer = Some(me.clone());
        let service = siblings.by_port.load().get(&port).cloned();
        Either::Right(match service {
            None => Either::Left(ready(Err(OutboundError::Refused))),
            Some(_) if context.depth > DEPTH_MAX => {
                Either::Left(ready(Err(OutboundError::LoopDetected)))
            }
            Some(mut service) => {
                request.extensions_mut().insert(context);
                Either::Right(
                    service
                        .call(request)
                        .map_err(|error| to_local_error(&error)),
                )
            }
        })
    }))
}

fn to_local_error(error: &DeliverError) -> OutboundError {
    match error {
        DeliverError::NotHere => OutboundError::Refused,
        DeliverError::Overloaded => OutboundError::LimitReached,
        DeliverError::Deadline => OutboundError::Timeout,
        DeliverError::LoopDetected => OutboundError::LoopDetected,
        DeliverError::OutOfMemory | DeliverError::Failed { .. } => {
            OutboundError::Internal(error.to_string())
        }
        DeliverError::Rejected { .. } => OutboundError::Protocol,
    }
}

/// The port of a request to the pod itself.
fn localhost_port<B>(request: &Request<B>) -> Option<u16> {
    let authority = request.uri().authority()?;
    matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]")
        .then(|| authority.port_u16().unwrap_or(80))
}

/// The peer of the last call, in both forms: callers are few and come back, so that most calls allocate nothing for it.
#[derive(Default)]
struct PeerCache {
    last: ArcSwapOption<(Arc<weft_mesh::Peer>, Arc<weft_runtime::Peer>)>,
}

impl PeerCache {
    fn get(&self, peer: Arc<weft_mesh::Peer>) -> Arc<weft_runtime::Peer> {
        if let Some(last) = &*self.last.load()
            && (Arc::ptr_eq(&last.0, &peer) || last.0 == peer)
        {
            return last.1.clone();
        }
        let converted = Arc::new(weft_runtime::Peer {
            spiffe_id: peer.spiffe_id.to_string(),
            namespace: peer.identity.namespace.clone(),
            service_account: peer.identity.service_account.clone(),
            workload: peer.workload.to_string(),
            transport: match peer.transport {
                weft_mesh::Transport::InProcess => weft_runtime::Transport::InProcess,
                weft_mesh::Transport::Mtls => weft_runtime::Transport::MutualTls,
            },
        });
        self.last.store(Some(Arc::new((peer, converted.clone()))));
        converted
    }
}

fn to_runtime(context: weft_mesh::CallContext, peers: &PeerCache) -> weft_runtime::CallContext {
    weft_runtime::CallContext {
        peer: context.peer.map(|peer| peers.get(peer)),
        deadline: context.deadline,
        trace: context.trace.map(|trace| weft_runtime::TraceContext {
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            sampled: trace.flags & 1 == 1,
            state: trace
                .state
                .as_ref()
                .and_then(|state| state.to_str().ok())
                .map(Arc::from),
        }),
        // The mesh counts from 0, the guest's interface from 1.
        attempt: context.attempt.saturating_add(1),
        depth: context.depth,
    }
}

fn to_mesh(context: &weft_runtime::CallContext) -> weft_mesh::CallContext {
    weft_mesh::CallContext {
        // Of an outbound request the mesh knows the caller itself: it is the workload the service was made for.
        peer: None,
        deadline: context.deadline,
        trace: context.trace.as_ref().map(|trace| weft_mesh::TraceContext {
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            flags: u8::from(trace.sampled),
            state: trace
                .state
                .as_deref()
                .and_then(|state| http::HeaderValue::from_str(state).ok()),
        }),
        depth: context.depth,
        attempt: 0,
    }
}

fn to_deliver_error(error: CallError) -> DeliverError {
    match error {
        CallError::Overloaded => DeliverError::Overloaded,
        CallError::Deadline => DeliverError::Deadline,
        CallError::OutOfMemory { .. } => DeliverError::OutOfMemory,
        CallError::NotCallable
        | CallError::NotLoaded { .. }
        | CallError::Lost { begun: false, .. } => DeliverError::NotHere,
        CallError::BadRequest { reason } => DeliverError::Rejected { reason },
        // The call may have begun when the workload was stopped, so that it is no `NotHere`.
        CallError::Stopped
        | CallError::Trap { .. }
        | CallError::BodyTooLarge { .. }
        | CallError::Guest { .. }
        | CallError::Lost { begun: true, .. }
        | CallError::NoResponse => DeliverError::Failed {
            message: error.to_string(),
        },
    }
}

fn to_outbound_error(error: &weft_mesh::CallError) -> OutboundError {
    use weft_mesh::CallError as Mesh;
    match error {
        Mesh::Denied { .. } => OutboundError::Denied,
        Mesh::UnknownService { .. } | Mesh::UnknownPort { .. } | Mesh::NoRoute { .. } => {
            OutboundError::NotFound
        }
        Mesh::InvalidBackend { .. } | Mesh::NoEndpoints { .. } => OutboundError::Unavailable,
        Mesh::Unreachable { .. } => OutboundError::Refused,
        Mesh::Deadline => OutboundError::Timeout,
        Mesh::Overloaded { .. } => OutboundError::LimitReached,
        Mesh::LoopDetected => OutboundError::LoopDetected,
        Mesh::BadRequest { .. } => OutboundError::Protocol,
        Mesh::Interrupted { .. } | Mesh::Failed { .. } => {
            OutboundError::Internal(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_the_pod_itself() {
        for (uri, port) in [
            ("http://localhost:8080/x", Some(8080)),
            ("http://localhost/", Some(80)),
            ("http://127.0.0.1:9/", Some(9)),
            ("http://voting/", None),
            ("http://localhost.example/", None),
        ] {
            let request = Request::get(uri).body(()).expect("a request");
            assert_eq!(localhost_port(&request), port, "{uri}");
        }
    }

    #[test]
    fn only_what_never_started_may_be_tried_elsewhere() {
        let errors = [
            CallError::Overloaded,
            CallError::Stopped,
            CallError::Deadline,
            CallError::Trap {
                message: String::new(),
                backtrace: String::new(),
            },
            CallError::OutOfMemory { limit_bytes: 1 },
            CallError::Guest {
                code: String::new(),
            },
            CallError::NoResponse,
            CallError::NotLoaded {
                reason: String::new(),
            },
            CallError::Lost {
                reason: String::new(),
                begun: false,
            },
            CallError::Lost {
                reason: String::new(),
                begun: true,
            },
        ];
        for error in errors {
            assert_eq!(
                to_deliver_error(error.clone()).never_processed(),
                error.never_started(),
                "{error}"
            );
        }
    }

    #[test]
    fn depth_and_deadline_survive_the_guest() {
        let deadline = Instant::now();
        let context = weft_mesh::CallContext {
            deadline: Some(deadline),
            depth: 7,
            attempt: 1,
            ..Default::default()
        };
        let through = to_runtime(context, &PeerCache::default());
        assert_eq!(through.attempt, 2);
        let out = to_mesh(&through);
        assert_eq!(
            (out.depth, out.deadline, out.attempt),
            (7, Some(deadline), 0)
        );
    }
}
