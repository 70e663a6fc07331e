//! Where the verbs meet admission: what a request is for it, and what is shown of it.

use std::time::Duration;

use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_kinds::admission::webhook::Target;
use weft_kinds::admission::{Operation, Place};
use weft_kinds::lens::text;
use weft_kinds::{KindRef, Subresource};
use weft_store::Snapshot;

use super::canonical::canonicalize;
use super::scale::scale_of;
use super::{DeleteOptions, Objects, WriteOptions};
use crate::admission::Imports;
use crate::admission::chain::{self, Chain, Told};
use crate::authz::Authorized;
use crate::reach::{self, State};
use crate::request::ObjectRef;
use crate::webhook::{self, WebhookError};

/// What a write is for admission, beside its object.
pub(super) struct Asking<'a> {
    pub asked: &'a Authorized,
    pub operation: Operation,
    pub object: ObjectRef<'a>,
    pub options: Value,
    pub dry_run: bool,
}

impl<'a> Asking<'a> {
    pub(super) fn writing(
        asked: &'a Authorized,
        operation: Operation,
        object: ObjectRef<'a>,
        options: &WriteOptions,
    ) -> Self {
        let kind = match (operation, asked.request().verb) {
            (Operation::Create, _) => "CreateOptions",
            (_, "patch") => "PatchOptions",
            _ => "UpdateOptions",
        };
        let manager = options.field_manager.as_deref();
        Self {
            asked,
            operation,
            object,
            options: chain::options(kind, options.dry_run, manager),
            dry_run: options.dry_run,
        }
    }
}

impl Objects {
    pub(super) fn chain<'a>(&'a self, asking: Asking<'a>, snapshot: &'a Snapshot) -> Chain<'a> {
        let ObjectRef {
            kind,
            namespace,
            name,
        } = asking.object;
        let registry = self.registry();
        let inner = &self.inner;
        let configured = inner.configurations.current(snapshot, &inner.vault);
        let asks = configured.mutates() || configured.validates();
        let request = chain::request(
            asking.asked,
            asking.operation,
            asking.object,
            asking.options,
            asking.dry_run,
            asks.then_some(&*registry),
        );
        debug_assert!(namespace.is_none() || !request.namespace.is_empty());
        debug_assert!(request.name == name);
        Chain {
            caller: asking.asked.caller(),
            kind,
            request,
            configured,
            snapshot,
            vault: &inner.vault,
            namespaces: &inner.namespaces,
            registry,
            client: &inner.webhooks,
            new_uid: inner.config.new_uid,
            authorizer: &inner.authorizer,
            hides_identity: false,
            canonical: canonicalize,
        }
    }

    /// Asks a webhook something, wherever its configuration says that it is: conversions, too.
    ///
    /// # Errors
    /// [`WebhookError`] for whatever is not an answer in time.
    pub async fn ask_webhook(
        &self,
        target: &Target,
        question: &Value,
        timeout: Duration,
    ) -> Result<Value, WebhookError> {
        let snapshot = self.inner.store.snapshot();
        let state = State {
            snapshot: &snapshot,
            vault: &self.inner.vault,
        };
        let endpoint = webhook::endpoint(state, target, reach::turn())?;
        self.inner.webhooks.call(&endpoint, question, timeout).await
    }

    /// What those that change objects make of a new one, before it is looked at in any other way. None where nothing changes it.
    pub(super) async fn mutated_new(
        &self,
        asked: &Authorized,
        template: &Value,
        options: &WriteOptions,
        imports: &Imports,
        told: &mut Told,
    ) -> Result<Option<Value>, StatusError> {
        let (kind, namespace) = asked.collection("create")?;
        let name = text(template, "/metadata/name");
        let snapshot = self.inner.store.snapshot();
        // A namespace that takes nothing is told of where it is looked at.
        let takes = namespace.is_none_or(|namespace| {
            self.check_namespace(&snapshot, kind.stored(), namespace, name)
                .is_ok()
        });
        if !takes {
            return Ok(None);
        }
        let object = ObjectRef::new(kind, namespace, name);
        let asking = Asking::writing(asked, Operation::Create, object, options);
        let mut chain = self.chain(asking, &snapshot);
        chain.hides_identity = true;
        let around = self.surroundings(asked.caller(), &snapshot, imports);
        chain.mutated(template, None, &around, told).await
    }

    /// What admission makes of the options of a connection to an object, or to what is in it; `kind` is theirs.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit_connect(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        kind: &str,
        options: Value,
    ) -> Result<Value, StatusError> {
        let snapshot = self.inner.store.snapshot();
        let asking = Asking {
            asked,
            operation: Operation::Connect,
            object,
            options: Value::Null,
            dry_run: false,
        };
        let mut chain = self.chain(asking, &snapshot);
        chain.request.place.kind = kind.to_owned();
        let mut told = Told::default();
        let changed = chain.mutated_body(&options, None, &mut told).await?;
        let options = changed.unwrap_or(options);
        chain.judged(Some(&options), None, &mut told).await?;
        Ok(options)
    }

    /// Judges a deletion, or what an eviction asks for.
    pub(super) async fn admit_deletion(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        snapshot: &Snapshot,
        old: &Value,
        options: &DeleteOptions,
    ) -> Result<(), StatusError> {
        let evicts = asked
            .access()
            .is_some_and(|access| access.subresource == Some(Subresource::Eviction.name()));
        let operation = match evicts {
            true => Operation::Create,
            false => Operation::Delete,
        };
        let mut delete = chain::options("DeleteOptions", options.dry_run, None);
        if let Some(seconds) = options.grace_period_seconds {
            delete["gracePeriodSeconds"] = seconds.into();
        }
        let asking = Asking {
            asked,
            operation,
            object,
            options: match evicts {
                true => chain::options("CreateOptions", options.dry_run, None),
                false => delete,
            },
            dry_run: options.dry_run,
        };
        let mut told = Told::default();
        let mut chain = self.chain(asking, snapshot);
        if evicts {
            chain.request.place = Place {
                group: "policy".to_owned(),
                version: "v1".to_owned(),
                kind: "Eviction".to_owned(),
                ..chain.request.place
            };
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": object.name, "namespace": object.namespace},
            });
            chain.deleted(Some(&eviction), None, &mut told).await?;
        } else {
            chain.deleted(None, Some(old), &mut told).await?;
        }
        options.advice.replace(told.warnings);
        Ok(())
    }
}

/// What a subresource exchanges in place of its object, before and after, where that is another kind: how it is called, and both.
pub(super) fn own_body(
    part: Option<Subresource>,
    kind: KindRef<'_>,
    next: &Value,
    old: &Value,
) -> Option<(Place, Value, Option<Value>)> {
    let (group, version, name) = part?.own_kind()?;
    let place = Place {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: name.to_owned(),
        ..Place::of(kind)
    };
    match part? {
        Subresource::Scale => Some((place, scale_of(kind, next), Some(scale_of(kind, old)))),
        Subresource::Binding => {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": text(next, "/metadata/name"), "namespace": text(next, "/metadata/namespace")},
                "target": {"kind": "Node", "name": text(next, "/spec/nodeName")},
            });
            Some((place, binding, None))
        }
        _ => None,
    }
}
