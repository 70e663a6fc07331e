//! What a receiver gets of calls that go from a workload to a second and on to a third, by both protocols; how it is asked again; what is
//! dropped.
//!
//! The receiver here reads the messages field by field; real ones have them in `tests/` and `cargo xtask conformance opentelemetry`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use weft_api::identity::SpiffeId;
use weft_gateway::{Fault, NamespacedName, Resilience};
use weft_mesh::{
    Body, CallContext, CallerInfo, EndpointSpec, LocalWorkload, PodAddress, Served,
    ServicePortSpec, ServiceSpec, Table, WorkloadInfo, WorkloadService,
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
                        let mut body = body.collect().await.expect("a body").to_bytes();
                        let kind = head.headers.get("content-type").cloned();
                        let is_grpc = kind.is_some_and(|kind| kind == "application/grpc");
                        if is_grpc {
                            let frame = body.split_to(5);
                            let length: [u8; 4] = frame[1..].try_into().expect("four bytes");
                            assert_eq!(u32::from_be_bytes(length) as usize, body.len());
                        }
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
                        Ok::<_, Infallible>(answer(code, is_grpc))
                    }
                });
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let serving = builder.serve_connection(TokioIo::new(stream), service);
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

/// A code of HTTP, as either protocol says it.
fn answer(
    code: u16,
    is_grpc: bool,
) -> Response<impl http_body::Body<Data = Bytes, Error = Infallible>> {
    let mut frames = Vec::new();
    if is_grpc {
        let status = match code {
            200 => "0",
            503 => "14",
            _ => "3",
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("a value"));
        if code == 200 {
            frames.push(Ok(Frame::data(Bytes::from_static(&[0; 5]))));
        }
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    if !is_grpc {
        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
    }
    response
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
    shop_with(sampling, &[], &Served::default())
}

/// The same with further addresses of `cart` at which nobody is, and with policies.
fn shop_with(sampling: weft_mesh::Sampling, gone: &[u8], served: &Served) -> Mesh {
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
                endpoints: std::iter::once(number)
                    .chain(gone.iter().copied().filter(|_| name == "cart"))
                    .map(|number| EndpointSpec {
                        pod: format!("{name}-{number}"),
                        ip: [10, 42, 0, number].into(),
                        port: address.port,
                        node: "node-1".to_owned(),
                        node_address: None,
                        identity: account(name),
                        workload: named(name),
                        ready: true,
                        serving: true,
                        assigned: true,
                    })
                    .collect(),
                ..ServicePortSpec::default()
            }],
            ..ServiceSpec::default()
        });
    }
    let table = Table::builder("node-1", 1).services(services);
    mesh.publish(table.routes(served).build());
    mesh
}

async fn buy(mesh: &Mesh) -> StatusCode {
    let request = Request::get("http://cart/items/7?token=s3cret")
        .header("authorization", "Bearer s3cret")
        .body(Body::empty());
    let answer = mesh
        .outbound(caller("web"))
        .call(request.expect("a request"));
    let answer = answer.await.expect("an answer");
    let status = answer.status();
    answer.into_body().collect().await.expect("a body");
    status
}

/// Runs the exporter while `work` is done, and until it has sent the rest.
async fn exporting(config: Config, mesh: &Mesh, work: impl Future<Output = ()>) -> Arc<Counts> {
    let counts = Arc::<Counts>::default();
    let stop = CancellationToken::new();
    let running = run(
        config,
        mesh.clone(),
        None,
        Arc::clone(&counts),
        stop.clone(),
    );
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

    // Of two calls, at both ends; each led to by its trace.
    let mut metrics = Vec::new();
    for request in stub.of("/v1/metrics") {
        for of_node in request.all(1) {
            for scope in of_node.all(2) {
                metrics.extend(scope.all(2));
            }
        }
    }
    let shown: Vec<String> = metrics
        .iter()
        .map(|metric| {
            let data = metric.all(7).chain(metric.all(9)).next();
            let points: Vec<Fields> = data.expect("a sum or histogram").all(1).collect();
            let exemplars = points.iter().flat_map(|point| point.all(8));
            let exemplars = exemplars.filter(|one| traces.contains(&one.bytes(5)));
            let exemplars = exemplars.count();
            let (name, points) = (metric.text(1), points.len());
            format!("{name}: {points} points, {exemplars} exemplars")
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    istio_requests: 4 points, 0 exemplars
    istio_request_duration_milliseconds: 4 points, 4 exemplars
    istio_request_bytes: 4 points, 0 exemplars
    istio_response_bytes: 4 points, 0 exemplars
    ");
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
    let counts = exporting(config, &mesh, async {
        buy(&mesh).await;
    })
    .await;
    assert_eq!(counts.spans.exported.load(Ordering::Relaxed), 0);
    assert!(stub.of("/v1/traces").is_empty());
}

const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
const TRACE_SERVICE: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// All spans that a receiver got.
fn spans(stub: &Stub, path: &str) -> Vec<Fields> {
    let mut spans = Vec::new();
    for request in stub.of(path) {
        for of_workload in request.all(1) {
            for scope in of_workload.all(2) {
                spans.extend(scope.all(2));
            }
        }
    }
    spans
}

#[tokio::test]
async fn the_same_goes_by_grpc() {
    // One that is not there now is asked again, on the connection that there is.
    let stub = Stub::start(&[503]).await;
    let config = stub.config(&[
        GRPC,
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k3y"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ]);
    let mesh = shop(config.sampling);
    let counts = exporting(config, &mesh, async {
        buy(&mesh).await;
        while stub.of(TRACE_SERVICE).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        buy(&mesh).await;
    })
    .await;
    assert_eq!(spans(&stub, TRACE_SERVICE).len(), 8);
    assert_eq!(counts.spans.exported.load(Ordering::Relaxed), 8);
    for (_, headers, _) in &*stub.got.lock().expect("no panic") {
        assert_eq!(headers["x-key"], "k3y");
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["grpc-timeout"], "10000m");
    }

    // And one that refuses is not.
    let stub = Stub::start(&[400]).await;
    let config = stub.config(&[GRPC, ("OTEL_METRICS_EXPORTER", "none")]);
    let mesh = shop(config.sampling);
    let counts = exporting(config, &mesh, async {
        buy(&mesh).await;
    })
    .await;
    assert_eq!(counts.spans.dropped.load(Ordering::Relaxed), 4);
    assert!(stub.of(TRACE_SERVICE).is_empty());
}

#[tokio::test]
async fn further_tries_and_what_comes_of_them_are_in_the_tree() {
    let stub = Stub::start(&[]).await;
    let config = stub.config(&[("OTEL_METRICS_EXPORTER", "none")]);
    // Two of three addresses have nobody.
    let mesh = shop_with(config.sampling, &[8, 9], &Served::default());
    exporting(config, &mesh, async {
        for _ in 0..20 {
            assert_eq!(buy(&mesh).await, 200);
        }
    })
    .await;
    let spans = spans(&stub, "/v1/traces");
    let known: Vec<Vec<u8>> = spans.iter().map(|span| span.bytes(2)).collect();
    let (mut again, mut events) = (0, 0);
    for span in &spans {
        let above = span.bytes(4);
        assert!(
            above.is_empty() || known.contains(&above),
            "{} is below a span that nobody sent",
            span.text(5)
        );
        again += usize::from(span.text(5).ends_with(" again"));
        events += span
            .all(11)
            .filter(|event| event.text(2) == "retry")
            .count();
    }
    assert!(again > 0, "nobody was gone");
    assert_eq!(again, events);
}

#[tokio::test]
async fn a_fault_is_an_event() {
    let stub = Stub::start(&[]).await;
    let config = stub.config(&[("OTEL_METRICS_EXPORTER", "none")]);
    let fault = Fault {
        name: "shop/broken".to_owned(),
        until: i64::MAX,
        callers: Vec::new(),
        headers: Vec::new(),
        delay: Some((Duration::from_millis(3), 100)),
        abort: Some((StatusCode::IM_A_TEAPOT, 100)),
    };
    let policy = Resilience {
        faults: vec![fault],
        ..Resilience::default()
    };
    let served = Served {
        resilience: [(NamespacedName::new("shop", "cart"), Arc::new(policy))]
            .into_iter()
            .collect(),
        ..Served::default()
    };
    let mesh = shop_with(config.sampling, &[], &served);
    exporting(config, &mesh, async {
        assert_eq!(buy(&mesh).await, 418);
    })
    .await;
    let spans = spans(&stub, "/v1/traces");
    assert_eq!(spans.len(), 1);
    let event = spans[0].all(11).next().expect("an event");
    assert_eq!(event.text(2), "fault");
    let number = |name: &str| {
        let pair = event.all(3).find(|pair| pair.text(1) == name);
        let any = pair.and_then(|pair| pair.all(2).next());
        any.map(|any| any.number(3))
    };
    assert_eq!(number("weft.fault.delay_ms"), Some(3));
    assert_eq!(number("weft.fault.abort_status"), Some(418));
}

#[tokio::test]
async fn what_containers_print_is_a_record_with_its_span() {
    let stub = Stub::start(&[]).await;
    let config = stub.config(&[
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("WEFT_OTLP_LOGS", "containers"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ]);
    let mesh = shop(config.sampling);
    let (lines, printed) = Lines::wanted(&config).expect("wanted");
    let container = Container::new(named("cart"), "cart-1", "u1", "main", 2);
    let stdout = lines.printing(&Arc::new(container), crate::logs::Stream::Stdout);
    let span = weft_mesh::TraceContext::root(5, 7).recorded(true);
    stdout.write(b"sold\n", Some(&span));
    let counts = Arc::<Counts>::default();
    let stop = CancellationToken::new();
    stop.cancel();
    run(config, mesh, Some(printed), Arc::clone(&counts), stop).await;
    assert_eq!(counts.records.exported.load(Ordering::Relaxed), 1);
    let request = stub.of("/v1/logs").pop().expect("a request");
    let of_container = request.all(1).next().expect("a container");
    let resource = of_container.all(1).next().expect("a resource");
    for (name, value) in [
        ("service.name", "cart"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "cart-1"),
        ("k8s.container.name", "main"),
        ("k8s.container.restart_count", "2"),
        ("k8s.node.name", "node-1"),
    ] {
        assert_eq!(resource.attribute(1, name), value, "{name}");
    }
    let scope = of_container.all(2).next().expect("a scope");
    let record = scope.all(2).next().expect("a record");
    let body: String = record.all(5).map(|any| any.text(1)).collect();
    assert_eq!(body, "sold");
    assert_eq!(record.attribute(6, "log.iostream"), "stdout");
    assert_eq!(record.bytes(9), span.trace_id.to_be_bytes());
    assert_eq!(record.bytes(10), span.span_id.to_be_bytes());
}
