//! Another authority of the cluster, twice, while calls go from node to node: none fails, and clients, nodes and a restart find their way.

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::load::{self, Load};

fn pods() -> String {
    let pod = |name: &str, node: &str| {
        format!(
            r"---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: 'probe:1', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
        )
    };
    // The gateway's node calls the one, and that one the other.
    pod("caller", "node-1") + &pod("callee", "node-2")
}

fn roots(told: &str) -> Vec<String> {
    let told: Value = serde_json::from_str(told).unwrap();
    let roots = told["roots"].as_array().unwrap().iter();
    roots
        .map(|root| root["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_authority_is_another_twice_under_load_and_no_call_fails() {
    let mut cluster = Cluster::start(2).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let weft = |cluster: &Cluster, words: &[&str]| success(cluster.weft(words).unwrap());
    cluster.push("probe", "probe:1").unwrap();
    let path = cluster.data_dir().join("rotation.yaml");
    std::fs::write(&path, pods()).unwrap();
    weft(&cluster, &["apply", "-f", &path.display().to_string()]).unwrap();
    let (host, asked) = ("caller.default.localhost", "/call?url=http://callee/hello");
    let answered = |cluster: &Cluster| -> anyhow::Result<Option<()>> {
        let (status, body) = runtime.block_on(load::get(&cluster.gateway, host, asked))?;
        Ok((status == 200 && body.contains("hello")).then_some(()))
    };
    eventually("the two call each other", || answered(&cluster)).unwrap();

    let load = runtime.block_on(async { Load::start(&cluster.gateway, host, asked) });
    let list = ["server", "roots", "--output", "json"];
    for _ in 0..2 {
        let before = roots(&weft(&cluster, &list).unwrap());
        assert_eq!(before.len(), 1);
        weft(&cluster, &["server", "roots", "--rotate"]).unwrap();
        let after = roots(&weft(&cluster, &list).unwrap());
        assert_eq!((after.len(), &after[1]), (2, &before[0]));
        // Refused until every node has made its certificates anew.
        eventually("the older authority is forgotten", || {
            let removed = ["server", "roots", "--remove", &before[0]];
            Ok(weft(&cluster, &removed).ok())
        })
        .unwrap();
        assert_eq!(roots(&weft(&cluster, &list).unwrap()), after[..1]);
    }
    let answers = runtime.block_on(load.finish());
    assert!(answers.total() > 100, "{answers:?}");
    assert_eq!(answers.failures(), 0, "{answers:?}");

    // Nodes and servers begin with what they trusted last.
    cluster.interrupt().unwrap();
    cluster.restart().unwrap();
    eventually("the two call each other again", || answered(&cluster)).unwrap();
    assert_eq!(roots(&weft(&cluster, &list).unwrap()).len(), 1);
}
