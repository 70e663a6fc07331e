//! Several servers: what is acknowledged stays, and somebody always leads.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use weft_tests::cluster::{Cluster, eventually, success};
use weft_tests::servers::{Member, ServerProcess, members};

/// An election takes 1.25 to 1.6 s, twice that after a split vote; ten times that is a machine that does something else.
pub(crate) const AGAIN_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn client(kubeconfig: &Path) -> kube::Client {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// A write that was acknowledged, and when it was asked for and answered.
pub(crate) struct Acknowledged {
    name: String,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// What a test and its writers share.
#[derive(Default)]
pub(crate) struct Writing {
    over: AtomicBool,
    acknowledged: AtomicUsize,
}

/// So many writes have a fault among them wherever it falls.
const SOME: usize = 50;

impl Writing {
    /// Waits until some more writes were acknowledged than now.
    pub(crate) fn goes_on(&self) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + SOME;
        eventually("writes go on", || {
            let acknowledged = self.acknowledged.load(Ordering::Relaxed);
            Ok((acknowledged >= goal).then_some(()))
        })
        .unwrap();
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Starts four clients that [`write`] until it ends.
pub(crate) fn four_write(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    writing: &Arc<Writing>,
) -> Vec<tokio::task::JoinHandle<(Vec<Acknowledged>, usize)>> {
    let start = |writer| {
        let writing = Arc::clone(writing);
        let kubeconfig = cluster.kubeconfig.clone();
        runtime.spawn(async move { write(client(&kubeconfig).await, writer, writing).await })
    };
    (0..4).map(start).collect()
}

/// Creates ConfigMaps one after the other until it ends, and keeps what was acknowledged.
pub(crate) async fn write(
    client: kube::Client,
    writer: usize,
    writing: Arc<Writing>,
) -> (Vec<Acknowledged>, usize) {
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client, "default");
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for turn in 0.. {
        if writing.over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{writer}-{turn}");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let asked = Instant::now();
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => {
                writing.acknowledged.fetch_add(1, Ordering::Relaxed);
                acknowledged.push(Acknowledged {
                    name,
                    asked,
                    answered: Instant::now(),
                });
            }
            Err(_) => {
                failed += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    (acknowledged, failed)
}

pub(crate) fn server_members(cluster: &Cluster) -> anyhow::Result<Vec<Member>> {
    let list = cluster.weft(&["server", "members", "-o", "json"])?;
    members(&success(list)?)
}

/// The leader, once all three vote and one of them leads.
pub(crate) fn leader(cluster: &Cluster) -> Member {
    eventually("three servers vote and one leads", || {
        let members = server_members(cluster)?;
        let votes = members.iter().filter(|member| member.voter).count();
        Ok(members
            .into_iter()
            .find(|member| member.leader && votes == 3))
    })
    .unwrap()
}

/// The process of a server that `weft up` started.
pub(crate) fn process(cluster: &Cluster, server: u64) -> u32 {
    running(cluster, server).expect("the server runs")
}

fn running(cluster: &Cluster, server: u64) -> Option<u32> {
    let dir = match server {
        1 => cluster.data_dir(),
        server => cluster.data_dir().join(format!("servers/server-{server}")),
    };
    let dir = dir.display().to_string();
    cluster.children().into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        words.get(1).is_some_and(|word| word == "server") && words.iter().any(|word| *word == dir)
    })
}

pub(crate) fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// From `at` to the first answer to a write that was asked for after it.
pub(crate) fn written_again<'a>(
    acknowledged: impl IntoIterator<Item = &'a Acknowledged>,
    at: Instant,
) -> Option<Duration> {
    acknowledged
        .into_iter()
        .filter(|write| write.asked > at)
        .map(|write| write.answered - at)
        .min()
}

#[test]
fn a_leader_that_is_killed_under_load_takes_no_acknowledged_write_along() {
    let cluster = Cluster::start_with(1, &["--servers", "3"]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = leader(&cluster);
    let writing = Arc::new(Writing::default());
    let writers = four_write(&cluster, &runtime, &writing);

    let mut kills = Vec::new();
    let mut victim = first;
    for round in 0..2 {
        writing.goes_on();
        let pid = process(&cluster, victim.id);
        kills.push(Instant::now());
        signal(pid, "-9");
        // The one that was killed comes back, and may well be elected again: its log is the longest.
        let mut attempt = 0;
        eventually("a write is taken again", || {
            attempt += 1;
            let map = serde_json::from_value(json!({
                "metadata": {"name": format!("after-kill-{round}-{attempt}")},
            }))?;
            let written = runtime.block_on(async {
                let maps: kube::Api<ConfigMap> =
                    kube::Api::namespaced(client(&cluster.kubeconfig).await, "default");
                maps.create(&PostParams::default(), &map).await
            });
            Ok(written.ok().map(drop))
        })
        .unwrap();
        // A second kill while it is away would leave no majority.
        eventually("the one that was killed is back", || {
            Ok(running(&cluster, victim.id).filter(|back| *back != pid))
        })
        .unwrap();
        victim = leader(&cluster);
    }
    writing.goes_on();
    writing.end();
    let results = runtime.block_on(futures::future::join_all(writers));
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    let failed: usize = results.iter().map(|(_, failed)| failed).sum();
    let acknowledged: Vec<Acknowledged> = results
        .into_iter()
        .flat_map(|(acknowledged, _)| acknowledged)
        .collect();

    for kill in &kills {
        let again = written_again(&acknowledged, *kill).expect("writes are accepted again");
        println!("leader killed: writes accepted again after {again:?}");
        assert!(again < AGAIN_MAX, "{again:?}");
    }
    println!(
        "{} writes acknowledged, {failed} failed",
        acknowledged.len()
    );
    assert!(acknowledged.len() > 50, "too few to say anything");
    let stored: BTreeSet<String> = runtime.block_on(async {
        let maps: kube::Api<ConfigMap> =
            kube::Api::namespaced(client(&cluster.kubeconfig).await, "default");
        let list = maps.list(&ListParams::default()).await.unwrap();
        list.items
            .into_iter()
            .filter_map(|map| map.metadata.name)
            .collect()
    });
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|write| !stored.contains(&write.name))
        .map(|write| write.name.as_str())
        .collect();
    assert_eq!(lost, Vec::<&str>::new(), "acknowledged and lost");
    // The node and the control loop live through it.
    let nodes = success(cluster.weft(&["get", "nodes"]).unwrap()).unwrap();
    assert!(nodes.contains(" Ready "), "{nodes}");
}

#[test]
fn leadership_is_handed_over_before_a_planned_stop_and_when_asked_to() {
    let cluster = Cluster::start_with(1, &["--servers", "3"]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = leader(&cluster);
    let writing = Arc::new(Writing::default());
    let kubeconfig = cluster.kubeconfig.clone();
    let writer = runtime.spawn({
        let writing = Arc::clone(&writing);
        async move { write(client(&kubeconfig).await, 0, writing).await }
    });
    writing.goes_on();
    // What was pushed is on all of them, for nodes that pull from any.
    cluster.push("hello", "hello:1").unwrap();
    for member in [
        "registry",
        "servers/server-2/registry",
        "servers/server-3/registry",
    ] {
        let image = cluster
            .data_dir()
            .join(member)
            .join("repositories/hello/_manifests/revisions");
        assert!(image.exists(), "{} is missing", image.display());
    }

    let wanted = if first.id == 3 { 2 } else { 3 };
    let asked = Instant::now();
    let said = cluster.weft(&["server", "transfer", &wanted.to_string()]);
    let said = success(said.unwrap()).unwrap();
    assert_eq!(said, format!("server {wanted} leads\n"));
    eventually("the one that was asked for leads", || {
        let members = server_members(&cluster)?;
        let leads = members
            .iter()
            .any(|member| member.leader && member.id == wanted);
        Ok(leads.then_some(()))
    })
    .unwrap();
    writing.goes_on();
    let stopped = Instant::now();
    signal(process(&cluster, wanted), "-TERM");
    eventually("another one leads after the stop", || {
        let members = server_members(&cluster)?;
        let leads = members
            .iter()
            .any(|member| member.leader && member.id != wanted);
        Ok(leads.then_some(()))
    })
    .unwrap();
    writing.goes_on();
    writing.end();
    let (acknowledged, failed) = runtime.block_on(writer).unwrap();
    for (what, at) in [("transfer", asked), ("planned stop", stopped)] {
        let again = written_again(&acknowledged, at).expect("writes are accepted again");
        println!("{what}: a write asked for after it was answered after {again:?}");
    }
    println!(
        "{} writes acknowledged, {failed} failed",
        acknowledged.len()
    );
}

#[test]
fn a_server_that_lost_its_disk_is_replaced_under_a_new_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let one = ServerProcess::start(&path("one"), &[]).unwrap();
    let two = one.join(&path("two"), &[]).unwrap();
    let mut three = one.join(&path("three"), &[]).unwrap();
    assert_eq!([one.id(), two.id(), three.id()], [1, 2, 3]);
    let roles = |members: Vec<Member>| {
        let roles = members.iter().map(|member| (member.id, member.voter));
        roles.collect::<Vec<_>>()
    };
    assert_eq!(
        roles(two.members().unwrap()),
        [(1, true), (2, true), (3, true)]
    );
    let manifest = path("map.yaml");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\n";
    std::fs::write(&manifest, map).unwrap();
    let manifest = manifest.display().to_string();
    success(three.weft(&["apply", "-f", &manifest]).unwrap()).unwrap();

    three.kill().unwrap();
    std::fs::remove_dir_all(path("three").join("store")).unwrap();
    // Under its old number it would deny what it acknowledged.
    let Err(error) = ServerProcess::start(&path("three"), &[]) else {
        panic!("a server without its store came back");
    };
    let error = format!("{error:#}");
    assert!(error.contains("weft server remove 3"), "{error}");

    let four = one.join(&path("four"), &["--replace", "3"]).unwrap();
    assert_eq!(four.id(), 4);
    assert_eq!(
        roles(one.members().unwrap()),
        [(1, true), (2, true), (4, true)]
    );
    let kept = four.weft(&["get", "configmap", "kept", "-o", "name"]);
    assert_eq!(success(kept.unwrap()).unwrap(), "configmap/kept\n");

    // Somebody without a server token does not get in.
    let join = one.said["api"].as_str().unwrap();
    let ca = one.said["caFile"].as_str().unwrap();
    let token = one.said["joinTokenFile"].as_str().unwrap();
    let arguments = ["--join", join, "--ca-file", ca, "--token-file", token];
    let Err(error) = ServerProcess::start(&path("five"), &arguments) else {
        panic!("a node's token let a server in");
    };
    assert!(format!("{error:#}").contains("forbidden"), "{error:#}");
}

#[test]
fn servers_that_all_end_come_back_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let one = ServerProcess::start(&path("one"), &[]).unwrap();
    let mut servers = vec![
        one.join(&path("two"), &[]).unwrap(),
        one.join(&path("three"), &[]).unwrap(),
        one,
    ];
    let manifest = path("map.yaml");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\n";
    std::fs::write(&manifest, map).unwrap();
    let manifest = manifest.display().to_string();
    success(servers[0].weft(&["apply", "-f", &manifest]).unwrap()).unwrap();
    for server in &mut servers {
        server.kill().unwrap();
    }
    let mut back: Vec<ServerProcess> = servers
        .iter()
        .map(|server| ServerProcess::spawn(&server.dir, &[]).unwrap())
        .collect();
    for server in &mut back {
        server.wait_ready().unwrap();
        let kept = server.weft(&["get", "configmap", "kept", "-o", "name"]);
        assert_eq!(success(kept.unwrap()).unwrap(), "configmap/kept\n");
    }
    // One that is told to end does so, also as the last one that is left without a majority.
    for server in &mut back {
        assert_eq!(server.terminate().unwrap(), Some(0));
    }
}

#[test]
fn a_backup_becomes_a_new_cluster_with_a_later_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let mut old = ServerProcess::start(&path("old"), &[]).unwrap();
    let manifest = path("map.yaml");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\n";
    std::fs::write(&manifest, map).unwrap();
    success(old.weft(&["apply", "-f", &text("map.yaml")]).unwrap()).unwrap();
    let said = old.weft(&["server", "backup", &text("backup")]);
    let said = success(said.unwrap()).unwrap();
    assert!(said.starts_with("backed up "), "{said}");
    let revision = |server: &ServerProcess, name: &str| -> u64 {
        let map = server.weft(&["get", "configmap", name, "-o", "json"]);
        let map: serde_json::Value = serde_json::from_str(&success(map.unwrap()).unwrap()).unwrap();
        let version = map["metadata"]["resourceVersion"].as_str().unwrap();
        version.parse().unwrap()
    };
    let before = revision(&old, "kept");
    old.kill().unwrap();

    // A folder that holds a server is not written over.
    let restore = |into: &str| {
        old.weft(&[
            "server",
            "restore",
            &text("backup"),
            "--data-dir",
            &text(into),
        ])
    };
    let refused = restore("old").unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("belongs to server 1"), "{error}");

    std::fs::create_dir(path("new")).unwrap();
    let copied = Command::new("cp")
        .args(["-r", &text("old/pki"), &text("new/pki")])
        .status();
    assert!(copied.unwrap().success());
    let said = success(restore("new").unwrap()).unwrap();
    assert!(said.contains("weft server --data-dir"), "{said}");
    let new = ServerProcess::start(&path("new"), &[]).unwrap();
    assert_eq!(revision(&new, "kept"), before);
    std::fs::write(&manifest, map.replace("kept", "later")).unwrap();
    success(new.weft(&["apply", "-f", &text("map.yaml")]).unwrap()).unwrap();
    let after = revision(&new, "later");
    // Far enough for whoever saw revisions that the backup does not have.
    assert!(after > before + 1000, "{after} is not later than {before}");
    let authority =
        |server: &ServerProcess| std::fs::read(server.said["caFile"].as_str().unwrap()).unwrap();
    assert_eq!(authority(&old), authority(&new));
}
