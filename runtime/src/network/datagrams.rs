//! What a UDP socket has been sent and has not read.
//!
//! Invariants: at most [`DATAGRAMS_MAX`] datagrams and [`QUEUE_BYTES`] bytes wait; what does not fit is dropped, as UDP may.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// Datagrams that wait for one socket.
const DATAGRAMS_MAX: usize = 256;
/// Bytes of datagrams that wait for one socket; charged to its guest for as long as it is bound.
pub(crate) const QUEUE_BYTES: usize = 256 << 10;
/// The largest datagram of IPv4: 65,535 less the two headers.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_507;

#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<(SocketAddr, Bytes)>,
    bytes: usize,
    reading: Option<Waker>,
}

impl Mailbox {
    /// Puts a datagram in, or drops it where there is no room.
    pub(crate) fn put(&self, from: SocketAddr, datagram: Bytes) {
        let reading = {
            let mut state = self.0.lock();
            let bytes = state.bytes + datagram.len();
            if state.waiting.len() >= DATAGRAMS_MAX || bytes > QUEUE_BYTES {
                return;
            }
            state.bytes = bytes;
            state.waiting.push_back((from, datagram));
            state.reading.take()
        };
        if let Some(waker) = reading {
            waker.wake();
        }
    }

    /// The oldest datagram, of whom it is.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<(SocketAddr, Bytes)> {
        let mut state = self.0.lock();
        match state.waiting.pop_front() {
            Some((from, datagram)) => {
                state.bytes -= datagram.len();
                Poll::Ready((from, datagram))
            }
            None => {
                state.reading = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready when there is one.
    pub(crate) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        state.reading = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_that_nobody_reads_takes_so_much_and_no_more() {
        let from = "10.42.0.2:1".parse().unwrap();
        for (size, fits) in [(1, DATAGRAMS_MAX), (60 << 10, 4)] {
            let mailbox = Mailbox::default();
            for _ in 0..DATAGRAMS_MAX + 10 {
                mailbox.put(from, Bytes::from(vec![0; size]));
            }
            let mut cx = Context::from_waker(Waker::noop());
            let mut found = 0;
            while mailbox.poll_take(&mut cx).is_ready() {
                found += 1;
            }
            assert_eq!(found, fits, "{size} bytes each");
            mailbox.put(from, Bytes::from_static(b"again"));
            assert!(mailbox.poll_any(&mut cx).is_ready());
        }
    }
}
