//! The host's side when there is none: guests built for the developer's machine, as `cargo test` does.
//!
//! Nothing can be reached but what the test answers itself, nobody calls, waiting is waiting; settings are what the test has set, and
//! buckets are in memory. Handlers stay testable with requests made by hand.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::http::{Error, ErrorKind};
use crate::keyvalue::Error as KeyValueError;
use crate::mesh::{Origin, Peer, Priority, Refusal};
use crate::{BodyError, Request, Response, config};

/// No body ever arrives here.
pub enum Incoming {}

impl Incoming {
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match *self {}
    }
}

/// No body ever leaves from here.
pub struct Outgoing(Infallible);

impl Outgoing {
    pub async fn write(&mut self, _bytes: &[u8]) -> Result<(), BodyError> {
        match self.0 {}
    }
}

type Answer = dyn Fn(Request) -> Result<Response, ErrorKind>;

pub async fn send(request: Request) -> Result<Response, Error> {
    // Out of the cell before it is called: it may send, or set another one.
    let answer = ANSWER.with_borrow(Option::clone);
    match answer {
        Some(answer) => answer(request).map_err(|kind| Error::new(kind, code(kind), None)),
        None => {
            let detail = "not inside weft: natively built code reaches no service";
            let kind = ErrorKind::Unavailable;
            Err(Error::new(kind, code(kind), Some(detail.into())))
        }
    }
}

pub fn respond_with(answer: impl Fn(Request) -> Result<Response, ErrorKind> + 'static) {
    ANSWER.set(Some(Rc::new(answer)));
}

/// The code that stands for its kind most often.
fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "HTTP-request-URI-invalid",
        ErrorKind::Denied => "HTTP-request-denied",
        ErrorKind::NotFound => "destination-not-found",
        ErrorKind::Unavailable => "destination-unavailable",
        ErrorKind::Timeout => "HTTP-response-timeout",
        ErrorKind::LimitReached => "connection-limit-reached",
        ErrorKind::LoopDetected => "loop-detected",
        ErrorKind::Protocol => "HTTP-protocol-error",
        ErrorKind::Internal => "internal-error",
    }
}

pub async fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

pub fn wait_for_any() {
    panic!("the future waits for something that nothing can bring about");
}

pub fn caller() -> Option<Peer> {
    None
}

pub fn remaining() -> Option<Duration> {
    None
}

pub fn port() -> Option<u16> {
    None
}

pub fn attempt() -> u32 {
    1
}

pub fn trace_id() -> Option<String> {
    None
}

pub fn origin() -> Option<Origin> {
    None
}

pub fn priority() -> Priority {
    Priority::Usual
}

pub fn rest(_time: Duration) {}

pub fn no_retry() {}

pub fn attribute(_name: &str, _value: &str) -> Result<(), Refusal> {
    Ok(())
}

type Series = (String, Vec<(String, String)>);

fn series(name: &str, labels: &[(&str, &str)]) -> Series {
    let mut labels: Vec<(String, String)> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    labels.sort();
    (name.to_owned(), labels)
}

pub fn metric_add(name: &str, labels: &[(&str, &str)], more: f64) -> Result<(), Refusal> {
    METRICS.with_borrow_mut(|metrics| *metrics.entry(series(name, labels)).or_default() += more);
    Ok(())
}

pub fn metric_set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    METRICS.with_borrow_mut(|metrics| metrics.insert(series(name, labels), value));
    Ok(())
}

pub fn metric_observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    metric_add(name, labels, value)
}

pub fn metric_value(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    METRICS.with_borrow(|metrics| metrics.get(&series(name, labels)).copied())
}

// What a test has set and answers, and the buckets that it has opened: of its own thread, and gone with it.
thread_local! {
    static ANSWER: RefCell<Option<Rc<Answer>>> = const { RefCell::new(None) };
    static METRICS: RefCell<BTreeMap<Series, f64>> = const { RefCell::new(BTreeMap::new()) };
    static CONFIG: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    static BUCKETS: RefCell<BTreeMap<String, Rc<RefCell<Entries>>>> = const { RefCell::new(BTreeMap::new()) };
}

pub fn config_get(name: &str) -> Result<Option<String>, config::Error> {
    Ok(CONFIG.with_borrow(|config| config.get(name).cloned()))
}

pub fn config_all() -> Result<Vec<(String, String)>, config::Error> {
    Ok(CONFIG.with_borrow(|config| config.clone().into_iter().collect()))
}

pub fn config_set(name: &str, value: &str) {
    CONFIG.with_borrow_mut(|config| config.insert(name.to_owned(), value.to_owned()));
}

/// The bounds of a cluster's store.
const KEY_BYTES_MAX: usize = 512;
const VALUE_BYTES_MAX: usize = 512 << 10;
const BATCH_KEYS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Entries {
    /// With the revision of each value.
    values: BTreeMap<String, (u64, Vec<u8>)>,
    revision: u64,
}

impl Entries {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.revision += 1;
        let entry = (self.revision, value.to_vec());
        self.values.insert(key.to_owned(), entry);
    }
}

fn other<T>(reason: String) -> Result<T, KeyValueError> {
    Err(KeyValueError::Other(reason))
}

fn check_key(key: &str) -> Result<(), KeyValueError> {
    match key.len() {
        0 => other("the key is empty".to_owned()),
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => other(format!(
            "the key has {bytes} bytes, and {KEY_BYTES_MAX} is the most that one may have"
        )),
    }
}

fn check_value(value: &[u8]) -> Result<(), KeyValueError> {
    match value.len() {
        0..=VALUE_BYTES_MAX => Ok(()),
        bytes => other(format!(
            "the value has {bytes} bytes, and {VALUE_BYTES_MAX} is the most that one may have"
        )),
    }
}

fn check_batch<'a>(
    keys: impl ExactSizeIterator<Item = &'a String>,
    bytes: usize,
) -> Result<(), KeyValueError> {
    let count = keys.len();
    if count > BATCH_KEYS_MAX {
        return other(format!(
            "the batch has {count} keys, and {BATCH_KEYS_MAX} is the most that one may have"
        ));
    }
    if bytes > BATCH_BYTES_MAX {
        return other(format!(
            "the values of the batch have {bytes} bytes, and {BATCH_BYTES_MAX} is the most that they may have together"
        ));
    }
    for key in keys {
        check_key(key)?;
    }
    Ok(())
}

/// A bucket in memory.
pub struct Bucket(Rc<RefCell<Entries>>);

impl Bucket {
    pub fn open(identifier: &str) -> Result<Bucket, KeyValueError> {
        let entries = BUCKETS.with_borrow_mut(|buckets| {
            let entries = buckets.entry(identifier.to_owned());
            entries.or_default().clone()
        });
        Ok(Bucket(entries))
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        check_key(key)?;
        let entries = self.0.borrow();
        Ok(entries.values.get(key).map(|(_, value)| value.clone()))
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        check_key(key)?;
        check_value(value)?;
        self.0.borrow_mut().put(key, value);
        Ok(())
    }

    pub fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        check_key(key)?;
        self.0.borrow_mut().values.remove(key);
        Ok(())
    }

    pub fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        check_key(key)?;
        Ok(self.0.borrow().values.contains_key(key))
    }

    pub fn list(
        &self,
        _cursor: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), KeyValueError> {
        Ok((self.0.borrow().values.keys().cloned().collect(), None))
    }

    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        let number = match self.get(key)? {
            None => Some(0),
            Some(value) => str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok()),
        };
        let Some(number) = number else {
            return other("the value is not a decimal number".to_owned());
        };
        let Some(sum) = number.checked_add(delta) else {
            return other("the number would leave the range of 64 bits".to_owned());
        };
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        check_batch(keys.iter(), 0)?;
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<(), KeyValueError> {
        for (_, value) in entries {
            check_value(value)?;
        }
        let bytes = entries.iter().map(|(_, value)| value.len()).sum();
        check_batch(entries.iter().map(|(key, _)| key), bytes)?;
        entries
            .iter()
            .try_for_each(|(key, value)| self.set(key, value))
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<(), KeyValueError> {
        check_batch(keys.iter(), 0)?;
        keys.iter().try_for_each(|key| self.delete(key))
    }

    pub fn look(&self, key: &str) -> Result<Seen, KeyValueError> {
        check_key(key)?;
        Ok(Seen {
            entries: self.0.clone(),
            key: key.to_owned(),
            entry: self.0.borrow().values.get(key).cloned(),
        })
    }
}

/// A value that was looked at.
pub struct Seen {
    entries: Rc<RefCell<Entries>>,
    key: String,
    entry: Option<(u64, Vec<u8>)>,
}

impl Seen {
    pub fn value(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.entry.as_ref().map(|(_, value)| value.clone()))
    }

    pub fn swap(self, value: &[u8]) -> Result<Result<(), Seen>, KeyValueError> {
        check_value(value)?;
        let mut entries = self.entries.borrow_mut();
        let entry = entries.values.get(&self.key).cloned();
        if entry.as_ref().map(|(revision, _)| revision)
            != self.entry.as_ref().map(|(revision, _)| revision)
        {
            drop(entries);
            return Ok(Err(Seen { entry, ..self }));
        }
        entries.put(&self.key, value);
        Ok(Ok(()))
    }
}
