//! A corpus of raw bytes against the two ways in: the gateway (HTTP/1.1 and HTTP/2 in the clear) and the listener for other nodes
//! (HTTP/2 over mutual TLS). What no library would send, sent by hand; what comes back is read by hand as well.
//!
//! Each table is a story: what was sent, and what came of it. After each, the way in still serves others.

mod h1;
mod h2;
mod inbound;
#[path = "../two_nodes/world.rs"]
#[expect(dead_code, reason = "of the world of the other tests, some")]
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use weft_mesh::{Body, CancellationToken, Failure, GatewayConfig, Mesh, OpenServices, Table};

use world::{DOMAIN, endpoint, listen, pod, service, workload};

/// Longest time for an answer on a machine that is busy; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with what it was shown: request line, headers in order, the length of the body. `?status=` chooses the status.
async fn mirror(request: Request<Body>) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => format!("{} bytes", body.to_bytes().len()),
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

/// A gateway before one service, `mirror.vote.localhost`, on this node.
struct Gateway {
    mesh: Mesh,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Gateway {
    fn start() -> Self {
        let mesh = Mesh::builder("a", DOMAIN)
            .gateway(GatewayConfig {
                open_services: OpenServices::ToThisMachine,
                ..GatewayConfig::default()
            })
            .build();
        mesh.attach(pod(1), workload("mirror", mirror));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mirror = service("mirror", vec![endpoint("mirror", 1, "a", nowhere)]);
        mesh.publish(Table::builder("a", 1).service(mirror).build());
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let (serving, stopping) = (mesh.clone(), stop.clone());
        tokio::spawn(async move { serving.serve_gateway(listener, stopping).await });
        Self {
            mesh,
            address,
            stop,
        }
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
