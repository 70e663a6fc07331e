//! Who owns which fields of what is written: `metadata.managedFields` of creates, updates, applies and sizes.
//!
//! The rules are pure (`weft_kinds::apply`); here is what they are asked with: the version of the request, what can be written
//! through its door, the other spellings of the kind, who writes, and when.
//!
//! Invariants: a write that changes nothing changes no owners; what the server gives an object by itself is nobody's; what is bound is
//! nobody's either, as in Kubernetes; what keeps owners from being recorded is logged and never a refusal, except of an apply.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use weft_api::gvk::split_api_version;
use weft_api::status::StatusError;
use weft_kinds::apiextensions::Custom;
use weft_kinds::apply::{self, ApplyError, Converted, Managed, Scope, Sizes, Writable, Writer};
use weft_kinds::lens::{member, put, text};
use weft_kinds::schema::Schema;
use weft_kinds::{Kind, KindRef, Registry, Served, Subresource};

use super::conversion::{Conversions, needs_webhook};
use super::scale::scale_kind;
use super::{Objects, WriteOptions};
use crate::caller::Caller;

/// Where owners come from, for a change that was made of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Whoever makes the write owns what it changes.
    Recorded,
    /// The change says the owners itself.
    Said,
    /// It is not tracked.
    Kept,
}

/// A write, as owners are concerned.
pub(super) struct Owners<'a> {
    registry: Arc<Registry>,
    /// As the request spells it.
    kind: KindRef<'a>,
    part: Option<Subresource>,
    manager: String,
    now: Timestamp,
    conversions: Conversions,
}

impl Objects {
    pub(super) fn owners<'a>(
        &self,
        caller: &Caller,
        kind: KindRef<'a>,
        part: Option<Subresource>,
        options: &WriteOptions,
    ) -> Owners<'a> {
        Owners {
            registry: self.registry(),
            kind,
            part,
            manager: match &options.field_manager {
                Some(manager) => manager.clone(),
                None => caller.component().to_owned(),
            },
            now: self.now(),
            conversions: options.conversions.clone(),
        }
    }
}

impl Owners<'_> {
    /// Records who owns a new object, which is in the stored spelling.
    pub(super) fn created(&self, new: &mut Value) {
        self.record(None, new);
    }

    /// Records what a write changed between `old` and `next`, which are in the stored spelling.
    pub(super) fn updated(&self, old: &Value, next: &mut Value) {
        if next != old {
            self.record(Some(old), next);
        }
    }

    fn record(&self, old: Option<&Value>, next: &mut Value) {
        let update = |old: Option<&Value>, next: Value| {
            self.scoped(|scope| apply::update(scope, old, next, self.writer()))
        };
        let fault = match &self.kind.spelling {
            None => {
                let (recorded, fault) = update(old, next.take());
                *next = recorded;
                fault
            }
            Some(spelling) => {
                let spelled = |stored: &Value| {
                    let mut value = stored.clone();
                    (spelling.read)(&mut value);
                    value
                };
                let (recorded, fault) = update(old.map(spelled).as_ref(), spelled(next));
                set(next, of(&recorded).cloned());
                fault
            }
        };
        if let Some(fault) = fault.filter(|_| !self.conversions.waits()) {
            self.note(next, &fault);
        }
    }

    /// What a configuration makes of an object, both in the spelling of the request, with its owners.
    ///
    /// # Errors
    /// 409 for fields of others, unless it is forced; 400 and 500 for what is no configuration of the kind.
    pub(super) fn applied(
        &self,
        live: Option<&Value>,
        config: &Value,
        force: bool,
    ) -> Result<Value, StatusError> {
        let applied = self.scoped(|scope| apply::apply(scope, live, config, self.writer(), force));
        applied.map_err(ApplyError::into_status)
    }

    /// A Scale with the owners of its object's size; both in the spelling of the request.
    ///
    /// # Errors
    /// 500 for an object whose owners cannot be read.
    pub(super) fn seen_in_scale(&self, live: &Value, scale: &mut Value) -> Result<(), StatusError> {
        let seen = apply::to_scale(of(live), &self.sizes()).map_err(StatusError::internal)?;
        set(scale, seen);
        Ok(())
    }

    /// Records what a write changed of a Scale.
    pub(super) fn scale_updated(&self, old: &Value, next: &mut Value) {
        let (recorded, fault) =
            of_scale(|scope| apply::update(scope, Some(old), next.take(), self.writer()));
        *next = recorded;
        if let Some(fault) = fault {
            self.note(next, &fault);
        }
    }

    /// What a configuration makes of a Scale.
    ///
    /// # Errors
    /// As [`Owners::applied`].
    pub(super) fn scale_applied(
        &self,
        live: &Value,
        config: &Value,
        force: bool,
    ) -> Result<Value, StatusError> {
        let applied =
            of_scale(|scope| apply::apply(scope, Some(live), config, self.writer(), force));
        applied.map_err(ApplyError::into_status)
    }

    /// Gives an object the owners that a Scale of it was left with.
    ///
    /// # Errors
    /// 500 for an object whose owners cannot be read.
    pub(super) fn put_back_of_scale(
        &self,
        scale: &Value,
        live: &Value,
        next: &mut Value,
    ) -> Result<(), StatusError> {
        let version = self.kind.api_version();
        let owners = apply::to_parent(of(live), of(scale), &version, &self.sizes());
        set(next, owners.map_err(StatusError::internal)?);
        Ok(())
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            manager: &self.manager,
            now: self.now,
        }
    }

    fn scoped<T>(&self, ask: impl FnOnce(&Scope<'_>) -> T) -> T {
        let gvk = self.kind.gvk();
        let stored = self.kind.stored();
        let writable = stored.strategy.writable(stored, self.part);
        let convert = |value: &Value, version: &str| self.converted(value, version);
        ask(&Scope {
            gvk: &gvk,
            subresource: self.part.map_or("", Subresource::name),
            schema: self.kind.schema(),
            writable: &writable,
            convert: &convert,
        })
    }

    /// The kind's spelling under another version.
    fn spelling(&self, api_version: &str) -> Option<KindRef<'_>> {
        let (group, version) = split_api_version(api_version);
        let mut kinds = self.registry.all().iter();
        kinds.find(|kind| {
            kind.group == group && kind.version == version && self.is_of_same_objects(kind)
        })
    }

    fn is_of_same_objects(&self, kind: &Kind) -> bool {
        kind.served == Served::Stored && kind.key_prefix() == self.kind.key_prefix()
    }

    /// # Errors
    /// That it has to be converted by somebody else first, or that this failed.
    fn converted(&self, value: &Value, api_version: &str) -> Result<Option<Converted<'_>>, String> {
        let from = self.spelling(text(value, "/apiVersion"));
        let (Some(from), Some(to)) = (from, self.spelling(api_version)) else {
            return Ok(None);
        };
        // What says nothing but its kind is the same in every version.
        let is_blank = value.as_object().is_none_or(|map| map.len() <= 2);
        let made_elsewhere = needs_webhook(to) && from != to && !is_blank;
        let mut value = match made_elsewhere {
            true => self.conversions.find(value, api_version)?,
            false => value.clone(),
        };
        if let Some(custom) = &to.custom {
            value["apiVersion"] = api_version.into();
            if made_elsewhere {
                custom.fit(&mut value);
            }
        }
        if let Some(spelling) = &from.spelling {
            (spelling.write)(&mut value);
        }
        if let Some(spelling) = &to.spelling {
            (spelling.read)(&mut value);
        }
        Ok(Some(Converted {
            value,
            schema: to.schema(),
        }))
    }

    /// Where the kind has its size.
    fn sizes(&self) -> Sizes {
        let kinds = self.registry.all().iter();
        let kinds = kinds.filter(|kind| self.is_of_same_objects(kind));
        kinds.fold(Sizes::default(), |sizes, kind| {
            let scale = kind.custom.as_ref().and_then(Custom::scale);
            let pointer = scale.map_or("/spec/replicas", |scale| &scale.spec_replicas);
            let path: Vec<&str> = pointer.split('/').skip(1).collect();
            sizes.with(&kind.api_version(), &path)
        })
    }

    fn note(&self, object: &Value, fault: &ApplyError) {
        tracing::warn!(
            kind = ?self.kind,
            namespace = text(object, "/metadata/namespace"),
            name = text(object, "/metadata/name"),
            manager = self.manager,
            %fault,
            "owners of fields not recorded"
        );
    }
}

/// The owners that an object names.
pub(super) fn of(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/managedFields")
}

pub(super) fn set(object: &mut Value, owners: Option<Value>) {
    put(member(object, "metadata"), "managedFields", owners);
}

/// Puts back the owners of before admission where it left some that cannot be read, and says so to whoever asked.
pub(super) fn keep_sound(before: &Value, admitted: &mut Value) -> Option<String> {
    let error = Managed::parse(of(admitted)).err()?;
    set(admitted, of(before).cloned());
    Some(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission \
         controller; please fix your requests: {error}"
    ))
}

/// What is asked of a Scale, which is a kind of its own.
fn of_scale<T>(ask: impl FnOnce(&Scope<'_>) -> T) -> T {
    let gvk = scale_kind();
    ask(&Scope {
        gvk: &gvk,
        subresource: Subresource::Scale.name(),
        schema: Schema::of(&gvk),
        writable: &Writable::All,
        convert: &apply::one_version,
    })
}
