//! The verbs on objects: the only door to the store.
//!
//! A verb takes a request that was decoded and allowed ([`crate::authz::Authorized`]), and its body. Every write passes `decode → merge →
//! default → change → admit → validate → restrict nodes → refuse → charge → compare-and-set`, over a snapshot that is taken anew for each attempt, so a
//! write either takes effect on exactly what it was judged against or not at all. The HTTP face calls these verbs, and so
//! does who asks from inside the process, through a [`Client`]; a caller that acts under a leadership has its writes fenced
//! by that term.
//!
//! Invariants: `uid` and `creationTimestamp` never change; the main resource never changes `status`, and
//! `status` never anything else; `generation` counts changes of the desired state only; a write that changes
//! nothing stores nothing; an object in deletion whose last finalizer goes is removed by that same write; what is stored and
//! cannot be read is told as a fault, never overwritten.
//! A file a verb: [`read`], [`create`], [`update`], [`apply`], [`bind`], [`deletion`], [`evict`], [`scale`]. Beside them what a body may say
//! ([`body`]), the one form that equal states have ([`canonical`]), who owns which fields ([`owners`]), ciphertext ([`sealing`]), signatures
//! ([`signing`]), how old the state may be that a request is judged on ([`freshness`]), what a verb is for admission ([`admitted`]), versions of users' kinds
//! ([`conversion`]), tokens of accounts ([`token`]), callers inside the process ([`client`]), and what every cluster has ([`furniture`]). What is kept below an object, and is no object: [`key_values`].
//! Left to others: who may (`crate::authz`), rules of kinds (`weft_kinds`), bytes (`http`).

mod admitted;
mod apply;
mod bind;
mod body;
mod bootstrap_tokens;
mod canonical;
mod certificate_requests;
mod client;
mod companions;
mod conversion;
mod create;
mod deletion;
mod evict;
mod freshness;
mod furniture;
mod key_values;
mod owners;
mod read;
mod scale;
mod sealing;
mod signing;
mod token;
mod token_secrets;
mod update;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::patch::PatchKind;
use weft_kinds::{Kind, KindRef, Registries, Registry, ServiceRange};
use weft_store::{Mutation, Revision, Snapshot, Store, WriteError};

pub use self::bind::Binding;
pub(crate) use self::body::{strict_decoding, undecodable};
pub use self::client::Client;
use self::conversion::Conversions;
pub use self::deletion::{DeleteOptions, Deleted, Propagation};
pub use self::evict::Evicted;
pub(crate) use self::freshness::{read_failed, write_failed};
pub use self::key_values::{DATA_PREFIX, Operation, POD_HEADER, PodRef, Tended, UNWATCHED};
pub(crate) use self::scale::scale_kind;
pub use self::sealing::REWRAP_PATH;
pub(crate) use self::signing::SERVER_ADDRESSES;
use crate::admission::charges::Lanes;
use crate::admission::configured::Configurations;
use crate::admission::{Imports, Surrounding};
use crate::aggregation::Aggregation;
use crate::authz::Authorizer;
use crate::ca::Authority;
pub use crate::cache::Bounds as WatchBounds;
use crate::cache::Caches;
use crate::caller::Caller;
use crate::definitions::Definitions;
use crate::encryption::{KeyFile, Vault};
use crate::http::proxy::NodeClient;
use crate::http::registry::Registry as Images;
pub use crate::informer::{Change, Informer};
use crate::issuer::Issuer;
pub use crate::listing::{
    ListOptions, ObjectWatch, Page, Selection, VersionMatch, WatchEvent, WatchOptions,
};
use crate::namespaces::Namespaces;
use crate::reach::Reach;
use crate::request::{Asked, ObjectRef, RequestInfo};
use crate::roots::Roots;
use crate::signing_keys::SigningKeys;
pub use crate::stored::Stored;
use crate::webhook::WebhookClient;

/// Attempts of a write that does not insist on a resourceVersion. Each one lost was won by another write, and the HTTP
/// face lets in a thousand at a time, so this many mean that something else is wrong; Kubernetes has no limit here.
const ATTEMPTS_MAX: usize = 1024;

/// What the verbs need to know about the cluster.
#[derive(Clone)]
pub struct Config {
    /// Where virtual service addresses come from.
    pub service_range: ServiceRange,
    /// Host names and addresses that this server's certificate is valid for.
    pub server_names: Arc<[String]>,
    /// Who issues tokens of ServiceAccounts.
    pub issuer: Issuer,
    /// Signs certificate requests while they are created; without it they stay pending.
    pub authority: Option<Authority>,
    /// The images whose components are looked into before they are let run. Without it, nodes judge alone.
    pub images: Option<Images>,
    /// The wall clock, for time stamps of objects.
    pub clock: fn() -> Timestamp,
    /// Makes uids of objects: never twice the same.
    pub new_uid: fn() -> String,
    /// Which kinds are served, now and later.
    pub registries: Registries,
    /// With it, Secrets are stored as ciphertext.
    pub keys: Option<Arc<KeyFile>>,
    /// What is kept for watches, a kind.
    pub watch: WatchBounds,
    /// How nodes are reached; without it, no component is.
    pub nodes: Option<NodeClient>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_range: ServiceRange::default(),
            issuer: Issuer::default(),
            authority: None,
            images: None,
            server_names: Arc::default(),
            clock: Timestamp::now,
            new_uid: || uuid::Uuid::new_v4().to_string(),
            registries: Registries::default(),
            keys: None,
            watch: WatchBounds::default(),
            nodes: None,
        }
    }
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but storing it.
    pub dry_run: bool,
    /// Who manages the fields, as the client calls itself; without a name, a component inside this process is meant.
    pub field_manager: Option<String>,
    /// Refuse fields that the kind does not have (`fieldValidation=Strict`).
    pub strict: bool,
    /// What only the text of a patch showed, in the words of Kubernetes' strict decoder.
    pub noted: Vec<String>,
    /// That, and what a patch brought that the kind does not have, and was dropped.
    pub warnings: Warnings,
    /// What a kind has to say of the object as it is now.
    pub advice: Warnings,
    pub(crate) conversions: Conversions,
}

/// What a write left.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Object,
    /// Whether it made the object.
    pub created: bool,
}

impl Written {
    fn changed(object: Object) -> Self {
        Self {
            object,
            created: false,
        }
    }

    fn created(object: Object) -> Self {
        Self {
            object,
            created: true,
        }
    }
}

/// A patch, and how it is meant.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a> {
    pub kind: PatchKind,
    pub body: &'a Value,
}

impl<'a> Patch<'a> {
    /// As `application/merge-patch+json`.
    pub fn merge(body: &'a Value) -> Self {
        Self {
            kind: PatchKind::Merge,
            body,
        }
    }
}

/// What is to be told to a client whose write was taken. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<parking_lot::Mutex<Vec<String>>>);

impl Warnings {
    /// Each attempt of a write has its own.
    fn replace(&self, warnings: Vec<String>) {
        *self.0.lock() = warnings;
    }

    /// One more, unless it is told already.
    fn add(&self, warning: &str) {
        let mut all = self.0.lock();
        if !all.iter().any(|known| known == warning) {
            all.push(warning.to_owned());
        }
    }

    /// What there is to tell, once.
    pub fn take_all(&self) -> Vec<String> {
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
    signing_keys: SigningKeys,
    authorizer: Authorizer,
    config: Config,
    caches: Caches,
    /// The kinds of users.
    definitions: Definitions,
    /// Held by who makes the definitions that a cluster has from its beginning.
    founding: tokio::sync::Mutex<()>,
    /// Writes to key-value stores that wait here.
    lines: key_values::Lines,
    configurations: Configurations,
    namespaces: Namespaces,
    /// The groups that other servers serve.
    aggregation: Aggregation,
    /// How webhooks, those servers and pods are reached.
    reach: Reach,
    webhooks: WebhookClient,
    lanes: Lanes,
}

impl Objects {
    pub fn new(store: Store, config: Config) -> Self {
        let vault = Vault::new(store.clone(), config.keys.clone());
        let definitions = Definitions::read(&store, &vault, &config.registries);
        let aggregation = Aggregation::read(&store.snapshot(), &vault);
        let reach = Reach::new(config.nodes.clone());
        Self {
            inner: Arc::new(Inner {
                registries: config.registries.clone(),
                signing_keys: SigningKeys::new(store.clone(), vault.clone()),
                authorizer: Authorizer::new(store.clone(), vault.clone()),
                caches: Caches::new(store.clone(), vault.clone(), config.watch),
                vault,
                store,
                config,
                definitions,
                founding: tokio::sync::Mutex::default(),
                lines: key_values::Lines::default(),
                configurations: Configurations::default(),
                namespaces: Namespaces::default(),
                aggregation,
                webhooks: WebhookClient::new(reach.clone()),
                reach,
                lanes: Lanes::default(),
            }),
        }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Decides who may do what, by the roles in this server's store.
    pub fn authorizer(&self) -> &Authorizer {
        &self.inner.authorizer
    }

    /// Who issues tokens of ServiceAccounts here.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.inner.config.issuer
    }

    /// What they are signed with.
    pub(crate) fn signing_keys(&self) -> &SigningKeys {
        &self.inner.signing_keys
    }

    /// The authorities that the servers agreed on; none for a server without one.
    pub(crate) fn roots(&self) -> Option<Roots> {
        let authority = self.inner.config.authority.clone()?;
        let vault = self.inner.vault.clone();
        Some(Roots::new(self.inner.store.clone(), vault, authority))
    }

    /// Ends every watch, and waits for the tasks that kept the kinds' caches. Lists and watches are refused from then on.
    pub async fn shutdown(&self) {
        self.inner.caches.shutdown().await;
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
            definitions,
            ..
        } = &*self.inner;
        let (vault, registries) = (vault.clone(), registries.clone());
        Informer::new(store.clone(), vault, registries, definitions.clone(), wants)
    }

    /// The verbs for a caller inside this process.
    pub fn client<'a>(&'a self, caller: &'a Caller) -> Client<'a> {
        Client::new(self, caller)
    }

    /// Serves what the definitions of a state say, and lets go of what it does not serve any more.
    pub(crate) async fn show_definitions(&self, snapshot: &Snapshot) {
        let Inner {
            definitions,
            caches,
            ..
        } = &*self.inner;
        definitions.show(snapshot);
        let stays = |kind: &Kind| definitions.serves(kind);
        caches.end(stays, snapshot.revision()).await;
    }

    /// Told of each state that brought something new of definitions.
    pub(crate) fn definition_news(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.definitions.news()
    }

    /// All definitions, without their schemas.
    pub(crate) fn all_definitions(&self) -> Vec<(Revision, Arc<Value>)> {
        self.inner.definitions.all()
    }

    /// Keeps others here from making what a cluster has from its beginning, for as long as it is held.
    pub(crate) async fn founding(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.founding.lock().await
    }

    /// The kinds that are served now, where a request may name one that this server has not heard of yet: by the newest state there is, which is what is
    /// known of APIServices from then on, too.
    pub(crate) async fn newest_registry(&self) -> Result<Arc<Registry>, StatusError> {
        let newest = self.newest(None).await?;
        self.inner.definitions.show(&newest);
        self.inner.aggregation.show(&newest);
        Ok(self.registry())
    }

    /// The newest state that anyone was acknowledged.
    pub(crate) async fn newest_snapshot(&self) -> Result<Snapshot, StatusError> {
        self.newest(None).await
    }

    /// How many objects there are of the kind that a request is about, as far as that is known without looking.
    pub(crate) fn known_count(&self, info: &RequestInfo) -> usize {
        match &info.asked {
            Asked::Resource(one) => self.inner.caches.counted(&one.kind),
            _ => 0,
        }
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    pub(crate) fn authority(&self) -> Option<&Authority> {
        self.inner.config.authority.as_ref()
    }

    pub(crate) fn aggregation(&self) -> &Aggregation {
        &self.inner.aggregation
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.inner.reach
    }

    fn find(&self, snapshot: &Snapshot, object: ObjectRef<'_>) -> Result<Stored, StatusError> {
        let ObjectRef { kind, name, .. } = object;
        snapshot
            .get(&object.key())
            .map(|entry| Stored::new(&self.inner.vault, kind, entry))
            .ok_or_else(|| StatusError::not_found(&kind.resource, &kind.group, name))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.config.clock)()
    }

    /// What the components that an object names import, of those that this server has.
    async fn imports(&self, kind: &Kind, value: &Value) -> Imports {
        let mut known = Imports::new();
        if let Some(images) = &self.inner.config.images {
            for image in kind.strategy.images(value) {
                if let Some(imports) = images.imports(&image).await {
                    known.insert(image, imports);
                }
            }
        }
        known
    }

    fn surroundings<'a>(
        &'a self,
        caller: &'a Caller,
        snapshot: &'a Snapshot,
        imports: &'a Imports,
    ) -> Surrounding<'a> {
        Surrounding {
            caller,
            authorizer: self.authorizer(),
            snapshot,
            imports,
            vault: &self.inner.vault,
            range: self.inner.config.service_range,
            now: self.now(),
        }
    }

    async fn write(
        &self,
        caller: &Caller,
        mutations: Vec<Mutation>,
    ) -> Result<Revision, WriteError> {
        self.inner.store.write(mutations, caller.term()).await
    }
}

fn already_exists(kind: KindRef<'_>, name: &str) -> StatusError {
    StatusError::already_exists(&kind.resource, &kind.group, name)
}

fn modified(kind: KindRef<'_>, name: &str) -> StatusError {
    StatusError::modified(&kind.resource, &kind.group, name)
}
