//! `cargo xtask conformance gateway-api`: the suite of sigs.k8s.io/gateway-api/conformance 1.6.3, against `weft up`.
//!
//! The suite runs as it is built. It is told class and mesh and nothing of features: it reads them from their statuses. Its images
//! are components of this repository ([`IMAGES`]): they are put into the cluster's own registry, and nodes find them there by a mirror
//! for the registry that the suite names.
//!
//! Its report goes to `docs/conformance/gateway-api.yaml` after a run of all tests without `--kubeconfig`, its log to
//! `target/conformance/gateway-api.log`; how many of each profile passed, and which did not, is printed.
//!
//! Invariants: nothing here knows a test by its name; no process outlives the run.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::{self, Cluster};
use crate::progress::{self, Steps};
use crate::{guests, interrupts, target};

const RELEASE: &str = "1.6.3";
const MODULE: &str = "sigs.k8s.io/gateway-api";
const REPORT: &str = "docs/conformance/gateway-api.yaml";
/// The registry that the suite's images are of.
const REGISTRY: &str = "registry.k8s.io";
/// The suite's images and tags, and the components that stand for them.
const IMAGES: [(&str, &str); 5] = [
    ("gateway-api/echo-basic:v1.5.1", "gateway-echo"),
    ("gateway-api/echo-basic:v1.6.0-dev.2", "gateway-echo"),
    ("gateway-api/echo-basic:v1.6.0-dev.3", "gateway-echo"),
    ("gateway-api/echo-advanced:v1.5.1", "mesh-echo"),
    ("coredns/coredns:v1.12.2", "gateway-echo"),
];
const PROFILES: [&str; 7] = [
    "GATEWAY-HTTP",
    "GATEWAY-GRPC",
    "GATEWAY-TLS",
    "GATEWAY-TCP",
    "GATEWAY-UDP",
    "MESH-HTTP",
    "MESH-GRPC",
];
/// What the nodes of the run are known by to the registry.
const USER: &str = "suite";

#[derive(clap::Args)]
pub struct Args {
    /// The suite's binary, instead of one built from Go modules
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,
    /// Only this test, by its short name
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The profiles to run
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = PROFILES)]
    profiles: Vec<String>,
    /// Run against this cluster instead of one of three nodes that is started for it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Further flags of the suite, as -debug
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When suite or cluster cannot be had. Tests that fail are a result, not an error.
pub fn run(args: &Args) -> Result<()> {
    for profile in &args.profiles {
        ensure!(
            PROFILES.contains(&profile.as_str()),
            "{profile} is no profile; there are {}",
            PROFILES.join(", ")
        );
    }
    let mut steps = Steps::new(5);
    let suite = match &args.suite {
        Some(file) => std::path::absolute(file)?,
        None => steps.step("build upstream's suite (a minute, once)", built)?,
    };
    let folder = target().join("conformance");
    fs::create_dir_all(&folder)?;
    let (cluster, kubeconfig) = match &args.kubeconfig {
        Some(file) => (None, std::path::absolute(file)?),
        None => {
            steps.step("build weft", cluster::build)?;
            steps.step("build the suite's images", guests::build_gateway_suite)?;
            let cluster = start(&folder)?;
            steps.step("push the suite's images", || push(&cluster))?;
            let kubeconfig = PathBuf::from(&cluster.kubeconfig);
            (Some(cluster), kubeconfig)
        }
    };
    let report = folder.join("gateway-api.yaml");
    let log = folder.join("gateway-api.log");
    // One of before must not be taken for this run's.
    let _ = fs::remove_file(&report);
    steps.step("run the suite", || {
        suite_run(args, &suite, &kubeconfig, &report, &log)
    })?;
    drop(cluster);
    let told = fs::read_to_string(&log).context("reading the suite's log")?;
    print!("{}", summary(&told));
    let written = fs::read_to_string(&report)
        .with_context(|| format!("the suite wrote no report; {} says why", log.display()))?;
    let is_whole = args.only.is_none() && args.kubeconfig.is_none() && args.flags.is_empty();
    if is_whole {
        let place = Path::new(REPORT);
        fs::create_dir_all(place.parent().unwrap_or(Path::new(".")))?;
        fs::write(place, written).with_context(|| format!("writing {REPORT}"))?;
        eprintln!("      {REPORT} is written");
    }
    Ok(())
}

/// A cluster that finds the suite's images in its own registry.
fn start(folder: &Path) -> Result<Cluster> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let token = uuid();
    let tokens = folder.join("gateway-api.tokens");
    fs::write(
        &tokens,
        format!("{token},{USER},{USER},\"system:masters\"\n"),
    )?;
    let host = format!("127.0.0.1:{port}");
    let registries = json!({
        "mirrors": {(REGISTRY): {"endpoint": [format!("https://{host}")]}},
        "configs": {(host): {
            "auth": {"username": USER, "password": token},
            "tls": {"insecure_skip_verify": true},
        }},
    });
    let file = folder.join("gateway-api.registries.yaml");
    // JSON is YAML.
    fs::write(&file, registries.to_string())?;
    let arguments = [
        "--token-auth-file".to_owned(),
        tokens.display().to_string(),
        "--private-registry".to_owned(),
        file.display().to_string(),
    ];
    Cluster::start_with("gateway-api", 3, port, &arguments)
}

/// A token that nobody guesses.
fn uuid() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid");
    text.unwrap_or_default().trim().to_owned()
}

/// Puts the components where nodes find the suite's images.
fn push(cluster: &Cluster) -> Result<()> {
    IMAGES
        .iter()
        .try_for_each(|(image, component)| cluster.push(&guests::path(component), image))
}

/// The suite, built from its modules.
fn built() -> Result<PathBuf> {
    let folder = target().join("conformance");
    let program = folder.join(format!("gateway-api-{RELEASE}.test"));
    if program.exists() {
        return Ok(program);
    }
    let source = folder.join("gateway-api-source");
    fs::create_dir_all(&source)?;
    let module = format!(
        "module suite\n\ngo 1.26.0\n\nrequire {MODULE} v{RELEASE}\n\nrequire {MODULE}/conformance v{RELEASE}\n"
    );
    fs::write(source.join("go.mod"), module)?;
    let fresh = folder.join(format!("gateway-api-{RELEASE}.{}", std::process::id()));
    let mut build = Command::new("go");
    build
        .args(["test", "-c", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&fresh)
        .arg(format!("{MODULE}/conformance"))
        .current_dir(&source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod -buildvcs=false");
    progress::run(
        &mut build,
        "install Go 1.26, or give --suite a binary that is there",
    )?;
    fs::rename(&fresh, &program)?;
    Ok(program)
}

fn suite_run(
    args: &Args,
    suite: &Path,
    kubeconfig: &Path,
    report: &Path,
    log: &Path,
) -> Result<()> {
    interrupts::watch()?;
    let output = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new(suite);
    command
        .args([
            "-test.v",
            "-test.timeout=2h",
            // Its own tests of its flags are nobody's conformance.
            "-test.run=TestConformance$",
            "-gateway-class=weft",
            "-mesh-name=weft",
        ])
        .arg(format!("-conformance-profiles={}", args.profiles.join(",")))
        .arg(format!("-report-output={}", report.display()))
        .args([
            "-organization=weft",
            "-project=weft",
            "-url=https://weft.dev",
            "-contact=https://weft.dev",
            concat!("-version=", env!("CARGO_PKG_VERSION")),
        ])
        .args(addresses(kubeconfig))
        .args(args.only.iter().map(|name| format!("-run-test={name}")))
        .args(&args.flags)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    let mut child = command.spawn().context("starting the suite")?;
    interrupts::reach(child.id());
    // Tests that fail make it end with a failure: its log and its report say which.
    let ended = child.wait();
    interrupts::forget(child.id());
    ensure!(!interrupts::came(), "interrupted");
    ended.context("waiting for the suite").map(drop)
}

/// An address that a Gateway of the cluster can have, and one that it cannot: of the range that belongs to the API's port.
fn addresses(kubeconfig: &Path) -> Vec<String> {
    let text = fs::read_to_string(kubeconfig).unwrap_or_default();
    let port = text.lines().find_map(|line| {
        let server = line.trim().strip_prefix("server:")?;
        server.trim().rsplit_once(':')?.1.parse::<u16>().ok()
    });
    let Some(port) = port else { return Vec::new() };
    let [high, low] = port.to_be_bytes();
    vec![
        format!("-usable-address=127.{high}.{low}.250"),
        "-unusable-address=192.0.2.1".to_owned(),
    ]
}

/// How many of the suite's tests passed, and which did not, from what Go prints of each.
fn summary(log: &str) -> String {
    let results = log.lines().filter_map(|line| {
        let result = line.strip_prefix("    --- ")?;
        let (verdict, rest) = result.split_once(": ")?;
        let (name, _) = rest.split_once(" (")?;
        Some((verdict, name))
    });
    let results: Vec<(&str, &str)> = results.collect();
    let count = |wanted: &str| {
        results
            .iter()
            .filter(|(verdict, _)| *verdict == wanted)
            .count()
    };
    let mut text = String::new();
    for (_, name) in results.iter().filter(|(verdict, _)| *verdict == "FAIL") {
        let _ = writeln!(text, "failed  {name}");
    }
    let _ = writeln!(
        text,
        "{} passed, {} failed, {} skipped",
        count("PASS"),
        count("FAIL"),
        count("SKIP")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_and_their_parts_are_not() {
        let log = "--- FAIL: TestConformance (9.00s)\n    --- PASS: HTTPRouteWeight (1.00s)\n        --- FAIL: HTTPRouteWeight/inner (0.1s)\n    \
                   --- FAIL: HTTPRouteCORS (2.00s)\n    --- SKIP: TLSRoute (0.00s)\n";
        assert_eq!(
            summary(log),
            "failed  HTTPRouteCORS\n1 passed, 1 failed, 1 skipped\n"
        );
    }

    #[test]
    fn the_suites_images_have_tags_and_components() {
        for (image, component) in IMAGES {
            assert!(
                image
                    .split_once(':')
                    .is_some_and(|(_, tag)| tag.starts_with('v'))
            );
            assert!(guests::path(component).ends_with(format!("{component}.wasm")));
        }
    }
}
