//! Writes: what is refused and in which words, what is stored of what was sent, and what each of them counts.

use http::header;
use serde_json::{Value, json};

use crate::world::*;

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
async fn a_replacement_makes_what_is_not_there() {
    let world = World::new().await;
    let ranges = "/api/v1/namespaces/default/limitranges/l";
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles/r";
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": []}});
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let put_range = format!("PUT {ranges}");
    let told = world
        .transcript(&[
            (&put_range, range.clone()),
            (&put_range, range),
            (&format!("PUT {roles}"), role),
            (&format!("PUT {MAPS}/m"), config_map("m", "1")),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    201 LimitRange l
    200 LimitRange l
    201 ClusterRole r
    404 NotFound: configmaps "m" not found
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

/// kubectl sends the lists of custom kinds whole and without the defaults in them, and says "configured" of them in any cluster. Nothing is.
#[tokio::test]
async fn a_second_apply_of_custom_kinds_stores_nothing() {
    let world = World::new().await;
    world.define_gateway_api().await;
    let gateway = json!({
        "metadata": {"name": "web"},
        "spec": {
            "gatewayClassName": "weft",
            "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
        },
    });
    let route = json!({
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "hostnames": ["web.localhost"],
            "rules": [
                {"backendRefs": [{"name": "web", "port": 80}]},
                {"matches": [{"path": {"value": "/a"}}, {"headers": [{"name": "x", "value": "y"}]}],
                 "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "b.localhost"}}]},
            ],
        },
    });
    for (resource, object) in [("gateways", gateway), ("httproutes", route)] {
        let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/default/{resource}");
        let created = world.ask(&format!("POST {path}"), object.clone()).await;
        assert_eq!(created.status, 201, "{}", created.body);
        let spec = &created.body["spec"];
        assert_ne!(*spec, object["spec"], "its lists have defaults");
        let sent = json!({"spec": object["spec"]});
        let again = world
            .patch(&format!("{path}/web"), "merge-patch", sent)
            .await;
        assert_eq!(again.status, 200, "{}", again.body);
        assert_eq!(again.body["metadata"], created.body["metadata"]);
        assert_eq!(again.body["spec"], *spec);
    }
}
