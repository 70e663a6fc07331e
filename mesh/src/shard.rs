//! Which of a few copies of a structure the current thread should use.
//!
//! Data-plane work stays on the core that accepted it, so a copy a thread means no contention: connection
//! pools and counters are split this way. Two threads may share an index; that costs speed, never correctness.

use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this share copies.
pub(crate) const SHARDS: usize = 16;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

/// The copy for this thread, below `of`.
pub(crate) fn current(of: usize) -> usize {
    INDEX.with(|index| index % of.max(1))
}
