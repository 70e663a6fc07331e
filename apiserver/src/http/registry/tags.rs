//! Tags: which manifest a name stands for, the same on every server.
//!
//! Kept in the store, as `/weft.dev/imagetags/-/NAME:TAG` with the digest as value: in files, a server that was away would go
//! on telling what a tag meant before. Manifests and blobs are files, found by their digest.

use std::collections::BTreeSet;

use bytes::Bytes;
use weft_store::{Key, Mutation, Precondition, Snapshot, Store, WriteError};

use super::Digest;

const TAGS: &str = "/weft.dev/imagetags/-/";

#[derive(Clone)]
pub(super) struct Tags(pub Store);

fn key(repository: &str, tag: &str) -> String {
    format!("{TAGS}{repository}:{tag}")
}

/// Repository and tag of a key.
fn parse(key: &Key) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    text.strip_prefix(TAGS)?.rsplit_once(':')
}

fn digest(value: &Bytes) -> Option<Digest> {
    Digest::parse(std::str::from_utf8(value).ok()?)
}

impl Tags {
    /// What a tag stands for.
    pub async fn get(&self, repository: &str, tag: &str) -> Option<Digest> {
        let key = Key::from(key(repository, tag));
        digest(&self.newest().await.get(&key)?.value())
    }

    /// What a tag stands for, as this server has applied it.
    pub fn applied(&self, repository: &str, tag: &str) -> Option<Digest> {
        let key = Key::from(key(repository, tag));
        digest(&self.0.snapshot().get(&key)?.value())
    }

    /// Lets a tag stand for a manifest, whatever it stood for before.
    ///
    /// # Errors
    /// Whatever kept the store from taking it.
    pub async fn set(
        &self,
        repository: &str,
        tag: &str,
        digest: &Digest,
    ) -> Result<(), WriteError> {
        let key = key(repository, tag);
        let put = Mutation::put(key.as_str(), Precondition::None, digest.to_string());
        self.0.write(vec![put], None).await.map(drop)
    }

    /// Lets a tag stand for nothing. It is no error when it does already.
    ///
    /// # Errors
    /// Whatever kept the store from taking it.
    pub async fn delete(&self, repository: &str, tag: &str) -> Result<(), WriteError> {
        let key = key(repository, tag);
        let delete = Mutation::delete(key.as_str(), Precondition::None);
        self.0.write(vec![delete], None).await.map(drop)
    }

    /// The tags of a repository, in order.
    pub async fn of(&self, repository: &str) -> Vec<String> {
        let (prefix, newest) = (key(repository, ""), self.newest().await);
        let entries = newest.range(prefix.as_bytes(), None);
        entries
            .filter_map(|entry| Some(parse(&entry.key)?.1.to_owned()))
            .collect()
    }

    /// The repositories that have tags, in order.
    pub async fn repositories(&self) -> Vec<String> {
        let newest = self.newest().await;
        let entries = newest.range(TAGS.as_bytes(), None);
        let names: BTreeSet<String> = entries
            .filter_map(|entry| Some(parse(&entry.key)?.0.to_owned()))
            .collect();
        names.into_iter().collect()
    }

    /// Every repository with each manifest that a tag of it stands for, as this server has applied it.
    pub fn images(&self) -> BTreeSet<(String, Digest)> {
        let applied = self.0.snapshot();
        let entries = applied.range(TAGS.as_bytes(), None);
        entries
            .filter_map(|entry| Some((parse(&entry.key)?.0.to_owned(), digest(&entry.value())?)))
            .collect()
    }

    /// Everything that was acknowledged; where no majority confirms it, what this server has: nodes start pods from that
    /// rather than not at all.
    async fn newest(&self) -> Snapshot {
        match self.0.read().await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::debug!(%error, "tags may be older than those of other servers");
                self.0.snapshot()
            }
        }
    }
}
