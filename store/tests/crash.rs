//! `kill -9` at any moment loses no acknowledged write.
//!
//! The test starts itself as a child that writes under load and reports each acknowledged write on stdout; it kills the
//! child at a random moment, opens the store and compares. The data folder lives through all rounds, so each start also
//! recovers what the crash before it left. `WEFT_SEED=…` replays the moments, `WEFT_CRASHES=…` sets the rounds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use weft_store::{Config, EventKind, Key, Mutation, Precondition, Store};

const CHILD: &str = "WEFT_CRASH_CHILD";
const CLIENTS: u64 = 24;
const KEYS_PER_CLIENT: u64 = 8;

/// A checkpoint every few milliseconds, and a history shorter than a round: both are then caught in the act.
fn config(dir: &Path) -> Config {
    Config {
        checkpoint_interval: Duration::from_millis(20),
        history_events_max: 2_000,
        ..Config::new(dir)
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes until killed: each client puts increasing numbers under its keys, every fourth time two keys at once, and
/// prints `key number revision` once acknowledged.
async fn child(dir: &Path) {
    let store = Store::open(config(dir)).await.expect("child opens");
    let first = store.snapshot().revision() + 1;
    println!("ready");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for turn in 0_u64.. {
                    // Numbers grow over all rounds, because revisions do.
                    let number = (first << 20) + turn;
                    let value = format!("{number} {}", "x".repeat((turn % 700) as usize));
                    let name = |slot: u64| format!("/c/{client:02}/{:02}", slot % KEYS_PER_CLIENT);
                    let mut keys = vec![name(turn)];
                    if turn % 4 == 0 {
                        keys.push(name(turn + 1));
                    }
                    let puts = keys
                        .iter()
                        .map(|key| Mutation::put(key.clone(), Precondition::None, value.clone()))
                        .collect();
                    let revision = store.write(puts, None).await.expect("child writes");
                    let mut out = std::io::stdout().lock();
                    let count = keys.len() as u64;
                    let mut line = String::new();
                    for (nth, key) in (0..).zip(&keys) {
                        line += &format!("{key} {number} {}\n", revision + 1 + nth - count);
                    }
                    out.write_all(line.as_bytes()).expect("parent reads");
                    out.flush().expect("parent reads");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("client");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

#[test]
fn kill_9_loses_no_acknowledged_write() {
    if let Ok(dir) = std::env::var(CHILD) {
        runtime().block_on(child(Path::new(&dir)));
        return;
    }
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let seed = number("WEFT_SEED").unwrap_or(clock.as_nanos() as u64) | 1;
    let rounds = number("WEFT_CRASHES").unwrap_or(50);
    println!("WEFT_SEED={seed}");
    let mut random = seed;

    // Beside the build, not in /tmp: that may be memory.
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let dir = tempfile::Builder::new()
        .prefix("crash")
        .tempdir_in(folder)
        .expect("tempdir");
    let mut newest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut acknowledged = 0;
    let mut last_revision = 0;
    let mut rounds_with_writes = 0;
    for round in 0..rounds {
        let mut process = Command::new(std::env::current_exe().expect("own path"))
            .args([
                "--exact",
                "kill_9_loses_no_acknowledged_write",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child starts");
        let out = BufReader::new(process.stdout.take().expect("piped"));
        let (ready, wait_ready) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut lines = Vec::new();
            for line in out.lines() {
                let line = line.expect("utf-8");
                if line.ends_with("ready") {
                    let _ = ready.send(());
                } else if line.starts_with("/c/") {
                    lines.push(line);
                }
            }
            lines
        });
        // Most rounds die under load; every fifth while still starting.
        if round % 5 == 4 {
            std::thread::sleep(Duration::from_millis(xorshift(&mut random) % 60));
        } else {
            let _ = wait_ready.recv();
            std::thread::sleep(Duration::from_millis(xorshift(&mut random) % 500));
        }
        process.kill().expect("SIGKILL");
        let status = process.wait().expect("reaped");
        assert_eq!(
            status.signal(),
            Some(9),
            "seed {seed}: the child ended before it was killed: {status}"
        );
        let lines = reader.join().expect("reader");

        rounds_with_writes += u64::from(!lines.is_empty());
        acknowledged += lines.len();
        for line in lines {
            let fields: Vec<_> = line.split(' ').collect();
            // The kill may have cut the last line.
            let [key, number, revision] = fields[..] else {
                continue;
            };
            let (Ok(number), Ok(revision)) = (number.parse(), revision.parse::<u64>()) else {
                continue;
            };
            assert!(
                revision > last_revision || round == 0,
                "seed {seed}: revision went back"
            );
            let seen = newest.entry(key.to_owned()).or_insert((number, revision));
            if revision > seen.1 {
                assert!(number >= seen.0, "seed {seed}: {key} went back");
                *seen = (number, revision);
            }
        }
        last_revision = runtime().block_on(check(dir.path(), &newest, last_revision, seed));
    }
    println!(
        "{acknowledged} acknowledged writes over {rounds_with_writes} loaded rounds, revision {last_revision}"
    );
    assert!(
        rounds_with_writes * 2 >= rounds,
        "too few rounds had load to prove anything"
    );
}

/// Every acknowledged write is there or was overwritten by a later one; the kept history is whole. Returns the revision.
async fn check(
    dir: &Path,
    newest: &BTreeMap<String, (u64, u64)>,
    last_revision: u64,
    seed: u64,
) -> u64 {
    let store = Store::open(config(dir)).await.expect("opens after a crash");
    let snapshot = store.read().await.expect("leads");
    let revision = snapshot.revision();
    assert!(revision >= last_revision, "seed {seed}: revision went back");
    for (key, (number, acknowledged)) in newest {
        let entry = snapshot.get(&Key::from(key.as_str()));
        let entry = entry
            .unwrap_or_else(|| panic!("seed {seed}: {key} of revision {acknowledged} is lost"));
        let value = entry.value();
        let value = std::str::from_utf8(&value).expect("utf-8");
        let stored: u64 = value
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert!(
            entry.revision >= *acknowledged,
            "seed {seed}: {key} is older than acknowledged"
        );
        assert!(
            entry.revision <= revision,
            "seed {seed}: {key} is newer than the store"
        );
        if entry.revision == *acknowledged {
            assert_eq!(stored, *number, "seed {seed}: {key} has another value");
        } else {
            assert!(stored >= *number, "seed {seed}: {key} has an older value");
        }
    }
    // The history goes on from the oldest kept revision to the newest, and its last word on a key is the state's.
    let oldest = match store.watch("/", 0) {
        Err(weft_store::WatchError::Compacted { oldest }) => oldest,
        _ => 0,
    };
    let mut watch = store.watch("/", oldest).expect("kept");
    let mut last_word = BTreeMap::new();
    for expected in oldest + 1..=revision {
        let event = watch.next().await.expect("open").expect("not lagging");
        assert_eq!(event.revision, expected, "seed {seed}: gap in the history");
        assert_eq!(event.kind, EventKind::Put);
        if let Some(previous) = &event.previous {
            assert!(previous.revision < event.revision);
        }
        last_word.insert(event.entry.key.clone(), event.entry.clone());
    }
    for (key, entry) in last_word {
        assert_eq!(
            snapshot.get(&key),
            Some(entry),
            "seed {seed}: history and state differ"
        );
    }
    assert_eq!(watch.progress(), revision);
    drop(watch);
    store.shutdown().await;
    revision
}
