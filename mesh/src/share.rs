//! Rates that are counted over all nodes: what each of them let in is told to those that have endpoints of the same Service, ten times a second.
//!
//! No call waits for another node. A node counts what it lets in by itself, and what others let in when it hears of it (`limit.rs`), as if it
//! had been let in here: it may be in debt then, and lets nobody in until that is paid. So the rate holds over time; but what is let in between
//! two tellings nobody else knows yet. Of N nodes with endpoints of the Service, callers may have up to N bursts at once, and one interval's
//! rate for each node, and get that much less of what follows. A node that cannot be told, or cannot tell, counts for itself, and keeps no other
//! from hearing.
//!
//! Invariants: only nodes are heard, which prove to be that at both ends; what is told, and what it may cost a caller, has a bound; a line that
//! cannot be read is left out, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderName, HeaderValue, Request, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{Body, Inner, table::Table};

/// Of a message of a node about rates.
const LIMITS: HeaderName = HeaderName::from_static("x-weft-limits");
/// Callers are over a rate for so long at most before others know.
const INTERVAL: Duration = Duration::from_millis(100);
/// A node that takes longer to hear a message does without.
const TELLING_MAX: Duration = Duration::from_secs(1);
/// A message; of more callers than fit the others are told next time.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Callers of one Service that are told of at once: their names are shorter than 512 bytes.
const TOLD_MAX: usize = 256;

/// Tells other nodes until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Waiting::default();
    let mut tellings = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(node) = tellings.next() => waiting.told(node),
            _ = ticks.tick() => {
                for (node, lines) in messages(&inner.table.load()) {
                    waiting.add(node, &lines);
                }
            }
        }
        for (node, message) in waiting.due() {
            let inner = &inner;
            tellings.push(async move {
                tell(inner, node, message).await;
                node
            });
        }
    }
}

/// What nodes are yet to be told, and which of them are being told something: each has one message at a time, and waits for nobody else's.
#[derive(Debug, Default)]
struct Waiting {
    lines: BTreeMap<SocketAddr, String>,
    busy: BTreeSet<SocketAddr>,
}

impl Waiting {
    /// Whole messages alone: what does not fit with what waits already is not told.
    fn add(&mut self, node: SocketAddr, lines: &str) {
        let all = self.lines.entry(node).or_default();
        if all.len() + lines.len() <= MESSAGE_BYTES_MAX {
            all.push_str(lines);
        }
    }

    fn told(&mut self, node: SocketAddr) {
        self.busy.remove(&node);
    }

    /// Messages that can be sent, to nodes that are told nothing else now.
    fn due(&mut self) -> Vec<(SocketAddr, String)> {
        let Self { lines, busy } = self;
        let due = lines.extract_if(.., |node, lines| !lines.is_empty() && busy.insert(*node));
        due.collect()
    }
}

/// What was let in here since it was told last, for each node that has to know.
fn messages(table: &Table) -> BTreeMap<SocketAddr, String> {
    let mut messages: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for service in table.guarded() {
        let Some(guard) = service.guard() else {
            continue;
        };
        let untold = guard.limits.take_untold(TOLD_MAX);
        if untold.is_empty() {
            continue;
        }
        let labels = service.labels();
        let mut lines = String::new();
        for (limit, who, calls) in untold {
            let (namespace, name) = (&labels.namespace, &labels.name);
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{namespace}/{name} {limit:x} {calls} {who}");
        }
        for node in service.other_nodes().collect::<BTreeSet<SocketAddr>>() {
            let message = messages.entry(node).or_default();
            if message.len() + lines.len() <= MESSAGE_BYTES_MAX {
                message.push_str(&lines);
            }
        }
    }
    messages
}

async fn tell(inner: &Arc<Inner>, node: SocketAddr, message: String) {
    let mut request = Request::new(Body::full(message));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("http://node/");
    *request.version_mut() = Version::HTTP_2;
    let lines = request.headers_mut();
    lines.insert(LIMITS, HeaderValue::from_static("1"));
    let caller = &inner.gateway_caller;
    let (identity, name) = (caller.identity(), &caller.spiffe_id);
    let sending = inner
        .transport
        .send_to(identity, name, (identity, name), node, request);
    match tokio::time::timeout(TELLING_MAX, sending).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%node, %error, "a node is not told of rates"),
        Err(_) => tracing::debug!(%node, "a node takes too long to be told of rates"),
    }
}

/// Whether a request is a message about rates.
pub(crate) fn is_message(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(LIMITS)
}

/// Takes in what another node let in.
pub(crate) async fn hear(inner: &Inner, body: Incoming) {
    let reading = Limited::new(body, MESSAGE_BYTES_MAX).collect();
    let Ok(Ok(read)) = tokio::time::timeout(TELLING_MAX, reading).await else {
        return;
    };
    let bytes = read.to_bytes();
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let table = inner.table.load();
    let now = inner.nanos(Instant::now());
    for line in text.lines() {
        let _ = heard(inner, &table, line, now);
    }
}

/// None: the line says nothing of this node's concern.
fn heard(inner: &Inner, table: &Table, line: &str, now: u64) -> Option<()> {
    let mut words = line.splitn(4, ' ');
    let (namespace, name) = words.next()?.split_once('/')?;
    let limit = u64::from_str_radix(words.next()?, 16).ok()?;
    let calls = words.next()?.parse().ok()?;
    let who = words.next()?;
    let service = table.service(namespace, name)?;
    if service.guard()?.limits.hear(limit, who, calls, now) {
        inner.metrics.acted(service.labels(), "limit-heard");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_told_less_and_others_all() {
        let [one, cut_off] = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let mut waiting = Waiting::default();
        let tick = |waiting: &mut Waiting, lines: &str| {
            for node in [one, cut_off] {
                waiting.add(node, lines);
            }
            waiting.due()
        };
        let both = tick(&mut waiting, "a\n");
        assert_eq!(both, [(one, "a\n".to_owned()), (cut_off, "a\n".to_owned())]);
        // The one has heard it, and the other says nothing yet.
        waiting.told(one);
        assert_eq!(tick(&mut waiting, "b\n"), [(one, "b\n".to_owned())]);
        assert_eq!(tick(&mut waiting, "c\n"), [], "both are busy");
        waiting.told(one);
        assert_eq!(waiting.due(), [(one, "c\n".to_owned())]);
        let long = "d".repeat(MESSAGE_BYTES_MAX - 4);
        waiting.add(cut_off, &long);
        waiting.add(cut_off, "e");
        waiting.told(cut_off);
        assert_eq!(waiting.due(), [(cut_off, format!("b\nc\n{long}"))]);
        assert_eq!(waiting.due(), []);
    }
}
