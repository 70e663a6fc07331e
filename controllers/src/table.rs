//! Tables of typed rows: one for each lens on a kind, with the indexes that its readers declare.
//!
//! A controller says what it reads ([`Controller::reads`](crate::Controller::reads)); [`Tables`] holds just that, once for
//! all who read the same. Nothing here knows a kind by name: a new one is a type that implements [`Kind`], wherever it
//! is used.
//!
//! Invariants: a table and its indexes always agree; a table has a row for every object of its kind that its lens wants and
//! can read, and none for others.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use weft_api::meta::Meta;
use weft_api::object::{Object, ObjectError};

use crate::view::Key;
use crate::write::{Reference, Resource};

/// A lens: what is kept of the objects of one kind, so that reconcilers need not read JSON.
pub trait Kind: Any + fmt::Debug + Send + Sync + Sized {
    const RESOURCE: Resource;
    /// Keep the lossless object beside what was read, for those who copy parts of it.
    const WHOLE: bool = false;

    /// Whether the object of this name gets a row at all.
    fn wants(_: &Key) -> bool {
        true
    }

    /// # Errors
    /// [`ObjectError::View`] for an object that does not have the shape of its kind.
    fn read(object: &Object) -> Result<Self, ObjectError>;
}

/// One object as a lens shows it.
#[derive(Debug)]
pub struct Row<K> {
    pub key: Key,
    pub meta: Meta,
    pub body: K,
    /// There where [`Kind::WHOLE`] says so.
    pub object: Option<Object>,
}

impl<K: Kind> Row<K> {
    /// For events about this object.
    pub fn reference(&self) -> Reference {
        Reference {
            resource: K::RESOURCE,
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.meta.uid.clone(),
        }
    }
}

/// A way to find rows. A static, so that who declares it and who asks by it name the same.
pub struct Index<K> {
    /// Unique among the indexes of a lens.
    pub name: &'static str,
    /// What a row is found by. Must be a function of the row alone.
    pub of: fn(&Row<K>) -> String,
}

/// Rows of one kind through one lens, in order of namespace and name.
#[derive(Debug)]
pub struct Table<K> {
    rows: BTreeMap<Key, Arc<Row<K>>>,
    indexes: Vec<Indexed<K>>,
}

#[derive(Debug)]
struct Indexed<K> {
    name: &'static str,
    of: fn(&Row<K>) -> String,
    keys: BTreeMap<String, BTreeSet<Key>>,
}

impl<K: Kind> Default for Table<K> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            indexes: Vec::new(),
        }
    }
}

impl<K: Kind> Table<K> {
    pub fn get(&self, key: &Key) -> Option<&Arc<Row<K>>> {
        self.rows.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Row<K>>> {
        self.rows.values()
    }

    pub fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Row<K>>> + use<'a, K> {
        self.rows
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
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
    ) -> impl Iterator<Item = &'a Arc<Row<K>>> + use<'a, K> {
        let keys = self.indexed(index).keys.get(value).into_iter().flatten();
        keys.filter_map(|key| self.rows.get(key))
    }

    /// All rows in the order of an index.
    pub fn in_order<'a>(
        &'a self,
        index: &Index<K>,
    ) -> impl Iterator<Item = &'a Arc<Row<K>>> + use<'a, K> {
        let keys = self.indexed(index).keys.values().flatten();
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
                K::RESOURCE.resource,
                index.name
            )
        })
    }

    fn declare(&mut self, index: &Index<K>) {
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

    fn insert(&mut self, row: Arc<Row<K>>) -> Option<Arc<Row<K>>> {
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
    fn remove(&mut self, key: &Key, uid: &str) -> Option<Arc<Row<K>>> {
        if self.rows.get(key)?.meta.uid != uid {
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
    pub fn before<K: Kind>(&self) -> Option<&Row<K>> {
        self.before.as_deref()?.downcast_ref()
    }

    pub fn after<K: Kind>(&self) -> Option<&Row<K>> {
        self.after.as_deref()?.downcast_ref()
    }

    pub fn is_of<K: Kind>(&self) -> bool {
        self.lens == TypeId::of::<K>()
    }
}

/// A table, whatever its lens.
trait Rows: Any + fmt::Debug + Send + Sync {
    /// Reads an object. What was there before stays where that fails.
    fn put(&mut self, key: &Key, meta: &Meta, object: &Object) -> Result<Swap, ObjectError>;
    fn take(&mut self, key: &Key, uid: &str) -> Swap;
}

impl<K: Kind> Rows for Table<K> {
    fn put(&mut self, key: &Key, meta: &Meta, object: &Object) -> Result<Swap, ObjectError> {
        let mut swap = Swap {
            lens: TypeId::of::<K>(),
            before: None,
            after: None,
        };
        if K::wants(key) {
            let row = Arc::new(Row {
                key: key.clone(),
                meta: meta.clone(),
                body: K::read(object)?,
                object: K::WHOLE.then(|| object.clone()),
            });
            swap.before = self.insert(Arc::clone(&row)).map(|row| row as AnyRow);
            swap.after = Some(row);
        }
        Ok(swap)
    }

    fn take(&mut self, key: &Key, uid: &str) -> Swap {
        Swap {
            lens: TypeId::of::<K>(),
            before: self.remove(key, uid).map(|row| row as AnyRow),
            after: None,
        }
    }
}

/// All the tables that were declared.
#[derive(Debug, Default)]
pub struct Tables {
    tables: BTreeMap<TypeId, Box<dyn Rows>>,
    lenses: BTreeMap<Resource, Vec<TypeId>>,
}

impl Tables {
    /// Declares that objects of this kind are read through this lens.
    pub fn kind<K: Kind>(&mut self) -> &mut Self {
        let lens = TypeId::of::<K>();
        let known = self.tables.contains_key(&lens);
        if !known {
            self.tables.insert(lens, Box::new(Table::<K>::default()));
            self.lenses.entry(K::RESOURCE).or_default().push(lens);
        }
        self
    }

    /// Declares the lens, and that its rows are found by this index.
    pub fn index<K: Kind>(&mut self, index: &Index<K>) -> &mut Self {
        self.kind::<K>();
        let table = self.tables.get_mut(&TypeId::of::<K>());
        if let Some(table) = table.and_then(|table| {
            let table: &mut dyn Any = &mut **table;
            table.downcast_mut::<Table<K>>()
        }) {
            table.declare(index);
        }
        self
    }

    pub(crate) fn of<K: Kind>(&self) -> &Table<K> {
        let table = self.tables.get(&TypeId::of::<K>());
        let table = table.and_then(|table| {
            let table: &dyn Any = &**table;
            table.downcast_ref()
        });
        table.unwrap_or_else(|| {
            panic!(
                "a reader of {} did not declare it",
                std::any::type_name::<K>()
            )
        })
    }

    /// Takes an object into every table of its kind. A lens that cannot read it has no row for it, and says why.
    pub(crate) fn put(
        &mut self,
        resource: Resource,
        key: &Key,
        meta: &Meta,
        object: &Object,
    ) -> (Vec<Swap>, Option<ObjectError>) {
        let mut swaps = Vec::new();
        let mut refused = None;
        for lens in self.lenses.get(&resource).into_iter().flatten() {
            let Some(table) = self.tables.get_mut(lens) else {
                continue;
            };
            match table.put(key, meta, object) {
                Ok(swap) => swaps.push(swap),
                Err(error) => {
                    swaps.push(table.take(key, &meta.uid));
                    refused = Some(error);
                }
            }
        }
        (swaps, refused)
    }

    /// Removes an object's rows.
    pub(crate) fn take(&mut self, resource: Resource, key: &Key, uid: &str) -> Vec<Swap> {
        let mut swaps = Vec::new();
        for lens in self.lenses.get(&resource).into_iter().flatten() {
            swaps.extend(self.tables.get_mut(lens).map(|table| table.take(key, uid)));
        }
        swaps
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::write::PODS;

    #[derive(Debug)]
    struct Colour(String);

    impl Kind for Colour {
        const RESOURCE: Resource = PODS;

        fn wants(key: &Key) -> bool {
            key.name != "dull"
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

    fn put(tables: &mut Tables, name: &str, colour: serde_json::Value) -> bool {
        let value =
            json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "colour": colour});
        let object = Object::from_value(value).unwrap();
        let (_, refused) = tables.put(PODS, &Key::new("d", name), &object.meta(), &object);
        refused.is_none()
    }

    #[test]
    fn rows_and_indexes_agree() {
        let mut tables = Tables::default();
        tables.index(&BY_COLOUR).index(&BY_COLOUR).kind::<Colour>();
        for (name, colour) in [("a", "red"), ("b", "blue"), ("c", "red"), ("a", "blue")] {
            assert!(put(&mut tables, name, json!(colour)), "{name}");
        }
        let names = |tables: &Tables, colour: &str| -> Vec<String> {
            let rows = tables.of::<Colour>().by(&BY_COLOUR, colour);
            rows.map(|row| row.key.name.clone()).collect()
        };
        assert_eq!(names(&tables, "red"), ["c"]);
        assert_eq!(names(&tables, "blue"), ["a", "b"]);
        // Unwanted: no row, and no complaint about what is in it.
        assert!(put(&mut tables, "dull", json!(7)));
        // Unreadable: no row any more.
        assert!(!put(&mut tables, "a", json!(7)));
        assert_eq!(names(&tables, "blue"), ["b"]);
        let swaps = tables.take(PODS, &Key::new("d", "b"), "another");
        assert!(swaps[0].before::<Colour>().is_none(), "a namesake stays");
        let swaps = tables.take(PODS, &Key::new("d", "b"), "b");
        let gone = swaps[0].before::<Colour>();
        assert_eq!(gone.map(|row| row.body.0.as_str()), Some("blue"));
        assert_eq!(names(&tables, "blue"), Vec::<String>::new());
        let table = tables.of::<Colour>();
        let values: Vec<&str> = table.values(&BY_COLOUR).collect();
        assert_eq!(values, ["red"]);
        assert_eq!(table.in_order(&BY_COLOUR).count(), table.len());
    }
}
