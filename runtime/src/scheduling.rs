//! How the kernel schedules the threads of [`Cores`](crate::Cores): politely, unless somebody computes.
//!
//! A core that waits for events is woken by whoever sends one. As an ordinary thread it interrupts the sender at once, to answer
//! a single request, and where client and server share a processor each request costs two switches. Under `SCHED_BATCH`
//! (sched(7)) it waits until the sender waits, or for the next tick, and finds the requests of several connections: with
//! reused instances of WASI 0.2, that is a third more requests a second, at a lower p99 (`docs/performance.md`).
//!
//! Beside a thread that computes the same politeness costs every wake-up as much as a tick, four milliseconds on many
//! kernels. So a core is an ordinary thread again while a [`Computing`] exists in its process, and for [`CALM`] after it.
//! What nobody declares, such as other programs, a core waits for.
//!
//! Where there is a core for each processor, each is bound to its own. Left alone the kernel now and then has two cores on one
//! and a client on the other, none of which sleeps long enough to be moved, and the two take turns.
//!
//! Guests that compute for long do it on threads of lower [`Rank`]. At idle priority (`SCHED_IDLE`) a guest has what nobody
//! else wants and is interrupted by whoever wakes up. That is where it computes, unless its workload reserved CPU and has
//! some left: then it has a tenth of a core's weight, as a thread that is ten levels nicer. (Such a thread cannot be
//! interrupted in its first millisecond or so, by which it delays every tenth call of a neighbour; and guests that are only
//! ever given what is left may not come to an end on a machine that is full.)
//!
//! Invariants: a core changes only itself, and looks whether it has to before each wait for events; a machine that does not
//! let it is left as it is.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use preempt_rt::sched::{Pid, RtResult, Scheduler, SchedulerParams, set_scheduler};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long nothing has to have been computed for cores to be polite: the first wake-up beside each who computes pays for it.
const CALM: Duration = Duration::from_secs(1);

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Core,
    /// Long computations that CPU was reserved for.
    Reserved,
    /// All other long computations.
    Idle,
}

/// How much nicer than a core: its weight is a tenth.
const RESERVED_NICE: i32 = 10;

impl Rank {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rank::Core => "core",
            Rank::Reserved => "long",
            Rank::Idle => "idle",
        }
    }

    /// Has the kernel schedule the current thread as its rank wants it from now on. Threads inherit what started them was.
    pub(crate) fn take(self) {
        release();
        let nice = || rustix::process::nice(RESERVED_NICE).map(drop);
        let done = match self {
            Rank::Core => return,
            Rank::Reserved => nice().is_ok(),
            Rank::Idle => set(Scheduler::SCHED_IDLE).is_ok() || nice().is_ok(),
        };
        if !done {
            tracing::debug!(
                rank = self.name(),
                "a thread is scheduled as the machine likes"
            );
        }
    }
}

/// How many threads this process can run at once. Once a core is bound to a processor, the standard library says one there.
pub(crate) fn parallelism() -> usize {
    static PARALLELISM: OnceLock<usize> = OnceLock::new();
    *PARALLELISM
        .get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// The processors of this process. Its first thread is asked: others may be bound.
fn processors() -> rustix::io::Result<CpuSet> {
    sched_getaffinity(Some(rustix::process::getpid()))
}

/// Binds the current thread, which is core `core` of `count`, to a processor of its own if there is one for each.
pub(crate) fn bind(core: usize, count: usize) {
    let Ok(all) = processors() else { return };
    let mut own = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor));
    // A quota of CPU time makes less of the processors than they are.
    let one_for_each = usize::try_from(all.count()) == Ok(count) && count == parallelism();
    let Some(own) = own.nth(core).filter(|_| one_for_each) else {
        return;
    };
    let mut only = CpuSet::new();
    only.set(own);
    if let Err(error) = sched_setaffinity(None, &only) {
        tracing::debug!(%error, core, "a core is not bound to a processor");
    }
}

/// Has the kernel schedule the current thread as any other, whoever started it.
pub(crate) fn release() {
    let bound = processors().and_then(|all| sched_setaffinity(None, &all));
    // Nothing to be done about, and no harm: the work is done all the same.
    if let (Ok(()), Ok(())) = (bound, set(Scheduler::SCHED_NORMAL)) {
        return;
    }
    tracing::debug!("a thread is scheduled as the one that started it");
}

fn set(scheduler: Scheduler) -> RtResult<()> {
    let params = SchedulerParams { priority: 0 };
    set_scheduler(Pid::current_thread(), scheduler, params)
}

static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Long computations go on in this process or a child of it, on threads that are not cores. While one of these exists, cores
/// interrupt who runs, as threads usually do.
///
/// The runtime has them for guests that compute for long, for compilations and for worker processes. An embedder that
/// computes on threads of its own can have one for that.
#[derive(Debug)]
pub struct Computing(());

impl Computing {
    /// Cheap: a counter.
    #[expect(
        clippy::new_without_default,
        reason = "it is for what it does when it is dropped"
    )]
    pub fn new() -> Computing {
        BEGUN.fetch_add(1, Relaxed);
        Computing(())
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// `SCHED_BATCH`
    Batch,
    /// `SCHED_OTHER`, and how many computations had begun when somebody computed last, and when that was.
    Other { begun: u64, since: Option<Instant> },
    /// The machine does not let us choose.
    Fixed,
}

thread_local! {
    static POLICY: Cell<Policy> = const { Cell::new(Policy::Other { begun: 0, since: None }) };
}

/// What this core should be, as things are. `now` is asked for only where it matters.
fn next_policy(before: Policy, begun: u64, ended: u64, now: impl Fn() -> Instant) -> Policy {
    let busy = begun != ended;
    match before {
        Policy::Fixed => Policy::Fixed,
        Policy::Batch if busy => Policy::Other {
            begun,
            since: Some(now()),
        },
        Policy::Batch => Policy::Batch,
        Policy::Other { begun: seen, since } => {
            let now = now();
            let calm = since.is_none_or(|since| now.duration_since(since) >= CALM);
            match (busy || seen != begun, calm) {
                (true, _) => Policy::Other {
                    begun,
                    since: Some(now),
                },
                (false, true) => Policy::Batch,
                (false, false) => before,
            }
        }
    }
}

/// For a core's thread, before each of its waits.
pub(crate) fn adjust() {
    let before = POLICY.get();
    let (ended, begun) = (ENDED.load(Relaxed), BEGUN.load(Relaxed));
    let mut after = next_policy(before, begun, ended, Instant::now);
    let scheduler = match (before, after) {
        (Policy::Other { .. }, Policy::Batch) => Some(Scheduler::SCHED_BATCH),
        (Policy::Batch, Policy::Other { .. }) => Some(Scheduler::SCHED_NORMAL),
        _ => None,
    };
    if let Some(scheduler) = scheduler
        && let Err(error) = set(scheduler)
    {
        tracing::debug!(%error, "a core is scheduled as the machine likes");
        after = Policy::Fixed;
    }
    if after != before {
        POLICY.set(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cores;

    #[test]
    fn cores_are_batch_threads_a_while_after_the_last_computation() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let other = |begun, millis| Policy::Other {
            begun,
            since: Some(at(millis)),
        };
        let fresh = Policy::Other {
            begun: 0,
            since: None,
        };
        for (before, begun, ended, millis, after) in [
            (fresh, 0, 0, 0, Policy::Batch),
            (fresh, 1, 0, 5, other(1, 5)),
            // Somebody computed, before this core was there or asked.
            (fresh, 1, 1, 5, other(1, 5)),
            (Policy::Batch, 1, 0, 7, other(1, 7)),
            // What began and ended between two looks was short enough.
            (Policy::Batch, 1, 1, 7, Policy::Batch),
            (other(1, 7), 1, 0, 5_000, other(1, 5_000)),
            (other(1, 7), 1, 1, 1_006, other(1, 7)),
            (other(1, 7), 1, 1, 1_007, Policy::Batch),
            (other(1, 7), 2, 2, 1_007, other(2, 1_007)),
            (Policy::Fixed, 1, 0, 0, Policy::Fixed),
        ] {
            let found = next_policy(before, begun, ended, || at(millis));
            assert_eq!(found, after, "{before:?} {begun} {ended} {millis}");
        }
    }

    /// `nice` and `policy` of /proc/self/task/TID/stat: 0 for SCHED_OTHER, 3 for SCHED_BATCH, 5 for SCHED_IDLE.
    fn scheduled() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = after_name.split(' ').collect();
        format!("{} {}", fields[16], fields[38])
    }

    #[tokio::test]
    async fn a_core_stays_on_its_processor_and_what_it_starts_does_not() {
        let all = processors().unwrap();
        let mine = || sched_getaffinity(None).unwrap();
        let count = usize::try_from(all.count()).unwrap();
        if count != parallelism() {
            eprintln!("SKIPPED: this process may not use all of its processors' time");
            return;
        }
        let cores = Cores::start(count).unwrap();
        let mut seen = Vec::new();
        for core in 0..count {
            let (own, blocking) = cores
                .spawn_on(core, async move {
                    let blocking = tokio::task::spawn_blocking(mine).await.unwrap();
                    (mine(), blocking)
                })
                .await
                .unwrap();
            assert_eq!(own.count(), 1);
            assert_eq!(blocking, all);
            assert!(!seen.contains(&own));
            seen.push(own);
        }
        // With more or fewer there is no processor for each.
        let more = Cores::start(count + 1).unwrap();
        let free = more.spawn_on(0, async move { mine() }).await.unwrap();
        assert_eq!(free, all);
        let threads = Cores::start_as(1, Rank::Idle).unwrap();
        let free = threads.spawn_on(0, async move { mine() }).await.unwrap();
        assert_eq!(free, all);
    }

    /// Waits until a core is scheduled so; each of its looks is before a wait.
    async fn is_scheduled(wanted: &'static str) {
        while scheduled() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_kernel_schedules_a_core_as_it_asks() {
        if set(Scheduler::SCHED_BATCH).is_err() {
            eprintln!("SKIPPED: this machine does not let a thread choose its scheduling policy");
            return;
        }
        let cores = Cores::start(1).unwrap();
        cores.spawn_on(0, is_scheduled("0 3")).await.unwrap();
        let computing = Computing::new();
        cores.spawn_on(0, is_scheduled("0 0")).await.unwrap();
        drop(computing);
        cores.spawn_on(0, is_scheduled("0 3")).await.unwrap();
        for (rank, wanted) in [(Rank::Reserved, "10 0"), (Rank::Idle, "0 5")] {
            // This thread is polite, and what it starts would be.
            let threads = Cores::start_as(1, rank).unwrap();
            threads.spawn_on(0, is_scheduled(wanted)).await.unwrap();
        }
    }
}
