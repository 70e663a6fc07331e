//! A weft starts, ends, and starts again with what it had.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use k8s_openapi::api::core::v1::Node;
use weft_tests::cluster::{Cluster, eventually, success, weft};

#[test]
fn an_interrupted_weft_drains_and_exits_with_zero() {
    let mut cluster = Cluster::start(1).unwrap();
    // What programs find the API by is there as soon as anybody is told that it is ready.
    for kind in ["services", "endpoints", "endpointslices"] {
        let found = cluster.weft(&["get", kind, "kubernetes"]).unwrap();
        assert!(success(found).unwrap().contains("kubernetes"), "{kind}");
    }
    assert!(
        success(cluster.weft(&["get", "nodes"]).unwrap())
            .unwrap()
            .contains("Ready")
    );
    assert_eq!(cluster.interrupt().unwrap(), Some(0));
    let after = cluster.weft(&["get", "nodes"]).unwrap();
    let error = String::from_utf8_lossy(&after.stderr).into_owned();
    assert!(error.contains("nothing listens"), "{error}");
    assert!(error.contains("is the cluster up?"), "{error}");
}

/// A leader that stood still gives up nodes that are well; they knew of nothing, and were not ready for five minutes.
#[test]
fn a_node_that_the_servers_gave_up_says_that_it_is_well() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (name, given_up) = runtime
        .block_on(async {
            let nodes: kube::Api<Node> = kube::Api::all(crate::client::client(&cluster).await);
            let listed = nodes.list(&kube::api::ListParams::default()).await?;
            let mut node = listed.items.into_iter().next().expect("it has a node");
            let name = node.metadata.name.clone().unwrap_or_default();
            let status = node.status.get_or_insert_default();
            for condition in status.conditions.get_or_insert_default() {
                condition.status = "Unknown".to_owned();
            }
            let body = serde_json::json!({"status": {"conditions": status.conditions}});
            let patch = kube::api::Patch::Merge(body);
            let params = kube::api::PatchParams::default();
            let written = nodes.patch_status(&name, &params, &patch).await;
            written.map(|node| (name, node))
        })
        .unwrap();
    let is_ready = |node: &Node| {
        let conditions = node
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    assert!(!is_ready(&given_up), "{given_up:?}");
    eventually("it is ready again", || {
        let told = success(cluster.weft(&["get", "node", &name, "-o", "json"])?)?;
        Ok(is_ready(&serde_json::from_str(&told)?).then_some(()))
    })
    .unwrap();
}

#[test]
fn pods_and_what_they_hold_are_there_again_after_ctrl_c_and_the_next_start() {
    // Two nodes: the first that went used to lose its pods to the other.
    let mut cluster = Cluster::start(2).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let path = cluster.data_dir().join("kept.yaml");
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: kept}\nspec:\n  replicas: 4\n  \
                    selector: {matchLabels: {app: kept}}\n  template:\n    metadata: {labels: {app: kept}}\n    spec:\n      \
                    volumes: [{name: data, emptyDir: {}}]\n      containers:\n      - name: main\n        image: probe:1\n        \
                    ports: [{containerPort: 8080}]\n        volumeMounts: [{name: data, mountPath: /data}]\n";
    std::fs::write(&path, manifest).unwrap();
    let path = path.display().to_string();
    success(cluster.weft(&["apply", "-f", &path]).unwrap()).unwrap();
    // Uids of the pods, and their nodes, once all are ready in that run of theirs.
    let ready = |cluster: &Cluster, run: u64| {
        eventually("four pods are ready", || {
            let text = success(cluster.weft(&["get", "pods", "-o", "json"])?)?;
            let list: serde_json::Value = serde_json::from_str(&text)?;
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            let is_ready = |pod: &serde_json::Value| {
                if pod["status"]["containerStatuses"][0]["restartCount"] != run {
                    return false;
                }
                let conditions = pod["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
            };
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let mut seen: Vec<(String, String)> = pods
                .iter()
                .filter(|pod| is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null())
                .map(|pod| {
                    (
                        text(&pod["metadata"]["uid"]),
                        text(&pod["spec"]["nodeName"]),
                    )
                })
                .collect();
            seen.sort();
            Ok((seen.len() == 4 && pods.len() == 4).then_some(seen))
        })
        .unwrap()
    };
    let before = ready(&cluster, 0);
    let data = |cluster: &Cluster, (uid, node): &(String, String)| {
        let nodes = cluster.data_dir().join("nodes").join(node);
        nodes.join("volumes").join(uid).join("data/kept")
    };
    for pod in &before {
        std::fs::write(data(&cluster, pod), &pod.0).unwrap();
    }
    assert_eq!(cluster.interrupt().unwrap(), Some(0));
    cluster.restart().unwrap();
    let after = ready(&cluster, 1);
    assert_eq!(after, before, "the same pods on the same nodes");
    for pod in &before {
        assert_eq!(std::fs::read_to_string(data(&cluster, pod)).unwrap(), pod.0);
    }
}

#[test]
fn what_is_on_disk_is_readable_only_by_its_owner_in_any_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let open = |path: &Path| {
        let mode = std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode();
        (mode & 0o077 != 0).then(|| format!("{} {:o}", path.display(), mode & 0o777))
    };
    let own = Cluster::start(1).unwrap();
    assert_eq!(open(&own.data_dir()), None);
    drop(own);
    // A folder that the user made, and that others may enter.
    let given = Cluster::start_prepared(1, |data| {
        std::fs::create_dir(data)?;
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o755))
    })
    .unwrap();
    given.push("hello", "hello:1").unwrap();
    let found: Vec<String> = files(&given.data_dir())
        .iter()
        .filter_map(|path| open(path))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

/// Everything below a folder. What the cluster removes meanwhile is left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found.retain(|path| path.exists());
    found
}

#[test]
fn a_cluster_ends_with_the_command_that_started_it() {
    let mut cluster = Cluster::start_with(1, &["--exit-with-parent"]).unwrap();
    cluster.close_stdin();
    assert_eq!(cluster.ended().unwrap(), Some(0));
}

#[test]
fn a_killed_cluster_takes_its_nodes_along_and_starts_again_with_what_it_had() {
    let mut cluster = Cluster::start(1).unwrap();
    let config = cluster.data_dir().join("kept.yaml");
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\n";
    std::fs::write(&config, manifest).unwrap();
    success(
        cluster
            .weft(&["apply", "-f", &config.display().to_string()])
            .unwrap(),
    )
    .unwrap();
    let lock = cluster.data_dir().join("nodes/node-1/node.lock");
    cluster.kill().unwrap();
    eventually("the node of a killed cluster ends", || {
        let file = std::fs::File::open(&lock)?;
        Ok(file.try_lock().is_ok().then_some(()))
    })
    .unwrap();
    cluster.restart().unwrap();
    let kept = success(
        cluster
            .weft(&["get", "configmap", "kept", "-o", "name"])
            .unwrap(),
    )
    .unwrap();
    assert_eq!(kept, "configmap/kept\n");
    let nodes = success(cluster.weft(&["get", "nodes"]).unwrap()).unwrap();
    assert!(nodes.contains(" Ready "), "{nodes}");
}

/// A `weft server` or `weft node`, whose last word of advice is on stdout.
struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(weft())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    /// Waits for a line with this in it, and returns what follows it.
    fn says(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.1.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without saying {text:?}");
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        Command::new("kill").arg(&pid).status().unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // No effect on one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_joins_by_token_once_and_later_waits_for_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (server_dir, node_dir) = (path("server"), path("node"));
    let (ca, token) = (path("server/ca.crt"), path("server/join-token"));
    let serve =
        |port: &str| Process::start(&["server", "--data-dir", &server_dir, "--api-port", port]);
    let mut server = serve("0");
    let url = server.says("API");
    let port = url.rsplit(':').next().unwrap().to_owned();
    let join = |token: &[&str]| {
        let known = [
            "node",
            "--name",
            "n1",
            "--server",
            &url,
            "--ca-file",
            &ca,
            "--data-dir",
            &node_dir,
        ];
        let ports = [
            "--gateway-port",
            "0",
            "--mesh-port",
            "0",
            "--node-port",
            "0",
        ];
        [&known[..], &ports[..], token]
            .concat()
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<String>>()
    };
    let start =
        |words: Vec<String>| Process::start(&words.iter().map(String::as_str).collect::<Vec<_>>());

    // Somebody else's token is refused, in words.
    let wrong = path("wrong");
    std::fs::write(&wrong, "abcdef.0123456789abcdef").unwrap();
    let refused = Command::new(weft())
        .args(join(&["--token-file", &wrong]))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(
        error.contains("cannot join the cluster") && error.contains("--token-file"),
        "{error}"
    );
    assert!(
        error.contains("Unauthorized\n") && !error.contains("Status {"),
        "{error}"
    );

    let mut node = start(join(&["--token-file", &token]));
    node.says("weft node n1 is ready");
    assert_eq!((node.terminate(), server.terminate()), (Some(0), Some(0)));

    // The machine starts again, the node first: it knows the cluster, and waits.
    let mut node = start(join(&[]));
    let mut server = serve(&port);
    server.says("weft server is ready");
    node.says("weft node n1 is ready");
    assert_eq!((node.terminate(), server.terminate()), (Some(0), Some(0)));

    // One that is told to end while it waits ends well.
    let mut waiting = Command::new(weft())
        .args(join(&[]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(waiting.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("cannot be reached yet")));
    let pid = waiting.id().to_string();
    Command::new("kill").arg(&pid).status().unwrap();
    let errors: Vec<String> = lines.filter(|line| line.contains("error:")).collect();
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_bearer_token_of_the_token_file_is_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(
        &tokens,
        "correct-horse,ann,1,\"system:masters\"\nbattery,bob,2\n",
    )
    .unwrap();
    let cluster =
        Cluster::start_with(1, &["--token-auth-file", &tokens.display().to_string()]).unwrap();
    let with = |token: &str| {
        let admin = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
        let mut config = String::new();
        for line in admin.lines() {
            if line.contains("client-key-data") {
                let indent = &line[..line.len() - line.trim_start().len()];
                config.push_str(&format!("{indent}token: {token}\n"));
            } else if !line.contains("client-certificate-data") {
                config.push_str(&format!("{line}\n"));
            }
        }
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, config).unwrap();
        let path = path.display().to_string();
        cluster
            .weft(&["get", "nodes", "--kubeconfig", &path])
            .unwrap()
    };
    assert!(success(with("correct-horse")).unwrap().contains("node-1"));
    for (token, why) in [("battery", "bob"), ("wrong", "Unauthorized")] {
        let refused = with(token);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && error.contains(why),
            "{token}: {error}"
        );
    }
}
