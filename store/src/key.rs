//! Keys, revisions and the entry a key leads to.
//!
//! Invariants: keys order by their bytes; a revision names exactly one mutation of the whole store.

use std::any::Any;
use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::value::Value;

/// Number of a mutation: the first is 1, each later one is one more.
pub type Revision = u64;

/// Number of a leadership.
pub type Term = u64;

/// Number of a server, given out once and never again.
pub type ServerId = u64;

/// An ordered byte string, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Longest key, in bytes: two Kubernetes names of 253 and a resource fit several times over.
    pub const BYTES_MAX: usize = 2048;

    /// Makes a key; a write refuses one longer than [`Key::BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Key(bytes.into())
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's bytes, shared.
    pub(crate) fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(Bytes::from(text))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Memory that an entry takes beside the bytes of its key and of its value: itself, the headers of its buffers, and what the
/// allocator rounds up.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 224;

/// A key's value at one revision. Immutable; shared by snapshots, watches and the checkpoint.
pub struct Entry {
    /// The key.
    pub key: Key,
    value: Value,
    /// Revision of the mutation that created the key.
    pub create_revision: Revision,
    /// Revision of the mutation that wrote this value (in a delete event: of the deletion).
    pub revision: Revision,
    lost: bool,
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    pub(crate) fn new(
        key: Key,
        value: Value,
        create_revision: Revision,
        revision: Revision,
    ) -> Self {
        Entry {
            key,
            value,
            create_revision,
            revision,
            lost: false,
            attachment: OnceLock::new(),
        }
    }

    /// One that is there, and whose value could not be read.
    pub(crate) fn of_lost_value(key: Key, create_revision: Revision, revision: Revision) -> Self {
        let value = Value::as_it_is(Bytes::new());
        Entry {
            lost: true,
            ..Entry::new(key, value, create_revision, revision)
        }
    }

    /// Whether the value could not be read from disk, and shows as empty. The store ends for it; until it has, such an entry must
    /// not be taken for what was written, nor for one that is not there.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// An entry with a buffer of its own. What its key and value came in, a message with a hundred others or a vector with
    /// room to grow, would live as long as they do.
    pub(crate) fn compact(
        key: &Key,
        value: &Value,
        create_revision: Revision,
        revision: Revision,
    ) -> Self {
        let key = key.as_bytes();
        let bytes = Bytes::from([key, value.held()].concat());
        let value = value.moved(bytes.slice(key.len()..));
        let key = Key(bytes.slice(..key.len()));
        Entry::new(key, value, create_revision, revision)
    }

    /// The value, opaque to the store. Where it is compressed it is unpacked anew each time: some tenths of a microsecond.
    pub fn value(&self) -> Bytes {
        self.value.plain()
    }

    /// The value as the store holds it.
    pub(crate) fn stored_value(&self) -> &Value {
        &self.value
    }

    /// The reader's own form of the value, computed once and shared by every list and watch that meets this entry.
    ///
    /// An entry holds one attachment. Where it already holds one of another type, `init` runs each time.
    pub fn attachment<T: Any + Send + Sync>(&self, init: impl FnOnce(&Entry) -> T) -> Arc<T> {
        let mut init = Some(init);
        let held = self.attachment.get_or_init(|| {
            let init = init.take().expect("the cell calls this once");
            Arc::new(init(self))
        });
        match Arc::clone(held).downcast::<T>() {
            Ok(attachment) => attachment,
            Err(_) => {
                let init = init
                    .take()
                    .expect("a cell of another type was filled by another call");
                Arc::new(init(self))
            }
        }
    }

    /// What its key and its value count for where memory is bounded. Does not read the value.
    pub fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.value.weight()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.value == other.value
            && self.create_revision == other.create_revision
            && self.revision == other.revision
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets: a length is all that reaches a log.
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("revision", &self.revision)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_entry_lets_go_of_what_it_came_in() {
        let message = Bytes::from(b"key, value and a hundred others".to_vec());
        let key = Key::new(message.slice(..3));
        let entry = Entry::compact(&key, &Value::as_it_is(message.slice(5..10)), 1, 2);
        drop(key);
        assert!(message.is_unique());
        assert_eq!(
            (entry.key.as_bytes(), &entry.value()[..]),
            (&b"key"[..], &b"value"[..])
        );
    }

    #[test]
    fn an_attachment_is_computed_once_per_entry() {
        let entry = Entry::new(Key::from("k"), Value::new("12"), 1, 1);
        let first = entry.attachment(|entry| entry.value().len());
        let second = entry.attachment(|_| -> usize { unreachable!("already computed") });
        assert_eq!((*first, *second), (2, 2));
        assert_eq!(*entry.attachment(|_| "another type"), "another type");
    }
}
