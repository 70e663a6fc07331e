//! The watch cache: between the store and everybody who lists or watches, one [`Cache`] a kind.
//!
//! A cache is made when somebody first asks for its kind, follows the store through one watch of its own, and is let go of when
//! nobody asked for a while. It holds the objects as an indexed [`View`], the last changes as a [`History`], and the
//! [`Watchers`], to whom it hands each change that concerns them. Values are in memory as far as [`Values`] has room for all kinds, else
//! read from the store; what is encoded for watchers is shared by them ([`Lines`]) and goes when all were told.
//!
//! Invariants: a view shows every change up to its revision and none behind it; a watch that starts after a view's revision is told of
//! every later change that concerns it, once, in order; history and queues stay within their [`Bounds`]; a cache that lost
//! its place in the store's history, or whose task panicked, ends its watches and is replaced, never patched up; every task is
//! owned here, and [`Caches::shutdown`] waits for all.
//! Left to others: how old an answer may be (`objects::freshness`), pages and selections (`listing`), bytes (`http`).

mod feed;
mod history;
mod item;
mod kept;
mod lines;
mod subscription;
mod values;
mod view;
mod watchers;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;
use weft_store::{Event, EventKind, Key, Revision, Snapshot, Store};

use self::feed::Feed;
use self::history::{Change, History};
use self::item::Owner;
pub(crate) use self::item::{Facts, Item};
use self::kept::Kept;
pub(crate) use self::lines::{LineForm, LineKey, Lines};
pub(crate) use self::subscription::Subscription;
pub(crate) use self::values::Missed;
use self::values::Values;
use self::view::Plan;
pub(crate) use self::view::View;
use self::watchers::Watchers;
pub(crate) use self::watchers::{End, Told, What};
use crate::encryption::Vault;
use crate::listing::Selection;
use crate::stored;
use weft_kinds::{Kind, KindRef};

/// A cache that nobody asked for this long, and nobody watches, is let go of. Longer than a list may take over its pages.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Objects over a quota that one new object takes along: more than one, so that a namespace that is far above it gets below.
const EXCESS_MAX: usize = 4;
/// A cache follows the store in this process: when that takes seconds, the server is not well.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// How long the last watchers of a kind that is not served any more are waited for.
const LAST_NEWS_MAX: Duration = Duration::from_secs(1);
/// A question to the feed may be a moment too early: the store tells its watchers after its readers.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// Caches in a row that may lose their place while one request waits.
const STARTS_MAX: usize = 5;

/// How much the caches remember, and how much may wait for one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Changes of a kind that are kept for watches that resume.
    pub history_changes_max: usize,
    /// Memory that those may keep alive, as the store holds values: 8 MiB are some 10,000 changes of pods.
    pub history_bytes_max: usize,
    /// Changes that may wait for one watcher before it is cut off: a mass update of ten thousand pods fits.
    pub queue_changes_max: usize,
    /// Memory that those may keep alive.
    pub queue_bytes_max: usize,
    /// Memory for the values of all kinds together, as the store holds them: 32 MiB are some 50,000 pods. What does not fit is read
    /// from the store's files when somebody asks for it.
    pub values_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            history_changes_max: 50_000,
            history_bytes_max: 8 << 20,
            queue_changes_max: 16_384,
            queue_bytes_max: 16 << 20,
            values_bytes_max: 32 << 20,
        }
    }
}

/// The caches of all kinds. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Caches {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    vault: Vault,
    bounds: Bounds,
    values: Arc<Values>,
    /// Those that follow the store, one a cache.
    tasks: TaskTracker,
    closing: CancellationToken,
    /// By what tells their objects from others ([`Kind::cached_as`]).
    caches: Mutex<HashMap<String, Arc<Cache>>>,
    kept: Mutex<Kept>,
    started: Instant,
}

impl Caches {
    pub(crate) fn new(store: Store, vault: Vault, bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                values: Values::new(store.clone(), bounds.values_bytes_max),
                store,
                vault,
                bounds,
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
                caches: Mutex::default(),
                kept: Mutex::default(),
                started: Instant::now(),
            }),
        }
    }

    /// The cache of a kind, once it shows at least this revision, which the store here has reached.
    ///
    /// # Errors
    /// 503 when the store is closed, or the cache cannot follow it.
    pub(crate) async fn at_least(
        &self,
        kind: KindRef<'_>,
        revision: Revision,
    ) -> Result<Arc<Cache>, StatusError> {
        for _ in 0..STARTS_MAX {
            if self.shared.closing.is_cancelled() {
                return Err(StatusError::unavailable("this server is closing"));
            }
            let cache = self.of(kind);
            match tokio::time::timeout(CATCH_UP_MAX, cache.reached(revision)).await {
                Ok(true) => return Ok(cache),
                // It lost its place; the next one begins where the store is now.
                Ok(false) => self.forget(&cache),
                Err(_) => break,
            }
        }
        let text = format!("the {} of this server are not up to date", kind.resource);
        Err(StatusError::try_again(text, 1))
    }

    fn of(&self, kind: KindRef<'_>) -> Arc<Cache> {
        let mut caches = self.shared.caches.lock();
        let cache = caches
            .entry(kind.cached_as())
            .or_insert_with(|| Cache::start(&self.shared, kind.stored()));
        cache
            .used
            .store(self.shared.seconds(Instant::now()), Ordering::Relaxed);
        Arc::clone(cache)
    }

    /// Ends every watch and every cache, and waits until their tasks are over. Who asks for one later is told that this server closes.
    pub(crate) async fn shutdown(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.caches.lock().clear();
        self.shared.kept.lock().clear();
    }

    fn forget(&self, cache: &Arc<Cache>) {
        let mut caches = self.shared.caches.lock();
        let known_as = cache.plan.kind.cached_as();
        if caches
            .get(&known_as)
            .is_some_and(|known| Arc::ptr_eq(known, cache))
        {
            caches.remove(&known_as);
        }
    }

    /// Ends the caches of kinds that `stays` lets go of, with the watches on them: each shows what there was until `revision`, if it can.
    pub(crate) async fn end(&self, stays: impl Fn(&Kind) -> bool, revision: Revision) {
        let ended: Vec<Arc<Cache>> = {
            let mut caches = self.shared.caches.lock();
            let mut ended = Vec::new();
            caches.retain(|_, cache| {
                let stays = stays(&cache.plan.kind);
                if !stays {
                    ended.push(Arc::clone(cache));
                }
                stays
            });
            ended
        };
        for cache in ended {
            // Watchers are told of every object that went before their kind did.
            let _ = tokio::time::timeout(LAST_NEWS_MAX, cache.reached(revision)).await;
            cache.over(End::Closed);
            cache.stop.cancel();
        }
    }

    /// How many objects of a kind there are, as far as somebody asked for them lately.
    pub(crate) fn counted(&self, kind: KindRef<'_>) -> usize {
        let cache = self.shared.caches.lock().get(&kind.cached_as()).cloned();
        cache.map_or(0, |cache| cache.count())
    }

    /// The item that the cache of a kind shows under a key, where there is a cache and it shows this revision.
    pub(crate) fn shown(
        &self,
        kind: KindRef<'_>,
        key: &Key,
        revision: Revision,
    ) -> Option<Arc<Item>> {
        let cache = self.shared.caches.lock().get(&kind.cached_as()).cloned()?;
        let view = cache.view();
        let item = view.get(key).filter(|item| item.revision() == revision);
        item.cloned()
    }

    /// Which objects give way to a new one of `bytes` under `key`: none, unless the kind has a quota.
    ///
    /// # Errors
    /// As [`Caches::at_least`].
    pub(crate) async fn excess(
        &self,
        kind: KindRef<'_>,
        key: &Key,
        bytes: usize,
        revision: Revision,
    ) -> Result<Vec<Key>, StatusError> {
        if view::quota_of(kind).is_none() {
            return Ok(Vec::new());
        }
        let cache = self.at_least(kind, revision).await?;
        let namespace = view::namespace_part(key);
        Ok(cache
            .view()
            .excess(&cache.plan, namespace, bytes, EXCESS_MAX))
    }

    /// Keeps a view for the further pages of a list of `caller`.
    pub(crate) fn keep(&self, caller: &str, kind: KindRef<'_>, view: &View, now: Instant) {
        let mut kept = self.shared.kept.lock();
        kept.note(self.shared.store.snapshot().revision(), now);
        kept.keep(caller, &kind.cached_as(), view, now);
    }

    /// The state at an earlier revision: one that `caller` has kept, or one that the history still leads to, while it is not too old.
    pub(crate) fn earlier(
        &self,
        caller: &str,
        cache: &Cache,
        revision: Revision,
        now: Instant,
    ) -> Option<View> {
        let prefix = cache.plan.kind.cached_as();
        let kept = {
            let mut kept = self.shared.kept.lock();
            kept.note(self.shared.store.snapshot().revision(), now);
            if kept.is_expired(revision, now) {
                return None;
            }
            kept.get(caller, &prefix, revision, now)
        };
        kept.or_else(|| cache.rewound(revision))
    }

    /// How many kinds are cached now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shared.caches.lock().len()
    }
}

impl Shared {
    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs()
    }

    /// Lets go of kept views that expired and of caches that nobody needs.
    fn sweep(&self, now: Instant) {
        let mut kept = self.kept.lock();
        kept.note(self.store.snapshot().revision(), now);
        kept.sweep(now);
        drop(kept);
        let idle_since = self.seconds(now).saturating_sub(IDLE_MAX.as_secs());
        let mut idle = Vec::new();
        self.caches.lock().retain(|prefix, cache| {
            // Whoever watches, or is being answered, holds on to it.
            let needed =
                Arc::strong_count(cache) > 1 || cache.used.load(Ordering::Relaxed) >= idle_since;
            if !needed {
                tracing::debug!(prefix, "nobody asks for this kind any more");
                idle.push(Arc::clone(cache));
            }
            needed
        });
        drop(idle); // outside the lock: it may be a large map
    }
}

/// The cache of one kind.
pub(crate) struct Cache {
    plan: Plan,
    vault: Vault,
    owner: Arc<Owner>,
    bounds: Bounds,
    state: Mutex<State>,
    /// The revision that the view shows; closed when the cache is over.
    reached: tokio::sync::watch::Sender<Progress>,
    /// Asks the feed to say how far it is, while nothing happens to its kind.
    ask: Arc<Notify>,
    /// Seconds of [`Shared::started`] at the last request.
    used: AtomicU64,
    stop: CancellationToken,
    _stop: DropGuard,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// `None` until the first view is made.
    revision: Option<Revision>,
    over: bool,
}

struct State {
    view: View,
    history: History,
    watchers: Watchers,
    #[cfg(test)]
    panics: bool,
}

impl Cache {
    fn start(shared: &Arc<Shared>, kind: KindRef<'_>) -> Arc<Self> {
        let stop = shared.closing.child_token();
        let ask = Arc::new(Notify::new());
        let bounds = shared.bounds;
        let history = History::new(0, bounds.history_changes_max, bounds.history_bytes_max);
        let cache = Arc::new(Self {
            plan: Plan::of(kind),
            vault: shared.vault.clone(),
            owner: Arc::new(Owner {
                values: Arc::clone(&shared.values),
                kind: kind.stored().clone(),
                vault: shared.vault.clone(),
            }),
            bounds,
            state: Mutex::new(State {
                view: View::new(0),
                history,
                watchers: Watchers::default(),
                #[cfg(test)]
                panics: false,
            }),
            reached: tokio::sync::watch::Sender::new(Progress::default()),
            ask: Arc::clone(&ask),
            used: AtomicU64::new(shared.seconds(Instant::now())),
            stop: stop.clone(),
            _stop: stop.clone().drop_guard(),
        });
        let feed = Feed {
            prefix: stored::prefix(kind, None),
            cache: Arc::downgrade(&cache),
            shared: Arc::downgrade(shared),
            ask,
        };
        let resource = kind.resource.to_string();
        shared.tasks.spawn(async move {
            // It takes its feed along, which ends the cache: whoever waits for it or watches begins with another.
            let following = AssertUnwindSafe(feed.run()).catch_unwind();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                outcome = following => if outcome.is_err() {
                    tracing::error!(%resource, "the cache of a kind panicked: it is replaced, and its watches begin again");
                }
            }
        });
        cache
    }

    /// Waits until the view shows this revision; false when it never will.
    async fn reached(&self, revision: Revision) -> bool {
        let mut progress = self.reached.subscribe();
        let there = |progress: &Progress| {
            progress.over || progress.revision.is_some_and(|reached| reached >= revision)
        };
        loop {
            // A kind without news does not learn by itself how far the store is.
            if !there(&progress.borrow()) {
                self.ask.notify_one();
            }
            match tokio::time::timeout(ASK_AGAIN, progress.wait_for(there)).await {
                Ok(Ok(progress)) => return !progress.over,
                Ok(Err(_)) => return false,
                Err(_) => {}
            }
        }
    }

    /// As [`Cache::reached`], for the revision that the store here has now: what a bookmark may name grows with it.
    pub(crate) async fn catch_up(&self, store: &Snapshot) {
        let _ = tokio::time::timeout(CATCH_UP_MAX, self.reached(store.revision())).await;
    }

    /// The objects as they are now.
    pub(crate) fn view(&self) -> View {
        self.state.lock().view.clone()
    }

    /// How many objects there are of the kind.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().view.count(None)
    }

    /// How many changes of the kind are remembered.
    pub(crate) fn changes(&self) -> usize {
        self.state.lock().history.len()
    }

    /// The state at a revision that the history reaches back to: the newest with the changes since taken back.
    fn rewound(&self, revision: Revision) -> Option<View> {
        let (mut view, changes) = {
            let state = self.state.lock();
            if revision < state.history.begin() || revision > state.view.revision() {
                return None;
            }
            let changes: Vec<_> = state.history.after(revision).cloned().collect();
            (state.view.clone(), changes)
        };
        for change in changes.iter().rev() {
            match &change.previous {
                Some(previous) => {
                    view.put(&self.plan, &self.vault, previous);
                }
                None => {
                    view.remove(&self.plan, &self.vault, change.item.key());
                }
            }
        }
        view.set_revision(revision);
        Some(view)
    }

    /// The index that answers for a field of this kind.
    pub(crate) fn index_of(&self, kind: KindRef<'_>, field: &str) -> Option<usize> {
        self.plan.index_of(kind, field)
    }

    /// Begins a watch after a revision, or with what is there now, which is returned.
    ///
    /// # Errors
    /// When the history does not reach back that far, or the revision is from elsewhere: both bounds.
    pub(crate) fn watch(
        self: &Arc<Self>,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        selection: &Selection,
        after: Option<Revision>,
    ) -> Result<(Subscription, View), Refused> {
        let mut state = self.state.lock();
        let (oldest, newest) = (state.history.begin(), state.view.revision());
        let after = after.unwrap_or(newest);
        if after < oldest || after > newest {
            return Err(Refused { oldest, newest });
        }
        let watcher = state
            .watchers
            .add(&self.plan, kind, namespace, selection.clone());
        let view = state.view.clone();
        let changes: Vec<_> = state.history.after(after).cloned().collect();
        drop(state);
        // What comes from now on waits in the queue; who looks through the changes until now keeps nobody waiting.
        let told = changes.into_iter().filter_map(|change| {
            let what = watcher.sees(&self.vault, &change)?;
            let lines = change.lines();
            Some(Told {
                what,
                change,
                lines,
            })
        });
        let subscription = Subscription {
            ready: told.collect(),
            cache: Arc::clone(self),
            watcher,
            delivered: after,
            ended: false,
        };
        Ok((subscription, view))
    }

    /// Takes one event of the store in, and tells who is concerned. Events up to the first view's revision are history only.
    fn apply(&self, event: Event) {
        let mut state = self.state.lock();
        let state = &mut *state;
        #[cfg(test)]
        assert!(!std::mem::take(&mut state.panics), "as a test asked for");
        let put = event.kind == EventKind::Put;
        if event.revision <= state.view.revision() {
            let shown = state.view.get(&event.entry.key);
            let shown = shown.filter(|item| put && item.revision() == event.revision);
            let item = match shown {
                Some(item) => Arc::clone(item),
                None => Arc::new(Item::new(Arc::clone(&event.entry))),
            };
            let previous = event
                .previous_entry()
                .map(|entry| Arc::new(Item::new(entry)));
            let change = Change::new(event.revision, put, item, previous);
            state.history.push(Arc::new(change));
            return;
        }
        let (item, previous) = if put {
            let item = Item::shown(&self.owner, &event.entry);
            let previous = state.view.put(&self.plan, &self.vault, &item);
            (item, previous)
        } else {
            let key = &event.entry.key;
            let previous = state.view.remove(&self.plan, &self.vault, key);
            (Arc::new(Item::new(Arc::clone(&event.entry))), previous)
        };
        if let Some(previous) = &previous {
            previous.retire(|| event.previous_entry());
        }
        state.view.set_revision(event.revision);
        let change = Arc::new(Change::new(event.revision, put, item, previous));
        state.history.push(Arc::clone(&change));
        state
            .watchers
            .dispatch(&self.plan, &self.vault, &self.bounds, &change);
    }

    /// Nothing more happened up to here.
    fn advance(&self, revision: Revision) {
        let mut state = self.state.lock();
        if revision < state.view.revision() {
            // The first view was newer than what the store had told its watchers. Until it has, a watch that began here would
            // miss the changes between.
            return;
        }
        state.view.set_revision(revision);
        drop(state);
        self.reached.send_if_modified(|progress| {
            let old = progress.revision.replace(revision);
            old != Some(revision)
        });
    }

    fn over(&self, end: End) {
        self.state.lock().watchers.end_all(end);
        self.reached.send_modify(|progress| progress.over = true);
    }

    /// Watchers that were looked at for changes so far.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        self.state.lock().watchers.asked
    }
}

/// The revisions between which a watch may start.
#[derive(Debug)]
pub(crate) struct Refused {
    pub oldest: Revision,
    pub newest: Revision,
}

#[cfg(test)]
mod tests;
