//! Who may pull now: an account for each namespace, so that one tenant's pulls that hang are that tenant's own affair.
//!
//! Each of [`GUARANTEED_MAX`] namespaces has one pull that waits for nobody else's; [`SHARED_MAX`] further ones go to whoever asks,
//! at most [`EACH_MAX`] to a namespace. What cannot run waits in its namespace's queue of [`QUEUED_MAX`], and namespaces take turns.
//!
//! Invariants: nothing waits that could run; a place that is dropped goes to the next at once; one who waits and is dropped takes
//! none. [`Accounts`] is pure and knows neither tasks nor time.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Namespaces of which each has one pull for sure: more than have pods on a usual node. Each is a connection and a file.
const GUARANTEED_MAX: usize = 64;
/// Pulls beyond the first of their namespace, of all namespaces: enough to hide latency, few enough to leave the network to traffic.
const SHARED_MAX: usize = 8;
/// Pulls of one namespace at once.
const EACH_MAX: usize = 4;
/// Pulls of one namespace that wait, and of all.
const QUEUED_MAX: usize = 128;
const QUEUED_ALL_MAX: usize = 1024;

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded {
    pub(super) waiting: usize,
}

struct Account<W> {
    running: usize,
    waiting: VecDeque<W>,
}

/// Who runs and who waits; `W` stands for one who waits.
struct Accounts<W> {
    of: HashMap<Arc<str>, Account<W>>,
    /// Namespaces in which somebody waits, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// Namespaces with a pull, pulls beyond the first of theirs, and who waits.
    busy: usize,
    shared: usize,
    waiting: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Run,
    Wait,
}

impl<W> Accounts<W> {
    fn new() -> Self {
        Self {
            of: HashMap::new(),
            turns: VecDeque::new(),
            busy: 0,
            shared: 0,
            waiting: 0,
        }
    }

    fn may_run(&self, running: usize) -> bool {
        match running {
            0 => self.busy < GUARANTEED_MAX,
            _ => running < EACH_MAX && self.shared < SHARED_MAX,
        }
    }

    /// Runs at once, or puts what `waiter` makes into the queue. `is_gone` finds those who wait no longer.
    fn ask(
        &mut self,
        namespace: &Arc<str>,
        waiter: impl FnOnce() -> W,
        is_gone: impl Fn(&W) -> bool,
    ) -> Result<Asked, Crowded> {
        let running = self.of.get(namespace).map_or(0, |account| account.running);
        // By the invariant, who waits in this namespace cannot run, and so cannot this one.
        let waits = self
            .of
            .get(namespace)
            .is_some_and(|account| !account.waiting.is_empty());
        if !waits && self.may_run(running) {
            self.begin(namespace);
            return Ok(Asked::Run);
        }
        if self.waiting >= QUEUED_ALL_MAX {
            self.forget(&is_gone);
        }
        let account = self.of.entry(namespace.clone()).or_insert_with(|| Account {
            running: 0,
            waiting: VecDeque::new(),
        });
        if account.waiting.len() >= QUEUED_MAX {
            let before = account.waiting.len();
            account.waiting.retain(|waiter| !is_gone(waiter));
            self.waiting -= before - account.waiting.len();
        }
        if account.waiting.len() >= QUEUED_MAX || self.waiting >= QUEUED_ALL_MAX {
            let waiting = account.waiting.len();
            self.close(namespace);
            return Err(Crowded { waiting });
        }
        account.waiting.push_back(waiter());
        self.waiting += 1;
        if !self.turns.contains(namespace) {
            self.turns.push_back(namespace.clone());
        }
        Ok(Asked::Wait)
    }

    /// Takes all who wait no longer out of all queues.
    fn forget(&mut self, is_gone: &impl Fn(&W) -> bool) {
        for account in self.of.values_mut() {
            let before = account.waiting.len();
            account.waiting.retain(|waiter| !is_gone(waiter));
            self.waiting -= before - account.waiting.len();
        }
        let of = &self.of;
        self.turns.retain(|namespace| {
            of.get(namespace)
                .is_some_and(|account| !account.waiting.is_empty())
        });
        self.of
            .retain(|_, account| account.running > 0 || !account.waiting.is_empty());
    }

    fn begin(&mut self, namespace: &Arc<str>) {
        let account = self.of.entry(namespace.clone()).or_insert_with(|| Account {
            running: 0,
            waiting: VecDeque::new(),
        });
        match account.running {
            0 => self.busy += 1,
            _ => self.shared += 1,
        }
        account.running += 1;
    }

    /// One of a namespace's pulls has ended. Gives who takes its place, which counts as running.
    fn end(&mut self, namespace: &Arc<str>) -> Option<(Arc<str>, W)> {
        if let Some(account) = self.of.get_mut(namespace) {
            account.running -= 1;
            match account.running {
                0 => self.busy -= 1,
                _ => self.shared -= 1,
            }
        }
        let next = self.turns.iter().position(|namespace| {
            let running = self.of.get(namespace).map_or(0, |account| account.running);
            self.may_run(running)
        });
        let next = next
            .and_then(|at| self.turns.remove(at))
            .and_then(|namespace| {
                let account = self.of.get_mut(&namespace)?;
                let waiter = account.waiting.pop_front()?;
                self.waiting -= 1;
                if !account.waiting.is_empty() {
                    self.turns.push_back(namespace.clone());
                }
                self.begin(&namespace);
                Some((namespace, waiter))
            });
        self.close(namespace);
        next
    }

    /// Drops an account of which nothing is left.
    fn close(&mut self, namespace: &Arc<str>) {
        let is_empty = |account: &Account<W>| account.running == 0 && account.waiting.is_empty();
        if self.of.get(namespace).is_some_and(is_empty) {
            self.of.remove(namespace);
        }
    }
}

type Waiter = oneshot::Sender<Place>;

/// The places of a node. Clones share them.
#[derive(Clone)]
pub(super) struct Places {
    accounts: Arc<Mutex<Accounts<Waiter>>>,
}

/// The right to pull; dropped, it is the next one's.
pub(super) struct Place {
    places: Places,
    /// Whose it is; nobody's once it was given back.
    namespace: Option<Arc<str>>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            accounts: Arc::new(Mutex::new(Accounts::new())),
        }
    }

    /// Waits for a place, for as long as the caller does.
    ///
    /// # Errors
    /// When too many of the namespace wait already.
    pub(super) async fn take(&self, namespace: &str) -> Result<Place, Crowded> {
        let namespace: Arc<str> = namespace.into();
        let (sender, receiver) = oneshot::channel();
        let asked = self
            .accounts
            .lock()
            .ask(&namespace, || sender, Waiter::is_closed)?;
        match asked {
            Asked::Run => Ok(Place {
                places: self.clone(),
                namespace: Some(namespace),
            }),
            // Senders are dropped unsent only with all places.
            Asked::Wait => receiver.await.map_err(|_| Crowded { waiting: 0 }),
        }
    }

    fn give_back(&self, namespace: Arc<str>) {
        let mut ended = namespace;
        loop {
            let Some((namespace, waiter)) = self.accounts.lock().end(&ended) else {
                return;
            };
            let place = Place {
                places: self.clone(),
                namespace: Some(namespace),
            };
            match waiter.send(place) {
                Ok(()) => return,
                // It waits no longer: the next one.
                Err(mut place) => match place.namespace.take() {
                    Some(namespace) => ended = namespace,
                    None => return,
                },
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            self.places.give_back(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(
        accounts: &mut Accounts<usize>,
        namespace: &str,
        waiter: usize,
    ) -> Result<Asked, Crowded> {
        accounts.ask(&namespace.into(), || waiter, |_| false)
    }

    #[test]
    fn a_namespace_whose_pulls_hang_stops_no_other() {
        let mut accounts = Accounts::new();
        let asked: Vec<_> = (0..20).map(|n| ask(&mut accounts, "greedy", n)).collect();
        let running = asked
            .iter()
            .filter(|asked| **asked == Ok(Asked::Run))
            .count();
        assert_eq!(running, EACH_MAX);
        for n in 1..GUARANTEED_MAX {
            assert_eq!(ask(&mut accounts, &format!("other-{n}"), n), Ok(Asked::Run));
        }
        // The node's bound: whoever comes now waits, and is the first when one of the others ends.
        assert_eq!(ask(&mut accounts, "late", 99), Ok(Asked::Wait));
        let next = accounts.end(&"other-1".into());
        assert_eq!(next, Some(("late".into(), 99)));
    }

    #[test]
    fn namespaces_take_turns_for_what_is_shared() {
        let mut accounts = Accounts::new();
        for namespace in ["a", "b", "c", "d"] {
            for n in 0..10 {
                assert!(ask(&mut accounts, namespace, n).is_ok());
            }
        }
        assert_eq!(accounts.shared, SHARED_MAX);
        let ends = ["a", "a", "a", "b", "b", "b"];
        let next = ends.map(|namespace| {
            accounts
                .end(&namespace.into())
                .map(|(next, _)| next.to_string())
        });
        let next: Vec<_> = next.into_iter().flatten().collect();
        let of = |namespace: &str| next.iter().filter(|next| *next == namespace).count();
        assert_eq!(
            (of("a") + of("b") + of("c") + of("d"), next.len()),
            (6, 6),
            "{next:?}"
        );
        assert!(of("c") >= 1 && of("d") >= 1, "{next:?}");
    }

    #[test]
    fn who_waits_no_longer_keeps_no_place_in_a_queue() {
        let mut accounts = Accounts::new();
        let namespace = "a".into();
        for n in 0..EACH_MAX + QUEUED_MAX {
            assert!(accounts.ask(&namespace, || n, |_| false).is_ok());
        }
        let full = accounts.ask(&namespace, || 0, |_| false);
        assert_eq!(
            full,
            Err(Crowded {
                waiting: QUEUED_MAX
            })
        );
        assert_eq!(accounts.ask(&namespace, || 0, |_| true), Ok(Asked::Wait));
        assert_eq!(accounts.waiting, 1);
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn nothing_waits_that_could_run(steps in proptest::collection::vec((0usize..90, any::<bool>()), 0..600)) {
            let mut accounts = Accounts::new();
            let mut running: Vec<Arc<str>> = Vec::new();
            let mut waiting = 0;
            for (n, (pick, ends)) in steps.into_iter().enumerate() {
                if ends && !running.is_empty() {
                    let ended = running.swap_remove(pick % running.len());
                    if let Some((next, _)) = accounts.end(&ended) {
                        running.push(next);
                        waiting -= 1;
                    }
                } else {
                    // Few namespaces ask often, many now and then.
                    let namespace: Arc<str> = format!("{}", pick * pick / 90).into();
                    match accounts.ask(&namespace, || n, |_| false) {
                        Ok(Asked::Run) => running.push(namespace),
                        Ok(Asked::Wait) => waiting += 1,
                        Err(Crowded { waiting }) => prop_assert_eq!(waiting, QUEUED_MAX),
                    }
                }
                prop_assert_eq!(accounts.waiting, waiting);
                prop_assert_eq!(accounts.busy + accounts.shared, running.len());
                prop_assert!(accounts.busy <= GUARANTEED_MAX && accounts.shared <= SHARED_MAX);
                for account in accounts.of.values() {
                    prop_assert!(account.running <= EACH_MAX);
                    prop_assert!(account.waiting.is_empty() || !accounts.may_run(account.running));
                    prop_assert!(account.running > 0 || !account.waiting.is_empty());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_place_that_is_dropped_goes_to_who_still_waits() {
        let places = Places::new();
        let mut held = Vec::new();
        for _ in 0..EACH_MAX {
            held.push(places.take("a").await.expect("a place"));
        }
        let wait = || {
            let places = places.clone();
            tokio::spawn(async move { places.take("a").await })
        };
        let (first, second, third) = (wait(), wait(), wait());
        while places.accounts.lock().waiting < 3 {
            tokio::task::yield_now().await;
        }
        for gone in [first, second] {
            gone.abort();
            assert!(gone.await.is_err());
        }
        drop(held.pop());
        let place = third.await.expect("no panic").expect("a place");
        drop((place, held));
        assert!(places.accounts.lock().of.is_empty());
    }
}
