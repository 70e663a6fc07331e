//! What the informer told and the loop has not taken yet: in a task of its own, so that a busy loop never lets the informer
//! fall behind.
//!
//! Of an object that changes again before the loop looks only the newest state waits, in the place of the first. So the inbox
//! holds no more than there are objects and deletions, however long a turn of the loop is, and an owner still stands
//! before whoever came to name it. A deletion waits beside the last state, not in its place: of an object that came and went in
//! one turn somebody may keep account who only hears of one that was there.
//!
//! Invariant: whoever takes everything has the state at the revision of the newest change taken. The loop decides only then.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use weft_apiserver::informer::{Change as News, Informer};
use weft_kinds::Name;

/// The loop's side. The task ends when it is dropped.
pub struct Inbox {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    told: Notify,
}

/// What waits, and where. Pure: whoever drives it hands the time in.
#[derive(Default)]
pub struct Waiting {
    /// In the order of first arrival, with the time of the last.
    news: Vec<(News, Timestamp)>,
    /// Where the change of an object waits, by resource, and uid or name.
    places: BTreeMap<(Name, Name, String), usize>,
    /// The store is closed: nothing comes any more.
    closed: bool,
}

impl Inbox {
    /// Starts to listen.
    pub fn open(mut informer: Informer) -> Self {
        let shared = Arc::new(Shared::default());
        let listening = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Some(news) = informer.next().await {
                listening.waiting.lock().push_news(news, Timestamp::now());
                listening.told.notify_one();
            }
            listening.waiting.lock().closed = true;
            listening.told.notify_one();
        });
        Self {
            shared,
            task: task.abort_handle(),
        }
    }

    /// Everything that waits; `None`: there is nothing, and there will be nothing.
    pub fn take_news(&self) -> Option<Vec<(News, Timestamp)>> {
        let mut waiting = self.shared.waiting.lock();
        if waiting.news.is_empty() && waiting.closed {
            return None;
        }
        Some(waiting.take())
    }

    /// Comes when something was told since the last call, or the store closed. Cancel safe.
    pub async fn news_arrived(&self) {
        self.shared.told.notified().await;
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Waiting {
    /// Everything, in the order of first arrival; nothing waits then.
    pub fn take(&mut self) -> Vec<(News, Timestamp)> {
        self.places.clear();
        std::mem::take(&mut self.news)
    }

    pub fn push_news(&mut self, news: News, now: Timestamp) {
        match &news {
            News::Reset => {
                // A full list follows: what waits is part of it, or gone.
                self.news.clear();
                self.places.clear();
            }
            // What comes after is news, and must not be taken for part of the list.
            News::Synced { .. } => self.places.clear(),
            News::Upsert { kind, object } | News::Delete { kind, object } => {
                let who = match object.uid() {
                    "" => format!("{}/{}", object.namespace().unwrap_or(""), object.name()),
                    uid => uid.to_owned(),
                };
                let place = (kind.group.clone(), kind.resource.clone(), who);
                let ends = matches!(news, News::Delete { .. });
                let at = self.places.get(&place).copied();
                if let Some(waiting) = at.and_then(|at| self.news.get_mut(at))
                    && !(ends && matches!(waiting.0, News::Upsert { .. }))
                {
                    *waiting = (news, now);
                    return;
                }
                self.places.insert(place, self.news.len());
            }
        }
        self.news.push((news, now));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_api::Object;

    use super::*;

    fn object(uid: &str, revision: u64) -> Object {
        let metadata = json!({"name": "a", "uid": uid, "resourceVersion": revision.to_string()});
        Object::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn told(waiting: &Waiting) -> Vec<String> {
        let one = |(news, _): &(News, Timestamp)| match news {
            News::Reset => "reset".to_owned(),
            News::Synced { revision } => format!("synced {revision}"),
            News::Upsert { object, .. } => {
                format!("{} {:?}", object.uid(), object.resource_version())
            }
            News::Delete { object, .. } => format!("{} gone", object.uid()),
        };
        waiting.news.iter().map(one).collect()
    }

    #[test]
    fn the_newest_state_waits_in_the_place_of_the_first() {
        let mut waiting = Waiting::default();
        let now = Timestamp::UNIX_EPOCH;
        let upsert = |uid: &str, revision| News::Upsert {
            kind: weft_kinds::POD.clone(),
            object: object(uid, revision),
        };
        waiting.push_news(upsert("lost", 1), now);
        waiting.push_news(News::Reset, now);
        waiting.push_news(upsert("owner", 2), now);
        waiting.push_news(upsert("owned", 3), now);
        waiting.push_news(News::Synced { revision: 3 }, now);
        for revision in 4..1000 {
            waiting.push_news(upsert("owner", revision), now);
        }
        waiting.push_news(upsert("new", 1000), now);
        let deleted = News::Delete {
            kind: weft_kinds::POD.clone(),
            object: object("owned", 1001),
        };
        waiting.push_news(deleted, now);
        waiting.push_news(upsert("new", 1002), now);
        waiting.push_news(upsert("brief", 1003), now);
        let deleted = News::Delete {
            kind: weft_kinds::POD.clone(),
            object: object("brief", 1004),
        };
        waiting.push_news(deleted, now);
        assert_eq!(
            told(&waiting),
            [
                "reset",
                "owner Some(2)",
                "owned Some(3)",
                "synced 3",
                "owner Some(999)",
                "new Some(1002)",
                "owned gone",
                "brief Some(1003)",
                "brief gone"
            ]
        );
    }
}
