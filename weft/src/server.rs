//! A server: store, API, scheduler and controllers wired into one process.
//!
//! Flow of a start: data folder → who this server is (`identity`, `join`) → certificates → store and its links to other
//! servers → API → control loop. Then, once a leader is known: vote, tell where the API is, kubeconfig and tokens
//! ([`Server::ready`]). A planned stop hands leadership over first.
//!
//! Invariants: raft has a tokio runtime of its own, so that a burst of requests never delays a heartbeat;
//! nothing is listened on before the store is open; secrets on disk have mode 0600.
//! Left to others: what a request does (`weft_apiserver`), what controllers decide (`control_loop`).

mod config;
pub(crate) mod identity;
mod join;
mod tokens;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_api::StatusError;
use weft_apiserver::authn::StaticToken;
use weft_apiserver::ca::{Authority, Credentials};
use weft_apiserver::caller::Caller;
use weft_apiserver::encryption::{self, KeyFile};
use weft_apiserver::http::health::Started;
use weft_apiserver::http::servers::{self, ServerStatus};
use weft_apiserver::objects::{Objects, UNWATCHED};
use weft_apiserver::peers;
use weft_store::transport::{self, Link, LinkTls};
use weft_store::{Ended, HistoryShare, MemberError, OpenError, ServerId, Store};

use crate::control_loop::{ClusterInfo, ControlLoop};
use crate::data_dir;
use crate::exit::{Chain, Failure};
pub use config::{AuditConfig, ServerConfig};
use config::{audit, authentication, static_tokens};
use identity::Identity;
pub use join::JoinConfig;

/// The domain of service names and of workload identities.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// A running server. [`Server::stop`] ends it in order.
pub struct Server {
    /// Its number in the cluster.
    pub id: ServerId,
    /// `https://127.0.0.1:6443`
    pub url: String,
    /// Where clients go: the control plane's endpoint, or this server.
    pub client_url: String,
    pub kubeconfig: PathBuf,
    /// The cluster CA's certificate, for nodes and servers that join.
    pub ca_file: PathBuf,
    /// The token that lets a node join, 0600.
    pub join_token_file: PathBuf,
    /// The token that lets a server join, 0600.
    pub server_token_file: PathBuf,
    /// Where other servers reach this one; `None` for a cluster that stays at one.
    pub peer_address: Option<String>,
    data_dir: PathBuf,
    identity: Identity,
    authority: Authority,
    objects: Objects,
    started: Started,
    store: Store,
    stop: CancellationToken,
    stop_control: CancellationToken,
    stop_peers: CancellationToken,
    api: JoinHandle<()>,
    control_loop: ControlLoop,
    teller: Option<JoinHandle<()>>,
    raft: Option<Runtime>,
}

/// Threads for raft: one orders and one answers while the other waits for a lock.
const RAFT_THREADS: usize = 2;
/// How long the API may finish requests when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long leadership may take to be handed over when the server stops. It is one round of messages, some 30 ms; longer means
/// that the others are going too.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// Watch history of leases: 5,000 nodes that renew every two seconds (`--lease-renewal 2`) fill it in two, which is time enough to list them and then
/// watch. In the history of everything else they would leave no more than 14 s of it.
const LEASE_HISTORY_EVENTS_MAX: usize = 5_000;
const LEASE_HISTORY_BYTES_MAX: usize = 4 << 20;
/// How soon a part that ended by itself is noticed.
const PARTS_POLL: Duration = Duration::from_millis(250);
/// Between two tries of what needs a leader.
const LEADER_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether the servers of the cluster are others than before.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Starts a server. It answers requests from now on; [`Server::ready`] waits until it can answer them well.
///
/// # Errors
/// A [`Failure`] for a port or folder in use, or data that cannot be read. Nothing is left running then.
pub async fn start(config: ServerConfig, stop: &CancellationToken) -> Result<Server, Failure> {
    let dir = &config.data_dir;
    data_dir::create_private(dir)?;
    let tokens = static_tokens(config.token_auth_file.as_deref())?;
    let known = Identity::load(dir)?;
    let had = |port: fn(&Identity) -> u16| known.as_ref().map_or(0, port);
    // Looked at before the store is opened: a port in use is the likelier mistake and the cheaper answer.
    let listener = listen("API", config.address, had(|known| known.api_port))?;
    let api_address = local_address("API", &listener)?;
    let peer_listener = match config.peer_port {
        None => None,
        Some(port) => {
            let address = SocketAddr::new(config.address.ip(), port);
            Some(listen("peer", address, had(|known| known.peer_port))?)
        }
    };
    let peer_port = match &peer_listener {
        None => 0,
        Some(listener) => local_address("peer", listener)?.port(),
    };
    let peer_address = peer_listener
        .as_ref()
        .map(|_| SocketAddr::new(config.advertised(), peer_port).to_string());

    let pki = dir.join("pki");
    let mut identity = match known {
        Some(known) => known,
        None => match (&config.join, &peer_address) {
            (Some(join), Some(peer_address)) => {
                if config.advertised().is_loopback() && config.address.ip().is_unspecified() {
                    return Err(unreachable_address());
                }
                let joined = join::ask(join, peer_address, stop).await?;
                let authority = Credentials {
                    certificate_pem: joined.ca_certificate,
                    key_pem: joined.ca_key,
                };
                Authority::install(&pki, &authority).map_err(|error| bad_pki(&pki, &error))?;
                // Keys that the operator has put there are those of the cluster, or another server's Secrets are lost here.
                let key_file = config.key_file();
                if !key_file.exists() && !joined.encryption_keys.is_empty() {
                    write(&key_file, &joined.encryption_keys)?;
                }
                Identity::new(joined.cluster_id, joined.id, true)
            }
            _ => Identity::first(dir),
        },
    };
    identity.api_port = api_address.port();
    if peer_port != 0 {
        identity.peer_port = peer_port;
    }
    identity.save(dir)?;
    let authority =
        Authority::open_or_create(&pki, CLUSTER_DOMAIN).map_err(|error| bad_pki(&pki, &error))?;
    let tls =
        peers::link_tls(&authority, identity.server_id).map_err(|error| bad_pki(&pki, &error))?;

    let raft = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RAFT_THREADS)
        .thread_name("raft")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                "cannot start threads",
                error,
                "raise the limit on processes",
            )
        })?;
    let stop_peers = CancellationToken::new();
    let store_config = weft_store::Config {
        server_id: identity.server_id,
        cluster_id: identity.cluster_id.clone(),
        address: peer_address.clone().unwrap_or_default(),
        start: identity.start(),
        history_shares: vec![HistoryShare {
            prefix: weft_kinds::LEASE.key_prefix().into(),
            events_max: LEASE_HISTORY_EVENTS_MAX,
            bytes_max: LEASE_HISTORY_BYTES_MAX,
        }],
        unwatched: UNWATCHED.map(Into::into).to_vec(),
        ..weft_store::Config::new(identity::store_dir(dir))
    };
    let opened = raft
        .spawn(open_store(
            store_config,
            peer_listener,
            tls,
            stop_peers.clone(),
        ))
        .await
        .map_err(|error| Failure::new("cannot open the store", error, ""))
        .and_then(|opened| opened.map_err(|error| cannot_open(dir, &error)));
    let store = match opened {
        Ok(store) => store,
        Err(failure) => {
            raft.shutdown_background();
            return Err(failure);
        }
    };
    let parts = Parts {
        config: &config,
        listener,
        address: api_address,
        peer_address,
        identity,
        authority,
        tokens,
        store: store.clone(),
        stop_peers: stop_peers.clone(),
    };
    match assemble(parts) {
        Ok(mut server) => {
            server.raft = Some(raft);
            Ok(server)
        }
        Err(failure) => {
            stop_peers.cancel();
            store.shutdown().await;
            raft.shutdown_background();
            Err(failure)
        }
    }
}

/// Listens on the port that is asked for, or, where any will do, on the one that this server had before.
fn listen(what: &str, address: SocketAddr, had: u16) -> Result<TcpListener, Failure> {
    if address.port() == 0 && had != 0 {
        let before = SocketAddr::new(address.ip(), had);
        match TcpListener::bind(before) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                tracing::warn!(%before, %error, "the {what} port of before is taken; another one is picked");
            }
        }
    }
    TcpListener::bind(address).map_err(|error| cannot_listen(what, address, &error))
}

fn local_address(what: &str, listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::new(format!("cannot listen for the {what}"), error, ""))
}

/// Runs on raft's runtime, where the links to other servers live too.
async fn open_store(
    config: weft_store::Config,
    listener: Option<TcpListener>,
    tls: LinkTls,
    stop: CancellationToken,
) -> Result<Store, OpenError> {
    let dir = config.dir.clone();
    let Some(listener) = listener else {
        let store = Store::open(config).await?;
        let voters = store.members().iter().filter(|member| member.voter).count();
        if voters > 1 {
            store.shutdown().await;
            return Err(OpenError::Inconsistent {
                path: dir,
                reason: format!(
                    "it belongs to a cluster of {voters} servers, which this one cannot reach"
                ),
            });
        }
        return Ok(store);
    };
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|source| OpenError::Io { path: dir, source })?;
    let store = Store::open_with(config, Arc::new(Link::new(&tls))).await?;
    let served = store.clone();
    tokio::spawn(async move { transport::serve(listener, &tls, served, stop).await });
    Ok(store)
}

struct Parts<'a> {
    config: &'a ServerConfig,
    listener: TcpListener,
    address: SocketAddr,
    peer_address: Option<String>,
    identity: Identity,
    authority: Authority,
    tokens: Vec<StaticToken>,
    store: Store,
    stop_peers: CancellationToken,
}

fn assemble(parts: Parts<'_>) -> Result<Server, Failure> {
    let Parts {
        config,
        listener,
        address,
        peer_address,
        mut identity,
        authority,
        tokens,
        store,
        stop_peers,
    } = parts;
    let dir = &config.data_dir;
    if !identity.opened {
        identity.opened = true;
        identity.save(dir)?;
    }
    let key_file = config.key_file();
    let cannot_use_key = |why: &dyn std::fmt::Display| {
        Failure::new(
            "cannot use the key that secrets are encrypted with",
            why,
            "restore it from a backup, or correct it; without it the secrets of this cluster are lost",
        )
    };
    // A new one would open nothing, and look as if it could.
    if encryption::is_in_use(&store) && !key_file.exists() {
        let why = format!("there are encrypted secrets, and no {}", key_file.display());
        return Err(cannot_use_key(&why));
    }
    let keys =
        KeyFile::load_or_create(&key_file).map_err(|error| cannot_use_key(&Chain(&error)))?;
    let stop = CancellationToken::new();
    let stop_control = CancellationToken::new();
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|error| cannot_listen("API", address, &error))?;
    let endpoint = config.control_plane_endpoint.as_deref();
    let url = format!(
        "https://{}",
        SocketAddr::new(config.advertised(), address.port())
    );
    let mut names = vec![address.ip().to_string(), config.advertised().to_string()];
    names.extend(endpoint.map(|endpoint| host_of(endpoint).to_owned()));
    let api = weft_apiserver::server::Server::new(weft_apiserver::server::Config {
        listener,
        store: store.clone(),
        authority: authority.clone(),
        cluster_id: identity.cluster_id.clone(),
        server_id: identity.server_id,
        peer_address: peer_address.clone(),
        scratch_dir: dir.clone(),
        url: endpoint.map_or_else(|| url.clone(), |endpoint| format!("https://{endpoint}")),
        names,
        registry_dir: dir.join("registry"),
        tokens,
        key_file,
        authentication: authentication(config.authentication_file.as_deref())?,
        audit: config.audit.as_ref().map(audit).transpose()?,
        keys: Some(keys),
    })
    .map_err(|error| {
        Failure::new(
            "cannot start the API",
            Chain(&error),
            "the data is untouched; correct this and start again",
        )
    })?;
    let objects = api.objects();
    let usage = api.usage();
    let started = api.started();
    let api = tokio::spawn(api.run(stop.clone()));
    let control_loop = ControlLoop::start(
        objects.clone(),
        store.leadership(),
        ClusterInfo {
            ca_pem: authority.trusted(),
            usage: Some(usage),
        },
        stop_control.clone(),
    )
    .map_err(|error| {
        Failure::new(
            "cannot start the control loop",
            error,
            "let the process start more threads, then start this again",
        )
    })?;
    Ok(Server {
        id: identity.server_id,
        kubeconfig: data_dir::kubeconfig(dir),
        ca_file: dir.join("ca.crt"),
        join_token_file: dir.join("join-token"),
        server_token_file: dir.join("server-token"),
        client_url: endpoint.map_or_else(|| url.clone(), |endpoint| format!("https://{endpoint}")),
        url,
        peer_address,
        data_dir: dir.clone(),
        identity,
        authority,
        objects,
        started,
        store,
        stop,
        stop_control,
        stop_peers,
        api,
        control_loop,
        teller: None,
        raft: None,
    })
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host_of(endpoint: &str) -> &str {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Server {
    /// Comes once a leader is known and this server has said where it is; then its files for clients, nodes and servers
    /// are written. For as long as there is no majority it waits.
    ///
    /// # Errors
    /// A [`Failure`] when a file cannot be written, or the cluster refuses what this server says.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let store = self.store.clone();
        tokio::select! {
            biased;
            ended = store.ended() => Err(self.explain(ended)),
            ready = self.become_ready() => ready,
        }
    }

    async fn become_ready(&mut self) -> Result<(), Failure> {
        self.vote().await?;
        if let Some(address) = &self.peer_address {
            let known = |store: &Store| {
                let members = store.members();
                let own = members.into_iter().find(|member| member.server == self.id);
                own.map(|member| member.address)
            };
            while known(&self.store).is_some_and(|known| known != *address) {
                if let Err(error) = self.store.relocate(self.id, address.as_str()).await {
                    tracing::debug!(%error, "the other servers do not know this one's address yet");
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
            }
        }
        let (objects, id) = (&self.objects, self.id);
        settled("create the namespaces", || {
            let caller = Caller::system("apiserver", None);
            async move { objects.ensure_permanent_namespaces(&caller).await }
        })
        .await?;
        let defined = settled("define the kinds of the Gateway API", || {
            let caller = Caller::system("apiserver", None);
            async move { objects.ensure_gateway_api(&caller).await }
        });
        if let Err(failure) = defined.await {
            // Somebody's webhook or policy refuses them. The leader tries again and again.
            tracing::warn!(%failure, "there is no gateway yet");
        }
        settled("tell where this server is", || {
            servers::publish(objects, id, &self.url)
        })
        .await?;
        let told = settled("make the Service of the API", || async {
            let servers = servers::addresses(objects).await?;
            let caller = Caller::system("apiserver", None);
            objects.ensure_api_service(&caller, &servers).await
        });
        if let Err(failure) = told.await {
            // As above.
            tracing::warn!(%failure, "programs in the cluster do not find the API yet");
        }
        self.started.tell();
        let nodes = settled("create a token for nodes to join", || {
            tokens::renew(objects, id, tokens::For::Nodes)
        });
        write(&self.join_token_file, &nodes.await?)?;
        if self.peer_address.is_some() {
            let servers = settled("create a token for servers to join", || {
                tokens::renew(objects, id, tokens::For::Servers)
            });
            write(&self.server_token_file, &servers.await?)?;
        }
        write(&self.ca_file, &self.authority.ca_pem())?;
        let told = servers::status(objects).await.unwrap_or_default();
        write(&self.kubeconfig, &self.kubeconfig_text(&told))?;
        self.teller = Some(tokio::spawn(tell(
            Told {
                objects: self.objects.clone(),
                authority: self.authority.clone(),
                id: self.id,
                url: self.url.clone(),
                client_url: self.client_url.clone(),
                kubeconfig: self.kubeconfig.clone(),
                ca_file: self.ca_file.clone(),
                trusted: self.authority.trusted(),
            },
            told,
            self.stop.clone(),
        )));
        Ok(())
    }

    /// Waits for a leader, and, as a learner, until the others let this server vote.
    async fn vote(&self) -> Result<(), Failure> {
        let gone = || Failure::new("the server cannot start", "its store was closed", "");
        let mut leader = self.store.leader();
        leader.wait_for(Option::is_some).await.map_err(|_| gone())?;
        if !self.identity.joined {
            return Ok(());
        }
        loop {
            let members = self.store.members();
            if members
                .iter()
                .any(|member| member.server == self.id && member.voter)
            {
                return Ok(());
            }
            match self.store.promote(self.id).await {
                Ok(()) => {}
                // Enough of them vote, or it has not caught up. It answers requests in any case.
                Err(MemberError::Invalid { reason }) if members.len() > 5 => {
                    tracing::warn!(reason, "this server does not vote");
                    return Ok(());
                }
                Err(MemberError::Closed) => return Err(gone()),
                Err(error) => {
                    tracing::info!(%error, "cannot vote yet, will be repeated");
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
            }
        }
    }

    fn kubeconfig_text(&self, told: &[ServerStatus]) -> String {
        self.authority
            .kubeconfig(&self.client_url, &others(told, self.id))
    }

    /// A client with the administrator's certificate.
    ///
    /// # Errors
    /// A [`Failure`] when the kubeconfig just written cannot be used.
    pub async fn client(&self) -> Result<kube::Client, Failure> {
        crate::kubeconfig::ClientArgs {
            kubeconfig: Some(self.kubeconfig.clone()),
        }
        .client()
        .await
    }

    /// Comes when the server was removed from the cluster, or a part of it ended by itself, which only a bug or a dying
    /// disk brings about. The caller must stop the server then: what is not stored must not be served.
    pub async fn failed(&self) -> Failure {
        let part_ended = async {
            while !self.api.is_finished() && !self.control_loop.is_finished() {
                tokio::time::sleep(PARTS_POLL).await;
            }
        };
        tokio::select! {
            ended = self.store.ended() => self.explain(ended),
            () = part_ended => broken("a part of the server ended"),
        }
    }

    /// Says why the store ended, and remembers it where it is for ever.
    fn explain(&self, ended: Ended) -> Failure {
        match ended {
            Ended::Failed(reason) => broken(&reason),
            Ended::Removed => {
                let identity = Identity {
                    removed: true,
                    ..self.identity.clone()
                };
                // If it cannot be remembered the others tell it again.
                if let Err(error) = identity.save(&self.data_dir) {
                    tracing::warn!(%error, "that this server was removed is not written down");
                }
                identity.removed(&self.data_dir)
            }
        }
    }

    /// Hands leadership over, stops taking requests, finishes what runs, and closes the store.
    ///
    /// # Errors
    /// A [`Failure`] when a part had ended by itself before.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let broken = self.api.is_finished() || self.control_loop.is_finished();
        self.stop_control.cancel();
        self.control_loop.ended(STOP_TIMEOUT).await;
        self.hand_over().await;
        self.stop.cancel();
        if let Some(teller) = self.teller.take() {
            teller.abort();
        }
        let ended = tokio::time::timeout(STOP_TIMEOUT, &mut self.api).await;
        self.api.abort();
        self.stop_peers.cancel();
        self.store.shutdown().await;
        if let Some(raft) = self.raft.take() {
            raft.shutdown_background();
        }
        match ended {
            Ok(Err(error)) => Err(Failure::new("the API ended", error, "read the log above")),
            _ if broken => Err(Failure::new(
                "the server ended by itself",
                "a part of it stopped",
                "read the log above",
            )),
            _ => Ok(()),
        }
    }

    /// A leader that just went away would leave the others without one for an election.
    async fn hand_over(&self) {
        let members = self.store.members();
        let alone = members.iter().filter(|member| member.voter).count() < 2;
        if alone || self.store.leadership().borrow().is_none() {
            return;
        }
        match tokio::time::timeout(HAND_OVER_TIMEOUT, self.store.transfer(None)).await {
            Ok(Ok(leader)) => tracing::info!(leader, "handed leadership over"),
            Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
            Err(_) => tracing::warn!("leadership was not handed over in time"),
        }
    }
}

/// The server cannot go on, and why.
fn broken(reason: &str) -> Failure {
    Failure::new(
        "the server stopped itself",
        reason,
        "look at the disk and at the log above; no acknowledged write is lost",
    )
}

/// Repeats what failed for want of a leader.
async fn settled<T, F>(what: &str, attempt: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, StatusError>>,
{
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if matches!(error.code, 409 | 429 | 503 | 504 | 507) => {
                tracing::debug!(%error, what, "will be repeated");
                tokio::time::sleep(LEADER_PAUSE).await;
            }
            Err(error) => return Err(Failure::new(format!("cannot {what}"), error, "")),
        }
    }
}

fn write(path: &Path, contents: &str) -> Result<(), Failure> {
    data_dir::write_private(path, contents.as_bytes()).map_err(|error| {
        Failure::new(
            format!("cannot write {}", path.display()),
            error,
            "make room, or name another folder with --data-dir",
        )
    })
}

/// The APIs of the other servers.
fn others(told: &[ServerStatus], own: ServerId) -> Vec<(ServerId, String)> {
    let others = told.iter().filter(|server| server.id != own);
    others
        .filter_map(|server| Some((server.id, server.url.clone()?)))
        .collect()
}

/// What the kubeconfig is made of.
struct Told {
    objects: Objects,
    authority: Authority,
    id: ServerId,
    url: String,
    client_url: String,
    kubeconfig: PathBuf,
    ca_file: PathBuf,
    trusted: watch::Receiver<Arc<str>>,
}

/// Keeps the kubeconfig, the authorities beside it and this server's entry among the servers true, until `stop`.
async fn tell(mut told: Told, mut known: Vec<ServerStatus>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
        // Asks the leader, so that a server hears that it was removed although nobody asks it for anything.
        if let Err(error) = told.objects.store().read().await {
            tracing::debug!(%error, "the leader does not answer");
            continue;
        }
        if let Err(error) = servers::publish(&told.objects, told.id, &told.url).await {
            tracing::debug!(%error, "this server's address was not told");
        }
        let Ok(now) = servers::status(&told.objects).await else {
            continue;
        };
        let trusted = told.trusted.has_changed().unwrap_or(false);
        if trusted || others(&now, told.id) != others(&known, told.id) {
            let authorities = Arc::clone(&told.trusted.borrow_and_update());
            let text = told
                .authority
                .kubeconfig(&told.client_url, &others(&now, told.id));
            let written = write(&told.ca_file, &authorities);
            match written.and_then(|()| write(&told.kubeconfig, &text)) {
                Ok(()) => known = now,
                Err(error) => {
                    told.trusted.mark_changed();
                    tracing::warn!(%error, "the kubeconfig was not brought up to date");
                }
            }
        }
    }
}

fn bad_pki(pki: &Path, error: &weft_apiserver::ca::CaError) -> Failure {
    Failure::new(
        format!("cannot use the certificates in {}", pki.display()),
        Chain(error),
        "restore them from a backup; a new folder starts a new cluster",
    )
}

fn unreachable_address() -> Failure {
    Failure::new(
        "cannot join the cluster",
        "the other servers need an address of this machine, and it listens on all of them",
        "name one with --advertise-address",
    )
    .usage()
}

/// Says why an address cannot be listened on.
pub fn cannot_listen(what: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    let flag = what.to_lowercase();
    let (why, next) = match error.kind() {
        std::io::ErrorKind::AddrInUse => (
            "the port is in use by another program".to_owned(),
            format!(
                "stop that program, or pick another port with --{flag}-port (0 picks a free one)"
            ),
        ),
        std::io::ErrorKind::PermissionDenied => (
            "this user may not listen on that port".to_owned(),
            format!("pick a port above 1023 with --{flag}-port"),
        ),
        _ => (
            error.to_string(),
            "name an address of this machine with --address".to_owned(),
        ),
    };
    Failure::new(
        format!("cannot listen on {address} for the {what}"),
        why,
        next,
    )
}

fn cannot_open(dir: &Path, error: &OpenError) -> Failure {
    let next = match error {
        OpenError::InUse { .. } => {
            "stop the weft that uses it, or name another folder with --data-dir"
        }
        _ => "keep the folder for a look at it; another one (--data-dir) starts a new cluster",
    };
    Failure::new(
        format!("cannot open the data in {}", dir.display()),
        Chain(error),
        next,
    )
}
