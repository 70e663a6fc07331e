//! The API as clients meet it: requests into the router, answers out, on a store in a temporary folder.
//!
//! Each test is a short conversation; what it proves is written as the text of the answers.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_apiserver::objects::{Change, WatchBounds};
use weft_store::Store;

use self::world::*;

#[tokio::test]
async fn refusals_have_kubernetes_words() {
    let world = World::new().await;
    let post_pods = format!("POST {PODS}");
    let post_web = format!("POST {DEPLOYMENTS}");
    let mut two_names = pod("two");
    two_names["spec"]["containers"] =
        json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]);
    let mut mismatch = deployment(1);
    mismatch["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let mut typed = deployment(1);
    typed["spec"]["replicas"] = "three".into();
    let mut misspelt = deployment(1);
    misspelt["spec"]["replcas"] = 1.into();
    let strict = format!("{post_web}?fieldValidation=Strict");
    let told = world
        .transcript(&[
            ("GET /api/v1/namespaces/default/pods/x", Value::Null),
            ("GET /api/v1/nonsense", Value::Null),
            (
                "GET /apis/apps/v1/namespaces/default/deployments/web",
                Value::Null,
            ),
            ("POST /api/v1/namespaces/nowhere/pods", pod("p")),
            (&post_pods, pod("Bad_Name")),
            (&post_pods, json!({"metadata": {"name": "p"}, "spec": {}})),
            (&post_pods, two_names),
            (&post_pods, deployment(1)),
            (&post_web, deployment(-1)),
            (&post_web, mismatch),
            (&post_web, typed),
            (&strict, misspelt),
            (
                "GET /api/v1/pods?fieldSelector=spec.colour%3Dred",
                Value::Null,
            ),
            ("GET /api/v1/pods?resourceVersion=99999999", Value::Null),
            ("PUT /api/v1/pods", Value::Null),
            ("DELETE /api/v1/namespaces/default", Value::Null),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    404 NotFound: pods "x" not found
    404 NotFound: the server could not find the requested resource
    404 NotFound: deployments.apps "web" not found
    404 NotFound: namespaces "nowhere" not found
    422 Invalid: Pod "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
    422 Invalid: Pod "p" is invalid: spec.containers: Required value
    422 Invalid: Pod "two" is invalid: spec.containers[1].name: Duplicate value: "c"
    400 BadRequest: the object provided is apps/v1, Kind=Deployment, but this URL takes v1, Kind=Pod
    422 Invalid: Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
    422 Invalid: Deployment.apps "web" is invalid: spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`
    400 BadRequest: Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32
    400 BadRequest: Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.replcas"
    400 BadRequest: field label not supported: spec.colour
    504 Timeout: Timeout: Too large resource version: 99999999, current: 5
    405 MethodNotAllowed: the server does not allow this method on the requested resource
    403 Forbidden: namespaces "default" is forbidden: this namespace may not be deleted
    "#);
}

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
    415 UnsupportedMediaType: server-side apply is not served yet: apply without --server-side
    409 Conflict: Operation cannot be fulfilled on pods "p": Precondition failed: UID in precondition: predecessor, UID in object meta: UID
    409 Conflict: Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the latest version and try again
    201 Success
    409 Conflict: Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"
    409 Conflict: Operation cannot be fulfilled on pods "p": Precondition failed: UID in precondition: other, UID in object meta: UID
    200 Pod p
    404 NotFound: pods "p" not found
    "#);
}

#[tokio::test]
async fn generation_counts_desired_state_only() {
    let world = World::new().await;
    let one = format!("{DEPLOYMENTS}/web");
    world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(1))
        .await;
    let mut told = Vec::new();
    let mut note = |what: &str, answer: &Answer| {
        told.push(format!(
            "{what}: {} generation {} replicas {}",
            answer.status, answer.body["metadata"]["generation"], answer.body["spec"]["replicas"]
        ));
    };
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1}});
    note(
        "status",
        &world
            .patch(&format!("{one}/status"), "merge-patch", status)
            .await,
    );
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    note("label", &world.patch(&one, "merge-patch", label).await);
    let ignored = json!({"status": {"readyReplicas": 9}, "spec": {"replicas": 2}});
    let both = world.patch(&one, "merge-patch", ignored).await;
    note("spec", &both);
    assert_eq!(both.body["status"]["readyReplicas"], 1);
    let scale = world
        .patch(
            &format!("{one}/scale"),
            "merge-patch",
            json!({"spec": {"replicas": 5}}),
        )
        .await;
    note("scale", &scale);
    assert_eq!(scale.body["kind"], "Scale");
    assert_eq!(scale.body["status"]["selector"], "app=web");
    note("after", &world.get(&one).await);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "vote/web:2"}]}}}});
    let set = world.patch(&one, "strategic-merge-patch", image).await;
    note("image", &set);
    assert_eq!(
        set.body["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}});
    assert_eq!(world.patch(&one, "merge-patch", selector).await.status, 422);
    insta::assert_snapshot!(told.join("\n"), @r#"
    status: 200 generation 1 replicas 1
    label: 200 generation 1 replicas 1
    spec: 200 generation 2 replicas 2
    scale: 200 generation null replicas 5
    after: 200 generation 3 replicas 5
    image: 200 generation 4 replicas 5
    "#);
}

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
    200 ["web","0/3","0","0","AGE","c","vote/web:1","app=web"]
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
async fn services_get_addresses_of_their_own() {
    let world = World::new().await;
    let service = |name: String| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let post = format!("POST {SERVICES}");
    let created = futures::future::join_all(
        (0..20).map(|index| world.ask(&post, service(format!("s{index}")))),
    )
    .await;
    let addresses: std::collections::BTreeSet<String> = created
        .iter()
        .map(|answer| {
            answer.body["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 20);
    assert!(
        addresses
            .iter()
            .all(|address| address.starts_with("10.43."))
    );

    let taken = addresses.first().unwrap();
    let mut wanted = service("wanted".to_owned());
    wanted["spec"]["clusterIP"] = taken.as_str().into();
    let refused = world.ask(&post, wanted.clone()).await;
    assert_eq!(
        refused.line(),
        format!(
            r#"422 Invalid: Service "wanted" is invalid: spec.clusterIPs: Invalid value: ["{taken}"]: failed to allocate IP {taken}: provided IP is already allocated"#
        )
    );
    let holder = created
        .iter()
        .find(|answer| answer.body["spec"]["clusterIP"] == taken.as_str())
        .unwrap();
    let holder = holder.body["metadata"]["name"].as_str().unwrap();
    world
        .ask(&format!("DELETE {SERVICES}/{holder}"), Value::Null)
        .await;
    assert_eq!(world.ask(&post, wanted.clone()).await.status, 201);
    // An update that leaves the address out keeps it; one that changes it is refused.
    let kept = world
        .ask(
            &format!("PUT {SERVICES}/wanted"),
            service("wanted".to_owned()),
        )
        .await;
    assert_eq!(kept.body["spec"]["clusterIP"], taken.as_str());
    let moved = json!({"spec": {"clusterIP": "10.43.200.200"}});
    assert_eq!(
        world
            .patch(&format!("{SERVICES}/wanted"), "merge-patch", moved)
            .await
            .status,
        422
    );
    let mut node_port = service("np".to_owned());
    node_port["spec"]["type"] = "NodePort".into();
    let node_port = world.ask(&post, node_port).await;
    let number = node_port.body["spec"]["ports"][0]["nodePort"].clone();
    assert!(number.as_i64().unwrap() >= 30000);
    // A load balancer that wants none has those it names, if they are free.
    let mut balancer = service("lb".to_owned());
    balancer["spec"]["type"] = "LoadBalancer".into();
    balancer["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    balancer["spec"]["ports"] =
        json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": number}]);
    let refused = world.ask(&post, balancer.clone()).await;
    assert_eq!(
        refused.line(),
        format!(
            r#"422 Invalid: Service "lb" is invalid: spec.ports[1].nodePort: Invalid value: {number}: provided port is already allocated"#
        )
    );
    balancer["spec"]["ports"][1]["nodePort"] = 32767.into();
    let balancer = world.ask(&post, balancer).await;
    let ports = &balancer.body["spec"]["ports"];
    assert_eq!(
        (
            balancer.status,
            &ports[0]["nodePort"],
            &ports[1]["nodePort"]
        ),
        (201, &Value::Null, &json!(32767))
    );
}

#[tokio::test]
async fn namespaces_end_through_their_finalizer_and_objects_through_theirs() {
    let world = World::new().await;
    let namespace = json!({"metadata": {"name": "team"}});
    let held = json!({"metadata": {"name": "held", "finalizers": ["weft.dev/test"]}});
    let team_maps = "POST /api/v1/namespaces/team/configmaps";
    let mut told = vec![
        world.ask("POST /api/v1/namespaces", namespace).await.line(),
        world.ask(team_maps, held).await.line(),
        world
            .ask("DELETE /api/v1/namespaces/team", Value::Null)
            .await
            .line(),
        world.ask(team_maps, config_map("late", "1")).await.line(),
        world
            .ask(
                "DELETE /api/v1/namespaces/team/configmaps/held",
                Value::Null,
            )
            .await
            .line(),
    ];
    let held = "/api/v1/namespaces/team/configmaps/held";
    let add = json!({"metadata": {"finalizers": ["weft.dev/test", "weft.dev/more"]}});
    told.push(world.patch(held, "merge-patch", add).await.line());
    let remove = json!({"metadata": {"finalizers": null}});
    told.push(world.patch(held, "merge-patch", remove).await.line());
    told.push(world.get(held).await.line());
    let finalize = json!({"metadata": {"name": "team"}, "spec": {"finalizers": []}});
    told.push(
        world
            .ask("PUT /api/v1/namespaces/team/finalize", finalize)
            .await
            .line(),
    );
    told.push(world.get("/api/v1/namespaces/team").await.line());
    insta::assert_snapshot!(told.join("\n"), @r#"
    201 Namespace team
    201 ConfigMap held
    200 Namespace team
    403 Forbidden: configmaps "late" is forbidden: unable to create new content in namespace team because it is being terminated
    200 ConfigMap held
    422 Invalid: ConfigMap "held" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ["weft.dev/more"]
    200 ConfigMap held
    404 NotFound: configmaps "held" not found
    200 Namespace team
    404 NotFound: namespaces "team" not found
    "#);

    let foreground = json!({"propagationPolicy": "Foreground"});
    world
        .ask(&format!("POST {MAPS}"), config_map("owner", "1"))
        .await;
    let marked = world.ask(&format!("DELETE {MAPS}/owner"), foreground).await;
    assert_eq!(
        marked.body["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
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

#[tokio::test]
async fn discovery_and_health_answer_every_generation_of_clients() {
    let world = World::new().await;
    let kinds = world.get("/api/v1/").await;
    let names: Vec<&str> = kinds.body["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"pods/log") && names.contains(&"pods/binding"),
        "{names:?}"
    );
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = world.request("GET /apis", &[(header::ACCEPT, accept)], "");
    let aggregated = world.send(request).await;
    assert_eq!(
        aggregated.headers[header::CONTENT_TYPE],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let groups: Vec<&str> = aggregated.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(groups.contains(&"apps") && groups.contains(&"gateway.networking.k8s.io"));
    let deployments = &aggregated.body["items"][0]["versions"][0]["resources"][0];
    assert_eq!(deployments["categories"], json!(["all"]));
    assert_eq!(world.get("/apis").await.body["kind"], "APIGroupList");
    assert_eq!(
        world.get("/apis/apps").await.body["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(world.get("/apis/nothing").await.status, 404);
    let version = world.get("/version/").await;
    assert!(
        version.body["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.37.")
    );
    assert!(version.headers.contains_key("audit-id"));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/store"] {
        assert_eq!(world.get(path).await.body, "ok", "{path}");
    }
    let verbose = world.get("/readyz?verbose").await;
    assert!(verbose.body.as_str().unwrap().contains("[+]store ok"));
}

#[tokio::test]
async fn writes_may_be_tried_generated_warned_about_and_in_yaml() {
    let world = World::new().await;
    let post = format!("POST {MAPS}");
    let tried = world
        .ask(&format!("{post}?dryRun=All"), config_map("dry", "1"))
        .await;
    assert_eq!(tried.status, 201);
    assert!(!tried.body["metadata"]["uid"].is_null());
    assert_eq!(world.get(&format!("{MAPS}/dry")).await.status, 404);

    let generated = world
        .ask(&post, json!({"metadata": {"generateName": "gen-"}}))
        .await;
    let name = generated.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");

    let mut misspelt = config_map("warned", "1");
    misspelt["dataa"] = json!({});
    let warned = world.ask(&post, misspelt).await;
    assert_eq!(warned.status, 201);
    assert_eq!(
        warned.headers["warning"],
        r#"299 - "unknown field \"dataa\"""#
    );
    let twice = r#"{"metadata": {"name": "twice"}, "data": {"a": "1", "a": "2"}}"#;
    let request = world.request(&format!("{post}?fieldValidation=Strict"), &[], twice);
    assert_eq!(
        world.send(request).await.line(),
        r#"400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a""#
    );

    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata:\n  k: v\n";
    let request = world.request(&post, &[(header::CONTENT_TYPE, "application/yaml")], yaml);
    assert_eq!(world.send(request).await.line(), "201 ConfigMap yaml");
    let large = "x".repeat(4 << 20);
    let request = world.request(&post, &[], &large);
    assert_eq!(world.send(request).await.status, 413);
    let immutable = json!({"metadata": {"name": "fixed"}, "immutable": true, "data": {"k": "v"}});
    world.ask(&post, immutable).await;
    let change = json!({"data": {"k": "w"}});
    assert_eq!(
        world
            .patch(&format!("{MAPS}/fixed"), "merge-patch", change)
            .await
            .status,
        422
    );
}

/// A message of Kubernetes' binary form: fields of bytes by tag, each shorter than 128.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, bytes) in fields {
        out.extend([tag << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
        out.extend_from_slice(bytes);
    }
    out
}

fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let kind = message(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [&b"k8s\0"[..], &message(&[(1, &kind), (2, raw)])].concat()
}

#[tokio::test]
async fn typed_clients_write_in_protobuf_and_read_json() {
    let world = World::new().await;
    let send = async |line: &str, body: Vec<u8>| {
        let mut request = world.request(
            line,
            &[
                (header::CONTENT_TYPE, "application/vnd.kubernetes.protobuf"),
                (header::ACCEPT, JSON),
            ],
            "",
        );
        *request.body_mut() = Body::from(body);
        world.send(request).await
    };
    let post = format!("POST {MAPS}");
    let entry = message(&[(1, b"colour"), (2, b"blue")]);
    let map = message(&[(1, &message(&[(1, b"settings")])), (2, &entry)]);
    let created = send(&post, enveloped("v1", "ConfigMap", &map)).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.headers[header::CONTENT_TYPE], JSON);
    assert_eq!(created.body["data"], json!({"colour": "blue"}));

    // A field that this server has no name for is told, and refused where the client insists.
    let newer = message(&[(1, &message(&[(1, b"newer")])), (15, b"x")]);
    let newer = enveloped("v1", "ConfigMap", &newer);
    let warned = send(&post, newer.clone()).await;
    assert_eq!(
        warned.headers["warning"],
        r##"299 - "unknown field \"#15\"""##
    );
    let lines = [
        send(&format!("{post}?fieldValidation=Strict"), newer)
            .await
            .line(),
        send(&post, enveloped("v1", "Secret", &map)).await.line(),
        send(&post, b"k8s".to_vec()).await.line(),
        // DeleteOptions travel under the group of what they delete.
        send(
            &format!("DELETE {MAPS}/settings"),
            enveloped(
                "v1",
                "DeleteOptions",
                &message(&[(2, &message(&[(1, b"another")]))]),
            ),
        )
        .await
        .line()
        .replace(created.body["metadata"]["uid"].as_str().unwrap(), "UID"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r##"
    400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "#15"
    400 BadRequest: the object provided is v1, Kind=Secret, but this URL takes v1, Kind=ConfigMap
    400 BadRequest: the request body is no object in protobuf: it does not begin with the four bytes of Kubernetes' envelope
    409 Conflict: Operation cannot be fulfilled on configmaps "settings": Precondition failed: UID in precondition: another, UID in object meta: UID
    "##);
}

#[tokio::test]
async fn writers_without_a_version_never_lose_to_each_other() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("shared", "1"))
        .await;
    let path = format!("{MAPS}/shared");
    let patches = (0..40).map(|writer| {
        let body = json!({"data": {format!("w{writer}"): "here"}});
        world.patch(&path, "merge-patch", body)
    });
    for answer in futures::future::join_all(patches).await {
        assert_eq!(answer.line(), "200 ConfigMap shared");
    }
    let left = world.get(&path).await;
    assert_eq!(left.body["data"].as_object().unwrap().len(), 41);
}

#[tokio::test]
async fn what_is_refused_is_still_read() {
    use futures::StreamExt as _;
    let world = World::new().await;
    for (line, token, status) in [
        (format!("POST {MAPS}"), "Bearer wrong", 401),
        (format!("PATCH {MAPS}"), "Bearer secret", 405),
        ("POST /api/v1/nothing".to_owned(), "Bearer secret", 404),
    ] {
        let read = Arc::new(AtomicBool::new(false));
        let noted = read.clone();
        let last = futures::stream::once(async move {
            noted.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"}"))
        });
        let first = futures::stream::iter([Ok(axum::body::Bytes::from_static(b"{"))]);
        let mut request = world.request(&line, &[], "");
        let token = header::HeaderValue::from_static(token);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        *request.body_mut() = Body::from_stream(first.chain(last));
        assert_eq!(world.send(request).await.status, status, "{line}");
        assert!(read.load(Ordering::Relaxed), "{line}");
    }
}

#[tokio::test]
async fn a_scale_is_shown_and_about_its_own_workload() {
    let world = World::new().await;
    world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(3))
        .await;
    let scale = format!("{DEPLOYMENTS}/web/scale");
    let shown = world.table(&scale).await;
    // Its age is that of the clock, which goes on.
    let line = shown.line();
    let age = line.strip_prefix(r#"200 ["web",3,0,""#).unwrap_or(&line);
    let age = age
        .strip_suffix(r#"s"]"#)
        .and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(age.is_some_and(|seconds| seconds < 120), "{line}");
    let names = shown.body["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> = names.iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    let put = format!("PUT {scale}");
    let of = |name: &str| json!({"metadata": {"name": name}, "spec": {"replicas": 1}});
    let told = world
        .transcript(&[(&put, of("other")), (&put, of("web"))])
        .await;
    insta::assert_snapshot!(told, @"
    400 BadRequest: the name of the object (other) does not match the name on the URL (web)
    200 Scale web
    ");
}

#[tokio::test]
async fn a_service_keeps_its_address_and_a_pod_its_tolerations() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let created = world.ask(&format!("POST {SERVICES}"), service).await;
    let address = created.body["spec"]["clusterIP"].as_str().unwrap();
    let one = format!("{SERVICES}/web");
    for other in ["1.2.3.4", "10.43.0.77", "None"] {
        let refused = world
            .patch(&one, "merge-patch", json!({"spec": {"clusterIP": other}}))
            .await;
        let line = refused.line();
        assert!(
            line.starts_with("422") && line.ends_with("may not change once set"),
            "{line}"
        );
    }
    assert_eq!(world.get(&one).await.body["spec"]["clusterIP"], address);

    world.ask(&format!("POST {PODS}"), pod("p")).await;
    let one = format!("{PODS}/p");
    let patience = |seconds: i64| json!([{"op": "replace", "path": "/spec/tolerations/0/tolerationSeconds", "value": seconds}]);
    let longer = world.patch(&one, "json-patch", patience(600)).await;
    assert_eq!(
        longer.body["spec"]["tolerations"][0]["tolerationSeconds"],
        600
    );
    let removed = json!([{"op": "remove", "path": "/spec/tolerations/0"}]);
    assert_eq!(world.patch(&one, "json-patch", removed).await.status, 422);
}

#[tokio::test]
async fn events_are_one_store_with_two_spellings() {
    let world = World::new().await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Started", "note": "it runs", "type": "Normal",
        "action": "Start", "reportingController": "weft", "reportingInstance": "n1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    assert_eq!(
        world.ask(&format!("POST {new}"), event).await.line(),
        "201 Event e"
    );
    let old = world
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod")
        .await;
    assert_eq!(old.body["items"][0]["message"], "it runs");
    assert_eq!(old.body["items"][0]["apiVersion"], "v1");
    let back = world
        .get(&format!("{new}?fieldSelector=regarding.name%3Dp"))
        .await;
    assert_eq!(back.body["items"][0]["note"], "it runs");
    assert_eq!(back.body["items"][0]["apiVersion"], "events.k8s.io/v1");
}

#[tokio::test]
async fn callers_learn_who_they_are_and_strangers_little() {
    let world = World::new().await;
    let who = world
        .ask(
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
            json!({}),
        )
        .await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "admin");
    let ask = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let may = world
        .ask(
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ask,
        )
        .await;
    assert_eq!(
        (may.status, &may.body["status"]["allowed"]),
        (201, &json!(true))
    );
    let rules = world
        .ask(
            "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json!({"spec": {"namespace": "default"}}),
        )
        .await;
    assert_eq!(
        rules.body["status"]["resourceRules"],
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
    );
    let mut told = Vec::new();
    for (path, token) in [
        ("/version", None),
        (PODS, None),
        (PODS, Some("Bearer wrong")),
    ] {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Body::empty()).unwrap();
        told.push(world.send(request).await.status.to_string());
    }
    assert_eq!(told.join(" "), "200 403 401");
    let posing = header::HeaderName::from_static("impersonate-user");
    let request = world.request(&format!("GET {PODS}"), &[(posing, "bob")], "");
    assert_eq!(world.send(request).await.status, 400);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_what_kubernetes_would_store() {
    let world = World::new().await;
    let at = "/api/v1/namespaces/default";
    let unknown = json!({
        "metadata": {"name": "u", "zz": "1", "annotations": {"n": null}, "labels": null, "resourceVersion": "7"},
        "data": {"a": "1", "n": null}, "status": {"x": 1},
    });
    let created = world
        .ask(&format!("POST {at}/configmaps"), unknown.clone())
        .await;
    let told: Vec<&str> = created
        .headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            r#"299 - "unknown field \"metadata.zz\"""#,
            r#"299 - "unknown field \"status\"""#
        ]
    );
    let found = world.get(&format!("{at}/configmaps/u")).await.body;
    assert_eq!(found["data"], json!({"a": "1", "n": ""}));
    assert_eq!(found["metadata"]["annotations"], json!({"n": ""}));
    for gone in ["/status", "/metadata/zz", "/metadata/labels"] {
        assert_eq!(found.pointer(gone), None, "{gone}");
    }
    let secret =
        json!({"metadata": {"name": "nl"}, "data": {"a": "YWFh\nYWFh\n", "b": [104, 105]}});
    let created = world.ask(&format!("POST {at}/secrets"), secret).await.body;
    assert_eq!(created["data"], json!({"a": "YWFhYWFh", "b": "aGk="}));

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i:1", "env": null, "resources": {"limits": {"cpu": ".5"}}}]},
        }},
    });
    let created = world
        .ask(&format!("POST {deployments}"), deployment)
        .await
        .body;
    assert_eq!(created["status"], json!({}));
    let container = &created["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["cpu"], "500m");
    assert_eq!(container.get("env"), None);

    let patch = |path: String, kind: &'static str, body: Value| {
        let world = &world;
        async move { world.patch(&path, kind, body).await.line() }
    };
    let one = format!("{deployments}/d");
    for (path, kind, body, expected) in [
        (
            &one,
            "merge-patch",
            json!({"spec": {"replicas": "x"}}),
            "422 Invalid:  \"\" is invalid: patch: Invalid value: ",
        ),
        (
            &one,
            "merge-patch",
            json!({"metadata": {"name": null}}),
            "400 BadRequest: the name of the object (d based on URL) was undeterminable: name must be provided",
        ),
        (
            &one,
            "strategic-merge-patch",
            json!({"spec": {"template": {"spec": "x"}}}),
            "422 Invalid:  \"\" is invalid: patch: Invalid value: ",
        ),
        (
            &format!("{one}/scale"),
            "merge-patch",
            json!({"spec": {"replicas": 3_000_000_000_u32}}),
            "422 Invalid:  \"\" is invalid: patch: Invalid value: ",
        ),
        (
            &format!("{one}?fieldValidation=Strict"),
            "merge-patch",
            json!({"spec": {"zz": 1}}),
            "422 Invalid:  \"\" is invalid: patch: Invalid value: ",
        ),
        (
            &one,
            "json-patch",
            json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "add", "path": "/metadata/finalizers", "value": ["x.dev/f"]}]),
            "200 Deployment d",
        ),
        (
            &one,
            "json-patch",
            json!([{"op": "test", "path": "/metadata/finalizers", "value": null}]),
            "422 Invalid: the server rejected our request due to an error in our request",
        ),
    ] {
        let line = patch(path.clone(), kind, body.clone()).await;
        assert!(line.starts_with(expected), "{body}: {line}");
    }
    let generation = |object: &Value| object["metadata"]["generation"].as_i64();
    let before = world.get(&one).await.body;
    let same = world
        .patch(
            &one,
            "merge-patch",
            json!({"spec": {"paused": false, "zz": {}}}),
        )
        .await;
    assert_eq!(
        generation(&same.body),
        generation(&before),
        "nothing changed"
    );
    assert_eq!(
        same.body["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );

    let wanted = [(header::ACCEPT, "application/yaml")];
    let request = world.request(&format!("GET {at}/configmaps/u"), &wanted, "");
    let yaml = world.send(request).await;
    assert_eq!(yaml.headers[header::CONTENT_TYPE], "application/yaml");
    assert!(yaml.body.as_str().unwrap().contains("kind: ConfigMap"));
}
