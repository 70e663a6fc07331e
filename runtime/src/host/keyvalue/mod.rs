//! `wasi:keyvalue`: buckets of keys and values that outlive instances. `store`, `atomics` and `batch`, of 0.2.0-draft2 and 0.2.0-draft.
//!
//! A workload is granted buckets by the identifiers that its guest opens them by ([`WorkloadBuilder::key_value`]). Where the data of
//! one is, a [`KeyValueStore`] says: in this process's memory ([`MemoryStore`]), or wherever the embedder keeps it.
//!
//! Invariants: what is asked of a store is within the bounds of this file, and so is what it answers, whoever asks and whoever
//! answers; an operation ends with the call that it is made for, and after [`OPERATION_WITHIN`] at the latest; a workload has no
//! more than `Limits::key_value_max` under way, further ones wait; what a guest has of buckets, handles and results is charged to
//! its workload's memory.
//!
//! Nothing is `async` in this WIT: the instance that asks does nothing else until it has its answer, neither in WASI 0.2 nor in 0.3.
//!
//! [`WorkloadBuilder::key_value`]: crate::WorkloadBuilder::key_value

mod functions;
mod memory;
mod remote;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;

use crate::body::{Body, BoxError};
use crate::capability::{Capability, Channels, Grants, Served};
use crate::engine::Calls;
use crate::host::HostState;
use crate::limits::{HostBytes, Limits};

pub(super) use functions::{Bucket, Cas};
pub use memory::MemoryStore;

/// A key has one byte at least, and at most these.
pub const KEY_BYTES_MAX: usize = 512;
/// What one value may have.
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// Keys in one batch.
pub const BATCH_KEYS_MAX: usize = 1_000;
/// What the values of one batch may have together, those that are set as well as those that are got.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Keys in one page of a listing.
pub const PAGE_KEYS_MAX: usize = 1_000;
/// What a store says for where a listing goes on.
pub const CURSOR_BYTES_MAX: usize = 1 << 10;
/// What an operation may take, if the call that it is made for may take longer.
pub const OPERATION_WITHIN: Duration = Duration::from_secs(30);
/// What a guest calls a bucket.
const IDENTIFIER_BYTES_MAX: usize = 256;

/// A value, and which one it is of all that its key ever had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub value: Bytes,
    /// Never zero, and never the same for two values of a key, also when it was deleted between them.
    pub revision: u64,
}

/// Some keys of a store, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most [`PAGE_KEYS_MAX`].
    pub keys: Vec<String>,
    /// What to ask for the next page with; none at the end. At most [`CURSOR_BYTES_MAX`].
    pub cursor: Option<String>,
}

/// What came of a [`KeyValueStore::compare_and_set`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// The value is set, and has this revision.
    Done { revision: u64 },
    /// The key has another value than was expected, or none.
    Changed(Option<Entry>),
}

/// Why an operation on a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum KeyValueError {
    #[error("there is no such store")]
    NoSuchStore,
    /// The guest is only told that it was; `missing` says what would have to be granted.
    #[error("access is denied: {missing}")]
    AccessDenied { missing: String },
    /// Nothing was changed.
    #[error("the store is full: {reason}")]
    QuotaExceeded { reason: String },
    /// Anything else, as a sentence that the guest reads. After one of these a write may have happened.
    #[error("{reason}")]
    Other { reason: String },
}

impl KeyValueError {
    pub(crate) fn other(reason: impl Into<String>) -> KeyValueError {
        let reason = reason.into();
        KeyValueError::Other { reason }
    }
}

/// What an operation comes to. Dropping it gives the operation up; a write may happen nevertheless.
pub type Operation<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyValueError>> + Send + 'a>>;

/// Where the data of a bucket is. Implemented by [`MemoryStore`], and by embedders that keep it elsewhere.
///
/// Keys, values and batches that a store is asked for are within the bounds of this module: the runtime refuses others before. A
/// workload's reads see its own writes that have ended.
pub trait KeyValueStore: Send + Sync + 'static {
    fn get<'a>(&'a self, key: &'a str) -> Operation<'a, Option<Entry>>;
    /// One answer for each key, in their order. Stops with an error where the values have more than [`BATCH_BYTES_MAX`].
    fn get_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, Vec<Option<Entry>>>;
    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Operation<'a, ()>;
    /// All of them or none. Of entries with the same key the last one stays.
    fn set_many(&self, entries: Vec<(String, Bytes)>) -> Operation<'_, ()>;
    /// Also good when there is no such key.
    fn delete<'a>(&'a self, key: &'a str) -> Operation<'a, ()>;
    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, ()>;
    fn exists<'a>(&'a self, key: &'a str) -> Operation<'a, bool>;
    /// The keys after `cursor`, which an earlier page has come with. One that makes no sense is an error.
    fn list_keys<'a>(&'a self, cursor: Option<&'a str>) -> Operation<'a, Page>;
    /// Adds `delta` to a number in decimal text, of nothing to zero. What is no number, or becomes too large for an `i64`, is left as
    /// it is, with an error ([`incremented`]).
    fn increment<'a>(&'a self, key: &'a str, delta: i64) -> Operation<'a, i64>;
    /// Sets `key` if its value has this revision; 0 stands for there being none.
    fn compare_and_set<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
        value: Bytes,
    ) -> Operation<'a, Swap>;
}

/// What a value becomes when it is incremented by `delta`.
///
/// # Errors
/// When it is not the text of a decimal number, or the sum is none that an `i64` can be.
pub fn incremented(value: Option<&[u8]>, delta: i64) -> Result<i64, KeyValueError> {
    let number = match value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| KeyValueError::other("the value is not a decimal number"))?,
    };
    number
        .checked_add(delta)
        .ok_or_else(|| KeyValueError::other("the number would leave the range of 64 bits"))
}

/// A store, held to the bounds of this module on both sides.
#[derive(Clone)]
struct Checked(Arc<dyn KeyValueStore>);

impl Checked {
    async fn get(&self, key: &str) -> Result<Option<Entry>, KeyValueError> {
        check_key(key)?;
        let entry = self.0.get(key).await?;
        check_values(&entry, VALUE_BYTES_MAX)?;
        Ok(entry)
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, KeyValueError> {
        check_keys(keys)?;
        let entries = self.0.get_many(keys).await?;
        if entries.len() != keys.len() {
            return Err(KeyValueError::other("the store answered for other keys"));
        }
        check_values(entries.iter().flatten(), BATCH_BYTES_MAX)?;
        Ok(entries)
    }

    async fn set(&self, key: &str, value: Bytes) -> Result<(), KeyValueError> {
        check_key(key)?;
        check_value(&value)?;
        self.0.set(key, value).await
    }

    async fn set_many(&self, entries: Vec<(String, Bytes)>) -> Result<(), KeyValueError> {
        check_keys(entries.iter().map(|(key, _)| key))?;
        for (_, value) in &entries {
            check_value(value)?;
        }
        check_batch(entries.iter().map(|(_, value)| value.len()).sum())?;
        self.0.set_many(entries).await
    }

    async fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        check_key(key)?;
        self.0.delete(key).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), KeyValueError> {
        check_keys(keys)?;
        self.0.delete_many(keys).await
    }

    async fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        check_key(key)?;
        self.0.exists(key).await
    }

    async fn list_keys(&self, cursor: Option<&str>) -> Result<Page, KeyValueError> {
        check_cursor(cursor)?;
        let page = self.0.list_keys(cursor).await?;
        let keys = page.keys.len() <= PAGE_KEYS_MAX
            && page.keys.iter().all(|key| key.len() <= KEY_BYTES_MAX);
        if !keys {
            return Err(KeyValueError::other("the store listed more than it may"));
        }
        check_cursor(page.cursor.as_deref())?;
        Ok(page)
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        check_key(key)?;
        self.0.increment(key, delta).await
    }

    async fn compare_and_set(
        &self,
        key: &str,
        revision: u64,
        value: Bytes,
    ) -> Result<Swap, KeyValueError> {
        check_key(key)?;
        check_value(&value)?;
        let swap = self.0.compare_and_set(key, revision, value).await?;
        if let Swap::Changed(entry) = &swap {
            check_values(entry, VALUE_BYTES_MAX)?;
        }
        Ok(swap)
    }
}

fn check_key(key: &str) -> Result<(), KeyValueError> {
    match key.len() {
        0 => Err(KeyValueError::other("the key is empty")),
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(KeyValueError::other(format!(
            "the key has {bytes} bytes, and {KEY_BYTES_MAX} is the most that one may have"
        ))),
    }
}

fn check_keys<'a>(
    keys: impl IntoIterator<Item = &'a String, IntoIter: ExactSizeIterator>,
) -> Result<(), KeyValueError> {
    let mut keys = keys.into_iter();
    if keys.len() > BATCH_KEYS_MAX {
        let count = keys.len();
        return Err(KeyValueError::other(format!(
            "the batch has {count} keys, and {BATCH_KEYS_MAX} is the most that one may have"
        )));
    }
    keys.try_for_each(|key| check_key(key))
}

fn check_value(value: &Bytes) -> Result<(), KeyValueError> {
    let bytes = value.len();
    if bytes > VALUE_BYTES_MAX {
        return Err(KeyValueError::other(format!(
            "the value has {bytes} bytes, and {VALUE_BYTES_MAX} is the most that one may have"
        )));
    }
    Ok(())
}

fn check_batch(bytes: usize) -> Result<(), KeyValueError> {
    if bytes > BATCH_BYTES_MAX {
        return Err(KeyValueError::other(format!(
            "the values of the batch have {bytes} bytes, and {BATCH_BYTES_MAX} is the most that they may have together"
        )));
    }
    Ok(())
}

/// What a store has answered.
fn check_values<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    bytes_max: usize,
) -> Result<(), KeyValueError> {
    let bytes: usize = entries.into_iter().map(|entry| entry.value.len()).sum();
    if bytes > bytes_max {
        return Err(KeyValueError::other(format!(
            "what was asked for has {bytes} bytes, and {bytes_max} is the most that is got at once"
        )));
    }
    Ok(())
}

fn check_cursor(cursor: Option<&str>) -> Result<(), KeyValueError> {
    if cursor.is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX) {
        return Err(KeyValueError::other("the cursor is none of this store's"));
    }
    Ok(())
}

/// The buckets of one workload, by what its guest calls them.
#[derive(Clone, Default)]
pub struct Buckets(BTreeMap<String, Checked>);

impl Buckets {
    fn insert(&mut self, identifier: impl Into<String>, store: Arc<dyn KeyValueStore>) {
        self.0.insert(identifier.into(), Checked(store));
    }

    fn get(&self, identifier: &str) -> Result<Checked, KeyValueError> {
        let store = self.0.get(identifier).cloned();
        store.ok_or(KeyValueError::NoSuchStore)
    }

    /// The store of that name, as it was granted.
    #[cfg(test)]
    pub(crate) fn store(&self, identifier: &str) -> Option<Arc<dyn KeyValueStore>> {
        Some(self.0.get(identifier)?.0.clone())
    }
}

impl Grants {
    /// Grants `wasi:keyvalue`, and `store` as the bucket that the guest opens by `identifier`, beside those that are granted already.
    pub fn key_value(&mut self, identifier: impl Into<String>, store: Arc<dyn KeyValueStore>) {
        let mut buckets = self.of::<KeyValue>().cloned().unwrap_or_default();
        buckets.insert(identifier, store);
        self.give::<KeyValue>(buckets);
    }
}

/// The capability.
pub struct KeyValue;

impl Capability for KeyValue {
    const NAME: &'static str = "wasi:keyvalue";
    const INTERFACES: &'static [&'static str] = &[
        "wasi:keyvalue/store@0.2.0-draft2",
        "wasi:keyvalue/atomics@0.2.0-draft2",
        "wasi:keyvalue/batch@0.2.0-draft2",
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:keyvalue/atomics@0.2.0-draft",
        "wasi:keyvalue/batch@0.2.0-draft",
    ];
    type Grant = Buckets;
    type Bound = Buckets;

    fn link(&self, linker: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
        functions::link(linker)
    }

    fn bind(&self, grant: &Buckets, _: &Arc<HostBytes>) -> Buckets {
        grant.clone()
    }

    fn pack(&self, grant: &Buckets) -> Option<Vec<u8>> {
        remote::pack(grant)
    }

    fn unpack(&self, packed: &[u8], channels: &Channels) -> Result<Buckets, BoxError> {
        remote::unpack(packed, channels)
    }

    fn serve(&self, grant: &Buckets, method: &str, message: Body) -> Served {
        remote::serve(grant, method, message)
    }

    fn channels_max(&self, limits: &Limits) -> usize {
        limits.key_value_max
    }
}
