//! Answers in each encoding, and what comes from outside as text: credentials, queries, continue tokens, bodies.

mod world;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_kinds::protobuf;

use self::world::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The bytes of an answer, and the code and media type before them.
async fn fetch(world: &World, path: &str, accept: &str) -> (String, Vec<u8>) {
    let request = world.request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
    let response = world.router.clone().oneshot(request).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
    let head = format!("{} {kind}", response.status().as_u16());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (head, bytes.to_vec())
}

#[tokio::test]
async fn answers_come_in_the_encoding_that_the_client_takes_first() {
    let world = World::new().await;
    world.define_gateway_api().await;
    for name in ["a", "b"] {
        world
            .ask(&format!("POST {MAPS}"), config_map(name, "1"))
            .await;
    }
    world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(3))
        .await;
    let map = format!("{MAPS}/a");
    let web = format!("{DEPLOYMENTS}/web");
    for path in [
        map.as_str(),
        MAPS,
        web.as_str(),
        DEPLOYMENTS,
        "/api/v1/namespaces",
        "/api/v1/namespaces/default/pods",
    ] {
        let json = world.get(path).await.body;
        let expected = protobuf::encode(&json).unwrap();
        let (head, bytes) = fetch(&world, path, &format!("{PROTOBUF},application/json")).await;
        assert_eq!(head, format!("200 {PROTOBUF}"), "{path}");
        assert_eq!(bytes, expected, "{path}");
        let (head, bytes) = fetch(&world, path, "application/yaml, */*;q=0.1").await;
        assert_eq!(head, "200 application/yaml", "{path}");
        let yaml: Value = serde_saphyr::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap();
        assert_eq!(yaml, json, "{path}");
    }
    let heads = async |path: &str, accept: &str| fetch(&world, path, accept).await.0;
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (head, bytes) = fetch(&world, &map, &metadata).await;
    assert_eq!(head, format!("200 {PROTOBUF}"));
    let read = protobuf::decode(&bytes).unwrap().value;
    assert_eq!(
        (&read["kind"], &read["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );

    // Refusals too.
    let (head, bytes) = fetch(&world, &format!("{MAPS}/none"), PROTOBUF).await;
    assert_eq!(head, format!("404 {PROTOBUF}"));
    let refusal = protobuf::decode(&bytes).unwrap().value;
    assert_eq!(
        (&refusal["kind"], &refusal["reason"]),
        (&json!("Status"), &json!("NotFound"))
    );

    // Tables and custom resources have no binary form, and the preference is the client's, not the order's.
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1,{TABLE}");
    let classes = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
    let told = [
        heads(&map, &table).await,
        heads(classes, PROTOBUF).await,
        heads(classes, &format!("{PROTOBUF},application/json")).await,
        heads(&map, &format!("{PROTOBUF};q=0.5,application/json")).await,
        heads(&map, "text/html,application/xhtml+xml,*/*;q=0.8").await,
        heads(&map, "text/html").await,
        heads("/version", PROTOBUF).await,
        heads(&format!("{classes}?watch=true"), PROTOBUF).await,
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
    200 application/json
    406 application/json
    200 application/json
    200 application/json
    200 application/json
    406 application/json
    200 application/json
    406 application/json
    ");
}

#[tokio::test]
async fn a_watch_in_protobuf_is_frames_of_whole_events() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let path = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da&timeoutSeconds=1");
    let (head, bytes) = fetch(&world, &path, &format!("{PROTOBUF};stream=watch,*/*;q=0.1")).await;
    assert_eq!(head, format!("200 {PROTOBUF};stream=watch"));
    let json = world.get(&format!("{MAPS}/a")).await.body;
    assert_eq!(bytes, protobuf::encode_watch_frame("ADDED", &json).unwrap());
}

/// Values of a strategy, the same in every run.
fn drawn<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    let mut draw = || strategy.new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| draw()).collect()
}

#[tokio::test]
async fn no_continue_token_shows_what_was_not_asked_for() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        let created = world
            .ask(&format!("POST {MAPS}"), config_map(name, "1"))
            .await;
        assert_eq!(created.status, 201);
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let elsewhere = config_map("elsewhere", "1");
    world
        .ask("POST /api/v1/namespaces/default/secrets", secret)
        .await;
    world
        .ask("POST /api/v1/namespaces/kube-system/configmaps", elsewhere)
        .await;
    let first = world.get(&format!("{MAPS}?limit=1")).await.body;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();

    // Tokens of any key and revision, damaged ones, and what is none.
    let key = prop_oneof![
        "(/?(core|apps)/)?(configmaps|secrets|pods|a)?(/[a-z-]{0,12}){0,2}",
        any::<String>()
    ];
    let forged = (prop_oneof![Just(-1), Just(1), any::<i64>()], key).prop_map(|(rv, start)| {
        URL_SAFE_NO_PAD.encode(json!({"rv": rv, "start": start}).to_string())
    });
    let damaged =
        (any::<proptest::sample::Index>(), "[A-Za-z0-9_-]").prop_map(move |(place, letter)| {
            let place = place.index(token.len());
            format!("{}{letter}{}", &token[..place], &token[place + 1..])
        });
    let tokens = prop_oneof![4 => forged, 4 => damaged, 1 => "[A-Za-z0-9_=-]{1,40}"];
    let mut codes = std::collections::BTreeMap::new();
    for token in drawn(tokens, 600) {
        let page = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
        *codes.entry(page.status).or_insert(0) += 1;
        assert!(
            [200, 400, 410].contains(&page.status),
            "{token}: {}",
            page.line()
        );
        for item in page.body["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap();
            assert!(["a", "b", "c"].contains(&name), "{token}: {name}");
        }
    }
    // All three happened, or nothing was tried.
    assert_eq!(codes.len(), 3, "{codes:?}");
}

#[tokio::test]
async fn whatever_is_sent_as_a_credential_a_query_or_a_body_is_answered() {
    let world = World::new().await;
    let token =
        "(Bearer|Basic|basic|) ?([a-z0-9]{6}\\.[a-z0-9]{16}|[A-Za-z0-9+/=]{0,24}|[ -~]{0,12})";
    for value in drawn(token, 400) {
        let mut request = world.request(&format!("GET {MAPS}"), &[], "");
        let header = header::HeaderValue::from_str(&value).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, header);
        let status = world.send(request).await.status;
        assert!([401, 403].contains(&status), "{value}: {status}");
    }
    let query = "((labelSelector|fieldSelector|limit|timeoutSeconds|continue|x)=([a-z0-9!,()._-]|%[0-9A-F]{2}){0,12}&){0,3}";
    for query in drawn(query, 400) {
        let page = world.get(&format!("{MAPS}?{query}")).await;
        assert!(page.status < 500, "{query}: {}", page.line());
    }
    let body = prop_oneof![
        "[{}\\[\\]:,\"a-c0-9 ]{0,30}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..60),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| [
            b"k8s\0",
            bytes.as_slice()
        ]
        .concat()),
    ];
    let kinds = ["application/json", "application/yaml", PROTOBUF];
    for (turn, body) in drawn(body, 600).into_iter().enumerate() {
        let kind = kinds[turn % kinds.len()];
        let told = format!("{kind}: {body:?}");
        let mut request =
            world.request(&format!("POST {MAPS}"), &[(header::CONTENT_TYPE, kind)], "");
        *request.body_mut() = Body::from(body);
        let answer = world.send(request).await;
        assert!(
            (400..500).contains(&answer.status),
            "{told}: {}",
            answer.line()
        );
    }
}
