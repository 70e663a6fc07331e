//! Bad input gets one sentence and changes nothing.

use std::net::TcpListener;
use std::process::Command;

use weft_tests::cluster::{Cluster, eventually, success, weft};

use crate::load;

fn refused(output: std::process::Output, sentences: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "it was accepted: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    for sentence in sentences {
        assert!(
            error.contains(sentence),
            "{sentence:?} is missing in: {error}"
        );
    }
}

#[test]
fn a_port_or_folder_in_use_is_said_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    for flag in ["--api-port", "--gateway-port"] {
        let other = if flag == "--api-port" {
            "--gateway-port"
        } else {
            "--api-port"
        };
        let output = Command::new(weft())
            .args(["up", "--data-dir", &data, flag, &port, other, "0"])
            .output()
            .unwrap();
        refused(output, &[&format!("127.0.0.1:{port}"), "in use", "try:"]);
    }
    let cluster = Cluster::start(1).unwrap();
    let output = Command::new(weft())
        .args(["up", "--api-port", "0", "--gateway-port", "0", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .unwrap();
    refused(output, &["in use", "try:"]);
    assert!(
        success(cluster.weft(&["get", "nodes"]).unwrap())
            .unwrap()
            .contains("Ready")
    );
}

#[test]
fn an_unusable_kubeconfig_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "not: [a kubeconfig").unwrap();
    for path in [missing, garbage] {
        let output = Command::new(weft())
            .args(["get", "pods", "--kubeconfig"])
            .arg(&path)
            .output()
            .unwrap();
        refused(output, &[&path.display().to_string(), "try:"]);
    }
}

#[test]
fn bad_manifests_and_images_change_nothing() {
    let cluster = Cluster::start(1).unwrap();
    let apply = |manifest: &str| {
        let path = cluster.data_dir().join("bad.yaml");
        std::fs::write(&path, manifest).unwrap();
        cluster
            .weft(&["apply", "-f", &path.display().to_string()])
            .unwrap()
    };
    let empty = || {
        success(
            cluster
                .weft(&["get", "deployments,pods", "-o", "name"])
                .unwrap(),
        )
        .unwrap()
    };
    let deployment = |spec: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: bad, namespace: default}}\nspec:\n  selector: {{matchLabels: {{app: bad}}}}\n  template:\n    metadata: {{labels: {{app: bad}}}}\n    spec: {{containers: [{{name: a, image: a}}]}}\n{spec}"
        )
    };
    refused(
        apply(&deployment("  replcas: 3")),
        &["unknown field \"spec.replcas\""],
    );
    refused(
        apply(&deployment("  replicas: -1")),
        &["spec.replicas", "must be greater than or equal to 0"],
    );
    refused(
        apply("kind: [broken"),
        &["cannot use the manifest", "nothing was changed"],
    );
    refused(
        apply("apiVersion: nowhere/v9\nkind: Thing\nmetadata: {name: a}"),
        &["serves no such kind"],
    );
    assert_eq!(empty(), "");
    // The mistake is in the last object, which goes into a namespace that the first one would have made.
    let fine = "apiVersion: v1\nkind: Namespace\nmetadata: {name: fresh}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine, namespace: fresh}\n---\n";
    let wrong = deployment("  replcas: 3").replace("namespace: default", "namespace: fresh");
    refused(
        apply(&format!("{fine}{wrong}")),
        &["deployment.apps/bad", "spec.replcas", "nothing was changed"],
    );
    refused(
        cluster.weft(&["get", "namespace", "fresh"]).unwrap(),
        &["not found"],
    );

    let text = cluster.data_dir().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    refused(
        cluster
            .weft(&["push", &text.display().to_string(), "a:1"])
            .unwrap(),
        &["not a WebAssembly component"],
    );
    std::fs::write(&text, b"\0asm\x01\0\0\0").unwrap();
    refused(
        cluster
            .weft(&["push", &text.display().to_string(), "a:1"])
            .unwrap(),
        &["core WebAssembly module"],
    );
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}\nspec:\n  containers:\n  - name: main\n    image: {image}\n    ports: [{{containerPort: 80}}]\n{more}---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n"
    )
}

#[test]
fn hostile_components_hurt_only_themselves() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let apply = |manifest: &str| {
        let path = cluster.data_dir().join("pods.yaml");
        std::fs::write(&path, manifest).unwrap();
        success(
            cluster
                .weft(&["apply", "-f", &path.display().to_string()])
                .unwrap(),
        )
        .unwrap()
    };
    let waiting = |name: &str| {
        let text = success(cluster.weft(&["get", "pod", name, "-o", "json"])?)?;
        let pod: serde_json::Value = serde_json::from_str(&text)?;
        let state = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        anyhow::Ok((text("reason"), text("message")))
    };

    // Not a component, and one that imports what nobody granted: the pod says so, in a sentence.
    let text = cluster.data_dir().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    let greedy = cluster.data_dir().join("greedy.wasm");
    std::fs::write(&greedy, wat::parse_str(GREEDY).unwrap()).unwrap();
    apply(&pod("text", &format!("file:{}", text.display()), ""));
    apply(&pod("greedy", &format!("file:{}", greedy.display()), ""));
    apply(&pod("missing", "nowhere/at-all:1", ""));
    for (name, sentence) in [
        ("text", "not WebAssembly"),
        ("greedy", "evil:capability/everything"),
        ("missing", "nowhere/at-all"),
    ] {
        let message = eventually(&format!("pod {name} says why it waits"), || {
            let (reason, message) = waiting(name)?;
            Ok((!reason.is_empty() && message.contains(sentence)).then_some(message))
        })
        .unwrap();
        assert!(message.contains(sentence), "{message}");
    }

    // One that traps, loops or eats memory: its caller gets an error, its neighbours and itself go on.
    let limits = "    resources: {limits: {memory: 64Mi, cpu: 500m}}\n";
    let timeout = pod("probe", "probe:1", limits).replace(
        "labels: {app: probe}",
        "labels: {app: probe}, annotations: {weft.dev/request-timeout: 2s}",
    );
    apply(&timeout);
    let get =
        |path: &str| runtime.block_on(load::get(&cluster.gateway, "probe.default.localhost", path));
    eventually("the probe answers", || {
        Ok((get("/hello")?.0 == 200).then_some(()))
    })
    .unwrap();
    for (path, expected) in [
        ("/panic", &[500, 502][..]),
        ("/loop", &[504][..]),
        ("/eat?mb=512", &[500, 502, 507][..]),
    ] {
        let (status, body) = get(path).unwrap();
        assert!(expected.contains(&status), "{path}: {status} {body}");
        assert_eq!(get("/hello").unwrap().0, 200, "after {path}");
    }

    // What is outside the cluster is refused, and the guest can read why.
    let (status, body) = get("/call?url=http://example.com/").unwrap();
    assert_eq!(status, 502, "the probe passes on what it read: {body}");
    assert!(body.contains("HTTP-request-denied"), "{body}");
}

/// A component that imports what no host of ours offers.
const GREEDY: &str = r#"(component
  (import "evil:capability/everything" (instance (export "take" (func))))
  (core module $module (func (export "run") (result i32) i32.const 0))
  (core instance $core (instantiate $module))
  (func $run (result (result)) (canon lift (core func $core "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"#;
