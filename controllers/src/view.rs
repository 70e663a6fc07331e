//! The cluster as the controllers see it, kept up to date change by change: every object's [`Entry`], and of the kinds that
//! somebody reads, typed rows ([`crate::table`]).
//!
//! [`View::apply`] takes the informer's changes, [`View::fold`] the answers of our own writes, which may run ahead of the
//! informer. The informer's stream is in revision order over all kinds, so one number, the highest revision it
//! delivered, tells which answers are news: an answer at or below it has already been seen, and perhaps superseded.
//!
//! Invariants: rows and indexes always agree; a row never goes back to an older revision; what a fold deleted is not
//! brought back by an older event; every object has its [`Entry`], whether its lens can be read or not.
//!
//! An object that does not have the shape of its kind is there all the same: it owns, it is owned, it keeps its namespace
//! from ending. It only has no row, so whoever works on rows leaves it alone ([`View::unreadable`]).
//!
//! Of kinds that nobody reads only the metadata is kept that ownership and namespace deletion need. Secrets' contents
//! never stay here.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use weft_api::annotation;
use weft_api::meta::OwnerReference;
use weft_api::object::{Object, ObjectError};

use crate::table::{Index, Kind, Row, Swap, Table, Tables};
use crate::write::{Reference, Resource};

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

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A change of one object, as the informer or a write's answer tells it.
#[derive(Debug, Clone)]
pub enum Change {
    Upsert(Resource, Object),
    /// The last state of an object that is gone.
    Delete(Resource, Object),
}

/// What a change did to the view: the wake-up call for [`crate::Controller::keys`].
#[derive(Debug)]
pub struct Touched {
    pub resource: Resource,
    pub key: Key,
    pub uid: String,
    /// Owners of the object, before and after.
    pub owners: Vec<String>,
    /// Owners, finalizers, deletion or existence changed: of interest to garbage collection.
    pub ownership_changed: bool,
    /// The object was there before, in whatever shape.
    pub was_there: bool,
    pub is_there: bool,
    /// The object is there, but not in the shape of its kind.
    pub unreadable: bool,
    swaps: Vec<Swap>,
}

impl Touched {
    pub fn before<K: Kind>(&self) -> Option<&Row<K>> {
        self.swap::<K>()?.before()
    }

    pub fn after<K: Kind>(&self) -> Option<&Row<K>> {
        self.swap::<K>()?.after()
    }

    /// Both states, oldest first.
    pub fn states<K: Kind>(&self) -> impl Iterator<Item = &Row<K>> {
        self.before().into_iter().chain(self.after())
    }

    fn swap<K: Kind>(&self) -> Option<&Swap> {
        self.swaps.iter().find(|swap| swap.is_of::<K>())
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
    /// Why the object has no row, if it should have one.
    pub unreadable: Option<String>,
}

impl Entry {
    /// For events about this object.
    pub fn reference(&self) -> Reference {
        Reference {
            resource: self.resource,
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// The uid of the object's controller, or `""`.
    pub fn controller(&self) -> &str {
        let owner = self.owners.iter().find(|o| o.controller == Some(true));
        owner.map_or("", |owner| owner.uid.as_str())
    }
}

/// What does not show in any one state of an object: kept by whoever declares it, from every change there is.
pub trait Track: Any + Default + fmt::Debug + Send + Sync {
    /// `news`: the change happened just now, and is not part of the first list.
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp);
}

trait AnyTrack: Any + fmt::Debug + Send + Sync {
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp);
}

impl<T: Track> AnyTrack for T {
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        Track::notice(self, touched, news, now);
    }
}

/// What the readers of a view declare to read.
#[derive(Debug, Default)]
pub struct Reads {
    tables: Tables,
    tracks: BTreeMap<TypeId, Box<dyn AnyTrack>>,
}

impl Reads {
    /// Objects of this kind are read through this lens.
    pub fn kind<K: Kind>(&mut self) -> &mut Self {
        self.tables.kind::<K>();
        self
    }

    /// As [`Reads::kind`], and its rows are found by this index.
    pub fn index<K: Kind>(&mut self, index: &Index<K>) -> &mut Self {
        self.tables.index(index);
        self
    }

    pub fn track<T: Track>(&mut self) -> &mut Self {
        let track = self.tracks.entry(TypeId::of::<T>());
        track.or_insert_with(|| Box::new(T::default()));
        self
    }
}

/// The indexed view. See the module's promise.
#[derive(Debug)]
pub struct View {
    revision: u64,
    synced: bool,
    reads: Reads,
    entries: BTreeMap<String, Entry>,
    /// Uids by kind and name, so that an object is found whose uid cannot be read.
    uids: BTreeMap<(Resource, Key), String>,
    /// The objects without a row, as they are stored.
    unreadable: BTreeMap<String, Object>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    contents: BTreeMap<String, BTreeSet<String>>,
    /// Uid to the revision at which our own delete removed it, until the informer says so too.
    gone: BTreeMap<String, u64>,
}

impl View {
    /// An empty view for these readers.
    pub fn of(readers: impl IntoIterator<Item = fn(&mut Reads)>) -> Self {
        let mut reads = Reads::default();
        readers.into_iter().for_each(|read| read(&mut reads));
        Self {
            revision: 0,
            synced: false,
            reads,
            entries: BTreeMap::new(),
            uids: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            dependents: BTreeMap::new(),
            contents: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Takes one change of the informer. `None`: it was known already.
    pub fn apply(&mut self, change: Change, now: Timestamp) -> Option<Touched> {
        if self.synced {
            let (Change::Upsert(_, object) | Change::Delete(_, object)) = &change;
            self.revision = self.revision.max(object.resource_version().unwrap_or(0));
        }
        match change {
            Change::Upsert(resource, object) => {
                if self.gone.contains_key(object.uid()) || self.knows(&object) {
                    return None;
                }
                Some(self.insert(resource, object, now))
            }
            Change::Delete(resource, object) => {
                self.gone.remove(object.uid());
                self.remove(resource, &object, now)
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
    pub fn fold(&mut self, change: Change, now: Timestamp) -> Option<Touched> {
        let (Change::Upsert(_, object) | Change::Delete(_, object)) = &change;
        let revision = object.resource_version().unwrap_or(0);
        if !self.synced || revision <= self.revision {
            return None;
        }
        match change {
            Change::Upsert(resource, object) => {
                if self.gone.contains_key(object.uid()) || self.knows(&object) {
                    return None;
                }
                Some(self.insert(resource, object, now))
            }
            Change::Delete(resource, object) => {
                let touched = self.remove(resource, &object, now);
                if touched.is_some() {
                    self.gone.insert(object.uid().to_owned(), revision);
                }
                touched
            }
        }
    }

    /// The same or a newer state of this object is here.
    fn knows(&self, object: &Object) -> bool {
        self.entries
            .get(object.uid())
            .is_some_and(|entry| entry.revision >= object.resource_version())
    }

    /// The object's uid. One that cannot be opened at all shows none: then it is the one known by that name, else a
    /// name of ours, so that such objects never pass for each other.
    fn uid_of(&self, resource: Resource, key: &Key, object: &Object) -> String {
        if !object.uid().is_empty() {
            return object.uid().to_owned();
        }
        let known = self.uids.get(&(resource, key.clone())).cloned();
        known.unwrap_or_else(|| format!("{}.{}/{key}", resource.resource, resource.group))
    }

    fn insert(&mut self, resource: Resource, object: Object, now: Timestamp) -> Touched {
        let meta = object.meta();
        let key = Key {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone(),
        };
        let uid = self.uid_of(resource, &key, &object);
        let tables = &mut self.reads.tables;
        let (swaps, unreadable) = if object.uid().is_empty() {
            let said = meta.annotations.get(annotation::UNREADABLE).cloned();
            let why = said.unwrap_or_else(|| "it has no uid".to_owned());
            (tables.take(resource, &key, &uid), Some(why))
        } else {
            let (swaps, refused) = tables.put(resource, &key, &meta, &object);
            (swaps, refused.map(|error| told(&error)))
        };
        if unreadable.is_some() {
            self.unreadable.insert(uid.clone(), object);
        } else {
            self.unreadable.remove(&uid);
        }
        let old = self.replace_entry(Entry {
            resource,
            key: key.clone(),
            uid: uid.clone(),
            revision: meta.resource_version,
            owners: meta.owner_references,
            finalizers: meta.finalizers,
            deleting: meta.deletion_timestamp.is_some(),
            unreadable,
        });
        self.touched(resource, key, uid, swaps, old, now)
    }

    fn remove(&mut self, resource: Resource, object: &Object, now: Timestamp) -> Option<Touched> {
        let named = Key::new(object.namespace().unwrap_or(""), object.name());
        let uid = self.uid_of(resource, &named, object);
        let old = self.entries.remove(&uid)?;
        let key = old.key.clone();
        self.unreadable.remove(&uid);
        let named = (resource, key.clone());
        if self.uids.get(&named) == Some(&uid) {
            self.uids.remove(&named);
        }
        for owner in &old.owners {
            forget(&mut self.dependents, &owner.uid, &uid);
        }
        forget(&mut self.contents, &key.namespace, &uid);
        let swaps = self.reads.tables.take(resource, &key, &uid);
        Some(self.touched(resource, key, uid, swaps, Some(old), now))
    }

    /// Writes the entry and its indexes; returns what was there.
    fn replace_entry(&mut self, entry: Entry) -> Option<Entry> {
        let uid = entry.uid.clone();
        let named = (entry.resource, entry.key.clone());
        self.uids.insert(named, uid.clone());
        for owner in &entry.owners {
            let set = self.dependents.entry(owner.uid.clone()).or_default();
            set.insert(uid.clone());
        }
        if !entry.key.namespace.is_empty() {
            let namespace = entry.key.namespace.clone();
            let set = self.contents.entry(namespace).or_default();
            set.insert(uid.clone());
        }
        let owners: BTreeSet<String> = entry.owners.iter().map(|o| o.uid.clone()).collect();
        let old = self.entries.insert(uid.clone(), entry)?;
        for owner in old.owners.iter().filter(|o| !owners.contains(&o.uid)) {
            forget(&mut self.dependents, &owner.uid, &uid);
        }
        Some(old)
    }

    fn touched(
        &mut self,
        resource: Resource,
        key: Key,
        uid: String,
        swaps: Vec<Swap>,
        old: Option<Entry>,
        now: Timestamp,
    ) -> Touched {
        let new = self.entries.get(&uid);
        let facts = |entry: &Entry| {
            (
                entry.owners.clone(),
                entry.finalizers.clone(),
                entry.deleting,
            )
        };
        let owners = old.iter().chain(new);
        let owners: BTreeSet<String> = owners
            .flat_map(|entry| entry.owners.iter().map(|owner| owner.uid.clone()))
            .collect();
        let touched = Touched {
            resource,
            key,
            ownership_changed: old.as_ref().map(facts) != new.map(facts),
            owners: owners.into_iter().collect(),
            was_there: old.is_some(),
            is_there: new.is_some(),
            unreadable: new.is_some_and(|entry| entry.unreadable.is_some()),
            uid,
            swaps,
        };
        for track in self.reads.tracks.values_mut() {
            track.notice(&touched, self.synced, now);
        }
        touched
    }

    /// The rows of a lens that was declared.
    ///
    /// # Panics
    /// For one that was not, which is a bug of whoever asks.
    pub fn table<K: Kind>(&self) -> &Table<K> {
        self.reads.tables.of()
    }

    pub fn get<K: Kind>(&self, key: &Key) -> Option<&Arc<Row<K>>> {
        self.table::<K>().get(key)
    }

    pub fn rows<K: Kind>(&self) -> impl Iterator<Item = &Arc<Row<K>>> {
        self.table::<K>().iter()
    }

    pub fn rows_in<'a, K: Kind>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Row<K>>> + use<'a, K> {
        self.table::<K>().in_namespace(namespace)
    }

    /// Rows that the index finds by `value`, in order of namespace and name.
    pub fn by<'a, K: Kind>(
        &'a self,
        index: &Index<K>,
        value: &str,
    ) -> impl Iterator<Item = &'a Arc<Row<K>>> + use<'a, K> {
        self.table::<K>().by(index, value)
    }

    /// What was tracked.
    ///
    /// # Panics
    /// When it was not declared, which is a bug of whoever asks.
    pub fn tracked<T: Track>(&self) -> &T {
        let track = self.reads.tracks.get(&TypeId::of::<T>());
        let track = track.and_then(|track| {
            let track: &dyn Any = &**track;
            track.downcast_ref()
        });
        track.unwrap_or_else(|| panic!("nobody declared {}", std::any::type_name::<T>()))
    }

    pub fn entry(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(uid)
    }

    /// The object of this kind and name, readable or not.
    pub fn entry_of(&self, resource: Resource, key: &Key) -> Option<&Entry> {
        self.entries.get(self.uids.get(&(resource, key.clone()))?)
    }

    /// Objects that are there but have no row, because they lack the shape of their kind.
    pub fn unreadable(&self) -> impl Iterator<Item = (&Entry, &Object)> {
        let all = self.unreadable.iter();
        all.filter_map(|(uid, object)| Some((self.entries.get(uid)?, object)))
    }

    /// Objects of a kind without a row whose controller has this uid. They exist, whatever is in them.
    pub fn unreadable_of<'a>(
        &'a self,
        resource: Resource,
        controller: &'a str,
    ) -> impl Iterator<Item = &'a Entry> {
        // Nearly always none at all, so this comes before the dependents.
        let some = !self.unreadable.is_empty();
        let dependents = some.then(|| self.dependents(controller));
        dependents.into_iter().flatten().filter(move |entry| {
            entry.unreadable.is_some()
                && entry.resource == resource
                && entry.controller() == controller
        })
    }

    /// Uids of every object, in order.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Objects that name `uid` as an owner.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.entries.get(uid))
    }

    /// Everything in a namespace.
    pub fn contents<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let uids = self.contents.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.entries.get(uid))
    }
}

fn forget(index: &mut BTreeMap<String, BTreeSet<String>>, from: &str, uid: &str) {
    if let Some(set) = index.get_mut(from) {
        set.remove(uid);
        if set.is_empty() {
            index.remove(from);
        }
    }
}

/// An error with its cause, in one line: the lens says where it stumbled only there.
fn told(error: &ObjectError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
