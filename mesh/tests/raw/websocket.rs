//! Connections that are to become WebSocket: which requests ask for it, and that no byte reaches a backend past the gateway's rules unless that
//! backend agreed.
//!
//! What is told of a case: the gateway's responses, then `tunnel:` and what came back through it, then `|` and what the backend heard of it.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_mesh::{Body, BoxError, Failure, Raw};

use super::{Gateway, PATIENCE, mirror, tls};

/// What a backend does when it is asked, by the path.
fn answer_to(head: &str) -> &'static str {
    match head.split(' ').nth(1) {
        Some("/agree") => {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nagreed "
        }
        Some("/other") => {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nagreed "
        }
        Some("/refuse") => {
            "HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 2\r\n\r\nno"
        }
        _ => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    }
}

type Answering = BoxFuture<'static, Result<Response<Body>, Failure>>;

/// A backend that speaks for itself where it is asked for WebSocket, hears all that comes then, and answers requests as the mirror does.
fn backend(
    heard: Arc<Mutex<Vec<u8>>>,
) -> impl Fn(Request<Body>) -> Answering + Clone + Send + Sync + 'static {
    move |request: Request<Body>| -> Answering {
        if request.extensions().get::<Raw>().is_none() {
            return Box::pin(mirror(request));
        }
        let heard = Arc::clone(&heard);
        // A stream is there before anything is said on it.
        let spoken = async move {
            let mut said = request.into_body().into_data_stream();
            let mut head = Vec::new();
            let end = loop {
                let ends = head.windows(4).position(|four| four == b"\r\n\r\n");
                if let Some(end) = ends {
                    break end + 4;
                }
                match said.next().await {
                    Some(Ok(bytes)) => head.extend_from_slice(&bytes),
                    _ => break head.len(),
                }
            };
            let rest = head.split_off(end);
            let answer = answer_to(&String::from_utf8_lossy(&head));
            heard.lock().extend_from_slice(&rest);
            let first =
                futures::stream::iter([Ok::<_, BoxError>(Bytes::from_static(answer.as_bytes()))]);
            let begun = futures::stream::iter([Ok(Bytes::from(rest))]);
            let echoed = said.map(move |bytes| {
                if let Ok(bytes) = &bytes {
                    heard.lock().extend_from_slice(bytes);
                }
                bytes
            });
            let is_agreed = answer.starts_with("HTTP/1.1 101");
            let echoed = begun.chain(echoed);
            first.chain(echoed.filter(move |_| std::future::ready(is_agreed)))
        };
        let frames = futures::stream::once(spoken).flatten();
        let frames = frames.map(|bytes| bytes.map(Frame::data));
        let response = Response::new(Body::new(StreamBody::new(frames)));
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// A request for WebSocket or for anything else, and what follows it.
fn asking(path: &str, lines: &str, then: &str) -> String {
    format!("GET {path} HTTP/1.1\nHost: mirror.vote.localhost\n{lines}\n{then}")
}

const USUAL: &str =
    "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: k\n";
const NEXT: &str = "GET /next HTTP/1.1\nHost: nobody.test\nConnection: close\n\n";

/// Sends bytes at the listeners of a Gateway, in the clear and over TLS, and reads what comes: the same of both.
async fn told(raw: &str) -> String {
    let raw = raw.replace('\n', "\r\n");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let gateway = Gateway::before(backend(Arc::clone(&heard)));
    let stream = TcpStream::connect(gateway.plain).await;
    let said = said_to(stream.expect("a connection"), &raw).await;
    let in_the_clear = shown(&gateway, &said, &heard).await;
    let stream = tls::agreed(&gateway, b"http/1.1").await;
    let said = said_to(stream, &raw).await;
    let over_tls = shown(&gateway, &said, &heard).await;
    assert_eq!(in_the_clear, over_tls, "{raw:?}");
    over_tls
}

/// All that comes back for bytes.
async fn said_to(mut stream: impl AsyncRead + AsyncWrite + Unpin, raw: &str) -> Vec<u8> {
    let talk = async {
        let _ = stream.write_all(raw.as_bytes()).await;
        let _ = stream.flush().await;
        let mut said = Vec::new();
        // The gateway ends it after the last request; a tunnel is ended by whoever is in it.
        while let Ok(1..) = stream.read_buf(&mut said).await {
            if said.starts_with(b"HTTP/1.1 101 ") {
                let _ = stream.shutdown().await;
            }
        }
        said
    };
    let said = tokio::time::timeout(PATIENCE, talk).await;
    said.unwrap_or_else(|_| panic!("no end to {raw:?}"))
}

async fn shown(gateway: &Gateway, said: &[u8], heard: &Mutex<Vec<u8>>) -> String {
    let said = String::from_utf8_lossy(said).into_owned();
    let mut parts = Vec::new();
    let mut rest = said.as_str();
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let status = head.get(9..12).unwrap_or(head);
        if status == "101" {
            parts.push("101".to_owned());
            parts.push(format!("tunnel: {}", after.replace("\r\n", "/")));
            rest = "";
            break;
        }
        let length = head.lines().filter_map(|line| line.split_once(": "));
        let length = length
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |(_, length)| length.parse().expect("a length"));
        let (body, after) = after.split_at(after.len().min(length));
        let kind = match body {
            body if body.starts_with("GET ") || body.starts_with("POST ") => {
                let (_, bytes) = body.rsplit_once("] ").expect("a line");
                format!("as a request with {bytes}")
            }
            body => body.trim_end().to_owned(),
        };
        parts.push(format!("{status} {kind}"));
        rest = after;
    }
    assert_eq!(rest, "", "{said}");
    let heard = std::mem::take(&mut *heard.lock());
    let heard = String::from_utf8_lossy(&heard).replace("\r\n", "/");
    gateway.serves().await;
    format!("{} | {heard}", parts.join(", "))
}

const NOBODY: &str = "404 no route matches nobody.test/next";

#[tokio::test]
async fn only_a_backend_that_agreed_hears_what_follows() {
    for (what, raw, expected) in [
        (
            "agreed",
            asking("/agree", USUAL, "frames"),
            "101, tunnel: agreed frames | frames",
        ),
        // What is in the tunnel is nobody's request.
        (
            "agreed, then a request",
            asking("/agree", USUAL, NEXT),
            "101, tunnel: agreed GET /next HTTP/1.1/Host: nobody.test/Connection: close// | GET /next HTTP/1.1/Host: nobody.test/Connection: close//",
        ),
        // Refused, by its version for one: the next request is the gateway's to judge, and the backend hears nothing of it.
        (
            "refused, then a request",
            asking("/refuse", USUAL, NEXT),
            &format!("426 no, {NOBODY} | "),
        ),
        (
            "another protocol",
            asking("/other", USUAL, NEXT),
            &format!("502 the workload agreed to another protocol than was asked for, {NOBODY} | "),
        ),
        (
            "an error",
            asking("/error", USUAL, NEXT),
            &format!("500 , {NOBODY} | "),
        ),
    ] {
        assert_eq!(told(&raw).await, expected, "{what}");
    }
}

#[tokio::test]
async fn what_is_no_request_for_it_is_a_request_like_any_other() {
    let request = |bytes: u8| format!("200 as a request with {bytes} bytes, {NOBODY} | ");
    let usual = |from: &str, to: &str| {
        assert!(USUAL.contains(from), "{from}");
        asking("/agree", &USUAL.replace(from, to), NEXT)
    };
    for (what, raw, expected) in [
        // As a proxy passes it on that knows of no upgrades: what follows it takes for requests.
        (
            "not of this connection",
            usual("Connection: Upgrade\n", ""),
            request(0),
        ),
        (
            "of this connection is another line",
            usual("Connection: Upgrade", "Connection: keep-alive"),
            request(0),
        ),
        (
            "HTTP/2 in the clear",
            usual("Upgrade: websocket", "Upgrade: h2c"),
            request(0),
        ),
        (
            "one of two",
            usual("Upgrade: websocket", "Upgrade: h2c, websocket"),
            request(0),
        ),
        (
            "two lines",
            usual(
                "Upgrade: websocket",
                "Upgrade: websocket\nUpgrade: websocket",
            ),
            request(0),
        ),
        ("no key", usual("Sec-WebSocket-Key: k\n", ""), request(0)),
        (
            "two keys",
            usual(
                "Sec-WebSocket-Key: k",
                "Sec-WebSocket-Key: k\nSec-WebSocket-Key: l",
            ),
            request(0),
        ),
        (
            "with a length",
            asking(
                "/agree",
                &format!("{USUAL}Content-Length: 5\n"),
                &format!("GET /{NEXT}"),
            ),
            request(5),
        ),
        (
            "with chunks",
            asking(
                "/agree",
                &format!("{USUAL}Transfer-Encoding: chunked\n"),
                &format!("5\nGET /\n0\n\n{NEXT}"),
            ),
            request(5),
        ),
        (
            "another method",
            asking("/agree", &format!("{USUAL}Content-Length: 0\n"), NEXT)
                .replacen("GET", "POST", 1),
            request(0),
        ),
    ] {
        assert_eq!(told(&raw).await, expected, "{what}");
    }
}
