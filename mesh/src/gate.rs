//! How many calls are with a workload, and whether it takes any more.
//!
//! Both are one number, so that there is an order between them: a call that looked the workload up before the gate was closed is
//! either seen by whoever closed it, or turned away, and never handed to a workload that is being stopped.
//!
//! Invariants: whoever was counted is counted until it leaves, turned away or not; no more than `most` are let in at once.

use crate::sync::{AtomicUsize, Ordering};

/// The bit beside the count.
const CLOSED: usize = 1 << (usize::BITS - 1);

#[derive(Debug)]
pub(crate) struct Gate {
    most: usize,
    state: AtomicUsize,
}

/// Why a call is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    Closed,
    Full,
}

impl Gate {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            state: AtomicUsize::new(0),
        }
    }

    /// Counts a call, until [`Gate::leave`], whatever the answer is.
    pub(crate) fn enter(&self) -> Result<(), Turned> {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        if before & CLOSED != 0 {
            return Err(Turned::Closed);
        }
        if before >= self.most {
            return Err(Turned::Full);
        }
        Ok(())
    }

    /// The end of what was counted. True if nothing is left.
    pub(crate) fn leave(&self) -> bool {
        self.state.fetch_sub(1, Ordering::AcqRel) & !CLOSED == 1
    }

    /// From now on everybody is turned away.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// How many are counted.
    pub(crate) fn inside(&self) -> usize {
        self.state.load(Ordering::Acquire) & !CLOSED
    }
}
