//! Puts and watches on a store of ours, and on etcd, by the same program: `cargo xtask bench store` runs it.
//!
//! `weft --servers N --dir DIR` opens N servers in this process, which reach each other over HTTP/2 and mutual TLS on
//! loopback, and writes on the leader. `etcd --endpoints A,B,C --pids P,Q,R` writes on the leader of a running etcd over
//! its gRPC interface. `fdatasync --dir DIR` asks the disk. Each prints one line of JSON.
//!
//! With `--puts N` the first two make that many puts, keep no samples, and tell how much memory the servers took then and at
//! most: to 50,000 keys, or with `--keys new` each to a key of its own. weft's servers share this process, whose 500 waiting clients are
//! the only thing in it beside them.
//!
//! Values are the first bytes of pods in JSON, each with names, ids, addresses and times of its own: weft compresses values.

#[path = "../../tests/authority/mod.rs"]
mod authority;
mod etcd;
mod pod;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_store::transport::{Link, serve};
use weft_store::{Config, Mutation, Precondition, Start, Store};

use crate::pod::{CLIENTS, KEPT_CLIENTS, KEPT_VALUE_BYTES, KEYS_PER_CLIENT, VALUE_BYTES, pod};

/// As the product's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

const WATCHERS: usize = 1_000;
/// Puts that every watcher hears of.
const WATCHED_PUTS: usize = 200;

/// What is measured: both are cheap to clone.
#[derive(Clone)]
enum Target {
    Weft(Store),
    Etcd(etcd::Client),
}

impl Target {
    async fn put(&self, key: String, value: Bytes) -> Result<(), Error> {
        match self {
            Target::Weft(store) => {
                let put = Mutation::put(key, Precondition::None, value);
                store.write(vec![put], None).await?;
                Ok(())
            }
            Target::Etcd(client) => client.put(key.as_bytes(), &value).await,
        }
    }

    /// Hears `count` puts below `/watched/`, and how old each is.
    async fn watch(
        &self,
        count: usize,
        since: Instant,
        ready: tokio::sync::mpsc::Sender<()>,
    ) -> Result<Vec<Duration>, Error> {
        let mut ages = Vec::with_capacity(count);
        let age = |value: &[u8]| {
            let nanos = value.get(..8).and_then(|bytes| bytes.try_into().ok());
            since
                .elapsed()
                .saturating_sub(Duration::from_nanos(nanos.map_or(0, u64::from_be_bytes)))
        };
        match self {
            Target::Weft(store) => {
                let mut watch = store.watch("/watched/", store.snapshot().revision())?;
                ready.send(()).await?;
                while ages.len() < count {
                    let event = watch.next().await.ok_or("the watch ended")??;
                    ages.push(age(&event.entry.value()));
                }
            }
            Target::Etcd(client) => {
                let mut watch = client.watch(b"/watched/").await?;
                ready.send(()).await?;
                while ages.len() < count {
                    for value in watch.next().await? {
                        ages.push(age(&value));
                    }
                }
            }
        }
        Ok(ages)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn at(sorted: &[Duration], part: f64) -> Duration {
    let nth = (sorted.len() as f64 * part) as usize;
    sorted
        .get(nth.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

async fn puts(target: &Target, clients: usize, duration: Duration) -> Result<Value, Error> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        let target = target.clone();
        running.spawn(async move {
            let mut latencies = Vec::new();
            for turn in 0.. {
                let value = pod(client * KEYS_PER_CLIENT + turn, VALUE_BYTES);
                let begun = Instant::now();
                if begun.duration_since(start) >= duration {
                    break;
                }
                let key = format!("/bench/{client:05}/{:05}", turn % KEYS_PER_CLIENT);
                target.put(key, value.into()).await?;
                latencies.push(begun.elapsed());
            }
            Ok::<_, Error>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(client) = running.join_next().await {
        latencies.extend(client??);
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(json!({
        "clients": clients,
        "puts_per_second": latencies.len() as f64 / elapsed.as_secs_f64(),
        "p50_ms": milliseconds(at(&latencies, 0.50)),
        "p99_ms": milliseconds(at(&latencies, 0.99)),
        "max_ms": milliseconds(at(&latencies, 1.0)),
    }))
}

async fn watches(target: &Target) -> Result<Value, Error> {
    let since = Instant::now();
    let (ready, mut readied) = tokio::sync::mpsc::channel(WATCHERS);
    let mut running = JoinSet::new();
    for _ in 0..WATCHERS {
        let (target, ready) = (target.clone(), ready.clone());
        running.spawn(async move { target.watch(WATCHED_PUTS, since, ready).await });
    }
    for _ in 0..WATCHERS {
        readied.recv().await.ok_or("a watcher did not start")?;
    }
    let start = Instant::now();
    for n in 0..WATCHED_PUTS {
        let mut value = pod(n, VALUE_BYTES);
        let now = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        value[..8].copy_from_slice(&now.to_be_bytes());
        target.put(format!("/watched/{n:05}"), value.into()).await?;
    }
    let mut ages = Vec::new();
    while let Some(watcher) = running.join_next().await {
        ages.extend(watcher??);
    }
    let elapsed = start.elapsed();
    ages.sort_unstable();
    Ok(json!({
        "watchers": WATCHERS,
        "events": ages.len(),
        "events_per_second": ages.len() as f64 / elapsed.as_secs_f64(),
        "p50_ms": milliseconds(at(&ages, 0.50)),
        "p99_ms": milliseconds(at(&ages, 0.99)),
    }))
}

/// Everything but the disk, on one target.
async fn measure(target: &Target, clients: &[usize], seconds: f64) -> Result<Value, Error> {
    let mut rows = Vec::new();
    for clients in clients {
        rows.push(puts(target, *clients, Duration::from_secs_f64(seconds)).await?);
    }
    Ok(json!({ "puts": rows, "watch": watches(target).await? }))
}

/// So many puts, nothing of which is kept here, and what the processes that took them hold afterwards.
async fn memory(
    target: &Target,
    puts: usize,
    keys: usize,
    pids: &[u32],
    servers: u64,
) -> Result<Value, Error> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..KEPT_CLIENTS {
        let target = target.clone();
        running.spawn(async move {
            let number = puts / KEPT_CLIENTS;
            for turn in 0..number {
                let key = format!("/bench/{client:05}/{:05}", turn % keys);
                let value = pod(client * number + turn, KEPT_VALUE_BYTES);
                target.put(key, value.into()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    let elapsed = start.elapsed();
    // What is thrown away a moment later is not held.
    tokio::time::sleep(SETTLE).await;
    let all = |what| pids.iter().map(|pid| status_bytes(*pid, what)).sum::<u64>();
    Ok(json!({
        "puts": puts / KEPT_CLIENTS * KEPT_CLIENTS,
        "puts_per_second": puts as f64 / elapsed.as_secs_f64(),
        "resident_bytes_each": all("VmRSS:") / servers,
        // Without the pages of program and files, which etcd's database is mapped as.
        "anonymous_bytes_each": all("RssAnon:") / servers,
        "peak_bytes_each": all("VmHWM:") / servers,
    }))
}

/// After the last put: checkpoints are made once a second.
const SETTLE: Duration = Duration::from_secs(3);

fn status_bytes(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

struct Server {
    store: Store,
    stop: CancellationToken,
}

/// Opens so many servers, of which the first leads for the time being.
async fn open(servers: u64, dir: &Path) -> Result<Vec<Server>, Error> {
    let authority = authority::Authority::new();
    let mut open: Vec<Server> = Vec::new();
    for number in 1..=servers {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let id = match open.first() {
            None => 1,
            Some(first) => first.store.add_learner(address.clone()).await?,
        };
        let tls = authority.tls(id);
        let config = Config {
            server_id: id,
            address,
            start: if number == 1 {
                Start::Alone
            } else {
                Start::Joining
            },
            ..Config::new(dir.join(format!("server-{number}")))
        };
        let store = Store::open_with(config, Arc::new(Link::new(&tls))).await?;
        let stop = CancellationToken::new();
        tokio::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            async move { serve(listener, &tls, store, stop).await }
        });
        if let Some(first) = open.first() {
            first.store.promote(id).await?;
        } else {
            store.leadership().wait_for(Option::is_some).await?;
        }
        open.push(Server { store, stop });
    }
    Ok(open)
}

async fn weft(servers: u64, dir: &Path, work: Work) -> Result<Value, Error> {
    let open = open(servers, dir).await?;
    let leader = open
        .iter()
        .find(|server| server.store.leadership().borrow().is_some());
    let target = Target::Weft(leader.ok_or("nobody leads")?.store.clone());
    let measured = match work {
        Work::Seconds(seconds) => measure(&target, &CLIENTS, seconds).await?,
        Work::Puts(puts, keys) => {
            memory(&target, puts, keys, &[std::process::id()], servers).await?
        }
    };
    for server in open {
        server.stop.cancel();
        server.store.shutdown().await;
    }
    Ok(measured)
}

async fn etcd(endpoints: &str, pids: &[u32], work: Work) -> Result<Value, Error> {
    let target = Target::Etcd(etcd::Client::connect(endpoints).await?);
    match work {
        Work::Seconds(seconds) => measure(&target, &CLIENTS, seconds).await,
        Work::Puts(puts, keys) => memory(&target, puts, keys, pids, pids.len() as u64).await,
    }
}

/// How much is done: as much as a time allows, or so many puts.
enum Work {
    Seconds(f64),
    /// Puts, and keys of each client.
    Puts(usize, usize),
}

/// Appends of one block, each of them synced.
fn fdatasync(dir: &Path, seconds: f64) -> Result<Value, Error> {
    use std::io::Write as _;
    let path = dir.join("fdatasync");
    let mut file = std::fs::File::create(&path)?;
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(json!({
        "per_second": times.len() as f64 / start.elapsed().as_secs_f64(),
        "p50_ms": milliseconds(at(&times, 0.50)),
        "p99_ms": milliseconds(at(&times, 0.99)),
    }))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let what = args.next().ok_or("weft, etcd or fdatasync?")?;
    let mut options = std::collections::HashMap::new();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        options.insert(name, value);
    }
    let option = |name: &str| options.get(name).ok_or(format!("{name} is missing"));
    let work = match options.get("--puts") {
        Some(puts) => {
            let keys = match options.get("--keys").map(String::as_str) {
                None => KEYS_PER_CLIENT,
                Some("new") => usize::MAX,
                Some(_) => return Err("--keys takes the word new".into()),
            };
            Work::Puts(puts.parse()?, keys)
        }
        None => Work::Seconds(option("--seconds")?.parse()?),
    };
    let dir = || Ok::<_, Error>(PathBuf::from(option("--dir")?));
    let measured = match what.as_str() {
        "weft" => weft(option("--servers")?.parse()?, &dir()?, work).await?,
        "etcd" => {
            let pids = option("--pids")?.split(',').map(str::parse);
            let pids = pids.collect::<Result<Vec<u32>, _>>()?;
            etcd(option("--endpoints")?, &pids, work).await?
        }
        // Whether there is a leader.
        "ready" => {
            etcd::Client::connect(option("--endpoints")?).await?;
            Value::Null
        }
        "fdatasync" => match work {
            Work::Seconds(seconds) => fdatasync(&dir()?, seconds)?,
            Work::Puts(..) => return Err("fdatasync takes --seconds".into()),
        },
        other => return Err(format!("{other} is none of weft, etcd and fdatasync").into()),
    };
    println!("{measured}");
    Ok(())
}
