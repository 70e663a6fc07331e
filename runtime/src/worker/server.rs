//! The worker's side: an engine, its cores, and the workloads it was told to build.
//!
//! In this order: close and limit, take the sockets, build everything that needs the file system or new threads, seal,
//! answer. Only then does code arrive, and only then guests run. When the control socket ends, the process does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tower::service_fn as outbound_fn;
use weft_call::{CallContext, Failure, FailureKind, Spent};

use super::client::WireSetup;
use super::control::{self, Command, Reply};
use super::output::{Output, OutputBody};
use super::sandbox;
use super::session::{self, Frames};
use super::wire::{self, Outward, Refused, RunEnd, STREAMS_MAX, Sender, Side, Told};
use crate::artifact::{Artifact, Digest};
use crate::body::{Body, BoxError};
use crate::capability::{ChannelError, Channels};
use crate::cores::Cores;
use crate::engine::{Calls, Engine, EngineBuilder};
use crate::failure;
use crate::host::http::Outbound;
use crate::limits::{ResizeError, Usage};
use crate::scheduling::Rank;
use crate::setup::Setup;
use crate::workload::{Workload, WorkloadError};

/// The worker's whole life. Call it first thing in a process that [`Worker::start`] started, before any other thread.
///
/// `engine` has the options of the engine that compiled what will be run; a cache or a compiler is of no use here.
///
/// [`Worker::start`]: crate::worker::Worker::start
pub fn worker_main(engine: EngineBuilder) -> ExitCode {
    match live(engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            ExitCode::FAILURE
        }
    }
}

fn live(engine: EngineBuilder) -> Result<(), BoxError> {
    sandbox::limit()?;
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let Some((Command::Start, sockets)) = control::receive(&control)? else {
        return Err("the first command was not to start".into());
    };
    let worker = match prepare(engine, sockets) {
        Ok(worker) => worker,
        Err(error) => {
            let reason = error.to_string();
            control::send(&control, &Reply::Failed { reason }, &[])?;
            return Err(error);
        }
    };
    control::send(&control, &Reply::Done, &[])?;
    while let Some((command, files)) = control::receive(&control)? {
        let done = match command {
            Command::Start => Err("it has started already".into()),
            Command::Load { id, digest, calls } => worker.load(id, &digest, calls, files),
        };
        let reply = match done {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed {
                reason: error.to_string(),
            },
        };
        control::send(&control, &reply, &[])?;
    }
    Ok(())
}

/// Everything up to the seal.
fn prepare(engine: EngineBuilder, sockets: Vec<OwnedFd>) -> Result<Arc<Hosted>, BoxError> {
    let engine = engine.build()?;
    let cores = Cores::start(sockets.len() / 2)?;
    // Threads of either rank, while they can still choose how they are scheduled.
    engine.away(Rank::Idle);
    let (ready, readied) = mpsc::channel();
    let worker = Arc::new(Hosted {
        engine,
        loaded: Mutex::default(),
        workloads: RwLock::default(),
        lanes: RwLock::default(),
        _cores: cores.clone(),
    });
    let mut sockets = sockets.into_iter().map(UnixStream::from);
    let mut core = 0;
    while let (Some(calls), Some(outbound)) = (sockets.next(), sockets.next()) {
        // Before the seal, which the task below would race.
        for socket in [&calls, &outbound] {
            socket.set_nonblocking(true)?;
        }
        let (served, ready) = (worker.clone(), ready.clone());
        cores.spawn_on(core, async move {
            let (sender, connection) = match wire::ask(outbound, Side::Worker).await {
                Ok(connected) => connected,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let serving = wire::answer(
                calls,
                Side::Worker,
                service_fn(move |request| {
                    let served = served.clone();
                    async move { Ok::<_, Infallible>(answer(&served, request).await) }
                }),
            );
            let lane = Lane {
                sender,
                open: Arc::new(Semaphore::new(STREAMS_MAX)),
            };
            // Gone only if the start has failed.
            let _ = ready.send(Ok((core, lane)));
            // The other side closes both together, and the control socket with them.
            let _ = tokio::join!(connection, serving);
        });
        core += 1;
    }
    drop(ready);
    let mut lanes = Vec::new();
    for lane in readied {
        lanes.push(lane?);
        if lanes.len() == core {
            break;
        }
    }
    lanes.sort_by_key(|(core, _)| *core);
    *worker.lanes.write() = lanes.into_iter().map(|(_, lane)| lane).collect();
    sandbox::seal()?;
    Ok(worker)
}

struct Hosted {
    engine: Engine,
    /// Artefacts that wait for the workload they were sent for.
    loaded: Mutex<HashMap<u64, Artifact>>,
    workloads: RwLock<HashMap<u64, Guest>>,
    lanes: RwLock<Arc<[Lane]>>,
    _cores: Cores,
}

/// The way out of one core.
struct Lane {
    sender: Sender,
    open: Arc<Semaphore>,
}

#[derive(Clone)]
struct Guest {
    workload: Workload,
    output: Output,
}

impl Hosted {
    fn load(
        &self,
        id: u64,
        digest: &str,
        calls: Calls,
        files: Vec<OwnedFd>,
    ) -> Result<(), BoxError> {
        let digest = Digest::parse(digest).ok_or("that is no digest")?;
        let file = files.into_iter().next().ok_or("no code came with it")?;
        let artifact = self.engine.adopt(digest, calls, || {
            let mut code = Vec::new();
            File::from(file).read_to_end(&mut code)?;
            Ok(code)
        })?;
        self.loaded.lock().insert(id, artifact);
        Ok(())
    }

    fn guest(&self, id: u64) -> Option<Guest> {
        self.workloads.read().get(&id).cloned()
    }
}

async fn answer(worker: &Arc<Hosted>, request: Request<Incoming>) -> Response<Outward> {
    let id = wire::workload_of(request.headers()).unwrap_or_default();
    let task = wire::task_of(request.headers()).map(str::to_owned);
    match task.as_deref() {
        None => match worker.guest(id) {
            Some(guest) => call(guest, request).await,
            // Only between the last word about a workload and the first call that has not heard it.
            None => wire::failed(&Refused {
                what: failure::stopped(),
                output: 0,
            }),
        },
        Some(wire::USAGE) => {
            let usages: HashMap<u64, Usage> = worker
                .workloads
                .read()
                .iter()
                .map(|(id, guest)| (*id, guest.workload.usage()))
                .collect();
            wire::said(&usages)
        }
        Some(wire::BUILD) => match build(worker, id, request).await {
            Some(Ok(output)) => Response::new(Outward::new(output)),
            Some(Err(error)) => wire::failed(&error),
            // Nothing that our other side would send.
            None => wire::failed(&()),
        },
        Some(wire::RUN) => match worker.guest(id) {
            Some(guest) => {
                let what = guest.workload.run().await;
                let output = guest.output.total();
                wire::said(&RunEnd { what, output })
            }
            None => wire::failed(&()),
        },
        Some(wire::SESSION) => {
            let mut frames = Frames::new(request.into_body());
            match (worker.guest(id), session::open(&mut frames).await) {
                (Some(guest), Ok(opening)) => {
                    let loaded = |load| worker.loaded.lock().remove(&load);
                    session::run(guest.workload, opening, loaded, frames)
                }
                _ => wire::failed(&()),
            }
        }
        Some(wire::RESIZE) => {
            let body = request.into_body().collect().await.ok();
            let to = body.and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
            match (worker.guest(id), to) {
                (Some(guest), Some(to)) => match guest.workload.resize(to) {
                    Ok(()) => wire::said(&()),
                    Err(error) => wire::failed(&error),
                },
                _ => wire::failed(&ResizeError::Lost {
                    reason: "does not have it any more".to_owned(),
                }),
            }
        }
        Some(wire::STOP) => {
            let grace = request.into_body().collect().await;
            let grace = grace.ok().and_then(|grace| {
                let text = String::from_utf8(grace.to_bytes().to_vec()).ok()?;
                Some(Duration::from_millis(text.parse().ok()?))
            });
            let mut output = 0;
            if let Some(guest) = worker.guest(id) {
                guest.workload.stop(grace.unwrap_or_default()).await;
                output = guest.output.total();
            }
            wire::said(&Told { what: (), output })
        }
        Some(_) => wire::failed(&()),
    }
}

async fn call(guest: Guest, request: Request<Incoming>) -> Response<Outward> {
    let (mut request, mut context) = wire::undress(request, Instant::now());
    let told = Spent::default();
    context.spent = Some(told.clone());
    request.extensions_mut().insert(context);
    let mut answer = match guest.workload.call(request).await {
        Ok(response) => wire::delivered(response, Vec::new()),
        Err(what) => wire::failed(&Refused {
            what,
            output: guest.output.total(),
        }),
    };
    wire::tell_aside(&told, answer.headers_mut());
    answer
}

/// Builds a workload; the body is what it prints, and its end is the workload's.
async fn build(
    worker: &Arc<Hosted>,
    id: u64,
    request: Request<Incoming>,
) -> Option<Result<Body, WorkloadError>> {
    let artifact = worker.loaded.lock().remove(&id)?;
    let text = request.into_body().collect().await.ok()?.to_bytes();
    let setup: WireSetup = serde_json::from_slice(&text).ok()?;
    let output = Output::default();
    let lanes = worker.lanes.read().clone();
    let channels = channels(lanes.clone(), id);
    let grants = worker.engine.capabilities();
    let grants = match grants.unpack(&setup.grants, &channels) {
        Ok(grants) => grants,
        Err(error) => {
            tracing::error!(%error, "what a workload is granted cannot be had here");
            return None;
        }
    };
    let builder = Workload::builder(&worker.engine, &artifact).setup(Setup {
        config: setup.config,
        stdout: output.stdout(),
        stderr: output.stderr(),
        outbound: setup.outbound.then(|| outbound(lanes, id)),
        network: None,
        events: Some(output.faults()),
        grants,
    });
    let workload = match builder.build() {
        Ok(workload) => workload,
        Err(error) => return Some(Err(error)),
    };
    let guest = Guest {
        workload,
        output: output.clone(),
    };
    worker.workloads.write().insert(id, guest);
    let hosted = Hosting {
        worker: worker.clone(),
        id,
    };
    Some(Ok(Body::new(OutputBody::new(output, hosted))))
}

/// Held by whoever reads a workload's output: the other side, for as long as it wants the workload.
struct Hosting {
    worker: Arc<Hosted>,
    id: u64,
}

impl Drop for Hosting {
    fn drop(&mut self) {
        let guest = self.worker.workloads.write().remove(&self.id);
        if let Some(guest) = guest {
            guest.output.close();
            // The stream lives on a core, and so does its end; otherwise the process is about to end.
            if let Ok(here) = tokio::runtime::Handle::try_current() {
                here.spawn(async move { guest.workload.stop(Duration::ZERO).await });
            }
        }
    }
}

/// The way of a workload's capabilities to their other halves: over the lane of the asking core.
fn channels(lanes: Arc<[Lane]>, id: u64) -> Channels {
    Channels::new(move |capability, method, message| {
        let lane = &lanes[Cores::current().unwrap_or_default() % lanes.len()];
        let (mut sender, place) = (lane.sender.clone(), lane.open.clone().try_acquire_owned());
        let request = wire::message(id, capability, method, message);
        Box::pin(async move {
            let place = place.map_err(|_| ChannelError::Busy)?;
            let failed = |error: &dyn std::fmt::Display| ChannelError::Failed {
                reason: error.to_string(),
            };
            let request = request.map_err(|error| failed(&error))?;
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| failed(&error))?;
            if !wire::has_failed(&answer) {
                return Ok(wire::arrived(answer, place, Into::into).into_body());
            }
            let error = wire::read(answer, wire::ERROR_BYTES_MAX).await;
            Err(error.unwrap_or_else(|error| failed(&error)))
        })
    })
}

/// A guest's way out: over the lane of its core, to the other side.
fn outbound(lanes: Arc<[Lane]>, id: u64) -> Outbound {
    Outbound::new(outbound_fn(move |mut request: Request<Body>| {
        let lanes = lanes.clone();
        async move {
            let lane = &lanes[Cores::current().unwrap_or_default() % lanes.len()];
            let Ok(permit) = lane.open.clone().try_acquire_owned() else {
                return Err(FailureKind::LimitReached.into());
            };
            let context = request
                .extensions_mut()
                .remove::<CallContext>()
                .unwrap_or_default();
            let request = wire::dress(request, id, context, Instant::now())
                .map_err(|_| Failure::from(FailureKind::BadRequest))?;
            let mut sender = lane.sender.clone();
            let response = sender.send_request(request).await.map_err(|error| {
                let kind = match error.is_user() {
                    true => FailureKind::BodyBroken,
                    false => FailureKind::Interrupted,
                };
                Failure::new(kind, error.to_string())
            })?;
            if !wire::has_failed(&response) {
                return Ok(wire::arrived(response, permit, |error| {
                    Failure::new(FailureKind::Interrupted, error.to_string()).into()
                }));
            }
            Err(wire::read(response, wire::ERROR_BYTES_MAX)
                .await
                .unwrap_or_else(|error| Failure::new(FailureKind::Interrupted, error.to_string())))
        }
    }))
}
