//! Python's published clients, and requests as their users' programs send them: `python/` has the promises of each.

use std::ffi::OsString;
use std::process::Command;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, repository, success, weft};

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

/// A receiver of OpenTelemetry that is not ours; `weft mesh` then shows the same calls.
#[test]
fn what_a_receiver_of_opentelemetry_gets() {
    let Some(packages) = clients::python_packages("opentelemetry-proto", "1") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("port");
    let mut receiver = Command::new("python3")
        .arg(repository().join("tests/e2e/python/otlp.py"))
        .arg(&place)
        .env("PYTHONPATH", packages)
        .spawn()
        .unwrap();
    eventually("the receiver listens", || Ok(place.exists().then_some(()))).unwrap();
    let port = std::fs::read_to_string(&place).unwrap();
    let say = |name, value: &str| (name, value.to_owned());
    let cluster = Cluster::start_in(
        2,
        vec![
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{port}"),
            ),
            say("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret"),
            say("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            say("OTEL_LOGS_EXPORTER", "otlp"),
            say("OTEL_BSP_SCHEDULE_DELAY", "500"),
            say("OTEL_METRIC_EXPORT_INTERVAL", "2000"),
        ],
    )
    .unwrap();
    for name in ["web", "emoji", "voting", "bot"] {
        cluster.push(name, &format!("vote/{name}:0.1")).unwrap();
    }
    // The page and what it calls are on two nodes: otherwise each would have all of it, and no call leave it.
    let mut manifest = std::fs::read_to_string(repository().join("sample-apps/vote/weft.yaml"))
        .expect("the manifest");
    for (name, node) in [("web", "node-1"), ("emoji", "node-2")] {
        let pods = format!("      containers:\n        - name: {name}\n");
        assert!(manifest.contains(&pods), "{name}");
        let there = format!("      nodeSelector: {{kubernetes.io/hostname: {node}}}\n{pods}");
        manifest = manifest.replace(&pods, &there);
    }
    let apart = folder.path().join("weft.yaml");
    std::fs::write(&apart, manifest).unwrap();
    success(
        cluster
            .weft(&["apply", "-f", &apart.display().to_string()])
            .unwrap(),
    )
    .unwrap();
    assert!(
        receiver.wait().unwrap().success(),
        "see above what it missed"
    );

    let edges = || {
        let shown = success(cluster.weft(&["mesh", "edges", "-n", "vote"])?)?;
        Ok(shown.contains("bot.vote").then_some(shown))
    };
    let edges = eventually("the edges are shown", edges).unwrap();
    assert!(edges.contains("web.vote"), "{edges}");
    let tapped = cluster
        .weft(&["mesh", "tap", "-n", "vote", "--max", "3"])
        .unwrap();
    assert_eq!(success(tapped).unwrap().lines().count(), 3);
    let checked = success(cluster.weft(&["mesh", "check"]).unwrap()).unwrap();
    assert!(checked.contains("The mesh is well."), "{checked}");
}
