//! The Kubernetes-compatible API of weft: object verbs, admission, identity and the HTTP face.
//!
//! Flow of a request: [`http`] decodes its head ([`request`]), finds out who asks ([`authn`]) and whether that is allowed
//! ([`authz`]), one verb of [`objects::Objects`] merges, defaults, validates, admits and stores its body, and [`http`] renders
//! the answer. The control loop calls the same verbs in process, through a [`objects::Client`] and the same [`authz`], with a
//! [`caller::Caller`] that carries the raft term it acts for.
//!
//! Invariants: [`objects`] is the only door to the store, and [`authz::Authorizer::authorize`] the only one to [`objects`]; every kind comes from the one table in `weft_kinds`;
//! nothing is judged here that a pure function over JSON values could judge.
//! Left to others: defaults, validation, patches and Table rows (`weft_kinds`), replication and history
//! (`weft_store`), what controllers decide (`weft_controllers`).

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod ca;
pub mod cache;
pub mod caller;
pub mod certificates;
mod definitions;
pub mod encryption;
mod flow_control;
pub mod http;
mod impersonation;
pub mod informer;
pub mod issuer;
pub mod listing;
mod namespaces;
mod node_connections;
pub mod node_restriction;
pub mod objects;
pub mod peers;
mod reach;
pub mod request;
mod roots;
pub mod server;
mod signers;
mod signing_keys;
pub mod spdy;
pub mod stored;
mod turns;
pub mod webhook;
