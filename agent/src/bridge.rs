//! Where runtime and mesh meet: each sees the other as a boxed tower service.
//!
//! ```text
//! mesh ── Request + mesh::CallContext ──► inbound ── runtime::CallContext ──► workload.call
//! guest ─ Request + runtime::CallContext ► outbound ─ mesh::CallContext ────► mesh.outbound
//!                                             └ localhost:PORT ─► the pod's own container, through the mesh's door as well
//! ```
//!
//! Contexts and errors are mapped field by field and variant by variant; bodies are the same type on both sides and pass
//! untouched. Nothing is spawned: a call stays on the core that makes it.
//!
//! Invariants: who the peer is comes from the mesh only, and of a gateway's call it is nobody; the depth of a call tree survives the way
//! through a guest; an error that allows another attempt (`never started`) keeps that meaning, and no other error gains it.

use crate::failures::{Asked, Failures};
use crate::guest::Guest;
use crate::translate::REQUEST_TIMEOUT_DEFAULT;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::TryFutureExt;
use futures::future::Either;
use http::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};
use weft_mesh::{DeliverError, PodAddress};
use weft_runtime::{Body, CallError, Outbound, OutboundError};

/// The HTTP containers of one pod by port: what `localhost` means to each of them. They are attached to the mesh at these addresses.
#[derive(Clone, Default)]
pub struct Siblings {
    by_port: Arc<ArcSwap<BTreeMap<u16, PodAddress>>>,
}

impl Siblings {
    /// Makes the container at `address` reachable at `localhost:port`.
    pub fn insert(&self, address: PodAddress) {
        self.by_port.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.insert(address.port, address);
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

/// The mesh's way into a workload.
pub fn inbound(workload: Guest, failures: Arc<Failures>) -> weft_mesh::WorkloadService {
    let peers = Arc::new(PeerCache::default());
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let context = request
            .extensions_mut()
            .remove::<weft_mesh::CallContext>()
            .unwrap_or_default();
        let asked = Asked::of(&request, context.deadline);
        let mut context = to_runtime(context, &peers);
        context.deadline = deadline(context.deadline, failures.request_timeout(), Instant::now());
        request.extensions_mut().insert(context);
        let (workload, failures) = (workload.clone(), failures.clone());
        async move {
            workload.call(request).await.map_err(|error| {
                failures.record_failure(&error, Some(&asked));
                to_deliver_error(error)
            })
        }
    }))
}

/// A workload's way out.
pub fn outbound(
    mesh: weft_mesh::Outbound,
    siblings: Siblings,
    failures: Arc<Failures>,
) -> Outbound {
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let context = request
            .extensions_mut()
            .remove::<weft_runtime::CallContext>()
            .unwrap_or_default();
        request.extensions_mut().insert(to_mesh(&context));
        let Some(port) = localhost_port(&request) else {
            // Both services are always ready, so that they may be called without being asked.
            let (call, failures) = (Service::call(&mut mesh.clone(), request), failures.clone());
            return Either::Left(call.map_err(move |error| {
                failures.record_failed_call(&error);
                to_outbound_error(&error)
            }));
        };
        let address = siblings.by_port.load().get(&port).copied();
        let mesh = mesh.clone();
        Either::Right(async move {
            let address = address.ok_or(OutboundError::Refused)?;
            let called = mesh.call_attached(address, request).await;
            called.map_err(|error| to_outbound_error(&error))
        })
    }))
}

/// When a call has to be over: what its caller or a route says holds; where nobody says anything, the default does. What the pod says is a
/// limit that the runtime holds all calls to.
fn deadline(theirs: Option<Instant>, pods: Option<Duration>, now: Instant) -> Option<Instant> {
    match (theirs, pods) {
        (None, None) => now.checked_add(REQUEST_TIMEOUT_DEFAULT),
        (theirs, _) => theirs,
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
        // Behind a gateway is somebody whom nobody identified, and a guest that asks whether it knows its caller is told the truth.
        peer: context
            .peer
            .filter(|peer| !peer.is_gateway())
            .map(|peer| peers.get(peer)),
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
        CallError::Overloaded(_) => DeliverError::Overloaded,
        CallError::Deadline => DeliverError::Deadline,
        CallError::OutOfMemory { .. } => DeliverError::OutOfMemory,
        CallError::NotCallable
        | CallError::NotLoaded { .. }
        | CallError::Stopped { begun: false }
        | CallError::Lost { begun: false, .. } => DeliverError::NotHere,
        CallError::BadRequest { reason } => DeliverError::Rejected { reason },
        CallError::Stopped { begun: true }
        | CallError::Exhausted { .. }
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
        Mesh::UnknownService { .. } | Mesh::NoRoute { .. } => OutboundError::NotFound,
        // WASI's "destination not found" has no room for what is there instead.
        Mesh::UnknownPort { .. } => OutboundError::Internal(error.to_string()),
        Mesh::InvalidBackend { .. } | Mesh::NoEndpoints { .. } | Mesh::Overloaded { .. } => {
            OutboundError::Unavailable
        }
        Mesh::Unreachable { .. } => OutboundError::Refused,
        Mesh::Deadline => OutboundError::Timeout,
        Mesh::LoopDetected => OutboundError::LoopDetected,
        Mesh::BadRequest { .. } | Mesh::HeadTooLarge => OutboundError::Protocol,
        Mesh::Interrupted { .. } | Mesh::Failed { .. } => {
            OutboundError::Internal(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use weft_runtime::Overload;

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
            CallError::Overloaded(Overload::Calls),
            CallError::Overloaded(Overload::Engine {
                reason: String::new(),
            }),
            // A guest that has begun has had effects, whatever the host ran out of: no POST is sent again for that.
            CallError::Exhausted {
                reason: String::new(),
            },
            CallError::Stopped { begun: false },
            CallError::Stopped { begun: true },
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

    fn peer(namespace: &str, account: &str) -> Arc<weft_mesh::Peer> {
        let identity = weft_api::identity::SpiffeId::new("cluster.local", namespace, account);
        Arc::new(weft_mesh::Peer {
            spiffe_id: identity.to_string().into(),
            identity,
            workload: "w".into(),
            transport: weft_mesh::Transport::Mtls,
        })
    }

    #[test]
    fn whoever_comes_through_a_gateway_is_nobody_to_a_guest() {
        for (namespace, account, known) in [
            ("weft-system", "gateway", None),
            ("vote", "gateway", Some("gateway")),
            ("weft-system", "other", Some("other")),
        ] {
            let context = weft_mesh::CallContext {
                peer: Some(peer(namespace, account)),
                ..Default::default()
            };
            let told = to_runtime(context, &PeerCache::default()).peer;
            let told = told.as_ref().map(|peer| peer.service_account.as_str());
            assert_eq!(told, known, "{namespace}/{account}");
        }
    }

    #[test]
    fn a_routes_minute_is_not_over_after_the_thirty_seconds_that_nobody_wrote_down() {
        let now = Instant::now();
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        let says = |seconds| Some(Duration::from_secs(seconds));
        for (theirs, pods, expected) in [
            (None, None, after(30)),
            (after(60), None, after(60)),
            (after(1), None, after(1)),
            // The pod's own limit is the runtime's to hold.
            (None, says(2), None),
            (after(60), says(2), after(60)),
        ] {
            assert_eq!(deadline(theirs, pods, now), expected, "{theirs:?} {pods:?}");
        }
    }

    #[test]
    fn a_wrong_port_says_which_there_are() {
        let error = to_outbound_error(&weft_mesh::CallError::UnknownPort {
            service: "links.short".to_owned(),
            port: 8081,
            served: "80".to_owned(),
        });
        match error {
            OutboundError::Internal(detail) => {
                assert_eq!(detail, "service links.short has no port 8081; it has 80");
            }
            other => panic!("{other:?} has no room for a detail"),
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
