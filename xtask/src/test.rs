//! `cargo xtask test`: formatting, lints, components, and every test level.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::progress::{self, Steps, cargo};
use crate::{Failure, guests};

#[derive(clap::Args)]
pub struct Args {
    /// Passed on to `cargo test`, such as a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// The samples' own workspace; its components are tested on this machine like any other code.
const SAMPLES: [&str; 2] = ["--manifest-path", "sample-apps/Cargo.toml"];

pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let mut steps = Steps::new(6);
    steps.step("formatting", || {
        let next =
            "`cargo fmt --all`, and `cargo fmt --all --manifest-path sample-apps/Cargo.toml`";
        progress::run(&mut cargo(["fmt", "--all", "--check"]), next)?;
        progress::run(cargo(["fmt", "--all", "--check"]).args(SAMPLES), next)
    })?;
    steps.step("components", || guests::build(None))?;
    steps.step("lints", || {
        let next = "read the lint's explanation above; `cargo clippy --fix` repairs many";
        let lint = ["--all-targets", "--", "-D", "warnings"];
        progress::run(cargo(["clippy", "--workspace"]).args(lint), next)?;
        progress::run(
            cargo(["clippy", "--workspace"]).args(SAMPLES).args(lint),
            next,
        )
    })?;
    // The end-to-end tests start the binary: it has to be there before any test runs.
    steps.step("build", || {
        progress::run(
            &mut cargo(["build", "--workspace"]),
            "read the messages above",
        )
    })?;
    let mut counts = Counts::default();
    steps.step("tests", || {
        counts.add(&count(
            cargo(["test", "--workspace", "--no-fail-fast"]).args(&args.filter),
        )?);
        Ok(())
    })?;
    steps.step("tests of the samples", || {
        let tested = ["-p", "web", "-p", "emoji", "-p", "voting", "--lib"];
        counts.add(&count(
            cargo(["test", "--no-fail-fast"])
                .args(SAMPLES)
                .args(tested)
                .args(&args.filter),
        )?);
        Ok(())
    })?;
    println!(
        "\ntest summary: {} passed; {} failed; {} ignored; in {} s",
        counts.passed,
        counts.failed,
        counts.ignored,
        started.elapsed().as_secs()
    );
    if counts.failed == 0 && counts.broken == 0 {
        return Ok(());
    }
    let what = match counts.failed {
        0 => "a test program did not build or did not end properly".to_owned(),
        1 => "1 test failed".to_owned(),
        many => format!("{many} tests failed"),
    };
    Err(Failure::new(
        what,
        "run one of those named above alone: `cargo test -p PACKAGE NAME`",
    )
    .into())
}

/// What the test programs reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Runs of cargo that failed without any test's failure to show for it.
    broken: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.broken += other.broken;
    }

    /// Takes a line like `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(number)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

/// Runs the tests with their output passed on, and counts.
fn count(command: &mut Command) -> Result<Counts> {
    let name = progress::describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut counts = Counts::default();
    let stdout = child.stdout.take().context("its output is piped")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("reading what {name} prints"))?;
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        counts.read(&String::from_utf8_lossy(&line));
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for {name}"))?;
    if !status.success() && counts.failed == 0 {
        counts.broken = 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn results_are_counted() {
        let mut counts = Counts::default();
        for line in [
            "running 5 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.50s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            counts.read(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 13,
                failed: 2,
                ignored: 1,
                broken: 0
            }
        );
    }
}
