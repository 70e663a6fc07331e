//! What is told of single calls to whoever watches them: taps, access logs, traces.
//!
//! ```text
//! a call begins   does anybody watch? ── no ──► nothing more (one relaxed load)
//!                        └─ yes ──► Seen: method, host, path, trace; noted at each further try
//! it is charged   measure.rs ──► for each of its edges a Sighting, to each Watch whose interest it meets
//! ```
//! A watch has a bounded queue. Where it is full the sighting is dropped and counted: nobody who calls waits for somebody who reads.
//!
//! Invariants: what is told has no header, no body and no query, as secrets are in those; who asks for one namespace is told of calls only
//! that a workload of it made or took; texts of callers are cut off.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use http::{Method, Uri};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use weft_call::Attribute;

use crate::{
    CallContext, Inner, Mesh, TraceContext, WorkloadInfo,
    fault::Injected,
    metrics::{Edge, Exemplar, Outcome, Reporter},
};

/// Watches at the same time; each has its queue.
pub const WATCHES_MAX: usize = 32;
/// Sightings that wait for one reader, at most and usually: half a kilobyte each, and a tenth of a second at ten thousand calls a second.
pub const QUEUE_MAX: usize = 65_536;
pub const QUEUE_USUAL: usize = 1024;
/// Of a host's name and a path, so much is told.
const TEXT_BYTES_MAX: usize = 512;
/// Tries of a call that are noted; more are counted only.
const RETRIES_MAX: usize = 16;

/// Somebody watches all calls, or those whose trace is recorded.
const ALL: u8 = 1;
const RECORDED: u8 = 2;

/// Which calls somebody watches. Every part has to fit; one that is not there fits all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Of the end that saw the call.
    pub namespace: Option<String>,
    /// Only those whose trace somebody records.
    pub recorded: bool,
    pub reporter: Option<Reporter>,
    /// Name of the workload that calls or is called.
    pub workload: Option<String>,
    /// Name of the service that is called.
    pub service: Option<String>,
    pub method: Option<String>,
    /// How the path begins.
    pub path: Option<String>,
    /// Status codes, the last included; 0 is a call without an answer.
    pub codes: Option<(u16, u16)>,
    pub slower_than: Option<Duration>,
    /// So many of a thousand of those that fit, evenly.
    pub share: u16,
}

impl Default for Interest {
    fn default() -> Self {
        Self {
            namespace: None,
            recorded: false,
            reporter: None,
            workload: None,
            service: None,
            method: None,
            path: None,
            codes: None,
            slower_than: None,
            share: 1000,
        }
    }
}

impl Interest {
    fn meets(&self, sighting: &Sighting) -> bool {
        fn fits<T: PartialEq + ?Sized>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let (source, destination) = (sighting.source(), sighting.destination());
        let own = match sighting.reporter() {
            Reporter::Source => source,
            Reporter::Destination => destination,
        };
        let workload = self.workload.as_deref();
        (!self.recorded || sighting.trace().is_some_and(TraceContext::is_recorded))
            && fits(self.namespace.as_deref(), &*own.namespace)
            && fits(self.reporter.as_ref(), &sighting.reporter())
            && workload.is_none_or(|name| source.name == name || destination.name == name)
            && fits(self.service.as_deref(), sighting.service().1)
            && fits(self.method.as_deref(), sighting.method())
            && self
                .path
                .as_deref()
                .is_none_or(|begin| sighting.path().starts_with(begin))
            && self
                .codes
                .is_none_or(|(least, most)| (least..=most).contains(&sighting.code))
            && self.slower_than.is_none_or(|least| sighting.took >= least)
    }
}

/// A try that was not the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// After how much of the call's time it was over.
    pub after: Duration,
    /// Of the endpoint.
    pub address: SocketAddr,
    /// A kind of failure, `answered` for an answer that is asked for again, or `hedged` for one that did not come in time.
    pub reason: &'static str,
}

/// What was done to a call on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoiled {
    pub delay: Option<Duration>,
    /// The status that it was answered with.
    pub abort: Option<u16>,
}

/// What is known of a call from its request, and from its tries.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    authority: Box<str>,
    path: Box<str>,
    /// The span of the call at the end that calls, and the one that it was made in.
    trace: Option<TraceContext>,
    parent: Option<u64>,
    retries: Vec<Retried>,
    tries: u32,
    attributes: Vec<Attribute>,
    /// The try that answered; the last where this says nothing.
    answered: Option<u32>,
    spoiled: Option<Spoiled>,
}

impl Asked {
    fn tried_again(&mut self, retried: Retried) {
        self.tries = self.tries.saturating_add(1);
        if self.retries.len() < RETRIES_MAX {
            self.retries.push(retried);
        }
    }
}

/// A call that somebody watches, while it is under way.
pub(crate) struct Seen {
    inner: Arc<Inner>,
    asked: Arc<Asked>,
    started: Instant,
}

impl Seen {
    /// Of a request that is sent, or came, in the span of `trace`, below `parent`. None where nobody watches it.
    pub(crate) fn of(
        inner: &Arc<Inner>,
        (method, uri): (&Method, &Uri),
        trace: Option<&TraceContext>,
        parent: Option<u64>,
        started: Instant,
    ) -> Option<Arc<Self>> {
        let is_recorded = trace.is_some_and(TraceContext::is_recorded);
        if !inner.watches.want(is_recorded) {
            return None;
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Some(Arc::new(Self {
            inner: Arc::clone(inner),
            asked: Arc::new(Asked {
                method: method.clone(),
                authority: beginning(authority),
                path: beginning(uri.path()),
                trace: trace.cloned(),
                parent,
                retries: Vec::new(),
                tries: 0,
                attributes: Vec::new(),
                answered: None,
                spoiled: None,
            }),
            started,
        }))
    }

    /// The span above a call that is made in `context` and has these lines, where somebody might ask for it.
    pub(crate) fn parent(
        inner: &Inner,
        context: &CallContext,
        lines: &http::HeaderMap,
    ) -> Option<u64> {
        if !inner.watches.want(true) {
            return None;
        }
        let own = TraceContext::from_headers(lines).map(|trace| trace.span_id);
        own.or(context.trace.as_ref().map(|trace| trace.span_id))
    }

    /// A try came to nothing, and there is another.
    pub(crate) fn retried(this: &mut Option<Arc<Self>>, address: SocketAddr, reason: &'static str) {
        if let Some((asked, started)) = Self::change(this) {
            asked.tried_again(Retried {
                after: started.elapsed(),
                address,
                reason,
            });
        }
    }

    /// The workload that served the call has said this of it.
    pub(crate) fn described(this: &mut Option<Arc<Self>>, attributes: Vec<Attribute>) {
        if attributes.is_empty() {
            return;
        }
        let seen = this.as_mut().and_then(Arc::get_mut);
        if let Some(asked) = seen.and_then(|seen| Arc::get_mut(&mut seen.asked)) {
            asked.attributes = attributes;
        }
    }

    /// There was a second try beside the first, `after` so long; it answered, or the first did.
    pub(crate) fn hedged(
        this: &mut Option<Arc<Self>>,
        address: SocketAddr,
        after: Duration,
        is_seconds: bool,
    ) {
        if let Some((asked, _)) = Self::change(this) {
            asked.answered = (!is_seconds).then_some(asked.tries);
            asked.tried_again(Retried {
                after,
                address,
                reason: "hedged",
            });
        }
    }

    /// A fault is injected into it.
    pub(crate) fn spoiled(this: &mut Option<Arc<Self>>, injected: Injected) {
        if let Some((asked, _)) = Self::change(this) {
            asked.spoiled = Some(Spoiled {
                delay: injected.delay,
                abort: injected.abort.map(|status| status.as_u16()),
            });
        }
    }

    /// What is known of a call that is under way, and when it began.
    fn change(this: &mut Option<Arc<Self>>) -> Option<(&mut Asked, Instant)> {
        let seen = Arc::get_mut(this.as_mut()?)?;
        Some((Arc::get_mut(&mut seen.asked)?, seen.started))
    }

    /// Tells whoever watches that the call is over, as `edge` saw it.
    pub(crate) fn tell(&self, edge: &Arc<Edge>, ended: &Ended) {
        let sighting = Sighting {
            edge: Arc::clone(edge),
            asked: Arc::clone(&self.asked),
            outcome: ended.outcome,
            code: ended.outcome.code,
            grpc: ended.outcome.grpc,
            flag: ended.outcome.flag,
            began: ended.began,
            took: ended.took,
            request_bytes: ended.request_bytes,
            response_bytes: ended.response_bytes,
        };
        if let Some(span) = sighting.span().filter(|span| span.0.is_recorded()) {
            edge.exemplify(
                ended.outcome,
                Exemplar {
                    trace_id: span.0.trace_id,
                    span_id: span.0.span_id,
                    took: ended.took,
                    at: sighting.began,
                },
            );
        }
        self.inner.watches.tell(sighting);
    }
}

/// How a call ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

/// So much of a text as is told.
fn beginning(text: &str) -> Box<str> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

/// One call that is over, as one of its ends saw it. A call within a node is seen at both.
#[derive(Debug, Clone)]
pub struct Sighting {
    edge: Arc<Edge>,
    asked: Arc<Asked>,
    outcome: Outcome,
    /// 0 where there was no answer.
    pub code: u16,
    /// Some for gRPC.
    pub grpc: Option<u16>,
    /// Envoy's response flag, `-` for none.
    pub flag: &'static str,
    pub began: SystemTime,
    pub took: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl Sighting {
    /// Which end saw it.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.edge.of.reporter
    }

    /// Who calls.
    #[must_use]
    pub fn source(&self) -> &WorkloadInfo {
        &self.edge.of.source
    }

    /// Whoever was called; all empty where nobody was reached.
    #[must_use]
    pub fn destination(&self) -> &WorkloadInfo {
        &self.edge.of.destination
    }

    /// `spiffe://…` of both ends; empty where nobody is.
    #[must_use]
    pub fn principals(&self) -> (&str, &str) {
        (
            &self.edge.of.source_principal,
            &self.edge.of.destination_principal,
        )
    }

    /// Namespace and name of what was called.
    #[must_use]
    pub fn service(&self) -> (&str, &str) {
        let service = &self.edge.of.service;
        (&service.namespace, &service.name)
    }

    /// `mutual_tls`, `in_process`, or `none` where nobody was reached.
    #[must_use]
    pub fn security(&self) -> &'static str {
        self.edge.of.proven()
    }

    /// `http`, `grpc` or `tcp`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.outcome.protocol()
    }

    #[must_use]
    pub fn method(&self) -> &str {
        self.asked.method.as_str()
    }

    /// The host that was asked for.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.asked.authority
    }

    /// Without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.asked.path
    }

    /// Tries before the last.
    #[must_use]
    pub fn retries(&self) -> &[Retried] {
        &self.asked.retries
    }

    /// What the workload that served it says of it; nothing at the end that calls.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        match self.reporter() {
            Reporter::Source => &[],
            Reporter::Destination => &self.asked.attributes,
        }
    }

    /// What was done to it on purpose.
    #[must_use]
    pub fn spoiled(&self) -> Option<Spoiled> {
        self.asked.spoiled
    }

    /// The trace that the call is of, at the end that calls.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceContext> {
        self.asked.trace.as_ref()
    }

    /// The span that this end's part of the call is, and the one above it.
    #[must_use]
    pub fn span(&self) -> Option<(TraceContext, Option<u64>)> {
        let call = self.asked.trace.as_ref()?;
        Some(match self.reporter() {
            Reporter::Source => (call.clone(), self.asked.parent),
            Reporter::Destination => {
                let tried = call.of_try(self.asked.answered.unwrap_or(self.asked.tries));
                (tried.served(), Some(tried.span_id))
            }
        })
    }
}

/// One who watches.
#[derive(Debug)]
struct Watch {
    interest: Interest,
    queue: mpsc::Sender<Arc<Sighting>>,
    met: AtomicU64,
    lost: AtomicU64,
}

impl Watch {
    /// Whether this one is among the share that is told.
    fn takes_its_turn(&self) -> bool {
        let share = u64::from(self.interest.share.min(1000));
        if share == 1000 {
            return true;
        }
        let number = self.met.fetch_add(1, Ordering::Relaxed) % 1000;
        (number + 1) * share / 1000 > number * share / 1000
    }
}

/// All who watch the calls of a node.
#[derive(Default)]
pub(crate) struct Watches {
    /// What is watched at all, so that a call which nobody watches costs one load.
    wanted: AtomicU8,
    all: ArcSwap<Vec<Arc<Watch>>>,
    /// Held while one comes or goes, so that what is wanted is that of all.
    changing: Mutex<()>,
}

impl Watches {
    fn want(&self, is_recorded: bool) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted & ALL != 0 || (is_recorded && wanted & RECORDED != 0)
    }

    fn tell(&self, sighting: Sighting) {
        let sighting = Arc::new(sighting);
        for watch in self.all.load().iter() {
            if watch.interest.meets(&sighting)
                && watch.takes_its_turn()
                && watch.queue.try_send(Arc::clone(&sighting)).is_err()
            {
                watch.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many watch.
    pub(crate) fn len(&self) -> usize {
        self.all.load().len()
    }

    /// Takes one up, or lets one go.
    fn change(&self, change: impl Fn(&mut Vec<Arc<Watch>>)) {
        let _changing = self.changing.lock();
        self.all.rcu(|all| {
            let mut all = Vec::clone(all);
            change(&mut all);
            all
        });
        let wanted = |watch: &Arc<Watch>| match watch.interest.recorded {
            true => RECORDED,
            false => ALL,
        };
        let all = self.all.load();
        let wanted = all.iter().map(wanted).fold(0, |all, one| all | one);
        self.wanted.store(wanted, Ordering::Relaxed);
    }
}

/// Calls as they end. Whoever drops it watches no longer.
pub struct Sightings {
    inner: Arc<Inner>,
    watch: Arc<Watch>,
    queue: mpsc::Receiver<Arc<Sighting>>,
}

impl Sightings {
    /// The next call.
    pub async fn next(&mut self) -> Arc<Sighting> {
        match self.queue.recv().await {
            Some(sighting) => sighting,
            // Its sender is in here.
            None => std::future::pending().await,
        }
    }

    /// A call that has ended already.
    pub fn try_next(&mut self) -> Option<Arc<Sighting>> {
        self.queue.try_recv().ok()
    }

    /// How many there was no room for since this was last asked.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.watch.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        let own = &self.watch;
        let change = |all: &mut Vec<Arc<Watch>>| all.retain(|watch| !Arc::ptr_eq(watch, own));
        self.inner.watches.change(change);
    }
}

impl Mesh {
    /// Calls from now on that meet `interest`, when they end, of which so many wait for their reader; none where [`WATCHES_MAX`] watch
    /// already.
    #[must_use]
    pub fn watch_calls(&self, interest: Interest, queue: usize) -> Option<Sightings> {
        let (sender, queue) = mpsc::channel(queue.clamp(1, QUEUE_MAX));
        let watch = Arc::new(Watch {
            interest,
            queue: sender,
            met: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let added = &watch;
        self.inner.watches.change(|all| {
            if all.len() < WATCHES_MAX {
                all.push(Arc::clone(added));
            }
        });
        let all = self.inner.watches.all.load();
        let is_in = all.iter().any(|other| Arc::ptr_eq(other, &watch));
        is_in.then(|| Sightings {
            inner: Arc::clone(&self.inner),
            watch,
            queue,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transport, metrics::EdgeKey, table::ServiceLabels};

    fn edge(reporter: Reporter) -> Arc<Edge> {
        let workload = |namespace: &str, name: &str| {
            Arc::new(WorkloadInfo {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                ..WorkloadInfo::default()
            })
        };
        Arc::new(Edge::new(EdgeKey {
            reporter,
            source: workload("shop", "web"),
            source_principal: "spiffe://cluster.local/ns/shop/sa/web".into(),
            destination: workload("bank", "pay"),
            destination_principal: "spiffe://cluster.local/ns/bank/sa/pay".into(),
            service: Arc::new(ServiceLabels::new("bank", "pay")),
            transport: Some(Transport::InProcess),
        }))
    }

    fn ended(code: u16) -> Ended {
        Ended {
            outcome: Outcome {
                code,
                grpc: None,
                flag: "-",
                tcp: false,
            },
            began: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(5),
            request_bytes: 1,
            response_bytes: 2,
        }
    }

    fn call(mesh: &Mesh, path: &str, trace: Option<&TraceContext>) -> Option<Arc<Seen>> {
        let uri = format!("http://pay.bank{path}").parse().expect("a URI");
        Seen::of(
            &mesh.inner,
            (&Method::GET, &uri),
            trace,
            None,
            Instant::now(),
        )
    }

    fn tell(mesh: &Mesh, path: &str, code: u16) {
        if let Some(seen) = call(mesh, path, None) {
            for reporter in [Reporter::Source, Reporter::Destination] {
                seen.tell(&edge(reporter), &ended(code));
            }
        }
    }

    fn told(sightings: &mut Sightings) -> Vec<String> {
        std::iter::from_fn(|| sightings.try_next())
            .map(|seen| format!("{:?} {} {}", seen.reporter(), seen.path(), seen.code))
            .collect()
    }

    #[test]
    fn a_namespace_is_told_of_its_own_end_alone_and_of_no_query() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        assert!(call(&mesh, "/", None).is_none(), "nobody watches");
        let of = |namespace: &str| Interest {
            namespace: Some(namespace.to_owned()),
            ..Interest::default()
        };
        let watch = |interest| mesh.watch_calls(interest, QUEUE_USUAL).expect("room");
        let (mut shop, mut bank, mut other) =
            (watch(of("shop")), watch(of("bank")), watch(of("other")));
        let mut failures = watch(Interest {
            codes: Some((500, 599)),
            path: Some("/b".to_owned()),
            ..Interest::default()
        });
        tell(&mesh, "/a?token=secret", 200);
        tell(&mesh, "/b", 503);
        assert_eq!(told(&mut shop), ["Source /a 200", "Source /b 503"]);
        assert_eq!(
            told(&mut bank),
            ["Destination /a 200", "Destination /b 503"]
        );
        assert_eq!(told(&mut other), [""; 0]);
        assert_eq!(told(&mut failures), ["Source /b 503", "Destination /b 503"]);
        drop((shop, bank, other, failures));
        assert!(
            call(&mesh, "/", None).is_none(),
            "nobody watches any longer"
        );
    }

    #[test]
    fn who_reads_slowly_loses_and_is_told_how_many() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let slow = mesh.watch_calls(Interest::default(), QUEUE_USUAL);
        let slow = slow.expect("room");
        let one_of_a_hundred = Interest {
            share: 10,
            ..Interest::default()
        };
        let few = mesh.watch_calls(one_of_a_hundred, QUEUE_USUAL);
        let mut few = few.expect("room");
        for _ in 0..QUEUE_USUAL {
            tell(&mesh, "/", 200);
        }
        assert_eq!(slow.take_lost(), QUEUE_USUAL as u64, "both ends of each");
        assert_eq!(slow.take_lost(), 0);
        assert_eq!(told(&mut few).len(), 20, "one of a hundred");
        assert_eq!(few.take_lost(), 0);
        let more: Vec<_> = (0..2 * WATCHES_MAX)
            .filter_map(|_| mesh.watch_calls(Interest::default(), 1))
            .collect();
        assert_eq!(more.len(), WATCHES_MAX - 2);
    }

    #[test]
    fn spans_are_below_each_other() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let recorded = Interest {
            recorded: true,
            ..Interest::default()
        };
        let mut spans = mesh.watch_calls(recorded, 2).expect("room");
        let trace = TraceContext::root(7, 9);
        assert!(call(&mesh, "/", Some(&trace)).is_none(), "not recorded");
        let trace = trace.recorded(true);
        let mut seen = call(&mesh, "/", Some(&trace));
        let at = SocketAddr::from(([10, 0, 0, 1], 80));
        Seen::retried(&mut seen, at, "unreachable");
        let seen = seen.expect("watched");
        for reporter in [Reporter::Source, Reporter::Destination] {
            seen.tell(&edge(reporter), &ended(200));
        }
        let client = spans.try_next().expect("told");
        let server = spans.try_next().expect("told");
        assert_eq!(client.span(), Some((trace.clone(), None)));
        let second = trace.of_try(1);
        assert_eq!(server.span(), Some((second.served(), Some(second.span_id))));
        assert_eq!(client.retries()[0].reason, "unreachable");
    }
}
