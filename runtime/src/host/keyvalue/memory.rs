//! A store in this process's memory: for embedding hosts that need no more, and for tests. Gone with the process.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    Entry, KeyValueError, KeyValueStore, Operation, PAGE_KEYS_MAX, Page, Swap, incremented,
};

/// A store in memory, of a bounded size.
///
/// It forgets with the process; each write is at once seen by all who read. Its keys are listed in their order.
pub struct MemoryStore {
    bytes_max: usize,
    keys_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    entries: BTreeMap<String, Entry>,
    /// Of keys and values.
    bytes: usize,
    revision: u64,
}

impl MemoryStore {
    /// An empty store for up to `keys_max` keys, which have up to `bytes_max` bytes together with their values.
    pub fn new(bytes_max: usize, keys_max: usize) -> MemoryStore {
        MemoryStore {
            bytes_max,
            keys_max,
            held: Mutex::default(),
        }
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.held.lock().bytes
    }

    pub fn keys(&self) -> usize {
        self.held.lock().entries.len()
    }

    /// Sets all of `entries` if there is room for what comes of that.
    fn put(&self, held: &mut Held, entries: &[(&str, Bytes)]) -> Result<(), KeyValueError> {
        // Of the same key the last entry counts.
        let new: BTreeMap<&str, &Bytes> =
            entries.iter().map(|(key, value)| (*key, value)).collect();
        let (mut keys, mut bytes) = (held.entries.len(), held.bytes);
        for (key, value) in &new {
            match held.entries.get(*key) {
                Some(entry) => bytes -= entry.value.len(),
                None => {
                    keys += 1;
                    bytes += key.len();
                }
            }
            bytes += value.len();
        }
        // What makes it smaller is always possible.
        if keys > self.keys_max && keys > held.entries.len() {
            let reason = format!("it has {} keys, the most that it may have", self.keys_max);
            return Err(KeyValueError::QuotaExceeded { reason });
        }
        if bytes > self.bytes_max && bytes > held.bytes {
            let reason = format!(
                "it would have {bytes} bytes, and may have {}",
                self.bytes_max
            );
            return Err(KeyValueError::QuotaExceeded { reason });
        }
        held.revision += 1;
        held.bytes = bytes;
        let revision = held.revision;
        for (key, value) in new {
            // Not a part of something larger, which would stay with it.
            let value = Bytes::copy_from_slice(value);
            held.entries
                .insert(key.to_owned(), Entry { value, revision });
        }
        Ok(())
    }

    fn remove(held: &mut Held, key: &str) {
        if let Some(entry) = held.entries.remove(key) {
            held.revision += 1;
            held.bytes -= key.len() + entry.value.len();
        }
    }
}

/// All is done by the time that the operation is made.
fn done<T: Send + 'static>(result: Result<T, KeyValueError>) -> Operation<'static, T> {
    Box::pin(std::future::ready(result))
}

impl KeyValueStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> Operation<'a, Option<Entry>> {
        done(Ok(self.held.lock().entries.get(key).cloned()))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, Vec<Option<Entry>>> {
        let held = self.held.lock();
        // They share the store's memory: what is too much together costs nothing yet.
        done(Ok(keys
            .iter()
            .map(|key| held.entries.get(key).cloned())
            .collect()))
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Operation<'a, ()> {
        done(self.put(&mut self.held.lock(), &[(key, value)]))
    }

    fn set_many(&self, entries: Vec<(String, Bytes)>) -> Operation<'_, ()> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        done(self.put(&mut self.held.lock(), &entries))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Operation<'a, ()> {
        MemoryStore::remove(&mut self.held.lock(), key);
        done(Ok(()))
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, ()> {
        let mut held = self.held.lock();
        for key in keys {
            MemoryStore::remove(&mut held, key);
        }
        done(Ok(()))
    }

    fn exists<'a>(&'a self, key: &'a str) -> Operation<'a, bool> {
        done(Ok(self.held.lock().entries.contains_key(key)))
    }

    fn list_keys<'a>(&'a self, cursor: Option<&'a str>) -> Operation<'a, Page> {
        let held = self.held.lock();
        let after = cursor.map_or(Unbounded, Excluded);
        let mut rest = held.entries.range::<str, _>((after, Unbounded));
        let keys: Vec<String> = rest
            .by_ref()
            .take(PAGE_KEYS_MAX)
            .map(|(key, _)| key.clone())
            .collect();
        let cursor = rest.next().and_then(|_| keys.last().cloned());
        done(Ok(Page { keys, cursor }))
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i64) -> Operation<'a, i64> {
        let mut held = self.held.lock();
        let value = held.entries.get(key).map(|entry| entry.value.as_ref());
        done(incremented(value, delta).and_then(|number| {
            self.put(&mut held, &[(key, number.to_string().into())])?;
            Ok(number)
        }))
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
        value: Bytes,
    ) -> Operation<'a, Swap> {
        let mut held = self.held.lock();
        let entry = held.entries.get(key);
        if entry.map_or(0, |entry| entry.revision) != revision {
            return done(Ok(Swap::Changed(entry.cloned())));
        }
        let put = self.put(&mut held, &[(key, value)]);
        done(put.map(|()| Swap::Done {
            revision: held.revision,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test]
    async fn a_store_holds_what_its_quota_lets_it_hold_and_all_of_a_batch_or_none() {
        let store = MemoryStore::new(10, 2);
        let refused = |result: Result<(), KeyValueError>| result.unwrap_err().to_string();
        assert_eq!(store.set("a", text("12345678")).await, Ok(()));
        assert_eq!(store.bytes(), 9);
        assert_eq!(
            refused(store.set("b", text("1")).await),
            "the store is full: it would have 11 bytes, and may have 10"
        );
        let both = vec![("a".into(), text("")), ("b".into(), text("1234567890"))];
        assert!(store.set_many(both).await.is_err());
        let entry = store.get("a").await.unwrap().unwrap();
        assert_eq!((entry.value, store.bytes()), (text("12345678"), 9));
        let three = ["a", "b", "c"].map(|key| (key.to_owned(), text("")));
        assert_eq!(
            refused(store.set_many(three.into()).await),
            "the store is full: it has 2 keys, the most that it may have"
        );
        // The last of two with the same name stays, and is counted once.
        let twice = ["12345678", "1"].map(|value| ("a".to_owned(), text(value)));
        assert_eq!(store.set_many(twice.into()).await, Ok(()));
        assert_eq!((store.bytes(), store.keys()), (2, 1));
        assert_eq!(store.delete_many(&["a".into(), "x".into()]).await, Ok(()));
        assert_eq!((store.bytes(), store.keys()), (0, 0));
    }

    #[tokio::test]
    async fn a_value_is_swapped_only_for_the_one_that_was_seen() {
        let store = MemoryStore::new(100, 10);
        let new = store.compare_and_set("k", 0, text("a")).await.unwrap();
        let Swap::Done { revision } = new else {
            panic!("there was none: {new:?}")
        };
        let again = store.compare_and_set("k", 0, text("b")).await.unwrap();
        let a = Entry {
            value: text("a"),
            revision,
        };
        assert_eq!(again, Swap::Changed(Some(a)));
        // A value like the one before is another one.
        store.delete("k").await.unwrap();
        store.set("k", text("a")).await.unwrap();
        let stale = store.compare_and_set("k", revision, text("b")).await;
        assert!(matches!(stale.unwrap(), Swap::Changed(Some(entry)) if entry.revision > revision));
        store.delete("k").await.unwrap();
        let gone = store.compare_and_set("k", revision, text("b")).await;
        assert_eq!(gone.unwrap(), Swap::Changed(None));
    }

    #[tokio::test]
    async fn keys_are_listed_in_pages() {
        let store = MemoryStore::new(1 << 20, 10_000);
        for number in 0..2_500 {
            let key = format!("{number:05}");
            store.set(&key, Bytes::new()).await.unwrap();
        }
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.list_keys(cursor.as_deref()).await.unwrap();
            assert!(page.keys.len() <= PAGE_KEYS_MAX);
            seen.extend(page.keys);
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
            // What comes and goes meanwhile does not disturb the rest.
            store.delete("00000").await.unwrap();
        }
        assert_eq!(seen.len(), 2_500);
        assert!(seen.is_sorted());
    }

    #[test]
    fn only_numbers_are_incremented_and_only_within_their_range() {
        let max = i64::MAX.to_string();
        for (value, delta, expected) in [
            (None, -3, Ok(-3)),
            (Some("41"), 1, Ok(42)),
            (Some("-1"), 1, Ok(0)),
            (Some(""), 1, Err("the value is not a decimal number")),
            (Some(" 1"), 1, Err("the value is not a decimal number")),
            (Some("1.5"), 1, Err("the value is not a decimal number")),
            (
                Some(max.as_str()),
                1,
                Err("the number would leave the range of 64 bits"),
            ),
            (
                Some("9223372036854775808"),
                -1,
                Err("the value is not a decimal number"),
            ),
        ] {
            let sum = incremented(value.map(str::as_bytes), delta);
            let sum = sum.map_err(|error| error.to_string());
            assert_eq!(sum, expected.map_err(str::to_owned), "{value:?} + {delta}");
        }
    }
}
