//! `frames`: all that a page which shows the mesh needs each second, as one stream.
//!
//! ```text
//! GET …/namespaces/NS/frames?watch=true, …/frames?watch=true&window=10s&traces=true      a line a second: {"type":"MODIFIED","object":Frame}
//! ```
//! A frame has what is new of the graph (edges by numbers, which are told once), the figures of the edges that had calls in the window, what policies
//! do with calls to services, and what nodes and pods use; with `traces`, nodes note traces as long as it is read. They are those of `edges` and of `metrics.k8s.io`, from the same places.
//!
//! A [`Scope`] is what several readers see alike: its frames are made once for all of them. Who has read the one before gets what has changed since;
//! who has not gets a whole one, and is told how many there were in between.
//!
//! Invariants: nothing waits for a reader, and nothing is kept for one; scopes are bounded in number, and gone with their readers; whoever may not list
//! usage in `metrics.k8s.io` is told of none, and of policies only those of the namespaces that he asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use weft_api::status::StatusError;
use weft_api::time::rfc3339_micros;
use weft_call::edges::{EdgeEnd, EdgeName, Figures, ServicePolicies};
use weft_kinds::mesh::{GROUP, VERSION};

use super::ring::Seen;
use super::{Graph, duration, lines_response, rounded, watch_end};
use crate::authz::{Access, Authorized};
use crate::http::AppState;
use crate::http::usage::{InUse, PodInUse};
use crate::request::Params;

/// What rates and quantiles are about where nobody says, and the most.
const WINDOW_USUAL: Duration = Duration::from_secs(10);
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// What several readers see alike, at one time; each is made anew each second.
const SCOPES_MAX: usize = 64;
/// An edge that had no call for so long is told to be gone.
const EDGE_IDLE_MAX: Duration = Duration::from_secs(600);
/// Seconds after which one who found no place gets one, most likely.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What somebody looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct View {
    namespace: Option<String>,
    window: Duration,
    nodes: bool,
    pods: bool,
}

/// All scopes that somebody reads.
#[derive(Default)]
pub(super) struct Scopes(Mutex<BTreeMap<View, Weak<Scope>>>);

impl Scopes {
    /// How many somebody reads.
    pub(super) fn len(&self) -> usize {
        let scopes = self.0.lock();
        scopes
            .values()
            .filter(|scope| scope.strong_count() > 0)
            .count()
    }

    fn of(&self, view: View) -> Result<Arc<Scope>, StatusError> {
        let mut scopes = self.0.lock();
        if let Some(scope) = scopes.get(&view).and_then(Weak::upgrade) {
            return Ok(scope);
        }
        scopes.retain(|_, scope| scope.strong_count() > 0);
        if scopes.len() >= SCOPES_MAX {
            return Err(StatusError::too_many_requests(
                format!(
                    "{SCOPES_MAX} different views of the mesh are read already, which is the most there may be: try again later, or with the usual window"
                ),
                RETRY_AFTER_SECONDS,
            ));
        }
        let scope = Arc::new(Scope {
            view: view.clone(),
            state: Mutex::default(),
        });
        scopes.insert(view, Arc::downgrade(&scope));
        Ok(scope)
    }
}

/// What several readers see alike.
struct Scope {
    view: View,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Numbers of the last frame and of the one before it.
    number: u64,
    before: u64,
    /// The end of the last frame.
    at: Option<Timestamp>,
    edges: BTreeMap<Arc<EdgeName>, Known>,
    next_id: u32,
    services: Vec<ServicePolicies>,
    /// Which reading of usage was told last.
    usage: u64,
    used: InUse,
    /// The last frame as text without its beginning: what has changed, and all of it, once somebody asks for that.
    delta: Bytes,
    whole: Option<Bytes>,
    /// What is in both.
    figures: Vec<EdgeFigures>,
    total: TotalFigures,
    workloads: Vec<WorkloadFigures>,
    seconds: f64,
    window: f64,
}

#[derive(Clone, Copy)]
struct Known {
    id: u32,
    seen: Timestamp,
}

/// Number; calls and failures a second, three quantiles in microseconds, bytes a second of both ways; calls and failures of this frame alone.
type EdgeFigures = (u32, f64, f64, f64, f64, f64, f64, f64, u64, u64);

/// The same without a number and bytes, of all edges together: quantiles of several are those of all their calls.
type TotalFigures = (f64, f64, f64, f64, f64, u64, u64);

/// Namespace and name of a workload that is called, and the figures of all of its edges.
type WorkloadFigures = (String, String, f64, f64, f64, f64, f64);

/// A frame but for its beginning, which says what kind it is and is each reader's own.
#[derive(Serialize)]
struct Told<'s> {
    time: Option<String>,
    seconds: f64,
    window: f64,
    edges: Edges<'s>,
    total: TotalFigures,
    workloads: &'s [WorkloadFigures],
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<&'s [ServicePolicies]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<&'s (String, u64, u64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Vec<&'s PodInUse>>,
}

#[derive(Serialize)]
struct Edges<'s> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<Added<'s>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<u32>,
    figures: &'s [EdgeFigures],
}

#[derive(Serialize)]
struct Added<'s> {
    id: u32,
    source: &'s EdgeEnd,
    destination: &'s EdgeEnd,
    service: Name<'s>,
    protocol: &'s str,
    security: &'s str,
}

#[derive(Serialize)]
struct Name<'s> {
    namespace: &'s str,
    name: &'s str,
}

impl<'s> Added<'s> {
    fn of(name: &'s EdgeName, id: u32) -> Self {
        Self {
            id,
            source: &name.source,
            destination: &name.destination,
            service: Name {
                namespace: &name.service_namespace,
                name: &name.service,
            },
            protocol: &name.protocol,
            security: &name.security,
        }
    }
}

/// What a reader was told last.
#[derive(Clone, Copy, Default)]
struct Reader {
    last: Option<u64>,
}

impl Scope {
    fn shows(&self, name: &EdgeName) -> bool {
        super::is_of(name, self.view.namespace.as_deref())
    }

    /// The line of frame `number` for a reader, and which one it is; `None` where there is nothing new to tell.
    fn told(&self, graph: &Graph, number: u64, reader: Reader) -> Option<(Bytes, u64)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.number < number {
            self.advance(state, graph, number);
        }
        state.at?;
        let number = state.number;
        if reader.last == Some(number) {
            return None;
        }
        let skipped = reader
            .last
            .map_or(0, |last| number.saturating_sub(last + 1));
        let follows = reader.last.is_some_and(|last| last == state.before);
        let rest = match follows {
            true => state.delta.clone(),
            false => match &state.whole {
                Some(whole) => whole.clone(),
                None => {
                    let whole = text(&self.whole(state));
                    state.whole = Some(whole.clone());
                    whole
                }
            },
        };
        let head = format!(
            r#"{{"type":"MODIFIED","object":{{"kind":"Frame","apiVersion":"{GROUP}/{VERSION}","metadata":{{}},"whole":{},"skipped":{skipped},"#,
            !follows
        );
        let mut line = Vec::with_capacity(head.len() + rest.len() + 2);
        line.extend_from_slice(head.as_bytes());
        line.extend_from_slice(&rest);
        line.extend_from_slice(b"}\n");
        Some((line.into(), number))
    }

    /// Goes on to frame `number`.
    fn advance(&self, state: &mut State, graph: &Graph, number: u64) {
        let (windowed, new, recent) = {
            let rings = graph.rings.lock();
            let Some(newest) = rings.newest() else {
                return;
            };
            let since = |time: Duration| newest.checked_sub(time).unwrap_or(Timestamp::MIN);
            let windowed = rings.frames_after(since(self.view.window));
            let before = state.at.unwrap_or_else(|| since(Duration::from_secs(1)));
            // Who begins to look sees what there was before.
            let recent = match state.at {
                None => rings.frames_after(since(EDGE_IDLE_MAX)),
                Some(_) => Vec::new(),
            };
            (windowed, rings.frames_after(before), recent)
        };
        let (windowed, new, recent) = (Seen::of(&windowed), Seen::of(&new), Seen::of(&recent));
        let Some(at) = windowed.at else { return };
        if state.at.is_some_and(|told| told >= at) {
            return;
        }
        let mut added = Vec::new();
        for name in windowed.sums.keys().chain(recent.sums.keys()) {
            if !self.shows(name) {
                continue;
            }
            let is_now = windowed.sums.contains_key(name);
            match state.edges.get_mut(name) {
                Some(known) if is_now => known.seen = at,
                Some(_) => {}
                None => {
                    let id = state.next_id;
                    state.next_id = id.wrapping_add(1);
                    state.edges.insert(Arc::clone(name), Known { id, seen: at });
                    added.push((Arc::clone(name), id));
                }
            }
        }
        let mut removed = Vec::new();
        state.edges.retain(|_, known| {
            let idle = at.duration_since(known.seen);
            let stays = idle.unsigned_abs() < EDGE_IDLE_MAX;
            if !stays {
                removed.push(known.id);
            }
            stays
        });
        let window = windowed.width.as_secs_f64();
        state.figures = figures(&state.edges, &windowed, &new);
        (state.total, state.workloads) = self.sums(&windowed, &new);
        (state.seconds, state.window) = (rounded(new.width.as_secs_f64()), rounded(window));
        let services = graph.policies.lock().clone();
        let services: Vec<ServicePolicies> = services
            .iter()
            .filter(|one| {
                let asked = self.view.namespace.as_ref();
                asked.is_none_or(|asked| one.namespace == *asked)
            })
            .cloned()
            .collect();
        let has_new_services = services != state.services;
        state.services = services;
        let (reading, used) = graph.usage.lock().clone();
        let has_new_usage = reading != state.usage;
        let used = self.of_view(&used);
        let before = std::mem::replace(&mut state.used, used);
        (state.usage, state.before, state.number, state.at) =
            (reading, state.number, number, Some(at));
        let told = Told {
            time: Some(rfc3339_micros(at)),
            seconds: state.seconds,
            window: state.window,
            edges: Edges {
                added: added
                    .iter()
                    .map(|(name, id)| Added::of(name, *id))
                    .collect(),
                removed,
                figures: &state.figures,
            },
            total: state.total,
            workloads: &state.workloads,
            services: has_new_services.then_some(state.services.as_slice()),
            nodes: (self.view.nodes && has_new_usage).then(|| state.used.nodes.iter().collect()),
            // Most of many pods do nothing.
            pods: (self.view.pods && has_new_usage).then(|| {
                let all = state.used.pods.iter();
                all.filter(|pod| before.pods.binary_search_by(|old| order(old, pod)).is_err())
                    .collect()
            }),
        };
        let delta = text(&told);
        state.delta = delta;
        state.whole = None;
    }

    /// Of all edges that are shown together, and of those to each workload.
    fn sums(&self, windowed: &Seen, new: &Seen) -> (TotalFigures, Vec<WorkloadFigures>) {
        let mut total = Figures::default();
        let mut workloads: BTreeMap<(&str, &str), Figures> = BTreeMap::new();
        for (name, sum) in &windowed.sums {
            if !self.shows(name) {
                continue;
            }
            total.add(sum);
            let EdgeEnd {
                namespace,
                workload,
                ..
            } = &name.destination;
            // Where nobody was reached there is nobody to tell of.
            if !workload.is_empty() {
                let of_workload = workloads.entry((namespace, workload));
                of_workload.or_default().add(sum);
            }
        }
        let shown = new.sums.iter().filter(|(name, _)| self.shows(name));
        let (calls, failures) = shown.fold((0_u64, 0_u64), |(calls, failures), (_, sum)| {
            let calls = calls.saturating_add(sum.calls());
            (calls, failures.saturating_add(sum.failures()))
        });
        let of = |sum: &Figures| rates(sum, windowed.width);
        let (per_second, failed, p50, p95, p99) = of(&total);
        let workloads = workloads.iter().map(|((namespace, name), sum)| {
            let (per_second, failed, p50, p95, p99) = of(sum);
            let (namespace, name) = ((*namespace).to_owned(), (*name).to_owned());
            (namespace, name, per_second, failed, p50, p95, p99)
        });
        let total = (per_second, failed, p50, p95, p99, calls, failures);
        (total, workloads.collect())
    }

    /// Of what is used, what this view is of.
    fn of_view(&self, used: &InUse) -> InUse {
        let pods = used.pods.iter().filter(|(namespace, ..)| {
            let asked = self.view.namespace.as_ref();
            self.view.pods && asked.is_none_or(|asked| namespace == asked)
        });
        InUse {
            nodes: match self.view.nodes {
                true => used.nodes.clone(),
                false => Vec::new(),
            },
            pods: pods.cloned().collect(),
        }
    }

    fn whole<'s>(&self, state: &'s State) -> Told<'s> {
        let edges = state.edges.iter();
        Told {
            time: state.at.map(rfc3339_micros),
            seconds: state.seconds,
            window: state.window,
            edges: Edges {
                added: edges
                    .map(|(name, known)| Added::of(name, known.id))
                    .collect(),
                removed: Vec::new(),
                figures: &state.figures,
            },
            total: state.total,
            workloads: &state.workloads,
            services: Some(&state.services),
            nodes: self.view.nodes.then(|| state.used.nodes.iter().collect()),
            pods: self.view.pods.then(|| state.used.pods.iter().collect()),
        }
    }
}

/// Equal where nothing is new of a pod.
fn order(old: &PodInUse, new: &PodInUse) -> std::cmp::Ordering {
    let names = (&old.0, &old.1).cmp(&(&new.0, &new.1));
    let numbers = (old.2, old.3, old.5).cmp(&(new.2, new.3, new.5));
    let rates = old.4.total_cmp(&new.4).then(old.6.total_cmp(&new.6));
    names.then(numbers).then(rates)
}

fn figures(
    edges: &BTreeMap<Arc<EdgeName>, Known>,
    windowed: &Seen,
    new: &Seen,
) -> Vec<EdgeFigures> {
    let seconds = windowed.width.as_secs_f64().max(1e-3);
    let figures = windowed.sums.iter().filter_map(|(name, sum)| {
        let id = edges.get(name)?.id;
        let rate = |count: u64| rounded(count as f64 / seconds);
        let none = Figures::default();
        let now = new.sums.get(name).unwrap_or(&none);
        let (per_second, failed, p50, p95, p99) = rates(sum, windowed.width);
        Some((
            id,
            per_second,
            failed,
            p50,
            p95,
            p99,
            rate(sum.request_bytes),
            rate(sum.response_bytes),
            now.calls(),
            now.failures(),
        ))
    });
    figures.collect()
}

/// Calls and failures a second, and three quantiles in microseconds.
fn rates(sum: &Figures, width: Duration) -> (f64, f64, f64, f64, f64) {
    let seconds = width.as_secs_f64().max(1e-3);
    let rate = |count: u64| rounded(count as f64 / seconds);
    let quantile = |thousandths: u64| rounded(sum.quantile_micros(thousandths));
    (
        rate(sum.calls()),
        rate(sum.failures()),
        quantile(500),
        quantile(950),
        quantile(990),
    )
}

/// The text of a frame, without the brace that it begins with.
fn text(told: &Told<'_>) -> Bytes {
    // Texts and numbers; there is nothing in it that cannot be written.
    let mut text = serde_json::to_vec(told).unwrap_or_default();
    if !text.is_empty() {
        text.remove(0);
    }
    text.into()
}

/// Answers a watch of frames.
pub(super) fn watch(
    state: &AppState,
    asked: &Authorized,
    namespace: Option<&str>,
    params: &Params,
) -> Result<Response, StatusError> {
    let window = duration(params, "window")?.unwrap_or(WINDOW_USUAL);
    let window = Duration::from_secs(window.as_secs().max(1)).min(WINDOW_MAX);
    let until = watch_end(params)?;
    let may_list = |resource: &'static str, namespace: Option<&str>| {
        let access = Access {
            verb: "list",
            group: "metrics.k8s.io",
            resource,
            subresource: None,
            namespace,
            name: None,
        };
        let authorizer = state.objects.authorizer();
        authorizer.decide(asked.caller(), &access).allowed
    };
    let view = View {
        namespace: namespace.map(str::to_owned),
        window,
        nodes: may_list("nodes", None),
        pods: may_list("pods", namespace),
    };
    let uses = view.nodes || view.pods;
    let traces = params.flag("traces") == Some(true);
    let graph = state.graph.clone();
    let scope = graph.scopes.of(view)?;
    let closing = state.closing.clone();
    let mut pushed = graph.pushed.subscribe();
    // What there is by now is told at once.
    pushed.mark_changed();
    graph.look();
    let lines = futures::stream::unfold(
        (graph, scope, pushed, Reader::default()),
        move |(graph, scope, mut pushed, mut reader)| {
            let closing = closing.clone();
            async move {
                loop {
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => return None,
                        changed = tokio::time::timeout_at(until, pushed.changed()) => changed.ok()?.ok()?,
                    }
                    graph.look();
                    if uses {
                        graph.look_at_usage();
                    }
                    if traces {
                        graph.traces.look();
                    }
                    let number = *pushed.borrow_and_update();
                    let (at, of) = (graph.clone(), scope.clone());
                    // Of a large graph that is some milliseconds.
                    let made = tokio::task::spawn_blocking(move || of.told(&at, number, reader));
                    let Some((line, told)) = made.await.ok()? else {
                        continue;
                    };
                    reader.last = Some(told);
                    let line = Ok::<_, std::convert::Infallible>(line);
                    return Some((line, (graph, scope, pushed, reader)));
                }
            }
        },
    );
    Ok(lines_response(Body::from_stream(lines)))
}
