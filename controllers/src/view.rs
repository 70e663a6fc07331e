//! The cluster as the controllers see it, kept up to date change by change: every object's metadata
//! ([`PartialObject`]), and of the kinds that somebody reads, typed objects ([`crate::indexer`]).
//!
//! [`View::apply`] takes the informer's changes, [`View::fold`] the answers of our own writes, which may run ahead of the
//! informer. The informer's stream is in revision order over all kinds, so one number, the highest revision it
//! delivered, tells which answers are news: an answer at or below it has already been seen, and perhaps superseded.
//!
//! Invariants: objects and indexes always agree; an object never goes back to an older revision; what a fold deleted is not
//! brought back by an older event; every object is there, whatever its kind, whether its lens can be read or not.
//!
//! An object that does not have the shape of its kind is there all the same: it owns, it is owned, it keeps its namespace
//! from ending. It only is in no indexer, so whoever works on those leaves it alone ([`View::unreadable`]).
//!
//! Kinds come with their objects, those that were registered at run time as those that are compiled in. Of kinds that
//! nobody reads only the metadata is kept that ownership and namespace deletion need. Secrets' contents never stay here.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use weft_api::annotation;
use weft_api::meta::Meta;
use weft_api::object::{Object, ObjectError};
use weft_kinds::{AnyVersion, Kind};

use crate::indexer::{Cached, Index, Indexer, Indexers, Lens, Swap};
use crate::metadata::{Key, Metadata, PartialObject, SharedMetadata};

/// A change of one object, as the informer or a write's answer tells it.
#[derive(Debug, Clone)]
pub enum Change {
    Upsert(Arc<Kind>, Object),
    /// The last state of an object that is gone.
    Delete(Arc<Kind>, Object),
}

impl Change {
    fn object(&self) -> &Object {
        let (Self::Upsert(_, object) | Self::Delete(_, object)) = self;
        object
    }
}

/// What a change did to the view: the wake-up call for [`crate::Controller::keys`].
#[derive(Debug)]
pub struct Touched {
    pub kind: Arc<Kind>,
    pub key: Key,
    pub uid: Arc<str>,
    /// Uids of the object's owners, before and after.
    pub owners: BTreeSet<String>,
    /// Owners, finalizers, deletion or existence changed: of interest to garbage collection.
    pub ownership_changed: bool,
    /// The object was there before, in whatever shape.
    pub was_there: bool,
    pub is_there: bool,
    /// The object is there, but not in the shape of its kind.
    pub unreadable: bool,
    /// The object as it is now, or as it was when it went.
    pub object: Object,
    swaps: Vec<Swap>,
}

impl Touched {
    /// It is an object of this kind, in whichever version it is told of.
    pub fn is_of(&self, kind: &Kind) -> bool {
        std::ptr::eq(&raw const *self.kind, kind) || self.kind.is_version_of(kind)
    }

    pub fn before<K: Lens>(&self) -> Option<&Cached<K>> {
        self.swap::<K>()?.before()
    }

    pub fn after<K: Lens>(&self) -> Option<&Cached<K>> {
        self.swap::<K>()?.after()
    }

    /// Both states, oldest first.
    pub fn states<K: Lens>(&self) -> impl Iterator<Item = &Cached<K>> {
        self.before().into_iter().chain(self.after())
    }

    fn swap<K: Lens>(&self) -> Option<&Swap> {
        self.swaps.iter().find(|swap| swap.is_of::<K>())
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
    indexers: Indexers,
    tracks: BTreeMap<TypeId, Box<dyn AnyTrack>>,
}

impl Reads {
    /// Objects of the lens's kind are read through it.
    pub fn kind<K: Lens>(&mut self) -> &mut Self {
        self.indexers.kind::<K>();
        self
    }

    /// As [`Reads::kind`], and they are found by this index.
    pub fn index<K: Lens>(&mut self, index: &Index<K>) -> &mut Self {
        self.indexers.index(index);
        self
    }

    pub fn track<T: Track>(&mut self) -> &mut Self {
        let track = self.tracks.entry(TypeId::of::<T>());
        track.or_insert_with(|| Box::new(T::default()));
        self
    }
}

/// Uids of objects, by what they have in common.
type UidsBy<T> = BTreeMap<T, BTreeSet<Arc<str>>>;

/// The indexed view. See the module's promise.
#[derive(Debug)]
pub struct View {
    revision: u64,
    synced: bool,
    reads: Reads,
    shared: SharedMetadata,
    objects: BTreeMap<Arc<str>, PartialObject>,
    /// Uids by kind and name, so that an object is found whose uid cannot be read.
    uids: BTreeMap<AnyVersion, BTreeMap<Key, Arc<str>>>,
    /// The objects that no lens can read, as they are stored.
    unreadable: BTreeMap<Arc<str>, Object>,
    /// By the uid of an owner.
    dependents: UidsBy<String>,
    /// By namespace.
    contents: UidsBy<Arc<str>>,
    /// Uid to the revision at which our own delete removed it, until the informer says so too.
    gone: BTreeMap<Arc<str>, u64>,
}

impl View {
    /// An empty view for these readers.
    pub fn new(readers: impl IntoIterator<Item = fn(&mut Reads)>) -> Self {
        let mut reads = Reads::default();
        readers.into_iter().for_each(|read| read(&mut reads));
        Self {
            revision: 0,
            synced: false,
            reads,
            shared: SharedMetadata::default(),
            objects: BTreeMap::new(),
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
            let revision = change.object().resource_version().unwrap_or(0);
            self.revision = self.revision.max(revision);
        }
        match change {
            Change::Upsert(kind, object) => self.insert_if_newer(kind, object, now),
            Change::Delete(kind, object) => {
                self.gone.remove(object.uid());
                self.remove(kind, object, now)
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
        let revision = change.object().resource_version().unwrap_or(0);
        if !self.synced || revision <= self.revision {
            return None;
        }
        match change {
            Change::Upsert(kind, object) => self.insert_if_newer(kind, object, now),
            Change::Delete(kind, object) => {
                let touched = self.remove(kind, object, now);
                if let Some(touched) = &touched {
                    self.gone.insert(Arc::clone(&touched.uid), revision);
                }
                touched
            }
        }
    }

    fn insert_if_newer(
        &mut self,
        kind: Arc<Kind>,
        object: Object,
        now: Timestamp,
    ) -> Option<Touched> {
        let known = self.objects.get(object.uid());
        let is_known =
            known.is_some_and(|known| known.meta.resource_version >= object.resource_version());
        if is_known || self.gone.contains_key(object.uid()) {
            return None;
        }
        Some(self.insert(kind, object, now))
    }

    /// The object's uid. One that cannot be opened at all shows none: then it is the one known by that name, else a
    /// name of ours, so that such objects never pass for each other.
    fn uid_of(&self, kind: &Arc<Kind>, key: &Key, object: &Object) -> Arc<str> {
        if let Some((known, _)) = self.objects.get_key_value(object.uid()) {
            return Arc::clone(known);
        }
        if !object.uid().is_empty() {
            return object.uid().into();
        }
        let known = self.uids.get(&AnyVersion(Arc::clone(kind)));
        let known = known.and_then(|uids| uids.get(key)).cloned();
        known.unwrap_or_else(|| format!("{}.{}/{key}", kind.resource, kind.group).into())
    }

    fn insert(&mut self, kind: Arc<Kind>, object: Object, now: Timestamp) -> Touched {
        let meta: Meta = object.meta();
        let key = Key::new(object.namespace().unwrap_or(""), object.name());
        let uid = self.uid_of(&kind, &key, &object);
        let said = meta.annotations.get(annotation::UNREADABLE).cloned();
        let meta = Arc::new(self.shared.metadata(&key, &uid, meta));
        let indexers = &mut self.reads.indexers;
        let (swaps, unreadable) = if object.uid().is_empty() {
            let why = said.unwrap_or_else(|| "it has no uid".to_owned());
            (indexers.remove_object(&kind, &key, &uid), Some(why))
        } else {
            let (swaps, refused) = indexers.insert_object(&kind, &meta, &object);
            (swaps, refused.map(|error| error_chain(&error)))
        };
        if unreadable.is_some() {
            self.unreadable.insert(Arc::clone(&uid), object.clone());
        } else {
            self.unreadable.remove(&uid);
        }
        let old = self.replace_object(PartialObject {
            kind: Arc::clone(&kind),
            meta,
            unreadable: unreadable.map(Arc::from),
        });
        self.touch(kind, key, uid, object, swaps, old, now)
    }

    fn remove(&mut self, kind: Arc<Kind>, object: Object, now: Timestamp) -> Option<Touched> {
        let named = Key::new(object.namespace().unwrap_or(""), object.name());
        let uid = self.uid_of(&kind, &named, &object);
        let old = self.objects.remove(&uid)?;
        let key = old.key().clone();
        self.unreadable.remove(&uid);
        let of_kind = AnyVersion(Arc::clone(&kind));
        if let Some(uids) = self.uids.get_mut(&of_kind)
            && uids.get(&key) == Some(&uid)
        {
            uids.remove(&key);
            if uids.is_empty() {
                self.uids.remove(&of_kind);
            }
        }
        for owner in old.meta.owner_references.iter() {
            forget_uid(&mut self.dependents, owner.uid.as_str(), &uid);
        }
        forget_uid(&mut self.contents, &*key.namespace, &uid);
        let swaps = self.reads.indexers.remove_object(&kind, &key, &uid);
        Some(self.touch(kind, key, uid, object, swaps, Some(old), now))
    }

    /// Puts the object in its place and its indexes; returns what was there.
    fn replace_object(&mut self, object: PartialObject) -> Option<PartialObject> {
        let meta = Arc::clone(&object.meta);
        let uid = &meta.uid;
        let of_kind = AnyVersion(Arc::clone(&object.kind));
        let uids = self.uids.entry(of_kind).or_default();
        uids.insert(meta.key.clone(), Arc::clone(uid));
        for owner in meta.owner_references.iter() {
            if !self.dependents.contains_key(&owner.uid) {
                let owner = owner.uid.clone();
                self.dependents.insert(owner, BTreeSet::new());
            }
            let uids = self.dependents.get_mut(&owner.uid);
            uids.map(|uids| uids.insert(Arc::clone(uid)));
        }
        if !meta.key.namespace.is_empty() {
            let namespace = Arc::clone(&meta.key.namespace);
            let uids = self.contents.entry(namespace).or_default();
            uids.insert(Arc::clone(uid));
        }
        let old = self.objects.insert(Arc::clone(uid), object)?;
        for owner in old.meta.owner_references.iter() {
            if meta.owner_references.iter().all(|o| o.uid != owner.uid) {
                forget_uid(&mut self.dependents, owner.uid.as_str(), uid);
            }
        }
        Some(old)
    }

    #[allow(clippy::too_many_arguments)] // The parts of one value, put together in one place.
    fn touch(
        &mut self,
        kind: Arc<Kind>,
        key: Key,
        uid: Arc<str>,
        object: Object,
        swaps: Vec<Swap>,
        old: Option<PartialObject>,
        now: Timestamp,
    ) -> Touched {
        let new = self.objects.get(&uid);
        let owners = |object: &PartialObject| {
            let owners: Vec<String> = object
                .meta
                .owner_references
                .iter()
                .map(|owner| owner.uid.clone())
                .collect();
            owners
        };
        let same = |old: &Metadata, new: &Metadata| old.has_ownership_of(new);
        let touched = Touched {
            kind,
            key,
            owners: old.iter().chain(new).flat_map(owners).collect(),
            ownership_changed: match (&old, new) {
                (Some(old), Some(new)) => !same(&old.meta, &new.meta),
                (None, None) => false,
                _ => true,
            },
            was_there: old.is_some(),
            is_there: new.is_some(),
            unreadable: new.is_some_and(|object| object.unreadable.is_some()),
            uid,
            object,
            swaps,
        };
        for track in self.reads.tracks.values_mut() {
            track.notice(&touched, self.synced, now);
        }
        touched
    }

    /// What a lens that was declared shows.
    ///
    /// # Panics
    /// For one that was not, which is a bug of whoever asks.
    pub fn indexer<K: Lens>(&self) -> &Indexer<K> {
        self.reads.indexers.of()
    }

    pub fn get<K: Lens>(&self, key: &Key) -> Option<&Arc<Cached<K>>> {
        self.indexer::<K>().get(key)
    }

    pub fn list<K: Lens>(&self) -> impl Iterator<Item = &Arc<Cached<K>>> {
        self.indexer::<K>().iter()
    }

    pub fn list_in<'a, K: Lens>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Cached<K>>> + use<'a, K> {
        self.indexer::<K>().in_namespace(namespace)
    }

    /// What the index finds by `value`, in order of namespace and name.
    pub fn list_by<'a, K: Lens>(
        &'a self,
        index: &Index<K>,
        value: &str,
    ) -> impl Iterator<Item = &'a Arc<Cached<K>>> + use<'a, K> {
        self.indexer::<K>().by(index, value)
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

    /// The object with this uid, readable or not.
    pub fn object(&self, uid: &str) -> Option<&PartialObject> {
        self.objects.get(uid)
    }

    /// The object of this kind and name, readable or not.
    pub fn object_of(&self, kind: &Arc<Kind>, key: &Key) -> Option<&PartialObject> {
        let uids = self.uids.get(&AnyVersion(Arc::clone(kind)))?;
        self.objects.get(uids.get(key)?)
    }

    /// Objects that are there but that no lens can read, because they lack the shape of their kind.
    pub fn unreadable(&self) -> impl Iterator<Item = (&PartialObject, &Object)> {
        let all = self.unreadable.iter();
        all.filter_map(|(uid, object)| Some((self.objects.get(uid)?, object)))
    }

    /// Unreadable objects of a kind whose controller has this uid. They exist, whatever is in them.
    pub fn unreadable_of<'a>(
        &'a self,
        kind: &'a Kind,
        controller: &'a str,
    ) -> impl Iterator<Item = &'a PartialObject> {
        // Nearly always none at all, so this comes before the dependents.
        let some = !self.unreadable.is_empty();
        let dependents = some.then(|| self.dependents(controller));
        dependents.into_iter().flatten().filter(move |object| {
            let owner = object.meta.controller();
            object.unreadable.is_some()
                && *object.kind == *kind
                && owner.is_some_and(|owner| owner.uid == controller)
        })
    }

    /// Uids of every object, in order.
    pub fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.objects.keys()
    }

    /// Objects that name `uid` as an owner.
    pub fn dependents<'a>(
        &'a self,
        uid: &str,
    ) -> impl Iterator<Item = &'a PartialObject> + use<'a> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid))
    }

    /// Everything in a namespace.
    pub fn contents<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a PartialObject> + use<'a> {
        let uids = self.contents.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid))
    }
}

fn forget_uid<T, Q>(index: &mut UidsBy<T>, from: &Q, uid: &str)
where
    T: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    if let Some(uids) = index.get_mut(from) {
        uids.remove(uid);
        if uids.is_empty() {
            index.remove(from);
        }
    }
}

/// An error with its cause, in one line: the lens says where it stumbled only there.
fn error_chain(error: &ObjectError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
