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

#[test]
fn a_bearer_token_of_the_token_file_is_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(
        &tokens,
        "correct-horse,ann,1,\"system:masters\"\nbattery,bob,2\n",
    )
    .unwrap();
    let cluster =
        Cluster::start_with(1, &["--token-auth-file", &tokens.display().to_string()]).unwrap();
    let with = |token: &str| {
        let admin = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
        let mut config = String::new();
        for line in admin.lines() {
            if line.contains("client-key-data") {
                let indent = &line[..line.len() - line.trim_start().len()];
                config.push_str(&format!("{indent}token: {token}\n"));
            } else if !line.contains("client-certificate-data") {
                config.push_str(&format!("{line}\n"));
            }
        }
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, config).unwrap();
        let path = path.display().to_string();
        cluster
            .weft(&["get", "nodes", "--kubeconfig", &path])
            .unwrap()
    };
    assert!(success(with("correct-horse")).unwrap().contains("node-1"));
    for (token, why) in [("battery", "bob"), ("wrong", "Unauthorized")] {
        let refused = with(token);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && error.contains(why),
            "{token}: {error}"
        );
    }
}
