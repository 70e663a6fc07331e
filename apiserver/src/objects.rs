//! The verbs on objects: the only door to the store.
//!
//! Every write passes `authorise → merge → default → admit → validate → compare-and-set`, over a snapshot that
//! is taken anew for each attempt, so a write either takes effect on exactly what it was judged against or not
//! at all. The HTTP face and the control loop call the same functions; a caller that acts under a leadership
//! has its writes fenced by that term.
//!
//! Invariants: `uid` and `creationTimestamp` never change; the main resource never changes `status`, and
//! `status` never anything else; `generation` counts changes of the desired state only; a write that changes
//! nothing stores nothing; an object in deletion whose last finalizer goes is removed by that same write.
//! In files of their own: what a body may say ([`body`]), deletion ([`deletion`]), sizes ([`scale`]), ciphertext
//! ([`sealing`]), and how old the state may be that a request is judged on ([`freshness`]).
//! Left to others: rules of kinds (`kinds`, `defaults`, `validate`, `admission`), bytes (`http`).

mod body;
mod deletion;
mod freshness;
mod scale;
mod sealing;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rand::Rng as _;
use serde_json::{Map, Value, json};
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::lens::{integer, items, member, object, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{KindRef, Subresource};
use weft_store::{Mutation, Precondition, Revision, Snapshot, Store, WriteError};

pub(crate) use self::body::strict_decoding;
use self::body::{
    check_identity, check_schema, check_uid, check_version, drop_empty_metadata,
    refuse_new_finalizers,
};
use self::deletion::is_finished;
pub use self::deletion::{DeleteOptions, Deleted, Propagation};
pub(crate) use self::freshness::read_failed;
use self::freshness::write_failed;
pub use self::sealing::REWRAP_PATH;
use crate::admission::{self, ServiceRange};
use crate::authz::{self, Access};
use crate::ca::Authority;
use crate::caller::Caller;
use crate::encryption::{KeyFile, Vault};
pub use crate::informer::{Change, Informer};
use crate::listing::{self, Snapshots};
pub use crate::listing::{
    ListOptions, ObjectWatch, Page, Selection, VersionMatch, WatchEvent, WatchOptions,
};
pub use crate::stored::Stored;
use crate::{certificates, stored};

/// Attempts of a write that does not insist on a resourceVersion. Each one lost was won by another write, and the HTTP
/// face lets in 200 at a time, so this many mean that something else is wrong; Kubernetes has no limit here.
const ATTEMPTS_MAX: usize = 256;
/// Attempts to find a free generated name, as in Kubernetes since 1.30.
const GENERATED_NAMES_MAX: usize = 8;
/// Longest prefix of a generated name; five characters follow.
const GENERATED_PREFIX_MAX: usize = 58;
/// No vowels and no look-alikes, so that no word comes out (k8s.io/apimachinery `util/rand`).
const GENERATED_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Namespaces that always exist.
const PERMANENT_NAMESPACES: &[&str] = &[
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "weft-system",
];

/// What the verbs need to know about the cluster.
#[derive(Clone)]
pub struct Config {
    /// Where virtual service addresses come from.
    pub service_range: ServiceRange,
    /// Signs certificate requests while they are created; without it they stay pending.
    pub authority: Option<Authority>,
    /// The wall clock, for time stamps of objects.
    pub clock: fn() -> Timestamp,
    /// With it, Secrets are stored as ciphertext.
    pub keys: Option<Arc<KeyFile>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_range: ServiceRange::default(),
            authority: None,
            clock: Timestamp::now,
            keys: None,
        }
    }
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but storing it.
    pub dry_run: bool,
    /// Who manages the fields, as the client calls itself.
    pub field_manager: Option<String>,
    /// Refuse fields that the kind does not have (`fieldValidation=Strict`).
    pub strict: bool,
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Main,
    Status,
    Scale,
    Binding,
    Finalize,
    Approval,
}

impl Part {
    fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Status => Some("status"),
            Self::Scale => Some("scale"),
            Self::Binding => Some("binding"),
            Self::Finalize => Some("finalize"),
            Self::Approval => Some("approval"),
        }
    }
}

/// The verbs. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    vault: Vault,
    config: Config,
    snapshots: parking_lot::Mutex<Snapshots>,
}

impl Objects {
    pub fn new(store: Store, config: Config) -> Self {
        Self {
            inner: Arc::new(Inner {
                vault: Vault::new(store.clone(), config.keys.clone()),
                store,
                config,
                snapshots: parking_lot::Mutex::new(Snapshots::default()),
            }),
        }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The stream that the control loop's view of the cluster is built from.
    pub fn informer(&self, kinds: &[KindRef]) -> Informer {
        Informer::new(self.inner.store.clone(), self.inner.vault.clone(), kinds)
    }

    /// # Errors
    /// 403, 404; 503 without a majority.
    pub async fn get(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Stored, StatusError> {
        self.get_at(caller, kind, namespace, name, None).await
    }

    /// As [`Objects::get`]; `version` 0 takes what this server has, N what is not older than N.
    ///
    /// # Errors
    /// As [`Objects::get`]; 504 when this server has not reached `version`.
    pub async fn get_at(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
        version: Option<Revision>,
    ) -> Result<Stored, StatusError> {
        let access = access("get", kind, None, namespace, Some(name));
        authz::authorize(caller, &access)?;
        let snapshot = self.newest(version).await?;
        let found = self.find(&snapshot, kind, namespace, name)?;
        if caller.node_name().is_some() {
            authorize_node_read(&self.inner.vault, caller, &access, &found, &snapshot)?;
        }
        Ok(found)
    }

    /// # Errors
    /// 403; 400 for an unknown field; 410 for an expired continue token; 503 without a majority.
    pub async fn list(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, StatusError> {
        let name = options.selection.fields.exact("metadata.name");
        let access = access("list", kind, None, namespace, name);
        authz::authorize(caller, &access)?;
        authz::authorize_selection(caller, &access, &options.selection.fields)?;
        let newest = self.newest(options.resource_version).await?;
        listing::page(
            kind,
            namespace,
            options,
            &newest,
            &self.inner.vault,
            &self.inner.snapshots,
            Instant::now(),
        )
    }

    /// # Errors
    /// 403; 400 for an unknown field; 410 when the history before the revision is gone.
    pub async fn watch(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<ObjectWatch, StatusError> {
        let name = options.selection.fields.exact("metadata.name");
        let access = access("watch", kind, None, namespace, name);
        authz::authorize(caller, &access)?;
        authz::authorize_selection(caller, &access, &options.selection.fields)?;
        // The watch must not begin behind what an unversioned request is promised.
        let newest = self.newest(options.resource_version).await?;
        let Inner { store, vault, .. } = &*self.inner;
        ObjectWatch::start(store, vault, &newest, kind, namespace, options)
    }

    fn find(
        &self,
        snapshot: &Snapshot,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Stored, StatusError> {
        snapshot
            .get(&stored::key(kind, namespace, name))
            .map(|entry| Stored::new(&self.inner.vault, kind, entry))
            .ok_or_else(|| StatusError::not_found(kind.resource, kind.group, name))
    }

    fn now(&self) -> Timestamp {
        (self.inner.config.clock)()
    }

    /// Creates an object; with `generateName`, a free name is found.
    ///
    /// # Errors
    /// 400, 403, 404 (namespace), 409, 422; 429 and 503 when the store cannot take it now.
    pub async fn create(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let mut value = object.into_value();
        check_identity(kind, namespace, None, &mut value)?;
        authorize(caller, "create", kind, None, namespace, None)?;
        check_schema(kind, &value, None, options)?;
        if !text(&value, "/metadata/resourceVersion").is_empty() {
            return Err(StatusError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let template = self.prepared(kind, value);
        self.confirmed(|| self.create_prepared(caller, kind, namespace, &template, options))
            .await
    }

    async fn create_prepared(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        template: &Value,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let generated = text(template, "/metadata/name").is_empty();
        let prefix = text(template, "/metadata/generateName").to_owned();
        let attempts = if generated {
            GENERATED_NAMES_MAX
        } else {
            ATTEMPTS_MAX
        };
        let mut last_name = String::new();
        for _ in 0..attempts {
            let mut value = template.clone();
            if generated && !prefix.is_empty() {
                value["metadata"]["name"] = generate_name(&prefix).into();
            }
            last_name = text(&value, "/metadata/name").to_owned();
            let snapshot = self.inner.store.snapshot();
            let mut mutations = self.admit_new(caller, kind, namespace, &mut value, &snapshot)?;
            let key = stored::key(kind, namespace, &last_name);
            if snapshot.get(&key).is_some() {
                if generated {
                    continue;
                }
                return Err(already_exists(kind, &last_name));
            }
            if options.dry_run {
                return Ok(answer(kind, value, None));
            }
            mutations.push(Mutation::put(
                key.clone(),
                Precondition::Absent,
                self.encode(kind, &key, &value).await?,
            ));
            match self.write(caller, mutations).await {
                Ok(revision) => return Ok(answer(kind, value, Some(revision))),
                Err(WriteError::Conflict { key: found, .. }) if found == key => {
                    if !generated {
                        return Err(already_exists(kind, &last_name));
                    }
                    self.catch_up().await?;
                }
                // An address was taken meanwhile: choose again on a newer snapshot.
                Err(WriteError::Conflict { key, .. }) if admission::is_allocation(&key) => {
                    self.catch_up().await?;
                }
                Err(error) => return Err(write_failed(kind, &last_name, error)),
            }
        }
        Err(already_exists(kind, &last_name))
    }

    /// Gives a new object what only the server may set, and drops what clients may not.
    fn prepared(&self, kind: KindRef, mut value: Value) -> Value {
        if let Some(view) = &kind.view {
            (view.write)(&mut value);
        }
        let kind = kind.stored();
        // Nodes register with their status; for all others it is the controllers' to write.
        if kind.has(Subresource::Status) && *kind != weft_kinds::NODE {
            put(&mut value, "status", None);
        }
        let metadata = member(&mut value, "metadata");
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
            "generation",
        ] {
            put(metadata, field, None);
        }
        metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
        metadata["creationTimestamp"] = rfc3339(self.now()).into();
        if kind.counts_generations {
            metadata["generation"] = 1.into();
        }
        value
    }

    /// Defaults, admission, validation and signing for a new object.
    fn admit_new(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        value: &mut Value,
        snapshot: &Snapshot,
    ) -> Result<Vec<Mutation>, StatusError> {
        let kind = kind.stored();
        let name = text(value, "/metadata/name").to_owned();
        if let Some(namespace) = namespace {
            namespace_takes(&self.inner.vault, snapshot, kind, namespace, &name)?;
        }
        (kind.defaults)(value);
        let mutations = admission::create(
            kind,
            value,
            caller,
            snapshot,
            self.inner.config.service_range,
        )?;
        weft_kinds::validate::object_of(kind, value, None)?;
        let access = access("create", kind, None, namespace, Some(&name));
        authz::authorize_object(caller, &access, None, Some(value))?;
        if *kind == weft_kinds::CERTIFICATE_SIGNING_REQUEST
            && let Some(authority) = &self.inner.config.authority
        {
            let pods_on_node = |node: &str| pods_on(&self.inner.vault, snapshot, node);
            certificates::sign(authority, caller, value, &pods_on_node)?;
        }
        Ok(mutations)
    }

    /// Replaces an object. With a resourceVersion in it, only if it is still at that one.
    ///
    /// # Errors
    /// 400, 403, 404, 409, 422; 429 and 503 when the store cannot take it now.
    pub async fn update(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let mut value = object.into_value();
        check_identity(kind, namespace, Some(name), &mut value)?;
        check_schema(kind, &value, None, options)?;
        let target = Target::new("update", kind, namespace, name, Part::Main);
        self.rewrite(caller, target, options, |_| Ok(value.clone()))
            .await
    }

    /// Replaces the status of an object; nothing else of `object` counts.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn update_status(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        self.replace_part(caller, kind, namespace, name, object, Part::Status, options)
            .await
    }

    /// Replaces the conditions of a certificate request.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn update_approval(
        &self,
        caller: &Caller,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let kind = &weft_kinds::CERTIFICATE_SIGNING_REQUEST;
        self.replace_part(caller, kind, None, name, object, Part::Approval, options)
            .await
    }

    /// Replaces `spec.finalizers` of a namespace; one in deletion goes with its last finalizer.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn finalize_namespace(
        &self,
        caller: &Caller,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let kind = &weft_kinds::NAMESPACE;
        self.replace_part(caller, kind, None, name, object, Part::Finalize, options)
            .await
    }

    #[allow(clippy::too_many_arguments)]
    async fn replace_part(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let mut value = object.into_value();
        check_identity(kind, namespace, Some(name), &mut value)?;
        check_schema(kind, &value, None, options)?;
        let target = Target::new("update", kind, namespace, name, part);
        self.rewrite(caller, target, options, |_| Ok(value.clone()))
            .await
    }

    /// Applies a patch to an object, its status or its scale.
    ///
    /// # Errors
    /// As [`Objects::update`], and what the patch itself does wrong.
    #[allow(clippy::too_many_arguments)]
    pub async fn patch(
        &self,
        caller: &Caller,
        kind: KindRef,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<Subresource>,
        patch_kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let part = match subresource {
            None => Part::Main,
            Some(Subresource::Status) => Part::Status,
            Some(Subresource::Approval) => Part::Approval,
            Some(Subresource::Scale) => {
                return self
                    .patch_scale(caller, kind, namespace, name, patch_kind, patch, options)
                    .await;
            }
            Some(_) => return Err(StatusError::method_not_allowed()),
        };
        let gvk = kind.gvk();
        let target = Target::new("patch", kind, namespace, name, part);
        self.rewrite(caller, target, options, |current| {
            let mut patched = patch::apply(&gvk, current, patch_kind, patch)?;
            check_identity(kind, namespace, Some(name), &mut patched)?;
            check_schema(kind, &patched, Some(current), options)?;
            Ok(patched)
        })
        .await
    }

    /// Binds a pod to a node, once.
    ///
    /// # Errors
    /// 404; 409 when it is bound or in deletion.
    pub async fn bind(
        &self,
        caller: &Caller,
        namespace: &str,
        pod: &str,
        node: &str,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        if node.is_empty() {
            return Err(StatusError::invalid(
                "Binding",
                "",
                pod,
                vec![Cause::required("target.name", "")],
            ));
        }
        let conflict =
            |detail: String| Err(StatusError::conflict("pods/binding", "", pod, &detail));
        let target = Target::new(
            "create",
            &weft_kinds::POD,
            Some(namespace),
            pod,
            Part::Binding,
        );
        let now = self.now();
        self.rewrite(caller, target, options, |current| {
            if !text(current, "/metadata/deletionTimestamp").is_empty() {
                return conflict(format!(
                    "pod {pod} is being deleted, cannot be assigned to a host"
                ));
            }
            let bound = text(current, "/spec/nodeName");
            if !bound.is_empty() {
                return conflict(format!("pod {pod} is already assigned to node {bound:?}"));
            }
            let mut next = current.clone();
            member(&mut next, "spec")["nodeName"] = node.into();
            let status = member(&mut next, "status");
            let mut conditions: Vec<Value> = items(status, "/conditions")
                .iter()
                .filter(|condition| text(condition, "/type") != "PodScheduled")
                .cloned()
                .collect();
            conditions.push(json!({
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": rfc3339(now),
            }));
            status["conditions"] = conditions.into();
            Ok(next)
        })
        .await?;
        Ok(())
    }

    /// The write loop of everything that changes an existing object.
    ///
    /// `change` sees the current object, with its resourceVersion, in the kind's own spelling. What it returns
    /// is conditional exactly if it names a resourceVersion other than by keeping the current one.
    async fn rewrite(
        &self,
        caller: &Caller,
        target: Target<'_>,
        options: &WriteOptions,
        change: impl Fn(&Value) -> Result<Value, StatusError> + Sync,
    ) -> Result<Object, StatusError> {
        self.confirmed(|| self.rewrite_here(caller, target, options, &change))
            .await
    }

    async fn rewrite_here(
        &self,
        caller: &Caller,
        target: Target<'_>,
        options: &WriteOptions,
        change: &(impl Fn(&Value) -> Result<Value, StatusError> + Sync),
    ) -> Result<Object, StatusError> {
        let Target {
            verb,
            kind,
            namespace,
            name,
            part,
        } = target;
        authorize(
            caller,
            verb,
            kind,
            part.subresource(),
            namespace,
            Some(name),
        )?;
        let key = stored::key(kind, namespace, name);
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, kind, namespace, name)?;
            let current = found.value();
            let proposed = change(&current)?;
            check_version(kind, name, &found, &proposed)?;
            check_uid(kind, name, &current, text(&proposed, "/metadata/uid"))?;
            let old = found.stored_value();
            let mut next = self.next_state(kind, part, proposed, &old)?;
            let stored_kind = kind.stored();
            let range = self.inner.config.service_range;
            let mut mutations = admission::update(stored_kind, &mut next, &old, &snapshot, range)?;
            // Binding is judged by its own two rules; a pod's spec is frozen for everyone else.
            if part != Part::Binding {
                weft_kinds::validate::object_of(stored_kind, &next, Some(&old))?;
            }
            let access = access(verb, kind, part.subresource(), namespace, Some(name));
            authz::authorize_object(caller, &access, Some(&old), Some(&next))?;

            let removes = is_finished(&next);
            if (next == old && !removes) || options.dry_run {
                return Ok(answer(kind, next, Some(found.revision())));
            }
            let precondition = Precondition::Revision(found.revision());
            if removes {
                mutations = admission::delete(stored_kind, &old);
                mutations.push(Mutation::delete(key.clone(), precondition));
            } else {
                let value = self.encode(kind, &key, &next).await?;
                mutations.push(Mutation::put(key.clone(), precondition, value));
            }
            match self.write(caller, mutations).await {
                Ok(revision) => return Ok(answer(kind, next, Some(revision))),
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
        kind: KindRef,
        part: Part,
        mut proposed: Value,
        old: &Value,
    ) -> Result<Value, StatusError> {
        if let Some(view) = &kind.view {
            (view.write)(&mut proposed);
        }
        let kind = kind.stored();
        let mut next = match part {
            Part::Main => {
                let mut next = proposed;
                if kind.has(Subresource::Status) {
                    put(&mut next, "status", old.get("status").cloned());
                }
                if *kind == weft_kinds::NAMESPACE {
                    put(&mut next, "spec", old.get("spec").cloned());
                }
                if *kind == weft_kinds::CERTIFICATE_SIGNING_REQUEST {
                    put(&mut next, "spec", old.get("spec").cloned());
                }
                next
            }
            Part::Scale | Part::Binding => proposed,
            Part::Status => {
                let mut next = old.clone();
                put(&mut next, "status", proposed.get("status").cloned());
                next
            }
            Part::Approval => {
                let mut next = old.clone();
                let conditions = proposed.pointer("/status/conditions").cloned();
                put(member(&mut next, "status"), "conditions", conditions);
                next
            }
            Part::Finalize => {
                let mut next = old.clone();
                let finalizers = proposed.pointer("/spec/finalizers").cloned();
                put(
                    member(&mut next, "spec"),
                    "finalizers",
                    Some(finalizers.unwrap_or_else(|| json!([]))),
                );
                next
            }
        };
        let metadata = member(&mut next, "metadata");
        for field in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
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
        (kind.defaults)(&mut next);
        if kind.counts_generations && desired_state_differs(&next, old) {
            let generation = integer(old, "/metadata/generation").unwrap_or(0) + 1;
            member(&mut next, "metadata")["generation"] = generation.into();
        }
        Ok(next)
    }

    async fn write(
        &self,
        caller: &Caller,
        mutations: Vec<Mutation>,
    ) -> Result<Revision, WriteError> {
        self.inner.store.write(mutations, caller.term()).await
    }

    /// Makes the namespaces that always exist. Idempotent; called by the leader at its start.
    ///
    /// # Errors
    /// Whatever kept the store from taking them.
    pub async fn ensure_permanent_namespaces(&self, caller: &Caller) -> Result<(), StatusError> {
        for name in PERMANENT_NAMESPACES {
            let namespace = as_object(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
            }));
            let created = self
                .create(
                    caller,
                    &weft_kinds::NAMESPACE,
                    None,
                    namespace,
                    &WriteOptions::default(),
                )
                .await;
            match created {
                Ok(_) => tracing::info!(namespace = name, "created"),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a rewrite is about.
#[derive(Clone, Copy)]
struct Target<'a> {
    verb: &'static str,
    kind: KindRef,
    namespace: Option<&'a str>,
    name: &'a str,
    part: Part,
}

impl<'a> Target<'a> {
    fn new(
        verb: &'static str,
        kind: KindRef,
        namespace: Option<&'a str>,
        name: &'a str,
        part: Part,
    ) -> Self {
        Self {
            verb,
            kind,
            namespace,
            name,
            part,
        }
    }
}

fn access<'a>(
    verb: &'a str,
    kind: KindRef,
    subresource: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
) -> Access<'a> {
    Access {
        verb,
        group: kind.group,
        resource: kind.resource,
        subresource,
        namespace,
        name,
    }
}

fn authorize(
    caller: &Caller,
    verb: &str,
    kind: KindRef,
    subresource: Option<&str>,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<(), StatusError> {
    authz::authorize(caller, &access(verb, kind, subresource, namespace, name))
}

/// What a node may read depends on the object: its own pods, and the Secrets and ConfigMaps these refer to.
fn authorize_node_read(
    vault: &Vault,
    caller: &Caller,
    access: &Access<'_>,
    found: &Stored,
    snapshot: &Snapshot,
) -> Result<(), StatusError> {
    if authz::needs_reference(caller, access) {
        let node = caller.node_name().unwrap_or("");
        let referred = pods_on(vault, snapshot, node)
            .iter()
            .any(|pod| authz::references(caller, access, pod));
        if !referred {
            let detail = format!(
                "User {:?} cannot get resource {:?} in API group \"\" in the namespace {:?}: no pod on the node refers to it",
                caller.user(),
                access.resource,
                access.namespace.unwrap_or("")
            );
            return Err(StatusError::forbidden(
                access.resource,
                access.group,
                access.name.unwrap_or(""),
                &detail,
            ));
        }
    }
    authz::authorize_object(caller, access, Some(&found.stored_value()), None)
}

fn pods_on(vault: &Vault, snapshot: &Snapshot, node: &str) -> Vec<Arc<Value>> {
    let prefix = stored::prefix(&weft_kinds::POD, None);
    snapshot
        .range(&prefix, None)
        .map(|entry| Stored::new(vault, &weft_kinds::POD, entry))
        .filter(|pod| {
            pod.field("spec.nodeName")
                .is_some_and(|bound| bound == node)
        })
        .map(|pod| Arc::new(pod.stored_value()))
        .collect()
}

fn namespace_takes(
    vault: &Vault,
    snapshot: &Snapshot,
    kind: KindRef,
    namespace: &str,
    name: &str,
) -> Result<(), StatusError> {
    let key = stored::key(&weft_kinds::NAMESPACE, None, namespace);
    let Some(found) = snapshot.get(&key) else {
        return Err(StatusError::not_found("namespaces", "", namespace));
    };
    let phase = Stored::new(vault, &weft_kinds::NAMESPACE, found);
    if phase
        .field("status.phase")
        .is_some_and(|phase| phase == "Terminating")
    {
        let detail = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error = StatusError::forbidden(kind.resource, kind.group, name, &detail);
        let details = error.details.get_or_insert_default();
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        return Err(error);
    }
    Ok(())
}

fn generate_name(prefix: &str) -> String {
    let mut rng = rand::rng();
    let mut name: String = prefix.chars().take(GENERATED_PREFIX_MAX).collect();
    for _ in 0..5 {
        let index = rng.random_range(0..GENERATED_ALPHABET.len());
        name.push(char::from(GENERATED_ALPHABET[index]));
    }
    name
}

fn already_exists(kind: KindRef, name: &str) -> StatusError {
    StatusError::already_exists(kind.resource, kind.group, name)
}

fn modified(kind: KindRef, name: &str) -> StatusError {
    StatusError::modified(kind.resource, kind.group, name)
}

/// Whether anything differs that a client asks for, as against what is reported or administered.
fn desired_state_differs(next: &Value, old: &Value) -> bool {
    let desired = |value: &Value| -> Map<String, Value> {
        object(value, "")
            .into_iter()
            .flatten()
            .filter(|(member, _)| {
                !matches!(
                    member.as_str(),
                    "metadata" | "status" | "apiVersion" | "kind"
                )
            })
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect()
    };
    desired(next) != desired(old)
}

fn as_object(value: Value) -> Object {
    match Object::from_value(value) {
        Ok(object) => object,
        // Only ever called with objects that were built or checked above.
        Err(_) => Object::from_map(Map::new()),
    }
}

/// A stored state in the kind's own spelling, with its resourceVersion.
fn answer(kind: KindRef, mut value: Value, revision: Option<Revision>) -> Object {
    let version = revision.map(|revision| revision.to_string().into());
    put(member(&mut value, "metadata"), "resourceVersion", version);
    if let Some(view) = &kind.view {
        (view.read)(&mut value);
    }
    as_object(value)
}
