//! HTTP/1.1, byte by byte.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Gateway, PATIENCE, tls};

/// Sends bytes and reads until the gateway closes. Each response is `STATUS TEXT` of what it says, several are joined by ` + `; nothing at
/// all is `closed`.
pub async fn exchange(gateway: SocketAddr, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(gateway).await.expect("a connection");
    spoken(stream, bytes).await
}

/// The same on a connection that is there.
pub async fn spoken(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    heard(&mut stream, bytes).await
}

pub async fn heard(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    let said = said_to(stream, bytes).await;
    let mut rest = &said[..];
    let mut responses = Vec::new();
    while !rest.is_empty() {
        let (shown, left) = response(rest);
        responses.push(shown);
        rest = left;
    }
    if responses.is_empty() {
        return "closed".to_owned();
    }
    responses.join(" + ")
}

/// Everything that the gateway says until it closes the connection.
async fn bytes_of(gateway: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).await.expect("a connection");
    said_to(&mut stream, bytes).await
}

async fn said_to(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> Vec<u8> {
    let talk = async {
        // It may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        said
    };
    let said = tokio::time::timeout(PATIENCE, talk).await;
    said.unwrap_or_else(|_| panic!("no end to {:?}", String::from_utf8_lossy(bytes)))
}

/// One response, and what follows it.
fn response(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a whole head");
    let (head, rest) = (&bytes[..end], &bytes[end + 4..]);
    let head = std::str::from_utf8(head).expect("ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status line");
    // Who speaks 1.0 is answered in 1.0.
    assert!(status.starts_with("HTTP/1."), "{status}");
    let status = status.get(9..12).expect("three digits");
    let length = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.parse().expect("a length"));
    // Interim responses and those without content have none, whatever they say.
    let length = if matches!(status, "100" | "204" | "304") {
        0
    } else {
        length
    };
    let (body, rest) = rest.split_at(length.min(rest.len()));
    let body = String::from_utf8_lossy(body);
    let shown = format!("{status} {}", body.trim_end());
    (shown.trim_end().to_owned(), rest)
}

/// What should come of bytes.
enum Want<'t> {
    /// One response, which begins so.
    One(&'t str),
    /// These responses.
    All(&'t str),
    /// A refusal in one response, or none.
    Refused,
    /// The workload may be told of it or not, but of nothing else.
    AtMostOne,
}
use Want::{All, AtMostOne, One, Refused};

/// Sends each, written with line ends as an editor has them, in the clear and over TLS, and says of which something else came than should.
async fn told(cases: &[(&str, &str, Want<'_>)]) -> Vec<String> {
    let gateway = Gateway::start();
    let mut wrong = Vec::new();
    for (name, raw, want) in cases {
        let raw = raw.replace('\n', "\r\n");
        let said = exchange(gateway.address, raw.as_bytes()).await;
        if !want.is(&said) {
            wrong.push(format!("{name}: {said}"));
        }
        let stream = tls::agreed(&gateway, b"http/1.1").await;
        // The mirror says how it was reached.
        let said = spoken(stream, raw.as_bytes()).await;
        let said = said.replace("https://", "http://");
        if !want.is(&said) {
            wrong.push(format!("{name}, over TLS: {said}"));
        }
    }
    gateway.serves().await;
    wrong
}

impl Want<'_> {
    fn is(&self, said: &str) -> bool {
        let is_one = !said.contains(" + ") && !said.contains("smuggled");
        match self {
            One(text) => is_one && said.starts_with(text),
            All(text) => said == *text,
            Refused => is_one && (said.starts_with('4') || said == "closed"),
            AtMostOne => is_one,
        }
    }
}

const NONE: Vec<String> = Vec::new();

#[tokio::test]
async fn where_a_body_ends_is_read_in_one_way() {
    let wrong = told(&[
        (
            "length",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\nContent-Length: 5\n\nhello",
            One("200 POST http://mirror.vote.localhost/ [content-length=5, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
        (
            "a length that is called the connection's",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close, content-length, host\nContent-Length: 5\n\nhello",
            One("200 POST http://mirror.vote.localhost/ [content-length=5, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
        (
            "chunks",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
            One("200 POST http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
        // The length would leave `GET /smuggled` to the next reader; chunks end before it. The connection is not used again.
        (
            "length and chunks",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\nGET /smuggled HTTP/1.1\nHost: mirror.vote.localhost\n\n",
            One("200 POST http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "chunks and length",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked\nContent-Length: 60\n\n0\n\nGET /smuggled HTTP/1.1\nHost: mirror.vote.localhost\n\n",
            One("200 POST http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "not chunks",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: xchunked\n\n0\n\n",
            Refused,
        ),
        (
            "not chunks at last",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked, identity\n\n0\n\n",
            Refused,
        ),
        (
            "two encodings",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n",
            Refused,
        ),
        (
            "chunks of HTTP/1.0",
            "POST / HTTP/1.0\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked\n\n0\n\n",
            Refused,
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: 5\nContent-Length: 6\n\nhello!",
            Refused,
        ),
        (
            "the same length twice",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\nContent-Length: 5\nContent-Length: 5\n\nhello",
            One("200 POST http://mirror.vote.localhost/ [content-length=5, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
        (
            "a list of lengths",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: 5, 5\n\nhello",
            Refused,
        ),
        (
            "a sign",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: +5\n\nhello",
            Refused,
        ),
        (
            "less than none",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: -1\n\n",
            Refused,
        ),
        (
            "in base 16",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: 0x5\n\nhello",
            Refused,
        ),
        (
            "more than there is",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length: 18446744073709551616\n\n",
            Refused,
        ),
        (
            "a chunk of no size",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked\n\nzz\nhello\n0\n\n",
            AtMostOne,
        ),
        (
            "a chunk of any size",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nTransfer-Encoding: chunked\n\nfffffffffffffffff\nhello\n0\n\n",
            AtMostOne,
        ),
        (
            "trailers",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\nTransfer-Encoding: chunked\nTrailer: x-weft-source\n\n5;a=b\nhello\n0\nx-weft-source: admin\n\n",
            One("200 POST http://mirror.vote.localhost/ [trailer=x-weft-source, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let wrong = told(&[
        ("none", "GET / HTTP/1.1\nConnection: close\n\n", One("400 the request is not acceptable: it names no host")),
        ("none, before there were any", "GET / HTTP/1.0\n\n", One("400 the request is not acceptable: it names no host")),
        (
            "one, before there were any",
            "GET / HTTP/1.0\nHost: mirror.vote.localhost\n\n",
            One("200 GET http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "two",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nHost: a.test\nConnection: close\n\n",
            One("400 the request is not acceptable: it names more than one host"),
        ),
        (
            "the same twice",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nHost: mirror.vote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: it names more than one host"),
        ),
        (
            "a list",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost, a.test\nConnection: close\n\n",
            One("400 the request is not acceptable: its host is not valid"),
        ),
        (
            "a user",
            "GET / HTTP/1.1\nHost: a.test@mirror.vote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: its host names a user"),
        ),
        (
            "capitals and a dot",
            "GET / HTTP/1.1\nHost: MIRROR.vote.localhost.\nConnection: close\n\n",
            One("200 GET http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "a port that is none",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost:99999\nConnection: close\n\n",
            One("400 the request is not acceptable: its port is not valid"),
        ),
        (
            "an empty port",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost:\nConnection: close\n\n",
            One("200 GET http://mirror.vote.localhost/ [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "an escape",
            "GET / HTTP/1.1\nHost: mirror%2evote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: its host is not valid"),
        ),
        ("nothing", "GET / HTTP/1.1\nHost:\nConnection: close\n\n", One("400 the request is not acceptable: its host is not valid")),
        // The request line holds (RFC 9112 §3.2.2), and the guest is not shown a second opinion.
        (
            "another one than the request line",
            "GET http://mirror.vote.localhost/p HTTP/1.1\nHost: a.test\nConnection: close\n\n",
            One("200 GET http://mirror.vote.localhost/p [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "the request line only",
            "GET http://mirror.vote.localhost/p HTTP/1.1\nConnection: close\n\n",
            One("400 the request is not acceptable: it names no host"),
        ),
        (
            "a user in the request line",
            "GET http://u@mirror.vote.localhost/p HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: its host names a user"),
        ),
        (
            "a tunnel",
            "CONNECT mirror.vote.localhost:80 HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: CONNECT is not supported"),
        ),
        (
            "the server itself",
            "OPTIONS * HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n",
            One("400 the request is not acceptable: its path does not begin with a slash"),
        ),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn a_head_is_well_formed_and_what_it_claims_is_not_believed() {
    let many = |lines: usize| {
        let lines: String = (0..lines)
            .map(|number| format!("x-{number}: 1\n"))
            .collect();
        format!("GET / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n{lines}\n")
    };
    let (fits, too_many, far_too_many) = (many(230), many(245), many(300));
    let long = "v".repeat(61 << 10);
    let too_long = format!(
        "GET / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\nx-long: {long}\n\n"
    );
    let longer = "v".repeat(80 << 10);
    let far_too_long = format!("GET / HTTP/1.1\nHost: mirror.vote.localhost\nx-long: {longer}\n\n");
    let too_far = format!("GET /{longer} HTTP/1.1\nHost: mirror.vote.localhost\n\n");
    let wrong = told(&[
        (
            "a space before the colon",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nContent-Length : 5\n\nhello",
            Refused,
        ),
        (
            "a folded line",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nx-folded: a\n b\n\n",
            Refused,
        ),
        (
            "a lone CR",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nx: a\rb\n\n",
            Refused,
        ),
        (
            "a zero byte",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nx: a\0b\n\n",
            Refused,
        ),
        ("no version", "GET /\n\n", Refused),
        ("a version to come", "GET / HTTP/9.9\nHost: mirror.vote.localhost\n\n", Refused),
        ("no method", " / HTTP/1.1\nHost: mirror.vote.localhost\n\n", Refused),
        (
            "another protocol",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{7c}\u{3}\u{3}\n\n",
            Refused,
        ),
        ("a zero in the path", "GET /a%00b HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n", One("400 the request is not acceptable: its path has a zero byte")),
        (
            "dots in the path",
            "GET /a/../%2e%2e//b?c=/../d HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n",
            One("200 GET http://mirror.vote.localhost/b?c=/../d [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "claims",
            "GET / HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close, x-mine\nX-Mine: 1\nX-Weft-Source: admin\nx-weft-destination: 10.42.0.9:1\nX-Forwarded-Client-Cert: URI=spiffe://x\nForwarded: for=1.2.3.4\nX-Real-Ip: 1.2.3.4\nX-Forwarded-Host: a.test\nX-Forwarded-Port: 1\nKeep-Alive: 5\nProxy-Authorization: Basic eA==\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\nTE: trailers, deflate\nTE: gzip\n\n",
            One("200 GET http://mirror.vote.localhost/ [te=trailers, x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        ("lines that fit", fits.as_str(), One("200 GET http://mirror.vote.localhost/ [x-0=1")),
        ("lines that would not fit", too_many.as_str(), One("431 the request's head is larger than is passed on")),
        ("lines without end", far_too_many.as_str(), Refused),
        ("bytes that would not fit", too_long.as_str(), One("431 the request's head is larger than is passed on")),
        ("bytes without end", far_too_long.as_str(), Refused),
        ("a path without end", too_far.as_str(), Refused),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn what_has_no_content_has_none() {
    let gateway = Gateway::start();
    let mut lines = Vec::new();
    for (method, target) in [
        ("HEAD", "/"),
        ("HEAD", "/?status=404"),
        ("GET", "/?status=204"),
        ("GET", "/?status=304"),
        ("HEAD", "/none"),
        ("GET", "/?status=103"),
    ] {
        let host = if target == "/none" {
            "nobody.test"
        } else {
            "mirror.vote.localhost"
        };
        let next = "GET /next HTTP/1.1\r\nHost: mirror.vote.localhost\r\nConnection: close\r\n\r\n";
        let raw = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{next}");
        let said = bytes_of(gateway.address, raw.as_bytes()).await;
        let said = String::from_utf8(said).expect("ASCII");
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        let status = head.get(9..12).expect("a status");
        let length = head
            .lines()
            .find(|line| line.to_lowercase().starts_with("content-length"));
        let length = match length {
            Some(line) if line.ends_with(": 0") => "no length",
            Some(_) => "a length",
            None => "says none",
        };
        let body = if body.starts_with("HTTP/1.1 200 OK\r\n") {
            "then the next response"
        } else {
            "a body"
        };
        lines.push(format!("{method} {target}: {status}, {length}, {body}"));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    HEAD /: 200, a length, then the next response
    HEAD /?status=404: 404, a length, then the next response
    GET /?status=204: 204, says none, then the next response
    GET /?status=304: 304, says none, then the next response
    HEAD /none: 404, a length, then the next response
    GET /?status=103: 502, a length, a body
    ");
    gateway.serves().await;
}

#[tokio::test]
async fn one_connection_takes_requests_one_after_the_other_and_expectations_are_met() {
    let wrong = told(&[
        (
            "two at once",
            "GET /1 HTTP/1.1\nHost: mirror.vote.localhost\n\nGET /2 HTTP/1.1\nHost: mirror.vote.localhost\nConnection: close\n\n",
            All("200 GET http://mirror.vote.localhost/1 [x-forwarded-host=mirror.vote.localhost] 0 bytes + 200 GET http://mirror.vote.localhost/2 [x-forwarded-host=mirror.vote.localhost] 0 bytes"),
        ),
        (
            "go on",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nExpect: 100-continue\nContent-Length: 5\nConnection: close\n\nhello",
            All("100 + 200 POST http://mirror.vote.localhost/ [content-length=5, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
        (
            "another expectation",
            "POST / HTTP/1.1\nHost: mirror.vote.localhost\nExpect: a-miracle\nContent-Length: 5\nConnection: close\n\nhello",
            One("200 POST http://mirror.vote.localhost/ [content-length=5, x-forwarded-host=mirror.vote.localhost] 5 bytes"),
        ),
    ])
    .await;
    assert_eq!(wrong, NONE);
}
