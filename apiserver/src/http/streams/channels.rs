//! A command, or a look at one, over WebSocket: each message is of one channel, which its first byte names.
//!
//! ```text
//! 0 stdin · 1 stdout · 2 stderr · 3 how it ended · 4 size of the terminal · 255 a channel's end (v5)
//! ```
//!
//! In the forms with base64 a message is text, and the channel a digit. A message without bytes on the first channel that can be written tells that the
//! connection is there. How it ended is a Status since v4, and a sentence before, if it failed.
//!
//! Invariants: a message to the client is made when the one before was taken; a client that goes ends the session; the end is told once, and then the socket
//! is closed. Left to others: the node's end (`super::node`), which form (`super::wire`).

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::MissedTickBehavior;
use weft_call::stream_frame::{Channel, Frame};

use super::idle::Idle;
use super::node::{self, Heard, Said, Sizes};
use super::options::Wanted;
use super::wire::Version;
use super::{Session, told_in_words};
use crate::http::proxy::NodeStream;

/// How often the client is asked whether it is there. It may be too busy to say so; that it is gone, its machine says.
pub(super) const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a client has to say goodbye.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// How channels are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub is_base64: bool,
    pub version: Version,
}

/// What a client says.
#[derive(Debug, PartialEq)]
enum Word {
    Stdin(Bytes),
    StdinEnds,
    Size(Bytes),
    /// It has left, or says what nobody could mean.
    Left,
    Nothing,
}

impl Form {
    fn write(self, channel: Channel, bytes: &[u8]) -> Message {
        let number = channel.number();
        if self.is_base64 {
            let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + number));
            STANDARD.encode_string(bytes, &mut text);
            return Message::Text(text.into());
        }
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(number);
        message.extend_from_slice(bytes);
        Message::Binary(message.into())
    }

    fn read(self, message: Message) -> Word {
        let mut bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Ping(_) | Message::Pong(_) => return Word::Nothing,
            Message::Close(_) => return Word::Left,
        };
        let Some(number) = bytes.first().copied() else {
            return Word::Nothing;
        };
        let rest = bytes.split_off(1);
        if number == Channel::Close.number() && self.version == Version::V5 {
            return match rest[..] {
                [0] => Word::StdinEnds,
                [1..5] => Word::Nothing,
                _ => Word::Left,
            };
        }
        let (number, rest) = match self.is_base64 {
            false => (number, rest),
            true => match STANDARD.decode(&rest) {
                Ok(rest) => (number.wrapping_sub(b'0'), rest.into()),
                Err(_) => return Word::Nothing,
            },
        };
        match Channel::of(number) {
            Some(Channel::Stdin) => Word::Stdin(rest),
            Some(Channel::Resize) => Word::Size(rest),
            _ => Word::Nothing,
        }
    }

    /// How it ended; none where there is nothing to say.
    fn end(self, status: &Value) -> Option<Message> {
        let told = match self.version.has_status() {
            true => status.to_string(),
            false => told_in_words(status)?,
        };
        Some(self.write(Channel::End, told.as_bytes()))
    }
}

/// Carries a session over a socket, to the end of either.
/// `node` is its other end, where that is there already.
pub(super) async fn serve(
    socket: WebSocket,
    form: Form,
    session: Session,
    node: Option<NodeStream>,
) {
    let idle = Idle::new();
    let (mut out, mut received) = socket.split();
    let Wanted { stdout, stderr, .. } = session.wanted;
    let first = match () {
        () if stdout => Channel::Stdout,
        () if stderr => Channel::Stderr,
        () => Channel::End,
    };
    if out.send(form.write(first, b"")).await.is_err() {
        return;
    }
    let opened = match node {
        Some(node) => Ok(node),
        None => session.open().await,
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(refusal) => {
            // Gone already, otherwise.
            let _ = end(&mut out, form, &node::failure(&refusal)).await;
            return;
        }
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut heard = Heard::new(reader, &session.node);
    let up = up(&mut received, &mut writer, form, session.wanted, &idle);
    let mut up = std::pin::pin!(up);
    tokio::select! {
        biased;
        () = &mut up => return,
        told = down(&mut out, &mut heard, form, session.doing, &idle) => if told.is_err() {
            return;
        },
        () = idle.over() => return,
    }
    let _ = tokio::time::timeout(FAREWELL_MAX, up).await;
}

/// The client took nothing more.
struct Deaf;

async fn end(
    out: &mut SplitSink<WebSocket, Message>,
    form: Form,
    status: &Value,
) -> Result<(), Deaf> {
    if let Some(told) = form.end(status) {
        out.feed(told).await.map_err(|_| Deaf)?;
    }
    out.send(goodbye()).await.map_err(|_| Deaf)
}

/// The closing message of whatever came to its end.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: Utf8Bytes::default(),
    }))
}

/// From the client to the node, until the client leaves.
async fn up(
    received: &mut SplitStream<WebSocket>,
    writer: &mut (impl AsyncWrite + Unpin),
    form: Form,
    wanted: Wanted,
    idle: &Idle,
) {
    let mut sizes = Sizes::default();
    let mut listens = true;
    while let Some(Ok(message)) = received.next().await {
        let frame = match form.read(message) {
            Word::Left => return,
            Word::Nothing => continue,
            Word::Stdin(bytes) if wanted.stdin && !bytes.is_empty() => {
                Some(Frame::new(Channel::Stdin, bytes))
            }
            Word::StdinEnds if wanted.stdin => Some(Frame::close(Channel::Stdin)),
            Word::Size(bytes) if wanted.tty => sizes.newest(&bytes),
            Word::Stdin(_) | Word::StdinEnds | Word::Size(_) => None,
        };
        idle.touch();
        if let Some(frame) = frame.filter(|_| listens) {
            // The node's end of it is heard on the other side.
            listens = node::say(writer, &frame).await.is_ok();
        }
    }
}

/// From the node to the client, until it has told how it ended.
async fn down(
    out: &mut SplitSink<WebSocket, Message>,
    heard: &mut Heard<impl AsyncRead + Unpin>,
    form: Form,
    doing: &str,
    idle: &Idle,
) -> Result<(), Deaf> {
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        let message = tokio::select! {
            biased;
            said = heard.next(doing) => {
                idle.touch();
                match said {
                    Said::Stdout(bytes) => form.write(Channel::Stdout, &bytes),
                    Said::Stderr(bytes) => form.write(Channel::Stderr, &bytes),
                    Said::End(status) => return end(out, form, &status).await,
                }
            }
            _ = ticks.tick() => Message::Ping(Bytes::new()),
        };
        out.send(message).await.map_err(|_| Deaf)?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(version: Version, is_base64: bool) -> Form {
        Form { is_base64, version }
    }

    fn binary(bytes: &'static [u8]) -> Message {
        Message::Binary(Bytes::from_static(bytes))
    }

    #[test]
    fn messages_are_channels() {
        let (v5, v4, old) = (
            form(Version::V5, false),
            form(Version::V4, false),
            form(Version::V1, true),
        );
        for (form, message, expected) in [
            (v5, binary(b"\0hi"), Word::Stdin("hi".into())),
            (v5, binary(b"\x04{}"), Word::Size("{}".into())),
            (v5, binary(b"\xff\0"), Word::StdinEnds),
            (v5, binary(b"\xff\x01"), Word::Nothing),
            (v5, binary(b"\xff\x09"), Word::Left),
            (v5, binary(b"\xff"), Word::Left),
            // What v4 has no word for.
            (v4, binary(b"\xff\0"), Word::Nothing),
            (v4, binary(b"\x09x"), Word::Nothing),
            (v4, binary(b""), Word::Nothing),
            (
                v4,
                Message::Text("\u{0}hi".into()),
                Word::Stdin("hi".into()),
            ),
            (old, Message::Text("0aGk=".into()), Word::Stdin("hi".into())),
            (old, binary(b"0aGk="), Word::Stdin("hi".into())),
            (old, Message::Text("0a".into()), Word::Nothing),
            (old, Message::Text("x".into()), Word::Nothing),
            (v5, Message::Close(None), Word::Left),
            (v5, Message::Pong(Bytes::new()), Word::Nothing),
        ] {
            assert_eq!(form.read(message.clone()), expected, "{message:?}");
        }
        assert_eq!(v5.write(Channel::Stdout, b"x"), binary(b"\x01x"));
        assert_eq!(
            old.write(Channel::Stderr, b"hi"),
            Message::Text("2aGk=".into())
        );
    }

    #[test]
    fn the_end_is_a_status_or_a_sentence_if_there_is_one() {
        let (success, failure) = (
            json!({"status": "Success"}),
            json!({"status": "Failure", "message": "no"}),
        );
        let (v4, v1) = (form(Version::V4, false), form(Version::V1, false));
        assert_eq!(
            v4.end(&success),
            Some(binary(b"\x03{\"status\":\"Success\"}"))
        );
        assert_eq!(v1.end(&success), None);
        assert_eq!(v1.end(&failure), Some(binary(b"\x03no")));
    }
}
