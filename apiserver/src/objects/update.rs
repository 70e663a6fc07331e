//! Changing an object: replacing it or a part of it, patching it, and the loop that every change goes through.
//!
//! Invariants: a change is judged on one state and takes effect on that one or not at all; what is not the requested
//! subresource's to change stays as it was; what the server owns of the metadata nobody changes.

use serde_json::Value;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::{integer, member, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{KindRef, Subresource, validate};
use weft_store::{Mutation, Precondition, WriteError};

use super::body::{
    check_identity, check_uid, check_version, decoded, drop_empty_metadata, patched,
    refuse_new_finalizers,
};
use super::canonical::{canonicalize, shown};
use super::deletion::is_finished;
use super::freshness::{unreadable, write_failed};
use super::{ATTEMPTS_MAX, Objects, Patch, WriteOptions, modified};
use crate::admission::Imports;
use crate::authz::Authorized;
use crate::request::ObjectRef;
use crate::{admission, node_restriction};

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
    ) -> Result<Object, StatusError> {
        let (object, resource) = asked.object("update")?;
        let part = resource.subresource;
        match part {
            None | Some(Subresource::Status | Subresource::Approval | Subresource::Finalize) => {}
            Some(Subresource::Scale) => {
                return self.update_scale(asked, object, body, options).await;
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
        self.rewrite(asked, object, part, options, |_| Ok(value.clone()))
            .await
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
            None | Some(Subresource::Status | Subresource::Approval) => {}
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
        self.rewrite(asked, object, part, options, |current| {
            let mut next = patched(object, &kind.gvk(), current, patch, options)?;
            check_identity(kind, namespace, Some(name), &mut next)?;
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
        change: impl Fn(&Value) -> Result<Value, StatusError> + Sync,
    ) -> Result<Object, StatusError> {
        let about = [object.key()];
        self.confirmed(&about, || {
            self.rewrite_here(asked, object, part, options, &change)
        })
        .await
    }

    async fn rewrite_here(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        part: Option<Subresource>,
        options: &WriteOptions,
        change: &(impl Fn(&Value) -> Result<Value, StatusError> + Sync),
    ) -> Result<Object, StatusError> {
        let ObjectRef { kind, name, .. } = object;
        let caller = asked.caller();
        let key = object.key();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, object)?;
            // The sentence that stands in for what cannot be read is nothing to judge a change by, or to store.
            found.readable().map_err(unreadable)?;
            let stored_kind = kind.stored();
            // As it would be stored today: a default that came with a release is no change that a client made.
            let old = found.stored_value();
            let old = canonicalize(stored_kind, &old).unwrap_or(old);
            let current = shown(kind, old.clone(), Some(found.revision()))?.into_value();
            let proposed = change(&current)?;
            check_version(kind, name, &found, &proposed)?;
            check_uid(kind, name, &current, text(&proposed, "/metadata/uid"))?;
            let mut next = self.next_state(kind, part, proposed, &old)?;
            let imports = match part {
                None => self.imports(stored_kind, &next).await,
                Some(_) => Imports::new(),
            };
            let around = self.surroundings(caller, &snapshot, &imports);
            // By the rules of the spelling that it came in.
            validate::updated(kind, &next, &old, part)?;
            stored_kind
                .strategy
                .allocate(&mut next, Some(&old), &around)?;
            node_restriction::admit(asked, Some(&old), Some(&next))?;
            if part.is_none() {
                let advice = stored_kind.strategy.warn(&next, &around);
                options.advice.replace(advice);
            }

            let removes = is_finished(stored_kind, &next);
            if options.dry_run {
                return shown(kind, next, Some(found.revision()));
            }
            if next == old && !removes {
                if self.is_newest(&key, found.revision()).await? {
                    return shown(kind, next, Some(found.revision()));
                }
                continue;
            }
            let precondition = Precondition::Revision(found.revision());
            let after = (!removes).then_some(&next);
            let mut mutations = admission::exchange_claims(stored_kind, Some(&old), after);
            if removes {
                mutations.push(Mutation::delete(key.clone(), precondition));
            } else {
                let value = self.encode(kind, &key, &next).await?;
                mutations.push(Mutation::put(key.clone(), precondition, value));
            }
            match self.write(caller, mutations).await {
                Ok(revision) => return shown(kind, next, Some(revision)),
                // Judge it again on what is there now; `check_version` ends it for conditional writes.
                Err(WriteError::Conflict { .. }) => self.catch_up().await?,
                Err(error) => return Err(write_failed(kind, name, error)),
            }
        }
        Err(modified(kind, name))
    }

    /// The state that a proposal leads to: only the part it may change, with everything the server owns kept.
    fn next_state(
        &self,
        kind: KindRef<'_>,
        part: Option<Subresource>,
        mut proposed: Value,
        old: &Value,
    ) -> Result<Value, StatusError> {
        if let Some(spelling) = &kind.spelling {
            (spelling.write)(&mut proposed);
        }
        let kind = kind.stored();
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
        put(metadata, "managedFields", None);
        put(metadata, "selfLink", None);
        drop_empty_metadata(metadata);
        if !text(old, "/metadata/deletionTimestamp").is_empty() {
            refuse_new_finalizers(kind, old, &next)?;
        }
        let mut next = canonicalize(kind, &next)?;
        if kind.counts_generations && kind.strategy.asks_for_change(&next, old) {
            let generation = integer(old, "/metadata/generation").unwrap_or(0) + 1;
            member(&mut next, "metadata")["generation"] = generation.into();
        }
        kind.strategy.drop_unserved(&mut next);
        Ok(next)
    }
}
