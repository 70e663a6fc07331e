//! What a decision by roles costs, with five thousand bindings beside the ones that count; `cargo xtask bench access` runs it.
//!
//! Prints one JSON document: how many bindings there are, and for each kind of question the nanoseconds of one decision, of many in a row.

use std::time::Instant;

use futures::StreamExt as _;
use serde_json::{Value, json};
use weft_api::object::Object;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{self, Objects, WriteOptions};
use weft_apiserver::request::RequestInfo;
use weft_store::Store;

/// Bindings of others, half of them of one namespace each.
const BINDINGS: usize = 5_000;
/// Decisions that are timed together.
const ROUNDS: u32 = 200_000;

async fn create(
    objects: &Objects,
    kind: weft_kinds::KindRef<'_>,
    namespace: Option<&str>,
    value: Value,
) {
    let system = Caller::system("bench", None);
    let object = Object::from_value(value).expect("an object");
    let client = objects.client(&system);
    let options = WriteOptions::default();
    let created = client.create(kind, namespace, object, &options).await;
    created.expect("created");
}

fn binding(number: usize, kind: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": format!("b{number}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "reader"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user},
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("team-{}", number % 100)},
        ],
    })
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(weft_store::Config::new(dir.path())).await;
    let store = store.expect("a store");
    let mut leadership = store.leadership();
    leadership
        .wait_for(Option::is_some)
        .await
        .expect("a leader");
    let objects = Objects::new(store, objects::Config::default());
    let system = Caller::system("bench", None);
    objects
        .ensure_permanent_namespaces(&system)
        .await
        .expect("namespaces");
    objects.ensure_roles(&system).await.expect("roles");
    let reader = json!({
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    });
    create(&objects, &weft_kinds::CLUSTER_ROLE, None, reader).await;
    let all = (0..BINDINGS).map(|number| {
        let objects = &objects;
        async move {
            let user = format!("user-{number}");
            let value = binding(number, "ClusterRole", &user);
            match number % 2 {
                0 => create(objects, &weft_kinds::ROLE_BINDING, Some("default"), value).await,
                _ => create(objects, &weft_kinds::CLUSTER_ROLE_BINDING, None, value).await,
            }
        }
    });
    futures::stream::iter(all)
        .buffer_unordered(64)
        .collect::<Vec<()>>()
        .await;
    let authorizer = objects.authorizer();
    authorizer.settle().await;
    let list = || RequestInfo::of_collection("list", &weft_kinds::POD, Some("default"), None);
    let mut cases = Vec::new();
    for (called, caller, allowed) in [
        (
            "a user with a binding",
            Caller::static_token("user-4000", None, vec![]),
            true,
        ),
        (
            "a member of a group with fifty",
            Caller::static_token("jo", None, vec!["team-7".to_owned()]),
            true,
        ),
        (
            "a user without any",
            Caller::static_token("ko", None, vec![]),
            false,
        ),
        (
            "an account without any",
            Caller::service_account("default", "web", None),
            false,
        ),
    ] {
        let request = std::sync::Arc::new(list());
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let decided = authorizer.authorize(caller.clone(), std::sync::Arc::clone(&request));
            assert_eq!(decided.is_ok(), allowed);
        }
        let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
        cases.push(json!({"case": called, "nanoseconds": each}));
    }
    println!("{}", json!({"bindings": BINDINGS, "cases": cases}));
}
