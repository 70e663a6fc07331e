//! A pipe between two tasks: bounded, ended by either side's leaving.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a pipe holds before its writer waits, as Linux' do.
const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct Shared {
    bytes: VecDeque<u8>,
    reader_left: bool,
    writer_left: bool,
    waiting: Vec<Waker>,
}

impl Shared {
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        let waker = context.waker();
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        Poll::Pending
    }
}

pub struct Reader(Rc<RefCell<Shared>>);

pub struct Writer(Rc<RefCell<Shared>>);

pub fn new() -> (Writer, Reader) {
    let shared = Rc::new(RefCell::new(Shared::default()));
    (Writer(Rc::clone(&shared)), Reader(shared))
}

impl Reader {
    /// Takes up to that many bytes out into `into`; 0 once the writer left.
    pub fn poll_read(&self, context: &Context<'_>, into: &mut Vec<u8>, max: usize) -> Poll<usize> {
        let mut shared = self.0.borrow_mut();
        if shared.bytes.is_empty() {
            return match shared.writer_left {
                true => Poll::Ready(0),
                false => shared.wait(context),
            };
        }
        let count = max.min(shared.bytes.len());
        into.extend(shared.bytes.drain(..count));
        shared.wake();
        Poll::Ready(count)
    }
}

impl Writer {
    /// Puts in what fits and says how much; waits while nothing does.
    pub fn poll_write(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_left {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(CAPACITY - shared.bytes.len());
        if count == 0 && !bytes.is_empty() {
            return shared.wait(context);
        }
        shared.bytes.extend(&bytes[..count]);
        shared.wake();
        Poll::Ready(Ok(count))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.reader_left = true;
        shared.wake();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.writer_left = true;
        shared.wake();
    }
}
