//! What the leader does about the data of key-value stores: it tells how much there is, and removes that of stores which are gone.
//!
//! Invariants: the status of a store is written at a bounded pace, not with each write of its data, and to that store alone; what is
//! removed belongs to a uid that no KeyValueStore has, which none ever gets again; it is removed in bounded steps, each fenced by the
//! leader's term.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::{KEY_VALUE_STORE, Subresource};
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot, WriteError};

use super::layout::{self, USAGE_PREFIX, Usage};
use crate::caller::Caller;
use crate::objects::{Objects, Patch, WriteOptions};
use crate::request::ObjectRef;
use crate::stored::{self, Stored};

/// How often is looked. It costs a look at one key for each store, and at what changed.
const PERIOD: Duration = Duration::from_secs(2);
/// A status is written this long after the one before at the earliest.
const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// Keys that are removed in one step.
const REMOVED_MAX: usize = 256;
/// Steps in a row for one store, before others have their turn.
const STEPS_MAX: usize = 64;

/// What is known of the stores that have data, by the key of their usage.
#[derive(Default)]
pub struct Tended(BTreeMap<Key, Known>);

struct Known {
    /// Of the usage that was looked at.
    revision: Revision,
    usage: Usage,
    /// What its status told last, and when that was written.
    told: Option<(u64, u64)>,
    told_at: Option<Instant>,
}

impl Objects {
    /// Tends the data of key-value stores while this server leads, until the token is cancelled.
    pub async fn tend_data(self, closing: CancellationToken) {
        let mut leadership = self.store().leadership();
        let mut tended = Tended::default();
        let mut term = None;
        loop {
            let leads = *leadership.borrow_and_update();
            if leads != term {
                term = leads;
                tended = Tended::default();
            }
            if term.is_some() {
                let caller = Caller::system("keyvaluestore-controller", term);
                self.tend_data_once(&caller, &mut tended).await;
            }
            let news = async {
                match term {
                    Some(_) => tokio::time::sleep(PERIOD).await,
                    // Until it leads; a store that ends never does.
                    None => {
                        if leadership.changed().await.is_err() {
                            closing.cancelled().await;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                () = news => {}
            }
        }
    }

    /// One look: writes the statuses that are due, and removes what belongs to no store. What fails is tried at the next look.
    pub async fn tend_data_once(&self, caller: &Caller, tended: &mut Tended) {
        let snapshot = self.store().snapshot();
        let marks: BTreeMap<Key, Revision> = snapshot.keys(USAGE_PREFIX.as_bytes(), None).collect();
        tended.0.retain(|key, _| marks.contains_key(key));
        for (key, revision) in marks {
            let known = tended.0.get_mut(&key);
            let stale = known
                .as_ref()
                .is_none_or(|known| known.revision != revision);
            if stale {
                let Some(entry) = snapshot.get(&key).filter(|entry| !entry.is_lost()) else {
                    continue;
                };
                let usage = match Usage::read(&entry) {
                    Ok(usage) => usage,
                    Err(error) => {
                        tracing::error!(%key, %error, "how much a key-value store holds cannot be read");
                        continue;
                    }
                };
                match known {
                    Some(known) => (known.revision, known.usage) = (revision, usage),
                    None => {
                        let known = Known {
                            revision,
                            usage,
                            told: None,
                            told_at: None,
                        };
                        tended.0.insert(key.clone(), known);
                    }
                }
            }
            let Some(known) = tended.0.get_mut(&key) else {
                continue;
            };
            let uid = uid_of(&key).to_owned();
            let done = match is_there(self, &snapshot, &known.usage, &uid) {
                true => self.tell_usage(caller, &uid, known).await,
                false => self.remove_data(caller, &key, &uid).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, uid, "a key-value store is tended later");
            }
        }
    }

    /// Tells a store what it holds. One that was made anew under its name since is not told of the other's data.
    async fn tell_usage(
        &self,
        caller: &Caller,
        uid: &str,
        known: &mut Known,
    ) -> Result<(), StatusError> {
        let now = (known.usage.bytes, known.usage.keys);
        let early = known.told_at.is_some_and(|at| at.elapsed() < STATUS_PERIOD);
        if known.told == Some(now) || early {
            return Ok(());
        }
        let Usage {
            namespace, name, ..
        } = &known.usage;
        let object = ObjectRef::new(&KEY_VALUE_STORE, Some(namespace), name);
        let status = json!({
            "metadata": {"uid": uid},
            "status": {"bytes": now.0, "keys": now.1},
        });
        let (part, options) = (Some(Subresource::Status), WriteOptions::default());
        let client = self.client(caller);
        client
            .patch(object, part, Patch::merge(&status), &options)
            .await?;
        known.told = Some(now);
        known.told_at = Some(Instant::now());
        Ok(())
    }

    /// Removes the data of a store that is gone, and at last what is told of it.
    async fn remove_data(
        &self,
        caller: &Caller,
        usage: &Key,
        uid: &str,
    ) -> Result<(), StatusError> {
        let prefix = layout::data_prefix(uid);
        let failed = |error: WriteError| StatusError::unavailable(error.to_string());
        for _ in 0..STEPS_MAX {
            let snapshot = self.store().snapshot();
            let keys = snapshot.keys(&prefix, None).take(REMOVED_MAX);
            let delete = |(key, _)| Mutation::delete(key, Precondition::None);
            let mutations: Vec<Mutation> = keys.map(delete).collect();
            if mutations.is_empty() {
                let last = Mutation::delete(usage.clone(), Precondition::None);
                self.write(caller, vec![last]).await.map_err(failed)?;
                tracing::info!(uid, "removed the data of a key-value store that is gone");
                return Ok(());
            }
            self.write(caller, mutations).await.map_err(failed)?;
        }
        Ok(())
    }
}

fn uid_of(usage: &Key) -> &str {
    let text = std::str::from_utf8(usage.as_bytes()).unwrap_or("");
    text.strip_prefix(USAGE_PREFIX).unwrap_or("")
}

/// Whether a KeyValueStore has this uid. Data is written only while it does, so one that is not there in a state that shows its data
/// is gone.
fn is_there(objects: &Objects, snapshot: &Snapshot, usage: &Usage, uid: &str) -> bool {
    let key = stored::key(&KEY_VALUE_STORE, Some(&usage.namespace), &usage.name);
    let Some(entry) = snapshot.get(&key) else {
        return false;
    };
    let found = Stored::new(&objects.inner.vault, &KEY_VALUE_STORE, entry);
    // One that cannot be read may be the one.
    found.readable().is_err() || text(&found.stored_value(), "/metadata/uid") == uid
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use weft_api::Object;
    use weft_store::{Config, Store};

    use super::*;
    use crate::objects::{self, DeleteOptions};

    const NAMESPACE: Option<&str> = Some("default");

    /// Between the look at a store and what it is told, its name may have come to stand for another one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_is_made_again_is_not_told_what_the_one_before_held() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        let objects = Objects::new(store.clone(), objects::Config::default());
        let caller = Caller::system("test", None);
        objects.ensure_permanent_namespaces(&caller).await.unwrap();
        let (kind, options) = (&KEY_VALUE_STORE, WriteOptions::default());
        let client = objects.client(&caller);
        let made = async || {
            let object = json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "KeyValueStore",
                "metadata": {"name": "carts", "namespace": "default"},
            });
            let object = Object::from_value(object).unwrap();
            let made = client.create(kind, NAMESPACE, object, &options).await;
            made.unwrap().uid().to_owned()
        };
        let status = async || -> Value {
            let object = client.get(kind, NAMESPACE, "carts").await.unwrap();
            object.value()["status"].clone()
        };
        let mut known = Known {
            revision: 1,
            usage: Usage {
                bytes: 70,
                keys: 7,
                ..Usage::none("default", "carts")
            },
            told: None,
            told_at: None,
        };
        let first = made().await;
        let deletion = DeleteOptions::default();
        let deleted = client.delete(kind, NAMESPACE, "carts", &deletion);
        deleted.await.unwrap();
        let second = made().await;
        let told = objects.tell_usage(&caller, &first, &mut known).await;
        assert_eq!(told.unwrap_err().code, 422);
        assert_eq!((status().await, known.told), (Value::Null, None));
        let told = objects.tell_usage(&caller, &second, &mut known).await;
        told.unwrap();
        assert_eq!(status().await, json!({"bytes": 70, "keys": 7}));
        objects.shutdown().await;
        store.shutdown().await;
    }
}
