//! A port of a pod as a stream of bytes: what `kubectl port-forward` ends in.
//!
//! ```text
//! /portForward/NS/POD/UID/PORT ─► find ─► Way::Socket  bytes, as they are, to who listens by wasi:sockets
//!                                    └──► Way::Http    HTTP/1 and HTTP/2 on the stream, each request through the mesh's door
//! ```
//!
//! A component that serves HTTP has no socket: it is attached to the mesh at its port. So the node is the HTTP server on such a stream, and has each
//! request answered as one that a server proxies ([`crate::pod_proxy`]).
//!
//! Invariants: the pod is the one that was meant, by its uid; whether somebody listens is known before the stream is promised; what a component does not
//! take stays in the stream. Left to others: the connection (`crate::streams`), who may (`weft_apiserver`).

use crate::http::Body;
use crate::http::{full, refusal};
use crate::node::Node;
use crate::pod_proxy;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use weft_api::StatusError;
use weft_mesh::PodAddress;
use weft_runtime::network::Stream;

/// Requests at once on one stream of HTTP/2.
const REQUESTS_MAX: u32 = 128;
/// Moved at once, in each direction.
const COPIED_BYTES: usize = 64 * 1024;

/// A port of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodPort {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub port: u16,
}

/// What is at a port.
pub(crate) enum Way {
    /// A connection to a guest that listens.
    Socket(Stream),
    /// A component that is called with requests.
    Http(PodAddress),
}

/// Finds who listens at a port.
///
/// # Errors
/// 404 for a pod that is not here, 503 where nobody listens; the message is what the client of the stream is told.
pub(crate) async fn find(node: &Arc<Node>, at: &PodPort) -> Result<Way, StatusError> {
    let record = node.registry.get(&at.namespace, &at.pod);
    let record = record.filter(|record| record.uid == at.uid);
    let record = record.ok_or_else(|| StatusError::not_found("pods", "", &at.pod))?;
    let port = at.port;
    if let Ok(stream) = node.sockets().connect(&at.uid, port) {
        return Ok(Way::Socket(stream));
    }
    let attached = record.ip.map(|ip| PodAddress { ip, port });
    match attached.filter(|address| node.mesh.is_attached(*address)) {
        Some(address) => Ok(Way::Http(address)),
        None => Err(StatusError::unavailable(format!(
            "failed to connect to localhost:{port} inside the pod: dial tcp4 127.0.0.1:{port}: connect: connection refused"
        ))),
    }
}

/// Serves a stream to its end.
pub(crate) async fn forward(
    node: Arc<Node>,
    way: Way,
    mut io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let to = match way {
        Way::Http(to) => to,
        Way::Socket(mut stream) => {
            let passed = tokio::io::copy_bidirectional_with_sizes(
                &mut io,
                &mut stream,
                COPIED_BYTES,
                COPIED_BYTES,
            );
            if let Err(error) = passed.await {
                tracing::trace!(%error, "a forwarded port's stream ended");
            }
            return;
        }
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&node, to, request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A client may have said all before it is answered.
    builder.http1().timer(TokioTimer::new()).half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(io), service).await {
        tracing::trace!(%error, "a forwarded port's stream ended");
    }
}

async fn answer(node: &Arc<Node>, to: PodAddress, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let request = match pod_proxy::towards(to, path, request) {
        Ok(request) => request,
        Err(error) => return refusal(&error),
    };
    match pod_proxy::call(node, to, request).await {
        Ok(response) => response,
        Err(Some(failure)) => {
            let address = SocketAddr::from(to);
            tracing::debug!(%failure, %address, "a request on a forwarded port failed");
            full(
                failure.status(),
                "text/plain; charset=utf-8",
                format!("{failure}\n"),
            )
        }
        Err(None) => full(
            StatusCode::BAD_GATEWAY,
            "text/plain",
            "the node shuts down\n",
        ),
    }
}
