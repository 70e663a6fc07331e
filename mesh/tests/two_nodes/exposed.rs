//! Services from outside by TCP and UDP: at addresses of their own and at ports of the node, to pods here and on the other node; who is
//! let in, who stays where he was, and what is let go.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
};
use weft_mesh::{
    Body, BoxError, Datagrams, Failure, FailureKind, LocalWorkload, PodAddress, PodRange, Protocol,
    Raw, ServicePortSpec, ServiceSpec, Spawn, Table, Unframed, flow, gateway_identity,
};

use super::world::*;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 83, 0, 1));
const DEADLINE: Duration = Duration::from_secs(20);

/// Says who it is, then what it hears, until that ends.
pub(super) fn speaker(account: &'static str) -> LocalWorkload {
    workload(account, move |request: Request<Body>| async move {
        if request.extensions().get::<Raw>().is_none() {
            return Err(FailureKind::NotCallable.into());
        }
        let hello = Frame::data(Bytes::from_static(account.as_bytes()));
        let hello = futures::stream::iter([Ok::<_, BoxError>(hello)]);
        let heard = futures::StreamExt::map(request.into_body().into_data_stream(), |part| {
            part.map(Frame::data)
        });
        let body = StreamBody::new(futures::StreamExt::chain(hello, heard));
        Ok(Response::new(Body::new(body)))
    })
}

/// Answers each datagram with who it is, who sent it, and what it says.
pub(super) fn answerer(account: &'static str) -> LocalWorkload {
    workload(account, move |request: Request<Body>| async move {
        let flow_of = request.extensions().get::<Datagrams>().copied();
        let of = flow_of.ok_or(FailureKind::NotCallable)?;
        let answers = futures::stream::unfold(
            (request.into_body(), Unframed::default()),
            move |(mut body, mut unframed)| async move {
                loop {
                    if let Some(datagram) = unframed.take().ok()? {
                        let said = String::from_utf8(datagram.to_vec()).ok()?;
                        let client = of.client.ip();
                        let text = format!("{account}:{} {client} {said}", of.port);
                        let mut frame = u16::try_from(text.len()).ok()?.to_be_bytes().to_vec();
                        frame.extend(text.as_bytes());
                        let frame = Frame::data(Bytes::from(frame));
                        return Some((Ok::<_, BoxError>(frame), (body, unframed)));
                    }
                    let part = body.frame().await?.ok()?.into_data().ok()?;
                    unframed.push(&part);
                }
            },
        );
        Ok(Response::new(Body::new(StreamBody::new(answers))))
    })
}

pub(super) fn door(last: u8) -> PodAddress {
    PodAddress {
        ip: pod(last).ip,
        port: 0,
    }
}

pub(super) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((NODE, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A Service with TCP and UDP at its port, an address of its own and a port of each node.
fn published(
    name: &str,
    own: [u8; 4],
    port: u16,
    node_port: Option<u16>,
    endpoints: Vec<weft_mesh::EndpointSpec>,
) -> ServiceSpec {
    let of = |protocol| ServicePortSpec {
        protocol,
        port,
        node_port,
        endpoints: endpoints.clone(),
        ..ServicePortSpec::default()
    };
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        addresses: vec![own.into()],
        ports: vec![of(Protocol::Tcp), of(Protocol::Udp)],
        ..ServiceSpec::default()
    }
}

fn serve(world: &World) -> JoinHandle<()> {
    let (mesh, stop) = (world.a.clone(), world.stop.clone());
    let spawn: Spawn = Arc::new(tokio::spawn);
    tokio::spawn(async move { mesh.serve_exposed(NODE, spawn, stop).await })
}

fn publish(world: &World, generation: u64, services: Vec<ServiceSpec>) {
    let mut builder = Table::builder("a", generation);
    builder.set_node_addresses([NODE]);
    for service in services {
        builder.set_service(service);
    }
    world.a.publish(builder.table(generation));
}

/// A connection, once somebody listens there.
async fn connected(at: SocketAddr) -> TcpStream {
    let connecting = async {
        loop {
            match TcpStream::connect(at).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let connected = tokio::time::timeout(DEADLINE, connecting).await;
    connected.unwrap_or_else(|_| panic!("nobody listens at {at}"))
}

/// Who answers there, after both sides said all; or that the connection was reset.
async fn told(at: SocketAddr) -> String {
    let mut stream = connected(at).await;
    let mut text = String::new();
    let speaking = async {
        stream.write_all(b" hears").await?;
        stream.shutdown().await?;
        stream.read_to_string(&mut text).await
    };
    match tokio::time::timeout(DEADLINE, speaking).await {
        Ok(Ok(_)) => text,
        // Whichever end notices first.
        Ok(Err(_)) => "reset".to_owned(),
        Err(_) => "nothing".to_owned(),
    }
}

/// What a datagram from a socket of its own is answered with.
async fn echoed(at: SocketAddr) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let asking = async {
        let mut buffer = [0; 256];
        loop {
            // It may be lost: nobody may be there yet.
            socket.send_to(b"hello", at).await.expect("sent");
            let received = socket.recv_from(&mut buffer);
            if let Ok(Ok((bytes, from))) =
                tokio::time::timeout(Duration::from_millis(300), received).await
            {
                assert_eq!(from, at, "who was asked answers");
                return String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            }
        }
    };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .expect("an answer")
}

#[tokio::test]
async fn services_are_reached_from_outside_wherever_their_pods_are() {
    let world = world();
    world.a.attach(pod(1), speaker("local"));
    world.a.attach(door(1), answerer("local"));
    world.b.attach(pod(2), speaker("voting"));
    world.b.attach(door(2), answerer("voting"));
    let here = || vec![endpoint("local", 1, "a", world.b_address)];
    let there = || vec![endpoint("voting", 2, "b", world.b_address)];
    let (port, node_port) = (free_port(), free_port());
    publish(
        &world,
        1,
        vec![
            published("local", [127, 83, 1, 1], port, None, here()),
            published("voting", [127, 83, 1, 2], port, Some(node_port), there()),
        ],
    );
    let serving = serve(&world);
    let own = |last| SocketAddr::from(([127, 83, 1, last], port));
    let node = SocketAddr::new(NODE, node_port);
    for (at, expected) in [(own(1), "local"), (own(2), "voting"), (node, "voting")] {
        assert_eq!(told(at).await, format!("{expected} hears"), "{at}");
        let echoed = echoed(at).await;
        assert_eq!(echoed, format!("{expected}:8080 192.0.0.8 hello"), "{at}");
    }
    // What is not there any more is let go.
    publish(
        &world,
        2,
        vec![published("local", [127, 83, 1, 1], port, None, here())],
    );
    let gone = async {
        while TcpStream::connect(node).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone)
        .await
        .expect("it is let go");
    assert_eq!(told(own(1)).await, "local hears");
    world.stop.cancel();
    tokio::time::timeout(DEADLINE, serving)
        .await
        .expect("in time")
        .expect("it ends");
    assert!(TcpStream::connect(own(1)).await.is_err(), "nothing is left");
}

#[tokio::test]
async fn who_may_not_come_or_finds_nobody_is_turned_away() {
    let world = world();
    world.a.attach(pod(1), speaker("local"));
    let here = || vec![endpoint("local", 1, "a", world.b_address)];
    let there = || vec![endpoint("voting", 2, "b", world.b_address)];
    let port = free_port();
    let mut closed = published("closed", [127, 83, 2, 1], port, None, here());
    closed.source_ranges = vec!["192.0.2.0/24".parse().expect("a range")];
    let mut open = published("open", [127, 83, 2, 2], port, None, here());
    open.source_ranges = vec!["127.0.0.0/8".parse().expect("a range")];
    let empty = published("empty", [127, 83, 2, 3], port, None, Vec::new());
    let mut only_here = published("only-here", [127, 83, 2, 4], port, None, there());
    only_here.external_local = true;
    publish(&world, 1, vec![closed, open, empty, only_here]);
    let _serving = serve(&world);
    for (last, expected) in [(1, "reset"), (2, "local hears"), (3, "reset"), (4, "reset")] {
        let at = SocketAddr::from(([127, 83, 2, last], port));
        assert_eq!(told(at).await, expected, "{at}");
    }
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_where_the_service_says_so() {
    let world = world();
    for (last, account) in [(1, "one"), (3, "two"), (4, "three")] {
        world.a.attach(pod(last), speaker(account));
        world.a.attach(door(last), answerer(account));
    }
    let endpoints = || {
        let all = [(1, "one"), (3, "two"), (4, "three")];
        all.map(|(last, account)| endpoint(account, last, "a", world.b_address))
            .to_vec()
    };
    let port = free_port();
    let mut sticky = published("sticky", [127, 83, 3, 1], port, None, endpoints());
    sticky.affinity = Some(Duration::from_secs(600));
    let free = published("free", [127, 83, 3, 2], port, None, endpoints());
    publish(&world, 1, vec![sticky, free]);
    let _serving = serve(&world);
    let sticky = SocketAddr::from(([127, 83, 3, 1], port));
    let free = SocketAddr::from(([127, 83, 3, 2], port));
    let (mut stayed, mut spread) = (Vec::new(), Vec::new());
    for _ in 0..24 {
        stayed.push(told(sticky).await);
        spread.push(told(free).await);
    }
    for told in [&mut stayed, &mut spread] {
        told.sort();
        told.dedup();
    }
    assert_eq!(stayed.len(), 1, "{stayed:?}");
    assert!(spread.len() > 1, "{spread:?}");
    let first = echoed(sticky).await;
    for _ in 0..8 {
        assert_eq!(echoed(sticky).await, first);
    }
}

#[tokio::test]
async fn datagrams_of_workloads_reach_pods_of_other_nodes_and_nothing_else() {
    let world = world();
    world.b.attach(door(2), answerer("voting"));
    let there = vec![endpoint("voting", 2, "b", world.b_address)];
    publish(
        &world,
        1,
        vec![published("voting", [127, 83, 4, 1], 5300, None, there)],
    );
    let client: SocketAddr = ([10, 42, 0, 9], 4000).into();
    let (sender, sent) = flow();
    let (hears, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let outbound = world.outbound();
    let carried = tokio::spawn(async move {
        let received = move |datagram: Bytes| drop(hears.send(datagram));
        outbound
            .carry_datagrams(pod(2).into(), client, sent, received)
            .await
    });
    for text in ["one", "two"] {
        sender.send(Bytes::from_static(text.as_bytes()));
        let answer = tokio::time::timeout(DEADLINE, heard.recv())
            .await
            .expect("in time");
        let expected = format!("voting:8080 10.42.0.9 {text}");
        assert_eq!(answer.expect("an answer"), expected.as_bytes());
    }
    drop(sender);
    let ended = tokio::time::timeout(DEADLINE, carried)
        .await
        .expect("in time");
    ended.expect("no panic").expect("it ends well");
    for address in ["169.254.169.254:53", "127.0.0.1:53", "192.0.2.1:53"] {
        let (_sender, sent) = flow();
        let address = address.parse().expect("an address");
        let outbound = world.outbound();
        let carried = outbound.carry_datagrams(address, client, sent, drop);
        let failure: Failure = carried.await.expect_err("nothing of the cluster is there");
        assert_eq!(failure.kind, FailureKind::Denied, "{address}");
    }
}

#[tokio::test]
async fn datagrams_reach_pods_that_no_service_leads_to() {
    let world = world();
    world.b.attach(door(130), answerer("voting"));
    let gateway = gateway_identity(DOMAIN);
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    let given = world.b.identities().set(gateway.clone(), chain, key);
    given.expect("the gateway's certificate");
    let range = PodRange {
        range: "10.42.0.128/25".parse().expect("a range"),
        node: "b".to_owned(),
        node_address: Some(world.b_address),
    };
    let mut builder = Table::builder("a", 1);
    builder.set_pod_ranges(gateway, [range]);
    world.a.publish(builder.table(1));
    let client: SocketAddr = ([10, 42, 0, 9], 4000).into();
    let (sender, sent) = flow();
    sender.send(Bytes::from_static(b"one"));
    let (hears, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let outbound = world.outbound();
    let carried = async {
        let received = move |datagram: Bytes| drop(hears.send(datagram));
        let carried = outbound.carry_datagrams(pod(130).into(), client, sent, received);
        carried.await.expect("it is carried");
    };
    let answered = async {
        let answer = heard.recv().await.expect("an answer");
        drop(sender);
        answer
    };
    let both = tokio::time::timeout(DEADLINE, async { tokio::join!(carried, answered) });
    let ((), answer) = both.await.expect("in time");
    assert_eq!(answer, "voting:8080 10.42.0.9 one");
}
