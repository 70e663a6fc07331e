//! A watch of one who asked for it: the news that concern it, from one cache.

use std::collections::VecDeque;
use std::sync::Arc;

use weft_store::Revision;

use super::Cache;
use super::watchers::{End, Told, Watcher, progress};

/// The news of a watch, from one cache.
pub(crate) struct Subscription {
    pub(super) cache: Arc<Cache>,
    pub(super) watcher: Arc<Watcher>,
    pub(super) ready: VecDeque<Told>,
    pub(super) delivered: Revision,
    pub(super) ended: bool,
}

impl Subscription {
    /// The next change that concerns this watch. `None` when there are no more: the store closed, or too much was waiting. Cancel
    /// safe.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.next_waiting() {
                return Some(told);
            }
            if self.ended {
                return None;
            }
            {
                let queue = self.watcher.queue.lock();
                if !queue.told.is_empty() {
                    continue;
                }
                if let Some(end) = queue.end {
                    self.ended = true;
                    if end == End::Lagged {
                        let kind = &self.watcher.kind.kind;
                        tracing::info!(%kind, self.delivered, "a client reads too slowly");
                    }
                    return None;
                }
            }
            self.watcher.wake.notified().await;
        }
    }

    /// The next change, if it waits already.
    pub(crate) fn next_waiting(&mut self) -> Option<Told> {
        if self.ready.is_empty() {
            let mut queue = self.watcher.queue.lock();
            std::mem::swap(&mut queue.told, &mut self.ready);
            queue.bytes = 0;
        }
        let told = self.ready.pop_front()?;
        self.delivered = told.change.revision;
        Some(told)
    }

    /// Up to where everything was told.
    pub(crate) fn progress(&self) -> Revision {
        // Before the queue: changes up to this revision were queued before it was set.
        let view = self.cache.state.lock().view.revision();
        progress(&self.watcher, !self.ready.is_empty(), self.delivered, view)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cache.state.lock().watchers.remove(&self.watcher);
    }
}
