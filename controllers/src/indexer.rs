//! Indexers of typed objects: one for each lens on a kind, with the indexes that its readers declare.
//!
//! What client-go calls lister and indexer. A controller says what it reads ([`Controller::reads`](crate::Controller::reads));
//! [`Indexers`] holds just that, once for all who read the same. Nothing here knows a kind by name: a new one is a type that
//! implements [`Lens`], wherever it is used.
//!
//! Invariants: the objects and their indexes always agree; there is a [`Cached`] for every object of a kind that the lens
//! wants and can read, and none for others.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use weft_api::object::{Object, ObjectError};
use weft_kinds::{AnyVersion, Kind};

use crate::metadata::{Key, Metadata};
use crate::write::Reference;

/// A lens: what is kept of the objects of one kind, so that reconcilers need not read JSON.
pub trait Lens: Any + fmt::Debug + Send + Sync + Sized {
    /// The kind that it reads, in whichever version its objects are told of.
    fn kind() -> &'static Arc<Kind>;

    /// Keep the lossless object beside what was read, for those who copy parts of it.
    const WHOLE: bool = false;

    /// Whether the object of this name gets a row at all.
    fn wants(_: &Key) -> bool {
        true
    }

    /// # Errors
    /// [`ObjectError::View`] for an object that does not have the shape of its kind.
    fn read(object: &Object) -> Result<Self, ObjectError>;

    /// Gives up what is equal in `like`, which is kept anyway, for a share in that.
    fn share(&mut self, _like: &Self) {}
}

/// One object as a lens shows it.
#[derive(Debug)]
pub struct Cached<K> {
    pub key: Key,
    pub meta: Arc<Metadata>,
    pub body: K,
    /// There where [`Lens::WHOLE`] says so.
    pub object: Option<Object>,
}

impl<K: Lens> Cached<K> {
    /// For events about this object.
    pub fn reference(&self) -> Reference {
        Reference {
            kind: Arc::clone(K::kind()),
            key: self.key.clone(),
            uid: Arc::clone(&self.meta.uid),
        }
    }
}

/// A way to find rows. A static, so that who declares it and who asks by it name the same.
pub struct Index<K> {
    /// Unique among the indexes of a lens.
    pub name: &'static str,
    /// What a row is found by. Must be a function of the row alone.
    pub of: fn(&Cached<K>) -> String,
}

/// Rows of one kind through one lens, in order of namespace and name.
#[derive(Debug)]
pub struct Indexer<K> {
    rows: BTreeMap<Key, Arc<Cached<K>>>,
    indexes: Vec<Indexed<K>>,
    /// The one that came last: the next is often like it.
    last: Option<Arc<Cached<K>>>,
}

#[derive(Debug)]
struct Indexed<K> {
    name: &'static str,
    of: fn(&Cached<K>) -> String,
    keys: BTreeMap<String, BTreeSet<Key>>,
}

impl<K: Lens> Default for Indexer<K> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            indexes: Vec::new(),
            last: None,
        }
    }
}

impl<K: Lens> Indexer<K> {
    pub fn get(&self, key: &Key) -> Option<&Arc<Cached<K>>> {
        self.rows.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cached<K>>> {
        self.rows.values()
    }

    pub fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Cached<K>>> + use<'a, K> {
        self.rows
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| *key.namespace == *namespace)
            .map(|(_, row)| row)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that the index finds by `value`, in order of namespace and name.
    pub fn by<'a>(
        &'a self,
        index: &Index<K>,
        value: &str,
    ) -> impl Iterator<Item = &'a Arc<Cached<K>>> + use<'a, K> {
        let keys = self.indexed(index).keys.get(value).into_iter().flatten();
        keys.filter_map(|key| self.rows.get(key))
    }

    /// What rows are found by.
    pub fn values<'a>(&'a self, index: &Index<K>) -> impl Iterator<Item = &'a str> + use<'a, K> {
        self.indexed(index).keys.keys().map(String::as_str)
    }

    fn indexed(&self, index: &Index<K>) -> &Indexed<K> {
        let mut all = self.indexes.iter();
        let found = all.find(|indexed| indexed.name == index.name);
        found.unwrap_or_else(|| {
            panic!(
                "a reader of {} did not declare the index {:?}",
                K::kind().resource,
                index.name
            )
        })
    }

    fn declare_index(&mut self, index: &Index<K>) {
        if self.indexes.iter().any(|known| known.name == index.name) {
            return;
        }
        assert!(
            self.rows.is_empty(),
            "indexes are declared before rows come"
        );
        self.indexes.push(Indexed {
            name: index.name,
            of: index.of,
            keys: BTreeMap::new(),
        });
    }

    fn insert(&mut self, row: Arc<Cached<K>>) -> Option<Arc<Cached<K>>> {
        let before = self.rows.insert(row.key.clone(), Arc::clone(&row));
        for index in &mut self.indexes {
            let new = (index.of)(&row);
            if let Some(before) = &before {
                let old = (index.of)(before);
                if old == new {
                    continue;
                }
                index.forget(&old, &before.key);
            }
            index.keys.entry(new).or_default().insert(row.key.clone());
        }
        before
    }

    /// Removes the row unless a namesake with another uid has taken its place.
    fn remove(&mut self, key: &Key, uid: &str) -> Option<Arc<Cached<K>>> {
        if *self.rows.get(key)?.meta.uid != *uid {
            return None;
        }
        let row = self.rows.remove(key)?;
        for index in &mut self.indexes {
            index.forget(&(index.of)(&row), key);
        }
        Some(row)
    }
}

impl<K> Indexed<K> {
    fn forget(&mut self, value: &str, key: &Key) {
        if let Some(keys) = self.keys.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(value);
            }
        }
    }
}

/// A row of whichever kind.
type AnyRow = Arc<dyn Any + Send + Sync>;

/// What a change did to the row of one lens.
#[derive(Debug, Clone)]
pub(crate) struct Swap {
    lens: TypeId,
    before: Option<AnyRow>,
    after: Option<AnyRow>,
}

impl Swap {
    pub fn before<K: Lens>(&self) -> Option<&Cached<K>> {
        self.before.as_deref()?.downcast_ref()
    }

    pub fn after<K: Lens>(&self) -> Option<&Cached<K>> {
        self.after.as_deref()?.downcast_ref()
    }

    pub fn is_of<K: Lens>(&self) -> bool {
        self.lens == TypeId::of::<K>()
    }
}

/// An indexer, whatever its lens.
trait AnyIndexer: Any + fmt::Debug + Send + Sync {
    /// Reads an object. What was there before stays where that fails.
    fn insert_object(&mut self, meta: &Arc<Metadata>, object: &Object)
    -> Result<Swap, ObjectError>;
    fn remove_object(&mut self, key: &Key, uid: &str) -> Swap;
}

impl<K: Lens> AnyIndexer for Indexer<K> {
    fn insert_object(
        &mut self,
        meta: &Arc<Metadata>,
        object: &Object,
    ) -> Result<Swap, ObjectError> {
        let mut swap = Swap {
            lens: TypeId::of::<K>(),
            before: None,
            after: None,
        };
        if K::wants(&meta.key) {
            let mut body = K::read(object)?;
            if let Some(like) = self.rows.get(&meta.key).or(self.last.as_ref()) {
                body.share(&like.body);
            }
            let row = Arc::new(Cached {
                key: meta.key.clone(),
                meta: Arc::clone(meta),
                body,
                object: K::WHOLE.then(|| object.clone()),
            });
            self.last = Some(Arc::clone(&row));
            swap.before = self.insert(Arc::clone(&row)).map(|row| row as AnyRow);
            swap.after = Some(row);
        }
        Ok(swap)
    }

    fn remove_object(&mut self, key: &Key, uid: &str) -> Swap {
        Swap {
            lens: TypeId::of::<K>(),
            before: self.remove(key, uid).map(|row| row as AnyRow),
            after: None,
        }
    }
}

/// All the indexers that were declared.
#[derive(Debug, Default)]
pub struct Indexers {
    indexers: BTreeMap<TypeId, Box<dyn AnyIndexer>>,
    lenses: BTreeMap<AnyVersion, Vec<TypeId>>,
}

impl Indexers {
    /// Declares that objects of this kind are read through this lens.
    pub fn kind<K: Lens>(&mut self) -> &mut Self {
        let lens = TypeId::of::<K>();
        let known = self.indexers.contains_key(&lens);
        if !known {
            self.indexers
                .insert(lens, Box::new(Indexer::<K>::default()));
            let lenses = self.lenses.entry(AnyVersion(Arc::clone(K::kind())));
            lenses.or_default().push(lens);
        }
        self
    }

    /// Declares the lens, and that its rows are found by this index.
    pub fn index<K: Lens>(&mut self, index: &Index<K>) -> &mut Self {
        self.kind::<K>();
        let indexer = self.indexers.get_mut(&TypeId::of::<K>());
        if let Some(indexer) = indexer.and_then(|indexer| {
            let indexer: &mut dyn Any = &mut **indexer;
            indexer.downcast_mut::<Indexer<K>>()
        }) {
            indexer.declare_index(index);
        }
        self
    }

    pub(crate) fn of<K: Lens>(&self) -> &Indexer<K> {
        let indexer = self.indexers.get(&TypeId::of::<K>());
        let indexer = indexer.and_then(|indexer| {
            let indexer: &dyn Any = &**indexer;
            indexer.downcast_ref()
        });
        indexer.unwrap_or_else(|| {
            panic!(
                "a reader of {} did not declare it",
                std::any::type_name::<K>()
            )
        })
    }

    /// Takes an object into every indexer of its kind. A lens that cannot read it has no row for it, and says why.
    pub(crate) fn insert_object(
        &mut self,
        kind: &Arc<Kind>,
        meta: &Arc<Metadata>,
        object: &Object,
    ) -> (Vec<Swap>, Option<ObjectError>) {
        let mut swaps = Vec::new();
        let mut refused = None;
        let kind = AnyVersion(Arc::clone(kind));
        for lens in self.lenses.get(&kind).into_iter().flatten() {
            let Some(indexer) = self.indexers.get_mut(lens) else {
                continue;
            };
            match indexer.insert_object(meta, object) {
                Ok(swap) => swaps.push(swap),
                Err(error) => {
                    swaps.push(indexer.remove_object(&meta.key, &meta.uid));
                    refused = Some(error);
                }
            }
        }
        (swaps, refused)
    }

    /// Removes an object from every indexer of its kind.
    pub(crate) fn remove_object(&mut self, kind: &Arc<Kind>, key: &Key, uid: &str) -> Vec<Swap> {
        let mut swaps = Vec::new();
        let kind = AnyVersion(Arc::clone(kind));
        for lens in self.lenses.get(&kind).into_iter().flatten() {
            let indexer = self.indexers.get_mut(lens);
            swaps.extend(indexer.map(|indexer| indexer.remove_object(key, uid)));
        }
        swaps
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metadata::SharedMetadata;

    #[derive(Debug)]
    struct Colour(String);

    impl Lens for Colour {
        fn kind() -> &'static Arc<Kind> {
            &weft_kinds::POD
        }

        fn wants(key: &Key) -> bool {
            &*key.name != "dull"
        }

        fn read(object: &Object) -> Result<Self, ObjectError> {
            #[derive(serde::Deserialize)]
            struct Shape {
                colour: String,
            }
            Ok(Self(object.view::<Shape>()?.colour))
        }
    }

    static BY_COLOUR: Index<Colour> = Index {
        name: "colour",
        of: |row| row.body.0.clone(),
    };

    fn insert(indexers: &mut Indexers, name: &str, colour: serde_json::Value) -> bool {
        let value =
            json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "colour": colour});
        let object = Object::from_value(value).unwrap();
        let mut shared = SharedMetadata::default();
        let meta = shared.metadata(&Key::new("d", name), &name.into(), object.meta());
        let (_, refused) = indexers.insert_object(&weft_kinds::POD, &Arc::new(meta), &object);
        refused.is_none()
    }

    #[test]
    fn rows_and_indexes_agree() {
        let mut indexers = Indexers::default();
        indexers
            .index(&BY_COLOUR)
            .index(&BY_COLOUR)
            .kind::<Colour>();
        for (name, colour) in [("a", "red"), ("b", "blue"), ("c", "red"), ("a", "blue")] {
            assert!(insert(&mut indexers, name, json!(colour)), "{name}");
        }
        let names = |indexers: &Indexers, colour: &str| -> Vec<String> {
            let rows = indexers.of::<Colour>().by(&BY_COLOUR, colour);
            rows.map(|row| row.key.name.to_string()).collect()
        };
        assert_eq!(names(&indexers, "red"), ["c"]);
        assert_eq!(names(&indexers, "blue"), ["a", "b"]);
        // Unwanted: no row, and no complaint about what is in it.
        assert!(insert(&mut indexers, "dull", json!(7)));
        // Unreadable: no row any more.
        assert!(!insert(&mut indexers, "a", json!(7)));
        assert_eq!(names(&indexers, "blue"), ["b"]);
        let swaps = indexers.remove_object(&weft_kinds::POD, &Key::new("d", "b"), "another");
        assert!(swaps[0].before::<Colour>().is_none(), "a namesake stays");
        let swaps = indexers.remove_object(&weft_kinds::POD, &Key::new("d", "b"), "b");
        let gone = swaps[0].before::<Colour>();
        assert_eq!(gone.map(|row| row.body.0.as_str()), Some("blue"));
        assert_eq!(names(&indexers, "blue"), Vec::<String>::new());
        let values: Vec<&str> = indexers.of::<Colour>().values(&BY_COLOUR).collect();
        assert_eq!(values, ["red"]);
    }
}
