//! Servers under load, in alternating rounds, and what came of it.
//!
//! Invariants: every case runs in every round, so a ratio compares neighbours in time; every answer was a 200; CPU time
//! is that of the server's processes alone, without the load generator.

use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, median, number};
use crate::cluster;
use crate::progress::Waiting;

/// Connections of every case, each with one request at a time.
const CONNECTIONS: u16 = 16;
/// `utime` and `stime` of /proc/PID/stat count in these, on every Linux of today.
const TICKS_A_SECOND: f64 = 100.0;

/// One way to serve a component.
pub struct Case<'a> {
    pub name: &'static str,
    /// The cases that it is compared with, by name.
    pub peers: Vec<&'static str>,
    /// Makes a server for one round.
    pub serve: Box<dyn Fn() -> Result<Target> + 'a>,
}

/// What is sent to, for one round.
pub struct Target {
    pub url: String,
    /// `ip:port`.
    pub connect: String,
    /// The process whose CPU time is counted, with its children.
    pub process: u32,
    /// Set where the server lives for this round only.
    #[expect(dead_code, reason = "held for what dropping it does")]
    pub server: Option<Server>,
}

/// A server process, ended when dropped.
pub struct Server(Child);

impl Server {
    pub fn new(process: Child) -> Self {
        Self(process)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Clone, Copy)]
struct Round {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: Option<f64>,
}

/// Runs every case in every round.
pub fn measure(cases: &[Case], effort: &Effort) -> Result<Value> {
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    let mut waiting = Waiting::new();
    for round in 1..=effort.rounds {
        for (case, rounds) in cases.iter().zip(&mut rounds) {
            waiting.show(format!("round {round} of {}: {}", effort.rounds, case.name));
            let target = (case.serve)()?;
            rounds.push(one_round(&target, effort).with_context(|| case.name.to_owned())?);
        }
    }
    let column =
        |rounds: &[Round], pick: fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let results = cases.iter().zip(&rounds).map(|(case, own)| {
        let rates = own.iter().map(|round| round.rate);
        let mut result = json!({
            "case": case.name,
            "requests_per_second": column(own, |round| round.rate),
            "requests_per_second_min": rates.clone().fold(f64::INFINITY, f64::min),
            "requests_per_second_max": rates.fold(0.0, f64::max),
            "p50_us": column(own, |round| round.p50),
            "p99_us": column(own, |round| round.p99),
            "server_cpu_us_per_request": own.iter().map(|round| round.cpu).collect::<Option<Vec<f64>>>().map(median),
        });
        let peers = case.peers.iter().filter_map(|peer| cases.iter().position(|case| case.name == *peer));
        let compared: Vec<Value> = peers
            .map(|peer| {
                let ratio = |pick: fn(&Round) -> f64| {
                    let pairs = own.iter().zip(&rounds[peer]);
                    median(pairs.map(|(own, peer)| pick(own) / pick(peer)).collect())
                };
                json!({
                    "with": cases[peer].name,
                    "ratio_requests_per_second": ratio(|round| round.rate),
                    "ratio_p99": ratio(|round| round.p99),
                })
            })
            .collect();
        result["compared"] = json!(compared);
        result
    });
    Ok(Value::Array(results.collect()))
}

/// Sends load to `connect` and waits for its end: `weft load`'s document.
///
/// # Errors
/// Also when an answer was not a 200.
pub fn send(
    url: &str,
    connect: &str,
    connections: u16,
    seconds: f64,
    warmup: f64,
) -> Result<Value> {
    let [connections, seconds, warmup] = [
        connections.to_string(),
        seconds.to_string(),
        warmup.to_string(),
    ];
    let arguments = [
        "--connections",
        &connections,
        "--seconds",
        &seconds,
        "--warmup",
        &warmup,
    ];
    let measured = cluster::send_load(url, connect, &arguments)?.finish()?;
    if measured["errors"] != 0
        || number(&measured["statuses"]["200"]) != number(&measured["requests"])
    {
        bail!(
            "not every answer was a 200: {} {}",
            measured["statuses"],
            measured["failures"]
        );
    }
    Ok(measured)
}

fn one_round(target: &Target, effort: &Effort) -> Result<Round> {
    let send = |seconds| send(&target.url, &target.connect, CONNECTIONS, seconds, 0.0);
    send(effort.warmup)?;
    let before = cpu_seconds(target.process);
    let measured = send(effort.seconds)?;
    let after = cpu_seconds(target.process);
    let requests = number(&measured["requests"]);
    Ok(Round {
        rate: number(&measured["requests_per_second"]),
        p50: number(&measured["latency_us"]["p50"]),
        p99: number(&measured["latency_us"]["p99"]),
        cpu: before
            .zip(after)
            .map(|(before, after)| (after - before) * 1e6 / requests),
    })
}

/// CPU time so far of a process and its living children; none where there is no /proc.
fn cpu_seconds(process: u32) -> Option<f64> {
    let of = |process: &str| -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in parentheses, may contain spaces.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut next = || fields.next()?.parse::<f64>().ok();
        Some((next()? + next()?) / TICKS_A_SECOND)
    };
    let own = of(&process.to_string())?;
    let children = Command::new("pgrep")
        .args(["-P", &process.to_string()])
        .output()
        .ok()?;
    let children = String::from_utf8_lossy(&children.stdout).into_owned();
    Some(own + children.lines().filter_map(of).sum::<f64>())
}

/// A table of [`measure`]'s results.
pub fn render(cases: &Value) -> String {
    let mut text = format!(
        "  {:<38} {:>9} {:>8} {:>8} {:>8}\n",
        "", "per s", "p50 us", "p99 us", "cpu us"
    );
    let cases = cases.as_array().map_or(&[][..], Vec::as_slice);
    for case in cases {
        text += &format!(
            "  {:<38} {:>9.0} {:>8.0} {:>8.0} {:>8.1}",
            case["case"].as_str().unwrap_or("?"),
            number(&case["requests_per_second"]),
            number(&case["p50_us"]),
            number(&case["p99_us"]),
            number(&case["server_cpu_us_per_request"]),
        );
        let compared = case["compared"].as_array().map_or(&[][..], Vec::as_slice);
        for peer in compared {
            text += &format!(
                "   {:.2}x {} (p99 {:.2}x)",
                number(&peer["ratio_requests_per_second"]),
                peer["with"].as_str().unwrap_or("?"),
                number(&peer["ratio_p99"])
            );
        }
        text.push('\n');
    }
    text
}
