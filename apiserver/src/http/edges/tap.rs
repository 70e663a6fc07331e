//! Calls as they end, of all nodes, for one reader: each node's lines (`weft_agent`) as they come.
//!
//! Invariants: a node is asked for the namespace that the reader was allowed, whatever the query says; lines are passed on whole and unread,
//! of bounded length; nothing is read ahead: a slow reader's lines wait at the nodes, which drop them and say how many; who goes away leaves
//! no node watching. Nodes that come later, or come back, are asked within [`LOOK_EVERY`].

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, SelectAll};
use futures::{Stream, StreamExt as _};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_api::status::StatusError;

use super::{WATCH_MAX, lines_response};
use crate::http::AppState;
use crate::http::usage::nodes_of;
use crate::request::Params;

/// Nodes that one reader is told of.
const NODES_MAX: usize = 256;
/// Nodes that are asked at the same time, and how long one may take to begin.
const NODES_AT_ONCE: usize = 32;
const BEGIN_MAX: Duration = Duration::from_secs(3);
/// How often nodes are looked for that are not listened to: of a small cluster, and of one in which a list of them is long.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_EVERY_OF_MANY: Duration = Duration::from_secs(10);
const NODES_FEW: usize = 64;
/// Longest line: it has two texts of half a kilobyte, and sixteen tries.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How much of a node's refusal is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;
/// What the nodes understand of a query.
const PASSED_ON: [&str; 8] = [
    "workload",
    "service",
    "method",
    "path",
    "reporter",
    "code",
    "slowerThan",
    "share",
];

/// Lines of one node; the last of them says that there are no more.
type Lines = std::pin::Pin<Box<dyn Stream<Item = Told> + Send>>;

/// What comes of listening.
enum Told {
    Lines(Bytes),
    /// This node says nothing any more.
    Over(String),
}

/// What came of asking a node.
enum Begun {
    Listening(Lines),
    /// It is out of reach.
    Not(String),
}

pub(super) async fn answer(
    state: &AppState,
    namespace: Option<&str>,
    params: &Params,
) -> Result<Response, StatusError> {
    let seconds = params.number("timeoutSeconds")?;
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let lasts = seconds.filter(|seconds| *seconds > 0);
    let lasts = lasts.map_or(WATCH_MAX, |seconds| {
        Duration::from_secs(seconds).min(WATCH_MAX)
    });
    let path: Arc<str> = path(namespace, params).into();
    let mut following = Following {
        state: state.clone(),
        path,
        asked: BTreeSet::new(),
        warned: BTreeSet::new(),
        beginning: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        all: SelectAll::new(),
        told: VecDeque::new(),
        look: Instant::now(),
    };
    following.look().await?;
    while let Some((name, begun)) = following.begun().await {
        // What one node refuses, all do: the query is the same.
        following.take(name, begun?);
    }
    let end = tokio::time::sleep_until(Instant::now() + lasts);
    let closing = state.closing.clone();
    let lines = futures::stream::unfold(following, |mut following| async move {
        let lines = following.next().await;
        Some((Ok::<_, Infallible>(lines), following))
    });
    let lines = lines.take_until(async move {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = end => {}
        }
    });
    Ok(lines_response(Body::from_stream(lines)))
}

type Beginning = futures::future::BoxFuture<'static, (String, Result<Begun, StatusError>)>;

/// Who one reader is told of.
struct Following {
    state: AppState,
    /// What nodes are asked.
    path: Arc<str>,
    /// Nodes that are listened to, or about to be.
    asked: BTreeSet<String>,
    /// Nodes that the reader was told not to hear of.
    warned: BTreeSet<String>,
    beginning: FuturesUnordered<Beginning>,
    /// Nodes that are asked when others have answered.
    waiting: VecDeque<(String, Arc<Value>)>,
    all: SelectAll<Lines>,
    /// Warnings that are told next.
    told: VecDeque<Bytes>,
    /// When nodes are next looked for.
    look: Instant,
}

impl Following {
    /// Looks for nodes that are not listened to.
    async fn look(&mut self) -> Result<(), StatusError> {
        let mut nodes = nodes_of(&self.state.objects).await?;
        self.look = Instant::now()
            + match nodes.len() <= NODES_FEW {
                true => LOOK_EVERY,
                false => LOOK_EVERY_OF_MANY,
            };
        let left_out = nodes.len().saturating_sub(NODES_MAX);
        nodes.truncate(NODES_MAX);
        for (name, node) in nodes {
            if self.asked.insert(name.clone()) {
                self.waiting.push_back((name, node));
            }
        }
        // Nothing is the name of no node.
        if left_out > 0 && self.warned.insert(String::new()) {
            self.warn(&format!(
                "of {left_out} further nodes nothing is told; ask for one namespace"
            ));
        }
        Ok(())
    }

    fn warn(&mut self, text: &str) {
        let line = format!("{}\n", json!({"warning": text}));
        self.told.push_back(Bytes::from(line));
    }

    /// The next node that has answered; none where none is asked.
    async fn begun(&mut self) -> Option<(String, Result<Begun, StatusError>)> {
        while self.beginning.len() < NODES_AT_ONCE
            && let Some((name, node)) = self.waiting.pop_front()
        {
            let (state, path) = (self.state.clone(), Arc::clone(&self.path));
            let beginning = async move {
                let begun = begin(&state, &name, &node, &path).await;
                (name, begun)
            };
            self.beginning.push(Box::pin(beginning));
        }
        self.beginning.next().await
    }

    /// Listens to a node, or has it asked again later, which is told once.
    fn take(&mut self, name: String, begun: Begun) {
        match begun {
            Begun::Listening(lines) => {
                self.warned.remove(&name);
                self.all.push(lines);
            }
            Begun::Not(why) => {
                self.asked.remove(&name);
                let text = format!("nothing is told of node {name}: {why}");
                if self.warned.insert(name) {
                    self.warn(&text);
                }
            }
        }
    }

    /// The next lines, of whichever node.
    async fn next(&mut self) -> Bytes {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            let is_asking = !self.beginning.is_empty() || !self.waiting.is_empty();
            let (look, has_any) = (self.look, !self.all.is_empty());
            // Borrowed apart from what is asked meanwhile.
            let mut all = std::mem::take(&mut self.all);
            let came = tokio::select! {
                biased;
                Some(told) = all.next(), if has_any => Came::Told(told),
                Some((name, begun)) = self.begun(), if is_asking => Came::Begun(name, begun),
                () = tokio::time::sleep_until(look) => Came::Look,
            };
            self.all = all;
            match came {
                Came::Told(Told::Lines(lines)) => return lines,
                Came::Told(Told::Over(name)) => {
                    self.asked.remove(&name);
                }
                // Where as many listen as may, it is asked again.
                Came::Begun(name, begun) => {
                    let begun = begun.unwrap_or_else(|refusal| Begun::Not(refusal.to_string()));
                    self.take(name, begun);
                }
                Came::Look => {
                    if let Err(error) = self.look().await {
                        tracing::debug!(%error, "nodes cannot be listed for a tap");
                        self.look = Instant::now() + LOOK_EVERY_OF_MANY;
                    }
                }
            }
        }
    }
}

/// What a reader waits for.
enum Came {
    Told(Told),
    Begun(String, Result<Begun, StatusError>),
    Look,
}

fn path(namespace: Option<&str>, params: &Params) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in params.pairs() {
        if PASSED_ON.contains(&name.as_str()) {
            query.append_pair(name, value);
        }
    }
    // Last, and the only one: what the reader was allowed.
    if let Some(namespace) = namespace {
        query.append_pair("namespace", namespace);
    }
    format!("/tap?{}", query.finish())
}

/// Begins to listen to a node.
///
/// # Errors
/// What it refuses.
async fn begin(
    state: &AppState,
    name: &str,
    node: &Value,
    path: &str,
) -> Result<Begun, StatusError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse::<Uri>().map_err(StatusError::internal)?;
    let sent = tokio::time::timeout(BEGIN_MAX, state.nodes.send(node, request)).await;
    let why = match sent {
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
            let over = std::future::ready(Told::Over(name.to_owned()));
            let lines = whole_lines(answer.into_body()).map(Told::Lines);
            return Ok(Begun::Listening(Box::pin(
                lines.chain(futures::stream::once(over)),
            )));
        }
        Ok(Ok(answer)) => {
            let code = answer.status().as_u16();
            let refusal = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX);
            let refusal = refusal.collect().await;
            let refusal = refusal.map(|body| body.to_bytes()).unwrap_or_default();
            let refusal: Value = serde_json::from_slice(&refusal).unwrap_or_default();
            let message = refusal["message"].as_str().unwrap_or_default();
            match code {
                400 => return Err(StatusError::bad_request(message)),
                429 => return Err(StatusError::too_many_requests(message, 1)),
                _ => format!("it answered {code}"),
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", BEGIN_MAX.as_secs()),
    };
    Ok(Begun::Not(why))
}

/// Pieces that end where lines do; so many lines at once as came.
pub(super) fn whole_lines(body: Body) -> impl Stream<Item = Bytes> + Send {
    let parts = body.into_data_stream();
    futures::stream::unfold(
        (parts, BytesMut::new()),
        |(mut parts, mut rest)| async move {
            loop {
                let part = parts.next().await?.ok()?;
                rest.extend_from_slice(&part);
                match rest.iter().rposition(|byte| *byte == b'\n') {
                    Some(end) => {
                        let lines = rest.split_to(end + 1).freeze();
                        return Some((lines, (parts, rest)));
                    }
                    // No node of ours says that.
                    None if rest.len() > LINE_BYTES_MAX => return None,
                    None => {}
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_passed_on_whole() {
        let parts = ["{\"a\"", ":1}\n{\"b\":2}\n{", "\"c\":3}\n", "\n", "{\"un"];
        let parts = parts.map(|part| Ok::<_, Infallible>(Bytes::from(part)));
        let body = Body::from_stream(futures::stream::iter(parts));
        let lines: Vec<Bytes> = whole_lines(body).collect().await;
        assert_eq!(lines, ["{\"a\":1}\n{\"b\":2}\n", "{\"c\":3}\n", "\n"]);
        let endless = Body::from(vec![b'x'; LINE_BYTES_MAX + 1]);
        let lines: Vec<Bytes> = whole_lines(endless).collect().await;
        assert!(lines.is_empty());
    }
}
