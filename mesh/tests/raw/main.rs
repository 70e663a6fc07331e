//! A corpus of raw bytes against the two ways in: the gateway (HTTP/1.1 and HTTP/2, in the clear and over TLS, WebSocket and gRPC) and the
//! listener for other nodes (HTTP/2 over mutual TLS). What no library would send, sent by hand; what comes back is read by hand as well.
//!
//! Each table is a story: what was sent, and what came of it. After each, the way in still serves others. Tables of HTTP are tried in the
//! clear and over TLS.

mod grpc;
mod h1;
mod h2;
mod inbound;
mod tls;
mod tunnels;
mod websocket;
#[path = "../two_nodes/world.rs"]
#[expect(dead_code, reason = "of the world of the other tests, some")]
mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use weft_mesh::{Body, CancellationToken, Failure, GatewayConfig, Mesh, OpenServices, Table};

use world::{DOMAIN, endpoint, listen, pod, service, workload};

/// Longest time for an answer on a machine that is busy; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with what it was shown: request line, headers in order, the length of the body, lines after it. `?status=` chooses the status.
async fn mirror(request: Request<Body>) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => {
            let after = body.trailers().filter(|lines| !lines.is_empty());
            let after = after.map(|lines| {
                let names: BTreeSet<&str> = lines.keys().map(http::HeaderName::as_str).collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                format!(", then {names}")
            });
            let bytes = body.to_bytes().len();
            format!("{bytes} bytes{}", after.unwrap_or_default())
        }
        Err(_) => "a body that broke off".to_owned(),
    };
    let names: BTreeSet<&str> = head.headers.keys().map(http::HeaderName::as_str).collect();
    let lines: Vec<String> = names
        .into_iter()
        .filter(|name| {
            !matches!(
                *name,
                "traceparent" | "x-forwarded-for" | "x-forwarded-proto"
            )
        })
        .map(|name| {
            let values = head.headers.get_all(name).iter();
            let values: Vec<_> = values
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            format!("{name}={}", values.join("|"))
        })
        .collect();
    let text = format!("{} {} [{}] {body}", head.method, head.uri, lines.join(", "));
    let status = head
        .uri
        .query()
        .and_then(|query| query.strip_prefix("status="))
        .and_then(|status| status.parse::<u16>().ok())
        .unwrap_or(200);
    let response = Response::builder().status(status).body(Body::full(text));
    Ok(response.expect("a response"))
}

/// Whom requests are for.
const HOST: &str = "mirror.vote.localhost";
/// Where a Gateway has listeners, as far as its routes go.
const PLAIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 80);
const TLS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 443);

/// A gateway before one service, [`HOST`], on this node: at the node's port, and at listeners of a Gateway's own.
struct Gateway {
    mesh: Mesh,
    /// The node's port.
    address: SocketAddr,
    plain: SocketAddr,
    tls: SocketAddr,
    certificate: tls::Certificate,
    heard: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Gateway {
    /// Before the mirror; what that answered is heard.
    fn start() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        let mut gateway = Self::before(move |request| {
            let hearing = Arc::clone(&hearing);
            async move {
                let response = mirror(request).await?;
                let (head, body) = response.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let told = String::from_utf8_lossy(&body).into_owned();
                hearing.lock().push(told);
                Ok(Response::from_parts(head, Body::full(body)))
            }
        });
        gateway.heard = heard;
        gateway
    }

    fn before<F>(answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
    {
        let mesh = Mesh::builder("a", DOMAIN)
            .gateway(GatewayConfig {
                open_services: OpenServices::ToThisMachine,
                ..GatewayConfig::default()
            })
            .build();
        mesh.attach(pod(1), workload("mirror", answer));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mirror = service("mirror", vec![endpoint("mirror", 1, "a", nowhere)]);
        let certificate = tls::Certificate::new();
        let table = Table::builder("a", 1).service(mirror);
        mesh.publish(table.routes(&certificate.served(PLAIN, TLS)).build());
        let stop = CancellationToken::new();
        let (listener, address) = listen();
        let (serving, stopping) = (mesh.clone(), stop.clone());
        tokio::spawn(async move { serving.serve_gateway(listener, stopping).await });
        let [plain, tls] = [PLAIN, TLS].map(|place| {
            let (listener, address) = listen();
            let (serving, stopping) = (mesh.clone(), stop.clone());
            tokio::spawn(async move { serving.serve_place(place, listener, stopping).await });
            address
        });
        Self {
            mesh,
            address,
            plain,
            tls,
            certificate,
            heard: Arc::default(),
            stop,
        }
    }

    /// What the mirror answered since this was asked last.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock())
    }

    /// Whether it still answers a request like any other, and holds nothing against the workload.
    async fn serves(&self) {
        let said = h1::exchange(
            self.address,
            b"GET /ok HTTP/1.1\r\nHost: mirror.vote.localhost\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(said.starts_with("200 GET "), "{said}");
        assert_eq!(world::gauge(&self.mesh, "weft_mesh_endpoints_ejected"), 0);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
