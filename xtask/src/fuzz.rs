//! `cargo xtask fuzz`: the targets of `fuzz/` with libFuzzer and coverage, for as long as one likes.
//!
//! What is found interesting is kept in `target/fuzz/corpus/TARGET`, what breaks a promise in `target/fuzz/found/TARGET`; both go on
//! from there the next time, after the seeds. It needs a C++ compiler, and no nightly: the compiler's own passes write down what was
//! reached. Without one, or with `--blind`, inputs are made without looking at what they reach.
//!
//! A panic, an overflown stack, [`INPUT_SECONDS`] for one input and [`MEMORY_MIB`] are failures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress::{self, Steps, cargo};
use crate::{Failure, target};

/// Longest that one input may take, where nothing is optimised and everything is counted.
const INPUT_SECONDS: u32 = 10;
/// Memory of a run, in mebibytes.
const MEMORY_MIB: u32 = 2048;
/// As `fuzz/src/mutation.rs` has it.
const INPUT_BYTES: u32 = 64 << 10;

/// What rustc is told for libFuzzer, as cargo-fuzz does: where code was reached, and what was compared with what.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions";

#[derive(clap::Args)]
pub struct Args {
    /// Which, as `--list` names them; all of them, one after the other
    targets: Vec<String>,
    /// Time for each
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Without coverage, on the build that tests use
    #[arg(long)]
    blind: bool,
    /// What inputs are made from, without coverage
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Name the targets and do nothing
    #[arg(long)]
    list: bool,
}

/// Runs the command.
///
/// # Errors
/// When an input breaks a promise.
pub fn run(args: &Args) -> Result<()> {
    let all = names()?;
    if args.list {
        all.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        let next = "one that `cargo xtask fuzz --list` names";
        return Err(Failure::new(format!("there is no target {unknown:?}"), next).into());
    }
    let chosen = match args.targets.is_empty() {
        true => all,
        false => args.targets.clone(),
    };
    let compiler = Command::new("c++").arg("--version").output();
    let has_compiler = compiler.is_ok_and(|told| told.status.success());
    if !has_compiler && !args.blind {
        eprintln!("there is no C++ compiler for libFuzzer: inputs are made without coverage");
    }
    let mut steps = Steps::new(chosen.len() + 1);
    if args.blind || !has_compiler {
        steps.step("build", || progress::run(&mut blind(&["--no-run"]), BUILD))?;
        for name in &chosen {
            steps.step(name, || run_blind(name, args))?;
        }
        return Ok(());
    }
    let program = steps.step("build with coverage", build)?;
    for name in &chosen {
        steps.step(name, || run_covered(&program, name, args))?;
    }
    Ok(())
}

const BUILD: &str = "read the compiler's messages above";
const FOUND: &str = "the input is in target/fuzz/found; `cargo test --test inputs` runs the target's seeds, where it may be added";

/// The targets, as their tests name them.
fn names() -> Result<Vec<String>> {
    let text = std::fs::read_to_string("fuzz/tests/inputs.rs").context("reading the targets")?;
    let list = text
        .split_once("\ntargets! {")
        .context("there is no list")?
        .1;
    let names = list.lines().filter_map(|line| line.split('"').nth(1));
    Ok(names.map(str::to_owned).collect())
}

fn blind(arguments: &[&str]) -> Command {
    let mut command = cargo(["test", "--workspace", "--test", "inputs"]);
    command.args(arguments);
    command
}

fn run_blind(name: &str, args: &Args) -> Result<()> {
    let found = target().join("fuzz/found");
    std::fs::create_dir_all(&found)?;
    let test = name.replace('-', "_");
    let mut command = blind(&["--", "--exact", &test, "--nocapture"]);
    command
        .env("WEFT_FUZZ_SECONDS", args.seconds.to_string())
        .env("WEFT_FUZZ_DIR", &found)
        .env("WEFT_SEED", args.seed.to_string());
    progress::run(&mut command, FOUND)
}

fn build() -> Result<PathBuf> {
    let folder = target().join("fuzz");
    let mut command = cargo(["build", "--manifest-path", "fuzz/libfuzzer/Cargo.toml"]);
    command
        // Build scripts and procedural macros are built without, which naming the target sees to.
        .args(["--target", host()?.trim()])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", COVERAGE);
    progress::run(&mut command, BUILD)?;
    Ok(folder.join(host()?.trim()).join("debug/any"))
}

/// The triple of this machine.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = progress::read(Command::new(rustc).arg("-vV"))?;
    let line = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_owned())
}

fn run_covered(program: &Path, name: &str, args: &Args) -> Result<()> {
    let folder = |what: &str| target().join("fuzz").join(what).join(name);
    let (corpus, found, seeds) = (folder("corpus"), folder("found"), folder("seeds"));
    for folder in [&corpus, &found, &seeds] {
        std::fs::create_dir_all(folder)?;
    }
    let mut write = Command::new(program);
    write
        .env("WEFT_FUZZ_TARGET", name)
        .env("WEFT_FUZZ_SEEDS", &seeds)
        .args(["-runs=0"]);
    progress::read(&mut write)?;
    let mut command = Command::new(program);
    command
        .env("WEFT_FUZZ_TARGET", name)
        .arg(&corpus)
        .arg(&seeds)
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={INPUT_BYTES}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .args([
            "-print_final_stats=1",
            "-verbosity=0",
            "-detect_leaks=0",
            "-use_value_profile=1",
        ]);
    progress::run(&mut command, FOUND)
}
