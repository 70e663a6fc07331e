//! What uses a simulated server: clients that write and read, and watchers that follow.
//!
//! They run in the server's own process and die with it; what they asked and were told goes to the history.

use std::sync::Arc;
use std::time::Duration;

use super::history::{Ask, History, SharedHistory, Told, refused, seen};
use super::random::Random;
use crate::Store;
use crate::command::{Mutation, Precondition};
use crate::error::WatchError;
use crate::key::{Key, Revision, ServerId};

/// Keys that all clients fight for.
const KEYS: u64 = 6;

/// One client: one request after another, until its server dies.
pub(crate) async fn run(
    server: ServerId,
    store: Store,
    history: SharedHistory,
    mut random: Random,
    pause_ms: u64,
) {
    loop {
        tokio::time::sleep(Duration::from_millis(1 + random.below(pause_ms))).await;
        if random.chance(1, 3) {
            // A list of many pages looks at one snapshot while others write, and checkpoints go over it.
            let slowness_ms = if random.chance(1, 6) {
                random.below(900)
            } else {
                0
            };
            read(server, &store, &history, slowness_ms).await;
        } else {
            write(server, &store, &history, &mut random).await;
        }
    }
}

async fn read(server: ServerId, store: &Store, history: &SharedHistory, slowness_ms: u64) {
    let operation = history.lock().asked(server, Ask::Read);
    let told = match store.read().await {
        Ok(snapshot) => {
            if slowness_ms > 0 {
                tokio::time::sleep(Duration::from_millis(slowness_ms)).await;
            }
            let revision = snapshot.revision();
            let view = |entries| Told::View { revision, entries };
            seen(&snapshot).map_or(Told::Nothing, view)
        }
        Err(_) => Told::Nothing,
    };
    history.lock().told(operation, told);
}

fn mutation(store: &Store, random: &mut Random, value: String) -> Mutation {
    let key = Key::from(format!("/k/{}", random.below(KEYS)));
    // What this server knows of the key: often right, sometimes old.
    let known = store.snapshot().get(&key).map(|entry| entry.revision);
    let precondition = match (random.below(4), known) {
        (0, _) => Precondition::Absent,
        (1 | 2, Some(revision)) => Precondition::Revision(revision),
        _ => Precondition::None,
    };
    if random.chance(1, 5) {
        Mutation::delete(key, precondition)
    } else if random.chance(1, 12) {
        Mutation::check(key, precondition)
    } else {
        Mutation::put(key, precondition, value)
    }
}

async fn write(server: ServerId, store: &Store, history: &SharedHistory, random: &mut Random) {
    let count = if random.chance(1, 5) { 2 } else { 1 };
    let mut mutations: Vec<_> = (0..count)
        .map(|_| {
            let value = history.lock().value();
            mutation(store, random, value)
        })
        .collect();
    if random.chance(1, 4) {
        // As who creates something in something else: what is checked may change at this moment.
        let found = mutation(store, random, String::new());
        let precondition = match found.precondition {
            Precondition::None => Precondition::Absent,
            known => known,
        };
        mutations.insert(0, Mutation::check(found.key, precondition));
    }
    // Leaders fence their writes; now and then one believes in a term that is not.
    let term = *store.leadership().borrow();
    let (fence, wrong) = match (term, random.below(6)) {
        (Some(term), 0) => (Some(term), false),
        (Some(term), 1) => (Some(term - 1), true),
        _ => (None, false),
    };
    let ask = Ask::Write {
        mutations: mutations.clone(),
    };
    let operation = history.lock().asked(server, ask);
    let told = match store.write(mutations, fence).await {
        Ok(revision) => Told::Done(revision),
        Err(error) => refused(error),
    };
    let mut history = history.lock();
    if let Told::Done(revision) = told {
        if wrong {
            history.violation(format!(
                "server {server} wrote revision {revision} behind a fence of another term"
            ));
        }
        let here = store.snapshot().revision();
        if here < revision {
            history.violation(format!(
                "server {server} acknowledged revision {revision} and shows {here}"
            ));
        }
    }
    history.told(operation, told);
}

/// Where a watcher is; it outlives the server it watches on.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub delivered: Revision,
    /// Bookmarks it was given: nothing at or below them may follow.
    pub promised: Revision,
}

/// A watcher of everything, which resumes where it was cut.
pub(crate) async fn watch(
    server: ServerId,
    store: Store,
    history: SharedHistory,
    place: Arc<parking_lot::Mutex<Place>>,
) {
    loop {
        let after = place.lock().delivered;
        let mut watch = match store.watch("", after) {
            Ok(watch) => watch,
            Err(WatchError::Future { .. }) => {
                // This server has not caught up with what another one delivered.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            Err(WatchError::Compacted { .. }) => {
                // As a client does: list, then watch from there.
                let listed = store.snapshot().revision();
                let mut place = place.lock();
                place.delivered = listed.max(place.delivered);
                continue;
            }
        };
        loop {
            let next = tokio::time::timeout(Duration::from_millis(40), watch.next()).await;
            let mut place = place.lock();
            match next {
                Ok(Some(Ok(event))) => {
                    let mut history = history.lock();
                    if event.revision != place.delivered + 1 {
                        history.violation(format!(
                            "a watch on server {server} got {} after {}",
                            event.revision, place.delivered
                        ));
                    }
                    if event.revision <= place.promised {
                        history.violation(format!(
                            "a watch on server {server} got {} after a bookmark of {}",
                            event.revision, place.promised
                        ));
                    }
                    history.fact(server, &event);
                    place.delivered = event.revision;
                    // A bookmark may be asked for at any time.
                    let progress = watch.progress();
                    place.promised = place.promised.max(progress);
                }
                Ok(Some(Err(_)) | None) => break,
                Err(_) => {
                    let progress = watch.progress();
                    place.promised = place.promised.max(progress);
                    // A watcher of everything is told of everything: a bookmark is where it is.
                    if progress != place.delivered {
                        history.lock().violation(format!(
                            "a bookmark on server {server} says {progress}, delivered was {}",
                            place.delivered
                        ));
                    }
                }
            }
        }
    }
}

/// A watcher of one key from places in the past: what it gets is checked against the whole story at the end.
pub(crate) async fn visit(
    server: ServerId,
    store: Store,
    history: SharedHistory,
    mut random: Random,
) {
    loop {
        tokio::time::sleep(Duration::from_millis(30 + random.below(200))).await;
        let newest = store.snapshot().revision();
        // Half of them look for the edge of what is kept.
        let after = match store.watch("", 0) {
            Err(WatchError::Compacted { oldest }) if random.chance(1, 2) => {
                oldest.saturating_sub(1)
            }
            _ => random.below(newest + 1),
        };
        let Ok(mut watch) = store.watch("", after) else {
            continue;
        };
        let mut last = after;
        while last < newest {
            let Some(Ok(event)) = watch.next().await else {
                break;
            };
            let mut history = history.lock();
            if event.revision != last + 1 {
                history.violation(format!(
                    "a watch on server {server} from {after} got {} after {last}",
                    event.revision
                ));
            }
            history.fact(server, &event);
            last = event.revision;
        }
    }
}

/// Collects what a server's history still holds.
pub(crate) async fn collect(server: ServerId, store: &Store, history: &SharedHistory) {
    let newest = store.snapshot().revision();
    let oldest = match store.watch("", 0) {
        Err(WatchError::Compacted { oldest }) => oldest,
        _ => 0,
    };
    let Ok(mut watch) = store.watch("", oldest) else {
        return;
    };
    let mut last = oldest;
    while last < newest {
        let Some(Ok(event)) = watch.next().await else {
            return;
        };
        let mut history = history.lock();
        if event.revision != last + 1 {
            History::violation(
                &mut history,
                format!("server {server} kept {} after {last}", event.revision),
            );
        }
        history.fact(server, &event);
        last = event.revision;
    }
}
