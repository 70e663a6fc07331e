//! `cargo xtask conformance kubernetes` and `… netpol`: upstream's own suite, unmodified, against a cluster of weft.
//!
//! The suite is `e2e.test` of k8s.io/kubernetes 1.37.2, of which the tests marked `[Conformance]` run, or those of NetworkPolicies, one process a test and
//! several side by side; those marked `[Serial]` after them, alone. It is built here from Go modules into `target/conformance` unless `--e2e` names one. The cluster is `weft up
//! --nodes 3`, or the one of `--kubeconfig`.
//!
//! The nodes have addresses of their own, and lend the suite's pods what of them it mounts ([`LENT`]).
//!
//! The suite's images are components of this repository ([`images`]), which are put into the cluster's own registry under the names and tags that the
//! suite has for them; its list of registries names that one. Images that are not to be had (`invalid…`) stay so. With `--repositories` or
//! `--kubeconfig` nothing is pushed.
//!
//! What was seen goes, a line a test, to `target/conformance/results.jsonl` while it runs, behind a line that names suite and weft, so that `--resume` goes on from there; and after a run of all tests to `docs/conformance.md`, or `docs/conformance/netpol.md`: how many passed, and for each
//! that did not its own first words and what it needs of a cluster (`conformance/needs.tsv`, by upstream's number of the test: its place in
//! the suite's own list).
//!
//! Invariants: a test counts as passed only if the suite says `1 Passed`; nothing here knows a test by its name; no process outlives the run.

mod images;
mod outcome;
mod report;
mod runner;
mod suite;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use self::outcome::{RESULTS, judged};
use self::report::Report;
use self::runner::Runner;
use self::suite::{RELEASE, Test};
use crate::cluster::{self, Cluster};
use crate::progress::Steps;
use crate::{Failure, target};

/// What of this machine the suite's pods mount: notes of jobs, and the names of hosts.
const LENT: [&str; 2] = ["/tmp/job-e2e", "/etc/hosts"];
/// Of this machine alone: the suite asks for ports of nodes that share none of them with `localhost`.
const NODE_ADDRESSES: &str = "127.20.0.0/28";

/// Which of its tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Conformance,
    Netpol,
}

impl Part {
    /// Where what was seen is written.
    const fn page(self) -> &'static str {
        match self {
            Self::Conformance => "docs/conformance.md",
            Self::Netpol => "docs/conformance/netpol.md",
        }
    }

    /// Where it lies while it runs.
    fn folder(self) -> PathBuf {
        let folder = target().join("conformance");
        match self {
            Self::Conformance => folder,
            Self::Netpol => folder.join("netpol"),
        }
    }
}

#[derive(clap::Args)]
pub struct Args {
    /// The suite's binary, instead of one built from Go modules
    #[arg(long, value_name = "FILE")]
    e2e: Option<PathBuf>,
    /// Only tests whose name or file contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only tests of these classes of needs, as A or AB
    #[arg(long, value_name = "LETTERS")]
    classes: Option<String>,
    /// Run against this cluster instead of one of three nodes that is started for it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The weft to run, instead of one built here
    #[arg(long, value_name = "FILE", conflicts_with = "kubeconfig")]
    program: Option<PathBuf>,
    /// Go on where a run of the same weft was ended: what it judged stands
    #[arg(long, conflicts_with = "kubeconfig")]
    resume: bool,
    /// Tests side by side
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// How long a test may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=3600))]
    seconds: u32,
    /// The registries that images come from, for KUBE_TEST_REPO_LIST
    #[arg(long, value_name = "FILE")]
    repositories: Option<PathBuf>,
    /// Print one JSON document on stdout instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// Runs the command.
///
/// # Errors
/// When suite, kubectl or cluster cannot be had, or no test is asked for. Tests that fail are a result, not an error.
pub fn run(args: &Args, part: Part) -> Result<()> {
    let mut steps = Steps::new(6);
    let e2e = match &args.e2e {
        Some(file) => std::path::absolute(file)?,
        None => steps.step("build upstream's suite (some minutes, once)", suite::built)?,
    };
    let kubectl = steps.step("fetch kubectl", suite::kubectl)?;
    let all = match part {
        Part::Conformance => suite::listed(&e2e)?,
        Part::Netpol => suite::listed_netpol(&e2e)?,
    };
    let total = all.len();
    let asked: Vec<Test> = all.into_iter().filter(|test| wanted(args, test)).collect();
    if asked.is_empty() {
        let what = format!("none of {total} tests is asked for");
        return Err(Failure::new(
            what,
            "give --only a part of a test's name or file, or leave it out",
        )
        .into());
    }
    let folder = part.folder();
    fs::create_dir_all(&folder)?;
    let (cluster, kubeconfig, weft) = match &args.kubeconfig {
        Some(file) => (
            None,
            std::path::absolute(file)?,
            "of a kubeconfig".to_owned(),
        ),
        None => {
            let program = match &args.program {
                Some(program) => std::path::absolute(program)?,
                None => {
                    steps.step("build weft", cluster::build)?;
                    cluster::program()
                }
            };
            steps.step("build the suite's images", images::build)?;
            let cluster = start(&program)?;
            steps.step("push the suite's images", || images::push(&cluster))?;
            let kubeconfig = PathBuf::from(&cluster.kubeconfig);
            (Some(cluster), kubeconfig, identity(&program)?)
        }
    };
    let head = json!({"suite": RELEASE, "weft": weft});
    let judged = match args.resume {
        true => judged(&folder.join(RESULTS), &head)?,
        false => BTreeMap::new(),
    };
    let repositories = match &args.repositories {
        Some(file) => Some(std::path::absolute(file)?),
        None if cluster.is_some() => Some(images::repositories(&folder)?),
        None => None,
    };
    let runner = Runner {
        e2e: &e2e,
        kubectl: &kubectl,
        kubeconfig: &kubeconfig,
        repositories,
        patience: Duration::from_secs(args.seconds.into()),
        folder: &folder,
        head,
        judged,
    };
    let what = format!(
        "{} of {total} tests, {} side by side",
        asked.len(),
        args.parallel
    );
    let outcomes = steps.step(&what, || runner.run_all(&asked, args.parallel.into()))?;
    drop(cluster);
    let report = Report {
        total,
        tests: &asked,
        outcomes: &outcomes,
    };
    if asked.len() == total {
        let (page, text) = match part {
            Part::Conformance => (part.page(), report.page()),
            Part::Netpol => (part.page(), report.page_of_netpol()),
        };
        fs::write(page, text).with_context(|| format!("writing {page}"))?;
        eprintln!("      {page} is written");
    }
    match args.output {
        Some(Output::Json) => println!("{}", report.json()),
        None => print!("{}", report.text()),
    }
    Ok(())
}

fn wanted(args: &Args, test: &Test) -> bool {
    let named = args
        .only
        .as_ref()
        .is_none_or(|only| test.name.contains(only.as_str()) || test.file.contains(only.as_str()));
    let classed = args.classes.as_ref().is_none_or(|letters| {
        test.classes
            .chars()
            .all(|class| class == '+' || letters.contains(class))
    });
    named && classed
}

/// A cluster of three nodes with addresses of their own, which lends what the suite mounts of its nodes.
fn start(program: &Path) -> Result<Cluster> {
    for path in LENT.iter().filter(|path| !Path::new(path).exists()) {
        fs::create_dir_all(path)?;
    }
    let lent = LENT.iter().flat_map(|path| ["--allow-host-path", path]);
    let arguments = ["--node-addresses", NODE_ADDRESSES].into_iter().chain(lent);
    let arguments: Vec<String> = arguments.map(str::to_owned).collect();
    Cluster::start_at(program, "conformance", 3, (0, 0), &arguments)
}

/// Which build a program is, as far as results of one are not another's: its length and when it was made.
fn identity(program: &Path) -> Result<String> {
    let about = fs::metadata(program).with_context(|| format!("reading {}", program.display()))?;
    let made = about.modified()?.duration_since(std::time::UNIX_EPOCH);
    let made = made.map_or(0, |since| since.as_secs());
    Ok(format!("{} bytes, made at {made}", about.len()))
}
