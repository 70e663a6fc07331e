//! What somebody tries in the first hour: kubectl's imperative commands, in the oldest and the newest version that is
//! supported. Since 1.32 these write protobuf where `apply` writes JSON.

use std::path::Path;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, success};

#[test]
fn a_first_hour_with_kubectl_1_33() {
    if let Some(kubectl) = clients::kubectl(33) {
        hour(&kubectl).unwrap();
    }
}

#[test]
fn a_first_hour_with_kubectl_1_37() {
    if let Some(kubectl) = clients::kubectl(37) {
        hour(&kubectl).unwrap();
    }
}

/// Two pods that keep apart fill two nodes; the third fits nowhere.
const APART: &str = r#"{"spec": {"affinity": {"podAntiAffinity": {
    "requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"role": "db"}}, "topologyKey": "kubernetes.io/hostname"}]}}}}"#;

fn hour(kubectl: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::start(2)?;
    let try_args = |args: &[&str]| -> anyhow::Result<String> {
        success(cluster.kubectl(kubectl, args)?).map_err(|error| error.context(args.join(" ")))
    };
    let run = |line: &str| try_args(&line.split(' ').collect::<Vec<_>>());
    let refused = |line: &str| run(line).expect_err(line).root_cause().to_string();
    cluster.push("probe", "t/probe:1")?;
    cluster.push("probe", "t/probe:2")?;

    for (line, told) in [
        ("create namespace team", "namespace/team created"),
        (
            "create configmap settings --from-literal=colour=blue",
            "configmap/settings created",
        ),
        (
            "create secret generic key --from-literal=password=hunter2",
            "secret/key created",
        ),
        (
            "create serviceaccount robot",
            "serviceaccount/robot created",
        ),
        (
            "create deployment web --image=t/probe:1 --replicas=2 --port=80",
            "deployment.apps/web created",
        ),
        ("expose deployment web --port=80", "service/web exposed"),
        (
            "create service clusterip other --tcp=80:80",
            "service/other created",
        ),
    ] {
        assert_eq!(run(line)?.trim(), told);
    }
    assert_eq!(
        run("get configmap settings -o jsonpath={.data.colour}")?,
        "blue"
    );
    assert_eq!(
        run("get secret key -o jsonpath={.data.password}")?,
        "aHVudGVyMg=="
    );
    let twice = refused("create configmap settings --from-literal=colour=red");
    assert!(
        twice.contains(r#"configmaps "settings" already exists"#),
        "{twice}"
    );
    run("rollout status deployment/web --timeout=60s")?;
    assert!(run("auth can-i --list")?.contains("*.*"));

    run("rollout pause deployment/web")?;
    run("set image deployment/web probe=t/probe:2")?;
    let paused = refused("rollout pause deployment/web");
    assert!(paused.contains("is already paused"), "{paused}");
    run("rollout resume deployment/web")?;
    run("rollout status deployment/web --timeout=60s")?;
    run("rollout restart deployment/web")?;
    run("rollout status deployment/web --timeout=60s")?;
    let history = run("rollout history deployment/web")?;
    let revisions = history
        .lines()
        .filter(|line| line.starts_with(char::is_numeric));
    assert_eq!(revisions.count(), 3, "{history}");
    let scale = run("get deployment web --subresource=scale")?;
    assert!(scale.contains("DESIRED"), "{scale}");

    // Pods that admission refuses are told in the conditions, and the old pods go on serving.
    run("set serviceaccount deployment/web nobody")?;
    eventually("the deployment says why it has no new pods", || {
        let message = run(
            r#"get deployment web -o jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}"#,
        )?;
        Ok(message
            .contains(r#"serviceaccount "nobody" not found"#)
            .then_some(()))
    })?;
    run("rollout undo deployment/web")?;
    run("rollout status deployment/web --timeout=60s")?;

    for name in ["db-1", "db-2", "db-3"] {
        let overrides = format!("--overrides={APART}");
        try_args(&[
            "run",
            name,
            "--image=t/probe:1",
            "--labels=role=db",
            &overrides,
        ])?;
    }
    run("wait --for=condition=Ready pod/db-1 pod/db-2 --timeout=60s")?;
    eventually("the third is told why it waits", || {
        let events = run(
            "get events --field-selector reason=FailedScheduling -o jsonpath={.items[*].message}",
        )?;
        Ok(events
            .contains("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.")
            .then_some(()))
    })?;

    run("cordon node-1")?;
    run("drain node-1 --ignore-daemonsets --force --timeout=60s")?;
    let left = run("get pods --field-selector spec.nodeName=node-1 -o name")?;
    assert_eq!(left.trim(), "", "drained");
    run("uncordon node-1")?;
    run("delete pod --all --timeout=60s")?;
    Ok(())
}
