//! The one who follows the store for a cache: the first view, then each change, then how far the store is.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::Notify;
use weft_store::{Event, Revision, Store, Watch, WatchError};

use super::history::History;
use super::item::Item;
use super::view::View;
use super::watchers::End;
use super::{Cache, STARTS_MAX, Shared};

/// How often a cache looks for what has grown old, its own and that of others.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Changes taken from the store at once, before others of the runtime get their turn: each is some tens of microseconds.
const BATCH_MAX: usize = 32;

pub(super) struct Feed {
    pub prefix: Bytes,
    pub cache: Weak<Cache>,
    pub shared: Weak<Shared>,
    pub ask: Arc<Notify>,
}

impl Feed {
    pub(super) async fn run(self) {
        let end = self.follow().await;
        if let Some(cache) = self.cache.upgrade() {
            cache.over(end);
        }
    }

    async fn follow(&self) -> End {
        let Some(mut watch) = self.begin().await else {
            return End::Closed;
        };
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = self.ask.notified() => {
                    let Some(cache) = self.cache.upgrade() else { return End::Closed };
                    if let Err(end) = self.drain(&mut watch, &cache) {
                        return end;
                    }
                    drop(cache);
                    tokio::task::yield_now().await;
                    continue;
                }
                _ = ticks.tick() => {
                    if let Some(shared) = self.shared.upgrade() {
                        shared.sweep(Instant::now());
                    }
                    continue;
                }
            };
            let Some(cache) = self.cache.upgrade() else {
                return End::Closed;
            };
            let taken = self
                .take(&mut watch, &cache, event)
                .and_then(|()| self.drain(&mut watch, &cache));
            if let Err(end) = taken {
                return end;
            }
            drop(cache);
            tokio::task::yield_now().await;
        }
    }

    /// The first view. The watch begins as far back as the store's history does, so that clients of before can go on.
    async fn begin(&self) -> Option<Watch> {
        let shared = self.shared.upgrade()?;
        let (store, tasks) = (shared.store.clone(), shared.tasks.clone());
        drop(shared);
        let cache = self.cache.upgrade()?;
        let prefix = self.prefix.clone();
        // Walks over every object of the kind, and reads those of indexed kinds.
        let made = tasks.spawn_blocking(move || {
            let (watch, begin) = watch_from_the_oldest(&store, &prefix)?;
            let snapshot = store.snapshot();
            let mut view = View::new(snapshot.revision());
            for entry in snapshot.range(&prefix, None) {
                let item = Item::shown(&cache.owner, &entry);
                view.put(&cache.plan, &cache.vault, &item);
            }
            let bounds = &cache.bounds;
            let mut state = cache.state.lock();
            state.view = view;
            state.history =
                History::new(begin, bounds.history_changes_max, bounds.history_bytes_max);
            Some(watch)
        });
        let made = made.await.inspect_err(|error| {
            tracing::error!(prefix = ?self.prefix, %error, "reading a kind into its cache");
        });
        let watch = made.ok().flatten()?;
        self.ask.notify_one();
        Some(watch)
    }

    /// Takes in what waits, and says how far that is.
    fn drain(&self, watch: &mut Watch, cache: &Cache) -> Result<(), End> {
        for _ in 0..BATCH_MAX {
            match watch.next().now_or_never() {
                Some(event) => self.take(watch, cache, event)?,
                None => {
                    cache.advance(watch.progress());
                    return Ok(());
                }
            }
        }
        // There is more: whoever asked is answered then.
        self.ask.notify_one();
        Ok(())
    }

    fn take(
        &self,
        watch: &mut Watch,
        cache: &Cache,
        event: Option<Result<Event, weft_store::WatchLagged>>,
    ) -> Result<(), End> {
        match event {
            Some(Ok(event)) => {
                cache.apply(event);
                Ok(())
            }
            Some(Err(lagged)) => {
                // The store's history may still have what this missed.
                let shared = self.shared.upgrade().ok_or(End::Closed)?;
                match shared.store.watch(self.prefix.clone(), lagged.delivered) {
                    Ok(resumed) => {
                        tracing::warn!(prefix = ?self.prefix, %lagged, "a cache fell behind the store");
                        *watch = resumed;
                        Ok(())
                    }
                    Err(error) => {
                        tracing::warn!(prefix = ?self.prefix, %lagged, %error, "a cache lost its place in the store and begins anew");
                        Err(End::Lagged)
                    }
                }
            }
            None => Err(End::Closed),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // However it ended, with its runtime too: whoever waits for it looks for another.
        if let Some(cache) = self.cache.upgrade() {
            cache.over(End::Closed);
        }
    }
}

/// A watch from the oldest revision that the store has the changes of, and which that is.
fn watch_from_the_oldest(store: &Store, prefix: &Bytes) -> Option<(Watch, Revision)> {
    let mut begin = 0;
    for _ in 0..STARTS_MAX {
        match store.watch(prefix.clone(), begin) {
            Ok(watch) => return Some((watch, begin)),
            Err(WatchError::Compacted { oldest }) if oldest > begin => begin = oldest,
            Err(WatchError::Compacted { .. } | WatchError::Future { .. }) => {
                begin = store.snapshot().revision();
            }
        }
    }
    None
}
