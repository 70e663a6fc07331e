//! The node's end of a session: frames of [`weft_call::stream_frame`], until it says how it ended.
//!
//! A node that has nothing to say sends a frame without bytes every second. One that does not is lost, whoever is to blame; a session is not held for it.
//!
//! Invariants: a session ends with one Status; what a node says after it, or says wrong, is not listened to.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use weft_api::status::StatusError;
use weft_call::stream_frame::{self, Channel, Frame};

use crate::http::proxy::{NodeError, StreamError};

/// How long a node may say nothing, in which it has said four times that it is there.
const SILENCE_MAX: Duration = Duration::from_millis(4500);
/// What is read at once.
const READ_BYTES: usize = 32 << 10;

/// What a node says.
pub(super) struct Heard<R> {
    reader: R,
    read: BytesMut,
    node: String,
}

/// What is made of it.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Stdout(Bytes),
    Stderr(Bytes),
    /// A Status, and nothing after it.
    End(Value),
}

impl<R: AsyncRead + Unpin> Heard<R> {
    pub(super) fn new(reader: R, node: &str) -> Self {
        Self {
            reader,
            read: BytesMut::new(),
            node: node.to_owned(),
        }
    }

    /// What comes next. Cancel safe. `doing` is what is told to have failed when the node goes before it says how it ended.
    pub(super) async fn next(&mut self, doing: &str) -> Said {
        loop {
            match stream_frame::decode(&mut self.read) {
                Ok(Some(frame)) => {
                    let payload = frame.payload;
                    match frame.channel {
                        // A sign of life.
                        Channel::Stdout | Channel::Stderr if payload.is_empty() => {}
                        Channel::Stdout => return Said::Stdout(payload),
                        Channel::Stderr => return Said::Stderr(payload),
                        Channel::End => return self.ended(&payload, doing),
                        Channel::Stdin | Channel::Resize | Channel::Close => {}
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    return self.lost(&format!("what it says is no session: {error}"), doing);
                }
            }
            self.read.reserve(READ_BYTES);
            let reading = self.reader.read_buf(&mut self.read);
            match tokio::time::timeout(SILENCE_MAX, reading).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return self.lost("its connection has ended", doing),
                // A process that is gone says no goodbye.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.lost("its connection has ended", doing);
                }
                Ok(Err(error)) => {
                    return self.lost(&format!("its connection has ended: {error}"), doing);
                }
                Err(_) => return self.lost("it says nothing any more", doing),
            }
        }
    }

    fn ended(&self, payload: &[u8], doing: &str) -> Said {
        match serde_json::from_slice(payload) {
            Ok(status @ Value::Object(_)) => Said::End(status),
            Ok(_) | Err(_) => self.lost("how it ended is not understood", doing),
        }
    }

    fn lost(&self, why: &str, doing: &str) -> Said {
        let told = format!(
            "{doing}: node {:?} is lost: {why}; the pod may go on elsewhere, see where it is now",
            self.node
        );
        Said::End(failure(&StatusError::internal(told)))
    }
}

/// A refusal as it is told on a stream: of a kind that is known.
pub(super) fn failure(error: &StatusError) -> Value {
    let mut status = error.to_value();
    if let Some(status) = status.as_object_mut() {
        status.retain(|field, _| !matches!(field.as_str(), "kind" | "apiVersion"));
    }
    status
}

/// Tells a node something.
pub(super) async fn say(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// Why a node cannot be asked, for the eyes of whoever asked.
pub(super) fn undialled(node: &str, error: &StreamError) -> StatusError {
    match error {
        StreamError::Refused(status) => status.clone(),
        StreamError::Node(error) => unreached(node, error),
    }
}

/// The same where nothing was asked of it yet.
pub(super) fn unreached(node: &str, error: &NodeError) -> StatusError {
    let mut told = format!("error dialing backend: node {node:?} is out of reach: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        told.push_str(": ");
        told.push_str(&cause.to_string());
    }
    StatusError::unknown(told)
}

/// Sizes of a terminal, one JSON object after the other, in whatever pieces they come.
#[derive(Default)]
pub(super) struct Sizes(Vec<u8>);

impl Sizes {
    /// Bytes of what is no size yet.
    const WAITING_MAX: usize = 1 << 10;

    /// The newest size of what came, as a frame for the node.
    pub(super) fn newest(&mut self, bytes: &[u8]) -> Option<Frame> {
        self.0.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.0).into_iter::<Value>();
        let mut newest = None;
        while let Some(Ok(size)) = sizes.next() {
            newest = Some(size);
        }
        let done = sizes.byte_offset();
        self.0.drain(..done.min(self.0.len()));
        if self.0.len() > Self::WAITING_MAX {
            self.0.clear();
        }
        let newest = newest?;
        let of = |name: &str| {
            newest
                .get(name)?
                .as_u64()
                .filter(|size| *size <= u64::from(u16::MAX))
        };
        let size = json!({"Width": of("Width")?, "Height": of("Height")?});
        Some(Frame::new(Channel::Resize, size.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_with_a_status_whatever_becomes_of_its_node() {
        let success = json!({"metadata": {}, "status": "Success"});
        let end = Frame::new(Channel::End, success.to_string());
        let mut bytes = frames(&[
            Frame::new(Channel::Stdout, ""),
            Frame::new(Channel::Stdout, "out"),
            Frame::new(Channel::Stderr, "err"),
            end,
        ]);
        let mut heard = Heard::new(&bytes[..], "a");
        assert_eq!(heard.next("running").await, Said::Stdout("out".into()));
        assert_eq!(heard.next("running").await, Said::Stderr("err".into()));
        assert_eq!(heard.next("running").await, Said::End(success));
        bytes.truncate(7);
        let mut cut = Heard::new(&bytes[..], "a");
        let Said::End(status) = cut.next("running").await else {
            panic!("no end");
        };
        assert_eq!(
            status["message"],
            "Internal error occurred: running: node \"a\" is lost: its connection has ended; the pod may go on elsewhere, see where it is now"
        );
        assert_eq!(
            (&status["reason"], status["code"].as_u64()),
            (&json!("InternalError"), Some(500))
        );
        assert!(status.get("kind").is_none());
        let (_node, silent) = tokio::io::duplex(64);
        let began = tokio::time::Instant::now();
        let mut silent = Heard::new(silent, "a");
        assert!(matches!(silent.next("running").await, Said::End(_)));
        assert!(began.elapsed() < Duration::from_secs(5));
        let mut nonsense = Heard::new(&b"\x09\0\0\0\0"[..], "a");
        assert!(matches!(nonsense.next("running").await, Said::End(_)));
    }

    #[test]
    fn sizes_come_in_any_pieces_and_the_newest_counts() {
        let mut sizes = Sizes::default();
        let told = |frame: Option<Frame>| {
            frame.map(|frame| String::from_utf8_lossy(&frame.payload).into_owned())
        };
        for (bytes, expected) in [
            ("{\"Width\":80,", None),
            ("\"Height\":24}\n", Some("{\"Height\":24,\"Width\":80}")),
            (
                "{\"Width\":1,\"Height\":1}{\"Width\":2,\"Height\":3}\n",
                Some("{\"Height\":3,\"Width\":2}"),
            ),
            ("{\"Width\":70000,\"Height\":3}", None),
            ("{}", None),
        ] {
            assert_eq!(
                told(sizes.newest(bytes.as_bytes())).as_deref(),
                expected,
                "{bytes}"
            );
        }
        // What is no size is forgotten.
        assert!(sizes.newest(&[b'{'; 2 << 10]).is_none());
        assert_eq!(
            told(sizes.newest(b"{\"Width\":5,\"Height\":6}")).as_deref(),
            Some("{\"Height\":6,\"Width\":5}")
        );
    }
}
