//! The life of a pod as the API tells it, word for word what kubectl users know.

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

/// A command whose `run` is `body`, as a file next to the cluster's data.
pub(crate) fn command(cluster: &Cluster, name: &str, body: &str) -> String {
    let text = format!(
        r#"(component
          (core module $m (memory 1) (func (export "run") (result i32) {body}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    let path = cluster.data_dir().join(format!("{name}.wasm"));
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    format!("file:{}", path.display())
}

pub(crate) fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("pods.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

pub(crate) fn pod(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 5\n{spec}"
    )
}

fn get(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    let text = success(cluster.weft(&["get", "pod", name, "-o", "json"])?)?;
    Ok(serde_json::from_str(&text)?)
}

/// One container's state: `waiting Reason`, `running`, or `terminated Reason(code)`.
fn state(state: &Value) -> String {
    let reason = |of: &str| state[of]["reason"].as_str().unwrap_or_default().to_owned();
    match state {
        state if !state["waiting"].is_null() => format!("waiting {}", reason("waiting")),
        state if !state["running"].is_null() => "running".to_owned(),
        state if !state["terminated"].is_null() => format!(
            "terminated {}({})",
            reason("terminated"),
            state["terminated"]["exitCode"]
        ),
        _ => "nothing".to_owned(),
    }
}

/// Phase, containers with their last state, and the conditions that hold.
fn shown(pod: &Value) -> String {
    let status = &pod["status"];
    let list = |field: &str| status[field].as_array().cloned().unwrap_or_default();
    let containers = [list("initContainerStatuses"), list("containerStatuses")].concat();
    let containers: Vec<String> = containers
        .iter()
        .map(|container| {
            let ready = if container["ready"] == true {
                " ready"
            } else {
                ""
            };
            format!(
                "{} {} after {}{ready}",
                container["name"].as_str().unwrap_or_default(),
                state(&container["state"]),
                state(&container["lastState"]),
            )
        })
        .collect();
    let conditions: Vec<String> = list("conditions")
        .iter()
        .filter(|condition| condition["status"] == "True")
        .filter_map(|condition| condition["type"].as_str().map(str::to_owned))
        .filter(|condition| {
            !["PodScheduled", "PodReadyToStartContainers"].contains(&condition.as_str())
        })
        .collect();
    format!(
        "{} [{}] {}",
        status["phase"].as_str().unwrap_or_default(),
        containers.join(", "),
        conditions.join(" ")
    )
}

pub(crate) fn becomes(cluster: &Cluster, name: &str, expected: &str) {
    let mut last = String::new();
    let came = eventually(&format!("pod {name} is {expected}"), || {
        last = shown(&get(cluster, name)?);
        Ok((last == expected).then_some(()))
    });
    assert!(came.is_ok(), "pod {name}\n is {last}\nnot {expected}");
}

pub(crate) fn message(cluster: &Cluster, name: &str) -> String {
    let pod = get(cluster, name).unwrap();
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    waiting["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_end_of_a_container_has_kubernetes_words() {
    let cluster = Cluster::start(1).unwrap();
    let image = |name: &str, body: &str| command(&cluster, name, body);
    let done = image("done", "i32.const 0");
    let failing = image("failing", "i32.const 1");
    let trap = image("trap", "unreachable");
    let greedy = image(
        "greedy",
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    );
    let endless = image("endless", "(loop (br 0)) i32.const 0");
    let one = |policy: &str, image: &str, more: &str| {
        format!(
            "  restartPolicy: {policy}\n  containers:\n  - name: main\n    image: {image}\n    resources: {{limits: {{memory: 8Mi}}}}\n{more}"
        )
    };
    let manifest = [
        pod("completes", &one("Never", &done, "")),
        pod("fails", &one("Never", &failing, "")),
        pod("retries", &one("OnFailure", &failing, "")),
        pod("finishes", &one("OnFailure", &done, "")),
        pod("repeats", &one("Always", &done, "")),
        pod("traps", &one("Never", &trap, "")),
        pod("eats", &one("Never", &greedy, "")),
        pod(
            "overruns",
            &one("Never", &endless, "  activeDeadlineSeconds: 2\n"),
        ),
        pod(
            "prepared",
            &format!(
                "  restartPolicy: Never\n  initContainers:\n  - {{name: first, image: '{done}'}}\n  containers:\n  - {{name: main, image: '{done}'}}\n"
            ),
        ),
        pod(
            "unprepared",
            &format!(
                "  restartPolicy: Never\n  initContainers:\n  - {{name: first, image: '{failing}'}}\n  containers:\n  - {{name: main, image: '{done}'}}\n"
            ),
        ),
    ];
    apply(&cluster, &manifest.concat()).unwrap();
    for (name, expected) in [
        (
            "completes",
            "Succeeded [main terminated Completed(0) after nothing] Initialized",
        ),
        (
            "fails",
            "Failed [main terminated Error(1) after nothing] Initialized",
        ),
        (
            "finishes",
            "Succeeded [main terminated Completed(0) after nothing] Initialized",
        ),
        (
            "traps",
            "Failed [main terminated Trapped(134) after nothing] Initialized",
        ),
        (
            "eats",
            "Failed [main terminated OOMKilled(137) after nothing] Initialized",
        ),
        (
            "retries",
            "Running [main waiting CrashLoopBackOff after terminated Error(1)] Initialized",
        ),
        (
            "repeats",
            "Running [main waiting CrashLoopBackOff after terminated Completed(0)] Initialized",
        ),
        (
            "prepared",
            "Succeeded [first terminated Completed(0) after nothing ready, main terminated Completed(0) after nothing] Initialized",
        ),
        (
            "unprepared",
            "Failed [first terminated Error(1) after nothing, main waiting PodInitializing after nothing] ",
        ),
    ] {
        becomes(&cluster, name, expected);
    }
    // Its time may be up before or after it is compiled; nothing waits in it either way.
    let overran = eventually("a pod past its deadline has failed", || {
        let pod = get(&cluster, "overruns")?;
        Ok((pod["status"]["phase"] == "Failed").then_some(pod))
    })
    .unwrap();
    assert_eq!(overran["status"]["reason"], "DeadlineExceeded");
    let ended = state(&overran["status"]["containerStatuses"][0]["state"]);
    let ends = [
        "terminated Error(143)",
        "terminated ContainerStatusUnknown(137)",
    ];
    assert!(ends.contains(&ended.as_str()), "{ended}");
    let retries = get(&cluster, "retries").unwrap();
    assert!(retries["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1));
    let waits = message(&cluster, "retries");
    assert!(
        waits.starts_with("back-off ")
            && waits.contains("restarting failed container=main pod=retries_default("),
        "{waits}"
    );
}

#[test]
fn what_a_pod_waits_for_is_said_and_ends_the_wait() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let one = |more: &str| {
        format!(
            "  containers:\n  - name: main\n    image: probe:1\n    ports: [{{containerPort: 8080}}]\n{more}"
        )
    };
    let env =
        "    env:\n    - {name: GREETING, value: '$(WHO) on $(NODE), $(MEMORY) MiB $$(WHO)'}\n";
    let sources = "    env:\n    - {name: WHO, valueFrom: {configMapKeyRef: {name: settings, key: who}}}\n    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n";
    let env = format!("{sources}{}", env.trim_start_matches("    env:\n"));
    let twice =
        "  containers:\n  - {name: one, image: 'probe:1'}\n  - {name: two, image: 'probe:1'}\n";
    let manifest = [
        pod("configured", &one(&env)),
        pod("absent", "  containers:\n  - {name: main, image: 'nowhere/absent:1'}\n"),
        pod("outside", "  hostPID: true\n  containers:\n  - {name: main, image: 'probe:1', ports: [{containerPort: 8080}]}\n"),
        pod("unready", &one("    readinessProbe: {httpGet: {path: '/status?code=503', port: 8080}, periodSeconds: 1}\n")),
        pod("unhealthy", &one("    livenessProbe: {httpGet: {path: '/status?code=500', port: 8080}, periodSeconds: 1, failureThreshold: 1}\n")),
        pod("twice", twice),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: configured, namespace: default}\nspec: {selector: {app: configured}, ports: [{port: 80, targetPort: 8080}]}\n".to_owned(),
    ];
    apply(&cluster, &manifest.concat()).unwrap();

    becomes(
        &cluster,
        "configured",
        "Pending [main waiting CreateContainerConfigError after nothing] Initialized",
    );
    assert_eq!(
        message(&cluster, "configured"),
        "configmap \"settings\" not found"
    );
    let map = |data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: default}}\ndata: {data}\n"
        )
    };
    apply(&cluster, &map("{other: x}")).unwrap();
    eventually("the missing key is named", || {
        let text = message(&cluster, "configured");
        Ok((text == "couldn't find key who in ConfigMap default/settings").then_some(()))
    })
    .unwrap();
    apply(&cluster, &map("{who: ann}")).unwrap();
    becomes(
        &cluster,
        "configured",
        "Running [main running after nothing ready] Initialized Ready ContainersReady",
    );
    let shown = eventually("the gateway answers", || {
        let (status, body) = runtime.block_on(load::get(
            &cluster.gateway,
            "configured.default.localhost",
            "/env",
        ))?;
        Ok((status == 200).then_some(body))
    })
    .unwrap();
    let greeting = "GREETING=ann on node-1, 256 MiB $(WHO)\n";
    assert!(shown.contains(greeting), "{shown}");

    becomes(
        &cluster,
        "absent",
        "Pending [main waiting ImagePullBackOff after nothing] Initialized",
    );
    becomes(
        &cluster,
        "outside",
        "Pending [main waiting CreateContainerConfigError after nothing] Initialized",
    );
    let why = message(&cluster, "outside");
    assert!(why.starts_with("hostPID is not supported: "), "{why}");
    becomes(
        &cluster,
        "unready",
        "Running [main running after nothing] Initialized",
    );
    // A served component is stopped, and started again at first without, then after a pause.
    becomes(
        &cluster,
        "unhealthy",
        "Running [main waiting CrashLoopBackOff after terminated Error(137)] Initialized",
    );
    let pod = get(&cluster, "twice").unwrap();
    let both = eventually("one of two containers on one port is told so", || {
        let pod = get(&cluster, "twice")?;
        let states: Vec<Value> = pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let told = states.iter().find_map(|container| {
            container["state"]["waiting"]["message"]
                .as_str()
                .filter(|text| text.contains("port 80"))
                .map(str::to_owned)
        });
        Ok(told)
    });
    let told = both.unwrap_or_else(|error| panic!("{error}: {pod}"));
    assert_eq!(
        told,
        "port 80 is served by another container of this pod; give this one a containerPort of its own"
    );
}

#[test]
fn every_port_of_a_container_leads_to_its_component() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let (http, metrics) = (
        "{name: http, containerPort: 8080}",
        "{name: metrics, containerPort: 9797}",
    );
    let service = |app: &str, port: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {app}-{port}, namespace: default}}\nspec: {{selector: {{app: {app}}}, \
             ports: [{{port: 80, targetPort: {port}}}]}}\n"
        )
    };
    let mut manifest = String::new();
    // Charts declare them in either order.
    for (name, ports) in [("first", [http, metrics]), ("last", [metrics, http])] {
        let ports = ports.join(", ");
        manifest += &pod(
            name,
            &format!("  containers:\n  - name: main\n    image: probe:1\n    ports: [{ports}]\n"),
        );
        manifest += &service(name, "http");
        manifest += &service(name, "metrics");
    }
    apply(&cluster, &manifest).unwrap();
    for service in ["first-http", "first-metrics", "last-http", "last-metrics"] {
        eventually(&format!("{service} answers"), || {
            let host = format!("{service}.default.localhost");
            let (status, _) = runtime.block_on(load::get(&cluster.gateway, &host, "/hello"))?;
            Ok((status == 200).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_port_of_the_node_leads_to_the_one_pod_that_has_it() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap()
        .port();
    let spec = format!(
        "  containers:\n  - {{name: main, image: 'probe:1', ports: [{{containerPort: 8080, hostPort: {port}}}]}}\n"
    );
    apply(&cluster, &pod("first", &spec)).unwrap();
    let answers = || {
        let at = format!("http://127.0.0.1:{port}");
        let answer = runtime.block_on(load::get(&at, "any.example", "/env"));
        answer.is_ok_and(|(status, _)| status == 200)
    };
    eventually("the port answers", || Ok(answers().then_some(()))).unwrap();

    apply(&cluster, &pod("second", &spec)).unwrap();
    eventually("who is in the way is told", || {
        let pod = get(&cluster, "second")?;
        let conditions = pod["status"]["conditions"].as_array().cloned();
        let told = conditions.into_iter().flatten().any(|condition| {
            let why = condition["message"].as_str().unwrap_or_default();
            why.contains("1 node(s) didn't have free ports for the requested pod ports")
        });
        Ok(told.then_some(()))
    })
    .unwrap();
    success(cluster.weft(&["delete", "pod", "first"]).unwrap()).unwrap();
    becomes(
        &cluster,
        "second",
        "Running [main running after nothing ready] Initialized Ready ContainersReady",
    );
    eventually("the port answers for the second", || {
        Ok(answers().then_some(()))
    })
    .unwrap();
}

#[test]
fn a_container_is_resized_while_it_runs_and_reads_its_limits() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let amounts = |cpu: &str, memory: &str| serde_json::json!({"cpu": cpu, "memory": memory});
    let spec = "  containers:\n  - {name: main, image: toolbox, command: [sleep, '1000'], resources: {limits: {cpu: 100m, memory: 64Mi}}}\n";
    apply(&cluster, &pod("sized", spec)).unwrap();
    let reads = |expected: &str| {
        let command = [
            "exec",
            "sized",
            "--",
            "cat",
            "/sys/fs/cgroup/cpu.max",
            "/sys/fs/cgroup/memory.max",
        ];
        eventually(&format!("it reads {expected:?}"), || {
            let shown = success(cluster.weft(&command)?)?;
            Ok((shown == expected).then_some(()))
        })
        .unwrap();
    };
    becomes(
        &cluster,
        "sized",
        "Running [main running after nothing ready] Initialized Ready ContainersReady",
    );
    reads("10000 100000\n67108864\n");

    let resize = |cpu: &str, memory: &str| {
        let both = amounts(cpu, memory);
        let body = serde_json::json!({"spec": {"containers": [{"name": "main", "resources": {"limits": both, "requests": both}}]}});
        runtime.block_on(async {
            let client = crate::client::client(&cluster).await;
            let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
                kube::Api::default_namespaced(client);
            let patch = kube::api::Patch::Strategic(&body);
            let asked = kube::api::PatchParams::default();
            pods.patch_subresource("resize", "sized", &asked, &patch)
                .await
        })
    };
    resize("200m", "128Mi").unwrap();
    reads("20000 100000\n134217728\n");
    eventually("its status says so", || {
        let pod = get(&cluster, "sized")?;
        let container = &pod["status"]["containerStatuses"][0];
        let is_told = container["resources"]["limits"] == amounts("200m", "128Mi")
            && container["allocatedResources"] == amounts("200m", "128Mi");
        assert_eq!(container["restartCount"], 0);
        Ok(is_told.then_some(()))
    })
    .unwrap();
    let refused = resize("100000", "128Mi").unwrap_err();
    let why =
        "node didn't have enough allocatable resources: cpu, requested: 100000000, allocatable: ";
    assert!(refused.to_string().contains(why), "{refused}");
}
