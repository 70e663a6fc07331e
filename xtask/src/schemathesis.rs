//! `cargo xtask schemathesis`: requests that Schemathesis makes from this server's own OpenAPI document, of which none may fail the
//! server.
//!
//! It reads the document of all kinds (`/openapi/v2`) from a cluster that is started for it, and asks each operation with values that fit and
//! values that do not: parameters, names, bodies. Every write is a dry run, so that the cluster is the same for each. What fails is an
//! answer of 500, 501 or 502, a connection that breaks, and no answer at all; 503 and 504 are what Kubernetes answers to
//! revisions that there are not.
//!
//! Schemathesis is a package of PyPI, put into `target/clients`. Where it cannot be had, this says so and tries nothing; with `CI` set
//! that is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cluster::{self, Cluster};
use crate::progress::{self, Steps};
use crate::target;

const VERSION: &str = "4.32.5";
const HOOKS: &str = include_str!("schemathesis/hooks.py");
/// Of one answer, in seconds: lists and watches end before.
const ANSWER_SECONDS: &str = "30";

#[derive(clap::Args)]
pub struct Args {
    /// Requests for each operation, in one go
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    examples: u32,
    /// Time for all of it, which is spent: it begins anew with other values while there is some left
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..))]
    seconds: u32,
    /// Only paths that match this
    #[arg(long, value_name = "REGEX")]
    paths: Option<String>,
    /// What requests are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the command.
///
/// # Errors
/// When an answer is one that a server may not give, and, with `CI` set, when Schemathesis cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(3);
    let program = match steps.step("fetch Schemathesis", fetch) {
        Ok(program) => program,
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => {
            eprintln!(
                "SKIPPED: Schemathesis {VERSION} cannot be had, and nothing was tried: {error:#}"
            );
            return Ok(());
        }
    };
    steps.step("build weft", cluster::build)?;
    let cluster = Cluster::start("schemathesis", 1, false)?;
    steps.step("ask every operation", || ask(&program, &cluster, args))?;
    let log = std::fs::read_to_string(target().join("schemathesis.log")).unwrap_or_default();
    let panicked = log.lines().find(|line| line.contains("panicked at"));
    match panicked {
        Some(line) => anyhow::bail!("the server panicked: {line}"),
        None => Ok(()),
    }
}

fn fetch() -> Result<PathBuf> {
    let venv = target().join(format!("clients/schemathesis-{VERSION}"));
    let program = venv.join("bin/st");
    if program.exists() {
        return Ok(program);
    }
    progress::read(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let package = format!("schemathesis=={VERSION}");
    progress::read(Command::new(venv.join("bin/pip")).args(["install", "--quiet", &package]))?;
    Ok(program)
}

fn ask(program: &Path, cluster: &Cluster, args: &Args) -> Result<()> {
    let folder = target().join("schemathesis-run");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("hooks.py"), HOOKS)?;
    let pki = Path::new(&cluster.kubeconfig).with_file_name("pki");
    let number = |number: u32| number.to_string();
    let mut command = Command::new(program);
    command
        .current_dir(&folder)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &folder)
        .arg("run")
        .arg(format!("{}/openapi/v2", cluster.api))
        .args(["--checks", "answered_by_a_server"])
        .args(["--phases", "fuzzing", "--mode", "all"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--continue-on-failure", "--max-failures", "20"])
        .args(["--request-timeout", ANSWER_SECONDS])
        .args(["--max-examples", &number(args.examples)])
        .args(["--max-time", &number(args.seconds)])
        .args(["--seed", &args.seed.to_string()])
        // What is passed on to a node, and what goes on without end.
        .args([
            "--exclude-path-regex",
            "/proxy|/watch/|/exec|/attach|/portforward|/log",
        ])
        .arg("--request-cert")
        .arg(pki.join("admin.crt"))
        .arg("--request-cert-key")
        .arg(pki.join("admin.key"))
        .arg("--tls-verify")
        .arg(pki.join("ca.crt"));
    if let Some(paths) = &args.paths {
        command.args(["--include-path-regex", paths]);
    }
    progress::run(
        &mut command,
        "send the curl command that is shown above, with `kubectl proxy` or the certificates in the cluster's pki folder",
    )
}
