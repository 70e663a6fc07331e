//! What a write depends on besides the object itself: the cluster as it is, and what only one object may hold.
//!
//! [`Surrounding`] shows a kind's strategy the snapshot that the write is based on. [`exchange_claims`] adds to the write the claims
//! that the object takes and gives back (`/weft.dev/clusterips/-/10.43.0.7`), stored in the same all-or-nothing step and only
//! if absent, so two concurrent writers cannot hold one address, whichever server they spoke to.
//!
//! What the cluster's owners have configured is in [`chain`], [`lookup`], [`configured`] and [`charges`]. Left to others: what a kind makes of it (`weft_kinds::strategy`), who may write (`crate::authz`).

pub(crate) mod chain;
pub(crate) mod charges;
pub(crate) mod configured;
mod lookup;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use weft_kinds::cel::{Authorize as _, Question};
use weft_kinds::lens::text;
use weft_kinds::strategy::{Claim, Requester, Surroundings};
use weft_kinds::{Kind, KindRef, ServiceRange};
use weft_store::{Key, Mutation, Precondition, Snapshot};

use self::lookup::Rights;
use crate::authz::Authorizer;
use crate::caller::Caller;
use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// What the components of images import, by image: of those that this server knows.
pub(crate) type Imports = BTreeMap<String, Arc<[String]>>;

/// The cluster as one write sees it.
pub(crate) struct Surrounding<'a> {
    pub caller: &'a Caller,
    pub authorizer: &'a Authorizer,
    pub snapshot: &'a Snapshot,
    pub vault: &'a Vault,
    pub range: ServiceRange,
    pub imports: &'a Imports,
    pub now: Timestamp,
}

impl Surroundings for Surrounding<'_> {
    fn requester(&self) -> Requester<'_> {
        Requester {
            user: self.caller.user(),
            groups: self.caller.groups(),
            uid: self.caller.uid(),
            extra: Some(self.caller.extra()),
        }
    }

    fn allows(&self, question: &Question) -> bool {
        let rights = Rights {
            caller: self.caller.clone(),
            authorizer: self.authorizer.clone(),
        };
        rights.decide(question).allowed
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn has(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> bool {
        let key = stored::key(kind, namespace, name);
        self.snapshot.get(&key).is_some()
    }

    fn object(&self, kind: KindRef<'_>, namespace: Option<&str>, name: &str) -> Option<Value> {
        let entry = self.snapshot.get(&stored::key(kind, namespace, name))?;
        Some(Stored::new(self.vault, kind, entry).value())
    }

    fn objects(&self, kind: KindRef<'_>, namespace: Option<&str>) -> Vec<Value> {
        let prefix = stored::prefix(kind, namespace);
        let entries = self.snapshot.range(&prefix, None);
        let objects = entries.map(|entry| Stored::new(self.vault, kind, entry).value());
        objects.collect()
    }

    fn imports(&self, image: &str) -> Option<Arc<[String]>> {
        self.imports.get(image).map(Arc::clone)
    }

    fn is_claimed(&self, claim: &Claim) -> bool {
        self.snapshot.get(&claim_key(claim)).is_some()
    }

    fn service_range(&self) -> ServiceRange {
        self.range
    }
}

/// What must be stored with a write that turns `old` into `new`, either of which may be absent: claims that are given up
/// are free again, new ones must be free.
pub(crate) fn exchange_claims(
    kind: KindRef<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Vec<Mutation> {
    let claims = |value: Option<&Value>| {
        value
            .map(|value| kind.strategy.claims(value))
            .unwrap_or_default()
    };
    let (had, holds) = (claims(old), claims(new));
    let holder = new.map_or_else(Bytes::new, |new| {
        let namespace = text(new, "/metadata/namespace");
        Bytes::from(format!("{namespace}/{}", text(new, "/metadata/name")))
    });
    let given_up = had
        .difference(&holds)
        .map(|claim| Mutation::delete(claim_key(claim), Precondition::None));
    let taken = holds
        .difference(&had)
        .map(|claim| Mutation::put(claim_key(claim), Precondition::Absent, holder.clone()));
    given_up.chain(taken).collect()
}

/// The keys of an object's claims: a conflict on one of them means that somebody else was faster, and another may be free.
pub(crate) fn claim_keys(kind: KindRef<'_>, value: &Value) -> BTreeSet<Key> {
    kind.strategy.claims(value).iter().map(claim_key).collect()
}

fn claim_key(claim: &Claim) -> Key {
    Key::from(claim.key().to_owned())
}
