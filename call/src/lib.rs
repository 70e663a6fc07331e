//! One vocabulary for a call, in all of weft: what is known of it ([`CallContext`]), what its caller asks for ([`CallOptions`]), what is
//! told of it beside its answer ([`Spent`]), and why it came to nothing ([`Failure`]).
//!
//! ```text
//! guest ─ runtime ─ agent/bridge.rs ─ mesh ═ x-weft-* ═ mesh ─ agent/bridge.rs ─ runtime ─ guest        between nodes: headers.rs
//!            ╚══ serde ══ worker process                                                                within one: serde
//! ```
//!
//! What nodes count of calls, and servers make rates of, is said in [`counted`] and, by who called whom, in [`edges`]; how a node's
//! mesh stands, in [`standing`].
//!
//! A failure is made once, where it happens, by whoever knows whose doing it was and whether a guest may have seen the request. It
//! travels unchanged, in memory, between nodes and between processes, to the edge where something else is made of it: an error code
//! of WASI (`runtime/src/host/http.rs`), a response of the gateway, a word of a metric. On its way somebody may say in its message
//! whose failure it was; kind, blame and the rest stay.
//!
//! Pure: no clock, no randomness, no I/O. Times are handed in.
//!
//! Left to others: whether a call is made again (`mesh/src/retry.rs`), what a failure costs an endpoint (`mesh/src/attempt.rs`).

mod aside;
mod body;
mod context;
pub mod counted;
pub mod edges;
mod failure;
pub mod headers;
mod kind;
mod options;
mod service;
pub mod standing;
pub mod stream_frame;
mod trace;

pub use aside::{
    ATTRIBUTES_MAX, Aside, Attribute, REST_MAX, Spent, Untaken, VALUE_BYTES_MAX, is_name,
};
pub use body::{Body, BoxError};
pub use context::{CallContext, FrozenContext, Peer, Priority, Transport};
pub use failure::{Blame, Failure, Processed};
pub use kind::FailureKind;
pub use options::{CallOptions, HEDGE_AFTER_MIN, KEY_BYTES_MAX};
pub use service::{CallService, Calling};
pub use trace::{Sampling, TraceContext, baggage};
