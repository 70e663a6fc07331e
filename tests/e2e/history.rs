//! Watches of real servers: across a kill, and by a client that does not read.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weft_tests::cluster::eventually;
use weft_tests::servers::ServerProcess;

use crate::servers::{Writing, client, write};

const RETRY_PAUSE: Duration = Duration::from_millis(50);

async fn maps(server: &ServerProcess) -> kube::Api<ConfigMap> {
    kube::Api::namespaced(client(&server.kubeconfig()).await, "default")
}

/// Follows what is created on one server, from `version` on, through as many watches as it takes, until an object `end` is
/// seen. Names in the order in which they came.
async fn follow(maps: kube::Api<ConfigMap>, mut version: String, end: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let params = WatchParams::default();
        let Ok(events) = maps.watch(&params, &version).await else {
            sleep(RETRY_PAUSE).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        // A server that ended cuts the stream, in an error or not; the next watch goes on where this one was.
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(map) => {
                    version = map.metadata.resource_version.unwrap();
                    names.push(map.metadata.name.unwrap());
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => panic!("resuming after {version}: {status:?}"),
                other => panic!("nothing was changed or deleted: {other:?}"),
            }
            if names.last().is_some_and(|name| name == end) {
                return names;
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

#[test]
fn a_watch_goes_on_where_it_was_on_a_server_that_was_killed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let one = ServerProcess::start(&path("one"), &[]).unwrap();
    let mut two = one.join(&path("two"), &[]).unwrap();
    let _three = one.join(&path("three"), &[]).unwrap();

    let all = runtime.block_on(maps(&one));
    let list = runtime.block_on(all.list(&ListParams::default())).unwrap();
    let begin = list.metadata.resource_version.unwrap();
    let watched = runtime.block_on(maps(&two));
    let followed = runtime.spawn(follow(watched, begin.clone(), "end"));
    let writing = Arc::new(Writing::default());
    let writer = runtime.spawn({
        let (writing, kubeconfig) = (Arc::clone(&writing), one.kubeconfig());
        async move { write(client(&kubeconfig).await, 0, writing).await }
    });
    for _ in 0..2 {
        writing.goes_on();
        two.kill().unwrap();
        // Written while it is away.
        writing.goes_on();
        two = ServerProcess::start(&path("two"), &[]).unwrap();
    }
    writing.goes_on();
    writing.end();
    let (acknowledged, _) = runtime.block_on(writer).unwrap();
    assert!(acknowledged.len() > 20, "too few to say anything");
    let end = json!({"metadata": {"name": "end"}});
    let end: ConfigMap = serde_json::from_value(end).unwrap();
    let names = runtime.block_on(async {
        all.create(&PostParams::default(), &end).await.unwrap();
        timeout(Duration::from_secs(90), followed).await
    });
    let names = names.expect("everything is told").unwrap();
    // Each once, and in the order in which they were written: that of their revisions.
    let stored = runtime.block_on(all.list(&ListParams::default())).unwrap();
    let begin: u64 = begin.parse().unwrap();
    let mut stored: Vec<(u64, String)> = stored
        .items
        .into_iter()
        .filter_map(|map| {
            let version = map.metadata.resource_version?.parse().ok()?;
            (version > begin).then_some((version, map.metadata.name?))
        })
        .collect();
    stored.sort();
    let stored: Vec<String> = stored.into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, stored);
}

/// Bytes of one object: large, so that few writes are more than a slow client may have waiting.
const OBJECT_BYTES: usize = 900 << 10;
const OBJECTS: usize = 300;
const SLOW: usize = 20;
/// What the server may grow by beyond what the same writes cost it without slow clients: one queue of 16 MiB with what hangs
/// on its objects, and what an allocator keeps. What they do not read would be 270 MiB, kept once, and 5 GiB for each.
const GROWTH_MAX: u64 = 200 << 20;

fn resident_bytes(server: &ServerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// A watch whose answer nobody reads yet.
async fn open_watch(server: &ServerProcess, version: &str) -> http::Response<Body> {
    let path =
        format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={version}");
    let request = http::Request::get(path).body(Body::empty()).unwrap();
    // A client of its own has a connection of its own.
    let answer = client(&server.kubeconfig())
        .await
        .send(request)
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

#[test]
fn clients_that_do_not_read_cost_nobody_anything() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(&dir.path().join("one"), &[]).unwrap();
    let all = runtime.block_on(maps(&server));
    let map = |value: String| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "large"}, "data": {"v": value}}))
            .unwrap()
    };
    // What a new cluster makes by itself is not to be among what is counted.
    eventually("the namespace has its authority", || {
        Ok(runtime.block_on(all.get_opt("kube-root-ca.crt"))?)
    })
    .unwrap();
    let rewrite = |version: String| {
        let (all, map) = (all.clone(), &map);
        async move {
            let watched = all.watch(&WatchParams::default(), &version).await.unwrap();
            let quick = tokio::spawn(async move {
                let mut watched = std::pin::pin!(watched);
                for _ in 0..OBJECTS {
                    watched.try_next().await.unwrap().expect("it reads in time");
                }
            });
            let mut version = version;
            for number in 0..OBJECTS {
                let value = format!("{number}:{}", weft_tests::noise(number, OBJECT_BYTES));
                let changed = map(value);
                let written = all.replace("large", &PostParams::default(), &changed).await;
                version = written.unwrap().metadata.resource_version.unwrap();
            }
            let quick = timeout(Duration::from_secs(90), quick).await;
            quick.expect("whoever reads is told everything").unwrap();
            version
        }
    };
    let created = runtime.block_on(async {
        let empty = map(String::new());
        all.create(&PostParams::default(), &empty).await.unwrap()
    });
    // What the writes cost by themselves is not what is looked at: history, log and checkpoint have grown after this.
    let version = runtime.block_on(rewrite(created.metadata.resource_version.unwrap()));
    let before = resident_bytes(&server);
    let slow = runtime.block_on(async {
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            slow.push(open_watch(&server, &version).await);
        }
        rewrite(version).await;
        slow
    });
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("the server grew by {} MiB", grown >> 20);
    assert!(grown < GROWTH_MAX, "the server grew by {} MiB", grown >> 20);

    // What is read at last ends after a whole event, and says where to go on.
    for answer in slow {
        let bytes = runtime.block_on(async {
            timeout(Duration::from_secs(90), answer.into_body().collect_bytes()).await
        });
        let bytes = bytes.expect("it has an end").expect("a clean one");
        assert_eq!(bytes.last(), Some(&b'\n'), "a whole event");
        let events: Vec<Value> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert!(
            !events.is_empty() && events.len() < OBJECTS,
            "{}",
            events.len()
        );
        let mut told = events.iter().map(|event| {
            let value = event["object"]["data"]["v"].as_str();
            let value = value.unwrap_or_else(|| panic!("after {} events: {event}", events.len()));
            value.split(':').next().unwrap().parse::<usize>().unwrap()
        });
        assert!(
            told.by_ref().eq(0..events.len()),
            "none is missing before the end"
        );
    }
    // It is as it was for everybody else.
    eventually("a write", || {
        let value = map("after".to_owned());
        let written = runtime.block_on(all.replace("large", &PostParams::default(), &value));
        Ok(Some(written?))
    })
    .unwrap();
}
