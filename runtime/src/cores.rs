//! One single-threaded tokio runtime a core, for guests and the data plane.
//!
//! Work stays on the core that accepted it: a task spawned there wakes no other thread, and the engine's per-thread
//! memory slots stay warm. Control work belongs on another runtime, so that it answers while guests burn CPU. Tenants that want more
//! than there is take turns on each (`weft_turns`).
//!
//! Invariants: `current()` is `Some(i)` exactly on the thread of core `i`; `shutdown` returns after every thread ended.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::limits;
use crate::scheduling::{self, Rank};

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Stack of a core's thread. Guests run on stacks of their own; this one carries host futures.
const THREAD_STACK_BYTES: usize = 4 << 20;

/// A set of single-threaded runtimes. Cheap to clone; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Cores {
    inner: Arc<Inner>,
}

struct Inner {
    handles: Vec<Handle>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Cores {
    /// Starts `count` threads named `core-0`, `core-1`, …; at least one. Where that is one for each processor of this process,
    /// each stays on its own: two of them on one would take turns of a millisecond or more.
    ///
    /// # Errors
    /// When the operating system refuses a thread or an epoll instance.
    pub fn start(count: usize) -> io::Result<Cores> {
        Cores::start_as(count, Rank::Core)
    }

    /// The same of any rank. Those of a lower one make way for cores, [`Cores::current`] is none on them, and guests are charged
    /// there for the CPU time that they get.
    pub(crate) fn start_as(count: usize, rank: Rank) -> io::Result<Cores> {
        let stop = CancellationToken::new();
        let stop_on_drop = stop.clone().drop_guard();
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        // Before any thread is bound to one of them.
        scheduling::parallelism();
        let (ready, readied) = mpsc::channel();
        let count = count.max(1);
        for core in 0..count {
            let ready = ready.clone();
            let mut builder = Builder::new_current_thread();
            if rank == Rank::Core {
                builder.on_thread_park(scheduling::adjust);
            }
            // Those for blocking work, which would be scheduled as who starts them.
            builder.on_thread_start(scheduling::release);
            let runtime = builder.enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stopped = stop.clone();
            let thread = thread::Builder::new()
                .name(format!("{}-{core}", rank.name()))
                .stack_size(THREAD_STACK_BYTES)
                .spawn(move || {
                    if rank == Rank::Core {
                        CURRENT.set(Some(core));
                        scheduling::bind(core, count);
                    } else {
                        limits::count_cpu();
                        rank.take();
                    }
                    // Moves the cost of the first trap handler set-up off the first request.
                    wasmtime::Engine::tls_eager_initialize();
                    drop(ready);
                    if rank == Rank::Core {
                        weft_turns::begin();
                        let rounds = weft_turns::rounds(tokio::task::yield_now);
                        runtime.block_on(stopped.run_until_cancelled(rounds));
                    } else {
                        runtime.block_on(stopped.cancelled());
                    }
                })?;
            threads.push(thread);
        }
        drop(ready);
        // Until each is what it should be: the caller may be about to give up the right to choose.
        let _: Result<(), _> = readied.recv();
        Ok(Cores {
            inner: Arc::new(Inner {
                handles,
                threads: Mutex::new(threads),
                tasks: TaskTracker::new(),
                stop,
                _stop_on_drop: stop_on_drop,
            }),
        })
    }

    /// How many cores there are. Never zero.
    #[expect(clippy::len_without_is_empty, reason = "a set of cores is never empty")]
    pub fn len(&self) -> usize {
        self.inner.handles.len()
    }

    /// The core this code runs on, when it runs on one.
    pub fn current() -> Option<usize> {
        CURRENT.get()
    }

    /// The runtime of core `index`, counted modulo the number of cores.
    pub fn handle(&self, index: usize) -> &Handle {
        &self.inner.handles[index % self.len()]
    }

    /// Runs `task` on core `index`, counted modulo the number of cores.
    pub fn spawn_on<F>(&self, index: usize, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.tasks.spawn_on(task, self.handle(index))
    }

    /// Waits up to `grace` for everything started with [`Cores::spawn_on`], then drops what is left and ends the
    /// threads.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.tasks.close();
        // Elapsed only means that tasks are left; they are dropped with their runtimes.
        let _ = tokio::time::timeout(grace, self.inner.tasks.wait()).await;
        self.inner.stop.cancel();
        let threads = std::mem::take(&mut *self.inner.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a core's thread panicked");
                }
            }
        });
        let _ = joined.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_the_core_it_was_given_to() {
        let cores = Cores::start(2).unwrap();
        assert_eq!(Cores::current(), None);
        for index in 0..4 {
            let seen = cores
                .spawn_on(index, async { Cores::current() })
                .await
                .unwrap();
            assert_eq!(seen, Some(index % 2));
        }
        let waiting = cores.spawn_on(0, std::future::pending::<()>());
        cores.shutdown(Duration::ZERO).await;
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
}
