//! The store beside etcd: puts a second with 1 to 500 clients, a thousand watchers, memory after as many puts, for one and
//! three servers; and how long real servers with many objects take to serve again.
//!
//! Both are driven by `store/examples/bench`, in alternating order. weft's servers share its process and reach each other over
//! mutual TLS; etcd's are processes of their own without TLS, and the clients write on its leader
//! over gRPC, which costs both of them what weft's clients do not pay: this is the level of the store, not of an API. Which etcd
//! is told with the results: the one that `WEFT_ETCD` names, else the one on PATH, else Debian's. The
//! disk is asked before and after each run, so that one that changed its mind is seen.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::peers::{self, Program};
use super::{Effort, api, median, number};
use crate::kube_apiserver::{self, KubeApiserver};
use crate::progress::{self, Waiting};

/// As in `store/examples/bench`.
const CLIENTS: [usize; 4] = [1, 16, 128, 500];
const SERVERS: [usize; 2] = [1, 3];
/// How long etcd may take to elect a leader.
const PATIENCE: Duration = Duration::from_secs(30);
const PROBE_SECONDS: &str = "0.5";
/// As many new keys as `etcdctl check perf --load l` puts in its minute, by as many clients.
const NEW_KEYS: usize = 480_000;
/// Puts after which both are asked for their memory. etcd keeps every version of a value until it is told not to, and 100,000
/// entries of its log: fewer would not show it.
const KEPT_PUTS: usize = 300_000;

pub fn build() -> Result<()> {
    let mut cargo = progress::cargo([
        "build",
        "--release",
        "--workspace",
        "--example",
        "bench",
        "--example",
        "restart",
        "--example",
        "load",
    ]);
    progress::run(&mut cargo, "read the compiler's messages above")
}

fn program() -> Command {
    Command::new("target/release/examples/bench")
}

fn ask(command: &mut Command) -> Result<Value> {
    serde_json::from_str(&progress::read(command)?).context("reading what the bench prints")
}

pub fn measure(effort: &Effort) -> Result<Value> {
    build()?;
    let dir = PathBuf::from("target/bench-store");
    let etcd = peers::etcd();
    if etcd.is_none() {
        eprintln!(
            "      etcd is not installed and could not be fetched: nothing to compare with (Debian's etcd-server)"
        );
    }
    let mut waiting = Waiting::new();
    let mut cases = Vec::new();
    for servers in SERVERS {
        for name in ["weft", "etcd"] {
            if name == "weft" || etcd.is_some() {
                cases.push((name, servers, Vec::new()));
            }
        }
    }
    let mut disk = Vec::new();
    for round in 0..effort.rounds {
        // Every other round the other way round: what comes second finds a warmer, or a fuller, disk.
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (name, servers, rows) = &mut cases[at];
            waiting.show(format!(
                "round {} of {}: {name}, {servers} servers",
                round + 1,
                effort.rounds
            ));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir)?;
            disk.push(fdatasync(&dir)?);
            let run = |work: &[&str]| {
                let _ = std::fs::remove_dir_all(&dir);
                std::fs::create_dir_all(&dir)?;
                match (*name, &etcd) {
                    ("etcd", Some(program)) => etcd_run(program, *servers, &dir, work),
                    _ => ask(program()
                        .args(["weft", "--servers", &servers.to_string(), "--dir"])
                        .arg(&dir)
                        .args(work)),
                }
            };
            let mut row = run(&["--seconds", &effort.seconds.to_string()])?;
            row["memory"] = run(&["--puts", &KEPT_PUTS.to_string()])?;
            if round == 0 {
                row["new_keys"] = run(&["--puts", &NEW_KEYS.to_string(), "--keys", "new"])?;
            }
            rows.push(row);
            disk.push(fdatasync(&dir)?);
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
    let mut restarts = Vec::new();
    for servers in SERVERS {
        waiting.show(format!("{servers} servers with {} objects", effort.objects));
        restarts.push(ask(Command::new("target/release/examples/restart")
            .args(["--servers", &servers.to_string()])
            .args(["--objects", &effort.objects.to_string()]))?);
    }
    waiting.show("the same puts through the API".to_owned());
    let api = through_api(effort, &dir)?;
    drop(waiting);
    let middle = |rows: &[Value], pointer: &str| {
        let values = rows.iter().filter_map(|row| row.pointer(pointer)?.as_f64());
        median(values.collect())
    };
    let memory = |rows: &[Value], what: &str| {
        let of = |key: &str| middle(rows, &format!("/{what}/{key}"));
        json!({
            "puts": of("puts"), "puts_per_second": of("puts_per_second"),
            "resident_bytes_each": of("resident_bytes_each"),
            "peak_bytes_each": of("peak_bytes_each"),
        })
    };
    let cases: Vec<Value> = cases
        .iter()
        .map(|(name, servers, rows)| {
            let puts: Vec<Value> = (0..CLIENTS.len())
                .map(|n| {
                    let of = |key: &str| middle(rows, &format!("/puts/{n}/{key}"));
                    json!({
                        "clients": CLIENTS[n], "puts_per_second": of("puts_per_second"),
                        "p50_ms": of("p50_ms"), "p99_ms": of("p99_ms"),
                    })
                })
                .collect();
            json!({
                "name": name, "servers": servers, "puts": puts,
                "watch": {
                    "events_per_second": middle(rows, "/watch/events_per_second"),
                    "p99_ms": middle(rows, "/watch/p99_ms"),
                },
                "memory": memory(rows, "memory"),
                "new_keys": memory(rows, "new_keys"),
            })
        })
        .collect();
    Ok(json!({
        "etcd": etcd.as_ref().and_then(version),
        "cases": cases,
        "restarts": restarts,
        "through_api": api,
        "fdatasync": {
            "p50_ms": median(disk.iter().map(|probe| number(&probe["p50_ms"])).collect()),
            "p99_ms": median(disk.iter().map(|probe| number(&probe["p99_ms"])).collect()),
            "slowest_p50_ms": disk.iter().map(|probe| number(&probe["p50_ms"])).fold(0.0, f64::max),
        },
    }))
}

/// The same load as requests of the Kubernetes API, over TLS: what weft's clients pay when they are no part of it, as etcd's are not.
fn through_api(effort: &Effort, dir: &Path) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for name in ["weft", "kube-apiserver"] {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
        let mut load = Command::new("target/release/examples/load");
        load.args(["--only", "puts"]);
        if effort.quick {
            load.arg("--quick");
        }
        let peer = match (name, kube_apiserver::found()) {
            ("weft", _) => {
                load.arg("--dir").arg(dir);
                None
            }
            (_, Some(binaries)) => {
                let peer = KubeApiserver::start(&binaries, dir, &api::SETUP)?;
                load.args(["--pid", &peer.pid().to_string()]);
                load.args(["--port", &peer.port.to_string()]);
                Some(peer)
            }
            (_, None) => continue,
        };
        let mut row = ask(&mut load)?["puts"].take();
        drop(peer);
        row["name"] = name.into();
        rows.push(row);
    }
    let _ = std::fs::remove_dir_all(dir);
    Ok(rows)
}

fn fdatasync(dir: &Path) -> Result<Value> {
    ask(program()
        .arg("fdatasync")
        .arg("--dir")
        .arg(dir)
        .args(["--seconds", PROBE_SECONDS]))
}

/// What an etcd says that it is: `3.7.3`.
fn version(etcd: &Program) -> Option<String> {
    let told = progress::read(etcd.command().arg("--version")).ok()?;
    let version = told.lines().next()?.rsplit(' ').next()?;
    Some(version.to_owned())
}

/// Ends with the bench.
struct Etcd(Vec<Child>);

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn etcd_run(program: &Program, servers: usize, dir: &Path, work: &[&str]) -> Result<Value> {
    // Free now; nobody else on this machine is after them in the next milliseconds.
    let ports = (0..servers * 2)
        .map(|_| Ok(TcpListener::bind("127.0.0.1:0")?))
        .collect::<Result<Vec<_>>>()?
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<Result<Vec<_>>>()?;
    let (clients, peers) = ports.split_at(servers);
    let cluster: Vec<String> = peers
        .iter()
        .enumerate()
        .map(|(n, port)| format!("n{n}=http://127.0.0.1:{port}"))
        .collect();
    let mut etcd = Etcd(Vec::new());
    for n in 0..servers {
        let client = format!("http://127.0.0.1:{}", clients[n]);
        let peer = format!("http://127.0.0.1:{}", peers[n]);
        let process = program
            .command()
            .args(["--name", &format!("n{n}"), "--data-dir"])
            .arg(dir.join(format!("etcd-{n}")))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &cluster.join(","),
                "--log-level",
                "error",
            ])
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start etcd")?;
        etcd.0.push(process);
    }
    let endpoints: Vec<String> = clients
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let pids: Vec<String> = etcd
        .0
        .iter()
        .map(|process| process.id().to_string())
        .collect();
    let started = Instant::now();
    loop {
        // Answers once there is a leader.
        match ask(&mut etcd_client(
            "ready",
            &endpoints,
            &pids,
            &["--seconds", "0"],
        )) {
            Ok(_) => break,
            Err(error) if started.elapsed() > PATIENCE => bail!("etcd has no leader: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    ask(&mut etcd_client("etcd", &endpoints, &pids, work))
}

fn etcd_client(what: &str, endpoints: &[String], pids: &[String], work: &[&str]) -> Command {
    let mut client = program();
    client.args([what, "--endpoints", &endpoints.join(",")]);
    client.args(["--pids", &pids.join(",")]).args(work);
    client
}

pub fn render(results: &Value) -> String {
    let mut text = "\nThe store: puts of 256 bytes, the beginnings of pods in JSON\n".to_owned();
    if let Some(version) = results["etcd"].as_str() {
        text += &format!("  beside etcd {version}\n");
    }
    text += &format!("  {:<16}", "");
    for clients in CLIENTS {
        text += &format!("{:>26}", format!("{clients} clients"));
    }
    text += &format!(
        "{:>26}{:>26}{:>26}\n",
        "1,000 watchers", "300,000 of 1 KiB", "480,000 new keys"
    );
    let cases = results["cases"].as_array().map_or(&[][..], Vec::as_slice);
    for case in cases {
        let servers = case["servers"].as_u64().unwrap_or(0);
        text += &format!(
            "  {:<16}",
            format!("{} {servers}", case["name"].as_str().unwrap_or("?"))
        );
        for row in case["puts"].as_array().into_iter().flatten() {
            text += &format!(
                "{:>8.0}/s {:>6.2} {:>6.1} ms",
                number(&row["puts_per_second"]),
                number(&row["p50_ms"]),
                number(&row["p99_ms"])
            );
        }
        text += &format!(
            "{:>11.0}/s p99 {:>5.0} ms{}{}\n",
            number(&case["watch"]["events_per_second"]),
            number(&case["watch"]["p99_ms"]),
            resident(&case["memory"]),
            resident(&case["new_keys"])
        );
    }
    let of = |name: &str, servers: usize| {
        cases
            .iter()
            .find(|case| case["name"] == name && case["servers"] == servers)
    };
    for servers in SERVERS {
        let (Some(ours), Some(theirs)) = (of("weft", servers), of("etcd", servers)) else {
            continue;
        };
        let ratio = |pointer: &str| {
            let at = |case: &Value| case.pointer(pointer).map_or(f64::NAN, number);
            at(ours) / at(theirs)
        };
        text += &format!(
            "  weft to etcd, {servers}: at 500 clients {:.2} times the puts, {:.2} of the p99; at one {:.2} and {:.2}; {:.2} of the memory, {:.2} with new keys\n",
            ratio("/puts/3/puts_per_second"),
            ratio("/puts/3/p99_ms"),
            ratio("/puts/0/puts_per_second"),
            ratio("/puts/0/p99_ms"),
            ratio("/memory/resident_bytes_each"),
            ratio("/new_keys/resident_bytes_each")
        );
    }
    for case in results["through_api"].as_array().into_iter().flatten() {
        text += &format!("  {:<16}", case["name"].as_str().unwrap_or("?"));
        for row in case["puts"].as_array().into_iter().flatten() {
            text += &format!(
                "{:>8.0}/s {:>6.2} {:>6.1} ms",
                number(&row["puts_per_second"]),
                number(&row["p50_ms"]),
                number(&row["p99_ms"])
            );
        }
        text += &format!(
            "  through the API, over TLS;{}, after {} puts of 1 KiB at {:.0}/s\n",
            resident(&case["memory"]),
            case["memory"]["puts"],
            number(&case["memory"]["puts_per_second"])
        );
    }
    for restart in results["restarts"].as_array().into_iter().flatten() {
        text += &restarted(restart);
    }
    text + &format!(
        "  fdatasync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms, slowest probe's p50 {:.2} ms\n",
        number(&results["fdatasync"]["p50_ms"]),
        number(&results["fdatasync"]["p99_ms"]),
        number(&results["fdatasync"]["slowest_p50_ms"])
    )
}

fn resident(memory: &Value) -> String {
    format!(
        "{:>8.0} MB, at most {:>4.0}",
        number(&memory["resident_bytes_each"]) / 1e6,
        number(&memory["peak_bytes_each"]) / 1e6
    )
}

/// When the first server, and the last, did what, in seconds from the start of the processes.
fn restarted(restart: &Value) -> String {
    let mut text = String::new();
    for (how, after) in [("killed", "kill -9"), ("stopped", "a clean stop")] {
        let all = |pointer: &str| {
            let servers = restart[how]["servers"].as_array().into_iter().flatten();
            let times = servers.map(|server| number(&server[pointer]));
            let times: Vec<f64> = times.collect();
            let first = times.iter().copied().fold(f64::INFINITY, f64::min);
            let last = times.iter().copied().fold(0.0, f64::max);
            format!("{first:.2} to {last:.2} s")
        };
        let largest = |values: &Value, pointer: &str| {
            let values = values.as_array().into_iter().flatten();
            let sizes = values.map(|value| value.pointer(pointer).map_or(0.0, number));
            sizes.fold(0.0, f64::max) / 1e6
        };
        text += &format!(
            "  {} servers with {} objects, after {after}: read {}, page of a list {}, write {}; {:.0} MB resident (at most {:.0}), {:.0} MB on disk\n",
            restart["servers"],
            restart["objects"],
            all("read_seconds"),
            all("page_seconds"),
            all("write_seconds"),
            largest(&restart[how]["resident"], "/now_bytes"),
            largest(&restart[how]["resident"], "/peak_bytes"),
            largest(&restart[how]["folder_bytes"], "")
        );
    }
    text
}
