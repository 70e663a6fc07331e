//! Connections from outside to a port of a Service (`carry.rs`).

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use weft_call::{Failure, FailureKind};

use super::At;
use crate::{
    Outbound,
    accept::accept_loop,
    carry::{Way, carry, reset_at_end},
    hello::Begun,
    outbound::Client,
    table::{Protocol, Table},
};

/// Connections at one place; further clients wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;

pub(super) async fn serve(
    outbound: Outbound,
    listener: std::net::TcpListener,
    at: At,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(at = %at.place, %error, "a place of a Service is not served");
            return;
        }
    };
    accept_loop(listener, stop, CONNECTIONS_MAX, move |stream, client, _| {
        let outbound = outbound.clone();
        async move {
            if let Err(failure) = connection(&outbound, at, stream, client).await {
                tracing::debug!(%client, at = %at.place, %failure, "a connection came to nothing");
            }
        }
    })
    .await;
}

async fn connection(
    outbound: &Outbound,
    at: At,
    stream: TcpStream,
    client: SocketAddr,
) -> Result<(), Failure> {
    let table = outbound.table();
    let way = way(&table, at, client);
    drop(table);
    let way = way.ok_or_else(|| {
        reset_at_end(&stream);
        Failure::from(FailureKind::NotHere)
    })?;
    carry(outbound, way, Begun::new(stream)).await
}

/// The Service that is meant by a client at a place, and how it is called.
fn way(table: &Table, at: At, client: SocketAddr) -> Option<Way> {
    let (service, port) = table.behind(Protocol::Tcp, at.place)?;
    let outside = service.outside();
    if !outside.admits(client.ip()) {
        return None;
    }
    let labels = service.labels();
    let (namespace, name) = (&labels.namespace, &labels.name);
    Some(Way {
        authority: format!("{name}.{namespace}.svc:{port}"),
        client: Client {
            ip: client.ip().to_canonical(),
            // Nodes that share an address cannot be told apart by it.
            only_here: outside.local && !table.is_shared(at.node),
        },
        tls: None,
    })
}
