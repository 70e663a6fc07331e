//! Work that takes long in sum takes turns, and leaves a thread to what is short.
//!
//! A task of tokio runs until it waits. One that writes to a client which reads as fast as it is written to never has to: it encrypts and
//! copies megabytes while leases of nodes, whose next step is some microseconds of work, wait behind it and behind each of its like, at
//! every step of theirs. So bulk work passes a gate ([`Bulk`]), one at a time and in the order of asking: making a part of a list, and each
//! turn of a connection that has written [`TURN_BYTES`] without waiting for its client. Who waits at the gate is in no thread's queue, and
//! of the threads all but one are never in bulk work.
//!
//! Invariants: nothing is lost or kept back by it; a turn is a piece of work that never waits, so nobody stays in the gate.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Bytes that one connection may write before others get their turn: a tenth of a millisecond to encrypt and to copy.
const TURN_BYTES: usize = 64 << 10;
/// Turns at a time. A server has two threads for requests, and one of them does 400 MB/s.
const TURNS_AT_ONCE: usize = 1;

/// The gate that bulk work of one server passes. Clones are the same gate.
#[derive(Clone)]
pub struct Bulk(Arc<Semaphore>);

impl Default for Bulk {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS_AT_ONCE)))
    }
}

impl Bulk {
    /// Does a piece of work, well below a millisecond of it, when its turn has come.
    pub async fn turn<T>(&self, work: impl FnOnce() -> T) -> T {
        // The gate is never closed.
        let turn = self.0.acquire().await;
        let done = work();
        drop(turn);
        done
    }
}

/// The turns of one connection.
pub struct Turns {
    bulk: Bulk,
    /// Whether it has had its turn, and has more to write.
    over: Arc<AtomicBool>,
}

impl Turns {
    pub fn new(bulk: Bulk) -> Self {
        Self {
            bulk,
            over: Arc::default(),
        }
    }

    /// The stream of this connection, that says when a turn is over.
    pub fn stream<S>(&self, inner: S) -> TurnStream<S> {
        TurnStream {
            inner,
            written: 0,
            over: Arc::clone(&self.over),
        }
    }

    /// Runs what speaks through [`Turns::stream`]: freely while it writes little, and in its turns otherwise.
    pub async fn run<F: Future>(&self, mut connection: Pin<&mut F>) -> F::Output {
        let mut gate = PollSemaphore::new(Arc::clone(&self.bulk.0));
        poll_fn(|context| {
            let turn = if self.over.load(Ordering::Relaxed) {
                let turn = ready!(gate.poll_acquire(context));
                self.over.store(false, Ordering::Relaxed);
                turn
            } else {
                None
            };
            let outcome = connection.as_mut().poll(context);
            // Whatever it waits for now, it waits outside.
            drop(turn);
            outcome
        })
        .await
    }
}

/// A stream that is written to in turns. Where nobody runs it in turns (an upgraded connection), it yields after each.
pub struct TurnStream<S> {
    inner: S,
    /// Written in this turn.
    written: usize,
    over: Arc<AtomicBool>,
}

impl<S> TurnStream<S> {
    /// Lets others go first when the turn is over.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.written < TURN_BYTES {
            return Poll::Ready(());
        }
        self.written = 0;
        self.over.store(true, Ordering::Relaxed);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn count(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(Ok(bytes)) => self.written += bytes,
            // Others have their turn now.
            Poll::Pending => self.written = 0,
            Poll::Ready(Err(_)) => {}
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TurnStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TurnStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;
    use std::rc::Rc;

    use futures::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn who_writes_much_lets_others_go_between() {
        let order = Rc::new(RefCell::new(String::new()));
        let local = tokio::task::LocalSet::new();
        let bulk = Bulk::default();
        for name in ["a", "b"] {
            let (order, turns) = (Rc::clone(&order), Turns::new(bulk.clone()));
            local.spawn_local(async move {
                // Takes all that it is given, as a client that reads at once.
                let mut connection = turns.stream(tokio::io::sink());
                let writing = pin!(async {
                    for _ in 0..3 {
                        connection.write_all(&[0; TURN_BYTES]).await.unwrap();
                        order.borrow_mut().push_str(name);
                    }
                    connection.shutdown().await.unwrap();
                });
                turns.run(writing).await;
            });
        }
        local.await;
        assert_eq!(*order.borrow(), "ababab");
    }

    /// Writes so many whole turns, and a byte.
    async fn write(bulk: &Bulk, times: usize) {
        let turns = Turns::new(bulk.clone());
        let mut connection = turns.stream(tokio::io::sink());
        let writing = pin!(async {
            for _ in 0..times {
                connection.write_all(&[0; TURN_BYTES]).await.unwrap();
            }
            connection.write_all(b"x").await.unwrap();
        });
        turns.run(writing).await;
    }

    #[tokio::test]
    async fn what_is_short_does_not_wait_for_bulk_work_and_bulk_work_for_its_turn() {
        let bulk = Bulk::default();
        let working = Arc::clone(&bulk.0).acquire_owned().await.unwrap();
        write(&bulk, 0).await;
        let mut long = pin!(write(&bulk, 3));
        let mut list = pin!(bulk.turn(|| ()));
        for _ in 0..5 {
            assert!(long.as_mut().now_or_never().is_none(), "out of its turn");
            assert!(list.as_mut().now_or_never().is_none(), "out of its turn");
        }
        drop(working);
        tokio::join!(long, list);
        assert_eq!(bulk.0.available_permits(), TURNS_AT_ONCE, "given back");
        // Nor is the gate kept by one that goes while it waits or works.
        let working = Arc::clone(&bulk.0).acquire_owned().await.unwrap();
        assert!(Box::pin(write(&bulk, 3)).now_or_never().is_none());
        drop(working);
        write(&bulk, 3).await;
    }
}
