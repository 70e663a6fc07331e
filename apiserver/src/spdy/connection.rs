//! The server's end of a connection of SPDY: its client opens streams, and each is a bounded channel of bytes in either direction.
//!
//! ```text
//! client ══ frames ══► hear ──► Stream.heard      one channel a stream; full: the connection is not read
//! client ◄══ frames ══ tell ◄── Voice             one channel a connection; full: whoever speaks waits
//! ```
//!
//! [`Connection::run`] is both, and ends when its client goes, when it is [closed](Line::close), or when it does not speak SPDY.
//!
//! Invariants: memory is bounded by the streams ([`STREAMS_MAX`]), their channels ([`CHUNKS_MAX`]) and the size of what is read at once; what was said on a
//! stream is told in its order; a client that is gone is noticed by the next ping at the latest, be it read from or not. Left to others: what a stream is for.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::frame::{
    CANCEL, Decoder, Encoder, Frame, FrameError, Headers, INVALID_STREAM, PROTOCOL_ERROR,
    REFUSED_STREAM,
};

/// Streams at a time: a browser behind a forwarded port has a dozen connections of two each, a load generator hundreds.
const STREAMS_MAX: usize = 2048;
/// Chunks that wait on a stream, each at most what is read at once.
const CHUNKS_MAX: usize = 8;
/// Frames that wait for the client, of all streams.
const FRAMES_MAX: usize = 32;
/// What is read at once, and written.
const READ_BYTES: usize = 64 << 10;
const WRITE_BYTES: usize = 128 << 10;
/// How often the client is asked whether it is there. It may be too busy to say so; that it is gone, its machine says.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a client has to go once it is told that this is the end.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// A stream that the client opened, and that was agreed to.
pub(crate) struct Stream {
    pub id: u32,
    pub headers: Headers,
    /// What it says, until it has said all, or is reset.
    pub heard: mpsc::Receiver<Bytes>,
    pub voice: Voice,
    /// Cancelled when the client resets it.
    pub reset: CancellationToken,
    /// As long as this is there, the stream has its place.
    _place: Arc<()>,
}

/// What is said on a stream. Clones are the same stream's.
#[derive(Clone)]
pub(crate) struct Voice {
    stream: u32,
    out: mpsc::Sender<Out>,
}

/// What is said on a connection as a whole.
pub(crate) struct Line {
    out: mpsc::Sender<Out>,
}

enum Out {
    Frame(Frame),
    Close,
}

/// Nobody hears it.
#[derive(Debug)]
pub(crate) struct Gone;

impl Voice {
    async fn put(&self, frame: Frame) -> Result<(), Gone> {
        self.out.send(Out::Frame(frame)).await.map_err(|_| Gone)
    }

    /// Says something; waits while the client does not take what was said before.
    pub(crate) async fn say(&self, bytes: Bytes) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (stream, fin) = (self.stream, false);
        self.put(Frame::Data { stream, fin, bytes }).await
    }

    /// That nothing more will be said.
    pub(crate) async fn finish(&self) -> Result<(), Gone> {
        let (stream, fin, bytes) = (self.stream, true, Bytes::new());
        self.put(Frame::Data { stream, fin, bytes }).await
    }

    /// That nothing more will be said or heard.
    pub(crate) async fn reset(&self) -> Result<(), Gone> {
        let (stream, status) = (self.stream, CANCEL);
        self.put(Frame::Reset { stream, status }).await
    }
}

impl Line {
    /// Ends the connection once all that was said is told.
    pub(crate) async fn close(self) {
        // Gone already, otherwise.
        let _ = self.out.send(Out::Close).await;
    }
}

/// Why a connection ended that was not closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("reading or writing")]
    Io(#[from] io::Error),
    #[error("what the client says is no SPDY")]
    Frame(#[from] FrameError),
}

/// A connection that is to be served.
pub(crate) struct Connection {
    opened: mpsc::Sender<Stream>,
    out: mpsc::Sender<Out>,
    told: mpsc::Receiver<Out>,
}

impl Connection {
    /// With the streams that will be opened, and what ends it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Stream>, Line) {
        let (opened, streams) = mpsc::channel(CHUNKS_MAX);
        let (out, told) = mpsc::channel(FRAMES_MAX);
        let line = Line { out: out.clone() };
        (Self { opened, out, told }, streams, line)
    }

    /// Serves it to its end. `agree` judges a stream by its headers; `sign` is called at each sign of life.
    ///
    /// # Errors
    /// [`Broken`]; that a client goes is none.
    pub(crate) async fn run(
        self,
        io: impl AsyncRead + AsyncWrite,
        agree: impl Fn(&Headers) -> bool,
        sign: impl Fn(),
    ) -> Result<(), Broken> {
        let (reader, writer) = tokio::io::split(io);
        let Self { opened, out, told } = self;
        let hearing = hear(reader, opened, out, agree, &sign);
        let mut hearing = std::pin::pin!(hearing);
        let telling = tell(writer, told, &sign);
        tokio::select! {
            biased;
            heard = &mut hearing => return heard,
            told = telling => told?,
        }
        // What it says yet must not have the kernel take back what it was told.
        let _ = tokio::time::timeout(FAREWELL_MAX, hearing).await;
        Ok(())
    }
}

/// A stream as its connection knows it.
struct Open {
    /// None once the client has said all.
    heard: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    place: Weak<()>,
}

async fn hear(
    mut reader: impl AsyncRead + Unpin,
    opened: mpsc::Sender<Stream>,
    out: mpsc::Sender<Out>,
    agree: impl Fn(&Headers) -> bool,
    sign: &impl Fn(),
) -> Result<(), Broken> {
    let mut decoder = Decoder::default();
    let mut read = BytesMut::new();
    let mut streams: BTreeMap<u32, Open> = BTreeMap::new();
    let mut last = 0;
    loop {
        let Some(frame) = decoder.decode(&mut read)? else {
            read.reserve(READ_BYTES);
            if reader.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            sign();
            continue;
        };
        let alive = match frame {
            Frame::SynStream {
                stream,
                fin,
                headers,
                ..
            } => {
                // A client's are odd, and each is new.
                let is_next = stream % 2 == 1 && stream > last;
                last = last.max(stream);
                if streams.len() >= STREAMS_MAX {
                    streams.retain(|_, open| open.place.strong_count() > 0);
                }
                let status = match () {
                    () if !is_next => Some(PROTOCOL_ERROR),
                    () if streams.len() >= STREAMS_MAX => Some(REFUSED_STREAM),
                    () if !agree(&headers) => Some(CANCEL),
                    () => None,
                };
                if let Some(status) = status {
                    put(&out, Frame::Reset { stream, status }).await
                } else {
                    let (said, heard) = mpsc::channel(CHUNKS_MAX);
                    let (place, reset) = (Arc::new(()), CancellationToken::new());
                    let open = Open {
                        heard: (!fin).then_some(said),
                        reset: reset.clone(),
                        place: Arc::downgrade(&place),
                    };
                    streams.insert(stream, open);
                    let new = Stream {
                        id: stream,
                        headers,
                        heard,
                        voice: Voice {
                            stream,
                            out: out.clone(),
                        },
                        reset,
                        _place: place,
                    };
                    let agreed = Frame::SynReply {
                        stream,
                        fin: false,
                        headers: Headers::new(),
                    };
                    put(&out, agreed).await && opened.send(new).await.is_ok()
                }
            }
            Frame::Data { stream, fin, bytes } => match streams.get_mut(&stream) {
                Some(open) => {
                    if let Some(heard) = open.heard.as_ref().filter(|_| !bytes.is_empty()) {
                        // Nobody listens any more: it is as if it had been heard.
                        let _ = heard.send(bytes).await;
                    }
                    if fin {
                        open.heard = None;
                    }
                    true
                }
                // One of before, whose end this client has not heard of; or one that never was.
                None if stream <= last => true,
                None => {
                    let status = INVALID_STREAM;
                    put(&out, Frame::Reset { stream, status }).await
                }
            },
            Frame::Reset { stream, .. } => {
                if let Some(open) = streams.remove(&stream) {
                    open.reset.cancel();
                }
                true
            }
            // Its own pings are answered; the answer to ours is a sign of life.
            Frame::Ping(id) if id % 2 == 1 => put(&out, Frame::Ping(id)).await,
            Frame::GoAway { .. } => return Ok(()),
            // No windows are kept, and no limits of the client's are reached.
            Frame::Ping(_)
            | Frame::SynReply { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::WindowUpdate { .. } => true,
        };
        if !alive {
            return Ok(());
        }
    }
}

/// Whether it will be told.
async fn put(out: &mpsc::Sender<Out>, frame: Frame) -> bool {
    out.send(Out::Frame(frame)).await.is_ok()
}

async fn tell(
    mut writer: impl AsyncWrite + Unpin,
    mut told: mpsc::Receiver<Out>,
    sign: &impl Fn(),
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut bytes = BytesMut::with_capacity(WRITE_BYTES);
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    // A server's are even.
    let mut ping = 0_u32;
    loop {
        let mut next = tokio::select! {
            biased;
            out = told.recv() => out,
            _ = ticks.tick() => {
                ping = ping.wrapping_add(2) & (u32::MAX >> 1);
                Some(Out::Frame(Frame::Ping(ping.max(2))))
            }
        };
        let is_life = !matches!(next, Some(Out::Frame(Frame::Ping(_))));
        let mut closes = next.is_none();
        while let Some(out) = next.take() {
            match out {
                Out::Frame(frame) => encoder.encode(&frame, &mut bytes),
                Out::Close => {
                    let goodbye = Frame::GoAway { last: 0, status: 0 };
                    encoder.encode(&goodbye, &mut bytes);
                    closes = true;
                }
            }
            if !closes && bytes.len() < WRITE_BYTES {
                next = told.try_recv().ok();
            }
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        bytes.clear();
        if is_life {
            sign();
        }
        if closes {
            return writer.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A client, and the streams that it opens.
    struct Client {
        io: DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        read: BytesMut,
    }

    impl Client {
        fn new(io: DuplexStream) -> Self {
            Self {
                io,
                encoder: Encoder::default(),
                decoder: Decoder::default(),
                read: BytesMut::new(),
            }
        }

        async fn say(&mut self, frame: Frame) {
            let mut bytes = BytesMut::new();
            self.encoder.encode(&frame, &mut bytes);
            self.io.write_all(&bytes).await.unwrap();
        }

        async fn next(&mut self) -> Option<Frame> {
            loop {
                match self.decoder.decode(&mut self.read).unwrap() {
                    Some(frame) => return Some(frame),
                    None if self.io.read_buf(&mut self.read).await.unwrap() == 0 => return None,
                    None => {}
                }
            }
        }
    }

    fn data(stream: u32, fin: bool, bytes: &'static [u8]) -> Frame {
        let bytes = Bytes::from_static(bytes);
        Frame::Data { stream, fin, bytes }
    }

    fn opens(stream: u32, name: &str) -> Frame {
        Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            headers: vec![("streamtype".to_owned(), name.to_owned())],
        }
    }

    fn served() -> (
        Client,
        mpsc::Receiver<Stream>,
        Line,
        tokio::task::JoinHandle<Result<(), Broken>>,
    ) {
        let (client, server) = tokio::io::duplex(4 << 10);
        let (connection, streams, line) = Connection::new();
        let agree =
            |headers: &Headers| super::super::frame::header(headers, "streamtype") != Some("no");
        let running = tokio::spawn(connection.run(server, agree, || ()));
        (Client::new(client), streams, line, running)
    }

    #[tokio::test]
    async fn streams_are_opened_heard_and_told() {
        let (mut client, mut streams, line, running) = served();
        client.say(opens(1, "a")).await;
        let agreed = Frame::SynReply {
            stream: 1,
            fin: false,
            headers: vec![],
        };
        assert_eq!(client.next().await, Some(agreed));
        let mut stream = streams.recv().await.unwrap();
        client.say(data(1, false, b"hello")).await;
        client.say(data(1, true, b"")).await;
        assert_eq!(stream.heard.recv().await.as_deref(), Some(&b"hello"[..]));
        assert_eq!(stream.heard.recv().await, None);
        stream.voice.say(Bytes::from_static(b"hi")).await.unwrap();
        stream.voice.finish().await.unwrap();
        assert_eq!(client.next().await, Some(data(1, false, b"hi")));
        assert_eq!(client.next().await, Some(data(1, true, b"")));
        client.say(Frame::Ping(7)).await;
        assert_eq!(client.next().await, Some(Frame::Ping(7)));
        line.close().await;
        assert_eq!(
            client.next().await,
            Some(Frame::GoAway { last: 0, status: 0 })
        );
        assert_eq!(client.next().await, None);
        drop(client);
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_a_stream_is_reset_and_nothing_else_is() {
        let (mut client, mut streams, _line, running) = served();
        for (frame, stream, status) in [
            (opens(2, "even"), 2, PROTOCOL_ERROR),
            (opens(3, "no"), 3, CANCEL),
            (opens(3, "again"), 3, PROTOCOL_ERROR),
            (data(9, false, b"x"), 9, INVALID_STREAM),
        ] {
            client.say(frame).await;
            assert_eq!(client.next().await, Some(Frame::Reset { stream, status }));
        }
        client.say(opens(5, "a")).await;
        client.next().await;
        let stream = streams.recv().await.unwrap();
        client
            .say(Frame::Reset {
                stream: 5,
                status: CANCEL,
            })
            .await;
        stream.reset.cancelled().await;
        // What is on its way to a stream of before is no fault.
        client.say(data(5, false, b"late")).await;
        client.say(Frame::GoAway { last: 0, status: 0 }).await;
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_costs_its_channel_and_a_client_that_is_gone_is_noticed() {
        let (mut client, mut streams, _line, running) = served();
        client.say(opens(1, "a")).await;
        client.next().await;
        let stream = streams.recv().await.unwrap();
        let mut taken = 0;
        let saying = async {
            loop {
                client.say(data(1, false, &[7; 1 << 10])).await;
                taken += 1;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), saying).await;
        assert!(taken <= 2 * CHUNKS_MAX + 8, "{taken} chunks");
        tokio::time::pause();
        drop(client);
        let ended = tokio::time::timeout(2 * PING_EVERY, running).await;
        ended.expect("noticed").unwrap().unwrap_err();
        drop(stream);
    }

    #[tokio::test]
    async fn who_speaks_something_else_is_not_listened_to() {
        let (mut client, _streams, _line, running) = served();
        client
            .io
            .write_all(b"\x80\x02GET / HTTP/1.1")
            .await
            .unwrap();
        assert!(matches!(running.await.unwrap(), Err(Broken::Frame(_))));
    }
}
