//! What was encoded once for everybody who is told of one change.
//!
//! The first watcher that needs a form makes it, the others share its bytes. It lives for as long as the change waits in
//! somebody's queue or is being sent: when all were told, nothing is kept twice.

use bytes::Bytes;
use parking_lot::Mutex;

/// Forms of one change that are kept; clients ask for two or three, and who asks for more pays for it.
const FORMS_MAX: usize = 8;

/// Which encoding of a change is meant.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LineKey {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub event: &'static str,
    /// In which spelling or version it is, where that is not the stored one.
    pub shown_as: Option<String>,
    pub form: LineForm,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum LineForm {
    Whole,
    Metadata,
    /// Of a version of meta.k8s.io, with so much of the object, made in this second: rows tell ages.
    Table(&'static str, crate::http::table::Include, i64),
}

#[derive(Default)]
pub(crate) struct Lines {
    made: Mutex<Vec<(LineKey, Bytes)>>,
}

impl Lines {
    /// The bytes of this form, if they were made.
    pub(crate) fn get(&self, key: &LineKey) -> Option<Bytes> {
        let made = self.made.lock();
        let kept = made.iter().find(|(known, _)| known == key);
        kept.map(|(_, bytes)| bytes.clone())
    }

    /// The bytes of this form, made by `make` unless they were before.
    pub(crate) fn get_or_make(&self, key: LineKey, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut made = self.made.lock();
        if let Some((_, bytes)) = made.iter().find(|(known, _)| *known == key) {
            return bytes.clone();
        }
        let bytes = make();
        if made.len() < FORMS_MAX {
            made.push((key, bytes.clone()));
        }
        bytes
    }
}
