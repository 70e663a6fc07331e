//! The registry of several servers: what was pushed while one of them was away.

use kube::client::Body;
use serde_json::Value;
use weft_tests::cluster::{eventually, guest, success};
use weft_tests::servers::ServerProcess;

use crate::servers::client;

fn push(through: &ServerProcess, component: &str, image: &str) {
    let file = guest(component).display().to_string();
    success(through.weft(&["push", &file, image]).unwrap()).unwrap();
}

/// The bytes of the component that a tag stands for, as one server serves them.
async fn pull(from: &ServerProcess, repository: &str, tag: &str) -> anyhow::Result<Vec<u8>> {
    let client = client(&from.kubeconfig()).await;
    let get = async |path: String| {
        let request = http::Request::get(path).body(Body::empty())?;
        let answer = client.send(request).await?;
        anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
        anyhow::Ok(answer.into_body().collect_bytes().await?.to_vec())
    };
    let manifest = get(format!("/v2/{repository}/manifests/{tag}")).await?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let digest = manifest["layers"][0]["digest"].as_str().unwrap_or_default();
    get(format!("/v2/{repository}/blobs/{digest}")).await
}

#[test]
fn what_was_pushed_while_a_server_was_away_is_there_when_it_is_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut one = ServerProcess::start(&path("one"), &[]).unwrap();
    let mut two = one.join(&path("two"), &[]).unwrap();
    let mut three = one.join(&path("three"), &[]).unwrap();
    push(&one, "hello", "moved:1");
    let holds = |server: &ServerProcess, repository: &str, component: &str| {
        let pulled = runtime.block_on(pull(server, repository, "1")).unwrap();
        assert!(
            pulled == std::fs::read(guest(component)).unwrap(),
            "{repository}: not {component}"
        );
    };
    holds(&three, "moved", "hello");

    three.kill().unwrap();
    push(&one, "wordcount", "moved:1");
    push(&two, "hello", "new:1");
    let mut three = ServerProcess::start(&path("three"), &[]).unwrap();
    // At once, from the others: neither nothing, nor what the tag meant before.
    holds(&three, "moved", "wordcount");
    holds(&three, "new", "hello");

    // And soon alone.
    eventually("the one that was away has everything", || {
        Ok(three.log().contains("an image was fetched").then_some(()))
    })
    .unwrap();
    let images = |name: &str| {
        let kept = path("three/registry/repositories").join(name);
        std::fs::read_dir(kept.join("_manifests/revisions")).map_or(0, Iterator::count)
    };
    eventually("all images", || {
        Ok((images("moved") == 2 && images("new") == 1).then_some(()))
    })
    .unwrap();
    one.kill().unwrap();
    two.kill().unwrap();
    holds(&three, "moved", "wordcount");
    holds(&three, "new", "hello");
    three.kill().unwrap();
}
