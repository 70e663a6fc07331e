//! What a workload in a worker may have of the node: bounds that the worker would have to keep, kept again by who does not trust it.
//!
//! A [`Way`] is one workload's, in and out. Calls take a place of it on their way in, and say how deep in their call tree they are.
//! A guest's own request comes with a claim of the worker's about the call that it is made for; what is believed of it is what may
//! be true: it is no higher in a call tree than the highest call that is open, waits no longer than any guest may, and is no more urgent than
//! the call that it is made for. What came of it is told to that call, which is found by its span.
//!
//! Messages to capabilities ([`Channels`](crate::capability::Channels)) go the same way, to what was granted to the workload here.
//!
//! Invariants: requests of one workload that are open are no more than `Limits::outbound_max`, those of one lane no more than its
//! streams; each holds its place until its response's body is done with; none waits longer for a response's head than [`Way`] says.
//! Channels of one workload to one capability are no more than `Capability::channels_max`, messages of one worker that are held
//! here are no more than [`MESSAGES_BYTES_MAX`] with their answers, and none is read before there is room for it.

use std::array;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use weft_call::{CallContext, Failure, FailureKind, Priority, Spent};

use super::wire::{self, Outward};
use crate::body::Body;
use crate::capability::{ChannelError, Granted};
use crate::host::http::{HEAD_TIMEOUT, Outbound};
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

/// A call, as what is made for it names it.
type Span = (u128, u64);

fn span_of(context: &CallContext) -> Option<Span> {
    let trace = context.trace.as_ref()?;
    Some((trace.trace_id, trace.span_id))
}

/// What the node knows of a call that is open, and a worker might say otherwise.
#[derive(Clone)]
struct Serving {
    priority: Priority,
    repeated: bool,
    spent: Option<Spent>,
}

/// One workload's way in and out of its worker.
pub(super) struct Way {
    outbound: Option<Outbound>,
    /// Calls that it works on or that wait there.
    calls: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    depths: Depths,
    /// Calls that are open, by trace and span: no more than `calls` has places.
    serving: Mutex<HashMap<Span, Serving>>,
    /// The longest that one of its requests may wait for the head of a response.
    head_timeout: Duration,
    granted: Granted,
    /// Channels to each capability that is granted.
    channels: Vec<(&'static str, Arc<Semaphore>)>,
    /// The workload is gone.
    closed: CancellationToken,
}

/// Messages and answers of one worker that the node holds whole: some dozens of the largest.
const MESSAGES_BYTES_MAX: usize = 64 << 20;
/// One of them. A capability may say less.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The unit of that; what an answer is taken for that comes in parts.
const PART_BYTES: usize = 64 << 10;
/// How long a message waits for room, and for the beginning of its answer.
const MESSAGE_WITHIN: Duration = Duration::from_secs(35);

fn places(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

impl Way {
    pub(super) fn new(limits: &Limits, outbound: Option<Outbound>, granted: Granted) -> Way {
        let channels = granted.channels_max(limits).into_iter();
        Way {
            channels: channels.map(|(name, max)| (name, places(max))).collect(),
            granted,
            closed: CancellationToken::new(),
            outbound,
            calls: places(limits.in_flight_max.saturating_add(limits.queued_max)),
            requests: places(limits.outbound_max),
            depths: Depths::new(),
            serving: Mutex::default(),
            head_timeout: limits.request_timeout.clamp(HEAD_TIMEOUT, HEAD_TIMEOUT_MAX),
        }
    }

    /// An answer that comes in parts ends with the workload, whether or not the worker lets go of it.
    fn while_open(&self, answer: Body) -> Body {
        if answer.size_hint().exact().is_some() {
            return answer;
        }
        let parts = BodyStream::new(answer).take_until(self.closed.clone().cancelled_owned());
        Body::new(StreamBody::new(parts))
    }

    /// What is believed of a claim about the call that a request is made for.
    fn believed(&self, claimed: CallContext, now: Instant) -> CallContext {
        let latest = now.checked_add(self.head_timeout);
        let span = span_of(&claimed);
        let serving = span.and_then(|span| self.serving.lock().get(&span).cloned());
        let serving = serving.unwrap_or(Serving {
            priority: Priority::Usual,
            repeated: false,
            spent: None,
        });
        CallContext {
            priority: claimed.priority.lowered_to(serving.priority),
            repeated: claimed.repeated || serving.repeated,
            spent: serving.spent,
            deadline: claimed
                .deadline
                .map(|deadline| latest.map_or(deadline, |latest| deadline.min(latest))),
            depth: claimed.depth.max(self.depths.least()),
            ..claimed
        }
    }
}

/// The ways of all workloads of one worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ways {
    open: Arc<RwLock<HashMap<u64, Arc<Way>>>>,
    /// Bytes of messages, in units of [`PART_BYTES`].
    room: Arc<Semaphore>,
}

impl Default for Ways {
    fn default() -> Ways {
        Ways {
            open: Arc::default(),
            room: places(MESSAGES_BYTES_MAX / PART_BYTES),
        }
    }
}

impl Ways {
    /// Opens the way of workload `id`, until the result is dropped.
    pub(super) fn open(&self, id: u64, way: Way) -> OpenWay {
        let way = Arc::new(way);
        self.open.write().insert(id, way.clone());
        OpenWay {
            id,
            way,
            ways: self.clone(),
        }
    }

    /// A guest's own request, on its way into the world, or a message to what it is granted. `lane` has the places of the lane that it
    /// came by.
    pub(super) async fn pass_on(
        &self,
        lane: &Arc<Semaphore>,
        request: Request<Incoming>,
    ) -> Response<Outward> {
        let id = wire::workload_of(request.headers());
        let way = id.and_then(|id| self.open.read().get(&id).cloned());
        if let Some((capability, method)) = wire::channel_of(request.headers()) {
            let served = self.serve(lane, way, &capability, &method, request).await;
            return served.unwrap_or_else(|error| wire::failed(&error));
        }
        let Some((way, outbound)) = way.and_then(|way| {
            let outbound = way.outbound.clone()?;
            Some((way, outbound))
        }) else {
            return wire::failed(&Failure::from(FailureKind::Denied));
        };
        let places = [lane, &way.requests].map(|places| places.clone().try_acquire_owned());
        let [Ok(stream), Ok(place)] = places else {
            return wire::failed(&Failure::from(FailureKind::LimitReached));
        };
        let now = Instant::now();
        let (mut request, claimed) = wire::undress(request, now);
        request.extensions_mut().insert(way.believed(claimed, now));
        let sending = outbound.answer(request);
        match tokio::time::timeout(way.head_timeout, sending).await {
            Ok(Ok(response)) => wire::delivered(response, vec![stream, place]),
            Ok(Err(error)) => wire::failed(&error),
            Err(_) => wire::failed(&Failure::from(FailureKind::Deadline)),
        }
    }
}

impl Ways {
    /// Has what the workload is granted of `capability` answer a message.
    async fn serve(
        &self,
        lane: &Arc<Semaphore>,
        way: Option<Arc<Way>>,
        capability: &str,
        method: &str,
        message: Request<Incoming>,
    ) -> Result<Response<Outward>, ChannelError> {
        let way = way.ok_or(ChannelError::NotGranted)?;
        let mut channels = way.channels.iter();
        let (_, channels) = channels
            .find(|(name, _)| *name == capability)
            .ok_or(ChannelError::NotGranted)?;
        let take = |places: &Arc<Semaphore>| {
            let place = places.clone().try_acquire_owned();
            place.map_err(|_| ChannelError::Busy)
        };
        let mut held = vec![take(lane)?, take(channels)?];
        // A message says how long it is: that much room it has before a byte of it is read.
        let bytes = message.body().size_hint().exact();
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes <= MESSAGE_BYTES_MAX);
        let bytes = bytes.ok_or(ChannelError::TooLarge)?;
        let answering = async {
            let room = self.room.clone().acquire_many_owned(parts(bytes)).await;
            let mut room = room.map_err(|_| ChannelError::Busy)?;
            let served = way
                .granted
                .serve(capability, method, wire::body_of(message));
            let answer = way.while_open(served.await?);
            // The answer takes the question's room, and what it needs more if that is there: nobody waits while holding some.
            let bytes = answer.size_hint().exact().unwrap_or(PART_BYTES as u64);
            let needed = parts(usize::try_from(bytes).unwrap_or(usize::MAX)) as usize;
            if let more @ 1.. = needed.saturating_sub(room.num_permits()) {
                let more = self.room.clone().try_acquire_many_owned(more as u32);
                room.merge(more.map_err(|_| ChannelError::Busy)?);
            }
            held.push(room);
            Ok(wire::delivered(Response::new(answer), held))
        };
        let answered = tokio::time::timeout(MESSAGE_WITHIN, answering).await;
        answered.unwrap_or(Err(ChannelError::Timeout))
    }
}

/// How many of [`PART_BYTES`] so many bytes take.
fn parts(bytes: usize) -> u32 {
    let most = MESSAGES_BYTES_MAX / PART_BYTES;
    u32::try_from(bytes.div_ceil(PART_BYTES).clamp(1, most)).unwrap_or(u32::MAX)
}

/// A way that is closed when this is dropped.
pub(super) struct OpenWay {
    id: u64,
    way: Arc<Way>,
    ways: Ways,
}

impl OpenWay {
    /// A place for a call; none when there are too many.
    pub(super) fn enter(&self, context: &CallContext) -> Option<Entered> {
        let place = self.way.calls.clone().try_acquire_owned().ok()?;
        self.way.depths.at(context.depth).fetch_add(1, Relaxed);
        let span = span_of(context);
        if let Some(span) = span {
            let serving = Serving {
                priority: context.priority,
                repeated: context.repeated || context.attempt > 0,
                spent: context.spent.clone(),
            };
            self.way.serving.lock().insert(span, serving);
        }
        Some(Entered {
            depth: context.depth,
            span,
            way: self.way.clone(),
            _place: place,
        })
    }
}

impl Drop for OpenWay {
    fn drop(&mut self) {
        self.way.closed.cancel();
        self.ways.open.write().remove(&self.id);
    }
}

/// A call that is open.
pub(super) struct Entered {
    depth: u32,
    span: Option<Span>,
    way: Arc<Way>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.way.depths.at(self.depth).fetch_sub(1, Relaxed);
        if let Some(span) = &self.span {
            self.way.serving.lock().remove(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;
    use http_body::Frame;
    use hyper::service::service_fn;
    use tokio::sync::mpsc;
    use wasmtime::component::Linker;

    use super::*;
    use crate::capability::{Capabilities, Capability, Grants, Served};
    use crate::engine::Calls;
    use crate::host::HostState;
    use crate::limits::HostBytes;
    use crate::worker::wire::{STREAMS_MAX, Sender, Side};
    use http_body_util::BodyExt as _;

    /// Asks as a worker would that holds to nothing.
    async fn ask(worker: &Sender, workload: u64) -> Response<Incoming> {
        let request = Request::get("http://next/").body(Body::empty()).unwrap();
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
            std::future::pending::<Result<Response<Body>, Failure>>()
        }));
        let limits = Limits {
            outbound_max: 2,
            ..Limits::default()
        };
        let ways = Ways::default();
        let open = ways.open(7, Way::new(&limits, Some(outbound), Granted::default()));
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
        for (workload, refusal) in [(7, FailureKind::LimitReached), (8, FailureKind::Denied)] {
            let answer = ask(&worker, workload).await;
            assert!(wire::has_failed(&answer));
            let error = wire::read::<Failure>(answer, wire::ERROR_BYTES_MAX).await;
            assert_eq!(error.unwrap().kind, refusal, "{workload}");
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

    /// Says back what it is told, or nothing at all.
    struct Echo;

    impl Capability for Echo {
        const NAME: &'static str = "test:echo";
        const INTERFACES: &'static [&'static str] = &[];
        type Grant = ();
        type Bound = ();

        fn link(&self, _: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
            Ok(())
        }

        fn bind(&self, (): &(), _: &Arc<HostBytes>) {}

        fn serve(&self, (): &(), method: &str, message: Body) -> Served {
            match method {
                "echo" => Box::pin(async { Ok(message) }),
                "wait" => Box::pin(std::future::pending()),
                "endless" => Box::pin(async {
                    let frames = BodyStream::new(message).chain(futures::stream::pending());
                    Ok(Body::new(StreamBody::new(frames)))
                }),
                _ => Box::pin(async { Err(ChannelError::NoSuchMethod) }),
            }
        }

        fn channels_max(&self, _: &Limits) -> usize {
            2
        }
    }

    /// Sends a message as a worker would that holds to nothing.
    async fn tell(
        worker: &Sender,
        workload: u64,
        to: (&str, &str),
        message: Body,
    ) -> Result<Bytes, ChannelError> {
        let request = wire::message(workload, to.0, to.1, message).unwrap();
        let answer = worker.clone().send_request(request).await.unwrap();
        if wire::has_failed(&answer) {
            return Err(wire::read(answer, wire::ERROR_BYTES_MAX).await.unwrap());
        }
        Ok(answer.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn attack_116_messages_that_a_worker_may_not_send_are_refused_before_they_are_read() {
        let (here, there) = UnixStream::pair().unwrap();
        for socket in [&here, &there] {
            socket.set_nonblocking(true).unwrap();
        }
        let mut capabilities = Capabilities::default();
        capabilities.add(Echo);
        let mut grants = Grants::default();
        grants.give::<Echo>(());
        let granted = capabilities.granted(&grants, &[]).unwrap();
        let limits = Limits::default();
        let ways = Ways::default();
        let open = [
            ways.open(7, Way::new(&limits, None, granted)),
            ways.open(8, Way::new(&limits, None, Granted::default())),
        ];
        let (room, lane) = (ways.room.clone(), Arc::new(Semaphore::new(STREAMS_MAX)));
        let all = room.available_permits();
        let served = service_fn(move |request| {
            let (ways, lane) = (ways.clone(), lane.clone());
            async move { Ok(ways.pass_on(&lane, request).await) }
        });
        tokio::spawn(wire::answer(here, Side::Node, served));
        let (worker, connection) = wire::ask(there, Side::Worker).await.unwrap();
        tokio::spawn(connection);

        let echo = ("test:echo", "echo");
        let short = || Body::full("hi");
        assert_eq!(tell(&worker, 7, echo, short()).await.unwrap(), "hi");
        for (workload, to, refusal) in [
            (7, ("test:echo", "shout"), ChannelError::NoSuchMethod),
            (7, ("test:other", "echo"), ChannelError::NotGranted),
            (7, ("", ""), ChannelError::NotGranted),
            (8, echo, ChannelError::NotGranted),
            (9, echo, ChannelError::NotGranted),
        ] {
            let refused = tell(&worker, workload, to, short()).await;
            assert_eq!(refused, Err(refusal), "{workload} {to:?}");
        }
        // One that does not say how long it is, and one that says it.
        let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"hi")))]);
        let unsaid = Body::new(StreamBody::new(frames));
        let long = Body::full(vec![0; MESSAGE_BYTES_MAX + 1]);
        for message in [unsaid, long] {
            let refused = tell(&worker, 7, echo, message).await;
            assert_eq!(refused, Err(ChannelError::TooLarge));
        }
        let held: Vec<_> = (0..2)
            .map(|_| {
                let worker = worker.clone();
                let wait = ("test:echo", "wait");
                tokio::spawn(async move { tell(&worker, 7, wait, Body::full("x")).await })
            })
            .collect();
        while room.available_permits() > all - 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            tell(&worker, 7, echo, short()).await,
            Err(ChannelError::Busy)
        );
        // Who gives up makes room for the next, and takes nothing along.
        for held in held {
            held.abort();
        }
        while tell(&worker, 7, echo, short()).await.is_err() {}
        // An answer without an end ends with its workload.
        let endless = tokio::spawn({
            let worker = worker.clone();
            let endless = ("test:echo", "endless");
            async move { tell(&worker, 7, endless, Body::full("x")).await }
        });
        while room.available_permits() == all {
            tokio::task::yield_now().await;
        }
        drop(open);
        assert_eq!(endless.await.unwrap().unwrap(), "x");
        while room.available_permits() < all {
            tokio::task::yield_now().await;
        }
    }

    fn of_depth(depth: u32) -> CallContext {
        CallContext {
            depth,
            ..CallContext::default()
        }
    }

    #[test]
    fn what_is_made_for_a_call_is_no_more_urgent_and_tells_it_what_came_of_it() {
        let ways = Ways::default();
        let way = Way::new(&Limits::default(), None, Granted::default());
        let open = ways.open(1, way);
        let (trace, now) = (weft_call::TraceContext::root(1, 2), Instant::now());
        let served = |priority, attempt| CallContext {
            trace: Some(trace.clone()),
            priority,
            attempt,
            spent: Some(Spent::default()),
            ..CallContext::default()
        };
        let claimed = |priority| CallContext {
            trace: Some(trace.clone()),
            priority,
            ..CallContext::default()
        };
        for (serving, says, believed) in [
            (
                Some(Priority::Critical),
                Priority::Critical,
                Priority::Critical,
            ),
            (Some(Priority::Low), Priority::Critical, Priority::Low),
            (Some(Priority::Usual), Priority::Low, Priority::Low),
            // On its own account.
            (None, Priority::Critical, Priority::Usual),
        ] {
            let context = serving.map(|priority| served(priority, 1));
            let entered = context.as_ref().map(|context| open.enter(context));
            let found = open.way.believed(claimed(says), now);
            assert_eq!(found.priority, believed, "{serving:?} {says:?}");
            assert_eq!(found.repeated, serving.is_some(), "it serves a further try");
            if let Some(spent) = &found.spent {
                spent.tell();
            }
            let told = context.and_then(|context| context.spent);
            assert_eq!(told.is_some_and(|spent| spent.is_told()), serving.is_some());
            drop(entered);
            assert!(open.way.serving.lock().is_empty());
        }
    }

    #[test]
    fn a_claim_is_believed_as_far_as_it_can_be_true() {
        let limits = Limits {
            request_timeout: Duration::from_secs(90),
            ..Limits::default()
        };
        let ways = Ways::default();
        let open = ways.open(1, Way::new(&limits, None, Granted::default()));
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
        let deep = open.enter(&of_depth(9)).expect("there is room");
        let deeper = open.enter(&of_depth(1_000)).expect("there is room");
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
        let open = Ways::default().open(1, Way::new(&limits, None, Granted::default()));
        let held = [open.enter(&of_depth(0)), open.enter(&of_depth(0))];
        assert!(held.iter().all(Option::is_some));
        assert!(open.enter(&of_depth(0)).is_none());
        drop(held);
        assert!(open.enter(&of_depth(0)).is_some());
    }
}
