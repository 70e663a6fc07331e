//! Requests that a workload writes onto a byte stream of its own: to a port of which its Service says that HTTP is spoken there (`appProtocol`), and
//! to which routes of requests are bound for this caller. Each meets these as a call would; on any other stream bytes are passed on as they come.
//!
//! A request is for whoever the stream was opened to, whichever host it names: that host is what routes and the workload see.
//!
//! Invariants: what is no HTTP is answered 400 and ends the stream; upgrades are not passed on; a stream has at most [`STREAMS_MAX`] requests at a
//! time.

use std::{convert::Infallible, net::SocketAddr};

use http::{
    Request, Response, Uri, header,
    uri::{PathAndQuery, Scheme},
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use weft_gateway::StreamProtocol;

use super::Outbound;
use crate::{
    Body,
    failure::sentence,
    headers::{HEADER_BYTES_MAX, HEADER_LIST_BYTES_MAX, HEADERS_MAX},
    table::{Bound, Port},
};

/// Requests at a time on one stream of HTTP/2.
const STREAMS_MAX: u32 = 250;

/// To whom the stream was opened that a request came on. An extension of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenedTo(pub(crate) SocketAddr);

impl Outbound {
    /// Whether what a workload writes to `to` is read as requests.
    #[must_use]
    pub fn reads_requests(&self, to: SocketAddr) -> bool {
        let table = self.table();
        let Some(service) = table.service_by_ip(to.ip()) else {
            return false;
        };
        let namespace = &self.caller.workload.namespace;
        let bound = service.bound(namespace, StreamProtocol::Tcp, to.port());
        matches!(bound, Some(Bound::Requests(_)))
            && service.port(to.port()).is_some_and(Port::speaks_http)
    }

    /// Makes each request that is read from `stream`, which was opened to `to`, as a call, until it ends.
    pub async fn serve_requests(
        &self,
        to: SocketAddr,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) {
        let outbound = self.clone();
        let answering = service_fn(move |request| {
            let outbound = outbound.clone();
            async move { Ok::<_, Infallible>(outbound.answered(to, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            // Who has said all and awaits the answers is as well off as on a stream of bytes.
            .half_close(true)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX);
        builder
            .http2()
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), answering);
        if let Err(error) = connection.await {
            tracing::trace!(%to, %error, "a workload's stream of requests ended");
        }
    }

    async fn answered(&self, to: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(body.map_err(Into::into)),
        });
        named(&mut request, to);
        request.extensions_mut().insert(OpenedTo(to));
        let answered = self.call(request).await;
        answered.unwrap_or_else(|failure| sentence(&failure, &method))
    }
}

/// Gives a request that names no host in its first line the one of its line `Host`, or that of the stream.
fn named(request: &mut Request<Body>, to: SocketAddr) {
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_none() {
        let mut lines = request.headers().get_all(header::HOST).iter();
        let (first, other) = (lines.next(), lines.next());
        let host = first.filter(|_| other.is_none());
        let host = host.and_then(|host| host.as_bytes().try_into().ok());
        parts.authority = host.or_else(|| to.to_string().parse().ok());
    }
    parts.scheme = Some(Scheme::HTTP);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    // What cannot be named so is refused where calls are.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}
