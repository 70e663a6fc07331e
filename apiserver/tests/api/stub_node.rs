//! A node as servers meet it: TLS of the cluster's authority, sessions that are what their command says, and ports that give back what they are given.
//!
//! | command | does |
//! | --- | --- |
//! | `cat` | says what it is told, to the end of it |
//! | `greet` | says `out` and `err`, and ends with code 7 |
//! | `size` | says the first size of the terminal that it is told |
//! | `yes` | says a kilobyte again and again |
//! | `die` | says `half` and is gone |
//! | `hang` | says nothing, not even that it is there |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use weft_apiserver::ca::Authority;
use weft_call::stream_frame::{self, Channel, Frame};

use crate::world::*;

/// The node `a`.
pub struct StubNode {
    /// Paths and queries that it was asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Chunks that `yes` has got rid of.
    pub chunks: Arc<AtomicUsize>,
    /// Sessions and ports that are open.
    pub open: Arc<AtomicUsize>,
    address: SocketAddr,
}

impl StubNode {
    /// Starts it, and makes its Node and the pod `p` on it, with containers `c` and `d`.
    pub async fn start(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self {
            asked: Arc::default(),
            chunks: Arc::default(),
            open: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(world)));
        let (asked, chunks, open) = (node.asked.clone(), node.chunks.clone(), node.open.clone());
        let edges: Arc<AtomicUsize> = Arc::default();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                let (asked, chunks, open) = (asked.clone(), chunks.clone(), open.clone());
                let edges = edges.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request| {
                        asked.lock().push(request_target(&request));
                        let answer = answer(request, chunks.clone(), edges.clone(), open.clone());
                        async move { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    let _ = serving.with_upgrades().await;
                });
            }
        });
        node.register(world).await;
        node
    }

    async fn register(&self, world: &World) {
        let body = json!({"metadata": {"name": "a"}});
        assert_eq!(world.ask("POST /api/v1/nodes", body).await.status, 201);
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": self.address.ip().to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.address.port()}},
        }});
        let told = world
            .patch("/api/v1/nodes/a/status", "merge-patch", status)
            .await;
        assert_eq!(told.status, 200, "{}", told.line());
        for (name, containers) in [("p", &["c"][..]), ("two", &["c", "d"])] {
            let containers = containers.iter();
            let containers: Vec<_> = containers
                .map(|name| json!({"name": name, "image": "vote/web:1"}))
                .collect();
            let body = json!({
                "metadata": {"name": name}, "spec": {"nodeName": "a", "containers": containers},
            });
            let made = world.ask(&format!("POST {PODS}"), body).await;
            assert_eq!(made.status, 201, "{}", made.line());
        }
        let made = world.ask(&format!("POST {PODS}"), pod("waiting")).await;
        assert_eq!(made.status, 201, "{}", made.line());
    }

    /// Waits until nothing is open any more.
    pub async fn is_left(&self) {
        let left = async {
            while self.open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let left = tokio::time::timeout(Duration::from_secs(20), left).await;
        left.expect("the node is let go of");
    }
}

fn request_target(request: &Request<Incoming>) -> String {
    request.uri().to_string()
}

/// A certificate of node `a` that the cluster's authority has signed.
fn tls(world: &World) -> rustls::ServerConfig {
    let authority =
        Authority::open_or_create(&world.dir.path().join("pki"), "cluster.local").unwrap();
    let authority = authority.credentials().unwrap();
    let issuer = rcgen::KeyPair::from_pem(&authority.key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&authority.certificate_pem, issuer).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let name = &mut params.distinguished_name;
    name.push(rcgen::DnType::CommonName, "system:node:a");
    name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

/// Calls of two edges, more each time that it is asked.
fn edges(asked: u64) -> serde_json::Value {
    let end =
        |namespace: &str, workload: &str| json!({"namespace": namespace, "workload": workload});
    let edge = |source, destination, calls: u64, failed: u64| {
        json!({
            "edge": {
                "source": source, "destination": destination, "serviceNamespace": "bank", "service": "pay",
                "protocol": "http", "security": "in_process",
            },
            "figures": {
                "outcomes": {"200": calls, "503/UO": failed}, "requestBytes": 0, "responseBytes": 10 * calls,
                "durationMicros": 85 * calls, "durations": {"10": calls + failed},
            },
        })
    };
    json!({
        "since": 7,
        "edges": [
            edge(end("shop", "web"), end("bank", "pay"), 1000 + 30 * asked, 10 * asked),
            edge(end("bank", "job"), end("bank", "pay"), 5 * asked, 0),
        ],
        "services": [{
            "namespace": "bank", "name": "pay", "breaker": {"ejected": 1, "endpoints": 3}, "retries": {"attempts": 2},
        }],
    })
}

/// Counts what is open.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(
    mut request: Request<Incoming>,
    chunks: Arc<AtomicUsize>,
    counted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.ends_with("/81") {
        let told = json!({"kind": "Status", "message": "connection refused", "code": 503});
        let mut response = Response::new(Full::from(told.to_string()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    if path == "/stats/calls" {
        let asked = chunks.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        return Response::new(Full::from(calls(asked).to_string()));
    }
    if path == "/stats/edges" {
        let asked = counted.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        return Response::new(Full::from(edges(asked).to_string()));
    }
    if path == "/stats/summary" {
        let asked = chunks.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        return Response::new(Full::from(summary(asked).to_string()));
    }
    if path == "/spans" {
        return Response::new(Full::from(match query.contains("watch=true") {
            true => "{\"traceID\":\"t1\",\"failed\":true,\"slow\":false}\n".to_owned(),
            false => spans().to_string(),
        }));
    }
    if path == "/tap" {
        return match query.contains("code=x") {
            true => {
                let told =
                    json!({"kind": "Status", "message": "code must be like 404", "code": 400});
                let mut response = Response::new(Full::from(told.to_string()));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
            false => Response::new(Full::from("{\"path\":\"/a\"}\n{\"lost\":3}\n{\"cut o")),
        };
    }
    if path.starts_with("/containerLogs/") {
        return Response::new(Full::from("one\ntwo\n"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    open.fetch_add(1, Ordering::SeqCst);
    let count = Count(open);
    tokio::spawn(async move {
        let _count = count;
        let Ok(io) = upgrade.await else { return };
        let io = TokioIo::new(io);
        if path.starts_with("/portForward/") {
            let (mut reader, mut writer) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.write_all(b"!").await;
            let _ = writer.shutdown().await;
        } else {
            session(io, &query, &chunks).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, "Upgrade".parse().unwrap());
    headers.insert(header::UPGRADE, stream_frame::PROTOCOL.parse().unwrap());
    response
}

/// What it has counted when it is asked for the so many-th time: a hundred calls more than before, to the pod `p` and Service `web`.
fn calls(asked: u64) -> serde_json::Value {
    let counted = json!({"since": 1, "begun": asked * 100, "busyMicros": asked * 100_000, "answers": {"1024": asked * 100}});
    json!({
        "time": jiff::Timestamp::now().to_string(),
        "pods": [{"namespace": "default", "name": "p", "uid": "u", "calls": counted}],
        "services": [{"namespace": "default", "name": "web", "calls": counted}],
    })
}

/// What it and its pod have used when it is asked for the so many-th time.
fn summary(asked: u64) -> serde_json::Value {
    let now = jiff::Timestamp::now().to_string();
    let used = json!({
        "cpu": {"time": now, "usageCoreNanoSeconds": asked * 1_000_000}, "memory": {"time": now, "workingSetBytes": 1024 * asked},
    });
    let mut container = used.clone();
    container["name"] = json!("c");
    container["userDefinedMetrics"] =
        json!([{"name": "instances", "type": "gauge", "units": "", "time": now, "value": 4}]);
    let pod = json!({"name": "p", "namespace": "default", "uid": "u"});
    json!({"node": used, "pods": [{"podRef": pod, "containers": [container]}]})
}

/// A call from the namespace shop to bank that failed, as it was seen at both ends.
fn spans() -> serde_json::Value {
    let span = |kind: &str, id: &str, parent: &str, namespace: &str, name: &str| {
        json!({
            "traceID": "t1", "spanID": id, "parentID": parent, "kind": kind, "node": "a", "failed": true,
            "workload": {"namespace": namespace, "name": name}, "began": "2026-01-02T03:04:05.000001Z", "durationMicros": 5,
        })
    };
    json!([
        span("client", "1", "", "shop", "web"),
        span("server", "2", "1", "bank", "pay")
    ])
}

async fn say(writer: &mut (impl AsyncWrite + Unpin), frame: Frame) -> bool {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok()
}

async fn session(io: impl AsyncRead + AsyncWrite, query: &str, chunks: &AtomicUsize) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut read = BytesMut::new();
    let mut next = async || loop {
        if let Some(frame) = stream_frame::decode(&mut read).unwrap() {
            return Some(frame);
        }
        if !matches!(reader.read_buf(&mut read).await, Ok(1..)) {
            return None;
        }
    };
    let success = json!({"metadata": {}, "status": "Success"});
    let command = query.strip_prefix("command=").unwrap_or("cat");
    let command = command.split('&').next().unwrap_or_default();
    let status = match command {
        "cat" => {
            loop {
                match next().await {
                    None => return,
                    Some(frame) if frame.channel == Channel::Stdin => {
                        say(&mut writer, Frame::new(Channel::Stdout, frame.payload)).await;
                    }
                    Some(frame) if frame.closes() == Some(Channel::Stdin) => break,
                    Some(_) => {}
                }
            }
            success
        }
        "greet" => {
            say(&mut writer, Frame::new(Channel::Stdout, "out")).await;
            say(&mut writer, Frame::new(Channel::Stderr, "err")).await;
            json!({
                "metadata": {}, "status": "Failure", "message": "it ended with code 7", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
            })
        }
        "size" => {
            while let Some(frame) = next().await {
                if frame.channel == Channel::Resize {
                    say(&mut writer, Frame::new(Channel::Stdout, frame.payload)).await;
                    break;
                }
            }
            success
        }
        "yes" => loop {
            let frame = Frame::new(Channel::Stdout, vec![b'y'; 1 << 10]);
            if !say(&mut writer, frame).await {
                return;
            }
            chunks.fetch_add(1, Ordering::SeqCst);
        },
        "die" => {
            say(&mut writer, Frame::new(Channel::Stdout, "half")).await;
            return;
        }
        _ => return std::future::pending().await,
    };
    say(&mut writer, Frame::new(Channel::End, status.to_string())).await;
    let _ = writer.shutdown().await;
    while next().await.is_some() {}
}
