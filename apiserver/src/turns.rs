//! A connection that takes turns with the others of its thread.
//!
//! A task of tokio runs until it waits. One that writes to a client which reads as fast as it is written to never has to: it encrypts and
//! copies megabytes while leases of nodes, whose next step is some microseconds of work on the same thread, wait behind it and behind
//! each of its like. So whoever has written [`TURN_BYTES`] goes to the end of the line.
//!
//! Invariant: nothing is lost or kept back by it; who yields has asked to be called again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one connection may write before others get their turn: a tenth of a millisecond to encrypt and to copy.
const TURN_BYTES: usize = 64 << 10;

pub struct Turns<S> {
    inner: S,
    /// Written in this turn.
    written: usize,
}

impl<S> Turns<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, written: 0 }
    }

    /// Lets others go first when the turn is over.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.written < TURN_BYTES {
            return Poll::Ready(());
        }
        self.written = 0;
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

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
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
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn who_writes_much_lets_others_go_between() {
        let order = Rc::new(RefCell::new(String::new()));
        let local = tokio::task::LocalSet::new();
        for name in ["a", "b"] {
            let order = Rc::clone(&order);
            local.spawn_local(async move {
                // Takes all that it is given, as a client that reads at once.
                let mut connection = Turns::new(tokio::io::sink());
                for _ in 0..3 {
                    connection.write_all(&[0; TURN_BYTES]).await.unwrap();
                    order.borrow_mut().push_str(name);
                }
                connection.shutdown().await.unwrap();
            });
        }
        local.await;
        assert_eq!(*order.borrow(), "ababab");
    }
}
