//! A watch or a log over WebSocket (RFC 6455): what dashboards in browsers ask for, which cannot read a body while it comes.
//!
//! The same events as over HTTP, a message each: text where an event is JSON, binary where the client takes protobuf. A log's bytes are messages as they
//! come, after an empty one; in base64 where that is what the client speaks. Nothing is expected of the client; what it sends is dropped, up to
//! [`RECEIVED_BYTES_MAX`] a message. A client that shows no sign of life is left, which over HTTP the connection itself notices.
//!
//! Invariants: connections are bounded in number ([`SOCKETS_MAX`]); no more than one message waits for a client here; a watch ends with a closing
//! message behind a whole event. Left to others: who asks (a token may stand among the subprotocols: `crate::authn`), the events (`super::watch`),
//! the log (`super::logs`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::FromRequestParts as _;
use axum::extract::Request;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, header};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;

use super::encoding::{Encodings, PROTOBUF};
use crate::authn::WEBSOCKET_TOKEN;

/// Watches and logs over WebSocket at one time; each has a task, and some kilobytes.
const SOCKETS_MAX: usize = 2048;
/// Largest message of a client, which has nothing to say.
const RECEIVED_BYTES_MAX: usize = 4 << 10;
/// Largest message to a client: an event, which has an object of at most 3 MiB.
const SENT_BYTES_MAX: usize = 16 << 20;
/// How often a client is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it has for one, and for taking a message.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// Places for connections.
#[derive(Clone)]
pub struct Sockets(Arc<Semaphore>);

impl Default for Sockets {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SOCKETS_MAX)))
    }
}

/// Whether a request asks to go on as a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let says = |name, wanted: &str| {
        let values = headers.get_all(name).iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "websocket")
}

/// The subprotocols that the client offers, without one that carries its token.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty() && !word.starts_with(WEBSOCKET_TOKEN))
}

/// The subprotocol of a watch: the first that the client offers. Whichever it is, the events are the same.
fn subprotocol(headers: &HeaderMap) -> Option<String> {
    offered(headers).next().map(str::to_owned)
}

/// The subprotocols of bytes, and whether they are messages of text.
const OF_BYTES: [(&str, bool); 2] = [("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

/// What is agreed on for bytes: the first of what is offered that is known, or none where nothing is offered.
fn of_bytes(headers: &HeaderMap) -> Result<(Option<String>, Pieces), StatusError> {
    let offered: Vec<&str> = offered(headers).collect();
    if offered.is_empty() {
        return Ok((None, Pieces::Bytes));
    }
    let known = |word: &&str| OF_BYTES.iter().find(|(known, _)| known == word);
    let Some((agreed, is_text)) = offered.iter().find_map(known) else {
        let known = OF_BYTES.map(|(known, _)| known);
        return Err(StatusError::forbidden_message(format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            offered.join(" "),
            known.join(" ")
        )));
    };
    let pieces = match is_text {
        true => Pieces::Base64,
        false => Pieces::Bytes,
    };
    Ok((Some((*agreed).to_owned()), pieces))
}

impl Sockets {
    /// Answers a request with the events of `watch`, which is what would be sent over HTTP, in JSON. A watch that was refused is
    /// refused here as there.
    pub async fn respond(
        &self,
        request: Request,
        watch: Response,
        tasks: &TaskTracker,
    ) -> Response {
        let encodings = Encodings::of(request.headers());
        let watch = encodings.recode(watch).await;
        if !watch.status().is_success() {
            return watch;
        }
        let protocol = subprotocol(request.headers());
        let is_binary = watch
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(PROTOBUF.as_bytes()));
        let pieces = match is_binary {
            true => Pieces::Lengths,
            false => Pieces::Lines,
        };
        let events = Events::of(watch.into_body(), pieces);
        self.upgrade(request, protocol, events, tasks).await
    }

    /// Answers a request with the bytes of `answer`, which is what would be sent over HTTP. What was refused is refused here as there.
    pub async fn respond_bytes(
        &self,
        request: Request,
        answer: Response,
        tasks: &TaskTracker,
    ) -> Response {
        if !answer.status().is_success() {
            return answer;
        }
        match of_bytes(request.headers()) {
            Ok((protocol, pieces)) => {
                let bytes = Events::of(answer.into_body(), pieces);
                self.upgrade(request, protocol, bytes, tasks).await
            }
            Err(refusal) => super::error::ApiError(refusal).into_response(),
        }
    }

    async fn upgrade(
        &self,
        request: Request,
        protocol: Option<String>,
        events: Events,
        tasks: &TaskTracker,
    ) -> Response {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            let refusal = StatusError::too_many_requests("too many watches over WebSocket", 5);
            return super::error::ApiError(refusal).into_response();
        };
        let (mut parts, _) = request.into_parts();
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                let refusal = StatusError::bad_request(rejection.body_text());
                return super::error::ApiError(refusal).into_response();
            }
        };
        let task = tasks.token();
        upgrade
            .protocols(protocol)
            .max_message_size(RECEIVED_BYTES_MAX)
            .max_frame_size(RECEIVED_BYTES_MAX)
            .max_write_buffer_size(2 * SENT_BYTES_MAX)
            .on_upgrade(move |socket| async move {
                serve(socket, events).await;
                drop((place, task));
            })
    }
}

/// What of a body is a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pieces {
    /// A line, as text.
    Lines,
    /// What follows a length.
    Lengths,
    /// What came at once.
    Bytes,
    /// The same as text.
    Base64,
}

/// The events of a body, one after the other.
struct Events {
    chunks: BodyDataStream,
    /// What came and is not told yet.
    rest: BytesMut,
    pieces: Pieces,
    /// Nothing was said yet: bytes begin with an empty message.
    is_first: bool,
}

impl Events {
    fn of(body: Body, pieces: Pieces) -> Self {
        Self {
            chunks: body.into_data_stream(),
            rest: BytesMut::new(),
            pieces,
            is_first: true,
        }
    }

    fn message(&self, bytes: Bytes) -> Message {
        match self.pieces {
            Pieces::Base64 => Message::Text(STANDARD.encode(bytes).into()),
            Pieces::Lines | Pieces::Lengths | Pieces::Bytes => Message::Binary(bytes),
        }
    }

    /// The next event as a message; `None` at the end. Cancel safe.
    async fn next(&mut self) -> Option<Message> {
        if matches!(self.pieces, Pieces::Bytes | Pieces::Base64) {
            if std::mem::take(&mut self.is_first) {
                return Some(self.message(Bytes::new()));
            }
            // What broke off ends here.
            let chunk = self.chunks.next().await?.ok()?;
            return Some(self.message(chunk));
        }
        loop {
            if let Some(event) = self.whole() {
                return Some(event);
            }
            match self.chunks.next().await? {
                Ok(chunk) if self.rest.len() + chunk.len() <= SENT_BYTES_MAX => {
                    self.rest.extend_from_slice(&chunk);
                }
                // Half an event would be worse than the end.
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The first event of what is there.
    fn whole(&mut self) -> Option<Message> {
        if self.pieces == Pieces::Lengths {
            let length = self.rest.first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            if self.rest.len() < length.checked_add(4)? {
                return None;
            }
            self.rest.advance(4);
            return Some(Message::Binary(self.rest.split_to(length).freeze()));
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line: Bytes = self.rest.split_to(end + 1).freeze();
        // What is written as JSON is UTF-8.
        Utf8Bytes::try_from(line).ok().map(Message::Text)
    }
}

async fn serve(socket: WebSocket, mut events: Events) {
    let (mut out, mut received) = socket.split();
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            biased;
            alive = hear(&mut received) => {
                if !alive {
                    return;
                }
                heard = Instant::now();
            }
            _ = ticks.tick() => {
                if heard.elapsed() > SILENCE_MAX || !send(&mut out, Message::Ping(Bytes::new())).await {
                    return;
                }
            }
            event = events.next() => {
                let Some(event) = event else {
                    break;
                };
                if !send(&mut out, event).await {
                    return;
                }
            }
        }
    }
    let normal = CloseFrame {
        code: close_code::NORMAL,
        reason: Utf8Bytes::default(),
    };
    if send(&mut out, Message::Close(Some(normal))).await {
        // The other end says goodbye, too; a client that does not is not waited for.
        let goodbye = async { while hear(&mut received).await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// Whether the client is still there, at its next message.
async fn hear(received: &mut SplitStream<WebSocket>) -> bool {
    matches!(received.next().await, Some(Ok(message)) if !matches!(message, Message::Close(_)))
}

/// Whether it took a message in time.
async fn send(out: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    let sent = tokio::time::timeout(SILENCE_MAX, out.send(message)).await;
    matches!(sent, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn events_are_whole_whatever_the_pieces_they_come_in() {
        let pieces = |pieces: &'static [&'static [u8]], of| {
            let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece));
            Events::of(Body::from_stream(stream::iter(pieces)), of)
        };
        let mut lines = pieces(
            &[b"{\"a\":", b"1}\n{\"b\":2}\n{\"c", b"\":3}\n", b"half"],
            Pieces::Lines,
        );
        for expected in ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}\n"] {
            assert_eq!(lines.next().await, Some(Message::Text(expected.into())));
        }
        assert_eq!(lines.next().await, None);
        let mut frames = pieces(
            &[b"\0\0", b"\0\x02ab\0\0\0\0\0\0\0\x01", b"c", b"\0\0\0\x09x"],
            Pieces::Lengths,
        );
        for expected in [&b"ab"[..], b"", b"c"] {
            let expected = Message::Binary(Bytes::from_static(expected));
            assert_eq!(frames.next().await, Some(expected));
        }
        assert_eq!(frames.next().await, None);
        let mut bytes = pieces(&[b"a\nb", b"\xff"], Pieces::Bytes);
        for expected in [&b""[..], b"a\nb", b"\xff"] {
            let expected = Message::Binary(Bytes::from_static(expected));
            assert_eq!(bytes.next().await, Some(expected));
        }
        assert_eq!(bytes.next().await, None);
        let mut text = pieces(&[b"hi"], Pieces::Base64);
        for expected in ["", "aGk="] {
            assert_eq!(text.next().await, Some(Message::Text(expected.into())));
        }
        assert_eq!(text.next().await, None);
    }

    #[test]
    fn bytes_are_spoken_in_one_of_two_ways() {
        for (offered, expected) in [
            ("", Ok((None, Pieces::Bytes))),
            ("binary.k8s.io", Ok((Some("binary.k8s.io"), Pieces::Bytes))),
            (
                "x, base64.binary.k8s.io, binary.k8s.io",
                Ok((Some("base64.binary.k8s.io"), Pieces::Base64)),
            ),
            (
                "v4.channel.k8s.io",
                Err((
                    403,
                    "requested protocol(s) are not supported: [v4.channel.k8s.io]; supports [binary.k8s.io base64.binary.k8s.io]",
                )),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            let agreed = of_bytes(&headers);
            let agreed = agreed.as_ref();
            let agreed = agreed.map(|(protocol, pieces)| (protocol.as_deref(), *pieces));
            let agreed = agreed.map_err(|refused| (refused.code, refused.message.as_str()));
            assert_eq!(agreed, expected, "{offered}");
        }
    }

    #[test]
    fn what_asks_for_a_socket_and_in_which_words() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        let asks = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ]);
        assert!(is_asked(&asks));
        assert!(!is_asked(&headers(&[("upgrade", "websocket")])));
        assert!(!is_asked(&headers(&[
            ("connection", "upgrade"),
            ("upgrade", "SPDY/3.1")
        ])));
        for (offered, spoken) in [
            ("", None),
            ("base64url.bearer.authorization.k8s.io.dG9r", None),
            (
                "base64url.bearer.authorization.k8s.io.dG9r, base64.binary.k8s.io",
                Some("base64.binary.k8s.io"),
            ),
            ("a,b", Some("a")),
        ] {
            let offered = headers(&[("sec-websocket-protocol", offered)]);
            assert_eq!(subprotocol(&offered).as_deref(), spoken);
        }
    }
}
