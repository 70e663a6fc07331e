//! What CapabilityGrants give: a way to a host outside of the cluster, configuration, and a key-value store; here and in a namespace with a
//! process of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

const APART: &str = "apart";

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("capabilities.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

/// A host outside: an address of this machine that is no node's. It answers each request with its head, and counts them.
fn outside() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.9", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (Ok(mut tcp), counted) = (tcp, counted.clone()) else {
                continue;
            };
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while let Ok(bytes @ 1..) = tcp.read(&mut head) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let told = String::from_utf8_lossy(&head[..bytes]).into_owned();
                    let length = told.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{told}");
                    if tcp.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

fn pod(namespace: &str) -> String {
    format!(
        r#"---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: caller, namespace: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: probe, namespace: {namespace}, labels: {{app: probe}}}}
spec:
  serviceAccountName: caller
  containers: [{{name: main, image: 'probe:1', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: probe, namespace: {namespace}}}
spec: {{selector: {{app: probe}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

fn grant(namespace: &str, port: &str, more: &str) -> String {
    format!(
        r#"---
apiVersion: weft.dev/v1alpha1
kind: CapabilityGrant
metadata: {{name: ledger, namespace: {namespace}}}
spec:
  serviceAccountNames: [caller]
  outgoingHTTP:
  - hosts: [127.0.0.9]
    scheme: HTTP
    ports: [{port}]
    paths: [/v1]
{more}"#
    )
}

#[test]
fn a_host_outside_is_called_where_a_grant_says_so() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, requests) = outside();
    let port = address.rsplit(':').next().unwrap();
    cluster.push("probe", "probe:1").unwrap();
    apply(
        &cluster,
        &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {APART}, labels: {{weft.dev/isolate-process: \"true\"}}}}\n"
        ),
    )
    .unwrap();
    for namespace in ["default", APART] {
        let host = format!("probe.{namespace}.localhost");
        let call = |path: &str| {
            let asked = format!("/call?url=http://{address}{path}");
            runtime
                .block_on(load::get(&cluster.gateway, &host, &asked))
                .unwrap()
        };
        let becomes = |what: &str, path: &str, expected: u16, says: &str| {
            let reached = eventually(what, || {
                let (status, body) = call(path);
                Ok((status == expected && body.contains(says)).then_some(()))
            });
            reached.unwrap();
        };
        apply(&cluster, &pod(namespace)).unwrap();
        let before = requests.load(Ordering::Relaxed);
        becomes(
            "nothing leaves by itself",
            "/v1/x",
            502,
            "HTTP-request-denied",
        );

        // A rule for the host alone: its address is not public, and nobody named it.
        apply(&cluster, &grant(namespace, port, "")).unwrap();
        let events = ["get", "events", "-n", namespace, "-o", "json"];
        eventually("an event says which address is missing", || {
            call("/v1/x");
            let told = success(cluster.weft(&events)?)?;
            let missing =
                "CapabilityGrant NS/ledger would need outgoingHTTP: addresses [127.0.0.9/32]";
            Ok(
                (told.contains("EgressDenied") && told.contains(&missing.replace("NS", namespace)))
                    .then_some(()),
            )
        })
        .unwrap();
        assert_eq!(requests.load(Ordering::Relaxed), before, "nobody came");

        let named = grant(namespace, port, "    addresses: [127.0.0.9/32]\n");
        apply(&cluster, &named).unwrap();
        becomes(
            "a rule opens the way of a pod that runs",
            "/v1/x",
            200,
            "GET /v1/x HTTP/1.1",
        );
        let (_, told) = call("/v1/x");
        assert!(!told.to_lowercase().contains("traceparent"), "{told}");
        assert!(!told.contains("x-weft"), "{told}");
        let after = requests.load(Ordering::Relaxed);
        for path in ["/v2", "/v1/../v2", "/v1/%2e%2e/v2", "/v1x"] {
            let (status, body) = call(path);
            assert!(
                status == 502 && body.contains("HTTP-request-denied"),
                "{path}: {body}"
            );
        }
        assert_eq!(requests.load(Ordering::Relaxed), after);
        eventually("the log says which path is missing", || {
            call("/v2");
            let log = success(cluster.weft(&["logs", "probe", "-n", namespace])?)?;
            Ok(log
                .contains("would need outgoingHTTP: paths [/v2]")
                .then_some(()))
        })
        .unwrap();

        let metrics = success(
            cluster
                .weft(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"])
                .unwrap(),
        )
        .unwrap();
        let counted =
            format!("source_workload=\"probe\",source_workload_namespace=\"{namespace}\"");
        let counted = metrics.lines().any(|line| {
            line.starts_with("istio_requests_total")
                && line.contains(&counted)
                && line.contains("destination_service=\"127.0.0.9\"")
                && line.contains("response_code=\"200\"")
        });
        assert!(counted, "{metrics}");

        success(
            cluster
                .weft(&["delete", "capabilitygrant", "ledger", "-n", namespace])
                .unwrap(),
        )
        .unwrap();
        becomes(
            "what is withdrawn is over",
            "/v1/x",
            502,
            "HTTP-request-denied",
        );
    }
}

fn granted(namespace: &str) -> String {
    format!(
        r#"---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: shop, namespace: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: granted, namespace: {namespace}, labels: {{app: granted}}}}
spec:
  serviceAccountName: shop
  containers: [{{name: main, image: 'granted:1', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: granted, namespace: {namespace}}}
spec: {{selector: {{app: granted}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

const SETTINGS: &str =
    "  config: [{configMapRef: {name: settings}}, {secretRef: {name: key}, prefix: secret.}]\n";

fn give(namespace: &str, what: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: CapabilityGrant\nmetadata: {{name: shop, namespace: {namespace}}}\n\
         spec:\n  serviceAccountNames: [shop]\n{what}"
    )
}

fn settings(namespace: &str, colour: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {namespace}}}\ndata: {{colour: {colour}}}\n"
    )
}

#[test]
fn configuration_and_stores_are_there_while_they_are_granted() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    cluster.push("granted", "granted:1").unwrap();
    apply(
        &cluster,
        &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {APART}, labels: {{weft.dev/isolate-process: \"true\"}}}}\n"
        ),
    )
    .unwrap();
    for namespace in ["default", APART] {
        let host = format!("granted.{namespace}.localhost");
        let ask = |path: &str| runtime.block_on(load::get(&cluster.gateway, &host, path));
        let becomes = |what: &str, path: &str, expected: (u16, &str)| {
            let reached = eventually(what, || {
                let (status, body) = ask(path)?;
                Ok((status == expected.0 && body.contains(expected.1)).then_some(()))
            });
            reached.unwrap();
        };
        let store = "apiVersion: weft.dev/v1alpha1\nkind: KeyValueStore\nmetadata: {name: carts, namespace: NS}\n";
        apply(&cluster, &store.replace("NS", namespace)).unwrap();
        let stores = "  keyValue: [{identifier: default, store: carts}]\n";
        apply(&cluster, &give(namespace, &format!("{SETTINGS}{stores}"))).unwrap();
        apply(&cluster, &granted(namespace)).unwrap();
        let waits = |why: &str| {
            let reached = eventually(why, || {
                let pod = success(
                    cluster.weft(&["get", "pod", "granted", "-n", namespace, "-o", "json"])?,
                )?;
                let pod: serde_json::Value = serde_json::from_str(&pod)?;
                let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
                Ok(waiting
                    .to_string()
                    .contains(why)
                    .then_some(waiting["reason"].clone()))
            });
            reached.unwrap()
        };
        // What is granted and is not there is missing as Kubernetes says it.
        assert_eq!(
            waits("configmap \\\"settings\\\" not found"),
            "CreateContainerConfigError"
        );
        let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: NS}\nstringData: {token: hunter2}\n";
        apply(
            &cluster,
            &format!(
                "{}{}",
                settings(namespace, "blue"),
                secret.replace("NS", namespace)
            ),
        )
        .unwrap();
        becomes(
            "it starts with its settings",
            "/config?name=colour",
            (200, "blue"),
        );
        assert_eq!(
            ask("/config?name=secret.token").unwrap().1.trim(),
            "hunter2"
        );
        apply(&cluster, &settings(namespace, "red")).unwrap();
        becomes("newer settings follow", "/config?name=colour", (200, "red"));

        for (path, expected) in [
            ("/set?key=a&value=1", ""),
            ("/get?key=a", "1"),
            ("/increment?key=n&delta=2", "2"),
            ("/append?key=a&value=2", ""),
            ("/get?key=a", "12"),
            ("/fill?count=20&bytes=10", ""),
        ] {
            let (status, body) = ask(path).unwrap();
            assert!(
                status == 200 && body.contains(expected),
                "{path}: {status} {body}"
            );
        }
        // Of a store that may be read, and then of none at all.
        let read_only = "  keyValue: [{identifier: default, store: carts, access: ReadOnly}]\n";
        apply(
            &cluster,
            &give(namespace, &format!("{SETTINGS}{read_only}")),
        )
        .unwrap();
        becomes(
            "writing ends with the right to it",
            "/set?key=a&value=3",
            (400, "AccessDenied"),
        );
        assert_eq!(ask("/get?key=a").unwrap(), (200, "12".to_owned()));
        apply(
            &cluster,
            &give(namespace, "  outgoingHTTP: [{hosts: [a.example]}]\n"),
        )
        .unwrap();
        becomes(
            "a store ends with its grant",
            "/get?key=a",
            (400, "AccessDenied"),
        );
        becomes(
            "settings end with their grant",
            "/config?name=colour",
            (404, ""),
        );

        // Without its grant it does not start again, and says which it needs.
        success(
            cluster
                .weft(&["delete", "pod", "granted", "-n", namespace])
                .unwrap(),
        )
        .unwrap();
        let refused = cluster.data_dir().join("granted.yaml");
        std::fs::write(&refused, granted(namespace)).unwrap();
        eventually("it is refused, or waits for its grant", || {
            let applied = cluster.weft(&["apply", "-f", &refused.display().to_string()])?;
            let told = String::from_utf8_lossy(&applied.stderr).into_owned();
            if told.contains("CapabilityGrant") {
                return Ok(Some(()));
            }
            let pod =
                success(cluster.weft(&["get", "pod", "granted", "-n", namespace, "-o", "json"])?)?;
            Ok(pod.contains("CapabilityNotGranted").then_some(()))
        })
        .unwrap();
    }
}
