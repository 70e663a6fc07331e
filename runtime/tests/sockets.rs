//! Sockets of guests: a command that listens, connects and sends in the virtual network of its pod, and nowhere else.
//!
//! The guest is the sample `echo`, which is built on the standard library's sockets.

mod guest;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use weft_runtime::network::{Beyond, Stream, Via, pair};
use weft_runtime::{Engine, Exit, Network, Workload};

const PORT: u16 = 7000;
const IP: &str = "10.42.0.2";

/// How long a guest may take to start: it is compiled first.
const PATIENCE: Duration = Duration::from_secs(60);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A world of one neighbour, who answers what he is told, and one name.
#[derive(Clone, Default)]
struct Neighbour {
    told: Arc<Mutex<Vec<String>>>,
}

impl Beyond for Neighbour {
    fn opened(&self, network: &Network, port: u16) {
        self.told
            .lock()
            .push(format!("{} listens on {port}", network.ip()));
    }

    fn closed(&self, port: u16) {
        self.told.lock().push(format!("{port} is closed"));
    }

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(async move {
            match to.port() {
                80 => {}
                81 => return Err(io::ErrorKind::PermissionDenied.into()),
                _ => return Err(io::ErrorKind::ConnectionRefused.into()),
            }
            let (here, there) = pair(from, to);
            tokio::spawn(async move {
                let mut there = BufReader::new(there);
                let mut line = String::new();
                there.read_line(&mut line).await.unwrap();
                let answer = format!("{} from {}", line.trim_end(), from.ip());
                there.write_all(answer.as_bytes()).await.unwrap();
            });
            Ok(here)
        })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: Bytes) {
        let text = String::from_utf8_lossy(&datagram).into_owned();
        self.told.lock().push(format!("{from} sends {to} {text}"));
    }

    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let found = match name.as_str() {
            "web" => Ok(vec!["10.43.0.7".parse().unwrap()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        Box::pin(std::future::ready(found))
    }
}

async fn echo(network: Option<Network>) -> Workload {
    let engine = Engine::builder().build().unwrap();
    let artifact = engine.load(guest::bytes("echo")).await.unwrap();
    let builder = Workload::builder(&engine, &artifact)
        .name("echo")
        .args(vec!["echo".to_owned(), PORT.to_string()]);
    match network {
        Some(network) => builder.network(network),
        None => builder,
    }
    .build()
    .unwrap()
}

/// A connection to the guest, once it listens.
async fn connected(network: &Network) -> Stream {
    let connecting = async {
        loop {
            match network.connect(at("10.42.0.9:5000"), Via::Address, PORT) {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.unwrap()
}

/// What the guest answers to each line.
async fn asked(stream: impl AsyncRead + AsyncWrite + Unpin, lines: &[&str]) -> String {
    let mut stream = BufReader::new(stream);
    let mut told = String::new();
    for line in lines {
        stream
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        told += &format!("{line} -> {answer}");
    }
    told
}

#[tokio::test]
async fn a_command_listens_and_connects_in_its_pods_network() {
    let neighbour = Neighbour::default();
    let network = Network::new(IP.parse().unwrap(), neighbour.clone());
    assert!(network.serve(8080), "another container's");
    let workload = echo(Some(network.clone())).await;
    let running = {
        let workload = workload.clone();
        tokio::spawn(async move { workload.run().await })
    };
    let stream = connected(&network).await;
    let told = asked(
        stream,
        &[
            "hello",
            "lookup web",
            "lookup localhost",
            "lookup 10.1.2.3",
            "lookup nowhere",
            "bind 0.0.0.0:7001",
            "bind 127.0.0.1:7000",
            "bind 127.0.0.1:8080",
            "bind 192.0.2.1:80",
            "connect 10.43.0.7:80",
            "connect 10.43.0.7:81",
            "connect 10.43.0.7:82",
            "connect 127.0.0.1:7002",
            "connect web:80",
        ],
    )
    .await;
    insta::assert_snapshot!(told, @r"
    hello -> HELLO
    lookup web -> 10.43.0.7
    lookup localhost -> 127.0.0.1 ::1
    lookup 10.1.2.3 -> 10.1.2.3
    lookup nowhere -> Uncategorized
    bind 0.0.0.0:7001 -> bound
    bind 127.0.0.1:7000 -> AddrInUse
    bind 127.0.0.1:8080 -> AddrInUse
    bind 192.0.2.1:80 -> AddrNotAvailable
    connect 10.43.0.7:80 -> heard hello from 10.42.0.2
    connect 10.43.0.7:81 -> PermissionDenied
    connect 10.43.0.7:82 -> ConnectionRefused
    connect 127.0.0.1:7002 -> ConnectionRefused
    connect web:80 -> heard hello from 10.42.0.2
    ");
    assert!(network.listens(PORT, Via::Address));

    network.deliver(at("10.42.0.9:6000"), PORT, Bytes::from_static(b"datagram"));
    let told = asked(connected(&network).await, &["again"]).await;
    assert_eq!(told, "again -> AGAIN\n");

    workload.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap(), Exit::Stopped);
    assert!(!network.listens(PORT, Via::Address), "its port is free");
    assert!(
        network
            .connect(at("10.42.0.9:1"), Via::Address, PORT)
            .is_err()
    );
    let told = neighbour.told.lock().join("\n");
    insta::assert_snapshot!(told, @r"
    10.42.0.2 listens on 7000
    10.42.0.2 listens on 7001
    7001 is closed
    10.42.0.2:7000 sends 10.42.0.9:6000 DATAGRAM
    7000 is closed
    ");
    assert_eq!(workload.usage().memory_bytes, 0, "nothing is held for it");
}

#[tokio::test]
async fn a_command_that_does_not_wait_is_told_so() {
    let network = Network::new(IP.parse().unwrap(), Neighbour::default());
    let workload = echo(Some(network.clone())).await;
    let running = {
        let workload = workload.clone();
        tokio::spawn(async move { workload.run().await })
    };
    let mut stream = connected(&network).await;
    let told = asked(&mut stream, &["poll now"]).await;
    assert_eq!(told, "poll now -> WouldBlock\n", "nobody is there");

    let came = |from| network.connect(at(from), Via::Address, PORT).unwrap();
    let _silent = came("10.42.0.9:5001");
    let mut speaking = came("10.42.0.9:5002");
    speaking.write_all(b"hello").await.unwrap();
    let told = asked(&mut stream, &["poll now", "poll now", "poll now"]).await;
    insta::assert_snapshot!(told, @r"
    poll now -> 10.42.0.9:5001 says WouldBlock
    poll now -> 10.42.0.9:5002 says hello
    poll now -> WouldBlock
    ");
    workload.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap(), Exit::Stopped);
}

#[tokio::test]
async fn a_command_without_a_network_has_no_socket() {
    assert_eq!(echo(None).await.run().await, Exit::Failed(1));
}
