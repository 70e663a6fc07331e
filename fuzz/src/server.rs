//! Whole requests, into the API as it is served, on a store in a temporary folder: credentials, bodies through all of the write path,
//! continue tokens, and what a client sends on a WebSocket.
//!
//! Writes are dry runs as far as a query can say so. One input at a time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weft_apiserver::authn::{Authenticator, PeerAddress, PeerCertificates, StaticToken};
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::http::{
    AppState, proxy::NodeClient, registry::Registry, router, servers::Servers,
};
use weft_apiserver::objects::{self, Objects};
use weft_apiserver::request::RequestInfo;
use weft_store::Store;

use crate::seeds;

/// How long one answer may take. It is the machine that is slow before that.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    runtime: Runtime,
    router: Router,
    authenticator: Authenticator,
    _dir: TempDir,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let (router, authenticator) = runtime.block_on(made(&dir));
    Mutex::new(World {
        runtime,
        router,
        authenticator,
        _dir: dir,
    })
});

fn tokens() -> Vec<StaticToken> {
    let masters = vec!["system:masters".to_owned()];
    let nodes = vec!["system:nodes".to_owned()];
    vec![
        StaticToken::new("secret", "admin", None, masters),
        StaticToken::new("node", "system:node:a", None, nodes),
    ]
}

async fn made(dir: &TempDir) -> (Router, Authenticator) {
    let path = dir.path();
    let store = Store::open(weft_store::Config::new(path.join("store"))).await;
    let store = store.expect("a new store");
    let mut leadership = store.leadership();
    let led = leadership.wait_for(Option::is_some).await;
    drop(led.expect("one server leads itself"));
    let authority = Authority::open_or_create(&path.join("pki"), "cluster.local");
    let authority = authority.expect("an authority");
    let registry = Registry::open(&path.join("registry"), store.clone()).expect("a registry");
    let objects = Objects::new(
        store,
        objects::Config {
            authority: Some(authority.clone()),
            ..objects::Config::default()
        },
    );
    let system = Caller::system("apiserver", None);
    let namespaces = objects.ensure_permanent_namespaces(&system).await;
    namespaces.expect("the first namespaces");
    let state = AppState::new(
        objects.clone(),
        Authenticator::new(objects.clone(), tokens()),
        registry,
        NodeClient::new(&authority).expect("a client of nodes"),
        Servers {
            authority,
            cluster_id: "fuzz".to_owned(),
            server_id: 1,
            peer_address: None,
            key_file: path.join("none"),
            scratch_dir: path.to_owned(),
        },
        CancellationToken::new(),
    );
    let router = router(state);
    for manifest in seeds::MANIFESTS.iter() {
        let Some(byte) = seeds::byte_of(manifest) else {
            continue;
        };
        let kind = seeds::kind(byte);
        let prefix = if kind.group.is_empty() { "api" } else { "apis" };
        let place = if kind.namespaced {
            "namespaces/default/"
        } else {
            ""
        };
        let path = format!("/{prefix}/{}/{place}{}", kind.api_version(), kind.resource);
        let mut manifest = manifest.clone();
        if kind.namespaced {
            manifest["metadata"]["namespace"] = "default".into();
        }
        let request = Request::post(path).header(header::AUTHORIZATION, "Bearer secret");
        let request = request.body(Body::from(manifest.to_string()));
        // Some are not taken, because there is another; nothing depends on one of them.
        let _ = router.clone().oneshot(request.expect("a request")).await;
    }
    (router, Authenticator::new(objects, tokens()))
}

fn with<T>(run: impl AsyncFnOnce(&Router, &Authenticator) -> T) -> T {
    // An input that failed said so.
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = run(&world.router, &world.authenticator);
    world.runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.unwrap_or_else(|_| panic!("no answer in {PATIENCE:?}"))
    })
}

/// A header that says who asks.
pub fn credential(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    with(async |_, authenticator| {
        for name in [header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(name, value.clone());
            let none = PeerCertificates::none();
            let head = (&Method::GET, &Uri::from_static("/api"), &headers);
            if let Ok(caller) = authenticator.authenticate(head, &none).await {
                let known = ["admin", "system:node:a", "system:anonymous"];
                assert!(known.contains(&caller.user()), "{}", caller.user());
            }
        }
    });
}

pub fn credential_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "Bearer secret",
        "Basic dTpzZWNyZXQ=",
        "Bearer abcdef.0123456789abcdef",
        "base64url.bearer.authorization.k8s.io.c2VjcmV0, base64.binary.k8s.io",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6a3ViZS1zeXN0ZW06ZGVmYXVsdCJ9.",
        "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJhIiwiYXVkIjpbImIiXSwiZXhwIjo5OTk5OTk5OTk5fQ.AAAA",
    ])
}

/// A certificate that a handshake would have let through.
pub fn client_certificate(input: &[u8]) {
    let certificate = CertificateDer::from(input.to_vec());
    let peer = PeerCertificates(Arc::new([certificate]));
    with(async |_, authenticator| {
        let (uri, headers) = (Uri::from_static("/api"), HeaderMap::new());
        let head = (&Method::GET, &uri, &headers);
        let _ = authenticator.authenticate(head, &peer).await;
    });
}

pub fn client_certificate_seeds() -> Vec<Vec<u8>> {
    let made = [("a", "b"), ("", "system:masters")].map(|(name, group)| {
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
        Some(params.self_signed(&key).ok()?.der().to_vec())
    });
    made.into_iter().flatten().collect()
}

/// A request: a line with method and path, lines with headers, an empty line, a body.
pub fn request(input: &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &b""[..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let (method, path) = lines
        .next()
        .unwrap_or_default()
        .split_once(' ')
        .unwrap_or_default();
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), path.parse::<Uri>()) else {
        return;
    };
    let mut target = path.to_owned();
    if !method.is_safe() {
        target.push(if uri.query().is_some() { '&' } else { '?' });
        target.push_str("dryRun=All");
    }
    let info = RequestInfo::of(&weft_kinds::Registry::builtin(), &method, &uri);
    let mut request = Request::builder()
        .method(&method)
        .uri(target)
        .header(header::AUTHORIZATION, "Bearer secret");
    let mut applies = false;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        applies |= value.contains("apply-patch");
        request = request.header(name, value);
    }
    let Ok(mut request) = request.body(Body::from(body.to_vec())) else {
        return;
    };
    let here = PeerAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    request.extensions_mut().insert(here);
    let told = with(async |router, _| {
        let answered = router.clone().oneshot(request).await;
        let (parts, body) = answered.unwrap_or_else(|never| match never {}).into_parts();
        // What goes on for long has begun to be answered.
        if !info.long_running() {
            let _ = body.collect().await;
        }
        parts.status.as_u16()
    });
    // What does not fit a schema is 500 where it is applied, in Kubernetes' words.
    assert!(told != 500 || applies, "{method} {path}: {told}");
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let mut found = seeds::texts(&[
        "GET /api/v1/namespaces/default/pods?limit=1\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io",
        "GET /api/v1/configmaps?limit=1&continue=eyJydiI6LTEsInN0YXJ0IjoiL2NvcmUvY29uZmlnbWFwcy9kZWZhdWx0L2EifQ",
        "GET /api/v1/pods?labelSelector=app%20in%20(web)&fieldSelector=spec.nodeName%3Da&resourceVersion=1&resourceVersionMatch=Exact",
        "GET /apis\nAccept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "GET /openapi/v3/apis/apps/v1\nIf-None-Match: \"x\"",
        "GET /api/v1/namespaces/default/pods?watch=1&timeoutSeconds=-1&allowWatchBookmarks=true",
        "PATCH /api/v1/namespaces/default/configmaps/full\nContent-Type: application/json-patch+json\n\n[{\"op\":\"add\",\"path\":\"/data/x\",\"value\":\"y\"}]",
        "PATCH /api/v1/namespaces/default/pods/full\nContent-Type: application/strategic-merge-patch+json\n\n{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}",
        "PATCH /apis/apps/v1/namespaces/default/deployments/full/scale\nContent-Type: application/merge-patch+json\n\n{\"spec\":{\"replicas\":3}}",
        "PATCH /api/v1/namespaces/default/configmaps/a?fieldManager=m&force=true\nContent-Type: application/apply-patch+yaml\n\n{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"v\"}}",
        "POST /api/v1/namespaces/default/pods/full/eviction\n\n{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{\"name\":\"full\"}}",
        "POST /api/v1/namespaces/default/bindings\n\n{\"metadata\":{\"name\":\"full\"},\"target\":{\"kind\":\"Node\",\"name\":\"a\"}}",
        "POST /apis/authorization.k8s.io/v1/subjectaccessreviews\n\n{\"spec\":{\"user\":\"jo\",\"groups\":[\"a\"],\"resourceAttributes\":{\"verb\":\"get\",\"resource\":\"pods\"}}}",
        "POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{\"spec\":{\"token\":\"x\",\"audiences\":[\"a\"]}}",
        "POST /api/v1/namespaces/default/serviceaccounts/default/token\n\n{\"spec\":{\"audiences\":[\"a\"],\"expirationSeconds\":600}}",
        "DELETE /api/v1/namespaces/default/configmaps?labelSelector=a\n\n{\"gracePeriodSeconds\":0,\"propagationPolicy\":\"Orphan\",\"preconditions\":{\"uid\":\"u\"}}",
        "GET /weft/v1/servers",
        "GET /v2/a/manifests/b\nRange: bytes=0-",
    ]);
    // A create and a replacement of every kind.
    for manifest in seeds::MANIFESTS.iter() {
        let Some(byte) = seeds::byte_of(manifest) else {
            continue;
        };
        let kind = seeds::kind(byte);
        let prefix = if kind.group.is_empty() { "api" } else { "apis" };
        let place = if kind.namespaced {
            "namespaces/default/"
        } else {
            ""
        };
        let path = format!("/{prefix}/{}/{place}{}", kind.api_version(), kind.resource);
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        for line in [format!("POST {path}"), format!("PUT {path}/{name}")] {
            found.push(format!("{line}\n\n{manifest}").into_bytes());
        }
    }
    found
}

/// What a client sends after a WebSocket was opened.
pub fn websocket(input: &[u8]) {
    let path = "/api/v1/namespaces/default/configmaps?watch=1";
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    with(async |router, _| {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades();
        let connection = tokio::spawn(connection);
        let _ = client.write_all(head.as_bytes()).await;
        let mut told = Vec::new();
        while !told.ends_with(b"\r\n\r\n") {
            let byte = client.read_u8().await;
            told.push(byte.unwrap_or_else(|error| panic!("it was not opened: {error}")));
        }
        assert!(told.starts_with(b"HTTP/1.1 101"), "it was not opened");
        let _ = client.write_all(input).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut told).await;
        let ended = connection.await;
        assert!(ended.is_ok(), "{ended:?}");
    });
}

pub fn websocket_seeds() -> Vec<Vec<u8>> {
    vec![
        // A text, a ping, a closing message, each masked with nothing; and one in two pieces.
        b"\x81\x85\0\0\0\0hello".to_vec(),
        b"\x89\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe8".to_vec(),
        b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b".to_vec(),
        b"\x82\xfe\x10\x01\0\0\0\0".to_vec(),
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
        json!({"stdin": "x"}).to_string().into_bytes(),
    ]
}
