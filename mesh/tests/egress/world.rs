//! Hosts outside of the cluster on this machine's loopback addresses, and a resolver that says where they are.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use weft_api::identity::SpiffeId;
use weft_mesh::{
    Body, CallerInfo, EgressConfig, EgressManner, EgressRule, EgressScheme, Failure, Mesh,
    Outbound, Resolve, Resolving, WorkloadInfo,
};

/// Where most hosts are: an address that is not public, and that nothing else listens at.
pub const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A certificate for a name, and its key.
    pub fn issue(
        &self,
        name: &str,
        is_expired: bool,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if is_expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        (certificate.der().clone(), key)
    }
}

/// How a host speaks.
#[derive(Clone)]
pub enum Speech {
    Plain,
    Tls { config: Arc<rustls::ServerConfig> },
}

impl Speech {
    pub fn tls(authority: &Authority, name: &str, protocols: &[&str]) -> Self {
        Self::with(authority.issue(name, false), protocols)
    }

    /// Asks whoever calls for a certificate of `clients`.
    pub fn mutual(authority: &Authority, name: &str, clients: &Authority) -> Self {
        let (certificate, key) = authority.issue(name, false);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(clients.root.clone()).expect("a root");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::Tls {
            config: Arc::new(config),
        }
    }

    pub fn expired(authority: &Authority, name: &str) -> Self {
        Self::with(authority.issue(name, true), &["h2"])
    }

    fn with(
        (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
        protocols: &[&str],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Self::Tls {
            config: Arc::new(config),
        }
    }
}

/// What a host saw.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    pub requests: AtomicUsize,
}

impl Seen {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A host outside.
pub struct Host {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
}

impl Host {
    pub async fn start<F>(
        ip: IpAddr,
        speech: Speech,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                let open = counted.open.fetch_add(1, Ordering::Relaxed) + 1;
                counted.most_open.fetch_max(open, Ordering::Relaxed);
                let (seen, speech, answer) = (Arc::clone(&counted), speech.clone(), answer.clone());
                tokio::spawn(async move {
                    let requests = Arc::clone(&seen);
                    let service = service_fn(move |request| {
                        requests.requests.fetch_add(1, Ordering::Relaxed);
                        let answered = answer(request);
                        async move { Ok::<_, io::Error>(answered.await) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    match speech {
                        Speech::Plain => {
                            let served = server.serve_connection(TokioIo::new(tcp), service).await;
                            drop(served);
                        }
                        Speech::Tls { config } => {
                            if let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await {
                                let served =
                                    server.serve_connection(TokioIo::new(tls), service).await;
                                drop(served);
                            }
                        }
                    }
                    seen.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, seen }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Answers with a line about the request, and its body.
pub async fn describe(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    let line = format!(
        "{:?} {} {} host {} with {names:?}: {}",
        head.version,
        head.method,
        head.uri,
        host.unwrap_or("-"),
        String::from_utf8_lossy(&body)
    );
    let mut response = Response::new(Body::full(line));
    let lines = response.headers_mut();
    lines.insert("x-weft-error", http::HeaderValue::from_static("forged"));
    lines.insert("x-theirs", http::HeaderValue::from_static("1"));
    response
}

/// Names with the answers that are given one after the other, the last of them for ever.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub asked: AtomicUsize,
}

impl Names {
    pub fn add(&self, name: &str, answers: &[&[IpAddr]]) {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        self.answers
            .lock()
            .expect("no panic")
            .insert(name.to_owned(), answers);
    }
}

struct Resolver(Arc<Names>);

impl Resolve for Resolver {
    fn resolve(&self, name: &str) -> Resolving {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let mut all = self.0.answers.lock().expect("no panic");
        let answer = match all.get_mut(name) {
            None => Err(io::Error::other("no such name")),
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
        };
        Box::pin(std::future::ready(answer))
    }
}

pub struct World {
    pub mesh: Mesh,
    pub names: Arc<Names>,
    pub authority: Authority,
}

impl World {
    pub fn new() -> Self {
        let authority = Authority::new();
        let names = Arc::new(Names::default());
        let mesh = Mesh::builder("a", "cluster.local")
            .egress(EgressConfig {
                extra_roots: vec![authority.root.clone()],
                resolver: Some(Arc::new(Resolver(Arc::clone(&names)))),
                addresses_fresh: Duration::ZERO,
            })
            .build();
        Self {
            mesh,
            names,
            authority,
        }
    }

    /// A caller of that ServiceAccount that may do what the rules say.
    pub fn caller(&self, account: &str, rules: &[EgressRule]) -> Outbound {
        let identity = SpiffeId::new("cluster.local", "shop", account);
        let wrong = self.mesh.set_egress_rules(&identity, rules);
        assert_eq!(wrong, []);
        self.mesh.outbound(CallerInfo {
            identity,
            workload: WorkloadInfo {
                name: account.to_owned(),
                namespace: "shop".to_owned(),
                ..WorkloadInfo::default()
            },
        })
    }
}

/// A rule for hosts at [`HOST`].
pub fn rule(host: &str, scheme: EgressScheme, port: u16) -> EgressRule {
    EgressRule {
        grant: "CapabilityGrant shop/cart".to_owned(),
        hosts: vec![host.to_owned()],
        ports: vec![port],
        scheme,
        paths: Vec::new(),
        methods: Vec::new(),
        addresses: vec![format!("{HOST}/32")],
        manner: EgressManner::default(),
    }
}

pub fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a request")
}

pub fn post(uri: &str, body: &str) -> Request<Body> {
    let body = Body::full(body.to_owned());
    Request::post(uri).body(body).expect("a request")
}

/// The body as text, or the error.
pub async fn text(answered: Result<Response<Body>, Failure>) -> String {
    match answered {
        Ok(response) => {
            let body = response.into_body().collect().await.expect("a body");
            String::from_utf8_lossy(&body.to_bytes()).into_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// Waits until something is so, for as long as a machine that is busy may take.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waited).await;
    assert!(waited.is_ok(), "{what}");
}
