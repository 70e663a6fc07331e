//! The `kube` crate, as a program that is built on the API would use it.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use weft_tests::cluster::Cluster;

async fn client(cluster: &Cluster) -> kube::Client {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "test"}},
        "data": {"key": value},
    }))
    .unwrap()
}

#[test]
fn the_kube_crate_reads_writes_and_watches() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(&cluster).await;
        let version = client.apiserver_version().await.unwrap();
        assert_eq!(
            (version.major.as_str(), version.minor.as_str()),
            ("1", "37")
        );
        let namespaces: kube::Api<Namespace> = kube::Api::all(client.clone());
        let names: Vec<_> = namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .filter_map(|ns| ns.metadata.name)
            .collect();
        assert!(names.contains(&"kube-system".to_owned()), "{names:?}");

        let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client, "default");
        let start = maps
            .list(&ListParams::default())
            .await
            .unwrap()
            .metadata
            .resource_version
            .unwrap();
        let created = maps
            .create(&PostParams::default(), &config_map("a", "1"))
            .await
            .unwrap();
        assert!(created.metadata.uid.is_some());
        let again = maps
            .create(&PostParams::default(), &config_map("a", "1"))
            .await
            .unwrap_err();
        assert!(
            matches!(&again, kube::Error::Api(status) if status.reason == "AlreadyExists"),
            "{again}"
        );

        let mut stale = created.clone();
        let merged = maps
            .patch(
                "a",
                &PatchParams::default(),
                &Patch::Merge(json!({"data": {"key": "2"}})),
            )
            .await
            .unwrap();
        assert_eq!(merged.data.as_ref().unwrap()["key"], "2");
        stale.data = config_map("a", "3").data;
        let conflict = maps
            .replace("a", &PostParams::default(), &stale)
            .await
            .unwrap_err();
        assert!(
            matches!(&conflict, kube::Error::Api(status) if status.code == 409),
            "{conflict}"
        );
        maps.patch(
            "a",
            &PatchParams::default(),
            &Patch::Strategic(json!({"data": {"other": "x"}})),
        )
        .await
        .unwrap();
        maps.delete("a", &DeleteParams::default()).await.unwrap();

        let seen: Vec<String> = maps
            .watch(&WatchParams::default().labels("app=test"), &start)
            .await
            .unwrap()
            .boxed()
            .take(4)
            .map(|event| match event.unwrap() {
                WatchEvent::Added(map) => format!("added {:?}", map.data.unwrap()["key"]),
                WatchEvent::Modified(map) => format!("modified {}", map.data.unwrap().len()),
                WatchEvent::Deleted(map) => format!("deleted {}", map.metadata.name.unwrap()),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
            .await;
        assert_eq!(
            seen,
            ["added \"1\"", "modified 1", "modified 2", "deleted a"]
        );
    });
}
