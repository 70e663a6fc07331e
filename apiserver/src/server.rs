//! The API server as a running thing: sockets, TLS, and a clean end.
//!
//! Every connection is TLS; a client certificate is optional, and is checked against the cluster CA before any
//! byte of HTTP is read. HTTP/1.1 and HTTP/2 are chosen by ALPN. A connection ends when its client's certificate is over, or does not lead to an
//! authority any more that is trusted.
//!
//! Invariants: connections, handshakes and request headers are bounded in number and time; no connection keeps a thread to itself
//! (`crate::turns`); after the shutdown token is cancelled, `serve` returns within [`DRAIN`], and every task that it started was waited
//! for until then. Left to others: everything behind a request (`crate::http`).

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use weft_api::status::StatusError;
use weft_store::Store;

use crate::audit::Audit;
use crate::authn::{
    AuthenticationConfiguration, Authenticator, ConfigurationError, PeerAddress, PeerCertificates,
    StaticToken, certificate_subject,
};
use crate::ca::{self, Authority, CaError, Made};
use crate::caller::Caller;
use crate::encryption::{EncryptionError, KeyFile};
use crate::http::health::Started;
use crate::http::servers::{self, Servers};
use crate::http::usage::UsageReader;
use crate::http::{AppState, proxy, registry, router};
use crate::issuer::Issuer;
use crate::node_connections::NodeConnections;
use crate::objects::{self, Objects};
use crate::turns::{Bulk, Turns};

/// How long requests may still run after the shutdown began.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Connections at one time; each costs a file and some 50 KB.
const CONNECTIONS_MAX: usize = 8192;
/// From accepting a connection to the end of its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of a request to the end of its header; from the handshake to the first request of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that says nothing for so long is asked by the kernel whether it is there, and how often it may leave that unanswered.
const SILENCE: Duration = Duration::from_secs(30);
const SILENCES_MAX: u32 = 3;
/// Pause after an accept that failed for lack of files, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What may wait in a connection to be encrypted, of one stream: four chunks of a list. More makes nothing faster, and is memory.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How often the leader looks after what every cluster has, as Kubernetes does after its own Service.
const FURNITURE_PAUSE: Duration = Duration::from_secs(10);
/// How often each server looks whether its authority is still told; the leader's is looked after with all else.
const TRUST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked whether a client's certificate is over.
const STANDING_PAUSE: Duration = Duration::from_secs(30);
/// How long requests may take to end on a connection whose client is not trusted any more.
const DISTRUSTED_MAX: Duration = Duration::from_secs(5);
/// Requests one HTTP/2 connection may have open; a controller's watches all share one.
const STREAMS_MAX: u32 = 1000;

/// What the server is made of.
pub struct Config {
    /// Bound before, so that the caller knows the port and a port in use is reported early.
    pub listener: TcpListener,
    pub store: Store,
    pub authority: Authority,
    /// Name of the cluster among the servers.
    pub cluster_id: String,
    /// This server's number in it.
    pub server_id: weft_store::ServerId,
    /// Where the other servers reach this one, if they can.
    pub peer_address: Option<String>,
    /// Folder for what lies on disk for a moment.
    pub scratch_dir: PathBuf,
    /// Where clients reach this server: tells others where the keys of tokens are.
    pub url: String,
    /// DNS names and addresses that the serving certificate is valid for.
    pub names: Vec<String>,
    /// Folder of the OCI registry.
    pub registry_dir: PathBuf,
    /// Static bearer tokens, if any.
    pub tokens: Vec<StaticToken>,
    /// Where those keys are kept, for servers that join.
    pub key_file: PathBuf,
    /// Who else is believed, and what becomes of those without a credential.
    pub authentication: Option<AuthenticationConfiguration>,
    /// Where requests are written down, if they are.
    pub audit: Option<Audit>,
    /// What Secrets are encrypted with; without it they are stored as they are.
    pub keys: Option<KeyFile>,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("preparing certificates")]
    Certificates(#[source] CaError),
    #[error("the authentication configuration cannot be used: {0}")]
    Authentication(ConfigurationError),
    #[error("what is stored cannot be read: {0}")]
    Stored(EncryptionError),
    #[error("opening the registry in {dir}")]
    Registry {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A server that is ready to run: its verbs can be used in process before and while it serves.
pub struct Server {
    listener: TcpListener,
    tls: Made<TlsAcceptor>,
    authority: Authority,
    router: Router,
    state: AppState,
    objects: Objects,
    closing: CancellationToken,
}

impl Server {
    /// # Errors
    /// [`ServeError`] when certificates or the registry folder cannot be prepared.
    pub fn new(config: Config) -> Result<Self, ServeError> {
        let (authority, names) = (config.authority.clone(), config.names.clone());
        let tls = Made::new(&authority, move |authority| {
            Ok(TlsAcceptor::from(authority.server_config(&names)?))
        })
        .map_err(ServeError::Certificates)?;
        let nodes = proxy::NodeClient::new(&config.authority).map_err(ServeError::Certificates)?;
        let registry = registry::Registry::open(&config.registry_dir, config.store.clone())
            .map_err(|source| ServeError::Registry {
                dir: config.registry_dir.clone(),
                source,
            })?;
        let servers = Servers {
            authority: config.authority.clone(),
            cluster_id: config.cluster_id,
            server_id: config.server_id,
            peer_address: config.peer_address,
            key_file: config.key_file,
            scratch_dir: config.scratch_dir,
        };
        let objects = Objects::new(
            config.store,
            objects::Config {
                issuer: Issuer::default().told_at(&config.url),
                authority: Some(config.authority),
                server_names: config.names.into(),
                images: Some(registry.clone()),
                keys: config.keys.map(Arc::new),
                nodes: Some(nodes.clone()),
                ..objects::Config::default()
            },
        );
        objects.check_readable().map_err(ServeError::Stored)?;
        let mut authenticator = Authenticator::new(objects.clone(), config.tokens);
        if let Some(configuration) = &config.authentication {
            authenticator = authenticator
                .believing(configuration)
                .map_err(ServeError::Authentication)?;
        }
        let closing = CancellationToken::new();
        let state = AppState::new(
            objects.clone(),
            authenticator,
            registry,
            nodes,
            servers,
            closing.clone(),
        )
        .audited(config.audit)
        .starting();
        Ok(Self {
            listener: config.listener,
            tls,
            authority,
            router: router(state.clone()),
            state,
            objects,
            closing,
        })
    }

    /// The verbs, for the control loop.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// To say that what clients rely on is there: this server calls itself ready from then on.
    pub fn started(&self) -> Started {
        self.state.started()
    }

    /// Who reads what pods use, for the control loop.
    pub fn usage(&self) -> UsageReader {
        UsageReader::of(&self.state)
    }

    /// Serves until the token is cancelled, then drains.
    pub async fn run(self, shutdown: CancellationToken) {
        let founder = tokio::spawn(found(self.objects.clone()));
        let audit = self.state.audit.clone();
        let answers = self.state.answers.clone();
        let bulk = self.state.bulk.clone();
        let flow = self.state.flow_control();
        let flow = flow.follow(self.objects.clone(), self.closing.clone());
        let flow = tokio::spawn(flow);
        let collector = tokio::spawn(self.state.collect_edges(self.closing.clone()));
        let copier = tokio::spawn(registry::replicas::follow(self.state));
        let tender = tokio::spawn(self.objects.clone().tend_data(self.closing.clone()));
        let objects = self.objects.clone();
        let definitions = tokio::spawn(objects.follow_definitions(self.closing.clone()));
        let objects = self.objects.clone();
        let definer = tokio::spawn(objects.tend_definitions(self.closing.clone()));
        let objects = self.objects.clone();
        let filler = tokio::spawn(objects.tend_token_secrets(self.closing.clone()));
        let objects = self.objects.clone();
        let cleaner = tokio::spawn(objects.clone().tend_bootstrap_tokens(self.closing.clone()));
        let signer = tokio::spawn(objects.tend_certificate_requests(self.closing.clone()));
        let objects = self.objects.clone();
        let aggregated = tokio::spawn(objects.follow_api_services(self.closing.clone()));
        let objects = self.objects.clone();
        let aggregator = tokio::spawn(objects.tend_api_services(self.closing.clone()));
        let roots = self.objects.roots();
        let follower_of_roots = tokio::spawn({
            let closing = self.closing.clone();
            async move {
                if let Some(roots) = roots {
                    roots.follow(closing).await;
                }
            }
        });
        let truster = tokio::spawn(trust(self.objects.clone(), self.closing.clone()));
        let (nodes, leaving) = NodeConnections::new();
        let follower = nodes
            .clone()
            .follow(self.objects.clone(), leaving, self.closing.clone());
        let follower = tokio::spawn(follower);
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(CONNECTIONS_MAX, "refused a connection: too many are open");
                continue;
            };
            let connection = connection(
                stream,
                (self.tls.now(), self.authority.clone()),
                self.router.clone(),
                Tracked(connections.clone()),
                bulk.clone(),
                nodes.clone(),
                self.closing.clone(),
            );
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        self.closing.cancel();
        founder.abort();
        copier.abort();
        connections.close();
        answers.close();
        let drained = async {
            // They were aborted or told to end, and do at their next step.
            let _ = tokio::join!(
                founder,
                copier,
                tender,
                follower,
                definitions,
                definer,
                filler,
                signer,
                cleaner
            );
            let _ = tokio::join!(aggregated, aggregator, truster, flow, collector);
            let _ = follower_of_roots.await;
            connections.wait().await;
            answers.wait().await;
            if let Some(audit) = audit {
                audit.flush().await;
            }
            self.objects.shutdown().await;
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(
                open = connections.len(),
                "requests were still running at the end of the drain"
            );
        }
    }
}

/// Builds the server and runs it until the token is cancelled.
///
/// # Errors
/// As [`Server::new`].
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    let server = Server::new(config)?;
    server.started().tell();
    server.run(shutdown).await;
    Ok(())
}

/// Has the streams of a connection run as tasks that this server waits for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

async fn connection(
    stream: TcpStream,
    (acceptor, authority): (TlsAcceptor, Authority),
    router: Router,
    streams: Tracked,
    bulk: Bulk,
    nodes: NodeConnections,
    closing: CancellationToken,
) {
    // Small answers must not wait for the peer's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    // A client that is gone without a word is noticed by the kernel, whatever it was doing.
    let keepalive = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(SILENCE)
        .with_retries(SILENCES_MAX);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let address = stream
        .peer_addr()
        .ok()
        .map(|peer| PeerAddress(peer.ip().to_canonical()));
    let trusted = authority.trusted();
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let tls = tokio::select! {
        () = closing.cancelled() => return,
        outcome = handshake => match outcome {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return;
            }
        },
    };
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = PeerCertificates(
        chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
    );
    let shown = peer.0.first();
    let caller = shown.and_then(|shown| certificate_subject(shown, Timestamp::now()));
    let node = caller.as_ref().and_then(Caller::node_name);
    let _connected = node.map(|node| nodes.connect(node));
    let standing = standing(authority, trusted, peer.clone());
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        asks.cancel();
        request.extensions_mut().insert(peer.clone());
        if let Some(address) = address {
            request.extensions_mut().insert(address);
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_MAX);
    let turns = Turns::new(bulk, tls);
    let stream = TokioIo::new(turns.stream());
    let serving = builder.serve_connection_with_upgrades(stream, service);
    let mut serving = std::pin::pin!(serving);
    // The first bytes tell which version it is, and are waited for without an end otherwise.
    let silent = async {
        if tokio::time::timeout(HEADER_TIMEOUT, asked.cancelled())
            .await
            .is_ok()
        {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        outcome = turns.run(serving.as_mut()) => outcome,
        () = silent => {
            tracing::debug!("a connection asked nothing");
            return;
        }
        () = standing => {
            tracing::debug!("a client's certificate is not believed any more");
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DISTRUSTED_MAX, turns.run(serving)).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        }
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            turns.run(serving).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error, "a connection ended early");
    }
}

/// Comes when the certificate that a client showed is over (a while later for one that was so before), or leads to no authority any more that is
/// trusted; never for one that showed none.
async fn standing(
    authority: Authority,
    mut trusted: watch::Receiver<Arc<str>>,
    peer: PeerCertificates,
) {
    let Some(end) = peer.0.first().and_then(ca::end) else {
        return std::future::pending().await;
    };
    // A node that shows what is over has as long as it takes to ask for another.
    let end = match end <= SystemTime::now() {
        true => SystemTime::now() + STANDING_PAUSE,
        false => end,
    };
    loop {
        let left = end
            .duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO);
        tokio::select! {
            biased;
            // Looked at again now and then: the clock may have been set.
            () = tokio::time::sleep(left.min(STANDING_PAUSE)) => {
                if SystemTime::now() >= end {
                    return;
                }
            }
            changed = trusted.changed() => match changed {
                Ok(()) if authority.trusts_client(&peer.0) => {}
                Ok(()) => return,
                Err(_) => return std::future::pending().await,
            },
        }
    }
}

/// Keeps this server's own authority among those that servers of further APIs trust, whoever leads.
async fn trust(objects: Objects, closing: CancellationToken) {
    let caller = Caller::system("apiserver", None);
    let keeping = async {
        loop {
            let pause = match objects.ensure_trust(&caller).await {
                Ok(()) => TRUST_PAUSE,
                // Nobody leads yet, or the namespace is not there.
                Err(error) => {
                    tracing::debug!(%error, "this server's authority is told later");
                    FURNITURE_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    closing.run_until_cancelled(keeping).await;
}

/// Makes what every cluster has each time this server begins to lead, and keeps it in shape while it does.
async fn found(objects: Objects) {
    let mut leadership = objects.store().leadership();
    let mut told = BTreeSet::new();
    let mut has_roles = false;
    loop {
        let term = *leadership.borrow_and_update();
        if term.is_some() {
            let caller = Caller::system("apiserver", term);
            // Not leading any more, or the store is full: whoever leads next does it again.
            let failed = |error: StatusError| {
                tracing::warn!(%error, "making what every cluster has");
            };
            if !has_roles {
                let made = objects.ensure_roles(&caller).await.map_err(failed);
                has_roles = made.is_ok();
            }
            if let Err(error) = furnish(&objects, &caller, &mut told).await {
                failed(error);
            }
        } else {
            told.clear();
            has_roles = false;
        }
        let changed = leadership.changed();
        // Where another leads there is nothing to do until this one does.
        let changed = match term {
            Some(_) => {
                let pause = tokio::time::timeout(FURNITURE_PAUSE, changed);
                pause.await.unwrap_or(Ok(()))
            }
            None => changed.await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// `told` is where the servers were the last time.
async fn furnish(
    objects: &Objects,
    caller: &Caller,
    told: &mut BTreeSet<SocketAddr>,
) -> Result<(), StatusError> {
    let servers = servers::addresses(objects).await?;
    objects.ensure_furniture(caller, &servers).await?;
    objects.repair_addresses(caller).await?;
    objects.remove_left_over(caller).await?;
    objects.ensure_gateway_api(caller).await?;
    if servers != *told {
        objects.remove_old_slices(caller, &servers).await?;
        *told = servers;
    }
    Ok(())
}
