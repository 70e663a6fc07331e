//! The verbs on objects: the only door to the store.
//!
//! Every write passes `authorise → decode → merge → default → admit → validate → compare-and-set`, over a snapshot that
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
use weft_api::selector::FieldSelector;
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::core::PERMANENT_NAMESPACES;
use weft_kinds::lens::{integer, items, member, object, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{
    Kind, KindRef, Registries, Registry, ServiceRange, Subresource, decode, validate,
};
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot, Store, WriteError};

use self::body::{
    check_identity, check_uid, check_version, decoded, drop_empty_metadata, patched,
    refuse_new_finalizers,
};
pub(crate) use self::body::{strict_decoding, undecodable};
use self::deletion::is_finished;
pub use self::deletion::{DeleteOptions, Deleted, Propagation};
pub(crate) use self::freshness::read_failed;
use self::freshness::{unreadable, write_failed};
pub use self::sealing::REWRAP_PATH;
use crate::admission::{self, Surrounding};
use crate::authz::{self, Access};
use crate::ca::Authority;
pub use crate::cache::Bounds as WatchBounds;
use crate::cache::Caches;
use crate::caller::Caller;
use crate::encryption::{KeyFile, Vault};
pub use crate::informer::{Change, Informer};
use crate::listing::{self, Source};
pub use crate::listing::{
    ListOptions, ObjectWatch, Page, Selection, VersionMatch, WatchEvent, WatchOptions,
};
pub use crate::stored::Stored;
use crate::{certificates, stored};

/// Attempts of a write that does not insist on a resourceVersion. Each one lost was won by another write, and the HTTP
/// face lets in 200 at a time, so this many mean that something else is wrong; Kubernetes has no limit here.
const ATTEMPTS_MAX: usize = 256;
/// A selection over more objects than this may have to look into each of them, which takes milliseconds: not on a thread that
/// others wait for.
const SCAN_MAX: usize = 1_000;
/// Attempts to find a free generated name, as in Kubernetes since 1.30.
const GENERATED_NAMES_MAX: usize = 8;
/// Longest prefix of a generated name; five characters follow.
const GENERATED_PREFIX_MAX: usize = 58;
/// No vowels and no look-alikes, so that no word comes out (k8s.io/apimachinery `util/rand`).
const GENERATED_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Namespace and name of the ConfigMap that tells where each server serves its API.
pub(crate) const SERVER_ADDRESSES: (&str, &str) = ("kube-system", "weft-servers");

/// What the verbs need to know about the cluster.
#[derive(Clone)]
pub struct Config {
    /// Where virtual service addresses come from.
    pub service_range: ServiceRange,
    /// Host names and addresses that this server's certificate is valid for.
    pub server_names: Arc<[String]>,
    /// Signs certificate requests while they are created; without it they stay pending.
    pub authority: Option<Authority>,
    /// The wall clock, for time stamps of objects.
    pub clock: fn() -> Timestamp,
    /// With it, Secrets are stored as ciphertext.
    pub keys: Option<Arc<KeyFile>>,
    /// What is kept for watches, a kind.
    pub watch: WatchBounds,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_range: ServiceRange::default(),
            authority: None,
            server_names: Arc::default(),
            clock: Timestamp::now,
            keys: None,
            watch: WatchBounds::default(),
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
    /// What a patch brought that the kind does not have, and was dropped.
    pub warnings: Warnings,
}

/// Which node a pod gets, and what the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub node: &'a str,
    /// Refuse if the pod is another one of that name. Empty: any.
    pub uid: &'a str,
    /// Refuse if anything about the pod changed since. Empty: whatever it is now.
    pub resource_version: &'a str,
}

/// What is to be told to a client whose write was taken. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<parking_lot::Mutex<Vec<String>>>);

impl Warnings {
    /// Each attempt of a write has its own.
    fn replace(&self, warnings: Vec<String>) {
        *self.0.lock() = warnings;
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The verbs. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    registries: Registries,
    store: Store,
    vault: Vault,
    config: Config,
    caches: Caches,
}

impl Objects {
    pub fn new(store: Store, config: Config) -> Self {
        let vault = Vault::new(store.clone(), config.keys.clone());
        Self {
            inner: Arc::new(Inner {
                registries: Registries::default(),
                caches: Caches::new(store.clone(), vault.clone(), config.watch),
                vault,
                store,
                config,
            }),
        }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The kinds that are served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.inner.registries.current()
    }

    /// The stream that the control loop's view of the cluster is built from.
    /// It shows the stored kinds that `wants` picks, and those that come while it runs.
    pub fn informer(&self, wants: fn(&Kind) -> bool) -> Informer {
        let Inner {
            registries,
            store,
            vault,
            ..
        } = &*self.inner;
        Informer::new(store.clone(), vault.clone(), registries.clone(), wants)
    }

    /// # Errors
    /// 403, 404; 503 without a majority.
    pub async fn get(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
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
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        version: Option<Revision>,
    ) -> Result<Stored, StatusError> {
        let access = access("get", kind, None, namespace, Some(name));
        authz::authorize(caller, &access)?;
        let snapshot = self.newest(version).await?;
        let found = self.find(&snapshot, kind, namespace, name)?;
        if authz::depends_on_object(caller, &access) {
            let pods = match caller.node_name() {
                Some(node) if authz::needs_reference(caller, &access) => {
                    self.pods_on(node, &snapshot).await?
                }
                _ => Vec::new(),
            };
            authorize_read(caller, &access, &found, &pods)?;
        }
        Ok(found)
    }

    /// # Errors
    /// 403; 400 for an unknown field; 410 for an expired continue token; 503 without a majority.
    pub async fn list(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, StatusError> {
        let name = options.selection.fields.exact("metadata.name");
        let access = access("list", kind, None, namespace, name);
        authz::authorize(caller, &access)?;
        authz::authorize_selection(caller, &access, &options.selection.fields)?;
        let newest = self.newest(listing::revision_needed(options)?).await?;
        self.page(caller.user(), kind, namespace, options, &newest)
            .await
    }

    /// A page of a list that was allowed, from the kind's cache as soon as that shows what `newest` does.
    async fn page(
        &self,
        user: &str,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
        newest: &Snapshot,
    ) -> Result<Page, StatusError> {
        let Inner { caches, vault, .. } = &*self.inner;
        let cache = caches.at_least(kind, newest.revision()).await?;
        let scans = !options.selection.is_everything() && cache.count() > SCAN_MAX;
        let (caches, vault, options) = (caches.clone(), vault.clone(), options.clone());
        let kind = Arc::clone(kind);
        let (user, namespace) = (user.to_owned(), namespace.map(str::to_owned));
        let work = move || {
            let source = Source {
                caches: &caches,
                cache: &cache,
                vault: &vault,
                user: &user,
                now: Instant::now(),
            };
            listing::page(&kind, namespace.as_deref(), &options, source)
        };
        if !scans {
            return work();
        }
        let page = tokio::task::spawn_blocking(work).await;
        page.map_err(StatusError::internal)?
    }

    /// The pods that are bound to a node: an index knows them.
    async fn pods_on(
        &self,
        node: &str,
        snapshot: &Snapshot,
    ) -> Result<Vec<Arc<Value>>, StatusError> {
        let options = ListOptions {
            selection: Selection {
                fields: FieldSelector::equal("spec.nodeName", node),
                ..Selection::default()
            },
            ..ListOptions::default()
        };
        let page = self
            .page("", &weft_kinds::POD, None, &options, snapshot)
            .await?;
        let pods = page.items.iter().map(|pod| Arc::new(pod.stored_value()));
        Ok(pods.collect())
    }

    /// # Errors
    /// 403; 400 for an unknown field. A revision that no watch can start from is told as the watch's only event.
    pub async fn watch(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<ObjectWatch, StatusError> {
        let name = options.selection.fields.exact("metadata.name");
        let access = access("watch", kind, None, namespace, name);
        authz::authorize(caller, &access)?;
        authz::authorize_selection(caller, &access, &options.selection.fields)?;
        // The watch must not begin behind what an unversioned request is promised.
        let newest = self.newest(options.resource_version).await?;
        let Inner { caches, vault, .. } = &*self.inner;
        let cache = caches.at_least(kind, newest.revision()).await?;
        ObjectWatch::start(&cache, vault, kind, namespace, options)
    }

    fn find(
        &self,
        snapshot: &Snapshot,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Stored, StatusError> {
        snapshot
            .get(&stored::key(kind, namespace, name))
            .map(|entry| Stored::new(&self.inner.vault, kind, entry))
            .ok_or_else(|| StatusError::not_found(&kind.resource, &kind.group, name))
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
        kind: KindRef<'_>,
        namespace: Option<&str>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        authorize(caller, "create", kind, None, namespace, None)?;
        let mut value = decoded(kind, object.as_value(), options)?;
        check_identity(kind, namespace, None, &mut value)?;
        let template = self.prepared(kind, value);
        let named = stored::key(kind, namespace, text(&template, "/metadata/name"));
        let namespaces = namespace.map(|name| stored::key(&weft_kinds::NAMESPACE, None, name));
        let about: Vec<Key> = namespaces.into_iter().chain([named]).collect();
        self.confirmed(&about, || {
            self.create_prepared(caller, kind, namespace, &template, options)
        })
        .await
    }

    async fn create_prepared(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
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
        let namespace_key = namespace.map(|name| stored::key(&weft_kinds::NAMESPACE, None, name));
        let mut last_name = String::new();
        for _ in 0..attempts {
            let mut value = template.clone();
            if generated && !prefix.is_empty() {
                value["metadata"]["name"] = generate_name(&prefix).into();
            }
            last_name = text(&value, "/metadata/name").to_owned();
            let snapshot = self.inner.store.snapshot();
            let pods = match caller.node_name() {
                // What is to be approved is a request for a signature.
                Some(node) if kind.stored().has(Subresource::Approval) => {
                    self.pods_on(node, &snapshot).await?
                }
                _ => Vec::new(),
            };
            let in_namespace =
                self.admit_new(caller, kind, namespace, &mut value, &snapshot, &pods)?;
            let mut mutations = admission::exchange(kind.stored(), None, Some(&value));
            mutations.extend(in_namespace);
            let claims = admission::claim_keys(kind.stored(), &value);
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
            let encoded = self.encode(kind, &key, &value).await?;
            let caches = &self.inner.caches;
            let excess = caches.excess(kind, &key, encoded.len(), snapshot.revision());
            // Whoever else removes them meanwhile does the same.
            let removed = excess.await?.into_iter();
            mutations.extend(removed.map(|key| Mutation::delete(key, Precondition::None)));
            mutations.push(Mutation::put(key.clone(), Precondition::Absent, encoded));
            match self.write(caller, mutations).await {
                Ok(revision) => return Ok(answer(kind, value, Some(revision))),
                Err(WriteError::Conflict { key: found, .. }) if found == key => {
                    if !generated {
                        return Err(already_exists(kind, &last_name));
                    }
                    self.catch_up().await?;
                }
                // An address was taken, or the namespace changed: judge again on a newer snapshot.
                Err(WriteError::Conflict { key, .. })
                    if claims.contains(&key) || Some(&key) == namespace_key.as_ref() =>
                {
                    self.catch_up().await?;
                }
                Err(error) => return Err(write_failed(kind, &last_name, error)),
            }
        }
        Err(already_exists(kind, &last_name))
    }

    /// Gives a new object what only the server may set, and drops what clients may not.
    fn prepared(&self, kind: KindRef<'_>, mut value: Value) -> Value {
        if let Some(spelling) = &kind.spelling {
            (spelling.write)(&mut value);
        }
        let kind = kind.stored();
        kind.strategy.prepare_for_create(kind, &mut value);
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

    /// Defaults, admission, validation and signing for a new object; `pods_of_caller` are those on the node that asks. What comes
    /// back has to be written with it: that its namespace is still the one it was judged by.
    fn admit_new(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        value: &mut Value,
        snapshot: &Snapshot,
        pods_of_caller: &[Arc<Value>],
    ) -> Result<Option<Mutation>, StatusError> {
        let kind = kind.stored();
        let name = text(value, "/metadata/name").to_owned();
        let in_namespace = namespace
            .map(|namespace| namespace_takes(&self.inner.vault, snapshot, kind, namespace, &name))
            .transpose()?;
        let around = self.surroundings(caller, snapshot);
        *value = settled(kind, value)?;
        kind.strategy.admit(value, &around)?;
        *value = settled(kind, value)?;
        validate::created(kind, value)?;
        kind.strategy.allocate(value, None, &around)?;
        let access = access("create", kind, None, namespace, Some(&name));
        authz::authorize_object(caller, &access, None, Some(value))?;
        // What is to be approved is a request for a signature.
        if kind.has(Subresource::Approval)
            && let Some(authority) = &self.inner.config.authority
        {
            let facts = certificates::Facts {
                pods_of_caller,
                holder: &|node, name| self.holder(snapshot, node, name),
            };
            certificates::sign(authority, caller, value, &facts)?;
        }
        Ok(in_namespace)
    }

    fn surroundings<'a>(&self, caller: &'a Caller, snapshot: &'a Snapshot) -> Surrounding<'a> {
        Surrounding {
            caller,
            snapshot,
            range: self.inner.config.service_range,
        }
    }

    /// Whose a host name or an address is; see [`certificates::Facts`].
    fn holder(&self, snapshot: &Snapshot, node: &str, name: &str) -> Option<String> {
        let of_server = "a server of the API".to_owned();
        if self.inner.config.server_names.iter().any(|own| own == name) {
            return Some(of_server);
        }
        let vault = &self.inner.vault;
        let (namespace, map) = SERVER_ADDRESSES;
        let key = stored::key(&weft_kinds::CONFIG_MAP, Some(namespace), map);
        let told = snapshot
            .get(&key)
            .map(|entry| Stored::new(vault, &weft_kinds::CONFIG_MAP, entry).stored_value());
        let urls = told.as_ref().and_then(|map| object(map, "/data"));
        let mut urls = urls.into_iter().flatten().filter_map(|(_, url)| {
            let url: http::Uri = url.as_str()?.parse().ok()?;
            Some(url.host()?.trim_matches(['[', ']']).to_owned())
        });
        if urls.any(|host| host == name) {
            return Some(of_server);
        }
        name.parse::<std::net::IpAddr>().ok()?;
        let prefix = stored::prefix(&weft_kinds::NODE, None);
        let nodes = snapshot
            .range(&prefix, None)
            .map(|entry| Stored::new(vault, &weft_kinds::NODE, entry));
        nodes
            .filter(|other| other.name() != node)
            .find(|other| {
                let addresses = other.stored_value();
                items(&addresses, "/status/addresses")
                    .iter()
                    .any(|address| text(address, "/address") == name)
            })
            .map(|other| format!("node {:?}", other.name()))
    }

    /// Replaces an object. With a resourceVersion in it, only if it is still at that one.
    ///
    /// # Errors
    /// 400, 403, 404, 409, 422; 429 and 503 when the store cannot take it now.
    pub async fn update(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let mut value = decoded(kind, object.as_value(), options)?;
        check_identity(kind, namespace, Some(name), &mut value)?;
        let target = Target::new("update", kind, namespace, name, None);
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
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let part = Subresource::Status;
        self.replace_part(caller, kind, namespace, name, object, part, options)
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
        let part = Subresource::Approval;
        self.replace_part(caller, kind, None, name, object, part, options)
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
        let part = Subresource::Finalize;
        self.replace_part(caller, kind, None, name, object, part, options)
            .await
    }

    #[allow(clippy::too_many_arguments)]
    async fn replace_part(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        object: Object,
        part: Subresource,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let mut value = decoded(kind, object.as_value(), options)?;
        check_identity(kind, namespace, Some(name), &mut value)?;
        let target = Target::new("update", kind, namespace, name, Some(part));
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
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<Subresource>,
        patch_kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        match subresource {
            None | Some(Subresource::Status | Subresource::Approval) => {}
            Some(Subresource::Scale) => {
                return self
                    .patch_scale(caller, kind, namespace, name, patch_kind, patch, options)
                    .await;
            }
            Some(_) => return Err(StatusError::method_not_allowed()),
        }
        if patch_kind == PatchKind::Strategic && !kind.merges_strategically {
            return Err(patch::not_strategic());
        }
        let target = Target::new("patch", kind, namespace, name, subresource);
        self.rewrite(caller, target, options, |current| {
            let mut next = patched(kind, name, current, patch_kind, patch, options)?;
            check_identity(kind, namespace, Some(name), &mut next)?;
            Ok(next)
        })
        .await
    }

    /// Binds a pod to a node, once.
    ///
    /// # Errors
    /// 404; 409 when it is bound or in deletion, or another pod than the binding was decided for.
    pub async fn bind(
        &self,
        caller: &Caller,
        namespace: &str,
        pod: &str,
        binding: Binding<'_>,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        let node = binding.node;
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
            Some(Subresource::Binding),
        );
        let now = self.now();
        self.rewrite(caller, target, options, |current| {
            check_uid(&weft_kinds::POD, pod, current, binding.uid)?;
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
            if !binding.resource_version.is_empty() {
                member(&mut next, "metadata")["resourceVersion"] = binding.resource_version.into();
            }
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
        let about = [stored::key(target.kind, target.namespace, target.name)];
        self.confirmed(&about, || {
            self.rewrite_here(caller, target, options, &change)
        })
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
            part.map(Subresource::name),
            namespace,
            Some(name),
        )?;
        let key = stored::key(kind, namespace, name);
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, kind, namespace, name)?;
            let stored_kind = kind.stored();
            // As it would be stored today: a default that came with a release is no change that a client made.
            let old = found.stored_value();
            let old = settled(stored_kind, &old).unwrap_or(old);
            let current = answer(kind, old.clone(), Some(found.revision())).into_value();
            let proposed = change(&current)?;
            check_version(kind, name, &found, &proposed)?;
            check_uid(kind, name, &current, text(&proposed, "/metadata/uid"))?;
            let mut next = self.next_state(kind, part, proposed, &old)?;
            let around = self.surroundings(caller, &snapshot);
            validate::updated(stored_kind, &next, &old, part)?;
            stored_kind
                .strategy
                .allocate(&mut next, Some(&old), &around)?;
            let access = access(
                verb,
                kind,
                part.map(Subresource::name),
                namespace,
                Some(name),
            );
            authz::authorize_object(caller, &access, Some(&old), Some(&next))?;

            let removes = is_finished(stored_kind, &next);
            if options.dry_run {
                return Ok(answer(kind, next, Some(found.revision())));
            }
            if next == old && !removes {
                if self.is_newest(&key, found.revision()).await? {
                    return Ok(answer(kind, next, Some(found.revision())));
                }
                continue;
            }
            found.readable().map_err(unreadable)?;
            let precondition = Precondition::Revision(found.revision());
            let after = (!removes).then_some(&next);
            let mut mutations = admission::exchange(stored_kind, Some(&old), after);
            if removes {
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
        let mut next = settled(kind, &next)?;
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
    kind: KindRef<'a>,
    namespace: Option<&'a str>,
    name: &'a str,
    part: Option<Subresource>,
}

impl<'a> Target<'a> {
    fn new(
        verb: &'static str,
        kind: KindRef<'a>,
        namespace: Option<&'a str>,
        name: &'a str,
        part: Option<Subresource>,
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
    kind: KindRef<'a>,
    subresource: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
) -> Access<'a> {
    Access {
        verb,
        group: &kind.group,
        resource: &kind.resource,
        subresource,
        namespace,
        name,
    }
}

fn authorize(
    caller: &Caller,
    verb: &str,
    kind: KindRef<'_>,
    subresource: Option<&str>,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<(), StatusError> {
    authz::authorize(caller, &access(verb, kind, subresource, namespace, name))
}

/// What some callers may read depends on the object: a node its own pods, and the Secrets and ConfigMaps these refer to.
fn authorize_read(
    caller: &Caller,
    access: &Access<'_>,
    found: &Stored,
    pods: &[Arc<Value>],
) -> Result<(), StatusError> {
    if authz::needs_reference(caller, access) {
        let referred = pods
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

/// Whether a namespace takes new objects, and the check that it is still the same when one is stored: between the two it may
/// have been deleted, emptied and removed, and the object would be in no namespace.
fn namespace_takes(
    vault: &Vault,
    snapshot: &Snapshot,
    kind: KindRef<'_>,
    namespace: &str,
    name: &str,
) -> Result<Mutation, StatusError> {
    let key = stored::key(&weft_kinds::NAMESPACE, None, namespace);
    let Some(found) = snapshot.get(&key) else {
        return Err(StatusError::not_found("namespaces", "", namespace));
    };
    let check = Mutation::check(key, Precondition::Revision(found.revision));
    let phase = Stored::new(vault, &weft_kinds::NAMESPACE, found);
    if phase
        .field("status.phase")
        .is_some_and(|phase| phase == "Terminating")
    {
        let detail = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error = StatusError::forbidden(&kind.resource, &kind.group, name, &detail);
        let details = error.details.get_or_insert_default();
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        return Err(error);
    }
    Ok(check)
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

fn already_exists(kind: KindRef<'_>, name: &str) -> StatusError {
    StatusError::already_exists(&kind.resource, &kind.group, name)
}

fn modified(kind: KindRef<'_>, name: &str) -> StatusError {
    StatusError::modified(&kind.resource, &kind.group, name)
}

/// A state of a stored kind with its defaults, in the one form that equal states have.
fn settled(kind: KindRef<'_>, value: &Value) -> Result<Value, StatusError> {
    let gvk = kind.gvk();
    let canonical = |value: &Value| {
        let decoded = decode::value(&gvk, value).map_err(|error| undecodable(kind, &error))?;
        Ok(decoded.value)
    };
    let mut value = canonical(value)?;
    decode::fill(&gvk, &mut value);
    kind.strategy.default(&mut value);
    canonical(&value)
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
fn answer(kind: KindRef<'_>, mut value: Value, revision: Option<Revision>) -> Object {
    let version = revision.map(|revision| revision.to_string().into());
    put(member(&mut value, "metadata"), "resourceVersion", version);
    if let Some(spelling) = &kind.spelling {
        (spelling.read)(&mut value);
    }
    as_object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_came_with_a_release_is_no_change_of_an_old_object() {
        // As an older server stored it: without defaults, in forms that are not written any more.
        let stored = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "5", "unknown": 1},
            "spec": {"containers": [{"name": "c", "image": "i:1", "env": null, "resources": {"limits": {"cpu": 0.5}}}]},
        });
        let old = settled(&weft_kinds::POD, &stored).unwrap();
        let mut next = old.clone();
        next["metadata"]["labels"] = json!({"a": "b"});
        let next = settled(&weft_kinds::POD, &next).unwrap();
        assert!(!desired_state_differs(&next, &old));
        validate::updated(&weft_kinds::POD, &next, &old, None).unwrap();
        assert_eq!(settled(&weft_kinds::POD, &old).unwrap(), old);
        assert_eq!(
            old["spec"]["containers"][0]["resources"]["limits"]["cpu"],
            "500m"
        );
        assert_eq!(old["metadata"].get("unknown"), None);
    }
}
