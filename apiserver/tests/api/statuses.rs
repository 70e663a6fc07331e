//! What a write of the status makes of the metadata in its body, and what a node may say there.

use http::header;
use serde_json::{Value, json};

use crate::world::*;

/// Labels, annotations and owners of an object, and through which door each of its managers writes the metadata.
fn told(answer: &Answer) -> String {
    let metadata = &answer.body["metadata"];
    let owners = metadata["managedFields"].as_array().into_iter().flatten();
    let mut owners: Vec<String> = owners
        .filter_map(|owner| {
            let fields = owner["fieldsV1"]["f:metadata"].as_object()?;
            let fields: Vec<&str> = fields.keys().map(String::as_str).collect();
            let door = owner["subresource"].as_str().unwrap_or("-");
            Some(format!("{door} {}", fields.join(" ")))
        })
        .collect();
    owners.sort();
    format!(
        "{} labels {} annotations {} owners {} by [{}]",
        answer.status,
        metadata["labels"],
        metadata["annotations"],
        metadata["ownerReferences"].is_array(),
        owners.join(", "),
    )
}

const OWNED: &str = "ownerReferences";

fn said() -> Value {
    json!({
        "labels": {"app": "web", "by": "status"},
        "annotations": {"by": "status"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"}],
    })
}

#[tokio::test]
async fn metadata_is_taken_through_the_status_as_far_as_the_kind_takes_it() {
    let world = World::new().await;
    let cron = json!({
        "metadata": {"name": "c", "labels": {"app": "web"}},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "vote/web:1"}],
            }}}},
        },
    });
    let flow = json!({
        "metadata": {"name": "f", "labels": {"app": "web"}},
        "spec": {"priorityLevelConfiguration": {"name": "l"}},
    });
    let mut web = deployment(1);
    web["metadata"]["labels"] = json!({"app": "web"});
    let mut told_of = Vec::new();
    for (collection, object) in [
        (PODS, pod("p")),
        (DEPLOYMENTS, web),
        ("/apis/batch/v1/namespaces/default/cronjobs", cron),
        ("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", flow),
    ] {
        let made = world.ask(&format!("POST {collection}"), object).await;
        assert_eq!(made.status, 201, "{}", made.line());
        let name = made.body["metadata"]["name"].as_str().unwrap();
        let path = format!("{collection}/{name}/status");
        let patched = world
            .patch(&path, "merge-patch", json!({"metadata": said()}))
            .await;
        told_of.push(format!("patch {name}: {}", told(&patched)));
        // A replacement that says nothing of them takes them away.
        let mut bare = patched.body;
        for member in ["labels", "annotations", OWNED] {
            bare["metadata"].as_object_mut().unwrap().remove(member);
        }
        bare["spec"] = json!({"nonsense": 1});
        let put = world.ask(&format!("PUT {path}"), bare).await;
        told_of.push(format!("put {name}: {}", told(&put)));
        assert_eq!(put.body["spec"], made.body["spec"], "{name}");
    }
    insta::assert_snapshot!(told_of.join("\n"), @r#"
    patch p: 200 labels {"app":"web","by":"status"} annotations {"by":"status"} owners false by [- f:labels, status f:annotations f:labels]
    put p: 200 labels null annotations null owners false by []
    patch web: 200 labels {"app":"web"} annotations {"by":"status"} owners true by [- f:labels, status f:annotations f:ownerReferences]
    put web: 200 labels {"app":"web"} annotations null owners false by [- f:labels]
    patch c: 200 labels {"app":"web","by":"status"} annotations {"by":"status"} owners true by [- f:labels, status f:annotations f:labels f:ownerReferences]
    put c: 200 labels null annotations null owners false by []
    patch f: 200 labels {"app":"web"} annotations null owners false by [- f:labels]
    put f: 200 labels {"app":"web"} annotations null owners false by [- f:labels]
    "#);
}

#[tokio::test]
async fn labels_through_the_status_are_judged_as_any() {
    let world = World::new().await;
    world.ask(&format!("POST {PODS}"), pod("p")).await;
    let path = format!("{PODS}/p/status");
    let wrong = json!({"metadata": {"labels": {"a b": "c"}}});
    let refused = world.patch(&path, "merge-patch", wrong).await;
    insta::assert_snapshot!(refused.line(), @r#"422 Invalid: Pod "p" is invalid: metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#);
}

#[tokio::test]
async fn a_node_labels_neither_its_pods_nor_itself_through_the_status() {
    let world = World::new().await;
    let mut mine = pod("p");
    mine["spec"]["nodeName"] = "a".into();
    world.ask(&format!("POST {PODS}"), mine).await;
    let node = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux"}}});
    world.ask("POST /api/v1/nodes", node).await;
    let mut told = Vec::new();
    for (path, body) in [
        (
            format!("{PODS}/p/status"),
            json!({"metadata": {"annotations": {"a": "b"}}, "status": {"phase": "Running"}}),
        ),
        (
            format!("{PODS}/p/status"),
            json!({"metadata": {"labels": {"app": "other"}}}),
        ),
        (
            "/api/v1/nodes/a/status".to_owned(),
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y", "own": "z"}}}),
        ),
        (
            "/api/v1/nodes/a/status".to_owned(),
            json!({"metadata": {"labels": {"own": "z", "kubernetes.io/os": "other"}}}),
        ),
    ] {
        let headers = [
            (header::AUTHORIZATION, "Bearer node"),
            (header::CONTENT_TYPE, "application/merge-patch+json"),
        ];
        let mut request = world.request(&format!("PATCH {path}"), &headers[1..], &body.to_string());
        let token = header::HeaderValue::from_static(headers[0].1);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        told.push(world.send(request).await.line());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    200 Pod p
    403 Forbidden: pods "p" is forbidden: node "a" cannot update labels through pod status
    403 Forbidden: nodes "a" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x
    200 Node a
    "#);
}
