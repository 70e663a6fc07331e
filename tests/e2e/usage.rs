//! What pods use and how they fail, as users see it: `kubectl top`, status, events, metrics.

use std::path::Path;

use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, success};

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: use}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: probe, namespace: use}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata:
      labels: {app: probe}
      annotations: {weft.dev/isolation: pooled, weft.dev/request-timeout: 2s}
    spec:
      containers:
      - {name: probe, image: "use/probe:0.1", ports: [{containerPort: 80}], resources: {limits: {cpu: 300m, memory: 64Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: probe, namespace: use}
spec: {selector: {app: probe}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, namespace: use}
spec:
  replicas: 2
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec: {containers: [{name: idle, image: "use/hello:0.1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: broken, namespace: use}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "use/broken:0.1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy, namespace: use}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "use/greedy:0.1", resources: {limits: {memory: 4Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: use}
spec:
  restartPolicy: Never
  activeDeadlineSeconds: 1
  containers: [{name: main, image: "use/endless:0.1"}]
"#;

/// A command whose core function `run` is `body`.
fn command(body: &str) -> String {
    format!(
        r#"(component
          (core module $m (memory 1)
            (func $fall (result i32) {body})
            (func $run (export "run") (result i32) (call $fall)))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    )
}

fn start() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(1)?;
    cluster.push("probe", "use/probe:0.1")?;
    cluster.push("hello", "use/hello:0.1")?;
    let broken = command("unreachable");
    // A guest that believes it must have memory: it goes on growing, and traps when it gets none.
    let greedy = command(
        "(loop (br_if 0 (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable",
    );
    let endless = command("(loop (br 0)) i32.const 0");
    for (name, text) in [("broken", broken), ("greedy", greedy), ("endless", endless)] {
        let file = cluster.data_dir().join(format!("{name}.wasm"));
        std::fs::write(&file, wat::parse_str(text)?)?;
        let file = file.display().to_string();
        success(cluster.weft(&["push", &file, &format!("use/{name}:0.1")])?)?;
    }
    let file = cluster.data_dir().join("use.yaml");
    std::fs::write(&file, PODS)?;
    success(cluster.weft(&["apply", "-f", &file.display().to_string()])?)?;
    eventually("the deployments are ready", || {
        let ready = success(cluster.weft(&["get", "deployments", "-n", "use", "-o", "json"])?)?;
        let list: serde_json::Value = serde_json::from_str(&ready)?;
        let ready = |name: &str| {
            let items = list["items"].as_array().into_iter().flatten();
            let mut found = items.filter(|one| one["metadata"]["name"] == name);
            found.find_map(|one| one["status"]["readyReplicas"].as_u64())
        };
        Ok((ready("probe") == Some(1) && ready("idle") == Some(2)).then_some(()))
    })?;
    Ok(cluster)
}

/// One request through the gateway; its status.
fn ask(cluster: &Cluster, path: &str) -> anyhow::Result<u16> {
    use std::io::{Read as _, Write as _};
    let address = cluster.gateway.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: probe.use.localhost\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| anyhow::anyhow!("no status in {answer:?}"))
}

#[test]
fn top_shows_what_pods_and_nodes_use() {
    let cluster = start().unwrap();
    for minor in [33, 37] {
        if let Some(kubectl) = clients::kubectl(minor) {
            top(&cluster, &kubectl)
                .map_err(|error| error.context(format!("kubectl 1.{minor}")))
                .unwrap();
        }
    }
}

fn top(cluster: &Cluster, kubectl: &Path) -> anyhow::Result<()> {
    let run = |args: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        success(cluster.kubectl(kubectl, &args)?).map_err(|error| error.context(args.join(" ")))
    };
    // The column of the one line that starts so, without its unit.
    let cell = |text: &str, start: &str, column: usize| -> u64 {
        let line = text.lines().find(|line| line.starts_with(start));
        let cell = line.and_then(|line| line.split_whitespace().nth(column));
        let digits = cell.map(|cell| cell.trim_end_matches(|c: char| !c.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.unwrap_or_else(|| panic!("column {column} of {start} in\n{text}"))
    };
    let groups = run("api-versions")?;
    assert!(groups.contains("metrics.k8s.io/v1beta1"), "{groups}");
    // The plain names still mean the core kinds.
    assert!(run("-n use get pods")?.contains("Running"));
    assert!(run("get nodes")?.contains("Ready"));

    eventually("a spinning pod shows its CPU", || {
        // Ends at its deadline of two seconds; the next one begins at once.
        ask(cluster, "/loop")?;
        let pods = run("top pods -n use")?;
        let (cpu, memory) = (cell(&pods, "probe-", 1), cell(&pods, "idle-", 2));
        assert_eq!(memory, 0, "an idle pod has no instance: {pods}");
        Ok((cpu >= 50).then_some(()))
    })?;
    let nodes = run("top nodes")?;
    assert!(cell(&nodes, "node-1", 3) > 10, "{nodes}");
    let all = run("top pods -A")?;
    assert_eq!(
        all.lines().filter(|line| line.contains("idle-")).count(),
        2,
        "{all}"
    );
    let chosen = run("top pods -n use -l app=probe --containers")?;
    assert!(
        chosen.contains("probe") && !chosen.contains("idle-"),
        "{chosen}"
    );
    let pod = run("-n use get pods -l app=probe -o jsonpath={.items[0].metadata.name}")?;
    assert!(run(&format!("top pod -n use {pod}"))?.contains(&pod));
    let node = run("top node node-1")?;
    assert!(node.contains("node-1"), "{node}");
    let missing = run("top pod -n use nobody").expect_err("there is no such pod");
    assert!(format!("{missing:#}").contains("not found"), "{missing:#}");
    let one = run(&format!(
        "get --raw /apis/metrics.k8s.io/v1beta1/namespaces/use/pods/{pod}"
    ))?;
    let one: serde_json::Value = serde_json::from_str(&one)?;
    assert_eq!(one["kind"], "PodMetrics");
    assert_eq!(one["containers"][0]["name"], "probe");
    assert_eq!(one["metadata"]["labels"]["app"], "probe");
    Ok(())
}

#[test]
fn reasons_reach_status_events_and_metrics() {
    let cluster = start().unwrap();
    let ended = |pod: &str| {
        eventually(&format!("{pod} has ended"), || {
            let text = success(cluster.weft(&["get", "pod", pod, "-n", "use", "-o", "json"])?)?;
            let pod: serde_json::Value = serde_json::from_str(&text)?;
            let over = pod["status"]["phase"] == "Failed";
            Ok(over.then(|| pod["status"].clone()))
        })
        .unwrap()
    };
    let terminated =
        |status: &serde_json::Value| status["containerStatuses"][0]["state"]["terminated"].clone();
    let broken = terminated(&ended("broken"));
    assert_eq!(
        (&broken["reason"], &broken["exitCode"]),
        (&"Trapped".into(), &134.into())
    );
    let message = broken["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("unreachable") && message.contains("!fall"),
        "{message}"
    );
    let greedy = terminated(&ended("greedy"));
    assert_eq!(
        (&greedy["reason"], &greedy["exitCode"]),
        (&"OOMKilled".into(), &137.into())
    );
    assert_eq!(ended("late")["reason"], "DeadlineExceeded");

    // Components of HTTP do not end: each failed request is told in the log, now and then in an event, and counted.
    assert_eq!(ask(&cluster, "/panic").unwrap(), 502);
    assert_eq!(ask(&cluster, "/eat?mb=200").unwrap(), 502);
    assert_eq!(ask(&cluster, "/loop").unwrap(), 504);
    let metrics = eventually("the failures are counted", || {
        let path = "/api/v1/nodes/node-1/proxy/metrics";
        let text = success(cluster.weft(&["get", "--raw", path])?)?;
        let counted = |name: &str, pod: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(&format!("weft_container_{name}_total{{")));
            let mut lines = lines.filter(|line| line.contains(pod));
            lines.any(|line| line.rsplit(' ').next().is_some_and(|value| value != "0"))
        };
        let all = [
            ("traps", "pod=\"probe-"),
            ("out_of_memory", "pod=\"probe-"),
            ("deadlines", "pod=\"probe-"),
            // These have ended: what they did is still told.
            ("traps", "pod=\"broken\""),
            ("out_of_memory", "pod=\"greedy\""),
        ];
        Ok(all
            .iter()
            .all(|(name, pod)| counted(name, pod))
            .then(|| text.clone()))
    });
    assert!(metrics.is_ok(), "{metrics:?}");
    let event = eventually("the first failed request is an event", || {
        let text = success(cluster.weft(&["get", "events", "-n", "use", "-o", "json"])?)?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .into_iter()
            .find(|event| event["reason"] == "RequestTrapped"))
    })
    .unwrap();
    // Its head may have left before its body broke off, or gone down with it.
    let _ = ask(&cluster, "/truncate");
    eventually("a body that broke off is told in the log", || {
        let log = success(cluster.weft(&["logs", "deployment/probe", "-n", "use"])?)?;
        let middle = log.contains("asked to panic in the middle");
        Ok((middle && log.matches("weft: a request trapped").count() >= 2).then_some(()))
    })
    .unwrap();
    let message = event["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("the guest trapped") && message.lines().count() > 1,
        "{message}"
    );
}
