//! What the pods of this node are granted by CapabilityGrants, kept as the API server has it.
//!
//! ```text
//! claim (a container of a ServiceAccount) ──► a watch of its namespace's grants ──► granted.rs  what the ServiceAccount is granted, pure
//!        ├── rules of calls out of the cluster ──► weft_mesh, for the identity          config_values.rs  of ConfigMaps and Secrets, pure
//!        │   with what proves who calls, of Secrets that only the host sees            credentials.rs  what that is, pure
//!        ├── configuration ──► whoever has the claim, newest values                     key_value.rs      stores, over the API server
//!        └── key-value stores, asked at each operation
//! ```
//! A namespace is watched while a container here runs under one of its ServiceAccounts, and not before. A change is in force when it
//! arrives: at the next call out, at the next operation on a store, at the next look at the configuration. Secrets that change are looked at every
//! [`REFRESH_EVERY`].
//!
//! Invariants: nothing is granted before it is known; while the server is away, what was granted last stays; what was granted to a
//! ServiceAccount is withdrawn from this node with its last container; every task that is begun here has ended when [`Grants::stop`] has.
//! Left to others: refusing grants that say nothing (admission), what may be called (`weft_mesh`), who may read which Secret (the API server).

pub mod config_values;
pub mod credentials;
pub mod granted;
pub mod key_value;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use weft_api::SpiffeId;
use weft_mesh::Mesh;
use weft_runtime::{Config, ConfigSender, ConfigTooLarge, Metrics};

use self::config_values::Values;
use self::granted::{ConfigSource, GrantSpec, Granted};
use self::key_value::{Places, Stores};
use crate::config_error::ConfigError;
use crate::configuration::{self, Configuration, FetchError};
use crate::identity::{Chain, Link};
use crate::pod_view::PodView;
use crate::topology::reconnecting;

/// How long a container waits for its namespace's grants; after that it is treated as one that has none, and looked at again.
const KNOWN_MAX: Duration = Duration::from_secs(5);
/// How often the sources of configuration are looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Grants of one namespace that are kept, in the order of their arrival; further ones are left out, and told.
const GRANTS_MAX: usize = 1024;

/// The grants of this node. Clones share them.
#[derive(Clone)]
pub struct Grants {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    mesh: Mesh,
    namespaces: Mutex<HashMap<String, Namespace>>,
    /// Operations on key-value stores that are under way.
    operations: Places,
    /// The watches, and for each ServiceAccount one refresh that is under way and one that waits for it; what hands values on to guests.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A namespace that is watched.
struct Namespace {
    accounts: HashMap<String, Held>,
    known: watch::Sender<Known>,
    stop: CancellationToken,
    /// Ends the watch, and what else is done for the namespace.
    _watching: DropGuard,
}

struct Held {
    account: Arc<Account>,
    claims: usize,
}

/// The grants of a namespace by name.
#[derive(Clone, Debug, Default)]
struct Known {
    is_listed: bool,
    grants: BTreeMap<String, GrantSpec>,
}

/// A ServiceAccount under which containers of this node run.
pub struct Account {
    identity: SpiffeId,
    granted: watch::Sender<Arc<Granted>>,
    values: watch::Sender<Arc<Values>>,
    /// Of which sources the values are. Held while they are fetched: two at once could end in the older ones.
    given: tokio::sync::Mutex<Vec<ConfigSource>>,
    /// A refresh waits for that, and will see what is granted by then.
    is_awaited: AtomicBool,
    /// What its calls out of the cluster need, as it was fetched last.
    proofs: Mutex<Option<Arc<Configuration>>>,
    /// Held while that is fetched: of two at once the older one could come last.
    proving: tokio::sync::Mutex<()>,
}

/// Why the configuration of a container cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ValuesError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Account {
    fn new(identity: SpiffeId) -> Self {
        Self {
            identity,
            granted: watch::Sender::default(),
            values: watch::Sender::default(),
            given: tokio::sync::Mutex::default(),
            is_awaited: AtomicBool::new(false),
            proofs: Mutex::default(),
            proving: tokio::sync::Mutex::default(),
        }
    }

    /// What it is granted now.
    pub fn granted(&self) -> Arc<Granted> {
        self.granted.borrow().clone()
    }

    /// The newest values of its configuration, and each change of them.
    pub fn values(&self) -> watch::Receiver<Arc<Values>> {
        self.values.subscribe()
    }

    /// Fetches its configuration anew. Values stay as they are where the server cannot be asked; where a source is missing, they stay only
    /// while the list of sources is the one that they are of.
    ///
    /// # Errors
    /// [`ValuesError`] when a source is missing or cannot be read.
    pub async fn refresh(&self, link: &Link) -> Result<(), ValuesError> {
        self.refresh_in_turn(link, || {}).await
    }

    /// `begins` is called when it is its turn, before it looks at what is granted.
    async fn refresh_in_turn(&self, link: &Link, begins: impl FnOnce()) -> Result<(), ValuesError> {
        let mut given = self.given.lock().await;
        begins();
        let granted = self.granted();
        let namespace = &self.identity.namespace;
        let references = granted.references();
        let values = if references.is_empty() {
            Ok(Values::default())
        } else {
            let found = configuration::fetch(link.client(), namespace, references).await?;
            config_values::merge(namespace, &granted.config, &found)
        };
        let (values, failed) = match values {
            Ok(values) => (values, None),
            // Nothing is kept of what another list of sources gave: one of them may have been taken away.
            Err(error) if *given != granted.config => (Values::default(), Some(error)),
            Err(error) => return Err(error.into()),
        };
        if failed.is_none() {
            given.clone_from(&granted.config);
        } else {
            given.clear();
        }
        self.values.send_if_modified(|before| {
            let is_news = **before != values;
            if is_news {
                *before = Arc::new(values);
            }
            is_news
        });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What the grants give to it now; true if that is news.
    fn evaluate(&self, grants: &BTreeMap<String, GrantSpec>) -> bool {
        let SpiffeId {
            namespace,
            service_account,
            ..
        } = &self.identity;
        let now = granted::evaluate(namespace, service_account, grants);
        self.granted.send_if_modified(|before| {
            let is_news = **before != now;
            if is_news {
                *before = Arc::new(now);
            }
            is_news
        })
    }
}

/// A container's hold on what its ServiceAccount is granted.
pub struct Claim {
    grants: Grants,
    account: Arc<Account>,
}

impl Claim {
    /// The ServiceAccount.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What is granted, once that is known.
    pub async fn granted(&self) -> Arc<Granted> {
        let known = {
            let namespaces = self.grants.inner.namespaces.lock();
            let namespace = namespaces.get(&self.account.identity.namespace);
            namespace.map(|namespace| namespace.known.subscribe())
        };
        if let Some(mut known) = known {
            let listed = known.wait_for(|known| known.is_listed);
            // Elapsed, or the watch ended with the node: what is known counts.
            let _ = tokio::time::timeout(KNOWN_MAX, listed).await;
        }
        self.account.granted()
    }
}

impl Claim {
    /// What a component gets of the runtime's capabilities, for a container of `pod`: of what it imports, what is granted now. Newer
    /// values of its configuration follow for as long as it has it; stores are judged at each operation. To be called on a runtime.
    ///
    /// # Errors
    /// [`ConfigTooLarge`], which the bounds of granted configuration leave no room for.
    pub fn give(
        &self,
        imports: &[String],
        pod: PodView<'_>,
    ) -> Result<weft_runtime::Grants, ConfigTooLarge> {
        let mut given = weft_runtime::Grants::default();
        if granted::imports_metrics(imports) {
            given.metrics(Metrics::default());
        }
        if granted::imports_config(imports) {
            let mut values = self.account.values();
            let now = values.borrow_and_update().clone();
            let (sender, config) = Config::channel(Values::clone(&now))?;
            let inner = &self.grants.inner;
            let stop = inner.stop.clone();
            inner.tasks.spawn(async move {
                stop.run_until_cancelled(hand_on(values, sender)).await;
            });
            given.config(config);
        }
        if granted::imports_key_value(imports) {
            let stores = Stores::new(
                self.grants.inner.link.clone(),
                self.account.clone(),
                pod,
                self.grants.inner.operations.clone(),
            );
            for identifier in self.account.granted().key_value.keys() {
                given.key_value(identifier.clone(), Arc::new(stores.store(identifier)));
            }
        }
        Ok(given)
    }
}

/// Hands newer values on, until nobody has the configuration any more.
async fn hand_on(mut values: watch::Receiver<Arc<Values>>, sender: ConfigSender) {
    loop {
        tokio::select! {
            biased;
            () = sender.closed() => return,
            changed = values.changed() => if changed.is_err() { return },
        }
        let now = values.borrow_and_update().clone();
        if let Err(error) = sender.set(Values::clone(&now)) {
            tracing::warn!(%error, "granted configuration stays as it is");
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let SpiffeId {
            namespace,
            service_account,
            ..
        } = &self.account.identity;
        let mut namespaces = self.grants.inner.namespaces.lock();
        let Some(watched) = namespaces.get_mut(namespace) else {
            return;
        };
        let Some(held) = watched.accounts.get_mut(service_account) else {
            return;
        };
        held.claims -= 1;
        if held.claims > 0 {
            return;
        }
        watched.accounts.remove(service_account);
        // Under the lock, so that a claim that comes now hands in its rules after this.
        let none = self
            .grants
            .inner
            .mesh
            .set_egress_rules(&self.account.identity, &[]);
        debug_assert!(none.is_empty(), "there were none");
        if watched.accounts.is_empty() {
            namespaces.remove(namespace);
        }
    }
}

impl Grants {
    /// Knows nothing yet, and asks for nothing before the first claim.
    pub fn new(link: Link, mesh: Mesh) -> Self {
        Self {
            inner: Arc::new(Inner {
                link,
                mesh,
                namespaces: Mutex::default(),
                operations: Places::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Ends what is done here, and waits until it has ended. What is granted stays as it is from then on.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Holds on to what `identity` is granted, for a container that is to run under it. To be called on a runtime.
    pub fn claim(&self, identity: &SpiffeId) -> Claim {
        let mut namespaces = self.inner.namespaces.lock();
        let namespace = &identity.namespace;
        let watched = namespaces
            .entry(namespace.clone())
            .or_insert_with(|| self.watch(namespace));
        let known = watched.known.borrow().clone();
        let held = watched
            .accounts
            .entry(identity.service_account.clone())
            .or_insert_with(|| Held {
                account: Arc::new(Account::new(identity.clone())),
                claims: 0,
            });
        held.claims += 1;
        let account = held.account.clone();
        if held.claims == 1 && account.evaluate(&known.grants) {
            self.open_ways_out(&account);
            if !credentials::references(&account.granted().outgoing).is_empty() {
                self.begin_refresh(&account, &watched.stop);
            }
        }
        drop(namespaces);
        Claim {
            grants: self.clone(),
            account,
        }
    }

    fn watch(&self, namespace: &str) -> Namespace {
        let known = watch::Sender::new(Known::default());
        let stop = self.inner.stop.child_token();
        let watching = self.clone().follow(namespace.to_owned(), stop.clone());
        self.inner.tasks.spawn(watching);
        Namespace {
            accounts: HashMap::new(),
            known,
            _watching: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Keeps what is known of one namespace as the server has it, until `stop`.
    async fn follow(self, namespace: String, stop: CancellationToken) {
        let refreshing = self.clone().keep_fresh(namespace.clone());
        let mut link = self.inner.link.clone();
        let watching = async {
            let mut listed = BTreeMap::new();
            loop {
                let api = all_in(link.client(), &namespace);
                let mut events = std::pin::pin!(reconnecting(api, watcher::Config::default()));
                loop {
                    let event = tokio::select! {
                        biased;
                        event = events.next() => event,
                        // A renewed certificate: watch anew under it.
                        () = link.renewed() => None,
                    };
                    let Some(event) = event else { break };
                    match event {
                        Ok(event) => self.take(&namespace, event, &mut listed),
                        // The server does not know the kind, or does not let nodes see it: then there are none.
                        Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                            if matches!(status.code, 403 | 404) =>
                        {
                            self.change(&namespace, |known| known.is_listed = true);
                        }
                        Err(error) => {
                            tracing::debug!(namespace, error = %Chain(&error), "the watch on grants broke, will be opened again");
                        }
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = watching => {}
            () = refreshing => {}
        }
    }

    fn take(
        &self,
        namespace: &str,
        event: Event<DynamicObject>,
        listed: &mut BTreeMap<String, GrantSpec>,
    ) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => add(listed, &object),
            Event::InitDone => {
                let grants = std::mem::take(listed);
                self.change(namespace, |known| {
                    *known = Known {
                        is_listed: true,
                        grants,
                    };
                });
            }
            Event::Apply(object) => self.change(namespace, |known| add(&mut known.grants, &object)),
            Event::Delete(object) => self.change(namespace, |known| {
                known.grants.remove(&object.name_any());
            }),
        }
    }

    /// Changes what is known of a namespace, and hands it on to its ServiceAccounts.
    fn change(&self, namespace: &str, change: impl FnOnce(&mut Known)) {
        let mut namespaces = self.inner.namespaces.lock();
        // Its last container may have gone just now.
        let Some(watched) = namespaces.get_mut(namespace) else {
            return;
        };
        let mut known = watched.known.borrow().clone();
        change(&mut known);
        for held in watched.accounts.values() {
            if held.account.evaluate(&known.grants) {
                self.open_ways_out(&held.account);
                self.begin_refresh(&held.account, &watched.stop);
            }
        }
        // After the accounts: whoever waits for it asks these.
        watched.known.send_replace(known);
    }

    /// Fetches its configuration anew, beside the watch, unless somebody is about to.
    fn begin_refresh(&self, account: &Arc<Account>, stop: &CancellationToken) {
        if account.is_awaited.swap(true, Ordering::AcqRel) {
            return;
        }
        let (account, link) = (account.clone(), self.inner.link.clone());
        let (grants, stop) = (self.clone(), stop.clone());
        self.inner.tasks.spawn(async move {
            let begins = || account.is_awaited.store(false, Ordering::Release);
            let refreshing = async {
                tell(&account, account.refresh_in_turn(&link, begins).await);
                grants.refresh_proofs(&account).await
            };
            if let Some(Err(error)) = stop.run_until_cancelled(refreshing).await {
                tracing::debug!(identity = %account.identity, error = %Chain(&error), "what is shown to hosts outside is fetched later");
            }
        });
    }

    /// To be called while [`Inner::namespaces`] is locked: nobody else withdraws them meanwhile.
    fn open_ways_out(&self, account: &Account) {
        let granted = account.granted();
        let proofs = account.proofs.lock().clone();
        let rules = credentials::resolve(&granted.outgoing, proofs.as_deref());
        let wrong = self.inner.mesh.set_egress_rules(&account.identity, &rules);
        for error in wrong {
            tracing::warn!(identity = %account.identity, %error, "a rule of a grant says nothing and is left out");
        }
    }

    /// Fetches what proves who calls out of the cluster, and has its calls show it from now on.
    async fn refresh_proofs(&self, account: &Arc<Account>) -> Result<(), FetchError> {
        let _turn = account.proving.lock().await;
        let wanted = credentials::references(&account.granted().outgoing);
        if wanted.is_empty() {
            *account.proofs.lock() = None;
            return Ok(());
        }
        let SpiffeId {
            namespace,
            service_account,
            ..
        } = &account.identity;
        let told = format!("{:?}", wanted.secrets);
        let found = configuration::fetch(self.inner.link.client(), namespace, wanted).await?;
        let namespaces = self.inner.namespaces.lock();
        let watched = namespaces.get(namespace);
        let held = watched.and_then(|watched| watched.accounts.get(service_account));
        // Its last container may have gone meanwhile, and with it all that it was granted.
        let is_held = held.is_some_and(|held| Arc::ptr_eq(&held.account, account));
        let is_news = {
            let mut proofs = account.proofs.lock();
            let data = |found: &Configuration| {
                let secrets = found.secrets.iter();
                let secrets = secrets.map(|(name, secret)| (name.clone(), secret.data.clone()));
                let maps = found.config_maps.iter();
                let maps = maps.map(|(name, map)| (name.clone(), map.data.clone()));
                (secrets.collect::<Vec<_>>(), maps.collect::<Vec<_>>())
            };
            let before = proofs.as_deref().map(data);
            let is_news = before.is_none_or(|before| before != data(&found));
            if is_news {
                *proofs = Some(Arc::new(found));
            }
            is_news
        };
        if is_held && is_news {
            tracing::info!(identity = %account.identity, secrets = told, "what is shown to hosts outside of the cluster was taken up");
            self.open_ways_out(account);
        }
        Ok(())
    }

    /// Has configuration, and what is shown to hosts outside, follow their sources.
    async fn keep_fresh(self, namespace: String) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let accounts: Vec<Arc<Account>> = {
                let namespaces = self.inner.namespaces.lock();
                let watched = namespaces.get(&namespace);
                let held = watched
                    .into_iter()
                    .flat_map(|watched| watched.accounts.values());
                held.map(|held| held.account.clone()).collect()
            };
            for account in accounts {
                if let Err(error) = self.refresh_proofs(&account).await {
                    tracing::debug!(identity = %account.identity, error = %Chain(&error), "what is shown to hosts outside stays as it is for now");
                }
                if !account.granted().config.is_empty() && account.values.receiver_count() > 0 {
                    tell(&account, account.refresh(&self.inner.link).await);
                }
            }
        }
    }
}

/// Says so where values stay as they are.
fn tell(account: &Account, refreshed: Result<(), ValuesError>) {
    if let Err(error) = refreshed {
        tracing::debug!(identity = %account.identity, error = %Chain(&error), "granted configuration stays as it is for now");
    }
}

/// Takes in a grant. One that cannot be read grants nothing.
fn add(grants: &mut BTreeMap<String, GrantSpec>, object: &DynamicObject) {
    let name = object.name_any();
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    match serde_json::from_value(spec) {
        Ok(spec) if grants.len() < GRANTS_MAX || grants.contains_key(&name) => {
            grants.insert(name, spec);
        }
        Ok(_) => tracing::warn!(
            name,
            most = GRANTS_MAX,
            "a namespace has too many grants, and one is left out"
        ),
        Err(error) => {
            tracing::warn!(name, %error, "a grant cannot be read and is left out");
            grants.remove(&name);
        }
    }
}

/// All grants of a namespace.
fn all_in(client: kube::Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "weft.dev".into(),
        version: "v1alpha1".into(),
        api_version: "weft.dev/v1alpha1".into(),
        kind: "CapabilityGrant".into(),
        plural: "capabilitygrants".into(),
    };
    Api::namespaced_with(client, namespace, &resource)
}

#[cfg(test)]
mod tests;
