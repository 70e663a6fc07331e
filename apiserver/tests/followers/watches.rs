//! Lists and watches on servers that are behind, or were overtaken: nothing is told twice, left out, or of a state that is over.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{
    DeleteOptions, ListOptions, Page, WatchBounds, WatchEvent, WatchOptions, WriteOptions,
};

use crate::cluster::{Cluster, NS, admin, insisted, map};

fn names(page: &Page) -> Vec<String> {
    page.items
        .iter()
        .map(|item| item.name().to_owned())
        .collect()
}

/// A load balancer sends each page of a list to another server.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_begun_on_one_server_goes_on_on_another() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    for name in ["a", "b", "c"] {
        let created = leader.create(maps, NS, map(name, "1"), &options);
        created.await.unwrap();
    }
    let page = |token: Option<String>| ListOptions {
        limit: Some(2),
        continue_token: token,
        ..ListOptions::default()
    };

    // Begun on the leader at a revision that the follower has not heard of: it waits for it.
    cluster.follower.store().read().await.unwrap();
    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("d", "1"), &options);
    created.await.unwrap();
    let first = leader.list(maps, NS, &page(None)).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    let next = page(first.next.clone());
    let mut rest = std::pin::pin!(follower.list(maps, NS, &next));
    let early = tokio::time::timeout(Duration::from_millis(50), rest.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    let rest = rest.await.unwrap();
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!((rest.revision, rest.next), (first.revision, None));

    // Begun on the follower, continued on the leader after the rest was deleted there: the list shows one revision.
    let first = follower.list(maps, NS, &page(None)).await.unwrap();
    let now = DeleteOptions::default();
    for name in ["c", "d"] {
        leader.delete(maps, NS, name, &now).await.unwrap();
    }
    let rest = leader.list(maps, NS, &page(first.next.clone())).await;
    let rest = rest.unwrap();
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(rest.revision, first.revision);
    let anew = follower.list(maps, NS, &page(None)).await.unwrap();
    assert_eq!(names(&anew), ["a", "b"]);
}

/// A client that listed on one server watches on another, which is behind what it was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_revision_that_is_still_to_come_begins_there() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    // The follower has a cache of the kind, which is behind as well.
    follower
        .list(maps, NS, &ListOptions::default())
        .await
        .unwrap();
    let listing = async {
        leader.create(maps, NS, map("a", "1"), &options).await?;
        leader.list(maps, NS, &ListOptions::default()).await
    };
    cluster.follower.store().read().await.unwrap();
    cluster.behind.send_replace(true);
    let listed = listing.await.unwrap();
    assert!(listed.revision > cluster.follower.store().snapshot().revision());
    let from = WatchOptions {
        resource_version: Some(listed.revision),
        ..WatchOptions::default()
    };
    let mut watching = std::pin::pin!(follower.watch(maps, NS, from));
    let early = tokio::time::timeout(Duration::from_millis(50), watching.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    let mut watching = watching.await.unwrap();
    let created = leader.create(maps, NS, map("b", "1"), &options);
    created.await.unwrap();
    // What the list showed is not told again, and nothing is left out.
    match watching.next().await {
        Some(WatchEvent::Added(object)) => assert_eq!(object.name(), "b"),
        _ => panic!("an event of another type"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_tells_nothing_that_was_overtaken() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    let created = leader.create(maps, NS, map("m", "1"), &options);
    created.await.unwrap();
    let term = *cluster.leader.store().leadership().borrow();

    cluster.stalled.send_replace(true);
    // What comes to the others is taken by the leader that they choose.
    insisted(|| follower.update(maps, NS, map("m", "2"), &options)).await;
    let found = insisted(|| follower.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "2");

    // What was asked of the one that stands still, before it hears of that.
    let mut reading = std::pin::pin!(leader.get(maps, NS, "m"));
    let early = tokio::time::timeout(Duration::from_millis(50), reading.as_mut()).await;
    if let Ok(Ok(found)) = early {
        panic!("it told {} of its own", found.value());
    }
    cluster.stalled.send_replace(false);
    let found = insisted(|| leader.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "2");
    // A controller that acts for a leadership that is over writes nothing more.
    let deposed = Caller::system("deployment", term);
    let deposed = cluster.leader.client(&deposed);
    let written = deposed.update(maps, NS, map("m", "3"), &options).await;
    assert_eq!(written.unwrap_err().code, 503);
    insisted(|| leader.update(maps, NS, map("m", "4"), &options)).await;
    let found = insisted(|| follower.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "4");
}

/// How long anything may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a watcher of kube-rs tells next. Errors are its own to mend.
async fn told(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
) -> String {
    let text = |map: ConfigMap| {
        let value = map.data.unwrap_or_default().remove("k");
        let name = map.metadata.name.unwrap_or_default();
        format!("{name}={}", value.unwrap_or_default())
    };
    loop {
        let next = tokio::time::timeout(PATIENCE, events.next());
        match next.await.expect("an event in time") {
            Some(Ok(watcher::Event::Init) | Err(_)) => {}
            Some(Ok(watcher::Event::InitApply(map))) => return format!("listed {}", text(map)),
            Some(Ok(watcher::Event::InitDone)) => return "whole".to_owned(),
            Some(Ok(watcher::Event::Apply(map))) => return format!("applied {}", text(map)),
            Some(Ok(watcher::Event::Delete(map))) => return format!("deleted {}", text(map)),
            None => panic!("a watcher never ends"),
        }
    }
}

/// Up to the end of a list.
async fn listed(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match told(events).await {
            end if end == "whole" => return seen,
            other => seen.push(other),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_on_a_follower_is_told_each_change_once_however_late() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    for name in ["a", "b"] {
        let created = leader.create(maps, NS, map(name, "1"), &options);
        created.await.unwrap();
    }
    let (reflected, writer) = reflector::store();
    let events = watcher(cluster.kube(&cluster.follower), watcher::Config::default());
    let mut events = std::pin::pin!(events.default_backoff().reflect(writer));
    assert_eq!(listed(&mut events).await, ["listed a=1", "listed b=1"]);

    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("c", "1"), &options);
    created.await.unwrap();
    let updated = leader.update(maps, NS, map("a", "2"), &options);
    updated.await.unwrap();
    let deleted = DeleteOptions::default();
    leader.delete(maps, NS, "b", &deleted).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), told(&mut events)).await;
    assert!(early.is_err(), "it cannot know yet");
    // One that begins now lists what others were told, not what is here.
    let late = watcher(cluster.kube(&cluster.follower), watcher::Config::default());
    let mut late = std::pin::pin!(late.default_backoff());
    let early = tokio::time::timeout(Duration::from_millis(50), told(&mut late)).await;
    assert!(early.is_err(), "it cannot know yet");

    cluster.behind.send_replace(false);
    assert_eq!(listed(&mut late).await, ["listed a=2", "listed c=1"]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(told(&mut events).await);
    }
    assert_eq!(seen, ["applied c=1", "applied a=2", "deleted b=1"]);
    let state = reflected.state();
    let mut names: Vec<_> = state.iter().map(|map| map.metadata.name.clone()).collect();
    names.sort();
    assert_eq!(names, [Some("a".to_owned()), Some("c".to_owned())]);
}

/// A load balancer gives a client another server for its watch than for its list.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_of_another_server_are_waited_for_and_forgotten_ones_told_in_the_stream() {
    let cluster = Cluster::remembering(WatchBounds {
        history_changes_max: 4,
        queue_changes_max: 4,
        ..WatchBounds::default()
    })
    .await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    let created = leader.create(maps, NS, map("a", "1"), &options);
    created.await.unwrap();
    let (here, there) = (
        cluster.kube(&cluster.leader),
        cluster.kube(&cluster.follower),
    );
    let slept = watcher(there.clone(), watcher::Config::default());
    let mut slept = std::pin::pin!(slept.default_backoff());
    assert_eq!(listed(&mut slept).await, ["listed a=1"]);

    // Ahead of the follower: it begins, or answers, as soon as it is there.
    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("b", "1"), &options);
    created.await.unwrap();
    let listed_here = here.list(&ListParams::default()).await.unwrap();
    let revision = listed_here.metadata.resource_version.unwrap();
    let params = WatchParams::default();
    let mut watching = std::pin::pin!(there.watch(&params, &revision));
    let at = ListParams::default()
        .at(&revision)
        .matching(VersionMatch::NotOlderThan);
    let mut listing = std::pin::pin!(there.list(&at));
    let early = tokio::time::timeout(Duration::from_millis(50), watching.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    let early = tokio::time::timeout(Duration::from_millis(50), listing.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    assert_eq!(listing.await.unwrap().items.len(), 2);
    let mut watching = std::pin::pin!(watching.await.unwrap());
    let created = leader.create(maps, NS, map("c", "1"), &options);
    created.await.unwrap();
    // What the list showed is not told again, and nothing is left out.
    match watching.next().await {
        Some(Ok(kube::api::WatchEvent::Added(map))) => {
            assert_eq!(map.metadata.name.as_deref(), Some("c"));
        }
        other => panic!("{other:?}"),
    }

    // Behind all that the follower remembers: the answer is 200, and the stream says it.
    for value in 0..9 {
        let updated = leader.update(maps, NS, map("a", &format!("{value}x")), &options);
        updated.await.unwrap();
    }
    cluster.follower.store().read().await.unwrap();
    let anew = there.watch(&params, &revision).await;
    let mut anew = std::pin::pin!(anew.unwrap());
    match anew.next().await {
        Some(Ok(kube::api::WatchEvent::Error(status))) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("{other:?}"),
    }
    // And a watcher that slept over it lists again, once, by itself.
    let mut seen = vec![told(&mut slept).await];
    while !seen.last().unwrap().starts_with("listed ") {
        seen.push(told(&mut slept).await);
    }
    let mut again = seen.split_off(seen.len() - 1);
    again.extend(listed(&mut slept).await);
    assert_eq!(again, ["listed a=8x", "listed b=1", "listed c=1"]);
}
