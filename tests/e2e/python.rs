//! Python's published client, and requests as its users' programs send them: `python/clients.py` has the promises.

use std::process::Command;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, repository, success};

#[test]
fn what_pythons_clients_rely_on() {
    let Some(packages) = clients::python_packages("kubernetes", 37) else {
        return;
    };
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let ran = Command::new("python3")
        .arg(repository().join("tests/e2e/python/clients.py"))
        .arg(&cluster.kubeconfig)
        .arg("probe:1")
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    let kept = success(ran).unwrap();
    assert_eq!(kept.lines().count(), 7, "{kept}");
}
