//! What comes to the mesh over wires: bytes of clients at the gateway, and what other nodes write into their calls.
//!
//! Whatever comes, what reaches a workload is a request as the rules understood it, from whom it is proven to be, and the next one is served. One
//! input at a time.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use weft_api::identity::SpiffeId;
use weft_api::view::ObjectMeta;
use weft_call::{CallContext, Failure};
use weft_gateway::{Object, api, compile};
use weft_mesh::{Body, LocalWorkload, Mesh, PodAddress, Raw, Table, WorkloadService, server_name};

use crate::traffic::{DOMAIN, named, request, service, with_routes, wrong};

/// How long one answer may take. It is the machine that is slow before that.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who says nothing for so long has nothing to say to what came: whoever is called answers at once.
const QUIET: Duration = Duration::from_millis(3);
/// Of the node, as ALPN has it.
const PROTOCOL: &[u8] = b"weft-h2/1";

struct World {
    runtime: Runtime,
    gateway: SocketAddr,
    node: SocketAddr,
    /// Of who calls from another node.
    client: Arc<ClientConfig>,
    /// The connection of another node, as long as it lasts.
    calling: Option<SendRequest<Body>>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mesh = Mesh::builder("a", DOMAIN).build();
    let authority = Authority::new();
    let mut services = Vec::new();
    for (name, last) in [("one", 1), ("two", 2), ("closed", 3)] {
        services.push(service(name, last));
        let identity = account(name);
        let (chain, key) = authority.issue(&identity);
        let set = mesh.identities().set(identity.clone(), chain, key);
        set.expect("a certificate of its key");
        let answer = move |request| answered(name, request);
        let workload = LocalWorkload {
            identity,
            workload: named(name),
            service: WorkloadService::new(tower::service_fn(answer)),
            in_flight_max: 100,
        };
        let address = PodAddress {
            ip: [10, 42, 0, last].into(),
            port: 8080,
        };
        mesh.attach(address, workload);
    }
    let roots = mesh
        .identities()
        .set_roots(std::slice::from_ref(&authority.root));
    roots.expect("a root");
    let builder = Table::builder("a", 1).services(services);
    mesh.publish(builder.routes(&compile(&published()).served).build());
    let (gateway, node) = (listen(), listen());
    let stop = CancellationToken::new();
    let addresses = (address_of(&gateway), address_of(&node));
    let (on_gateway, on_node) = (mesh.clone(), mesh);
    let (stop_gateway, stop_node) = (stop.clone(), stop);
    runtime.spawn(async move { on_gateway.serve_gateway(gateway, stop_gateway).await });
    runtime.spawn(async move { on_node.serve_inbound(node, stop_node).await });
    Mutex::new(World {
        runtime,
        gateway: addresses.0,
        node: addresses.1,
        client: authority.client(&account("caller")),
        calling: None,
    })
});

/// What was wrong with a request that reached a workload.
static WRONG: Mutex<Option<String>> = Mutex::new(None);

fn account(name: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, "vote", name)
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

fn address_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("its address")
}

/// A Gateway with the routes at it.
fn published() -> weft_gateway::Objects {
    let mut objects = with_routes(json!({"name": "public"}));
    let metadata = |namespace: &str, name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let class = json!({"controllerName": api::CONTROLLER_NAME});
    let class = api::Object::read(&metadata("", "weft"), &class);
    objects.apply(Object::GatewayClass(class.expect("a class")));
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let gateway = json!({"gatewayClassName": "weft", "listeners": [listener]});
    let gateway = api::Object::read(&metadata("vote", "public"), &gateway);
    objects.apply(Object::Gateway(Box::new(gateway.expect("a gateway"))));
    objects
}

async fn answered(name: &'static str, request: Request<Body>) -> Result<Response<Body>, Failure> {
    if request.extensions().get::<Raw>().is_some() {
        // No HTTP: nobody is there who speaks it.
        return Ok(Response::new(Body::empty()));
    }
    let context = request.extensions().get::<CallContext>();
    let peer = context.and_then(|context| context.peer.clone());
    let who = peer.map(|peer| peer.spiffe_id.to_string());
    let is_wrong = match who.as_deref() {
        // Rules are the gateway's. A node says itself which pod it calls.
        Some(who) if who == account("caller").to_string() => {
            let mut lines = request.headers().keys();
            let line = lines.find(|line| line.as_str().starts_with("x-weft-"));
            line.map(|line| format!("the line {line}"))
        }
        Some(who) if who.ends_with("/ns/weft-system/sa/gateway") => {
            wrong(name, &request).or_else(|| claimed(&request))
        }
        who => Some(format!("it is from {who:?}")),
    };
    if let Some(is_wrong) = is_wrong {
        let mut known = WRONG.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(is_wrong);
    }
    // It may break off.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Body::full("served")))
}

/// What is wrong with where a client's request says that it came from.
fn claimed(request: &Request<Body>) -> Option<String> {
    for (name, expected) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-client-cert", None),
        ("x-real-ip", None),
        ("forwarded", None),
    ] {
        let said = request.headers().get_all(name).iter();
        let said: Vec<&[u8]> = said.map(HeaderValue::as_bytes).collect();
        let expected: Vec<&[u8]> = expected.map(str::as_bytes).into_iter().collect();
        if said != expected {
            return Some(format!("{name} is {said:?}"));
        }
    }
    let authority = request.uri().authority()?;
    let is_plain = |byte: u8| !byte.is_ascii_uppercase() && byte != b'@' && byte != b'%';
    (!authority.as_str().bytes().all(is_plain)).then(|| format!("the host {authority}"))
}

fn judge() {
    let wrong = WRONG.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert!(wrong.is_none(), "{wrong:?}");
}

/// Says bytes, and reads what comes until nothing more does or the gateway ends it; then says that this was all, and reads to the end.
async fn said(gateway: SocketAddr, bytes: &[u8], quiet: Duration) -> Vec<u8> {
    let talk = async {
        let mut stream = TcpStream::connect(gateway).await.expect("a connection");
        // It may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut heard = Vec::new();
        while let Ok(Ok(1..)) = tokio::time::timeout(quiet, stream.read_buf(&mut heard)).await {}
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    let heard = tokio::time::timeout(PATIENCE * 2, talk).await;
    heard.expect("an end")
}

/// Bytes of a client at the gateway.
pub fn client_bytes(input: &[u8]) {
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    world.runtime.block_on(async {
        said(world.gateway, input, QUIET).await;
        let next = b"GET / HTTP/1.1\r\nHost: one\r\nConnection: close\r\n\r\n";
        let heard = said(world.gateway, next, PATIENCE).await;
        let is_served = heard.starts_with(b"HTTP/1.1 200 ") && heard.ends_with(b"served");
        assert!(is_served, "{}", String::from_utf8_lossy(&heard));
    });
    judge();
}

pub fn client_bytes_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "GET /two/x?a=b HTTP/1.1\nHost: one\nversion: two\n\n",
        "POST /closed HTTP/1.1\nHost: ONE:80\nContent-Length: 5\n\nhelloGET /two HTTP/1.1\nHost: one\n\n",
        "POST / HTTP/1.1\nHost: one\nTransfer-Encoding: chunked\nTrailer: x-weft-source\n\n5;a=b\nhello\n0\nx-weft-source: admin\n\n",
        "GET http://one/a/../closed HTTP/1.1\nHost: two\nConnection: close, version\nversion: two\n\n",
        "GET /ws HTTP/1.1\nHost: one\nConnection: upgrade\nUpgrade: websocket\nSec-WebSocket-Key: k\n\nGET /closed HTTP/1.1\n\n",
        "CONNECT one:80 HTTP/1.1\nHost: one\n\nGET /closed HTTP/1.1\nHost: one\n\n",
        "HEAD /%2e%2e/closed HTTP/1.0\nHost: one\nX-Forwarded-For: 10.0.0.1\nForwarded: for=1.2.3.4\nx-weft-source: admin\n\n",
        "POST / HTTP/1.1\nHost: one\nContent-Length: 4\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n0\n\n",
        "OPTIONS * HTTP/1.1\nHost: one\n\n",
    ];
    let mut seeds: Vec<Vec<u8>> = seeds
        .map(|seed| seed.replace('\n', "\r\n").into_bytes())
        .to_vec();
    // HTTP/2: settings, then `GET /` of `one` in literals, then data nobody asked for.
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let block = b"\x82\x86\x84\x41\x03one\0\x07version\x03two";
    preface.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    preface.extend(block);
    preface.extend(b"\0\0\x05\0\x01\0\0\0\x01hello");
    seeds.push(preface);
    seeds
}

/// What another node writes into a call: `METHOD path`, then a line of a header each.
pub fn node_lines(input: &[u8]) {
    let Some(mut call) = request(input) else {
        return;
    };
    if *call.method() == http::Method::CONNECT {
        return;
    }
    let here = HeaderValue::from_static("10.42.0.1:8080");
    let lines = call.headers_mut();
    lines.entry("x-weft-destination").or_insert(here.clone());
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let World {
        runtime,
        node,
        client,
        calling,
        ..
    } = &mut *world;
    runtime.block_on(async {
        let mut sender = match calling.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => connected(*node, client).await,
        };
        // Whatever is answered, or that it is refused.
        let _ = called(&mut sender, call).await;
        let next = Request::get("http://one/").header("x-weft-destination", here);
        let next = next.body(Body::empty()).expect("a request");
        // The node may have had enough of this connection.
        if sender.is_closed() {
            sender = connected(*node, client).await;
        }
        let (status, body) = called(&mut sender, next).await.expect("an answer");
        assert_eq!((status, &body[..]), (200, &b"served"[..]));
        *calling = Some(sender);
    });
    judge();
}

pub fn node_lines_seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 8] = [
        b"GET /\nx-weft-service:one.vote\nx-weft-source:caller;app;1;web;latest\nx-weft-depth:3\nx-weft-attempt:1\nx-weft-timeout-ms:5000",
        b"GET /\nx-weft-destination:10.42.0.2:8080\ntraceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"GET /\nx-weft-destination:[fd00::1]:8080\nx-weft-depth:99999999999999999999",
        b"POST /\nx-weft-raw:1",
        b"POST /\nx-weft-raw:udp 53 192.0.2.1:4000",
        b"POST /\nx-weft-raw:udp 0 [::1]:0\nx-weft-speaks-h2:1",
        b"GET /\nx-weft-error:trap\nx-weft-blame:policy\nx-weft-worked-ns:-1\nte:trailers",
        b"GET /closed\nx-weft-timeout-ms:0\nx-weft-service:\nx-weft-source:;;;;;;;",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

async fn connected(node: SocketAddr, client: &Arc<ClientConfig>) -> SendRequest<Body> {
    let tcp = TcpStream::connect(node).await.expect("a connection");
    let name = server_name(&account("one")).expect("a name");
    let tls = TlsConnector::from(Arc::clone(client)).connect(name, tcp);
    let tls = tls.await.expect("a handshake");
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let shaken = builder.handshake(TokioIo::new(tls)).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    // It ends with its sender.
    tokio::spawn(connection);
    sender
}

async fn called(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> Result<(u16, Vec<u8>), hyper::Error> {
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body.to_vec()))
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.expect("an end")
}

/// Lines of a call's context and of a failure, read and written again.
pub fn call_lines(input: &[u8]) {
    let mut lines = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = http::HeaderName::from_bytes(line.get(..colon).unwrap_or_default());
        let value = HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            lines.append(name, value);
        }
    }
    let now = Instant::now();
    let context = CallContext::decode(&lines, None, now);
    let mut written = HeaderMap::new();
    context.encode(now, &mut written);
    assert_eq!(CallContext::decode(&written, None, now), context);
    let Some(failure) = Failure::decode(&lines) else {
        return;
    };
    let mut written = HeaderMap::new();
    failure.encode(&mut written);
    assert_eq!(Failure::decode(&written), Some(failure));
}

pub fn call_lines_seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 4] = [
        b"x-weft-timeout-ms:5000\nx-weft-depth:3\nx-weft-attempt:1",
        b"x-weft-timeout-ms:18446744073709551615\nx-weft-depth:4294967296",
        b"traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\ntracestate:a=1,b=2",
        b"x-weft-error:overloaded\nx-weft-blame:caller\nx-weft-processed:maybe\nx-weft-retry-after-ms:1500",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

/// Gives out the certificates of the cluster.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    fn issue(&self, identity: &SpiffeId) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let uri = identity.to_string().try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        (vec![certificate.der().clone()], key)
    }

    fn client(&self, identity: &SpiffeId) -> Arc<ClientConfig> {
        let (chain, key) = self.issue(identity);
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let mut config = builder
            .with_client_auth_cert(chain, key)
            .expect("a certificate of its key");
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Arc::new(config)
    }
}

/// Takes any server for the node: it is the node that is tried.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
