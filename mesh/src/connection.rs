//! Connections that this node opens: what those to other nodes (`transport.rs`) and those to hosts outside (`egress/`) have in common.
//!
//! Invariant: a pool is swept as long as one of its connections is open, by a task that the connection has anyway.
//! Left to the pools: whom a connection leads to, who may use it, how many there are and how old they get.

use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::MissedTickBehavior;

use crate::{
    headers::HEADER_LIST_BYTES_MAX,
    transport::{
        CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES,
        STREAM_WINDOW_BYTES,
    },
};

/// HTTP/2 as it is spoken by who connects.
pub(crate) fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Runs a connection to its end, which comes when its pool and all calls have let go of it; has the pool swept meanwhile.
pub(crate) async fn run(
    driver: impl Future<Output = Result<(), hyper::Error>>,
    sweep_interval: Duration,
    sweep: impl Fn(),
) -> Result<(), hyper::Error> {
    let mut driver = std::pin::pin!(driver);
    let mut interval = tokio::time::interval(sweep_interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut driver => return ended,
            _ = interval.tick() => sweep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_swept_until_the_connection_ends() {
        let sweeps = Cell::new(0);
        let driver = async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Ok(())
        };
        let count = || sweeps.set(sweeps.get() + 1);
        let ended = run(driver, Duration::from_secs(10), count).await;
        assert!(ended.is_ok());
        // At once, after ten seconds and after twenty.
        assert_eq!(sweeps.get(), 3);
    }
}
