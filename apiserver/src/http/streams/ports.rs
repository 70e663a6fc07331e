//! Forwarded ports: each connection of a client's to one is a connection of this server to the pod's node.
//!
//! | form | a connection is | its failure is told |
//! | --- | --- | --- |
//! | SPDY, in a connection of its own or inside of a WebSocket | two streams, `data` and `error`, of one `requestid` | on the second |
//! | channels of a WebSocket, with the ports in the query | two channels, each beginning with the port | on the second |
//!
//! Invariants: bytes are passed on as they come, each at most once copied; an end of either side is passed on as such; what is not taken waits in bounded
//! channels; a client that goes takes all of its connections with it. Left to others: what is at the port (`weft_agent`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::channels::{PING_EVERY, goodbye};
use super::idle::Idle;
use super::node::undialled;
use super::remote::{OPEN_MAX, STREAM_TYPE};
use crate::http::proxy::{NodeClient, NodeStream};
use crate::spdy::connection::{Connection, Gone, Stream};
use crate::spdy::frame::{Headers, header};

const PORT: &str = "port";
const REQUEST_ID: &str = "requestid";
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// Chunks that wait for a port, or for a client that has them all in one socket.
const CHUNKS_MAX: usize = 8;
/// How often it is looked for streams whose other half does not come.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whose ports they are.
pub(super) struct Pod {
    pub nodes: NodeClient,
    pub node: Arc<Value>,
    pub node_name: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Pod {
    /// A connection to a port, or why there is none, as its client is told.
    async fn open(&self, port: u16) -> Result<NodeStream, String> {
        let Self {
            namespace,
            name,
            uid,
            ..
        } = self;
        let path = format!("/portForward/{namespace}/{name}/{uid}/{port}");
        let opened = self.nodes.stream(&self.node, &path).await;
        opened.map_err(|error| self.failed(port, &undialled(&self.node_name, &error).message))
    }

    fn failed(&self, port: u16, why: &str) -> String {
        let Self { name, uid, .. } = self;
        format!("error forwarding port {port} to pod {name}, uid {uid}: {why}")
    }
}

/// The halves of a connection that have come.
struct Half {
    stream: Stream,
    is_data: bool,
    since: Instant,
}

/// Whether a stream is of a forwarded port.
fn is_forward(headers: &Headers) -> bool {
    let is_port = port_of(headers).is_some();
    is_port && matches!(header(headers, STREAM_TYPE), Some("data" | "error"))
}

fn port_of(headers: &Headers) -> Option<u16> {
    let port = header(headers, PORT)?.parse().ok();
    port.filter(|port| *port > 0)
}

/// What tells the two streams of a connection from others. Clients of long ago gave none: theirs follow one another.
fn request_of(stream: &Stream, is_data: bool) -> String {
    match header(&stream.headers, REQUEST_ID) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ if is_data => stream.id.wrapping_sub(2).to_string(),
        _ => stream.id.to_string(),
    }
}

/// Forwards what a client of SPDY asks for, until it goes.
pub(super) async fn spdy(io: impl AsyncRead + AsyncWrite, pod: Arc<Pod>) {
    let idle = Idle::new();
    let (connection, mut opened, _line) = Connection::new();
    let running = connection.run(io, is_forward, || idle.touch());
    let forwarding = async {
        let mut halves: BTreeMap<String, Half> = BTreeMap::new();
        let mut connections = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stream = tokio::select! {
                stream = opened.recv() => stream,
                _ = looks.tick() => {
                    let late = |half: &Half| half.since.elapsed() > OPEN_MAX;
                    let ids = halves.iter().filter(|(_, half)| late(half));
                    let ids: Vec<String> = ids.map(|(id, _)| id.clone()).collect();
                    for half in ids.iter().filter_map(|id| halves.remove(id)) {
                        let _ = half.stream.voice.reset().await;
                    }
                    // Those that ended are let go of.
                    while connections.try_join_next().is_some() {}
                    continue;
                }
            };
            let Some(stream) = stream else { return };
            let is_data = header(&stream.headers, STREAM_TYPE) == Some("data");
            let id = request_of(&stream, is_data);
            match halves.remove(&id) {
                Some(half) if half.is_data != is_data => {
                    let (data, error) = match is_data {
                        true => (stream, half.stream),
                        false => (half.stream, stream),
                    };
                    let pod = Arc::clone(&pod);
                    connections.spawn(async move {
                        // Its client is gone, otherwise.
                        let _ = forward(&pod, data, error).await;
                    });
                }
                Some(twice) => {
                    let what = if is_data { "data" } else { "error" };
                    let told = format!(
                        "error processing stream for request {id}: {what} stream already assigned"
                    );
                    if !is_data {
                        let _ = twice.stream.voice.say(told.into()).await;
                    }
                    let _ = stream.voice.reset().await;
                    halves.insert(id, twice);
                }
                None => {
                    let since = Instant::now();
                    let half = Half {
                        stream,
                        is_data,
                        since,
                    };
                    halves.insert(id, half);
                }
            }
        }
    };
    tokio::select! {
        biased;
        ended = running => if let Err(error) = ended {
            tracing::debug!(%error, "a connection of SPDY ended early");
        },
        () = forwarding => {}
        () = idle.over() => {}
    }
}

/// One connection to a port, from its beginning to its end.
async fn forward(pod: &Pod, mut data: Stream, error: Stream) -> Result<(), Gone> {
    let port = port_of(&data.headers).unwrap_or_default();
    let failed = match pod.open(port).await {
        Ok(node) => {
            let (mut reader, mut writer) = tokio::io::split(node);
            let heard = &mut data.heard;
            let up = async {
                while let Some(bytes) = heard.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        break;
                    }
                    // Several at once, where they are there.
                    if heard.is_empty() && writer.flush().await.is_err() {
                        break;
                    }
                }
                let _ = writer.shutdown().await;
                std::future::pending::<()>().await;
            };
            let down = async {
                let mut read = BytesMut::new();
                loop {
                    read.reserve(READ_BYTES);
                    match reader.read_buf(&mut read).await {
                        Ok(0) => return Ok::<_, Gone>(None),
                        Ok(_) => data.voice.say(read.split().freeze()).await?,
                        Err(broken) => {
                            let why = format!("lost connection to pod: {broken}");
                            return Ok(Some(pod.failed(port, &why)));
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = data.reset.cancelled() => return Ok(()),
                ended = down => ended?,
                () = up => None,
            }
        }
        Err(why) => Some(why),
    };
    match failed {
        None => {
            data.voice.finish().await?;
            error.voice.finish().await
        }
        Some(why) => {
            error.voice.say(why.into()).await?;
            error.voice.finish().await?;
            data.voice.reset().await
        }
    }
}

/// Messages of the form with channels.
#[derive(Clone, Copy)]
struct Form {
    is_base64: bool,
}

impl Form {
    fn write(self, channel: usize, bytes: &[u8]) -> Message {
        let number = u8::try_from(channel).unwrap_or(u8::MAX);
        if self.is_base64 {
            let mut text = String::from(char::from(b'0'.wrapping_add(number)));
            STANDARD.encode_string(bytes, &mut text);
            return Message::Text(text.into());
        }
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(number);
        message.extend_from_slice(bytes);
        Message::Binary(message.into())
    }

    /// Which channel something is said on, and what; none for what says nothing.
    fn read(self, message: Message) -> Option<(usize, Bytes)> {
        let mut bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        let number = bytes.first().copied()?;
        let rest = bytes.split_off(1);
        match self.is_base64 {
            false => Some((number.into(), rest)),
            true => {
                let rest = STANDARD.decode(&rest).ok()?;
                Some((number.wrapping_sub(b'0').into(), rest.into()))
            }
        }
    }
}

/// Forwards the ports of a query over the channels of a socket, each once, until all of them or the client have ended.
pub(super) async fn channels(socket: WebSocket, is_base64: bool, ports: Vec<u16>, pod: Arc<Pod>) {
    let (form, idle) = (Form { is_base64 }, Idle::new());
    let (mut out, mut received) = socket.split();
    let (told, mut telling) = mpsc::channel::<Message>(CHUNKS_MAX);
    let mut connections = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (data, error) = (2 * index, 2 * index + 1);
        let (input, heard) = mpsc::channel(CHUNKS_MAX);
        inputs.push(input);
        let (pod, told) = (Arc::clone(&pod), told.clone());
        connections.spawn(async move {
            for channel in [data, error] {
                told.send(form.write(channel, &port.to_le_bytes()))
                    .await
                    .ok()?;
            }
            if let Some(why) = channel(&pod, port, heard, |bytes| {
                told.send(form.write(data, &bytes))
            })
            .await
            {
                told.send(form.write(error, why.as_bytes())).await.ok()?;
            }
            Some(())
        });
    }
    drop(told);
    let up = async {
        while let Some(Ok(message)) = received.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            idle.touch();
            // What is said on a channel of errors, or on none, nobody hears.
            if let Some((channel, bytes)) = form.read(message)
                && channel % 2 == 0
                && let Some(input) = inputs.get(channel / 2)
            {
                let _ = input.send(bytes).await;
            }
        }
    };
    let down = async {
        let mut ticks = tokio::time::interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            let message = tokio::select! {
                biased;
                message = telling.recv() => match message {
                    Some(message) => message,
                    // All have ended.
                    None => break,
                },
                _ = ticks.tick() => Message::Ping(Bytes::new()),
            };
            idle.touch();
            if out.send(message).await.is_err() {
                return;
            }
        }
        let _ = out.send(goodbye()).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = idle.over() => {}
    }
}

/// One port over two channels; why it failed, if it did.
async fn channel<F: Future<Output = Result<(), mpsc::error::SendError<Message>>>>(
    pod: &Pod,
    port: u16,
    mut heard: mpsc::Receiver<Bytes>,
    say: impl Fn(Bytes) -> F,
) -> Option<String> {
    let node = match pod.open(port).await {
        Ok(node) => node,
        Err(why) => return Some(why),
    };
    let (mut reader, mut writer) = tokio::io::split(node);
    let up = async {
        while let Some(bytes) = heard.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut read = BytesMut::new();
        loop {
            read.reserve(READ_BYTES);
            match reader.read_buf(&mut read).await {
                Ok(0) => return None,
                Ok(_) => say(read.split().freeze()).await.ok()?,
                Err(broken) => {
                    let why = format!("lost connection to pod: {broken}");
                    return Some(pod.failed(port, &why));
                }
            }
        }
    };
    tokio::select! {
        ended = down => ended,
        () = up => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_of_a_port_by_its_headers() {
        let headers = |pairs: &[(&str, &str)]| -> Headers {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        for (pairs, expected) in [
            (&[("streamtype", "data"), ("port", "80")][..], true),
            (
                &[
                    ("streamtype", "error"),
                    ("port", "65535"),
                    ("requestid", "1"),
                ],
                true,
            ),
            (&[("streamtype", "data"), ("port", "0")], false),
            (&[("streamtype", "data"), ("port", "65536")], false),
            (&[("streamtype", "data"), ("port", "http")], false),
            (&[("streamtype", "data")], false),
            (&[("streamtype", "stdin"), ("port", "80")], false),
            (&[("port", "80")], false),
        ] {
            assert_eq!(is_forward(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn messages_are_of_a_port_each() {
        let (plain, base64) = (Form { is_base64: false }, Form { is_base64: true });
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        assert_eq!(plain.write(2, b"x"), binary(b"\x02x"));
        assert_eq!(base64.write(1, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(plain.read(binary(b"\x02x")), Some((2, "x".into())));
        assert_eq!(
            base64.read(Message::Text("0aGk=".into())),
            Some((0, "hi".into()))
        );
        assert_eq!(base64.read(Message::Text("0?".into())), None);
        assert_eq!(plain.read(binary(b"")), None);
        assert_eq!(plain.read(Message::Close(None)), None);
    }
}
