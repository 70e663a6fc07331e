//! `cargo xtask test`: formatting, dependencies, lints, components, and every test level.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::progress::{self, Steps, cargo};
use crate::{Failure, dashboard, dependencies, guests, target};

#[derive(clap::Args)]
pub struct Args {
    /// Passed on to `cargo test`, such as a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// The samples' own workspace; its components are tested on this machine like any other code.
const SAMPLES: [&str; 2] = ["--manifest-path", "sample-apps/Cargo.toml"];

/// Those of them that have tests: libraries, and the toolbox, whose shell is held to a table of scripts beside the tests inside of it.
const SAMPLES_TESTED: [&[&str]; 2] = [
    &[
        "--lib",
        "-p",
        "web",
        "-p",
        "emoji",
        "-p",
        "voting",
        "-p",
        "details",
        "-p",
        "ratings",
        "-p",
        "reviews",
        "-p",
        "productpage",
        "-p",
        "agnhost",
        "-p",
        "gateway-echo",
    ],
    &["-p", "toolbox"],
];

pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let skipped = target().join("clients/skipped");
    // Of another run.
    let _ = std::fs::remove_file(&skipped);
    let mut steps = Steps::new(9);
    steps.step("formatting", || {
        let next =
            "`cargo fmt --all`, and `cargo fmt --all --manifest-path sample-apps/Cargo.toml`";
        progress::run(&mut cargo(["fmt", "--all", "--check"]), next)?;
        progress::run(cargo(["fmt", "--all", "--check"]).args(SAMPLES), next)
    })?;
    steps.step("dependencies", dependencies::check)?;
    steps.step("components", || guests::build(None))?;
    // What is there when weft is compiled is embedded.
    steps.step("the dashboard's page", dashboard::built_if_possible)?;
    steps.step("lints of the samples", || {
        let lint = ["--workspace", "--all-targets", "--", "-D", "warnings"];
        progress::run(cargo(["clippy"]).args(SAMPLES).args(lint), LINTED)
    })?;
    // The end-to-end tests start the program, and some examples: they have to be there before any test runs.
    steps.step("lints and build", || {
        let programs = ["build", "--workspace", "--bins", "--examples"];
        progress::run(linting(&mut cargo(programs)), LINTED)?;
        let tests = ["test", "--workspace", "--no-run"];
        progress::run(linting(&mut cargo(tests)), LINTED)
    })?;
    let mut counts = Counts::default();
    steps.step("tests", || {
        counts.add(&count(
            linting(&mut cargo(["test", "--workspace", "--no-fail-fast"])).args(&args.filter),
        )?);
        Ok(())
    })?;
    steps.step("tests of the samples", || {
        for tested in SAMPLES_TESTED {
            counts.add(&count(
                cargo(["test", "--no-fail-fast"])
                    .args(SAMPLES)
                    .args(tested)
                    .args(&args.filter),
            )?);
        }
        Ok(())
    })?;
    steps.step("tests of the dashboard", || {
        if args.filter.is_empty() {
            let told = dashboard::tested_if_possible(&skipped)?;
            counts.passed += told.passed;
            counts.failed += told.failed;
            counts.ignored += told.skipped;
        }
        Ok(())
    })?;
    println!(
        "\ntest summary: {} passed; {} failed; {} ignored; in {} s",
        counts.passed,
        counts.failed,
        counts.ignored,
        started.elapsed().as_secs()
    );
    // Said once more where it is read: what was not tried, because a client could not be fetched.
    print!("{}", std::fs::read_to_string(&skipped).unwrap_or_default());
    counts.verdict(&args.filter)
}

const LINTED: &str = "read the lint's explanation above; `cargo clippy --fix` repairs many";

/// Has clippy compile our own crates, as `cargo clippy` does, but to the end: it is the compiler with more lints, so that one build gives
/// lints and tests. A check of its own compiled every dependency once more, which took a sixth of the whole run.
fn linting(command: &mut Command) -> &mut Command {
    let beside = std::env::var_os("CARGO")
        .map(|cargo| PathBuf::from(cargo).with_file_name("clippy-driver"))
        .filter(|driver| driver.exists());
    command
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            beside.unwrap_or_else(|| "clippy-driver".into()),
        )
        // Clippy's own separator of what stands after `cargo clippy --`.
        .env(
            "CLIPPY_ARGS",
            "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
        )
}

const ALONE: &str = "run one of those named above alone: `cargo test -p PACKAGE NAME`";

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

    /// Whether that is a success, for those who asked for some tests or for all.
    fn verdict(&self, filter: &[String]) -> Result<()> {
        let (what, next) = match (self.failed, self.broken) {
            (0, 0) if self.passed + self.ignored == 0 => (
                format!("no test matches `{}`", filter.join(" ")),
                "a part of a test's name, as `cargo test --workspace -- --list` shows them",
            ),
            (0, 0) => return Ok(()),
            (0, _) => (
                "a test program did not build or did not end properly".to_owned(),
                "read the messages above",
            ),
            (1, _) => ("1 test failed".to_owned(), ALONE),
            (many, _) => (format!("{many} tests failed"), ALONE),
        };
        Err(Failure::new(what, next).into())
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
    fn only_tests_that_ran_and_passed_are_a_success() {
        let verdict = |passed: u64, failed: u64, broken: u64| {
            let counts = Counts {
                passed,
                failed,
                broken,
                ignored: 0,
            };
            match counts.verdict(&["typo".to_owned()]) {
                Ok(()) => "fine".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(verdict(3, 0, 0), "fine");
        assert_eq!(verdict(0, 0, 0), "no test matches `typo`");
        assert_eq!(verdict(3, 1, 0), "1 test failed");
        assert_eq!(verdict(3, 2, 1), "2 tests failed");
        assert!(verdict(3, 0, 1).contains("did not build"));
    }

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
