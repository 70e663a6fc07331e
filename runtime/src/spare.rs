//! Instances of WASI 0.2 between two calls: values, not tasks.
//!
//! Such an instance has nothing to do until somebody calls it, so it waits in its core's [`Spares`] without a task, a timer or a
//! waker, and the next call on that core is made right there. One task for all of a core's spares ends those that waited too
//! long, and itself with the last.
//!
//! Home is the runtime of the call that an instance was started for. One that computed for long comes to the end of its call
//! elsewhere, and waits at home all the same: where it ended, nobody would look for it.
//!
//! Invariants: the newest is taken first, so that the oldest grow cold; none outlives its workload's stop or the runtime
//! that ends them; there are no more than calls were in flight at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use crate::alive::Alive;
use crate::host::HostState;
use crate::instance::Shard;
use crate::workload::Inner;

/// An instance without a call. What it holds is dropped in this order.
pub(crate) struct Spare {
    pub(crate) store: Store<HostState>,
    pub(crate) guest: Proxy,
    /// See [`crate::host::new_store`].
    pub(crate) refused: Arc<AtomicBool>,
    /// Calls so far.
    pub(crate) served: u32,
    #[expect(dead_code, reason = "held for what dropping it does")]
    pub(crate) alive: Alive,
}

/// The spares of one core, or of everyone who is on none.
#[derive(Default)]
pub(crate) struct Spares {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The oldest first: since when, and where it is at home.
    spares: VecDeque<(Instant, Id, Spare)>,
    /// Somebody ends those that wait too long.
    reaped: bool,
}

impl Spares {
    /// The newest that is at home on this runtime: what an instance holds of timers and tasks belongs to one.
    pub(crate) fn take(&self) -> Option<Spare> {
        let here = Handle::try_current().ok()?.id();
        let mut waiting = self.waiting.lock();
        let newest = waiting
            .spares
            .iter()
            .rposition(|(_, home, _)| *home == here)?;
        waiting.spares.remove(newest).map(|(_, _, spare)| spare)
    }

    /// Ends those that wait now. Whoever ends those that wait too long comes all the same.
    pub(crate) fn end_waiting(&self) {
        let ended = std::mem::take(&mut self.waiting.lock().spares);
        // Whoever takes one must not wait for these to be torn down.
        drop(ended);
    }

    fn end_all(&self) {
        let ended = {
            let mut waiting = self.waiting.lock();
            waiting.reaped = false;
            std::mem::take(&mut waiting.spares)
        };
        drop(ended);
    }

    /// Ends those that wait since `idle` or longer. When to come again; none when nobody is left, and nobody comes.
    fn end_idle(&self, now: Instant, idle: Duration) -> Option<Instant> {
        let mut ended = Vec::new();
        let mut waiting = self.waiting.lock();
        let next = loop {
            match waiting.spares.front() {
                None => {
                    waiting.reaped = false;
                    break None;
                }
                Some((since, ..)) if *since + idle > now => break Some(*since + idle),
                Some(_) => ended.extend(waiting.spares.pop_front()),
            }
        };
        // Whoever takes one must not wait for these to be torn down.
        drop(waiting);
        drop(ended);
        next
    }
}

/// Keeps `spare` for the next call on the core where it is at `home`, as long as an idle instance may wait.
pub(crate) fn keep(workload: &Arc<Inner>, shard: &Arc<Shard>, spare: Spare, home: &Handle) {
    let is_new = {
        let mut waiting = shard.spares.waiting.lock();
        let since = Instant::now();
        waiting.spares.push_back((since, home.id(), spare));
        !std::mem::replace(&mut waiting.reaped, true)
    };
    workload.offer_room();
    if is_new {
        // A runtime that is being taken down drops the task, which ends the spare.
        drop(home.spawn(reap(workload.clone(), Reaper(Some(shard.clone())))));
    }
}

/// Whose spares are to be ended, as long as there are any: also when the workload stops, or the runtime goes.
struct Reaper(Option<Arc<Shard>>);

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(shard) = self.0.take() {
            shard.spares.end_all();
        }
    }
}

async fn reap(workload: Arc<Inner>, mut reaper: Reaper) {
    let idle = workload.policy().idle();
    while let Some(shard) = &reaper.0 {
        let Some(next) = shard.spares.end_idle(Instant::now(), idle) else {
            // Whoever keeps one from now on starts another.
            reaper.0 = None;
            break;
        };
        tokio::select! {
            () = workload.stopping().cancelled() => break,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
