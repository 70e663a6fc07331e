//! `cargo xtask guests`: build the sample components into `target/guests`.
//!
//! The samples are a workspace with a target folder of their own; cargo rebuilds there what changed and nothing else.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::toolchain::{self, TARGET, Toolchain};
use crate::{progress, target};

#[derive(clap::Args)]
pub struct Args {
    /// Use this toolchain instead of the first that works
    #[arg(long)]
    toolchain: Option<Toolchain>,
}

/// A sample component: its package, which also names the file, and what it is.
struct Guest {
    package: &'static str,
    kind: Kind,
}

enum Kind {
    /// A library that exports `wasi:http`.
    Service,
    /// A program with a `main`.
    Command,
}

const GUESTS: [Guest; 8] = [
    Guest {
        package: "hello",
        kind: Kind::Service,
    },
    Guest {
        package: "hello-p3",
        kind: Kind::Service,
    },
    Guest {
        package: "probe",
        kind: Kind::Service,
    },
    Guest {
        package: "relay-p3",
        kind: Kind::Service,
    },
    Guest {
        package: "web",
        kind: Kind::Service,
    },
    Guest {
        package: "emoji",
        kind: Kind::Service,
    },
    Guest {
        package: "voting",
        kind: Kind::Service,
    },
    Guest {
        package: "bot",
        kind: Kind::Command,
    },
];

pub fn run(args: &Args) -> Result<()> {
    build(args.toolchain)?;
    for guest in &GUESTS {
        let path = path(guest.package);
        let bytes = std::fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
        println!("{:>6} KB  {}", bytes.div_ceil(1000), path.display());
    }
    Ok(())
}

/// Where the component of that name is after [`build`].
pub fn path(name: &str) -> PathBuf {
    target().join("guests").join(format!("{name}.wasm"))
}

/// Builds all of them with the toolchain asked for, or the first that works.
pub fn build(wanted: Option<Toolchain>) -> Result<()> {
    const NEXT: &str = "read the compiler's messages above";
    let toolchain = toolchain::find(wanted)?;
    let mut services = toolchain.cargo("build");
    for guest in &GUESTS {
        if let Kind::Service = guest.kind {
            services.args(["--package", guest.package]);
        }
    }
    progress::run(&mut services, NEXT)?;
    for guest in &GUESTS {
        if let Kind::Command = guest.kind {
            let mut program = toolchain.cargo("rustc");
            program.args(["--package", guest.package, "--bin", guest.package, "--"]);
            program.args(toolchain.program_arguments());
            progress::run(&mut program, NEXT)?;
        }
    }
    let from = PathBuf::from("sample-apps/target")
        .join(TARGET)
        .join("release");
    let to = target().join("guests");
    std::fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for guest in &GUESTS {
        let built = match guest.kind {
            Kind::Service => from.join(format!("{}.wasm", guest.package.replace('-', "_"))),
            Kind::Command => from.join(format!("{}.wasm", guest.package)),
        };
        replace(&built, &path(guest.package))?;
    }
    Ok(())
}

/// Copies through a second name, so that whoever reads the component meanwhile gets the old or the new one whole.
fn replace(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let partial = to.with_extension("wasm.partial");
    std::fs::copy(from, &partial).with_context(|| format!("copying {}", from.display()))?;
    std::fs::rename(&partial, to).with_context(|| format!("writing {}", to.display()))
}
