//! Kinds that others act on elsewhere: what their writers are told, what admission gives them, and what is made when it is read.

use serde_json::{Value, json};

use crate::world::*;

fn warnings(answer: &Answer) -> Vec<String> {
    let told = answer.headers.get_all("warning").into_iter();
    told.map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_new_ingress_has_the_default_class_and_its_writer_is_told_that_nothing_serves_it() {
    const CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
    const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let world = World::new().await;
    let class = json!({"metadata": {"name": "edge", "annotations": {
        "ingressclass.kubernetes.io/is-default-class": "true",
    }}, "spec": {"controller": "example.com/edge"}});
    let made = world.ask(&format!("POST {CLASSES}"), class).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": {
        "service": {"name": "web", "port": {"number": 80}},
    }}});
    let made = world.ask(&format!("POST {INGRESSES}"), ingress).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["ingressClassName"], "edge");
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body["status"], json!({"loadBalancer": {}}));
    assert_eq!(
        warnings(&made),
        [
            "299 - \"Ingress: nothing routes by it: to be reached from outside, name the Service in an HTTPRoute to a Gateway\""
        ]
    );
    let table = world.table(INGRESSES).await;
    let cells = &table.body["rows"][0]["cells"];
    assert_eq!(
        cells.as_array().map(|cells| &cells[..5]),
        Some(
            &[
                json!("web"),
                json!("edge"),
                json!("*"),
                json!(""),
                json!("80")
            ][..]
        )
    );
}

#[tokio::test]
async fn parts_of_the_control_plane_are_asked_when_they_are_read() {
    const PARTS: &str = "/api/v1/componentstatuses";
    let world = World::new().await;
    let parts = world.get(PARTS).await;
    assert_eq!(parts.body["kind"], "ComponentStatusList");
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        let names = items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(
        names(&parts.body),
        ["controller-manager", "etcd-0", "scheduler"]
    );
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    assert_eq!(parts.body["items"][1]["conditions"], healthy);
    let deprecated = "299 - \"v1 ComponentStatus is deprecated in v1.19+\"";
    assert_eq!(warnings(&parts), [deprecated]);
    let one = world.get(&format!("{PARTS}/etcd-0")).await;
    assert_eq!(one.body["conditions"], healthy);
    let chosen = world
        .get(&format!("{PARTS}?fieldSelector=metadata.name%3Dscheduler"))
        .await;
    assert_eq!(names(&chosen.body), ["scheduler"]);
    let none = world.get(&format!("{PARTS}?labelSelector=a")).await;
    assert_eq!(none.body["items"], json!([]));
    let table = world.table(PARTS).await;
    assert_eq!(
        table.body["rows"][0]["cells"],
        json!(["controller-manager", "Healthy", "ok", ""])
    );
    let missing = world.get(&format!("{PARTS}/nothing")).await;
    assert_eq!((missing.status, warnings(&missing).len()), (404, 1));
    let written = world.ask(&format!("POST {PARTS}"), json!({})).await;
    assert_eq!(written.status, 405);
}

#[tokio::test]
async fn what_others_may_do_is_answered_for_them() {
    const ALL: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    const HERE: &str = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let world = World::new().await;
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    for (path, spec, code, expected) in [
        (
            ALL,
            json!({"user": "ann", "resourceAttributes": pods}),
            201,
            json!(false),
        ),
        (
            HERE,
            json!({"user": "ann", "groups": ["system:masters"], "resourceAttributes": pods}),
            201,
            json!(true),
        ),
        (
            HERE,
            json!({"user": "ann", "resourceAttributes": {"verb": "get", "namespace": "other"}}),
            400,
            json!("spec.resourceAttributes.namespace must match namespace: default"),
        ),
        (
            ALL,
            json!({}),
            422,
            json!(
                "SubjectAccessReview.authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]"
            ),
        ),
    ] {
        let answer = world
            .ask(&format!("POST {path}"), json!({"spec": spec}))
            .await;
        let told = match code {
            201 => &answer.body["status"]["allowed"],
            _ => &answer.body["message"],
        };
        assert_eq!((answer.status, told), (code, &expected), "{path} {spec}");
    }
    // Each kind of question has its own place.
    let elsewhere = "/apis/authorization.k8s.io/v1/localsubjectaccessreviews";
    let answer = world.ask(&format!("POST {elsewhere}"), json!({})).await;
    assert_eq!(answer.status, 404);
}
