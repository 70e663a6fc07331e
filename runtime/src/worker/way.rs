//! What a workload in a worker may have of the node: bounds that the worker would have to keep, kept again by who does not trust it.
//!
//! A [`Way`] is one workload's, in and out. Calls take a place of it on their way in, and say how deep in their call tree they are.
//! A guest's own request comes with a claim of the worker's about the call that it is made for; what is believed of it is what may
//! be true: it is no higher in a call tree than the highest call that is open, and waits no longer than any guest may.
//!
//! Invariants: requests of one workload that are open are no more than `Limits::outbound_max`, those of one lane no more than its
//! streams; each holds its place until its response's body is done with; none waits longer for a response's head than [`Way`] says.

use std::array;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use super::wire::{self, Outward};
use crate::body::Body;
use crate::host::http::{HEAD_TIMEOUT, Outbound, OutboundError};
use crate::host::mesh::CallContext;
use crate::limits::Limits;

/// Depths that are told apart. Call trees end earlier; what is deeper counts as this deep.
const DEPTHS: usize = 64;
/// Whatever a pod may have: what a worker claims is no reason to wait longer.
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// How many calls are open at each depth of their call trees.
struct Depths([AtomicU32; DEPTHS]);

impl Depths {
    fn new() -> Depths {
        Depths(array::from_fn(|_| AtomicU32::new(0)))
    }

    fn at(&self, depth: u32) -> &AtomicU32 {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        &self.0[depth.min(DEPTHS - 1)]
    }

    /// The depth of the call that is highest up; 0 when there is none.
    fn least(&self) -> u32 {
        let least = self.0.iter().position(|open| open.load(Relaxed) > 0);
        least
            .and_then(|depth| u32::try_from(depth).ok())
            .unwrap_or(0)
    }
}

/// One workload's way in and out of its worker.
pub(super) struct Way {
    outbound: Option<Outbound>,
    /// Calls that it works on or that wait there.
    calls: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    depths: Depths,
    /// The longest that one of its requests may wait for the head of a response.
    head_timeout: Duration,
}

fn places(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

impl Way {
    pub(super) fn new(limits: &Limits, outbound: Option<Outbound>) -> Way {
        Way {
            outbound,
            calls: places(limits.in_flight_max.saturating_add(limits.queued_max)),
            requests: places(limits.outbound_max),
            depths: Depths::new(),
            head_timeout: limits.request_timeout.clamp(HEAD_TIMEOUT, HEAD_TIMEOUT_MAX),
        }
    }

    /// What is believed of a claim about the call that a request is made for.
    fn believed(&self, claimed: CallContext, now: Instant) -> CallContext {
        let latest = now.checked_add(self.head_timeout);
        CallContext {
            deadline: claimed
                .deadline
                .map(|deadline| latest.map_or(deadline, |latest| deadline.min(latest))),
            depth: claimed.depth.max(self.depths.least()),
            ..claimed
        }
    }
}

/// The ways of all workloads of one worker. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Ways(Arc<RwLock<HashMap<u64, Arc<Way>>>>);

impl Ways {
    /// Opens the way of workload `id`, until the result is dropped.
    pub(super) fn open(&self, id: u64, way: Way) -> OpenWay {
        let way = Arc::new(way);
        self.0.write().insert(id, way.clone());
        OpenWay {
            id,
            way,
            ways: self.clone(),
        }
    }

    /// A guest's own request, on its way into the world. `lane` has the places of the lane that it came by.
    pub(super) async fn pass_on(
        &self,
        lane: &Arc<Semaphore>,
        request: Request<Incoming>,
    ) -> Response<Outward> {
        let id = wire::workload_of(request.headers());
        let way = id.and_then(|id| self.0.read().get(&id).cloned());
        let Some((way, outbound)) = way.and_then(|way| {
            let outbound = way.outbound.clone()?;
            Some((way, outbound))
        }) else {
            return wire::failed(&OutboundError::Denied);
        };
        let places = [lane, &way.requests].map(|places| places.clone().try_acquire_owned());
        let [Ok(stream), Ok(place)] = places else {
            return wire::failed(&OutboundError::LimitReached);
        };
        let now = Instant::now();
        let (mut request, claimed) = wire::undress(request, now);
        request.extensions_mut().insert(way.believed(claimed, now));
        // Boxed, because the compiler cannot tell of the service's own future that it may move between threads.
        let sending: Sending = Box::pin(outbound.oneshot(request));
        match tokio::time::timeout(way.head_timeout, sending).await {
            Ok(Ok(response)) => wire::delivered(response, vec![stream, place]),
            Ok(Err(error)) => wire::failed(&error),
            Err(_) => wire::failed(&OutboundError::Timeout),
        }
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<Body>, OutboundError>> + Send>>;

/// A way that is closed when this is dropped.
pub(super) struct OpenWay {
    id: u64,
    way: Arc<Way>,
    ways: Ways,
}

impl OpenWay {
    /// A place for a call of that depth; none when there are too many.
    pub(super) fn enter(&self, depth: u32) -> Option<Entered> {
        let place = self.way.calls.clone().try_acquire_owned().ok()?;
        self.way.depths.at(depth).fetch_add(1, Relaxed);
        Some(Entered {
            depth,
            way: self.way.clone(),
            _place: place,
        })
    }
}

impl Drop for OpenWay {
    fn drop(&mut self) {
        self.ways.0.write().remove(&self.id);
    }
}

/// A call that is open.
pub(super) struct Entered {
    depth: u32,
    way: Arc<Way>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.way.depths.at(self.depth).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use hyper::service::service_fn;
    use tokio::sync::mpsc;

    use super::*;
    use crate::body;
    use crate::worker::wire::{STREAMS_MAX, Sender, Side};

    /// Asks as a worker would that holds to nothing.
    async fn ask(worker: &Sender, workload: u64) -> Response<Incoming> {
        let request = Request::get("http://next/").body(body::empty()).unwrap();
        let context = CallContext::default();
        let request = wire::dress(request, workload, context, Instant::now()).unwrap();
        worker.clone().send_request(request).await.unwrap()
    }

    #[tokio::test]
    async fn requests_that_a_worker_may_not_send_are_refused_here() {
        let (here, there) = UnixStream::pair().unwrap();
        for socket in [&here, &there] {
            socket.set_nonblocking(true).unwrap();
        }
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let outbound = Outbound::new(tower::service_fn(move |_: Request<Body>| {
            let _ = arrived.send(());
            std::future::pending::<Result<Response<Body>, OutboundError>>()
        }));
        let limits = Limits {
            outbound_max: 2,
            ..Limits::default()
        };
        let ways = Ways::default();
        let open = ways.open(7, Way::new(&limits, Some(outbound)));
        let lane = Arc::new(Semaphore::new(STREAMS_MAX));
        let served = service_fn(move |request| {
            let (ways, lane) = (ways.clone(), lane.clone());
            async move { Ok(ways.pass_on(&lane, request).await) }
        });
        tokio::spawn(wire::answer(here, Side::Node, served));
        let (worker, connection) = wire::ask(there, Side::Worker).await.unwrap();
        tokio::spawn(connection);
        let held: Vec<_> = (0..2)
            .map(|_| {
                let worker = worker.clone();
                tokio::spawn(async move { ask(&worker, 7).await })
            })
            .collect();
        for _ in 0..2 {
            arrivals.recv().await.unwrap();
        }
        for (workload, refusal) in [(7, OutboundError::LimitReached), (8, OutboundError::Denied)] {
            let answer = ask(&worker, workload).await;
            assert!(wire::has_failed(&answer));
            let error = wire::read::<OutboundError>(answer, wire::ERROR_BYTES_MAX).await;
            assert_eq!(error.unwrap(), refusal, "{workload}");
        }
        // Who gives up makes room for the next.
        for held in held {
            held.abort();
        }
        let next = tokio::spawn(async move { while wire::has_failed(&ask(&worker, 7).await) {} });
        arrivals.recv().await.unwrap();
        next.abort();
        drop(open);
    }

    #[test]
    fn a_claim_is_believed_as_far_as_it_can_be_true() {
        let limits = Limits {
            request_timeout: Duration::from_secs(90),
            ..Limits::default()
        };
        let ways = Ways::default();
        let open = ways.open(1, Way::new(&limits, None));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let believed = |depth, deadline| {
            let claimed = CallContext {
                depth,
                deadline,
                ..CallContext::default()
            };
            let believed = open.way.believed(claimed, now);
            (believed.depth, believed.deadline)
        };
        // Nobody calls it: it may work on its own account.
        assert_eq!(believed(0, None), (0, None));
        let deep = open.enter(9).expect("there is room");
        let deeper = open.enter(1_000).expect("there is room");
        assert_eq!(believed(0, Some(at(5))), (9, Some(at(5))));
        assert_eq!(believed(12, Some(at(1_000_000))), (12, Some(at(90))));
        drop(deep);
        assert_eq!(believed(0, None).0, 63);
        drop(deeper);
        assert_eq!(believed(0, None).0, 0);
    }

    #[test]
    fn calls_beyond_what_a_workload_takes_do_not_get_to_it() {
        let limits = Limits {
            in_flight_max: 1,
            queued_max: 1,
            ..Limits::default()
        };
        let open = Ways::default().open(1, Way::new(&limits, None));
        let held = [open.enter(0), open.enter(0)];
        assert!(held.iter().all(Option::is_some));
        assert!(open.enter(0).is_none());
        drop(held);
        assert!(open.enter(0).is_some());
    }
}
