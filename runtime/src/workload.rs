//! A component with a name, an environment, limits and a way out: what gets called.
//!
//! `call` admits (in flight, then a bounded queue, then a refusal), waits for the CPU quota, finds or starts an instance
//! on this core, and puts a deadline on everything up to the response's head and on each pause after it.
//!
//! Invariants: a workload that nobody calls owns no store, task, socket or timer; a call ends, one way or another, by its
//! deadline; every refusal says which bound it met.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response, header};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use weft_call::{CallContext, Calling, Failure, FailureKind};

use crate::account::Account;
use crate::artifact::{Artifact, Wasi};
use crate::body::{self, Body};
use crate::capability::{Capability, GrantError, Granted, Grants};
use crate::cores::Cores;
use crate::delivery::{CallerGuard, Delivery, body_bytes};
use crate::engine::Engine;
use crate::events::{CallEnd, CallReport, Event, EventSink};
use crate::failure;
use crate::host::config::Config;
use crate::host::http::{CHUNK_BYTES, Outbound};
use crate::host::keyvalue::KeyValueStore;
use crate::host::metrics::Metrics;
use crate::instance::{self, CallSlot, Job, Phase, Shard};
use crate::limits::{
    Allotment, Charge, CpuAccount, HostBytes, Limits, MemoryAccount, ResizeError, Usage,
};
use crate::logs::LogSink;
use crate::network::Network;
use crate::ownership::Identity;
use crate::room::Room;
use crate::scheduling;
use crate::setup::{Setup, WorkloadConfig};
use crate::stdin::{Stdin, UntilStop};
use crate::volume::{self, Access, Lent, Preopen, Volume};

/// How long instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstancePolicy {
    /// A fresh instance for every call. Nothing is left behind between calls.
    PerRequest,
    /// Instances are kept for further calls.
    Pooled {
        /// Calls that one instance handles before it ends.
        max_requests: u32,
        /// Calls that one instance handles at the same time. Components of WASI 0.2 handle one.
        max_concurrent: u32,
        /// How long an instance waits for the next call.
        idle: Duration,
    },
}

impl InstancePolicy {
    /// What suits a generation of WASI when nothing else was asked for; `wasmtime serve` chose the same.
    pub fn default_for(wasi: Wasi) -> InstancePolicy {
        match wasi {
            Wasi::P2 => InstancePolicy::PerRequest,
            Wasi::P3 => InstancePolicy::Pooled {
                max_requests: 128,
                max_concurrent: 16,
                idle: Duration::from_secs(1),
            },
        }
    }

    fn for_wasi(self, wasi: Wasi) -> InstancePolicy {
        match (self, wasi) {
            (
                InstancePolicy::Pooled {
                    max_requests: 0 | 1,
                    ..
                },
                _,
            ) => InstancePolicy::PerRequest,
            (
                InstancePolicy::Pooled {
                    max_requests, idle, ..
                },
                Wasi::P2,
            ) => InstancePolicy::Pooled {
                max_requests,
                max_concurrent: 1,
                idle,
            },
            (
                InstancePolicy::Pooled {
                    max_requests,
                    max_concurrent,
                    idle,
                },
                Wasi::P3,
            ) => InstancePolicy::Pooled {
                max_requests,
                max_concurrent: max_concurrent.max(1),
                idle,
            },
            (InstancePolicy::PerRequest, _) => InstancePolicy::PerRequest,
        }
    }

    pub(crate) fn requests_max(self) -> u32 {
        match self {
            InstancePolicy::PerRequest => 1,
            InstancePolicy::Pooled { max_requests, .. } => max_requests,
        }
    }

    pub(crate) fn concurrent_max(self) -> usize {
        match self {
            InstancePolicy::PerRequest => 1,
            InstancePolicy::Pooled { max_concurrent, .. } => max_concurrent as usize,
        }
    }

    pub(crate) fn idle(self) -> Duration {
        match self {
            InstancePolicy::PerRequest => Duration::ZERO,
            InstancePolicy::Pooled { idle, .. } => idle,
        }
    }
}

/// Why a workload could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum WorkloadError {
    #[error(
        "the component starts with {needed_bytes} bytes of memory, and the limit is {limit_bytes}"
    )]
    MemoryLimitTooSmall { needed_bytes: u64, limit_bytes: u64 },
    #[error("{what} contains a NUL byte")]
    Nul { what: String },
    #[error("the directory {host_dir} cannot be lent to the guest: {reason}")]
    Preopen { host_dir: PathBuf, reason: String },
    /// What it imports and what it is granted do not fit.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// Options of a [`Workload`].
pub struct WorkloadBuilder {
    engine: Engine,
    artifact: Artifact,
    setup: Setup,
    preopens: Vec<Preopen>,
    /// The workload whose files and accounts it shares.
    outer: Option<Arc<Inner>>,
}

impl WorkloadBuilder {
    /// Of a workload that shares the files and the accounts of `outer`, and ends with it.
    pub(crate) fn within(outer: &Arc<Inner>, artifact: &Artifact, setup: Setup) -> Self {
        WorkloadBuilder {
            engine: outer.engine.clone(),
            artifact: artifact.clone(),
            setup,
            preopens: Vec::new(),
            outer: Some(outer.clone()),
        }
    }

    /// All options but the directories, in the place of what was there.
    pub fn setup(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// A name for logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.setup.config.name = name.into();
        self
    }

    /// Who pays for its instances, such as the namespace it belongs to: what the engine has a fixed number of is divided fairly
    /// among accounts, whatever number of workloads each has. Without one it shares the account of all that have none.
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.setup.config.account = name.into();
        self
    }

    /// Environment variables, in order.
    pub fn env(mut self, env: Vec<(String, String)>) -> Self {
        self.setup.config.env = env;
        self
    }

    /// Arguments, the program's name first.
    pub fn args(mut self, args: Vec<String>) -> Self {
        self.setup.config.args = args;
        self
    }

    /// By default [`Limits::default`]: 256 MiB of memory, 30 seconds for a call, 512 calls at once, and no quota of CPU.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.config.limits = limits;
        self
    }

    /// By default [`InstancePolicy::default_for`] the component's generation of WASI.
    pub fn instance_policy(mut self, policy: InstancePolicy) -> Self {
        self.setup.config.policy = Some(policy);
        self
    }

    /// By default, what the guest prints is dropped.
    pub fn stdout(mut self, sink: LogSink) -> Self {
        self.setup.stdout = sink;
        self
    }

    pub fn stderr(mut self, sink: LogSink) -> Self {
        self.setup.stderr = sink;
        self
    }

    /// Where a command finds itself (`wasi:cli/environment.initial-cwd`). By default it is not told.
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.setup.config.cwd = Some(cwd.into());
        self
    }

    /// What the guest reads on its standard input. By default it is empty.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.setup.config.stdin = stdin;
        self
    }

    /// Where outbound requests go. Without it, the guest may send none.
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.setup.outbound = Some(outbound);
        self
    }

    /// Where the guest's sockets are. Without it, it can have none.
    pub fn network(mut self, network: Network) -> Self {
        self.setup.network = Some(network);
        self
    }

    /// Tells what happens to the workload. By default nobody hears it.
    pub fn events(mut self, sink: EventSink) -> Self {
        self.setup.events = Some(sink);
        self
    }

    /// Who the guest is to its files: what it may do with them, and whose those are that it makes. User 0 by default, who may all.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.setup.config.identity = identity;
        self
    }

    /// Lends the directory `host_dir` to the guest, which finds it at `guest_path`. By default it has no files at all.
    ///
    /// The directory is opened once, when the workload is built; the guest gets nowhere else from there, neither by `..`
    /// nor by symbolic links. How much it writes is for the file system to bound; a [`Volume`] has bounds of its own.
    pub fn preopen(
        mut self,
        host_dir: impl Into<PathBuf>,
        guest_path: impl Into<String>,
        access: Access,
    ) -> Self {
        self.preopens.push(Preopen {
            host_dir: host_dir.into(),
            guest_path: guest_path.into(),
            access,
            volume: None,
        });
        self
    }

    /// Lends `volume` to the guest in the same way. What does not fit into it is answered `quota`, and what would be moved or
    /// linked from it to elsewhere, or from elsewhere to it, `cross-device`.
    ///
    /// In a volume with limits one thing at a time is opened, created, moved or written, over all who share it; reading and
    /// looking are as anywhere.
    pub fn volume(
        mut self,
        volume: &Volume,
        guest_path: impl Into<String>,
        access: Access,
    ) -> Self {
        self.preopens.push(Preopen {
            host_dir: volume.dir().to_owned(),
            guest_path: guest_path.into(),
            access,
            volume: Some(volume.clone()),
        });
        self
    }

    /// Grants what the guest may have of a capability that the engine was built with. By default it is granted nothing, and a component
    /// that imports something of it is refused.
    pub fn grant<C: Capability>(mut self, grant: C::Grant) -> Self {
        self.setup.grants.give::<C>(grant);
        self
    }

    /// Grants `wasi:config/store`, with these settings.
    pub fn config(mut self, config: Config) -> Self {
        self.setup.grants.config(config);
        self
    }

    /// Grants `weft:mesh/metrics`; what the guest counts is in `metrics`.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.setup.grants.metrics(metrics);
        self
    }

    /// Grants `wasi:keyvalue`, and `store` as the bucket that the guest opens by `identifier`; `default` and the empty one are usual.
    /// To be called once for each bucket.
    pub fn key_value(
        mut self,
        identifier: impl Into<String>,
        store: Arc<dyn KeyValueStore>,
    ) -> Self {
        self.setup.grants.key_value(identifier, store);
        self
    }

    /// # Errors
    /// When the component could never start within these limits, imports what it is not granted, or a directory to lend it
    /// cannot be opened.
    pub fn build(self) -> Result<Workload, WorkloadError> {
        let WorkloadBuilder {
            engine,
            artifact,
            setup,
            preopens,
            outer,
        } = self;
        let (config, limits) = (&setup.config, &setup.config.limits);
        let granted = engine.granted(&setup.grants, &artifact)?;
        let needed_bytes = artifact.initial_memory_bytes();
        let limit_bytes = match &outer {
            Some(outer) => outer.memory.limit(),
            None => limits.memory_bytes,
        };
        if needed_bytes > limit_bytes {
            return Err(WorkloadError::MemoryLimitTooSmall {
                needed_bytes,
                limit_bytes,
            });
        }
        if let Some((name, _)) = config
            .env
            .iter()
            .find(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            return Err(WorkloadError::Nul {
                what: format!("environment variable {}", name.escape_debug()),
            });
        }
        if config.args.iter().any(|arg| arg.contains('\0')) {
            return Err(WorkloadError::Nul {
                what: "an argument".into(),
            });
        }
        let (filesystem, lent) = match &outer {
            Some(outer) if preopens.is_empty() => (outer.filesystem.clone(), outer.lent.clone()),
            _ => volume::lend(preopens, &setup.config.identity)?,
        };
        let wasi = artifact.kind().http.unwrap_or(Wasi::P2);
        let policy = config
            .policy
            .unwrap_or(InstancePolicy::default_for(wasi))
            .for_wasi(wasi);
        let account = match &outer {
            Some(outer) => outer.account.clone(),
            None => engine.account(&config.account),
        };
        let memory = match &outer {
            Some(outer) => outer.memory.clone(),
            None => Arc::new(MemoryAccount::new(limit_bytes)),
        };
        let cpu = match &outer {
            Some(outer) => outer.cpu.clone(),
            None => Arc::new(CpuAccount::new(
                account.tenant(),
                limits.cpu_millis,
                limits.cpu_reserved_millis,
            )),
        };
        let child = |token: fn(&Inner) -> &CancellationToken| match &outer {
            Some(outer) => token(outer).child_token(),
            None => CancellationToken::new(),
        };
        let (draining, stopping) = (
            child(|outer| &outer.draining),
            child(|outer| &outer.stopping),
        );
        let all_events = setup.events.clone().filter(EventSink::hears_all);
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let workload = Workload {
            inner: Arc::new(Inner {
                cpu,
                account,
                room: Room::default(),
                host_bytes: HostBytes::new(memory.clone(), Arc::default(), all_events),
                memory,
                places: places(limits.in_flight_max),
                outbound_permits: match &outer {
                    Some(outer) => outer.outbound_permits.clone(),
                    None => places(limits.outbound_max),
                },
                key_value_places: match &outer {
                    Some(outer) => outer.key_value_places.clone(),
                    None => places(limits.key_value_max),
                },
                granted,
                counters: Counters::default(),
                draining,
                stopping,
                shards: OnceLock::new(),
                policy,
                gather_rounds: match wasi {
                    // It is done with a small body when its response arrives.
                    Wasi::P2 => 0,
                    // It returns, then writes, then ends the body: three steps.
                    Wasi::P3 => 3,
                },
                engine,
                artifact,
                setup,
                runs: TaskTracker::new(),
                filesystem,
                lent,
            }),
        };
        if outer.is_none() {
            let inner = &workload.inner;
            inner.memory.belongs_to(Arc::downgrade(inner));
            inner.account.add(Arc::downgrade(inner));
        }
        Ok(workload)
    }
}

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
    /// Options for running `artifact` on the engine that loaded it.
    pub fn builder(engine: &Engine, artifact: &Artifact) -> WorkloadBuilder {
        WorkloadBuilder {
            engine: engine.clone(),
            artifact: artifact.clone(),
            setup: Setup::default(),
            preopens: Vec::new(),
            outer: None,
        }
    }

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

    /// Has the guest answer `request`, on the current thread's runtime.
    ///
    /// A [`CallContext`] among the request's extensions says who calls and until when. Dropping the future, or the
    /// response's body before its end, cancels the call.
    ///
    /// # Errors
    /// Everything that keeps the guest from answering; see [`FailureKind`].
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let mut report = self.inner.events().map(CallReport::new);
        let answered = self.answer(request, &mut report).await;
        if let (Some(report), Err(error)) = (&mut report, &answered) {
            report.end = CallEnd::Failed(error.clone());
        }
        answered
    }

    /// A response takes the report with it.
    async fn answer(
        &self,
        request: Request<Body>,
        report: &mut Option<CallReport>,
    ) -> Result<Response<Body>, Failure> {
        let inner = &self.inner;
        if inner.artifact.kind().http.is_none() {
            return Err(failure::not_callable());
        }
        let mut request = absolute(request)?;
        let mut context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();
        let ours = instance::after(inner.limits().request_timeout).into_std();
        let deadline = context.deadline.map_or(ours, |theirs| theirs.min(ours));
        context.deadline = Some(deadline);
        inner.counters.requests.fetch_add(1, Relaxed);
        let method = request.method().clone();

        let (slot, answer) = CallSlot::new(Arc::new(context));
        let mut caller = CallerGuard {
            slot,
            phase: Phase::Left,
            report: None,
        };
        let answering = async {
            let permit = self.admit().await?;
            if let Some(debt) = inner.cpu.debt() {
                tokio::time::sleep(debt).await;
            }
            instance::submit(
                inner,
                Job {
                    request,
                    slot: caller.slot.clone(),
                    permit,
                },
            );
            // The other end is gone only if the runtime is being shut down.
            answer
                .await
                .unwrap_or_else(|_| Err(failure::stopped_at_work()))
        };
        match within(deadline.into(), answering).await {
            Some(Ok(response)) => {
                let (head, body) = response.into_parts();
                let body = body::gather(body, inner.gather_rounds).await;
                let response = Response::from_parts(head, body);
                let left = body_bytes(&method, &response);
                let whole = response.body().whole();
                let is_streamed = whole.is_none();
                let whole = whole.filter(|bytes| {
                    let length = bytes.len() as u64;
                    length <= inner.limits().body_bytes && left.is_none_or(|left| left == length)
                });
                let mut chunk = None;
                if is_streamed {
                    caller.slot.stream();
                    chunk = self.chunk(&mut caller)?;
                }
                caller.report = report.take().map(|mut report| {
                    report.end = CallEnd::BrokenOff(response.status());
                    report
                });
                if left == Some(0) || whole.is_some() {
                    caller.phase = Phase::Delivered;
                }
                Ok(response.map(|body| match whole {
                    // Nobody has to wait for any of it.
                    Some(bytes) => Body::full(bytes),
                    None => Body::new(Delivery::new(inner.clone(), body, caller, left, chunk)),
                }))
            }
            Some(Err(error)) => {
                caller.phase = Phase::Delivered;
                match error.kind {
                    FailureKind::Deadline => {
                        inner.counters.deadlines.fetch_add(1, Relaxed);
                    }
                    FailureKind::Trap
                    | FailureKind::OutOfMemory
                    | FailureKind::Exhausted
                    | FailureKind::NoResponse => {
                        if let Some(delay) = inner.account.delay_of_fault() {
                            let until = instance::after(delay).min(deadline.into());
                            tokio::time::sleep_until(until).await;
                        }
                    }
                    _ => {}
                }
                Err(error)
            }
            None => {
                caller.phase = Phase::Expired;
                inner.counters.deadlines.fetch_add(1, Relaxed);
                Err(failure::deadline())
            }
        }
    }

    /// Room for what the host holds of a response of WASI 0.3 that comes in parts. (Those of 0.2 are charged as they are written.)
    fn chunk(&self, caller: &mut CallerGuard) -> Result<Option<Charge>, Failure> {
        let inner = &self.inner;
        if inner.artifact.kind().http != Some(Wasi::P3) {
            return Ok(None);
        }
        match inner.host_bytes.charge(CHUNK_BYTES as u64) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(_) => {
                inner.counters.out_of_memory.fetch_add(1, Relaxed);
                caller.phase = Phase::Expired;
                Err(failure::out_of_memory(inner.memory_limit()))
            }
        }
    }

    pub(crate) async fn admit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        let inner = &self.inner;
        if inner.draining.is_cancelled() {
            return Err(failure::stopped());
        }
        if let Ok(permit) = inner.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let queued = Queued::join(&inner.counters.queued, inner.limits().queued_max);
        let Some(_queued) = queued else {
            inner.counters.overloaded.fetch_add(1, Relaxed);
            return Err(failure::queue_full());
        };
        tokio::select! {
            biased;
            () = inner.draining.cancelled() => Err(failure::stopped()),
            permit = inner.places.clone().acquire_owned() => permit.map_err(|_| failure::stopped()),
        }
    }

    /// The workload as a `tower` service.
    pub fn service(&self) -> WorkloadService {
        WorkloadService {
            workload: self.clone(),
        }
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

/// A place in the queue.
struct Queued<'a>(&'a AtomicU64);

impl<'a> Queued<'a> {
    fn join(queued: &'a AtomicU64, max: usize) -> Option<Queued<'a>> {
        let joined = queued.fetch_update(Relaxed, Relaxed, |queued| {
            (queued < max as u64).then_some(queued + 1)
        });
        joined.is_ok().then(|| Queued(queued))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The output of `work`, or none when `deadline` comes first. Most calls wait for nothing, and have no timer.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline, work).await.ok(),
    }
}

/// Guests are told scheme and authority, so a request in origin form gets them from its `Host` header.
pub(crate) fn absolute(request: Request<Body>) -> Result<Request<Body>, Failure> {
    if request.uri().scheme().is_some() && request.uri().authority().is_some() {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let bad = |reason: String| failure::bad_request(reason);
    if uri.authority.is_none() {
        let authority = match parts.headers.get(header::HOST) {
            Some(host) if !host.is_empty() => Authority::try_from(host.as_bytes())
                .map_err(|error| bad(format!("its Host header is not valid: {error}")))?,
            _ => Authority::from_static("localhost"),
        };
        uri.authority = Some(authority);
    }
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|error| bad(error.to_string()))?;
    Ok(Request::from_parts(parts, body))
}

/// A [`Workload`] as a `tower` service. Always ready: admission is part of the call.
#[derive(Clone, Debug)]
pub struct WorkloadService {
    workload: Workload,
}

impl tower::Service<Request<Body>> for WorkloadService {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Calling<Body>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let workload = self.workload.clone();
        Box::pin(async move { workload.call(request).await })
    }
}
