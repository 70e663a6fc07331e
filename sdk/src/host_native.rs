//! The host's side when there is none: guests built for the developer's machine, as `cargo test` does.
//!
//! Nothing can be reached, nobody calls, waiting is waiting. Handlers stay testable with requests made by hand.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;

use crate::http::{Error, ErrorKind};
use crate::mesh::Peer;
use crate::{BodyError, Request, Response};

/// No body ever arrives here.
pub enum Incoming {}

impl Incoming {
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match *self {}
    }
}

/// No body ever leaves from here.
pub struct Outgoing(Infallible);

impl Outgoing {
    pub async fn write(&mut self, _bytes: &[u8]) -> Result<(), BodyError> {
        match self.0 {}
    }
}

pub async fn send(_request: Request) -> Result<Response, Error> {
    let detail = "not inside weft: natively built code reaches no service";
    Err(Error::new(
        ErrorKind::Unavailable,
        "destination-unavailable",
        Some(detail.into()),
    ))
}

pub async fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

pub fn wait_for_any() {
    panic!("the future waits for something that nothing can bring about");
}

pub fn caller() -> Option<Peer> {
    None
}

pub fn remaining() -> Option<Duration> {
    None
}

pub fn attempt() -> u32 {
    1
}

pub fn trace_id() -> Option<String> {
    None
}
