//! Documents that were asked for, kept while the kinds that they tell of are in force.
//!
//! A document is made when a client asks for it: a v3 document is a few milliseconds of work, version 2 some tens. Clients ask for v3 by its
//! hash and keep it, but kubectl asks for v2 on each `apply` of something that exists. Hashes are kept of all; of the texts, at most
//! [`KEPT_BYTES_MAX`] together. When kinds change, as with each custom resource definition, the documents of the group versions
//! that did not are kept.
//!
//! Invariant: a document is of one registry and of one state of what other servers told, and its hash is that of its bytes. Work is done beside the threads that others wait for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use weft_api::status::StatusError;
use weft_kinds::{Kind, Registry};

use super::{described, document_v2, document_v3, gnostic, group_versions, merged, path_of};
use crate::aggregation;

/// Most bytes of documents that are kept.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What a client is sent.
#[derive(Clone)]
pub struct Document {
    pub hash: Arc<str>,
    pub bytes: Bytes,
}

impl Document {
    fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes);
        let mut hash = String::with_capacity(32);
        digest.iter().take(16).for_each(|byte| {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02X}");
        });
        Self {
            hash: hash.into(),
            bytes,
        }
    }
}

/// A form of the document of all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum V2 {
    Json,
    Gnostic,
}

/// The documents of one server.
#[derive(Clone, Default)]
pub struct Documents(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    registry: Option<Arc<Registry>>,
    v3: BTreeMap<String, OfVersion>,
    v2: BTreeMap<V2, Document>,
    /// The state of what other servers told that is in version 2.
    others: u64,
}

/// What other servers tell of their kinds in version 2, and which state of that it is.
pub(super) type Others = (u64, Vec<Arc<aggregation::V2>>);

/// The document of a group version.
struct OfVersion {
    group: String,
    version: String,
    kinds: Vec<Arc<Kind>>,
    hash: Option<Arc<str>>,
    bytes: Option<Bytes>,
}

impl Documents {
    /// The hash of each group version's document, by its path such as `apis/apps/v1`.
    ///
    /// # Errors
    /// 500 when it cannot be found out.
    pub async fn hashes(
        &self,
        registry: &Arc<Registry>,
    ) -> Result<BTreeMap<String, Arc<str>>, StatusError> {
        let registry = Arc::clone(registry);
        self.with(move |kept| {
            kept.renew(&registry);
            kept.hashes()
        })
        .await
    }

    /// The document of a group version by its path; `None` when it is not served.
    ///
    /// # Errors
    /// 500 when it cannot be made.
    pub async fn v3(
        &self,
        registry: &Arc<Registry>,
        path: &str,
    ) -> Result<Option<Document>, StatusError> {
        let (registry, path) = (Arc::clone(registry), path.to_owned());
        self.with(move |kept| {
            kept.renew(&registry);
            kept.v3(&path)
        })
        .await
    }

    /// The document of all kinds, those of other servers among them.
    ///
    /// # Errors
    /// 500 when it cannot be made.
    pub(super) async fn v2(
        &self,
        registry: &Arc<Registry>,
        others: Others,
        form: V2,
    ) -> Result<Document, StatusError> {
        let registry = Arc::clone(registry);
        self.with(move |kept| {
            kept.renew(&registry);
            let (state, others) = others;
            if state != kept.others {
                kept.others = state;
                kept.v2.clear();
            }
            kept.v2(&others, form)
        })
        .await?
        .map_err(StatusError::internal)
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> T + Send + 'static,
    ) -> Result<T, StatusError> {
        // One at a time: who waits finds it made.
        let mut kept = Arc::clone(&self.0).lock_owned().await;
        tokio::task::spawn_blocking(move || work(&mut kept))
            .await
            .map_err(StatusError::internal)
    }
}

impl Kept {
    /// Lets go of what is not of this registry.
    fn renew(&mut self, registry: &Arc<Registry>) {
        let same = self.registry.as_ref();
        if same.is_some_and(|known| Arc::ptr_eq(known, registry)) {
            return;
        }
        let mut before = std::mem::take(&mut self.v3);
        for (group, version) in group_versions(registry) {
            let path = path_of(group, version);
            let kinds: Vec<Arc<Kind>> = described(registry)
                .filter(|kind| &*kind.group == group && &*kind.version == version)
                .cloned()
                .collect();
            let known = before.remove(&path).filter(|known| {
                let mut pairs = known.kinds.iter().zip(&kinds);
                known.kinds.len() == kinds.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
            });
            let of_version = known.unwrap_or_else(|| OfVersion {
                group: group.to_owned(),
                version: version.to_owned(),
                kinds,
                hash: None,
                bytes: None,
            });
            self.v3.insert(path, of_version);
        }
        self.v2.clear();
        self.registry = Some(Arc::clone(registry));
    }

    fn hashes(&mut self) -> BTreeMap<String, Arc<str>> {
        let paths: Vec<String> = self.v3.keys().cloned().collect();
        paths
            .into_iter()
            .filter_map(|path| {
                let known = self.v3.get(&path)?.hash.clone();
                let hash = match known {
                    Some(hash) => hash,
                    None => self.made(&path)?.hash,
                };
                Some((path, hash))
            })
            .collect()
    }

    fn v3(&mut self, path: &str) -> Option<Document> {
        let of_version = self.v3.get(path)?;
        if let (Some(hash), Some(bytes)) = (&of_version.hash, &of_version.bytes) {
            return Some(Document {
                hash: Arc::clone(hash),
                bytes: bytes.clone(),
            });
        }
        let document = self.made(path)?;
        self.make_room(document.bytes.len());
        self.v3.get_mut(path)?.bytes = Some(document.bytes.clone());
        Some(document)
    }

    /// A document, made now; its hash is kept.
    fn made(&mut self, path: &str) -> Option<Document> {
        let registry = self.registry.as_ref()?;
        let of_version = self.v3.get_mut(path)?;
        let text = document_v3(registry, &of_version.group, &of_version.version);
        let document = Document::of(text);
        of_version.hash = Some(Arc::clone(&document.hash));
        Some(document)
    }

    fn v2(
        &mut self,
        others: &[Arc<aggregation::V2>],
        form: V2,
    ) -> Result<Document, serde_json::Error> {
        if let Some(known) = self.v2.get(&form) {
            return Ok(known.clone());
        }
        let json = match (self.v2.get(&V2::Json), &self.registry) {
            (Some(known), _) => known.bytes.clone(),
            (None, Some(registry)) => {
                let own = document_v2(registry);
                match others {
                    [] => own.into(),
                    others => merged::document(&own, others)?.into(),
                }
            }
            (None, None) => Bytes::from_static(b"{}"),
        };
        let document = match form {
            V2::Json => Document::of(json),
            V2::Gnostic => {
                // Our own text is UTF-8.
                let text = std::str::from_utf8(&json).unwrap_or_default();
                Document::of(gnostic::document(text)?)
            }
        };
        self.make_room(document.bytes.len());
        self.v2.insert(form, document.clone());
        Ok(document)
    }

    /// Lets go of all texts when one more would be too much: those that are asked for come back.
    fn make_room(&mut self, bytes: usize) {
        let of_versions = self.v3.values().filter_map(|known| known.bytes.as_ref());
        let all = self.v2.values().map(|known| &known.bytes);
        let kept: usize = of_versions.chain(all).map(Bytes::len).sum();
        if kept + bytes > KEPT_BYTES_MAX {
            self.v3.values_mut().for_each(|known| known.bytes = None);
            self.v2.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn documents_are_made_once_for_a_registry_and_hashed_by_content() {
        let none = || (0, Vec::new());
        let registry = Registry::builtin();
        let documents = Documents::default();
        let hashes = documents.hashes(&registry).await.unwrap();
        assert!(hashes.contains_key("api/v1"), "{hashes:?}");
        let first = documents.v3(&registry, "api/v1").await.unwrap().unwrap();
        let second = documents.v3(&registry, "api/v1").await.unwrap().unwrap();
        assert_eq!(first.hash, hashes["api/v1"]);
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr());
        assert!(
            documents
                .v3(&registry, "apis/no/v1")
                .await
                .unwrap()
                .is_none()
        );
        // Another registry that has the same kinds keeps them, as one with a kind more keeps those of other groups.
        let again = Arc::new(Registry::new(registry.all().to_vec()));
        let third = documents.v3(&again, "api/v1").await.unwrap().unwrap();
        assert_eq!(first.bytes.as_ptr(), third.bytes.as_ptr());
        let json = documents.v2(&again, none(), V2::Json).await.unwrap();
        let gnostic = documents.v2(&again, none(), V2::Gnostic).await.unwrap();
        assert_ne!(json.hash, gnostic.hash);
        let kept = documents.v2(&again, none(), V2::Gnostic).await.unwrap();
        assert_eq!(gnostic.bytes.as_ptr(), kept.bytes.as_ptr());
        // What is too much together is let go of, and comes back equal.
        documents.0.lock().await.make_room(KEPT_BYTES_MAX);
        let back = documents.v2(&again, none(), V2::Gnostic).await.unwrap();
        assert_ne!(gnostic.bytes.as_ptr(), back.bytes.as_ptr());
        assert_eq!(gnostic.bytes, back.bytes);
    }
}
