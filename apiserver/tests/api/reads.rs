//! Watches, pages, tables and the informer.

use http::header;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_apiserver::objects::{Change, WatchBounds};

use crate::world::*;

#[tokio::test]
async fn watches_tell_each_change_once_through_their_selection() {
    let world = World::new().await;
    let post = format!("POST {MAPS}");
    world.ask(&post, config_map("a", "1")).await;
    world.ask(&post, config_map("b", "2")).await;
    let listed = world.get(MAPS).await;
    let version = listed.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();

    let mut all = world.watch(&format!("{MAPS}?watch=true")).await;
    let mut ones = world
        .watch(&format!("{MAPS}?watch=1&labelSelector=v%3D1"))
        .await;
    let mut from = world
        .watch(&format!("{MAPS}?watch=true&resourceVersion={version}"))
        .await;
    let mut with_end = world
        .watch(&format!("{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Db"))
        .await;
    let label = |v: &str| json!({"metadata": {"labels": {"v": v}}});
    world
        .patch(&format!("{MAPS}/a"), "merge-patch", label("3"))
        .await;
    world
        .patch(&format!("{MAPS}/b"), "merge-patch", label("1"))
        .await;
    world.ask(&format!("DELETE {MAPS}/b"), Value::Null).await;

    let told = [
        format!("all: {}", all.told(5).await),
        format!("v=1: {}", ones.told(4).await),
        format!("from: {}", from.told(3).await),
        format!("b: {}", with_end.told(4).await),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    all: ADDED a 1, ADDED b 2, MODIFIED a 3, MODIFIED b 1, DELETED b 1
    v=1: ADDED a 1, DELETED a 1, ADDED b 1, DELETED b 1
    from: MODIFIED a 3, MODIFIED b 1, DELETED b 1
    b: ADDED b 2, BOOKMARK -, MODIFIED b 1, DELETED b 1
    "#);

    let malformed = world
        .get(&format!("{MAPS}?watch=true&sendInitialEvents=true"))
        .await;
    assert_eq!(malformed.status, 422);
    // A watch ends by itself at the client's time, with a bookmark that says how far it was.
    let mut short = world
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true"
        ))
        .await;
    assert!(short.told(4).await.ends_with("BOOKMARK -"));
    assert!(short.next().await.is_none());
}

#[tokio::test]
async fn pages_show_one_revision() {
    // So short that it does not lead back to the forged revision below; what it leads back to needs nobody to keep it.
    let world = World::with(Setup {
        watch: WatchBounds {
            history_changes_max: 3,
            ..WatchBounds::default()
        },
        ..Setup::default()
    })
    .await;
    for name in ["a", "b", "c", "d", "e"] {
        world
            .ask(&format!("POST {MAPS}"), config_map(name, "1"))
            .await;
    }
    let first = world.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(first.line(), "200 ConfigMapList [a b]");
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    world.ask(&format!("DELETE {MAPS}/d"), Value::Null).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let second = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(second.line(), "200 ConfigMapList [c d]");
    assert_eq!(
        second.body["metadata"]["resourceVersion"],
        first.body["metadata"]["resourceVersion"]
    );
    let token = second.body["metadata"]["continue"].as_str().unwrap();
    let third = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(third.line(), "200 ConfigMapList [e]");
    assert!(third.body["metadata"]["continue"].is_null());
    // A snapshot nobody kept: 410, with a token to go on without consistency.
    let forged = "eyJydiI6MSwic3RhcnQiOiIvY29yZS9jb25maWdtYXBzL2RlZmF1bHQvYyJ9";
    let expired = world
        .get(&format!("{MAPS}?limit=2&continue={forged}"))
        .await;
    assert_eq!(
        (expired.status, &expired.body["reason"]),
        (410, &json!("Expired"))
    );
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(rest.line(), "200 ConfigMapList [e]");
    let all = world
        .ask(&format!("DELETE {MAPS}?labelSelector=v%3D1"), Value::Null)
        .await;
    assert_eq!(all.line(), "200 ConfigMapList [a b c e]");
    assert_eq!(world.get(MAPS).await.line(), "200 ConfigMapList []");
}

#[tokio::test]
async fn tables_are_what_kubectl_prints() {
    let world = World::new().await;
    world.ask(&format!("POST {PODS}"), pod("p")).await;
    world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(3))
        .await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.43.9.9", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.ask(&format!("POST {SERVICES}"), service).await;
    let mut told = Vec::new();
    for path in [PODS, DEPLOYMENTS, SERVICES, "/api/v1/namespaces/default"] {
        let mut table = world.table(path).await;
        for row in table.body["rows"].as_array_mut().unwrap() {
            assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
            for cell in row["cells"].as_array_mut().unwrap() {
                // Ages depend on the clock.
                if cell
                    .as_str()
                    .is_some_and(|text| text.len() == 2 && text.ends_with('s'))
                {
                    *cell = "AGE".into();
                }
            }
        }
        told.push(table.line());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    200 ["p","0/1","Pending","0","AGE","<none>","<none>","<none>","<none>"]
    200 ["web","0/3",0,0,"AGE","c","vote/web:1","app=web"]
    200 ["web","ClusterIP","10.43.9.9","<none>","80/TCP","AGE","app=web"]
    200 ["default","Active","AGE"]
    "#);

    let request = world.request(
        &format!("GET {PODS}?watch=true"),
        &[(header::ACCEPT, TABLE)],
        "",
    );
    let response = world.router.clone().oneshot(request).await.unwrap();
    let mut lines = Lines {
        body: response.into_body(),
        rest: Vec::new(),
    };
    let event = lines.next().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "p");
}

#[tokio::test]
async fn the_informer_lists_then_follows() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let mut informer = world
        .objects
        .informer(|kind| matches!(&*kind.resource, "configmaps" | "pods"));
    let mut told = Vec::new();
    for step in 0..7 {
        if step == 3 {
            world.ask(&format!("POST {PODS}"), pod("p")).await;
            world
                .ask(
                    &format!("POST {SERVICES}"),
                    json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}),
                )
                .await;
            world
                .patch(
                    &format!("{MAPS}/a"),
                    "merge-patch",
                    json!({"data": {"k": "2"}}),
                )
                .await;
            world.ask(&format!("DELETE {MAPS}/a"), Value::Null).await;
            world.ask(&format!("DELETE {PODS}/p"), Value::Null).await;
        }
        told.push(match informer.next().await.unwrap() {
            Change::Reset => "reset".to_owned(),
            Change::Synced { .. } => "synced".to_owned(),
            Change::Upsert { kind, object } => format!("{}/{}", kind.resource, object.name()),
            Change::Delete { kind, object } => format!("-{}/{}", kind.resource, object.name()),
        });
    }
    assert_eq!(
        told.join(" "),
        "reset configmaps/a synced pods/p configmaps/a -configmaps/a -pods/p"
    );
}
