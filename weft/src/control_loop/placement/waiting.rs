//! Whose turn it is: the pods that wait for a node, in order, and those that rest.
//!
//! ```text
//! new, changed ─► active ─► tried ─► refused ─► (something changed that may help) ─► resting ─► active
//! ```
//!
//! The most urgent come first, then who waits longest. A pod that was refused is not looked at again before something changed that may
//! end one of the reasons, and then no sooner than its pause allows: 1 s after the first time, twice as long each time, up to 10 s. What
//! nothing wakes is looked at every five minutes all the same.
//!
//! Invariant: a pod that waits is in one state; only what is active is ever handed out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weft_controllers::Key;
use weft_scheduler::{Hints, PodFacts};

use super::Unscheduled;

/// First pause after a refusal; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// What nothing wakes is looked at after this.
pub const FLUSH: Duration = Duration::from_secs(300);

/// A pod that waits for a node.
pub struct Waiting {
    pub facts: PodFacts,
    pub since: Option<Timestamp>,
    /// What its `PodScheduled` condition says.
    pub condition: Option<Unscheduled>,
    /// What it was last told, and when.
    pub told: Option<(String, Instant)>,
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Active,
    /// In a batch.
    Tried,
    /// Nothing helps but one of these; looked at again at the latest then.
    Refused {
        hints: Hints,
        tried: Instant,
    },
    Resting(Instant),
}

/// The most urgent first, then who waits longest.
type Rank = (
    Reverse<i32>,
    Option<Timestamp>,
    Arc<str>,
    Arc<str>,
    Arc<str>,
);

impl Waiting {
    pub fn new(facts: PodFacts, since: Option<Timestamp>, condition: Option<Unscheduled>) -> Self {
        Self {
            facts,
            since,
            condition,
            told: None,
            attempts: 0,
            state: State::Active,
        }
    }

    pub fn key(&self) -> Key {
        key_of(&self.facts)
    }

    fn rank(&self) -> Rank {
        let facts = &self.facts;
        (
            Reverse(facts.priority),
            self.since,
            Arc::clone(&facts.namespace),
            Arc::clone(&facts.name),
            Arc::clone(&facts.uid),
        )
    }

    /// How long it rests after its last refusal.
    fn pause(&self) -> Duration {
        let doubled = self.attempts.saturating_sub(1).min(16);
        PAUSE_MIN.saturating_mul(1 << doubled).min(PAUSE_MAX)
    }
}

/// By which the view knows a pod.
pub fn key_of(facts: &PodFacts) -> Key {
    Key {
        namespace: Arc::clone(&facts.namespace),
        name: Arc::clone(&facts.name),
    }
}

#[derive(Default)]
pub struct Queue {
    all: BTreeMap<Arc<str>, Waiting>,
    active: BTreeSet<Rank>,
    resting: BTreeSet<(Instant, Arc<str>)>,
    /// With when they are looked at if nothing wakes them.
    refused: BTreeSet<(Instant, Arc<str>)>,
}

impl Queue {
    pub fn get_mut(&mut self, uid: &str) -> Option<&mut Waiting> {
        self.all.get_mut(uid)
    }

    /// Takes a pod, as new; or as it is now, which changes when it is looked at only if what it needs changed.
    pub fn put(&mut self, mut waiting: Waiting) {
        let uid = Arc::clone(&waiting.facts.uid);
        if let Some(known) = self.take(&uid) {
            waiting.told = known.told;
            if known.facts == waiting.facts {
                waiting.attempts = known.attempts;
                waiting.state = known.state;
            }
        }
        self.enter(&uid, &waiting);
        self.all.insert(uid, waiting);
    }

    pub fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.all.remove(uid)?;
        self.leave(&waiting);
        Some(waiting)
    }

    fn enter(&mut self, uid: &Arc<str>, waiting: &Waiting) {
        match waiting.state {
            State::Active => {
                self.active.insert(waiting.rank());
            }
            State::Tried => {}
            State::Refused { tried, .. } => {
                self.refused.insert((tried + FLUSH, Arc::clone(uid)));
            }
            State::Resting(until) => {
                self.resting.insert((until, Arc::clone(uid)));
            }
        }
    }

    fn leave(&mut self, waiting: &Waiting) {
        let uid = &waiting.facts.uid;
        match waiting.state {
            State::Active => {
                self.active.remove(&waiting.rank());
            }
            State::Tried => {}
            State::Refused { tried, .. } => {
                self.refused.remove(&(tried + FLUSH, Arc::clone(uid)));
            }
            State::Resting(until) => {
                self.resting.remove(&(until, Arc::clone(uid)));
            }
        }
    }

    fn set(&mut self, uid: &str, state: State) {
        if let Some(mut waiting) = self.take(uid) {
            waiting.state = state;
            let uid = Arc::clone(&waiting.facts.uid);
            self.enter(&uid, &waiting);
            self.all.insert(uid, waiting);
        }
    }

    /// No node takes the pod; one of these changes may help.
    pub fn refuse(&mut self, uid: &str, hints: Hints, now: Instant) {
        if let Some(waiting) = self.all.get_mut(uid) {
            waiting.attempts = waiting.attempts.saturating_add(1);
        }
        self.set(uid, State::Refused { hints, tried: now });
    }

    /// The pod is to be looked at at once.
    pub fn activate(&mut self, uid: &str) {
        self.set(uid, State::Active);
    }

    /// Something changed. Cost: the pods that were refused.
    pub fn wake(&mut self, change: Hints, now: Instant) {
        if change == Hints::NONE {
            return;
        }
        let refused = self.refused.iter().filter_map(|(_, uid)| {
            let waiting = self.all.get(uid)?;
            let State::Refused { hints, tried } = waiting.state else {
                return None;
            };
            let due = tried + waiting.pause();
            hints.meets(change).then(|| (Arc::clone(uid), due))
        });
        let woken: Vec<(Arc<str>, Instant)> = refused.collect();
        for (uid, due) in woken {
            let state = if due <= now {
                State::Active
            } else {
                State::Resting(due)
            };
            self.set(&uid, state);
        }
    }

    /// The next pods, in order; they are in nobody's turn until they are refused, or taken out.
    pub fn next(&mut self, now: Instant, max: usize) -> Vec<PodFacts> {
        let rests = self.resting.iter().take_while(|(at, _)| *at <= now);
        let flushed = self.refused.iter().take_while(|(at, _)| *at <= now);
        let due = rests.chain(flushed).map(|(_, uid)| Arc::clone(uid));
        let due: Vec<Arc<str>> = due.collect();
        for uid in due {
            self.set(&uid, State::Active);
        }
        let first: Vec<Arc<str>> = self
            .active
            .iter()
            .take(max)
            .map(|rank| Arc::clone(&rank.4))
            .collect();
        let facts = first
            .iter()
            .filter_map(|uid| Some(self.all.get(uid)?.facts.clone()));
        let facts: Vec<PodFacts> = facts.collect();
        for uid in &first {
            self.set(uid, State::Tried);
        }
        facts
    }

    /// When there is something to look at, if nothing changes.
    pub fn next_due(&self) -> Option<Instant> {
        let resting = self.resting.first();
        let refused = self.refused.first();
        resting.into_iter().chain(refused).map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let facts = weft_scheduler::PodFacts::of(&weft_api::view::Pod::default());
        let mut waiting = Waiting::new(facts, None, None);
        for (attempts, seconds) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (4, 8),
            (5, 10),
            (6, 10),
            (u32::MAX, 10),
        ] {
            waiting.attempts = attempts;
            assert_eq!(waiting.pause().as_secs(), seconds, "{attempts}");
        }
    }
}
