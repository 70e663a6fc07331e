//! Calls as they end, of all nodes, for one reader: each node's lines (`weft_agent`) as they come.
//!
//! Invariants: a node is asked for the namespace that the reader was allowed, whatever the query says; lines are passed on whole and unread,
//! of bounded length; nothing is read ahead: a slow reader's lines wait at the nodes, which drop them and say how many; who goes away leaves
//! no node watching. Nodes that come later are not asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::SelectAll;
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

/// Lines of one node.
type Lines = std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>;

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
    let path = path(namespace, params);
    let mut nodes = nodes_of(&state.objects).await?;
    let left_out = nodes.len().saturating_sub(NODES_MAX);
    nodes.truncate(NODES_MAX);
    let asked = nodes.into_iter().map(|(name, node)| {
        let path = path.as_str();
        async move { begin(state, name, node, path).await }
    });
    let asked = futures::stream::iter(asked).buffer_unordered(NODES_AT_ONCE);
    let asked: Vec<Result<Lines, StatusError>> = asked.collect().await;
    let mut all = SelectAll::new();
    for begun in asked {
        // What one node refuses, all do: the query is the same.
        all.push(begun?);
    }
    if left_out > 0 {
        let told = format!("of {left_out} further nodes nothing is told; ask for one namespace");
        let told = Bytes::from(format!("{}\n", json!({"warning": told})));
        all.push(Box::pin(futures::stream::once(std::future::ready(told))));
    }
    let end = tokio::time::sleep_until(Instant::now() + lasts);
    let closing = state.closing.clone();
    let lines = all.map(Ok::<_, Infallible>).take_until(async move {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = end => {}
        }
    });
    Ok(lines_response(Body::from_stream(lines)))
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

/// Begins to listen to a node. One that is out of reach is a line that says so.
async fn begin(
    state: &AppState,
    name: String,
    node: Arc<Value>,
    path: &str,
) -> Result<Lines, StatusError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse::<Uri>().map_err(StatusError::internal)?;
    let sent = tokio::time::timeout(BEGIN_MAX, state.nodes.send(&node, request)).await;
    let why = match sent {
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
            return Ok(Box::pin(whole_lines(answer.into_body())));
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
    let told = json!({"warning": format!("nothing is told of node {name}: {why}")});
    let told = Bytes::from(format!("{told}\n"));
    Ok(Box::pin(futures::stream::once(std::future::ready(told))))
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
