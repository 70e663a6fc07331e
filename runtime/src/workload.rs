//! A component with a name, an environment, limits and a way out: what gets called.
//!
//! `call` admits (in flight, then a bounded queue, then a refusal), waits for the CPU quota, finds or starts an instance
//! on this core, and puts a deadline on everything up to the response's head and on each pause after it.
//!
//! Invariants: a workload that nobody calls owns no store, task, socket or timer; a call ends, one way or another, by its
//! deadline; every refusal says which bound it met.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Extensions, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use crate::account::{self, Account, Refusal};
use crate::artifact::{Artifact, Wasi};
use crate::body::{self, Body};
use crate::cores::Cores;
use crate::delivery::{CallerGuard, Delivery, body_bytes};
use crate::engine::Engine;
use crate::events::{CallEnd, CallReport, Event, EventSink};
use crate::host::http::{CHUNK_BYTES, Outbound};
use crate::host::mesh::CallContext;
use crate::instance::{self, CallSlot, Job, Phase, Shard};
use crate::limits::{Charge, CpuAccount, HostBytes, Limits, MemoryAccount, Usage};
use crate::logs::LogSink;
use crate::room::Room;
use crate::scheduling;
use crate::volume::{self, Access, Preopen, Volume};

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

/// For want of what a call was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Overload {
    #[error("the workload is at its limit of calls, and its queue is full")]
    Calls,
    /// No instance could be started: its account has all that it may have.
    #[error("there is no room for an instance: {0}")]
    Account(Refusal),
    /// No instance could be started: the engine has nothing left. Its accounts see to it that this is rare.
    #[error("there is no room for an instance: {reason}")]
    Engine { reason: String },
    #[error("the way to the worker process is full")]
    Worker,
}

/// Why a call got no response from the guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CallError {
    /// Nothing was started; trying elsewhere or later is safe.
    #[error("{0}")]
    Overloaded(Overload),
    /// The host ran out of what the guest needed to go on. The call was at work, and may have had effects.
    #[error("the guest could not go on: {reason}")]
    Exhausted { reason: String },
    /// The workload is being stopped.
    #[error("the workload is stopped")]
    Stopped {
        /// Whether the guest may have seen the request; otherwise trying elsewhere is safe.
        begun: bool,
    },
    #[error("the call took longer than it may")]
    Deadline,
    /// The response's body grew beyond what it may have.
    #[error("the response has more than {limit_bytes} bytes, the most that a body may have")]
    BodyTooLarge { limit_bytes: u64 },
    #[error("the guest trapped: {message}")]
    Trap {
        message: String,
        /// The guest's stack, one frame a line.
        backtrace: String,
    },
    #[error("the guest ran out of memory: its limit is {limit_bytes} bytes")]
    OutOfMemory { limit_bytes: u64 },
    /// The guest itself answered with an error code of wasi:http instead of a response.
    #[error("the guest answered with the error {code}")]
    Guest { code: String },
    #[error("the guest returned without a response")]
    NoResponse,
    /// The worker process that had the guest is gone.
    #[error("the guest's worker process {reason}")]
    Lost {
        reason: String,
        /// Whether the guest may have seen the request.
        begun: bool,
    },
    /// Its machine code was unloaded for want of calls and cannot be had again. Nothing was started.
    #[error("the component's code cannot be loaded: {reason}")]
    NotLoaded { reason: String },
    #[error("the component exports no HTTP handler")]
    NotCallable,
    #[error("the request cannot be passed to a guest: {reason}")]
    BadRequest { reason: String },
}

impl CallError {
    /// The status that a gateway would answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            CallError::Overloaded(_)
            | CallError::Stopped { .. }
            | CallError::NotLoaded { .. }
            | CallError::Lost { begun: false, .. } => StatusCode::SERVICE_UNAVAILABLE,
            CallError::Deadline => StatusCode::GATEWAY_TIMEOUT,
            CallError::BadRequest { .. } => StatusCode::BAD_REQUEST,
            CallError::Trap { .. }
            | CallError::Exhausted { .. }
            | CallError::OutOfMemory { .. }
            | CallError::BodyTooLarge { .. }
            | CallError::Guest { .. }
            | CallError::NoResponse
            | CallError::Lost { begun: true, .. }
            | CallError::NotCallable => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the guest certainly never saw the request.
    pub fn never_started(&self) -> bool {
        matches!(
            self,
            CallError::Overloaded(_)
                | CallError::Stopped { begun: false }
                | CallError::NotLoaded { .. }
                | CallError::NotCallable
                | CallError::BadRequest { .. }
                | CallError::Lost { begun: false, .. }
        )
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
}

/// Options of a [`Workload`].
pub struct WorkloadBuilder {
    engine: Engine,
    artifact: Artifact,
    name: String,
    account: String,
    env: Vec<(String, String)>,
    args: Vec<String>,
    limits: Limits,
    policy: Option<InstancePolicy>,
    stdout: LogSink,
    stderr: LogSink,
    outbound: Option<Outbound>,
    events: Option<EventSink>,
    preopens: Vec<Preopen>,
    extensions: Extensions,
}

impl WorkloadBuilder {
    /// A name for logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Who pays for its instances, such as the namespace it belongs to: what the engine has a fixed number of is divided fairly
    /// among accounts, whatever number of workloads each has. Without one it shares the account of all that have none.
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.account = name.into();
        self
    }

    /// Environment variables, in order.
    pub fn env(mut self, env: Vec<(String, String)>) -> Self {
        self.env = env;
        self
    }

    /// Arguments, the program's name first.
    pub fn args(mut self, args: Vec<String>) -> Self {
        self.args = args;
        self
    }

    /// By default [`Limits::default`]: 256 MiB of memory, 30 seconds for a call, 512 calls at once, and no quota of CPU.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// By default [`InstancePolicy::default_for`] the component's generation of WASI.
    pub fn instance_policy(mut self, policy: InstancePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// By default, what the guest prints is dropped.
    pub fn stdout(mut self, sink: LogSink) -> Self {
        self.stdout = sink;
        self
    }

    pub fn stderr(mut self, sink: LogSink) -> Self {
        self.stderr = sink;
        self
    }

    /// Where outbound requests go. Without it, the guest may send none.
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.outbound = Some(outbound);
        self
    }

    /// Tells what happens to the workload. By default nobody hears it.
    pub fn events(mut self, sink: EventSink) -> Self {
        self.events = Some(sink);
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
            volume: volume.limits().any().then(|| volume.clone()),
        });
        self
    }

    /// A value for an embedder's capability; each instance gets a clone ([`crate::HostState::extension`]).
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// # Errors
    /// When the component could never start within these limits, or a directory to lend it cannot be opened.
    pub fn build(self) -> Result<Workload, WorkloadError> {
        let needed_bytes = self.artifact.initial_memory_bytes();
        let limit_bytes = self.limits.memory_bytes;
        if needed_bytes > limit_bytes {
            return Err(WorkloadError::MemoryLimitTooSmall {
                needed_bytes,
                limit_bytes,
            });
        }
        if let Some((name, _)) = self
            .env
            .iter()
            .find(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            return Err(WorkloadError::Nul {
                what: format!("environment variable {}", name.escape_debug()),
            });
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(WorkloadError::Nul {
                what: "an argument".into(),
            });
        }
        let filesystem = volume::lend(&self.preopens)?;
        let wasi = self.artifact.kind().http.unwrap_or(Wasi::P2);
        let policy = self
            .policy
            .unwrap_or(InstancePolicy::default_for(wasi))
            .for_wasi(wasi);
        let account = self.engine.account(&self.account);
        let memory = Arc::new(MemoryAccount::new(limit_bytes));
        let all_events = self.events.clone().filter(EventSink::hears_all);
        let workload = Workload {
            inner: Arc::new(Inner {
                account,
                room: Room::default(),
                host_bytes: HostBytes::new(memory.clone(), Arc::default(), all_events),
                memory,
                cpu: CpuAccount::new(self.limits.cpu_millis, self.limits.cpu_reserved_millis),
                places: Arc::new(Semaphore::new(
                    self.limits.in_flight_max.min(Semaphore::MAX_PERMITS),
                )),
                outbound_permits: Arc::new(Semaphore::new(
                    self.limits.outbound_max.min(Semaphore::MAX_PERMITS),
                )),
                counters: Counters::default(),
                draining: CancellationToken::new(),
                stopping: CancellationToken::new(),
                shards: OnceLock::new(),
                policy,
                gather_rounds: match wasi {
                    // It is done with a small body when its response arrives.
                    Wasi::P2 => 0,
                    // It returns, then writes, then ends the body: three steps.
                    Wasi::P3 => 3,
                },
                engine: self.engine,
                artifact: self.artifact,
                name: self.name,
                env: self.env,
                args: self.args,
                limits: self.limits,
                stdout: self.stdout,
                stderr: self.stderr,
                outbound: self.outbound,
                events: self.events,
                filesystem,
                volumes: self
                    .preopens
                    .into_iter()
                    .map(|preopen| preopen.volume)
                    .collect(),
                extensions: self.extensions,
            }),
        };
        let inner = &workload.inner;
        inner.memory.belongs_to(Arc::downgrade(inner));
        inner.account.add(Arc::downgrade(inner));
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
    name: String,
    env: Vec<(String, String)>,
    args: Vec<String>,
    limits: Limits,
    policy: InstancePolicy,
    /// How often a call's task steps back so that the guest gets on with its response's body.
    gather_rounds: u32,
    stdout: LogSink,
    stderr: LogSink,
    outbound: Option<Outbound>,
    events: Option<EventSink>,
    filesystem: WasiFilesystemCtx,
    volumes: Vec<Option<Volume>>,
    extensions: Extensions,
    account: Arc<Account>,
    room: Room,
    memory: Arc<MemoryAccount>,
    /// For what belongs to no store.
    host_bytes: Arc<HostBytes>,
    cpu: CpuAccount,
    places: Arc<Semaphore>,
    outbound_permits: Arc<Semaphore>,
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
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
    pub(crate) fn policy(&self) -> InstancePolicy {
        self.policy
    }
    pub(crate) fn stdout(&self) -> &LogSink {
        &self.stdout
    }
    pub(crate) fn stderr(&self) -> &LogSink {
        &self.stderr
    }
    pub(crate) fn outbound(&self) -> Option<&Outbound> {
        self.outbound.as_ref()
    }
    pub(crate) fn events(&self) -> Option<&EventSink> {
        self.events.as_ref().filter(|sink| sink.hears_all())
    }
    /// Tells of a fault that no call returns.
    pub(crate) fn tell_broken_off(&self, fault: &CallError) {
        if let Some(sink) = &self.events {
            let fault = fault.clone();
            sink.tell(Event::BrokenOff { fault });
        }
    }
    pub(crate) fn filesystem(&self) -> &WasiFilesystemCtx {
        &self.filesystem
    }
    /// For each directory that the guest is lent, in their order, the volume with limits that it is.
    pub(crate) fn volumes(&self) -> &[Option<Volume>] {
        &self.volumes
    }
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
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
    /// Whether there may be instances that wait for calls and end soon.
    pub(crate) fn has_idle(&self) -> bool {
        self.counters.instances.load(Relaxed) > 0
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
            name: String::new(),
            account: account::UNNAMED.to_owned(),
            env: Vec::new(),
            args: Vec::new(),
            limits: Limits::default(),
            policy: None,
            stdout: LogSink::discard(),
            stderr: LogSink::discard(),
            outbound: None,
            events: None,
            preopens: Vec::new(),
            extensions: Extensions::new(),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub fn artifact(&self) -> &Artifact {
        &self.inner.artifact
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
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
    /// Everything that keeps the guest from answering; see [`CallError::status`].
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
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
    ) -> Result<Response<Body>, CallError> {
        let inner = &self.inner;
        if inner.artifact.kind().http.is_none() {
            return Err(CallError::NotCallable);
        }
        let mut request = absolute(request)?;
        let mut context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();
        let ours = instance::after(inner.limits.request_timeout).into_std();
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
        let answered = tokio::time::timeout_at(deadline.into(), async {
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
                .unwrap_or(Err(CallError::Stopped { begun: true }))
        });
        match answered.await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                let (body, whole) = body::gather(body, inner.gather_rounds).await;
                let mut chunk = None;
                if !whole {
                    caller.slot.stream();
                    chunk = self.chunk(&mut caller)?;
                }
                let response = Response::from_parts(head, body);
                caller.report = report.take().map(|mut report| {
                    report.end = CallEnd::BrokenOff(response.status());
                    report
                });
                let left = body_bytes(&method, &response);
                if left == Some(0) {
                    caller.phase = Phase::Delivered;
                }
                Ok(response.map(|body| {
                    let delivery = Delivery::new(inner.clone(), body, caller, left, chunk);
                    delivery.boxed_unsync()
                }))
            }
            Ok(Err(error)) => {
                caller.phase = Phase::Delivered;
                if error == CallError::Deadline {
                    inner.counters.deadlines.fetch_add(1, Relaxed);
                }
                Err(error)
            }
            Err(_) => {
                caller.phase = Phase::Expired;
                inner.counters.deadlines.fetch_add(1, Relaxed);
                Err(CallError::Deadline)
            }
        }
    }

    /// Room for what the host holds of a response of WASI 0.3 that comes in parts. (Those of 0.2 are charged as they are written.)
    fn chunk(&self, caller: &mut CallerGuard) -> Result<Option<Charge>, CallError> {
        let inner = &self.inner;
        if inner.artifact.kind().http != Some(Wasi::P3) {
            return Ok(None);
        }
        match inner.host_bytes.charge(CHUNK_BYTES as u64) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(_) => {
                inner.counters.out_of_memory.fetch_add(1, Relaxed);
                caller.phase = Phase::Expired;
                let limit_bytes = inner.limits.memory_bytes;
                Err(CallError::OutOfMemory { limit_bytes })
            }
        }
    }

    pub(crate) async fn admit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, CallError> {
        let inner = &self.inner;
        if inner.draining.is_cancelled() {
            return Err(CallError::Stopped { begun: false });
        }
        if let Ok(permit) = inner.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let queued = Queued::join(&inner.counters.queued, inner.limits.queued_max);
        let Some(_queued) = queued else {
            inner.counters.overloaded.fetch_add(1, Relaxed);
            return Err(CallError::Overloaded(Overload::Calls));
        };
        let stopped = CallError::Stopped { begun: false };
        tokio::select! {
            biased;
            () = inner.draining.cancelled() => Err(stopped),
            permit = inner.places.clone().acquire_owned() => permit.map_err(|_| stopped),
        }
    }

    /// The workload as a `tower` service.
    pub fn service(&self) -> WorkloadService {
        WorkloadService {
            workload: self.clone(),
        }
    }

    /// Refuses further calls, waits up to `grace` for those in flight, then drops what is left. Commands are dropped at
    /// once: there is no signal that they could hear.
    pub async fn stop(&self, grace: Duration) {
        self.inner.draining.cancel();
        let all = u32::try_from(self.inner.limits.in_flight_max).unwrap_or(u32::MAX);
        // Elapsed, or closed by an earlier stop: either way what is left ends now.
        let _ = tokio::time::timeout(grace, self.inner.places.acquire_many(all)).await;
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
                .limits
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
            .field("name", &self.inner.name)
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

/// Guests are told scheme and authority, so a request in origin form gets them from its `Host` header.
pub(crate) fn absolute(request: Request<Body>) -> Result<Request<Body>, CallError> {
    if request.uri().scheme().is_some() && request.uri().authority().is_some() {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let bad = |reason: String| CallError::BadRequest { reason };
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
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let workload = self.workload.clone();
        Box::pin(async move { workload.call(request).await })
    }
}
