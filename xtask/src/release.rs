//! `cargo xtask release`: the program as users should get it, built from a profile of itself at work.
//!
//! A call passes hundreds of functions of dozens of crates, more than a processor's caches of instructions and branches hold, so that it
//! is where they lie that costs. The compiler puts together what it knows to run together: the program is built once with counters,
//! serves calls in every way there is, and is built again from what it counted (profile-guided optimisation;
//! <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>). How much that is, docs/performance.md says.
//!
//! Both builds are for a named target, so that flags reach what runs and not what builds. Nothing of this is kept but in `target/guided`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::progress::{self, Steps, cargo};
use crate::{Failure, bench, guests};

#[derive(clap::Args)]
pub struct Args {
    /// Take the profile that an earlier run left, instead of making one: it holds as long as the code is about the same
    #[arg(long)]
    reuse_profile: bool,
}

/// Where the finished programs are.
pub fn folder(host: &str) -> PathBuf {
    crate::target().join("guided").join(host).join("release")
}

pub fn run(args: &Args) -> Result<()> {
    let host = host()?;
    let work = crate::target().join("guided");
    let profile = work.join("weft.profdata");
    let is_there = args.reuse_profile && profile.exists();
    let mut steps = Steps::new(if is_there { 1 } else { 5 });
    if !is_there {
        let merge = steps.step("find what reads profiles", llvm_profdata)?;
        let counts = work.join("counts");
        if counts.exists() {
            // Counts of other code would be merged into these.
            std::fs::remove_dir_all(&counts)
                .with_context(|| format!("emptying {}", counts.display()))?;
        }
        let counting = work.join("counting");
        steps.step("build weft with counters", || {
            guests::build(None)?;
            let flag = format!("-Cprofile-generate={}", absolute(&counts)?.display());
            build(&flag, &host, &counting)
        })?;
        steps.step("have it serve calls", || {
            bench::serve_everything(&counting.join(&host).join("release"))
        })?;
        steps.step("merge what it counted", || {
            let mut command = std::process::Command::new(&merge);
            command.arg("merge").arg("--output").arg(&profile);
            progress::read(command.arg(&counts)).map(drop)
        })?;
    }
    steps.step("build weft from it", || {
        guests::build(None)?;
        let flag = format!("-Cprofile-use={}", absolute(&profile)?.display());
        build(&flag, &host, &work)
    })?;
    println!("{}", folder(&host).join("weft").display());
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

fn build(flag: &str, host: &str, target: &Path) -> Result<()> {
    let mut command = cargo(["build", "--release", "--workspace", "--bin", "weft"]);
    // The program, and those that `bench` measures parts of it by: their code is its.
    for example in ["serve", "costs", "load", "streams"] {
        command.args(["--example", example]);
    }
    command.args(["--target", host]);
    command
        .env("RUSTFLAGS", flag)
        .env("WEFT_TOOLBOX", absolute(&guests::path("toolbox"))?)
        .env("CARGO_TARGET_DIR", target);
    progress::run(&mut command, "read the compiler's messages above")
}

/// As `x86_64-unknown-linux-gnu`.
fn host() -> Result<String> {
    let told =
        progress::read(std::process::Command::new("rustc").args(["--version", "--verbose"]))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("rustc does not say what it runs on")?
        .to_owned())
}

/// The toolchain's own: profiles of another version of LLVM are not read.
fn llvm_profdata() -> Result<PathBuf> {
    let find = || -> Result<Option<PathBuf>> {
        let root =
            progress::read(std::process::Command::new("rustc").args(["--print", "sysroot"]))?;
        let libraries = Path::new(root.trim()).join("lib").join("rustlib");
        let program = libraries.join(host()?).join("bin").join("llvm-profdata");
        Ok(program.exists().then_some(program))
    };
    if let Some(program) = find()? {
        return Ok(program);
    }
    let mut rustup = std::process::Command::new("rustup");
    rustup.args(["component", "add", "llvm-tools"]);
    // Where that fails, so does the look after it.
    let _ = progress::run(&mut rustup, "");
    find()?.ok_or_else(|| {
        Failure::new(
            "the toolchain has no llvm-profdata, which reads profiles".to_owned(),
            "`rustup component add llvm-tools`",
        )
        .into()
    })
}
