//! Who may do what by roles: what a cluster has of them, how one gets them, and that nobody gives what he does not have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;

use crate::world::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const RULES: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const ACCESS: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
const LOCAL: &str =
    "POST /apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";

/// A cluster with the roles that every one has.
async fn world() -> World {
    let world = World::new().await;
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    world
}

async fn made(world: &World, path: &str, object: Value) {
    let answer = world.ask(&format!("POST {RBAC}/{path}"), object).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
    })
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

/// Lets `jo` do something in `default`.
async fn let_jo(world: &World, name: &str, verbs: &[&str], group: &str, resources: &[&str]) {
    let mut role = role(name, verbs, resources);
    role["rules"][0]["apiGroups"] = json!([group]);
    made(world, "namespaces/default/roles", role).await;
    let binding = binding(name, "Role", name, "jo");
    made(world, "namespaces/default/rolebindings", binding).await;
}

#[tokio::test]
async fn a_fresh_cluster_has_the_roles_of_every_cluster() {
    let world = world().await;
    let listed = world.get(&format!("{RBAC}/clusterroles")).await.body;
    let names: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect();
    for name in [
        "admin",
        "cluster-admin",
        "edit",
        "view",
        "system:node",
        "system:basic-user",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    // Whoever is known may see what there is, and ask about himself; strangers, whether the server is there.
    for (token, path, status) in [
        ("user", "GET /api", 200),
        ("user", "GET /apis/apps/v1", 200),
        ("user", "GET /openapi/v3", 200),
        ("user", "GET /version", 200),
        ("user", "GET /metrics", 403),
    ] {
        let answer = world.ask_as(token, path, Value::Null).await;
        assert_eq!(answer.status, status, "{path}");
    }
    for (path, status) in [
        ("/version", 200),
        ("/livez", 200),
        ("/healthz", 200),
        ("/api", 403),
        ("/openid/v1/jwks", 403),
    ] {
        let mut request = world.request(&format!("GET {path}"), &[], "");
        request.headers_mut().remove(http::header::AUTHORIZATION);
        assert_eq!(world.send(request).await.status, status, "{path}");
    }
    // What an administrator takes away stays away until the next leader, and what he marks as his stays his.
    let name = "system:public-info-viewer";
    let path = format!("{RBAC}/clusterrolebindings/{name}");
    world.ask(&format!("DELETE {path}"), Value::Null).await;
    let mut request = world.request("GET /version", &[], "");
    request.headers_mut().remove(http::header::AUTHORIZATION);
    assert_eq!(world.send(request).await.status, 403);
    let own = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "subjects": []});
    let basic = format!("{RBAC}/clusterrolebindings/system:basic-user");
    world.patch(&basic, "merge-patch", own).await;
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    assert_eq!(world.get(&path).await.status, 200);
    assert_eq!(world.get(&basic).await.body.get("subjects"), None);
    // A binding to another role is made anew.
    world.ask(&format!("DELETE {path}"), Value::Null).await;
    let other = binding(name, "ClusterRole", "view", "jo");
    made(&world, "clusterrolebindings", other).await;
    world.objects.ensure_roles(&system).await.unwrap();
    assert_eq!(world.get(&path).await.body["roleRef"]["name"], name);
}

#[tokio::test]
async fn what_is_bound_is_allowed_and_what_is_taken_back_is_not() {
    let world = world().await;
    let list = format!("GET {PODS}");
    let refused = world.ask_as("user", &list, Value::Null).await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: pods is forbidden: User \"jo\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let_jo(
        &world,
        "reader",
        &["get", "list"],
        "",
        &["pods", "configmaps"],
    )
    .await;
    assert_eq!(world.ask_as("user", &list, Value::Null).await.status, 200);
    let elsewhere = "GET /api/v1/namespaces/kube-system/pods";
    assert_eq!(
        world.ask_as("user", elsewhere, Value::Null).await.status,
        403
    );
    assert_eq!(
        world
            .ask_as("user", "GET /api/v1/pods", Value::Null)
            .await
            .status,
        403
    );
    let write = format!("POST {MAPS}");
    let map = config_map("m", "1");
    assert_eq!(world.ask_as("user", &write, map).await.status, 403);
    let path = format!("{RBAC}/namespaces/default/rolebindings/reader");
    world.ask(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(world.ask_as("user", &list, Value::Null).await.status, 403);

    // A binding to what is not there gives nothing, and is told.
    let nothing = binding("nothing", "ClusterRole", "none", "jo");
    made(&world, "clusterrolebindings", nothing).await;
    let told = world.ask_as("user", &list, Value::Null).await.line();
    assert!(
        told.ends_with("in the namespace \"default\": rbac: RBAC: clusterrole.rbac.authorization.k8s.io \"none\" not found"),
        "{told}"
    );
    made(&world, "clusterroles", role("none", &["list"], &["pods"])).await;
    assert_eq!(world.ask_as("user", &list, Value::Null).await.status, 200);
    assert_eq!(
        world
            .ask_as("user", "GET /api/v1/pods", Value::Null)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn reviews_say_why() {
    let world = world().await;
    let_jo(&world, "reader", &["get"], "", &["pods"]).await;
    let ask = |line: &'static str, spec: Value| {
        let world = &world;
        async move { world.ask(line, json!({"spec": spec})).await }
    };
    let of_pods = |verb: &str, namespace: &str| json!({"verb": verb, "resource": "pods", "namespace": namespace});
    for (spec, expected) in [
        (
            json!({"user": "jo", "resourceAttributes": of_pods("get", "default")}),
            json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"reader/default\" of Role \"reader\" to User \"jo\""}),
        ),
        (
            json!({"user": "jo", "resourceAttributes": of_pods("list", "default")}),
            json!({"allowed": false}),
        ),
        (
            json!({"groups": ["system:masters"], "resourceAttributes": of_pods("list", "")}),
            json!({"allowed": true}),
        ),
        (
            json!({"user": "x", "groups": ["system:authenticated"], "nonResourceAttributes": {"verb": "get", "path": "/api"}}),
            json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\""}),
        ),
    ] {
        let answer = ask(ACCESS, spec).await;
        assert_eq!((answer.status, &answer.body["status"]), (201, &expected));
    }
    let local = json!({"user": "jo", "resourceAttributes": of_pods("get", "default")});
    assert_eq!(ask(LOCAL, local).await.body["status"]["allowed"], true);
    let rules = world
        .ask_as("user", RULES, json!({"spec": {"namespace": "default"}}))
        .await;
    let status = &rules.body["status"];
    let of_role = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    assert!(
        status["resourceRules"]
            .as_array()
            .unwrap()
            .contains(&of_role),
        "{status}"
    );
    assert_eq!(status["incomplete"], false);
    let paths = status["nonResourceRules"].to_string();
    assert!(
        paths.contains("/healthz") && paths.contains("/apis/*"),
        "{paths}"
    );
    assert_eq!(
        world
            .ask_as("user", RULES, json!({"spec": {}}))
            .await
            .line(),
        "400 BadRequest: no namespace on request"
    );
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_have() {
    let world = world().await;
    let rbac = ["roles", "rolebindings"];
    let verbs = ["create", "update", "patch", "get"];
    let_jo(&world, "giver", &verbs, "rbac.authorization.k8s.io", &rbac).await;
    let_jo(&world, "reader", &["get", "list"], "", &["pods"]).await;
    let roles = format!("POST {RBAC}/namespaces/default/roles");
    let bindings = format!("POST {RBAC}/namespaces/default/rolebindings");
    let held = role("small", &["get"], &["pods"]);
    assert_eq!(world.ask_as("user", &roles, held).await.status, 201);
    let more = role("large", &["get", "delete", "watch"], &["pods"]);
    let refused = world.ask_as("user", &roles, more.clone()).await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: roles.rbac.authorization.k8s.io \"large\" is forbidden: user \"jo\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}"
    );
    let change = json!({"rules": more["rules"]});
    let path = format!("PUT {RBAC}/namespaces/default/roles/small");
    let mut larger = role("small", &["get", "delete"], &["pods"]);
    larger["rules"][0]["verbs"] = change["rules"][0]["verbs"].clone();
    assert_eq!(world.ask_as("user", &path, larger).await.status, 403);
    // Labels are nothing that anybody is given.
    let mut labelled = role("small", &["get"], &["pods"]);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(world.ask_as("user", &path, labelled).await.status, 200);

    let own = binding("own", "Role", "small", "ko");
    assert_eq!(world.ask_as("user", &bindings, own).await.status, 201);
    let admin = binding("admin", "ClusterRole", "cluster-admin", "jo");
    let refused = world.ask_as("user", &bindings, admin.clone()).await;
    assert!(
        refused
            .line()
            .contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"),
        "{}",
        refused.line()
    );
    let none = binding("none", "ClusterRole", "none", "jo");
    assert_eq!(
        world.ask_as("user", &bindings, none).await.line(),
        "404 NotFound: rolebindings.rbac.authorization.k8s.io \"none\" not found"
    );
    // Unless he may give just that.
    let mut binder = role("binder", &["bind"], &["clusterroles"]);
    binder["rules"][0]["apiGroups"] = json!(["rbac.authorization.k8s.io"]);
    binder["rules"][0]["resourceNames"] = json!(["cluster-admin"]);
    made(&world, "namespaces/default/roles", binder).await;
    let may = binding("binder", "Role", "binder", "jo");
    made(&world, "namespaces/default/rolebindings", may).await;
    assert_eq!(world.ask_as("user", &bindings, admin).await.status, 201);
    let anything = role("large", &["*"], &["*"]);
    assert_eq!(
        world.ask_as("user", &roles, anything).await.status,
        201,
        "he holds all of it now"
    );
    // In the namespace, but not everywhere.
    let everywhere = format!("POST {RBAC}/clusterroles");
    let view = role("x", &["get"], &["pods"]);
    assert_eq!(world.ask_as("user", &everywhere, view).await.status, 403);
}

#[tokio::test]
async fn who_may_acts_for_another_with_that_ones_rights() {
    let world = world().await;
    let_jo(&world, "reader", &["list"], "", &["pods"]).await;
    let as_other =
        |token: &'static str, path: String, headers: Vec<(&'static str, &'static str)>| {
            let world = &world;
            async move {
                let mut request = world.request(&path, &[], "");
                let bearer = http::HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
                request
                    .headers_mut()
                    .insert(http::header::AUTHORIZATION, bearer);
                for (name, value) in headers {
                    let name = HeaderName::from_static(name);
                    request
                        .headers_mut()
                        .append(name, http::HeaderValue::from_static(value));
                }
                world.send(request).await
            }
        };
    let list = || format!("GET {PODS}");
    let user = "impersonate-user";
    for (headers, status) in [
        (vec![(user, "jo")], 200),
        (vec![(user, "ko")], 403),
        (
            vec![(user, "ko"), ("impersonate-group", "system:masters")],
            200,
        ),
        (vec![("impersonate-group", "system:masters")], 400),
        (vec![(user, "system:anonymous")], 403),
    ] {
        let answer = as_other("secret", list(), headers.clone()).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.line());
    }
    let refused = as_other("user", list(), vec![(user, "ko")]).await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: pods is forbidden: User \"jo\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    // As one who may be anybody of these names.
    let mut poser = role("poser", &["impersonate"], &["users"]);
    poser["rules"][0]["resourceNames"] = json!(["ko"]);
    made(&world, "clusterroles", poser).await;
    let may = binding("poser", "ClusterRole", "poser", "jo");
    made(&world, "clusterrolebindings", may).await;
    let as_ko = binding("ko", "Role", "reader", "ko");
    made(&world, "namespaces/default/rolebindings", as_ko).await;
    assert_eq!(
        as_other("user", list(), vec![(user, "ko")]).await.status,
        200
    );
    assert_eq!(
        as_other("user", list(), vec![(user, "mo")]).await.status,
        403
    );
    let more = vec![(user, "ko"), ("impersonate-group", "g")];
    assert_eq!(as_other("user", list(), more).await.status, 403);

    // Who one is then, with everything that was said.
    let who = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned();
    let said = vec![
        (user, "system:serviceaccount:default:web"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fteam", "x"),
    ];
    let mut request = world.request(&who, &[], "{}");
    for (name, value) in said {
        let name = HeaderName::from_static(name);
        request
            .headers_mut()
            .append(name, http::HeaderValue::from_static(value));
    }
    let answer = world.send(request).await;
    assert_eq!(
        answer.body["status"]["userInfo"],
        json!({
            "username": "system:serviceaccount:default:web", "uid": "7",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
            "extra": {"example.com/team": ["x"]},
        })
    );
}

#[tokio::test]
async fn what_is_not_served_is_judged_as_what_it_would_be() {
    let world = world().await;
    let lines = [
        // Everybody may ask who he is, in whichever version.
        (
            "POST /apis/authentication.k8s.io/v1alpha1/selfsubjectreviews",
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "GET /apis/example.com/v1/namespaces/default/foos/x/status",
            "403 Forbidden: foos.example.com \"x\" is forbidden: User \"jo\" cannot get resource \"foos/status\" in API group \"example.com\" in the namespace \"default\"",
        ),
        (
            "DELETE /api/v1/foos",
            "403 Forbidden: foos is forbidden: User \"jo\" cannot deletecollection resource \"foos\" in API group \"\" at the cluster scope",
        ),
    ];
    for (line, told) in lines {
        let answer = world.ask_as("user", line, Value::Null).await;
        assert_eq!(answer.line(), told, "{line}");
    }
}

#[tokio::test]
async fn approval_and_status_of_certificate_requests_have_parts_of_their_own() {
    const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let world = world().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = rcgen::DnType::CommonName;
    params.distinguished_name.push(name, "jo");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({
        "metadata": {"name": "jo"},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": "example.com/own", "usages": ["client auth"],
        },
    });
    let made = world.ask(&format!("POST {CSRS}"), request).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let patch = async |part: &str, body: Value| {
        let path = format!("{CSRS}/jo/{part}");
        world.patch(&path, "merge-patch", body).await.body
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Test"});
    let approved = patch(
        "approval",
        json!({
            "metadata": {"annotations": {"a": "1"}},
            "spec": {"signerName": "example.com/another"},
            "status": {"conditions": [condition("Approved")], "certificate": "eA=="},
        }),
    )
    .await;
    assert_eq!(approved["metadata"]["annotations"]["a"], "1");
    assert_eq!(approved["spec"]["signerName"], "example.com/own");
    assert_eq!(approved["status"]["certificate"], Value::Null);
    let first = approved["status"]["conditions"][0].clone();
    assert_ne!(first["lastUpdateTime"], Value::Null);
    assert_eq!(first["lastTransitionTime"], first["lastUpdateTime"]);

    // Who writes the status does not say anew when it was approved.
    let told = patch(
        "status",
        json!({
            "metadata": {"annotations": {"b": "2"}},
            "status": {"conditions": [condition("Approved"), condition("Seen")]},
        }),
    )
    .await;
    assert_eq!(told["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
    assert_eq!(told["status"]["conditions"][0], first);
    assert_eq!(told["status"]["conditions"][1]["type"], "Seen");
}
