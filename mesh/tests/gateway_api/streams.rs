//! HTTPS listeners, backends that prove themselves, and connections that become WebSocket.

use std::sync::Arc;

use futures::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_mesh::{Body, BoxError};

use super::world::{Answer, OnRaw, World, answer};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    pub(super) root: CertificateDer<'static>,
}

pub(super) struct Issued {
    pem: String,
    key_pem: String,
    pub(super) der: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root");
        Self {
            pem: root.pem(),
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Issued {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8"),
        }
    }

    pub(super) fn client(&self, shown: Option<&Issued>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder
                .with_client_auth_cert(vec![shown.der.clone()], shown.key.clone_key())
                .expect("a certificate"),
        })
    }
}

/// A Secret or ConfigMap as a manifest.
pub(super) fn secret(name: &str, issued: &Issued) -> String {
    let data = serde_json::json!({"tls.crt": issued.pem, "tls.key": issued.key_pem});
    format!(
        "- {{kind: Secret, metadata: {{name: {name}, namespace: infra}}, stringData: {data}}}\n"
    )
}

pub(super) fn bundle(name: &str, authority: &Authority) -> String {
    let data = serde_json::json!({"ca.crt": authority.pem});
    format!("- {{kind: ConfigMap, metadata: {{name: {name}, namespace: infra}}, data: {data}}}\n")
}

/// A request for `host` over TLS to `name`. None: no connection came of it.
pub(super) async fn asked(
    world: &World,
    (gateway, port): (&str, u16),
    client: &Arc<ClientConfig>,
    name: &str,
    host: &str,
) -> Option<Answer> {
    let stream = tokio::net::TcpStream::connect(world.place(gateway, port));
    let stream = stream.await.expect("a connection");
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TlsConnector::from(Arc::clone(client))
        .connect(server, stream)
        .await
        .ok()?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/").header("host", host);
    let request = request.body(Body::empty()).expect("a request");
    Some(answer(sender.send_request(request).await.ok()?).await)
}

#[tokio::test]
async fn https_listeners_show_their_certificates_and_know_their_requests() {
    let authority = Authority::new();
    let issued = authority.issue(&["one.test", "two.test", "*.wild.test", "other.test"]);
    let manifests = secret("cert", &issued)
        + r"
- kind: Gateway
  metadata: {name: tls, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: any, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
    - {name: two, port: 443, protocol: HTTPS, hostname: two.test, tls: {certificateRefs: [{name: cert}]}}
    - {name: wild, port: 443, protocol: HTTPS, hostname: '*.wild.test', tls: {certificateRefs: [{name: cert}]}}
- kind: HTTPRoute
  metadata: {name: one, namespace: infra}
  spec: {parentRefs: [{name: tls, sectionName: any}], hostnames: [one.test], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: two, namespace: infra}
  spec: {parentRefs: [{name: tls, sectionName: two}], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: wild, namespace: infra}
  spec: {parentRefs: [{name: tls, sectionName: wild}], rules: [{backendRefs: [{name: v3, port: 8080}]}]}
";
    let world = World::of(&manifests).await;
    let client = authority.client(None);
    let mut told = Vec::new();
    for (name, host) in [
        ("one.test", "one.test"),
        ("one.test", "two.test"),
        ("one.test", "other.test"),
        ("two.test", "two.test"),
        ("two.test", "one.test"),
        ("two.test", "other.test"),
        ("a.wild.test", "a.wild.test"),
        ("a.wild.test", "b.wild.test"),
        ("other.test", "one.test"),
    ] {
        let answer = asked(&world, ("tls", 443), &client, name, host).await;
        let answer = answer.expect("an answer");
        let proto = answer.body["headers"]["x-forwarded-proto"].as_str();
        let (status, who) = (answer.status.as_u16(), answer.body["name"].as_str());
        told.push(format!("{name} {host} {status} {who:?} {proto:?}"));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    one.test one.test 200 Some("v1") Some("https")
    one.test two.test 421 None None
    one.test other.test 404 None None
    two.test two.test 200 Some("v2") Some("https")
    two.test one.test 421 None None
    two.test other.test 421 None None
    a.wild.test a.wild.test 200 Some("v3") Some("https")
    a.wild.test b.wild.test 200 Some("v3") Some("https")
    other.test one.test 200 Some("v1") Some("https")
    "#);
}

#[tokio::test]
async fn clients_prove_themselves_where_a_gateway_asks_for_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let issued = authority.issue(&["one.test"]);
    let manifests = secret("cert", &issued)
        + &bundle("ca", &authority)
        + r"
- kind: Gateway
  metadata: {name: tls, namespace: infra}
  spec:
    gatewayClassName: weft
    tls:
      frontend:
        default: {validation: {caCertificateRefs: [{kind: ConfigMap, name: ca}]}}
        perPort: [{port: 8443, tls: {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{kind: ConfigMap, name: ca}]}}}]
    listeners:
    - {name: strict, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
    - {name: lax, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
- kind: HTTPRoute
  metadata: {name: one, namespace: infra}
  spec: {parentRefs: [{name: tls}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
";
    let world = World::of(&manifests).await;
    let shown = [
        None,
        Some(authority.issue(&["me"])),
        Some(other.issue(&["me"])),
    ];
    let mut told = Vec::new();
    for port in [443, 8443] {
        for shown in &shown {
            let client = authority.client(shown.as_ref());
            let answer = asked(&world, ("tls", port), &client, "one.test", "one.test").await;
            told.push(answer.map(|answer| answer.status.as_u16()));
        }
    }
    let (yes, no) = (Some(200), None);
    assert_eq!(told, [no, yes, no, yes, yes, yes]);
}

/// Lets `serve` have the other end of a raw call.
pub(super) fn raw<F>(serve: impl Fn(DuplexStream) -> F + Send + Sync + 'static) -> OnRaw
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |request: Request<Body>| {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(serve(theirs));
        let (mut reader, mut writer) = tokio::io::split(ours);
        let mut sent = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = sent.frame().await {
                let Ok(bytes) = frame.into_data() else {
                    continue;
                };
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = writer.shutdown().await;
        });
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                let bytes = bytes::Bytes::copy_from_slice(&buffer[..count]);
                if sender.unbounded_send(bytes).is_err() {
                    return;
                }
            }
        });
        let frames = receiver.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
        Response::new(Body::new(StreamBody::new(frames)))
    })
}

/// A backend that serves HTTP over TLS and says how it was asked for.
fn tls_backend(authority: &Authority, issued: &Issued) -> OnRaw {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).expect("a root");
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.allow_unauthenticated().build().expect("roots"))
        .with_single_cert(vec![issued.der.clone()], issued.key.clone_key())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let (_, agreed) = stream.get_ref();
            let told = serde_json::json!({
                "name": agreed.server_name(), "shown": agreed.peer_certificates().is_some(),
            });
            let service = hyper::service::service_fn(move |_| {
                let told = told.to_string();
                let told = http_body_util::Full::new(bytes::Bytes::from(told));
                async move { Ok::<_, std::convert::Infallible>(Response::new(told)) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        }
    })
}

#[tokio::test]
async fn backends_prove_themselves_as_their_policy_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (issued, client) = (authority.issue(&["abc.test"]), authority.issue(&["me"]));
    let policy = |name: &str, ca: &str, host: &str, names: &str| {
        format!(
            r#"
- {{kind: Service, metadata: {{name: {name}, namespace: infra}}, spec: {{clusterIP: 10.43.1.1, ports: [{{name: btls, port: 443}}]}}}}
- kind: BackendTLSPolicy
  metadata: {{name: {name}, namespace: infra}}
  spec:
    targetRefs: [{{group: "", kind: Service, name: {name}, sectionName: btls}}]
    validation: {{caCertificateRefs: [{{group: "", kind: ConfigMap, name: {ca}}}], hostname: {host}, subjectAltNames: {names}}}
- kind: HTTPRoute
  metadata: {{name: {name}, namespace: infra}}
  spec: {{parentRefs: [{{name: show}}], hostnames: [{name}.test], rules: [{{backendRefs: [{{name: {name}, port: 443}}]}}]}}
"#
        )
    };
    let manifests = bundle("ca", &authority)
        + &bundle("other", &other)
        + &secret("me", &client)
        + r"
- kind: Gateway
  metadata: {name: show, namespace: infra}
  spec:
    gatewayClassName: weft
    tls: {backend: {clientCertificateRef: {name: me}}}
    listeners: [{name: http, port: 80, protocol: HTTP}]
" + &policy("good", "ca", "abc.test", "[]")
        + &policy("host", "ca", "def.test", "[]")
        + &policy("root", "other", "abc.test", "[]")
        + &policy("none", "gone", "abc.test", "[]")
        + &policy(
            "san",
            "ca",
            "def.test",
            "[{type: Hostname, hostname: abc.test}]",
        )
        + &policy(
            "uri",
            "ca",
            "abc.test",
            "[{type: URI, uri: 'spiffe://x/y'}]",
        );
    let on_raw = tls_backend(&authority, &issued);
    let world = World::with_raw(&manifests, Some(on_raw)).await;
    let mut told = Vec::new();
    for name in ["good", "host", "root", "none", "san", "uri"] {
        let answer = world.ask("show", 80, &format!("GET {name}.test/")).await;
        told.push(format!("{name} {} {}", answer.status.as_u16(), answer.body));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    good 200 {"name":"abc.test","shown":true}
    host 503 null
    root 503 null
    none 500 null
    san 200 {"name":"def.test","shown":true}
    uri 503 null
    "#);
}

#[tokio::test]
async fn a_connection_becomes_a_websocket_where_the_backend_agrees() {
    let backend = raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else {
                return;
            };
            head.push(byte);
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("sec-websocket-key: k"));
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\n";
        stream.write_all(agreed.as_bytes()).await.expect("room");
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.expect("bytes");
        stream.write_all(&said).await.expect("room");
        stream.shutdown().await.expect("it ends");
    });
    let route = r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec: {parentRefs: [{name: same}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
";
    let world = World::with_raw(route, Some(backend)).await;
    let mut stream = tokio::net::TcpStream::connect(world.place("same", 80))
        .await
        .expect("a connection");
    let asked = "GET /ws HTTP/1.1\r\nhost: a.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.expect("room");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a byte"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: a"), "{head}");
    stream.write_all(b"ping").await.expect("room");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("bytes");
    assert_eq!(rest, b"ping");
}
