//! A work queue that holds each key once: waiting, due later, or being worked on.
//!
//! Pure: the time is handed in. A key that is added while it is worked on comes again when that ends. A key that
//! failed comes again after a pause that doubles with each failure.
//!
//! Invariant: a key is in at most one of `ready`, `later` and `running`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{BACKOFF_MAX, BACKOFF_MIN, REST};

#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    waiting: BTreeSet<K>,
    /// Worked on; true once it was added meanwhile.
    running: BTreeMap<K, bool>,
    later: BTreeMap<K, Instant>,
    due: BTreeSet<(Instant, K)>,
    failures: BTreeMap<K, Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    message: Option<String>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
            later: BTreeMap::new(),
            due: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Asks for a look at `key` as soon as possible. A key in back-off keeps its pause: what was refused a moment ago
    /// is not asked for again because of the refusal's own traces.
    pub fn add(&mut self, key: K) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
        } else if !self.failures.contains_key(&key) || !self.later.contains_key(&key) {
            self.forget_later(&key);
            self.push(key);
        }
    }

    /// The next key to work on.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            if let Some((_, key)) = self.due.pop_first() {
                self.later.remove(&key);
                self.push(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }

    /// Ends the work on a key; `again` asks for another look after that time.
    pub fn succeed(&mut self, key: K, again: Option<Duration>, now: Instant) {
        self.failures.remove(&key);
        let added = self.running.remove(&key).unwrap_or(false);
        if added {
            self.push_later(key, now + REST);
        } else if let Some(delay) = again {
            self.push_later(key, now + delay.max(REST));
        }
    }

    /// Ends the work on a key that was refused. `message` replaces what is known of why.
    pub fn fail(&mut self, key: K, message: Option<String>, now: Instant) {
        self.running.remove(&key);
        let failures = self.failures.entry(key.clone()).or_insert(Failures {
            count: 0,
            message: None,
        });
        let delay = backoff(failures.count);
        failures.count = failures.count.saturating_add(1);
        failures.message = message;
        self.push_later(key, now + delay);
    }

    /// Why the last attempt at a key was refused.
    pub fn last_failure(&self, key: &K) -> Option<&str> {
        self.failures.get(key)?.message.as_deref()
    }

    /// When [`Queue::pop`] will have something; `None`: not before the next call.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn push(&mut self, key: K) {
        if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn push_later(&mut self, key: K, at: Instant) {
        self.forget_later(&key);
        self.later.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    fn forget_later(&mut self, key: &K) {
        if let Some(at) = self.later.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_held_once_and_comes_again_if_added_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(now), Some("a"));
        assert_eq!(queue.pop(now), None);
        queue.add("a");
        assert_eq!(queue.pop(now), None, "it is being worked on");
        queue.succeed("a", None, now);
        assert_eq!(queue.pop(now), None, "it rests");
        assert_eq!(queue.pop(now + REST), Some("a"));
        queue.succeed("a", Some(Duration::from_secs(5)), now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(5)));
        queue.add("a");
        assert_eq!(queue.pop(now), Some("a"), "a change does not wait");
        queue.succeed("a", None, now);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn refusals_are_remembered_and_back_off() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.pop(now), Some("a"));
        queue.fail("a", Some("quota".into()), now);
        queue.add("a");
        assert_eq!(queue.pop(now), None, "a change does not shorten the pause");
        assert_eq!(queue.pop(now + BACKOFF_MIN), Some("a"));
        assert_eq!(queue.last_failure(&"a"), Some("quota"));
        queue.fail("a", Some("quota".into()), now);
        assert_eq!(queue.next_due(), Some(now + 2 * BACKOFF_MIN));
        assert_eq!(queue.pop(now + BACKOFF_MAX), Some("a"));
        queue.succeed("a", None, now);
        assert_eq!(queue.last_failure(&"a"), None);
        for (failures, millis) in [
            (0, 50),
            (3, 400),
            (9, 25_600),
            (10, 30_000),
            (u32::MAX, 30_000),
        ] {
            assert_eq!(backoff(failures).as_millis(), millis, "{failures}");
        }
    }
}
