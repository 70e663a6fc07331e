//! Calls from other nodes: accept, prove who calls, hand to `deliver.rs`.
//!
//! The TLS handshake runs in the connection's task, so a slow client never holds up the accept loop. The certificate
//! names the calling identity; the SNI names the identity that was promised to the caller, and only pods of that
//! identity are served on the connection; a caller that was promised this node itself (its gateway) knows an address and no more, and is
//! served what is attached there. The lines of `wire.rs` are believed here, because the peer proved itself to be
//! a node that holds the caller's key; nobody else can connect.
//!
//! What a connection proved does not hold for ever: it is asked to end when its certificate has expired, when it does not lead to the
//! roots any more that are trusted now, and when it is older than [`AGE_MAX`].
//!
//! Nodes also tell each other what they let in of rates that are counted over all of them (`share.rs`), as gateways to gateways.
//!
//! Invariants: no request without a verified client certificate; a pod that is not here answers `not-here`, which
//! promises that nothing was processed; every limit is a constant below.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use smallvec::smallvec;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_api::identity::SpiffeId;

use crate::{
    Body, CallContext, Datagrams, FailureKind, Inner, Peer, SpeaksH2, Transport, WorkloadInfo,
    accept::accept_loop,
    deliver::{self, Attached},
    failure,
    guards::Introduced,
    headers,
    identity::{self, Identities},
    in_turn::in_turn,
    measure::{self, Charge, Holds, RequestBytes},
    metrics::{Edge, EdgeKey, Reporter},
    replay, retry, share,
    sighting::Seen,
    table::ServiceLabels,
    transport::{
        self, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT,
        SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
    },
    wire::{self, RawLine},
};

/// Connections a listener holds where nobody says otherwise; about 100 KB each.
pub(crate) const CONNECTIONS_MAX: usize = 8192;
/// A connection that its node does not replace by then is ended from here: nodes replace theirs after an hour.
const AGE_MAX: Duration = transport::AGE_MAX.saturating_add(Duration::from_secs(300));
/// How often the age of a connection and of its certificate are looked at.
const STANDING_INTERVAL: Duration = Duration::from_secs(30);
/// How long calls may take to end on a connection whose caller is not trusted any more.
const DISTRUSTED_MAX: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams a peer may open on one connection, above what its pool uses.
const STREAMS_MAX: u32 = 256;
/// Streams reset before they were served that a peer may cause (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 64;
/// Callers and services remembered on one connection.
const KNOWN_MAX: usize = 1024;
/// What the lines that name them may come to, so that what is remembered has a bound in bytes, too. Names and labels are less than half.
const NAMES_BYTES_MAX: usize = 1024;

pub(crate) async fn serve(
    inner: Arc<Inner>,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let config = inner.identities.server_config().map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections_max = inner.inbound_connections_max;
    accept_loop(
        listener,
        shutdown,
        connections_max,
        move |stream, _, stop| connection(Arc::clone(&inner), acceptor.clone(), stream, stop),
    )
    .await;
    Ok(())
}

/// What a connection proved, and what was learned on it.
struct Session {
    inner: Arc<Inner>,
    /// From the client's certificate.
    source: SpiffeId,
    source_text: Arc<str>,
    /// From the SNI: the identity this end presented.
    destination: SpiffeId,
    known: Mutex<HashMap<KnownKey, Known>>,
}

/// Values of the source and service headers, and the pod.
type KnownKey = (HeaderValue, HeaderValue, SocketAddr);

struct Known {
    peer: Arc<Peer>,
    /// Not held: what nobody calls is dropped from the metrics, however long its connection lasts.
    edge: Weak<Edge>,
    /// Who had the address then.
    workload: Arc<WorkloadInfo>,
}

async fn connection(
    inner: Arc<Inner>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    stop: CancellationToken,
) {
    let failed = |why: &dyn std::fmt::Display| {
        inner
            .metrics
            .handshakes_failed
            .fetch_add(1, Ordering::Relaxed);
        tracing::debug!(error = %why, "handshake with a node failed");
    };
    if let Err(error) = transport::notice_vanished(&stream) {
        tracing::debug!(%error, "a caller that vanishes is noticed late");
    }
    let mut roots = inner.identities.watch_roots();
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return failed(&"it took too long"),
    };
    let (_, state) = tls.get_ref();
    let source = state
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(identity::spiffe_id);
    let destination = state
        .server_name()
        .and_then(|name| identity::named_identity(name, &inner.trust_domain));
    let alpn = state.alpn_protocol() == Some(identity::ALPN);
    let (Some(Ok(source)), Some(destination), true) = (source, destination, alpn) else {
        return failed(&"identities or protocol are missing");
    };
    let chain = state.peer_certificates().unwrap_or_default().to_vec();
    let proof = match Proof::new(Arc::clone(&inner.identities), chain) {
        Ok(proof) => proof,
        Err(error) => return failed(&error),
    };
    inner
        .metrics
        .connections_accepted
        .fetch_add(1, Ordering::Relaxed);
    let session = Arc::new(Session {
        source_text: source.to_string().into(),
        source,
        destination,
        inner,
        known: Mutex::default(),
    });

    let service = service_fn(move |request| {
        let session = Arc::clone(&session);
        async move { Ok::<_, Infallible>(session.answer(request).await) }
    });
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(headers::HEADER_LIST_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(tls), service)
    );
    let mut look = tokio::time::interval(STANDING_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_ending = false;
    let mut cut_off = None;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = stop.cancelled(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = until(cut_off), if cut_off.is_some() => {
                tracing::debug!("calls of a caller that is not trusted any more are cut off");
                return;
            }
            () = looked(&mut roots, &mut look), if cut_off.is_none() => {
                let standing = proof.standing(SystemTime::now());
                if standing == Standing::Distrusted {
                    cut_off = tokio::time::Instant::now().checked_add(DISTRUSTED_MAX);
                }
                if standing != Standing::Good && !is_ending {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection from a node ended");
    }
}

async fn until(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Waits until it is time to look at a connection's standing: now and then, and at once when the roots change.
async fn looked(roots: &mut watch::Receiver<u64>, look: &mut tokio::time::Interval) {
    tokio::select! {
        biased;
        changed = roots.changed() => {
            if changed.is_err() {
                // Nobody is left to change them.
                look.tick().await;
            }
        }
        _ = look.tick() => {}
    }
}

/// What a caller proved when it connected.
struct Proof {
    identities: Arc<Identities>,
    chain: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    opened: Instant,
    /// Of the roots that the chain was last found to lead to.
    roots_generation: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// Another connection should take its place.
    Old,
    /// It would not be accepted now.
    Distrusted,
}

impl Proof {
    fn new(
        identities: Arc<Identities>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, identity::SvidError> {
        let leaf = chain.first().ok_or(identity::SvidError::Empty)?;
        Ok(Self {
            not_after: identity::not_after(leaf)?,
            identities,
            chain,
            opened: Instant::now(),
            // None: the roots may have changed since the handshake looked at them.
            roots_generation: AtomicU64::new(u64::MAX),
        })
    }

    fn standing(&self, now: SystemTime) -> Standing {
        let generation = self.identities.roots_generation();
        let is_known = self.roots_generation.load(Ordering::Relaxed) == generation
            && !self.identities.has_revoked();
        if now >= self.not_after || !(is_known || self.identities.trusts_client(&self.chain)) {
            return Standing::Distrusted;
        }
        self.roots_generation.store(generation, Ordering::Relaxed);
        if self.opened.elapsed() >= AGE_MAX {
            Standing::Old
        } else {
            Standing::Good
        }
    }
}

impl Session {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        // HTTP/2 itself takes a request without either, and nobody behind this door looks again.
        let uri = request.uri();
        if uri.authority().is_none() || !uri.path().starts_with('/') {
            return wire::encode_failure(&failure::bad_request("it names no host, or no path"));
        }
        if share::is_message(&request) {
            let is_of_nodes = [&self.source, &self.destination];
            if !is_of_nodes
                .into_iter()
                .all(|end| self.inner.answers_for(end))
            {
                return wire::encode_failure(&FailureKind::NotHere.into());
            }
            share::hear(&self.inner, request.into_body()).await;
            return Response::new(Body::empty());
        }
        let raw = RawLine::decode(request.headers());
        let found = wire::destination(request.headers()).and_then(|address| {
            let door = match raw {
                Some(RawLine::Datagrams(_)) => Datagrams::door(address),
                _ => address,
            };
            Some((address, self.inner.attached.get(door)?))
        });
        // A caller that was promised one identity must not reach a pod of another behind the same address. One who knows the address alone
        // was promised the node that has it.
        let by_address = self.inner.answers_for(&self.destination);
        let found = found.filter(|(_, to)| by_address || to.identity == self.destination);
        let Some((address, to)) = found else {
            return wire::encode_failure(&FailureKind::NotHere.into());
        };
        if weft_turns::is_full(to.tenant) {
            weft_turns::charge(to.tenant, weft_turns::REQUEST);
            return wire::encode_failure(&failure::no_turn());
        }

        let (mut parts, body) = request.into_parts();
        let Some((peer, edge)) = self.known(&parts.headers, address, &to) else {
            let reason = "the names of its caller and service are longer than names can be";
            return wire::encode_failure(&failure::bad_request(reason));
        };
        if let Some(raw) = raw {
            raw.mark(&mut parts.extensions);
        }
        if !self.inner.attached.guards().is_empty() {
            let introduced = Introduced {
                source: wire::source(&parts.headers, &self.source.namespace),
                service: wire::source_and_service(&parts.headers).1,
            };
            introduced.mark(&mut parts.extensions);
        }
        if wire::speaks_h2(&parts.headers) {
            parts.extensions.insert(SpeaksH2);
        }
        let context = CallContext {
            port: Some(address.port()),
            ..wire::take_context(&mut parts.headers, peer, started)
        };
        let deadline = context.deadline;
        let grpc = measure::is_grpc(&parts.headers);
        let tcp = raw.is_some();
        if tcp {
            edge.opened.fetch_add(1, Ordering::Relaxed);
        }
        let trace = context.trace.as_ref();
        let what = (&parts.method, &parts.uri);
        let seen = Seen::of(&self.inner, what, trace, None, started);
        let (body, request_bytes) = counted(body, grpc);
        let body = in_turn(to.tenant, body);

        let mut unanswered = measure::Unanswered::new(Charge {
            edges: smallvec![edge],
            started,
            grpc,
            request_bytes,
            by_transport: None,
            tcp,
            seen,
            activity: None,
        });
        let request = Request::from_parts(parts, body);
        let delivery = async {
            weft_turns::request(to.tenant).await;
            let door = self.inner.table.load().door(address).cloned();
            deliver::deliver(&self.inner, door, &to, request, context).await
        };
        let delivered = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), delivery)
                .await
                .unwrap_or_else(|_| Err(failure::deadline())),
            None => delivery.await,
        };
        let mut charge = unanswered.answered();
        match delivered {
            Ok(delivered) => {
                if let Some(charge) = &mut charge {
                    Seen::described(&mut charge.seen, delivered.attributes);
                }
                let holds = Holds {
                    admitted: delivered.admitted,
                    ..Holds::default()
                };
                let mut response = match charge {
                    Some(charge) => {
                        measure::finish(delivered.response, charge, holds, delivered.answered)
                    }
                    None => delivered.response,
                };
                wire::encode_worked(delivered.worked, response.headers_mut());
                if delivered.spent {
                    wire::encode_spent(response.headers_mut());
                }
                if let Some(time) = delivered.rests {
                    wire::encode_rest(time, response.headers_mut());
                }
                response.map(|body| in_turn(to.tenant, body))
            }
            Err(failure) => {
                let told = wire::encode_failure(&failure);
                // What may be made elsewhere is charged where the caller finds somebody who takes it.
                if let Some(charge) = charge.filter(|_| !retry::may_go_elsewhere(&failure)) {
                    charge.settle(told.status().as_u16(), None, "UC", 0);
                }
                told
            }
        }
    }

    /// Peer and edge for a request, looked up by three header values after the first time. None of one that says too much.
    fn known(
        &self,
        lines: &HeaderMap,
        address: SocketAddr,
        to: &Attached,
    ) -> Option<(Arc<Peer>, Arc<Edge>)> {
        let (source, service) = wire::source_and_service(lines);
        if source.len() + service.len() > NAMES_BYTES_MAX {
            return None;
        }
        let key = (source, service, address);
        if let Some(known) = self.known.lock().get(&key)
            && Arc::ptr_eq(&known.workload, &to.workload)
            && let Some(edge) = known.edge.upgrade()
        {
            return Some((Arc::clone(&known.peer), edge));
        }
        let source = Arc::new(wire::source_workload(&key.0, &self.source.namespace));
        let (name, namespace) = wire::service_names(&key.1);
        let edge = self.inner.metrics.edge(&EdgeKey {
            reporter: Reporter::Destination,
            source: Arc::clone(&source),
            source_principal: Arc::clone(&self.source_text),
            destination: Arc::clone(&to.workload),
            destination_principal: Arc::clone(&to.spiffe_id),
            service: Arc::new(ServiceLabels::new(namespace, name)),
            transport: Some(Transport::MutualTls),
        });
        let known = Known {
            peer: Arc::new(Peer {
                spiffe_id: Arc::clone(&self.source_text),
                namespace: self.source.namespace.as_str().into(),
                service_account: self.source.service_account.as_str().into(),
                workload: source.name.as_str().into(),
                transport: Transport::MutualTls,
            }),
            edge: Arc::downgrade(&edge),
            workload: Arc::clone(&to.workload),
        };
        let peer = Arc::clone(&known.peer);
        let mut all = self.known.lock();
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(key, known);
        Some((peer, edge))
    }
}

/// The request's body, and its size: from its length, else counted while it is read, as messages of gRPC are.
pub(crate) fn counted(body: Incoming, is_grpc: bool) -> (Body, RequestBytes) {
    let exact = body.size_hint().exact().filter(|_| !is_grpc);
    let body = Body::new(body.map_err(Into::into));
    match exact {
        Some(bytes) => (body, RequestBytes::Known(bytes)),
        None => {
            let source = match is_grpc {
                true => replay::Source::new(body, None).of_messages(),
                false => replay::Source::new(body, None),
            };
            let bytes = source
                .counter()
                .map_or(RequestBytes::Known(0), RequestBytes::Counted);
            (source.reader(), bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

    use super::*;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        (Issuer::new(params, key), root)
    }

    #[test]
    fn what_a_caller_proved_holds_until_it_is_over_revoked_or_of_nobody_who_is_trusted() {
        let ((issuer, root), (_, other)) = (authority("one"), authority("other"));
        let web = SpiffeId::new("cluster.local", "vote", "web");
        let name = web.to_string();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.as_str().try_into().expect("ASCII"))];
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &issuer).expect("signed");
        let identities = Arc::new(Identities::new("cluster.local".to_owned()));
        identities
            .set_roots(std::slice::from_ref(&root))
            .expect("a root");
        let proof = Proof::new(Arc::clone(&identities), vec![leaf.der().clone()]);
        let proof = proof.expect("a certificate");
        let now = SystemTime::now();
        assert_eq!(proof.standing(now), Standing::Good);
        assert_eq!(proof.standing(proof.not_after), Standing::Distrusted);
        identities.set_revoked([web].into());
        assert_eq!(proof.standing(now), Standing::Distrusted);
        identities.set_revoked([].into());
        assert_eq!(proof.standing(now), Standing::Good);
        identities.set_roots(&[root, other.clone()]).expect("roots");
        assert_eq!(proof.standing(now), Standing::Good);
        identities.set_roots(&[other]).expect("a root");
        assert_eq!(proof.standing(now), Standing::Distrusted);
        // Whoever looks at it does so twice a minute.
        assert!(STANDING_INTERVAL + DISTRUSTED_MAX < Duration::from_secs(60));
    }
}
