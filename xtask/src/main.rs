//! Chores of this repository: `cargo xtask demo`, `test`, `guests`, `bench`, `release`, `chaos`, `conformance`, `differential`, `fuzz`,
//! `schemathesis`, `kwok`, `dashboard`, `codegen`.
//!
//! Each command is a file and does its own set-up, so that any of them is the first one on a fresh machine. They use
//! one build profile and the workspace as one selection, so nothing is compiled twice. A command that fails says what,
//! why and what to try; a command that waits shows what it waits for.

mod bench;
mod chaos;
mod cluster;
mod codegen;
mod conformance;
mod dashboard;
mod demo;
mod dependencies;
mod differential;
mod fuzz;
mod guests;
mod interrupts;
mod kube_apiserver;
mod kwok;
mod process;
mod progress;
mod release;
mod schemathesis;
mod test;
mod toolchain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Chores of the weft repository",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and watch an application run on a cluster of three nodes
    Demo(demo::Args),
    /// Check formatting, dependencies and lints, and run every test
    Test(test::Args),
    /// Judge what comes into the binary by deny.toml
    Dependencies,
    /// Build the sample components into target/guests
    Guests(guests::Args),
    /// Measure this machine: requests per second, and what a call through the mesh takes
    Bench(bench::Args),
    /// Build the program as users should get it, from a profile of itself at work
    Release(release::Args),
    /// Kill, pause and cut off real servers under load, and judge what clients saw
    Chaos(chaos::Args),
    /// Run upstream's conformance suite against a cluster
    Conformance(conformance::Args),
    /// Compare the API server's answers with recorded ones of kube-apiserver
    Differential(differential::Args),
    /// Try what the API reads from outside with inputs made from right ones
    Fuzz(fuzz::Args),
    /// Ask every operation of the OpenAPI document, and see that none fails the server
    Schemathesis(schemathesis::Args),
    /// Have KWOK play hundreds of nodes, and see whether their pods all run and stay
    Kwok(kwok::Args),
    /// Build the page that weft serves, test it in a browser, measure it
    Dashboard(dashboard::Args),
    /// Derive the API server's schema table from published schemas
    Codegen {
        /// --check, --definitions FILE, --facts FILE, --protobuf DIR
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What a shell gives for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The commands name files relative to the workspace, from wherever they are called.
    if let Err(error) = std::env::set_current_dir(root()) {
        eprintln!("error: cannot enter {}: {error}", root().display());
        return ExitCode::FAILURE;
    }
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Dependencies => dependencies::check(),
        Command::Guests(args) => guests::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Differential(args) => differential::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Schemathesis(args) => schemathesis::run(&args),
        Command::Kwok(args) => kwok::run(&args),
        Command::Dashboard(args) => dashboard::run(&args),
        Command::Codegen { arguments } => codegen::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // What failed after Ctrl-C failed because of it.
        Err(_) if interrupts::came() => {
            eprintln!("interrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// The chain of causes in one line; what to try in a second one, where the failure knows it.
fn report(error: &anyhow::Error) {
    eprintln!("\nerror: {error:#}");
    if let Some(next) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .and_then(|f| f.next)
    {
        eprintln!("  try: {next}");
    }
}

/// A failure that the reader can do something about.
#[derive(Debug)]
struct Failure {
    what: String,
    next: Option<&'static str>,
}

impl Failure {
    fn new(what: impl Into<String>, next: &'static str) -> Self {
        Self {
            what: what.into(),
            next: Some(next),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// The workspace's folder.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or(own.clone(), PathBuf::from)
}

/// Where cargo builds the workspace.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}
