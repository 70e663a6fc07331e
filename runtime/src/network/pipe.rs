//! One direction of a connection: bytes from one end to the other, as they were written.
//!
//! Invariants: at most [`PIPE_BYTES`] and one chunk's own cost are held; what was written before the writing end closed is read
//! first; a closed end is seen by the other at once, and wakes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes on their way in one direction: enough that neither end waits for the other at each packet.
pub(crate) const PIPE_BYTES: usize = 64 << 10;

/// What a chunk costs beside its bytes: a guest that writes byte by byte holds no more than one that does not.
const CHUNK_BYTES: usize = 64;

/// The reading end is gone: nobody will read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    held: usize,
    /// Nothing more is written.
    finished: bool,
    /// Nothing more is read.
    abandoned: bool,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

/// A pipe's two ends.
pub(crate) fn pipe() -> (Writer, Reader) {
    let state = Arc::<Mutex<State>>::default();
    (Writer(state.clone()), Reader(state))
}

/// The writing end. Dropping it finishes the pipe.
pub(crate) struct Writer(Arc<Mutex<State>>);

impl Writer {
    /// How many bytes may be written now; ready when that is more than none.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let mut state = self.0.lock();
        if state.abandoned || state.finished {
            return Poll::Ready(Err(Broken));
        }
        match PIPE_BYTES.saturating_sub(state.held) {
            0 => {
                state.writing = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Ready when nobody will read what is written.
    pub(crate) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Poll::Ready(());
        }
        state.writing = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Writes all of `bytes`, for which there was room.
    pub(crate) fn write(&self, bytes: Bytes) -> Result<(), Broken> {
        let reading = {
            let mut state = self.0.lock();
            if state.abandoned || state.finished {
                return Err(Broken);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            state.held += bytes.len() + CHUNK_BYTES;
            state.chunks.push_back(bytes);
            state.reading.take()
        };
        wake(reading);
        Ok(())
    }

    /// Nothing more comes.
    pub(crate) fn finish(&self) {
        let reading = {
            let mut state = self.0.lock();
            state.finished = true;
            state.reading.take()
        };
        wake(reading);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The reading end. Dropping it breaks the pipe.
pub(crate) struct Reader(Arc<Mutex<State>>);

impl Reader {
    /// Up to `most` bytes, at least one; `None` at the end.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, most: usize) -> Poll<Option<Bytes>> {
        let (bytes, writing) = {
            let mut state = self.0.lock();
            if state.abandoned {
                return Poll::Ready(None);
            }
            let Some(mut chunk) = state.chunks.pop_front() else {
                if state.finished {
                    return Poll::Ready(None);
                }
                state.reading = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let bytes = chunk.split_to(most.min(chunk.len()));
            state.held -= bytes.len();
            if chunk.is_empty() {
                state.held -= CHUNK_BYTES;
            } else {
                state.chunks.push_front(chunk);
            }
            (bytes, state.writing.take())
        };
        wake(writing);
        Poll::Ready(Some(bytes))
    }

    /// Ready when a read would be.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.abandoned || state.finished || !state.chunks.is_empty() {
            return Poll::Ready(());
        }
        state.reading = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing more is read; what was not is dropped.
    pub(crate) fn close(&self) {
        let (writing, unread) = {
            let mut state = self.0.lock();
            state.abandoned = true;
            state.held = 0;
            (state.writing.take(), std::mem::take(&mut state.chunks))
        };
        drop(unread);
        wake(writing);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close();
    }
}

/// Never under a lock: who is woken may be this thread's next.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn room(writer: &Writer) -> Result<usize, Broken> {
        poll_fn(|cx| writer.poll_room(cx)).await
    }

    async fn read(reader: &Reader, most: usize) -> Option<Bytes> {
        poll_fn(|cx| reader.poll_read(cx, most)).await
    }

    #[tokio::test]
    async fn what_was_written_is_read_in_any_portions_and_then_the_end() {
        let (writer, reader) = pipe();
        writer.write(Bytes::from_static(b"hello ")).unwrap();
        writer.write(Bytes::from_static(b"world")).unwrap();
        drop(writer);
        let mut found = Vec::new();
        while let Some(bytes) = read(&reader, 4).await {
            assert!(bytes.len() <= 4);
            found.extend_from_slice(&bytes);
        }
        assert_eq!(found, b"hello world");
    }

    #[tokio::test]
    async fn a_full_pipe_has_its_writer_wait_until_somebody_reads() {
        let (writer, reader) = pipe();
        assert_eq!(room(&writer).await, Ok(PIPE_BYTES));
        writer.write(Bytes::from(vec![7; PIPE_BYTES])).unwrap();
        let waiting = async {
            let found = room(&writer).await;
            writer.write(Bytes::from_static(b"x")).unwrap();
            found
        };
        let reading = async {
            tokio::task::yield_now().await;
            read(&reader, 1000).await.map(|bytes| bytes.len())
        };
        let found = tokio::join!(waiting, reading);
        assert_eq!(found, (Ok(1000 - CHUNK_BYTES), Some(1000)));
    }

    #[tokio::test]
    async fn a_reader_that_left_breaks_the_pipe_and_wakes_its_writer() {
        let (writer, reader) = pipe();
        writer.write(Bytes::from(vec![7; PIPE_BYTES])).unwrap();
        let leave = async {
            tokio::task::yield_now().await;
            drop(reader);
        };
        let (found, ()) = tokio::join!(room(&writer), leave);
        assert_eq!(found, Err(Broken));
        assert_eq!(writer.write(Bytes::from_static(b"x")), Err(Broken));
    }
}
