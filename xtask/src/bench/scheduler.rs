//! The scheduler through the API: pods bound a second on thousands of nodes, beside kube-scheduler on kube-apiserver and etcd.
//!
//! `weft/examples/schedule` makes the same Node objects and the same pods for both, and tells when all have a node; it shares the machine.
//! Each run is a new store. Where the three binaries are found ([`crate::kube_apiserver`]), they take turns with weft, round for round; a ratio is
//! the median of the rounds' ratios. The planner alone is `scheduler/examples/planner`.
//!
//! kube-scheduler has no limit of requests here (`--kube-api-qps`), nor has the driver: what is compared is what they can do.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Effort, api, median, number};
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

pub fn measure(effort: &Effort) -> Result<Value> {
    let examples = [
        "--example",
        "schedule",
        "--example",
        "planner",
        "--bin",
        "weft",
    ];
    let mut cargo = progress::cargo(["build", "--release", "--workspace"]);
    progress::run(cargo.args(examples), "read the compiler's messages above")?;
    let release = crate::target().join("release");
    let mut planner = Command::new(release.join("examples/planner"));
    if effort.quick {
        planner.args(["100", "1000", "5000"]);
    }
    let planner = progress::read(&mut planner)?;
    let dir = PathBuf::from("target/bench-scheduler");
    let binaries = kube_apiserver::found().filter(|dir| dir.join("kube-scheduler").is_file());
    if binaries.is_none() {
        eprintln!(
            "      kube-apiserver, etcd and kube-scheduler are not in $WEFT_ORACLE or ../.oracle: nothing to compare with"
        );
    }
    let rounds = effort.rounds.min(ROUNDS_MAX);
    let mut waiting = Waiting::new();
    let mut cases = Vec::new();
    for (case, full, quick, wanted) in CASES {
        let size = if effort.quick { quick } else { full };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            for turn in 0..2 {
                let is_peer = (round + turn) % 2 == 1;
                let name = if is_peer { "kube-scheduler" } else { "weft" };
                waiting.show(format!("{case}, round {} of {rounds}: {name}", round + 1));
                let _ = fs::remove_dir_all(&dir);
                fs::create_dir_all(&dir)?;
                match (is_peer, &binaries) {
                    (false, _) => {
                        let server = Weft::start(&release.join("weft"), &dir)?;
                        ours.push(drive(&release, &server.kubeconfig, case, size)?);
                    }
                    (true, Some(binaries)) => {
                        let peer = KubeApiserver::start(binaries, &dir, &PEER)?;
                        let kubeconfig = kubeconfig(&dir, &peer)?;
                        let _scheduler = kube_scheduler(binaries, &dir, &kubeconfig)?;
                        theirs.push(drive(&release, &kubeconfig, case, size)?);
                    }
                    (true, None) => {}
                }
            }
        }
        let rate = |row: &Value| number(&row["binds_per_second"]);
        let ratios: Vec<f64> = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| rate(ours) / rate(theirs))
            .collect();
        cases.push(json!({
            "case": case, "nodes": size[0], "pods": size[1], "wanted": wanted,
            "binds_per_second": median(ours.iter().map(rate).collect()),
            "kube_scheduler": (!theirs.is_empty()).then(|| median(theirs.iter().map(rate).collect())),
            "ratio": (!ratios.is_empty()).then(|| median(ratios)),
            "rounds": ours, "kube_scheduler_rounds": theirs,
        }));
    }
    drop(waiting);
    let _ = fs::remove_dir_all(&dir);
    Ok(json!({"cases": cases, "planner": planner.lines().collect::<Vec<_>>()}))
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
    let mut text = "\nPods bound a second, through the API\n".to_owned();
    for case in results["cases"].as_array().into_iter().flatten() {
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
    text += "\nThe planner alone\n";
    for line in results["planner"].as_array().into_iter().flatten() {
        text += &format!("  {}\n", line.as_str().unwrap_or_default());
    }
    text
}

/// One run of a case on a server that is new.
fn drive(release: &Path, kubeconfig: &str, case: &str, [nodes, pods]: [usize; 2]) -> Result<Value> {
    let mut driver = Command::new(release.join("examples/schedule"));
    driver.args(["--kubeconfig", kubeconfig, "--case", case]);
    driver.args(["--nodes", &nodes.to_string(), "--pods", &pods.to_string()]);
    let row = progress::read(&mut driver)?;
    serde_json::from_str(&row).context("reading what the driver prints")
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
    #[expect(dead_code, reason = "held for what dropping it does")]
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
        let mut line = String::new();
        let stdout = process.0.stdout.take().context("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
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
