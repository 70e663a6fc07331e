//! Quotas and the writes that use of them.
//!
//! What a write uses is added to the quotas of its namespace in the same all-or-nothing step, each at the revision that there was room at:
//! whoever else used of it meanwhile, on whichever server, makes that step fail, and the write is judged again. So that writers of one
//! server do not spend their time on losing to each other, they come one after the other ([`Lanes`]).
//!
//! Invariants: the usage that is told is never less than what was admitted since it was counted last.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use weft_api::status::StatusError;
use weft_kinds::RESOURCE_QUOTA;
use weft_kinds::admission::{Request, quota};
use weft_kinds::lens::text;
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot};

use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// Lanes that namespaces share, each by its name.
const LANES: usize = 64;

/// Who writes in a namespace with quotas, one after the other.
pub(crate) struct Lanes {
    lanes: Vec<Arc<Mutex<()>>>,
    hasher: std::hash::RandomState,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: (0..LANES).map(|_| Arc::default()).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }
}

impl Lanes {
    async fn enter(&self, namespace: &str) -> Option<OwnedMutexGuard<()>> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(namespace.as_bytes());
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        let lane = self.lanes.get(lane).map(Arc::clone)?;
        Some(lane.lock_owned().await)
    }
}

/// What has to be written with an object, while nobody else here writes.
#[derive(Default)]
pub(crate) struct Charge {
    pub mutations: Vec<Mutation>,
    /// The quotas that the write rests on.
    pub keys: Vec<Key>,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// Whether there are quotas in a namespace.
fn any(snapshot: &Snapshot, namespace: &str) -> bool {
    let prefix = stored::prefix(&RESOURCE_QUOTA, Some(namespace));
    snapshot.keys(&prefix, None).next().is_some()
}

fn all(snapshot: &Snapshot, vault: &Vault, namespace: &str) -> Vec<(Key, Revision, Value)> {
    let prefix = stored::prefix(&RESOURCE_QUOTA, Some(namespace));
    let entries = snapshot.range(&prefix, None);
    entries
        .map(|entry| {
            let (key, revision) = (entry.key.clone(), entry.revision);
            let value = Stored::new(vault, &RESOURCE_QUOTA, entry).value();
            (key, revision, value)
        })
        .collect()
}

/// Makes room for an object. `newest` gives the state that this server has once it is this writer's turn.
///
/// # Errors
/// 403 where there is none.
pub(crate) async fn charge(
    lanes: &Lanes,
    newest: impl Fn() -> Snapshot,
    vault: &Vault,
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<Charge, StatusError> {
    let none = request.namespace.is_empty()
        || request.is_namespace()
        || !quota::concerns(request, new, old)
        || !any(&newest(), &request.namespace);
    if none {
        return Ok(Charge::default());
    }
    let turn = lanes.enter(&request.namespace).await;
    let found = all(&newest(), vault, &request.namespace);
    let quotas: Vec<Value> = found.iter().map(|(_, _, quota)| quota.clone()).collect();
    let charged = quota::charge(&quotas, request, new, old, now)?;
    let mut charge = Charge {
        _turn: turn,
        ..Charge::default()
    };
    if request.dry_run {
        return Ok(charge);
    }
    for (place, quota) in charged {
        let Some((key, revision, _)) = found.get(place) else {
            continue;
        };
        let encoded = stored::encode(&quota).map_err(|error| {
            let name = text(&quota, "/metadata/name");
            StatusError::internal(format!("quota {name:?}: {error}"))
        })?;
        charge.keys.push(key.clone());
        charge.mutations.push(Mutation::put(
            key.clone(),
            Precondition::Revision(*revision),
            encoded,
        ));
    }
    Ok(charge)
}
