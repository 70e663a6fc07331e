//! Python's published clients, and requests as their users' programs send them: `python/` has the promises of each.

use std::ffi::OsString;
use std::process::Command;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, repository, success, weft};

/// Runs a script with packages of PyPI against a cluster.
fn script(
    cluster: &Cluster,
    name: &str,
    packages: &[std::path::PathBuf],
    more: &[OsString],
) -> String {
    let path = std::env::join_paths(packages).unwrap();
    let ran = Command::new("python3")
        .arg(repository().join("tests/e2e/python").join(name))
        .arg(&cluster.kubeconfig)
        .args(more)
        .env("PYTHONPATH", path)
        .output()
        .unwrap();
    success(ran).unwrap()
}

#[test]
fn what_pythons_clients_rely_on() {
    let Some(packages) = clients::python_packages("kubernetes", "37") else {
        return;
    };
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let kept = script(&cluster, "clients.py", &[packages], &["probe:1".into()]);
    assert_eq!(kept.lines().count(), 7, "{kept}");
}

#[test]
fn what_kr8s_users_do() {
    let Some(packages) = clients::python_packages("kr8s", "0.20") else {
        return;
    };
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let kept = script(&cluster, "objects.py", &[packages], &["probe:1".into()]);
    assert_eq!(kept.lines().count(), 6, "{kept}");
}

#[test]
fn what_an_operator_of_kopf_sees() {
    let Some(packages) = clients::python_packages("kopf", "1.45") else {
        return;
    };
    let cluster = Cluster::start(1).unwrap();
    let more = [weft().into_os_string(), cluster.data_dir().into_os_string()];
    let seen = script(&cluster, "kopf_life.py", &[packages], &more);
    for line in [
        "startup",
        "create a after 1",
        "field a b",
        "resume one",
        "delete",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
}
