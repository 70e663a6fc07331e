//! Who calls me, how much time is left: the guest's side of `weft:mesh/context`.
//!
//! The answers describe the inbound call that the current instance serves. They come from the mesh, not from headers:
//! a caller cannot forge them. Outside a call, such as in a command's `main`, there is no peer and no deadline.
//!
//! A request from outside of the cluster has no caller: the gateway takes it from anybody, and nobody vouches for who that is.
//!
//! ```
//! # use weft_sdk as weft; use std::time::Duration;
//! use weft::{Request, Response};
//!
//! #[weft::http]
//! async fn handle(_request: Request) -> Result<Response, weft::http::Error> {
//!     match weft::mesh::caller() {
//!         Some(peer) if peer.namespace == "shop" => {}
//!         _ => return Ok(weft::http::status(403)),
//!     }
//!     if weft::mesh::remaining().is_some_and(|left| left < Duration::from_millis(50)) {
//!         return Ok(weft::http::status(504)); // what follows takes longer
//!     }
//!     weft::info!("attempt {} of trace {:?}", weft::mesh::attempt(), weft::mesh::trace_id());
//!     Ok(weft::http::status(200))
//! }
//! # let answer = weft::block_on(handle(Request::new(weft::Body::empty()))).unwrap();
//! # assert_eq!(answer.status(), 403); // natively nobody calls
//! ```

use std::fmt;
use std::time::Duration;

use crate::host;

/// The workload that made the inbound call, as its certificate or the local hand-over proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub spiffe_id: String,
    /// The caller's namespace.
    pub namespace: String,
    /// The caller's ServiceAccount.
    pub service_account: String,
    /// The caller's workload, such as the Deployment's name.
    pub workload: String,
    /// How the call came in.
    pub transport: Transport,
}

/// How a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// From a workload on the same node, handed over in memory.
    InProcess,
    /// From another node, over mutual TLS.
    MutualTls,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::MutualTls => "mutual-tls",
        })
    }
}

/// Who makes the current call, if it is known. Of a request from outside of the cluster it is not.
pub fn caller() -> Option<Peer> {
    host::caller()
}

/// How long the current call may still take, if it has a deadline.
///
/// Calls made on its behalf inherit the deadline without any help; ask in order to skip work that cannot finish.
pub fn remaining() -> Option<Duration> {
    host::remaining()
}

/// Which attempt of the mesh this is: 1 for the first, 2 for the first retry.
pub fn attempt() -> u32 {
    host::attempt()
}

/// At which of its own ports the component is called, for one that serves several: that of the container, whatever Service led to it.
pub fn port() -> Option<u16> {
    host::port()
}

/// The W3C trace id of the current call, 32 hexadecimal digits. Calls made on its behalf carry the trace on.
pub fn trace_id() -> Option<String> {
    host::trace_id()
}
