//! What is told of a call beside its answer, while it is served.
//!
//! One for each call that is served, made by whoever hands it to a workload; clones share it. Told is: that a call made for it was tried as
//! often as it may be, that the workload wants to be left alone for a while, and what it says of the call to whoever looks at its trace.
//!
//! Invariants: what is told first stays; attributes are [`ATTRIBUTES_MAX`] at most, each with a name that [`is_name`] takes and
//! [`VALUE_BYTES_MAX`] bytes.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Attributes of one call.
pub const ATTRIBUTES_MAX: usize = 16;
/// Of a name and of a value.
pub const NAME_BYTES_MAX: usize = 64;
pub const VALUE_BYTES_MAX: usize = 256;
/// The longest time that a workload may be left alone for by its own word.
pub const REST_MAX: Duration = Duration::from_secs(300);

/// Why something was not taken. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untaken {
    Name,
    TooLong,
    TooMany,
}

/// Whether `name` is one: a letter, then letters, digits, `_`, `.` and `-`, of [`NAME_BYTES_MAX`] at most.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && name.as_bytes().iter().all(rest)
}

/// Where it is told that calls made for this one were tried as often as they may be, and what the workload itself says of it.
#[derive(Debug, Clone, Default)]
pub struct Spent(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    is_spent: AtomicBool,
    /// Milliseconds; 0 where nothing was said.
    rest: AtomicU64,
    /// Made with the first.
    attributes: OnceLock<Mutex<Vec<Attribute>>>,
}

/// Name and value.
pub type Attribute = (Box<str>, Box<str>);

/// All that was told, between processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_spent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_millis: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
}

impl Spent {
    /// That trying this call again would try others again that were tried as often as they may be, or that its workload does not want it.
    pub fn tell(&self) {
        self.0.is_spent.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.is_spent.load(Ordering::Relaxed)
    }

    /// The workload is to be left alone for `time`, of which [`REST_MAX`] counts.
    pub fn rest(&self, time: Duration) {
        let millis = u64::try_from(time.min(REST_MAX).as_millis()).unwrap_or(u64::MAX);
        let _ =
            self.0
                .rest
                .compare_exchange(0, millis.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// For how long its workload is to be left alone, if it has said that.
    #[must_use]
    pub fn rests(&self) -> Option<Duration> {
        match self.0.rest.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// Says something of the call; what was said before under the same name is replaced.
    ///
    /// # Errors
    /// [`Untaken`], where a bound of this module does not hold.
    pub fn set(&self, name: &str, value: &str) -> Result<(), Untaken> {
        if !is_name(name) {
            return Err(Untaken::Name);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Untaken::TooLong);
        }
        let attributes = self.0.attributes.get_or_init(Mutex::default);
        let mut attributes = attributes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, held)) = attributes.iter_mut().find(|(held, _)| **held == *name) {
            *held = value.into();
            return Ok(());
        }
        if attributes.len() == ATTRIBUTES_MAX {
            return Err(Untaken::TooMany);
        }
        attributes.push((name.into(), value.into()));
        Ok(())
    }

    /// What was said of it.
    #[must_use]
    pub fn attributes(&self) -> Vec<Attribute> {
        match self.0.attributes.get() {
            Some(attributes) => attributes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            None => Vec::new(),
        }
    }

    /// All of it, for another process; none where nothing was told.
    #[must_use]
    pub fn aside(&self) -> Option<Aside> {
        let aside = Aside {
            is_spent: self.is_told(),
            rest_millis: match self.0.rest.load(Ordering::Relaxed) {
                0 => None,
                millis => Some(millis),
            },
            attributes: self.attributes(),
        };
        (aside != Aside::default()).then_some(aside)
    }

    /// Tells here what was told in another process, as far as it could have been.
    pub fn told(&self, aside: &Aside) {
        if aside.is_spent {
            self.tell();
        }
        if let Some(millis) = aside.rest_millis {
            self.rest(Duration::from_millis(millis));
        }
        for (name, value) in aside.attributes.iter().take(ATTRIBUTES_MAX) {
            // What breaks a bound is left out.
            let _ = self.set(name, value);
        }
    }
}

impl PartialEq for Spent {
    /// It is where something is told, and nothing that is known of the call.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Spent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_workload_says_is_bounded_and_what_it_says_first_stays() {
        let told = Spent::default();
        assert_eq!(told.aside(), None);
        told.rest(Duration::from_secs(u64::MAX));
        told.rest(Duration::from_secs(1));
        assert_eq!(told.rests(), Some(REST_MAX));
        for (name, value, expected) in [
            ("user", "7", Ok(())),
            ("user", "8", Ok(())),
            ("", "x", Err(Untaken::Name)),
            ("7", "x", Err(Untaken::Name)),
            ("a b", "x", Err(Untaken::Name)),
            ("a\n", "x", Err(Untaken::Name)),
            (&"n".repeat(NAME_BYTES_MAX + 1), "x", Err(Untaken::Name)),
            ("n", &"v".repeat(VALUE_BYTES_MAX + 1), Err(Untaken::TooLong)),
        ] {
            assert_eq!(told.set(name, value), expected, "{name:?}");
        }
        assert_eq!(told.attributes(), [("user".into(), "8".into())]);
        for more in 1..ATTRIBUTES_MAX {
            assert_eq!(told.set(&format!("n{more}"), ""), Ok(()));
        }
        assert_eq!(told.set("more", ""), Err(Untaken::TooMany));
    }

    #[test]
    fn another_process_tells_no_more_than_this_one_could() {
        let lying = Aside {
            is_spent: false,
            rest_millis: Some(u64::MAX),
            attributes: (0..1000)
                .map(|n| (format!("n{n}").into(), "v".repeat(n).into()))
                .chain([("\u{1b}[2J".into(), "x".into())])
                .collect(),
        };
        let told = Spent::default();
        told.told(&lying);
        assert!(!told.is_told());
        assert_eq!(told.rests(), Some(REST_MAX));
        assert_eq!(told.attributes().len(), ATTRIBUTES_MAX);
        let again = Spent::default();
        again.told(&told.aside().expect("something was told"));
        assert_eq!(again.aside(), told.aside());
    }
}
