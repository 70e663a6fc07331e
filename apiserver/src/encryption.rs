//! Secrets at rest: what is proposed to the store is ciphertext, so the log, the checkpoint, snapshots, backups and the
//! other servers never hold anything else.
//!
//! Envelope encryption with AES-256-GCM, as Kubernetes' KMS providers do it. A *key encryption key* lies in a file that
//! every server of the cluster has ([`KeyFile`]); it wraps *data keys*, which lie in the store like any other entry, so
//! that a new one reaches all servers before the first value under it does. A sealed value is
//! `[2][u32 data key, little endian][12 bytes nonce][ciphertext ‖ 16 bytes tag]` of what [`crate::stored`] lays out; the
//! entry's key is authenticated with it, so that no value can be moved to another name.
//!
//! Invariants: a sealed value is opened or refused as a whole; a data key goes only when no value names it and no write
//! that chose it can still be under way. Left to others: which kinds are sealed (`objects/sealing.rs`), the bytes inside (`stored`).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weft_store::{Entry, Key, Mutation, Precondition, Snapshot, Store, WriteError};

/// First byte of a sealed value; [`crate::stored`] uses 1.
pub(crate) const LAYOUT: u8 = 2;
/// Layout, data key and nonce.
const HEADER: usize = 1 + 4 + NONCE_LEN;
const KEY_BYTES: usize = 32;
/// Data keys in the store; the number at the end sorts.
const DATA_KEYS: &str = "/weft.dev/datakeys/-/";
/// A write is over long before that, one way or the other.
const WRITES_END: Duration = Duration::from_secs(300);

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path} cannot be read or written")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} may be read by others; it must have mode 0600")]
    Exposed { path: PathBuf },
    #[error("line {line} of {path} is no key: it must be 32 bytes in base64")]
    Line { path: PathBuf, line: usize },
    #[error("{path} holds no key")]
    Empty { path: PathBuf },
}

/// Key encryption keys: the first wraps, all unwrap. To change it, put a new line in front on every server, restart them,
/// `weft server rewrap`, and remove the old line.
pub struct KeyFile {
    keys: Vec<(KeyId, RandomizedNonceKey)>,
}

/// Names a key without telling anything of it: the start of its SHA-256.
type KeyId = String;

impl KeyFile {
    /// Reads the file, a key a line; what follows a `#` is a remark. Makes one with a random key when there is none.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                use std::os::unix::fs::PermissionsExt as _;
                let mode = std::fs::metadata(path)
                    .map_err(|source| Self::file_failed(path, source))?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    return Err(KeyFileError::Exposed { path: path.into() });
                }
                Self::parse(&text, path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; KEY_BYTES] = rand::random();
                let text = format!(
                    "# Without this file the secrets of the cluster cannot be read, in backups neither.\n{}\n",
                    STANDARD.encode(key)
                );
                create_key_file(path, &text).map_err(|source| Self::file_failed(path, source))?;
                Self::parse(&text, path)
            }
            Err(source) => Err(Self::file_failed(path, source)),
        }
    }

    fn file_failed(path: &Path, source: io::Error) -> KeyFileError {
        KeyFileError::Io {
            path: path.into(),
            source,
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let refused = || KeyFileError::Line {
                path: path.into(),
                line: number + 1,
            };
            let bytes = STANDARD.decode(line).map_err(|_| refused())?;
            let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| refused())?;
            let digest = Sha256::digest(&bytes);
            let id = digest[..8]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty { path: path.into() });
        }
        Ok(Self { keys })
    }
}

fn create_key_file(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A data key as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Which key of the key files wrapped it.
    key_encryption_key: KeyId,
    nonce: String,
    wrapped: String,
    created: Timestamp,
}

/// Why a value cannot be opened or sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    #[error(
        "this server was given no key, and there are encrypted secrets; start it with the cluster's key file"
    )]
    NoKeys,
    #[error(
        "data key {number} was wrapped with key {wrapped_with}, which is not in this server's key file"
    )]
    MissingKey { number: u32, wrapped_with: KeyId },
    #[error("data key {number} is not in the store or damaged")]
    DataKey { number: u32 },
    #[error(
        "{key} has format {found}, and this program reads formats up to {LAYOUT}; use a newer weft"
    )]
    Newer { key: String, found: u8 },
    #[error("the value of {key} could not be read from this server's disk")]
    Lost { key: String },
    #[error("{key} was replaced while it was read: read it again")]
    Replaced { key: String },
    #[error("the value of {key} is damaged or was moved there")]
    Damaged { key: String },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What [`Vault::rewrap`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewrapped {
    /// The data key that everything is under now.
    pub data_key: u32,
    /// Values that were written anew.
    pub values: u64,
    /// Data keys that are gone.
    pub removed: Vec<u32>,
}

/// Seals and opens. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// None: nothing is sealed, which is an embedder's choice.
    file: Option<Arc<KeyFile>>,
    opened: RwLock<HashMap<u32, Arc<RandomizedNonceKey>>>,
}

fn record_key(number: u32) -> Key {
    Key::from(format!("{DATA_KEYS}{number:010}"))
}

fn number_of(key: &Key) -> Option<u32> {
    std::str::from_utf8(key.as_bytes())
        .ok()?
        .strip_prefix(DATA_KEYS)?
        .parse()
        .ok()
}

/// Whether there are data keys, and so perhaps values that nothing but the right key file opens.
pub fn is_in_use(store: &Store) -> bool {
    let snapshot = store.snapshot();
    snapshot.range(DATA_KEYS.as_bytes(), None).next().is_some()
}

/// The value of an entry, if this program knows how it is laid out.
///
/// # Errors
/// [`EncryptionError::Newer`], and [`EncryptionError::Lost`] where the disk failed.
pub(crate) fn layout_of(entry: &Entry) -> Result<Bytes, EncryptionError> {
    if entry.is_lost() {
        return Err(EncryptionError::Lost {
            key: entry.key.to_string(),
        });
    }
    let value = entry.value();
    match value.first() {
        Some(found) if *found > LAYOUT => Err(EncryptionError::Newer {
            key: entry.key.to_string(),
            found: *found,
        }),
        _ => Ok(value),
    }
}

impl Vault {
    pub fn new(store: Store, file: Option<Arc<KeyFile>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                file,
                opened: RwLock::default(),
            }),
        }
    }

    /// Whether this server can open everything that is there. To be asked before it serves.
    ///
    /// # Errors
    /// The first data key that it cannot unwrap.
    pub fn check_keys(&self) -> Result<(), EncryptionError> {
        let snapshot = self.inner.store.snapshot();
        for entry in snapshot.range(DATA_KEYS.as_bytes(), None) {
            if let Some(number) = number_of(&entry.key) {
                self.read_data_key(number, &snapshot)?;
            }
        }
        Ok(())
    }

    /// The value of an entry, sealed or not.
    pub(crate) fn open(&self, entry: &Entry) -> Result<Bytes, EncryptionError> {
        let value = layout_of(entry)?;
        if value.first() != Some(&LAYOUT) {
            return Ok(value);
        }
        let damaged = || EncryptionError::Damaged {
            key: entry.key.to_string(),
        };
        let (header, sealed) = value.split_at_checked(HEADER).ok_or_else(damaged)?;
        let number = data_key_number(&value).ok_or_else(damaged)?;
        let nonce: [u8; NONCE_LEN] = header[5..].try_into().map_err(|_| damaged())?;
        let key = self.data_key(number)?;
        let mut text = sealed.to_vec();
        let length = key
            .open_in_place(
                Nonce::from(&nonce),
                Aad::from(entry.key.as_bytes()),
                &mut text,
            )
            .map_err(|_| damaged())?
            .len();
        text.truncate(length);
        Ok(text.into())
    }

    /// What to store for `plain` under `key`.
    ///
    /// # Errors
    /// [`EncryptionError`]; without a key file nothing is sealed, and nothing fails.
    pub(crate) async fn seal(&self, key: &Key, plain: Bytes) -> Result<Bytes, EncryptionError> {
        if self.inner.file.is_none() {
            return Ok(plain);
        }
        let number = match self.newest_data_key() {
            Some(number) => number,
            None => self.add_data_key(1).await?,
        };
        self.seal_under(number, key, &plain)
    }

    fn seal_under(&self, number: u32, key: &Key, plain: &[u8]) -> Result<Bytes, EncryptionError> {
        let data_key = self.data_key(number)?;
        let mut text = plain.to_vec();
        let nonce = data_key
            .seal_in_place_append_tag(Aad::from(key.as_bytes()), &mut text)
            .map_err(|_| EncryptionError::DataKey { number })?;
        let mut out = Vec::with_capacity(HEADER + text.len());
        out.push(LAYOUT);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&text);
        Ok(out.into())
    }

    fn newest_data_key(&self) -> Option<u32> {
        let snapshot = self.inner.store.snapshot();
        let records = snapshot.range(DATA_KEYS.as_bytes(), None);
        records.filter_map(|entry| number_of(&entry.key)).last()
    }

    /// A data key that was opened before, or is in the store now.
    fn data_key(&self, number: u32) -> Result<Arc<RandomizedNonceKey>, EncryptionError> {
        if let Some(key) = self.inner.opened.read().get(&number) {
            return Ok(key.clone());
        }
        self.read_data_key(number, &self.inner.store.snapshot())
    }

    fn read_data_key(
        &self,
        number: u32,
        snapshot: &Snapshot,
    ) -> Result<Arc<RandomizedNonceKey>, EncryptionError> {
        let lost = || EncryptionError::DataKey { number };
        let entry = snapshot.get(&record_key(number)).ok_or_else(lost)?;
        let record: Record = serde_json::from_slice(&entry.value()).map_err(|_| lost())?;
        let bytes = self.unwrap_data_key(number, &record)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| lost())?;
        let key = Arc::new(key);
        self.inner.opened.write().insert(number, key.clone());
        Ok(key)
    }

    fn unwrap_data_key(&self, number: u32, record: &Record) -> Result<Vec<u8>, EncryptionError> {
        let lost = || EncryptionError::DataKey { number };
        let file = self.inner.file.as_ref().ok_or(EncryptionError::NoKeys)?;
        let (_, wrapping) = file
            .keys
            .iter()
            .find(|(id, _)| *id == record.key_encryption_key)
            .ok_or_else(|| EncryptionError::MissingKey {
                number,
                wrapped_with: record.key_encryption_key.clone(),
            })?;
        let nonce = STANDARD.decode(&record.nonce).map_err(|_| lost())?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| lost())?;
        let mut bytes = STANDARD.decode(&record.wrapped).map_err(|_| lost())?;
        let length = wrapping
            .open_in_place(
                Nonce::from(&nonce),
                Aad::from(record_key(number).as_bytes()),
                &mut bytes,
            )
            .map_err(|_| lost())?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }

    fn wrap_data_key(
        &self,
        number: u32,
        bytes: &[u8],
        created: Timestamp,
    ) -> Result<Bytes, EncryptionError> {
        let file = self.inner.file.as_ref().ok_or(EncryptionError::NoKeys)?;
        let (id, wrapping) = file.keys.first().ok_or(EncryptionError::NoKeys)?;
        let mut wrapped = bytes.to_vec();
        let nonce = wrapping
            .seal_in_place_append_tag(Aad::from(record_key(number).as_bytes()), &mut wrapped)
            .map_err(|_| EncryptionError::DataKey { number })?;
        let record = Record {
            key_encryption_key: id.clone(),
            nonce: STANDARD.encode(nonce.as_ref()),
            wrapped: STANDARD.encode(wrapped),
            created,
        };
        let text = serde_json::to_vec(&record).map_err(|_| EncryptionError::DataKey { number })?;
        Ok(text.into())
    }

    /// Makes data key `number`, unless another server has just done so: then that one is as good.
    async fn add_data_key(&self, number: u32) -> Result<u32, EncryptionError> {
        let bytes: [u8; KEY_BYTES] = rand::random();
        let record = self.wrap_data_key(number, &bytes, Timestamp::now())?;
        let put = Mutation::put(record_key(number), Precondition::Absent, record);
        match self.inner.store.write(vec![put], None).await {
            Ok(_) => tracing::info!(number, "made a data key for secrets"),
            Err(WriteError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(number)
    }

    /// Brings everything below `prefixes` under a new data key, and all data keys under the first key of the file.
    ///
    /// Values that are written meanwhile stay as they were written.
    ///
    /// # Errors
    /// [`EncryptionError`]. What was done until then stays done; calling it again goes on.
    pub async fn rewrap(&self, prefixes: &[Bytes]) -> Result<Rewrapped, EncryptionError> {
        if self.inner.file.is_none() {
            return Err(EncryptionError::NoKeys);
        }
        let number = self
            .add_data_key(self.newest_data_key().unwrap_or(0) + 1)
            .await?;
        let mut values = 0;
        loop {
            let snapshot = self.inner.store.snapshot();
            let keys = prefixes
                .iter()
                .flat_map(|prefix| snapshot.keys(prefix, None));
            let keys: Vec<Key> = keys.map(|(key, _)| key).collect();
            let mut found = false;
            // One after the other: all of them at once would be all that is stored.
            for key in keys {
                let entry = snapshot.get(&key);
                let old = |entry: &Arc<Entry>| data_key_number(&entry.value()) != Some(number);
                let Some(entry) = entry.filter(old) else {
                    continue;
                };
                found = true;
                let plain = self.open(&entry)?;
                let sealed = self.seal_under(number, &entry.key, &plain)?;
                let current = Precondition::Revision(entry.revision);
                let put = Mutation::put(entry.key.clone(), current, sealed);
                match self.inner.store.write(vec![put], None).await {
                    Ok(_) => values += 1,
                    // Changed or deleted meanwhile; the next round looks at what is there then.
                    Err(WriteError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !found {
                break;
            }
        }
        let removed = self.remove_unused_data_keys(prefixes, number).await?;
        Ok(Rewrapped {
            data_key: number,
            values,
            removed,
        })
    }

    /// Removes data keys that nothing is under, and wraps the others anew.
    async fn remove_unused_data_keys(
        &self,
        prefixes: &[Bytes],
        newest: u32,
    ) -> Result<Vec<u32>, EncryptionError> {
        let snapshot = self.inner.store.snapshot();
        let used: std::collections::HashSet<u32> = prefixes
            .iter()
            .flat_map(|prefix| snapshot.range(prefix, None))
            .filter_map(|entry| data_key_number(&entry.value()))
            .collect();
        let records: Vec<_> = snapshot
            .range(DATA_KEYS.as_bytes(), None)
            .filter_map(|entry| {
                let record: Record = serde_json::from_slice(&entry.value()).ok()?;
                Some((number_of(&entry.key)?, entry, record))
            })
            .collect();
        let mut removed = Vec::new();
        for (at, (number, entry, record)) in records.iter().enumerate() {
            let current = Precondition::Revision(entry.revision);
            // Since its successor is there, nobody has chosen it any more.
            let unchosen = records.get(at + 1).is_some_and(|(_, _, next)| {
                Timestamp::now().duration_since(next.created).unsigned_abs() > WRITES_END
            });
            let change = if *number != newest && unchosen && !used.contains(number) {
                removed.push(*number);
                Mutation::delete(entry.key.clone(), current)
            } else {
                let bytes = self.unwrap_data_key(*number, record)?;
                let record = self.wrap_data_key(*number, &bytes, record.created)?;
                Mutation::put(entry.key.clone(), current, record)
            };
            self.inner.store.write(vec![change], None).await?;
        }
        Ok(removed)
    }
}

/// How many bytes a value has once it is opened.
pub(crate) fn plain_bytes(value: &[u8]) -> usize {
    match value.first() {
        Some(&LAYOUT) => value.len().saturating_sub(HEADER + AES_256_GCM.tag_len()),
        _ => value.len(),
    }
}

/// The data key that a value is sealed under.
fn data_key_number(value: &[u8]) -> Option<u32> {
    let number = value.get(1..5)?.try_into().ok()?;
    (value.first() == Some(&LAYOUT)).then(|| u32::from_le_bytes(number))
}
