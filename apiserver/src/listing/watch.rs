//! Watches: each change once, as seen through a selection, in the store's order.
//!
//! Where a webhook converts the objects, the selection is of what it made: then every change is converted, with the state before it.
//!
//! Invariants: an event that has to be converted is told or nothing is, whoever stops waiting meanwhile; what cannot be converted ends the watch.

use std::sync::Arc;

use weft_api::status::StatusError;
use weft_kinds::{Kind, KindRef};
use weft_store::{Revision, Snapshot};

use super::{Selection, candidates, too_large};
use crate::cache::{Cache, Item, Refused, Subscription, Told, What};
use crate::encryption::Vault;
use crate::objects::Objects;
use crate::stored::Stored;

/// What a watch may ask for.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub selection: Selection,
    /// `None` and 0: start with the present objects. N: only what came after N.
    pub resource_version: Option<Revision>,
    /// `Some(true)` begins with the present objects whatever the revision; `Some(false)` leaves them out.
    pub send_initial_events: Option<bool>,
    /// Whether the end of the present objects is marked.
    pub marks_end: bool,
}

/// What a watcher is told.
#[derive(Clone)]
pub enum WatchEvent {
    Added(Stored),
    Modified(Stored),
    Deleted(Stored),
    /// The present objects were all sent.
    InitialEnd(Revision),
    /// The watch cannot go on from where it was asked to, and is over: list again.
    Expired(StatusError),
}

/// A running watch of one kind through a selection.
pub struct ObjectWatch {
    kind: Arc<Kind>,
    vault: Vault,
    /// The objects that were there, the next one last.
    initial: Vec<Arc<Item>>,
    initial_end: Option<Revision>,
    news: News,
    /// Who has objects converted by a webhook, where one does, and what is meant of those that were converted.
    converter: Option<(Objects, Option<Selection>)>,
    /// What is being converted.
    pending: Option<Happened>,
}

/// Something that a watch may be about, and the state before it, where there is one.
#[derive(Clone)]
struct Happened {
    event: WatchEvent,
    before: Option<Stored>,
}

/// Where the news of a watch come from.
enum News {
    Cache(Subscription),
    /// Nowhere: this is why, until it was told.
    Nowhere(Option<StatusError>),
}

impl ObjectWatch {
    pub(crate) fn start(
        cache: &Arc<Cache>,
        vault: &Vault,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<Self, StatusError> {
        let WatchOptions {
            selection,
            resource_version,
            send_initial_events,
            marks_end,
        } = options;
        selection.check(kind)?;
        let version = resource_version.unwrap_or(0);
        let initial_wanted = send_initial_events.unwrap_or(version == 0);
        let from_now = initial_wanted || version == 0;
        let started = cache.watch(kind, namespace, &selection, (!from_now).then_some(version));
        let (subscription, view) = match started {
            Ok(started) => started,
            // Not as the answer's status, which clients take for a passing failure and repeat for ever (kube-rs' watcher does):
            // as the stream's only event, which all of them know from Kubernetes' watch cache.
            Err(refused) => {
                let refused = watch_refused(&refused, version);
                return Ok(Self {
                    kind: kind.clone(),
                    vault: vault.clone(),
                    initial: Vec::new(),
                    initial_end: None,
                    news: News::Nowhere(Some(refused)),
                    converter: None,
                    pending: None,
                });
            }
        };
        if initial_wanted && version > view.revision() {
            return Err(too_large(version, view.revision()));
        }
        let mut initial = Vec::new();
        if initial_wanted {
            let matching = candidates(kind, namespace, &selection, &view, cache, None)
                .filter(|item| selection.matches_item(kind, vault, item));
            initial.extend(matching.cloned());
            initial.reverse();
        }
        Ok(Self {
            kind: kind.clone(),
            vault: vault.clone(),
            initial,
            initial_end: (marks_end && initial_wanted).then(|| view.revision()),
            news: News::Cache(subscription),
            converter: None,
            pending: None,
        })
    }

    /// The same, of objects that somebody converts before they are told; `chosen` says which are meant, where that shows only then.
    pub(crate) fn converted_by(self, converter: Objects, chosen: Option<Selection>) -> Self {
        Self {
            converter: Some((converter, chosen)),
            ..self
        }
    }

    /// The next event; `None` when the server is closing, or when the watch fell behind. The client goes on from the last
    /// revision that it was told, or hears then that this is not kept any more. Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let Some((converter, chosen)) = self.converter.clone() else {
            return self.next_told().await.map(|happened| happened.event);
        };
        loop {
            // Kept until it is converted: whoever waits for it may stop to.
            let happened = match &self.pending {
                Some(happened) => happened.clone(),
                None => {
                    let happened = self.next_told().await?;
                    self.pending.insert(happened).clone()
                }
            };
            let event = converted(&converter, happened, chosen.as_ref()).await;
            self.pending = None;
            if let Some(event) = event.unwrap_or_else(|error| Some(WatchEvent::Expired(error))) {
                return Some(event);
            }
        }
    }

    async fn next_told(&mut self) -> Option<Happened> {
        let alone = |event| Happened {
            event,
            before: None,
        };
        if let Some(event) = self.pop_initial() {
            return Some(alone(event));
        }
        let told = match &mut self.news {
            News::Cache(subscription) => subscription.next().await?,
            News::Nowhere(reason) => return reason.take().map(WatchEvent::Expired).map(alone),
        };
        Some(self.happened(told))
    }

    /// The next event, if it waits already. None where somebody has to convert it first.
    pub(crate) fn next_waiting(&mut self) -> Option<WatchEvent> {
        if self.converter.is_some() || !self.initial.is_empty() || self.initial_end.is_some() {
            return None;
        }
        let News::Cache(subscription) = &mut self.news else {
            return None;
        };
        let told = subscription.next_waiting()?;
        Some(self.happened(told).event)
    }

    fn happened(&self, told: Told) -> Happened {
        let (change, lines) = (told.change, told.lines);
        let stored = |item: &Arc<Item>| {
            Stored::of(&self.vault, &self.kind, Arc::clone(item)).shared(lines.clone())
        };
        let event = match (told.what, &change.previous) {
            (What::Added, _) => WatchEvent::Added(stored(&change.item)),
            (What::Modified, _) => WatchEvent::Modified(stored(&change.item)),
            (What::Left, Some(before)) => WatchEvent::Deleted(stored(before).at(change.revision)),
            (What::Deleted | What::Left, _) => WatchEvent::Deleted(stored(&change.item)),
        };
        // Only who converts looks at it.
        let before = change.previous.as_ref();
        let before = before.filter(|_| self.converter.is_some());
        Happened {
            event,
            before: before.map(|before| stored(before).at(change.revision)),
        }
    }

    /// The next of the objects that were there when the watch began, without waiting.
    /// None where somebody has to convert them first.
    pub(crate) fn next_initial(&mut self) -> Option<WatchEvent> {
        match self.converter {
            None => self.pop_initial(),
            Some(_) => None,
        }
    }

    fn pop_initial(&mut self) -> Option<WatchEvent> {
        if let Some(item) = self.initial.pop() {
            let object = Stored::of(&self.vault, &self.kind, item);
            return Some(WatchEvent::Added(object));
        }
        self.initial_end.take().map(WatchEvent::InitialEnd)
    }

    /// Everything up to here was told: what a bookmark may name.
    pub fn progress(&self) -> Option<Revision> {
        match &self.news {
            News::Cache(subscription) if self.initial.is_empty() && self.initial_end.is_none() => {
                Some(subscription.progress())
            }
            _ => None,
        }
    }

    /// Lets [`ObjectWatch::progress`] be as far as the store is now.
    pub(crate) async fn catch_up(&self, store: &Snapshot) {
        if let News::Cache(subscription) = &self.news {
            subscription.cache().catch_up(store).await;
        }
    }

    pub fn kind(&self) -> KindRef<'_> {
        &self.kind
    }
}

/// An event in the version that is asked for, as it looks to who means `chosen` alone; none where it is nothing to him.
///
/// # Errors
/// Why an object could not be converted, which ends the watch.
async fn converted(
    converter: &Objects,
    happened: Happened,
    chosen: Option<&Selection>,
) -> Result<Option<WatchEvent>, StatusError> {
    let is_meant = |stored: &Stored| chosen.is_none_or(|chosen| chosen.matches_shown(stored));
    Ok(match happened.event {
        WatchEvent::Added(stored) => {
            let stored = converter.converted(stored).await?;
            is_meant(&stored).then(|| WatchEvent::Added(stored))
        }
        WatchEvent::Deleted(stored) => {
            let stored = converter.converted(stored).await?;
            is_meant(&stored).then(|| WatchEvent::Deleted(stored))
        }
        WatchEvent::Modified(stored) => {
            let stored = converter.converted(stored).await?;
            let before = match happened.before.filter(|_| chosen.is_some()) {
                Some(before) => Some(converter.converted(before).await?),
                None => None,
            };
            match (before.filter(is_meant), is_meant(&stored)) {
                (None, true) if chosen.is_some() => Some(WatchEvent::Added(stored)),
                (_, true) => Some(WatchEvent::Modified(stored)),
                (Some(before), false) => Some(WatchEvent::Deleted(before)),
                (None, false) => None,
            }
        }
        other => Some(other),
    })
}

/// A revision from before the history, or one that this cluster never had: a client that still has it from before a backup
/// was restored has to list again as well.
fn watch_refused(refused: &Refused, asked: Revision) -> StatusError {
    let Refused { oldest, newest } = refused;
    StatusError::gone_expired(if asked < *oldest {
        format!("too old resource version: {asked} ({oldest})")
    } else {
        format!("resource version {asked} is not of this cluster, which is at {newest}")
    })
}
