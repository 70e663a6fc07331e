//! Edges and calls as clients of `mesh.weft.dev` read them; with a node behind that is not one (`stub_node`).

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::stub_node::StubNode;
use crate::world::*;

const GROUP: &str = "/apis/mesh.weft.dev/v1";

async fn get(router: &Router, token: &str, path: &str) -> (u16, Body) {
    let request = Request::get(path)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    (answer.status().as_u16(), answer.into_body())
}

async fn read(router: &Router, path: &str) -> Value {
    let (status, body) = get(router, "secret", path).await;
    let body = body.collect().await.unwrap().to_bytes();
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{value}");
    value
}

fn told(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|edge| {
            let end = |which: &str| edge[which]["workload"].as_str().unwrap_or("?").to_owned();
            let share = edge["failures"].as_f64().unwrap() / edge["calls"].as_f64().unwrap();
            let (p50, per_second) = (&edge["latencyMicros"]["p50"], &edge["callsPerSecond"]);
            assert!(per_second.as_f64().unwrap() > 0.0, "{edge}");
            format!("{} {} {share} {p50}", end("source"), end("destination"))
        })
        .collect()
}

#[tokio::test]
async fn edges_are_what_is_new_since_somebody_looked() {
    let world = World::new().await;
    let _node = StubNode::start(&world).await;
    let closing = CancellationToken::new();
    let (router, collecting) = face_counting(&world, closing.clone());
    let reading = async {
        let list = read(&router, &format!("{GROUP}/namespaces/shop/edges")).await;
        assert_eq!(list["kind"], "EdgeList");
        assert_eq!(list["apiVersion"], "mesh.weft.dev/v1");
        // Thirty and ten more each time; the thousand were before anybody looked.
        assert_eq!(told(&list), ["web pay 0.25 85.0"]);
        assert_eq!(list["items"][0]["metadata"]["namespace"], "shop");
        let all = read(&router, &format!("{GROUP}/edges?window=5m&step=10s")).await;
        assert_eq!(told(&all), ["job pay 0 85.0", "web pay 0.25 85.0"]);
        assert_eq!(told(&all["frames"][0]), told(&all));
        let none = read(&router, &format!("{GROUP}/namespaces/other/edges")).await;
        assert_eq!(none["items"], json!([]));

        // A line each second.
        let path = format!("{GROUP}/namespaces/bank/edges?watch=true");
        let (status, mut body) = get(&router, "secret", &path).await;
        assert_eq!(status, 200);
        for _ in 0..2 {
            let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let event: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(event["type"], "MODIFIED");
            assert_eq!(event["object"]["items"][1]["calls"], 40, "{event}");
        }
        closing.cancel();
        let rest = body.collect().await.unwrap().to_bytes();
        assert!(rest.is_empty(), "it ends with the server");
    };
    tokio::join!(collecting, reading);
}

/// Lines of a stream, however they are cut.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    async fn of(router: &Router, token: &str, path: &str) -> Self {
        let (status, body) = get(router, token, path).await;
        assert_eq!(status, 200, "{path}");
        let rest = Vec::new();
        Self { body, rest }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(event["type"], "MODIFIED");
                return event["object"].clone();
            }
            let frame = self.body.frame().await.expect("another line").unwrap();
            self.rest.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

#[tokio::test]
async fn frames_have_what_changes_each_second() {
    let world = World::new().await;
    let _node = StubNode::start(&world).await;
    let closing = CancellationToken::new();
    let (router, collecting) = face_counting(&world, closing.clone());
    let reading = async {
        let all = format!("{GROUP}/frames?watch=true&window=3s");
        let mut first = Lines::of(&router, "secret", &all).await;
        let mut slow = Lines::of(&router, "secret", &all).await;
        // The first that has calls.
        let mut frame = first.next().await;
        assert_eq!(frame["kind"], "Frame");
        assert_eq!(frame["whole"], true);
        while frame["edges"]["added"].is_null() {
            frame = first.next().await;
        }
        let added = frame["edges"]["added"].as_array().unwrap();
        let ids: Vec<u64> = added
            .iter()
            .map(|edge| edge["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [0, 1]);
        let of = |frame: &Value, id: u64| {
            let figures = frame["edges"]["figures"].as_array().unwrap().clone();
            figures.into_iter().find(|one| one[0] == id).unwrap()
        };
        // Who is told once is a number from then on, whoever else reads.
        let next = first.next().await;
        assert_eq!(
            (&next["whole"], &next["skipped"]),
            (&json!(false), &json!(0))
        );
        assert!(next["edges"]["added"].is_null(), "{next}");
        let web = of(&next, 1);
        assert_eq!((&web[8], &web[9]), (&json!(40), &json!(10)), "{next}");
        assert_eq!(web[3], 85.0, "the median lies in its group");
        assert_eq!(
            (&next["total"][5], &next["total"][6]),
            (&json!(45), &json!(10))
        );
        let called = next["workloads"].as_array().unwrap();
        assert_eq!(
            (&called[0][0], &called[0][1]),
            (&json!("bank"), &json!("pay"))
        );
        assert!(next["services"].is_null(), "nothing is new of policies");

        // Who did not read meanwhile is told how much he missed, and all of it anew.
        first.next().await;
        let whole = slow.next().await;
        assert_eq!(whole["whole"], true);
        let behind = slow.next().await;
        let skipped = behind["skipped"].as_u64().unwrap();
        assert!(skipped == 0 || behind["whole"] == true, "{behind}");
        let mut late = Lines::of(&router, "secret", &all).await;
        let late = late.next().await;
        assert_eq!(late["edges"]["added"].as_array().unwrap().len(), 2);
        let pay = json!([{
            "namespace": "bank", "name": "pay", "breaker": {"ejected": 1, "endpoints": 3}, "retries": {"attempts": 2},
        }]);
        assert_eq!(late["services"], pay);

        // What is used, once it is read.
        while frame["nodes"].as_array().is_none_or(Vec::is_empty) {
            frame = first.next().await;
        }
        assert_eq!(frame["nodes"][0][0], "a");
        assert_eq!(
            (&frame["pods"][0][0], &frame["pods"][0][1]),
            (&json!("default"), &json!("p"))
        );
        assert_eq!(
            (&frame["pods"][0][5], &frame["pods"][0][6]),
            (&json!(4), &json!(0.0))
        );

        // An edge is of the namespaces of its ends, a policy of that of its Service alone.
        let shop = format!("{GROUP}/namespaces/shop/frames?watch=true");
        let frame = Lines::of(&router, "secret", &shop).await.next().await;
        assert_eq!(frame["edges"]["added"].as_array().unwrap().len(), 1);
        assert_eq!(frame["services"], json!([]));
        let edges = read(&router, &format!("{GROUP}/namespaces/bank/edges")).await;
        assert_eq!(edges["items"][0]["policies"], pay[0]);
        assert!(edges["total"]["callsPerSecond"].as_f64().unwrap() > 0.0);
        let edges = read(&router, &format!("{GROUP}/namespaces/shop/edges")).await;
        assert!(edges["items"][0]["policies"].is_null());
        closing.cancel();
    };
    tokio::join!(collecting, reading);
}

#[tokio::test]
async fn traces_of_what_failed_are_gathered_while_somebody_looks() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let closing = CancellationToken::new();
    let (router, collecting) = face_counting(&world, closing.clone());
    let reading = async {
        let none = read(&router, &format!("{GROUP}/traces")).await;
        assert_eq!(
            (&none["kind"], &none["items"]),
            (&json!("TraceList"), &json!([]))
        );
        let found = loop {
            let list = read(&router, &format!("{GROUP}/traces")).await;
            if list["items"] != json!([]) {
                break list;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        let item = &found["items"][0];
        assert_eq!(
            (&item["failed"], &item["spanCount"]),
            (&json!(true), &json!(2))
        );
        assert_eq!(item["services"], json!(["bank/pay", "shop/web"]));
        assert_eq!(item["root"]["workload"]["name"], "web");
        assert!(item["spans"].is_null());
        // Of a namespace, its own end alone.
        let path = format!("{GROUP}/namespaces/bank/traces?trace=t1");
        let one = read(&router, &path).await;
        let spans = one["items"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0]["workload"]["name"], "pay");
        let path = format!("{GROUP}/namespaces/other/traces?trace=t1");
        assert_eq!(read(&router, &path).await["items"], json!([]));
        let asked = node.asked.lock().clone();
        assert!(asked.contains(&"/spans?traces=t1".to_owned()), "{asked:?}");
        closing.cancel();
    };
    tokio::join!(collecting, reading);
}

#[tokio::test]
async fn who_may_not_see_a_namespace_sees_nothing_of_it() {
    let world = World::new().await;
    let node = StubNode::start(&world).await;
    let shop = json!({"metadata": {"name": "shop"}});
    assert_eq!(world.ask("POST /api/v1/namespaces", shop).await.status, 201);
    for resource in ["edges", "tap", "frames", "traces"] {
        let name = resource;
        let role = json!({
            "metadata": {"name": name},
            "rules": [{"apiGroups": ["mesh.weft.dev"], "resources": [resource], "verbs": ["list", "watch"]}],
        });
        let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles";
        let made = world.ask(&format!("POST {roles}"), role).await;
        assert_eq!(made.status, 201, "{}", made.line());
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jo"}],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings";
        let made = world.ask(&format!("POST {bindings}"), binding).await;
        assert_eq!(made.status, 201, "{}", made.line());
    }
    let (router, _collecting) = face_counting(&world, CancellationToken::new());
    for (path, status) in [
        ("/namespaces/shop/tap?watch=true", 200),
        ("/namespaces/bank/tap?watch=true", 403),
        ("/tap?watch=true", 403),
        ("/namespaces/bank/edges", 403),
        ("/edges", 403),
        ("/namespaces/shop/frames?watch=true", 200),
        ("/namespaces/bank/frames?watch=true", 403),
        ("/frames?watch=true", 403),
        ("/namespaces/shop/traces", 200),
        ("/namespaces/bank/traces", 403),
        ("/traces", 403),
        ("/namespaces/shop/frames", 400),
        ("/namespaces/shop/traces?watch=true", 400),
        // There is no list of what is kept nowhere.
        ("/namespaces/shop/tap", 400),
    ] {
        let (found, _) = get(&router, "user", &format!("{GROUP}{path}")).await;
        assert_eq!(found, status, "{path}");
    }
    // Whatever the query says, a node is asked for the namespace that was allowed, and lines come whole.
    let path = format!(
        "{GROUP}/namespaces/shop/tap?watch=true&timeoutSeconds=1&namespace=bank&method=GET&x=y"
    );
    let (status, body) = get(&router, "user", &path).await;
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(status, 200);
    assert_eq!(body, "{\"path\":\"/a\"}\n{\"lost\":3}\n");
    let asked = node.asked.lock().clone();
    assert!(
        asked.contains(&"/tap?method=GET&namespace=shop".to_owned()),
        "{asked:?}"
    );
    let path = format!("{GROUP}/namespaces/shop/tap?watch=true&code=x");
    let (status, body) = get(&router, "user", &path).await;
    let body = body.collect().await.unwrap().to_bytes();
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &refusal["message"]),
        (400, &json!("code must be like 404"))
    );
}

#[tokio::test]
async fn a_node_that_comes_later_is_listened_to_and_one_that_ended_again() {
    let world = World::new().await;
    let (router, _collecting) = face_counting(&world, CancellationToken::new());
    let (status, mut body) = get(&router, "secret", &format!("{GROUP}/tap?watch=true")).await;
    assert_eq!(status, 200);
    let node = StubNode::start(&world).await;
    // Its lines end each time, as those of a node that begins anew do.
    for _ in 0..2 {
        let lines = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(lines, "{\"path\":\"/a\"}\n{\"lost\":3}\n");
    }
    let asked = node.asked.lock().clone();
    let taps = asked.iter().filter(|path| path.starts_with("/tap"));
    assert_eq!(taps.count(), 2, "{asked:?}");
}

#[tokio::test]
async fn discovery_has_nothing_that_clients_would_watch_as_objects() {
    let world = World::new().await;
    let list = world.get(GROUP).await;
    let resources = list.body["resources"].as_array().unwrap().iter();
    let names: Vec<String> = resources
        .map(|one| format!("{} {} {}", one["name"], one["kind"], one["verbs"]))
        .collect();
    assert_eq!(
        names,
        [
            r#""edges" "Edge" ["list"]"#,
            r#""frames" "Frame" ["watch"]"#,
            r#""tap" "Call" ["watch"]"#,
            r#""traces" "Trace" ["list"]"#,
        ]
    );
}
