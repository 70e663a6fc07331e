//! A day with kubectl, unmodified: the oldest that is met with, one that knows the first aggregated discovery, and the oldest and
//! the newest that are supported.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, repository, success};

const GUESTS: [&str; 4] = ["web", "emoji", "voting", "bot"];

#[test]
fn a_day_with_kubectl_1_20() {
    if let Some(kubectl) = clients::kubectl(20) {
        day(&kubectl).unwrap();
    }
}

#[test]
fn a_day_with_kubectl_1_27() {
    if let Some(kubectl) = clients::kubectl(27) {
        day(&kubectl).unwrap();
    }
}

#[test]
fn a_day_with_kubectl_1_33() {
    if let Some(kubectl) = clients::kubectl(33) {
        day(&kubectl).unwrap();
    }
}

#[test]
fn a_day_with_kubectl_1_37() {
    if let Some(kubectl) = clients::kubectl(37) {
        day(&kubectl).unwrap();
    }
}

fn day(kubectl: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::start(2)?;
    let run = |args: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        success(cluster.kubectl(kubectl, &args)?).map_err(|error| error.context(args.join(" ")))
    };
    for guest in GUESTS {
        cluster.push(guest, &format!("vote/{guest}:0.1"))?;
        cluster.push(guest, &format!("vote/{guest}:0.2"))?;
    }

    let manifest = repository().join("sample-apps/vote/weft.yaml");
    let manifest = manifest.display();
    let created = run(&format!("apply -f {manifest}"))?;
    assert!(created.contains("deployment.apps/web created"), "{created}");
    for deployment in GUESTS {
        let rolled = run(&format!(
            "-n vote rollout status deployment/{deployment} --timeout=60s"
        ))?;
        assert!(rolled.contains("successfully rolled out"), "{rolled}");
    }
    // kubectl says "configured" of custom kinds whose lists have defaults, in any cluster: the objects decide.
    let versions = "-n vote get deployments,services,httproutes,gateways -o jsonpath={.items[*].metadata.generation}";
    let before = run(versions)?;
    let again = run(&format!("apply -f {manifest}"))?;
    let changed = again.lines().filter(|line| line.ends_with(" configured"));
    let changed: Vec<&str> = changed
        .filter(|line| !line.contains("gateway.networking"))
        .collect();
    assert!(
        changed.is_empty(),
        "a second apply changes nothing: {again}"
    );
    assert_eq!(run(versions)?, before, "a second apply changes nothing");

    let pods = run("-n vote get pods -o wide")?;
    for column in ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"] {
        assert!(pods.contains(column), "{column} is missing: {pods}");
    }
    assert!(
        pods.contains("1/1") && pods.contains("Running") && pods.contains("node-"),
        "{pods}"
    );
    let all = run("-n vote get all")?;
    for name in [
        "pod/web-",
        "service/web",
        "deployment.apps/web",
        "replicaset.apps/web-",
    ] {
        assert!(all.contains(name), "{name} is missing: {all}");
    }
    let nodes = run("get nodes -o wide")?;
    assert!(
        nodes.contains("Ready") && nodes.contains("wasmtime://"),
        "{nodes}"
    );

    let pod = run("-n vote get pods -l app=web -o name")?;
    let pod = pod.lines().next().expect("web has a pod").to_owned();
    let described = run(&format!("-n vote describe {pod}"))?;
    for text in [
        "Node:",
        "Image:",
        "Conditions:",
        "Scheduled",
        "Pulled",
        "Started",
    ] {
        assert!(described.contains(text), "{text} is missing: {described}");
    }

    let bot = run("-n vote get pods -l app=bot -o name")?
        .trim()
        .to_owned();
    let bot = bot.lines().next().expect("bot has a pod").to_owned();
    follow(&cluster, kubectl, &bot)?;

    run("-n vote scale deployment/web --replicas=3")?;
    run("-n vote rollout status deployment/web --timeout=60s")?;
    let web = run("-n vote get deployment web -o jsonpath={.status.readyReplicas}")?;
    assert_eq!(web, "3");

    run("-n vote set image deployment/web web=vote/web:0.2")?;
    run("-n vote rollout status deployment/web --timeout=60s")?;
    let images =
        run("-n vote get pods -l app=web -o jsonpath={.items[*].spec.containers[*].image}")?;
    assert!(
        images
            .split(' ')
            .filter(|image| *image == "vote/web:0.2")
            .count()
            >= 3,
        "{images}"
    );
    run("-n vote rollout undo deployment/web")?;
    run("-n vote rollout status deployment/web --timeout=60s")?;

    both_protocols(&cluster, &run)?;
    let explained = run("explain deployment.spec.replicas")?;
    assert!(explained.contains("integer"), "{explained}");
    run("-n vote label deployment web tier=front")?;
    let labelled = run("-n vote get deployments -l tier=front -o name")?;
    assert_eq!(labelled.trim(), "deployment.apps/web");

    let deleted = run(&format!("delete -f {manifest} --timeout=60s"))?;
    assert!(
        deleted.contains("deployment.apps \"web\" deleted"),
        "{deleted}"
    );
    eventually("the namespace is gone", || {
        let left = success(cluster.kubectl(
            kubectl,
            &[
                "get",
                "namespace",
                "vote",
                "--ignore-not-found",
                "-o",
                "name",
            ],
        )?)?;
        Ok(left.trim().is_empty().then_some(()))
    })
}

/// One port for TCP and UDP, added by a second `apply` and then turned round: kubectl's patch names the port alone.
fn both_protocols(
    cluster: &Cluster,
    run: &dyn Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("dns.yaml");
    let (tcp, udp) = (
        "{name: t, port: 53, protocol: TCP}",
        "{name: u, port: 53, protocol: UDP}",
    );
    for (ports, shown) in [
        (tcp.to_owned(), "TCP"),
        (format!("{tcp}, {udp}"), "TCP UDP"),
        (format!("{udp}, {tcp}"), "UDP TCP"),
    ] {
        let head = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: default}\n";
        std::fs::write(&path, format!("{head}spec: {{ports: [{ports}]}}\n"))?;
        run(&format!("apply -f {}", path.display()))?;
        let found = run("get service dns -o jsonpath={.spec.ports[*].protocol}")?;
        let mut sorted: Vec<&str> = found.split(' ').collect();
        sorted.sort_unstable();
        let mut expected: Vec<&str> = shown.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(sorted, expected, "{ports}");
    }
    Ok(())
}

/// `logs -f` shows a line that was printed before, and goes on with lines printed later.
fn follow(cluster: &Cluster, kubectl: &Path, pod: &str) -> anyhow::Result<()> {
    let mut process = Command::new(kubectl)
        .args(["-n", "vote", "logs", "-f", pod])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = process.stdout.take().expect("stdout is piped");
    let lines: Vec<String> = BufReader::new(stdout)
        .lines()
        .take(5)
        .collect::<Result<_, _>>()?;
    process.kill()?;
    process.wait()?;
    assert_eq!(lines.len(), 5, "the bot goes on voting: {lines:?}");
    let ours = success(cluster.weft(&["logs", "-n", "vote", "deployment/bot", "--tail", "1"])?)?;
    assert!(ours.contains("vote "), "{ours}");
    Ok(())
}
