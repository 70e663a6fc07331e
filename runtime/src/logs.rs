//! Where a guest's stdout and stderr go.
//!
//! A [`LogSink`] is a function that takes bytes and never blocks: what to do with a flood is its decision, and a guest
//! cannot hold up its host by writing. Chunks arrive in order per stream and are not aligned to lines.
//!
//! A sink may want to know the call that its guest works on ([`LogSink::with_calls`]); only then does an instance keep that for it. Where it
//! works on several, none is told.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use weft_call::CallContext;

/// How much a guest may write in one call; wasmtime's own allowance since 48.0.8.
const WRITE_BYTES_MAX: usize = 64 << 10;

type Write = dyn Fn(&[u8], Option<&CallContext>) + Send + Sync;

/// The call that an instance works on, where it is one.
#[derive(Default)]
pub(crate) struct Working(Mutex<Option<Arc<CallContext>>>);

impl Working {
    pub(crate) fn set(&self, call: Option<Arc<CallContext>>) {
        *self.0.lock() = call;
    }
}

/// Receives what a guest writes. Cheap to clone.
#[derive(Clone)]
pub struct LogSink {
    write: Arc<Write>,
    wants_calls: bool,
    /// Of the instance that it is the sink of, where it wants that.
    working: Option<Arc<Working>>,
}

impl LogSink {
    /// Calls `write` for each chunk, on the thread of the guest. It must not block.
    pub fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> LogSink {
        LogSink {
            write: Arc::new(move |bytes, _| write(bytes)),
            wants_calls: false,
            working: None,
        }
    }

    /// The same with the call that the guest works on, where that is known: not of commands, nor of what runs in another process.
    pub fn with_calls(
        write: impl Fn(&[u8], Option<&CallContext>) + Send + Sync + 'static,
    ) -> LogSink {
        LogSink {
            write: Arc::new(write),
            wants_calls: true,
            working: None,
        }
    }

    pub(crate) fn wants_calls(&self) -> bool {
        self.wants_calls
    }

    /// The same sink as one of an instance that works on these calls.
    pub(crate) fn of_instance(&self, working: Option<&Arc<Working>>) -> LogSink {
        LogSink {
            working: working.filter(|_| self.wants_calls).cloned(),
            ..self.clone()
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        match &self.working {
            None => (self.write)(bytes, None),
            Some(working) => {
                let call = working.0.lock().clone();
                (self.write)(bytes, call.as_deref());
            }
        }
    }

    /// Drops everything.
    pub fn discard() -> LogSink {
        LogSink::new(|_| {})
    }
}

impl std::fmt::Debug for LogSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogSink")
    }
}

impl IsTerminal for LogSink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogSink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // The default would buffer and spawn a task for each stream of each instance.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LogSink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = bytes.len().min(WRITE_BYTES_MAX);
        LogSink::write(&self, &bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogSink {
    async fn ready(&mut self) {}
}

impl OutputStream for LogSink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap(
                "more was written than `check-write` permits",
            ));
        }
        LogSink::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}
