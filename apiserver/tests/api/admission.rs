//! Admission as clients meet it: webhooks that are real HTTPS servers, policies, quotas, limits and the pod security standards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::WriteOptions;

use crate::hook::{Hook, Reply};
use crate::world::{Answer, World};

fn allowed() -> Reply {
    Reply::Says(json!({"allowed": true}))
}

/// A webhook of ConfigMaps in `namespace`, with more said of it.
fn webhook(name: &str, config: &Value, namespace: &str, more: &Value) -> Value {
    let mut hook = json!({
        "name": name, "clientConfig": config, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    hook
}

async fn made(world: &World, path: &str, body: Value) -> Value {
    let answer = world.ask(&format!("POST {path}"), body).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    answer.body
}

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// A namespace as the namespace controller leaves it.
async fn namespace(world: &World, name: &str, labels: Value) {
    let mut labels = labels;
    labels["kubernetes.io/metadata.name"] = name.into();
    let body = json!({"metadata": {"name": name, "labels": labels}});
    made(world, "/api/v1/namespaces", body).await;
}

async fn config_map(world: &World, namespace: &str, name: &str, data: Value) -> Answer {
    let path = format!("POST /api/v1/namespaces/{namespace}/configmaps");
    world
        .ask(&path, json!({"metadata": {"name": name}, "data": data}))
        .await
}

fn warnings(answer: &Answer) -> Vec<String> {
    let found = answer.headers.get_all("warning").iter();
    found
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_webhook_is_asked_and_obeyed_in_its_namespace_alone() {
    let world = World::new().await;
    for name in ["one", "two"] {
        namespace(&world, name, json!({})).await;
    }
    let hook = Hook::start(&["127.0.0.1"], |review| {
        let bad = review["request"]["object"]["data"]["a"] == "bad";
        match bad {
            true => Reply::Says(json!({"allowed": false, "status": {"code": 403, "message": "no bad data", "reason": "Forbidden"}, "warnings": ["it was bad"]})),
            false => Reply::Says(json!({"allowed": true, "warnings": ["seen"]})),
        }
    })
    .await;
    let hooks = [webhook(
        "a.example.com",
        &hook.client_config(),
        "one",
        &json!({}),
    )];
    made(
        &world,
        VALIDATING,
        json!({"metadata": {"name": "v"}, "webhooks": hooks}),
    )
    .await;

    let taken = config_map(&world, "one", "a", json!({"a": "good"})).await;
    assert_eq!(taken.line(), "201 ConfigMap a");
    assert_eq!(warnings(&taken), ["299 - \"seen\""]);
    let refused = config_map(&world, "one", "b", json!({"a": "bad"})).await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: admission webhook \"a.example.com\" denied the request: no bad data"
    );
    // Of another tenant, it hears nothing.
    let before = hook.count();
    assert_eq!(
        config_map(&world, "two", "b", json!({"a": "bad"}))
            .await
            .status,
        201
    );
    assert_eq!(hook.count(), before);

    let asked = hook.asked.lock().first().cloned().unwrap();
    let request = &asked["request"];
    assert_eq!(asked["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(
        json!([
            request["operation"],
            request["kind"],
            request["resource"],
            request["name"],
            request["namespace"],
            request["userInfo"]["username"],
            request["dryRun"],
            request["oldObject"]
        ]),
        json!(["CREATE", {"group": "", "version": "v1", "kind": "ConfigMap"}, {"group": "", "version": "v1", "resource": "configmaps"}, "a", "one", "admin", false, null])
    );
    // Updates and deletions are asked about with what was there.
    let path = "/api/v1/namespaces/one/configmaps/a";
    let refused = world
        .patch(path, "merge-patch", json!({"data": {"a": "bad"}}))
        .await;
    assert_eq!(refused.status, 403);
    let last = hook.asked.lock().last().cloned().unwrap();
    assert_eq!(
        json!([
            last["request"]["operation"],
            last["request"]["oldObject"]["data"]["a"],
            last["request"]["options"]["kind"]
        ]),
        json!(["UPDATE", "good", "PatchOptions"])
    );
    assert!(last["request"]["object"]["metadata"]["resourceVersion"].is_string());
    assert_eq!(
        world
            .ask(&format!("DELETE {path}"), Value::Null)
            .await
            .status,
        200
    );
    let last = hook.asked.lock().last().cloned().unwrap();
    assert_eq!(
        json!([
            last["request"]["operation"],
            last["request"]["object"],
            last["request"]["oldObject"]["metadata"]["name"]
        ]),
        json!(["DELETE", null, "a"])
    );
    // One connection carried all of that.
    assert_eq!(*hook.connections.lock(), 1);
    // Those inside the process are no exception.
    let caller = Caller::system("controller", None);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "one"}, "data": {"a": "bad"}});
    let object = weft_api::object::Object::from_value(object).unwrap();
    let client = world.objects.client(&caller);
    let refused = client
        .create(
            &weft_kinds::CONFIG_MAP,
            Some("one"),
            object,
            &WriteOptions::default(),
        )
        .await;
    assert_eq!(refused.unwrap_err().code, 403);
}

#[tokio::test]
async fn what_fails_is_decided_by_the_failure_policy_and_keeps_nobody_else() {
    let world = World::new().await;
    for name in ["one", "two"] {
        namespace(&world, name, json!({})).await;
    }
    let hook = Hook::start(&["127.0.0.1"], |review| {
        match review["request"]["name"].as_str().unwrap_or("") {
            "hangs" => Reply::Never,
            "huge" => Reply::Raw(200, vec![b' '; 17 << 20]),
            "uid" => Reply::Says(json!({"allowed": true, "uid": "another"})),
            "error" => Reply::Raw(500, b"broken".to_vec()),
            "text" => Reply::Raw(200, b"hello".to_vec()),
            "moved" => Reply::Raw(302, Vec::new()),
            _ => allowed(),
        }
    })
    .await;
    let config = hook.client_config();
    let hooks = |policy: &str| {
        let more = json!({"failurePolicy": policy, "timeoutSeconds": 1});
        json!({"metadata": {"name": "v"}, "webhooks": [webhook("a.example.com", &config, "one", &more)]})
    };
    let made = made(&world, VALIDATING, hooks("Fail")).await;
    let start =
        "500 InternalError: Internal error occurred: failed calling webhook \"a.example.com\": ";
    for (name, expected) in [
        ("hangs", format!("failed to call webhook: Post \"https://127.0.0.1:{}/ask?timeout=1s\": context deadline exceeded", hook.port)),
        ("huge", format!("failed to call webhook: Post \"https://127.0.0.1:{}/ask?timeout=1s\": the answer is larger than 16777216 bytes", hook.port)),
        ("error", "failed to call webhook: an error on the server (\"broken\") has prevented the request from succeeding".to_owned()),
        ("moved", "failed to call webhook: the server responded with the status code 302 but did not return more information".to_owned()),
    ] {
        let refused = config_map(&world, "one", name, json!({})).await;
        assert_eq!(refused.line(), format!("{start}{expected}"));
    }
    let refused = config_map(&world, "one", "uid", json!({})).await.line();
    assert!(
        refused.contains("expected response.uid=") && refused.ends_with("got \"another\""),
        "{refused}"
    );
    let refused = config_map(&world, "one", "text", json!({})).await.line();
    assert!(refused.contains("json parse error"), "{refused}");

    // While one hangs, the other tenant is served.
    let started = Instant::now();
    let (hung, other) = tokio::join!(config_map(&world, "one", "hangs", json!({})), async {
        let answer = config_map(&world, "two", "a", json!({})).await;
        (answer.status, started.elapsed())
    });
    assert_eq!((hung.status, other.0), (500, 201));
    assert!(other.1 < Duration::from_millis(900), "{:?}", other.1);

    // With Ignore, all of them pass.
    let version = made["metadata"]["resourceVersion"].clone();
    let mut open = hooks("Ignore");
    open["metadata"]["resourceVersion"] = version;
    let answer = world.ask(&format!("PUT {VALIDATING}/v"), open).await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    for name in ["hangs", "huge", "uid", "error", "text", "moved"] {
        let taken = config_map(&world, "one", name, json!({})).await;
        assert_eq!(taken.status, 201, "{}", taken.line());
    }
}

#[tokio::test]
async fn attack_76_no_redirect_of_a_webhook_is_followed() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    let inside = Hook::start(&["127.0.0.1"], |_| allowed()).await;
    for status in [301, 302, 303, 307, 308] {
        let target = format!("https://127.0.0.1:{}/ask", inside.port);
        let hook = Hook::start(&["127.0.0.1"], move |_| {
            Reply::Moved(status, target.clone())
        })
        .await;
        let name = format!("moves-{status}");
        let hooks = [webhook(
            "a.example.com",
            &hook.client_config(),
            "one",
            &json!({}),
        )];
        made(
            &world,
            VALIDATING,
            json!({"metadata": {"name": name}, "webhooks": hooks}),
        )
        .await;
        let answer = config_map(&world, "one", "a", json!({"k": "v"})).await;
        assert_eq!(answer.status, 500, "{status}: {}", answer.line());
        assert_eq!((hook.count(), inside.count()), (1, 0), "{status}");
        let gone = format!("DELETE {VALIDATING}/{name}");
        assert_eq!(world.ask(&gone, Value::Null).await.status, 200);
    }
}

#[tokio::test]
async fn a_webhook_is_believed_by_its_certificate() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    let hook = Hook::start(&["127.0.0.1"], |_| allowed()).await;
    let other = Hook::start(&["127.0.0.1"], |_| allowed()).await;
    let misnamed = Hook::start(&["example.com"], |_| allowed()).await;
    let mut forged = hook.client_config();
    forged["caBundle"] = other.ca.clone().into();
    let nowhere = json!({"url": "https://127.0.0.1:1/", "caBundle": hook.ca});
    for (config, expected) in [
        (hook.client_config(), "201 "),
        (forged, "tls: failed to verify certificate"),
        (
            misnamed.client_config(),
            "tls: failed to verify certificate",
        ),
        (nowhere, "dial tcp 127.0.0.1:1: connect: connection refused"),
    ] {
        let hooks = [webhook("a.example.com", &config, "one", &json!({}))];
        made(
            &world,
            VALIDATING,
            json!({"metadata": {"name": "v"}, "webhooks": hooks}),
        )
        .await;
        let answer = config_map(&world, "one", "a", json!({})).await.line();
        assert!(answer.contains(expected), "{answer}");
        world
            .ask(&format!("DELETE {VALIDATING}/v"), Value::Null)
            .await;
        world
            .ask("DELETE /api/v1/namespaces/one/configmaps/a", Value::Null)
            .await;
    }
    assert_eq!(misnamed.count(), 0);
    // Others than admission ask in the same way.
    let target = weft_kinds::admission::webhook::Target::of(&hook.client_config()).unwrap();
    let question = json!({"kind": "ConversionReview"});
    let answer = world
        .objects
        .ask_webhook(&target, &question, Duration::from_secs(5));
    assert_eq!(answer.await.unwrap()["kind"], "ConversionReview");
    assert_eq!(
        hook.asked.lock().last().unwrap()["kind"],
        "ConversionReview"
    );
}

/// A Service is reached at the endpoints that somebody wrote for it, under its own name.
#[tokio::test]
async fn a_service_is_asked_under_its_own_name() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    let hook = Hook::start(&["hook.one.svc"], |_| {
        Reply::Says(json!({"allowed": false}))
    })
    .await;
    let config = json!({"service": {"namespace": "one", "name": "hook", "path": "/judge", "port": 8443}, "caBundle": hook.ca});
    let hooks = [webhook("a.example.com", &config, "one", &json!({}))];
    made(
        &world,
        VALIDATING,
        json!({"metadata": {"name": "v"}, "webhooks": hooks}),
    )
    .await;
    let missing = config_map(&world, "one", "a", json!({})).await.line();
    assert!(missing.ends_with("service \"hook\" not found"), "{missing}");
    made(
        &world,
        "/api/v1/namespaces/one/services",
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 8443}]}}),
    )
    .await;
    let empty = config_map(&world, "one", "a", json!({})).await.line();
    assert!(
        empty.ends_with("no endpoints available for service \"hook\""),
        "{empty}"
    );
    // One that stands for a name outside of the cluster is called there, and has to show its own name nevertheless.
    world
        .ask("DELETE /api/v1/namespaces/one/services/hook", Value::Null)
        .await;
    let outside = json!({"metadata": {"name": "hook"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    made(&world, "/api/v1/namespaces/one/services", outside).await;
    world
        .ask(&format!("DELETE {VALIDATING}/v"), Value::Null)
        .await;
    let config = json!({"service": {"namespace": "one", "name": "hook", "path": "/judge", "port": hook.port}, "caBundle": hook.ca});
    let hooks = [webhook("a.example.com", &config, "one", &json!({}))];
    made(
        &world,
        VALIDATING,
        json!({"metadata": {"name": "v"}, "webhooks": hooks}),
    )
    .await;
    let refused = config_map(&world, "one", "a", json!({})).await.line();
    assert_eq!(
        refused,
        "400 : admission webhook \"a.example.com\" denied the request without explanation"
    );
}

#[tokio::test]
async fn what_webhooks_change_is_judged_and_shown_to_those_before() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    let patch = |patch: Value| {
        Reply::Says(
            json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())}),
        )
    };
    // The first completes what the second asks for, and so is asked again.
    let first = Hook::start(&["127.0.0.1"], move |review| {
        let labels = &review["request"]["object"]["metadata"]["labels"];
        match labels["wants"] == "more" && labels["more"].is_null() {
            true => patch(json!([{"op": "add", "path": "/metadata/labels/more", "value": "yes"}])),
            false => allowed(),
        }
    })
    .await;
    let second = Hook::start(&["127.0.0.1"], move |review| {
        match review["request"]["object"]["metadata"]["labels"].is_null() {
            true => patch(
                json!([{"op": "add", "path": "/metadata/labels", "value": {"wants": "more"}}]),
            ),
            false => allowed(),
        }
    })
    .await;
    let again = json!({"reinvocationPolicy": "IfNeeded", "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    let hooks = [
        webhook("a.example.com", &first.client_config(), "one", &again),
        webhook("b.example.com", &second.client_config(), "one", &json!({})),
    ];
    made(
        &world,
        MUTATING,
        json!({"metadata": {"name": "m"}, "webhooks": hooks}),
    )
    .await;
    let taken = config_map(&world, "one", "a", json!({"k": "v"})).await;
    assert_eq!(taken.status, 201, "{}", taken.line());
    assert_eq!(
        taken.body["metadata"]["labels"],
        json!({"wants": "more", "more": "yes"})
    );
    assert_eq!((first.count(), second.count()), (2, 1));
    // A new object has no identity before it is made.
    let mut shown = first.asked.lock()[0]["request"]["object"]["metadata"].clone();
    assert!(shown["managedFields"].take().is_array());
    assert_eq!(
        shown,
        json!({"name": "a", "namespace": "one", "managedFields": null})
    );

    // What is not stored is only shown to those that say that this is nothing to them; what they make of it is judged as any other.
    let dry = "POST /api/v1/namespaces/one/configmaps?dryRun=All";
    let taken = world.ask(dry, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        (taken.status, &taken.body["metadata"]["labels"]["more"]),
        (201, &json!("yes"))
    );
    let last = second.asked.lock().last().cloned().unwrap();
    assert_eq!(last["request"]["dryRun"], true);
    assert_eq!(
        world
            .get("/api/v1/namespaces/one/configmaps/b")
            .await
            .status,
        404
    );

    world
        .ask(&format!("DELETE {MUTATING}/m"), Value::Null)
        .await;
    let wrong = Hook::start(&["127.0.0.1"], move |_| {
        patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"a b": "c"}}]))
    })
    .await;
    let hooks = [webhook(
        "a.example.com",
        &wrong.client_config(),
        "one",
        &json!({}),
    )];
    made(
        &world,
        MUTATING,
        json!({"metadata": {"name": "m"}, "webhooks": hooks}),
    )
    .await;
    let refused = config_map(&world, "one", "c", json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.line());
    // Neither a deletion has anything to change.
    let refused = world
        .ask("DELETE /api/v1/namespaces/one/configmaps/a", Value::Null)
        .await;
    assert!(
        refused
            .line()
            .contains("attempted to modify the object, which is not supported for this operation"),
        "{}",
        refused.line()
    );
    // And nothing keeps its owner from taking it away.
    assert_eq!(
        world
            .ask(&format!("DELETE {MUTATING}/m"), Value::Null)
            .await
            .status,
        200
    );
}

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

fn matching(resource: &str) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}]})
}

#[tokio::test]
async fn policies_judge_where_they_are_bound() {
    let world = World::new().await;
    namespace(&world, "one", json!({"env": "prod"})).await;
    namespace(&world, "two", json!({})).await;
    made(&world, POLICIES, json!({"metadata": {"name": "sizes"}, "spec": {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": matching("configmaps"),
        "matchConditions": [{"name": "own", "expression": "object.metadata.name != 'limits'"}],
        "variables": [{"name": "count", "expression": "has(object.data) ? size(object.data) : 0"}],
        "validations": [
            {"expression": "variables.count <= int(params.data.most)", "messageExpression": "'at most ' + params.data.most + ' in ' + namespaceObject.metadata.name"},
            {"expression": "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()", "message": "who makes these may make pods", "reason": "Forbidden"},
        ],
        "auditAnnotations": [{"key": "count", "valueExpression": "string(variables.count)"}],
    }}))
    .await;
    // Without a binding, it does nothing.
    assert_eq!(
        config_map(&world, "one", "a", json!({"a": "1", "b": "2"}))
            .await
            .status,
        201
    );
    made(
        &world,
        BINDINGS,
        json!({"metadata": {"name": "prod"}, "spec": {
            "policyName": "sizes", "validationActions": ["Deny"],
            "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"},
            "matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
        }}),
    )
    .await;
    let start = "ValidatingAdmissionPolicy 'sizes' with binding 'prod' denied request: ";
    let lost = config_map(&world, "one", "b", json!({})).await;
    assert_eq!(
        lost.line(),
        format!(
            "422 Invalid: configmaps \"b\" is forbidden: {start}failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    );
    // The params are there, once they are let in: the binding is about them, too.
    world
        .ask(&format!("DELETE {BINDINGS}/prod"), Value::Null)
        .await;
    assert_eq!(
        config_map(&world, "one", "limits", json!({"most": "1"}))
            .await
            .status,
        201
    );
    for (name, actions) in [
        ("prod", json!(["Deny"])),
        ("tell", json!(["Warn", "Audit"])),
    ] {
        made(
            &world,
            BINDINGS,
            json!({"metadata": {"name": name}, "spec": {
                "policyName": "sizes", "validationActions": actions,
                "paramRef": {"name": "limits", "parameterNotFoundAction": "Allow"},
                "matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
            }}),
        )
        .await;
    }
    assert_eq!(
        config_map(&world, "one", "b", json!({"a": "1"}))
            .await
            .line(),
        "201 ConfigMap b"
    );
    let refused = config_map(&world, "one", "c", json!({"a": "1", "b": "2"})).await;
    assert_eq!(
        refused.line(),
        format!("422 Invalid: configmaps \"c\" is forbidden: {start}at most 1 in one")
    );
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        format!("{start}at most 1 in one")
    );
    assert_eq!(
        config_map(&world, "two", "c", json!({"a": "1", "b": "2"}))
            .await
            .status,
        201
    );
    // Whoever only warns lets it pass.
    world
        .ask(&format!("DELETE {BINDINGS}/prod"), Value::Null)
        .await;
    let warned = config_map(&world, "one", "c", json!({"a": "1", "b": "2"})).await;
    assert_eq!(warned.status, 201, "{}", warned.line());
    assert_eq!(
        warnings(&warned),
        [
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'sizes' with binding 'tell': at most 1 in one\""
        ]
    );
}

#[tokio::test]
async fn policies_change_objects() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    let base = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic";
    made(&world, &format!("{base}ies"), json!({"metadata": {"name": "label"}, "spec": {
        "matchConstraints": matching("configmaps"), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "has(object.metadata.labels) ? [] : [JSONPatch{op: 'add', path: '/metadata/labels', value: {'by': request.userInfo.username}}]"}}],
    }}))
    .await;
    made(
        &world,
        &format!("{base}ybindings"),
        json!({"metadata": {"name": "label"}, "spec": {"policyName": "label"}}),
    )
    .await;
    let taken = config_map(&world, "one", "a", json!({})).await;
    assert_eq!(taken.status, 201, "{}", taken.line());
    assert_eq!(taken.body["metadata"]["labels"], json!({"by": "admin"}));
    assert!(taken.body["metadata"]["uid"].is_string());
    // What a policy adds is nobody's.
    assert_eq!(taken.body["metadata"]["managedFields"], Value::Null);
    let path = "/api/v1/namespaces/one/configmaps/a";
    let updated = world
        .patch(path, "merge-patch", json!({"metadata": {"labels": null}}))
        .await;
    assert_eq!(updated.body["metadata"]["labels"], json!({"by": "admin"}));
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}})
}

#[tokio::test]
async fn limit_ranges_fill_and_refuse() {
    let world = World::new().await;
    namespace(&world, "one", json!({})).await;
    made(
        &world,
        "/api/v1/namespaces/one/limitranges",
        json!({"metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}},
        ]}}),
    )
    .await;
    let pods = "POST /api/v1/namespaces/one/pods";
    let taken = world.ask(pods, pod("a", json!({}))).await;
    assert_eq!(
        taken.body["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}})
    );
    assert_eq!(
        taken.body["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let owner = &taken.body["metadata"]["managedFields"][0]["fieldsV1"];
    let container = &owner["f:spec"]["f:containers"][r#"k:{"name":"c"}"#];
    assert_eq!(container["f:resources"], json!({}), "{owner}");
    assert_eq!(owner.get("f:metadata"), None, "{owner}");
    let refused = world
        .ask(pods, pod("b", json!({"limits": {"cpu": "2"}})))
        .await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    let table = world.table("/api/v1/namespaces/one/limitranges").await;
    assert!(
        table.line().starts_with("200 [\"l\",\"20"),
        "{}",
        table.line()
    );
}

/// A quota with its status, as the controller leaves it.
async fn quota(world: &World, namespace: &str, hard: Value, used: Value) {
    let path = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    made(
        world,
        &path,
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}),
    )
    .await;
    let status = json!({"status": {"hard": hard, "used": used}});
    let answer = world
        .patch(&format!("{path}/q/status"), "merge-patch", status)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.line());
}

/// As many as there is room for, however many ask at once; and the usage says so.
#[tokio::test]
async fn a_quota_is_never_overrun() {
    let world = Arc::new(World::new().await);
    for name in ["one", "two"] {
        namespace(&world, name, json!({})).await;
        quota(
            &world,
            name,
            json!({"configmaps": "7", "count/configmaps": "9"}),
            json!({"configmaps": "0", "count/configmaps": "0"}),
        )
        .await;
    }
    let mut asked = Vec::new();
    for number in 0..24 {
        for name in ["one", "two"] {
            let world = Arc::clone(&world);
            asked.push(tokio::spawn(async move {
                config_map(&world, name, &format!("m{number}"), json!({})).await
            }));
        }
    }
    let mut taken = 0;
    for answer in asked {
        let answer = answer.await.unwrap();
        match answer.status {
            201 => taken += 1,
            _ => assert!(
                answer.line().ends_with("is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=7, limited: configmaps=7"),
                "{}",
                answer.line()
            ),
        }
    }
    assert_eq!(taken, 14);
    for name in ["one", "two"] {
        let found = world
            .get(&format!("/api/v1/namespaces/{name}/resourcequotas/q"))
            .await;
        assert_eq!(
            found.body["status"]["used"],
            json!({"configmaps": "7", "count/configmaps": "7"})
        );
        let listed = world
            .get(&format!("/api/v1/namespaces/{name}/configmaps"))
            .await;
        assert_eq!(listed.body["items"].as_array().unwrap().len(), 7);
    }
    // What is tried does not count.
    let dry = "POST /api/v1/namespaces/one/secrets?dryRun=All";
    assert_eq!(
        world
            .ask(dry, json!({"metadata": {"name": "s"}}))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn namespaces_are_held_to_the_pod_security_standards() {
    let world = World::new().await;
    namespace(
        &world,
        "strict",
        json!({"pod-security.kubernetes.io/enforce": "baseline"}),
    )
    .await;
    namespace(&world, "free", json!({})).await;
    let mut bad = pod("a", json!({}));
    bad["spec"]["hostNetwork"] = true.into();
    let refused = world
        .ask("POST /api/v1/namespaces/strict/pods", bad.clone())
        .await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    assert_eq!(
        world
            .ask("POST /api/v1/namespaces/free/pods", bad.clone())
            .await
            .status,
        201
    );
    // Whoever makes pods is warned; whoever raises the level, too.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": bad["spec"]},
    }});
    let warned = world
        .ask(
            "POST /apis/apps/v1/namespaces/strict/deployments",
            deployment,
        )
        .await;
    assert_eq!(warned.status, 201, "{}", warned.line());
    assert_eq!(
        warnings(&warned),
        [
            "299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostNetwork=true)\""
        ]
    );
    let label = |value: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": value}}});
    let raised = world
        .patch("/api/v1/namespaces/free", "merge-patch", label("baseline"))
        .await;
    assert_eq!(
        warnings(&raised),
        [
            "299 - \"existing pods in namespace \\\"free\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a: host namespaces\"",
        ]
    );
    let refused = world
        .patch("/api/v1/namespaces/free", "merge-patch", label("none"))
        .await;
    assert_eq!(
        refused.line(),
        "422 Invalid: Namespace \"free\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, baseline, restricted"
    );
}
