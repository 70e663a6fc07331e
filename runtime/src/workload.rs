//! A component with a name, an environment, limits and a way out: what gets called.
//!
//! `call` admits (in flight, then a bounded queue, then a refusal), waits for the CPU quota, finds or starts an instance
//! on this core, and puts a deadline on everything up to the response's head and on each pause after it.
//!
//! Invariants: a workload that nobody calls owns no store, task, socket or timer; a call ends, one way or another, by its
//! deadline; every refusal says which bound it met.

mod builder;
mod call;
mod policy;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use weft_call::Failure;

pub use self::builder::{WorkloadBuilder, WorkloadError};
pub use self::call::WorkloadService;
pub(crate) use self::call::absolute;
pub use self::policy::InstancePolicy;
use crate::account::Account;
use crate::artifact::Artifact;
use crate::capability::{Granted, Grants};
use crate::cores::Cores;
use crate::engine::Engine;
use crate::events::{Event, EventSink};
use crate::host::http::Outbound;
use crate::instance::Shard;
use crate::limits::{Allotment, CpuAccount, HostBytes, Limits, MemoryAccount, ResizeError, Usage};
use crate::logs::LogSink;
use crate::network::Network;
use crate::room::Room;
use crate::scheduling;
use crate::setup::{Setup, WorkloadConfig};
use crate::stdin::{Stdin, UntilStop};
use crate::volume::Lent;

/// A component that can be called and run. Cheap to clone.
#[derive(Clone)]
pub struct Workload {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    engine: Engine,
    artifact: Artifact,
    setup: Setup,
    /// What of the setup holds for the component.
    policy: InstancePolicy,
    /// How often a call's task steps back so that the guest gets on with its response's body.
    gather_rounds: u32,
    /// Commands that have not come to their end.
    runs: TaskTracker,
    granted: Granted,
    filesystem: WasiFilesystemCtx,
    lent: Vec<Lent>,
    account: Arc<Account>,
    room: Room,
    memory: Arc<MemoryAccount>,
    /// For what belongs to no store.
    host_bytes: Arc<HostBytes>,
    cpu: Arc<CpuAccount>,
    places: Arc<Semaphore>,
    outbound_permits: Arc<Semaphore>,
    key_value_places: Arc<Semaphore>,
    counters: Counters,
    /// No further calls.
    draining: CancellationToken,
    /// No further work.
    stopping: CancellationToken,
    /// Made with the first call that is pooled: one for each core and one for everyone else.
    shards: OnceLock<Box<[Arc<Shard>]>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) instances: AtomicU64,
    pub(crate) instances_started: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) deadlines: AtomicU64,
    pub(crate) traps: AtomicU64,
    pub(crate) no_response: AtomicU64,
    pub(crate) out_of_memory: AtomicU64,
    pub(crate) outbound_requests: AtomicU64,
}

impl Inner {
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
    pub(crate) fn artifact(&self) -> &Artifact {
        &self.artifact
    }
    pub(crate) fn config(&self) -> &WorkloadConfig {
        &self.setup.config
    }
    pub(crate) fn limits(&self) -> &Limits {
        &self.setup.config.limits
    }
    /// What it may have of memory now.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.memory.limit()
    }
    pub(crate) fn policy(&self) -> InstancePolicy {
        self.policy
    }
    pub(crate) fn stdout(&self) -> &LogSink {
        &self.setup.stdout
    }
    pub(crate) fn stderr(&self) -> &LogSink {
        &self.setup.stderr
    }
    /// The guest's standard input, unless it is empty.
    pub(crate) fn stdin(&self) -> Option<UntilStop> {
        (self.setup.config.stdin == Stdin::EndsAtStop).then(|| UntilStop(self.draining.clone()))
    }
    /// A run of a command, which a stop waits for; none once it has begun.
    pub(crate) fn begin_run(&self) -> Option<TaskTrackerToken> {
        let run = self.runs.token();
        (!self.draining.is_cancelled()).then_some(run)
    }
    /// No further calls or runs: what has begun is to come to its end.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }
    pub(crate) fn grants(&self) -> &Grants {
        &self.setup.grants
    }
    pub(crate) fn outbound(&self) -> Option<&Outbound> {
        self.setup.outbound.as_ref()
    }
    /// Where its sockets are, if it may have any.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.setup.network.as_ref()
    }
    pub(crate) fn events(&self) -> Option<&EventSink> {
        let events = self.setup.events.as_ref();
        events.filter(|sink| sink.hears_all())
    }
    /// Tells of a fault that no call returns.
    pub(crate) fn tell_broken_off(&self, fault: &Failure) {
        if let Some(sink) = &self.setup.events {
            let fault = fault.clone();
            sink.tell(Event::BrokenOff { fault });
        }
    }
    pub(crate) fn filesystem(&self) -> &WasiFilesystemCtx {
        &self.filesystem
    }
    /// The directories that the guest is lent, in their order.
    pub(crate) fn lent(&self) -> &[Lent] {
        &self.lent
    }
    /// What it has of the engine's capabilities.
    pub(crate) fn granted(&self) -> &Granted {
        &self.granted
    }
    /// For operations on its key-value stores.
    pub(crate) fn key_value_places(&self) -> &Arc<Semaphore> {
        &self.key_value_places
    }
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
    pub(crate) fn memory(&self) -> &Arc<MemoryAccount> {
        &self.memory
    }
    pub(crate) fn cpu(&self) -> &CpuAccount {
        &self.cpu
    }
    pub(crate) fn outbound_permits(&self) -> &Arc<Semaphore> {
        &self.outbound_permits
    }
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Ends the instances that wait for calls. Those of WASI 0.2 are gone when this returns, the others soon.
    pub(crate) fn end_idle(&self) {
        for shard in self.shards.get().into_iter().flatten() {
            shard.end_idle();
        }
    }
    /// One of its instances is idle: whoever waits for room can have its.
    pub(crate) fn offer_room(&self) {
        self.room.is_made();
        self.account.freed().is_made();
    }

    /// Whether there is memory for another instance.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.has_room(self.artifact.initial_memory_bytes())
    }
    /// Whether there are instances beside so many of the caller's own.
    pub(crate) fn has_instances_beside(&self, own: u64) -> bool {
        self.counters.instances.load(Relaxed) > own
    }

    pub(crate) fn shard(&self) -> &Arc<Shard> {
        let shards = self.shards.get_or_init(|| {
            let cores = scheduling::parallelism();
            (0..=cores).map(|_| Arc::default()).collect()
        });
        let last = shards.len() - 1;
        &shards[Cores::current().map_or(last, |core| core % last)]
    }
}

impl Workload {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub fn name(&self) -> &str {
        &self.inner.config().name
    }

    pub fn artifact(&self) -> &Artifact {
        &self.inner.artifact
    }

    /// As it was built. What was changed since is in [`Workload::usage`].
    pub fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    /// Gives it other amounts of memory and CPU from now on, and what runs in its context with it. Idle instances end where that is what
    /// it takes. All of them change or none.
    ///
    /// # Errors
    /// [`ResizeError`] when more memory is in use than it would have, or needed for a start.
    pub fn resize(&self, to: Allotment) -> Result<(), ResizeError> {
        let inner = &self.inner;
        let asked_bytes = to.memory_bytes;
        let needed_bytes = inner.artifact.initial_memory_bytes();
        if needed_bytes > asked_bytes {
            return Err(ResizeError::TooSmall {
                needed_bytes,
                asked_bytes,
            });
        }
        let in_use = |used_bytes| ResizeError::InUse {
            asked_bytes,
            used_bytes,
        };
        inner.memory.set_limit(asked_bytes).map_err(in_use)?;
        inner.cpu.set(to.cpu_millis, to.cpu_reserved_millis);
        Ok(())
    }

    pub fn instance_policy(&self) -> InstancePolicy {
        self.inner.policy
    }

    /// Refuses further calls and runs, waits up to `grace` for what was begun, then drops what is left. A command hears of it
    /// where its input is [`Stdin::EndsAtStop`].
    pub async fn stop(&self, grace: Duration) {
        self.inner.draining.cancel();
        self.inner.runs.close();
        let all = u32::try_from(self.inner.limits().in_flight_max).unwrap_or(u32::MAX);
        // Closed by an earlier stop: what is left ends now.
        let done =
            async { tokio::join!(self.inner.places.acquire_many(all), self.inner.runs.wait()) };
        // Elapsed: the same.
        let _ = tokio::time::timeout(grace, done).await;
        self.inner.places.close();
        self.inner.stopping.cancel();
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        let inner = &self.inner;
        let counters = &inner.counters;
        Usage {
            cpu_nanos: inner.cpu.used_nanos(),
            memory_bytes: inner.memory.used(),
            memory_peak_bytes: inner.memory.peak(),
            memory_limit_bytes: inner.memory.limit(),
            instances: counters.instances.load(Relaxed),
            instances_started: counters.instances_started.load(Relaxed),
            in_flight: inner
                .limits()
                .in_flight_max
                .saturating_sub(inner.places.available_permits()) as u64,
            queued: counters.queued.load(Relaxed),
            requests: counters.requests.load(Relaxed),
            overloaded: counters.overloaded.load(Relaxed),
            deadlines: counters.deadlines.load(Relaxed),
            traps: counters.traps.load(Relaxed),
            no_response: counters.no_response.load(Relaxed),
            out_of_memory: counters.out_of_memory.load(Relaxed),
            outbound_requests: counters.outbound_requests.load(Relaxed),
        }
    }
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workload")
            .field("name", &self.inner.config().name)
            .field("artifact", &self.inner.artifact)
            .finish()
    }
}
