//! One revision of an object, and what selectors look at in it.
//!
//! An [`Item`] is shared by everybody who meets this revision: lists, watches, the history. Its labels and selectable
//! fields are read out of the JSON once, without building the rest of it, and kept as one small buffer; the value itself
//! is compressed (and sealed) as in the store's entry, which an item of a cache holds as long as there is room ([`Values`]).
//!
//! Invariant: an item without its value is of a cache, is what that cache shows, and has its [`Facts`].

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;
use weft_store::{Entry, Key, Revision};

use super::values::{LetGo, Missed, Values};
use crate::encryption::Vault;
use crate::stored;
use weft_kinds::apiextensions::Custom;
use weft_kinds::walk::{Containers, Walk};
use weft_kinds::{Kind, KindRef};

const LABELS: &str = "/metadata/labels";

/// What [`Item::is_settled`] may be.
const UNKNOWN: u8 = 0;
const SETTLED: u8 = 1;
const UNSETTLED: u8 = 2;

/// What the items of one cache have in common.
pub(crate) struct Owner {
    pub values: Arc<Values>,
    pub kind: Arc<Kind>,
    pub vault: Vault,
}

/// An object at one revision.
pub(crate) struct Item {
    /// In a buffer of its own: that of an entry holds the value too.
    key: Key,
    revision: Revision,
    weight: usize,
    facts: OnceLock<Facts>,
    value: Mutex<Held>,
    /// Whether the value was asked for since its last turn.
    used: AtomicBool,
    /// Whether it lies in the store as it is shown, once that is known ([`Item::is_settled`]).
    settled: AtomicU8,
    owner: Option<Arc<Owner>>,
}

struct Held {
    entry: Option<Arc<Entry>>,
    /// Whether it is one of those that [`Values`] bounds.
    counted: bool,
}

impl Item {
    /// One that keeps its value for as long as it lives.
    pub(crate) fn new(entry: Arc<Entry>) -> Self {
        Self {
            key: entry.key.clone(),
            revision: entry.revision,
            weight: entry.bytes(),
            facts: OnceLock::new(),
            value: Mutex::new(Held {
                entry: Some(entry),
                counted: false,
            }),
            used: AtomicBool::new(false),
            settled: AtomicU8::new(UNKNOWN),
            owner: None,
        }
    }

    /// One that a cache shows: its value is kept as long as there is room.
    pub(crate) fn shown(owner: &Arc<Owner>, entry: &Arc<Entry>) -> Arc<Self> {
        let item = Arc::new(Self {
            key: Key::new(Bytes::copy_from_slice(entry.key.as_bytes())),
            revision: entry.revision,
            weight: entry.bytes(),
            facts: OnceLock::new(),
            value: Mutex::new(Held {
                entry: None,
                counted: false,
            }),
            used: AtomicBool::new(false),
            settled: AtomicU8::new(UNKNOWN),
            owner: Some(Arc::clone(owner)),
        });
        owner.values.keep(&item, entry);
        item
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What key and value count for where memory is bounded.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether the value of a user's kind is what its definition makes of it now, so that it can be shown as it lies in the store; none where nobody
    /// has looked yet, or for an item of another state of the definition. A cache ends with the definition that it was made for.
    pub(crate) fn is_settled(&self, custom: &Custom) -> Option<bool> {
        match self.settled.load(Ordering::Relaxed) {
            UNKNOWN => None,
            _ if !self.is_of(custom) => None,
            settled => Some(settled == SETTLED),
        }
    }

    /// Notes what [`Item::is_settled`] tells from now on.
    pub(crate) fn note_settled(&self, custom: &Custom, settled: bool) {
        if self.is_of(custom) {
            let settled = if settled { SETTLED } else { UNSETTLED };
            self.settled.store(settled, Ordering::Relaxed);
        }
    }

    fn is_of(&self, custom: &Custom) -> bool {
        let of = self.owner.as_ref();
        let of = of.and_then(|owner| owner.kind.custom.as_ref());
        of.is_some_and(|of| {
            let (of, custom) = (of.definition(), custom.definition());
            of.uid == custom.uid && of.generation == custom.generation
        })
    }

    /// The entry, if it is in memory here.
    fn held(&self) -> Option<Arc<Entry>> {
        self.value.lock().entry.clone()
    }

    /// Whether [`Item::entry`] may have to read the disk.
    pub(crate) fn is_away(&self) -> bool {
        self.value.lock().entry.is_none()
    }

    fn read(&self) -> Result<Arc<Entry>, Missed> {
        if let Some(entry) = self.held() {
            return Ok(entry);
        }
        let read = match &self.owner {
            Some(owner) => owner.values.read(&self.key, self.revision),
            None => Err(Missed),
        };
        // What replaced it may have come to its cache meanwhile.
        read.or_else(|missed| self.held().ok_or(missed))
    }

    /// The entry with the value. May read the disk.
    ///
    /// # Errors
    /// [`Missed`] for a value that was replaced a moment ago: it can be had as soon as the cache has heard of that.
    pub(crate) fn entry(self: &Arc<Self>) -> Result<Arc<Entry>, Missed> {
        if let Some(entry) = self.held() {
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Ok(entry);
        }
        let entry = self.read()?;
        if let Some(owner) = &self.owner {
            owner.values.keep(self, &entry);
        }
        Ok(entry)
    }

    /// It was replaced, or is gone: from now on it keeps its value, which nobody else has.
    /// Where it has let it go, `previous` finds it, which may read the disk.
    pub(crate) fn retire(&self, previous: impl FnOnce() -> Option<Arc<Entry>>) {
        if let Some(owner) = &self.owner {
            let own = self.value.lock().entry.clone().or_else(previous);
            owner.values.release(self, own);
        }
    }

    /// Takes a value in that is counted from now on; false where it has it already. For [`Values`] alone, as what follows.
    pub(super) fn count(&self, entry: &Arc<Entry>) -> bool {
        let mut value = self.value.lock();
        if value.entry.is_some() {
            return false;
        }
        value.entry = Some(Arc::clone(entry));
        value.counted = true;
        true
    }

    /// Counts no more; returns whether it did. `own` is its value, where it went before.
    pub(super) fn uncount(&self, own: Option<Arc<Entry>>) -> bool {
        let mut value = self.value.lock();
        if value.entry.is_none() {
            value.entry = own.filter(|entry| entry.revision == self.revision);
        }
        std::mem::take(&mut value.counted)
    }

    pub(super) fn is_counted(&self) -> bool {
        self.value.lock().counted
    }

    /// Lets go of the value, unless it is used. What selections look at is read before.
    pub(super) fn let_go(&self) -> LetGo {
        let entry = {
            let value = self.value.lock();
            if !value.counted {
                return LetGo::NotCounted;
            }
            value.entry.clone()
        };
        if self.used.swap(false, Ordering::Relaxed) {
            return LetGo::Used;
        }
        if let (Some(owner), Some(entry)) = (&self.owner, &entry) {
            // With nothing locked here: who reads the same facts now looks at the value, too.
            self.facts
                .get_or_init(|| Facts::of(&owner.kind, &owner.vault, entry));
        }
        let mut value = self.value.lock();
        value.entry = None;
        value.counted = false;
        LetGo::Gone
    }

    /// Whether anybody looked into the value.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.facts.get().is_some()
    }

    /// Labels and fields; read out of the value at the first call.
    pub(crate) fn facts(&self, kind: KindRef<'_>, vault: &Vault) -> &Facts {
        self.facts.get_or_init(|| match self.read() {
            Ok(entry) => Facts::of(kind, vault, &entry),
            // Values go when their facts are read, not before.
            Err(_) => Facts::read(kind, b""),
        })
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.values.release(self, None);
        }
    }
}

/// Labels and selectable fields of an object: `[u32 labels]`, then their keys and values, then the fields in the order of
/// [`Kind::looked_at`], each text behind its `u32` length.
pub(crate) struct Facts(Box<[u8]>);

impl Facts {
    fn of(kind: KindRef<'_>, vault: &Vault, entry: &Entry) -> Self {
        Self::read(kind, stored::json_of(&stored::layout(vault, kind, entry)))
    }

    fn read(kind: KindRef<'_>, json: &[u8]) -> Self {
        let selectable = kind.looked_at();
        let wanted: Vec<(usize, &str)> = std::iter::once(LABELS)
            .chain(selectable.iter().map(|selectable| &*selectable.pointer))
            .chain(selectable.iter().filter_map(|one| one.instead.as_deref()))
            .enumerate()
            .collect();
        let mut found = vec![None; wanted.len()];
        let pick = Pick {
            wanted: &wanted,
            found: &mut found,
        };
        // What cannot be read has no labels, and its fields are absent.
        let _ = pick.deserialize(&mut serde_json::Deserializer::from_slice(json));

        let mut out = Vec::new();
        let labels: Vec<(&str, &str)> = found[0]
            .as_ref()
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect();
        out.extend_from_slice(&length(labels.len()));
        for (key, value) in labels {
            push(&mut out, key);
            push(&mut out, value);
        }
        let (values, others) = found[1..].split_at(selectable.len());
        let mut others = others.iter();
        for (selectable, value) in selectable.iter().zip(values) {
            let other = selectable.instead.as_ref().and_then(|_| others.next());
            let is_empty = |value: &&Option<Value>| {
                value
                    .as_ref()
                    .is_none_or(|value| value.as_str() == Some(""))
            };
            match other.filter(|_| is_empty(&value)).unwrap_or(value) {
                Some(Value::String(text)) => push(&mut out, text),
                None | Some(Value::Null) => push(&mut out, &selectable.absent),
                Some(other) => push(&mut out, &other.to_string()),
            }
        }
        Self(out.into_boxed_slice())
    }

    /// Keys and values of the labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let (count, rest) = split_length(&self.0);
        let mut texts = Texts(rest);
        (0..count).filter_map(move |_| Some((texts.next()?, texts.next()?)))
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The field at this place of [`Kind::looked_at`].
    pub(crate) fn field(&self, index: usize) -> &str {
        let (count, rest) = split_length(&self.0);
        Texts(rest).nth(2 * count + index).unwrap_or("")
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn split_length(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first_chunk() {
        Some((length, rest)) => (u32::from_le_bytes(*length) as usize, rest),
        None => (0, &[]),
    }
}

struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (length, rest) = split_length(self.0);
        let (text, rest) = rest.split_at_checked(length)?;
        if self.0.is_empty() {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// Takes the values at some JSON pointers, and skips all else without building it.
struct Pick<'a> {
    /// Number of the pointer, and what is left of it here.
    wanted: &'a [(usize, &'a str)],
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.iter().any(|(_, rest)| rest.is_empty()) {
            let value: Value = serde::Deserialize::deserialize(deserializer)?;
            for (number, rest) in self.wanted {
                self.found[*number] = value.pointer(rest).cloned();
            }
            return Ok(());
        }
        Walk(self).deserialize(deserializer)
    }
}

impl<'de> Containers<'de> for Pick<'_> {
    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut inner: Vec<(usize, &str)> = Vec::new();
        while let Some(key) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            inner.clear();
            inner.extend(self.wanted.iter().filter_map(|(number, pointer)| {
                let rest = pointer.strip_prefix('/')?.strip_prefix(key.as_ref())?;
                (rest.is_empty() || rest.starts_with('/')).then_some((*number, rest))
            }));
            if inner.is_empty() {
                members.next_value::<IgnoredAny>()?;
            } else {
                members.next_value_seed(Pick {
                    wanted: &inner,
                    found: self.found,
                })?;
            }
        }
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        // No kind has a selectable field inside a list.
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use weft_kinds as kinds;

    #[test]
    fn facts_are_what_the_pointers_say() {
        for (value, labels, fields) in [
            (
                json!({
                    "metadata": {"name": "p", "labels": {"app": "web", "tier": "a/b", "odd": 7}},
                    "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "hostNetwork": true},
                    "status": {"phase": "Running", "podIP": null, "podIPs": [{"ip": "10.0.0.1"}]},
                }),
                "app=web tier=a/b",
                "n1 n1    true Running   ",
            ),
            (
                json!({"metadata": {"labels": null}, "spec": "no object"}),
                "",
                "     false    ",
            ),
            (
                json!({"spec": {"nodeName": {"a": [1]}}}),
                "",
                "{\"a\":[1]} {\"a\":[1]}    false    ",
            ),
            (json!([1, 2]), "", "     false    "),
        ] {
            let facts = Facts::read(&kinds::POD, value.to_string().as_bytes());
            let told: Vec<String> = facts.labels().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(told.join(" "), labels);
            let told: Vec<&str> = (0..kinds::POD.selectable.len())
                .map(|index| facts.field(index))
                .collect();
            assert_eq!(told.join(" "), fields, "{value}");
        }
        let facts = Facts::read(
            &kinds::POD,
            b"{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec",
        );
        assert_eq!((facts.label("a"), facts.label("b")), (Some("b"), None));
    }
}
