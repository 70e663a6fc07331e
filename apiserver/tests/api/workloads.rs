//! Workloads and the classes that pods are of: kept whole, and told of where nothing runs them.

use http::header;
use serde_json::{Value, json};

use crate::world::*;

fn template(restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]},
    })
}

/// A collection and an object for each kind.
fn one_of_each() -> Vec<(&'static str, Value)> {
    let selector = json!({"matchLabels": {"app": "a"}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    vec![
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            json!({"spec": {"selector": selector, "template": template("Always"), "serviceName": "s"}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"spec": {"selector": selector, "template": template("Always")}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            json!({"data": {"a": {}}, "revision": 1}),
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"spec": {"template": template("Never")}}),
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template("Never")}}}}),
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            json!({"spec": {"template": template("Always")}}),
        ),
        (
            "/api/v1/namespaces/default/podtemplates",
            json!({"template": template("Never")}),
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target}}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"value": 5}),
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "h"}),
        ),
    ]
}

fn named(name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = name.into();
    object
}

fn warnings(answer: &Answer) -> Vec<&str> {
    let all = answer.headers.get_all(header::WARNING).iter();
    all.map(|warning| warning.to_str().unwrap()).collect()
}

#[tokio::test]
async fn each_kind_is_kept_and_who_writes_it_is_told_where_nothing_runs_it() {
    let world = World::new().await;
    let mut told = Vec::new();
    for (collection, object) in one_of_each() {
        let created = world
            .ask(&format!("POST {collection}"), named("x", object))
            .await;
        assert_eq!(created.status, 201, "{collection}: {}", created.line());
        let generation = &created.body["metadata"]["generation"];
        let plural = collection.rsplit('/').next().unwrap();
        told.push(format!("{plural}: {generation} {:?}", warnings(&created)));
        let path = format!("{collection}/x");
        let read = world.get(&path).await;
        assert_eq!(read.body, created.body, "{collection}");
        let again = world.ask(&format!("PUT {path}"), read.body.clone()).await;
        assert_eq!(again.body, read.body, "{collection}: {}", again.line());
        let table = world.table(collection).await;
        let cells = &table.body["rows"][0]["cells"];
        assert_eq!(cells[0], "x", "{collection}: {}", table.body);
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    statefulsets: 1 []
    daemonsets: 1 []
    controllerrevisions: null []
    jobs: 1 []
    cronjobs: 1 []
    replicationcontrollers: 1 []
    podtemplates: 1 []
    horizontalpodautoscalers: 1 []
    poddisruptionbudgets: 1 []
    priorityclasses: 1 ["299 - \"PriorityClass: no pod is pushed out for another yet: pods of it are placed before others, as with preemptionPolicy Never\""]
    runtimeclasses: null ["299 - \"handler: nodes run every pod as WebAssembly components, whatever the handler; \\\"h\\\" is kept and not looked at\""]
    "#);
}

#[tokio::test]
async fn a_job_has_labels_of_its_own_and_leaves_its_pods_when_it_goes() {
    let world = World::new().await;
    const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
    let sent =
        json!({"metadata": {"generateName": "sum-"}, "spec": {"template": template("Never")}});
    let job = world.ask(&format!("POST {JOBS}"), sent).await.body;
    let (name, uid) = (&job["metadata"]["name"], &job["metadata"]["uid"]);
    let labels = json!({
        "app": "a",
        "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
        "batch.kubernetes.io/job-name": name, "job-name": name,
    });
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["labels"], labels);
    let path = format!("{JOBS}/{}", name.as_str().unwrap());
    let how = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan", "dryRun": ["All"]});
    let tried = world.ask(&format!("DELETE {path}"), how).await;
    assert_eq!((tried.status, warnings(&tried).len()), (200, 0));
    let gone = world.ask(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(gone.status, 200, "{}", gone.line());
    assert_eq!(
        warnings(&gone),
        [
            "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning\""
        ]
    );
    let marked = world.get(&path).await.body;
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
    let selected = world
        .get(&format!("{JOBS}?fieldSelector=status.successful%3D0"))
        .await;
    assert_eq!(selected.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_spellings() {
    let world = World::new().await;
    let of = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let sent = json!({"metadata": {"name": "web"}, "spec": {
        "maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50,
    }});
    let created = world.ask(&format!("POST {}", of("v1")), sent).await;
    assert_eq!(
        created.body["spec"]["targetCPUUtilizationPercentage"],
        50,
        "{}",
        created.line()
    );
    assert_eq!(created.body["spec"]["minReplicas"], 1);
    let mut stored = world.get(&format!("{}/web", of("v2"))).await.body;
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    assert_eq!(stored["spec"]["metrics"], json!([cpu]));
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    stored["spec"]["metrics"] = json!([cpu, memory]);
    let path = format!("{}/web", of("v2"));
    let changed = world.ask(&format!("PUT {path}"), stored).await;
    assert_eq!(
        changed.body["metadata"]["generation"],
        2,
        "{}",
        changed.line()
    );
    let mut spelled = world.get(&format!("{}/web", of("v1"))).await.body;
    assert_eq!(
        spelled["metadata"]["annotations"],
        json!({"autoscaling.alpha.kubernetes.io/metrics":
            "[{\"resource\":{\"name\":\"memory\",\"targetAverageValue\":\"1Gi\"},\"type\":\"Resource\"}]"})
    );
    spelled["spec"]["maxReplicas"] = 9.into();
    let written = world.ask(&format!("PUT {}/web", of("v1")), spelled).await;
    assert_eq!(written.status, 200, "{}", written.line());
    let stored = world.get(&path).await.body;
    assert_eq!(stored["spec"]["maxReplicas"], 9);
    assert_eq!(stored["spec"]["metrics"], json!([memory, cpu]));
    assert_eq!(stored["metadata"].get("annotations"), None);
    let group = world.get("/apis/autoscaling").await.body;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
}

/// kubectl 1.20 creates CronJobs and budgets in versions that no other client should find.
#[tokio::test]
async fn versions_of_long_ago_are_taken_and_not_listed() {
    let world = World::new().await;
    for (former, today, object) in [
        (
            "/apis/batch/v1beta1/namespaces/default/cronjobs",
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"apiVersion": "batch/v1beta1", "kind": "CronJob",
                "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template("Never")}}}}),
        ),
        (
            "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets",
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}),
        ),
    ] {
        let version = object["apiVersion"].clone();
        let created = world
            .ask(&format!("POST {former}"), named("old", object))
            .await;
        assert_eq!(created.body["apiVersion"], version, "{}", created.line());
        let misspelt = json!({"metadata": {"name": "x"}, "spec": {"nonsense": 1}});
        let strict = format!("POST {former}?fieldValidation=Strict");
        let refused = world.ask(&strict, misspelt).await;
        assert!(
            refused.line().contains("unknown field \"spec.nonsense\""),
            "{}",
            refused.line()
        );
        let read = world.get(&format!("{today}/old")).await.body;
        assert_eq!(read["spec"], created.body["spec"]);
        assert_eq!(read["metadata"], created.body["metadata"]);
        let group_version = version.as_str().unwrap();
        let list = world.get(&format!("/apis/{group_version}")).await;
        assert_eq!(list.status, 404, "{group_version}");
    }
    for group in ["batch", "policy"] {
        let versions = &world.get(&format!("/apis/{group}")).await.body["versions"];
        assert_eq!(versions.as_array().unwrap().len(), 1, "{group}");
    }
    let paths = world.get("/openapi/v3").await.body;
    assert!(paths["paths"].get("apis/batch/v1").is_some());
    assert!(paths["paths"].get("apis/batch/v1beta1").is_none());
}

/// `kubectl drain` of 1.20 asks for evictions in `policy/v1beta1`.
#[tokio::test]
async fn an_eviction_of_long_ago_is_one() {
    let world = World::new().await;
    for version in ["policy/v1", "policy/v1beta1"] {
        world.ask(&format!("POST {PODS}"), pod("p")).await;
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}});
        let evicted = world
            .ask(&format!("POST {PODS}/p/eviction"), eviction)
            .await;
        assert_eq!(evicted.status, 201, "{version}: {}", evicted.line());
        assert_eq!(world.get(&format!("{PODS}/p")).await.status, 404);
    }
}

#[tokio::test]
async fn the_size_of_the_oldest_kind_is_seen_and_set_like_any_other() {
    let world = World::new().await;
    const ALL: &str = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = named("web", json!({"spec": {"template": template("Always")}}));
    world.ask(&format!("POST {ALL}"), controller).await;
    let scale = world.get(&format!("{ALL}/web/scale")).await.body;
    assert_eq!(scale["status"]["selector"], "app=a");
    let sized = json!({"metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let path = format!("{ALL}/web/scale");
    let set = world.ask(&format!("PUT {path}"), sized).await;
    assert_eq!(set.body["spec"]["replicas"], 4, "{}", set.line());
    let read = world.get(&format!("{ALL}/web")).await.body;
    assert_eq!(read["spec"]["replicas"], 4);
}

#[tokio::test]
async fn pods_are_of_classes_that_there_are() {
    let world = World::new().await;
    let caller = weft_apiserver::caller::Caller::system("apiserver", None);
    for _ in 0..2 {
        world
            .objects
            .ensure_furniture(&caller, &std::collections::BTreeSet::new())
            .await
            .unwrap();
    }
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    const RUNTIMES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
    let with = |name: &str, spec: Value| {
        let mut pod = pod(name);
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        pod
    };
    let post = |path: &str| format!("POST {path}");
    let default = json!({"value": 7, "globalDefault": true, "preemptionPolicy": "Never"});
    let overhead = json!({"handler": "h", "overhead": {"podFixed": {"cpu": "0.1"}}});
    let told = world
        .transcript(&[
            (&post(PODS), with("a", json!({"priorityClassName": "nope"}))),
            (&post(PODS), with("b", json!({"runtimeClassName": "nope"}))),
            (&post(PODS), with("c", json!({"priority": 5}))),
            (
                &post(PODS),
                with("d", json!({"priorityClassName": "system-node-critical"})),
            ),
            (&post(CLASSES), named("one", default.clone())),
            (&post(CLASSES), named("two", default)),
            (&post(CLASSES), named("two", json!({"value": 8}))),
            (
                &format!("PUT {CLASSES}/two"),
                named("two", json!({"value": 8, "globalDefault": true})),
            ),
            (
                &format!("PUT {CLASSES}/two"),
                named("two", json!({"value": 9})),
            ),
            (
                &format!("DELETE {CLASSES}/system-node-critical"),
                Value::Null,
            ),
            (&post(RUNTIMES), named("wasm", overhead)),
            (&post(PODS), with("e", json!({"runtimeClassName": "wasm"}))),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    403 Forbidden: pods "a" is forbidden: no PriorityClass with name nope was found
    403 Forbidden: pods "b" is forbidden: pod rejected: RuntimeClass "nope" not found
    403 Forbidden: pods "c" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name
    201 Pod d
    201 PriorityClass one
    403 Forbidden: priorityclasses.scheduling.k8s.io "two" is forbidden: PriorityClass one is already marked as default. Only one default can exist
    201 PriorityClass two
    403 Forbidden: priorityclasses.scheduling.k8s.io "two" is forbidden: PriorityClass one is already marked as default. Only one default can exist
    422 Invalid: PriorityClass.scheduling.k8s.io "two" is invalid: value: Forbidden: may not be changed in an update.
    403 Forbidden: priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: this is a system priority class and cannot be deleted
    201 RuntimeClass wasm
    201 Pod e
    "#);
    let critical = world.get(&format!("{PODS}/d")).await.body;
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
    let usual = world.get(&format!("{PODS}/e")).await.body;
    assert_eq!(usual["spec"]["priority"], 7);
    assert_eq!(usual["spec"]["priorityClassName"], "one");
    assert_eq!(usual["spec"]["preemptionPolicy"], "Never");
    assert_eq!(usual["spec"]["overhead"], json!({"cpu": "100m"}));
    // A default that is gone is free for another.
    world
        .ask(&format!("DELETE {CLASSES}/one"), Value::Null)
        .await;
    let two = named("two", json!({"value": 8, "globalDefault": true}));
    let set = world.ask(&format!("PUT {CLASSES}/two"), two).await;
    assert_eq!(set.status, 200, "{}", set.line());
}
