//! Who is let in to a workload that has a limit of calls by what it can do (`gradient.rs`), and who waits, in which order and how long.
//!
//! What is more urgent goes first. Within one priority the first goes first, as long as the queue is now and then empty; when it has not
//! been for a while, the last does, who still has time, and nobody waits for longer than a few milliseconds: a caller is refused at once
//! rather than answered when it has given up.
//!
//! Invariants: no more are inside than the limit was when the last of them came in; whoever waits is let in or told, however it ends; the
//! queue has a bound, and what is less urgent leaves it for what is more.
//! Source: Maurer, "Fail at Scale", ACM Queue 2015 (adaptive LIFO, and CoDel's times for queues of requests).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weft_call::Priority;
use weft_gateway::Concurrency;

use crate::gradient::Gradient;

/// How long a call waits, while the queue was empty within this time.
const PATIENCE: Duration = Duration::from_millis(100);
/// And how long, when it was not.
const PATIENCE_OVERLOADED: Duration = Duration::from_millis(5);

/// The calls of one endpoint.
#[derive(Debug)]
pub(crate) struct Turnstile {
    queue_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gradient: Gradient,
    inside: u32,
    /// By priority, the oldest first.
    waiting: [VecDeque<oneshot::Sender<Permit>>; Priority::ALL.len()],
    queued: usize,
    /// When the queue was last seen empty.
    empty_at: Option<Instant>,
}

/// A call that was let in, until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    turnstile: Arc<Turnstile>,
    /// False: it was never given to anybody.
    is_live: bool,
}

/// There is no room, and there was none in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shed;

impl Turnstile {
    pub(crate) fn new(rule: &Concurrency) -> Arc<Self> {
        Arc::new(Self {
            queue_max: rule.queue_max as usize,
            state: Mutex::new(State {
                gradient: Gradient::new(rule.min, rule.max),
                inside: 0,
                waiting: Default::default(),
                queued: 0,
                empty_at: None,
            }),
        })
    }

    /// How many may be inside now, and how many are.
    pub(crate) fn limit_and_inside(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.gradient.limit(), state.inside)
    }

    /// Waits for room, for a while.
    pub(crate) async fn enter(self: &Arc<Self>, priority: Priority) -> Result<Permit, Shed> {
        let (receiver, patience) = {
            let mut state = self.state.lock();
            if state.queued == 0 {
                if state.has_room() {
                    state.inside += 1;
                    return Ok(self.permit());
                }
                state.empty_at = Some(Instant::now());
            }
            if state.queued >= self.queue_max && !state.makes_room_for(priority) {
                return Err(Shed);
            }
            let (sender, receiver) = oneshot::channel();
            state.line(priority).push_back(sender);
            state.queued += 1;
            let patience = match state.is_overloaded() {
                true => PATIENCE_OVERLOADED,
                false => PATIENCE,
            };
            (receiver, patience)
        };
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            // It made room for another.
            Ok(Err(_)) => Err(Shed),
            Err(_) => {
                self.state.lock().sweep();
                Err(Shed)
            }
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            turnstile: Arc::clone(self),
            is_live: true,
        }
    }

    /// One leaves, and whoever is next comes in.
    fn leave(self: &Arc<Self>) {
        let mut next = self.state.lock().leaves();
        while let Some(sender) = next {
            // Not while the state is locked: whoever gave up in the meantime gives the permit back.
            next = match sender.send(self.permit()) {
                Ok(()) => self.state.lock().next(),
                Err(mut permit) => {
                    permit.is_live = false;
                    self.state.lock().leaves()
                }
            };
        }
    }
}

impl Permit {
    /// The workload answered after so long.
    pub(crate) fn answered(&self, took: Duration) {
        let mut state = self.turnstile.state.lock();
        let inside = state.inside;
        state.gradient.sample(took, inside);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_live {
            self.turnstile.leave();
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.inside < self.gradient.limit()
    }

    fn line(&mut self, priority: Priority) -> &mut VecDeque<oneshot::Sender<Permit>> {
        &mut self.waiting[priority as usize]
    }

    fn is_overloaded(&self) -> bool {
        self.empty_at.is_some_and(|at| at.elapsed() > PATIENCE)
    }

    /// Somebody who is less urgent is turned away, if anybody is.
    fn makes_room_for(&mut self, priority: Priority) -> bool {
        let less_urgent = Priority::ALL.into_iter().rev();
        for other in less_urgent.take_while(|other| *other > priority) {
            if self.line(other).pop_back().is_some() {
                self.queued -= 1;
                return true;
            }
        }
        false
    }

    fn leaves(&mut self) -> Option<oneshot::Sender<Permit>> {
        self.inside = self.inside.saturating_sub(1);
        self.next()
    }

    /// Who comes in now, counted.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        if !self.has_room() {
            return None;
        }
        let is_overloaded = self.is_overloaded();
        let mut lines = self.waiting.iter_mut();
        let next = lines.find_map(|line| match is_overloaded {
            true => line.pop_back(),
            false => line.pop_front(),
        });
        if next.is_some() {
            self.queued -= 1;
            self.inside += 1;
        }
        next
    }

    /// Forgets those who gave up.
    fn sweep(&mut self) {
        for line in &mut self.waiting {
            line.retain(|sender| !sender.is_closed());
        }
        self.queued = self.waiting.iter().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turnstile(room: u32, queue_max: u32) -> Arc<Turnstile> {
        Turnstile::new(&Concurrency {
            min: room,
            max: room,
            queue_max,
            critical: Vec::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_by_what_it_is_worth() {
        let turnstile = turnstile(1, 3);
        let first = turnstile.enter(Priority::Usual).await.expect("room");
        let enter = |priority| {
            let turnstile = Arc::clone(&turnstile);
            async move {
                let entered = turnstile.enter(priority).await;
                (priority, entered)
            }
        };
        let mut set = tokio::task::JoinSet::new();
        for priority in [Priority::Sheddable, Priority::Usual, Priority::Low] {
            set.spawn(enter(priority));
            tokio::task::yield_now().await;
        }
        // The queue is full: the least urgent one leaves it.
        set.spawn(enter(Priority::Critical));
        let (shed, outcome) = set.join_next().await.expect("one").expect("no panic");
        assert_eq!((shed, outcome.err()), (Priority::Sheddable, Some(Shed)));
        // One who is no more urgent than those who wait.
        assert_eq!(turnstile.enter(Priority::Low).await.err(), Some(Shed));
        let mut order = Vec::new();
        let mut inside = first;
        for _ in 0..3 {
            drop(inside);
            let (priority, entered) = set.join_next().await.expect("one").expect("no panic");
            order.push(priority);
            inside = entered.expect("let in");
        }
        assert_eq!(order, [Priority::Critical, Priority::Usual, Priority::Low]);
        drop(inside);
        assert_eq!(turnstile.limit_and_inside(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_nothing_is_lost() {
        let turnstile = turnstile(2, 10);
        let held = [
            turnstile.enter(Priority::Usual).await.expect("room"),
            turnstile.enter(Priority::Usual).await.expect("room"),
        ];
        let begun = tokio::time::Instant::now();
        assert_eq!(turnstile.enter(Priority::Critical).await.err(), Some(Shed));
        assert!(begun.elapsed() >= PATIENCE);
        assert_eq!(turnstile.state.lock().queued, 0);
        // One that is dropped while it waits takes no place.
        {
            let waiting = turnstile.enter(Priority::Usual);
            let mut waiting = std::pin::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        drop(held);
        assert_eq!(turnstile.limit_and_inside(), (2, 0));
        assert!(turnstile.enter(Priority::Usual).await.is_ok());
    }
}
