//! Secrets on their way into the store, and all of them under a new key.

use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::KindRef;
use weft_kinds::lens::text;
use weft_store::Key;

use super::freshness::write_failed;
use super::{DATA_PREFIX, Objects};
use crate::authn::sessions;
use crate::authz::Authorized;
use crate::encryption::{self, EncryptionError, Rewrapped};
use crate::request::Asked;
use crate::{roots, signing_keys, stored};

/// Where administrators ask for [`Objects::rewrap`].
pub const REWRAP_PATH: &str = "/weft/v1/encryption/rewrap";

impl Objects {
    /// Whether this server can read what its store holds; to be asked before it serves. Looks at each object's first byte.
    ///
    /// # Errors
    /// When there are Secrets that this server has no key for, or objects that a newer program wrote.
    pub fn check_readable(&self) -> Result<(), EncryptionError> {
        self.inner.vault.check_keys()?;
        let snapshot = self.inner.store.snapshot();
        for kind in self.registry().stored() {
            for entry in snapshot.range(&stored::prefix(kind, None), None) {
                encryption::layout_of(&entry)?;
            }
        }
        Ok(())
    }

    /// The bytes to store for an object: ciphertext for Secrets.
    pub(super) async fn encode(
        &self,
        kind: KindRef<'_>,
        key: &Key,
        value: &Value,
    ) -> Result<bytes::Bytes, StatusError> {
        let plain = stored::encode(value).map_err(StatusError::internal)?;
        let name = text(value, "/metadata/name");
        self.sealed(kind, key, name, plain).await
    }

    /// What [`Objects::encode`] makes of what was encoded already.
    pub(super) async fn sealed(
        &self,
        kind: KindRef<'_>,
        key: &Key,
        name: &str,
        plain: bytes::Bytes,
    ) -> Result<bytes::Bytes, StatusError> {
        if !kind.stored().sealed {
            return Ok(plain);
        }
        match self.inner.vault.seal(key, plain).await {
            Ok(sealed) => Ok(sealed),
            Err(EncryptionError::Write(error)) => Err(write_failed(kind, name, error)),
            Err(error) => Err(StatusError::internal(error)),
        }
    }

    /// Brings all Secrets, the data of key-value stores, the keys of tokens those of authorities, and sessions under a new data key; see [`Vault::rewrap`].
    ///
    /// # Errors
    /// 429 and 503 when the store cannot take it now, 500 when a value cannot be opened.
    pub async fn rewrap(&self, asked: &Authorized) -> Result<Rewrapped, StatusError> {
        let request = asked.request();
        if !matches!(&request.asked, Asked::Path(path) if path == REWRAP_PATH && request.verb == "post")
        {
            return Err(StatusError::method_not_allowed());
        }
        let registry = self.registry();
        let sealed = registry.stored().filter(|kind| kind.sealed);
        let prefixes = sealed.map(|kind| stored::prefix(kind, None));
        let data = DATA_PREFIX.as_bytes().into();
        let keys = signing_keys::PREFIX.as_bytes().into();
        let roots = roots::PREFIX.as_bytes().into();
        let sessions = sessions::PREFIXES.map(|prefix| prefix.as_bytes().into());
        let prefixes = prefixes.chain([data, keys, roots]).chain(sessions);
        let prefixes: Vec<_> = prefixes.collect();
        let done = self.inner.vault.rewrap(&prefixes).await;
        done.map_err(|error| match error {
            EncryptionError::Write(error) => write_failed(&weft_kinds::SECRET, "", error),
            error => StatusError::internal(error),
        })
    }
}
