//! Selectors of versions that a webhook makes.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn selectors_look_at_the_version_that_is_asked_for() {
    // In v1 a pot has `hostPort`, in v2 `host` and `port`.
    let hook = Hook::start(&["127.0.0.1"], |review| {
        let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap();
        let objects = review["request"]["objects"].as_array().unwrap().iter();
        let made = objects.map(|object| {
            let mut made = object.clone();
            let map = made.as_object_mut().unwrap();
            if wanted == "example.com/v2" {
                let both = map.remove("hostPort").unwrap_or_default();
                let (host, port) = both
                    .as_str()
                    .unwrap_or("")
                    .split_once(':')
                    .unwrap_or_default();
                map.insert("host".to_owned(), host.into());
                map.insert("port".to_owned(), port.into());
            } else {
                let mut part = |name: &str| {
                    let part = map.remove(name).unwrap_or_default();
                    part.as_str().unwrap_or("").to_owned()
                };
                let both = format!("{}:{}", part("host"), part("port"));
                map.insert("hostPort".to_owned(), both.into());
            }
            made["metadata"]["labels"]["seen"] = wanted.replace('/', ".").into();
            made["apiVersion"] = wanted.into();
            made
        });
        success(made.collect())
    })
    .await;
    let world = serving().await;
    let mut definition = gadgets(&hook.client_config(), &json!(["v1"]));
    for (place, fields) in [(0, &["hostPort"][..]), (1, &["host", "port"])] {
        let version = &mut definition["spec"]["versions"][place];
        version["subresources"] = json!({});
        let texts = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({ "type": "string" })));
        let texts: serde_json::Map<String, Value> = texts.collect();
        version["schema"]["openAPIV3Schema"]["properties"] = texts.into();
        version["selectableFields"] = fields
            .iter()
            .map(|field| json!({ "jsonPath": format!(".{field}") }))
            .collect();
    }
    establish(&world, definition).await;
    let watch = async |version: &str, selector: &str| {
        let path = format!("{}?watch=true&fieldSelector={selector}", at(version));
        world.watch(&path).await
    };
    let mut by_host = watch("v2", "host=one").await;
    let mut by_both = watch("v2", "host=one,port=80").await;
    let mut old = watch("v1", "hostPort=one:80").await;
    for (name, host, port) in [("a", "one", "80"), ("b", "one", "8080"), ("c", "two", "80")] {
        let body = json!({ "apiVersion": "example.com/v2", "kind": "Gadget", "metadata": { "name": name }, "host": host, "port": port });
        let made = world.ask(&format!("POST {}", at("v2")), body).await;
        assert_eq!(made.status, 201, "{}", made.line());
    }
    let list = async |version: &str, query: &str| {
        let listed = world.get(&format!("{}?{query}", at(version))).await;
        listed.line()
    };
    for (version, query, expected) in [
        ("v2", "fieldSelector=host=one", "200 GadgetList [a b]"),
        ("v2", "fieldSelector=host=one,port=80", "200 GadgetList [a]"),
        ("v2", "fieldSelector=host!=one", "200 GadgetList [c]"),
        (
            "v2",
            "fieldSelector=metadata.name=b,host=one",
            "200 GadgetList [b]",
        ),
        (
            "v2",
            "labelSelector=seen=example.com.v2",
            "200 GadgetList [a b c]",
        ),
        (
            "v2",
            "labelSelector=seen=example.com.v1",
            "200 GadgetList []",
        ),
        (
            "v1",
            "labelSelector=seen=example.com.v1",
            "200 GadgetList [a b c]",
        ),
        (
            "v1",
            "fieldSelector=hostPort=one:8080",
            "200 GadgetList [b]",
        ),
        (
            "v1",
            "fieldSelector=host=one",
            "400 BadRequest: field label not supported: host",
        ),
    ] {
        assert_eq!(list(version, query).await, expected, "{version} {query}");
    }
    // Pages are of what is meant.
    let first = world
        .get(&format!("{}?fieldSelector=host=one&limit=1", at("v2")))
        .await;
    assert_eq!(first.line(), "200 GadgetList [a]");
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let query = format!("fieldSelector=host=one&limit=1&continue={token}");
    let second = world.get(&format!("{}?{query}", at("v2"))).await;
    assert_eq!(second.line(), "200 GadgetList [b]");
    // As kube-apiserver says it of kinds of users.
    assert_eq!(second.body["metadata"]["continue"], "");

    let path = format!("DELETE {}?fieldSelector=host=one,port=80", at("v2"));
    assert_eq!(world.ask(&path, Value::Null).await.status, 200);
    let path = format!("{}/b", at("v2"));
    let moved = world
        .patch(&path, "merge-patch", json!({ "host": "two" }))
        .await;
    assert_eq!(moved.status, 200, "{}", moved.line());
    let back = world
        .patch(&path, "merge-patch", json!({ "host": "one", "port": "80" }))
        .await;
    assert_eq!(back.status, 200, "{}", back.line());
    let mut told = Vec::new();
    for (watch, count) in [(&mut by_host, 5), (&mut by_both, 3), (&mut old, 3)] {
        told.push(watch.told(count).await);
    }
    assert_eq!(
        told,
        [
            "ADDED a, ADDED b, DELETED a, DELETED b, ADDED b",
            "ADDED a, DELETED a, ADDED b",
            "ADDED a, DELETED a, ADDED b",
        ]
    );
}
