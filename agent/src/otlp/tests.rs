//! What a receiver gets of calls that go from a workload to a second and on to a third; how it is asked again; what is dropped.
//!
//! The receiver here reads the messages field by field; a real one has them in `tests/`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use weft_api::identity::SpiffeId;
use weft_mesh::{
    Body, CallContext, CallerInfo, EndpointSpec, LocalWorkload, PodAddress, ServicePortSpec,
    ServiceSpec, Table, WorkloadInfo, WorkloadService,
};

use super::*;

/// A receiver on this machine, which answers with the codes that it is given, and then takes all.
struct Stub {
    address: SocketAddr,
    got: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Stub {
    async fn start(codes: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let got: Arc<Mutex<Vec<_>>> = Arc::default();
        let codes = Arc::new(Mutex::new(codes.to_vec()));
        let kept = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, codes) = (Arc::clone(&kept), Arc::clone(&codes));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (kept, codes) = (Arc::clone(&kept), Arc::clone(&codes));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let mut codes = codes.lock().expect("no panic");
                        let code = if codes.is_empty() {
                            200
                        } else {
                            codes.remove(0)
                        };
                        if code == 200 {
                            let path = head.uri.path().to_owned();
                            kept.lock()
                                .expect("no panic")
                                .push((path, head.headers, body));
                        }
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
                        Ok::<_, Infallible>(response)
                    }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = serving.await;
                });
            }
        });
        Self { address, got }
    }

    fn config(&self, more: &[(&str, &str)]) -> Config {
        let endpoint = format!("http://{}", self.address);
        let find = |name: &str| {
            let given = more.iter().find(|(known, _)| *known == name);
            match (given, name) {
                (Some((_, value)), _) => Some((*value).to_owned()),
                (None, "OTEL_EXPORTER_OTLP_ENDPOINT") => Some(endpoint.clone()),
                (None, "OTEL_BSP_SCHEDULE_DELAY" | "OTEL_BLRP_SCHEDULE_DELAY") => {
                    Some("10".to_owned())
                }
                (None, "OTEL_METRIC_EXPORT_INTERVAL") => Some("600000".to_owned()),
                (None, _) => None,
            }
        };
        let config = Config::of(find, "node-1").expect("understood");
        config.expect("something to send")
    }

    fn of(&self, path: &str) -> Vec<Fields> {
        let got = self.got.lock().expect("no panic");
        let bodies = got.iter().filter(|(known, ..)| known == path);
        bodies.map(|(.., body)| Fields::of(body)).collect()
    }
}

/// A message as fields: their number and, of those with a length, their bytes; of others, the number that they are.
struct Fields(Vec<(u32, Vec<u8>, u64)>);

impl Fields {
    fn of(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let varint = |rest: &mut &[u8]| {
            let mut value = 0_u64;
            for shift in (0..64).step_by(7) {
                let byte = rest[0];
                *rest = &rest[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        };
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = varint(&mut rest);
            let number = (key >> 3) as u32;
            let (bytes, value) = match key & 7 {
                0 => (Vec::new(), varint(&mut rest)),
                form => {
                    let length = match form {
                        1 => 8,
                        2 => varint(&mut rest) as usize,
                        5 => 4,
                        other => panic!("form {other}"),
                    };
                    let (bytes, more) = rest.split_at(length);
                    rest = more;
                    let mut padded = [0; 8];
                    let short = bytes.len().min(8);
                    padded[..short].copy_from_slice(&bytes[..short]);
                    (bytes.to_vec(), u64::from_le_bytes(padded))
                }
            };
            fields.push((number, bytes, value));
        }
        Self(fields)
    }

    fn all(&self, number: u32) -> impl Iterator<Item = Fields> + '_ {
        let of = self.0.iter().filter(move |field| field.0 == number);
        of.map(|(_, bytes, _)| Fields::of(bytes))
    }

    fn bytes(&self, number: u32) -> Vec<u8> {
        let found = self.0.iter().find(|field| field.0 == number);
        found.map(|field| field.1.clone()).unwrap_or_default()
    }

    fn text(&self, number: u32) -> String {
        String::from_utf8(self.bytes(number)).expect("text")
    }

    fn number(&self, number: u32) -> u64 {
        let found = self.0.iter().find(|field| field.0 == number);
        found.map(|field| field.2).unwrap_or_default()
    }

    /// Attributes that are texts.
    fn attribute(&self, field: u32, name: &str) -> String {
        let found = self.all(field).find(|pair| pair.text(1) == name);
        found.map_or(String::new(), |pair| {
            pair.all(2).map(|any| any.text(1)).collect()
        })
    }
}

fn named(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        canonical_service: name.to_owned(),
        ..WorkloadInfo::default()
    }
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", name)
}

fn caller(name: &str) -> CallerInfo {
    CallerInfo {
        identity: account(name),
        workload: named(name),
    }
}

/// `web` calls `cart`, which calls `price`.
fn shop(sampling: weft_mesh::Sampling) -> Mesh {
    let mesh = Mesh::builder("node-1", "cluster.local")
        .sampling(sampling)
        .build();
    let mut services = Vec::new();
    for (number, name) in (1..).zip(["cart", "price"]) {
        let address = PodAddress {
            ip: [10, 42, 0, number].into(),
            port: 8080,
        };
        let onward = mesh.outbound(caller(name));
        let service = WorkloadService::from_fn(move |mut request: Request<Body>| {
            let onward = onward.clone();
            async move {
                let context = request.extensions_mut().remove::<CallContext>();
                if name == "cart" {
                    // Nothing is copied: the host knows in which call this one is made.
                    let mut more = Request::new(Body::empty());
                    *more.uri_mut() = "http://price/sum?secret=1".parse().expect("a URI");
                    more.extensions_mut().insert(context.expect("a context"));
                    onward.call(more).await?;
                }
                Ok(Response::new(Body::full("hello")))
            }
        });
        mesh.attach(
            address,
            LocalWorkload {
                identity: account(name),
                workload: named(name),
                service,
                in_flight_max: 100,
            },
        );
        services.push(ServiceSpec {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ports: vec![ServicePortSpec {
                port: 80,
                endpoints: vec![EndpointSpec {
                    pod: format!("{name}-1"),
                    ip: address.ip,
                    port: address.port,
                    node: "node-1".to_owned(),
                    node_address: None,
                    identity: account(name),
                    workload: named(name),
                    ready: true,
                    serving: true,
                    assigned: true,
                }],
                ..ServicePortSpec::default()
            }],
            ..ServiceSpec::default()
        });
    }
    mesh.publish(Table::builder("node-1", 1).services(services).build());
    mesh
}

async fn buy(mesh: &Mesh) {
    let request = Request::get("http://cart/items/7?token=s3cret")
        .header("authorization", "Bearer s3cret")
        .body(Body::empty());
    let answer = mesh
        .outbound(caller("web"))
        .call(request.expect("a request"));
    let answer = answer.await.expect("an answer");
    answer.into_body().collect().await.expect("a body");
}

/// Runs the exporter while `work` is done, and until it has sent the rest.
async fn exporting(config: Config, mesh: &Mesh, work: impl Future<Output = ()>) -> Arc<Counts> {
    let counts = Arc::<Counts>::default();
    let stop = CancellationToken::new();
    let running = run(config, mesh.clone(), Arc::clone(&counts), stop.clone());
    let working = async {
        // It begins to watch at its first step.
        tokio::task::yield_now().await;
        work.await;
        stop.cancel();
    };
    tokio::join!(running, working);
    counts
}

#[tokio::test]
async fn spans_of_a_chain_are_one_tree() {
    let stub = Stub::start(&[503]).await;
    let config = stub.config(&[
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k3y"),
    ]);
    let mesh = shop(config.sampling);
    let counts = exporting(config, &mesh, async {
        buy(&mesh).await;
        // A receiver that says 503 is asked again.
        while stub.of("/v1/traces").is_empty() || stub.of("/v1/logs").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let mut spans = Vec::new();
    for request in stub.of("/v1/traces") {
        for of_workload in request.all(1) {
            let resource = of_workload.all(1).next().expect("a resource");
            let service = resource.attribute(1, "service.name");
            assert_eq!(resource.attribute(1, "k8s.node.name"), "node-1");
            let scope = of_workload.all(2).next().expect("a scope");
            spans.extend(scope.all(2).map(|span| (service.clone(), span)));
        }
    }
    assert_eq!(spans.len(), 4);
    let traces: std::collections::BTreeSet<_> =
        spans.iter().map(|(_, span)| span.bytes(1)).collect();
    assert_eq!(traces.len(), 1, "of one trace");
    let mut tree = Vec::new();
    let mut above = Vec::new();
    for _ in 0..4 {
        let (service, span) = spans
            .iter()
            .find(|(_, span)| span.bytes(4) == above)
            .expect("a span below the one before");
        let kind = if span.number(6) == 2 {
            "server"
        } else {
            "client"
        };
        let path = span.attribute(9, "url.path");
        tree.push(format!("{service} {kind} {} {path}", span.text(5)));
        assert!(span.number(7) > 0 && span.number(8) >= span.number(7));
        assert_eq!(span.number(16), 1, "recorded");
        above = span.bytes(2);
    }
    insta::assert_snapshot!(tree.join("\n"), @r"
    web client GET cart.shop /items/7
    cart server GET cart.shop /items/7
    cart client GET price.shop /sum
    price server GET price.shop /sum
    ");
    assert_eq!(counts.spans.exported.load(Ordering::Relaxed), 4);
    assert_eq!(counts.records.exported.load(Ordering::Relaxed), 4);

    let metrics = stub.of("/v1/metrics");
    let metrics: Vec<String> = metrics
        .iter()
        .flat_map(|request| request.all(1).collect::<Vec<_>>())
        .flat_map(|of| of.all(2).collect::<Vec<_>>())
        .flat_map(|scope| {
            scope
                .all(2)
                .map(|metric| metric.text(1))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        metrics,
        [
            "istio_requests",
            "istio_request_duration_milliseconds",
            "istio_request_bytes",
            "istio_response_bytes"
        ]
    );
    for (path, headers, body) in &*stub.got.lock().expect("no panic") {
        assert_eq!(headers["x-key"], "k3y");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let found = body.windows(6).any(|bytes| bytes == b"s3cret");
        assert!(!found, "a secret went to {path}");
    }
}

#[tokio::test]
async fn what_nobody_takes_is_dropped_and_counted() {
    let stub = Stub::start(&[400, 400, 400, 400, 400, 400]).await;
    let config = stub.config(&[("OTEL_METRICS_EXPORTER", "none")]);
    let mesh = shop(config.sampling);
    let counts = exporting(config, &mesh, async {
        buy(&mesh).await;
    })
    .await;
    assert_eq!(counts.spans.exported.load(Ordering::Relaxed), 0);
    assert_eq!(counts.spans.dropped.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn what_is_not_sampled_is_not_told() {
    let stub = Stub::start(&[]).await;
    let config = stub.config(&[
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ]);
    let mesh = shop(config.sampling);
    let counts = exporting(config, &mesh, buy(&mesh)).await;
    assert_eq!(counts.spans.exported.load(Ordering::Relaxed), 0);
    assert!(stub.of("/v1/traces").is_empty());
}
