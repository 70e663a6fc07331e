//! This side: starts a worker, builds workloads in it, calls them, and notices its end.
//!
//! [`RemoteWorkload`] offers what [`Workload`] offers, with the same errors and limits. The worker itself holds to limits
//! and deadlines. This side sees to it that a worker which answers no more cannot keep anybody waiting, and that one which
//! holds to nothing gets no more than its workloads may have ([`Way`]): calls and requests that are open, their depth in the call
//! tree, the time that a request may take.
//!
//! [`Workload`]: crate::Workload

use std::collections::HashMap;
use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{self, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use weft_call::{CallContext, Failure, Processed};

use super::control::{self, Command, FILES_MAX, Reply};
use super::output::Reader;
use super::session::{self, Opened, Opening};
use super::way::{OpenWay, Way, Ways};
use super::wire::{self, Outward, Refused, RunEnd, STREAMS_MAX, Sender, Side, Told};
use crate::artifact::Artifact;
use crate::body::{Body, BoxError};
use crate::capability::Packed;
use crate::command::Exit;
use crate::cores::Cores;
use crate::engine::Engine;
use crate::failure;
use crate::instance;
use crate::limits::{Allotment, Limits, ResizeError, Usage};
use crate::scheduling::Computing;
use crate::session::Session;
use crate::setup::{Setup, WorkloadConfig};
use crate::stdio::Stdio;
use crate::workload::{WorkloadError, absolute};

/// How long a worker may take to be ready. It takes a tenth of a second on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to load code, and to answer what does not wait for a guest.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a worker that nobody needs may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(2);
/// The worker's own clock ends calls; this side waits so much longer for its word.
const DEADLINE_SLACK: Duration = Duration::from_millis(250);
/// How long an answer waits for what the guest printed before it.
const OUTPUT_WITHIN: Duration = Duration::from_millis(500);
/// How often a worker is asked for what its guests use.
const USAGE_EVERY: Duration = Duration::from_secs(1);
/// Unanswered questions in a row after which a worker counts as stuck.
const UNANSWERED_MAX: u32 = 3;
/// The longest line of a worker's own log.
const LINE_BYTES_MAX: usize = 4 << 10;

/// A program that calls [`worker_main`], usually the embedder's own: `weft worker`.
///
/// [`worker_main`]: crate::worker::worker_main
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// Why there is no worker, or no workload in it.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("starting the worker process {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the worker process could not set itself up: {reason}")]
    Refused { reason: String },
    #[error("the worker process {reason}")]
    Lost { reason: String },
    #[error("the compiled component is not on disk, from where a worker process gets it; {reason}")]
    Code { reason: String },
    /// What it is granted of this capability cannot leave this process ([`Capability::pack`](crate::Capability::pack)).
    #[error("what the workload is granted of {capability} cannot be had in a worker process")]
    Grant { capability: String },
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// What is told of a [`Setup`].
#[derive(Serialize, Deserialize)]
pub(super) struct WireSetup {
    pub(super) config: WorkloadConfig,
    /// Whether there is somewhere for requests to go.
    pub(super) outbound: bool,
    pub(super) grants: Packed,
}

/// A worker process. Cheap to clone; it ends when the last clone and the last of its workloads are gone.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

/// See [`Worker::downgrade`].
pub struct WeakWorker {
    inner: Weak<Inner>,
}

impl WeakWorker {
    /// The worker, while somebody needs it.
    pub fn upgrade(&self) -> Option<Worker> {
        self.inner.upgrade().map(|inner| Worker { inner })
    }
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The last of its workloads is gone.
    NotNeeded,
    Died {
        at: tokio::time::Instant,
        /// To be read after "the worker process".
        reason: String,
    },
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::NotNeeded => f.write_str("ended with its last workload"),
            Ended::Died { reason, .. } => f.write_str(reason),
        }
    }
}

struct Inner {
    /// Before the lanes: once their senders are dropped, the connections end, and [`keep`] must know why.
    _end_on_drop: DropGuard,
    pid: u32,
    lanes: Vec<Lane>,
    control: Mutex<UnixStream>,
    ways: Ways,
    built: Mutex<HashMap<u64, Weak<Remote>>>,
    next_id: AtomicU64,
    ended: watch::Receiver<Option<Ended>>,
}

struct Lane {
    sender: Sender,
    open: Arc<Semaphore>,
}

impl Worker {
    /// Starts a worker with a lane for each of `cores`, and waits until it is locked down and ready.
    ///
    /// # Errors
    /// When the program cannot be started, or the machine refuses what it needs to lock itself down.
    pub async fn start(command: &WorkerCommand, cores: &Cores) -> Result<Worker, WorkerError> {
        let failed = |source| WorkerError::Start {
            program: command.program.clone(),
            source,
        };
        let (control, inherited) = UnixStream::pair().map_err(failed)?;
        let mut child = tokio::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .env("RUST_LIB_BACKTRACE", "0")
            .current_dir("/")
            // Ctrl-C in a terminal is for whoever drains, not for what is drained.
            .process_group(0)
            .stdin(process::Stdio::from(OwnedFd::from(inherited)))
            .stdout(process::Stdio::null())
            .stderr(process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log(pid, stderr));
        }
        let count = cores.len().min(FILES_MAX / 2);
        let mut theirs = Vec::new();
        let mut ours = Vec::new();
        for _ in 0..count {
            let (calls, inside_calls) = UnixStream::pair().map_err(failed)?;
            let (outbound, inside_outbound) = UnixStream::pair().map_err(failed)?;
            for socket in [&calls, &outbound] {
                socket.set_nonblocking(true).map_err(failed)?;
            }
            theirs.extend([inside_calls, inside_outbound]);
            ours.push((calls, outbound));
        }
        control
            .set_read_timeout(Some(START_WITHIN))
            .map_err(failed)?;
        let (control, reply) = blocking(move || {
            let files: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
            let reply = exchange(&control, &Command::Start, &files);
            (control, reply)
        })
        .await
        .map_err(failed)?;
        match reply {
            Ok(Reply::Done) => {}
            Ok(Reply::Failed { reason }) => return Err(WorkerError::Refused { reason }),
            Err(error) => {
                // What it says matters more than that the socket closed; a process that hangs says nothing.
                let _ = child.start_kill();
                let status = child.wait().await.map_err(failed)?;
                let reason = format!("was not ready: {error}; it {}", word(status));
                return Err(WorkerError::Lost { reason });
            }
        }
        let closing = control.try_clone().map_err(failed)?;
        let ways = Ways::default();
        let mut lanes = Vec::new();
        let mut connections = JoinSet::new();
        for (core, (calls, outbound)) in ours.into_iter().enumerate() {
            let (told, sender) = tokio::sync::oneshot::channel();
            connections.spawn_on(
                async move {
                    let (sender, connection) = wire::ask(calls, Side::Node).await?;
                    // Gone only if the start was given up.
                    let _ = told.send(sender);
                    connection.await?;
                    Ok::<_, BoxError>(())
                },
                cores.handle(core),
            );
            let ways = ways.clone();
            let open = Arc::new(Semaphore::new(STREAMS_MAX));
            let serving = wire::answer(
                outbound,
                Side::Node,
                service_fn(move |request| {
                    let (ways, open) = (ways.clone(), open.clone());
                    async move { Ok(ways.pass_on(&open, request).await) }
                }),
            );
            connections.spawn_on(serving, cores.handle(core));
            let Ok(sender) = sender.await else {
                let error = match connections.join_next().await {
                    Some(Ok(Err(error))) => error.to_string(),
                    _ => "it closed its sockets".into(),
                };
                let _ = child.start_kill();
                let status = child.wait().await.map_err(failed)?;
                let reason = format!("was lost at once: {error}; it {}", word(status));
                return Err(WorkerError::Lost { reason });
            };
            lanes.push(Lane {
                sender,
                open: Arc::new(Semaphore::new(STREAMS_MAX)),
            });
        }
        let (told, ended) = watch::channel(None);
        let end = CancellationToken::new();
        let inner = Arc::new(Inner {
            _end_on_drop: end.clone().drop_guard(),
            pid,
            lanes,
            control: Mutex::new(control),
            ways,
            built: Mutex::default(),
            next_id: AtomicU64::new(1),
            ended,
        });
        tokio::spawn(keep(Keeper {
            _computing: Computing::new(),
            child,
            control: closing,
            connections,
            worker: Arc::downgrade(&inner),
            told,
            end,
        }));
        Ok(Worker { inner })
    }

    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// The same process, without being a reason for it to go on.
    pub fn downgrade(&self) -> WeakWorker {
        WeakWorker {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.inner.ended.clone()
    }

    /// Builds a workload there. `artifact` is one that `engine` compiled and verified, with a cache on disk.
    ///
    /// # Errors
    /// When the workload could never start within its limits, or the worker is gone.
    pub async fn build(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        setup: Setup,
    ) -> Result<RemoteWorkload, WorkerError> {
        let (worker, engine, artifact) = (self.clone(), engine.clone(), artifact.clone());
        // To its end even if the caller leaves: what was half built is taken down by being dropped.
        let built =
            tokio::spawn(async move { worker.build_to_end(&engine, &artifact, setup).await });
        built.await.map_err(|error| WorkerError::Lost {
            reason: format!("was given up: {error}"),
        })?
    }

    async fn build_to_end(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        setup: Setup,
    ) -> Result<RemoteWorkload, WorkerError> {
        let lost = |error: &dyn std::fmt::Display| WorkerError::Lost {
            reason: self.inner.why(error),
        };
        let granted = engine
            .granted(&setup.grants, artifact)
            .map_err(WorkloadError::Grant)?;
        let grants = granted.pack().map_err(|capability| WorkerError::Grant {
            capability: capability.to_owned(),
        })?;
        let id = self.inner.next_id.fetch_add(1, Relaxed);
        let code = engine
            .open_code(artifact)
            .map_err(|error| WorkerError::Code {
                reason: error.to_string(),
            })?;
        self.load(id, artifact, code).await?;

        let Setup {
            config,
            stdout,
            stderr,
            outbound,
            events,
            grants: _,
            // Its kernel lets it have no socket, and a virtual one would be another way out of it.
            network: _,
        } = setup;
        let (name, limits) = (config.name.clone(), config.limits.clone());
        let wire_setup = WireSetup {
            config,
            outbound: outbound.is_some(),
            grants,
        };
        let way = Way::new(&limits, outbound, granted);
        let way = self.inner.ways.open(id, way);
        let text = serde_json::to_vec(&wire_setup).map_err(|error| lost(&error))?;
        let response = self
            .inner
            .task(id, wire::BUILD, Body::full(text), ANSWER_WITHIN)
            .await
            .map_err(|error| lost(&error))?;
        if wire::has_failed(&response) {
            let error = wire::read::<WorkloadError>(response, wire::ERROR_BYTES_MAX).await;
            let error = error.map_err(|error| lost(&error))?;
            return Err(error.into());
        }
        let (printed, seen) = watch::channel(0);
        let reading = tokio::spawn(print(
            response.into_body(),
            Reader::new(stdout, stderr, events),
            printed,
        ));
        let remote = Arc::new(Remote {
            id,
            name,
            memory_limit: AtomicU64::new(limits.memory_bytes),
            limits,
            usage: Mutex::new(Usage::default()),
            seen,
            reading: reading.abort_handle(),
            draining: AtomicBool::new(false),
            way,
            worker: self.clone(),
        });
        let mut built = self.inner.built.lock();
        built.retain(|_, remote| remote.strong_count() > 0);
        built.insert(id, Arc::downgrade(&remote));
        drop(built);
        Ok(RemoteWorkload { inner: remote })
    }

    async fn load(&self, id: u64, artifact: &Artifact, code: File) -> Result<(), WorkerError> {
        let inner = self.inner.clone();
        let command = Command::Load {
            id,
            digest: artifact.digest().to_string(),
            calls: artifact.calls(),
        };
        let reply = blocking(move || {
            let control = inner.control.lock();
            exchange(&control, &command, &[code.as_fd()])
        })
        .await;
        match reply.and_then(|reply| reply) {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed { reason }) => Err(WorkerError::Refused { reason }),
            Err(error) => Err(WorkerError::Lost {
                reason: self.inner.why(&error),
            }),
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("pid", &self.inner.pid)
            .finish()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
}

fn exchange(
    control: &UnixStream,
    command: &Command,
    files: &[std::os::fd::BorrowedFd<'_>],
) -> std::io::Result<Reply> {
    control::send(control, command, files)?;
    match control::receive(control)? {
        Some((reply, _)) => Ok(reply),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Inner {
    fn lane(&self, id: u64) -> &Lane {
        let core = Cores::current().unwrap_or(usize::try_from(id).unwrap_or_default());
        &self.lanes[core % self.lanes.len()]
    }

    /// A request that is not for the guest.
    async fn task(
        &self,
        id: u64,
        task: &str,
        body: Body,
        within: Duration,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut request = Request::post("http://worker/").body(Outward::new(body))?;
        request.headers_mut().insert(wire::WORKLOAD, id.into());
        request.headers_mut().insert(wire::TASK, task.parse()?);
        // Not the lane of the asking core: control work runs on none.
        let mut sender = self.lane(id).sender.clone();
        Ok(tokio::time::timeout(within, sender.send_request(request)).await??)
    }

    /// The end of the worker if that is what `error` comes from.
    fn why(&self, error: &dyn std::fmt::Display) -> String {
        match &*self.ended.borrow() {
            Some(ended) => ended.to_string(),
            None => format!("does not answer: {error}"),
        }
    }
}

/// What looks after the process.
struct Keeper {
    /// When guests compute there is not known here.
    _computing: Computing,
    child: Child,
    control: UnixStream,
    connections: JoinSet<Result<(), BoxError>>,
    worker: Weak<Inner>,
    told: watch::Sender<Option<Ended>>,
    end: CancellationToken,
}

/// Waits for the worker's end, or for the end of the need for it; asks what its guests use meanwhile.
async fn keep(keeper: Keeper) {
    let Keeper {
        mut child,
        control,
        mut connections,
        worker,
        told,
        end,
        _computing,
    } = keeper;
    let mut every = tokio::time::interval(USAGE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unanswered = 0;
    let reason = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status.map_or_else(|error| format!("is lost: {error}"), word),
            () = end.cancelled() => {
                // The end of the control socket is the worker's sign to go.
                let _ = control.shutdown(Shutdown::Both);
                if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                }
                told.send_replace(Some(Ended::NotNeeded));
                connections.shutdown().await;
                return;
            }
            // A connection ends only with the process, or because it broke the protocol or did not answer.
            Some(ended) = connections.join_next() => {
                let error = match ended {
                    Ok(Ok(())) => "it closed a connection".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                let gone = tokio::time::timeout(END_WITHIN, child.wait()).await;
                break match gone {
                    Ok(status) => status.map_or_else(|error| format!("is lost: {error}"), word),
                    Err(_) => {
                        let _ = child.start_kill();
                        let _ = child.wait().await;
                        format!("was ended because {error}")
                    }
                };
            }
            _ = every.tick() => {
                let Some(worker) = worker.upgrade() else { continue };
                match worker.ask_usage().await {
                    Ok(()) => unanswered = 0,
                    Err(_) if unanswered + 1 < UNANSWERED_MAX => unanswered += 1,
                    Err(error) => {
                        let _ = child.start_kill();
                        let _ = child.wait().await;
                        break format!("was ended because it did not answer: {error}");
                    }
                }
            }
        }
    };
    // Whoever waits for an answer learns of the end by the connections; why it was, by this. So this goes first.
    let at = tokio::time::Instant::now();
    told.send_replace(Some(Ended::Died { at, reason }));
    connections.shutdown().await;
}

impl Inner {
    async fn ask_usage(&self) -> Result<(), BoxError> {
        let built: Vec<Arc<Remote>> = {
            let mut built = self.built.lock();
            built.retain(|_, remote| remote.strong_count() > 0);
            built.values().filter_map(Weak::upgrade).collect()
        };
        if built.is_empty() {
            return Ok(());
        }
        let usages = async {
            let response = self
                .task(0, wire::USAGE, Body::empty(), ANSWER_WITHIN)
                .await?;
            wire::read::<HashMap<u64, Usage>>(response, wire::USAGE_BYTES_MAX).await
        };
        let usages = tokio::time::timeout(ANSWER_WITHIN, usages).await??;
        for remote in built {
            if let Some(usage) = usages.get(&remote.id) {
                *remote.usage.lock() = *usage;
            }
        }
        Ok(())
    }
}

/// How a process ended, after "it" or "the worker process".
fn word(status: ExitStatus) -> String {
    let signal = status
        .signal()
        .and_then(|signal| Signal::try_from(signal).ok());
    match (signal, status.code()) {
        // The seal answers what no guest of ours does with this.
        (Some(Signal::SIGSYS), _) => "was ended by SIGSYS: it tried what its seal forbids".into(),
        (Some(signal), _) => format!("was ended by {signal}"),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended".into(),
    }
}

/// The worker's own words, line by line.
async fn log(pid: u32, mut stderr: ChildStderr) {
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        for byte in &chunk[..count] {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                let text = String::from_utf8_lossy(&line);
                tracing::warn!(worker = pid, "{}", text.escape_debug());
                line.clear();
            }
        }
    }
}

/// Hands a guest's output to its sinks until the stream ends.
async fn print(mut output: Incoming, mut reader: Reader, printed: watch::Sender<u64>) {
    while let Some(Ok(frame)) = output.frame().await {
        let Ok(data) = frame.into_data() else { break };
        let Some(count) = reader.take(&data) else {
            tracing::warn!("a worker sent output that makes no sense; the rest is not read");
            break;
        };
        printed.send_modify(|printed| *printed += count);
    }
}

/// A component that can be called and run, in a worker. Cheap to clone.
#[derive(Clone)]
pub struct RemoteWorkload {
    inner: Arc<Remote>,
}

struct Remote {
    id: u64,
    name: String,
    limits: Limits,
    /// What it may have of memory now.
    memory_limit: AtomicU64,
    usage: Mutex<Usage>,
    /// Bytes of output that arrived.
    seen: watch::Receiver<u64>,
    /// Its end is the workload's.
    reading: AbortHandle,
    draining: AtomicBool,
    way: OpenWay,
    worker: Worker,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl RemoteWorkload {
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub fn worker(&self) -> &Worker {
        &self.inner.worker
    }

    /// See [`Workload::call`](crate::Workload::call).
    ///
    /// # Errors
    /// The same, and [`Lost`](weft_call::FailureKind::Lost) when the worker is gone or goes meanwhile.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let remote = &self.inner;
        let worker = &remote.worker.inner;
        if remote.draining.load(Relaxed) {
            return Err(failure::stopped());
        }
        if request.method() == Method::CONNECT {
            return Err(failure::bad_request("CONNECT is not for guests"));
        }
        let mut request = absolute(request)?;
        let context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();
        let ours = instance::after(remote.limits.request_timeout + DEADLINE_SLACK);
        let deadline = context
            .deadline
            .and_then(|theirs| theirs.checked_add(DEADLINE_SLACK))
            .map_or(ours, |theirs| ours.min(theirs.into()));
        let lane = worker.lane(remote.id);
        let Ok(permit) = lane.open.clone().try_acquire_owned() else {
            return Err(failure::lane_full());
        };
        let Some(place) = remote.way.enter(&context) else {
            return Err(failure::queue_full());
        };
        let told = context.spent.clone();
        let request = wire::dress(request, remote.id, context, Instant::now())
            .map_err(failure::bad_request)?;
        let mut sender = lane.sender.clone();
        let answer = tokio::time::timeout_at(deadline, sender.try_send_request(request));
        let mut response = match answer.await {
            Err(_) => return Err(failure::deadline()),
            Ok(Err(mut unsent)) => {
                let processed = match unsent.take_message() {
                    Some(_) => Processed::No,
                    None => Processed::Maybe,
                };
                let why = self.why_lost(&unsent.error().to_string()).await;
                return Err(failure::lost(why, processed));
            }
            Ok(Ok(response)) => response,
        };
        wire::take_aside(response.headers_mut(), told.as_ref());
        if !wire::has_failed(&response) {
            return Ok(wire::arrived(response, (permit, place), |error| {
                let reason = format_args!("broke off its answer: {error}");
                failure::lost(reason, Processed::Yes).into()
            }));
        }
        match wire::read::<Refused>(response, wire::ERROR_BYTES_MAX).await {
            Ok(refused) => {
                self.printed(refused.output).await;
                Err(refused.what)
            }
            Err(error) => {
                let why = self.why_lost(&error.to_string()).await;
                Err(failure::lost(why, Processed::Maybe))
            }
        }
    }

    /// See [`Workload::run`](crate::Workload::run).
    pub async fn run(&self) -> Exit {
        let remote = &self.inner;
        let answer = async {
            // A run may take for ever; connection and process are watched by others.
            let forever = Duration::from_secs(u64::from(u32::MAX));
            let response = remote
                .worker
                .inner
                .task(remote.id, wire::RUN, Body::empty(), forever)
                .await?;
            wire::read::<RunEnd>(response, wire::ERROR_BYTES_MAX).await
        };
        match answer.await {
            Ok(ended) => {
                self.printed(ended.output).await;
                ended.what
            }
            Err(error) => Exit::Lost {
                reason: self.why_lost(&error.to_string()).await,
            },
        }
    }

    /// See [`Workload::run_with`](crate::Workload::run_with). A receiver of output that is gone is not told to the guest.
    pub async fn run_with(&self, stdio: Stdio) -> Exit {
        // Nothing of a workload that was built is too large for it.
        let ended = self.stream(None, stdio).await;
        ended.unwrap_or(Exit::NotRunnable)
    }

    /// See [`Workload::session`](crate::Workload::session). `artifact` is one that `engine` compiled, with a cache on disk.
    ///
    /// # Errors
    /// Before anything was started: when its code cannot be brought there.
    pub async fn session(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        session: Session,
        stdio: Stdio,
    ) -> Result<Exit, WorkerError> {
        let worker = &self.inner.worker;
        let code = engine
            .open_code(artifact)
            .map_err(|error| WorkerError::Code {
                reason: error.to_string(),
            })?;
        let load = worker.inner.next_id.fetch_add(1, Relaxed);
        worker.load(load, artifact, code).await?;
        Ok(self.stream(Some(Opened { load, session }), stdio).await?)
    }

    async fn stream(&self, session: Option<Opened>, stdio: Stdio) -> session::Ended {
        let remote = &self.inner;
        let opening = Opening::of(session, &stdio);
        let Stdio {
            stdin,
            stdout,
            stderr,
            terminal,
        } = stdio;
        let told = session::told(&opening, stdin, terminal);
        let answer = async {
            let worker = &remote.worker.inner;
            let response = worker
                .task(remote.id, wire::SESSION, told, ANSWER_WITHIN)
                .await?;
            if wire::has_failed(&response) {
                return Ok(Ok(Exit::Stopped));
            }
            session::hear(response, stdout, stderr).await
        };
        let answer: Result<session::Ended, BoxError> = answer.await;
        match answer {
            Ok(ended) => ended,
            Err(error) => Ok(Exit::Lost {
                reason: self.why_lost(&error.to_string()).await,
            }),
        }
    }

    /// See [`Workload::stop`](crate::Workload::stop).
    pub async fn stop(&self, grace: Duration) {
        let remote = &self.inner;
        remote.draining.store(true, Relaxed);
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let stopped = async {
            let within = grace.saturating_add(ANSWER_WITHIN);
            let body = Body::full(millis.to_string());
            let response = remote
                .worker
                .inner
                .task(remote.id, wire::STOP, body, within)
                .await?;
            wire::read::<Told<()>>(response, wire::ERROR_BYTES_MAX).await
        };
        // Without an answer there is no process, or soon will not be: stopped, too.
        if let Ok(told) = stopped.await {
            self.printed(told.output).await;
        }
    }

    /// See [`Workload::resize`](crate::Workload::resize).
    ///
    /// # Errors
    /// The same, and [`ResizeError::Lost`] when the worker is gone.
    pub async fn resize(&self, to: Allotment) -> Result<(), ResizeError> {
        let remote = &self.inner;
        let worker = &remote.worker.inner;
        let lost = |error: &dyn std::fmt::Display| ResizeError::Lost {
            reason: worker.why(error),
        };
        let text = serde_json::to_vec(&to).map_err(|error| lost(&error))?;
        let asked = worker.task(remote.id, wire::RESIZE, Body::full(text), ANSWER_WITHIN);
        let response = asked.await.map_err(|error| lost(&error))?;
        if wire::has_failed(&response) {
            let error = wire::read::<ResizeError>(response, wire::ERROR_BYTES_MAX).await;
            return Err(error.unwrap_or_else(|error| lost(&error)));
        }
        remote.memory_limit.store(to.memory_bytes, Relaxed);
        Ok(())
    }

    /// What it had used when it was last asked, at most a second or so ago.
    pub fn usage(&self) -> Usage {
        Usage {
            memory_limit_bytes: self.inner.memory_limit.load(Relaxed),
            ..*self.inner.usage.lock()
        }
    }

    /// Waits until everything up to byte `output` of what the guest printed has arrived.
    async fn printed(&self, output: u64) {
        let mut seen = self.inner.seen.clone();
        let arrived = seen.wait_for(|seen| *seen >= output);
        // Elapsed, or the stream has ended: what is missing comes late or never.
        let _ = tokio::time::timeout(OUTPUT_WITHIN, arrived).await;
    }

    /// What `error` means for who was called: the end of the worker is known a moment after its connections end.
    async fn why_lost(&self, error: &str) -> String {
        let worker = &self.inner.worker.inner;
        let mut ended = worker.ended.clone();
        let known = ended.wait_for(Option::is_some);
        // Elapsed: the connection failed and the process is still there; `why` says that.
        let _ = tokio::time::timeout(END_WITHIN, known).await;
        worker.why(&error)
    }
}

impl std::fmt::Debug for RemoteWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWorkload")
            .field("name", &self.inner.name)
            .field("worker", &self.inner.worker)
            .finish()
    }
}
