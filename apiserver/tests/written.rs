//! Objects as people write them: names that the server completes, and amounts in any spelling.

mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::name;

use self::world::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
/// Five letters tell some fourteen million names apart: among so many, one is drawn twice in every other run.
const CLIENTS: usize = 20;
const OBJECTS_EACH: usize = 200;

#[tokio::test]
async fn generated_names_are_short_sound_and_never_taken() {
    let world = Arc::new(World::new().await);
    let post = format!("POST {MAPS}");
    let made = async |prefix: &str| {
        let answer = world
            .ask(&post, json!({"metadata": {"generateName": prefix}}))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.line());
        answer.body["metadata"]["name"].as_str().unwrap().to_owned()
    };
    for prefix in ["x-", "dotted.x", &"a".repeat(58), &"a".repeat(63)] {
        let name = made(prefix).await;
        let kept = &prefix[..prefix.len().min(58)];
        assert!(name.starts_with(kept), "{name}");
        assert_eq!(name.len(), kept.len() + 5, "{name}");
        assert_eq!(name::dns1123_subdomain(&name), Ok(()), "{name}");
    }
    // The part before the random letters has to be a name itself, but for a dash at its end.
    let dotted = json!({"metadata": {"generateName": "dotted."}});
    assert_eq!(world.ask(&post, dotted).await.status, 422);
    // Who names his object has the last word.
    let both = json!({"metadata": {"generateName": "x-", "name": "mine"}});
    let named = world.ask(&post, both.clone()).await;
    assert_eq!(named.line(), "201 ConfigMap mine");
    assert_eq!(world.ask(&post, both).await.status, 409);

    let clients = (0..CLIENTS).map(|_| {
        let (world, post) = (world.clone(), post.clone());
        tokio::spawn(async move {
            let mut names = Vec::new();
            for _ in 0..OBJECTS_EACH {
                let object = json!({"metadata": {"generateName": "many-"}});
                let answer = world.ask(&post, object).await;
                assert_eq!(answer.status, 201, "{}", answer.line());
                names.push(answer.body["metadata"]["name"].to_string());
            }
            names
        })
    });
    let mut names = BTreeSet::new();
    for client in clients.collect::<Vec<_>>() {
        names.extend(client.await.unwrap());
    }
    assert_eq!(names.len(), CLIENTS * OBJECTS_EACH);
}

#[tokio::test]
async fn amounts_come_back_as_text_in_one_spelling() {
    let world = World::new().await;
    let pod = |name: &str, resource: &str, amount: &Value| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i:1", "resources": {"limits": {resource: amount}}}
        ]}})
    };
    for (number, (resource, written, read)) in [
        ("cpu", json!(1), "1"),
        ("cpu", json!(0.5), "500m"),
        ("cpu", json!("0.5"), "500m"),
        ("cpu", json!("1e-1"), "100e-3"),
        ("cpu", json!(".5"), "500m"),
        ("memory", json!("1.5Gi"), "1536Mi"),
        ("memory", json!("2.7Gi"), "2899102924800m"),
        ("memory", json!("1e9"), "1e9"),
        ("memory", json!(1_073_741_824), "1073741824"),
        ("memory", json!("128974848000m"), "128974848"),
        ("memory", json!("512m"), "512m"),
        ("memory", json!("64M"), "64M"),
        ("memory", json!("0.001Mi"), "1048576m"),
        ("memory", json!("+1Gi"), "+1Gi"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("p{number}");
        let made = world
            .ask(&format!("POST {PODS}"), pod(&name, resource, &written))
            .await;
        assert_eq!(made.status, 201, "{written}: {}", made.line());
        let stored = world.get(&format!("{PODS}/{name}")).await.body;
        let resources = &stored["spec"]["containers"][0]["resources"];
        // What is not requested is requested as it is limited.
        for which in ["limits", "requests"] {
            assert_eq!(resources[which][resource], read, "{written} {which}");
        }
    }
    for written in ["1 Gi", "1gi", "", "Gi"] {
        let refused = world
            .ask(
                &format!("POST {PODS}"),
                pod("bad", "memory", &json!(written)),
            )
            .await;
        assert_eq!(refused.status, 400, "{written}: {}", refused.line());
        assert!(
            refused
                .line()
                .contains("quantities must match the regular expression"),
            "{}",
            refused.line()
        );
    }
}
