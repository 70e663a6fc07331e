//! A pod's network by itself: who reaches whom, what is refused, and what is left when sockets go.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::limits::MemoryAccount;

fn host(bytes: u64) -> Arc<HostBytes> {
    HostBytes::new(Arc::new(MemoryAccount::new(bytes)), Arc::default(), None)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn alone() -> Network {
    Network::new("10.42.0.2".parse().unwrap(), ())
}

fn dialled(network: &Network, to: &str, host: &Arc<HostBytes>) -> Result<Stream, String> {
    match network.dial(None, at(to), host) {
        Dialing::Done(done) => done.map_err(|code| format!("{code:?}")),
        Dialing::Waiting(_) => Err("it waits for what is beyond".to_owned()),
    }
}

#[test]
fn an_address_is_bound_where_it_is_the_pods() {
    let network = alone();
    let held = network.bind(at("0.0.0.0:80")).unwrap();
    for (address, expected) in [
        ("0.0.0.0:80", "AddressInUse"),
        ("127.0.0.1:80", "AddressInUse"),
        ("10.42.0.2:81", "ok"),
        ("127.0.0.1:82", "ok"),
        ("[::]:83", "ok"),
        ("[::1]:84", "ok"),
        ("10.42.0.3:85", "AddressNotBindable"),
        ("192.0.2.1:86", "AddressNotBindable"),
    ] {
        let bound = network.bind(at(address));
        let found = bound.map_or_else(|code| format!("{code:?}"), |_| "ok".to_owned());
        assert_eq!(found, expected, "{address}");
    }
    drop(held);
    assert!(network.bind(at("0.0.0.0:80")).is_ok(), "it is free again");
    let any = network.bind(at("0.0.0.0:0")).unwrap().local().port();
    assert!(EPHEMERAL.contains(&any));
}

#[tokio::test]
async fn a_listener_is_reached_by_who_may_and_answers() {
    let (network, memory) = (alone(), host(1 << 20));
    let open = network.bind(at("0.0.0.0:80")).unwrap().listen(8, &memory);
    let inner = network.bind(at("127.0.0.1:81")).unwrap();
    let _inner = inner.listen(8, &memory);
    let from = at("10.42.0.9:5000");
    for (via, port, reached) in [
        (Via::Address, 80, true),
        (Via::Loopback, 80, true),
        (Via::Address, 81, false),
        (Via::Loopback, 81, true),
        (Via::Loopback, 82, false),
    ] {
        let found = network.connect(from, via, port).is_ok();
        assert_eq!(found, reached, "{via:?} {port}");
        assert_eq!(network.listens(port, via), reached, "{via:?} {port}");
    }
    // Those of above wait, too.
    while !is_empty(&open) {
        poll_fn(|cx| open.poll_accept(cx)).await;
    }
    let mut client = network.connect(from, Via::Address, 80).unwrap();
    let mut served = poll_fn(|cx| open.poll_accept(cx)).await;
    assert_eq!((served.remote(), served.local()), (from, client.remote()));
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    served.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
}

fn is_empty(listener: &Listener) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    listener.poll_any(&mut cx).is_pending()
}

#[test]
fn what_a_guest_connects_to_inside_of_its_pod() {
    let (network, memory) = (alone(), host(1 << 20));
    let _open = network.bind(at("[::]:80")).unwrap().listen(8, &memory);
    let _inner = network.bind(at("127.0.0.1:81")).unwrap().listen(8, &memory);
    let _bound = network.bind(at("0.0.0.0:82")).unwrap();
    assert!(network.serve(83) && !network.serve(80));
    for (to, expected) in [
        ("127.0.0.1:80", "ok"),
        ("[::1]:80", "ok"),
        ("10.42.0.2:80", "ok"),
        ("127.0.0.1:81", "ok"),
        ("10.42.0.2:81", "ConnectionRefused"),
        ("127.0.0.1:82", "ConnectionRefused"),
        ("127.0.0.1:83", "it waits for what is beyond"),
        ("127.0.0.1:84", "ConnectionRefused"),
        ("10.42.0.3:80", "it waits for what is beyond"),
    ] {
        let found = dialled(&network, to, &memory);
        let found = found.map_or_else(|refused| refused, |_| "ok".to_owned());
        assert_eq!(found, expected, "{to}");
    }
}

#[test]
fn bounds_hold_and_are_given_back() {
    let (network, memory) = (alone(), host(CONNECTION_BYTES * 3));
    let listener = network.bind(at("0.0.0.0:80")).unwrap().listen(2, &memory);
    let connect = || network.connect(at("10.42.0.9:1"), Via::Address, 80);
    let first = connect().unwrap();
    let _second = connect().unwrap();
    assert!(connect().is_err(), "two may wait");
    listener.set_backlog(BACKLOG_MAX * 2);
    let third = connect().unwrap();
    assert!(connect().is_err(), "the guest has memory for three");
    drop((first, third));
    assert!(
        connect().is_err(),
        "the guest's ends hold theirs until it closes them"
    );
    drop(listener);
    assert!(connect().is_err(), "nobody listens");
    let listener = network.bind(at("0.0.0.0:80")).unwrap().listen(1, &memory);
    let _again = connect().expect("the memory came back with the listener");
    drop(listener);
}

#[tokio::test]
async fn datagrams_find_their_mailbox() {
    let (network, memory) = (alone(), host(1 << 20));
    let server = network.bind_udp(at("0.0.0.0:53"), &memory).unwrap();
    let client = network.bind_udp(at("0.0.0.0:0"), &memory).unwrap();
    let port = client.local().port();
    client.send(at("127.0.0.1:53"), Bytes::from_static(b"one"));
    client.send(at("10.42.0.2:53"), Bytes::from_static(b"two"));
    client.send(at("10.42.0.2:54"), Bytes::from_static(b"lost"));
    network.deliver(at("10.42.0.9:7"), 53, Bytes::from_static(b"three"));
    let mut found = String::new();
    for _ in 0..3 {
        let (from, datagram) = poll_fn(|cx| server.mailbox().poll_take(cx)).await;
        let text = String::from_utf8_lossy(&datagram);
        found += &format!("{} {}: {text}\n", from.ip(), from.port() == port);
    }
    assert_eq!(
        found,
        "127.0.0.1 true: one\n10.42.0.2 true: two\n10.42.0.9 false: three\n"
    );
}

#[tokio::test]
async fn names_are_what_is_known_beyond() {
    let network = alone();
    for (name, expected) in [
        ("10.42.0.7", "[10.42.0.7]"),
        ("::1", "[::1]"),
        ("LocalHost.", "[127.0.0.1, ::1]"),
        ("example.com", "entity not found"),
    ] {
        let found = network.resolve(name.to_owned()).await;
        let found = found.map_or_else(|error| error.to_string(), |ips| format!("{ips:?}"));
        assert_eq!(found, expected, "{name}");
    }
}

/// What is outside at one address of the loopback, as a port of the node is.
struct NodePort;

impl Beyond for NodePort {
    fn opened(&self, _: &Network, _: u16) {}

    fn closed(&self, _: u16) {}

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(std::future::ready(Ok(pair(from, to).0)))
    }

    fn send(&self, _: SocketAddr, _: SocketAddr, _: Bytes) {}

    fn is_at(&self, to: SocketAddr, is_udp: bool) -> bool {
        !is_udp && to == at("127.0.0.1:30080")
    }

    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
    }
}

#[tokio::test]
async fn a_port_of_the_node_is_at_the_loopback_unless_a_guest_is() {
    let memory = host(1 << 20);
    let network = Network::new("10.42.0.2".parse().unwrap(), NodePort);
    let beyond = match network.dial(None, at("127.0.0.1:30080"), &memory) {
        Dialing::Waiting(waiting) => waiting.await.map(|stream| stream.remote()),
        Dialing::Done(done) => done.map(|stream| stream.remote()),
    };
    assert_eq!(beyond.ok(), Some(at("127.0.0.1:30080")));
    let refused = dialled(&network, "127.0.0.1:30081", &memory);
    assert_eq!(refused.err().as_deref(), Some("ConnectionRefused"));
    let _guest = network.bind(at("127.0.0.1:30080")).unwrap();
    let refused = dialled(&network, "127.0.0.1:30080", &memory);
    assert_eq!(
        refused.err().as_deref(),
        Some("ConnectionRefused"),
        "it is the guest's"
    );
}
