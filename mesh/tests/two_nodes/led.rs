//! What replaces the way straight to a Service's endpoints for those who call it by sockets: routes of streams and datagrams bound to it, those of
//! requests where HTTP is spoken, and policies by which its callers stay on their node. And what nodes tell who balances before them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_gateway::{
    AttachedRoute, Backend, BackendTarget, Match, NamespacedName, PathMatch, PortStreams, Rule,
    Served, ServiceRoutes, ServiceStreams, StreamProtocol, StreamRoute,
};
use weft_mesh::{
    Body, CallerInfo, EndpointSpec, FailureKind, LocalWorkload, Outbound, Protocol, Raw,
    ServicePortSpec, ServiceSpec, Spawn, Table,
};

use super::{exposed::free_port, gateway::ask, world::*};

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 85, 0, 1));
const DEADLINE: Duration = Duration::from_secs(20);

/// Says who it is, however it is asked.
fn named_one(account: &'static str) -> LocalWorkload {
    workload(account, move |request: Request<Body>| async move {
        let how = match request.extensions().get::<Raw>() {
            Some(_) => "by a stream",
            None => "by a call",
        };
        Ok(Response::new(Body::full(format!("{account} {how}"))))
    })
}

/// A Service with TCP and UDP at port 80.
fn both(name: &str, last: u8, endpoints: Vec<EndpointSpec>) -> ServiceSpec {
    let of = |protocol| ServicePortSpec {
        protocol,
        port: 80,
        endpoints: endpoints.clone(),
        ..ServicePortSpec::default()
    };
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        cluster_ip: Some([10, 43, 0, last].into()),
        ports: vec![of(Protocol::Tcp), of(Protocol::Udp)],
        ..ServiceSpec::default()
    }
}

/// Shares of a route of streams; nobody has that of the empty name.
fn led(shares: &[(&str, u32)]) -> StreamRoute {
    let backends = shares.iter().map(|(name, weight)| {
        let target = match *name {
            "" => BackendTarget::Invalid {
                reason: "nobody".to_owned(),
            },
            name => BackendTarget::Service {
                namespace: "vote".to_owned(),
                name: name.to_owned(),
                port: 80,
            },
        };
        Backend {
            weight: *weight,
            ..Backend::new(target)
        }
    });
    StreamRoute {
        route: "vote/route".to_owned(),
        created: 0,
        gateway: None,
        backends: backends.collect(),
    }
}

fn at(protocol: StreamProtocol, shares: &[(&str, u32)]) -> PortStreams {
    [((protocol, 80), led(shares))].into()
}

/// The Services `front`, `one` and `two`, the first of which is led by these routes.
fn routed(world: &World, streams: ServiceStreams) -> Table {
    let services = [
        both("front", 1, vec![endpoint("front", 1, "a", world.b_address)]),
        both("one", 2, vec![endpoint("one", 2, "a", world.b_address)]),
        both("two", 3, vec![endpoint("voting", 3, "b", world.b_address)]),
    ];
    let routes = ServiceRoutes {
        streams,
        ..ServiceRoutes::default()
    };
    let served = Served {
        services: std::iter::once((NamespacedName::new("vote", "front"), Arc::new(routes)))
            .collect(),
        ..Served::default()
    };
    let builder = Table::builder("a", 1).services(services);
    builder.routes(&served).build()
}

fn attached() -> World {
    let world = world();
    world.a.attach(pod(1), named_one("front"));
    world.a.attach(pod(2), named_one("one"));
    world.b.attach(pod(3), named_one("voting"));
    world
}

async fn by_a_stream(outbound: &Outbound, to: &str) -> Result<String, FailureKind> {
    let connected = outbound.connect(to, Body::empty()).await;
    let body = connected.map_err(|failure| failure.kind)?;
    let said = body.collect().await.expect("an end").to_bytes();
    Ok(String::from_utf8(said.to_vec()).expect("text"))
}

/// Each of those who answered, asked so often.
async fn answered(outbound: &Outbound, to: &str, times: usize) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for _ in 0..times {
        let said = by_a_stream(outbound, to).await;
        let said = said.unwrap_or_else(|kind| kind.to_string());
        *told.entry(said).or_insert(0) += 1;
    }
    told
}

#[tokio::test]
async fn a_service_s_streams_go_where_its_routes_lead() {
    let world = attached();
    let streams = ServiceStreams {
        producer: at(StreamProtocol::Tcp, &[("one", 1), ("two", 1), ("front", 0)]),
        consumers: [
            ("shop".to_owned(), at(StreamProtocol::Tcp, &[("", 1)])),
            ("cart".to_owned(), at(StreamProtocol::Tcp, &[("one", 1)])),
        ]
        .into(),
    };
    world.a.publish(routed(&world, streams));
    let everybody = world.outbound();
    for to in ["front:80", "10.43.0.1:80"] {
        let told = answered(&everybody, to, 64).await;
        let who: Vec<&String> = told.keys().collect();
        assert_eq!(who, ["one by a stream", "voting by a stream"], "{told:?}");
    }
    // A call needs a connection, too; one level is led, and an endpoint's own address is past all of it.
    let told = world.get("http://front/").await.expect("an answer").1;
    let known = ["one by a call", "voting by a call"];
    assert!(known.contains(&told.as_str()), "{told}");
    let past = by_a_stream(&everybody, "10.42.0.1:8080").await;
    assert_eq!(past.as_deref(), Ok("front by a stream"));
    // Callers of a namespace with routes of its own are led by those.
    let of = |namespace: &str| {
        let mut workload = named("web");
        workload.namespace = namespace.to_owned();
        world.a.outbound(CallerInfo {
            identity: sa("web"),
            workload,
        })
    };
    let told = answered(&of("cart"), "front.vote:80", 16).await;
    assert_eq!(told, [("one by a stream".to_owned(), 16)].into());
    let refused = by_a_stream(&of("shop"), "front.vote:80").await;
    assert_eq!(refused, Err(FailureKind::InvalidBackend));
    let request = Request::get("http://front.vote/").body(Body::empty());
    let refused = of("shop").call(request.expect("a request")).await;
    let status = match refused {
        Ok(response) => response.status().as_u16(),
        Err(failure) => failure.status().as_u16(),
    };
    assert_eq!(status, 500);
}

#[tokio::test]
async fn a_service_s_datagrams_go_where_its_routes_lead() {
    let world = attached();
    let streams = ServiceStreams {
        producer: at(StreamProtocol::Udp, &[("one", 1), ("two", 1)]),
        consumers: BTreeMap::new(),
    };
    world.a.publish(routed(&world, streams));
    let outbound = world.outbound();
    let service: SocketAddr = "10.43.0.1:80".parse().expect("an address");
    let from = |port| SocketAddr::from(([10, 42, 0, 9], port));
    let ways = |port| outbound.endpoints(from(port), service);
    let found: BTreeSet<SocketAddr> = (4000..4064).flat_map(ways).collect();
    let expected = ["10.42.0.2:8080", "10.42.0.3:8080"];
    let expected = expected.map(|address| address.parse().expect("an address"));
    assert_eq!(found, expected.into());
    // What one socket sends stays together; streams are led by nothing here.
    for port in 4000..4064 {
        assert_eq!(ways(port), ways(port));
    }
    let past = by_a_stream(&outbound, "front:80").await;
    assert_eq!(past.as_deref(), Ok("front by a stream"));
    // Shares of nobody are lost.
    let streams = ServiceStreams {
        producer: at(StreamProtocol::Udp, &[("", 1)]),
        consumers: BTreeMap::new(),
    };
    let world = attached();
    world.a.publish(routed(&world, streams));
    assert!(world.outbound().endpoints(from(4000), service).is_empty());
}

#[tokio::test]
async fn datagrams_of_a_client_stay_where_its_service_says_so() {
    let world = attached();
    let endpoints = || {
        vec![
            endpoint("one", 2, "a", world.b_address),
            endpoint("voting", 3, "b", world.b_address),
        ]
    };
    let mut sticky = both("sticky", 4, endpoints());
    sticky.affinity = Some(Duration::from_secs(600));
    world.publish(1, vec![sticky, both("free", 5, endpoints())]);
    let outbound = world.outbound();
    let ways = |client: u8, service: u8| {
        let to = SocketAddr::from(([10, 43, 0, service], 80));
        let all = (4000..4016).map(|port| {
            let from = SocketAddr::from(([10, 42, 0, client], port));
            outbound.endpoints(from, to)
        });
        all.collect::<BTreeSet<_>>()
    };
    for client in [7, 8, 9] {
        let stayed = ways(client, 4);
        let only = stayed.first().expect("a way");
        assert_eq!((stayed.len(), only.len()), (1, 1), "{stayed:?}");
    }
    assert_eq!(ways(7, 5).first().map(Vec::len), Some(2));
}

#[tokio::test]
async fn callers_stay_on_their_node_where_the_service_says_so() {
    let world = attached();
    let here = || endpoint("one", 2, "a", world.b_address);
    let there = || endpoint("voting", 3, "b", world.b_address);
    let local = |name: &str, last, endpoints| ServiceSpec {
        internal_local: true,
        ..both(name, last, endpoints)
    };
    world.publish(
        1,
        vec![
            local("both", 1, vec![there(), here()]),
            local("far", 2, vec![there()]),
            both("any", 3, vec![there()]),
        ],
    );
    let outbound = world.outbound();
    let told = answered(&outbound, "both:80", 16).await;
    assert_eq!(told, [("one by a stream".to_owned(), 16)].into());
    for _ in 0..16 {
        let (_, said) = world.get("http://both/").await.expect("an answer");
        assert_eq!(said, "one by a call");
    }
    let from = SocketAddr::from(([10, 42, 0, 9], 4000));
    let ways = |last: u8| outbound.endpoints(from, ([10, 43, 0, last], 80).into());
    assert_eq!(ways(1), [SocketAddr::from(([10, 42, 0, 2], 8080))]);
    // Where nobody is here, nobody answers, though others are there.
    assert!(ways(2).is_empty());
    let refused = by_a_stream(&outbound, "far:80").await;
    assert_eq!(refused, Err(FailureKind::NoEndpoints));
    let failure = world.get("http://far/").await.expect_err("nobody is here");
    assert_eq!(failure.kind, FailureKind::NoEndpoints);
    assert_eq!(
        by_a_stream(&outbound, "any:80").await.as_deref(),
        Ok("voting by a stream")
    );
    // Nor does the gateway of a node lead elsewhere who asks for the Service by its own name.
    let (listener, gateway) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    for _ in 0..16 {
        let said = ask(gateway, "both.vote.localhost", "/").await;
        assert_eq!(said, "200 one by a call");
    }
    for (host, expected) in [
        ("far", "503 service far.vote has no ready endpoint"),
        ("any", "200 voting by a call"),
    ] {
        let said = ask(gateway, &format!("{host}.vote.localhost"), "/").await;
        assert_eq!(said, expected, "{host}");
    }
}

/// What is said on a stream of this workload's to `to`, for these bytes.
async fn spoken(outbound: &Outbound, to: SocketAddr, said: &str) -> String {
    let (mut here, there) = tokio::io::duplex(4096);
    let outbound = outbound.clone();
    let serving = tokio::spawn(async move { outbound.serve_requests(to, there).await });
    let speaking = async {
        let said = said.replace('\n', "\r\n");
        here.write_all(said.as_bytes()).await.expect("room");
        here.shutdown().await.expect("it ends");
        let mut heard = String::new();
        here.read_to_string(&mut heard).await.expect("an end");
        heard
    };
    let heard = tokio::time::timeout(DEADLINE, speaking).await;
    serving.await.expect("no panic");
    heard.expect("in time")
}

#[tokio::test]
async fn requests_on_a_workload_s_stream_meet_the_routes_of_its_service() {
    let world = attached();
    let to_service = |name: &str| {
        vec![Backend::new(BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: name.to_owned(),
            port: 80,
        })]
    };
    let rule = |path: &str, name: &str| {
        Arc::new(Rule {
            route: "vote/route".to_owned(),
            matches: vec![Match {
                path: PathMatch::Exact(path.to_owned()),
                ..Match::default()
            }],
            backends: to_service(name),
            ..Rule::default()
        })
    };
    let route = AttachedRoute {
        route: "vote/route".to_owned(),
        rules: [rule("/one", "one"), rule("/two", "two")].into(),
        ..AttachedRoute::default()
    };
    let routes = ServiceRoutes {
        producer: vec![route],
        ..ServiceRoutes::default()
    };
    let served = Served {
        services: std::iter::once((NamespacedName::new("vote", "front"), Arc::new(routes)))
            .collect(),
        ..Served::default()
    };
    let mut front = both("front", 1, vec![endpoint("front", 1, "a", world.b_address)]);
    front.ports[0].speaks_http = true;
    let one = both("one", 2, vec![endpoint("one", 2, "a", world.b_address)]);
    let mut two = both("two", 3, vec![endpoint("voting", 3, "b", world.b_address)]);
    two.ports[0].speaks_http = true;
    let builder = Table::builder("a", 1).services([front, one, two]);
    world.a.publish(builder.routes(&served).build());
    let outbound = world.outbound();
    let at = |last: u8| SocketAddr::from(([10, 43, 0, last], 80));
    // Where nothing is led, or nobody says what is spoken, bytes are bytes.
    let read = [at(1), at(2), at(3), ([10, 42, 0, 1], 8080).into()];
    let read = read.map(|to| outbound.reads_requests(to));
    assert_eq!(read, [true, false, false, false]);
    // Whichever host is named: the stream is to the Service.
    let said = "GET /one HTTP/1.1\nHost: two\n\nGET /two HTTP/1.1\nHost: nobody.test\n\nGET /three HTTP/1.1\nHost: one\nConnection: close\n\n";
    let heard = spoken(&outbound, at(1), said).await;
    let bodies: Vec<&str> = heard
        .split("\r\n\r\n")
        .skip(1)
        .map(|text| text.split("HTTP/1.1").next().unwrap_or_default().trim_end())
        .collect();
    assert_eq!(
        bodies,
        [
            "one by a call",
            "voting by a call",
            "no route matches GET /three"
        ],
        "{heard}"
    );
    let heard = spoken(&outbound, at(1), "\u{16}\u{3}\u{1}\n\n").await;
    assert!(
        heard.is_empty() || heard.starts_with("HTTP/1.1 400 "),
        "{heard}"
    );
    // Who calls the Service by a gateway where nobody published it is led as its callers within are.
    let (listener, gateway) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    for (path, expected) in [
        ("/one", "one by a call"),
        ("/two", "voting by a call"),
        ("/three", "no route matches GET /three"),
    ] {
        let mut stream = TcpStream::connect(gateway).await.expect("a gateway");
        let asked = format!(
            "GET {path} HTTP/1.1\r\nHost: front.vote.localhost\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).await.expect("room");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.expect("an end");
        assert!(heard.contains(expected), "{path}: {heard}");
    }
    world.stop.cancel();
}

/// A request by hand: its status, what weight it is told, and what else.
async fn checked(at: SocketAddr) -> (String, String, String) {
    let asking = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(at).await {
                let asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                stream.write_all(asked).await.expect("room");
                let mut text = String::new();
                stream.read_to_string(&mut text).await.expect("an end");
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(DEADLINE, asking).await;
    let told = told.expect("somebody listens");
    let (head, body) = told.split_once("\r\n\r\n").expect("a head");
    let status = head.get(9..12).expect("a status").to_owned();
    let mut lines = head.lines();
    let weight = lines.find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: "));
    (
        status,
        weight.expect("a weight").to_owned(),
        body.to_owned(),
    )
}

#[tokio::test]
async fn who_balances_before_the_nodes_is_told_where_endpoints_are() {
    let world = attached();
    let port = free_port();
    let at = SocketAddr::new(NODE, port);
    let publish = |generation, endpoints: Vec<EndpointSpec>, addresses: &[IpAddr]| {
        let mut service = both("web", 1, endpoints);
        service.external_local = true;
        service.health_port = Some(port);
        let mut builder = Table::builder("a", generation);
        builder.set_node_addresses(addresses.iter().copied());
        builder.set_service(service);
        world.a.publish(builder.table(generation));
    };
    let here = endpoint("one", 2, "a", world.b_address);
    let mut unready = endpoint("front", 1, "a", world.b_address);
    unready.ready = false;
    let there = endpoint("voting", 3, "b", world.b_address);
    publish(
        1,
        vec![here.clone(), unready.clone(), there.clone()],
        &[NODE],
    );
    let (mesh, stop) = (world.a.clone(), world.stop.clone());
    let spawn: Spawn = Arc::new(tokio::spawn);
    tokio::spawn(async move { mesh.serve_exposed(NODE, spawn, stop).await });
    let body = |count: usize| {
        format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"vote\",\n\t\t\"name\": \"web\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
        )
    };
    let expected = |status: &str, count: usize| (status.to_owned(), count.to_string(), body(count));
    assert_eq!(checked(at).await, expected("200", 1));
    publish(2, vec![unready, there.clone()], &[NODE]);
    assert_eq!(checked(at).await, expected("503", 0));
    // Nodes at one address are one to who balances.
    publish(3, vec![here, there], &[NODE, NODE]);
    assert_eq!(checked(at).await, expected("200", 2));
}
