//! Tokens of other issuers, from servers that are real.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use weft_apiserver::authn::AuthenticationConfiguration;
use weft_apiserver::caller::Caller;

use super::hook::{Hook, Reply};
use crate::world::*;

const WHO: &str = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";

struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id, pair }
    }

    fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": number(&point[1..33]), "y": number(&point[33..]),
        })
    }

    fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.unwrap());
        format!("{signed}.{signature}")
    }
}

/// An issuer with these keys, by the number of its port.
async fn issuer(keys: &Arc<Mutex<Vec<Value>>>, says: &'static str) -> Hook {
    let keys = Arc::clone(keys);
    let port = Arc::new(Mutex::new(0));
    let own = Arc::clone(&port);
    let hook = Hook::start(&["127.0.0.1"], move |path| {
        let url = format!("https://127.0.0.1:{}", own.lock());
        let document = match path.as_str() {
            Some("/.well-known/openid-configuration") => {
                json!({"issuer": format!("{url}{says}"), "jwks_uri": format!("{url}/keys")})
            }
            Some("/keys") => json!({"keys": *keys.lock()}),
            _ => return Reply::Raw(404, Vec::new()),
        };
        Reply::Raw(200, document.to_string().into_bytes())
    })
    .await;
    *port.lock() = hook.port;
    hook
}

fn configured(hooks: &[&Hook]) -> AuthenticationConfiguration {
    let jwt: Vec<Value> = hooks
        .iter()
        .zip(["a:", "b:"])
        .map(|(hook, prefix)| {
            let ca = String::from_utf8(STANDARD.decode(&hook.ca).unwrap()).unwrap();
            json!({
                "issuer": {
                    "url": format!("https://127.0.0.1:{}", hook.port),
                    "certificateAuthority": ca,
                    "audiences": ["weft"],
                },
                "claimMappings": {
                    "username": {"claim": "sub", "prefix": prefix},
                    "groups": {"expression": "claims.teams"},
                    "uid": {"claim": "id"},
                    "extra": [{"key": "example.org/place", "valueExpression": "claims.place"}],
                },
                "userValidationRules": [
                    {"expression": "!user.username.endsWith('eve')", "message": "nobody believes her"},
                ],
            })
        })
        .collect();
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": jwt,
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    AuthenticationConfiguration::parse(&file.to_string()).unwrap()
}

fn claims(hook: &Hook, who: &str) -> Value {
    json!({
        "iss": format!("https://127.0.0.1:{}", hook.port), "aud": "weft", "sub": who, "id": "7",
        "teams": ["cooks"], "place": "Bonn", "exp": Timestamp::now().as_second() + 600,
    })
}

/// Roles let everybody ask who he is.
async fn with_roles() -> World {
    let world = World::new().await;
    let system = Caller::system("tests", None);
    world.objects.ensure_roles(&system).await.unwrap();
    world
}

#[tokio::test]
async fn users_of_other_issuers_are_who_the_configuration_says() {
    let mut world = with_roles().await;
    let (first, second) = (Key::new("1"), Key::new("1"));
    let known = Arc::new(Mutex::new(vec![first.public()]));
    let a = issuer(&known, "").await;
    let b = issuer(&Arc::new(Mutex::new(vec![second.public()])), "").await;
    world.router = face_believing(&world, &configured(&[&a, &b]));
    let who = async |token: &str| {
        let answer = world.ask_as(token, WHO, json!({})).await;
        (answer.status, answer.body["status"]["userInfo"].clone())
    };
    assert_eq!(
        who(&first.token(&claims(&a, "jo"))).await,
        (
            201,
            json!({
                "username": "a:jo", "uid": "7", "groups": ["cooks", "system:authenticated"],
                "extra": {"example.org/place": ["Bonn"]},
            })
        )
    );
    assert_eq!(
        who(&second.token(&claims(&b, "jo"))).await.1["username"],
        "b:jo"
    );

    // Each by his own issuer's keys alone, for this cluster, in time, and not everybody.
    assert_eq!(who(&second.token(&claims(&a, "jo"))).await.0, 401);
    assert_eq!(who(&first.token(&claims(&a, "eve"))).await.0, 401);
    for (claim, value) in [
        ("aud", json!("another")),
        ("exp", json!(1)),
        ("nbf", json!(Timestamp::now().as_second() + 600)),
        ("sub", json!("")),
        ("iss", json!("https://127.0.0.1:1")),
    ] {
        let mut claims = claims(&a, "jo");
        claims[claim] = value;
        assert_eq!(who(&first.token(&claims)).await.0, 401, "{claim}");
    }
    let mut unsigned = first.token(&claims(&a, "jo"));
    unsigned.truncate(unsigned.rfind('.').unwrap() + 1);
    assert_eq!(who(&unsigned).await.0, 401);

    // What it may is said by roles, as of everybody.
    let token = first.token(&claims(&a, "jo"));
    let maps = format!("GET {MAPS}");
    assert_eq!(world.ask_as(&token, &maps, Value::Null).await.status, 403);
    let binding = json!({
        "metadata": {"name": "cooks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "cooks"}],
    });
    let roles = "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(world.ask(roles, binding).await.status, 201);
    assert_eq!(world.ask_as(&token, &maps, Value::Null).await.status, 200);
}

#[tokio::test]
async fn keys_of_issuers_are_asked_for_again_and_not_too_often() {
    let mut world = with_roles().await;
    let (first, next) = (Key::new("1"), Key::new("2"));
    let known = Arc::new(Mutex::new(vec![first.public()]));
    let a = issuer(&known, "").await;
    world.router = face_believing(&world, &configured(&[&a]));
    let status = async |key: &Key| {
        let token = key.token(&claims(&a, "jo"));
        world.ask_as(&token, WHO, json!({})).await.status
    };
    assert_eq!(status(&first).await, 201);
    let asked = a.count();
    assert_eq!(asked, 2);
    known.lock().push(next.public());
    // A stranger cannot have them fetched as often as he likes.
    assert_eq!(status(&next).await, 401);
    assert_eq!(a.count(), asked);
    assert_eq!(status(&first).await, 201);
}

#[tokio::test]
async fn an_issuer_that_is_another_is_not_believed() {
    let mut world = World::new().await;
    let key = Key::new("1");
    let a = issuer(&Arc::new(Mutex::new(vec![key.public()])), "/else").await;
    world.router = face_believing(&world, &configured(&[&a]));
    let token = key.token(&claims(&a, "jo"));
    assert_eq!(world.ask_as(&token, WHO, json!({})).await.status, 401);
}

#[tokio::test]
async fn who_has_no_credential_is_served_where_the_configuration_says() {
    let mut world = World::new().await;
    world.router = face_believing(&world, &configured(&[]));
    let status = async |path: &str| {
        let mut request = world.request(&format!("GET {path}"), &[], "");
        request.headers_mut().remove(http::header::AUTHORIZATION);
        world.send(request).await.status
    };
    assert_eq!(status("/livez").await, 200);
    assert_eq!(status("/version").await, 401);
}
