//! `pods/resize`: other amounts for containers that run, as clients ask for them.

use serde_json::{Value, json};

use crate::world::*;

const ONE: &str = "/api/v1/namespaces/one";

/// A namespace with a pod of two containers in it.
async fn setup(world: &World) -> Value {
    let namespace = json!({"metadata": {"name": "one"}});
    let made = world.ask("POST /api/v1/namespaces", namespace).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let container = |name: &str| json!({"name": name, "image": "i:1", "resources": {"requests": {"cpu": "20m"}, "limits": {"memory": "50Mi"}}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container("a"), container("b")]}});
    let pod = world.ask(&format!("POST {ONE}/pods"), pod).await;
    assert_eq!(pod.status, 201, "{}", pod.line());
    pod.body
}

/// A patch of the first container's resources.
fn of_first(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})
}

#[tokio::test]
async fn amounts_change_by_their_own_door_alone() {
    let world = World::new().await;
    let pod = setup(&world).await;
    let (own, resize) = (format!("{ONE}/pods/p"), format!("{ONE}/pods/p/resize"));
    let more = json!({"requests": {"cpu": "40m"}, "limits": {"cpu": "80m"}});
    let direct = world
        .patch(&own, "strategic-merge-patch", of_first(more.clone()))
        .await;
    assert_eq!(direct.status, 422, "{}", direct.line());

    let mut patch = of_first(more);
    patch["metadata"] = json!({"labels": {"new": "yes"}});
    patch["spec"]["containers"][0]["image"] = json!("other:1");
    let resized = world.patch(&resize, "strategic-merge-patch", patch).await;
    assert_eq!(resized.status, 200, "{}", resized.line());
    let first = &resized.body["spec"]["containers"][0];
    assert_eq!(
        first["resources"],
        json!({"requests": {"cpu": "40m", "memory": "50Mi"}, "limits": {"cpu": "80m", "memory": "50Mi"}})
    );
    assert_eq!(first["image"], "i:1");
    assert_eq!(resized.body["metadata"].get("labels"), None);
    assert_eq!(resized.body["metadata"]["generation"], 2);
    let owners = resized.body["metadata"]["managedFields"]
        .as_array()
        .unwrap();
    let owner = owners
        .iter()
        .find(|owner| owner["subresource"] == "resize")
        .unwrap();
    let fields = &owner["fieldsV1"]["f:spec"]["f:containers"][r#"k:{"name":"a"}"#];
    assert_eq!(
        fields["f:resources"],
        json!({"f:limits": {"f:cpu": {}}, "f:requests": {"f:cpu": {}}}),
        "{owner}"
    );
    assert_eq!(world.get(&resize).await.body, world.get(&own).await.body);

    // As a whole, too, and with nothing new.
    let mut whole = world.get(&own).await.body;
    whole["spec"]["containers"][1]["resources"]["requests"]["cpu"] = json!("30m");
    let replaced = world.ask(&format!("PUT {resize}"), whole).await;
    assert_eq!(replaced.status, 200, "{}", replaced.line());
    assert_eq!(replaced.body["metadata"]["generation"], 3);
    let again = world
        .ask(&format!("PUT {resize}"), replaced.body.clone())
        .await;
    assert_eq!(again.body["metadata"]["generation"], 3);
    assert_eq!(again.body["metadata"]["uid"], pod["metadata"]["uid"]);
}

#[tokio::test]
async fn what_may_not_change_is_refused_in_kubernetes_words() {
    let world = World::new().await;
    setup(&world).await;
    let resize = format!("{ONE}/pods/p/resize");
    for (patch, told) in [
        (
            of_first(json!({"requests": {"cpu": null}})),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            of_first(json!({"limits": {"memory": null}})),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            of_first(json!({"requests": {"ephemeral-storage": "1Gi"}})),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            of_first(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}},
            ]}}),
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ),
    ] {
        let refused = world.patch(&resize, "strategic-merge-patch", patch).await;
        assert_eq!(
            refused.line(),
            format!("422 Invalid: Pod \"p\" is invalid: {told}")
        );
    }
    assert_eq!(
        world.get(&format!("{ONE}/pods/p")).await.body["metadata"]["generation"],
        1
    );
}

#[tokio::test]
async fn limit_ranges_quotas_and_the_node_have_their_say() {
    let world = World::new().await;
    setup(&world).await;
    let resize = format!("{ONE}/pods/p/resize");
    let ask = async |resources: Value| {
        let patch = of_first(resources);
        world
            .patch(&resize, "strategic-merge-patch", patch)
            .await
            .line()
    };
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]}});
    world.ask(&format!("POST {ONE}/limitranges"), range).await;
    assert_eq!(
        ask(json!({"limits": {"memory": "200Mi"}})).await,
        "403 Forbidden: pods \"p\" is forbidden: maximum memory usage per Container is 100Mi, but limit is 200Mi"
    );
    let hard = json!({"requests.cpu": "100m"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    world
        .ask(&format!("POST {ONE}/resourcequotas"), quota)
        .await;
    let status = json!({"status": {"hard": hard, "used": {"requests.cpu": "40m"}}});
    let path = format!("{ONE}/resourcequotas/q/status");
    world.patch(&path, "merge-patch", status).await;
    assert_eq!(
        ask(json!({"requests": {"cpu": "90m"}})).await,
        "403 Forbidden: pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=70m, used: requests.cpu=40m, limited: requests.cpu=100m"
    );
    assert!(
        ask(json!({"requests": {"cpu": "70m"}}))
            .await
            .starts_with("200")
    );

    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "80m", "memory": "1Gi"}}});
    world.ask("POST /api/v1/nodes", node).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = world
        .ask(&format!("POST {ONE}/pods/p/binding"), binding)
        .await;
    assert_eq!(bound.status, 201, "{}", bound.line());
    assert_eq!(
        ask(json!({"requests": {"cpu": "75m"}})).await,
        "403 Forbidden: pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 95, allocatable: 80"
    );
}
