//! `cargo xtask guests`: build the sample components into `target/guests`, or the component crate in another folder.
//!
//! The samples are a workspace with a target folder of their own; cargo rebuilds there what changed and nothing else. With
//! the target of rustup, a crate needs no help from here; with other toolchains this knows the flags.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::toolchain::{self, TARGET, Toolchain};
use crate::{Failure, progress, target};

#[derive(clap::Args)]
pub struct Args {
    /// A component crate of your own, to build instead of the samples
    #[arg(value_name = "FOLDER", value_parser = absolute)]
    folder: Option<PathBuf>,
    /// Build the programs of upstream's test images, too (minutes)
    #[arg(long, conflicts_with = "folder")]
    suite: bool,
    /// Use this toolchain instead of the first that works
    #[arg(long)]
    toolchain: Option<Toolchain>,
}

/// A sample component: its package, which also names the file, and what it is.
struct Guest {
    package: &'static str,
    kind: Kind,
}

/// The programs of upstream's test images: a crate of its own, which the suite alone needs, and takes minutes to build.
const SUITE: &str = "agnhost";
const SUITE_PROGRAMS: [&str; 4] = ["agnhost", "nautilus", "nonewprivs", "pause"];
/// The same for the Gateway API's suite.
const GATEWAY_SUITE: &str = "gateway-echo";
const GATEWAY_SUITE_PROGRAMS: [&str; 2] = ["gateway-echo", "mesh-echo"];
/// What tokio's sockets are built under for components.
const SUITE_CFG: &str = "tokio_unstable";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A library with exports, `wasi:http` in most cases.
    Library,
    /// A program with a `main`.
    Program,
}

const GUESTS: [Guest; 22] = [
    Guest {
        package: "hello",
        kind: Kind::Library,
    },
    Guest {
        package: "hello-p3",
        kind: Kind::Library,
    },
    Guest {
        package: "meshed",
        kind: Kind::Library,
    },
    Guest {
        package: "probe",
        kind: Kind::Library,
    },
    Guest {
        package: "relay-p3",
        kind: Kind::Library,
    },
    Guest {
        package: "web",
        kind: Kind::Library,
    },
    Guest {
        package: "emoji",
        kind: Kind::Library,
    },
    Guest {
        package: "voting",
        kind: Kind::Library,
    },
    Guest {
        package: "details",
        kind: Kind::Library,
    },
    Guest {
        package: "productpage",
        kind: Kind::Library,
    },
    Guest {
        package: "ratings",
        kind: Kind::Library,
    },
    Guest {
        package: "reviews",
        kind: Kind::Library,
    },
    Guest {
        package: "attacker",
        kind: Kind::Library,
    },
    Guest {
        package: "behaviours",
        kind: Kind::Library,
    },
    Guest {
        package: "behaviours-p3",
        kind: Kind::Library,
    },
    Guest {
        package: "discount",
        kind: Kind::Library,
    },
    Guest {
        package: "granted",
        kind: Kind::Library,
    },
    Guest {
        package: "granted-p3",
        kind: Kind::Library,
    },
    Guest {
        package: "wordcount",
        kind: Kind::Library,
    },
    Guest {
        package: "bot",
        kind: Kind::Program,
    },
    Guest {
        package: "echo",
        kind: Kind::Program,
    },
    Guest {
        package: "toolbox",
        kind: Kind::Program,
    },
];

const MANIFEST: &str = "sample-apps/Cargo.toml";
const NEXT: &str = "read the compiler's messages above";

/// Relative to where the command was called, which is left soon.
fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

pub fn run(args: &Args) -> Result<()> {
    let built = match &args.folder {
        Some(folder) => build_crate(folder, args.toolchain)?,
        None => {
            build(args.toolchain)?;
            let mut names: Vec<&str> = GUESTS.iter().map(|guest| guest.package).collect();
            if args.suite {
                build_suite()?;
                names.extend(SUITE_PROGRAMS);
            }
            names.into_iter().map(path).collect()
        }
    };
    for path in built {
        let bytes = std::fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
        println!("{:>6} KB  {}", bytes.div_ceil(1000), path.display());
    }
    Ok(())
}

/// Builds the components of one crate, wherever it is, and tells where cargo put them.
fn build_crate(folder: &Path, wanted: Option<Toolchain>) -> Result<Vec<PathBuf>> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Failure::new(
            format!("{} has no Cargo.toml", folder.display()),
            "name the folder of a crate, such as sample-apps/hello",
        )
        .into());
    }
    let mut metadata = progress::cargo(["metadata", "--no-deps", "--format-version", "1"]);
    metadata.arg("--manifest-path").arg(&manifest);
    let metadata: Value = serde_json::from_str(&progress::read(&mut metadata)?)
        .context("reading what cargo metadata prints")?;
    let components = components(&metadata, &std::fs::canonicalize(&manifest)?);
    if components.is_empty() {
        return Err(Failure::new(
            format!("{} builds no component", manifest.display()),
            "`crate-type = [\"cdylib\"]` under [lib] for a handler, or a src/main.rs for a command",
        )
        .into());
    }
    let toolchain = toolchain::find(wanted)?;
    let cfgs = cfgs(&metadata, &std::fs::canonicalize(&manifest)?);
    for (kind, name) in &components {
        let mut cargo = match kind {
            Kind::Library => toolchain.cargo("build", &manifest),
            Kind::Program => toolchain.cargo("rustc", &manifest),
        };
        toolchain.with_cfgs(&mut cargo, &cfgs);
        match kind {
            Kind::Library => cargo.arg("--lib"),
            Kind::Program => cargo
                .args(["--bin", name, "--"])
                .args(toolchain.program_arguments()),
        };
        progress::run(&mut cargo, NEXT)?;
    }
    let target = metadata["target_directory"].as_str().unwrap_or("target");
    let release = Path::new(target).join(TARGET).join("release");
    Ok(components
        .iter()
        .map(|(_, name)| release.join(format!("{name}.wasm")))
        .collect())
}

/// What a crate builds that can be a component, from what `cargo metadata` says of it.
fn components(metadata: &Value, manifest: &Path) -> Vec<(Kind, String)> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages
        .filter(|package| package["manifest_path"].as_str() == manifest.to_str())
        .flat_map(|package| package["targets"].as_array().into_iter().flatten());
    targets
        .filter_map(|target| {
            let is = |kind: &str| {
                let mut kinds = target["kind"].as_array().into_iter().flatten();
                kinds.any(|found| found == kind)
            };
            let kind = match (is("cdylib"), is("bin")) {
                (true, _) => Kind::Library,
                (_, true) => Kind::Program,
                _ => return None,
            };
            Some((kind, target["name"].as_str()?.to_owned()))
        })
        .collect()
}

/// What a crate says that its component and all below it are built under: `[package.metadata.component] cfg`.
fn cfgs(metadata: &Value, manifest: &Path) -> Vec<String> {
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["manifest_path"].as_str() == manifest.to_str());
    let said = package.map(|package| &package["metadata"]["component"]["cfg"]);
    let said = said.and_then(Value::as_array).into_iter().flatten();
    said.filter_map(|cfg| cfg.as_str().map(str::to_owned))
        .collect()
}

/// Builds the programs of Kubernetes' test images.
pub fn build_suite() -> Result<()> {
    build_programs(SUITE, &SUITE_PROGRAMS)
}

/// Builds the programs of the Gateway API's test images.
pub fn build_gateway_suite() -> Result<()> {
    build_programs(GATEWAY_SUITE, &GATEWAY_SUITE_PROGRAMS)
}

/// Builds programs of a package whose sockets are tokio's.
fn build_programs(package: &str, names: &[&'static str]) -> Result<()> {
    let toolchain = toolchain::find(None)?;
    for name in names {
        let mut program = toolchain.cargo("rustc", Path::new(MANIFEST));
        toolchain.with_cfgs(&mut program, &[SUITE_CFG.to_owned()]);
        program.args(["--target-dir", "sample-apps/target", "--package", package]);
        program.args(["--bin", name, "--"]);
        program.args(toolchain.program_arguments());
        progress::run(&mut program, NEXT)?;
    }
    let built = names.iter().map(|name| (format!("{name}.wasm"), *name));
    keep(&built.collect::<Vec<_>>())
}

/// Where the component of that name is after [`build`].
pub fn path(name: &str) -> PathBuf {
    target().join("guests").join(format!("{name}.wasm"))
}

/// Builds all of them with the toolchain asked for, or the first that works.
pub fn build(wanted: Option<Toolchain>) -> Result<()> {
    build_samples(&GUESTS.iter().collect::<Vec<_>>(), wanted)
}

/// Builds those of these packages, for a command that needs no others.
pub fn build_only(packages: &[&str]) -> Result<()> {
    let mut guests = GUESTS.iter().collect::<Vec<_>>();
    guests.retain(|guest| packages.contains(&guest.package));
    build_samples(&guests, None)
}

fn build_samples(chosen: &[&Guest], wanted: Option<Toolchain>) -> Result<()> {
    let toolchain = toolchain::find(wanted)?;
    let samples = |subcommand| {
        let mut cargo = toolchain.cargo(subcommand, Path::new(MANIFEST));
        cargo.args(["--target-dir", "sample-apps/target"]);
        cargo
    };
    let mut libraries = chosen
        .iter()
        .filter(|guest| matches!(guest.kind, Kind::Library))
        .peekable();
    // Without a package, Cargo takes all of them, those that are programs of other sockets included.
    if libraries.peek().is_some() {
        let mut build = samples("build");
        for guest in libraries {
            build.args(["--package", guest.package]);
        }
        progress::run(&mut build, NEXT)?;
    }
    for guest in chosen {
        if let Kind::Program = guest.kind {
            let mut program = samples("rustc");
            program.args(["--package", guest.package, "--bin", guest.package, "--"]);
            program.args(toolchain.program_arguments());
            progress::run(&mut program, NEXT)?;
        }
    }
    let built = chosen.iter().map(|guest| match guest.kind {
        Kind::Library => {
            let file = format!("{}.wasm", guest.package.replace('-', "_"));
            (file, guest.package)
        }
        Kind::Program => (format!("{}.wasm", guest.package), guest.package),
    });
    keep(&built.collect::<Vec<_>>())
}

/// Puts what was built, by its file's name, where [`path`] says.
fn keep(built: &[(String, &str)]) -> Result<()> {
    let from = PathBuf::from("sample-apps/target")
        .join(TARGET)
        .join("release");
    let to = target().join("guests");
    std::fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for (file, name) in built {
        replace(&from.join(file), &path(name))?;
    }
    Ok(())
}

/// Copies through a second name, so that whoever reads the component meanwhile gets the old or the new one whole.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("wasm.partial");
    std::fs::copy(from, &partial).with_context(|| format!("copying {}", from.display()))?;
    std::fs::rename(&partial, to).with_context(|| format!("writing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::{Kind, components};

    #[test]
    fn a_crate_tells_what_it_builds() {
        let target = |name: &str, kind: &str| json!({"name": name, "kind": [kind]});
        let package = |path: &str, targets: [serde_json::Value; 3]| json!({"manifest_path": path, "targets": targets});
        let metadata = json!({"packages": [
            package("/shop/Cargo.toml", [target("shop", "cdylib"), target("sweep", "bin"), target("it", "test")]),
            package("/other/Cargo.toml", [target("other", "lib"), target("e", "example"), target("b", "bench")]),
        ]});
        let found = |path: &str| components(&metadata, Path::new(path));
        assert_eq!(
            found("/shop/Cargo.toml"),
            [
                (Kind::Library, "shop".into()),
                (Kind::Program, "sweep".into())
            ]
        );
        assert_eq!(found("/other/Cargo.toml"), []);
        assert_eq!(found("/nowhere/Cargo.toml"), []);
    }
}
