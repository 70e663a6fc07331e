//! Asks nodes what their meshes counted, and makes frames of what is new.
//!
//! Once a second while somebody looks at the graph, every ten seconds otherwise, so that there is a past to look at; of a cluster that has
//! more than [`UNASKED_NODES_MAX`] nodes, only while somebody looks. A node says of those edges alone that had calls since it was last
//! asked, over a connection that is kept.
//!
//! Invariants: one reading is under way at a time, and takes [`NODE_TIMEOUT`] at most; a node that does not answer is left alone for a
//! while, and what it counted meanwhile is in the frame in which it answers again; the first answer of a node is where its counts begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::Either;
use http::{StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::SendRequest;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weft_call::edges::{EdgeName, Figures, NodeEdges, ServicePolicies};

use super::Graph;
use crate::http::AppState;
use crate::http::proxy::NodeClient;
use crate::http::usage::{FRESH, nodes_of, used};
use crate::objects::Objects;

/// How often nodes are asked while somebody looks, and otherwise.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
const UNWATCHED_EVERY: Duration = super::ring::COARSE;
/// Nodes that are asked though nobody looks.
const UNASKED_NODES_MAX: usize = 64;
/// How long one node may take: a slow one holds up the frame of all.
const NODE_TIMEOUT: Duration = Duration::from_millis(900);
/// How long a node is left alone that did not answer.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// How old the list of nodes may be.
const NODES_FRESH: Duration = Duration::from_secs(10);
/// Nodes asked at the same time.
const NODES_AT_ONCE: usize = 64;
/// Longest answer of a node: four thousand edges, each in as many ways to end as there may be.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How often it is looked what is used, while somebody follows that: as often as it is read anew.
const USAGE_EVERY: Duration = FRESH;

/// What is known of a node from asking it.
#[derive(Default)]
struct Asked {
    /// What it last said that policies ask of it.
    policies: Vec<ServicePolicies>,
    connection: Option<(SendRequest<Body>, String)>,
    /// When it last answered, and what it had counted by then.
    last: Option<(Instant, Counts)>,
    failed: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    since: u64,
    edges: BTreeMap<EdgeName, Figures>,
}

impl Counts {
    /// What is new in an answer; takes it up.
    fn new_of(&mut self, answer: NodeEdges, is_first: bool) -> Vec<(EdgeName, Figures)> {
        if self.since != answer.since {
            // A node that began anew has counted all of it since.
            self.edges.clear();
            self.since = answer.since;
        }
        let mut new = Vec::new();
        for counted in answer.edges {
            let before = self.edges.get(&counted.edge);
            let figures = match before {
                None if is_first => Figures::default(),
                None => counted.figures.clone(),
                // An edge that the node had let go of counts from nothing again.
                Some(before) => counted
                    .figures
                    .after(before)
                    .unwrap_or_else(|| counted.figures.clone()),
            };
            if figures.calls() > 0 {
                new.push((counted.edge.clone(), figures));
            }
            self.edges.insert(counted.edge, counted.figures);
        }
        new
    }
}

/// Collects until `stop`.
pub(in crate::http) async fn run(
    graph: Arc<Graph>,
    objects: Objects,
    client: NodeClient,
    stop: CancellationToken,
) {
    let mut nodes: Vec<(String, Arc<Value>)> = Vec::new();
    let mut listed: Option<Instant> = None;
    let mut asked: BTreeMap<String, Asked> = BTreeMap::new();
    let mut last = Instant::now();
    // It is where counts begin, and about no time.
    let mut is_first = true;
    loop {
        let every = match graph.is_watched() {
            true => WATCHED_EVERY,
            false => UNWATCHED_EVERY,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = graph.wanted.notified() => {}
            () = tokio::time::sleep_until((last + every).into()) => {}
        }
        // Somebody who begins to look does not make two frames of one moment.
        if !is_first && last.elapsed() < WATCHED_EVERY / 2 {
            continue;
        }
        if listed.is_none_or(|at| at.elapsed() >= NODES_FRESH) {
            match nodes_of(&objects).await {
                Ok(found) => {
                    asked.retain(|name, _| found.iter().any(|(known, _)| known == name));
                    nodes = found;
                    listed = Some(Instant::now());
                }
                Err(error) => {
                    tracing::debug!(%error, "nodes cannot be listed for the graph of edges");
                    last = Instant::now();
                    continue;
                }
            }
        }
        if nodes.len() > UNASKED_NODES_MAX && !graph.is_watched() {
            is_first = true;
            last = Instant::now();
            continue;
        }
        let width = match is_first {
            true => Duration::ZERO,
            false => last.elapsed(),
        };
        is_first = false;
        last = Instant::now();
        let reading = read_all(&client, &nodes, &mut asked);
        let Some(new) = stop.run_until_cancelled(reading).await else {
            return;
        };
        let policies = merged(asked.values());
        graph.push(Timestamp::now(), width, new, policies);
    }
}

/// What policies do, as all nodes together see it, in the order of the services' names.
fn merged<'a>(nodes: impl Iterator<Item = &'a Asked>) -> Vec<ServicePolicies> {
    let mut all: BTreeMap<(&str, &str), ServicePolicies> = BTreeMap::new();
    // One that does not answer says nothing of now.
    let answering = nodes.filter(|node| node.failed.is_none());
    for one in answering.flat_map(|node| &node.policies) {
        match all.get_mut(&(one.namespace.as_str(), one.name.as_str())) {
            Some(sum) => sum.add(one),
            None => {
                all.insert((&one.namespace, &one.name), one.clone());
            }
        }
    }
    all.into_values().collect()
}

/// Reads what is used while somebody follows that, until `stop`.
pub(in crate::http) async fn usage(state: AppState, stop: CancellationToken) {
    let graph = &state.graph;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = graph.usage_wanted.notified() => {}
        }
        while graph.is_usage_watched() {
            let meters = (&*state.meter, &*state.calls);
            let reading = used(&state.objects, &state.nodes, meters);
            match stop.run_until_cancelled(reading).await {
                None => return,
                Some(Ok(used)) => {
                    let mut usage = graph.usage.lock();
                    *usage = (usage.0 + 1, Arc::new(used));
                }
                Some(Err(error)) => tracing::debug!(%error, "what is used cannot be read"),
            }
            let pause = tokio::time::sleep(USAGE_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}

/// Asks all nodes, and gives what is new.
async fn read_all(
    client: &NodeClient,
    nodes: &[(String, Arc<Value>)],
    asked: &mut BTreeMap<String, Asked>,
) -> Vec<(EdgeName, Figures)> {
    let reads = nodes.iter().map(|(name, node)| {
        let mut known = asked.remove(name).unwrap_or_default();
        if known.failed.is_some_and(|at| at.elapsed() < LEFT_ALONE) {
            return Either::Left(std::future::ready((name.clone(), known, Vec::new())));
        }
        Either::Right(async move {
            let reading = read(client, node, &mut known);
            let read = tokio::time::timeout(NODE_TIMEOUT, reading).await;
            let new = match read.unwrap_or_else(|_| Err("it took too long".to_owned())) {
                Ok(new) => {
                    known.failed = None;
                    new
                }
                Err(why) => {
                    tracing::debug!(node = name, why, "the edges of a node could not be read");
                    known.connection = None;
                    known.failed = Some(Instant::now());
                    Vec::new()
                }
            };
            (name.clone(), known, new)
        })
    });
    let reads: Vec<_> = reads.collect();
    let mut reads = futures::stream::iter(reads).buffer_unordered(NODES_AT_ONCE);
    let mut all = Vec::new();
    while let Some((name, known, new)) = reads.next().await {
        asked.insert(name, known);
        all.extend(new);
    }
    all
}

async fn read(
    client: &NodeClient,
    node: &Value,
    known: &mut Asked,
) -> Result<Vec<(EdgeName, Figures)>, String> {
    let path = match &known.last {
        // A second more than it was, as nodes count in whole ones.
        Some((at, _)) => format!("/stats/edges?within={}", at.elapsed().as_secs() + 2),
        None => "/stats/edges".to_owned(),
    };
    let begun = Instant::now();
    let body = ask(client, node, known, &path).await?;
    let mut answer: NodeEdges = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let (is_first, mut counts) = match known.last.take() {
        Some((_, counts)) => (false, counts),
        None => (true, Counts::default()),
    };
    known.policies = std::mem::take(&mut answer.services);
    let new = counts.new_of(answer, is_first);
    known.last = Some((begun, counts));
    Ok(new)
}

/// Over the connection that there is, and over another one where that had ended.
async fn ask(
    client: &NodeClient,
    node: &Value,
    known: &mut Asked,
    path: &str,
) -> Result<Bytes, String> {
    if let Some((sender, address)) = &mut known.connection {
        match exchange(sender, address, path).await {
            Ok(body) => return Ok(body),
            Err(_) => known.connection = None,
        }
    }
    let opened = client.open(node).await.map_err(|error| error.to_string())?;
    let (sender, address) = known.connection.insert(opened);
    exchange(sender, address, path).await
}

async fn exchange(
    sender: &mut SendRequest<Body>,
    address: &str,
    path: &str,
) -> Result<Bytes, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| told(&error))?;
    let host = http::HeaderValue::from_str(address).map_err(|error| told(&error))?;
    request.headers_mut().insert(header::HOST, host);
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| told(&error))?.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("it answered {}", head.status));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| told(&error))?.to_bytes())
}

#[cfg(test)]
mod tests {
    use weft_call::edges::EdgeCounts;

    use super::*;

    fn answer(since: u64, edges: &[(&str, u64)]) -> NodeEdges {
        let edges = edges.iter().map(|(name, calls)| {
            let mut edge = EdgeName::default();
            (*name).clone_into(&mut edge.source.workload);
            EdgeCounts {
                edge,
                figures: Figures {
                    outcomes: [("200".to_owned(), *calls)].into(),
                    ..Figures::default()
                },
            }
        });
        NodeEdges {
            since,
            edges: edges.collect(),
            overflowed: 0,
            services: Vec::new(),
        }
    }

    #[test]
    fn what_a_node_counted_before_it_was_first_asked_is_not_new() {
        let mut counts = Counts::default();
        let mut new = |answer, is_first| {
            let new = counts.new_of(answer, is_first);
            let new = new.into_iter();
            new.map(|(name, figures)| format!("{} {}", name.source.workload, figures.calls()))
                .collect::<Vec<_>>()
        };
        assert_eq!(new(answer(1, &[("a", 100), ("b", 7)]), true), [""; 0]);
        assert_eq!(
            new(answer(1, &[("a", 103), ("c", 2)]), false),
            ["a 3", "c 2"]
        );
        // Only those with calls are told; one of them later.
        assert_eq!(new(answer(1, &[("b", 8)]), false), ["b 1"]);
        // Let go of by the node, and made again.
        assert_eq!(new(answer(1, &[("a", 1)]), false), ["a 1"]);
        // Another run of the node.
        assert_eq!(new(answer(2, &[("a", 5)]), false), ["a 5"]);
    }
}
