//! Tokens of ServiceAccounts: how one gets them, whose they are, and when they are worth nothing any more.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;

use crate::world::*;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TOKEN: &str = "POST /api/v1/namespaces/default/serviceaccounts/web/token";
const REVIEWS: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn world() -> World {
    let world = World::new().await;
    let account = json!({"metadata": {"name": "web"}});
    let made = world.ask(&format!("POST {ACCOUNTS}"), account).await;
    assert_eq!(made.status, 201);
    world
}

/// A pod of the account, on a node, with a volume that asks for a token for `vault`.
async fn pod_of_web(world: &World, name: &str) -> Value {
    let mut body = pod(name);
    body["spec"]["serviceAccountName"] = "web".into();
    body["spec"]["nodeName"] = "a".into();
    body["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "audience": "vault"}},
    ]}}]);
    let made = world.ask(&format!("POST {PODS}"), body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

fn bound(kind: &str, object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({"spec": {"boundObjectRef": {
        "apiVersion": "v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"],
    }}})
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn token_of(answer: &Answer) -> &str {
    let token = answer.body["status"]["token"].as_str();
    token.unwrap_or_else(|| panic!("{}", answer.line()))
}

async fn review(world: &World, spec: Value) -> Value {
    let answer = world.ask(REVIEWS, json!({"spec": spec})).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    answer.body["status"].clone()
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_is_believed() {
    let world = world().await;
    let answer = world.ask(TOKEN, json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    let body = &answer.body;
    assert_eq!(
        (
            &body["kind"],
            &body["apiVersion"],
            &body["metadata"]["name"]
        ),
        (
            &json!("TokenRequest"),
            &json!("authentication.k8s.io/v1"),
            &json!("web")
        )
    );
    assert_eq!(
        body["spec"],
        json!({"audiences": [ISSUER], "expirationSeconds": 3600, "boundObjectRef": null})
    );
    let token = token_of(&answer);
    let said = claims(token);
    assert_eq!(said["sub"], "system:serviceaccount:default:web");
    assert_eq!(
        said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(),
        3600
    );
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(
        status,
        json!({
            "authenticated": true, "audiences": [ISSUER],
            "user": {
                "username": "system:serviceaccount:default:web",
                "uid": body["metadata"]["uid"],
                "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/credential-id": [format!("JTI={}", said["jti"].as_str().unwrap())]},
            },
        })
    );
    // Who has it, is the account: everything is refused to it by name.
    let listed = world
        .ask_as(token, &format!("GET {PODS}"), Value::Null)
        .await;
    assert_eq!(
        listed.line(),
        "403 Forbidden: pods is forbidden: User \"system:serviceaccount:default:web\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn what_may_be_asked_of_a_token() {
    let world = world().await;
    let other = json!({"metadata": {"name": "other"}});
    world.ask(&format!("POST {ACCOUNTS}"), other).await;
    let mut running = pod("p");
    running["spec"]["serviceAccountName"] = "other".into();
    let running = world.ask(&format!("POST {PODS}"), running).await.body;
    let mut wrong_uid = bound("Pod", &running);
    wrong_uid["spec"]["boundObjectRef"]["uid"] = "x".into();
    for (body, expected) in [
        (
            json!({"spec": {"expirationSeconds": 599}}),
            "422 Invalid: TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"spec": {"expirationSeconds": 4_294_967_297_i64}}),
            "422 Invalid: TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (
            json!({"metadata": {"name": "x"}}),
            "422 Invalid: TokenRequest.authentication.k8s.io \"web\" is invalid: metadata.name: Invalid value: \"x\": must match the service account name if specified",
        ),
        (
            json!({"metadata": {"uid": "x"}}),
            "409 Conflict: Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"web\": the UID in the token request (x)",
        ),
        (
            bound("Pod", &running),
            "400 BadRequest: cannot bind token for serviceaccount \"web\" to pod running with different serviceaccount name.",
        ),
        (
            bound("Pod", &json!({"metadata": {"name": "none"}})),
            "404 NotFound: pods \"none\" not found",
        ),
        (
            bound("ConfigMap", &running),
            "400 BadRequest: cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
    ] {
        let line = world.ask(TOKEN, body).await.line();
        assert!(line.starts_with(expected), "{line}");
    }
    let nobody = TOKEN.replace("/web/", "/none/");
    assert_eq!(
        world.ask(&nobody, json!({})).await.line(),
        "404 NotFound: serviceaccounts \"none\" not found"
    );
    let got = TOKEN.replace("POST", "GET");
    assert_eq!(world.ask(&got, Value::Null).await.status, 405);
}

#[tokio::test]
async fn a_token_goes_with_what_it_is_bound_to() {
    let world = world().await;
    let running = pod_of_web(&world, "p").await;
    let answer = world.ask(TOKEN, bound("Pod", &running)).await;
    let token = token_of(&answer).to_owned();
    let status = review(&world, json!({"token": token})).await;
    let extra = &status["user"]["extra"];
    let of = |field: &str| &extra[format!("authentication.kubernetes.io/{field}")];
    assert_eq!(of("pod-name"), &json!(["p"]));
    assert_eq!(of("pod-uid"), &json!([running["metadata"]["uid"]]));
    assert_eq!(of("node-name"), &json!(["a"]));

    let gone = format!("DELETE {PODS}/p");
    world.ask(&gone, json!({"gracePeriodSeconds": 0})).await;
    let told = "service account token has been invalidated";
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(status, json!({"user": {}, "error": told}));
    assert_eq!(
        world
            .ask_as(&token, "GET /version", Value::Null)
            .await
            .status,
        401
    );
    // A namesake is another pod.
    let again = pod_of_web(&world, "p").await;
    let (uid, before) = (&again["metadata"]["uid"], &running["metadata"]["uid"]);
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(
        status["error"],
        format!(
            "pod UID ({}) does not match service account pod ref claim ({})",
            uid.as_str().unwrap(),
            before.as_str().unwrap()
        )
    );

    let secret = json!({"metadata": {"name": "s"}});
    let secret = world.ask(&format!("POST {SECRETS}"), secret).await.body;
    let answer = world.ask(TOKEN, bound("Secret", &secret)).await;
    let of_secret = token_of(&answer).to_owned();
    assert_eq!(
        review(&world, json!({"token": of_secret})).await["authenticated"],
        true
    );
    world.ask(&format!("DELETE {SECRETS}/s"), Value::Null).await;
    assert_eq!(
        review(&world, json!({"token": of_secret})).await["error"],
        told
    );

    let plain = world.ask(TOKEN, json!({})).await;
    let plain = token_of(&plain).to_owned();
    world
        .ask(&format!("DELETE {ACCOUNTS}/web"), Value::Null)
        .await;
    let status = review(&world, json!({"token": plain})).await;
    assert_eq!(status["error"], "serviceaccounts \"web\" not found");
}

/// Whoever is called knows the caller by its certificate. A token that is shown besides says which pod it was given to, whoever shows it.
#[tokio::test]
async fn attack_87_the_token_of_another_pod_says_whose_it_is() {
    let world = world().await;
    let owner = pod_of_web(&world, "p").await;
    let mut wanted = bound("Pod", &owner);
    wanted["spec"]["audiences"] = json!(["callee"]);
    let token = token_of(&world.ask(TOKEN, wanted).await).to_owned();
    let at_the_api = world.ask_as(&token, "GET /version", Value::Null).await;
    assert_eq!(at_the_api.status, 401, "it is for nobody but the callee");
    let shown_to = |callee: &str| json!({"token": token, "audiences": [callee]});
    let status = review(&world, shown_to("callee")).await;
    let extra = &status["user"]["extra"];
    assert_eq!(
        extra["authentication.kubernetes.io/pod-uid"],
        json!([owner["metadata"]["uid"]])
    );
    let status = review(&world, shown_to("another")).await;
    assert_ne!(status["authenticated"], true);
    let gone = format!("DELETE {PODS}/p");
    world.ask(&gone, json!({"gracePeriodSeconds": 0})).await;
    let status = review(&world, shown_to("callee")).await;
    assert_ne!(status["authenticated"], true);
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let world = world().await;
    let answer = world
        .ask(TOKEN, json!({"spec": {"audiences": ["vault", "b"]}}))
        .await;
    let token = token_of(&answer).to_owned();
    assert_eq!(
        world
            .ask_as(&token, "GET /version", Value::Null)
            .await
            .status,
        401
    );
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(
        status["error"],
        format!(
            "token audiences [\"vault\" \"b\"] is invalid for the target audiences [{ISSUER:?}]"
        )
    );
    let status = review(&world, json!({"token": token, "audiences": ["vault", "c"]})).await;
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    // What does not say for whom it is, is for this server.
    let status = review(&world, json!({"token": "user", "audiences": ["vault"]})).await;
    assert_eq!(status, json!({"user": {}, "error": "invalid bearer token"}));
    let status = review(&world, json!({"token": "user"})).await;
    assert_eq!(status["user"]["username"], "jo");
    assert_eq!(
        world.ask(REVIEWS, json!({"spec": {}})).await.line(),
        "400 BadRequest: token is required for TokenReview in authentication"
    );
}

#[tokio::test]
async fn forgeries_are_told_to_who_reviews_and_to_nobody_else() {
    let world = world().await;
    let answer = world.ask(TOKEN, json!({})).await;
    let token = token_of(&answer);
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let mut stronger = claims(token);
    stronger["sub"] = "system:serviceaccount:kube-system:root".into();
    let stronger = URL_SAFE_NO_PAD.encode(stronger.to_string());
    let unknown = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"x"}"#);
    let payload = head.split_once('.').unwrap().1;
    for (forged, told) in [
        (
            format!("{header}.{stronger}.{signature}"),
            "go-jose/go-jose: error in cryptographic primitive",
        ),
        (
            format!("{unknown}.{payload}.{signature}"),
            "invalid signature, no keys found",
        ),
        ("a.b.c".to_owned(), "invalid bearer token"),
        ("abcdef.0123456789abcdef".to_owned(), "invalid bearer token"),
    ] {
        let status = review(&world, json!({"token": forged})).await;
        assert_eq!(status["error"], told);
        let answer = world.ask_as(&forged, "GET /version", Value::Null).await;
        assert_eq!(answer.line(), "401 Unauthorized: Unauthorized");
    }
}

#[tokio::test]
async fn nodes_ask_for_tokens_of_their_pods_alone() {
    let world = world().await;
    let mine = pod_of_web(&world, "mine").await;
    let mut other = pod("other");
    other["spec"]["serviceAccountName"] = "web".into();
    other["spec"]["nodeName"] = "b".into();
    let other = world.ask(&format!("POST {PODS}"), other).await.body;
    let with = |mut request: Value, audiences: Value| {
        request["spec"]["audiences"] = audiences;
        request
    };
    let mut unnamed = bound("Pod", &mine);
    unnamed["spec"]["boundObjectRef"]["uid"] = "".into();
    for (body, expected) in [
        (bound("Pod", &mine), "201 TokenRequest web"),
        (
            with(bound("Pod", &mine), json!(["vault"])),
            "201 TokenRequest web",
        ),
        (json!({}), "node requested token not bound to a pod"),
        (
            unnamed,
            "node requested token with a pod binding without a uid",
        ),
        (
            bound("Node", &mine),
            "node requested token not bound to a pod",
        ),
        (
            bound("Pod", &other),
            "node requested token bound to a pod scheduled on a different node",
        ),
        (
            with(bound("Pod", &mine), json!(["another"])),
            "system:node:a is not authorized to request tokens for audience \"another\"",
        ),
        (
            with(bound("Pod", &mine), json!(["vault", "b"])),
            "node may only request 0 or 1 audiences",
        ),
    ] {
        let line = world.ask_as("node", TOKEN, body).await.line();
        let expected = match expected.starts_with("201") {
            true => expected.to_owned(),
            false => format!("403 Forbidden: serviceaccounts \"web\" is forbidden: {expected}"),
        };
        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn others_find_the_keys_and_check_tokens_with_them() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    let world = world().await;
    let told = world.get("/.well-known/openid-configuration").await;
    assert_eq!(
        told.body,
        json!({
            "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    );
    assert_eq!(told.headers["cache-control"], "public, max-age=3600");
    let keys = world.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let key = &keys.body["keys"][0];
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let answer = world.ask(TOKEN, json!({})).await;
    let (signed, signature) = token_of(&answer).rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &signature).unwrap();

    // Programs in the cluster may look, by a role; strangers may not.
    let objects = &world.objects;
    let system = Caller::system("apiserver", None);
    objects.ensure_roles(&system).await.unwrap();
    let path = "GET /.well-known/openid-configuration";
    let token = token_of(&answer);
    assert_eq!(world.ask_as(token, path, Value::Null).await.status, 200);
    assert_eq!(world.ask_as("user", path, Value::Null).await.status, 403);
}

#[tokio::test]
async fn a_further_key_is_told_before_it_signs_and_the_one_that_signs_stays() {
    const KEYS: &str = "/weft/v1/signing-keys";
    let world = world().await;
    let first = world.ask(TOKEN, json!({})).await;
    let first = token_of(&first).to_owned();
    let told = world.ask(&format!("POST {KEYS}"), Value::Null).await.body;
    let signs = |told: &Value| -> Vec<bool> {
        let keys = told["keys"].as_array().unwrap().iter();
        keys.map(|key| key["signs"] == true).collect()
    };
    assert_eq!(signs(&told), [true, false]);
    let public = world.get("/openid/v1/jwks").await.body;
    assert_eq!(public["keys"].as_array().unwrap().len(), 2);
    let of = |at: usize| {
        format!(
            "DELETE {KEYS}/{}",
            told["keys"][at]["kid"].as_str().unwrap()
        )
    };
    assert_eq!(world.ask(&of(0), Value::Null).await.status, 409);
    assert_eq!(world.ask(&of(1), Value::Null).await.status, 200);
    assert_eq!(world.ask(&of(1), Value::Null).await.status, 404);
    assert_eq!(
        review(&world, json!({"token": first})).await["authenticated"],
        true
    );
    assert_eq!(
        world
            .ask_as("user", &format!("GET {KEYS}"), Value::Null)
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn every_pod_has_a_token_unless_somebody_says_no() {
    let world = world().await;
    let spec = |answer: &Answer| answer.body["spec"].clone();
    let made = world.ask(&format!("POST {PODS}"), pod("p")).await;
    let volume = spec(&made)["volumes"][0].clone();
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(volume["projected"]["defaultMode"], 420);
    let mounts = &spec(&made)["containers"][0]["volumeMounts"];
    assert_eq!(
        *mounts,
        json!([{
            "name": name, "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }])
    );
    let quiet = json!({"metadata": {"name": "quiet"}, "automountServiceAccountToken": false});
    world.ask(&format!("POST {ACCOUNTS}"), quiet).await;
    let mut without = pod("q");
    without["spec"]["serviceAccountName"] = "quiet".into();
    let made = world.ask(&format!("POST {PODS}"), without).await;
    assert_eq!(spec(&made).get("volumes"), None);
}

#[tokio::test]
async fn tokens_in_secrets_are_good_for_as_long_as_the_secret_holds_them() {
    let world = world().await;
    let secret = json!({
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "web"}},
        "type": "kubernetes.io/service-account-token",
    });
    let made = world.ask(&format!("POST {SECRETS}"), secret).await.body;
    let system = Caller::system("tokens-controller", None);
    let filled = world.objects.tend_token_secret(&system, "default", "s");
    filled.await.unwrap();
    let found = world.get(&format!("{SECRETS}/s")).await.body;
    let data = |field: &str| {
        let text = found["data"][field].as_str().unwrap();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(data("namespace"), "default");
    assert!(data("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let account = world.get(&format!("{ACCOUNTS}/web")).await.body;
    let annotations = &found["metadata"]["annotations"];
    assert_eq!(
        annotations["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    assert_eq!(made["metadata"]["uid"], found["metadata"]["uid"]);
    let token = data("token");
    assert_eq!(claims(&token).get("exp"), None);
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:web"
    );
    let used = world.get(&format!("{SECRETS}/s")).await.body;
    let label = &used["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"];
    assert!(label.is_string(), "{label}");

    let marked =
        json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    world
        .patch(&format!("{SECRETS}/s"), "merge-patch", marked)
        .await;
    let told = review(&world, json!({"token": token})).await["error"].clone();
    assert!(
        told.as_str().unwrap().contains("has been marked invalid"),
        "{told}"
    );
    let empty = json!({"metadata": {"labels": null}, "data": {"token": STANDARD.encode("other")}});
    world
        .patch(&format!("{SECRETS}/s"), "merge-patch", empty)
        .await;
    assert_eq!(
        review(&world, json!({"token": token})).await["error"],
        "Token does not match server's copy"
    );
    world.ask(&format!("DELETE {SECRETS}/s"), Value::Null).await;
    assert_eq!(
        review(&world, json!({"token": token})).await["error"],
        "Token has been invalidated"
    );
}
