//! Listeners of Gateways for TCP, TLS and UDP, to pods here and on the other node: many bytes both ways, ends and breaks told apart, who is
//! let in by policies, and clients of datagrams that are led elsewhere when their route is.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_rustls::TlsConnector;
use weft_gateway::{
    Backend, BackendTarget, FrontTls, HostPattern, NamespacedName, Served, StreamFront,
    StreamListener, StreamProtocol, StreamRoute, api::Secret,
};
use weft_mesh::{
    Body, BoxError, FailureKind, Interest, LocalWorkload, Protocol, QUEUE_USUAL, Raw,
    ServicePortSpec, ServiceSpec, Spawn, Table,
};
use weft_policy::PolicyKind;

use super::{
    exposed::{answerer, door, free_port, speaker},
    policies::policies,
    world::*,
};

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 84, 0, 1));
/// What a Gateway has for itself.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 84, 1, 1));
const DEADLINE: Duration = Duration::from_secs(20);

/// Says something, and breaks off.
fn breaker(account: &'static str) -> LocalWorkload {
    workload(account, move |request: Request<Body>| async move {
        if request.extensions().get::<Raw>().is_none() {
            return Err(FailureKind::NotCallable.into());
        }
        let said = Frame::data(Bytes::from_static(b"half of"));
        let broken = BoxError::from("it broke");
        let said = futures::stream::iter([Ok(said), Err(broken)]);
        Ok(Response::new(Body::new(StreamBody::new(said))))
    })
}

/// Routes at places of [`OWN`]: protocol, port, listener's host and certificate, and shares.
#[derive(Default)]
struct Listeners(Served);

impl Listeners {
    fn with(
        mut self,
        protocol: StreamProtocol,
        port: u16,
        (host, tls): (&str, Option<&Arc<FrontTls>>),
        shares: &[(&str, u32)],
    ) -> Self {
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
        let route = StreamRoute {
            route: "vote/route".to_owned(),
            created: 0,
            gateway: Some(NamespacedName::new("vote", "shop")),
            backends: backends.collect(),
        };
        let host = HostPattern::parse(host);
        let listener = StreamListener {
            tls: tls.cloned(),
            hosts: [(host.clone(), route)].into(),
        };
        let place = (protocol, SocketAddr::new(OWN, port));
        let front: &mut StreamFront = self.0.streams.entry(place).or_default();
        front.listeners.insert(host, listener);
        self
    }
}

/// A Service with TCP and UDP at port 80.
fn both(name: &str, endpoints: Vec<weft_mesh::EndpointSpec>) -> ServiceSpec {
    let of = |protocol| ServicePortSpec {
        protocol,
        port: 80,
        endpoints: endpoints.clone(),
        ..ServicePortSpec::default()
    };
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        ports: vec![of(Protocol::Tcp), of(Protocol::Udp)],
        ..ServiceSpec::default()
    }
}

fn publish(world: &World, generation: u64, listeners: &Listeners) {
    let services = [
        both("local", vec![endpoint("local", 1, "a", world.b_address)]),
        both("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        both("broken", vec![endpoint("voting", 3, "b", world.b_address)]),
    ];
    let mut builder = Table::builder("a", generation);
    for service in services {
        builder.set_service(service);
    }
    builder.set_routes(&listeners.0);
    world.a.publish(builder.table(generation));
}

/// Serves what there is at `port` of [`OWN`]: connections, and datagrams.
fn serve(world: &World, port: u16) {
    let place = SocketAddr::new(OWN, port);
    let listener = TcpListener::bind(place).expect("the place");
    let (mesh, stop) = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { mesh.serve_place(place, listener, stop).await });
    let (mesh, stop) = (world.a.clone(), world.stop.clone());
    let spawn: Spawn = Arc::new(tokio::spawn);
    tokio::spawn(async move { mesh.serve_exposed(NODE, spawn, stop).await });
}

fn attached() -> World {
    let world = world();
    world.a.attach(pod(1), speaker("local"));
    world.a.attach(door(1), answerer("local"));
    world.b.attach(pod(2), speaker("voting"));
    world.b.attach(door(2), answerer("voting"));
    world.b.attach(pod(3), breaker("voting"));
    world
}

async fn said(stream: impl AsyncRead + AsyncWrite + Unpin, what: &[u8]) -> io::Result<Vec<u8>> {
    let (mut read, mut write) = tokio::io::split(stream);
    let speaking = async {
        write.write_all(what).await?;
        write.shutdown().await
    };
    let hearing = async {
        let mut heard = Vec::new();
        read.read_to_end(&mut heard).await.map(|_| heard)
    };
    let both = async { tokio::try_join!(speaking, hearing) };
    let both = tokio::time::timeout(DEADLINE, both).await.expect("in time");
    both.map(|((), heard)| heard)
}

async fn connected(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::new(OWN, port)).await;
    stream.expect("a connection")
}

/// Some bytes that are not alike.
fn many(count: usize) -> Vec<u8> {
    let bytes = (0..count).map(|at| u8::try_from(at % 251).unwrap_or_default());
    bytes.collect()
}

#[tokio::test]
async fn connections_reach_pods_of_either_node_whole_or_not_at_all() {
    let world = attached();
    let port = free_port();
    let tcp = (StreamProtocol::Tcp, ("*", None));
    let mut generation = 0;
    let mut lead = |shares: &[(&str, u32)]| {
        generation += 1;
        let listeners = Listeners::default().with(tcp.0, port, tcp.1, shares);
        publish(&world, generation, &listeners);
    };
    lead(&[("local", 1)]);
    serve(&world, port);
    let bytes = many(3 << 20);
    for account in ["local", "voting"] {
        lead(&[(account, 1)]);
        let heard = said(connected(port).await, &bytes).await;
        let heard = heard.expect("an answer");
        assert!(heard == [account.as_bytes(), &bytes].concat(), "{account}");
    }
    // An answer that breaks off is no end.
    lead(&[("broken", 1)]);
    let mut stream = connected(port).await;
    let mut heard = Vec::new();
    let hearing = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut heard));
    assert!(hearing.await.expect("in time").is_err(), "{heard:?}");
    // Shares without anybody are nobody else's.
    for shares in [
        &[("", 1), ("local", 0)][..],
        &[("local", 0)],
        &[("gone", 1)],
    ] {
        lead(shares);
        let refused = said(connected(port).await, b"!").await;
        assert!(refused.is_err(), "{shares:?}");
    }
}

/// A certificate for a name, as a Secret holds it, and who trusts it.
fn certificate(name: &str) -> (Arc<FrontTls>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = made.signing_key.serialize_pem();
    let data = BTreeMap::from([
        ("tls.crt".to_owned(), made.cert.pem().into_bytes()),
        ("tls.key".to_owned(), key.into_bytes()),
    ]);
    let pair = Secret::read(&data, true).0.expect("a pair");
    let shown = FrontTls {
        certificates: vec![pair],
        clients: None,
    };
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions");
    let client = builder.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(shown), Arc::new(client))
}

#[tokio::test]
async fn tls_is_opened_or_passed_on_to_the_other_node() {
    let world = attached();
    let port = free_port();
    let (shown, client) = certificate("open.test");
    let tls = StreamProtocol::Tls;
    let listeners = Listeners::default()
        .with(tls, port, ("open.test", Some(&shown)), &[("voting", 1)])
        .with(tls, port, ("*.whole.test", None), &[("voting", 1)]);
    publish(&world, 1, &listeners);
    serve(&world, port);
    let bytes = many(1 << 20);
    let expected = |bytes: &[u8]| [b"voting", bytes].concat();
    let name = ServerName::try_from("open.test").expect("a name");
    let connecting = TlsConnector::from(Arc::clone(&client)).connect(name, connected(port).await);
    let opened = connecting.await.expect("a handshake");
    assert!(opened.get_ref().1.alpn_protocol().is_none());
    let heard = said(opened, &bytes).await.expect("an answer");
    assert!(heard == expected(&bytes));
    let name = ServerName::try_from("a.whole.test").expect("a name");
    let mut asking = ClientConnection::new(client, name).expect("a client");
    let mut greeting = Vec::new();
    asking.write_tls(&mut greeting).expect("a greeting");
    // However it is cut up, and whatever comes after it.
    for pieces in [1, 3, greeting.len()] {
        let (read, mut write) = connected(port).await.into_split();
        let hearing = tokio::spawn(async move {
            let (mut read, mut heard) = (read, Vec::new());
            read.read_to_end(&mut heard).await.map(|_| heard)
        });
        for piece in greeting.chunks(greeting.len().div_ceil(pieces)) {
            write.write_all(piece).await.expect("room");
            tokio::task::yield_now().await;
        }
        write.write_all(&bytes).await.expect("room");
        write.shutdown().await.expect("it ends");
        let heard = tokio::time::timeout(DEADLINE, hearing).await;
        let heard = heard.expect("in time").expect("no panic");
        let all = expected(&[&greeting[..], &bytes].concat());
        assert!(heard.expect("an answer") == all, "{pieces} pieces");
    }
}

/// As Istio's documentation has it of what is no HTTP: an ALLOW that asks for what only HTTP says lets nobody in, and a DENY is met without it.
#[tokio::test]
async fn a_gateways_policies_are_asked_of_bytes() {
    let world = attached();
    let (plain, tls_port) = (free_port(), free_port());
    let (shown, client) = certificate("open.test");
    let tls = StreamProtocol::Tls;
    let listeners = Listeners::default()
        .with(StreamProtocol::Tcp, plain, ("*", None), &[("local", 1)])
        .with(tls, tls_port, ("open.test", Some(&shown)), &[("local", 1)])
        .with(tls, tls_port, ("*.whole.test", None), &[("local", 1)]);
    publish(&world, 1, &listeners);
    serve(&world, plain);
    serve(&world, tls_port);
    let by_name = |name: &'static str| {
        let client = Arc::clone(&client);
        async move {
            let name = ServerName::try_from(name).expect("a name");
            let stream = connected(tls_port).await;
            let connecting = TlsConnector::from(client).connect(name, stream);
            let connecting = tokio::time::timeout(DEADLINE, connecting).await;
            match connecting.expect("in time") {
                Ok(opened) => said(opened, b"!").await.is_ok(),
                // Whoever is behind it speaks no TLS, and has said so.
                Err(error) => error.kind() == io::ErrorKind::InvalidData,
            }
        }
    };
    let about = |name: &str, action: &str, rules: Value| {
        let target =
            json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name });
        json!({ "targetRefs": [target], "action": action, "rules": rules })
    };
    let from = |blocks: &str| json!([{ "from": [{ "source": { "ipBlocks": [blocks] } }] }]);
    let to = |operation: Value| json!([{ "to": [{ "operation": operation }] }]);
    let sni =
        |field: &str| json!([{ "when": [{ "key": "connection.sni", field: ["open.test"] }] }]);
    let mut refused = 0;
    let mut seen = world.a.watch_calls(Interest::default(), QUEUE_USUAL);
    for (spec, expected) in [
        (about("other", "DENY", json!([{}])), [true, true, true]),
        (
            about("shop", "ALLOW", from("127.0.0.0/8")),
            [true, true, true],
        ),
        (
            about("shop", "ALLOW", from("10.0.0.0/8")),
            [false, false, false],
        ),
        (
            about("shop", "DENY", from("127.0.0.0/8")),
            [false, false, false],
        ),
        (
            about("shop", "DENY", to(json!({ "ports": [plain.to_string()] }))),
            [false, true, true],
        ),
        (
            about(
                "shop",
                "ALLOW",
                to(json!({ "ports": [tls_port.to_string()] })),
            ),
            [false, true, true],
        ),
        (about("shop", "DENY", sni("values")), [true, false, true]),
        (about("shop", "ALLOW", sni("values")), [false, true, false]),
        // Who names nobody does not name this one.
        (
            about("shop", "ALLOW", sni("notValues")),
            [true, false, true],
        ),
        (
            about("shop", "ALLOW", to(json!({ "methods": ["GET"] }))),
            [false, false, false],
        ),
        (
            about("shop", "DENY", to(json!({ "methods": ["GET"] }))),
            [false, false, false],
        ),
        (
            about(
                "shop",
                "DENY",
                to(json!({ "methods": ["GET"], "ports": [plain.to_string()] })),
            ),
            [false, true, true],
        ),
        (about("shop", "AUDIT", json!([{}])), [true, true, true]),
    ] {
        let all = policies(&[(PolicyKind::Authorization, spec.clone())]);
        world.a.set_policies(all);
        let found = [
            said(connected(plain).await, b"!").await.is_ok(),
            by_name("open.test").await,
            by_name("a.whole.test").await,
        ];
        assert_eq!(found, expected, "{spec}");
        refused += expected.iter().filter(|is_in| !**is_in).count();
    }
    let mut told = String::new();
    world.a.render_metrics(&mut told);
    for line in [
        format!("weft_mesh_policy_verdicts_total{{verdict=\"denied\"}} {refused}"),
        "weft_mesh_policy_verdicts_total{verdict=\"audited\"} 3".to_owned(),
    ] {
        assert!(told.contains(&line), "{line} in {told}");
    }
    // They began and ended, and went to nobody.
    let nobody = told.lines().filter(|line| {
        line.contains("destination_service_name=\"unknown\"")
            && line.contains("source_workload=\"gateway\"")
    });
    let ends = nobody.filter(|line| line.starts_with("istio_tcp_connections_"));
    let ends: Vec<_> = ends.filter_map(|line| line.rsplit_once(' ')).collect();
    assert_eq!(ends.len(), 2, "{told}");
    assert!(
        ends.iter().all(|(_, count)| *count == refused.to_string()),
        "{ends:?}"
    );
    let seen = seen.as_mut().expect("room");
    let seen = std::iter::from_fn(|| seen.try_next()).filter(|call| call.code == 403);
    let seen: Vec<_> = seen.map(|call| call.authority().to_owned()).collect();
    assert_eq!(seen, vec!["local.vote.svc:80".to_owned(); refused]);
}

/// What a datagram of a client is answered with, asked until it is.
async fn echoed(socket: &UdpSocket, at: SocketAddr, expected: &str) {
    let asking = async {
        let mut buffer = [0; 256];
        loop {
            socket.send_to(b"hello", at).await.expect("sent");
            let received = socket.recv_from(&mut buffer);
            let received = tokio::time::timeout(Duration::from_millis(200), received).await;
            if let Ok(Ok((bytes, _))) = received
                && String::from_utf8_lossy(&buffer[..bytes]).starts_with(expected)
            {
                return;
            }
        }
    };
    let asked = tokio::time::timeout(DEADLINE, asking).await;
    asked.unwrap_or_else(|_| panic!("{expected} does not answer"));
}

#[tokio::test]
async fn a_client_of_datagrams_goes_where_its_route_leads_now() {
    let world = attached();
    let port = free_port();
    let lead = |generation, shares: &[(&str, u32)]| {
        let listeners = Listeners::default();
        let listeners = listeners.with(StreamProtocol::Udp, port, ("*", None), shares);
        publish(&world, generation, &listeners);
    };
    lead(1, &[("voting", 1), ("local", 0)]);
    serve(&world, port);
    let at = SocketAddr::new(OWN, port);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = socket.expect("a port");
    echoed(&socket, at, "voting:8080 192.0.0.8 hello").await;
    // It stays while it may, whatever its share.
    lead(2, &[("voting", 1), ("local", 100_000)]);
    for _ in 0..4 {
        echoed(&socket, at, "voting:").await;
    }
    // And where it may not any more, as after a grant was taken back, it is led anew.
    lead(3, &[("local", 1), ("voting", 0)]);
    echoed(&socket, at, "local:8080").await;
    lead(4, &[("", 1)]);
    let mut buffer = [0; 256];
    // What was asked for before may still come.
    let mut silent = 0;
    while silent < 3 {
        socket.send_to(b"hello", at).await.expect("sent");
        let received = socket.recv_from(&mut buffer);
        match tokio::time::timeout(Duration::from_millis(200), received).await {
            Ok(_) => silent = 0,
            Err(_) => silent += 1,
        }
    }
}

/// Attacks 41 to 44: whoever writes an endpoint into a slice reaches nothing of the machine by a Gateway.
#[tokio::test]
async fn attack_42_endpoints_that_are_no_pods_are_reached_by_no_stream() {
    let world = attached();
    let port = free_port();
    let victim = TcpListener::bind("127.0.0.1:0").expect("a port");
    let victim_at = victim.local_addr().expect("its address");
    victim.set_nonblocking(true).expect("it does not wait");
    let datagrams = std::net::UdpSocket::bind(victim_at).expect("the same for datagrams");
    datagrams.set_nonblocking(true).expect("it does not wait");
    for (generation, ip) in [
        (1, "127.0.0.1"),
        (2, "169.254.169.254"),
        (3, "0.0.0.0"),
        (4, "::ffff:127.0.0.1"),
        (5, "::1"),
        (6, "64:ff9b::7f00:1"),
    ] {
        let mut endpoint = endpoint("local", 9, "a", world.b_address);
        endpoint.ip = ip.parse().expect("an address");
        endpoint.port = victim_at.port();
        let mut builder = Table::builder("a", generation);
        builder.set_service(both("evil", vec![endpoint]));
        let listeners = Listeners::default()
            .with(StreamProtocol::Tcp, port, ("*", None), &[("evil", 1)])
            .with(StreamProtocol::Udp, port, ("*", None), &[("evil", 1)]);
        builder.set_routes(&listeners.0);
        world.a.publish(builder.table(generation));
        if generation == 1 {
            serve(&world, port);
        }
        let refused = said(connected(port).await, b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(refused.is_err(), "{ip}");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let socket = socket.expect("a port");
        let at = SocketAddr::new(OWN, port);
        socket.send_to(b"hello", at).await.expect("sent");
        let mut buffer = [0; 16];
        let received = socket.recv_from(&mut buffer);
        let received = tokio::time::timeout(Duration::from_millis(200), received).await;
        assert!(received.is_err(), "{ip}");
    }
    assert!(victim.accept().is_err(), "nobody came");
    assert!(datagrams.recv(&mut [0; 16]).is_err(), "nothing came");
}
