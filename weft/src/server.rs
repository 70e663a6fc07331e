//! A server: store, API, scheduler and controllers wired into one process.
//!
//! Flow of a start: data folder → store → certificates → listener → API → control loop → kubeconfig and
//! join token. Whoever gets a [`Server`] can talk to it at once.
//!
//! Invariants: raft has a tokio runtime of its own, so that a burst of requests never delays a heartbeat;
//! nothing is listened on before the store is open; secrets on disk have mode 0600.
//! Left to others: what a request does (`weft_apiserver`), what controllers decide (`control_loop`).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_api::Object;
use weft_apiserver::authn::StaticToken;
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::encryption::KeyFile;
use weft_apiserver::kinds;
use weft_apiserver::listing::ListOptions;
use weft_apiserver::objects::{Objects, WriteOptions};
use weft_store::{OpenError, Store};

use crate::control_loop::{self, ClusterInfo};
use crate::data_dir;
use crate::exit::{Chain, Failure};

/// The domain of service names and of workload identities.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// What a server needs to know to start.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    /// Where the API listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// Bearer tokens in Kubernetes' form: `token,user,uid,"group1,group2"` a line.
    pub token_auth_file: Option<PathBuf>,
    /// What Secrets are encrypted with; `pki/encryption.key` in the data folder, made when missing, unless named.
    pub encryption_key_file: Option<PathBuf>,
}

/// A running server. [`Server::stop`] ends it in order.
pub struct Server {
    /// `https://127.0.0.1:6443`
    pub url: String,
    pub kubeconfig: PathBuf,
    /// The cluster CA's certificate, for nodes that join.
    pub ca_file: PathBuf,
    /// The token that lets a node join, 0600.
    pub join_token_file: PathBuf,
    store: Store,
    stop: CancellationToken,
    api: JoinHandle<()>,
    control_loop: JoinHandle<()>,
    raft: Option<Runtime>,
}

/// Threads for raft: one orders and one answers while the other waits for a lock.
const RAFT_THREADS: usize = 2;
/// How long the API may finish requests when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a part that ended by itself is noticed.
const PARTS_POLL: Duration = Duration::from_millis(250);
/// A join token is for the machines that are set up now.
const JOIN_TOKEN_LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Starts a server.
///
/// # Errors
/// A [`Failure`] for a port or folder in use, or data that cannot be read. Nothing is left running then.
pub async fn start(config: ServerConfig) -> Result<Server, Failure> {
    let dir = &config.data_dir;
    data_dir::create_private(dir)?;
    // Looked at before the store is opened: a port in use is the likelier mistake and the cheaper answer.
    let listener = TcpListener::bind(config.address)
        .map_err(|error| cannot_listen("API", config.address, &error))?;
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
    let store = raft
        .spawn(Store::open(weft_store::Config::new(dir.join("store"))))
        .await
        .map_err(|error| Failure::new("cannot open the store", error, ""))?
        .map_err(|error| cannot_open(dir, &error));
    let store = match store {
        Ok(store) => store,
        Err(failure) => {
            raft.shutdown_background();
            return Err(failure);
        }
    };
    match assemble(&config, listener, store.clone()).await {
        Ok(mut server) => {
            server.raft = Some(raft);
            Ok(server)
        }
        Err(failure) => {
            store.shutdown().await;
            raft.shutdown_background();
            Err(failure)
        }
    }
}

async fn assemble(
    config: &ServerConfig,
    listener: TcpListener,
    store: Store,
) -> Result<Server, Failure> {
    let dir = &config.data_dir;
    let tokens = static_tokens(config.token_auth_file.as_deref())?;
    let pki = dir.join("pki");
    let authority = Authority::open_or_create(&pki, CLUSTER_DOMAIN).map_err(|error| {
        Failure::new(
            format!("cannot use the certificates in {}", pki.display()),
            Chain(&error),
            "restore them from a backup; a new folder starts a new cluster",
        )
    })?;
    let key_file = config
        .encryption_key_file
        .clone()
        .unwrap_or_else(|| pki.join("encryption.key"));
    let keys = KeyFile::load_or_create(&key_file).map_err(|error| {
        Failure::new(
            "cannot use the key that secrets are encrypted with",
            Chain(&error),
            "restore it from a backup, or correct it; without it the secrets of this cluster are lost",
        )
    })?;
    let stop = CancellationToken::new();
    let address = listener
        .local_addr()
        .map_err(|error| cannot_listen("API", config.address, &error))?;
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|error| cannot_listen("API", address, &error))?;
    let api = weft_apiserver::server::Server::new(weft_apiserver::server::Config {
        listener,
        store: store.clone(),
        authority: authority.clone(),
        names: vec![address.ip().to_string()],
        registry_dir: dir.join("registry"),
        tokens,
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
    let api = tokio::spawn(api.run(stop.clone()));
    let control_loop = tokio::spawn(control_loop::run(
        objects.clone(),
        store.leadership(),
        ClusterInfo {
            ca_pem: authority.ca_pem().to_owned(),
        },
        stop.clone(),
    ));

    // 0.0.0.0 is where to listen, not where to call.
    let host = if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else if address.is_ipv6() {
        format!("[{}]", address.ip())
    } else {
        address.ip().to_string()
    };
    let url = format!("https://{host}:{}", address.port());
    let server = Server {
        kubeconfig: data_dir::kubeconfig(dir),
        ca_file: dir.join("ca.crt"),
        join_token_file: dir.join("join-token"),
        url,
        store,
        stop,
        api,
        control_loop,
        raft: None,
    };
    let token = join_token(&objects).await?;
    for (path, contents) in [
        (&server.kubeconfig, authority.kubeconfig(&server.url)),
        (&server.ca_file, authority.ca_pem().to_owned()),
        (&server.join_token_file, token),
    ] {
        data_dir::write_private(path, contents.as_bytes()).map_err(|error| {
            Failure::new(
                format!("cannot write {}", path.display()),
                error,
                "make room, or name another folder with --data-dir",
            )
        })?;
    }
    Ok(server)
}

fn static_tokens(path: Option<&Path>) -> Result<Vec<StaticToken>, Failure> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let failure = |why: String| {
        let what = format!("cannot use the token file {}", path.display());
        Failure::new(
            what,
            why,
            "write a line `token,user,uid,\"group1,group2\"` for each token",
        )
        .usage()
    };
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    StaticToken::parse_file(&text).map_err(|error| failure(error.to_string()))
}

impl Server {
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

    /// Comes when a part of the server ended by itself, which only a bug or a dying disk brings about.
    /// Whoever hears it stops the server: what is not stored must not be served.
    pub async fn failed(&self) -> String {
        let part_ended = async {
            while !self.api.is_finished() && !self.control_loop.is_finished() {
                tokio::time::sleep(PARTS_POLL).await;
            }
            "a part of the server ended".to_owned()
        };
        tokio::select! {
            reason = self.store.failed() => reason,
            reason = part_ended => reason,
        }
    }

    /// Stops taking requests, finishes what runs, and closes the store.
    ///
    /// # Errors
    /// A [`Failure`] when a part had ended by itself before.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let broken = self.api.is_finished() || self.control_loop.is_finished();
        self.stop.cancel();
        let parts = async {
            let _ = (&mut self.control_loop).await;
            (&mut self.api).await
        };
        let ended = tokio::time::timeout(STOP_TIMEOUT, parts).await;
        self.api.abort();
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

/// Letters of a bootstrap token: Kubernetes' form is six, a dot and sixteen.
const TOKEN_LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

fn random_letters(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count)
        .map(|_| char::from(TOKEN_LETTERS[rng.random_range(0..TOKEN_LETTERS.len())]))
        .collect()
}

/// Creates a bootstrap token for the nodes that join from now on, and removes those of earlier starts.
async fn join_token(objects: &Objects) -> Result<String, Failure> {
    let failure = |error: weft_api::StatusError| {
        Failure::new("cannot create a token for nodes to join", error, "")
    };
    let caller = Caller::system("token-issuer", None);
    objects
        .ensure_permanent_namespaces(&caller)
        .await
        .map_err(failure)?;
    let mine = weft_api::LabelSelector::parse("weft.dev/join-token")
        .map_err(|error| Failure::new("cannot list join tokens", error, ""))?;
    let old = ListOptions::labelled(mine);
    objects
        .delete_collection(
            &caller,
            &kinds::SECRET,
            Some("kube-system"),
            &old,
            &Default::default(),
        )
        .await
        .map_err(failure)?;
    let (id, secret) = (random_letters(6), random_letters(16));
    let expires = Timestamp::now() + JOIN_TOKEN_LIFETIME;
    let object = Object::from_value(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": format!("bootstrap-token-{id}"),
            "namespace": "kube-system",
            "labels": {"weft.dev/join-token": ""},
        },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": weft_api::time::rfc3339(expires),
            "usage-bootstrap-authentication": "true",
            "description": "Lets nodes join this cluster.",
        },
    }))
    .map_err(|error| Failure::new("cannot create a token for nodes to join", error, ""))?;
    objects
        .create(
            &caller,
            &kinds::SECRET,
            Some("kube-system"),
            object,
            &WriteOptions::default(),
        )
        .await
        .map_err(failure)?;
    Ok(format!("{id}.{secret}"))
}
