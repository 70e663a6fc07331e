//! How the data of key-value stores lies in the cluster's store.
//!
//! A key is `/weft.dev/keyvaluedata/UID/KEY` with the uid of its KeyValueStore, so that a store that is made again under the same
//! name begins empty. A value is `[1][16 bytes: id of the write][the bytes]`, sealed as Secrets are where there is a key. How much a
//! store holds is under `/weft.dev/keyvalueusage/UID`: each write that changes it replaces that in the same step, if nobody else did.
//!
//! Invariants: a data key is there only while the usage of its store is; what usage tells is the sum over the data keys.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weft_store::{Entry, Key};

use super::operation::{Id, Name};
use crate::encryption::{self, EncryptionError, Vault};

/// Before the data of all stores.
pub const DATA_PREFIX: &str = "/weft.dev/keyvaluedata/";
/// Before what each store holds.
pub(super) const USAGE_PREFIX: &str = "/weft.dev/keyvalueusage/";
/// What nobody follows the changes of, and is written often: for [`weft_store::Config::unwatched`].
pub const UNWATCHED: [&str; 2] = [DATA_PREFIX, USAGE_PREFIX];

const LAYOUT: u8 = 1;
/// Layout and id.
const HEADER: usize = 1 + size_of::<Id>();

/// How much a store holds, and which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub namespace: String,
    pub name: String,
    /// Of keys and values.
    pub bytes: u64,
    pub keys: u64,
}

impl Usage {
    pub fn none(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            bytes: 0,
            keys: 0,
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        // Two texts and two numbers: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// # Errors
    /// For what no program of ours wrote.
    pub fn read(entry: &Entry) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&entry.value())
    }
}

pub(super) fn usage_key(uid: &str) -> Key {
    Key::from(format!("{USAGE_PREFIX}{uid}"))
}

/// Before all data of a store.
pub(super) fn data_prefix(uid: &str) -> Bytes {
    Bytes::from(format!("{DATA_PREFIX}{uid}/"))
}

pub(super) fn data_key(uid: &str, name: &Name) -> Key {
    Key::from(format!("{DATA_PREFIX}{uid}/{}", name.0))
}

/// What is stored for a value.
///
/// # Errors
/// As [`Vault::seal`].
pub(super) async fn encode(
    vault: &Vault,
    key: &Key,
    id: Id,
    value: &[u8],
) -> Result<Bytes, EncryptionError> {
    let mut plain = Vec::with_capacity(HEADER + value.len());
    plain.push(LAYOUT);
    plain.extend_from_slice(&id);
    plain.extend_from_slice(value);
    vault.seal(key, plain.into()).await
}

/// A value, and the id of the write that it is of.
///
/// # Errors
/// As [`Vault::open`].
pub(super) fn decode(vault: &Vault, entry: &Entry) -> Result<(Id, Bytes), EncryptionError> {
    let plain = vault.open(entry)?;
    let id = plain.get(1..HEADER).and_then(|id| id.try_into().ok());
    let id = id.ok_or_else(|| EncryptionError::Damaged {
        key: entry.key.to_string(),
    })?;
    Ok((id, plain.slice(HEADER..)))
}

/// How many bytes the value has, without opening it.
///
/// # Errors
/// [`EncryptionError::Lost`] where the disk failed and [`EncryptionError::Newer`]: no number would be the one that was counted.
pub(super) fn value_bytes(entry: &Entry) -> Result<u64, EncryptionError> {
    let stored = encryption::layout_of(entry)?;
    let plain = encryption::plain_bytes(&stored);
    Ok(plain.saturating_sub(HEADER) as u64)
}
