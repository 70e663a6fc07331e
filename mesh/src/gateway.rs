//! The way into the cluster: HTTP/1.1 and cleartext HTTP/2 on one port, then the same path as any call.
//!
//! A request is routed by its host: HTTPRoutes of the listener that is responsible for it, or, for a host
//! `<service>.<namespace>.localhost` that no route names, the service itself, if the client is on this machine. The gateway
//! calls under its own identity, so callees see it as their peer and policies can name it.
//!
//! Invariants: nothing a client sends in `x-weft-*` or as `x-forwarded-for`, `-host` and `-proto` is believed; a failure is a status and one
//! sentence of text; a service without a route is closed to other machines; a client that is slow to say what it wants is closed; shutting down finishes what was begun.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response, uri::Scheme};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    Body, CallContext, CallError, Inner,
    headers::{self, HEADER_BYTES_MAX, HEADERS_MAX},
    inbound::accept_loop,
    outbound::{self, Arrival, CallWay, sentence},
    resolve,
    route::{Selection, View},
    transport::{CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES},
};

/// Streams a client may have open on one HTTP/2 connection.
const STREAMS_MAX: u32 = 250;
/// Streams reset before they were served that a client may cause (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;

/// Limits of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Connections a listener (one a core) holds; further clients wait in the kernel's queue.
    pub connections_max: usize,
    /// A request's head must be complete within this time; also how long an idle HTTP/1.1 connection is kept.
    pub head_timeout: Duration,
    /// Longest time to a response where no route says so. None: no limit.
    pub request_timeout: Option<Duration>,
    /// Whether services without a route answer clients of other machines too at `<service>.<namespace>.localhost`, which is
    /// but a header: otherwise who reaches the gateway reaches what routes lead to.
    pub services_open: bool,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_timeout: Duration::from_secs(30),
            request_timeout: None,
            services_open: false,
        }
    }
}

impl GatewayConfig {
    fn opens_services_to(&self, client: IpAddr) -> bool {
        self.services_open || client.to_canonical().is_loopback()
    }
}

pub(crate) async fn serve(
    inner: Arc<Inner>,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let connections_max = inner.gateway.connections_max;
    accept_loop(
        listener,
        shutdown,
        connections_max,
        move |stream, client, stop| connection(Arc::clone(&inner), stream, client, stop),
    )
    .await;
    Ok(())
}

async fn connection(
    inner: Arc<Inner>,
    stream: TcpStream,
    client: SocketAddr,
    stop: CancellationToken,
) {
    let head_timeout = inner.gateway.head_timeout;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);

    let spoke = Arc::new(AtomicBool::new(false));
    let service = {
        let spoke = Arc::clone(&spoke);
        service_fn(move |request| {
            spoke.store(true, Ordering::Relaxed);
            let inner = Arc::clone(&inner);
            async move { Ok::<_, Infallible>(answer(&inner, client, request).await) }
        })
    };
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut first_head = std::pin::pin!(tokio::time::sleep(head_timeout));
    let mut waiting = true;
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // The codec's own timeout starts once the protocol is known; this covers a client that never says.
            () = &mut first_head, if waiting => {
                waiting = false;
                if !spoke.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%client, %error, "connection of a client ended");
    }
}

async fn answer(
    inner: &Arc<Inner>,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    match call(inner, client, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%client, %error, "request not answered by a workload");
            sentence(&error)
        }
    }
}

async fn call(
    inner: &Arc<Inner>,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, CallError> {
    let started = Instant::now();
    let table = inner.table.load_full();
    let mut request = request.map(|body| Body::new(body.map_err(Into::into)));
    resolve::absolute(&mut request, Some(Scheme::HTTP))?;
    headers::strip_forged(request.headers_mut());
    headers::strip_hop_by_hop(request.headers_mut());

    let host = resolve::host_name(request.uri().host().unwrap_or_default());
    let no_route = || CallError::NoRoute {
        what: format!(
            "{}{}",
            request.uri().host().unwrap_or_default(),
            request.uri().path()
        ),
    };
    let fallback = || {
        (inner.gateway.opens_services_to(client.ip()) && !table.listeners.names_host(&host))
            .then(|| resolve::fallback_host(&table, &host))
            .flatten()
    };
    let way = match fallback() {
        Some(target) => CallWay::Direct(target),
        None => match table.listeners.select(&host, View::new(&request, 0)) {
            Selection::Entry(entry) => CallWay::Routed(entry),
            Selection::NoRoute | Selection::NoListener => {
                let error = no_route();
                outbound::charge_to_nobody(inner, &inner.gateway_caller, started, &error);
                return Err(error);
            }
        },
    };
    let authority = request.uri().authority().map(|host| host.to_string());
    forwarded(request.headers_mut(), client, authority.as_deref());
    let deadline = inner
        .gateway
        .request_timeout
        .and_then(|timeout| started.checked_add(timeout));
    let context = CallContext {
        deadline,
        ..CallContext::default()
    };
    let arrival = Arrival {
        request,
        context,
        at: started,
    };
    outbound::send(inner, &inner.gateway_caller, &table, way, arrival).await
}

/// Says where the request came from. What the client claimed is replaced: it is the first hop we know of.
fn forwarded(lines: &mut HeaderMap, client: SocketAddr, authority: Option<&str>) {
    if let Ok(address) = HeaderValue::from_str(&client.ip().to_string()) {
        lines.insert(headers::FORWARDED_FOR, address);
    }
    lines.insert(headers::FORWARDED_PROTO, HeaderValue::from_static("http"));
    match authority.and_then(|host| HeaderValue::from_str(host).ok()) {
        Some(host) => lines.insert(headers::FORWARDED_HOST, host),
        None => lines.remove(headers::FORWARDED_HOST),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_without_a_route_are_for_this_machine() {
        for (services_open, client, open) in [
            (false, "127.0.0.1", true),
            (false, "127.9.9.9", true),
            (false, "::1", true),
            (false, "::ffff:127.0.0.1", true),
            (false, "192.0.2.2", false),
            (false, "::ffff:192.0.2.2", false),
            (false, "2001:db8::1", false),
            (true, "192.0.2.2", true),
        ] {
            let config = GatewayConfig {
                services_open,
                ..GatewayConfig::default()
            };
            let client = client.parse().expect("an address");
            assert_eq!(config.opens_services_to(client), open, "{client}");
        }
    }
}
