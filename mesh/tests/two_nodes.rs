//! Two meshes in one process, talking over loopback with certificates of one throw-away authority.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tower::util::BoxCloneSyncService;
use weft_api::identity::SpiffeId;
use weft_mesh::{
    Backend, BackendTarget, Body, BoxError, CallContext, CallError, CallerInfo, CancellationToken,
    DeliverError, EndpointSpec, GatewaySpec, ListenerSpec, LocalWorkload, Mesh, Parent, PodAddress,
    RouteSpec, Rule, ServicePortSpec, ServiceSpec, Table, WorkloadInfo, WorkloadService,
    empty_body, full_body,
};

const DOMAIN: &str = "cluster.local";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    fn issue(&self, uris: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ASCII")))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        (vec![certificate.der().clone()], key)
    }

    fn give(&self, mesh: &Mesh, account: &str) {
        let identity = sa(account);
        let (chain, key) = self.issue(&[&identity.to_string()]);
        mesh.identities()
            .set(identity, chain, key)
            .expect("a matching certificate");
        mesh.identities()
            .set_roots(std::slice::from_ref(&self.root))
            .expect("a root");
    }
}

fn sa(account: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, "vote", account)
}

fn named(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: "vote".to_owned(),
        ..WorkloadInfo::default()
    }
}

fn pod(last: u8) -> PodAddress {
    PodAddress {
        ip: [10, 42, 0, last].into(),
        port: 8080,
    }
}

fn workload<F>(
    account: &str,
    answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> LocalWorkload
where
    F: Future<Output = Result<Response<Body>, DeliverError>> + Send + 'static,
{
    let service: WorkloadService = BoxCloneSyncService::new(tower::service_fn(answer));
    LocalWorkload {
        identity: sa(account),
        workload: named(account),
        service,
        in_flight_max: 100,
    }
}

/// Answers with a line about the call.
async fn describe(request: Request<Body>) -> Result<Response<Body>, DeliverError> {
    let context = request
        .extensions()
        .get::<CallContext>()
        .cloned()
        .expect("the context");
    let peer = context.peer.expect("a peer");
    let line = format!(
        "{} {} from {} ({}) by {}, depth {}, attempt {}, weft headers {}",
        request.method(),
        request.uri(),
        peer.spiffe_id,
        peer.workload,
        peer.transport.as_str(),
        context.depth,
        context.attempt,
        request
            .headers()
            .keys()
            .filter(|name| name.as_str().starts_with("x-weft"))
            .count(),
    );
    Ok(Response::new(full_body(line)))
}

fn endpoint(account: &str, last: u8, node: &str, node_address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        pod: format!("{account}-{last}"),
        ip: pod(last).ip,
        port: 8080,
        node: node.to_owned(),
        node_address: Some(node_address),
        identity: sa(account),
        workload: named(account),
        ready: true,
        serving: true,
    }
}

fn service(name: &str, endpoints: Vec<EndpointSpec>) -> ServiceSpec {
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        ports: vec![ServicePortSpec {
            name: None,
            port: 80,
            endpoints,
        }],
        ..ServiceSpec::default()
    }
}

struct World {
    authority: Authority,
    /// Node `a`, where the caller runs under the account `web`.
    a: Mesh,
    b: Mesh,
    b_address: SocketAddr,
    stop: CancellationToken,
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn world() -> World {
    let authority = Authority::new();
    let (a, b) = (
        Mesh::builder("a", DOMAIN).build(),
        Mesh::builder("b", DOMAIN).build(),
    );
    authority.give(&a, "web");
    authority.give(&b, "voting");
    let (listener, b_address) = listen();
    let stop = CancellationToken::new();
    let serving = (b.clone(), stop.clone());
    tokio::spawn(async move { serving.0.serve_inbound(listener, serving.1).await });
    World {
        authority,
        a,
        b,
        b_address,
        stop,
    }
}

impl World {
    fn publish(&self, generation: u64, services: Vec<ServiceSpec>) {
        let table = Table::builder("a", generation).services(services).build();
        self.a.publish(table);
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let caller = CallerInfo {
            identity: sa("web"),
            workload: named("web"),
        };
        self.a.outbound(caller).call(request).await
    }

    async fn get(&self, uri: &str) -> Result<(StatusCode, String), CallError> {
        let request = Request::get(uri).body(empty_body()).expect("a request");
        text(self.call(request).await?).await
    }
}

async fn text(response: Response<Body>) -> Result<(StatusCode, String), CallError> {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    Ok((status, text))
}

#[tokio::test]
async fn both_ways_give_the_callee_the_same_view() {
    let world = world();
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    let call = |uri: &str| {
        let request = Request::post(uri)
            .header("x-weft-source", "admin")
            .header("connection", "close")
            .body(full_body("hello"))
            .expect("a request");
        world.call(request)
    };
    let local = call("http://local/p?q").await.expect("an answer");
    let remote = call("http://voting.vote.svc/p?q").await.expect("an answer");
    let lines = [
        text(local).await.expect("text").1,
        text(remote).await.expect("text").1,
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    POST http://local/p?q from spiffe://cluster.local/ns/vote/sa/web (web) by in-process, depth 1, attempt 0, weft headers 0
    POST http://voting.vote.svc/p?q from spiffe://cluster.local/ns/vote/sa/web (web) by mtls, depth 1, attempt 0, weft headers 0
    ");

    let (mut here, mut there) = (String::new(), String::new());
    world.a.render_metrics(&mut here);
    world.b.render_metrics(&mut there);
    let series = |text: &str, parts: &[&str]| {
        text.lines()
            .filter(|line| line.starts_with("istio_requests_total"))
            .any(|line| parts.iter().all(|part| line.contains(part)) && line.ends_with(" 1"))
    };
    let to_voting = "destination_service=\"voting.vote.svc.cluster.local\"";
    assert!(series(&here, &["reporter=\"source\"", to_voting]), "{here}");
    assert!(
        series(&here, &["reporter=\"destination\"", "in_process"]),
        "{here}"
    );
    let at_voting = [
        "reporter=\"destination\"",
        "source_workload=\"web\"",
        "mutual_tls",
        to_voting,
    ];
    assert!(series(&there, &at_voting), "{there}");
}

/// Sends the request's body back as it comes, and gRPC's good status after it.
async fn echo(request: Request<Body>) -> Result<Response<Body>, DeliverError> {
    let frames = request.into_body().into_data_stream();
    let frames = futures::StreamExt::map(frames, |data| data.map(Frame::data));
    let trailers = HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        "0".parse().expect("a value"),
    )]);
    let end = futures::stream::iter([Ok::<_, BoxError>(Frame::trailers(trailers))]);
    let body = StreamBody::new(futures::StreamExt::chain(frames, end));
    Ok(Response::new(Body::new(body)))
}

/// Sends three parts, each of which comes back before the next is sent, and reads the status at the end.
async fn converse(
    mut sender: futures::channel::mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    mut body: Body,
) {
    for number in 0..3u8 {
        let chunk = Bytes::from(vec![number; 100_000]);
        futures::SinkExt::send(&mut sender, Ok(Frame::data(chunk)))
            .await
            .expect("room");
        let mut received = 0;
        while received < 100_000 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            let data = frame.into_data().expect("data");
            assert!(data.iter().all(|byte| *byte == number));
            received += data.len();
        }
    }
    drop(sender);
    let last = body.frame().await.expect("trailers").expect("no error");
    assert_eq!(last.trailers_ref().expect("trailers")["grpc-status"], "0");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers() {
    let world = world();
    world.b.attach(pod(2), workload("voting", echo));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let body = Body::new(StreamBody::new(receiver));
    let request = Request::post("http://voting/")
        .body(body)
        .expect("a request");
    let response = world.call(request).await.expect("an answer");
    converse(sender, response.into_body()).await;
}

#[tokio::test]
async fn grpc_passes_the_gateway_and_another_node() {
    let world = world();
    let gateway = world.a.gateway_identity();
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    world
        .a
        .identities()
        .set(gateway, chain, key)
        .expect("the gateway's certificate");
    world.b.attach(pod(2), workload("voting", echo));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });

    // HTTP/2 without TLS and without an upgrade, as gRPC clients speak it inside a cluster.
    let stream = tokio::net::TcpStream::connect(address).await.expect("open");
    let (mut client, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("a connection");
    tokio::spawn(connection);
    let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let request = Request::post("http://voting.vote.localhost/vote.Voting/Cast")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(receiver)))
        .expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body = Body::new(response.into_body().map_err(Into::into));
    converse(sender, body).await;

    for (mesh, reporter) in [(&world.a, "source"), (&world.b, "destination")] {
        let mut text = String::new();
        mesh.render_metrics(&mut text);
        let labels = [
            format!("reporter=\"{reporter}\""),
            "source_workload=\"gateway\"".to_owned(),
            "request_protocol=\"grpc\"".to_owned(),
            "grpc_response_status=\"0\"".to_owned(),
        ];
        let counted = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total"))
            .any(|line| labels.iter().all(|label| line.contains(label)) && line.ends_with(" 1"));
        assert!(counted, "{reporter}: {text}");
    }
}

#[tokio::test]
async fn an_endpoint_with_another_identity_is_not_reached() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.b.attach(pod(3), workload("other", describe));
    // The node holds no certificate for `emoji`: the name is asked for and nothing is presented.
    let mut emoji = endpoint("emoji", 2, "b", world.b_address);
    emoji.pod = "voting-2".to_owned();
    // It holds one for `voting`, but the pod at that address is of another identity.
    let swapped = endpoint("voting", 3, "b", world.b_address);
    world.publish(
        1,
        vec![
            service("emoji", vec![emoji]),
            service("swapped", vec![swapped]),
        ],
    );
    for name in ["emoji", "swapped"] {
        let error = world.get(&format!("http://{name}/")).await.expect_err(name);
        assert!(
            matches!(error, CallError::Unreachable { attempts: 3, .. }),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
async fn certificates_are_checked_on_both_ends() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    // A caller whose certificate another authority signed, and one that has none.
    let foreign = Authority::new();
    let (chain, key) = foreign.issue(&[&sa("foreign").to_string()]);
    world
        .a
        .identities()
        .set(sa("foreign"), chain, key)
        .expect("well-formed");
    for account in ["foreign", "nobody"] {
        let caller = CallerInfo {
            identity: sa(account),
            workload: named(account),
        };
        let request = Request::get("http://voting/")
            .body(empty_body())
            .expect("a request");
        let error = world.a.outbound(caller).call(request).await;
        assert!(error.is_err(), "{account}: {error:?}");
    }
    // Setting a certificate checks it, too.
    let both = [sa("x").to_string(), sa("y").to_string()];
    let cases: [(&[&str], &str); 3] = [
        (&[], "no URI"),
        (&[&both[0], &both[1]], "more than one URI"),
        (&[&both[1]], "not for spiffe://cluster.local/ns/vote/sa/x"),
    ];
    for (uris, reason) in cases {
        let (chain, key) = world.authority.issue(uris);
        let error = world
            .a
            .identities()
            .set(sa("x"), chain, key)
            .expect_err(reason);
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Roots replaced by others: the old connection takes no further request.
    world.get("http://voting/").await.expect("still trusted");
    world
        .a
        .identities()
        .set_roots(std::slice::from_ref(&foreign.root))
        .expect("a root");
    let error = world.get("http://voting/").await.expect_err("not trusted");
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn what_was_not_processed_is_tried_elsewhere() {
    let world = world();
    let (dead, dead_address) = listen();
    drop(dead);
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![
            service(
                "refused",
                vec![
                    endpoint("voting", 1, "dead", dead_address),
                    endpoint("voting", 2, "b", world.b_address),
                ],
            ),
            service(
                "left",
                vec![
                    endpoint("voting", 3, "b", world.b_address),
                    endpoint("voting", 2, "b", world.b_address),
                ],
            ),
        ],
    );
    for name in ["refused", "left"] {
        let mut retried = 0;
        for _ in 0..20 {
            let request = Request::post(format!("http://{name}/"))
                .body(full_body("once"))
                .expect("a request");
            let response = world.call(request).await.expect(name);
            let (status, line) = text(response).await.expect("text");
            assert_eq!(status, 200);
            retried += u32::from(line.contains("attempt 1"));
        }
        assert!(retried <= 1, "{name}: ejected after the first failure");
    }
}

#[tokio::test]
async fn a_failure_that_may_have_been_processed_is_repeated_only_when_idempotent() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let trap = move |_request: Request<Body>| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Err::<Response<Body>, _>(DeliverError::Failed {
                message: "unreachable executed".to_owned(),
            })
        }
    };
    world.b.attach(pod(2), workload("voting", trap.clone()));
    world.a.attach(pod(1), workload("local", trap));
    world.publish(
        1,
        vec![
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
        ],
    );
    for name in ["voting", "local"] {
        let before = calls.load(Ordering::SeqCst);
        let error = world.get(&format!("http://{name}/")).await.expect_err(name);
        assert_eq!(
            error.to_string(),
            format!("{name}.vote failed before it answered: unreachable executed")
        );
        assert_eq!(calls.load(Ordering::SeqCst), before + 1);
    }
}

#[tokio::test]
async fn a_replaced_pod_is_found_in_the_next_table() {
    let world = world();
    world.b.attach(pod(4), workload("voting", describe));
    let at = |last| {
        vec![service(
            "voting",
            vec![endpoint("voting", last, "b", world.b_address)],
        )]
    };
    world.publish(1, at(2));
    // The only endpoint known has left; its successor is published while the call waits.
    let (answer, ()) = tokio::join!(world.get("http://voting/"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.publish(2, at(4));
    });
    let (status, line) = answer.expect("the successor answers");
    assert_eq!(status, 200);
    assert!(line.contains("attempt 1"), "{line}");
}

#[tokio::test]
async fn deadlines_and_loops_end_calls() {
    let world = world();
    let slow = |_request: Request<Body>| std::future::pending();
    world.b.attach(pod(2), workload("voting", slow));
    world.b.attach(pod(5), workload("voting", describe));
    world.publish(
        1,
        vec![
            service("slow", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("voting", vec![endpoint("voting", 5, "b", world.b_address)]),
        ],
    );
    let with = |uri: &str, context: CallContext| {
        Request::get(uri)
            .extension(context)
            .body(empty_body())
            .expect("a request")
    };
    let soon = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(100)),
        ..CallContext::default()
    };
    let error = world.call(with("http://slow/", soon)).await;
    assert!(matches!(error, Err(CallError::Deadline)), "{error:?}");
    let deep = CallContext {
        depth: 31,
        ..CallContext::default()
    };
    let error = world.call(with("http://voting/", deep)).await;
    assert!(matches!(error, Err(CallError::LoopDetected)), "{error:?}");
}

#[tokio::test]
async fn nothing_leaves_the_cluster() {
    let world = world();
    world.publish(1, vec![service("voting", Vec::new())]);
    for (uri, expected) in [
        (
            "http://example.com/",
            "example.com is outside the cluster and no policy allows it",
        ),
        ("http://nowhere/", "there is no service nowhere.vote"),
        (
            "http://voting/",
            "service voting.vote has no ready endpoint",
        ),
        ("https://voting/", "service voting.vote has no port 443"),
    ] {
        let error = world.get(uri).await.expect_err(uri);
        assert_eq!(error.to_string(), expected, "{uri}");
    }
}

#[tokio::test]
async fn detaching_waits_for_calls_in_flight() {
    let world = world();
    let (release, gate) = tokio::sync::watch::channel(false);
    let gated = move |_request: Request<Body>| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.expect("the gate");
            Ok(Response::new(full_body("done")))
        }
    };
    world.b.attach(pod(2), workload("voting", gated));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let detached = world.b.detach(pod(2));
        assert_eq!(detached.in_flight(), 1);
        release.send(true).expect("a receiver");
        detached.drained().await;
    };
    let (answer, ()) = tokio::join!(world.get("http://voting/"), drain);
    assert_eq!(answer.expect("in flight goes on").1, "done");
    assert_eq!(world.b.detach(pod(2)).in_flight(), 0);
}

/// Takes no call: what a workload says whose queue, or whose engine's pool of instances, is full.
async fn full(_request: Request<Body>) -> Result<Response<Body>, DeliverError> {
    Err(DeliverError::Overloaded)
}

/// Has no room, and says so itself.
async fn busy(_request: Request<Body>) -> Result<Response<Body>, DeliverError> {
    let answer = Response::builder().status(503).header("retry-after", "7");
    Ok(answer.body(full_body("busy")).expect("a response"))
}

#[tokio::test]
async fn who_is_turned_away_is_told_when_to_come_again() {
    let world = world();
    let gateway = world.a.gateway_identity();
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    world
        .a
        .identities()
        .set(gateway, chain, key)
        .expect("the gateway's certificate");
    world.authority.give(&world.b, "busy");
    let mut no_place = workload("voting", describe);
    no_place.in_flight_max = 0;
    world.a.attach(pod(1), workload("here", full));
    world.b.attach(pod(2), workload("voting", full));
    world.b.attach(pod(3), no_place);
    world.b.attach(pod(4), workload("busy", busy));
    world.publish(
        1,
        vec![
            service("here", vec![endpoint("here", 1, "a", world.b_address)]),
            service("there", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("full", vec![endpoint("voting", 3, "b", world.b_address)]),
            service("busy", vec![endpoint("busy", 4, "b", world.b_address)]),
            service("empty", Vec::new()),
        ],
    );
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let mut lines = Vec::new();
    for name in ["here", "there", "full", "busy", "empty"] {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = Request::get("/")
            .header("host", format!("{name}.vote.localhost"))
            .body(empty_body())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let after = response.headers().get("retry-after").cloned();
        let after = after.map(|after| after.to_str().expect("text").to_owned());
        lines.push(format!("{name} {} {after:?}", response.status().as_u16()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    here 503 Some("1")
    there 503 Some("1")
    full 503 Some("1")
    busy 503 Some("7")
    empty 503 None
    "#);
    world.stop.cancel();
}

#[tokio::test]
async fn the_gateway_routes_by_host_and_falls_back_to_service_names() {
    let world = world();
    world.authority.give(&world.a, "web");
    let gateway = world.a.gateway_identity();
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    world
        .a
        .identities()
        .set(gateway, chain, key)
        .expect("the gateway's certificate");
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(2), workload("voting", describe));
    let to = |name: &str| Backend {
        weight: 1,
        target: BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: name.to_owned(),
            port: 80,
        },
        filters: Vec::new(),
    };
    let route = |name: &str, host: &str, backend| RouteSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        parents: vec![Parent::Gateway {
            namespace: "vote".to_owned(),
            name: "public".to_owned(),
            section: None,
            port: None,
        }],
        hostnames: vec![host.to_owned()],
        rules: vec![Rule {
            backends: vec![backend],
            ..Rule::default()
        }],
        ..RouteSpec::default()
    };
    let table = Table::builder("a", 1)
        .services([
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("empty", Vec::new()),
        ])
        .gateways([GatewaySpec {
            namespace: "vote".to_owned(),
            name: "public".to_owned(),
            listeners: vec![ListenerSpec {
                name: "http".to_owned(),
                port: 80,
                ..ListenerSpec::default()
            }],
        }])
        .routes([
            route("shop", "shop.example.com", to("voting")),
            route("broken", "broken.example.com", to("gone")),
        ])
        .build();
    world.a.publish(table);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    let served = tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });

    let mut lines = Vec::new();
    for host in [
        "shop.example.com",
        "local.vote.localhost:8080",
        "voting.vote.localhost",
        "broken.example.com",
        "empty.vote.localhost",
        "unknown.example.com",
    ] {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = Request::get("/p")
            .header("host", host)
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-weft-error", "not-here")
            .body(empty_body())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let response = response.map(|body| Body::new(body.map_err(Into::into)));
        let (status, line) = text(response).await.expect("text");
        lines.push(format!("{} {}", status.as_u16(), line.trim_end()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    200 GET http://shop.example.com/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by mtls, depth 1, attempt 0, weft headers 0
    200 GET http://local.vote.localhost:8080/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by in-process, depth 1, attempt 0, weft headers 0
    200 GET http://voting.vote.localhost/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by mtls, depth 1, attempt 0, weft headers 0
    500 route vote/broken sends this request to a backend that is not valid: there is no service gone.vote
    503 service empty.vote has no ready endpoint
    404 no route matches unknown.example.com/p
    ");
    world.stop.cancel();
    served.await.expect("no panic").expect("it drained");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_node_that_dies_fails_no_idempotent_call() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    let (got, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let hang = move |_request: Request<Body>| {
        got.send(()).expect("the test waits");
        std::future::pending()
    };
    for (generation, method, survives) in [(1, "GET", true), (3, "POST", false)] {
        // A node that takes the call and is gone before it answers.
        let node = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let c = Mesh::builder("c", DOMAIN).build();
        world.authority.give(&c, "voting");
        c.attach(pod(6), workload("voting", hang.clone()));
        let (listener, c_address) = listen();
        node.spawn(async move { c.serve_inbound(listener, CancellationToken::new()).await });
        let at = |last, node: &str, address| {
            vec![service(
                "dying",
                vec![endpoint("voting", last, node, address)],
            )]
        };
        world.publish(generation, at(6, "c", c_address));
        let request = Request::builder()
            .method(method)
            .uri("http://dying/")
            .body(empty_body())
            .expect("a request");
        let (answer, ()) = tokio::join!(world.call(request), async {
            taken.recv().await.expect("the call arrived");
            world.publish(generation + 1, at(2, "b", world.b_address));
            node.shutdown_background();
        });
        match answer {
            Ok(response) => assert!(survives && response.status() == 200),
            Err(CallError::Interrupted { .. }) => assert!(!survives),
            Err(error) => panic!("{method}: {error:?}"),
        }
    }
}
