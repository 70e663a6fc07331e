//! The servers of a cluster, and its backup.

use http::header;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_store::Store;

use crate::world::*;

#[tokio::test]
async fn servers_are_shown_and_changed_by_administrators() {
    let world = World::new().await;
    let list = world.get("/weft/v1/servers").await;
    assert_eq!(list.status, 200);
    assert_eq!(
        list.body["servers"],
        json!([{"id": 1, "peerAddress": "", "voter": true, "leader": true, "behind": 0}])
    );
    for (line, body, status, message) in [
        (
            "DELETE /weft/v1/servers/1",
            Value::Null,
            409,
            "it is the only server that votes",
        ),
        (
            "DELETE /weft/v1/servers/one",
            Value::Null,
            400,
            "is not the number of a server",
        ),
        (
            "POST /weft/v1/servers",
            json!({"peerAddress": "nowhere"}),
            400,
            "is not HOST:PORT",
        ),
        (
            "POST /weft/v1/servers",
            json!({"peerAddress": "127.0.0.1:6444"}),
            400,
            "is an address that only its own machine reaches",
        ),
        ("POST /weft/v1/servers", json!([]), 400, "is not usable"),
        (
            "POST /weft/v1/leader",
            json!({"to": 7}),
            409,
            "server 7 does not vote",
        ),
    ] {
        let answer = world.ask(line, body).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.contains(message), "{line}: {said}");
    }
    let mut request = world.request("GET /weft/v1/servers", &[], "");
    request.headers_mut().remove(header::AUTHORIZATION);
    assert_eq!(world.send(request).await.status, 403);

    let joined = world
        .ask(
            "POST /weft/v1/servers",
            json!({"peerAddress": "10.0.0.2:6444"}),
        )
        .await;
    assert_eq!(joined.body["id"], 2);
    assert_eq!(joined.body["clusterId"], "test");
    let key = joined.body["caKey"].as_str().unwrap();
    assert!(key.contains("PRIVATE KEY"));
    // What an earlier try left behind does not come back under its number.
    let again = world
        .ask(
            "POST /weft/v1/servers",
            json!({"peerAddress": "10.0.0.2:6444"}),
        )
        .await;
    assert_eq!(again.body["id"], 3);
}

#[tokio::test]
async fn a_backup_is_one_file_that_can_be_restored() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("kept", "1"))
        .await;
    let request = world.request("GET /weft/v1/backup", &[], "");
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    std::fs::write(&file, &bytes).unwrap();
    let config = weft_store::Config {
        cluster_id: "another".to_owned(),
        ..weft_store::Config::new(dir.path().join("store"))
    };
    let restored = weft_store::restore(&file, &config).unwrap();
    let snapshot = world.objects.store().snapshot();
    assert_eq!(restored.revision, snapshot.revision());
    let store = Store::open(config).await.unwrap();
    assert!(store.snapshot().revision() > snapshot.revision());
    // Nothing of it is left where it was sent from.
    let left = std::fs::read_dir(world.dir.path()).unwrap().flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().starts_with("backup-"));
    assert_eq!(left.count(), 0);
    store.shutdown().await;
}
