//! Questions that come to sockets of this machine.
//!
//! Invariants: one task owns the socket of datagrams; answers that wait for others are bounded, and a question beyond them is dropped, which
//! its sender takes for a lost packet; an error of the socket ends nothing.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Answering, Over, answer::UDP_BYTES_MAX, answering, serve_stream, upstream};
use crate::{Inner, accept::accept_loop};

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Waits after an error of the socket that does not go away at once.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
/// No question is longer.
const QUESTION_BYTES_MAX: usize = 4096;

pub(super) async fn datagrams(inner: Arc<Inner>, socket: UdpSocket, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let received = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = waiting.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (bytes, client) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a question");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let message = buffer.get(..bytes).unwrap_or_default();
        match answering(&inner, message, Over::Udp) {
            Answering::Now(None) => {}
            Answering::Now(Some(answer)) => {
                debug_assert!(answer.len() <= UDP_BYTES_MAX);
                // A client that is gone hears nothing.
                let _ = socket.send_to(&answer, client).await;
            }
            Answering::Later(answer) if waiting.len() < upstream::PLACES_MAX => {
                let socket = Arc::clone(&socket);
                waiting.spawn(async move {
                    let _ = socket.send_to(&answer.await, client).await;
                });
            }
            Answering::Later(_) => {}
        }
    }
    waiting.shutdown().await;
}

pub(super) async fn connections(
    inner: Arc<Inner>,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    accept_loop(listener, shutdown, CONNECTIONS_MAX, |stream, _, stop| {
        let inner = Arc::clone(&inner);
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = serve_stream(&inner, stream) => {}
            }
        }
    })
    .await;
}
