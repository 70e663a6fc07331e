//! What may be done to a connection of the API: floods, silence, two readings of one request, certificates of strangers. The numbers are
//! those of `docs/attacks.md`.
//!
//! A server with its sockets and TLS, as `weft server` runs it. Whatever one connection does ends with that connection at the worst;
//! others are answered.

#[path = "connections/h2.rs"]
mod h2;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use weft_apiserver::authn::StaticToken;
use weft_apiserver::ca::Authority;
use weft_apiserver::server::{Config, Server};
use weft_store::Store;

/// For what takes no time, on a machine that builds and tests besides.
const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    authority: Authority,
    dir: TempDir,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")))
            .await
            .unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        let authority =
            Authority::open_or_create(&dir.path().join("pki"), "cluster.local").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(Config {
            listener,
            store,
            authority: authority.clone(),
            cluster_id: "test".to_owned(),
            server_id: 1,
            peer_address: None,
            scratch_dir: dir.path().to_owned(),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            registry_dir: dir.path().join("registry"),
            tokens: vec![
                StaticToken::new("secret", "admin", None, vec!["system:masters".to_owned()]),
                StaticToken::new("user", "jo", None, Vec::new()),
            ],
            key_file: dir.path().join("none"),
            keys: None,
            url: format!("https://{address}"),
            authentication: None,
            audit: None,
        })
        .unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.run(shutdown.clone()));
        Self {
            address,
            authority,
            dir,
            shutdown,
            server,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap();
    }

    /// A client that believes this server, shows a certificate if it has one, and speaks one protocol.
    fn client(&self, protocol: &str, shown: Option<(Vec<u8>, Vec<u8>)>) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.authority.ca_pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key).unwrap();
                let chain = vec![CertificateDer::from(certificate)];
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config
    }

    async fn tls(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    async fn open(&self, protocol: &str) -> TlsStream<TcpStream> {
        self.tls(self.client(protocol, None)).await.unwrap()
    }

    /// What is answered to raw bytes of HTTP/1.1, whose last request ends the connection, or a fault before: the code of each.
    async fn raw(&self, sent: &[u8]) -> String {
        let mut io = self.open("http/1.1").await;
        let talk = async {
            // It may close before it has read all.
            let _ = io.write_all(sent).await;
            let _ = io.flush().await;
            let mut told = Vec::new();
            let _ = io.read_to_end(&mut told).await;
            told
        };
        let told = tokio::time::timeout(PATIENCE, talk).await.expect("an end");
        let text = String::from_utf8_lossy(&told);
        let codes = text
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| answer.split(' ').next().unwrap_or_default());
        codes.collect::<Vec<_>>().join(" ")
    }

    /// Somebody else's request, as long as all this goes on.
    async fn serves(&self) {
        let told = self
            .raw(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        assert_eq!(told, "200");
    }
}

#[tokio::test]
async fn attack_72_floods_of_frames_end_their_connection_at_the_worst() {
    let served = Served::start().await;
    let get = |stream| h2::request(stream, "GET", "/livez", &[]);
    let open = |stream| h2::head(stream, "POST", "/api/v1/namespaces/default/configmaps", &[]);
    let streams = |count: u32| (0..count).map(|number| 2 * number + 1);
    let rapid: Vec<u8> = streams(5000)
        .flat_map(|stream| [get(stream), h2::reset(stream)].concat())
        .collect();
    // Streams that the server itself has to reset: a window that is widened by nothing.
    let made: Vec<u8> = streams(5000)
        .flat_map(|stream| {
            [
                open(stream),
                h2::frame(h2::WINDOW_UPDATE, 0, stream, &[0; 4]),
            ]
            .concat()
        })
        .collect();
    let continued: Vec<u8> = [h2::frame(
        h2::HEADERS,
        0,
        1,
        &h2::fields(&[(":method", "GET")]),
    )]
    .into_iter()
    .chain((0..20_000).map(|_| {
        let field = h2::fields(&[("x", "0123456789012345678901234567890123456789")]);
        h2::frame(h2::CONTINUATION, 0, 1, &field)
    }))
    .flatten()
    .collect();
    let empty_continued: Vec<u8> = [h2::frame(h2::HEADERS, 0, 1, &[])]
        .into_iter()
        .chain((0..20_000).map(|_| h2::frame(h2::CONTINUATION, 0, 1, &[])))
        .flatten()
        .collect();
    let empty_data: Vec<u8> = [open(1)]
        .into_iter()
        .chain((0..50_000).map(|_| h2::frame(h2::DATA, 0, 1, &[])))
        .flatten()
        .collect();
    let settings = h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(50_000);
    let pings = h2::frame(h2::PING, 0, 0, &[7; 8]).repeat(50_000);
    let updates = h2::frame(h2::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2);
    let priorities = h2::frame(h2::PRIORITY, 0, 1, &[0, 0, 0, 1, 7]).repeat(20_000);
    let unknown = h2::frame(0xfe, 0, 0, &[1; 100]).repeat(20_000);
    let large = [&[0xff, 0xff, 0xff, h2::DATA, 0][..], &1_u32.to_be_bytes()].concat();
    // What one who reads nothing of it can do is bounded by what is kept for them.
    let both = "ends or serves on";
    for (what, sent, expected) in [
        ("rapid reset", rapid, "ends"),
        ("resets by the server", made, "ends"),
        ("fields without end", continued, "ends"),
        ("continuations of nothing", empty_continued, both),
        ("data of nothing", empty_data, both),
        ("settings", settings, both),
        ("pings", pings, both),
        ("a window too wide", updates, "ends"),
        ("priorities", priorities, both),
        ("frames of no kind", unknown, both),
        ("a frame longer than frames are", large, "ends"),
    ] {
        let io = served.open("h2").await;
        let end = tokio::time::timeout(PATIENCE, h2::outcome(io, &sent)).await;
        let end = end.unwrap_or_else(|_| panic!("{what}: no end"));
        assert!(expected.contains(end), "{what}: it {end}");
        served.serves().await;
    }
    served.stop().await;
}

#[tokio::test]
async fn attack_73_who_says_nothing_is_let_go() {
    const SILENT: usize = 300;
    let served = Served::start().await;
    let mut silent = Vec::with_capacity(SILENT);
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut slow = Vec::new();
    for begun in [
        "",
        "G",
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nhost: a\r\nx: ",
    ] {
        let mut io = served.open("http/1.1").await;
        io.write_all(begun.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        slow.push((begun, io));
    }
    // All of them are there, and others are served.
    served.serves().await;
    // What they wait for is time alone, of which there is as much as anybody likes.
    tokio::time::pause();
    for mut tcp in silent {
        // The end, however it is told.
        let mut byte = [0];
        assert!(matches!(tcp.read(&mut byte).await, Ok(0) | Err(_)));
    }
    for (begun, mut io) in slow {
        let mut told = Vec::new();
        let _ = io.read_to_end(&mut told).await;
        let told = String::from_utf8_lossy(&told);
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 408"),
            "{begun:?}: {told}"
        );
    }
    tokio::time::resume();
    served.serves().await;
    served.stop().await;
}

#[tokio::test]
async fn attack_74_a_request_has_one_end() {
    let served = Served::start().await;
    let hidden = "GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\nconnection: close\r\n\r\n";
    let post = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\n";
    let length = hidden.len();
    for (what, sent, expected) in [
        (
            "two lengths",
            format!("{post}content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "lengths in one field",
            format!("{post}content-length: 0, {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a signed length",
            format!("{post}content-length: +0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a length in hexadecimal",
            format!("{post}content-length: 0x0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "another coding",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "chunks that are not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a folded field",
            format!("{post}x: a\r\n transfer-encoding: chunked\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a blank before the colon",
            format!("{post}content-length : {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a bare return",
            format!("{post}x: a\rcontent-length: {length}\r\n\r\n{hidden}"),
            "400",
        ),
        ("a nul", format!("{post}x: a\0b\r\n\r\n{hidden}"), "400"),
        (
            "no version",
            format!("POST /api/v1/namespaces/default/configmaps\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "a chunk longer than numbers are",
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
            "403",
        ),
    ] {
        let told = served.raw(sent.as_bytes()).await;
        assert_eq!(told, expected, "{what}");
        served.serves().await;
    }
    // Chunks count where both are told, as RFC 9112 has it: what follows them is the next request, which has no rights but its own.
    let both = format!(
        "{post}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{}",
        hidden.replace("authorization: Bearer secret\r\n", "")
    );
    let told = served.raw(both.as_bytes()).await;
    assert!(["400", "403", "403 403"].contains(&told.as_str()), "{told}");
    served.stop().await;
}

#[tokio::test]
async fn attack_75_no_upgrade_and_no_connect_opens_a_tunnel() {
    let served = Served::start().await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let stranger = "GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for (what, first, expected) in [
        (
            "a watch without rights",
            format!("GET /api/v1/secrets?watch=1 HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n"),
            "403 403",
        ),
        (
            "a wrong token",
            format!(
                "GET /api/v1/secrets?watch=1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer wrong\r\n{upgrade}\r\n"
            ),
            "401 403",
        ),
        (
            "a log of no pod",
            format!(
                "GET /api/v1/namespaces/default/pods/none/log HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n{upgrade}\r\n"
            ),
            "404 403",
        ),
        (
            "a node that is none",
            format!(
                "GET /api/v1/nodes/none/proxy/metrics HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n{upgrade}\r\n"
            ),
            "404 403",
        ),
        (
            "another protocol",
            format!(
                "GET /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n{}\r\n",
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
            ),
            "200 403",
        ),
        (
            "the version before",
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{stranger}"),
            "",
        ),
    ] {
        let told = served.raw(format!("{first}{stranger}").as_bytes()).await;
        if expected.is_empty() {
            assert!(!told.contains('2'), "{what}: {told}");
        } else {
            assert_eq!(told, expected, "{what}");
        }
        served.serves().await;
    }
    for target in [served.address.to_string(), "169.254.169.254:80".to_owned()] {
        for token in ["secret", "user"] {
            let connect = format!(
                "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {token}\r\n\r\n{stranger}"
            );
            let told = served.raw(connect.as_bytes()).await;
            assert!(!told.starts_with('2'), "{target} {token}: {told}");
        }
    }
    served.serves().await;
    served.stop().await;
}

/// A certificate by an authority, and its key.
fn certificate(
    issuer: &Issuer<'_, KeyPair>,
    usage: ExtendedKeyUsagePurpose,
    valid: (i32, i32),
) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params
        .distinguished_name
        .push(DnType::CommonName, "kubernetes-admin");
    params.extended_key_usages = vec![usage];
    params.not_before = rcgen::date_time_ymd(valid.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(valid.1, 1, 1);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signed = params.signed_by(&key, issuer).unwrap();
    (signed.der().to_vec(), key.serialize_der())
}

/// The issuer that a folder of an authority holds.
fn issuer(pki: &Path) -> Issuer<'static, KeyPair> {
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap()
}

#[tokio::test]
async fn attack_85_a_certificate_that_is_not_good_ends_the_handshake() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let served = Served::start().await;
    let own = issuer(&served.dir.path().join("pki"));
    // Another authority of the very same name.
    let other = tempfile::tempdir().unwrap();
    Authority::open_or_create(other.path(), "cluster.local").unwrap();
    let other = issuer(other.path());
    let mut nobody = CertificateParams::default();
    nobody.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let nobody = Issuer::new(nobody, key);
    let get = b"GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for (what, shown, expected) in [
        (
            "good",
            certificate(&own, ClientAuth, (2020, 2090)),
            "HTTP/1.1 200",
        ),
        (
            "another authority",
            certificate(&other, ClientAuth, (2020, 2090)),
            "",
        ),
        (
            "an authority of nobody",
            certificate(&nobody, ClientAuth, (2020, 2090)),
            "",
        ),
        ("expired", certificate(&own, ClientAuth, (2020, 2021)), ""),
        (
            "not yet good",
            certificate(&own, ClientAuth, (2089, 2090)),
            "",
        ),
        (
            "for servers",
            certificate(&own, ServerAuth, (2020, 2090)),
            "",
        ),
    ] {
        let mut told = Vec::new();
        // In TLS 1.3 a client hears of its own refusal when it reads.
        if let Ok(mut io) = served.tls(served.client("http/1.1", Some(shown))).await {
            let _ = io.write_all(get).await;
            let _ = io.flush().await;
            let _ = io.read_to_end(&mut told).await;
        }
        let told = String::from_utf8_lossy(&told);
        assert!(told.starts_with(expected), "{what}: {told}");
        assert_eq!(told.is_empty(), expected.is_empty(), "{what}: {told}");
    }
    served.serves().await;
    served.stop().await;
}

/// A client certificate of node `a` that was good until then, in seconds since the epoch.
fn of_node_until(issuer: &Issuer<'_, KeyPair>, seconds: u64) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (DnType::OrganizationName, "system:nodes"),
        (DnType::CommonName, "system:node:a"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signed = params.signed_by(&key, issuer).unwrap();
    (signed.der().to_vec(), key.serialize_der())
}

/// What a node is answered that shows a certificate which is over: its next one, and nothing besides.
#[tokio::test]
async fn attack_85_what_is_over_gets_a_node_one_thing() {
    let served = Served::start().await;
    let own = issuer(&served.dir.path().join("pki"));
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    let asked = async |shown: &(Vec<u8>, Vec<u8>), method: &str, path: &str, body: &str| {
        let config = served.client("http/1.1", Some(shown.clone()));
        let mut told = Vec::new();
        if let Ok(mut io) = served.tls(config).await {
            let head = format!(
                "host: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}",
                body.len()
            );
            let sent = format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}");
            let _ = io.write_all(sent.as_bytes()).await;
            let _ = io.flush().await;
            let _ = io.read_to_end(&mut told).await;
        }
        let told = String::from_utf8_lossy(&told).into_owned();
        let code = told.get(9..12).unwrap_or_default().to_owned();
        (code, told)
    };
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |name: &str| {
        use base64::Engine as _;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let subject = format!("system:node:{name}");
        for (kind, value) in [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, subject.as_str()),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "generateName": "csr-" },
            "spec": {
                "request": base64::engine::general_purpose::STANDARD.encode(pem),
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["digital signature", "client auth"],
            },
        })
        .to_string()
    };
    let lost = of_node_until(&own, now() - 48 * 3600);
    let (code, told) = asked(&lost, "POST", requests, &request("a")).await;
    assert_eq!(code, "403", "{told}");
    assert!(
        told.contains("there is no Node of that name any more"),
        "{told}"
    );
    let node = serde_json::json!({ "metadata": { "name": "a" } });
    assert_eq!(served.send("POST", "/api/v1/nodes", &node).await.0, "201");
    let (code, told) = asked(&lost, "POST", requests, &request("a")).await;
    assert_eq!(code, "403", "{told}");
    assert!(told.contains("is another, made after that"), "{told}");
    let long_ago = of_node_until(&own, now() - 31 * 24 * 3600);
    let (_, told) = asked(&long_ago, "POST", requests, &request("a")).await;
    assert_eq!(told, "", "the handshake fails");

    // Good while there was that Node, and over since.
    let ended = now() + 1;
    let over = of_node_until(&own, ended);
    while now() <= ended {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (method, path, body, expected) in [
        ("GET", "/api/v1/nodes/a", String::new(), "403"),
        ("GET", "/api/v1/pods", String::new(), "403"),
        ("GET", requests, String::new(), "403"),
        ("POST", requests, request("b"), "403"),
        ("POST", requests, request("a"), "201"),
    ] {
        let (code, told) = asked(&over, method, path, &body).await;
        assert_eq!(code, expected, "{method} {path}: {told}");
    }
    served.stop().await;
}

impl Served {
    /// What is answered to an administrator with a token.
    async fn ask(&self, method: &str, path: &str) -> (String, serde_json::Value) {
        self.send(method, path, &serde_json::Value::Null).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> (String, serde_json::Value) {
        let mut io = self.open("http/1.1").await;
        let body = match body.is_null() {
            true => String::new(),
            false => body.to_string(),
        };
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let head = format!(
            "host: a\r\nauthorization: Bearer secret\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}",
            body.len()
        );
        let sent = format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}");
        io.write_all(sent.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        let _ = io.read_to_end(&mut told).await;
        let told = String::from_utf8(told).unwrap();
        let code = told.get(9..12).unwrap_or_default().to_owned();
        let body = told.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (code, serde_json::from_str(body).unwrap_or_default())
    }

    /// One request by whoever trusts and shows what `config` says: whether it was answered well.
    async fn is_answered(&self, config: ClientConfig, path: &str) -> bool {
        let Ok(mut io) = self.tls(config).await else {
            return false;
        };
        let sent = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut told = Vec::new();
        let _ = io.write_all(sent.as_bytes()).await;
        let _ = io.read_to_end(&mut told).await;
        told.starts_with(b"HTTP/1.1 200")
    }
}

#[tokio::test]
async fn the_authority_is_another_twice_and_whoever_knew_the_one_before_is_served_until_it_is_forgotten()
 {
    let served = Arc::new(Served::start().await);
    let der = |pem: &str| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .unwrap()
            .to_vec()
    };
    let key = |pem: &str| {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        key.secret_der().to_vec()
    };
    let node = serde_json::json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "annotations": {"weft.dev/mesh-address": "10.0.0.1:1"}},
    });
    let (code, told) = served.send("POST", "/api/v1/nodes", &node).await;
    assert_eq!(code, "201", "{told}");
    for _ in 0..2 {
        let admin = served.authority.admin();
        let shown = (der(&admin.certificate_pem), key(&admin.key_pem));
        // Knows this authority and its own certificate, and hears of nothing.
        let knows = served.client("http/1.1", Some(shown));
        let mut open = served.tls(knows.clone()).await.unwrap();
        let get = b"GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\n\r\n";
        open.write_all(get).await.unwrap();
        let mut told = [0; 12];
        open.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"HTTP/1.1 200");

        let stop = CancellationToken::new();
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (served, knows, stop) = (Arc::clone(&served), knows.clone(), stop.clone());
                tokio::spawn(async move {
                    let (mut made, mut failed) = (0, 0);
                    while !stop.is_cancelled() {
                        let is_well = served.is_answered(knows.clone(), "/api/v1/secrets").await;
                        made += 1;
                        failed += u32::from(!is_well);
                    }
                    (made, failed)
                })
            })
            .collect();
        let before = served.ask("GET", "/weft/v1/roots").await;
        let (code, after) = served.ask("POST", "/weft/v1/roots").await;
        assert_eq!(code, "200", "{after}");
        let roots = after["roots"].as_array().unwrap().clone();
        assert_eq!(roots.len(), 2);
        assert_eq!(roots[1]["id"], before.1["roots"][0]["id"]);
        assert!(roots[0]["signs"] == true && roots[1]["signs"] == false);
        let newer = served.authority.admin();
        assert_ne!(newer.certificate_pem, admin.certificate_pem);
        // By the new one, as who hears of it proves himself.
        let shown = (der(&newer.certificate_pem), key(&newer.key_pem));
        let hears = served.client("http/1.1", Some(shown));
        for _ in 0..8 {
            assert!(served.is_answered(hears.clone(), "/api/v1/secrets").await);
            assert!(served.is_answered(knows.clone(), "/api/v1/secrets").await);
        }
        stop.cancel();
        for caller in callers {
            let (made, failed) = caller.await.unwrap();
            assert!(made > 0 && failed == 0, "{failed} of {made}");
        }

        let of =
            |root: &serde_json::Value| format!("/weft/v1/roots/{}", root["id"].as_str().unwrap());
        let (code, _) = served.ask("DELETE", &of(&roots[0])).await;
        assert_eq!(code, "409", "it signs");
        // A node has certificates of the older one still, or may have.
        let (code, why) = served.ask("DELETE", &of(&roots[1])).await;
        assert_eq!(code, "409");
        let why = why["message"].as_str().unwrap();
        assert!(
            why.contains("1 of the nodes") && why.contains("(n)"),
            "{why}"
        );
        let says =
            serde_json::json!({"metadata": {"annotations": {"weft.dev/root": roots[0]["id"]}}});
        let (code, told) = served.send("PATCH", "/api/v1/nodes/n", &says).await;
        assert_eq!(code, "200", "{told}");
        let (code, left) = served.ask("DELETE", &of(&roots[1])).await;
        assert_eq!(
            (code.as_str(), left["roots"].as_array().unwrap().len()),
            ("200", 1)
        );
        assert!(
            !served.is_answered(knows.clone(), "/livez").await,
            "forgotten"
        );
        assert!(served.is_answered(hears, "/api/v1/secrets").await);
        // The connection that was open rests on what is forgotten.
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, open.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is still open");
    }
    let (code, _) = served.ask("DELETE", "/weft/v1/roots/nothing").await;
    assert_eq!(code, "404");
    let served = Arc::into_inner(served).unwrap();
    served.stop().await;
}
