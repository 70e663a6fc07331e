//! The keys that tokens of ServiceAccounts are signed with: kept in the store like any other entry, so that every server has the same ones.
//!
//! A key lies there as data keys of secrets do, sealed with them, as `[1]{JSON}` of its PKCS #8 and the time of its making. The first is made
//! when one is needed first. A further one ([`SigningKeys::rotate`]) is told at once and signs after [`TOLD_FIRST`], for those who keep what they
//! were told for so long; the older ones stay good until they are removed.
//!
//! Invariants: private keys leave the store as signatures only; every key that ever signed and was not removed is told. Left to others:
//! what is signed (`crate::issuer`), sealing (`crate::encryption`).

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_jws::SignError;
use weft_store::{Entry, Key, Mutation, Precondition, Revision, Snapshot, Store, WriteError};

use crate::encryption::{EncryptionError, Vault};

/// Signing keys in the store; the number at the end sorts.
pub(crate) const PREFIX: &str = "/weft.dev/signingkeys/-/";
/// How long a key is told before it signs: as long as clients may keep what they were told.
pub(crate) const TOLD_FIRST: SignedDuration = SignedDuration::from_secs(3600);
/// Keys at one time. Each is looked at by whoever verifies, and told to whoever asks.
const KEYS_MAX: usize = 16;
/// First byte of the layout; where nothing is sealed, it is that of the entry.
const LAYOUT: u8 = 1;
/// What stands before the point of a P-256 key in DER: a sequence of the two names of the algorithm, and the head of a bit string.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of a coordinate.
const COORDINATE: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error(transparent)]
    Sealed(#[from] EncryptionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the signing key {key} is damaged")]
    Damaged { key: String },
    #[error("a key could not be made")]
    Make,
    #[error(
        "there are {KEYS_MAX} signing keys already: remove one that nothing is signed with any more"
    )]
    TooMany,
    #[error("the key that signs now cannot be removed: rotate, and wait for an hour")]
    InUse,
}

/// A key as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    pkcs8: String,
    created: Timestamp,
}

/// One key.
pub(crate) struct SigningKey {
    at: Key,
    revision: Revision,
    pair: EcdsaKeyPair,
    kid: String,
    created: Timestamp,
}

impl SigningKey {
    fn read(vault: &Vault, entry: &Entry) -> Result<Self, SigningKeyError> {
        let damaged = || SigningKeyError::Damaged {
            key: entry.key.to_string(),
        };
        let layout = vault.open(entry)?;
        let record = layout.strip_prefix(&[LAYOUT]).ok_or_else(damaged)?;
        let record: Record = serde_json::from_slice(record).map_err(|_| damaged())?;
        let pkcs8 = STANDARD.decode(&record.pkcs8).map_err(|_| damaged())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
        let pair = pair.map_err(|_| damaged())?;
        let point = pair.public_key().as_ref();
        // As Kubernetes names its keys: by the digest of the public half in DER.
        let digest = Sha256::new().chain_update(SPKI_HEAD).chain_update(point);
        Ok(Self {
            at: entry.key.clone(),
            revision: entry.revision,
            kid: URL_SAFE_NO_PAD.encode(digest.finalize()),
            pair,
            created: record.created,
        })
    }

    pub(crate) fn created(&self) -> Timestamp {
        self.created
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half: an uncompressed point.
    pub(crate) fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        weft_jws::sign(&self.pair, &self.kid, claims)
    }

    /// The public half as a JSON Web Key.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.point();
        let coordinate = |at: usize| {
            let bytes = point.get(at..at + COORDINATE);
            bytes.map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
        };
        json!({
            "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": weft_jws::ES256,
            "x": coordinate(1), "y": coordinate(1 + COORDINATE),
        })
    }
}

/// All keys of the cluster. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub(crate) struct SigningKeys {
    store: Store,
    vault: Vault,
    /// By the key of the entry.
    read: Arc<RwLock<BTreeMap<Key, Arc<SigningKey>>>>,
}

impl SigningKeys {
    pub(crate) fn new(store: Store, vault: Vault) -> Self {
        Self {
            store,
            vault,
            read: Arc::default(),
        }
    }

    /// The keys of a state, the oldest first. One that cannot be read is left out, and told in the log: the others are as good as before.
    pub(crate) fn all(&self, snapshot: &Snapshot) -> Vec<Arc<SigningKey>> {
        let entries = snapshot.keys(PREFIX.as_bytes(), None);
        let keys = entries.filter_map(|(key, revision)| {
            let known = self.read.read().get(&key).map(Arc::clone);
            if let Some(known) = known.filter(|known| known.revision == revision) {
                return Some(known);
            }
            let entry = snapshot.get(&key)?;
            match SigningKey::read(&self.vault, &entry) {
                Ok(read) => {
                    let read = Arc::new(read);
                    self.read.write().insert(key, Arc::clone(&read));
                    Some(read)
                }
                Err(error) => {
                    tracing::error!(%error, "a key that tokens are signed with cannot be read");
                    None
                }
            }
        });
        keys.collect()
    }

    /// The keys there are now; the first is made where there is none.
    pub(crate) async fn present(&self) -> Result<Vec<Arc<SigningKey>>, SigningKeyError> {
        let here = self.all(&self.store.snapshot());
        if !here.is_empty() {
            return Ok(here);
        }
        let number = self.newest_number(&self.store.snapshot()) + 1;
        self.add(number).await?;
        Ok(self.all(&self.store.snapshot()))
    }

    /// The key that signs at `now`.
    pub(crate) async fn signer(&self, now: Timestamp) -> Result<Arc<SigningKey>, SigningKeyError> {
        let keys = self.present().await?;
        signer(&keys, now).ok_or(SigningKeyError::Make)
    }

    /// Adds a key, which signs once it was told for long enough.
    pub(crate) async fn rotate(&self) -> Result<Vec<Arc<SigningKey>>, SigningKeyError> {
        let present = self.present().await?;
        if present.len() >= KEYS_MAX {
            return Err(SigningKeyError::TooMany);
        }
        let number = self.newest_number(&self.store.snapshot()) + 1;
        self.add(number).await?;
        Ok(self.all(&self.store.snapshot()))
    }

    /// Removes a key by its name: what it signed is worth nothing any more. Whether there was one.
    pub(crate) async fn remove(&self, kid: &str, now: Timestamp) -> Result<bool, SigningKeyError> {
        let keys = self.all(&self.store.snapshot());
        let Some(key) = keys.iter().find(|key| key.kid == kid) else {
            return Ok(false);
        };
        if signer(&keys, now).is_some_and(|signer| signer.kid == kid) {
            return Err(SigningKeyError::InUse);
        }
        let precondition = Precondition::Revision(key.revision);
        let delete = Mutation::delete(key.at.clone(), precondition);
        match self.store.write(vec![delete], None).await {
            Ok(_) => {
                self.read.write().remove(&key.at);
                Ok(true)
            }
            Err(WriteError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn newest_number(&self, snapshot: &Snapshot) -> u32 {
        let keys = snapshot.keys(PREFIX.as_bytes(), None);
        let numbers = keys.filter_map(|(key, _)| {
            let text = std::str::from_utf8(key.as_bytes()).ok()?;
            text.strip_prefix(PREFIX)?.parse().ok()
        });
        numbers.last().unwrap_or(0)
    }

    /// Makes key `number`, unless another server has just done so: then that one is as good.
    async fn add(&self, number: u32) -> Result<(), SigningKeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| SigningKeyError::Make)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| SigningKeyError::Make)?;
        let record = Record {
            pkcs8: STANDARD.encode(pkcs8.as_ref()),
            created: Timestamp::now(),
        };
        let mut layout = vec![LAYOUT];
        serde_json::to_writer(&mut layout, &record).map_err(|_| SigningKeyError::Make)?;
        let key = Key::from(format!("{PREFIX}{number:010}"));
        let sealed = self.vault.seal(&key, layout.into()).await?;
        let put = Mutation::put(key, Precondition::Absent, sealed);
        match self.store.write(vec![put], None).await {
            Ok(_) => tracing::info!(number, "made a key that tokens are signed with"),
            Err(WriteError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Where another server made it, its write may have yet to arrive here.
        if self.all(&self.store.snapshot()).is_empty() {
            let read = self.store.read().await;
            read.map_err(|_| SigningKeyError::Write(WriteError::NoQuorum))?;
        }
        Ok(())
    }
}

/// The newest that was told for long enough, else the oldest: that one was told from the beginning.
fn signer(keys: &[Arc<SigningKey>], now: Timestamp) -> Option<Arc<SigningKey>> {
    let told = |key: &&Arc<SigningKey>| now.duration_since(key.created) >= TOLD_FIRST;
    let newest = keys.iter().rev().find(told);
    newest.or(keys.first()).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(dir: &std::path::Path) -> Store {
        let store = Store::open(weft_store::Config::new(dir)).await.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        store
    }

    #[tokio::test]
    async fn keys_are_sealed_shared_and_sign_once_they_were_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store")).await;
        let file = crate::encryption::KeyFile::load_or_create(&dir.path().join("key")).unwrap();
        let file = Some(Arc::new(file));
        let keys = SigningKeys::new(store.clone(), Vault::new(store.clone(), file.clone()));
        let now = Timestamp::now();
        let first = keys.signer(now).await.unwrap();
        let token = first.sign(&json!({"iss": "i"})).unwrap();
        let parsed = weft_jws::Parsed::of(&token).unwrap();
        assert_eq!(parsed.kid(), first.kid());
        assert!(parsed.verified::<Value>(first.point()).is_some());

        // Another server has the same, and the store holds no private key as it is.
        let other = SigningKeys::new(store.clone(), Vault::new(store.clone(), file));
        assert_eq!(other.signer(now).await.unwrap().kid(), first.kid());
        let entry = store.snapshot().range(PREFIX.as_bytes(), None).next();
        assert_ne!(entry.unwrap().value().first(), Some(&LAYOUT));

        let all = other.rotate().await.unwrap();
        let told: Vec<&str> = all.iter().map(|key| key.kid()).collect();
        assert_eq!(told.len(), 2);
        assert_eq!(keys.signer(now).await.unwrap().kid(), told[0]);
        let later = now + TOLD_FIRST + SignedDuration::from_secs(60);
        assert_eq!(keys.signer(later).await.unwrap().kid(), told[1]);

        assert!(matches!(
            keys.remove(told[0], now).await,
            Err(SigningKeyError::InUse)
        ));
        assert!(keys.remove(told[0], later).await.unwrap());
        assert!(!keys.remove(told[0], later).await.unwrap());
        assert_eq!(other.all(&store.snapshot()).len(), 1);
        assert_eq!(other.signer(now).await.unwrap().kid(), told[1]);
    }

    #[tokio::test]
    async fn a_key_is_told_as_the_standard_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let keys = SigningKeys::new(store.clone(), Vault::new(store.clone(), None));
        let key = keys.signer(Timestamp::now()).await.unwrap();
        let jwk = key.jwk();
        assert_eq!(jwk["kid"].as_str().unwrap().len(), 43);
        let mut point = vec![4];
        for part in ["x", "y"] {
            point.extend(URL_SAFE_NO_PAD.decode(jwk[part].as_str().unwrap()).unwrap());
        }
        assert_eq!(point, key.point());
        assert!(jwk.get("d").is_none());
    }
}
