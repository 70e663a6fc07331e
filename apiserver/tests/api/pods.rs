//! Pods from their creation to their end.

use http::header;
use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn a_pod_lives_and_dies() {
    let world = World::new().await;
    let created = world.ask(&format!("POST {PODS}"), pod("p")).await;
    assert_eq!(created.status, 201);
    let spec = &created.body["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(created.body["status"]["phase"], "Pending");
    assert_eq!(created.body["metadata"]["generation"], 1);
    let version = created.body["metadata"]["resourceVersion"].clone();

    let one = format!("{PODS}/p");
    let put = format!("PUT {one}");
    let mut moved = created.body.clone();
    moved["spec"]["restartPolicy"] = "Never".into();
    let mut unchanged = created.body.clone();
    unchanged["status"] = json!({"phase": "Running"});
    let mut lines = vec![
        world.ask(&format!("POST {PODS}"), pod("p")).await.line(),
        world.ask(&put, moved).await.line(),
    ];
    // Writing the same again stores nothing, and the main resource ignores status.
    let again = world.ask(&put, unchanged).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], version);
    assert_eq!(again.body["status"]["phase"], "Pending");

    let labelled = world
        .patch(
            &one,
            "merge-patch",
            json!({"metadata": {"labels": {"v": "1"}}}),
        )
        .await;
    lines.push(labelled.line());
    assert_eq!(labelled.body["metadata"]["generation"], 1);
    let mut stale = created.body.clone();
    stale["metadata"]["labels"] = json!({"v": "2"});
    lines.push(world.ask(&put, stale).await.line());
    let test = json!([{"op": "test", "path": "/metadata/labels/v", "value": "9"}]);
    lines.push(world.patch(&one, "json-patch", test).await.line());
    let apply = world.request(
        &format!("PATCH {one}"),
        &[(header::CONTENT_TYPE, "application/apply-patch+yaml")],
        "{}",
    );
    lines.push(world.send(apply).await.line());

    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let bind = format!("POST {one}/binding");
    // Decided for a predecessor of that name, or for an earlier state of it.
    let mut stale = binding.clone();
    stale["metadata"] = json!({"uid": "predecessor"});
    let refused = world.ask(&bind, stale.clone()).await.line();
    let uid = created.body["metadata"]["uid"].as_str().unwrap();
    lines.push(refused.replace(uid, "UID"));
    stale["metadata"] = json!({"uid": uid, "resourceVersion": "1"});
    lines.push(world.ask(&bind, stale).await.line());
    let mut binding = binding;
    binding["metadata"] = json!({"uid": uid});
    lines.push(world.ask(&bind, binding.clone()).await.line());
    lines.push(world.ask(&bind, binding).await.line());
    let running = world
        .patch(
            &format!("{one}/status"),
            "strategic-merge-patch",
            json!({"status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(running.body["status"]["phase"], "Running");
    assert_eq!(running.body["spec"]["nodeName"], "n1");
    // Its node is nothing that somebody asked of it.
    assert_eq!(running.body["metadata"]["generation"], 1);

    // Bound to a node: deletion waits for it, may be hastened, and ends with grace 0.
    let marked = world.ask(&format!("DELETE {one}"), Value::Null).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    let wrong_uid = json!({"preconditions": {"uid": "other"}});
    let refused = world.ask(&format!("DELETE {one}"), wrong_uid).await.line();
    lines.push(refused.replace(uid, "UID"));
    let sooner = world
        .ask(&format!("DELETE {one}?gracePeriodSeconds=5"), Value::Null)
        .await;
    assert_eq!(sooner.body["metadata"]["deletionGracePeriodSeconds"], 5);
    let later = world
        .ask(&format!("DELETE {one}?gracePeriodSeconds=50"), Value::Null)
        .await;
    assert_eq!(later.body["metadata"]["deletionGracePeriodSeconds"], 5);
    lines.push(
        world
            .ask(&format!("DELETE {one}"), json!({"gracePeriodSeconds": 0}))
            .await
            .line(),
    );
    lines.push(world.get(&one).await.line());
    insta::assert_snapshot!(lines.join("\n"), @r#"
    409 AlreadyExists: pods "p" already exists
    422 Invalid: Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
    200 Pod p
    409 Conflict: Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the latest version and try again
    422 Invalid: the server rejected our request due to an error in our request: operation '/0' failed at path '/metadata/labels/v': value did not match: testing value at /metadata/labels/v
    422 Invalid: PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch
    409 Conflict: Operation cannot be fulfilled on pods "p": Precondition failed: UID in precondition: predecessor, UID in object meta: UID
    409 Conflict: Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the latest version and try again
    201 Success
    409 Conflict: Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"
    409 Conflict: Operation cannot be fulfilled on Pod "p": the UID in the precondition (other) does not match the UID in record (UID). The object might have been deleted and then recreated
    200 Pod p
    404 NotFound: pods "p" not found
    "#);
}

/// The node pulls with what the pod names, and an account is how an administrator names it for all.
#[tokio::test]
async fn a_pod_takes_the_pull_secrets_of_its_account_unless_it_has_its_own() {
    let world = World::new().await;
    let accounts = "POST /api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "hub"}, {"name": "ghcr"}]});
    world.ask(accounts, account).await;
    world
        .ask(accounts, json!({"metadata": {"name": "plain"}}))
        .await;
    for (name, account, own, expected) in [
        (
            "a",
            "puller",
            json!([]),
            json!([{"name": "hub"}, {"name": "ghcr"}]),
        ),
        (
            "b",
            "puller",
            json!([{"name": "mine"}]),
            json!([{"name": "mine"}]),
        ),
        ("c", "plain", json!([]), Value::Null),
        // Nobody has made it yet.
        ("d", "default", json!([]), Value::Null),
    ] {
        let mut pod = pod(name);
        pod["spec"]["serviceAccountName"] = account.into();
        if own != json!([]) {
            pod["spec"]["imagePullSecrets"] = own;
        }
        let created = world.ask(&format!("POST {PODS}"), pod).await;
        assert_eq!(created.status, 201, "{}", created.line());
        assert_eq!(created.body["spec"]["imagePullSecrets"], expected, "{name}");
    }
}

#[tokio::test]
async fn a_finalizer_holds_a_pod_that_its_node_has_let_go_of() {
    let world = World::new().await;
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
    held["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), held).await;
    let one = format!("{PODS}/held");
    let marked = world.ask(&format!("DELETE {one}"), Value::Null).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    // The node is done with it: it waits for nothing but the finalizer.
    let now = json!({"gracePeriodSeconds": 0});
    for _ in 0..2 {
        let let_go = world.ask(&format!("DELETE {one}"), now.clone()).await;
        assert_eq!(let_go.status, 200, "{}", let_go.line());
        assert_eq!(let_go.body["metadata"]["deletionGracePeriodSeconds"], 0);
    }
    let remove = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["batch.kubernetes.io/job-tracking"]}});
    let removed = world.patch(&one, "strategic-merge-patch", remove).await;
    assert_eq!(removed.status, 200, "{}", removed.line());
    assert_eq!(world.get(&one).await.status, 404);
}
