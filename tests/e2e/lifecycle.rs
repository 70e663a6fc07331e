//! A weft starts, ends, and starts again with what it had.

use weft_tests::cluster::{Cluster, success};

#[test]
fn an_interrupted_weft_drains_and_exits_with_zero() {
    let mut cluster = Cluster::start(1).unwrap();
    assert!(
        success(cluster.weft(&["get", "nodes"]).unwrap())
            .unwrap()
            .contains("Ready")
    );
    assert_eq!(cluster.interrupt().unwrap(), Some(0));
    let after = cluster.weft(&["get", "nodes"]).unwrap();
    let error = String::from_utf8_lossy(&after.stderr).into_owned();
    assert!(error.contains("is the cluster up?"), "{error}");
}

#[test]
fn secrets_on_disk_are_readable_only_by_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let cluster = Cluster::start(1).unwrap();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.kubeconfig), 0o600);
    assert_eq!(mode(&cluster.data_dir()), 0o700);
}
