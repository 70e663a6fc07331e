//! What a guest prints, on its way out of the worker: a body of chunks, each with its kind and length before it. Faults that no
//! call returns go the same way, in their place among the lines.
//!
//! The guest never waits. What does not fit between it and the reader is dropped and counted, and the count stands where
//! the loss was. The reader, which trusts nobody, hands on what is printed as it comes and holds no more than one fault.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;

use crate::body::BoxError;
use crate::events::{Event, EventSink};
use crate::logs::LogSink;

/// Output of one workload that waits to be read.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// The longest fault a reader accepts: a trap has a message and a backtrace of a few dozen frames.
const FAULT_BYTES_MAX: usize = 256 << 10;
/// How many bytes were lost.
const LOST_BYTES: usize = 8;
/// Kind and length.
const HEAD_BYTES: usize = 5;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const LOST: u8 = 3;
const FAULT: u8 = 4;

#[derive(Default)]
struct Waiting {
    chunks: BytesMut,
    lost: u64,
    /// Everything ever printed, lost or not.
    total: u64,
    closed: bool,
    reader: Option<Waker>,
}

/// One workload's output. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Output(Arc<Mutex<Waiting>>);

impl Output {
    pub(super) fn stdout(&self) -> LogSink {
        self.sink(STDOUT)
    }

    pub(super) fn stderr(&self) -> LogSink {
        self.sink(STDERR)
    }

    pub(super) fn faults(&self) -> EventSink {
        let output = self.clone();
        EventSink::of_broken_off(move |fault| match serde_json::to_vec(&fault) {
            Ok(text) => output.write(FAULT, &text),
            Err(error) => tracing::error!(%error, "a fault cannot be written down"),
        })
    }

    fn sink(&self, kind: u8) -> LogSink {
        let output = self.clone();
        LogSink::new(move |bytes| output.write(kind, bytes))
    }

    fn write(&self, kind: u8, bytes: &[u8]) {
        let mut waiting = self.0.lock();
        waiting.total += bytes.len() as u64;
        if waiting.chunks.len() + bytes.len() > WAITING_BYTES_MAX {
            waiting.lost += bytes.len() as u64;
        } else {
            waiting.settle_loss();
            waiting.put(kind, bytes);
        }
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }

    /// Bytes printed so far.
    pub(super) fn total(&self) -> u64 {
        self.0.lock().total
    }

    /// Nothing more will be printed.
    pub(super) fn close(&self) {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

impl Waiting {
    fn put(&mut self, kind: u8, bytes: &[u8]) {
        self.chunks.put_u8(kind);
        self.chunks
            .put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.chunks.put_slice(bytes);
    }

    fn settle_loss(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.put(LOST, &lost.to_be_bytes());
        }
    }
}

/// The output as a body; `held` lives as long as somebody reads it.
pub(super) struct OutputBody<T> {
    output: Output,
    _held: T,
}

impl<T> OutputBody<T> {
    pub(super) fn new(output: Output, held: T) -> OutputBody<T> {
        OutputBody {
            output,
            _held: held,
        }
    }
}

impl<T: Unpin> HttpBody for OutputBody<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut waiting = self.output.0.lock();
        waiting.settle_loss();
        if !waiting.chunks.is_empty() {
            // The memory goes with the chunk: an idle workload holds none.
            let chunks = std::mem::take(&mut waiting.chunks).freeze();
            return Poll::Ready(Some(Ok(Frame::data(chunks))));
        }
        if waiting.closed {
            return Poll::Ready(None);
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Takes chunks apart again and hands what is in them to the two sinks.
pub(super) struct Reader {
    head: BytesMut,
    chunk: Option<Chunk>,
    /// What has come of a chunk that is not printed.
    partial: BytesMut,
    stdout: LogSink,
    stderr: LogSink,
    faults: Option<EventSink>,
}

/// The chunk that is being read.
#[derive(Clone, Copy)]
struct Chunk {
    kind: u8,
    left: usize,
}

impl Chunk {
    /// None when no worker of ours begins one like that.
    fn begin(mut head: &[u8]) -> Option<Chunk> {
        let (kind, left) = (head.get_u8(), head.get_u32() as usize);
        let makes_sense = match kind {
            STDOUT | STDERR => true,
            FAULT => left <= FAULT_BYTES_MAX,
            LOST => left == LOST_BYTES,
            _ => false,
        };
        makes_sense.then_some(Chunk { kind, left })
    }
}

impl Reader {
    pub(super) fn new(stdout: LogSink, stderr: LogSink, faults: Option<EventSink>) -> Reader {
        Reader {
            head: BytesMut::new(),
            chunk: None,
            partial: BytesMut::new(),
            stdout,
            stderr,
            faults,
        }
    }

    /// Takes what arrived; the result is how many bytes the guest had printed for it. None when it makes no sense.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut printed = 0;
        loop {
            let Some(mut chunk) = self.chunk else {
                let missing = bytes.len().min(HEAD_BYTES - self.head.len());
                self.head.extend_from_slice(&bytes[..missing]);
                bytes.advance(missing);
                if self.head.len() < HEAD_BYTES {
                    return Some(printed);
                }
                self.chunk = Some(Chunk::begin(&self.head)?);
                self.head.clear();
                continue;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(chunk.left));
            bytes = rest;
            chunk.left -= part.len();
            match chunk.kind {
                _ if part.is_empty() => {}
                STDOUT => self.stdout.write(part),
                STDERR => self.stderr.write(part),
                _ => self.partial.extend_from_slice(part),
            }
            if chunk.kind != LOST {
                printed += part.len() as u64;
            }
            if chunk.left > 0 {
                self.chunk = Some(chunk);
                return Some(printed);
            }
            self.chunk = None;
            printed += self.end(chunk.kind)?;
        }
    }

    /// A chunk is complete. The result is how many bytes it stands for beside its own.
    fn end(&mut self, kind: u8) -> Option<u64> {
        match kind {
            FAULT => {
                let fault = serde_json::from_slice(&self.partial.split()).ok()?;
                if let Some(sink) = &self.faults {
                    sink.tell(Event::BrokenOff { fault });
                }
                Some(0)
            }
            LOST => {
                let lost = u64::from_be_bytes(self.partial.split().as_ref().try_into().ok()?);
                let note = format!("[weft: {lost} bytes of output were dropped here]\n");
                self.stderr.write(note.as_bytes());
                Some(lost)
            }
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_call::FailureKind;

    /// What is written one after the other, with its sink's name before it.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<(String, &'static str)>>);

    impl Told {
        fn tell(&self, name: &'static str, text: &str) {
            let mut told = self.0.lock();
            if std::mem::replace(&mut told.1, name) != name {
                let space = if told.0.is_empty() { "" } else { " " };
                told.0 += &format!("{space}{name}:");
            }
            told.0 += text.trim_end();
        }

        fn sink(&self, name: &'static str) -> LogSink {
            let told = self.clone();
            LogSink::new(move |bytes| told.tell(name, &String::from_utf8_lossy(bytes)))
        }
    }

    fn drain(output: &Output) -> Bytes {
        let mut body = Box::pin(OutputBody::new(output.clone(), ()));
        let mut cx = Context::from_waker(Waker::noop());
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        }
    }

    #[test]
    fn output_survives_any_cut_and_says_what_was_lost() {
        let output = Output::default();
        output.write(STDOUT, b"one");
        output.write(STDERR, b"two");
        output.faults().tell(Event::BrokenOff {
            fault: FailureKind::Deadline.into(),
        });
        let first = drain(&output);
        output.write(STDOUT, &vec![b'x'; WAITING_BYTES_MAX + 1]);
        output.write(STDOUT, b"end");
        let second = drain(&output);
        for step in [1, 2, 7, 100] {
            let told = Told::default();
            let faults = told.clone();
            let faults = EventSink::of_broken_off(move |fault| {
                faults.tell("fault", &format!("{:?}", fault.kind));
            });
            let (out, err) = (told.sink("out"), told.sink("err"));
            let mut reader = Reader::new(out, err, Some(faults));
            let printed: u64 = first
                .chunks(step)
                .chain(second.chunks(step))
                .map(|bytes| reader.take(bytes).unwrap())
                .sum();
            assert_eq!(
                told.0.lock().0,
                "out:one err:two fault:Deadline err:[weft: 8388609 bytes of output were dropped here] out:end",
                "in steps of {step}"
            );
            assert_eq!(printed, output.total());
        }
    }

    #[test]
    fn nonsense_is_noticed() {
        let sink = LogSink::discard;
        for bytes in [
            &[9, 0, 0, 0, 0][..],
            &[3, 0, 0, 0, 1, 0],
            &[4, 0, 0, 0, 1, 0],
            &[4, 255, 255, 255, 255],
        ] {
            assert_eq!(
                Reader::new(sink(), sink(), None).take(bytes),
                None,
                "{bytes:?}"
            );
        }
    }
    /// A worker that says it will print four gigabytes at once, and does not: what came is handed on, and nothing is held.
    #[test]
    fn what_is_printed_is_not_held() {
        let told = Told::default();
        let mut reader = Reader::new(told.sink("out"), told.sink("err"), None);
        assert_eq!(reader.take(&[STDOUT, 255, 255, 255, 255]), Some(0));
        for _ in 0..1_000 {
            assert_eq!(reader.take(&[b'x'; 1_000]), Some(1_000));
            assert_eq!(reader.head.len() + reader.partial.len(), 0);
        }
        assert_eq!(told.0.lock().0.len(), "out:".len() + 1_000_000);
    }
}
