//! `mesh.weft.dev/v1`: who calls whom in the cluster, and calls as they end.
//!
//! ```text
//! GET …/namespaces/NS/edges, …/edges               EdgeList of the last minute, or of `window=10m`, up to a day
//!       &step=10s                                  … and the same in steps, as `frames`
//!       &watch=true                                a line each second: {"type":"MODIFIED","object":EdgeList}
//! GET …/namespaces/NS/frames?watch=true, …/frames?…      a line each second with all that changes (`frames.rs`)
//! GET …/namespaces/NS/traces, …/traces             calls that failed or were slow, with all that came of them (`traces.rs`)
//! GET …/namespaces/NS/tap?watch=true, …/tap?…      a line a call (`tap.rs`)
//! ```
//! An edge is of each namespace that one of its ends is in. Its figures are those of the end that calls, which both ways of a call have,
//! summed over all nodes (`collect.rs`) and kept for a day (`ring.rs`).
//!
//! Invariants: who may not list or watch `edges` in a namespace is told nothing of it, but of calls between it and a namespace where he may;
//! a reader who is slow gets fewer and longer frames, and
//! loses nothing that is within the ring. Left to others: counting (`weft_mesh`).

pub(super) mod collect;
mod frames;
mod ring;
mod tap;
pub(super) mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_api::status::StatusError;
use weft_api::time::{parse_duration, rfc3339_micros};
use weft_call::edges::{EdgeEnd, EdgeName, Figures, ServicePolicies};
use weft_kinds::Kind;
use weft_kinds::mesh::{FRAMES, GROUP, TAP, TRACES, VERSION};

use super::AppState;
use super::usage::{InUse, json_response};
use crate::authz::Authorized;
use crate::request::Params;
use ring::{Rings, Seen};

/// What is told where nobody says of which time, and the most.
const WINDOW_USUAL: Duration = Duration::from_secs(60);
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// Steps of one answer.
const STEPS_MAX: u64 = 1000;
/// For so long after somebody looked, nodes are asked every second.
const WATCHED_FOR: Duration = Duration::from_secs(30);
/// How long who looks first waits for what nodes say now.
const FIRST_MAX: Duration = Duration::from_millis(2500);
/// How long a watch lasts that names no time.
const WATCH_MAX: Duration = Duration::from_secs(1800);

/// The graph of edges, as one server knows it.
pub(crate) struct Graph {
    rings: Mutex<Rings>,
    /// How many frames there were.
    pushed: watch::Sender<u64>,
    /// Milliseconds after [`Graph::began`] until which somebody looks, and until which at what nodes and pods use.
    watched_until: AtomicU64,
    used_until: AtomicU64,
    /// What policies have nodes do with calls to services.
    policies: Mutex<Arc<Vec<ServicePolicies>>>,
    /// What nodes and pods use, and which reading it is.
    usage: Mutex<(u64, Arc<InUse>)>,
    scopes: frames::Scopes,
    traces: traces::Traces,
    began: Instant,
    /// Somebody begins to look; at what is used, too.
    wanted: Notify,
    usage_wanted: Notify,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            rings: Mutex::default(),
            pushed: watch::Sender::new(0),
            watched_until: AtomicU64::new(0),
            used_until: AtomicU64::new(0),
            policies: Mutex::default(),
            usage: Mutex::default(),
            scopes: frames::Scopes::default(),
            traces: traces::Traces::default(),
            began: Instant::now(),
            wanted: Notify::new(),
            usage_wanted: Notify::new(),
        }
    }
}

impl Graph {
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_watched(&self) -> bool {
        self.watched_until.load(Ordering::Relaxed) > self.millis()
    }

    fn watched_for(&self) -> u64 {
        let most = u64::try_from(WATCHED_FOR.as_millis()).unwrap_or(u64::MAX);
        self.millis().saturating_add(most)
    }

    /// Somebody looks at what nodes and pods use.
    fn look_at_usage(&self) {
        let until = self.watched_for();
        let was = self.used_until.swap(until, Ordering::Relaxed);
        if was <= self.millis() {
            self.usage_wanted.notify_one();
        }
    }

    fn is_usage_watched(&self) -> bool {
        self.used_until.load(Ordering::Relaxed) > self.millis()
    }

    /// Somebody looks; says whether somebody did already.
    fn look(&self) -> bool {
        let was = self.is_watched();
        self.watched_until
            .store(self.watched_for(), Ordering::Relaxed);
        if !was {
            self.wanted.notify_one();
        }
        was
    }

    fn push(
        &self,
        at: Timestamp,
        width: Duration,
        new: Vec<(EdgeName, Figures)>,
        policies: Vec<ServicePolicies>,
    ) {
        *self.policies.lock() = Arc::new(policies);
        if !width.is_zero() {
            self.rings.lock().push(at, width, new);
        }
        self.pushed.send_modify(|pushed| *pushed += 1);
    }

    /// What is held in memory of all this, as Prometheus text.
    pub(super) fn metrics(&self) -> String {
        let [fine, coarse] = self.rings.lock().bytes();
        let (traces, trace_bytes) = self.traces.held();
        let gauges = [
            ("weft_mesh_history_bytes{step=\"1s\"}", fine),
            ("weft_mesh_history_bytes{step=\"10s\"}", coarse),
            ("weft_mesh_traces", traces),
            ("weft_mesh_trace_bytes", trace_bytes),
            ("weft_mesh_frame_views", self.scopes.len()),
        ];
        let helps = [
            ("weft_mesh_history_bytes", "What is remembered of edges."),
            (
                "weft_mesh_traces",
                "Traces that are kept of what failed or was slow.",
            ),
            ("weft_mesh_trace_bytes", "What these take."),
            (
                "weft_mesh_frame_views",
                "Different views of the mesh that are read.",
            ),
        ];
        let mut text = String::new();
        for (name, help) in helps {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
            let own = gauges
                .iter()
                .filter(|(full, _)| full.split('{').next() == Some(name));
            for (full, value) in own {
                text.push_str(&format!("{full} {value}\n"));
            }
        }
        text
    }

    /// Looks, and waits for what nodes say now where nobody looked before.
    async fn looked(&self) {
        let mut pushed = self.pushed.subscribe();
        let before = *pushed.borrow_and_update();
        if self.look() {
            return;
        }
        // The first says where counts begin, where that was not known.
        let wanted = if self.rings.lock().newest().is_none() {
            2
        } else {
            1
        };
        let frames = pushed.wait_for(|pushed| *pushed >= before + wanted);
        // What there is is told where they take too long.
        let _ = tokio::time::timeout(FIRST_MAX, frames).await;
    }
}

/// Answers what is asked of the group.
pub(super) async fn answer(
    state: &AppState,
    asked: &Authorized,
    kind: &Kind,
    namespace: Option<&str>,
) -> Result<Response, StatusError> {
    let params = asked.request().params()?;
    let is_watch = asked.request().verb == "watch";
    if kind.resource == TAP {
        return match is_watch {
            true => tap::answer(state, namespace, params).await,
            // There is nothing that could be listed.
            false => Err(StatusError::bad_request(
                "calls are told as they end and are kept nowhere: ask with watch=true",
            )),
        };
    }
    if kind.resource == FRAMES {
        return match is_watch {
            true => frames::watch(state, asked, namespace, params),
            false => Err(StatusError::bad_request(
                "frames are told as they are made: ask with watch=true, or for edges with window and step",
            )),
        };
    }
    if kind.resource == TRACES {
        return match is_watch {
            true => Err(StatusError::bad_request(
                "traces are put together some time after their end and cannot be watched: list them",
            )),
            false => traces::answer(state, namespace, params),
        };
    }
    let namespace = namespace.map(str::to_owned);
    if is_watch {
        return watch(state, namespace, params);
    }
    let window = duration(params, "window")?.unwrap_or(WINDOW_USUAL);
    let window = window.min(WINDOW_MAX);
    let step = duration(params, "step")?;
    if let Some(step) = step
        && window.as_millis() > step.as_millis() * u128::from(STEPS_MAX)
    {
        return Err(StatusError::bad_request(format!(
            "window has more than {STEPS_MAX} steps; ask for longer steps or a shorter window"
        )));
    }
    state.graph.looked().await;
    let graph = state.graph.clone();
    // A day of a large cluster is many frames.
    let answer = tokio::task::spawn_blocking(move || {
        let taken = {
            let rings = graph.rings.lock();
            let newest = rings.newest();
            let since = newest.and_then(|newest| newest.checked_sub(window).ok());
            rings.frames_after(since.unwrap_or(Timestamp::MIN))
        };
        let mut list = list(&Seen::of(&taken), namespace.as_deref());
        tell_policies(
            &mut list,
            &graph.policies.lock().clone(),
            namespace.as_deref(),
        );
        if let Some(step) = step {
            let frames: Vec<Value> = Seen::steps(&taken, step)
                .iter()
                .map(|seen| list_of(seen, namespace.as_deref()))
                .collect();
            list["frames"] = json!(frames);
        }
        list
    });
    let answer = answer.await.map_err(StatusError::internal)?;
    Ok(json_response(&answer))
}

/// # Errors
/// 400 for what is no time, or none at all.
fn duration(params: &Params, name: &str) -> Result<Option<Duration>, StatusError> {
    let Some(text) = params.get(name) else {
        return Ok(None);
    };
    match parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
        Ok(_) => Err(StatusError::bad_request(format!("{name} must be positive"))),
        Err(why) => Err(StatusError::bad_request(format!("{name}: {why}"))),
    }
}

/// Has edges say what is done with their calls, as far as that is of the namespace that was asked for.
fn tell_policies(list: &mut Value, policies: &[ServicePolicies], namespace: Option<&str>) {
    for edge in list["items"].as_array_mut().into_iter().flatten() {
        let found = policies.iter().find(|one| {
            edge["service"]["namespace"] == one.namespace.as_str()
                && edge["service"]["name"] == one.name.as_str()
                && namespace.is_none_or(|asked| one.namespace == asked)
        });
        if let Some(found) = found {
            edge["policies"] = json!(found);
        }
    }
}

/// When a watch ends: as the query says, or after half an hour.
///
/// # Errors
/// 400 for what is no number.
fn watch_end(params: &Params) -> Result<Instant, StatusError> {
    let seconds = params.number("timeoutSeconds")?;
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let lasts = seconds.filter(|seconds| *seconds > 0);
    let lasts = lasts.map_or(WATCH_MAX, Duration::from_secs);
    let until = Instant::now().checked_add(lasts);
    Ok(until.unwrap_or_else(|| Instant::now() + WATCH_MAX))
}

/// A line for each second, or for as long as the reader took.
fn watch(
    state: &AppState,
    namespace: Option<String>,
    params: &Params,
) -> Result<Response, StatusError> {
    let until = watch_end(params)?;
    let graph = state.graph.clone();
    let closing = state.closing.clone();
    let pushed = graph.pushed.subscribe();
    let since = graph.rings.lock().newest();
    graph.look();
    let lines = futures::stream::unfold(
        (graph, pushed, since, namespace),
        move |(graph, mut pushed, mut since, namespace)| {
            let closing = closing.clone();
            async move {
                loop {
                    let changed = async {
                        tokio::select! {
                            biased;
                            () = closing.cancelled() => None,
                            changed = tokio::time::timeout_at(until, pushed.changed()) => changed.ok()?.ok(),
                        }
                    };
                    changed.await?;
                    graph.look();
                    // Of what was before it looked, nothing is told.
                    let from = since.unwrap_or(Timestamp::MIN);
                    let taken = graph.rings.lock().frames_after(from);
                    let seen = Seen::of(&taken);
                    let Some(at) = seen.at else { continue };
                    since = Some(at);
                    let mut object = list(&seen, namespace.as_deref());
                    let policies = graph.policies.lock().clone();
                    tell_policies(&mut object, &policies, namespace.as_deref());
                    let line = json!({"type": "MODIFIED", "object": object});
                    let line = Bytes::from(format!("{line}\n"));
                    let line = Ok::<_, std::convert::Infallible>(line);
                    return Some((line, (graph, pushed, since, namespace)));
                }
            }
        },
    );
    Ok(lines_response(Body::from_stream(lines)))
}

fn lines_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn list(seen: &Seen, namespace: Option<&str>) -> Value {
    let mut list = list_of(seen, namespace);
    list["kind"] = json!("EdgeList");
    list["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    list["metadata"] = json!({});
    list
}

/// What there is of a time, without saying of which kind it is.
fn list_of(seen: &Seen, namespace: Option<&str>) -> Value {
    let sums = seen.sums.iter().filter(|(name, _)| is_of(name, namespace));
    let mut total = Figures::default();
    let items = sums.map(|(name, figures)| {
        total.add(figures);
        edge(name, figures, seen.width, namespace)
    });
    let items: Vec<Value> = items.collect();
    let seconds = seen.width.as_secs_f64().max(1e-3);
    json!({
        "time": seen.at.map(rfc3339_micros),
        "windowSeconds": rounded(seen.width.as_secs_f64()),
        // What a reader could not make of the edges: quantiles of them together are no sum of theirs.
        "total": {
            "callsPerSecond": rounded(total.calls() as f64 / seconds),
            "failuresPerSecond": rounded(total.failures() as f64 / seconds),
            "latencyMicros": latency(&total),
        },
        "items": items,
    })
}

fn latency(figures: &Figures) -> Value {
    let mean = figures.duration_micros as f64 / figures.calls().max(1) as f64;
    json!({
        "mean": rounded(mean),
        "p50": rounded(figures.quantile_micros(500)),
        "p90": rounded(figures.quantile_micros(900)),
        "p95": rounded(figures.quantile_micros(950)),
        "p99": rounded(figures.quantile_micros(990)),
    })
}

/// Whether an edge is of a namespace, where one is asked for.
fn is_of(name: &EdgeName, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|asked| {
        name.source.namespace == asked
            || name.destination.namespace == asked
            || name.service_namespace == asked
    })
}

/// Six digits are more than anybody measures.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn edge(name: &EdgeName, figures: &Figures, width: Duration, asked: Option<&str>) -> Value {
    let seconds = width.as_secs_f64().max(1e-3);
    let (calls, failures) = (figures.calls(), figures.failures());
    let rate = |count: u64| rounded(count as f64 / seconds);
    let end = |end: &EdgeEnd| {
        let mut value = json!({"namespace": end.namespace, "workload": end.workload});
        for (field, text) in [
            ("app", &end.app),
            ("version", &end.version),
            ("principal", &end.principal),
        ] {
            if !text.is_empty() {
                value[field] = json!(text);
            }
        }
        value
    };
    let destination = match name.destination.workload.as_str() {
        "" => &name.service,
        workload => workload,
    };
    let namespace = asked.unwrap_or(match name.destination.namespace.as_str() {
        "" => name.source.namespace.as_str(),
        namespace => namespace,
    });
    json!({
        "metadata": {
            "name": format!("{}.{}-{destination}.{}-{}-{}", name.source.workload, name.source.namespace,
                name.service_namespace, name.service, name.protocol),
            "namespace": namespace,
        },
        "source": end(&name.source),
        "destination": end(&name.destination),
        "service": {"namespace": name.service_namespace, "name": name.service},
        "protocol": name.protocol,
        "security": name.security,
        "calls": calls,
        "failures": failures,
        "callsPerSecond": rate(calls),
        "failuresPerSecond": rate(failures),
        "requestBytesPerSecond": rate(figures.request_bytes),
        "responseBytesPerSecond": rate(figures.response_bytes),
        "latencyMicros": latency(figures),
        "outcomes": figures.outcomes,
    })
}
