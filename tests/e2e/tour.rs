//! A tour of kubectl on components, and of k9s in a terminal, as people use them on containers: `python/tour.py` and `python/k9s.py` have the steps.
//!
//! By hand: `python3 tests/e2e/python/tour.py KUBECONFIG KUBECTL [STEP…]`, on a cluster that may be kept.

use std::path::Path;
use std::process::Command;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, repository, success};

fn tour(script: &str, programs: &[&Path], packages: Option<&Path>) -> anyhow::Result<String> {
    let cluster = Cluster::start(1)?;
    for guest in ["hello", "toolbox"] {
        cluster.push(guest, &format!("{guest}:1"))?;
    }
    let ran = Command::new("python3")
        .arg(repository().join("tests/e2e/python").join(script))
        .arg(&cluster.kubeconfig)
        .args(programs)
        .envs(packages.map(|folder| ("PYTHONPATH", folder)))
        .output()?;
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    success(ran).map_err(|error| error.context(told))
}

#[test]
fn kubectl_1_33_does_on_a_component_what_it_does_on_a_container() {
    if let Some(kubectl) = clients::kubectl(33) {
        let told = tour("tour.py", &[&kubectl], None).unwrap();
        assert!(told.ends_with("kubectl 1.33: 17 of 17 steps\n"), "{told}");
    }
}

#[test]
fn kubectl_1_37_does_on_a_component_what_it_does_on_a_container() {
    if let Some(kubectl) = clients::kubectl(37) {
        let told = tour("tour.py", &[&kubectl], None).unwrap();
        assert!(told.ends_with("kubectl 1.37: 17 of 17 steps\n"), "{told}");
    }
}

#[test]
fn k9s_lists_describes_follows_opens_a_shell_and_forwards_a_port() {
    let (Some(k9s), Some(kubectl)) = (clients::k9s(), clients::kubectl(37)) else {
        return;
    };
    if let Some(packages) = clients::python_packages("pyte", "0.8") {
        let told = tour("k9s.py", &[&k9s, &kubectl], Some(&packages)).unwrap();
        assert!(told.ends_with("k9s: 5 of 5 steps\n"), "{told}");
    }
}
