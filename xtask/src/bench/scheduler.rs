//! The scheduler through the API: pods bound a second on thousands of nodes, beside kube-scheduler on kube-apiserver and etcd.
//!
//! `weft/examples/schedule` makes the same Node objects and the same pods for both, and tells when all have a node; it shares the machine.
//! Each run is a new store. Where the three binaries are found ([`crate::kube_apiserver`]), they take turns with weft, round for round; a ratio is
//! the median of the rounds' ratios. A run that fails is told and leaves its round out; the others count. The planner alone is
//! `scheduler/examples/planner`.
//!
//! With `--nodes` there is one run instead, on nodes that `weft node --hollow` plays: what each tenth of the pods took, and what the server
//! held then.
//!
//! kube-scheduler has no limit of requests here (`--kube-api-qps`), nor has the driver: what is compared is what they can do.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, api, median, number};
use crate::Failure;
use crate::kube_apiserver::{self, KubeApiserver, Setup};
use crate::progress::{self, Waiting};

/// Rounds at most: one takes some minutes.
const ROUNDS_MAX: usize = 3;
/// Case, nodes and pods; with `--quick`, nodes and pods. More than so many times the peers' binds a second is asked for.
const CASES: [(&str, [usize; 2], [usize; 2], f64); 4] = [
    ("plain", [5_000, 10_000], [1_000, 2_000], 5.0),
    ("spread", [5_000, 5_000], [1_000, 2_000], 5.0),
    ("apart", [5_000, 3_000], [1_000, 900], 15.0),
    ("preemption", [1_000, 900], [200, 150], 3.0),
];
const PLANNER: &str = "planner";
/// Pods for each node of a large run, if nothing is said.
const PODS_A_NODE: u32 = 10;

pub fn measure(effort: &Effort) -> Result<Value> {
    check_cases(&effort.cases)?;
    if !effort.is_built {
        let mut cargo = progress::cargo(["build", "--release", "--workspace", "--bin", "weft"]);
        let examples = ["--example", "schedule", "--example", PLANNER];
        progress::run(cargo.args(examples), "read the compiler's messages above")?;
    }
    if let Some(nodes) = effort.nodes {
        return large(effort, nodes);
    }
    let is_asked =
        |name: &str| effort.cases.is_empty() || effort.cases.iter().any(|asked| asked == name);
    let mut waiting = Waiting::new();
    let mut planner: Vec<Value> = Vec::new();
    if is_asked(PLANNER) {
        waiting.show("the planner alone");
        let mut program = Command::new(effort.programs.join("examples").join(PLANNER));
        program.arg("--json");
        if effort.quick {
            program.args(["100", "1000", "5000"]);
        }
        for line in progress::read(&mut program)?.lines() {
            let row = serde_json::from_str(line).context("reading what the planner prints")?;
            planner.push(row);
        }
    }
    let binaries = kube_apiserver::found().filter(|dir| dir.join("kube-scheduler").is_file());
    let chosen: Vec<_> = CASES
        .into_iter()
        .filter(|(name, ..)| is_asked(name))
        .collect();
    if binaries.is_none() && !chosen.is_empty() {
        eprintln!(
            "      kube-apiserver, etcd and kube-scheduler are not in $WEFT_ORACLE or ../.oracle: nothing to compare with"
        );
    }
    let mut cases = Vec::new();
    for (case, full, quick, wanted) in chosen {
        let size = if effort.quick { quick } else { full };
        let measured = rounds(effort, binaries.as_deref(), case, size, &mut waiting)?;
        cases.push(told(case, size, wanted, &measured));
    }
    Ok(json!({"runs": cases, "planner": planner}))
}

fn check_cases(asked: &[String]) -> Result<()> {
    let known: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    let unknown = |name: &&String| **name != PLANNER && !known.contains(&name.as_str());
    match asked.iter().find(unknown) {
        None => Ok(()),
        Some(name) => {
            let text = format!(
                "there is no case {name} among {} and {PLANNER}",
                known.join(", ")
            );
            Err(Failure::new(text, "name one of these with --case").into())
        }
    }
}

/// A round: weft's row and its peers', each if it came to its end.
type Round = [Option<Value>; 2];

fn rounds(
    effort: &Effort,
    binaries: Option<&Path>,
    case: &str,
    size: [usize; 2],
    waiting: &mut Waiting,
) -> Result<Vec<Round>> {
    let dir = PathBuf::from("target/bench-scheduler");
    let count = effort.rounds.min(ROUNDS_MAX);
    let mut all = Vec::new();
    for round in 0..count {
        let mut rows = [None, None];
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let is_peer = at == 1;
            let name = if is_peer { "kube-scheduler" } else { "weft" };
            if is_peer && binaries.is_none() {
                continue;
            }
            waiting.show(format!("{case}, round {} of {count}: {name}", round + 1));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir)?;
            let row = match binaries.filter(|_| is_peer) {
                Some(binaries) => with_peer(effort, binaries, &dir, case, size),
                None => with_weft(effort, &dir, case, size),
            };
            match row {
                Ok(row) => rows[at] = Some(row),
                Err(error) => {
                    // What follows is where in the driver that was.
                    let text = format!("{error:#}");
                    let first = text.lines().next().unwrap_or_default();
                    eprintln!("      {case} with {name} failed: {first}");
                }
            }
        }
        all.push(rows);
    }
    let _ = fs::remove_dir_all(&dir);
    if all.iter().all(|[ours, _]| ours.is_none()) {
        bail!("no run of {case} came to its end");
    }
    Ok(all)
}

/// What came of a case: medians, and the median of the rounds' ratios.
fn told(case: &str, [nodes, pods]: [usize; 2], wanted: f64, rounds: &[Round]) -> Value {
    let rate = |row: &Value| number(&row["binds_per_second"]);
    let rates = |at: usize| -> Vec<f64> {
        let rows = rounds.iter().filter_map(|round| round[at].as_ref());
        rows.map(rate).collect()
    };
    let ratios = rounds
        .iter()
        .filter_map(|[ours, theirs]| Some(rate(ours.as_ref()?) / rate(theirs.as_ref()?)));
    let ratios: Vec<f64> = ratios.collect();
    let middle = |values: Vec<f64>| (!values.is_empty()).then(|| median(values));
    json!({
        "case": case, "nodes": nodes, "pods": pods, "wanted": wanted,
        "binds_per_second": middle(rates(0)),
        "kube_scheduler": middle(rates(1)),
        "ratio": middle(ratios),
        "rounds": rounds,
    })
}

fn with_weft(effort: &Effort, dir: &Path, case: &str, size: [usize; 2]) -> Result<Value> {
    let server = Weft::start(&effort.programs.join("weft"), dir)?;
    drive(effort, &server.kubeconfig, case, size)
}

fn with_peer(
    effort: &Effort,
    binaries: &Path,
    dir: &Path,
    case: &str,
    size: [usize; 2],
) -> Result<Value> {
    let peer = KubeApiserver::start(binaries, dir, &PEER)?;
    let kubeconfig = kubeconfig(dir, &peer)?;
    let _scheduler = kube_scheduler(binaries, dir, &kubeconfig)?;
    drive(effort, &kubeconfig, case, size)
}

/// One large run, on nodes that weft plays.
fn large(effort: &Effort, nodes: u32) -> Result<Value> {
    let pods = effort.asked_pods.unwrap_or(nodes * PODS_A_NODE);
    let dir = PathBuf::from("target/bench-scheduler");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let weft = effort.programs.join("weft");
    let server = Weft::start(&weft, &dir)?;
    let pid = server.process.0.id().to_string();
    let mut waiting = Waiting::new();
    waiting.show(format!("{nodes} hollow nodes"));
    let _played = hollow(&weft, &dir, &server.kubeconfig, nodes)?;
    waiting.show(format!("{pods} pods on {nodes} nodes"));
    let mut driver = driver(effort, &server.kubeconfig, "plain", [nodes, pods]);
    // What it tells on the way is seen.
    let driver = driver.args(["--curve", &pid]).stderr(Stdio::inherit());
    let output = driver.output().context("starting the driver")?;
    if !output.status.success() {
        bail!("not all pods were bound: read {}", dir.display());
    }
    let row: Value = serde_json::from_slice(&output.stdout).context("reading what it prints")?;
    drop(server);
    let _ = fs::remove_dir_all(&dir);
    Ok(json!({"large": row}))
}

/// Pods are bound by the scheduler here, and have no accounts.
const PEER: Setup<'_> = Setup {
    flags: &[
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
    ],
    ..api::SETUP
};

pub fn render(results: &Value) -> String {
    let mut text = String::new();
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if results["large"].is_object() {
        text += &render_large(&results["large"]);
    }
    let cases = rows(&results["runs"]);
    if !cases.is_empty() {
        text += "\nPods bound a second, through the API: medians of the rounds\n";
    }
    for case in &cases {
        text += &format!(
            "  {:<12}{:>6} nodes{:>7} pods{:>8.0} a second",
            case["case"].as_str().unwrap_or("?"),
            number(&case["nodes"]),
            number(&case["pods"]),
            number(&case["binds_per_second"]),
        );
        if let Some(peer) = case["kube_scheduler"].as_f64() {
            text += &format!(
                ", kube-scheduler {peer:.0}: {:.1} times (asked for: {:.0})",
                number(&case["ratio"]),
                number(&case["wanted"])
            );
        }
        text += "\n";
    }
    let planner = rows(&results["planner"]);
    if let Some(first) = planner.first() {
        let sizes = rows(&first["nodes"]);
        let sizes: String = sizes
            .iter()
            .map(|size| format!("{:>9.0}", number(size)))
            .collect();
        text += "\nThe planner alone: microseconds of a processor for each pod\n";
        text += &format!(
            "  {:<22}{sizes}   growth   pods a second with most\n",
            "at nodes"
        );
    }
    for row in &planner {
        let costs: Vec<f64> = rows(&row["microseconds_a_pod"])
            .iter()
            .map(number)
            .collect();
        let cells: String = costs.iter().map(|cost| format!("{cost:>9.2}")).collect();
        let (first, last) = (costs.first(), costs.last());
        let (first, last) = (first.unwrap_or(&f64::NAN), last.unwrap_or(&f64::NAN));
        text += &format!(
            "  {:<22}{cells}{:>8.2}x{:>12.0}\n",
            row["case"].as_str().unwrap_or("?"),
            last / first,
            1e6 / last
        );
    }
    text
}

fn render_large(row: &Value) -> String {
    let mut text = format!(
        "\n{} pods on {} hollow nodes: {:.0} bound a second\n  {:>9}{:>12}{:>10}{:>10}{:>14}\n",
        row["pods"],
        row["nodes"],
        number(&row["binds_per_second"]),
        "bound",
        "a second",
        "p50 ms",
        "p99 ms",
        "server MB"
    );
    for slice in row["curve"].as_array().into_iter().flatten() {
        text += &format!(
            "  {:>9}{:>12.0}{:>10.1}{:>10.1}{:>14.0}\n",
            number(&slice["bound"]),
            number(&slice["binds_per_second"]),
            number(&slice["p50_ms"]),
            number(&slice["p99_ms"]),
            number(&slice["server_resident_bytes"]) / 1e6,
        );
    }
    text
}

fn driver<N: ToString>(
    effort: &Effort,
    kubeconfig: &str,
    case: &str,
    [nodes, pods]: [N; 2],
) -> Command {
    let mut driver = Command::new(effort.programs.join("examples/schedule"));
    driver.args(["--kubeconfig", kubeconfig, "--case", case]);
    driver.args(["--nodes", &nodes.to_string(), "--pods", &pods.to_string()]);
    driver
}

/// One run of a case on a server that is new.
fn drive(effort: &Effort, kubeconfig: &str, case: &str, size: [usize; 2]) -> Result<Value> {
    let row = progress::read(&mut driver(effort, kubeconfig, case, size))?;
    serde_json::from_str(&row).context("reading what the driver prints")
}

/// Plays nodes; comes when all are registered.
fn hollow(weft: &Path, dir: &Path, kubeconfig: &str, nodes: u32) -> Result<Ended> {
    let log = File::create(dir.join("hollow.log"))?;
    let mut hollow = Command::new(weft);
    progress::clean_environment(&mut hollow);
    let process = hollow
        .args(["node", "--exit-with-parent", "--hollow", &nodes.to_string()])
        .env("WEFT_KUBECONFIG", kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting weft node --hollow")?;
    let mut process = Ended(process);
    if first_line(process.0.stdout.take())?.is_empty() {
        bail!(
            "weft node --hollow ended: read {}",
            dir.join("hollow.log").display()
        );
    }
    Ok(process)
}

/// Waits for a process' first word.
fn first_line(stdout: Option<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout.context("its output is piped")?).read_line(&mut line)?;
    Ok(line)
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Weft {
    kubeconfig: String,
    process: Ended,
}

impl Weft {
    fn start(program: &Path, dir: &Path) -> Result<Self> {
        let log = File::create(dir.join("server.log"))?;
        let mut weft = Command::new(program);
        progress::clean_environment(&mut weft);
        let process = weft
            .args(["server", "--output", "json", "--exit-with-parent"])
            .args(["--api-port", "0", "--data-dir"])
            .arg(dir.join("server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting weft server")?;
        let mut process = Ended(process);
        let line = first_line(process.0.stdout.take())?;
        let told = serde_json::from_str::<Value>(&line).unwrap_or_default();
        let Some(kubeconfig) = told["kubeconfig"].as_str() else {
            bail!(
                "weft server did not become ready: read {}",
                dir.join("server.log").display()
            );
        };
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            process,
        })
    }
}

/// What clients of the peer show, as a file.
fn kubeconfig(dir: &Path, peer: &KubeApiserver) -> Result<String> {
    let path = dir.join("kubeconfig.json");
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": peer.url(""), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bench", "user": {"token": PEER.token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    });
    fs::write(&path, document.to_string())?;
    Ok(path.display().to_string())
}

fn kube_scheduler(binaries: &Path, dir: &Path, kubeconfig: &str) -> Result<Ended> {
    let log = File::create(dir.join("kube-scheduler.log"))?;
    let child = Command::new(binaries.join("kube-scheduler"))
        .args([
            "--kubeconfig",
            kubeconfig,
            "--leader-elect=false",
            "--secure-port=0",
        ])
        .args(["--kube-api-qps=5000", "--kube-api-burst=10000"])
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting kube-scheduler")?;
    Ok(Ended(child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_failed_are_left_out() {
        let row = |rate: f64| Some(json!({"binds_per_second": rate}));
        let rounds = [
            [row(1000.0), row(100.0)],
            [row(3000.0), None],
            [None, row(50.0)],
            [row(1200.0), row(200.0)],
        ];
        let case = told("plain", [5, 10], 5.0, &rounds);
        assert_eq!(
            (&case["binds_per_second"], &case["kube_scheduler"]),
            (&json!(1200.0), &json!(100.0))
        );
        assert_eq!(case["ratio"], 8.0);
        let planner =
            json!({"case": "plain", "nodes": [100, 5000], "microseconds_a_pod": [2.0, 4.0]});
        let text = render(&json!({"runs": [case], "planner": [planner]}));
        assert!(
            text.contains("kube-scheduler 100: 8.0 times (asked for: 5)"),
            "{text}"
        );
        assert!(text.contains("2.00x      250000"), "{text}");
    }

    #[test]
    fn a_case_that_is_not_there_is_refused() {
        assert!(check_cases(&["plain".into(), "planner".into()]).is_ok());
        let error = check_cases(&["plane".into()]).unwrap_err().to_string();
        assert!(error.contains("there is no case plane"), "{error}");
    }
}
