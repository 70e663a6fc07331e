//! Running a component's `wasi:cli/run`, of WASI 0.2 or 0.3, once.
//!
//! A command is one instance that lives as long as its run. It shares environment, limits and accounts with the calls of
//! the same workload.
//!
//! Invariants: exactly one [`Exit`] for each run; after it the instance is gone.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, ready};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::component::Accessor;
use wasmtime_wasi::I32Exit;
use weft_turns::Turn;

use crate::account::Seat;
use crate::alive::Alive;
use crate::artifact::Wasi;
use crate::driver::{Calls, Fibers};
use crate::events::Event;
use crate::host::{HostState, store_with};
use crate::instance::{Life, after, live, trapped, until};
use crate::limits::Slice;
use crate::stdio::Stdio;
use crate::workload::{Inner, Workload};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Success,
    /// The guest's own exit code; 1 when `run` returned an error.
    Failed(i32),
    Trap {
        message: String,
        /// The guest's stack, one frame a line.
        backtrace: String,
    },
    OutOfMemory {
        limit_bytes: u64,
    },
    /// It ran longer than `Limits::run_timeout`.
    Deadline,
    /// The workload was stopped.
    Stopped,
    /// The worker process that ran it is gone.
    Lost {
        reason: String,
    },
    /// The component exports no `wasi:cli/run`.
    NotRunnable,
}

impl Exit {
    /// The exit code that a shell would see: 128 plus a signal's number where a process would have got one.
    pub fn code(&self) -> i32 {
        match self {
            Exit::Success => 0,
            Exit::Failed(code) => *code,
            Exit::Trap { .. } => 134,
            Exit::OutOfMemory { .. } => 137,
            Exit::Deadline => 137,
            Exit::Lost { .. } => 137,
            Exit::Stopped => 143,
            Exit::NotRunnable => 127,
        }
    }
}

impl Workload {
    /// Runs the component to its end, starting on the current thread's runtime. Dropping the future ends the run.
    pub async fn run(&self) -> Exit {
        self.run_with(Stdio::default()).await
    }

    /// The same with streams whose other ends the caller has.
    pub async fn run_with(&self, stdio: Stdio) -> Exit {
        let workload = self.inner().clone();
        let Some(wasi) = workload.artifact().kind().command else {
            return Exit::NotRunnable;
        };
        let Some(begun) = workload.begin_run() else {
            return Exit::Stopped;
        };
        let (mut ended, end) = oneshot::channel();
        let work = Box::pin({
            let workload = workload.clone();
            async move {
                let _begun = begun;
                let started = workload.events().map(|_| Instant::now());
                tokio::select! {
                    biased;
                    exit = run(&workload, wasi, stdio) => {
                        if let (Some(events), Some(started)) = (workload.events(), started) {
                            events.tell(Event::RunEnded {
                                exit: exit.clone(),
                                duration: started.elapsed(),
                            });
                        }
                        drop(ended.send(exit));
                    }
                    // Nobody waits for it any more.
                    () = ended.closed() => {}
                }
            }
        });
        live(Life::new(workload, work, Handle::current()));
        // The other end is gone only if the runtime is being shut down.
        end.await.unwrap_or(Exit::Stopped)
    }
}

async fn run(workload: &Arc<Inner>, wasi: Wasi, stdio: Stdio) -> Exit {
    let refused = Arc::new(AtomicBool::new(false));
    let mut alive = match Alive::new(workload) {
        Ok(alive) => alive,
        Err(refusal) => {
            let message = format!("it was not started, for want of room: {refusal}");
            let backtrace = String::new();
            return Exit::Trap { message, backtrace };
        }
    };
    let guest = pin!(guest(
        workload,
        wasi,
        stdio,
        refused.clone(),
        &mut alive.seat
    ));
    let deadline = workload.limits().run_timeout.map(after);
    match accounted(workload, guest, deadline).await {
        Ok(result) => exit(workload, result, refused.load(Relaxed)),
        Err(Cut::Stopped) => Exit::Stopped,
        Err(Cut::Deadline) => {
            workload.counters().deadlines.fetch_add(1, Relaxed);
            Exit::Deadline
        }
    }
}

/// Why a guest did not come to its own end.
pub(crate) enum Cut {
    Stopped,
    Deadline,
}

/// Polls a guest on its workload's account until it ends, or has to.
pub(crate) async fn accounted<T>(
    workload: &Inner,
    mut guest: Pin<&mut impl Future<Output = T>>,
    deadline: Option<tokio::time::Instant>,
) -> Result<T, Cut> {
    let mut stopped = pin!(workload.stopping().cancelled());
    let mut deadline = pin!(until(deadline));
    let mut turn = Turn::of(workload.cpu().tenant());
    poll_fn(|cx| {
        let has_waited = turn.is_waited_for();
        ready!(turn.poll(cx));
        if has_waited && stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Cut::Stopped));
        }
        let polled = {
            let _running = workload.engine().ticker().run();
            let _slice = Slice::start(workload.cpu());
            guest.as_mut().poll(cx)
        };
        if let Poll::Ready(result) = polled {
            return Poll::Ready(Ok(result));
        }
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Cut::Stopped));
        }
        deadline.as_mut().poll(cx).map(|()| Err(Cut::Deadline))
    })
    .await
}

/// The guest's own verdict, or the error that ended it.
async fn guest(
    workload: &Arc<Inner>,
    wasi: Wasi,
    stdio: Stdio,
    refused: Arc<AtomicBool>,
    seat: &mut Seat,
) -> wasmtime::Result<Result<(), ()>> {
    let code = workload.artifact().code(workload.engine()).await?;
    let pre = code.pre().clone();
    // A long run must not keep what others could have unloaded.
    drop(code);
    let mut store = store_with(workload, pre.engine(), stdio, refused);
    store.data_mut().open_network();
    match wasi {
        Wasi::P2 => {
            let pre = wasmtime_wasi::p2::bindings::CommandPre::new(pre)?;
            let command = pre.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        }
        Wasi::P3 => {
            let pre = wasmtime_wasi::p3::bindings::CommandPre::new(pre)?;
            let command = pre.instantiate_async(&mut store).await?;
            store
                .run_concurrent(async |accessor: &Accessor<HostState>| {
                    let mut fibers = Fibers::new(seat);
                    let mut running = pin!(command.wasi_cli_run().call_run(accessor));
                    let result = poll_fn(|cx| -> Poll<wasmtime::Result<Result<(), ()>>> {
                        fibers.count(accessor, Calls::ONE)?;
                        running.as_mut().poll(cx)
                    })
                    .await?;
                    // What it printed last may still be on its way.
                    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    wasmtime::error::Ok(result)
                })
                .await?
        }
    }
}

fn exit(workload: &Inner, result: wasmtime::Result<Result<(), ()>>, refused_memory: bool) -> Exit {
    let error = match result {
        Ok(Ok(())) => return Exit::Success,
        Ok(Err(())) => return Exit::Failed(1),
        Err(error) => error,
    };
    match error.downcast_ref() {
        Some(I32Exit(0)) => return Exit::Success,
        Some(I32Exit(code)) => return Exit::Failed(*code),
        None => {}
    }
    if refused_memory {
        workload.counters().out_of_memory.fetch_add(1, Relaxed);
        return Exit::OutOfMemory {
            limit_bytes: workload.memory_limit(),
        };
    }
    let (message, backtrace) = trapped(workload, &error);
    Exit::Trap { message, backtrace }
}
