//! exec, attach and port-forward as clients of all times ask for them, with a node behind that is not one (`stub_node`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tower::ServiceExt as _;
use weft_apiserver::spdy::frame::{Decoder, Encoder, Frame};

use crate::hook::{Hook, Reply};
use crate::stub_node::StubNode;
use crate::world::*;

/// A connection of its own to the world's face.
fn connection(world: &World) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 << 10);
    let router = world.router.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), service)
        .with_upgrades();
    tokio::spawn(connection);
    client
}

type Socket = WebSocketStream<DuplexStream>;

/// A WebSocket, and the protocol that was agreed on.
async fn socket(world: &World, path: &str, protocol: &str) -> (Socket, String) {
    let opened = open_socket(world, path, protocol, "secret").await;
    opened.map_err(|refused| refused.0.to_string()).unwrap()
}

struct Refused(u16, Value);

async fn open_socket(
    world: &World,
    path: &str,
    protocol: &str,
    token: &str,
) -> Result<(Socket, String), Refused> {
    let mut request = format!("ws://weft{path}").into_client_request().unwrap();
    let headers = request.headers_mut();
    let token = format!("Bearer {token}").parse().unwrap();
    headers.insert(header::AUTHORIZATION, token);
    if !protocol.is_empty() {
        let protocol = HeaderValue::from_str(protocol).unwrap();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    match tokio_tungstenite::client_async(request, connection(world)).await {
        Ok((socket, response)) => {
            let agreed = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            let agreed = agreed.map_or("", |agreed| agreed.to_str().unwrap());
            Ok((socket, agreed.to_owned()))
        }
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Err(Refused(response.status().as_u16(), body))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), socket.next());
        match message.await.expect("a message in time")?.ok()? {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return Some(message),
        }
    }
}

/// What a channel says, as one line for each message, until the socket is closed.
async fn all(socket: &mut Socket) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(message) = next(socket).await {
        told.push(match message {
            Message::Binary(bytes) => {
                let text = String::from_utf8_lossy(&bytes[1..]);
                format!("{} {text}", bytes[0])
            }
            Message::Text(text) => text.to_string(),
            Message::Close(frame) => format!("closed {}", u16::from(frame.unwrap().code)),
            other => panic!("{other:?}"),
        });
    }
    told
}

const SUCCESS: &str = "{\"metadata\":{},\"status\":\"Success\"}";

#[tokio::test]
async fn a_command_over_websocket_in_its_fifth_version() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/exec?command=cat&stdin=true&stdout=true&stderr=true");
    let (mut socket, agreed) = socket(&world, &path, "v5.channel.k8s.io").await;
    assert_eq!(agreed, "v5.channel.k8s.io");
    for message in [&b"\0hello "[..], b"\0world", b"\x07nobody", b"\xff\0"] {
        socket.send(Message::binary(message)).await.unwrap();
    }
    let told = all(&mut socket).await;
    assert_eq!(told.first().map(String::as_str), Some("1 "), "it is there");
    let said: String = told
        .iter()
        .filter_map(|line| line.strip_prefix("1 "))
        .collect();
    assert_eq!(said, "hello world");
    assert_eq!(
        told[told.len() - 2..],
        [format!("3 {SUCCESS}"), "closed 1000".to_owned()]
    );
    let asked = node.asked.lock().last().cloned().unwrap();
    let uid = world.get(&format!("{PODS}/p")).await.body["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    assert_eq!(
        asked,
        format!("/exec/default/p/{uid}/c?command=cat&stdin=1&stdout=1&stderr=1")
    );
    node.is_left().await;
}

#[tokio::test]
async fn older_forms_say_the_same_in_their_way() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/exec?command=greet&stdout=true&stderr=true");
    let status = "{\"details\":{\"causes\":[{\"message\":\"7\",\"reason\":\"ExitCode\"}]},\"message\":\"it ended with code 7\",\"metadata\":{},\"reason\":\"NonZeroExitCode\",\"status\":\"Failure\"}";
    for (protocol, expected) in [
        (
            "v4.channel.k8s.io",
            [
                "1 ",
                "1 out",
                "2 err",
                &format!("3 {status}"),
                "closed 1000",
            ],
        ),
        (
            "channel.k8s.io",
            [
                "1 ",
                "1 out",
                "2 err",
                "3 it ended with code 7",
                "closed 1000",
            ],
        ),
        (
            "",
            [
                "1 ",
                "1 out",
                "2 err",
                "3 it ended with code 7",
                "closed 1000",
            ],
        ),
        (
            "base64.channel.k8s.io",
            [
                "1",
                "1b3V0",
                "2ZXJy",
                "3aXQgZW5kZWQgd2l0aCBjb2RlIDc=",
                "closed 1000",
            ],
        ),
    ] {
        let (mut socket, agreed) = socket(&world, &path, protocol).await;
        assert_eq!(agreed, protocol);
        assert_eq!(all(&mut socket).await, expected, "{protocol}");
    }
    let (mut socket, _) = socket(
        &world,
        &format!("{PODS}/p/exec?command=size&stdin=1&stdout=1&tty=1"),
        "v4.channel.k8s.io",
    )
    .await;
    let size = b"\x04{\"Width\":80,\"Height\":24}";
    socket.send(Message::binary(&size[..])).await.unwrap();
    let told = all(&mut socket).await;
    assert_eq!(told[1], "1 {\"Height\":24,\"Width\":80}");
    node.is_left().await;
}

/// A client of SPDY.
struct Spdy<IO> {
    io: IO,
    encoder: Encoder,
    decoder: Decoder,
    read: BytesMut,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Spdy<IO> {
    fn new(io: IO) -> Self {
        Self {
            io,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            read: BytesMut::new(),
        }
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn say(&mut self, stream: u32, fin: bool, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        self.send(Frame::Data { stream, fin, bytes }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        let next = async {
            loop {
                match self.decoder.decode(&mut self.read).unwrap() {
                    Some(Frame::Ping(_)) => {}
                    Some(frame) => return Some(frame),
                    None if self.io.read_buf(&mut self.read).await.unwrap() == 0 => return None,
                    None => {}
                }
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(20), next);
        next.await.expect("a frame in time")
    }

    /// Opens a stream, and waits until it is agreed to.
    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.send(Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            headers: headers.collect(),
        })
        .await;
        let agreed = Frame::SynReply {
            stream,
            fin: false,
            headers: vec![],
        };
        assert_eq!(self.next().await, Some(agreed));
    }

    /// What streams say until the connection ends: `STREAM text`, `STREAM.` for an end, `STREAM!` for a reset.
    async fn all(&mut self) -> Vec<String> {
        let mut told: Vec<String> = Vec::new();
        while let Some(frame) = self.next().await {
            match frame {
                Frame::Data { stream, fin, bytes } => {
                    // In whatever pieces it comes.
                    let text = String::from_utf8_lossy(&bytes);
                    match told.last_mut() {
                        Some(last) if last.starts_with(&format!("{stream} ")) => {
                            last.push_str(&text);
                        }
                        _ if !text.is_empty() => told.push(format!("{stream} {text}")),
                        _ => {}
                    }
                    if fin {
                        told.push(format!("{stream}."));
                    }
                }
                Frame::Reset { stream, .. } => told.push(format!("{stream}!")),
                Frame::GoAway { .. } => return told,
                other => panic!("{other:?}"),
            }
        }
        told
    }
}

/// A request whose connection becomes SPDY, or what refuses it.
async fn spdy(
    world: &World,
    line: &str,
    versions: &[&str],
) -> Result<(Spdy<TokioIo<hyper::upgrade::Upgraded>>, String), Response<Incoming>> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "weft")
        .header(header::AUTHORIZATION, "Bearer secret")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    for version in versions {
        request = request.header("X-Stream-Protocol-Version", *version);
    }
    let request = request.body(Body::empty()).unwrap();
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(connection(world))).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(request).await.unwrap();
    if response.status() != 101 {
        return Err(response);
    }
    assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
    let agreed = response.headers()["x-stream-protocol-version"]
        .to_str()
        .unwrap()
        .to_owned();
    let io = hyper::upgrade::on(&mut response).await.unwrap();
    Ok((Spdy::new(TokioIo::new(io)), agreed))
}

#[tokio::test]
async fn a_command_over_spdy_in_its_versions() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let line =
        format!("POST {PODS}/p/exec?command=cat&stdin=true&stdout=true&tty=true&container=c");
    let offered = [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
    ];
    let (mut client, agreed) = spdy(&world, &line, &offered).await.unwrap();
    assert_eq!(agreed, "v4.channel.k8s.io");
    for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        client.open(stream, &[("streamtype", name)]).await;
    }
    client
        .say(7, false, b"{\"Width\":80,\"Height\":24}\n")
        .await;
    client.say(3, false, b"hello").await;
    client.say(3, true, b"").await;
    let told = client.all().await;
    assert_eq!(told, ["5 hello", "5.", &format!("1 {SUCCESS}"), "1."]);
    // A sentence, if it failed.
    let line = format!("POST {PODS}/p/exec?command=greet&stdout=true&stderr=true");
    let (mut client, _) = spdy(&world, &line, &["v2.channel.k8s.io"]).await.unwrap();
    for (stream, name) in [(1, "error"), (3, "stdout"), (5, "stderr")] {
        client.open(stream, &[("streamtype", name)]).await;
    }
    let told = client.all().await;
    assert_eq!(
        told,
        ["3 out", "5 err", "3.", "5.", "1 it ended with code 7", "1."]
    );
    // In the first version, its client is told nothing of the end.
    let (mut client, _) = spdy(&world, &line, &["channel.k8s.io"]).await.unwrap();
    for (stream, name) in [(1, "error"), (3, "stdout"), (5, "stderr")] {
        client.open(stream, &[("streamtype", name)]).await;
    }
    assert_eq!(client.all().await, ["1!", "3 out", "5 err", "3.", "5."]);
    node.is_left().await;
}

#[tokio::test]
async fn a_client_that_goes_ends_what_runs_and_one_that_reads_nothing_costs_a_bounded_buffer() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/exec?command=yes&stdout=true");
    let (socket, _) = socket(&world, &path, "v5.channel.k8s.io").await;
    let (mut client, _) = spdy(&world, &format!("POST {path}"), &["v4.channel.k8s.io"])
        .await
        .unwrap();
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    // Until nothing moves any more: kernels and this server have what they take.
    let (mut before, mut still) = (0, 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = node.chunks.load(Ordering::SeqCst);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(
        before < (2 * 16) << 10,
        "{before} KiB are held for two clients"
    );
    drop((socket, client));
    node.is_left().await;
}

#[tokio::test]
async fn a_node_that_is_lost_is_told_in_a_sentence() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let died = "Internal error occurred: error executing command in container: node \"a\" is lost: its connection has ended; the pod may go on elsewhere, see where it is now";
    let path = format!("{PODS}/p/exec?command=die&stdout=true");
    let (mut socket, _) = socket(&world, &path, "v5.channel.k8s.io").await;
    let told = all(&mut socket).await;
    assert_eq!(told[1], "1 half");
    let status: Value = serde_json::from_str(&told[2][2..]).unwrap();
    assert_eq!(status["message"], died);
    let (mut client, _) = spdy(&world, &format!("POST {path}"), &["v2.channel.k8s.io"])
        .await
        .unwrap();
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    assert_eq!(
        client.all().await,
        ["3 half", "3.", &format!("1 {died}"), "1."]
    );
    node.is_left().await;
    // One that nobody answers at: told by the answer, and to the newest on its channel.
    let port = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    world
        .patch("/api/v1/nodes/a/status", "merge-patch", port)
        .await;
    let refused = spdy(&world, &format!("POST {path}"), &["v4.channel.k8s.io"]).await;
    assert_eq!(refused.err().unwrap().status(), 500);
    let (mut socket, _) = self::socket(&world, &path, "v5.channel.k8s.io").await;
    let told = all(&mut socket).await;
    assert!(
        told[1].contains("error dialing backend: node \\\"a\\\" is out of reach"),
        "{told:?}"
    );
}

/// A forwarded connection: what it says back, and what is said of its failure.
async fn forwarded<IO: AsyncRead + AsyncWrite + Unpin>(client: &mut Spdy<IO>) {
    let headers = |kind: &'static str, port: &'static str, id: &'static str| {
        [("streamtype", kind), ("port", port), ("requestid", id)]
    };
    client.open(1, &headers("error", "80", "0")).await;
    client.say(1, true, b"").await;
    client.open(3, &headers("data", "80", "0")).await;
    client.open(5, &headers("data", "81", "1")).await;
    client.open(7, &headers("error", "81", "1")).await;
    // What is no port is none of ours.
    client
        .send(Frame::SynStream {
            stream: 9,
            fin: false,
            unidirectional: false,
            headers: vec![("streamtype".to_owned(), "data".to_owned())],
        })
        .await;
    client.say(3, false, b"ping").await;
    client.say(3, true, b"").await;
    let mut told: Vec<String> = Vec::new();
    let ends = ["1.", "3.", "5!", "7.", "9!"];
    while !ends.iter().all(|end| told.iter().any(|line| line == end)) {
        match client.next().await.unwrap() {
            Frame::Data { stream, fin, bytes } => {
                if !bytes.is_empty() {
                    told.push(format!("{stream} {}", String::from_utf8_lossy(&bytes)));
                }
                if fin {
                    told.push(format!("{stream}."));
                }
            }
            Frame::Reset { stream, .. } => told.push(format!("{stream}!")),
            other => panic!("{other:?}"),
        }
    }
    let of = |stream: &str| -> String {
        let lines = told.iter().filter(|line| line.starts_with(stream));
        lines
            .map(|line| line.strip_prefix(stream).unwrap().trim_start())
            .collect()
    };
    assert_eq!(of("3"), "ping!.");
    assert_eq!(of("1"), ".");
    assert!(
        of("7").starts_with("error forwarding port 81 to pod p, uid "),
        "{told:?}"
    );
    assert!(of("7").ends_with(": connection refused."), "{told:?}");
    assert_eq!((of("5").as_str(), of("9").as_str()), ("!", "!"));
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_by_itself_and_inside_of_messages() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/portforward");
    let (mut client, agreed) = spdy(&world, &format!("POST {path}"), &["portforward.k8s.io"])
        .await
        .unwrap();
    assert_eq!(agreed, "portforward.k8s.io");
    forwarded(&mut client).await;
    drop(client);
    let (socket, agreed) = socket(&world, &path, "SPDY/3.1+portforward.k8s.io").await;
    assert_eq!(agreed, "SPDY/3.1+portforward.k8s.io");
    // Its bytes, whatever messages they are in.
    let (client, mut inside) = tokio::io::duplex(16 << 10);
    let (mut out, mut received) = socket.split();
    let (mut read, mut write) = tokio::io::split(client);
    tokio::spawn(async move {
        let mut some = [0; 7];
        while let Ok(count @ 1..) = read.read(&mut some).await {
            let sent = out.send(Message::binary(some[..count].to_vec())).await;
            if sent.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = received.next().await {
            if let Message::Binary(bytes) = message {
                let _ = write.write_all(&bytes).await;
            }
        }
    });
    forwarded(&mut Spdy::new(&mut inside)).await;
    drop(inside);
    node.is_left().await;
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/portforward?ports=80,81");
    let (mut socket, _) = socket(&world, &path, "v4.channel.k8s.io").await;
    socket.send(Message::binary(&b"\0ping"[..])).await.unwrap();
    let mut channels: [Vec<u8>; 4] = Default::default();
    let done =
        |channels: &[Vec<u8>; 4]| channels[0].len() >= 6 && channels[3].ends_with(b"refused");
    while !done(&channels) {
        let Some(Message::Binary(bytes)) = next(&mut socket).await else {
            panic!("closed early: {channels:?}");
        };
        channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
    }
    assert_eq!(channels[0], b"\x50\0ping");
    assert_eq!(channels[1], b"\x50\0");
    assert_eq!(channels[2], b"\x51\0");
    assert!(channels[3].starts_with(b"\x51\0error forwarding port 81 to pod p, uid "));
    drop(socket);
    node.is_left().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_kubernetes_words() {
    let world = World::new().await;
    let _node = StubNode::start(&world).await;
    let told = async |path: &str, protocol: &str| match open_socket(
        &world,
        &format!("{PODS}/{path}"),
        protocol,
        "secret",
    )
    .await
    {
        Ok(_) => "101".to_owned(),
        Err(Refused(code, body)) => format!("{code} {}", body["message"].as_str().unwrap_or("")),
    };
    const V5: &str = "v5.channel.k8s.io";
    for (path, protocol, expected) in [
        ("p/exec?command=cat&stdout=1", V5, "101"),
        ("p/attach?stdout=1", V5, "101"),
        (
            "two/exec?command=cat&stdout=1",
            V5,
            "400 a container name must be specified for pod two, choose one of: [c d]",
        ),
        ("two/exec?command=cat&stdout=1&container=d", V5, "101"),
        (
            "two/attach?stdout=1&container=x",
            V5,
            "400 container x is not valid for pod two",
        ),
        (
            "p/exec?command=cat",
            V5,
            "400 you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            "p/exec?command=cat&stdout=1&dryRun=All",
            V5,
            "400 dryRun is not supported",
        ),
        (
            "waiting/exec?command=cat&stdout=1",
            V5,
            "400 pod waiting does not have a host assigned",
        ),
        (
            "waiting/portforward?ports=80",
            "v4.channel.k8s.io",
            "400 pod waiting does not have a host assigned",
        ),
        (
            "none/exec?command=cat&stdout=1",
            V5,
            "404 pods \"none\" not found",
        ),
        (
            "p/portforward",
            "v4.channel.k8s.io",
            "400 query parameter \"ports\" is required",
        ),
        (
            "p/portforward?ports=x",
            "v4.channel.k8s.io",
            "400 strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "p/exec?command=cat&stdout=1",
            "v9.channel.k8s.io",
            "403 requested protocol(s) are not supported: [v9.channel.k8s.io]; supports [v4.channel.k8s.io v4.base64.channel.k8s.io channel.k8s.io base64.channel.k8s.io]",
        ),
    ] {
        assert_eq!(told(path, protocol).await, expected, "{path}");
    }
    let lines = [
        (
            format!("GET {PODS}/p/exec?command=cat&stdout=1"),
            "400 BadRequest: Upgrade request required",
        ),
        (
            format!("DELETE {PODS}/p/exec"),
            "405 MethodNotAllowed: the server does not allow this method on the requested resource",
        ),
        (format!("GET {PODS}/waiting/log"), "204  "),
        (
            format!("GET {PODS}/two/log"),
            "400 BadRequest: a container name must be specified for pod two, choose one of: [c d]",
        ),
        (
            format!("GET {PODS}/p/log"),
            "400 BadRequest: container \"c\" in pod \"p\" is not available",
        ),
    ];
    for (line, expected) in lines {
        assert_eq!(
            world.ask(&line, Value::Null).await.line(),
            expected,
            "{line}"
        );
    }
    let refused = spdy(&world, &format!("POST {PODS}/p/exec?stdout=1"), &["v9"])
        .await
        .err()
        .unwrap();
    let accepted = refused
        .headers()
        .get_all("x-accepted-stream-protocol-versions");
    assert_eq!(
        (refused.status().as_u16(), accepted.iter().count()),
        (403, 4)
    );
}

#[tokio::test]
async fn who_may_only_read_opens_nothing() {
    let world = World::new().await;
    let _node = StubNode::start(&world).await;
    let path = format!("{PODS}/p/exec?command=cat&stdout=1");
    let told = async || match open_socket(&world, &path, "v5.channel.k8s.io", "user").await {
        Ok(_) => "101".to_owned(),
        Err(Refused(code, body)) => format!("{code} {}", body["message"].as_str().unwrap_or("")),
    };
    let resource = "User \"jo\" cannot get resource \"pods/exec\" in API group \"\" in the namespace \"default\"";
    assert_eq!(
        told().await,
        format!("403 pods \"p\" is forbidden: {resource}")
    );
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let rules =
        |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs}]);
    let role = json!({"metadata": {"name": "r"}, "rules": rules(&["get"])});
    assert_eq!(world.ask(&format!("POST {ROLES}"), role).await.status, 201);
    let binding = json!({
        "metadata": {"name": "r"}, "subjects": [{"kind": "User", "name": "jo", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
    });
    let bindings = ROLES.replace("/roles", "/rolebindings");
    assert_eq!(
        world.ask(&format!("POST {bindings}"), binding).await.status,
        201
    );
    assert_eq!(told().await, "403 pods \"p\" is forbidden: ");
    let both = json!({"rules": rules(&["get", "create"])});
    world
        .patch(&format!("{ROLES}/r"), "merge-patch", both)
        .await;
    assert_eq!(told().await, "101");
}

#[tokio::test]
async fn admission_sees_the_options_and_may_refuse() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let hook = Hook::start(&["127.0.0.1"], |review| {
        let shell = review["request"]["object"]["command"] == json!(["sh"]);
        Reply::Says(json!({"allowed": !shell, "status": {"message": "no shells", "code": 403, "reason": "Forbidden"}}))
    })
    .await;
    let rules = json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/*"]}]);
    let webhook = json!({
        "name": "a.example.com", "clientConfig": hook.client_config(), "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": rules,
    });
    let body = json!({"metadata": {"name": "v"}, "webhooks": [webhook]});
    let made = world
        .ask(
            "POST /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            body,
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    let refused = open_socket(
        &world,
        &format!("{PODS}/p/exec?command=sh&stdout=1"),
        "v5.channel.k8s.io",
        "secret",
    )
    .await;
    let Err(Refused(code, body)) = refused else {
        panic!("a shell");
    };
    assert_eq!(
        (code, &body["message"]),
        (
            403,
            &json!("admission webhook \"a.example.com\" denied the request: no shells")
        )
    );
    assert!(node.asked.lock().is_empty(), "the node heard nothing of it");
    socket(
        &world,
        &format!("{PODS}/p/portforward?ports=80"),
        "v4.channel.k8s.io",
    )
    .await;
    let asked = hook.asked.lock().clone();
    let said: Vec<Value> = asked
        .iter()
        .map(|review| {
            let request = &review["request"];
            json!([
                request["operation"],
                request["subResource"],
                request["name"],
                request["kind"]["kind"],
                request["resource"]["resource"],
                request["object"]
            ])
        })
        .collect();
    assert_eq!(
        said,
        [
            json!(["CONNECT", "exec", "p", "PodExecOptions", "pods", {"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": ["sh"]}]),
            json!(["CONNECT", "portforward", "p", "PodPortForwardOptions", "pods", {"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80]}]),
        ]
    );
}

#[tokio::test]
async fn containers_are_added_to_look_around_and_stay() {
    let world = World::new().await;
    let path = format!("{PODS}/p/ephemeralcontainers");
    world.ask(&format!("POST {PODS}"), pod("p")).await;
    let with = |containers: Value| json!({"spec": {"ephemeralContainers": containers}});
    let one = json!({"name": "debugger-1", "image": "toolbox", "targetContainerName": "c"});
    let added = world
        .patch(&path, "strategic-merge-patch", with(json!([one])))
        .await;
    assert_eq!(added.status, 200, "{}", added.line());
    assert_eq!(
        added.body["spec"]["ephemeralContainers"][0]["name"],
        "debugger-1"
    );
    assert_eq!(added.body["metadata"]["generation"], 2);
    let refused = async |containers: Value| {
        let told = world.patch(&path, "merge-patch", with(containers)).await;
        told.line()
    };
    assert_eq!(
        refused(json!([])).await,
        "422 Invalid: Pod \"p\" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debugger-1\" may not be removed\n"
    );
    let changed = json!({"name": "debugger-1", "image": "another", "targetContainerName": "c"});
    assert!(
        refused(json!([changed]))
            .await
            .contains("existing ephemeral containers \"debugger-1\" may not be changed")
    );
    // By the pod's own path nothing of them changes.
    let direct = world
        .patch(
            &format!("{PODS}/p"),
            "merge-patch",
            with(json!([one, {"name": "x", "image": "y"}])),
        )
        .await;
    assert_eq!(direct.status, 422, "{}", direct.line());
}

#[tokio::test]
async fn discovery_tells_of_streams() {
    let world = World::new().await;
    let list = world.get("/api/v1").await.body;
    let found = |name: &str| {
        let mut all = list["resources"].as_array().unwrap().iter();
        let one = all.find(|one| one["name"] == name).unwrap();
        json!([one["kind"], one["verbs"], one["version"]])
    };
    assert_eq!(
        found("pods/exec"),
        json!(["PodExecOptions", ["create", "get"], "v1"])
    );
    assert_eq!(
        found("pods/attach"),
        json!(["PodAttachOptions", ["create", "get"], "v1"])
    );
    assert_eq!(
        found("pods/portforward"),
        json!(["PodPortForwardOptions", ["create", "get"], "v1"])
    );
    assert_eq!(
        found("pods/resize"),
        json!(["Pod", ["get", "patch", "update"], null])
    );
    assert_eq!(
        found("pods/ephemeralcontainers"),
        json!(["Pod", ["get", "patch", "update"], null])
    );
}

#[tokio::test]
async fn a_log_over_websocket_is_its_bytes_after_an_empty_message() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let container = json!({
        "name": "c", "image": "vote/web:1", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    });
    let status = json!({"status": {"containerStatuses": [container]}});
    let told = world
        .patch(&format!("{PODS}/p/status"), "merge-patch", status)
        .await;
    assert_eq!(told.status, 200, "{}", told.line());
    let path = format!("{PODS}/p/log?container=c&tailLines=2");
    for (protocol, empty, log) in [
        (
            "binary.k8s.io",
            Message::binary(""),
            Message::binary("one\ntwo\n"),
        ),
        (
            "base64.binary.k8s.io",
            Message::text(""),
            Message::text("b25lCnR3bwo="),
        ),
        ("", Message::binary(""), Message::binary("one\ntwo\n")),
    ] {
        let (mut socket, agreed) = socket(&world, &path, protocol).await;
        assert_eq!(agreed, protocol);
        assert_eq!(next(&mut socket).await, Some(empty), "{protocol}");
        assert_eq!(next(&mut socket).await, Some(log), "{protocol}");
        let Some(Message::Close(Some(frame))) = next(&mut socket).await else {
            panic!("no closing message");
        };
        assert_eq!(u16::from(frame.code), 1000);
    }
    let asked = node.asked.lock().pop().unwrap_or_default();
    assert!(asked.contains("/p/c?tailLines=2"), "{asked}");
    for (path, protocol, code) in [
        (path.as_str(), "v4.channel.k8s.io", 403),
        (&format!("{PODS}/none/log"), "binary.k8s.io", 404),
        (&format!("{PODS}/p/log?container=x"), "binary.k8s.io", 400),
    ] {
        let refused = open_socket(&world, path, protocol, "secret").await;
        let Err(Refused(found, _)) = refused else {
            panic!("{path} was opened");
        };
        assert_eq!(found, code, "{path}");
    }
}
