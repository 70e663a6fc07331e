//! The environment that a component sees: references, their order, and what is left as it stands.

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: probe, namespace: default}
spec: {selector: {app: probe}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: default}
data: {URL: 'http://$(HOST)', app.properties: 'a=$(B)', a-b.c: x}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: default}
stringData: {d: '$(B)'}
---
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: default, labels: {app: probe}}
spec:
  containers:
  - name: main
    image: probe:1
    ports: [{containerPort: 8080}]
    envFrom:
    - {configMapRef: {name: settings}}
    - {prefix: P_, configMapRef: {name: settings}}
    env:
    - {name: A, value: $(B)}
    - {name: B, value: '1'}
    - {name: C, value: $(B)-$$(B)-$(NOPE)-$(B}
    - {name: D, valueFrom: {secretKeyRef: {name: keys, key: d}}}
    - {name: E, value: $(D)}
    - {name: F, value: $(PROBE_SERVICE_HOST)}
    - {name: TWICE, value: first}
    - {name: G, value: $(TWICE) $(P_app.properties)}
    - {name: TWICE, value: last}
---
apiVersion: v1
kind: Pod
metadata: {name: doubles, namespace: default}
spec:
  containers:
  - name: main
    image: probe:1
    env:
    - {name: V, value: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
";

#[test]
fn references_look_back_and_only_what_the_container_says_is_expanded() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    // Forty lines that each say the one before it twice: a terabyte and a half.
    let doubled = "    - {name: V, value: $(V)$(V)}\n".repeat(40);
    let manifest = cluster.data_dir().join("environment.yaml");
    std::fs::write(&manifest, format!("{}{doubled}", OBJECTS.trim_start())).unwrap();
    success(
        cluster
            .weft(&["apply", "-f", &manifest.display().to_string()])
            .unwrap(),
    )
    .unwrap();
    let get = |what: [&str; 2]| -> anyhow::Result<Value> {
        let text = success(cluster.weft(&["get", what[0], what[1], "-o", "json"])?)?;
        Ok(serde_json::from_str(&text)?)
    };

    let shown = eventually("the probe shows its environment", || {
        let path = runtime.block_on(load::get(
            &cluster.gateway,
            "probe.default.localhost",
            "/env",
        ))?;
        Ok((path.0 == 200).then_some(path.1))
    })
    .unwrap();
    let address = get(["service", "probe"]).unwrap()["spec"]["clusterIP"].clone();
    let address = format!("F={}", address.as_str().unwrap());
    let own = |line: &&str| !line.starts_with("PROBE_") && !line.starts_with("KUBERNETES_");
    let mut expected = vec![
        "A=$(B)",
        "B=1",
        "C=1-$(B)-$(NOPE)-$(B",
        "D=$(B)",
        "E=$(B)",
        address.as_str(),
        "G=first a=$(B)",
        "HOSTNAME=probe",
        "P_URL=http://$(HOST)",
        "P_a-b.c=x",
        "P_app.properties=a=$(B)",
        "TWICE=last",
        "URL=http://$(HOST)",
        "a-b.c=x",
        "app.properties=a=$(B)",
    ];
    expected.sort_unstable();
    let mut lines: Vec<&str> = shown.lines().filter(own).collect();
    lines.sort_unstable();
    assert_eq!(lines, expected);

    let why = eventually("what has no end is refused", || {
        let pod = get(["pod", "doubles"])?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let is_refused = waiting["reason"] == "CreateContainerConfigError";
        Ok(is_refused.then(|| waiting["message"].clone()))
    })
    .unwrap();
    let told = "the variables and arguments have more than 2097152 bytes, with what they refer to";
    assert_eq!(why, told);
}
