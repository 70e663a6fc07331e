//! `cargo xtask differential`: how far this API server answers as kube-apiserver does.
//!
//! Requests are made from a corpus of manifests: each as it is, its mutants (a field dropped, null, of another type, out of
//! range, unknown, an element twice), as a new object and in place of one, random patches of the three types, and the same of
//! `/status` and `/scale`. What kube-apiserver answers is recorded and committed, so that the comparison, a test of `weft-apiserver`, needs nothing but itself: it prints how many codes, messages and
//! stored objects are equal by kind, and the most frequent differences.
//!
//! `record` asks a kube-apiserver that it starts itself, with etcd, on loopback, and writes the answers anew. With `--manifests`
//! it asks about objects of others, such as a chart's output, or a folder with public definitions and objects of them, which are not
//! kept here: their licences are theirs, and the comparison needs them only once. `access` does the same with questions of who may do what.
//!
//! Invariants: the same corpus and seed give the same requests; only processes started here are ended.

mod access;
mod corpus;
mod manifests;
mod record;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

/// Where the corpus is, and what was answered to it.
const CORPUS: &str = "apiserver/tests/differential/corpus.json";
const STATUSES: &str = "apiserver/tests/differential/statuses.json";
const ANSWERS: &str = "apiserver/tests/differential/answers.lz4";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    /// Compare by these manifests, a JSON list of objects or a folder of YAML, instead of the corpus
    #[arg(long, requires = "answers")]
    manifests: Option<PathBuf>,

    /// Where the answers about these manifests are, or go
    #[arg(long, requires = "manifests")]
    answers: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Ask a real kube-apiserver who may do what, and write what it answers; a test of the API compares
    Access {
        /// The folder with the binaries kube-apiserver and etcd
        binaries: PathBuf,
    },
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
        Some(Action::Access { binaries }) => access::run(binaries),
        Some(Action::Record {
            binaries,
            definitions,
        }) => {
            let corpus = match (&args.manifests, &args.answers) {
                (Some(manifests), Some(answers)) => record::Corpus::of(manifests, answers)?,
                _ => record::Corpus::own()?,
            };
            record::run(binaries, definitions, &corpus)
        }
        None => {
            let mut test = Command::new("cargo");
            test.args(["test", "--workspace", "--test", "differential"])
                .args(["--", "--nocapture"]);
            if let (Some(manifests), Some(answers)) = (&args.manifests, &args.answers) {
                let read = manifests::read(manifests, record::is_known)?;
                let file = crate::target().join("differential-manifests.json");
                std::fs::write(&file, serde_json::to_vec(&read)?)?;
                // The test runs in the folder of its crate.
                test.env("DIFFERENTIAL_MANIFESTS", file.canonicalize()?)
                    .env("DIFFERENTIAL_ANSWERS", answers.canonicalize()?);
            }
            let status = test.status().context("starting cargo")?;
            ensure!(status.success(), "the comparison failed");
            Ok(())
        }
    }
}
