//! Changing an object: replacing it or a part of it, patching it, and the loop that every change goes through.
//!
//! Invariants: a change is judged on one state and takes effect on that one or not at all; what is not the requested
//! subresource's to change stays as it was; what the server owns of the metadata nobody changes.

use std::borrow::Cow;

use serde_json::Value;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::admission::Operation;
use weft_kinds::apply;
use weft_kinds::lens::{integer, member, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{KindRef, Subresource, validate};
use weft_store::{Mutation, Precondition, WriteError};

use super::admitted::{Asking, own_body};
use super::body::{
    check_identity, check_uid, check_version, decoded, drop_empty_metadata, keep_uid, patched,
    refuse_new_finalizers,
};
use super::canonical::{canonicalize, canonicalized, shown};
use super::conversion::needs_webhook;
use super::deletion::is_finished;
use super::freshness::{unreadable, write_failed};
use super::owners::{self, Ownership};
use super::scale::with_scale;
use super::{ATTEMPTS_MAX, Objects, Patch, WriteOptions, Written, modified};
use crate::admission::chain::Told;
use crate::admission::{Imports, charges};
use crate::authz::Authorized;
use crate::request::ObjectRef;
use crate::{admission, node_restriction, signers};

impl Objects {
    /// Replaces an object, or what the request's subresource shows of it: its status, the conditions of a certificate
    /// request, the finalizers of a namespace (which goes with its last one), its scale. With a resourceVersion in the body,
    /// only if it is still at that one.
    ///
    /// # Errors
    /// 400, 403, 404, 409, 422; 429 and 503 when the store cannot take it now.
    pub async fn update(
        &self,
        asked: &Authorized,
        body: Object,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        let (object, resource) = asked.object("update")?;
        let part = resource.subresource;
        match part {
            None
            | Some(
                Subresource::Status
                | Subresource::Approval
                | Subresource::Finalize
                | Subresource::EphemeralContainers
                | Subresource::Resize,
            ) => {}
            Some(Subresource::Scale) => {
                let scale = self.update_scale(asked, object, body, options).await?;
                return Ok(Written::changed(scale));
            }
            Some(_) => return Err(StatusError::method_not_allowed()),
        }
        let ObjectRef {
            kind,
            namespace,
            name,
        } = object;
        let mut value = decoded(kind, body.as_value(), options)?;
        check_identity(kind, namespace, Some(name), &mut value)?;
        let creates = part.is_none() && kind.stored().strategy.creates_on_update();
        for _ in 0..ATTEMPTS_MAX {
            let change = |_: &Value| Ok(value.clone());
            let owners = Ownership::Recorded;
            match self
                .rewrite(asked, object, part, options, owners, change)
                .await
            {
                Err(error) if creates && error.is_not_found() => {}
                changed => return changed.map(Written::changed),
            }
            let new = value.clone();
            check_uid(kind, name, &Value::Null, text(&new, "/metadata/uid"))?;
            match self
                .create_at(asked, object, new, options, Ownership::Recorded)
                .await
            {
                // Somebody else made it meanwhile, so it is there to be changed.
                Err(error) if error.is_already_exists() => {}
                created => return created.map(Written::created),
            }
        }
        Err(modified(kind, name))
    }

    /// Applies a patch to an object, its status or its scale.
    ///
    /// # Errors
    /// As [`Objects::update`], and what the patch itself does wrong.
    pub async fn patch(
        &self,
        asked: &Authorized,
        patch: Patch<'_>,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let (object, resource) = asked.object("patch")?;
        let part = resource.subresource;
        match part {
            None
            | Some(
                Subresource::Status
                | Subresource::Approval
                | Subresource::EphemeralContainers
                | Subresource::Resize,
            ) => {}
            Some(Subresource::Scale) => {
                return self.patch_scale(asked, object, patch, options).await;
            }
            Some(_) => return Err(StatusError::method_not_allowed()),
        }
        let ObjectRef {
            kind,
            namespace,
            name,
        } = object;
        if patch.kind == PatchKind::Strategic && !kind.merges_strategically {
            return Err(patch::not_strategic());
        }
        let owners = Ownership::Recorded;
        self.rewrite(asked, object, part, options, owners, |current| {
            let mut next = patched(object, &kind.gvk(), current, patch, options)?;
            check_identity(kind, namespace, Some(name), &mut next)?;
            keep_uid(kind, name, current, &next)?;
            Ok(next)
        })
        .await
    }

    /// The write loop of everything that changes an existing object.
    ///
    /// `change` sees the current object, with its resourceVersion, in the kind's own spelling. What it returns
    /// is conditional exactly if it names a resourceVersion other than by keeping the current one.
    pub(super) async fn rewrite(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        part: Option<Subresource>,
        options: &WriteOptions,
        ownership: Ownership,
        change: impl Fn(&Value) -> Result<Value, StatusError> + Sync,
    ) -> Result<Object, StatusError> {
        let about = [object.key()];
        self.confirmed(&about, || {
            self.rewrite_here(asked, object, part, options, ownership, &change)
        })
        .await
    }

    async fn rewrite_here(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        part: Option<Subresource>,
        options: &WriteOptions,
        ownership: Ownership,
        change: &(impl Fn(&Value) -> Result<Value, StatusError> + Sync),
    ) -> Result<Object, StatusError> {
        let ObjectRef { kind, name, .. } = object;
        let caller = asked.caller();
        let key = object.key();
        let mut fits = true;
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, object)?;
            let found = self.converted(found).await?;
            // The sentence that stands in for what cannot be read is nothing to judge a change by, or to store.
            let old = found.readable_value().map_err(unreadable)?;
            let stored_kind = kind.stored();
            // As it would be stored today: a default that came with a release is no change that a client made.
            let old = canonicalize(stored_kind, &old).unwrap_or(old);
            let current = shown(kind, old.clone(), Some(found.revision()))?.into_value();
            let conversions = &options.conversions;
            let proposed = self
                .with_conversions(kind, conversions, || change(&current))
                .await?;
            check_uid(kind, name, &current, text(&proposed, "/metadata/uid"))?;
            check_version(kind, name, &found, &proposed)?;
            let mut next = next_state(kind, part, proposed, &old, ownership)?;
            if ownership == Ownership::Recorded {
                let owners = self.owners(caller, kind, part, options);
                if needs_webhook(kind) {
                    let record = || {
                        let mut next = next.clone();
                        owners.updated(&old, &mut next);
                        Ok(next)
                    };
                    next = self.with_conversions(kind, conversions, record).await?;
                } else {
                    owners.updated(&old, &mut next);
                }
            }
            stored_kind.strategy.settle(&mut next, Some(&old));
            if !fits {
                owners::set(&mut next, None);
            }
            let imports = match part {
                None => self.imports(stored_kind, &next).await,
                Some(_) => Imports::new(),
            };
            let around = self.surroundings(caller, &snapshot, &imports);
            let operation = match part {
                Some(Subresource::Binding) => Operation::Create,
                _ => Operation::Update,
            };
            let asking = Asking::writing(asked, operation, object, options);
            let mut chain = self.chain(asking, &snapshot);
            // A pod may also be bound by a URL that does not name it.
            chain.request.subresource = part.map_or("", Subresource::name).to_owned();
            let mut told = Told::default();
            if part.and_then(Subresource::own_kind).is_none()
                && let Some(mut changed) =
                    chain.mutated(&next, Some(&old), &around, &mut told).await?
            {
                told.warnings
                    .extend(owners::keep_sound(&next, &mut changed));
                // Whatever it was changed to, what this request may not change stays.
                next = next_state(stored_kind, part, changed, &old, Ownership::Said)?;
                stored_kind.strategy.settle(&mut next, Some(&old));
            }
            if part == Some(Subresource::Scale)
                && let Some((place, new, before)) = own_body(part, stored_kind, &next, &old)
            {
                let place = std::mem::replace(&mut chain.request.place, place);
                let changed = chain.mutated_body(&new, before.as_ref(), &mut told);
                if let Some(scale) = changed.await? {
                    let changed = with_scale(stored_kind, &next, &scale);
                    next = next_state(stored_kind, part, changed, &old, Ownership::Said)?;
                }
                chain.request.place = place;
            }
            self.authorizer().judge_grant(asked, &next, Some(&old))?;
            if part.is_some() {
                signers::stamp(stored_kind, &mut next, &old, self.now());
            }
            // By the rules of the spelling that it came in.
            validate::updated(kind, &next, &old, part)?;
            let strategy = &stored_kind.strategy;
            strategy.judge(&next, Some(&old), part, &around)?;
            strategy.allocate(&mut next, Some(&old), &around)?;
            node_restriction::admit(asked, Some(&old), Some(&next))?;
            signers::judge_change(self.authorizer(), asked, &next, &old)?;
            apply::keep_times(&old, &mut next);
            let mut advice = match part {
                None => stored_kind.strategy.warn(&next, &around),
                Some(_) => Vec::new(),
            };
            match own_body(part, stored_kind, &next, &old) {
                None => chain.judged(Some(&next), Some(&old), &mut told).await?,
                Some((place, new, old)) => {
                    chain.request.place = place;
                    chain.judged(Some(&new), old.as_ref(), &mut told).await?;
                }
            }
            advice.append(&mut told.warnings);
            options.advice.replace(advice);
            let inner = &self.inner;
            // Until the write is done, nobody else here uses of the same quotas.
            let charge = charges::charge(
                &inner.lanes,
                || inner.store.snapshot(),
                &inner.vault,
                &chain.request,
                &next,
                Some(&old),
                self.now(),
            )
            .await?;

            let removes = is_finished(stored_kind, &next);
            if options.dry_run {
                return shown(kind, next, Some(found.revision()));
            }
            let to_store = match removes {
                true => Cow::Borrowed(&next),
                false => self.to_store(kind, &next).await?,
            };
            let read = self.as_read(kind, &next, &to_store).await?;
            // One that was stored in another version is stored anew, however little changes.
            let unchanged = next == old && (kind.custom.is_none() || found.is_stored_as(&to_store));
            if unchanged && !removes {
                if self.is_newest(&key, found.revision()).await? {
                    return shown(kind, read.into_owned(), Some(found.revision()));
                }
                continue;
            }
            let precondition = Precondition::Revision(found.revision());
            let after = (!removes).then_some(&next);
            let mut mutations = admission::exchange_claims(stored_kind, Some(&old), after);
            let beside = self.exchange_companions(stored_kind, &snapshot, Some(&old), after);
            mutations.extend(beside.await?);
            if removes {
                mutations.push(Mutation::delete(key.clone(), precondition));
            } else {
                let value = self.encode(kind, &key, &to_store).await?;
                mutations.push(Mutation::put(key.clone(), precondition, value));
                mutations.extend(charge.mutations.iter().cloned());
            }
            match self.write(caller, mutations).await {
                Ok(revision) => {
                    return shown(kind, read.into_owned(), Some(revision));
                }
                // What it says is worth more than whose it is. An apply is about just that.
                Err(WriteError::TooLarge { .. })
                    if fits && ownership == Ownership::Recorded && owners::of(&next).is_some() =>
                {
                    fits = false;
                }
                // Judge it again on what is there now; `check_version` ends it for conditional writes.
                Err(WriteError::Conflict { .. }) => self.catch_up().await?,
                Err(error) => return Err(write_failed(kind, name, error)),
            }
        }
        Err(modified(kind, name))
    }
}

/// The state that a proposal leads to: only the part it may change, with everything the server owns kept.
fn next_state(
    kind: KindRef<'_>,
    part: Option<Subresource>,
    mut proposed: Value,
    old: &Value,
    ownership: Ownership,
) -> Result<Value, StatusError> {
    if let Some(spelling) = &kind.spelling {
        (spelling.write)(&mut proposed);
    }
    let kind = kind.stored();
    // Through a part of it, only who keeps account of the owners says something of them.
    let says = match ownership {
        Ownership::Recorded => part.is_none(),
        Ownership::Said => true,
        Ownership::Kept => false,
    };
    let owners = owners::of(if says { &proposed } else { old }).cloned();
    let mut next = kind.strategy.prepare_for_update(kind, part, proposed, old);
    let metadata = member(&mut next, "metadata");
    // What is said of these is judged (`validate::updated`); what is not said is as it was.
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if metadata.get(field).is_none_or(Value::is_null) {
            put(
                metadata,
                field,
                old.pointer(&format!("/metadata/{field}")).cloned(),
            );
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        let kept = old.pointer(&format!("/metadata/{field}")).cloned();
        put(metadata, field, kept);
    }
    put(metadata, "managedFields", owners);
    put(metadata, "selfLink", None);
    drop_empty_metadata(metadata);
    if !text(old, "/metadata/deletionTimestamp").is_empty() {
        refuse_new_finalizers(kind, old, &next)?;
    }
    let mut next = canonicalized(kind, next)?;
    // A pod that gets its node is asked for nothing new.
    let asks = part != Some(Subresource::Binding) && kind.strategy.asks_for_change(&next, old);
    if kind.counts_generations && asks {
        let generation = integer(old, "/metadata/generation").unwrap_or(0) + 1;
        member(&mut next, "metadata")["generation"] = generation.into();
    }
    kind.strategy.drop_unserved(&mut next);
    Ok(next)
}
