//! A work queue that holds each key once: waiting, due later, or being worked on.
//!
//! Pure: the time is handed in. A key that was worked on rests: what asks for it meanwhile is answered by one look when the
//! rest ends, and each such look makes the next rest longer. So many changes of one key cost few looks, however
//! they come, and a key that was quiet is looked at at once. A key that failed comes again after a pause that doubles with each
//! failure.
//!
//! Invariant: a key is in at most one of `ready`, `later` and `running`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{BACKOFF_MAX, BACKOFF_MIN, REST, REST_FIRST, REST_MAX};

#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    waiting: BTreeSet<K>,
    running: BTreeMap<K, Running>,
    later: BTreeMap<K, Instant>,
    due: BTreeSet<(Instant, K)>,
    failures: BTreeMap<K, Failures>,
    /// What was looked at lately.
    rests: BTreeMap<K, Rest>,
    rest_ends: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Running {
    /// It was added meanwhile.
    again: bool,
    /// Why it may be refused now may be over already.
    relieved: bool,
    /// Looks in a row before this one, each asked for during the rest of the one before.
    streak: u32,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    streak: u32,
    /// It was added meanwhile.
    disturbed: bool,
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
            rests: BTreeMap::new(),
            rest_ends: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Asks for a look at `key` as soon as possible. A key in back-off keeps its pause: what was refused a moment ago
    /// is not asked for again because of the refusal's own traces.
    pub fn add(&mut self, key: K, now: Instant) {
        if let Some(running) = self.running.get_mut(&key) {
            running.again = true;
            return;
        }
        if self.failures.contains_key(&key) && self.later.contains_key(&key) {
            return;
        }
        match self.rests.get_mut(&key) {
            Some(rest) if rest.until > now => {
                rest.disturbed = true;
                let until = rest.until;
                if !self.waiting.contains(&key)
                    && self.later.get(&key).is_none_or(|due| *due > until)
                {
                    self.push_later(key, until);
                }
            }
            _ => {
                self.forget_later(&key);
                self.push(key);
            }
        }
    }

    /// Ends the pause of a key that was refused: why it was may be over. A key that was not is left alone.
    pub fn relieve(&mut self, key: K) {
        if let Some(running) = self.running.get_mut(&key) {
            running.relieved = true;
        } else if self.failures.contains_key(&key) && self.later.contains_key(&key) {
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
        self.forget_rests(now);
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        let streak = match self.end_rest(&key) {
            Some(rest) if rest.disturbed => rest.streak.saturating_add(1),
            _ => 0,
        };
        let running = Running {
            again: false,
            relieved: false,
            streak,
        };
        self.running.insert(key.clone(), running);
        Some(key)
    }

    fn end_rest(&mut self, key: &K) -> Option<Rest> {
        let rest = self.rests.remove(key)?;
        self.rest_ends.remove(&(rest.until, key.clone()));
        Some(rest)
    }

    /// Forgets rests that ended without a change.
    fn forget_rests(&mut self, now: Instant) {
        while let Some((until, _)) = self.rest_ends.first()
            && *until <= now
        {
            if let Some((_, key)) = self.rest_ends.pop_first()
                && self.rests.get(&key).is_some_and(|rest| !rest.disturbed)
            {
                self.rests.remove(&key);
            }
        }
    }

    /// Ends the work on a key; `again` asks for another look after that time.
    pub fn succeed(&mut self, key: K, again: Option<Duration>, now: Instant) {
        self.failures.remove(&key);
        let Some(running) = self.running.remove(&key) else {
            return;
        };
        let pause = REST.saturating_mul(running.streak).max(REST_FIRST);
        let until = now + pause.min(REST_MAX);
        let rest = Rest {
            until,
            streak: running.streak,
            disturbed: running.again,
        };
        self.rests.insert(key.clone(), rest);
        self.rest_ends.insert((until, key.clone()));
        if running.again {
            self.push_later(key, until);
        } else if let Some(delay) = again {
            self.push_later(key, until.max(now + delay));
        }
    }

    /// Ends the work on a key that was refused. `message` replaces what is known of why.
    pub fn fail(&mut self, key: K, message: Option<String>, now: Instant) {
        let running = self.running.remove(&key);
        let relieved = running.is_some_and(|running| running.relieved);
        let failures = self.failures.entry(key.clone()).or_insert(Failures {
            count: 0,
            message: None,
        });
        let delay = match relieved {
            true => BACKOFF_MIN,
            false => backoff(failures.count),
        };
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

/// The pause after so many failures before this one.
pub fn backoff(failures: u32) -> Duration {
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
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"));
        assert_eq!(queue.pop(now), None);
        queue.add("a", now);
        assert_eq!(queue.pop(now), None, "it is being worked on");
        queue.succeed("a", None, now);
        assert_eq!(queue.pop(now), None, "it rests");
        let now = now + REST;
        assert_eq!(queue.pop(now), Some("a"));
        queue.succeed("a", Some(Duration::from_secs(5)), now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(5)));
        let now = now + 2 * REST;
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"), "a change does not wait");
        queue.succeed("a", None, now);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn the_longer_a_key_keeps_changing_the_longer_it_rests() {
        let begun = Instant::now();
        let mut queue = Queue::default();
        let mut looks = Vec::new();
        // A change each millisecond for ten seconds, and a look whenever there is one to be had.
        for millis in 0..10_000 {
            let now = begun + Duration::from_millis(millis);
            queue.add("a", now);
            if let Some(key) = queue.pop(now) {
                queue.succeed(key, None, now);
                looks.push(millis);
            }
        }
        assert_eq!(looks[..5], [0, 2, 22, 62, 122]);
        assert_eq!(looks.len(), 36, "{looks:?}");
        let last = looks[looks.len() - 2..].to_vec();
        assert_eq!(last[1] - last[0], 400);
        // Once quiet, it is as quick as ever, and nothing is remembered of it.
        let now = begun + Duration::from_secs(20);
        while let Some(key) = queue.pop(now) {
            queue.succeed(key, None, now);
        }
        let now = now + REST_MAX;
        assert_eq!(queue.pop(now), None);
        queue.add("b", now);
        assert_eq!(queue.pop(now), Some("b"));
        assert!(queue.rests.is_empty() && queue.rest_ends.is_empty());
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"));
        queue.succeed("a", None, now);
        queue.add("a", now);
        assert_eq!(queue.next_due(), Some(now + REST_FIRST));
    }

    #[test]
    fn what_ends_a_refusal_ends_the_pause() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.relieve("a");
        assert_eq!(queue.pop(now), None, "nobody asked for it");
        queue.add("a", now);
        for _ in 0..5 {
            let key = queue.pop(now).unwrap();
            queue.fail(key, Some("no".to_owned()), now);
            queue.add("a", now);
            assert_eq!(queue.pop(now), None, "it pauses");
            queue.relieve("a");
            queue.relieve("a");
        }
        assert_eq!(queue.pop(now), Some("a"));
        assert_eq!(queue.last_failure(&"a"), Some("no"));
        queue.relieve("a");
        queue.succeed("a", None, now);
        queue.relieve("a");
        assert_eq!((queue.pop(now), queue.next_due()), (None, None));
    }

    #[test]
    fn refusals_are_remembered_and_back_off() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"));
        queue.fail("a", Some("quota".into()), now);
        queue.add("a", now);
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
