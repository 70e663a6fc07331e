//! Standard input: empty, or silent until the workload is told to stop.
//!
//! WASI has no signals. What a guest can wait for is the end of its input, in either version: a command that is given
//! [`Stdin::EndsAtStop`] hears of a stop there, and has the grace to come to an end of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

/// What a guest reads on its standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing: it is at its end from the start.
    #[default]
    Empty,
    /// Nothing, and its end comes when [`Workload::stop`](crate::Workload::stop) is called.
    EndsAtStop,
}

/// The input of [`Stdin::EndsAtStop`].
#[derive(Clone)]
pub(crate) struct UntilStop(pub(crate) CancellationToken);

impl IsTerminal for UntilStop {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for UntilStop {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Silence(Box::pin(self.0.clone().cancelled_owned())))
    }

    // The adapter for it has a task for each stream that a guest opens.
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for UntilStop {
    async fn ready(&mut self) {
        self.0.cancelled().await;
    }
}

impl InputStream for UntilStop {
    fn read(&mut self, _: usize) -> StreamResult<Bytes> {
        match self.0.is_cancelled() {
            true => Err(StreamError::Closed),
            false => Ok(Bytes::new()),
        }
    }
}

struct Silence(Pin<Box<WaitForCancellationFutureOwned>>);

impl AsyncRead for Silence {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}
