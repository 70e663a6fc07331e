//! The authorities of the cluster, as its servers agree on them: kept in the store with their keys, sealed like the keys of tokens.
//!
//! As long as there was no succession the store has none, and the authority is what lies in each server's folder. The first succession
//! ([`Roots::rotate`]) writes that one and its successor. From then on the newest signs, the older ones are trusted until they are removed, and every
//! server follows within [`LOOK_EVERY`].
//!
//! Invariants: an authority's key leaves the store as signatures and into the folders of servers only; the one that signs is never removed.
//! Left to others: what a succession is on a server (`crate::ca`), whether everybody has followed (`crate::http::roots`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot, Store, WriteError};

use crate::ca::{Authority, CaError, Root};
use crate::encryption::{EncryptionError, Vault};

/// Authorities in the store; the number at the end sorts.
pub(crate) const PREFIX: &str = "/weft.dev/roots/-/";
/// How soon a server follows. It costs a look into memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Authorities at one time: each is in every bundle, and signs for each that follows.
const ROOTS_MAX: usize = 4;
/// First byte of the layout; where nothing is sealed, it is that of the entry.
const LAYOUT: u8 = 1;

/// Why there is no succession.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error(transparent)]
    Sealed(#[from] EncryptionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Authority(#[from] CaError),
    #[error("the authority {key} is damaged")]
    Damaged { key: String },
    #[error(
        "there are {ROOTS_MAX} authorities already: remove one that nobody proves himself by any more"
    )]
    TooMany,
    #[error("the authority that signs cannot be removed: let another follow it first")]
    Signs,
    #[error("another change of the authorities came first: look at them, and ask again")]
    Raced,
}

/// The authorities in the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Roots {
    store: Store,
    vault: Vault,
    authority: Authority,
}

/// One of them, and where it lies.
struct Kept {
    key: Key,
    revision: Revision,
    root: Root,
}

impl Roots {
    pub(crate) fn new(store: Store, vault: Vault, authority: Authority) -> Self {
        Self {
            store,
            vault,
            authority,
        }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Those of a state, the oldest first.
    fn all(&self, snapshot: &Snapshot) -> Result<Vec<Kept>, RootError> {
        let entries = snapshot.range(PREFIX.as_bytes(), None);
        let kept = entries.map(|entry| -> Result<Kept, RootError> {
            let damaged = || RootError::Damaged {
                key: entry.key.to_string(),
            };
            let layout = self.vault.open(&entry)?;
            let record = layout.strip_prefix(&[LAYOUT]).ok_or_else(damaged)?;
            Ok(Kept {
                root: serde_json::from_slice(record).map_err(|_| damaged())?,
                key: entry.key.clone(),
                revision: entry.revision,
            })
        });
        kept.collect()
    }

    /// Has a new authority follow the one that signs.
    pub(crate) async fn rotate(&self) -> Result<(), RootError> {
        let kept = self.all(&self.store.snapshot())?;
        if kept.len() >= ROOTS_MAX {
            return Err(RootError::TooMany);
        }
        let last = kept.last().and_then(|kept| number(&kept.key)).unwrap_or(0);
        let (present, first) = match kept.is_empty() {
            true => (vec![self.authority.shared()?], 1),
            false => (kept.into_iter().map(|kept| kept.root).collect(), last + 1),
        };
        let successor = self.authority.successor(&present)?;
        let written = match first {
            1 => present.into_iter().chain([successor]).collect(),
            _ => vec![successor],
        };
        let mut puts = Vec::new();
        for (root, number) in written.iter().zip(first..) {
            let key = Key::from(format!("{PREFIX}{number:010}"));
            let mut layout = vec![LAYOUT];
            let encoded = serde_json::to_writer(&mut layout, root);
            encoded.map_err(|_| RootError::Damaged {
                key: key.to_string(),
            })?;
            let sealed = self.vault.seal(&key, layout.into()).await?;
            puts.push(Mutation::put(key, Precondition::Absent, sealed));
        }
        self.write(puts).await
    }

    /// Forgets one by its name: whatever it signed proves nothing any more. Whether there was one.
    pub(crate) async fn remove(&self, id: &str) -> Result<bool, RootError> {
        let mut kept = self.all(&self.store.snapshot())?;
        let signs = kept.pop();
        let is_it = |kept: &Kept| kept.root.id().as_deref() == Some(id);
        if signs.is_some_and(|signs| is_it(&signs)) {
            return Err(RootError::Signs);
        }
        let Some(kept) = kept.into_iter().find(is_it) else {
            let signs = self.authority.named();
            return match signs.iter().any(|root| root.signs && root.id == id) {
                true => Err(RootError::Signs),
                false => Ok(false),
            };
        };
        let precondition = Precondition::Revision(kept.revision);
        self.write(vec![Mutation::delete(kept.key, precondition)])
            .await?;
        Ok(true)
    }

    /// Writes, and has this server follow at once.
    async fn write(&self, mutations: Vec<Mutation>) -> Result<(), RootError> {
        match self.store.write(mutations, None).await {
            Ok(_) => {}
            Err(WriteError::Conflict { .. }) => return Err(RootError::Raced),
            Err(error) => return Err(error.into()),
        }
        // What another server wrote may have yet to arrive here; then it is followed a little later.
        self.take(&self.store.snapshot())?;
        Ok(())
    }

    /// Has this server follow what a state says.
    fn take(&self, snapshot: &Snapshot) -> Result<(), RootError> {
        let kept = self.all(snapshot)?;
        let roots: Vec<Root> = kept.into_iter().map(|kept| kept.root).collect();
        self.authority.follow(&roots)?;
        Ok(())
    }

    /// Follows what other servers write, until `closing`.
    pub(crate) async fn follow(self, closing: CancellationToken) {
        let following = async {
            let mut seen: Option<Vec<(Key, Revision)>> = None;
            loop {
                let snapshot = self.store.snapshot();
                let now: Vec<_> = snapshot.keys(PREFIX.as_bytes(), None).collect();
                if seen.as_ref() != Some(&now) {
                    match self.take(&snapshot) {
                        Ok(()) => seen = Some(now),
                        Err(error) => {
                            tracing::error!(%error, "the cluster's authority is not followed yet");
                        }
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        closing.run_until_cancelled(following).await;
    }
}

fn number(key: &Key) -> Option<u32> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    text.strip_prefix(PREFIX)?.parse().ok()
}
