//! Deleting: at once, or in steps that finalizers, nodes and dependents have to take first.
//!
//! Invariants: an object in deletion only ever comes closer to its end; what marks it and what removes it is one
//! compare-and-set. Left to others: removing dependents (`weft_controllers::garbage`), stopping pods (`weft_agent`).

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use weft_api::meta::{FOREGROUND_DELETION, ORPHAN_DEPENDENTS};
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::KindRef;
use weft_kinds::lens::{integer, items, member, put, text};
use weft_kinds::strategy::Dependents;
use weft_store::{Mutation, Precondition, Revision, WriteError};

use super::canonical::shown;
use super::freshness::{unreadable, write_failed};
use super::{ATTEMPTS_MAX, Objects, Warnings, modified};
use crate::authz::Authorized;
use crate::listing::{ListOptions, Page};
use crate::request::ObjectRef;
use crate::{admission, node_restriction};

/// Objects of a collection that are deleted at the same time: enough to share the log's writes, and no more than one
/// request among others should have under way.
const DELETIONS_AT_ONCE: usize = 32;

/// What becomes of the objects owned by a deleted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Only an object with this uid.
    pub uid: Option<String>,
    /// Only an object at this revision.
    pub resource_version: Option<Revision>,
    /// What is told beside the answer.
    pub advice: Warnings,
}

/// What a deletion did.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Object),
    /// It is marked, and goes once its finalizers or its node are done.
    Marked(Object),
}

impl Objects {
    /// Deletes an object, or marks it when finalizers or a node have to act first.
    ///
    /// # Errors
    /// 403, 404, 409 (preconditions).
    pub async fn delete(
        &self,
        asked: &Authorized,
        options: &DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        let (object, resource) = asked.object("delete")?;
        if resource.subresource.is_some() {
            return Err(StatusError::method_not_allowed());
        }
        self.confirmed(&[object.key()], || self.delete_here(asked, object, options))
            .await
    }

    async fn delete_here(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        let ObjectRef { kind, name, .. } = object;
        let stored_kind = kind.stored();
        if let Some(reason) = stored_kind.strategy.refuses_deletion(name) {
            return Err(StatusError::forbidden(
                &kind.resource,
                &kind.group,
                name,
                reason,
            ));
        }
        let key = object.key();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, object)?;
            let found = self.converted(found).await?;
            let old = found.stored_value();
            check_preconditions(kind, name, options, &old, found.revision())?;
            node_restriction::admit(asked, Some(&old), None)?;
            self.admit_deletion(asked, object, &snapshot, &old, options)
                .await?;
            if options.propagation.is_none()
                && let Dependents::Stay(Some(told)) = stored_kind.strategy.dependents()
            {
                options.advice.add(told);
            }

            let next = marked_for_deletion(stored_kind, &old, options, self.now());
            let gone = is_finished(stored_kind, &next);
            let unchanged = next == old && !gone;
            if !options.dry_run && unchanged && !self.is_newest(&key, found.revision()).await? {
                continue;
            }
            if !gone {
                // Marking it would store the sentence that stands in for what cannot be read.
                found.readable().map_err(unreadable)?;
            }
            if options.dry_run || unchanged {
                return Ok(if gone {
                    let last = last_state(stored_kind, old, next);
                    Deleted::Gone(shown(kind, last, Some(found.revision()))?)
                } else {
                    Deleted::Marked(shown(kind, next, Some(found.revision()))?)
                });
            }
            let precondition = Precondition::Revision(found.revision());
            let mutations = if gone {
                let mut mutations = admission::exchange_claims(stored_kind, Some(&old), None);
                let beside = self.exchange_companions(stored_kind, &snapshot, Some(&old), None);
                mutations.extend(beside.await?);
                mutations.push(Mutation::delete(key.clone(), precondition));
                mutations
            } else {
                let to_store = self.to_store(kind, &next).await?;
                let value = self.encode(kind, &key, &to_store).await?;
                vec![Mutation::put(key.clone(), precondition, value)]
            };
            match self.write(asked.caller(), mutations).await {
                Ok(revision) if gone => {
                    let last = last_state(stored_kind, old, next);
                    return Ok(Deleted::Gone(shown(kind, last, Some(revision))?));
                }
                Ok(revision) => {
                    return Ok(Deleted::Marked(shown(kind, next, Some(revision))?));
                }
                Err(WriteError::Conflict { .. }) => self.catch_up().await?,
                Err(error) => return Err(write_failed(kind, name, error)),
            }
        }
        Err(modified(kind, name))
    }

    /// Deletes every object of a selection; the page names them.
    ///
    /// # Errors
    /// 403, or the first error other than 404.
    pub async fn delete_collection(
        &self,
        asked: &Authorized,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Page, StatusError> {
        let (kind, namespace) = asked.collection("deletecollection")?;
        let newest = self.newest(None).await?;
        let page = self
            .page(asked.caller().user(), kind, namespace, list, &newest)
            .await?;
        let found: Vec<(Option<String>, String)> = page
            .items
            .iter()
            .map(|item| (item.namespace().map(str::to_owned), item.name().to_owned()))
            .collect();
        let deletions = futures::stream::iter(found).map(|(namespace, name)| async move {
            let object = ObjectRef::new(kind, namespace.as_deref(), &name);
            match self.delete_here(asked, object, options).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        });
        deletions
            .buffer_unordered(DELETIONS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(page)
    }
}

/// Whether the object is the one that was meant, in the state that was meant.
pub(super) fn check_preconditions(
    kind: KindRef<'_>,
    name: &str,
    options: &DeleteOptions,
    old: &Value,
    revision: Revision,
) -> Result<(), StatusError> {
    let own_words = kind.strategy.deletes_by_update();
    let refuse = |what: &str, wanted: &str, found: &str, why: &str| {
        Err(match own_words {
            Some(words) => {
                let detail = format!(
                    "{words}: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                StatusError::conflict(&kind.resource, &kind.group, name, &detail)
            }
            None => {
                let detail = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                     The object might have been {why}"
                );
                StatusError::conflict(&kind.kind, &kind.group, name, &detail)
            }
        })
    };
    let uid = text(old, "/metadata/uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        return refuse("UID", wanted, uid, "deleted and then recreated");
    }
    let wanted = options.resource_version;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != revision) {
        let (wanted, found) = (wanted.to_string(), revision.to_string());
        return refuse("ResourceVersion", &wanted, &found, "modified");
    }
    Ok(())
}

/// What is told of an object that is gone: where nothing was to stop, nothing was marked.
fn last_state(kind: KindRef<'_>, old: Value, marked: Value) -> Value {
    match kind.strategy.grace_seconds(&old, None) {
        Some(_) => marked,
        None => old,
    }
}

/// Whether an object in deletion has nothing left to wait for.
pub(super) fn is_finished(kind: KindRef<'_>, value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
        && items(value, "/metadata/finalizers").is_empty()
        && integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && kind.strategy.is_released(value)
}

/// An object as a deletion leaves it: with a deadline, a grace period and the finalizers of its propagation.
pub(super) fn marked_for_deletion(
    kind: KindRef<'_>,
    old: &Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Value {
    let mut next = old.clone();
    let asked = options.grace_period_seconds;
    let grace = kind.strategy.grace_seconds(old, asked).unwrap_or(0);
    let deleting = !text(old, "/metadata/deletionTimestamp").is_empty();
    let metadata = member(&mut next, "metadata");
    if deleting {
        let current = integer(metadata, "/deletionGracePeriodSeconds").unwrap_or(0);
        // A further deletion may only shorten the wait, and without a wish of its own changes nothing.
        let shorter = asked.is_some() && grace < current;
        if shorter {
            metadata["deletionGracePeriodSeconds"] = grace.into();
            metadata["deletionTimestamp"] = rfc3339(deadline(now, grace)).into();
        }
    } else {
        if kind.strategy.deletes_by_update().is_none() {
            metadata["deletionGracePeriodSeconds"] = grace.into();
            if let Some(generation) = integer(metadata, "/generation") {
                metadata["generation"] = (generation + 1).into();
            }
        }
        metadata["deletionTimestamp"] = rfc3339(deadline(now, grace)).into();
    }
    let mut finalizers: Vec<Value> = items(metadata, "/finalizers").to_vec();
    let is_own =
        |finalizer: &Value| finalizer == FOREGROUND_DELETION || finalizer == ORPHAN_DEPENDENTS;
    let usual = kind.strategy.dependents();
    let propagation = options.propagation.filter(|_| usual != Dependents::None);
    let wanted = match propagation {
        Some(Propagation::Foreground) => Some(FOREGROUND_DELETION),
        Some(Propagation::Orphan) => Some(ORPHAN_DEPENDENTS),
        // What the object says itself comes before what is usual for its kind.
        None if matches!(usual, Dependents::Stay(_)) && !finalizers.iter().any(is_own) => {
            Some(ORPHAN_DEPENDENTS)
        }
        Some(Propagation::Background) | None => None,
    };
    if propagation.is_some() {
        finalizers.retain(|finalizer| {
            !is_own(finalizer) || wanted.is_some_and(|wanted| finalizer == wanted)
        });
    }
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|finalizer| finalizer == wanted)
    {
        finalizers.push(wanted.into());
    }
    put(
        metadata,
        "finalizers",
        (!finalizers.is_empty()).then(|| finalizers.into()),
    );
    kind.strategy.mark_deleted(&mut next);
    next
}

fn deadline(now: Timestamp, grace_seconds: i64) -> Timestamp {
    now.checked_add(jiff::SignedDuration::from_secs(grace_seconds))
        .unwrap_or(now)
}
