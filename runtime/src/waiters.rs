//! Whether anybody waits for what is about to be there.
//!
//! Invariant: of one who begins to wait and then looks, and one who makes what is waited for and then asks whether anybody waits, at
//! least one sees the other: the waiting finds what was made, or is told of it. What is looked at may be any atomic.

use crate::sync::{AtomicU32, Ordering, fence};

#[derive(Default)]
pub(crate) struct Waiters(AtomicU32);

/// One who waits, until dropped.
pub(crate) struct Waiting<'a>(&'a Waiters);

impl Waiters {
    /// Begins to wait; what is looked at from here on is as new as `anybody` needs it to be.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Waiting(self)
    }

    /// Whether somebody waits who may not have seen what was made before this was asked.
    pub(crate) fn anybody(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
