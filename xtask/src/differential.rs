//! `cargo xtask differential`: how far this API server answers as kube-apiserver does.
//!
//! Requests are made from a corpus of manifests: each as it is, its mutants (a field dropped, null, of another type, out of
//! range, unknown, an element twice), and random patches of the three types. What kube-apiserver answers is recorded and
//! committed, so that the comparison, a test of `weft-apiserver`, needs nothing but itself: it prints how many codes, messages and
//! stored objects are equal by kind, and the most frequent differences.
//!
//! `record` asks a kube-apiserver that it starts itself, with etcd, on loopback, and writes the answers anew.
//!
//! Invariants: the same corpus and seed give the same requests; only processes started here are ended.

mod corpus;
mod record;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

/// Where the corpus is, and what was answered to it.
const CORPUS: &str = "apiserver/tests/differential/corpus.json";
const ANSWERS: &str = "apiserver/tests/differential/answers.lz4";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Ask a real kube-apiserver, and write what it answers
    Record {
        /// The folder with the binaries kube-apiserver and etcd
        binaries: PathBuf,
        /// The folder with the custom resource definitions of the Gateway API: config/crd of its Go module
        definitions: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// When the reference does not start or answer, or the comparison falls below what is promised.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        Some(Action::Record {
            binaries,
            definitions,
        }) => record::run(binaries, definitions),
        None => {
            let status = Command::new("cargo")
                .args(["test", "-p", "weft-apiserver", "--test", "differential"])
                .args(["--", "--nocapture"])
                .status()
                .context("starting cargo")?;
            ensure!(status.success(), "the comparison failed");
            Ok(())
        }
    }
}
