//! The load of the store's bench through the API: the same values, in ConfigMaps, by as many clients, each with a connection of its own.
//!
//! A key's first put creates its object, every later one replaces it whatever it is by then.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, Pool};
use crate::pod::{CLIENTS, KEPT_CLIENTS, KEPT_VALUE_BYTES, KEYS_PER_CLIENT, VALUE_BYTES, pod};
use crate::process::Measured;
use crate::{Effort, Error, MAPS, REST, at, milliseconds};

/// Puts a second with few and many clients, and what the server holds after many puts.
pub async fn measure(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let seconds = Duration::from_secs_f64(effort.seconds / CLIENTS.len() as f64);
    let mut rows = Vec::new();
    for clients in CLIENTS {
        rows.push(rate(pool, clients, seconds).await?);
    }
    Ok(json!({ "puts": rows, "memory": memory(pool, server, effort.puts).await? }))
}

async fn put(
    client: &Client,
    set: &str,
    owner: usize,
    turn: usize,
    value: Vec<u8>,
) -> Result<(), Error> {
    let name = format!("{set}-{owner:05}-{:05}", turn % KEYS_PER_CLIENT);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"pod": String::from_utf8(value)?},
    });
    if turn < KEYS_PER_CLIENT {
        client.create(MAPS, &map).await
    } else {
        client.replace(&format!("{MAPS}/{name}"), &map).await
    }
}

async fn rate(pool: &Pool, clients: usize, duration: Duration) -> Result<Value, Error> {
    let mut running = JoinSet::new();
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(pool.connect().await?);
    }
    let start = Instant::now();
    for (owner, client) in connected.into_iter().enumerate() {
        running.spawn(async move {
            let set = format!("puts-{clients}");
            let mut times = Vec::new();
            for turn in 0.. {
                let value = pod(owner * KEYS_PER_CLIENT + turn, VALUE_BYTES);
                let begun = Instant::now();
                if begun.duration_since(start) >= duration {
                    break;
                }
                put(&client, &set, owner, turn, value).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, Error>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(client) = running.join_next().await {
        times.extend(client??);
    }
    let elapsed = start.elapsed().as_secs_f64();
    Ok(json!({
        "clients": clients, "puts_per_second": times.len() as f64 / elapsed,
        "p50_ms": milliseconds(at(times.clone(), 0.5)), "p99_ms": milliseconds(at(times, 0.99)),
    }))
}

async fn memory(pool: &Pool, server: &Measured, puts: usize) -> Result<Value, Error> {
    let each = puts / KEPT_CLIENTS;
    let mut connected = Vec::new();
    for _ in 0..KEPT_CLIENTS {
        connected.push(pool.connect().await?);
    }
    server.forget_peak()?;
    let start = Instant::now();
    let mut running = JoinSet::new();
    for (owner, client) in connected.into_iter().enumerate() {
        running.spawn(async move {
            for turn in 0..each {
                let value = pod(owner * each + turn, KEPT_VALUE_BYTES);
                put(&client, "kept", owner, turn, value).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    let elapsed = start.elapsed().as_secs_f64();
    tokio::time::sleep(REST).await;
    let memory = server.memory()?;
    Ok(json!({
        "puts": each * KEPT_CLIENTS, "puts_per_second": (each * KEPT_CLIENTS) as f64 / elapsed,
        "resident_bytes_each": memory.resident, "peak_bytes_each": memory.peak,
    }))
}
