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

/// An issuer that browsers are sent to, too: whatever code it is given is worth a token with this nonce.
async fn issuer_of_codes(key: Arc<Key>, nonce: Arc<Mutex<String>>) -> Hook {
    let port = Arc::new(Mutex::new(0));
    let own = Arc::clone(&port);
    let hook = Hook::start(&["127.0.0.1"], move |path| {
        let url = format!("https://127.0.0.1:{}", own.lock());
        let document = match path.as_str() {
            Some("/.well-known/openid-configuration") => json!({
                "issuer": url, "jwks_uri": format!("{url}/keys"),
                "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
            }),
            Some("/keys") => json!({"keys": [key.public()]}),
            Some("/token") => {
                let claims = json!({
                    "iss": url, "aud": "weft", "sub": "jo", "id": "7", "teams": [], "place": "Bonn",
                    "nonce": *nonce.lock(), "exp": Timestamp::now().as_second() + 600,
                });
                json!({"id_token": key.token(&claims)})
            }
            _ => return Reply::Raw(404, Vec::new()),
        };
        Reply::Raw(200, document.to_string().into_bytes())
    })
    .await;
    *port.lock() = hook.port;
    hook
}

#[tokio::test]
async fn a_browser_signs_in_by_an_issuer_and_only_the_one_that_was_sent() {
    let mut world = with_roles().await;
    let nonce = Arc::new(Mutex::new(String::new()));
    let issuer = issuer_of_codes(Arc::new(Key::new("1")), nonce.clone()).await;
    world.router = face_believing(&world, &configured(&[&issuer]));
    let get = async |path: &str, cookie: &str| {
        let mut request = world.request(&format!("GET {path}"), &[], "");
        let headers = request.headers_mut();
        headers.remove(http::header::AUTHORIZATION);
        headers.insert(http::header::HOST, "weft.example:6443".parse().unwrap());
        headers.insert("weft-session", "1".parse().unwrap());
        headers.insert(http::header::COOKIE, cookie.parse().unwrap());
        world.send(request).await
    };
    let line = |answer: &Answer, name: http::HeaderName, at: usize| {
        let mut lines = answer.headers.get_all(name).iter();
        let line = lines.nth(at).map(|line| line.to_str().unwrap().to_owned());
        line.unwrap_or_default()
    };
    let first = |line: String| line.split(';').next().unwrap().to_owned();
    let told = get("/dashboard/session", "").await;
    let path = told.body["issuers"][0]["path"].as_str().unwrap().to_owned();
    assert_eq!(path, "/dashboard/oidc/0");

    let sent = get(&path, "").await;
    assert_eq!(sent.status, 303, "{}", sent.body);
    let held = line(&sent, http::header::SET_COOKIE, 0);
    assert!(held.contains("HttpOnly; SameSite=Lax"), "{held}");
    let held = first(held);
    let place = line(&sent, http::header::LOCATION, 0);
    let query = place.split_once('?').unwrap().1;
    let asked: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
    assert_eq!(asked["client_id"], "weft");
    assert_eq!(asked["code_challenge_method"], "S256");
    assert_eq!(
        asked["redirect_uri"],
        "https://weft.example:6443/dashboard/oidc/callback"
    );
    let verifier = held.rsplit('.').next().unwrap();
    assert!(!place.contains(verifier), "it is told with the code alone");

    let back = format!("/dashboard/oidc/callback?code=c&state={}", asked["state"]);
    let failed = async |path: &str, cookie: &str| {
        let answer = get(path, cookie).await;
        let place = line(&answer, http::header::LOCATION, 0);
        assert!(!line(&answer, http::header::SET_COOKIE, 0).contains("weft-session"));
        (answer.status, place.starts_with("/dashboard/#signin="))
    };
    // Of another browser, another attempt, and with a token of another attempt.
    assert_eq!(failed(&back, "").await, (303, true));
    let other = "/dashboard/oidc/callback?code=c&state=other";
    assert_eq!(failed(other, &held).await, (303, true));
    assert_eq!(failed(&back, &held).await, (303, true));
    *nonce.lock() = asked["nonce"].clone();
    let signed = get(&back, &held).await;
    assert_eq!(line(&signed, http::header::LOCATION, 0), "/dashboard/");
    let session = first(line(&signed, http::header::SET_COOKIE, 0));
    let told = get("/dashboard/session", &session).await;
    assert_eq!(told.body["user"]["name"], "a:jo");
    assert_eq!(told.body["by"], "oidc");
}
