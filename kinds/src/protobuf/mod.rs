//! Kubernetes' binary form of objects, read into the JSON that everything else works on, and written from it.
//!
//! Typed clients (client-go, `kubectl create configmap`, Helm) send bodies and ask for answers in it. [`decode`] and
//! [`encode`] walk along a table of the Go types (`schema/protobuf.json`, by `cargo xtask codegen`): each field's number,
//! its JSON name, its form, and whether its zero is left out. There is no Rust type per message.
//!
//! Both are exact: what is read is the JSON that Go would write for the same bytes (a struct that is no pointer is there
//! even when nothing was sent for it; `containers: null`), and what is written is byte for byte what Go would write for the
//! same JSON, whose zeros are on the wire unless a field is a pointer. `tests/fixtures.rs` holds it to Kubernetes' own data.
//!
//! Invariants: pure; bytes from outside never panic; nesting ends at [`DEPTH_MAX`]; a field without a number is named in
//! [`Decoded::unknown`], never dropped in silence; what has no place on the wire is left out by [`encode`].
//! Left to others: rules of fields, canonical forms of what came as JSON.

mod read;
mod table;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use serde_json::Value;

pub use read::decode;
pub use write::{EncodeError, ListEncoder, encode, encode_watch_frame};

use table::TABLE;

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages; the deepest path of most kinds has about 15, and a definition of a custom kind has a few above each schema.
const DEPTH_MAX: usize = 64;

/// How many unknown fields of one body are reported, as for JSON.
const UNKNOWN_MAX: usize = 64;

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Fields that no number is known for, as paths.
    pub unknown: Vec<String>,
}

/// Why a body is no object in this form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it does not begin with the four bytes of Kubernetes' envelope")]
    NoEnvelope,
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("the field {0} has another wire type than its kind says")]
    WireType(String),
    #[error("the field {0} is not UTF-8")]
    NotText(String),
    #[error("the field {0} is out of range")]
    OutOfRange(String),
    #[error("it is nested deeper than {DEPTH_MAX} messages")]
    TooDeep,
    #[error("no kind {kind:?} of version {api_version:?} is registered")]
    UnknownKind { api_version: String, kind: String },
    #[error("its content is {0}, not protobuf")]
    Content(String),
}

/// Whether objects of this kind have a binary form: those of Kubernetes' own groups do.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    TABLE.kind(api_version, kind).is_some()
}
