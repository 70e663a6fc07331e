//! Who calls me, how much time is left, what I ask for of my own calls: the guest's side of `weft:mesh`.
//!
//! Nothing of it has to be used: identity, deadline, trace, retries and balancing are there without. The answers describe the inbound call that the current instance serves. They come from the mesh, not from headers:
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
//!
//! [`Options`] say what a call of one's own is like; [`rest`] and [`no_retry`] push back:
//!
//! ```
//! # use weft_sdk as weft; use std::time::Duration;
//! use weft::{Request, Response, mesh};
//!
//! #[weft::http]
//! async fn handle(request: Request) -> Result<Response, weft::http::Error> {
//!     if queue_is_long() {
//!         mesh::rest(Duration::from_secs(2)); // whoever called asks another replica meanwhile
//!         return Ok(weft::http::status(503));
//!     }
//!     let mut ask = Request::new(weft::Body::empty());
//!     *ask.uri_mut() = "http://stock/42".parse().unwrap();
//!     let options = mesh::Options::new()
//!         .key("42")                                  // the replica that has this one in its cache
//!         .at_most(mesh::Priority::Low)
//!         .within(Duration::from_millis(80));
//!     ask.extensions_mut().insert(options);
//!     let stock = weft::http::send(ask).await?;
//!     let _ = mesh::attribute("stock.status", stock.status().as_str()); // on the trace of this call
//!     Ok(stock)
//! }
//! # fn queue_is_long() -> bool { true }
//! # let answer = weft::block_on(handle(Request::new(weft::Body::empty()))).unwrap();
//! # assert_eq!(answer.status(), 503);
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

/// From where a call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// From a workload: [`caller`] says which.
    Workload,
    /// From outside of the cluster, through one of its gateways.
    Gateway,
    /// From the host itself, such as a probe.
    Host,
}

/// How much it matters that a call is answered, where not all can be. The first is what is answered first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Before all others.
    Critical,
    /// What a call is that says nothing.
    #[default]
    Usual,
    /// After most.
    Low,
    /// Nobody minds if it is not.
    Sheddable,
}

/// What is asked of the mesh for one call: an extension of its request. What it does not say is as the Service's policies say, and nothing
/// in it gets a call more than the one has that it is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub(crate) idempotent: bool,
    pub(crate) no_retry: bool,
    pub(crate) hedge_after: Option<Duration>,
    pub(crate) within: Option<Duration>,
    pub(crate) at_most: Option<Priority>,
    pub(crate) key: Option<Vec<u8>>,
}

impl Options {
    /// Nothing but what is usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request may be made twice, whatever its method is: as if it had an `Idempotency-Key`.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// No second try once a workload may have seen the request. What provably reached nobody still goes elsewhere.
    #[must_use]
    pub fn no_retry(mut self) -> Self {
        self.no_retry = true;
        self
    }

    /// A second try beside the first where there is no answer after `wait`, of a request without a body that may be made twice. It is
    /// paid for from the Service's budget of retries.
    #[must_use]
    pub fn hedge_after(mut self, wait: Duration) -> Self {
        self.hedge_after = Some(wait);
        self
    }

    /// The answer has to begin within `limit`, or by the deadline of the current call if that is earlier.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// It matters no more than that, or than the current call if that matters less.
    #[must_use]
    pub fn at_most(mut self, priority: Priority) -> Self {
        self.at_most = Some(priority);
        self
    }

    /// Requests with the same key go to the same replica, as long as that is well and there. The first 256 bytes count.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// Why the host did not take something. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// That is no name: up to 64 letters, digits, `_` and, of attributes, `.` and `-`, of which the first is a letter. Some are the host's.
    Name,
    /// The value is longer than it may be.
    TooLong,
    /// There are as many as there may be.
    TooMany,
    /// The metric of that name is of another sort.
    OtherSort,
    /// A counter does not fall, and what is no number is none.
    Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "that is no name, or one of the host's",
            Self::TooLong => "the value is longer than it may be",
            Self::TooMany => "there are as many as there may be",
            Self::OtherSort => "the metric of that name is of another sort",
            Self::Value => "a counter does not fall, and what is no number is none",
        })
    }
}

impl std::error::Error for Refusal {}

/// From where the current call comes; `None` outside of a call.
pub fn origin() -> Option<Origin> {
    host::origin()
}

/// How much the current call matters.
pub fn priority() -> Priority {
    host::priority()
}

/// Pushes back: whoever made the current call is to leave this replica alone for `time`, and to ask others meanwhile. Say it before the
/// response, which is whatever you make it. Where there is no other replica, calls still come.
pub fn rest(time: Duration) {
    host::rest(time);
}

/// The current call is not to be made again, whatever it is answered with: neither by its caller nor by those above. Say it before the
/// response.
pub fn no_retry() {
    host::no_retry();
}

/// Puts an attribute on the span of the current call, as `app.NAME`; 16 at most, of 256 bytes each. Say it before the response.
///
/// # Errors
/// [`Refusal`]; it is no reason to fail a request.
pub fn attribute(name: &str, value: &str) -> Result<(), Refusal> {
    host::attribute(name, value)
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
