//! The `kube` crate, as a program that is built on the API would use it.

use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use weft_tests::cluster::Cluster;

pub(crate) async fn client(cluster: &Cluster) -> kube::Client {
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

/// More than a kind's history holds, in objects that do not compress.
const LARGE_BYTES: usize = 700 << 10;
const LARGE_WRITES: usize = 40;

#[test]
fn a_watcher_that_slept_lists_again_and_sees_what_is_new() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(&cluster).await;
        let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client, "default");
        let made = |name: &str| config_map(name, "1");
        maps.create(&PostParams::default(), &made("before"))
            .await
            .unwrap();
        let events = watcher::watcher(maps.clone(), watcher::Config::default());
        let mut events = std::pin::pin!(events.default_backoff());
        let mut lists = 0;
        let mut see = async |wanted: &str| {
            loop {
                // Errors are the watcher's own to mend; that it does is what is tried.
                let Some(event) = events.next().await else {
                    panic!("a watcher never ends");
                };
                match event {
                    Ok(watcher::Event::InitDone) => lists += 1,
                    Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))
                        if map.metadata.name.as_deref() == Some(wanted) =>
                    {
                        return lists;
                    }
                    _ => {}
                }
            }
        };
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, see("before")).await.unwrap();
        // Nobody polls it meanwhile, as nobody does in a process that was stopped.
        for number in 0..LARGE_WRITES {
            let mut large = made(&format!("large-{}", number % 4));
            let noise = weft_tests::noise(number, LARGE_BYTES);
            large.data = Some([("noise".to_owned(), noise)].into());
            let name = large.metadata.name.clone().unwrap();
            maps.delete(&name, &DeleteParams::default()).await.ok();
            maps.create(&PostParams::default(), &large).await.unwrap();
        }
        maps.create(&PostParams::default(), &made("after"))
            .await
            .unwrap();
        let lists = tokio::time::timeout(patience, see("after")).await.unwrap();
        assert!(lists >= 1, "the first list was whole");
    });
}

#[test]
fn a_controller_adds_and_removes_its_finalizer() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client(&cluster).await, "default");
        let map = config_map("kept", "1");
        maps.create(&PostParams::default(), &map).await.unwrap();
        let reconcile = async || {
            let map = Arc::new(maps.get("kept").await.unwrap());
            let told = Mutex::new("nothing");
            let note = |event: Event<ConfigMap>| {
                *told.lock().unwrap() = match event {
                    Event::Apply(_) => "apply",
                    Event::Cleanup(_) => "cleanup",
                };
                std::future::ready(Ok::<_, std::io::Error>(Action::await_change()))
            };
            finalizer(&maps, "weft.dev/test", map, note).await.unwrap();
            told.into_inner().unwrap()
        };
        // It adds its finalizer, is called again, and lets go of what was deleted.
        assert_eq!(reconcile().await, "nothing");
        let kept = maps.get("kept").await.unwrap();
        assert_eq!(kept.metadata.finalizers.unwrap(), ["weft.dev/test"]);
        assert_eq!(reconcile().await, "apply");
        maps.delete("kept", &DeleteParams::default()).await.unwrap();
        assert_eq!(reconcile().await, "cleanup");
        assert!(maps.get_opt("kept").await.unwrap().is_none());
    });
}

/// Phase, containers with their exit codes, and whether it is ready.
fn how_it_ended(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.into_iter().flatten();
    let containers = containers.map(|container| {
        let terminated = container.state.and_then(|state| state.terminated);
        let ended = terminated.map(|ended| ended.exit_code.to_string());
        ended.unwrap_or_else(|| "not terminated".to_owned())
    });
    let containers: Vec<String> = containers.collect();
    let mut conditions = status.conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    format!(
        "{} [{}] Ready={}",
        status.phase.unwrap_or_default(),
        containers.join(" "),
        ready.map(|condition| condition.status).unwrap_or_default()
    )
}

#[test]
fn the_last_that_is_seen_of_a_deleted_pod_is_how_it_ended() {
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pods: kube::Api<Pod> = kube::Api::namespaced(client(&cluster).await, "default");
        // Some that serve, with each grace that people use; one that waits for ever, and one that nobody has seen run.
        let graces = [None, Some(2), Some(5), Some(10), Some(30)];
        let serving = graces.iter().enumerate();
        let serving = serving.map(|(number, grace)| (format!("serves-{number}"), "probe:1", *grace));
        let waiting = ("waits".to_owned(), "nowhere/absent:1", None);
        let all: Vec<_> = serving.chain([waiting]).collect();
        for (name, image, grace) in &all {
            let pod = json!({
                "metadata": {"name": name},
                "spec": {
                    "terminationGracePeriodSeconds": grace,
                    "containers": [{"name": "main", "image": image, "ports": [{"containerPort": 8080}]}],
                },
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            pods.create(&PostParams::default(), &pod).await.unwrap();
        }
        // It has an image that is not there, so there is something to see of each.
        for (name, image, _) in &all {
            let phase = if image.starts_with("probe") { "Running" } else { "Pending" };
            let is_there = |pod: Option<&Pod>| {
                let status = pod.and_then(|pod| pod.status.as_ref());
                status.is_some_and(|status| {
                    status.phase.as_deref() == Some(phase) && status.container_statuses.is_some()
                })
            };
            let seen = kube::runtime::wait::await_condition(pods.clone(), name, is_there);
            tokio::time::timeout(std::time::Duration::from_secs(90), seen).await.unwrap().unwrap();
        }
        let from = pods.list(&ListParams::default()).await.unwrap();
        let version = from.metadata.resource_version.unwrap();
        for (name, ..) in &all {
            pods.delete(name, &DeleteParams::default()).await.unwrap();
        }
        let params = WatchParams::default().timeout(90);
        let mut watch = pods.watch(&params, &version).await.unwrap().boxed();
        let mut ended = std::collections::BTreeMap::new();
        while ended.len() < all.len() {
            if let WatchEvent::Deleted(pod) = watch.next().await.unwrap().unwrap() {
                ended.insert(pod.metadata.name.clone().unwrap(), how_it_ended(&pod));
            }
        }
        for (name, image, _) in &all {
            let expected = match image.starts_with("probe") {
                true => "Succeeded [0] Ready=False",
                false => "Failed [137] Ready=False",
            };
            assert_eq!(ended[name], expected, "{name}");
        }
    });
}
