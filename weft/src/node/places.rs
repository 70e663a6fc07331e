//! Listeners at addresses that Gateways have for themselves, opened and closed as those come and go.
//!
//! Each place has a listener a core, as the node's own ports have. The nodes of a machine share their places: the kernel spreads connections
//! over all of them.
//!
//! Invariants: what is not a place any more takes no further connection, and finishes what it had; a place that cannot be listened on is
//! told of once and tried again, and keeps no other from being opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_mesh::Mesh;
use weft_runtime::Cores;

use super::listen;

/// How often a place is tried that could not be listened on.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows the mesh's places until `stop`, then waits until all of them have ended.
pub(super) async fn follow(mesh: Mesh, cores: Cores, count: usize, stop: CancellationToken) {
    let mut places = mesh.places();
    let mut open: BTreeMap<SocketAddr, CancellationToken> = BTreeMap::new();
    let mut refused: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut serving: JoinSet<()> = JoinSet::new();
    loop {
        let wanted = places.borrow_and_update().clone();
        open.retain(|place, token| {
            let is_wanted = wanted.contains(place);
            if !is_wanted {
                token.cancel();
            }
            is_wanted
        });
        refused.retain(|place| wanted.contains(place));
        for place in &wanted {
            if open.contains_key(place) {
                continue;
            }
            let listeners = match listen_at(*place, count) {
                Ok(listeners) => listeners,
                Err(error) => {
                    if refused.insert(*place) {
                        tracing::warn!(%place, %error, "a Gateway's address cannot be listened on");
                    }
                    continue;
                }
            };
            refused.remove(place);
            let token = stop.child_token();
            for (core, listener) in listeners.into_iter().enumerate() {
                let (mesh, place, stop) = (mesh.clone(), *place, token.clone());
                serving.spawn(super::watched(
                    "gateway",
                    cores.spawn_on(core, async move {
                        mesh.serve_place(place, listener, stop).await
                    }),
                ));
            }
            open.insert(*place, token);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = places.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(AGAIN), if !refused.is_empty() => {}
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
        }
    }
    while serving.join_next().await.is_some() {}
}

fn listen_at(place: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let listener = |_| {
        listen("gateway", place.ip(), place.port(), true).map_err(|error| match error {
            super::NodeError::Listen { source, .. } => source,
            other => io::Error::other(other),
        })
    };
    (0..count).map(listener).collect()
}
