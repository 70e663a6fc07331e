//! The cluster as the controllers see it: typed rows with the indexes they need, kept up to date change by change.
//!
//! [`View::apply`] takes the informer's changes, [`View::fold`] the answers of our own writes, which may run ahead of the
//! informer. The informer's stream is in revision order over all kinds, so one number, the highest revision it
//! delivered, tells which answers are news: an answer at or below it has already been seen, and perhaps superseded.
//!
//! Invariants: rows and indexes always agree; a row never goes back to an older revision; what a fold deleted is not
//! brought back by an older event; an owner is never missing while its dependent is there unless it is gone.
//!
//! Only the kinds that reconcilers read are kept whole; of everything else only the metadata that ownership and
//! namespace deletion need. Secrets' contents never stay here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::Metadata;
use serde::de::DeserializeOwned;
use weft_api::meta::{Meta, OwnerReference};
use weft_api::object::{Object, ObjectError};
use weft_api::view::{
    Deployment, EndpointSlice, Event, Namespace, Node, ObjectMeta, Pod, ReplicaSet, Service,
};

use crate::write::{
    CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, EVENTS, GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES,
    LEASES, NAMESPACES, NODES, PODS, REPLICA_SETS, Reference, Resource, SERVICES,
};

/// Where node leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::new("", name)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object: its metadata, its typed lens, and the lossless object where a reconciler copies parts of it.
#[derive(Debug)]
pub struct Row<T> {
    pub resource: Resource,
    pub key: Key,
    pub meta: Meta,
    pub body: T,
    /// Kept for deployments, replica sets and the kinds without a lens.
    pub object: Option<Object>,
}

impl<T> Row<T> {
    /// For events about this object.
    pub fn reference(&self) -> Reference {
        Reference {
            resource: self.resource,
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.meta.uid.clone(),
        }
    }
}

/// Rows of one kind, in order of namespace and name.
#[derive(Debug)]
pub struct Table<T>(BTreeMap<Key, Arc<Row<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    pub fn get(&self, key: &Key) -> Option<&Arc<Row<T>>> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Row<T>>> {
        self.0.values()
    }

    pub fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Row<T>>> + use<'a, T> {
        self.0
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, row)| row)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A change of one object, as the informer or a write's answer tells it.
#[derive(Debug, Clone)]
pub enum Change {
    Upsert(Resource, Object),
    /// The last state of an object that is gone.
    Delete(Resource, Object),
}

/// A row of whichever kind.
#[derive(Debug, Clone)]
pub enum Item {
    Pod(Arc<Row<Pod>>),
    Node(Arc<Row<Node>>),
    Namespace(Arc<Row<Namespace>>),
    Service(Arc<Row<Service>>),
    EndpointSlice(Arc<Row<EndpointSlice>>),
    Deployment(Arc<Row<Deployment>>),
    ReplicaSet(Arc<Row<ReplicaSet>>),
    Other(Arc<Row<()>>),
}

/// What a change did to the view: the wake-up call for [`crate::Controller::keys`].
#[derive(Debug)]
pub struct Touched {
    pub resource: Resource,
    pub key: Key,
    pub uid: String,
    pub before: Option<Item>,
    pub after: Option<Item>,
    /// Owners of the object, before and after.
    pub owners: Vec<String>,
    /// Owners, finalizers, deletion or existence changed: of interest to garbage collection.
    pub ownership_changed: bool,
}

impl Touched {
    /// Both states, oldest first.
    pub fn states(&self) -> impl Iterator<Item = &Item> {
        self.before.iter().chain(&self.after)
    }
}

/// An object as garbage collection and namespace deletion see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub resource: Resource,
    pub key: Key,
    pub uid: String,
    pub revision: Option<u64>,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

/// The indexed view. See the module's promise.
#[derive(Debug, Default)]
pub struct View {
    revision: u64,
    synced: bool,
    pub pods: Table<Pod>,
    pub nodes: Table<Node>,
    pub namespaces: Table<Namespace>,
    pub services: Table<Service>,
    pub endpoint_slices: Table<EndpointSlice>,
    pub deployments: Table<Deployment>,
    pub replica_sets: Table<ReplicaSet>,
    others: BTreeMap<Resource, Table<()>>,
    entries: BTreeMap<String, Entry>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    contents: BTreeMap<String, BTreeSet<String>>,
    /// Node name to pods; the empty name holds the pods that are bound nowhere.
    pods_by_node: BTreeMap<String, BTreeSet<Key>>,
    /// Controller uid to pods; the empty uid holds the pods that nobody controls.
    pods_by_controller: BTreeMap<String, BTreeSet<Key>>,
    heartbeats: BTreeMap<String, Timestamp>,
    events_by_time: BTreeSet<(Timestamp, Key)>,
    event_times: BTreeMap<Key, (Timestamp, String)>,
    /// Uid to the revision at which our own delete removed it, until the informer says so too.
    gone: BTreeMap<String, u64>,
}

impl View {
    /// Takes one change of the informer. `None`: it was known already.
    ///
    /// # Errors
    /// [`ObjectError::View`] for an object that does not have the shape of its kind; the view is unchanged.
    pub fn apply(
        &mut self,
        change: Change,
        now: Timestamp,
    ) -> Result<Option<Touched>, ObjectError> {
        if self.synced {
            let (Change::Upsert(_, object) | Change::Delete(_, object)) = &change;
            self.revision = self.revision.max(object.resource_version().unwrap_or(0));
        }
        match change {
            Change::Upsert(resource, object) => {
                if self.gone.contains_key(object.uid()) || self.knows(&object) {
                    return Ok(None);
                }
                self.insert(resource, object, now).map(Some)
            }
            Change::Delete(resource, object) => {
                self.gone.remove(object.uid());
                Ok(self.remove(resource, &object))
            }
        }
    }

    /// The informer has delivered everything up to `revision`.
    pub fn set_synced(&mut self, revision: u64) {
        self.synced = true;
        self.revision = self.revision.max(revision);
    }

    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Takes the answer of one of our own writes. `None`: the informer told it already.
    ///
    /// # Errors
    /// As [`View::apply`].
    pub fn fold(&mut self, change: Change, now: Timestamp) -> Result<Option<Touched>, ObjectError> {
        let (Change::Upsert(_, object) | Change::Delete(_, object)) = &change;
        let revision = object.resource_version().unwrap_or(0);
        if !self.synced || revision <= self.revision {
            return Ok(None);
        }
        match change {
            Change::Upsert(resource, object) => {
                if self.gone.contains_key(object.uid()) || self.knows(&object) {
                    return Ok(None);
                }
                self.insert(resource, object, now).map(Some)
            }
            Change::Delete(resource, object) => {
                let touched = self.remove(resource, &object);
                if touched.is_some() {
                    self.gone.insert(object.uid().to_owned(), revision);
                }
                Ok(touched)
            }
        }
    }

    /// The same or a newer state of this object is here.
    fn knows(&self, object: &Object) -> bool {
        self.entries
            .get(object.uid())
            .is_some_and(|entry| entry.revision >= object.resource_version())
    }

    fn insert(
        &mut self,
        resource: Resource,
        object: Object,
        now: Timestamp,
    ) -> Result<Touched, ObjectError> {
        let meta = object.meta();
        let key = Key {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone(),
        };
        let uid = meta.uid.clone();
        let entry = Entry {
            resource,
            key: key.clone(),
            uid: uid.clone(),
            revision: meta.resource_version,
            owners: meta.owner_references.clone(),
            finalizers: meta.finalizers.clone(),
            deleting: meta.is_deleting(),
        };
        let (before, after) = match resource {
            PODS => put(&mut self.pods, row(resource, &key, meta, object, false)?)
                .map(Item::Pod, Item::Pod),
            NODES => put(&mut self.nodes, row(resource, &key, meta, object, false)?)
                .map(Item::Node, Item::Node),
            NAMESPACES => put(
                &mut self.namespaces,
                row(resource, &key, meta, object, true)?,
            )
            .map(Item::Namespace, Item::Namespace),
            SERVICES => put(
                &mut self.services,
                row(resource, &key, meta, object, false)?,
            )
            .map(Item::Service, Item::Service),
            ENDPOINT_SLICES => put(
                &mut self.endpoint_slices,
                row(resource, &key, meta, object, false)?,
            )
            .map(Item::EndpointSlice, Item::EndpointSlice),
            DEPLOYMENTS => put(
                &mut self.deployments,
                row(resource, &key, meta, object, true)?,
            )
            .map(Item::Deployment, Item::Deployment),
            REPLICA_SETS => put(
                &mut self.replica_sets,
                row(resource, &key, meta, object, true)?,
            )
            .map(Item::ReplicaSet, Item::ReplicaSet),
            LEASES => {
                if key.namespace == LEASE_NAMESPACE {
                    self.heartbeats.insert(key.name.clone(), now);
                }
                Swapped::nothing()
            }
            EVENTS => {
                self.insert_event(&key, &meta, &object)?;
                Swapped::nothing()
            }
            _ => {
                let keep = keeps_object(resource, &key);
                let new = Row {
                    resource,
                    key: key.clone(),
                    meta,
                    body: (),
                    object: keep.then_some(object),
                };
                put(self.others.entry(resource).or_default(), new).map(Item::Other, Item::Other)
            }
        };
        self.index_pod(before.as_ref(), after.as_ref());
        let old = self.replace_entry(entry);
        Ok(self.touched(resource, key, uid, (before, after), old))
    }

    fn remove(&mut self, resource: Resource, object: &Object) -> Option<Touched> {
        let uid = object.uid().to_owned();
        let old = self.entries.remove(&uid)?;
        let key = old.key.clone();
        for owner in &old.owners {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(&uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(set) = self.contents.get_mut(&key.namespace) {
            set.remove(&uid);
            if set.is_empty() {
                self.contents.remove(&key.namespace);
            }
        }
        let before = match resource {
            PODS => take(&mut self.pods, &key, &uid).map(Item::Pod),
            NODES => take(&mut self.nodes, &key, &uid).map(Item::Node),
            NAMESPACES => take(&mut self.namespaces, &key, &uid).map(Item::Namespace),
            SERVICES => take(&mut self.services, &key, &uid).map(Item::Service),
            ENDPOINT_SLICES => take(&mut self.endpoint_slices, &key, &uid).map(Item::EndpointSlice),
            DEPLOYMENTS => take(&mut self.deployments, &key, &uid).map(Item::Deployment),
            REPLICA_SETS => take(&mut self.replica_sets, &key, &uid).map(Item::ReplicaSet),
            LEASES => {
                if key.namespace == LEASE_NAMESPACE {
                    self.heartbeats.remove(&key.name);
                }
                None
            }
            EVENTS => {
                if let Some((time, _)) = self.event_times.remove(&key) {
                    self.events_by_time.remove(&(time, key.clone()));
                }
                None
            }
            _ => self
                .others
                .get_mut(&resource)
                .and_then(|table| take(table, &key, &uid))
                .map(Item::Other),
        };
        self.index_pod(before.as_ref(), None);
        Some(self.touched(resource, key, uid, (before, None), Some(old)))
    }

    /// Writes the entry and its indexes; returns what was there.
    fn replace_entry(&mut self, entry: Entry) -> Option<Entry> {
        let uid = entry.uid.clone();
        for owner in &entry.owners {
            let set = self.dependents.entry(owner.uid.clone()).or_default();
            set.insert(uid.clone());
        }
        if !entry.key.namespace.is_empty() {
            let set = self
                .contents
                .entry(entry.key.namespace.clone())
                .or_default();
            set.insert(uid.clone());
        }
        let owners: BTreeSet<String> = entry.owners.iter().map(|o| o.uid.clone()).collect();
        let old = self.entries.insert(uid.clone(), entry)?;
        for owner in old.owners.iter().filter(|o| !owners.contains(&o.uid)) {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(&uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }

    fn touched(
        &self,
        resource: Resource,
        key: Key,
        uid: String,
        (before, after): (Option<Item>, Option<Item>),
        old: Option<Entry>,
    ) -> Touched {
        let new = self.entries.get(&uid);
        let facts = |entry: &Entry| {
            (
                entry.owners.clone(),
                entry.finalizers.clone(),
                entry.deleting,
            )
        };
        let ownership_changed = old.as_ref().map(facts) != new.map(facts);
        let owners = old.iter().chain(new);
        let owners: BTreeSet<String> = owners
            .flat_map(|entry| entry.owners.iter().map(|owner| owner.uid.clone()))
            .collect();
        Touched {
            resource,
            key,
            uid,
            before,
            after,
            owners: owners.into_iter().collect(),
            ownership_changed,
        }
    }

    fn index_pod(&mut self, before: Option<&Item>, after: Option<&Item>) {
        if let Some(Item::Pod(pod)) = before {
            drop_index(&mut self.pods_by_node, node_of(pod), &pod.key);
            drop_index(&mut self.pods_by_controller, controller_of(pod), &pod.key);
        }
        if let Some(Item::Pod(pod)) = after {
            let node = node_of(pod).to_owned();
            let by_node = self.pods_by_node.entry(node).or_default();
            by_node.insert(pod.key.clone());
            let controller = controller_of(pod).to_owned();
            let by_controller = self.pods_by_controller.entry(controller).or_default();
            by_controller.insert(pod.key.clone());
        }
    }

    fn insert_event(&mut self, key: &Key, meta: &Meta, object: &Object) -> Result<(), ObjectError> {
        let event: Event = object.view()?;
        let series = event.series.and_then(|series| series.last_observed_time);
        let time = event
            .last_timestamp
            .map(|time| time.0)
            .or(series.map(|time| time.0))
            .or(event.event_time.map(|time| time.0))
            .or(meta.creation_timestamp)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let stamped = (time, meta.uid.clone());
        if let Some((old, _)) = self.event_times.insert(key.clone(), stamped) {
            self.events_by_time.remove(&(old, key.clone()));
        }
        self.events_by_time.insert((time, key.clone()));
        Ok(())
    }

    /// Pods bound to a node, in order; the empty name means bound nowhere.
    pub fn pods_on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Row<Pod>>> {
        let keys = self.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key))
    }

    /// Pods whose controller has this uid, in order.
    pub fn pods_of<'a>(&'a self, controller: &str) -> impl Iterator<Item = &'a Arc<Row<Pod>>> {
        let keys = self
            .pods_by_controller
            .get(controller)
            .into_iter()
            .flatten();
        keys.filter_map(|key| self.pods.get(key))
    }

    /// Pods of a namespace that nobody controls.
    pub fn stray_pods<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Row<Pod>>> + use<'a> {
        let strays = self.pods_by_controller.get("").into_iter();
        let keys = strays.flat_map(move |set| {
            set.range(Key::new(namespace, "")..)
                .take_while(move |key| key.namespace == namespace)
        });
        keys.filter_map(|key| self.pods.get(key))
    }

    /// Names of nodes that pods are bound to, whether the node exists or not.
    pub fn bound_node_names(&self) -> impl Iterator<Item = &str> {
        let names = self.pods_by_node.keys().map(String::as_str);
        names.filter(|name| !name.is_empty())
    }

    /// A row of a kind without a typed table.
    pub fn other(&self, resource: Resource, key: &Key) -> Option<&Arc<Row<()>>> {
        self.others.get(&resource)?.get(key)
    }

    /// Rows of a kind without a typed table, in order.
    pub fn others(&self, resource: Resource) -> impl Iterator<Item = &Arc<Row<()>>> {
        self.others.get(&resource).into_iter().flat_map(Table::iter)
    }

    /// When the node's lease was last seen to change, by our clock; the node's own clock is not trusted.
    pub fn heartbeat(&self, node: &str) -> Option<Timestamp> {
        self.heartbeats.get(node).copied()
    }

    pub fn entry(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(uid)
    }

    /// Uids of every object, in order.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Objects that name `uid` as an owner.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Entry> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.entries.get(uid))
    }

    /// Everything in a namespace.
    pub fn contents<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Entry> {
        let uids = self.contents.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.entries.get(uid))
    }

    /// Events with the time they were last seen, oldest first.
    pub fn events_by_age(&self) -> impl Iterator<Item = (Timestamp, &Key, &str)> {
        self.events_by_time.iter().filter_map(|(time, key)| {
            let (_, uid) = self.event_times.get(key)?;
            Some((*time, key, uid.as_str()))
        })
    }
}

/// The node a pod is bound to, or `""`.
pub fn node_of(pod: &Row<Pod>) -> &str {
    let spec = pod.body.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("")
}

/// The uid of a pod's controller, or `""`.
fn controller_of(pod: &Row<Pod>) -> &str {
    pod.meta.controller().map_or("", |owner| owner.uid.as_str())
}

/// Kinds without a typed lens that reconcilers read whole.
fn keeps_object(resource: Resource, key: &Key) -> bool {
    match resource {
        GATEWAYS | GATEWAY_CLASSES | HTTP_ROUTES => true,
        CONFIG_MAPS => key.name == crate::namespace::ROOT_CA_CONFIG_MAP,
        _ => false,
    }
}

/// A row before and after a change.
struct Swapped<T> {
    before: Option<Arc<Row<T>>>,
    after: Option<Arc<Row<T>>>,
}

impl Swapped<()> {
    fn nothing() -> (Option<Item>, Option<Item>) {
        (None, None)
    }
}

impl<T> Swapped<T> {
    fn map(
        self,
        before: impl FnOnce(Arc<Row<T>>) -> Item,
        after: impl FnOnce(Arc<Row<T>>) -> Item,
    ) -> (Option<Item>, Option<Item>) {
        (self.before.map(before), self.after.map(after))
    }
}

fn row<T: DeserializeOwned + Metadata<Ty = ObjectMeta>>(
    resource: Resource,
    key: &Key,
    meta: Meta,
    object: Object,
    keep: bool,
) -> Result<Row<T>, ObjectError> {
    let mut body: T = object.view()?;
    // Often more than half of an object, and of interest to no reconciler.
    body.metadata_mut().managed_fields = None;
    Ok(Row {
        resource,
        key: key.clone(),
        meta,
        body,
        object: keep.then_some(object),
    })
}

fn put<T>(table: &mut Table<T>, row: Row<T>) -> Swapped<T> {
    let row = Arc::new(row);
    Swapped {
        before: table.0.insert(row.key.clone(), Arc::clone(&row)),
        after: Some(row),
    }
}

/// Removes the row unless a namesake with another uid has taken its place.
fn take<T>(table: &mut Table<T>, key: &Key, uid: &str) -> Option<Arc<Row<T>>> {
    if table.0.get(key)?.meta.uid == uid {
        table.0.remove(key)
    } else {
        None
    }
}

fn drop_index(index: &mut BTreeMap<String, BTreeSet<Key>>, name: &str, key: &Key) {
    if let Some(set) = index.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            index.remove(name);
        }
    }
}
