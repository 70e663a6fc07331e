//! SPDY/3.1, as clients of Kubernetes speak it where a connection carries several streams: `kubectl exec` of before 1.30, `kubectl port-forward` of all.
//!
//! [`frame`] is the form of it, pure: bytes to frames and back. [`connection`] is a connection's server end: its streams, each a bounded channel in either
//! direction. What is said on them is others' (`crate::http::streams`).
//!
//! Of [the draft](https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/) there is here what those clients use. They keep no windows, so
//! neither does this end: a stream that is not read holds up its connection once its channel is full, as theirs do, and TCP tells the client.

pub(crate) mod connection;
mod dictionary;
pub mod frame;
