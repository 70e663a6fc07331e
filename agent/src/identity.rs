//! Who this node and its workloads are, proven by certificates of the cluster's authority.
//!
//! Three kinds, all asked for with a CertificateSigningRequest, all with keys made here that never leave this process except
//! for the node's own, which is kept in its data folder (mode 0600) so that a restart needs no token, and that of its gateway, which
//! is kept beside it, so that one without a server to be reached passes on what comes from outside:
//!
//! ```text
//! node client    CN=system:node:NAME   first with the bootstrap token, then with itself     → Link, the API client
//! node serving   this node's addresses                                                      → the port for logs and metrics
//! workload       spiffe://TRUST/ns/NS/sa/SA, one for each ServiceAccount used here          → the mesh
//! ```
//!
//! Each is good for a day, and renewed when half of its life is over, with jitter so that a fleet does not renew at once, and when another
//! authority of the cluster signs (`trust.rs`). A failed renewal is repeated; the old certificate serves until it expires. A node that was away for
//! longer asks for its next certificate by the one that is over, which servers take from it for a month and for nothing else.
//!
//! Invariants: no private key is logged or sent; a workload certificate exists only while a pod here uses it.

mod credential;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_api::SpiffeId;
use weft_mesh::Mesh;

pub use self::credential::Credential;
use self::credential::{CERTIFICATE_FILE, GATEWAY_FILE, belongs_to, load, store};
use crate::trust::{Holder, Trust, Trusted};

/// Signer of node client certificates; Kubernetes' own.
const SIGNER_NODE: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of the certificate that this node serves logs and metrics with.
const SIGNER_SERVING: &str = "weft.dev/node-serving";
/// Signer of workload identities.
const SIGNER_WORKLOAD: &str = "weft.dev/workload";
/// The name that every API server's certificate carries.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// How often certificates are looked at; far below half of the shortest life.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Why an identity could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the server address \"{url}\" is not a URL")]
    ServerUrl { url: String },
    #[error("no certificate found in {path}")]
    NoAuthority { path: PathBuf },
    #[error("reading or writing {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "there is neither a bootstrap token nor a node certificate in {folder}; pass --token-file"
    )]
    NoCredentials { folder: PathBuf },
    #[error(
        "the node's certificate was over at {ended}, and the server gives it no other; join anew with --token-file"
    )]
    Lapsed {
        ended: Timestamp,
        #[source]
        source: Box<IdentityError>,
    },
    #[error("making a key or a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("asking the API server to sign as {signer}")]
    Sign {
        signer: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API server did not sign as {signer}: {reason}")]
    NotSigned {
        signer: &'static str,
        reason: String,
    },
    #[error("the certificate that came back cannot be read: {reason}")]
    BadCertificate { reason: String },
    #[error("preparing the connection to the API server")]
    Client(#[source] Box<kube::Error>),
    #[error("the mesh refused the certificate of {identity}: {reason}")]
    Mesh { identity: String, reason: String },
}

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct Server {
    pub url: http::Uri,
    /// The authorities of the cluster.
    pub trust: Trust,
}

/// Reads the certificates of the cluster's authority.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn read_authority(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem = std::fs::read(file).map_err(|source| IdentityError::File {
        path: file.into(),
        source,
    })?;
    let authority: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .collect();
    if authority.is_empty() {
        return Err(IdentityError::NoAuthority { path: file.into() });
    }
    Ok(authority)
}

impl Server {
    /// An API server of the cluster with these authorities.
    ///
    /// # Errors
    /// When the URL does not parse.
    pub fn new(url: &str, trust: Trust) -> Result<Self, IdentityError> {
        let url = url
            .parse()
            .map_err(|_| IdentityError::ServerUrl { url: url.into() })?;
        Ok(Self { url, trust })
    }

    fn client(&self, auth: serde_json::Value) -> Result<kube::Client, IdentityError> {
        let mut config = kube::Config::new(self.url.clone());
        config.root_cert = Some(
            self.trust
                .now()
                .authorities
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
        );
        config.connect_timeout = Some(Duration::from_secs(3));
        // Whatever address leads there, it has to be an API server of this cluster: no node gets a certificate for it.
        config.tls_server_name = Some(SERVER_NAME.to_owned());
        // What a node writes is its own under this name.
        let agent = concat!("weft-node/", env!("CARGO_PKG_VERSION"));
        let agent = http::HeaderValue::from_static(agent);
        config.headers.push((http::header::USER_AGENT, agent));
        // No HTTP proxy stands between a node and its server, whatever the environment says for other programs.
        config.proxy_url = None;
        // Deserialising is the one way to an AuthInfo that needs no extra crate for its secret strings.
        if let Ok(auth) = serde_json::from_value(auth) {
            config.auth_info = auth;
        }
        kube::Client::try_from(config).map_err(|error| IdentityError::Client(Box::new(error)))
    }

    fn client_with_token(&self, token: &str) -> Result<kube::Client, IdentityError> {
        self.client(serde_json::json!({ "token": token.trim() }))
    }

    fn client_with(&self, credential: &Credential) -> Result<kube::Client, IdentityError> {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        self.client(serde_json::json!({
            "client-certificate-data": encode(&credential.chain_pem),
            "client-key-data": encode(&credential.key_pem),
        }))
    }
}

/// The way to the API server, under the newest certificate of this node.
#[derive(Clone)]
pub struct Link {
    client: watch::Receiver<kube::Client>,
}

impl Link {
    /// A link to what stands in for an API server.
    #[cfg(test)]
    pub(crate) fn of(client: kube::Client) -> Self {
        Self {
            client: watch::Sender::new(client).subscribe(),
        }
    }

    /// A client with the certificate that is in force now. Do not keep it for long.
    pub fn client(&self) -> kube::Client {
        self.client.borrow().clone()
    }

    /// Returns when the certificate was renewed: watches must be opened anew.
    pub async fn renewed(&mut self) {
        if self.client.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps this node's own client certificate and the [`Link`] made from it.
pub struct NodeIdentity {
    server: Server,
    node: String,
    folder: PathBuf,
    credential: Credential,
    client: watch::Sender<kube::Client>,
    lapsed: Option<Timestamp>,
}

impl NodeIdentity {
    /// Takes up the certificate in `folder`, has one that is over renewed, or obtains one with the bootstrap token.
    ///
    /// # Errors
    /// When there is no usable certificate and none can be had.
    pub async fn obtain(
        server: Server,
        node: &str,
        folder: &Path,
        token: Option<&str>,
    ) -> Result<(Self, Link), IdentityError> {
        let stored = load(folder, CERTIFICATE_FILE);
        let stored = stored.filter(|stored| belongs_to(&stored.chain, node));
        let (mut usable, mut lapsed) = (None, None);
        if let Some(credential) = stored {
            let client = server.client_with(&credential)?;
            if !credential.is_good() {
                let ended = credential.expires_at;
                match request_node(client, node).await {
                    Ok(renewed) => {
                        store(folder, CERTIFICATE_FILE, &renewed)?;
                        tracing::warn!(%ended, "the node certificate was over, or nearly, and is renewed");
                        lapsed = Some(ended).filter(|ended| *ended <= Timestamp::now());
                        let client = server.client_with(&renewed)?;
                        usable = Some((renewed, client));
                    }
                    Err(error) if is_refused(&error) && token.is_some() => {
                        tracing::info!(error = %Chain(&error), "the node certificate is over and is not renewed");
                    }
                    Err(error) if is_refused(&error) => {
                        let source = Box::new(error);
                        return Err(IdentityError::Lapsed { ended, source });
                    }
                    Err(error) => return Err(error),
                }
            } else {
                // A data folder may outlive its cluster: only the server knows whether it still honours the certificate.
                match client.apiserver_version().await {
                    Err(kube::Error::Api(status)) if status.code == 401 => {
                        tracing::info!("the stored node certificate is no longer accepted")
                    }
                    Err(error) if token.is_some() && is_tls(&error) => {
                        tracing::info!(%error, "the stored node certificate is no longer accepted")
                    }
                    _ => usable = Some((credential, client)),
                }
            }
        }
        let (credential, client) = match (usable, token) {
            (Some(usable), _) => usable,
            (None, None) => {
                return Err(IdentityError::NoCredentials {
                    folder: folder.into(),
                });
            }
            (None, Some(token)) => {
                let credential = request_node(server.client_with_token(token)?, node).await?;
                store(folder, CERTIFICATE_FILE, &credential)?;
                let client = server.client_with(&credential)?;
                (credential, client)
            }
        };
        let (sender, receiver) = watch::channel(client);
        Ok((
            Self {
                server,
                node: node.to_owned(),
                folder: folder.to_owned(),
                credential,
                client: sender,
                lapsed,
            },
            Link { client: receiver },
        ))
    }

    /// When the certificate was over that this node came back with, if it was.
    pub fn lapsed(&self) -> Option<Timestamp> {
        self.lapsed
    }

    /// Renews until `shutdown`.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        let mut trust = self.server.trust.changes();
        let mut due = Due::default();
        loop {
            if !due.look(&mut trust, &shutdown).await {
                return;
            }
            if !due.is(self.credential.renew_at) {
                if due.take_news() {
                    // The certificate stays, and whom it is shown to is judged by other authorities.
                    match self.server.client_with(&self.credential) {
                        Ok(client) => drop(self.client.send_replace(client)),
                        Err(error) => {
                            tracing::warn!(error = %Chain(&error), "the server is still judged by the authorities of before");
                        }
                    }
                }
                continue;
            }
            let client = self.client.borrow().clone();
            match self.renew(client).await {
                Ok(()) => {
                    due.done(&self.server.trust, Holder::Node);
                    tracing::info!(node = %self.node, "renewed the node certificate");
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), expires_at = %self.credential.expires_at, "renewing the node certificate failed, will be repeated");
                }
            }
        }
    }

    async fn renew(&mut self, client: kube::Client) -> Result<(), IdentityError> {
        let credential = request_node(client, &self.node).await?;
        store(&self.folder, CERTIFICATE_FILE, &credential)?;
        self.client
            .send_replace(self.server.client_with(&credential)?);
        self.credential = credential;
        Ok(())
    }
}

/// When a holder's certificates are to be made anew: each at its time, and all when another authority signs.
#[derive(Default)]
struct Due {
    made: u64,
    asked: u64,
    is_news: bool,
}

impl Due {
    /// Waits until it is time to look; false at `shutdown`.
    async fn look(
        &mut self,
        trust: &mut watch::Receiver<Arc<Trusted>>,
        shutdown: &CancellationToken,
    ) -> bool {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return false,
            changed = trust.changed() => self.is_news |= changed.is_ok(),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        self.asked = trust.borrow_and_update().renewal;
        true
    }

    /// Whether a certificate with that time is to be made anew.
    fn is(&self, renew_at: Timestamp) -> bool {
        self.asked > self.made || Timestamp::now() >= renew_at
    }

    /// Whether other authorities are trusted since the last time.
    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// All of the holder's are new.
    fn done(&mut self, trust: &Trust, holder: Holder) {
        self.is_news = false;
        self.made = self.asked;
        trust.renewed(holder, self.made);
    }
}

/// An error with its causes, joined by colons; printed once, at the edge.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn is_tls(error: &kube::Error) -> bool {
    let text = Chain(error).to_string();
    text.contains("certificate") || text.contains("alert")
}

/// Whether the server has answered that it does not sign, or does not speak with such a certificate.
fn is_refused(error: &IdentityError) -> bool {
    match error {
        IdentityError::Sign { source, .. } => match &**source {
            kube::Error::Api(status) => matches!(status.code, 401 | 403),
            other => is_tls(other),
        },
        IdentityError::NotSigned { .. } => true,
        _ => false,
    }
}

async fn request_node(client: kube::Client, node: &str) -> Result<Credential, IdentityError> {
    let mut parameters =
        rcgen::CertificateParams::new(Vec::<String>::new()).map_err(IdentityError::Request)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:nodes");
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    request(
        client,
        SIGNER_NODE,
        parameters,
        &["digital signature", "client auth"],
    )
    .await
}

/// The certificate this node serves logs and metrics with.
///
/// # Errors
/// When the server does not sign it.
pub async fn request_serving(
    client: kube::Client,
    node: &str,
    address: IpAddr,
) -> Result<Credential, IdentityError> {
    let mut parameters = rcgen::CertificateParams::new(vec![address.to_string(), node.to_owned()])
        .map_err(IdentityError::Request)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:nodes");
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    request(
        client,
        SIGNER_SERVING,
        parameters,
        &["digital signature", "server auth"],
    )
    .await
}

async fn request_workload(
    client: kube::Client,
    identity: &SpiffeId,
) -> Result<Credential, IdentityError> {
    let mut parameters =
        rcgen::CertificateParams::new(Vec::<String>::new()).map_err(IdentityError::Request)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let uri = identity
        .to_string()
        .try_into()
        .map_err(IdentityError::Request)?;
    parameters.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    request(
        client,
        SIGNER_WORKLOAD,
        parameters,
        &["digital signature", "client auth", "server auth"],
    )
    .await
}

async fn request(
    client: kube::Client,
    signer: &'static str,
    parameters: rcgen::CertificateParams,
    usages: &[&str],
) -> Result<Credential, IdentityError> {
    let key = rcgen::KeyPair::generate().map_err(IdentityError::Request)?;
    let pem = parameters
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(IdentityError::Request)?;
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(format!("csr-{:016x}", rand::random::<u64>())),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let answer = api
        .create(&PostParams::default(), &object)
        .await
        .map_err(|source| IdentityError::Sign {
            signer,
            source: Box::new(source),
        })?;
    let status = answer.status.unwrap_or_default();
    let Some(certificate) = status.certificate else {
        let reason = status
            .conditions
            .iter()
            .flatten()
            .filter_map(|condition| condition.message.clone())
            .next_back();
        return Err(IdentityError::NotSigned {
            signer,
            reason: reason.unwrap_or_else(|| "no certificate in its status".to_owned()),
        });
    };
    let chain_pem =
        String::from_utf8(certificate.0).map_err(|_| IdentityError::BadCertificate {
            reason: "it is not PEM".into(),
        })?;
    Credential::from_pem(chain_pem, key.serialize_pem())
}

/// The identities of the workloads of this node.
#[derive(Clone)]
pub struct Workloads {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    mesh: Mesh,
    /// Where the gateway's certificate is kept.
    folder: PathBuf,
    held: Mutex<HashMap<SpiffeId, Arc<Held>>>,
}

#[derive(Default)]
struct Held {
    /// Pods that use it; counted under the lock of `Inner::held`.
    users: std::sync::atomic::AtomicUsize,
    /// When it is due again; taken while a request for it is under way, so that it is asked for once.
    renew_at: tokio::sync::Mutex<Option<Timestamp>>,
}

/// A pod's claim to an identity; dropping it lets go.
pub struct Claim {
    identity: SpiffeId,
    inner: Arc<Inner>,
}

impl Claim {
    /// The identity claimed.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.inner.held.lock();
        if let Some(entry) = held.get(&self.identity)
            && entry
                .users
                .fetch_sub(1, std::sync::atomic::Ordering::AcqRel)
                == 1
        {
            held.remove(&self.identity);
            self.inner.mesh.identities().remove(&self.identity);
        }
    }
}

impl Workloads {
    /// None yet but that of the gateway, if the certificate that it had when this node ran last is good yet; it is kept in `folder`. All of
    /// them go to `mesh`.
    pub fn new(link: Link, mesh: Mesh, folder: &Path) -> Self {
        if let Some(credential) = load(folder, GATEWAY_FILE).filter(Credential::is_good) {
            let gateway = mesh.gateway_identity();
            let set = mesh
                .identities()
                .set(gateway, credential.chain, credential.key);
            if let Err(error) = set {
                tracing::info!(%error, "the stored certificate of the gateway is not taken");
            }
        }
        Self {
            inner: Arc::new(Inner {
                link,
                mesh,
                folder: folder.to_owned(),
                held: Mutex::default(),
            }),
        }
    }

    /// Makes sure the mesh holds a certificate of `identity`, for as long as the claim is kept.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn claim(&self, identity: SpiffeId) -> Result<Claim, IdentityError> {
        let entry = {
            let mut held = self.inner.held.lock();
            let entry = held.entry(identity.clone()).or_default().clone();
            entry
                .users
                .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            entry
        };
        // From here on an early return lets go of what was counted above.
        let claim = Claim {
            identity: identity.clone(),
            inner: self.inner.clone(),
        };
        let mut renew_at = entry.renew_at.lock().await;
        if renew_at.is_none() {
            *renew_at = Some(self.fetch(&identity).await?);
        }
        Ok(claim)
    }

    async fn fetch(&self, identity: &SpiffeId) -> Result<Timestamp, IdentityError> {
        let credential = request_workload(self.inner.link.client(), identity).await?;
        let renew_at = credential.renew_at;
        if *identity == self.inner.mesh.gateway_identity()
            && let Err(error) = store(&self.inner.folder, GATEWAY_FILE, &credential)
        {
            tracing::warn!(error = %Chain(&error), "the gateway's certificate is not kept");
        }
        self.inner
            .mesh
            .identities()
            .set(identity.clone(), credential.chain, credential.key)
            .map_err(|error| IdentityError::Mesh {
                identity: identity.to_string(),
                reason: error.to_string(),
            })?;
        Ok(renew_at)
    }

    /// Renews until `shutdown`.
    pub async fn keep(self, trusted: Trust, shutdown: CancellationToken) {
        let mut trust = trusted.changes();
        let mut due = Due::default();
        loop {
            if !due.look(&mut trust, &shutdown).await {
                return;
            }
            let mut all_are_new = true;
            let held: Vec<(SpiffeId, Arc<Held>)> = self
                .inner
                .held
                .lock()
                .iter()
                .map(|(id, held)| (id.clone(), held.clone()))
                .collect();
            for (identity, entry) in held {
                let mut renew_at = entry.renew_at.lock().await;
                // None: it is about to be asked for the first time.
                if renew_at.is_none_or(|at| !due.is(at)) {
                    continue;
                }
                match self.fetch(&identity).await {
                    Ok(next) => *renew_at = Some(next),
                    Err(error) => {
                        all_are_new = false;
                        tracing::warn!(%identity, error = %Chain(&error), "renewing a workload certificate failed, will be repeated")
                    }
                }
            }
            if all_are_new {
                due.done(&trusted, Holder::Workloads);
            }
        }
    }
}

/// The certificate this node serves with, renewed while it is served.
#[derive(Clone)]
pub struct Serving {
    current: Arc<parking_lot::RwLock<Arc<rustls::sign::CertifiedKey>>>,
    renew_at: Arc<Mutex<Timestamp>>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving")
    }
}

impl rustls::server::ResolvesServerCert for Serving {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

impl Serving {
    /// Obtains the first certificate.
    ///
    /// # Errors
    /// When the server does not sign it.
    pub async fn obtain(link: &Link, node: &str, address: IpAddr) -> Result<Self, IdentityError> {
        let credential = request_serving(link.client(), node, address).await?;
        let renew_at = credential.renew_at;
        let key = certified(credential)?;
        Ok(Self {
            current: Arc::new(parking_lot::RwLock::new(Arc::new(key))),
            renew_at: Arc::new(Mutex::new(renew_at)),
        })
    }

    /// Renews until `shutdown`.
    pub async fn keep(
        self,
        link: Link,
        node: String,
        address: IpAddr,
        trusted: Trust,
        shutdown: CancellationToken,
    ) {
        let mut trust = trusted.changes();
        let mut due = Due::default();
        loop {
            if !due.look(&mut trust, &shutdown).await {
                return;
            }
            let renew_at = *self.renew_at.lock();
            if !due.is(renew_at) {
                continue;
            }
            let renewed = request_serving(link.client(), &node, address)
                .await
                .and_then(|credential| {
                    let renew_at = credential.renew_at;
                    certified(credential).map(|key| (key, renew_at))
                });
            match renewed {
                Ok((key, renew_at)) => {
                    *self.current.write() = Arc::new(key);
                    *self.renew_at.lock() = renew_at;
                    due.done(&trusted, Holder::Serving);
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "renewing the serving certificate failed, will be repeated")
                }
            }
        }
    }
}

fn certified(credential: Credential) -> Result<rustls::sign::CertifiedKey, IdentityError> {
    let key =
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&credential.key).map_err(|error| {
            IdentityError::BadCertificate {
                reason: error.to_string(),
            }
        })?;
    Ok(rustls::sign::CertifiedKey::new(credential.chain, key))
}
