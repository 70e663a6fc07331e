//! The executor: tasks of one thread, and what wakes them.
//!
//! A task runs until it waits; nothing preempts it, so long work calls [`yield_now`]. When no task can run, kept output
//! is written and the thread sleeps until a timer, a pollable or (natively) another thread wakes a task. A [`Task`]
//! owns what it runs: dropping it ends the work.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::stream;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Which tasks can go on. The one part that other threads may touch.
#[derive(Default)]
struct Ready {
    queue: Mutex<VecDeque<u64>>,
    came: Condvar,
}

impl Ready {
    fn push(&self, task: u64) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(&task) {
            queue.push_back(task);
        }
        self.came.notify_one();
    }

    fn pop(&self) -> Option<u64> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }
}

struct Alarm {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.task);
    }
}

#[derive(Default)]
struct Executor {
    ready: Arc<Ready>,
    next: Cell<u64>,
    /// A task that is being polled is out of its place.
    tasks: RefCell<BTreeMap<u64, Option<Work>>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    #[cfg(target_os = "wasi")]
    pollables: RefCell<BTreeMap<u64, (Rc<wasip2::io::poll::Pollable>, Waker)>>,
    /// How many tasks wait for another thread, so that sleeping without a timer makes sense.
    foreign: Cell<usize>,
}

/// The task that [`block_on`] itself is.
const MAIN: u64 = 0;

thread_local! {
    static EXECUTOR: Rc<Executor> = Rc::new(Executor { next: Cell::new(MAIN + 1), ..Executor::default() });
}

fn executor() -> Rc<Executor> {
    EXECUTOR.with(Rc::clone)
}

/// Runs a future and all tasks until the future is done; `None` when nothing is left that could ever wake it.
pub fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let executor = executor();
    let mut future = pin!(future);
    executor.ready.push(MAIN);
    let waker = |task| {
        Waker::from(Arc::new(Alarm {
            task,
            ready: Arc::clone(&executor.ready),
        }))
    };
    let main = waker(MAIN);
    loop {
        match executor.ready.pop() {
            Some(MAIN) => {
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&main)) {
                    return Some(value);
                }
            }
            Some(task) => {
                let taken = executor
                    .tasks
                    .borrow_mut()
                    .get_mut(&task)
                    .and_then(Option::take);
                let Some(mut work) = taken else { continue };
                let done = work
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker(task)))
                    .is_ready();
                let mut tasks = executor.tasks.borrow_mut();
                if done {
                    tasks.remove(&task);
                } else if let Some(place) = tasks.get_mut(&task) {
                    *place = Some(work);
                    continue;
                }
                drop(tasks);
                // Outside of the borrow: what it owns may own tasks.
                drop(work);
            }
            None => {
                stream::drain();
                if !executor.sleep() {
                    return None;
                }
            }
        }
    }
}

impl Executor {
    /// Sleeps until something happened; false if nothing can.
    fn sleep(&self) -> bool {
        let now = Instant::now();
        let next = self.timers.borrow().keys().next().map(|(at, _)| *at);
        let pause = next.map(|at| at.saturating_duration_since(now));
        if !self.wait(pause) {
            return false;
        }
        let now = Instant::now();
        let mut timers = self.timers.borrow_mut();
        while let Some(entry) = timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            entry.remove().wake();
        }
        true
    }

    #[cfg(not(target_os = "wasi"))]
    fn wait(&self, pause: Option<Duration>) -> bool {
        let queue = self
            .ready
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !queue.is_empty() {
            return true;
        }
        match pause {
            Some(pause) => drop(self.ready.came.wait_timeout(queue, pause)),
            None if self.foreign.get() > 0 => drop(self.ready.came.wait(queue)),
            None => return false,
        }
        true
    }

    #[cfg(target_os = "wasi")]
    fn wait(&self, pause: Option<Duration>) -> bool {
        use wasip2::clocks::monotonic_clock::subscribe_duration;
        let timer = pause
            .map(|pause| subscribe_duration(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)));
        let waits = self.pollables.borrow();
        let mut list: Vec<_> = waits.values().map(|(pollable, _)| &**pollable).collect();
        list.extend(&timer);
        if list.is_empty() {
            return !self
                .ready
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty();
        }
        let woken = wasip2::io::poll::poll(&list);
        for (place, (_, waker)) in waits.values().enumerate() {
            if woken.contains(&(place as u32)) {
                waker.wake_by_ref();
            }
        }
        true
    }
}

/// Work that was started and its result. Dropping it ends the work.
pub struct Task<T> {
    id: u64,
    result: Rc<RefCell<Outcome<T>>>,
}

struct Outcome<T> {
    value: Option<T>,
    waiting: Option<Waker>,
}

/// Starts a task.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let executor = executor();
    let id = executor.next.get();
    executor.next.set(id + 1);
    let result = Rc::new(RefCell::new(Outcome {
        value: None,
        waiting: None,
    }));
    let work = {
        let result = Rc::clone(&result);
        async move {
            let value = future.await;
            let mut result = result.borrow_mut();
            result.value = Some(value);
            if let Some(waiting) = result.waiting.take() {
                waiting.wake();
            }
        }
    };
    executor.tasks.borrow_mut().insert(id, Some(Box::pin(work)));
    executor.ready.push(id);
    Task { id, result }
}

impl<T> Task<T> {
    /// Whether the result is there.
    pub fn is_done(&self) -> bool {
        self.result.borrow().value.is_some()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut result = self.result.borrow_mut();
        match result.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                result.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        // Gone already where the thread itself ends.
        let _ = EXECUTOR.try_with(|executor| {
            let removed = executor.tasks.borrow_mut().remove(&self.id);
            drop(removed);
        });
    }
}

/// Lets every other task that can run go first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What of two ended.
pub enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for the first of two; where both are done, the first one is told. The other is dropped.
pub async fn either<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Either<A, B> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// See [`crate::clock::sleep`].
pub(crate) async fn sleep_until(at: Instant) {
    struct Timer(Instant, u64);
    impl Drop for Timer {
        fn drop(&mut self) {
            executor().timers.borrow_mut().remove(&(self.0, self.1));
        }
    }
    let executor = executor();
    let id = executor.next.get();
    executor.next.set(id + 1);
    let timer = Timer(at, id);
    std::future::poll_fn(|context| {
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        let key = (timer.0, timer.1);
        executor
            .timers
            .borrow_mut()
            .insert(key, context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Waits until a pollable of WASI is ready.
#[cfg(target_os = "wasi")]
pub async fn ready(pollable: Rc<wasip2::io::poll::Pollable>) {
    struct Wait(u64);
    impl Drop for Wait {
        fn drop(&mut self) {
            executor().pollables.borrow_mut().remove(&self.0);
        }
    }
    let executor = executor();
    let id = executor.next.get();
    executor.next.set(id + 1);
    let wait = Wait(id);
    std::future::poll_fn(|context| {
        if pollable.ready() {
            return Poll::Ready(());
        }
        let entry = (Rc::clone(&pollable), context.waker().clone());
        executor.pollables.borrow_mut().insert(wait.0, entry);
        Poll::Pending
    })
    .await;
}

/// Says that a task waits for another thread while the guard lives.
#[cfg(not(target_os = "wasi"))]
pub(crate) struct Foreign;

#[cfg(not(target_os = "wasi"))]
impl Foreign {
    pub(crate) fn new() -> Self {
        let executor = executor();
        executor.foreign.set(executor.foreign.get() + 1);
        Self
    }
}

#[cfg(not(target_os = "wasi"))]
impl Drop for Foreign {
    fn drop(&mut self) {
        let executor = executor();
        executor
            .foreign
            .set(executor.foreign.get().saturating_sub(1));
    }
}
