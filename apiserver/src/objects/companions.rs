//! Objects that are there as long as another holds something: the IPAddress of a Service's virtual address.
//!
//! They are stored and removed by the write that stores and removes the other one, so that neither is ever seen without the other;
//! what somebody took away, or an older release did not write, the leader brings back.
//!
//! Invariants: an object that somebody else made is neither overwritten nor removed. Left to others: which they are
//! (`weft_kinds::strategy::Strategy::companions`).

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::core::{ADDRESS_MANAGED_BY, ADDRESS_MANAGER, address_claim, held_address};
use weft_kinds::lens::text;
use weft_kinds::strategy::Companion;
use weft_kinds::{IP_ADDRESS, KindRef};
use weft_store::{Key, Mutation, Precondition, Snapshot, WriteError};

use super::canonical::canonicalize;
use super::freshness::write_failed;
use super::{Objects, WriteOptions};
use crate::caller::Caller;
use crate::stored::{self, Stored};

/// Repairs at one time: each is a write of its own, and what is left is for the next time.
const REPAIRS_MAX: usize = 256;

impl Objects {
    /// What is written beside a write that turns `old` into `new`, either of which may be absent.
    pub(super) async fn exchange_companions(
        &self,
        kind: KindRef<'_>,
        snapshot: &Snapshot,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Vec<Mutation>, StatusError> {
        let of = |value: Option<&Value>| -> BTreeMap<Key, Companion> {
            let companions = value.map(|value| kind.strategy.companions(value));
            let companions = companions.into_iter().flatten();
            companions
                .map(|one| (key_of(one.kind, &one.object), one))
                .collect()
        };
        let (had, holds) = (of(old), of(new));
        let mut mutations = Vec::new();
        for (key, one) in &had {
            if holds.contains_key(key) {
                continue;
            }
            let Some(entry) = snapshot.get(key) else {
                continue;
            };
            let precondition = Precondition::Revision(entry.revision);
            let found = Stored::new(&self.inner.vault, one.kind, entry).stored_value();
            if found["spec"] == canonicalize(one.kind, &one.object)?["spec"] {
                mutations.push(Mutation::delete(key.clone(), precondition));
            }
        }
        for (key, one) in holds {
            if !had.contains_key(&key) {
                mutations.push(self.companion(one.kind, key, one.object).await?);
            }
        }
        Ok(mutations)
    }

    async fn companion(
        &self,
        kind: KindRef<'_>,
        key: Key,
        object: Value,
    ) -> Result<Mutation, StatusError> {
        let mut value = canonicalize(kind, &self.prepared(kind, object))?;
        let caller = Caller::system("apiserver", None);
        self.owners(&caller, kind, None, &WriteOptions::default())
            .created(&mut value);
        let value = self.encode(kind, &key, &value).await?;
        Ok(Mutation::put(key, Precondition::Absent, value))
    }

    /// Brings back the IPAddresses of addresses that Services hold, and removes those that none holds any more.
    ///
    /// # Errors
    /// Whatever kept it from that.
    pub async fn repair_addresses(&self, caller: &Caller) -> Result<(), StatusError> {
        let snapshot = self.inner.store.snapshot();
        let claims = address_claim("");
        let mut repairs = Vec::new();
        for (claim, revision) in snapshot.keys(claims.key().as_bytes(), None) {
            let address = last_segment(&claim);
            let key = stored::key(&IP_ADDRESS, None, address);
            if repairs.len() >= REPAIRS_MAX {
                break;
            }
            if snapshot.revision_of(&key).is_some() {
                continue;
            }
            let holder = snapshot.get(&claim).map(|entry| entry.value());
            let holder = String::from_utf8_lossy(&holder.unwrap_or_default()).into_owned();
            let Some((namespace, name)) = holder.split_once('/') else {
                continue;
            };
            let object = held_address(address, namespace, name);
            // That it is held still is seen by the write.
            let held = Mutation::check(claim, Precondition::Revision(revision));
            repairs.push(vec![held, self.companion(&IP_ADDRESS, key, object).await?]);
        }
        for (key, revision) in snapshot.keys(&stored::prefix(&IP_ADDRESS, None), None) {
            let claim = Key::from(address_claim(last_segment(&key)).key().to_owned());
            if repairs.len() >= REPAIRS_MAX {
                break;
            }
            let held = snapshot.revision_of(&claim).is_some();
            let Some(entry) = (!held).then(|| snapshot.get(&key)).flatten() else {
                continue;
            };
            let found = Stored::new(&self.inner.vault, &IP_ADDRESS, entry).stored_value();
            let labels = found.pointer("/metadata/labels");
            let by = labels.and_then(|labels| labels.get(ADDRESS_MANAGED_BY));
            if by.is_some_and(|by| by == ADDRESS_MANAGER) {
                repairs.push(vec![
                    Mutation::check(claim, Precondition::Absent),
                    Mutation::delete(key, Precondition::Revision(revision)),
                ]);
            }
        }
        for repair in repairs {
            match self.write(caller, repair).await {
                // It changed since: the next time looks at what is there then.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_failed(&IP_ADDRESS, "", error)),
            }
        }
        Ok(())
    }
}

/// The keys of what is written beside an object.
pub(super) fn companion_keys(kind: KindRef<'_>, value: &Value) -> Vec<Key> {
    let companions = kind.strategy.companions(value).into_iter();
    companions
        .map(|one| key_of(one.kind, &one.object))
        .collect()
}

fn key_of(kind: KindRef<'_>, object: &Value) -> Key {
    let namespace = text(object, "/metadata/namespace");
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    stored::key(kind, namespace, text(object, "/metadata/name"))
}

fn last_segment(key: &Key) -> &str {
    let text = std::str::from_utf8(key.as_bytes()).unwrap_or_default();
    text.rsplit('/').next().unwrap_or_default()
}
