//! `cargo xtask dashboard`: the page that weft serves at `/dashboard`, built, tested, measured, and photographed.
//!
//! ```text
//! build         what is installed by dashboard/package-lock.json; the page checked and bundled into dashboard/dist, which weft embeds
//! test          tests of its parts under `node --test`; the page in Chromium, at a real cluster with the sample application
//! bench         how long pages take with 5,000 pods and 200 Services, and how smoothly they scroll
//! screenshots   every page at 1440 and 390 pixels, into docs/dashboard
//! record        from nothing to the living graph: `weft up`, `weft demo apply vote`, a click; how long each took
//! ```
//! Needs Node; the last four Debian's `chromium` too. What is not there is said, and is a failure only where it was asked for by name.
//!
//! Left to others: all that the page does (`dashboard/`), what it costs the server (`bench dashboard`).

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{Failure, progress, target};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Build the page into dashboard/dist; weft embeds what is there when it is built
    Build,
    /// Run its tests; those in a browser need a built weft, and the samples' components
    Test {
        /// Also what takes minutes: a stream cut for half a minute, a leader that is killed
        #[arg(long)]
        whole: bool,
        /// Only test files whose names begin so
        names: Vec<String>,
    },
    /// Measure pages of a large cluster
    Bench,
    /// Take pictures of every page
    Screenshots,
    /// Go from nothing to the living graph, as a newcomer does, and say how long each step took
    Record,
}

const FOLDER: &str = "dashboard";
const NODE_NEXT: &str = "install Node 20.19 or newer, with npm";
const BROWSER_NEXT: &str = "install Chromium: `apt-get install chromium`";
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What tests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(why) = no_node() {
        return Err(Failure::new(why, NODE_NEXT).into());
    }
    match &args.task {
        Task::Build => build(),
        Task::Test { whole, names } => {
            build()?;
            let mut told = Told::default();
            told.add(tests("unit", names, false)?);
            if let Some(why) = no_browser() {
                return Err(Failure::new(why, BROWSER_NEXT).into());
            }
            told.add(tests("browser", names, *whole)?);
            println!(
                "\ntest summary: {} passed; {} failed; {} ignored",
                told.passed, told.failed, told.skipped
            );
            match told.failed {
                0 => Ok(()),
                failed => {
                    let next = "run one file alone: `cargo xtask dashboard test NAME`";
                    Err(Failure::new(format!("{failed} tests failed"), next).into())
                }
            }
        }
        Task::Bench => tool("bench.mjs"),
        Task::Screenshots => tool("screenshots.mjs"),
        Task::Record => tool("record.mjs"),
    }
}

/// Builds the page where Node is there; says so where it is not.
pub fn built_if_possible() -> Result<()> {
    match no_node() {
        Some(why) => {
            eprintln!("      skipped: the dashboard's page: {why}; weft is built without it");
            Ok(())
        }
        None => build(),
    }
}

/// Its tests, where Node is there, and those in a browser, where one is there: all but what takes minutes, and bounded in time
/// (`dashboard/tools/test.mjs`). What is missing is said, here and in `skipped`, which is shown at the end.
pub fn tested_if_possible(skipped: &Path) -> Result<Told> {
    let missing = |what: &str, why: &str| {
        let line = format!("SKIPPED: {what}: {why}\n");
        eprint!("{line}");
        let file = fs::File::options().create(true).append(true).open(skipped);
        // It was said above.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    };
    if let Some(why) = no_node() {
        missing("tests of the dashboard", &why);
        return Ok(Told::default());
    }
    let mut told = tests("unit", &[], false)?;
    match no_browser() {
        Some(why) => missing("tests of the dashboard in a browser", &why),
        None => told.add(tests("browser", &[], false)?),
    }
    Ok(told)
}

fn build() -> Result<()> {
    let installed = Path::new(FOLDER).join("node_modules/.package-lock.json");
    let wanted = Path::new(FOLDER).join("package-lock.json");
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    if changed(&installed) < changed(&wanted) {
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        progress::run(install.current_dir(FOLDER), "see what npm says above")?;
    }
    let next = "read what is said above";
    progress::run(
        node("node_modules/typescript/bin/tsc").arg("--noEmit"),
        next,
    )?;
    progress::run(&mut node("tools/build.mjs"), next)
}

/// A script, run by Node in the page's folder, which is told where weft and the samples are.
fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(script)
        .current_dir(FOLDER)
        .env("WEFT_PROGRAM", target().join("debug/weft"))
        .env("WEFT_GUESTS", target().join("guests"));
    command
}

fn tool(script: &str) -> Result<()> {
    if let Some(why) = no_browser() {
        return Err(Failure::new(why, BROWSER_NEXT).into());
    }
    build()?;
    let next = "build what it runs first: `cargo build --workspace && cargo xtask guests`";
    progress::run(&mut node(&format!("tools/{script}")), next)
}

/// Runs tests of a kind, with their output passed on.
fn tests(kind: &str, names: &[String], whole: bool) -> Result<Told> {
    let mut command = node("tools/test.mjs");
    command.arg(kind).args(names);
    if whole {
        command.env("DASHBOARD_WHOLE", "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start node")?;
    let stdout = child.stdout.take().context("its output is piped")?;
    let mut told = Told::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading what the tests print")?;
        println!("{line}");
        told.read(&line);
    }
    let status = child.wait().context("waiting for the tests")?;
    if !status.success() && told.failed == 0 {
        told.failed = 1;
    }
    Ok(told)
}

impl Told {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Takes a line of the runner's summary, as `# pass 12`.
    fn read(&mut self, line: &str) {
        let Some((what, count)) = line.trim_start_matches(['#', 'ℹ', ' ']).split_once(' ') else {
            return;
        };
        let Ok(count) = count.trim().parse::<u64>() else {
            return;
        };
        match what {
            "pass" => self.passed += count,
            "fail" | "cancelled" => self.failed += count,
            "skipped" => self.skipped += count,
            _ => {}
        }
    }
}

/// Why nothing can be built here.
fn no_node() -> Option<String> {
    let missing = ["node", "npm"]
        .into_iter()
        .find(|name| on_path(name).is_none())?;
    Some(format!("there is no `{missing}` on PATH"))
}

fn no_browser() -> Option<String> {
    let found =
        env::var_os("CHROMIUM").is_some() || BROWSERS.iter().any(|name| on_path(name).is_some());
    (!found).then(|| "there is no Chromium on PATH".to_owned())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn a_runner_s_summary_is_read() {
        let mut told = Told::default();
        for line in [
            "ok 1 - a test that says pass 9",
            "# tests 9",
            "# pass 5",
            "# fail 1",
            "# cancelled 1",
            "# skipped 2",
            "ℹ pass 3",
        ] {
            told.read(line);
        }
        let expected = Told {
            passed: 8,
            failed: 2,
            skipped: 2,
        };
        assert_eq!(told, expected);
    }
}
