//! Standard streams whose other ends somebody holds: channels of chunks, with an end to each queue.
//!
//! ```text
//! the embedder ──chunks──► stdin    of one run     dropped: the end of the input
//!              ◄─chunks── stdout   of one run     full: the guest waits; dropped: a broken pipe
//! ```
//!
//! A stream that is a terminal's says so to the guest (`wasi:cli/terminal-*`). Keys arrive as they are typed: WASI has no modes to
//! switch, so lines and echo are the guest's own affair. What it prints goes out with a carriage return before each line feed, as
//! a terminal's driver does.
//!
//! Invariants: what is not read waits in the channel, which is as long as its maker made it, and in one chunk of at most
//! [`CHUNK_BYTES_MAX`]; a stop of the workload is the end of every input; no stream has a task.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, PollSender, WaitForCancellationFutureOwned};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::logs::LogSink;

/// The longest chunk that comes out of a guest.
pub const CHUNK_BYTES_MAX: usize = 32 << 10;
/// What a guest may write at once: on a terminal a chunk may become twice as long.
const WRITE_BYTES_MAX: usize = CHUNK_BYTES_MAX / 2;

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub columns: u16,
    pub lines: u16,
}

/// The streams of one run. What is absent is as the workload was built.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Chunks of any length; one that is empty says nothing.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// A guest that writes waits while it is full. Both may lead to one receiver.
    pub stdout: Option<mpsc::Sender<Bytes>>,
    pub stderr: Option<mpsc::Sender<Bytes>>,
    /// The streams are those of a terminal of this size.
    pub terminal: Option<watch::Receiver<TerminalSize>>,
}

/// An input out of a channel.
#[derive(Clone)]
pub(crate) struct ChannelInput {
    source: Arc<Mutex<Source>>,
    stopped: CancellationToken,
    terminal: bool,
}

/// Shared by all streams that a guest opens of it.
struct Source {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    ended: bool,
}

impl Source {
    /// Ready once there is something to read, or never will be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.current.is_empty() && !self.ended {
            let chunk = ready!(self.chunks.poll_recv(cx));
            self.arrived(chunk);
        }
        Poll::Ready(())
    }

    fn arrived(&mut self, chunk: Option<Bytes>) {
        match chunk {
            Some(chunk) => self.current = chunk,
            None => self.ended = true,
        }
    }

    /// At most `most` bytes of what is there; empty while nothing is, none at the end.
    fn take(&mut self, most: usize) -> Option<Bytes> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.try_recv() {
                Ok(chunk) => self.current = chunk,
                Err(TryRecvError::Disconnected) => self.ended = true,
                Err(TryRecvError::Empty) => return Some(Bytes::new()),
            }
        }
        if self.current.is_empty() {
            return None;
        }
        let length = self.current.len().min(most);
        Some(self.current.split_to(length))
    }
}

impl ChannelInput {
    /// It ends with its channel, or when `stopped` says so.
    pub(crate) fn new(
        chunks: mpsc::Receiver<Bytes>,
        stopped: CancellationToken,
        terminal: bool,
    ) -> ChannelInput {
        let source = Source {
            chunks,
            current: Bytes::new(),
            ended: false,
        };
        ChannelInput {
            source: Arc::new(Mutex::new(source)),
            stopped,
            terminal,
        }
    }
}

impl IsTerminal for ChannelInput {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for ChannelInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Reading {
            source: self.source.clone(),
            stopped: Box::pin(self.stopped.clone().cancelled_owned()),
        })
    }

    // The adapter for it has a task for each stream that a guest opens.
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for ChannelInput {
    async fn ready(&mut self) {
        let arrived = std::future::poll_fn(|cx| self.source.lock().poll(cx));
        tokio::select! {
            biased;
            () = arrived => {}
            () = self.stopped.cancelled() => {}
        }
    }
}

impl InputStream for ChannelInput {
    fn read(&mut self, most: usize) -> StreamResult<Bytes> {
        let taken = self.source.lock().take(most);
        match taken {
            Some(bytes) if bytes.is_empty() && most > 0 && self.stopped.is_cancelled() => {
                Err(StreamError::Closed)
            }
            Some(bytes) => Ok(bytes),
            None => Err(StreamError::Closed),
        }
    }
}

struct Reading {
    source: Arc<Mutex<Source>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let arrived = {
            let mut source = self.source.lock();
            let arrived = source.poll(cx);
            if arrived.is_ready() {
                let bytes = source.take(buffer.remaining()).unwrap_or_default();
                buffer.put_slice(&bytes);
            }
            arrived
        };
        match arrived {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.stopped.as_mut().poll(cx).map(Ok),
        }
    }
}

/// An output into a channel.
#[derive(Clone)]
pub(crate) struct ChannelOutput {
    chunks: mpsc::Sender<Bytes>,
    terminal: bool,
}

impl ChannelOutput {
    pub(crate) fn new(chunks: mpsc::Sender<Bytes>, terminal: bool) -> ChannelOutput {
        ChannelOutput { chunks, terminal }
    }

    fn open(&self) -> Writing {
        Writing {
            chunks: PollSender::new(self.chunks.clone()),
            reserved: false,
            feeds: self.terminal.then(LineFeeds::default),
        }
    }
}

impl IsTerminal for ChannelOutput {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for ChannelOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.open())
    }

    // As with the input.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.open())
    }
}

/// A stream that a guest has opened of an output.
struct Writing {
    chunks: PollSender<Bytes>,
    /// There is a place in the channel for it.
    reserved: bool,
    feeds: Option<LineFeeds>,
}

impl Writing {
    fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.reserved {
            let reserved = ready!(self.chunks.poll_reserve(cx));
            reserved.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.reserved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends at most [`WRITE_BYTES_MAX`], for which there is a place; how many it were.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(WRITE_BYTES_MAX);
        if taken == 0 {
            return Ok(0);
        }
        let bytes = &bytes[..taken];
        let chunk = match &mut self.feeds {
            Some(feeds) => Bytes::from(feeds.returned(bytes).into_owned()),
            None => Bytes::copy_from_slice(bytes),
        };
        self.reserved = false;
        let sent = self.chunks.send_item(chunk);
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(taken)
    }
}

impl AsyncWrite for Writing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_reserve(cx))?;
        Poll::Ready(self.send(bytes))
    }

    // What is in the channel is out of the guest.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for Writing {
    async fn ready(&mut self) {
        // Gone: that is what the next write is told.
        let _ = std::future::poll_fn(|cx| self.poll_reserve(cx)).await;
    }
}

impl OutputStream for Writing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.reserved || bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap(
                "more was written than `check-write` permits",
            ));
        }
        self.send(&bytes).map_err(|_| StreamError::Closed)?;
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Who is to wait asks `ready`, which registers the waker.
        match self.poll_reserve(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Ok(WRITE_BYTES_MAX),
            Poll::Ready(Err(_)) => Err(StreamError::Closed),
            Poll::Pending => Ok(0),
        }
    }
}

/// A sink that is a terminal.
pub(crate) fn on_terminal(sink: &LogSink) -> TerminalSink {
    TerminalSink {
        sink: sink.clone(),
        feeds: Arc::default(),
    }
}

/// See [`on_terminal`].
#[derive(Clone)]
pub(crate) struct TerminalSink {
    sink: LogSink,
    feeds: Arc<Mutex<LineFeeds>>,
}

impl TerminalSink {
    fn open(&self) -> LogSink {
        let (sink, feeds) = (self.sink.clone(), self.feeds.clone());
        LogSink::new(move |bytes| sink.write(&feeds.lock().returned(bytes)))
    }
}

impl IsTerminal for TerminalSink {
    fn is_terminal(&self) -> bool {
        true
    }
}

impl StdoutStream for TerminalSink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        self.open().async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        self.open().p2_stream()
    }
}

/// Puts a carriage return before each line feed that has none.
#[derive(Default)]
struct LineFeeds {
    /// The last byte was one.
    returned: bool,
}

impl LineFeeds {
    fn returned<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let before = std::mem::replace(&mut self.returned, bytes.last() == Some(&b'\r'));
        if !bytes.contains(&b'\n') {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len() + 16);
        let mut previous = if before { b'\r' } else { 0 };
        for byte in bytes {
            if *byte == b'\n' && previous != b'\r' {
                out.push(b'\r');
            }
            out.push(*byte);
            previous = *byte;
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_terminal_returns_before_it_feeds_wherever_it_was_cut() {
        for (parts, expected) in [
            (&["a\nb\n"][..], "a\r\nb\r\n"),
            (&["a\r\nb"], "a\r\nb"),
            (&["a\r", "\nb", "\n"], "a\r\nb\r\n"),
            (&["\n"], "\r\n"),
            (&["a", "", "\n"], "a\r\n"),
        ] {
            let mut feeds = LineFeeds::default();
            let mut out = Vec::new();
            for part in parts.iter().filter(|part| !part.is_empty()) {
                out.extend_from_slice(&feeds.returned(part.as_bytes()));
            }
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn an_input_ends_with_its_channel_or_with_a_stop() {
        let (keys, chunks) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let mut input = ChannelInput::new(chunks, stop.clone(), false);
        let mut other = Box::into_pin(input.async_stream());
        assert!(input.read(8).unwrap().is_empty());
        keys.send(Bytes::from_static(b"hello")).await.unwrap();
        input.ready().await;
        assert_eq!(input.read(2).unwrap(), "he");
        let mut rest = [0; 8];
        assert_eq!(other.read(&mut rest).await.unwrap(), 3, "they share it");
        keys.send(Bytes::from_static(b"!")).await.unwrap();
        stop.cancel();
        assert_eq!(input.read(8).unwrap(), "!", "what was typed before");
        assert!(matches!(input.read(8), Err(StreamError::Closed)));
        assert_eq!(other.read(&mut rest).await.unwrap(), 0);

        let (keys, chunks) = mpsc::channel(2);
        let mut input = ChannelInput::new(chunks, CancellationToken::new(), true);
        assert!(input.is_terminal());
        drop(keys);
        input.ready().await;
        assert!(matches!(input.read(8), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_learns_that_it_left() {
        let (chunks, mut reader) = mpsc::channel(1);
        let output = ChannelOutput::new(chunks, false);
        let mut stream = output.p2_stream();
        assert_eq!(stream.check_write().unwrap(), WRITE_BYTES_MAX);
        stream.write(Bytes::from_static(b"one")).unwrap();
        assert_eq!(stream.check_write().unwrap(), 0, "nobody has read it");
        let early = stream.write(Bytes::from_static(b"two"));
        assert!(matches!(early, Err(StreamError::Trap(_))));
        assert_eq!(reader.recv().await.unwrap(), "one");
        stream.ready().await;
        stream.write(Bytes::from_static(b"two")).unwrap();
        assert_eq!(reader.recv().await.unwrap(), "two");
        let mut other = Box::into_pin(output.async_stream());
        let long = vec![b'x'; WRITE_BYTES_MAX + 1];
        assert_eq!(other.write(&long).await.unwrap(), WRITE_BYTES_MAX);
        drop(reader);
        stream.ready().await;
        assert!(matches!(stream.check_write(), Err(StreamError::Closed)));
        let broken = other.write(b"x").await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    }
}
