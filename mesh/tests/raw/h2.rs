//! HTTP/2, frame by frame. Fields are written as literals, which takes no table; of what comes back the status is read, no more.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Gateway, PATIENCE, tls};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A literal field, without Huffman and without a place in the table (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits.
        match text.len() {
            length @ 0..127 => out.push(length as u8),
            length => {
                out.push(127);
                let mut left = length - 127;
                while left >= 128 {
                    out.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                out.push(left as u8);
            }
        }
        out.extend(text.as_bytes());
    }
    out
}

pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// A whole request without a body on `stream`.
pub fn request(stream: u32, lines: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(lines))
}

pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "mirror.vote.localhost"),
    (":path", "/"),
];

/// `GET /` of the mirror with further fields.
pub fn get(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    request(stream, &[&GET[..], more].concat())
}

/// The last request of a conversation, whose answer says that the connection is still good.
fn last() -> Vec<u8> {
    get(LAST, &[])
}

pub const LAST: u32 = 10_001;

/// When the last request of a conversation is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    AtOnce,
    /// When stream 1 has ended.
    After,
}

/// One connection: what is sent on it, then the request of stream [`LAST`], and what comes back until that has ended or the connection has.
pub async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    sent: &[u8],
    then: Then,
    last: &[u8],
) -> String {
    let talk = async {
        // It may close before it has read all.
        let _ = io.write_all(PREFACE).await;
        let _ = io.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        let _ = io.write_all(sent).await;
        if then == Then::AtOnce {
            let _ = io.write_all(last).await;
        }
        let _ = io.flush().await;
        let mut told = Vec::new();
        while let Some((kind, flags, stream, payload)) = next(&mut io).await {
            let ended = flags & END_STREAM != 0;
            let end = if ended { ", end" } else { "" };
            let says = match kind {
                HEADERS => format!("{stream}: {}{end}", status(&payload)),
                // The mirror's text is of no interest here, but that there is some.
                DATA if payload.is_empty() => format!("{stream}: no data{end}"),
                DATA => format!("{stream}: data{end}"),
                RST_STREAM => format!("{stream}: reset {}", reason(&payload)),
                GOAWAY => format!("gone: {}", reason(payload.get(4..).unwrap_or_default())),
                PING if flags & ACK == 0 => {
                    let _ = io.write_all(&frame(PING, ACK, 0, &payload)).await;
                    continue;
                }
                SETTINGS if flags & ACK == 0 => {
                    let _ = io.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                    continue;
                }
                _ => continue,
            };
            let is_over = ended || kind == RST_STREAM;
            if stream != LAST {
                told.push(says);
                if stream == 1 && is_over && then == Then::After {
                    let _ = io.write_all(last).await;
                    let _ = io.flush().await;
                }
            } else if is_over {
                told.push("and serves on".to_owned());
                return told;
            }
        }
        told.push("closed".to_owned());
        told
    };
    let told = tokio::time::timeout(PATIENCE, talk).await;
    told.expect("an end").join("; ")
}

/// The next frame: kind, flags, stream, payload.
async fn next(io: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], stream, payload))
}

/// The status that begins a block of response fields: a place of the static table, or its name there and three digits.
fn status(block: &[u8]) -> String {
    // A change of the table's size may come first (RFC 7541 §6.3).
    let block = match block {
        [size, rest @ ..] if size & 0xe0 == 0x20 => rest,
        block => block,
    };
    let known = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [place @ 0x88..=0x8e, ..] => known[usize::from(place - 0x88)].to_owned(),
        [0x48 | 0x08 | 0x18, length, text @ ..] => {
            let bytes = usize::from(length & 0x7f);
            if length & 0x80 == 0 {
                return String::from_utf8_lossy(&text[..bytes]).into_owned();
            }
            huffman_digits(&text[..bytes])
        }
        other => format!("trailers or {:02x?}", other.first()),
    }
}

/// Digits in HPACK's Huffman code: three of them in five bits, the others in six (RFC 7541, Appendix B).
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let mut text = String::new();
    let mut rest = &bits[..];
    while text.len() < 3 && rest.len() >= 5 {
        match number(&rest[..5]) {
            digit @ 0..=2 => {
                text.push(char::from(b'0' + digit));
                rest = &rest[5..];
            }
            _ => {
                let code = number(rest.get(..6).unwrap_or(rest));
                text.push(char::from(b'3' + code.wrapping_sub(0x19)));
                rest = rest.get(6..).unwrap_or_default();
            }
        }
    }
    text
}

fn reason(payload: &[u8]) -> &'static str {
    match payload.get(..4) {
        Some([0, 0, 0, 0]) => "NO_ERROR",
        Some([0, 0, 0, 1]) => "PROTOCOL_ERROR",
        Some([0, 0, 0, 2]) => "INTERNAL_ERROR",
        Some([0, 0, 0, 3]) => "FLOW_CONTROL_ERROR",
        Some([0, 0, 0, 5]) => "STREAM_CLOSED",
        Some([0, 0, 0, 6]) => "FRAME_SIZE_ERROR",
        Some([0, 0, 0, 7]) => "REFUSED_STREAM",
        Some([0, 0, 0, 8]) => "CANCEL",
        Some([0, 0, 0, 9]) => "COMPRESSION_ERROR",
        Some([0, 0, 0, 11]) => "ENHANCE_YOUR_CALM",
        _ => "something else",
    }
}

async fn ask(gateway: SocketAddr, sent: &[u8], then: Then) -> String {
    let stream = TcpStream::connect(gateway).await.expect("a connection");
    converse(stream, sent, then, &last()).await
}

/// What should come of frames.
pub enum Want<'t> {
    /// An answer that begins so, and the connection serves on.
    Says(&'t str),
    /// A status, the end of the stream or of the connection that says no.
    Refused,
    /// The end of the connection.
    Closed,
    /// Whatever it is, the connection serves on.
    ServesOn,
}
use Want::{Closed, Refused, Says, ServesOn};

impl Want<'_> {
    /// Where stream 1 is sure to end, what follows waits for that.
    pub fn then(&self) -> Then {
        match self {
            Says(_) | Refused => Then::After,
            Closed | ServesOn => Then::AtOnce,
        }
    }

    pub fn is(&self, told: &str) -> bool {
        let serves_on = told.ends_with("and serves on");
        let is_closed = told.ends_with("closed");
        let no = ["1: 4", "1: reset", "gone", "closed"];
        match self {
            Says(text) => serves_on && told.starts_with(text),
            Refused => (serves_on || is_closed) && no.iter().any(|no| told.starts_with(no)),
            Closed => is_closed,
            ServesOn => serves_on,
        }
    }
}

/// Sends each, in the clear and over TLS, then a request like any other on the same connection, and says of which something else came than
/// should.
pub async fn told(cases: &[(&str, Want<'_>, Vec<u8>)]) -> Vec<String> {
    let gateway = Gateway::start();
    let mut wrong = Vec::new();
    for (name, want, sent) in cases {
        let told = ask(gateway.address, sent, want.then()).await;
        if !want.is(&told) {
            wrong.push(format!("{name}: {told}"));
        }
        let stream = tls::agreed(&gateway, b"h2").await;
        let told = converse(stream, sent, want.then(), &last()).await;
        if !want.is(&told) {
            wrong.push(format!("{name}, over TLS: {told}"));
        }
    }
    gateway.serves().await;
    wrong
}

const NONE: Vec<String> = Vec::new();

fn with(changed: &str, value: &str) -> Vec<(&'static str, String)> {
    GET.iter()
        .map(|(name, usual)| {
            let value = if *name == changed { value } else { usual };
            (*name, value.to_owned())
        })
        .collect()
}

/// `GET /` with one pseudo-field changed.
fn changed(name: &str, value: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let changed = with(name, value);
    let lines: Vec<(&str, &str)> = changed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain(more.iter().copied())
        .collect();
    request(1, &lines)
}

/// `POST /` with further fields, whose body follows in frames of data.
fn post(more: &[(&str, &str)], parts: &[&str]) -> Vec<u8> {
    let changed = with(":method", "POST");
    let lines: Vec<(&str, &str)> = changed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain(more.iter().copied())
        .collect();
    let mut out = frame(HEADERS, END_HEADERS, 1, &fields(&lines));
    for (number, part) in parts.iter().enumerate() {
        let flags = if number + 1 == parts.len() {
            END_STREAM
        } else {
            0
        };
        out.extend(frame(DATA, flags, 1, part.as_bytes()));
    }
    out
}

#[tokio::test]
async fn what_has_no_content_has_no_data() {
    let wrong = told(&[
        (
            "HEAD",
            Says("1: 200, end; "),
            changed(":method", "HEAD", &[]),
        ),
        ("GET", Says("1: 200; 1: data"), changed(":path", "/", &[])),
        (
            "204",
            Says("1: 204, end; "),
            changed(":path", "/?status=204", &[]),
        ),
        (
            "304",
            Says("1: 304, end; "),
            changed(":path", "/?status=304", &[]),
        ),
        (
            "an interim status",
            Says("1: 502; 1: data"),
            changed(":path", "/?status=103", &[]),
        ),
        ("HEAD of nobody", Says("1: 404, end; "), {
            let changed = with(":method", "HEAD");
            let lines: Vec<(&str, &str)> = changed
                .iter()
                .map(|(name, value)| match *name {
                    ":authority" => (*name, "nobody.test"),
                    _ => (*name, value.as_str()),
                })
                .collect();
            request(1, &lines)
        }),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let wrong = told(&[
        (
            "capitals and a dot",
            Says("1: 200"),
            changed(":authority", "MIRROR.vote.localhost.", &[]),
        ),
        (
            "a user",
            Refused,
            changed(":authority", "u@mirror.vote.localhost", &[]),
        ),
        (
            "a list",
            Refused,
            changed(":authority", "mirror.vote.localhost,a.test", &[]),
        ),
        (
            "a port that is none",
            Refused,
            changed(":authority", "mirror.vote.localhost:99999", &[]),
        ),
        ("an empty one", Refused, changed(":authority", "", &[])),
        (
            "the same in host",
            Says("1: 200"),
            get(1, &[("host", "Mirror.vote.localhost")]),
        ),
        ("another in host", Refused, get(1, &[("host", "a.test")])),
        (
            "two in host",
            Refused,
            get(
                1,
                &[
                    ("host", "mirror.vote.localhost"),
                    ("host", "mirror.vote.localhost"),
                ],
            ),
        ),
        (
            "two authorities",
            Refused,
            get(1, &[(":authority", "a.test")]),
        ),
        (
            "in host only",
            Says("1: 200"),
            request(
                1,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    ("host", "mirror.vote.localhost"),
                ],
            ),
        ),
        (
            "none",
            Refused,
            request(
                1,
                &[(":method", "GET"), (":scheme", "http"), (":path", "/")],
            ),
        ),
        (
            "a tunnel",
            Refused,
            request(
                1,
                &[
                    (":method", "CONNECT"),
                    (":authority", "mirror.vote.localhost:80"),
                ],
            ),
        ),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_and_nothing_else() {
    let long = "v".repeat(90 << 10);
    let wrong = told(&[
        ("no path", Refused, request(1, &GET[..3])),
        ("an empty path", Refused, changed(":path", "", &[])),
        (
            "a path without a slash",
            Refused,
            changed(":path", "a", &[]),
        ),
        ("no method", Refused, request(1, &GET[1..])),
        (
            "a pseudo-field of responses",
            Refused,
            get(1, &[(":status", "200")]),
        ),
        (
            "a pseudo-field after fields",
            Refused,
            request(1, &[&GET[..3], &[("x", "1"), (":path", "/")]].concat()),
        ),
        ("capitals", Refused, get(1, &[("X-Mine", "1")])),
        ("a zero byte", Refused, get(1, &[("x", "a\0b")])),
        (
            "the end of a line",
            Refused,
            get(1, &[("x", "a\r\nx-weft-source: admin")]),
        ),
        ("connection", Refused, get(1, &[("connection", "close")])),
        (
            "transfer-encoding",
            Refused,
            get(1, &[("transfer-encoding", "chunked")]),
        ),
        ("te", Refused, get(1, &[("te", "gzip")])),
        (
            "te twice",
            ServesOn,
            get(1, &[("te", "trailers"), ("te", "gzip")]),
        ),
        (
            "claims",
            Says("1: 200"),
            get(
                1,
                &[
                    ("x-weft-source", "admin"),
                    ("x-weft-destination", "10.42.0.9:1"),
                ],
            ),
        ),
        ("more bytes than are taken", Refused, {
            let block = fields(&[&GET[..], &[("x-long", long.as_str())]].concat());
            let parts: Vec<&[u8]> = block.chunks(16_000).collect();
            let mut out = frame(HEADERS, END_STREAM, 1, parts[0]);
            for (number, part) in parts.iter().enumerate().skip(1) {
                let flags = if number + 1 == parts.len() {
                    END_HEADERS
                } else {
                    0
                };
                out.extend(frame(CONTINUATION, flags, 1, part));
            }
            out
        }),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let trailers = |lines: &[(&str, &str)]| {
        let mut out = post(&[], &["hello", ""]);
        // The last part is not the end, the trailers are.
        out.truncate(out.len() - 9);
        out.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(lines)));
        out
    };
    let wrong = told(&[
        (
            "as it says",
            Says("1: 200"),
            post(&[("content-length", "5")], &["hel", "lo"]),
        ),
        ("says nothing", Says("1: 200"), post(&[], &["hello"])),
        (
            "less",
            Refused,
            post(&[("content-length", "6")], &["hello"]),
        ),
        (
            "more",
            Refused,
            post(&[("content-length", "4")], &["hello"]),
        ),
        ("none", Refused, post(&[("content-length", "5")], &[""])),
        (
            "two lengths",
            Refused,
            post(
                &[("content-length", "5"), ("content-length", "6")],
                &["hello"],
            ),
        ),
        (
            "no number",
            Refused,
            post(&[("content-length", "+5")], &["hello"]),
        ),
        ("trailers", Says("1: 200"), trailers(&[("x-checksum", "1")])),
        (
            "trailers with a method",
            ServesOn,
            trailers(&[(":method", "GET")]),
        ),
        ("given up", ServesOn, {
            let mut out = post(&[], &["hello", "world"]);
            out.truncate(out.len() - 14);
            out.extend(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
            out
        }),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

#[tokio::test]
async fn what_breaks_the_rules_of_the_connection_ends_it_and_no_other() {
    let block = fields(&GET);
    let flood: Vec<u8> = (0..4000)
        .flat_map(|_| frame(CONTINUATION, 0, 1, &field("x", "1")))
        .collect();
    let wrong = told(&[
        ("an even stream", Closed, get(2, &[])),
        ("no stream", Closed, get(0, &[])),
        ("data of no stream", Closed, frame(DATA, 0, 0, b"hello")),
        (
            "data of a stream that is not open",
            Closed,
            frame(DATA, 0, 7, b"hello"),
        ),
        ("a frame in the midst of a head", Closed, {
            let mut out = frame(HEADERS, END_STREAM, 1, &block);
            out.extend(frame(PING, 0, 0, &[0; 8]));
            out
        }),
        (
            "a frame that is too large",
            Closed,
            frame(DATA, 0, 1, &vec![0; 40_000]),
        ),
        ("a ping of no length", Closed, frame(PING, 0, 0, &[])),
        ("a window that overflows", Closed, {
            let most = 0x7fff_ffff_u32.to_be_bytes();
            frame(WINDOW_UPDATE, 0, 0, &most)
        }),
        (
            "a field that is none",
            Closed,
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20]),
        ),
        (
            "a head without end",
            Closed,
            [frame(HEADERS, END_STREAM, 1, &block), flood].concat(),
        ),
    ])
    .await;
    assert_eq!(wrong, NONE);
}

/// Two thousand times: `call`, and at once the end of it.
pub fn given_up(call: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let each = |number: u32| {
        let stream = 2 * number + 1;
        [call(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    (0..2000).flat_map(each).collect()
}

/// CVE-2023-44487. Whether the connection is closed depends on how fast its streams are taken up; that nobody else notices does not.
#[tokio::test]
async fn requests_that_are_given_up_at_once_hurt_nobody_else() {
    let gateway = Gateway::start();
    let sent = given_up(|stream| get(stream, &[]));
    let (first, second, ()) = tokio::join!(
        ask(gateway.address, &sent, Then::AtOnce),
        ask(gateway.address, &sent, Then::AtOnce),
        gateway.serves()
    );
    for told in [first, second] {
        let ends_well = told.ends_with("and serves on");
        assert!(ends_well || told.ends_with("closed"), "{told}");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn another_protocol_is_closed() {
    let gateway = Gateway::start();
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    let _ = stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        .await;
    let mut said = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // However it is closed: in the midst of what it said or after it.
    let _ = closed.expect("it is closed");
    gateway.serves().await;
}
