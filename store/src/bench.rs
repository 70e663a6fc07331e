//! Measures a store: puts a second and their latency, with a number of clients that each wait for their last put.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::command::{Mutation, Precondition};
use crate::error::WriteError;
use crate::{Revision, Store};

/// What to put on the store.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients, each with one put under way.
    pub clients: usize,
    /// Keys each client writes in turn.
    pub keys_per_client: usize,
    /// Size of a value.
    pub value_bytes: usize,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Puts acknowledged.
    pub puts: u64,
    /// Puts acknowledged a second.
    pub puts_per_second: f64,
    /// Half of the puts took no longer than this.
    pub p50: Duration,
    /// 99 of 100 puts took no longer than this.
    pub p99: Duration,
    /// The slowest put.
    pub max: Duration,
    /// The store's revision afterwards.
    pub revision: Revision,
}

/// Runs `load` against `store`, under keys that start with `/bench/`.
///
/// # Errors
/// The first [`WriteError`] a client met.
pub async fn puts(store: &Store, load: Load) -> Result<Report, WriteError> {
    let value = Bytes::from(vec![b'v'; load.value_bytes]);
    let start = Instant::now();
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for turn in 0.. {
                    let begun = Instant::now();
                    if begun.duration_since(start) >= load.duration {
                        break;
                    }
                    let key = format!(
                        "/bench/{client:05}/{:05}",
                        turn % load.keys_per_client.max(1)
                    );
                    let put = Mutation::put(key, Precondition::None, value.clone());
                    store.write(vec![put], None).await?;
                    latencies.push(begun.elapsed());
                }
                Ok::<_, WriteError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.map_err(|_| WriteError::Closed)??);
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    let at = |part: f64| {
        let nth = (latencies.len() as f64 * part) as usize;
        latencies
            .get(nth.min(latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    Ok(Report {
        puts: latencies.len() as u64,
        puts_per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50: at(0.50),
        p99: at(0.99),
        max: at(1.0),
        revision: store.snapshot().revision(),
    })
}
