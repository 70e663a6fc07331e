//! The one body type of requests and responses, on both sides of a guest.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// What can go wrong in the middle of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body. It is polled by one task at a time and may move between threads.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already complete.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}
