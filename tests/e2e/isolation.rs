//! A namespace with a process of its own on each node: it serves as any other does, and dies alone.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

const APART: &str = "apart";
const HOST: &str = "probe.apart.localhost";
const NEIGHBOUR: &str = "probe.default.localhost";

/// The probe with its Service, and the guest of WASI 0.3 beside it.
fn pods(namespace: &str) -> String {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}}}
  annotations: {{weft.dev/request-timeout: 2s}}
spec:
  serviceAccountName: {name}
  containers:
  - name: main
    image: {name}:1
    ports: [{{containerPort: 80}}]
    readinessProbe: {{httpGet: {{path: /hello, port: 80}}, periodSeconds: 1}}
    resources: {{limits: {{memory: 64Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
"
        )
    };
    format!("{}---\n{}", pod("probe"), pod("hello-p3"))
}

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("manifest.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

fn pod(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let args = ["get", "pod", name, "-n", namespace, "-o", "json"];
    Ok(serde_json::from_str(&success(cluster.weft(&args)?)?)?)
}

fn ready(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<()> {
    eventually(&format!("{namespace}/{name} is ready"), || {
        let pod = pod(cluster, namespace, name)?;
        let status = &pod["status"]["containerStatuses"][0];
        Ok((status["ready"] == true).then_some(()))
    })
}

/// The processes that run `weft worker NAMESPACE` and descend from this cluster.
fn workers(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let folder = cluster.data_dir().display().to_string();
    let read = |pid: &str, name: &str| {
        let path = Path::new("/proc").join(pid).join(name);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let processes = std::fs::read_dir("/proc").expect("/proc is readable");
    processes
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| {
            let command = read(pid, "cmdline");
            let parent = read(pid, "status")
                .lines()
                .find_map(|line| Some(line.strip_prefix("PPid:")?.trim().to_owned()))
                .unwrap_or_default();
            command.ends_with(&format!("\0worker\0{namespace}\0"))
                && read(&parent, "cmdline").contains(&folder)
        })
        .collect()
}

/// What a process has computed, by the kernel.
fn cpu_nanos(pid: &str) -> u64 {
    const TICK_NANOS: u64 = 10_000_000;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may have blanks: the state, and eleven fields later the times in user and kernel mode.
    let fields = stat.rsplit_once(')').unwrap().1;
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<u64>().unwrap()).sum::<u64>() * TICK_NANOS
}

#[test]
fn an_isolated_namespace_serves_and_dies_alone() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for image in ["probe", "hello-p3"] {
        cluster.push(image, &format!("{image}:1")).unwrap();
    }
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {APART}, labels: {{weft.dev/isolate-process: \"true\"}}}}\n"
    );
    apply(&cluster, &namespace).unwrap();
    apply(&cluster, &pods(APART)).unwrap();
    apply(&cluster, &pods("default")).unwrap();
    for namespace in [APART, "default"] {
        for name in ["probe", "hello-p3"] {
            ready(&cluster, namespace, name).unwrap();
        }
    }
    let get = |host: &str, path: &str| runtime.block_on(load::get(&cluster.gateway, host, path));
    let answers = |host: &str| {
        eventually(&format!("{host} answers"), || {
            Ok((get(host, "/hello")?.0 == 200).then_some(()))
        })
    };
    answers(HOST).unwrap();
    answers(NEIGHBOUR).unwrap();

    // One process for the namespace, sealed; none for the other.
    let found = workers(&cluster, APART);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(workers(&cluster, "default"), Vec::<String>::new());
    let status = std::fs::read_to_string(format!("/proc/{}/status", found[0])).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }

    // Both generations, through the mesh, with identities, in and out of the process.
    let (status, body) = get(HOST, "/call?url=http://probe.default/whoami").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("spiffe-id: spiffe://cluster.local/ns/apart/sa/probe"),
        "{body}"
    );
    let (status, body) = get(NEIGHBOUR, "/call?url=http://probe.apart/whoami").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("spiffe-id: spiffe://cluster.local/ns/default/sa/probe"),
        "{body}"
    );
    let (status, body) = get(HOST, "/call?url=http://hello-p3/").unwrap();
    assert!(status == 200 && body.starts_with("200"), "{body}");
    let (status, body) = get(HOST, "/call?url=http://example.com/").unwrap();
    assert!(
        status == 502 && body.contains("HTTP-request-denied"),
        "{body}"
    );

    // Limits, and what they say.
    for (path, expected) in [
        ("/panic", &[500, 502][..]),
        ("/loop", &[504][..]),
        ("/eat?mb=512", &[500, 502, 507][..]),
    ] {
        let (status, body) = get(HOST, path).unwrap();
        assert!(expected.contains(&status), "{path}: {status} {body}");
        assert_eq!(get(HOST, "/hello").unwrap().0, 200, "after {path}");
    }
    let logs = ["logs", "probe", "-n", APART];
    eventually("the log tells of the trap", || {
        let log = success(cluster.weft(&logs)?)?;
        let told = [
            "asked to panic",
            "weft: a request trapped",
            "wasm function",
            "weft: GET /eat: the guest ran out of memory",
        ];
        Ok(told.iter().all(|words| log.contains(words)).then_some(()))
    })
    .unwrap();
    let node = success(
        cluster
            .weft(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"])
            .unwrap(),
    );
    let summary: Value = serde_json::from_str(&node.unwrap()).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let used = pods
        .iter()
        .find(|pod| pod["podRef"]["namespace"] == APART && pod["podRef"]["name"] == "probe");
    let cpu = used.unwrap()["cpu"]["usageCoreNanoSeconds"].as_u64();
    // It span until its deadline, as far as the machine had a processor for it: what the kernel says of the process is nearly all the pod's.
    let spent = cpu_nanos(&found[0]);
    assert!(
        cpu > Some(spent / 2) && spent > 100_000_000,
        "{cpu:?} of {spent}"
    );

    // Killed: its own call fails, its pods say why and come back, the neighbour notices nothing.
    let waiting = runtime.spawn({
        let gateway = cluster.gateway.clone();
        async move { load::get(&gateway, HOST, "/delay?ms=1900").await }
    });
    let load = {
        let _guard = runtime.enter();
        load::Load::start(&cluster.gateway, NEIGHBOUR, "/hello")
    };
    std::thread::sleep(std::time::Duration::from_millis(500));
    let killed = Command::new("kill")
        .args(["-9", &found[0]])
        .status()
        .unwrap();
    assert!(killed.success());
    let (status, body) = runtime.block_on(waiting).unwrap().unwrap();
    assert_eq!(status, 502, "{body}");
    for name in ["probe", "hello-p3"] {
        let last = eventually(&format!("{name} says why it ended"), || {
            let pod = pod(&cluster, APART, name)?;
            let status = pod["status"]["containerStatuses"][0].clone();
            let ended = status["lastState"]["terminated"].clone();
            Ok((!ended.is_null()).then_some(ended))
        })
        .unwrap();
        assert_eq!(last["exitCode"], 137, "{last}");
        assert_eq!(
            last["message"], "the worker process of its namespace was ended by SIGKILL",
            "{last}"
        );
    }
    ready(&cluster, APART, "probe").unwrap();
    answers(HOST).unwrap();
    let answered = runtime.block_on(load.finish());
    assert!(
        answered.total() > 100 && answered.failures() == 0,
        "{answered:?}"
    );
    let after = workers(&cluster, APART);
    assert!(after.len() == 1 && after != found, "{after:?}");

    // With the last pod the process goes.
    success(
        cluster
            .weft(&["delete", "pod", "probe", "hello-p3", "-n", APART])
            .unwrap(),
    )
    .unwrap();
    eventually("the worker is gone", || {
        Ok(workers(&cluster, APART).is_empty().then_some(()))
    })
    .unwrap();
    assert_eq!(get(NEIGHBOUR, "/hello").unwrap().0, 200);
}
