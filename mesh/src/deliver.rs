//! The one door in: a call that was admitted is handed to the local workload.
//!
//! Calls of the same node come straight from `call.rs`, those of other nodes from `inbound.rs`, those at `localhost` from `outbound.rs`;
//! limits, header rules and whatever `admission.rs` asks therefore exist once. The workload is awaited inline, on
//! the caller's core: no queue, no socket, no wake of another thread.
//!
//! Invariants: a call that policies or limits did not let in was not shown to the workload; what a workload receives carries a [`CallContext`] made by
//! the host, and says of trace and baggage what that says; hop-by-hop headers and `x-weft-*` pass in neither direction; a response has a head that any hop can pass on, and content
//! only where its request and status allow some.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use weft_api::identity::SpiffeId;
use weft_call::{Attribute, Failure, FailureKind, Processed, Spent, counted::Counted};
use weft_turns::Tenant;

use crate::{
    Body, CallContext, Inner, LocalWorkload, WorkloadInfo, WorkloadService,
    activity::Activity,
    admission::{self, Admitted, Asking, Places},
    door::Door,
    guards::{Guards, Known},
    headers,
};

/// Copies of the address map; attaching one of ten thousand pods clones one hundred-and-sixtieth of them.
const SHARDS: usize = 64;

/// The workloads of this node by the address they are called at. Reading takes no lock.
pub(crate) struct Attachments {
    shards: [Shard; SHARDS],
    /// Of addresses, for which shard they are in.
    hasher: RandomState,
    guards: Arc<Guards>,
}

impl Default for Attachments {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard::default()),
            hasher: RandomState::default(),
            guards: Arc::default(),
        }
    }
}

#[derive(Default)]
struct Shard(ArcSwap<ByAddress>);

type ByAddress = HashMap<SocketAddr, Arc<Attached>, RandomState>;

/// A workload that takes calls.
pub(crate) struct Attached {
    pub(crate) identity: SpiffeId,
    pub(crate) spiffe_id: Arc<str>,
    pub(crate) workload: Arc<WorkloadInfo>,
    pub(crate) tenant: Tenant,
    /// Of the pod that it is of.
    pub(crate) pod_ip: Option<IpAddr>,
    /// What policies say of it, as of the last call that asked.
    pub(crate) known: ArcSwapOption<Known>,
    guards: Arc<Guards>,
    service: WorkloadService,
    places: Arc<Places>,
    activity: Arc<Activity>,
}

impl Attachments {
    /// Who judges calls to what is attached here.
    pub(crate) fn guards(&self) -> &Arc<Guards> {
        &self.guards
    }

    fn shard(&self, address: SocketAddr) -> &ArcSwap<ByAddress> {
        &self.shards[self.hasher.hash_one(address) as usize % SHARDS].0
    }

    /// One workload, wherever it is called: its places are its own, and not an address's. The first is its pod's.
    pub(crate) fn insert(
        &self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        workload: LocalWorkload,
    ) {
        let mut addresses = addresses.into_iter().peekable();
        let attached = Arc::new(Attached {
            pod_ip: addresses.peek().map(SocketAddr::ip),
            known: ArcSwapOption::empty(),
            guards: Arc::clone(&self.guards),
            spiffe_id: workload.identity.to_string().into(),
            tenant: Tenant::named(&workload.identity.namespace),
            identity: workload.identity,
            workload: Arc::new(workload.workload),
            service: workload.service,
            places: Places::new(workload.in_flight_max),
            activity: Arc::default(),
        });
        for address in addresses {
            self.shard(address).rcu(|map| {
                let mut map = HashMap::clone(map);
                map.insert(address, Arc::clone(&attached));
                map
            });
        }
    }

    /// The workload takes no further call, at this address or another.
    pub(crate) fn remove(&self, address: SocketAddr) -> Option<Arc<Attached>> {
        let mut removed = None;
        self.shard(address).rcu(|map| {
            let mut map = HashMap::clone(map);
            removed = map.remove(&address);
            map
        });
        if let Some(attached) = &removed {
            attached.places.close();
        }
        removed
    }

    /// What was counted of calls, by the address of the pod: a workload with several ports once.
    pub(crate) fn counted(&self, now: Instant) -> BTreeMap<IpAddr, Counted> {
        let mut seen = HashSet::new();
        let mut counted: BTreeMap<IpAddr, Counted> = BTreeMap::new();
        for shard in &self.shards {
            for (address, attached) in &**shard.0.load() {
                if seen.insert((address.ip(), Arc::as_ptr(attached))) {
                    let calls = attached.activity.counted(now);
                    let all = counted.entry(address.ip()).or_default();
                    // One that began anew is told by it.
                    all.since = all.since.max(calls.since);
                    all.add(&calls);
                }
            }
        }
        counted
    }

    pub(crate) fn get(&self, address: SocketAddr) -> Option<Arc<Attached>> {
        self.shard(address).load().get(&address).cloned()
    }
}

/// A workload that was taken off the mesh, with calls perhaps still in flight.
pub struct Detached(Option<Arc<Places>>);

impl Detached {
    pub(crate) fn new(attached: Option<Arc<Attached>>) -> Self {
        Self(attached.map(|attached| Arc::clone(&attached.places)))
    }

    /// Calls that have not finished, response bodies included that are not in memory.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.as_ref().map_or(0, |places| places.in_flight())
    }

    /// Waits until no call is in flight. The caller brings the deadline.
    pub async fn drained(&self) {
        if let Some(places) = &self.0 {
            places.drained().await;
        }
    }
}

/// A workload's response, and the proof that the call counts as in flight while it is read, if it comes in parts.
pub(crate) struct Delivered {
    pub(crate) response: Response<Body>,
    /// None where it was not shown to the workload: policies answered it.
    pub(crate) admitted: Option<Admitted>,
    /// From the request's arrival at the workload to the head of its response: what is not the mesh's doing.
    pub(crate) worked: Duration,
    /// When that head came.
    pub(crate) answered: Instant,
    /// Calls that the workload made for it were tried as often as they may be, or it wants no other try.
    pub(crate) spent: bool,
    /// For how long the workload wants to be left alone.
    pub(crate) rests: Option<Duration>,
    /// What it says of the call.
    pub(crate) attributes: Vec<Attribute>,
}

/// Has the call judged and admitted, and lets the workload answer it. `door`: what policies ask of calls to the endpoint, as the table has it.
///
/// # Errors
/// The refusal of `guards.rs` or `admission.rs`, or the workload's own failure as it was made.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds what it is given twice, here four hundred bytes"
)]
pub(crate) fn deliver<'d>(
    inner: &'d Inner,
    door: Option<Arc<Door>>,
    to: &'d Attached,
    mut request: Request<Body>,
    mut context: CallContext,
) -> impl Future<Output = Result<Delivered, Failure>> + Send + 'd {
    async move {
        let mut handed_over = Instant::now();
        if let Some(response) = to.guards.judge(to, &mut request, &context)? {
            return Ok(Delivered {
                response,
                admitted: None,
                worked: Duration::ZERO,
                answered: handed_over,
                spent: false,
                rests: None,
                attributes: Vec::new(),
            });
        }
        let asking = Asking {
            context: &context,
            uri: request.uri(),
            headers: request.headers(),
            now: handed_over,
        };
        let guarded = door.as_deref().map(|door| (door, inner.started));
        let admitted = admission::admit(&to.places, guarded, &asking).inspect_err(|failure| {
            if let (Some(door), FailureKind::LimitReached) = (&door, failure.kind) {
                inner.metrics.acted(&door.labels, "rate-limited");
            }
        })?;
        let mut admitted = admitted.counted(to.activity.begin(handed_over));
        if let Some(door) = &door {
            let permit = door.enter(&context).await;
            let permit = permit.inspect_err(|_| inner.metrics.acted(&door.labels, "shed"))?;
            admitted = admitted.permitted(permit);
            handed_over = Instant::now();
        }
        let spent = Spent::default();
        context.spent = Some(spent.clone());

        headers::keep_what_passes(request.headers_mut());
        // The authority is in the URI, on every way in.
        request.headers_mut().remove(header::HOST);
        if let Some(trace) = context.trace.as_mut().filter(|trace| trace.is_recorded()) {
            // What the workload does is below the span of its own part of the call.
            *trace = trace.served();
        }
        // Recorded or not: a guest that passes it on itself must not break the chain.
        context.carry(request.headers_mut());
        request.extensions_mut().insert(context);

        let method = request.method().clone();
        let answer = to.service.answer(request).await;
        // Who would make the call again would have those made again, too.
        let mut response = answer.map_err(|failure| match spent.is_told() {
            true => failure.with_processed(Processed::Yes),
            false => failure,
        })?;
        let answered = Instant::now();

        headers::keep_what_passes(response.headers_mut());
        check_head(&response)?;
        let worked = answered.saturating_duration_since(handed_over);
        to.activity.answered(worked);
        admitted.answered(worked);
        Ok(Delivered {
            response: without_content(&method, response),
            admitted: Some(admitted),
            worked,
            answered,
            spent: spent.is_told(),
            rests: spent.rests(),
            attributes: spent.attributes(),
        })
    }
}

/// A head that a codec on the way would refuse fails here, where it is known whose it is: on a connection it would look as if the node
/// had broken off.
fn check_head(response: &Response<Body>) -> Result<(), Failure> {
    let wrong = if response.status().is_informational() {
        "it answered with an interim status (1xx), which no workload can".to_owned()
    } else if !headers::within_limits(&Uri::default(), response.headers()) {
        format!("the head of its response has {}", headers::TOO_LARGE)
    } else if headers::content_length(response.headers()).is_err() {
        "the content-length of its response is not one number".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(
        FailureKind::BadResponse,
        format!("the workload failed: {wrong}"),
    ))
}

/// The response without content where HTTP has none: to HEAD, and with 204 and 304. `content-length` then says what a GET would have
/// got. HTTP/1 codecs do this by themselves; those of HTTP/2 send what they are given, and the other end takes it for an error.
/// Sources: RFC 9110 §6.4.1, §8.6, §9.3.2, §15.3.5, §15.4.5.
pub(crate) fn without_content(method: &Method, response: Response<Body>) -> Response<Body> {
    let status = response.status();
    if *method != Method::HEAD
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return response;
    }
    let (mut head, body) = response.into_parts();
    if status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    } else if status != StatusCode::NOT_MODIFIED
        // A handler that looks at the method may have left the content out itself: of that, nothing is said.
        && let Some(length @ 1..) = body.size_hint().exact()
    {
        let lines = head.headers.entry(header::CONTENT_LENGTH);
        lines.or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(head, Body::empty())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::service_fn;

    use super::*;

    fn attached(
        answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Arc<Attached> {
        let attachments = Attachments::default();
        let address: SocketAddr = ([10, 42, 0, 1], 80).into();
        attachments.insert([address], workload(answer));
        attachments.get(address).expect("attached")
    }

    /// What comes of a call that nobody made, at an address that no policy is for.
    async fn delivered(to: &Attached, request: Request<Body>) -> Result<Delivered, Failure> {
        let mesh = crate::Mesh::builder("a", "cluster.local").build();
        deliver(&mesh.inner, None, to, request, CallContext::default()).await
    }

    /// One that takes a call at a time.
    fn workload(
        answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> LocalWorkload {
        LocalWorkload {
            identity: SpiffeId::new("cluster.local", "vote", "web"),
            workload: WorkloadInfo::default(),
            service: WorkloadService::new(service_fn(move |_request| {
                let answer = answer();
                async move { Ok(answer) }
            })),
            in_flight_max: 1,
        }
    }

    #[tokio::test]
    async fn what_has_no_content_has_no_body_and_keeps_its_length() {
        for (method, status, declared, length) in [
            ("GET", 200_u16, None, "none, 5 bytes"),
            ("GET", 200, Some("5"), "5, 5 bytes"),
            // What the GET would have had, whether the handler says so or its body does.
            ("HEAD", 200, None, "5, 0 bytes"),
            ("HEAD", 200, Some("1234"), "1234, 0 bytes"),
            ("HEAD", 404, None, "5, 0 bytes"),
            ("GET", 204, Some("5"), "none, 0 bytes"),
            ("HEAD", 204, Some("5"), "none, 0 bytes"),
            ("GET", 304, Some("1234"), "1234, 0 bytes"),
            ("GET", 304, None, "none, 0 bytes"),
        ] {
            let to = attached(move || {
                let mut response = Response::builder().status(status);
                if let Some(declared) = declared {
                    response = response.header(header::CONTENT_LENGTH, declared);
                }
                response.body(Body::full("hello")).expect("a response")
            });
            let request = Request::builder().method(method).body(Body::empty());
            let request = request.expect("a request");
            let delivered = delivered(&to, request).await;
            let response = delivered.expect("an answer").response;
            let said = response.headers().get(header::CONTENT_LENGTH).cloned();
            let said = said.map_or("none".to_owned(), |said| {
                said.to_str().expect("a number").to_owned()
            });
            let body = response.into_body().collect().await.expect("a body");
            let found = format!("{said}, {} bytes", body.to_bytes().len());
            assert_eq!(found, length, "{method} {status} {declared:?}");
        }
    }

    #[tokio::test]
    async fn a_head_that_no_hop_passes_on_is_the_workloads_failure() {
        let failed = async |answer: fn() -> Response<Body>| {
            let request = Request::new(Body::empty());
            let delivered = delivered(&attached(answer), request).await;
            delivered.err().expect("a failure").to_string()
        };
        let text = [
            failed(|| {
                let response = Response::builder().status(103).body(Body::empty());
                response.expect("a response")
            })
            .await,
            failed(|| {
                let mut response = Response::builder();
                for number in 0..257 {
                    response = response.header(format!("x-{number}"), "1");
                }
                response.body(Body::empty()).expect("a response")
            })
            .await,
            failed(|| {
                let response = Response::builder().header("content-length", "5, 5");
                response.body(Body::full("hello")).expect("a response")
            })
            .await,
        ];
        insta::assert_snapshot!(text.join("\n"), @r"
        the workload failed: it answered with an interim status (1xx), which no workload can
        the workload failed: the head of its response has more than 256 lines or 64 KiB
        the workload failed: the content-length of its response is not one number
        ");
    }

    #[tokio::test]
    async fn a_call_that_looked_the_workload_up_before_it_left_is_turned_away() {
        let attachments = Attachments::default();
        let address: SocketAddr = ([10, 42, 0, 1], 80).into();
        attachments.insert([address], workload(|| Response::new(Body::empty())));
        let found = attachments.get(address).expect("attached");
        let call = || delivered(&found, Request::new(Body::empty()));
        let answered = call().await.expect("it is here");
        assert!(matches!(call().await, Err(failure) if failure.kind == FailureKind::Overloaded));
        drop(answered);

        let detached = Detached::new(attachments.remove(address));
        assert_eq!(detached.in_flight(), 0, "whoever waits for it stops it now");
        let late = call().await.err().expect("turned away");
        assert!(late.kind == FailureKind::NotHere && late.never_processed());
        assert_eq!(detached.in_flight(), 0);
    }

    /// A container with two ports had twice the calls that its limits allow.
    #[tokio::test]
    async fn a_workload_has_its_places_once_however_many_ports_it_has() {
        let attachments = Attachments::default();
        let ports = [80, 9090].map(|port| SocketAddr::from(([10, 42, 0, 1], port)));
        attachments.insert(ports, workload(|| Response::new(Body::empty())));
        let found = ports.map(|address| attachments.get(address).expect("attached"));
        let call = |at: usize| delivered(&found[at], Request::new(Body::empty()));
        let held = call(0).await.expect("a place");
        for at in 0..2 {
            let full = call(at).await.err().expect("turned away");
            assert_eq!(full.kind, FailureKind::Overloaded);
        }
        drop(held);
        let held = call(1).await.expect("a place");
        let detached = ports.map(|address| Detached::new(attachments.remove(address)));
        assert!(detached.iter().all(|detached| detached.in_flight() == 1));
        drop(held);
        detached[0].drained().await;
        let late = call(1).await.err().expect("turned away");
        assert_eq!(late.kind, FailureKind::NotHere);
    }
}
