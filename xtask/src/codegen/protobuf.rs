//! Derives the table of the binary form: which number on the wire is which JSON field, and whether its zero is left out.
//!
//! Source: the Go types of `k8s.io/api`, `k8s.io/apimachinery` and the two API servers beside the main one, whose struct tags say all of it. [`PROGRAM`] reads them by
//! reflection; Go fetches the modules and runs it in a temporary folder. What the table looks like is said there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const PROGRAM: &str = include_str!("protobuf.go");

/// The release whose types the table is of.
const RELEASE: &str = "v0.37.2";

/// The table, as it is committed.
///
/// # Errors
/// When there is no Go, or it cannot fetch the modules.
pub fn table() -> Result<String> {
    let dir = std::env::temp_dir().join("weft-codegen-protobuf");
    std::fs::create_dir_all(&dir)?;
    let modules = format!(
        "module protobuf\n\ngo 1.26.0\n\nrequire k8s.io/api {RELEASE}\nrequire k8s.io/apimachinery {RELEASE}\nrequire k8s.io/apiextensions-apiserver {RELEASE}\nrequire k8s.io/kube-aggregator {RELEASE}\n"
    );
    std::fs::write(dir.join("go.mod"), modules)?;
    std::fs::write(dir.join("main.go"), PROGRAM)?;
    run(&dir)
}

fn run(dir: &Path) -> Result<String> {
    let output = Command::new("go")
        .args(["run", "."])
        .current_dir(dir)
        .env("GOFLAGS", "-mod=mod")
        .output()
        .context("starting go, which reads Kubernetes' types")?;
    ensure!(
        output.status.success(),
        "go run failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("the table is text")
}
