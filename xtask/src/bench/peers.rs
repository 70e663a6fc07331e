//! The programs of others that benches compare with or measure by: on PATH, else of Debian's packages, unpacked and not installed, else
//! built from their crate. All of it ends up below `target/peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::progress::{self, cargo};
use crate::target;

/// The `wasmtime` that benches compare with: the version of the crates in Cargo.lock.
const WASMTIME: &str = "48.0.8";

/// A program of somebody else's.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// Where the libraries are that came with it.
    libraries: Option<PathBuf>,
}

impl Program {
    /// It, to be started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        progress::clean_environment(&mut command);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    fn on_path(name: &str) -> Option<Self> {
        let found = Self {
            path: name.into(),
            libraries: None,
        };
        found.starts().then_some(found)
    }

    /// Whether it can be started at all; each of those that are asked knows one of the two words.
    fn starts(&self) -> bool {
        let answers = |flag| {
            let mut asked = self.command();
            asked.arg(flag).stdin(Stdio::null());
            asked.stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        };
        answers("--version") || answers("-v")
    }
}

/// The proxy that answers from memory as fast as anybody does.
pub fn nginx() -> Option<Program> {
    Program::on_path("nginx").or_else(|| unpacked(&["nginx"], "usr/sbin/nginx"))
}

/// The same with the module that passes on bytes of TCP, which is a file of its own.
pub fn nginx_stream() -> Option<(Program, PathBuf)> {
    let packages = ["libnginx-mod-stream", "nginx"];
    let program = unpacked(&packages, "usr/sbin/nginx")?;
    let folder = target().join("peers").join(packages[0]);
    let module = folder.join("usr/lib/nginx/modules/ngx_stream_module.so");
    module.exists().then_some((program, module))
}

/// A load generator that nobody here wrote. What it answers to `--version` is its usage, and 1.
pub fn wrk() -> Option<Program> {
    let packages = ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"];
    let is_there = Command::new("wrk").arg("-v").output().is_ok();
    let on_path = is_there.then(|| Program {
        path: "wrk".into(),
        libraries: None,
    });
    on_path.or_else(|| unpacked(&packages, "usr/bin/wrk"))
}

/// The etcd that `WEFT_ETCD` names, else another.
pub fn etcd() -> Option<Program> {
    if let Some(named) = std::env::var_os("WEFT_ETCD") {
        return Some(Program {
            path: named.into(),
            libraries: None,
        });
    }
    Program::on_path("etcd").or_else(|| unpacked(&["etcd-server"], "usr/bin/etcd"))
}

/// Built once, which takes two cores a quarter of an hour.
pub fn wasmtime() -> Option<Program> {
    if let Some(found) = Program::on_path("wasmtime") {
        return Some(found);
    }
    let root = target().join("peers").join("wasmtime");
    let path = root.join("bin").join("wasmtime");
    if !path.exists() {
        eprintln!("      building wasmtime {WASMTIME}, which weft is compared with, once");
        let mut install = cargo(["install", "wasmtime-cli", "--locked", "--version", WASMTIME]);
        install.arg("--root").arg(&root);
        progress::run(&mut install, "put a wasmtime on PATH").ok()?;
    }
    let libraries = None;
    path.exists().then_some(Program { path, libraries })
}

/// The program at `path` of the first of `packages`; the others are what it needs.
fn unpacked(packages: &[&str], path: &str) -> Option<Program> {
    let folder = target().join("peers").join(packages.first()?);
    let program = folder.join(path);
    if !program.exists() {
        std::fs::create_dir_all(&folder).ok()?;
        let mut download = Command::new("apt-get");
        download
            .args(["-q", "download"])
            .args(packages)
            .current_dir(&folder);
        progress::read(&mut download).ok()?;
        for package in debs(&folder) {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(&folder);
            progress::read(&mut unpack).ok()?;
        }
    }
    let machine = std::env::consts::ARCH;
    let libraries = folder.join(format!("usr/lib/{machine}-linux-gnu"));
    program.exists().then(|| Program {
        path: program,
        libraries: libraries.exists().then_some(libraries),
    })
}

fn debs(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect()
}
