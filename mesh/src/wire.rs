//! What nodes say to each other: HTTP/2 messages with `x-weft-*` lines, each written and read here and nowhere else.
//!
//! ```text
//! request    x-weft-destination  ip:port of the pod it is for     x-weft-service   name.namespace that was called
//!            x-weft-source       who calls, in words              and the call's context
//!            x-weft-raw          its bodies are the two directions of a byte stream; or carry datagrams, and whose
//!            x-weft-speaks-h2    its callee speaks HTTP/2 alone
//!            x-weft-from         where its caller is, and its pod's labels; where policies ask for it
//!            x-weft-limits       it is no call, but about rates, from node to node (share.rs)
//! response   x-weft-worked-ns    what the workload took for the head
//!            x-weft-spent        calls that were made for it were tried as often as they may be, or it wants no other try
//!            x-weft-rest-ms      its workload wants to be left alone for so long
//!            or a failure, with its message as the body
//! ```
//! Context and failure have their codec in [`weft_call::headers`]. The lines are believed because the connection is authenticated:
//! nobody but a node can send them, and [`headers::strip_weft`] takes them off whatever a workload or a client sends.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::BodyExt;
use weft_call::{Failure, REST_MAX};

use crate::{Body, CallContext, Datagrams, Peer, Raw, WorkloadInfo, guards::Source, headers};

const DESTINATION: HeaderName = HeaderName::from_static("x-weft-destination");
const SERVICE: HeaderName = HeaderName::from_static("x-weft-service");
/// `name;app;version;service;revision`.
const SOURCE: HeaderName = HeaderName::from_static("x-weft-source");
/// Of a call that is a byte stream.
const RAW: HeaderName = HeaderName::from_static("x-weft-raw");
/// Of a call whose callee speaks HTTP/2 and nothing else.
const SPEAKS_H2: HeaderName = HeaderName::from_static("x-weft-speaks-h2");
/// Of a response: its request is not to be tried again.
const SPENT: HeaderName = HeaderName::from_static("x-weft-spent");
/// Of a response: for how long its workload wants to be left alone.
const REST: HeaderName = HeaderName::from_static("x-weft-rest-ms");
/// Of a call that policies may judge.
const FROM: HeaderName = HeaderName::from_static("x-weft-from");
/// Nanoseconds from handing the request to the workload until it gave the response's head.
const WORKED: HeaderName = HeaderName::from_static("x-weft-worked-ns");

/// Text of a peer's failure that is read.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Which lines a request to another node has, made before the first call.
pub(crate) struct Addressed<'a> {
    /// Of the endpoint, as [`destination_line`] writes it.
    pub(crate) destination: &'a HeaderValue,
    /// `name.namespace`.
    pub(crate) service: &'a HeaderValue,
    /// As [`source_line`] writes it.
    pub(crate) source: &'a HeaderValue,
}

/// Writes where a request goes, who sends it and in which call.
pub(crate) fn encode_request(
    to: &Addressed<'_>,
    context: &CallContext,
    now: Instant,
    lines: &mut HeaderMap,
) {
    // Once more: filters may have added some.
    headers::strip_hop_by_hop(lines);
    lines.remove(header::HOST);
    lines.insert(DESTINATION, to.destination.clone());
    lines.insert(SERVICE, to.service.clone());
    lines.insert(SOURCE, to.source.clone());
    context.encode(now, lines);
}

/// A call that is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawLine {
    Stream,
    Datagrams(Datagrams),
}

impl RawLine {
    /// Of a call with these extensions; none where it is HTTP.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Raw>()?;
        let datagrams = extensions.get::<Datagrams>().copied();
        Some(datagrams.map_or(RawLine::Stream, RawLine::Datagrams))
    }

    pub(crate) fn encode(self, lines: &mut HeaderMap) {
        let line = match self {
            RawLine::Stream => Ok(HeaderValue::from_static("1")),
            RawLine::Datagrams(Datagrams { port, client }) => {
                HeaderValue::from_str(&format!("udp {port} {client}"))
            }
        };
        if let Ok(line) = line {
            lines.insert(RAW, line);
        }
    }

    /// What [`RawLine::encode`] wrote.
    pub(crate) fn decode(lines: &HeaderMap) -> Option<Self> {
        let line = lines.get(RAW)?.to_str().ok()?;
        let Some(datagrams) = line.strip_prefix("udp ") else {
            return Some(RawLine::Stream);
        };
        let (port, client) = datagrams.split_once(' ')?;
        Some(RawLine::Datagrams(Datagrams {
            port: port.parse().ok()?,
            client: client.parse().ok()?,
        }))
    }

    pub(crate) fn mark(self, extensions: &mut Extensions) {
        extensions.insert(Raw);
        if let RawLine::Datagrams(datagrams) = self {
            extensions.insert(datagrams);
        }
    }
}

/// Says that the callee speaks HTTP/2 alone.
pub(crate) fn encode_speaks_h2(lines: &mut HeaderMap) {
    lines.insert(SPEAKS_H2, HeaderValue::from_static("1"));
}

/// Whether it does.
pub(crate) fn speaks_h2(lines: &HeaderMap) -> bool {
    lines.contains_key(SPEAKS_H2)
}

/// Says where the caller is.
pub(crate) fn encode_from(source: &Source, lines: &mut HeaderMap) {
    if let Some(line) = source.line() {
        lines.insert(FROM, line);
    }
}

/// What [`encode_from`] wrote of a caller of `namespace`; nothing where it says nothing.
pub(crate) fn source(lines: &HeaderMap, namespace: &str) -> Source {
    let read = lines
        .get(FROM)
        .and_then(|line| Source::read(line, namespace));
    read.unwrap_or_default()
}

/// The pod that a request is for; none where it does not say that.
pub(crate) fn destination(lines: &HeaderMap) -> Option<SocketAddr> {
    lines.get(DESTINATION)?.to_str().ok()?.parse().ok()
}

/// What [`destination`] reads.
pub(crate) fn destination_line(address: SocketAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Who calls whom in words: the lines for [`source_workload`] and [`service_names`], cheap to clone and to compare.
pub(crate) fn source_and_service(lines: &HeaderMap) -> (HeaderValue, HeaderValue) {
    let line = |name| {
        let line = lines.get(name).cloned();
        line.unwrap_or_else(|| HeaderValue::from_static(""))
    };
    (line(SOURCE), line(SERVICE))
}

/// The context of a request that came at `now` from `peer`; takes all lines of nodes off it.
pub(crate) fn take_context(lines: &mut HeaderMap, peer: Arc<Peer>, now: Instant) -> CallContext {
    let context = CallContext::decode(lines, Some(peer), now);
    headers::strip_weft(lines);
    context
}

/// What [`source_workload`] reads.
pub(crate) fn source_line(workload: &WorkloadInfo) -> HeaderValue {
    let line = [
        &workload.name,
        &workload.app,
        &workload.version,
        &workload.canonical_service,
        &workload.canonical_revision,
    ]
    .map(String::as_str)
    .join(";");
    HeaderValue::from_str(&line).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The namespace is that of the certificate.
pub(crate) fn source_workload(line: &HeaderValue, namespace: &str) -> WorkloadInfo {
    let mut fields = line.to_str().unwrap_or_default().split(';');
    let mut next = || fields.next().unwrap_or_default().to_owned();
    WorkloadInfo {
        name: next(),
        namespace: namespace.to_owned(),
        app: next(),
        version: next(),
        canonical_service: next(),
        canonical_revision: next(),
    }
}

/// What [`service_names`] reads.
pub(crate) fn service_line(name: &str, namespace: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{name}.{namespace}"))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Name and namespace of the service that was called; empty where none was.
pub(crate) fn service_names(line: &HeaderValue) -> (&str, &str) {
    let text = line.to_str().unwrap_or_default();
    text.split_once('.').unwrap_or_default()
}

/// Says on a response how long its workload took.
pub(crate) fn encode_worked(worked: Duration, lines: &mut HeaderMap) {
    let nanos = u64::try_from(worked.as_nanos()).unwrap_or(u64::MAX);
    lines.insert(WORKED, HeaderValue::from(nanos));
}

/// Says on a response that calls made for it were tried as often as they may be.
pub(crate) fn encode_spent(lines: &mut HeaderMap) {
    lines.insert(SPENT, HeaderValue::from_static("1"));
}

/// Whether the peer says so; looked at before [`take_worked`] takes its lines away.
pub(crate) fn is_spent(lines: &HeaderMap) -> bool {
    lines.contains_key(SPENT)
}

/// Says on a response for how long its workload wants to be left alone.
pub(crate) fn encode_rest(time: Duration, lines: &mut HeaderMap) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    lines.insert(REST, HeaderValue::from(millis));
}

/// What the peer says of that; looked at before [`take_worked`] takes its lines away.
pub(crate) fn rest(lines: &HeaderMap) -> Option<Duration> {
    let millis = lines.get(REST)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).min(REST_MAX))
}

/// What the peer says its workload took, none from one that does not say; takes all lines of nodes off the response.
pub(crate) fn take_worked(lines: &mut HeaderMap) -> Option<Duration> {
    let worked = lines.get(WORKED).and_then(|nanos| {
        let nanos = nanos.to_str().ok()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    });
    headers::strip_weft(lines);
    worked
}

/// The answer of a node itself, where its workload gave none.
pub(crate) fn encode_failure(failure: &Failure) -> Response<Body> {
    let mut response = Response::new(Body::full(failure.message.clone().into_owned()));
    *response.status_mut() = failure.status();
    failure.encode(response.headers_mut());
    response
}

/// The response of a workload, or the failure that the peer tells of: the very one that happened there.
pub(crate) async fn decode_failure(response: Response<Body>) -> Result<Response<Body>, Failure> {
    match Failure::decode(response.headers()) {
        None => Ok(response),
        Some(failure) => Err(read_message(failure, response.into_body()).await),
    }
}

/// Frame by frame: `Limited` and `collect` make futures that rustc 1.95 cannot prove `Send`.
async fn read_message(failure: Failure, mut body: Body) -> Failure {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = MESSAGE_BYTES_MAX - text.len();
            text.extend_from_slice(&data[..data.len().min(room)]);
        }
        if text.len() == MESSAGE_BYTES_MAX {
            break;
        }
    }
    if text.is_empty() {
        return failure;
    }
    failure.with_message(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use weft_call::{Blame, FailureKind, Processed};

    use super::*;

    #[tokio::test]
    async fn a_failure_of_another_node_is_the_one_that_happened_there() {
        for kind in FailureKind::ALL {
            for (blame, processed) in [
                (Blame::Policy, Processed::No),
                (Blame::Endpoint, Processed::Maybe),
                (Blame::Connection, Processed::Yes),
            ] {
                let failure = Failure::new(kind, "päyment is closed")
                    .with_blame(blame)
                    .with_processed(processed)
                    .with_retry_after(Duration::from_millis(1500));
                let told = encode_failure(&failure.clone().with_detail("a stack"));
                assert!(!told.status().is_success(), "{kind}");
                let arrived = decode_failure(told).await.expect_err("a failure");
                assert_eq!(arrived, failure);
            }
        }
        let response = Response::new(Body::full("hello"));
        assert!(decode_failure(response).await.is_ok());
    }

    #[tokio::test]
    async fn of_a_long_message_the_beginning_is_read() {
        let long = "x".repeat(3 * MESSAGE_BYTES_MAX);
        let told = encode_failure(&Failure::new(FailureKind::Trap, long));
        let arrived = decode_failure(told).await.expect_err("a failure");
        assert_eq!(arrived.message.len(), MESSAGE_BYTES_MAX);
    }
}
