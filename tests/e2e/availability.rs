//! Calls go on while the cluster changes under them.

use std::process::Command;

use weft_tests::cluster::{Cluster, eventually, success};

use crate::load::{self, Load};

/// A Deployment of the probe with its Service.
fn probe(replicas: u32, image: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: probe, namespace: default}}
spec:
  replicas: {replicas}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: probe}}}}
  template:
    metadata: {{labels: {{app: probe}}}}
    spec:
      containers:
      - name: probe
        image: {image}
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /hello, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: probe, namespace: default}}
spec:
  selector: {{app: probe}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("manifest.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

/// Waits until a Deployment has so many ready, updated pods and no others.
fn rolled_out(cluster: &Cluster, name: &str, replicas: u64) -> anyhow::Result<()> {
    eventually(&format!("{name} is rolled out"), || {
        let text = success(cluster.weft(&["get", "deployment", name, "-o", "json"])?)?;
        let deployment: serde_json::Value = serde_json::from_str(&text)?;
        let status = &deployment["status"];
        let done = status["observedGeneration"] == deployment["metadata"]["generation"]
            && ["replicas", "updatedReplicas", "availableReplicas"]
                .iter()
                .all(|field| status[field].as_u64() == Some(replicas));
        Ok(done.then_some(()))
    })
}

fn started(replicas: u32, nodes: u16) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(nodes)?;
    cluster.push("probe", "probe:1")?;
    cluster.push("probe", "probe:2")?;
    apply(&cluster, &probe(replicas, "probe:1"))?;
    rolled_out(&cluster, "probe", u64::from(replicas))?;
    Ok(cluster)
}

const HOST: &str = "probe.default.localhost";

fn answers(cluster: &Cluster, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    eventually("the gateway answers", || {
        let (status, _) = runtime.block_on(load::get(&cluster.gateway, HOST, "/hello"))?;
        Ok((status == 200).then_some(()))
    })
}

#[test]
fn a_rolling_update_under_load_fails_no_request() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started(3, 2).unwrap();
    answers(&cluster, &runtime).unwrap();
    let guard = runtime.enter();
    let load = Load::start(&cluster.gateway, HOST, "/hello");
    for image in ["probe:2", "probe:1"] {
        apply(&cluster, &probe(3, image)).unwrap();
        rolled_out(&cluster, "probe", 3).unwrap();
    }
    drop(guard);
    let answers = runtime.block_on(load.finish());
    assert!(
        answers.total() > 100,
        "too few requests to say anything: {answers:?}"
    );
    assert_eq!(answers.failures(), 0, "{answers:?}");
}

#[test]
fn killing_a_node_moves_its_pods_and_the_gateway_keeps_answering() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started(3, 3).unwrap();
    answers(&cluster, &runtime).unwrap();
    let pods = || -> anyhow::Result<Vec<(String, String, bool)>> {
        let text = success(cluster.weft(&["get", "pods", "-l", "app=probe", "-o", "json"])?)?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let pod = |pod: &serde_json::Value| {
            let text = |pointer: &str| {
                pod.pointer(pointer)
                    .and_then(|v| v.as_str())
                    .unwrap_or_default()
                    .to_owned()
            };
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            (
                text("/metadata/name"),
                text("/spec/nodeName"),
                ready && pod["metadata"]["deletionTimestamp"].is_null(),
            )
        };
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(pod)
            .collect())
    };
    let before = pods().unwrap();
    let victim = before[0].1.clone();

    // By its id: another cluster on this machine may have a node of that name.
    let process = cluster.node_process(&victim).unwrap();
    let killed = Command::new("kill")
        .args(["-9", &process.to_string()])
        .status()
        .unwrap();
    assert!(killed.success(), "node {victim} has no process {process}");

    eventually("three pods are ready on other nodes", || {
        let moved = pods()?
            .iter()
            .filter(|(_, node, ready)| *ready && *node != victim)
            .count();
        Ok((moved >= 3).then_some(()))
    })
    .unwrap();
    answers(&cluster, &runtime).unwrap();
    let guard = runtime.enter();
    let load = Load::start(&cluster.gateway, HOST, "/hello");
    std::thread::sleep(std::time::Duration::from_secs(2));
    drop(guard);
    let answers = runtime.block_on(load.finish());
    assert!(answers.total() > 100, "{answers:?}");
    assert_eq!(answers.failures(), 0, "{answers:?}");
}

#[test]
fn a_service_whose_only_node_was_killed_does_not_wait_for_the_end_of_a_lease() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started(1, 2).unwrap();
    answers(&cluster, &runtime).unwrap();
    let pods = || -> anyhow::Result<Vec<serde_json::Value>> {
        let text = success(cluster.weft(&["get", "pods", "-l", "app=probe", "-o", "json"])?)?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let pod = pods().unwrap().remove(0);
    let victim = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    let process = cluster.node_process(&victim).unwrap();
    let killed = Command::new("kill")
        .args(["-9", &process.to_string()])
        .status()
        .unwrap();
    assert!(killed.success(), "node {victim} has no process {process}");
    let begun = std::time::Instant::now();
    // Its connections ended with it, and that is said in its lease, which is written again only by a node that lives.
    eventually("the lease of the dead node is shortened", || {
        let lease = cluster.weft(&[
            "get",
            "leases",
            &victim,
            "-n",
            "kube-node-lease",
            "-o",
            "json",
        ])?;
        let lease: serde_json::Value = serde_json::from_str(&success(lease)?)?;
        Ok((lease["spec"]["leaseDurationSeconds"] == 2).then_some(()))
    })
    .unwrap();
    eventually("another pod serves on the other node", || {
        let moved = pods()?.iter().any(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            pod["spec"]["nodeName"] != victim.as_str()
                && conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        Ok(moved.then_some(()))
    })
    .unwrap();
    answers(&cluster, &runtime).unwrap();
    println!("served elsewhere after {:?}", begun.elapsed());
}

#[test]
fn pods_of_a_node_that_was_lost_for_a_moment_are_ready_again() {
    let cluster = Cluster::start(2).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    // It stays where it is, however long its node is away.
    let stays = "
      tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute}]
      containers:";
    apply(
        &cluster,
        &probe(1, "probe:1").replace("\n      containers:", stays),
    )
    .unwrap();
    rolled_out(&cluster, "probe", 1).unwrap();
    let pod = || -> anyhow::Result<serde_json::Value> {
        let text = success(cluster.weft(&["get", "pods", "-l", "app=probe", "-o", "json"])?)?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        Ok(list["items"][0].clone())
    };
    let before = pod().unwrap();
    let node = before["spec"]["nodeName"].as_str().unwrap();
    let process = cluster.node_process(node).unwrap().to_string();
    let signal = |name: &str| {
        Command::new("kill")
            .args([name, &process])
            .status()
            .unwrap()
    };
    let is = |status: &str| {
        eventually(&format!("the pod has Ready={status}"), || {
            let pod = pod()?;
            let conditions = pod["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            Ok(conditions
                .any(|c| c["type"] == "Ready" && c["status"] == status)
                .then_some(()))
        })
        .unwrap();
    };
    is("True");
    assert!(signal("-STOP").success());
    is("False");
    assert!(signal("-CONT").success());
    is("True");
    assert_eq!(pod().unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn a_fenced_pod_stops_while_its_node_is_cut_off_and_no_other_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let fenced = probe(1, "probe:1")
        .replace("name: probe, namespace", "name: fenced, namespace")
        .replace("app: probe", "app: fenced")
        .replace(
            "    metadata: {labels:",
            "    metadata: {annotations: {weft.dev/fenced: 'true'}, labels:",
        );
    apply(&cluster, &probe(1, "probe:1")).unwrap();
    apply(&cluster, &fenced).unwrap();
    let status = |host| {
        let answer = runtime.block_on(load::get(&cluster.gateway, host, "/hello"));
        answer.map(|(status, _)| status)
    };
    let fenced = "fenced.default.localhost";
    for host in [HOST, fenced] {
        eventually("it answers", || Ok((status(host)? == 200).then_some(()))).unwrap();
    }
    // The server takes connections and answers nothing.
    cluster.signal("-STOP").unwrap();
    let stopped = eventually("it is stopped", || {
        Ok((!matches!(status(fenced), Ok(200))).then_some(()))
    });
    let other = status(HOST);
    cluster.signal("-CONT").unwrap();
    stopped.unwrap();
    assert_eq!(other.unwrap(), 200);
    eventually("it answers again", || {
        Ok((status(fenced)? == 200).then_some(()))
    })
    .unwrap();
}
