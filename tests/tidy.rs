//! House rules as tests: which crate may depend on which, and where unsafe code may stand.
//!
//! A new edge between crates is a reviewed line in [`MAY_DEPEND_ON`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom among the crates of the workspace.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("weft-api", &[]),
    ("weft-store", &[]),
    ("weft-kinds", &["weft-api"]),
    (
        "weft-apiserver",
        &[
            "weft-api",
            "weft-call",
            "weft-jws",
            "weft-kinds",
            "weft-store",
        ],
    ),
    ("weft-scheduler", &["weft-api"]),
    (
        "weft-controllers",
        &[
            "weft-api",
            "weft-call",
            "weft-gateway",
            "weft-kinds",
            "weft-policy",
        ],
    ),
    ("weft-gateway", &["weft-api"]),
    ("weft-jws", &[]),
    ("weft-policy", &["weft-api"]),
    ("weft-call", &[]),
    ("weft-turns", &[]),
    (
        "weft-mesh",
        &[
            "weft-api",
            "weft-call",
            "weft-gateway",
            "weft-jws",
            "weft-policy",
            "weft-turns",
        ],
    ),
    ("weft-runtime", &["weft-call", "weft-turns"]),
    (
        "weft-agent",
        &[
            "weft-api",
            "weft-call",
            "weft-gateway",
            "weft-policy",
            "weft-runtime",
            "weft-mesh",
            "weft-turns",
        ],
    ),
    (
        "weft",
        &[
            "weft-agent",
            "weft-api",
            "weft-apiserver",
            "weft-call",
            "weft-controllers",
            "weft-kinds",
            "weft-mesh",
            "weft-runtime",
            "weft-scheduler",
            "weft-store",
        ],
    ),
    ("weft-sdk", &["weft-sdk-macros"]),
    ("weft-sdk-macros", &[]),
    (
        "weft-fuzz",
        &[
            "weft-api",
            "weft-apiserver",
            "weft-call",
            "weft-gateway",
            "weft-kinds",
            "weft-mesh",
            "weft-store",
        ],
    ),
    ("xtask", &[]),
    ("weft-tests", &[]),
    ("weft-models", &[]),
];

/// Crates that decide and never act: no async runtime, no sockets.
const PURE: &[&str] = &[
    "weft-api",
    "weft-call",
    "weft-kinds",
    "weft-scheduler",
    "weft-controllers",
    "weft-gateway",
    "weft-policy",
];
const IMPURE_DEPENDENCIES: &[&str] = &["tokio", "hyper", "axum", "kube", "rand"];

/// Names that say nothing of what is inside, so that everything ends up there.
const SHAPELESS_NAMES: &[&str] = &[
    "common", "helper", "helpers", "misc", "shared", "types", "util", "utils",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is a folder of the workspace")
        .to_owned()
}

fn metadata() -> Value {
    // The library for this would bring features that the rest of the workspace builds without.
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Where each crate of the workspace is.
fn folders() -> BTreeMap<String, PathBuf> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((
                package["name"].as_str()?.to_owned(),
                manifest.parent()?.to_owned(),
            ))
        })
        .collect()
}

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let edges = |package: &Value| {
        package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(&dependency["name"]))
            .collect()
    };
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .map(|package| (text(&package["name"]), edges(package)))
        .collect()
}

#[test]
fn crates_depend_only_in_the_allowed_directions() {
    let found = dependencies();
    let ours: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let table: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    for (name, edges) in &found {
        let allowed = table
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in the table of MAY_DEPEND_ON"));
        for edge in edges.iter().filter(|edge| ours.contains(edge.as_str())) {
            assert!(
                allowed.contains(&edge.as_str()),
                "{name} depends on {edge}, which MAY_DEPEND_ON does not allow"
            );
        }
    }
}

#[test]
fn pure_crates_stay_pure() {
    let found = dependencies();
    for name in PURE {
        for edge in &found[*name] {
            assert!(
                !IMPURE_DEPENDENCIES.contains(&edge.as_str()),
                "{name} decides and never acts, but depends on {edge}"
            );
        }
    }
}

#[test]
fn pure_crates_refuse_clocks_and_random_order() {
    for name in PURE {
        let folder = name.trim_start_matches("weft-");
        let path = root().join(folder).join("clippy.toml");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for refused in [
            "Instant::now",
            "SystemTime::now",
            "Timestamp::now",
            "HashMap",
        ] {
            assert!(
                text.contains(refused),
                "{} does not refuse {refused}",
                path.display()
            );
        }
    }
}

#[test]
fn the_compiler_refuses_unsafe_code_in_every_crate() {
    let manifest = |path: PathBuf| {
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let workspace = manifest(root().join("Cargo.toml"));
    let forbids = "[workspace.lints.rust]\nunsafe_code = \"forbid\"";
    assert!(workspace.contains(forbids), "the workspace forbids it");
    for (name, folder) in folders() {
        let text = manifest(folder.join("Cargo.toml"));
        // The one crate that loads what it compiled cannot forbid it, and allows it in that file only.
        let expected = match name.as_str() {
            "weft-runtime" => "unsafe_code = \"deny\"",
            _ => "[lints]\nworkspace = true",
        };
        assert!(text.contains(expected), "{name} lacks {expected:?}");
    }
}

#[test]
fn nothing_has_a_name_that_says_nothing() {
    let shapeless = |name: &str| {
        let name = name.trim_start_matches("weft-");
        SHAPELESS_NAMES.contains(&name)
    };
    for name in folders().keys() {
        assert!(!shapeless(name), "a crate is called {name}");
    }
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for path in files {
        let relative = path.strip_prefix(root()).unwrap_or(&path);
        let inside = relative.with_extension("");
        let bad = inside
            .iter()
            .any(|part| part.to_str().is_some_and(shapeless));
        assert!(
            !bad,
            "{} says nothing of what is inside",
            relative.display()
        );
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of the workspace is readable") {
        let path = entry.expect("a folder entry is readable").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_stands_only_where_compiled_artefacts_are_loaded() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    // The compiler refuses `unsafe` everywhere else; what is looked for is a file that lifts the refusal.
    let lifts = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let lint = ["unsafe", "_code"].concat();
        let opens = |word: &str| word.ends_with("allow(") || word.ends_with("expect(");
        words
            .windows(2)
            .any(|pair| opens(pair[0]) && pair[1].starts_with(&lint))
            || text.contains(&format!("allow({lint}"))
            || text.contains(&format!("expect({lint}"))
    };
    let found: Vec<String> = files
        .iter()
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| lifts(&text)))
        .map(|path| {
            path.strip_prefix(root())
                .unwrap_or(path)
                .display()
                .to_string()
        })
        .filter(|path| !path.starts_with("sample-apps") && !path.starts_with("sdk"))
        .collect();
    assert_eq!(found, ["runtime/src/artifact.rs"]);
}

#[test]
fn nobody_ends_processes_by_their_names() {
    // Whatever else runs on the machine may match, another cluster's nodes first of all.
    let names = ["pkill", "killall", "fuser"].map(|name| format!("\"{name}\""));
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let found: Vec<_> = files
        .iter()
        .filter(|path| !path.ends_with("tests/tidy.rs"))
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            names.iter().any(|name| text.contains(name))
        })
        .collect();
    assert!(found.is_empty(), "processes are ended by name: {found:?}");
}

#[test]
fn the_rule_that_the_docs_show_is_the_sample_applications() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let docs = read("docs/egress.md");
    let shown = docs
        .split("```")
        .nth(1)
        .and_then(|yaml| yaml.split_once("  outgoingHTTP:"));
    let (_, rule) = shown.expect("docs/egress.md begins with a grant");
    let manifest = read("sample-apps/vote/weft.yaml");
    let granted = manifest.split_once("  outgoingHTTP:").map(|(_, rest)| rest);
    assert!(granted.is_some_and(|rest| rest.starts_with(rule)), "{rule}");
}

#[test]
fn every_module_opens_with_its_promise() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let silent: Vec<_> = files
        .iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "src"))
        .filter(|path| {
            std::fs::read_to_string(path)
                .is_ok_and(|text| !text.trim_start().starts_with("//!") && !text.starts_with("#!["))
        })
        .map(|path| {
            path.strip_prefix(root())
                .unwrap_or(path)
                .display()
                .to_string()
        })
        .collect();
    assert!(silent.is_empty(), "modules without a header: {silent:?}");
}
