//! Calls as spans, while a server asks for them: which traces have something to look at, and what was seen of a trace. At the node's port:
//!
//! ```text
//! GET /spans?watch=true              a line for each trace with a call that failed, or took much longer than calls to its service do
//!                                    {"traceID":"4bf9…","failed":true,"slow":false}
//! GET /spans?traces=ID,ID            what was seen of these: a JSON array of spans
//! ```
//! Whoever watches has a ring of the newest calls, whether anything is noted of them or not: a call that went well is part of one that failed. A
//! server asks all nodes for the traces that any of them noted. An empty line now and then says that the node is there.
//!
//! Invariants: as those of [`weft_mesh::Sighting`]; nothing is kept while nobody watches; rings, their number and the lines of a second are bounded.
//! Left to others: who may see them, and putting them together (`weft_apiserver`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use weft_api::StatusError;
use weft_call::edges::{is_failure, outcome};
use weft_mesh::{Interest, Mesh, Reporter, Sighting, Sightings, WorkloadInfo};

use crate::sighting::{self, Retry, Service, micros};

/// Servers that watch at the same time: as many as a cluster has, and one that was there before.
const RINGS_MAX: usize = 6;
/// Calls that are remembered: half a kilobyte each.
const RING_MAX: usize = 8192;
/// Calls that wait to be looked at: half a second at eight thousand calls a second and both their ends.
const QUEUE: usize = 8192;
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines at a look: more failures of one kind tell nothing new.
const NOTED_MAX: usize = 8;
/// After so many looks without a line, an empty one.
const QUIET_LOOKS: u32 = 10;
/// Services whose durations are known.
const SERVICES_MAX: usize = 1024;
/// So many calls have to be known of a service, and so many times as long as 95 of a hundred of them a call has to take.
const KNOWN_MIN: u64 = 50;
const SLOW_TIMES: f64 = 2.0;
/// What is shorter is slow for nobody.
const SLOW_MIN: Duration = Duration::from_millis(2);
/// Traces that are asked for at once, and spans of one that are told.
const ASKED_MAX: usize = 64;
const SPANS_MAX: usize = 64;

/// The newest calls of one who watches.
type Ring = Mutex<VecDeque<Arc<Sighting>>>;

/// Rings of all who watch.
#[derive(Default)]
pub(crate) struct Spans(Mutex<Vec<Weak<Ring>>>);

/// What is usual of the calls to a service.
#[derive(Debug, Clone, Copy, Default)]
struct Usual {
    known: u64,
    /// What 95 of a hundred take at most, about, in microseconds.
    p95: f64,
}

impl Usual {
    /// Takes up a call; says whether it was slow by what was known before.
    fn takes(&mut self, took: Duration) -> bool {
        let micros = took.as_secs_f64() * 1e6;
        let slow = self.known >= KNOWN_MIN && took >= SLOW_MIN && micros > self.p95 * SLOW_TIMES;
        self.known += 1;
        // It rests where one of twenty is above: nineteen small steps down make good for one up.
        self.p95 = match micros > self.p95 {
            true if self.known == 1 => micros,
            true => self.p95 * 1.19,
            false => self.p95 / 1.0092,
        };
        slow
    }
}

/// One who watches.
struct Watcher {
    sightings: Sightings,
    ring: Arc<Ring>,
    usual: BTreeMap<(String, String), Usual>,
    quiet: u32,
}

impl Watcher {
    /// Looks at what came; gives the lines that say what there is to see.
    fn look(&mut self) -> String {
        let mut noted: BTreeMap<u128, (bool, bool)> = BTreeMap::new();
        let mut new = Vec::new();
        while let Some(sighting) = self.sightings.try_next() {
            let Some((span, _)) = sighting.span() else {
                continue;
            };
            let failed = is_failure(&outcome(sighting.code, sighting.grpc, sighting.flag));
            let slow = sighting.reporter() == Reporter::Source && self.is_slow(&sighting);
            if failed || slow {
                let known = noted.get(&span.trace_id);
                if known.is_some() || noted.len() < NOTED_MAX {
                    let known = noted.entry(span.trace_id).or_default();
                    *known = (known.0 || failed, known.1 || slow);
                }
            }
            new.push(sighting);
            if new.len() >= QUEUE {
                break;
            }
        }
        let mut ring = self.ring.lock();
        ring.extend(new);
        let over = ring.len().saturating_sub(RING_MAX);
        ring.drain(..over);
        drop(ring);
        let mut lines = String::new();
        for (trace, (failed, slow)) in noted {
            let told = json!({"traceID": format!("{trace:032x}"), "failed": failed, "slow": slow});
            lines.push_str(&format!("{told}\n"));
        }
        self.quiet = if lines.is_empty() { self.quiet + 1 } else { 0 };
        if self.quiet >= QUIET_LOOKS {
            self.quiet = 0;
            lines.push('\n');
        }
        lines
    }

    fn is_slow(&mut self, sighting: &Sighting) -> bool {
        let (namespace, name) = sighting.service();
        let key = (namespace.to_owned(), name.to_owned());
        if self.usual.len() >= SERVICES_MAX && !self.usual.contains_key(&key) {
            self.usual.clear();
        }
        self.usual.entry(key).or_default().takes(sighting.took)
    }
}

impl Spans {
    /// Lines of traces with something to look at.
    ///
    /// # Errors
    /// 429 where as many watch as may.
    pub(crate) fn watch(
        &self,
        mesh: &Mesh,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>, StatusError> {
        let busy = || StatusError::too_many_requests("as many as may watch spans already", 1);
        let ring = Arc::new(Ring::default());
        {
            let mut rings = self.0.lock();
            rings.retain(|ring| ring.strong_count() > 0);
            if rings.len() >= RINGS_MAX {
                return Err(busy());
            }
            rings.push(Arc::downgrade(&ring));
        }
        let sightings = mesh.watch_calls(Interest::default(), QUEUE);
        let watcher = Watcher {
            sightings: sightings.ok_or_else(busy)?,
            ring,
            usual: BTreeMap::new(),
            quiet: 0,
        };
        Ok(futures::stream::unfold(watcher, |mut watcher| async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let lines = watcher.look();
                if !lines.is_empty() {
                    return Some((Ok(Bytes::from(lines)), watcher));
                }
            }
        }))
    }

    /// What was seen of traces, of whoever watches.
    ///
    /// # Errors
    /// A sentence, of what is no list of traces.
    pub(crate) fn of(&self, traces: &str, node: &str) -> Result<String, String> {
        let wanted: Result<BTreeSet<u128>, _> = traces
            .split(',')
            .take(ASKED_MAX)
            .map(|id| u128::from_str_radix(id, 16))
            .collect();
        let wanted =
            wanted.map_err(|_| format!("traces must be numbers of traces, not {traces:?}"))?;
        let rings: Vec<Arc<Ring>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let mut told: BTreeMap<(u128, u64, bool), Arc<Sighting>> = BTreeMap::new();
        let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
        for ring in rings {
            let ring = ring.lock();
            for sighting in ring.iter() {
                let Some((span, _)) = sighting.span() else {
                    continue;
                };
                if !wanted.contains(&span.trace_id) {
                    continue;
                }
                let is_source = sighting.reporter() == Reporter::Source;
                let key = (span.trace_id, span.span_id, is_source);
                let count = counts.entry(span.trace_id).or_default();
                if *count < SPANS_MAX && told.insert(key, Arc::clone(sighting)).is_none() {
                    *count += 1;
                }
            }
        }
        let spans: Vec<Span<'_>> = told
            .values()
            .filter_map(|sighting| Span::of(sighting, node))
            .collect();
        Ok(serde_json::to_string(&spans).unwrap_or_default())
    }
}

/// One end of a call, as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'s> {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "parentID", skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    kind: &'static str,
    node: &'s str,
    workload: End<'s>,
    peer: End<'s>,
    service: Service<'s>,
    protocol: &'static str,
    method: &'s str,
    path: &'s str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    flags: &'static str,
    failed: bool,
    began: String,
    duration_micros: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retries: Vec<Retry>,
}

#[derive(Serialize)]
struct End<'s> {
    namespace: &'s str,
    name: &'s str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'s str,
}

impl<'s> End<'s> {
    fn of(workload: &'s WorkloadInfo) -> Self {
        Self {
            namespace: &workload.namespace,
            name: &workload.name,
            version: &workload.version,
        }
    }
}

impl<'s> Span<'s> {
    fn of(sighting: &'s Sighting, node: &'s str) -> Option<Self> {
        let (span, parent) = sighting.span()?;
        let (source, destination) = (sighting.source(), sighting.destination());
        let (kind, own, peer) = match sighting.reporter() {
            Reporter::Source => ("client", source, destination),
            Reporter::Destination => ("server", destination, source),
        };
        Some(Self {
            trace_id: format!("{:032x}", span.trace_id),
            span_id: format!("{:016x}", span.span_id),
            parent_id: parent.map(|parent| format!("{parent:016x}")),
            kind,
            node,
            workload: End::of(own),
            peer: End::of(peer),
            service: Service::of(sighting),
            protocol: sighting.protocol(),
            method: sighting.method(),
            path: sighting.path(),
            code: sighting.code,
            grpc_status: sighting.grpc,
            flags: sighting.flag,
            failed: is_failure(&outcome(sighting.code, sighting.grpc, sighting.flag)),
            began: sighting::began(sighting),
            duration_micros: micros(sighting.took),
            retries: Retry::all_of(sighting),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_what_takes_much_longer_than_most() {
        let mut usual = Usual::default();
        let millis = Duration::from_millis;
        // Between ten and fifteen, one of twenty takes twenty.
        let slow = (0..2000).filter(|number| {
            let took = match number % 20 {
                0 => millis(20),
                other => millis(10) + Duration::from_micros(other * 250),
            };
            usual.takes(took)
        });
        assert!(slow.count() < 4, "{usual:?}");
        assert!((10e3..25e3).contains(&usual.p95), "{usual:?}");
        assert!(usual.takes(millis(80)));
        // It is usual once it is.
        assert!((0..20).filter(|_| usual.takes(millis(80))).count() < 10);
        assert!(!usual.takes(millis(80)));
    }

    #[test]
    fn a_service_that_nobody_knows_has_no_slow_calls() {
        let mut usual = Usual::default();
        assert!((0..KNOWN_MIN).all(|number| !usual.takes(Duration::from_secs(number))));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let spans = Spans::default();
        assert!(spans.of("x", "a").is_err());
        assert_eq!(
            spans.of("4bf92f3577b34da6a3ce929d0e0e4736", "a").as_deref(),
            Ok("[]")
        );
    }
}
