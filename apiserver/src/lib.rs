//! The Kubernetes-compatible API of weft: object verbs, admission, identity and the HTTP face.
//!
//! Flow of a request: [`http`] authenticates and decodes it, one verb of [`objects::Objects`] authorises,
//! merges, defaults, validates, admits and stores it, and [`http`] renders the answer. The control loop calls
//! the same verbs in process, with a [`caller::Caller`] that carries the raft term it acts for.
//!
//! Invariants: [`objects`] is the only door to the store; every kind comes from the one table in `weft_kinds`;
//! nothing is judged here that a pure function over JSON values could judge.
//! Left to others: defaults, validation, patches and Table rows (`weft_kinds`), replication and history
//! (`weft_store`), what controllers decide (`weft_controllers`).

pub mod admission;
pub mod authn;
pub mod authz;
pub mod ca;
pub mod cache;
pub mod caller;
pub mod certificates;
pub mod encryption;
pub mod http;
pub mod informer;
pub mod listing;
pub mod objects;
pub mod peers;
pub mod server;
pub mod stored;
