//! A Rust toolchain that builds components, found or set up.
//!
//! First choice is the toolchain at hand with the target `wasm32-wasip2`, added by rustup if need be. Where rustup
//! cannot download it, Debian's packages do: their rustc comes with the sources of std, which are built along.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Failure;
use crate::progress::{self, clean_environment, describe};

pub const TARGET: &str = "wasm32-wasip2";

/// Where the packages have what a component is linked with.
const DEBIAN_FLAGS: &str = "-Clink-self-contained=no -Lnative=/usr/lib/wasm32-wasi";

/// How long rustup may try before the packages are used: a download takes seconds, an unreachable host for ever.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(60);

const PACKAGES: [&str; 6] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "lld-22",
    "wasi-libc",
];

/// What a machine with the packages has.
const PACKAGE_FILES: [&str; 5] = [
    "/usr/bin/rustc",
    "/usr/bin/cargo",
    "/usr/bin/wasm-ld-22",
    "/usr/lib/rustlib/src/rust/library/Cargo.lock",
    "/usr/lib/wasm32-wasi/crt1-command.o",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Toolchain {
    /// The toolchain at hand has the target.
    Target,
    /// Debian's rustc-web with its sources.
    Debian,
}

/// Chooses a toolchain, and installs what it lacks.
pub fn find(wanted: Option<Toolchain>) -> Result<Toolchain> {
    if wanted != Some(Toolchain::Debian) && (has_target() || add_target()) {
        return Ok(Toolchain::Target);
    }
    if wanted != Some(Toolchain::Target) && (has_packages() || install_packages()) {
        return Ok(Toolchain::Debian);
    }
    Err(Failure::new(
        format!("this machine has no Rust toolchain for {TARGET}, and none could be installed"),
        "`rustup target add wasm32-wasip2`, or on Debian as root `apt-get install rustc-web cargo-web rust-web-src \
         rust-web-llvm lld-22 wasi-libc`",
    )
    .into())
}

fn has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    clean_environment(&mut rustc);
    progress::read(&mut rustc).is_ok_and(|dir| Path::new(dir.trim()).is_dir())
}

fn add_target() -> bool {
    eprintln!("      adding the target {TARGET} with rustup");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]);
    within(&mut rustup, RUSTUP_PATIENCE) && has_target()
}

fn has_packages() -> bool {
    PACKAGE_FILES.iter().all(|file| Path::new(file).exists())
}

fn install_packages() -> bool {
    let is_root = progress::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || progress::read(Command::new("apt-get").arg("--version")).is_err() {
        return false;
    }
    eprintln!("      installing {}", PACKAGES.join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        progress::run(&mut apt, "").is_ok()
    };
    let mut install = vec!["-q", "-y", "--no-install-recommends", "install"];
    install.extend(PACKAGES);
    apt(&["-q", "update"]) && apt(&install) && has_packages()
}

/// Runs a command, and ends it when it takes too long.
fn within(command: &mut Command, patience: Duration) -> bool {
    let Ok(mut child) = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn()
    else {
        return false; // not installed
    };
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50))
            }
            Ok(None) | Err(_) => {
                eprintln!("      `{}` took too long", describe(command));
                // It may have ended by itself in between.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

impl Toolchain {
    /// A cargo command that builds for the target, in the workspace of a manifest.
    pub fn cargo(self, subcommand: &str, manifest: &Path) -> Command {
        let mut cargo = match self {
            Self::Target => progress::cargo([subcommand]),
            Self::Debian => {
                let mut cargo = Command::new("/usr/bin/cargo");
                clean_environment(&mut cargo);
                let path = std::env::var("PATH").unwrap_or_default();
                cargo
                    .arg(subcommand)
                    .env("PATH", format!("/usr/bin:{path}"))
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("RUSTFLAGS", DEBIAN_FLAGS)
                    .env_remove("CARGO")
                    .arg("-Zbuild-std=std,panic_abort");
                cargo
            }
        };
        cargo.args(["--release", "--target", TARGET, "--manifest-path"]);
        cargo.arg(manifest);
        // Workspaces of the caller's flags are not ours.
        cargo.env_remove("CARGO_TARGET_DIR");
        cargo
    }

    /// Has what `cargo` builds, and all that it depends on, built under these.
    pub fn with_cfgs(self, cargo: &mut Command, cfgs: &[String]) {
        if cfgs.is_empty() {
            return;
        }
        let mut flags = match self {
            Self::Target => String::new(),
            Self::Debian => DEBIAN_FLAGS.to_owned(),
        };
        for cfg in cfgs {
            flags.push_str(" --cfg ");
            flags.push_str(cfg);
        }
        cargo.env("RUSTFLAGS", flags.trim_start());
    }

    /// What the linker needs for a program with a `main`, on top of what a library needs.
    pub fn program_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Target => &[],
            Self::Debian => &["-Clink-arg=/usr/lib/wasm32-wasi/crt1-command.o"],
        }
    }
}
