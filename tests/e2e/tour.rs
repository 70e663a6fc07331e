//! A tour of kubectl on components, and of k9s in a terminal, as people use them on containers: `python/tour.py` and `python/k9s.py` have the steps.
//!
//! By hand: `python3 tests/e2e/python/tour.py KUBECONFIG KUBECTL [STEP…]`, on a cluster that may be kept.

use std::path::Path;
use std::process::Command;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, repository, success};

fn tour(script: &str, program: &Path) -> anyhow::Result<String> {
    let cluster = Cluster::start(1)?;
    for guest in ["hello", "toolbox"] {
        cluster.push(guest, &format!("{guest}:1"))?;
    }
    let ran = Command::new("python3")
        .arg(repository().join("tests/e2e/python").join(script))
        .arg(&cluster.kubeconfig)
        .arg(program)
        .output()?;
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    success(ran).map_err(|error| error.context(told))
}

#[test]
fn kubectl_1_33_does_on_a_component_what_it_does_on_a_container() {
    if let Some(kubectl) = clients::kubectl(33) {
        let told = tour("tour.py", &kubectl).unwrap();
        assert!(told.ends_with("kubectl 1.33: 17 of 17 steps\n"), "{told}");
    }
}

#[test]
fn kubectl_1_37_does_on_a_component_what_it_does_on_a_container() {
    if let Some(kubectl) = clients::kubectl(37) {
        let told = tour("tour.py", &kubectl).unwrap();
        assert!(told.ends_with("kubectl 1.37: 17 of 17 steps\n"), "{told}");
    }
}
