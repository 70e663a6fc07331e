//! Buckets in a worker process: their data stays with the node, which does what the guests ask for, operation by operation.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    BATCH_BYTES_MAX, BATCH_KEYS_MAX, Buckets, Checked, Entry, KEY_BYTES_MAX, KeyValue,
    KeyValueError, KeyValueStore, OPERATION_WITHIN, Operation, Page, Swap,
};
use crate::body::{Body, BoxError};
use crate::capability::{ChannelError, Channels, Served};

/// The one method.
const DO: &str = "do";
/// Around each key or value of a message: its length and that there is one.
const FRAME_BYTES: usize = 16;
/// One batch, in either direction.
const MESSAGE_BYTES_MAX: usize =
    BATCH_BYTES_MAX + BATCH_KEYS_MAX * (KEY_BYTES_MAX + FRAME_BYTES) + (4 << 10);

#[derive(Serialize, Deserialize)]
struct Message<T> {
    identifier: String,
    what: T,
}

/// An operation, written down.
#[derive(Serialize, Deserialize)]
enum Asked {
    Get(String),
    GetMany(#[serde(deserialize_with = "batch")] Vec<String>),
    Set(String, Bytes),
    SetMany(#[serde(deserialize_with = "batch")] Vec<(String, Bytes)>),
    Delete(String),
    DeleteMany(#[serde(deserialize_with = "batch")] Vec<String>),
    Exists(String),
    ListKeys(Option<String>),
    Increment(String, i64),
    CompareAndSet(String, u64, Bytes),
}

/// Reads no more than a batch may have: an empty key is one byte in a message, and twenty-four in memory.
fn batch<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Batch<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Batch<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {BATCH_KEYS_MAX} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            let mut batch = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if batch.len() == BATCH_KEYS_MAX {
                    return Err(A::Error::invalid_length(batch.len() + 1, &self));
                }
                batch.push(entry);
            }
            Ok(batch)
        }
    }

    deserializer.deserialize_seq(Batch(PhantomData))
}

/// The identifiers are all that a worker has to know.
pub(super) fn pack(buckets: &Buckets) -> Option<Vec<u8>> {
    let identifiers: Vec<&String> = buckets.0.keys().collect();
    postcard::to_allocvec(&identifiers).ok()
}

pub(super) fn unpack(packed: &[u8], channels: &Channels) -> Result<Buckets, BoxError> {
    let identifiers: Vec<String> = postcard::from_bytes(packed)?;
    let mut buckets = Buckets::default();
    for identifier in identifiers {
        let store = Arc::new(Remote {
            identifier: identifier.clone(),
            channels: channels.clone(),
        });
        buckets.insert(identifier, store);
    }
    Ok(buckets)
}

/// Does what a worker asks for, if its workload may.
pub(super) fn serve(buckets: &Buckets, method: &str, message: Body) -> Served {
    let (buckets, known) = (buckets.clone(), method == DO);
    Box::pin(async move {
        if !known {
            return Err(ChannelError::NoSuchMethod);
        }
        let message = collect(message).await?;
        let message: Message<Asked> =
            postcard::from_bytes(&message).map_err(|_| ChannelError::Malformed)?;
        let store = buckets.get(&message.identifier);
        let doing = async {
            match store {
                Ok(store) => carry_out(&store, message.what).await,
                Err(error) => said::<()>(Err(error)),
            }
        };
        let answer = tokio::time::timeout(OPERATION_WITHIN, doing).await;
        answer.map_err(|_| ChannelError::Timeout)?.map(Body::full)
    })
}

async fn collect(mut message: Body) -> Result<Bytes, ChannelError> {
    let mut collected = BytesMut::new();
    while let Some(frame) = message.frame().await {
        let frame = frame.map_err(|error| ChannelError::Failed {
            reason: error.to_string(),
        })?;
        let data = frame.into_data().unwrap_or_default();
        if collected.len() + data.len() > MESSAGE_BYTES_MAX {
            return Err(ChannelError::TooLarge);
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

async fn carry_out(store: &Checked, what: Asked) -> Result<Vec<u8>, ChannelError> {
    match what {
        Asked::Get(key) => said(store.get(&key).await),
        Asked::GetMany(keys) => said(store.get_many(&keys).await),
        Asked::Set(key, value) => said(store.set(&key, value).await),
        Asked::SetMany(entries) => said(store.set_many(entries).await),
        Asked::Delete(key) => said(store.delete(&key).await),
        Asked::DeleteMany(keys) => said(store.delete_many(&keys).await),
        Asked::Exists(key) => said(store.exists(&key).await),
        Asked::ListKeys(cursor) => said(store.list_keys(cursor.as_deref()).await),
        Asked::Increment(key, delta) => said(store.increment(&key, delta).await),
        Asked::CompareAndSet(key, revision, value) => {
            said(store.compare_and_set(&key, revision, value).await)
        }
    }
}

fn said<T: Serialize>(result: Result<T, KeyValueError>) -> Result<Vec<u8>, ChannelError> {
    postcard::to_allocvec(&result).map_err(|error| ChannelError::Failed {
        reason: error.to_string(),
    })
}

/// One bucket, in a worker.
struct Remote {
    identifier: String,
    channels: Channels,
}

impl Remote {
    fn ask<T>(&self, what: Asked) -> Operation<'_, T>
    where
        T: for<'a> Deserialize<'a> + Send + 'static,
    {
        Box::pin(async move {
            let message = Message {
                identifier: self.identifier.clone(),
                what,
            };
            let failed = |error: &dyn std::error::Error| KeyValueError::other(error.to_string());
            let message = postcard::to_allocvec(&message).map_err(|error| failed(&error))?;
            let opened = self.channels.open::<KeyValue>(DO, Body::full(message));
            let answer = opened.await.map_err(|error| failed(&error))?;
            let answer = collect(answer).await.map_err(|error| failed(&error))?;
            postcard::from_bytes::<Result<T, KeyValueError>>(&answer)
                .map_err(|error| failed(&error))?
        })
    }
}

impl KeyValueStore for Remote {
    fn get<'a>(&'a self, key: &'a str) -> Operation<'a, Option<Entry>> {
        self.ask(Asked::Get(key.to_owned()))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, Vec<Option<Entry>>> {
        self.ask(Asked::GetMany(keys.to_vec()))
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Operation<'a, ()> {
        self.ask(Asked::Set(key.to_owned(), value))
    }

    fn set_many(&self, entries: Vec<(String, Bytes)>) -> Operation<'_, ()> {
        self.ask(Asked::SetMany(entries))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Operation<'a, ()> {
        self.ask(Asked::Delete(key.to_owned()))
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, ()> {
        self.ask(Asked::DeleteMany(keys.to_vec()))
    }

    fn exists<'a>(&'a self, key: &'a str) -> Operation<'a, bool> {
        self.ask(Asked::Exists(key.to_owned()))
    }

    fn list_keys<'a>(&'a self, cursor: Option<&'a str>) -> Operation<'a, Page> {
        self.ask(Asked::ListKeys(cursor.map(str::to_owned)))
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i64) -> Operation<'a, i64> {
        self.ask(Asked::Increment(key.to_owned(), delta))
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
        value: Bytes,
    ) -> Operation<'a, Swap> {
        self.ask(Asked::CompareAndSet(key.to_owned(), revision, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;
    use crate::capability::Capability;

    fn granted() -> Buckets {
        let mut buckets = Buckets::default();
        buckets.insert("carts", Arc::new(MemoryStore::new(1 << 20, 100)));
        buckets
    }

    /// The other half's grant, with the way there and back.
    fn remote(node: Buckets) -> Buckets {
        let packed = pack(&node).expect("identifiers can be written down");
        let channels = Channels::new(move |_, method, message| serve(&node, method, message));
        unpack(&packed, &channels).expect("they can be read")
    }

    #[tokio::test]
    async fn a_bucket_is_the_same_from_a_worker() {
        let node = granted();
        let (here, there) = (node.get("carts").unwrap(), remote(node).get("carts"));
        let there = there.unwrap();
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        there.set("a", Bytes::from_static(b"\xff\0")).await.unwrap();
        assert_eq!(here.get("a").await, there.get("a").await);
        let both = vec![("b".to_owned(), bytes("1")), ("c".to_owned(), bytes("x"))];
        there.set_many(both).await.unwrap();
        assert_eq!(there.increment("b", 41).await, Ok(42));
        let keys = ["a", "missing", "b"].map(str::to_owned);
        assert_eq!(here.get_many(&keys).await, there.get_many(&keys).await);
        assert_eq!(here.list_keys(None).await, there.list_keys(None).await);
        for (there, here) in [
            (there.increment("c", 1).await, here.increment("c", 1).await),
            (there.increment("", 1).await, here.increment("", 1).await),
        ] {
            assert_eq!(there, here);
        }
        let stale = there.compare_and_set("c", 0, bytes("y")).await.unwrap();
        let Swap::Changed(Some(entry)) = stale else {
            panic!("it has a value: {stale:?}")
        };
        let swapped = there.compare_and_set("c", entry.revision, bytes("y")).await;
        assert!(matches!(swapped, Ok(Swap::Done { .. })), "{swapped:?}");
        there.delete("a").await.unwrap();
        there.delete_many(&keys).await.unwrap();
        assert_eq!(there.exists("a").await, Ok(false));
        assert_eq!(here.exists("c").await, Ok(true));
    }

    /// What a worker sends that holds to nothing.
    #[tokio::test]
    async fn attack_116_whatever_a_worker_sends_is_judged_here() {
        let node = granted();
        let send = async |method: &str, message: Vec<u8>| {
            let answer = KeyValue.serve(&node, method, Body::full(message)).await;
            match answer {
                Ok(answer) => {
                    let answer = answer.collect().await.unwrap().to_bytes();
                    let read = postcard::from_bytes::<Result<(), KeyValueError>>(&answer);
                    read.unwrap().unwrap_err().to_string()
                }
                Err(error) => error.to_string(),
            }
        };
        let ask = |identifier: &str, what| {
            let identifier = identifier.to_owned();
            postcard::to_allocvec(&Message { identifier, what }).unwrap()
        };
        let set = |key: &str, bytes: usize| Asked::Set(key.to_owned(), vec![7; bytes].into());
        let many = |count: usize, bytes: usize| {
            let entry = |number: usize| (number.to_string(), Bytes::from(vec![7; bytes]));
            Asked::SetMany((0..count).map(entry).collect())
        };
        for (method, message, expected) in [
            (
                "else",
                ask("carts", set("a", 1)),
                "the capability has no such method",
            ),
            (DO, vec![], "the message makes no sense"),
            (DO, vec![0xff; 64], "the message makes no sense"),
            (DO, ask("others", set("a", 1)), "there is no such store"),
            (DO, ask("carts", set("", 1)), "the key is empty"),
            (
                DO,
                ask("carts", set(&"k".repeat(513), 1)),
                "the key has 513 bytes, and 512 is the most that one may have",
            ),
            (
                DO,
                ask("carts", set("a", (512 << 10) + 1)),
                "the value has 524289 bytes, and 524288 is the most that one may have",
            ),
            (
                DO,
                ask("carts", many(1_001, 1)),
                "the message makes no sense",
            ),
            (
                DO,
                ask("carts", many(3, 512 << 10)),
                "the values of the batch have 1572864 bytes, and 1048576 is the most that they may have together",
            ),
            (
                DO,
                ask("carts", many(6, 512 << 10)),
                "the message has more bytes than it may have, or does not say how many",
            ),
        ] {
            assert_eq!(send(method, message).await, expected);
        }
        let held = node.get("carts").unwrap().list_keys(None).await.unwrap();
        assert_eq!(held, Page::default());
    }
}
