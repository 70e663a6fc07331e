//! Volumes of pods: shared by containers, kept over restarts, as large as they may be, and gone with their pod. The guest's
//! steps are explained in `sample-apps/behaviours/src/volume.rs`.

use std::path::PathBuf;

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, guest, success};

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("volumes.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

fn get(cluster: &Cluster, name: &str, namespace: &str) -> anyhow::Result<Value> {
    let text = success(cluster.weft(&["get", "pod", name, "-n", namespace, "-o", "json"])?)?;
    Ok(serde_json::from_str(&text)?)
}

fn reaches(cluster: &Cluster, name: &str, phase: &str) -> Value {
    let reached = eventually(&format!("pod {name} is {phase}"), || {
        let pod = get(cluster, name, "default")?;
        Ok((pod["status"]["phase"] == phase).then_some(pod))
    });
    reached.unwrap()
}

fn logs(cluster: &Cluster, pod: &str, container: &str) -> anyhow::Result<String> {
    success(cluster.weft(&["logs", pod, "-c", container])?)
}

fn told_full(cluster: &Cluster, pod: &str) -> anyhow::Result<Vec<String>> {
    let text = success(cluster.weft(&["get", "events", "-o", "json"])?)?;
    let events: Value = serde_json::from_str(&text)?;
    let mut told: Vec<String> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["reason"] == "VolumeFull" && event["involvedObject"]["name"] == pod)
        .map(|event| {
            format!(
                "{} {} x{}",
                event["type"].as_str().unwrap_or_default(),
                event["message"].as_str().unwrap_or_default(),
                event["count"]
            )
        })
        .collect();
    told.sort();
    Ok(told)
}

/// Where the node keeps the volumes of a pod.
fn folder(cluster: &Cluster, pod: &Value) -> PathBuf {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    assert!(!uid.is_empty());
    cluster.data_dir().join("nodes/node-1/volumes").join(uid)
}

#[test]
fn an_empty_dir_is_shared_and_bounded_and_gone_with_its_pod() {
    let mut cluster = Cluster::start(1).unwrap();
    let image = format!("file:{}", guest("behaviours").display());
    let manifest = format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: bounded, annotations: {{weft.dev/world: command, weft.dev/max-volume-inodes: "20"}}}}
spec:
  restartPolicy: Never
  volumes: [{{name: data, emptyDir: {{sizeLimit: 1Mi}}}}]
  initContainers:
  - name: first
    image: '{image}'
    args: [volume/data, write a 4096, files f 2]
    volumeMounts: [{{name: data, mountPath: /data}}]
  - name: reader
    image: '{image}'
    args: [volume/here, write a 1, unlink a]
    volumeMounts: [{{name: data, mountPath: /here, readOnly: true}}]
  containers:
  - name: main
    image: '{image}'
    args: [volume/data, append a 1, write b 2000000, append b 1, append c 1, unlink b, files g 100, write c 8192]
    volumeMounts: [{{name: data, mountPath: /data}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: kept, annotations: {{weft.dev/world: command}}}}
spec:
  volumes: [{{name: data, emptyDir: {{}}}}]
  containers:
  - name: main
    image: '{image}'
    args: [volume/data, enter run]
    volumeMounts: [{{name: data, mountPath: /data}}]
"#
    );
    apply(&cluster, &manifest).unwrap();

    // 58 and 59: to the limits and no further, for all of the pod's containers together.
    let bounded = reaches(&cluster, "bounded", "Succeeded");
    for (container, saw) in [
        ("first", "write a 4096: 4096\nfiles f 2: 2\n"),
        ("reader", "write a 1: read-only\nunlink a: read-only\n"),
        (
            "main",
            "append a 1: 1\nwrite b 2000000: 1040384, then quota\nappend b 1: 0, then quota\n\
             append c 1: 0, then quota\nunlink b: ok\nfiles g 100: 16, then quota\nwrite c 8192: 8192\n",
        ),
    ] {
        assert_eq!(logs(&cluster, "bounded", container).unwrap(), saw);
    }
    let told = eventually("both limits are told", || {
        let told = told_full(&cluster, "bounded")?;
        Ok((told.len() == 2).then_some(told))
    });
    assert_eq!(
        told.unwrap(),
        [
            "Warning volume \"data\" is full: it may hold 1048576 bytes; emptyDir.sizeLimit says how many x1",
            "Warning volume \"data\" is full: it may hold 20 files, folders and links; \
             the annotation weft.dev/max-volume-inodes says how many x1",
        ]
    );
    let metrics = || -> anyhow::Result<String> {
        let path = "/api/v1/nodes/node-1/proxy/metrics";
        let text = success(cluster.weft(&["get", "--raw", path])?)?;
        let ours = text.lines().filter(|line| {
            line.starts_with("kubelet_volume_stats_") && line.contains("pod=\"bounded\"")
        });
        Ok(ours.collect::<Vec<_>>().join("\n"))
    };
    let labels = "{namespace=\"default\",pod=\"bounded\",volume=\"data\"}";
    assert_eq!(
        metrics().unwrap(),
        [
            ("capacity_bytes", 1_048_576),
            ("used_bytes", 16_384),
            ("inodes", 20),
            ("inodes_used", 20),
        ]
        .map(|(name, value)| format!("kubelet_volume_stats_{name}{labels} {value}"))
        .join("\n")
    );
    let folder_of_bounded = folder(&cluster, &bounded);
    let file = std::fs::metadata(folder_of_bounded.join("data/c")).unwrap();
    assert_eq!(file.len(), 8192);

    // What a container left is there for its next run, and for the next process of the node.
    let kept = eventually("kept has run twice", || {
        let pod = get(&cluster, "kept", "default")?;
        Ok((logs(&cluster, "kept", "main")? == "enter run: exist\n").then_some(pod))
    });
    let folder_of_kept = folder(&cluster, &kept.unwrap());
    let stray = cluster.data_dir().join("nodes/node-1/volumes/gone");
    std::fs::create_dir_all(stray.join("data/some/more")).unwrap();
    cluster.interrupt().unwrap();
    cluster.restart().unwrap();
    eventually("what belongs to no pod is removed", || {
        Ok((!stray.exists()).then_some(()))
    })
    .unwrap();
    assert!(folder_of_bounded.join("data/c").exists());
    assert!(folder_of_kept.join("data/run").exists());

    success(cluster.weft(&["delete", "pod", "bounded"]).unwrap()).unwrap();
    success(cluster.weft(&["delete", "pod", "kept"]).unwrap()).unwrap();
    for folder in [&folder_of_bounded, &folder_of_kept] {
        eventually("the volumes go with their pod", || {
            Ok((!folder.exists()).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn volumes_that_cannot_be_mounted_are_refused_with_a_sentence() {
    let cluster = Cluster::start(1).unwrap();
    let image = format!("file:{}", guest("behaviours").display());
    let mut manifest = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: apart, labels: {weft.dev/isolate-process: \"true\"}}\n".to_owned();
    let volumes = [
        ("disk", "default", "nfs: {server: files, path: /all}"),
        ("memory", "default", "emptyDir: {medium: HugePages}"),
        ("size", "default", "emptyDir: {sizeLimit: 1Mi}"),
        ("isolated", "apart", "emptyDir: {}"),
    ];
    for (name, namespace, source) in volumes {
        let inodes = if name == "size" { "none" } else { "9" };
        manifest += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {{weft.dev/max-volume-inodes: \"{inodes}\"}}}}\n\
             spec:\n  volumes: [{{name: data, {source}}}]\n  containers:\n  - name: main\n    image: '{image}'\n    \
             volumeMounts: [{{name: data, mountPath: /data}}]\n"
        );
    }
    apply(&cluster, &manifest).unwrap();
    let refused = volumes.map(|(name, namespace, ..)| {
        let why = eventually(&format!("{name} is refused"), || {
            let pod = get(&cluster, name, namespace)?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let reason = waiting["reason"].as_str().unwrap_or_default();
            let message = waiting["message"].as_str().unwrap_or_default();
            Ok((reason == "CreateContainerConfigError").then(|| format!("{name}: {message}")))
        });
        why.unwrap()
    });
    assert_eq!(
        refused,
        [
            "disk: volume \"data\" is mounted at /data, and nodes mount only emptyDir, hostPath, persistentVolumeClaim, \
             ephemeral, configMap, secret, downwardAPI, projected and image volumes into components",
            "memory: volume \"data\": emptyDir.medium \"HugePages\" is not supported: a component's memory has no pages of \
             another size; use Memory, or leave the field out",
            "size: annotation weft.dev/max-volume-inodes: \"none\" is not a number from 1 to 1000000",
            "isolated: volume \"data\" cannot be mounted: the worker process of a namespace with the label \
             weft.dev/isolate-process has no files",
        ]
    );
}

#[test]
fn settings_and_secrets_are_files_that_a_component_only_reads() {
    let cluster = Cluster::start(1).unwrap();
    let behaviours = format!("file:{}", guest("behaviours").display());
    let wordcount = format!("file:{}", guest("wordcount").display());
    let pod = |name: &str, volume: &str, image: &str, arguments: &str, world: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: files}}, annotations: {{weft.dev/world: {world}}}}}\n\
             spec:\n  restartPolicy: Never\n  volumes: [{{name: files, {volume}}}]\n  containers:\n  - name: main\n    \
             image: '{image}'\n    args: [{arguments}]\n    volumeMounts: [{{name: files, mountPath: /files}}]\n"
        )
    };
    let settings = "configMap: {name: settings, items: [{key: app.txt, path: deep/app.txt}]}";
    let projected = "projected: {sources: [{secret: {name: keys}}, {downwardAPI: {items: [{path: labels, \
                     fieldRef: {fieldPath: metadata.labels}}]}}]}";
    let manifest = [
        pod(
            "reads",
            settings,
            &wordcount,
            "/files/deep/app.txt",
            "command",
        ),
        pod("joins", projected, &wordcount, "/files/labels", "command"),
        pod(
            "writes",
            settings,
            &behaviours,
            "volume/files, write a 1, unlink deep",
            "command",
        ),
    ];
    apply(&cluster, &manifest.concat()).unwrap();
    // Made after their pods: whoever waits for them is told, and goes on.
    for (name, missing) in [
        ("reads", "configmap \"settings\""),
        ("joins", "secret \"keys\""),
    ] {
        let told = eventually("what is missing is said", || {
            let pod = get(&cluster, name, "default")?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let message = waiting["message"].as_str().unwrap_or_default();
            Ok((!message.is_empty()).then(|| message.to_owned()))
        });
        assert_eq!(
            told.unwrap(),
            format!("volume \"files\": {missing} not found")
        );
    }
    let sources = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {app.txt: one two three}\n\
                   ---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {token: sesame}\n";
    apply(&cluster, sources).unwrap();
    for name in ["reads", "joins", "writes"] {
        reaches(&cluster, name, "Succeeded");
    }
    let counted = logs(&cluster, "reads", "main").unwrap();
    assert!(counted.contains('3'), "{counted}");
    assert_eq!(
        logs(&cluster, "writes", "main").unwrap(),
        "write a 1: read-only\nunlink deep: read-only\n"
    );
}
