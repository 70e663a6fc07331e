//! A watch over WebSocket (RFC 6455): what dashboards in browsers ask for, which cannot read a body while it comes.
//!
//! The same events as over HTTP, a message each: text where an event is JSON, binary where the client takes protobuf. Nothing is expected of the
//! client; what it sends is dropped, up to [`RECEIVED_BYTES_MAX`] a message. A client that shows no sign of life ends its watch, which over
//! HTTP the connection itself notices.
//!
//! Invariants: connections are bounded in number ([`SOCKETS_MAX`]); no more than one message waits for a client here; a watch ends with a closing
//! message behind a whole event. Left to others: who asks (a token may stand among the subprotocols: `crate::authn`), the events (`super::watch`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::FromRequestParts as _;
use axum::extract::Request;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
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

/// Watches over WebSocket at one time; each has a task, and some kilobytes.
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

/// The subprotocol that is spoken: the first that the client offers, as far as it is none that carries its token. Whichever it is, the
/// events are the same.
fn subprotocol(headers: &HeaderMap) -> Option<String> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find(|word| !word.is_empty() && !word.starts_with(WEBSOCKET_TOKEN))
        .map(str::to_owned)
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
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            let refusal = StatusError::too_many_requests("too many watches over WebSocket", 5);
            return super::error::ApiError(refusal).into_response();
        };
        let (mut parts, _) = request.into_parts();
        let protocol = subprotocol(&parts.headers);
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                let refusal = StatusError::bad_request(rejection.body_text());
                return super::error::ApiError(refusal).into_response();
            }
        };
        let (head, body) = watch.into_parts();
        let is_binary = head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(PROTOBUF.as_bytes()));
        let events = Events::of(body, is_binary);
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

/// The events of a body, one after the other.
struct Events {
    chunks: BodyDataStream,
    /// What came and is not told yet.
    rest: BytesMut,
    is_binary: bool,
}

impl Events {
    fn of(body: Body, is_binary: bool) -> Self {
        Self {
            chunks: body.into_data_stream(),
            rest: BytesMut::new(),
            is_binary,
        }
    }

    /// The next event as a message; `None` at the end. Cancel safe.
    async fn next(&mut self) -> Option<Message> {
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
        if self.is_binary {
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
        let pieces = |pieces: &'static [&'static [u8]], is_binary| {
            let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece));
            Events::of(Body::from_stream(stream::iter(pieces)), is_binary)
        };
        let mut lines = pieces(
            &[b"{\"a\":", b"1}\n{\"b\":2}\n{\"c", b"\":3}\n", b"half"],
            false,
        );
        for expected in ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}\n"] {
            assert_eq!(lines.next().await, Some(Message::Text(expected.into())));
        }
        assert_eq!(lines.next().await, None);
        let mut frames = pieces(
            &[b"\0\0", b"\0\x02ab\0\0\0\0\0\0\0\x01", b"c", b"\0\0\0\x09x"],
            true,
        );
        for expected in [&b"ab"[..], b"", b"c"] {
            let expected = Message::Binary(Bytes::from_static(expected));
            assert_eq!(frames.next().await, Some(expected));
        }
        assert_eq!(frames.next().await, None);
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
