//! What a guest prints, on its way out of the worker: a body of chunks, each with its kind and length before it. Faults that no
//! call returns go the same way, in their place among the lines.
//!
//! The guest never waits. What does not fit between it and the reader is dropped and counted, and the count stands where
//! the loss was.

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
/// The longest chunk a reader accepts; writers are held to 64 KiB a write, 0.2's to what they were given.
const CHUNK_BYTES_MAX: usize = 16 << 20;
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

/// Puts chunks together again and hands them to the two sinks.
pub(super) struct Reader {
    partial: BytesMut,
    stdout: LogSink,
    stderr: LogSink,
    faults: Option<EventSink>,
}

impl Reader {
    pub(super) fn new(stdout: LogSink, stderr: LogSink, faults: Option<EventSink>) -> Reader {
        Reader {
            partial: BytesMut::new(),
            stdout,
            stderr,
            faults,
        }
    }

    /// Takes what arrived; the result is how many bytes the guest had printed for it. None when it makes no sense.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<u64> {
        self.partial.extend_from_slice(bytes);
        let mut printed = 0;
        while self.partial.len() >= HEAD_BYTES {
            let mut head = &self.partial[..HEAD_BYTES];
            let (kind, length) = (head.get_u8(), head.get_u32() as usize);
            if length > CHUNK_BYTES_MAX {
                return None;
            }
            if self.partial.len() < HEAD_BYTES + length {
                break;
            }
            self.partial.advance(HEAD_BYTES);
            let chunk = self.partial.split_to(length);
            match kind {
                STDOUT => self.stdout.write(&chunk),
                STDERR => self.stderr.write(&chunk),
                FAULT => {
                    let fault = serde_json::from_slice(&chunk).ok()?;
                    if let Some(sink) = &self.faults {
                        sink.tell(Event::BrokenOff { fault });
                    }
                }
                LOST => {
                    let lost = u64::from_be_bytes(chunk.as_ref().try_into().ok()?);
                    let note = format!("[weft: {lost} bytes of output were dropped here]\n");
                    self.stderr.write(note.as_bytes());
                    printed += lost;
                    continue;
                }
                _ => return None,
            }
            printed += length as u64;
        }
        Some(printed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::CallError;

    fn collect(text: &Arc<Mutex<String>>, name: &'static str) -> LogSink {
        let text = text.clone();
        LogSink::new(move |bytes| {
            *text.lock() += &format!("{name}:{} ", String::from_utf8_lossy(bytes).trim());
        })
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
            fault: CallError::Deadline,
        });
        let first = drain(&output);
        output.write(STDOUT, &vec![b'x'; WAITING_BYTES_MAX + 1]);
        output.write(STDOUT, b"end");
        let second = drain(&output);
        for step in [1, 2, 7, 100] {
            let text: Arc<Mutex<String>> = Arc::default();
            let told = text.clone();
            let faults = EventSink::of_broken_off(move |fault| {
                *told.lock() += &format!("fault:{fault:?} ");
            });
            let (out, err) = (collect(&text, "out"), collect(&text, "err"));
            let mut reader = Reader::new(out, err, Some(faults));
            let printed: u64 = first
                .chunks(step)
                .chain(second.chunks(step))
                .map(|bytes| reader.take(bytes).unwrap())
                .sum();
            assert_eq!(
                *text.lock(),
                "out:one err:two fault:Deadline err:[weft: 8388609 bytes of output were dropped here] out:end ",
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
            &[1, 255, 255, 255, 255],
            &[3, 0, 0, 0, 1, 0],
            &[4, 0, 0, 0, 1, 0],
        ] {
            assert_eq!(
                Reader::new(sink(), sink(), None).take(bytes),
                None,
                "{bytes:?}"
            );
        }
    }
}
