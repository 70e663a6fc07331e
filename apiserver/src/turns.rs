//! Work that takes long in sum takes turns, and leaves a thread to what is short; what is short goes out together.
//!
//! A task of tokio runs until it waits. One that writes to a client which reads as fast as it is written to never has to: it encrypts and
//! copies megabytes while leases of nodes, whose next step is some microseconds of work, wait behind it and behind each of its like, at
//! every step of theirs. So bulk work passes a gate ([`Bulk`]), one at a time and in the order of asking: making a part of a list, and each
//! turn of a connection that has written [`TURN_BYTES`] without waiting for its client. Who waits at the gate is in no thread's queue, and
//! of the threads all but one are never in bulk work.
//!
//! A hundred watches of one connection are told of a change by a hundred tasks, and each wakes the connection. It lets those go first that are
//! due already, and gathers what it writes then: one piece to encrypt, and one call of the system, where there would be one for each frame.
//!
//! Invariants: nothing is lost or kept back by it: what a connection has written is on its way when it waits; a turn is a piece of work that
//! never waits, so nobody stays in the gate; what is gathered is bounded, and is no memory of a connection that writes nothing.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Bytes that one connection may write before others get their turn: a tenth of a millisecond to encrypt and to copy.
const TURN_BYTES: usize = 64 << 10;
/// Bytes that are gathered at most: what one call of the system takes, and a turn.
const GATHERED_BYTES_MAX: usize = TURN_BYTES;
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
pub struct Turns<S> {
    bulk: Bulk,
    io: Arc<Mutex<Io<S>>>,
}

/// The stream of a connection, and what it has written.
struct Io<S> {
    inner: S,
    /// Whether the connection runs, and what it writes is sent when it has come to a stop.
    gathers: bool,
    gathered: Vec<u8>,
    /// Of what is gathered, how much is sent.
    sent: usize,
    /// Whether the inner stream may keep something back.
    unflushed: bool,
    /// Why sending failed, until the connection is told.
    failed: Option<io::Error>,
    /// Written in this turn.
    written: usize,
    /// Whether it has had its turn, and has more to write.
    over: bool,
}

impl<S: AsyncWrite + Unpin> Turns<S> {
    pub fn new(bulk: Bulk, inner: S) -> Self {
        Self {
            bulk,
            io: Arc::new(Mutex::new(Io {
                inner,
                gathers: false,
                gathered: Vec::new(),
                sent: 0,
                unflushed: false,
                failed: None,
                written: 0,
                over: false,
            })),
        }
    }

    /// The stream of this connection, for one that speaks through it.
    pub fn stream(&self) -> TurnStream<S> {
        TurnStream(Arc::clone(&self.io))
    }

    /// Runs what speaks through [`Turns::stream`]: freely while it writes little, and in its turns otherwise.
    pub async fn run<F: Future>(&self, mut connection: Pin<&mut F>) -> F::Output {
        let mut gate = PollSemaphore::new(Arc::clone(&self.bulk.0));
        let mut waited = false;
        poll_fn(|context| {
            let over = self.io.lock().over;
            let turn = if over {
                ready!(gate.poll_acquire(context))
            } else if waited {
                None
            } else {
                // Behind all that is due now: its own streams are among them.
                waited = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            };
            waited = false;
            {
                let mut io = self.io.lock();
                io.over = false;
                io.gathers = true;
            }
            let outcome = connection.as_mut().poll(context);
            let mut io = self.io.lock();
            if let Poll::Ready(Err(error)) = io.poll_send(context) {
                // Nobody takes it any more.
                io.gathered = Vec::new();
                io.sent = 0;
                io.failed = Some(error);
                context.waker().wake_by_ref();
            }
            io.gathers = false;
            // One that was upgraded is run by nobody from now on.
            io.over &= outcome.is_pending();
            // Whatever it waits for now, it waits outside.
            drop((io, turn));
            outcome
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Io<S> {
    /// Lets others go first when the turn is over.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.over {
            return Poll::Pending;
        }
        if self.written < TURN_BYTES {
            return Poll::Ready(());
        }
        self.written = 0;
        self.over = self.gathers;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn count(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(Ok(bytes)) => {
                self.written += bytes;
                self.unflushed = true;
            }
            // Others have their turn now.
            Poll::Pending => self.written = 0,
            Poll::Ready(Err(_)) => {}
        }
        outcome
    }

    /// Sends what was gathered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            ready!(self.poll_turn(context));
            let rest = self.gathered.get(self.sent..).unwrap_or_default();
            let outcome = Pin::new(&mut self.inner).poll_write(context, rest);
            let sent = ready!(self.count(outcome))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.gathered = Vec::new();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// A stream that is written to in turns. Where nobody runs it in turns (an upgraded connection), it sends at once and yields after each.
pub struct TurnStream<S>(Arc<Mutex<Io<S>>>);

impl<S: AsyncRead + Unpin> AsyncRead for TurnStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TurnStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut io = self.0.lock();
        io.check()?;
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if !io.gathers || io.gathered.len() + bytes > GATHERED_BYTES_MAX {
            ready!(io.poll_send(context))?;
        }
        if io.gathers && bytes <= GATHERED_BYTES_MAX {
            for slice in slices {
                io.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(bytes));
        }
        ready!(io.poll_turn(context));
        let outcome = Pin::new(&mut io.inner).poll_write_vectored(context, slices);
        io.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.0.lock();
        io.check()?;
        if io.gathers {
            // It comes when the connection has nothing more to do.
            return Poll::Ready(Ok(()));
        }
        io.poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.0.lock();
        io.check()?;
        ready!(io.poll_send(context))?;
        Pin::new(&mut io.inner).poll_shutdown(context)
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
            // Takes all that it is given, as a client that reads at once.
            let turns = Turns::new(bulk.clone(), tokio::io::sink());
            let order = Rc::clone(&order);
            local.spawn_local(async move {
                let mut connection = turns.stream();
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
        // The first is gathered, and sent when there is more.
        assert_eq!(*order.borrow(), "aabbab");
    }

    /// Writes so many whole turns, and a byte.
    async fn write(bulk: &Bulk, times: usize) {
        let turns = Turns::new(bulk.clone(), tokio::io::sink());
        let mut connection = turns.stream();
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

    /// Notes how many bytes it was given at a time, and takes so many at most; breaks after so many.
    #[derive(Clone)]
    struct Noting {
        pieces: Rc<RefCell<Vec<usize>>>,
        takes: usize,
        breaks_after: usize,
    }

    impl Noting {
        fn new(takes: usize, breaks_after: usize) -> Self {
            Self {
                pieces: Rc::default(),
                takes,
                breaks_after,
            }
        }

        fn pieces(&self) -> Vec<usize> {
            self.pieces.borrow().clone()
        }
    }

    impl AsyncWrite for Noting {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut pieces = self.pieces.borrow_mut();
            if pieces.len() >= self.breaks_after {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            pieces.push(bytes.len().min(self.takes));
            Poll::Ready(Ok(bytes.len().min(self.takes)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes and flushes `times` pieces of ten bytes, as the frames of as many streams, and comes to a stop.
    async fn frames(connection: &mut TurnStream<Noting>, times: usize) -> io::Result<()> {
        for _ in 0..times {
            connection.write_all(&[7; 10]).await?;
            connection.flush().await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    #[tokio::test]
    async fn what_is_written_before_a_stop_is_sent_at_once_and_together() {
        let peer = Noting::new(usize::MAX, usize::MAX);
        let turns = Turns::new(Bulk::default(), peer.clone());
        let mut connection = turns.stream();
        {
            let speaking = pin!(async {
                frames(&mut connection, 100).await.unwrap();
                assert_eq!(peer.pieces(), [1000]);
                frames(&mut connection, 1).await.unwrap();
                assert_eq!(peer.pieces(), [1000, 10]);
                frames(&mut connection, GATHERED_BYTES_MAX / 10 + 1)
                    .await
                    .unwrap();
            });
            turns.run(speaking).await;
        }
        let most = GATHERED_BYTES_MAX / 10 * 10;
        assert_eq!(peer.pieces(), [1000, 10, most, 10]);
        // Upgraded: what is written goes out by itself.
        frames(&mut connection, 2).await.unwrap();
        assert_eq!(peer.pieces(), [1000, 10, most, 10, 10, 10]);
    }

    #[tokio::test]
    async fn a_peer_that_takes_little_gets_all_and_one_that_broke_off_is_told_of() {
        let peer = Noting::new(4, usize::MAX);
        let turns = Turns::new(Bulk::default(), peer.clone());
        let mut connection = turns.stream();
        let speaking = pin!(async { frames(&mut connection, 3).await.unwrap() });
        turns.run(speaking).await;
        assert_eq!(peer.pieces().iter().sum::<usize>(), 30);

        let peer = Noting::new(usize::MAX, 1);
        let turns = Turns::new(Bulk::default(), peer.clone());
        let mut connection = turns.stream();
        let speaking = pin!(async {
            frames(&mut connection, 3).await.unwrap();
            frames(&mut connection, 3).await.unwrap();
            frames(&mut connection, 1).await
        });
        let told = turns.run(speaking).await.unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::BrokenPipe);
    }
}
