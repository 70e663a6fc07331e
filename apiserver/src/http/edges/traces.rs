//! `traces`: a sample of calls that failed or were slow, with all that came of them on all nodes.
//!
//! ```text
//! GET …/namespaces/NS/traces, …/traces              TraceList, the newest first
//!       &trace=ID                                   one of them, with its spans
//! ```
//! Nodes note traces and remember spans while they are asked to (`weft_agent`), which they are while somebody looks at traces here, and for some
//! minutes after. What one of them notes, all are asked for a moment later, when what was under way is over; it is kept for a quarter of an hour.
//!
//! Invariants: kept traces are bounded in number and bytes, the oldest go first; who looks at a namespace is told of the spans of its workloads alone,
//! and of no trace without one; a node that does not answer leaves its spans out and holds up nobody. Left to others: sending all traces to somebody
//! (OpenTelemetry, by the nodes).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::SelectAll;
use futures::{Stream, StreamExt as _};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_api::status::StatusError;
use weft_kinds::mesh::{GROUP, VERSION};

use super::tap::whole_lines;
use crate::http::AppState;
use crate::http::usage::{json_response, nodes_of};
use crate::request::Params;

/// For so long after somebody looked, nodes note traces.
const WATCHED_FOR: Duration = Duration::from_secs(300);
/// How long a trace is kept, how many, and their bytes.
const KEPT_FOR: Duration = Duration::from_secs(900);
const TRACES_MAX: usize = 512;
const BYTES_MAX: usize = 4 << 20;
/// Spans of one trace.
const SPANS_MAX: usize = 64;
/// How long after a trace was noted its spans are asked for: what it is part of may go on.
const SETTLED: Duration = Duration::from_secs(2);
/// How often that is done, and of how many traces at a time: as many as nodes take.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASKED_MAX: usize = 64;
/// Traces that wait to be asked for; further ones are of the same failures, most likely.
const NOTED_MAX: usize = 256;
/// Nodes that are listened to, how many are asked at the same time, and how long one may take.
const NODES_MAX: usize = 256;
const NODES_AT_ONCE: usize = 32;
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often nodes that came, or came back, are listened to as well.
const LISTEN_AGAIN: Duration = Duration::from_secs(15);
/// Longest answer of a node: sixty-four spans of as many traces.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Traces as one server knows them.
#[derive(Default)]
pub(super) struct Traces {
    kept: Mutex<Kept>,
    watched_until: Mutex<Option<Instant>>,
    wanted: Notify,
}

/// Those that are kept, by their numbers.
#[derive(Default)]
struct Kept {
    traces: BTreeMap<String, Trace>,
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Default)]
struct Trace {
    kept: Option<Instant>,
    slow: bool,
    /// In the order of their beginnings.
    spans: Vec<Arc<Value>>,
    bytes: usize,
}

/// Lines of a node, with its name; and that they are over.
type Heard = Pin<Box<dyn Stream<Item = (Arc<str>, Option<Bytes>)> + Send>>;

/// That there is something to look at.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(default)]
    slow: bool,
}

fn text<'v>(span: &'v Value, field: &str) -> &'v str {
    span[field].as_str().unwrap_or_default()
}

impl Traces {
    /// Somebody looks.
    pub(super) fn look(&self) {
        let now = Instant::now();
        let mut until = self.watched_until.lock();
        let was = until.is_some_and(|until| until > now);
        *until = now.checked_add(WATCHED_FOR);
        if !was {
            self.wanted.notify_one();
        }
    }

    /// How many are kept, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        let kept = self.kept.lock();
        (kept.traces.len(), kept.bytes)
    }

    fn is_watched(&self) -> bool {
        let now = Instant::now();
        self.watched_until.lock().is_some_and(|until| until > now)
    }
}

impl Kept {
    /// Takes up what nodes say of traces.
    fn add(&mut self, spans: Vec<Value>, slow: &BTreeSet<String>, now: Instant) {
        let mut by_trace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for span in spans {
            let id = text(&span, "traceID").to_owned();
            by_trace.entry(id).or_default().push(span);
        }
        for (id, mut spans) in by_trace {
            spans.sort_by(|a, b| text(a, "began").cmp(text(b, "began")));
            spans.truncate(SPANS_MAX);
            let bytes = spans.iter().map(|span| span.to_string().len()).sum();
            let trace = Trace {
                kept: Some(now),
                slow: slow.contains(&id),
                spans: spans.into_iter().map(Arc::new).collect(),
                bytes,
            };
            self.bytes += bytes;
            match self.traces.insert(id.clone(), trace) {
                Some(before) => self.bytes -= before.bytes,
                None => self.order.push_back(id),
            }
        }
        self.make_room(now);
    }

    fn make_room(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let found = self.traces.get(oldest);
            let is_old = found
                .and_then(|trace| trace.kept)
                .is_none_or(|kept| now.saturating_duration_since(kept) > KEPT_FOR);
            if !is_old && self.traces.len() <= TRACES_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            if let Some(oldest) = self.order.pop_front()
                && let Some(gone) = self.traces.remove(&oldest)
            {
                self.bytes -= gone.bytes;
            }
        }
    }
}

/// Whether a span is of a workload of the namespace.
fn is_of(span: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|asked| span["workload"]["namespace"] == asked)
}

/// A trace as it is told to who looks at a namespace, or at all; `None` where it has no span of that.
fn told(id: &str, trace: &Trace, namespace: Option<&str>, with_spans: bool) -> Option<Value> {
    let spans = trace.spans.iter().filter(|span| is_of(span, namespace));
    let spans: Vec<&Arc<Value>> = spans.collect();
    let ids: BTreeSet<&str> = spans.iter().map(|span| text(span, "spanID")).collect();
    // The first of those that nothing is above.
    let mut tops = spans
        .iter()
        .filter(|span| !ids.contains(text(span, "parentID")));
    let root = tops.next().or(spans.first())?;
    let began = |span: &Value| text(span, "began").parse::<jiff::Timestamp>().ok();
    let ends = spans.iter().filter_map(|span| {
        let micros = span["durationMicros"].as_i64()?;
        began(span)?
            .checked_add(jiff::SignedDuration::from_micros(micros))
            .ok()
    });
    let begins = began(root)?;
    let took = ends.max()?.duration_since(begins).as_micros();
    let services: BTreeSet<String> = spans
        .iter()
        .map(|span| {
            let workload = &span["workload"];
            format!("{}/{}", text(workload, "namespace"), text(workload, "name"))
        })
        .collect();
    let mut told = json!({
        "metadata": {"name": id, "namespace": namespace.unwrap_or(text(&root["workload"], "namespace"))},
        "began": root["began"],
        "durationMicros": i64::try_from(took).unwrap_or(i64::MAX).max(0),
        "failed": spans.iter().any(|span| span["failed"] == true),
        "slow": trace.slow,
        "root": &***root,
        "spanCount": spans.len(),
        "services": services,
    });
    if with_spans {
        told["spans"] = spans.iter().map(|span| Value::clone(span)).collect();
    }
    Some(told)
}

/// Answers a list of traces.
pub(super) fn answer(
    state: &AppState,
    namespace: Option<&str>,
    params: &Params,
) -> Result<Response, StatusError> {
    let traces = &state.graph.traces;
    traces.look();
    let asked = params.get("trace");
    let mut kept = traces.kept.lock();
    kept.make_room(Instant::now());
    let all = kept.order.iter().rev();
    let all = all.filter(|id| asked.is_none_or(|asked| asked == id.as_str()));
    let items: Vec<Value> = all
        .filter_map(|id| told(id, kept.traces.get(id)?, namespace, asked.is_some()))
        .collect();
    Ok(json_response(&json!({
        "kind": "TraceList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items,
    })))
}

/// Has nodes note traces while somebody looks, and gathers what they saw, until `stop`.
pub(in crate::http) async fn run(state: AppState, stop: CancellationToken) {
    let traces = &state.graph.traces;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = traces.wanted.notified() => {}
        }
        if stop.run_until_cancelled(gather(&state)).await.is_none() {
            return;
        }
    }
}

/// While somebody looks.
async fn gather(state: &AppState) {
    let traces = &state.graph.traces;
    let mut lines: SelectAll<Heard> = SelectAll::new();
    let mut listened: Option<Instant> = None;
    let mut noted: VecDeque<(Instant, Noted)> = VecDeque::new();
    let mut ask = tokio::time::interval(ASK_EVERY);
    ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nodes: Vec<(String, Arc<Value>)> = Vec::new();
    let mut heard: BTreeSet<String> = BTreeSet::new();
    while traces.is_watched() {
        if listened.is_none_or(|at| at.elapsed() >= LISTEN_AGAIN) {
            listened = Some(Instant::now());
            match nodes_of(&state.objects).await {
                Ok(mut found) => {
                    found.truncate(NODES_MAX);
                    nodes = found;
                }
                Err(error) => tracing::debug!(%error, "nodes cannot be listed for traces"),
            }
            let new = nodes.iter().filter(|(name, _)| !heard.contains(name));
            let begun: Vec<_> = new.map(|(name, node)| listen(state, name, node)).collect();
            let begun = futures::stream::iter(begun).buffer_unordered(NODES_AT_ONCE);
            let begun: Vec<Option<(String, Heard)>> = begun.collect().await;
            for (name, of_node) in begun.into_iter().flatten() {
                heard.insert(name);
                lines.push(of_node);
            }
        }
        tokio::select! {
            biased;
            Some((name, more)) = lines.next(), if !lines.is_empty() => {
                let Some(more) = more else {
                    heard.remove(&*name);
                    continue;
                };
                for line in more.split(|byte| *byte == b'\n') {
                    let Ok(one) = serde_json::from_slice::<Noted>(line) else {
                        continue;
                    };
                    let is_new = noted.iter().all(|(_, known)| known.trace_id != one.trace_id);
                    if is_new && noted.len() < NOTED_MAX {
                        noted.push_back((Instant::now(), one));
                    }
                }
            }
            _ = ask.tick() => {
                let mut settled = Vec::new();
                while settled.len() < ASKED_MAX
                    && noted.front().is_some_and(|(at, _)| at.elapsed() >= SETTLED)
                {
                    settled.extend(noted.pop_front().map(|(_, noted)| noted));
                }
                if !settled.is_empty() {
                    let spans = spans_of(state, &nodes, &settled).await;
                    let slow = settled.into_iter().filter(|one| one.slow);
                    let slow = slow.map(|one| one.trace_id).collect();
                    traces.kept.lock().add(spans, &slow, Instant::now());
                }
            }
        }
    }
}

/// Begins to listen to a node.
async fn listen(state: &AppState, name: &str, node: &Value) -> Option<(String, Heard)> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/spans?watch=true");
    let sent = tokio::time::timeout(NODE_TIMEOUT, state.nodes.send(node, request)).await;
    match sent {
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
            let (of, ended): (Arc<str>, Arc<str>) = (name.into(), name.into());
            let lines = whole_lines(answer.into_body());
            let lines = lines.map(move |lines| (Arc::clone(&of), Some(lines)));
            let end = futures::stream::once(std::future::ready((ended, None)));
            Some((name.to_owned(), Box::pin(lines.chain(end))))
        }
        _ => {
            tracing::debug!(node = name, "nothing is heard of the traces of a node");
            None
        }
    }
}

/// What all nodes saw of these.
async fn spans_of(state: &AppState, nodes: &[(String, Arc<Value>)], noted: &[Noted]) -> Vec<Value> {
    let ids: Vec<&str> = noted.iter().map(|one| one.trace_id.as_str()).collect();
    let path = format!("/spans?traces={}", ids.join(","));
    let asked = nodes.iter().map(|(_, node)| {
        let path = path.as_str();
        let asking = async move {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = path.parse::<Uri>().ok()?;
            let answer = state.nodes.send(node, request).await.ok()?;
            if answer.status() != StatusCode::OK {
                return None;
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
            let body: Bytes = body.await.ok()?.to_bytes();
            serde_json::from_slice::<Vec<Value>>(&body).ok()
        };
        async move {
            tokio::time::timeout(NODE_TIMEOUT, asking)
                .await
                .ok()
                .flatten()
        }
    });
    let asked: Vec<_> = asked.collect();
    let asked = futures::stream::iter(asked).buffer_unordered(NODES_AT_ONCE);
    let answers: Vec<Option<Vec<Value>>> = asked.collect().await;
    answers.into_iter().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: &str, id: &str, parent: &str, namespace: &str, at: u32, failed: bool) -> Value {
        json!({
            "traceID": trace, "spanID": id, "parentID": parent, "failed": failed,
            "workload": {"namespace": namespace, "name": id}, "began": format!("2026-01-02T03:04:05.{at:03}000Z"),
            "durationMicros": 10_000 - 1000 * i64::from(at),
        })
    }

    #[test]
    fn a_trace_is_put_together_and_told_by_namespace() {
        let mut kept = Kept::default();
        let now = Instant::now();
        let spans = vec![
            span("t", "pay", "web", "bank", 2, true),
            span("t", "web", "gone", "shop", 1, false),
            span("u", "job", "", "bank", 1, false),
        ];
        kept.add(spans, &["u".to_owned()].into(), now);
        let shown = |namespace: Option<&str>| {
            let told = kept.order.iter().filter_map(|id| {
                let told = told(id, &kept.traces[id], namespace, true)?;
                Some(format!(
                    "{} {} {} failed={} slow={} {}",
                    id,
                    told["root"]["spanID"],
                    told["durationMicros"],
                    told["failed"],
                    told["slow"],
                    told["spans"].as_array()?.len()
                ))
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(
            shown(None),
            [
                "t \"web\" 9000 failed=true slow=false 2",
                "u \"job\" 9000 failed=false slow=true 1"
            ]
        );
        assert_eq!(
            shown(Some("shop")),
            ["t \"web\" 9000 failed=false slow=false 1"]
        );
        assert_eq!(shown(Some("other")), [""; 0]);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut kept = Kept::default();
        let now = Instant::now();
        for number in 0..TRACES_MAX + 10 {
            let id = format!("{number:04}");
            kept.add(
                vec![span(&id, "a", "", "n", 1, true)],
                &BTreeSet::new(),
                now,
            );
        }
        assert_eq!(kept.traces.len(), TRACES_MAX);
        assert!(!kept.traces.contains_key("0009") && kept.traces.contains_key("0010"));
        // Told once more, it is no second one.
        kept.add(
            vec![span("0010", "a", "", "n", 1, true)],
            &BTreeSet::new(),
            now,
        );
        assert_eq!(
            (kept.traces.len(), kept.order.len()),
            (TRACES_MAX, TRACES_MAX)
        );
        kept.make_room(now + KEPT_FOR + Duration::from_secs(1));
        assert_eq!((kept.traces.len(), kept.bytes), (0, 0));
    }
}
