//! How the API server reaches components: as webhooks, as whoever serves a group, and for whoever asks through `…/proxy`.

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use weft_tests::cluster::{Cluster, eventually, success};

/// Two tenants with a component each, of the same names, on nodes of their own.
const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {watched: 'yes'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: mallory}
---
apiVersion: v1
kind: Pod
metadata: {name: hook, namespace: shop, labels: {app: hook}}
spec:
  nodeSelector: {kubernetes.io/hostname: node-2}
  containers: [{name: main, image: 'probe:1', env: [{name: NAME, value: shop}], ports: [{name: web, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: hook, namespace: shop}
spec: {selector: {app: hook}, ports: [{name: https, port: 443, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: hook, namespace: mallory, labels: {app: hook}}
spec:
  nodeSelector: {kubernetes.io/hostname: node-1}
  containers: [{name: main, image: 'probe:1', env: [{name: NAME, value: mallory}], ports: [{name: web, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

/// A slice of one tenant's that names another's pod.
const FORGED: &str = r"
apiVersion: v1
kind: Service
metadata: {name: forged, namespace: mallory}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: forged-1, namespace: mallory, labels: {kubernetes.io/service-name: forged}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.42.0.9], targetRef: {kind: Pod, namespace: shop, name: hook}}]
";

struct Client {
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
}

impl Client {
    fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        // Another test may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Runtime::new()?;
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let client = runtime.block_on(async {
            let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            // What cannot be reached is an answer here, and nothing to wait for.
            config.default_retry = false;
            anyhow::Ok(kube::Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Status, warnings and body of an answer.
    fn ask(&self, line: &str, body: &Value) -> anyhow::Result<(u16, String, String)> {
        let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let request = request.body(kube::client::Body::from(body))?;
        self.runtime.block_on(async {
            let response = self.client.send(request).await?;
            let status = response.status().as_u16();
            let warning = response.headers().get("warning");
            let warning = warning.and_then(|warning| warning.to_str().ok());
            let warning = warning.unwrap_or_default().to_owned();
            let body = http_body_util::BodyExt::collect(response.into_body()).await?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok((status, warning, body))
        })
    }
}

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("reach.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

const IN_SHOP: &str = "/api/v1/namespaces/shop";

/// A cluster whose components answer through the server.
fn started() -> anyhow::Result<(Cluster, Client)> {
    let cluster = Cluster::start(2)?;
    cluster.push("probe", "probe:1")?;
    apply(&cluster, OBJECTS)?;
    let client = Client::new(&cluster)?;
    for namespace in ["shop", "mallory"] {
        let path = format!("/api/v1/namespaces/{namespace}/pods/hook/proxy/hello");
        eventually(&path, || {
            let (status, _, body) = client.ask(&path, &Value::Null)?;
            Ok((status == 200 && body == "hello\n").then_some(()))
        })?;
    }
    Ok((cluster, client))
}

#[test]
fn pods_and_services_are_reached_through_the_server() {
    let (cluster, client) = started().unwrap();
    let ask = |line: &str, body: &Value| client.ask(line, body).unwrap();
    let service = format!("{IN_SHOP}/services/hook:https/proxy/hello");
    eventually(&service, || {
        Ok((client.ask(&service, &Value::Null)?.0 == 200).then_some(()))
    })
    .unwrap();
    for (line, expected) in [
        (
            format!("{IN_SHOP}/pods/hook:8080/proxy/hello"),
            (200, "hello\n"),
        ),
        (
            format!("{IN_SHOP}/services/hook:443/proxy/hello"),
            (200, "hello\n"),
        ),
        // A component is asked in one way, whatever the scheme.
        (
            format!("{IN_SHOP}/services/https:hook:https/proxy/hello"),
            (200, "hello\n"),
        ),
        (
            format!("{IN_SHOP}/pods/https:hook:8080/proxy/hello"),
            (200, "hello\n"),
        ),
        (
            format!("{IN_SHOP}/pods/hook/proxy/status?code=418"),
            (418, "418 I'm a teapot\n"),
        ),
    ] {
        let (status, _, body) = ask(&line, &Value::Null);
        assert_eq!((status, body.as_str()), expected, "{line}");
    }
    let (status, _, echoed) = ask(
        &format!("POST {IN_SHOP}/pods/hook/proxy/echo"),
        &json!({"a": 1}),
    );
    assert_eq!((status, echoed.as_str()), (200, "{\"a\":1}"));
    let (_, _, page) = ask(
        &format!("{IN_SHOP}/pods/hook:8080/proxy/page"),
        &Value::Null,
    );
    let through = format!("<a href=\"{IN_SHOP}/pods/hook:8080/proxy/rewriteme\">test</a>");
    assert_eq!(page, through);
    // What the component is told: who calls, and nothing that was the client's for this server.
    let (_, _, who) = ask(&format!("{IN_SHOP}/pods/hook/proxy/whoami"), &Value::Null);
    assert!(
        who.contains("spiffe://cluster.local/ns/kube-system/sa/kube-apiserver"),
        "{who}"
    );
    let (_, _, headers) = ask(
        &format!("{IN_SHOP}/pods/hook/proxy/headers?x=%2F"),
        &Value::Null,
    );
    assert!(headers.contains("/headers?x=%2F"), "{headers}");
    for secret in ["authorization", "x-weft-", "x-remote-"] {
        assert!(!headers.contains(secret), "{headers}");
    }
    for (line, expected) in [
        (
            format!("{IN_SHOP}/pods/hook:9/proxy/"),
            "error trying to reach service: dial tcp ",
        ),
        (
            format!("{IN_SHOP}/pods/nobody/proxy/"),
            "pods \\\"nobody\\\" not found",
        ),
        (
            format!("{IN_SHOP}/services/nobody:80/proxy/"),
            "no endpoints available for service \\\"nobody\\\"",
        ),
        (
            format!("{IN_SHOP}/services/hook:80/proxy/"),
            "no service port 80 found for service \\\"hook\\\"",
        ),
        (
            format!("{IN_SHOP}/services/ftp:hook:21/proxy/"),
            "invalid service request \\\"ftp:hook:21\\\"",
        ),
    ] {
        let (status, _, body) = ask(&line, &Value::Null);
        assert!(
            status >= 400 && body.contains(expected),
            "{line}: {status} {body}"
        );
    }
    // Another tenant's slice leads to its own pods alone.
    apply(&cluster, FORGED).unwrap();
    let forged = "/api/v1/namespaces/mallory/services/forged:80/proxy/env";
    let (status, _, body) = ask(forged, &Value::Null);
    assert!(
        status == 503 && body.contains("no endpoints available"),
        "{status} {body}"
    );
}

#[test]
fn a_component_admits_and_serves_a_group() {
    let (cluster, client) = started().unwrap();
    let ask = |line: &str, body: &Value| client.ask(line, body).unwrap();
    let hook = json!({
        "metadata": {"name": "hook"},
        "webhooks": [{
            "name": "hook.shop.example", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            // The mesh proves who answers: the bundle of somebody else's is not asked.
            "clientConfig": {"service": {"namespace": "shop", "name": "hook", "path": "/admit"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"watched": "yes"}},
        }],
    });
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(ask(&format!("POST {hooks}"), &hook).0, 201);
    let maps = format!("POST {IN_SHOP}/configmaps");
    let (status, warning, body) = ask(&maps, &json!({"metadata": {"name": "good"}}));
    assert_eq!(status, 201, "{body}");
    let told = "asked by spiffe://cluster.local/ns/kube-system/sa/kube-apiserver";
    assert!(warning.contains(told), "{warning}");
    let refused = json!({"metadata": {"name": "bad", "labels": {"refused": "yes"}}});
    let (status, _, body) = ask(&maps, &refused);
    // It says no code of its own.
    assert_eq!(status, 400);
    let told =
        "admission webhook \\\"hook.shop.example\\\" denied the request: it is labelled refused";
    assert!(body.contains(told), "{body}");

    // The same component as a server of a group: it knows none of the paths, and says so itself.
    let service = json!({
        "metadata": {"name": "v1.hook.example"},
        "spec": {
            "group": "hook.example", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "shop", "name": "hook"},
        },
    });
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    assert_eq!(ask(&format!("POST {services}"), &service).0, 201);
    let own = format!("{services}/v1.hook.example");
    let told = eventually("the component is looked at", || {
        let (_, _, body) = client.ask(&own, &Value::Null)?;
        let service: Value = serde_json::from_str(&body)?;
        let condition = &service["status"]["conditions"][0];
        let told = condition["message"].as_str().unwrap_or_default();
        Ok(told.contains("bad status").then(|| told.to_owned()))
    })
    .unwrap();
    assert!(told.ends_with("/apis/hook.example/v1: 404"), "{told}");
    let local = success(
        cluster
            .weft(&["get", "--raw", &format!("{services}/v1.apps")])
            .unwrap(),
    );
    let local = local.unwrap();
    assert!(
        local.contains("Local APIServices are always available"),
        "{local}"
    );

    // A component that is gone fails as the policy says.
    assert_eq!(
        ask(&format!("DELETE {IN_SHOP}/pods/hook"), &Value::Null).0,
        200
    );
    let told = eventually("nobody is asked any more", || {
        let map = json!({"metadata": {"name": "late", "labels": {"refused": "yes"}}});
        let (status, _, body) = client.ask(&maps, &map)?;
        Ok((status == 500).then_some(body))
    })
    .unwrap();
    assert!(
        told.contains("failed calling webhook \\\"hook.shop.example\\\""),
        "{told}"
    );
}
