//! Values that outlive instances, pods and nodes: buckets of the cluster's key-value stores, which a `CapabilityGrant` gives a workload.
//!
//! ```
//! # use weft_sdk as weft;
//! #[weft::http]
//! async fn handle(request: weft::Request) -> Result<weft::Response, weft::keyvalue::Error> {
//!     let bucket = weft::keyvalue::open("default")?;
//!     let calls = bucket.increment("calls", 1)?;
//!     // Whatever others do meanwhile, none of the lines is lost.
//!     let log = bucket.update("log", |log| {
//!         let mut log = log.unwrap_or_default();
//!         log.extend_from_slice(request.uri().path().as_bytes());
//!         log.push(b'\n');
//!         log
//!     })?;
//!     Ok(weft::Response::new(format!("{calls} calls, {} bytes of log", log.len()).into()))
//! }
//! # let ask = || weft::block_on(async {
//! #     handle(weft::Request::new(weft::Body::empty())).await.unwrap().into_body().text().await.unwrap()
//! # });
//! # assert_eq!((ask(), ask()), ("1 calls, 2 bytes of log".into(), "2 calls, 4 bytes of log".into()));
//! ```
//!
//! A read sees every write that has ended before it began, wherever that was made. A key has 1 to 512 bytes, a value up to 512 KiB, a
//! batch up to 1000 keys and 1 MiB of values; what is beyond, and what the store has no room for, is an error and changes nothing. After
//! any other error a write may or may not have happened.
//!
//! While an operation is under way this instance does nothing else: many keys are cheaper in one batch than one by one.
//!
//! A component that opens a bucket imports `wasi:keyvalue`, and is not started without a grant of it. Natively, as under `cargo test`,
//! every name opens a bucket in memory, which is empty at first; each test has its own, since each has a thread of its own.

use std::collections::VecDeque;
use std::fmt;

use crate::host;

/// How often [`Bucket::update`] tries again when others are faster.
const UPDATE_TRIES_MAX: u32 = 32;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The workload has no bucket of that name.
    NoSuchStore,
    /// The workload may not do this to the bucket, such as write to one that it was granted for reading.
    AccessDenied,
    /// Others change the value all the time. Nothing was changed.
    Contended,
    /// Anything else, in the host's words: a bound was met, the store is full, or it could not be reached.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("there is no such key-value store"),
            Self::AccessDenied => f.write_str("access to the key-value store is denied"),
            Self::Contended => f.write_str("others change the value all the time"),
            Self::Other(reason) => write!(f, "the key-value store failed: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// Keys with their values.
pub struct Bucket(host::Bucket);

/// Opens the bucket that the workload's grant calls so; `default` is usual.
///
/// # Errors
/// [`Error::NoSuchStore`].
pub fn open(identifier: &str) -> Result<Bucket, Error> {
    host::Bucket::open(identifier).map(Bucket)
}

impl Bucket {
    /// The value of `key`, if it has one.
    ///
    /// # Errors
    /// See the module.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key)
    }

    /// Gives `key` a value, whatever it had before.
    ///
    /// # Errors
    /// See the module.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.set(key, value.as_ref())
    }

    /// Takes `key` out, if it is there.
    ///
    /// # Errors
    /// See the module.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// See the module.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key)
    }

    /// All keys, in no particular order, fetched page by page while they are looked at. What is written meanwhile may be among them.
    ///
    /// ```
    /// # use weft_sdk as weft;
    /// # let bucket = weft::keyvalue::open("default")?;
    /// # bucket.set("cart/7", "")?;
    /// let carts = bucket.keys().collect::<Result<Vec<_>, _>>()?;
    /// # assert_eq!(carts, ["cart/7"]);
    /// # Ok::<(), weft::keyvalue::Error>(())
    /// ```
    pub fn keys(&self) -> Keys<'_> {
        Keys {
            bucket: self,
            page: VecDeque::new(),
            next: Next::First,
        }
    }

    /// Adds `delta` to the number that `key` has in decimal text, 0 if it has none, and returns the sum.
    ///
    /// # Errors
    /// See the module; also when the value is no number, or the sum does not fit.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.0.increment(key, delta)
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// See the module.
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<String> = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        self.0.get_many(&keys)
    }

    /// Sets several keys, all of them or none.
    ///
    /// # Errors
    /// See the module.
    pub fn set_many<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: Into<String>,
        V: Into<Vec<u8>>,
    {
        let entries = entries.into_iter();
        let entries: Vec<_> = entries
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        self.0.set_many(&entries)
    }

    /// Takes several keys out.
    ///
    /// # Errors
    /// See the module.
    pub fn delete_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<(), Error> {
        let keys: Vec<String> = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        self.0.delete_many(&keys)
    }

    /// Makes a new value of the one that `key` has, and sets it if it is still that one; otherwise tries again with the newer. The
    /// result is what was set.
    ///
    /// # Errors
    /// See the module, and [`Error::Contended`] after 32 tries.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let mut seen = self.look(key)?;
        for _ in 0..UPDATE_TRIES_MAX {
            let value = change(seen.value()?);
            match seen.swap(&value)? {
                Ok(()) => return Ok(value),
                Err(newer) => seen = newer,
            }
        }
        Err(Error::Contended)
    }

    /// Looks at a value in order to replace just that one: [`Bucket::update`] by hand.
    ///
    /// # Errors
    /// See the module.
    pub fn look(&self, key: &str) -> Result<Seen, Error> {
        self.0.look(key).map(Seen)
    }
}

/// A value that was looked at ("compare and swap").
pub struct Seen(host::Seen);

impl Seen {
    /// What it was when it was looked at; none if the key had none.
    ///
    /// # Errors
    /// See the module.
    pub fn value(&self) -> Result<Option<Vec<u8>>, Error> {
        self.0.value()
    }

    /// Replaces it, if the key still has this very value; otherwise the inner error is what the key has by now.
    ///
    /// # Errors
    /// See the module.
    pub fn swap(self, value: impl AsRef<[u8]>) -> Result<Result<(), Seen>, Error> {
        Ok(self.0.swap(value.as_ref())?.map_err(Seen))
    }
}

/// See [`Bucket::keys`].
pub struct Keys<'a> {
    bucket: &'a Bucket,
    page: VecDeque<String>,
    next: Next,
}

enum Next {
    First,
    After(String),
    None,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::None) {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::None => return None,
            };
            match self.bucket.0.list(cursor) {
                Ok((keys, cursor)) => {
                    self.page = keys.into();
                    self.next = cursor.map_or(Next::None, Next::After);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_in_memory_is_like_one_of_the_cluster() {
        let bucket = open("default").unwrap();
        assert_eq!(bucket.get("a"), Ok(None));
        bucket.set("a", "1").unwrap();
        // The same name is the same bucket, another one another.
        assert_eq!(open("default").unwrap().get("a"), Ok(Some(b"1".to_vec())));
        assert_eq!(open("other").unwrap().exists("a"), Ok(false));
        assert_eq!(bucket.increment("a", 41), Ok(42));
        bucket.set_many([("b", "x"), ("c", "y")]).unwrap();
        let values = bucket.get_many(&["c", "missing"]).unwrap();
        assert_eq!(values, [Some(b"y".to_vec()), None]);
        bucket.delete_many(&["a", "missing"]).unwrap();
        let keys: Result<Vec<_>, _> = bucket.keys().collect();
        assert_eq!(keys.unwrap(), ["b", "c"]);
    }

    #[test]
    fn bounds_are_those_of_the_cluster() {
        let bucket = open("default").unwrap();
        for (result, reason) in [
            (bucket.set("", "x"), "the key is empty"),
            (
                bucket.set("k", vec![0; (512 << 10) + 1]),
                "the value has 524289 bytes, and 524288 is the most that one may have",
            ),
            (
                bucket.set(&"k".repeat(513), "x"),
                "the key has 513 bytes, and 512 is the most that one may have",
            ),
        ] {
            assert_eq!(result, Err(Error::Other(reason.to_owned())));
        }
        bucket.set("text", "x").unwrap();
        assert!(bucket.increment("text", 1).is_err());
        bucket.set("max", i64::MAX.to_string()).unwrap();
        assert!(bucket.increment("max", 1).is_err());
        assert_eq!(bucket.increment("max", -1), Ok(i64::MAX - 1));
    }

    #[test]
    fn a_value_is_replaced_only_while_it_is_the_one_that_was_seen() {
        let bucket = open("default").unwrap();
        let seen = bucket.look("k").unwrap();
        assert_eq!(seen.value(), Ok(None));
        bucket.set("k", "theirs").unwrap();
        let newer = seen.swap("mine").unwrap().expect_err("it has changed");
        assert_eq!(newer.value(), Ok(Some(b"theirs".to_vec())));
        assert!(newer.swap("mine").unwrap().is_ok());
        let mut tries = 0;
        let updated = bucket.update("k", |value| {
            tries += 1;
            if tries == 1 {
                bucket.set("k", "again theirs").unwrap();
            }
            [value.unwrap(), b"!".to_vec()].concat()
        });
        assert_eq!((updated, tries), (Ok(b"again theirs!".to_vec()), 2));
        let contended = bucket.update("k", |value| {
            bucket.set("k", "busy").unwrap();
            value.unwrap()
        });
        assert_eq!(contended, Err(Error::Contended));
    }
}
