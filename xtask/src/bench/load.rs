//! Servers under load, in alternating rounds, and what came of it.
//!
//! Invariants: every case runs in every round, so a ratio compares neighbours in time; every answer was a 200; CPU time
//! is that of the server's processes alone, without the load generator.

use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::peers::Program;
use super::{Effort, median, number};
use crate::cluster;
use crate::progress::{self, Waiting};

/// Between two looks whether a server listens.
const LISTEN_POLL: Duration = Duration::from_millis(50);
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
    /// What `Host` says, where that is not where to connect.
    pub host: Option<String>,
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

    /// Waits until it listens on loopback; false when it ended, or `patience` did.
    pub fn listens(&mut self, port: u16, patience: Duration) -> bool {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > patience || !matches!(self.0.try_wait(), Ok(None)) {
                return false;
            }
            std::thread::sleep(LISTEN_POLL);
        }
        true
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
                let cpu = own.iter().zip(&rounds[peer]);
                let cpu = cpu.map(|(own, peer)| Some(own.cpu? / peer.cpu?));
                json!({
                    "with": cases[peer].name,
                    "ratio_requests_per_second": ratio(|round| round.rate),
                    "ratio_p99": ratio(|round| round.p99),
                    "ratio_cpu": cpu.collect::<Option<Vec<f64>>>().map(median),
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
    let measured = cluster::send_load(&super::generator(), url, connect, &arguments)?.finish()?;
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
    let send = |seconds: f64| match &effort.wrk {
        Some(wrk) => send_wrk(wrk, target, effort.connections, seconds),
        None => {
            let measured = send(
                &target.url,
                &target.connect,
                effort.connections,
                seconds,
                0.0,
            )?;
            Ok(Sent {
                requests: number(&measured["requests"]),
                rate: number(&measured["requests_per_second"]),
                p50: number(&measured["latency_us"]["p50"]),
                p99: number(&measured["latency_us"]["p99"]),
            })
        }
    };
    send(effort.warmup)?;
    let before = cpu_seconds(target.process);
    let sent = send(effort.seconds)?;
    let after = cpu_seconds(target.process);
    Ok(Round {
        rate: sent.rate,
        p50: sent.p50,
        p99: sent.p99,
        cpu: before
            .zip(after)
            .map(|(before, after)| (after - before) * 1e6 / sent.requests),
    })
}

/// What a generator saw; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sent {
    requests: f64,
    rate: f64,
    p50: f64,
    p99: f64,
}

/// The same load by wrk. It takes whole seconds.
fn send_wrk(wrk: &Program, target: &Target, connections: u16, seconds: f64) -> Result<Sent> {
    let mut command = wrk.command();
    command.args(["--latency", "--threads", "1"]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", seconds.ceil().max(1.0))]);
    if let Some(host) = &target.host {
        command.args(["--header", &format!("Host: {host}")]);
    }
    let text = progress::read(command.arg(format!("http://{}/", target.connect)))?;
    read_wrk(&text).with_context(|| format!("wrk did not measure what was asked:\n{text}"))
}

/// What wrk prints; none when an answer was none, or no success.
fn read_wrk(text: &str) -> Option<Sent> {
    let failed = ["Non-2xx or 3xx responses", "Socket errors"];
    if failed.iter().any(|failure| text.contains(failure)) {
        return None;
    }
    let after = |word: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| Some(line.strip_prefix(word)?.trim()))
    };
    let micros = |text: &str| {
        let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
        let (number, scale) = units
            .iter()
            .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
        Some(number.parse::<f64>().ok()? * scale)
    };
    let counted = text.lines().map(str::trim);
    let mut requests = counted.filter_map(|line| line.split_once(" requests in ")?.0.parse().ok());
    Some(Sent {
        requests: requests.next_back()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: micros(after("50%")?)?,
        p99: micros(after("99%")?)?,
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

#[cfg(test)]
mod tests {
    use super::{Sent, read_wrk};

    const PRINTED: &str = "Running 2s test @ http://127.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   217.21us   92.11us   2.03ms   81.62%
    Req/Sec    71.63k     3.49k   75.02k    90.48%
  Latency Distribution
     50%  198.00us
     75%  262.00us
     90%  331.00us
     99%    1.20ms
  149612 requests in 2.10s, 18.26MB read
Requests/sec:  71241.87
Transfer/sec:      8.70MB
";

    #[test]
    fn what_wrk_prints_is_understood() {
        let sent = Sent {
            requests: 149_612.0,
            rate: 71_241.87,
            p50: 198.0,
            p99: 1200.0,
        };
        assert_eq!(read_wrk(PRINTED), Some(sent));
    }

    #[test]
    fn a_failing_server_is_fast_and_counts_for_nothing() {
        let failing = format!("{PRINTED}  Non-2xx or 3xx responses: 12\n");
        assert_eq!(read_wrk(&failing), None);
        assert_eq!(read_wrk(""), None);
    }
}
