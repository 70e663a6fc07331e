//! The order of admission: what changes an object, and what refuses it once it is valid.
//!
//! `limit ranges → the kind's own → mutating policies → mutating webhooks`, the last three once more where one of them changed what another
//! had seen and asks for that; then, behind the rules of the kind, `limit ranges → pod security → validating policies → validating
//! webhooks`, those at once. Quotas come last of all, with the write itself (`super::charges`).
//!
//! Invariants: what configures admission is admitted by nothing that is configured; each verb asks once for each attempt of its write, and
//! a create asks what changes objects once in all.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;
use weft_kinds::admission::expressions::Scope;
use weft_kinds::admission::matching::Objects as Seen;
use weft_kinds::admission::mutation::{self, Round};
use weft_kinds::admission::policy::{self, Lookup as _};
use weft_kinds::admission::webhook::Webhook;
use weft_kinds::admission::{Operation, Place, Request, User, limits, pod_security};
use weft_kinds::apiextensions::Custom;
use weft_kinds::apiextensions::conversion::Conversion;
use weft_kinds::lens::{member, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{Kind, KindRef, LIMIT_RANGE, NAMESPACE, POD, Registry, decode};
use weft_store::Snapshot;

use super::Surrounding;
use super::configured::Configured;
use crate::audit;
use crate::authz::{Authorized, Authorizer};
use crate::caller::Caller;
use crate::encryption::Vault;
use crate::namespaces::Namespaces;
use crate::objects::undecodable;
use crate::reach::{self, State};
use crate::request::ObjectRef;
use crate::stored::{self, Stored};
use crate::webhook::{self, WebhookClient};

/// What is told to whoever wrote, and to the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub warnings: Vec<String>,
}

/// What is noted of a write, beside its answer: the audit log has it, and the server's.
fn note(request: &Request, annotations: impl IntoIterator<Item = (String, String)>) {
    for (key, value) in annotations {
        audit::note(&key, &value);
        tracing::info!(
            target: "weft_apiserver::audit",
            user = %request.user.name,
            operation = request.operation.name(),
            resource = %request.place.resource,
            namespace = %request.namespace,
            name = %request.name,
            key = %key,
            value = %value,
            "admission"
        );
    }
}

/// A write on its way through admission.
pub(crate) struct Chain<'a> {
    pub caller: &'a Caller,
    /// In the spelling that it was asked for.
    pub kind: KindRef<'a>,
    pub request: Request,
    pub configured: Arc<Configured>,
    pub snapshot: &'a Snapshot,
    pub vault: &'a Vault,
    pub namespaces: &'a Namespaces,
    pub registry: Arc<Registry>,
    pub client: &'a WebhookClient,
    pub new_uid: fn() -> String,
    pub authorizer: &'a Authorizer,
    /// Whether the object has yet to get what only the server gives.
    pub hides_identity: bool,
    /// The form that a stored object has.
    pub canonical: fn(KindRef<'_>, &Value) -> Result<Value, StatusError>,
}

/// What a request is, for admission. Under which other names its object is known, `registry` says, if anybody is to be asked.
pub(crate) fn request(
    asked: &Authorized,
    operation: Operation,
    object: ObjectRef<'_>,
    options: Value,
    dry_run: bool,
    registry: Option<&Registry>,
) -> Request {
    let ObjectRef {
        kind,
        namespace,
        name,
    } = object;
    let caller = asked.caller();
    let access = asked.access();
    let subresource = access.and_then(|access| access.subresource).unwrap_or("");
    let kinds = registry.into_iter().flat_map(Registry::all);
    let equivalents =
        kinds.filter(|other| is_same(kind, other) && *other != kind && !is_review(other));
    let namespace = match namespace {
        None if **kind.stored() == **NAMESPACE => name,
        namespace => namespace.unwrap_or(""),
    };
    Request {
        operation,
        place: Place::of(kind),
        equivalents: equivalents.map(Place::of).collect(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        user: User {
            name: caller.user().to_owned(),
            uid: caller.uid().unwrap_or("").to_owned(),
            groups: caller.groups().to_vec(),
            extra: caller.extra().clone(),
        },
        dry_run,
        options,
    }
}

/// Whether two kinds have the same objects, which one call need not wait for another to be seen as either.
fn is_same(kind: KindRef<'_>, other: KindRef<'_>) -> bool {
    let versions = |custom: &Custom, other: &Custom| {
        let (of, other) = (custom.definition(), other.definition());
        of.name == other.name && of.conversion == Conversion::None
    };
    match (&kind.custom, &other.custom) {
        (Some(custom), Some(other)) => versions(custom, other),
        _ => other.stored() == kind.stored(),
    }
}

pub(super) fn is_review(kind: &Kind) -> bool {
    kind.served != weft_kinds::Served::Stored
}

impl Chain<'_> {
    /// The namespace that the object is in.
    fn namespace(&self) -> Option<Value> {
        if self.request.is_namespace() || self.request.namespace.is_empty() {
            return None;
        }
        let name = &self.request.namespace;
        let found = self.namespaces.find(self.vault, self.snapshot, name)?;
        Some(found.value())
    }

    /// The limit ranges that have a say.
    fn ranges(&self) -> Vec<Value> {
        if !limits::concerns(&self.request) {
            return Vec::new();
        }
        let prefix = stored::prefix(&LIMIT_RANGE, Some(&self.request.namespace));
        let entries = self.snapshot.range(&prefix, None);
        let ranges = entries.map(|entry| Stored::new(self.vault, &LIMIT_RANGE, entry).value());
        ranges.collect()
    }

    /// A stored state as `place` spells it.
    pub(super) fn spell(&self, place: &Place, value: &Value) -> Value {
        let mut value = value.clone();
        let Some(kind) = self.kind_at(place) else {
            return value;
        };
        if let Some(spelling) = &kind.spelling {
            (spelling.read)(&mut value);
        }
        if kind.custom.is_some() {
            value["apiVersion"] = kind.api_version().into();
        }
        value
    }

    fn kind_at(&self, place: &Place) -> Option<&Arc<Kind>> {
        let (group, version) = (&place.resource_group, &place.resource_version);
        self.registry.by_resource(group, version, &place.resource)
    }

    /// What `place` spells, as it is stored.
    pub(super) fn stored_form(
        &self,
        place: &Place,
        mut value: Value,
    ) -> Result<Value, StatusError> {
        if self.has_own_body() {
            let of = GroupVersionKind::new(&place.group, &place.version, &place.kind);
            let decoded = decode::value(&of, &value);
            return Ok(decoded.map_err(|error| undecodable(&of, &error))?.value);
        }
        if let Some(spelling) = self.kind_at(place).and_then(|kind| kind.spelling.as_ref()) {
            (spelling.write)(&mut value);
        }
        if self.kind.custom.is_some() {
            value["apiVersion"] = self.kind.api_version().into();
        }
        (self.canonical)(self.kind.stored(), &value)
    }

    /// What is made of a proposed object. None where nothing changes it.
    ///
    /// # Errors
    /// What refuses it on the way.
    pub(crate) async fn mutated(
        &self,
        proposed: &Value,
        old: Option<&Value>,
        around: &Surrounding<'_>,
        told: &mut Told,
    ) -> Result<Option<Value>, StatusError> {
        let ranges = self.ranges();
        let hooks = self.configured.mutates() && !self.request.is_exempt();
        if ranges.is_empty() && !hooks {
            return Ok(None);
        }
        let kind = self.kind.stored();
        let own = |value: &Value| -> Result<Value, StatusError> {
            let mut value = (self.canonical)(kind, value)?;
            for range in &ranges {
                limits::fill(range, &mut value);
            }
            if self.request.operation == Operation::Create {
                kind.strategy.admit(&mut value, around)?;
            }
            (self.canonical)(kind, &value)
        };
        let mut value = own(proposed)?;
        if !hooks {
            return Ok(Some(value));
        }
        self.rounds(&mut value, old, own, told).await?;
        Ok(Some(value))
    }

    /// What policies and webhooks make of what a subresource exchanges in place of its object. None where nobody is to be asked.
    ///
    /// # Errors
    /// As [`Chain::mutated`].
    pub(crate) async fn mutated_body(
        &self,
        body: &Value,
        old: Option<&Value>,
        told: &mut Told,
    ) -> Result<Option<Value>, StatusError> {
        if !self.configured.mutates() || self.request.is_exempt() {
            return Ok(None);
        }
        let mut value = body.clone();
        let own = |value: &Value| Ok(value.clone());
        self.rounds(&mut value, old, own, told).await?;
        Ok(Some(value))
    }

    /// Everybody once, and those who ask for it once more; `own` is what the kind itself makes of a changed object.
    async fn rounds(
        &self,
        value: &mut Value,
        old: Option<&Value>,
        own: impl Fn(&Value) -> Result<Value, StatusError>,
        told: &mut Told,
    ) -> Result<(), StatusError> {
        let namespace = self.namespace();
        let namespace = namespace.as_ref();
        let mut policies = Policies::default();
        let mut calls = Calls::default();
        let first = self.round(value, old, namespace, &mut policies, &mut calls, told);
        if first.await? {
            // What was changed behind those that had been asked is shown to them once more, and to each only once.
            let after_policies = policies.last.take();
            let next = own(value)?;
            if after_policies.is_some_and(|after| after != next) {
                policies.round.changed();
            }
            *value = next;
            policies.round.repeat();
            calls.again = true;
            self.round(value, old, namespace, &mut policies, &mut calls, told)
                .await?;
        }
        Ok(())
    }

    /// Policies, then webhooks; whether somebody wants to be asked again.
    async fn round(
        &self,
        value: &mut Value,
        old: Option<&Value>,
        namespace: Option<&Value>,
        policies: &mut Policies,
        calls: &mut Calls,
        told: &mut Told,
    ) -> Result<bool, StatusError> {
        let mut again = false;
        if !self.configured.mutating_policies.is_empty() {
            let (new, before) = self.shown(&self.request.place, Some(&*value), old);
            let seen = Seen {
                new: new.as_ref(),
                old: before.as_ref(),
                namespace,
            };
            let changed = mutation::mutate(
                &self.configured.mutating_policies,
                &self.configured.mutating_bindings,
                &self.request,
                seen,
                self,
                &mut policies.round,
                |place, next| {
                    let stored = self.keeping(self.stored_form(place, next)?, value);
                    let (shown, _) = self.shown(&self.request.place, Some(&stored), old);
                    Ok(shown.unwrap_or_default())
                },
            )?;
            if let Some(next) = changed {
                let stored = self.stored_form(&self.request.place, next)?;
                let kept = self.keeping(stored, value);
                *value = kept;
                again = true;
            }
            policies.last = Some(value.clone());
        }
        if calls.again && calls.last.as_ref().is_some_and(|last| *last != *value) {
            calls.changed();
        }
        for (index, hook) in self.configured.mutating_webhooks.iter().enumerate() {
            if calls.again && !calls.due.contains(&index) {
                continue;
            }
            let asked = self.ask(hook, Some(&*value), old, namespace, told);
            let Asked::Yes(patch) = asked.await? else {
                continue;
            };
            if let Some((place, patch)) = patch {
                let next = self.patched(hook, &place, value, old, &patch)?;
                if next != *value {
                    *value = next;
                    again = true;
                    calls.changed();
                    policies.round.changed();
                }
            }
            if hook.reinvoked {
                calls.ran.push(index);
            }
        }
        calls.last = Some(value.clone());
        Ok(again)
    }

    /// What the server gave a new object stays as it is, whatever was made of the rest.
    fn keeping(&self, mut next: Value, before: &Value) -> Value {
        let metadata = member(&mut next, "metadata");
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "namespace",
            "resourceVersion",
        ] {
            let kept = before.pointer(&format!("/metadata/{field}")).cloned();
            put(metadata, field, kept);
        }
        next
    }

    /// The object and its past as a webhook or a policy sees them.
    fn shown(
        &self,
        place: &Place,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> (Option<Value>, Option<Value>) {
        let spell = |value: &Value| match self.has_own_body() {
            true => value.clone(),
            false => self.spell(place, value),
        };
        let mut new = new.map(spell);
        let old = old.map(spell);
        let version = old.as_ref();
        let version = version.and_then(|old| old.pointer("/metadata/resourceVersion"));
        if let (Some(new), Some(version)) = (&mut new, version) {
            let version = Some(version.clone());
            put(member(new, "metadata"), "resourceVersion", version);
        }
        if let (Some(new), true) = (&mut new, self.hides_identity) {
            // It has none before it is made.
            let metadata = member(new, "metadata");
            for field in ["uid", "creationTimestamp", "generation"] {
                put(metadata, field, None);
            }
        }
        (new, old)
    }

    /// Whether the request has a body of another kind than its object's: a Scale, a Binding.
    fn has_own_body(&self) -> bool {
        self.request.place.kind != *self.kind.kind
    }

    fn patched(
        &self,
        hook: &Webhook,
        place: &Place,
        value: &Value,
        old: Option<&Value>,
        patch: &Value,
    ) -> Result<Value, StatusError> {
        let (shown, _) = self.shown(place, Some(value), old);
        let Some(shown) = shown else {
            return Err(StatusError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        let gvk = GroupVersionKind::new(&place.group, &place.version, &place.kind);
        let next = patch::apply(&gvk, &shown, PatchKind::Json, patch)
            .map_err(|error| StatusError::internal(error.message))?;
        let next = self.stored_form(place, next)?;
        Ok(self.keeping(next, value))
    }

    /// Asks one webhook, if it is to be asked: the place by which it is, and its patch.
    async fn ask(
        &self,
        hook: &Webhook,
        new: Option<&Value>,
        old: Option<&Value>,
        namespace: Option<&Value>,
        told: &mut Told,
    ) -> Result<Asked, StatusError> {
        let seen = Seen {
            new,
            old,
            namespace,
        };
        let Some(place) = hook.matched(&self.request, &seen) else {
            return Ok(Asked::No);
        };
        let (new, old) = self.shown(place, new, old);
        let seen = Seen {
            new: new.as_ref(),
            old: old.as_ref(),
            namespace,
        };
        if hook.has_conditions() {
            let scope = Scope::new(&self.request, place, seen)
                .with_authorizer(self.authorizer(), &self.request);
            if !hook.holds(&self.request, &scope, None)? {
                return Ok(Asked::No);
            }
        }
        if self.request.dry_run && !hook.takes_dry_runs {
            return Err(hook.no_dry_run());
        }
        let uid = (self.new_uid)();
        let answered = async {
            let review = hook.review(&uid, &self.request, place, &seen)?;
            let target = hook.target.as_ref().ok_or("it has no address")?;
            let state = State {
                snapshot: self.snapshot,
                vault: self.vault,
            };
            let endpoint = webhook::endpoint(state, target, reach::turn())
                .map_err(|error| error.to_string())?;
            let timeout = Duration::from_secs(hook.timeout_seconds);
            let called = self.client.call(&endpoint, &review, timeout).await;
            hook.answer(&uid, &called.map_err(|error| error.to_string())?)
        };
        match answered.await {
            Ok(answer) => {
                told.warnings.extend(answer.warnings);
                note(&self.request, answer.annotations);
                let patch = answer.verdict?;
                match (&patch, &new) {
                    (Some(_), None) => Err(StatusError::internal(format!(
                        "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                        hook.name
                    ))),
                    _ => Ok(Asked::Yes(patch.map(|patch| (place.clone(), patch)))),
                }
            }
            Err(why) if hook.ignores_failures => {
                tracing::warn!(webhook = %hook.name, %why, "failed calling webhook, failing open");
                Ok(Asked::Yes(None))
            }
            Err(why) => {
                tracing::warn!(webhook = %hook.name, %why, "failed calling webhook, failing closed");
                Err(hook.failed(&why))
            }
        }
    }

    /// Judges a deletion: those that change objects are asked, too, and have nothing to change.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn deleted(
        &self,
        new: Option<&Value>,
        old: Option<&Value>,
        told: &mut Told,
    ) -> Result<(), StatusError> {
        if !self.request.is_exempt() && !self.configured.mutating_webhooks.is_empty() {
            let namespace = self.namespace();
            for hook in &self.configured.mutating_webhooks {
                self.ask(hook, new, old, namespace.as_ref(), told).await?;
            }
        }
        self.judged(new, old, told).await
    }

    /// Judges what is valid by the rules of its kind. `new` is none for a deletion; both are stored states, with the
    /// resourceVersion of what is stored.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn judged(
        &self,
        new: Option<&Value>,
        old: Option<&Value>,
        told: &mut Told,
    ) -> Result<(), StatusError> {
        let is_deleting =
            old.is_some_and(|old| !text(old, "/metadata/deletionTimestamp").is_empty());
        if let (Some(new), false) = (new, is_deleting) {
            for range in self.ranges() {
                limits::judge(&range, &self.request, new)?;
            }
        }
        if let Some(new) = new
            && !self.has_own_body()
        {
            self.pod_security(new, old, told)?;
        }
        if !self.configured.validates() || self.request.is_exempt() {
            return Ok(());
        }
        let namespace = self.namespace();
        if !self.configured.validating_policies.is_empty() {
            let (shown, before) = self.shown(&self.request.place, new, old);
            let seen = Seen {
                new: shown.as_ref(),
                old: before.as_ref(),
                namespace: namespace.as_ref(),
            };
            let (found, result) = policy::validate(
                &self.configured.validating_policies,
                &self.configured.validating_bindings,
                &self.request,
                seen,
                self,
            );
            told.warnings.extend(found.warnings);
            note(&self.request, found.annotations);
            result?;
        }
        let hooks = self.configured.validating_webhooks.iter();
        let namespace = namespace.as_ref();
        let asked = hooks.map(|hook| async move {
            let mut told = Told::default();
            let asked = self.ask(hook, new, old, namespace, &mut told).await;
            (asked.err(), told)
        });
        let mut refused = None;
        for (asked, found) in join_all(asked).await {
            told.warnings.extend(found.warnings);
            if let Some(error) = asked {
                refused.get_or_insert(error);
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn pod_security(
        &self,
        new: &Value,
        old: Option<&Value>,
        told: &mut Told,
    ) -> Result<(), StatusError> {
        let found = if self.request.is_namespace() {
            let concerned = pod_security::asks(new) || old.is_some_and(pod_security::asks);
            if !concerned || !self.request.subresource.is_empty() {
                return Ok(());
            }
            pod_security::judge_namespace(&self.request, new, old, || {
                let prefix = stored::prefix(&POD, Some(&self.request.name));
                let entries = self.snapshot.range(&prefix, None);
                let pods = entries.map(|entry| Stored::new(self.vault, &POD, entry).value());
                // One more than are looked at says that there are more.
                pods.take(pod_security::PODS_CHECKED_MAX + 1).collect()
            })?
        } else {
            if !pod_security::concerns(&self.request) {
                return Ok(());
            }
            // Its labels are at hand; most namespaces ask for nothing.
            let name = &self.request.namespace;
            let found = self.namespaces.find(self.vault, self.snapshot, name);
            let asks = |namespace: &Stored| namespace.has_label(pod_security::is_asked_by);
            match found.filter(asks) {
                None => return Ok(()),
                Some(namespace) => {
                    pod_security::judge(&self.request, new, old, &namespace.value())?
                }
            }
        };
        told.warnings.extend(found.warnings);
        note(&self.request, found.annotations);
        Ok(())
    }
}

/// Whether a webhook was asked, and the patch that it gave, with the place by which it was.
enum Asked {
    No,
    Yes(Option<(Place, Value)>),
}

/// Policies over both rounds.
#[derive(Default)]
struct Policies {
    round: Round,
    /// What they left behind.
    last: Option<Value>,
}

/// Webhooks over both rounds, by their places.
#[derive(Default)]
struct Calls {
    again: bool,
    ran: Vec<usize>,
    due: Vec<usize>,
    last: Option<Value>,
}

impl Calls {
    fn changed(&mut self) {
        self.due.append(&mut self.ran);
    }
}

/// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions` as admission is told them.
pub(crate) fn options(kind: &str, dry_run: bool, field_manager: Option<&str>) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if let Some(manager) = field_manager {
        options["fieldManager"] = manager.into();
    }
    options
}
