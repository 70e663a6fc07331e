//! Deployments without a replica: an autoscaler takes the last one away, and a call brings it back, or says why not.

use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

/// A Deployment that its autoscaler empties as soon as it looks, and its Service.
fn sleeper(name: &str, selector: &str) -> String {
    format!(
        r"---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeSelector: {selector}
      containers: [{{name: main, image: 'hello:1', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}, namespace: default}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 0
  maxReplicas: 3
  metrics:
  - type: Object
    object:
      describedObject: {{apiVersion: v1, kind: Service, name: {name}}}
      metric: {{name: requests-in-flight}}
      target: {{type: Value, value: '10'}}
  behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
"
    )
}

const CALLER: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller, namespace: default}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node-2}
      containers: [{name: main, image: 'probe:1', ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: caller, namespace: default}
spec: {selector: {app: caller}, ports: [{port: 80, targetPort: 8080}]}
";

fn replicas(cluster: &Cluster, name: &str) -> anyhow::Result<u64> {
    let text = success(cluster.weft(&["get", "deployment", name, "-o", "json"])?)?;
    let deployment: serde_json::Value = serde_json::from_str(&text)?;
    Ok(deployment["spec"]["replicas"].as_u64().unwrap_or(1))
}

#[test]
fn a_call_brings_back_what_an_autoscaler_took_away() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = Cluster::start(2).unwrap();
    cluster.push("hello", "hello:1").unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let mut manifest = CALLER.to_owned();
    for (name, selector) in [
        ("outside", "{kubernetes.io/hostname: node-1}"),
        ("inside", "{kubernetes.io/hostname: node-1}"),
        ("nowhere", "{disk: none}"),
    ] {
        manifest += &sleeper(name, selector);
    }
    let path = cluster.data_dir().join("sleepers.yaml");
    std::fs::write(&path, manifest).unwrap();
    success(
        cluster
            .weft(&["apply", "-f", &path.display().to_string()])
            .unwrap(),
    )
    .unwrap();
    let get = |host: &str, path: &str| {
        let host = format!("{host}.default.localhost");
        runtime
            .block_on(load::get(&cluster.gateway, &host, path))
            .unwrap()
    };
    eventually("the caller answers", || {
        Ok((get("caller", "/hello").0 == 200).then_some(()))
    })
    .unwrap();
    for name in ["outside", "inside", "nowhere"] {
        eventually(&format!("{name} has no replica"), || {
            Ok((replicas(&cluster, name)? == 0).then_some(()))
        })
        .unwrap();
        eventually(&format!("{name} has no pod"), || {
            let selector = format!("app={name}");
            let text = success(cluster.weft(&["get", "pods", "-l", &selector, "-o", "name"])?)?;
            Ok(text.trim().is_empty().then_some(()))
        })
        .unwrap();
    }
    // Through the gateways, and from a pod on the other node.
    let (status, body) = get("outside", "/");
    assert_eq!(status, 200, "{body}");
    assert_eq!(replicas(&cluster, "outside").unwrap(), 1);
    let (status, body) = get("caller", "/call?url=http://inside.default/");
    assert_eq!(status, 200, "{body}");
    assert_eq!(replicas(&cluster, "inside").unwrap(), 1);
    let (status, body) = get("nowhere", "/");
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("service nowhere.default has no ready endpoint: pod nowhere-"),
        "{body}"
    );
    assert!(body.contains("cannot be scheduled"), "{body}");
    // Both ends tell of it.
    let told = success(cluster.weft(&["why", "hpa/outside"]).unwrap()).unwrap();
    assert!(
        told.contains("requests-in-flight of Service outside"),
        "{told}"
    );
    let events = success(cluster.weft(&["get", "events"]).unwrap()).unwrap();
    assert!(
        events.contains("calls to Service outside wait for an endpoint"),
        "{events}"
    );
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/outside/requests-per-second";
    let text = success(cluster.weft(&["get", "--raw", path]).unwrap()).unwrap();
    assert!(text.contains(r#""describedObject""#), "{text}");
}
