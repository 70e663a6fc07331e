//! The way into the cluster: HTTP/1.1 and HTTP/2, in cleartext on the node's one port and at addresses of Gateways' own (`front.rs`), over TLS
//! where their listeners say so; then the same path as any call. What comes to a listener of theirs for TCP or TLS is bytes and no request
//! (`streams.rs`); which of the listeners of one place for HTTPS and TLS a client means is told by the name that it asks for.
//!
//! A request is routed by its host: HTTPRoutes of the listener that is responsible for it, or, for a host
//! `<service>.<namespace>.localhost` that nobody published anything for, the service itself, for whom [`OpenServices`] says. The gateway
//! calls under its own identity: meshes and policies see it as the peer, guests see nobody, because nobody was identified.
//!
//! Invariants: one host and one path, whoever looks (`ingress.rs`); nothing a client sends in `x-weft-*` or `forwarded` is believed, and of
//! `x-forwarded-*` what proxies said that are trusted (`forwarded.rs`); a failure is a status and one sentence of text; a service that nobody published is closed; a client that is slow to say what
//! it wants is closed, and what it is slow to read is cut off (`pace.rs`); shutting down finishes what was begun.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Scheme,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use weft_turns::Tenant;

use crate::{
    Body, CallContext, Failure, Inner, Mesh, Outbound,
    accept::accept_loop,
    call::{called_by, earlier},
    dial::dial,
    failure::{self, sentence},
    forwarded::{self, Seen},
    guards::{ClientAt, Entered},
    headers::{self, HEADER_BYTES_MAX, HEADER_LIST_BYTES_MAX, HEADERS_MAX},
    hello::{self, name_of},
    in_turn::in_turn,
    ingress::{self, LastHost},
    joined::Joined,
    outbound::{self, Arrival, Begun, CallWay},
    pace::{Pace, Paced, Upload, Verdict},
    resolve,
    route::{Stays, View},
    sighting,
    speak::{self, Upgraded},
    streams,
    table::Table,
    transport::{CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES},
};

/// Streams a client may have open on one HTTP/2 connection.
const STREAMS_MAX: u32 = 250;
/// Streams reset before they were served that a client may cause (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// How often a connection's client is judged.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a connection that was asked to end may take when nothing is to be answered on it.
const END_MAX: Duration = Duration::from_secs(10);

/// Who reaches a Service that nobody published, at `<service>.<namespace>.localhost`. The name is but a header, so that whoever is let in
/// reaches every Service of every namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OpenServices {
    /// Nobody: a route leads to what is published.
    #[default]
    ToNobody,
    /// Clients that connect from a loopback address. Where a proxy of this machine passes on what others send, that is everybody.
    ToThisMachine,
    ToEverybody,
}

impl OpenServices {
    fn lets_in(self, client: IpAddr) -> bool {
        match self {
            OpenServices::ToNobody => false,
            OpenServices::ToThisMachine => client.to_canonical().is_loopback(),
            OpenServices::ToEverybody => true,
        }
    }
}

/// Limits of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Connections a listener (one a core) holds; further clients wait in the kernel's queue.
    pub connections_max: usize,
    /// A request's head must be complete within this time; also how long an idle HTTP/1.1 connection is kept.
    pub head_timeout: Duration,
    /// Longest time that an HTTP/2 connection is kept without a request.
    pub idle_timeout: Duration,
    /// Longest time to a response where no route says so. None: what the workload allows, 30 s by default.
    pub request_timeout: Option<Duration>,
    pub open_services: OpenServices,
    /// Proxies in front of the gateway whose word counts for where a request came from, at most [`crate::TRUSTED_HOPS_MAX`]. Whoever reaches
    /// the gateway past them is believed, too.
    pub trusted_hops: u8,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            request_timeout: None,
            open_services: OpenServices::ToNobody,
            trusted_hops: 0,
        }
    }
}

/// Serves the node's one port, or the listeners at `place`.
pub(crate) async fn serve(
    inner: Arc<Inner>,
    place: Option<SocketAddr>,
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
        move |stream, client, stop| connection(Arc::clone(&inner), place, stream, client, stop),
    )
    .await;
    Ok(())
}

async fn connection(
    inner: Arc<Inner>,
    place: Option<SocketAddr>,
    stream: TcpStream,
    client: SocketAddr,
    stop: CancellationToken,
) {
    let Some(place) = place else {
        let local = stream.local_addr().ok();
        return spoken(
            inner,
            At { local, own: None },
            Joined::new(stream),
            client,
            stop,
        )
        .await;
    };
    let table = inner.table.load_full();
    let (plain, front) = (table.streams.of_tcp(place), table.fronts.get(place));
    let (plain, front) = (plain.cloned(), front.cloned());
    let streams = table.streams.of_tls(place).cloned();
    drop(table);
    let outbound = || {
        Outbound::of_gateway(Mesh {
            inner: Arc::clone(&inner),
        })
    };
    let told = |carried: Result<(), Failure>| {
        if let Err(failure) = carried {
            let why = failure.detail.as_deref();
            tracing::debug!(%client, at = %place, %failure, why, "a connection came to nothing");
        }
    };
    if let Some(plain) = plain {
        return told(streams::plain(&outbound(), &plain, stream, (client, place)).await);
    }
    let at = |name| At {
        local: Some(place),
        own: Some(Placed { place, name }),
    };
    match (&front, &streams) {
        // Its listeners went meanwhile.
        (None, None) => return,
        (Some(front), None) if !front.is_tls() => {
            return spoken(inner, at(None), Joined::new(stream), client, stop).await;
        }
        _ => {}
    }
    let begun = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        begun = name_of(stream) => begun,
    };
    let (name, begun) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            tracing::debug!(%client, at = %place, %error, "a client says nothing of TLS");
            return;
        }
    };
    if let Some(streams) = streams
        && front
            .as_ref()
            .is_none_or(|https| streams.goes_before(https, &name))
    {
        return told(streams::opened(&outbound(), &streams, &name, begun, (client, place)).await);
    }
    let Some(front) = front else { return };
    let shaken = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(inner.gateway.head_timeout, shaken(&front, &name, begun)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => spoken(inner, at(Some(name)), stream, client, stop).await,
        Ok(Err(error)) => tracing::debug!(%client, %error, "a client and a listener do not agree"),
        Err(_) => tracing::debug!(%client, "a client is too slow to agree with a listener"),
    }
}

/// Agrees with a client on TLS, that asked for `name`, or for none where it is empty.
async fn shaken(
    front: &crate::front::Front,
    name: &str,
    begun: hello::Begun,
) -> io::Result<TlsStream<hello::Begun>> {
    let config = front
        .config(name)
        .ok_or_else(|| io::Error::other("no listener is for the name that it asks for"))?;
    TlsAcceptor::from(config).accept(begun).await
}

async fn spoken(
    inner: Arc<Inner>,
    at: At,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
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
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);

    let idle_max = inner.gateway.idle_timeout;
    let pace = Pace::new();
    let front = Arc::new(Front::new(inner, at, client));
    let service = {
        let (front, pace) = (Arc::clone(&front), Arc::clone(&pace));
        service_fn(move |request: Request<Incoming>| {
            front.spoke.store(true, Ordering::Relaxed);
            let (front, open) = (Arc::clone(&front), pace.begin());
            let version = request.version();
            async move {
                let response = front.answer(request).await;
                Ok::<_, Infallible>(if response.body().is_whole().is_some() {
                    response
                } else {
                    response.map(|body| Body::new(Paced::new(body, open, version)))
                })
            }
        })
    };
    let io = TokioIo::new(stream);
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
    let mut first_head = std::pin::pin!(tokio::time::sleep(head_timeout));
    let mut waiting = true;
    let mut stopping = false;
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut idle_until: Option<Instant> = None;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // The codec's own timeout starts once the protocol is known; this covers a client that never says.
            () = &mut first_head, if waiting && !front.has_spoken() => {
                waiting = false;
                if !front.has_spoken() {
                    return;
                }
            }
            _ = look.tick() => match pace.judge(idle_max) {
                Verdict::GoOn => idle_until = None,
                Verdict::TooSlow => {
                    tracing::debug!(%client, "a client reads too slowly and is cut off");
                    return;
                }
                Verdict::Cut => {
                    idle_until = None;
                    tracing::debug!(%client, "a response that is read too slowly is cut off");
                }
                Verdict::Idle => {
                    let now = Instant::now();
                    if now >= *idle_until.get_or_insert(now + END_MAX) {
                        // It does not even take that it was asked to go.
                        return;
                    }
                    if !stopping {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            },
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%client, %error, "connection of a client ended");
    }
    let tunnel = front.tunnel.lock().take();
    if let Some(tunnel) = tunnel {
        tunnel.await;
    }
}

/// Where a connection came in.
struct At {
    /// The node's end of it.
    local: Option<SocketAddr>,
    /// None at the node's one port.
    own: Option<Placed>,
}

/// At which place of Gateways' own a connection came in.
#[derive(Debug, Clone)]
struct Placed {
    place: SocketAddr,
    /// The server's name as the client asked for it; none without TLS.
    name: Option<String>,
}

/// What goes on over a connection once both ends agreed on another protocol.
type Tunnel = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request that asks for WebSocket (RFC 6455 §4.1), and for nothing else with it.
///
/// A proxy before this gateway that knows of no upgrades passes on the line and takes what follows for requests; it does not say
/// `connection: upgrade`, which is for one hop. What it would take for a tunnel, or a body for the beginning of one, is a request like any other.
fn asked_upgrade(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    if request.version() != Version::HTTP_11 || *request.method() != Method::GET {
        return None;
    }
    let lines = request.headers();
    let wanted = headers::only(lines, &header::UPGRADE)?;
    headers::only(lines, &header::SEC_WEBSOCKET_KEY)?;
    let is_it = wanted.as_bytes().eq_ignore_ascii_case(b"websocket")
        && headers::lists(lines, &header::CONNECTION, "upgrade")
        && request.body().is_end_stream();
    is_it.then(|| hyper::upgrade::on(request))
}

/// One client's connection, as far as its requests share it.
struct Front {
    inner: Arc<Inner>,
    client: SocketAddr,
    /// The client's address as the value of a line.
    client_line: Option<HeaderValue>,
    last_host: LastHost,
    /// A request has come.
    spoke: AtomicBool,
    /// The node's end of it.
    local: Option<SocketAddr>,
    at: Option<Placed>,
    /// What the connection became, once it is HTTP no longer.
    tunnel: Arc<Mutex<Option<Tunnel>>>,
}

impl Front {
    fn new(inner: Arc<Inner>, at: At, client: SocketAddr) -> Self {
        Self {
            inner,
            local: at.local,
            at: at.own,
            tunnel: Arc::default(),
            client,
            client_line: HeaderValue::from_str(&client.ip().to_string()).ok(),
            last_host: LastHost::default(),
            spoke: AtomicBool::new(false),
        }
    }

    fn has_spoken(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        // What follows was meant for a tunnel.
        let is_last = method == Method::CONNECT && request.version() < Version::HTTP_2;
        let upgrade = asked_upgrade(&mut request);
        let (tenant, begun) = self.begin(request, upgrade);
        let answered = match begun {
            Ok(Begun::Call(calling)) => calling.await,
            // What is refused, and what a rule answers, has to wait for a turn as what is called.
            Ok(Begun::Answered(response)) => {
                weft_turns::request(tenant).await;
                Ok(response)
            }
            Err(failure) => {
                weft_turns::request(tenant).await;
                Err(failure)
            }
        };
        let answered = answered.map(|response| response.map(|body| in_turn(tenant, body)));
        let mut response = answered.unwrap_or_else(|failure| {
            let (client, why) = (self.client, failure.detail.as_deref());
            tracing::debug!(%client, %failure, why, "request not answered by a workload");
            sentence(&failure, &method)
        });
        if is_last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// The layers of `outbound.rs`, with the listeners in place of names; and whose turn it takes.
    fn begin(
        &self,
        request: Request<Incoming>,
        upgrade: Option<OnUpgrade>,
    ) -> (Tenant, Result<Begun, Failure>) {
        let at = Instant::now();
        let inner = &self.inner;
        let table = inner.table.load_full();
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(body.map_err(Into::into)),
        });
        let mut tenant = Tenant::NOBODY;
        let entered = ingress::from_outside(&mut request, &self.last_host, self.scheme());
        if entered.is_ok() && self.is_misdirected(&table, &request) {
            return (tenant, Ok(Begun::Answered(misdirected(request.method()))));
        }
        let seen = sighting::Seen::of(inner, (request.method(), request.uri()), None, None, at);
        let way = entered.and_then(|host| {
            let way = self.route(&table, &mut request)?;
            tenant = way.tenant();
            match weft_turns::is_full(tenant) {
                true => Err(failure::no_turn()),
                false => Ok((host, way)),
            }
        });
        let filtered = way.and_then(|(host, way)| {
            if request.headers().contains_key(header::CONTENT_LENGTH)
                && !request.body().is_end_stream()
            {
                request = request.map(|body| Body::new(Upload::new(body)));
            }
            request = request.map(|body| in_turn(tenant, body));
            self.forwarded(request.headers_mut(), host);
            if !inner.attached.guards().is_empty() {
                let client = ClientAt(self.client.ip().to_canonical());
                request.extensions_mut().insert(client);
            }
            if let CallWay::Routed(entry) = &way {
                let entered = Entered {
                    client: self.client.ip().to_canonical(),
                    at: self.local,
                    sni: self.at.as_ref().and_then(|at| at.name.as_deref()),
                };
                let guards = inner.attached.guards();
                let refused = guards.judge_at_gateways(&entry.gateways, entered, &mut request);
                if let Some(refused) = refused {
                    let refused = outbound::refused(inner, at, refused, seen.clone());
                    return Ok(ControlFlow::Break(refused));
                }
            }
            let request_timeout = inner.gateway.request_timeout;
            let context = CallContext {
                deadline: request_timeout.and_then(|timeout| at.checked_add(timeout)),
                ..CallContext::default()
            };
            let arrival = Arrival {
                request,
                context,
                at,
                turn: Some(tenant),
            };
            outbound::filter(&table, way, arrival)
        });
        let begun = match (upgrade, filtered) {
            (Some(upgrade), Ok(ControlFlow::Continue(call))) => {
                Ok(Begun::Call(self.upgraded(&table, call, upgrade)))
            }
            (_, filtered) => {
                outbound::send(inner, &inner.gateway_caller, &table, filtered, at, seen)
            }
        };
        (tenant, begun)
    }

    fn scheme(&self) -> Scheme {
        let name = self.at.as_ref().and_then(|at| at.name.as_ref());
        match name {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }

    /// Whether the request is for another listener than the one that the connection was made to.
    fn is_misdirected(&self, table: &Table, request: &Request<Body>) -> bool {
        let Some(at) = &self.at else { return false };
        let Some(front) = table.fronts.get(at.place) else {
            return false;
        };
        match &at.name {
            // What was agreed on is what there is no longer.
            None => front.is_tls(),
            Some(_) if !front.is_tls() => true,
            Some(name) if name.is_empty() => false,
            Some(name) => {
                let host = request.uri().host().unwrap_or_default();
                let streams = table.streams.of_tls(at.place);
                !front.is_at_home(name, host)
                    || streams.is_some_and(|streams| streams.goes_before(front, host))
            }
        }
    }

    fn route<'t>(
        &self,
        table: &'t Table,
        request: &mut Request<Body>,
    ) -> Result<CallWay<'t>, Failure> {
        let Some(at) = &self.at else {
            return route(&self.inner, table, self.client.ip(), request);
        };
        let host = request.uri().host().unwrap_or_default();
        let front = table.fronts.get(at.place);
        let found = front.and_then(|front| front.listeners.select(host, View::new(request, 0)));
        outbound::routed(found, || format!("{host}{}", request.uri().path()))
    }

    /// A call that asks its backend for WebSocket, over a connection of its own. Where that agrees, so does the gateway, and passes on what
    /// both say.
    fn upgraded(
        &self,
        table: &Arc<Table>,
        call: (
            Arrival,
            crate::call::Destination,
            Option<crate::route::Exchange>,
        ),
        client: OnUpgrade,
    ) -> outbound::Calling {
        let (inner, table) = (Arc::clone(&self.inner), Arc::clone(table));
        let (arrival, destination, exchange) = call;
        let caller = Arc::clone(&inner.gateway_caller);
        let tunnel = Arc::clone(&self.tunnel);
        Box::pin(async move {
            let Arrival {
                mut request,
                context,
                at,
                turn,
            } = arrival;
            if let Some(tenant) = turn {
                weft_turns::request(tenant).await;
            }
            let lines = request.headers_mut();
            lines.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            lines.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let context = called_by(&inner, &caller, context, request.headers());
            context.carry(request.headers_mut());
            let rule = exchange.as_ref().map(|exchange| exchange.rule());
            let limit = rule.and_then(|rule| rule.request_timeout);
            let limit = limit.and_then(|limit| at.checked_add(limit));
            let deadline = earlier(context.deadline, limit);
            let tls = exchange
                .as_ref()
                .and_then(|exchange| exchange.backend().tls.clone());
            let asking = async {
                let stays = request.extensions_mut().remove::<Stays>();
                let stream = dial(&inner, &caller, &table, destination, context, stays).await?;
                let by = stream.answered_by;
                let upgraded = match tls {
                    None => speak::upgrade(stream, request).await,
                    Some(tls) => {
                        let stream = inner.backends.connect(&tls, stream, false).await?;
                        speak::upgrade(stream, request).await
                    }
                };
                upgraded.map(|upgraded| (upgraded, by))
            };
            let (asked, by) = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), asking)
                    .await
                    .unwrap_or_else(|_| Err(failure::deadline()))?,
                None => asking.await?,
            };
            let mut response = match asked {
                Upgraded::Answered(mut response) => {
                    headers::keep_what_passes(response.headers_mut());
                    response
                }
                Upgraded::Agreed(response, backend) => {
                    *tunnel.lock() = Some(Box::pin(async move {
                        let Ok(client) = client.await else { return };
                        let (mut client, mut backend) =
                            (TokioIo::new(client), TokioIo::new(backend));
                        let passing = tokio::io::copy_bidirectional(&mut client, &mut backend);
                        if let Err(error) = passing.await {
                            tracing::trace!(%error, "a connection that was upgraded ended");
                        }
                    }));
                    let mut response = response.map(|()| Body::empty());
                    headers::strip_weft(response.headers_mut());
                    response
                }
            };
            if let Some(by) = by {
                response.extensions_mut().insert(by);
            }
            if let Some(exchange) = exchange {
                exchange.finish(&mut response);
            }
            Ok(response)
        })
    }

    /// Says where the request came from.
    fn forwarded(&self, lines: &mut HeaderMap, host: HeaderValue) {
        let seen = Seen {
            peer: self.client_line.as_ref(),
            scheme: self.scheme(),
            host,
        };
        forwarded::tell(lines, self.inner.gateway.trusted_hops, seen);
    }
}

/// The request is for a listener that its connection was not made to (RFC 9110 §15.5.20).
fn misdirected(method: &Method) -> Response<Body> {
    let told = "the request is for another host than the connection was made to\n";
    let mut response = Response::new(Body::full(told));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    crate::deliver::without_content(method, response)
}

fn route<'t>(
    inner: &Inner,
    table: &'t Table,
    client: IpAddr,
    request: &mut Request<Body>,
) -> Result<CallWay<'t>, Failure> {
    let host = request.uri().host().unwrap_or_default();
    let is_open = inner.gateway.open_services.lets_in(client) && !table.listeners.claims(host);
    let opened = is_open.then(|| resolve::fallback_host(table, host));
    if let Some(target) = opened.flatten() {
        // As of a workload's call, so that what is led by routes of the Service is led here, too.
        let namespace = &inner.gateway_caller.workload.namespace;
        return outbound::way_to(table, target, namespace, request);
    }
    let found = table.listeners.select(host, View::new(request, 0));
    outbound::routed(found, || format!("{host}{}", request.uri().path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_published_is_open_to_whom_it_was_opened() {
        use OpenServices::{ToEverybody, ToNobody, ToThisMachine};
        assert_eq!(GatewayConfig::default().open_services, ToNobody);
        for (open, client, is_in) in [
            (ToNobody, "127.0.0.1", false),
            (ToNobody, "192.0.2.2", false),
            (ToThisMachine, "127.0.0.1", true),
            (ToThisMachine, "127.9.9.9", true),
            (ToThisMachine, "::1", true),
            (ToThisMachine, "::ffff:127.0.0.1", true),
            (ToThisMachine, "192.0.2.2", false),
            (ToThisMachine, "::ffff:192.0.2.2", false),
            (ToThisMachine, "2001:db8::1", false),
            (ToEverybody, "192.0.2.2", true),
        ] {
            let client = client.parse().expect("an address");
            assert_eq!(open.lets_in(client), is_in, "{open:?} {client}");
        }
    }
}
