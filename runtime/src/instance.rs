//! One instance: start it, hand it calls, watch it, end it.
//!
//! An instance at work is a tokio task on the core that needed it, unless it is done before it needs one. The task polls two things. Inside is the guest, with a
//! [`Driver`] that takes calls for it. Outside are the word that a call has arrived, and [`Watch`]:
//! callers that gave up, deadlines, the end of the workload. It is outside because a busy guest keeps the inside from
//! polling anything else; and it ends an instance in the only way there is, by dropping the store.
//!
//! Invariants: each [`Job`] is answered exactly once; a body that the guest did not end does not look whole; no instance
//! survives a trap, a call past its deadline, a call without a response, a response that nobody reads, or (when it handles one
//! call at a time) a caller that left; an idle instance ends by itself; a call counts as never begun only if its instance could
//! not be started.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, Sleep};
use wasmtime::component::Accessor;
use wasmtime::{PoolConcurrencyLimitError, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::{WasiBody, p3};
use weft_call::{CallContext, Failure, FailureKind};
use weft_turns::Turn;

use crate::account::Refusal;
use crate::alive::Alive;
use crate::artifact::{ArtifactError, Wasi};
use crate::body::{Body, BoxError};
use crate::driver::Driver;
use crate::events::Event;
use crate::failure;
use crate::host::{HostState, new_store};
use crate::limits::Slice;
use crate::scheduling::{Computing, Rank};
use crate::spare::{Spare, Spares, keep};
use crate::workload::{Inner, InstancePolicy};

/// A call on its way to an instance.
pub(crate) struct Job {
    pub(crate) request: Request<Body>,
    pub(crate) slot: Arc<CallSlot>,
    /// Held until the guest is done with the call.
    pub(crate) permit: OwnedSemaphorePermit,
}

type Answer = Result<Response<GuestBody>, Failure>;

/// What the caller and the instance share about one call.
pub(crate) struct CallSlot {
    pub(crate) context: Arc<CallContext>,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
    /// Why the guest never came to the end of its response's body.
    fault: OnceLock<Failure>,
    phase: AtomicU8,
    /// The guest's handler has returned. (With 0.3 it may still be writing the body.)
    returned: AtomicBool,
    /// How often the caller has asked for more of a body that came in parts; zero for one that came whole.
    reads: AtomicU32,
    watcher: AtomicWaker,
}

/// How far the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waiting for the response, or reading it.
    Open = 0,
    /// The caller has all it wanted.
    Delivered = 1,
    /// The caller left before the end.
    Left = 2,
    /// The caller's time ran out.
    Expired = 3,
}

impl CallSlot {
    pub(crate) fn new(context: Arc<CallContext>) -> (Arc<CallSlot>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let slot = CallSlot {
            context,
            answer: Mutex::new(Some(sender)),
            fault: OnceLock::new(),
            phase: AtomicU8::new(Phase::Open as u8),
            returned: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            watcher: AtomicWaker::new(),
        };
        (Arc::new(slot), receiver)
    }

    /// The caller is done; the instance learns of it at once.
    pub(crate) fn close(&self, phase: Phase) {
        self.phase.store(phase as u8, SeqCst);
        self.watcher.wake();
    }

    /// The response comes in parts: from now on the instance watches that they are read.
    pub(crate) fn stream(&self) {
        self.read();
        self.watcher.wake();
    }

    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Relaxed);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(SeqCst) {
            0 => Phase::Open,
            1 => Phase::Delivered,
            2 => Phase::Left,
            _ => Phase::Expired,
        }
    }

    /// What the guest still does belongs to no call any more.
    pub(crate) fn is_over(&self) -> bool {
        self.returned.load(Relaxed) && self.phase() != Phase::Open
    }

    fn is_answered(&self) -> bool {
        self.answer.lock().is_none()
    }

    /// Its response's body has paused for too long, on either side, or has become too large.
    pub(crate) fn overrun(&self, workload: &Inner, fault: &Failure) {
        // The first reason is the reason, and the one that is told.
        if self.fault.set(fault.clone()).is_ok() {
            if fault.kind == FailureKind::Deadline {
                workload.counters().deadlines.fetch_add(1, Relaxed);
            }
            workload.tell_broken_off(fault);
        }
    }

    /// Answers the caller. False when that has been done already.
    pub(crate) fn answer(&self, answer: impl FnOnce() -> Answer) -> bool {
        let sender = self.answer.lock().take();
        let is_first = sender.is_some();
        if let Some(sender) = sender {
            // A caller that left does not listen any more.
            let _ = sender.send(answer());
        }
        is_first
    }
}

/// The calls that wait for, and the instances that wait on, one core.
#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) spares: Spares,
    waiting: Mutex<Waiting>,
    /// A call has, or idle instances are to end.
    arrived: Notify,
    /// How often idle instances were told to end.
    ends: AtomicU32,
}

#[derive(Default)]
struct Waiting {
    jobs: std::collections::VecDeque<Job>,
    /// Instances that would take another call.
    available: usize,
}

impl Shard {
    /// Ends the instances that wait here: values are gone when this returns, tasks end themselves as soon as their core gets to
    /// them.
    pub(crate) fn end_idle(&self) {
        self.spares.end_waiting();
        self.ends.fetch_add(1, Relaxed);
        self.arrived.notify_waiters();
    }

    /// See [`Shard::end_idle`].
    pub(crate) fn ends(&self) -> u32 {
        self.ends.load(Relaxed)
    }

    pub(crate) fn take(&self) -> Option<Job> {
        self.waiting.lock().jobs.pop_front()
    }

    /// One instance less that would take calls. When it was the last, the calls that wait are for others to start.
    pub(crate) fn withdraw(&self) -> std::collections::VecDeque<Job> {
        let mut waiting = self.waiting.lock();
        waiting.available -= 1;
        if waiting.available == 0 {
            return std::mem::take(&mut waiting.jobs);
        }
        let more = !waiting.jobs.is_empty();
        drop(waiting);
        if more {
            // The word that these had arrived may have reached this instance, which will not take them.
            self.arrived.notify_one();
        }
        Default::default()
    }
}

/// Gives a call to a waiting instance of this core, or starts one.
pub(crate) fn submit(workload: &Arc<Inner>, job: Job) {
    if workload.policy() == InstancePolicy::PerRequest {
        start(workload, None, job, None);
        return;
    }
    let shard = workload.shard();
    if workload.artifact().kind().http == Some(Wasi::P2) {
        start(workload, Some(shard.clone()), job, shard.spares.take());
        return;
    }
    let mut waiting = shard.waiting.lock();
    if waiting.available == 0 {
        drop(waiting);
        start(workload, Some(shard.clone()), job, None);
    } else {
        waiting.jobs.push_back(job);
        drop(waiting);
        shard.arrived.notify_one();
    }
}

/// Has `spare` take a call, or a new instance. A guest that waits for nothing has answered when this returns.
pub(crate) fn start(
    workload: &Arc<Inner>,
    shard: Option<Arc<Shard>>,
    job: Job,
    spare: Option<Spare>,
) {
    let Ok(home) = Handle::try_current() else {
        // Only while the runtime of this thread is being taken down.
        job.slot.answer(|| Err(failure::stopped()));
        return;
    };
    let mut work = Box::pin(run(workload.clone(), shard, job, spare, home.clone()));
    // Most are done after the first poll, so that a task would cost more than it does. Not inside of another guest: its stack
    // and its account are its own.
    let here = !Slice::anyone_runs();
    if here
        && work
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    {
        return;
    }
    live(Life::new(workload.clone(), work, home));
}

/// How often a call whose instance finds that its memory was taken meanwhile looks for some again.
const STARTS_MAX: u32 = 4;

/// Interruptions in a row after which a guest computes elsewhere.
const STREAK_BEFORE_LEAVING: u32 = 2;

/// An instance and where it is polled: at home, on the core of its caller, or away while it computes for long. At home
/// it would hold up every neighbour for a tick at a time; the kernel shares a processor between threads better.
pub(crate) struct Life {
    workload: Arc<Inner>,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    home: Handle,
    rank: Rank,
    /// While it is away.
    _computing: Option<Computing>,
}

impl Life {
    pub(crate) fn new(
        workload: Arc<Inner>,
        work: Pin<Box<dyn Future<Output = ()> + Send>>,
        home: Handle,
    ) -> Life {
        Life {
            workload,
            work,
            home,
            rank: Rank::Core,
            _computing: None,
        }
    }

    /// Where it goes on after it was polled, and interrupted for the `streak`th time in a row or not.
    fn next_rank(&self, streak: u32, preempted: bool) -> Rank {
        match self.rank {
            Rank::Core if streak < STREAK_BEFORE_LEAVING => Rank::Core,
            _ if !preempted => Rank::Core,
            _ if self.workload.cpu().has_reserve() => Rank::Reserved,
            _ => Rank::Idle,
        }
    }
}

/// Starts `life` at home.
pub(crate) fn live(life: Life) {
    let home = life.home.clone();
    live_at(life, &home);
}

fn live_at(life: Life, here: &Handle) {
    let mut life = Some(life);
    let mut streak = 0;
    let stay = poll_fn(move |cx| {
        let Some(lived) = &mut life else {
            return Poll::Ready(()); // It goes on elsewhere.
        };
        Slice::ask();
        if lived.work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(preempted) = Slice::last_was_preempted() else {
            return Poll::Pending; // It waits for its turn.
        };
        streak = if preempted { streak + 1 } else { 0 };
        let rank = lived.next_rank(streak, preempted);
        if rank == lived.rank {
            return Poll::Pending;
        }
        let engine = lived.workload.engine();
        let next = match rank {
            Rank::Core => Some(lived.home.clone()),
            away => engine.away(away).cloned(),
        };
        let Some(next) = next else {
            return Poll::Pending;
        };
        if let Some(mut moved) = life.take() {
            moved._computing = (rank != Rank::Core).then(Computing::new);
            moved.rank = rank;
            live_at(moved, &next);
        }
        Poll::Ready(())
    });
    drop(here.spawn(stay));
}

/// One call to an instance of WASI 0.2, or the life of one of 0.3.
async fn run(
    workload: Arc<Inner>,
    shard: Option<Arc<Shard>>,
    first: Job,
    spare: Option<Spare>,
    home: Handle,
) {
    let shared = Shared::default();
    shared.follow(&first.slot);
    let ended = {
        // Declared first, so that it ends last.
        let _teardown;
        let work = async {
            let driver = Driver {
                workload: &workload,
                shard: shard.as_ref(),
                shared: &shared,
                home: &home,
            };
            match spare {
                Some(spare) => serve(&driver, spare, first).await,
                // Apart, so that a call on a spare does not carry the weight of an instantiation.
                None => Box::pin(begin(&driver, first)).await,
            }
        };
        let mut work = pin!(work);
        let mut stopped = pin!(workload.stopping().cancelled());
        let mut watch = Watch {
            workload: &workload,
            shared: &shared,
            background: None,
            reading: None,
        };
        // Only while the instance takes calls: who is not listening takes no word of one from those who are.
        let mut arrived = pin!(None::<Notified<'_>>);
        let mut turn = Turn::of(workload.cpu().tenant());
        let ended = poll_fn(|cx| {
            let has_waited = turn.is_waited_for();
            ready!(turn.poll(cx));
            if has_waited {
                // Its caller may have gone meanwhile, or its time.
                if stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(failure::stopped_at_work()));
                }
                if let Poll::Ready(error) = watch.poll(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            loop {
                if let Some(word) = arrived.as_mut().as_pin_mut()
                    && word.poll(cx).is_ready()
                {
                    arrived.set(None);
                }
                let (polled, preempted) = {
                    let _running = workload.engine().ticker().run();
                    let _slice = Slice::start(workload.cpu());
                    let polled = work.as_mut().poll(cx);
                    (polled, Slice::last_was_preempted() == Some(true))
                };
                if let Poll::Ready(result) = polled {
                    return Poll::Ready(result);
                }
                let settled = !preempted && !shared.settled.swap(true, Relaxed);
                if let Some(shard) = shard
                    .as_ref()
                    .filter(|_| settled && shared.able.load(Relaxed))
                    && shared.offer(shard)
                {
                    continue; // Calls are waiting, and now there is room for one of them.
                }
                if stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(failure::stopped_at_work()));
                }
                let was_retiring = shared.retiring.load(Relaxed);
                if let Poll::Ready(error) = watch.poll(cx) {
                    return Poll::Ready(Err(error));
                }
                if was_retiring != shared.retiring.load(Relaxed) {
                    continue; // The inside has to stop taking calls.
                }
                let Some(shard) = shard.as_ref().filter(|_| shared.available.load(Relaxed)) else {
                    arrived.set(None);
                    return Poll::Pending;
                };
                if arrived.is_none() {
                    arrived.set(Some(shard.arrived.notified()));
                }
                if let Some(word) = arrived.as_mut().as_pin_mut()
                    && word.poll(cx).is_pending()
                {
                    return Poll::Pending;
                }
                arrived.set(None);
            }
        })
        .await
        .map_err(|error| shared.break_off(&workload, error));
        // The store is dropped here, which may take a while and is the guest's doing, too.
        _teardown = Slice::start(workload.cpu());
        ended
    };
    let error = match ended {
        Ok(()) => failure::no_response(),
        Err(error) => error,
    };
    for active in shared.active.into_inner() {
        active.slot.answer(|| Err(error.clone()));
    }
}

/// Has a new instance answer a call, and one of WASI 0.3 further ones.
async fn begin(driver: &Driver<'_>, first: Job) -> Result<(), Failure> {
    let workload = driver.workload;
    let refused = Arc::new(AtomicBool::new(false));
    let failed = |stage| {
        let refused = refused.clone();
        move |error| failed(driver, &error, stage, refused.load(Relaxed))
    };
    let code = workload.artifact().code(workload.engine()).await;
    let code = code.map_err(|error| failed(Stage::Start)(error.into()))?;
    let pre = code.http().ok_or_else(failure::not_callable)?;
    let mut tries = 0;
    let (mut alive, mut store, guest) = loop {
        let alive = Alive::for_call(workload).await?;
        let mut store = new_store(workload, code.engine(), refused.clone());
        let error = match pre.instantiate_async(&mut store).await {
            Ok(guest) => break (alive, store, guest),
            Err(error) => error,
        };
        if !refused.load(Relaxed) || !workload.has_instances_beside(1) {
            return Err(failed(Stage::Start)(error));
        }
        refused.store(false, Relaxed);
        // Somebody else was faster to the last memory.
        tries += 1;
        if tries == STARTS_MAX {
            workload.counters().overloaded.fetch_add(1, Relaxed);
            return Err(failure::no_memory_left(workload.memory_limit()));
        }
    };
    match guest {
        Proxy::P2(guest) => {
            let fresh = Spare {
                store,
                guest,
                refused: refused.clone(),
                served: 0,
                alive,
            };
            serve(driver, fresh, first).await
        }
        Proxy::P3(guest) => {
            let seat = &mut alive.seat;
            let ended = store
                .run_concurrent(async |accessor: &Accessor<HostState>| {
                    driver.side_by_side(accessor, &guest, first, seat).await
                })
                .await;
            ended.flatten().map_err(failed(Stage::Run))
        }
    }
}

/// Has an instance of WASI 0.2 answer a call, and keeps it for the next one if it may have one.
async fn serve(driver: &Driver<'_>, mut spare: Spare, job: Job) -> Result<(), Failure> {
    let workload = driver.workload;
    let answered = driver.answer(&mut spare.store, &spare.guest, job).await;
    // Given back once the instance waits for the next call, or is gone.
    let (has_answered, _place) = answered
        .map_err(|error| failed(driver, &error, Stage::Run, spare.refused.load(Relaxed)))?;
    if !has_answered {
        // Whatever is wrong with it, the next call would find the same.
        workload.counters().no_response.fetch_add(1, Relaxed);
        return Ok(());
    }
    spare.served += 1;
    let Some(shard) = driver.shard else {
        return Ok(());
    };
    let wanted = spare.served < workload.policy().requests_max()
        && !driver.shared.retiring.load(Relaxed)
        && !workload.stopping().is_cancelled();
    if wanted {
        keep(workload, shard, spare, driver.home);
    }
    Ok(())
}

/// Tells everyone why the instance has failed. Before its store goes: bodies end with that, as if the guest had ended them.
fn failed(
    driver: &Driver<'_>,
    error: &wasmtime::Error,
    stage: Stage,
    refused_memory: bool,
) -> Failure {
    let error = fault(driver.workload, error, stage, refused_memory);
    driver.shared.tell(driver.workload, &error);
    driver.shared.break_off(driver.workload, error)
}

/// How far an instance had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It was being made: no call has reached the guest.
    Start,
    /// It was working on calls, which may have had effects.
    Run,
}

/// Why an instance ended, for its callers; counted.
pub(crate) fn fault(
    workload: &Inner,
    error: &wasmtime::Error,
    stage: Stage,
    refused_memory: bool,
) -> Failure {
    let counters = workload.counters();
    let room = match error.downcast_ref::<PoolConcurrencyLimitError>() {
        Some(limit) => Some(limit.to_string()),
        None => error.downcast_ref::<Refusal>().map(Refusal::to_string),
    };
    match (room, stage) {
        (Some(reason), Stage::Start) => {
            counters.overloaded.fetch_add(1, Relaxed);
            return failure::no_instance(reason);
        }
        (Some(reason), Stage::Run) => return failure::exhausted(reason),
        (None, _) => {}
    }
    if let Some(error) = error.downcast_ref::<ArtifactError>() {
        return failure::not_loaded(error);
    }
    if refused_memory {
        counters.out_of_memory.fetch_add(1, Relaxed);
        return failure::out_of_memory(workload.memory_limit());
    }
    let (message, backtrace) = trapped(workload, error);
    failure::trap(&message, backtrace)
}

/// Counts a trap, tells of it, and explains it.
pub(crate) fn trapped(workload: &Inner, error: &wasmtime::Error) -> (String, String) {
    workload.counters().traps.fetch_add(1, Relaxed);
    let (message, backtrace) = explain(error);
    if let Some(events) = workload.events() {
        events.tell(Event::Trapped {
            message: message.clone(),
            backtrace: backtrace.clone(),
        });
    }
    (message, backtrace)
}

/// A trap's message and the guest's stack, one frame a line.
fn explain(error: &wasmtime::Error) -> (String, String) {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        let message = match code {
            0 => "the guest called exit".to_owned(),
            // WASI 0.2 has no codes: this is any but success.
            1 => "the guest called exit with an error".to_owned(),
            code => format!("the guest called exit({code})"),
        };
        return (message, String::new());
    }
    let backtrace = error
        .downcast_ref::<WasmBacktrace>()
        .map(ToString::to_string)
        .unwrap_or_default();
    // The first line only says what follows.
    let frames = backtrace.split_once('\n').map_or("", |(_, frames)| frames);
    (error.root_cause().to_string(), frames.to_owned())
}

/// What the inside and the outside of an instance's task share.
#[derive(Default)]
pub(crate) struct Shared {
    active: Mutex<Vec<Active>>,
    /// The event loop has come to rest since the last call was accepted: the guest waits for something.
    pub(crate) settled: AtomicBool,
    /// The inside takes another call as soon as the event loop has come to rest.
    pub(crate) able: AtomicBool,
    /// Counted among the shard's instances that would take another call.
    pub(crate) available: AtomicBool,
    /// Nothing goes on in the guest.
    pub(crate) idle: AtomicBool,
    /// No further calls.
    pub(crate) retiring: AtomicBool,
}

impl Shared {
    /// Tells the embedder of a guest's fault, once for each response that breaks off with it. A fault that no call is there for is
    /// told once.
    fn tell(&self, workload: &Inner, fault: &Failure) {
        if !matches!(
            fault.kind,
            FailureKind::Trap | FailureKind::OutOfMemory | FailureKind::Exhausted
        ) {
            return;
        }
        let ends_by_returning = workload.artifact().kind().http == Some(Wasi::P2);
        let (mut broken, mut returns) = (0, false);
        for call in self.active.lock().iter() {
            let whole = call.returned && ends_by_returning;
            let is_answered = call.slot.is_answered();
            returns |= !is_answered;
            broken += usize::from(is_answered && !whole && call.slot.fault.get().is_none());
        }
        if broken == 0 && !returns {
            broken = 1;
        }
        for _ in 0..broken {
            workload.tell_broken_off(fault);
        }
    }

    /// Tells the callers that are reading why there is no more to come. A guest of WASI 0.2 that has returned has ended its
    /// body; one of 0.3 may not have, and who has not read to the end cannot know.
    fn break_off(&self, workload: &Inner, error: Failure) -> Failure {
        let ends_by_returning = workload.artifact().kind().http == Some(Wasi::P2);
        for call in self.active.lock().iter() {
            if !(call.returned && ends_by_returning) {
                // The first reason is the reason.
                let _ = call.slot.fault.set(error.clone());
            }
        }
        error
    }

    /// How many calls are not over.
    pub(crate) fn open_calls(&self) -> usize {
        self.active.lock().len()
    }

    /// A call begins.
    pub(crate) fn follow(&self, slot: &Arc<CallSlot>) {
        self.active.lock().push(Active {
            slot: slot.clone(),
            returned: false,
            reads: 0,
        });
    }

    /// The guest's handler has returned from a call.
    pub(crate) fn returned(&self, slot: &Arc<CallSlot>) {
        let mut active = self.active.lock();
        if let Some(call) = active.iter_mut().find(|call| Arc::ptr_eq(&call.slot, slot)) {
            call.returned = true;
        }
        slot.returned.store(true, Relaxed);
    }

    /// Counts the instance among those that would take another call. True when one is waiting.
    pub(crate) fn offer(&self, shard: &Shard) -> bool {
        let mut waiting = shard.waiting.lock();
        if !self.available.swap(true, Relaxed) {
            waiting.available += 1;
        }
        !waiting.jobs.is_empty()
    }
}

struct Active {
    slot: Arc<CallSlot>,
    /// The guest's handler has returned. (With 0.3 it may still be writing the body.)
    returned: bool,
    /// How often its caller had read when that was last looked at.
    reads: u32,
}

/// The outside.
struct Watch<'a> {
    workload: &'a Inner,
    shared: &'a Shared,
    background: Option<Pin<Box<Sleep>>>,
    /// While bodies are read in parts: until when each has to be read from.
    reading: Option<Pin<Box<Sleep>>>,
}

impl Watch<'_> {
    /// Ends the calls whose callers have stopped to read, which would hold the instance for ever.
    fn poll_readers(&mut self, cx: &mut Context<'_>) {
        let mut active = self.shared.active.lock();
        let mut streams = active
            .iter_mut()
            .filter(|call| call.slot.phase() == Phase::Open && call.slot.reads.load(Relaxed) > 0)
            .peekable();
        if streams.peek().is_none() {
            self.reading = None;
            return;
        }
        let patience = self.workload.limits().body_idle_timeout;
        let timer = self
            .reading
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(after(patience))));
        if timer.as_mut().poll(cx).is_pending() {
            return;
        }
        for call in streams {
            let reads = call.slot.reads.load(Relaxed);
            if std::mem::replace(&mut call.reads, reads) == reads {
                call.slot.overrun(self.workload, &failure::deadline());
                call.slot.close(Phase::Expired);
            }
        }
        timer.as_mut().reset(after(patience));
        // Registers the wake-up; it is not due.
        let _ = timer.as_mut().poll(cx);
    }

    /// Ready when the instance has to end now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        self.poll_readers(cx);
        let one_at_a_time = self.workload.policy().concurrent_max() == 1;
        let (mut open, mut expired) = (false, false);
        {
            let mut active = self.shared.active.lock();
            let mut ended = false;
            active.retain(|call| {
                call.slot.watcher.register(cx.waker());
                match call.slot.phase() {
                    Phase::Open => open = true,
                    Phase::Delivered => return !call.returned,
                    // A caller that turns away after the guest has returned takes nothing from the call that may run by now.
                    Phase::Left if one_at_a_time && !call.returned => ended = true,
                    // With several calls in one instance, the guest sees that the stream is closed and goes on.
                    Phase::Left => return !call.returned,
                    Phase::Expired => expired = true,
                }
                true
            });
            if ended || (expired && one_at_a_time) {
                return Poll::Ready(failure::deadline());
            }
        }
        if expired {
            self.shared.retiring.store(true, Relaxed);
            if !open {
                return Poll::Ready(failure::deadline());
            }
        }
        // Everyone has what they came for; what goes on now is the guest's own affair, for a while.
        if open || self.shared.idle.load(Relaxed) {
            self.background = None;
            return Poll::Pending;
        }
        let patience = self.workload.limits().background_timeout;
        let timer = self
            .background
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(cx).map(|()| failure::deadline())
    }
}

/// The guest's answer. One that only informs is none: a response is still owed, and no server would send it as one.
pub(crate) fn response_of(response: Response<WasiBody>, slot: &Arc<CallSlot>) -> Answer {
    if response.status().is_informational() {
        let code = format!(
            "{:?}",
            p3::bindings::http::types::ErrorCode::HttpProtocolError
        );
        return Err(failure::guest_error(code));
    }
    let slot = slot.clone();
    Ok(response.map(|body| GuestBody { body, slot }))
}

/// A response's body as it comes out of the guest. What ends because the instance did has not come to its end.
pub(crate) struct GuestBody {
    body: WasiBody,
    slot: Arc<CallSlot>,
}

impl http_body::Body for GuestBody {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map(|frame| match (frame, self.slot.fault.get()) {
            (None, Some(fault)) => Some(Err(Box::new(fault.clone()) as BoxError)),
            (frame, _) => frame.map(|frame| frame.map_err(|error| Box::new(error) as BoxError)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.slot.fault.get().is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sleeps until `deadline`, or for ever.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A timeout that tokio's clock can represent.
pub(crate) fn after(duration: Duration) -> Instant {
    /// A year: beyond any call, and far from overflowing a clock.
    const LONGEST: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + duration.min(LONGEST)
}
