//! Accepting connections: the gateway's, other nodes', and those to the node's own port (`weft_agent::http`).
//!
//! Invariants: no more connections than there are places, further clients wait in the kernel's queue; an error of accept ends nothing;
//! once asked to stop, the listener is closed first and what was begun is finished, for [`DRAIN_MAX`] at most. A node
//! that stops leaves what its pods have left of that time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::DRAIN_MAX;

/// Waits after an accept error such as too many open files, which does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `shutdown`, at most `connections_max` at a time, then waits for the connections to finish. The token
/// given to each asks it to finish; what is left after thirty seconds is dropped.
pub async fn accept_loop<F>(
    listener: TcpListener,
    shutdown: CancellationToken,
    connections_max: usize,
    mut serve: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections_max));
    let tasks = TaskTracker::new();
    let abandon = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = async {
                // Closed never: the semaphore lives as long as this loop.
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((listener.accept().await, place))
            } => accepted,
        };
        match accepted {
            Some((Ok((stream, address)), place)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection closed at once");
                    continue;
                }
                let serving = serve(stream, address, shutdown.child_token());
                let abandon = abandon.clone();
                tasks.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        biased;
                        () = abandon.cancelled() => {}
                        () = serving => {}
                    }
                });
            }
            Some((Err(error), _)) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections did not finish in time");
        abandon.cancel();
        tasks.wait().await;
    }
}
