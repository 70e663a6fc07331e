//! The guest SDK: write a WebAssembly component that serves HTTP and calls other services through weft's mesh.
//!
//! ```
//! use weft_sdk as weft; // or depend on it as `weft = { package = "weft-sdk", … }`
//! use weft::{Request, Response};
//!
//! #[weft::http]
//! async fn handle(request: Request) -> Result<Response, weft::http::Error> {
//!     match request.uri().path() {
//!         "/price" => {
//!             // A service of the same namespace, found, balanced, authorised and encrypted by the mesh.
//!             let stock = weft::http::get("http://warehouse/stock/42").await?.into_body().text().await?;
//!             Ok(Response::new(format!("42 costs 7 credits, {stock} left\n").into()))
//!         }
//!         "/whoami" => Ok(Response::new(match weft::mesh::caller() {
//!             Some(peer) => format!("you are {}\n", peer.spiffe_id).into(),
//!             None => "you came through the gateway\n".into(),
//!         })),
//!         _ => Ok(weft::http::status(404)),
//!     }
//! }
//! # let answer = weft::block_on(handle(weft::Request::new(weft::Body::empty()))).unwrap();
//! # assert_eq!(answer.status(), 404);
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`, push it, name it as the image of a container. A long-running or
//! one-off command needs nothing from this crate but what it uses: an ordinary `fn main()` exports `wasi:cli/run`, and
//! [`block_on`] runs async code in it.
//!
//! Handlers are ordinary async functions and the crate builds for the host too, so `cargo test` covers them; there
//! [`http::send`] answers what the test says (`http::respond_with`), else [`http::ErrorKind::Unavailable`], [`mesh::caller`] answers
//! `None`, [`config`] has what the test sets, [`keyvalue`] is in memory and [`metrics`] can be read.
//!
//! Promises: nothing here starts a thread or keeps state between requests; a future dropped early gives up exactly
//! its own waits; every error of the host arrives as a value, never as a panic. Left to others: routing, retries,
//! encryption and identity (the mesh), limits and isolation (the runtime).

mod body;
pub mod config;
pub mod env;
pub mod http;
pub mod keyvalue;
pub mod log;
pub mod mesh;
pub mod metrics;
mod task;
pub mod time;

#[cfg(not(target_family = "wasm"))]
#[path = "host_native.rs"]
mod host;
#[cfg(target_family = "wasm")]
#[path = "host_wasi.rs"]
mod host;

pub use body::{BODY_BYTES_MAX, Body, BodyError, Writer};
pub use task::{block_on, join};
pub use weft_sdk_macros::http;

/// A request: `http`'s type with our [`Body`].
pub type Request = ::http::Request<Body>;

/// A response: `http`'s type with our [`Body`].
pub type Response = ::http::Response<Body>;

/// What `#[weft::http]` expands to needs; not part of the interface.
#[doc(hidden)]
pub mod __private {
    use std::fmt::Display;
    use std::future::Future;

    use crate::{Request, Response};

    #[cfg(target_family = "wasm")]
    pub use crate::host::serve;
    #[cfg(target_family = "wasm")]
    pub use wasip2;
    #[cfg(target_family = "wasm")]
    pub use wasip2::exports::http::incoming_handler::Guest;
    #[cfg(target_family = "wasm")]
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    /// What `#[weft::http]` accepts. Anything else is refused where it stands, natively as on a Wasm target:
    ///
    /// ```compile_fail
    /// # use weft_sdk as weft;
    /// #[weft::http]
    /// async fn no_result(_: weft::Request) -> weft::Response { weft::http::status(404) }
    /// ```
    ///
    /// ```compile_fail
    /// # use weft_sdk as weft;
    /// #[weft::http]
    /// async fn other_argument(_: String) -> Result<weft::Response, String> { Ok(weft::http::status(404)) }
    /// ```
    ///
    /// ```compile_fail
    /// # use weft_sdk as weft;
    /// #[weft::http]
    /// async fn no_argument() -> Result<weft::Response, String> { Ok(weft::http::status(404)) }
    /// ```
    ///
    /// ```
    /// # use weft_sdk as weft;
    /// #[weft::http]
    /// async fn right(_: weft::Request) -> Result<weft::Response, String> { Ok(weft::http::status(404)) }
    /// ```
    #[diagnostic::on_unimplemented(
        message = "this function is no handler for `#[weft::http]`",
        label = "expected `async fn(Request) -> Result<Response, E>`",
        note = "`Request` and `Response` are those of weft, and `E` is anything that implements `Display`"
    )]
    pub trait Handler {}

    #[diagnostic::do_not_recommend]
    impl<H, F, E> Handler for H
    where
        H: Fn(Request) -> F,
        F: Future<Output = Result<Response, E>>,
        E: Display,
    {
    }

    /// Compiles for a handler only.
    pub const fn check<H: Handler>(_: &H) {}
}
